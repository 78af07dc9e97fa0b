"""Reformer's attention: a position attends to earlier ones that fall into its own hash bucket.

Shapes: B molecules, T positions, D width, H heads, W head width, R rounds of hashing, K buckets, M keys of a bucket
that are seen, N chunks, C positions of a chunk.
"""

import math
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, pad

from molgen.model.window import chunked, with_chunk_before

_ITSELF = -1e5  # the score of a position for itself, as in the paper: it counts only where there is nothing else


class ReformerAttention(nn.Module):
    """Locality-sensitive hashing attention (Kitaev et al. 2020): queries are keys too, hashed by random directions.

    The bucket of x is the argmax of [x R; −x R]. The results of several rounds are weighted by their logsumexp.
    Rotary positions rotate what attends, not what is hashed, so equal contents share a bucket at every distance.

    Deviations: a position sees the last M earlier ones of its bucket. In the paper it sees those in its own chunk of
    the sorted positions and in the chunk before, and a later token moves the borders of the chunks. A key that is found
    in several rounds counts in each. R is drawn once, as part of the weights. Near a border between two buckets,
    rounding decides the bucket: in half precision, step by step and parallel may differ there.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        head_width: int,
        biases: bool,
        rotation: nn.Module,
        bucket_window: int,
        buckets: int,
        rounds: int,
    ) -> None:
        super().__init__()
        self.heads, self.head_width, self.bucket_window = heads, head_width, bucket_window
        self.inputs = nn.Linear(width, 2 * heads * head_width, bias=biases)
        self.output = nn.Linear(heads * head_width, width, bias=biases)
        self.rotation = rotation
        self.directions = nn.Parameter(_gaussians(rounds, head_width, buckets // 2), requires_grad=False)  # (R, W, K/2)

    def new_cache(self, rows: int, capacity: int, dtype: torch.dtype) -> "BucketCache":
        """Empty buckets for `rows` sequences; none has more than M places."""
        rounds, width, half = self.directions.shape
        shape = (rows, self.heads, rounds, 2 * half)
        device, places = self.inputs.weight.device, min(capacity, self.bucket_window)
        keys = torch.zeros(*shape, places, width, dtype=dtype, device=device)
        counts = torch.zeros(shape, dtype=torch.long, device=device)
        return BucketCache(keys, torch.zeros_like(keys), counts, self.bucket_window)

    def forward(self, x: Tensor, start: int = 0, cache: "BucketCache | None" = None) -> Tensor:
        """(B, T, D) -> (B, T, D). With a cache the T new positions follow the `start` positions that it has seen."""
        b, t, _ = x.shape
        hashed, v = self.inputs(x).view(b, t, 2, self.heads, -1).permute(2, 0, 3, 1, 4)  # (B, H, T, W)
        buckets = self._buckets(hashed)  # (B, H, R, T)
        q = self.rotation(hashed, start)
        k = normalize(q, dim=-1)
        q = q * self.head_width**-0.5
        if cache is not None:
            y = torch.cat(
                [cache.attended(q[..., i, :], k[..., i, :], v[..., i, :], buckets[..., i]) for i in range(t)], 2
            )
        else:
            y = self._parallel(q, k, v, buckets)
        return self.output(y.to(v.dtype).transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    @torch.no_grad()
    def _buckets(self, x: Tensor) -> Tensor:
        """(B, H, T, W) -> the number of each position's bucket in each round, (B, H, R, T)."""
        with torch.autocast(x.device.type, enabled=False):
            projected = x[:, :, None].to(_wide(x)) @ self.directions.to(_wide(x))  # (B, H, R, T, K / 2)
        return torch.cat((projected, -projected), dim=-1).argmax(dim=-1)

    def _parallel(self, q: Tensor, k: Tensor, v: Tensor, buckets: Tensor) -> Tensor:
        """Queries, keys, values (B, H, T, W) and buckets (B, H, R, T) -> (B, H, T, W)."""
        t = q.shape[2]
        values, totals = [], []
        for number in buckets.unbind(dim=2):  # (B, H, T), one round
            order = (number * t + torch.arange(t, device=q.device)).argsort(dim=-1)  # by bucket, then by position
            ordered = _picked(q, order), _picked(k, order), _picked(v, order)
            y, total = self._in_order(*ordered, number.gather(2, order))
            back = order.argsort(dim=-1)
            values.append(_picked(y, back))
            totals.append(total.gather(2, back))
        weights = torch.stack(totals).softmax(dim=0)  # (R, B, H, T)
        return (weights[..., None] * torch.stack(values)).sum(dim=0)

    def _in_order(self, q: Tensor, k: Tensor, v: Tensor, buckets: Tensor) -> tuple[Tensor, Tensor]:
        """All sorted by bucket, (B, H, T, W) and (B, H, T) -> values (B, H, T, W), logsumexp of their scores (B, H, T).

        In this order the last M of a bucket are neighbours: a window, cut off where the bucket begins.
        """
        t, size = q.shape[2], min(self.bucket_window, q.shape[2])
        q = chunked(q, size)
        scores = q @ with_chunk_before(chunked(k, size)).transpose(3, 4)  # (B, H, N, C, 2C)
        own = pad(buckets, (0, -t % size), value=-1).view(*buckets.shape[:2], -1, size)  # (B, H, N, C)
        seen = torch.cat((pad(own, (0, 0, 1, -1), value=-2), own), dim=3)  # (B, H, N, 2C)
        place = torch.arange(2 * size, device=q.device)
        distance = place[size:, None] - place  # (C, 2C)
        unseen = (own[..., None] != seen[..., None, :]) | (distance < 0) | (distance > self.bucket_window)
        scores = scores.to(_wide(scores)).masked_fill(unseen, -math.inf).masked_fill(distance == 0, _ITSELF)
        y = scores.softmax(dim=-1) @ with_chunk_before(chunked(v, size)).to(scores.dtype)
        return y.flatten(2, 3)[:, :, :t], scores.logsumexp(dim=-1).flatten(2, 3)[:, :, :t]


class BucketCache(NamedTuple):
    """Keys and values of the last M positions of each bucket: the i-th of a bucket is at place i modulo M."""

    keys: Tensor  # (B, H, R, K, places, W)
    values: Tensor
    counts: Tensor  # (B, H, R, K) positions so far
    bucket_window: int

    def attended(self, q: Tensor, k: Tensor, v: Tensor, buckets: Tensor) -> Tensor:
        """The next position's query, key and value (B, H, W) and its buckets (B, H, R) -> (B, H, 1, W); added."""
        q, k, v = (x[:, :, None, None].to(self.keys.dtype) for x in (q, k, v))  # (B, H, 1, 1, W)
        places, width = self.keys.shape[4:]
        index = buckets[..., None, None, None].expand(*buckets.shape, 1, places, width)
        keys, values = (x.gather(3, index).squeeze(3) for x in (self.keys, self.values))  # (B, H, R, places, W)
        count = self.counts.gather(3, buckets[..., None])  # (B, H, R, 1)
        with torch.autocast(q.device.type, enabled=False):
            scores = (q @ keys.transpose(3, 4)).squeeze(3)  # (B, H, R, places)
            empty = torch.arange(places, device=q.device) >= count
            scores = torch.cat((scores.masked_fill(empty, -math.inf), torch.full_like(scores[..., :1], _ITSELF)), -1)
            values = torch.cat((values, v.expand(-1, -1, values.shape[2], -1, -1)), dim=3)
            y = scores.flatten(2).softmax(dim=-1)[:, :, None] @ values.flatten(2, 3)  # (B, H, 1, W)
        self._write(k, v, buckets, count[..., 0] % self.bucket_window)
        return y

    def _write(self, k: Tensor, v: Tensor, buckets: Tensor, places: Tensor) -> None:
        """Writes a key and a value (B, H, 1, 1, W) at a place (B, H, R) of each round's bucket (B, H, R)."""
        b, h, r = (torch.arange(n, device=k.device) for n in buckets.shape)
        where = (b[:, None, None], h[:, None], r, buckets, places)
        for part, new in ((self.keys, k), (self.values, v)):
            part[where] = new[:, :, 0].expand(-1, -1, len(r), -1)
        self.counts[where[:4]] += 1

    def select_rows(self, rows: Tensor, capacity: int) -> Self:
        """A copy of some rows only, given by index (K,); until buckets have M places they grow with `capacity`."""
        more = max(0, min(capacity, self.bucket_window) - self.keys.shape[4])
        keys, values = (pad(part[rows], (0, 0, 0, more)) for part in (self.keys, self.values))
        return self._replace(keys=keys, values=values, counts=self.counts[rows])


def _picked(x: Tensor, places: Tensor) -> Tensor:
    """(B, H, T, W) in the order of `places`, (B, H, T)."""
    return x.gather(2, places[..., None].expand_as(x))


def _gaussians(rounds: int, width: int, half: int) -> Tensor:
    """(R, W, K / 2) Gaussian directions; on the meta device a shape only."""
    shape = (rounds, width, half)
    return torch.empty(shape) if torch.get_default_device().type == "meta" else torch.randn(shape)


def _wide(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)
