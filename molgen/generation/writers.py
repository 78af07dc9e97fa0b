"""Samples → stdout, a .smi, .csv or .sdf file, a picture, and what sums them up: one line, one .meta.json file."""

import csv
import io
import json
import logging
import secrets
import shutil
import sys
import time
from base64 import b64decode
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import TextIO, cast

import numpy as np
from tqdm import tqdm

from molgen._version import __version__
from molgen.chem.draw import DRAWINGS, draw_grid
from molgen.errors import MolgenError
from molgen.generation.generator import BYTES_PER_SAMPLE, MoleculeGenerator
from molgen.generation.options import SampleOptions
from molgen.generation.rejection import REASONS, Sample, SampleStream, SamplingStats
from molgen.generation.sample_table import SampleTable
from molgen.machine import Runtime
from molgen.metrics.similarity import max_min
from molgen.runtime.device import check_memory
from molgen.runtime.distributed import SINGLE_PROCESS, ProcessGroup
from molgen.runtime.files import beside, created, opened, replacing, write_atomically
from molgen.runtime.hashing import Keys, keys_of
from molgen.runtime.log import duration, progress_disabled
from molgen.runtime.signals import TerminatedError, signals_held

logger = logging.getLogger(__name__)

_DRAWN = 30
_SECONDS_BEFORE_FORECAST = 10.0
_WORTH_SAYING = 2**30
_MOST_KEYS = 10_000_000
_BYTES_REMEMBERED = 200  # of a string and its number in a dictionary
_BYTES = 128  # of a fingerprint of 1,024 bits
_FORMATS = (".smi", ".csv", ".sdf")
_TABLES = (".csv", ".sdf")
_REJECTED = {
    "valid": "invalid",
    "where": "by --where",
    "smarts": "by --smarts",
    "not_smarts": "by --not-smarts",
    "no_alerts": "by --no-alerts",
    "novel": "known from training",
    "unique": "drawn before",
}


@dataclass
class Written:
    """What a summary needs of samples that are no longer held, in at most 80 MB."""

    rows: int = 0
    valid: int = 0
    keys: list[Keys] = field(default_factory=list)
    """A number for the canonical SMILES of each valid sample, batch by batch, of the first ten million."""
    drawable: list[str] = field(default_factory=list)
    """The first valid ones."""
    _compared: int = 0

    def add(self, batch: list[Sample]) -> None:
        """Takes note of samples."""
        valid = [sample for sample in batch if sample.canonical]
        self.rows += len(batch)
        self.valid += len(valid)
        room = _MOST_KEYS - self._compared
        self.keys.append(keys_of(sample.canonical or "" for sample in valid[:room]))
        self._compared += len(self.keys[-1])
        self.drawable += [sample.smiles for sample in valid[: _DRAWN - len(self.drawable)]]

    def gathered(self, group: ProcessGroup) -> "Written":
        """The same of all processes together."""
        keys = group.all_gather(np.concatenate([np.empty(0, np.uint64), *self.keys]).view(np.int64)).view(np.uint64)
        drawable = _gathered_text("".join(f"{smiles}\n" for smiles in self.drawable), group).split()
        rows, valid = group.all_reduce_sum(np.array([self.rows, self.valid])).tolist()
        return Written(rows, valid, [keys], drawable[:_DRAWN])


@dataclass(frozen=True)
class SampleTargets:
    """Where samples go. Raises MolgenError for a file name whose suffix says no format that can be written."""

    output: Path | None = None
    """A .smi, .csv or .sdf file; None: stdout."""
    grid: Path | None = None
    """A picture of the first valid ones."""
    columns: str | None = None
    """Of a table: a comma-separated list, or `all`; None: the cheap ones."""
    diverse: int | None = None
    """Only so many, those that differ most."""

    def __post_init__(self) -> None:
        if self.output is not None and self.output.suffix not in _FORMATS:
            raise MolgenError(f"{self.output}: unknown kind of file", f"use {', '.join(_FORMATS)}")
        if self.columns is not None and self.table is None:
            raise MolgenError("--columns: only a table has columns", f"name one with -o: {' or '.join(_TABLES)}")
        if self.grid is not None and self.grid.suffix not in DRAWINGS:
            raise MolgenError(f"{self.grid}: cannot draw into this format", f"use {' or '.join(DRAWINGS)}")

    @property
    def table(self) -> Path | None:
        """The output, if it is a table."""
        return self.output if self.output is not None and self.output.suffix in _TABLES else None

    @property
    def meta(self) -> Path | None:
        """Where the account of a table goes, beside it."""
        return None if self.table is None else self.table.with_suffix(".meta.json")


def sample_into(generator: MoleculeGenerator, options: SampleOptions, targets: SampleTargets, command: str) -> None:
    """Draws samples and writes them, their picture and their account; sums them up on one line of the log.

    Raises RuntimeError, after all that, where rejection gave up.
    """
    group = generator.runtime.group
    stream = generator.stream(options)
    if targets.diverse is not None:
        stream = pick_diverse(stream, targets.diverse, generator.runtime)
    table = None
    if targets.table is not None:
        table = SampleTable(targets.columns, generator, targets.table.suffix == ".sdf")
        if "duplicate_of" in table.columns:
            check_memory(f"-n {options.n:,}: the column duplicate_of", _BYTES_REMEMBERED * options.n)
    written = write_samples(stream, targets.output, targets.grid, group, table)
    if group.is_main:
        if options.prompt and generator.starts_like_training(options.prompt) is False:
            logger.info(
                f"no training molecule begins with {options.prompt}: "
                "the model has not seen what it was asked to go on with"
            )
        logger.info(summary(written, stream.stats, generator))
        if table is not None:
            _write_meta(targets, table.columns, options, command, written, stream.stats, generator)
    check_complete(stream.stats, options.n)


def pick_diverse(stream: SampleStream, k: int, runtime: Runtime) -> SampleStream:
    """Holds all samples, gives back `k` distinct valid ones, by MaxMin, in the order in which they are picked."""
    if runtime.group.size > 1:
        raise MolgenError("--diverse: one process does not know what the others draw", "sample in one process")
    if k < 1:
        raise MolgenError(f"--diverse {k}: out of range", "pick at least one molecule")
    check_memory(f"--diverse: {stream.n:,} molecules", BYTES_PER_SAMPLE * stream.n)

    def picked() -> Iterator[list[Sample]]:
        drawn: list[Sample] = []
        with tqdm(
            total=stream.n, desc="sampling", unit="mol", delay=1, leave=False, disable=progress_disabled()
        ) as bar:
            for batch in stream:
                drawn += batch
                bar.update(len(batch))
        distinct = list({sample.canonical: sample for sample in reversed(drawn) if sample.canonical}.values())[::-1]
        smiles = [sample.smiles for sample in distinct]
        rows = runtime.workers.map("tabulate", smiles, "fingerprints", columns=["fingerprint"])
        known = [(sample, row["fingerprint"]) for sample, row in zip(distinct, rows, strict=True) if row]
        packed = np.frombuffer(b"".join(b64decode(bits) for _, bits in known), np.uint8).reshape(-1, _BYTES)
        picks, closest = max_min(packed, k)
        logger.info(
            f"--diverse: {len(picks):,} of {len(known):,} distinct valid molecules, of {len(drawn):,} kept; "
            f"the two most similar picks have a Tanimoto similarity of {closest:.2f}"
        )
        yield [known[i][0] for i in picks]

    return SampleStream(stream.n, picked(), stream.stats)


def write_samples(
    stream: SampleStream,
    output: Path | None,
    grid: Path | None = None,
    group: ProcessGroup = SINGLE_PROCESS,
    table: SampleTable | None = None,
) -> Written:
    """Writes batch by batch, whole rows only, and sums up what it wrote; the first valid ones become a picture.

    Without `table` one SMILES per line; with it a .csv file of its columns, or a .sdf file of the valid molecules with
    2D coordinates and the columns as fields. Without `output` it goes to stdout.
    Until all rows are in it, or a signal ends the writing, a file is called `.x.smi.########.part`, by eight random
    digits. In a process group each process writes a part of its own; when all are done the main one joins them.
    Raises MolgenError where the disk has no room for all molecules if they are like the first ones.
    """
    n = stream.n
    first = next(stream, [])  # an option that the generator refuses is said before a file is made
    written = Written()
    as_records = output is not None and output.suffix == ".sdf"
    text = _text(first, table, as_records)
    _check_room(output, n, len(first), len(text), group)
    texts = chain([(first, text)], ((batch, _text(batch, table, as_records)) for batch in stream))
    parts = [] if output is None or group.size == 1 else _parts(output, group)
    stopped: BaseException | None = None
    with _destination(output, parts, group) as file:
        if table is not None and not as_records and group.is_main:
            file.write(",".join(table.columns) + "\n")
        try:
            _write_batches(texts, file, written, group.part(n))
        except (KeyboardInterrupt, TerminatedError) as signalled:
            if output is None:
                raise
            stopped = signalled  # what is there becomes the file
    if stopped is not None:
        place = output if group.size == 1 else f"{parts[group.rank]} and its like"
        logger.info(f"stopped; {written.rows:,} of {n:,} molecules are in {place}")
        raise stopped
    if group.size > 1:
        written = written.gathered(group)
        stream.stats.all_reduce(group)
        _put_together(output, parts, file, group)
    if grid is not None and group.is_main:
        drawn = draw_grid(written.drawable, grid)
        logger.info(f"{drawn} molecules drawn into {grid}")
    if as_records and group.is_main and written.valid < written.rows:
        logger.info(f"{written.rows - written.valid:,} invalid ones have no record in {output}")
    return written


def _write_batches(texts: Iterator[tuple[list[Sample], str]], file: TextIO, written: Written, n: int) -> None:
    """Writes (samples, their text) until there are no more; about `n` samples are expected."""
    began, forecast, rows_before = time.monotonic(), False, 0
    with tqdm(total=n, desc="sampling", unit="mol", delay=1, leave=False, disable=progress_disabled()) as bar:
        for batch, text in texts:
            with signals_held():  # rows are written whole
                file.write(text)
                file.flush()
                written.add(batch)
            bar.update(len(batch))
            rows_before = rows_before or len(batch)  # the first batch was drawn before the clock was started
            seconds = time.monotonic() - began
            if written.rows > rows_before and not forecast and seconds > _SECONDS_BEFORE_FORECAST:
                forecast, rate = True, (written.rows - rows_before) / seconds
                logger.info(f"about {duration(n / rate)} for {n:,} molecules at this speed")


def check_complete(stats: SamplingStats, n: int) -> None:
    """Raises RuntimeError where rejection gave up; what was kept has been written by then."""
    if stats.gave_up:
        raise RuntimeError(
            f"fewer than 1 in 1,000 of the last 10,000 draws was kept: {stats.kept} of {n}{_rejections(stats)}"
        )


def summary(written: Written, stats: SamplingStats, generator: MoleculeGenerator) -> str:
    """One line about samples just written: draws, what each filter cost, validity, uniqueness, novelty."""
    compared = sum(map(len, written.keys))
    distinct = np.unique(np.concatenate(written.keys))
    figures = {"validity": written.valid / written.rows} if written.rows else {}
    run = generator.run
    unknown = (
        (run.elsewhere or run.lacks("train")) if run else ""
    )  # to read a million and a half takes longer than to draw
    if len(distinct):
        figures["uniqueness"] = len(distinct) / compared
        if run and not unknown:
            figures["novelty"] = float(np.isin(distinct, keys_of(generator.training_set()), invert=True).mean())
    shown = ", ".join(f"{name} {value:.3f}" for name, value in figures.items())
    draws = f" of {stats.draws:,} draws" if stats.draws != written.rows else ""
    unfinished = f", {stats.unfinished} unfinished" if stats.unfinished else ""
    without = f"; no novelty: {unknown}" if unknown else ""
    few = f" (uniqueness and novelty of the first {compared:,} valid ones)" if compared < written.valid else ""
    return f"{written.rows:,} molecules{draws}: {shown}{few}{unfinished}{_rejections(stats)}{without}"


def _rejections(stats: SamplingStats) -> str:
    counted = [f"{stats.rejected[name]:,} {_REJECTED[name]}" for name in REASONS if stats.rejected[name]]
    return f"; rejected: {', '.join(counted)}" if counted else ""


def _write_meta(
    targets: SampleTargets,
    columns: Sequence[str],
    options: SampleOptions,
    command: str,
    written: Written,
    stats: SamplingStats,
    generator: MoleculeGenerator,
) -> None:
    """What it takes to draw a table again, and what each filter cost: `x.meta.json` beside `x.csv` or `x.sdf`."""
    assert targets.meta is not None
    run, rules = generator.run, options.rules
    account = {
        "command": command,
        "run": str(run.path) if run else None,
        "weights_sha256": run.weights_sha256 if run else None,
        "n": options.n,
        "seed": options.seed,
        **options.params._asdict(),
        "prompt": options.prompt,
        "batch_size": options.batch_size,
        "filters": {"valid": rules.valid, "unique": rules.unique, "novel": rules.novel, **rules.filter._asdict()},
        "diverse": targets.diverse,
        "columns": columns,
        "device": str(generator.device),
        "rows": written.rows,
        "valid": written.valid,
        "draws": stats.draws,
        "kept": stats.kept,
        "unfinished": stats.unfinished,
        "rejected": {name: stats.rejected[name] for name in REASONS},
        "versions": {"molgen": __version__, **{name: version(name) for name in ("torch", "rdkit", "numpy")}},
    }
    write_atomically(targets.meta, (json.dumps(account, indent=1, allow_nan=False) + "\n").encode())


def _record(row: dict[str, str]) -> str:
    """A row as a record of an SD file; a title would be the place of a name, which a new molecule has none of."""
    fields = "".join(f">  <{name}>\n{value}\n\n" for name, value in row.items() if name != "molblock" and value)
    return f"{row['molblock']}{fields}$$$$\n"


def _text(batch: list[Sample], table: SampleTable | None, as_records: bool) -> str:
    """Samples as a file has them."""
    if table is None:
        return "".join(f"{sample.smiles}\n" for sample in batch)
    rows = table.rows(batch)
    if as_records:
        return "".join(_record(row) for row in rows if row["molblock"])
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(row.values() for row in rows)
    return text.getvalue()


def _check_room(output: Path | None, n: int, rows: int, size: int, group: ProcessGroup) -> None:
    """Says how large much output gets, and raises MolgenError where the disk cannot take it; `rows` have this size."""
    need = n * size // rows if rows else 0
    if output is not None and need > (free := shutil.disk_usage(output.parent).free):
        raise MolgenError(
            f"{output}: {n:,} molecules take about {_size(need)}, {_size(free)} are free",
            "ask for fewer with -n, or write to another disk",
        )
    if output is None and group.size > 1:
        check_memory(f"{n:,} molecules of several processes on stdout", 2 * need)
    if need > _WORTH_SAYING:
        logger.info(f"{n:,} molecules: about {_size(need)} in all")


def _size(length: int) -> str:
    """A number of bytes as a person says it."""
    unit, name = next(((2**k, name) for k, name in ((40, "TiB"), (30, "GiB")) if length >= 2**k), (2**20, "MiB"))
    return f"{length / unit:,.1f} {name}"


def _parts(output: Path, group: ProcessGroup) -> list[Path]:
    """New names beside a file, one for each process, which all of them know."""
    token = group.broadcast_str(secrets.token_hex(4))
    return [beside(output, f"{token}.{rank}.part") for rank in range(group.size)]


@contextmanager
def _destination(output: Path | None, parts: Sequence[Path], group: ProcessGroup) -> Iterator[TextIO]:
    """Where this process writes: stdout, the file, or in a team its part of it, which after a fault is removed."""
    if output is None:
        yield sys.stdout if group.size == 1 else io.StringIO()
        return
    with ExitStack() as stack:
        binary = stack.enter_context(replacing(output) if group.size == 1 else created(parts[group.rank]))
        text = io.TextIOWrapper(binary, encoding="utf-8", newline="")
        try:
            yield text
            text.flush()
        except BaseException:
            if parts:
                parts[group.rank].unlink(missing_ok=True)
            raise
        finally:
            with suppress(OSError):
                text.detach()


def _put_together(output: Path | None, parts: Sequence[Path], file: TextIO, group: ProcessGroup) -> None:
    """What all processes have written, in their order."""
    if output is None:
        text = _gathered_text(cast(io.StringIO, file).getvalue(), group)
        if group.is_main:
            sys.stdout.write(text)
    elif group.is_main:
        with replacing(output) as whole:
            for part in parts:
                with opened(part) as source:
                    shutil.copyfileobj(source, whole)
        for part in parts:
            part.unlink()


def _gathered_text(text: str, group: ProcessGroup) -> str:
    return group.all_gather(np.frombuffer(text.encode(), np.uint8)).tobytes().decode()
