"""The keys and values of one block's attention for the positions decoded so far.

Shapes: B molecules, G heads of keys and values, T positions, W head width.
"""

from typing import NamedTuple, Self

import torch
from torch import Tensor


class KVCache(NamedTuple):
    """Keys and values of the positions so far, then zeros for the positions to come.

    Written in place, so it is for sampling and not for gradients.
    """

    keys: Tensor  # (B, G, capacity, W)
    values: Tensor  # (B, G, capacity, W)

    @classmethod
    def empty(cls, shape: tuple[int, int, int, int], dtype: torch.dtype, device: torch.device) -> Self:
        """A cache of zeros, (B, G, capacity, W)."""
        return cls(torch.zeros(shape, dtype=dtype, device=device), torch.zeros(shape, dtype=dtype, device=device))

    @property
    def capacity(self) -> int:
        """Positions that the cache has memory for."""
        return self.keys.shape[2]

    def append(self, keys: Tensor, values: Tensor, start: int) -> None:
        """Writes the keys and values (B, G, T, W) of the positions from `start` on."""
        self.keys[:, :, start : start + keys.shape[2]] = keys
        self.values[:, :, start : start + values.shape[2]] = values

    def select_rows(self, rows: Tensor, capacity: int) -> Self:
        """A copy of some rows only, given by index (K,), with memory for `capacity` positions, not fewer than now."""

        def copy(part: Tensor) -> Tensor:
            result = part.new_empty(len(rows), part.shape[1], capacity, part.shape[3])
            torch.index_select(part, 0, rows, out=result[:, :, : self.capacity])
            result[:, :, self.capacity :] = 0
            return result

        return self._replace(keys=copy(self.keys), values=copy(self.values))
