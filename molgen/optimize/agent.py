"""The agent: a copy of the prior that learns by policy gradient to draw molecules that score well."""

import copy
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from molgen.config import TrainingConfig
from molgen.data.batches import Batch, Corpus, Rows, similar_parts
from molgen.generation.decode import SamplingParams, complete
from molgen.generation.growth import Growth
from molgen.machine import Runtime
from molgen.model.decoder import Decoder
from molgen.model.likelihood import token_nll
from molgen.optimize.settings import LearnerConfig
from molgen.runtime.device import autocast
from molgen.runtime.threads import shared_threads, worker_threads
from molgen.tokenizer import BOS, PAD, RANDOM, SmilesTokenizer
from molgen.training.optim import build_optimizer
from molgen.training.resume import TrainerState
from molgen.training.step import Step

_CLIP_NORM = 1.0
_FOR_DISTANCE = 32  # strings per round, of which a curve has a hundred


class Lesson(NamedTuple):
    """A molecule with its reward, as one of its SMILES."""

    smiles: str
    reward: float
    """In [0, 1]."""
    random: bool = False
    """Whether it is a random SMILES, which starts with `<random>`."""


class Agent:
    """Draws molecules and learns from their rewards, beside the prior that it started from."""

    def __init__(
        self, prior: Decoder, tokenizer: SmilesTokenizer, config: LearnerConfig, runtime: Runtime, keep: str = ""
    ) -> None:
        """With `keep`, a text of `molgen.chem.fragments.numbered`, all that it samples is grown from these fragments.

        Raises MolgenError for fragments that the prior cannot read.
        """
        self.prior, self.model = prior.eval().requires_grad_(False), copy.deepcopy(prior).eval().requires_grad_(True)
        self.tokenizer, self.config, self._runtime = tokenizer, config, runtime
        self._training = TrainingConfig(
            optimizer="adamw", learning_rate=config.learning_rate, weight_decay=0.0, clip_norm=_CLIP_NORM
        )
        self.optimizer = build_optimizer(self.model, self._training)
        self._rewards = torch.empty(0)
        self._step = Step(self.model, self.optimizer, self._loss, self._training, TrainerState(), runtime)
        self._num_chunks = worker_threads(runtime.device)
        precision = self._training.precision
        self._growth = Growth(self.model, tokenizer, keep, runtime.workers, precision) if keep else None

    @property
    def models(self) -> dict[str, nn.Module]:
        """The models of a saved state."""
        return {"model": self.model, "prior": self.prior}

    @property
    def knows_random_forms(self) -> bool:
        """Whether the prior was trained on random SMILES."""
        return RANDOM in self.tokenizer.special

    @property
    def grows(self) -> bool:
        """Whether all that it samples is grown from fragments that are kept."""
        return self._growth is not None

    def sample(self, n: int, seed: int) -> list[str | None]:
        """`n` strings, grown from what is kept, if anything; None for an unfinished one."""
        if self._growth is None:
            return self.draw([[self.start(False)]] * n, seed)
        chunks = min(self._num_chunks, n)
        sizes = [len(range(i, n, chunks)) for i in range(chunks)]
        with shared_threads(max(1, chunks)) as threads:
            seeds = range(seed, seed + chunks)
            parts = threads.map(self._growth.draw, sizes, [SamplingParams()] * chunks, seeds)
            return [text for part in parts for text in part]

    def start(self, random: bool) -> int:
        """The id that starts a canonical or a random SMILES."""
        return self.tokenizer.random_start if random else BOS

    def fits(self, smiles: str) -> bool:
        """Whether the agent can read a string: known tokens, not longer than its context."""
        ids = self.tokenizer.encode(smiles)
        return ids is not None and len(ids) <= self.model.context

    def draw(self, starts: Sequence[Sequence[int]], seed: int) -> list[str | None]:
        """A completed SMILES for each start, which is a start id and perhaps tokens; None for an unfinished one."""
        if not starts:
            return []
        longest = max(map(len, starts))
        ids = torch.tensor([[*start, *[PAD] * (longest - len(start))] for start in starts])
        parts = [(ids[i :: self._num_chunks], seed + i) for i in range(min(self._num_chunks, len(ids)))]
        texts: list[str | None] = [None] * len(starts)
        with shared_threads(len(parts)) as threads:
            for i, drawn in enumerate(threads.map(self._drawn, *zip(*parts, strict=True))):
                texts[i :: self._num_chunks] = drawn
        return texts

    def _drawn(self, starts: Tensor, seed: int) -> list[str | None]:
        device = self._runtime.device
        random = torch.Generator(device).manual_seed(seed % 2**32)
        suppressed = self.tokenizer.suppressed_ids
        ids = complete(self.model, starts.to(device), SamplingParams(), suppressed, random, self._training.precision)
        return self.tokenizer.decode(ids.cpu().numpy())

    def learn(self, lessons: Sequence[Lesson]) -> None:
        """One step on these molecules; those that the agent cannot read are left out."""
        readable = [lesson for lesson in lessons if self.fits(lesson.smiles)]
        if not readable:
            return
        encoded = [self.tokenizer.encode(lesson.smiles) or [] for lesson in readable]
        starts = [self.start(lesson.random) for lesson in readable]
        corpus = Corpus.of(encoded, len(self.tokenizer), starts)
        self._rewards = torch.tensor([lesson.reward for lesson in readable], device=self._runtime.device)
        parts = similar_parts(np.arange(len(corpus)), corpus.positions)
        no_dropout = np.random.default_rng(0)  # the agent is in evaluation mode, so the seeds of shards are not used
        with self._step.threads():
            self._step(self._step.shards(corpus, parts, no_dropout), len(readable))

    def _loss(self, model: nn.Module, batch: Batch, rows: Rows) -> Tensor:
        """(ln p_prior + σ · reward − ln p_agent)², summed over molecules: REINVENT's loss (Olivecrona et al. 2017)."""
        nll = token_nll(model(batch.inputs), batch.targets).sum(dim=1)
        with torch.no_grad():
            prior_nll = token_nll(self.prior(batch.inputs), batch.targets).sum(dim=1)
        augmented = self.config.sigma * self._rewards[torch.from_numpy(rows)] - prior_nll
        return (augmented + nll).square().sum()

    @torch.no_grad()
    def distance(self, smiles: Sequence[str]) -> float:
        """The mean of ln p_agent − ln p_prior over the agent's own draws, in nats: an estimate of the KL divergence."""
        encoded = [self.tokenizer.encode(one) or [] for one in smiles[:_FOR_DISTANCE] if self.fits(one)]
        if not encoded:
            return float("nan")
        corpus = Corpus.of(encoded, len(self.tokenizer))
        difference = 0.0
        with autocast(self._training.precision, self._runtime.device):
            for rows in similar_parts(np.arange(len(corpus)), corpus.positions):
                batch = corpus.batch(rows, self._runtime.device)
                of_prior, of_agent = (token_nll(m(batch.inputs), batch.targets).sum() for m in (self.prior, self.model))
                difference += float(of_prior - of_agent)
        return difference / len(corpus)
