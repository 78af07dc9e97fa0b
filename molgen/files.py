"""Files that are written whole or not at all, and opened only if they are files."""

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write, which then replaces `path` as a whole or leaves it as it was; in the end it is on the disk.

    Its temporary name is new (O_EXCL, O_NOFOLLOW), so two writers do not meet: the last one's file stays, whole. A link
    at `path` is replaced, never written through.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    handle = os.open(temporary, flags, 0o666)  # less what the user's umask forbids
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
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


def opened(path: Path, follow: bool = False) -> BinaryIO:
    """A regular file, opened for reading; a link only if it may be followed.

    Raises OSError for anything else: a FIFO would block, a device flood the memory. What is looked at is what has been
    opened, so that nothing can be put in its place in between.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | (0 if follow else getattr(os, "O_NOFOLLOW", 0))
    handle = os.open(path, flags | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0))
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(f"{path} is no regular file")
    return os.fdopen(handle, "rb")
