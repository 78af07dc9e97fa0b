"""Reads a file of any supported kind: detects the kind and calls its reader.

The readers stream, so memory is bounded by what the caller keeps. Every error names the file and the line. Lines that
are skipped or joined are counted, and reported when the file has been read.
"""

import logging
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import BinaryIO

from molgen.chem.conditions import Condition
from molgen.chem.smiles import parse
from molgen.data.columns import SMILES_NAMES, molecule_cells, no_columns, plain, smiles_columns
from molgen.data.delimited import above_heading, delimited_rows, heading_cells, without_mark
from molgen.data.lines import Lines, opened, raw_lines, text_line
from molgen.data.parquet_rows import parquet_rows
from molgen.data.rows import Notes, Row
from molgen.data.sdfile import sd_rows
from molgen.data.smifile import cell_samples, line_samples, smi_rows
from molgen.errors import MolgenError

logger = logging.getLogger(__name__)

__all__ = ["SUFFIXES", "Row", "read_molecules", "read_rows", "read_samples"]

_KINDS = {
    ".csv": ".csv",
    ".tsv": ".tsv",
    ".tab": ".tsv",
    ".smi": ".smi",
    ".smiles": ".smi",
    ".ism": ".smi",
    ".can": ".smi",
    ".cxsmiles": ".smi",
    ".txt": ".txt",
    ".sdf": ".sdf",
    ".sd": ".sdf",
    ".mol": ".sdf",
    ".parquet": ".parquet",
}
"""Suffix → kind of file."""
SUFFIXES = tuple(_KINDS)
_PACKED = (".gz", ".bz2")
_TABLES = (".csv", ".tsv", ".parquet")
_SHEET, _UNPACK = "save the sheet as CSV UTF-8", "unpack it first"
_CONVERT = "convert it to .sdf or .smi, for example with Open Babel: obabel FILE -O FILE.sdf"
_HINTS = (
    dict.fromkeys((".xlsx", ".xls", ".ods", ".numbers"), _SHEET)
    | dict.fromkeys((".zip", ".7z", ".rar", ".tar", ".tgz"), _UNPACK)
    | {".xz": "unpack it first: xz -dk FILE", ".zst": "unpack it first: zstd -d FILE"}
    | dict.fromkeys((".mol2", ".pdb", ".cif", ".mae", ".cdx", ".cdxml", ".mrv", ".rdf", ".inchi"), _CONVERT)
)
_LOOKED_AT = 50


def read_rows(
    source: str, smiles_column: str | None = None, where: str | None = None, cells: bool = False
) -> Iterator[Row]:
    """The rows of a file, or of stdin for `-`; `chosen` says whether the condition `where` holds.

    The content of stdin, .smi and .txt files is detected: an SD file, a table with a heading or with one molecule per
    row, else lines of a molecule and its name. A record of an SD file that is not chosen is not parsed. With `cells`
    each row has its other columns too.

    Raises MolgenError for a file that is missing, empty, not UTF-8 or malformed, for an unclear SMILES column, and for
    a condition that is malformed, has an unknown column, or compares numbers that may be a thousand times as large.
    """
    condition = None if where is None else Condition(where)
    kind = _kind(source)
    if source.endswith(".molgen"):
        raise MolgenError(f"{source}: encoded already", "only `molgen train` takes such a file; give its molecules")
    if not kind and source != "-":
        known = f"known: {' '.join(SUFFIXES)}, the texts also as {' '.join(_PACKED)}"
        raise MolgenError(f"{source}: unknown kind of file", _HINTS.get(Path(source).suffix.lower(), known))
    notes = Notes(source)
    with opened(source) as stream:
        kind, lines = _recognised(stream, source, kind, smiles_column, condition is not None)
        yield from _rows(stream, kind, lines, source, smiles_column, condition, notes, cells)
    for line in notes.lines():
        logger.info(line)


def read_molecules(file: str, smiles_column: str | None = None) -> list[Row]:
    """The rows of a file. Raises MolgenError if it has none."""
    rows = list(read_rows(file, smiles_column))
    if not rows:
        raise MolgenError(f"{file}: no molecules in it", "give a file with one molecule per line")
    return rows


def read_samples(source: str, smiles_column: str | None = None) -> list[str]:
    """Each line as one sample, not cleaned; an empty line is an empty sample.

    A sample is the first field of a line of a .smi or .txt file, of stdin or of a file of unknown kind, or the SMILES
    cell of a table with a heading. A heading is not a sample, and an invalid sample on the first line is not a heading.
    Tokens or parts of a SMILES separated by spaces are joined; the first one alone is never the sample.
    """
    notes = Notes(source)
    with opened(source) as stream:
        kind, lines = _recognised(stream, source, _kind(source), smiles_column, samples=True)
        if kind == ".smi":
            samples = line_samples(lines, notes)
        else:
            rows = list(_rows(stream, kind, lines, source, smiles_column, None, notes, cells=False))
            samples = cell_samples(rows, notes)
    for line in notes.lines():
        logger.info(line)
    return samples


def _kind(source: str) -> str:
    """The kind of file by its suffix; an empty string for stdin and for unknown suffixes."""
    ending = next((s.lower() for s in reversed(Path(source).suffixes) if s.lower() not in _PACKED), "")
    return _KINDS.get(ending, "")


def _recognised(
    stream: BinaryIO, source: str, kind: str, wanted: str | None, where: bool = False, samples: bool = False
) -> tuple[str, Lines]:
    """(kind of the content: .sdf, .smi, .csv, .tsv or .parquet; the lines if it is text)."""
    if kind == ".parquet" or (kind == "" and stream.peek(4)[:4] == b"PAR1"):  # type: ignore[attr-defined]
        return ".parquet", iter(())
    raw = raw_lines(stream, source)
    if kind in ("", ".smi", ".txt"):
        head = list(islice(raw, _LOOKED_AT))
        raw = chain(head, raw)
        if len(head) > 3 and head[3][1].rstrip().endswith((b"V2000", b"V3000")):
            kind = ".sdf"
        else:
            kind = ".csv" if _begins_table(head, source, wanted, where, samples) else ".smi"
    # an SD file's structures are ASCII; its names and properties are often older than UTF-8
    return kind, ((number, text_line(number, line, source, latin=kind == ".sdf")) for number, line in raw)


def _begins_table(head: list[tuple[int, bytes]], source: str, wanted: str | None, where: bool, samples: bool) -> bool:
    """Whether the first lines of a file are a table, not lines of a molecule and its name."""
    if wanted is not None:
        return True
    texts = (text_line(number, line, source) for number, line in head)
    line = next((text for text in texts if not above_heading(text)), "")
    cells, separator = heading_cells(without_mark(line))
    if len(cells) < 2:
        return False
    if found := smiles_columns(cells):
        # `smiles<TAB>name` is read as lines, so that the rest of a line is its name, whatever the heading says
        lines = separator == "\t" and found == [0] and len(cells) == 2 and plain(cells[0]) in SMILES_NAMES
        return where or not lines
    return not samples and not parse(line.split()[0]) and len(molecule_cells(cells)) == 1


def _rows(
    stream: BinaryIO,
    kind: str,
    lines: Lines,
    source: str,
    smiles_column: str | None,
    condition: Condition | None,
    notes: Notes,
    cells: bool,
) -> Iterator[Row]:
    if smiles_column is not None and kind not in _TABLES:
        raise MolgenError(f"{source}: --smiles-column is for tables, which have columns", "leave it out")
    match kind:
        case ".parquet":
            yield from parquet_rows(stream, source, smiles_column, condition, notes, cells)
        case ".sdf":
            yield from sd_rows(lines, source, condition, notes, cells)
        case ".smi":
            if condition is not None:
                raise no_columns(source)
            yield from smi_rows(lines, notes)
        case _:
            separator = "\t" if kind == ".tsv" else ""
            yield from delimited_rows(lines, source, separator, smiles_column, condition, notes, cells)
