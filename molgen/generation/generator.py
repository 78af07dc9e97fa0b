"""MoleculeGenerator: samples molecules from a trained run and computes their log-likelihoods."""

import logging
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import cached_property, partial
from itertools import count, islice
from threading import Event
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from molgen.chem.conditions import Condition
from molgen.chem.descriptors import PROPERTIES
from molgen.chem.filters import MoleculeFilter
from molgen.chem.fragments import keep_of, numbered
from molgen.chem.kept import columns_of
from molgen.chem.smiles import RDKIT_VERSION
from molgen.data.batches import Corpus
from molgen.errors import MolgenError
from molgen.generation.answers import Answers, as_cells
from molgen.generation.decode import SamplingParams, decode
from molgen.generation.growth import Growth
from molgen.generation.options import SampleOptions
from molgen.generation.rejection import RejectionRules, Sample, SampleStream, SamplingStats, select
from molgen.machine import Runtime
from molgen.model.decoder import Decoder
from molgen.model.guidance import GuidedDecoder
from molgen.model.likelihood import likelihood
from molgen.prediction.columns import PredictedCondition, predicted_columns, predicted_names
from molgen.prediction.predictor import RunPredictor
from molgen.runs import PREDICTORS, Run, find_run
from molgen.runtime.device import Device, Precision, check_memory, split_on_oom
from molgen.runtime.threads import shared_threads, worker_threads
from molgen.tokenizer import SmilesTokenizer

if TYPE_CHECKING:
    from molgen.generation.notebook import MoleculeFrame

logger = logging.getLogger(__name__)

DrawBatch = Callable[[int, int], list[str | None]]
"""(number of a batch, rows) → strings, None for an unfinished one."""
BATCH_ON_CPU, BATCH_ON_GPU = 2_048, 8_192
"""Default batch sizes, for molecules of up to 256 tokens."""
_CONTEXT_OF_BATCH = 256  # in a longer context a batch has fewer rows, because a state may need memory for each position
BYTES_PER_SAMPLE = 300  # memory of a sample: its strings with Python's overhead
_FEWEST_TRIED = 512  # minimum batch size if draws may be rejected, also for fewer samples
_FEWEST_GROWN = 128  # the same for draws that are grown from fragments


class MoleculeGenerator:
    """Samples and scores SMILES with a trained decoder.

    generator = MoleculeGenerator.load("runs/tox21")
    molecules = generator.sample(1000, seed=1)
    """

    def __init__(
        self, model: Decoder, tokenizer: SmilesTokenizer, run: Run | None = None, runtime: Runtime | None = None
    ) -> None:
        self.model, self.tokenizer, self.run = model, tokenizer, run
        self.device = model.embedding.weight.device
        self.runtime = runtime or Runtime(self.device)
        self._half_batches = False  # after CUDA out-of-memory

    @classmethod
    def load(
        cls, run: str | os.PathLike[str] | None = None, device: Device = "auto", runtime: Runtime | None = None
    ) -> "MoleculeGenerator":
        """Loads a run directory, by default the newest under runs/. Raises MolgenError if there is none."""
        opened = find_run(None if run is None else os.fspath(run))
        runtime = runtime or Runtime(device)
        return cls(opened.model(runtime.device), opened.tokenizer, opened, runtime)

    def sample(
        self,
        n: int = 100,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        prompt: str = "",
        keep: str = "",
        close: bool = False,
        condition: str = "",
        guidance: float = 1.0,
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
        """A DataFrame of `n` molecules in the order in which they were drawn; a notebook shows it with pictures.

        Its columns are smiles (empty if the draw was empty or unfinished), canonical (None if invalid), valid, and
        the requested `columns`, which are names of `molgen.chem.descriptors.PROPERTIES` or of predictions. With `keep`,
        fragments with points such as "[*:1]c1ccccc1" that all molecules contain, also those of
        `molgen.chem.kept.columns_of`; `close` joins its two points to a ring. With `condition`, a text such as
        "logp = 2.5, pIC50 = 8", also a column of what was asked for and of what came for each; `guidance` above 1 holds
        it closer. The same seed and batch size
        give the same molecules on the same device. With filters (from `valid` to `no_alerts`) it draws until n
        molecules pass them; there are fewer if almost no draw passes. Raises MolgenError for invalid arguments.
        """
        from molgen.generation.notebook import MoleculeFrame  # imports pandas, which the command line does not need

        check_memory(f"n={n:,}", BYTES_PER_SAMPLE * n)
        columns = (columns,) if isinstance(columns, str) else tuple(columns)
        kept = numbered(keep, close) if keep else ""
        predictions = predicted_names(self.run.targets) if self.run is not None else []
        known = [*PROPERTIES, *(columns_of(keep_of(kept)) if kept else ()), *predictions]
        for name in columns:
            if name not in known:
                raise MolgenError(f"columns: no property {name!r}", f"properties: {', '.join(known)}")
        needed, unwanted = ((s,) if isinstance(s, str) else tuple(s) for s in (smarts, not_smarts))
        rules = RejectionRules(valid, unique, novel, MoleculeFilter(where, needed, unwanted, no_alerts))
        params = SamplingParams(temperature, top_k, top_p)
        options = SampleOptions(n, params, rules, prompt, seed, batch_size, kept, condition, guidance)
        samples = [sample for batch in self.stream(options) for sample in batch]
        smiles = [sample.smiles for sample in samples]
        cells = [name for name in columns if name in PROPERTIES]
        properties = self.runtime.workers.map("tabulate", smiles, columns=cells, keep=kept) if columns else []
        predicted = {}
        if self.predictor is not None and set(columns) & set(predictions):
            predicted = predicted_columns(self.predictor, [sample.canonical or "" for sample in samples])
        frame = MoleculeFrame(
            {
                "smiles": smiles,
                "canonical": [sample.canonical for sample in samples],
                "valid": [sample.canonical is not None for sample in samples],
            }
        )
        for name in columns:
            frame[name] = predicted[name] if name in predicted else [(row or {}).get(name) for row in properties]
        if (answers := self.answers(condition)) is not None:
            for name, values in as_cells(answers, [sample.canonical for sample in samples]).items():
                frame[name] = values
        return frame

    def stream(self, options: SampleOptions) -> SampleStream:
        """The samples batch by batch, each with its canonical SMILES, and the statistics of the draws.

        RDKit parses one batch while the next ones are drawn. In a process group each process draws some of the batches.
        Raises MolgenError for invalid options.
        """
        options = self._with_predictions(options)
        options.check(self.runtime.group)
        stats = SamplingStats(keeps=bool(options.keep))
        model = self.conditioned(options.condition, options.guidance)
        growth = self.growth(options.keep, model) if options.keep else None

        def samples() -> Iterator[list[Sample]]:
            n, batches = self._batches(options)
            training = self.training_set() if options.rules.novel else frozenset()
            if growth is not None:
                drawn = self.grown(growth, batches, options.params, options.seed, in_rounds=options.only_keeps)
            else:
                drawn = self.strings(batches, options.params, prompt=options.prompt, seed=options.seed, model=model)
            with closing(drawn) as draws:
                yield from select(draws, n, options.kept_rules, training, self.runtime.workers, stats)

        return SampleStream(options.n, samples(), stats)

    def conditioned(self, condition: str, guidance: float = 1.0) -> Decoder:
        """The model given what a text such as `logp = 2.5` asks for; without a text the model itself.

        Logs how well training covers what is asked for. Raises MolgenError for a text that the run cannot read.
        """
        if not condition:
            return self.model
        if self.run is None:
            raise MolgenError("this generator has no conditions", "load it from a run")
        if self.run.config.data.given:
            raise MolgenError(
                f"{self.run.path}: was optimised under {self.run.config.data.given}, and samples are given that",
                "leave --condition out",
            )
        table = self.run.condition_table
        if self.runtime.group.is_main:
            for is_warning, line in table.remarks(table.parse(condition)):
                (logger.warning if is_warning else logger.info)(line)
        given = self.run.under_condition(self.model, condition)
        return given if guidance == 1 else GuidedDecoder(given, guidance)

    def answers(self, condition: str) -> Answers | None:
        """What compares samples with what they were asked for, or the run was; None if nothing was."""
        condition = condition or (self.run.config.data.given if self.run is not None else "")
        if not condition or self.run is None:
            return None
        table = self.run.condition_table
        return Answers(table.parse(condition), table, self.runtime.workers, self.predictor)

    @cached_property
    def predictor(self) -> RunPredictor | None:
        """What predicts the run's targets; None for a run without targets, and for one whose training has not ended."""
        if self.run is None or not self.run.targets or not (self.run.path / PREDICTORS).exists():
            return None
        return RunPredictor(self.run, self.runtime)

    def _with_predictions(self, options: SampleOptions) -> SampleOptions:
        """The options with a condition on predictions apart from the filter, which the workers apply."""
        where = options.rules.filter.where
        if not where or self.run is None or not self.run.targets:
            return options
        predicted = set(predicted_names(self.run.targets))
        if predicted.isdisjoint(Condition(where).names):
            return options
        predictor = self.predictor or RunPredictor(self.run, self.runtime)  # says what is missing
        condition = PredictedCondition(where, predictor, self.runtime.workers)
        rules = options.rules._replace(filter=options.rules.filter._replace(where=""), predicted=condition)
        return replace(options, rules=rules)

    def _default_batch(self) -> int:
        """Rows of a batch: the fewer, the longer the context."""
        rows = BATCH_ON_CPU if self.device.type == "cpu" else BATCH_ON_GPU
        return max(1, rows * _CONTEXT_OF_BATCH // max(self.model.context, _CONTEXT_OF_BATCH))

    def _batches(self, options: SampleOptions) -> tuple[int, Iterable[tuple[int, int]]]:
        """(number of samples for this process, the (number, rows) of each batch that it draws)."""
        n, group = options.n, self.runtime.group
        largest = options.batch_size or self._default_batch()
        parts = batches_of(n, largest)
        if options.kept_rules != RejectionRules():
            least = _FEWEST_GROWN if options.keep else _FEWEST_TRIED  # of those a draw takes longer
            if options.only_keeps:
                enough = n + n // 8 + 8
                least = rows_before(1, enough, batches_of(enough, largest))
            rows = max(rows_before(1, n, parts), min(least, largest))
            return group.part(n), ((number, rows) for number in count(group.rank, group.size))
        mine = group.run_of(range(parts))
        # a generator, because a list would grow with n
        batches = ((i, rows_before(i + 1, n, parts) - rows_before(i, n, parts)) for i in mine)
        return rows_before(mine.stop, n, parts) - rows_before(mine.start, n, parts), batches

    def strings(
        self,
        batches: Iterable[tuple[int, int]],
        params: SamplingParams,
        *,
        prompt: str = "",
        seed: int = 0,
        model: Decoder | None = None,
    ) -> Generator[list[str | None]]:
        """The strings drawn in each (number, rows) batch, in this order and not parsed; None for an unfinished one.

        `model` draws in place of the generator's own, such as one of `conditioned`. A batch's random numbers depend
        only on the seed and its number. Raises MolgenError for invalid arguments.
        """
        params, start, first = params.checked(len(self.tokenizer)), self._prompt_ids(prompt), _first_seed(seed)
        stopped, suppressed_ids, precision = Event(), self.tokenizer.suppressed_ids, self._precision
        drawer = self.model if model is None else model

        def draw_batch(number: int, rows: int) -> list[str | None]:
            def drawn(*parts: int) -> list[str | None]:
                random = torch.Generator(self.device).manual_seed((first + number) % 2**32)
                chunks = (
                    decode(drawer, start, n, params, suppressed_ids, random, precision, stopped.is_set) for n in parts
                )
                return [text for ids in chunks for text in self.tokenizer.decode(ids.cpu().numpy())]

            if rows == 1:
                return drawn(1)
            half_batches = partial(drawn, rows - rows // 2, rows // 2)
            self._half_batches, texts = split_on_oom(self._half_batches, partial(drawn, rows), half_batches)
            return texts

        yield from self._drawn(batches, draw_batch, stopped)

    def grown(
        self,
        growth: Growth,
        batches: Iterable[tuple[int, int]],
        params: SamplingParams,
        seed: int,
        *,
        in_rounds: bool = False,
    ) -> Generator[list[str | None]]:
        """As `strings`, of molecules that are grown from what is kept.

        With `in_rounds` no batch is begun before those of a round have been taken: for few batches that are enough.
        """
        params, first, stopped = params.checked(len(self.tokenizer)), _first_seed(seed), Event()

        def draw_batch(number: int, rows: int) -> list[str | None]:
            return growth.draw(rows, params, (first + number) % 2**32, stopped.is_set)

        yield from self._drawn(batches, draw_batch, stopped, in_rounds)

    def _drawn(
        self, batches: Iterable[tuple[int, int]], draw_batch: DrawBatch, stopped: Event, in_rounds: bool = False
    ) -> Generator[list[str | None]]:
        """The batches in their order, several at a time on a CPU."""
        threads, waiting = worker_threads(self.device), iter(batches)
        first = max(2, threads) if in_rounds else 2 * threads  # so that no thread waits for the consumer of the results
        ahead = list(islice(waiting, first))
        if len(ahead) == 1:
            yield draw_batch(*ahead[0])
            return
        with shared_threads(min(threads, len(ahead) or 1)) as executor:
            try:
                pending = deque(executor.submit(draw_batch, *batch) for batch in ahead)
                while pending:
                    yield pending.popleft().result()
                    more = 1 if not in_rounds else 0 if pending else first
                    pending.extend(executor.submit(draw_batch, *batch) for batch in islice(waiting, more))
            finally:
                stopped.set()

    def growth(self, keep: str, model: Decoder | None = None) -> Growth:
        """What grows molecules from the fragments of `molgen.chem.fragments.numbered`.

        Raises MolgenError for fragments that the run cannot read; logs a warning for a run that saw no random SMILES.
        """
        growth = Growth(
            self.model if model is None else model, self.tokenizer, keep, self.runtime.workers, self._precision
        )
        if not growth.knows_random_forms:
            logger.warning(
                "--keep: this run has seen canonical SMILES only, and prompts are random SMILES: expect molecules that "
                "are larger and odder than the run's own, and more draws lost; train with training.randomized=0.5"
            )
        return growth

    @property
    def _precision(self) -> Precision:
        return self.run.config.training.precision if self.run else "auto"

    def log_likelihood(self, smiles: Sequence[str] | str) -> npt.NDArray[np.float64]:
        """ln p of each string and its `<eos>` in nats, (n,); NaN for unknown tokens or strings beyond the context.

        A single string is a list of one.
        """
        smiles = [smiles] if isinstance(smiles, str) else list(smiles)
        encoded = [self.tokenizer.encode(s) for s in smiles]
        fits = [i for i, ids in enumerate(encoded) if ids is not None and len(ids) <= self.model.context]
        result = np.full(len(smiles), np.nan)
        if fits:
            corpus = Corpus.of([encoded[i] or [] for i in fits], len(self.tokenizer))
            result[fits] = -likelihood(self.model, corpus, self.device).nll
        return result

    def training_set(self) -> frozenset[str]:
        """Canonical SMILES of the training split. Raises MolgenError if the run's molecules are not available."""
        if self.run is None:
            raise MolgenError("this generator has no training set", "load it from a run")
        smiles = self.run.split("train")
        canonical_form = self.run.config.data.form == "canonical" and not self.run.has_random_forms
        if canonical_form and self.tokenizer.rdkit_version == RDKIT_VERSION:
            return frozenset(smiles)
        canonical = self.runtime.workers.map("canonical", smiles, "training set")
        return frozenset(s for s in canonical if s is not None)

    def starts_like_training(self, prompt: str) -> bool | None:
        """Whether a training string begins with the prompt's tokens; None if the run contains no molecules."""
        if self.run is None or self.run.names_its_source or not self.run.has_molecules:
            return None
        split = self.tokenizer.splitter.split
        tokens = split(prompt) or []
        candidates = (smiles for smiles in self.run.split("train") if smiles.startswith(prompt))
        return any((split(smiles) or [])[: len(tokens)] == tokens for smiles in candidates)

    def _prompt_ids(self, prompt: str) -> list[int]:
        """The ids of a prompt. Raises MolgenError if no SMILES, or no sample of this model, can begin with it."""
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


def _first_seed(seed: int) -> int:
    """The seed of the first batch. The CPU's generator has 32 bits; all batches of consecutive seeds get other ones.

    Raises MolgenError for a seed out of range.
    """
    if not 0 <= seed < 2**64:
        raise MolgenError(f"--seed {seed}: out of range", "0 to 2^64 - 1")
    return int(np.random.SeedSequence(seed).generate_state(1)[0])


def sample(
    run: str | os.PathLike[str] | None = None, n: int = 100, *, device: Device = "auto", **options: Any
) -> "MoleculeFrame":
    """`n` molecules of a run (by default the newest) as a DataFrame; the options are those of MoleculeGenerator.sample.

    Raises MolgenError if there is no such run, and for invalid options.
    """
    return MoleculeGenerator.load(run, device).sample(n, **options)


def even_batches(n: int, largest: int) -> list[int]:
    """Batch sizes for n molecules: about equal, and an even number of batches, so that two threads end together.

    The sizes do not depend on the machine, so that the molecules do not either.
    """
    parts = batches_of(n, largest)
    return [rows_before(i + 1, n, parts) - rows_before(i, n, parts) for i in range(parts)]


def batches_of(n: int, largest: int) -> int:
    """The number of batches that `even_batches` makes."""
    parts = -(-n // largest)
    return parts + (parts % 2 if n > _FEWEST_TRIED else 0)


def rows_before(batch: int, n: int, parts: int) -> int:
    """The number of molecules in the batches before number `batch`, if n molecules are in `parts` even batches."""
    return n // parts * batch + min(batch, n % parts)
