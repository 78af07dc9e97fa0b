"""The decoder as an architecture that Hugging Face's transformers has: settings and weights, both ways.

Two of its architectures compute what ours computes: `starcoder2` is a pre-norm decoder with rotary positions, `opt` one
with learned positions. Both have biases in every layer norm; where ours has none, they are zero.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from molgen.config import ModelConfig
from molgen.errors import MolgenError
from molgen.tokenizer import BOS, EOS, PAD

Architecture = Literal["starcoder2", "opt"]
_EPSILON, _ROTARY_BASE = 1e-5, 10_000.0  # of torch's layer norm, of our rotary positions
_UNUSED_POSITIONS = 2  # rows that OPT's position table has before the first position


class _Layer(NamedTuple):
    """A layer of ours and the layers of theirs that its rows are split into."""

    ours: str
    theirs: tuple[str, ...]
    rows: tuple[int, ...] = ()
    """Of each of theirs, if there are several."""
    is_norm: bool = False


def stock_architecture(config: ModelConfig) -> Architecture:
    """The architecture that computes the same. Raises MolgenError with the reason if there is none."""
    reason, hint = "", ""
    if config.attention != "full":
        reason, hint = f"{config.attention} attention is not exported", "model.attention=full"
    elif config.feedforward_kind != "dense":
        reason, hint = "none has experts that drop no token", "model.feedforward_kind=dense"
    elif config.biases and not config.tied_head:
        reason, hint = "its output head has a bias, and theirs have none", "model.tied_head=true, or model.biases=false"
    elif config.positions == "sinusoidal":
        reason, hint = "none has sinusoidal positions", "model.positions=rotary"
    elif config.positions == "rotary":
        if config.norm == "after":
            reason, hint = "none has rotary positions with post-norm", "model.norm=before"
        elif not config.final_norm:
            reason, hint = "none has rotary positions without a final norm", "model.final_norm=true"
    elif config.norm == "after" and config.final_norm:
        reason, hint = "none has post-norm with a final norm", "model.final_norm=false"
    elif config.heads * config.head_width != config.width:
        reason = f"with learned positions heads x head_width ({config.heads} x {config.head_width}) must be the width"
        hint = f"model.head_width={config.width // config.heads}, or model.positions=rotary"
    elif config.kv_heads not in (None, config.heads):
        reason, hint = "none has learned positions with grouped-query attention", "model.positions=rotary"
    if reason:
        raise MolgenError(
            f"no architecture of transformers computes this model: {reason}", f"train with --set {hint} to export it"
        )
    return "starcoder2" if config.positions == "rotary" else "opt"


def stock_settings(config: ModelConfig, vocabulary: int) -> dict[str, Any]:
    """The content of a `config.json` for transformers. Raises MolgenError for a model without a stock architecture."""
    shared = {
        "vocab_size": vocabulary,
        "hidden_size": config.width,
        "num_hidden_layers": config.blocks,
        "num_attention_heads": config.heads,
        "max_position_embeddings": config.context + 1,
        "tie_word_embeddings": config.tied_head,
        "attention_dropout": 0.0,
        "bos_token_id": BOS,
        "eos_token_id": EOS,
        "pad_token_id": PAD,
        "dtype": "float32",
    }
    if stock_architecture(config) == "starcoder2":
        return {
            "architectures": ["Starcoder2ForCausalLM"],
            "model_type": "starcoder2",
            **shared,
            "intermediate_size": config.feedforward,
            "num_key_value_heads": config.kv_heads or config.heads,
            "head_dim": config.head_width,
            "hidden_act": "gelu",
            "norm_epsilon": _EPSILON,
            "use_bias": config.biases,
            "rope_theta": _ROTARY_BASE,  # read by transformers 4; the next by 5
            "rope_parameters": {"rope_type": "default", "rope_theta": _ROTARY_BASE},
            "sliding_window": None,
            "residual_dropout": 0.0,
            "embedding_dropout": 0.0,
        }
    return {
        "architectures": ["OPTForCausalLM"],
        "model_type": "opt",
        **shared,
        "ffn_dim": config.feedforward,
        "word_embed_proj_dim": config.width,
        "activation_function": "gelu",
        "do_layer_norm_before": config.norm == "before",
        "_remove_final_layer_norm": not config.final_norm,
        "enable_bias": config.biases,
        "layer_norm_elementwise_affine": True,
        "dropout": 0.0,
        "layerdrop": 0.0,
    }


def to_stock(weights: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """Our parameters by name → theirs, without a copy where one tensor is one of theirs."""
    found: dict[str, Tensor] = {}
    for layer in _layers(config):
        weight, bias = weights[f"{layer.ours}.weight"], weights.get(f"{layer.ours}.bias")
        if bias is None and layer.is_norm:
            bias = torch.zeros_like(weight)
        for kind, tensor in (("weight", weight), ("bias", bias)):
            if tensor is not None:
                parts = torch.split(tensor, list(layer.rows)) if layer.rows else (tensor,)
                found |= {f"{name}.{kind}": part.contiguous() for name, part in zip(layer.theirs, parts, strict=True)}
    if config.positions == "learned":
        table = weights["positions.table.weight"]
        unused = table.new_zeros(_UNUSED_POSITIONS, table.shape[1])
        found["model.decoder.embed_positions.weight"] = torch.cat((unused, table))
    return found


def from_stock(tensors: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """Their parameters by name → ours. Raises ValueError for a missing or unknown one, and for what ours cannot hold.

    A model that was trained on elsewhere may have learnt biases of layer norms, for which ours may have no place.
    """
    left = dict(tensors)
    if config.tied_head:
        left.pop("lm_head.weight", None)  # some versions write the embedding twice
    found: dict[str, Tensor] = {}
    try:
        for layer in _layers(config):
            for kind in ("weight", "bias"):
                if kind == "bias" and not (layer.is_norm or f"{layer.theirs[0]}.bias" in left):
                    continue
                parts = [left.pop(f"{name}.{kind}") for name in layer.theirs]
                if kind == "bias" and layer.is_norm and not config.biases:
                    if parts[0].any():
                        raise ValueError(f"{layer.theirs[0]}.bias is not zero, and a model without biases has none")
                    continue
                found[f"{layer.ours}.{kind}"] = torch.cat(parts) if len(parts) > 1 else parts[0]
        if config.positions == "learned":
            found["positions.table.weight"] = left.pop("model.decoder.embed_positions.weight")[_UNUSED_POSITIONS:]
    except KeyError as missing:
        raise ValueError(f"tensor {missing} is missing") from None
    if left:
        raise ValueError(f"tensor {min(left)!r} is unknown")
    return found


def _layers(config: ModelConfig) -> Iterator[_Layer]:
    """Every layer, in both namings; raises MolgenError for a model without a stock architecture."""
    rotary = stock_architecture(config) == "starcoder2"
    root = "model" if rotary else "model.decoder"
    output, hidden, end = ("o_proj", "mlp.c_fc", "mlp.c_proj") if rotary else ("out_proj", "fc1", "fc2")
    before, between, last = (
        ("input_layernorm", "post_attention_layernorm", "norm")
        if rotary
        else ("self_attn_layer_norm", "final_layer_norm", "final_layer_norm")
    )
    keys = (config.kv_heads or config.heads) * config.head_width
    yield _Layer("embedding", (f"{root}.embed_tokens",))
    for i in range(config.blocks):
        ours, theirs = f"blocks.{i}", f"{root}.layers.{i}"
        yield _Layer(
            f"{ours}.attention.inputs",
            tuple(f"{theirs}.self_attn.{name}_proj" for name in "qkv"),
            (config.heads * config.head_width, keys, keys),
        )
        yield _Layer(f"{ours}.attention.output", (f"{theirs}.self_attn.{output}",))
        yield _Layer(f"{ours}.attention_norm", (f"{theirs}.{before}",), is_norm=True)
        yield _Layer(f"{ours}.feedforward.inputs", (f"{theirs}.{hidden}",))
        yield _Layer(f"{ours}.feedforward.output", (f"{theirs}.{end}",))
        yield _Layer(f"{ours}.feedforward_norm", (f"{theirs}.{between}",), is_norm=True)
    if config.final_norm:
        yield _Layer("norm", (f"{root}.{last}",), is_norm=True)
    if not config.tied_head:
        yield _Layer("head", ("lm_head",))
