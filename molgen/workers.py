"""RDKit in processes of its own, which may hang or die without harm.

Each worker is `python -m molgen.workers`: when it is ready it says so, then a line of JSON in (task, settings, items)
gives a line of JSON out (results). When one hangs or dies, its items are tried again in halves until the culprit stands
alone; that one is lost.
"""

import json
import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from tqdm import tqdm

from molgen import cleaning, description, molecules, properties
from molgen.processes import processes_here, silent

TASKS: dict[str, Callable[..., Any]] = {
    "clean": cleaning.clean,
    "canonical": molecules.canonical,
    "random_form": molecules.random_form,
    "random_forms": molecules.random_forms,
    "add_carbon": molecules.add_carbon,
    "describe": description.describe,
    "tabulate": properties.tabulate,
    "screen": properties.screen,
}
_CHUNK = 500
_SECONDS, _SECONDS_AN_ITEM, _SECONDS_TO_START = 10.0, 0.1, 120.0
_READY = "ready\n"
_MORE_MEMORY = 4 * 2**30  # than a worker starts with: a molecule that eats more is lost alone


class Worker:
    """One child process; `run` starts it anew when it has ended."""

    def __init__(self) -> None:
        self._process, self._ready = self._start(), False

    def _start(self) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-m", "molgen.workers"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
        )

    def run(self, task: str, settings: dict[str, Any], items: Sequence[Any]) -> list[Any] | None:
        """The results, or None when the worker died or overran its time limit (and was ended)."""
        process = self._process
        assert process.stdin and process.stdout
        try:
            if not self._ready:  # to load RDKit takes a while on a busy machine: no molecule is to blame for that
                with _ended_after(_SECONDS_TO_START, process):
                    self._ready = process.stdout.readline() == _READY
            with _ended_after(_SECONDS + _SECONDS_AN_ITEM * len(items), process):
                process.stdin.write(json.dumps([task, settings, list(items)]) + "\n")
                process.stdin.flush()
                line = process.stdout.readline()
            results: list[Any] = json.loads(line)
            return results
        except (OSError, ValueError):
            self.close()
            self._process, self._ready = self._start(), False
            return None

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


@contextmanager
def _ended_after(seconds: float, process: "subprocess.Popen[str]") -> Iterator[None]:
    """Kills a process that takes longer for what is in the block."""
    timer = threading.Timer(seconds, process.kill)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


class Workers:
    """A pool of workers. Use `workers()` to open one."""

    def __init__(self, processes: int) -> None:
        self.processes = processes
        self._idle: SimpleQueue[Worker] = SimpleQueue()
        self._all = [Worker() for _ in range(processes)]
        for worker in self._all:
            self._idle.put(worker)
        self._threads = ThreadPoolExecutor(processes)

    def map(self, task: str, items: Sequence[Any], description: str = "", **settings: Any) -> list[Any]:
        """One result an item, in order; None for an item on which RDKit hung or crashed.

        An item is a task's first argument, or a list of its arguments. With a description a bar shows after a second.
        """
        return [result for part in self.stream(task, items, description, **settings) for result in part]

    def stream(self, task: str, items: Sequence[Any], description: str = "", **settings: Any) -> Iterator[list[Any]]:
        """As `map`, some hundred results at a time, for results too large to be held all at once."""
        chunks = (items[i : i + _CHUNK] for i in range(0, len(items), _CHUNK))
        pending: deque[Future[list[Any]]] = deque()

        def one(chunk: Sequence[Any]) -> list[Any]:
            worker = self._idle.get()
            try:
                return self._isolating(worker, task, settings, chunk)
            finally:
                self._idle.put(worker)

        disable = silent() if description else True
        with tqdm(total=len(items), desc=description, unit="mol", delay=1, disable=disable, leave=False) as bar:
            while True:
                for chunk in islice(chunks, 2 * self.processes - len(pending)):
                    pending.append(self._threads.submit(one, chunk))
                if not pending:
                    return
                part = pending.popleft().result()
                bar.update(len(part))
                yield part

    def _isolating(self, worker: Worker, task: str, settings: dict[str, Any], items: Sequence[Any]) -> list[Any]:
        results = worker.run(task, settings, items)
        if results is not None:
            return results
        if len(items) == 1:
            return [None]
        middle = len(items) // 2
        return [
            *self._isolating(worker, task, settings, items[:middle]),
            *self._isolating(worker, task, settings, items[middle:]),
        ]

    def close(self) -> None:
        self._threads.shutdown(cancel_futures=True)
        for worker in self._all:
            worker.close()


@contextmanager
def workers(processes: int | None = None) -> Iterator[Workers]:
    """A pool with one process a core (at most 16) unless told otherwise, ended with the block."""
    pool = Workers(processes or max(1, min(16, (os.cpu_count() or 1) // processes_here())))
    try:
        yield pool
    finally:
        pool.close()


def _serve() -> None:
    if hasattr(os, "nice"):
        os.nice(5)  # the threads of a training wait for each other: a worker must not hold one of them up
    with suppress(ImportError, OSError, ValueError):  # not Linux; a limit that is lower already
        import resource

        mapped = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (mapped + _MORE_MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever C++ prints must not end up among the answers
    answers.write(_READY)
    answers.flush()
    for line in sys.stdin:
        task, settings, items = json.loads(line)
        function = TASKS[task]
        results = [function(*(item if isinstance(item, list) else [item]), **settings) for item in items]
        answers.write(json.dumps(results) + "\n")
        answers.flush()


if __name__ == "__main__":
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    _serve()
