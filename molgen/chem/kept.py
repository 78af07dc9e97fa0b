"""Whether a molecule holds what is to be kept, and what was attached: the columns of fragments.

At an atom that is no point: the same element, charge, isotope, neighbours and hydrogens. At a point one neighbour
more, with the point's bond order, and as many hydrogens. A group at one point is attached nowhere else. Stereo is
compared by the order of neighbours. Bonds are compared up to aromaticity, for a new substituent may change RDKit's
perception of it.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import permutations
from typing import Any, NamedTuple

from rdkit import Chem

from molgen.chem.fragments import Fragment, Keep, Point, keep_of
from molgen.chem.smiles import parse, quiet
from molgen.chem.stereo import same_stereo

_MOST_MATCHES = 10_000
_ANY_ORDER = Chem.BondType.AROMATIC
_ORDERS = {1: Chem.BondType.SINGLE, 2: Chem.BondType.DOUBLE, 3: Chem.BondType.TRIPLE}

LINKER_COLUMNS = ("linker", "linker_path", "linker_rotatable", "linker_rings")


class Kept(NamedTuple):
    """Where a molecule holds what is kept."""

    places: list[int]
    """For each number of the kept atoms its atom; for each point the atom attached there."""
    groups: dict[int, list[int]]
    """The added atoms by number of the point or linker; 0 for all of a fragment without points."""


def columns_of(keep: Keep) -> tuple[str, ...]:
    """The columns of a table with what is kept."""
    attachments = ["attachment_1"] if keep.anywhere else [f"attachment_{label}" for label in keep.singles]
    linkers = [*LINKER_COLUMNS, "ring_size"] if keep.pairs else []
    if keep.pairs and not any(step.kind == "ring" for step in keep.steps(0)):
        linkers.remove("ring_size")
    return (*attachments, *linkers, "added_atoms")


def described(molecule: Any, keep: Keep) -> dict[str, Any] | None:
    """The columns of a molecule, None if it does not hold what is kept."""
    found = find(molecule, keep)
    return None if found is None else _columns(molecule, keep, found)


def kept_atoms(smiles: str, text: str) -> list[int] | None:
    """The atoms of a string's molecule that are kept, None if it does not hold it. `text` is of `numbered`."""
    molecule = parse(smiles)
    if molecule is None:
        return None
    with quiet():
        keep = keep_of(text)
        found = find(molecule, keep)
        dummies = {point.dummy for point in keep.points}
        return None if found is None else [place for i, place in enumerate(found.places) if i not in dummies]


def find(molecule: Any, keep: Keep) -> Kept | None:
    """The first place where a molecule holds all fragments; None if there is none."""
    for places in _matches(molecule, keep, 0, [-1] * keep.size):
        for filled in _filled(molecule, keep, places):
            groups = _groups(molecule, keep, filled)
            if groups is not None and same_stereo(molecule, keep.fragments, filled):
                return Kept(filled, groups)
    return None


def _matches(molecule: Any, keep: Keep, number: int, places: list[int]) -> Iterator[list[int]]:
    """Places for the atoms of the fragments from `number` on; no atom is in two of them."""
    if number == len(keep.fragments):
        yield places
        return
    fragment = keep.fragments[number]
    query, atoms = _query(keep.text, number)
    taken = set(places)
    for match in molecule.GetSubstructMatches(query, uniquify=False, maxMatches=_MOST_MATCHES):
        if taken.isdisjoint(match) and _same_bonds(molecule, fragment, dict(zip(atoms, match, strict=True))):
            new = list(places)
            for atom, place in zip(atoms, match, strict=True):
                new[fragment.first + atom] = place
            yield from _matches(molecule, keep, number + 1, new)


@lru_cache(maxsize=256)
def _query(text: str, number: int) -> tuple[Any, list[int]]:
    """(pattern of a fragment's atoms with any bonds between them, their indices in the fragment)."""
    keep = keep_of(text)
    fragment = keep.fragments[number]
    atoms = [i - fragment.first for i in fragment.atoms]
    editable = Chem.RWMol()
    for i in atoms:
        atom = fragment.molecule.GetAtomWithIdx(i)
        what = f"#{atom.GetAtomicNum()};{atom.GetFormalCharge():+d};{atom.GetIsotope()}*"
        if not keep.anywhere or not atom.GetTotalNumHs():
            what += f";D{atom.GetDegree()};H{atom.GetTotalNumHs()}"
        editable.AddAtom(Chem.AtomFromSmarts(f"[{what}]"))
    any_bond = Chem.MolFromSmarts("*~*").GetBondWithIdx(0)
    for bond in fragment.molecule.GetBonds():
        ends = [bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()]
        if all(end in atoms for end in ends):
            editable.AddBond(atoms.index(ends[0]), atoms.index(ends[1]), Chem.BondType.SINGLE)
            editable.ReplaceBond(editable.GetNumBonds() - 1, any_bond)
    return editable.GetMol(), atoms


def _same_bonds(molecule: Any, fragment: Fragment, places: dict[int, int]) -> bool:
    """Whether the bonds between the kept atoms are the fragment's, and no other ones."""
    count = 0
    for bond in fragment.molecule.GetBonds():
        ends = [places.get(bond.GetBeginAtomIdx()), places.get(bond.GetEndAtomIdx())]
        if None not in ends:
            kinds = {bond.GetBondType(), molecule.GetBondBetweenAtoms(*ends).GetBondType()}
            if len(kinds) == 2 and not (_ANY_ORDER in kinds and Chem.BondType.TRIPLE not in kinds):
                return False
            count += 1
    inside = set(places.values())
    pairs = ((place, n.GetIdx()) for place in inside for n in molecule.GetAtomWithIdx(place).GetNeighbors())
    return bool(count == sum(place < other and other in inside for place, other in pairs))


def _filled(molecule: Any, keep: Keep, places: Sequence[int]) -> Iterator[list[int]]:
    """The places with an atom for each point, in all ways to choose among the new neighbours of an atom."""
    if keep.anywhere:
        if _hydrogens_replaced(molecule, keep, places):
            yield list(places)
        return
    inside = set(places)
    by_anchor: dict[int, list[Point]] = {}
    for point in keep.points:
        by_anchor.setdefault(point.anchor, []).append(point)

    def choices(anchors: list[int], so_far: list[int]) -> Iterator[list[int]]:
        if not anchors:
            yield so_far
            return
        points = by_anchor[anchors[0]]
        bonds = [
            (bond.GetOtherAtomIdx(places[anchors[0]]), bond.GetBondType())
            for bond in molecule.GetAtomWithIdx(places[anchors[0]]).GetBonds()
            if bond.GetOtherAtomIdx(places[anchors[0]]) not in inside
        ]
        for chosen in permutations(bonds) if len(bonds) == len(points) else ():
            pairs = list(zip(points, chosen, strict=True))
            if all(kind in (_ORDERS[point.order], _ANY_ORDER) for point, (_, kind) in pairs):
                new = list(so_far)
                for point, (atom, _) in pairs:
                    new[point.dummy] = atom
                yield from choices(anchors[1:], new)

    yield from choices(list(by_anchor), list(places))


def _hydrogens_replaced(molecule: Any, keep: Keep, places: Sequence[int]) -> bool:
    """Whether the atoms of a fragment without points have their neighbours, and others only in place of hydrogens."""
    for atom in keep.fragments[0].molecule.GetAtoms():
        found = molecule.GetAtomWithIdx(places[atom.GetIdx()])
        new, gone = found.GetDegree() - atom.GetDegree(), atom.GetTotalNumHs() - found.GetTotalNumHs()
        if not 0 <= new <= gone or (gone and not new):
            return False
    return True


def _groups(molecule: Any, keep: Keep, places: Sequence[int]) -> dict[int, list[int]] | None:
    """The added atoms by number; None if a group is attached where it should not be, or not attached."""
    dummies = {point.dummy for point in keep.points}
    inside = {place for i, place in enumerate(places) if i not in dummies}
    group = {}  # atom → its group, named by its first atom
    for atom in range(molecule.GetNumAtoms()):
        if atom in inside or atom in group:
            continue
        waiting = [atom]
        while waiting:
            one = waiting.pop()
            group[one] = atom
            neighbours = (neighbour.GetIdx() for neighbour in molecule.GetAtomWithIdx(one).GetNeighbors())
            waiting += [other for other in neighbours if other not in inside and other not in group]
    bonds = [(one, other) for one in inside for other in _outside(molecule, one, inside)]
    if keep.anywhere:
        attached = {group[other] for _, other in bonds}
        return {0: sorted(group)} if attached == set(group.values()) else None
    labels: dict[int, int] = {}
    for point in keep.points:
        name = group[places[point.dummy]]
        if labels.setdefault(name, point.label) != point.label:
            return None
    if len(labels) != len({point.label for point in keep.points}) or set(labels) != set(group.values()):
        return None
    if len(bonds) != len(keep.points):
        return None
    found: dict[int, list[int]] = {}
    for atom, name in sorted(group.items()):
        found.setdefault(labels[name], []).append(atom)
    return found


def _outside(molecule: Any, atom: int, inside: set[int]) -> list[int]:
    neighbours = (neighbour.GetIdx() for neighbour in molecule.GetAtomWithIdx(atom).GetNeighbors())
    return [other for other in neighbours if other not in inside]


def _columns(molecule: Any, keep: Keep, found: Kept) -> dict[str, Any]:
    heavy = [atom for atoms in found.groups.values() for atom in atoms]
    cells: dict[str, Any] = {"added_atoms": sum(molecule.GetAtomWithIdx(i).GetAtomicNum() > 1 for i in heavy)}
    if keep.anywhere:
        cells["attachment_1"] = _piece(molecule, found.groups[0], {}) if found.groups[0] else None
        return cells
    points = {point.label: point for point in keep.points}
    for label in keep.singles:
        point = points[label]
        marks = {(found.places[point.anchor], found.places[point.dummy]): label}
        cells[f"attachment_{label}"] = _piece(molecule, found.groups[label], marks)
    if keep.pairs:
        linkers = [_linker(molecule, keep, found, pair) for pair in keep.pairs]
        cells["linker"] = ".".join(linker["linker"] for linker in linkers)
        cells["linker_path"] = max(linker["path"] for linker in linkers)
        cells["linker_rotatable"] = sum(linker["rotatable"] for linker in linkers)
        cells["linker_rings"] = sum(linker["rings"] for linker in linkers)
        sizes = [linker["ring_size"] for linker in linkers if linker["ring_size"]]
        cells["ring_size"] = max(sizes) if sizes else None
    return cells


def _linker(molecule: Any, keep: Keep, found: Kept, pair: tuple[Point, Point]) -> dict[str, Any]:
    """A linker's SMILES, atoms on its shortest path, rotatable bonds and rings, and the size of the ring it closes."""
    own = set(found.groups[pair[0].label])
    anchors = [found.places[point.anchor] for point in pair]
    marks = {(found.places[point.anchor], found.places[point.dummy]): i for i, point in enumerate(pair, 1)}
    path = _path(molecule, found.places[pair[0].dummy], found.places[pair[1].dummy], own)
    dummies = {point.dummy for point in keep.points}
    inside = {place for i, place in enumerate(found.places) if i not in dummies}
    same = keep.fragment_of(pair[0]) is keep.fragment_of(pair[1])
    return {
        "linker": _piece(molecule, sorted(own), marks),
        "path": path,
        "rotatable": sum(bool(own.intersection(bond)) for bond in molecule.GetSubstructMatches(_rotatable())),
        "rings": sum(set(ring) <= own for ring in molecule.GetRingInfo().AtomRings()),
        "ring_size": path + _path(molecule, anchors[0], anchors[1], inside) if same else None,
    }


def _path(molecule: Any, start: int, end: int, within: set[int]) -> int:
    """The number of atoms of the shortest path between two atoms, both counted; 0 if there is none."""
    reached, layer, count = {start}, [start], 1
    while layer:
        if end in reached:
            return count
        neighbours = (n.GetIdx() for one in layer for n in molecule.GetAtomWithIdx(one).GetNeighbors())
        layer = list(dict.fromkeys(n for n in neighbours if n in within and n not in reached))
        reached.update(layer)
        count += 1
    return 0


def _piece(molecule: Any, atoms: Sequence[int], marks: dict[tuple[int, int], int]) -> str:
    """SMILES of some atoms, `[*:n]` where they are bonded to (kept atom, own atom) in `marks`."""
    editable = Chem.RWMol(molecule)
    own = set(atoms)
    for bond in list(molecule.GetBonds()):
        begin, end = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
        if (begin in own) == (end in own):
            continue
        outer, inner = (begin, end) if end in own else (end, begin)
        dummy = Chem.Atom(0)
        dummy.SetAtomMapNum(marks.get((outer, inner), 1))
        added = editable.AddAtom(dummy)
        # a bond in place of the old one keeps the order of the neighbours, and so the configuration
        fresh = editable.GetBondBetweenAtoms(begin, end)
        kind = Chem.BondType.SINGLE if fresh.GetBondType() == _ANY_ORDER else fresh.GetBondType()
        _rebond(editable, outer, inner, added, kind)
        own.add(added)
    return str(Chem.MolFragmentToSmiles(editable, sorted(own)))


def _rebond(editable: Any, outer: int, inner: int, added: int, kind: Any) -> None:
    """Turns the bond outer–inner into added–inner."""
    atom = editable.GetAtomWithIdx(inner)
    order = [bond.GetOtherAtomIdx(inner) for bond in atom.GetBonds()]
    tag = atom.GetChiralTag()
    editable.RemoveBond(outer, inner)
    editable.AddBond(inner, added, kind)
    if tag != Chem.ChiralType.CHI_UNSPECIFIED and (len(order) - 1 - order.index(outer)) % 2:
        turned = {
            Chem.ChiralType.CHI_TETRAHEDRAL_CW: Chem.ChiralType.CHI_TETRAHEDRAL_CCW,
            Chem.ChiralType.CHI_TETRAHEDRAL_CCW: Chem.ChiralType.CHI_TETRAHEDRAL_CW,
        }
        atom.SetChiralTag(turned.get(tag, tag))


@lru_cache(maxsize=1)
def _rotatable() -> Any:
    """Single bonds outside of rings between two atoms that are no ends; amides count."""
    return Chem.MolFromSmarts("[!$(*#*)&!D1&!$(C(F)(F)F)]-&!@[!$(*#*)&!D1&!$(C(F)(F)F)]")
