"""Callbacks of the trainer: saved states and weights, log.csv, curves, progress bar and messages."""

import math
import time
from logging import getLogger

from molgen.checkpoint import save_state
from molgen.runs import CURVES, STATE
from molgen.runtime.bars import Bar
from molgen.runtime.device import memory_used
from molgen.runtime.log import duration
from molgen.runtime.tensorboard import OnRow
from molgen.training.curves import draw_curves
from molgen.training.trainer import Callback, EpochProgress, Trainer, check_finite

logger = getLogger(__name__)

_SECONDS_BETWEEN_CURVES = 15.0
_SECONDS_BETWEEN_STATES = 300.0
_SECONDS_BETWEEN_SIGNS = 300.0
_SECONDS_BETWEEN_BAR_VALUES = 1.0
_SECONDS_BEFORE_FORECAST = 10.0


def standard_callbacks(is_main: bool, on_row: OnRow | None = None) -> list[Callback]:
    """The callbacks of `molgen train`. Every process has a Checkpoint; only the main process has the others.

    `on_row` gets each new row of the log once it is saved.
    """
    if not is_main:
        return [Checkpoint()]
    callbacks = [ProgressBar(), Forecast(), BestWeights(), LogFile(), Checkpoint(), Curves(), EpochMessage()]
    return callbacks + ([EachRow(on_row)] if on_row else [])


class Checkpoint(Callback):
    """Saves the state after each epoch, every five minutes within an epoch, and at a signal before it acts."""

    def __init__(self) -> None:
        self._saved = time.monotonic()

    def after_step(self, trainer: Trainer, progress: EpochProgress) -> None:
        """Saves if any process has received a signal, or after five minutes."""
        group, signals = trainer.runtime.group, trainer.signals
        overdue = group.is_main and time.monotonic() - self._saved > _SECONDS_BETWEEN_STATES
        wanted = group.all_reduce_max(2 * signals.received + overdue)  # one message for both
        if wanted:
            self._save_within_epoch(trainer, progress)
        if wanted > 1:
            signals.leave(wanted // 2)

    def in_validation(self, trainer: Trainer, progress: EpochProgress) -> None:
        """At a signal, saves a state with all steps of the epoch done; a resumed training begins with validation."""
        if trainer.signals.received:
            self._save_within_epoch(trainer, progress)
            trainer.signals.leave(trainer.signals.received)

    def after_epoch(self, trainer: Trainer) -> None:
        """Saves the state."""
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
        """Saves the weights if this epoch is the best."""
        if trainer.state.best_epoch == trainer.state.epoch:
            trainer.run.save_model(trainer.best_candidate)


class LogFile(Callback):
    """Writes log.csv."""

    def after_epoch(self, trainer: Trainer) -> None:
        """Writes all rows."""
        trainer.run.write_log(trainer.log)


class Curves(Callback):
    """Draws the learning curves at the end, and before at most every 15 seconds."""

    def __init__(self) -> None:
        self._drawn = -math.inf

    def after_epoch(self, trainer: Trainer) -> None:
        """Draws the curves if the last drawing is old enough."""
        if time.monotonic() - self._drawn > _SECONDS_BETWEEN_CURVES:
            self.after_training(trainer)
            self._drawn = time.monotonic()

    def after_training(self, trainer: Trainer) -> None:
        """Draws the curves."""
        draw_curves(trainer.log, trainer.run.path / CURVES, trainer.run.path.name)


class EpochMessage(Callback):
    """Logs one line per epoch."""

    def after_epoch(self, trainer: Trainer) -> None:
        """Logs the last row of the log."""
        row, state = trainer.log[-1], trainer.state
        best = "  best" if state.best_epoch == state.epoch else ""
        error = f"  given values {row['val_nll_given']:.2f}" if "val_nll_given" in row else ""
        error += f"  error {row['val_error']:.3f}" if "val_error" in row else ""
        logger.info(
            f"epoch {state.epoch:>3}/{trainer.config.epochs}  train {row['train_nll']:.2f}  "
            f"validation {row['val_nll']:.2f}  top-1 {row['val_top1']:.3f}{error}  "
            f"{row['tokens_per_second']:,.0f} tokens/s  {row['seconds']:,.0f} s{best}"
        )


class EachRow(Callback):
    """Hands each row of the log to a function, such as a writer for TensorBoard."""

    def __init__(self, on_row: OnRow) -> None:
        self._on_row = on_row

    def after_epoch(self, trainer: Trainer) -> None:
        """Hands over the last row of the log."""
        self._on_row(trainer.log[-1])


class ProgressBar(Callback):
    """A progress bar over the tokens of an epoch; without a terminal, a message every five minutes."""

    _bar: Bar

    def before_epoch(self, trainer: Trainer, progress: EpochProgress) -> None:
        """Opens the bar."""
        self._bar = Bar(total=progress.all_positions, unit="tok", unit_scale=True)
        self._bar.set_description(f"epoch {trainer.state.epoch + 1}/{trainer.config.epochs}")
        self._last_message = self._last_value = time.monotonic()

    def after_step(self, trainer: Trainer, progress: EpochProgress) -> None:
        """Updates the bar, or logs a message."""
        self._bar.update(progress.positions - self._bar.n)
        now = time.monotonic()
        # not at each step, because reading the NLL waits for the GPU
        if not self._bar.disable and now - self._last_value > _SECONDS_BETWEEN_BAR_VALUES:
            self._last_value = now
            nll = float(progress.nll) * trainer.runtime.group.size / progress.molecules
            self._bar.set_postfix_str(f"NLL {nll:.2f}", refresh=False)
        if self._bar.disable and now - self._last_message > _SECONDS_BETWEEN_SIGNS:
            self._last_message = now
            share = progress.positions / progress.all_positions
            logger.info(f"epoch {trainer.state.epoch + 1}: {share:.0%}, {progress.tokens_per_second:,.0f} tokens/s")

    def after_steps(self, trainer: Trainer, progress: EpochProgress) -> None:  # noqa: ARG002
        """Removes the bar."""
        self._bar.close()


class Forecast(Callback):
    """Logs once, ten seconds after the first step, how long the training will take and how much memory it uses."""

    def __init__(self) -> None:
        self._first, self._began, self._logged = 0, 0.0, False

    def before_epoch(self, trainer: Trainer, progress: EpochProgress) -> None:  # noqa: ARG002
        """Before the first epoch, computes the number of remaining steps."""
        if not self._first:
            self._epochs = trainer.config.epochs - trainer.state.epoch
            steps_per_epoch = len(trainer.data.corpus) / trainer.config.batch_size
            self._steps = steps_per_epoch * self._epochs - trainer.state.step_of_epoch

    def after_step(self, trainer: Trainer, progress: EpochProgress) -> None:  # noqa: ARG002
        """Logs the forecast when ten seconds have passed."""
        if self._logged:
            return
        if not self._first:  # the first step takes longer than the others, so it does not count
            self._first, self._began = trainer.state.step, time.monotonic()
            return
        seconds = time.monotonic() - self._began
        if seconds >= _SECONDS_BEFORE_FORECAST:
            whole = seconds / (trainer.state.step - self._first) * self._steps
            epochs = "1 epoch" if self._epochs == 1 else f"{self._epochs} epochs"
            logger.info(f"about {duration(whole)} for {epochs} at this speed; {memory_used()} of memory so far")
            self._logged = True
