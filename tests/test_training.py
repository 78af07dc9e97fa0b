"""Training from outside: it learns, it is reproducible, it resumes exactly, and its run directory is whole."""

import csv
import gzip
import json
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SMALL

from molgen.chem.smiles import canonical, parse, random_form
from molgen.config import Config, load_config
from molgen.data.batches import Corpus
from molgen.errors import MolgenError
from molgen.generation.generator import MoleculeGenerator
from molgen.runs import Run
from molgen.training.optim import learning_rate
from molgen.training.train import train


def config_for(path: Path, *more: str) -> Config:
    settings = [*SMALL, "training.batch_size=16", "data.min_token_count=1", *more]
    return load_config(None, settings, {"data.source": str(path)})


def weights(run: Run) -> bytes:
    return (run.path / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def thirty(tmp_path_factory: pytest.TempPathFactory, moses_mini: list[str]) -> Path:
    path = tmp_path_factory.mktemp("thirty") / "thirty.smi"
    path.write_text("\n".join(moses_mini[:30]) + "\n")
    return path


@pytest.mark.slow
def test_it_learns_a_handful_by_heart(tmp_path: Path, moses_mini: list[str]) -> None:
    rows = [f"{smiles},{split}" for split in (*["train"] * 8, "validation") for smiles in moses_mini[:8]]
    path = tmp_path / "handful.csv"
    path.write_text("\n".join(["smiles,split", *rows]) + "\n")
    more = ("data.duplicates=keep", "training.epochs=60", "training.learning_rate=1e-2", "training.ema=0.0")
    run = train(config_for(path, *more), tmp_path / "run")
    assert run.report["validation"]["nll"] < 2.5  # a uniform choice among eight costs ln 8 = 2.1 nats
    drawn = MoleculeGenerator.load(run.path, "cpu").sample(40).smiles
    known = {canonical(smiles) for smiles in moses_mini[:8]}
    assert sum(smiles in known for smiles in drawn) >= 36


def test_validation_nll_falls(small_run: Run) -> None:
    log = small_run.log()
    assert len(log) == 24
    assert log[-1]["val_nll"] < 0.8 * log[0]["val_nll"]


def test_the_run_directory_holds_all_that_the_design_lists(small_run: Run) -> None:
    names = {path.name for path in small_run.path.iterdir()}
    assert names == {
        "config.yaml",
        "tokenizer.json",
        "model.safetensors",
        "state.safetensors",
        "log.csv",
        "curves.png",
        "molecules.csv.gz",
        "dropped.csv.gz",
        "report.json",
        "README.md",
    }
    assert (small_run.path / "curves.png").read_bytes().startswith(b"\x89PNG")
    with (small_run.path / "log.csv").open() as file:
        assert next(csv.reader(file)) == [
            "step",
            "epoch",
            "train_nll",
            "val_nll",
            "val_top1",
            "lr",
            "tokens_per_second",
            "seconds",
        ]


def test_the_model_card_says_what_the_report_does(small_run: Run) -> None:
    card = (small_run.path / "README.md").read_text()
    report = small_run.report
    assert card.startswith(f"# {small_run.path.name}\n")
    assert f"{report['weights']:,} weights" in card
    assert f"small.smi: {report['rows']} rows" in card
    assert f"train {report['sizes']['train']}" in card
    assert f"Of {report['validation']['n']} validation molecules" in card
    assert f"NLL {report['validation']['nll']:.2f} ± {report['validation']['nll_stderr']:.2f}" in card
    assert report["sha256"] in card
    assert report["versions"]["rdkit"] in card
    assert "confidential" in card  # a file of one's own lies in the run
    assert "seed 0" in card


def test_the_report_counts_what_the_molecule_file_holds(small_run: Run) -> None:
    report = json.loads((small_run.path / "report.json").read_text())
    with gzip.open(small_run.path / "molecules.csv.gz", "rt") as file:
        rows = list(csv.DictReader(file))
    assert report["sizes"] == {name: sum(r["split"] == name for r in rows) for name in ("train", "validation", "test")}
    assert report["rows"] == 200
    assert report["validation"]["n"] + report["validation"]["unknown_tokens"] == report["sizes"]["validation"]


def test_the_kept_weights_are_those_of_the_best_validation_epoch(small_run: Run) -> None:
    best = min(small_run.log(), key=lambda row: row["val_nll"])
    assert small_run.report["best_epoch"] == best["epoch"]
    assert small_run.report["validation"]["nll"] == pytest.approx(best["val_nll"], rel=1e-4)


@pytest.mark.parametrize(
    "more",
    [
        (),
        ("training.randomized=0.8", "model.dropout=0.1"),
        ("training.optimizer=adamax",),
        ("training.optimizer=muon", "training.ema=0.9"),
    ],
)
def test_a_resumed_training_equals_one_never_stopped(
    thirty: Path, tmp_path: Path, more: tuple[str, ...], monkeypatch
) -> None:
    config = config_for(thirty, "training.epochs=4", *more)
    whole = train(config, tmp_path / "whole")

    import molgen.training.trainer as module

    epoch = module.Trainer.train_epoch

    def stops_in_the_third(trainer: module.Trainer, corpus: Corpus) -> tuple[float, float]:
        if trainer.state.epoch == 2:
            raise KeyboardInterrupt
        return epoch(trainer, corpus)

    monkeypatch.setattr(module.Trainer, "train_epoch", stops_in_the_third)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "stopped")
    monkeypatch.undo()
    resumed = train(Config(), tmp_path / "stopped", resume=True)
    assert weights(resumed) == weights(whole)
    assert [row["val_nll"] for row in resumed.log()] == [row["val_nll"] for row in whole.log()]


@pytest.mark.parametrize("step", ["in the midst", "last"])
@pytest.mark.parametrize("stop", ["signal", "kill"])
def test_a_training_stopped_within_an_epoch_goes_on_at_the_next_step(
    thirty: Path,
    tmp_path: Path,
    stop: str,
    step: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    more = ("training.epochs=3", "training.batch_size=4", "training.randomized=0.5", "model.dropout=0.1")
    config = config_for(thirty, *more)  # 24 molecules: about 6 steps an epoch
    whole = train(config, tmp_path / "whole")

    import molgen.training.callbacks as callbacks
    import molgen.training.step as module

    take, save, steps = module.take_step, callbacks.save_state, []
    first, second = (int(row["step"]) for row in whole.log()[:2])
    last = second if step == "last" else (first + second) // 2  # before it is stopped

    def stops(*arguments: object) -> None:
        steps.append(1)
        take(*arguments)  # type: ignore[arg-type]
        if stop == "signal" and len(steps) == last:
            signal.raise_signal(signal.SIGINT)

    def saves(*arguments: object) -> None:
        save(*arguments)  # type: ignore[arg-type]
        if stop == "kill" and len(steps) == last:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "take_step", stops)
        patch.setattr(callbacks, "save_state", saves)
        if stop == "kill":
            patch.setattr(callbacks, "_SECONDS_BETWEEN_STATES", 0.0)
        with pytest.raises(KeyboardInterrupt):
            train(config, tmp_path / "stopped")
    monkeypatch.setattr(module, "take_step", stops)
    resumed = train(Config(), tmp_path / "stopped", resume=True)
    assert "going on after epoch 1 of 3 and" in capsys.readouterr().err
    assert len(steps) == whole.log()[-1]["step"]  # none twice
    assert weights(resumed) == weights(whole)
    same = ("step", "epoch", "train_nll", "val_nll", "val_top1", "lr")
    assert [[row[name] for name in same] for row in resumed.log()] == [
        [row[name] for name in same] for row in whole.log()
    ]


def test_two_trainings_with_the_same_seed_give_the_same_weights(thirty: Path, tmp_path: Path) -> None:
    a, b = (train(config_for(thirty, "training.epochs=2"), tmp_path / name) for name in "ab")
    c = train(config_for(thirty, "training.epochs=2", "training.seed=1"), tmp_path / "c")
    assert weights(a) == weights(b) != weights(c)


def test_patience_stops_a_training_that_no_longer_improves(thirty: Path, tmp_path: Path) -> None:
    run = train(
        config_for(thirty, "training.epochs=200", "training.patience=2", "training.learning_rate=3e-2"),
        tmp_path / "run",
    )
    log = run.log()
    assert len(log) < 200
    best = min(range(len(log)), key=lambda i: log[i]["val_nll"])
    assert len(log) - 1 - best == 3


def test_a_loss_that_is_no_longer_finite_stops_and_keeps_the_last_good_weights(thirty: Path, tmp_path: Path) -> None:
    config = config_for(
        thirty, "training.learning_rate=10", "training.clip_norm=null", "training.warmup=0.5", "training.epochs=200",
        "training.schedule=constant", "model.norm=after", "model.final_norm=false", "training.precision=fp32",
    )  # fmt: skip
    import molgen.training.step as module

    original = module.token_nll
    calls = 0

    def breaks(*arguments: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return original(*arguments) * (float("nan") if calls > 5 else 1)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(FloatingPointError, match="last good weights"):
        patch.setattr(module, "token_nll", breaks)
        train(config, tmp_path / "run")
    assert len(MoleculeGenerator.load(tmp_path / "run", "cpu").sample(2)) == 2


def test_an_existing_directory_is_refused_without_force(small_run: Run, small_file: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(small_run.path, copy)
    with pytest.raises(MolgenError, match="--force"):
        train(config_for(small_file), copy)
    assert weights(Run(copy)) == weights(small_run)


def test_random_forms_are_the_same_molecule_written_otherwise(moses_mini: list[str]) -> None:
    hard = ["C[C@H](N)C(=O)O", "F/C=C/F", "CC(=O)[O-].[Na+]", "c1ccc2[nH]ccc2c1", "C1CC2CCC1CC2"]
    for smiles in [*moses_mini[:50], *map(str, map(canonical, hard))]:
        forms = [random_form(smiles, seed) for seed in range(1, 6)]
        assert forms == [random_form(smiles, seed) for seed in range(1, 6)]
        assert len(set(forms)) > 1
        assert {canonical(form) for form in forms if form} == {smiles}


def test_randomised_strings_start_with_their_own_token_and_keep_the_molecule(
    pattern, pool, moses_mini: list[str]
) -> None:
    from molgen.data.augmentation import randomized_corpus
    from molgen.tokenizer import BOS, SmilesTokenizer

    smiles = [str(canonical(s)) for s in moses_mini[:200]]
    tokenizer = SmilesTokenizer.of_corpus(smiles, pattern, randomized=True)
    corpus, _ = randomized_corpus(smiles, 0.5, tokenizer, pool, [0, 0], 128)
    rows = np.split(corpus.ids, corpus.offsets[1:-1])
    strings = tokenizer.decode(np.array([np.pad(row[1:], (0, 130 - len(row))) for row in rows]))
    assert [canonical(string or "") for string in strings] == smiles
    random = [row[0] == tokenizer.random_start for row in rows]
    assert all(row[0] in (BOS, tokenizer.random_start) for row in rows)
    assert 70 <= sum(random) <= 130  # 200 fair coins leave this range once in 50,000 times
    assert all(r or string == s for r, string, s in zip(random, strings, smiles, strict=True))


def test_the_schedule_warms_up_and_falls_to_a_hundredth() -> None:
    config = load_config(None, ["training.learning_rate=1.0", "training.warmup=0.1"]).training
    rates = [learning_rate(progress, config) for progress in (0.05, 0.1, 0.55, 0.999999)]
    assert rates == pytest.approx([0.5, 1.0, 0.505, 0.01], rel=1e-3)
    constant = load_config("tomczak").training
    assert {learning_rate(progress, constant) for progress in (0.0, 0.5, 0.99)} == {1e-3}


def test_weight_decay_acts_on_matrices_only() -> None:
    from molgen.model.build import build_model
    from molgen.training.optim import build_optimizer

    config = load_config("tomczak", ["training.weight_decay=0.1"])
    for group in build_optimizer(build_model(config.model, 20), config.training).param_groups:
        assert all((p.ndim >= 2) == (group["weight_decay"] > 0) for p in group["params"])


def test_molecules_that_rdkit_cannot_read_are_none() -> None:
    assert [parse(s) for s in ("", "C(", "C1C1", "С", "C" * 10_001, "(" * 5_000)] == [None] * 6


def test_a_long_epoch_gives_signs_of_life_where_there_is_no_terminal_for_a_bar(
    thirty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("molgen.training.callbacks._SECONDS_BETWEEN_SIGNS", 0.0)
    train(config_for(thirty, "training.epochs=1"), tmp_path / "run")
    assert "epoch 1: 100%, " in capsys.readouterr().err
