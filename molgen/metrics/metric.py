"""What a family of figures is: what it needs, how its figures are computed, how they are shown.

A family is one module with a constant METRIC, named in `molgen.metrics.MetricName`. `basic.py` is the shortest example.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from molgen.metrics.profile import MoleculeTable
from molgen.metrics.references import ComparisonSets, ReferenceCache

References = TypeVar("References")


class Row(NamedTuple):
    """A figure: its name in JSON, its title, its format, and whether more (+1) or less (-1) is better, or neither."""

    key: str
    title: str
    style: str
    better: int = 0


def rows_of(keys: Sequence[str], style: str, better: int = 0) -> tuple[Row, ...]:
    """Rows whose title is their name in JSON."""
    return tuple(Row(key, key, style, better) for key in keys)


@dataclass
class MetricValues:
    """Figures by name. One that cannot be computed is None, with its reason."""

    values: dict[str, float | int | None] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)

    def missing(self, name: str, reason: str) -> None:
        """Records why a figure is None."""
        self.values[name] = None
        self.reasons[name] = reason

    def add(self, other: "MetricValues") -> None:
        """Adds another set's figures and reasons."""
        self.values |= other.values
        self.reasons |= other.reasons


class Chemistry(NamedTuple):
    """Figures of `chem`, and what the report shows with them."""

    figures: MetricValues
    shares: dict[str, dict[str, float]]
    """Share of the molecules that have an alert or a functional group, by name."""
    new_rings: Counter[str]
    """Ring systems that training lacks, by the number of molecules that have them."""


@dataclass
class BenchmarkResult:
    """Figures of the samples and of the baselines by name, and what the report shows with them."""

    figures: MetricValues = field(default_factory=MetricValues)
    baselines: dict[str, MetricValues] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    chemistry: dict[str, Chemistry] = field(default_factory=dict)
    properties: dict[str, npt.NDArray[np.float64]] = field(default_factory=dict)
    """logP, SA, QED and weight of samples and of what they are compared with, (n, 4) each."""
    nearest: dict[str, npt.NDArray[np.float32]] = field(default_factory=dict)
    """Tanimoto similarity to the nearest training molecule, of samples and of held-out molecules."""

    neighbours: dict[str, tuple[str, float]] = field(default_factory=dict)
    """Nearest training molecule and its Tanimoto similarity, of the first distinct samples by canonical SMILES."""

    def baseline(self, name: str) -> MetricValues:
        """The figures of a baseline, made when first asked for."""
        return self.baselines.setdefault(name, MetricValues())

    def add(self, other: "BenchmarkResult") -> None:
        """Adds the figures of another family. A repeated note and a second property table are left out."""
        self.figures.add(other.figures)
        for name, figures in other.baselines.items():
            self.baseline(name).add(figures)
        self.notes += [note for note in other.notes if note not in self.notes]
        for name, values in other.properties.items():
            self.properties.setdefault(name, values)
        self.chemistry |= other.chemistry
        self.nearest |= other.nearest
        self.neighbours |= other.neighbours


@dataclass(frozen=True)
class Published:
    """Figures from a paper, by the name of the model, and of how many samples they are."""

    n: int
    figures: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Metric(Generic[References]):
    """A family of figures.

    `resolve` gets from the cache, or computes, all that some samples are compared with: (the sets to compare with, the
    cache, the number of valid samples) → whatever `compute` takes as its second argument. `compute` makes the figures
    of the samples and of the baselines, and the notes; it reads no file and asks no worker.
    """

    title: str
    """Of its section in the table."""
    rows: tuple[Row, ...]
    """Its figures in the order of the table."""
    parts: tuple[str, ...]
    """What it needs of each molecule: names of `descriptors.PARTS`, `filters`, `activations`."""
    resolve: Callable[[ComparisonSets, ReferenceCache, int], References]
    compute: Callable[[MoleculeTable, References], BenchmarkResult]
    size: str = ""
    """The name of the figure that is the number of molecules of a baseline."""
    most_distinct: int = 0
    """A run is drawn from until it gave so many distinct valid molecules (or as many as samples), if not 0."""
    thorough: bool = False
    """Whether it uses all training molecules, also of a very large set; other families may then do so too."""
    published: Published | None = None
    """Published figures, shown with figures of as many samples or more."""
