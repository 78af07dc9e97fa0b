"""Randomised SMILES: the same molecules written otherwise in each epoch (Arús-Pous 2019, J. Cheminform. 11:71)."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from threading import Event
from typing import TypeVar

import numpy as np

from molgen.chem.pool import Workers
from molgen.config import TrainingConfig
from molgen.data.batches import Corpus
from molgen.runtime.distributed import ProcessGroup
from molgen.runtime.signals import HeldSignals
from molgen.tokenizer import BOS, SmilesTokenizer

_REDRAWS = 4
_SECONDS_BETWEEN_LOOKS = 0.1
_Item = TypeVar("_Item")


class _StoppedError(Exception):
    """No one waits for the corpus any more."""


@contextmanager
def augmented_epochs(
    canonical: Sequence[str],
    fixed: Corpus,
    tokenizer: SmilesTokenizer,
    pool: Workers | None,
    config: TrainingConfig,
    context: int,
    first: int,
    group: ProcessGroup,
    signals: HeldSignals,
) -> Iterator[Iterator[tuple[Corpus, int]]]:
    """(corpus, molecules that stayed canonical though drawn) an epoch, made while the epoch before trains.

    A team's leader makes them, and passes them on; only it has a pool. A signal that comes while one is waited for is
    let act, and what is half made is given up, as it is when the block is left.
    """
    stopped = Event()

    def share(epoch: int) -> float:
        return config.randomized + (config.randomized_end - config.randomized) * epoch / max(1, config.epochs - 1)

    def make(epoch: int) -> tuple[Corpus, int]:
        if not share(epoch) or pool is None:
            return fixed, 0
        return randomized_corpus(
            canonical, share(epoch), tokenizer, pool, [config.seed, epoch, 1], context, stopped.is_set
        )

    def corpora() -> Iterator[tuple[Corpus, int]]:
        ahead: Future[tuple[Corpus, int]] = thread.submit(make, first)
        for epoch in range(first, config.epochs):
            while not ahead.done() and not signals.received:
                wait([ahead], _SECONDS_BETWEEN_LOOKS)
            if number := group.all_reduce_max(signals.received):
                signals.leave(number)
            corpus, replaced = ahead.result()
            if epoch + 1 < config.epochs:
                ahead = thread.submit(make, epoch + 1)
            yield corpus.shared(group) if share(epoch) else corpus, replaced

    with ThreadPoolExecutor(1) as thread:
        try:
            yield corpora()
        finally:
            stopped.set()


def randomized_corpus(
    canonical: Sequence[str],
    share: float,
    tokenizer: SmilesTokenizer,
    pool: Workers,
    seed: list[int],
    context: int,
    stopped: Callable[[], bool] = lambda: False,
) -> tuple[Corpus, int]:
    """A corpus in which a random `share` of the molecules stands as a random SMILES, unless it is `stopped` before.

    One is used only if it parses back to the same molecule, has known tokens and fits; else it is redrawn.
    """
    rng = np.random.default_rng(seed)
    encoded = [tokenizer.encode(smiles) or [] for smiles in _until(stopped, canonical)]
    starts = [BOS] * len(encoded)
    waiting = np.flatnonzero(rng.random(len(canonical)) < share)
    for _ in range(_REDRAWS):
        seeds = rng.integers(1, 2**31, len(waiting))
        asked = [[canonical[int(i)], int(s)] for i, s in zip(waiting, seeds, strict=True)]
        drawn = [smiles for part in _until(stopped, pool.stream("random_form", asked)) for smiles in part]
        missed = []
        for i, smiles in zip(_until(stopped, waiting), drawn, strict=True):
            ids = tokenizer.encode(smiles) if smiles else None
            if ids is not None and len(ids) <= context:
                encoded[i], starts[i] = ids, tokenizer.random_start
            else:
                missed.append(i)
        waiting = np.array(missed, dtype=np.int64)
        if not missed:
            break
    return Corpus.of(encoded, len(tokenizer), _until(stopped, starts)), len(waiting)


def _until(stopped: Callable[[], bool], items: Iterable[_Item]) -> Iterator[_Item]:
    """The items, unless it is stopped before the next one: of millions each takes a moment."""
    for item in items:
        if stopped():
            raise _StoppedError
        yield item
