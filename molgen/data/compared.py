"""Reads the cells that a condition compares with numbers, also with thousands separators and decimal commas.

`1,018` and `7,12` are read as numbers, `>10000` is not a number; such cells are counted and reported with an example.
If it is unclear whether a mark is a decimal mark or a thousands separator, the file is refused: a wrong number would
select wrong rows.
"""

import re
from collections.abc import Iterable, Mapping, Sequence

from molgen.chem.conditions import Condition, Value, missing, number
from molgen.data.rows import shown
from molgen.errors import MolgenError

_GROUPS = re.compile(r"[-+]?[1-9]\d{0,2}(?:,\d{3})+(?:\.\d+)?")
_COMMA_GROUP = re.compile(r"[-+]?[1-9]\d{0,2},\d{3}")
_POINT_GROUP = re.compile(r"[-+]?[1-9]\d{0,2}\.\d{3}")
_POINT_GROUPS = re.compile(r"[-+]?[1-9]\d{0,2}(?:\.\d{3}){2,}")
_DECIMAL_COMMA = re.compile(r"[-+]?\d+,\d+(?:[eE][-+]?\d+)?|[-+]?[1-9]\d{0,2}(?:\.\d{3})+,\d+")
_HINT = "write the numbers with a decimal point and without thousands separators"

# Kinds of cells that are reported, and their message. Other kinds are counted only to detect unclear marks.
_REPORTED = {
    "text": "are no numbers and satisfy no comparison with one",
    "missing": "are empty and satisfy no comparison",
    "groups": "have thousands separators and are read by their value",
    "comma": "have decimal commas and are read by their value",
}


class Compared:
    """Evaluates a condition on rows, and counts the cells that it compares with numbers by their kind."""

    def __init__(self, condition: Condition, source: str, comma_is_decimal: bool = False) -> None:
        """`comma_is_decimal`: for a table separated by semicolons, where the comma is the usual decimal mark."""
        self._condition, self._source, self._comma_is_decimal = condition, source, comma_is_decimal
        self._rows = 0
        self._numbers: set[str] = set()  # columns that contain a number
        self._counts: dict[tuple[str, str], int] = {}
        self._first: dict[tuple[str, str], tuple[str, str]] = {}
        self._decimal_comma: tuple[str, str] | None = None  # a cell of any column with a decimal comma, and its place

    def holds(self, values: Mapping[str, Value], place: str, row: Iterable[str] = ()) -> bool:
        """Whether the condition holds; `row` has all cells of the row, to find out how the file writes numbers."""
        self.look(place, row)
        read = {name: self.read(name, values.get(name), place) for name in self._condition.numeric}
        return self._condition.holds({**values, **read})

    def look(self, place: str, row: Iterable[str]) -> None:
        """Counts a row and looks at its cells, to find out how the file writes numbers."""
        self._rows += 1
        if self._comma_is_decimal and self._decimal_comma is None:
            decimal = next((cell for cell in row if "," in cell and only_decimal(cell.strip())), None)
            self._decimal_comma = None if decimal is None else (decimal.strip(), place)

    def read(self, name: str, value: Value, place: str) -> Value:
        """A cell of a column that the condition compares, as `number` reads it."""
        if missing(value):
            self._count(name, "missing", "", place)
        if missing(value) or not isinstance(value, str):
            return value
        text = value.strip()
        if number(text) is not None:
            self._numbers.add(name)
            if _POINT_GROUP.fullmatch(text):
                self._count(name, "point group", text, place)
            return value
        if name in self._condition.textual:  # it is compared as text, so it is not converted
            self._count(name, "text", text, place)
            return value
        comma_group = bool(_COMMA_GROUP.fullmatch(text))
        if _GROUPS.fullmatch(text) and not (comma_group and self._comma_is_decimal):
            self._count(name, "groups", text, place)
            return text.replace(",", "")
        if _DECIMAL_COMMA.fullmatch(text):
            self._count(name, "comma", text, place)
            self._count(name, "comma group" if comma_group else "decimal", text, place)
            return text.replace(".", "").replace(",", ".")
        self._count(name, "text", text, place)
        if _POINT_GROUPS.fullmatch(text):
            self._count(name, "point groups", text, place)
        return value

    def _count(self, name: str, kind: str, text: str, place: str) -> None:
        self._counts[name, kind] = self._counts.get((name, kind), 0) + 1
        self._first.setdefault((name, kind), (text, place))

    def lines(self, kinds: Iterable[str] = tuple(_REPORTED)) -> list[str]:
        """The messages after all rows have been read, about these kinds of cells.

        Raises MolgenError if a number may be a thousand times as large, such as `1,018` and `7,12` in one column.
        """
        messages = []
        for name in self._condition.names:
            if name in self._condition.numeric:
                self._check(name)
                messages += self._messages(name, tuple(kinds))
        return messages

    def _check(self, name: str) -> None:
        first = {kind: self._first.get((name, kind)) for kind in (*_REPORTED, "decimal", "comma group", "point group")}
        decimal = first["decimal"]
        points = self._first.get((name, "point groups")) or decimal or self._decimal_comma
        contrary: tuple[str, str] | None
        if first["groups"] and decimal:
            kind, contrary = "groups", decimal
        elif first["comma group"] and (first["groups"] or not (decimal or self._decimal_comma)):
            kind, contrary = "comma group", first["groups"]
        elif first["point group"] and points:
            kind, contrary = "point group", points
        else:
            return
        text, place = self._first[name, kind]
        where = f"{self._counts[name, kind]:,} of {self._rows:,} cells of {name}, such as {shown(text)} ({place})"
        why = f", beside {shown(contrary[0])} ({contrary[1]})" if contrary else ""
        raise MolgenError(f"{self._source}: {where}, may mean a thousand times as much{why}", _HINT)

    def _messages(self, name: str, kinds: Sequence[str]) -> list[str]:
        messages = []
        # a column of dates only is compared as text; empty cells alone need no message
        has_odd_text = (name, "text") in self._counts and (name in self._numbers or name not in self._condition.ordered)
        for kind, what in _REPORTED.items():
            if kind not in kinds:
                continue
            if kind in ("text", "missing") and not has_odd_text:
                continue
            if count := self._counts.get((name, kind)):
                text, place = self._first[name, kind]
                example = f"such as {shown(text)} ({place})" if text else f"the first in {place}"
                messages.append(f"{self._source}: {count:,} of {self._rows:,} cells of {name} {what}, {example}")
        return messages


def only_decimal(text: str) -> bool:
    """Whether a cell is a number with a decimal comma that cannot be a thousands separator."""
    return bool(_DECIMAL_COMMA.fullmatch(text)) and not _COMMA_GROUP.fullmatch(text)
