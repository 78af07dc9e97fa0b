"""Splits clean molecules: by the file's split column, or at random by groups of related molecules."""

from collections.abc import Sequence

import numpy as np

from molgen.chem.conditions import number
from molgen.config import DataConfig
from molgen.data.rows import Row
from molgen.errors import MolgenError

SPLITS = ("train", "validation", "test", "test_scaffolds")
_SPLIT_NAMES = {"train": "train", "training": "train", "valid": "validation", "val": "validation"} | {
    name: name for name in SPLITS
}


def is_held_out(own: str) -> bool:
    """Whether the value of a file's `split` column holds the molecule out of training."""
    return _SPLIT_NAMES.get(own, "train") != "train"


def own_splits(kept: Sequence[tuple[Row, str]], config: DataConfig) -> list[str]:
    """Each molecule's split from the file; "" for molecules beyond the configured sizes.

    Raises MolgenError for an unknown split, for a file without training molecules, and for sizes that are too large.
    """
    own = [_SPLIT_NAMES.get(row.split, "") for row, _ in kept]
    wrong = next((row for (row, _), name in zip(kept, own, strict=True) if not name), None)
    if wrong is not None:
        raise MolgenError(
            f"{config.source}, line {wrong.number}: split {wrong.split!r}",
            f"the split column takes {', '.join(SPLITS)}",
        )
    if "train" not in own:
        raise MolgenError(f"{config.source}: its split column names no training molecules", "write train in it")
    if "validation" not in own:  # it is drawn from the training split, never from a test split
        share = 8 if config.targets else 20  # intervals are calibrated on it
        size = config.validation_size or max(1, min(own.count("train") // share, 10_000))
        for i in _drawn_of("train", own, size, kept, config):
            own[i] = "validation"
    for name, wanted in (("train", config.train_size), ("validation", config.validation_size)):
        members = [i for i, split in enumerate(own) if split == name]
        if wanted is not None and wanted > len(members):
            raise MolgenError(
                f"{config.source}: data.{name}_size = {wanted:,}, but it has {len(members):,} molecules for it",
                "make it smaller, or leave it out",
            )
        if wanted is not None and wanted < len(members):
            for i in set(members).difference(_drawn_of(name, own, wanted, kept, config)):
                own[i] = ""
    return own


def drawn_splits(kept: Sequence[tuple[Row, str]], config: DataConfig) -> list[str]:
    """Each molecule's split, drawn by group with `split_seed`. Raises MolgenError if there are too few molecules."""
    n = len(kept)
    if n < 3:
        raise MolgenError(f"{config.source}: {n} molecules cannot be split into three", "give more molecules")
    train = config.train_size or max(1, round(n * (0.8 if n < 5_000 else 0.9)))
    train = min(train, n - 2) if config.train_size is None else train
    validation = config.validation_size or max(1, (n - train) // 2)
    if train + validation > n:
        raise MolgenError(
            f"{config.source}: {n} molecules, but data.train_size + data.validation_size = {train + validation}",
            "make them smaller, or leave them out",
        )
    if config.split == "time":
        return _by_time(kept, config, train, validation)
    splits = ["test"] * n
    drawn = _draw([group or str(i) for i, (_, group) in enumerate(kept)], [train, validation], config)
    for name, members in zip(("train", "validation"), drawn, strict=True):
        for i in members:
            splits[i] = name
    return splits


def _by_time(kept: Sequence[tuple[Row, str]], config: DataConfig, train: int, validation: int) -> list[str]:
    """The earliest molecules are for training, the latest are the test split; those without a time come first.

    Times are compared as numbers if all are numbers, else as text, which is right for dates such as 2024-05-01.
    """
    column = config.time_column
    if column is None or not any(column in (row.cells or {}) for row, _ in kept):
        raise MolgenError(
            f"{config.source}: data.split is `time`, but there is no column {column or 'data.time_column'}",
            "--set data.time_column=NAME",
        )
    texts = [(row.cells or {}).get(column, "").strip() for row, _ in kept]
    numbers = [number(text) for text in texts if text]
    slashed = next((text for text in texts if "/" in text or text[2:3] in (".", "-")), None)
    if None in numbers and slashed is not None:
        raise MolgenError(f"{config.source}: {column} has dates such as {slashed}", "write them as 2024-05-01")
    as_numbers = None not in numbers
    keys = [(number(text) or 0.0) if as_numbers else text for text in texts]
    order = sorted(range(len(kept)), key=lambda i: (bool(texts[i]), keys[i]))
    splits = ["test"] * len(kept)
    for place, i in enumerate(order[: train + validation]):
        splits[i] = "train" if place < train else "validation"
    return splits


def _drawn_of(
    split: str, own: Sequence[str], size: int, kept: Sequence[tuple[Row, str]], config: DataConfig
) -> list[int]:
    """Indices of `size` molecules of one split, drawn by group."""
    pool = [i for i, name in enumerate(own) if name == split]
    return [pool[i] for i in _draw([kept[i][1] or str(i) for i in pool], [size], config)[0]]


def _draw(groups: Sequence[str], sizes: Sequence[int], config: DataConfig) -> list[list[int]]:
    """One list of indices per size, made of whole groups in random order.

    A group that no longer fits into a list goes to the next list, or to none. Groups of one molecule fill the rest.
    """
    members: dict[str, list[int]] = {}
    for i, group in enumerate(groups):
        members.setdefault(group, []).append(i)
    order = np.random.default_rng(config.split_seed).permutation(len(members))
    names = sorted(members)
    lists: list[list[int]] = [[] for _ in sizes]
    for k in order:
        group_members = members[names[k]]
        for chosen, size in zip(lists, sizes, strict=True):
            if len(chosen) + len(group_members) <= size:
                chosen += group_members
                break
    if not all(lists):
        raise MolgenError(
            f"{config.source}: too few groups of related molecules to split by group",
            "try --set data.split=random",
        )
    return lists
