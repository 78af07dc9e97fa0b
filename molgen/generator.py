"""A trained run as an object: sample molecules from it, ask how likely it finds them."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from molgen.batches import Corpus
from molgen.config import Device
from molgen.errors import MolgenError
from molgen.likelihood import likelihood
from molgen.model.decoder import Decoder
from molgen.molecules import RDKIT_VERSION
from molgen.optim import choose_device
from molgen.processes import ALONE, Team
from molgen.runs import Run, find_run
from molgen.sampling import Filters, decode
from molgen.tokenizer import SmilesTokenizer
from molgen.workers import Workers, workers

# Rejection gives up when fewer than one in a thousand of the last ten thousand draws was kept.
_WINDOW, _LEAST_KEPT = 10_000, 10


class Sample(NamedTuple):
    """One molecule as drawn."""

    smiles: str
    """Empty if the draw was empty or unfinished."""
    canonical: str | None
    """RDKit's canonical SMILES, None if invalid."""


class Keep(NamedTuple):
    """Rejection: which draws count. `valid` and `novel` give exactly the conditional distribution."""

    valid: bool = False
    unique: bool = False
    novel: bool = False


@dataclass
class Tally:
    """What came of the draws so far."""

    draws: int = 0
    kept: int = 0
    unfinished: int = 0
    gave_up: bool = False

    def gather(self, team: Team) -> None:
        """Makes it the tally of all processes together."""
        counts = team.sum(np.array([self.draws, self.kept, self.unfinished, self.gave_up]))
        self.draws, self.kept, self.unfinished = counts[:3].tolist()
        self.gave_up = bool(counts[3])


class MoleculeGenerator:
    """Samples and scores SMILES with a trained decoder.

    generator = MoleculeGenerator.load("runs/tox21")
    smiles = generator.sample(1000, seed=1)
    """

    def __init__(self, model: Decoder, tokenizer: SmilesTokenizer, run: Run | None = None) -> None:
        self.model, self.tokenizer, self.run = model, tokenizer, run
        self.device = model.embedding.weight.device

    @classmethod
    def load(cls, run: str | Path | None = None, device: Device = "auto") -> "MoleculeGenerator":
        """From a run directory; left out, the newest under runs/. Raises MolgenError where there is none."""
        opened = find_run(None if run is None else str(run))
        return cls(opened.model(choose_device(device)), opened.tokenizer, opened)

    def sample(
        self,
        n: int = 100,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        prompt: str = "",
        seed: int = 0,
        valid: bool = False,
        unique: bool = False,
        novel: bool = False,
        batch_size: int = 512,
    ) -> list[str]:
        """`n` SMILES in the order in which they were started; an empty or unfinished one is an empty string.

        The same seed and batch size give the same molecules on the same device. With `valid`, `unique` or `novel`
        it draws until n satisfy them, fewer only if hardly any draw does.
        """
        filters, keep = Filters(temperature, top_k, top_p), Keep(valid, unique, novel)
        with workers() as pool:
            stream = self.stream(n, filters, keep, pool, Tally(), prompt=prompt, seed=seed, batch_size=batch_size)
            return [sample.smiles for batch in stream for sample in batch]

    def stream(
        self,
        n: int,
        filters: Filters,
        keep: Keep,
        pool: Workers,
        tally: Tally,
        *,
        prompt: str = "",
        seed: int = 0,
        batch_size: int = 512,
        team: Team = ALONE,
    ) -> Iterator[list[Sample]]:
        """The samples batch by batch, each with its canonical form; `tally` is kept up to date.

        In a team each process draws its part of the n, from random numbers of its own.
        """
        if n < 1:
            raise MolgenError(f"-n {n}: out of range", "ask for at least one molecule")
        if batch_size < 1:
            raise MolgenError(f"--batch-size {batch_size}: out of range", "at least 1")
        if not 0 <= seed < 2**64:
            raise MolgenError(f"--seed {seed}: out of range", "0 to 2^64 - 1")
        if keep.unique and team.size > 1:
            raise MolgenError(
                "--unique: one process does not know what the others draw",
                "sample in one process, or into a .csv without --unique and keep one line of each canonical SMILES",
            )
        filters = filters.checked(len(self.tokenizer))
        n, seed = team.part(n), team.own_seed(seed)
        start = self._prompt_ids(prompt)
        known = self.training_set(pool) if keep.novel else frozenset()
        seen: set[str] = set()
        window: deque[tuple[int, int]] = deque()  # (draws, kept) of the last batches
        random = torch.Generator(self.device).manual_seed(seed)
        rejecting = any(keep)
        while tally.kept < n and not tally.gave_up:
            rows = batch_size if rejecting else min(batch_size, n - tally.kept)
            ids = decode(self.model, start, rows, filters, self.tokenizer.never_drawn, random).cpu().numpy()
            texts = self.tokenizer.decode(ids)
            tally.unfinished += sum(text is None for text in texts)
            samples = [text or "" for text in texts]
            batch: list[Sample] = []
            for sample in map(Sample, samples, pool.map("canonical", samples)):
                tally.draws += 1
                if keep.valid and sample.canonical is None:
                    continue
                if keep.novel and (sample.canonical is None or sample.canonical in known):
                    continue
                if keep.unique:
                    key = sample.canonical or sample.smiles
                    if key in seen:
                        continue
                    seen.add(key)
                batch.append(sample)
                if tally.kept + len(batch) == n:
                    break
            tally.kept += len(batch)
            window.append((rows, len(batch)))
            while sum(draws for draws, _ in window) - window[0][0] >= _WINDOW:
                window.popleft()
            drawn, kept = (sum(column) for column in zip(*window, strict=True))
            tally.gave_up = drawn >= _WINDOW and kept < _LEAST_KEPT and tally.kept < n
            yield batch

    def log_likelihood(self, smiles: Sequence[str]) -> npt.NDArray[np.float64]:
        """ln p of each string and its `<eos>` in nats, (n,); NaN where it has unknown tokens or exceeds the context."""
        encoded = [self.tokenizer.encode(s) for s in smiles]
        fits = [i for i, ids in enumerate(encoded) if ids is not None and len(ids) <= self.model.context]
        result = np.full(len(smiles), np.nan)
        if fits:
            corpus = Corpus.of([encoded[i] or [] for i in fits], len(self.tokenizer))
            result[fits] = -likelihood(self.model, corpus, self.device).nll
        return result

    def training_set(self, pool: Workers) -> frozenset[str]:
        """Canonical SMILES of the training split. Raises MolgenError for a run that carries no molecules."""
        if self.run is None:
            raise MolgenError("this generator has no training set", "load it from a run")
        smiles = self.run.split("train")
        if self.run.config.data.form == "canonical" and self.tokenizer.rdkit_version == RDKIT_VERSION:
            return frozenset(smiles)
        canonical = pool.map("canonical", smiles, "training set")
        return frozenset(s for s in canonical if s is not None)

    def _prompt_ids(self, prompt: str) -> list[int]:
        if not prompt:
            return []
        unknown = self.tokenizer.unknown(prompt)
        if unknown:
            raise MolgenError(
                f"--prompt {prompt}: the vocabulary lacks {' '.join(unknown)}",
                "use tokens of the training set",
            )
        ids = self.tokenizer.encode(prompt) or []
        if len(ids) >= self.model.context:
            raise MolgenError(f"--prompt: {len(ids)} tokens, the context holds {self.model.context}", "shorten it")
        return ids
