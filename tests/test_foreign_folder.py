"""Python files in the current folder are never executed, by the command or by its child processes."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import SMALL, Cli

from molgen.runs import Run

COMMAND = Path(sys.executable).with_name("molgen")
TRAPS = (
    *("tqdm.py", "json.py", "random.py", "typing.py", "molgen.py", "numpy.py", "rdkit/__init__.py"),
    *("pip/__main__.py", "sitecustomize.py", "usercustomize.py", "importlib/__init__.py", "encodings.py", "signal.py"),
)
# As the `molgen` script starts, whose own folder is the first on the path. Several commands, one start.
SCRIPT = """
import sys
from molgen.cli.main import main
for command in sys.stdin.read().splitlines():
    try:
        main(command.split("|"))
    except SystemExit as leaving:
        print("exit code", leaving.code or 0)
"""


def options(*settings: str) -> list[str]:
    return [part for setting in settings for part in ("--set", setting)]


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    folder = tmp_path / "hostile"
    trap = f"open({str(tmp_path / 'executed')!r}, 'a').write(__file__ + ' ')\nraise SystemExit\n"
    for name in TRAPS:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(trap)
    (folder / "matplotlibrc").write_text("savefig.dpi: 7\nfont.size: 1\nbackend: module://random\n")
    return folder


def test_commands_give_the_same_in_a_folder_of_python_files_and_execute_none(
    cli: Cli, hostile: Path, small_run: Run, small_file: Path, tmp_path: Path
) -> None:
    quick = options("data.min_token_count=1", "data.train_size=20", *SMALL, "training.epochs=1")
    commands = [
        ("sample", small_run.path, "-n", 40, "-o", "x.smi"),
        ("sample", small_run.path, "-n", 40),
        ("eval", small_run.path, "-n", 40),
        ("score", "x.smi", small_run.path, "--strings", 3),
        ("data", "describe", small_file, *quick[:4]),
        ("data", "clean", small_file, "-o", "clean.smi", *quick[:2]),
        ("train", small_file, "--out", "run", *quick),
    ]
    expected = [cli(*command) for command in commands]
    assert [done.code for done in expected] == [0] * len(commands), expected
    done = subprocess.run(
        [sys.executable, "-P", "-c", SCRIPT],
        input="\n".join("|".join(map(str, command)) for command in commands),
        cwd=hostile,
        capture_output=True,
        text=True,
        check=False,
    )
    assert not (tmp_path / "executed").exists(), (tmp_path / "executed").read_text()
    assert done.stdout == "".join(f"{here.out}exit code 0\n" for here in expected), done.stderr
    for file in ("x.smi", "clean.smi", "run/model.safetensors", "run/curves.png"):
        assert (hostile / file).read_bytes() == (tmp_path / file).read_bytes(), file


@pytest.mark.skipif(not COMMAND.exists(), reason="needs the command beside the interpreter")
def test_the_installed_command_imports_nothing_out_of_the_folder(hostile: Path, tmp_path: Path) -> None:
    done = subprocess.run([COMMAND, "data", "list"], cwd=hostile, capture_output=True, text=True, check=False)
    assert (done.returncode, (tmp_path / "executed").exists()) == (0, False), done.stderr


def test_nor_does_a_process_that_a_library_starts(hostile: Path, tmp_path: Path) -> None:
    """From Python 3.14 a lock for several processes starts one, by a `python -c` that looks into the current folder."""
    script = tmp_path / "elsewhere" / "start.py"
    script.parent.mkdir()
    script.write_text(
        "import multiprocessing, sys\n"
        "multiprocessing.set_start_method('forkserver')\n"  # what it is by itself since 3.14
        "from molgen.cli.main import main\n"
        "main(['data', 'list'])\n"
    )
    done = subprocess.run([sys.executable, script], cwd=hostile, capture_output=True, text=True, check=False)
    assert (done.returncode, (tmp_path / "executed").exists()) == (0, False), done.stderr


def test_an_empty_or_relative_entry_of_the_path_does_not_reach_a_child_process(small_run: Run, tmp_path: Path) -> None:
    # RDKit is imported by the children alone in this command, so that the parent's own path does no harm to the test
    (tmp_path / "folder" / "rdkit").mkdir(parents=True)
    (tmp_path / "folder" / "rdkit" / "__init__.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'w')\n")
    shutil.copytree(tmp_path / "folder" / "rdkit", tmp_path / "rdkit")
    code = (
        "import os, sys\nos.environ['PYTHONPATH'] = os.pathsep.join(['', 'folder', '.'])\n"
        "from molgen.cli.main import main\nmain(sys.argv[1:])"
    )
    command = [sys.executable, "-P", "-c", code, "sample", str(small_run.path), "-n", "3"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "executed").exists()


def test_moses_is_fetched_without_the_folders_pip(
    hostile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from molgen.data.download import fetch
    from molgen.errors import MolgenError

    monkeypatch.chdir(hostile)
    monkeypatch.setenv("MOLGEN_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")  # pip finds nothing, without a network
    with pytest.raises(MolgenError, match="cannot be fetched"):
        fetch("moses")
    assert not (tmp_path / "executed").exists()
    assert not list((tmp_path / "data").rglob("*.csv*"))
