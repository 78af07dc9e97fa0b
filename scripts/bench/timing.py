"""How things are timed: a contestant of bench.py, the same for all of them, and the products of the machine.

Imports nothing of molgen: this file runs in two environments in which that name means different packages.
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy
from torch.nn.utils import clip_grad_norm_

PAD, BOS, EOS = 0, 1, 2  # the same in molgen and in its namesake; GPT-2 is told
WARMUP = 3  # training steps that are not timed
Figures = dict[str, Any]
Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Job:
    """One measurement."""

    task: str
    who: str
    folder: str
    """Where the prepared pieces lie: corpus, sizes, weights."""
    run: str = ""
    """Our trained run."""
    device: str = "cpu"
    precision: str = "auto"
    network: str = "run"
    """Ours only: the run's network, or the source text's."""
    canonical: bool = False
    """Ours only: sample as `molgen sample` does, which has RDKit canonicalise what is drawn."""
    batches: list[int] = field(default_factory=list)
    """Sampling: sizes to try, each on its own; the fastest counts."""
    seconds: float = 3.0
    """At least so long is measured, in whole steps or batches."""
    molecules: int = 6_200
    """At most so many are trained on."""
    seed: int = 0

    def path(self, name: str) -> Path:
        return Path(self.folder) / name

    @property
    def sizes(self) -> dict[str, int]:
        """Of our run: width, blocks, heads, feedforward, context, vocabulary, batch_size, epochs, positions."""
        return dict(json.loads(self.path("sizes.json").read_text()))

    @property
    def rows(self) -> list[Ids]:
        """The training molecules as `<bos> tokens <eos>`."""
        with np.load(self.path("corpus.npz")) as arrays:
            return np.split(arrays["ids"].astype(np.int64), arrays["offsets"][1:-1])


def padded(rows: Sequence[Ids], width: int = 0) -> Tensor:
    """Rows as (B, T), T that of the longest or more."""
    result = np.full((len(rows), max(width, *(len(row) for row in rows))), PAD)
    for i, row in enumerate(rows):
        result[i, : len(row)] = row
    return torch.from_numpy(result)


def random_batches(job: Job, size: int, width: int = 0) -> Iterator[Tensor]:
    """Epoch after epoch of shuffled molecules, `size` at a time."""
    rng, rows = np.random.default_rng(job.seed), job.rows
    while True:
        order = rng.permutation(len(rows))
        for start in range(0, len(order), size):
            yield padded([rows[i] for i in order[start : start + size]], width)


def synchronized(device: str) -> float:
    """The time when the device has done what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def median_seconds(call: Callable[[], object], rounds: int = 5, warm_up: int = 1, device: str = "cpu") -> float:
    """The median time of a call, after some that are not timed."""
    times = []
    for _ in range(warm_up + rounds):
        start = synchronized(device)
        call()
        times.append(synchronized(device) - start)
    return median(times[warm_up:])


def product_rate(size: int, device: str = "cpu", dtype: torch.dtype = torch.float32) -> float:
    """FLOP per second of the product of two square matrices."""
    a = torch.randn(size, size, device=device).to(dtype)
    return 2 * size**3 / median_seconds(lambda: a @ a, rounds=6, warm_up=2, device=device)


class Window:
    """Hands out batches until the time is up, so that any training loop can be timed without a change to it.

    Counts the predicted positions, padding not, of what was handed out after the warm-up.
    """

    def __init__(self, batches: Iterator[Tensor], job: Job) -> None:
        self.batches, self.limit, self.device = batches, job.seconds, job.device
        self.tokens, self.steps, self.seconds = 0, -WARMUP, 0.0

    def __iter__(self) -> Iterator[Tensor]:
        start = time.perf_counter()
        for batch in self.batches:
            if self.steps == 0:
                start = synchronized(self.device)
            elif self.steps > 0 and time.perf_counter() - start >= self.limit:
                break
            if self.steps >= 0:
                self.tokens += int((batch != PAD).sum()) - len(batch)
            self.steps += 1
            yield batch
        self.seconds = synchronized(self.device) - start


def trained(job: Job, model: nn.Module, tokens: int, seconds: float, steps: int) -> Figures:
    """The figures of a training; an epoch is that of our corpus."""
    return {
        "tokens_per_second": tokens / seconds,
        "seconds_per_epoch": job.sizes["positions"] * seconds / tokens,
        "steps": steps,
        "seconds": seconds,
        "weights": weights_of(model),
    }


def weights_of(model: nn.Module) -> int:
    """Trainable numbers, shared ones once."""
    return sum(p.numel() for p in model.parameters())


def autocast(device: str, wanted: bool) -> AbstractContextManager[object]:
    return torch.autocast(device, torch.bfloat16) if wanted else nullcontext()


def gains_from_bf16(device: str) -> bool:
    units = torch.cpu.get_capabilities()
    return device == "cuda" or bool(units.get("avx512_bf16") or units.get("amx_bf16"))


def brief_training(job: Job, model: nn.Module, logits: Callable[[Tensor], Tensor], rows: Sequence[Ids]) -> None:
    """As many epochs as our run had, so that samples get about the lengths of the data. Not measured.

    The same quick way for each peer: batches of similar length, bf16 where it helps, AdamW with warm-up and decay.
    """
    rng, size = np.random.default_rng(job.seed), job.sizes["batch_size"]
    lengths = np.array([len(row) for row in rows])
    order = np.argsort(lengths + rng.uniform(0, 4, len(rows)), kind="stable")
    batches = [order[i : i + size] for i in range(0, len(order), size)]
    steps = [i for _ in range(job.sizes["epochs"]) for i in rng.permutation(len(batches))]
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    model.to(job.device).train()
    for step, i in enumerate(steps):
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min(1.0, (step + 1) / 50, 1.02 - step / len(steps))
        ids = padded([rows[j] for j in batches[i]]).to(job.device)
        with autocast(job.device, gains_from_bf16(job.device)), sdpa_kernel(SDPBackend.MATH):
            predicted = logits(ids[:, :-1])
        nll = cross_entropy(predicted.flatten(0, 1).float(), ids[:, 1:].flatten(), ignore_index=PAD, reduction="sum")
        optimizer.zero_grad()
        (nll / (size * lengths.mean())).backward()  # a mean in each batch would make short molecules weigh more
        clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()


def drawn(
    job: Job, model: nn.Module, draw: Callable[[int], list[str | None]], tokens: Callable[[str], int], longest: int
) -> Figures:
    """The fastest of the batch sizes, each drawn in whole batches until the time is up, after a few to warm up.

    `draw` gives texts, None for an unfinished one, which counts as the longest; `tokens` leaves `<eos>` out.
    """
    tried = []
    for batch in job.batches:
        if job.seconds:
            draw(8)
        texts: list[str | None] = []
        start = synchronized(job.device)
        while not texts or time.perf_counter() - start < job.seconds:
            texts += draw(batch)
        seconds = time.perf_counter() - start  # texts are with us: the device has finished
        total = sum(longest if text is None else tokens(text) + 1 for text in texts)
        tried.append(
            {
                "molecules_per_second": len(texts) / seconds,
                "tokens_per_second": total / seconds,
                "tokens_per_molecule": total / len(texts),
                "unfinished": sum(text is None for text in texts),
                "molecules": len(texts),
                "seconds": seconds,
                "batch": batch,
                "weights": weights_of(model),
            }
        )
    best = max(tried, key=lambda one: one["molecules_per_second"])
    return best | {"by_batch": {one["batch"]: one["molecules_per_second"] for one in tried}}


def tokens_by(tokenizer: Any) -> Callable[[str], int]:
    """Tokens of a sample as our tokenizer splits them."""
    return lambda text: len(tokenizer.splitter.split(text) or ())
