"""Opens files with decompression and reads their lines; streams, so that no decompression bomb fills the memory."""

import bz2
import gzip
import io
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import BinaryIO

from molgen.errors import MolgenError

LONGEST_LINE = 2**20

Lines = Iterator[tuple[int, str]]
"""(number, line) without its end."""

_BZIP2_BLOCKS = (b"1AY&SY", b"\x17rE8P\x90")  # the first block of data, or the end of an empty file
# (first bytes, kind of file, hint) of files that are not supported
_FOREIGN = (
    (b"PK\x03\x04", "a zip archive or an Excel workbook", "unzip it, or save the sheet as CSV UTF-8"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook", "save the sheet as CSV UTF-8"),
    (b"\xfd7zXZ\x00", "compressed by xz", "unpack it first: xz -dk FILE"),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd", "unpack it first: zstd -d FILE"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it first"),
    (b"Rar!", "a rar archive", "unpack it first"),
    (b"%PDF", "a PDF", "save its table as CSV"),
)


@contextmanager
def opened(source: str) -> Iterator[BinaryIO]:
    """The bytes of a file or of stdin, decompressed from gzip or bzip2.

    Raises MolgenError for a missing file, for damaged compressed data and for archives and workbooks.
    """
    if source == "-":
        raw: BinaryIO = sys.stdin.buffer
    else:
        try:
            raw = Path(source).open("rb")  # noqa: SIM115 - closed below
        except OSError as error:
            hint = "is it a directory?" if isinstance(error, IsADirectoryError) else "check the path"
            raise MolgenError(f"{source}: cannot be read: {error.strerror}", hint) from None
    buffered = raw if isinstance(raw, io.BufferedReader) else io.BufferedReader(raw)  # type: ignore[type-var]
    kind = "gzip"
    # stdin is not closed, so a second read finds it empty and does not fail
    with nullcontext() if source == "-" else raw:
        try:
            head = buffered.peek(10)[:10]
            if head.startswith(b"\x1f\x8b"):
                yield gzip.GzipFile(fileobj=buffered)  # type: ignore[misc]
            elif head.startswith(b"BZh") and head[4:] in _BZIP2_BLOCKS:
                kind = "bzip2"
                yield bz2.BZ2File(buffered)  # type: ignore[misc]
            else:
                for magic, what, hint in _FOREIGN:
                    if head.startswith(magic):
                        raise MolgenError(f"{source}: {what}", hint)
                yield buffered
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise MolgenError(f"{source}: damaged {kind} data: {error}", "fetch or compress the file again") from None
        except OSError as error:
            if error.errno is None and kind == "bzip2":  # bz2 raises this for damaged data
                raise MolgenError(f"{source}: damaged bzip2 data: {error}", "fetch the file again") from None
            raise MolgenError(
                f"{source}: cannot be read: {error.strerror or error}", "check the disk and the path"
            ) from None


def raw_lines(stream: BinaryIO, source: str) -> Iterator[tuple[int, bytes]]:
    """(number, line with its end): `\\n`, `\\r\\n` or, as on old Macs, `\\r` alone.

    Raises MolgenError for UTF-16 and, with the line, for a NUL byte and for more than 1 MiB without a line end.
    """
    for number, raw in enumerate(_split_lines(stream), 1):
        if number == 1 and raw.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise MolgenError(f"{source}: UTF-16 text", "save the file as UTF-8; Excel calls it CSV UTF-8")
        if len(raw) > LONGEST_LINE:
            raise MolgenError(
                f"{source}, line {number}: longer than 1 MiB", "is it a text file with one molecule per line?"
            )
        if b"\0" in raw:
            raise MolgenError(f"{source}, line {number}: a NUL byte", "save the file as UTF-8 text")
        yield number, raw


def _split_lines(stream: BinaryIO) -> Iterator[bytes]:
    pending = b""  # the start of a line whose end has not been read yet
    while block := stream.readline(LONGEST_LINE + 1 - len(pending)):
        raw, pending = pending + block if pending else block, b""
        body = raw.rstrip(b"\r\n") if b"\r" in raw else b""
        if b"\r" not in body:
            yield raw
            continue
        parts = body.splitlines(keepends=True)  # bytes split only at line feeds and carriage returns
        parts[-1] += raw[len(body) :]
        if not raw.endswith(b"\n"):
            pending = parts.pop()
        yield from parts
    if pending:
        yield pending


def text_line(number: int, raw: bytes, source: str, latin: bool = False) -> str:
    """A line as text, without line end and byte order mark; with `latin`, a line that is not UTF-8 is read as Latin-1.

    Raises MolgenError for a line that is not UTF-8, without `latin`.
    """
    try:
        line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError:
        if not latin:
            hint = "it may be Latin-1, as older Excel and Windows write it; save it as UTF-8 (iconv -f cp1252 -t utf-8)"
            raise MolgenError(f"{source}, line {number}: not UTF-8", hint) from None
        line = raw.decode("latin-1")
    return line.rstrip("\r\n")
