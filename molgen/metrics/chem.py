"""What a chemist asks of generated molecules: flaws, alerts, rings, scaffolds, neighbours, coverage.

Every figure is computed for the samples, for as many training molecules and for held-out molecules alike: none of
them means anything alone.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from molgen.chem.descriptors import MOSES_PROPERTIES
from molgen.metrics.basic import MetricValues
from molgen.metrics.known import TrainingIndex
from molgen.metrics.profile import MoleculeTable
from molgen.metrics.similarity import circles

PARTS = (
    *("canonical", "fingerprint", "scaffold", "properties", "filters"),
    *("radicals_fragments_charge", "alerts", "ring_systems", "parent", "functional_groups"),
)
ALERT_SETS = ("PAINS", "BRENK", "NIH")
FILTER_CAUSES = ("charge", "element", "ring", "MCF", "PAINS")
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
CIRCLES_DISTANCE = 0.75


class Chemistry(NamedTuple):
    """Figures, and what a page shows beside them."""

    figures: MetricValues
    shares: dict[str, dict[str, float]]
    """Share of the molecules that have an alert or a functional group, by name."""
    new_rings: Counter[str]
    """Ring systems that training lacks, by the number of molecules that have them."""


def chem_figures(
    molecules: MoleculeTable,
    known: TrainingIndex | None,
    nearest: npt.NDArray[np.floating[Any]] | None,
    held_out: TrainingIndex | Set[str] | None,
) -> Chemistry:
    """`chem/…` figures of molecules with PARTS.

    `known` is the training set, `nearest` each molecule's Tanimoto similarity to its nearest training neighbour,
    `held_out` the molecules to be rediscovered, by their canonical SMILES; None where there is no such set.
    """
    figures = MetricValues()
    n = len(molecules)
    if not n:
        figures.missing("chem/radicals", "no valid samples")
        return Chemistry(figures, {}, Counter())
    radicals, fragments, charges = molecules.numbers("radicals_fragments_charge").T
    alert_cells = [cell.split() for cell in molecules.strings("alerts")]
    put = figures.values.__setitem__
    put("chem/n", n)
    put("chem/radicals", float((radicals > 0).mean()))
    put("chem/multi_fragment", float((fragments > 1).mean()))
    put("chem/net_charge", float((charges != 0).mean()))
    for name in ALERT_SETS:
        put(f"chem/{name}", _share(any(alert.startswith(f"{name}:") for alert in cell) for cell in alert_cells))
    if "filters" in molecules.columns:
        causes = [cell.split() for cell in molecules.strings("filters")]
        put("chem/filters", _share(not cell for cell in causes))
        for cause in FILTER_CAUSES:
            put(f"chem/filters_{cause}", _share(cause in cell for cell in causes))
    else:
        figures.missing("chem/filters", "MOSES' alert lists are not here: `molgen data get moses`")
    for name in ("QED", "SA"):
        values = np.quantile(molecules.numbers("properties")[:, MOSES_PROPERTIES.index(name)], QUANTILES)
        for quantile, value in zip(QUANTILES, values.tolist(), strict=True):
            put(f"chem/{name}_q{round(100 * quantile):02}", value)
    scaffolds = {s for s in molecules.strings("scaffold") if s}
    put("chem/scaffolds_per_1000", 1000 * len(scaffolds) / n)
    put("chem/circles", circles(molecules.numbers("fingerprint"), CIRCLES_DISTANCE))
    new_rings = _against_training(figures, molecules, scaffolds, known, nearest)
    if held_out is None:
        figures.missing("chem/rediscovered", "no held-out molecules")
    else:
        distinct = set(molecules.strings("canonical"))
        if isinstance(held_out, TrainingIndex):
            new, wanted = held_out.missing("canonical", distinct), len(held_out.keys["canonical"])
        else:
            new, wanted = distinct - held_out, len(held_out)
        put("chem/rediscovered", (len(distinct) - len(new)) / max(wanted, 1))
    shares = {
        "alerts": _shares(alert_cells, n),
        "functional groups": _shares([cell.split() for cell in molecules.strings("functional_groups")], n),
    }
    return Chemistry(figures, shares, new_rings)


def _against_training(
    figures: MetricValues,
    molecules: MoleculeTable,
    scaffolds: Set[str],
    known: TrainingIndex | None,
    nearest: npt.NDArray[np.floating[Any]] | None,
) -> Counter[str]:
    names = ("new_ring_systems", "scaffold_novelty", "parent_novelty", "nearest", "nearest_0.8", "nearest_1")
    if known is None or nearest is None:
        for name in names:
            figures.missing(f"chem/{name}", "nothing to compare with but itself, or no training set (--train)")
        return Counter()
    rings = [cell.split() for cell in molecules.strings("ring_systems")]
    new = known.missing("ring_systems", {ring for cell in rings for ring in cell})
    parents = set(molecules.strings("parent"))
    figures.values["chem/new_ring_systems"] = _share(any(ring in new for ring in cell) for cell in rings)
    if scaffolds:
        figures.values["chem/scaffold_novelty"] = len(known.missing("scaffold", scaffolds)) / len(scaffolds)
    else:
        figures.missing("chem/scaffold_novelty", "no molecule has a ring")
    figures.values["chem/parent_novelty"] = len(known.missing("parent", parents)) / len(parents)
    figures.values["chem/nearest"] = float(nearest.mean())
    figures.values["chem/nearest_0.8"] = float((nearest >= 0.8).mean())
    # bits are equal where the similarity is 1, so nothing is lost to rounding
    figures.values["chem/nearest_1"] = float((nearest >= 1).mean())
    return Counter(ring for cell in rings for ring in cell if ring in new)


def largest_differences(
    ours: Mapping[str, float], theirs: Mapping[str, float], most: int
) -> list[tuple[str, float, float]]:
    """(name, our share, their share), the largest absolute difference first."""
    names = set(ours) | set(theirs)
    rows = [(name, ours.get(name, 0.0), theirs.get(name, 0.0)) for name in names]
    return sorted(rows, key=lambda row: (-abs(row[1] - row[2]), row[0]))[:most]


def _share(flags: Iterable[bool]) -> float:
    listed = list(flags)
    return sum(listed) / len(listed)


def _shares(cells: Sequence[Sequence[str]], n: int) -> dict[str, float]:
    counts = Counter(word for cell in cells for word in set(cell))
    return {name: count / n for name, count in counts.most_common()}
