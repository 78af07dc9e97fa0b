"""A user's own scorer: a command, or a Python callable; called with a batch of SMILES, it gives a number for each.

A scorer runs only because the user named it on this very command line. What goes wrong with it is a fault of its own
kind, with the molecules concerned; it never becomes a score.
"""

import hashlib
import importlib
import importlib.util
import math
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, Protocol

from molgen.errors import MolgenError

_SHOWN = 3  # molecules named in a message
_LONGEST_SHOWN = 500  # characters of a scorer's messages
_SECONDS_BETWEEN_LOOKS = 0.1
_running: set["subprocess.Popen[str]"] = set()


class Scored(NamedTuple):
    """What came of one molecule: a finite number, or the reason why there is none."""

    value: float
    """NaN if the scorer gave no number."""
    problem: str = ""


class Scorer(Protocol):
    """A batch of SMILES in, what came of each out, in the same order. Its `text` tells it from other scorers."""

    @property
    def text(self) -> str: ...

    def __call__(self, smiles: Sequence[str]) -> list[Scored]: ...


class CommandScorer:
    """A program that reads SMILES from stdin, one per line, and writes a number per line to stdout.

    A batch that fails as a whole (exit status, time limit, wrong number of lines) has no values at all: which molecule
    is the cause cannot be known. Its own children end with it.
    """

    def __init__(self, command: str, seconds: float) -> None:
        """`seconds` per molecule are the time limit. Raises MolgenError if there is no such program."""
        self.text, self._seconds = command, seconds
        try:
            self._arguments = shlex.split(command)
        except ValueError as error:
            raise MolgenError(f"--command {command}: {error}", "close the quotes") from None
        if not self._arguments:
            raise MolgenError("--command: empty", "name a program that reads SMILES and writes numbers")
        if shutil.which(self._arguments[0]) is None:
            raise MolgenError(f"--command {self._arguments[0]}: no such program", "an executable file, with its path")

    def __call__(self, smiles: Sequence[str]) -> list[Scored]:
        """Runs the command once. Raises MolgenError if it cannot be started."""
        try:
            process = subprocess.Popen(
                self._arguments,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                start_new_session=True,  # so that its children can be ended with it
            )
        except OSError as error:
            raise MolgenError(f"--command {self.text}: {error.strerror}", "give a program with its path") from None
        _running.add(process)
        try:
            limit = self._seconds * len(smiles)
            out, err = process.communicate("".join(f"{one}\n" for one in smiles), timeout=limit)
        except subprocess.TimeoutExpired:
            _end_session(process)
            _, err = process.communicate()
            return _failed(smiles, f"took longer than {limit:g} s", err)
        finally:
            _running.discard(process)
        if process.returncode:
            return _failed(smiles, f"ended with exit status {process.returncode}", err)
        lines = out.splitlines()
        if len(lines) != len(smiles):
            return _failed(smiles, f"wrote {len(lines):,} lines for {len(smiles):,} molecules", err)
        return [_number(line) for line in lines]


class CallableScorer:
    """A Python callable: a list of SMILES in, a sequence of as many numbers out."""

    def __init__(self, function: Callable[[list[str]], Any], text: str, sha256: str = "") -> None:
        """`sha256` is that of the file that holds it."""
        self.function, self.text, self.sha256 = function, text, sha256

    def __call__(self, smiles: Sequence[str]) -> list[Scored]:
        """Calls it once."""
        try:
            values = list(self.function(list(smiles)))
        except Exception as error:  # whatever the user's code raises
            return _failed(smiles, f"raised {type(error).__name__}: {error}", "")
        if len(values) != len(smiles):
            return _failed(smiles, f"gave {len(values):,} values for {len(smiles):,} molecules", "")
        return [_number(value) for value in values]


def is_callable_name(name: str) -> bool:
    """Whether a name has the form FILE.py:FUNCTION or module:function."""
    source, colon, function = name.rpartition(":")
    return bool(colon and source) and function.isidentifier()


def named_callable(name: str) -> CallableScorer:
    """`FILE.py:FUNCTION`, or `module:function` of an installed module. The current folder is not on the import path.

    Raises MolgenError if there is no such file, module or function.
    """
    source, _, function = name.rpartition(":")
    sha256 = ""
    try:
        if source.endswith(".py"):
            sha256 = hashlib.sha256(Path(source).read_bytes()).hexdigest()
            module = _loaded(Path(source))
        else:
            module = importlib.import_module(source)
    except FileNotFoundError:
        raise MolgenError(f"{source}: no such file", "give the path of a Python file") from None
    except Exception as error:  # whatever the user's module raises
        raise MolgenError(
            f"{source}: cannot be imported: {type(error).__name__}: {error}", "try it in Python"
        ) from None
    found = getattr(module, function, None)
    if not callable(found):
        raise MolgenError(f"{source}: has no function {function}", "name one that takes a list of SMILES")
    return CallableScorer(found, name, sha256)


def _loaded(path: Path) -> ModuleType:
    """The module of one file; nothing else of its folder becomes importable."""
    specification = importlib.util.spec_from_file_location(f"molgen_scorer_{path.stem}", path)
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module  # dataclasses in it look themselves up there
    specification.loader.exec_module(module)
    return module


class ScorerPool:
    """Divides a list of SMILES among several calls of a scorer at once; results come in the order of the list."""

    def __init__(self, scorer: Scorer, executor: Executor, jobs: int, known: dict[str, float]) -> None:
        self._scorer, self._executor, self._jobs = scorer, executor, jobs
        self.known = known
        """Values so far; what is in it is not scored again."""
        self.waiting: Callable[[], None] = lambda: None
        """Called again and again while results are awaited; it may raise an exception."""

    def __call__(self, smiles: Sequence[str]) -> Iterator[Scored]:
        """Starts the scorer on these molecules; the iterator waits for the results."""
        asked = [one for one in dict.fromkeys(smiles) if one not in self.known]
        count = min(self._jobs, len(asked))
        batches = [asked[i * len(asked) // count : (i + 1) * len(asked) // count] for i in range(count)]
        futures = [self._executor.submit(self._scorer, batch) for batch in batches]
        return self._results(smiles, batches, futures)

    def _results(
        self, smiles: Sequence[str], batches: Sequence[Sequence[str]], futures: Sequence["Future[list[Scored]]"]
    ) -> Iterator[Scored]:
        found: dict[str, Scored] = {}
        pending = iter(zip(batches, futures, strict=True))
        for one in smiles:
            while one not in found and one not in self.known:
                batch, future = next(pending)
                while not future.done():
                    self.waiting()
                    wait([future], _SECONDS_BETWEEN_LOOKS)
                found |= dict(zip(batch, _result(batch, future), strict=True))
            scored = found.get(one) or Scored(self.known[one])
            if not scored.problem:
                self.known[one] = scored.value
            yield scored


def _result(batch: Sequence[str], future: "Future[list[Scored]]") -> list[Scored]:
    try:
        return future.result()
    except MolgenError:
        raise
    except Exception as error:  # of a cluster, such as workers that died again and again
        return _failed(batch, f"could not be run: {type(error).__name__}: {error}", "")


@contextmanager
def scorer_pool(
    scorer: Scorer, jobs: int, known: dict[str, float], scheduler: str | None = None
) -> Iterator[ScorerPool]:
    """A pool of `jobs` calls at once, on this machine or by a Dask scheduler; its commands end with the block."""
    if scheduler is not None:
        from molgen.optimize.cluster import cluster_executor  # Dask is an extra

        with cluster_executor(scheduler, jobs) as (executor, places):
            yield ScorerPool(scorer, executor, places, known)
        return
    executor = ThreadPoolExecutor(jobs, "scorer")
    try:
        yield ScorerPool(scorer, executor, jobs, known)
    finally:
        executor.shutdown(wait=False, cancel_futures=True)
        for process in tuple(_running):
            _end_session(process)


def _number(value: Any) -> Scored:
    """One result: a finite number, else why not."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return Scored(math.nan, f"gave {str(value).strip()!r:.60}, which is no number")
    return Scored(number) if math.isfinite(number) else Scored(math.nan, f"gave {number}, which is no finite number")


def _failed(smiles: Sequence[str], what: str, messages: str) -> list[Scored]:
    last = " ".join(messages.split())[-_LONGEST_SHOWN:]
    named = ", ".join(smiles[:_SHOWN]) + (", …" if len(smiles) > _SHOWN else "")
    problem = f"{what} (of {named})" + (f": {last}" if last else "")
    return [Scored(math.nan, problem) for _ in smiles]


def _end_session(process: "subprocess.Popen[str]") -> None:
    with suppress(ProcessLookupError, PermissionError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
