"""A run is compared with the very molecules that it was trained on, wherever they are."""

import csv
import gzip
import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import SMALL, Cli
from rdkit import Chem

from molgen import runs
from molgen.config import DataConfig, load_config
from molgen.data.download import MOSES_FILES
from molgen.data.encoded_file import CorpusFile, corpus_writer
from molgen.runs import Run
from molgen.tokenizer import SmilesTokenizer
from molgen.training.train import train

FEW = [*SMALL, "training.batch_size=16", "training.learning_rate=1e-2"]


def figures(path: str = "x.json") -> dict[str, Any]:
    return dict(json.loads(Path(path).read_text()))


def listed(run: Path) -> list[dict[str, str]]:
    with gzip.open(run / "molecules.csv.gz", "rt") as file:
        return list(csv.DictReader(file))


def moses_of(folder: Path, train: list[str], test: list[str], patch: pytest.MonkeyPatch) -> None:
    """A data directory with a MOSES of a few molecules, which passes for the published one."""
    (folder / "moses").mkdir(parents=True)
    for name in MOSES_FILES:
        (folder / "moses" / name).write_bytes(b"")
    for name, smiles in (("train", train), ("test", test), ("test_scaffolds", test[:5])):
        rows = "\n".join(["SMILES,SPLIT", *(f"{one},{name}" for one in smiles)]) + "\n"
        (folder / "moses" / f"{name}.csv.gz").write_bytes(gzip.compress(rows.encode()))
    for path in (folder / "moses").iterdir():
        patch.setitem(MOSES_FILES, path.name, hashlib.sha256(path.read_bytes()).hexdigest())


@pytest.fixture
def part_of_moses(tmp_path: Path, moses_mini: list[str], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run on 40 of 100 training molecules, which names MOSES; its table of molecules lies beside it."""
    moses_of(tmp_path / "data", moses_mini[:100], moses_mini[100:110], monkeypatch)
    monkeypatch.setenv("MOLGEN_DATA", str(tmp_path / "data"))
    sizes = ["data.train_size=40", "data.validation_size=10", "training.epochs=1"]
    run = train(load_config(None, [*FEW, *sizes], {"data.source": "moses"}), tmp_path / "part")
    (run.path / "molecules.csv.gz").rename(tmp_path / "molecules.csv.gz")
    return run.path


def test_a_run_on_a_part_of_moses_is_compared_with_that_part(
    part_of_moses: Path, moses_mini: list[str], tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = [row["smiles"] for row in listed(tmp_path) if row["split"] == "train"]
    assert len(own) == 40
    for split, held_out in (("test", 10), ("validation", 10)):
        done = cli("eval", part_of_moses, "-n", 20, "--split", split, "--json", "x.json", "--force")
        assert done.code == 0, done.err
        assert figures()["n_held_out"] + figures()["n_unknown_tokens"] == held_out
        listing = shutil.copytree(part_of_moses, tmp_path / f"listing-{split}")
        shutil.copy(tmp_path / "molecules.csv.gz", listing)
        assert cli("eval", listing, "-n", 20, "--split", split, "--json", "y.json", "--force").code == 0
        for name in ("nll", "nll_train", "nll_gap", "novelty"):
            assert figures("x.json")[name] == pytest.approx(figures("y.json")[name], rel=1e-5), name
    assert "is against the molecules that the run was trained on" in done.out

    # of another MOSES no figure is made
    moses_of(tmp_path / "other", moses_mini[1:101], moses_mini[100:110], monkeypatch)
    monkeypatch.setenv("MOLGEN_DATA", str(tmp_path / "other"))
    done = cli("eval", part_of_moses, "-n", 20, "--json", "z.json")
    assert done.code == 0, done.err
    for name in ("nll_train", "nll_gap", "novelty"):
        assert figures("z.json")[name] is None
    assert "does not give the molecules" in figures("z.json")["reasons"]["nll_train"]

    # and where MOSES is not, nothing is fetched
    monkeypatch.setenv("MOLGEN_DATA", str(tmp_path / "nothing"))
    monkeypatch.setattr("molgen.data.download._download_moses", lambda _: pytest.fail("fetches MOSES unasked"))
    assert cli("eval", part_of_moses, "-n", 20, "--json", "w.json").code == 0
    assert figures("w.json")["novelty"] is None


def test_an_older_run_that_names_a_large_file_reads_it_again(
    small_run: Run, small_file: Path, tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOLGEN_DATA", str(tmp_path / "data"))
    assert cli("eval", small_run.path, "-n", 50, "--json", "listing.json").code == 0
    large = shutil.copytree(small_run.path, tmp_path / "large")
    (large / "molecules.csv.gz").unlink()
    monkeypatch.setattr(runs, "MOST_COPIED", 5)  # such runs were of more than 500,000 molecules
    own = tmp_path / "own.smi"
    own.write_text("\n".join(small_file.read_text().splitlines()[1:]) + "\n")
    config = (large / "config.yaml").read_text()
    (large / "config.yaml").write_text(config.replace(str(small_file), str(own)))
    assert cli("eval", large, "-n", 50, "--json", "changed.json").code == 0
    assert figures("changed.json")["novelty"] is None
    assert "does not give the molecules" in figures("changed.json")["reasons"]["nll"]
    shutil.copy(small_file, own)
    done = cli("eval", large, "-n", 50, "--json", "naming.json")
    assert done.code == 0, done.err
    for name in ("nll", "nll_train", "novelty"):
        assert figures("naming.json")[name] == figures("listing.json")[name]
    assert "novelty" in cli("sample", large, "-n", 5, "--novel").err


def another_way(smiles: str) -> str:
    mol = Chem.MolFromSmiles(smiles)
    return Chem.MolToSmiles(mol, rootedAtAtom=mol.GetNumAtoms() - 1)


@pytest.fixture(scope="module")
def chains(tmp_path_factory: pytest.TempPathFactory, pattern: str) -> Iterator[Path]:
    """A folder with a run on `forms.molgen`, named by a relative path; some of its molecules are random forms."""
    folder = tmp_path_factory.mktemp("chains")
    molecules = ["C" * i + hetero + "C" * j for hetero in "NO" for i in range(1, 6) for j in range(i + 1)]
    molecules = sorted({Chem.CanonSmiles(one) for one in molecules})  # short, so that most samples are molecules
    rows = [(form, random) for one in molecules for form, random in ((another_way(one), True), (one, False))]
    config = load_config(None, [*FEW, "training.epochs=12"], {"data.source": "forms.molgen"})
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_forms(Path("forms.molgen"), SmilesTokenizer.of_corpus(molecules, pattern, True), rows)
        train(config, folder / "run")
    yield folder


@pytest.fixture
def random_forms(chains: Path, tmp_path: Path) -> Run:
    """A copy of it, with its file."""
    shutil.copytree(chains, tmp_path, dirs_exist_ok=True)
    config = (tmp_path / "run" / "config.yaml").read_text()
    assert str(chains / "forms.molgen") in config  # though it was named by a relative path
    (tmp_path / "run" / "config.yaml").write_text(config.replace(str(chains), str(tmp_path)))
    return Run(tmp_path / "run")


def write_forms(path: Path, tokenizer: SmilesTokenizer, rows: list[tuple[str, bool]]) -> str:
    """An encoded file of some (training molecule, whether it is a random form); gives back its hash."""
    with corpus_writer(path, tokenizer, DataConfig(source="moses-mini")) as writer:
        for smiles, random in rows:
            writer.add("train", smiles, random=random)
        for smiles in ("CCO", "CCN", "CCCO"):
            writer.add("validation", smiles)
            writer.add("validation", smiles[::-1])
    return CorpusFile(path).summary.sha256


def test_random_forms_of_an_encoded_file_are_the_molecules_that_they_are(
    random_forms: Run, cli: Cli, tmp_path: Path
) -> None:
    run = random_forms.path
    samples = cli("sample", run, "-n", 400).out.splitlines()
    valid = [mol for line in samples if line and (mol := Chem.MolFromSmiles(line)) is not None]
    known = sorted({Chem.MolToSmiles(mol) for mol in valid})
    known = [one for one in known if not random_forms.tokenizer.unknown(another_way(one))]
    assert any(another_way(one) != one for one in known)
    config, sha256 = (run / "config.yaml").read_text(), str(random_forms.config.data.sha256)

    def trained_on(rows: list[tuple[str, bool]]) -> None:
        new = write_forms(tmp_path / "forms.molgen", random_forms.tokenizer, rows)
        (run / "config.yaml").write_text(config.replace(sha256, new))

    # only random forms of training: no NLL of canonical ones, and no crash
    trained_on([(another_way(one), True) for one in known])
    assert cli("eval", run, "-n", 20, "--split", "validation", "--json", "x.json").code == 0
    assert figures()["nll_train"] is None and "<bos>" in figures()["reasons"]["nll_train"]
    done = cli("sample", run, "-n", 400, "-o", "x.csv", "--columns", "smiles,canonical,valid,in_training")
    table = csv.DictReader(Path("x.csv").read_text().splitlines())
    rows = [row for row in table if row["canonical"] in known]
    assert rows and {row["in_training"] for row in rows} == {"true"}
    assert "novelty 0.000" in done.err or len(known) < len({Chem.MolToSmiles(mol) for mol in valid})
    done = cli("train", "forms.molgen", "--set", "training.randomized=0.5", "--out", "again")
    assert done.code == 2
    assert "random forms already" in done.err and "training.randomized=0" in done.err


def test_random_forms_among_the_held_out_molecules_are_left_out_of_the_nll_and_counted(
    random_forms: Run, cli: Cli, tmp_path: Path
) -> None:
    figures_of = []
    for forms in (), ("OCC", "NCC"):
        with corpus_writer(
            tmp_path / "forms.molgen", random_forms.tokenizer, DataConfig(source="moses-mini")
        ) as writer:
            writer.add("train", "CCO")
            for smiles in ("CCN", "CCCO"):
                writer.add("validation", smiles)
            for smiles in forms:
                writer.add("validation", smiles, random=True)
        config = random_forms.path / "config.yaml"
        sha256 = CorpusFile(tmp_path / "forms.molgen").summary.sha256
        config.write_text(re.sub("sha256: .*", f"sha256: {sha256}", config.read_text()))
        done = cli("eval", random_forms.path, "-n", 20, "--split", "validation", "--json", "x.json", "--force")
        assert done.code == 0, done.err
        figures_of.append(figures())
    assert "validation split: 2 random forms are left out of the NLL" in done.out
    assert [found["n_held_out"] for found in figures_of] == [2, 2]
    assert figures_of[0]["nll"] == pytest.approx(figures_of[1]["nll"], rel=1e-5)


def test_the_file_of_a_run_is_found_from_another_folder(
    random_forms: Run, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    config = random_forms.path / "config.yaml"
    assert Path(random_forms.config.data.source).is_absolute()
    older = config.read_text().replace(random_forms.config.data.source, "forms.molgen")
    for text in (config.read_text(), older):  # earlier versions kept the path as it was typed
        config.write_text(text)
        done = cli("eval", random_forms.path, "-n", 20, "--split", "validation", "--json", "x.json", "--force")
        assert done.code == 0, done.err
        assert figures()["nll"] > 0


def test_draws_and_unfinished_ones_are_counted_up_to_the_last_that_was_kept(random_forms: Run, cli: Cli) -> None:
    config = random_forms.path / "config.yaml"
    config.write_text(config.read_text().replace(f"context: {random_forms.config.model.context}", "context: 4"))
    plain = cli("sample", random_forms.path, "-n", 512, "--batch-size", 512).out.splitlines()
    first = next(i for i, line in enumerate(plain, 1) if line and Chem.MolFromSmiles(line) is not None)
    assert plain[first:].count("") > first  # longer ones, which the whole batch has many of
    done = cli("sample", random_forms.path, "-n", 1, "--valid", "--batch-size", 512, "-o", "x.csv")
    assert done.code == 0, done.err
    account = figures("x.meta.json")
    assert account["draws"] == first
    assert account["unfinished"] <= plain[:first].count("")
