"""Linformer's low-rank attention in a causal form: earlier blocks of positions are seen through summaries.

Shapes: B molecules, T positions, H heads, G heads of keys and values, W head width, N blocks, C positions of a block, S
summaries of a block.
"""

import math
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

from molgen.model.attention import SelfAttention, causal_attention, repeated
from molgen.model.kv_cache import KVCache
from molgen.model.window import chunked


class LinformerAttention(SelfAttention):
    """A position attends to those of its own block up to itself, and to the summaries of the blocks before.

    Linformer (Wang et al. 2020) projects the keys and values of a whole sequence to a few vectors by learned matrices,
    which mixes later positions into earlier ones. Deviation: here each block of C positions is projected by itself, to
    S vectors, once it is complete. So time and cache are T²·S/C and T·S/C, not linear and constant. The matrices start
    as means of C / S neighbours and are shared by the heads of a layer.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        kv_heads: int,
        head_width: int,
        biases: bool,
        rotation: nn.Module,
        block: int,
        summaries: int,
    ) -> None:
        super().__init__(width, heads, kv_heads, head_width, biases, rotation)
        self.block = block
        self.key_summary = nn.Parameter(_means(summaries, block))  # (S, C)
        self.value_summary = nn.Parameter(_means(summaries, block))

    def new_cache(self, rows: int, capacity: int, dtype: torch.dtype) -> "BlockCache":
        """An empty cache for `rows` sequences of at most `capacity` positions."""
        summaries = len(self.key_summary)
        shape = (rows, self.kv_heads, _places(capacity, self.block, summaries), self.head_width)
        return BlockCache(KVCache.empty(shape, dtype, self.inputs.weight.device), self.block, summaries)

    def forward(self, x: Tensor, start: int = 0, cache: "BlockCache | None" = None) -> Tensor:
        """(B, T, D) -> (B, T, D). With a cache the T new positions follow the `start` positions that it has seen."""
        q, k, v = self.queries_keys_values(x, start)
        if cache is not None:
            t = x.shape[1]
            for first in range(0, t, self.block):  # several positions only at the start
                part = slice(first, first + self.block)
                cache.append(k[:, :, part], v[:, :, part], start + first)
                if (start + min(first + self.block, t)) % self.block == 0:
                    cache.summarise(self.key_summary, self.value_summary, (start + first) // self.block)
            if t == 1:
                return self.output(cache.attended(self.grouped(q), start).reshape(len(x), 1, -1))  # type: ignore[no-any-return]
        return self.joined(self._parallel(q, k, v))

    def _parallel(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """(B, H, T, W), (B, G, T, W), (B, G, T, W) -> (B, H, T, W)."""
        t, c = q.shape[2], self.block
        if t <= c:
            return causal_attention(q, k, v)
        k, v = repeated(k, v, self.heads)
        q, k, v = chunked(q * self.head_width**-0.5, c), chunked(k, c), chunked(v, c)  # (B, H, N, C, W)
        keys = (self.key_summary @ k).flatten(2, 3)[:, :, None]  # (B, H, 1, NS, W)
        values = (self.value_summary @ v).flatten(2, 3)[:, :, None]
        own = q @ k.transpose(3, 4)  # (B, H, N, C, C)
        earlier = q @ keys.transpose(3, 4)  # (B, H, N, C, NS)
        n = torch.arange(k.shape[2], device=q.device)
        later = n.repeat_interleave(len(self.key_summary)) >= n[:, None, None]  # (N, 1, NS)
        future = torch.full((c, c), -math.inf, device=q.device).triu(1)
        scores = torch.cat((own.to(_wide(own)) + future, earlier.to(_wide(own)).masked_fill(later, -math.inf)), dim=-1)
        weights = scores.softmax(dim=-1)
        y = weights[..., :c] @ v + weights[..., c:] @ values
        return y.flatten(2, 3)[:, :, :t]


class BlockCache(NamedTuple):
    """Keys and values of the positions of the block that is not complete, then the summaries of the complete ones."""

    places: KVCache
    """(B, G, C + N S, W); for fewer than C positions, no more than these."""
    block: int
    summaries: int

    def append(self, keys: Tensor, values: Tensor, start: int) -> None:
        """Writes the keys and values (B, G, T, W) of the positions from `start` on, all of one block."""
        self.places.append(keys, values, start % self.block)

    def summarise(self, of_keys: Tensor, of_values: Tensor, number: int) -> None:
        """Writes the summaries (S, C) of the block, which is complete and the `number`-th, counted from 0."""
        keys, values = (part[:, :, : self.block] for part in self.places)
        with torch.autocast(keys.device.type, enabled=False):
            summary = of_keys.to(keys.dtype) @ keys, of_values.to(values.dtype) @ values
        self.places.append(*summary, self.block + number * self.summaries)

    def attended(self, q: Tensor, position: int) -> Tensor:
        """The queries (B, G, H / G, W) of the last position appended -> (B, G, H / G, W)."""
        place = torch.arange(self.places.capacity, device=q.device)
        end = self.block + position // self.block * self.summaries
        unseen = (place > position % self.block) & (place < self.block) | (place >= end)
        with torch.autocast(q.device.type, enabled=False):
            scores = q.to(self.places.keys.dtype) @ self.places.keys.transpose(2, 3) * q.shape[3] ** -0.5
            y: Tensor = scores.masked_fill(unseen, -math.inf).softmax(dim=-1) @ self.places.values
        return y

    def select_rows(self, rows: Tensor, capacity: int) -> Self:
        """A copy of some rows only, given by index (K,), with memory for `capacity` positions."""
        return self._replace(places=self.places.select_rows(rows, _places(capacity, self.block, self.summaries)))


def _places(capacity: int, block: int, summaries: int) -> int:
    return min(capacity, block) + capacity // block * summaries


def _means(summaries: int, block: int) -> Tensor:
    """(S, C): row i is the mean of the i-th of S parts of a block."""
    part = torch.arange(block) * summaries // block  # (C,)
    chosen = (part == torch.arange(summaries)[:, None]).float()
    return chosen / chosen.sum(dim=1, keepdim=True)


def _wide(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)
