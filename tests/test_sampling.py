"""Logit filters by hand; draws against the model's own probabilities."""

import math
from itertools import count

import pytest
import torch

from molgen.config import ModelConfig
from molgen.errors import MolgenError
from molgen.generation.decode import SamplingParams, decode, draw, keep_top_k, keep_top_p
from molgen.generation.generator import MoleculeGenerator, even_batches
from molgen.generation.options import SampleOptions
from molgen.generation.rejection import RejectionRules
from molgen.model.build import build_model
from molgen.model.decoder import Decoder
from molgen.runs import Run
from molgen.runtime.device import Precision
from molgen.tokenizer import BOS, EOS, PAD

LOGITS = torch.tensor([[0.5, 0.25, 0.15, 0.1]]).log()


def kept(logits: torch.Tensor) -> list[int]:
    return logits[0].isfinite().nonzero().squeeze(1).tolist()


def random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_top_k_keeps_the_k_most_probable() -> None:
    assert kept(keep_top_k(LOGITS, 2)) == [0, 1]
    assert kept(keep_top_k(LOGITS, 4)) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("p", "expected"), [(0.4, [0]), (0.5, [0]), (0.51, [0, 1]), (0.76, [0, 1, 2]), (1.0, [0, 1, 2, 3])]
)
def test_top_p_keeps_the_smallest_set_that_holds_the_probability(p: float, expected: list[int]) -> None:
    assert kept(keep_top_p(LOGITS, p)) == expected


def test_draws_have_the_frequencies_of_the_softmax() -> None:
    # 40,000 draws: each share has a standard error below 0.0025, so five of them is 0.0125
    drawn = draw(LOGITS.expand(40_000, -1), SamplingParams(), random())
    shares = torch.bincount(drawn, minlength=4) / 40_000
    torch.testing.assert_close(shares, LOGITS[0].exp(), atol=0.0125, rtol=0)


def test_temperature_sharpens_and_zero_is_greedy() -> None:
    drawn = draw(LOGITS.expand(40_000, -1), SamplingParams(temperature=0.5), random())
    squares = torch.tensor([0.5, 0.25, 0.15, 0.1]) ** 2  # p^(1/T), normalised
    shares = torch.bincount(drawn, minlength=4) / 40_000
    torch.testing.assert_close(shares, squares / squares.sum(), atol=0.0125, rtol=0)
    assert draw(LOGITS.expand(50, -1), SamplingParams(temperature=0), random()).eq(0).all()


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(temperature=-1),
        SamplingParams(temperature=math.nan),
        SamplingParams(temperature=math.inf),
        SamplingParams(top_k=0),
        SamplingParams(top_k=5),
        SamplingParams(top_p=0),
        SamplingParams(top_p=1.1),
        SamplingParams(top_p=math.nan),
    ],
)
def test_filters_out_of_range_are_refused(params: SamplingParams) -> None:
    with pytest.raises(MolgenError, match="out of range"):
        params.checked(4)


def tiny(context: int = 3) -> torch.nn.Module:
    config = ModelConfig(
        context=context, width=8, blocks=1, heads=1, head_width=8, feedforward=8, initialization="pytorch"
    )
    return build_model(config, 5, seed=3).eval()


def exact(model: torch.nn.Module, prefix: tuple[int, ...] = ()) -> dict[tuple[int, ...], float]:
    """Probability of every string of the ids 3 and 4 that ends, by the uncached forward; of every one that does not."""
    logits = model(torch.tensor([[BOS, *prefix]]))[0, -1]
    logits[[PAD, BOS]] = -math.inf
    probabilities = logits.softmax(-1).tolist()
    found = {(*prefix, EOS): probabilities[EOS]}
    for token in (3, 4):
        if len(prefix) == model.context:
            found[*prefix, token] = probabilities[token]
        else:
            deeper = exact(model, (*prefix, token))
            found |= {string: probabilities[token] * p for string, p in deeper.items()}
    return found


@torch.no_grad()
def test_cached_sampling_draws_exactly_from_the_uncached_models_distribution() -> None:
    model = tiny()
    expected = exact(model)
    assert sum(expected.values()) == pytest.approx(1, abs=1e-5)
    n = 60_000
    rows = decode(model, [], n, SamplingParams(), [PAD, BOS], random()).tolist()
    counts: dict[tuple[int, ...], int] = {}
    for row in rows:
        string = tuple(row[: row.index(EOS) + 1] if EOS in row else row)
        counts[string] = counts.get(string, 0) + 1
    assert set(counts) <= set(expected)
    # Pearson's chi-squared over strings; 31 cells, so above 70 happens once in 20,000 times
    statistic = sum((counts.get(s, 0) - n * p) ** 2 / (n * p) for s, p in expected.items())
    assert statistic < 70


@torch.no_grad()
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_cached_samples_are_as_likely_as_those_of_the_uncached_model(small_run: Run, precision: Precision) -> None:
    generator, n = MoleculeGenerator.load(small_run.path, "cpu"), 300
    model, suppressed_ids = generator.model, generator.tokenizer.suppressed_ids
    cached = decode(model, [], n, SamplingParams(), suppressed_ids, random(), precision)
    uncached = torch.full((n, 1), BOS)
    for _ in range(model.context + 1):
        logits = model(uncached)[:, -1]
        logits[:, suppressed_ids] = -math.inf
        uncached = torch.cat((uncached, logits.softmax(-1).multinomial(1, generator=random(len(uncached[0])))), dim=1)
    nll, tokens = zip(*(nlls(model, ids) for ids in (cached, uncached[:, 1:])), strict=True)
    for figure in (nll, tokens):  # five standard errors of the difference of two means
        error = math.sqrt((figure[0].var() + figure[1].var()) / n)
        assert abs(figure[0].mean() - figure[1].mean()) < 5 * error
        assert error < figure[0].mean() / 10


def nlls(model: Decoder, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """−ln p of each row up to its end by the uncached model, and its length."""
    ended = (ids == EOS).cumsum(1) - (ids == EOS).long() > 0
    logits = model(torch.cat((torch.full_like(ids[:, :1], BOS), ids[:, :-1]), dim=1))
    nll = -logits.log_softmax(-1).gather(2, ids[:, :, None])[:, :, 0].masked_fill(ended, 0).sum(1)
    return nll.double(), (~ended).double().sum(1)


@torch.no_grad()
def test_rows_that_finish_early_do_not_disturb_the_others() -> None:
    model = tiny(context=40)
    ids = decode(model, [], 400, SamplingParams(), [PAD, BOS], random())
    lengths = [row.index(EOS) if EOS in row else 41 for row in ids.tolist()]
    assert min(lengths) < 3 < 12 < max(lengths)  # so rows were left out several times
    half = len(lengths) // 2
    assert abs(sum(lengths[:half]) - sum(lengths[half:])) / sum(lengths) < 0.2  # and order of start is kept


@torch.no_grad()
def test_greedy_decoding_follows_the_most_probable_tokens_of_the_uncached_model() -> None:
    model = tiny(context=40)
    row = decode(model, [3], 2, SamplingParams(temperature=0), [PAD, BOS], random())[0].tolist()
    prefix = [BOS, 3]
    for token in row[1:]:
        logits = model(torch.tensor([prefix]))[0, -1]
        logits[[PAD, BOS]] = -math.inf
        assert token == int(logits.argmax())
        if token == EOS:
            break
        prefix.append(token)


@pytest.fixture(scope="module")
def generator(small_run: Run) -> MoleculeGenerator:
    return MoleculeGenerator.load(small_run.path, "cpu")


def test_the_same_seed_gives_the_same_molecules_and_another_seed_others(generator: MoleculeGenerator) -> None:
    first, again, other = (list(generator.sample(50, seed=seed).smiles) for seed in (1, 1, 2))
    assert first == again != other


def test_seeds_that_differ_beyond_32_bits_differ(generator: MoleculeGenerator) -> None:
    assert list(generator.sample(50, seed=0).smiles) != list(generator.sample(50, seed=2**32).smiles)


def test_how_many_threads_draw_changes_nothing(generator: MoleculeGenerator) -> None:
    together = list(generator.strings([(0, 30), (1, 40), (2, 30)], SamplingParams(), seed=5))
    one_by_one = [next(generator.strings([batch], SamplingParams(), seed=5)) for batch in ((0, 30), (1, 40), (2, 30))]
    assert together == one_by_one
    assert [len(batch) for batch in together] == [30, 40, 30]
    assert len({str(batch[:30]) for batch in together}) == 3  # each number has random numbers of its own


def test_who_wants_no_more_strings_ends_the_drawing(generator: MoleculeGenerator) -> None:
    threads = torch.get_num_threads()
    endless = generator.strings(((number, 50) for number in count()), SamplingParams())
    assert len(next(endless)) == 50
    endless.close()
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize(
    ("n", "largest", "sizes"),
    [
        (10, 2048, [10]),
        (512, 2048, [512]),
        (513, 2048, [257, 256]),
        (100, 30, [25] * 4),
        (600, 200, [150] * 4),
        (9, 2, [2, 2, 2, 2, 1]),
    ],
)
def test_batches_are_even(n: int, largest: int, sizes: list[int]) -> None:
    assert even_batches(n, largest) == sizes


def test_every_sample_starts_with_the_prompt(generator: MoleculeGenerator) -> None:
    drawn = [s for s in generator.sample(50, prompt="CC(").smiles if s]
    assert drawn
    assert all(smiles.startswith("CC(") for smiles in drawn)


def test_a_prompt_with_an_unknown_token_names_it(generator: MoleculeGenerator) -> None:
    with pytest.raises(MolgenError, match=r"\[Xe\]"):
        generator.sample(1, prompt="CC[Xe]")
    with pytest.raises(MolgenError, match="losslessly"):
        generator.sample(1, prompt="CC€")
    with pytest.raises(MolgenError, match="context"):
        generator.sample(1, prompt="C" * 200)


@pytest.mark.parametrize("prompt", ["=CC", "1CC1", "(C)C", ")", "/C=C", "%10C", "CC)", "C(C))C", "C(C)(C))", "c1ccc)"])
def test_a_prompt_that_no_smiles_begins_with_is_refused(generator: MoleculeGenerator, prompt: str) -> None:
    with pytest.raises(MolgenError, match=r"begins with|not open|vocabulary lacks"):
        generator.sample(1, prompt=prompt)


@pytest.mark.parametrize("prompt", ["c1ccc2[nH]", "C((", "CC(C)C(", "C1CC(C1", "Cc1cc(C(=O"])
def test_branches_and_rings_of_a_prompt_may_be_unfinished(generator: MoleculeGenerator, prompt: str) -> None:
    assert all(smiles.startswith(prompt) or not smiles for smiles in generator.sample(3, prompt=prompt).smiles)


def test_whether_training_begins_like_a_prompt_goes_by_tokens(generator: MoleculeGenerator) -> None:
    known = sorted(generator.training_set())
    tokens = generator.tokenizer.splitter.split(known[0]) or []
    assert generator.starts_like_training("".join(tokens[:4])) is True
    assert generator.starts_like_training(known[0] + "CCCCCCCCC") is False
    halved = next(smiles for smiles in known if "Cl" in smiles)  # half a token is no prefix
    beginning = halved[: halved.index("Cl") + 1]
    others = [smiles for smiles in known if smiles.startswith(beginning) and not smiles.startswith(beginning + "l")]
    assert generator.starts_like_training(beginning) is bool(others)


def test_rejection_keeps_drawing_until_n_satisfy_it(generator: MoleculeGenerator) -> None:
    rules = RejectionRules(valid=True, unique=True, novel=True)
    stream = generator.stream(SampleOptions(40, SamplingParams(temperature=0.7), rules))
    tally = stream.stats
    canonical = [sample.canonical for batch in stream for sample in batch]
    assert len(set(canonical)) == len(canonical) == 40 == tally.kept
    assert None not in canonical
    assert not set(canonical) & generator.training_set()
    assert tally.draws > 40


def test_rejection_without_hope_stops_with_what_it_has(small_run: Run) -> None:
    generator = MoleculeGenerator.load(small_run.path, "cpu")
    # greedy draws are all the same molecule: of distinct ones there is one
    rules = RejectionRules(unique=True)
    stream = generator.stream(SampleOptions(5, SamplingParams(temperature=0), rules, batch_size=2_048))
    assert sum(len(batch) for batch in stream) == 1
    assert stream.stats.gave_up


def test_a_model_that_never_ends_is_capped_and_counted(small_run: Run) -> None:
    generator = MoleculeGenerator.load(small_run.path, "cpu")
    with torch.no_grad():
        generator.model.embedding.weight[EOS] = 0  # a tied head then gives the end a small constant logit
        generator.model.norm.weight.mul_(20)
    stream = generator.stream(SampleOptions(20))
    drawn, tally = [s for batch in stream for s in batch], stream.stats
    assert tally.unfinished > 10
    assert sum(s.smiles == "" for s in drawn) >= tally.unfinished


def test_log_likelihood_is_minus_the_nll_and_nan_for_what_the_run_cannot_score(generator: MoleculeGenerator) -> None:
    values = generator.log_likelihood(["CCO", "CC[Xe]", "C" * 200, ""])
    assert values[0] < 0
    assert math.isnan(values[1])
    assert math.isnan(values[2])
    uncached = 0.0
    prefix = [BOS]
    for token in [*(generator.tokenizer.encode("CCO") or []), EOS]:
        with torch.no_grad():
            uncached += float(generator.model(torch.tensor([prefix]))[0, -1].log_softmax(-1)[token])
        prefix.append(token)
    assert values[0] == pytest.approx(uncached, abs=1e-3)


@pytest.mark.parametrize(
    "arguments", [{"n": 0}, {"n": -1}, {"seed": -1}, {"seed": 2**64}, {"batch_size": 0}, {"top_k": 10**6}]
)
def test_numbers_out_of_range_are_refused(generator: MoleculeGenerator, arguments: dict) -> None:
    with pytest.raises(MolgenError, match="out of range"):
        generator.sample(**{"n": 1, **arguments})
