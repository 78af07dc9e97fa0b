"""The device to compute on, its precision and its memory.

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
    """The torch device; `auto` is cuda, else mps, else cpu. Raises MolgenError for a device that is not available."""
    import torch

    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if wanted == "auto":
        return torch.device(next(name for name, is_available in available.items() if is_available))
    if not available.get(wanted):  # from Python it may be no name of a device at all
        names = ", ".join(name for name, is_available in available.items() if is_available)
        raise MolgenError(f"--device {wanted}: not available here", f"available: {names}; or leave --device out")
    return torch.device(wanted)


def uses_bf16(precision: Precision, device: "torch.device") -> bool:
    """Whether a precision is bf16 on this device; `auto` is bf16 if the hardware supports it natively."""
    return precision == "bf16" or (precision == "auto" and _gains_from_bf16(device))


def autocast(precision: Precision, device: "torch.device", cached: bool = True) -> "torch.autocast":
    """The context for a forward pass: matrix products in bf16 if `uses_bf16`.

    PyTorch caches weights in bf16 for all threads together, and a thread that leaves the context empties the cache. So
    where several threads train and a weight is used twice, only without the cache the gradient is always the same.
    """
    import torch

    return torch.autocast(device.type, torch.bfloat16, enabled=uses_bf16(precision, device), cache_enabled=cached)


def _gains_from_bf16(device: "torch.device") -> bool:
    import torch

    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities()
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return False  # no gain on mps at these model sizes


def split_on_oom(halved: bool, whole: Callable[[], T], half_batches: Callable[[], T]) -> tuple[bool, T]:
    """Runs `whole()`; after CUDA out-of-memory, or if `halved` is already true, runs `half_batches()` instead.

    Returns (whether the work was halved, the result). Raises torch.OutOfMemoryError if a half does not fit either.
    """
    import torch

    if not halved:
        try:
            return False, whole()
        except torch.OutOfMemoryError:
            pass  # continue outside this block, so that the error no longer keeps tensors in memory
        torch.cuda.empty_cache()
        logger.info("out of GPU memory: batches are worked on in halves from here on")
    return True, half_batches()


def hardware(device: "torch.device") -> dict[str, str | int]:
    """The hardware that a measured speed belongs to."""
    import torch

    return {
        "device": device.type,
        "name": torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name(),
        "threads": torch.get_num_threads(),
        "platform": f"{platform.system()} {platform.machine()}",
    }


def cpu_name() -> str:
    """The processor's model name from /proc/cpuinfo, else its architecture."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def memory_used() -> str:
    """The peak memory of this process so far, in GiB as text; on a GPU, the peak of GPU memory."""
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
    """Bytes of memory of this machine, or of its container if that has less; infinite if unknown."""
    try:
        whole = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):  # not on Windows
        return math.inf
    with contextlib.suppress(OSError, ValueError):  # `max`, or no such file
        whole = min(whole, float(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    return whole


def check_memory(what: str, need: float) -> None:
    """Raises MolgenError if `need` bytes are more than the machine's memory; `what` starts the message."""
    if need > (most := memory_of_machine()):
        raise MolgenError(
            f"{what}: needs more than {need / 2**30:,.0f} GiB of memory, this machine has {most / 2**30:,.1f}",
            "ask for fewer",
        )
