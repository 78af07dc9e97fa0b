"""Samples → stdout, a .smi or .csv file, a picture, and one line that sums them up."""

import io
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TextIO, cast

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from molgen.errors import MolgenError
from molgen.generator import MoleculeGenerator, Sample, Tally
from molgen.metrics.known import keys_of
from molgen.molecules import DRAWINGS, draw_grid
from molgen.processes import ALONE, Team, say, silent
from molgen.workers import Workers

_DRAWN = 30


@dataclass
class Written:
    """What a summary needs of samples that are no longer held: ten million of them take 80 MB."""

    valid: int = 0
    keys: list[npt.NDArray[np.uint64]] = field(default_factory=list)
    """A number for the canonical SMILES of each valid sample, batch by batch."""
    drawable: list[str] = field(default_factory=list)
    """The first valid ones."""

    def add(self, batch: list[Sample]) -> None:
        """Takes note of samples."""
        valid = [sample for sample in batch if sample.canonical]
        self.valid += len(valid)
        self.keys.append(keys_of(sample.canonical or "" for sample in valid))
        self.drawable += [sample.smiles for sample in valid[: _DRAWN - len(self.drawable)]]

    def gathered(self, team: Team) -> "Written":
        """The same of all processes together."""
        keys = team.gather(np.concatenate([np.empty(0, np.uint64), *self.keys]).view(np.int64)).view(np.uint64)
        drawable = _gathered_text("".join(f"{smiles}\n" for smiles in self.drawable), team).split()
        return Written(len(keys), [keys], drawable[:_DRAWN])


def check_targets(output: Path | None, grid: Path | None) -> None:
    """Raises MolgenError for a file name whose suffix says no format that can be written."""
    if output is not None and output.suffix not in (".smi", ".csv"):
        raise MolgenError(f"{output}: unknown kind of file", "use .smi or .csv")
    if grid is not None and grid.suffix not in DRAWINGS:
        raise MolgenError(f"{grid}: cannot draw into this format", f"use {' or '.join(DRAWINGS)}")


def write_samples(
    stream: Iterator[list[Sample]], n: int, tally: Tally, output: Path | None, grid: Path | None, team: Team = ALONE
) -> Written:
    """Writes batch by batch, whole lines only, and sums up what it wrote; the first valid ones become a picture.

    Without `output` one SMILES a line goes to stdout. A .csv file has the columns smiles, canonical and valid.
    In a team each process writes a file of its own beside `output`; when all are done the leader puts them together.
    """
    first = next(stream, [])  # an option that the generator refuses is said before a file is made
    written = Written()
    table = output is not None and output.suffix == ".csv"
    with ExitStack() as stack:
        target: TextIO = sys.stdout if team.size == 1 else io.StringIO()
        if output is not None:
            path = output if team.size == 1 else _part(output, team.rank)
            target = stack.enter_context(path.open("w", encoding="utf-8"))
        bar = stack.enter_context(
            tqdm(total=team.part(n), desc="sampling", unit="mol", delay=1, leave=False, disable=silent())
        )
        if table and team.leads:
            target.write("smiles,canonical,valid\n")
        for batch in chain([first], stream):
            for smiles, canonical in batch:  # no SMILES holds a comma, a quote or a line end
                valid = "true" if canonical else "false"
                target.write(f"{smiles},{canonical or ''},{valid}\n" if table else f"{smiles}\n")
            target.flush()
            written.add(batch)
            bar.update(len(batch))
    if team.size > 1:
        written = written.gathered(team)
        tally.gather(team)
        _put_together(output, target, team)
    if grid is not None and team.leads:
        drawn = draw_grid(written.drawable, grid)
        say(f"{drawn} molecules drawn into {grid}")
    if tally.gave_up:
        raise RuntimeError(f"fewer than 1 in 1,000 of the last 10,000 draws was kept: {tally.kept} of {n} written")
    return written


def summary(written: Written, tally: Tally, generator: MoleculeGenerator, pool: Workers) -> str:
    """One line about samples just written: draws, validity, uniqueness, novelty."""
    distinct = np.unique(np.concatenate(written.keys))
    figures = {"validity": written.valid / tally.kept}
    if len(distinct):
        figures["uniqueness"] = len(distinct) / written.valid
        if generator.run and generator.run.has_molecules:
            figures["novelty"] = float(np.isin(distinct, keys_of(generator.training_set(pool)), invert=True).mean())
    shown = ", ".join(f"{name} {value:.3f}" for name, value in figures.items())
    draws = f" of {tally.draws:,} draws" if tally.draws != tally.kept else ""
    unfinished = f", {tally.unfinished} unfinished" if tally.unfinished else ""
    return f"{tally.kept:,} molecules{draws}: {shown}{unfinished}"


def _part(output: Path, rank: int) -> Path:
    return output.with_name(f"{output.name}.part{rank}")


def _put_together(output: Path | None, target: TextIO, team: Team) -> None:
    """The parts of all processes, in their order: appended to the leader's file, which then takes its name."""
    if output is None:
        text = _gathered_text(cast(io.StringIO, target).getvalue(), team)
        if team.leads:
            sys.stdout.write(text)
    elif team.leads:
        whole, *others = (_part(output, rank) for rank in range(team.size))
        with whole.open("ab") as file:
            for part in others:
                with part.open("rb") as source:
                    shutil.copyfileobj(source, file)
            file.flush()
            os.fsync(file.fileno())
        whole.replace(output)
        for part in others:
            part.unlink()


def _gathered_text(text: str, team: Team) -> str:
    return team.gather(np.frombuffer(text.encode(), np.uint8)).tobytes().decode()
