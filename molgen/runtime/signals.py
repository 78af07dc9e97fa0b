"""Delays SIGINT and SIGTERM while work must not stop halfway."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn


class TerminatedError(Exception):
    """The process received SIGTERM."""


def terminate(*_: Any) -> NoReturn:
    """A handler of SIGTERM that raises an exception, so that `finally` blocks run."""
    raise TerminatedError


class HeldSignals:
    """The signals received so far, and a method to act on them."""

    def __init__(self) -> None:
        self.received = 0
        """The number of the first signal; 0 if none was received."""
        self._before: dict[int, Any] = {}

    def leave(self, number: int) -> None:
        """Restores the original handlers and raises the signal again."""
        for held, handler in self._before.items():
            signal.signal(held, handler)
        signal.raise_signal(number)

    def _hold(self, number: int, _: object) -> None:
        if self.received:
            self.leave(number)
        self.received = number


@contextmanager
def signals_held() -> Iterator[HeldSignals]:
    """Delays SIGINT and SIGTERM until `leave` or the end of the block; a second signal acts immediately.

    Python ignores an exception that a signal handler raises at some places, such as `__del__`. Between two steps this
    cannot happen.
    """
    held = HeldSignals()
    if threading.current_thread() is threading.main_thread():
        held._before = {number: signal.signal(number, held._hold) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield held
        if held.received:
            held.leave(held.received)
    finally:
        for number, handler in held._before.items():
            signal.signal(number, handler)
