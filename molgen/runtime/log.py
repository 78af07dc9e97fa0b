"""Messages to the user while a command runs: log records and errors.

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

_logger = logging.getLogger("molgen")
_VERBOSE = logging.Formatter("%(asctime)s %(name)s: %(message)s", "%H:%M:%S")


class _Stderr(logging.Handler):
    """Writes log records to stderr without damage to a progress bar. A closed stderr does not end the command."""

    def emit(self, record: logging.LogRecord) -> None:
        from molgen.runtime.bars import Bar

        text = _VERBOSE.format(record) if _logger.level <= logging.DEBUG else record.getMessage()
        try:
            Bar.write(text, file=sys.stderr)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def _is_for_stderr(record: logging.LogRecord) -> bool:
    """Only the main process shows information; every process shows its own warnings."""
    return record.levelno >= logging.WARNING or this_process().is_main


@contextmanager
def log_to_stderr(level: int = logging.INFO) -> Iterator[None]:
    """Shows molgen's log records on stderr during the block; has no effect inside another such block."""
    before = _logger.level, _logger.propagate
    if any(isinstance(handler, _Stderr) for handler in _logger.handlers):
        try:
            yield
        finally:
            _logger.setLevel(before[0])
        return
    handler = _Stderr()
    handler.addFilter(_is_for_stderr)
    _logger.addHandler(handler)
    _logger.setLevel(level)
    _logger.propagate = False
    try:
        yield
    finally:
        _logger.removeHandler(handler)
        _logger.setLevel(before[0])
        _logger.propagate = before[1]


def set_verbosity(verbose: bool, quiet: bool) -> None:
    """What is shown from here on: with `verbose` also details, with times and modules; with `quiet` only warnings.

    Quiet shows no progress bars either. It counts until the end of `log_to_stderr`.
    """
    _logger.setLevel(logging.DEBUG if verbose else logging.WARNING if quiet else logging.INFO)


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
