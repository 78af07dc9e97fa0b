"""Reads lines of a molecule and its name (.smi), and samples, which are evaluated as they are.

Language models may write tokens separated by spaces. RDKit takes the text after a space as a name, so it would read the
first token as the molecule. Such lines are joined and reported.
"""

import re
from collections.abc import Iterator, Sequence

from molgen.chem.smiles import parse
from molgen.data.columns import SMILES_NAMES, is_title, plain
from molgen.data.lines import Lines
from molgen.data.rows import Notes, Row

_TOKEN = re.compile(r"\[[^\[\]\s]+\]|Br|Cl|[BCNOPSFIbcnops]|%\d\d|[-=#$:/\\.()+~*@?>\d]")
# Words that a heading may consist of, besides names of columns.
_WORDS = {"structure", "structures", "molecule", "mol", "compound", "compounds"}
_ATOM = re.compile(r"\[|[A-Za-z]")
_JOINED = "lines of tokens with spaces between, joined"
_PIECES = "lines of pieces with spaces between, joined"
_COMMA = (
    "lines with a comma or semicolon after a molecule, taken whole and so invalid (a table needs a heading: smiles,…)"
)
_QUOTES = "lines in quotes, taken whole and so invalid (remove the quotes)"
_MARKS = "lines of tokens behind what is no token, invalid (remove marks such as <s>)"
_SECOND = "lines whose first field is not a molecule, but the second field is"
_SPACED = "cells with a space, taken whole and so invalid"


def smi_rows(lines: Lines, notes: Notes) -> Iterator[Row]:
    """The first field is the molecule, with its CXSMILES part; the rest its name."""
    above = True
    for number, line in lines:
        if not line.strip():
            notes.add("empty lines passed over", f"line {number}")
            continue
        if above and line.startswith("#"):
            notes.add("comment lines at the top passed over", f"line {number}", line)
            continue
        smiles, *rest = line.split(maxsplit=1)
        if above and is_heading(line):
            above = False
            continue
        above = False
        if tokens := _tokens(line.split()):
            notes.add(_JOINED, f"line {number}", line)
            yield Row(number, "".join(line.split()[:tokens]), " ".join(line.split()[tokens:]), "")
            continue
        if smiles[0] in "\"'":
            notes.add(_QUOTES, f"line {number}", line)
        name = rest[0] if rest else ""
        if name.startswith("|"):  # a CXSMILES part belongs to the molecule; the text after it is the name
            extension, bar, name = name[1:].partition("|")
            smiles = f"{smiles} |{extension}{bar}"
        yield Row(number, smiles, name.strip(), "")


def is_heading(line: str) -> bool:
    """Whether a first line is a heading: it begins with a usual name for SMILES, or contains only usual names.

    Any other first line is a row, so that no row is lost; if it is not a molecule, it is counted as dropped.
    """
    fields = line.split()
    return plain(fields[0]) in SMILES_NAMES or (
        not parse(fields[0])
        and all(plain(field) in _WORDS or "smiles" in plain(field) or is_title(field) for field in fields)
    )


def line_samples(lines: Lines, notes: Notes) -> list[str]:
    """The first field of each line; an empty line is an empty sample. A first line with a usual name is a heading."""
    numbered = list(lines)
    if numbered and numbered[0][1].strip() and plain(numbered[0][1].split()[0]) in SMILES_NAMES:
        notes.add("headings, no samples", f"line {numbered[0][0]}", numbered.pop(0)[1])
    texts = [line for _, line in numbered]
    samples = []
    for (number, line), joined in zip(numbered, _joined(texts), strict=True):
        fields = line.split()
        place = f"line {number}"
        if not fields:
            notes.add("empty lines, each an empty sample", place)
        elif joined:
            notes.add(joined, place, line)
        elif line.strip()[0] in "\"'":
            notes.add(_QUOTES, place, line)
        elif _behind_comma(fields[0]):
            notes.add(_COMMA, place, line)
        elif _tokens(fields[1:]) and not parse(fields[0]):
            notes.add(_MARKS, place, line)
        elif len(fields) > 1 and not parse(fields[0]) and _is_molecule(fields[1]):
            notes.add(_SECOND, place, line)
        samples.append(_join(fields) if joined else fields[0] if fields else "")
    return samples


def cell_samples(rows: Sequence[Row], notes: Notes) -> list[str]:
    """The SMILES cells of a table."""
    samples = []
    for row, joined in zip(rows, _joined([row.smiles for row in rows]), strict=True):
        place = f"row {row.number}"
        if joined:
            notes.add(joined, place, row.smiles)
        elif len(row.smiles.split()) > 1 and not row.smiles.split()[1].startswith("|"):
            notes.add(_SPACED, place, row.smiles)
        samples.append(_join(row.smiles.split()) if joined else row.smiles)
    return samples


def _joined(texts: Sequence[str]) -> list[str]:
    """For each text, why its fields must be joined, or an empty string.

    Single tokens are always joined. Longer parts are joined only if most of the texts with several fields look like
    this, because a name may look like a part too.
    """
    fields = [text.split() for text in texts]
    reasons = [_JOINED if _tokens(own) else _PIECES if _is_in_pieces(own) else "" for own in fields]
    most = 2 * sum(map(bool, reasons)) > sum(len(own) > 1 for own in fields)
    if not most:
        return [reason if reason == _JOINED else "" for reason in reasons]
    return [reason or (_PIECES if len(own) > 1 else "") for reason, own in zip(reasons, fields, strict=True)]


def _join(fields: Sequence[str]) -> str:
    return "".join(fields[: _tokens(fields) or len(fields)])


def _tokens(fields: Sequence[str]) -> int:
    """Number of leading fields that are single tokens of the molecule; 0 if the first field alone is the molecule.

    One of them after the first must be an atom, because `C 1` may be methane with the name 1. After three or more
    tokens a name may follow.
    """
    count = next((i for i, field in enumerate(fields) if not _TOKEN.fullmatch(field)), len(fields))
    enough = count > 1 and (count == len(fields) or count > 2)
    return count if enough and any(_ATOM.match(field) for field in fields[1:count]) else 0


def _is_in_pieces(fields: Sequence[str]) -> bool:
    """Whether a line is a SMILES in parts of several tokens each.

    Either the parentheses within a part are not balanced, or all parts together are a molecule but not each one alone.
    """
    if len(fields) < 2 or any(_TOKEN.sub("", field) for field in fields):
        return False
    if any(field.count("(") != field.count(")") for field in fields):
        return True
    return parse("".join(fields)) is not None and not all(map(parse, fields))


def _behind_comma(field: str) -> bool:
    before = re.split("[,;|]", field, maxsplit=1)[0]
    return before != field and _is_molecule(before)


def _is_molecule(text: str) -> bool:
    molecule = parse(text)
    return molecule is not None and molecule.GetNumAtoms() > 1
