"""Experts: several feed-forward parts, of which each token uses one.

Shapes: B molecules, T positions, D width, E experts.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, one_hot, pad

from molgen.model.feedforward import FeedForward

_ROW_STEP = 32  # oneDNN makes and keeps a kernel for each number of rows: a gigabyte if all numbers differ
_recorder = threading.local()


class Routing(NamedTuple):
    """What the router of one block decided."""

    probabilities: Tensor  # (B, T, E) float32
    chosen: Tensor  # (B, T) the most probable expert


class SwitchFeedForward(nn.Module):
    """Each token goes to its most probable expert, whose result is multiplied by that probability (Fedus et al. 2022).

    The router is float32. Deviations from Switch Transformers: no token is dropped, because a token that is dropped for
    a later one would break causality and step by step decoding; no noise on the router's inputs.
    """

    def __init__(self, width: int, hidden: int, biases: bool, experts: int) -> None:
        super().__init__()
        self.router = nn.Linear(width, experts, bias=False)
        self.experts = nn.ModuleList(FeedForward(width, hidden, biases) for _ in range(experts))

    def forward(self, x: Tensor) -> Tensor:  # (B, T, D) -> (B, T, D)
        with torch.autocast(x.device.type, enabled=False):
            wide = torch.promote_types(x.dtype, torch.float32)
            probabilities = linear(x.to(wide), self.router.weight.to(wide)).softmax(dim=-1)  # (B, T, E)
        best, chosen = probabilities.max(dim=-1)  # (B, T)
        _record(Routing(probabilities, chosen))
        order = chosen.flatten().argsort(stable=True)  # by expert
        counts = chosen.flatten().bincount(minlength=len(self.experts)).tolist()
        parts = torch.split(x.flatten(0, -2)[order], counts)
        results = [_in_steps(expert, part) for expert, part in zip(self.experts, parts, strict=True) if len(part)]
        y = torch.cat(results)[order.argsort()].view(x.shape)
        return y * best[..., None].to(y.dtype)

    @property
    def num_idle(self) -> int:
        """Weights that a token does not use: those of all experts but one."""
        return sum(p.numel() for expert in self.experts[1:] for p in expert.parameters())


@contextmanager
def routing_recorded() -> Iterator[list[Routing]]:
    """In the block, what the routers of this thread's forward passes decide, in the order of the blocks."""
    before = getattr(_recorder, "routings", None)
    routings: list[Routing] = []
    _recorder.routings = routings
    try:
        yield routings
    finally:
        _recorder.routings = before


def balance_loss(routings: Sequence[Routing], real: Tensor) -> Tensor:
    """The sum over blocks and molecules of positions x E Σ f_i P_i, a scalar; 1 per position and block at its least.

    f_i is the share of a molecule's positions that chose expert i, P_i the mean of its probabilities, over the
    positions that are `real`, (B, T), and no padding. Deviation from Fedus et al. 2022, who take f and P over a whole
    batch: per molecule (as DeepSeekMoE, Dai et al. 2024) the loss is a sum over molecules, the same however a batch is
    divided between threads and processes.
    """
    weights = real[..., None].to(routings[0].probabilities.dtype)  # (B, T, 1)
    positions = weights.sum(dim=1)  # (B, 1)
    total = weights.new_zeros(())
    for probabilities, chosen in routings:
        experts = probabilities.shape[-1]
        shares = (one_hot(chosen, experts) * weights).sum(dim=1) / positions  # (B, E)
        total = total + (experts * shares * (probabilities * weights).sum(dim=1)).sum()
    return total


def _record(routing: Routing) -> None:
    routings = getattr(_recorder, "routings", None)
    if routings is not None:
        routings.append(routing)


def _in_steps(expert: nn.Module, x: Tensor) -> Tensor:
    """An expert's result for (n, D); on a CPU computed for a multiple of 32 rows."""
    n = len(x)
    if x.device.type != "cpu":
        return expert(x)  # type: ignore[no-any-return]
    return expert(pad(x, (0, 0, 0, -n % _ROW_STEP)))[:n]  # type: ignore[no-any-return]
