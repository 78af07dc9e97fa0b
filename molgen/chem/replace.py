"""A molecule without one of its parts: what stays, with points where the part was."""

from typing import Any

from rdkit import Chem

from molgen.chem.fragments import Keep, numbered
from molgen.chem.smiles import parse, quiet
from molgen.errors import MolgenError

_chem: Any = Chem
_MOST_MATCHES = 1_000


def rest_of(part: str, of: str) -> tuple[str, int]:
    """(the rest of a molecule as a text of `numbered`, in how many places the part stands); the first one goes.

    Points of the part say where it is bonded to the rest; without points it may be bonded anywhere. A rest with one
    point gets a new group, two points get a linker, or a ring if both are in one piece.
    Raises MolgenError if the molecule has no such part, if nothing stays, and for three points or more.
    """
    molecule = parse(of)
    if molecule is None:
        raise MolgenError(f"--of {of}: RDKit does not parse it", "a SMILES")
    text = numbered(part)
    going = Keep(text, "--replace")
    with quiet():
        places = [cut for match in _matches(molecule, going) if (cut := _cut(molecule, going, match)) is not None]
        distinct = {frozenset(inside): (inside, bonds) for inside, bonds in reversed(places)}
        if not distinct:
            raise MolgenError(f"--replace {part}: {of} has no such part", "compare it with molgen sample --keep")
        inside, bonds = places[0]
        if not bonds:
            raise MolgenError(f"--replace {part}: nothing of {of} stays", "name a smaller part")
        if len(bonds) > 2:
            raise MolgenError(
                f"--replace {part}: bonded at {len(bonds)} places to the rest, a linker joins two",
                "name a part with one or two bonds to the rest, or --keep a part of it",
            )
        return numbered(_rest(molecule, inside, bonds)), len(distinct)


def _matches(molecule: Any, part: Keep) -> list[dict[int, int]]:
    """For each place: atom of the part → atom of the molecule, without the points."""
    found = []
    for fragment in part.fragments[:1]:
        dummies = {point.dummy for point in fragment.points}
        editable = Chem.RWMol(fragment.molecule)
        for dummy in sorted(dummies, reverse=True):
            editable.RemoveAtom(dummy)
        atoms = [i for i in range(fragment.molecule.GetNumAtoms()) if i not in dummies]
        pattern = editable.GetMol()
        for atom in pattern.GetAtoms():  # hydrogens do not count, for the part is a piece
            atom.SetNoImplicit(False)
        for match in molecule.GetSubstructMatches(pattern, uniquify=False, maxMatches=_MOST_MATCHES):
            found.append(dict(zip(atoms, match, strict=True)))
    return found


def _cut(molecule: Any, part: Keep, match: dict[int, int]) -> tuple[set[int], list[int]] | None:
    """(atoms of the part, bonds to the rest); None if it is bonded elsewhere than at its points."""
    inside = set(match.values())
    bonds = [
        bond for bond in molecule.GetBonds() if (bond.GetBeginAtomIdx() in inside) != (bond.GetEndAtomIdx() in inside)
    ]
    at = sorted(bond.GetBeginAtomIdx() if bond.GetBeginAtomIdx() in inside else bond.GetEndAtomIdx() for bond in bonds)
    if part.points and at != sorted(match[point.anchor] for point in part.points):
        return None
    return inside, [bond.GetIdx() for bond in bonds]


def _rest(molecule: Any, inside: set[int], bonds: list[int]) -> str:
    """SMILES of what stays, with points of the same number: of what was bonded by two bonds."""
    labels = [(1, 1)] * len(bonds)
    for atom in molecule.GetAtoms():
        atom.SetIsotope(0)
    cut = _chem.FragmentOnBonds(molecule, bonds, addDummies=True, dummyLabels=labels)
    pieces = [piece for piece in Chem.GetMolFrags(cut) if inside.isdisjoint(piece)]
    return ".".join(str(Chem.MolFragmentToSmiles(cut, piece)) for piece in pieces)
