"""What the documents say is true: every recipe trains, every command of the README runs, the tree is complete."""

import gzip
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import chembl_like
import pytest
from chembl_like import Case
from conftest import SHARED, SMALL, Cli
from rdkit import Chem

from molgen.config import load_config, recipes
from molgen.runs import Run

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("name", recipes())
def test_every_shipped_recipe_trains_and_samples(name: str, cli: Cli, moses_mini: list[str]) -> None:
    Path("some.smi").write_text("\n".join(moses_mini[:120]) + "\n")
    short = ["data.train_size=90", "data.validation_size=15", "data.min_token_count=1", "training.epochs=1"]
    origin = load_config(name).training.init
    if origin:  # the run that the recipe starts from, which has the model section
        first = [part for setting in [*short, *SMALL] for part in ("--set", setting)]
        assert cli("train", "some.smi", "--out", origin, *first).code == 0
    short += [] if origin else ["model.blocks=2"]
    data = ["some.smi"]
    if load_config(name).data.sources:  # a mixture, with sources of its own
        Path("other.smi").write_text("\n".join(moses_mini[120:200]) + "\n")
        data, mixture = [], ["data.sources={some.smi: 0.6, other.smi: 0.4}", "data.exclude=[]"]
        short = [*mixture, *(setting for setting in short if "_size" not in setting)]
    settings = [part for setting in short for part in ("--set", setting)]
    trained = cli("train", *data, "--config", name, "--out", "run", *settings)
    assert trained.code == 0, trained.err
    sampled = cli("sample", "run", "-n", "5")
    assert len(sampled.out.splitlines()) == 5


def commands(text: str) -> list[str]:
    """The lines of the ```sh blocks, without comments."""
    blocks = re.findall(r"```sh\n(.*?)```", text, flags=re.S)
    lines = [line.split("#")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line]


def shortened(line: str) -> str:
    """The same command with a model of toy size and few samples, and enough epochs for the run that they come from."""
    line = line.replace("train moses-mini", "train mine.csv")  # twenty thousand would be cleaned for ten seconds
    if line.startswith("molgen train"):
        little = "mine.csv" in line or "actives.smi" in line
        epochs = 24 if "--out runs/mine" in line else 2 if little else 1
        settings = [*SMALL, "model.context=128", f"training.epochs={epochs}", "training.batch_size=16"]
        settings += ["training.learning_rate=1e-2"] if little else []
        settings += [] if little or "moses" in line else ["data.train_size=600", "data.validation_size=100"]
        line += "".join(f" --set {setting}" for setting in settings)
    line = re.sub(r"-n [0-9]+", "-n 60", line)
    # all of moses-mini would be described for a minute
    line = line.replace("--reference moses-mini", "--reference mine.csv")
    return line + " -n 20" if line == "molgen eval" else line


@pytest.mark.slow
def test_every_command_of_the_readme_runs_in_order(
    cli: Cli, moses_mini: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [line for line in commands(README) if line.startswith("molgen")]
    assert len(lines) >= 10
    assert {line.split()[1] for line in lines} == {"train", "sample", "eval", "score", "data", "optimize", "predict"}
    molecules = [f"{i},{smiles},{i % 7}" for i, smiles in enumerate(moses_mini[:150])]
    Path("mine.csv").write_text("\n".join(["id,smiles,activity", *molecules]) + "\n")
    Path("actives.smi").write_text("\n".join(moses_mini[150:190]) + "\n")
    data = SHARED / "data" if (SHARED / "data" / "tox21.csv.gz").exists() else ROOT / "data"
    monkeypatch.setenv("MOLGEN_DATA", str(data))
    if not (data / "tox21.csv.gz").exists():
        lines = [line for line in lines if line != "molgen train" and "tox21" not in line]
        lines.sort(key=lambda line: not line.startswith("molgen train mine"))  # what samples needs a run
    for line in lines:
        if re.search("[|>]", re.sub('"[^"]*"', "", line)):  # a shell's, not a condition's
            command = shortened(line).replace("molgen", f"{shlex.quote(sys.executable)} -m molgen", 1)
            shell = ["bash", "-o", "pipefail", "-c", command]
            code = subprocess.run(shell, check=False).returncode
        else:
            code, _, err = cli(*shlex.split(shortened(line))[1:])
            assert "Traceback" not in err
        assert code == 0, line


def for_little_data(line: str) -> str:
    """A command of the guide for a hundred molecules: a model of toy size, and a few samples."""
    line = line.replace("train moses-mini", "train vendor.smi")
    if line.startswith("molgen train"):
        epochs = 24 if "runs/chembl" in line or "runs/actives" in line else 2  # samples come from these two
        settings = [f"training.epochs={epochs}", "training.learning_rate=1e-2", "training.batch_size=16"]
        settings += [] if "--init" in line else SMALL
        line += "".join(f" --set {setting}" for setting in settings)
    return re.sub(r"-n [0-9]+", "-n 60" if " eval " in line else "-n 15", line)


@pytest.mark.slow
def test_every_command_of_the_guide_runs_in_order(cli: Cli, moses_mini: list[str]) -> None:
    lines = commands((ROOT / "docs" / "guide.md").read_text(encoding="utf-8"))
    assert len(lines) >= 18
    Path("chembl.csv").write_bytes(chembl_like.table([Case(smiles, "", smiles) for smiles in moses_mini[:150]]))
    Path("vendor.smi").write_text("".join(f"{smiles} V-{i}\n" for i, smiles in enumerate(moses_mini[150:300])))
    Path("actives.smi").write_text("\n".join(moses_mini[300:340]) + "\n")
    with Chem.SDWriter("library.sdf") as writer:
        for smiles in moses_mini[340:480]:
            writer.write(Chem.MolFromSmiles(smiles))
    Path("library.sdf.gz").write_bytes(gzip.compress(Path("library.sdf").read_bytes()))
    for line in lines:
        if re.search(r"^cat |>[^'\"]*$", line):
            command = for_little_data(line).replace("molgen ", f"{shlex.quote(sys.executable)} -m molgen ", 1)
            code = subprocess.run(["bash", "-o", "pipefail", "-c", command], check=False).returncode
        else:
            code, _, err = cli(*shlex.split(for_little_data(line))[1:])
            assert "Traceback" not in err
        assert code == 0, line
    made = {path.name for path in Path().iterdir()}
    assert made >= {"clean.csv", "clean.dropped.csv.gz", "new.csv", "new.meta.json", "shortlist.sdf", "chembl.html"}


@pytest.mark.slow
def test_every_cell_of_the_notebook_runs(small_file: Path, tmp_path: Path) -> None:
    notebook = json.loads((ROOT / "docs" / "first_day.ipynb").read_text(encoding="utf-8"))
    assert len(notebook["cells"]) == 10
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    overrides = [*SMALL, "training.epochs=24", "training.learning_rate=1e-2", "training.batch_size=16"]
    little = f"load_config(None, {overrides!r}, {{'data.source': {str(small_file)!r}}})"
    cells[0] = cells[0].replace('load_config("moses-mini")', little)
    cells = [
        cell.replace("sample(2000", "sample(100").replace("mw < 330 and qed > 0.85", "qed > 0.1") for cell in cells
    ]
    # a notebook shows the value of a cell's last line, as HTML where it can
    (tmp_path / "cells.json").write_text(json.dumps(cells))
    (tmp_path / "run.py").write_text(
        "import ast, json, matplotlib; matplotlib.use('agg'); names = {}\n"
        "for text in json.load(open('cells.json')):\n"
        "    *statements, last = ast.parse(text).body\n"
        "    exec(compile(ast.Module(statements, []), 'cell', 'exec'), names)\n"
        "    shown = isinstance(last, ast.Expr)\n"
        "    value = eval(compile(ast.Expression(last.value), 'cell', 'eval'), names) if shown else exec(\n"
        "        compile(ast.Module([last], []), 'cell', 'exec'), names)\n"
        "    print(value._repr_html_() if hasattr(value, '_repr_html_') else value)\n"
    )
    done = subprocess.run([sys.executable, "run.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("<svg") >= 6
    assert "'n_samples': 100" in done.stdout


@pytest.mark.slow
def test_the_python_example_of_the_readme_runs(small_run: Run, small_file: Path, tmp_path: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README, flags=re.S)
    little = f"load_config(None, {[*SMALL, 'training.epochs=1']!r}, {{'data.source': {str(small_file)!r}}})"
    example = example.replace('load_config("moses-mini", ["training.epochs=1"])', little)
    assert little in example
    example = re.sub(r"sample\(\d+", "sample(20", example).replace("runs/demo", str(small_run.path))
    (tmp_path / "example.py").write_text(example)
    done = subprocess.run([sys.executable, "example.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_readme_names_every_module_once_and_no_module_that_is_gone() -> None:
    (tree,) = re.findall(r"```text\n(molgen/.*?)```", README, flags=re.S)
    named = re.findall(r"(\w+\.py)", tree)
    there = [
        path.name
        for path in (ROOT / "molgen").rglob("*.py")
        if "assets" not in path.parts and (path.parent.name == "molgen" or path.name != "__init__.py")
    ]
    assert sorted(named) == sorted(there)


def test_every_file_that_the_readme_links_exists() -> None:
    prose = re.sub(r"```.*?```", "", README, flags=re.S)  # a SMILES may look like a link
    targets = re.findall(r"\]\(((?!http)[^)#]+)\)", prose)
    assert len(targets) > 5
    for target in targets:
        assert (ROOT / target).exists(), target


def test_the_hashes_are_those_of_pinned_versions() -> None:
    names = [re.split(r"[=\s]+", line)[:2] for line in (ROOT / "hashes.txt").read_text().splitlines() if line[0] != "#"]
    pins = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {re.sub("[-_.]+", "-", pin.split("==")[0]).lower(): pin.split("==")[-1] for pin in pins if "==" in pin}
    assert len(names) >= 50
    for name, release in names:
        assert pinned[re.sub("[-_.]+", "-", name).lower()] == release, name


def test_ci_runs_the_test_command_of_the_readme() -> None:
    assert "make test" in commands(README)
    assert "make test" in (ROOT / ".ci" / "run").read_text()
