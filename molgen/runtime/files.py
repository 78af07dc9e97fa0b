"""Files that are written whole or not at all, and opened only if they are files."""

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

_LONGEST_NAME = 200  # bytes of a name that its temporary one repeats: a file system takes 255 in all


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write, which then replaces `path` as a whole or leaves it as it was; in the end it is on the disk.

    Its temporary name is new, so two writers do not meet: the last one's file stays, whole. A link at `path` is
    replaced, never written through.
    """
    temporary = beside(path, f"{secrets.token_hex(4)}.part")
    file = created(temporary)
    try:
        yield file
        with signals_held():  # what has been written is not lost on the last step
            file.flush()
            os.fsync(file.fileno())
            file.close()
            temporary.replace(path)
    except BaseException:
        with suppress(OSError):  # a full disk takes no last bytes either
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
    """Replaces a file as a whole or leaves it as it was; on return it is on the disk."""
    with replacing(path) as file:
        file.write(content)


def beside(path: Path, ending: str) -> Path:
    """The hidden name `.NAME.ending` in the same folder; only the start of a NAME that is very long."""
    return path.with_name(f".{os.fsdecode(os.fsencode(path.name)[:_LONGEST_NAME])}.{ending}")


def created(path: Path) -> BinaryIO:
    """A new file, opened for writing. Raises FileExistsError where there is anything of that name, be it a link."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    return os.fdopen(os.open(path, flags, 0o666), "wb")  # less what the user's umask forbids


def opened(path: Path, follow: bool = False) -> io.BufferedReader:
    """A regular file, opened for reading; a link only if it may be followed.

    Raises OSError for anything else: a FIFO would block, a device flood the memory. What is looked at is what has been
    opened, so that nothing can be put in its place in between.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | (0 if follow else getattr(os, "O_NOFOLLOW", 0))
    try:
        handle = os.open(path, flags | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0))
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK) and not follow:  # two names of the same answer
            raise OSError(error.errno, "a link, which is not followed here", str(path)) from None
        if error.errno == errno.ENXIO:
            raise OSError(error.errno, "no regular file", str(path)) from None
        raise
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "no regular file", str(path))
    return io.BufferedReader(io.FileIO(handle))


def content_of(path: Path, most: int, follow: bool = False) -> bytes:
    """What a regular file holds. Raises OSError for anything else, and for more than `most` bytes."""
    with opened(path, follow) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"larger than {most / 2**20:,.0f} MiB", str(path))
    return content


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A gzipped CSV file, the same bytes for the same rows."""
    with (
        replacing(path) as file,
        gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed,
        io.TextIOWrapper(packed, encoding="utf-8", newline="") as text,
    ):
        table = csv.writer(text, lineterminator="\n")
        table.writerow(columns)
        table.writerows(rows)
