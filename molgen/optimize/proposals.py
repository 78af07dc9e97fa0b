"""Where new molecules come from: the agent, completions of good molecules' beginnings, crossover and mutation."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from molgen.chem.pool import Workers
from molgen.optimize.agent import Agent
from molgen.optimize.memory import Memory
from molgen.optimize.settings import ORIGINS, LearnerConfig, Origin

_WARM = 64  # molecules in the memory before it is used
_SHORTEST = 0.3  # share of a SMILES that a completion keeps at least
_FLOOR = 0.2  # of its configured share, which an origin keeps whatever its success
_FADING = 0.95  # of the counts of success, per round


class Candidate(NamedTuple):
    """A proposed string."""

    smiles: str
    """Empty if it is unfinished, or no child was found."""
    origin: str
    """One of ORIGINS, or `rescored`."""


class Success:
    """How often each origin's molecules entered the best hundred; older rounds count less."""

    def __init__(self, config: LearnerConfig, counts: dict[str, list[float]]) -> None:
        self._config, self.counts = config, counts
        """Origin → [molecules that entered, molecules proposed]."""

    def fade(self, proposed: Mapping[str, int]) -> None:
        """Makes the earlier rounds count less, and counts the strings of a new one, invalid and repeated ones too."""
        self.counts = {
            o: [entered * _FADING, n * _FADING + proposed.get(o, 0)] for o, (entered, n) in self.counts.items()
        }

    def count(self, origin: str, entered: bool) -> None:
        """Counts a scored molecule."""
        if origin in self.counts:  # not those of an earlier stage
            self.counts[origin][0] += entered

    def parts(self) -> dict[Origin, int]:
        """The number of strings of each origin in the next round; their sum is `proposals`."""
        initial = {origin: float(getattr(self._config, origin)) for origin in ORIGINS}
        shares = {origin: share / sum(initial.values()) for origin, share in initial.items()}
        if self._config.adaptive:
            rates = {o: shares[o] * (1 + self.counts[o][0]) / (16 + self.counts[o][1]) for o in ORIGINS}
            total = sum(rates.values())
            shares = {o: _FLOOR * shares[o] + (1 - _FLOOR) * rates[o] / total for o in ORIGINS}
        parts = {origin: int(share * self._config.proposals) for origin, share in shares.items()}
        parts["agent"] += self._config.proposals - sum(parts.values())
        return parts


class Proposer:
    """Makes the candidates of a round."""

    def __init__(self, agent: Agent, memory: Memory, workers: Workers, elements: Sequence[str]) -> None:
        """`elements` are those that mutation may use beside the usual ones."""
        self._agent, self._memory, self._workers, self._elements = agent, memory, workers, list(elements)

    def __call__(self, parts: dict[Origin, int], rng: np.random.Generator) -> list[Candidate]:
        """Candidates of each origin, the agent's first; before the memory is warm all are the agent's."""
        if len(self._memory) < _WARM:
            parts = {"agent": sum(parts.values()), "completion": 0, "genetic": 0}
        begun = self._beginnings(parts["completion"], rng)
        n, seed = parts["agent"] + parts["completion"] - len(begun), int(rng.integers(2**31))
        starts = [[self._agent.start(False)]] * n
        drawn = self._agent.sample(n, seed) if self._agent.grows else self._agent.draw([*starts, *begun], seed)
        return [
            *(Candidate(smiles or "", "agent") for smiles in drawn[: len(starts)]),
            *(Candidate(smiles or "", "completion") for smiles in drawn[len(starts) :]),
            *self._children(parts["genetic"], rng),
        ]

    def _beginnings(self, n: int, rng: np.random.Generator) -> list[list[int]]:
        """The start id and some tokens of good molecules; random SMILES, if known, so that every part may be new."""
        if not n or self._agent.grows:  # what is kept is the beginning then
            return []
        smiles = [molecule.canonical for molecule in self._memory.pick(n, rng)]
        random = self._agent.knows_random_forms
        if random:
            smiles = random_forms(smiles, self._workers, rng)
        begun = []
        for one in smiles:
            if not one or not self._agent.fits(one):
                continue
            ids = self._agent.tokenizer.encode(one) or []
            kept = int(rng.integers(max(1, int(_SHORTEST * len(ids))), len(ids) + 1))
            begun.append([self._agent.start(random), *ids[:kept]])
        return begun

    def _children(self, n: int, rng: np.random.Generator) -> list[Candidate]:
        """`n` attempts at a child of two good molecules, mutated or not; an empty string if it fails."""
        if not n:
            return []
        parents = [molecule.canonical for molecule in self._memory.pick(2 * n, rng)]
        pairs = rng.integers(len(parents), size=(n, 2)).tolist()
        seeds = rng.integers(2**31, size=n).tolist()
        found = self._workers.map(
            "offspring",
            [[parents[first], parents[second], seed] for (first, second), seed in zip(pairs, seeds, strict=True)],
            at_a_time=even(n, self._workers),
            mutation=self._agent.config.mutation,
            elements=self._elements,
        )
        return [Candidate(child or "", "genetic") for child in found]


def random_forms(smiles: Sequence[str], workers: Workers, rng: np.random.Generator) -> list[str]:
    """A random SMILES of each canonical one; empty where the drawn one does not parse back."""
    seeds = rng.integers(1, 2**31, size=len(smiles)).tolist()
    pairs = [list(pair) for pair in zip(smiles, seeds, strict=True)]
    return [form or "" for form in workers.map("random_form", pairs, at_a_time=even(len(pairs), workers))]


def even(n: int, workers: Workers) -> int:
    """Items per worker if all get as many."""
    return max(1, -(-n // workers.processes))
