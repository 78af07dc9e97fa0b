"""ChemNet without its padding against the network as fcd_torch runs it."""

import numpy as np
import pytest
from fcd_torch import FCD
from scipy.linalg import sqrtm

from molgen.metrics.chemnet import SIZE, Gaussian, activations, frechet_distance, gaussian, truncated


@pytest.fixture(scope="module")
def reference() -> FCD:
    return FCD(canonize=False)


def test_activations_are_those_of_fcd_torch(reference: FCD, moses_mini: list[str]) -> None:
    odd = ["C", "CC(=O)[O-].[Na+]", "C[C@H](N)C(=O)O", "CC[Ir]", "c1ccc2c(c1)[nH]c1ccccc12", "CBr", "CCl", "C[SiH3]"]
    lengths = ["C" * k for k in (2, 3, 4, 5, 6, 7, 8, 9, 10, 345, 346, 347, 348, 349, 350, 351, 400)]
    smiles = [*odd, *lengths, *moses_mini[:40]]
    assert np.abs(activations(smiles) - reference.get_predictions(smiles)).max() < 1e-4


def test_the_order_and_the_company_of_a_molecule_do_not_matter(moses_mini: list[str]) -> None:
    smiles = moses_mini[:20]
    together = activations(smiles)
    assert activations(smiles[::-1])[::-1] == pytest.approx(together, abs=1e-5)
    assert activations(smiles[3:4])[0] == pytest.approx(together[3], abs=1e-5)
    assert activations([]).shape == (0, SIZE)


def test_frechet_distance_is_that_of_its_formula(moses_mini: list[str]) -> None:
    a, b = (gaussian(activations(moses_mini[i : i + 600])) for i in (0, 600))
    root = sqrtm(a.covariance @ b.covariance).real
    expected = ((a.mean - b.mean) ** 2).sum() + np.trace(a.covariance + b.covariance - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(expected, abs=1e-3)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-6)


def test_frechet_distance_of_two_known_gaussians() -> None:
    # in one dimension (m1 - m2)² + (s1 - s2)²: means 1 and 4, deviations 2 and 3, twice over
    a = Gaussian(np.array([1.0, 1.0]), np.diag([4.0, 4.0]), 10)
    b = Gaussian(np.array([4.0, 4.0]), np.diag([9.0, 9.0]), 10)
    assert frechet_distance(a, b) == pytest.approx(2 * (9 + 1))


def test_what_chemnet_does_not_read_is_said() -> None:
    assert truncated("CC.O") and truncated("C" * 350)
    assert not truncated("CCO")
