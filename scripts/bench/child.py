"""A command in a process of its own: what it takes in time and memory. For Linux."""

import os
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

_SHOWN = 4_000  # bytes of a failed command's output that are kept


class Cost(NamedTuple):
    """What a command took."""

    seconds: float
    """From its start to its end."""
    peak_mib: float
    """The largest resident size of its process in MiB; its own child processes are not counted."""


class FailedError(Exception):
    """What could not be measured; the message is one line."""

    def __init__(self, message: str, output: str = "") -> None:
        super().__init__(message)
        self.output = output
        """The end of what a failed command wrote."""


def measured_run(command: Sequence[str], environment: Mapping[str, str] | None = None) -> Cost:
    """Runs a command to its end; without an `environment` it has ours. Raises FailedError for one that fails.

    A child's peak of memory starts at its parent's: a script that measures memory should import nothing large.
    """
    with tempfile.TemporaryFile() as log:
        start = time.perf_counter()
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)
        _, status, usage = os.wait4(child.pid, 0)  # RUSAGE_CHILDREN would mix this child with earlier ones
        seconds = time.perf_counter() - start
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            log.seek(0)
            output = log.read()[-_SHOWN:].decode(errors="replace")
            last = (output.strip().splitlines() or [""])[-1]
            raise FailedError(f"{last} (exit code {child.returncode})", output)
    return Cost(seconds, usage.ru_maxrss / 1024)
