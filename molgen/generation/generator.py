"""A trained run as an object: sample molecules from it, ask how likely it finds them."""

import os
from collections import Counter, deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from itertools import count, islice
from threading import Event
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from molgen.chem.pool import Workers, workers
from molgen.chem.properties import PROPERTIES, MoleculeFilter
from molgen.chem.smiles import RDKIT_VERSION
from molgen.data.batches import Corpus
from molgen.errors import MolgenError
from molgen.generation.decode import SamplingParams, decode
from molgen.model.decoder import Decoder
from molgen.model.likelihood import likelihood
from molgen.runs import Run, find_run
from molgen.runtime.device import Device, check_memory, choose_device, split_on_oom
from molgen.runtime.distributed import SINGLE_PROCESS, ProcessGroup
from molgen.runtime.hashing import Seen, keys_of
from molgen.runtime.threads import shared_threads, worker_threads
from molgen.tokenizer import SmilesTokenizer

if TYPE_CHECKING:
    from molgen.generation.notebook import MoleculeFrame

BATCH_ON_CPU, BATCH_ON_GPU = 2_048, 8_192
"""Molecules drawn at a time unless told otherwise."""
_MOST = 10**15
_LARGEST_BATCH = 1_000_000
BYTES_A_SAMPLE = 300  # of a sample that is held: its strings and what Python adds to each
_BYTES_REMEMBERED = 16  # `Seen` keeps 8, and as many again while it merges
_FEWEST_TRIED = 512  # draws at a time where some are rejected, even if fewer are asked for
# Rejection gives up when fewer than one in a thousand of the last ten thousand draws was kept.
_WINDOW, _LEAST_KEPT = 10_000, 10


class Sample(NamedTuple):
    """One molecule as drawn."""

    smiles: str
    """Empty if the draw was empty or unfinished."""
    canonical: str | None
    """RDKit's canonical SMILES, None if invalid."""
    unfinished: bool = False
    """Whether it hit the length limit."""


class RejectionRules(NamedTuple):
    """Rejection: which draws count. All but `unique` give exactly the conditional distribution."""

    valid: bool = False
    unique: bool = False
    novel: bool = False
    screen: MoleculeFilter = MoleculeFilter()

    @property
    def screens(self) -> bool:
        """Whether there is a filter on properties or patterns; only valid molecules pass one."""
        return self.screen != MoleculeFilter()


FILTERS = ("valid", *MoleculeFilter._fields, "novel", "unique")
"""In the order in which they are asked; a draw counts as rejected by the first that it fails."""


@dataclass
class SamplingStats:
    """What came of the draws so far."""

    draws: int = 0
    """Up to the last that was kept; what was drawn with it, after it, does not count."""
    kept: int = 0
    unfinished: int = 0
    """Of these draws."""
    gave_up: bool = False
    rejected: Counter[str] = field(default_factory=Counter)
    """Draws by the one of FILTERS that rejected them."""

    def gather(self, group: ProcessGroup) -> None:
        """Makes it the tally of all processes together."""
        rejected = [self.rejected[name] for name in FILTERS]
        counts = group.all_reduce_sum(
            np.array([self.draws, self.kept, self.unfinished, self.gave_up, *rejected])
        ).tolist()
        self.draws, self.kept, self.unfinished, gave_up = counts[:4]
        self.gave_up = bool(gave_up)
        self.rejected = Counter(dict(zip(FILTERS, counts[4:], strict=True)))


class MoleculeGenerator:
    """Samples and scores SMILES with a trained decoder.

    generator = MoleculeGenerator.load("runs/tox21")
    molecules = generator.sample(1000, seed=1)
    """

    def __init__(self, model: Decoder, tokenizer: SmilesTokenizer, run: Run | None = None) -> None:
        self.model, self.tokenizer, self.run = model, tokenizer, run
        self.device = model.embedding.weight.device
        self._halved = False  # whether batches are drawn in halves, for want of a GPU's memory

    @classmethod
    def load(cls, run: str | os.PathLike[str] | None = None, device: Device = "auto") -> "MoleculeGenerator":
        """From a run directory; left out, the newest under runs/. Raises MolgenError where there is none."""
        opened = find_run(None if run is None else os.fspath(run))
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
        where: str = "",
        smarts: str | Sequence[str] = (),
        not_smarts: str | Sequence[str] = (),
        no_alerts: bool = False,
        columns: str | Sequence[str] = (),
        batch_size: int | None = None,
    ) -> "MoleculeFrame":
        """A DataFrame of `n` molecules in the order in which they were started, which a notebook shows as pictures.

        Its columns are smiles (empty if the draw was empty or unfinished), canonical (None if invalid), valid, and
        those of `molgen.chem.properties.PROPERTIES` that are asked for. The same seed and batch size give the same
        molecules on the same device. With a filter (from `valid` to `no_alerts`) it draws until n satisfy it, fewer
        only if hardly any draw does. Raises MolgenError for arguments that are out of range or not understood.
        """
        from molgen.generation.notebook import MoleculeFrame  # with pandas, which the command line does without

        check_memory(f"n={n:,}", BYTES_A_SAMPLE * n)
        columns = (columns,) if isinstance(columns, str) else tuple(columns)
        for name in columns:
            if name not in PROPERTIES:
                raise MolgenError(f"columns: no property {name!r}", f"properties: {', '.join(PROPERTIES)}")
        needed, unwanted = ((s,) if isinstance(s, str) else tuple(s) for s in (smarts, not_smarts))
        screen = MoleculeFilter(where, needed, unwanted, no_alerts)
        filters, keep = SamplingParams(temperature, top_k, top_p), RejectionRules(valid, unique, novel, screen)
        with workers() as pool:
            stream = self.stream(
                n, filters, keep, pool, SamplingStats(), prompt=prompt, seed=seed, batch_size=batch_size
            )
            samples = [sample for batch in stream for sample in batch]
            told = pool.map("tabulate", [s.smiles for s in samples], columns=list(columns)) if columns else []
        frame = MoleculeFrame(
            {
                "smiles": [sample.smiles for sample in samples],
                "canonical": [sample.canonical for sample in samples],
                "valid": [sample.canonical is not None for sample in samples],
            }
        )
        for name in columns:
            frame[name] = [(answer or {}).get(name) for answer in told]
        return frame

    def stream(
        self,
        n: int,
        filters: SamplingParams,
        keep: RejectionRules,
        pool: Workers,
        tally: SamplingStats,
        *,
        prompt: str = "",
        seed: int = 0,
        batch_size: int | None = None,
        group: ProcessGroup = SINGLE_PROCESS,
    ) -> Iterator[list[Sample]]:
        """The samples batch by batch, each with its canonical form; `tally` is kept up to date.

        RDKit parses one batch while the next ones are drawn. In a team each process draws some of the batches.
        """
        if not 1 <= n <= _MOST:
            raise MolgenError(f"-n {n}: out of range", f"ask for 1 to {_MOST:,} molecules")
        asked = n
        if keep.unique and group.size > 1:
            raise MolgenError(
                "--unique: one process does not know what the others draw",
                "sample in one process, or into a .csv without --unique and keep one line of each canonical SMILES",
            )
        if keep.unique:
            check_memory(f"--unique: to remember {n:,} molecules", _BYTES_REMEMBERED * n)
        keep.screen.checked()
        largest = self._batch_size(batch_size)
        parts = batches_of(n, largest)
        batches: Iterable[tuple[int, int]]
        if keep != RejectionRules():
            rows = max(rows_before(1, n, parts), min(_FEWEST_TRIED, largest))
            n, batches = group.part(n), ((number, rows) for number in count(group.rank, group.size))
        else:
            mine = group.run_of(range(parts))
            # one after another: a list of all would grow with n
            batches = ((i, rows_before(i + 1, asked, parts) - rows_before(i, asked, parts)) for i in mine)
            n = rows_before(mine.stop, n, parts) - rows_before(mine.start, n, parts)
        known = self.training_set(pool) if keep.novel else frozenset()
        seen = Seen()
        window: deque[tuple[int, int]] = deque()  # (draws, kept) of the last batches
        with closing(self.strings(batches, filters, prompt=prompt, seed=seed)) as drawn_batches:
            while tally.kept < n and not tally.gave_up:
                texts = next(drawn_batches)
                batch: list[Sample] = []
                parsed = list(self._parsed(texts, keep, pool))
                keys = keys_of(s.canonical or s.smiles for s, _ in parsed) if keep.unique else np.empty(0, np.uint64)
                came_before, fresh = seen.has(keys), set[np.uint64]()
                for i, (sample, screened_by) in enumerate(parsed):
                    tally.draws, tally.unfinished = tally.draws + 1, tally.unfinished + sample.unfinished
                    if sample.canonical is None and (keep.valid or keep.novel or keep.screens):
                        tally.rejected["valid"] += 1
                    elif screened_by:
                        tally.rejected[screened_by] += 1
                    elif keep.novel and sample.canonical in known:
                        tally.rejected["novel"] += 1
                    elif keep.unique and (came_before[i] or keys[i] in fresh):
                        tally.rejected["unique"] += 1
                    else:
                        if keep.unique:
                            fresh.add(keys[i])
                        batch.append(sample)
                        if tally.kept + len(batch) == n:
                            break
                seen.add(np.array(list(fresh), np.uint64))
                tally.kept += len(batch)
                window.append((len(texts), len(batch)))
                while sum(draws for draws, _ in window) - window[0][0] >= _WINDOW:
                    window.popleft()
                drawn, kept = (sum(column) for column in zip(*window, strict=True))
                tally.gave_up = drawn >= _WINDOW and kept < _LEAST_KEPT and tally.kept < n
                yield batch

    @staticmethod
    def _parsed(texts: Sequence[str | None], keep: RejectionRules, pool: Workers) -> Iterator[tuple[Sample, str]]:
        """(sample, the filter of `keep.screen` that rejects it or an empty string) of each text."""
        smiles = [text or "" for text in texts]
        if keep.screens:
            answers = pool.map("screen", smiles, **keep.screen._asdict())
        else:
            answers = [(canonical, "") for canonical in pool.map("canonical", smiles)]
        for text, answer in zip(texts, answers, strict=True):
            canonical, screened_by = answer or (None, "")  # RDKit hung or crashed: invalid
            yield Sample(text or "", canonical, text is None), screened_by

    def strings(
        self, batches: Iterable[tuple[int, int]], filters: SamplingParams, *, prompt: str = "", seed: int = 0
    ) -> Generator[list[str | None]]:
        """What is drawn in each of some (number, rows) batches, as strings, in this order; None for an unfinished one.

        A batch's random numbers come from the seed and its number alone. Nothing is parsed.
        """
        if not 0 <= seed < 2**64:
            raise MolgenError(f"--seed {seed}: out of range", "0 to 2^64 - 1")
        filters, start = filters.checked(len(self.tokenizer)), self._prompt_ids(prompt)
        precision = self.run.config.training.precision if self.run else "auto"
        # The CPU's generator takes 32 bits: numbers in a row keep all batches of a run apart.
        first = int(np.random.SeedSequence(seed).generate_state(1)[0])
        stopped, never = Event(), self.tokenizer.suppressed_ids

        def draw_batch(number: int, rows: int) -> list[str | None]:
            def drawn(*parts: int) -> list[str | None]:
                random = torch.Generator(self.device).manual_seed((first + number) % 2**32)
                chunks = (
                    decode(self.model, start, n, filters, never, random, precision, stopped.is_set) for n in parts
                )
                return [text for ids in chunks for text in self.tokenizer.decode(ids.cpu().numpy())]

            if rows == 1:
                return drawn(1)
            half_batches = partial(drawn, rows - rows // 2, rows // 2)
            self._halved, texts = split_on_oom(self._halved, partial(drawn, rows), half_batches)
            return texts

        threads, waiting = worker_threads(self.device), iter(batches)
        ahead = list(islice(waiting, 2 * threads))  # so that no thread waits for who takes the results
        if len(ahead) == 1:
            yield draw_batch(*ahead[0])
            return
        with shared_threads(min(threads, len(ahead) or 1)) as executor:
            try:
                pending = deque(executor.submit(draw_batch, *batch) for batch in ahead)
                while pending:
                    yield pending.popleft().result()
                    pending.extend(executor.submit(draw_batch, *batch) for batch in islice(waiting, 1))
            finally:
                stopped.set()

    def log_likelihood(self, smiles: Sequence[str] | str) -> npt.NDArray[np.float64]:
        """ln p of each string and its `<eos>` in nats, (n,); NaN where it has unknown tokens or exceeds the context.

        One string is a list of one.
        """
        smiles = [smiles] if isinstance(smiles, str) else list(smiles)
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
        canonical_form = self.run.config.data.form == "canonical" and not self.run.has_random_forms
        if canonical_form and self.tokenizer.rdkit_version == RDKIT_VERSION:
            return frozenset(smiles)
        canonical = pool.map("canonical", smiles, "training set")
        return frozenset(s for s in canonical if s is not None)

    def _batch_size(self, asked: int | None) -> int:
        if asked is not None and not 1 <= asked <= _LARGEST_BATCH:
            raise MolgenError(f"--batch-size {asked}: out of range", f"1 to {_LARGEST_BATCH:,}")
        return asked or (BATCH_ON_CPU if self.device.type == "cpu" else BATCH_ON_GPU)

    def starts_like_training(self, prompt: str) -> bool | None:
        """Whether a training string begins with the prompt's tokens; None for a run that carries no molecules."""
        if self.run is None or self.run.names_its_source or not self.run.has_molecules:
            return None
        split = self.tokenizer.splitter.split
        wanted = split(prompt) or []
        alike = (smiles for smiles in self.run.split("train") if smiles.startswith(prompt))
        return any((split(smiles) or [])[: len(wanted)] == wanted for smiles in alike)

    def _prompt_ids(self, prompt: str) -> list[int]:
        """The ids of a prompt. Raises MolgenError for one that no SMILES can begin with, or none of this model."""
        if not prompt:
            return []
        unknown = self.tokenizer.unknown(prompt)
        if unknown:
            raise MolgenError(
                f"--prompt {prompt}: the vocabulary lacks {' '.join(unknown)}",
                "use tokens of the training set",
            )
        tokens = self.tokenizer.splitter.split(prompt) or []
        if not (tokens[0][0].isalpha() or tokens[0][0] in "[*"):
            raise MolgenError(f"--prompt {prompt}: begins with {tokens[0]}", "a SMILES begins with an atom")
        closed = [tokens[: i + 1].count(")") > tokens[:i].count("(") for i in range(len(tokens))]
        if any(closed):
            raise MolgenError(
                f"--prompt {prompt}: its token {closed.index(True) + 1} closes a branch that is not open",
                "open branches and rings may stay unfinished, but not be closed twice",
            )
        if len(tokens) >= self.model.context:
            raise MolgenError(f"--prompt: {len(tokens)} tokens, the context holds {self.model.context}", "shorten it")
        return self.tokenizer.encode(prompt) or []


def even_batches(n: int, largest: int) -> list[int]:
    """The sizes of batches for n molecules: about equal, and an even number of them, so that two threads end together.

    They do not depend on the machine, so neither do the molecules.
    """
    parts = batches_of(n, largest)
    return [rows_before(i + 1, n, parts) - rows_before(i, n, parts) for i in range(parts)]


def batches_of(n: int, largest: int) -> int:
    """How many batches `even_batches` makes."""
    parts = -(-n // largest)
    return parts + (parts % 2 if n > _FEWEST_TRIED else 0)


def rows_before(batch: int, n: int, parts: int) -> int:
    """How many of n molecules in so many even batches are in those before one of them."""
    return n // parts * batch + min(batch, n % parts)
