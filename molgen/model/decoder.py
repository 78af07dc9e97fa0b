"""The decoder: embedding, positions, blocks, norm, head. Ids in, logits out.

Shapes: B molecules, T positions, D width, V vocabulary.
"""

import copy
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from molgen.model.dropout import Dropout
from molgen.model.experts import SwitchFeedForward
from molgen.model.recompute import recomputed
from molgen.tokenizer import EOS, PAD


class DecodingCache(Protocol):
    """What the attention of one block remembers of the positions decoded so far. Each kind of attention has its own.

    Keys and values need memory for each position, a window for some positions, a running sum for none. So a capacity
    says how long the sequences may become, not how large the cache is: a cache takes at least so many positions before
    the next `select_rows`. A cache whose size does not depend on the length ignores it.
    """

    def select_rows(self, rows: Tensor, capacity: int) -> Self:
        """The cache of some rows only, given by index (K,), for sequences of at most `capacity` positions.

        The capacity never becomes smaller. The old cache is not used again.
        """


class Attention(Protocol):
    """What a block needs of its attention, an `nn.Module`: (B, T, D) -> (B, T, D), causal.

    A kind that can be bidirectional also takes `seen`, (B, T): true at the positions that may be attended to.

    With a cache, the T new positions follow the `start` positions that the cache has seen. They are added to it in
    place, and the result equals that of one call without a cache for all positions. T exceeds 1 only if `start` is 0.
    """

    output: nn.Linear
    """The last layer. It writes to the residual stream, so its first weights are smaller (`initialization: scaled`)."""

    def __call__(self, x: Tensor, start: int = 0, cache: Any = None, **bidirectional: Tensor) -> Tensor: ...

    def new_cache(self, rows: int, capacity: int, dtype: torch.dtype) -> DecodingCache:
        """An empty cache for `rows` sequences of at most `capacity` positions, on the device of the weights.

        `dtype` is meant for what is kept per position; sums over positions may need a wider type.
        """


class DecodingState(NamedTuple):
    """What step-by-step decoding remembers. Passed in and returned; the model holds none."""

    length: int
    """Positions decoded so far, the same in every row."""
    capacity: int
    """Positions that the caches were made for: `length` may grow to it, then `select_rows` makes it larger."""
    caches: tuple[DecodingCache, ...]
    """One per block."""

    def select_rows(self, rows: Tensor, capacity: int) -> Self:
        """The state of some rows only, given by index (K,), for at least as many positions as now."""
        return self._replace(capacity=capacity, caches=tuple(c.select_rows(rows, capacity) for c in self.caches))


def _attended(
    attention: Attention, x: Tensor, start: int, cache: DecodingCache | None, seen: Tensor | None
) -> Tensor:  # (B, T, D) -> (B, T, D)
    return attention(x, start, cache) if seen is None else attention(x, seen=seen)


def is_of_molecule(ids: Tensor) -> Tensor:
    """(B, T) true at the start token and the molecule's tokens.

    In a batch `<eos>` is an input of all molecules but the longest, so a prediction must not depend on it.
    """
    return (ids != PAD) & (ids != EOS)


class PreNormBlock(nn.Module):
    """Layer norm before each part; the residual stream itself is never normalised (GPT-2)."""

    def __init__(self, width: int, attention: Attention, feedforward: nn.Module, biases: bool, dropout: float) -> None:
        super().__init__()
        self.attention_norm, self.attention = nn.LayerNorm(width, bias=biases), attention
        self.feedforward_norm, self.feedforward = nn.LayerNorm(width, bias=biases), feedforward
        self.dropout = Dropout(dropout)

    def forward(
        self, x: Tensor, start: int = 0, cache: DecodingCache | None = None, seen: Tensor | None = None
    ) -> Tensor:  # (B, T, D) -> (B, T, D)
        x = x + self.dropout(_attended(self.attention, self.attention_norm(x), start, cache, seen))
        return x + self.dropout(self.feedforward(self.feedforward_norm(x)))  # type: ignore[no-any-return]


class PostNormBlock(nn.Module):
    """Layer norm after each sum (Vaswani et al. 2017)."""

    def __init__(self, width: int, attention: Attention, feedforward: nn.Module, biases: bool, dropout: float) -> None:
        super().__init__()
        self.attention, self.attention_norm = attention, nn.LayerNorm(width, bias=biases)
        self.feedforward, self.feedforward_norm = feedforward, nn.LayerNorm(width, bias=biases)
        self.dropout = Dropout(dropout)

    def forward(
        self, x: Tensor, start: int = 0, cache: DecodingCache | None = None, seen: Tensor | None = None
    ) -> Tensor:  # (B, T, D) -> (B, T, D)
        x = self.attention_norm(x + self.dropout(_attended(self.attention, x, start, cache, seen)))
        return self.feedforward_norm(x + self.dropout(self.feedforward(x)))  # type: ignore[no-any-return]


class TiedHead(nn.Module):
    """Logits by the token embedding's own vectors (Press & Wolf 2017)."""

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        self.embedding = embedding

    def forward(self, x: Tensor) -> Tensor:  # (B, T, D) -> (B, T, V)
        return linear(x, self.embedding.weight)


class Decoder(nn.Module):
    """A decoder-only transformer of injected parts.

    `forward` sees whole sequences at once; `step` continues sequences whose state it is given. Both compute the same.
    """

    def __init__(
        self,
        embedding: nn.Embedding,
        positions: nn.Module,
        dropout: nn.Module,
        blocks: Sequence[PreNormBlock | PostNormBlock],
        norm: nn.Module,
        head: nn.Module,
        context: int,
        prediction: nn.Module | None = None,
        conditions: nn.Module | None = None,
    ) -> None:
        """`prediction`, the head of a joint model, takes (B, T, D) and (B, T), true where there is a token.

        `conditions` turns values (B, C) and their sides into what is added to each token's embedding.
        """
        super().__init__()
        self.embedding, self.positions, self.dropout = embedding, positions, dropout
        self.blocks = nn.ModuleList(blocks)
        self.norm, self.head = norm, head
        self.context = context
        self.prediction = prediction
        self.conditions = conditions
        self.shift: Tensor | None = None
        """(1, 1, D) what `given` adds to each token's embedding; None: nothing, the unconditional model."""
        self.gradient_checkpointing = False
        """Whether a training computes the blocks again in the backward pass: less memory, a third more time."""

    def forward(self, ids: Tensor) -> Tensor:
        """Ids (B, T) -> logits (B, T, V) of the token that follows each position."""
        return self.logits(self.hidden(ids))

    def given(self, values: Tensor, sides: Tensor) -> "Decoder":
        """A view of the model under a condition, with the same weights: all that it computes is given these values.

        Standardised values (1, C), NaN where none is asked for, and their sides. Raises ValueError for a model without
        conditions.
        """
        if self.conditions is None:
            raise ValueError("the model has no conditions")
        view = copy.copy(self)
        with torch.no_grad():
            view.shift = self.conditions(values, sides)
        return view

    def hidden(self, ids: Tensor, bidirectional: bool = False, shift: Tensor | None = None) -> Tensor:
        """Ids (B, T) -> the residual stream after the last block, (B, T, D).

        `shift`, (B, 1, D), is added to the embeddings in place of what `given` has set.
        """
        shift = self.shift if shift is None else shift
        embedded = self.embedding(ids)
        x = self.dropout(self.positions(embedded if shift is None else embedded + shift, 0))
        seen = {"seen": is_of_molecule(ids)} if bidirectional else {}
        for block in self.blocks:
            if self.gradient_checkpointing and self.training:
                x = recomputed(partial(block, **seen), x)
            else:
                x = block(x, **seen)
        return x  # type: ignore[no-any-return]

    def logits(self, x: Tensor) -> Tensor:
        """The stream (B, ..., D) -> logits (B, ..., V) in float32, or float64 if the weights are."""
        with torch.autocast(x.device.type, enabled=False):  # a logit of 10 in bf16 may be off by 3 %
            return self.head(self.norm(x.to(torch.promote_types(x.dtype, torch.float32))))  # type: ignore[no-any-return]

    def predicted(self, ids: Tensor, x: Tensor) -> Tensor:
        """Ids (B, T) and their stream (B, T, D) -> the outputs of the prediction head (B, outputs) in float32.

        Raises ValueError for a model without one.
        """
        if self.prediction is None:
            raise ValueError("the model has no prediction head")
        with torch.autocast(x.device.type, enabled=False):
            return self.prediction(self.norm(x.float()), is_of_molecule(ids))  # type: ignore[no-any-return]

    def step(self, ids: Tensor, state: DecodingState) -> tuple[Tensor, DecodingState]:
        """Ids (B, T) that follow the state -> logits (B, V) after the last of them, and the state that includes them.

        T may exceed 1 only for an empty state (a prompt). Caches are written in place: do not use the old state again.
        Raises ValueError for more positions than the state has capacity for.
        """
        return self._stepped(ids, state, self.shift)

    def _stepped(self, ids: Tensor, state: DecodingState, shift: Tensor | None) -> tuple[Tensor, DecodingState]:
        if state.length + ids.shape[1] > state.capacity:
            raise ValueError(f"{state.length} + {ids.shape[1]} positions exceed the capacity {state.capacity}")
        embedded = self.embedding(ids)
        x = self.positions(embedded if shift is None else embedded + shift, state.length)
        for block, cache in zip(self.blocks, state.caches, strict=True):
            x = block(x, state.length, cache)
        return self.logits(x[:, -1]), state._replace(length=state.length + ids.shape[1])

    def empty_state(self, rows: int, capacity: int, dtype: torch.dtype | None = None) -> DecodingState:
        """A state for `rows` sequences of at most `capacity` positions; caches have the weights' type by default."""
        dtype = dtype or self.embedding.weight.dtype
        caches = (block.attention.new_cache(rows, capacity, dtype) for block in self.blocks)  # type: ignore[union-attr, operator]
        return DecodingState(0, capacity, tuple(caches))

    @property
    def num_parameters(self) -> int:
        """Trainable numbers; shared ones count once."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)

    @property
    def num_active_parameters(self) -> int:
        """Trainable numbers that one token uses: of several experts one."""
        return self.num_parameters - sum(m.num_idle for m in self.modules() if isinstance(m, SwitchFeedForward))
