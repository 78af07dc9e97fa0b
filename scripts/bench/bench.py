"""Measures molgen beside other programs of equal size on the same molecules: training, sampling, start-up, memory.

    python scripts/bench/bench.py [--rounds 3] [--device cpu] [--data auto] [--json FILE] [--write docs/benchmarks.md]

Who takes part, and how, is in peers.py; what the figures mean is in docs/benchmarks.md. Every measurement has a
process of its own, the contestants take turns, and a figure is the median of the rounds. For Linux.
"""

import argparse
import csv
import gzip
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import comparison as rows
from child import FailedError, measured_run
from comparison import (
    COLUMNS,
    HEADINGS,
    NO_BF16,
    TARGETS,
    Figures,
    Rounds,
    add_floors,
    medians,
    ratio,
    replaced,
    table,
)
from molgen.runtime.device import cpu_name, memory_of_machine
from peer_environment import Package, peer_python

# Nothing heavy is imported here: a child's peak of memory starts at its parent's.

ROOT = Path(__file__).parents[2]
PEERS = Path(__file__).with_name("peers.py")
NAMESAKE = Package("molgen==0.2.0", "c10bd481beee7153472dd166672490896b43844e2fd9818a3345ff3abfdfddb8")
MOSES_TRAINING = 1_584_663
FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
TINY = ("model.width=32", "model.blocks=2", "model.heads=2", "model.head_width=16", "model.feedforward=64")
MOLGEN = (sys.executable, "-m", "molgen")


class Entry(NamedTuple):
    """One measurement of a round: a job of peers.py, or a whole command that is timed."""

    section: str
    row: str
    who: str
    job: Figures = {}  # noqa: RUF012
    command: tuple[str, ...] = ()


class Bench:
    """Runs entries and keeps their figures."""

    def __init__(self, folder: Path, environment: dict[str, str], namesake: str, together: bool) -> None:
        self.folder, self.environment, self.namesake = folder, environment, namesake
        self.together = together
        """Whether the entries of one contestant share a process: quicker, and no measurement of memory."""
        self.rounds: Rounds = {}
        self.broken: dict[str, str] = {}
        """Contestants that could not be prepared, and why."""
        self.bf16 = True
        """Whether the machine has units for bf16; without, PyTorch takes minutes for one product."""

    def perform(self, entries: Sequence[Entry]) -> None:
        """Measures entries in turn. A peer may fail, and the table says so; molgen may not."""
        groups: dict[object, list[Entry]] = {}
        for i, entry in enumerate(entries):
            groups.setdefault(entry.who if self.together and not entry.command else i, []).append(entry)
        for group in groups.values():
            who = group[0].who
            try:
                if who in self.broken:
                    raise FailedError(self.broken[who])
                if not self.bf16 and group[0].job.get("precision") == "bf16":
                    raise FailedError(NO_BF16)
                results = self._measure(group)
            except FailedError as error:
                if who == "ours":
                    raise SystemExit(f"{group[0].row}: {error}") from None
                results = [{"failed": str(error)}] * len(group)
                if group[0].section == "prepare":
                    self.broken[who] = str(error)
            for entry, figures in zip(group, results, strict=True):
                self.rounds.setdefault(entry.section, {}).setdefault(entry.row, []).append(figures)
                columns = (name for name, _ in COLUMNS.get(entry.section, ()) if name in figures)
                shown = ", ".join(f"{HEADINGS.get(name, name)} {figures[name]:,.1f}" for name in columns)
                log(f"{entry.section}: {entry.row}: {shown or figures.get('failed', 'done')}")

    def _measure(self, group: Sequence[Entry]) -> list[Figures]:
        first = group[0]
        if first.command:
            return [self._cost(first.command)]
        # without PYTHONPATH, which leads to our molgen, as does the folder in which the user is
        python = (self.namesake, "-E", "-s") if first.who == "namesake" else (sys.executable,)
        out = self.folder / "out.json"
        jobs = [entry.job | {"who": entry.who} for entry in group]
        cost = self._cost((*python, str(PEERS), json.dumps(jobs), str(out)))
        return [figures | cost for figures in json.loads(out.read_text())]

    def _cost(self, command: Sequence[str]) -> Figures:
        cost = measured_run(command, self.environment)
        return {"wall_seconds": cost.seconds, "peak_mib": cost.peak_mib}


def tox21_folder() -> Path | None:
    """Where Tox21 lies, if it does: nothing is fetched."""
    folders = [Path(os.environ.get("MOLGEN_DATA", ROOT / "data")), ROOT.parent / "shared" / "data"]
    return next((folder for folder in folders if (folder / "tox21.csv.gz").exists()), None)


def train_run(args: argparse.Namespace, data: str, folder: Path, environment: dict[str, str]) -> Path:
    """A run of ours, trained for a short while as a user would: a fresh network's samples have other lengths."""
    settings = ["training.seed=0", "training.randomized=0.0", "training.randomized_end=0.0", "model.dropout=0.0"]
    options = []
    if args.quick:
        with gzip.open(ROOT / "data" / "moses-mini.csv.gz", "rt", encoding="utf-8") as lines:
            molecules = [row["smiles"] for row in islice(csv.DictReader(lines), 200)]
        data = str(folder / "few.smi")
        Path(data).write_text("\n".join(molecules) + "\n")
        settings += [*TINY, "training.epochs=12", "training.batch_size=16", "training.learning_rate=1e-2"]
    elif args.device == "cuda":
        settings += ["training.epochs=20"]
        options = ["--config", "moses"]
    else:
        settings += ["training.epochs=1"]
    options += [part for setting in settings for part in ("--set", setting)]
    log(f"training a run on {data}")
    measured_run((*MOLGEN, "train", data, *options, "--device", args.device, "--out", str(folder / "run")), environment)
    return folder / "run"


def preparation(args: argparse.Namespace, base: Figures) -> list[Entry]:
    """What happens before the rounds: what peers need of our run, and their own brief training."""
    # our network is another on a GPU, so the source text's is not compared there
    peers = [] if args.quick else ["source"] * (args.device == "cpu") + ["namesake"]
    entries = [Entry("prepare", who, who, base | {"task": "prepare"}) for who in ["ours", "transformers", *peers]]
    return [*entries, Entry("prepare", "facts", "ours", base | {"task": "facts"})]


def one_round(
    args: argparse.Namespace, base: Figures, namesake: str, number: int, has_bf16: bool = True
) -> list[Entry]:
    """What each round measures."""
    cuda, quick = args.device == "cuda", args.quick
    train = base | {"task": "train", "seed": number, "seconds": 0.2 if quick else 3.0}
    sample = base | {"task": "sample", "seed": number, "seconds": 0.0 if quick else 2.0}
    own, gpt2, theirs = [[2048], [64, 256], [64]]
    if cuda:
        own, gpt2, theirs = [[1024, 4096, 16384], [1024, 4096, 16384], [256]]
    fp32, bf16, same = {"precision": "fp32"}, {"precision": "bf16"}, {"network": "source"}
    ten: tuple[str, ...] = ("sample", base["run"], "-n", "10", "--device", args.device)
    entries = [
        Entry("machine", "large products", "ours", base | {"task": "matrix"} | ({} if has_bf16 else fp32)),
        Entry("training", rows.OURS, "ours", train),
        Entry("training", rows.GPT2_FP32, "transformers", train | fp32),
        Entry("sampling", rows.OURS, "ours", sample | {"batches": own}),
        Entry("sampling", rows.GPT2_FP32, "transformers", sample | fp32 | {"batches": gpt2[: 1 if quick else 3]}),
        Entry("start-up", "molgen --help", "ours", command=(*MOLGEN, "--help")),
        Entry("start-up", "molgen sample -n 10", "ours", command=(*MOLGEN, *ten)),
    ]
    if quick:
        return entries
    few = {"batches": [10], "seconds": 0.0}
    entries += [
        Entry("training", rows.OURS_FP32, "ours", train | fp32),
        Entry("training", rows.GPT2_BF16, "transformers", train | bf16),
        Entry("sampling", rows.GPT2_BF16, "transformers", sample | bf16 | {"batches": gpt2}),
        Entry("sampling", "molgen, canonical forms too", "ours", sample | {"batches": own, "canonical": True}),
        Entry("start-up", "transformers, 10 molecules", "transformers", sample | few),
    ]
    if not cuda:
        entries += [
            Entry("training", rows.SOURCE, "source", train),
            Entry("training", rows.SAME, "ours", train | same),
            Entry("sampling", rows.SOURCE, "source", sample | {"batches": theirs}),
            Entry("sampling", rows.SAME, "ours", sample | same | {"batches": own}),
        ]
    command = (namesake, "-I", "-c", "from molgen.cli import main; main()")
    ten = ("sample", "--checkpoint", f"{base['folder']}/namesake.pt", "--num", "10")
    return [
        *entries,
        Entry("training", rows.NAMESAKE, "namesake", train),
        Entry("sampling", rows.NAMESAKE, "namesake", sample | {"batches": theirs}),
        Entry("start-up", "molgen 0.2.0 --help", "namesake", command=(*command, "--help")),
        Entry("start-up", "molgen 0.2.0 sample --num 10", "namesake", command=(*command, *ten)),
    ]


def hardware() -> Figures:
    """The processor, its units, its cores and the memory."""
    info = Path("/proc/cpuinfo")
    units = set(info.read_text().partition("flags")[2].partition("\n")[0].split()) if info.exists() else set()
    return {
        "cpu": cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "flags": [flag for flag in FLAGS if flag in units],
        "memory_gib": round(memory_of_machine() / 2**30, 1),
        "platform": platform.platform(),
    }


def report(results: Figures) -> str:
    """What the figures were measured on, the tables, and for a GPU what ten epochs of all of MOSES would take."""
    machine, facts, data = results["hardware"], results["facts"], results["data"]
    versions, settings = facts["versions"], results["settings"]
    text = f"""\
{results["date"]}; {machine["cpu"]}, {machine["cores"]} cores, {" ".join(machine["flags"]) or "no AVX"}, \
{machine["memory_gib"]} GiB; {facts["accelerator"] or "no GPU"}
Python {versions["python"]}, torch {versions["torch"]}, transformers {versions["transformers"]}; \
threads: {settings["threads"]}, rounds: {settings["rounds"]}, {results["seconds"] / 60:.1f} minutes in all, \
load before {results["load_before"]:.1f}
{data["molecules"]:,} training molecules of {Path(data["source"]).name}, \
{data["tokens_per_molecule"]:.1f} tokens each with <eos>, at most {data["longest"]}

{table(results["rounds"])}"""
    if settings["device"] == "cuda":
        tokens = 10 * MOSES_TRAINING * data["tokens_per_molecule"]
        rates = {row: figures.get("tokens_per_second") for row, figures in results["medians"]["training"].items()}
        text += f"\n\n{'10 epochs of MOSES, projected':<32}{'seconds':>13}"
        text += "".join(f"\n  {row:<30}{tokens / rate:>13,.0f}" for row, rate in rates.items() if rate)
    return text


def log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def measured(args: argparse.Namespace) -> Figures:
    """Everything that is written as JSON."""
    began, load = time.time(), os.getloadavg()[0]
    environment = dict(os.environ) | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    environment["OMP_NUM_THREADS"] = str(args.threads)
    data, tox21 = args.data, tox21_folder()
    if data == "auto":
        data = "tox21" if tox21 and args.device == "cpu" else "moses-mini"
    if tox21:
        environment["MOLGEN_DATA"] = str(tox21)
    namesake, broken = "", {}
    if not args.quick:
        try:
            namesake = peer_python(args.environment.absolute(), NAMESAKE)
        except FailedError as error:
            broken["namesake"] = str(error)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        bench = Bench(folder, environment, namesake, args.quick)
        bench.broken |= broken
        trained = args.run.absolute() if args.run else train_run(args, data, folder, environment)
        base: Figures = {"folder": temporary, "run": str(trained), "device": args.device}
        base["molecules"] = 20_000 if args.device == "cuda" else 6_200
        bench.perform(preparation(args, base))
        bench.bf16 = bench.rounds["prepare"]["facts"][0]["bf16"]
        for number in range(args.rounds):
            bench.perform(one_round(args, base, namesake, number, bench.bf16))
    prepared = bench.rounds.pop("prepare")
    add_floors(bench.rounds)
    summary = medians(bench.rounds)
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime(began)),
        "seconds": time.time() - began,
        "settings": {"rounds": args.rounds, "device": args.device, "threads": args.threads, "quick": args.quick},
        "seeds": {"weights": 0, "rounds": list(range(args.rounds))},
        "hardware": hardware(),
        "load_before": load,
        "facts": prepared["facts"][0],
        "data": prepared["ours"][0],
        "rounds": bench.rounds,
        "medians": summary,
        "ratios": [target._asdict() | {"ratio": ratio(summary, target)} for target in TARGETS],
    }


def main(arguments: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="alternations that medians are taken of (3)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="cuda: the `moses` recipe's network")
    parser.add_argument("--data", choices=("auto", "tox21", "moses-mini"), default="auto", help="auto: tox21 if here")
    parser.add_argument("--run", type=Path, help="a run of molgen's to measure instead of training one")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of everyone (all cores)")
    parser.add_argument("--environment", type=Path, default=ROOT / ".venv-peers", help="where molgen 0.2.0 is put")
    parser.add_argument("--quick", action="store_true", help="seconds instead of minutes: shows only that it runs")
    parser.add_argument("--json", type=Path, help="also write everything here, each round's figures too")
    parser.add_argument("--write", type=Path, help="also put the tables between the marks of this document")
    args = parser.parse_args(None if arguments is None else list(arguments))
    args.rounds = 1 if args.quick else args.rounds
    results = measured(args)
    text = report(results)
    print(text)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(results, indent=1) + "\n")
    if args.write:
        args.write.write_text(replaced(args.write.read_text(encoding="utf-8"), f"```text\n{text}\n```"))


if __name__ == "__main__":
    main()
