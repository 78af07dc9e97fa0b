"""Tanimoto similarity against RDKit's own, pair by pair."""

import numpy as np
import pytest
from rdkit import Chem, DataStructs
from rdkit.Chem import rdFingerprintGenerator

from molgen.metrics.similarity import circles, nearest, neighbours, within


@pytest.fixture(scope="module")
def packed_and_true(moses_mini: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Packed fingerprints of 300 molecules and RDKit's (300, 300) similarities of them."""
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=1024)
    bits = [generator.GetFingerprint(Chem.MolFromSmiles(s)) for s in moses_mini[:300]]
    packed = np.stack([np.frombuffer(DataStructs.BitVectToBinaryText(b), np.uint8) for b in bits])
    return packed, np.array([DataStructs.BulkTanimotoSimilarity(b, bits) for b in bits])


def bits(*ones: int) -> np.ndarray:
    """A packed fingerprint of 1,024 bits with some of them set."""
    row = np.zeros(1024, np.uint8)
    row[list(ones)] = 1
    return np.packbits(row)


def test_nearest_neighbours_are_those_of_rdkit(packed_and_true: tuple[np.ndarray, np.ndarray]) -> None:
    packed, true = packed_and_true
    assert nearest(packed[:100], packed[100:]) == pytest.approx(true[:100, 100:].max(1), abs=1e-6)
    similarity, index = neighbours(packed[:100], packed[100:])
    assert similarity == pytest.approx(true[:100, 100:].max(1), abs=1e-6)
    assert true[np.arange(100), index + 100] == pytest.approx(true[:100, 100:].max(1))


def test_similarities_within_a_set_are_those_of_rdkit(packed_and_true: tuple[np.ndarray, np.ndarray]) -> None:
    packed, true = packed_and_true
    rows = within(packed)
    assert rows.mean == pytest.approx(true.mean(1), abs=1e-6)
    assert rows.mean_square == pytest.approx((true**2).mean(1), abs=1e-6)
    np.fill_diagonal(true := true.copy(), 0)
    assert rows.nearest_other == pytest.approx(true.max(1), abs=1e-6)


def test_similarity_is_shared_bits_over_bits_of_either() -> None:
    queries, references = np.stack([bits(1, 2, 3), bits()]), np.stack([bits(2, 3, 4, 5), bits(7)])
    assert nearest(queries, references) == pytest.approx([2 / 5, 0])
    assert nearest(queries, np.stack([bits(), bits(9)]))[1] == 1  # two without a bit count as equal, as in MOSES' code


def test_more_than_256_shared_bits_are_counted_exactly() -> None:
    queries, references = bits(*range(600))[None], np.stack([bits(*range(1, 600)), bits(*range(300))])
    assert nearest(queries, references) == pytest.approx([599 / 600], abs=1e-7)
    assert within(np.concatenate([queries, references])).nearest_other[0] == pytest.approx(599 / 600, abs=1e-7)


def test_a_single_molecule_has_no_other_neighbour_and_full_similarity_to_itself() -> None:
    rows = within(bits(1, 2)[None])
    assert (rows.mean[0], rows.mean_square[0], rows.nearest_other[0]) == (1, 1, 0)


def test_circles_counts_molecules_that_are_far_from_all_before() -> None:
    # the second shares 1 of 3 bits with the first (0.33 > 0.25), the third none, the fourth 1 of 4 with it (0.25)
    rows = np.stack([bits(1, 2), bits(2, 3), bits(10, 11), bits(11, 12, 13)])
    assert circles(rows) == 3
    assert circles(rows, distance=0.6) == 4
    assert circles(rows[:0]) == 0
