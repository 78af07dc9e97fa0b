"""A run directory: what a training leaves and all that sampling and evaluation need. Nothing in it can execute code."""

import csv
import gzip
import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch

from molgen import workers
from molgen.cache import Arrays, cached, from_strings, to_strings
from molgen.card import model_card
from molgen.checkpoint import load_weights, save_weights, state_made_with
from molgen.config import NAMED, Config, parse_yaml, to_yaml, validate
from molgen.corpus_file import CorpusFile, named_corpus
from molgen.datasets import Dropped, Molecule, build_dataset, data_directory, has_moses, read_source
from molgen.errors import MolgenError
from molgen.files import replacing, write_atomically
from molgen.model.build import build_model, count_weights
from molgen.model.decoder import Decoder
from molgen.processes import say
from molgen.tokenizer import SmilesTokenizer

try:
    import fcntl
except ImportError:  # Windows has other locks, and no promise here
    fcntl = None  # type: ignore[assignment]

FOLDER = Path("runs")
SHIPPED = Path(__file__).parent / "shipped"
"""The runs that come with the package, without their molecules."""
CONFIG, TOKENIZER, WEIGHTS, STATE = "config.yaml", "tokenizer.json", "model.safetensors", "state.safetensors"
LOG, CURVES, REPORT, CARD = "log.csv", "curves.png", "report.json", "README.md"
MOLECULES, DROPPED = "molecules.csv.gz", "dropped.csv.gz"
LOG_COLUMNS = ("step", "epoch", "train_nll", "val_nll", "val_top1", "lr", "tokens_per_second", "seconds")
MOST_COPIED = 500_000
"""A named dataset of more molecules is recorded by its name and hash instead of being copied into the run."""
# A state is the weights, their average and two moments; the best weights lie beside it; for a moment old and new do.
_BYTES_A_WEIGHT = 4 * 2 * (4 + 1)
_BYTES_A_MOLECULE = 100


class Run:
    """A run directory opened for reading. Raises MolgenError where it is none, or where a file of it is damaged."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not (path / CONFIG).is_file():
            raise MolgenError(f"{path}: not a run directory (no {CONFIG})", "give a directory that `molgen train` made")

    @cached_property
    def config(self) -> Config:
        """The resolved configuration."""
        path = self.path / CONFIG
        try:
            return validate(parse_yaml(path.read_text(encoding="utf-8"), str(path)), str(path))
        except (OSError, UnicodeDecodeError) as error:
            raise MolgenError(f"{path}: cannot be read: {error}", "restore the file, or train again") from None

    @cached_property
    def tokenizer(self) -> SmilesTokenizer:
        """The run's vocabulary."""
        return SmilesTokenizer.load(self.path / TOKENIZER)

    def model(self, device: torch.device) -> Decoder:
        """The decoder with the best weights, in evaluation mode."""
        path = self.path / WEIGHTS
        if not path.is_file():
            raise MolgenError(f"{self.path}: no {WEIGHTS} yet", "let the training finish its first epoch")
        expected = {"vocabulary": self.tokenizer.fingerprint}
        weights = count_weights(self.config.model, len(self.tokenizer))
        model = load_weights(path, lambda: build_model(self.config.model, len(self.tokenizer)), weights, expected)
        return cast(Decoder, model.to(device).eval())

    @property
    def weights_sha256(self) -> str:
        """Of the weights file: which weights a table was drawn with, or a fine-tuning began with."""
        return hashlib.sha256((self.path / WEIGHTS).read_bytes()).hexdigest()

    def save_model(self, model: Decoder) -> None:
        """Replaces the run's weights."""
        save_weights(self.path / WEIGHTS, model, {"vocabulary": self.tokenizer.fingerprint})

    @property
    def report(self) -> dict[str, Any]:
        """What the training reported; empty while it has not finished."""
        path = self.path / REPORT
        try:
            text = path.read_text(encoding="utf-8") if path.exists() else "{}"
            # NaN, which earlier versions wrote where one molecule has no standard error, is no JSON
            return cast(dict[str, Any], json.loads(text, parse_constant=lambda _: None))
        except (OSError, ValueError) as error:
            raise MolgenError(f"{path}: cannot be read: {error}", "restore the file, or train again") from None

    @property
    def has_molecules(self) -> bool:
        """Whether its training molecules can be had: in the run, or in what it names as their source."""
        return not self.lacks("train")

    def lacks(self, split: str) -> str:
        """Why the molecules of a split cannot be had; empty where they can.

        Of a run that names its source this reads, cleans and splits that again, which takes minutes the first time.
        """
        if (self.path / MOLECULES).exists():
            return ""
        if not self.names_its_source and not self.names_its_file:
            return "the run carries no molecules"
        if self.names_its_source and self.origin == "moses" and not has_moses():
            return self.elsewhere  # nobody is made to fetch it who did not ask for it
        try:
            if self.names_its_file:
                return self.corpus_file.lacks(split)
            _ = self._rebuilt
        except MolgenError as error:
            return error.message
        return ""

    @property
    def origin(self) -> str:
        """The dataset or file that its molecules came from; of an encoded file, what was encoded."""
        return str(self.report.get("encoded_from") or self.config.data.source)

    @property
    def names_its_source(self) -> bool:
        """Whether it was trained on too many molecules to be copied into it: what it carries is their source's name."""
        if (self.path / MOLECULES).exists() or self.config.data.sha256 is not None:
            return False
        return self.config.data.source == "moses" or sum(self.report.get("sizes", {}).values()) > MOST_COPIED

    @property
    def elsewhere(self) -> str:
        """How a run that names its source is compared with its molecules; empty for other runs."""
        if not self.names_its_source:
            return ""
        train = " --train moses" if self.origin == "moses" else ""
        what = "MOSES" if train else "those of its source"
        return f"the run carries no molecules: `molgen eval {self.path.name}{train}` compares with {what}"

    @property
    def names_its_file(self) -> bool:
        """Whether what it carries of its molecules is the name of an encoded file."""
        return not (self.path / MOLECULES).exists() and self.config.data.sha256 is not None

    @cached_property
    def corpus_file(self) -> CorpusFile:
        """The encoded file that it names. Raises MolgenError where that has gone or has changed."""
        errors = []
        for place in self._places():
            try:
                return named_corpus(self.config.data.model_copy(update={"source": str(place)}))
            except MolgenError as error:
                errors.append(error)
        raise errors[0]

    def _places(self) -> list[Path]:
        """Where the file may be that it names: there, or, for older runs and moved ones, as seen from the run."""
        named, folders = Path(self.config.data.source), [self.path.absolute(), *self.path.absolute().parents]
        if named.is_absolute():
            return [named, *(folder / named.name for folder in folders[:2])]
        return [named, *(folder / named for folder in folders)]

    @property
    def has_random_forms(self) -> bool:
        """Whether some of its training strings are random forms, which start with `<random>`."""
        return self.names_its_file and self.corpus_file.has_random_forms("train")

    @cached_property
    def _rebuilt(self) -> Arrays:
        """The SMILES of each split of what it names as its source, read, cleaned and split as the training did it.

        Kept for the next time. Raises MolgenError where they are not the molecules that the run was trained on.
        """
        expected = self.report.get("sha256")
        if expected is None and (self.path / STATE).exists():
            expected = state_made_with(self.path / STATE).get("molecules")
        if expected is None:
            raise MolgenError(f"{self.path}: nothing says which molecules it was trained on", "name some with --train")

        def build() -> Arrays:
            data = self.config.data
            if self.origin != "moses":
                place = next((place for place in self._places() if place.is_file()), None)
                if place is None:
                    raise MolgenError(
                        f"{data.source}: is not there, and {self.path.name} was trained on it",
                        "restore the file, or name a training set with --train",
                    )
                data = data.model_copy(update={"source": str(place)})
            say(f"{self.path.name}: its molecules are cleaned and split again, as in its training; this once")
            with workers.workers() as pool:
                pattern = self.tokenizer.splitter.pattern
                dataset = build_dataset(read_source(data), data, self.config.model.context, pattern, pool)
            if dataset.sha256 != expected:
                raise MolgenError(
                    f"{data.source}: does not give the molecules that {self.path.name} was trained on",
                    "restore the file, or name a training set with --train",
                )
            return {split: from_strings(dataset.split(split)) for split in dataset.sizes}

        return cached(data_directory() / "cache", "molecules", ["1", str(expected)], build)

    @cached_property
    def molecules(self) -> list[Molecule]:
        """The cleaned molecules with their splits. Raises MolgenError for a run that carries none."""
        if not (self.path / MOLECULES).exists():
            raise MolgenError(f"{self.path}: carries no {MOLECULES}", "name its training set with --train")
        return [Molecule(r["smiles"], r["name"], int(r["row"]), r["split"]) for r in self._table(MOLECULES)]

    @cached_property
    def dropped(self) -> list[Dropped]:
        """The account of every row that was dropped or altered."""
        return [Dropped(int(r["row"]), r["name"], r["smiles"], r["reason"]) for r in self._table(DROPPED)]

    def split(self, name: str) -> list[str]:
        """The SMILES of one split, from the run or from the dataset or file that it names.

        Raises MolgenError where they cannot be had.
        """
        if self.names_its_source:
            if reason := self.lacks(name):
                raise MolgenError(reason, "name its training set with --train")
            return to_strings(self._rebuilt[name]) if name in self._rebuilt else []
        if self.names_its_file:
            return self.corpus_file.strings(name)
        return [m.smiles for m in self.molecules if m.split == name]

    def spread(self, name: str, about: int) -> list[str]:
        """Evenly spaced SMILES of a split, less than twice so many."""
        if self.names_its_file:
            return self.corpus_file.spread(name, about)
        smiles = self.split(name)
        return smiles[:: max(1, len(smiles) // about)]

    def _table(self, name: str) -> list[dict[str, str]]:
        path = self.path / name
        try:
            with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
                return list(csv.DictReader(file, strict=True))
        except (OSError, UnicodeDecodeError, EOFError, csv.Error) as error:
            raise MolgenError(f"{path}: cannot be read: {error}", "restore the file, or train again") from None

    def log(self) -> list[dict[str, float]]:
        """The rows of log.csv, one an epoch."""
        path = self.path / LOG
        try:
            with path.open(encoding="utf-8", newline="") as file:
                rows = [{key: float(row[key]) for key in LOG_COLUMNS} for row in csv.DictReader(file)]
        except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
            raise MolgenError(f"{path}: cannot be read: {error}", "restore the file, or train again") from None
        return rows

    def write_log(self, rows: Iterable[dict[str, float]]) -> None:
        """Replaces log.csv."""
        text = io.StringIO()
        table = csv.DictWriter(text, LOG_COLUMNS, lineterminator="\n")
        table.writeheader()
        table.writerows({key: f"{value:.6g}" for key, value in row.items()} for row in rows)
        write_atomically(self.path / LOG, text.getvalue().encode())

    def write_report(self, report: dict[str, Any]) -> None:
        """Writes the model card, then report.json, which says that the training has finished."""
        write_atomically(self.path / CARD, model_card(self.path.name, self.config, report).encode())
        write_atomically(self.path / REPORT, (json.dumps(report, indent=1, allow_nan=False) + "\n").encode())


@contextmanager
def at_work(path: Path) -> Iterator[None]:
    """Makes a run directory if there is none, and keeps other trainings out of it while the block runs.

    The lock is the kernel's: it goes with the process, however that ends, and leaves no file. What a write that was
    killed has left is removed; so is the directory if nothing was written into it.
    Raises MolgenError where another training is at work.
    """
    if path.exists() and not path.is_dir():
        raise MolgenError(f"{path}: is a file", "choose another --out")
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        if fcntl is not None:
            handle = os.open(path, os.O_RDONLY)
            stack.callback(os.close, handle)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise MolgenError(
                    f"{path}: another training is at work in it", "wait for its end, or choose another --out"
                ) from None
            except OSError as error:  # some network file systems
                say(f"{path}: cannot be locked ({error.strerror}): start no second training in it")
        for name in (CONFIG, TOKENIZER, WEIGHTS, STATE, LOG, CURVES, REPORT, CARD, MOLECULES, DROPPED):
            for part in path.glob(f".{name}.*"):
                part.unlink(missing_ok=True)
        try:
            yield
        finally:
            with suppress(OSError):  # at the first that is not empty
                for folder in made:
                    folder.rmdir()


def create_run(
    path: Path,
    config: Config,
    tokenizer: SmilesTokenizer,
    molecules: Sequence[Molecule] | None,
    dropped: Sequence[Dropped] | None,
) -> Run:
    """Writes what is known before the first step: configuration, tokenizer, molecules and what was dropped.

    None: the run does not list them. Only a named dataset may be too large to be listed: a file may change or go, and
    which molecules of a fine-tuning the other run knew cannot be told again without it.
    Raises MolgenError where the disk has no room for the run.
    """
    path.mkdir(parents=True, exist_ok=True)
    named = config.data.source in NAMED and config.training.init is None
    copied = molecules is not None and (len(molecules) <= MOST_COPIED or not named)
    weights = count_weights(config.model, len(tokenizer))
    need = _BYTES_A_WEIGHT * weights + _BYTES_A_MOLECULE * (len(molecules or ()) if copied else 0)
    if (free := shutil.disk_usage(path).free) < need:
        raise MolgenError(
            f"{path}: {free / 2**20:,.0f} MiB are free, the run needs up to {need / 2**20:,.0f}",
            "free some space, or choose another --out",
        )
    for old in (WEIGHTS, STATE, LOG, CURVES, REPORT, CARD, MOLECULES, DROPPED):
        (path / old).unlink(missing_ok=True)
    write_atomically(path / TOKENIZER, tokenizer.to_json().encode())
    if molecules is not None and copied:
        write_table(path / MOLECULES, Molecule._fields, molecules)
    if dropped is not None:
        write_table(path / DROPPED, Dropped._fields, dropped)
    write_atomically(path / CONFIG, to_yaml(config).encode())
    return Run(path)


def run_directory(name: str) -> Path | None:
    """The directory that a run's name means: a path, else one under runs/, else one that comes with the package."""
    places = [Path(name)] if "/" in name else [Path(name), FOLDER / name, SHIPPED / name]
    return next((place for place in places if place.is_dir()), None)


def find_run(name: str | None) -> Run:
    """The run of a name or a path; without one the newest under runs/ that has weights."""
    if name is not None:
        return Run(run_directory(name) or Path(name))
    found = sorted(FOLDER.glob(f"*/{WEIGHTS}"), key=lambda p: p.stat().st_mtime)
    if not found:
        raise MolgenError(
            f"no run yet under {FOLDER}/",
            "take the one that comes with molgen, `moses-small`, or train: `molgen train moses-mini` (4 minutes)",
        )
    return Run(found[-1].parent)


def newest_unfinished() -> Path:
    """The run to go on with when `--resume` names none."""
    found = [p for p in FOLDER.glob(f"*/{STATE}") if not (p.parent / REPORT).exists()]
    if not found:
        raise MolgenError(f"no unfinished run under {FOLDER}/", "name one with --out, or train without --resume")
    return max(found, key=lambda p: p.stat().st_mtime).parent


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A gzipped CSV file, the same bytes for the same rows."""
    with (
        replacing(path) as file,
        gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed,
        io.TextIOWrapper(packed, encoding="utf-8", newline="") as text,
    ):
        table = csv.writer(text, lineterminator="\n")
        table.writerow(columns)
        table.writerows(rows)
