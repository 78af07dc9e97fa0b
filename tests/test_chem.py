"""What a chemist asks, counted by hand."""

import numpy as np
import pytest

from molgen.chem.pool import Workers
from molgen.metrics import chem
from molgen.metrics.chem import chem_figures, largest_differences
from molgen.metrics.known import build_index
from molgen.metrics.profile import describe
from molgen.metrics.references import ReferenceCache

SMILES = ["CC[O-].[Na+]", "[CH2]C", "CC(=O)[O-]", "c1ccccc1CC1CC1", "c1ccncc1", "C("]


@pytest.fixture
def values(references: ReferenceCache, pool: Workers) -> dict:
    table = describe(SMILES, chem.PARTS, references.runtime, "samples")
    strings = ("canonical", "parent", "scaffold", "ring_systems")
    training = build_index(["c1ccccc1", "CC(=O)O", "CCO"], strings, True, pool, "")
    nearest = np.array([0.3, 0.8, 1.0, 0.5, 0.79999])
    return chem_figures(table, training, nearest, {"CC(=O)[O-]", "CCCC"}).figures.values


def test_flaws_are_shares_of_the_valid_molecules(values: dict) -> None:
    assert values["chem/n"] == 5
    assert values["chem/radicals"] == 1 / 5
    assert values["chem/multi_fragment"] == 1 / 5
    assert values["chem/net_charge"] == 1 / 5  # the salt as a whole is neutral


def test_rings_and_scaffolds_are_compared_with_training(values: dict) -> None:
    # benzene is known; cyclopropane and pyridine are new, in one molecule each
    assert values["chem/new_ring_systems"] == 2 / 5
    # scaffolds: benzylcyclopropane and pyridine, both new to training, whose only scaffold is benzene
    assert values["chem/scaffold_novelty"] == 1
    assert values["chem/scaffolds_per_1000"] == 1_000 * 2 / 5


def test_novelty_of_parents_ignores_salts_and_charges(values: dict) -> None:
    # the sodium salt of ethanol and acetate are known; the radical, and two aromatics, are not
    assert values["chem/parent_novelty"] == 3 / 5


def test_neighbours_and_rediscovered_molecules_are_counted(values: dict) -> None:
    assert values["chem/nearest"] == pytest.approx(np.mean([0.3, 0.8, 1.0, 0.5, 0.79999]))
    assert values["chem/nearest_0.8"] == 2 / 5
    assert values["chem/nearest_1"] == 1 / 5
    assert values["chem/rediscovered"] == 1 / 2


def test_alerts_are_counted_by_set_and_by_name(references: ReferenceCache) -> None:
    table = describe(["O=C1C=CC(=O)C=C1", "CCO"], chem.PARTS, references.runtime, "samples")
    chemistry = chem_figures(table, None, None, None)
    assert [chemistry.figures.values[f"chem/{name}"] for name in chem.ALERT_SETS] == [0.5, 0.5, 0.5]
    assert chemistry.shares["alerts"]["PAINS:quinone_A(370)"] == 0.5
    assert chemistry.shares["functional groups"]["ketone"] == 0.5
    assert chemistry.figures.values["chem/new_ring_systems"] is None
    assert "--train" in chemistry.figures.reasons["chem/new_ring_systems"]


def test_quantiles_are_of_the_property(references: ReferenceCache) -> None:
    table = describe(["C", "CC", "CCC"], chem.PARTS, references.runtime, "samples")
    qed = np.sort(table.numbers("properties")[:, 2])
    assert chem_figures(table, None, None, None).figures.values["chem/QED_q50"] == qed[1]


def test_without_a_valid_molecule_there_is_a_reason_and_no_crash(references: ReferenceCache) -> None:
    figures = chem_figures(describe(["C("], chem.PARTS, references.runtime, "samples"), None, None, None).figures
    assert figures.reasons


def test_the_largest_differences_come_first() -> None:
    assert largest_differences({"a": 0.5, "b": 0.05}, {"a": 0.4, "c": 0.3}, most=2) == [
        ("c", 0.0, 0.3),
        ("a", 0.5, 0.4),
    ]
