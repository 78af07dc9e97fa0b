"""Causal multi-head self-attention, in parallel over a sequence or step by step over a memory of keys and values.

Shapes: B molecules, T positions, D width, H heads, G heads of keys and values, W head width.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention


class Memory(NamedTuple):
    """Keys and values of one block for the positions decoded so far, with room for more; written in place."""

    keys: Tensor  # (B, G, room, W)
    values: Tensor  # (B, G, room, W)


class CausalSelfAttention(nn.Module):
    """Attention whose heads have a width of their own, so that heads x head_width need not be the model's width.

    With fewer heads of keys and values than of queries, H / G neighbouring queries share one (grouped-query attention,
    Ainslie et al. 2023): a smaller memory. `rotation` sees queries and keys, (B, heads, T, W) and the first position,
    and gives back the same shape.
    """

    def __init__(
        self, width: int, heads: int, kv_heads: int, head_width: int, biases: bool, rotation: nn.Module
    ) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_width = heads, kv_heads, head_width
        self.inputs = nn.Linear(width, (heads + 2 * kv_heads) * head_width, bias=biases)
        self.output = nn.Linear(heads * head_width, width, bias=biases)
        self.rotation = rotation

    def forward(self, x: Tensor, start: int = 0, memory: Memory | None = None) -> Tensor:
        """(B, T, D) -> (B, T, D). With a memory the T new positions follow the `start` ones that it holds."""
        b, t, _ = x.shape
        heads = self.inputs(x).view(b, t, -1, self.head_width).transpose(1, 2)  # (B, H + 2G, T, W)
        qk, v = heads.split((self.heads + self.kv_heads, self.kv_heads), dim=1)
        q, k = self.rotation(qk, start).split((self.heads, self.kv_heads), dim=1)
        if memory is not None:
            memory.keys[:, :, start : start + t] = k
            memory.values[:, :, start : start + t] = v
        if memory is not None and t == 1:  # the new position sees all others
            q = q.reshape(b, self.kv_heads, -1, self.head_width).to(memory.keys.dtype)
            with torch.autocast(x.device.type, enabled=False):
                scores = q @ memory.keys.transpose(2, 3) * self.head_width**-0.5  # (B, G, H / G, room)
                scores[..., start + 1 :] = -math.inf
                y = scores.softmax(dim=-1) @ memory.values
            return self.output(y.reshape(b, 1, -1))  # type: ignore[no-any-return]
        # several new positions see each other causally, which needs start = 0
        if self.kv_heads < self.heads:
            k, v = (part.repeat_interleave(self.heads // self.kv_heads, dim=1) for part in (k, v))
        if x.device.type == "cpu":  # at a molecule's length plain products take half the time of the fused kernel
            later = torch.full((t, t), -math.inf).triu(1)
            y = ((q * self.head_width**-0.5 @ k.transpose(2, 3)).float() + later).softmax(dim=-1) @ v
        else:
            y = scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.output(y.transpose(1, 2).reshape(b, t, -1))  # type: ignore[no-any-return]
