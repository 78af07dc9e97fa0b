"""Scorers on a cluster: Dask runs the batches on its workers, and again elsewhere if a worker dies.

Dask unpickles what its scheduler and workers send, so only a scheduler that the user names is spoken to.
"""

from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager

from molgen.errors import MolgenError

_SECONDS_TO_CONNECT = 30
_TRIES_ELSEWHERE = 3  # after a worker has died under a batch


@contextmanager
def cluster_executor(scheduler: str, jobs: int) -> Iterator[tuple[Executor, int]]:
    """(an executor of a Dask cluster, the number of batches that are at work at once).

    That is `jobs`, or as many as the cluster has threads if `jobs` is 1. Raises MolgenError if Dask is not installed or
    the scheduler cannot be reached.
    """
    try:
        from distributed import Client
    except ImportError:
        raise MolgenError("--scheduler: Dask is not installed", "install molgen's extra `dask`") from None
    try:
        client = Client(scheduler, timeout=_SECONDS_TO_CONNECT, set_as_default=False)
    except (OSError, ValueError) as error:
        raise MolgenError(
            f"--scheduler {scheduler}: cannot be reached: {error}",
            "such as tcp://host:8786, started by `dask scheduler`",
        ) from None
    try:
        threads = sum(client.nthreads().values())
        if not threads:
            raise MolgenError(f"--scheduler {scheduler}: has no workers", "start some: dask worker ADDRESS")
        yield client.get_executor(pure=False, retries=_TRIES_ELSEWHERE), jobs if jobs > 1 else threads
    finally:
        client.close()
