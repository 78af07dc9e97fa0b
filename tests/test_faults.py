"""Bad input and faults: what docs/reliability.md promises and no other test shows."""

import csv
import gzip
import io
import json
import os
import pickle
import re
import resource
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import SMALL, Cli, Done
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from test_cli import MOLGEN, refused

from molgen import runs
from molgen.checkpoint import load_state, save_state
from molgen.chem import pool as workers
from molgen.config import Config, DataConfig, load_config
from molgen.data.encoded_file import corpus_writer
from molgen.data.readers import read_rows
from molgen.errors import MolgenError
from molgen.generation import generator
from molgen.generation.decode import SamplingParams
from molgen.generation.generator import MoleculeGenerator, even_batches
from molgen.model.build import build_model
from molgen.runs import Run, at_work
from molgen.runtime.files import write_atomically
from molgen.runtime.log import duration
from molgen.tokenizer import SmilesTokenizer
from molgen.training import callbacks
from molgen.training import step as training
from molgen.training.optim import build_optimizer
from molgen.training.train import train

CPU = torch.device("cpu")
ROOT = Path(__file__).parents[1]
FAULTS = [*map(str, range(1, 63)), "7b", "27b", "54b"]


def options(*settings: str) -> list[str]:
    return [part for setting in settings for part in ("--set", setting)]


def quick(path: Path, *more: str) -> Config:
    settings = [*SMALL, "training.batch_size=16", "training.epochs=2", "data.min_token_count=1", *more]
    return load_config(None, settings, {"data.source": str(path)})


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def stopped(small_run: Run, tmp_path: Path) -> Path:
    """A training that was killed after its last epoch, before it could say that it was done."""
    run = Path(shutil.copytree(small_run.path, tmp_path / "stopped"))
    (run / "report.json").unlink()
    return run


@pytest.fixture(scope="module")
def thirty(tmp_path_factory: pytest.TempPathFactory, moses_mini: list[str]) -> Path:
    path = tmp_path_factory.mktemp("thirty") / "thirty.smi"
    path.write_text("\n".join(moses_mini[:30]) + "\n")
    return path


def test_every_row_of_the_table_of_faults_names_tests_that_exist() -> None:
    text = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+b?) \|(.*)\|$", text, flags=re.M)
    assert sorted(number for number, _ in rows) == sorted(FAULTS)
    for number, row in rows:
        tests = re.findall(r"`(test_\w+)::(test_\w+)`", row)
        assert tests, number
        for file, name in tests:
            assert f"def {name}(" in (ROOT / "tests" / f"{file}.py").read_text(encoding="utf-8"), f"{file}::{name}"


# 24: a training goes on with what it began with, or not at all


def other_rate(run: Path) -> None:
    path = run / "config.yaml"
    path.write_text(path.read_text().replace("learning_rate: 0.01\n", "learning_rate: 0.02\n"))


def other_vocabulary(run: Path) -> None:
    path = run / "tokenizer.json"
    values = json.loads(path.read_text())
    values["vocabulary"].reverse()
    path.write_text(json.dumps(values))


def change_molecules(run: Path, change: Callable[[list[str]], None]) -> None:
    path = run / "molecules.csv.gz"
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    change(lines)
    path.write_bytes(gzip.compress("\n".join([*lines, ""]).encode()))


def one_molecule_less(run: Path) -> None:
    change_molecules(run, lambda lines: lines.pop())


def another_split(run: Path) -> None:
    def change(lines: list[str]) -> None:
        row = next(i for i, line in enumerate(lines) if line.endswith(",test"))
        lines[row] = lines[row].replace(",test", ",train")

    change_molecules(run, change)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (other_rate, "config.yaml: training.learning_rate is 0.02, the training began with 0.01"),
        (other_vocabulary, "tokenizer.json: not the vocabulary"),
        (one_molecule_less, "molecules.csv.gz: not the molecules"),
        (another_split, "molecules.csv.gz: not the molecules, or not the splits"),
    ],
)
def test_a_training_does_not_go_on_with_something_else(
    cli: Cli, stopped: Path, change: Callable[[Path], None], said: str
) -> None:
    change(stopped)
    before = contents(stopped)
    code, _, err = cli("train", "--resume", "--out", stopped)
    assert code == 2
    assert said in err.splitlines()[-1]
    assert "Traceback" not in err
    assert contents(stopped) == before


def test_options_beside_resume_are_the_runs_own_or_refused(cli: Cli, stopped: Path) -> None:
    resume = ("train", "--resume", "--out", stopped)
    refused(cli(*resume, "--set", "training.epochs=99"), "training.epochs: 99 with --resume", "began with 24")
    refused(cli(*resume, "--seed", 5), "training.seed: 5 with --resume")
    refused(cli(*resume, "--config", "tomczak"), "with --resume")
    refused(cli("train", "other.smi", "--resume", "--out", stopped), "data.source: other.smi with --resume")
    text = (stopped / "config.yaml").read_text()  # a source only says where the molecules came from
    (stopped / "config.yaml").write_text(re.sub("  source: .*", "  source: moved.smi", text))
    done = cli("train", "moved.smi", "--resume", "--out", stopped, "--set", "training.epochs=24")
    assert done.code == 0, done.err
    assert Run(stopped).report["epochs"] == 24


def test_a_run_on_an_encoded_file_does_not_go_on_with_other_ids_in_it(
    cli: Cli, tmp_path: Path, pattern: str, moses_mini: list[str]
) -> None:
    tokenizer = SmilesTokenizer.of_corpus(moses_mini, pattern)
    with corpus_writer(Path("own.molgen"), tokenizer, DataConfig(source="moses-mini")) as writer:
        for i, smiles in enumerate(moses_mini[:20]):
            writer.add("train" if i < 14 else "validation", smiles)
    train(quick(Path("own.molgen"), "training.epochs=1"), tmp_path / "run")
    (tmp_path / "run" / "report.json").unlink()
    content = bytearray(Path("own.molgen").read_bytes())
    first = 8 + int.from_bytes(content[:8], "little") + 1  # the token after the first <bos>
    content[first] = next(i for i in range(3, len(tokenizer)) if i != content[first])
    Path("own.molgen").write_bytes(content)
    done = cli("train", "--resume", "--out", "run")
    assert done.code == 2
    assert "own.molgen: not the molecules" in done.err.splitlines()[-1]


def test_a_large_fine_tuning_that_goes_on_still_leaves_out_what_the_other_run_knows(
    cli: Cli, small_run: Run, tmp_path: Path, moses_mini: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    known = small_run.split("train")[0]
    rows = [f"{smiles},train" for smiles in moses_mini[300:310]]
    rows += [f"{smiles},validation" for smiles in [*moses_mini[310:314], known]]
    Path("mine.csv").write_text("\n".join(["smiles,split", *rows]) + "\n")
    monkeypatch.setattr(runs, "MOST_COPIED", 5)
    settings = options("data.min_token_count=1", "training.epochs=1")
    done = cli("train", "mine.csv", "--init", small_run.path, "--out", "tuned", *settings)
    assert done.code == 0, done.err
    report = Run(tmp_path / "tuned").report
    assert report["sizes"] == {"train": 10, "validation": 4}
    (tmp_path / "tuned" / "report.json").unlink()
    done = cli("train", "--resume", "--out", "tuned")
    assert done.code == 0, done.err
    assert Run(tmp_path / "tuned").report["sha256"] == report["sha256"]


def test_a_large_training_that_goes_on_cleans_its_source_to_the_same_molecules(
    cli: Cli, tmp_path: Path, moses_mini: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cubane = "C12C3C4C1C5C2C3C45"  # its ring label 5 is rare, though the vocabulary has it for random forms
    assert not any("5" in smiles for smiles in moses_mini[:20])
    Path("mine.smi").write_text("\n".join([*moses_mini[:20] * 5, cubane]) + "\n")
    monkeypatch.setattr(runs, "MOST_COPIED", 5)
    keep = ("data.duplicates=keep", "training.randomized=0.5", "training.epochs=1")
    done = cli("train", "mine.smi", "--out", "run", *options(*SMALL, *keep))
    assert done.code == 0, done.err
    report = Run(tmp_path / "run").report
    assert report["dropped"]["rare token"] >= 1
    assert (tmp_path / "run" / "molecules.csv.gz").exists()  # a file may change or go, so its molecules are listed
    (tmp_path / "run" / "report.json").unlink()
    done = cli("train", "--resume", "--out", "run")
    assert done.code == 0, done.err
    assert Run(tmp_path / "run").report["sha256"] == report["sha256"]


# 20 to 22: writes


def test_a_file_is_on_the_disk_before_it_has_its_name_and_the_name_before_the_write_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def synced(handle: int) -> None:
        calls.append("folder" if os.path.isdir(f"/proc/self/fd/{handle}") else "file")  # noqa: PTH112
        fsync(handle)

    def replaced(self: Path, target: Path) -> Path:
        calls.append("name")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", replaced)
    write_atomically(tmp_path / "x", b"new")
    assert calls == ["file", "name", "folder"]


class KilledError(BaseException):
    """Stands for a SIGKILL: nothing runs after it."""


class Dying:
    """Lets so many calls to the file system happen, then none."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left = -1
        fdopen = os.fdopen
        for owner, name in (
            (os, "fsync"), (Path, "replace"), (Path, "unlink"), (os, "open"),
        ):  # fmt: skip
            monkeypatch.setattr(owner, name, self.counted(getattr(owner, name)))

        def opened(handle: int, mode: str) -> object:
            file = fdopen(handle, mode, buffering=0)
            write = file.write

            class Slowly(io.RawIOBase):
                def write(inner, content: bytes) -> int:  # noqa: N805
                    quarter = max(1, len(content) // 4)
                    for start in range(0, len(content), quarter):  # a kill may come amid the bytes
                        self.count()
                        write(content[start : start + quarter])
                    return len(content)

                def fileno(inner) -> int:  # noqa: N805
                    return handle

                def close(inner) -> None:  # noqa: N805
                    file.close()

            return Slowly()

        monkeypatch.setattr(os, "fdopen", opened)

    def counted(self, function: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **named: object) -> object:
            self.count()
            return function(*arguments, **named)

        return call

    def count(self) -> None:
        if self.left == 0:
            raise KilledError
        self.left -= 1


def test_a_kill_at_any_write_of_a_checkpoint_leaves_one_that_loads(
    small_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(Path(shutil.copytree(small_run.path, tmp_path / "run")))
    model = build_model(run.config.model, len(run.tokenizer), seed=1)
    optimizer = build_optimizer(model, run.config.training)
    row = run.log()[0]

    def save(epoch: int) -> None:  # as the loop does it
        with torch.no_grad():
            model.embedding.weight.fill_(epoch)
        run.save_model(model)
        run.write_log([row | {"epoch": float(n)} for n in range(1, epoch + 1)])
        save_state(run.path / "state.safetensors", {"model": model}, optimizer, {"epoch": epoch}, {})

    def loaded() -> tuple[int, int, int]:
        """(epoch of the weights, epochs of the log, epoch of the state)."""
        fresh = build_model(run.config.model, len(run.tokenizer), seed=2)
        position = load_state(
            run.path / "state.safetensors", {"model": fresh}, build_optimizer(fresh, run.config.training)
        )
        assert float(fresh.embedding.weight.detach()[0, 0]) == position["epoch"]
        weights = int(run.model(CPU).embedding.weight.detach()[0, 0])
        return weights, len(run.log()), int(str(position["epoch"]))

    save(1)
    seen = set()
    with monkeypatch.context() as patch:
        dying = Dying(patch)
        for calls in range(1000):
            dying.left = calls
            try:
                save(2)
            except KilledError:
                dying.left = -1
                seen.add(loaded())
            else:
                break
            save(1)
    assert calls > 20
    # weights first, state last: what is said to have been reached has been written
    assert seen == {(1, 1, 1), (2, 1, 1), (2, 2, 1), (2, 2, 2)}
    assert any(path.name.startswith(".state") for path in run.path.iterdir())
    with at_work(run.path):  # the next training throws away what kills have left
        assert {path.name for path in run.path.iterdir()} == {path.name for path in small_run.path.iterdir()}


def test_the_log_is_cut_back_to_the_state(cli: Cli, stopped: Path) -> None:
    log = stopped / "log.csv"
    whole = log.read_text()
    step, *rest = whole.splitlines()[-1].split(",")
    log.write_text(whole + ",".join([str(int(step) + 1), "25", *rest[1:]]) + "\n")  # a kill between log and state
    assert cli("train", "--resume", "--out", stopped).code == 0
    assert log.read_text() == whole


@contextmanager
def small_disk(most: int) -> Iterator[None]:
    """No file grows beyond so many bytes: the system refuses the write, as it does on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_ends_the_command_and_leaves_the_old_file(cli: Cli, small_run: Run) -> None:
    for name in ("x.smi", "x.csv"):
        Path(name).write_text("precious")
        with small_disk(2_000):
            code, _, err = cli("sample", small_run.path, "-n", 300, "-o", name, "--force")
        assert code == 1
        assert "too large" in err.splitlines()[-1]
        assert "Traceback" not in err
        assert Path(name).read_text() == "precious"


def test_a_disk_that_fills_up_in_a_training_leaves_the_weights_before(cli: Cli, thirty: Path, tmp_path: Path) -> None:
    settings = (*SMALL, "training.epochs=2", "data.min_token_count=1")
    with small_disk(200_000):  # more than the weights, less than the state
        code, _, err = cli("train", thirty, "--out", "run", *options(*settings))
    assert code == 1
    assert "too large" in err.splitlines()[-1]
    assert len(MoleculeGenerator.load(tmp_path / "run", "cpu").sample(2)) == 2
    assert not list((tmp_path / "run").glob(".*"))


def test_a_disk_without_room_for_the_run_is_said_before_the_training(
    cli: Cli, thirty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2**20))
    code, _, err = cli("train", thirty, "--out", "runs/new", *options("data.min_token_count=1"))
    assert code == 2
    assert "runs/new: 1 MiB are free, the run needs up to" in err.splitlines()[-1]
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_training_that_is_killed_ends_with_the_bits_of_one_that_is_not(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "scripts" / "check" / "soak.py"), "kills", "--cycles", "1", "--epochs", "6"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "--json", "x.json"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "x.json").read_text())
    assert (figures["kills"], figures["trainings_different"], figures["files_left_behind"]) == (1, 0, 0)
    assert figures["trainings_compared"] >= 1


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_sampling_with_whole_lines(small_run: Run, tmp_path: Path, number: int, code: int) -> None:
    n, batch = 400_000, 100
    arguments = ["-n", str(n), "--batch-size", str(batch), "-o", "x.smi", "--seed", "3"]
    process = subprocess.Popen(
        [*MOLGEN, "sample", str(small_run.path), *arguments],
        cwd=tmp_path, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    for _ in range(1_200):
        time.sleep(0.1)
        if any(part.stat().st_size for part in tmp_path.glob(".x.smi.*.part")):
            break
    os.kill(process.pid, number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert "Traceback" not in err
    text = (tmp_path / "x.smi").read_text()
    assert text.endswith("\n")
    lines = text.splitlines()
    assert f"stopped; {len(lines):,} of {n:,} molecules are in x.smi" in err
    assert not list(tmp_path.glob(".*"))
    drawn = MoleculeGenerator.load(small_run.path, "cpu").strings(
        enumerate(even_batches(n, batch)[: len(lines) // batch]), SamplingParams(), seed=3
    )
    assert lines == [text or "" for texts in drawn for text in texts]


# 29: a loss that runs away


def test_weights_that_the_last_step_of_an_epoch_has_spoilt_are_not_saved(
    cli: Cli, thirty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_step, steps = training.take_step, 0

    def spoils(optimizer: torch.optim.Optimizer, *rest: object) -> None:
        nonlocal steps
        steps += 1
        take_step(optimizer, *rest)  # type: ignore[arg-type]
        if steps == 2:  # the only one of the second epoch
            with torch.no_grad():
                optimizer.param_groups[0]["params"][0].fill_(float("nan"))

    monkeypatch.setattr(training, "take_step", spoils)
    settings = (*SMALL, "training.epochs=3", "training.batch_size=64", "data.min_token_count=1", "training.ema=0.0")
    code, _, err = cli("train", thirty, "--out", "run", *options(*settings))
    assert code == 1
    assert "no longer finite in epoch 2; the last good weights are kept" in err.splitlines()[-1]
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    with safe_open(tmp_path / "run" / "state.safetensors", "pt") as file:
        assert json.loads(file.metadata()["position"])["epoch"] == 1
    done = cli("train", "--resume", "--out", "run")
    assert done.code == 0, done.err
    assert len(Run(tmp_path / "run").log()) == 3


# 31: two trainings


def test_a_second_training_in_a_directory_is_refused_until_the_first_has_ended(
    cli: Cli, stopped: Path, small_file: Path, tmp_path: Path
) -> None:
    before = contents(stopped)
    with at_work(stopped):
        refused(cli("train", small_file, "--out", stopped, "--force"), "another training is at work in it")
        refused(cli("train", "--resume", "--out", stopped), "another training is at work in it")
    assert contents(stopped) == before
    with pytest.raises(MolgenError, match="is a file"), at_work(small_file):
        pass
    with at_work(tmp_path / "a" / "b"):
        assert (tmp_path / "a" / "b").is_dir()
    assert not (tmp_path / "a").exists()  # nothing was written


def test_a_lock_goes_with_the_process_that_is_killed(stopped: Path) -> None:
    script = (
        "import sys, time, pathlib; from molgen.runs import at_work\n"
        "with at_work(pathlib.Path(sys.argv[1])): print('locked', flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(stopped)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stdout.readline() == "locked\n"
        with pytest.raises(MolgenError, match="at work"), at_work(stopped):
            pass
        process.kill()
    with at_work(stopped):
        pass


# 28: a GPU without memory, at its edge


class SmallGpu:
    """Stands for a GPU: a function whose first argument may not have more rows than fit."""

    def __init__(self, function: Callable[..., object], rows: Callable[..., int], most: int) -> None:
        self.function, self.rows, self.most, self.refused = function, rows, most, 0

    def __call__(self, *arguments: object, **named: object) -> object:
        if self.rows(*arguments) > self.most:
            self.refused += 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return self.function(*arguments, **named)


def test_a_batch_that_does_not_fit_is_halved_once_and_that_is_said(
    thirty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = quick(thirty, "training.precision=fp32", "training.batching=random")
    monkeypatch.setattr(training, "worker_threads", lambda _: 1)  # as on a GPU
    whole = train(config, tmp_path / "whole")
    gpu = SmallGpu(training.token_nll, lambda logits, _: len(logits), most=2)  # of parts of four molecules
    monkeypatch.setattr(training, "token_nll", gpu)
    capsys.readouterr()
    halved = train(config, tmp_path / "halved")
    assert gpu.refused == 1
    assert capsys.readouterr().err.count("out of GPU memory: batches are worked on in halves") == 1
    for a, b in zip(whole.log(), halved.log(), strict=True):
        assert b["val_nll"] == pytest.approx(a["val_nll"], rel=1e-2)  # the same steps but for rounding


def test_samples_that_do_not_fit_are_drawn_in_halves(cli: Cli, small_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = SmallGpu(generator.decode, lambda _model, _start, rows, *_: rows, most=13)
    monkeypatch.setattr(generator, "decode", gpu)
    code, out, err = cli("sample", small_run.path, "-n", 25)
    assert (code, len(out.splitlines()), gpu.refused) == (0, 25, 1)
    assert err.count("out of GPU memory") == 1
    gpu.most = 5
    code, _, err = cli("sample", small_run.path, "-n", 25)
    assert code == 1
    assert "CUDA out of memory" in err.splitlines()[-1]
    assert "Traceback" not in err


# 15, 16: what is loaded


def damaged(path: Path, change: Callable[[dict[str, torch.Tensor], dict[str, str]], None]) -> None:
    tensors = load_file(path)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    change(tensors, metadata)
    save_file(tensors, path, metadata)


def test_a_damaged_state_is_refused_by_the_name_of_its_tensor(stopped: Path) -> None:
    run, path = Run(stopped), stopped / "state.safetensors"
    sound = path.read_bytes()

    def refusal() -> str:
        models = {key: build_model(run.config.model, len(run.tokenizer), 0) for key in ("model", "average")}
        with pytest.raises(MolgenError) as error:
            load_state(path, models, build_optimizer(models["model"], run.config.training))
        path.write_bytes(sound)
        assert "state.safetensors" in str(error.value)
        return str(error.value)

    damaged(path, lambda tensors, _: tensors["average.norm.weight"].fill_(float("inf")))
    assert "'average.norm.weight' holds NaN or infinity" in refusal()
    damaged(path, lambda tensors, _: tensors.update({"model.norm.weight": torch.ones(7)}))
    assert "'model.norm.weight' is F32 (7,), should be (32,)" in refusal()
    damaged(path, lambda tensors, _: tensors.update({"optimizer.0.momentum_buffer": torch.ones(7)}))
    assert "'optimizer.0.momentum_buffer' is F32 (7,)" in refusal()
    damaged(path, lambda tensors, _: tensors.update({"optimizer.99999.step": torch.ones(())}))
    assert "'optimizer.99999.step' is unknown" in refusal()
    damaged(path, lambda tensors, _: tensors.update({"more": torch.ones(1)}))
    assert "'more' is unknown" in refusal()
    damaged(path, lambda tensors, _: tensors.__delitem__("model.norm.weight"))
    assert "model.norm.weight" in refusal()
    damaged(path, lambda _, metadata: metadata.__delitem__("position"))
    assert "position" in refusal()
    for content in (b"", sound[:-1], sound[:100], struct.pack("<Q", 2**60) + b"{}", pickle.dumps({"a": 1})):
        path.write_bytes(content)
        refusal()


@pytest.mark.parametrize(
    ("position", "said"), [({"epoch": -5}, "epoch: "), ({"step": "many"}, "step: "), ([], "state.safetensors: ")]
)
def test_a_state_that_stands_nowhere_is_refused(cli: Cli, stopped: Path, position: object, said: str) -> None:
    damaged(
        stopped / "state.safetensors", lambda _, metadata: metadata.update({"position": json.dumps(position)}) or None
    )
    code, _, err = cli("train", "--resume", "--out", stopped)
    assert code == 2
    assert said in err.splitlines()[-1]
    assert "Traceback" not in err


def test_a_damaged_log_is_refused_by_its_name(stopped: Path) -> None:
    log = stopped / "log.csv"
    whole = log.read_bytes()
    for content in (whole[:-40], b"step\n1\n", b"\xff\xfe", whole.replace(b"240,24,", b"many,24,")):
        log.write_bytes(content)
        with pytest.raises(MolgenError, match=r"log\.csv: cannot be read"):
            Run(stopped).log()


def test_a_pickle_is_refused_under_any_name_and_never_opened_as_one(cli: Cli, stopped: Path, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "executed",))

    for suffix in (".csv", ".smi", ".sdf", ".txt", ".parquet", ".csv.gz", ".pkl"):
        path = tmp_path / f"bomb{suffix}"
        path.write_bytes(pickle.dumps([Bomb()] * 3))
        with pytest.raises(MolgenError, match="bomb"):
            list(read_rows(str(path)))
    (tmp_path / "bomb.yaml").write_bytes(pickle.dumps(Bomb()))
    refused(cli("train", "--config", "bomb.yaml"), "bomb.yaml")
    (tmp_path / "bomb.molgen").write_bytes(pickle.dumps(Bomb()))
    refused(cli("train", "bomb.molgen"), "bomb.molgen")
    for name in ("config.yaml", "tokenizer.json", "molecules.csv.gz", "state.safetensors"):
        run = Path(shutil.copytree(stopped, tmp_path / "copy"))
        (run / name).write_bytes(pickle.dumps(Bomb()))
        code, _, err = cli("train", "--resume", "--out", run)
        assert (code, name in err.splitlines()[-1]) == (2, True), err
        shutil.rmtree(run)
    assert not (tmp_path / "executed").exists()


# 10, 14: molecules


def test_hostile_molecules_are_counted_as_invalid_and_no_more(cli: Cli) -> None:
    hostile = [
        "C(",
        "C1C1",
        "CcccC12c1",
        "C" * 10_001,
        "(" * 5_000 + "C",
        "C(" * 5_000,
        "C\x01",
    ]
    fine = ["C" * 200, "[Na+].[Cl-]", "[13CH4]", "[CH3:1]O", "[CH3]", "*C", "CCO"]
    Path("x.smi").write_text("\n".join([*hostile, *fine]) + "\n")
    done = cli("eval", "x.smi", "--json", "x.json")
    assert done.code == 0, done.err
    figures = json.loads(Path("x.json").read_text())
    assert (figures["n_samples"], figures["n_valid"]) == (14, 7)


def test_a_molecule_that_eats_memory_is_lost_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    script = (
        "import molgen.chem.pool as w\n"
        "w._MORE_MEMORY = 2**30\n"
        "w.TASKS['canonical'] = lambda s: len(bytearray(2**32 if s == 'eater' else 1)) and s\n"
        f"w.serve({os.getpid()})"
    )
    monkeypatch.setattr(workers, "_code", lambda: ["-c", script])
    with workers.workers(1) as pool:
        assert pool.map("canonical", ["eater", "CC"]) == [None, "CC"]


# 18: paths


def test_a_link_in_a_run_is_replaced_and_what_it_points_to_stays(cli: Cli, stopped: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    for name in ("curves.png", "README.md"):
        shutil.move(stopped / name, outside / name)
        (stopped / name).symlink_to(outside / name)
    (stopped / "report.json").symlink_to(outside / "report.json")  # to nothing
    before = contents(outside)
    done = cli("train", "--resume", "--out", stopped)
    assert done.code == 0, done.err
    assert contents(outside) == before
    assert not any((stopped / name).is_symlink() for name in ("curves.png", "README.md", "report.json"))


def test_a_run_is_a_path_and_one_that_is_no_run_is_refused(cli: Cli, small_run: Run, thirty: Path) -> None:
    refused(cli("sample", "../../x"), "../../x: not a run directory")
    Path("sub").mkdir()
    shutil.copytree(small_run.path, "run")
    assert cli("sample", "sub/../run", "-n", 2).code == 0
    refused(cli("train", thirty, "--out", thirty), "is a file")


# 33, 34


def test_without_a_network_a_run_is_trained_sampled_and_evaluated(
    cli: Cli, thirty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise OSError("no network")

    for name in ("connect", "connect_ex", "bind"):
        monkeypatch.setattr(socket.socket, name, unreachable)
    monkeypatch.setattr(socket, "getaddrinfo", unreachable)
    settings = options(*SMALL, "training.epochs=1", "data.min_token_count=1")
    for arguments in (
        ("train", thirty, "--out", "runs/off", *settings),
        ("sample", "-n", 5),
        ("eval", "-n", 5),
    ):
        done = cli(*arguments)
        assert done.code == 0, done.err


def test_names_that_a_spreadsheet_would_run_come_out_as_they_went_in(cli: Cli, small_run: Run) -> None:
    names = ["=1+1", "+cmd|' /C calc'!A0", "@SUM(1)", "-2", '"quoted"', "a,b"]
    molecules = ["CCO", "CCN", "CCC", "CCCO", "CCCN", "CCCC"]
    with Path("in.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["name", "smiles"], *zip(names, molecules, strict=True)])
    done = cli("data", "clean", "in.csv", "-o", "out.csv", *options("data.min_token_count=1"))
    assert done.code == 0, done.err
    with Path("out.csv").open(newline="") as file:
        assert [row["name"] for row in csv.DictReader(file)] == names
    scored: Done = cli("score", "in.csv", small_run.path)
    assert [row["name"] for row in csv.DictReader(io.StringIO(scored.out, newline=""))] == names


# Said in advance


def test_how_long_a_training_will_take_is_said_once(
    thirty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(callbacks, "_SECONDS_BEFORE_FORECAST", 0.0)
    train(quick(thirty, "training.batch_size=4"), tmp_path / "run")
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("about ")]
    assert re.fullmatch(r"about [\d.]+ \w+ for 2 epochs at this speed; \d+\.\d GiB of memory so far", line)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (5.2, "5 seconds"),
        (89, "89 seconds"),
        (90, "1.5 minutes"),
        (1_200, "20 minutes"),
        (9_000, "2.5 hours"),
        (864_000, "10 days"),
    ],
)
def test_a_duration_is_said_in_its_own_unit(seconds: float, said: str) -> None:
    assert duration(seconds) == said
