"""NLL, perplexity and top-1 against values worked out by hand."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from molgen.data.batches import Corpus, bucketed_batches, random_batches
from molgen.model.likelihood import Likelihood, likelihood, paired_difference, token_nll
from molgen.tokenizer import BOS, EOS, PAD

CPU = torch.device("cpu")


class FixedModel(nn.Module):
    """Gives every position the same probabilities for ids 0 to 4: 0, 0, 1/2, 1/3, 1/6."""

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return torch.tensor([1e-30, 1e-30, 1 / 2, 1 / 3, 1 / 6]).log().expand(*ids.shape, 5)


def test_nll_is_the_sum_over_tokens_and_end_and_never_over_padding() -> None:
    corpus = Corpus.of([[3], [3, 4, 4]], 5)
    result = likelihood(FixedModel(), corpus, CPU)
    # molecule 1: ln 3 + ln 2; molecule 2: ln 3 + 2 ln 6 + ln 2
    np.testing.assert_allclose(result.nll, [math.log(6), math.log(216)], rtol=1e-6)
    assert result.positions.tolist() == [2, 4]
    assert result.mean_nll == pytest.approx((math.log(6) + math.log(216)) / 2)
    assert result.nll_per_token == pytest.approx((math.log(6) + math.log(216)) / 6)
    assert result.perplexity == pytest.approx(6 ** (4 / 6))


def test_top1_counts_the_positions_whose_most_probable_token_is_right() -> None:
    result = likelihood(FixedModel(), Corpus.of([[3], [3, 4, 4]], 5), CPU)  # always predicts the end
    assert result.correct.tolist() == [1, 1]
    assert result.top1 == pytest.approx(2 / 6)


def test_padded_top1_counts_the_positions_after_the_end_as_right() -> None:
    result = Likelihood(np.array([1.0, 1.0]), np.array([10, 101]), np.array([4, 100]))
    assert result.top1_padded == pytest.approx(((4 + 90) / 100 + 100 / 101) / 2)


def test_the_standard_error_is_that_of_a_mean() -> None:
    result = Likelihood(np.array([1.0, 2.0, 3.0, 6.0]), np.ones(4, int), np.ones(4, int))
    assert result.stderr == pytest.approx(math.sqrt(14 / 3) / 2)  # variance ((2² + 1² + 0 + 3²) / 3), over √4


def test_a_paired_difference_cancels_what_the_molecules_share() -> None:
    a, b = np.array([11.0, 22.0, 33.0]), np.array([10.0, 20.0, 30.0])
    assert paired_difference(a, b) == pytest.approx((2.0, 1 / math.sqrt(3)))


def test_likelihood_does_not_depend_on_the_company_in_a_batch() -> None:
    from molgen.config import ModelConfig
    from molgen.model.build import build_model

    model = build_model(ModelConfig(width=16, blocks=1, heads=1, head_width=8, feedforward=16), 10)
    rng = np.random.default_rng(0)
    molecules = [rng.integers(3, 10, n).tolist() for n in (1, 5, 30, 2, 90, 17)]
    together = likelihood(model, Corpus.of(molecules, 10), CPU).nll
    alone = [likelihood(model, Corpus.of([m], 10), CPU, batch_tokens=1).nll[0] for m in molecules]
    np.testing.assert_allclose(together, alone, rtol=1e-4)


def test_token_nll_is_zero_at_padding() -> None:
    nll = token_nll(torch.zeros(1, 3, 4), torch.tensor([[3, EOS, PAD]]))
    torch.testing.assert_close(nll, torch.tensor([[math.log(4), math.log(4), 0.0]]))


def test_a_batch_starts_with_bos_and_its_targets_end_with_eos() -> None:
    batch = Corpus.of([[5, 6], [7]], 10).batch(np.array([0, 1]), CPU)
    assert batch.inputs.tolist() == [[BOS, 5, 6], [BOS, 7, EOS]]
    assert batch.targets.tolist() == [[5, 6, EOS], [7, EOS, PAD]]


def test_a_corpus_keeps_small_ids_in_one_byte_and_large_ones_whole() -> None:
    assert Corpus.of([[255]], 256).ids.dtype == np.uint8
    assert Corpus.of([[300]], 301).batch(np.array([0]), CPU).targets[0, 0] == 300


@pytest.mark.parametrize("cut", [random_batches, bucketed_batches])
def test_an_epoch_shows_every_molecule_once_in_an_order_of_its_own(cut) -> None:
    positions = np.random.default_rng(0).integers(10, 100, 1_000)
    first, second = (cut(positions, 64, np.random.default_rng(seed)) for seed in (1, 2))
    rows = np.concatenate([rows for parts in first for rows in parts])
    assert sorted(rows.tolist()) == list(range(1_000))
    assert rows.tolist() != np.concatenate([rows for parts in second for rows in parts]).tolist()


def test_buckets_waste_less_than_a_tenth_and_weigh_steps_alike() -> None:
    positions = np.random.default_rng(0).gamma(4, 8, 6_000).astype(int) + 10
    steps = bucketed_batches(positions, 64, np.random.default_rng(1))
    padded = sum(len(rows) * positions[rows].max() for parts in steps for rows in parts)
    assert padded / positions.sum() < 1.1
    tokens = np.array([sum(positions[rows].sum() for rows in parts) for parts in steps])
    assert np.quantile(abs(tokens / np.median(tokens) - 1), 0.95) < 0.05


def test_random_batches_hold_the_number_of_molecules_asked_for() -> None:
    steps = random_batches(np.arange(1, 131), 64, np.random.default_rng(0))
    assert [sum(len(rows) for rows in parts) for parts in steps] == [64, 64, 2]
