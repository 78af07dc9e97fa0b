"""Runs MOSES' own metric code beside `molgen eval --metrics moses`: figures, differences, seconds, memory.

    python scripts/bench/compare_moses.py FILE... [--n N] [--environment DIR] [--jobs 2] [--rounds 1] [--json OUT]

A FILE has one SMILES a line and no heading; the word `train` means N random lines of MOSES' training split. The first
call makes the environment: MOSES' wheel with the numpy, scipy and pandas of its day; the rest, torch and RDKit among
it, is the running interpreter's. `seconds` leave the start-up of both sides out, `whole command` has it in; molgen has
its reference figures cached. Memory is the peak of the largest process of each side. For Linux.
"""

import argparse
import gzip
import heapq
import json
import random
import sys
import tempfile
from math import isnan, nan
from pathlib import Path
from statistics import median

from child import FailedError, measured_run
from molgen.data.download import MOSES_PACKAGE, MOSES_SHA256, fetch
from peer_environment import Package, peer_python

# Newer ones need shims (np.NaN, np.row_stack, DataFrame.append) and are no faster; numpy < 1.25 stops matplotlib.
MOSES = Package(
    MOSES_PACKAGE,
    MOSES_SHA256,
    pins=("numpy==1.26.4", "scipy==1.11.4", "pandas==1.5.3", "pytz==2023.3", "fcd_torch==1.0.7"),
)
COSTS = ("seconds", "whole command", "peak MiB")
# What the environment's interpreter runs: input file, jobs, output file.
DRIVER = """
import json, sys, time, types
six = types.ModuleType("rdkit.six")  # RDKit dropped it; MOSES' copy of the SA score imports it
six.iteritems = lambda mapping: iter(mapping.items())
sys.modules["rdkit.six"] = six
from moses.metrics.metrics import get_all_metrics
start = time.perf_counter()
with open(sys.argv[1], encoding="utf-8") as file:
    smiles = [(line.split() or [""])[0] for line in file]
figures = get_all_metrics(smiles, n_jobs=int(sys.argv[2]))
seconds = time.perf_counter() - start
with open(sys.argv[3], "w") as file:
    json.dump({name: float(value) for name, value in figures.items()} | {"seconds": {"total": seconds}}, file)
"""
Figures = dict[str, float]


def run(command: list[str], out: Path | None = None) -> Figures:
    """What a command takes, and the figures it writes to `out`. Its output is shown only if it fails."""
    try:
        cost = measured_run(command)
    except FailedError as error:
        raise SystemExit(f"{error.output}\n{command[:3]}...: {error}") from None
    written = json.loads(out.read_text()) if out else {}
    own = written.get("seconds", {}).get("total", nan)
    figures = {name: value for name, value in written.items() if isinstance(value, int | float)}
    return figures | dict(zip(COSTS, (own, *cost), strict=True))


def compare(sides: dict[str, list[Figures]]) -> dict[str, Figures]:
    """By figure the medians of both sides and their absolute difference, by cost their ratio; no NaN, but a gap."""
    rows = {}
    for name in sides["moses"][0]:
        row = {side: median(figures.get(name, nan) for figures in rounds) for side, rounds in sides.items()}
        theirs, ours = row["moses"], row.get("molgen", nan)
        row |= {"ratio": theirs / ours} if name in COSTS else {"difference": abs(theirs - ours)}
        rows[name] = {key: value for key, value in row.items() if not isnan(value)}
    return rows


def table(rows: dict[str, Figures]) -> str:
    """The comparison of one file for people."""
    lines = [f"{'':<14}{'MOSES':>14}{'molgen':>14}{'difference':>14}{'ratio':>8}"]
    for name, row in rows.items():
        style = ".1f" if name in COSTS else ".6f"
        columns = {"moses": f"14{style}", "molgen": f"14{style}", "difference": "14.1e", "ratio": "8.2f"}
        cells = (format(row[k], c) if k in row else "-".rjust(int(c.split(".")[0])) for k, c in columns.items())
        lines.append(f"{name:<14}" + "".join(cells))
    return "\n".join(lines)


def training_lines(n: int, target: Path) -> Path:
    """Writes n random molecules of MOSES' training split, the same each time."""
    draw = random.Random(0)
    with gzip.open(fetch("moses")[0], "rt") as lines:
        next(lines)  # the heading; the rest is never all in memory, for a child's peak starts at its parent's
        target.write_text("".join(heapq.nsmallest(n, lines, key=lambda _: draw.random())))
    return target


def main() -> None:
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("files", nargs="+", metavar="FILE", help="one SMILES a line; `train`: lines of MOSES' own")
    parser.add_argument("--n", type=int, default=2000, help="lines that `train` draws")
    parser.add_argument("--environment", type=Path, default=".venv-moses", help="where MOSES' code is put")
    parser.add_argument("--jobs", type=int, default=2, help="processes that MOSES' code takes")
    parser.add_argument("--rounds", type=int, default=1, help="alternations that medians are taken of")
    parser.add_argument("--skip-molgen", action="store_true", help="run MOSES' own code only")
    parser.add_argument("--json", type=Path, help="also write everything here")
    args = parser.parse_args()
    try:
        python = peer_python(args.environment.absolute(), MOSES)
    except FailedError as error:
        raise SystemExit(str(error)) from None
    results: dict[str, dict[str, Figures]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        out = Path(temporary) / "out.json"
        for name in args.files:
            file = training_lines(args.n, Path(temporary) / "train.smi") if name == "train" else Path(name)
            commands = {"moses": [python, "-I", "-c", DRIVER, str(file), str(args.jobs), str(out)]}
            if not args.skip_molgen:
                options = ["--metrics", "moses", "--train", "moses", "--json", str(out), "--force"]
                commands["molgen"] = [sys.executable, "-m", "molgen", "eval", str(file), *options]
                run(commands["molgen"])  # caches the reference figures, some of which depend on n
            sides: dict[str, list[Figures]] = {side: [] for side in commands}
            for _ in range(args.rounds):
                for side, command in commands.items():
                    sides[side].append(run(command, out))
            results[name] = compare(sides)
            print(f"{name}: {len(file.read_bytes().splitlines()):,} lines, {args.jobs} jobs, {args.rounds} round(s)")
            print(table(results[name]), end="\n\n", flush=True)
    if args.json:
        args.json.write_text(json.dumps({"jobs": args.jobs, "rounds": args.rounds, "files": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
