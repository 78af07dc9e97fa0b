"""How a token knows its position: added to its embedding (learned, sinusoidal) or turning queries and keys (rotary).

Shapes: B molecules, T positions, D width, H heads, W head width. `start` is the position of the first of the T.
"""

import math

import torch
from torch import Tensor, nn


class Unchanged(nn.Module):
    """No position information at this place."""

    def forward(self, x: Tensor, start: int) -> Tensor:  # noqa: ARG002
        return x


class LearnedPositions(nn.Module):
    """A trained vector a position, added."""

    def __init__(self, positions: int, width: int) -> None:
        super().__init__()
        self.table = nn.Embedding(positions, width)

    def forward(self, x: Tensor, start: int) -> Tensor:  # (B, T, D) -> (B, T, D)
        return x + self.table.weight[start : start + x.shape[1]]


class SinusoidalPositions(nn.Module):
    """Fixed sines and cosines, added (Vaswani et al. 2017, section 3.5)."""

    table: Tensor

    def __init__(self, positions: int, width: int) -> None:
        super().__init__()
        angles = _angles(positions, width)  # (positions, D / 2)
        table = torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)
        self.register_buffer("table", table, persistent=False)

    def forward(self, x: Tensor, start: int) -> Tensor:  # (B, T, D) -> (B, T, D)
        return x + self.table[start : start + x.shape[1]]


class RotaryPositions(nn.Module):
    """Turns pairs of a query's or key's components by angles that grow with the position (Su et al. 2021, RoFormer)."""

    cosines: Tensor
    sines: Tensor

    def __init__(self, positions: int, head_width: int) -> None:
        super().__init__()
        angles = _angles(positions, head_width)  # (positions, W / 2)
        self.register_buffer("cosines", torch.cat((angles.cos(), angles.cos()), dim=-1), persistent=False)
        self.register_buffer("sines", torch.cat((-angles.sin(), angles.sin()), dim=-1), persistent=False)

    def forward(self, x: Tensor, start: int) -> Tensor:  # (B, H, T, W) -> (B, H, T, W)
        cosines = self.cosines[start : start + x.shape[2]].to(x.dtype)  # (T, W)
        sines = self.sines[start : start + x.shape[2]].to(x.dtype)
        first, second = x.chunk(2, dim=-1)
        return x * cosines + torch.cat((second, first), dim=-1) * sines


def _angles(positions: int, width: int) -> Tensor:
    frequencies = torch.exp(torch.arange(0, width, 2) * (-math.log(10_000.0) / width))  # (width / 2,)
    return torch.arange(positions)[:, None] * frequencies
