"""What readers of files hand on: a row for each molecule, and notes on what became no row of its own."""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple


class Row(NamedTuple):
    """One molecule as the file has it."""

    number: int
    """Line of the file, counted from 1; record of an SD file; row of a parquet file."""
    smiles: str
    name: str
    split: str
    """What the file's own `split` column says, or an empty string."""
    chosen: bool = True
    """Whether the condition holds on the row's cells; True without one."""
    cells: Mapping[str, str] | None = None
    """The row's other columns, as they are; only where a reader is asked for them."""
    problem: str = ""
    """Why a record has no SMILES, as `cleaning` names its reasons; else empty."""


class Notes:
    """What a reader passes over or takes in a way of its own: counted while it streams, told at the end."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._counts: dict[str, int] = {}
        self._first: dict[str, str] = {}
        self._told: list[str] = []

    def add(self, what: str, place: str, example: str = "") -> None:
        """Counts one; the place and the example of the first are shown."""
        self._counts[what] = self._counts.get(what, 0) + 1
        if what not in self._first:
            self._first[what] = f"{place}, {shown(example)}" if example else place

    def tell(self, lines: Iterable[str]) -> None:
        """Adds lines as they are."""
        self._told += lines

    def lines(self) -> Iterator[str]:
        """A line for each kind, then the others."""
        for what, count in self._counts.items():
            yield f"{self._source}: {what}: {count:,} (the first: {self._first[what]})"
        yield from self._told


def shown(text: str) -> str:
    """A cell or a line of a file within a message: in quotes, on one line, shortened."""
    return repr(text if len(text) <= 40 else f"{text[:39]}…")
