"""Splits and old runs stay as they are; figures that look through stereo and tautomers."""

import csv
import gzip
import io
import json
import shutil
from pathlib import Path

import pytest
from conftest import SMALL, Cli
from conftest import evaluate_with as evaluate
from rdkit import Chem
from rdkit.Chem import rdMolHash

from molgen.chem.pool import Workers
from molgen.config import load_config
from molgen.data.dataset import build_dataset
from molgen.data.sources import read_source
from molgen.metrics.references import ReferenceCache

BEFORE = Path(__file__).parent / "data"
"""A run stopped after two of four epochs, its file, and that file encoded: made before the rules had a version."""
ASKED = """\
CC(=O)[O-].[Na+] salt
CNC[C@H](O)[C@@H](O)[C@H](O)[C@H](O)CO.OC(=O)c1ccccc1Cl meglumine
C[C@H](O)CCN |&1:1| racemate
Oc1ccccn1 tautomer
"""


def cells(path: Path) -> list[list[str]]:
    return list(csv.reader(io.StringIO(gzip.decompress(path.read_bytes()).decode())))


@pytest.fixture
def before(tmp_path: Path) -> Path:
    for path in (BEFORE / "before.smi", BEFORE / "before.molgen"):
        shutil.copy(path, tmp_path)
    shutil.copytree(BEFORE / "before", tmp_path / "before")
    (tmp_path / "asked.smi").write_text(ASKED)
    return tmp_path


# what the version that made the named datasets' published figures gave
@pytest.mark.parametrize(
    ("name", "sha256"),
    [
        ("tox21", "8a4943753e17956f09b744bd85e88e9c3790f1d29caf2262ad59917919e444d3"),
        ("moses-mini", "3aa93532e33266caf81ca57e88b9822aa72b0479de3c2a117cc5a29d5c1096f2"),
    ],
)
@pytest.mark.usefixtures("tox21")
def test_the_splits_of_the_named_datasets_stay_as_they_are(name: str, sha256: str, pool: Workers, pattern: str) -> None:
    config = load_config(name)
    dataset = build_dataset(read_source(config.data), config.data, config.model.context, pattern, pool)
    assert dataset.sha256 == sha256


# what the version that made the run wrote: canonical, ln p, note
SCORES = [
    ("CC(=O)O", -24.7248, "smaller fragments cut; neutralised"),
    ("CNC[C@H](O)[C@@H](O)[C@H](O)[C@H](O)CO", -68.7651, "smaller fragments cut"),
    ("C[C@H](O)CCN", -28.1306, "enhanced stereo flattened"),
    ("Oc1ccccn1", -31.0836, ""),
]


@pytest.mark.usefixtures("before")
def test_a_run_made_before_the_rules_had_a_version_scores_as_it_did(cli: Cli) -> None:
    code, out, _ = cli("score", "asked.smi", "before", "--device", "cpu")
    assert code == 0
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [(row["canonical"], row["note"]) for row in rows] == [(smiles, note) for smiles, _, note in SCORES]
    for row, (_, value, _) in zip(rows, SCORES, strict=True):
        assert float(row["log_likelihood"]) == pytest.approx(value, abs=2e-3)


def test_a_run_made_before_the_rules_had_a_version_goes_on_as_it_did(cli: Cli, before: Path) -> None:
    code, _, err = cli("train", "--resume", "--out", "before")
    assert code == 0, err
    assert cells(before / "before" / "molecules.csv.gz") == cells(BEFORE / "before" / "molecules.csv.gz")
    log = list(csv.DictReader((before / "before" / "log.csv").open()))
    losses = [float(row["val_nll"]) for row in log]
    assert losses == pytest.approx([49.1962, 48.9724, 48.8131, 48.7422], abs=2e-3)


@pytest.mark.usefixtures("before")
def test_an_encoded_file_made_before_the_rules_had_a_version_is_trained_on_as_it_was_made(cli: Cli) -> None:
    sizes = [setting for name in SMALL for setting in ("--set", name)]
    code, _, err = cli("train", "before.molgen", *sizes, "--set", "training.epochs=1", "--out", "encoded")
    assert code == 0, err
    code, out, _ = cli("score", "asked.smi", "encoded", "--device", "cpu")
    assert code == 0
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [(row["canonical"], row["note"]) for row in rows] == [(smiles, note) for smiles, _, note in SCORES]


SAMPLES = ["C[C@H](O)CN", "C[C@@H](O)CN", "Oc1ccccn1", "CCCCO", "CC("]
TRAINING = ["CC(O)CN", "O=c1cccc[nH]1", "CC"]


def test_uniqueness_and_novelty_stand_beside_those_without_stereo_and_by_tautomer(cli: Cli) -> None:
    Path("samples.smi").write_text("\n".join(SAMPLES) + "\n")
    Path("training.smi").write_text("\n".join(TRAINING) + "\n")
    code, out, _ = cli("eval", "samples.smi", "--train", "training.smi", "--json", "figures.json")
    assert code == 0
    figures = json.loads(Path("figures.json").read_text())
    # four valid ones, two of them enantiomers; of the three parents only hydroxypyridine is a tautomer of a known one
    assert (figures["uniqueness"], figures["uniqueness_parent"], figures["uniqueness_tautomer"]) == (1, 3 / 4, 3 / 4)
    assert (figures["novelty"], figures["novelty_parent"], figures["novelty_tautomer"]) == (1, 2 / 3, 1 / 3)
    assert [line.split()[-1] for line in out.splitlines() if "tautomer" in line] == ["0.750", "0.333"]


def test_the_tautomer_figures_equal_those_of_rdkits_hash(references: ReferenceCache, moses_mini: list[str]) -> None:
    samples, training = moses_mini[:300], moses_mini[200:700]

    def hashed(smiles: str) -> str:  # MOSES has neither salts nor charges nor stereo
        return rdMolHash.MolHash(Chem.MolFromSmiles(smiles), rdMolHash.HashFunction.HetAtomTautomerv2)

    ours, known = set(map(hashed, samples)), set(map(hashed, training))
    values = evaluate(samples, training=training, references=references).figures.values
    assert values["uniqueness_tautomer"] == len(ours) / len(samples)
    assert values["novelty_tautomer"] == len(ours - known) / len(ours)


def test_without_training_or_valid_samples_the_figures_are_null_with_a_reason(references: ReferenceCache) -> None:
    alone = evaluate(["CCO"], references=references).figures
    assert alone.values["novelty_tautomer"] is None and "--train" in alone.reasons["novelty_parent"]
    none = evaluate(["C("], training=["CC"], references=references).figures
    assert none.reasons["uniqueness_parent"] == none.reasons["novelty_tautomer"] == "no valid samples"
