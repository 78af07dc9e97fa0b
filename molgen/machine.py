"""What a command computes with: a device, a process group and RDKit's workers, made once and handed on as one thing."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING

from molgen.chem.pool import Workers, shared_workers
from molgen.runtime.device import Device, choose_device
from molgen.runtime.distributed import SINGLE_PROCESS, ProcessGroup, process_group

if TYPE_CHECKING:
    import torch


class Runtime:
    """Made by a command, held by the trainer, the generator and the evaluator.

    What costs time is made when it is first asked for: choosing the device imports torch, the workers are processes.
    Raises MolgenError then for a device that is not there.
    """

    def __init__(
        self,
        device: "Device | torch.device" = "auto",
        group: ProcessGroup = SINGLE_PROCESS,
        workers: Workers | None = None,
    ) -> None:
        self._wanted, self.group, self._workers = device, group, workers

    @cached_property
    def device(self) -> "torch.device":
        """Where tensors are computed."""
        return choose_device(self._wanted) if isinstance(self._wanted, str) else self._wanted

    @property
    def workers(self) -> Workers:
        """RDKit's processes; unless others were given, those that all of this process shares."""
        if self._workers is None:
            self._workers = shared_workers()
        return self._workers


@contextmanager
def open_runtime(device: Device = "auto", start_workers: bool = True) -> Iterator[Runtime]:
    """The runtime of a command, one process of those that torchrun has started. The workers start at once, if wanted.

    Raises a RuntimeError where the other processes cannot be reached.
    """
    with process_group() as group:
        yield Runtime(device, group, shared_workers() if start_workers else None)
