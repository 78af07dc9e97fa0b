"""SIGINT and SIGTERM: held back while something must not be left half done."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from molgen.processes import ALONE, Team


class TerminatedError(Exception):
    """SIGTERM."""


def terminate(*_: Any) -> NoReturn:
    """A handler of SIGTERM that lets every block be left in order."""
    raise TerminatedError


@contextmanager
def signals_held(team: Team = ALONE) -> Iterator[Callable[[], None]]:
    """Holds SIGINT and SIGTERM back until the function it gives is called, or to the end; a second one acts at once.

    An exception out of a signal handler can strike where Python swallows it. Between two steps it cannot, and there
    the processes of a team leave together, whichever of them got the signal first.
    """
    received: list[int] = []
    before: dict[int, Any] = {}

    def act() -> None:
        if number := team.largest(received[0] if received else 0):
            leave(number)

    def leave(number: int) -> None:
        for held, handler in before.items():
            signal.signal(held, handler)
        signal.raise_signal(number)

    def hold(number: int, _: object) -> None:
        received.append(number)
        if len(received) > 1:
            leave(number)

    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, hold) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield act
        act()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
