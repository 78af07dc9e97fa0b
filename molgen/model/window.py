"""Sliding-window attention: each position attends to the last few positions only.

Shapes: B molecules, T positions, H heads, G heads of keys and values, W head width, N chunks, C positions of a chunk.
"""

import math
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from molgen.model.attention import SelfAttention, attend_to_cache, causal_attention, repeated
from molgen.model.kv_cache import KVCache


class WindowAttention(SelfAttention):
    """Position i attends to the `window` positions i - window + 1 to i (Beltagy et al. 2020, "Longformer"; Mistral).

    Blocks above each other see further: the last of n blocks, n x (window - 1) positions back. Time and memory are
    linear in T, the cache has at most `window` positions. Of Longformer it has neither the dilated windows nor the
    global tokens: those would see later positions.
    """

    def __init__(
        self, width: int, heads: int, kv_heads: int, head_width: int, biases: bool, rotation: nn.Module, window: int
    ) -> None:
        super().__init__(width, heads, kv_heads, head_width, biases, rotation)
        self.window = window

    def new_cache(self, rows: int, capacity: int, dtype: torch.dtype) -> "WindowCache":
        """An empty cache for `rows` sequences; it never has more than `window` positions."""
        shape = (rows, self.kv_heads, min(capacity, self.window), self.head_width)
        return WindowCache(KVCache.empty(shape, dtype, self.inputs.weight.device), self.window)

    def forward(self, x: Tensor, start: int = 0, cache: "WindowCache | None" = None) -> Tensor:
        """(B, T, D) -> (B, T, D). With a cache the T new positions follow the `start` positions that it has seen."""
        q, k, v = self.queries_keys_values(x, start)
        if cache is not None:
            cache.append(k, v, start)
            if x.shape[1] == 1:
                y = attend_to_cache(self.grouped(q), cache.last, min(start + 1, self.window))
                return self.output(y.reshape(len(x), 1, -1))  # type: ignore[no-any-return]
        return self.joined(window_attention(q, k, v, self.window))


class WindowCache(NamedTuple):
    """Keys and values of the last `window` positions: position i is at place i modulo `window`."""

    last: KVCache
    window: int

    def append(self, keys: Tensor, values: Tensor, start: int) -> None:
        """Writes the keys and values (B, G, T, W) of the positions from `start` on, over those that fall out."""
        t = keys.shape[2]
        if t == 1:
            self.last.append(keys, values, start % self.window)
            return
        stay = min(t, self.window)
        places = torch.arange(start + t - stay, start + t, device=keys.device) % self.window
        self.last.keys[:, :, places] = keys[:, :, -stay:].to(self.last.keys.dtype)
        self.last.values[:, :, places] = values[:, :, -stay:].to(self.last.values.dtype)

    def select_rows(self, rows: Tensor, capacity: int) -> Self:
        """A copy of some rows only, given by index (K,); until it has `window` positions it grows with `capacity`."""
        return self._replace(last=self.last.select_rows(rows, min(capacity, self.window)))


def window_attention(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    """Softmax attention of (B, H, T, W) to (B, G, T, W), each position to the last `window` -> (B, H, T, W).

    The sequence is cut into chunks of `window` positions. A chunk sees itself and the one before it, which is all that
    its positions need: twice the scores, but all in plain matrix products.
    """
    t = q.shape[2]
    if t <= window:
        return causal_attention(q, k, v)
    k, v = repeated(k, v, q.shape[1])
    q = chunked(q * q.shape[3] ** -0.5, window)
    scores = q @ with_chunk_before(chunked(k, window)).transpose(3, 4)  # (B, H, N, C, 2C)
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32)) + _band(q.shape[2], window, q.device)
    y = scores.softmax(dim=-1) @ with_chunk_before(chunked(v, window))  # (B, H, N, C, W)
    return y.flatten(2, 3)[:, :, :t]


def chunked(x: Tensor, size: int) -> Tensor:
    """(B, H, T, W) -> (B, H, N, size, W), zeros after the last position."""
    b, h, t, w = x.shape
    return pad(x, (0, 0, 0, -t % size)).view(b, h, -1, size, w)


def with_chunk_before(x: Tensor) -> Tensor:
    """(B, H, N, C, W) -> (B, H, N, 2C, W): each chunk after the one before it; before the first, zeros."""
    return torch.cat((pad(x, (0, 0, 0, 0, 1, -1)), x), dim=3)


def _band(chunks: int, window: int, device: torch.device) -> Tensor:
    """(N, C, 2C) 0 where a position sees another, else minus infinity; C is `window`."""
    place = torch.arange(2 * window, device=device)
    distance = place[window:, None] - place  # (C, 2C) from key to query
    seen = (distance >= 0) & (distance < window)
    there = (torch.arange(chunks, device=device) > 0)[:, None, None] | (place >= window)  # (N, 1, 2C)
    return torch.zeros(chunks, window, 2 * window, device=device).masked_fill(~(seen & there), -math.inf)
