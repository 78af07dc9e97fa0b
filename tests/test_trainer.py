"""The seams of a training: another loss, a parameter that a batch does not use, what follows a training."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from molgen.config import Config, load_config
from molgen.data.batches import Batch, Corpus, Rows
from molgen.machine import Runtime
from molgen.model.build import build_model
from molgen.model.likelihood import token_nll
from molgen.runtime.distributed import SINGLE_PROCESS
from molgen.training.resume import TrainerState
from molgen.training.setup import open_source, prepare_run
from molgen.training.step import Step
from molgen.training.train import train
from molgen.training.trainer import Callback, EpochProgress, Trainer

TINY = ["model.width=16", "model.blocks=1", "model.heads=2", "model.head_width=8", "model.feedforward=32"]
STEADY = ["model.dropout=0.0", "training.precision=fp32", "training.clip_norm=null"]


def tiny(*settings: str) -> Config:
    return load_config(None, [*TINY, *STEADY, *settings])


def corpus_of(n: int, vocabulary: int) -> Corpus:
    random = np.random.default_rng(0)
    return Corpus.of([random.integers(3, vocabulary, random.integers(3, 9)).tolist() for _ in range(n)], vocabulary)


@pytest.mark.parametrize("shards_of_one", [False, True])
def test_a_policy_gradient_is_a_loss_of_rows_and_its_step_is_that_of_the_whole_batch(shards_of_one: bool) -> None:
    config, corpus = tiny(), corpus_of(12, 20)
    advantages = torch.linspace(-1, 1, 12)

    def reinforce(model: nn.Module, batch: Batch, rows: Rows) -> Tensor:
        nll = token_nll(model(batch.inputs), batch.targets).sum(dim=1)  # (B,)
        return (advantages[rows] * nll).sum()

    model, expected = build_model(config.model, 20), build_model(config.model, 20)
    whole = corpus.batch(np.arange(12), torch.device("cpu"))
    loss = reinforce(expected, whole, np.arange(12)) / 12
    loss.backward()
    runtime = Runtime("cpu")
    step = Step(model, torch.optim.SGD(model.parameters(), 0.1), reinforce, config.training, TrainerState(), runtime)
    parts = [np.array([i]) for i in range(12)] if shards_of_one else [np.arange(5), np.arange(5, 12)]
    with step.threads():
        losses = step(step.shards(corpus, parts, np.random.default_rng(1)), 12)
    assert float(sum(losses)) / 12 == pytest.approx(float(loss.detach()), rel=1e-4)
    for ours, theirs in zip(model.parameters(), expected.parameters(), strict=True):
        assert theirs.grad is not None
        torch.testing.assert_close(ours, theirs - 0.1 * theirs.grad, rtol=1e-4, atol=1e-6)


def test_a_parameter_that_a_batch_does_not_use_has_no_gradient_and_nothing_fails() -> None:
    config, corpus = tiny(), corpus_of(6, 20)
    model = build_model(config.model, 20)
    model.idle_expert = nn.Linear(4, 4)  # as one to which a batch sends no token
    before = [parameter.clone() for parameter in model.idle_expert.parameters()]
    optimizer = torch.optim.SGD(model.parameters(), 0.1)

    def loss(model: nn.Module, batch: Batch, _: Rows) -> Tensor:
        return token_nll(model(batch.inputs), batch.targets).sum()

    step = Step(model, optimizer, loss, config.training, TrainerState(), Runtime("cpu"))
    with step.threads():
        step(step.shards(corpus, [np.arange(6)], np.random.default_rng(0)), 6)
    assert all(torch.equal(*pair) for pair in zip(before, model.idle_expert.parameters(), strict=True))
    assert float(model.embedding.weight.grad.abs().sum()) > 0  # type: ignore[union-attr]


class Diary(Callback):
    """Writes down what it is called for."""

    def __init__(self) -> None:
        self.entries: list[str] = []

    def before_epoch(self, trainer: Trainer, progress: EpochProgress) -> None:
        self.entries.append(f"epoch {trainer.state.epoch + 1}")
        assert progress.molecules == 0

    def after_step(self, trainer: Trainer, progress: EpochProgress) -> None:
        self.entries.append(f"step {trainer.state.step}")
        assert progress.positions <= progress.all_positions

    def after_steps(self, trainer: Trainer, progress: EpochProgress) -> None:
        self.entries.append("steps done")
        assert (progress.molecules, progress.positions) == (len(trainer.data.corpus), progress.all_positions)

    def after_epoch(self, trainer: Trainer) -> None:
        self.entries.append(f"validated {trainer.log[-1]['epoch']}")

    def after_training(self, trainer: Trainer) -> None:
        self.entries.append(f"done {trainer.state.epoch}")


def test_callbacks_are_called_at_their_moments_and_the_trainer_alone_writes_nothing(
    moses_mini: list[str], tmp_path: Path
) -> None:
    thirty = tmp_path / "thirty.smi"
    thirty.write_text("\n".join(moses_mini[:30]) + "\n")
    settings = ["training.epochs=2", "training.batch_size=12", "training.batching=random", "data.min_token_count=1"]
    config = load_config(None, [*TINY, *settings], {"data.source": str(thirty), "training.randomized": 0.0})
    config = load_config(None, ["training.randomized_end=0.0"], base=config)
    runtime, diary = Runtime("cpu", SINGLE_PROCESS), Diary()
    source = open_source(config, tmp_path / "run", resume=False)
    run, data, fingerprint = prepare_run(source, tmp_path / "run", False, False, runtime)
    there = {path.name for path in run.path.iterdir()}
    Trainer(run, data, runtime, fingerprint, [diary]).fit()
    epoch = ["step", "step", "steps done", "validated"]
    assert [entry.split(" ")[0] if "steps" not in entry else entry for entry in diary.entries] == [
        *("epoch", *epoch, "epoch", *epoch),
        "done",
    ]
    assert {path.name for path in run.path.iterdir()} == there


def test_a_training_with_one_validation_molecule_reports_its_nll_without_an_error(
    moses_mini: list[str], tmp_path: Path
) -> None:
    (tmp_path / "few.smi").write_text("\n".join(moses_mini[:12]) + "\n")
    settings = ["training.epochs=1", "data.min_token_count=1", "data.validation_size=1", "data.vocabulary=all"]
    run = train(load_config(None, [*TINY, *settings], {"data.source": tmp_path / "few.smi"}), tmp_path / "run")
    assert run.report["validation"]["n"] == 1
    assert run.report["validation"]["nll_stderr"] is None
