"""Configuration → decoder: the only place where the two meet."""

import math
from typing import assert_never

import torch
from torch import Generator, nn

from molgen.config import ModelConfig
from molgen.model.attention import CausalSelfAttention
from molgen.model.decoder import Decoder, PostNormBlock, PreNormBlock, TiedHead
from molgen.model.dropout import Dropout
from molgen.model.feedforward import FeedForward
from molgen.model.positions import LearnedPositions, RotaryPositions, SinusoidalPositions, Unchanged


def build_model(config: ModelConfig, vocabulary: int, seed: int = 0) -> Decoder:
    """A decoder with fresh weights for `vocabulary` token ids; the same seed gives the same weights.

    Positions: context + 1, for `<bos>` stands before the molecule's tokens.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _assemble(config, vocabulary)
    if config.initialization == "scaled":
        _initialize(model, Generator().manual_seed(seed))
    return model


def count_weights(config: ModelConfig, vocabulary: int) -> int:
    """The weights that such a decoder has, without building it."""
    width, attention = config.width, config.heads * config.head_width
    kv_width = (config.kv_heads or config.heads) * config.head_width
    matrices = width * (attention + 2 * kv_width) + attention * width + 2 * width * config.feedforward
    biases = (attention + 2 * kv_width) + width + config.feedforward + width
    norm = 2 * width if config.biases else width
    head = 0 if config.tied_head else width * vocabulary + config.biases * vocabulary
    positions = (config.context + 1) * width if config.positions == "learned" else 0
    block = matrices + config.biases * biases + 2 * norm
    return vocabulary * width + positions + config.blocks * block + config.final_norm * norm + head


def _assemble(config: ModelConfig, vocabulary: int) -> Decoder:
    positions: nn.Module
    rotation: nn.Module
    match config.positions:
        case "learned":
            positions, rotation = LearnedPositions(config.context + 1, config.width), Unchanged()
        case "sinusoidal":
            positions, rotation = SinusoidalPositions(config.context + 1, config.width), Unchanged()
        case "rotary":
            positions, rotation = Unchanged(), RotaryPositions(config.context + 1, config.head_width)
        case _:
            assert_never(config.positions)
    match config.norm:
        case "before":
            block: type[PreNormBlock | PostNormBlock] = PreNormBlock
        case "after":
            block = PostNormBlock
        case _:
            assert_never(config.norm)
    embedding = nn.Embedding(vocabulary, config.width)
    blocks = [
        block(
            config.width,
            CausalSelfAttention(
                config.width, config.heads, config.kv_heads or config.heads, config.head_width, config.biases, rotation
            ),
            FeedForward(config.width, config.feedforward, config.biases),
            config.biases,
            config.dropout,
        )
        for _ in range(config.blocks)
    ]
    return Decoder(
        embedding,
        positions,
        Dropout(config.embedding_dropout),
        blocks,
        nn.LayerNorm(config.width, bias=config.biases) if config.final_norm else nn.Identity(),
        TiedHead(embedding) if config.tied_head else nn.Linear(config.width, vocabulary, bias=config.biases),
        config.context,
    )


@torch.no_grad()
def _initialize(model: Decoder, generator: Generator) -> None:
    """GPT-2's scheme: normals of 0.02, biases 0, what writes to the residual stream smaller by sqrt(2 x blocks)."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            module.weight.normal_(0.0, 0.02, generator=generator)
            if isinstance(module, nn.Linear) and module.bias is not None:
                module.bias.zero_()
    for module in model.modules():
        if isinstance(module, CausalSelfAttention | FeedForward):
            module.output.weight.div_(math.sqrt(2 * len(model.blocks)))
