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
from molgen.generation.beam import Beam
from molgen.generation.grammar import Grammar
from molgen.model.decoder import Decoder, DecodingState
from molgen.runtime.device import Precision, autocast, uses_bf16
from molgen.tokenizer import BOS, EOS, PAD

# Every so many steps one copy makes the state larger and leaves the finished rows out. More often, the copies cost more
# than they save, and a GPU must wait until it is known which rows are finished. Of long rows it is every sixteenth of
# their length, so that the copies stay a small part of what the attention reads.
_CAPACITY_STEP, _CAPACITY_SHARE = 8, 16
_MIN_TEMPERATURE, _MAX_TEMPERATURE = 1e-30, 1e30  # its inverse and logits of up to 1e8 divided by it are finite
_ROUNDING = 1e-6  # of a sum of probabilities whose logits are float32
_DISTINCT = 16  # tokens within which rows with the same start differ
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


def filtered(logits: Tensor, params: SamplingParams) -> Tensor:
    """Logits (B, V) in float32 as the parameters change them; with temperature 0 only the largest one is left."""
    logits = logits.float()
    if params.temperature == 0:
        return keep_top_k(logits, 1)
    logits = logits / params.temperature
    if params.top_k is not None:
        logits = keep_top_k(logits, params.top_k)
    if params.top_p is not None:
        logits = keep_top_p(logits, params.top_p)
    return logits


def draw(logits: Tensor, params: SamplingParams, generator: Generator) -> Tensor:
    """Logits (B, V) -> ids (B,), an exact draw without a cumulated sum.

    The Gumbel-max trick with exponential times: if token i has a time of rate p_i, its time is the shortest of all with
    probability p_i. So the token with the largest p / time is drawn. Times have a resolution of 2^-24.
    """
    if params.temperature == 0:
        return logits.float().argmax(dim=-1)
    logits = filtered(logits, params)
    # uniform numbers are below 1, so no time is 0; 0 gives an infinite time. `exponential_` takes three times as long
    times = torch.rand(logits.shape, generator=generator, device=logits.device).log_().neg_()
    return (logits.softmax(dim=-1) / times).argmax(dim=-1)


class Sampler(NamedTuple):
    """What does not change while rows are decoded."""

    model: Decoder
    params: SamplingParams
    suppressed_ids: list[int]
    generator: Generator
    precision: Precision
    stopped: Callable[[], bool]

    def prefilled(self, starts: Tensor, common: int) -> tuple[DecodingState, Tensor]:
        """(state after all but the last of the first `common` ids, that last id); equal rows are decoded once."""
        distinct, inverse = torch.unique(starts[:, :common], dim=0, return_inverse=True)
        state = _empty_state(self.model, len(distinct), common, self.precision)
        if common > 1:
            with autocast(self.precision, starts.device):
                _, state = self.model.step(distinct[:, :-1], state)
        return state.select_rows(inverse, state.capacity), starts[:, common - 1 : common]

    def finish(self, given: Tensor, new: Tensor, state: DecodingState, continued: "_Continued | None" = None) -> Tensor:
        """Continues `given`, (rows, P) ids from the start token on, padded at the end; `new` follow the state."""
        rows, device = len(given), given.device
        ids = torch.full((rows, self.model.context + 1), PAD, dtype=torch.long, device=device)
        ids[:, : given.shape[1] - 1] = given[:, 1:]
        row = torch.arange(rows, device=device)  # the row of `ids` that each row of the state writes to
        finished = torch.zeros(rows, dtype=torch.bool, device=device)
        if continued is not None and continued.finished is not None:
            finished = continued.finished
        with autocast(self.precision, device):
            for position in range(state.length + new.shape[1] - 1, self.model.context + 1):
                logits, state = self.model.step(new, state)
                logits[:, self.suppressed_ids] = -math.inf
                if continued is not None:
                    continued.bar(logits, position)
                drawn = draw(logits, self.params, self.generator)
                if position < given.shape[1] - 1:  # some rows have a token here
                    asked = ids[row, position]
                    drawn = torch.where(asked == PAD, drawn, asked)
                if continued is not None:
                    continued.add(drawn, position)
                ids[row, position] = drawn
                finished |= drawn == EOS
                if state.length == state.capacity:
                    running = int((~finished).sum())
                    if running == 0 or self.stopped():
                        break
                    # the running rows first, then some finished ones, so that the same numbers of rows occur again
                    kept = finished.sort(stable=True).indices[: -(-running // _ROW_STEP) * _ROW_STEP]
                    state = state.select_rows(kept, _grown(state.capacity))
                    row, drawn, finished = row[kept], drawn[kept], finished[kept]
                    if continued is not None:
                        continued.select(kept)
                new = drawn[:, None]
        return ids


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
    state = _empty_state(model, rows, len(prompt) + 1, precision)
    run = Sampler(model, params, suppressed_ids, generator, precision, stopped)
    return run.finish(given, given, state)


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
    state = _empty_state(model, len(starts), 1, precision)
    run = Sampler(model, params, suppressed_ids, generator, precision, lambda: False)
    return run.finish(starts, starts[:, :1], state)


def _grown(capacity: int) -> int:
    """The next capacity of a state."""
    return capacity + max(_CAPACITY_STEP, capacity // _CAPACITY_SHARE // _CAPACITY_STEP * _CAPACITY_STEP)


@torch.no_grad()
def extend(sampler: Sampler, starts: Tensor, barred: Tensor, grammar: Grammar) -> Tensor:
    """As `complete`, but what all starts have is decoded at once, and no row begins with a token that is barred.

    `barred`, (rows, V) bool, are the tokens that must not follow a start at once; `grammar` is that of the starts.
    """
    lengths = (starts != PAD).sum(dim=1)
    state, new = sampler.prefilled(starts, int(lengths.min()))
    return sampler.finish(starts, new, state, _Continued(lengths, grammar, barred))


@torch.no_grad()
def extend_distinct(
    sampler: Sampler,
    starts: Tensor,
    log_weights: Tensor,
    barred: Tensor,
    grammar: Grammar,
    rows: int,
) -> tuple[Tensor, Tensor]:
    """`rows` continuations of a few starts, (S, P) ids, drawn without replacement: (ids as of `complete`, starts).

    No two rows agree in their start and the first `_DISTINCT` tokens after it, as far as there are so many strings. The
    order is that of draws one after the other (Gumbel top-k: stochastic beam search, Kool et al. 2019, ICML). The
    weights, (S,), are ln p of each start up to a constant.
    """
    model = sampler.model
    lengths = (starts != PAD).sum(dim=1)
    state, new = sampler.prefilled(starts, int(lengths.min()))
    beam = Beam(starts, log_weights, model.context, sampler.generator)
    with autocast(sampler.precision, starts.device):
        for position in range(state.length, min(starts.shape[1] - 1 + _DISTINCT, model.context + 1)):
            logits, state = model.step(new, state)
            logits[:, sampler.suppressed_ids] = -math.inf
            first = lengths[beam.start] == position + 1
            logits.masked_fill_(first[:, None] & barred[beam.start], -math.inf)
            forced = lengths[beam.start] > position + 1
            grammar.bar(logits)
            parent = beam.grow(filtered(logits, sampler.params), position, forced, rows)
            grammar.select(parent)
            own = beam.ids[:, position]
            grammar.add(torch.where(forced[parent], PAD, own))
            full = state.length == state.capacity
            if (
                full
                or len(parent) != len(logits)
                or not torch.equal(parent, torch.arange(len(parent), device=parent.device))
            ):
                state = state.select_rows(parent, _grown(state.capacity) if full else state.capacity)
            new = beam.ids[:, position : position + 1]
            if bool(beam.finished.all()) or sampler.stopped():
                break
    order = beam.order(rows)
    if bool(beam.finished.all()):
        return beam.ids[order], beam.start[order]
    given = torch.cat([starts[beam.start[order], :1], beam.ids[order, : state.length]], dim=1)
    state, new = state.select_rows(order, state.capacity), new[order]
    grammar.select(order)
    done = torch.zeros_like(lengths[beam.start[order]])  # the starts are behind
    continued = _Continued(done, grammar, finished=beam.finished[order])
    return sampler.finish(given, new, state, continued), beam.start[order]


class _Continued:
    """What rows must not draw after their starts, whose lengths are given, (rows,)."""

    def __init__(
        self, lengths: Tensor, grammar: Grammar, barred: Tensor | None = None, finished: Tensor | None = None
    ) -> None:
        self._lengths, self._grammar, self._barred, self.finished = lengths, grammar, barred, finished
        """`barred`, (rows, V): the tokens that must not be the first; `finished`, (rows,): rows that have ended."""

    def bar(self, logits: Tensor, position: int) -> None:
        """Changes the logits (rows, V) of a position, in place."""
        if self._barred is not None:
            logits.masked_fill_((self._lengths == position + 1)[:, None] & self._barred, -math.inf)
        self._grammar.bar(logits)

    def add(self, ids: Tensor, position: int) -> None:
        """Notes the ids (rows,) of a position."""
        self._grammar.add(torch.where(self._lengths > position + 1, PAD, ids))

    def select(self, rows: Tensor) -> None:
        """Keeps some rows only, by index."""
        self._lengths = self._lengths[rows]
        self._grammar.select(rows)
        self._barred = None if self._barred is None else self._barred[rows]


def _empty_state(model: Decoder, rows: int, positions: int, precision: Precision) -> DecodingState:
    """A state for so many positions, or a few more."""
    device = model.embedding.weight.device
    # a CPU multiplies many small matrices faster in float32
    half = device.type != "cpu" and uses_bf16(precision, device)
    capacity = -(-positions // _CAPACITY_STEP) * _CAPACITY_STEP
    return model.empty_state(rows, capacity, torch.bfloat16 if half else None)
