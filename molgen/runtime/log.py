"""What is said to a person while a command runs: messages by the standard library's logging, progress bars, errors.

A library does not print: modules log under `molgen`, and only the command line shows it, on stderr.
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
    """Lines on stderr, clear of a progress bar. That no one reads them any more does not end the work."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        try:
            tqdm.write(record.getMessage(), file=sys.stderr)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def _is_for_stderr(record: logging.LogRecord) -> bool:
    """Of several processes the main one informs; a warning comes from the one that meets its cause."""
    return record.levelno >= logging.WARNING or this_process().is_main


@contextmanager
def log_to_stderr(level: int = logging.INFO) -> Iterator[None]:
    """Shows what molgen logs on stderr while the block runs; within another such block nothing changes."""
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
    """For tqdm's `disable`: bars are the main process's, and for a terminal only."""
    return None if this_process().is_main else True


def print_error(text: str) -> None:
    """The line that a command ends with when it fails.

    Most mistakes are seen by every process: the others leave it a second to print and torchrun to end them.
    """
    try:
        group = this_process()
    except MolgenError:  # which is what there is to complain about
        group = SINGLE_PROCESS
    if not group.is_main:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        time.sleep(1)
        text = f"process {group.rank} of {group.size}: {text}"
    print(f"molgen: {text}", file=sys.stderr)


def duration(seconds: float) -> str:
    """A length of time as a person says it."""
    for size, name in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.1f} {name}" if seconds < 9.5 * size else f"{seconds / size:.0f} {name}"
    return f"{seconds:.0f} seconds"
