"""What is wrong with a command, its surroundings or its machine is said in one line, and no work is lost by it."""

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from conftest import SMALL, Cli
from test_cli import MOLGEN, refused

import molgen
from molgen.runs import Run

HUGE = 10**14


def quick(*more: str) -> list[str]:
    settings = [*SMALL, "training.epochs=1", "training.batch_size=16", "data.min_token_count=1", *more]
    return [part for setting in settings for part in ("--set", setting)]


@pytest.fixture
def thirty(cli: Cli, moses_mini: list[str]) -> Path:  # noqa: ARG001 - in whose folder it lies
    path = Path("thirty.smi")
    path.write_text("\n".join(moses_mini[:30]) + "\n")
    return path


def test_the_version_is_printed(cli: Cli) -> None:
    done = cli("--version")
    assert (done.code, done.out) == (0, f"molgen {molgen.__version__}\n")


# Variables that torchrun sets

PROCESS = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


@pytest.mark.parametrize(
    ("named", "variables"),
    [
        ("RANK", {"WORLD_SIZE": "2"}),
        ("WORLD_SIZE=two", {"WORLD_SIZE": "two"}),
        ("WORLD_SIZE=-1", {"WORLD_SIZE": "-1"}),
        ("WORLD_SIZE=0", {"WORLD_SIZE": "0", "RANK": "0"}),
        ("WORLD_SIZE=2.0", {"WORLD_SIZE": "2.0", "RANK": "0"}),
        ("WORLD_SIZE=²", {"WORLD_SIZE": "²"}),
        ("LOCAL_WORLD_SIZE=0", {"LOCAL_WORLD_SIZE": "0"}),
        ("LOCAL_WORLD_SIZE=all", {"LOCAL_WORLD_SIZE": "all"}),
        ("RANK=first", PROCESS | {"RANK": "first"}),
        ("RANK=2", PROCESS | {"RANK": "2"}),
        ("LOCAL_RANK", PROCESS | {"LOCAL_RANK": "x"}),
        ("LOCAL_RANK=3", PROCESS | {"LOCAL_RANK": "3", "LOCAL_WORLD_SIZE": "2"}),
        ("MASTER_ADDR", {name: value for name, value in PROCESS.items() if name != "MASTER_ADDR"}),
        ("MASTER_PORT", {name: value for name, value in PROCESS.items() if name != "MASTER_PORT"}),
        ("MASTER_PORT=x", PROCESS | {"MASTER_PORT": "x"}),
        ("MASTER_PORT=70000", PROCESS | {"MASTER_PORT": "70000"}),
    ],
)
def test_a_surrounding_that_does_not_say_which_process_this_is_is_refused(
    cli: Cli, small_run: Run, monkeypatch: pytest.MonkeyPatch, named: str, variables: dict[str, str]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    for command in (("data", "list"), ("sample", small_run.path, "-n", 2), ("eval", small_run.path)):
        refused(cli(*command), named, "torchrun")
    for command in (("--help",), ("sample", "--help"), ("--version",)):
        assert cli(*command).code == 0


def test_empty_variables_and_those_of_one_process_change_nothing(
    cli: Cli, small_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"WORLD_SIZE": "1", "RANK": "0", "LOCAL_WORLD_SIZE": "", "MASTER_PORT": ""}.items():
        monkeypatch.setenv(name, value)
    assert cli("sample", small_run.path, "-n", 2).code == 0


# One file twice


@pytest.fixture
def samples(cli: Cli) -> Path:  # noqa: ARG001 - in whose folder they lie
    Path("x.smi").write_text("CCO\nCCN\n")
    Path("link.smi").symlink_to("x.smi")
    os.link("x.smi", "hard.smi")
    Path("folder").mkdir()
    return Path("x.smi")


@pytest.mark.parametrize(
    "command",
    [
        ("eval", "x.smi", "--json", "x.smi"),
        ("eval", "x.smi", "--json", "./folder/../x.smi"),
        ("eval", "x.smi", "--json", "link.smi"),
        ("eval", "link.smi", "--json", "x.smi"),
        ("eval", "x.smi", "--report", "hard.smi"),
        ("eval", "hard.smi", "x.smi", "--report", "x.smi"),
        ("eval", "x.smi", "--train", "link.smi", "--json", "hard.smi"),
        ("eval", "x.smi", "--json", "new.html", "--report", "folder/../new.html"),
        ("data", "clean", "x.smi", "-o", "x.smi"),
        ("data", "clean", "x.smi", "-o", "link.smi"),
        ("data", "clean", "x.dropped.csv.gz", "-o", "x.csv"),
        ("data", "encode", "x.molgen", "-o", "x.molgen"),
        ("train", "folder/config.yaml", "--out", "folder"),
        ("train", "moses-mini", "--config", "folder/config.yaml", "--out", "folder"),
        ("train", "folder/molecules.csv.gz", "--out", "./folder"),
    ],
)
def test_one_path_for_two_outputs_or_for_input_and_output_is_refused_before_the_work(
    cli: Cli, samples: Path, command: tuple[str, ...]
) -> None:
    precious = "training: {epochs: 1}\n"
    for name in ("folder/config.yaml", "folder/molecules.csv.gz", "x.dropped.csv.gz", "x.molgen"):
        Path(name).write_text(precious)
    refused(cli(*command, "--force"), "name")
    assert samples.read_text() == "CCO\nCCN\n"
    for name in ("folder/config.yaml", "folder/molecules.csv.gz", "x.dropped.csv.gz", "x.molgen"):
        assert Path(name).read_text() == precious


def test_a_file_of_the_run_is_no_place_for_its_samples(cli: Cli, small_run: Run, tmp_path: Path) -> None:
    run = Path(shutil.copytree(small_run.path, tmp_path / "run"))
    for options in (("-o", run / "log.csv"), ("--grid", run / "curves.png")):
        refused(cli("sample", run, "-n", 2, *options, "--force"), "is an input")
    refused(cli("eval", run, "-n", 2, "--json", run / "report.json", "--force"), "is an input")
    assert {p.name: p.read_bytes() for p in run.iterdir()} == {p.name: p.read_bytes() for p in small_run.path.iterdir()}


def test_the_account_beside_a_table_is_an_output_too(cli: Cli, small_run: Run) -> None:
    Path("x.meta.json").symlink_to("x.csv")
    Path("x.csv").write_text("old")
    refused(cli("sample", small_run.path, "-o", "x.csv", "--force"), "the same file")


# What a terminal cannot show


def test_a_terminal_that_knows_ascii_alone_does_not_cost_the_evaluation(small_run: Run, tmp_path: Path) -> None:
    command = [*MOLGEN, "eval", str(small_run.path), "-n", "20", "--json", "x.json", "--report", "x.html"]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert b"\\xb1" in done.stdout  # the sign of a standard error
    assert b"characters that ascii has not" in done.stderr
    assert json.loads((tmp_path / "x.json").read_text())["n_samples"] == 20
    assert (tmp_path / "x.html").exists()


def test_a_figure_file_that_cannot_be_written_does_not_cost_the_table(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("x.smi").write_text("CCO\nC(\n")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    done = cli("eval", "x.smi", "--json", "x.json")
    assert done.code == 1
    assert "No space left" in done.err
    assert "validity" in done.out
    assert not Path("x.json").exists()


def test_paths_that_are_not_utf8_train_sample_and_evaluate(cli: Cli, thirty: Path) -> None:
    data, out = os.fsdecode(b"d\xff.smi"), os.fsdecode(b"run-\xfe $_{")
    thirty.rename(data)
    done = cli("train", data, "--out", out, *quick())
    assert done.code == 0, done.err
    done = cli("sample", out, "-n", 5, "-o", os.fsdecode(b"s\xff.csv"))
    assert done.code == 0, done.err
    done = cli("eval", out, "-n", 5, "--json", os.fsdecode(b"\xff.json"), "--report", os.fsdecode(b"\xff.html"))
    assert done.code == 0, done.err
    assert "validity" in done.out
    assert cli("train", "--resume", "--out", out).code == 2  # it has finished, and says so
    assert Run(Path(out)).config.data.source == data


# More than there is room for


def test_more_molecules_than_the_disk_takes_are_refused_with_the_size_and_nothing_is_left(
    cli: Cli, small_run: Run, tmp_path: Path
) -> None:
    for options in (("-o", "x.smi"), ("-o", "x.csv", "--columns", "smiles")):
        code, out, err = cli("sample", small_run.path, "-n", HUGE, *options, "--batch-size", 100)
        assert (code, out) == (2, "")
        assert "molecules take about" in err.splitlines()[-1]
        assert "TiB" in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("options", [("--unique",), ("--diverse", 5), ("-o", "x.csv")])
def test_more_molecules_than_can_be_remembered_are_refused(
    cli: Cli, small_run: Run, options: tuple[object, ...]
) -> None:
    code, out, err = cli("sample", small_run.path, "-n", HUGE, *options)
    assert (code, out) == (2, "")
    assert "GiB of memory" in err.splitlines()[-1]


def test_more_samples_than_memory_are_refused_before_an_evaluation(cli: Cli, small_run: Run) -> None:
    refused(cli("eval", small_run.path, "-n", HUGE), "GiB of memory")
    with pytest.raises(molgen.MolgenError, match="GiB of memory"):
        molgen.MoleculeGenerator.load(small_run.path, "cpu").sample(HUGE)


@pytest.mark.parametrize(
    "options", [("-n", 10**30), ("--batch-size", 10**12), ("--top-k", 10**30), ("--seed", 10**30), ("--diverse", -5)]
)
def test_numbers_beyond_all_sense_are_refused_in_one_line(
    cli: Cli, small_run: Run, options: tuple[object, ...]
) -> None:
    refused(cli("sample", small_run.path, *options), str(options[0]))


def test_a_number_without_end_streams_to_who_reads_it_at_once(small_run: Run) -> None:
    command = [*MOLGEN, "sample", str(small_run.path), "-n", str(HUGE), "--batch-size", "50"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        lines = [process.stdout.readline() for _ in range(60)]
        process.stdout.close()
        assert process.wait(timeout=60) == 0
    assert all(line.endswith(b"\n") for line in lines)


def test_memory_that_runs_out_is_one_line_and_exit_code_1(
    cli: Cli, small_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_large(*_: object, **__: object) -> None:
        raise MemoryError("Unable to allocate 74.5 GiB")

    monkeypatch.setattr("numpy.unique", too_large)
    code, out, err = cli("sample", small_run.path, "-n", 3)
    assert code == 1
    assert len(out.splitlines()) == 3
    assert "out of memory: Unable to allocate 74.5 GiB" in err.splitlines()[-1]
    assert "Traceback" not in err


# From Python


def test_paths_may_be_strings_in_the_library_too(cli: Cli, thirty: Path) -> None:  # noqa: ARG001
    class Named:
        """A path of another library."""

        def __init__(self, path: str) -> None:
            self.path = path

        def __fspath__(self) -> str:
            return self.path

    Path("own.yaml").write_text("training:\n  batch_size: 16\n")
    settings = quick()[1::2]
    config = molgen.load_config(Named("own.yaml"), settings, {"data.source": Named("thirty.smi")})
    run = molgen.train(config, "runs/one")
    assert run.path == Path("runs/one")
    for path in ("runs/one", Path("runs/one"), Named("runs/one")):
        assert len(molgen.MoleculeGenerator.load(path, "cpu").sample(2)) == 2
    assert molgen.SmilesTokenizer.load("runs/one/tokenizer.json").tokens == run.tokenizer.tokens


# Ctrl-C


@pytest.mark.slow
def test_a_signal_does_not_wait_for_the_random_smiles_of_the_next_epoch(tmp_path: Path) -> None:
    long = [f"{'CCCCCCCCC(C)' * 8}{'C' * (i % 25)}N{'C' * (i // 25 % 25)}O" for i in range(600)]
    (tmp_path / "x.smi").write_text("\n".join(long * 12) + "\n")
    settings = quick("data.duplicates=keep", "training.randomized=1.0", "training.randomized_end=1.0")
    process = subprocess.Popen(
        [*MOLGEN, "train", "x.smi", "--out", "r", *settings],
        cwd=tmp_path, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    assert process.stderr
    while "weights" not in (line := process.stderr.readline()):
        assert line, "ended too soon"
    time.sleep(0.5)
    sent = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert time.monotonic() - sent < 10  # what the processes are at takes a few seconds on a busy machine
    assert "Traceback" not in err
