"""The decoder: embedding, positions, blocks, norm, head. Ids in, logits out.

Shapes: B molecules, T positions, D width, V vocabulary.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from molgen.model.attention import CausalSelfAttention, Memory
from molgen.model.dropout import Dropout


class DecodingState(NamedTuple):
    """What step-by-step decoding remembers. Passed in and handed back; the model holds none."""

    length: int
    """Positions decoded so far, the same in every row."""
    memories: tuple[Memory, ...]
    """One a block."""

    def rearranged(self, rows: Tensor, room: int) -> "DecodingState":
        """The state of some rows only, given by index (K,), with room for more positions."""

        def copy(part: Tensor) -> Tensor:
            result = part.new_empty(len(rows), part.shape[1], room, part.shape[3])
            torch.index_select(part, 0, rows, out=result[:, :, : self.room])
            result[:, :, self.room :] = 0
            return result

        return DecodingState(self.length, tuple(Memory(copy(m.keys), copy(m.values)) for m in self.memories))

    @property
    def room(self) -> int:
        """Positions that the memories can hold."""
        return self.memories[0].keys.shape[2]


class PreNormBlock(nn.Module):
    """Layer norm before each part; the residual stream itself is never normalised (GPT-2)."""

    def __init__(
        self, width: int, attention: CausalSelfAttention, feedforward: nn.Module, biases: bool, dropout: float
    ) -> None:
        super().__init__()
        self.attention_norm, self.attention = nn.LayerNorm(width, bias=biases), attention
        self.feedforward_norm, self.feedforward = nn.LayerNorm(width, bias=biases), feedforward
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, start: int = 0, memory: Memory | None = None) -> Tensor:  # (B, T, D) -> (B, T, D)
        x = x + self.dropout(self.attention(self.attention_norm(x), start, memory))
        return x + self.dropout(self.feedforward(self.feedforward_norm(x)))  # type: ignore[no-any-return]


class PostNormBlock(nn.Module):
    """Layer norm after each sum (Vaswani et al. 2017)."""

    def __init__(
        self, width: int, attention: CausalSelfAttention, feedforward: nn.Module, biases: bool, dropout: float
    ) -> None:
        super().__init__()
        self.attention, self.attention_norm = attention, nn.LayerNorm(width, bias=biases)
        self.feedforward, self.feedforward_norm = feedforward, nn.LayerNorm(width, bias=biases)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, start: int = 0, memory: Memory | None = None) -> Tensor:  # (B, T, D) -> (B, T, D)
        x = self.attention_norm(x + self.dropout(self.attention(x, start, memory)))
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
    ) -> None:
        super().__init__()
        self.embedding, self.positions, self.dropout = embedding, positions, dropout
        self.blocks = nn.ModuleList(blocks)
        self.norm, self.head = norm, head
        self.context = context

    def forward(self, ids: Tensor) -> Tensor:
        """Ids (B, T) -> logits (B, T, V) of the token that follows each position."""
        x = self.dropout(self.positions(self.embedding(ids), 0))
        for block in self.blocks:
            x = block(x)
        return self._logits(x)

    def step(self, ids: Tensor, state: DecodingState) -> tuple[Tensor, DecodingState]:
        """Ids (B, T) that follow the state -> logits (B, V) after the last of them, and the state that includes them.

        T may exceed 1 only for an empty state (a prompt). Memories are written in place: the old state is spent.
        """
        x = self.positions(self.embedding(ids), state.length)
        for block, memory in zip(self.blocks, state.memories, strict=True):
            x = block(x, state.length, memory)
        return self._logits(x[:, -1]), DecodingState(state.length + ids.shape[1], state.memories)

    def _logits(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):  # a logit of 10 in bf16 may be off by 3 %
            return self.head(self.norm(x.float()))  # type: ignore[no-any-return]

    def empty_state(self, rows: int, room: int, dtype: torch.dtype | None = None) -> DecodingState:
        """A state for `rows` sequences of at most `room` positions."""
        weight = self.embedding.weight
        shapes = [(rows, block.attention.kv_heads, room, block.attention.head_width) for block in self.blocks]  # type: ignore[union-attr]
        memories = (
            Memory(*(torch.zeros(shape, device=weight.device, dtype=dtype or weight.dtype) for _ in range(2)))  # type: ignore[arg-type]
            for shape in shapes
        )
        return DecodingState(0, tuple(memories))

    @property
    def weights(self) -> int:
        """Trainable numbers, shared ones counted once."""
        return sum(p.numel() for p in self.parameters())
