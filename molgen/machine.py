"""The runtime of a command: its device, its process group and RDKit's workers in one object."""

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
    """A device, a process group and workers; made by a command, used by the trainer, the generator and the evaluator.

    Device and workers are made at first use, because the device needs torch and the workers are processes. At its first
    use, `device` raises MolgenError if the device is not available.
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
        """The torch device for all tensors."""
        return choose_device(self._wanted) if isinstance(self._wanted, str) else self._wanted

    @property
    def workers(self) -> Workers:
        """The worker processes with RDKit; by default the shared pool of this process."""
        if self._workers is None:
            self._workers = shared_workers()
        return self._workers


@contextmanager
def open_runtime(device: Device = "auto", start_workers: bool = True) -> Iterator[Runtime]:
    """The runtime of a command, in the process group of torchrun if there is one. `start_workers`: start them now.

    Raises RuntimeError if the other processes cannot be reached.
    """
    with process_group() as group:
        yield Runtime(device, group, shared_workers() if start_workers else None)
