"""Tanimoto similarity of many fingerprints, packed eight bits a byte: nearest neighbours, internal diversity, #Circles.

The number of bits that two fingerprints share is, for all references at once, the sum of the reference columns at the
bits that the query has: some 45 rows of the bit matrix instead of a product over all 1,024. bfloat16 counts exactly up
to 256, so it is used where no fingerprint has more bits.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from molgen.runtime.bars import Bar

Packed = npt.NDArray[np.uint8]
_QUERIES, _REFERENCES = 512, 4096
_EXACT_IN_BFLOAT16 = 256


class RowSimilarity(NamedTuple):
    """Of each molecule with its own set, (n,) each."""

    mean: npt.NDArray[np.float64]
    """Mean Tanimoto similarity to all, itself included."""
    mean_square: npt.NDArray[np.float64]
    nearest_other: npt.NDArray[np.float64]
    """Highest similarity to any other; 0 for a set of one."""


def nearest(queries: Packed, references: Packed, description: str = "") -> npt.NDArray[np.float32]:
    """Highest Tanimoto similarity of each query (n, bytes) to any reference (m, bytes), (n,)."""
    query_order, ones = _by_bits(queries)
    result = np.zeros(len(queries), np.float32)
    reference_order, reference_ones = _by_bits(references)
    values, starts = np.unique(reference_ones, return_index=True)
    groups = list(zip(values.tolist(), starts.tolist(), [*starts[1:].tolist(), len(references)], strict=True))
    # Among references with the same number of bits the most similar is the one that shares most bits: one maximum
    # instead of a division for each pair. The common sizes come first, then many others need not be looked at.
    groups.sort(key=lambda group: group[1] - group[2])
    batches = list(_bags(queries[query_order], ones))
    with Bar(total=len(references), desc=description, unit="ref", delay=1) as bar:
        for size, start, stop in groups:
            for first in range(start, stop, _REFERENCES):
                rows = reference_order[first : min(first + _REFERENCES, stop)]
                columns = _columns(references[rows], max(int(ones.max(initial=0)), size))
                for bag in batches:
                    best = result[bag.rows]
                    bound = np.minimum(bag.ones, size) / np.maximum(np.maximum(bag.ones, size), 1)
                    if (bound <= best).all() and size:
                        continue
                    shared = bag.sum(columns).amax(1).float().numpy()
                    union = bag.ones + size - shared
                    # two fingerprints without a bit are alike, as MOSES' code has it
                    result[bag.rows] = np.maximum(best, np.where(union > 0, shared / np.maximum(union, 1), 1))
                bar.update(len(rows))
    back = np.empty_like(result)
    back[query_order] = result
    return back


def neighbours(queries: Packed, references: Packed) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """(similarity, index) of each query's most similar reference, the first of equals, (n,) each."""
    similarity, index = np.full(len(queries), -1, np.float32), np.zeros(len(queries), np.int64)
    ones = _ones(queries)
    most = max(int(ones.max(initial=0)), int(_ones(references).max(initial=0)))
    batches = list(_bags(queries, ones))
    for first in range(0, len(references), _REFERENCES):
        block = references[first : first + _REFERENCES]
        columns, theirs = _columns(block, most), torch.from_numpy(_ones(block)).float()
        for bag in batches:
            best, where = _tanimoto(bag, columns, theirs).max(1)
            better = best.numpy() > similarity[bag.rows]
            similarity[bag.rows] = np.where(better, best.numpy(), similarity[bag.rows])
            index[bag.rows] = np.where(better, where.numpy() + first, index[bag.rows])
    return similarity, index


def within(fingerprints: Packed, description: str = "") -> RowSimilarity:
    """The similarities of a set (n, bytes) with itself."""
    n = len(fingerprints)
    total, squares, other = np.zeros(n), np.zeros(n), np.zeros(n)
    ones = _ones(fingerprints)
    batches = list(_bags(fingerprints, ones))
    with Bar(total=n, desc=description, unit="mol", delay=1) as bar:
        for first in range(0, n, _REFERENCES):
            block = fingerprints[first : first + _REFERENCES]
            columns = _columns(block, int(ones.max(initial=0)))
            theirs = torch.from_numpy(_ones(block)).float()
            for bag in batches:
                # Each pair once: rows of this block and before it, columns after them count for both.
                if bag.rows.start >= first + len(block):
                    break
                skip = max(bag.rows.start - first, 0)
                similarity = _tanimoto(bag, columns[:, skip:].contiguous() if skip else columns, theirs[skip:])
                rows = slice(bag.rows.start, bag.rows.stop)
                after = slice(max(rows.stop, first), first + len(block))
                square = similarity.square()
                total[rows] += similarity.sum(1).numpy()
                squares[rows] += square.sum(1).numpy()
                later = after.start - first - skip
                total[after] += similarity[:, later:].sum(0).numpy()
                squares[after] += square[:, later:].sum(0).numpy()
                if skip or rows.start == first:
                    similarity[:, :later].fill_diagonal_(0)
                other[rows] = np.maximum(other[rows], similarity.amax(1).numpy())
                if after.start < after.stop:
                    other[after] = np.maximum(other[after], similarity[:, later:].amax(0).numpy())
            bar.update(len(block))
    return RowSimilarity(total / max(n, 1), squares / max(n, 1), other)


def circles(fingerprints: Packed, distance: float = 0.75) -> int:
    """#Circles: molecules picked one after the other, each at least `distance` (Tanimoto) from all picked before.

    A lower bound of the packing number that Xie et al. define (2023, ICLR, "How much space has been explored?").
    """
    words = np.ascontiguousarray(fingerprints).view(np.uint64)
    ones = _ones(fingerprints)
    picked = np.empty_like(words)
    sizes = np.empty(len(words), np.int64)
    count = 0
    for row, size in zip(words, ones, strict=True):
        shared = np.bitwise_count(picked[:count] & row).sum(1, dtype=np.int64)
        union = np.maximum(sizes[:count] + size - shared, 1)
        if not count or (shared / union).max() <= 1 - distance:
            picked[count], sizes[count] = row, size
            count += 1
    return count


def max_min(fingerprints: Packed, k: int) -> tuple[list[int], float]:
    """(up to `k` indices, the Tanimoto similarity of the two most similar picks).

    MaxMin (Kennard and Stone 1969; Ashton et al. 2002, Quant. Struct.-Act. Relat. 21:598): the first molecule, then
    always the one that is least similar to the most similar pick before it; the first of equals.
    """
    words = np.ascontiguousarray(fingerprints).view(np.uint64)
    ones = _ones(fingerprints)
    nearest = np.full(len(words), -1.0)  # similarity to the most similar pick
    picked: list[int] = []
    closest = 0.0
    while len(picked) < min(k, len(words)):
        chosen = int(nearest.argmin())
        closest = max(closest, float(nearest[chosen]))
        picked.append(chosen)
        shared = np.bitwise_count(words & words[chosen]).sum(1, dtype=np.int64)
        union = np.maximum(ones + ones[chosen] - shared, 1)
        nearest = np.maximum(nearest, shared / union)
        nearest[chosen] = np.inf
    return picked, closest


class _Bag(NamedTuple):
    """Some consecutive queries as lists of their bits."""

    rows: slice
    bits: torch.Tensor
    offsets: torch.Tensor
    ones: npt.NDArray[np.int64]

    def sum(self, columns: torch.Tensor) -> torch.Tensor:
        """Bits shared with each reference, (queries, references)."""
        return functional.embedding_bag(self.bits, columns, self.offsets, mode="sum")


def _bags(packed: Packed, ones: npt.NDArray[np.int64]) -> Iterator[_Bag]:
    for start in range(0, len(packed), _QUERIES):
        own = slice(start, min(start + _QUERIES, len(packed)))
        bits = torch.from_numpy(np.nonzero(np.unpackbits(packed[own], axis=1))[1])
        offsets = torch.from_numpy(np.concatenate([[0], np.cumsum(ones[own])[:-1]]))
        yield _Bag(own, bits, offsets, ones[own])


def _columns(block: Packed, most_ones: int) -> torch.Tensor:
    """The bit matrix of some references, (bits, references)."""
    exact = torch.bfloat16 if most_ones <= _EXACT_IN_BFLOAT16 else torch.float32
    # transposed while eight bits are still one byte, which is six times faster than afterwards
    packed = torch.from_numpy(np.array(block.T, order="C"))[:, None, :]
    shifts = torch.arange(7, -1, -1, dtype=torch.uint8)[None, :, None]
    return packed.bitwise_right_shift(shifts).bitwise_and_(1).reshape(-1, len(block)).contiguous().to(exact)


def _tanimoto(bag: _Bag, columns: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
    shared = bag.sum(columns).float()
    union = torch.from_numpy(bag.ones).float()[:, None] + theirs - shared
    # two fingerprints without a bit: 0 / 0 counts as 1, as in MOSES' code
    return shared.div_(union).nan_to_num_(nan=1.0)


def _ones(packed: Packed) -> npt.NDArray[np.int64]:
    counts: npt.NDArray[np.int64] = np.bitwise_count(packed).sum(1, dtype=np.int64)
    return counts


def _by_bits(packed: Packed) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """(order, ones in that order): neighbours in the order have similar numbers of bits."""
    ones = _ones(packed)
    order = np.argsort(ones, kind="stable")
    return order, ones[order]
