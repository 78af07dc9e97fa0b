"""Causal multi-head self-attention, in parallel over a sequence or step by step with a cache of keys and values.

Shapes: B molecules, T positions, D width, H heads, G heads of keys and values, W head width.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from molgen.model.kv_cache import KVCache


class CausalSelfAttention(nn.Module):
    """Attention whose head width is free: heads x head_width need not be the model's width.

    With fewer heads of keys and values than of queries, H / G neighbouring queries share one (grouped-query attention,
    Ainslie et al. 2023), which makes the cache smaller. `rotation` takes queries or keys, (B, heads, T, W), and the
    first position, and returns the same shape.
    """

    def __init__(
        self, width: int, heads: int, kv_heads: int, head_width: int, biases: bool, rotation: nn.Module
    ) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_width = heads, kv_heads, head_width
        self.inputs = nn.Linear(width, (heads + 2 * kv_heads) * head_width, bias=biases)
        self.output = nn.Linear(heads * head_width, width, bias=biases)
        self.rotation = rotation

    def new_cache(self, rows: int, capacity: int, dtype: torch.dtype) -> KVCache:
        """An empty cache for `rows` sequences of at most `capacity` positions."""
        shape, device = (rows, self.kv_heads, capacity, self.head_width), self.inputs.weight.device
        return KVCache(torch.zeros(shape, dtype=dtype, device=device), torch.zeros(shape, dtype=dtype, device=device))

    def forward(self, x: Tensor, start: int = 0, cache: KVCache | None = None, seen: Tensor | None = None) -> Tensor:
        """(B, T, D) -> (B, T, D). With a cache the T new positions follow the `start` positions in it.

        Several new positions attend only to each other, which is correct for `start` = 0. With `seen`, (B, T) of
        booleans, every position attends to all positions for which it is true: bidirectional, without a cache.
        """
        b, t, _ = x.shape
        heads = self.inputs(x).view(b, t, -1, self.head_width).transpose(1, 2)  # (B, H + 2G, T, W)
        qk, v = heads.split((self.heads + self.kv_heads, self.kv_heads), dim=1)
        q, k = self.rotation(qk, start).split((self.heads, self.kv_heads), dim=1)
        if cache is not None:
            cache.append(k, v, start)
            if t == 1:
                y = self._attend_to_cache(q, start, cache)
                return self.output(y.reshape(b, 1, -1))  # type: ignore[no-any-return]
        if self.kv_heads < self.heads:
            k, v = (part.repeat_interleave(self.heads // self.kv_heads, dim=1) for part in (k, v))
        if x.device.type == "cpu":  # for sequences as short as a molecule this takes half the time of the fused kernel
            if seen is None:
                hidden = torch.full((t, t), -math.inf).triu(1)
            else:
                hidden = torch.zeros(b, 1, 1, t).masked_fill_(~seen[:, None, None, :], -math.inf)
            y = ((q * self.head_width**-0.5 @ k.transpose(2, 3)).float() + hidden).softmax(dim=-1) @ v
        else:
            mask = None if seen is None else seen[:, None, None, :]
            y = scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=seen is None)
        return self.output(y.transpose(1, 2).reshape(b, t, -1))  # type: ignore[no-any-return]

    def _attend_to_cache(self, q: Tensor, start: int, cache: KVCache) -> Tensor:
        """The query of position `start`, (B, H, 1, W), sees the cache up to itself -> (B, G, H / G, W)."""
        q = q.reshape(len(q), self.kv_heads, -1, self.head_width).to(cache.keys.dtype)
        with torch.autocast(q.device.type, enabled=False):
            scores = q @ cache.keys.transpose(2, 3) * self.head_width**-0.5  # (B, G, H / G, capacity)
            scores[..., start + 1 :] = -math.inf
            y: Tensor = scores.softmax(dim=-1) @ cache.values
        return y
