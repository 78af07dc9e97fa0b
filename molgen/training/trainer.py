"""The training loop."""

import logging
import math
import os
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from molgen._version import __version__
from molgen.checkpoint import load_state, save_state
from molgen.chem.pool import Workers, workers
from molgen.config import Config, TrainingConfig
from molgen.data.augmentation import augmented_epochs
from molgen.data.batches import Corpus, Rows, bucketed_batches, epoch_steps, random_batches
from molgen.data.dataset import LARGE, Dataset, Summary
from molgen.data.download import data_directory
from molgen.errors import MolgenError
from molgen.model.build import build_model
from molgen.model.decoder import Decoder
from molgen.model.dropout import seed_dropout
from molgen.model.likelihood import likelihood, token_nll
from molgen.runs import CURVES, LOG, STATE, Run, at_work
from molgen.runtime.cache import Arrays, cached, expect
from molgen.runtime.device import autocast, choose_device, hardware, memory_used, split_on_oom
from molgen.runtime.distributed import ProcessGroup, process_group
from molgen.runtime.log import duration, progress_disabled
from molgen.runtime.signals import signals_held
from molgen.runtime.threads import shared_threads, worker_threads
from molgen.tokenizer import SmilesTokenizer
from molgen.training.curves import draw_curves
from molgen.training.model_card import model_card
from molgen.training.optim import WeightAverage, build_optimizer, learning_rate, take_step
from molgen.training.resume import TrainerState, check_unchanged, progress_of, resume_fingerprint
from molgen.training.setup import (
    apply_encoded_settings,
    check_directory,
    encoded_source,
    prepare_dataset,
    prepare_encoded,
)

logger = logging.getLogger(__name__)

_ENCODED = "1"  # goes up with a change of what `_encoded` keeps
_SECONDS_BETWEEN_CURVES = 15.0
_SECONDS_BETWEEN_STATES = 300.0
_SECONDS_BETWEEN_SIGNS = 300.0
_SECONDS_BETWEEN_FIGURES = 1.0
_SECONDS_BEFORE_FORECAST = 10.0


def train(config: Config, out: str | os.PathLike[str], resume: bool = False, force: bool = False) -> Run:
    """Trains what `config` says into the run directory `out`; with `resume` goes on there from its own configuration.

    With `config.training.init` it starts from that run's weights; `config.model` is then left out, or the same.
    Under torchrun the processes share each step's molecules; the first alone reads the data and writes the run, but
    an encoded file is read by each.
    Raises MolgenError for unusable data, an existing directory (unless `force`) or a loss that is no longer finite.
    """
    if resume and config.training.init is not None:
        raise MolgenError("--init with --resume: a resumed training goes on from its own state", "leave --init out")
    out = Path(out)
    config = Run(out).config if resume else config
    file = encoded_source(config, out, resume)
    config = apply_encoded_settings(config, file) if file and not resume else config
    uses_rdkit = not file or config.training.randomizes
    with (
        process_group() as group,
        at_work(out) if group.is_main else nullcontext(),
        workers() if group.is_main and uses_rdkit else nullcontext() as pool,
    ):
        dataset, fingerprint = Dataset(config.data.source, (), ()), dict[str, str]()
        if group.is_main:
            check_directory(out, resume, force)
            choose_device(config.training.device)
            if file:
                molecules_sha256 = prepare_encoded(config, file, out, resume)
            elif pool:
                dataset = prepare_dataset(config, out, resume, pool)
                molecules_sha256 = dataset.sha256
            fingerprint = resume_fingerprint(Run(out), molecules_sha256)
            if resume:
                check_unchanged(Run(out), fingerprint)
        run = Run(Path(group.broadcast_str(str(out))))
        config, tokenizer = run.config, run.tokenizer
        device = choose_device(config.training.device)
        model = build_model(config.model, len(tokenizer), config.training.seed).to(device)
        where = device.type if group.size == 1 else f"{group.size} processes on {device.type}"
        logger.info(f"{model.num_parameters:,} weights, {len(tokenizer)} tokens, {where}, into {run.path}")
        if file:
            canonical = file.strings("train") if pool else []
            fixed, validation = file.split("train"), file.split("validation")
        else:
            canonical = dataset.split("train")
            fixed = _encoded(canonical, tokenizer).shared(group)
            validation = _known(dataset.split("validation"), tokenizer, group)
        progress = _loop(
            config.training, model, tokenizer, canonical, fixed, validation, run, fingerprint, pool, device, group
        )
        if group.is_main:
            summary, made_of = (file.summary, file.made_of) if file else (dataset.summary, None)
            _finish(run, model, tokenizer, summary, made_of, validation, progress, device, group)
    return run


def _loop(
    config: TrainingConfig,
    model: Decoder,
    tokenizer: SmilesTokenizer,
    canonical: Sequence[str],
    fixed: Corpus,
    validation: Corpus,
    run: Run,
    fingerprint: dict[str, str],
    pool: Workers | None,
    device: torch.device,
    group: ProcessGroup,
) -> TrainerState:
    """Epoch after epoch: train, validate, keep the best weights, save. All randomness comes from (seed, epoch)."""
    optimizer = build_optimizer(model, config)
    average = WeightAverage(model, config.ema) if config.ema else None
    kept = cast(Decoder, average.model) if average else model  # what is validated, and saved when it is the best
    models = {"model": model, "average": kept} if average else {"model": model}
    progress = TrainerState()
    log: list[dict[str, float]] = []
    if os.path.lexists(run.path / STATE):
        progress = progress_of(run, load_state(run.path / STATE, models, optimizer))
    if progress.epoch:
        log = [row for row in run.log() if row["epoch"] <= progress.epoch]
        if len(log) != progress.epoch:
            raise MolgenError(
                f"{run.path / LOG}: has {len(log)} of the {progress.epoch} epochs that are done",
                "restore the file, or train again",
            )
        if group.is_main:
            run.write_log(log)  # a kill may have left a row of an epoch that the state does not have
    if progress.step:
        steps = f" and {progress.step_of_epoch} steps of the next" if progress.step_of_epoch else ""
        logger.info(f"going on after epoch {progress.epoch} of {config.epochs}{steps}")
    if config.init is not None and not progress.step:
        before = likelihood(model, validation, device, group=group)
        logger.info(f"before the first step: validation NLL {before.mean_nll:.2f}, top-1 {before.top1:.3f}")
    began, drawn, saved = time.monotonic() - progress.seconds, -math.inf, time.monotonic()
    reached = 0, torch.zeros(())
    """Steps of the epoch that is trained, and its NLL: what a state says if a signal comes while it is validated."""
    forecast = _Forecast(len(fixed) / config.batch_size, progress, config)

    def save() -> None:
        nonlocal saved
        progress.seconds, saved = time.monotonic() - began, time.monotonic()
        if group.is_main:
            save_state(run.path / STATE, models, optimizer, progress.position, fingerprint)

    def save_amid_epoch(steps: int, nll: float) -> None:
        progress.step_of_epoch, progress.nll_of_epoch = steps, nll
        _check_finite(nll, "loss", progress)
        norm = sum(float(parameter.detach().double().square().sum()) for parameter in model.parameters())
        _check_finite(norm, "norm of the weights", progress)
        save()

    def after_step(nll: Tensor) -> None:
        nonlocal reached
        reached = progress.step_of_epoch, nll
        if average:
            average.update(model, progress.step)
        forecast.after_step(progress)
        overdue = group.is_main and time.monotonic() - saved > _SECONDS_BETWEEN_STATES
        wanted = group.all_reduce_max(2 * signals.received + overdue)  # by any process, in one message
        if wanted:
            save_amid_epoch(progress.step_of_epoch, float(group.all_reduce_sum(np.array(float(nll)))))
        if wanted > 1:
            signals.leave(wanted // 2)

    def in_validation() -> None:
        """A signal leaves a state in which all steps of the epoch are done, and its validation comes next."""
        if signals.received:
            steps, nll = reached
            save_amid_epoch(steps, float(nll))
            signals.leave(signals.received)

    with (
        signals_held() as signals,
        augmented_epochs(
            canonical, fixed, tokenizer, pool, config, model.context, progress.epoch, group, signals
        ) as corpora,
    ):
        while progress.epoch < config.epochs and not _out_of_patience(progress, config):
            corpus, replaced = next(corpora)
            reached = progress.step_of_epoch, torch.tensor(progress.nll_of_epoch)
            train_nll, speed = train_epoch(model, optimizer, corpus, config, progress, device, group, after_step)
            held_out = likelihood(
                kept, validation, device, group=group, between=None if group.size > 1 else in_validation
            )
            _check_finite(held_out.mean_nll, "validation NLL", progress)  # before anything of this epoch is saved
            progress.epoch += 1
            progress.canonical_instead += replaced
            progress.seconds = time.monotonic() - began
            if held_out.mean_nll < progress.best_nll:
                progress.best_nll, progress.best_epoch = held_out.mean_nll, progress.epoch
            if not group.is_main:
                saved = time.monotonic()
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
            save()
            if time.monotonic() - drawn > _SECONDS_BETWEEN_CURVES:
                draw_curves(log, run.path / CURVES, run.path.name)
                drawn = time.monotonic()
            best = "  best" if progress.best_epoch == progress.epoch else ""
            logger.info(
                f"epoch {progress.epoch:>3}/{config.epochs}  train {train_nll:.2f}  "
                f"validation {held_out.mean_nll:.2f}  top-1 {held_out.top1:.3f}  "
                f"{speed:,.0f} tokens/s  {progress.seconds:,.0f} s{best}"
            )
        if number := group.all_reduce_max(signals.received):
            signals.leave(number)
    if group.is_main:
        draw_curves(log, run.path / CURVES, run.path.name)
    return progress


def train_epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    corpus: Corpus,
    config: TrainingConfig,
    progress: TrainerState,
    device: torch.device,
    group: ProcessGroup,
    after_step: Callable[[Tensor], None],
) -> tuple[float, float]:
    """One pass over a corpus; gives back its mean NLL a molecule and the tokens a second (padding not counted).

    Steps that `progress` says are done are left out, but for what they draw at random. `after_step` is given the NLL
    summed over this process's molecules so far.
    A team takes the very steps that one process would, each process with a share of their molecules.
    """
    parameters = list(model.parameters())
    num_chunks = worker_threads(device)

    def gradient(share: tuple[Corpus, Rows, int], divisor: int) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The summed NLL of some molecules of a batch, and the gradient of their part of its loss."""
        window, rows, seed = share

        def half_batches() -> tuple[Tensor, tuple[Tensor, ...]]:
            (nll, grads), (more, others) = (
                full_batch((window, rows[i::2], (seed + i) % 2**63), divisor) for i in range(2)
            )
            return nll + more, tuple(a + b for a, b in zip(grads, others, strict=True))

        if len(rows) == 1:
            return full_batch(share, divisor)
        progress.halved, result = split_on_oom(progress.halved, partial(full_batch, share, divisor), half_batches)
        return result

    def full_batch(share: tuple[Corpus, Rows, int], divisor: int) -> tuple[Tensor, tuple[Tensor, ...]]:
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
    done, seen, read, tokens = progress.step_of_epoch, 0, 0, 0
    # float64, for float32 loses digits over an epoch; MPS has none
    place = torch.device("cpu") if device.type == "mps" else device
    total = torch.tensor(progress.nll_of_epoch / group.size, dtype=torch.float64, device=place)
    began = said = shown = time.monotonic()
    noise = np.random.default_rng([config.seed, progress.epoch, 2, group.rank])  # each process has dropout of its own
    with (
        shared_threads(num_chunks) as threads,
        tqdm(total=corpus.all_positions, unit="tok", unit_scale=True, leave=False, disable=progress_disabled()) as bar,
    ):
        parallel_map = (
            threads.map if num_chunks > 1 else map
        )  # one piece is fastest in the thread that has PyTorch's others
        bar.set_description(f"epoch {progress.epoch + 1}/{config.epochs}")
        for i, (behind, window, parts) in enumerate(steps):
            molecules_here = sum(len(rows) for rows in parts)
            positions = sum(int(window.positions[rows].sum()) for rows in parts)
            shares = [
                share[i::num_chunks] for share in map(group.shard, parts) for i in range(min(num_chunks, len(share)))
            ]
            seeds = noise.integers(2**63, size=len(shares)).tolist()
            seen, read = seen + molecules_here, read + positions
            bar.update(positions)
            rate = learning_rate((progress.epoch + behind) / config.epochs, config)
            for param_group in optimizer.param_groups:
                param_group["lr"] = rate
            if i < done:
                continue
            sums = [torch.zeros_like(parameter) for parameter in parameters]
            divisor = positions if config.loss == "token" else molecules_here
            work = ((window, rows, seed) for rows, seed in zip(shares, seeds, strict=True))
            for nll, gradients in parallel_map(partial(gradient, divisor=divisor), work):  # in order, for sums round
                total += nll.to(place)
                for whole, part in zip(sums, gradients, strict=True):
                    whole += part
            group.all_reduce_sum_(sums)
            for parameter, whole in zip(parameters, sums, strict=True):
                parameter.grad = whole
            if config.clip_norm is not None:
                torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
            take_step(optimizer, parallel_map, num_chunks)
            tokens, progress.step, progress.step_of_epoch = tokens + positions, progress.step + 1, i + 1
            if not bar.disable and time.monotonic() - shown > _SECONDS_BETWEEN_FIGURES:  # a GPU is waited for
                shown = time.monotonic()
                bar.set_postfix_str(f"NLL {float(total) * group.size / seen:.2f}", refresh=False)
            if bar.disable and time.monotonic() - said > _SECONDS_BETWEEN_SIGNS:  # a log file has no bar
                said = time.monotonic()
                speed = tokens / (said - began)
                logger.info(f"epoch {progress.epoch + 1}: {read / corpus.all_positions:.0%}, {speed:,.0f} tokens/s")
            after_step(total)
    mean = float(group.all_reduce_sum(np.array(float(total)))) / seen
    _check_finite(mean, "loss", progress)
    progress.step_of_epoch, progress.nll_of_epoch = 0, 0.0
    return mean, tokens / (time.monotonic() - began)


def _check_finite(value: float, name: str, progress: TrainerState) -> None:
    """Raises FloatingPointError for a loss that has run away."""
    if not math.isfinite(value):
        raise FloatingPointError(
            f"the {name} is no longer finite in epoch {progress.epoch + 1}; the last good weights are kept. "
            "Try a lower training.learning_rate"
        )


class _Forecast:
    """Says once, some seconds after the first step, how long the training will take and what it takes already."""

    def __init__(self, steps_an_epoch: float, progress: TrainerState, config: TrainingConfig) -> None:
        self._steps = steps_an_epoch * (config.epochs - progress.epoch) - progress.step_of_epoch
        self._epochs = config.epochs - progress.epoch
        self._first, self._began, self._said = 0, 0.0, False

    def after_step(self, progress: TrainerState) -> None:
        if self._said:
            return
        if not self._first:  # which takes longer than all others
            self._first, self._began = progress.step, time.monotonic()
            return
        seconds = time.monotonic() - self._began
        if seconds >= _SECONDS_BEFORE_FORECAST:
            whole = seconds / (progress.step - self._first) * self._steps
            epochs = "1 epoch" if self._epochs == 1 else f"{self._epochs} epochs"
            logger.info(f"about {duration(whole)} for {epochs} at this speed; {memory_used()} of memory so far")
            self._said = True


def _out_of_patience(progress: TrainerState, config: TrainingConfig) -> bool:
    return config.patience is not None and progress.epoch - progress.best_epoch > config.patience


def _encoded(smiles: Sequence[str], tokenizer: SmilesTokenizer) -> Corpus:
    """The molecules whose tokens the vocabulary has; of many molecules kept for the next time."""

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


def _known(smiles: Sequence[str], tokenizer: SmilesTokenizer, group: ProcessGroup) -> Corpus:
    """Held-out molecules whose tokens the vocabulary has; the others are said."""
    corpus = _encoded(smiles, tokenizer).shared(group)
    if len(corpus) < len(smiles):
        left_out = len(smiles) - len(corpus)
        logger.info(f"{left_out} of {len(smiles)} validation molecules have tokens that training lacks: left out")
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
    progress: TrainerState,
    device: torch.device,
    group: ProcessGroup,
) -> None:
    """Writes report.json: the best weights' validation figures and what they rest on."""
    best = run.model(device)
    held_out = likelihood(best, validation, device)
    report = {
        "molgen": __version__,
        "source": run.config.data.source,
        **({"encoded_from": made_of} if made_of else {}),
        **summary.model_dump(),
        "weights": model.num_parameters,
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
        "hardware": {**hardware(device), "processes": group.size},
        "versions": {name: version(name) for name in ("torch", "rdkit", "numpy", "deepchem")},
    }
    run.write_report(report, model_card(run.path.name, run.config, report))
    logger.info(
        f"best validation NLL {held_out.mean_nll:.2f} ± {held_out.stderr:.2f} nats a molecule, "
        f"top-1 {held_out.top1:.3f} (epoch {progress.best_epoch}, n = {len(held_out.nll)}, {progress.seconds:,.0f} s)"
    )
