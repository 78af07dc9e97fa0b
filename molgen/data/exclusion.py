"""`data.exclude`: which molecules must not be learnt, because they are answers that the model is tested on."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from molgen.chem import clean, likeness
from molgen.chem.pool import Workers
from molgen.chem.smiles import RDKIT_VERSION
from molgen.config import NAMED, DataConfig
from molgen.data.download import data_directory
from molgen.data.rows import Row
from molgen.data.sources import rows_of
from molgen.errors import MolgenError
from molgen.runtime import cache

logger = logging.getLogger(__name__)

_ANY_LENGTH = 65_536
# To exclude a molecule it only has to be read, as it is. With atom maps its group would not be that of the molecule.
_KEEP_ALL: dict[str, Any] = {
    **dict.fromkeys(("fragments", "charges", "stereo", "isotopes", "radicals"), "keep"),
    "elements": None,
    "require_carbon": False,
}


class Excluded(NamedTuple):
    """What one source of `data.exclude` does not allow."""

    source: str
    groups: set[str]
    """Of its molecules."""
    targets: list[list[Any]]
    """[SMILES, ECFP4 threshold] of its rows that have one."""


def reasons_to_exclude(
    kept: Sequence[tuple[Row, str]], excluded: Sequence[Excluded], workers: Workers
) -> dict[int, str]:
    """Index → reason, of each row, (row, its group), that `data.exclude` does not allow."""
    reasons = dict[int, str]()
    for source, forbidden, _ in excluded:
        for i, (_, group) in enumerate(kept):
            if group in forbidden:
                reasons.setdefault(i, f"{clean.EXCLUDED}: {Path(source).name}")
    if targets := [target for source in excluded for target in source.targets]:
        flags = _resembling([row.smiles for row, _ in kept], targets, workers)
        # a salt or a stereoisomer of an excluded molecule would teach the same
        groups = {group for (_, group), flag in zip(kept, flags, strict=True) if flag}
        for i, (_, group) in enumerate(kept):
            if group in groups:
                reasons.setdefault(i, clean.RESEMBLES_EXCLUDED)
    return dict(sorted(reasons.items()))


def excluded_by(source: str, config: DataConfig, pattern: str, workers: Workers) -> Excluded:
    """What a source of `data.exclude` does not allow.

    Raises MolgenError if it cannot be read, and for a threshold that is no number.
    """
    data = DataConfig(source=source) if source in NAMED else DataConfig(source=source, **_KEEP_ALL)
    rows = list(rows_of(data, cells=True))
    targets: list[list[Any]] = []
    for row in rows:
        if threshold := (row.cells or {}).get("ecfp4", ""):
            targets.append([row.smiles, _similarity(threshold, f"{source}, line {row.number}")])
    groups, unread = _groups(rows, data, config.rules, pattern, workers, source)
    if unread:
        logger.info(f"data.exclude: {unread:,} of {len(rows):,} rows of {source} cannot be read: they exclude nothing")
    return Excluded(source, groups, targets)


def held_out_groups(rows: Sequence[Row], config: DataConfig, pattern: str, workers: Workers) -> set[str]:
    """The groups of held-out rows that were dropped themselves: their molecules must not be learnt in another form."""
    groups, unread = _groups(rows, DataConfig(**_KEEP_ALL), config.rules, pattern, workers, "what is held out")
    if unread:
        logger.info(f"{unread:,} of {len(rows):,} dropped rows that are held out cannot be read: they hold out nothing")
    return groups


def _groups(
    rows: Sequence[Row], data: DataConfig, rules: int, pattern: str, workers: Workers, name: str
) -> tuple[set[str], int]:
    """(groups of the rows of any length, by the rules of the data to train on; number of rows that have none)."""
    settings = clean.settings(data.model_copy(update={"rules": rules, "split": "grouped"}), _ANY_LENGTH, pattern)
    results = workers.map("clean", [row.smiles for row in rows], f"reading {name}", **settings)
    groups = {result[1] for result in results if result and not result[2]}
    return groups, sum(not result or bool(result[2]) for result in results)


def _similarity(cell: str, place: str) -> float:
    """The number in a cell of the column `ecfp4`. Raises MolgenError for one that no similarity can reach."""
    try:
        threshold = float(cell)
    except ValueError:
        raise MolgenError(f"{place}: ecfp4 {cell!r} is no number", "a similarity from 0 to 1") from None
    if not 0 <= threshold <= 1:
        raise MolgenError(f"{place}: ecfp4 {cell} is no similarity", "from 0 to 1")
    return threshold


def _resembling(smiles: Sequence[str], targets: list[list[Any]], workers: Workers) -> list[bool]:
    """Whether each molecule resembles a target; cached if there are many molecules, because it takes minutes."""

    def column() -> cache.Arrays:
        flags = workers.map("resembles", smiles, "comparing with data.exclude", targets=targets)
        # a molecule without an answer may be similar
        return {"resembles": np.array([flag is None or flag for flag in flags], dtype=np.uint8)}

    def read(arrays: cache.Arrays) -> list[bool]:
        cache.expect(arrays["resembles"], np.uint8, (len(smiles),))
        return [bool(flag) for flag in arrays["resembles"].tolist()]

    if len(smiles) < cache.LARGE:
        return read(column())
    before = len(workers.lost)
    key = [likeness.VERSION, RDKIT_VERSION, json.dumps(targets), *smiles]
    return cache.cached(data_directory() / "cache", "resembles", key, column, read, lambda: len(workers.lost) == before)
