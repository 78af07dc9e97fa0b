"""A pool of RDKit worker processes, which may hang or crash without harm to the main process.

This process has one shared pool: its workers start at the first use and end with the process. A worker first writes
that it is ready. Then for each line of JSON (task, settings, items) it writes a line of JSON (the results, or the
exception that the task raised). If a worker hangs or crashes, its items are tried again in halves until the item that
causes it is isolated; that item has no result.
"""

import atexit
import ctypes
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from molgen.chem import (
    analogs,
    assemble,
    clean,
    descriptors,
    environments,
    filters,
    fragments,
    genetic,
    likeness,
    oracles,
    prepare,
)
from molgen.chem.smiles import add_carbon, canonical, random_form, random_forms
from molgen.runtime.bars import Bar, bars_disabled
from molgen.runtime.distributed import local_world_size
from molgen.runtime.isolation import isolated_python

logger = logging.getLogger(__name__)

TASKS: dict[str, Callable[..., Any]] = {
    "clean": clean.clean,
    "canonical": canonical,
    "random_form": random_form,
    "random_forms": random_forms,
    "add_carbon": add_carbon,
    "describe": descriptors.describe,
    "tabulate": descriptors.tabulate,
    "screen": filters.screen,
    "resembles": likeness.resembles,
    "measure": oracles.measure,
    "offspring": genetic.offspring,
    "versus": analogs.versus,
    "forms": prepare.forms,
    "prompts": fragments.prompts,
    "tails": fragments.tails,
    "filled": fragments.filled,
    "assembled": assemble.assembled,
    "atoms_in_fingerprint": environments.atoms_in_fingerprint,
}
_CHUNK = 500
# Limits of CPU time, not of wall time: on a busy machine a worker may run slowly for no fault of a molecule.
_SECONDS, _SECONDS_AN_ITEM, _SECONDS_TO_START = 10.0, 0.1, 120.0
_ASLEEP = 3  # a worker may sleep this many times its CPU limit; RDKit never sleeps, so it is stopped or swapped out
_LOOK_EVERY = 0.25  # seconds
_READY = "ready\n"
_MORE_MEMORY = 4 * 2**30  # limit above a worker's initial memory, so that a molecule that needs more fails alone
# Imports the same package that this process runs, and nothing else from the folder that contains it.
_START = """
import importlib.util as u, sys
spec = u.spec_from_file_location("molgen", sys.argv[1], submodule_search_locations=[sys.argv[2]])
sys.modules["molgen"] = u.module_from_spec(spec)
spec.loader.exec_module(sys.modules["molgen"])
from molgen.chem.pool import serve
serve(int(sys.argv[3]))
"""
_PR_SET_PDEATHSIG = 1


class WorkerError(RuntimeError):
    """A worker cannot start, or its task raised an exception: an error of the program, never of a molecule."""


class Worker:
    """One child process. `run` starts it if it does not run."""

    def __init__(self, starter: ThreadPoolExecutor) -> None:
        self._starter = starter
        self._process: subprocess.Popen[str] | None = None
        self._ready = False

    def start(self) -> "subprocess.Popen[str]":
        """The process, started if necessary; it may not be ready yet."""
        if self._process is not None and self._process.poll() is not None:
            self.close()  # it was killed while idle, so no molecule is the cause
        if self._process is None:
            self._ready = False
            # Linux ends a child when the thread that started it ends (see `serve`), so a permanent thread starts it.
            self._process = self._starter.submit(_start).result()
        return self._process

    def run(self, task: str, settings: dict[str, Any], items: Sequence[Any]) -> list[Any] | None:
        """The results; None if the worker crashed, or exceeded its limits and was killed.

        Raises WorkerError if the worker cannot start and for an exception in the task.
        """
        process = self.start()
        assert process.stdin and process.stdout
        request = json.dumps([task, settings, list(items)]) + "\n"
        if not self._ready:
            self._wait_until_ready(process)
        try:
            with _ended_after(_SECONDS + _SECONDS_AN_ITEM * len(items), process):
                process.stdin.write(request)
                process.stdin.flush()
                response = json.loads(process.stdout.readline())
        except (OSError, ValueError):
            self.close()
            return None
        if "error" in response:
            raise WorkerError(f"{task}: {response['error']}")
        results: list[Any] = response["results"]
        return results

    def kill(self) -> None:
        """Kills the process, from any thread; a call of `run` that waits for it returns None."""
        process = self._process
        if process is not None:
            process.kill()

    def close(self) -> None:
        """Kills the process and forgets it."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _wait_until_ready(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdout
        with _ended_after(_SECONDS_TO_START, process):
            self._ready = process.stdout.readline() == _READY
        if not self._ready:
            process.kill()
            _, errors = process.communicate()
            self._process = None
            last = (errors.strip().splitlines() or [f"it ended with {process.returncode}"])[-1]
            raise WorkerError(f"RDKit's process cannot start: {last}")


def _start() -> "subprocess.Popen[str]":
    python, environment = isolated_python()
    return subprocess.Popen(
        [*python, *_code()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,  # until it is ready
        text=True,
        encoding="utf-8",
        errors="replace",
        env=environment,
    )


def _code() -> list[str]:
    package = Path(__file__).resolve().parents[1]
    return ["-c", _START, str(package / "__init__.py"), str(package), str(os.getpid())]


def _hold_interrupts() -> None:
    """Blocks SIGINT in the thread that starts workers. They inherit this, so only the parent handles Ctrl-C."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


@contextmanager
def _ended_after(seconds: float, process: "subprocess.Popen[str]") -> Iterator[None]:
    """Kills a process that uses more CPU time than this during the block, or sleeps for too long."""
    done = threading.Event()
    threading.Thread(target=_watch, args=(process, seconds, done), daemon=True).start()
    try:
        yield
    finally:
        done.set()


def _watch(process: "subprocess.Popen[str]", seconds: float, done: threading.Event) -> None:
    first, _ = _used(process.pid)
    asleep, before = 0.0, time.monotonic()
    while not done.wait(_LOOK_EVERY):
        now = time.monotonic()
        passed, before = min(now - before, 2 * _LOOK_EVERY), now  # this process may have been suspended too
        used, runs = _used(process.pid)
        if used is None or first is None:  # no /proc: use wall time
            asleep += _ASLEEP * passed
        elif not runs:
            asleep += passed
        if asleep > _ASLEEP * seconds or (used or 0) - (first or 0) > seconds:
            process.kill()
            return


def _used(pid: int) -> tuple[float | None, bool]:
    """(CPU seconds of a process so far, whether it is runnable); None for the seconds if there is no /proc."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), fields[0] == "R"
    except (OSError, ValueError, IndexError, AttributeError):
        return None, False


class Workers:
    """A pool of workers. Use `workers()` to get one."""

    def __init__(self, processes: int) -> None:
        self.processes = processes
        self.lost: list[Any] = []
        """Items on which RDKit hung or crashed so far: results that include them must not be cached."""
        self._idle: SimpleQueue[Worker] = SimpleQueue()
        self._starter = ThreadPoolExecutor(1, "molgen-start", _hold_interrupts)
        self._all = [Worker(self._starter) for _ in range(processes)]
        for worker in self._all:
            worker.start()
            self._idle.put(worker)
        self._threads = ThreadPoolExecutor(processes, "molgen-worker")

    def map(
        self, task: str, items: Sequence[Any], description: str = "", at_a_time: int = _CHUNK, **settings: Any
    ) -> list[Any]:
        """One result per item, in order; None for an item on which RDKit hung or crashed, with a warning in the log.

        An item is the task's first argument, or a list of its arguments. With a description, a progress bar appears
        after a second. A worker gets `at_a_time` items together; its time limit is 10 s plus 0.1 s per item.
        Raises WorkerError immediately if a worker cannot start or a task raises an exception.
        """
        parts = self.stream(task, items, description, at_a_time, **settings)
        return [result for part in parts for result in part]

    def stream(
        self, task: str, items: Sequence[Any], description: str = "", at_a_time: int = _CHUNK, **settings: Any
    ) -> Iterator[list[Any]]:
        """As `map`, but yields lists of `at_a_time` results, for results too large to hold all in memory."""
        chunks = (items[i : i + at_a_time] for i in range(0, len(items), at_a_time))
        pending: deque[Future[list[Any]]] = deque()
        job = _Job(task, settings)

        def run_chunk(chunk: Sequence[Any]) -> list[Any]:
            worker = self._idle.get()
            job.busy.add(worker)
            try:
                return [] if job.stopped.is_set() else _isolating(worker, job, chunk)
            finally:
                job.busy.discard(worker)
                self._idle.put(worker)

        disable = bars_disabled() if description else True
        try:
            with Bar(total=len(items), desc=description, unit="mol", delay=1, disable=disable) as bar:
                while True:
                    for chunk in islice(chunks, 2 * self.processes - len(pending)):
                        pending.append(self._threads.submit(run_chunk, chunk))
                    if not pending:
                        break
                    part = pending.popleft().result()
                    bar.update(len(part))
                    yield part
        finally:  # after an exception, such as Ctrl-C, the remaining chunks are cancelled
            job.stopped.set()
            for future in pending:
                future.cancel()
            for worker in tuple(job.busy) if pending else ():
                worker.kill()
            self.lost += job.lost
        if job.lost:
            first = job.lost[0][0] if isinstance(job.lost[0], list) else job.lost[0]
            what = f" ({description})" if description else ""
            logger.warning(
                f"RDKit hung, crashed or ran out of memory on {len(job.lost):,} of {len(items):,} strings{what}, "
                f"the first {first!s:.200}: they are treated as not parsed"
            )

    def close(self) -> None:
        """Ends all processes."""
        self._threads.shutdown(cancel_futures=True)
        for worker in self._all:
            worker.close()
        self._starter.shutdown()


class _Job:
    """The state of one call of `stream`."""

    def __init__(self, task: str, settings: dict[str, Any]) -> None:
        self.task, self.settings = task, settings
        self.stopped = threading.Event()
        self.busy: set[Worker] = set()
        self.lost: list[Any] = []


def _isolating(worker: Worker, job: _Job, items: Sequence[Any]) -> list[Any]:
    results = worker.run(job.task, job.settings, items)
    if job.stopped.is_set():
        return []
    if results is not None:
        return results
    if len(items) == 1:
        job.lost.append(items[0])
        return [None]
    middle = len(items) // 2
    return [*_isolating(worker, job, items[:middle]), *_isolating(worker, job, items[middle:])]


_shared: Workers | None = None
_lock = threading.Lock()


@contextmanager
def workers(processes: int | None = None) -> Iterator[Workers]:
    """The shared pool of this process, or, with a number of processes, a separate pool that ends with the block."""
    if processes is None:
        yield shared_workers()
        return
    pool = Workers(processes)
    try:
        yield pool
    finally:
        pool.close()


def shared_workers() -> Workers:
    """The pool of this process, one worker per core (at most 16); started at the first call, ended with the process."""
    global _shared
    with _lock:
        if _shared is None:
            _shared = Workers(max(1, min(16, (os.cpu_count() or 1) // local_world_size())))
        return _shared


def _close_shared() -> None:
    if _shared is not None:
        _shared.close()


def _forget_shared() -> None:
    """Called in a forked child: the workers, and the threads that use them, belong to the parent."""
    global _shared, _lock
    _shared, _lock = None, threading.Lock()


atexit.register(_close_shared)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_shared)


def serve(parent: int) -> None:
    """The main loop of a worker: answers requests from stdin until stdin or the parent process ends."""
    _end_with(parent)
    if hasattr(os, "nice"):
        os.nice(5)  # the threads of a training wait for each other, so a worker must not delay one of them
    with suppress(ImportError, OSError, ValueError):  # not on Linux, or the limit is already lower
        import resource

        mapped = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (mapped + _MORE_MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
    responses = os.fdopen(os.dup(1), "w", encoding="utf-8")
    null_device = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):  # messages of C++ code must not mix with the responses, nor fill a pipe that no one reads
        os.dup2(null_device, stream)
    responses.write(_READY)
    responses.flush()
    for line in sys.stdin:
        responses.write(_response(*json.loads(line)) + "\n")
        responses.flush()


def _response(task: str, settings: dict[str, Any], items: Sequence[Any]) -> str:
    arguments: list[Any] = []
    try:
        results = []
        for item in items:
            arguments = item if isinstance(item, list) else [item]
            results.append(TASKS[task](*arguments, **settings))
        return json.dumps({"results": results})
    except MemoryError:  # the worker ends, and the parent isolates the molecule
        raise
    except Exception as error:
        about = f" ({arguments[0]!s:.200})" if arguments else ""
        return json.dumps({"error": f"{type(error).__name__}: {error}{about}"})


def _end_with(parent: int) -> None:
    """Ends this process when its parent ends, even if the parent was killed.

    On Linux the kernel does it, also during a long call of RDKit. Elsewhere a thread checks it, between two calls.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it has already ended
            os._exit(1)
    else:
        threading.Thread(target=_watch_parent, args=(parent,), daemon=True).start()


def _watch_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
