"""Dropout that several threads can draw for at once, each from a seed of its own."""

import threading

import torch
from torch import Generator, Tensor, nn

_of_this_thread = threading.local()


def seed_dropout(seed: int, device: torch.device) -> None:
    """From now on the dropout of this thread draws from this seed. PyTorch's own has one generator for all threads."""
    _of_this_thread.generator = Generator(device).manual_seed(seed)


class Dropout(nn.Module):
    """Zeroes each number with probability `share` in training and scales the others up (Srivastava et al. 2014)."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:  # same shape
        if not self.training or not self.share:
            return x
        if self.share == 1:
            return torch.zeros_like(x)
        generator = getattr(_of_this_thread, "generator", None)
        return x * torch.empty_like(x).bernoulli_(1 - self.share, generator=generator).div_(1 - self.share)
