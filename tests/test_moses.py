"""MOSES' figures: against the numbers that its own code gave, and counted by hand on sets small enough for that."""

import json
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from molgen.chem.pool import Workers
from molgen.data.sources import reference_smiles
from molgen.errors import MolgenError
from molgen.metrics import moses
from molgen.metrics.chemnet import SIZE, Gaussian
from molgen.metrics.known import build_index
from molgen.metrics.moses import add_similarity, moses_figures, wasserstein_distance
from molgen.metrics.moses_statistics import (
    Statistics,
    from_arrays,
    shipped_statistics,
    statistics,
    to_arrays,
)
from molgen.metrics.profile import MoleculeTable, describe, molecule_table
from molgen.metrics.references import ReferenceCache
from molgen.runtime.cache import fingerprint
from molgen.runtime.inert_pickle import plain, read_pickle
from tests.conftest import SHARED

PARTS = [*moses.PARTS, "activations"]


@pytest.fixture(scope="module")
def shipped(moses_files: Path) -> dict[str, Statistics]:
    names = {"Test": "test_stats.npz", "TestSF": "test_scaffolds_stats.npz"}
    return {name: shipped_statistics(moses_files / file, name) for name, file in names.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["generated_1060", "moses_train_2000"])
def test_every_figure_equals_that_of_moses_own_code(
    name: str, shipped: dict[str, Statistics], references: ReferenceCache
) -> None:
    oracle = SHARED / "oracle" / f"{name}.smi"
    if not oracle.exists():
        pytest.skip("needs ../shared/oracle")
    table = describe(oracle.read_text().split("\n")[:-1], PARTS, references.runtime, "samples")
    add_similarity(table, shipped)
    ours = moses_figures(table, shipped, None).values
    theirs = json.loads(oracle.with_suffix(".json").read_text())["figures"]
    assert set(theirs) - {"Novelty"} <= set(ours)
    for figure, value in theirs.items():
        if figure != "Novelty":
            tolerance = 1e-2 if figure.startswith("FCD") or figure == "weight" else 1e-3
            assert ours[figure] == pytest.approx(value, abs=tolerance), figure


@pytest.mark.slow
@pytest.mark.usefixtures("moses_files")
def test_novelty_against_the_strings_as_shipped_equals_that_of_moses_own_code(pool: Workers) -> None:
    oracle = SHARED / "oracle" / "generated_1060.smi"
    if not oracle.exists():
        pytest.skip("needs ../shared/oracle")
    canonical = {s for s in pool.map("canonical", oracle.read_text().split("\n")[:-1]) if s is not None}
    training = build_index(reference_smiles("moses", "train"), (), False, pool, "")
    theirs = json.loads(oracle.with_suffix(".json").read_text())["figures"]["Novelty"]
    assert len(training.missing("shipped", canonical)) / len(canonical) == pytest.approx(theirs, abs=1e-3)


def one_reference(**changes: object) -> Statistics:
    plain = {
        "gaussian": Gaussian(np.zeros(SIZE), np.eye(SIZE), 100),
        "fingerprints": np.zeros((1, 128), np.uint8),
        "fragments": {"A": 2, "B": 1},
        "scaffolds": {"c1ccc2ccccc2c1": 3, "c1ccc(-c2ccccc2)cc1": 4},
        "properties": np.array([[0.0, 1.0, 0.5, 100.0]]),
        "digest": "x",
    }
    return Statistics(**(plain | changes))


def table_of(smiles: list[str], pool: Workers, moses_folder: str = "") -> MoleculeTable:
    parts = [part for part in moses.PARTS if part != "filters" or moses_folder]
    table = molecule_table(smiles, parts, pool, alerts=moses_folder)
    table.columns["activations"] = np.random.default_rng(0).normal(size=(len(table), SIZE)).astype(np.float32)
    table.columns["nearest/Test"] = np.linspace(0.2, 0.6, len(table), dtype=np.float32)
    return table


def test_valid_and_unique_at_k_are_counted_as_in_moses_code(pool: Workers) -> None:
    # of seven lines five are valid; the first valid ones, canonical, are CCO CCO CC C C
    values = moses_figures(table_of(["OCC", "C(", "CCO", "", "CC", "C", "C"], pool), {"Test": one_reference()}, None)
    assert values.values["valid"] == 5 / 7
    assert values.values["unique@1000"] == values.values["unique@10000"] == 3 / 5


def test_unique_at_k_takes_the_first_k_valid_ones(pool: Workers) -> None:
    table = table_of(["C"] * 1_000 + ["CC", "CCC"], pool)
    values = moses_figures(table, {"Test": one_reference()}, None).values
    assert values["unique@1000"] == 1 / 1_000
    assert values["unique@10000"] == 3 / 1_002


def test_fragments_scaffolds_and_neighbours_are_compared_as_by_hand(pool: Workers) -> None:
    # naphthalene twice and benzene, whose single ring does not count; no bond is cut by BRICS
    table = table_of(["c1ccc2ccccc2c1", "c1ccc2ccccc2c1", "c1ccccc1"], pool)
    reference = one_reference(fragments={"c1ccc2ccccc2c1": 1, "c1ccccc1": 1, "CC": 1})
    values = moses_figures(table, {"Test": reference}, None).values
    assert values["Frag/Test"] == pytest.approx((2 * 1 + 1 * 1) / (3**0.5 * 5**0.5))
    assert values["Scaf/Test"] == pytest.approx(2 * 3 / (2 * 5))
    assert values["SNN/Test"] == pytest.approx((0.2 + 0.4 + 0.6) / 3)
    assert values["FCD/TestSF"] is None


def test_internal_diversities_take_the_root_row_by_row(pool: Workers) -> None:
    # one molecule twice and another that shares no bit with it: rows (1, 1, 0), (1, 1, 0), (0, 0, 1)
    table = table_of(["CC", "CC", "FI"], pool)
    values = moses_figures(table, {"Test": one_reference()}, None).values
    assert values["IntDiv"] == pytest.approx(1 - 5 / 9)
    rows = [(2 / 3) ** 0.5, (2 / 3) ** 0.5, (1 / 3) ** 0.5]
    assert values["IntDiv2"] == pytest.approx(1 - sum(rows) / 3)


def test_filters_count_the_molecules_without_a_cause(pool: Workers, moses_files: Path) -> None:
    table = table_of(["CCOc1ccccc1", "CC(=O)[O-]", "C1CCCCCCC1", "C=CC#N"], pool, str(moses_files))
    assert moses_figures(table, {"Test": one_reference()}, None).values["Filters"] == 1 / 4


def test_without_the_alert_lists_filters_is_null_and_names_the_remedy(pool: Workers) -> None:
    figures = moses_figures(table_of(["CC", "CO"], pool), {"Test": one_reference()}, None)
    assert figures.values["Filters"] is None and "molgen data get moses" in figures.reasons["Filters"]


def test_distances_of_properties_are_areas_between_distributions() -> None:
    assert wasserstein_distance(np.array([0.0, 0.0]), np.array([1.0, 3.0])) == 2
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=300), rng.normal(1, 2, size=77)
    assert wasserstein_distance(a, b) == pytest.approx(stats.wasserstein_distance(a, b))


def test_novelty_counts_distinct_molecules_that_training_lacks(pool: Workers) -> None:
    # training holds ethanol, written otherwise: canonicalised it is known, as shipped it is not
    training = build_index(["OCC", "CC"], ("canonical",), False, pool, "")
    values = moses_figures(table_of(["CCO", "CC", "CC", "CN"], pool), {"Test": one_reference()}, training).values
    assert values["Novelty"] == pytest.approx(1 / 3)
    assert values["Novelty/shipped"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("smiles", [[], ["C("], ["", "C("]])
def test_without_a_valid_sample_every_figure_is_null_with_its_reason(smiles: list[str], pool: Workers) -> None:
    figures = moses_figures(table_of(smiles, pool), {"Test": one_reference()}, None)
    missing = {name for name, value in figures.values.items() if value is None}
    assert missing == set(figures.reasons) and {"FCD/Test", "SNN/Test", "IntDiv", "Filters", "logP"} <= missing


def test_one_molecule_has_no_fcd_but_the_other_figures(pool: Workers) -> None:
    figures = moses_figures(table_of(["CCO"], pool), {"Test": one_reference()}, None)
    assert figures.values["FCD/Test"] is None and figures.values["IntDiv"] == 0


@pytest.fixture(scope="module")
def mini_statistics(moses_mini: list[str], pool: Workers) -> dict[str, Statistics]:
    reference = table_of(moses_mini[1_000:1_300], pool)
    return {"Test": statistics(reference, "mini")}


def real_figures(smiles: list[str], reference: dict[str, Statistics], pool: Workers) -> dict:
    """As MOSES' figures, but ChemNet is replaced by numbers that depend on the molecule alone."""
    table = molecule_table(smiles, moses.PARTS[:-1], pool)
    table.columns["activations"] = np.stack(
        [np.random.default_rng(int(fingerprint([s])[:8], 16)).normal(size=SIZE) for s in table.strings("canonical")]
    ).astype(np.float32)
    add_similarity(table, reference)
    return {k: v for k, v in moses_figures(table, reference, None).values.items() if v is not None}


def test_the_order_of_samples_changes_nothing(moses_mini: list[str], mini_statistics: dict, pool: Workers) -> None:
    smiles = moses_mini[:120]
    assert real_figures(smiles[::-1], mini_statistics, pool) == pytest.approx(
        real_figures(smiles, mini_statistics, pool), abs=1e-6
    )


def test_invalid_lines_change_only_valid(moses_mini: list[str], mini_statistics: dict, pool: Workers) -> None:
    smiles = moses_mini[:60]
    clean = real_figures(smiles, mini_statistics, pool)
    mixed = real_figures(["C(", *smiles[:30], "", "c1cccc1", *smiles[30:]], mini_statistics, pool)
    assert mixed.pop("valid") == 60 / 63 and clean.pop("valid") == 1
    assert mixed == pytest.approx(clean)


def test_duplicates_change_only_uniqueness_and_the_divisor_of_a_covariance(
    moses_mini: list[str], mini_statistics: dict, pool: Workers
) -> None:
    once = real_figures(moses_mini[:60], mini_statistics, pool)
    twice = real_figures(moses_mini[:60] * 2, mini_statistics, pool)
    assert twice.pop("unique@1000") == twice.pop("unique@10000") == 0.5
    assert once.pop("unique@1000") == once.pop("unique@10000") == 1
    assert twice.pop("FCD/Test") == pytest.approx(once.pop("FCD/Test"), rel=0.02)
    assert twice == pytest.approx(once, abs=1e-6)


def test_statistics_survive_the_cache(mini_statistics: dict) -> None:
    before = mini_statistics["Test"]
    after = from_arrays(to_arrays(before), "mini")
    assert after.fragments == before.fragments and after.scaffolds == before.scaffolds
    assert np.array_equal(after.fingerprints, before.fingerprints) and after.gaussian.n == before.gaussian.n


def test_the_reader_builds_plain_data_as_unpickling_would() -> None:
    from collections import Counter

    content = {"a": [1, 2.5, "x", None, True], "b": (1,), "c": Counter("aab"), "d": np.arange(4, dtype=np.uint8)}
    data = plain(read_pickle(pickle.dumps(content, protocol=2)))
    assert {**data, "d": data["d"].tolist()} == {**content, "d": [0, 1, 2, 3]}


class Evil:
    def __reduce__(self):
        return print, ("executed",)


@pytest.mark.parametrize("content", [Evil(), {"a": [Evil()]}, ValueError, np.array([Evil()], object), {1, 2}])
def test_the_reader_refuses_what_is_more_than_data_and_runs_nothing(content: object, capsys) -> None:
    with pytest.raises(ValueError, match="not plain data"):
        plain(read_pickle(pickle.dumps(content, protocol=2)))
    assert "executed" not in capsys.readouterr().out


def test_a_damaged_statistics_file_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(b"PK nonsense")
    with zipfile.ZipFile(tmp_path / "b.npz", "w") as archive:
        archive.writestr("stats.npy", b"\x93NUMPY\x01\x00\x04\x00    " + pickle.dumps(Evil(), protocol=2))
    for name in ("a.npz", "b.npz"):
        with pytest.raises(MolgenError, match="molgen data get moses"):
            shipped_statistics(tmp_path / name, "")
