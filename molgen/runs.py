"""A run directory: what a training leaves and all that sampling and evaluation need. Nothing in it can execute code."""

import csv
import gzip
import hashlib
import io
import json
import logging
import os
import re
import shutil
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, TextIO, cast

import torch

from molgen.checkpoint import load_weights, save_weights, saved_fingerprint
from molgen.chem.pool import shared_workers
from molgen.config import NAMED, Config, parse_yaml, saved, to_yaml, validate
from molgen.data.dataset import Dropped, Molecule, build_dataset, read_source
from molgen.data.download import data_directory, has_moses
from molgen.data.encoded_file import CorpusFile, named_corpus
from molgen.data.splitting import SPLITS
from molgen.errors import MolgenError
from molgen.model.build import build_model, count_parameters
from molgen.model.decoder import Decoder
from molgen.runtime.cache import Arrays, cached, from_strings, to_strings
from molgen.runtime.files import content_of, opened, write_atomically, write_table
from molgen.tokenizer import MOST_BYTES, SmilesTokenizer

try:
    import fcntl
except ImportError:  # Windows has other locks, and no promise here
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

FOLDER = Path("runs")
SHIPPED = Path(__file__).parent / "assets" / "shipped"
"""The runs that come with the package, without their molecules."""
CONFIG, TOKENIZER, WEIGHTS, STATE = "config.yaml", "tokenizer.json", "model.safetensors", "state.safetensors"
LOG, CURVES, REPORT, CARD = "log.csv", "curves.png", "report.json", "README.md"
MOLECULES, DROPPED = "molecules.csv.gz", "dropped.csv.gz"
FILES = (CONFIG, TOKENIZER, WEIGHTS, STATE, LOG, CURVES, REPORT, CARD, MOLECULES, DROPPED)
LOG_COLUMNS = ("step", "epoch", "train_nll", "val_nll", "val_top1", "lr", "tokens_per_second", "seconds")
MOST_COPIED = 500_000
"""A named dataset of more molecules is recorded by its name and hash instead of being copied into the run."""
# A state is the weights, their average and two moments; the best weights lie beside it; for a moment old and new do.
_BYTES_A_WEIGHT = 4 * 2 * (4 + 1)
_BYTES_A_MOLECULE = 100
# What a file of a run may hold, far beyond what a training writes: a larger one is none of its files.
_MOST_BYTES = {CONFIG: 2**20, TOKENIZER: MOST_BYTES, REPORT: 2**24, LOG: 2**28}
_LONGEST_LINE = 2**20
_LEFT_BY_A_KILL = re.compile(r"\.[0-9a-f]{8}(\.part)?")


class Run:
    """A run directory opened for reading. Raises MolgenError where it is none, or where a file of it is damaged."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._follow = SHIPPED in self.path.absolute().parents
        """Whether its files may be links: some installers link a package's files to a cache of their own."""
        if not os.path.lexists(self.path / CONFIG):
            raise MolgenError(
                f"{self.path}: not a run directory (no {CONFIG})", "give a directory that `molgen train` made"
            )

    @cached_property
    def config(self) -> Config:
        """The resolved configuration."""
        name = str(self.path / CONFIG)
        return validate(saved(parse_yaml(self._text(CONFIG), name)), name)

    @cached_property
    def tokenizer(self) -> SmilesTokenizer:
        """The run's vocabulary."""
        try:
            return SmilesTokenizer.of_json(self._text(TOKENIZER))
        except ValueError as error:
            raise MolgenError(
                f"{self.path / TOKENIZER}: not a tokenizer file: {error}", "train again, or restore the file"
            ) from None

    def model(self, device: torch.device) -> Decoder:
        """The decoder with the best weights, in evaluation mode."""
        path = self.path / WEIGHTS
        if not os.path.lexists(path):
            raise MolgenError(f"{self.path}: no {WEIGHTS} yet", "let the training finish its first epoch")
        expected = {"vocabulary": self.tokenizer.fingerprint}
        weights = count_parameters(self.config.model, len(self.tokenizer))
        model = load_weights(
            path, lambda: build_model(self.config.model, len(self.tokenizer)), weights, expected, self._follow
        )
        return cast(Decoder, model.to(device).eval())

    @property
    def weights_sha256(self) -> str:
        """Of the weights file: which weights a table was drawn with, or a fine-tuning began with."""
        with self._opened(WEIGHTS) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def save_model(self, model: Decoder) -> None:
        """Replaces the run's weights."""
        save_weights(self.path / WEIGHTS, model, {"vocabulary": self.tokenizer.fingerprint})

    @property
    def report(self) -> dict[str, Any]:
        """What the training reported; empty while it has not finished."""
        if not os.path.lexists(self.path / REPORT):
            return {}
        try:
            # NaN, which earlier versions wrote where one molecule has no standard error, is no JSON
            report = json.loads(self._text(REPORT), parse_constant=lambda _: None)
        except (ValueError, RecursionError) as error:
            raise self._unreadable(REPORT, str(error)) from None
        if not isinstance(report, dict):
            raise self._unreadable(REPORT, "no mapping of names to values")
        return cast(dict[str, Any], report)

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
    def _rebuilt(self) -> dict[str, list[str]]:
        """The SMILES of each split of what it names as its source, read, cleaned and split as the training did it.

        Kept for the next time. Raises MolgenError where they are not the molecules that the run was trained on.
        """
        expected = self.report.get("sha256")
        if expected is None and (self.path / STATE).exists():
            expected = saved_fingerprint(self.path / STATE).get("molecules")
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
            logger.info(f"{self.path.name}: its molecules are cleaned and split again, as in its training; this once")
            pattern = self.tokenizer.splitter.pattern
            dataset = build_dataset(read_source(data), data, self.config.model.context, pattern, shared_workers())
            if dataset.sha256 != expected:
                raise MolgenError(
                    f"{data.source}: does not give the molecules that {self.path.name} was trained on",
                    "restore the file, or name a training set with --train",
                )
            return {split: from_strings(dataset.split(split)) for split in dataset.sizes}

        def read(arrays: Arrays) -> dict[str, list[str]]:
            return {split: to_strings(array) for split, array in arrays.items()}

        # what they are is checked by their hash, so no version of the code matters
        return cached(data_directory() / "cache", "molecules", [str(expected)], build, read)

    @cached_property
    def molecules(self) -> list[Molecule]:
        """The cleaned molecules with their splits. Raises MolgenError for a run that carries none."""
        if not (self.path / MOLECULES).exists():
            raise MolgenError(f"{self.path}: carries no {MOLECULES}", "name its training set with --train")
        return [
            Molecule(smiles, name, self._number(MOLECULES, line, row), self._split_name(line, split))
            for line, (smiles, name, row, split) in self._table(MOLECULES, Molecule._fields)
        ]

    @cached_property
    def dropped(self) -> list[Dropped]:
        """The account of every row that was dropped or altered."""
        return [
            Dropped(self._number(DROPPED, line, row), *others)
            for line, (row, *others) in self._table(DROPPED, Dropped._fields)
        ]

    def check_log(self) -> None:
        """Reads log.csv, if there is one, so that damage is said before anything else is."""
        if os.path.lexists(self.path / LOG):
            self.log()

    def check_molecules(self) -> None:
        """Reads the molecules that it carries, if it does, so that damage is said before anything else is."""
        if os.path.lexists(self.path / MOLECULES):
            _ = self.molecules

    def split(self, name: str) -> list[str]:
        """The SMILES of one split, from the run or from the dataset or file that it names.

        Raises MolgenError where they cannot be had.
        """
        if self.names_its_source:
            if reason := self.lacks(name):
                raise MolgenError(reason, "name its training set with --train")
            return self._rebuilt.get(name, [])
        if self.names_its_file:
            return self.corpus_file.strings(name)
        return [m.smiles for m in self.molecules if m.split == name]

    def spread(self, name: str, about: int) -> list[str]:
        """Evenly spaced SMILES of a split, less than twice so many."""
        if self.names_its_file:
            return self.corpus_file.spread(name, about)
        smiles = self.split(name)
        return smiles[:: max(1, len(smiles) // about)]

    def _opened(self, name: str) -> io.BufferedReader:
        try:
            return opened(self.path / name, self._follow)
        except OSError as error:
            raise self._unreadable(name, error.strerror or str(error)) from None

    def _text(self, name: str) -> str:
        """What a small file holds."""
        try:
            return content_of(self.path / name, _MOST_BYTES[name], self._follow).decode()
        except OSError as error:
            raise self._unreadable(name, error.strerror or str(error)) from None
        except UnicodeDecodeError as error:
            raise self._unreadable(name, str(error)) from None

    def _table(self, name: str, columns: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
        """The rows of a gzipped table of these columns, each with the line that it ends on."""
        try:
            with self._opened(name) as file, gzip.open(file, "rt", encoding="utf-8", newline="") as lines:
                table = csv.reader(_bounded(cast(TextIO, lines)), strict=True)
                if (heading := next(table, [])) != list(columns):
                    raise self._unreadable(name, f"its first line is no {','.join(columns)}")
                for row in table:
                    if row and len(row) != len(heading):
                        raise self._unreadable(name, f"line {table.line_num} has {len(row)} cells, not {len(heading)}")
                    if row:
                        yield table.line_num, row
        except (OSError, UnicodeDecodeError, EOFError, zlib.error, csv.Error) as error:
            raise self._unreadable(name, str(error)) from None

    def _number(self, name: str, line: int, cell: str) -> int:
        if not (cell.isascii() and cell.isdigit() and len(cell) < 19):
            raise self._unreadable(name, f"line {line}: row {cell[:40]!r} is no number")
        return int(cell)

    def _split_name(self, line: int, cell: str) -> str:
        if cell not in SPLITS:
            raise self._unreadable(MOLECULES, f"line {line}: {cell[:40]!r} is no split, which are {', '.join(SPLITS)}")
        return cell

    def _unreadable(self, name: str, why: str) -> MolgenError:
        return MolgenError(f"{self.path / name}: cannot be read: {why}", "restore the file, or train again")

    def log(self) -> list[dict[str, float]]:
        """The rows of log.csv, one per epoch."""
        try:
            lines = io.StringIO(self._text(LOG), newline="")
            table = csv.DictReader(lines)
            if missing := [key for key in LOG_COLUMNS if key not in (table.fieldnames or ())]:
                raise ValueError(f"no column {missing[0]} in its first line")
            return [{key: float(row[key]) for key in LOG_COLUMNS} for row in table]
        except (ValueError, KeyError, TypeError, csv.Error) as error:
            raise self._unreadable(LOG, str(error)) from None

    def write_log(self, rows: Iterable[dict[str, float]]) -> None:
        """Replaces log.csv."""
        text = io.StringIO()
        table = csv.DictWriter(text, LOG_COLUMNS, lineterminator="\n")
        table.writeheader()
        table.writerows({key: f"{value:.6g}" for key, value in row.items()} for row in rows)
        write_atomically(self.path / LOG, text.getvalue().encode())

    def write_report(self, report: dict[str, Any], card: str) -> None:
        """Writes the model card, then report.json, which says that the training has finished."""
        write_atomically(self.path / CARD, card.encode("utf-8", "backslashreplace"))
        write_atomically(self.path / REPORT, (json.dumps(report, indent=1, allow_nan=False) + "\n").encode())


def _bounded(lines: TextIO) -> Iterator[str]:
    """The lines of a text. Raises csv.Error for one that fills the memory."""
    while line := lines.readline(_LONGEST_LINE):
        if len(line) == _LONGEST_LINE:
            raise csv.Error(f"a line longer than {_LONGEST_LINE:,} characters")
        yield line


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
                logger.info(f"{path}: cannot be locked ({error.strerror}): start no second training in it")
        for name in FILES:
            for part in path.iterdir():
                if part.name.startswith(f".{name}") and _LEFT_BY_A_KILL.fullmatch(part.name[1 + len(name) :]):
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
    weights = count_parameters(config.model, len(tokenizer))
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
    return next((place for place in places if os.path.isdir(place)), None)  # noqa: PTH112 - no error for any name


def find_run(name: str | None) -> Run:
    """The run of a name or a path; without one the newest under runs/ that has weights."""
    if name is not None:
        return Run(run_directory(name) or Path(name))
    found = sorted(FOLDER.glob(f"*/{WEIGHTS}"), key=lambda p: p.lstat().st_mtime)
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
    return max(found, key=lambda p: p.lstat().st_mtime).parent
