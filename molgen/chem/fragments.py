"""Fragments that molecules are to keep: their attachment points, prompts that end at one, and the check of what came.

A point is an atom `*` with one bond. A prompt is a random SMILES of the fragment whose last atom is a point, without
that point: a model that goes on writes what is attached there (PromptSMILES, Thomas et al. 2024, J. Cheminform. 16:77).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from rdkit import Chem

from molgen.chem.smiles import failure, parse, quiet
from molgen.errors import MolgenError

_chem: Any = Chem
_R_GROUP = re.compile(r"\[R(\d*)\]")
_HINT = "such as '[*:1]c1ccccc1', with the points marked"
_DRAWS = 60  # random SMILES among which prompts are looked for
_MOST_MATCHES = 10_000


@dataclass(frozen=True)
class Point:
    """An attachment point."""

    label: int
    anchor: int
    """Index of the fragment's atom that the point is bonded to."""
    dummy: int
    """Index of the point's own atom."""


class Fragment:
    """A fragment with its points."""

    def __init__(self, smiles: str) -> None:
        """Raises MolgenError if it is none."""
        self.smiles = smiles
        text = _R_GROUP.sub(lambda found: f"[*:{found[1] or 0}]", smiles)
        molecule = parse(text)
        if molecule is None:
            raise MolgenError(f"--keep {smiles}: RDKit does not parse it: {failure(text)}", _HINT)
        if len(Chem.GetMolFrags(molecule)) > 1:
            raise MolgenError(f"--keep {smiles}: several fragments", "one at a time here")
        self.molecule = molecule
        self.points = tuple(self._point(atom) for atom in molecule.GetAtoms() if atom.GetAtomicNum() == 0)
        self.atoms = tuple(atom.GetIdx() for atom in molecule.GetAtoms() if atom.GetAtomicNum())
        if not self.atoms:
            raise MolgenError(f"--keep {smiles}: has no atom to keep", _HINT)

    def _point(self, atom: Any) -> Point:
        if atom.GetDegree() != 1 or atom.GetNeighbors()[0].GetAtomicNum() == 0:
            raise MolgenError(f"--keep {self.smiles}: an attachment point has one bond, to an atom that is kept", _HINT)
        label = atom.GetAtomMapNum() or atom.GetIsotope()
        return Point(label, atom.GetNeighbors()[0].GetIdx(), atom.GetIdx())


def fragments_of(text: str) -> tuple[Fragment, ...]:
    """The fragments of a `--keep`, joined by dots; points without a label get one each, from the largest on.

    Raises MolgenError for what is none, and for several fragments of which one shares no label with another.
    """
    return tuple(Fragment(part) for part in text.split("."))


def kept(smiles: str, fragments: Sequence[str]) -> list[list[int]] | None:
    """For each fragment the atoms of a molecule that it is kept in, in the order of the fragment's atoms; None if not.

    At atoms that are no points: the same element, charge, isotope, number of neighbours and of hydrogens. At points: as
    many neighbours as the fragment with its points, and as many hydrogens. Stereo is compared by the order of the
    neighbours, not by R and S. No atom is in two fragments.
    """
    molecule = parse(smiles)
    if molecule is None:
        return None
    with quiet():
        return _placed(molecule, [_fragment(one) for one in fragments], frozenset())


def _placed(molecule: Any, fragments: Sequence[Fragment], taken: frozenset[int]) -> list[list[int]] | None:
    """A place for each fragment, tried one after the other."""
    if not fragments:
        return []
    first, *others = fragments
    for match in molecule.GetSubstructMatches(
        _query(first.smiles), useChirality=True, uniquify=False, maxMatches=_MOST_MATCHES
    ):
        atoms = [match[i] for i in first.atoms]
        if taken.isdisjoint(atoms) and all(
            _same(molecule.GetAtomWithIdx(match[i]), first.molecule.GetAtomWithIdx(i)) for i in first.atoms
        ):
            rest = _placed(molecule, others, taken | frozenset(atoms))
            if rest is not None:
                return [atoms, *rest]
    return None


def _same(found: Any, wanted: Any) -> bool:
    return (
        found.GetAtomicNum() == wanted.GetAtomicNum()
        and found.GetFormalCharge() == wanted.GetFormalCharge()
        and found.GetIsotope() == wanted.GetIsotope()
        and found.GetDegree() == wanted.GetDegree()
        and found.GetTotalNumHs() == wanted.GetTotalNumHs()
    )


@lru_cache(maxsize=64)
def _fragment(smiles: str) -> Fragment:
    return Fragment(smiles)


@lru_cache(maxsize=64)
def _query(smiles: str) -> Any:
    """The fragment as a pattern: points match any atom, bonds match single for aromatic where perception may change."""
    parameters: Any = _chem.AdjustQueryParameters.NoAdjustments()
    parameters.makeDummiesQueries = True
    return _chem.AdjustQueryProperties(_fragment(smiles).molecule, parameters)


def prompts(smiles: str, anchor: int, seed: int, most: int) -> list[list[Any]]:
    """Up to `most` distinct prompts [string, output order] that end at an atom of a molecule, numbered in its string.

    The string is a random SMILES of the molecule up to the atom; what is attached to it stands before it or in branches
    after it. A new neighbour is written next. Output order: for each atom of the string, its index in `smiles`. Empty if
    the atom has no hydrogen.
    """
    molecule = parse(smiles)
    if molecule is None:
        return []
    with quiet():
        marked = _with_dummy(molecule, anchor)
        if marked is None:
            return []
        dummy = marked.GetNumAtoms() - 1
        found: dict[str, list[int]] = {}
        for i in range(_DRAWS):
            _chem.rdBase.SeedRandomNumberGenerator(seed + i)
            text = str(Chem.MolToSmiles(marked, doRandom=True, canonical=False))
            order = [int(n) for n in marked.GetProp("_smilesAtomOutputOrder").strip("[],").split(",")]
            if order[-1] == dummy and text.endswith("*"):
                found.setdefault(text[:-1], order[:-1])
            if len(found) == most:
                break
        return [[text, order] for text, order in found.items()]


def _with_dummy(molecule: Any, anchor: int) -> Any | None:
    """The molecule with one hydrogen of an atom replaced by a dummy atom, the last one; None if it has no hydrogen."""
    before = molecule.GetNumAtoms()
    with_hydrogens = _chem.AddHs(molecule, onlyOnAtoms=[anchor])
    if with_hydrogens.GetNumAtoms() == before:
        return None
    editable = Chem.RWMol(with_hydrogens)
    editable.GetAtomWithIdx(before).SetAtomicNum(0)
    whole = editable.GetMol()
    return _chem.RemoveHs(whole)
