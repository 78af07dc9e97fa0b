"""MoleculeACE: fetched once, checked, as its authors publish it; and what the broad prior may see of it."""

import csv
import gzip
import re
import zlib
from collections import Counter
from pathlib import Path

import pytest
from conftest import Cli
from rdkit import Chem
from rdkit.Chem.rdFingerprintGenerator import GetMorganGenerator
from rdkit.DataStructs import BulkTanimotoSimilarity

from molgen.chem.pool import Workers
from molgen.config import DataConfig, load_config
from molgen.data.dataset import build_dataset
from molgen.data.download import fetch, is_here
from molgen.data.parents import parent_smiles
from molgen.data.sources import read_source, rows_of
from molgen.errors import MolgenError


@pytest.fixture(scope="session")
def moleculeace() -> Path:
    """Its table; the test is skipped where it has not been fetched."""
    if not is_here("moleculeace"):
        pytest.skip("needs MoleculeACE: `molgen data get moleculeace`")
    return fetch("moleculeace")[0]


@pytest.fixture(scope="session")
def zinc250k() -> Path:
    """Its lines; the test is skipped where they have not been fetched."""
    if not is_here("zinc250k"):
        pytest.skip("needs ZINC 250k: `molgen data get zinc250k`")
    return fetch("zinc250k")[0]


def test_zinc_250k_has_the_molecules_that_its_users_count(zinc250k: Path) -> None:
    lines = gzip.decompress(zinc250k.read_bytes()).decode().splitlines()
    assert len(lines) == len(set(lines)) == 249_456
    assert sum("@" in line for line in lines) > 100_000
    assert sum("+]" in line for line in lines) > 60_000


def test_the_table_has_the_molecules_and_targets_that_its_authors_count(moleculeace: Path) -> None:
    with gzip.open(moleculeace, "rt") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 48_714
    assert len({row["target"] for row in rows}) == 30
    assert len({row["smiles"] for row in rows}) == 35_633
    assert {row["split"] for row in rows} == {"train", "test"}
    thrombin = [row for row in rows if row["target"] == "CHEMBL204_Ki"]
    assert len(thrombin) == 2_754
    assert Counter(row["cliff_mol"] for row in rows).keys() == {"0", "1"}


@pytest.mark.usefixtures("moleculeace")
def test_a_molecule_in_the_test_split_of_one_target_is_a_test_molecule() -> None:
    splits: dict[str, set[str]] = {}
    for row in rows_of(DataConfig(source="moleculeace")):
        splits.setdefault(row.smiles, set()).add(row.split)
    assert Counter(map(frozenset, splits.values())) == {frozenset({"test"}): 9_130, frozenset({"train"}): 26_503}
    one = DataConfig(source="moleculeace", where="target == 'CHEMBL204_Ki'")
    assert Counter(row.split for row in rows_of(one) if row.chosen) == {"train": 2_201, "test": 553}


def test_another_table_under_its_name_is_refused(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOLGEN_DATA", str(tmp_path))
    path = tmp_path / "moleculeace.csv.gz"
    path.write_bytes(gzip.compress(b"smiles,split\nCCO,train\n"))
    done = cli("data", "describe", "moleculeace")
    assert done.code == 2 and "not the content of moleculeace==3.0.0" in done.err
    path.write_bytes(b"\x1f\x8b cut")
    with pytest.raises(MolgenError, match="damaged or cut short"):
        fetch("moleculeace")


@pytest.mark.slow
@pytest.mark.usefixtures("moleculeace", "zinc250k")
def test_the_broad_prior_learns_no_answer(
    pool: Workers, pattern: str, tox21: Path, moses_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recipe's list, rebuilt of a part of each source: the rows that are an answer, and some others."""
    monkeypatch.setenv("MOLGEN_DATA", str(tmp_path / "data"))
    (tmp_path / "data").mkdir()
    for path in (tox21, *(moses_files.parent / name for name in ("moleculeace.csv.gz", "zinc250k.smi.gz"))):
        (tmp_path / "data" / path.name).symlink_to(path)
    ligands = {
        row.smiles: row.split
        for row in rows_of(DataConfig(source="moleculeace"))
        if zlib.crc32(re.sub(r"[@/\\\[\]H]", "", row.smiles).encode()) % 8 == 0  # stereoisomers stay together
    }
    answers = {name: parents_of(rows, pool) for name, rows in answer_rows(ligands).items()}
    wanted = set().union(*answers.values())
    large = {"moses": moses_files / "train.csv.gz", "zinc250k": moses_files.parent / "zinc250k.smi.gz"}
    parts = {name: str(tmp_path / f"{name}.csv") for name in (*large, "moleculeace")}
    for name, path in large.items():
        rows = [line.split(",")[0] for line in gzip.decompress(path.read_bytes()).decode().splitlines()[1:]]
        chosen = [smiles for i, smiles in enumerate(rows) if smiles in wanted or i % 800 == 0]
        assert sum(smiles in wanted for smiles in chosen) > 10  # so there is something to leave out
        Path(parts[name]).write_text("\n".join(["smiles", *chosen]) + "\n")
    lines = [f"{smiles},{split or 'train'}" for smiles, split in ligands.items()]
    Path(parts["moleculeace"]).write_text("\n".join(["smiles,split", *lines]) + "\n")
    config = load_config("druglike")
    assert config.data.sources
    shares = {parts[name]: share for name, share in config.data.sources.items()}
    data = config.data.model_copy(update={"sources": shares, "source": "+".join(shares)})
    training = build_dataset(read_source(data), data, config.model.context, pattern, pool).split("train")
    assert len(training) > 4_000
    known = parents_of(training, pool)
    assert {name: len(known & parents) for name, parents in answers.items()} == dict.fromkeys(answers, 0)
    targets = [Chem.MolFromSmiles(row.smiles) for row in rows_of(DataConfig(source="benchmark-targets"))][:6]
    ecfp4 = GetMorganGenerator(radius=2)
    prints = [ecfp4.GetSparseCountFingerprint(target) for target in targets]
    similar = [
        smiles
        for smiles in {*training, *known}
        if max(BulkTanimotoSimilarity(ecfp4.GetSparseCountFingerprint(Chem.MolFromSmiles(smiles)), prints)) >= 0.323
    ]
    assert similar == []


def answer_rows(ligands: dict[str, str]) -> dict[str, list[str]]:
    """What the prior must not know, by where it comes from, read without `data.exclude`; ligands with their splits."""
    targets = list(rows_of(DataConfig(source="benchmark-targets"), cells=True))
    return {
        "tox21": [row.smiles for row in rows_of(DataConfig(source="tox21"))],
        "moleculeace test": [smiles for smiles, split in ligands.items() if split == "test"],
        "PMO and GuacaMol": [row.smiles for row in targets if "GuacaMol" in (row.cells or {})["of"]],
        "SAFE": [row.smiles for row in targets if (row.cells or {})["of"] == "SAFE"],
    }


def parents_of(smiles: list[str], pool: Workers) -> set[str]:
    return set(parent_smiles(smiles, pool)) - {""}
