"""A cache of arrays on disk, keyed by everything that they depend on. Nothing in the files can execute code.

An entry is a safetensors file. Its header has the entry's name, its key and a checksum of the content. An entry that
is damaged, belongs to another user or fails validation is computed again and replaced.
"""

import hashlib
import json
import logging
import math
import os
import re
import stat
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
import numpy.typing as npt

from molgen.runtime.files import opened, replacing

logger = logging.getLogger(__name__)

Arrays = Mapping[str, npt.NDArray[Any]]
Result = TypeVar("Result")

_FORMAT = "molgen cache 2"
_BEGINNING = b'{"__metadata__": {"format": "molgen cache '
LARGE = 50_000
"""Results for at least this many molecules are cached."""
MOST_BYTES = 4 * 2**30
"""Size limit of all entries together. Above it, the least recently used entries are deleted."""
_SUFFIX = ".safetensors"
_LONGEST_HEADER = 2**20
_DTYPES = {
    **{"U8": "<u1", "U64": "<u8", "I64": "<i8", "I32": "<i4", "U16": "<u2", "U32": "<u4"},
    **{"I16": "<i2", "I8": "<i1", "F32": "<f4", "F64": "<f8"},
}
_CODES = {np.dtype(kind).newbyteorder("=").str[1:]: code for code, kind in _DTYPES.items()}
# An entry, or the temporary file of one whose writer was killed in `replacing`.
_NAME = re.compile(r"\.?[a-z]+-[0-9a-f]{20}\.safetensors(\.[0-9a-f]{8})?")
# Entries that versions before 0.2 wrote.
_OLD_NAME = re.compile(
    r"(canonical|clean|encoded|known|nearest|profile|shipped|statistics)-[0-9a-f]{20}\.(npz|\d+\.part)"
)
# Exceptions that reading a damaged file may raise.
_DAMAGED = (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError, RecursionError)
_warned_folders: set[Path] = set()


def fingerprint(strings: Iterable[str]) -> str:
    """SHA-256 (hex) of the strings in their order."""
    digest = hashlib.sha256()
    for string in strings:
        content = string.encode("utf-8", "surrogatepass")
        digest.update(b"%d:%b\n" % (len(content), content))
    return digest.hexdigest()


def cached(
    folder: Path,
    name: str,
    depends_on: Iterable[str],
    build: Callable[[], Arrays],
    read: Callable[[Arrays], Result],
    keep: Callable[[], bool] = lambda: True,
) -> Result:
    """Returns `read(arrays)`, with the arrays from the cache in `folder` or, if they are not there, from `build()`.

    `read` raises ValueError or KeyError for arrays that are not valid. New arrays are stored only if `keep()` is true
    after `build()`: it is false for an incomplete result. If the cache cannot be written, a warning is logged.
    """
    key = fingerprint(depends_on)
    path = folder / f"{name}-{key[:20]}{_SUFFIX}"
    with suppress(*_DAMAGED):
        return read(_load(path, name, key))
    arrays = {column: np.asarray(array, order="C") for column, array in build().items()}
    result = read(arrays)
    if keep():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _save(path, name, key, arrays)
            _shrink(folder, path)
        except OSError as error:
            logger.warning(f"{path} cannot be kept for the next time: {error.strerror}")
    return result


def clear(folder: Path) -> tuple[int, int]:
    """Deletes all entries, also those of earlier versions, and no other file; returns (number of entries, bytes).

    Entries are recognised by their names and headers. Those of earlier versions have no header: they are .npz files
    whose name is in a fixed list and has 20 digits of a hash, and they begin as a zip archive with only arrays in it.
    """
    sizes = []
    for path in [*_entries(folder), *_old_entries(folder)]:
        sizes.append(path.stat().st_size)
        path.unlink()
    return len(sizes), sum(sizes)


def from_strings(strings: Iterable[str]) -> npt.NDArray[np.uint8]:
    """One array of bytes for strings without line ends."""
    return np.frombuffer("".join(f"{string}\n" for string in strings).encode(), np.uint8)


def to_strings(array: npt.NDArray[np.uint8]) -> list[str]:
    """The inverse of `from_strings`. Raises ValueError for another array."""
    expect(array, np.uint8, (None,))
    return array.tobytes().decode().split("\n")[:-1]


def expect(array: npt.NDArray[Any], kind: Any, shape: tuple[int | None, ...]) -> None:
    """Raises ValueError unless an array has this type and shape; None stands for any length."""
    sizes_fit = len(shape) == array.ndim and all(
        size in (None, its) for size, its in zip(shape, array.shape, strict=True)
    )
    if array.dtype != np.dtype(kind) or not sizes_fit:
        raise ValueError(f"an array of {array.dtype} {array.shape}, not {np.dtype(kind)} {shape}")


def _save(path: Path, name: str, key: str, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    table: dict[str, Any] = {}
    end = 0
    for column, array in arrays.items():
        start, end = end, end + array.nbytes
        table[column] = {"dtype": _CODES[array.dtype.str[1:]], "shape": list(array.shape), "data_offsets": [start, end]}
    content = [_bytes_of(array) for array in arrays.values()]
    about = {"format": _FORMAT, "name": name, "key": key, "checksum": _checksum(table, content)}
    header = json.dumps({"__metadata__": about, **table}).encode()
    header += b" " * (-len(header) % 8)
    with replacing(path) as file:
        if hasattr(os, "fchmod"):
            os.fchmod(file.fileno(), 0o644)  # an entry that others may write would not be trusted
        file.write(len(header).to_bytes(8, "little") + header)
        for block in content:
            file.write(block)


def _load(path: Path, name: str, key: str) -> Arrays:
    """Raises one of _DAMAGED for a file that does not exist or is not as `_save` wrote it."""
    with opened(path) as file:
        found = os.fstat(file.fileno())
        if not _is_trusted(found):
            if path.parent not in _warned_folders:
                _warned_folders.add(path.parent)
                logger.warning(f"{path}: ignored, because it is of another user, or others may write it")
            raise ValueError("not trusted")
        table = _header(file)
        about = table.pop("__metadata__")
        if (about["format"], about["name"], about["key"]) != (_FORMAT, name, key):
            raise ValueError("another entry")
        arrays: dict[str, npt.NDArray[Any]] = {}
        start = file.tell()
        end = 0
        for column, entry in table.items():
            kind, shape = np.dtype(_DTYPES[entry["dtype"]]), tuple(map(int, entry["shape"]))
            count = math.prod(shape)
            if entry["data_offsets"] != [end, end + count * kind.itemsize] or min(shape, default=0) < 0:
                raise ValueError("the size does not match the shape")
            end = entry["data_offsets"][1]
            if start + end > found.st_size:
                raise ValueError("cut short")
            arrays[column] = np.fromfile(file, kind, count).reshape(shape)
        if start + end != found.st_size:
            raise ValueError("bytes after the last array")
        if about["checksum"] != _checksum(table, map(_bytes_of, arrays.values())):
            raise ValueError("wrong checksum")
        with suppress(OSError):
            os.utime(file.fileno() if os.utime in os.supports_fd else path)  # `_shrink` deletes the oldest first
        return arrays


def _header(file: BinaryIO) -> dict[str, Any]:
    """The header of a safetensors file. Raises one of _DAMAGED for another file."""
    length = int.from_bytes(file.read(8), "little")
    if not 2 <= length <= _LONGEST_HEADER:
        raise ValueError("no header")
    return dict(json.loads(file.read(length)))


def _checksum(table: Mapping[str, Any], content: Iterable[memoryview]) -> str:
    digest = hashlib.blake2b(json.dumps(table, sort_keys=True).encode(), digest_size=32)
    for block in content:
        digest.update(block)
    return digest.hexdigest()


def _bytes_of(array: npt.NDArray[Any]) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


def _is_trusted(found: os.stat_result) -> bool:
    """Whether only the user of this process, or root, can have written a file. Windows cannot say: always true."""
    if not hasattr(os, "getuid"):
        return True
    return found.st_uid in (os.getuid(), 0) and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _shrink(folder: Path, newest: Path) -> None:
    """Deletes the least recently used entries until the others fit; never the one just written."""
    entries = []
    for path in _entries(folder):
        with suppress(OSError):  # another process may have deleted it
            found = path.stat()
            entries.append((path == newest, found.st_mtime, path, found.st_size))
    kept = 0
    for is_newest, _, path, size in sorted(entries, reverse=True):
        kept += size
        if kept > MOST_BYTES and not is_newest:
            with suppress(OSError):
                path.unlink()


def _entries(folder: Path) -> Iterator[Path]:
    """Files with the name and the first bytes of an entry."""
    for path in sorted(folder.glob("*")):
        if _NAME.fullmatch(path.name):
            with suppress(OSError), opened(path) as file:
                if file.read(8 + len(_BEGINNING))[8:] == _BEGINNING:
                    yield path


def _old_entries(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.glob("*")):
        if _OLD_NAME.fullmatch(path.name):
            with suppress(OSError, zipfile.BadZipFile), opened(path) as file:
                begins_as_zip = file.read(4) in (b"PK\x03\x04", b"" if path.suffix == ".part" else None)
                if begins_as_zip and (path.suffix == ".part" or _holds_arrays(file)):
                    yield path


def _holds_arrays(file: BinaryIO) -> bool:
    return all(name.endswith(".npy") for name in zipfile.ZipFile(file).namelist())
