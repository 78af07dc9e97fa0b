"""The run that comes with the package: small, without molecules, of use at once."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import SHARED, Cli
from rdkit import Chem
from rdkit.Chem.Descriptors import MolWt
from safetensors import safe_open

from molgen.chem.pool import Workers
from molgen.config import DataConfig
from molgen.data.download import is_here
from molgen.data.parents import parent_smiles
from molgen.data.sources import reference_smiles, rows_of
from molgen.runs import SHIPPED, Run, find_run

ROOT = Path(__file__).parents[1]
MOSES_ELEMENTS = {"C", "N", "S", "O", "F", "Cl", "Br", "H"}


@pytest.fixture
def no_moses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A newcomer's machine: MOSES is neither there nor to be had."""
    monkeypatch.setenv("MOLGEN_DATA", str(tmp_path / "nothing-here"))
    monkeypatch.setattr("molgen.data.download._download_moses", lambda _: pytest.fail("fetches MOSES unasked"))


@pytest.mark.usefixtures("no_moses")
def test_a_newcomer_draws_drug_like_molecules_without_any_training(cli: Cli) -> None:
    done = cli("sample", "moses-small", "-n", 500)
    assert done.code == 0
    molecules = [mol for line in done.out.splitlines() if (mol := Chem.MolFromSmiles(line)) is not None]
    assert len(molecules) > 0.93 * 500  # with a true validity of 0.96, 465 is three standard errors away
    assert len({Chem.MolToSmiles(mol) for mol in molecules}) > 490 - (500 - len(molecules))
    assert {atom.GetSymbol() for mol in molecules for atom in mol.GetAtoms()} <= MOSES_ELEMENTS
    weights = [MolWt(mol) for mol in molecules]
    assert sum(225 < weight < 375 for weight in weights) > 0.95 * len(weights)  # MOSES is 250 to 350
    assert "no novelty" in done.err
    assert "--train moses" in done.err


@pytest.mark.usefixtures("no_moses")
def test_novelty_of_the_shipped_run_needs_a_training_set_and_says_which(cli: Cli) -> None:
    done = cli("eval", "moses-small", "-n", 50, "--json", "a.json")
    assert done.code == 0
    assert "`molgen eval moses-small --train moses`" in done.out
    text = Path("a.json").read_text()
    assert '"novelty": null' in text and '"nll": null' in text
    Path("mine.smi").write_text("CCO\n")
    assert cli("eval", "moses-small", "-n", 50, "--train", "mine.smi", "--json", "b.json").code == 0
    assert '"novelty": 1.0' in Path("b.json").read_text()


@pytest.mark.parametrize("name", ["moses-small", "druglike"])
def test_the_weights_of_a_shipped_run_are_in_half_precision(name: str) -> None:
    run = find_run(name)
    with safe_open(str(run.path / "model.safetensors"), framework="pt") as file:
        kinds = {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118 - not a mapping
    assert kinds == {"BF16"}


@pytest.mark.usefixtures("no_moses")
def test_the_broad_run_writes_stereo_and_charges_and_is_mostly_valid(cli: Cli) -> None:
    done = cli("sample", "druglike", "-n", 600)
    assert done.code == 0
    lines = done.out.splitlines()
    valid = [line for line in lines if Chem.MolFromSmiles(line) is not None]
    assert len(valid) > 0.92 * 600  # with a true validity of 0.95, 552 is three standard errors away
    assert sum("@" in line for line in valid) > 100
    assert sum("+" in line for line in valid) > 20


@pytest.mark.parametrize("name", ["moses-small", "druglike"])
def test_a_shipped_run_holds_keys_in_place_of_molecules_and_is_small(name: str) -> None:
    run = find_run(name)
    files = {path.name: path.stat().st_size for path in run.path.iterdir()}
    wanted = {"README.md", "config.yaml", "log.csv", "model.safetensors", "parents.safetensors", "report.json"}
    assert set(files) == wanted | {"tokenizer.json"}
    assert sum(files.values()) <= 6_000_000


def test_the_run_on_moses_knows_what_it_was_trained_on_and_no_more(pool: Workers) -> None:
    if not is_here("moses"):
        pytest.skip("MOSES is not here")
    run = find_run("moses-small")
    assert run.parents is not None
    training = reference_smiles("moses", "train")
    as_written = run.parents.known(training, set(training)).sum()  # MOSES' molecules are their own parents
    assert as_written + len(run.parents.keys) == run.report["sizes"]["train"]  # some RDKit writes otherwise
    test = reference_smiles("moses", "test")[::100]
    assert not run.parents.known(parent_smiles(test, pool), set(training)).any()


def test_the_card_of_the_broad_run_says_what_its_data_mean_for_the_weights() -> None:
    card = (find_run("druglike").path / "README.md").read_text()
    assert "CC BY-SA" in card
    assert "macrocycle" in card


def test_the_broad_run_knows_no_answer_of_the_benchmarks(pool: Workers) -> None:
    trained_on = find_run("druglike").parents
    assert trained_on is not None
    moses = reference_smiles("moses", "train") if is_here("moses") else []
    answers = {"benchmark-targets": [row.smiles for row in rows_of(DataConfig(source="benchmark-targets"))]}
    if (table := SHARED / "data" / "tox21.csv.gz").exists():
        answers["tox21"] = reference_smiles(str(table), "train")
    if is_here("moleculeace"):
        rows = rows_of(DataConfig(source="moleculeace"))
        answers["moleculeace"] = sorted({row.smiles for row in rows if row.split == "test"})
    counted = {
        name: int(trained_on.known(parent_smiles(smiles, pool), set(moses)).sum()) for name, smiles in answers.items()
    }
    assert counted == dict.fromkeys(answers, 0)


def test_a_run_of_ones_own_comes_before_the_shipped_one_of_its_name(
    small_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_run("moses-small").path == SHIPPED / "moses-small"
    own = shutil.copytree(small_run.path, tmp_path / "runs" / "moses-small")
    assert find_run("moses-small").path.resolve() == own


def test_without_a_run_the_shipped_one_is_offered(cli: Cli) -> None:
    assert "`moses-small`" in cli("sample").err


@pytest.mark.slow
@pytest.mark.usefixtures("no_moses")
def test_a_few_molecules_of_ones_own_fine_tune_the_shipped_run_into_one_of_its_name(
    cli: Cli, moses_mini: list[str]
) -> None:
    Path("actives.smi").write_text("\n".join(moses_mini[:60]) + "\n")
    done = cli(
        "train", "actives.smi", "--init", "moses-small", "--set", "training.epochs=1", "--out", "runs/moses-small"
    )
    assert done.code == 0
    assert "tokens are used" in done.err
    assert "MOSES is not here" in done.err
    assert "knows at least 0 of the" in done.err
    assert Run(Path("runs/moses-small")).config.training.init == str(SHIPPED / "moses-small")
    assert cli("sample", "moses-small", "-n", 10).code == 0
    searched = cli("optimize", "druglike", "--objective", "pmo/qed", "-n", 5, "--out", "runs/druglike")
    assert searched.code == 0, searched.err


@pytest.mark.slow
def test_an_installed_molgen_has_its_recipes_its_bundled_molecules_and_its_shipped_run(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for folder in ("molgen", "configs", "objectives", "shipped"):
        shutil.copytree(ROOT / folder, source / folder, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    (source / "data").mkdir()
    for path in [
        *(ROOT / "data").glob("*.csv*"),
        *(ROOT / "data").glob("*.txt.gz"),
        ROOT / "pyproject.toml",
        ROOT / "README.md",
        ROOT / "LICENSE",
    ]:
        shutil.copy(path, source / path.relative_to(ROOT))
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "--wheel-dir", str(tmp_path), str(source)], check=True)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        names = set(wheel.namelist())
    run = ("config.yaml", "model.safetensors", "tokenizer.json", "report.json")
    assert {f"molgen/assets/shipped/moses-small/{name}" for name in run} <= names
    assert {"molgen/assets/configs/tox21.yaml", "molgen/assets/data/moses-mini.csv.gz", "molgen/py.typed"} <= names
    bundled = ("benchmark-targets.csv", "fragment-drugs.csv", "ring-systems.txt.gz")
    assert {f"molgen/assets/data/{name}" for name in bundled} <= names
    assert "molgen/assets/objectives/pmo/qed.yaml" in names
    assert "molgen/assets/data/moleculeace.csv.gz" not in names  # fetched, under another licence
