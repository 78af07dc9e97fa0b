"""Fingerprints of molecules (ECFP4 as counts), their similarity and the kernel of the support vectors."""

from base64 import b64decode
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from molgen.chem.pool import Workers

BITS = 2_048
_LEVELS = (1, 2, 3, 4, 6, 8)  # a count is a row of bits: at least so many
_AT_A_TIME = 4_096
Matrix = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Fingerprints:
    """ECFP4 (Rogers and Hahn 2010; Morgan, radius 2) of N molecules, folded to 2,048 counts."""

    counts: npt.NDArray[np.uint8]
    """(N, 2,048); zeros for a molecule that RDKit does not parse."""

    @classmethod
    def of(cls, smiles: Sequence[str], workers: Workers) -> "Fingerprints":
        """Computed by the workers."""
        counts = np.zeros((len(smiles), BITS), np.uint8)
        for i, parts in enumerate(workers.map("describe", smiles, "fingerprints", parts=("ecfp4_counts",))):
            if parts and "ecfp4_counts" in parts:
                counts[i] = np.frombuffer(b64decode(parts["ecfp4_counts"]), np.uint8)
        return cls(counts)

    def __len__(self) -> int:
        return len(self.counts)

    def rows(self, chosen: Indices) -> "Fingerprints":
        """Those of some molecules."""
        return Fingerprints(self.counts[chosen])

    @cached_property
    def bits(self) -> Matrix:
        """(N, 2,048) 0 or 1."""
        return (self.counts > 0).astype(np.float32)

    @cached_property
    def levels(self) -> Matrix:
        """(N, levels x 2,048) counts as bits."""
        return np.concatenate([self.counts >= level for level in _LEVELS], axis=1).astype(np.float32)

    @property
    def sparse(self) -> dict[str, npt.NDArray[np.integer]]:
        """The counts that are not zero, for a file."""
        rows, columns = np.nonzero(self.counts)
        ends = np.searchsorted(rows, np.arange(len(self) + 1))
        return {
            "columns": columns.astype(np.uint16),
            "counts": self.counts[rows, columns],
            "offsets": ends.astype(np.int64),
        }

    @classmethod
    def of_sparse(
        cls, columns: npt.NDArray[np.integer], counts: npt.NDArray[np.integer], offsets: Indices
    ) -> "Fingerprints":
        """From the arrays of `sparse`. Raises ValueError for arrays that do not fit together."""
        sound = len(offsets) > 0 and offsets[0] == 0 and offsets[-1] == len(columns) == len(counts)
        if not sound or (np.diff(offsets) < 0).any() or int(columns.max(initial=0)) >= BITS:
            raise ValueError("no fingerprints")
        full = np.zeros((len(offsets) - 1, BITS), np.uint8)
        full[np.repeat(np.arange(len(full)), np.diff(offsets)), columns] = counts
        return cls(full)


def tanimoto(a: Matrix, b: Matrix) -> Matrix:
    """(N, M) Tanimoto similarity of rows of bits; two empty rows have 0."""
    result = np.empty((len(a), len(b)), np.float32)
    theirs = b.sum(axis=1)
    for start in range(0, len(a), _AT_A_TIME):
        block = a[start : start + _AT_A_TIME]
        shared = block @ b.T
        union = block.sum(axis=1)[:, None] + theirs[None, :] - shared
        result[start : start + _AT_A_TIME] = shared / np.maximum(union, 1)
    return result


def similarity(a: Fingerprints, b: Fingerprints) -> Matrix:
    """(N, M) Tanimoto similarity of the bits: what a chemist means by it."""
    return tanimoto(a.bits, b.bits)


def kernel(a: Fingerprints, b: Fingerprints) -> Matrix:
    """(N, M) Tanimoto similarity of the counts (Ralaivola et al. 2005), counts above 3 in coarser steps."""
    return tanimoto(a.levels, b.levels)
