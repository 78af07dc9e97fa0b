"""Performer's attention: softmax attention by random features, with sums in place of a cache.

Shapes: B molecules, T positions, H heads, G heads of keys and values, W head width, M features.
"""

import math

import torch
from torch import Tensor, nn

from molgen.model.attention import SelfAttention
from molgen.model.linear import Features, RunningSums, at_least_float32, kernel_attention


class PerformerAttention(SelfAttention):
    """FAVOR+ (Choromanski et al. 2021): exp(q · k / √W) is the mean of φ(q) φ(k), φ(x) = exp(w x − |x|² / 2).

    x is q or k times W^(-1/4); the w are Gaussian vectors, orthogonal in blocks. Rotary positions rotate q and k before
    φ, so the approximated weights are those of full attention with rotary positions.

    Deviations: the w are drawn once, as part of the weights, and not again during the training. The exponents are not
    made smaller by their maximum over the sequence, which would show a position what follows it: those of a query by
    its own maximum, which cancels, and those of the keys by a quarter of the largest |w|², a constant (they are at most
    half of it). Sums are float32 whatever the precision.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        kv_heads: int,
        head_width: int,
        biases: bool,
        rotation: nn.Module,
        features: int | None,
    ) -> None:
        super().__init__(width, heads, kv_heads, head_width, biases, rotation)
        count = features or usual_features(head_width)
        self.projection = nn.Parameter(_orthogonal_gaussians(count, head_width), requires_grad=False)  # (M, W)

    def new_cache(self, rows: int, capacity: int, dtype: torch.dtype) -> RunningSums:  # noqa: ARG002
        """Sums of no positions yet."""
        return RunningSums.zeros(rows, self.kv_heads, len(self.projection), self.head_width, self.inputs.weight)

    def forward(self, x: Tensor, start: int = 0, cache: RunningSums | None = None) -> Tensor:
        """(B, T, D) -> (B, T, D). With a cache the T new positions follow the `start` positions in its sums."""
        q, k, v = self.queries_keys_values(x, start)
        with torch.autocast(x.device.type, enabled=False):
            exponents = self._exponents(q)
            largest = self.projection.square().sum(dim=1).max()
            features = Features(
                (exponents - exponents.amax(dim=-1, keepdim=True).detach()).exp(),
                (self._exponents(k) - largest / 4).exp(),
            )
            y = kernel_attention(features, features, at_least_float32(v), cache)
        return self.joined(y.to(v.dtype))

    def _exponents(self, x: Tensor) -> Tensor:
        """Queries or keys (B, heads, T, W) -> (B, heads, T, M)."""
        x = at_least_float32(x) * self.head_width**-0.25
        return x @ self.projection.T - x.square().sum(dim=-1, keepdim=True) / 2


def usual_features(head_width: int) -> int:
    """W ln W features, to the next multiple of 8."""
    return max(8, -(-round(head_width * math.log(head_width)) // 8) * 8)


def _orthogonal_gaussians(count: int, width: int) -> Tensor:
    """(count, width) Gaussian vectors; each `width` consecutive ones are orthogonal. On the meta device a shape only.

    The lengths are those of independent Gaussian vectors.
    """
    if torch.get_default_device().type == "meta":
        return torch.empty(count, width)
    blocks = [_random_rotation(width) for _ in range(-(-count // width))]
    lengths = torch.randn(count, width).norm(dim=1, keepdim=True)
    return torch.mul(torch.cat(blocks)[:count], lengths)


def _random_rotation(width: int) -> Tensor:
    """An orthogonal matrix, all equally probable: the signs that QR chooses would prefer some (Mezzadri 2007)."""
    q, r = torch.linalg.qr(torch.randn(width, width))
    return torch.mul(q, r.diag().sign()).T
