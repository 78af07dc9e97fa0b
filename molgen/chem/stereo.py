"""Configuration by the order of neighbours: compared between a fragment and a molecule, and set. Never by R and S.

A slot without an atom, an implicit hydrogen or a lone pair, counts as the last neighbour. RDKit's tags mean the same.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from rdkit import Chem

_CLOCKWISE, _COUNTER = Chem.ChiralType.CHI_TETRAHEDRAL_CW, Chem.ChiralType.CHI_TETRAHEDRAL_CCW
_TETRAHEDRAL = (_CLOCKWISE, _COUNTER)
_CIS = (Chem.BondStereo.STEREOZ, Chem.BondStereo.STEREOCIS)
_TRANS = (Chem.BondStereo.STEREOE, Chem.BondStereo.STEREOTRANS)


class Piece(Protocol):
    """A fragment, some of whose atoms are points."""

    @property
    def molecule(self) -> Any: ...
    @property
    def first(self) -> int: ...


def set_stereo(molecule: Any, fragments: Iterable[Piece], places: Sequence[int]) -> None:
    """Gives the atoms of a molecule the configuration that they have in the fragments, in place.

    `places` has the molecule's atom for each number of a fragment's atom, -1 if it is not there. A centre or a double
    bond whose configuration needs more than what is there has none.
    """
    any_bond = False
    for fragment in fragments:
        for atom in fragment.molecule.GetAtoms():
            place = places[fragment.first + atom.GetIdx()]
            if atom.GetChiralTag() in _TETRAHEDRAL and place >= 0:
                target = molecule.GetAtomWithIdx(place)
                odd = _odd(_expected(atom, fragment.first, places), _neighbours(target))
                target.SetChiralTag(Chem.ChiralType.CHI_UNSPECIFIED if odd is None else _turned(atom, odd))
                if odd is not None and target.GetTotalNumHs() == 1:  # RDKit's writer looks for an explicit hydrogen
                    target.SetNumExplicitHs(1)
                    target.SetNoImplicit(True)
        for bond in fragment.molecule.GetBonds():
            cis = _is_cis(bond)
            if cis is None:
                continue
            begin, end = (places[fragment.first + i] for i in (bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()))
            ends = [_reference(bond, side, fragment.first, places) for side in (0, 1)]
            if begin < 0 or end < 0 or None in ends:
                continue
            (one, flips), (other, more) = ends  # type: ignore[misc]
            target = molecule.GetBondBetweenAtoms(begin, end)
            if target is None or target.GetBondType() != Chem.BondType.DOUBLE:
                continue
            if target.GetBeginAtomIdx() != begin:
                one, other = other, one
            target.SetStereoAtoms(one, other)
            is_cis = cis != (flips != more)
            target.SetStereo(Chem.BondStereo.STEREOCIS if is_cis else Chem.BondStereo.STEREOTRANS)
            any_bond = True
    if any_bond:  # RDKit writes what the neighbouring bonds say
        Chem.SetDoubleBondNeighborDirections(molecule)


def same_stereo(molecule: Any, fragments: Iterable[Piece], places: Sequence[int]) -> bool:
    """Whether the atoms of a molecule have the configuration that they have in the fragments.

    What is no stereocentre in the molecule, for it bears two equal groups, cannot differ.
    """
    lost: list[int] = []
    lost_bonds: list[int] = []
    for fragment in fragments:
        for atom in fragment.molecule.GetAtoms():
            place = places[fragment.first + atom.GetIdx()]
            if atom.GetChiralTag() not in _TETRAHEDRAL or place < 0:
                continue
            target = molecule.GetAtomWithIdx(place)
            odd = _odd(_expected(atom, fragment.first, places), _neighbours(target))
            if target.GetChiralTag() not in _TETRAHEDRAL:
                lost.append(place)
            elif odd is None or target.GetChiralTag() != _turned(atom, odd):
                return False
        for bond in fragment.molecule.GetBonds():
            cis = _is_cis(bond)
            if cis is None:
                continue
            begin, end = (places[fragment.first + i] for i in (bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()))
            target = molecule.GetBondBetweenAtoms(begin, end)
            found = _is_cis(target)
            if found is None:
                lost_bonds.append(target.GetIdx())
                continue
            ends = [_reference(bond, side, fragment.first, places) for side in (0, 1)]
            if None in ends:
                return False
            (one, flips), (other, more) = ends  # type: ignore[misc]
            if target.GetBeginAtomIdx() != begin:
                one, other = other, one
            marked = list(target.GetStereoAtoms())
            turned = (marked[0] != one) != (marked[1] != other)
            if (found != turned) != (cis != (flips != more)):
                return False
    return not (lost or lost_bonds) or _none_possible(molecule, lost, lost_bonds)


def _none_possible(molecule: Any, atoms: Sequence[int], bonds: Sequence[int]) -> bool:
    """Whether none of these atoms and bonds could have a configuration."""
    chem: Any = Chem
    possible = chem.FindPotentialStereo(Chem.Mol(molecule))
    kinds = {(one.type == Chem.StereoType.Bond_Double, one.centeredOn) for one in possible}
    return kinds.isdisjoint({(False, i) for i in atoms} | {(True, i) for i in bonds})


def _neighbours(atom: Any) -> list[int | None]:
    """Indices of the neighbours in RDKit's order; three are followed by None."""
    own = atom.GetIdx()
    found: list[int | None] = [bond.GetOtherAtomIdx(own) for bond in atom.GetBonds()]
    return [*found, None] if len(found) == 3 else found


def _expected(atom: Any, first: int, places: Sequence[int]) -> list[int | None]:
    """The same of a fragment's atom, as atoms of the molecule; None for what is not there."""
    found = [None if i is None else places[first + i] for i in _neighbours(atom)]
    return [None if place is not None and place < 0 else place for place in found]


def _odd(expected: Sequence[int | None], found: Sequence[int | None]) -> bool | None:
    """Whether an odd number of exchanges turns one order into the other; None if they are not the same atoms.

    One slot without an atom may be one with an atom in the other order: a hydrogen that something has replaced.
    """
    if len(expected) != 4 or len(found) != 4 or expected.count(None) > 1:
        return None
    if None in expected and None not in found:
        new = [place for place in found if place not in expected]
        expected = [new[0] if place is None and len(new) == 1 else place for place in expected]
    if set(expected) != set(found):
        return None
    order = [list(found).index(place) for place in expected]
    return sum(one > other for i, one in enumerate(order) for other in order[i + 1 :]) % 2 == 1


def _turned(atom: Any, odd: bool) -> Any:
    """An atom's tag, or the opposite one."""
    return _TETRAHEDRAL[(_TETRAHEDRAL.index(atom.GetChiralTag()) + odd) % 2]


def _is_cis(bond: Any) -> bool | None:
    """Whether the two stereo atoms of a double bond are on the same side; None without a configuration."""
    stereo = bond.GetStereo()
    return True if stereo in _CIS else False if stereo in _TRANS else None


def _reference(bond: Any, side: int, first: int, places: Sequence[int]) -> tuple[int, bool] | None:
    """(an atom of the molecule beside one end of a fragment's double bond, whether it is opposite the stereo atom)."""
    stereo_atom = bond.GetStereoAtoms()[side]
    if places[first + stereo_atom] >= 0:
        return places[first + stereo_atom], False
    end, other = (bond.GetBeginAtom(), bond.GetEndAtom()) if side == 0 else (bond.GetEndAtom(), bond.GetBeginAtom())
    for neighbour in end.GetNeighbors():
        i = neighbour.GetIdx()
        if i not in (other.GetIdx(), stereo_atom) and places[first + i] >= 0:
            return places[first + i], True
    return None
