"""What a string in the making may go on with: what is open is closed, and no atom has too many bonds.

Only what grows from fragments asks this; plain samples are the model's own.
"""

import math
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from molgen.chem.smiles import parse
from molgen.tokenizer import EOS

BONDS = {"-": 1, "=": 2, "#": 3, "$": 4, ":": 1, "/": 1, "\\": 1}
_AROMATIC_ROOMS = {"c": 4, "n": 3, "p": 3, "b": 3, "a": 3, "o": 2, "s": 2, "t": 2}  # by the first letter
_ODD = {"S": 1 << 1 | 1 << 3, "P": 1 << 1}  # bits of the bonds left that RDKit would fill with a hydrogen: =[SH]C
_MOST_BONDS = 8
_LEVELS = 64  # branches within branches; in the deepest ones, and beyond, no bonds are counted


class Grammar:
    """What is open in each row, and the bonds that are left to the atom to which the next one is bound.

    Ids (B,) are added one after the other; `begin` follows the last one of a prompt. An aromatic atom outside of all
    rings opens one at once. The order of a ring's bond counts where it is written. Where nothing could follow, the
    bonds are not counted: such a row goes on as it would without. A string that RDKit has written is never barred.
    """

    def __init__(self, tokens: Sequence[str], opened: Tensor) -> None:
        """`tokens` has the text of each id, empty for special ones; `opened`, (B,), the bits of ring labels."""
        device = opened.device

        def table(values: Sequence[int | bool]) -> Tensor:
            return torch.tensor(values, dtype=torch.long, device=device)

        labels = {name: i for i, name in enumerate(name for name in tokens if name.isdigit() or name[:1] == "%")}
        self._bits = table([1 << labels[name] if name in labels else 0 for name in tokens])
        self._depths = table([(name == "(") - (name == ")") for name in tokens])
        self._bonds = table([BONDS.get(name, 0) for name in tokens])
        self._rooms_of = table([room(name) for name in tokens])
        self._atoms = table([is_atom(name) for name in tokens]).bool()
        self._aromatic = table([is_atom(name) and is_aromatic(name) for name in tokens]).bool()
        self._odd_of = table([_ODD.get(name, 0) for name in tokens])
        self._ring, self._opening, self._closing = self._bits != 0, self._depths == 1, self._depths == -1
        self.rings, self.depth = opened.clone(), torch.zeros_like(opened)
        self._bond = torch.zeros_like(opened)
        """The order of the bond that is written and not used yet; 0 for none."""
        self._rooms = torch.full((len(opened), _LEVELS), _MOST_BONDS, device=device)
        """The bonds left at `depth` to the atom that the next one is bound to, and before it to the branching ones."""
        self._odd = torch.zeros_like(self._rooms)
        """Bits of the bonds that must not be left to these atoms in the end."""
        self._branched = torch.zeros_like(opened, dtype=torch.bool)
        """Whether the branch has no atom yet."""
        self._alone = torch.zeros_like(self._branched)
        """Whether the last atom is aromatic and in no ring yet."""
        self._empty = torch.ones_like(self._branched)
        """Whether there is no atom yet."""

    def begin(self, at_points: bool) -> None:
        """From here on the rows are the model's: at a point, where one group is bound in any case, or at a hydrogen."""
        self._rooms[:, 0] = _MOST_BONDS if at_points else self._of_last(self._rooms).clamp(min=1)
        self._odd[:, 0] = 0
        self.depth.zero_()
        self._branched.zero_()
        self._alone.zero_()

    def bar(self, logits: Tensor) -> None:
        """Bars, in place in logits (B, V), what cannot follow."""
        is_open = (self.rings != 0) | (self.depth > 0)
        logits[:, EOS].masked_fill_(is_open, -math.inf)
        logits.masked_fill_((self.depth == 0)[:, None] & self._closing, -math.inf)
        order, left, odd = (
            self._order()[:, None],
            self._of_last(self._rooms)[:, None],
            self._of_last(self._odd)[:, None],
        )
        last = (self.depth == 0) & (self.rings != 0)  # a ring must be closed, so the next atom is not the last one
        wrong = (self._atoms | self._ring) & (left < order)
        wrong |= self._atoms & (self._rooms_of < order + last[:, None])
        alone = self._aromatic & (self.rings == 0)[:, None]  # it opens a ring, and then another atom follows
        wrong |= alone & (self._rooms_of < order + 2)
        wrong |= (self._bonds > left) | (self._opening & (left < 1))
        wrong |= (self._bond > 0)[:, None] & ((self._bonds > 0) | (self._depths != 0))
        wrong |= self._alone[:, None] & ~self._ring
        wrong |= self._atoms & ~self._branched[:, None] & _has(odd, left - order)
        wrong |= self._closing & _has(odd, left)
        wrong[:, EOS] = (self._bond > 0) | self._alone | _has(odd, left)[:, 0]
        wrong &= (self.depth < _LEVELS - 2)[:, None]  # one level above the last is written by what lies deeper
        barred = logits.masked_fill(wrong, -math.inf)
        stuck = torch.isneginf(barred).all(dim=1, keepdim=True)
        logits.copy_(torch.where(stuck, logits, barred))

    def add(self, ids: Tensor) -> None:
        """Notes the next id of each row."""
        atom, ring, opening = self._atoms[ids], self._ring[ids], self._opening[ids]
        order, left, odd = self._order(), self._of_last(self._rooms), self._of_last(self._odd)
        branching = (self._level() - 1).clamp(min=0)
        self._rooms.scatter_add_(1, branching[:, None], -(order * (atom & self._branched))[:, None])
        left_now = torch.where(atom, self._rooms_of[ids] - order, left - order * ring)
        self._put(left_now, torch.where(atom, self._odd_of[ids], odd))
        self._alone = torch.where(atom, self._aromatic[ids] & (self.rings == 0), self._alone & ~ring)
        self.rings, self.depth = self.rings ^ self._bits[ids], self.depth + self._depths[ids]
        self._put(
            torch.where(opening, left, self._of_last(self._rooms)), torch.where(opening, odd, self._of_last(self._odd))
        )
        self._branched = (self._branched & ~atom) | opening
        self._empty &= ~atom
        self._bond = torch.where(atom | ring, 0, torch.where(self._bonds[ids] > 0, self._bonds[ids], self._bond))

    def select(self, rows: Tensor) -> None:
        """Keeps some rows only, by index."""
        self.rings, self.depth, self._bond = self.rings[rows], self.depth[rows], self._bond[rows]
        self._rooms, self._odd, self._branched = self._rooms[rows], self._odd[rows], self._branched[rows]
        self._alone, self._empty = self._alone[rows], self._empty[rows]

    def _order(self) -> Tensor:
        """The order (B,) of the bond to the next atom."""
        return torch.where(self._empty, 0, self._bond.clamp(min=1))

    def _level(self) -> Tensor:
        return self.depth.clamp(0, _LEVELS - 1)

    def _of_last(self, values: Tensor) -> Tensor:
        """The values (B,) of the atom that the next one is bound to, of (B, levels)."""
        return values.gather(1, self._level()[:, None])[:, 0]

    def _put(self, left: Tensor, odd: Tensor) -> None:
        """Sets what is left to the atom that the next one is bound to, (B,), and what must not be."""
        self._rooms.scatter_(1, self._level()[:, None], left[:, None])
        self._odd.scatter_(1, self._level()[:, None], odd[:, None])


def _has(bits: Tensor, number: Tensor) -> Tensor:
    """Whether the bit of a number is set; of a negative number no one is."""
    return (bits >> number.clamp(min=0) & 1).bool() & (number >= 0)


def is_atom(token: str) -> bool:
    """Whether a token is an atom of a SMILES."""
    return token[:1].isalpha() or token[:1] == "["


def is_aromatic(token: str) -> bool:
    """Whether an atom's token is an aromatic one."""
    return token.strip("[0123456789")[:1].islower()


@cache
def room(token: str) -> int:
    """The most bonds, by their orders, that an atom's token can have in a SMILES that RDKit reads; 0 for other tokens.

    Of an aromatic carbon it is 4, since it may bear a double bond.
    """
    if not is_atom(token):
        return 0
    if is_aromatic(token):
        text = token.strip("[]0123456789")
        charge = text.count("+") - text.count("-")
        return _AROMATIC_ROOMS[text[0]] + charge - text.count("H")
    return max((n for n in range(_MOST_BONDS + 1) if parse(token + "(C)" * n)), default=_MOST_BONDS)
