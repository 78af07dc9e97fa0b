"""Reads tables of text (.csv, .tsv): separators, headings, quotes, and lines that are not rows.

In tables with commas or semicolons, quotes follow RFC 4180. Tab-separated files rarely use quotes: there a quote counts
only if it encloses a cell, and a line with as many cells as the heading is a row, whatever its quotes.
"""

import csv
import re
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice

from molgen.chem.conditions import Condition
from molgen.data.columns import (
    SMILES_NAMES,
    Rivals,
    compared_columns,
    molecule_cells,
    no_columns,
    no_smiles_column,
    only_molecule,
    plain,
    smiles_index,
    title_and_split,
    unique,
    usual,
)
from molgen.data.compared import Compared
from molgen.data.lines import LONGEST_LINE, Lines
from molgen.data.rows import Notes, Row
from molgen.errors import MolgenError

_LONGEST_HEADING = 2**14
_MOST_JOINED = 20
_LOOKED_AHEAD = 20
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?', re.IGNORECASE)
_SPANNING = "rows over several lines, within quotes"
_FEWER, _MORE = (
    "rows with fewer cells than the heading",
    "rows with more cells than the heading (a separator in a cell?)",
)
_ABOVE, _BLANK = "lines above the heading passed over", "empty lines passed over"

_Cells = Iterator[tuple[int, list[str]]]
"""(number of the line on which a row begins, its cells)."""


def heading_cells(line: str, separator: str = "") -> tuple[list[str], str]:
    """(cells of a first line, its separator); the separator is "" if the quotes match none.

    Without a given separator, it is the one that gives most cells; if equal, one that gives a SMILES column.
    """
    csv.field_size_limit(LONGEST_LINE)
    split: dict[str, list[str]] = {}
    for mark in separator or ",;\t":
        try:
            cells = next(csv.reader([line], delimiter=mark, strict=True), [""])
        except csv.Error:  # a quote does not end before this separator, or not on this line
            continue
        split[mark] = [" ".join(cell.split()) for cell in cells]
    if not split:
        return [line], ""
    best = max(split, key=lambda mark: (len(split[mark]), any(plain(cell) in SMILES_NAMES for cell in split[mark])))
    return split[best], best


def above_heading(line: str, wanted: str | None = None) -> bool:
    """Whether a line above a heading can be skipped: an empty line, a comment, or Excel's `sep=;`.

    A heading itself may begin with `#`.
    """
    text = line.strip()
    if not text or _SEPARATOR_LINE.fullmatch(text):
        return True
    cells, _ = heading_cells(without_mark(text))
    return text.lstrip('"').startswith("#") and not (len(cells) > 1 and (usual(cells) or wanted in cells))


def without_mark(heading: str) -> str:
    """A heading without the comment mark `#` at its start."""
    return heading.lstrip("#").lstrip() if heading.startswith("#") else heading


def delimited_rows(
    lines: Lines,
    source: str,
    separator: str,
    smiles_column: str | None,
    condition: Condition | None,
    notes: Notes,
    cells: bool,
) -> Iterator[Row]:
    """The rows of a table with a heading, or without a heading if exactly one cell of its first line is a molecule.

    With `cells` each row has the cells of its other columns by their names; equal names get a number.
    """
    number, line, separator = _heading_line(lines, separator, smiles_column, notes)
    if number == 0:
        return
    names, separator = _heading(number, line, lines, source, separator)
    column = smiles_index(names, source, smiles_column)
    headless = column is None
    if column is None:
        column = _without_heading(names, lines, source)
    title, split = (None, None) if headless else title_and_split(names)
    if headless and condition is not None:
        raise no_columns(source)
    places = {} if condition is None else compared_columns(names, condition, source)
    compared = None if condition is None else Compared(condition, source, separator == ";")
    rivals = Rivals([] if headless or smiles_column else names, column, source)
    named = [name for i, name in enumerate([] if headless else names) if i != column]
    others = dict(zip((i for i in range(len(names)) if i != column), unique(named), strict=False))
    again = [f"{old!r} is {new!r} here" for old, new in zip(named, others.values(), strict=True) if old and new != old]
    if cells and again:
        notes.tell([f"{source}: another column called {', another called '.join(again)}"])

    def kept(row: list[str]) -> dict[str, str] | None:
        return {others.get(i, f"column {i + 1}"): cell for i, cell in enumerate(row) if i != column} if cells else None

    if headless:
        yield Row(number, names[column], "", "", cells=kept(names))
    for start, row in _records(lines, source, separator, len(names), column, notes):
        if len(row) <= column:
            raise MolgenError(
                f"{source}, line {start}: {len(row)} fields where the header has {len(names)}",
                "check the separator and the quotes",
            )
        if len(row) < len(names):
            notes.add(_FEWER, f"line {start}")
        elif len(row) > len(names) and any(cell.strip() for cell in row[len(names) :]):
            notes.add(_MORE, f"line {start}")
        smiles = row[column].strip()
        if rivals.indices:
            rivals.check(smiles, {i: row[i] for i in rivals.indices if i < len(row)}, f"line {start}")
        name = row[title] if title is not None and title < len(row) else ""
        own = row[split].strip().lower() if split is not None and split < len(row) else ""
        chosen = True
        if compared is not None:
            values = {key: row[i].strip() for key, i in places.items() if i < len(row)}
            chosen = compared.holds(values, f"line {start}", row)
        yield Row(start, smiles, name, own, chosen, kept(row))
    if compared is not None:
        notes.tell(compared.lines())


def _heading_line(lines: Lines, separator: str, wanted: str | None, notes: Notes) -> tuple[int, str, str]:
    """(number of the heading's line, 0 in an empty file; the line; the separator, from Excel's `sep=;` if present)."""
    for number, line in lines:
        if not above_heading(line, wanted):
            return number, without_mark(line), separator
        if found := _SEPARATOR_LINE.fullmatch(line.strip()):
            separator = found[1]
        notes.add(_ABOVE, f"line {number}", line)
    return 0, "", separator


def _heading(number: int, line: str, lines: Lines, source: str, separator: str) -> tuple[list[str], str]:
    """(names of the columns, the separator); a quoted name may contain line ends, so more lines may be read."""
    if separator == "\t" and "\t" not in line:
        separator = ""  # a .tsv file with another separator, or with one column
    names, found = heading_cells(line, separator)
    for _, following in lines if not found else ():
        line += "\n" + following
        names, found = heading_cells(line, separator)
        if found or len(line) > _LONGEST_HEADING:
            break
    if not found:
        where = f"{source}, line {number}"
        raise MolgenError(f"{where}: quotes that do not end with their field", "check the quotes of this line")
    return names, found


def _without_heading(cells: list[str], lines: Lines, source: str) -> int:
    """Index of the molecule in a first line that is not a heading. Raises MolgenError if it has none or several."""
    if len(molecule_cells(cells)) == 1:
        return only_molecule(cells, source)
    for number, line in islice(lines, _LOOKED_AHEAD):
        below, _ = heading_cells(line)
        if len(below) > 1 and usual(below):
            raise MolgenError(
                f"{source}: no SMILES column in its first line, but in line {number}",
                f"remove the lines above it, or begin each with # (tail -n +{number})",
            )
    raise no_smiles_column(cells, source)


def _records(lines: Lines, source: str, separator: str, width: int, column: int, notes: Notes) -> _Cells:
    records = (
        _tabbed(lines, width, notes) if separator == "\t" else _quoted(lines, source, separator, width, column, notes)
    )
    for start, cells in records:
        if cells:
            yield start, cells
        else:
            notes.add(_BLANK, f"line {start}")


def _quoted(lines: Lines, source: str, separator: str, width: int, column: int, notes: Notes) -> _Cells:
    """Rows whose cells may be quoted; a quoted cell may contain separators and line ends."""
    taken: list[tuple[int, str]] = []  # the lines of the current row

    def text() -> Iterator[str]:
        for number, line in lines:
            taken.append((number, line))
            yield line + "\n"

    reader = csv.reader(text(), delimiter=separator, strict=True)
    try:
        for cells in reader:
            if len(taken) > 1:
                _check_stray_quote(taken, source, separator, width, column)
                notes.add(_SPANNING, f"line {taken[0][0]}")
            yield taken[0][0], cells
            taken.clear()
    except csv.Error as error:
        raise MolgenError(f"{source}, line {taken[0][0]}: {error}", "check the quotes from this line on") from None


def _check_stray_quote(taken: list[tuple[int, str]], source: str, separator: str, width: int, column: int) -> None:
    """Raises MolgenError if a stray quote has joined several rows: the first line and another one are complete rows."""

    def is_row(line: str) -> bool:
        cells = line.split(separator)
        return len(cells) == width and bool(molecule_cells([cells[column].strip().strip('"')]))

    (first, begin), *others = taken
    other = next((number for number, line in others if is_row(line)), None) if is_row(begin) else None
    if other is not None:
        raise MolgenError(
            f"{source}, line {first}: its quotes take in line {other}, which looks like a separate row",
            "check the quotes from this line on",
        )


def _tabbed(lines: Lines, width: int, notes: Notes) -> _Cells:
    """Rows of a tab-separated file: a line with all cells is a row; if cells are missing, quotes are tried."""
    put_back: deque[tuple[int, str]] = deque()

    def following() -> tuple[int, str] | None:
        return put_back.popleft() if put_back else next(lines, None)

    while (next_line := following()) is not None:
        number, line = next_line
        cells = line.split("\t") if line else []
        if '"' in line:
            joined: list[str] | None = None
            taken: list[tuple[int, str]] = []
            if len(cells) != width or (cells[-1].startswith('"') and _unquoted(cells[-1]) == cells[-1]):
                joined, taken = _joined(line, following, width)
            if joined is None:
                put_back.extendleft(reversed(taken))
            elif taken:
                notes.add(_SPANNING, f"line {number}")
            cells = joined or [_unquoted(cell) for cell in cells]
        yield number, cells


def _joined(
    line: str, following: Callable[[], tuple[int, str] | None], width: int
) -> tuple[list[str] | None, list[tuple[int, str]]]:
    """(the cells of a row if quotes join this line with the next ones to a complete row, else None; the lines read)."""
    taken: list[tuple[int, str]] = []
    text = line
    while len(taken) <= _MOST_JOINED and len(text) <= LONGEST_LINE:
        try:
            cells = next(csv.reader([text], delimiter="\t", strict=True))
        except csv.Error as error:
            if "unexpected end" not in str(error):
                break
        else:
            return (cells if len(cells) == width else None), taken
        below = following()
        if below is None:
            break
        taken.append(below)
        if "\t" in line and below[1].count("\t") == width - 1:  # the next line is a complete row
            break
        text += "\n" + below[1]
    return None, taken


def _unquoted(cell: str) -> str:
    """A cell without its enclosing quotes; a cell with stray quotes is not changed."""
    inside = cell[1:-1]
    if len(cell) < 2 or not cell.startswith('"') or not cell.endswith('"') or '"' in inside.replace('""', ""):
        return cell
    return inside.replace('""', '"')
