"""Fine-tuning from outside: another run's weights, with rows of their own for the tokens that it lacks."""

import hashlib
import shutil
from pathlib import Path

import pytest
import torch
from conftest import SMALL, Cli

from molgen.config import Config, ModelConfig, load_config
from molgen.data.batches import Corpus
from molgen.errors import MolgenError
from molgen.generation.generator import MoleculeGenerator
from molgen.model.build import build_model
from molgen.model.decoder import Decoder
from molgen.runs import Run, create_run
from molgen.tokenizer import SmilesTokenizer
from molgen.training.finetune import copy_rows, describe, initial_model
from molgen.training.train import train

CPU = torch.device("cpu")
OLD = ["CCO", "c1ccccc1N", "CC(C)=O"]  # tokens ( ) 1 = C N O c
NEW = ["CC(=O)[O-].[Na+]", "C[N+](C)(C)CCBr"]  # tokens besides: . Br [N+] [Na+] [O-]
AS_GIVEN = ["data.fragments=keep", "data.charges=keep", "data.elements=null", "data.min_token_count=1"]
UNTIED = ["model.tied_head=false", "model.biases=true", "model.initialization=pytorch"]


def made_run(path: Path, pattern: str, *settings: str, randomized: bool = False) -> Run:
    """A run as a training leaves it, but with its fresh weights."""
    config = load_config(None, [*SMALL, *settings])
    tokenizer = SmilesTokenizer.of_corpus(OLD, pattern, randomized)
    run = create_run(path, config, tokenizer, (), ())
    run.save_model(build_model(config.model, len(tokenizer), seed=3))
    return run


def begun(run: Run, pattern: str, randomized: bool = False) -> tuple[Decoder, SmilesTokenizer]:
    """The decoder before its first step on what is new, and its tokenizer."""
    tokenizer = run.tokenizer.extended(SmilesTokenizer.of_corpus(NEW, pattern, randomized))
    return initial_model(run.config, tokenizer, run), tokenizer


def texts(tokenizer: SmilesTokenizer) -> list[str]:
    return [*tokenizer.special, *tokenizer.tokens]


@pytest.fixture
def charged(tmp_path: Path, moses_mini: list[str]) -> Path:
    """24 training molecules, two of which have four tokens that MOSES lacks: . [N+] [Na+] [O-]."""
    rows = [f"{smiles},train" for smiles in [*moses_mini[300:322], "CC(=O)[O-].[Na+]", "C[N+](C)(C)CCO"]]
    rows += [f"{smiles},validation" for smiles in moses_mini[322:330]]
    path = tmp_path / "charged.csv"
    path.write_text("\n".join(["smiles,split", *rows]) + "\n")
    return path


def test_old_tokens_keep_their_ids_and_new_ones_follow_in_order(tmp_path: Path, pattern: str) -> None:
    run = made_run(tmp_path / "run", pattern)
    _, tokenizer = begun(run, pattern)
    assert texts(tokenizer) == [*texts(run.tokenizer), ".", "Br", "[N+]", "[Na+]", "[O-]"]


@pytest.mark.parametrize("settings", [[], UNTIED])
def test_before_the_first_step_all_weights_are_the_old_ones_and_new_tokens_have_rows_of_their_own(
    tmp_path: Path, pattern: str, settings: list[str]
) -> None:
    run = made_run(tmp_path / "run", pattern, *settings)
    model, tokenizer = begun(run, pattern)
    old, size = dict(run.model(CPU).named_parameters()), len(run.tokenizer)
    assert old.keys() == dict(model.named_parameters()).keys()
    fresh = dict(build_model(run.config.model, len(tokenizer), run.config.training.seed).named_parameters())
    for name, parameter in model.named_parameters():
        if name in ("embedding.weight", "head.weight", "head.bias"):
            assert torch.equal(parameter[:size], old[name])
            assert torch.equal(parameter[size:], fresh[name][size:])
        else:
            assert torch.equal(parameter, old[name])
    rows = model.embedding.weight[size:]
    assert len(rows) == len({tuple(row.tolist()) for row in rows}) == 5


@pytest.mark.parametrize("settings", [[], UNTIED])
def test_before_the_first_step_old_tokens_have_the_old_logits(
    tmp_path: Path, pattern: str, settings: list[str]
) -> None:
    run = made_run(tmp_path / "run", pattern, *settings)
    model, tokenizer = begun(run, pattern)
    ids = torch.tensor([[1, *(tokenizer.encode("CC(N)=O") or [])]])
    with torch.no_grad():
        old, new = run.model(CPU)(ids), model.eval()(ids)
    torch.testing.assert_close(new[..., : len(run.tokenizer)], old)
    assert new.shape[-1] == len(tokenizer)


@pytest.mark.parametrize(("before", "after"), [(False, True), (True, False), (True, True)])
def test_the_start_token_of_random_forms_moves_no_row(tmp_path: Path, pattern: str, before: bool, after: bool) -> None:
    run = made_run(tmp_path / "run", pattern, *UNTIED, randomized=before)
    model, tokenizer = begun(run, pattern, randomized=after)
    assert tokenizer.special[tokenizer.random_start] == "<random>"
    assert "%19" in tokenizer.tokens
    old = run.model(CPU)
    place = {text: i for i, text in enumerate(texts(tokenizer))}
    for i, text in enumerate(texts(run.tokenizer)):
        assert torch.equal(model.embedding.weight[place[text]], old.embedding.weight[i])
        assert torch.equal(model.head.bias[place[text]], old.head.bias[i])  # type: ignore[index, union-attr]


def test_rows_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="rows"):
        copy_rows(torch.zeros(1, 4), torch.zeros(5, 4), torch.arange(3))
    with pytest.raises(ValueError, match="rows"):
        copy_rows(torch.zeros(3, 4), torch.zeros(5, 2), torch.arange(3))


def test_another_token_pattern_is_refused(tmp_path: Path, pattern: str) -> None:
    with pytest.raises(MolgenError, match="pattern"):
        made_run(tmp_path / "run", pattern).tokenizer.extended(SmilesTokenizer.of_corpus(["CC"], "C"))


def test_the_summary_counts_used_and_new_tokens_and_their_molecules(tmp_path: Path, pattern: str) -> None:
    run = made_run(tmp_path / "run", pattern)
    _, tokenizer = begun(run, pattern)
    training = ["CCO", "CC[O-].[Na+]", "C[O-].C[N+]", "CCN"]  # C N O of the 8, . and [O-] twice, two more once
    assert describe(run, tokenizer, training) == (
        f"from {run.path}: 3 of its 8 tokens are used, 4 new tokens (., [O-], [N+], [Na+]), "
        "in 2 of 4 training molecules (50.0%); 1 more for random forms or other splits"  # Br
    )
    assert describe(run, run.tokenizer, ["CC", "CCO"]) == f"from {run.path}: 2 of its 8 tokens are used, none is new"


def test_fine_tuning_says_and_records_where_it_started(charged: Path, small_run: Run, cli: Cli) -> None:
    shutil.copytree(small_run.path, "runs/small")
    settings = [part for setting in ["training.epochs=2", *AS_GIVEN] for part in ("--set", setting)]
    done = cli("train", charged, "--init", "small", "--out", "tuned", *settings)
    assert done.code == 0, done.err
    assert "4 new tokens (" in done.err
    assert "in 2 of 24 training molecules (8.3%)" in done.err
    assert "before the first step: validation NLL" in done.err
    tuned = Run(Path("tuned"))
    assert tuned.config.training.init == "runs/small"
    assert tuned.config.training.learning_rate == load_config("finetune").training.learning_rate
    dropout = {"dropout": load_config("finetune").model.dropout}  # the training's own
    assert tuned.config.model == small_run.config.model.model_copy(update=dropout)
    digest = hashlib.sha256((small_run.path / "model.safetensors").read_bytes()).hexdigest()
    assert tuned.report["init"] == {"path": "runs/small", "sha256": digest}
    assert small_run.report["init"] is None
    assert tuned.log()[0]["val_nll"] < small_run.log()[0]["val_nll"]
    # what the first run knows is never too rare, what is new may be
    rare = cli("train", charged, "--init", "small", "--out", "plain", "--set", "training.epochs=1")
    assert "none is new" in rare.err or "0 new" in rare.err
    assert Run(Path("plain")).report["dropped"] == {"rare token": 1}
    assert MoleculeGenerator.load("tuned", "cpu").log_likelihood(["CC(=O)[O-].[Na+]"])[0] < 0  # and no NaN: all known

    again = cli("train", charged, "--init", "small", "--out", "tuned", *settings, "--force")
    assert "before the first step" in again.err  # not from the state that lay there
    assert Run(Path("tuned")).log()[0]["val_nll"] == tuned.log()[0]["val_nll"]
    refused = cli("train", charged, "--init", "tuned", "--out", "tuned", "--force")
    assert (refused.code, len(refused.err.splitlines())) == (2, 1)
    assert "is the run to start from" in refused.err
    refused = cli("train", "--init", "small", "--out", "tuned", "--resume")
    assert (refused.code, len(refused.err.splitlines())) == (2, 1)
    assert "--init with --resume" in refused.err


def test_held_out_molecules_that_the_other_run_trained_on_are_left_out_and_counted(
    small_run: Run, moses_mini: list[str], cli: Cli
) -> None:
    known = small_run.split("train")[:3]
    rows = [f"{smiles},train" for smiles in [*moses_mini[300:330], small_run.split("train")[5]]]
    rows += [f"{smiles},validation" for smiles in [*moses_mini[330:336], known[0]]]
    rows += [f"{smiles},test" for smiles in [*moses_mini[336:340], known[1], known[2]]]
    Path("mine.csv").write_text("\n".join(["smiles,split", *rows]) + "\n")
    keep = ["--set", "data.min_token_count=1", "--set", "training.epochs=1"]
    done = cli("train", "mine.csv", "--init", small_run.path, "--out", "tuned", *keep)
    assert "3 trained on by the run to start from" in done.err
    tuned = Run(Path("tuned"))
    assert tuned.report["sizes"] == {"train": 31, "validation": 6, "test": 4}
    assert {d.smiles for d in tuned.dropped} == set(known)


def test_a_resumed_fine_tuning_needs_the_other_run_no_more_and_equals_one_never_stopped(
    charged: Path, small_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    shutil.copytree(small_run.path, gone)
    settings = ["training.epochs=3", "training.batch_size=8", "training.randomized=0.5"]
    config = load_config("finetune", settings, {"data.source": str(charged), "training.init": str(gone)})
    whole = train(config, tmp_path / "whole")

    import molgen.training.trainer as module

    epoch, stops_in = module.Trainer.train_epoch, [0, 2]

    def stops(trainer: module.Trainer, corpus: Corpus) -> tuple[float, float]:
        if stops_in and trainer.state.epoch == stops_in[0]:
            stops_in.pop(0)
            raise KeyboardInterrupt
        return epoch(trainer, corpus)

    monkeypatch.setattr(module.Trainer, "train_epoch", stops)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "stopped")
    shutil.rmtree(gone)
    with pytest.raises(KeyboardInterrupt):
        train(Config(), tmp_path / "stopped", resume=True)
    resumed = train(Config(), tmp_path / "stopped", resume=True)
    assert (resumed.path / "model.safetensors").read_bytes() == (whole.path / "model.safetensors").read_bytes()
    assert [row["val_nll"] for row in resumed.log()] == [row["val_nll"] for row in whole.log()]
    assert resumed.report["init"] == whole.report["init"]


def test_the_network_is_that_of_the_other_run(tmp_path: Path, pattern: str, charged: Path) -> None:
    run = made_run(tmp_path / "run", pattern, "model.context=256", "model.positions=learned")

    def refusal(*settings: str) -> str:
        options = {"training.init": str(run.path), "data.source": str(charged)}
        with pytest.raises(MolgenError) as error:
            train(load_config(None, settings, options), tmp_path / "out")
        assert not (tmp_path / "out").exists()
        return str(error.value)

    assert f"model.width: 64 in the configuration, 32 in {run.path}" in refusal("model.width=64")
    assert "leave model.* out" in refusal("model.blocks=2", "model.tied_head=false")  # the first is the same
    assert "max_tokens 300 is above model.context 256" in refusal("data.max_tokens=300")


@pytest.mark.parametrize(
    ("settings", "context"),
    [([], 64), (["data.max_tokens=90"], 90), (["data.max_tokens=50"], 64), (["model.context=100"], 100)],
)
def test_the_context_grows_where_no_weight_belongs_to_a_position(
    settings: list[str], context: int, tmp_path: Path, pattern: str, charged: Path
) -> None:
    run = made_run(tmp_path / "run", pattern, "model.context=64")
    options = {"training.init": str(run.path), "data.source": str(charged)}
    more = ["training.epochs=1", *SMALL, *AS_GIVEN]
    tuned = train(load_config(None, [*more, *settings], options), tmp_path / "out")
    assert tuned.config.model.context == context
    assert len(MoleculeGenerator.load(tuned.path, "cpu").sample(5)) == 5


@pytest.mark.parametrize(("settings", "dropout"), [({}, ModelConfig().dropout), ({"model.dropout": 0.2}, 0.2)])
def test_dropout_of_a_fine_tuning_is_its_own_and_not_the_other_runs(
    settings: dict[str, float], dropout: float, tmp_path: Path, pattern: str, charged: Path
) -> None:
    run = made_run(tmp_path / "run", pattern)
    assert run.config.model.dropout == 0
    options = {"training.init": str(run.path), "data.source": str(charged), **settings}
    tuned = train(load_config(None, ["training.epochs=1", *AS_GIVEN], options), tmp_path / "out")
    assert tuned.config.model.dropout == dropout > 0
    assert tuned.config.model.width == run.config.model.width


def test_a_run_that_a_recipe_would_make_is_offered_with_its_command(cli: Cli) -> None:
    done = cli("train", "--config", "tox21-transfer", "--init", "runs/moses-prior")
    assert done.code == 2
    assert "molgen train --config moses-prior --out runs/moses-prior" in done.err


@pytest.mark.parametrize("what", ["nowhere", "no/such/run", "unfinished"])
def test_a_run_that_is_missing_or_has_no_weights_is_refused_and_nothing_is_written(
    what: str, charged: Path, cli: Cli, tmp_path: Path, pattern: str
) -> None:
    (made_run(tmp_path / "unfinished", pattern).path / "model.safetensors").unlink()
    refused = cli("train", charged, "--init", what)
    assert (refused.code, len(refused.err.splitlines())) == (2, 1)
    assert what in refused.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["charged.csv", "unfinished"]
