"""Rejection sampling: which draws are kept, and the statistics of all draws.

All rules except `unique` give exactly the conditional distribution; `unique` draws without replacement.
"""

from collections import Counter, deque
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from molgen.chem.filters import MoleculeFilter
from molgen.chem.pool import Workers
from molgen.prediction.columns import PredictedCondition
from molgen.runtime.distributed import ProcessGroup
from molgen.runtime.hashing import Seen, keys_of

# Sampling gives up when fewer than 10 of the last 10,000 draws were kept.
_WINDOW, _LEAST_KEPT = 10_000, 10


class Sample(NamedTuple):
    """One draw."""

    smiles: str
    """Empty if the draw was empty or unfinished."""
    canonical: str | None
    """RDKit's canonical SMILES; None if invalid."""
    unfinished: bool = False
    """Whether it reached the length limit."""


class RejectionRules(NamedTuple):
    """The conditions for keeping a draw; by default every draw is kept."""

    valid: bool = False
    """Keep only valid molecules."""
    unique: bool = False
    """Keep only molecules, or invalid strings, that were not kept before."""
    novel: bool = False
    """Keep only molecules that are not in the training set."""
    filter: MoleculeFilter = MoleculeFilter()
    """Keep only molecules that pass this filter."""
    predicted: PredictedCondition | None = None
    """Keep only molecules whose predictions fulfil this condition; a draw that fails it counts as rejected by where."""

    @property
    def filters(self) -> bool:
        """Whether there is a filter on properties, patterns or predictions; only valid molecules can pass it."""
        return self.filter != MoleculeFilter() or self.predicted is not None

    @property
    def rejects_invalid(self) -> bool:
        """Whether invalid draws are rejected."""
        return self.valid or self.novel or self.filters


REASONS = ("valid", "keep", *(name for name in MoleculeFilter._fields if name != "keep"), "novel", "unique")
"""The rules in the order in which they are checked; a draw counts as rejected by the first rule that it fails."""


@dataclass
class SamplingStats:
    """Counts of drawn, kept and rejected samples."""

    draws: int = 0
    """Draws up to the last kept one; later draws of the same batch do not count."""
    kept: int = 0
    unfinished: int = 0
    """Unfinished ones among these draws."""
    gave_up: bool = False
    rejected: Counter[str] = field(default_factory=Counter)
    """Rejected draws by their rule in REASONS."""
    keeps: bool = False
    """Whether the rules ask for fragments."""

    @property
    def kept_share(self) -> float:
        """The share of the draws that are valid and hold the fragments, before all other rules; NaN without draws."""
        lost = self.rejected["valid"] + self.rejected["keep"]
        return 1 - lost / self.draws if self.draws else float("nan")

    def all_reduce(self, group: ProcessGroup) -> None:
        """Replaces the counts by their sums over all processes."""
        rejected = [self.rejected[name] for name in REASONS]
        counts = np.array([self.draws, self.kept, self.unfinished, self.gave_up, *rejected])
        self.draws, self.kept, self.unfinished, gave_up, *rejected = group.all_reduce_sum(counts).tolist()
        self.gave_up = bool(gave_up)
        self.rejected = Counter(dict(zip(REASONS, rejected, strict=True)))


class SampleStream(Iterator[list[Sample]]):
    """Samples batch by batch, in the order in which they were drawn; `stats` counts the draws so far."""

    def __init__(self, n: int, batches: Iterator[list[Sample]], stats: SamplingStats) -> None:
        self.n, self.stats, self._batches = n, stats, batches
        """`n` is the number of requested samples of all processes together."""

    def __next__(self) -> list[Sample]:
        return next(self._batches)


def select(
    draws: Iterator[Sequence[str | None]],
    n: int,
    rules: RejectionRules,
    training: Set[str],
    workers: Workers,
    stats: SamplingStats,
) -> Iterator[list[Sample]]:
    """The draws that the rules keep, batch by batch, until `n` are kept or almost no draw is kept.

    `draws` are batches of strings, None for an unfinished one; `training` has the canonical SMILES of the training set.
    """
    seen = Seen()
    window: deque[tuple[int, int]] = deque()  # (draws, kept) of the last batches
    while stats.kept < n and not stats.gave_up:
        texts = next(draws)
        batch = _kept(texts, n - stats.kept, rules, training, seen, workers, stats)
        stats.kept += len(batch)
        window.append((len(texts), len(batch)))
        while sum(drawn for drawn, _ in window) - window[0][0] >= _WINDOW:
            window.popleft()
        drawn, kept = (sum(column) for column in zip(*window, strict=True))
        stats.gave_up = drawn >= _WINDOW and kept < _LEAST_KEPT and stats.kept < n
        yield batch


def _kept(
    texts: Sequence[str | None],
    most: int,
    rules: RejectionRules,
    training: Set[str],
    seen: Seen,
    workers: Workers,
    stats: SamplingStats,
) -> list[Sample]:
    """The kept samples of a batch, at most `most`; counts the draws up to the last kept one."""
    parsed = list(_parsed(texts, rules, workers))
    keys = keys_of(s.canonical or s.smiles for s, _ in parsed) if rules.unique else np.empty(0, np.uint64)
    seen_before, new_keys = seen.has(keys), set[np.uint64]()
    batch: list[Sample] = []
    for i, (sample, failed_filter) in enumerate(parsed):
        stats.draws, stats.unfinished = stats.draws + 1, stats.unfinished + sample.unfinished
        if sample.canonical is None and rules.rejects_invalid:
            stats.rejected["valid"] += 1
        elif failed_filter:
            stats.rejected[failed_filter] += 1
        elif rules.novel and sample.canonical in training:
            stats.rejected["novel"] += 1
        elif rules.unique and (seen_before[i] or keys[i] in new_keys):
            stats.rejected["unique"] += 1
        else:
            if rules.unique:
                new_keys.add(keys[i])
            batch.append(sample)
            if len(batch) == most:
                break
    seen.add(np.array(list(new_keys), np.uint64))
    return batch


def _parsed(texts: Sequence[str | None], rules: RejectionRules, workers: Workers) -> Iterator[tuple[Sample, str]]:
    """(sample, the filter that it fails or an empty string) of each text."""
    smiles = [text or "" for text in texts]
    if rules.filters:
        results = workers.map("screen", smiles, **rules.filter._asdict())
    else:
        results = [(canonical, "") for canonical in workers.map("canonical", smiles)]
    found = [result or (None, "") for result in results]  # RDKit hung or crashed: invalid
    if rules.predicted is not None:
        open_ones = [i for i, (canonical, failed) in enumerate(found) if canonical and not failed]
        holds = rules.predicted.holds([str(found[i][0]) for i in open_ones])
        for i, is_true in zip(open_ones, holds, strict=True):
            found[i] = (found[i][0], "" if is_true else "where")
    for text, (canonical, failed_filter) in zip(texts, found, strict=True):
        yield Sample(text or "", canonical, text is None), failed_filter
