"""The work of `molgen data clean` and `encode`: prepares data exactly as a training would."""

import csv
import gzip
import io
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

from molgen.chem import clean
from molgen.chem.pool import Workers
from molgen.chem.smiles import RDKIT_VERSION
from molgen.config import Config
from molgen.data.columns import unique
from molgen.data.dataset import Dataset, Dropped, account, build_dataset, clean_rows, columns_of
from molgen.data.encoded_file import SUFFIX, corpus_writer
from molgen.data.rows import Row
from molgen.data.sources import read_source
from molgen.data.splitting import SPLITS
from molgen.errors import MolgenError
from molgen.runtime.files import write_atomically, write_table
from molgen.tokenizer import SmilesTokenizer, deepchem_pattern

_FORMATS = (".smi", ".smi.gz", ".csv", ".csv.gz")


def build_tokenizer(
    config: Config, dataset: Dataset, pattern: str, known: SmilesTokenizer | None = None
) -> SmilesTokenizer:
    """A tokenizer with the vocabulary of the training split or of all molecules, with ring labels for random SMILES.

    If there is a `known` tokenizer, its vocabulary comes first, unchanged, and new tokens follow.
    """
    corpus = [m.smiles for m in dataset.molecules if m.split == "train" or config.data.vocabulary == "all"]
    tokenizer = SmilesTokenizer.of_corpus(corpus, pattern, config.training.randomizes, RDKIT_VERSION)
    return known.extended(tokenizer) if known else tokenizer


def dropped_beside(output: Path) -> Path:
    """The path of the list of dropped and changed rows. Raises MolgenError for an output of an unknown format."""
    suffix = next((s for s in reversed(_FORMATS) if output.name.lower().endswith(s)), None)
    if suffix is None:
        raise MolgenError(f"{output}: unknown kind of file", f"use {', '.join(_FORMATS)}")
    return output.with_name(f"{output.name[: -len(suffix)]}.dropped.csv.gz")


def write_clean(config: Config, output: Path, workers: Workers) -> list[str]:
    """Standardises and cleans without a training; returns messages with sizes and counts by reason.

    A .smi line is the SMILES and the name; a .csv file has smiles, name, row of the source, split if the source has
    one, and the source's other columns. No molecule is dropped for a rare token, because that depends on the training.
    """
    listing = dropped_beside(output)
    tabular = ".csv" in output.suffixes
    rows = read_source(config.data, cells=tabular)
    # groups of related molecules are only for a grouped split, so they are not computed
    settings = config.data.model_copy(update={"split": "random", "min_token_count": 1})
    kept, dropped = clean_rows(rows, settings, config.model.context, deepchem_pattern(), workers)
    text = io.StringIO(newline="")
    if tabular:
        csv.writer(text, lineterminator="\n").writerows(_table([row for row, _ in kept]))
    else:
        text.writelines(f"{row.smiles} {' '.join(row.name.split())}".rstrip() + "\n" for row, _ in kept)
    content = text.getvalue().encode()
    write_atomically(output, gzip.compress(content, mtime=0) if output.suffix == ".gz" else content)
    columns = columns_of(Dropped, config.data)
    write_table(listing, columns, (row[: len(columns)] for row in dropped))
    return [f"{len(rows):,} rows, {len(kept):,} molecules into {output}", *account(dropped), f"listed in {listing}"]


def _table(rows: Sequence[Row]) -> Iterator[list[object]]:
    """The heading and the lines of a table of clean molecules; columns of the source are renamed if necessary."""
    ours = ["smiles", "name", "row", *(["split"] if any(row.split for row in rows) else [])]
    others = dict.fromkeys(chain.from_iterable(row.cells or {} for row in rows))
    repeated = {name for name in others if _repeats(name, ours, rows)}
    others = dict.fromkeys(name for name in others if name not in repeated)
    yield [*ours, *unique(others, ours)]
    for row in rows:
        cells = row.cells or {}
        own = [row.smiles, row.name, row.number, row.split][: len(ours)]
        yield [*own, *(cells.get(name, "") for name in others)]


def _repeats(name: str, ours: Sequence[str], rows: Sequence[Row]) -> bool:
    """Whether a column of the source has the same name and content as one of ours."""
    if name.lower() == "name":
        return all((row.cells or {}).get(name, "") == row.name for row in rows)
    return name.lower() == "split" and "split" in ours


def check_encoded_name(output: Path) -> None:
    """Raises MolgenError if the suffix is not that of an encoded file."""
    if output.suffix != SUFFIX:
        raise MolgenError(f"{output}: not the name of an encoded file", f"let it end in {SUFFIX}")


def write_encoded(config: Config, output: Path, workers: Workers) -> list[str]:
    """Cleans, splits and encodes as a training would, into one file; returns messages with sizes and counts.

    The vocabulary is that of a training: with `<random>` and ring labels if the training would use random SMILES.
    """
    check_encoded_name(output)
    if config.data.conditions:
        raise MolgenError("data.conditions: an encoded file holds no values", "train on the molecules themselves")
    if config.data.targets:
        raise MolgenError(
            "data.targets: an encoded file holds no measured values", "train on the table itself, or leave targets out"
        )
    if config.data.sources is not None:
        raise MolgenError(
            "data.sources: an encoded file holds each molecule once, so it cannot hold a mixture in shares",
            "train on the mixture itself, or encode one source",
        )
    pattern = deepchem_pattern()
    dataset = build_dataset(read_source(config.data), config.data, config.model.context, pattern, workers)
    summary, tokenizer = dataset.summary, build_tokenizer(config, dataset, pattern)
    with corpus_writer(output, tokenizer, config.data) as writer:
        writer.rows = summary.rows
        writer.dropped.update(summary.dropped)
        writer.altered.update(summary.altered)
        for split in SPLITS:
            for smiles in dataset.split(split):
                writer.add(split, smiles)
    left_out = writer.dropped[clean.UNKNOWN_TOKEN]
    lines = [f"{summary.rows:,} rows into {output}: " + ", ".join(f"{s} {n:,}" for s, n in writer.sizes.items())]
    lines += account(dataset.dropped)
    lines += [f"held-out molecules with a {clean.UNKNOWN_TOKEN}: {left_out:,} left out"] if left_out else []
    return [*lines, f"{len(tokenizer)} tokens"]
