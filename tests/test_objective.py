"""Objectives: the field's own values for its own tasks; components, transforms and means by hand; mistakes refused."""

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import SHARED

from molgen.chem.oracles import measure
from molgen.data.download import data_directory
from molgen.errors import MolgenError
from molgen.optimize.components import combined, load_objective, presets
from molgen.optimize.transforms import Transform

VALUES = SHARED / "oracle" / "pmo" / "values.csv"
GUACAMOL_ONLY = {"aripiprazole_similarity", "isomers_c11h24"}
LEARNED = {"drd2", "gsk3b", "jnk3"}


def totals(name: str, smiles: list[str]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The objective's value of each molecule, 0 for an invalid one."""
    stage = load_objective(name).all_stages[0]
    components = [component.measured for component in stage.components]
    rows = [measure(one, components=components) for one in smiles]  # type: ignore[arg-type]
    scores = [
        [c.score(x) for c, x in zip(stage.components, row or [math.nan] * len(components), strict=True)] for row in rows
    ]
    return np.nan_to_num(combined(np.array(scores), [c.weight for c in stage.components], stage.mean))


@pytest.fixture(scope="session")
def published() -> list[dict[str, str]]:
    """157 molecules with their values by the field's own code."""
    if not VALUES.exists():
        pytest.skip("needs ../shared/oracle/pmo/values.csv")
    with VALUES.open() as file:
        return list(csv.DictReader(file))


def test_all_tasks_of_pmo_and_of_guacamols_suite_are_there() -> None:
    names = presets()
    assert len([name for name in names if name.startswith("pmo/")]) == 23
    assert len([name for name in names if name.startswith("guacamol/")]) == 20


@pytest.mark.parametrize("name", [n for n in presets() if n.partition("/")[2] not in GUACAMOL_ONLY])
def test_a_task_has_the_values_of_the_fields_own_code(name: str, published: list[dict[str, str]]) -> None:
    task = name.partition("/")[2]
    if task in LEARNED and not (data_directory() / "pmo-models.safetensors.gz").exists():
        pytest.skip("needs PMO's classifiers, which `molgen optimize` fetches")
    expected = [float(row[task]) for row in published]
    assert totals(name, [row["smiles"] for row in published]) == pytest.approx(expected, abs=1e-4)


def test_tasks_of_guacamol_that_pmo_lacks_have_values_counted_by_hand() -> None:
    undecane, pentane = "CCCCCCCCCCC", "CCCCC"
    # C 5 of 11, H 12 of 24, 17 atoms of 35
    by_hand = (math.exp(-(6**2) / 2) * math.exp(-(12**2) / 2) * math.exp(-((18 / 2) ** 2) / 2)) ** (1 / 3)
    assert totals("guacamol/isomers_c11h24", [undecane, pentane]) == pytest.approx([1.0, by_hand])
    aripiprazole = "Clc1cccc(N2CCN(CCCCOc3ccc4CCC(=O)Nc4c3)CC2)c1Cl"
    assert totals("guacamol/aripiprazole_similarity", [aripiprazole, "C"]) == pytest.approx([1.0, 0.0])


@pytest.mark.parametrize(
    ("transform", "values"),
    [
        ({"clip": 0.8}, {0.4: 0.5, 0.8: 1.0, 0.9: 1.0}),
        ({"gaussian": [2, 1]}, {2: 1.0, 3: math.exp(-0.5)}),
        ({"at_most": [2, 1]}, {1: 1.0, 2: 1.0, 4: math.exp(-2)}),
        ({"at_least": [2, 1]}, {3: 1.0, 1: math.exp(-0.5)}),
        ({"rising": [0, 10]}, {-1: 0.0, 2.5: 0.25, 11: 1.0}),
        ({"falling": [-12, -6]}, {-12: 1.0, -9: 0.5, -6: 0.0, 0: 0.0}),
        ({"sigmoid": [0, 10]}, {0: 0.01, 5: 0.5, 10: 0.99}),
        ({"sigmoid": [10, 0]}, {0: 0.99, 10: 0.01}),
        ({"between": [1, 2]}, {0.9: 0.0, 1: 1.0, 2: 1.0, 2.1: 0.0}),
        ({"absent": True}, {1: 0.0, 0: 1.0}),
    ],
)
def test_a_transform_has_the_values_of_its_formula(transform: dict[str, Any], values: dict[float, float]) -> None:
    score = Transform.model_validate(transform)
    assert {x: score(x) for x in values} == pytest.approx(values)
    assert math.isnan(score(math.nan))


def test_scores_are_combined_by_the_mean_that_is_named() -> None:
    scores, weights = np.array([[0.25, 1.0], [0.0, 1.0]]), [1.0, 3.0]
    assert combined(scores, weights, "arithmetic").tolist() == pytest.approx([0.8125, 0.75])
    assert combined(scores, weights, "geometric").tolist() == pytest.approx([0.25**0.25, 0.0])
    assert combined(scores, [1.0, 2.0], "product").tolist() == pytest.approx([0.25, 0.0])
    assert np.isnan(combined(np.array([[math.nan, 1.0]]), weights, "geometric")).all()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "give either components or stages"),
        ({"components": []}, "at least 1 item"),
        ({"components": [{}]}, "this one is none"),
        ({"components": [{"property": "logp"}]}, "a raw number needs a transform"),
        ({"components": [{"property": "logg", "transform": {"rising": [0, 1]}}]}, "no numerical column 'logg'"),
        ({"components": [{"similarity": "C("}]}, "RDKit does not parse"),
        ({"components": [{"smarts": "[["}]}, "no SMARTS pattern"),
        ({"components": [{"isomer": "c6"}]}, "no formula"),
        ({"components": [{"smarts": "C", "similarity": "C"}]}, "this one is similarity, smarts"),
        ({"components": [{"smarts": "C", "transform": {"clip": 1, "rising": [0, 1]}}]}, "got 2"),
        ({"components": [{"smarts": "C", "transform": {"rising": [1, 0]}}]}, "1 is not below 0"),
        ({"components": [{"smarts": "C"}], "weight": 1}, "unknown key weight"),
        ({"components": [{"smart": "C"}]}, "did you mean smarts"),
        ({"stages": [{"calls": 5, "components": [{"smarts": "C"}]}]}, "the first begins at 0"),
    ],
)
def test_an_objective_that_makes_no_sense_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(MolgenError, match=message.replace("[", r"\[")):
        load_objective(values)


def test_an_objective_is_a_file_of_ones_own_too(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("components:\n  - property: tpsa\n    transform: {at_most: [90, 20]}\nwhere: mw < 500\n")
    objective = load_objective(path)
    assert objective.where == "mw < 500"
    assert [component.label for component in objective.all_stages[0].components] == ["tpsa"]
    with pytest.raises(MolgenError, match=r"no preset, and cannot be read.*did you mean pmo/qed\?"):
        load_objective("pmo/qedd")
