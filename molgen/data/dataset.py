"""Datasets: cleans the rows of a source or of a mixture, and splits the molecules."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from typing import Annotated, Any, NamedTuple

from pydantic import Field

from molgen.chem import clean
from molgen.chem.pool import Workers
from molgen.chem.smiles import RDKIT_VERSION
from molgen.config import DataConfig, Section
from molgen.data.download import data_directory
from molgen.data.exclusion import excluded_by, held_out_groups, reasons_to_exclude
from molgen.data.labels import Labels, label_rows
from molgen.data.rows import Row
from molgen.data.scaffolds import with_scaffold_groups
from molgen.data.splitting import SPLITS, drawn_splits, is_held_out, own_splits
from molgen.errors import MolgenError
from molgen.runtime import cache
from molgen.tokenizer import TokenPattern


class Molecule(NamedTuple):
    """A clean molecule with its split."""

    smiles: str
    name: str
    row: int
    split: str
    source: str = ""
    """In a mixture, the source whose row it is; else empty."""


class Dropped(NamedTuple):
    """A row that was dropped or changed, and why."""

    row: int
    name: str
    smiles: str
    reason: str
    source: str = ""
    """In a mixture, the source whose row it is; else empty."""

    @classmethod
    def of(cls, row: Row, reason: str) -> "Dropped":
        """A row with its reason."""
        return cls(row.number, row.name, row.smiles, reason, row.source)


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
    sources: dict[Annotated[str, Field(max_length=4096)], _Counts] = Field(default={})
    """Of a mixture: molecules per split of each source."""


@dataclass(frozen=True)
class Dataset:
    """Clean molecules with their splits, and a list of every row that was dropped or changed."""

    name: str
    molecules: tuple[Molecule, ...]
    dropped: tuple[Dropped, ...]
    labels: Labels = field(default_factory=dict)
    """The measured values of `data.targets`, by SMILES."""

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
    def sizes_by_source(self) -> dict[str, dict[str, int]]:
        """Of a mixture: molecules per split of each source; else empty."""
        counts = Counter((m.source, m.split) for m in self.molecules if m.source)
        sources = dict.fromkeys(source for source, _ in counts)
        return {s: {split: counts[s, split] for split in SPLITS if counts[s, split]} for s in sources}

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
            sources=self.sizes_by_source,
        )


def build_dataset(
    rows: Sequence[Row],
    config: DataConfig,
    longest: int,
    pattern: str,
    workers: Workers,
    pretrained_tokens: Set[str] = frozenset(),
) -> Dataset:
    """Cleans and splits rows; `longest` is the context in tokens; tokens of `pretrained_tokens` are never too rare.

    Each source of a mixture is split by itself, then training molecules are dropped whose group is held out elsewhere,
    be it by a row that is dropped itself (too long, rare token, excluded).

    Raises MolgenError as `clean_rows`, and for rows that cannot be split.
    """
    as_rows = config.model_copy(update={"duplicates": "keep"}) if config.targets else config
    kept, dropped = clean_rows(rows, as_rows, longest, pattern, workers, pretrained_tokens)
    labels: Labels = {}
    if config.targets:
        kept, others, labels = label_rows(kept, config)
        dropped += [Dropped.of(row, clean.REPLICATE) for row in others]
    if config.split == "scaffold":
        kept = with_scaffold_groups(kept, workers)
    held_out = set[str]()
    if config.sources is not None:
        lost = {(row.source, row.row) for row in dropped if row.reason not in (*clean.ALTERED, clean.DUPLICATE)}
        unseen = [row for row in rows if (row.source, row.number) in lost and is_held_out(row.split)]
        held_out = held_out_groups(unseen, config, pattern, workers)
    molecules, beyond_size = _split(kept, config, held_out)
    dropped_rows = {(row.source, row.row) for row in beyond_size}
    listed = (row for row in dropped if row.reason not in clean.ALTERED or (row.source, row.row) not in dropped_rows)
    return Dataset(config.source, tuple(molecules), (*listed, *beyond_size), labels)


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
    others = [Dropped.of(row, clean.NOT_CHOSEN) for row in rows if not row.chosen]
    rows = [row for row in rows if row.chosen] if others else rows
    # before what may take minutes: one that is not here ends it
    answers = [excluded_by(source, config, pattern, workers) for source in config.exclude]
    kept, dropped = _clean(rows, config, longest, pattern, workers, pretrained_tokens)
    lost = Counter(d.reason for d in dropped if d.reason not in (*clean.ALTERED, clean.DUPLICATE))
    reasons = ", ".join(f"{count} {reason}" for reason, count in lost.most_common())
    if lost[clean.RARE_TOKEN] > lost.total() / 2:
        hint = "so few molecules have few tokens in common: --set data.min_token_count=1 keeps them"
    elif lost[clean.TOO_LONG] > lost.total() / 2:
        limit = min(longest, config.max_tokens or longest)
        hint = f"up to {limit} tokens are allowed: `molgen data describe` says what model.context keeps them"
    else:
        hint = "is it the right column (--smiles-column)? see data.elements, model.context and the other settings"
    if not kept:
        raise MolgenError(f"{config.source}: no molecule of {len(rows)} is left: {reasons}", hint)
    if 2 * lost.total() > len(rows) and not config.named:
        raise MolgenError(f"{config.source}: more than half of {len(rows)} rows would be dropped: {reasons}", hint)
    if answers:
        excluded = reasons_to_exclude(kept, answers, workers)
        gone = {(kept[i][0].source, kept[i][0].number) for i in excluded}
        dropped = [d for d in dropped if d.reason not in clean.ALTERED or (d.source, d.row) not in gone]
        dropped += [Dropped.of(kept[i][0], reason) for i, reason in excluded.items()]
        kept = [pair for i, pair in enumerate(kept) if i not in excluded]
        if not kept:
            raise MolgenError(f"{config.source}: data.exclude leaves none of its molecules", "exclude fewer")
    return kept, [*dropped, *others]


def columns_of(kind: type[Molecule] | type[Dropped], config: DataConfig) -> tuple[str, ...]:
    """The columns of a table of molecules or of dropped rows; only that of a mixture has the last one, `source`."""
    return kind._fields if config.sources is not None else kind._fields[:-1]


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


def _clean(
    rows: Sequence[Row], config: DataConfig, longest: int, pattern: str, workers: Workers, pretrained_tokens: Set[str]
) -> tuple[list[tuple[Row, str]], list[Dropped]]:
    settings = clean.settings(config, longest, pattern)
    columns: list[list[str]] = [[], [], [], []]
    # source by source, so that each is cached for other mixtures too
    for _, part in groupby(rows, key=lambda row: row.source):
        for column, more in zip(columns, _cleaned([row.smiles for row in part], settings, workers), strict=True):
            column += more
    smiles, groups, reasons, changes = columns
    if config.duplicates == "drop":
        seen: set[str] = set()
        order: Iterable[int] = range(len(rows))
        if config.sources is not None:  # a molecule that one source holds out is no training molecule of another
            order = sorted(order, key=lambda i: not is_held_out(rows[i].split))
        for i in order:
            if not reasons[i]:  # a string may be in two splits of a file; it stays in the first
                reasons[i] = clean.DUPLICATE if smiles[i] in seen else ""
                seen.add(smiles[i])
    for i, row in enumerate(rows):
        if row.problem and reasons[i] == clean.EMPTY:
            reasons[i] = row.problem
    for i in _with_rare_tokens(smiles, reasons, config.min_token_count, pattern, pretrained_tokens):
        reasons[i] = clean.RARE_TOKEN
    kept: list[tuple[Row, str]] = []
    dropped: list[Dropped] = []
    for i, row in enumerate(rows):
        causes = [reasons[i]] if reasons[i] else changes[i].split(";")
        dropped += [Dropped.of(row, cause) for cause in causes if cause]
        if not reasons[i]:
            kept.append((row._replace(smiles=smiles[i]), groups[i]))
    return kept, dropped


def _cleaned(texts: Sequence[str], settings: Mapping[str, Any], workers: Workers) -> list[list[str]]:
    """The fields of `Clean` of each text, as four lists; the changes are joined by semicolons."""

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

    if len(texts) < cache.LARGE:
        return read(columns())
    # minutes for MOSES
    key = [str(clean.VERSION), RDKIT_VERSION, json.dumps(settings), *texts]
    before = len(workers.lost)
    return cache.cached(data_directory() / "cache", "clean", key, columns, read, lambda: len(workers.lost) == before)


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


def _split(
    kept: Sequence[tuple[Row, str]], config: DataConfig, held_out: Set[str]
) -> tuple[list[Molecule], list[Dropped]]:
    """(molecules with their splits, from the source if it has splits; molecules without one).

    In a mixture no molecule of a group in `held_out`, or of a group that one source holds out, is for training.
    """
    splits = [""] * len(kept)
    for source in config.sources or [""]:
        part = [i for i, (row, _) in enumerate(kept) if row.source == source]
        own = [kept[i] for i in part]
        settings = config.of_source(source) if source else config
        drawn = own_splits(own, settings) if any(row.split for row, _ in own) else drawn_splits(own, settings)
        for i, split in zip(part, drawn, strict=True):
            splits[i] = split
    rows = [(row, split) for (row, _), split in zip(kept, splits, strict=True)]
    lost = [Dropped.of(row, clean.BEYOND_SIZE) for row, split in rows if not split]
    if config.sources is not None:
        held_out = held_out | {
            group for (_, group), split in zip(kept, splits, strict=True) if split not in ("", "train")
        }
        for i, (row, group) in enumerate(kept):
            if splits[i] == "train" and group in held_out:
                rows[i] = (row, "")
                lost.append(Dropped.of(row, clean.HELD_OUT))
    return [Molecule(row.smiles, row.name, row.number, split, row.source) for row, split in rows if split], lost
