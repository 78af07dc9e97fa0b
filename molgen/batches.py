"""An encoded corpus in one flat array, and batches of it whose molecules have similar lengths."""

from collections.abc import Iterable, Sequence
from itertools import repeat
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from molgen.processes import Team
from molgen.tokenizer import BOS, EOS, PAD

Rows = npt.NDArray[np.int64]


class Batch(NamedTuple):
    """What one step sees: B molecules, padded to the T of the longest."""

    inputs: Tensor
    """(B, T) int64: `<bos>`, the tokens, padding."""
    targets: Tensor
    """(B, T) int64: the tokens, `<eos>`, padding. Padding is never predicted."""


class Corpus:
    """Encoded molecules, each as `<bos> tokens <eos>`, in one array of small integers."""

    def __init__(self, ids: npt.NDArray[np.uint8 | np.uint16], offsets: Rows) -> None:
        self.ids, self.offsets = ids, offsets

    @classmethod
    def of(cls, encoded: Sequence[Sequence[int]], vocabulary: int, starts: Iterable[int] | None = None) -> "Corpus":
        """From lists of token ids without `<bos>` and `<eos>`; `starts` gives each an id to start with instead."""
        dtype = np.uint8 if vocabulary <= 2**8 else np.uint16
        starts = repeat(BOS, len(encoded)) if starts is None else starts
        rows = [np.array([start, *ids, EOS], dtype=dtype) for start, ids in zip(starts, encoded, strict=True)]
        offsets = np.concatenate(([0], np.cumsum([len(row) for row in rows], dtype=np.int64)))
        return cls(np.concatenate(rows) if rows else np.empty(0, dtype), offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def positions(self) -> Rows:
        """(N,) predicted positions of each molecule: its tokens and `<eos>`."""
        return np.diff(self.offsets) - 1

    def shared(self, team: Team) -> "Corpus":
        """The leader's corpus, in every process."""
        return Corpus(**team.broadcast({"ids": self.ids, "offsets": self.offsets}))

    def batch(self, rows: Rows, device: torch.device) -> Batch:
        """The molecules of these rows, padded."""
        lengths = self.offsets[rows + 1] - self.offsets[rows]
        columns = np.arange(lengths.max())
        real = columns < lengths[:, None]  # (B, T + 1)
        padded = np.full(real.shape, PAD, dtype=np.int64)
        padded[real] = self.ids[(self.offsets[rows][:, None] + columns)[real]]
        ids = torch.from_numpy(padded).to(device, non_blocking=True)
        return Batch(ids[:, :-1], ids[:, 1:])


def random_batches(positions: Rows, batch_size: int, rng: np.random.Generator) -> list[list[Rows]]:
    """Steps of `batch_size` random molecules (the last may be smaller), each in parts of similar length.

    The gradients of a step's parts add up, so the parts change nothing but the padding, which would be two thirds.
    """
    order = rng.permutation(len(positions))
    steps = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    return [np.array_split(rows[np.argsort(positions[rows])], min(4, len(rows))) for rows in steps]


def bucketed_batches(positions: Rows, batch_size: int, rng: np.random.Generator) -> list[list[Rows]]:
    """Steps of molecules of similar length and about equal token count, each in one part, in random order.

    A step holds as many tokens as `batch_size` average molecules do, so that each step weighs each token alike.
    Lengths are blurred by up to four tokens: enough for fresh company in each epoch, little enough to waste few pads.
    """
    order = np.argsort(positions + rng.uniform(0, 4, len(positions)), kind="stable")
    budget = batch_size * positions.mean()
    before = np.cumsum(positions[order]) - positions[order]  # tokens before each molecule
    number = (before // budget).astype(np.int64)
    batches = np.split(order, np.flatnonzero(np.diff(number)) + 1)
    return [[batches[i]] for i in rng.permutation(len(batches))]
