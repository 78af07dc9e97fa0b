"""What follows a training as it goes on: the state on disk, log.csv, curves, the bar and the messages.

The trainer calls each callback at five moments; one that has nothing to do then inherits a method that does nothing.
"""

import math
import time
from logging import getLogger
from typing import NoReturn

from tqdm import tqdm

from molgen.checkpoint import save_state
from molgen.runs import CURVES, STATE
from molgen.runtime.device import memory_used
from molgen.runtime.log import duration, progress_disabled
from molgen.training.curves import draw_curves
from molgen.training.trainer import Callback, EpochProgress, Trainer, check_finite

logger = getLogger(__name__)

_SECONDS_BETWEEN_CURVES = 15.0
_SECONDS_BETWEEN_STATES = 300.0
_SECONDS_BETWEEN_SIGNS = 300.0
_SECONDS_BETWEEN_FIGURES = 1.0
_SECONDS_BEFORE_FORECAST = 10.0


def standard_callbacks(is_main: bool) -> list[Callback]:
    """Those of `molgen train`: the main process writes and reports, all of them save together."""
    if not is_main:
        return [Checkpoint()]
    return [ProgressBar(), Forecast(), BestWeights(), LogFile(), Checkpoint(), Curves(), EpochMessage()]


class Checkpoint(Callback):
    """Saves the state after each epoch, every five minutes within one, and when a signal comes, which then acts."""

    def __init__(self) -> None:
        self._saved = time.monotonic()

    def after_step(self, trainer: Trainer, progress: EpochProgress) -> None:
        """Saves if any process has had a signal, or if it is time."""
        group, signals = trainer.runtime.group, trainer.signals
        overdue = group.is_main and time.monotonic() - self._saved > _SECONDS_BETWEEN_STATES
        wanted = group.all_reduce_max(2 * signals.received + overdue)  # one message for both
        if wanted:
            self._save_within_epoch(trainer, progress)
        if wanted > 1:
            signals.leave(wanted // 2)

    def in_validation(self, trainer: Trainer, progress: EpochProgress) -> None:
        """A signal leaves a state in which all steps of the epoch are done, and its validation comes next."""
        if trainer.signals.received:
            self._save_within_epoch(trainer, progress)
            trainer.signals.leave(trainer.signals.received)

    def after_epoch(self, trainer: Trainer) -> None:
        """Saves."""
        self._save(trainer)

    def _save_within_epoch(self, trainer: Trainer, progress: EpochProgress) -> None:
        trainer.state.nll_of_epoch = trainer.total_nll(progress)
        check_finite(trainer.state.nll_of_epoch, "loss", trainer.state)
        norm = sum(float(parameter.detach().double().square().sum()) for parameter in trainer.model.parameters())
        check_finite(norm, "norm of the weights", trainer.state)
        self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        self._saved = time.monotonic()
        trainer.state.seconds = self._saved - trainer.began
        if trainer.runtime.group.is_main:
            position = trainer.state.position
            save_state(trainer.run.path / STATE, trainer.models, trainer.optimizer, position, trainer.fingerprint)


class BestWeights(Callback):
    """Saves the weights with the lowest validation NLL."""

    def after_epoch(self, trainer: Trainer) -> None:
        """Saves those of this epoch if it is the best."""
        if trainer.state.best_epoch == trainer.state.epoch:
            trainer.run.save_model(trainer.best_candidate)


class LogFile(Callback):
    """Writes log.csv."""

    def after_epoch(self, trainer: Trainer) -> None:
        """Writes all rows."""
        trainer.run.write_log(trainer.log)


class Curves(Callback):
    """Draws the learning curves, at the end and now and then before."""

    def __init__(self) -> None:
        self._drawn = -math.inf

    def after_epoch(self, trainer: Trainer) -> None:
        """Draws if it is time."""
        if time.monotonic() - self._drawn > _SECONDS_BETWEEN_CURVES:
            self.after_training(trainer)
            self._drawn = time.monotonic()

    def after_training(self, trainer: Trainer) -> None:
        """Draws."""
        draw_curves(trainer.log, trainer.run.path / CURVES, trainer.run.path.name)


class EpochMessage(Callback):
    """One line per epoch."""

    def after_epoch(self, trainer: Trainer) -> None:
        """The figures of the log's last row."""
        row, state = trainer.log[-1], trainer.state
        best = "  best" if state.best_epoch == state.epoch else ""
        logger.info(
            f"epoch {state.epoch:>3}/{trainer.config.epochs}  train {row['train_nll']:.2f}  "
            f"validation {row['val_nll']:.2f}  top-1 {row['val_top1']:.3f}  "
            f"{row['tokens_per_second']:,.0f} tokens/s  {row['seconds']:,.0f} s{best}"
        )


class ProgressBar(Callback):
    """A bar over the tokens of an epoch; where there is no terminal, a line every five minutes."""

    _bar: "tqdm[NoReturn]"

    def before_epoch(self, trainer: Trainer, progress: EpochProgress) -> None:
        """Opens the bar."""
        self._bar = tqdm(
            total=progress.all_positions, unit="tok", unit_scale=True, leave=False, disable=progress_disabled()
        )
        self._bar.set_description(f"epoch {trainer.state.epoch + 1}/{trainer.config.epochs}")
        self._said = self._shown = time.monotonic()

    def after_step(self, trainer: Trainer, progress: EpochProgress) -> None:
        """Moves it."""
        self._bar.update(progress.positions - self._bar.n)
        now = time.monotonic()
        if not self._bar.disable and now - self._shown > _SECONDS_BETWEEN_FIGURES:  # a GPU is waited for
            self._shown = now
            nll = float(progress.nll) * trainer.runtime.group.size / progress.molecules
            self._bar.set_postfix_str(f"NLL {nll:.2f}", refresh=False)
        if self._bar.disable and now - self._said > _SECONDS_BETWEEN_SIGNS:  # a log file has no bar
            self._said = now
            share = progress.positions / progress.all_positions
            logger.info(f"epoch {trainer.state.epoch + 1}: {share:.0%}, {progress.tokens_per_second:,.0f} tokens/s")

    def after_steps(self, trainer: Trainer, progress: EpochProgress) -> None:  # noqa: ARG002
        """Removes it."""
        self._bar.close()


class Forecast(Callback):
    """Says once, some seconds after the first step, how long the training will take and what it takes already."""

    def __init__(self) -> None:
        self._first, self._began, self._said = 0, 0.0, False

    def before_epoch(self, trainer: Trainer, progress: EpochProgress) -> None:  # noqa: ARG002
        """Before the first one, counts the steps that are left."""
        if not self._first:
            self._epochs = trainer.config.epochs - trainer.state.epoch
            steps_per_epoch = len(trainer.data.corpus) / trainer.config.batch_size
            self._steps = steps_per_epoch * self._epochs - trainer.state.step_of_epoch

    def after_step(self, trainer: Trainer, progress: EpochProgress) -> None:  # noqa: ARG002
        """Says it when ten seconds have passed."""
        if self._said:
            return
        if not self._first:  # which takes longer than all others
            self._first, self._began = trainer.state.step, time.monotonic()
            return
        seconds = time.monotonic() - self._began
        if seconds >= _SECONDS_BEFORE_FORECAST:
            whole = seconds / (trainer.state.step - self._first) * self._steps
            epochs = "1 epoch" if self._epochs == 1 else f"{self._epochs} epochs"
            logger.info(f"about {duration(whole)} for {epochs} at this speed; {memory_used()} of memory so far")
            self._said = True
