"""Everything RDKit of strings: parsing, canonical and random SMILES, why a string is none.

Strings in, strings out. No function here changes RDKit's global state: its log is muted around each call.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from itertools import accumulate
from typing import Any

import numpy as np
import rdkit
from rdkit import Chem, rdBase

RDKIT_VERSION: str = rdkit.__version__
VERSION = "1"
"""Increase it when the results of `canonical` or `add_carbon` change, because they are cached."""

# RDKit's parser is recursive: thousands of nested branches would crash the process and not raise an error.
MOST_CHARACTERS = 10_000
"""Of a string that is parsed whatever is in it."""
# characters of a longer string with fewer branches in each other and fewer atoms than these
_MOST_IF_FLAT, _DEEPEST, _MOST_ATOMS = 32_768, 5_000, 10_000
_ATOM = re.compile(r"\[[^\]]*\]|Br|Cl|[A-Za-z*]")
_BRACKET_SYMBOL = re.compile(r"\[\d*([A-Za-z][a-z]?)(?=[@H+\-:\]\d])")


@contextmanager
def quiet() -> Iterator[None]:
    """Mutes RDKit's log inside the block only."""
    block = rdBase.BlockLogs()
    try:
        yield
    finally:
        del block


def parse(smiles: str) -> Any | None:
    """A sanitised RDKit molecule; None for an empty, unparsable or non-ASCII string.

    RDKit silently strips characters that are not ASCII, so such strings are rejected before. RDKit takes the text after
    a space as a name, so only a CXSMILES part may follow a space.
    """
    if not smiles or _too_large(smiles) or not (smiles.isascii() and smiles.isprintable()):
        return None
    if (extension := smiles.strip().partition(" ")[2].lstrip()) and not extension.startswith("|"):
        return None
    with quiet():
        molecule = Chem.MolFromSmiles(smiles)
    return molecule if molecule is not None and molecule.GetNumAtoms() else None


def _too_large(smiles: str) -> bool:
    """Whether RDKit is not asked to parse a string."""
    if len(smiles) <= MOST_CHARACTERS:
        return False
    steps = ((c == "(") - (c == ")") for c in smiles)
    atoms = len(_ATOM.findall(smiles))
    return len(smiles) > _MOST_IF_FLAT or max(accumulate(steps)) > _DEEPEST or atoms >= _MOST_ATOMS


def canonical(smiles: str) -> str | None:
    """RDKit's canonical SMILES; None if `parse` returns None."""
    molecule = parse(smiles)
    return None if molecule is None else str(Chem.MolToSmiles(molecule))


def flat(smiles: str) -> str | None:
    """RDKit's canonical SMILES without stereo; None if `parse` returns None."""
    molecule = parse(smiles)
    return None if molecule is None else str(Chem.MolToSmiles(molecule, isomericSmiles=False))


def query_of(molecule: Any) -> str:
    """`bond` or `atom` if the molecule has a query feature (`~`, aromatic-or-double, a list of elements), else ""."""
    if any(bond.HasQuery() for bond in molecule.GetBonds()):
        return "bond"
    return "atom" if any(atom.HasQuery() and atom.GetAtomicNum() for atom in molecule.GetAtoms()) else ""


def without_stereo_at(smiles: str, atoms: Sequence[int]) -> str | None:
    """Canonical SMILES without the configuration of the given atoms, numbered from 0 in the order of the string.

    None if one of the atoms does not exist; a string that does not parse is returned unchanged.
    """
    molecule = parse(smiles)
    if molecule is None:
        return smiles
    with quiet():
        parameters: Any = Chem.SmilesParserParams()
        parameters.removeHs = False
        written = Chem.MolFromSmiles(smiles, parameters)
        if max(atoms) >= written.GetNumAtoms():
            return None
        for number in atoms:
            atom = written.GetAtomWithIdx(number)
            atom.SetChiralTag(Chem.ChiralType.CHI_UNSPECIFIED)
            for bond in atom.GetBonds():  # an axis or a double bond whose two atoms are in the group
                if bond.GetBeginAtomIdx() in atoms and bond.GetEndAtomIdx() in atoms:
                    bond.SetStereo(Chem.BondStereo.STEREONONE)
        return canonical(str(Chem.MolToSmiles(written)))


def failure(smiles: str) -> str:
    """Why RDKit cannot parse a string.

    One of: empty, not ASCII, syntax, unknown element, kekulisation, valence, other.
    """
    if not smiles:
        return "empty"
    if not (smiles.isascii() and smiles.isprintable()):
        return "not ASCII"
    with quiet():
        too_large = _too_large(smiles)
        molecule = Chem.MolFromSmiles(smiles[:MOST_CHARACTERS] if too_large else smiles, sanitize=False)
        if molecule is None or too_large or " " in smiles.strip():
            return "unknown element" if any(map(_no_element, _BRACKET_SYMBOL.findall(smiles))) else "syntax"
        return _problem(molecule)


def _problem(molecule: Any) -> str:
    """Why a molecule cannot be sanitised."""
    problems = [problem.GetType() for problem in Chem.DetectChemistryProblems(molecule)]
    if any("Valence" in problem for problem in problems):
        return "valence"
    return "kekulisation" if problems else "other"


def _no_element(symbol: str) -> bool:
    return symbol.capitalize() not in _elements()


@lru_cache(maxsize=1)
def _elements() -> frozenset[str]:
    table = Chem.GetPeriodicTable()
    return frozenset(table.GetElementSymbol(number) for number in range(1, 119)) | {"H", "D", "T"}


def random_form(smiles: str, seed: int) -> str | None:
    """A random SMILES of the molecule of a canonical SMILES (Arús-Pous et al. 2019, J. Cheminform. 11:71).

    None if the random string does not parse back to the same molecule. The same seed gives the same string.
    """
    molecule = _parsed(smiles)
    if molecule is None:
        return None
    with quiet():
        drawn = str(Chem.MolToRandomSmilesVect(molecule, 1, randomSeed=seed)[0])
    return drawn if canonical(drawn) == smiles else None


def random_forms(smiles: str, draws: int, seed: int) -> list[str]:
    """The distinct strings among `draws` random SMILES of a molecule, without the given string; empty if it is invalid.

    Each parses back to the same molecule. The same seed gives the same strings.
    """
    molecule = parse(smiles)
    if molecule is None:
        return []
    expected = canonical(smiles)
    with quiet():
        drawn = Chem.MolToRandomSmilesVect(molecule, draws, randomSeed=seed)
    return [form for form in dict.fromkeys(map(str, drawn)) if form != smiles and canonical(form) == expected]


def add_carbon(smiles: str, seed: int, most: int = 5) -> list[str]:
    """Canonical SMILES of up to `most` valid molecules made by inserting one `C` at a random place of a string.

    The AddCarbon generator of Renz et al. (2019, Drug Discov. Today Technol. 32:55). It shows that a validity,
    uniqueness and novelty near 1 do not prove a good generator.
    """
    places = np.random.default_rng(seed).permutation(len(smiles) + 1).tolist()
    found: list[str] = []
    for place in places:
        changed = canonical(f"{smiles[:place]}C{smiles[place:]}")
        if changed is not None and changed not in found:
            found.append(changed)
            if len(found) == most:
                break
    return found


def from_molblock(block: str) -> tuple[str, str]:
    """(canonical SMILES of a connection table, "") or ("", cause).

    The causes are empty, query bond, query atom, and those of `failure`. Centres that are known only relative to each
    other (`or`, `and`) are in a CXSMILES part after the SMILES, ` |o1:1|`: a SMILES alone would mean one stereoisomer.
    """
    with quiet():
        try:
            drawn = Chem.MolFromMolBlock(block, sanitize=False)
            if drawn is None:
                return "", _unreadable(block)
            if not drawn.GetNumAtoms():
                return "", "empty"
            if query := query_of(drawn):
                return "", f"query {query}"
            molecule = Chem.MolFromMolBlock(block)
            if molecule is None:
                return "", _problem(drawn)
            groups = {group.GetGroupType() for group in molecule.GetStereoGroups()}
            if groups - {Chem.StereoGroupType.STEREO_ABSOLUTE}:
                only = Chem.CXSmilesFields.CX_ENHANCEDSTEREO
                return str(Chem.MolToCXSmiles(molecule, Chem.SmilesWriteParams(), only)), ""
            return str(Chem.MolToSmiles(molecule)), ""
        except (ValueError, RuntimeError):
            return "", _unreadable(block)


def _unreadable(block: str) -> str:
    """Why RDKit cannot read a connection table; in V2000 the element is the fourth field of an atom line."""
    lines = block.split("\n")
    if len(lines) < 4 or not "".join(lines[3:]).strip():
        return "empty"
    count = lines[3][:3].strip()
    rows = [line.split() for line in lines[4 : 4 + int(count)]] if count.isdigit() else []
    symbols = [row[3] for row in rows if len(row) > 3 and row[3].isalpha()]
    return "unknown element" if any(map(_no_element, symbols)) else "syntax"


@lru_cache(maxsize=10_000)  # about 30 KB per molecule in each worker; a larger cache would have few more hits
def _parsed(smiles: str) -> Any | None:
    return parse(smiles)
