"""How long the stages of a command take: named where they run, added up by whoever asks."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_measured: ContextVar[dict[str, float] | None] = ContextVar("measured", default=None)


@contextmanager
def measured_stages() -> Iterator[dict[str, float]]:
    """Wall-clock seconds by the name of a stage, of the stages that end within the block."""
    seconds: dict[str, float] = {}
    token = _measured.set(seconds)
    try:
        yield seconds
    finally:
        _measured.reset(token)


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Adds the time of the block to a stage, if stages are measured. Stages may contain others."""
    seconds = _measured.get()
    start = time.perf_counter()
    yield
    if seconds is not None:
        seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - start
