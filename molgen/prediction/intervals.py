"""Intervals that hold: conformal, scaled by how hard a molecule looks; of classes, Venn-Abers bounds of probability.

Conformal prediction: Vovk, Gammerman and Shafer 2005; with normalised scores: Papadopoulos et al. 2002. Venn-Abers:
Vovk and Petej 2014.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]

LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
"""Coverages of the calibration curve."""
_NEAREST = 5
_LEAST_SCALE = 0.3  # of the mean absolute error: no interval is narrower than this share of the usual one
_GRID = 101
_EDGES = (0.0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
_FEWEST_IN_BIN = 10
DIFFICULTIES = ("constant", "members", "distance", "distance_of_3", "local_sd", "local_error")


def difficulty(similarity: npt.NDArray[Any], members: Values, values: Values, errors: Values) -> Values:
    """(N, 6) non-negative signs that a prediction may be wrong, the first of them 1.

    From the similarity (N, M) to known molecules (−1: not to be used), the members' predictions (N, K), and the known
    molecules' values (M,) and absolute errors when they were held out (M,).
    """
    n, m = similarity.shape
    most = min(_NEAREST, m)
    nearest = np.argpartition(-similarity, most - 1, axis=1)[:, :most] if m > most else np.tile(np.arange(m), (n, 1))
    order = np.argsort(-np.take_along_axis(similarity, nearest, axis=1), axis=1, kind="stable")
    nearest = np.take_along_axis(nearest, order, axis=1)
    near = np.take_along_axis(similarity, nearest, axis=1).clip(min=0).astype(np.float64)
    weights = near + 1e-3
    weights /= weights.sum(axis=1, keepdims=True)
    theirs = values[nearest]
    mean = (weights * theirs).sum(axis=1)
    return np.column_stack(
        (
            np.ones(n),
            members.std(axis=1) if members.shape[1] > 1 else np.zeros(n),
            1 - near[:, 0],
            1 - near[:, :3].mean(axis=1),
            np.sqrt((weights * (theirs - mean[:, None]) ** 2).sum(axis=1)),
            (weights * errors[nearest]).sum(axis=1),
        )
    )


class Intervals(NamedTuple):
    """Half-widths that depend on the molecule, with a coverage that holds for molecules like the calibration's."""

    coefficients: tuple[float, ...]
    """Of `difficulty`: their sum is the expected absolute error."""
    least: float
    """The lowest expected error."""
    quantile: float
    """The half-width in expected errors."""
    constant: float
    """The half-width that does not depend on the molecule, for comparison."""
    n: int
    """Molecules that it was calibrated on."""
    curve: tuple[float, ...] = ()
    """The half-widths, in expected errors, for a coverage of LEVELS, as far as the molecules are enough for them."""

    @classmethod
    def calibrated(
        cls, difficulties: Values, errors: Values, scale: "Sequence[float] | None", coverage: float
    ) -> "Intervals":
        """From absolute errors (N,) of molecules that were held out; `scale`: coefficients from other molecules.

        N is at least `fewest_for(coverage)`.
        """
        least = _LEAST_SCALE * float(errors.mean()) if len(errors) else 0.0
        coefficients = tuple(scale) if scale is not None else fit_scale(difficulties, errors)
        expected = np.maximum(difficulties @ np.array(coefficients), max(least, 1e-12))
        return cls(
            coefficients,
            max(least, 1e-12),
            conformal_quantile(errors / expected, coverage),
            conformal_quantile(errors, coverage),
            len(errors),
            tuple(conformal_quantile(errors / expected, level) for level in LEVELS if len(errors) >= fewest_for(level)),
        )

    def half_widths(self, difficulties: Values) -> Values:
        """(N,) of molecules with these difficulties (N, 6)."""
        expected = difficulties @ np.array(self.coefficients)
        return np.asarray(self.quantile * np.maximum(expected, self.least), np.float64)


def fit_scale(difficulties: Values, errors: Values) -> tuple[float, ...]:
    """Non-negative coefficients of the difficulties whose sum is closest to the absolute errors."""
    from scipy.optimize import nnls  # half a second to import, which sampling need not wait for

    size = difficulties.max(axis=0)
    size[size == 0] = 1.0
    found, _ = nnls(difficulties / size, errors)
    return tuple((found / size).tolist())


def conformal_quantile(scores: Values, coverage: float) -> float:
    """The score that a new one is at most with this probability, if all are exchangeable; infinite for too few."""
    n = len(scores)
    rank = math.ceil((n + 1) * coverage)
    return float(np.sort(scores)[rank - 1]) if rank <= n else math.inf


def fewest_for(coverage: float) -> int:
    """Held-out molecules below which no finite interval has this coverage: 9 for 0.9."""
    return math.ceil(coverage / (1 - coverage) - 1e-9)


def venn_abers(scores: Values, truth: Values) -> Values:
    """(3, 101) lower bound, probability and upper bound for a score of 0, 0.01, ... 1, from held-out molecules.

    A new molecule is added once as class 0 and once as class 1 to an isotonic regression; the two results bound the
    probability.
    """
    from scipy.optimize import isotonic_regression

    order = np.argsort(scores, kind="stable")
    scores, truth = scores[order], truth[order]
    table = np.empty((3, _GRID))
    for i, score in enumerate(np.linspace(0, 1, _GRID)):
        place = int(np.searchsorted(scores, score))
        low, high = (float(isotonic_regression(np.insert(truth, place, label)).x[place]) for label in (0.0, 1.0))
        table[:, i] = low, high / (1 - low + high), high
    return table


def bounds_of(table: Values, scores: Values) -> tuple[Values, Values, Values]:
    """(lower bounds, probabilities, upper bounds) of scores (N,), interpolated."""
    grid = np.linspace(0, 1, table.shape[1])
    low, middle, high = (np.interp(scores, grid, row) for row in table)
    return low, middle, high


class Bin(NamedTuple):
    """Held-out molecules by their similarity to what was trained on."""

    low: float
    high: float
    n: int
    rmse: float
    baseline: float
    """RMSE of predicting the mean of the training molecules."""


def by_similarity(nearest: Values, errors: Values, from_mean: Values) -> list[Bin]:
    """Bins of the similarity to the nearest training molecule; those with few molecules are joined to the next."""
    bins: list[Bin] = []
    start = 0
    for i in range(1, len(_EDGES)):
        low, high = _EDGES[start], _EDGES[i]
        inside = (nearest >= low) & ((nearest < high) | (i == len(_EDGES) - 1))
        if inside.sum() >= _FEWEST_IN_BIN or (i == len(_EDGES) - 1 and inside.any()):
            squares = (float(np.sqrt(np.mean(part[inside] ** 2))) for part in (errors, from_mean))
            bins.append(Bin(low, high, int(inside.sum()), *squares))
            start = i
    return bins


def too_far(bins: Sequence[Bin]) -> float | None:
    """The similarity below which predictions are no better than the mean; None if they are in every bin."""
    bad = [one.rmse >= one.baseline for one in bins]
    count = next((i for i, is_bad in enumerate(bad) if not is_bad), len(bad))
    return bins[count - 1].high if count else None
