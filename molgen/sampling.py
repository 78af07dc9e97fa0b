"""Prompt ids → prefill → state → logits → filters → draw → ids.

Rows run in lockstep over a memory of keys and values; finished rows are compacted away when a quarter is done.
"""

import math
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from molgen.errors import MolgenError
from molgen.model.decoder import Decoder
from molgen.tokenizer import BOS, EOS, PAD

_ROOM = 32  # memories grow by this many positions
_CHECK = 4  # steps between two looks at which rows are done: looking makes a GPU wait


class Filters(NamedTuple):
    """What is done to the logits before the draw. The default draws from the model's own distribution."""

    temperature: float = 1.0
    """Logits are divided by it; 0 takes the most probable token (greedy)."""
    top_k: int | None = None
    """Only the k most probable tokens."""
    top_p: float | None = None
    """Only the smallest set of tokens that holds this probability (nucleus sampling, Holtzman et al. 2020)."""

    def checked(self, vocabulary: int) -> "Filters":
        """These filters. Raises MolgenError for a value out of range."""
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise MolgenError(
                f"--temperature {self.temperature}: out of range",
                "0 (greedy) or above; 1 is the model itself",
            )
        if self.top_k is not None and not 1 <= self.top_k <= vocabulary:
            raise MolgenError(f"--top-k {self.top_k}: out of range", f"1 to {vocabulary}, the size of the vocabulary")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise MolgenError(f"--top-p {self.top_p}: out of range", "above 0, at most 1")
        return self


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """Logits (B, V), all but the k largest of each row at minus infinity."""
    smallest = logits.topk(k, dim=-1).values[:, -1:]
    return logits.masked_fill(logits < smallest, -math.inf)


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """Logits (B, V), all at minus infinity but the smallest set whose probabilities sum to at least p."""
    ordered, index = logits.sort(dim=-1, descending=True)
    probabilities = ordered.softmax(dim=-1)
    before = probabilities.cumsum(dim=-1) - probabilities  # mass of the more probable tokens
    return torch.full_like(logits, -math.inf).scatter(-1, index, ordered.masked_fill(before >= p, -math.inf))


def draw(logits: Tensor, filters: Filters, generator: Generator) -> Tensor:
    """Logits (B, V) -> ids (B,), by the Gumbel-max trick: argmax of logit plus Gumbel noise is an exact draw."""
    logits = logits.float()
    if filters.temperature == 0:
        return logits.argmax(dim=-1)
    logits = logits / filters.temperature
    if filters.top_k is not None:
        logits = keep_top_k(logits, filters.top_k)
    if filters.top_p is not None:
        logits = keep_top_p(logits, filters.top_p)
    noise = torch.empty_like(logits).exponential_(generator=generator).clamp_min_(1e-10)  # ln 0 would make NaN of -inf
    return (logits - noise.log()).argmax(dim=-1)  # −ln of exponential noise is Gumbel noise


@torch.inference_mode()
def decode(
    model: Decoder, prompt: list[int], rows: int, filters: Filters, never: list[int], generator: Generator
) -> Tensor:
    """`rows` continuations of a prompt (token ids without `<bos>`), in which the ids `never` are not drawn.

    Returns ids (rows, context + 1), the prompt included, in the order in which the rows were started. What follows
    a row's first `<eos>` means nothing; a row without one hit the context's end.
    """
    device = model.embedding.weight.device
    ids = torch.full((rows, model.context + 1), PAD, dtype=torch.long, device=device)
    ids[:, : len(prompt)] = torch.tensor(prompt, dtype=torch.long, device=device)
    start = torch.tensor([BOS, *prompt], dtype=torch.long, device=device).expand(rows, -1)
    logits, state = model.step(start, model.empty_state(rows, min(len(prompt) + _ROOM, model.context + 1)))
    row = torch.arange(rows, device=device)  # which sample each running row is
    done = torch.zeros(rows, dtype=torch.bool, device=device)
    for position in range(len(prompt), model.context + 1):
        logits[:, never] = -math.inf
        new = draw(logits, filters, generator)
        ids[row, position] = new
        done |= new == EOS
        if position == model.context:
            break
        if position % _CHECK == 0:
            running = int((~done).sum())
            if running == 0:
                break
            if running <= 0.75 * len(row):
                alive = (~done).nonzero().squeeze(1)
                row, new, done, state = row[alive], new[alive], done[alive], state.keep(alive)
        if state.length == state.room:
            state = state.widened(min(state.room + _ROOM, model.context + 1))
        logits, state = model.step(new[:, None], state)
    return ids
