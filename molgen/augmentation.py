"""Randomised SMILES: the same molecules written otherwise in each epoch (Arús-Pous 2019, J. Cheminform. 11:71)."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np

from molgen.batches import Corpus
from molgen.config import TrainingConfig
from molgen.processes import Team
from molgen.tokenizer import BOS, SmilesTokenizer
from molgen.workers import Workers

_REDRAWS = 4


@contextmanager
def fresh_corpora(
    canonical: Sequence[str],
    fixed: Corpus,
    tokenizer: SmilesTokenizer,
    pool: Workers | None,
    config: TrainingConfig,
    context: int,
    first: int,
    team: Team,
) -> Iterator[Iterator[tuple[Corpus, int]]]:
    """(corpus, molecules that stayed canonical though drawn) an epoch, made while the epoch before trains.

    A team's leader makes them, and passes them on; only it has a pool.
    """

    def share(epoch: int) -> float:
        return config.randomized + (config.randomized_end - config.randomized) * epoch / max(1, config.epochs - 1)

    def make(epoch: int) -> tuple[Corpus, int]:
        if not share(epoch) or pool is None:
            return fixed, 0
        return randomized_corpus(canonical, share(epoch), tokenizer, pool, [config.seed, epoch, 1], context)

    def corpora() -> Iterator[tuple[Corpus, int]]:
        ahead: Future[tuple[Corpus, int]] = thread.submit(make, first)
        for epoch in range(first, config.epochs):
            corpus, replaced = ahead.result()
            if epoch + 1 < config.epochs:
                ahead = thread.submit(make, epoch + 1)
            yield corpus.shared(team) if share(epoch) else corpus, replaced

    with ThreadPoolExecutor(1) as thread:
        yield corpora()


def randomized_corpus(
    canonical: Sequence[str],
    share: float,
    tokenizer: SmilesTokenizer,
    pool: Workers,
    seed: list[int],
    context: int,
) -> tuple[Corpus, int]:
    """A corpus in which a random `share` of the molecules stands as a random SMILES.

    One is used only if it parses back to the same molecule, has known tokens and fits; else it is redrawn.
    """
    rng = np.random.default_rng(seed)
    encoded = [tokenizer.encode(smiles) or [] for smiles in canonical]
    starts = [BOS] * len(encoded)
    waiting = np.flatnonzero(rng.random(len(canonical)) < share)
    for _ in range(_REDRAWS):
        seeds = rng.integers(1, 2**31, len(waiting))
        drawn = pool.map("random_form", [[canonical[int(i)], int(s)] for i, s in zip(waiting, seeds, strict=True)])
        missed = []
        for i, smiles in zip(waiting, drawn, strict=True):
            ids = tokenizer.encode(smiles) if smiles else None
            if ids is not None and len(ids) <= context:
                encoded[i], starts[i] = ids, tokenizer.random_start
            else:
                missed.append(i)
        waiting = np.array(missed, dtype=np.int64)
        if not missed:
            break
    return Corpus.of(encoded, len(tokenizer), starts), len(waiting)
