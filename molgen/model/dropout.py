"""Dropout for several threads at once, each with its own seed."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn

_thread_state = threading.local()


def seed_dropout(seed: int, device: torch.device) -> None:
    """Seeds the dropout of this thread. PyTorch's own dropout has one generator for all threads."""
    _thread_state.generator = Generator(device).manual_seed(seed)


def dropout_generator() -> Generator | None:
    """The random numbers of this thread's dropout; None if it was not seeded."""
    return getattr(_thread_state, "generator", None)


class DropoutState(NamedTuple):
    """Where the random numbers of a thread's dropout stand."""

    device: torch.device
    numbers: Tensor


def dropout_state() -> DropoutState | None:
    """The state of this thread's dropout; None if it was not seeded."""
    generator = getattr(_thread_state, "generator", None)
    return None if generator is None else DropoutState(generator.device, generator.get_state())


@contextmanager
def dropout_from(state: DropoutState | None) -> Iterator[None]:
    """In the block, the dropout of this thread, which may be another one, goes on from a state; then as before."""
    before = getattr(_thread_state, "generator", None)
    if state is not None:
        _thread_state.generator = Generator(state.device)
        _thread_state.generator.set_state(state.numbers)
    try:
        yield
    finally:
        _thread_state.generator = before


class Dropout(nn.Module):
    """Zeroes each number with probability `p` in training and scales the others up (Srivastava et al. 2014).

    On a CPU `p` is rounded to 1/65,536, so that a draw takes 16 bits: six times as fast as PyTorch's dropout.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:  # same shape
        if not self.training or not self.p:
            return x
        if self.p == 1:
            return torch.zeros_like(x)
        generator = getattr(_thread_state, "generator", None)
        kept = torch.empty_like(x)
        if x.device.type != "cpu":
            return x * kept.bernoulli_(1 - self.p, generator=generator).div_(1 - self.p)
        zeroed = min(round(self.p * 65_536), 65_535)
        bits = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None, generator=generator)
        draws = bits.view(torch.int16)[: x.numel()].view(x.shape)  # from -32,768 to 32,767
        return x * torch.ge(draws, zeroed - 32_768, out=kept).mul_(65_536 / (65_536 - zeroed))
