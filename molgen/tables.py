"""A file → rows of strings: .csv .tsv .smi .txt .sdf, gzipped or not, .parquet, `-` for stdin.

Streams, so that memory is bounded by what is kept; every error names the file and the line.
"""

import csv
import gzip
import io
import re
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from itertools import chain, islice
from pathlib import Path
from typing import BinaryIO, NamedTuple

from molgen import molecules
from molgen.conditions import Condition, Value
from molgen.errors import MolgenError

SUFFIXES = (".csv", ".tsv", ".smi", ".txt", ".sdf", ".parquet")
_TABLES = (".csv", ".tsv", ".parquet")
_LONGEST_LINE = 2**20
_LONGEST_HEADING = 2**14
_LONGEST_RECORD = 2**24
_SMILES_NAMES = {
    "smiles",
    "canonicalsmiles",
    "isomericsmiles",
    "rdkitsmiles",
    "smilesstring",
    "smi",
    "cansmiles",
}
_TITLE_NAMES = {
    "name",
    "id",
    "molid",
    "molname",
    "moleculename",
    "title",
    "compoundid",
    "compoundname",
    "chemblid",
    "moleculechemblid",
    "zincid",
    "catalogid",
    "catalognumber",
    "idnumber",
    "pubchemcid",
    "cid",
    "cas",
    "casnumber",
    "casrn",
}

Lines = Iterator[tuple[int, str]]
"""(number, line) without its end."""


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


def read_rows(source: str, smiles_column: str | None = None, where: str | None = None) -> Iterator[Row]:
    """The rows of a file, or of standard input for `-`, each with whether the condition `where` on its columns holds.

    What stdin, a .smi or a .txt file holds is recognised: an SD file, a table with a heading or with one molecule a
    row, else lines of a molecule and its name. A record of an SD file that is not chosen is not parsed.

    Raises MolgenError for a file that is missing, empty, not UTF-8 or malformed, for an unclear SMILES column and for
    a condition that is malformed, names an unknown column or finds none.
    """
    condition = None if where is None else Condition(where)
    kind = _kind(source)
    if source.endswith(".molgen"):
        raise MolgenError(f"{source}: encoded already", "only `molgen train` takes such a file; give its molecules")
    if not kind and source != "-":
        raise MolgenError(f"{source}: unknown kind of file", f"known: {' '.join(SUFFIXES)}, the texts also as .gz")
    with _opened(source) as stream:
        kind, lines = _recognised(stream, source, kind, smiles_column, condition is not None)
        yield from _rows(stream, kind, lines, source, smiles_column, condition)


def read_samples(source: str, smiles_column: str | None = None) -> list[str]:
    """Each line as one sample, nothing cleaned: an empty line is an empty sample.

    The first field of a line of a .smi or .txt file, of stdin or of a file of no known kind; the SMILES column of a
    table with a heading. A heading is no sample, and an invalid sample on the first line is no heading.
    """
    with _opened(source) as stream:
        kind, lines = _recognised(stream, source, _kind(source), smiles_column, samples=True)
        if kind != ".smi":
            return [row.smiles for row in _rows(stream, kind, lines, source, smiles_column, None)]
        fields = [line.split()[0] if line.strip() else "" for _, line in lines]
    return fields[1:] if fields and _plain(fields[0]) in _SMILES_NAMES else fields


def _kind(source: str) -> str:
    """A suffix out of SUFFIXES; an empty string for stdin and for any other file."""
    kind = next((s.lower() for s in reversed(Path(source).suffixes) if s.lower() != ".gz"), "")
    return kind if kind in SUFFIXES else ""


@contextmanager
def _opened(source: str) -> Iterator[BinaryIO]:
    """The bytes of a file or of stdin, decompressed. Raises MolgenError for a missing file and damaged gzip data."""
    if source == "-":
        raw: BinaryIO = sys.stdin.buffer
    else:
        try:
            raw = Path(source).open("rb")  # noqa: SIM115 - closed below
        except OSError as error:
            hint = "is it a directory?" if isinstance(error, IsADirectoryError) else "check the path"
            raise MolgenError(f"{source}: cannot be read: {error.strerror}", hint) from None
    buffered = raw if isinstance(raw, io.BufferedReader) else io.BufferedReader(raw)  # type: ignore[type-var]
    # stdin stays open: who asks for it twice finds it empty
    with nullcontext() if source == "-" else raw:
        try:
            if buffered.peek(2)[:2] == b"\x1f\x8b":
                yield gzip.GzipFile(fileobj=buffered)  # type: ignore[misc]
            else:
                yield buffered
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise MolgenError(f"{source}: damaged gzip data: {error}", "fetch or compress the file again") from None


def _recognised(
    stream: BinaryIO, source: str, kind: str, wanted: str | None, where: bool = False, samples: bool = False
) -> tuple[str, Lines]:
    """(what the bytes are: .sdf, .smi, .csv, .tsv or .parquet; the lines of a text)."""
    if kind == ".parquet" or (kind == "" and stream.peek(4)[:4] == b"PAR1"):  # type: ignore[attr-defined]
        return ".parquet", iter(())
    raw = _raw_lines(stream, source)
    if kind in ("", ".smi", ".txt"):
        head = list(islice(raw, 4))
        raw = chain(head, raw)
        if len(head) == 4 and head[3][1].rstrip().endswith((b"V2000", b"V3000")):
            kind = ".sdf"
        else:
            first = _text(*head[0], source) if head else ""
            kind = ".csv" if _is_table(first, wanted, where, samples) else ".smi"
    # an SD file's structures are ASCII; its names and properties are often older than UTF-8
    return kind, ((number, _text(number, line, source, latin=kind == ".sdf")) for number, line in raw)


def _is_table(line: str, wanted: str | None, where: bool, samples: bool) -> bool:
    """Whether a first line of unknown kind begins a table, not lines of a molecule and its name."""
    if wanted is not None or not line.strip():
        return wanted is not None
    cells, separator = _heading(line)
    if len(cells) == 1:
        return False
    if found := _smiles_columns(cells):
        # `smiles<TAB>name`: as lines, so that the rest of a line is its name, whatever the heading calls it
        plain = separator == "\t" and found == [0] and len(cells) == 2 and _plain(cells[0]) in _SMILES_NAMES
        return where or not plain
    return not samples and not molecules.parse(line.split()[0]) and len(_molecule_cells(cells)) == 1


def _raw_lines(stream: BinaryIO, source: str) -> Iterator[tuple[int, bytes]]:
    number = 0
    while raw := stream.readline(_LONGEST_LINE + 1):
        number += 1
        if number == 1 and raw.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise MolgenError(f"{source}: UTF-16 text", "save the file as UTF-8; Excel calls it CSV UTF-8")
        if len(raw) > _LONGEST_LINE:
            raise MolgenError(f"{source}, line {number}: longer than 1 MiB", "is it a text file, one molecule a line?")
        if b"\0" in raw:
            raise MolgenError(f"{source}, line {number}: a NUL byte", "save the file as UTF-8 text")
        yield number, raw


def _text(number: int, raw: bytes, source: str, latin: bool = False) -> str:
    """A line without line end or byte order mark; with `latin` one that is not UTF-8 is read as Latin-1."""
    try:
        line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError:
        if not latin:
            raise MolgenError(f"{source}, line {number}: not UTF-8", "save the file as UTF-8 text") from None
        line = raw.decode("latin-1")
    return line.rstrip("\r\n")


def _rows(
    stream: BinaryIO, kind: str, lines: Lines, source: str, smiles_column: str | None, condition: Condition | None
) -> Iterator[Row]:
    if smiles_column is not None and kind not in _TABLES:
        raise MolgenError(f"{source}: --smiles-column is for tables, which have columns", "leave it out")
    if kind == ".parquet":
        yield from _parquet_rows(stream, source, smiles_column, condition)
    elif kind == ".sdf":
        yield from _sd_rows(lines, source, condition)
    elif kind == ".smi":
        if condition is not None:
            raise _no_columns(source)
        yield from _smi_rows(lines)
    else:
        yield from _csv_rows(lines, source, "\t" if kind == ".tsv" else "", smiles_column, condition)


def _no_columns(source: str) -> MolgenError:
    return MolgenError(
        f"{source}: no columns that a condition could name", "it needs a table with a heading, or an SD file"
    )


def _is_header(field: str) -> bool:
    """Whether a first field is a heading: a known name, or a word that RDKit does not parse as a molecule."""
    return _plain(field) in _SMILES_NAMES or (
        bool(re.fullmatch(r"[A-Za-z_ .-]{3,}", field)) and not molecules.parse(field)
    )


def _smi_rows(lines: Lines) -> Iterator[Row]:
    for number, line in lines:
        if not line.strip():
            continue
        smiles, *rest = line.split(maxsplit=1)
        if number == 1 and _is_header(smiles):
            continue
        name = rest[0] if rest else ""
        if name.startswith("|"):  # a CXSMILES part belongs to the molecule; what follows it is the name
            extension, bar, name = name[1:].partition("|")
            smiles = f"{smiles} |{extension}{bar}"
        yield Row(number, smiles, name.strip(), "")


def _sd_rows(lines: Lines, source: str, condition: Condition | None) -> Iterator[Row]:
    """An SD file's properties are its columns; a record may lack any of them."""
    known: dict[str, None] = {}
    for number, record in enumerate(_records(lines, source), 1):
        # the first four lines are the title, the program, a comment and the counts
        end = next((i for i, line in enumerate(record) if i > 3 and line.startswith(">")), len(record))
        properties = _properties(record[end:])
        known.update(dict.fromkeys(properties))
        named = (value for key, value in properties.items() if _plain(key) in _TITLE_NAMES)
        title = record[0].strip() or next(named, "")
        chosen = condition is None or condition.holds(properties)
        yield Row(number, molecules.from_molblock("\n".join(record[:end])) if chosen else "", title, "", chosen)
    if condition is not None:  # only now every column is known
        condition.check(known, source)


def _records(lines: Lines, source: str) -> Iterator[list[str]]:
    """The lines of each record of an SD file, without the `$$$$` that ends it."""
    record: list[str] = []
    size = 0
    for number, line in lines:
        if line.startswith("$$$$"):
            yield record or [""]
            record, size = [], 0
            continue
        record.append(line)
        size += len(line) + 1
        if size > _LONGEST_RECORD:
            raise MolgenError(f"{source}, line {number}: a record longer than 16 MiB", "does $$$$ end each molecule?")
    if any(line.strip() for line in record):
        yield record


def _properties(lines: Sequence[str]) -> dict[str, str]:
    """`> <name>` lines and the values below them, up to an empty line."""
    found: dict[str, list[str]] = {}
    value: list[str] | None = None
    for line in lines:
        if value is None and line.startswith(">") and "<" in line:
            name = line.partition("<")[2].rpartition(">")[0].strip()
            value = found.setdefault(name, [])
        elif not line.strip():
            value = None
        elif value is not None:
            value.append(line.strip())
    return {name: "\n".join(value) for name, value in found.items()}


def _csv_rows(
    lines: Lines, source: str, separator: str, smiles_column: str | None, condition: Condition | None
) -> Iterator[Row]:
    first = next(lines, None)
    if first is None:
        return
    number, header_line = first

    def text() -> Iterator[str]:
        nonlocal number
        for number, line in lines:  # noqa: B007 - the number is read by the caller, for its messages
            yield line + "\n"

    names, found = _heading(header_line, separator)
    for line in text() if not found else ():  # a quoted name may hold line ends
        header_line += "\n" + line.rstrip("\n")
        names, found = _heading(header_line, separator)
        if found or len(header_line) > _LONGEST_HEADING:
            break
    if not found:
        raise MolgenError(f"{source}, line 1: quotes that do not end with their field", "check the quotes of this line")
    separator = found
    column = _smiles_index(names, source, smiles_column)
    headless = column is None
    if column is None:
        column = _only_molecule(names, source)
    title, split = (None, None) if headless else _title_and_split(names)
    if headless and condition is not None:
        raise _no_columns(source)
    compared = {} if condition is None else _compared(names, condition, source)
    if headless:
        yield Row(1, names[column], "", "")
    reader = csv.reader(text(), delimiter=separator, strict=True)
    start = number + 1
    try:
        for cells in reader:
            if cells:
                if len(cells) <= column:
                    raise MolgenError(
                        f"{source}, line {start}: {len(cells)} fields where the header has {len(names)}",
                        "check the separator and the quotes",
                    )
                name = cells[title] if title is not None and title < len(cells) else ""
                own = cells[split].strip().lower() if split is not None and split < len(cells) else ""
                values = {key: cells[i].strip() for key, i in compared.items() if i < len(cells)}
                chosen = condition is None or condition.holds(values)
                yield Row(start, cells[column].strip(), name, own, chosen)
            start = number + 1
    except csv.Error as error:
        raise MolgenError(f"{source}, line {start}: {error}", "check the quotes from this line on") from None


def _parquet_rows(
    stream: BinaryIO, source: str, smiles_column: str | None, condition: Condition | None
) -> Iterator[Row]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise MolgenError(
            f"{source}: a parquet file needs pyarrow", "pip install 'molgen-lm[parquet]', or save it as .csv"
        ) from None
    if isinstance(stream, gzip.GzipFile):
        raise MolgenError(f"{source}: gzip around parquet, which is compressed inside", "gunzip it first")
    damaged = (pyarrow.ArrowException, OSError, ValueError)
    try:
        # parquet's index stands at the end of the file, where a pipe cannot go first
        file = parquet.ParquetFile(pyarrow.BufferReader(stream.read()) if source == "-" else source)
        names = [str(name) for name in file.schema_arrow.names]
    except damaged as error:
        raise MolgenError(f"{source}: not readable as parquet: {error}", "fetch or write the file again") from None
    column = _smiles_index(names, source, smiles_column)
    if column is None:
        raise _no_smiles_column(names, source)
    title, split = _title_and_split(names)
    compared = {} if condition is None else _compared(names, condition, source)
    wanted = {names[i] for i in (column, title, split, *compared.values()) if i is not None}
    twice = next((name for name in wanted if names.count(name) > 1), None)
    if twice is not None:
        raise MolgenError(f"{source}: two columns called {twice!r}", "rename one of them")
    number = 0
    batches = file.iter_batches(batch_size=8_192, columns=sorted(wanted), use_threads=False)
    while True:
        try:
            batch = next(batches, None)
            cells = {} if batch is None else {name: batch.column(name).to_pylist() for name in wanted}
        except damaged as error:
            raise MolgenError(f"{source}, after row {number}: {error}", "fetch or write the file again") from None
        if batch is None:
            return
        for i in range(batch.num_rows):
            number += 1
            smiles, name, own = ("" if k is None else _shown(cells[names[k]][i]) for k in (column, title, split))
            values = {key: _value(cells[names[k]][i]) for key, k in compared.items()}
            chosen = condition is None or condition.holds(values)
            yield Row(number, smiles.strip(), name, own.strip().lower(), chosen)


def _value(cell: object) -> Value:
    """A cell of a parquet file as a condition compares it."""
    return cell if cell is None or isinstance(cell, bool | int | float) else _shown(cell).strip()


def _shown(cell: object) -> str:
    if isinstance(cell, bytes):  # strings of writers that do not mark them as text
        return cell.decode("utf-8", "replace")
    return "" if cell is None else str(cell)


def _compared(names: Sequence[str], condition: Condition, source: str) -> Mapping[str, int]:
    """Column → index, for the columns of a condition. Raises MolgenError for one that is not there, or twice."""
    condition.check(names, source)
    twice = next((name for name in condition.names if names.count(name) > 1), None)
    if twice is not None:
        raise MolgenError(f"{source}: two columns called {twice!r}, which the condition names", "rename one of them")
    return {name: names.index(name) for name in condition.names}


def _heading(line: str, separator: str = "") -> tuple[list[str], str]:
    """(cells of a first line, its separator): what gives most cells; in doubt, what sets the SMILES column free.

    Without a separator when the quotes fit none.
    """
    csv.field_size_limit(_LONGEST_LINE)
    split: dict[str, list[str]] = {}
    for mark in separator or ",;\t":
        try:
            cells = next(csv.reader([line], delimiter=mark, strict=True), [""])
        except csv.Error:  # the quotes end elsewhere than at this mark, or on another line
            continue
        split[mark] = [" ".join(cell.split()) for cell in cells]
    if not split:
        return [line], ""
    best = max(split, key=lambda mark: (len(split[mark]), any(_plain(cell) in _SMILES_NAMES for cell in split[mark])))
    return split[best], best


def _title_and_split(names: Sequence[str]) -> tuple[int | None, int | None]:
    title = next((i for i, name in enumerate(names) if _plain(name) in _TITLE_NAMES), None)
    return title, next((i for i, name in enumerate(names) if name.lower() == "split"), None)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z]", "", name.lower())


def _smiles_columns(names: Iterable[str]) -> list[int]:
    """Indices of the columns with a usual name, or without any of those that contain the word."""
    plain = [_plain(name) for name in names]
    exact = [i for i, name in enumerate(plain) if name in _SMILES_NAMES]
    return exact or [i for i, name in enumerate(plain) if "smiles" in name]


def _smiles_index(names: list[str], source: str, wanted: str | None) -> int | None:
    """Index of the SMILES column; None when no name looks like one."""
    if wanted is not None:
        if wanted not in names:
            raise MolgenError(f"{source}: no column {wanted!r}", f"--smiles-column takes one of: {_listed(names)}")
        return names.index(wanted)
    found = _smiles_columns(names)
    if len(found) > 1:
        both = " and ".join(names[i] for i in found)
        raise MolgenError(
            f"{source}: {'two' if len(found) == 2 else len(found)} columns may hold the SMILES, {both}",
            f"choose with --smiles-column; columns: {_listed(names)}",
        )
    return found[0] if found else None


def _only_molecule(cells: list[str], source: str) -> int:
    """Index of the one cell of a first line without heading that is a molecule of two atoms or more."""
    found = _molecule_cells(cells)
    if len(found) != 1:
        raise _no_smiles_column(cells, source)
    return found[0]


def _molecule_cells(cells: Iterable[str]) -> list[int]:
    parsed = [(i, molecules.parse(cell)) for i, cell in enumerate(cells)]
    return [i for i, molecule in parsed if molecule is not None and molecule.GetNumAtoms() > 1]


def _no_smiles_column(names: Sequence[str], source: str) -> MolgenError:
    return MolgenError(f"{source}: no SMILES column", f"name it with --smiles-column; columns: {_listed(names)}")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
