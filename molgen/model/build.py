"""Configuration → decoder: the only place where the two meet."""

import math
from collections.abc import Callable, Sequence
from typing import Any, assert_never

import torch
from torch import Generator, nn
from torch.overrides import TorchFunctionMode

from molgen.config import ModelConfig
from molgen.model.attention import CausalSelfAttention
from molgen.model.conditions import ConditionEmbedding
from molgen.model.decoder import Attention, Decoder, PostNormBlock, PreNormBlock, TiedHead
from molgen.model.dropout import Dropout
from molgen.model.experts import SwitchFeedForward
from molgen.model.feedforward import FeedForward
from molgen.model.heads import PredictionHead
from molgen.model.linear import LinearAttention
from molgen.model.linformer import LinformerAttention
from molgen.model.performer import PerformerAttention
from molgen.model.positions import LearnedPositions, RotaryPositions, SinusoidalPositions, Unchanged
from molgen.model.reformer import ReformerAttention
from molgen.model.window import WindowAttention


def build_model(config: ModelConfig, vocabulary: int, seed: int = 0, outputs: int = 0, conditions: int = 0) -> Decoder:
    """A decoder with fresh weights for `vocabulary` token ids; the same seed gives the same weights.

    With `outputs` it has a head that predicts so many numbers, with `conditions` a vector for so many values; its other
    weights are the same as without.

    It has context + 1 positions, because `<bos>` precedes the molecule's tokens.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _assemble(config, vocabulary, outputs, conditions)
    if config.initialization == "scaled":
        _initialize(model, Generator().manual_seed(seed))
    return model


def count_parameters(config: ModelConfig, vocabulary: int, outputs: int = 0, conditions: int = 0) -> int:
    """The number of parameters of such a decoder; shared ones count once. Allocates none, draws no random numbers."""
    with torch.device("meta"), _WithoutInitializers():
        return _assemble(config, vocabulary, outputs, conditions).num_parameters


class _WithoutInitializers(TorchFunctionMode):
    """Skips PyTorch's initialisers: for meta tensors `nn.init.normal_` imports 800 modules, which takes a second."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        if func is nn.init.normal_:
            return kwargs["tensor"]
        return func(*args, **(kwargs or {}))


def _assemble(config: ModelConfig, vocabulary: int, outputs: int, conditions: int) -> Decoder:
    positions, rotation = _positions(config)
    embedding = nn.Embedding(vocabulary, config.width)
    blocks = [_block(config, rotation) for _ in range(config.blocks)]
    return Decoder(
        embedding,
        positions,
        Dropout(config.embedding_dropout),
        blocks,
        nn.LayerNorm(config.width, bias=config.biases) if config.final_norm else nn.Identity(),
        TiedHead(embedding) if config.tied_head else nn.Linear(config.width, vocabulary, bias=config.biases),
        config.context,
        PredictionHead(config.width, outputs, config.dropout) if outputs else None,
        ConditionEmbedding(conditions, config.width) if conditions else None,
    )


def _positions(config: ModelConfig) -> tuple[nn.Module, nn.Module]:
    """(module for the embeddings, module for queries and keys)."""
    match config.positions:
        case "learned":
            return LearnedPositions(config.context + 1, config.width), Unchanged()
        case "sinusoidal":
            return SinusoidalPositions(config.context + 1, config.width), Unchanged()
        case "rotary":
            return Unchanged(), RotaryPositions(config.context + 1, config.head_width)
        case _:
            assert_never(config.positions)


def _block(config: ModelConfig, rotation: nn.Module) -> PreNormBlock | PostNormBlock:
    attention = _attention(config, rotation)
    feedforward = _feedforward(config)
    match config.norm:
        case "before":
            return PreNormBlock(config.width, attention, feedforward, config.biases, config.dropout)
        case "after":
            return PostNormBlock(config.width, attention, feedforward, config.biases, config.dropout)
        case _:
            assert_never(config.norm)


def _feedforward(config: ModelConfig) -> FeedForward | SwitchFeedForward:
    match config.feedforward_kind:
        case "dense":
            return FeedForward(config.width, config.feedforward, config.biases)
        case "switch":
            return SwitchFeedForward(config.width, config.feedforward, config.biases, config.experts)
        case _:
            assert_never(config.feedforward_kind)


def _attention(config: ModelConfig, rotation: nn.Module) -> Attention:
    width, heads, head_width, biases = config.width, config.heads, config.head_width, config.biases
    kv_heads = config.kv_heads or heads
    match config.attention:
        case "full":
            return CausalSelfAttention(width, heads, kv_heads, head_width, biases, rotation)
        case "window":
            return WindowAttention(width, heads, kv_heads, head_width, biases, rotation, config.window)
        case "performer":
            return PerformerAttention(width, heads, kv_heads, head_width, biases, rotation, config.features)
        case "linear":
            return LinearAttention(width, heads, kv_heads, head_width, biases, rotation)
        case "linformer":
            return LinformerAttention(
                width, heads, kv_heads, head_width, biases, rotation, config.window, config.summaries
            )
        case "reformer":
            return ReformerAttention(
                width, heads, head_width, biases, rotation, config.window, config.buckets, config.hash_rounds
            )
        case _:
            assert_never(config.attention)


@torch.no_grad()
def _initialize(model: Decoder, generator: Generator) -> None:
    """GPT-2's scheme: normals of 0.02, biases 0, what writes to the residual stream smaller by sqrt(2 x blocks)."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            module.weight.normal_(0.0, 0.02, generator=generator)
            if name.endswith(".output"):  # of an attention or a feed-forward part
                module.weight.div_(math.sqrt(2 * len(model.blocks)))
            if isinstance(module, nn.Linear) and module.bias is not None:
                module.bias.zero_()
