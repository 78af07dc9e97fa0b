"""Reads SD files: a record is a molecule, its properties are its columns."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from molgen.chem.clean import UNPARSABLE
from molgen.chem.conditions import Condition
from molgen.chem.smiles import from_molblock
from molgen.data.columns import is_title
from molgen.data.compared import Compared
from molgen.data.lines import Lines
from molgen.data.rows import Notes, Row
from molgen.errors import MolgenError

_LONGEST_RECORD = 2**24
# Some writers omit the empty line that ends a value, so such a line begins the next property at any place.
_PROPERTY = re.compile(r">[^<]*<([^<>]+)>")
_STRAY = "lines after a structure that belong to no property (is a $$$$ missing above them?)"


class _Record(NamedTuple):
    first: int
    """Number of the record's first line in the file."""
    lines: list[str]


def sd_rows(lines: Lines, source: str, condition: Condition | None, notes: Notes, cells: bool) -> Iterator[Row]:
    """The rows of an SD file. A record may lack any property; a record that is not chosen is not parsed."""
    compared = None if condition is None else Compared(condition, source)
    known: dict[str, None] = {}
    for number, (first, record) in enumerate(_records(lines, source), 1):
        # the first four lines are the title, the program, a comment and the counts
        end = next((i for i, line in enumerate(record) if i > 3 and line.startswith(">")), len(record))
        structure = record[:end]
        after = next((i for i, line in enumerate(structure) if line.startswith("M  END")), end) + 1
        properties = _properties(record[end:])
        for i in (*range(after, end), *(end + i for i in _stray(record[end:]))):
            if record[i].strip():
                notes.add(_STRAY, f"line {first + i}", record[i].strip())
        known.update(dict.fromkeys(properties))
        named = (value for key, value in properties.items() if is_title(key))
        title = record[0].strip() or next(named, "")
        chosen = compared is None or compared.holds(properties, f"record {number}")
        smiles, cause = from_molblock("\n".join(structure)) if chosen else ("", "")
        cause = "" if cause == "empty" else cause  # cleaning reports empty rows of all files in the same way
        problem = cause if cause.startswith("query") or not cause else f"{UNPARSABLE}: {cause}"
        yield Row(number, smiles, title, "", chosen, properties if cells else None, problem)
    if condition is not None and compared is not None:  # all columns are known only at the end
        condition.check(known, source)
        notes.tell(compared.lines())


def _records(lines: Lines, source: str) -> Iterator[_Record]:
    """The lines of each record of an SD file, without the `$$$$` that ends it."""
    record: list[str] = []
    size, first = 0, 1
    for number, line in lines:
        if line.startswith("$$$$"):
            yield _Record(first, record or [""])
            record, size, first = [], 0, number + 1
            continue
        record.append(line)
        size += len(line) + 1
        if size > _LONGEST_RECORD:
            raise MolgenError(f"{source}, line {number}: a record longer than 16 MiB", "does $$$$ end each molecule?")
    if any(line.strip() for line in record):
        yield _Record(first, record)


def _properties(lines: Sequence[str]) -> Mapping[str, str]:
    """`> <name>` lines and the values below them, up to an empty line or to the next name."""
    found: dict[str, list[str]] = {}
    value: list[str] | None = None
    for line in lines:
        if named := _PROPERTY.match(line):
            value = found.setdefault(named[1].strip(), [])
        elif not line.strip():
            value = None
        elif value is not None:
            value.append(line.strip())
    return {name: "\n".join(value) for name, value in found.items()}


def _stray(lines: Sequence[str]) -> Iterator[int]:
    """Indices of the lines that belong to no property."""
    inside = False
    for i, line in enumerate(lines):
        if _PROPERTY.match(line):
            inside = True
        elif not line.strip():
            inside = False
        elif not inside:
            yield i
