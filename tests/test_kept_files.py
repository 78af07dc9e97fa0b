"""Files made before the package had rooms: a run, an interrupted run, an encoded file, a configuration.

tests/data/house was made by the code of commit 1a642f5. The two runs have one configuration. The interrupted one
stopped after three steps of its second epoch, and must end as the finished one did.
"""

import csv
import io
import shutil
from pathlib import Path

import pytest
import torch
from conftest import Cli
from safetensors.torch import load_file

import molgen
from molgen.config import differing, load_config, parse_yaml, validate
from molgen.runs import Run

HOUSE = Path(__file__).parent / "data" / "house"
SCORES = [-106.7179, -101.5137, -110.6297, -131.0342, -128.1177]
"""Log-likelihoods of the first five molecules under the finished run, by the old code."""


@pytest.fixture
def house(cli: Cli, tmp_path: Path) -> Path:  # noqa: ARG001 - in whose folder it lies
    shutil.copytree(HOUSE, tmp_path, dirs_exist_ok=True)
    return tmp_path


def test_a_finished_run_scores_and_samples_as_it_did(cli: Cli, house: Path) -> None:
    code, out, _ = cli("score", "house.smi", "finished", "--device", "cpu")
    assert code == 0
    values = [float(row["log_likelihood"]) for row in csv.DictReader(io.StringIO(out)) if row["log_likelihood"]]
    assert values[:5] == pytest.approx(SCORES, abs=2e-3)
    assert len(molgen.sample(house / "finished", 5, device="cpu")) == 5


def test_an_interrupted_run_goes_on_within_its_epoch_and_ends_as_the_finished_one(cli: Cli, house: Path) -> None:
    code, _, err = cli("train", "--resume", "--out", "interrupted")
    assert code == 0, err
    assert "going on after epoch 1 of 4 and 3 steps of the next" in err
    columns = ("step", "epoch", "train_nll", "val_nll", "val_top1", "lr")
    finished, resumed = (
        [[row[name] for name in columns] for row in Run(house / name).log()] for name in ("finished", "interrupted")
    )
    assert resumed == [pytest.approx(row, rel=1e-4) for row in finished]
    weights = load_file(house / "finished" / "model.safetensors")
    for name, tensor in load_file(house / "interrupted" / "model.safetensors").items():
        torch.testing.assert_close(tensor, weights[name], rtol=1e-3, atol=1e-3)


def test_an_encoded_file_is_trained_on_as_it_was(cli: Cli, house: Path) -> None:
    settings = ["model.width=8", "model.blocks=1", "model.head_width=4", "model.feedforward=16", "training.epochs=2"]
    chosen = [part for one in [*settings, "training.precision=fp32"] for part in ("--set", one)]
    code, _, err = cli("train", "house.molgen", "--out", "encoded", "--device", "cpu", *chosen)
    assert code == 0, err
    losses = [(row["train_nll"], row["val_nll"]) for row in Run(house / "encoded").log()]
    assert losses == [pytest.approx(pair, rel=1e-4) for pair in ((126.242, 125.996), (126.241, 125.599))]


def test_a_configuration_is_read_as_it_was_saved() -> None:
    path = HOUSE / "finished" / "config.yaml"
    as_saved = validate(parse_yaml(path.read_text(), str(path)), str(path))
    assert as_saved == Run(HOUSE / "finished").config
    settings = ["model.width=8", "model.blocks=1", "model.heads=2", "model.kv_heads=1", "model.head_width=4"]
    settings += ["model.feedforward=16", "training.batch_size=8", "training.randomized=0.5", "training.epochs=4"]
    settings += ["training.precision=fp32", "data.min_token_count=1"]
    assert (
        differing(as_saved, load_config(None, settings, {"data.source": "house.smi", "training.device": "cpu"})) == []
    )
