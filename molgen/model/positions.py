"""How a token knows its position: added to its embedding (learned, sinusoidal) or rotating queries and keys (rotary).

Shapes: B molecules, T positions, D width, H heads, W head width. `start` is the position of the first of the T.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn


class Unchanged(nn.Module):
    """No position information at this place."""

    def forward(self, x: Tensor, start: int) -> Tensor:  # noqa: ARG002
        return x


class LearnedPositions(nn.Module):
    """A trained vector per position, added."""

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
        table = _table(positions, width, lambda angles: torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1))
        self.register_buffer("table", table, persistent=False)

    def forward(self, x: Tensor, start: int) -> Tensor:  # (B, T, D) -> (B, T, D)
        return x + self.table[start : start + x.shape[1]]


class RotaryPositions(nn.Module):
    """Rotates pairs of components of queries and keys, by angles that grow with the position (Su et al. 2021)."""

    cosines: Tensor
    sines: Tensor

    def __init__(self, positions: int, head_width: int) -> None:
        super().__init__()
        cosines = _table(positions, head_width, lambda angles: torch.cat((angles.cos(), angles.cos()), dim=-1))
        sines = _table(positions, head_width, lambda angles: torch.cat((-angles.sin(), angles.sin()), dim=-1))
        self.register_buffer("cosines", cosines, persistent=False)
        self.register_buffer("sines", sines, persistent=False)

    def forward(self, x: Tensor, start: int) -> Tensor:  # (B, H, T, W) -> (B, H, T, W)
        cosines = self.cosines[start : start + x.shape[2]].to(x.dtype)  # (T, W)
        sines = self.sines[start : start + x.shape[2]].to(x.dtype)
        first, second = x.chunk(2, dim=-1)
        return x * cosines + torch.cat((second, first), dim=-1) * sines


def _table(positions: int, width: int, of_angles: Callable[[Tensor], Tensor]) -> Tensor:
    """A table (positions, width) of functions of the angles (positions, width / 2); on the meta device its shape only.

    There, arithmetic imports 800 modules, which takes a second.
    """
    if torch.get_default_device().type == "meta":
        return torch.empty(positions, width)
    frequencies = torch.exp(torch.arange(0, width, 2) * (-math.log(10_000.0) / width))  # (width / 2,)
    return of_angles(torch.arange(positions)[:, None] * frequencies)
