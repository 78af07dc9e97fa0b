"""What a training starts from: molecules or an encoded file, a vocabulary, and a run directory for them."""

import copy
import logging
from pathlib import Path

from molgen.checkpoint import save_state
from molgen.chem.pool import Workers
from molgen.config import Config, validate
from molgen.data.dataset import Dataset, account, build_dataset, read_source
from molgen.data.encoded_file import MOST_AS_STRINGS, CorpusFile, is_encoded
from molgen.data.prepare import build_tokenizer
from molgen.errors import MolgenError
from molgen.runs import MOLECULES, MOST_COPIED, REPORT, STATE, Run, create_run
from molgen.tokenizer import RANDOM, deepchem_pattern
from molgen.training.finetune import describe, inherit_model_config, initial_model, without_known
from molgen.training.optim import build_optimizer
from molgen.training.resume import TrainerState, resume_fingerprint

logger = logging.getLogger(__name__)


def check_directory(out: Path, resume: bool, force: bool) -> None:
    if resume and (out / REPORT).exists():
        raise MolgenError(f"{out}: has finished", "train into a new directory")
    if not resume and out.exists() and any(out.iterdir()) and not force:
        raise MolgenError(
            f"{out}: exists", "choose another --out, or overwrite it with --force, or go on with --resume"
        )


def encoded_source(config: Config, out: Path, resume: bool) -> CorpusFile | None:
    """The encoded file that is the source, if it is one; a resumed training insists on the same molecules."""
    if resume:
        return Run(out).corpus_file if config.data.sha256 else None
    if is_encoded(config.data.source):
        return CorpusFile(Path(config.data.source))
    if config.data.sha256:
        raise MolgenError(f"data.sha256: {config.data.source} is no encoded file", "leave it out")
    return None


def apply_encoded_settings(config: Config, file: CorpusFile) -> Config:
    """The configuration of a training on an encoded file: the file's data settings, random forms only if asked for.

    Raises MolgenError for a setting that differs from the file's, and for what only strings would allow.
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
                "the file was cleaned and split when it was encoded: leave it out, or encode anew",
            )
    values = config.model_dump()
    values["data"] = file.data.model_dump()
    if (file.data.max_tokens or 0) > config.model.context:  # whether its molecules are longer is counted later
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
            "encode anew with the same setting, or leave it out",
        )
    return config


def prepare_encoded(config: Config, file: CorpusFile, out: Path, resume: bool) -> str:
    """An encoded file, checked, in a run directory that is new or to go on in; gives back its hash."""
    sizes = file.summary.sizes
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
            "--set training.randomized=0 --set training.randomized_end=0, or encode the molecules without random forms",
        )
    for name in ("train", "validation"):
        if not sizes.get(name):
            raise MolgenError(f"{file.path}: no {name} molecules", "encode molecules of all splits")
    if not resume:
        # a table of strings would not tell random forms from canonical ones
        copied = sum(sizes.values()) <= MOST_COPIED and not lengths.random
        create_run(out, config, file.tokenizer, file.molecules() if copied else None, None)
    return lengths.sha256


def prepare_dataset(config: Config, out: Path, resume: bool, pool: Workers) -> Dataset:
    """The molecules, clean and split, in a run directory that is new or to go on in."""
    if resume:
        run = Run(out)
    origin = None
    if config.training.init is not None and not (resume and (out / STATE).exists()):
        origin, config = inherit_model_config(config, out)
    if resume and (out / MOLECULES).exists():
        dataset = Dataset(config.data.source, tuple(run.molecules), tuple(run.dropped))
    else:
        rows = read_source(config.data)
        logger.info(f"{config.data.source}: {len(rows):,} rows; loading DeepChem's tokenizer, cleaning, splitting")
        pattern = deepchem_pattern()
        pretrained_tokens = frozenset(origin.tokenizer.tokens if origin else ())
        dataset = build_dataset(rows, config.data, config.model.context, pattern, pool, pretrained_tokens)
        dataset = without_known(dataset, origin, pool) if origin else dataset
    logger.info(", ".join(f"{name} {size:,}" for name, size in dataset.sizes.items()))
    for line in account(dataset.dropped):
        logger.info(line)
    if not resume:
        tokenizer = build_tokenizer(config, dataset, pattern, origin.tokenizer if origin else None)
        run = create_run(out, config, tokenizer, dataset.molecules, dataset.dropped)
    if origin is not None:
        logger.info(describe(origin, run.tokenizer, dataset.split("train")))
        model = initial_model(run.config, run.tokenizer, origin)
        progress = TrainerState(init_sha256=origin.weights_sha256)
        # the state before the first step: all processes start from it, and no resume needs the other run
        models = {"model": model, **({"average": copy.deepcopy(model)} if config.training.ema else {})}
        optimizer = build_optimizer(model, config.training)
        save_state(out / STATE, models, optimizer, progress.position, resume_fingerprint(run, dataset.sha256))
    return dataset
