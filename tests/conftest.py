"""Shared pieces: the command line in this process, a small trained run, and real data where it is present."""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from molgen.chem.pool import Workers, workers
from molgen.cli.main import main
from molgen.config import load_config
from molgen.data.download import data_directory
from molgen.data.sources import reference_smiles
from molgen.evaluation.evaluate import Evaluation, evaluate_subject, list_subject
from molgen.machine import Runtime
from molgen.metrics import MetricName
from molgen.metrics.references import ReferenceCache
from molgen.runs import Run
from molgen.runtime.log import log_to_stderr
from molgen.tokenizer import deepchem_pattern
from molgen.training.train import train

SHARED = Path(__file__).parents[2] / "shared"
SMALL = [
    "model.width=32",
    "model.blocks=2",
    "model.heads=2",
    "model.head_width=16",
    "model.feedforward=64",
    "model.dropout=0.0",
    "training.randomized=0.0",
    "training.randomized_end=0.0",
]


class Done(NamedTuple):
    code: int
    out: str
    err: str


Cli = Callable[..., Done]


@pytest.fixture(scope="session", autouse=True)
def no_waiting_for_the_disk() -> Iterator[None]:
    """A test's files need not outlive a power cut; thousands of them would be waited for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Runs a command in an empty directory: `cli("sample", "-n", 3)` -> (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> Done:
        capfd.readouterr()
        monkeypatch.setattr("sys.argv", ["molgen", *map(str, arguments)])
        with pytest.raises(SystemExit) as leaving:
            main([str(argument) for argument in arguments])
        return Done(int(leaving.value.code or 0), *capfd.readouterr())

    return run


@pytest.fixture(autouse=True)
def _messages() -> Iterator[None]:
    """What a command would show on stderr, a call from Python shows too."""
    with log_to_stderr():
        yield


@pytest.fixture(scope="session")
def pattern() -> str:
    return deepchem_pattern()


@pytest.fixture(scope="session")
def pool() -> Iterator[Workers]:
    with workers() as opened:
        yield opened


@pytest.fixture(scope="session")
def moses_mini() -> list[str]:
    return reference_smiles("moses-mini", "train")


@pytest.fixture(scope="session")
def small_file(tmp_path_factory: pytest.TempPathFactory, moses_mini: list[str]) -> Path:
    """200 real molecules, one a line."""
    path = tmp_path_factory.mktemp("data") / "small.smi"
    path.write_text("\n".join(moses_mini[:200]) + "\n")
    return path


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory, small_file: Path) -> Run:
    """A model of 20,000 weights trained for seconds: its molecules are poor, its files are real."""
    overrides = [*SMALL, "training.epochs=24", "training.learning_rate=1e-2", "training.batch_size=16"]
    config = load_config(None, overrides, {"data.source": str(small_file)})
    return train(config, tmp_path_factory.mktemp("runs") / "small")


@pytest.fixture
def tox21(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The real Tox21 table; the test is skipped where it is absent."""
    path = SHARED / "data" / "tox21.csv.gz"
    if not path.exists():
        path = Path(os.environ.get("MOLGEN_DATA", "data")) / "tox21.csv.gz"
    if not path.exists():
        pytest.skip("needs tox21.csv.gz in ../shared/data or $MOLGEN_DATA")
    monkeypatch.setenv("MOLGEN_DATA", str(path.parent))
    return path


@pytest.fixture(scope="session")
def moses_files() -> Path:
    """The files out of MOSES' package; the test is skipped where they have not been fetched."""
    folder = data_directory() / "moses"
    if not (folder / "test_stats.npz").exists():
        pytest.skip("needs MOSES: `molgen data get moses`")
    return folder


@pytest.fixture
def references(pool: Workers, tmp_path: Path) -> ReferenceCache:
    """Reference sets with a cache of their own."""
    return ReferenceCache(Runtime("cpu", workers=pool), tmp_path / "cache")


def evaluate_with(
    samples: Sequence[str], *, references: ReferenceCache, metrics: Sequence[MetricName] = ("basic",), **sets: Any
) -> Evaluation:
    """As the public `evaluate`, with a cache of its own."""
    return evaluate_subject(list_subject(samples, **sets), metrics, references)
