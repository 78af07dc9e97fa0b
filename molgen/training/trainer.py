"""The training loop: epochs of optimiser steps, each followed by validation; the best weights are kept.

All random numbers depend only on the seed, the epoch and the rank, so a training that was stopped resumes exactly.
"""

import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from logging import getLogger
from typing import cast

import numpy as np
import torch
from torch import Tensor

from molgen.checkpoint import load_state
from molgen.data.augmentation import augmented_epochs
from molgen.data.batches import (
    Corpus,
    Cut,
    TrainingData,
    batches_of_tokens,
    bucketed_batches,
    epoch_steps,
    random_batches,
)
from molgen.errors import MolgenError
from molgen.machine import Runtime
from molgen.model.build import build_model
from molgen.model.decoder import Decoder
from molgen.model.likelihood import Likelihood, likelihood
from molgen.runs import LOG, STATE, Run
from molgen.runtime.signals import HeldSignals, signals_held
from molgen.training.conditional import ConditionalObjective
from molgen.training.joint import JointObjective
from molgen.training.optim import WeightAverage, build_optimizer, learning_rate
from molgen.training.resume import TrainerState, trainer_state
from molgen.training.step import Loss, Step, nll_loss

logger = getLogger(__name__)

_SHOWN = {"val_error": "validation error", "val_nll_given": "validation NLL given values"}


@dataclass
class EpochProgress:
    """The progress of an epoch. Positions are predicted positions: padding does not count."""

    all_positions: int
    nll: Tensor
    """() float64: the summed NLL of this process's molecules so far, in nats."""
    positions: int = 0
    """Of all steps so far, including those before an interruption."""
    molecules: int = 0
    """Of all steps so far."""
    trained_positions: int = 0
    """Of the steps since the start of this process."""
    began: float = 0.0

    @property
    def tokens_per_second(self) -> float:
        """Speed in this epoch, since the start of this process."""
        return self.trained_positions / (time.monotonic() - self.began)


class Callback:
    """Methods that the trainer calls during training. A subclass overrides those that it needs."""

    def before_epoch(self, trainer: "Trainer", progress: EpochProgress) -> None:
        """Before the first step of an epoch."""

    def after_step(self, trainer: "Trainer", progress: EpochProgress) -> None:
        """After each optimiser step and the update of the weight average."""

    def after_steps(self, trainer: "Trainer", progress: EpochProgress) -> None:
        """After the last step of an epoch, also if an exception ends the epoch."""

    def in_validation(self, trainer: "Trainer", progress: EpochProgress) -> None:
        """After each batch of a validation, only without a process group; an exception ends the training."""

    def after_epoch(self, trainer: "Trainer") -> None:
        """After validation; the state and the last row of `trainer.log` are those of this epoch."""

    def after_training(self, trainer: "Trainer") -> None:
        """After the last epoch."""


class Trainer:
    """Trains the model of a run, from its saved state if it has one.

    It minimises `loss`; `objective` measures what else it learns, on validation. The callbacks are called in their
    order, in every process.
    """

    def __init__(
        self,
        run: Run,
        data: TrainingData,
        runtime: Runtime,
        fingerprint: dict[str, str],
        callbacks: Sequence[Callback] = (),
        loss: Loss = nll_loss,
        objective: JointObjective | ConditionalObjective | None = None,
    ) -> None:
        self._objective = objective
        self.run, self.data, self.runtime, self.callbacks = run, data, runtime, callbacks
        self.config = run.config.training
        self.fingerprint = fingerprint
        """The fingerprint to save with the state: see `resume_fingerprint`."""
        outputs, conditions = len(run.config.data.targets), len(run.config.data.conditions)
        model = build_model(run.config.model, len(data.tokenizer), self.config.seed, outputs, conditions)
        self.model = model.to(runtime.device)
        self.model.gradient_checkpointing = self.config.gradient_checkpointing
        self.optimizer = build_optimizer(self.model, self.config)
        self._average = WeightAverage(self.model, self.config.ema) if self.config.ema else None
        self.best_candidate = cast(Decoder, self._average.model) if self._average else self.model
        """The model that is validated and saved if it is the best: the weight average, if there is one."""
        self.models = {"model": self.model, **({"average": self.best_candidate} if self._average else {})}
        self.state = TrainerState()
        self.log: list[dict[str, float]] = []
        """The rows of log.csv."""
        self.signals = HeldSignals()
        self.began = 0.0
        """Start of the training on the monotonic clock, moved so that interruptions do not count."""
        if os.path.lexists(run.path / STATE):
            self.state = trainer_state(run, load_state(run.path / STATE, self.models, self.optimizer))
        if self.state.epoch:
            self.log = self._log_so_far()
        self._step = Step(self.model, self.optimizer, loss, self.config, self.state, runtime)

    def fit(self) -> TrainerState:
        """Trains until the last epoch, or until validation has not improved for more than `patience` epochs."""
        self._log_start()
        self.began = time.monotonic() - self.state.seconds
        context, first = self.model.context, self.state.epoch
        with (
            signals_held() as self.signals,
            augmented_epochs(self.data, self.config, context, first, self.runtime, self.signals) as corpora,
        ):
            while self.state.epoch < self.config.epochs and not self._out_of_patience():
                corpus, kept_canonical = next(corpora)
                train_nll, speed = self.train_epoch(corpus)
                held_out, more = self._validate()
                # given values or not, both count; of a joint model only this: its error on few molecules is noisy
                nll = (held_out.mean_nll + more.get("val_nll_given", held_out.mean_nll)) / 2
                self._finish_epoch(nll, kept_canonical)
                self.log.append(self._log_row(train_nll, held_out, speed) | more)
                self._call("after_epoch")
            if number := self.runtime.group.all_reduce_max(self.signals.received):
                self.signals.leave(number)
        self._call("after_training")
        return self.state

    def train_epoch(self, corpus: Corpus) -> tuple[float, float]:
        """One pass over a corpus; returns (mean NLL per molecule in nats, tokens per second).

        Steps that are already done according to the state are skipped, but their random numbers are drawn. A process
        group takes the same steps as one process, each process with a shard of the molecules.
        """
        config, state, rank = self.config, self.state, self.runtime.group.rank
        order = np.random.default_rng([config.seed, state.epoch])
        seeds = np.random.default_rng([config.seed, state.epoch, 2, rank])  # dropout differs between processes
        cut: Cut = bucketed_batches if config.batching == "buckets" else random_batches
        size = config.batch_size
        if config.batch_tokens is not None:
            cut, size = batches_of_tokens, config.batch_tokens
        self._progress = progress = EpochProgress(corpus.all_positions, self._nll_so_far(), began=time.monotonic())
        done = state.step_of_epoch
        self.model.train()
        self._call("before_epoch", progress)
        try:
            with self._step.threads():
                for i, (fraction, window, parts) in enumerate(epoch_steps(corpus, cut, size, order)):
                    shards = self._step.shards(window, parts, seeds)
                    molecules = sum(len(rows) for rows in parts)
                    positions = sum(int(window.positions[rows].sum()) for rows in parts)
                    progress.molecules += molecules
                    progress.positions += positions
                    self._set_learning_rate((state.epoch + fraction) / config.epochs)
                    if i < done:
                        continue
                    for nll in self._step(shards, positions if config.loss == "token" else molecules):
                        progress.nll += nll.to(progress.nll.device)
                    progress.trained_positions += positions
                    state.step, state.step_of_epoch = state.step + 1, i + 1
                    if self._average:
                        self._average.update(self.model, state.step)
                    self._call("after_step", progress)
        finally:
            self._call("after_steps", progress)
        mean = self.total_nll(progress) / progress.molecules
        check_finite(mean, "loss", state)
        return mean, progress.tokens_per_second

    def total_nll(self, progress: EpochProgress) -> float:
        """The summed NLL of an epoch's molecules so far, over all processes."""
        return float(self.runtime.group.all_reduce_sum(np.array(float(progress.nll))))

    def _validate(self) -> tuple[Likelihood, dict[str, float]]:
        """The likelihood of the validation molecules, and what else the objective measures on them."""
        single_process = self.runtime.group.size == 1
        between = partial(self._call, "in_validation", self._progress) if single_process else None
        held_out = self._likelihood(self.best_candidate, between)
        check_finite(held_out.mean_nll, "validation NLL", self.state)  # before this epoch is saved
        if self._objective is None:
            return held_out, {}
        more = self._objective.figures(self.best_candidate, self.data.validation, self.runtime.device)
        for name, value in more.items():
            check_finite(value, _SHOWN[name], self.state)
        return held_out, more

    def _likelihood(self, model: Decoder, between: Callable[[], None] | None = None) -> Likelihood:
        device, group = self.runtime.device, self.runtime.group
        return likelihood(model, self.data.validation, device, group=group, between=between)

    def _finish_epoch(self, nll: float, kept_canonical: int) -> None:
        state = self.state
        state.epoch, state.step_of_epoch, state.nll_of_epoch = state.epoch + 1, 0, 0.0
        state.canonical_instead += kept_canonical
        state.seconds = time.monotonic() - self.began
        if nll < state.best_nll:
            state.best_nll, state.best_epoch = nll, state.epoch

    def _log_row(self, train_nll: float, held_out: Likelihood, speed: float) -> dict[str, float]:
        return {
            "step": self.state.step,
            "epoch": self.state.epoch,
            "train_nll": train_nll,
            "val_nll": held_out.mean_nll,
            "val_top1": held_out.top1,
            "lr": self.optimizer.param_groups[0]["lr"],
            "tokens_per_second": speed,
            "seconds": self.state.seconds,
        }

    def _set_learning_rate(self, fraction: float) -> None:
        """Sets the learning rate for a fraction of the whole training."""
        rate = learning_rate(fraction, self.config)
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def _nll_so_far(self) -> Tensor:
        """This process's part of an interrupted epoch's NLL; float64, because float32 loses digits over an epoch."""
        device = self.runtime.device if self.runtime.device.type != "mps" else torch.device("cpu")  # MPS: no float64
        return torch.tensor(self.state.nll_of_epoch / self.runtime.group.size, dtype=torch.float64, device=device)

    def _log_so_far(self) -> list[dict[str, float]]:
        """The rows of log.csv up to the state's epoch; a killed training may have written one more row.

        Raises MolgenError if rows are missing.
        """
        log = [row for row in self.run.log() if row["epoch"] <= self.state.epoch]
        if len(log) != self.state.epoch:
            raise MolgenError(
                f"{self.run.path / LOG}: has {len(log)} of the {self.state.epoch} epochs that are done",
                "restore the file, or train again",
            )
        if self.runtime.group.is_main:
            self.run.write_log(log)
        return log

    def _log_start(self) -> None:
        state, group = self.state, self.runtime.group
        device = self.runtime.device.type
        where = device if group.size == 1 else f"{group.size} processes on {device}"
        tokens, weights = len(self.data.tokenizer), self.model.num_parameters
        active = self.model.num_active_parameters
        used = f" ({active:,} of them per token)" if active < weights else ""
        logger.info(f"{weights:,} weights{used}, {tokens} tokens, {where}, into {self.run.path}")
        if state.step:
            steps = f" and {state.step_of_epoch} steps of the next" if state.step_of_epoch else ""
            logger.info(f"going on after epoch {state.epoch} of {self.config.epochs}{steps}")
        elif self.config.init is not None:
            before = self._likelihood(self.model)
            logger.info(f"before the first step: validation NLL {before.mean_nll:.2f}, top-1 {before.top1:.3f}")

    def _out_of_patience(self) -> bool:
        patience = self.config.patience
        return patience is not None and self.state.epoch - self.state.best_epoch > patience

    def _call(self, moment: str, *progress: EpochProgress) -> None:
        for callback in self.callbacks:
            getattr(callback, moment)(self, *progress)


def check_finite(value: float, name: str, state: TrainerState) -> None:
    """Raises FloatingPointError if a value, such as the loss, is infinite or NaN."""
    if not math.isfinite(value):
        raise FloatingPointError(
            f"the {name} is no longer finite in epoch {state.epoch + 1}; the last good weights are kept. "
            "Try a lower training.learning_rate"
        )
