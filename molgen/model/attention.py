"""Causal multi-head self-attention, in parallel over a sequence or step by step over a memory of keys and values."""

from typing import NamedTuple

from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention


class Memory(NamedTuple):
    """Keys and values of one block for the positions decoded so far, with room for more; written in place."""

    keys: Tensor  # (B, H, room, W)
    values: Tensor  # (B, H, room, W)


class CausalSelfAttention(nn.Module):
    """Attention whose heads have a width of their own, so that heads x head_width need not be the model's width.

    `rotation` sees queries and keys, (B, H, T, W) and the first position, and gives back the same shape.
    """

    def __init__(self, width: int, heads: int, head_width: int, biases: bool, rotation: nn.Module) -> None:
        super().__init__()
        self.heads, self.head_width = heads, head_width
        self.inputs = nn.Linear(width, 3 * heads * head_width, bias=biases)
        self.output = nn.Linear(heads * head_width, width, bias=biases)
        self.rotation = rotation

    def forward(self, x: Tensor, start: int = 0, memory: Memory | None = None) -> Tensor:
        """(B, T, D) -> (B, T, D). With a memory the T new positions follow the `start` ones that it holds."""
        b, t, _ = x.shape
        q, k, v = self.inputs(x).view(b, t, 3, self.heads, self.head_width).permute(2, 0, 3, 1, 4)  # (B, H, T, W) each
        q, k = self.rotation(q, start), self.rotation(k, start)
        if memory is not None:
            memory.keys[:, :, start : start + t] = k
            memory.values[:, :, start : start + t] = v
            k, v = memory.keys[:, :, : start + t], memory.values[:, :, : start + t]  # (B, H, start + T, W)
        # One new position sees all the others; several see each other causally, which needs start = 0.
        y = scaled_dot_product_attention(q, k, v, is_causal=t > 1)  # (B, H, T, W)
        return self.output(y.transpose(1, 2).reshape(b, t, self.heads * self.head_width))  # type: ignore[no-any-return]
