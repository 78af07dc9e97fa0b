"""What a model can be asked for: the values of each molecule under each condition, and the text that asks for some.

A condition is a property that RDKit computes, or a column of the table, or a formula of columns. A column is read as a
target is, with the same checks of units and relations.
"""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

from molgen.chem.conditions import number
from molgen.chem.descriptors import PROPERTIES
from molgen.chem.pool import Workers
from molgen.chem.smiles import RDKIT_VERSION
from molgen.config import Config
from molgen.data.download import data_directory
from molgen.data.labels import LabelArrays, Labels, Scales
from molgen.data.targets import CLASSES, target_name
from molgen.errors import MolgenError
from molgen.runtime.cache import LARGE, Arrays, cached, expect
from molgen.runtime.files import content_of, write_atomically

COMPUTED = tuple(name for name in PROPERTIES if name not in ("alerts", "inchikey"))
"""The properties that can be asked for: numbers that RDKit computes."""
NEAR = 0.25
"""Standard deviations up to which a training molecule is near a value that is asked for."""
FEW = 30
"""Fewer near training molecules are warned of."""
MOST_MOLECULES = 2_000_000
"""Training molecules, whose values are held by row; a larger corpus is shown window by window."""
_MOST_BYTES = 2**30
_VERSION, _FORMAT = "1", "molgen conditions 1"
_ASKED = re.compile(r"\s*(?:`([^`]+)`|([^=<>,`]+?))\s*(==?|>=?|<=?)\s*([^=<>,]+?)\s*(?:,|$)")
_SIDES = {"=": 0, "==": 0, ">": 1, ">=": 1, "<": -1, "<=": -1}
_WORDS = {word: float(i) for pair in CLASSES for i, word in enumerate(pair)}


class Wish(NamedTuple):
    """One value that is asked for."""

    place: int
    """Of its condition in the table."""
    name: str
    value: float
    side: int
    """1 if the true value should be above, −1 if below, 0 if it should be the value."""

    @property
    def text(self) -> str:
        """Such as `logp = 2.5`."""
        return f"{self.name} {'<=>'[self.side + 1]} {self.value:g}"


class ConditionTable(NamedTuple):
    """The conditions of a run: their names, their scales, and the values of its training and validation molecules."""

    names: tuple[str, ...]
    scales: Scales
    train: LabelArrays
    validation: LabelArrays

    def standardised(self, labels: LabelArrays) -> npt.NDArray[np.float32]:
        """(N, C) values of some molecules in standard deviations from the mean, NaN where there is none."""
        values: npt.NDArray[np.float32] = ((labels.values - self.scales.centre) / self.scales.spread).astype(np.float32)
        return values

    def parse(self, text: str) -> tuple[Wish, ...]:
        """The values that a text such as `logp = 2.5, pIC50 = 8` asks for.

        Raises MolgenError for another text, an unknown name, a name twice, and a bound where training saw none.
        """
        found: dict[str, Wish] = {}
        end = 0
        hint = f'write such as "{self.names[0]} = {self.scales.centre[0]:.3g}"; this run knows {", ".join(self.names)}'
        for match in _ASKED.finditer(text):
            if match.start() != end:
                break
            end = match.end()
            name, sign, value = (match[1] or match[2]).strip(), match[3], match[4].strip()
            if name not in self.names:
                raise MolgenError(f"--condition: no condition {name!r}", hint)
            if name in found:
                raise MolgenError(f"--condition: {name} is asked for twice", "once each")
            found[name] = self._wish(name, sign, value)
        if not found or text[end:].strip():
            raise MolgenError(f"--condition {text[:80]}: not understood", hint)
        return tuple(found.values())

    def _wish(self, name: str, sign: str, text: str) -> Wish:
        place, side = self.names.index(name), _SIDES[sign]
        is_class = bool(self.scales.classes[place])
        value = number(text)
        if is_class:
            value = value if value is not None else _WORDS.get(text.casefold())
            if value not in (0.0, 1.0) or side:
                raise MolgenError(f"--condition: {name} is a class", f"{name} = 1 or {name} = 0")
        if value is None or not math.isfinite(value):
            raise MolgenError(f"--condition: {name}: {text!r} is no number", f"such as {self.scales.centre[place]:.3g}")
        if side and not (self.train.sides[:, place] == side).any():
            raise MolgenError(
                f"--condition: {name} {sign} {text}: training saw no such bound", f"ask for a value: {name} = {text}"
            )
        return Wish(place, name, value, side)

    def arrays(self, wishes: Sequence[Wish]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int8]]:
        """(standardised values, sides) for the model, (1, C) each; NaN where nothing is asked for."""
        values = np.full((1, len(self.names)), np.nan)
        sides = np.zeros((1, len(self.names)), np.int8)
        for wish in wishes:
            values[0, wish.place], sides[0, wish.place] = wish.value, wish.side
        return self.standardised(LabelArrays(values, sides)), sides

    def near(self, wishes: Sequence[Wish]) -> int:
        """Training molecules that are near in all that is asked for: a class the same, a value within `NEAR`."""
        near = np.ones(len(self.train.values), bool)
        for wish in wishes:
            values, sides = self.train.values[:, wish.place], self.train.sides[:, wish.place]
            distance = (values - wish.value) / self.scales.spread[wish.place]
            if self.scales.classes[wish.place]:
                near &= values == wish.value
            elif wish.side:  # a value beyond the bound, or a bound at least as far
                near &= (distance * wish.side >= 0) & ((sides == 0) | (sides == wish.side))
            else:
                near &= (np.abs(distance) <= NEAR) & (sides == 0)
        return int(near.sum())

    def range(self, place: int) -> tuple[float, float]:
        """The least and the largest value of a condition in training."""
        values = self.train.values[:, place]
        return float(np.nanmin(values)), float(np.nanmax(values))

    def remarks(self, wishes: Sequence[Wish]) -> list[tuple[bool, str]]:
        """(whether it is a warning, a line) on how well training covers what is asked for."""
        lines, total = [], len(self.train.values)
        for wish in wishes:
            low, high = self.range(wish.place)
            near = self.near([wish])
            seen = f"training saw {low:.4g} to {high:.4g}, {near:,} of {total:,} molecules near it"
            if not low <= wish.value <= high:
                lines.append((True, f"{wish.text} is outside what the run knows: {seen}"))
            elif near < FEW:
                lines.append((True, f"{wish.text} is rare: {seen}"))
        if len(wishes) > 1 and not lines and (near := self.near(wishes)) < FEW:
            lines.append((True, f"together they are rare: {near:,} of {total:,} training molecules are near all of it"))
        if not lines:
            lines.append((False, f"{self.near(wishes):,} of {total:,} training molecules are near what is asked for"))
        return lines


def condition_names(config: Config) -> tuple[str, ...]:
    """The names of a configuration's conditions, in the order of the model's inputs."""
    return tuple(target_name(text) for text in config.data.conditions)


def measured(conditions: Sequence[str]) -> list[str]:
    """The conditions that are columns of the table, or formulas of them."""
    return [text for text in conditions if text.strip() not in COMPUTED]


def with_measured_targets(config: Config) -> Config:
    """The configuration with each measured condition as a target too: so the run can say what came of it.

    Raises MolgenError for a condition that is named twice.
    """
    names = condition_names(config)
    for name in names:
        if names.count(name) > 1:
            raise MolgenError(f"--condition {name}: is named twice", "once each")
    known = {target_name(text) for text in config.data.targets}
    more = [text for text in measured(config.data.conditions) if target_name(text) not in known]
    if not more:
        return config
    data = config.data.model_copy(update={"targets": [*config.data.targets, *more]})
    return config.model_copy(update={"data": data})


def condition_table(
    config: Config,
    labels: Labels,
    split: Mapping[str, Sequence[str]],
    workers: Workers,
    scales: Scales | None = None,
) -> ConditionTable:
    """The values of the molecules of the splits `train` and `validation`; `labels` are those of the targets.

    `scales` are those of the run that it starts from, else they are of the training molecules.
    Raises MolgenError for more molecules than `MOST_MOLECULES`, and for a condition without a value in training.
    """
    if len(split["train"]) > MOST_MOLECULES:
        raise MolgenError(
            f"data.conditions: {len(split['train']):,} training molecules, at most {MOST_MOLECULES:,}",
            "--set data.train_size=2000000",
        )
    names = condition_names(config)
    found = {name: _values(config, names, labels, smiles, workers) for name, smiles in split.items()}
    for name, column in zip(names, found["train"].values.T, strict=True):
        if np.isnan(column).all():
            raise MolgenError(f"--condition {name}: no training molecule has a value", "is it the right column?")
    return ConditionTable(names, scales or found["train"].scales, found["train"], found["validation"])


def _values(
    config: Config, names: Sequence[str], labels: Labels, smiles: Sequence[str], workers: Workers
) -> LabelArrays:
    computed = [name for name in names if name in COMPUTED]
    columns = computed_values(smiles, computed, workers)
    targets = [target_name(text) for text in config.data.targets]
    of_targets = LabelArrays.of(labels, smiles, len(targets)) if len(computed) < len(names) else None
    values, sides = np.full((len(smiles), len(names)), np.nan), np.zeros((len(smiles), len(names)), np.int8)
    for place, name in enumerate(names):
        if name in COMPUTED:
            values[:, place] = columns[:, computed.index(name)]
        elif of_targets is not None:
            own = targets.index(name)
            values[:, place], sides[:, place] = of_targets.values[:, own], of_targets.sides[:, own]
    return LabelArrays(values, sides)


def computed_values(smiles: Sequence[str], names: Sequence[str], workers: Workers) -> npt.NDArray[np.float64]:
    """(N, names) properties by RDKit, NaN for what it does not parse; cached if there are many molecules."""

    def build() -> Arrays:
        rows = workers.map("tabulate", smiles, "computing properties", columns=list(names))
        cells = [[(row or {}).get(name, math.nan) for name in names] for row in rows]
        return {"values": np.array(cells, np.float64).reshape(-1, len(names))}

    def read(arrays: Arrays) -> npt.NDArray[np.float64]:
        expect(arrays["values"], np.float64, (len(smiles), len(names)))
        return arrays["values"]

    if not names or len(smiles) < LARGE:
        return read(build())
    lost = len(workers.lost)
    key = [_VERSION, RDKIT_VERSION, *names, "", *smiles]
    return cached(data_directory() / "cache", "properties", key, build, read, lambda: len(workers.lost) == lost)


def save_conditions(path: Path, table: ConditionTable) -> None:
    """Writes a run's conditions as a safetensors file."""
    arrays: dict[str, npt.NDArray[Any]] = {
        "centre": table.scales.centre,
        "spread": table.scales.spread,
        "classes": table.scales.classes.astype(np.uint8),
    }
    for name, labels in (("train", table.train), ("validation", table.validation)):
        arrays |= {f"{name}.values": labels.values.astype(np.float32), f"{name}.sides": labels.sides}
    write_atomically(path, save(arrays, {"format": _FORMAT}))


def load_conditions(path: Path, names: Sequence[str]) -> ConditionTable:
    """The conditions of a file. Raises MolgenError if it is damaged or of other conditions."""
    try:
        arrays = load(content_of(path, _MOST_BYTES))
        n = len(names)
        centre, spread, classes = arrays["centre"], arrays["spread"], arrays["classes"]
        for array, kind in ((centre, np.float64), (spread, np.float64), (classes, np.uint8)):
            expect(array, kind, (n,))
        if not (np.isfinite(centre).all() and np.isfinite(spread).all() and (spread > 0).all()):
            raise ValueError("its scales are no numbers")
        labels = []
        for split in ("train", "validation"):
            values, sides = arrays[f"{split}.values"], arrays[f"{split}.sides"]
            expect(values, np.float32, (None, n))
            expect(sides, np.int8, (len(values), n))
            if np.isinf(values).any():
                raise ValueError("a value is infinite")
            labels.append(LabelArrays(values.astype(np.float64), sides))
        if np.isnan(labels[0].values).all(axis=0).any():
            raise ValueError("a condition has no value")
    except (OSError, KeyError, ValueError, SafetensorError) as error:
        raise MolgenError(f"{path}: cannot be read: {error}", "restore the file, or train again") from None
    return ConditionTable(tuple(names), Scales(centre, spread, classes.astype(bool)), *labels)
