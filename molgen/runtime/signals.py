"""SIGINT and SIGTERM: held back while something must not be left half done."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn


class TerminatedError(Exception):
    """SIGTERM."""


def terminate(*_: Any) -> NoReturn:
    """A handler of SIGTERM that lets every block be left in order."""
    raise TerminatedError


class HeldSignals:
    """What has come so far, and the way out."""

    def __init__(self) -> None:
        self.received = 0
        """The first signal's number; 0 while none has come."""
        self._before: dict[int, Any] = {}

    def leave(self, number: int) -> None:
        """Lets a signal do what it would have done at once."""
        for held, handler in self._before.items():
            signal.signal(held, handler)
        signal.raise_signal(number)

    def _hold(self, number: int, _: object) -> None:
        if self.received:
            self.leave(number)
        self.received = number


@contextmanager
def signals_held() -> Iterator[HeldSignals]:
    """Holds SIGINT and SIGTERM back until they are let act, or to the end; a second one acts at once.

    An exception out of a signal handler can strike where Python swallows it; between two steps it cannot.
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
