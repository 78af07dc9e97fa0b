"""A surrogate of the objective: a Gaussian process on what was scored so far, which says what is worth a call.

Its kernel is a mixture of Tanimoto similarity of fingerprints (Ralaivola et al. 2005; for molecules Griffiths et al.
2023, GAUCHE) and of a Gaussian of a few descriptors. The shares and the noise are those of the highest marginal
likelihood on a small grid, unless they are given.
"""

import math
from base64 import b64decode
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt
import scipy.linalg

Matrix = npt.NDArray[np.float64]
Setting = tuple[float, float]
"""(share of the fingerprints in the kernel, noise relative to the variance of the scores)."""
_SHARES = (0.3, 0.6, 0.9)  # of the fingerprints in the kernel
_NOISES = (1e-3, 1e-2, 1e-1)  # relative to the variance of the scores
_JITTER = 1e-8


@dataclass(frozen=True)
class Features:
    """Molecules as the surrogate sees them."""

    bits: npt.NDArray[np.float32]
    """(n, 4,096) fingerprints, 0 or 1."""
    descriptors: Matrix
    """(n, d)."""

    @classmethod
    def of(cls, parts: Sequence[tuple[str, tuple[float, ...]]]) -> "Features":
        """From the part `surrogate` of `describe`: packed bits and descriptors."""
        packed = np.array([np.frombuffer(b64decode(bits), np.uint8) for bits, _ in parts])
        bits = np.unpackbits(packed, axis=1, bitorder="little").astype(np.float32)
        return cls(bits, np.array([descriptors for _, descriptors in parts], np.float64))


class Surrogate:
    """A Gaussian process of scores (n,) of molecules."""

    def __init__(self, features: Features, scores: Matrix, setting: Setting | None = None) -> None:
        self._features = features
        self._mean, self._scale = float(scores.mean()), float(scores.std()) or 1.0
        self._centre, self._spread = features.descriptors.mean(0), features.descriptors.std(0) + _JITTER
        parts = self._kernels(features)
        y = (scores - self._mean) / self._scale
        best = -math.inf
        for share, noise in [setting] if setting else product(_SHARES, _NOISES):
            kernel = share * parts[0] + (1 - share) * parts[1]
            kernel[np.diag_indices_from(kernel)] += noise + _JITTER
            factor = scipy.linalg.cholesky(kernel, lower=True, overwrite_a=True, check_finite=False)
            weights = scipy.linalg.cho_solve((factor, True), y, check_finite=False)
            likelihood = -0.5 * float(y @ weights) - float(np.log(np.diag(factor)).sum())
            if likelihood > best:
                best, self.setting = likelihood, (share, noise)
                self._factor, self._weights = factor, weights

    def predict(self, features: Features) -> tuple[Matrix, Matrix]:
        """(mean, standard deviation) of each molecule's score, (n,) each."""
        bits, descriptors = self._kernels(features)
        share, _ = self.setting
        kernel = share * bits + (1 - share) * descriptors  # (n, known)
        mean = kernel @ self._weights
        solved = scipy.linalg.solve_triangular(self._factor, kernel.T, lower=True, check_finite=False)
        variance = np.maximum(1 - (solved**2).sum(0), 0)
        return self._mean + self._scale * mean, self._scale * np.sqrt(variance)

    def _kernels(self, features: Features) -> tuple[Matrix, Matrix]:
        """Both kernels of molecules (n) against the known ones (m), (n, m) each."""
        known = self._features
        shared = (features.bits @ known.bits.T).astype(np.float64)
        union = features.bits.sum(1)[:, None] + known.bits.sum(1)[None, :] - shared
        tanimoto = np.where(union > 0, shared / np.maximum(union, 1), 1.0)
        ours, theirs = ((one.descriptors - self._centre) / self._spread for one in (features, known))
        squares = (ours**2).sum(1)[:, None] + (theirs**2).sum(1)[None, :] - 2 * ours @ theirs.T
        return tanimoto, np.exp(-np.maximum(squares, 0) / (2 * ours.shape[1]))
