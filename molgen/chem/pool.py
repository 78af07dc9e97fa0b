"""RDKit in processes of its own, which may hang or die without harm.

One pool serves the whole of this process: its workers start at its first use and end with it. When a worker is ready
it says so, then a line of JSON in (task, settings, items) gives a line of JSON out (results, or the exception that the
task raised). When one hangs or dies, its items are tried again in halves until the culprit stands alone; that one is
lost.
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

from tqdm import tqdm

from molgen.chem import clean, descriptors, filters
from molgen.chem.smiles import add_carbon, canonical, random_form, random_forms
from molgen.runtime.distributed import local_world_size
from molgen.runtime.isolation import isolated_python
from molgen.runtime.log import progress_disabled

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
}
_CHUNK = 500
# Of CPU time: on a machine with much to do a worker gets little of it, and no molecule is to blame for that.
_SECONDS, _SECONDS_AN_ITEM, _SECONDS_TO_START = 10.0, 0.1, 120.0
_ASLEEP = 3  # times as long a worker may take without running, which RDKit never does: it is stopped, or swapped out
_LOOK_EVERY = 0.25  # seconds
_READY = "ready\n"
_MORE_MEMORY = 4 * 2**30  # than a worker starts with: a molecule that eats more is lost alone
# The very package that this process runs, wherever it was imported from, and nothing else from that place.
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
    """A worker cannot start, or its task raised an exception: a fault of the program, never of a molecule."""


class Worker:
    """One child process. `run` starts it where none runs, and again after it has died."""

    def __init__(self, starter: ThreadPoolExecutor) -> None:
        self._starter = starter
        self._process: subprocess.Popen[str] | None = None
        self._ready = False

    def start(self) -> "subprocess.Popen[str]":
        """The process, which need not be ready yet."""
        if self._process is not None and self._process.poll() is not None:
            self.close()  # it was killed while it had nothing to do: no molecule is to blame
        if self._process is None:
            self._ready = False
            # Linux ends a child with the thread that started it (see `serve`), so that one must last.
            self._process = self._starter.submit(_start).result()
        return self._process

    def run(self, task: str, settings: dict[str, Any], items: Sequence[Any]) -> list[Any] | None:
        """The results, or None when the worker died or overran its limits (and was ended).

        Raises WorkerError for a worker that cannot start and for an exception in the task.
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
                answer = json.loads(process.stdout.readline())
        except (OSError, ValueError):
            self.close()
            return None
        if "error" in answer:
            raise WorkerError(f"{task}: {answer['error']}")
        results: list[Any] = answer["results"]
        return results

    def kill(self) -> None:
        """Ends the process, from any thread; whoever waits for its answer gets none."""
        process = self._process
        if process is not None:
            process.kill()

    def close(self) -> None:
        """Ends the process and takes note of it."""
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
    """Ctrl-C is the parent's to handle: children inherit what the thread that starts them holds back."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


@contextmanager
def _ended_after(seconds: float, process: "subprocess.Popen[str]") -> Iterator[None]:
    """Kills a process that takes more CPU time than this for what is in the block, or sleeps through it."""
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
        passed, before = min(now - before, 2 * _LOOK_EVERY), now  # this process may have been stopped, too
        used, runs = _used(process.pid)
        if used is None or first is None:  # no /proc: by the clock
            asleep += _ASLEEP * passed
        elif not runs:
            asleep += passed
        if asleep > _ASLEEP * seconds or (used or 0) - (first or 0) > seconds:
            process.kill()
            return


def _used(pid: int) -> tuple[float | None, bool]:
    """(CPU seconds of a process so far, whether it runs or would if it were let); None where there is no /proc."""
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
        """Items on which RDKit hung or crashed, so far: a result made of them must not be cached."""
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
        """One result per item, in order; None for an item on which RDKit hung or crashed, which stderr says.

        An item is a task's first argument, or a list of its arguments. With a description a bar shows after a second.
        A worker gets `at_a_time` items together, in a time limit of 10 s and 0.1 s per item.
        Raises WorkerError, at once, where a worker cannot start or a task raises an exception.
        """
        parts = self.stream(task, items, description, at_a_time, **settings)
        return [result for part in parts for result in part]

    def stream(
        self, task: str, items: Sequence[Any], description: str = "", at_a_time: int = _CHUNK, **settings: Any
    ) -> Iterator[list[Any]]:
        """As `map`, some hundred results at a time, for results too large to be held all at once."""
        chunks = (items[i : i + at_a_time] for i in range(0, len(items), at_a_time))
        pending: deque[Future[list[Any]]] = deque()
        job = _Job(task, settings)

        def one(chunk: Sequence[Any]) -> list[Any]:
            worker = self._idle.get()
            job.busy.add(worker)
            try:
                return [] if job.stopped.is_set() else _isolating(worker, job, chunk)
            finally:
                job.busy.discard(worker)
                self._idle.put(worker)

        disable = progress_disabled() if description else True
        try:
            with tqdm(total=len(items), desc=description, unit="mol", delay=1, disable=disable, leave=False) as bar:
                while True:
                    for chunk in islice(chunks, 2 * self.processes - len(pending)):
                        pending.append(self._threads.submit(one, chunk))
                    if not pending:
                        break
                    part = pending.popleft().result()
                    bar.update(len(part))
                    yield part
        finally:  # after an exception, Ctrl-C among them, no one waits for the rest
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
                f"the first {first!s:.200}: they count as not parsed"
            )

    def close(self) -> None:
        """Ends all processes."""
        self._threads.shutdown(cancel_futures=True)
        for worker in self._all:
            worker.close()
        self._starter.shutdown()


class _Job:
    """One `stream`: what its workers need to know of it."""

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
    """The pool of this process: one worker per core (at most 16), started at the first call, ended with the process.

    With a number of processes a pool of its own, ended with the block.
    """
    if processes is None:
        yield shared_workers()
        return
    pool = Workers(processes)
    try:
        yield pool
    finally:
        pool.close()


def shared_workers() -> Workers:
    """The pool of this process, started if it does not run yet."""
    global _shared
    with _lock:
        if _shared is None:
            _shared = Workers(max(1, min(16, (os.cpu_count() or 1) // local_world_size())))
        return _shared


def _end() -> None:
    if _shared is not None:
        _shared.close()


def _forget() -> None:
    """In a forked child: the workers are its parent's, and so are the threads that speak with them."""
    global _shared, _lock
    _shared, _lock = None, threading.Lock()


atexit.register(_end)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def serve(parent: int) -> None:
    """What a worker does: answers requests from stdin until there are no more, or its parent has ended."""
    _end_with(parent)
    if hasattr(os, "nice"):
        os.nice(5)  # the threads of a training wait for each other: a worker must not hold one of them up
    with suppress(ImportError, OSError, ValueError):  # not Linux; a limit that is lower already
        import resource

        mapped = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (mapped + _MORE_MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):  # whatever C++ prints must not end up among the answers, nor fill a pipe that no one reads
        os.dup2(nowhere, stream)
    answers.write(_READY)
    answers.flush()
    for line in sys.stdin:
        answers.write(_answer(*json.loads(line)) + "\n")
        answers.flush()


def _answer(task: str, settings: dict[str, Any], items: Sequence[Any]) -> str:
    arguments: list[Any] = []
    try:
        results = []
        for item in items:
            arguments = item if isinstance(item, list) else [item]
            results.append(TASKS[task](*arguments, **settings))
        return json.dumps({"results": results})
    except MemoryError:  # this molecule's alone: the process ends, the molecule is isolated
        raise
    except Exception as error:
        about = f" ({arguments[0]!s:.200})" if arguments else ""
        return json.dumps({"error": f"{type(error).__name__}: {error}{about}"})


def _end_with(parent: int) -> None:
    """Ends this process when its parent has ended, even if that was killed and RDKit is amid a long call.

    On Linux the kernel sees to it; elsewhere a thread looks, which RDKit lets run only between two calls.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before
            os._exit(1)
    else:
        threading.Thread(target=_look_after, args=(parent,), daemon=True).start()


def _look_after(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
