"""Datasets: reads a named dataset or a file, cleans the molecules and splits them."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import Field

from molgen.chem import clean
from molgen.chem.pool import Workers
from molgen.chem.smiles import RDKIT_VERSION
from molgen.config import NAMED, DataConfig, Section
from molgen.data.download import data_directory, fetch
from molgen.data.readers import Row, read_rows
from molgen.data.splitting import SPLITS, drawn_splits, own_splits
from molgen.errors import MolgenError
from molgen.runtime import cache
from molgen.tokenizer import TokenPattern

LARGE = 50_000
"""Results for at least this many molecules are cached."""


class Molecule(NamedTuple):
    """A clean molecule with its split."""

    smiles: str
    name: str
    row: int
    split: str


class Dropped(NamedTuple):
    """A row that was dropped or changed, and why."""

    row: int
    name: str
    smiles: str
    reason: str


_Counts = dict[Annotated[str, Field(pattern="^[ -~]{1,80}$")], Annotated[int, Field(ge=0)]]


class Summary(Section):
    """The part of a report about a dataset."""

    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    """SHA-256 of the lines `SMILES split`, one per molecule."""
    rows: Annotated[int, Field(ge=0)]
    sizes: _Counts
    """Molecules per split."""
    dropped: _Counts
    """Dropped rows by reason."""
    altered: _Counts
    """Changes to rows that were kept, by reason."""


@dataclass(frozen=True)
class Dataset:
    """Clean molecules with their splits, and a list of every row that was dropped or changed."""

    name: str
    molecules: tuple[Molecule, ...]
    dropped: tuple[Dropped, ...]

    @property
    def rows(self) -> int:
        """Number of rows of the source."""
        return len(self.molecules) + sum(d.reason not in clean.ALTERED for d in self.dropped)

    def split(self, name: str) -> list[str]:
        """The SMILES of one split, in the order of the file."""
        return [m.smiles for m in self.molecules if m.split == name]

    @property
    def sizes(self) -> dict[str, int]:
        """Molecules per split, without empty splits."""
        counts = Counter(m.split for m in self.molecules)
        return {name: counts[name] for name in SPLITS if counts[name]}

    @property
    def dropped_by_reason(self) -> dict[str, int]:
        """Number of dropped rows by reason, the most frequent first."""
        return _by_reason(d for d in self.dropped if d.reason not in clean.ALTERED)

    @property
    def altered_by_reason(self) -> dict[str, int]:
        """Number of changes to kept rows by reason, the most frequent first; a row with two changes counts in both."""
        return _by_reason(d for d in self.dropped if d.reason in clean.ALTERED)

    @cached_property
    def sha256(self) -> str:
        """A hash of the molecules, their order and their splits."""
        return hashlib.sha256("\n".join(f"{m.smiles} {m.split}" for m in self.molecules).encode()).hexdigest()

    @property
    def summary(self) -> Summary:
        """The part of a report about this dataset."""
        return Summary(
            sha256=self.sha256,
            rows=self.rows,
            sizes=self.sizes,
            dropped=self.dropped_by_reason,
            altered=self.altered_by_reason,
        )


def read_source(config: DataConfig, cells: bool = False) -> list[Row]:
    """The rows of the source of `config`, not cleaned; with `cells` each row has its other columns.

    Raises MolgenError for a source that cannot be read, is empty, or has no row that satisfies `data.where`.
    """
    rows = list(_rows(config, cells))
    if not rows:
        raise MolgenError(
            f"{config.source}: no molecules in it", "give a file with one molecule per line below its header"
        )
    if not any(row.chosen for row in rows):
        raise MolgenError(
            f"{config.source}: the condition {config.where} chose none of {len(rows)} rows",
            "a comparison with a missing value, or of text with a number, is never true; see --where",
        )
    return rows


def build_dataset(
    rows: Sequence[Row],
    config: DataConfig,
    longest: int,
    pattern: str,
    workers: Workers,
    pretrained_tokens: Set[str] = frozenset(),
) -> Dataset:
    """Cleans and splits rows; `longest` is the context in tokens; tokens of `pretrained_tokens` are never too rare.

    Raises MolgenError as `clean_rows`, and for rows that cannot be split.
    """
    kept, dropped = clean_rows(rows, config, longest, pattern, workers, pretrained_tokens)
    molecules, beyond_size = _split(kept, config)
    dropped_rows = {row.row for row in beyond_size}
    listed = (row for row in dropped if row.reason not in clean.ALTERED or row.row not in dropped_rows)
    return Dataset(config.source, tuple(molecules), (*listed, *beyond_size))


def clean_rows(
    rows: Sequence[Row],
    config: DataConfig,
    longest: int,
    pattern: str,
    workers: Workers,
    pretrained_tokens: Set[str] = frozenset(),
) -> tuple[list[tuple[Row, str]], list[Dropped]]:
    """((row with the string to train on, its group) of the kept rows, the dropped and changed rows).

    Raises MolgenError if no row is kept, or if more than half are dropped; rows that data.where did not choose do not
    count.
    """
    others = [Dropped(row.number, row.name, row.smiles, clean.NOT_CHOSEN) for row in rows if not row.chosen]
    rows = [row for row in rows if row.chosen] if others else rows
    kept, dropped = _clean(rows, config, longest, pattern, workers, pretrained_tokens)
    lost = Counter(d.reason for d in dropped if d.reason not in (*clean.ALTERED, clean.DUPLICATE))
    reasons = ", ".join(f"{count} {reason}" for reason, count in lost.most_common())
    mostly_rare_tokens = lost[clean.RARE_TOKEN] > lost.total() / 2
    hint = (
        "so few molecules have few tokens in common: --set data.min_token_count=1 keeps them"
        if mostly_rare_tokens
        else "is it the right column (--smiles-column)? see data.elements, model.context and the other settings"
    )
    if not kept:
        raise MolgenError(f"{config.source}: no molecule of {len(rows)} is left: {reasons}", hint)
    if 2 * lost.total() > len(rows) and config.source not in NAMED:
        raise MolgenError(f"{config.source}: more than half of {len(rows)} rows would be dropped: {reasons}", hint)
    return kept, [*dropped, *others]


def reference_smiles(source: str, split: str) -> list[str]:
    """The SMILES to compare with, not cleaned: one split of MOSES or moses-mini, or a whole file."""
    if source in ("moses", "moses-mini"):
        return [row.smiles for row in _rows(DataConfig(source=source)) if row.split == split]
    return [clean.undefined(row.smiles)[0] for row in read_rows(source)]


def account(dropped: Sequence[Dropped]) -> list[str]:
    """Summary lines: one line with the counts of dropped rows, one with those of changed rows."""
    lines = []
    for name, altered in (("dropped", False), ("altered", True)):
        counts = _by_reason(d for d in dropped if (d.reason in clean.ALTERED) == altered)
        if counts:
            lines.append(f"{name}: " + ", ".join(f"{count:,} {reason}" for reason, count in counts.items()))
    return lines


def _by_reason(dropped: Iterable[Dropped]) -> dict[str, int]:
    return dict(Counter(d.reason for d in dropped).most_common())


def _rows(config: DataConfig, cells: bool = False) -> Iterator[Row]:
    source = config.source
    if source not in NAMED and "." not in source and source != "-" and not Path(source).exists():
        raise MolgenError(
            f"no dataset or file called {source!r}", f"named datasets: {', '.join(NAMED)}; or give a file"
        )
    if source not in NAMED:
        yield from read_rows(source, config.smiles_column, config.where, cells)
    elif source == "moses":
        for path in fetch(source):
            split = path.name.removesuffix(".csv.gz")
            yield from (row._replace(split=split) for row in read_rows(str(path), where=config.where, cells=cells))
    else:
        yield from chain.from_iterable(read_rows(str(path), where=config.where, cells=cells) for path in fetch(source))


def _clean(
    rows: Sequence[Row], config: DataConfig, longest: int, pattern: str, workers: Workers, pretrained_tokens: Set[str]
) -> tuple[list[tuple[Row, str]], list[Dropped]]:
    texts = [row.smiles for row in rows]
    settings = clean.settings(config, longest, pattern)

    def columns() -> cache.Arrays:
        lost = ("", "", clean.LOST, ())
        results = [result or lost for result in workers.map("clean", texts, "cleaning", **settings)]
        rows = ((smiles, group, reason, ";".join(changes)) for smiles, group, reason, changes in results)
        return {str(i): cache.from_strings(column) for i, column in enumerate(zip(*rows, strict=True))}

    def read(arrays: cache.Arrays) -> list[list[str]]:
        found = [cache.to_strings(arrays[str(i)]) for i in range(4)]
        if any(len(column) != len(texts) for column in found):
            raise ValueError("of other rows")
        return found

    if len(rows) < LARGE:
        found = read(columns())
    else:  # minutes for MOSES
        key = [str(clean.VERSION), RDKIT_VERSION, json.dumps(settings), *texts]
        before = len(workers.lost)
        folder = data_directory() / "cache"
        found = cache.cached(folder, "clean", key, columns, read, lambda: len(workers.lost) == before)
    smiles, groups, reasons, changes = found
    if config.duplicates == "drop":
        seen: set[str] = set()
        for i, molecule in enumerate(smiles):
            if not reasons[i]:  # a string may be in two splits of a file; it stays in the first
                reasons[i] = clean.DUPLICATE if molecule in seen else ""
                seen.add(molecule)
    for i, row in enumerate(rows):
        if row.problem and reasons[i] == clean.EMPTY:
            reasons[i] = row.problem
    for i in _with_rare_tokens(smiles, reasons, config.min_token_count, pattern, pretrained_tokens):
        reasons[i] = clean.RARE_TOKEN
    kept: list[tuple[Row, str]] = []
    dropped: list[Dropped] = []
    for i, row in enumerate(rows):
        causes = [reasons[i]] if reasons[i] else changes[i].split(";")
        dropped += [Dropped(row.number, row.name, row.smiles, cause) for cause in causes if cause]
        if not reasons[i]:
            kept.append((row._replace(smiles=smiles[i]), groups[i]))
    return kept, dropped


def _with_rare_tokens(
    smiles: Sequence[str], reasons: Sequence[str], fewest: int, pattern: str, pretrained_tokens: Set[str]
) -> list[int]:
    """Indices of the molecules to drop, so that each remaining token is in at least `fewest` molecules or pretrained.

    A dropped molecule may make its other tokens rare, so this is repeated. Molecules with a reason are ignored.
    """
    if fewest == 1:
        return []
    split = TokenPattern(pattern).split
    tokens = {i: set(split(text) or ()) - pretrained_tokens for i, text in enumerate(smiles) if not reasons[i]}
    counts = Counter(token for own in tokens.values() for token in own)
    dropped: list[int] = []
    while rare := {token for token, count in counts.items() if 0 < count < fewest}:
        with_rare = [i for i, own in tokens.items() if own & rare]
        for i in with_rare:
            counts.subtract(tokens.pop(i))
        dropped += with_rare
    return dropped


def _split(kept: Sequence[tuple[Row, str]], config: DataConfig) -> tuple[list[Molecule], list[Dropped]]:
    """(molecules with their splits, from the file if it has splits; molecules beyond the configured sizes)."""
    splits = own_splits(kept, config) if any(row.split for row, _ in kept) else drawn_splits(kept, config)
    rows = [(row, split) for (row, _), split in zip(kept, splits, strict=True)]
    beyond_size = [Dropped(row.number, row.name, row.smiles, clean.BEYOND_SIZE) for row, split in rows if not split]
    return [Molecule(row.smiles, row.name, row.number, split) for row, split in rows if split], beyond_size
