"""The training loop."""

import copy
import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, cast

import numpy as np
import torch
from pydantic import Field, TypeAdapter, ValidationError
from torch import Tensor, nn
from tqdm import tqdm

from molgen import __version__, molecules
from molgen.augmentation import fresh_corpora
from molgen.batches import Corpus, Rows, bucketed_batches, epoch_steps, random_batches
from molgen.cache import Arrays, cached
from molgen.checkpoint import load_state, save_state, state_made_with
from molgen.config import Config, TrainingConfig, differing, validate, value_of
from molgen.corpus_file import MOST_AS_STRINGS, CorpusFile, is_encoded, named_corpus
from molgen.datasets import LARGE, Dataset, Summary, account, build_dataset, data_directory, read_source
from molgen.errors import MolgenError
from molgen.finetuning import describe, initial_model, taken_over, without_known
from molgen.likelihood import likelihood, token_nll
from molgen.model.build import build_model
from molgen.model.decoder import Decoder
from molgen.model.dropout import seed_dropout
from molgen.optim import (
    WeightAverage,
    autocast,
    build_optimizer,
    choose_device,
    hardware,
    in_memory,
    learning_rate,
    take_step,
)
from molgen.plots import draw_curves
from molgen.processes import Team, duration, memory_used, processes, say, silent
from molgen.runs import CONFIG, CURVES, MOLECULES, MOST_COPIED, REPORT, STATE, TOKENIZER, Run, at_work, create_run
from molgen.signals import signals_held
from molgen.threads import at_once, shared_threads
from molgen.tokenizer import RANDOM, SmilesTokenizer, deepchem_pattern
from molgen.workers import Workers, workers

_SECONDS_BETWEEN_CURVES = 15.0
_SECONDS_BETWEEN_SIGNS = 300.0
_SECONDS_BEFORE_FORECAST = 10.0
# Settings that only say where something is: what lies there is compared itself.
_PLACES = {"data.source", "training.device", "training.init"}


@dataclass
class Progress:
    """Where a training stands after an epoch; saved in the state, so that a resumed one goes on exactly."""

    epoch: Annotated[int, Field(ge=0)] = 0
    step: Annotated[int, Field(ge=0)] = 0
    best_nll: float = math.inf
    best_epoch: Annotated[int, Field(ge=0)] = 0
    seconds: float = 0.0
    canonical_instead: int = 0
    """Times that no random SMILES could be used after some redraws, so the canonical one was."""
    init_sha256: str | None = None
    """The weights file that a fine-tuning began with; the run that it belongs to may be gone by the end."""
    halved: bool = False
    """Whether batches go through the network in halves, because a GPU's memory was too small for whole ones."""


def train(config: Config, out: Path, resume: bool = False, force: bool = False) -> Run:
    """Trains what `config` says into the run directory `out`; with `resume` goes on there from its own configuration.

    With `config.training.init` it starts from that run's weights; `config.model` is then left out, or the same.
    Under torchrun the processes share each step's molecules; the first alone reads the data and writes the run, but
    an encoded file is read by each.
    Raises MolgenError for unusable data, an existing directory (unless `force`) or a loss that is no longer finite.
    """
    if resume and config.training.init is not None:
        raise MolgenError("--init with --resume: a resumed training goes on from its own state", "leave --init out")
    config = Run(out).config if resume else config
    file = _encoded_source(config, resume)
    config = _settled(config, file) if file and not resume else config
    uses_rdkit = not file or _randomizes(config)
    with (
        processes() as team,
        at_work(out) if team.leads else nullcontext(),
        workers() if team.leads and uses_rdkit else nullcontext() as pool,
    ):
        dataset, made_with = Dataset(config.data.source, (), ()), dict[str, str]()
        if team.leads:
            _check_directory(out, resume, force)
            choose_device(config.training.device)
            if file:
                molecules_sha256 = _prepare_encoded(config, file, out, resume)
            elif pool:
                dataset = _prepare(config, out, resume, pool)
                molecules_sha256 = dataset.sha256
            made_with = _made_with(Run(out), molecules_sha256)
            if resume:
                _check_unchanged(Run(out), made_with)
        run = Run(Path(team.meet(str(out))))
        config, tokenizer = run.config, run.tokenizer
        device = choose_device(config.training.device)
        model = build_model(config.model, len(tokenizer), config.training.seed).to(device)
        where = device.type if team.size == 1 else f"{team.size} processes on {device.type}"
        say(f"{model.weights:,} weights, {len(tokenizer)} tokens, {where}, into {run.path}")
        if file:
            canonical = file.strings("train") if pool else []
            fixed, validation = file.split("train"), file.split("validation")
        else:
            canonical = dataset.split("train")
            fixed = _encoded(canonical, tokenizer).shared(team)
            validation = _known(dataset.split("validation"), tokenizer, team)
        progress = _loop(
            config.training, model, tokenizer, canonical, fixed, validation, run, made_with, pool, device, team
        )
        if team.leads:
            summary, made_of = (file.summary, file.made_of) if file else (dataset.summary, None)
            _finish(run, model, tokenizer, summary, made_of, validation, progress, device, team)
    return run


def _randomizes(config: Config) -> bool:
    return max(config.training.randomized, config.training.randomized_end) > 0


def _check_directory(out: Path, resume: bool, force: bool) -> None:
    if resume and (out / REPORT).exists():
        raise MolgenError(f"{out}: has finished", "train into a new directory")
    if not resume and out.exists() and any(out.iterdir()) and not force:
        raise MolgenError(
            f"{out}: exists", "choose another --out, or overwrite it with --force, or go on with --resume"
        )


def _made_with(run: Run, molecules: str) -> dict[str, str]:
    """What a state belongs to; `molecules` is a hash of them."""
    configuration = run.config.model_dump_json()
    return {"configuration": configuration, "tokenizer": run.tokenizer.fingerprint, "molecules": molecules}


def _check_unchanged(run: Run, now: dict[str, str]) -> None:
    """Raises MolgenError, naming what changed, for a state that was made with something else."""
    if not (run.path / STATE).exists():
        return
    then = now | state_made_with(run.path / STATE)  # one of an earlier version does not say it
    hint = "restore it, or train into a new directory"
    try:
        before = Config.model_validate_json(then["configuration"])
    except ValidationError:
        raise MolgenError(f"{run.path / STATE}: its configuration cannot be read", hint) from None
    if key := next((key for key in differing(run.config, before) if key not in _PLACES), None):
        here, there = value_of(run.config, key), value_of(before, key)
        raise MolgenError(f"{run.path / CONFIG}: {key} is {here}, the training began with {there}", hint)
    if then["tokenizer"] != now["tokenizer"]:
        raise MolgenError(f"{run.path / TOKENIZER}: not the vocabulary that the training began with", hint)
    if then["molecules"] != now["molecules"]:
        copied = run.config.data.sha256 is None and (run.path / MOLECULES).exists()
        place = run.path / MOLECULES if copied else run.config.data.source
        raise MolgenError(f"{place}: not the molecules, or not the splits, that the training began with", hint)


def _encoded_source(config: Config, resume: bool) -> CorpusFile | None:
    """The encoded file that is the source, if it is one; a resumed training insists on the same molecules."""
    if resume:
        return named_corpus(config.data) if config.data.sha256 else None
    if is_encoded(config.data.source):
        return CorpusFile(Path(config.data.source))
    if config.data.sha256:
        raise MolgenError(f"data.sha256: {config.data.source} is no encoded file", "leave it out")
    return None


def _settled(config: Config, file: CorpusFile) -> Config:
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
    if _randomizes(config) and size > MOST_AS_STRINGS:
        raise MolgenError(
            f"training.randomized: {size:,} training molecules are too many to be written otherwise in each epoch",
            "write random forms into the file (molgen.corpus_file.CorpusWriter), and leave it out",
        )
    if _randomizes(config) and RANDOM not in file.tokenizer.special:
        raise MolgenError(
            f"training.randomized: {file.path} was encoded without random forms in mind",
            "encode anew with the same setting, or leave it out",
        )
    return config


def _prepare_encoded(config: Config, file: CorpusFile, out: Path, resume: bool) -> str:
    """An encoded file, checked, in a run directory that is new or to go on in; gives back its hash."""
    sizes = file.summary.sizes
    say(f"{file.path}: encoded from {file.made_of}")
    say(", ".join(f"{name} {size:,}" for name, size in sizes.items()))
    lengths = file.check(config.model.context)
    if lengths.too_long:
        raise MolgenError(
            f"{file.path}: {lengths.too_long:,} molecules are longer than model.context {config.model.context}",
            f"--set model.context={lengths.longest} takes all",
        )
    for name in ("train", "validation"):
        if not sizes.get(name):
            raise MolgenError(f"{file.path}: no {name} molecules", "encode molecules of all splits")
    if not resume:
        # a table of strings would not tell random forms from canonical ones
        copied = sum(sizes.values()) <= MOST_COPIED and not lengths.random
        create_run(out, config, file.tokenizer, file.molecules() if copied else None, None)
    return lengths.sha256


def _prepare(config: Config, out: Path, resume: bool, pool: Workers) -> Dataset:
    """The molecules, clean and split, in a run directory that is new or to go on in."""
    if resume:
        run = Run(out)
    origin = None
    if config.training.init is not None and not (resume and (out / STATE).exists()):
        origin, config = taken_over(config, out)
    if resume and (out / MOLECULES).exists():
        dataset = Dataset(config.data.source, tuple(run.molecules), tuple(run.dropped))
    else:
        rows = read_source(config.data)
        say(f"{config.data.source}: {len(rows):,} rows; loading DeepChem's tokenizer, cleaning, splitting")
        pattern = deepchem_pattern()
        familiar = frozenset(origin.tokenizer.tokens if origin else ())
        dataset = build_dataset(rows, config.data, config.model.context, pattern, pool, familiar)
        dataset = without_known(dataset, origin, pool) if origin else dataset
    say(", ".join(f"{name} {size:,}" for name, size in dataset.sizes.items()))
    for line in account(dataset.dropped):
        say(line)
    if not resume:
        tokenizer = build_tokenizer(config, dataset, pattern, origin.tokenizer if origin else None)
        run = create_run(out, config, tokenizer, dataset.molecules, dataset.dropped)
    if origin is not None:
        say(describe(origin, run.tokenizer, dataset.split("train")))
        model = initial_model(run.config, run.tokenizer, origin)
        progress = Progress(init_sha256=origin.weights_sha256)
        # the state before the first step: all processes start from it, and no resume needs the other run
        models = {"model": model, **({"average": copy.deepcopy(model)} if config.training.ema else {})}
        optimizer = build_optimizer(model, config.training)
        save_state(out / STATE, models, optimizer, vars(progress), _made_with(run, dataset.sha256))
    return dataset


def build_tokenizer(
    config: Config, dataset: Dataset, pattern: str, known: SmilesTokenizer | None = None
) -> SmilesTokenizer:
    """The vocabulary of the training split or of all molecules; ring labels too where random SMILES are trained on.

    Where a vocabulary is known already, it stays as it is and what is new follows.
    """
    corpus = [m.smiles for m in dataset.molecules if m.split == "train" or config.data.vocabulary == "all"]
    tokenizer = SmilesTokenizer.of_corpus(corpus, pattern, _randomizes(config), molecules.RDKIT_VERSION)
    return known.extended(tokenizer) if known else tokenizer


def _loop(
    config: TrainingConfig,
    model: Decoder,
    tokenizer: SmilesTokenizer,
    canonical: Sequence[str],
    fixed: Corpus,
    validation: Corpus,
    run: Run,
    made_with: dict[str, str],
    pool: Workers | None,
    device: torch.device,
    team: Team,
) -> Progress:
    """Epoch after epoch: train, validate, keep the best weights, save. All randomness comes from (seed, epoch)."""
    optimizer = build_optimizer(model, config)
    average = WeightAverage(model, config.ema) if config.ema else None
    kept = cast(Decoder, average.model) if average else model  # what is validated, and saved when it is the best
    models = {"model": model, "average": kept} if average else {"model": model}
    progress = Progress()
    log: list[dict[str, float]] = []
    if (run.path / STATE).exists():
        progress = _progress(run, load_state(run.path / STATE, models, optimizer))
    if progress.epoch:
        log = [row for row in run.log() if row["step"] <= progress.step]
        if team.leads:
            run.write_log(log)  # a kill may have left a row of an epoch that the state does not have
        say(f"going on after epoch {progress.epoch} of {config.epochs}")
    if config.init is not None and not progress.epoch:
        before = likelihood(model, validation, device, team=team)
        say(f"before the first step: validation NLL {before.mean_nll:.2f}, top-1 {before.top1:.3f}")
    began, drawn = time.monotonic() - progress.seconds, -math.inf
    forecast = _Forecast(len(fixed) / config.batch_size, progress, config)

    def after_step() -> None:
        if average:
            average.update(model, progress.step)
        forecast.after_step(progress)
        let_signals_act()

    with (
        signals_held(team) as let_signals_act,
        fresh_corpora(canonical, fixed, tokenizer, pool, config, model.context, progress.epoch, team) as corpora,
    ):
        while progress.epoch < config.epochs and not _out_of_patience(progress, config):
            corpus, replaced = next(corpora)
            progress.canonical_instead += replaced
            train_nll, speed = train_epoch(model, optimizer, corpus, config, progress, device, team, after_step)
            held_out = likelihood(kept, validation, device, team=team)
            _check_finite(held_out.mean_nll, "validation NLL", progress)  # before anything of this epoch is saved
            progress.epoch += 1
            progress.seconds = time.monotonic() - began
            if held_out.mean_nll < progress.best_nll:
                progress.best_nll, progress.best_epoch = held_out.mean_nll, progress.epoch
            if not team.leads:
                continue
            if progress.best_epoch == progress.epoch:
                run.save_model(kept)
            log.append(
                {
                    "step": progress.step,
                    "epoch": progress.epoch,
                    "train_nll": train_nll,
                    "val_nll": held_out.mean_nll,
                    "val_top1": held_out.top1,
                    "lr": optimizer.param_groups[0]["lr"],
                    "tokens_per_second": speed,
                    "seconds": progress.seconds,
                }
            )
            run.write_log(log)
            save_state(run.path / STATE, models, optimizer, vars(progress), made_with)
            if time.monotonic() - drawn > _SECONDS_BETWEEN_CURVES:
                draw_curves(log, run.path / CURVES, run.path.name)
                drawn = time.monotonic()
            best = "  best" if progress.best_epoch == progress.epoch else ""
            say(
                f"epoch {progress.epoch:>3}/{config.epochs}  train {train_nll:.2f}  "
                f"validation {held_out.mean_nll:.2f}  top-1 {held_out.top1:.3f}  "
                f"{speed:,.0f} tokens/s  {progress.seconds:,.0f} s{best}"
            )
    if team.leads:
        draw_curves(log, run.path / CURVES, run.path.name)
    return progress


def train_epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    corpus: Corpus,
    config: TrainingConfig,
    progress: Progress,
    device: torch.device,
    team: Team,
    after_step: Callable[[], None],
) -> tuple[float, float]:
    """One pass over a corpus; gives back its mean NLL a molecule and the tokens a second (padding not counted).

    A team takes the very steps that one process would, each process with a share of their molecules.
    """
    parameters = list(model.parameters())
    pieces = at_once(device)

    def gradient(share: tuple[Corpus, Rows, int], divisor: int) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The summed NLL of some molecules of a batch, and the gradient of their part of its loss."""
        window, rows, seed = share

        def halves() -> tuple[Tensor, tuple[Tensor, ...]]:
            (nll, grads), (more, others) = (
                undivided((window, rows[i::2], (seed + i) % 2**63), divisor) for i in range(2)
            )
            return nll + more, tuple(a + b for a, b in zip(grads, others, strict=True))

        if len(rows) == 1:
            return undivided(share, divisor)
        progress.halved, result = in_memory(progress.halved, partial(undivided, share, divisor), halves)
        return result

    def undivided(share: tuple[Corpus, Rows, int], divisor: int) -> tuple[Tensor, tuple[Tensor, ...]]:
        window, rows, seed = share
        seed_dropout(seed, device)
        batch = window.batch(rows, device)
        with autocast(config.precision, device):
            logits = model(batch.inputs)  # (B, T, V)
        nll = token_nll(logits, batch.targets).sum()
        return nll.detach(), torch.autograd.grad(nll / divisor, parameters)

    rng = np.random.default_rng([config.seed, progress.epoch])
    cut = bucketed_batches if config.batching == "buckets" else random_batches
    steps = epoch_steps(corpus, cut, config.batch_size, rng)
    model.train()
    total, seen, tokens = torch.zeros((), device=device), 0, 0
    began = said = time.monotonic()
    noise = np.random.default_rng([config.seed, progress.epoch, 2, team.rank])  # each process has dropout of its own
    with (
        shared_threads(pieces) as threads,
        tqdm(total=corpus.all_positions, unit="tok", unit_scale=True, leave=False, disable=silent()) as bar,
    ):
        in_order = threads.map if pieces > 1 else map  # one piece is fastest in the thread that has PyTorch's others
        bar.set_description(f"epoch {progress.epoch + 1}/{config.epochs}")
        for i, (behind, window, parts) in enumerate(steps):
            rate = learning_rate((progress.epoch + behind) / config.epochs, config)
            for group in optimizer.param_groups:
                group["lr"] = rate
            molecules_here = sum(len(rows) for rows in parts)
            positions = sum(int(window.positions[rows].sum()) for rows in parts)
            sums = [torch.zeros_like(parameter) for parameter in parameters]
            shares = [share[i::pieces] for share in map(team.share, parts) for i in range(min(pieces, len(share)))]
            seeds = noise.integers(2**63, size=len(shares)).tolist()
            divisor = positions if config.loss == "token" else molecules_here
            work = ((window, rows, seed) for rows, seed in zip(shares, seeds, strict=True))
            for nll, gradients in in_order(partial(gradient, divisor=divisor), work):  # in order, for sums round
                total += nll
                for whole, part in zip(sums, gradients, strict=True):
                    whole += part
            team.add_up(sums)
            for parameter, whole in zip(parameters, sums, strict=True):
                parameter.grad = whole
            if config.clip_norm is not None:
                torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
            take_step(optimizer, in_order, pieces)
            seen, tokens, progress.step = seen + molecules_here, tokens + positions, progress.step + 1
            bar.update(positions)
            if i % 10 == 9:
                bar.set_postfix_str(f"NLL {float(total) * team.size / seen:.2f}", refresh=False)
            if bar.disable and time.monotonic() - said > _SECONDS_BETWEEN_SIGNS:  # a log file has no bar
                said = time.monotonic()
                speed = tokens / (said - began)
                say(f"epoch {progress.epoch + 1}: {tokens / corpus.all_positions:.0%}, {speed:,.0f} tokens/s")
            after_step()
    mean = float(team.sum(np.array(float(total)))) / seen
    _check_finite(mean, "loss", progress)
    return mean, tokens / (time.monotonic() - began)


def _check_finite(value: float, name: str, progress: Progress) -> None:
    """Raises FloatingPointError for a loss that has run away."""
    if not math.isfinite(value):
        raise FloatingPointError(
            f"the {name} is no longer finite in epoch {progress.epoch + 1}; the last good weights are kept. "
            "Try a lower training.learning_rate"
        )


def _progress(run: Run, position: dict[str, object]) -> Progress:
    """Where a state stands. Raises MolgenError for one that stands nowhere."""
    try:
        return TypeAdapter(Progress).validate_python(position)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise MolgenError(
            f"{run.path / STATE}: {where}: {first['msg']}", "the file is damaged; restore it, or train again"
        ) from None


class _Forecast:
    """Says once, some seconds after the first step, how long the training will take and what it takes already."""

    def __init__(self, steps_an_epoch: float, progress: Progress, config: TrainingConfig) -> None:
        self._steps = steps_an_epoch * (config.epochs - progress.epoch)
        self._epochs = config.epochs - progress.epoch
        self._first, self._began, self._said = 0, 0.0, False

    def after_step(self, progress: Progress) -> None:
        if self._said:
            return
        if not self._first:  # which takes longer than all others
            self._first, self._began = progress.step, time.monotonic()
            return
        seconds = time.monotonic() - self._began
        if seconds >= _SECONDS_BEFORE_FORECAST:
            whole = seconds / (progress.step - self._first) * self._steps
            say(f"about {duration(whole)} for {self._epochs} epochs at this speed; {memory_used()} of memory so far")
            self._said = True


def _out_of_patience(progress: Progress, config: TrainingConfig) -> bool:
    return config.patience is not None and progress.epoch - progress.best_epoch > config.patience


def _encoded(smiles: Sequence[str], tokenizer: SmilesTokenizer) -> Corpus:
    """The molecules whose tokens the vocabulary has; of many molecules kept for the next time."""

    def build() -> Arrays:
        corpus = Corpus.of([ids for ids in map(tokenizer.encode, smiles) if ids is not None], len(tokenizer))
        return {"ids": corpus.ids, "offsets": corpus.offsets}

    large = len(smiles) >= LARGE
    key = [tokenizer.fingerprint, *smiles]
    arrays = cached(data_directory() / "cache", "encoded", key, build) if large else build()
    return Corpus(arrays["ids"], arrays["offsets"])


def _known(smiles: Sequence[str], tokenizer: SmilesTokenizer, team: Team) -> Corpus:
    """Held-out molecules whose tokens the vocabulary has; the others are said."""
    corpus = _encoded(smiles, tokenizer).shared(team)
    if len(corpus) < len(smiles):
        left_out = len(smiles) - len(corpus)
        say(f"{left_out} of {len(smiles)} validation molecules have tokens that training lacks: left out")
    if not len(corpus):
        raise MolgenError("no validation molecule has only tokens known from training", "give more molecules")
    return corpus


def _finish(
    run: Run,
    model: Decoder,
    tokenizer: SmilesTokenizer,
    summary: Summary,
    made_of: str | None,
    validation: Corpus,
    progress: Progress,
    device: torch.device,
    team: Team,
) -> None:
    """Writes report.json: the best weights' validation figures and what they rest on."""
    best = run.model(device)
    held_out = likelihood(best, validation, device)
    run.write_report(
        {
            "molgen": __version__,
            "source": run.config.data.source,
            **({"encoded_from": made_of} if made_of else {}),
            **summary.model_dump(),
            "weights": model.weights,
            "tokens": len(tokenizer),
            "init": {"path": init, "sha256": progress.init_sha256} if (init := run.config.training.init) else None,
            "epochs": progress.epoch,
            "steps": progress.step,
            "seconds": round(progress.seconds, 1),
            "best_epoch": progress.best_epoch,
            "canonical_instead_of_random": progress.canonical_instead,
            "validation": {
                "n": len(held_out.nll),
                "unknown_tokens": summary.sizes["validation"] - len(held_out.nll),
                **held_out.figures(),
            },
            "hardware": {**hardware(device), "processes": team.size},
            "versions": {name: version(name) for name in ("torch", "rdkit", "numpy", "deepchem")},
        }
    )
    say(
        f"best validation NLL {held_out.mean_nll:.2f} ± {held_out.stderr:.2f} nats a molecule, "
        f"top-1 {held_out.top1:.3f} (epoch {progress.best_epoch}, n = {len(held_out.nll)}, {progress.seconds:,.0f} s)"
    )
