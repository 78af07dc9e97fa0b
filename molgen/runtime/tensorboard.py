"""Figures of a training or an optimisation as they come, for TensorBoard."""

import math
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from molgen.errors import MolgenError

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

Tracker = Literal["tensorboard"]
OnRow = Callable[[Mapping[str, float]], None]
"""Called with each new row of log.csv, or of rounds.csv in an optimisation."""
FOLDER = "tensorboard"
"""Of a run directory: the files for `tensorboard --logdir`."""


class TensorBoard:
    """Writes each row as scalars; the row's own column `step` is the horizontal axis.

    Files are created at the first row. Those of an earlier training in the folder are deleted, unless `resume`.
    Raises MolgenError if the package tensorboard (extra `tensorboard`) is not installed.
    """

    def __init__(self, folder: Path, step: str, resume: bool = False) -> None:
        if find_spec("tensorboard") is None:
            raise MolgenError("--log tensorboard: not installed", "install molgen's extra `tensorboard`")
        self._folder, self._step, self._resume = folder, step, resume
        self._writer: SummaryWriter | None = None

    def __call__(self, row: Mapping[str, float]) -> None:
        """Writes a row; what is not a finite number is left out."""
        if self._writer is None:
            self._writer = self._opened()
        for name, value in row.items():
            if name != self._step and math.isfinite(value):
                self._writer.add_scalar(name, value, int(row[self._step]))
        self._writer.flush()

    def _opened(self) -> "SummaryWriter":
        from torch.utils.tensorboard import SummaryWriter

        if not self._resume:
            for old in self._folder.glob("events.out.tfevents.*"):
                old.unlink()
        return SummaryWriter(str(self._folder))
