"""Several chunks of work on a CPU at the same time, each with some of PyTorch's threads.

Threads that share one small matrix product wait for each other at its end, a hundred times per step; threads with a
chunk of their own do not. PyTorch holds Python's lock only between two operations.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch

_MOST = 4  # above, what Python does between operations would make them wait for each other


def worker_threads(device: torch.device) -> int:
    """How many chunks pay: several on a CPU of several cores, one on a GPU."""
    return min(_MOST, torch.get_num_threads()) if device.type == "cpu" else 1


@contextmanager
def shared_threads(num_chunks: int) -> Iterator[ThreadPoolExecutor]:
    """Runs so many chunks at once; what has not begun when the block ends is left out."""
    threads = torch.get_num_threads()
    executor = ThreadPoolExecutor(num_chunks, "molgen", torch.set_num_threads, (max(1, threads // num_chunks),))
    torch.set_num_threads(max(1, threads // num_chunks))
    try:
        yield executor
    finally:
        executor.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)  # for what the chunks set, all later threads would have too
