"""What lies where a file is meant to lie: pipes, devices, links, other people's files, damaged tables."""

import gzip
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import Cli
from test_cli import MOLGEN, refused

from molgen.runs import Run

Place = Callable[[Path], None]


@pytest.fixture(autouse=True)
def no_waiting_for_ever() -> Iterator[None]:
    """A command that waits for the other end of a pipe fails its test instead of holding up all others."""

    def too_long(*_: object) -> None:
        raise AssertionError("waits for a file")

    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(30)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def run(small_run: Run, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(small_run.path, tmp_path / "run"))


def pipe(path: Path) -> None:
    os.mkfifo(path)


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def folder(path: Path) -> None:
    path.mkdir()


def listener(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        here = Path.cwd()
        os.chdir(path.parent)  # a socket's address is short
        bound.bind(path.name)
        os.chdir(here)


COMMANDS = {
    "config.yaml": ("score", "x.smi", "run"),
    "tokenizer.json": ("sample", "run", "-n", 2),
    "model.safetensors": ("sample", "run", "-n", 2),
    "molecules.csv.gz": ("sample", "run", "-n", 2),
    "log.csv": ("eval", "run", "-n", 2, "--report", "x.html"),
    "state.safetensors": ("train", "--resume", "--out", "run"),
    "dropped.csv.gz": ("train", "--resume", "--out", "run"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_pipe_in_place_of_a_runs_file_is_refused_without_reading(cli: Cli, run: Path, name: str) -> None:
    Path("x.smi").write_text("CCO\n")
    (run / "report.json").unlink()
    (run / name).unlink()
    pipe(run / name)
    done = cli(*COMMANDS[name])
    assert done.code == 2, done.err
    assert f"{name}: " in done.err.splitlines()[-1]
    assert "no regular file" in done.err
    assert "Traceback" not in done.err
    assert not done.out
    assert (run / name).is_fifo()


@pytest.mark.parametrize("place", [endless, folder, listener])
@pytest.mark.parametrize("name", ["config.yaml", "model.safetensors", "molecules.csv.gz"])
def test_a_device_a_directory_or_a_socket_in_place_of_a_runs_file_is_refused(
    cli: Cli, run: Path, name: str, place: Place
) -> None:
    (run / name).unlink()
    place(run / name)
    refused(cli("sample", "run", "-n", 2), name)


def test_a_link_in_place_of_a_runs_file_is_refused_and_says_that_it_is_one(cli: Cli, run: Path) -> None:
    (run / "model.safetensors").rename("elsewhere.safetensors")
    (run / "model.safetensors").symlink_to(Path("elsewhere.safetensors").absolute())
    refused(cli("sample", "run", "-n", 2), "model.safetensors", "a link")


@pytest.mark.parametrize("name", ["recipe.yaml", "data.molgen"])
def test_a_pipe_named_as_recipe_or_encoded_file_is_refused(cli: Cli, name: str) -> None:
    pipe(Path(name))
    data = ["moses-mini", "--config", name] if name.endswith("yaml") else [name]
    refused(cli("train", *data, "--out", "r"), name, "no regular file")


def test_a_configuration_or_a_recipe_beyond_all_bounds_is_not_read(cli: Cli, run: Path) -> None:
    Path("x.yaml").write_text("#" * 3_000_000)
    refused(cli("train", "moses-mini", "--config", "x.yaml"), "x.yaml", "larger than 1 MiB")
    (run / "config.yaml").write_text("#" * 3_000_000)
    refused(cli("sample", "run"), "config.yaml", "larger than 1 MiB")


# Other people's files at the place of the temporary one


@pytest.mark.parametrize("name", ["x.smi", "x.csv"])
def test_what_lies_at_a_name_like_the_temporary_one_stays_as_it_is(cli: Cli, small_run: Run, name: str) -> None:
    Path("precious").write_text("precious")
    for i, part in enumerate(("part0", "part", "tmp")):
        taken = Path(f"{name}.{part}")
        taken.write_text("mine") if i else taken.symlink_to("precious")
    assert cli("sample", small_run.path, "-n", 5, "-o", name).code == 0
    assert Path("precious").read_text() == "precious"
    assert Path(f"{name}.part0").is_symlink()
    assert Path(f"{name}.part").read_text() == "mine"
    assert not [path for path in Path().iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    "options", [("-o", "link.smi"), ("-n", 400, "--temperature", 0.6, "--grid", "link.png"), ("-o", "link.csv")]
)
def test_a_link_at_the_name_of_an_output_is_replaced_never_written_through(
    cli: Cli, small_run: Run, options: tuple[object, ...]
) -> None:
    target = Path(str(options[-1]))
    Path("precious").write_text("precious")
    target.symlink_to("precious")
    refused(cli("sample", small_run.path, *options), "exists", "--force")
    assert cli("sample", small_run.path, *options, "--force").code == 0
    assert Path("precious").read_text() == "precious"
    assert not target.is_symlink()


def test_a_dangling_link_at_the_name_of_an_output_exists(cli: Cli, small_run: Run) -> None:
    Path("x.smi").symlink_to("nowhere")
    refused(cli("sample", small_run.path, "-o", "x.smi"), "x.smi: exists")
    assert not Path("nowhere").exists()


def test_an_output_that_is_a_device_a_pipe_or_a_directory_is_refused_before_the_work(cli: Cli) -> None:
    Path("x.smi").write_text("CCO\n")
    pipe(Path("pipe"))
    Path("folder").mkdir()
    Path("null").symlink_to("/dev/null")
    for name in ("pipe", "folder", "null"):
        refused(cli("eval", "x.smi", "--json", name, "--force"), f"{name}: no regular file")
    assert Path("pipe").is_fifo()
    assert Path("null").is_symlink()


def test_two_samplers_into_one_file_leave_what_one_of_them_drew_whole(cli: Cli, small_run: Run, tmp_path: Path) -> None:
    command = [*MOLGEN, "sample", str(small_run.path), "-n", "1000000", "--batch-size", "100", "-o", "x.smi"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as slow:
        while not any(part.stat().st_size for part in tmp_path.glob(".x.smi.*.part")):
            assert slow.poll() is None
            time.sleep(0.05)
        for name in ("x.smi", "y.smi"):
            assert cli("sample", small_run.path, "-n", 200, "--seed", 7, "-o", name).code == 0
        assert Path("x.smi").read_text() == Path("y.smi").read_text()
        slow.send_signal(signal.SIGTERM)
        _, err = slow.communicate(timeout=30)
    assert slow.returncode == 143
    lines = Path("x.smi").read_text().splitlines()  # the last one's, whole
    assert f"stopped; {len(lines):,} of 1,000,000 molecules are in x.smi" in err
    assert lines[:200] != Path("y.smi").read_text().splitlines()
    assert not list(tmp_path.glob(".*"))


def test_a_name_as_long_as_the_file_system_takes_can_be_written(cli: Cli, small_run: Run) -> None:
    name = "é" * 125 + ".smi"  # 254 bytes
    assert cli("sample", small_run.path, "-n", 2, "-o", name).code == 0
    assert len(Path(name).read_text().splitlines()) == 2


def test_a_training_removes_what_kills_have_left_and_nothing_else(cli: Cli, run: Path) -> None:
    (run / "report.json").unlink()
    (run / ".config.yaml.swp").write_text("an editor's")
    (run / ".state.safetensors.0123abcd.part").write_text("half")
    assert cli("train", "--resume", "--out", run).code == 0
    assert (run / ".config.yaml.swp").read_text() == "an editor's"
    assert not (run / ".state.safetensors.0123abcd.part").exists()


# Damaged tables


def without_heading(lines: list[bytes]) -> list[bytes]:
    return lines[1:]


def short_row(lines: list[bytes]) -> list[bytes]:
    return [*lines[:3], b"CCO,,7", *lines[3:]]


def long_row(lines: list[bytes]) -> list[bytes]:
    return [*lines[:3], b"CCO,,7,train,", *lines[3:]]


def no_number(lines: list[bytes]) -> list[bytes]:
    return [*lines[:3], b"CCO,,seven,train", *lines[3:]]


def no_split(lines: list[bytes]) -> list[bytes]:
    return [*lines[:3], b"CCO,,7,trian", *lines[3:]]


def not_utf8(lines: list[bytes]) -> list[bytes]:
    return [*lines[:3], b"CC\xff,,7,train", *lines[3:]]


def nul(lines: list[bytes]) -> list[bytes]:
    return [*lines[:3], b"CC\x00,,7,train", *lines[3:]]


def open_quote(lines: list[bytes]) -> list[bytes]:
    return [*lines[:3], b'"CCO,,7,train', *lines[3:]]


def one_endless_line(lines: list[bytes]) -> list[bytes]:
    return [*lines[:3], b"C" * 3_000_000]


@pytest.mark.parametrize(
    "damage",
    [without_heading, short_row, long_row, no_number, no_split, not_utf8, open_quote, one_endless_line],
)
def test_a_damaged_table_of_molecules_is_refused_before_anything_is_printed(
    cli: Cli, run: Path, damage: Callable[[list[bytes]], list[bytes]]
) -> None:
    path = run / "molecules.csv.gz"
    lines = gzip.decompress(path.read_bytes()).splitlines()
    path.write_bytes(gzip.compress(b"\n".join([*damage(lines), b""])))
    refused(cli("sample", "run", "-n", 2), "molecules.csv.gz: cannot be read")
    refused(cli("eval", "run", "-n", 2), "molecules.csv.gz: cannot be read")


@pytest.mark.parametrize("damage", [lambda content: content[:-40], lambda _: b"no gzip", lambda _: b""])
def test_damaged_gzip_data_are_refused_before_anything_is_printed(
    cli: Cli, run: Path, damage: Callable[[bytes], bytes]
) -> None:
    path = run / "molecules.csv.gz"
    path.write_bytes(damage(path.read_bytes()))
    refused(cli("sample", "run", "-n", 2), "molecules.csv.gz: cannot be read")


@pytest.mark.parametrize("content", ["null", "[]", "3", '{"a":', "[" * 100_000])
@pytest.mark.parametrize("name", ["config.yaml", "tokenizer.json"])
def test_a_file_of_another_kind_than_the_run_needs_is_refused(cli: Cli, run: Path, name: str, content: str) -> None:
    (run / name).write_text(content)
    refused(cli("sample", "run", "-n", 2), name)


def test_a_state_whose_position_is_no_mapping_is_refused(cli: Cli, run: Path) -> None:
    (run / "report.json").unlink()
    path = run / "state.safetensors"
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    for position in ("[]", "null", "7", "{"):
        header["__metadata__"]["position"] = position
        changed = json.dumps(header).encode()
        path.write_bytes(len(changed).to_bytes(8, "little") + changed + content[8 + size :])
        done = cli("train", "--resume", "--out", "run")
        assert done.code == 2, done.err
        assert "state.safetensors" in done.err.splitlines()[-1]
        assert "Traceback" not in done.err
