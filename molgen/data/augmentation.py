"""Randomised SMILES: another random SMILES per molecule in each epoch (Arús-Pous 2019, J. Cheminform. 11:71)."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from threading import Event
from typing import TypeVar

import numpy as np

from molgen.chem.pool import Workers
from molgen.config import TrainingConfig
from molgen.data.batches import Corpus, TrainingData
from molgen.machine import Runtime
from molgen.runtime.signals import HeldSignals
from molgen.tokenizer import BOS, SmilesTokenizer

_REDRAWS = 4
_SECONDS_BETWEEN_LOOKS = 0.1
_Item = TypeVar("_Item")


class _StoppedError(Exception):
    """The corpus is no longer needed."""


@contextmanager
def augmented_epochs(
    data: TrainingData, config: TrainingConfig, context: int, first: int, runtime: Runtime, signals: HeldSignals
) -> Iterator[Iterator[tuple[Corpus, int]]]:
    """Yields an iterator of (corpus, number of molecules for which no random SMILES was usable), one per epoch.

    The main process makes the corpus of the next epoch during training and sends it to the others. A signal received
    while the training waits for a corpus acts immediately. At the end of the block, an unfinished corpus is abandoned.
    """
    stopped = Event()

    def share(epoch: int) -> float:
        return config.randomized + (config.randomized_end - config.randomized) * epoch / max(1, config.epochs - 1)

    def make(epoch: int) -> tuple[Corpus, int]:
        if share(epoch) and not runtime.group.is_main:  # the main process sends the corpus
            return data.corpus, 0
        rows = data.mixture.rows(epoch) if data.mixture else None
        if not share(epoch):
            return data.corpus if rows is None else data.corpus.select(rows), 0
        seed = [config.seed, epoch, 1]
        smiles, tokenizer = data.canonical_smiles, data.tokenizer
        smiles = smiles if rows is None else [smiles[i] for i in rows]
        return randomized_corpus(smiles, share(epoch), tokenizer, runtime.workers, seed, context, stopped.is_set)

    def epochs() -> Iterator[tuple[Corpus, int]]:
        ahead: Future[tuple[Corpus, int]] = thread.submit(make, first)
        for epoch in range(first, config.epochs):
            while not ahead.done() and not signals.received:
                wait([ahead], _SECONDS_BETWEEN_LOOKS)
            if number := runtime.group.all_reduce_max(signals.received):
                signals.leave(number)
            corpus, kept_canonical = ahead.result()
            if epoch + 1 < config.epochs:
                ahead = thread.submit(make, epoch + 1)
            yield corpus.shared(runtime.group) if share(epoch) else corpus, kept_canonical

    with ThreadPoolExecutor(1) as thread:
        try:
            yield epochs()
        finally:
            stopped.set()


def randomized_corpus(
    canonical_smiles: Sequence[str],
    share: float,
    tokenizer: SmilesTokenizer,
    workers: Workers,
    seed: list[int],
    context: int,
    stopped: Callable[[], bool] = lambda: False,
) -> tuple[Corpus, int]:
    """(a corpus with random SMILES for a random `share` of the molecules, number without a usable random SMILES).

    A random SMILES is used only if it parses back to the same molecule, has known tokens and fits into the context.
    Otherwise another is drawn, at most four in total. Raises _StoppedError when `stopped` becomes true.
    """
    rng = np.random.default_rng(seed)
    encoded = [tokenizer.encode(smiles) or [] for smiles in _until(stopped, canonical_smiles)]
    starts = [BOS] * len(encoded)
    waiting = np.flatnonzero(rng.random(len(canonical_smiles)) < share)
    for _ in range(_REDRAWS):
        seeds = rng.integers(1, 2**31, len(waiting))
        asked = [[canonical_smiles[int(i)], int(s)] for i, s in zip(waiting, seeds, strict=True)]
        drawn = [smiles for part in _until(stopped, workers.stream("random_form", asked)) for smiles in part]
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
    """The items; raises _StoppedError as soon as `stopped` is true, because millions of items take long."""
    for item in items:
        if stopped():
            raise _StoppedError
        yield item
