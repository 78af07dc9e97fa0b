"""Several processes do what one does, and end together. They are real ones, on the CPU."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import SMALL
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from molgen.config import load_config
from molgen.errors import MolgenError
from molgen.generation.generator import MoleculeGenerator
from molgen.generation.options import SampleOptions
from molgen.generation.rejection import RejectionRules, Sample, SampleStream, SamplingStats
from molgen.generation.writers import summary, write_samples
from molgen.machine import Runtime
from molgen.runs import Run
from molgen.runtime.distributed import ProcessGroup
from molgen.training.train import train

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
SECONDS = 40  # by then all processes of a command must have ended, whatever befell one of them


def torchrun(folder: Path, *arguments: object, launcher: tuple[str, ...] = ("--standalone",)) -> tuple[int, str, str]:
    """A command in two processes: (exit code, stdout, stderr)."""
    command = [*TORCHRUN, *launcher, "-m", "molgen", *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=3 * SECONDS, check=False)
    return done.returncode, done.stdout, done.stderr


def change_config(run: Path, **changes: object) -> None:
    """Other values for some of a run's settings."""
    path = run / "config.yaml"
    lines = [line.split(":")[0] for line in path.read_text().splitlines()]
    text = path.read_text().splitlines()
    for name, value in changes.items():
        text[lines.index(f"  {name}")] = f"  {name}: {value}"
    path.write_text("\n".join(text) + "\n")
    state = run / "state.safetensors"
    with safe_open(state, "np") as file:  # which would say that it belongs to the settings as they were
        metadata = file.metadata() | {"configuration": Run(run).config.model_dump_json()}
    save_file(load_file(state), state, metadata)


@pytest.mark.slow
def test_two_processes_train_as_one_does_and_go_on_as_one_does(small_file: Path, tmp_path: Path) -> None:
    settings = [
        *SMALL, "training.epochs=2", "training.batch_size=15", "training.precision=fp32", "training.randomized=0.5",
        "training.randomized_end=0.5", "training.schedule=constant", "training.warmup=0",
        "training.optimizer=adamw",  # Muon computes in bfloat16, where another order of sums is another figure
    ]  # fmt: skip
    arguments = ["train", small_file, "--out", "two", *(part for setting in settings for part in ("--set", setting))]
    one = train(load_config(None, settings, {"data.source": str(small_file)}), tmp_path / "one")
    code, _, err = torchrun(tmp_path, *arguments)
    assert code == 0, err
    assert err.count("epoch   2/2") == err.count("weights, ") == 1  # one process speaks
    two = Run(tmp_path / "two")
    assert_alike(one, two)
    for run in (
        one,
        two,
    ):  # the other way to cut batches, the other loss: some parts have fewer molecules than there are processes
        change_config(run.path, epochs=4, batching="random", loss="molecule", batch_size=3)
        (run.path / "report.json").unlink()
    one = train(load_config(None, []), one.path, resume=True)
    code, _, err = torchrun(tmp_path, "train", "--resume", "--out", "two")
    assert code == 0, err
    assert "going on after epoch 2 of 4" in err
    assert_alike(one, Run(two.path))
    assert len(one.log()) == 4
    assert Run(two.path).report["hardware"]["processes"] == 2


def assert_alike(one: Run, two: Run) -> None:
    for a, b in zip(one.log(), two.log(), strict=True):
        assert a["step"] == b["step"]
        assert b["train_nll"] == pytest.approx(a["train_nll"], rel=1e-4)
        assert b["val_nll"] == pytest.approx(a["val_nll"], rel=1e-4)
    states = [load_file(run.path / "state.safetensors") for run in (one, two)]
    assert states[0].keys() == states[1].keys()
    for name, tensor in states[0].items():
        if name.startswith("model."):
            np.testing.assert_allclose(states[1][name], tensor, atol=1e-4, rtol=1e-4, err_msg=name)


@pytest.mark.slow
def test_two_processes_sample_what_one_does(small_run: Run, tmp_path: Path) -> None:
    arguments = ["sample", small_run.path, "-n", "101", "--seed", "3", "--batch-size", "20"]
    code, out, err = torchrun(tmp_path, *arguments, "-o", "samples.smi")
    assert code == 0, err
    assert out == ""
    assert "101 molecules: validity" in err
    assert [path.name for path in tmp_path.iterdir()] == ["samples.smi"]
    written = (tmp_path / "samples.smi").read_text()
    assert len(written.splitlines()) == 101
    again = torchrun(tmp_path, *arguments)
    assert again[:2] == (0, written)  # the same seed, now to stdout

    assert written.splitlines() == list(
        MoleculeGenerator.load(small_run.path, "cpu").sample(101, seed=3, batch_size=20).smiles
    )


@pytest.mark.slow
def test_two_processes_draw_until_n_are_valid_into_one_table(small_run: Run, tmp_path: Path) -> None:
    arguments = ["sample", small_run.path, "-n", "31", "--valid", "--novel", "--temperature", "0.7", "-o", "x.csv"]
    code, _, err = torchrun(tmp_path, *arguments)
    assert code == 0, err
    heading, *rows = (tmp_path / "x.csv").read_text().splitlines()
    assert heading.startswith("smiles,canonical,valid,error,in_training,")  # duplicate_of is what no process knows
    assert "no column duplicate_of" in err
    assert len(rows) == 31
    assert len(set(rows)) > 16  # the parts differ
    assert "validity 1.000" in err
    assert "novelty 1.000" in err
    assert {path.name for path in tmp_path.iterdir()} == {"x.csv", "x.meta.json"}


@pytest.mark.parametrize("n", [0, 1, 7, 101])
def test_shares_are_even_and_leave_nothing_out(n: int) -> None:
    team = [ProcessGroup(rank, 3) for rank in range(3)]
    shares = [member.shard(np.arange(n)) for member in team]
    assert sorted(np.concatenate(shares)) == list(range(n))
    assert [len(share) for share in shares] == [member.part(n) for member in team]
    assert [i for member in team for i in member.run_of(range(n))] == list(range(n))


def test_unique_is_refused_where_several_processes_sample(small_run: Run) -> None:
    generator = MoleculeGenerator.load(small_run.path, runtime=Runtime("cpu", ProcessGroup(0, 2)))
    with pytest.raises(MolgenError, match="--unique"):
        generator.stream(SampleOptions(10, rules=RejectionRules(unique=True)))


def test_the_summary_counts_distinct_molecules_and_those_that_training_lacks(small_run: Run, tmp_path: Path) -> None:
    known = small_run.split("train")[:3]
    samples = [Sample(smiles, smiles) for smiles in [*known, *known, "CO", "C[Ta]"]] + [Sample("C(", None)] * 2
    stream = SampleStream(10, iter([samples[:4], samples[4:]]), SamplingStats(10, 10))
    written = write_samples(stream, tmp_path / "x.smi")
    line = summary(written, stream.stats, MoleculeGenerator.load(small_run.path, "cpu"))
    assert line == "10 molecules: validity 0.800, uniqueness 0.625, novelty 0.400"  # 8 of 10, 5 of 8, 2 of 5


Start = Callable[..., list["subprocess.Popen[str]"]]


@pytest.fixture
def two(small_run: Run, tmp_path: Path) -> Iterator[Start]:
    """Starts two processes that train without end, with no torchrun to look after them; returns when both train."""
    started: list[subprocess.Popen[str]] = []
    run = Path(shutil.copytree(small_run.path, tmp_path / "run"))
    (run / "report.json").unlink()
    change_config(run, epochs=100_000)

    def start(before: str = "pass") -> list["subprocess.Popen[str]"]:
        script = f"{before}; from molgen.cli.main import main; main(['train', '--resume', '--out', 'run'])"
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        for rank in ("0", "1"):
            names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
            environment = {**os.environ, **names, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
            environment["OMP_NUM_THREADS"] = "1"
            started.append(
                subprocess.Popen(
                    [sys.executable, "-c", script], cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True
                )
            )
        written = (run / "state.safetensors").stat().st_mtime_ns
        for _ in range(10 * SECONDS):
            time.sleep(0.1)
            if (run / "state.safetensors").stat().st_mtime_ns > written or any(p.poll() is not None for p in started):
                break
        return started

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_when_one_process_is_killed_the_other_ends(two: Start, killed: int) -> None:
    processes = two()
    processes[killed].kill()
    _, err = processes[1 - killed].communicate(timeout=SECONDS)
    assert processes[1 - killed].returncode == 1, err
    assert "Traceback" not in err
    assert "molgen: " in err


@pytest.mark.slow
def test_when_one_process_hangs_the_other_ends_after_the_time_limit(two: Start) -> None:
    short = "import datetime, molgen.runtime.distributed as p; p.TIMEOUT = datetime.timedelta(seconds=3)"
    leader, follower = two(short)
    follower.send_signal(signal.SIGSTOP)
    _, err = leader.communicate(timeout=SECONDS)
    assert leader.returncode == 1, err
    assert "Traceback" not in err


@pytest.mark.slow
def test_a_signal_to_one_process_stops_both_between_two_steps(two: Start, tmp_path: Path) -> None:
    leader, follower = two()
    follower.send_signal(signal.SIGTERM)
    errors = [process.communicate(timeout=SECONDS)[1] for process in (leader, follower)]
    assert [leader.returncode, follower.returncode] == [143, 143], errors
    assert "--resume" in errors[0]
    assert errors[1] == ""
    assert len(MoleculeGenerator.load(tmp_path / "run", "cpu").sample(2)) == 2


@pytest.mark.slow
def test_a_port_that_is_taken_ends_the_command(small_run: Run, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        launcher = ("--master-addr", "127.0.0.1", "--master-port", port)
        code, _, err = torchrun(tmp_path, "sample", small_run.path, "-n", 2, launcher=launcher)
    assert code != 0
    assert "EADDRINUSE" in err
