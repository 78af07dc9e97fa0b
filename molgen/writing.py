"""Samples → stdout, a .smi or .csv file, a picture, and one line that sums them up."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from tqdm import tqdm

from molgen.errors import MolgenError
from molgen.generator import MoleculeGenerator, Sample, Tally
from molgen.metrics.basic import basic_figures
from molgen.molecules import DRAWINGS, draw_grid
from molgen.workers import Workers

_DRAWN = 30


def check_targets(output: Path | None, grid: Path | None) -> None:
    """Raises MolgenError for a file name whose suffix says no format that can be written."""
    if output is not None and output.suffix not in (".smi", ".csv"):
        raise MolgenError(f"{output}: unknown kind of file", "use .smi or .csv")
    if grid is not None and grid.suffix not in DRAWINGS:
        raise MolgenError(f"{grid}: cannot draw into this format", f"use {' or '.join(DRAWINGS)}")


def write_samples(
    stream: Iterator[list[Sample]], n: int, tally: Tally, output: Path | None, grid: Path | None
) -> list[Sample]:
    """Writes batch by batch, whole lines only, and gives back what it wrote; the first valid ones become a picture.

    Without `output` one SMILES a line goes to stdout. A .csv file has the columns smiles, canonical and valid.
    """
    first = next(stream)  # an option that the generator refuses is said before a file is made
    written: list[Sample] = []
    with ExitStack() as stack:
        target = sys.stdout if output is None else stack.enter_context(output.open("w", encoding="utf-8"))
        table = output is not None and output.suffix == ".csv"
        bar = stack.enter_context(tqdm(total=n, desc="sampling", unit="mol", delay=1, leave=False, disable=None))
        if table:
            target.write("smiles,canonical,valid\n")
        batch: list[Sample] | None = first
        while batch is not None:
            for smiles, canonical in batch:  # no SMILES holds a comma, a quote or a line end
                valid = "true" if canonical else "false"
                target.write(f"{smiles},{canonical or ''},{valid}\n" if table else f"{smiles}\n")
            target.flush()
            written += batch
            bar.update(len(batch))
            batch = next(stream, None)
    if grid is not None:
        drawn = draw_grid([s.smiles for s in written if s.canonical][:_DRAWN], grid)
        print(f"{drawn} molecules drawn into {grid}", file=sys.stderr)
    if tally.gave_up:
        raise RuntimeError(f"fewer than 1 in 1,000 of the last 10,000 draws was kept: {tally.kept} of {n} written")
    return written


def summary(samples: list[Sample], tally: Tally, generator: MoleculeGenerator, pool: Workers) -> str:
    """One line about samples just written: draws, validity, uniqueness, novelty."""
    known = generator.training_set(pool) if generator.run and generator.run.has_molecules else None
    values = basic_figures([sample.canonical for sample in samples], known).values
    shown = [f"{k} {values[k]:.3f}" for k in ("validity", "uniqueness", "novelty") if values.get(k) is not None]
    draws = f" of {tally.draws:,} draws" if tally.draws != tally.kept else ""
    unfinished = f", {tally.unfinished} unfinished" if tally.unfinished else ""
    return f"{tally.kept:,} molecules{draws}: {', '.join(shown)}{unfinished}"
