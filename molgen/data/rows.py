"""The output of all file readers: one row per molecule, and notes on lines that were skipped or joined."""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple


class Row(NamedTuple):
    """One molecule of a file, not cleaned."""

    number: int
    """Line of the file, counted from 1; record of an SD file; row of a parquet file."""
    smiles: str
    name: str
    split: str
    """The value of the file's `split` column, or an empty string."""
    chosen: bool = True
    """Whether the condition holds on the row's cells; True without a condition."""
    cells: Mapping[str, str] | None = None
    """The row's other columns, by name; None unless requested."""
    problem: str = ""
    """Why a record has no SMILES, with the reasons of `molgen.chem.clean`; else empty."""
    source: str = ""
    """In a mixture, the source that the row comes from; else empty."""


class Notes:
    """Counts lines that a reader skips or reads in a special way, for a report at the end."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._counts: dict[str, int] = {}
        self._first: dict[str, str] = {}
        self._other_lines: list[str] = []

    def add(self, what: str, place: str, example: str = "") -> None:
        """Counts one case of the kind `what`; the report shows the place and the example of the first."""
        self._counts[what] = self._counts.get(what, 0) + 1
        if what not in self._first:
            self._first[what] = f"{place}, {shown(example)}" if example else place

    def tell(self, lines: Iterable[str]) -> None:
        """Adds finished lines to the report."""
        self._other_lines += lines

    def lines(self) -> Iterator[str]:
        """The report: one line per kind, then the finished lines."""
        for what, count in self._counts.items():
            yield f"{self._source}: {what}: {count:,} (the first: {self._first[what]})"
        yield from self._other_lines


def shown(text: str) -> str:
    """A cell or a line of a file for a message: in quotes, on one line, shortened."""
    return repr(text if len(text) <= 40 else f"{text[:39]}…")
