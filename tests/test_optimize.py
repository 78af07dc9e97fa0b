"""`molgen optimize`: it finds better molecules, counts its calls, goes on exactly, and trusts no scorer."""

import csv
import math
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import Cli

from molgen import MoleculeGenerator, Run
from molgen.chem.reactive import REACTIVE, reactive_group
from molgen.chem.smiles import canonical, parse
from molgen.errors import MolgenError
from molgen.optimize import objective, optimization, optimize, screen
from molgen.optimize.auc import auc_top
from molgen.optimize.memory import Memory
from molgen.optimize.settings import LearnerConfig
from molgen.runs import find_run

NITROGENS = {"components": [{"element": "N", "transform": {"rising": [0, 6]}}]}
MOLGEN = [sys.executable, "-m", "molgen"]
LETTERS = "import sys\nfor line in sys.stdin: print(line.count('C'))\n"


def rows_of(path: Path) -> list[dict[str, str]]:
    with (path / "scored.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def command(tmp_path: Path, script: str, name: str = "scorer.py") -> str:
    path = tmp_path / name
    path.write_text(script)
    return shlex.join([sys.executable, "-I", str(path)])


# what it finds


@pytest.mark.slow
def test_a_search_finds_better_molecules_than_the_prior_draws(tmp_path: Path) -> None:
    asked = {"components": [{"element": "F", "transform": {"rising": [0, 5]}}]}
    run = optimize("moses-small", asked, out=tmp_path / "r", calls=400, preset="benchmark")
    rows = rows_of(run.path)
    totals = [float(row["total"]) for row in rows]
    assert len(rows) == 400
    assert len({row["canonical"] for row in rows}) == 400
    assert sum(totals[-100:]) > 2 * sum(totals[:100])
    drawn = MoleculeGenerator.load(run.path).sample(100, seed=1)
    before = MoleculeGenerator.load("moses-small").sample(100, seed=1)
    assert drawn.canonical.str.count("F").sum() > 2 * before.canonical.str.count("F").sum()
    assert run.report["optimize"]["auc_top10"] == pytest.approx(auc_top(totals, 400))


def test_a_row_holds_each_component_raw_and_transformed(tmp_path: Path) -> None:
    asked = {
        "mean": "arithmetic",
        "components": [
            {"property": "mw", "transform": {"rising": [0, 1000]}, "weight": 3},
            {"smarts": "N", "name": "amine"},
        ],
    }
    run = optimize("moses-small", asked, out=tmp_path / "r", calls=20)
    rows = rows_of(run.path)
    assert [row["call"] for row in rows] == [str(i) for i in range(1, 21)]
    for row in rows:
        assert canonical(row["smiles"]) == row["canonical"]
        assert float(row["mw_score"]) == pytest.approx(float(row["mw_raw"]) / 1000)
        by_hand = (3 * float(row["mw_raw"]) / 1000 + float(row["amine_raw"])) / 4
        assert float(row["total"]) == pytest.approx(by_hand)


def test_the_result_is_a_run_like_any_other(cli: Cli, small_run: Run, small_file: Path) -> None:
    Path("mine.yaml").write_text("components:\n  - element: N\n    transform: {rising: [0, 6]}\n")
    done = cli("optimize", small_run.path, "--objective", "mine.yaml", "-n", 5, "--out", "runs/n")
    assert done.code == 0, done.err
    assert {path.name for path in Path("runs/n").iterdir()} >= {
        "README.md", "config.yaml", "curves.png", "model.safetensors", "optimize.yaml", "report.json", "rounds.csv",
        "scored.csv", "tokenizer.json", "molecules.csv.gz",
    }  # fmt: skip
    assert cli("sample", "runs/n", "-n", 5).out.count("\n") == 5
    assert cli("eval", "runs/n", "-n", 50).code == 0
    assert cli("score", small_file, "runs/n").code == 0
    assert cli("train", small_file, "--init", "runs/n", "--out", "runs/t", "--set", "training.epochs=1").code == 0
    again = cli("optimize", "runs/n", "--objective", "mine.yaml", "-n", 3, "--out", "runs/again")
    assert again.code == 0, again.err


def test_filters_that_pass_nothing_are_said_with_how_many_were_drawn(cli: Cli, small_run: Run) -> None:
    done = cli("optimize", small_run.path, "--objective", "pmo/qed", "--where", "mw < 1", "-n", 5)
    assert done.code == 2
    assert "none of 1,280 molecules drawn from the prior passes the hard filters" in done.err
    assert not Path("runs").exists()


def test_an_objective_scores_by_hand_too() -> None:
    qed = objective("pmo/qed")
    assert qed(["CC(=O)Oc1ccccc1C(=O)O", "C(", "c1ccccc1"]) == pytest.approx([0.5501, 0, 0.4426], abs=1e-4)
    letters = objective(lambda smiles: [len(s) / 10 for s in smiles])
    assert letters(["CCO", "OCC", ""]) == pytest.approx([0.3, 0.3, 0])


def test_the_package_is_the_function_too(tmp_path: Path) -> None:
    import molgen

    run = molgen.optimize("moses-small", objective=lambda smiles: [0.5 for _ in smiles], calls=5, out=tmp_path / "r")
    assert len(rows_of(run.path)) == 5
    assert molgen.optimize.objective("pmo/qed")(["c1ccccc1"]) == pytest.approx([0.4426], abs=1e-4)


def test_the_area_under_the_curve_is_that_of_pmos_code() -> None:
    def by_pmo(totals: Sequence[float], most: int) -> float:  # the formula that PMO's authors give
        total = previous = called = 0.0
        for i in range(100, min(len(totals), most), 100):
            now = sum(sorted(totals[:i])[-10:]) / 10
            total += 100 * (now + previous) / 2
            previous, called = now, i
        now = sum(sorted(totals)[-10:]) / 10
        total += (len(totals) - called) * (now + previous) / 2
        return (total + (most - len(totals)) * now) / most

    rising = [i / 1000 for i in range(1000)]
    assert auc_top(rising, 1000) == pytest.approx(by_pmo(rising, 1000))
    assert auc_top(rising[:730], 1000) == pytest.approx(by_pmo(rising[:730], 1000))
    assert auc_top([1.0] * 1000, 1000) == pytest.approx(0.95)  # the curve begins at 0


def test_a_stage_changes_what_is_asked_for(tmp_path: Path) -> None:
    asked = {
        "stages": [
            {"components": [{"element": "N", "transform": {"rising": [0, 6]}}]},
            {"calls": 60, "components": [{"element": "O", "transform": {"rising": [0, 6]}}]},
        ]
    }
    run = optimize("moses-small", asked, out=tmp_path / "r", calls=150)
    rows = rows_of(run.path)
    late = [row for row in rows if row["stage"] == "1"]
    assert late[0]["origin"] == "rescored"
    again = {row["canonical"] for row in late if row["origin"] == "rescored"}
    assert again <= {row["canonical"] for row in rows if row["stage"] == "0"}
    assert all(row["element_raw"] == "" and row["element_2_raw"] != "" for row in late)


def test_a_vocabulary_grows_by_the_elements_that_are_asked_for(tmp_path: Path) -> None:
    known = Run(find_run("moses-small").path).tokenizer.tokens
    assert "P" not in known
    run = optimize("moses-small", {"components": [{"isomer": "C4H9PBr"}]}, out=tmp_path / "r", calls=10)
    assert run.tokenizer.tokens[: len(known)] == known
    assert "P" in run.tokenizer.tokens


# what it costs


def test_a_molecule_is_scored_once_and_an_invalid_one_never(tmp_path: Path) -> None:
    asked: list[str] = []

    def scores(smiles: list[str]) -> list[float]:
        asked.extend(smiles)
        return [s.count("N") / 10 for s in smiles]

    optimize("moses-small", scores, out=tmp_path / "r", calls=50, maximise="0..1")
    assert len(asked) == len(set(asked)) == 50
    assert all(canonical(one) == one for one in asked)


def test_stereoisomers_are_one_molecule_to_an_objective_that_is_blind_to_them() -> None:
    from molgen.optimize.components import load_objective

    assert not load_objective("pmo/celecoxib_rediscovery").sees_stereo
    assert load_objective({"components": [{"scorer": True}]}).sees_stereo
    assert not load_objective({"components": [{"scorer": True, "blind_to_stereo": True}]}).sees_stereo


def test_what_fails_a_filter_or_a_cheap_component_never_reaches_the_dear_scorer(tmp_path: Path) -> None:
    asked: list[str] = []

    def dear(smiles: list[str]) -> list[float]:
        asked.extend(smiles)
        return [1.0] * len(smiles)

    values = {
        "where": "mw < 300",
        "components": [{"scorer": True}, {"element": "F", "transform": {"between": [1, 9]}}],
    }
    run = optimize("moses-small", values, out=tmp_path / "r", calls=40, maximise="0..1", scorer=dear)
    rows = rows_of(run.path)
    without = [row for row in rows if row["element_raw"] == "0.0"]
    assert without
    assert all(row["total"] == "0.0" and row["scorer_raw"] == "" for row in without)
    assert set(asked) == {row["canonical"] for row in rows if row["element_raw"] != "0.0"}


def test_several_jobs_change_no_result(cli: Cli, tmp_path: Path) -> None:
    for jobs in (1, 3):
        done = cli(
            "optimize", "moses-small", "--command", command(tmp_path, LETTERS), "--maximise", "0..20", "-n", 40,
            "--jobs", jobs, "--out", f"r{jobs}",
        )  # fmt: skip
        assert done.code == 0, done.err
    for name in ("scored.csv", "model.safetensors"):
        assert Path("r1", name).read_bytes() == Path("r3", name).read_bytes()


# going on


class KilledError(BaseException):
    """Stands for a SIGKILL."""


def killed_after(patch: pytest.MonkeyPatch, calls: int) -> list[int]:
    """Raises KilledError at one of the operations on files; returns a list that holds how many there were."""
    count = [0]

    def counted(function: Any) -> Any:
        def call(*arguments: object, **named: object) -> object:
            count[0] += 1
            if count[0] == calls:
                raise KilledError
            return function(*arguments, **named)

        return call

    for owner, name in ((os, "fdopen"), (Path, "replace"), (os, "fsync")):
        patch.setattr(owner, name, counted(getattr(owner, name)))
    return count


@pytest.mark.parametrize(("preset", "quarters"), [("people", (2,)), ("benchmark", (1, 2, 3))])
def test_a_search_that_is_killed_anywhere_goes_on_as_if_it_had_not_been(
    preset: str, quarters: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optimization, "_SECONDS_BETWEEN_STATES", 0.0)
    asked: list[str] = []

    def scores(smiles: list[str]) -> list[float]:
        asked.extend(smiles)
        return [s.count("N") / 10 for s in smiles]

    def search(out: str, resume: bool = False) -> None:
        settings: dict[str, Any] = {} if resume else {"calls": 150, "maximise": "0..1", "preset": preset}
        optimize("moses-small", scores, out=tmp_path / out, resume=resume, **settings)

    with monkeypatch.context() as patch:
        count = killed_after(patch, -1)
        search("whole")
    assert len(asked) == 150
    for i in quarters:
        out = tmp_path / f"killed{i}"
        with monkeypatch.context() as patch, pytest.raises(KilledError):
            killed_after(patch, count[0] * i // 4)
            search(out.name)
        before = {row["canonical"] for row in rows_of(out)} if (out / "scored.csv").exists() else set()
        asked.clear()
        search(out.name, resume=(out / "state.safetensors").exists())
        assert not before & set(asked)  # what is written is not scored again
        for name in ("scored.csv", "model.safetensors", "tokenizer.json"):
            assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), (i, name)


@pytest.mark.parametrize(("elements", "calls", "killed_in"), [("N", 260, 4), ("NO", 140, 2)])
def test_a_search_goes_on_with_the_surrogate_and_into_the_stage_that_came_next(
    elements: str, calls: int, killed_in: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optimization, "_SECONDS_BETWEEN_STATES", 0.0)
    settings: list[object] = []

    class Noted(screen.Surrogate):
        def __init__(self, features: Any, scores: Any, setting: Any = None) -> None:
            settings.append(setting)
            super().__init__(features, scores, setting)

    monkeypatch.setattr(screen, "Surrogate", Noted)
    stages = [
        {"components": [{"element": element, "transform": {"rising": [0, 6]}}], "calls": 10 * i}
        for i, element in enumerate(elements)
    ]

    def killed(row: Mapping[str, Any]) -> None:
        if row["round"] == killed_in:
            raise KilledError

    optimize("moses-small", {"stages": stages}, out=tmp_path / "whole", calls=calls)
    whole = settings.copy()
    with pytest.raises(KilledError):
        optimize("moses-small", {"stages": stages}, out=tmp_path / "killed", calls=calls, on_row=killed)
    settings.clear()
    optimize(out=tmp_path / "killed", resume=True)
    if len(elements) == 1:  # the last state before the kill has what was sought in its round
        assert isinstance(settings[0], tuple)
        assert settings == whole[-len(settings) :]
    for name in ("scored.csv", "model.safetensors"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_search_that_has_finished_is_not_gone_on_with(cli: Cli) -> None:
    Path("n.yaml").write_text("components: [{smarts: N}]\n")
    assert cli("optimize", "moses-small", "--objective", "n.yaml", "-n", 5, "--out", "r").code == 0
    done = cli("optimize", "--resume", "--out", "r")
    assert done.code == 2
    assert "has finished" in done.err


@pytest.mark.slow
def test_ctrl_c_does_not_wait_for_a_slow_scorer_and_ends_it(tmp_path: Path) -> None:
    script = f"import os, time\nopen({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\ntime.sleep(600)\n"
    slow = command(tmp_path, script)
    process = subprocess.Popen(
        [*MOLGEN, "optimize", "moses-small", "--command", slow, "--maximise", "0..1", "--out", "r"],
        cwd=tmp_path, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        assert process.poll() is None
        time.sleep(0.1)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "--resume --out r --command" in err
    assert "Traceback" not in err
    pid = int((tmp_path / "pid").read_text())
    for _ in range(50):
        if not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2][:3]:
            break
        time.sleep(0.1)
    else:
        pytest.fail("the scorer is still running")


# scorers that fail

FAULTS = {
    "dies": ("import sys\nprint('no licence', file=sys.stderr)\nsys.exit(3)\n", "exit status 3.*no licence"),
    "hangs": ("import time\ntime.sleep(60)\n", "took longer than"),
    "prints text": ("import sys\nfor line in sys.stdin: print('score:', 1)\n", "'score: 1', which is no number"),
    "too few lines": ("import sys\nlines = list(sys.stdin)\nprint(1)\nprint(2)\n", r"wrote 2 lines for \d+ molecules"),
    "NaN": ("import sys\nfor line in sys.stdin: print('nan')\n", "nan, which is no finite number"),
    "infinities": ("import sys\nfor line in sys.stdin: print('-inf')\n", "-inf, which is no finite number"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_scorer_that_fails_is_told_of_and_stops_the_search(fault: str, cli: Cli, tmp_path: Path) -> None:
    script, message = FAULTS[fault]
    done = cli(
        "optimize", "moses-small", "--command", command(tmp_path, script), "--maximise", "0..1", "-n", 5, "--out", "r",
        "--timeout", 0.2,
    )  # fmt: skip
    assert done.code == 2
    assert re.search(message, done.err), done.err
    assert "Traceback" not in done.err
    rows = rows_of(Path("r"))
    assert 1 <= len(rows) <= 5
    assert all(row["total"] == "" and row["problem"] for row in rows)


def test_what_a_scorer_cannot_score_is_left_out_and_counted(cli: Cli, tmp_path: Path) -> None:
    script = "import sys\nfor line in sys.stdin: print('-' if 'N' in line else 0.5)\n"
    done = cli(
        "optimize", "moses-small", "--command", command(tmp_path, script), "--maximise", "0..1", "-n", 40,
        "--out", "r", "--on-error", "skip",
    )  # fmt: skip
    assert done.code == 0, done.err
    rows = rows_of(Path("r"))
    failed = [row for row in rows if row["total"] == ""]
    assert len(rows) == 40
    assert failed
    assert all("N" in row["smiles"].upper() for row in failed)
    assert f"{len(failed)} without a score" in done.err


def test_a_search_that_a_failing_scorer_stopped_asks_again_when_it_goes_on(tmp_path: Path) -> None:
    broken = True

    def scores(smiles: list[str]) -> list[float]:
        return ["-" if broken and "N" in s else 0.5 for s in smiles]  # type: ignore[misc]

    with pytest.raises(MolgenError, match="which is no number"):
        optimize("moses-small", scores, out=tmp_path / "r", calls=30, maximise="0..1")
    stopped = rows_of(tmp_path / "r")
    broken = False
    optimize("moses-small", scores, out=tmp_path / "r", maximise="0..1", resume=True)
    rows = rows_of(tmp_path / "r")
    assert rows[: len(stopped)] == stopped
    failed = {row["canonical"] for row in stopped if row["total"] == ""}
    assert failed <= {row["canonical"] for row in rows[len(stopped) :] if row["total"]}


def test_a_scorer_that_gives_one_value_for_many_molecules_is_told_so_before_the_search(cli: Cli) -> None:
    Path("scores.py").write_text("def first(smiles):\n    return [0.5]\n", encoding="utf-8")
    done = cli("optimize", "moses-small", "--objective", "scores.py:first", "--out", "r")
    assert done.code == 2
    assert "score has no number for 32 molecules: gave 1 values for 32 molecules" in done.err
    assert not Path("r").exists()


def test_raw_numbers_need_a_range_and_the_spread_is_shown(cli: Cli, tmp_path: Path) -> None:
    done = cli("optimize", "moses-small", "--command", command(tmp_path, LETTERS), "--out", "r")
    assert done.code == 2
    assert "no scores in [0, 1]: " in done.err
    assert "median" in done.err
    assert "--maximise" in done.err
    assert not Path("r").exists()
    Path("raw.yaml").write_text("components:\n  - smarts: C\n  - property: mw\n", encoding="utf-8")
    tried = cli("optimize", "moses-small", "--objective", "raw.yaml", "--dry-run")
    done = cli("optimize", "moses-small", "--objective", "raw.yaml", "--out", "r")
    assert done.code == tried.code == 2
    assert done.err == tried.err
    low, high = map(
        float, re.findall(r"mw: a raw number needs a transform; its values are (\S+) to (\S+),", done.err)[0]
    )
    assert 100 < low < high < 400
    assert f"transform: {{rising: [{low:.4g}, {high:.4g}]}}" in done.err
    assert not Path("r").exists()
    # negative numbers are shown without a warning, and a dear scorer is not asked before
    Path("raw.yaml").write_text("components:\n  - scorer: true\n  - likelihood: moses-small\n", encoding="utf-8")
    asked = command(tmp_path, "open('asked', 'w').close()\n" + LETTERS)
    done = cli("optimize", "moses-small", "--objective", "raw.yaml", "--command", asked, "--out", "r")
    assert done.code == 2
    assert re.fullmatch(r"molgen: likelihood: a raw number .* values are -.*\n", done.err)
    assert not Path("asked").exists()


@pytest.mark.parametrize("text", ["5", "a..b", "1..1", "1..", "1..inf"])
def test_a_range_that_is_none_is_refused(text: str, cli: Cli) -> None:
    done = cli("optimize", "moses-small", "--command", "true", "--minimise", text, "--out", "r")
    assert done.code == 2
    assert f"--minimise {text}: no range" in done.err


def test_an_unknown_program_file_or_function_is_said(cli: Cli) -> None:
    Path("scores.py").write_text("def affinity(smiles):\n    return [0.5] * len(smiles)\nraise_at = 1\n")
    range_ = ("--maximise", "0..1", "-n", 5)
    for given, message in (
        (("--command", "./no-such-program"), "no such program"),
        (("--objective", "absent.py:affinity"), "no such file"),
        (("--objective", "scores.py:afinity"), "has no function afinity"),
        (("--objective", "scores:affinity"), "cannot be imported"),  # the current folder is not on the import path
        (("--objective", "pmo/qedd"), "no preset"),
        ((), "no objective"),
    ):
        done = cli("optimize", "moses-small", *given, *(range_ if given else ()), "--out", "r")
        assert done.code == 2, given
        assert message in done.err, (given, done.err)
    done = cli("optimize", "moses-small", "--objective", "scores.py:affinity", "-n", 5, "--out", "good")
    assert done.code == 0, done.err


def test_a_dry_run_scores_ten_molecules_and_writes_nothing(cli: Cli, tmp_path: Path) -> None:
    scorer = command(tmp_path, LETTERS)
    done = cli("optimize", "moses-small", "--command", scorer, "--minimise", "0..20", "--dry-run", "-n", 5000)
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert lines[0].split("\t") == ["smiles", "total", "score", "problem"]
    assert len(lines) == 11
    smiles, total, raw, _ = lines[1].split("\t")
    assert float(raw) == smiles.count("C")
    assert float(total) == pytest.approx(1 - smiles.count("C") / 20, abs=1e-3)
    assert "5,000 calls: about" in done.err
    assert not Path("runs").exists()


# whom it trusts


def test_a_run_of_someone_elses_that_names_a_command_runs_nothing(cli: Cli, tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    script = command(
        tmp_path, f"open({str(witness)!r}, 'w')\nimport sys\nfor line in sys.stdin: print(1)\nsys.exit(1)\n"
    )
    done = cli("optimize", "moses-small", "--command", script, "--maximise", "0..1", "-n", 5, "--out", "r")
    assert done.code == 2
    assert witness.exists()
    witness.unlink()
    for given in (
        ("optimize", "--resume", "--out", "r"),
        ("optimize", "r", "--objective", "pmo/qed", "-n", 5, "--out", "again"),
        ("sample", "r", "-n", 2),
        ("eval", "r", "-n", 10),
    ):
        cli(*given)
        assert not witness.exists(), given
    done = cli("optimize", "--resume", "--out", "r")
    assert done.code == 2
    assert "a run executes nothing by itself" in done.err
    done = cli("optimize", "--resume", "--out", "r", "--command", "echo 1")
    assert done.code == 2
    assert "another scorer" in done.err


def test_an_edited_file_of_settings_is_noticed(cli: Cli, tmp_path: Path) -> None:
    failing = command(tmp_path, "import sys\nsys.exit(1)\n")
    assert cli("optimize", "moses-small", "--command", failing, "--maximise", "0..1", "--out", "r").code == 2
    settings = Path("r/optimize.yaml")
    settings.write_text(settings.read_text().replace("seed: 0", "seed: 1"))
    done = cli("optimize", "--resume", "--out", "r", "--command", failing)
    assert done.code == 2
    assert "not the settings that the search began with" in done.err


# reactive groups and memory


@pytest.mark.parametrize(
    ("smiles", "group"),
    [
        ("CC(=O)Cl", "acyl halide"),
        ("CC(=O)OC(C)=O", "anhydride"),
        ("CC(=O)OC(=O)c1ccccc1", "anhydride"),
        ("CCOOC", "peroxide"),
        ("CNNNC", "N-N-N chain"),
        ("CN=[N+]=[N-]", "N-N-N chain"),
        ("CN(Cl)C", "halogen on N, O or S"),
        ("CN=C=O", "cumulene"),
        ("CS(=O)(=O)F", "sulfonyl or phosphoryl halide"),
        ("C1CC2=CCC1CC2", "anti-Bredt alkene"),
        ("C1CCC#CCC1", "small ring with a triple bond"),
        ("C1NN1", "three-membered ring of two heteroatoms"),
        ("c1ccccc1[N+]#N", "diazonium"),
        ("CC1=C2CCC(C1)C2", "anti-Bredt alkene"),
        ("C1CCC2=C(C1)CCCC2", ""),  # fused, not bridged
        ("C1=CC2CCC1C2", ""),  # norbornene: the double bond is not at a bridgehead
        ("Cn1nnnc1C", ""),  # a tetrazole
        ("CC(C)(C)OC(=O)N1CCC1", ""),
        ("C=CC(=O)Nc1ccccc1", ""),
    ],
)
def test_a_reactive_group_is_named(smiles: str, group: str) -> None:
    assert reactive_group(parse(smiles), list(REACTIVE)) == group


def test_well_known_drugs_have_no_reactive_group() -> None:
    with (Path(__file__).parents[1] / "data" / "benchmark-targets.csv").open(newline="") as file:
        targets = [parse(row["smiles"]) for row in csv.DictReader(file)]
    groups = [reactive_group(molecule, list(REACTIVE)) for molecule in targets]
    assert len(groups) > 25
    assert [group for group in groups if group] == []


def test_a_warhead_spares_its_own_atoms_only() -> None:
    fluoride = "S(=O)(=O)F"
    one, two = parse("CCS(=O)(=O)F"), parse("CC(=O)OC(=O)CCS(=O)(=O)F")
    assert reactive_group(one, list(REACTIVE), [fluoride]) == ""
    assert reactive_group(two, list(REACTIVE), [fluoride]) == "anhydride"


def test_a_scaffold_that_is_exhausted_is_no_longer_rewarded_and_leaves_the_memory() -> None:
    memory = Memory(capacity=10, greediness=0.1, limit=2, from_score=0.4)
    assert memory.add("A", 0.9, "ring") == 0.9
    assert memory.add("B", 0.3, "ring") == 0.3  # below the score from which it counts
    assert memory.add("C", 0.8, "ring") == 0.8
    assert memory.add("D", 0.7, "other") == 0.7
    assert memory.add("E", 0.95, "ring") == 0.0
    assert [entry.canonical for entry in memory.best] == ["D"]
    assert math.isnan(memory.add("F", math.nan, "other"))


# warnings


def test_an_agent_that_draws_nothing_new_is_told_of_and_the_search_ends(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from molgen.optimize.agent import Agent

    monkeypatch.setattr(Agent, "draw", lambda _, starts, __: (["CCO", "CCN", "CCC"] * len(starts))[: len(starts)])
    settings = LearnerConfig(batch=3, proposals=3, replays=0)
    run = optimize("moses-small", NITROGENS, out=tmp_path / "r", calls=50, learner=settings)
    err = capfd.readouterr().err
    assert "the agent has collapsed: 3 of its last 60 strings were new" in err
    assert "ended after 3 calls: no new molecule in the last 50 rounds" in err
    assert run.report["optimize"]["calls"] == 3


def test_options_that_make_no_sense_together_are_refused(cli: Cli, tmp_path: Path) -> None:
    scorer = command(tmp_path, LETTERS)
    Path("s.py").write_text("def f(smiles):\n    return [0.5] * len(smiles)\n")
    Path("n.yaml").write_text("components: [{smarts: N}]\n")
    for given, message in (
        (("--objective", "pmo/qed", "--command", scorer), "no component `scorer: true`"),
        (("--objective", "s.py:f", "--command", scorer), "two scorers"),
        (("--objective", "n.yaml", "--minimise", "0..1"), "no `scorer: true`"),
        (("--command", scorer, "--minimise", "0..1", "--maximise", "0..1"), "one of them"),
        (("--objective", "n.yaml", "--where", "mw < 10"), "molecules drawn from the prior passes"),
        (("--objective", "n.yaml", "--where", "mw <"), "not understood"),
        (("--objective", "n.yaml", "--smarts", "[["), "not a SMARTS"),
        (("--objective", "n.yaml", "--allow-alert", "anhydrid"), "no such group"),
        (("--objective", "n.yaml", "--resume"), "which search?"),
    ):
        done = cli("optimize", "moses-small", *given, "-n", 5, *(() if "--resume" in given else ("--out", "r")))
        assert done.code == 2, given
        assert message in done.err, (given, done.err)
        assert not Path("r").exists(), given
