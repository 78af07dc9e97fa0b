"""Another kind of attention is a module and its cache: decoder and sampler do not know what the cache holds."""

from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from molgen.config import ModelConfig
from molgen.generation.decode import SamplingParams, decode
from molgen.model.build import build_model
from molgen.model.decoder import Attention, Decoder, PostNormBlock, PreNormBlock
from molgen.model.dropout import Dropout
from molgen.model.feedforward import FeedForward
from molgen.model.positions import Unchanged
from molgen.tokenizer import BOS, EOS, PAD

VOCABULARY, CONTEXT = 12, 40


class RunningSum(NamedTuple):
    """Of one size, however long the sequences are."""

    sums: Tensor  # (B, D)

    def select_rows(self, rows: Tensor, capacity: int) -> "RunningSum":  # noqa: ARG002
        return RunningSum(self.sums[rows])


class RunningMean(nn.Module):
    """Each position sees the mean of all positions up to itself."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inputs, self.output = nn.Linear(width, width), nn.Linear(width, width)

    def new_cache(self, rows: int, capacity: int, dtype: torch.dtype) -> RunningSum:  # noqa: ARG002
        return RunningSum(torch.zeros(rows, self.inputs.out_features))

    def forward(self, x: Tensor, start: int = 0, cache: RunningSum | None = None) -> Tensor:
        sums = self.inputs(x).cumsum(dim=1)
        if cache is not None:
            sums = sums + cache.sums[:, None]
            cache.sums.copy_(sums[:, -1])
        return self.output(sums / torch.arange(start + 1, start + x.shape[1] + 1)[:, None])


def mean_decoder(kind: type[PreNormBlock | PostNormBlock]) -> Decoder:
    torch.manual_seed(0)
    attentions: list[Attention] = [RunningMean(16), RunningMean(16)]
    blocks = [kind(16, attention, FeedForward(16, 24, True), True, 0.0) for attention in attentions]
    embedding, head = nn.Embedding(VOCABULARY, 16), nn.Linear(16, VOCABULARY)
    return Decoder(embedding, Unchanged(), Dropout(0.0), blocks, nn.LayerNorm(16), head, CONTEXT).eval()


def usual_decoder() -> Decoder:
    numbers = {"width": 16, "blocks": 2, "heads": 4, "kv_heads": 2, "head_width": 8, "feedforward": 24}
    config = ModelConfig(context=CONTEXT, **numbers, tied_head=False, initialization="pytorch")
    return build_model(config, VOCABULARY).eval()


class AllIds(NamedTuple):
    """The state of a decoder that remembers the ids and nothing computed."""

    ids: Tensor  # (B, length)
    capacity: int

    @property
    def length(self) -> int:
        return self.ids.shape[1]

    def select_rows(self, rows: Tensor, capacity: int) -> "AllIds":
        return AllIds(self.ids[rows], capacity)


class Uncached:
    """A decoder whose every step is a parallel pass over all ids so far."""

    def __init__(self, model: Decoder) -> None:
        self.model, self.embedding, self.context = model, model.embedding, model.context

    def empty_state(self, rows: int, capacity: int, dtype: torch.dtype | None) -> AllIds:  # noqa: ARG002
        return AllIds(torch.empty(rows, 0, dtype=torch.long), capacity)

    def step(self, ids: Tensor, state: AllIds) -> tuple[Tensor, AllIds]:
        state = AllIds(torch.cat((state.ids, ids), dim=1), state.capacity)
        return self.model(state.ids)[:, -1], state


@pytest.mark.parametrize("kind", [PreNormBlock, PostNormBlock])
@torch.no_grad()
def test_a_cache_of_constant_size_steps_like_the_parallel_forward(kind: type) -> None:
    model = mean_decoder(kind)
    tokens = torch.randint(0, VOCABULARY, (5, 20), generator=torch.Generator().manual_seed(1))
    logits, state = model.step(tokens[:, :3], model.empty_state(5, 8))  # a prompt
    rows = torch.tensor([4, 0, 2])
    for position in range(3, 20):
        torch.testing.assert_close(logits, model(tokens[:, :position])[:, -1])
        if state.length == state.capacity:
            tokens, state = tokens[rows[: len(tokens)]], state.select_rows(rows[: len(tokens)], state.capacity + 8)
            rows = torch.tensor([1, 0])
        logits, state = model.step(tokens[:, position : position + 1], state)
    assert len(logits) == 2
    assert all(cache.sums.shape == (2, 16) for cache in state.caches)


@pytest.mark.parametrize("kind", ["running mean", "keys and values"])
def test_samples_with_a_cache_are_those_of_parallel_passes(kind: str) -> None:
    model = usual_decoder() if kind == "keys and values" else mean_decoder(PreNormBlock)
    cached, uncached = (
        decode(decoder, [3], 1_000, SamplingParams(), [PAD, BOS], torch.Generator().manual_seed(2))
        for decoder in (model, Uncached(model))
    )
    finished = [int((cached[:, :length] == EOS).any(dim=1).sum()) for length in (7, 15)]
    assert 100 < finished[0] < finished[1] - 100 < 890  # rows were left out twice
    assert torch.equal(cached, uncached)
