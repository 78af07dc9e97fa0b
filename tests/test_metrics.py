"""A family of figures is one module: the evaluation, its table and the command line know it by its name alone."""

import json
import pkgutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import get_args

import pytest

import molgen.metrics
from molgen.chem.descriptors import PARTS
from molgen.chem.pool import Workers
from molgen.evaluation.evaluate import evaluate_targets
from molgen.evaluation.options import EvalOptions
from molgen.evaluation.text_table import ROWS
from molgen.machine import Runtime
from molgen.metrics import MetricName, all_metrics
from molgen.metrics.references import ReferenceCache
from tests.conftest import evaluate_with

LENGTH = '''
"""How long the SMILES are, beside as many training molecules."""

from molgen.metrics.metric import BenchmarkResult, Metric, MetricValues, Row


def figures(table):
    lengths = [len(smiles) for smiles in table.strings("canonical")]
    return MetricValues({"length/n": len(lengths), "length/mean": sum(lengths) / len(lengths)})


def resolve(sets, references, n):
    return None if sets.training is None else references.random_table(sets.training, n, "random", ("canonical",))


def compute(samples, floor):
    result = BenchmarkResult(figures(samples), notes=["lengths are of canonical SMILES"])
    if floor is not None:
        result.baseline("floor").add(figures(floor))
    return result


METRIC = Metric(
    title="Lengths",
    rows=(Row("length/mean", "characters", ".2f"),),
    parts=("canonical",),
    resolve=resolve,
    compute=compute,
    size="length/n",
)
'''
# its module in the package, its name among the others, and nothing else
COMMAND = """
import sys, typing
import molgen.metrics
molgen.metrics.__path__.append(sys.argv[1])
molgen.metrics.MetricName = typing.Literal[(*typing.get_args(molgen.metrics.MetricName), "length")]
from molgen.cli.main import main
main(sys.argv[2:])
"""


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", COMMAND, str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder)


def test_a_new_family_is_one_module_and_its_name(tmp_path: Path) -> None:
    (tmp_path / "length.py").write_text(LENGTH)
    (tmp_path / "a.smi").write_text("OCC\nC\nC(\n")
    (tmp_path / "train.smi").write_text("CCCC\nCCCCCC\n")
    done = run(tmp_path, "eval", "a.smi", "--metrics", "length", "--train", "train.smi", "--json", "x.json")
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "x.json").read_text())
    assert (figures["length/mean"], figures["baselines"]["floor"]["length/mean"]) == (2.0, 5.0)
    assert figures["validity"] == 2 / 3  # the basic figures are always among them
    heading, sizes, *lines = done.stdout.splitlines()
    assert (heading.split(), sizes.split()) == (["a.smi", "floor"], ["n", "=", "3", "n", "=", "2"])
    assert ["characters", "2.00", "5.00"] in [line.split() for line in lines]
    assert "a.smi: lengths are of canonical SMILES" in lines
    assert "|length]" in run(tmp_path, "eval", "--help").stdout


def test_every_module_with_a_metric_is_a_family_of_its_name() -> None:
    names = {module.name for module in pkgutil.iter_modules(molgen.metrics.__path__)}
    with_metric = {name for name in names if hasattr(import_module(f"molgen.metrics.{name}"), "METRIC")}
    assert with_metric == set(get_args(MetricName)) == set(all_metrics())


def test_families_name_parts_that_there_are_and_figures_of_their_own() -> None:
    for metric in all_metrics().values():
        assert set(metric.parts) <= {*PARTS, "filters", "activations"}
    keys = [row.key for row in ROWS]
    assert len(set(keys)) == len(keys)


def test_files_and_references_are_named_by_strings_or_paths(
    tmp_path: Path, pool: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOLGEN_DATA", str(tmp_path / "data"))
    path = tmp_path / "a.smi"
    path.write_text("CCO\nCCN\n")
    options = EvalOptions(["chem"], reference=str(path))
    by_path, by_string = evaluate_targets([path, str(path)], options, Runtime("cpu", workers=pool))
    assert by_path.name == by_string.name == str(path)
    assert by_path.figures == by_string.figures
    assert by_path.figures.values["chem/rediscovered"] == 1


def test_every_stage_of_an_evaluation_is_timed_for_itself(references: ReferenceCache) -> None:
    first = evaluate_with(["CCO", "CCN"], references=references, metrics=["guacamol"])
    assert set(first.seconds) == {"molecules", "ChemNet", "total"}
    assert sum(first.seconds.values()) <= 2 * first.seconds["total"]
    assert set(evaluate_with(["CCO"], references=references).seconds) == {"molecules", "total"}
