"""The process group of a command: rank, shards and collective operations.

torchrun starts the processes and sets the rank of each in its environment. Without torchrun there is one process. torch
is imported only when processes connect: the command line reads the environment through this module.
"""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from itertools import count
from typing import TYPE_CHECKING, Any

from molgen.errors import MolgenError

if TYPE_CHECKING:
    import numpy.typing as npt
    from torch import Tensor
    from torch.distributed import Store  # type: ignore[attr-defined]

# How long a connected process waits for another. This is for a machine that hangs or loses its network: if a process
# dies, its connections close and the others fail immediately.
TIMEOUT = timedelta(minutes=10)
_group_numbers = count()
_START = "start several processes with torchrun, which sets it; for one process unset it"


class ProcessGroup:
    """The processes of one command, as one of them sees them. Only the main process (rank 0) writes files and logs."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size
        self.store: Store | None = None
        self.joined = False
        self._num_broadcasts = 0

    @property
    def is_main(self) -> bool:
        """Whether this process has rank 0."""
        return self.rank == 0

    def broadcast_str(self, word: str) -> str:
        """The main process's string, in every process. The others wait for the main process without a time limit."""
        if self.store is None:
            return word
        self._num_broadcasts += 1
        key = f"word/{self._num_broadcasts}"
        if self.is_main:
            # a path may not be valid UTF-8; the store takes bytes, although its annotation says str
            self.store.set(key, word.encode("utf-8", "surrogateescape"))  # type: ignore[arg-type]
        while not self.store.check([key]):  # Store.wait would delay signals
            time.sleep(0.1)
        return self.store.get(key).decode("utf-8", "surrogateescape")

    def shard(self, rows: "npt.NDArray[Any]") -> "npt.NDArray[Any]":
        """Every `size`-th row, for this process. If the rows are sorted by length, all shards have similar tokens."""
        return rows[self.rank :: self.size]

    def part(self, n: int) -> int:
        """How many of n items this process makes."""
        return n // self.size + (self.rank < n % self.size)

    def run_of(self, things: Sequence[object]) -> range:
        """Indices of this process's items: one contiguous range per process, in order of rank."""
        return range(len(things) * self.rank // self.size, len(things) * (self.rank + 1) // self.size)

    def all_reduce_sum_(self, tensors: "Sequence[Tensor]") -> None:
        """Replaces each tensor, in place, by its sum over the processes; one message for all tensors."""
        if self.size == 1:
            return
        import torch
        import torch.distributed as dist

        self._join()
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        dist.all_reduce(flat)
        for tensor, part in zip(tensors, torch.split(flat, [tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))

    def all_reduce_sum(self, values: "npt.NDArray[Any]") -> "npt.NDArray[Any]":
        """The sum of every process's array, in every process."""
        return values if self.size == 1 else self._reduced(values, "SUM")

    def all_reduce_max(self, value: int) -> int:
        """The largest of the processes' values, in every process."""
        if self.size == 1:
            return value
        import numpy as np

        return int(self._reduced(np.array(value), "MAX"))

    def all_gather(self, values: "npt.NDArray[Any]") -> "npt.NDArray[Any]":
        """The values (n,) of all processes, concatenated in order of rank, in every process."""
        import numpy as np

        sizes = self.all_reduce_sum(np.where(np.arange(self.size) == self.rank, len(values), 0))
        start = int(sizes[: self.rank].sum())
        whole = np.zeros(int(sizes.sum()), values.dtype)
        whole[start : start + len(values)] = values
        return self.all_reduce_sum(whole)

    def broadcast(self, arrays: "Mapping[str, npt.NDArray[Any]]") -> "dict[str, npt.NDArray[Any]]":
        """The main process's arrays, in every process."""
        if self.size == 1:
            return dict(arrays)
        import torch
        import torch.distributed as dist
        from safetensors.numpy import load, save  # torch's own broadcast of objects uses pickle

        content = bytearray(save(dict(arrays)) if self.is_main else b"")
        length = self.all_reduce_max(len(content))
        data = torch.frombuffer(content, dtype=torch.uint8) if self.is_main else torch.empty(length, dtype=torch.uint8)
        dist.broadcast(data, 0)
        return load(data.numpy().tobytes())  # type: ignore[no-any-return]

    def _join(self) -> None:
        """Connects the processes at the first collective operation, when all of them have reached it.

        One process may reach it hours after another, so this waits without a time limit.
        """
        if self.joined or self.store is None:
            return
        import torch
        import torch.distributed as dist

        self.store.add("here", 1)
        while self.store.add("here", 0) < self.size:
            time.sleep(0.1)
        # NCCL is a part of PyTorch's CUDA build, but without a GPU it does not start
        backend = "cpu:gloo,cuda:nccl" if dist.is_nccl_available() and torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, store=self.store, rank=self.rank, world_size=self.size, timeout=TIMEOUT)
        self.joined = True

    def _reduced(self, values: "npt.NDArray[Any]", operation: str) -> "npt.NDArray[Any]":
        import torch
        import torch.distributed as dist

        self._join()
        result = torch.tensor(values)
        dist.all_reduce(result, getattr(dist.ReduceOp, operation))
        return result.numpy()


SINGLE_PROCESS = ProcessGroup()


@contextmanager
def process_group() -> Iterator[ProcessGroup]:
    """The group that this process belongs to. Raises RuntimeError if the other processes cannot be reached."""
    group = this_process()
    if group.size == 1:
        yield group
        return
    import torch
    import torch.distributed as dist

    if torch.cuda.is_available():
        torch.cuda.set_device(_number("LOCAL_RANK", 0, 0) % torch.cuda.device_count())
    try:
        store, _, _ = next(dist.rendezvous("env://", timeout=TIMEOUT))  # type: ignore[attr-defined]
    except ValueError as error:  # about a variable that only torch reads
        raise MolgenError(f"the processes cannot connect: {error}", _START) from None
    group.store = dist.PrefixStore(f"molgen/{next(_group_numbers)}", store)  # type: ignore[attr-defined]
    yield group
    if group.joined:  # not after an exception: the other processes may never reach this line
        dist.destroy_process_group()
    group.store = None  # its connections close now, not while the interpreter ends


def local_world_size() -> int:
    """How many of the processes run on this machine."""
    return _number("LOCAL_WORLD_SIZE", 1, 1)


def check_environment() -> None:
    """Raises MolgenError if the variables that torchrun sets are incomplete or contradict each other."""
    group = this_process()
    local = local_world_size()
    if group.size == 1:
        return
    rank = _number("LOCAL_RANK", 0, 0)
    if local > group.size or rank >= local:
        raise MolgenError(f"LOCAL_RANK={rank}, LOCAL_WORLD_SIZE={local}, WORLD_SIZE={group.size} contradict", _START)
    if not os.environ.get("MASTER_ADDR"):
        raise MolgenError("WORLD_SIZE is set, MASTER_ADDR is not", _START)
    if not 0 < _number("MASTER_PORT", 0, 0) < 2**16:
        raise MolgenError(f"MASTER_PORT={os.environ.get('MASTER_PORT', '')}: not a port", _START)


def this_process() -> ProcessGroup:
    """The group and rank from the environment, not connected yet. Raises MolgenError for a contradiction."""
    size = _number("WORLD_SIZE", 1, 1)
    if size == 1:
        return SINGLE_PROCESS
    if not os.environ.get("RANK"):
        raise MolgenError(f"WORLD_SIZE={size} is set, RANK is not", _START)
    if (rank := _number("RANK", 0, 0)) >= size:
        raise MolgenError(f"RANK={rank} with WORLD_SIZE={size}: ranks end with {size - 1}", _START)
    return ProcessGroup(rank, size)


def _number(name: str, default: int, least: int) -> int:
    """An environment variable as a number. Raises MolgenError if it is not a number or smaller than `least`."""
    text = os.environ.get(name) or str(default)
    if not (text.isascii() and text.isdigit() and len(text) < 10) or int(text) < least:
        raise MolgenError(f"{name}={text}: not a number from {least} on", _START)
    return int(text)
