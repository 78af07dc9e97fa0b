"""Several processes at one command: who leads, whose share is which, what passes between them, who speaks.

torchrun starts the processes and tells each by its environment which one it is; without it there is one, a team of its
own. torch is imported only where processes meet: the command line speaks through this module.
"""

import math
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from molgen.errors import MolgenError

if TYPE_CHECKING:
    import numpy.typing as npt
    from torch import Tensor
    from torch.distributed import Store  # type: ignore[attr-defined]

# How long a process waits for another once they are connected. One that dies is missed at once, for its connections
# close; this is for a machine that vanishes or hangs.
TIMEOUT = timedelta(minutes=10)
_meetings = count()
_START = "start several processes with torchrun, which sets it; for one process unset it"


class Team:
    """The processes of one command, seen from one of them. Process 0 leads: it alone touches files and speaks."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size
        self.store: Store | None = None
        self.joined = False
        self._words = 0

    @property
    def leads(self) -> bool:
        """Whether this process is the first."""
        return self.rank == 0

    def meet(self, word: str) -> str:
        """The leader's word, in every process. For it the others wait as long as the leader takes to get here."""
        if self.store is None:
            return word
        self._words += 1
        key = f"word/{self._words}"
        if self.leads:
            # a path need not be UTF-8; a store takes bytes, whatever its annotation says
            self.store.set(key, word.encode("utf-8", "surrogateescape"))  # type: ignore[arg-type]
        while not self.store.check([key]):  # Store.wait would keep a signal waiting too
            time.sleep(0.1)
        return self.store.get(key).decode("utf-8", "surrogateescape")

    def share(self, rows: "npt.NDArray[Any]") -> "npt.NDArray[Any]":
        """Every `size`-th of these, for this process: of molecules in order of length a share of like token count."""
        return rows[self.rank :: self.size]

    def part(self, n: int) -> int:
        """How many of n things this process makes."""
        return n // self.size + (self.rank < n % self.size)

    def run_of(self, things: Sequence[object]) -> range:
        """The places of this process's things: one after another, after those of the processes before it."""
        return range(len(things) * self.rank // self.size, len(things) * (self.rank + 1) // self.size)

    def add_up(self, tensors: "Sequence[Tensor]") -> None:
        """Makes each tensor, in place, the sum of what the processes have: one message for all of them."""
        if self.size == 1:
            return
        import torch
        import torch.distributed as dist

        self._join()
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        dist.all_reduce(flat)
        for tensor, part in zip(tensors, torch.split(flat, [tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))

    def sum(self, values: "npt.NDArray[Any]") -> "npt.NDArray[Any]":
        """The sum of every process's array, in every process."""
        return values if self.size == 1 else self._reduced(values, "SUM")

    def largest(self, value: int) -> int:
        """The largest of the processes' values, in every process."""
        if self.size == 1:
            return value
        import numpy as np

        return int(self._reduced(np.array(value), "MAX"))

    def gather(self, values: "npt.NDArray[Any]") -> "npt.NDArray[Any]":
        """Every process's values (n,), one after another in the order of the processes, in every process."""
        import numpy as np

        sizes = self.sum(np.where(np.arange(self.size) == self.rank, len(values), 0))
        start = int(sizes[: self.rank].sum())
        whole = np.zeros(int(sizes.sum()), values.dtype)
        whole[start : start + len(values)] = values
        return self.sum(whole)

    def broadcast(self, arrays: "Mapping[str, npt.NDArray[Any]]") -> "dict[str, npt.NDArray[Any]]":
        """The leader's arrays, in every process."""
        if self.size == 1:
            return dict(arrays)
        import torch
        import torch.distributed as dist
        from safetensors.numpy import load, save  # torch's own way would be a pickle

        content = bytearray(save(dict(arrays)) if self.leads else b"")
        length = self.largest(len(content))
        data = torch.frombuffer(content, dtype=torch.uint8) if self.leads else torch.empty(length, dtype=torch.uint8)
        dist.broadcast(data, 0)
        return load(data.numpy().tobytes())  # type: ignore[no-any-return]

    def _join(self) -> None:
        """Connects the processes when first something passes between them, once all of them have come that far.

        Up to there one may need hours more than another, so no time limit holds yet.
        """
        if self.joined or self.store is None:
            return
        import torch.distributed as dist

        self.store.add("here", 1)
        while self.store.add("here", 0) < self.size:
            time.sleep(0.1)
        backend = "cpu:gloo,cuda:nccl" if dist.is_nccl_available() else "gloo"
        dist.init_process_group(backend, store=self.store, rank=self.rank, world_size=self.size, timeout=TIMEOUT)
        self.joined = True

    def _reduced(self, values: "npt.NDArray[Any]", operation: str) -> "npt.NDArray[Any]":
        import torch
        import torch.distributed as dist

        self._join()
        result = torch.tensor(values)
        dist.all_reduce(result, getattr(dist.ReduceOp, operation))
        return result.numpy()


ALONE = Team()


@contextmanager
def processes() -> Iterator[Team]:
    """The team that this process belongs to. Raises a RuntimeError where the others cannot be reached."""
    team = _here()
    if team.size == 1:
        yield team
        return
    import torch
    import torch.distributed as dist

    if torch.cuda.is_available():
        torch.cuda.set_device(_number("LOCAL_RANK", 0, 0) % torch.cuda.device_count())
    try:
        store, _, _ = next(dist.rendezvous("env://", timeout=TIMEOUT))  # type: ignore[attr-defined]
    except ValueError as error:  # of a variable that torch alone reads
        raise MolgenError(f"the processes cannot meet: {error}", _START) from None
    team.store = dist.PrefixStore(f"molgen/{next(_meetings)}", store)  # type: ignore[attr-defined]
    yield team
    if team.joined:  # not after an exception: the others may never come to a common end
        dist.destroy_process_group()


def processes_here() -> int:
    """How many of the processes run on this machine."""
    return _number("LOCAL_WORLD_SIZE", 1, 1)


def check_environment() -> None:
    """Raises MolgenError for variables, such as torchrun sets, that do not say which process of how many this is."""
    team = _here()
    local = processes_here()
    if team.size == 1:
        return
    rank = _number("LOCAL_RANK", 0, 0)
    if local > team.size or rank >= local:
        raise MolgenError(f"LOCAL_RANK={rank}, LOCAL_WORLD_SIZE={local}, WORLD_SIZE={team.size} contradict", _START)
    if not os.environ.get("MASTER_ADDR"):
        raise MolgenError("WORLD_SIZE is set, MASTER_ADDR is not", _START)
    if not 0 < _number("MASTER_PORT", 0, 0) < 2**16:
        raise MolgenError(f"MASTER_PORT={os.environ.get('MASTER_PORT', '')}: not a port", _START)


def silent() -> bool | None:
    """For tqdm's `disable`: bars are the leader's, and for a terminal only."""
    return None if _here().leads else True


def say(text: str) -> None:
    """A line on stderr, from the leader only. That no one reads it any more does not end the work."""
    if _here().leads:
        warn(text)


def warn(text: str) -> None:
    """As `say`, from any process: for what only the one that meets it knows."""
    from tqdm import tqdm

    try:
        tqdm.write(text, file=sys.stderr)  # keeps clear of a bar
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def isolated_python() -> tuple[list[str], dict[str, str]]:
    """(command, environment) of a Python that imports nothing out of the current folder, nor do its children.

    An empty or relative entry of PYTHONPATH is a place in the current folder, whichever that is.
    """
    absolute = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if Path(path).is_absolute()]
    others = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    paths = {"PYTHONPATH": os.pathsep.join(absolute)} if absolute else {}
    return [sys.executable, "-P"], {**others, **paths, "PYTHONSAFEPATH": "1"}


def duration(seconds: float) -> str:
    """A length of time as a person says it."""
    for size, name in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.1f} {name}" if seconds < 9.5 * size else f"{seconds / size:.0f} {name}"
    return f"{seconds:.0f} seconds"


def memory_used() -> str:
    """The most that this process has held so far; on a GPU, what it holds there."""
    import torch

    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB"
    try:
        import resource
    except ImportError:  # Windows
        return "an unknown amount"
    unit = 1 if sys.platform == "darwin" else 2**10
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30:.1f} GiB"


def complain(text: str) -> None:
    """The line that a command ends with when it fails.

    Most mistakes are seen by every process: the others leave the leader a second to say it and torchrun to end them.
    """
    try:
        team = _here()
    except MolgenError:  # which is what there is to complain about
        team = ALONE
    if not team.leads:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        time.sleep(1)
        text = f"process {team.rank} of {team.size}: {text}"
    print(f"molgen: {text}", file=sys.stderr)


def memory_of_machine() -> float:
    """Bytes that this machine, or the container in which we are, has; infinite where it does not say."""
    try:
        whole = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):  # not on Windows
        return math.inf
    with suppress(OSError, ValueError):  # `max`, or no such file
        whole = min(whole, float(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    return whole


def check_memory(what: str, need: float) -> None:
    """Raises MolgenError for what would be held in memory and cannot be."""
    if need > (most := memory_of_machine()):
        raise MolgenError(
            f"{what}: needs more than {need / 2**30:,.0f} GiB of memory, this machine has {most / 2**30:,.1f}",
            "ask for fewer",
        )


def _here() -> Team:
    size = _number("WORLD_SIZE", 1, 1)
    if size == 1:
        return ALONE
    if not os.environ.get("RANK"):
        raise MolgenError(f"WORLD_SIZE={size} is set, RANK is not", _START)
    if (rank := _number("RANK", 0, 0)) >= size:
        raise MolgenError(f"RANK={rank} with WORLD_SIZE={size}: ranks end with {size - 1}", _START)
    return Team(rank, size)


def _number(name: str, default: int, least: int) -> int:
    """A variable of the environment. Raises MolgenError for one that is no number, or a smaller one than `least`."""
    text = os.environ.get(name) or str(default)
    if not (text.isascii() and text.isdigit() and len(text) < 10) or int(text) < least:
        raise MolgenError(f"{name}={text}: not a number from {least} on", _START)
    return int(text)
