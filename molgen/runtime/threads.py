"""Parallel chunks of work on a CPU, each with a part of PyTorch's threads.

Threads that share one small matrix product wait for each other at its end, a hundred times per step. Threads with
separate chunks do not. PyTorch holds Python's global lock only between two operations.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch

_MOST = 4  # with more threads, Python's global lock becomes the limit


def worker_threads(device: torch.device) -> int:
    """How many chunks are useful: several on a CPU with several cores, one on a GPU."""
    return min(_MOST, torch.get_num_threads()) if device.type == "cpu" else 1


@contextmanager
def shared_threads(num_chunks: int) -> Iterator[ThreadPoolExecutor]:
    """An executor for `num_chunks` parallel chunks; the end of the block cancels chunks that have not started."""
    threads = torch.get_num_threads()
    executor = ThreadPoolExecutor(num_chunks, "molgen", torch.set_num_threads, (max(1, threads // num_chunks),))
    torch.set_num_threads(max(1, threads // num_chunks))
    try:
        yield executor
    finally:
        executor.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)  # the setting of the chunks applies to all later threads too
