"""Atomic writes, and opening of regular files only."""

import csv
import errno
import gzip
import io
import os
import secrets
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from molgen.runtime.signals import signals_held

_LONGEST_NAME = 200  # bytes of the name to repeat in the temporary name: file systems allow 255 in total


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A temporary file to write. It replaces `path` atomically at the end of the block, or is deleted on an exception.

    The content is flushed to disk before. Each writer has its own temporary name, so with two writers the last file
    stays, complete. A link at `path` is replaced; the file that it points to is not changed.
    """
    temporary = hidden_sibling(path, f"{secrets.token_hex(4)}.part")
    file = created(temporary)
    try:
        yield file
        with signals_held():  # a signal must not lose a file that is complete
            file.flush()
            os.fsync(file.fileno())
            file.close()
            temporary.replace(path)
    except BaseException:
        with suppress(OSError):  # on a full disk, closing fails too
            file.close()
        temporary.unlink(missing_ok=True)
        raise
    if os.name == "posix":
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def write_atomically(path: Path, content: bytes) -> None:
    """Replaces a file completely or not at all; on return the content is on the disk."""
    with replacing(path) as file:
        file.write(content)


def hidden_sibling(path: Path, ending: str) -> Path:
    """The path `.NAME.ending` in the same folder; a very long NAME is cut."""
    return path.with_name(f".{os.fsdecode(os.fsencode(path.name)[:_LONGEST_NAME])}.{ending}")


def created(path: Path) -> BinaryIO:
    """A new file, opened for writing. Raises FileExistsError if the name exists, also as a link."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    return os.fdopen(os.open(path, flags, 0o666), "wb")  # the user's umask applies


def opened(path: Path, follow: bool = False) -> io.BufferedReader:
    """A regular file, opened for reading; a link only with `follow`.

    Raises OSError for anything else: a FIFO would block, a device could fill the memory. The type is checked on the
    open file, so the file cannot be replaced between the check and the opening.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | (0 if follow else getattr(os, "O_NOFOLLOW", 0))
    try:
        handle = os.open(path, flags | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0))
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK) and not follow:  # systems differ in the code
            raise OSError(error.errno, "a link, which is not followed here", str(path)) from None
        if error.errno == errno.ENXIO:
            raise OSError(error.errno, "no regular file", str(path)) from None
        raise
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "no regular file", str(path))
    return io.BufferedReader(io.FileIO(handle))


def content_of(path: Path, most: int, follow: bool = False) -> bytes:
    """The content of a regular file. Raises OSError for anything else, and for more than `most` bytes."""
    with opened(path, follow) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"larger than {most / 2**20:,.0f} MiB", str(path))
    return content


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Writes a gzipped CSV file atomically; the same rows give the same bytes."""
    with (
        replacing(path) as file,
        gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed,
        io.TextIOWrapper(packed, encoding="utf-8", newline="") as text,
    ):
        table = csv.writer(text, lineterminator="\n")
        table.writerow(columns)
        table.writerows(rows)
