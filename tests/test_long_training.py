"""Training with every kind: resuming, several processes, fine-tuning from full to window, batches by tokens."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from molgen.chem.pool import workers
from molgen.config import load_config
from molgen.data.batches import Corpus, batches_of_tokens
from molgen.data.prepare import write_encoded
from molgen.errors import MolgenError
from molgen.generation.generator import MoleculeGenerator
from molgen.machine import Runtime
from molgen.model.build import build_model
from molgen.model.likelihood import likelihood
from molgen.runs import Run
from molgen.training.optim import build_optimizer
from molgen.training.resume import TrainerState
from molgen.training.step import Step, balanced, nll_loss
from molgen.training.train import train

TINY = [
    *("model.width=16", "model.blocks=2", "model.heads=2", "model.head_width=8", "model.feedforward=24"),
    *("model.window=16", "model.summaries=4", "model.features=16", "model.buckets=4", "model.context=64"),
    *("training.epochs=2", "training.batch_size=32", "training.precision=fp32"),
    *("training.randomized=0.0", "training.randomized_end=0.0"),
]
PLAIN = ["data.split=random", "data.min_token_count=1"]
KINDS = [("window", "dense"), ("performer", "dense"), ("linear", "dense"), ("linformer", "dense"),
         ("reformer", "dense"), ("full", "switch")]  # fmt: skip


class StoppedError(Exception):
    pass


@pytest.fixture(scope="module")
def smiles(moses_mini: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("molecules") / "some.smi"
    path.write_text("\n".join(moses_mini[:300]) + "\n")
    return path


@pytest.fixture(scope="module")
def encoded(smiles: Path) -> Path:
    path = smiles.with_name("some.molgen")
    with workers() as pool:
        write_encoded(load_config(None, [*TINY, *PLAIN, f"data.source={smiles}"]), path, pool)
    return path


def trained(source: Path, path: Path, *settings: str) -> Run:
    plain = PLAIN if source.suffix == ".smi" else []
    return train(load_config(None, [*TINY, *plain, f"data.source={source}", *settings]), path)


@pytest.mark.parametrize(("kind", "feedforward"), KINDS)
def test_a_training_that_was_stopped_ends_with_the_same_weights(
    encoded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, feedforward: str
) -> None:
    settings = (f"model.attention={kind}", f"model.feedforward_kind={feedforward}")
    whole = trained(encoded, tmp_path / "whole", *settings)
    with monkeypatch.context() as patch:
        patch.setattr("molgen.training.trainer.Trainer._out_of_patience", lambda trainer: stop(trainer.state.epoch))
        with pytest.raises(StoppedError):
            trained(encoded, tmp_path / "stopped", *settings)
    resumed = train(load_config(), tmp_path / "stopped", resume=True)
    assert (whole.path / "model.safetensors").read_bytes() == (resumed.path / "model.safetensors").read_bytes()
    samples = MoleculeGenerator.load(resumed.path, "cpu").sample(8, seed=0)
    assert len(samples) == 8


def stop(epoch: int) -> bool:
    if epoch == 1:
        raise StoppedError
    return False


@pytest.mark.parametrize(("kind", "feedforward"), KINDS)
def test_the_gradient_of_a_batch_is_the_sum_of_those_of_its_parts(kind: str, feedforward: str) -> None:
    """Processes and threads each take a part."""
    config = load_config(None, [*TINY, f"model.attention={kind}", f"model.feedforward_kind={feedforward}"])
    rng = np.random.default_rng(0)
    corpus = Corpus.of([rng.integers(3, 20, rng.integers(5, 50)).tolist() for _ in range(12)], 20)
    gradients = []
    for parts in (1, 3):
        model = build_model(config.model, 20).double().eval()
        loss = balanced(nll_loss, 0.1) if feedforward == "switch" else nll_loss
        step = Step(
            model, build_optimizer(model, config.training), loss, config.training, TrainerState(), Runtime("cpu")
        )
        rows = [np.arange(12)[i::parts] for i in range(parts)]
        results = [step._gradient(100, shard) for shard in step.shards(corpus, rows, np.random.default_rng(0))]
        gradients.append([sum(g) for g in zip(*(gradient for _, gradient in results), strict=True)])
    for one, three in zip(*gradients, strict=True):
        torch.testing.assert_close(one, three, atol=1e-6, rtol=1e-5)


def test_experts_change_the_gradient_for_balance_and_not_the_reported_loss() -> None:
    config = load_config(None, [*TINY, "model.feedforward_kind=switch"])
    model = build_model(config.model, 20).eval()
    corpus = Corpus.of([[3, 4, 5], [6, 7, 8, 9]], 20)
    batch = corpus.batch(np.arange(2), torch.device("cpu"))
    plain = nll_loss(model, batch, np.arange(2))
    total, reported = balanced(nll_loss, 1.0)(model, batch, np.arange(2))
    assert plain.item() == total.item() == reported.item()
    router = model.blocks[0].feedforward.router.weight
    one, other = (torch.autograd.grad(loss, router)[0] for loss in (plain, total))
    assert not torch.allclose(one, other)


@pytest.fixture(scope="module")
def full(smiles: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return trained(smiles, tmp_path_factory.mktemp("runs") / "full", "training.epochs=1")


def continued(full: Run, smiles: Path, path: Path, *settings: str) -> Run:
    plain = [*PLAIN, f"data.source={smiles}", "training.epochs=1", "training.learning_rate=1e-6"]
    options = {"training.init": str(full.path)}
    return train(
        load_config(None, [*plain, "training.randomized=0.0", "training.randomized_end=0.0", *settings], options), path
    )


def test_a_run_with_full_attention_goes_on_with_a_window(full: Run, smiles: Path, tmp_path: Path) -> None:
    run = continued(full, smiles, tmp_path / "window", "model.attention=window", "model.window=64")
    assert run.config.model.attention == "window" and run.config.model.width == 16
    corpus = Corpus.of([full.tokenizer.encode(s) or [] for s in full.split("validation")], len(full.tokenizer))
    before, after = (likelihood(r.model(torch.device("cpu")), corpus, torch.device("cpu")).nll for r in (full, run))
    assert np.abs(before - after).max() < 0.05  # the window sees all of a molecule, and the steps were tiny


def test_a_run_goes_on_with_random_features_and_not_with_other_weights(full: Run, smiles: Path, tmp_path: Path) -> None:
    run = continued(full, smiles, tmp_path / "performer", "model.attention=performer")
    assert run.model(torch.device("cpu")).blocks[0].attention.projection.abs().min() > 0
    with pytest.raises(MolgenError, match=re.escape("model.attention: linformer in the configuration, full in")):
        continued(full, smiles, tmp_path / "other", "model.attention=linformer")


def test_batches_by_tokens_hold_as_many_and_every_molecule_once() -> None:
    positions = np.random.default_rng(0).integers(10, 1_000, 500)
    steps = batches_of_tokens(positions, 4_000, np.random.default_rng(1))
    assert sorted(np.concatenate([rows for (rows,) in steps]).tolist()) == list(range(500))
    tokens = np.array([positions[rows].sum() for (rows,) in steps])
    assert tokens.max() < 4_000 + 1_000 and np.sort(tokens)[1] > 3_000
    with pytest.raises(MolgenError, match="batch_tokens needs batching: buckets"):
        load_config(None, ["training.batch_tokens=100", "training.batching=random"])


def test_the_report_of_a_run_with_experts_counts_the_weights_that_a_token_uses(encoded: Path, tmp_path: Path) -> None:
    run = trained(encoded, tmp_path / "run", "model.feedforward_kind=switch", "training.epochs=1", "model.experts=3")
    report = run.report
    assert report["weights"] - report["active_weights"] == 2 * 2 * 2 * 16 * 24
    assert f"({report['active_weights']:,} of them per token)" in (run.path / "README.md").read_text()
    assert "3 experts of 24" in (run.path / "README.md").read_text()


def test_describe_says_what_long_molecules_need(cli: Callable[..., Any]) -> None:
    Path("long.smi").write_text("".join(f"{'C' * n}O\n" for n in range(300, 340)))
    done = cli("data", "describe", "long.smi", "--set", "model.context=400", "--set", "data.min_token_count=1")
    assert "needs at 340 tokens: full attention" in done.out and "training.batch_tokens" in done.out
    Path("short.smi").write_text("".join(f"{'C' * n}O\n" for n in range(5, 40)))
    assert "needs at" not in cli("data", "describe", "short.smi").out
