"""A run that can be asked for values: any subset, in any order, from one model that is also the unconditional one."""

import csv
import math
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SMALL, Cli
from rdkit import Chem
from rdkit.Chem import Descriptors

from molgen.chem.pool import Workers
from molgen.config import load_config
from molgen.data.conditions import ConditionTable, Wish
from molgen.data.labels import LabelArrays
from molgen.errors import MolgenError
from molgen.export.huggingface import export
from molgen.generation.generator import MoleculeGenerator
from molgen.machine import Runtime
from molgen.model.build import build_model, count_parameters
from molgen.model.guidance import GuidedDecoder
from molgen.optimize.optimization import optimize
from molgen.runs import CONDITIONS, REPORT, STATE, Run
from molgen.training.conditional import shown_at_random
from molgen.training.train import train

SETTINGS_OF_RUN = [
    *SMALL,
    "model.context=48",
    "training.epochs=40",
    "training.learning_rate=1e-2",
    "training.batch_size=16",
    "training.ema=0.9",
    "data.split=random",
    "data.min_token_count=1",
]


def chains() -> list[str]:
    """220 ethers of two chains, from light to heavy: a small model learns them in seconds."""
    return ["C" * a + "O" + "C" * b for a in range(1, 21) for b in range(a, a + 11)]


def table_of(molecules: list[str]) -> str:
    """`grade`, a third of the weight, with a bound in each tenth row and some missing; `big`, a class."""
    rows = []
    for i, smiles in enumerate(molecules):
        grade = Descriptors.MolWt(Chem.MolFromSmiles(smiles)) / 30  # type: ignore[attr-defined]
        text = "" if i % 10 == 7 else f">{grade - 0.5:.3f}" if i % 10 == 3 else f"{grade:.3f}"
        rows.append(f"M{i},{smiles},{text},{int(grade > 9)}")
    return "id,SMILES,grade,big\n" + "\n".join(rows) + "\n"


@pytest.fixture(scope="session")
def asked_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A small model that can be asked for a property, a measured value and a class."""
    folder = tmp_path_factory.mktemp("asked")
    (folder / "mine.csv").write_text(table_of(chains()))
    options = {"data.source": str(folder / "mine.csv"), "data.conditions": ["mw", "grade", "big"]}
    return train(load_config(None, SETTINGS_OF_RUN, options), folder / "run")


@pytest.fixture(scope="session")
def generator(asked_run: Run, pool: Workers) -> MoleculeGenerator:
    return MoleculeGenerator.load(asked_run.path, runtime=Runtime("cpu", workers=pool))


def small_table(values: list[list[float]], sides: list[list[int]] | None = None) -> ConditionTable:
    array = np.array(values)
    labels = LabelArrays(array, np.array(sides or np.zeros_like(array), np.int8))
    return ConditionTable(("x", "hit"), labels.scales, labels, labels)


def test_conditions_leave_all_other_weights_and_the_unconditional_model_as_they_are() -> None:
    config = load_config(None, SMALL).model
    plain, asked = build_model(config, 20, seed=3), build_model(config, 20, seed=3, conditions=2)
    ids = torch.randint(3, 20, (4, 9), generator=torch.Generator().manual_seed(0))
    assert torch.equal(plain.eval()(ids), asked.eval()(ids))
    assert count_parameters(config, 20, conditions=2) == asked.num_parameters > plain.num_parameters
    # and before the first step the model given values is the unconditional one too, up to a sum with zero
    given = asked.given(torch.tensor([[0.5, math.nan]]), torch.zeros(1, 2))
    assert torch.equal(given(ids), plain(ids))
    with pytest.raises(ValueError, match="no conditions"):
        plain.given(torch.zeros(1, 2), torch.zeros(1, 2))


def moved() -> tuple[torch.Tensor, "GuidedDecoder", "GuidedDecoder", "GuidedDecoder"]:
    model = build_model(load_config(None, SMALL).model, 20, seed=3, conditions=2).eval()
    with torch.no_grad():
        model.conditions.outputs.normal_(generator=torch.Generator().manual_seed(1))  # type: ignore[union-attr, operator]
    ids = torch.randint(3, 20, (4, 9), generator=torch.Generator().manual_seed(0))
    given = model.given(torch.tensor([[0.5, -1.0]]), torch.zeros(1, 2))
    return ids, model, given, GuidedDecoder(given, 2.0)  # type: ignore[return-value]


@torch.no_grad()
def test_guidance_of_one_is_the_conditional_model_and_of_none_the_unconditional_one() -> None:
    ids, plain, given, guided = moved()
    log_p = {"plain": plain(ids).log_softmax(-1), "given": given(ids).log_softmax(-1)}
    assert not torch.allclose(log_p["plain"], log_p["given"], atol=1e-3)
    for scale, name in ((0.0, "plain"), (1.0, "given")):
        guided.scale = scale
        torch.testing.assert_close(guided(ids).log_softmax(-1), log_p[name], atol=1e-5, rtol=1e-5)
    guided.scale = 2.0
    torch.testing.assert_close(guided(ids), 2 * log_p["given"] - log_p["plain"], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_step_by_step_a_condition_gives_what_it_gives_at_once() -> None:
    ids, _, given, guided = moved()
    for model in (given, guided):
        state = model.empty_state(4, 16)
        logits, state = model.step(ids[:, :3], state)
        rows = torch.tensor([2, 0, 3])
        state = state.select_rows(rows, 16)
        for t in range(3, 9):
            logits, state = model.step(ids[rows, t : t + 1], state)
        torch.testing.assert_close(logits, model(ids)[rows, -1], atol=1e-4, rtol=1e-4)


def test_values_are_shown_at_random_and_unknown_ones_never() -> None:
    known = torch.tensor([[True, True, True], [True, False, True], [False, False, False]]).repeat(3000, 1)
    shown = shown_at_random(known, 0.2, torch.Generator().manual_seed(0))
    assert not (shown & ~known).any()
    counts = shown[0::3].sum(dim=1)
    shares = [float((counts == k).float().mean()) for k in range(4)]
    assert shares == pytest.approx([0.2, 0.8 / 3, 0.8 / 3, 0.8 / 3], abs=0.03)
    assert shown[0::3].float().mean(dim=0).tolist() == pytest.approx([0.8 * 2 / 3] * 3, abs=0.03)
    assert float((shown[1::3].sum(dim=1) == 0).float().mean()) == pytest.approx(0.2, abs=0.03)


def test_a_text_is_read_as_wishes_and_what_cannot_be_read_is_refused() -> None:
    table = small_table([[1, 0], [2, 1], [9, 1], [4, math.nan]], [[0, 0], [0, 0], [1, 0], [0, 0]])
    assert table.parse("x = 2.5, hit = yes") == (Wish(0, "x", 2.5, 0), Wish(1, "hit", 1.0, 0))
    assert table.parse("hit=0,`x`>3") == (Wish(1, "hit", 0.0, 0), Wish(0, "x", 3.0, 1))
    for text, message in (
        ("y = 1", "no condition 'y'"),
        ("x = 1, x = 2", "asked for twice"),
        ("x = 1; hit = 1", "not understood"),
        ("x", "not understood"),
        ("", "not understood"),
        ("x = inf", "is no number"),
        ("x = much", "is no number"),
        ("hit = 0.5", "is a class"),
        ("hit > 0", "is a class"),
        ("x < 3", "training saw no such bound"),
    ):
        with pytest.raises(MolgenError, match=message):
            table.parse(text)


def test_near_molecules_are_counted_for_each_value_and_for_all_together() -> None:
    # the spread of 0, 1, 2, 3 is 1.118, so 0.25 of it is 0.28
    table = small_table([[0, 0], [1, 1], [2, 1], [3, 0]])
    assert table.near(table.parse("x = 1.2")) == 1
    assert table.near(table.parse("hit = 1")) == 2
    assert table.near(table.parse("x = 1.2, hit = 0")) == 0
    (is_warning, line), *_ = table.remarks(table.parse("x = 7"))
    assert is_warning
    assert "training saw 0 to 3, 0 of 4 molecules near it" in line


def test_what_comes_is_what_was_asked_for(generator: MoleculeGenerator) -> None:
    light, heavy, plain = (
        generator.sample(60, condition=text, columns="mw", valid=True, seed=3) for text in ("mw = 130", "mw = 480", "")
    )
    assert light.mw.mean() < plain.mw.mean() < heavy.mw.mean()
    assert abs(light.mw.mean() - 130) < 40
    assert abs(heavy.mw.mean() - 480) < 60
    assert light.asked_mw.tolist() == ["130"] * 60
    assert light.got_mw.tolist() == pytest.approx(light.mw.tolist())


def test_any_subset_in_any_order_and_measured_values_come_as_the_predictor_says(generator: MoleculeGenerator) -> None:
    one = generator.sample(20, condition="grade = 5, big = no", seed=1)
    other = generator.sample(20, condition="big = 0, grade = 5", seed=1)
    assert one.smiles.tolist() == other.smiles.tolist()
    assert list(one.columns[3:]) == ["asked_grade", "got_grade", "asked_big", "got_big"]
    valid = [smiles for smiles in one.canonical if smiles]
    assert generator.predictor is not None
    predicted = generator.predictor.predict(valid)["grade"].values
    assert one.got_grade[one.valid].tolist() == pytest.approx(predicted.tolist())


def test_without_a_condition_samples_and_likelihoods_are_those_of_the_model(generator: MoleculeGenerator) -> None:
    before = generator.sample(20, seed=5).smiles.tolist()
    generator.sample(5, condition="mw = 200", seed=5)
    assert generator.sample(20, seed=5).smiles.tolist() == before


def test_the_command_writes_columns_a_line_and_a_plot_and_warns(asked_run: Run, cli: Cli) -> None:
    done = cli(
        *("sample", asked_run.path, "--condition", "mw = 900, big = 1", "-n", 100, "-o", "x.csv", "--grid", "x.png"),
        *("--guidance", 1.5, "--seed", 1),
    )
    assert done.code == 0, done.err
    assert "mw = 900 is outside what the run knows: training saw 46" in done.err
    assert "asked mw = 900: came" in done.err
    assert Path("x.conditions.png").read_bytes()[:4] == b"\x89PNG"
    rows = list(csv.DictReader(Path("x.csv").read_text().splitlines()))
    assert {row["asked_mw"] for row in rows} == {"900"}
    for row in rows:
        if row["valid"] == "true":
            weight = Descriptors.MolWt(Chem.MolFromSmiles(row["canonical"]))  # type: ignore[attr-defined]
            assert float(row["got_mw"]) == pytest.approx(weight, abs=0.01)
        else:
            assert row["got_mw"] == ""
    for options, message in (
        (["--guidance", 2], "there is nothing to guide to"),
        (["--condition", "mw = 1", "--guidance", -1], "out of range"),
        (["--condition", "logp = 1"], "no condition 'logp'"),
    ):
        refused = cli("sample", asked_run.path, "-n", 2, *options)
        assert refused.code == 2
        assert message in refused.err


def test_a_run_without_conditions_refuses_one(small_run: Run, cli: Cli) -> None:
    refused = cli("sample", small_run.path, "--condition", "logp = 2")
    assert refused.code == 2
    assert "has no conditions" in refused.err


def test_fragments_filters_and_conditions_go_together(generator: MoleculeGenerator) -> None:
    frame = generator.sample(10, keep="[*:1]OC", condition="mw = 200", where="mw < 400", seed=2)
    pattern = Chem.MolFromSmarts("[CH3]O")
    assert len(frame)
    assert all(Chem.MolFromSmiles(smiles).HasSubstructMatch(pattern) for smiles in frame.canonical)


def test_the_run_says_what_can_be_asked_for_and_export_refuses_it(asked_run: Run, tmp_path: Path) -> None:
    card = (asked_run.path / "README.md").read_text()
    assert "## Conditions" in card
    assert "- `mw`: 46" in card
    known = asked_run.report["conditions"]["known"]
    assert [one["name"] for one in known] == ["mw", "grade", "big"]
    assert [one["is_class"] for one in known] == [False, False, True]
    assert asked_run.targets == ("grade", "big")  # what is measured is predicted too
    assert {"val_nll_given", "val_error"} <= asked_run.log()[-1].keys()
    assert asked_run.log()[-1]["val_nll_given"] < asked_run.log()[-1]["val_nll"]
    with pytest.raises(MolgenError, match="takes conditions"):
        export(asked_run.path, tmp_path / "hf")


def test_a_damaged_file_of_conditions_is_refused(asked_run: Run, tmp_path: Path) -> None:
    shutil.copytree(asked_run.path, tmp_path / "run")
    (tmp_path / "run" / CONDITIONS).write_bytes(b"nothing")
    with pytest.raises(MolgenError, match="cannot be read"):
        _ = Run(tmp_path / "run").condition_table


def test_a_fine_tuning_goes_on_from_the_same_conditions_and_starts_new_ones_as_the_plain_model(
    asked_run: Run, tmp_path: Path
) -> None:
    (tmp_path / "few.csv").write_text(table_of(chains()[60:160]))
    same = {"data.source": str(tmp_path / "few.csv"), "training.init": str(asked_run.path)}
    short = ["training.epochs=1", "training.learning_rate=1e-6", "data.split=random", "training.randomized=0"]
    short += ["training.randomized_end=0", "training.ema=0", "data.min_token_count=1", "model.dropout=0"]
    conditions = ["mw", "grade", "big"]
    again = train(load_config(None, short, {**same, "data.conditions": conditions}), tmp_path / "again")
    assert np.array_equal(again.condition_table.scales.centre, asked_run.condition_table.scales.centre)
    cpu = torch.device("cpu")
    weights, before = (run.model(cpu).conditions.outputs for run in (again, asked_run))  # type: ignore[union-attr]
    torch.testing.assert_close(weights, before, atol=1e-3, rtol=0)
    other = train(load_config(None, short, {**same, "data.conditions": ["logp"]}), tmp_path / "other")
    assert float(other.model(cpu).conditions.outputs.detach().abs().max()) < 1e-3  # type: ignore[union-attr, operator]
    assert other.targets == ()


def test_a_stopped_training_resumes_exactly(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text(table_of(chains()[:80]))
    options = {"data.source": str(tmp_path / "mine.csv"), "data.conditions": ["mw", "big"]}
    config = load_config(None, [*SETTINGS_OF_RUN, "training.epochs=3", "model.dropout=0.1"], options)
    whole = train(config, tmp_path / "whole")

    def stop(row: dict[str, float]) -> None:
        if row["epoch"] == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "part", on_row=stop)
    assert (tmp_path / "part" / STATE).exists()
    assert not (tmp_path / "part" / REPORT).exists()
    part = train(config, tmp_path / "part", resume=True)
    assert part.weights_sha256 == whole.weights_sha256


def test_a_search_starts_from_a_conditioned_prior_and_its_run_keeps_the_condition(
    asked_run: Run, tmp_path: Path
) -> None:
    options = {"objective": {"components": [{"property": "mw", "transform": {"rising": [0, 400]}}]}, "calls": 128}
    run = optimize(asked_run.path, out=tmp_path / "search", condition="mw = 130", alerts=False, **options)
    assert run.config.data.given == "mw = 130"
    frame = MoleculeGenerator.load(run.path, "cpu").sample(20, seed=1)
    assert "got_mw" in frame.columns
    with pytest.raises(MolgenError, match="was optimised under"):
        MoleculeGenerator.load(run.path, "cpu").sample(2, condition="mw = 200")
    with pytest.raises(MolgenError, match="no condition 'logp'"):
        optimize(asked_run.path, out=tmp_path / "none", condition="logp = 1", **options)


@pytest.mark.parametrize(
    ("conditions", "message"),
    [(["mw", "mw"], "named twice"), (["nothing"], "no column 'nothing'")],
)
def test_a_condition_that_cannot_be_is_refused(conditions: list[str], message: str, tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text(table_of(chains()[:60]))
    options = {"data.source": str(tmp_path / "mine.csv"), "data.conditions": conditions}
    with pytest.raises(MolgenError, match=message):
        train(load_config(None, SETTINGS_OF_RUN, options), tmp_path / "run")


@pytest.mark.slow
def test_every_command_of_the_document_runs_in_order(cli: Cli) -> None:
    text = (Path(__file__).parents[1] / "docs" / "conditions.md").read_text(encoding="utf-8")
    blocks = [block.split("```")[0] for block in text.split("```sh\n")[1:]]
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("molgen")]
    assert len(lines) >= 6
    Path("mine.csv").write_text(table_of(chains()).replace("grade", "pIC50"))
    objective = "components:\n  - {model: runs/asked, target: pIC50, transform: {rising: [5, 9]}}\n"
    Path("objective.yaml").write_text(objective)
    settings = [part for one in SETTINGS_OF_RUN for part in ("--set", one)]
    assert cli("train", "mine.csv", "--out", "runs/prior", *settings).code == 0
    for line in lines:
        words = shlex.split(line.replace("druglike", "runs/prior"))[1:]
        if words[0] == "train":
            words += ["--set", "training.epochs=4", "--set", "data.split=random", "--set", "data.min_token_count=1"]
        if "-n" in words:
            words[words.index("-n") + 1] = "64" if words[0] == "optimize" else "20"
        done = cli(*words)
        assert done.code == 0, f"{line}: {done.err}"
