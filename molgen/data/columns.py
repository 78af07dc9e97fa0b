"""Finds the columns of a table with the SMILES, the name and the split, by their names."""

import re
from collections.abc import Iterable, Mapping, Sequence

from molgen.chem.conditions import Condition
from molgen.chem.smiles import canonical, parse
from molgen.errors import MolgenError

SMILES_NAMES = {
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
# A name with one of these words says whether the SMILES have stereo; it counts like the usual names.
_STEREO_WORDS = ("iso", "stereo", "flat", "canonical", "connectivity", "absolute", "chiral")
_MOST_COMPARED = 1_000


def plain(name: str) -> str:
    """The letters of a name, in lower case."""
    return re.sub(r"[^a-z]", "", name.lower())


def is_title(name: str) -> bool:
    """Whether a column of this name has the molecules' names."""
    return plain(name) in _TITLE_NAMES


def usual(names: Iterable[str]) -> bool:
    """Whether one of the names is a usual name for SMILES."""
    return any(plain(name) in SMILES_NAMES for name in names)


def title_and_split(names: Sequence[str]) -> tuple[int | None, int | None]:
    """Indices of the columns with the molecules' names and with their splits; None if there is none."""
    title = next((i for i, name in enumerate(names) if is_title(name)), None)
    return title, next((i for i, name in enumerate(names) if name.lower() == "split"), None)


def _like_smiles(name: str) -> bool:
    return "smiles" in name or name.endswith("smi") or name.startswith("smi")


def smiles_columns(names: Iterable[str]) -> list[int]:
    """Indices of the columns with a usual or a stereo name for SMILES; if none, those whose name contains "smiles"."""
    letters = [plain(name) for name in names]
    exact = [
        i
        for i, name in enumerate(letters)
        if name in SMILES_NAMES or (_like_smiles(name) and any(word in name for word in _STEREO_WORDS))
    ]
    return exact or [i for i, name in enumerate(letters) if "smiles" in name]


def smiles_index(names: list[str], source: str, wanted: str | None) -> int | None:
    """Index of the SMILES column; None if no name looks like one. Raises MolgenError if several do."""
    if wanted is not None:
        if wanted not in names:
            raise MolgenError(f"{source}: no column {wanted!r}", f"--smiles-column takes one of: {listed(names)}")
        return names.index(wanted)
    found = smiles_columns(names)
    if len(found) > 1:
        both = " and ".join(names[i] for i in found)
        raise MolgenError(
            f"{source}: {'two' if len(found) == 2 else len(found)} columns may hold the SMILES, {both}",
            f"choose with --smiles-column (the one with stereo, unless you want none); columns: {listed(names)}",
        )
    return found[0] if found else None


class Rivals:
    """The other columns that may contain SMILES. None of them may have stereo that the chosen column lacks."""

    def __init__(self, names: Sequence[str], column: int, source: str) -> None:
        self._names, self._column, self._source = names, column, source
        self.indices = [i for i, name in enumerate(names) if i != column and _like_smiles(plain(name))]
        self._left = _MOST_COMPARED

    def check(self, taken: str, cells: Mapping[int, str], place: str) -> None:
        """Raises MolgenError if another column has the same molecule with stereo and the chosen cell has none."""
        if not self._left or not taken or _marked(taken):
            return
        for i in self.indices:
            other = cells.get(i, "").strip()
            if not _marked(other):
                continue
            self._left = max(0, self._left - 1)
            smiles_no_stereo = canonical(_unmarked(other))
            if smiles_no_stereo is not None and smiles_no_stereo == canonical(taken):
                raise MolgenError(
                    f"{self._source}, {place}: {self._names[i]} has stereo that {self._names[self._column]} lacks",
                    f"choose with --smiles-column {self._names[i]!r} or {self._names[self._column]!r}",
                )


def _marked(smiles: str) -> bool:
    return any(mark in smiles for mark in "@/\\")


def _unmarked(smiles: str) -> str:
    return re.sub(r"[@/\\]", "", smiles.partition(" ")[0])


def compared_columns(names: Sequence[str], condition: Condition, source: str) -> Mapping[str, int]:
    """Column → index, for the columns of a condition. Raises MolgenError if one does not exist or exists twice."""
    condition.check(names, source)
    twice = next((name for name in condition.names if names.count(name) > 1), None)
    if twice is not None:
        raise MolgenError(f"{source}: two columns called {twice!r}, which the condition names", "rename one of them")
    return {name: names.index(name) for name in condition.names}


def only_molecule(cells: list[str], source: str) -> int:
    """Index of the only cell of a first line that is a molecule of two or more atoms. Raises MolgenError otherwise."""
    found = molecule_cells(cells)
    if len(found) != 1:
        raise no_smiles_column(cells, source)
    return found[0]


def molecule_cells(cells: Iterable[str]) -> list[int]:
    """Indices of the cells that are molecules of two atoms or more."""
    parsed = [(i, parse(cell)) for i, cell in enumerate(cells)]
    return [i for i, molecule in parsed if molecule is not None and molecule.GetNumAtoms() > 1]


def no_smiles_column(names: Sequence[str], source: str) -> MolgenError:
    """The error for a table without a column that looks like SMILES."""
    return MolgenError(f"{source}: no SMILES column", f"name it with --smiles-column; columns: {listed(names)}")


def no_columns(source: str) -> MolgenError:
    """The error for a condition on a file without columns."""
    return MolgenError(
        f"{source}: no columns that a condition could name", "it needs a table with a heading, or an SD file"
    )


def unique(names: Iterable[str], taken: Iterable[str] = ()) -> list[str]:
    """The names, with a number appended to each that is already used, so that all are different."""
    used = set(taken)
    found = []
    for name in names:
        number, new = 1, name
        while new in used:
            number += 1
            new = f"{name}_{number}"
        used.add(new)
        found.append(new)
    return found


def listed(names: Sequence[str]) -> str:
    """Names as text for a message; at most twelve."""
    return ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
