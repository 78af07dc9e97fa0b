"""Writes samples to stdout or to a .smi, .csv or .sdf file, with a picture, a summary line and a .meta.json file."""

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

from molgen._version import __version__
from molgen.chem.draw import draw_grid, require_drawing
from molgen.errors import MolgenError
from molgen.generation.answers import Answers, plot_path
from molgen.generation.generator import BYTES_PER_SAMPLE, MoleculeGenerator
from molgen.generation.options import SampleOptions
from molgen.generation.rejection import REASONS, Sample, SampleStream, SamplingStats
from molgen.generation.sample_table import SampleTable
from molgen.machine import Runtime
from molgen.metrics.similarity import max_min
from molgen.runtime.bars import Bar
from molgen.runtime.device import check_memory
from molgen.runtime.distributed import SINGLE_PROCESS, ProcessGroup
from molgen.runtime.files import created, hidden_sibling, opened, replacing, write_atomically
from molgen.runtime.hashing import Keys, keys_of
from molgen.runtime.log import duration
from molgen.runtime.signals import TerminatedError, signals_held

logger = logging.getLogger(__name__)

_MOST_PICTURES = 30
_SECONDS_BEFORE_FORECAST = 10.0
_LARGE_OUTPUT = 2**30  # bytes; the expected size of a larger output is logged
_MOST_KEYS = 10_000_000
_BYTES_PER_ENTRY = 200  # of a dictionary with a string and a number
_FINGERPRINT_BYTES = 128  # 1,024 bits
_FORMATS = (".smi", ".csv", ".sdf")
_TABLES = (".csv", ".sdf")
_REJECTED = {
    "valid": "invalid",
    "keep": "without what is kept",
    "where": "by --where",
    "smarts": "by --smarts",
    "not_smarts": "by --not-smarts",
    "no_alerts": "by --no-alerts",
    "novel": "known from training",
    "unique": "drawn before",
}


@dataclass
class Written:
    """Counts and hashes of the samples written so far, for the summary; at most 80 MB."""

    rows: int = 0
    valid: int = 0
    keys: list[Keys] = field(default_factory=list)
    """Hashes of the canonical SMILES of the first ten million valid samples, batch by batch."""
    drawable: list[str] = field(default_factory=list)
    """The first valid samples, for the picture."""
    _num_keys: int = 0

    def add(self, batch: list[Sample]) -> None:
        """Adds a batch of samples."""
        valid = [sample for sample in batch if sample.canonical]
        self.rows += len(batch)
        self.valid += len(valid)
        most = _MOST_KEYS - self._num_keys
        self.keys.append(keys_of(sample.canonical or "" for sample in valid[:most]))
        self._num_keys += len(self.keys[-1])
        self.drawable += [sample.smiles for sample in valid[: _MOST_PICTURES - len(self.drawable)]]

    def gathered(self, group: ProcessGroup) -> "Written":
        """The counts and hashes of all processes together."""
        keys = group.all_gather(np.concatenate([np.empty(0, np.uint64), *self.keys]).view(np.int64)).view(np.uint64)
        drawable = _gathered_text("".join(f"{smiles}\n" for smiles in self.drawable), group).split()
        rows, valid = group.all_reduce_sum(np.array([self.rows, self.valid])).tolist()
        return Written(rows, valid, [keys], drawable[:_MOST_PICTURES])


@dataclass(frozen=True)
class SampleTargets:
    """Where and in which form samples are written. Raises MolgenError for a suffix of an unknown format."""

    output: Path | None = None
    """A .smi, .csv or .sdf file; None: stdout."""
    grid: Path | None = None
    """A .png or .svg picture of the first valid samples."""
    columns: str | None = None
    """Columns of a table: a comma-separated list, or `all`; None: the cheap ones."""
    diverse: int | None = None
    """Write only this number of samples, chosen for diversity."""

    def __post_init__(self) -> None:
        if self.output is not None and self.output.suffix not in _FORMATS:
            raise MolgenError(f"{self.output}: unknown kind of file", f"use {', '.join(_FORMATS)}")
        if self.columns is not None and self.table is None:
            raise MolgenError("--columns: only a table has columns", f"name one with -o: {' or '.join(_TABLES)}")
        if self.grid is not None:
            require_drawing(self.grid)

    @property
    def table(self) -> Path | None:
        """The output, if it is a table; else None."""
        return self.output if self.output is not None and self.output.suffix in _TABLES else None

    @property
    def meta(self) -> Path | None:
        """The path of a table's .meta.json file; None without a table."""
        return None if self.table is None else self.table.with_suffix(".meta.json")


def sample_into(generator: MoleculeGenerator, options: SampleOptions, targets: SampleTargets, command: str) -> None:
    """Draws samples and writes them, their picture and their .meta.json file; logs one line of summary.

    Raises RuntimeError at the end if sampling gave up.
    """
    group = generator.runtime.group
    stream = generator.stream(options)
    if targets.diverse is not None:
        stream = pick_diverse(stream, targets.diverse, generator.runtime)
    answers = generator.answers(options.condition)
    if answers is not None:
        stream = SampleStream(stream.n, _seen(stream, answers), stream.stats)
    table = None
    if targets.table is not None:
        table = SampleTable(targets.columns, generator, targets.table.suffix == ".sdf", options.keep, answers)
        if "duplicate_of" in table.columns:
            check_memory(f"-n {options.n:,}: the column duplicate_of", _BYTES_PER_ENTRY * options.n)
    written = write_samples(stream, targets.output, targets.grid, group, table, options.keep)
    if answers is not None:
        _compare(answers, targets.grid, group)
    if group.is_main:
        if options.prompt and generator.starts_like_training(options.prompt) is False:
            logger.info(
                f"no training molecule begins with {options.prompt}: the model has not seen this prompt in training"
            )
        logger.info(summary(written, stream.stats, generator))
        if table is not None:
            _write_meta(targets, table.columns, options, command, written, stream.stats, generator)
    check_complete(stream.stats, options.n)


def _seen(stream: SampleStream, answers: Answers) -> Iterator[list[Sample]]:
    """The batches, each after it has been compared with what was asked for."""
    for batch in stream:
        answers.see(batch)
        yield batch


def _compare(answers: Answers, grid: Path | None, group: ProcessGroup) -> None:
    """Logs what came of what was asked for, and draws it beside the picture of the samples."""
    values = answers.all(group)
    if not group.is_main:
        return
    for line in answers.lines(values):
        logger.info(line)
    if grid is not None:
        answers.draw(values, plot_path(grid))
        logger.info(f"asked against got in {plot_path(grid)}")


def pick_diverse(stream: SampleStream, k: int, runtime: Runtime) -> SampleStream:
    """Collects all samples and picks `k` distinct valid ones by MaxMin, in the order of picking.

    Raises MolgenError with several processes, for k < 1, and if the samples do not fit into memory.
    """
    if runtime.group.size > 1:
        raise MolgenError("--diverse: one process does not know the draws of the others", "sample in one process")
    if k < 1:
        raise MolgenError(f"--diverse {k}: out of range", "pick at least one molecule")
    check_memory(f"--diverse: {stream.n:,} molecules", BYTES_PER_SAMPLE * stream.n)

    def picked() -> Iterator[list[Sample]]:
        drawn: list[Sample] = []
        with Bar(total=stream.n, desc="sampling", unit="mol", delay=1) as bar:
            for batch in stream:
                drawn += batch
                bar.update(len(batch))
        distinct = list({sample.canonical: sample for sample in reversed(drawn) if sample.canonical}.values())[::-1]
        smiles = [sample.smiles for sample in distinct]
        rows = runtime.workers.map("tabulate", smiles, "fingerprints", columns=["fingerprint"])
        known = [(sample, row["fingerprint"]) for sample, row in zip(distinct, rows, strict=True) if row]
        packed = np.frombuffer(b"".join(b64decode(bits) for _, bits in known), np.uint8)
        packed = packed.reshape(-1, _FINGERPRINT_BYTES)
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
    keep: str = "",
) -> Written:
    """Writes samples batch by batch, complete rows only; draws the first valid ones; returns what it wrote.

    Without `table`: one SMILES per line. With it: a .csv file of its columns, or an .sdf file of valid molecules with
    2D coordinates and the columns as fields. Without `output` it writes to stdout. The picture highlights `keep`.
    Until all rows are written, or a signal ends the writing, the file has the name `.x.smi.########.part` with eight
    random digits. In a process group each process writes its own part; at the end the main process joins the parts.
    Raises MolgenError if the disk has not enough space for all molecules, estimated from the first batch.
    """
    n = stream.n
    first = next(stream, [])  # draws before the file is created, so that invalid options do not leave a file
    written = Written()
    as_records = output is not None and output.suffix == ".sdf"
    text = _text(first, table, as_records)
    _check_space(output, n, len(first), len(text), group)
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
            stopped = signalled  # the rows so far become the file
    if stopped is not None:
        place = output if group.size == 1 else f"{parts[group.rank]} and its like"
        logger.info(f"stopped; {written.rows:,} of {n:,} molecules are in {place}")
        raise stopped
    if group.size > 1:
        written = written.gathered(group)
        stream.stats.all_reduce(group)
        _join_parts(output, parts, file, group)
    if grid is not None and group.is_main:
        drawn = draw_grid(written.drawable, grid, keep=keep)
        logger.info(f"{drawn} molecules drawn into {grid}")
    if as_records and group.is_main and written.valid < written.rows:
        logger.info(f"{written.rows - written.valid:,} invalid ones have no record in {output}")
    return written


def _write_batches(texts: Iterator[tuple[list[Sample], str]], file: TextIO, written: Written, n: int) -> None:
    """Writes batches of (samples, their text); about `n` samples are expected."""
    began, forecast, rows_before = time.monotonic(), False, 0
    with Bar(total=n, desc="sampling", unit="mol", delay=1) as bar:
        for batch, text in texts:
            with signals_held():  # a signal must not interrupt the writing of a row
                file.write(text)
                file.flush()
                written.add(batch)
            bar.update(len(batch))
            rows_before = rows_before or len(batch)  # the first batch was drawn before the timer started
            seconds = time.monotonic() - began
            if written.rows > rows_before and not forecast and seconds > _SECONDS_BEFORE_FORECAST:
                forecast, rate = True, (written.rows - rows_before) / seconds
                logger.info(f"about {duration(n / rate)} for {n:,} molecules at this speed")


def check_complete(stats: SamplingStats, n: int) -> None:
    """Raises RuntimeError if sampling gave up; the kept samples have already been written."""
    if stats.gave_up:
        raise RuntimeError(
            f"fewer than 1 in 1,000 of the last 10,000 draws was kept: {stats.kept} of {n}{_rejections(stats)}"
        )


def summary(written: Written, stats: SamplingStats, generator: MoleculeGenerator) -> str:
    """One line about the written samples: draws, validity, uniqueness, novelty and rejected draws by rule."""
    compared = sum(map(len, written.keys))
    distinct = np.unique(np.concatenate(written.keys))
    figures = {"validity": written.valid / written.rows} if written.rows else {}
    run = generator.run
    # not for a run that names its source: reading 1.5 million molecules takes longer than sampling
    unknown = (run.elsewhere or run.lacks("train")) if run else ""
    if len(distinct):
        figures["uniqueness"] = len(distinct) / compared
        if run and not unknown:
            figures["novelty"] = float(np.isin(distinct, keys_of(generator.training_set()), invert=True).mean())
    shown = ", ".join(f"{name} {value:.3f}" for name, value in figures.items())
    draws = f" of {stats.draws:,} draws" if stats.draws != written.rows else ""
    unfinished = f", {stats.unfinished} unfinished" if stats.unfinished else ""
    without = f"; no novelty: {unknown}" if unknown else ""
    few = f" (uniqueness and novelty of the first {compared:,} valid ones)" if compared < written.valid else ""
    held = f", kept in {stats.kept_share:.1%} of the draws" if stats.keeps and stats.draws else ""
    return f"{written.rows:,} molecules{draws}: {shown}{few}{unfinished}{held}{_rejections(stats)}{without}"


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
    """Writes `x.meta.json` next to `x.csv` or `x.sdf`: all options to reproduce the table, and the rejected draws."""
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
        "keep": options.keep,
        "condition": options.condition,
        "guidance": options.guidance,
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
        **({"kept_share": stats.kept_share} if stats.keeps else {}),
        "versions": {"molgen": __version__, **{name: version(name) for name in ("torch", "rdkit", "numpy")}},
    }
    write_atomically(targets.meta, (json.dumps(account, indent=1, allow_nan=False) + "\n").encode())


def _record(row: dict[str, str]) -> str:
    """A row as a record of an SD file, without a title, because a new molecule has no name."""
    fields = "".join(f">  <{name}>\n{value}\n\n" for name, value in row.items() if name != "molblock" and value)
    return f"{row['molblock']}{fields}$$$$\n"


def _text(batch: list[Sample], table: SampleTable | None, as_records: bool) -> str:
    """Samples as text in the format of the output."""
    if table is None:
        return "".join(f"{sample.smiles}\n" for sample in batch)
    rows = table.rows(batch)
    if as_records:
        return "".join(_record(row) for row in rows if row["molblock"])
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(row.values() for row in rows)
    return text.getvalue()


def _check_space(output: Path | None, n: int, rows: int, size: int, group: ProcessGroup) -> None:
    """Raises MolgenError if the output does not fit on the disk; logs the size of a large output.

    `rows` rows have `size` characters; `n` rows are expected.
    """
    need = n * size // rows if rows else 0
    if output is not None and need > (free := shutil.disk_usage(output.parent).free):
        raise MolgenError(
            f"{output}: {n:,} molecules take about {_size(need)}, {_size(free)} are free",
            "ask for fewer with -n, or write to another disk",
        )
    if output is None and group.size > 1:
        check_memory(f"{n:,} molecules of several processes on stdout", 2 * need)
    if need > _LARGE_OUTPUT:
        logger.info(f"{n:,} molecules: about {_size(need)} in total")


def _size(length: int) -> str:
    """A number of bytes as text with a suitable unit."""
    unit, name = next(((2**k, name) for k, name in ((40, "TiB"), (30, "GiB")) if length >= 2**k), (2**20, "MiB"))
    return f"{length / unit:,.1f} {name}"


def _parts(output: Path, group: ProcessGroup) -> list[Path]:
    """Temporary paths next to the output, one per process; the same list in every process."""
    token = group.broadcast_str(secrets.token_hex(4))
    return [hidden_sibling(output, f"{token}.{rank}.part") for rank in range(group.size)]


@contextmanager
def _destination(output: Path | None, parts: Sequence[Path], group: ProcessGroup) -> Iterator[TextIO]:
    """The file to write: stdout, the output, or in a process group this process's part, deleted on an exception."""
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


def _join_parts(output: Path | None, parts: Sequence[Path], file: TextIO, group: ProcessGroup) -> None:
    """Joins the parts of all processes, in order of rank, in the output or on stdout."""
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
