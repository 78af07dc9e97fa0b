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
from molgen.metrics.known import TrainingIndex
from molgen.metrics.metric import BenchmarkResult, Chemistry, Metric, MetricValues, Row
from molgen.metrics.profile import MoleculeTable
from molgen.metrics.references import ComparisonSets, ReferenceCache, ReferenceSet, unparsed_note
from molgen.metrics.similarity import circles, nearest, neighbours

PARTS = (
    *("canonical", "fingerprint", "scaffold", "properties", "filters"),
    *("radicals_fragments_charge", "alerts", "ring_systems", "parent", "functional_groups"),
)
ALERT_SETS = ("PAINS", "BRENK", "NIH")
FILTER_CAUSES = ("charge", "element", "ring", "MCF", "PAINS")
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
CIRCLES_DISTANCE = 0.75
SHOWN = 120
"""Samples whose nearest training molecule is looked up, for the report's grid."""


def chem_figures(
    molecules: MoleculeTable,
    training: TrainingIndex | None,
    similarity: npt.NDArray[np.floating[Any]] | None,
    held_out: TrainingIndex | Set[str] | None,
) -> Chemistry:
    """`chem/…` figures of molecules with PARTS.

    `training` is the training set, `similarity` each molecule's Tanimoto similarity to its nearest training neighbour,
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
    new_rings = _against_training(figures, molecules, scaffolds, training, similarity)
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
    training: TrainingIndex | None,
    similarity: npt.NDArray[np.floating[Any]] | None,
) -> Counter[str]:
    names = ("new_ring_systems", "scaffold_novelty", "parent_novelty", "nearest", "nearest_0.8", "nearest_1")
    if training is None or similarity is None:
        for name in names:
            figures.missing(f"chem/{name}", "nothing to compare with but itself, or no training set (--train)")
        return Counter()
    rings = [cell.split() for cell in molecules.strings("ring_systems")]
    new = training.missing("ring_systems", {ring for cell in rings for ring in cell})
    parents = set(molecules.strings("parent"))
    figures.values["chem/new_ring_systems"] = _share(any(ring in new for ring in cell) for cell in rings)
    if scaffolds:
        figures.values["chem/scaffold_novelty"] = len(training.missing("scaffold", scaffolds)) / len(scaffolds)
    else:
        figures.missing("chem/scaffold_novelty", "no molecule has a ring")
    figures.values["chem/parent_novelty"] = len(training.missing("parent", parents)) / len(parents)
    figures.values["chem/nearest"] = float(similarity.mean())
    figures.values["chem/nearest_0.8"] = float((similarity >= 0.8).mean())
    # bits are equal where the similarity is 1, so nothing is lost to rounding
    figures.values["chem/nearest_1"] = float((similarity >= 1).mean())
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
    counts = Counter(word for cell in cells for word in dict.fromkeys(cell))
    return {name: count / n for name, count in counts.most_common()}


class ChemReferences(NamedTuple):
    """The training set, whole and as many molecules of it as there are samples; the held-out one likewise."""

    training: ReferenceSet | None
    training_index: TrainingIndex | None
    floor: MoleculeTable | None
    held_out: TrainingIndex | None
    held_out_molecules: MoleculeTable | None
    notes: list[str]


def resolve(sets: ComparisonSets, references: ReferenceCache, n: int) -> ChemReferences:
    """All training molecules with their fingerprints, however many there are."""
    index = held_out = floor = others = None
    notes: list[str] = []
    if sets.training is not None:
        index = references.index(sets.training, ("canonical", "parent", "scaffold", "ring_systems"), True)
        notes += unparsed_note(sets.training, index)
        floor = references.random_table(sets.training, n, "random", PARTS) if n else None
    if sets.held_out is not None:
        held_out = references.index(sets.held_out, ("canonical",))
        notes += unparsed_note(sets.held_out, held_out)
        others = references.random_table(sets.held_out, n, "random", PARTS) if n else None
    return ChemReferences(sets.training, index, floor, held_out, others, notes)


def compute(samples: MoleculeTable, references: ChemReferences) -> BenchmarkResult:
    """The figures of samples, training and held-out molecules, each with what a page shows of them."""
    index, result = references.training_index, BenchmarkResult(notes=references.notes)
    similarity = None
    if index is not None and references.training is not None:
        similarity = nearest(samples.numbers("fingerprint"), index.fingerprints, "neighbours in training")
        result.nearest["samples"] = similarity
        result.neighbours = _neighbours(samples, index, references.training)
    result.chemistry["samples"] = chem_figures(samples, index, similarity, references.held_out)
    result.figures = result.chemistry["samples"].figures
    result.properties["samples"] = samples.numbers("properties")
    if (floor := references.floor) is not None:
        result.chemistry["training"] = chem_figures(floor, None, None, references.held_out)
        result.baseline("floor").add(result.chemistry["training"].figures)
        result.properties["training"] = floor.numbers("properties")
    if (others := references.held_out_molecules) is not None:
        similarity = None
        if index is not None:
            label = "neighbours of held-out molecules"
            similarity = nearest(others.numbers("fingerprint"), index.fingerprints, label)
            result.nearest["held-out"] = similarity
        result.chemistry["held-out"] = chem_figures(others, index, similarity, None)
        result.baseline("held-out").add(result.chemistry["held-out"].figures)
        result.properties["test"] = others.numbers("properties")
    return result


def _neighbours(samples: MoleculeTable, index: TrainingIndex, training: ReferenceSet) -> dict[str, tuple[str, float]]:
    """Nearest training molecule and its similarity, of the first SHOWN distinct samples."""
    first = {smiles: row for row, smiles in reversed(list(enumerate(samples.strings("canonical"))))}
    rows = sorted(first.values())[:SHOWN]
    if not len(index.fingerprints):
        return {}
    similarity, places = neighbours(samples.numbers("fingerprint")[rows], index.fingerprints)
    listed = samples.strings("canonical")
    new = index.missing("canonical", first)
    # another molecule may have the same fingerprint: one that training has is its own nearest neighbour
    return {
        listed[row]: (training.smiles[index.rows[i]], s) if listed[row] in new else (listed[row], 1.0)
        for row, s, i in zip(rows, similarity.tolist(), places.tolist(), strict=True)
    }


METRIC = Metric(
    title="Chemistry",
    rows=(
        Row("chem/radicals", "with radicals", ".4f", -1),
        Row("chem/multi_fragment", "several fragments", ".4f"),
        Row("chem/net_charge", "net charge", ".4f"),
        *(Row(f"chem/{name}", f"{name} alerts", ".4f") for name in ALERT_SETS),
        Row("chem/filters", "pass MOSES' filters", ".4f"),
        *(Row(f"chem/filters_{cause}", f"  rejected: {cause}", ".4f") for cause in FILTER_CAUSES),
        *(
            Row(f"chem/{name}_q{round(100 * q):02}", f"{name} {round(100 * q):02} % quantile", ".3f")
            for name in ("QED", "SA")
            for q in QUANTILES
        ),
        Row("chem/new_ring_systems", "new ring systems", ".4f"),
        Row("chem/scaffold_novelty", "scaffold novelty", ".4f"),
        Row("chem/scaffolds_per_1000", "scaffolds per 1,000", ".0f"),
        Row("chem/parent_novelty", "novelty of parents", ".4f"),
        Row("chem/nearest", "nearest in training", ".3f"),
        Row("chem/nearest_0.8", "  at least 0.8", ".4f"),
        Row("chem/nearest_1", "  equal to 1", ".4f"),
        Row("chem/rediscovered", "held-out rediscovered", ".4f", 1),
        Row("chem/circles", f"#Circles ({CIRCLES_DISTANCE})", ","),
    ),
    parts=PARTS,
    resolve=resolve,
    compute=compute,
    size="chem/n",
    thorough=True,
)
