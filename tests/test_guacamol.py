"""GuacaMol's distribution-learning benchmarks, counted by hand and against the formulas written out with SciPy."""

import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import Descriptors
from scipy.stats import entropy, gaussian_kde

from molgen.chem.pool import Workers
from molgen.metrics import guacamol
from molgen.metrics.guacamol import (
    baseline,
    continuous_divergence,
    discrete_divergence,
    guacamol_figures,
    training_baseline,
)
from molgen.metrics.known import build_index
from molgen.metrics.profile import describe
from molgen.metrics.references import ReferenceCache, ReferenceSet

PARTS = [*guacamol.PARTS, "activations"]


def test_uniqueness_and_novelty_ignore_stereo(references: ReferenceCache, pool: Workers) -> None:
    training = build_index(["CC(F)Cl", "CCO"], ("smiles_no_stereo",), False, pool, "")
    # valid: two mirror images, one of them twice, and CCN: 4 valid, 2 distinct without stereo, of which CCN is novel;
    # 3 are distinct with stereo, and novelty divides by these
    table = describe(["C[C@H](F)Cl", "C[C@@H](F)Cl", "C(", "C[C@H](F)Cl", "CCN"], PARTS, references.runtime, "samples")
    values = guacamol_figures(table, None, training).values
    assert values["guacamol/validity"] == 4 / 5
    assert values["guacamol/uniqueness"] == 2 / 4
    assert values["guacamol/novelty"] == 1 / 3
    assert (values["guacamol/n_valid"], values["guacamol/n_unique"]) == (4, 3)
    assert values["guacamol/KL_score"] is None


def test_at_most_ten_thousand_samples_count(references: ReferenceCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guacamol, "SIZE", 3)
    table = describe(["C", "C", "C", "CC", "CCC", "CCCC"], PARTS, references.runtime, "samples")
    values = guacamol_figures(table, None, None).values
    assert values["guacamol/uniqueness"] == 1 / 3  # of the first three valid ones
    assert values["guacamol/n_unique"] == 3  # C, CC and CCC


def test_divergences_are_those_of_the_formulas() -> None:
    rng = np.random.default_rng(0)
    p, q = rng.normal(size=200), rng.normal(0.5, 1.2, size=150)
    points = np.linspace(min(p.min(), q.min()), max(p.max(), q.max()), 1_000)
    expected = entropy(gaussian_kde(p)(points) + 1e-10, gaussian_kde(q)(points) + 1e-10)
    assert continuous_divergence(p, q) == pytest.approx(expected)
    # ten bins over 0..10 hold one reference value each (the last two), samples sit in the first and the last bin
    reference, samples = np.arange(11.0), np.array([0.0, 10.0, 10.0])
    histogram = np.array([1] * 9 + [2]) / 11
    sampled = np.array([1 / 3] + [0] * 8 + [2 / 3])
    assert discrete_divergence(reference, samples) == pytest.approx(entropy(histogram + 1e-10, sampled + 1e-10))


def test_what_has_no_density_or_no_overlap_diverges_infinitely_or_not_at_all() -> None:
    assert continuous_divergence(np.ones(3), np.ones(5)) == 0
    assert continuous_divergence(np.ones(3), np.arange(3.0)) == np.inf
    assert discrete_divergence(np.arange(3.0), np.array([7.0])) == np.inf


def test_training_molecules_score_nearly_one_against_themselves(
    references: ReferenceCache, moses_mini: list[str]
) -> None:
    training = ReferenceSet.of("training", moses_mini[:600])
    reference = training_baseline(training, references)
    table = describe(moses_mini[:600], PARTS, references.runtime, "samples")
    values = guacamol_figures(table, reference, references.index(training, ("canonical", "smiles_no_stereo"))).values
    assert values["guacamol/KL_score"] == pytest.approx(1, abs=1e-3)
    assert values["guacamol/FCD"] == pytest.approx(0, abs=1e-3)
    assert values["guacamol/FCD_score"] == pytest.approx(1, abs=1e-3)
    assert values["guacamol/novelty"] == 0 and values["guacamol/uniqueness"] == 1


def test_the_kl_score_is_the_mean_over_nine_descriptors_and_internal_similarity(
    references: ReferenceCache, moses_mini: list[str]
) -> None:
    ours, theirs = moses_mini[:150], moses_mini[150:400]
    figures = guacamol_figures(
        describe(ours, PARTS, references.runtime, "samples"),
        baseline(describe(theirs, PARTS, references.runtime, "training")),
        None,
    ).values
    scores = []
    for name in ("BertzCT", "MolLogP", "MolWt", "TPSA", "NumHAcceptors", "NumHDonors", "NumRotatableBonds"):
        a, b = (np.array([getattr(Descriptors, name)(Chem.MolFromSmiles(s)) for s in x], float) for x in (theirs, ours))
        function = continuous_divergence if name in ("BertzCT", "MolLogP", "MolWt", "TPSA") else discrete_divergence
        assert figures[f"guacamol/KL_{name}"] == pytest.approx(function(a, b), abs=1e-9)
        scores.append(np.exp(-function(a, b)))
    scores += [
        np.exp(-figures[f"guacamol/KL_{name}"])
        for name in ("NumAliphaticRings", "NumAromaticRings", "internal_similarity")
    ]
    assert figures["guacamol/KL_score"] == pytest.approx(np.mean(scores))
    assert figures["guacamol/FCD_score"] == pytest.approx(np.exp(-0.2 * figures["guacamol/FCD"]))
