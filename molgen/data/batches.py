"""The encoded corpus as one flat array, and its batches of molecules of similar length."""

import mmap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import repeat
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from molgen.data.labels import LabelArrays
from molgen.runtime.distributed import ProcessGroup
from molgen.tokenizer import BOS, EOS, PAD, SmilesTokenizer

Rows = npt.NDArray[np.int64]
Cut = Callable[[Rows, int, np.random.Generator], list[list[Rows]]]

# An epoch is split into batches window by window, so that no array grows with the corpus; MOSES fits into one window. A
# window has this many blocks of consecutive molecules; each block is one read.
_WINDOW, _BLOCKS = 2_000_000, 1_000


class Batch(NamedTuple):
    """B molecules, padded to the length T of the longest."""

    inputs: Tensor
    """(B, T) int64: `<bos>`, the tokens, padding."""
    targets: Tensor
    """(B, T) int64: the tokens, `<eos>`, padding. Padding is never predicted."""


class Corpus:
    """Encoded molecules, each as `<bos> tokens <eos>`, in one array of small integers.

    The arrays may be views of a memory-mapped file, which is then `mapped`; the first offset need not be 0.
    """

    def __init__(self, ids: npt.NDArray[np.uint8 | np.uint16], offsets: Rows, mapped: mmap.mmap | None = None) -> None:
        self.ids, self.offsets, self._mapped = ids, offsets, mapped

    @classmethod
    def of(cls, encoded: Sequence[Sequence[int]], vocabulary: int, starts: Iterable[int] | None = None) -> "Corpus":
        """From lists of token ids without `<bos>` and `<eos>`; `starts` are the first ids, `<bos>` by default."""
        dtype = np.uint8 if vocabulary <= 2**8 else np.uint16
        starts = repeat(BOS, len(encoded)) if starts is None else starts
        rows = [np.array([start, *ids, EOS], dtype=dtype) for start, ids in zip(starts, encoded, strict=True)]
        offsets = np.concatenate(([0], np.cumsum([len(row) for row in rows], dtype=np.int64)))
        return cls(np.concatenate(rows) if rows else np.empty(0, dtype), offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @cached_property
    def positions(self) -> Rows:
        """(N,) predicted positions of each molecule: its tokens and `<eos>`."""
        return np.diff(self.offsets) - 1

    @property
    def all_positions(self) -> int:
        """The sum of `positions`."""
        return int(self.offsets[-1] - self.offsets[0]) - len(self)

    def shared(self, group: ProcessGroup) -> "Corpus":
        """The main process's corpus, in every process."""
        arrays = group.broadcast({"ids": self.ids, "offsets": self.offsets})
        return Corpus(arrays["ids"], arrays["offsets"])

    def select(self, rows: Rows) -> "Corpus":
        """A copy in memory of some molecules, in this order; the same molecule may be there several times."""
        lengths = self.offsets[rows + 1] - self.offsets[rows]
        offsets = np.concatenate(([0], np.cumsum(lengths)))
        places = np.arange(offsets[-1]) + np.repeat(self.offsets[rows] - offsets[:-1], lengths)
        return Corpus(self.ids[places], offsets)

    def blocks(self, numbers: Rows, size: int) -> "Corpus":
        """A copy in memory of some blocks of `size` molecules; the last block of a corpus may be smaller."""
        ids, lengths = [], []
        for number in numbers.tolist():
            offsets = self.offsets[number * size : (number + 1) * size + 1]
            lengths.append(np.diff(offsets))
            ids.append(self.ids[offsets[0] : offsets[-1]].copy())
            self.forget()  # the system reads far more around each block than needed
        return Corpus(np.concatenate(ids), np.concatenate(([0], np.cumsum(np.concatenate(lengths)))))

    def forget(self) -> None:
        """Releases the pages of a mapped file from this process's memory; the system may still cache them."""
        if self._mapped is not None and hasattr(self._mapped, "madvise"):  # not on Windows
            self._mapped.madvise(mmap.MADV_DONTNEED)

    def padded(self, rows: Rows) -> npt.NDArray[np.int64]:
        """(B, longest) ids of these rows, `<pad>` after their ends."""
        lengths = self.offsets[rows + 1] - self.offsets[rows]
        columns = np.arange(lengths.max())
        real = columns < lengths[:, None]  # (B, T + 1)
        padded = np.full(real.shape, PAD, dtype=np.int64)
        padded[real] = self.ids[(self.offsets[rows][:, None] + columns)[real]]
        return padded

    def batch(self, rows: Rows, device: torch.device) -> Batch:
        """The molecules of these rows, padded."""
        ids = torch.from_numpy(self.padded(rows))
        if device.type == "cuda":  # a copy from memory that is not pinned would wait until the GPU is idle
            ids = ids.pin_memory()
        ids = ids.to(device, non_blocking=True)
        return Batch(ids[:, :-1], ids[:, 1:])


class Mixture(NamedTuple):
    """The training molecules of each source, and the shares of the sources.

    An epoch has as many molecules as all sources together. So the molecules of a small source with a large share are
    shown several times, and those of a large source with a small share continue in the next epoch. Each molecule of a
    source is shown equally often, give or take one.
    """

    sources: Rows
    """(N,) The number of each training molecule's source."""
    shares: tuple[float, ...]
    """Of an epoch's molecules, one per source; they sum to 1."""
    seed: int

    def rows(self, epoch: int) -> Rows:
        """Rows of the training molecules that the epoch shows, counted from 0; in the order of the sources.

        The share of a source without training molecules goes to the others.
        """
        members = [np.flatnonzero(self.sources == number) for number in range(len(self.shares))]
        present = sum(share for share, rows in zip(self.shares, members, strict=True) if len(rows))
        drawn = []
        for number, (rows, share) in enumerate(zip(members, self.shares, strict=True)):
            count = round(share / present * len(self.sources)) if len(rows) else 0
            drawn.append(self._series(rows, number, epoch * count, count))
        return np.concatenate(drawn)

    def _series(self, rows: Rows, number: int, start: int, count: int) -> Rows:
        """`count` rows from place `start` of the endless series of a source's rows, shuffled anew in each pass."""
        if not count:
            return rows[:0]
        first, last = start // len(rows), (start + count - 1) // len(rows)
        passes = [np.random.default_rng([self.seed, 3, number, i]).permutation(rows) for i in range(first, last + 1)]
        begin = start - first * len(rows)
        return np.concatenate(passes)[begin : begin + count]


@dataclass(frozen=True)
class TrainingData:
    """The encoded data of a training; the same in every process and for every kind of source."""

    corpus: Corpus
    """The training molecules in the form of `data.form`, before any randomisation."""
    validation: Corpus
    canonical_smiles: Sequence[str]
    """The training molecules as strings, for randomised SMILES; empty if this process does not need them."""
    tokenizer: SmilesTokenizer
    mixture: Mixture | None = None
    """Which molecules an epoch shows; None: each molecule once."""
    validation_sources: Mapping[str, int] = field(default_factory=dict)
    """Of a mixture: how many molecules of `validation` each source has; they are in this order."""
    labels: Mapping[str, LabelArrays] = field(default_factory=dict)
    """Of a run with targets: the labels of the molecules of `corpus` (`train`) and of `validation`, in their order."""


def random_batches(positions: Rows, batch_size: int, rng: np.random.Generator) -> list[list[Rows]]:
    """Steps of `batch_size` random molecules (the last may be smaller), each in up to four parts of similar length.

    The gradients of a step's parts are added, so the parts only reduce the padding, which would else be two thirds.
    """
    order = rng.permutation(len(positions))
    return [similar_parts(order[i : i + batch_size], positions) for i in range(0, len(order), batch_size)]


def similar_parts(rows: Rows, positions: Rows) -> list[Rows]:
    """Up to four parts of these rows with molecules of similar length; `positions` has the lengths of all rows."""
    return np.array_split(rows[np.argsort(positions[rows], kind="stable")], min(4, len(rows)))


def bucketed_batches(positions: Rows, batch_size: int, rng: np.random.Generator) -> list[list[Rows]]:
    """Steps of molecules of similar length and about equal token count, each in one part, in random order.

    A step has as many tokens as `batch_size` average molecules, so every token has the same weight. Random noise of up
    to four tokens is added to the lengths, so that batches differ between epochs but have little padding.
    """
    return _cut_by_tokens(positions, batch_size * positions.mean(), rng)


def batches_of_tokens(positions: Rows, batch_tokens: int, rng: np.random.Generator) -> list[list[Rows]]:
    """As `bucketed_batches`, with `batch_tokens` predicted tokens per step, and less than a molecule more."""
    return _cut_by_tokens(positions, batch_tokens, rng)


def _cut_by_tokens(positions: Rows, budget: float, rng: np.random.Generator) -> list[list[Rows]]:
    order = np.argsort(positions + rng.uniform(0, 4, len(positions)), kind="stable")
    before = np.cumsum(positions[order]) - positions[order]  # tokens before each molecule
    number = (before // budget).astype(np.int64)
    batches = np.split(order, np.flatnonzero(np.diff(number)) + 1)
    return [[batches[i]] for i in rng.permutation(len(batches))]


def epoch_steps(
    corpus: Corpus, cut: Cut, batch_size: int, rng: np.random.Generator, window: int = _WINDOW
) -> Iterator[tuple[float, Corpus, list[Rows]]]:
    """(fraction of the epoch before the step, a corpus, the step's parts as rows of this corpus) of each step.

    A corpus larger than a window is processed window by window; each window is a random set of blocks of the corpus.
    """
    size = max(1, window // _BLOCKS)
    count = max(1, -(-len(corpus) // window))
    blocks = -(-len(corpus) // size)
    windows = np.array_split(rng.permutation(blocks), count) if count > 1 else [None]
    for w, numbers in enumerate(windows):
        part = corpus if numbers is None else corpus.blocks(np.sort(numbers), size)
        steps = cut(part.positions, batch_size, rng)
        for i, rows in enumerate(steps):
            yield (w + i / len(steps)) / count, part, rows
