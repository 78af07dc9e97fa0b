"""Causal multi-head self-attention, in parallel over a sequence or step by step with a cache of keys and values.

Shapes: B molecules, T positions, D width, H heads, G heads of keys and values, W head width.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from molgen.model.kv_cache import KVCache

# On a CPU, up to this length plain products and a softmax take less time than the fused kernel; above, the fused kernel
# takes less time, and memory for T positions instead of T x T (docs/long.md).
MOST_PLAIN = 384


class SelfAttention(nn.Module):
    """What the kinds of attention have in common: projections to heads and back.

    The head width is free: heads x head_width need not be the model's width. With fewer heads of keys and values than
    of queries, H / G neighbouring queries share one (grouped-query attention, Ainslie et al. 2023), which makes the
    cache smaller. `rotation` takes queries or keys, (B, heads, T, W), and the first position, and returns the same
    shape.
    """

    def __init__(
        self, width: int, heads: int, kv_heads: int, head_width: int, biases: bool, rotation: nn.Module
    ) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_width = heads, kv_heads, head_width
        self.inputs = nn.Linear(width, (heads + 2 * kv_heads) * head_width, bias=biases)
        self.output = nn.Linear(heads * head_width, width, bias=biases)
        self.rotation = rotation

    def projected(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, D) -> queries and keys (B, H + G, T, W), not rotated, and values (B, G, T, W)."""
        b, t, _ = x.shape
        heads = self.inputs(x).view(b, t, -1, self.head_width).transpose(1, 2)  # (B, H + 2G, T, W)
        qk, v = heads.split((self.heads + self.kv_heads, self.kv_heads), dim=1)
        return qk, v

    def queries_keys_values(self, x: Tensor, start: int) -> tuple[Tensor, Tensor, Tensor]:
        """(B, T, D) whose first position is `start` -> (B, H, T, W), (B, G, T, W), (B, G, T, W); rotated."""
        qk, v = self.projected(x)
        q, k = self.rotation(qk, start).split((self.heads, self.kv_heads), dim=1)
        return q, k, v

    def joined(self, y: Tensor) -> Tensor:
        """(B, H, T, W) -> (B, T, D)."""
        return self.output(y.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    def grouped(self, q: Tensor) -> Tensor:
        """Queries of one position, (B, H, 1, W), by the head of keys that they share -> (B, G, H / G, W)."""
        return q.reshape(len(q), self.kv_heads, -1, self.head_width)


class CausalSelfAttention(SelfAttention):
    """Every position attends to itself and to all before it (Vaswani et al. 2017)."""

    def new_cache(self, rows: int, capacity: int, dtype: torch.dtype) -> KVCache:
        """An empty cache for `rows` sequences of at most `capacity` positions."""
        return KVCache.empty((rows, self.kv_heads, capacity, self.head_width), dtype, self.inputs.weight.device)

    def forward(self, x: Tensor, start: int = 0, cache: KVCache | None = None, seen: Tensor | None = None) -> Tensor:
        """(B, T, D) -> (B, T, D). With a cache the T new positions follow the `start` positions in it.

        Several new positions attend only to each other, which is correct for `start` = 0. With `seen`, (B, T) of
        booleans, every position attends to all positions for which it is true: bidirectional, without a cache.
        """
        q, k, v = self.queries_keys_values(x, start)
        if cache is not None:
            cache.append(k, v, start)
            if x.shape[1] == 1:
                y = attend_to_cache(self.grouped(q), cache, start + 1)
                return self.output(y.reshape(len(x), 1, -1))  # type: ignore[no-any-return]
        return self.joined(causal_attention(q, k, v) if seen is None else bidirectional_attention(q, k, v, seen))


def causal_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax attention of (B, H, T, W) to (B, G, T, W), each position to itself and all before -> (B, H, T, W)."""
    k, v = repeated(k, v, q.shape[1])
    t = q.shape[2]
    if q.device.type == "cpu" and t <= MOST_PLAIN:
        future = torch.full((t, t), -math.inf).triu(1)
        scores = q * q.shape[3] ** -0.5 @ k.transpose(2, 3)
        scores = scores.to(torch.promote_types(scores.dtype, torch.float32)) + future
        return torch.matmul(scores.softmax(dim=-1), v)
    return scaled_dot_product_attention(q, k, v, is_causal=True)


def bidirectional_attention(q: Tensor, k: Tensor, v: Tensor, seen: Tensor) -> Tensor:
    """Softmax attention of (B, H, T, W) to (B, G, T, W), each position to all that are `seen`, (B, T)."""
    k, v = repeated(k, v, q.shape[1])
    mask = seen[:, None, None, :]
    if q.device.type == "cpu" and q.shape[2] <= MOST_PLAIN:
        scores = q * q.shape[3] ** -0.5 @ k.transpose(2, 3)
        scores = scores.to(torch.promote_types(scores.dtype, torch.float32)).masked_fill(~mask, -math.inf)
        return torch.matmul(scores.softmax(dim=-1), v)
    return scaled_dot_product_attention(q, k, v, attn_mask=mask)


def repeated(k: Tensor, v: Tensor, heads: int) -> tuple[Tensor, Tensor]:
    """Keys and values (B, G, T, W), each head repeated for the queries that share it -> (B, H, T, W)."""
    if k.shape[1] == heads:
        return k, v
    times = heads // k.shape[1]
    return k.repeat_interleave(times, dim=1), v.repeat_interleave(times, dim=1)


def attend_to_cache(q: Tensor, cache: KVCache, count: int) -> Tensor:
    """Queries (B, G, H / G, W) of one position see the first `count` positions in a cache -> (B, G, H / G, W)."""
    q = q.to(cache.keys.dtype)
    with torch.autocast(q.device.type, enabled=False):
        scores = q @ cache.keys.transpose(2, 3) * q.shape[3] ** -0.5  # (B, G, H / G, capacity)
        scores[..., count:] = -math.inf
        y: Tensor = scores.softmax(dim=-1) @ cache.values
    return y
