"""The memory of an optimisation: its best molecules, which are replayed and are the parents of new ones."""

import math
from bisect import insort
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Remembered(NamedTuple):
    """A molecule of the memory."""

    total: float
    canonical: str


class Memory:
    """The best molecules so far, the best first; of equals the earlier."""

    def __init__(self, capacity: int, greediness: float, limit: int | None, from_score: float) -> None:
        """`limit` molecules per scaffold that score at least `from_score` are accepted; None: all."""
        self._capacity, self._greediness, self._limit, self._from_score = capacity, greediness, limit, from_score
        self._of_scaffold: Counter[str] = Counter()
        self._best: list[tuple[float, int, str, str]] = []  # (-total, number, canonical SMILES, scaffold)
        self._added = 0

    def __len__(self) -> int:
        return len(self._best)

    def add(self, canonical: str, total: float, scaffold: str) -> float:
        """Adds a molecule unless its scaffold is exhausted; returns its reward: its score, or 0 if exhausted.

        When a scaffold is exhausted, its molecules leave the memory (Guo and Schwaller 2024). NaN is not added.
        """
        self._added += 1
        if math.isnan(total):
            return total
        if self._limit is not None and total >= self._from_score:
            self._of_scaffold[scaffold] += 1
            if self._of_scaffold[scaffold] > self._limit:
                self._best = [entry for entry in self._best if entry[3] != scaffold]
                return 0.0
        insort(self._best, (-total, self._added, canonical, scaffold))
        del self._best[self._capacity :]
        return total

    @property
    def best(self) -> list[Remembered]:
        """All of them, the best first."""
        return [Remembered(-entry[0], entry[2]) for entry in self._best]

    @property
    def elite(self) -> float:
        """The score of the 100th best, or of the last if there are fewer; minus infinity if there is none."""
        return -self._best[min(len(self._best), 100) - 1][0] if self._best else -math.inf

    def pick(self, n: int, rng: np.random.Generator) -> list[Remembered]:
        """`n` molecules, with repeats, by rank, counted from 0: the weight is 1 / (greediness · size + rank).

        Tripp et al. 2020 (NeurIPS, "Sample-efficient optimization in the latent space").
        """
        size = len(self._best)
        weights = 1 / (self._greediness * size + np.arange(size))
        chosen = rng.choice(size, n, p=weights / weights.sum())
        return [Remembered(-self._best[i][0], self._best[i][2]) for i in chosen.tolist()]


def top(totals: Sequence[float], n: int) -> float:
    """The mean of the best n scores, of all if there are fewer; 0 if there is none."""
    best = sorted((total for total in totals if total == total), reverse=True)[:n]
    return sum(best) / len(best) if best else 0.0
