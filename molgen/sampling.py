"""Prompt ids → prefill → state → logits → filters → draw → ids.

Rows run in lockstep over a memory of keys and values; when a quarter is done, running rows take the place of finished
ones. Half precision is inside the blocks only: sums between them and logits are float32.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from molgen.config import Precision
from molgen.errors import MolgenError
from molgen.model.decoder import Decoder
from molgen.optim import autocast, uses_bf16
from molgen.tokenizer import BOS, EOS, PAD

# Steps after which memories are made longer and finished rows left out, by one copy. More often, the copies cost more
# than they save; looking which rows are done makes a GPU wait.
_BUCKET = 8
_ROWS = 32  # for each number of rows that it meets, oneDNN makes a kernel and keeps it: a gigabyte if all differ


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
    """Logits (B, V) -> ids (B,), an exact draw without a cumulated sum.

    The Gumbel-max trick in the form of a race: of exponential times with rates p the shortest is token i with
    probability p_i, so the largest p / time is drawn. Times have a resolution of 2^-24.
    """
    logits = logits.float()
    if filters.temperature == 0:
        return logits.argmax(dim=-1)
    logits = logits / filters.temperature
    if filters.top_k is not None:
        logits = keep_top_k(logits, filters.top_k)
    if filters.top_p is not None:
        logits = keep_top_p(logits, filters.top_p)
    # uniform numbers are below 1, so no time is 0; 0 itself gives an infinite one. `exponential_` is three times slower
    times = torch.rand(logits.shape, generator=generator, device=logits.device).log_().neg_()
    return (logits.softmax(dim=-1) / times).argmax(dim=-1)


@torch.no_grad()  # in inference mode autocast would convert the weights anew at each step
def decode(
    model: Decoder,
    prompt: list[int],
    rows: int,
    filters: Filters,
    never: list[int],
    generator: Generator,
    precision: Precision = "fp32",
    stopped: Callable[[], bool] = lambda: False,
) -> Tensor:
    """`rows` continuations of a prompt (token ids without `<bos>`), in which the ids `never` are not drawn.

    Returns ids (rows, context + 1), the prompt included, in the order in which the rows were started. What follows
    a row's first `<eos>` means nothing; a row without one hit the context's end. Ends early once `stopped` says so.
    """
    device = model.embedding.weight.device
    ids = torch.full((rows, model.context + 1), PAD, dtype=torch.long, device=device)
    ids[:, : len(prompt)] = torch.tensor(prompt, dtype=torch.long, device=device)
    row = torch.arange(rows, device=device)  # which sample each running row is
    new = torch.tensor([BOS, *prompt], dtype=torch.long, device=device).expand(rows, -1)
    done = torch.zeros(rows, dtype=torch.bool, device=device)
    room = -(-(len(prompt) + 1) // _BUCKET) * _BUCKET
    # a CPU multiplies many small matrices faster in float32
    half = device.type != "cpu" and uses_bf16(precision, device)
    state = model.empty_state(rows, room, torch.bfloat16 if half else None)
    with autocast(precision, device):
        for position in range(len(prompt), model.context + 1):
            logits, state = model.step(new, state)
            logits[:, never] = -math.inf
            drawn = draw(logits, filters, generator)
            ids[row, position] = drawn
            done |= drawn == EOS
            if state.length == state.room:
                running = int((~done).sum())
                if running == 0 or stopped():
                    break
                # the running rows first, and some others so that numbers of rows recur
                kept = done.sort(stable=True).indices[: -(-running // _ROWS) * _ROWS]
                state = state.rearranged(kept, state.room + _BUCKET)
                row, drawn, done = row[kept], drawn[kept], done[kept]
            new = drawn[:, None]
    return ids
