"""A user's own scorer: a command, or a Python callable; called with a batch of SMILES, it gives a number for each.

A scorer runs only because the user named it on this very command line. What goes wrong with it is a fault of its own
kind, with the molecules concerned; it never becomes a score.
"""

import importlib
import importlib.util
import math
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from molgen.errors import MolgenError

_SHOWN = 3  # molecules named in a message
_LONGEST_SHOWN = 500  # characters of a scorer's messages


class Scored(NamedTuple):
    """What came of one molecule: a finite number, or the reason why there is none."""

    value: float
    """NaN if the scorer gave no number."""
    problem: str = ""


class Scorer(Protocol):
    """A batch of SMILES in, what came of each out, in the same order."""

    def __call__(self, smiles: Sequence[str]) -> list[Scored]: ...


class CommandScorer:
    """A program that reads SMILES from stdin, one per line, and writes a number per line to stdout.

    A batch that fails as a whole (exit status, time limit, wrong number of lines) has no values at all: which molecule
    is the cause cannot be known. Its own children end with it.
    """

    def __init__(self, command: str, timeout: float) -> None:
        """Raises MolgenError if the command is empty or its program does not exist."""
        self.command, self.timeout = command, timeout
        try:
            self._arguments = shlex.split(command)
        except ValueError as error:
            raise MolgenError(f"--command {command}: {error}", "close the quotes") from None
        if not self._arguments:
            raise MolgenError("--command: empty", "name a program that reads SMILES and writes numbers")

    def __call__(self, smiles: Sequence[str]) -> list[Scored]:
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
            raise MolgenError(f"--command {self.command}: {error.strerror}", "give a program with its path") from None
        try:
            out, err = process.communicate("".join(f"{one}\n" for one in smiles), timeout=self.timeout)
        except subprocess.TimeoutExpired:
            _end_session(process)
            _, err = process.communicate()
            return _failed(smiles, f"took longer than {self.timeout:g} s", err)
        except BaseException:
            _end_session(process)
            process.communicate()
            raise
        if process.returncode:
            return _failed(smiles, f"ended with exit status {process.returncode}", err)
        lines = out.splitlines()
        if len(lines) != len(smiles):
            return _failed(smiles, f"wrote {len(lines):,} lines for {len(smiles):,} molecules", err)
        return [_number(line) for line in lines]


class CallableScorer:
    """A Python callable: a list of SMILES in, a sequence of as many numbers out."""

    def __init__(self, function: Callable[[list[str]], Any], name: str) -> None:
        self.function, self.name = function, name

    def __call__(self, smiles: Sequence[str]) -> list[Scored]:
        try:
            values = list(self.function(list(smiles)))
        except Exception as error:  # whatever the user's code raises
            return _failed(smiles, f"raised {type(error).__name__}: {error}", "")
        if len(values) != len(smiles):
            return _failed(smiles, f"gave {len(values):,} values for {len(smiles):,} molecules", "")
        return [_number(value) for value in values]


def named_callable(name: str) -> CallableScorer:
    """`FILE.py:FUNCTION`, or `module:function` of an installed module. The current folder is not on the import path.

    Raises MolgenError if there is no such file, module or function.
    """
    source, colon, function = name.rpartition(":")
    if not colon or not source or not function.isidentifier():
        raise MolgenError(f"{name}: not FILE.py:FUNCTION", "such as scores.py:affinity")
    try:
        module = _loaded(Path(source)) if source.endswith(".py") else importlib.import_module(source)
    except FileNotFoundError:
        raise MolgenError(f"{source}: no such file", "give the path of a Python file") from None
    except Exception as error:  # whatever the user's module raises
        raise MolgenError(
            f"{source}: cannot be imported: {type(error).__name__}: {error}", "try it in Python"
        ) from None
    found = getattr(module, function, None)
    if not callable(found):
        raise MolgenError(f"{source}: has no function {function}", "name one that takes a list of SMILES")
    return CallableScorer(found, name)


def _loaded(path: Path) -> Any:
    """The module of one file; nothing else of its folder becomes importable."""
    if not path.is_file():
        raise FileNotFoundError(path)
    specification = importlib.util.spec_from_file_location(f"molgen_scorer_{path.stem}", path)
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module  # dataclasses in it look themselves up there
    specification.loader.exec_module(module)
    return module


class Pool:
    """Divides a list of SMILES among several calls of a scorer at once; results come in the order of the list."""

    def __init__(self, scorer: Scorer, executor: ThreadPoolExecutor | None, jobs: int) -> None:
        self._scorer, self._executor, self._jobs = scorer, executor, jobs

    def __call__(self, smiles: Sequence[str]) -> list[Scored]:
        """Each molecule's result; the batches are as equal as possible."""
        if not smiles:
            return []
        count = min(self._jobs, len(smiles))
        batches = [smiles[i * len(smiles) // count : (i + 1) * len(smiles) // count] for i in range(count)]
        run = map if self._executor is None else self._executor.map
        results: Iterable[list[Scored]] = run(self._scorer, batches)
        return [scored for part in results for scored in part]


@contextmanager
def pool_of(scorer: Scorer, jobs: int) -> Iterator[Pool]:
    """A Pool of `jobs` calls at once."""
    if jobs == 1:
        yield Pool(scorer, None, 1)
        return
    with ThreadPoolExecutor(jobs, "scorer") as executor:
        yield Pool(scorer, executor, jobs)


def _number(value: Any) -> Scored:
    """One result: a finite number, else why not."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return Scored(math.nan, f"gave {str(value).strip()!r:.60}, which is no number")
    return Scored(number) if math.isfinite(number) else Scored(math.nan, f"gave {number}, which is no finite number")


def _failed(smiles: Sequence[str], what: str, messages: str) -> list[Scored]:
    last = messages.strip()[-_LONGEST_SHOWN:]
    named = ", ".join(smiles[:_SHOWN]) + (", …" if len(smiles) > _SHOWN else "")
    problem = f"{what} (of {named})" + (f": {last}" if last else "")
    return [Scored(math.nan, problem) for _ in smiles]


def _end_session(process: "subprocess.Popen[str]") -> None:
    with suppress(ProcessLookupError, PermissionError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
