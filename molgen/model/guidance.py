"""Classifier-free guidance (Ho and Salimans 2022): a conditional model, pushed further away from the unconditional one.

ln p = ln p(x) + scale · (ln p(x | condition) − ln p(x)), up to a constant for each next token: 1 is the conditional
model itself, more holds the condition closer at the price of diversity. Both passes are needed: twice the time.
"""

import torch
from torch import Tensor

from molgen.model.decoder import Decoder, DecodingState


class GuidedDecoder(Decoder):
    """A decoder whose logits are those of guidance. It shares the weights of the model that it is made from."""

    def __init__(self, model: Decoder, scale: float) -> None:
        """`model` has its condition: see `Decoder.given`."""
        blocks = list(model.blocks)
        super().__init__(
            model.embedding,
            model.positions,
            model.dropout,
            blocks,  # type: ignore[arg-type]
            model.norm,
            model.head,
            model.context,
        )
        self.shift, self.scale = model.shift, scale
        self.train(model.training)

    def forward(self, ids: Tensor) -> Tensor:
        """Ids (B, T) -> logits (B, T, V) of the token that follows each position."""
        plain = torch.zeros_like(self.embedding.weight[0])
        return self._guided(self.logits(self.hidden(ids)), self.logits(self.hidden(ids, shift=plain)))

    def step(self, ids: Tensor, state: DecodingState) -> tuple[Tensor, DecodingState]:
        """As of any decoder; the caches of the unconditional pass follow those of the conditional one."""
        n = len(self.blocks)
        given, after = super().step(ids, state._replace(caches=state.caches[:n]))
        plain, other = self._stepped(ids, state._replace(caches=state.caches[n:]), None)
        return self._guided(given, plain), after._replace(caches=(*after.caches, *other.caches))

    def empty_state(self, rows: int, capacity: int, dtype: torch.dtype | None = None) -> DecodingState:
        """A state with two caches for each block."""
        given, plain = (super(GuidedDecoder, self).empty_state(rows, capacity, dtype) for _ in range(2))
        return given._replace(caches=(*given.caches, *plain.caches))

    def _guided(self, given: Tensor, plain: Tensor) -> Tensor:
        given, plain = given.log_softmax(dim=-1), plain.log_softmax(dim=-1)
        return plain + self.scale * (given - plain)
