"""Batches → negative log-likelihood and top-1. Training and evaluation both use it.

NLL is in nats. Padding never counts; `<bos>` is never predicted; `<eos>` is.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from molgen.data.batches import Batch, Corpus
from molgen.runtime.distributed import SINGLE_PROCESS, ProcessGroup
from molgen.tokenizer import PAD

# The source text pads every molecule to this many positions and counts pads that follow `<eos>` as reconstructed.
_PADDED_POSITIONS = 100


@dataclass(frozen=True)
class Likelihood:
    """Per molecule, in the order of the corpus."""

    nll: npt.NDArray[np.float64]
    """(N,) −ln p of the tokens and `<eos>`."""
    positions: npt.NDArray[np.int64]
    """(N,) predicted positions."""
    correct: npt.NDArray[np.int64]
    """(N,) positions whose most probable token is the true one."""

    @property
    def mean_nll(self) -> float:
        """Nats per molecule."""
        return float(self.nll.mean())

    @property
    def stderr(self) -> float | None:
        """Standard error of `mean_nll`; None for a single molecule."""
        return float(self.nll.std(ddof=1) / math.sqrt(len(self.nll))) if len(self.nll) > 1 else None

    @property
    def nll_per_token(self) -> float:
        """Nats per predicted position."""
        return float(self.nll.sum() / self.positions.sum())

    @property
    def perplexity(self) -> float:
        """exp(`nll_per_token`)."""
        return math.exp(self.nll_per_token)

    @property
    def top1(self) -> float:
        """Share of the predicted positions whose most probable token is the true one."""
        return float(self.correct.sum() / self.positions.sum())

    @property
    def top1_padded(self) -> float:
        """As in the source text: positions after `<eos>`, up to 100, count as correct; mean over molecules."""
        padded = np.maximum(self.positions, _PADDED_POSITIONS)
        return float(((self.correct + padded - self.positions) / padded).mean())

    def figures(self) -> dict[str, float | None]:
        """The figures by the names that report.json and `molgen eval --json` use."""
        return {
            "nll": self.mean_nll,
            "nll_stderr": self.stderr,
            "nll_per_token": self.nll_per_token,
            "perplexity": self.perplexity,
            "top1": self.top1,
            "top1_padded": self.top1_padded,
        }


def token_nll(logits: Tensor, targets: Tensor) -> Tensor:
    """Logits (B, T, V) and targets (B, T) -> −ln p of each target, (B, T) float32, 0 at padding."""
    nll = cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), ignore_index=PAD, reduction="none")
    return nll.view(targets.shape)


@torch.inference_mode()
def likelihood(
    model: nn.Module,
    corpus: Corpus,
    device: torch.device,
    batch_tokens: int = 8_192,
    group: ProcessGroup = SINGLE_PROCESS,
    between: Callable[[], None] | None = None,
) -> Likelihood:
    """Every molecule of a corpus under the model in evaluation mode, in float32. All processes of a group take part.

    `between` is called after each batch and may raise an exception to end the work.
    """
    was_training = model.training
    model.eval()
    nll, correct = np.zeros(len(corpus)), np.zeros(len(corpus), dtype=np.int64)
    order = group.shard(np.argsort(corpus.positions, kind="stable"))
    start = 0
    while start < len(order):
        # the longest molecule of a batch decides its padded size
        stop = start + max(1, batch_tokens // int(corpus.positions[order[start]]))
        while stop > start + 1 and corpus.positions[order[min(stop, len(order)) - 1]] * (stop - start) > batch_tokens:
            stop -= max(1, (stop - start) // 8)
        rows = order[start:stop]
        batch: Batch = corpus.batch(rows, device)
        logits = model(batch.inputs)
        nll[rows] = token_nll(logits, batch.targets).cpu().double().sum(dim=1).numpy()
        hits = (logits.argmax(dim=-1) == batch.targets) & (batch.targets != PAD)
        correct[rows] = hits.sum(dim=1).cpu().numpy()
        start = stop
        if between:
            between()
    model.train(was_training)
    return Likelihood(group.all_reduce_sum(nll), corpus.positions, group.all_reduce_sum(correct))


def paired_difference(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Mean of a − b, two NLLs (N,) of the same molecules, and its standard error."""
    difference = a - b
    return float(difference.mean()), float(difference.std(ddof=1) / math.sqrt(len(difference)))
