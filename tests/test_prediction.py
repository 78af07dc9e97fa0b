"""A run that predicts: from a table to predictions with intervals, in tables, conditions, figures and objectives."""

import csv
import io
import json
import math
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SMALL, Cli
from rdkit import Chem
from rdkit.Chem import Crippen

from molgen.chem.pool import Workers
from molgen.config import load_config
from molgen.data.labels import LabelArrays
from molgen.errors import MolgenError
from molgen.generation.generator import MoleculeGenerator
from molgen.machine import Runtime
from molgen.model.build import build_model
from molgen.optimize import objective as score_of
from molgen.optimize.components import Component, load_objective
from molgen.optimize.setup import _predictions as component_values
from molgen.prediction import figures, intervals
from molgen.prediction.explain import contributions
from molgen.prediction.fingerprints import Fingerprints, kernel, similarity
from molgen.prediction.learning import Comparison, folds_of
from molgen.prediction.neighbours import KINDS, SETTINGS, fit
from molgen.prediction.predictor import TOO_FAR, RunPredictor
from molgen.prediction.trees import Trees
from molgen.runs import PREDICTORS, Run
from molgen.tokenizer import EOS, PAD
from molgen.training.train import train

N = 150


def potency(smiles: str) -> float:
    """Something that a molecule has: Crippen's logP, with a little noise that depends on the string."""
    return float(Crippen.MolLogP(Chem.MolFromSmiles(smiles))) + (hash_of(smiles) - 0.5) * 0.2  # type: ignore[attr-defined]


def hash_of(text: str) -> float:
    return (sum(map(ord, text)) * 7_919 % 1_000) / 1_000


def assay(molecules: list[str]) -> str:
    """A table with a number, a bound in each tenth row, a class, missing values, and a replicate."""
    rows = []
    for i, smiles in enumerate(molecules):
        value = potency(smiles)
        number = f">{value - 1:.3f}" if i % 10 == 3 else f"{value:.3f}"
        rows.append(f"M{i},{smiles},{'' if i % 10 == 7 else number},{int(value > 2.4)}")
    rows.append(f"M0b,{molecules[0]},{potency(molecules[0]) + 0.4:.3f},")
    return "id,SMILES,potency,hit\n" + "\n".join(rows) + "\n"


SETTINGS_OF_RUN = [
    *SMALL[:6],
    "training.epochs=30",
    "training.learning_rate=1e-2",
    "training.batch_size=16",
    "training.ema=0.9",
    "prediction.forms=3",
    "prediction.weight=0.5",
]


@pytest.fixture(scope="session")
def joint_run(tmp_path_factory: pytest.TempPathFactory, moses_mini: list[str]) -> Run:
    """A small model that predicts a value and a class, trained for seconds."""
    folder = tmp_path_factory.mktemp("joint")
    (folder / "mine.csv").write_text(assay(moses_mini[:N]))
    options = {"data.source": str(folder / "mine.csv"), "data.targets": ["potency", "hit"]}
    return train(load_config(None, SETTINGS_OF_RUN, options), folder / "run")


@pytest.fixture(scope="session")
def predictor(joint_run: Run, pool: Workers) -> RunPredictor:
    return RunPredictor(joint_run, Runtime("cpu", workers=pool))


def test_a_head_leaves_the_weights_of_generation_as_they_are() -> None:
    config = load_config(None, SMALL).model
    plain, joint = build_model(config, 20, seed=3), build_model(config, 20, seed=3, outputs=2)
    ids = torch.randint(3, 20, (4, 9), generator=torch.Generator().manual_seed(0))
    assert torch.equal(plain.eval()(ids), joint.eval()(ids))
    with pytest.raises(ValueError, match="no prediction head"):
        plain.predicted(ids, plain.hidden(ids))


def test_the_bidirectional_mask_sees_the_future_and_never_the_padding() -> None:
    model = build_model(load_config(None, SMALL).model, 20, outputs=1).eval()
    ids = torch.randint(3, 20, (1, 9), generator=torch.Generator().manual_seed(0))
    other = ids.clone()
    other[0, -1] = 3 + (other[0, -1] - 2) % 17
    assert torch.allclose(model.hidden(ids)[:, :-1], model.hidden(other)[:, :-1], atol=1e-6)
    assert not torch.allclose(model.hidden(ids, True)[:, 0], model.hidden(other, True)[:, 0], atol=1e-4)
    padded = torch.cat((ids, torch.tensor([[EOS, PAD, PAD]])), dim=1)  # as in a batch with a longer molecule
    for bidirectional in (False, True):
        with_padding = model.predicted(padded, model.hidden(padded, bidirectional))
        assert torch.allclose(model.predicted(ids, model.hidden(ids, bidirectional)), with_padding, atol=1e-5)


def test_trees_as_arrays_say_what_scikit_learn_says() -> None:
    from sklearn.ensemble import GradientBoostingRegressor, RandomForestRegressor

    random = np.random.default_rng(0)
    counts = (random.random((80, 2_048)) < 0.05).astype(np.uint8) * random.integers(1, 4, (80, 2_048)).astype(np.uint8)
    values = counts[:, :20].sum(axis=1) + random.normal(size=80)
    columns = np.arange(2_048)
    forest = RandomForestRegressor(7, random_state=0).fit(counts, values)
    ours = Trees.of([tree.tree_ for tree in forest.estimators_], columns)
    assert ours(counts).mean(axis=1) == pytest.approx(forest.predict(counts), abs=1e-5)
    boosted = GradientBoostingRegressor(n_estimators=20, learning_rate=0.3, random_state=0).fit(counts, values)
    ours = Trees.of([tree.tree_ for tree in boosted.estimators_[:, 0]], columns, 0.3)
    assert ours(counts).sum(axis=1) + values.mean() == pytest.approx(boosted.predict(counts), abs=1e-4)
    looped = ours.arrays | {"left": np.zeros_like(ours.left)}
    with pytest.raises(ValueError, match="no trees"):  # it would never end
        Trees.of_arrays(looped)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("is_class", [False, True])
def test_each_neighbour_learns_what_a_substructure_does(kind: str, is_class: bool, pool: Workers) -> None:
    smiles = [f"{'C' * n}{ring}" for n in range(1, 13) for ring in ("c1ccccc1", "C1CCCCC1", "C(=O)O", "N")]
    values = np.array([float("c1ccccc1" in one) for one in smiles])
    prints = Fingerprints.of(smiles, pool)
    rows = np.arange(len(smiles))
    fitted = fit(kind, SETTINGS[kind][0], prints, values, is_class, rows)  # type: ignore[arg-type, index]
    found = fitted(Fingerprints.of(["CCCCc1ccc(C)cc1", "CCCCCCCCCCCCCCN"], pool), prints)
    assert found[0] > found[1] + 0.3
    again = fit(kind, SETTINGS[kind][0], prints, values, is_class, rows)  # type: ignore[arg-type, index]
    assert np.array_equal(again(prints, prints), fitted(prints, prints))


def test_every_kind_is_tried_with_the_same_number_of_settings() -> None:
    assert len({len(SETTINGS[kind]) for kind in KINDS}) == 1


def test_similarity_is_tanimoto(pool: Workers) -> None:
    prints = Fingerprints.of(["CCO", "CCO", "c1ccccc1", "no molecule"], pool)
    alike = similarity(prints, prints)
    assert alike[0, 1] == 1
    bits = prints.bits.astype(bool)
    assert alike[0, 2] == pytest.approx((bits[0] & bits[2]).sum() / (bits[0] | bits[2]).sum())
    assert (alike[3] == 0).all()
    assert np.allclose(np.diag(kernel(prints, prints))[:3], 1)
    again = Fingerprints.of_sparse(**prints.sparse)  # type: ignore[arg-type]
    assert np.array_equal(again.counts, prints.counts)


def test_figures_are_those_of_the_textbook() -> None:
    truth, predicted = np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 2.0, 3.0, 6.0])
    assert figures.rmse(truth, predicted) == pytest.approx(1)
    assert figures.mae(truth, predicted) == pytest.approx(0.5)
    assert figures.r2(truth, predicted) == pytest.approx(1 - 4 / 5)
    assert figures.spearman(truth, predicted) == pytest.approx(1)
    classes = np.array([0.0, 0.0, 1.0, 1.0])
    assert figures.roc_auc(classes, np.array([0.1, 0.4, 0.35, 0.8])) == pytest.approx(0.75)
    assert figures.pr_auc(classes, np.array([0.1, 0.4, 0.35, 0.8])) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert figures.roc_auc(classes, np.full(4, 0.5)) == pytest.approx(0.5)
    assert math.isnan(figures.roc_auc(np.ones(3), np.ones(3)))


def test_conformal_intervals_cover_what_they_say_and_are_wider_where_it_is_harder() -> None:
    # Five thousand draws: coverage within 0.9 ± 0.02 fails once in a hundred thousand times.
    random = np.random.default_rng(0)
    hard = np.abs(random.normal(size=7_000)) + 0.1
    difficulties = np.column_stack((np.ones(7_000), hard, *np.zeros((4, 7_000))))
    errors = np.abs(random.normal(size=7_000)) * hard
    found = intervals.Intervals.calibrated(difficulties[:2_000], errors[:2_000], None, 0.9)
    half = found.half_widths(difficulties[2_000:])
    assert (errors[2_000:] <= half).mean() == pytest.approx(0.9, abs=0.02)
    assert half.mean() < found.constant  # narrower than one width for all, at the same coverage
    assert intervals.conformal_quantile(np.arange(1.0, 10.0), 0.9) == 9  # the ninth of nine
    assert intervals.conformal_quantile(np.arange(1.0, 20.0), 0.9) == 18  # rank 18 of 19
    assert intervals.conformal_quantile(np.arange(1.0, 9.0), 0.9) == np.inf  # the ninth of eight
    assert [intervals.fewest_for(coverage) for coverage in (0.5, 0.8, 0.9, 0.95, 0.99)] == [1, 4, 9, 19, 99]


def test_too_few_held_out_molecules_give_no_intervals_and_it_is_said(cli: Cli) -> None:
    keeps = ("--set", "data.min_token_count=1")
    names = [f"{'C' * n}{end}" for n in range(1, 4) for end in ("O", "N", "C(=O)O")]
    Path("few.csv").write_text("SMILES,y\n" + "".join(f"{one},{len(one)}\n" for one in names))
    done = cli("train", "few.csv", "--target", "y", "--out", "r", "--set", "training.epochs=1", *keeps)
    assert done.code == 0, done.err
    assert "y: no neighbours: too few training molecules, they take 10 with a value" in done.err
    assert "y: no intervals: a coverage of 90% takes 9 held-out molecules with a value" in done.err
    assert "(none of `y`: too few held-out molecules)" in Path("r/README.md").read_text()
    predicted = cli("predict", "few.csv", "r")
    assert "y: no intervals" in predicted.err
    (row, *_) = csv.DictReader(io.StringIO(predicted.out))
    assert (row["y_low"], row["y_high"]) == ("", "")
    assert float(row["y"]) > 0
    assert cli("eval", "r", "-n", 20, "--json", "r.json").code == 0
    Path("cautious.yaml").write_text("components:\n  - {model: r, predicted: low, transform: {rising: [0, 9]}}\n")
    refused = cli("optimize", "r", "--objective", "cautious.yaml", "-n", 5, "--out", "o")
    assert refused.code == 2
    assert "no intervals of y" in refused.err


def test_a_target_that_no_predictor_knows_better_than_its_mean_is_said_by_train_and_predict(
    cli: Cli, moses_mini: list[str]
) -> None:
    # what is true of the training molecules is wrong for the others, around the same mean
    split = ["validation" if i % 5 == 0 else "test" if i % 5 == 1 else "train" for i in range(N)]
    middle = float(np.mean([potency(smiles) for smiles in moses_mini[:N]]))
    rows = [
        f"{smiles},{potency(smiles) if part == 'train' else 2 * middle - potency(smiles):.3f},{part}"
        for smiles, part in zip(moses_mini[:N], split, strict=True)
    ]
    Path("turned.csv").write_text("SMILES,y,split\n" + "\n".join(rows) + "\n")
    done = cli("train", "turned.csv", "--target", "y", "--out", "r", "--set", "training.epochs=1")
    assert done.code == 0, done.err
    said = "is no better than the mean of the training molecules (RMSE "
    assert said in done.err
    assert said in cli("predict", "turned.csv", "r").err
    assert "no better than the mean of the training molecules" in Path("r/README.md").read_text()


def test_venn_abers_bounds_hold_the_probability_and_are_close_with_many_molecules() -> None:
    random = np.random.default_rng(0)
    scores = random.random(4_000)
    truth = (random.random(4_000) < scores**2).astype(float)  # overconfident scores
    low, middle, high = intervals.bounds_of(intervals.venn_abers(scores, truth), np.array([0.2, 0.5, 0.9]))
    assert middle == pytest.approx([0.04, 0.25, 0.81], abs=0.06)
    assert (low <= middle).all() and (middle <= high).all()
    assert (high - low).max() < 0.1


def test_too_far_is_where_the_error_reaches_that_of_the_mean() -> None:
    nearest = np.repeat([0.15, 0.35, 0.75], 20)
    errors = np.repeat([1.2, 0.5, 0.2], 20)
    bins = intervals.by_similarity(nearest, errors, np.ones(60))
    assert [one.n for one in bins if one.n] == [20, 20, 20]
    assert intervals.too_far(bins) == bins[0].high <= 0.3
    assert intervals.too_far(intervals.by_similarity(nearest, errors * 0.5, np.ones(60))) is None


@pytest.mark.parametrize(
    ("measured", "calibrated"), [(range(48), True), (range(6), False)], ids=["all values", "bounds, but for six"]
)
def test_neighbours_are_calibrated_beside_a_joint_model_that_is_never_wrong_if_there_are_molecules_for_it(
    measured: range, calibrated: bool, pool: Workers
) -> None:
    smiles = [f"{'C' * n}{ring}" for n in range(1, 13) for ring in ("c1ccccc1", "C1CCCCC1", "C(=O)O", "N")]
    values = np.random.default_rng(0).normal(size=len(smiles))
    known = np.isin(np.arange(len(smiles)), measured)
    held_out = np.arange(len(smiles)) % 2 == 0
    prints = Fingerprints.of(smiles, pool)
    found = Comparison(prints, values, known, held_out, values.copy(), False, smiles).learned(0.9, by_scaffold=False)
    assert found.chosen == "joint"
    assert found.weights["joint"] == 1
    assert set(found.calibrations) == ({"joint", "mean", *KINDS} if calibrated else set())
    assert all(math.isfinite(one.constant) for one in found.calibrations.values())


def test_folds_keep_a_group_together() -> None:
    fold = folds_of(60, 5, [f"g{i % 12}" for i in range(60)])
    assert all(len(set(fold[i::12].tolist())) == 1 for i in range(12))
    assert np.bincount(fold).tolist() == [15, 15, 10, 10, 10]


def test_the_run_keeps_its_labels_and_says_what_predicts(joint_run: Run) -> None:
    assert joint_run.targets == ("potency", "hit")
    assert sum(own[0].relation == ">" for own in joint_run.labels.values()) == N // 10
    assert max(own[0].n for own in joint_run.labels.values()) == 2
    potency_report, hit_report = joint_run.report["prediction"]
    assert potency_report["censored"] > 0
    assert hit_report["is_class"]
    assert {"joint", "forest", "boosting", "svm", "mean", "baseline"} == set(potency_report["errors"])
    assert potency_report["errors"][potency_report["chosen"]] == min(
        value for name, value in potency_report["errors"].items() if name != "baseline"
    )
    assert potency_report["noise"] == pytest.approx(0.4 / math.sqrt(2), rel=1e-2)
    assert "val_error" in joint_run.log()[0]


def test_nothing_in_the_run_is_a_pickle(joint_run: Run) -> None:
    for path in joint_run.path.iterdir():
        assert not path.read_bytes().startswith(b"\x80"), path


def test_predict_writes_a_line_for_each_molecule_with_its_nearest_neighbour(
    cli: Cli, joint_run: Run, moses_mini: list[str]
) -> None:
    known = next(m for m in joint_run.molecules if m.split == "train")
    lines = [f"{moses_mini[200]} a", f"{known.smiles} b", f"{moses_mini[201]}.Cl salt", "C1CC broken", "[Na+].[Cl-] x"]
    Path("new.smi").write_text("\n".join(lines) + "\n")
    done = cli("predict", "new.smi", joint_run.path)
    assert done.code == 0, done.err
    rows = list(csv.DictReader(io.StringIO(done.out)))
    assert list(rows[0]) == [
        *("smiles", "name", "canonical", "potency", "potency_low", "potency_high", "hit", "hit_low", "hit_high"),
        *("nearest_training", "nn_similarity", "potency_nearest", "hit_nearest", "note"),
    ]
    assert [row["name"] for row in rows] == ["a", "b", "salt", "broken", "x"]
    for row in rows[:3]:
        for name in ("potency", "hit"):
            assert float(row[f"{name}_low"]) <= float(row[name]) <= float(row[f"{name}_high"])
    assert (rows[1]["nearest_training"], rows[1]["nn_similarity"]) == (known.smiles, "1.000")
    assert rows[1]["potency_nearest"] == joint_run.labels[known.smiles][0].shown
    assert rows[2]["canonical"] == Chem.CanonSmiles(moses_mini[201])
    assert "smaller fragments cut" in rows[2]["note"]
    assert (rows[3]["potency"], rows[3]["note"]) == ("", "not parsed by RDKit: syntax")
    assert rows[4]["potency"] == ""


def test_a_predictor_may_be_named_and_an_unknown_one_is_refused(
    cli: Cli, joint_run: Run, moses_mini: list[str]
) -> None:
    Path("new.smi").write_text(moses_mini[200] + "\n")
    found = {cli("predict", "new.smi", joint_run.path, "--predictor", kind).out for kind in ("joint", *KINDS, "mean")}
    assert len(found) == 5
    wrong = cli("predict", "new.smi", joint_run.path, "--predictor", "oracle")
    assert wrong.code == 2
    assert "there are joint, forest, boosting, svm, mean" in wrong.err


def test_a_run_without_targets_predicts_nothing(cli: Cli, small_run: Run, moses_mini: list[str]) -> None:
    Path("new.smi").write_text(moses_mini[200] + "\n")
    done = cli("predict", "new.smi", small_run.path)
    assert done.code == 2
    assert "predicts nothing" in done.err and "--target" in done.err


def test_predictions_are_better_than_the_mean_and_the_bounds_take_no_part_in_the_error(
    joint_run: Run, predictor: RunPredictor
) -> None:
    smiles = [m.smiles for m in joint_run.molecules if m.split == "train"]
    labels = LabelArrays.of(joint_run.labels, smiles, 2)
    members = predictor.members(smiles)[0]
    known = labels.measured[:, 0]
    for kind in ("joint", *KINDS):
        error = figures.rmse(labels.values[known, 0], members[kind][known])
        assert error < 0.9 * labels.values[known, 0].std(), kind


def test_a_prediction_does_not_depend_on_the_molecules_beside_it(
    predictor: RunPredictor, moses_mini: list[str]
) -> None:
    smiles = ["CCO", moses_mini[200], "c1ccccc1CCCCCCCCCCCCCCCCCC"]
    together = predictor.members(smiles)
    for i, one in enumerate(smiles):
        alone = predictor.members([one])
        for place in range(2):
            for kind, values in alone[place].items():
                assert values[0] == pytest.approx(together[place][kind][i], abs=1e-3), kind


def test_a_molecule_unlike_all_others_is_too_far_and_what_is_no_molecule_has_no_prediction(
    predictor: RunPredictor,
) -> None:
    predictor.targets[0].__dict__["too_far"] = 0.5
    found = predictor.predict(["[2H]C#CC#CC#C[Si](C)(C)C", ""])["potency"]
    assert found.too_far.tolist() == [True, False]
    assert np.isnan(found.values[1])
    assert "too far" in TOO_FAR


def test_the_prediction_is_a_column_of_tables_and_conditions(cli: Cli, joint_run: Run) -> None:
    done = cli("sample", joint_run.path, "-n", "6", "--where", "potency > 1 and mw < 500", "-o", "hits.csv")
    assert done.code == 0, done.err
    with Path("hits.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    assert all(float(row["potency"]) >= 1 and float(row["mw"]) < 500 for row in rows)
    assert {"potency_low", "potency_high", "hit"} <= set(rows[0])
    assert json.loads(Path("hits.meta.json").read_text())["filters"]["where"] == "potency > 1 and mw < 500"
    chosen = cli("sample", joint_run.path, "-n", "3", "-o", "few.csv", "--columns", "smiles,potency_low", "--valid")
    assert chosen.code == 0, chosen.err
    assert Path("few.csv").read_text().startswith("smiles,potency_low\n")
    wrong = cli("sample", joint_run.path, "-n", "3", "--where", "potencey > 2")
    assert wrong.code == 2


def test_python_gets_the_same_column(joint_run: Run, pool: Workers) -> None:
    generator = MoleculeGenerator.load(joint_run.path, runtime=Runtime("cpu", workers=pool))
    frame = generator.sample(6, valid=True, where="hit < 0.9", columns=["potency", "qed"])
    assert frame["potency"].notna().all() and frame["qed"].between(0, 1).all()


def test_eval_has_the_figures_of_every_predictor_on_the_same_molecules(cli: Cli, joint_run: Run) -> None:
    done = cli("eval", joint_run.path, "-n", "20", "--json", "figures.json", "--report", "report.html")
    assert done.code == 0, done.err
    found = json.loads(Path("figures.json").read_text())["predictions"]
    value, hit = found["potency"], found["hit"]
    assert {"joint", "forest", "boosting", "svm", "mean", "the mean"} == set(value["predictors"])
    assert {"rmse", "rmse_stderr", "mae", "r2", "spearman"} <= set(value["predictors"]["svm"])
    assert {"roc_auc", "pr_auc"} <= set(hit["predictors"]["forest"])
    assert {"random", "grouped", "scaffold"} == set(value["splits"])
    assert 0 <= value["intervals"]["coverage"] <= 1
    assert value["censored"] >= 0
    assert "potency, test split" in done.out and "(taken)" in done.out
    page = Path("report.html").read_text()
    assert "Predictions" in page


def test_an_objective_may_ask_a_run_for_a_prediction_and_its_interval(joint_run: Run, predictor: RunPredictor) -> None:
    values = {"model": str(joint_run.path), "target": "potency", "transform": {"rising": [1, 3]}}
    objective = load_objective({"components": [values, values | {"predicted": "low"}, values | {"predicted": "width"}]})
    components = objective.columns
    assert list(components) == ["potency", "potency_low", "potency_width"]
    smiles = ["CC(=O)Nc1ccc(O)cc1"]
    middle, low, width = (component_values(one, predictor)(smiles)[0] for one in components.values())
    assert low < middle
    assert width == pytest.approx(2 * (middle - low))
    with pytest.raises(MolgenError, match="no target logd"):
        component_values(Component(**values | {"target": "logd"}), predictor)  # type: ignore[arg-type]
    with pytest.raises(MolgenError, match="several targets"):
        component_values(Component(**values | {"target": None}), predictor)  # type: ignore[arg-type]


def test_a_class_and_qed_are_scores_as_they_are_and_a_predicted_value_needs_a_range(
    cli: Cli, joint_run: Run, tmp_path: Path
) -> None:
    asked = tmp_path / "asked.yaml"
    lines = f"components:\n  - property: qed\n  - {{model: {joint_run.path}, target: hit}}\n"
    asked.write_text(lines)
    tried = cli("optimize", "moses-small", "--objective", asked, "--dry-run")
    rows = [line.split("\t") for line in tried.out.splitlines()]
    assert rows[0][:4] == ["smiles", "total", "qed", "hit"]
    assert len(rows) == 11
    for _, total, qed, hit, *_ in rows[1:]:
        assert float(total) == pytest.approx(math.sqrt(float(qed) * float(hit)), rel=1e-2)
    asked.write_text(lines + f"  - {{model: {joint_run.path}, target: potency}}\n")
    refused = cli("optimize", "moses-small", "--objective", asked, "--dry-run")
    assert refused.code == 2
    assert "potency: a raw number needs a transform; its values are" in refused.err
    with pytest.raises(MolgenError, match="potency: a raw number"):
        score_of(str(asked))


def test_a_resumed_joint_training_ends_with_the_same_weights(tmp_path: Path, moses_mini: list[str]) -> None:
    (tmp_path / "mine.csv").write_text(assay(moses_mini[:60]))
    options = {"data.source": str(tmp_path / "mine.csv"), "data.targets": ["potency"], "training.device": "cpu"}
    settings = [*SETTINGS_OF_RUN, "training.epochs=2", "data.min_token_count=1"]
    whole = train(load_config(None, settings, options), tmp_path / "whole")
    shutil.copytree(whole.path, tmp_path / "again")
    (tmp_path / "again" / "report.json").unlink()
    again = train(whole.config, tmp_path / "again", resume=True)
    assert (again.path / PREDICTORS).read_bytes() == (whole.path / PREDICTORS).read_bytes()
    assert again.weights_sha256 == whole.weights_sha256


def test_damaged_predictors_are_refused(joint_run: Run, tmp_path: Path) -> None:
    shutil.copytree(joint_run.path, tmp_path / "run")
    path = tmp_path / "run" / PREDICTORS
    content = path.read_bytes()
    for damaged in (b"", content[:1_000], b"\x80\x04K\x01.", content[:-100]):
        path.write_bytes(damaged)
        with pytest.raises(MolgenError, match="cannot be read"):
            RunPredictor(Run(tmp_path / "run"), Runtime("cpu"))


def test_explain_draws_the_atoms_that_raise_a_prediction(cli: Cli, joint_run: Run, predictor: RunPredictor) -> None:
    Path("new.smi").write_text("CCCCc1ccc(Cl)cc1 first\nC1CC broken\nOCC(O)CO second\n")
    done = cli("predict", "new.smi", joint_run.path, "--explain", "why.svg")
    assert done.code == 0, done.err
    assert "<path" in Path("why.svg").read_text()
    found = contributions(predictor, ["CCCCc1ccc(Cl)cc1", "no molecule"], "potency")
    assert found[0] is not None and len(found[0]) == 11 and found[1] is None
    assert cli("predict", "new.smi", joint_run.path, "--explain", "why.pdf").code == 2
    assert cli("predict", "new.smi", joint_run.path, "--explain", "why.svg").code == 2  # it exists


@pytest.mark.slow
def test_every_command_of_the_page_on_prediction_runs_in_order(cli: Cli, moses_mini: list[str]) -> None:
    page = (Path(__file__).parents[1] / "docs" / "prediction.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```sh\n(.*?)```", page, flags=re.S)
    lines = [line for block in blocks for line in block.splitlines()]
    assert len(lines) == 6
    rows = []
    for i, smiles in enumerate(moses_mini[:120]):
        relation = ">" if i % 10 == 3 else "="
        rows.append(f"M{i},{smiles},{relation},{10 ** (9 - 4 - potency(smiles)):.1f}")
    Path("assay.csv").write_text("id,SMILES,relation,IC50_nM\n" + "\n".join(rows) + "\n")
    Path("new.smi").write_text("".join(f"{smiles} N{i}\n" for i, smiles in enumerate(moses_mini[200:210])))
    for line in lines:
        line = line.replace("molgen train ", "molgen train --set training.epochs=1 --set data.min_token_count=1 ")
        command, _, target = line.partition(" > ") if line.endswith(".csv") and "predict" in line else (line, "", "")
        done = cli(*shlex.split(command)[1:])
        assert done.code == 0, (line, done.err)
        if target:
            Path(target).write_text(done.out)
    with Path("predictions.csv").open() as file:
        assert all(float(row["pIC50_low"]) < float(row["pIC50"]) for row in csv.DictReader(file))
    assert {"why.svg", "hits.csv", "potency.html"} <= {path.name for path in Path().iterdir()}
