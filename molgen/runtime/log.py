"""Messages to the user while a command runs: log records, progress bars and errors.

A library does not print: the modules log under `molgen`, and only the command line shows the records, on stderr.
"""

import logging
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from molgen.errors import MolgenError
from molgen.runtime.distributed import SINGLE_PROCESS, this_process


class _Stderr(logging.Handler):
    """Writes log records to stderr without damage to a progress bar. A closed stderr does not end the command."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        try:
            tqdm.write(record.getMessage(), file=sys.stderr)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def _is_for_stderr(record: logging.LogRecord) -> bool:
    """Only the main process shows information; every process shows its own warnings."""
    return record.levelno >= logging.WARNING or this_process().is_main


@contextmanager
def log_to_stderr(level: int = logging.INFO) -> Iterator[None]:
    """Shows molgen's log records on stderr during the block; has no effect inside another such block."""
    logger = logging.getLogger("molgen")
    if any(isinstance(handler, _Stderr) for handler in logger.handlers):
        yield
        return
    handler, before = _Stderr(), (logger.level, logger.propagate)
    handler.addFilter(_is_for_stderr)
    logger.addHandler(handler)
    logger.setLevel(level)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.level, logger.propagate = before


def progress_disabled() -> bool | None:
    """The value for tqdm's `disable`: only the main process shows bars, and only on a terminal (None)."""
    return None if this_process().is_main else True


def print_error(text: str) -> None:
    """Prints the error line of a failed command.

    Most errors occur in every process. The other processes wait one second, so that the main process prints first and
    torchrun can end them.
    """
    try:
        group = this_process()
    except MolgenError:  # the environment itself is the error
        group = SINGLE_PROCESS
    if not group.is_main:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        time.sleep(1)
        text = f"process {group.rank} of {group.size}: {text}"
    print(f"molgen: {text}", file=sys.stderr)


def duration(seconds: float) -> str:
    """A duration as text with a suitable unit, such as "2.5 hours"."""
    for size, name in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.1f} {name}" if seconds < 9.5 * size else f"{seconds / size:.0f} {name}"
    return f"{seconds:.0f} seconds"
