"""Prompt ids → prefill → state → logits → filters → draw → ids.

Rows run in lockstep over a memory of keys and values; when a quarter is done, running rows take the place of finished
ones. Half precision is inside the blocks only: sums between them and logits are float32.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from molgen.errors import MolgenError
from molgen.model.decoder import Decoder
from molgen.runtime.device import Precision, autocast, uses_bf16
from molgen.tokenizer import BOS, EOS, PAD

# Steps after which memories are made longer and finished rows left out, by one copy. More often, the copies cost more
# than they save; looking which rows are done makes a GPU wait.
_BUCKET = 8
_COLDEST, _HOTTEST = 1e-30, 1e30  # so that logits of up to 1e8 over it are finite in float32, and its inverse is
_ROUNDING = 1e-6  # of a sum of probabilities whose logits are float32
_ROWS = 32  # for each number of rows that it meets, oneDNN makes a kernel and keeps it: a gigabyte if all differ


class SamplingParams(NamedTuple):
    """What is done to the logits before the draw. The default draws from the model's own distribution."""

    temperature: float = 1.0
    """Logits are divided by it, 1e-30 to 1e30; 0 takes the most probable token (greedy)."""
    top_k: int | None = None
    """Only the k most probable tokens, exactly k: of equally probable ones those that the vocabulary has first."""
    top_p: float | None = None
    """Only the smallest set of tokens that holds this probability (nucleus sampling, Holtzman et al. 2020); 1: all."""

    def checked(self, vocabulary: int) -> "SamplingParams":
        """These filters. Raises MolgenError for a value out of range."""
        if not (self.temperature == 0 or _COLDEST <= self.temperature <= _HOTTEST):
            raise MolgenError(
                f"--temperature {self.temperature}: out of range",
                f"0 (greedy), or {_COLDEST:g} to {_HOTTEST:g}, which float32 can divide by; 1 is the model itself",
            )
        if self.top_k is not None and not 1 <= self.top_k <= vocabulary:
            raise MolgenError(f"--top-k {self.top_k}: out of range", f"1 to {vocabulary}, the size of the vocabulary")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise MolgenError(f"--top-p {self.top_p}: out of range", "above 0, at most 1")
        return self


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """Logits (B, V), all but the k largest of each row at minus infinity; equal ones count in their order."""
    if k >= logits.shape[-1]:
        return logits
    ordered, index = logits.sort(dim=-1, descending=True, stable=True)
    return torch.full_like(logits, -math.inf).scatter(-1, index[:, :k], ordered[:, :k])


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """Logits (B, V), all at minus infinity but the smallest set whose probabilities sum to at least p, never none.

    Equal ones count in their order. A sum reaches p where it is less by no more than rounding.
    """
    if p >= 1:
        return logits
    ordered, index = logits.sort(dim=-1, descending=True, stable=True)
    exact = ordered if logits.device.type == "mps" else ordered.double()  # which MPS does not have
    reached = exact.softmax(dim=-1).cumsum(dim=-1) >= p - _ROUNDING
    beyond = reached.roll(1, dims=-1)  # the more probable tokens reach p already
    beyond[:, 0] = False
    return torch.full_like(logits, -math.inf).scatter(-1, index, ordered.masked_fill(beyond, -math.inf))


def draw(logits: Tensor, filters: SamplingParams, generator: Generator) -> Tensor:
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
    filters: SamplingParams,
    suppressed_ids: list[int],
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
            logits[:, suppressed_ids] = -math.inf
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
