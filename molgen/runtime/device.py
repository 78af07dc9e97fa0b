"""Devices: which one computes, in which precision, how much memory there is.

torch is imported where it is used, so that the command line can name devices without it.
"""

import contextlib
import logging
import math
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from molgen.errors import MolgenError

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

T = TypeVar("T")
Device = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["auto", "fp32", "bf16"]


def choose_device(wanted: Device) -> "torch.device":
    """cuda, else mps, else cpu for `auto`. Raises MolgenError for a device that is not there."""
    import torch

    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if wanted == "auto":
        return torch.device(next(name for name, there in available.items() if there))
    if not available[wanted]:
        there = ", ".join(name for name, is_there in available.items() if is_there)
        raise MolgenError(f"--device {wanted}: not available here", f"available: {there}; or leave --device out")
    return torch.device(wanted)


def uses_bf16(precision: Precision, device: "torch.device") -> bool:
    """What a precision means on a device: `auto` is bf16 where there are units for it."""
    return precision == "bf16" or (precision == "auto" and _gains_from_bf16(device))


def autocast(precision: Precision, device: "torch.device") -> "torch.autocast":
    """For a forward pass: bf16 in the matrix products where the precision says so."""
    import torch

    return torch.autocast(device.type, torch.bfloat16, enabled=uses_bf16(precision, device))


def _gains_from_bf16(device: "torch.device") -> bool:
    import torch

    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities()
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return False  # mps gains nothing at these sizes


def split_on_oom(halved: bool, whole: Callable[[], T], half_batches: Callable[[], T]) -> tuple[bool, T]:
    """A piece of work, in two halves if it has come to that before or if a GPU's memory is too small for the whole.

    Gives back which it was, and the result. What is too small for a half raises torch's own error.
    """
    import torch

    if not halved:
        try:
            return False, whole()
        except torch.OutOfMemoryError:
            pass  # out of this block, so that the error holds nothing in memory any more
        torch.cuda.empty_cache()
        logger.info("out of GPU memory: batches are worked on in halves from here on")
    return True, half_batches()


def hardware(device: "torch.device") -> dict[str, str | int]:
    """What a figure of speed must be read with."""
    import torch

    return {
        "device": device.type,
        "name": torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name(),
        "threads": torch.get_num_threads(),
        "platform": f"{platform.system()} {platform.machine()}",
    }


def cpu_name() -> str:
    """The processor as it calls itself where Linux tells, else its architecture."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


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


def memory_of_machine() -> float:
    """Bytes that this machine, or the container in which we are, has; infinite where it does not say."""
    try:
        whole = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):  # not on Windows
        return math.inf
    with contextlib.suppress(OSError, ValueError):  # `max`, or no such file
        whole = min(whole, float(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    return whole


def check_memory(what: str, need: float) -> None:
    """Raises MolgenError for what would be held in memory and cannot be."""
    if need > (most := memory_of_machine()):
        raise MolgenError(
            f"{what}: needs more than {need / 2**30:,.0f} GiB of memory, this machine has {most / 2**30:,.1f}",
            "ask for fewer",
        )
