"""Prompt ids → prefill → state → logits → filters → draw → ids.

All rows advance together, one position per step. From time to time the state is copied to a larger one, without the
finished rows. What the state holds is known to the attention alone. Half precision is inside the blocks only: sums
between them and logits are float32.
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

# Every so many steps one copy makes the state larger and leaves the finished rows out. More often, the copies cost more
# than they save, and a GPU must wait until it is known which rows are finished. Of long rows it is every sixteenth of
# their length, so that the copies stay a small part of what the attention reads.
_CAPACITY_STEP, _CAPACITY_SHARE = 8, 16
_MIN_TEMPERATURE, _MAX_TEMPERATURE = 1e-30, 1e30  # its inverse and logits of up to 1e8 divided by it are finite
_ROUNDING = 1e-6  # of a sum of probabilities whose logits are float32
_ROW_STEP = 32  # oneDNN makes and keeps a kernel for each number of rows: a gigabyte if all numbers differ


class SamplingParams(NamedTuple):
    """What is done to the logits before the draw. The default draws from the model's own distribution."""

    temperature: float = 1.0
    """Logits are divided by it, 1e-30 to 1e30; 0 takes the most probable token (greedy)."""
    top_k: int | None = None
    """Only the k most probable tokens, exactly k: of equally probable ones those that the vocabulary has first."""
    top_p: float | None = None
    """Only the smallest set of tokens that holds this probability (nucleus sampling, Holtzman et al. 2020); 1: all."""

    def checked(self, vocabulary: int) -> "SamplingParams":
        """These parameters. Raises MolgenError for a value out of range."""
        if not (self.temperature == 0 or _MIN_TEMPERATURE <= self.temperature <= _MAX_TEMPERATURE):
            raise MolgenError(
                f"--temperature {self.temperature}: out of range",
                f"0 (greedy), or {_MIN_TEMPERATURE:g} to {_MAX_TEMPERATURE:g}, which float32 can divide by; "
                "1 is the model itself",
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
    """Logits (B, V): the smallest non-empty set whose probabilities sum to at least p; the others at minus infinity.

    Equal ones count in their order. A sum reaches p where it is less by no more than rounding.
    """
    if p >= 1:
        return logits
    ordered, index = logits.sort(dim=-1, descending=True, stable=True)
    exact = ordered if logits.device.type == "mps" else ordered.double()  # which MPS does not have
    reached = exact.softmax(dim=-1).cumsum(dim=-1) >= p - _ROUNDING
    left_out = reached.roll(1, dims=-1)  # the more probable tokens reach p already
    left_out[:, 0] = False
    return torch.full_like(logits, -math.inf).scatter(-1, index, ordered.masked_fill(left_out, -math.inf))


def draw(logits: Tensor, params: SamplingParams, generator: Generator) -> Tensor:
    """Logits (B, V) -> ids (B,), an exact draw without a cumulated sum.

    The Gumbel-max trick with exponential times: if token i has a time of rate p_i, its time is the shortest of all with
    probability p_i. So the token with the largest p / time is drawn. Times have a resolution of 2^-24.
    """
    logits = logits.float()
    if params.temperature == 0:
        return logits.argmax(dim=-1)
    logits = logits / params.temperature
    if params.top_k is not None:
        logits = keep_top_k(logits, params.top_k)
    if params.top_p is not None:
        logits = keep_top_p(logits, params.top_p)
    # uniform numbers are below 1, so no time is 0; 0 gives an infinite time. `exponential_` takes three times as long
    times = torch.rand(logits.shape, generator=generator, device=logits.device).log_().neg_()
    return (logits.softmax(dim=-1) / times).argmax(dim=-1)


@torch.no_grad()  # in inference mode autocast would convert the weights at each step
def decode(
    model: Decoder,
    prompt: list[int],
    rows: int,
    params: SamplingParams,
    suppressed_ids: list[int],
    generator: Generator,
    precision: Precision = "fp32",
    stopped: Callable[[], bool] = lambda: False,
) -> Tensor:
    """`rows` continuations of a prompt (token ids without `<bos>`), in which `suppressed_ids` are not drawn.

    Returns ids (rows, context + 1), the prompt included, in the order in which the rows were started. The ids after a
    row's first `<eos>` mean nothing; a row without `<eos>` reached the end of the context. Ends early after `stopped`
    returns True.
    """
    device = model.embedding.weight.device
    given = torch.tensor([BOS, *prompt], dtype=torch.long, device=device).expand(rows, -1)
    return _decoded(model, given, len(prompt) + 1, params, suppressed_ids, generator, precision, stopped)


@torch.no_grad()
def complete(
    model: Decoder,
    starts: Tensor,
    params: SamplingParams,
    suppressed_ids: list[int],
    generator: Generator,
    precision: Precision = "fp32",
) -> Tensor:
    """A continuation of each of `starts`, (rows, P) ids: `<bos>` or another start token, some tokens, then `<pad>`s.

    Returns ids (rows, context + 1) as `decode`, the starts' tokens included.
    """
    return _decoded(model, starts, 1, params, suppressed_ids, generator, precision, lambda: False)


def _grown(capacity: int) -> int:
    """The next capacity of a state."""
    return capacity + max(_CAPACITY_STEP, capacity // _CAPACITY_SHARE // _CAPACITY_STEP * _CAPACITY_STEP)


def _decoded(
    model: Decoder,
    given: Tensor,
    prefill: int,
    params: SamplingParams,
    suppressed_ids: list[int],
    generator: Generator,
    precision: Precision,
    stopped: Callable[[], bool],
) -> Tensor:
    """Continues `given`, (rows, P) ids from the start token on; its first `prefill` columns have no padding."""
    rows, device = len(given), given.device
    ids = torch.full((rows, model.context + 1), PAD, dtype=torch.long, device=device)
    ids[:, : given.shape[1] - 1] = given[:, 1:]
    row = torch.arange(rows, device=device)  # the row of `ids` that each row of the state writes to
    new = given[:, :prefill]
    finished = torch.zeros(rows, dtype=torch.bool, device=device)
    capacity = -(-prefill // _CAPACITY_STEP) * _CAPACITY_STEP
    # a CPU multiplies many small matrices faster in float32
    half = device.type != "cpu" and uses_bf16(precision, device)
    state = model.empty_state(rows, capacity, torch.bfloat16 if half else None)
    with autocast(precision, device):
        for position in range(prefill - 1, model.context + 1):
            logits, state = model.step(new, state)
            logits[:, suppressed_ids] = -math.inf
            drawn = draw(logits, params, generator)
            if position < given.shape[1] - 1:  # some rows have a token here
                asked = ids[row, position]
                drawn = torch.where(asked == PAD, drawn, asked)
            ids[row, position] = drawn
            finished |= drawn == EOS
            if state.length == state.capacity:
                running = int((~finished).sum())
                if running == 0 or stopped():
                    break
                # the running rows first, then some finished ones, so that the same numbers of rows occur again
                kept = finished.sort(stable=True).indices[: -(-running // _ROW_STEP) * _ROW_STEP]
                state = state.select_rows(kept, _grown(state.capacity))
                row, drawn, finished = row[kept], drawn[kept], finished[kept]
            new = drawn[:, None]
    return ids
