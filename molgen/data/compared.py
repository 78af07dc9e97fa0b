"""The cells that a condition compares with numbers: which are none, and which are written as people write them.

`1,018` and `7,12` are read by their value, `>10000` is no number; each is counted, and told with an example. Where a
mark may be a decimal mark or a thousands separator, the file is refused: a wrong number would choose wrong rows.
"""

import re
from collections.abc import Iterable, Mapping

from molgen.chem.conditions import Condition, Value, missing, number
from molgen.data.rows import shown
from molgen.errors import MolgenError

_GROUPS = re.compile(r"[-+]?[1-9]\d{0,2}(?:,\d{3})+(?:\.\d+)?")
_COMMA_GROUP = re.compile(r"[-+]?[1-9]\d{0,2},\d{3}")
_POINT_GROUP = re.compile(r"[-+]?[1-9]\d{0,2}\.\d{3}")
_POINT_GROUPS = re.compile(r"[-+]?[1-9]\d{0,2}(?:\.\d{3}){2,}")
_DECIMAL_COMMA = re.compile(r"[-+]?\d+,\d+(?:[eE][-+]?\d+)?|[-+]?[1-9]\d{0,2}(?:\.\d{3})+,\d+")
_HINT = "write the numbers with a decimal point and without thousands separators"

# What a cell is; those below are told, those after them only looked at where marks are in doubt.
_TOLD = {
    "text": "are no numbers and satisfy no comparison with one",
    "missing": "are empty and satisfy no comparison",
    "groups": "have thousands separators and are read by their value",
    "comma": "have decimal commas and are read by their value",
}


class Compared:
    """Whether a condition holds on a row's cells, and an account of the cells that it compares with numbers."""

    def __init__(self, condition: Condition, source: str, comma_is_decimal: bool = False) -> None:
        """`comma_is_decimal`: for a table whose cells semicolons separate, for the comma is in use in numbers."""
        self._condition, self._source, self._comma_is_decimal = condition, source, comma_is_decimal
        self._rows = 0
        self._numbers: set[str] = set()  # columns with a number
        self._counts: dict[tuple[str, str], int] = {}
        self._first: dict[tuple[str, str], tuple[str, str]] = {}
        self._elsewhere: tuple[str, str] | None = None  # a cell with a decimal comma, and its place

    def holds(self, values: Mapping[str, Value], place: str, row: Iterable[str] = ()) -> bool:
        """Whether it holds; `row` are all cells of a row, which show how the file writes its numbers."""
        self._rows += 1
        if self._comma_is_decimal and self._elsewhere is None:
            decimal = next((cell for cell in row if "," in cell and _only_decimal(cell.strip())), None)
            self._elsewhere = None if decimal is None else (decimal.strip(), place)
        read = {name: self._read(name, values.get(name), place) for name in self._condition.numeric}
        return self._condition.holds({**values, **read})

    def _read(self, name: str, value: Value, place: str) -> Value:
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
        if name in self._condition.textual:  # it stays as it is written, to be compared so
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

    def lines(self) -> list[str]:
        """What to tell once all rows are read.

        Raises MolgenError where a number may be a thousand times another: `1,018` and `7,12` in one column.
        """
        messages = []
        for name in self._condition.names:
            if name in self._condition.numeric:
                self._check(name)
                messages += self._messages(name)
        return messages

    def _check(self, name: str) -> None:
        first = {kind: self._first.get((name, kind)) for kind in (*_TOLD, "decimal", "comma group", "point group")}
        decimal = first["decimal"]
        points = self._first.get((name, "point groups")) or decimal or self._elsewhere
        contrary: tuple[str, str] | None
        if first["groups"] and decimal:
            kind, contrary = "groups", decimal
        elif first["comma group"] and (first["groups"] or not (decimal or self._elsewhere)):
            kind, contrary = "comma group", first["groups"]
        elif first["point group"] and points:
            kind, contrary = "point group", points
        else:
            return
        text, place = self._first[name, kind]
        where = f"{self._counts[name, kind]:,} of {self._rows:,} cells of {name}, such as {shown(text)} ({place})"
        why = f", beside {shown(contrary[0])} ({contrary[1]})" if contrary else ""
        raise MolgenError(f"{self._source}: {where}, may mean a thousand times as much{why}", _HINT)

    def _messages(self, name: str) -> list[str]:
        messages = []
        # dates beside dates are compared as text; empty cells alone are nothing to wonder at
        amiss = (name, "text") in self._counts and (name in self._numbers or name not in self._condition.ordered)
        for kind, what in _TOLD.items():
            if kind in ("text", "missing") and not amiss:
                continue
            if count := self._counts.get((name, kind)):
                text, place = self._first[name, kind]
                example = f"such as {shown(text)} ({place})" if text else f"the first in {place}"
                messages.append(f"{self._source}: {count:,} of {self._rows:,} cells of {name} {what}, {example}")
        return messages


def _only_decimal(text: str) -> bool:
    return bool(_DECIMAL_COMMA.fullmatch(text)) and not _COMMA_GROUP.fullmatch(text)
