"""Fragments that molecules keep: their attachment points, and prompts at whose end a model writes what is attached.

A point is an atom `*` with one bond, to an atom of the fragment. A prompt is a random SMILES of the molecule so far
whose last atom is a point, without that point (PromptSMILES, Thomas et al. 2024, J. Cheminform. 16:77). So what follows
is attached there and nowhere else. Points that have nothing attached yet are hydrogens. The configuration of the
fragment's centres is set again after each step, for a centre with a point is none as long as the point is a hydrogen.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np
from rdkit import Chem

from molgen.chem.smiles import failure, parse, quiet
from molgen.chem.stereo import set_stereo
from molgen.errors import MolgenError

_R_GROUP = re.compile(r"\[R(\d*)\]")
_DUMMY = re.compile(r"\[(\d*)\*(?::(\d+))?\]|\*")
_OPEN_RING = re.compile(r"\*{1,2}(?:\d|%\d\d)$")
_HINT = "mark points so: '[*:1]c1ccc(S(N)(=O)=O)cc1'"
_METHANE: Any = Chem.MolFromSmiles("C")
_DRAWS = 60  # random SMILES of a molecule among which prompts are looked for
_SMALL = (6, 6, 9, 17)  # methyl, fluorine, chlorine
_SEVERAL_VALENCES = {15, 16, 33, 34, 52}
_MOST_ATOMS, _MOST_POINTS = 200, 12
_BONDS = {Chem.BondType.SINGLE: 1, Chem.BondType.DOUBLE: 2, Chem.BondType.TRIPLE: 3}

StepKind = Literal["grow", "ring", "link", "anywhere"]


class Point(NamedTuple):
    """An attachment point."""

    label: int
    anchor: int
    """Number of the kept atom that it is bonded to; numbers count through all fragments."""
    dummy: int
    """Its own number."""
    order: int
    """Of its bond: 1 to 3."""


class Step(NamedTuple):
    """One piece of SMILES that the model writes."""

    kind: StepKind
    """`grow`: a group at a point; `ring`: a chain that joins two points of the molecule so far; `link`: a chain that
    joins it with another fragment; `anywhere`: a group in place of any hydrogen."""
    points: tuple[Point, ...]
    """Of the molecule so far first; empty for `anywhere`."""


@dataclass(frozen=True)
class Fragment:
    """One piece of what is kept."""

    molecule: Any
    first: int
    """The number of its first atom."""
    points: tuple[Point, ...]

    @property
    def atoms(self) -> list[int]:
        """The numbers of its atoms without the points."""
        dummies = {point.dummy for point in self.points}
        return [self.first + i for i in range(self.molecule.GetNumAtoms()) if self.first + i not in dummies]


class Keep:
    """What is kept: one or more fragments, and how their points are grown.

    Points that bear the same number are joined: two of one fragment by a chain that closes a ring, two of two fragments
    by a linker. Every other point gets a group of its own. A fragment without points is grown at any hydrogen.
    """

    def __init__(self, text: str, option: str = "--keep") -> None:
        """Raises MolgenError for what cannot be kept, in one line with a hint; it names the option."""
        self.text, self._option = text, option
        self.fragments: tuple[Fragment, ...] = ()
        self.size = 0
        for part in text.split("."):
            fragment = self._fragment(part)
            self.fragments += (fragment,)
            self.size += fragment.molecule.GetNumAtoms()
        if self.size > _MOST_ATOMS:
            raise self._refusal(f"{self.size} atoms", f"at most {_MOST_ATOMS}")
        counts = Counter(point.label for point in self.points)
        for label, count in counts.items():
            if count > 2:
                raise self._refusal(f"{count} points have the number {label}", "a linker joins two points")
        if len(self.fragments) > 1:
            for part, fragment in zip(text.split("."), self.fragments, strict=True):
                if not fragment.points:
                    hint = "mark where it is joined, or leave it out, as a counter-ion"
                    raise self._refusal(f"no point in {part} beside other fragments", hint)
            self.steps(0)  # raises an error for a fragment that nothing joins
        elif self.anywhere and not any(atom.GetTotalNumHs() for atom in self.fragments[0].molecule.GetAtoms()):
            raise self._refusal("no hydrogen in place of which something could be", _HINT)

    @property
    def points(self) -> list[Point]:
        """Of all fragments, in order."""
        return [point for fragment in self.fragments for point in fragment.points]

    @property
    def anywhere(self) -> bool:
        """Whether the fragment has no points and is grown at any hydrogen."""
        return not self.points

    @cached_property
    def singles(self) -> list[int]:
        """The numbers of points with a group of their own, in increasing order."""
        counts = Counter(point.label for point in self.points)
        return sorted(label for label, count in counts.items() if count == 1)

    @cached_property
    def pairs(self) -> list[tuple[Point, Point]]:
        """The points that are joined, by increasing number."""
        found: dict[int, list[Point]] = {}
        for point in self.points:
            found.setdefault(point.label, []).append(point)
        return [(points[0], points[1]) for _, points in sorted(found.items()) if len(points) == 2]

    def steps(self, first: int) -> list[Step]:
        """What is grown, in order, from fragment number `first` on: linkers, then rings, then groups.

        Raises MolgenError if a fragment shares no number with another one.
        """
        if self.anywhere:
            return [Step("anywhere", ())]
        here, steps, open_pairs = {first}, [], list(self.pairs)
        home = {point: i for i, fragment in enumerate(self.fragments) for point in fragment.points}
        while len(here) < len(self.fragments):
            reaching = [pair for pair in open_pairs if (home[pair[0]] in here) != (home[pair[1]] in here)]
            if not reaching:
                raise self._refusal("nothing joins its fragments", "give a point of each the same number, as in [*:1]")
            pair = reaching[0]
            open_pairs.remove(pair)
            steps.append(Step("link", pair if home[pair[0]] in here else pair[::-1]))
            here |= {home[pair[0]], home[pair[1]]}
        steps += [Step("ring", pair) for pair in open_pairs]
        single = [point for point in self.points if point.label in self.singles]
        return steps + [Step("grow", (point,)) for point in sorted(single, key=self._turn)]

    def _turn(self, point: Point) -> tuple[bool, int]:
        """When a point is grown: first those of atoms that would be written as [SH] or [NH+] until then."""
        fragment = self.fragment_of(point)
        anchor = fragment.molecule.GetAtomWithIdx(point.anchor - fragment.first)
        return (anchor.GetAtomicNum() in (6, 7, 8) and not anchor.GetFormalCharge(), point.label)

    def fragment_of(self, point: Point) -> Fragment:
        """The fragment that a point belongs to."""
        return next(fragment for fragment in self.fragments if point in fragment.points)

    def _fragment(self, text: str) -> Fragment:
        molecule = parse(text)
        if molecule is None:
            cause = failure(text)
            hint = "an atom has no free valence for what is attached" if cause == "valence" else _HINT
            raise self._refusal(f"RDKit does not parse it: {cause}", hint)
        for atom in molecule.GetAtoms():
            if atom.GetAtomicNum():
                atom.SetAtomMapNum(0)
        points = [self._point(atom) for atom in molecule.GetAtoms() if atom.GetAtomicNum() == 0]
        if molecule.GetNumAtoms() == len(points):
            raise self._refusal("no atom to keep", _HINT)
        if any(atom.GetAtomicNum() and atom.HasQuery() for atom in molecule.GetAtoms()):
            raise self._refusal("a pattern, not a molecule", "a SMILES; patterns go to --smarts")
        if any(atom.GetNumRadicalElectrons() for atom in molecule.GetAtoms()):
            raise self._refusal("an atom lacks a bond", "mark the bond with a point, such as [*:1]")
        if len(points) > _MOST_POINTS:
            raise self._refusal(f"{len(points)} points", f"at most {_MOST_POINTS}")
        return Fragment(molecule, self.size, tuple(sorted(points)))

    def _point(self, atom: Any) -> Point:
        if atom.GetDegree() != 1 or not atom.GetNeighbors()[0].GetAtomicNum():
            raise self._refusal("a point has one bond, to an atom that is kept", _HINT)
        bond = atom.GetBonds()[0]
        if bond.GetBondType() not in _BONDS:
            raise self._refusal("a point has a single, double or triple bond", _HINT)
        anchor, dummy = bond.GetOtherAtomIdx(atom.GetIdx()), atom.GetIdx()
        return Point(atom.GetAtomMapNum(), self.size + anchor, self.size + dummy, _BONDS[bond.GetBondType()])

    def _refusal(self, problem: str, hint: str) -> MolgenError:
        return MolgenError(f"{self._option} {self.text:.120}: {problem}", hint)


@lru_cache(maxsize=64)
def keep_of(text: str) -> Keep:
    """The `Keep` of a text that `numbered` made."""
    return Keep(text)


def numbered(text: str, close: bool = False) -> str:
    """The text with each point as `[*:n]`: from `[*:n]`, `[n*]`, `[Rn]`, and `*`, which get numbers that are free.

    Two fragments with one point each, both without a number, get the same. With `close` the two points get the same.
    Raises MolgenError for an empty text, and for `close` without exactly two points.
    """
    if not text.strip():
        raise MolgenError("--keep: no fragment", _HINT)
    text = _R_GROUP.sub(lambda found: f"[*:{found[1]}]" if found[1] else "*", text.strip())
    given = [int(found[2] or found[1] or 0) for found in _DUMMY.finditer(text)]
    parts = [len(list(_DUMMY.finditer(part))) for part in text.split(".")]
    if close:
        if len(given) != 2:
            raise MolgenError(f"--close: {len(given)} points in {text}", "it joins two points, such as [*:1] and [*:2]")
        numbers = [1, 1]
    elif not any(given) and parts == [1, 1]:
        numbers = [1, 1]
    else:
        free = iter(number for number in range(1, len(given) + len(set(given)) + 2) if number not in given)
        numbers = [number or next(free) for number in given]
    following = iter(numbers)
    return _DUMMY.sub(lambda _: f"[*:{next(following)}]", text)


ABSENT, TO_FIND = -1, -2
"""In place of an atom: not there yet; there, as the new neighbour of its point's anchor."""


class Grown(NamedTuple):
    """A molecule in the making."""

    smiles: str
    places: list[int]
    """For each number of the kept atoms and points, its atom in the SMILES, or ABSENT or TO_FIND."""


def beginning(keep: Keep, first: int) -> Grown:
    """The fragment alone, its points as hydrogens."""
    fragment = keep.fragments[first]
    with quiet():
        editable = Chem.RWMol(fragment.molecule)
        for atom in editable.GetAtoms():
            atom.SetIntProp("_number", fragment.first + atom.GetIdx())
        for point in fragment.points:
            anchor = editable.GetAtomWithIdx(point.anchor - fragment.first)
            editable.RemoveBond(point.anchor - fragment.first, point.dummy - fragment.first)
            _add_hydrogens(anchor, point.order)
            anchor.SetChiralTag(Chem.ChiralType.CHI_UNSPECIFIED)  # set again where it is one
        for point in sorted(fragment.points, key=lambda point: -point.dummy):
            editable.RemoveAtom(point.dummy - fragment.first)
        molecule = editable.GetMol()
        Chem.SanitizeMol(molecule)
        places = [-1] * keep.size
        for atom in molecule.GetAtoms():
            places[atom.GetIntProp("_number")] = atom.GetIdx()
        set_stereo(molecule, keep.fragments, places)
        text, order = _written(molecule)
        return Grown(text, [order.index(place) if place >= 0 else -1 for place in places])


def _add_hydrogens(atom: Any, count: int) -> None:
    """Hydrogens in place of a bond of this order, where RDKit would not add them: a sulfone would become SO2."""
    aromatic = atom.GetIsAromatic() and atom.GetAtomicNum() != 6
    if atom.GetNoImplicit() or aromatic or atom.GetAtomicNum() in _SEVERAL_VALENCES:
        hydrogens = atom.GetTotalNumHs() if not atom.GetNoImplicit() and not aromatic else atom.GetNumExplicitHs()
        atom.SetNoImplicit(True)
        atom.SetNumExplicitHs(hydrogens + count)


def _written(molecule: Any, random: bool = False, root: int = -1) -> tuple[str, list[int]]:
    """(SMILES, the atoms in its order)."""
    text = str(Chem.MolToSmiles(molecule, canonical=not random, doRandom=random, rootedAtAtom=root))
    return text, [int(number) for number in molecule.GetProp("_smilesAtomOutputOrder").strip("[],").split(",")]


def prompts(
    smiles: str, places: Sequence[int], text: str, points: Sequence[int], seed: int, most: int
) -> list[list[list[Any]]]:
    """For each site up to `most` distinct prompts [string, places, key] of the next piece; none if none ends there.

    The key is the canonical SMILES of the molecule with its site: the same key means the same prompts.

    `points` are the numbers of one point (`grow`), of two points of the molecule (`ring`), or none (`anywhere`). Only
    the last has several sites: the atoms with hydrogens, of equivalent ones the first. What is at a point is removed.
    The places are those of the kept atoms in the string, and of the points grown so far.
    """
    keep = keep_of(text)
    molecule = parse(smiles)
    if molecule is None:
        return []
    asked = [point for number in points for point in keep.points if point.dummy == number]
    with quiet():
        places = _found(molecule, keep, places)
        if asked:
            if len(asked) == 1 and places[asked[0].dummy] >= 0:
                molecule, places = _without_group(molecule, places, asked[0])
            ends = [_with_point(molecule, keep, places, asked)]
        else:
            ends = [_with_dummy(molecule, [(site, 1)]) for site in _sites(molecule, places)]
        found = []
        for number, end in enumerate(end for end in ends if end is not None):
            prompts_of_site, key = [], str(Chem.MolToSmiles(end))
            for prompt, order in _endings(end, len(asked) == 2, seed + number * _DRAWS, most):
                position = {atom: i for i, atom in enumerate(order)}
                prompts_of_site.append([prompt, [position.get(place, ABSENT) for place in places], key])
            found.append(prompts_of_site)
        return [site for site in found if site]


def _sites(molecule: Any, places: Sequence[int]) -> list[int]:
    """The kept atoms with hydrogens, of equivalent ones the first."""
    ranks = list(Chem.CanonicalRankAtoms(molecule, breakTies=False))
    atoms = [place for place in places if place >= 0 and molecule.GetAtomWithIdx(place).GetTotalNumHs()]
    return list({ranks[atom]: atom for atom in reversed(atoms)}.values())[::-1]


def _without_group(molecule: Any, places: list[int], point: Point) -> tuple[Any, list[int]]:
    """(the molecule with hydrogens in place of what is at a point, its places)."""
    anchor, first = places[point.anchor], places[point.dummy]
    gone, waiting = {first}, [first]
    while waiting:
        neighbours = (n.GetIdx() for n in molecule.GetAtomWithIdx(waiting.pop()).GetNeighbors())
        new = [i for i in neighbours if i != anchor and i not in gone]
        gone.update(new)
        waiting += new
    editable = Chem.RWMol(molecule)
    _add_hydrogens(editable.GetAtomWithIdx(anchor), point.order)
    for i in sorted(gone, reverse=True):
        editable.RemoveAtom(i)
    left = editable.GetMol()
    Chem.SanitizeMol(left)
    shift = {place: place - sum(i < place for i in gone) for place in places if place >= 0 and place not in gone}
    return left, [shift.get(place, ABSENT) for place in places]


def filled(text: str, first: int, seed: int) -> list[Any]:
    """[SMILES, places] of a fragment with a small group at each point that has one of its own.

    So what is grown at the first point leaves room for what the others get in its place.
    """
    keep = keep_of(text)
    smiles, places = beginning(keep, first)
    chosen = np.random.default_rng(seed)
    for point in keep.fragments[first].points:
        if point.label not in keep.singles:
            continue
        molecule = parse(smiles)
        with quiet():
            marked = _with_point(molecule, keep, places, [point])
            if marked is None:
                continue
            own = marked.GetAtomWithIdx(marked.GetNumAtoms() - 1)
            carbon = keep.fragments[first].molecule.GetAtomWithIdx(point.anchor - keep.fragments[first].first)
            small = carbon.GetAtomicNum() == 6 and point.order == 1
            own.SetAtomicNum(int(chosen.choice(_SMALL)) if small else 6)
            places = [own.GetIdx() if i == point.dummy else place for i, place in enumerate(places)]
            Chem.SanitizeMol(marked)
            smiles, order = _written(marked)
            places = [order.index(place) if place >= 0 else ABSENT for place in places]
    return [smiles, places]


def _found(molecule: Any, keep: Keep, places: Sequence[int]) -> list[int]:
    """The places with the atoms that are TO_FIND; ABSENT where there is no new neighbour, or several."""
    result = list(places)
    for point in keep.points:
        if places[point.dummy] == TO_FIND:
            neighbours = (n.GetIdx() for n in molecule.GetAtomWithIdx(places[point.anchor]).GetNeighbors())
            new = [i for i in neighbours if i not in result]
            result[point.dummy] = new[0] if len(new) == 1 else ABSENT
    return result


def _with_point(molecule: Any, keep: Keep, places: Sequence[int], asked: Sequence[Point]) -> Any | None:
    """The molecule with a dummy atom as its last atom at the point, or between the two points."""
    marked = _with_dummy(molecule, [(places[point.anchor], point.order) for point in asked])
    if marked is not None:
        last = marked.GetNumAtoms() - 1
        spiro = len(asked) == 2 and asked[0].anchor == asked[1].anchor
        added = {point.dummy: last - (spiro and i == 0) for i, point in enumerate(asked)}
        set_stereo(marked, keep.fragments, [added.get(i, place) for i, place in enumerate(places)])
    return marked


def _with_dummy(molecule: Any, bonds: Sequence[tuple[int, int]]) -> Any | None:
    """The molecule with a dummy atom, the last one, in place of hydrogens: bonds as (atom, order).

    Two bonds of one atom get two dummy atoms, which are bonded. None if there are not so many hydrogens.
    """
    editable = Chem.RWMol(molecule)
    needed = Counter[int]()
    for anchor, order in bonds:
        needed[anchor] += order
    for anchor, count in needed.items():
        atom = editable.GetAtomWithIdx(anchor)
        if atom.GetTotalNumHs() < count:
            return None
        if explicit := atom.GetNumExplicitHs():
            atom.SetNumExplicitHs(max(0, explicit - count))
    dummies = [editable.AddAtom(Chem.Atom(0)) for _ in range(1 + len(bonds) - len(needed))]
    if len(dummies) == 2:
        editable.AddBond(dummies[0], dummies[1], Chem.BondType.SINGLE)
    for i, (anchor, order) in enumerate(bonds):
        kind = (Chem.BondType.SINGLE, Chem.BondType.DOUBLE, Chem.BondType.TRIPLE)[order - 1]
        editable.AddBond(anchor, dummies[i % len(dummies)], kind)
    marked = editable.GetMol()
    return marked if Chem.SanitizeMol(marked, catchErrors=True) == Chem.SanitizeFlags.SANITIZE_NONE else None


def _endings(molecule: Any, ring: bool, seed: int, most: int) -> Iterator[tuple[str, list[int]]]:
    """Distinct random SMILES up to the dummy atom, their last atom, with their atoms in order."""
    dummies = [atom.GetIdx() for atom in molecule.GetAtoms() if not atom.GetAtomicNum()]
    seen = set()
    neighbours = (atom.GetIdx() for dummy in dummies for atom in molecule.GetAtomWithIdx(dummy).GetNeighbors())
    ends = [atom for atom in neighbours if atom not in dummies]
    for i in range(_DRAWS):
        _seed(seed + i + 1)
        # a chain that closes a ring is written last only if one of its ends is written first
        text, order = _written(molecule, random=True, root=ends[i % 2] if ring else -1)
        cut = _OPEN_RING.search(text) if ring else None
        end = cut.start() if cut else len(text) - 1 if text.endswith("*") and not ring else -1
        if end > 0 and set(order[-len(dummies) :]) == set(dummies) and text[:end] not in seen:
            seen.add(text[:end])
            yield text[:end], order[: -len(dummies)]
            if len(seen) == most:
                return


def _seed(seed: int) -> None:
    """Seeds the generator of MolToSmiles(doRandom=True), which has no argument for it and shares that of this function.

    rdBase.SeedRandomNumberGenerator seeds another one.
    """
    Chem.MolToRandomSmilesVect(_METHANE, 1, randomSeed=seed % (2**31 - 1) + 1)


def tails(text: str, point: int, seed: int, most: int) -> list[list[Any]]:
    """Up to `most` distinct [string, places] of the fragment of a point, written from the point on.

    After a linker's SMILES such a string attaches the fragment. The places count from the string's first atom.
    """
    keep = keep_of(text)
    asked = next(one for one in keep.points if one.dummy == point)
    smiles, places = filled(text, keep.fragments.index(keep.fragment_of(asked)), seed)
    molecule = parse(smiles)
    with quiet():
        marked = _with_point(molecule, keep, places, [asked]) if molecule is not None else None
        if marked is None:
            return []
        dummy = marked.GetNumAtoms() - 1
        found: dict[str, list[int]] = {}
        for i in range(_DRAWS):
            _seed(seed + i + 1)
            written, order = _written(marked, random=True, root=dummy)
            position = {atom: i for i, atom in enumerate(order[1:])}
            found.setdefault(written[1:], [position.get(place, -1) for place in places])
            if len(found) == most:
                break
        return [[string, new] for string, new in found.items()]
