"""Evaluations from outside: a list, files and runs, with baselines, references, the cache and the table."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import molgen
from molgen.data.sources import reference_smiles
from molgen.evaluation.evaluate import Evaluation, histogram, run_benchmarks
from molgen.evaluation.evaluate import parts as parts_of
from molgen.evaluation.text_table import Column, cell, columns, sections, table
from molgen.metrics.metric import MetricValues
from molgen.metrics.profile import describe
from molgen.metrics.references import ComparisonSets, ReferenceCache, ReferenceSet, resampled
from molgen.runs import Run
from tests.conftest import Cli
from tests.conftest import evaluate_with as evaluate


@pytest.fixture(scope="module")
def training(moses_mini: list[str]) -> list[str]:
    return moses_mini[:300]


def test_a_list_is_evaluated_from_python_and_comes_out_as_a_data_frame(
    training: list[str], references: ReferenceCache
) -> None:
    samples = [*training[:10], *training[:2], "C(", "CCOCCOCC"]
    evaluation = evaluate(samples, metrics=["chem"], training=training, held_out=["CCOCCOCC"], references=references)
    values = evaluation.figures.values
    assert (values["validity"], values["uniqueness"], values["novelty"]) == (13 / 14, 11 / 13, 1 / 11)
    assert values["chem/nearest_1"] == 12 / 13
    assert values["chem/rediscovered"] == 1
    frame = evaluation.to_frame()
    assert frame.loc["validity", "samples"] == 13 / 14
    assert {"samples", "floor", "held-out"} <= set(frame.columns)
    assert evaluation.neighbours[training[0]] == (training[0], 1.0)


def test_public_evaluate_opens_its_own_workers(training: list[str], monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MOLGEN_DATA", str(tmp_path))
    assert molgen.evaluate(["CCO", "C("], training=training[:5]).figures.values["validity"] == 0.5


def test_every_set_level_figure_has_a_floor_of_equal_n_and_what_to_beat(
    training: list[str], references: ReferenceCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    # two test sets of a thousand would take half a minute
    monkeypatch.setattr("molgen.metrics.references.reference_smiles", lambda *split: reference_smiles(*split)[:150])
    samples = ["CCOc1ccccc1", *training[100:139]]
    sets = ComparisonSets(ReferenceSet.of("training", training), None, "moses-mini")
    findings = run_benchmarks(
        describe(samples, parts_of(["moses", "guacamol"]), references.runtime, "samples"),
        ["moses", "guacamol"],
        sets,
        references,
    )
    assert set(findings.baselines) == {"floor", "copy", "add-carbon"}
    for name in ("FCD/Test", "SNN/TestSF", "Frag/Test", "IntDiv", "guacamol/KL_score", "guacamol/FCD"):
        for baseline in findings.baselines.values():
            assert baseline.values[name] is not None, name
    assert {f.values["n_valid"] for f in findings.baselines.values()} == {40}
    assert findings.baselines["floor"].values["Novelty"] == 0
    assert findings.baselines["copy"].values["Novelty"] == 0
    assert findings.baselines["add-carbon"].values["Novelty"] == 1
    assert findings.baselines["floor"].values["unique@1000"] == 1
    assert any("biased" in note for note in findings.notes)


def test_a_resampled_set_repeats_molecules_as_draws_with_replacement_do(
    training: list[str], references: ReferenceCache
) -> None:
    # 300 draws from 300 molecules leave about (1 - 1/e) of them, give or take six
    whole = describe(training, ["canonical"], references.runtime, "training")
    drawn = resampled(whole, 300, 300)
    assert len(drawn) == 300
    assert abs(len(set(drawn.strings("canonical"))) - 300 * (1 - np.exp(-1))) < 25
    assert len(set(resampled(whole, 10**9, 200).strings("canonical"))) == 200


def test_a_reference_set_is_computed_once(training: list[str], references: ReferenceCache, monkeypatch) -> None:
    molecules = ReferenceSet.of("training", training)
    first = references.random_table(molecules, 50, "random", ["canonical"])
    monkeypatch.setattr("molgen.metrics.references.describe", None)
    again = references.random_table(ReferenceSet.of("training", training), 50, "random", ["canonical"])
    assert again.strings("canonical") == first.strings("canonical")
    with pytest.raises(TypeError):
        references.random_table(ReferenceSet.of("training", training[1:]), 50, "random", ["canonical"])


def test_histograms_count_shares_and_keep_outliers() -> None:
    shown = histogram({"a": np.array([0.0, 0.1, 0.9, 5.0]), "b": np.array([])}, (0.0, 1.0), bins=2)
    assert shown == {"edges": [0, 0.5, 1.0], "a": [0.5, 0.5]}
    assert histogram({"b": np.array([])}) == {}


def test_fcd_of_few_molecules_is_starred_and_published_rows_need_thirty_thousand(references: ReferenceCache) -> None:
    evaluation = evaluate(["CCO", "CCN"], references=references)
    evaluation.figures.values |= {"FCD/Test": 0.5}
    row = next(r for _, rows in sections(columns([evaluation])) for r in rows if r.key == "FCD/Test")
    assert cell(columns([evaluation])[0], row) == "0.500*"
    assert len(columns([evaluation])) == 1
    evaluation.figures.values |= {"n_samples": 30_000, "n_valid": 29_000}
    assert cell(columns([evaluation])[0], row) == "0.500"
    assert any("CharRNN" in column.title for column in columns([evaluation]))
    assert "–" in cell(Column("x", MetricValues(), 3), row)
    assert "biased" not in table([evaluation])


def test_the_figures_of_runs_side_by_side_stay_apart() -> None:
    values = {"nll": 21.02, "nll_stderr": 0.72, "n_samples": 10_000}
    evaluations = [Evaluation(name, MetricValues(values)) for name in ("large-a", "b")]
    (line,) = [line for line in table(evaluations).splitlines() if line.startswith("NLL, nats per molecule")]
    assert line.split("  ")[-2:] == ["21.02 ± 0.72", "21.02 ± 0.72"]


def test_a_run_is_evaluated_with_all_metrics_and_the_gap_to_training(
    cli: Cli, small_run: Run, small_file: Path
) -> None:
    command = ["--metrics", "moses", "--metrics", "guacamol", "--metrics", "chem", "--reference", small_file]
    done = cli("eval", small_run.path, "-n", 60, *command, "--json", "x.json")
    assert done.code == 0, done.err
    values = json.loads(Path("x.json").read_text())
    assert values["nll_gap"] == pytest.approx(values["nll"] - values["nll_train"])
    assert set(values["histograms"]["nll"]) == {"edges", "training", "test", "samples"}
    assert values["n_samples"] == 60 and values["guacamol/n_valid"] >= values["n_valid"]
    for section in ("Likelihood", "Samples", "MOSES", "GuacaMol", "Chemistry"):
        assert section in done.out
    json.dumps(values, allow_nan=False)


def test_files_stand_side_by_side_with_their_floors(cli: Cli, moses_mini: list[str]) -> None:
    Path("a.smi").write_text("\n".join(moses_mini[:30]) + "\n")
    Path("b.smi").write_text("\n".join([*moses_mini[30:50], "C("]) + "\n")
    Path("train.smi").write_text("\n".join(moses_mini[:200]) + "\n")
    done = cli("eval", "a.smi", "b.smi", "--metrics", "chem", "--train", "train.smi", "--json", "x.json")
    assert done.code == 0, done.err
    header, sizes = done.out.splitlines()[:2]
    assert header.split() == ["a.smi", "floor", "b.smi", "floor"]
    assert sizes.split() == ["n", "=", "30", "n", "=", "30", "n", "=", "21", "n", "=", "20"]
    first, second = json.loads(Path("x.json").read_text())
    assert first["chem/nearest_1"] == 1 and second["validity"] == 20 / 21


def test_an_unknown_metric_is_refused_with_the_known_ones(cli: Cli) -> None:
    Path("a.smi").write_text("C\n")
    done = cli("eval", "a.smi", "--metrics", "mose")
    assert done.code == 2 and "guacamol" in done.err


def test_importing_the_evaluation_does_not_import_scipy_or_pandas() -> None:
    heavy = "{'scipy.stats', 'pandas', 'fcd_torch'}"
    script = f"import molgen.evaluation.evaluate, sys; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
