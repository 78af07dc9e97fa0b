"""What people expect of a command-line program: completion, -v and -q, environment variables, JSON, TensorBoard."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import SMALL, Cli

from molgen.doctor import examine, report
from molgen.optimize.progress import read_rounds
from molgen.runs import Run

TINY = [*SMALL, "training.epochs=3", "training.batch_size=16"]
NO_DRAWING = "import sys; sys.modules['rdkit.Chem.Draw'] = None; "
SET = [part for setting in TINY for part in ("--set", setting)]


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard reads in a folder: name → (step, value) of each point."""
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = events.EventAccumulator(str(folder))
    found.Reload()
    return {tag: [(point.step, point.value) for point in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("molgen tr", "train"),
        ("molgen ex", "export"),
        ("molgen data en", "encode"),
        ("molgen train --con", "--config"),
        ("molgen train --config tox21-l", "tox21-large"),
        ("molgen sample moses-s", "moses-small"),
        ("molgen sample --device c", "cuda"),
    ],
)
def test_the_shell_completes_commands_options_recipes_and_runs(words: str, offered: str, tmp_path: Path) -> None:
    place = {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1), "_MOLGEN_COMPLETE": "complete_bash"}
    script = "import sys; sys.argv[0] = 'molgen'; from molgen.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", script], env=os.environ | place, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert offered in done.stdout.split()


def test_quiet_shows_results_only_and_verbose_more_than_usual(cli: Cli, small_run: Run) -> None:
    usual, quiet, verbose = (cli(*flag, "sample", small_run.path, "-n", 5) for flag in ([], ["-q"], ["-v"]))
    assert usual.out == quiet.out == verbose.out
    assert quiet.err == ""
    assert "validity" in usual.err
    assert "molgen.generation" in verbose.err  # each line names its module


def test_warnings_and_errors_are_shown_in_quiet_too(cli: Cli) -> None:
    code, _, err = cli("--quiet", "sample", "no-such-run")
    assert code == 2
    assert "no-such-run" in err
    assert "Traceback" not in err


def test_verbose_shows_where_an_error_arose(cli: Cli) -> None:
    code, _, err = cli("--verbose", "sample", "no-such-run")
    assert code == 2
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("molgen: no-such-run")


def test_verbose_and_quiet_exclude_each_other(cli: Cli) -> None:
    assert cli("-v", "-q", "data", "list").code == 2


def test_the_next_command_of_the_process_is_not_quiet(cli: Cli, small_run: Run) -> None:
    assert cli("-q", "sample", small_run.path, "-n", 2).err == ""
    assert cli("sample", small_run.path, "-n", 2).err != ""


def test_environment_variables_stand_for_the_global_options(
    cli: Cli, small_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOLGEN_QUIET", "1")
    assert cli("sample", small_run.path, "-n", 2).err == ""
    monkeypatch.delenv("MOLGEN_QUIET")
    monkeypatch.setenv("MOLGEN_DEVICE", "tpu")
    code, _, err = cli("sample", small_run.path, "-n", 2)
    assert code == 2
    assert "tpu" in err
    assert cli("sample", small_run.path, "-n", 2, "--device", "cpu").code == 0


def test_a_resumed_training_keeps_its_own_device(
    cli: Cli, small_file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert cli("train", small_file, "--out", "run", *SET).code == 0
    (tmp_path / "run" / "report.json").unlink()
    monkeypatch.setenv("MOLGEN_DEVICE", "cpu")
    resumed = cli("train", "--resume", "--out", "run")
    assert resumed.code == 0, resumed.err


def test_json_goes_to_stdout_where_the_target_is_a_dash(cli: Cli) -> None:
    Path("x.smi").write_text("CCO\nCCC\nC(\n")
    done = cli("eval", "x.smi", "--json", "-")
    assert json.loads(done.out)["n_valid"] == 2
    assert "validity" in done.err  # the table
    listed = json.loads(cli("data", "list", "--json", "-").out)
    assert listed["datasets"]["moses-mini"]["here"] is True
    assert "tox21" in cli("data", "list", "--json", "list.json").out
    assert json.loads(Path("list.json").read_text()) == listed
    assert cli("data", "list", "--json", "list.json").code == 2  # exists


def test_a_description_is_for_a_program_too(cli: Cli) -> None:
    Path("x.smi").write_text("".join(f"{'C' * n}O\n" for n in range(1, 21)) + "C(\nCC(N)C(=O)O\nF\n")
    settings = ["--set", "data.min_token_count=1", "--set", "data.train_size=15", "--set", "data.validation_size=3"]
    found = json.loads(cli("data", "describe", "x.smi", "--json", "-", *settings).out)
    assert (found["rows"], found["molecules"], sum(found["splits"].values())) == (23, 21, 21)
    assert sum(found["dropped"].values()) == 2  # no molecule; no carbon
    assert found["elements"] == {"C": 21, "O": 21, "N": 1}
    assert (found["tokens"]["longest"], found["tokens"]["median"]) == (21, 11)
    shown = cli("data", "describe", "x.smi", "--json", "x.json", *settings)
    assert "23 rows, 21 molecules" in shown.out
    assert json.loads(Path("x.json").read_text()) == found


def test_a_training_writes_its_log_for_tensorboard(cli: Cli, small_file: Path) -> None:
    done = cli("train", small_file, "--out", "run", "--log", "tensorboard", *SET)
    assert done.code == 0, done.err
    found, log = scalars(Path("run/tensorboard")), Run("run").log()
    assert set(found) == {"epoch", "train_nll", "val_nll", "val_top1", "lr", "tokens_per_second", "seconds"}
    assert [step for step, _ in found["val_nll"]] == [int(row["step"]) for row in log]
    assert [value for _, value in found["val_nll"]] == pytest.approx([row["val_nll"] for row in log], rel=1e-4)
    again = cli("train", small_file, "--out", "run", "--force", "--log", "tensorboard", *SET)
    assert again.code == 0
    assert len(scalars(Path("run/tensorboard"))["val_nll"]) == 3  # not those of the training before


def test_an_optimisation_writes_each_round_for_tensorboard(cli: Cli) -> None:
    asked = "components: [{element: N, transform: {rising: [0, 6]}}]"
    Path("asked.yaml").write_text(asked)
    done = cli(
        "optimize", "moses-small", "--objective", "asked.yaml", "-n", 20, "--out", "found", "--log", "tensorboard"
    )
    assert done.code == 0, done.err
    rounds = read_rounds(Path("found/rounds.csv"))
    found = scalars(Path("found/tensorboard"))
    assert [step for step, _ in found["best"]] == [int(row["calls"]) for row in rounds]
    assert [value for _, value in found["best"]] == pytest.approx([row["best"] for row in rounds], rel=1e-4)


def test_without_the_extra_the_reason_is_said_before_the_training(
    cli: Cli, small_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("molgen.runtime.tensorboard.find_spec", lambda _: None)
    code, _, err = cli("train", small_file, "--out", "run", "--log", "tensorboard", *SET)
    assert (code, "extra `tensorboard`" in err) == (2, True)
    assert not Path("run").exists()


def test_doctor_names_versions_devices_folders_and_samples(cli: Cli) -> None:
    code, out, _ = cli("doctor", "--json", "found.json")
    assert code == 0
    found = json.loads(Path("found.json").read_text())
    assert found["ok"] is True
    assert found["missing"] == []
    for text in (found["molgen"], "torch", "rdkit", "bf16", "threads", "cache", "smoke test", "moses-small"):
        assert str(text) in out
    assert str(Path.home()) not in out or Path.home() == Path("/")


def test_where_the_library_that_draws_is_missing_all_but_pictures_works(tmp_path: Path) -> None:
    # stands for a minimal Linux, where RDKit's import of drawing ends with "libXrender.so.1: cannot open …"
    without = f"{NO_DRAWING}from molgen.cli.main import main; main(sys.argv[1:])"

    def molgen(*words: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run([sys.executable, "-c", without, *words], cwd=tmp_path, capture_output=True, text=True)

    drawn = molgen("sample", "moses-small", "-n", "5", "-o", "five.sdf")
    assert (drawn.returncode, (tmp_path / "five.sdf").exists()) == (0, True), drawn.stderr
    shown = subprocess.run(
        [
            sys.executable,
            "-c",
            f"{NO_DRAWING}from molgen.generation.notebook import MoleculeFrame; "
            "print(MoleculeFrame({'smiles': ['CCO']})._repr_html_())",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert "cannot draw here" in shown.stdout
    assert "<td>CCO</td>" in shown.stdout
    told = molgen("doctor")
    assert (told.returncode, "drawing: RDKit cannot draw here" in told.stdout) == (0, True), told.stderr
    for words in (
        ("sample", "moses-small", "-n", "5", "--grid", "five.png"),
        ("eval", "five.sdf", "--report", "five.html"),
        ("optimize", "moses-small", "--objective", "pmo/qed", "-n", "10", "--out", "found"),
    ):
        refused = molgen(*words)
        assert (refused.returncode, refused.stderr.count("\n")) == (2, 1), refused.stderr
        assert "cannot draw here" in refused.stderr
        assert "apt-get install libxrender1" in refused.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"five.sdf", "five.meta.json"}


def test_doctor_reports_what_is_broken_instead_of_raising(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise OSError("no such weights")

    monkeypatch.setattr("molgen.doctor.MoleculeGenerator.load", broken)
    found = examine("cpu")
    assert found["ok"] is False
    assert "OSError: no such weights" in report(found)
    code, out, err = cli("doctor")
    assert code == 1
    assert "no such weights" in out
    assert "bug report" in err
