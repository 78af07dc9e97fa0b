"""Which of many new molecules are scored: those that a surrogate of the objective expects most of, and some at random.

Molecules are cheap and scores are dear. So more molecules are proposed than are scored.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from molgen.optimize.settings import LearnerConfig
from molgen.optimize.surrogate import Features, Setting, Surrogate

_FEWEST_KNOWN = 100  # scored molecules before the surrogate chooses


class Molecule(NamedTuple):
    """A candidate that RDKit can read."""

    smiles: str
    canonical: str
    key: str
    """Equal for molecules that the objective cannot tell apart: canonical SMILES, without stereo if it sees none."""
    scaffold: str
    features: tuple[str, tuple[float, ...]]
    """Of the surrogate."""
    origin: str


class Screen:
    """What is known of the scores so far, and the choice that follows from it."""

    def __init__(self, config: LearnerConfig) -> None:
        self._config = config
        self._known: list[tuple[tuple[str, tuple[float, ...]], float]] = []  # (features, score) in the order of calls
        self.setting: Setting | None = None
        """Of the surrogate; None: sought at each choice."""

    def add(self, molecule: Molecule, total: float) -> None:
        """Takes note of a score."""
        self._known.append((molecule.features, total))

    @property
    def _has_surrogate(self) -> bool:
        return self._config.proposals > self._config.batch and len(self._known) >= _FEWEST_KNOWN

    def tune(self) -> None:
        """Seeks the surrogate's setting by what is known so far, so that the next choice takes less time."""
        if self._has_surrogate:
            self.setting = None
            self.setting = self._surrogate().setting

    def choose(self, molecules: Sequence[Molecule], n: int, rng: np.random.Generator) -> list[Molecule]:
        """Up to `n` molecules: at random as long as little is known, else a part of them by their promise."""
        config = self._config
        order = rng.permutation(len(molecules))
        if not self._has_surrogate:
            return [molecules[i] for i in sorted(order[:n].tolist())]
        drawn = round(config.unscreened * n)
        chosen, rest = ([molecules[i] for i in sorted(part.tolist())] for part in (order[:drawn], order[drawn:]))
        promise = self._promise(self._surrogate(), rest)
        return chosen + [rest[i] for i in np.argsort(-promise, kind="stable")[: n - len(chosen)].tolist()]

    def _promise(self, surrogate: Surrogate, molecules: Sequence[Molecule]) -> npt.NDArray[np.float64]:
        """The upper confidence bound of each molecule's score."""
        if not molecules:
            return np.empty(0)
        mean, deviation = surrogate.predict(Features.of([molecule.features for molecule in molecules]))
        return mean + self._config.curiosity * deviation

    def _surrogate(self) -> Surrogate:
        """Fitted to the best and to the latest molecules."""
        half = self._config.known // 2
        totals = np.array([total for _, total in self._known])
        rows = np.union1d(np.argsort(-totals, kind="stable")[:half], np.arange(max(0, len(totals) - half), len(totals)))
        return Surrogate(Features.of([self._known[i][0] for i in rows.tolist()]), totals[rows], self.setting)
