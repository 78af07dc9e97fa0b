"""A run directory: the files of a training, which sampling and evaluation read. Nothing in it can execute code."""

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
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TextIO, cast

import torch

from molgen.checkpoint import load_converted, load_weights, save_weights, saved_fingerprint
from molgen.chem.pool import shared_workers
from molgen.config import Config, parse_yaml, saved, to_yaml, validate
from molgen.data.conditions import ConditionTable, condition_names, load_conditions
from molgen.data.dataset import Dropped, Molecule, build_dataset, columns_of
from molgen.data.download import data_directory, is_here
from molgen.data.encoded_file import CorpusFile, named_corpus
from molgen.data.labels import Label, Labels, label_columns
from molgen.data.parents import KnownParents, load_parents
from molgen.data.sources import read_source
from molgen.data.splitting import SPLITS
from molgen.data.targets import target_name
from molgen.errors import MolgenError
from molgen.model.build import build_model, count_parameters
from molgen.model.decoder import Decoder
from molgen.model.stock import from_stock
from molgen.runtime.cache import Arrays, cached, from_strings, to_strings
from molgen.runtime.files import content_of, opened, write_atomically, write_table
from molgen.tokenizer import MOST_BYTES, SmilesTokenizer

try:
    import fcntl
except ImportError:  # Windows: run directories are not locked
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

FOLDER = Path("runs")
SHIPPED = Path(__file__).parent / "assets" / "shipped"
"""The runs that are part of the package, without their molecules."""
CONFIG, TOKENIZER, WEIGHTS, STATE = "config.yaml", "tokenizer.json", "model.safetensors", "state.safetensors"
LOG, CURVES, REPORT, CARD = "log.csv", "curves.png", "report.json", "README.md"
MOLECULES, DROPPED, PARENTS = "molecules.csv.gz", "dropped.csv.gz", "parents.safetensors"
CONDITIONS = "conditions.safetensors"
"""Of a run with conditions: their scales, and the values of its training and validation molecules."""
LABELS, PREDICTORS = "labels.csv.gz", "predictors.safetensors"
"""Of a run with targets: the measured values, and what predicts them beside the model."""
OPTIMIZE, SCORED, ROUNDS = "optimize.yaml", "scored.csv", "rounds.csv"
"""Files of an optimisation: its settings, every scored molecule, the figures of each round."""
SHORTLIST, SHORTLIST_SDF, SHORTLIST_PAGE = "shortlist.csv", "shortlist.sdf", "shortlist.html"
EXPORTED = "config.json"
"""In place of config.yaml and tokenizer.json, a folder of `molgen export` has this file, with both under `molgen`."""
FILES = (
    *(CONFIG, TOKENIZER, WEIGHTS, STATE, LOG, CURVES, REPORT, CARD, MOLECULES, DROPPED, PARENTS, LABELS, PREDICTORS),
    CONDITIONS,
    *(OPTIMIZE, SCORED, ROUNDS, SHORTLIST, SHORTLIST_SDF, SHORTLIST_PAGE),
)
LOG_COLUMNS = ("step", "epoch", "train_nll", "val_nll", "val_top1", "lr", "tokens_per_second", "seconds")
JOINT_COLUMNS = ("val_error", "val_nll_given")
"""Further columns of the log. With targets: the mean loss of the predictions on validation. With conditions: the mean
NLL of the validation molecules given all their known values."""
MOST_COPIED = 500_000
"""A named dataset of more molecules is recorded by its name and hash instead of being copied into the run."""
# 4 bytes each for the weights, their average, two moments and the best weights; twice while a file is replaced.
_BYTES_PER_WEIGHT = 4 * 2 * (4 + 1)
_BYTES_PER_MOLECULE = 100
# Size limits of a run's files, far above what a training writes: a larger file was not written by one.
_MOST_BYTES = {CONFIG: 2**20, TOKENIZER: MOST_BYTES, EXPORTED: MOST_BYTES, REPORT: 2**24, LOG: 2**28}
_LONGEST_LINE = 2**20
_LEFT_BY_A_KILL = re.compile(r"\.[0-9a-f]{8}(\.part)?")


class Run:
    """A run directory, or a folder of `molgen export`, opened for reading.

    Raises MolgenError if it is neither, or if one of its files is damaged.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        own = os.path.lexists(self.path / CONFIG)
        self.is_exported = not own and os.path.lexists(self.path / EXPORTED)
        """Whether it is a folder of `molgen export`."""
        self._follow = self.is_exported or SHIPPED in self.path.absolute().parents
        """Whether its files may be links: some installers and the hub's client link files to their own cache."""
        if not own and not self.is_exported:
            raise MolgenError(
                f"{self.path}: not a run directory (no {CONFIG})", "give a directory that `molgen train` made"
            )

    @cached_property
    def config(self) -> Config:
        """The resolved configuration."""
        if self.is_exported:
            return validate(saved(self._exported.get("config")), str(self.path / EXPORTED))
        name = str(self.path / CONFIG)
        return validate(saved(parse_yaml(self._text(CONFIG), name)), name)

    @cached_property
    def tokenizer(self) -> SmilesTokenizer:
        """The run's vocabulary."""
        name = EXPORTED if self.is_exported else TOKENIZER
        try:
            exported = json.dumps(self._exported.get("tokenizer")) if self.is_exported else ""
            return SmilesTokenizer.of_json(exported or self._text(TOKENIZER))
        except ValueError as error:
            raise MolgenError(
                f"{self.path / name}: not a tokenizer file: {error}", "train again, or restore the file"
            ) from None

    @cached_property
    def _exported(self) -> dict[str, Any]:
        """The part of an exported folder's config.json that is ours."""
        try:
            ours = json.loads(self._text(EXPORTED)).get("molgen")
        except (ValueError, AttributeError, RecursionError) as error:
            raise self._unreadable(EXPORTED, str(error)) from None
        if not isinstance(ours, dict):
            raise MolgenError(
                f"{self.path}: a Hugging Face model that `molgen export` did not make", "give a run or such a folder"
            )
        return cast(dict[str, Any], ours)

    def model(self, device: torch.device) -> Decoder:
        """The decoder with the best weights, in evaluation mode. Raises MolgenError if there are no valid weights."""
        path = self.path / WEIGHTS
        if not os.path.lexists(path):
            raise MolgenError(f"{self.path}: no {WEIGHTS} yet", "let the training finish its first epoch")
        config, vocabulary, outputs = self.config.model, len(self.tokenizer), len(self.config.data.targets)
        conditions = len(self.conditions)
        weights = count_parameters(config, vocabulary, outputs, conditions)
        build = partial(build_model, config, vocabulary, outputs=outputs, conditions=conditions)
        if self.is_exported:
            model = load_converted(path, build, weights, partial(from_stock, config=config), self._follow)
        else:
            expected = {"vocabulary": self.tokenizer.fingerprint}
            model = load_weights(path, build, weights, expected, self._follow)
        decoder = cast(Decoder, model.to(device).eval())
        return self.under_condition(decoder, self.config.data.given) if self.config.data.given else decoder

    def under_condition(self, model: Decoder, text: str) -> Decoder:
        """The run's model given the values that a text asks for, such as `logp = 2.5, pIC50 = 8`.

        Raises MolgenError for a text that asks for what the run does not know.
        """
        values, sides = (torch.from_numpy(a) for a in self.condition_table.arrays(self.condition_table.parse(text)))
        device = model.embedding.weight.device
        return model.given(values.to(device), sides.to(device))

    @property
    def conditions(self) -> tuple[str, ...]:
        """The names of what it can be asked for; empty for a run without conditions."""
        return condition_names(self.config)

    @cached_property
    def condition_table(self) -> ConditionTable:
        """What it can be asked for. Raises MolgenError for a run without conditions, and for a damaged file."""
        if not self.conditions:
            raise MolgenError(f"{self.path}: has no conditions", "train with --condition COLUMN")
        return load_conditions(self.path / CONDITIONS, self.conditions)

    @property
    def weights_sha256(self) -> str:
        """SHA-256 of the weights file, to record which weights were used for samples or for a fine-tuning."""
        with self._opened(WEIGHTS) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def save_model(self, model: Decoder) -> None:
        """Replaces the run's weights."""
        save_weights(self.path / WEIGHTS, model, {"vocabulary": self.tokenizer.fingerprint})

    @property
    def report(self) -> dict[str, Any]:
        """The content of report.json; empty until the training has finished."""
        if not os.path.lexists(self.path / REPORT):
            return {}
        try:
            # earlier versions wrote NaN, which is not JSON, for the standard error of a single molecule
            report = json.loads(self._text(REPORT), parse_constant=lambda _: None)
        except (ValueError, RecursionError) as error:
            raise self._unreadable(REPORT, str(error)) from None
        if not isinstance(report, dict):
            raise self._unreadable(REPORT, "no mapping of names to values")
        return cast(dict[str, Any], report)

    @property
    def has_molecules(self) -> bool:
        """Whether its training molecules are available, from the run or from the source that it names."""
        return not self.lacks("train")

    def lacks(self, split: str) -> str:
        """Why the molecules of a split are not available; empty if they are.

        If the run only names its source, this reads, cleans and splits the source again, which takes minutes the first
        time.
        """
        if (self.path / MOLECULES).exists():
            return ""
        if not self.names_its_source and not self.names_its_file:
            return "the run carries no molecules"
        if self.names_its_source and self.config.data.named and self._not_here:
            return self.elsewhere  # nothing is downloaded unless the user asks for it
        try:
            if self.names_its_file:
                return self.corpus_file.lacks(split)
            _ = self._rebuilt
        except MolgenError as error:
            return error.message
        return ""

    @property
    def origin(self) -> str:
        """The dataset or file that its molecules came from; for an encoded file, the source that was encoded."""
        return str(self.report.get("encoded_from") or self.config.data.source)

    @property
    def names_its_source(self) -> bool:
        """Whether the run has only the name of its source, because there were too many molecules to copy."""
        if (self.path / MOLECULES).exists() or self.config.data.sha256 is not None:
            return False
        return self.config.data.source == "moses" or sum(self.report.get("sizes", {}).values()) > MOST_COPIED

    @property
    def _not_here(self) -> list[str]:
        """The named datasets from which its molecules are made, those left out too, that have not been fetched."""
        return [name for name in self.config.data.inputs if not is_here(name)]

    @property
    def elsewhere(self) -> str:
        """A hint how to compare with the molecules of a run that names its source; empty for other runs."""
        if not self.names_its_source:
            return ""
        if self.config.data.sources is not None and (names := self._not_here):
            return f"the run carries no molecules: they can be made again after `molgen data get` of {', '.join(names)}"
        train = " --train moses" if self.origin == "moses" else ""
        what = "MOSES" if train else "those of its source"
        return f"the run carries no molecules: `molgen eval {self.path.name}{train}` compares with {what}"

    @property
    def names_its_file(self) -> bool:
        """Whether the run has only the name of an encoded file in place of its molecules."""
        return not (self.path / MOLECULES).exists() and self.config.data.sha256 is not None

    @cached_property
    def corpus_file(self) -> CorpusFile:
        """The encoded file that it names. Raises MolgenError if the file no longer exists or has changed."""
        errors = []
        for path in self._source_paths():
            try:
                return named_corpus(self.config.data.model_copy(update={"source": str(path)}))
            except MolgenError as error:
                errors.append(error)
        raise errors[0]

    def _source_paths(self) -> list[Path]:
        """Possible paths of the source file: as named, or, for older or moved runs, relative to the run's folders."""
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
        """The SMILES of each split of the named source, read, cleaned and split as in the training.

        The result is cached. Raises MolgenError if they are not the molecules that the run was trained on.
        """
        expected = self.report.get("sha256")
        if expected is None and (self.path / STATE).exists():
            expected = saved_fingerprint(self.path / STATE).get("molecules")
        if expected is None:
            raise MolgenError(f"{self.path}: its training molecules are not known", "name some with --train")

        def build() -> Arrays:
            data = self.config.data
            if not data.named:
                path = next((path for path in self._source_paths() if path.is_file()), None)
                if path is None:
                    raise MolgenError(
                        f"{data.source}: does not exist, but {self.path.name} was trained on it",
                        "restore the file, or name a training set with --train",
                    )
                data = data.model_copy(update={"source": str(path)})
            logger.info(f"{self.path.name}: cleaning and splitting its molecules again as in its training, only once")
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

        # the hash of the molecules is the key, so the version of the code is not part of it
        return cached(data_directory() / "cache", "molecules", [str(expected)], build, read)

    @cached_property
    def molecules(self) -> list[Molecule]:
        """The cleaned molecules with their splits. Raises MolgenError if the run does not contain them."""
        if not (self.path / MOLECULES).exists():
            raise MolgenError(f"{self.path}: carries no {MOLECULES}", "name its training set with --train")
        return [
            Molecule(smiles, name, self._number(MOLECULES, line, row), self._split_name(line, split), *source)
            for line, (smiles, name, row, split, *source) in self._table(
                MOLECULES, columns_of(Molecule, self.config.data)
            )
        ]

    @cached_property
    def targets(self) -> tuple[str, ...]:
        """The names of what it predicts, in the order of the model's outputs; empty for a run without targets."""
        return tuple(target_name(text) for text in self.config.data.targets)

    @cached_property
    def labels(self) -> Labels:
        """The measured values of its molecules. Raises MolgenError if there are none, or the file is damaged."""
        if not os.path.lexists(self.path / LABELS):
            raise MolgenError(f"{self.path}: carries no {LABELS}", "train on a table, with --target COLUMN")
        found = {}
        for line, (smiles, *cells) in self._table(LABELS, label_columns(self.targets)):
            try:
                found[smiles] = tuple(Label.of_cells(cells[i : i + 5]) for i in range(0, len(cells), 5))
            except ValueError:
                raise self._unreadable(LABELS, f"line {line} has no label") from None
        return found

    @cached_property
    def parents(self) -> KnownParents | None:
        """Keys of the training molecules' parents; None if the run has no such file.

        Only a shipped run has one. Raises MolgenError for a damaged file.
        """
        path = self.path / PARENTS
        return load_parents(path, self._follow) if os.path.lexists(path) else None

    @cached_property
    def dropped(self) -> list[Dropped]:
        """Every row that was dropped or changed."""
        return [
            Dropped(self._number(DROPPED, line, row), *others)
            for line, (row, *others) in self._table(DROPPED, columns_of(Dropped, self.config.data))
        ]

    def check_log(self) -> None:
        """Reads log.csv, if it exists, to report damage early. Raises MolgenError for a damaged file."""
        if os.path.lexists(self.path / LOG):
            self.log()

    def check_molecules(self) -> None:
        """Reads the molecules, if the run contains them, to report damage early. Raises MolgenError for damage."""
        if os.path.lexists(self.path / MOLECULES):
            _ = self.molecules

    def split(self, name: str) -> list[str]:
        """The SMILES of one split, from the run or from the dataset or file that it names.

        Raises MolgenError if they are not available.
        """
        if self.names_its_source:
            if reason := self.lacks(name):
                raise MolgenError(reason, "name its training set with --train")
            return self._rebuilt.get(name, [])
        if self.names_its_file:
            return self.corpus_file.strings(name)
        return [m.smiles for m in self.molecules if m.split == name]

    def spread(self, name: str, about: int) -> list[str]:
        """Evenly spaced SMILES of a split, less than twice as many as `about`."""
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
        """The content of a small file. Raises MolgenError if it cannot be read."""
        try:
            return content_of(self.path / name, _MOST_BYTES[name], self._follow).decode()
        except OSError as error:
            raise self._unreadable(name, error.strerror or str(error)) from None
        except UnicodeDecodeError as error:
            raise self._unreadable(name, str(error)) from None

    def _table(self, name: str, columns: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
        """(number of its last line, cells) of each row of a gzipped table with these columns."""
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
        """The rows of log.csv, one per epoch. Raises MolgenError for a damaged file."""
        try:
            lines = io.StringIO(self._text(LOG), newline="")
            table = csv.DictReader(lines)
            if missing := [key for key in LOG_COLUMNS if key not in (table.fieldnames or ())]:
                raise ValueError(f"no column {missing[0]} in its first line")
            columns = [*LOG_COLUMNS, *(key for key in JOINT_COLUMNS if key in (table.fieldnames or ()))]
            return [{key: float(row[key]) for key in columns} for row in table]
        except (ValueError, KeyError, TypeError, csv.Error) as error:
            raise self._unreadable(LOG, str(error)) from None

    def write_log(self, rows: Iterable[dict[str, float]]) -> None:
        """Replaces log.csv."""
        text, rows = io.StringIO(), list(rows)
        columns = [*LOG_COLUMNS, *(key for key in JOINT_COLUMNS if rows and key in rows[0])]
        table = csv.DictWriter(text, columns, lineterminator="\n")
        table.writeheader()
        table.writerows({key: f"{value:.6g}" for key, value in row.items()} for row in rows)
        write_atomically(self.path / LOG, text.getvalue().encode())

    def write_report(self, report: dict[str, Any], card: str) -> None:
        """Writes the model card, then report.json, whose existence means that the training has finished."""
        write_atomically(self.path / CARD, card.encode("utf-8", "backslashreplace"))
        write_atomically(self.path / REPORT, (json.dumps(report, indent=1, allow_nan=False) + "\n").encode())


def _bounded(lines: TextIO) -> Iterator[str]:
    """The lines of a text. Raises csv.Error for a line that is too long."""
    while line := lines.readline(_LONGEST_LINE):
        if len(line) == _LONGEST_LINE:
            raise csv.Error(f"a line longer than {_LONGEST_LINE:,} characters")
        yield line


@contextmanager
def at_work(path: Path) -> Iterator[None]:
    """Creates a run directory if necessary, and locks it against other trainings during the block.

    It is a lock of the kernel: it ends with the process and leaves no file. Temporary files of killed writers are
    deleted, and also the directory if it is empty at the end.
    Raises MolgenError if another training uses the directory.
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
                    f"{path}: another training is at work in it", "wait until it ends, or choose another --out"
                ) from None
            except OSError as error:  # some network file systems have no locks
                logger.info(f"{path}: cannot be locked ({error.strerror}): do not start a second training in it")
        for name in FILES:
            for part in path.iterdir():
                if part.name.startswith(f".{name}") and _LEFT_BY_A_KILL.fullmatch(part.name[1 + len(name) :]):
                    part.unlink(missing_ok=True)
        try:
            yield
        finally:
            with suppress(OSError):  # stops at the first folder that is not empty
                for folder in made:
                    folder.rmdir()


def create_run(
    path: Path,
    config: Config,
    tokenizer: SmilesTokenizer,
    molecules: Sequence[Molecule] | None,
    dropped: Sequence[Dropped] | None,
    labels: Labels | None = None,
) -> Run:
    """Writes the files that are known before the first step: configuration, tokenizer, molecules, dropped rows, labels.

    With None for molecules or dropped rows, the run does not contain them. Large named datasets are not copied either.
    Files are always copied, because they may change, and fine-tuning data too, because the removal of molecules that
    the first run trained on could not be repeated without that run.
    Raises MolgenError if the disk has not enough free space for the run.
    """
    path.mkdir(parents=True, exist_ok=True)
    named = config.data.named and config.training.init is None and not labels
    copied = molecules is not None and (len(molecules) <= MOST_COPIED or not named)
    weights = count_parameters(config.model, len(tokenizer))
    need = _BYTES_PER_WEIGHT * weights + _BYTES_PER_MOLECULE * (len(molecules or ()) if copied else 0)
    if (free := shutil.disk_usage(path).free) < need:
        raise MolgenError(
            f"{path}: {free / 2**20:,.0f} MiB are free, the run needs up to {need / 2**20:,.0f}",
            "free some space, or choose another --out",
        )
    for old in set(FILES) - {CONFIG, TOKENIZER}:
        (path / old).unlink(missing_ok=True)
    write_atomically(path / TOKENIZER, tokenizer.to_json().encode())
    if molecules is not None and copied:
        columns = columns_of(Molecule, config.data)
        write_table(path / MOLECULES, columns, (molecule[: len(columns)] for molecule in molecules))
    if dropped is not None:
        columns = columns_of(Dropped, config.data)
        write_table(path / DROPPED, columns, (row[: len(columns)] for row in dropped))
    if labels:
        columns = label_columns([target_name(text) for text in config.data.targets])
        rows = ([smiles, *(cell for label in own for cell in label.cells)] for smiles, own in labels.items())
        write_table(path / LABELS, columns, rows)
    write_atomically(path / CONFIG, to_yaml(config).encode())
    return Run(path)


def run_directory(name: str) -> Path | None:
    """The directory for a run's name: a path, else one under runs/, else one in the package; None if none exists."""
    paths = [Path(name)] if "/" in name else [Path(name), FOLDER / name, SHIPPED / name]
    return next((path for path in paths if os.path.isdir(path)), None)  # noqa: PTH112 - no error for any name


def find_run(name: str | None) -> Run:
    """The run with a name or path; by default the newest under runs/ that has weights.

    Raises MolgenError if there is none.
    """
    if name is not None:
        return Run(run_directory(name) or Path(name))
    found = sorted(FOLDER.glob(f"*/{WEIGHTS}"), key=lambda p: p.lstat().st_mtime)
    if not found:
        raise MolgenError(
            f"no run yet under {FOLDER}/",
            "take one that comes with molgen, `druglike` or `moses-small`, or `molgen train moses-mini` (2 minutes)",
        )
    return Run(found[-1].parent)


def newest_unfinished() -> Path:
    """The default run for `--resume`: the newest under runs/ without a report. Raises MolgenError if there is none."""
    found = [p for p in FOLDER.glob(f"*/{STATE}") if not (p.parent / REPORT).exists()]
    if not found:
        raise MolgenError(f"no unfinished run under {FOLDER}/", "name one with --out, or train without --resume")
    return max(found, key=lambda p: p.lstat().st_mtime).parent
