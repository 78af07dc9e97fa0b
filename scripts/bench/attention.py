"""Each kind of attention against the length: time of a training step, memory, speed of decoding, size of the state.

    python scripts/bench/attention.py --out runs/attention-bench.json --write docs/attention.png

One training step is forward, loss and gradient of one molecule of T tokens for a network of 1.0 M weights and its
head's vocabulary of 40 tokens, in bf16 where the processor has it. Each point is a process of its own, so that its peak
of memory is its own: what is counted is the peak less that of the same process with T = 64. Decoding takes 32 rows and
times the last 32 positions before T. Beside the time on the clock stands the processor's, which other work on the
machine hardly changes if the bench has one thread (OMP_NUM_THREADS=1). A point that is in the file already is not
measured again; one that takes more than the limit is noted as such.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

KINDS = ("full", "full-plain", "full-checkpointed", "window", "performer", "linear", "linformer", "reformer")
LENGTHS = (64, 256, 1_024, 4_096, 16_384)
VOCABULARY, ROWS, TIMED = 40, 32, 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the JSON file of the figures")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--lengths", nargs="+", type=int, default=LENGTHS, help="tokens of a molecule")
    parser.add_argument("--repeats", type=int, default=5, help="timed steps of a point (5), the median counts")
    parser.add_argument("--limit", type=float, default=600.0, help="seconds that a point may take (600)")
    parser.add_argument("--write", type=Path, help="draw the figure into this file")
    parser.add_argument("--point", nargs=2, metavar=("KIND", "T"), help="measure one point in this process")
    options = parser.parse_args()
    if options.point:
        print(json.dumps(measured(options.point[0], int(options.point[1]), options.repeats)))
        return
    figures: dict[str, Any] = json.loads(options.out.read_text()) if options.out.exists() else {}
    for length in options.lengths:
        for kind in options.kinds:
            key = f"{kind} {length}"
            if key not in figures:
                figures[key] = in_a_process(kind, length, options.repeats, options.limit)
                options.out.parent.mkdir(parents=True, exist_ok=True)
                options.out.write_text(json.dumps(figures, indent=1))
            print(key, figures[key], flush=True)
    print("\n".join(table(figures)))
    if options.write:
        draw(figures, options.write)


def in_a_process(kind: str, length: int, repeats: int, limit: float) -> dict[str, Any]:
    """One point; {"failed": why} if the process ends without figures."""
    command = [sys.executable, __file__, "--out", "-", "--repeats", str(repeats), "--point", kind, str(length)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        return {"failed": f"more than {limit:g} s"}
    if done.returncode:
        return {"failed": f"exit code {done.returncode}: {(done.stderr.strip().splitlines() or [''])[-1][:200]}"}
    return dict(json.loads(done.stdout))


def measured(kind: str, length: int, repeats: int) -> dict[str, float]:
    """The figures of one point."""
    import torch

    from molgen.config import ModelConfig
    from molgen.model import attention
    from molgen.model.build import build_model

    name, _, variant = kind.partition("-")
    attention.MOST_PLAIN = 10**9 if variant == "plain" else attention.MOST_PLAIN
    config = ModelConfig.model_validate({"context": max(LENGTHS) + 1, "attention": name, "dropout": 0.0})
    model = build_model(config, VOCABULARY).train()
    model.gradient_checkpointing = variant == "checkpointed"
    step_seconds(model, 64, 1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds, of_processor = zip(*step_seconds(model, length, repeats), strict=True)
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    caches = model.empty_state(1, length).caches
    decoding, decoding_of_processor = decoding_seconds(model.eval(), length)
    return {
        "step_seconds": median(seconds),
        "step_cpu_seconds": median(of_processor),
        "peak_bytes": peak,
        "state_bytes": sum(map(size_of, caches)),
        "decoded_per_second": ROWS * TIMED / decoding,
        "decoded_per_cpu_second": ROWS * TIMED / decoding_of_processor,
        "threads": torch.get_num_threads(),
    }


def step_seconds(model: Any, length: int, repeats: int) -> list[tuple[float, float]]:
    """Times of a forward pass with its gradient, on the clock and of the processor, after one that is not counted."""
    import torch

    from molgen.model.likelihood import token_nll
    from molgen.runtime.device import autocast

    parameters = [p for p in model.parameters() if p.requires_grad]
    ids = torch.randint(3, VOCABULARY, (1, length + 1), generator=torch.Generator().manual_seed(0))
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter(), time.process_time()
        with autocast("auto", torch.device("cpu")):
            loss = token_nll(model(ids[:, :-1]), ids[:, 1:]).sum()
        torch.autograd.grad(loss, parameters, allow_unused=True)
        seconds.append((time.perf_counter() - start[0], time.process_time() - start[1]))
    return seconds[1:]


def decoding_seconds(model: Any, length: int) -> tuple[float, float]:
    """Time of 32 steps of 32 rows whose states hold almost `length` positions: on the clock and of the processor."""
    import torch

    ids = torch.full((ROWS, 1), 5)
    with torch.no_grad():
        state = model.empty_state(ROWS, length)._replace(
            length=length - TIMED - 2
        )  # of zeros; their values cost the same
        for place in range(TIMED + 2):
            if place == 2:  # the first two are not counted
                start = time.perf_counter(), time.process_time()
            _, state = model.step(ids, state)
        return time.perf_counter() - start[0], time.process_time() - start[1]


def size_of(cache: Any) -> int:
    """Bytes of a cache's tensors."""
    return sum(part.numel() * part.element_size() for part in tensors_in(cache))


def tensors_in(cache: Any) -> Iterator[Any]:
    """The tensors of a cache, which may hold a cache."""
    for part in cache:
        if hasattr(part, "numel"):
            yield part
        elif isinstance(part, tuple):
            yield from tensors_in(part)


def table(figures: dict[str, Any]) -> Iterator[str]:
    """The figures as a Markdown table."""
    yield "| kind | T | step, s | processor, s | peak, MB | decoding, tokens/s | per processor second | state, MB |"
    yield "|---|---|---|---|---|---|---|---|"
    for key, point in figures.items():
        kind, length = key.split()
        if "failed" in point:
            yield f"| {kind} | {int(length):,} | {point['failed']} | | | | | |"
        else:
            yield (
                f"| {kind} | {int(length):,} | {point['step_seconds']:.3f} | "
                f"{point['step_cpu_seconds']:.3f} | {point['peak_bytes'] / 1e6:,.0f} | "
                f"{point['decoded_per_second']:,.0f} | {point['decoded_per_cpu_second']:,.0f} | "
                f"{point['state_bytes'] / 1e6:.2f} |"
            )


def draw(figures: dict[str, Any], path: Path) -> None:
    """Step time, memory, decoding and state against T, a line per kind."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = {
        "step_cpu_seconds": "training step, processor s",
        "peak_bytes": "peak of memory over T = 64, bytes",
        "decoded_per_cpu_second": "decoding, tokens per processor s",
        "state_bytes": "state per row, bytes",
    }
    figure = Figure(figsize=(15, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    for axis, (key, label) in zip(figure.subplots(1, 4), names.items(), strict=True):
        for kind in KINDS:
            own = {int(k.split()[1]): p for k, p in figures.items() if k.split()[0] == kind and key in p}
            points = [(t, p[key]) for t, p in own.items() if key != "peak_bytes" or t > min(LENGTHS)]
            if points:
                axis.plot(*zip(*sorted(points), strict=True), "o-", markersize=3, label=kind)
        axis.set(xscale="log", yscale="log", xlabel="tokens of a molecule", ylabel=label)
        axis.spines[["top", "right"]].set_visible(False)
    figure.axes[0].legend(frameon=False, fontsize=7)
    figure.savefig(path, dpi=130)


if __name__ == "__main__":
    main()
