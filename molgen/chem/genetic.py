"""A graph genetic algorithm on molecules: crossover of two parents, mutation of one. Runs in the worker processes.

The idea is Jensen's (2019, Chem. Sci. 10:3567): parents are cut at acyclic bonds or through a ring and their parts
joined; a child is changed by one of seven edits. Children are valid, of one fragment, without radicals.
"""

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from rdkit import Chem

from molgen.chem.smiles import parse, quiet

_chem: Any = Chem
_TRIES = 10
_MOST_ATOMS = 60
_WEIGHTS = {"C": 45, "N": 20, "O": 15, "F": 8, "S": 6, "Cl": 4, "Br": 2}
_VALENCE = {"C": 4, "N": 3, "O": 2, "F": 1, "S": 2, "Cl": 1, "Br": 1, "I": 1, "P": 5, "B": 3, "Si": 4, "Se": 2}
_OTHERS = 4  # weight of an element that is asked for
_LARGEST_RING = 8
Editable = Any
_Single, _Double, _Triple = Chem.BondType.SINGLE, Chem.BondType.DOUBLE, Chem.BondType.TRIPLE


class _Draws(Random):
    """Random choices, with the elements that an edit may use."""

    def __init__(self, seed: int, elements: Sequence[str]) -> None:
        super().__init__(seed)
        self.weights = {symbol: _OTHERS for symbol in elements if symbol in _VALENCE} | _WEIGHTS

    def element(self, least: int, other_than: str = "") -> str | None:
        """An element of at least this valence; None if there is no other."""
        found = {s: w for s, w in self.weights.items() if _VALENCE[s] >= least and s != other_than}
        return self.choices(list(found), list(found.values()))[0] if found else None


def offspring(first: str, second: str, seed: int, *, mutation: float, elements: Sequence[str] = ()) -> str | None:
    """Canonical SMILES of a child of two parents, mutated with this probability; None if none was found.

    Mutation uses C, N, O, F, S, Cl and Br, and `elements`.
    """
    random = _Draws(seed, elements)
    with quiet():
        parents = [parse(smiles) for smiles in (first, second)]
        if None in parents:
            return None
        child = _crossed(parents, random) if first != second else parents[0]
        if child is None:
            child = random.choice(parents)
            return _mutated(child, random)
        if first == second or random.random() < mutation:
            return _mutated(child, random)
        return str(Chem.MolToSmiles(child))


def _mutated(molecule: Any, random: _Draws) -> str | None:
    for _ in range(_TRIES):
        edit = random.choices(_EDITS, _EDIT_WEIGHTS)[0]
        kekulised = Chem.RWMol(molecule)
        Chem.Kekulize(kekulised, clearAromaticFlags=True)
        if not edit(kekulised, random):
            continue
        child = _sound(kekulised)
        if child is not None:
            return str(Chem.MolToSmiles(child))
    return None


def _crossed(parents: Sequence[Any], random: _Draws) -> Any | None:
    for _ in range(_TRIES):
        cut = _cut_chain if random.random() < 0.5 else _cut_ring
        parts = [cut(parent, random) for parent in parents]
        if None in parts:
            continue
        one, other = (random.choice(fragments) for fragments in parts if fragments)
        child = _sound(_joined(one, other, random))
        if child is not None:
            return child
    return None


def _cut_chain(molecule: Any, random: _Draws) -> list[Any] | None:
    """Both sides of an acyclic single bond, each with the atom numbers of its open places in the property `open`."""
    bonds = [bond.GetIdx() for bond in molecule.GetBonds() if not bond.IsInRing() and bond.GetBondType() == _Single]
    return _fragments(molecule, [random.choice(bonds)]) if bonds else None


def _cut_ring(molecule: Any, random: _Draws) -> list[Any] | None:
    """Both sides of a cut through two single bonds, or fused ones, of one ring."""
    rings = [ring for ring in molecule.GetRingInfo().BondRings() if len(ring) > 4]
    if not rings:
        return None
    kekulised = Chem.RWMol(molecule)
    Chem.Kekulize(kekulised, clearAromaticFlags=True)
    ring = random.choice(rings)
    single = [i for i in ring if kekulised.GetBondWithIdx(i).GetBondType() == _Single]
    if len(single) < 2:
        return None
    return _fragments(kekulised, random.sample(single, 2))


def _fragments(molecule: Any, bonds: list[int]) -> list[Any] | None:
    cut = Chem.FragmentOnBonds(molecule, bonds, dummyLabels=[(0, 0)] * len(bonds))
    fragments = list(Chem.GetMolFrags(cut, asMols=True, sanitizeFrags=False))
    return fragments if len(fragments) == 2 else None


def _joined(one: Any, other: Any, random: _Draws) -> Editable:
    """Two fragments with equally many dummy atoms, joined by single bonds in place of them; else not joined at all."""
    whole = Chem.RWMol(Chem.CombineMols(one, other))
    size = one.GetNumAtoms()
    dummies = [atom.GetIdx() for atom in whole.GetAtoms() if atom.GetAtomicNum() == 0]
    ours, theirs = ([i for i in dummies if (i < size) == first] for first in (True, False))
    if len(ours) != len(theirs):
        return None
    random.shuffle(theirs)
    for a, b in zip(ours, theirs, strict=True):
        left, right = (whole.GetAtomWithIdx(i).GetNeighbors()[0].GetIdx() for i in (a, b))
        if whole.GetBondBetweenAtoms(left, right) is not None or left == right:
            return None
        whole.AddBond(left, right, _Single)
    for i in sorted(dummies, reverse=True):
        whole.RemoveAtom(i)
    return whole


def _sound(edited: Editable | None) -> Any | None:
    """A sanitised molecule; None if the edit left none, radicals, several fragments, or strained or large rings."""
    if edited is None:
        return None
    try:
        Chem.SanitizeMol(edited)
    except (ValueError, RuntimeError):
        return None
    molecule = parse(str(Chem.MolToSmiles(edited)))
    if molecule is None or not 4 < molecule.GetNumHeavyAtoms() <= _MOST_ATOMS:
        return None
    if len(Chem.GetMolFrags(molecule)) > 1 or any(atom.GetNumRadicalElectrons() for atom in molecule.GetAtoms()):
        return None
    info = molecule.GetRingInfo()
    if any(len(ring) > _LARGEST_RING for ring in info.AtomRings()):
        return None
    for bond in molecule.GetBonds():
        if bond.GetBondType() in (_Double, _Triple) and bond.IsInRing():
            smallest = info.MinBondRingSize(bond.GetIdx())
            if (smallest < 5 and bond.GetBondType() == _Double) or bond.GetBondType() == _Triple:
                return None
        if bond.GetBondType() == _Double and _is_allene(bond):
            return None
    return molecule


def _is_allene(bond: Any) -> bool:
    """Whether a carbon of a double bond in a ring has a second double bond."""
    return bond.IsInRing() and any(
        sum(other.GetBondType() == _Double for other in atom.GetBonds()) > 1
        for atom in (bond.GetBeginAtom(), bond.GetEndAtom())
        if atom.GetAtomicNum() == 6
    )


def _open(atom: Any) -> int:
    """Hydrogens that could be replaced."""
    return int(atom.GetTotalNumHs())


def _append(molecule: Editable, random: _Draws) -> bool:
    """A new atom on one that has a hydrogen."""
    places = [atom.GetIdx() for atom in molecule.GetAtoms() if _open(atom)]
    if not places:
        return False
    place = random.choice(places)
    symbol = random.element(1) or "C"
    order = _Single
    if random.random() < 0.25 and _open(molecule.GetAtomWithIdx(place)) > 1 and _VALENCE[symbol] > 1:
        order = _Double
    molecule.AddBond(place, molecule.AddAtom(Chem.Atom(symbol)), order)
    return True


def _insert(molecule: Editable, random: _Draws) -> bool:
    """A new atom into a single bond."""
    bonds = [bond for bond in molecule.GetBonds() if bond.GetBondType() == _Single]
    if not bonds:
        return False
    bond = random.choice(bonds)
    ends = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
    new = molecule.AddAtom(Chem.Atom(random.choices(("C", "N", "O", "S"), (60, 20, 15, 5))[0]))
    molecule.RemoveBond(*ends)
    for end in ends:
        molecule.AddBond(end, new, _Single)
    return True


def _delete(molecule: Editable, random: _Draws) -> bool:
    """An atom of one or two neighbours goes; the two are joined."""
    places = [atom.GetIdx() for atom in molecule.GetAtoms() if atom.GetDegree() in (1, 2)]
    if not places:
        return False
    place = random.choice(places)
    neighbours = [atom.GetIdx() for atom in molecule.GetAtomWithIdx(place).GetNeighbors()]
    if len(neighbours) == 2:
        if molecule.GetBondBetweenAtoms(*neighbours) is not None:
            return False
        molecule.AddBond(*neighbours, _Single)
    molecule.RemoveAtom(place)
    return True


def _change_atom(molecule: Editable, random: _Draws) -> bool:
    """Another element in the same place, where its valence allows it."""
    atom = random.choice(list(molecule.GetAtoms()))
    used = sum(int(bond.GetBondTypeAsDouble()) for bond in atom.GetBonds())
    symbol = random.element(used, atom.GetSymbol())
    if symbol is None or atom.GetFormalCharge():
        return False
    atom.SetAtomicNum(Chem.Atom(symbol).GetAtomicNum())
    atom.SetNoImplicit(False)
    atom.SetNumExplicitHs(0)
    return True


def _change_bond(molecule: Editable, random: _Draws) -> bool:
    """Single to double, double to single or triple, triple to double."""
    bond = random.choice(list(molecule.GetBonds())) if molecule.GetNumBonds() else None
    if bond is None:
        return False
    ends = bond.GetBeginAtom(), bond.GetEndAtom()
    higher = [o for o in (_Double, _Triple) if o > bond.GetBondType() and all(map(_open, ends))]
    lower = [_Single] if bond.GetBondType() == _Double else [_Double] if bond.GetBondType() == _Triple else []
    orders = higher[:1] + lower
    if not orders:
        return False
    bond.SetBondType(random.choice(orders))
    for atom in ends:
        atom.SetNoImplicit(False)
        atom.SetNumExplicitHs(0)
    return True


def _close_ring(molecule: Editable, random: _Draws) -> bool:
    """A bond between two atoms with hydrogens, three to five bonds apart."""
    distances = Chem.GetDistanceMatrix(molecule)
    places = [atom.GetIdx() for atom in molecule.GetAtoms() if _open(atom)]
    pairs = [(a, b) for a in places for b in places if a < b and 2 <= distances[a][b] <= 5]
    if not pairs:
        return False
    near = [pair for pair in pairs if distances[pair[0]][pair[1]] in (4, 5)]
    molecule.AddBond(*random.choice(near or pairs), _Single)
    return True


def _open_ring(molecule: Editable, random: _Draws) -> bool:
    """A single bond of a ring goes."""
    bonds = [bond for bond in molecule.GetBonds() if bond.IsInRing() and bond.GetBondType() == _Single]
    if not bonds:
        return False
    bond = random.choice(bonds)
    molecule.RemoveBond(bond.GetBeginAtomIdx(), bond.GetEndAtomIdx())
    return True


_EDITS: tuple[Callable[[Editable, _Draws], bool], ...] = (
    _append,
    _insert,
    _delete,
    _change_atom,
    _change_bond,
    _close_ring,
    _open_ring,
)
_EDIT_WEIGHTS = (15, 15, 14, 20, 14, 14, 8)
