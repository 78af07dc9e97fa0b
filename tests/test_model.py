"""The decoder against its definition: weights, causality, gradients, and the cache against the parallel forward."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import product

import pytest
import torch
from torch import Tensor

from molgen.config import ModelConfig, load_config
from molgen.model.build import build_model, count_parameters
from molgen.model.decoder import Decoder
from molgen.model.dropout import Dropout, seed_dropout

COMBINATIONS = [
    {"positions": positions, "norm": norm, "tied_head": tied, "biases": biases, "final_norm": final}
    for positions, norm, tied, biases, final in product(
        ("learned", "sinusoidal", "rotary"), ("before", "after"), (True, False), (True, False), (True, False)
    )
]
ids = ["-".join(str(value) for value in c.values()) for c in COMBINATIONS]


def small(**changes: object) -> Decoder:
    numbers = {"context": 12, "width": 16, "blocks": 2, "heads": 3, "head_width": 8, "feedforward": 24, "dropout": 0.0}
    return build_model(ModelConfig(**{**numbers, "initialization": "pytorch", **changes}), 20)


def some_ids(rows: int = 3, length: int = 10) -> torch.Tensor:
    return torch.randint(0, 20, (rows, length), generator=torch.Generator().manual_seed(1))


def test_tomczaks_network_has_the_weights_of_the_source_text() -> None:
    config = load_config("tomczak").model
    assert config.context + 1 == 101
    assert build_model(config, 112).num_parameters == 1_018_032


@pytest.mark.parametrize("name", ["tox21", "moses-mini"])
def test_small_recipes_stay_under_their_limit_of_weights(name: str) -> None:
    assert build_model(load_config(name).model, 120).num_parameters <= 1_100_000


def test_the_moses_recipe_is_in_molgpts_size_class() -> None:
    assert 6e6 <= build_model(load_config("moses").model, 30).num_parameters <= 7e6


@pytest.mark.parametrize("kv_heads", [None, 1])
@pytest.mark.parametrize("combination", COMBINATIONS, ids=ids)
def test_decoding_step_by_step_equals_the_parallel_forward(combination: dict, kv_heads: int | None) -> None:
    model = small(**combination, kv_heads=kv_heads).eval()
    tokens = some_ids()
    with torch.no_grad():
        parallel = model(tokens)
        logits, state = model.step(tokens[:, :4], model.empty_state(3, 6))  # a prompt, then one at a time
        steps = [logits]
        for position in range(4, 10):
            if state.length == state.capacity:
                state = state.select_rows(torch.arange(3), 12)
            logits, state = model.step(tokens[:, position : position + 1], state)
            steps.append(logits)
    torch.testing.assert_close(torch.stack(steps, dim=1), parallel[:, 3:], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_a_state_without_capacity_takes_no_more_positions() -> None:
    model = small().eval()
    _, state = model.step(some_ids(length=6), model.empty_state(3, 6))
    with pytest.raises(ValueError, match="exceed the capacity 6"):
        model.step(some_ids(length=1), state)
    model.step(some_ids(length=1), state.select_rows(torch.arange(3), 7))


@pytest.mark.parametrize("kv_heads", [1, 3])
def test_fewer_heads_of_keys_and_values_attend_as_if_each_were_repeated(kv_heads: int) -> None:
    few, many = small(heads=6, kv_heads=kv_heads), small(heads=6)
    many.load_state_dict(few.state_dict() | {name: repeated(w, kv_heads) for name, w in attention_inputs(few).items()})
    torch.testing.assert_close(few(some_ids()), many(some_ids()))


def attention_inputs(model: Decoder) -> dict[str, torch.Tensor]:
    return {name: weight for name, weight in model.state_dict().items() if "attention.inputs" in name}


def repeated(weight: torch.Tensor, kv_heads: int) -> torch.Tensor:
    """Projections to 6 heads of queries and so many of keys and values, 8 wide each: each of the latter 6 / n times."""
    queries, keys, values = weight.split((48, 8 * kv_heads, 8 * kv_heads))
    heads = [
        part.view(kv_heads, 8, -1).repeat_interleave(6 // kv_heads, dim=0).flatten(0, 1) for part in (keys, values)
    ]
    return torch.cat((queries, *heads))


def test_heads_that_do_not_divide_evenly_are_refused() -> None:
    with pytest.raises(ValueError, match="kv_heads 2 does not divide heads 3"):
        ModelConfig(heads=3, kv_heads=2)


@pytest.mark.parametrize("combination", COMBINATIONS, ids=ids)
def test_weights_are_counted_without_building(combination: dict) -> None:
    config = ModelConfig(
        context=12, width=16, blocks=2, heads=3, kv_heads=1, head_width=8, feedforward=24, **combination
    )
    assert count_parameters(config, 20) == build_model(config, 20).num_parameters


@pytest.mark.parametrize("positions", ["learned", "sinusoidal", "rotary"])
def test_the_largest_configuration_is_counted_and_nothing_allocated(positions: str) -> None:
    numbers = {"context": 65_536, "width": 16_384, "blocks": 256, "heads": 256, "head_width": 1_024}
    config = ModelConfig(**numbers, feedforward=65_536, positions=positions)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    assert count_parameters(config, 100) > 4.9e12  # 20 TB
    assert torch.equal(torch.get_rng_state(), before)


def test_counting_weights_does_not_import_pytorchs_compiler() -> None:  # 800 modules, a second
    script = (
        "import sys; from molgen.config import ModelConfig; from molgen.model.build import count_parameters\n"
        "for positions in ('learned', 'sinusoidal', 'rotary'):\n"
        "    count_parameters(ModelConfig(positions=positions), 20)\n"
        "print(sorted({'sympy', 'torch._dynamo', 'torch.fx.experimental.symbolic_shapes'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("combination", COMBINATIONS, ids=ids)
def test_no_position_sees_what_comes_after_it(combination: dict) -> None:
    model = small(**combination).eval()
    tokens = some_ids()
    changed = tokens.clone()
    changed[:, 6:] = (changed[:, 6:] + 1) % 20
    with torch.no_grad():
        before, after = model(tokens), model(changed)
    torch.testing.assert_close(before[:, :6], after[:, :6])
    assert not torch.allclose(before[:, 6:], after[:, 6:])


@pytest.mark.parametrize("combination", COMBINATIONS, ids=ids)
def test_every_parameter_gets_a_gradient(combination: dict) -> None:
    model = small(**combination)
    model(some_ids(8, 13)).square().sum().backward()
    for name, parameter in model.named_parameters():
        if name == "positions.table.weight" or name == "embedding.weight":
            assert parameter.grad.abs().sum() > 0  # rows of ids that did not occur may stay at zero
        elif "inputs.bias" in name:
            assert (parameter.grad != 0).any()  # a bias of the keys alone moves nothing in a softmax
        else:
            assert (parameter.grad != 0).float().mean() > 0.9, name


@pytest.mark.parametrize("positions", ["learned", "sinusoidal", "rotary"])
def test_the_order_of_earlier_tokens_matters(positions: str) -> None:
    model = small(positions=positions, blocks=1).eval()
    with torch.no_grad():
        a, b = model(torch.tensor([[3, 4, 5]])), model(torch.tensor([[4, 3, 5]]))
    assert not torch.allclose(a[0, -1], b[0, -1])


def test_rotary_attention_depends_on_distances_only() -> None:
    model = small(positions="rotary").eval()
    rotation = model.blocks[0].attention.rotation
    q, k = torch.randn(2, 1, 1, 1, 8, generator=torch.Generator().manual_seed(0))
    near = (rotation(q, 3) * rotation(k, 1)).sum()
    far = (rotation(q, 9) * rotation(k, 7)).sum()
    torch.testing.assert_close(near, far)


def test_a_tied_head_shares_the_embedding_and_an_untied_one_does_not() -> None:
    tied, untied = small(tied_head=True), small(tied_head=False)
    assert untied.num_parameters - tied.num_parameters == 20 * 16


def test_the_same_seed_gives_the_same_weights_and_leaves_the_global_generator_alone() -> None:
    config = ModelConfig(width=16, blocks=1, heads=1, head_width=8, feedforward=16)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    a, b, c = (build_model(config, 20, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(a.embedding.weight, b.embedding.weight)
    assert not torch.equal(a.embedding.weight, c.embedding.weight)


def test_a_fresh_model_predicts_almost_uniformly() -> None:
    model = build_model(load_config("tox21").model, 100)
    logits = model(torch.randint(0, 100, (4, 30), generator=torch.Generator().manual_seed(0)))
    assert logits.float().log_softmax(-1).std() < 0.5


def test_dropout_acts_in_training_only() -> None:
    model = small(dropout=0.5, embedding_dropout=0.5)
    tokens = some_ids()
    assert not torch.equal(model(tokens), model(tokens))
    model.eval()
    assert torch.equal(model(tokens), model(tokens))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("share", [0.001, 0.1, 0.25, 0.9])
def test_dropout_zeroes_its_share_and_scales_the_rest_up(share: float, dtype: torch.dtype) -> None:
    seed_dropout(0, torch.device("cpu"))
    dropped = Dropout(share)(torch.ones(401, 499, dtype=dtype)).double()
    rounding = 0.004 if dtype is torch.bfloat16 else 1e-4  # of 8 bits; of a share in 1/65,536
    assert dropped.unique().tolist() == pytest.approx([0, 1 / (1 - share)], rel=rounding)
    five_errors = 5 * (share * (1 - share) / dropped.numel()) ** 0.5
    assert (dropped == 0).double().mean().item() == pytest.approx(share, abs=five_errors)


def test_dropout_zeroes_each_number_by_itself() -> None:
    seed_dropout(0, torch.device("cpu"))
    zeroed = (Dropout(0.25)(torch.ones(500, 4, 1000)) == 0).double()
    shares = [zeroed.mean((0, 2)), zeroed.mean((1, 2)), zeroed.mean((0, 1))]
    assert all((share - 0.25).abs().max().item() < 5 * (0.1875 * len(share) / 2e6) ** 0.5 for share in shares)
    for step in (1, 2, 3, 4, 1000):  # what neighbours have in common
        numbers = zeroed.flatten()
        both = (numbers[step:] * numbers[:-step]).mean().item()
        assert both == pytest.approx(0.0625, abs=5 * (0.0625 * 0.9375 / 2e6) ** 0.5)


@pytest.mark.parametrize(("share", "kept"), [(0.0, 1000), (1.0, 0), (1 - 1e-12, 0), (1e-12, 1000)])
def test_dropout_of_nearly_nothing_or_nearly_all_is_that(share: float, kept: int) -> None:
    dropped = Dropout(share)(torch.ones(1000))
    assert dropped.isfinite().all() and dropped.count_nonzero().item() == pytest.approx(kept, abs=1)


def test_dropout_of_a_thread_depends_on_its_seed_alone() -> None:
    def draw(seed: int) -> Tensor:
        seed_dropout(seed, torch.device("cpu"))
        return torch.stack([Dropout(0.5)(torch.ones(100, 100)) for _ in range(20)])

    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(draw, [1, 2, 3, 1]))
    assert all(torch.equal(drawn, draw(seed)) for seed, drawn in zip([1, 2, 3, 1], together, strict=True))
    assert not torch.equal(together[0], together[1])
