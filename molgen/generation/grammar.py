"""What a string in the making has open: branches and rings."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from molgen.tokenizer import EOS


class Grammar:
    """Which branches and rings are open in each row, so that all of them, and no other ones, are closed at the end.

    Ids (B,) are added one after the other. All rows begin with what `opened` says: bits of ring labels, (B,).
    """

    def __init__(self, tokens: Sequence[str], opened: Tensor) -> None:
        """`tokens` has the text of each id, empty for special ones."""
        device = opened.device
        labels = {name: i for i, name in enumerate(name for name in tokens if name.isdigit() or name[:1] == "%")}
        bits = [1 << labels[name] if name in labels else 0 for name in tokens]
        self._bits = torch.tensor(bits, dtype=torch.long, device=device)
        depths = [(name == "(") - (name == ")") for name in tokens]
        self._depths = torch.tensor(depths, dtype=torch.long, device=device)
        self._closing = self._depths == -1
        self.rings, self.depth = opened.clone(), torch.zeros_like(opened)

    def bar(self, logits: Tensor) -> None:
        """Bars, in place in logits (B, V), `<eos>` with something open and `)` with no branch open."""
        is_open = (self.rings != 0) | (self.depth > 0)
        logits[:, EOS].masked_fill_(is_open, -math.inf)
        logits.masked_fill_((self.depth == 0)[:, None] & self._closing, -math.inf)

    def add(self, ids: Tensor) -> None:
        """Notes the next id of each row."""
        self.rings, self.depth = self.rings ^ self._bits[ids], self.depth + self._depths[ids]

    def select(self, rows: Tensor) -> None:
        """Keeps some rows only, by index."""
        self.rings, self.depth = self.rings[rows], self.depth[rows]
