"""Linear attention: keys and values are summed up, so that neither time per position nor state grows with the length.

Shapes: B molecules, T positions, H heads, G heads of keys and values, R = H / G, W head width, M features, N chunks, C
positions of a chunk.
"""

from typing import NamedTuple, Self

import torch
from torch import Tensor
from torch.nn.functional import elu, pad

from molgen.model.attention import SelfAttention

_CHUNK = 128
_SMALLEST = 1e-30  # of a denominator, so that it is never 0


class LinearAttention(SelfAttention):
    """y_t = φ(q_t) Σ φ(k_j)ᵀ v_j / φ(q_t) Σ φ(k_j) over j up to t, φ = elu + 1 (Katharopoulos et al. 2020).

    Rotary positions rotate φ(q) and φ(k) above the line only, as Su et al. 2021 (RoFormer, section 3.3) do: below it,
    the sum stays positive. Deviation from both: sums are float32 whatever the precision.
    """

    def new_cache(self, rows: int, capacity: int, dtype: torch.dtype) -> "RunningSums":  # noqa: ARG002
        """Sums of no positions yet."""
        return RunningSums.zeros(rows, self.kv_heads, self.head_width, self.head_width, self.inputs.weight)

    def forward(self, x: Tensor, start: int = 0, cache: "RunningSums | None" = None) -> Tensor:
        """(B, T, D) -> (B, T, D). With a cache the T new positions follow the `start` positions in its sums."""
        qk, v = self.projected(x)
        with torch.autocast(x.device.type, enabled=False):
            features = elu(at_least_float32(qk)) + 1
            heads = [self.heads, self.kv_heads]
            above = Features(*torch.split(self.rotation(features, start), heads, dim=1))
            y = kernel_attention(above, Features(*torch.split(features, heads, dim=1)), at_least_float32(v), cache)
        return self.joined(y.to(v.dtype))


class Features(NamedTuple):
    """Features of queries and keys; their products are the weights of the values."""

    queries: Tensor  # (B, H, T, M)
    keys: Tensor  # (B, G, T, M)


class RunningSums(NamedTuple):
    """Sums over the positions so far. Written in place, so for sampling and not for gradients."""

    products: Tensor  # (B, G, M, W) of keys' features x values
    features: Tensor  # (B, G, M) of keys' features

    @classmethod
    def zeros(cls, rows: int, heads: int, features: int, head_width: int, like: Tensor) -> Self:
        """Sums of no positions, on the device of `like`, float32 or its wider type."""
        dtype = torch.promote_types(like.dtype, torch.float32)
        shape = (rows, heads, features)
        return cls(
            torch.zeros(*shape, head_width, dtype=dtype, device=like.device),
            torch.zeros(shape, dtype=dtype, device=like.device),
        )

    def select_rows(self, rows: Tensor, capacity: int) -> Self:  # noqa: ARG002
        """The sums of some rows only, given by index (K,); their size does not depend on the capacity."""
        return self._replace(products=self.products[rows], features=self.features[rows])


def at_least_float32(x: Tensor) -> Tensor:
    """The tensor in float32, or in its wider type."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def kernel_attention(above: Features, below: Features, v: Tensor, cache: RunningSums | None) -> Tensor:
    """Values (B, G, T, W) averaged with the products of features as weights, over all positions up to each's own.

    `above` gives the weights of the values, `below` those that the sum is divided by. Returns (B, H, T, W). With a
    cache the T positions follow those in its sums; they are added to it.
    """
    groups = (v.shape[0], v.shape[1], -1, v.shape[2])
    q, q_below = (f.queries.reshape(*groups, f.queries.shape[3]) for f in (above, below))  # (B, G, R, T, M)
    if cache is not None and v.shape[2] == 1:
        cache.products.add_(above.keys.transpose(2, 3) @ v)
        cache.features.add_(below.keys[:, :, 0])
        values, weights = q @ cache.products[:, :, None], q_below @ cache.features[:, :, None, :, None]
    else:
        values, products = _causal_products(q, above.keys, v)
        weights = (q_below * below.keys.cumsum(dim=2)[:, :, None]).sum(dim=-1, keepdim=True)  # (B, G, R, T, 1)
        if cache is not None:
            cache.products.copy_(products)
            cache.features.copy_(below.keys.sum(dim=2))
    return torch.div(values, weights.clamp(min=_SMALLEST)).flatten(1, 2)


def _causal_products(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """(Σ (q_t · k_j) v_j over j up to t, (B, G, R, T, W); Σ k_jᵀ v_j over all j, (B, G, M, W)).

    Within a chunk by a matrix of all products, of the chunks before it by their summed k_jᵀ v_j.
    """
    t = v.shape[2]
    size = min(_CHUNK, t)
    q, k, v = (  # (…, N, C, M or W)
        pad(x, (0, 0, 0, -t % size)).view(*x.shape[:-2], -1, size, x.shape[-1]) for x in (q, k, v)
    )
    sums = (k.transpose(3, 4) @ v).cumsum(dim=2)  # (B, G, N, M, W)
    before = pad(sums, (0, 0, 0, 0, 1, -1))
    within = (q @ k.transpose(3, 4)[:, :, None]).tril() @ v[:, :, None]
    y = within + q @ before[:, :, None]
    return y.flatten(3, 4)[:, :, :, :t], sums[:, :, -1]
