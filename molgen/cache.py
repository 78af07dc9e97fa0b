"""Arrays that are computed once and kept, keyed by all that they depend on. Nothing in the files can execute code."""

import hashlib
import os
import sys
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Arrays = Mapping[str, npt.NDArray[Any]]


def fingerprint(strings: Iterable[str]) -> str:
    """Changes with any string or their order."""
    digest = hashlib.sha256()
    for string in strings:
        digest.update(string.encode() + b"\n")
    return digest.hexdigest()


def cached(folder: Path, name: str, depends_on: Iterable[str], build: Callable[[], Arrays]) -> Arrays:
    """What `build` gives, from `folder` where it has been computed before.

    A file that is damaged is computed anew; where nothing can be written, nothing is kept and stderr says so.
    """
    path = folder / f"{name}-{fingerprint(depends_on)[:20]}.npz"
    try:
        with np.load(path) as archive:  # numpy refuses pickled objects unless told otherwise
            return {key: archive[key] for key in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, KeyError):
        arrays = build()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}.part")  # two evaluations may compute the same
        with part.open("wb") as file:
            np.savez(file, allow_pickle=False, **dict(arrays))
        part.replace(path)
    except OSError as error:
        print(f"molgen: {path} cannot be kept for the next time: {error.strerror}", file=sys.stderr)
    return arrays


def from_strings(strings: Iterable[str]) -> npt.NDArray[np.uint8]:
    """Strings without line ends as one array of bytes."""
    return np.frombuffer("".join(f"{string}\n" for string in strings).encode(), np.uint8)


def to_strings(array: npt.NDArray[np.uint8]) -> list[str]:
    """The strings that `from_strings` put together."""
    return array.tobytes().decode().split("\n")[:-1]
