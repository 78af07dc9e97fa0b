"""Set-up of a training: its run directory, new or to resume, and its data.

The molecules come from a dataset or from an encoded file; only this module distinguishes the two.
"""

import copy
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from molgen.checkpoint import save_state
from molgen.config import Config, validate
from molgen.data.batches import Corpus, Mixture, TrainingData
from molgen.data.conditions import condition_table, save_conditions
from molgen.data.dataset import Dataset, Summary, account, build_dataset
from molgen.data.description import too_long_line
from molgen.data.download import data_directory
from molgen.data.encoded_file import MOST_AS_STRINGS, CorpusFile, is_encoded
from molgen.data.labels import LabelArrays
from molgen.data.prepare import build_tokenizer
from molgen.data.sources import read_source
from molgen.errors import MolgenError
from molgen.machine import Runtime
from molgen.runs import CONDITIONS, MOLECULES, MOST_COPIED, REPORT, STATE, Run, create_run
from molgen.runtime.cache import LARGE, Arrays, cached, expect
from molgen.runtime.distributed import ProcessGroup
from molgen.tokenizer import RANDOM, SmilesTokenizer, deepchem_pattern
from molgen.training.finetune import (
    count_known,
    describe,
    has_same_conditions,
    inherit_model_config,
    initial_model,
    with_found_init,
    without_known,
)
from molgen.training.optim import build_optimizer
from molgen.training.resume import TrainerState, check_unchanged, resume_fingerprint

logger = logging.getLogger(__name__)

_ENCODED = "1"  # increase it when the cached result of `_encoded` changes


class DatasetSource:
    """Molecules from a named dataset or a file; only the main process reads them."""

    encoded_from: str | None = None

    def __init__(self, config: Config) -> None:
        self.config = config
        self._dataset = Dataset(config.data.source, (), ())

    @property
    def summary(self) -> Summary:
        """The part of the report about the molecules; only in the main process."""
        return self._dataset.summary

    def prepare(self, out: Path, resume: bool, runtime: Runtime) -> str:
        """Cleans and splits the molecules and creates the run directory; on resuming reads it. Returns their hash."""
        config, workers = self.config, runtime.workers  # the workers start while DeepChem is imported
        if resume:
            run = Run(out)
        pretrained = None
        if config.training.init is not None and not (resume and (out / STATE).exists()):
            pretrained, config = inherit_model_config(config, out)
        if resume and (out / MOLECULES).exists():
            labels = run.labels if config.data.targets else {}
            dataset = Dataset(config.data.source, tuple(run.molecules), tuple(run.dropped), labels)
        else:
            rows = read_source(config.data)
            logger.info(f"{config.data.source}: {len(rows):,} rows; loading DeepChem's tokenizer, cleaning, splitting")
            pattern = deepchem_pattern()
            pretrained_tokens = frozenset(pretrained.tokenizer.tokens if pretrained else ())
            dataset = build_dataset(rows, config.data, config.model.context, pattern, workers, pretrained_tokens)
            if pretrained and config.data.targets and not pretrained.targets:  # it has not seen their values
                count_known(dataset, pretrained, workers)
            elif pretrained:
                dataset = without_known(dataset, pretrained, workers)
        logger.info(", ".join(f"{name} {size:,}" for name, size in dataset.sizes.items()))
        for line in account(dataset.dropped):
            logger.info(line)
        if not resume:
            may_grow = pretrained is None or config.model.positions != "learned"
            if may_grow and (line := too_long_line(dataset, config, pattern, workers)):
                logger.info(line)
            tokenizer = build_tokenizer(config, dataset, pattern, pretrained.tokenizer if pretrained else None)
            run = create_run(out, config, tokenizer, dataset.molecules, dataset.dropped, dataset.labels)
            if config.data.conditions:
                same = pretrained is not None and has_same_conditions(config, pretrained)
                scales = pretrained.condition_table.scales if pretrained is not None and same else None
                splits = {"train": dataset.split("train"), "validation": _readable(dataset, tokenizer)}
                table = condition_table(config, dataset.labels, splits, workers, scales)
                save_conditions(run.path / CONDITIONS, table)
        if pretrained is not None:
            _save_initial_state(run, pretrained, dataset)
        self._dataset = dataset
        return dataset.sha256

    def training_data(self, run: Run, group: ProcessGroup) -> TrainingData:
        """The data that the main process has read, in every process."""
        dataset, tokenizer = self._dataset, run.tokenizer
        canonical_smiles = dataset.split("train")
        corpus = _encoded(canonical_smiles, tokenizer).shared(group)
        validation = _with_known_tokens(dataset.split("validation"), tokenizer, group)
        data = TrainingData(corpus, validation, canonical_smiles, tokenizer)
        if run.conditions:
            _check_conditions(run, data)
        if targets := len(run.config.data.targets):
            readable = _readable(dataset, tokenizer)
            labels = {
                split: _shared_labels(LabelArrays.of(dataset.labels, smiles, targets), group)
                for split, smiles in (("train", canonical_smiles), ("validation", readable))
            }
            return replace(data, labels=labels)
        if (shares := run.config.data.sources) is None:
            return data
        numbers = {source: number for number, source in enumerate(shares)}
        sources = [numbers[m.source] for m in dataset.molecules if m.split == "train"]
        shared = group.broadcast({"sources": np.array(sources, dtype=np.int64)})["sources"]
        held_out = (m for m in dataset.molecules if m.split == "validation" and tokenizer.encode(m.smiles))
        return replace(
            data,
            mixture=Mixture(shared, tuple(shares.values()), run.config.training.seed),
            validation_sources=Counter(m.source for m in held_out),
        )


class EncodedSource:
    """Molecules from an encoded file, which every process maps into memory."""

    def __init__(self, config: Config, file: CorpusFile) -> None:
        self.config, self._file = config, file
        self.summary, self.encoded_from = file.summary, file.made_of

    def prepare(self, out: Path, resume: bool, _: Runtime) -> str:
        """Checks the file and creates the run directory unless it resumes; returns the hash of the file's arrays."""
        config, file, sizes = self.config, self._file, self.summary.sizes
        logger.info(f"{file.path}: encoded from {file.made_of}")
        logger.info(", ".join(f"{name} {size:,}" for name, size in sizes.items()))
        lengths = file.check(config.model.context)
        if lengths.too_long:
            raise MolgenError(
                f"{file.path}: {lengths.too_long:,} molecules are longer than model.context {config.model.context}",
                f"--set model.context={lengths.longest} takes all",
            )
        if lengths.random and config.training.randomizes:
            raise MolgenError(
                f"{file.path}: {lengths.random:,} of its molecules are random forms already, so training.randomized"
                " would show them as canonical ones",
                "--set training.randomized=0 --set training.randomized_end=0, "
                "or encode the molecules without random forms",
            )
        for name in ("train", "validation"):
            if not sizes.get(name):
                raise MolgenError(f"{file.path}: no {name} molecules", "encode molecules of all splits")
        if not resume:
            # a table of strings would not say which ones are random forms
            copied = sum(sizes.values()) <= MOST_COPIED and not lengths.random
            create_run(out, config, file.tokenizer, file.molecules() if copied else None, None)
        return lengths.sha256

    def training_data(self, run: Run, group: ProcessGroup) -> TrainingData:
        """The file's splits, memory-mapped; as strings only in the main process and only for randomised SMILES."""
        as_strings = group.is_main and run.config.training.randomizes
        canonical_smiles = self._file.strings("train") if as_strings else []
        return TrainingData(self._file.split("train"), self._file.split("validation"), canonical_smiles, run.tokenizer)


def open_source(config: Config, out: Path, resume: bool) -> DatasetSource | EncodedSource:
    """The source of the molecules, with the configuration that matches it.

    A resumed training needs the same molecules. Raises MolgenError if `config` does not match an encoded file.
    """
    if resume:
        return EncodedSource(config, Run(out).corpus_file) if config.data.sha256 else DatasetSource(config)
    if is_encoded(config.data.source):
        file = CorpusFile(Path(config.data.source))
        return EncodedSource(apply_encoded_settings(config, file), file)
    if config.data.sha256:
        raise MolgenError(f"data.sha256: {config.data.source} is no encoded file", "leave it out")
    return DatasetSource(with_found_init(config))


def prepare_run(
    source: DatasetSource | EncodedSource, out: Path, resume: bool, force: bool, runtime: Runtime
) -> tuple[Run, TrainingData, dict[str, str]]:
    """(the run, its training data, the fingerprint for its state); the fingerprint is empty in the other processes.

    Only the main process reads a dataset and writes the run; the others wait for it.
    """
    fingerprint: dict[str, str] = {}
    if runtime.group.is_main:
        _check_directory(out, resume, force)
        _ = runtime.device  # raises an error for a device that is not available before anything is read
        molecules = source.prepare(out, resume, runtime)
        fingerprint = resume_fingerprint(Run(out), molecules)
        if resume:
            check_unchanged(Run(out), fingerprint)
    run = Run(Path(runtime.group.broadcast_str(str(out))))
    return run, source.training_data(run, runtime.group), fingerprint


def apply_encoded_settings(config: Config, file: CorpusFile) -> Config:
    """The configuration of a training on an encoded file: the file's data settings, random SMILES only on request.

    Raises MolgenError for a setting that differs from the file's, and for settings that need the molecules as strings.
    """
    if config.training.init is not None:
        raise MolgenError(
            f"{file.path}: has a vocabulary of its own, so --init cannot use it",
            f"give the molecules themselves: {file.made_of}",
        )
    for key in sorted(config.data.model_fields_set - {"source"}):
        here, there = getattr(config.data, key), getattr(file.data, key)
        if here != there:
            raise MolgenError(
                f"data.{key}: {here} in the configuration, {there} in {file.path}",
                "the file was cleaned and split when it was encoded: leave it out, or encode again",
            )
    values = config.model_dump()
    values["data"] = file.data.model_dump()
    if (file.data.max_tokens or 0) > config.model.context:  # `prepare` checks the actual lengths
        values["data"]["max_tokens"] = None
    for key in {"randomized", "randomized_end"} - config.training.model_fields_set:
        values["training"][key] = 0.0
    config = validate(values, str(file.path))
    size = file.summary.sizes.get("train", 0)
    if config.training.randomizes and size > MOST_AS_STRINGS:
        raise MolgenError(
            f"training.randomized: {size:,} training molecules are too many to be written otherwise in each epoch",
            "write random forms into the file (molgen.data.encoded_file.CorpusWriter), and leave it out",
        )
    if config.training.randomizes and RANDOM not in file.tokenizer.special:
        raise MolgenError(
            f"training.randomized: {file.path} was encoded without random forms in mind",
            "encode again with the same setting, or leave it out",
        )
    return config


def _check_directory(out: Path, resume: bool, force: bool) -> None:
    if resume and (out / REPORT).exists():
        raise MolgenError(f"{out}: has finished", "train into a new directory")
    if not resume and out.exists() and any(out.iterdir()) and not force:
        raise MolgenError(
            f"{out}: exists", "choose another --out, or overwrite it with --force, or go on with --resume"
        )


def _save_initial_state(run: Run, pretrained: Run, dataset: Dataset) -> None:
    """Saves a fine-tuning's state before its first step: all processes and each resume start from it."""
    logger.info(describe(pretrained, run.tokenizer, dataset.split("train")))
    config = run.config.training
    model = initial_model(run.config, run.tokenizer, pretrained)
    state = TrainerState(init_sha256=pretrained.weights_sha256)
    models = {"model": model, **({"average": copy.deepcopy(model)} if config.ema else {})}
    optimizer = build_optimizer(model, config)
    save_state(run.path / STATE, models, optimizer, state.position, resume_fingerprint(run, dataset.sha256))


def _readable(dataset: Dataset, tokenizer: SmilesTokenizer) -> list[str]:
    """The validation molecules that have no unknown token."""
    return [smiles for smiles in dataset.split("validation") if tokenizer.encode(smiles) is not None]


def _check_conditions(run: Run, data: TrainingData) -> None:
    """Raises MolgenError if the run's file of conditions is of other molecules, by their number."""
    table = run.condition_table
    if len(table.train.values) != len(data.corpus) or len(table.validation.values) != len(data.validation):
        raise MolgenError(f"{run.path / CONDITIONS}: is of other molecules", "restore the file, or train again")


def _shared_labels(labels: LabelArrays, group: ProcessGroup) -> LabelArrays:
    """The main process's labels, in every process."""
    arrays = group.broadcast({"values": labels.values, "sides": labels.sides})
    return LabelArrays(arrays["values"], arrays["sides"])


def _encoded(smiles: Sequence[str], tokenizer: SmilesTokenizer) -> Corpus:
    """The encoded molecules, without those that have unknown tokens; cached if there are many molecules."""

    def build() -> Arrays:
        corpus = Corpus.of([ids for ids in map(tokenizer.encode, smiles) if ids is not None], len(tokenizer))
        return {"ids": corpus.ids, "offsets": corpus.offsets}

    def read(arrays: Arrays) -> Corpus:
        ids, offsets = arrays["ids"], arrays["offsets"]
        expect(offsets, np.int64, (None,))
        expect(ids, np.uint8 if len(tokenizer) <= 2**8 else np.uint16, (None,))
        sound = offsets[0] == 0 and offsets[-1] == len(ids) and (np.diff(offsets) >= 2).all()
        if not sound or len(offsets) > len(smiles) + 1 or int(ids.max(initial=0)) >= len(tokenizer):
            raise ValueError("no corpus of these molecules")
        return Corpus(ids, offsets)

    if len(smiles) < LARGE:
        return read(build())
    key = [_ENCODED, tokenizer.fingerprint, *smiles]
    return cached(data_directory() / "cache", "encoded", key, build, read)


def _with_known_tokens(smiles: Sequence[str], tokenizer: SmilesTokenizer, group: ProcessGroup) -> Corpus:
    """The encoded held-out molecules, without those that have unknown tokens; a message says how many.

    Raises MolgenError if none is left.
    """
    corpus = _encoded(smiles, tokenizer).shared(group)
    if len(corpus) < len(smiles):
        left_out = len(smiles) - len(corpus)
        logger.info(f"{left_out} of {len(smiles)} validation molecules have tokens that training lacks: left out")
    if not len(corpus):
        raise MolgenError("no validation molecule has only tokens known from training", "give more molecules")
    return corpus
