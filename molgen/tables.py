"""A file → rows of strings: .csv .tsv .smi .txt .sdf, gzipped or not, `-` for stdin.

Streams, so that memory is bounded by what is kept; every error names the file and the line.
"""

import csv
import gzip
import io
import re
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from molgen import molecules
from molgen.errors import MolgenError

SUFFIXES = (".csv", ".tsv", ".smi", ".txt", ".sdf")
_LONGEST_LINE = 2**20
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
    "title",
    "compoundid",
    "compoundname",
    "chemblid",
    "moleculechemblid",
}


class Row(NamedTuple):
    """One molecule as the file has it."""

    number: int
    """Line of the file, counted from 1; record of an SD file."""
    smiles: str
    name: str
    split: str
    """What the file's own `split` column says, or an empty string."""


def read_rows(source: str, smiles_column: str | None = None) -> Iterator[Row]:
    """The rows of a file, or of standard input for `-` (read as .csv if a column is named, else as .smi).

    Raises MolgenError for a file that is missing, empty, not UTF-8 or malformed, and for an unclear SMILES column.
    """
    suffixes = [s.lower() for s in Path(source).suffixes]
    kind = next((s for s in reversed(suffixes) if s != ".gz"), "")
    if source == "-":
        kind = ".csv" if smiles_column else ".smi"
    elif kind not in SUFFIXES:
        raise MolgenError(f"{source}: unknown kind of file", f"known: {' '.join(SUFFIXES)}, each also as .gz")
    if smiles_column and kind not in (".csv", ".tsv"):
        raise MolgenError(f"{source}: --smiles-column is for .csv and .tsv files", "leave it out")
    with _open(source) as stream:
        try:
            if kind == ".sdf":
                for number, (smiles, name) in enumerate(molecules.from_sdf(stream), 1):
                    yield Row(number, smiles, name, "")
            elif kind in (".smi", ".txt"):
                yield from _smi_rows(_lines(stream, source))
            else:
                yield from _csv_rows(_lines(stream, source), source, "\t" if kind == ".tsv" else "", smiles_column)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise MolgenError(f"{source}: damaged gzip data: {error}", "fetch or compress the file again") from None


def read_samples(source: str, smiles_column: str | None = None) -> list[str]:
    """Each line as one sample, nothing cleaned: an empty line is an empty sample.

    The first field of a line of a .smi or .txt file; the SMILES column of a table. A header line is no sample.
    """
    kind = next((s.lower() for s in reversed(Path(source).suffixes) if s.lower() != ".gz"), "")
    if kind in (".csv", ".tsv", ".sdf") or smiles_column:
        return [row.smiles for row in read_rows(source, smiles_column)]
    with _open(source) as stream:
        fields = [line.split()[0] if line.strip() else "" for _, line in _lines(stream, source)]
    # an invalid sample on the first line must count, so only a known column name is taken for a heading
    return fields[1:] if fields and _plain(fields[0]) in _SMILES_NAMES else fields


def _open(source: str) -> BinaryIO:
    if source == "-":
        raw: BinaryIO = sys.stdin.buffer
    else:
        try:
            raw = Path(source).open("rb")  # noqa: SIM115 - read_rows closes it
        except OSError as error:
            hint = "is it a directory?" if isinstance(error, IsADirectoryError) else "check the path"
            raise MolgenError(f"{source}: cannot be read: {error.strerror}", hint) from None
    buffered = raw if isinstance(raw, io.BufferedReader) else io.BufferedReader(raw)  # type: ignore[type-var]
    if buffered.peek(2)[:2] == b"\x1f\x8b":
        return gzip.GzipFile(fileobj=buffered)  # type: ignore[return-value]
    return buffered


def _lines(stream: BinaryIO, source: str) -> Iterator[tuple[int, str]]:
    """(number, line) without line end or byte order mark."""
    number = 0
    while raw := stream.readline(_LONGEST_LINE + 1):
        number += 1
        if len(raw) > _LONGEST_LINE:
            raise MolgenError(f"{source}, line {number}: longer than 1 MiB", "is it a text file, one molecule a line?")
        if b"\0" in raw:
            raise MolgenError(f"{source}, line {number}: a NUL byte", "save the file as UTF-8 text")
        try:
            line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError:
            raise MolgenError(f"{source}, line {number}: not UTF-8", "save the file as UTF-8 text") from None
        yield number, line.rstrip("\r\n")


def _is_header(field: str) -> bool:
    """Whether a first field is a heading: a known name, or a word that RDKit does not parse as a molecule."""
    return _plain(field) in _SMILES_NAMES or (
        bool(re.fullmatch(r"[A-Za-z_ .-]{3,}", field)) and not molecules.parse(field)
    )


def _smi_rows(lines: Iterator[tuple[int, str]]) -> Iterator[Row]:
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


def _csv_rows(
    lines: Iterator[tuple[int, str]], source: str, separator: str, smiles_column: str | None
) -> Iterator[Row]:
    first = next(lines, None)
    if first is None:
        return
    number, header_line = first
    separator = separator or max(",;\t", key=header_line.count)

    def text() -> Iterator[str]:
        nonlocal number
        for number, line in lines:  # noqa: B007 - the number is read by the caller, for its messages
            yield line + "\n"

    header = next(csv.reader([header_line], delimiter=separator), [])
    names = [cell.strip() for cell in header]
    column = _smiles_index(names, source, smiles_column)
    headless = column is None
    if column is None:
        column = _only_molecule(names, source)
    title = None if headless else next((i for i, n in enumerate(names) if _plain(n) in _TITLE_NAMES), None)
    split = None if headless else next((i for i, n in enumerate(names) if n.lower() == "split"), None)
    if headless:
        yield Row(1, names[column], "", "")
    csv.field_size_limit(_LONGEST_LINE)
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
                yield Row(start, cells[column].strip(), name, own)
            start = number + 1
    except csv.Error as error:
        raise MolgenError(f"{source}, line {start}: {error}", "check the quotes from this line on") from None


def _plain(name: str) -> str:
    return re.sub(r"[^a-z]", "", name.lower())


def _smiles_index(names: list[str], source: str, wanted: str | None) -> int | None:
    """Index of the SMILES column; None when no name looks like one."""
    shown = ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
    if wanted is not None:
        if wanted not in names:
            raise MolgenError(f"{source}: no column {wanted!r}", f"--smiles-column takes one of: {shown}")
        return names.index(wanted)
    found = [i for i, name in enumerate(names) if _plain(name) in _SMILES_NAMES]
    if len(found) > 1:
        both = " and ".join(names[i] for i in found)
        raise MolgenError(
            f"{source}: two columns may hold the SMILES, {both}",
            f"choose with --smiles-column; columns: {shown}",
        )
    return found[0] if found else None


def _only_molecule(cells: list[str], source: str) -> int:
    """Index of the one cell of a first line without heading that is a molecule of two atoms or more."""
    parsed = [(i, molecules.parse(cell)) for i, cell in enumerate(cells)]
    found = [i for i, molecule in parsed if molecule is not None and molecule.GetNumAtoms() > 1]
    if len(found) != 1:
        shown = ", ".join(cells[:12]) + (", …" if len(cells) > 12 else "")
        raise MolgenError(f"{source}: no SMILES column", f"name it with --smiles-column; columns: {shown}")
    return found[0]
