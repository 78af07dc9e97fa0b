"""The kinds of attention and of feed-forward parts: causal, the same step by step, equal to full where they must be."""

import math
from itertools import product

import pytest
import torch
from torch import Tensor

from molgen.config import ModelConfig
from molgen.generation.decode import SamplingParams, complete, decode
from molgen.model import attention as full_attention
from molgen.model.attention import causal_attention
from molgen.model.build import build_model, count_parameters
from molgen.model.decoder import Decoder
from molgen.model.dropout import seed_dropout
from molgen.model.experts import SwitchFeedForward, balance_loss, routing_recorded
from molgen.model.linear import Features, kernel_attention
from molgen.model.performer import PerformerAttention
from molgen.model.window import window_attention
from molgen.tokenizer import BOS, EOS, PAD

KINDS = ["full", "window", "performer", "linear", "linformer", "reformer"]
FEEDFORWARDS = ["dense", "switch"]
POSITIONS = ["learned", "sinusoidal", "rotary"]
SMALL = {"context": 40, "width": 16, "blocks": 2, "heads": 4, "head_width": 8, "feedforward": 24, "dropout": 0.0}
FEW = {"window": 6, "summaries": 2, "buckets": 4, "features": 12, "experts": 3}
COMBINATIONS = [
    (kind, positions, kv_heads)
    for kind, positions, kv_heads in product(KINDS, POSITIONS, (4, 2, 1))
    if kind != "reformer" or kv_heads == 4
]


def small(dtype: torch.dtype = torch.float64, **changes: object) -> Decoder:
    config = ModelConfig(**{**SMALL, **FEW, "initialization": "pytorch", **changes})
    return build_model(config, 20).to(dtype)


def some_ids(rows: int = 3, length: int = 33) -> Tensor:
    return torch.randint(3, 20, (rows, length), generator=torch.Generator().manual_seed(1))


def in_steps(model: Decoder, tokens: Tensor, prompt: int) -> Tensor:
    """Logits from the prompt's last position on, one position at a time."""
    logits, state = model.step(tokens[:, :prompt], model.empty_state(len(tokens), prompt + 1))
    steps = [logits]
    for position in range(prompt, tokens.shape[1]):
        if state.length == state.capacity:
            state = state.select_rows(torch.arange(len(tokens)), state.capacity + 4)
        logits, state = model.step(tokens[:, position : position + 1], state)
        steps.append(logits)
    return torch.stack(steps, dim=1)


@pytest.mark.parametrize(("kind", "positions", "kv_heads"), COMBINATIONS)
@torch.no_grad()
def test_step_by_step_is_the_parallel_pass_and_no_token_changes_a_logit_before_it(
    kind: str, positions: str, kv_heads: int
) -> None:
    model, tokens = small(attention=kind, positions=positions, kv_heads=kv_heads).eval(), some_ids()
    parallel = model(tokens)
    for prompt in (1, 4, 6, 17):
        torch.testing.assert_close(in_steps(model, tokens, prompt), parallel[:, prompt - 1 :], atol=1e-10, rtol=0)
    for place in (1, 5, 6, 20, 32):
        changed = tokens.clone()
        changed[:, place:] = (changed[:, place:] + 1) % 20
        torch.testing.assert_close(model(changed)[:, :place], parallel[:, :place], atol=1e-10, rtol=0)
        torch.testing.assert_close(model(tokens[:, :place]), parallel[:, :place], atol=1e-10, rtol=0)


@pytest.mark.parametrize(("kind", "feedforward"), [*((kind, "dense") for kind in KINDS), ("window", "switch")])
@torch.no_grad()
def test_in_float32_too(kind: str, feedforward: str) -> None:
    model, tokens = small(torch.float32, attention=kind, feedforward_kind=feedforward).eval(), some_ids()
    torch.testing.assert_close(in_steps(model, tokens, 5), model(tokens)[:, 4:], atol=1e-5, rtol=0)


@torch.no_grad()
def test_experts_step_by_step_are_the_parallel_pass_and_causal() -> None:
    model, tokens = small(feedforward_kind="switch").eval(), some_ids()
    parallel = model(tokens)
    torch.testing.assert_close(in_steps(model, tokens, 3), parallel[:, 2:], atol=1e-10, rtol=0)
    torch.testing.assert_close(model(tokens[:, :9]), parallel[:, :9], atol=1e-10, rtol=0)


@pytest.mark.parametrize("kind", ["window", "linformer"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@torch.no_grad()
def test_a_window_of_the_whole_length_is_full_attention(kind: str, dtype: torch.dtype) -> None:
    model, wide = small(dtype), small(dtype, attention=kind, window=33)
    wide.load_state_dict(model.state_dict(), strict=False)
    atol = 1e-10 if dtype is torch.float64 else 1e-5
    torch.testing.assert_close(wide(some_ids()), model(some_ids()), atol=atol, rtol=0)
    torch.testing.assert_close(in_steps(wide, some_ids(), 4), in_steps(model, some_ids(), 4), atol=atol, rtol=0)


@pytest.mark.parametrize("window", [1, 2, 5, 8, 15, 16, 40])
@pytest.mark.parametrize("kv_heads", [1, 4])
def test_a_window_is_full_attention_with_a_mask(window: int, kv_heads: int) -> None:
    q, k, v = heads(4, 16), heads(kv_heads, 16), heads(kv_heads, 16)
    k_all, v_all = (x.repeat_interleave(4 // kv_heads, dim=1) for x in (k, v))
    distance = torch.arange(16)[:, None] - torch.arange(16)
    scores = (q @ k_all.mT / math.sqrt(8)).masked_fill((distance < 0) | (distance >= window), -math.inf)
    torch.testing.assert_close(window_attention(q, k, v, window), scores.softmax(-1) @ v_all, atol=1e-10, rtol=0)


def heads(number: int, length: int) -> Tensor:
    return torch.randn(2, number, length, 8, generator=torch.Generator().manual_seed(number), dtype=torch.float64)


def test_full_attention_is_the_same_with_either_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v = heads(4, 20), heads(2, 20), heads(2, 20)
    plain = causal_attention(q, k, v)
    monkeypatch.setattr(full_attention, "MOST_PLAIN", 10)
    torch.testing.assert_close(causal_attention(q, k, v), plain, atol=1e-10, rtol=0)


@pytest.mark.parametrize("length", [1, 100, 128, 300])
def test_sums_of_products_are_those_of_the_definition(length: int) -> None:
    q, k, v = heads(4, length).exp(), heads(2, length).exp(), heads(2, length)
    k_all, v_all = (x.repeat_interleave(2, dim=1) for x in (k, v))
    weights = (q @ k_all.mT).tril()
    expected = weights @ v_all / weights.sum(-1, keepdim=True)
    torch.testing.assert_close(kernel_attention(Features(q, k), Features(q, k), v, None), expected, atol=1e-10, rtol=0)


@torch.no_grad()
def test_performer_approximates_full_attention_the_closer_the_more_features_it_has() -> None:
    x = torch.randn(4, 20, 16, generator=torch.Generator().manual_seed(0))
    full = small(torch.float32).blocks[0].attention
    errors = []
    for features in (8, 128, 8_192):
        performer = small(torch.float32, attention="performer", features=features).blocks[0].attention
        assert isinstance(performer, PerformerAttention)
        performer.load_state_dict(full.state_dict(), strict=False)
        errors.append((performer(x) - full(x)).square().mean().sqrt().item() / full(x).std().item())
    assert errors[0] > errors[1] > errors[2] and errors[2] < 0.05


def test_performers_random_features_are_orthogonal_with_the_lengths_of_gaussian_vectors() -> None:
    w = small(torch.float32, attention="performer", head_width=64, features=None).blocks[0].attention.projection
    assert w.shape == (272, 64) and not w.requires_grad
    products = w[:64] @ w[:64].T
    torch.testing.assert_close(products, products.diag().diag(), atol=1e-3, rtol=0)
    assert w.square().sum(1).mean().item() == pytest.approx(64, abs=5 * math.sqrt(2 * 64 / 272))


@torch.no_grad()
def test_reformer_attends_to_the_last_positions_of_its_bucket() -> None:
    attention = small(attention="reformer", positions="learned", hash_rounds=1, window=2).blocks[0].attention
    x = torch.randn(1, 12, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    qk, v = attention.inputs(x).view(12, 2, 4, 8).unbind(dim=1)  # (T, H, W)
    projected = torch.einsum("thw,wk->thk", qk, attention.directions[0])
    buckets = torch.cat((projected, -projected), dim=-1).argmax(-1)  # (T, H)
    expected = torch.zeros(12, 4, 8, dtype=torch.float64)
    for t, h in product(range(12), range(4)):
        seen = [j for j in range(t) if buckets[j, h] == buckets[t, h]][-2:] or [t]
        keys = torch.stack([qk[j, h] / qk[j, h].norm() for j in seen])
        weights = (keys @ qk[t, h] / math.sqrt(8)).softmax(0)
        expected[t, h] = weights @ v[seen, h]
    torch.testing.assert_close(attention(x)[0], attention.output(expected.flatten(1)), atol=1e-10, rtol=0)


@torch.no_grad()
def test_experts_are_the_most_probable_ones_weighted_by_their_probability() -> None:
    layer = SwitchFeedForward(6, 10, True, 3).double()
    x = torch.randn(2, 7, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for row, place in product(range(2), range(7)):
        p = layer.router(x[row, place]).softmax(-1)
        expected = p.max() * layer.experts[int(p.argmax())](x[row, place])
        torch.testing.assert_close(layer(x)[row, place], expected, atol=1e-10, rtol=0)


def test_the_balance_loss_counts_molecules_and_leaves_padding_out() -> None:
    layer = SwitchFeedForward(6, 10, True, 4).double()
    x = torch.randn(3, 9, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    real = torch.arange(9) < torch.tensor([[9], [4], [6]])
    expected = 0.0
    for row, length in enumerate((9, 4, 6)):
        p = layer.router(x[row, :length]).softmax(-1)
        shares = p.argmax(-1).bincount(minlength=4) / length
        expected += length * 4 * (shares * p.mean(0)).sum().item()
    with routing_recorded() as routings:
        layer(x)
    assert balance_loss(routings, real).item() == pytest.approx(expected)
    layer(x)  # recorded by no one
    assert len(routings) == 1


def test_a_token_uses_one_expert() -> None:
    dense, switch = small(), small(feedforward_kind="switch", experts=3)
    assert dense.num_active_parameters == dense.num_parameters
    assert switch.num_active_parameters == dense.num_parameters + 2 * 3 * 16  # two routers
    assert switch.num_parameters == switch.num_active_parameters + 2 * 2 * 2 * 16 * 24


@pytest.mark.parametrize(("kind", "feedforward"), list(product(KINDS, FEEDFORWARDS)))
def test_weights_are_counted_without_building_and_trained_ones_get_gradients(kind: str, feedforward: str) -> None:
    config = ModelConfig(**SMALL, **FEW, attention=kind, feedforward_kind=feedforward)
    model = build_model(config, 20)
    assert count_parameters(config, 20) == model.num_parameters
    model(some_ids(8)).square().sum().backward()
    for name, parameter in model.named_parameters():
        frozen = name.endswith((".projection", ".directions"))
        assert parameter.requires_grad != frozen
        assert frozen or parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("kind", KINDS)
def test_bf16_is_near_float32_and_gradients_are_finite(kind: str) -> None:
    model = small(torch.float32, attention=kind, positions="rotary")
    ids, exact = some_ids(), model(some_ids()).detach()
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(ids)
    # a position of Reformer whose hash is near a border may change its bucket, and so what is behind it
    near = (logits - exact).abs().amax(-1) < 0.05 * exact.std() + 0.05
    assert near.float().mean() > (0.5 if kind == "reformer" else 0.999)
    logits.square().sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize(("kind", "limit"), [("window", 6), ("performer", 0), ("linear", 0), ("reformer", 8 * 6)])
def test_a_state_does_not_grow_with_the_length(kind: str, limit: int) -> None:
    model = small(attention=kind, context=400)
    sizes = [[t.numel() for c in model.empty_state(1, n).caches for t in tensors(c)] for n in (40, 400)]
    assert sizes[0] == sizes[1]
    grown = model.empty_state(1, 8).select_rows(torch.tensor([0]), 400)
    assert [t.numel() for c in grown.caches for t in tensors(c)] == sizes[0]
    assert not limit or sum(sizes[0]) <= 2 * 2 * 4 * 8 * limit + 2 * 4 * 8


def tensors(cache: object) -> list[Tensor]:
    """The tensors of a cache, which may have a cache inside."""
    found = [part for part in cache if isinstance(part, Tensor)]  # type: ignore[attr-defined]
    inner = [tensors(part) for part in cache if isinstance(part, tuple)]  # type: ignore[attr-defined]
    return found + [tensor for part in inner for tensor in part]


@pytest.mark.parametrize("kind", KINDS)
def test_samples_and_completions_are_those_of_parallel_passes(kind: str) -> None:
    model = small(attention=kind).eval()
    greedy = SamplingParams(temperature=0.0)
    ids = decode(model, [5, 6, 7], 1, greedy, [PAD, BOS, EOS], torch.Generator())
    starts = torch.tensor([[BOS, 5, PAD], [BOS, 5, 6]])
    more = complete(model, starts, greedy, [PAD, BOS, EOS], torch.Generator())
    for row, given in ((ids[0], 3), (more[0], 1), (more[1], 2)):
        expected = [5, 6, 7][:given]
        while len(expected) < 41:
            logits = model(torch.tensor([[BOS, *expected]]))[0, -1]
            logits[[PAD, BOS, EOS]] = -math.inf
            expected.append(int(logits.argmax()))
        assert row.tolist() == expected


@pytest.mark.parametrize(("kind", "feedforward"), [("full", "dense"), ("window", "switch"), ("performer", "dense")])
def test_gradient_checkpointing_changes_no_gradient(kind: str, feedforward: str) -> None:
    gradients = []
    for recompute in (False, True):
        model = small(torch.float32, attention=kind, feedforward_kind=feedforward, dropout=0.3).train()
        model.gradient_checkpointing = recompute
        seed_dropout(3, torch.device("cpu"))
        with torch.autocast("cpu", torch.bfloat16), routing_recorded() as routings:
            loss = model(some_ids()).square().sum()
        if routings:
            loss = loss + balance_loss(routings, torch.ones(3, 33))
        parameters = [p for p in model.parameters() if p.requires_grad]
        gradients.append(torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True))
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_combinations_without_meaning_are_refused_with_a_reason() -> None:
    with pytest.raises(ValueError, match="reformer's queries are its keys"):
        ModelConfig(attention="reformer", heads=4, kv_heads=2)
    with pytest.raises(ValueError, match="buckets must be even"):
        ModelConfig(attention="reformer", buckets=5)
    with pytest.raises(ValueError, match="summaries 9: more than the 8 positions"):
        ModelConfig(attention="linformer", window=8, summaries=9)
