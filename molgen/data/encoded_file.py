"""The encoded corpus as a file: written molecule by molecule, read by memory mapping. It cannot execute code.

It is a safetensors file with two flat arrays, `ids` and `offsets` (see docs/definitions.md). The header is parsed here
and not by the library, because the arrays are mapped, not loaded: a file may be larger than the memory.
"""

import hashlib
import json
import mmap
import shutil
import tempfile
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

import numpy as np
from pydantic import Field, ValidationError

from molgen.chem.clean import UNKNOWN_TOKEN
from molgen.config import NAMED, DataConfig, Section, first_problem, saved
from molgen.data.batches import Corpus, Rows
from molgen.data.dataset import Molecule, Summary
from molgen.data.splitting import SPLITS
from molgen.errors import MolgenError
from molgen.runtime.files import opened, replacing
from molgen.tokenizer import BOS, EOS, SmilesTokenizer

SUFFIX = ".molgen"
MOST_AS_STRINGS = 2_000_000
"""Up to this number of molecules are kept as strings in memory, for novelty or for random forms."""
_FORMAT = "molgen corpus 1"
_LONGEST_HEADER = 2**24
_LONGEST = 65_536  # tokens of a molecule: the largest context
_ALIGNED = 8
_AT_ONCE = 16_384
_BUFFERED = 2**20


class _Metadata(Section):
    format: Literal["molgen corpus 1"]
    tokenizer: str
    data: str
    summary: str


class _Tensor(Section):
    dtype: Literal["U8", "U16", "I64"]
    shape: list[int]
    data_offsets: list[int]


class _Header(Section):
    metadata: _Metadata = Field(alias="__metadata__")
    ids: _Tensor
    offsets: _Tensor


class Lengths(NamedTuple):
    """The result of `CorpusFile.check`."""

    longest: int
    """Tokens of the longest molecule."""
    too_long: int
    """Molecules with more tokens than the context."""
    random: int
    """Molecules that start with `<random>`."""
    sha256: str
    """Hash of the arrays."""


class CorpusFile:
    """An encoded file opened for reading. Raises MolgenError if it is not one, or if its header and size do not match.

    Opening reads only the header; `check` reads the whole file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with opened(path, follow=True) as file:
                length = int.from_bytes(file.read(8), "little")
                content = file.read(length) if length <= _LONGEST_HEADER else b""
                if len(content) != length:
                    raise ValueError("no header at its start")
                header = _Header.model_validate_json(content)
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            self.tokenizer = SmilesTokenizer.of_json(header.metadata.tokenizer)
            self.summary = Summary.model_validate_json(header.metadata.summary)
            data = DataConfig.model_validate(saved(json.loads(header.metadata.data)))
            self._place(8 + length, header)
        except OSError as error:
            raise MolgenError(f"{path}: cannot be read: {error.strerror}", "restore it, or encode again") from None
        except ValidationError as error:
            raise _damaged(path, first_problem(error)) from None
        except (ValueError, RecursionError) as error:
            raise _damaged(path, str(error)) from None
        self.made_of = data.source
        """The dataset or file that was encoded into this file."""
        self.data = data.model_copy(update={"source": str(path.absolute()), "sha256": self.summary.sha256})
        """The settings that were used to clean and split its molecules."""

    def _place(self, start: int, header: _Header) -> None:
        """Maps the arrays at the offsets of the header. Raises ValueError if the header does not match the file."""
        dtype: np.dtype[np.uint8 | np.uint16] = np.dtype("<u1" if len(self.tokenizer) <= 2**8 else "<u2")
        sizes = self.summary.sizes
        n = sum(sizes.values())
        if not n or not sizes.keys() <= set(SPLITS):
            raise ValueError("the sizes in the header are not valid")
        (count,) = header.ids.shape if len(header.ids.shape) == 1 else (-1,)
        middle, end = count * dtype.itemsize, len(self._map) - start
        ids = _Tensor(dtype="U8" if dtype.itemsize == 1 else "U16", shape=[count], data_offsets=[0, middle])
        offsets = _Tensor(dtype="I64", shape=[n + 1], data_offsets=[middle, end])
        if count < 0 or header.ids != ids or header.offsets != offsets or end - middle != 8 * (n + 1):
            raise ValueError("the header's types and sizes do not fit the file")
        self._ids = np.frombuffer(self._map, dtype, count, start)
        self._offsets = np.frombuffer(self._map, np.dtype("<i8"), n + 1, start + middle)
        last = int(self._offsets[-1])
        padding = self._ids[last:] if 0 <= last <= count else self._ids
        if self._offsets[0] or len(padding) >= _ALIGNED or padding.any():
            raise ValueError("its molecules do not end where its ids do")
        self._ids = self._ids[:last]

    def check(self, context: int) -> Lengths:
        """Reads the whole file. Raises MolgenError unless each molecule is a start token, tokens and one `<eos>`."""
        special, longest, too_long, random = len(self.tokenizer.special), 0, 0, 0
        whole, digest = Corpus(self._ids, self._offsets, self._map), hashlib.sha256()
        for first in range(0, len(whole), _AT_ONCE):
            offsets = self._offsets[first : first + _AT_ONCE + 1]
            lengths = np.diff(offsets) - 2
            if lengths.min() < 1 or lengths.max() > _LONGEST or offsets[-1] > len(self._ids):
                raise _damaged(self.path, f"the offsets from molecule {first + 1:,} on are not in order")
            ids = self._ids[offsets[0] : offsets[-1]]
            starts, ends = ids[offsets[:-1] - offsets[0]], ids[offsets[1:] - offsets[0] - 1]
            started = np.isin(starts, [BOS, *range(EOS + 1, special)])
            sound = started.all() and (ends == EOS).all() and np.count_nonzero(ids < special) == 2 * len(lengths)
            if not sound or ids.max() >= len(self.tokenizer):
                raise _damaged(self.path, f"the ids of molecule {first + 1:,} or of a later one are not valid")
            digest.update(offsets.tobytes())
            digest.update(ids.tobytes())
            longest = max(longest, int(lengths.max()))
            too_long += int(np.count_nonzero(lengths > context))
            random += int(np.count_nonzero(starts != BOS))
            whole.forget()
        return Lengths(longest, too_long, random, digest.hexdigest())

    def split(self, name: str) -> Corpus:
        """The corpus of one split, memory-mapped."""
        sizes = [self.summary.sizes.get(split, 0) for split in SPLITS]
        first = sum(sizes[: SPLITS.index(name)])
        return Corpus(self._ids, self._offsets[first : first + self.summary.sizes.get(name, 0) + 1], self._map)

    def strings(self, name: str) -> list[str]:
        """The SMILES of a split. Raises MolgenError if they are too many for the memory."""
        corpus = self.split(name)
        if reason := self.lacks(name):
            raise MolgenError(f"{self.path}: {reason}", "name a part of them with --train, as a file of SMILES")
        return self._decoded(corpus, np.arange(len(corpus)))

    def lacks(self, name: str) -> str:
        """Why the strings of a split are not available; empty if they are."""
        size = self.summary.sizes.get(name, 0)
        return f"{size:,} {name} molecules are too many to be held as strings" if size > MOST_AS_STRINGS else ""

    def spread(self, name: str, about: int) -> list[str]:
        """Evenly spaced SMILES of a split that start with `<bos>`, at most about twice as many as `about`."""
        corpus = self.split(name)
        rows = np.arange(0, len(corpus), max(1, len(corpus) // about))
        if (corpus.ids[corpus.offsets[rows]] != BOS).any():  # the evenly spaced rows may all be random forms
            canonical = np.flatnonzero(corpus.ids[corpus.offsets[:-1]] == BOS)
            rows = canonical[:: max(1, len(canonical) // about)]
        return self._decoded(corpus, rows)

    def has_random_forms(self, name: str) -> bool:
        """Whether some molecules of a split start with `<random>`."""
        corpus = self.split(name)
        return bool((corpus.ids[corpus.offsets[:-1]] != BOS).any())

    def molecules(self) -> list[Molecule]:
        """All molecules. The file does not contain their names and source rows: these are empty and counted from 1."""
        pairs = [(smiles, name) for name in SPLITS for smiles in self.strings(name)]
        return [Molecule(smiles, "", row, name) for row, (smiles, name) in enumerate(pairs, 1)]

    def _decoded(self, corpus: Corpus, rows: Rows) -> list[str]:
        chunks = [rows[i : i + _AT_ONCE // 8] for i in range(0, len(rows), _AT_ONCE // 8)]
        strings = [s or "" for chunk in chunks for s in self.tokenizer.decode(corpus.padded(chunk)[:, 1:])]
        corpus.forget()
        return strings


class CorpusWriter:
    """Writes molecules one after another, in the order of their splits, with few of them in memory."""

    def __init__(self, file: BinaryIO, offsets: BinaryIO, tokenizer: SmilesTokenizer, data: DataConfig) -> None:
        self.tokenizer = tokenizer
        self.rows: int | None = None
        """Rows of the source; None: the number of molecules passed to `add`."""
        self.dropped, self.altered = Counter[str](), Counter[str]()
        """Rows of the source by reason; `add` counts the molecules that it leaves out itself."""
        self._file, self._offsets_file, self._data = file, offsets, data
        self._ids = self.array([])
        self._ends = array("q", [0])
        self._count = 0
        self._sizes: Counter[str] = Counter()
        self._digest, self._line_end = hashlib.sha256(), ""
        # the header is at the start but known only at the end, so space is reserved for it
        self._start = -(-(8 + len(self._header("0" * 64, 0)) + 8_192) // 4_096) * 4_096
        file.seek(self._start)

    @property
    def sizes(self) -> dict[str, int]:
        """Molecules per split so far."""
        return {name: self._sizes[name] for name in SPLITS if self._sizes[name]}

    def array(self, ids: Sequence[int]) -> "array[int]":
        """Ids in the type of the file, which is the fastest for `add`."""
        return array("B" if len(self.tokenizer) <= 2**8 else "H", ids)

    def add(self, split: str, smiles: str, random: bool = False, ids: Sequence[int] | None = None) -> bool:
        """Adds a molecule; `random` says whether its SMILES is a random form. False if it has an unknown token.

        `ids` are the token ids, if the caller has already encoded the molecule. Raises ValueError if the splits are not
        in order.
        """
        ids = ids or self.tokenizer.encode(smiles)
        if not self._sizes[split] and any(self._sizes[later] for later in SPLITS[SPLITS.index(split) :]):
            raise ValueError(f"{split} molecules come before those of later splits")
        if ids is None:
            self.dropped[UNKNOWN_TOKEN] += 1
            return False
        self._digest.update(f"{self._line_end}{smiles} {split}".encode())
        self._line_end = "\n"
        self._sizes[split] += 1
        self._ids.append(self.tokenizer.random_start if random else BOS)
        self._ids.extend(ids)
        self._ids.append(EOS)
        self._ends.append(self._count + len(self._ids))
        if len(self._ids) >= _BUFFERED:
            self._flush()
        return True

    def finish(self) -> None:
        """Appends the offsets to the ids and writes the header at the start."""
        padding = -(self._count + len(self._ids)) % _ALIGNED
        self._ids.extend([0] * padding)
        self._flush()
        self._offsets_file.seek(0)
        shutil.copyfileobj(self._offsets_file, self._file, _BUFFERED)
        header = self._header(self._digest.hexdigest(), self._count)
        if len(header) > self._start - 8:
            raise RuntimeError(f"a header of {len(header):,} bytes where {self._start - 8:,} were left for it")
        self._file.seek(0)
        self._file.write((self._start - 8).to_bytes(8, "little") + header.ljust(self._start - 8))

    def _flush(self) -> None:
        self._count += len(self._ids)
        for values, file in ((self._ids, self._file), (self._ends, self._offsets_file)):
            file.write(values.tobytes())
            del values[:]

    def _header(self, sha256: str, count: int) -> bytes:
        n, left_out = sum(self.sizes.values()), self.dropped[UNKNOWN_TOKEN]
        summary = Summary(
            sha256=sha256,
            rows=n + left_out if self.rows is None else self.rows,
            sizes=self.sizes,
            dropped=dict(self.dropped.most_common()),
            altered=dict(self.altered.most_common()),
        )
        metadata = {
            "format": _FORMAT,
            "tokenizer": self.tokenizer.to_json(),
            "data": json.dumps(self._data.model_dump()),  # ASCII, because a path in it may not be valid UTF-8
            "summary": summary.model_dump_json(exclude_defaults=True),
        }
        middle = count * self._ids.itemsize
        tensors = {
            "ids": {"dtype": f"U{8 * self._ids.itemsize}", "shape": [count], "data_offsets": [0, middle]},
            "offsets": {"dtype": "I64", "shape": [n + 1], "data_offsets": [middle, middle + 8 * (n + 1)]},
        }
        return json.dumps({"__metadata__": metadata, **tensors}).encode()


@contextmanager
def corpus_writer(path: Path, tokenizer: SmilesTokenizer, data: DataConfig) -> Iterator[CorpusWriter]:
    """A writer of an encoded file; `data` are the settings that its molecules were cleaned and split with.

    The file gets its name only when it is complete. Before, it and its offsets are temporary files in the same folder.
    """
    with replacing(path) as file, tempfile.TemporaryFile(dir=path.parent) as offsets:
        writer = CorpusWriter(file, offsets, tokenizer, data)
        yield writer
        writer.finish()


def is_encoded(source: str) -> bool:
    """Whether a source is an encoded file, by its suffix or by its first bytes."""
    path = Path(source)
    if source in NAMED or path.suffix == SUFFIX:
        return source not in NAMED
    try:
        with opened(path, follow=True) as file:
            length = int.from_bytes(file.read(8), "little")  # far above the limit in any text file
            return length <= _LONGEST_HEADER and b"molgen corpus " in file.read(length)
    except OSError:  # the caller that reads the file reports the error
        return False


def named_corpus(data: DataConfig) -> CorpusFile:
    """The encoded file of a run's configuration. Raises MolgenError if it no longer exists or has changed."""
    file = CorpusFile(Path(data.source))
    if file.summary.sha256 != data.sha256:
        raise MolgenError(f"{file.path}: its molecules are not those of the run", "restore the file, or train again")
    return file


def _damaged(path: Path, what: str) -> MolgenError:
    return MolgenError(f"{path}: {what}", "not a valid encoded file: `molgen data encode` writes one")
