"""Strings drawn without replacement: stochastic beam search by Gumbel top-k (Kool et al. 2019, ICML)."""

import math

import torch
from torch import Generator, Tensor

from molgen.tokenizer import EOS, PAD


class Beam:
    """The strings so far of `extend_distinct`, and for each the Gumbel variable that decides which are kept."""

    def __init__(self, starts: Tensor, log_weights: Tensor, context: int, generator: Generator) -> None:
        self.ids = torch.full((len(starts), context + 1), PAD, dtype=torch.long, device=starts.device)
        self.ids[:, : starts.shape[1] - 1] = starts[:, 1:]
        self.start = torch.arange(len(starts), device=starts.device)
        self.finished = torch.zeros(len(starts), dtype=torch.bool, device=starts.device)
        self._log_p = log_weights.double().log_softmax(dim=0)
        self._generator = generator
        self._gumbel = self._perturbed(self._log_p)

    def grow(self, logits: Tensor, position: int, forced: Tensor, most: int) -> Tensor:
        """Adds a token to each string, or ends it; keeps the best; returns the row that each came from."""
        log_p = self._log_p[:, None] + logits.double().log_softmax(dim=-1)
        perturbed = self._perturbed(log_p)
        # conditioned on the largest one being that of the string so far
        largest = perturbed.max(dim=1, keepdim=True).values
        v = self._gumbel[:, None] - perturbed + torch.log1p(-(perturbed - largest).exp())
        gumbel = self._gumbel[:, None] - v.relu() - torch.log1p(torch.exp(-v.abs()))
        gumbel = gumbel.masked_fill(log_p == -math.inf, -math.inf)
        fixed = forced | self.finished
        token = torch.where(self.finished, EOS, self.ids[:, position])[fixed]
        gumbel[fixed], log_p[fixed] = -math.inf, -math.inf
        gumbel[fixed, token], log_p[fixed, token] = self._gumbel[fixed], self._log_p[fixed]
        possible = int((gumbel > -math.inf).sum())
        chosen = gumbel.flatten().topk(min(most, possible)).indices.sort().values
        parent, token = chosen // logits.shape[1], chosen % logits.shape[1]
        self._gumbel, self._log_p = gumbel.flatten()[chosen], log_p.flatten()[chosen]
        self.start, was_finished, forced = self.start[parent], self.finished[parent], forced[parent]
        self.ids = self.ids[parent]
        self.ids[:, position] = torch.where(was_finished, PAD, token)
        self.finished = was_finished | ((token == EOS) & ~forced)
        return parent

    def order(self, rows: int) -> Tensor:
        """The rows in the order of their draws, from the beginning again if there are too few."""
        ranked = self._gumbel.argsort(descending=True)
        return ranked[torch.arange(rows, device=ranked.device) % len(ranked)]

    def _perturbed(self, log_p: Tensor) -> Tensor:
        uniform = torch.rand(log_p.shape, generator=self._generator, device=log_p.device, dtype=torch.float64)
        return log_p - (-uniform.clamp_min(1e-300).log()).log()
