"""An assay table as people have it: what becomes a value, a bound, a class or nothing, and what is refused."""

import math
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from molgen.chem.pool import Workers
from molgen.config import load_config
from molgen.data.dataset import Dataset, build_dataset
from molgen.data.formula import Formula
from molgen.data.labels import Label, LabelArrays, noise_floor
from molgen.data.sources import read_source
from molgen.errors import MolgenError

CASES = Path(__file__).parent / "cases"
Table = Callable[..., Dataset]
MOLECULES = ["CCO", "CCN", "CCCO", "CCCN", "c1ccccc1O", "c1ccccc1N", "CC(=O)O", "CC(C)O"]


@pytest.fixture
def table(tmp_path: Path, pattern: str, pool: Workers) -> Table:
    """Reads a table: `table(text, *targets, where=...)`."""

    def read(text: str | Path, *targets: str, suffix: str = ".csv", **settings: str) -> Dataset:
        path = text if isinstance(text, Path) else tmp_path / f"table{suffix}"
        if isinstance(text, str):
            path.write_text(text, encoding="utf-8")
        options = {"data.source": str(path), "data.targets": list(targets), "data.min_token_count": 1}
        options |= {"data.train_size": 1, "data.validation_size": 1, "data.split": "random"}
        config = load_config(None, [], options | {f"data.{key}": value for key, value in settings.items()})
        return build_dataset(read_source(config.data), config.data, 128, pattern, pool)

    return read


def csv_of(column: str, cells: list[str], extra: str = "", others: list[str] | None = None) -> str:
    """A table of MOLECULES with one column of cells, and perhaps another."""
    heading = f"SMILES,{column}{',' + extra if extra else ''}"
    rows = [
        f'{MOLECULES[i % len(MOLECULES)]},"{cell}"' + (f",{(others or [])[i]}" if extra else "")
        for i, cell in enumerate(cells)
    ]
    return "\n".join([heading, *rows]) + "\n"


def label(dataset: Dataset, smiles: str) -> Label:
    return dataset.labels[smiles][0]


def test_a_formula_is_arithmetic_and_nothing_else() -> None:
    assert Formula("9 - log10(IC50_nM)")({"IC50_nM": 100.0}) == pytest.approx(7)
    assert Formula("-(`a b` + 2) ** 2 / 4")({"a b": 4.0}) == pytest.approx(-9)
    assert Formula("ln(exp(x)) + sqrt(abs(x))")({"x": -4.0}) == pytest.approx(-2)
    assert Formula("log10(x)")({"x": 0.0}) is None
    assert Formula("x / y")({"x": 1.0, "y": 0.0}) is None
    assert Formula("x ** 1e9")({"x": 10.0}) is None
    for text in (
        "__import__('os')",
        "x.y",
        "open(x)",
        "x if x else 1",
        "[x]",
        "lambda: x",
        "x and y",
        "1 + 1",
        "",
        "x +",
    ):
        with pytest.raises(MolgenError):
            Formula(text)
    with pytest.raises(MolgenError, match="log10 or ln"):
        Formula("log(x)")


def test_a_bound_changes_its_side_with_the_sign_of_the_formula(table: Table) -> None:
    found = table(csv_of("IC50_nM", [">10000", "<10", "100", "~1000", ">=1e5"]), "pIC50 = 9 - log10(IC50_nM)")
    assert label(found, "CCO") == Label(pytest.approx(5), "<")
    assert label(found, "CCN") == Label(pytest.approx(8), ">")
    assert label(found, "CCCO").value == pytest.approx(7)
    assert label(found, "CCCN").relation == "="
    assert label(found, "Oc1ccccc1").relation == "<"


def test_relations_may_stand_in_a_column_of_their_own(table: Table) -> None:
    text = csv_of("Standard Value", ["10000", "100", "50"], "Standard Relation", ["'>'", "'='", ""])
    found = table(text, "p = 9 - log10(`Standard Value`)")
    assert [label(found, s).relation for s in ("CCO", "CCN", "CCCO")] == ["<", "=", "="]


def test_replicates_of_one_parent_become_their_median_and_the_noise_is_theirs(
    table: Table, capfd: pytest.CaptureFixture[str]
) -> None:
    text = "SMILES,pKi\nCCO,5\nOCC,6\nCCO,8\nCCN,7\nCCN.Cl,7.2\nCCCO,4\n"
    found = table(text, "pKi")
    assert label(found, "CCO") == Label(6.0, "=", 3, 3.0, pytest.approx(np.std([5, 6, 8], ddof=1)))
    assert label(found, "CCN").value == pytest.approx(7.1)  # the salt has the same parent
    assert sum(d.reason == "further measurement of a molecule" for d in found.dropped) == 3
    pooled = math.sqrt((2 * np.var([5, 6, 8], ddof=1) + np.var([7, 7.2], ddof=1)) / 3)
    assert noise_floor([own[0] for own in found.labels.values()]) == (pytest.approx(pooled), 2)
    told = capfd.readouterr().err
    assert "replicates of 1 molecules spread over more than 1 unit" in told
    assert "CCO: 3 over 3.00" in told
    assert f"standard deviation is {pooled:.2f}" in told


def test_a_measurement_counts_more_than_a_bound_and_the_tightest_bound_most(table: Table) -> None:
    found = table("SMILES,pKi\nCCO,>5\nCCO,6\nCCN,>5\nCCN,>7\nCCCO,>5\nCCCO,<4\nCCCN,3\n", "pKi")
    assert label(found, "CCO") == Label(6.0)
    assert label(found, "CCN") == Label(7.0, ">", 2)
    assert not label(found, "CCCO").known  # the bounds contradict each other


@pytest.mark.parametrize(
    ("column", "hint"),
    [
        ("IC50_nM", "--target 'pIC50 = 9 - log10(IC50_nM)'"),
        ("IC50 (uM)", "--target 'pIC50 = 6 - log10(`IC50 (uM)`)'"),
        ("Ki [nM]", "--target 'pKi = 9 - log10(`Ki [nM]`)'"),
        ("Kd", "if it is in nM: --target 'pKd = 9 - log10(Kd)'"),
        ("IC50 micromolar", "--target 'pIC50 = 6 - log10(`IC50 micromolar`)'"),
        ("EC50 mM", "--target 'pEC50 = 3 - log10(`EC50 mM`)'"),
    ],
)
def test_a_raw_concentration_is_refused_with_the_line_that_converts_it(table: Table, column: str, hint: str) -> None:
    with pytest.raises(MolgenError, match="is a concentration") as refused:
        table(csv_of(column, ["3", "50", "700", "20000"]), column)
    assert hint in str(refused.value.hint)


def test_a_raw_concentration_may_be_told_by_the_units_column(table: Table) -> None:
    text = csv_of("value", ["3", "50", "700", "20000"], "units", ["nM"] * 4)
    with pytest.raises(MolgenError, match="is a concentration") as refused:
        table(text, "value")
    assert "9 - log10(value)" in str(refused.value.hint)


@pytest.mark.parametrize("name", ["pIC50", "log_IC50_nM", "solubility", "logS"])
def test_logarithms_and_other_quantities_are_taken_as_they_are(table: Table, name: str) -> None:
    found = table(csv_of(name, ["0.1", "5", "7", "9"]), name)
    assert label(found, "CCN").value == 5


def test_several_units_or_endpoints_ask_and_a_condition_answers(table: Table) -> None:
    text = csv_of("value", ["5", "6", "7", "8"], "type", ["pIC50", "pIC50", "pKi", "pKi"])
    with pytest.raises(MolgenError, match="2 endpoints in its column type: pIC50 2, pKi 2") as refused:
        table(text, "value")
    assert "--where 'type ==" in str(refused.value.hint)
    kept = table(text, "value", where="type == type")  # all of them, knowingly
    assert label(kept, "CCCO").value == 7
    with pytest.raises(MolgenError, match="2 units in its column Units: nM 2, uM 1"):
        table(csv_of("IC50", ["5", "6", "7"], "Units", ["nM", "nM", "uM"]), "p = 9 - log10(IC50)")


def test_text_is_no_value_and_is_counted_with_an_example(table: Table, capfd: pytest.CaptureFixture[str]) -> None:
    found = table(csv_of("pKi", ["5", "6", "7", "n.d.", ""]), "pKi")
    assert not label(found, "CCCN").known
    assert not label(found, "Oc1ccccc1").known
    assert "cells that are no numbers: 1, such as 'n.d.' (line 5)" in capfd.readouterr().err
    with pytest.raises(MolgenError, match="neither a number nor one of two known classes"):
        table(csv_of("pKi", ["low", "high", "medium", "5"]), "pKi")
    with pytest.raises(MolgenError, match="cells cannot be used, they are no numbers"):
        table(csv_of("pKi", ["5", ">>", "> x", "<"]), "pKi")


@pytest.mark.parametrize("pair", [("0", "1"), ("inactive", "active"), ("No", "Yes"), ("FALSE", "TRUE"), ("0.0", "1.0")])
def test_two_classes_become_0_and_1(table: Table, pair: tuple[str, str]) -> None:
    found = table(csv_of("hit", [pair[0], pair[1], pair[0], ""]), "hit")
    assert [label(found, s).value for s in ("CCO", "CCN", "CCCO")] == [0, 1, 0]
    arrays = LabelArrays.of(found.labels, ["CCO", "CCN", "CCCO"], 1)
    assert arrays.scales.classes.tolist() == [True]


def test_what_was_read_in_another_way_than_it_stands_is_said(table: Table, capfd: pytest.CaptureFixture[str]) -> None:
    found = table(csv_of("pKi", ["~5", "6", "≈7", "8"]), "pKi")
    assert [label(found, s).value for s in ("CCO", "CCN", "CCCO")] == [5, 6, 7]
    assert "pKi: cells with ~ or ≈, read as the value itself: 2 (the first: line 2)" in capfd.readouterr().err
    table(csv_of("pKi", ["5", "6", ">7", "8"], "relation", ["=", "'~'", "~", "="]), "pKi")  # the cell's own counts
    assert "read as the value itself: 1 (the first: line 3)" in capfd.readouterr().err
    table(csv_of("hit", ["No", "Yes", "No"]), "hit")
    assert "hit: Yes counts as 1, No as 0" in capfd.readouterr().err
    found = table(csv_of("pKi", ["5", "6", "7"], "pKi", ["8", "8.5", "9"]), "pKi")
    assert label(found, "CCO").value == 5
    assert "another column called 'pKi' is 'pKi_2' here" in capfd.readouterr().err
    table(csv_of("pKi", ["5", "6", "7"], ",", [","] * 3), "pKi")  # a spreadsheet's empty columns
    assert not re.search("~|another column|counts as", capfd.readouterr().err)


def test_classes_that_contradict_each_other_are_no_label(table: Table) -> None:
    found = table("SMILES,hit\nCCO,1\nCCO,0\nCCN,1\nCCN,1\nCCN,0\nCCCO,0\n", "hit")
    assert not label(found, "CCO").known
    assert label(found, "CCN").value == 1
    with pytest.raises(MolgenError, match="in every row"):
        table(csv_of("hit", ["1", "1", "1"]), "hit")


def test_several_targets_may_lack_values_in_different_rows(table: Table) -> None:
    found = table("SMILES,a,b\nCCO,1.5,\nCCN,,2.5\nCCCO,,\n", "a", "b")
    assert [one.known for one in found.labels["CCO"]] == [True, False]
    assert [one.known for one in found.labels["CCN"]] == [False, True]
    assert [one.known for one in found.labels["CCCO"]] == [False, False]
    assert len(found.molecules) == 3  # a molecule without values still teaches the language


def test_a_thousands_separator_and_a_decimal_comma_are_read_by_their_value(table: Table) -> None:
    found = table(CASES / "thousand.csv", "pIC50 = 9 - log10(IC50_nM)")
    values = [own[0] for own in found.labels.values()]
    assert sum(one.relation == "<" for one in values) > 0
    assert all(4.9 < one.value < 7 for one in values if one.known)
    german = table(CASES / "german.csv", "pIC50")
    assert {own[0].value for own in german.labels.values()} >= {5.0, 5.06, 5.12}
    with pytest.raises(MolgenError, match="thousand times"):
        table(CASES / "german.csv", "p = 9 - log10(`IC50 (nM)`)")


def test_a_held_out_replicate_holds_its_molecule_out(table: Table) -> None:
    text = "SMILES,pKi,split\nCCO,5,train\nCCO,6,test\nCCN,5,train\nCCCO,5,train\nCCCN,5,validation\n"
    found = table(text, "pKi", train_size=None, validation_size=None)
    assert {m.smiles: m.split for m in found.molecules}["CCO"] == "test"


def test_a_relation_beside_both_a_concentration_and_its_logarithm_asks(table: Table) -> None:
    text = "SMILES,relation,IC50_nM,pIC50\nCCO,>,10000,5\nCCN,=,100,7\nCCCO,=,10,8\n"
    with pytest.raises(MolgenError, match="may be of IC50_nM or of pIC50") as refused:
        table(text, "pIC50")
    assert "data.relation_column='relation'" in str(refused.value.hint)
    own = table(text, "pIC50", relation_column="relation")
    assert label(own, "CCO").relation == ">"
    assert label(table(text, "p = 9 - log10(IC50_nM)"), "CCO").relation == "<"
    assert label(table(text.replace(">", "="), "pIC50"), "CCO").relation == "="  # no bounds, so nothing is unclear


def test_a_formula_for_another_unit_than_the_table_says_is_refused(table: Table) -> None:
    with pytest.raises(MolgenError, match="another unit than uM") as refused:
        table(csv_of("IC50_uM", ["1", "2", "30"]), "pIC50 = 9 - log10(IC50_uM)")
    assert "pIC50 = 6 - log10(IC50_uM)" in str(refused.value.hint)
    with pytest.raises(MolgenError, match="another unit than uM"):
        table(csv_of("IC50", ["1", "2", "30"], "unit", ["uM"] * 3), "pIC50 = 9 - log10(IC50)")
    assert label(table(csv_of("IC50", ["1", "2", "30"], "unit", ["nM"] * 3), "p = 9 - log10(IC50)"), "CCO").value == 9


def test_units_in_the_cells_are_named_as_the_trouble(table: Table, capfd: pytest.CaptureFixture[str]) -> None:
    found = table(csv_of("Ki", ["5", "6", "7", "500 nM"]), "pK = 9 - log10(Ki)")
    assert not label(found, "CCCN").known
    assert "cells that have a unit beside the number: 1, such as '500 nM'" in capfd.readouterr().err
    with pytest.raises(MolgenError, match="they have a unit beside the number"):
        table(csv_of("Ki", ["5 nM", "6 uM", "7 nM"]), "pK = 9 - log10(Ki)")


@pytest.mark.parametrize(
    ("cells", "why"),
    [
        (["5"] * 8, "is 5 in every row"),
        ([">5", "<4"] * 4, "has bounds and no value"),
        ([""] * 8, "no molecule has a value"),
    ],
)
def test_a_target_of_which_nothing_can_be_learned_is_refused(table: Table, cells: list[str], why: str) -> None:
    with pytest.raises(MolgenError, match=why):
        table(csv_of("pIC50", cells), "pIC50")


def test_unknown_columns_and_taken_names_are_refused(table: Table) -> None:
    with pytest.raises(MolgenError, match="no column 'pKI'") as refused:
        table(csv_of("pKi", ["5", "6", "7"]), "pKI")
    assert "did you mean pKi?" in str(refused.value.hint)
    with pytest.raises(MolgenError, match="a column that molgen computes"):
        table(csv_of("logp", ["1", "2", "3"]), "logp")
    with pytest.raises(MolgenError, match="named twice"):
        table(csv_of("pKi", ["5", "6", "7"]), "pKi", "pKi = pKi + 1")


def test_a_split_by_time_holds_out_the_latest(table: Table) -> None:
    text = csv_of("pKi", ["5", "6", "7", "8"], "date", ["2024-03-01", "2021-01-01", "2025-01-01", "2022-06-01"])
    found = table(text, "pKi", split="time", time_column="date", train_size=2)
    assert {m.smiles: m.split for m in found.molecules} == {
        **{"CCN": "train", "CCCN": "train"},
        **{"CCO": "validation", "CCCO": "test"},
    }


def test_a_split_by_scaffold_keeps_a_scaffold_on_one_side(table: Table) -> None:
    rings = ["c1ccccc1", "c1ccncc1", "C1CCCCC1", "c1ccoc1", "c1ccsc1", "C1CCNCC1"]
    rows = [f"{ring}{tail},{i}" for i, ring in enumerate(rings) for tail in ("C", "CC", "CCC")]
    found = table("SMILES,y\n" + "\n".join(rows) + "\n", "y", split="scaffold", train_size=9, validation_size=3)
    sides: dict[float, set[str]] = {}
    for molecule in found.molecules:
        sides.setdefault(label(found, molecule.smiles).value, set()).add(molecule.split)
    assert all(len(side) == 1 for side in sides.values())
