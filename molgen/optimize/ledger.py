"""scored.csv: every molecule that was scored, in the order of the calls. What is in it is never scored again.

A row is on the disk before the state that counts it. So after a kill the file may be ahead of the state: then its rows
are taken as the answers for the same molecules, and keep their numbers.
"""

import csv
import io
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from molgen.errors import MolgenError
from molgen.runtime.files import opened

_FIXED = ("call", "stage", "smiles", "canonical", "total", "origin", "problem")


class Record(NamedTuple):
    """One call."""

    call: int
    """Counted from 1."""
    stage: int
    """Counted from 0."""
    smiles: str
    """As it was drawn or made."""
    canonical: str
    total: float
    """NaN if the scorer failed."""
    origin: str
    """agent, completion, genetic or rescored."""
    problem: str
    """Why it has no total."""
    raw: tuple[float, ...]
    """One per component."""
    scores: tuple[float, ...]


class Ledger:
    """The records of a run, in memory and in its scored.csv."""

    def __init__(self, path: Path, components: Sequence[str]) -> None:
        """Reads the file if it is there. Raises MolgenError for one of other components, and for damage.

        A last line that a kill has cut short is removed.
        """
        self.path = path
        self.columns = (*_FIXED, *(f"{name}_{kind}" for name in components for kind in ("raw", "score")))
        self.records: list[Record] = []
        if os.path.lexists(path):
            self._read()
        else:
            self._append(self.columns, sync=True)

    def add(self, record: Record, sync: bool) -> None:
        """Appends a record; with `sync` it is on the disk when this returns, else a loss of power may lose it."""
        call, stage, smiles, canonical, total, origin, problem, raw, scores = record
        pairs = [_cell(value) for pair in zip(raw, scores, strict=True) for value in pair]
        self._append([call, stage, smiles, canonical, _cell(total), origin, problem, *pairs], sync)
        self.records.append(record)

    def sync(self) -> None:
        """Waits until all records are on the disk."""
        with opened(self.path) as file:
            os.fsync(file.fileno())

    def _append(self, cells: Sequence[object], sync: bool) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow(cells)
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        with os.fdopen(handle, "ab") as file:
            file.write(text.getvalue().encode())
            file.flush()
            if sync:
                os.fsync(file.fileno())

    def _read(self) -> None:
        with opened(self.path) as file:
            content = file.read()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            os.truncate(self.path, len(whole))
        try:
            rows = list(csv.reader(io.StringIO(whole.decode(), newline=""), strict=True))
            if not rows or tuple(rows[0]) != self.columns:
                raise ValueError("its columns are not those of the objective")
            self.records = [self._record(i, row) for i, row in enumerate(rows[1:], 1)]
        except (ValueError, csv.Error) as error:
            raise MolgenError(f"{self.path}: cannot be read: {error}", "restore the file, or start anew") from None

    def _record(self, number: int, row: Sequence[str]) -> Record:
        if len(row) != len(self.columns) or row[0] != str(number):
            raise ValueError(f"line {number + 1} is not call {number}")
        numbers = [_number(cell) for cell in row[len(_FIXED) :]]
        stage, smiles, canonical, total, origin, problem = row[1 : len(_FIXED)]
        raw, scores = tuple(numbers[::2]), tuple(numbers[1::2])
        return Record(number, int(stage), smiles, canonical, _number(total), origin, problem, raw, scores)


def _cell(value: float) -> str:
    """Enough digits to read the same number again; empty for NaN."""
    return "" if math.isnan(value) else repr(value)


def _number(cell: str) -> float:
    return float(cell) if cell else math.nan
