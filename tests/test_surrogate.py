"""The surrogate: a Gaussian process as its formula has it, better than the mean on real molecules."""

import numpy as np
import pytest
from rdkit import Chem, DataStructs
from rdkit.Chem import rdFingerprintGenerator

from molgen.chem.descriptors import describe
from molgen.chem.oracles import measure
from molgen.optimize.surrogate import Features, Surrogate


def features(smiles: list[str]) -> Features:
    parts = [describe(one, ["surrogate"])["surrogate"] for one in smiles]
    return Features.of([(bits, tuple(values)) for bits, values in parts])


def test_fingerprints_are_those_of_rdkit_and_descriptors_count_atoms() -> None:
    smiles = ["OCC(F)Cl", "c1ccncc1"]
    found = features(smiles)
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=3, fpSize=4096, countSimulation=True)
    for i, one in enumerate(smiles):
        bits = np.zeros(4096)
        DataStructs.ConvertToNumpyArray(generator.GetFingerprint(Chem.MolFromSmiles(one)), bits)
        assert np.array_equal(found.bits[i], bits)
    assert found.descriptors[0, :8].tolist() == [2, 0, 1, 1, 0, 0, 1, 0]  # C N O F P S Cl Br
    assert found.descriptors[1, 14:].tolist() == [1, 1]  # rings, aromatic rings


def test_predictions_are_those_of_the_formula(moses_mini: list[str]) -> None:
    known, new = moses_mini[:40], moses_mini[40:60]
    scores = np.linspace(0, 1, 40) ** 2
    surrogate = Surrogate(features(known), scores)
    mean, deviation = surrogate.predict(features(new))
    # the same with inverses of dense matrices, for the share and noise that were chosen
    everything = features([*known, *new])
    shared = everything.bits @ everything.bits.T
    ones = everything.bits.sum(1)
    tanimoto = shared / (ones[:, None] + ones[None, :] - shared)
    scaled = everything.descriptors / (everything.descriptors[:40].std(0) + 1e-8)
    squares = ((scaled[:, None, :] - scaled[None, :, :]) ** 2).sum(2)
    share, noise = surrogate.setting
    kernel = share * tanimoto + (1 - share) * np.exp(-squares / (2 * scaled.shape[1]))
    inverse = np.linalg.inv(kernel[:40, :40] + (noise + 1e-8) * np.eye(40))
    y = (scores - scores.mean()) / scores.std()
    across = kernel[40:, :40]
    assert mean == pytest.approx(scores.mean() + scores.std() * (across @ inverse @ y), abs=1e-5)
    variance = 1 - np.einsum("ij,jk,ik->i", across, inverse, across)
    assert deviation == pytest.approx(scores.std() * np.sqrt(variance), abs=1e-4)
    given = Surrogate(features(known), scores, surrogate.setting).predict(features(new))
    assert np.array_equal(given, (mean, deviation))


def test_it_ranks_molecules_that_it_has_not_seen(moses_mini: list[str]) -> None:
    smiles = moses_mini[:600]
    logp = np.array([(measure(one, components=[["property", "logp"]]) or [0.0])[0] for one in smiles])
    similar = np.array([(measure(one, components=[["similarity", smiles[0], "ecfp4"]]) or [0.0])[0] for one in smiles])
    for values, least in ((logp, 0.9), (similar, 0.7)):
        surrogate = Surrogate(features(smiles[:400]), values[:400])
        mean, _ = surrogate.predict(features(smiles[400:]))
        assert np.corrcoef(mean, values[400:])[0, 1] > least


def test_scores_that_are_all_equal_give_their_value(moses_mini: list[str]) -> None:
    mean, deviation = Surrogate(features(moses_mini[:20]), np.zeros(20)).predict(features(moses_mini[20:25]))
    assert mean == pytest.approx(np.zeros(5))
    assert np.isfinite(deviation).all()
