"""Values that a molecule should have → a vector that is added to each token's embedding.

Shapes: B molecules, C conditions, D width.

Each condition has a small network of its own, and their vectors are summed: so any subset works, in any order, and
none of them is the zero vector, which is the unconditional model. The last layers begin at zero: a pre-trained model
with new conditions is that model until its first step. The sum is added at every position, not put in front as a token:
positions, caches and prompts stay as they are, and attention that sees a window only does not lose sight of it.
"""

import math

import torch
from torch import Tensor, nn

_FREQUENCIES = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Radians per standard deviation: the fastest tells values of a fifth of a standard deviation well apart."""
_HIDDEN = 64
_FEATURES = 3 + 2 * len(_FREQUENCIES)
_FARTHEST = 10.0  # standard deviations; what is farther is taken for this


class ConditionEmbedding(nn.Module):
    """Standardised values, (B, C), NaN where none is given, and their sides -> (B, 1, D)."""

    def __init__(self, conditions: int, width: int) -> None:
        super().__init__()
        self.inputs = nn.Parameter(torch.empty(conditions, _FEATURES, _HIDDEN))
        self.biases = nn.Parameter(torch.zeros(conditions, _HIDDEN))
        self.outputs = nn.Parameter(torch.zeros(conditions, _HIDDEN, width))
        nn.init.normal_(self.inputs, std=1 / math.sqrt(_FEATURES))

    def forward(self, values: Tensor, sides: Tensor) -> Tensor:
        """`sides`, (B, C): 1 if the true value is above the given one, −1 if below, 0 if it is the value."""
        with torch.autocast(values.device.type, enabled=False):  # bf16 would round a value to three digits
            given = ~torch.isnan(values)
            z = torch.nan_to_num(values).clamp(-_FARTHEST, _FARTHEST)
            angles = z[..., None] * torch.tensor(_FREQUENCIES, device=z.device, dtype=z.dtype)
            parts = [z[..., None], (sides > 0)[..., None], (sides < 0)[..., None], angles.sin(), angles.cos()]
            features = torch.cat([part.to(self.inputs.dtype) for part in parts], dim=-1)  # (B, C, features)
            hidden = torch.einsum("bcf,cfh->bch", features, self.inputs) + self.biases
            vectors = torch.einsum("bch,chd->bcd", nn.functional.gelu(hidden), self.outputs)
            return (vectors * given[..., None]).sum(dim=1, keepdim=True)
