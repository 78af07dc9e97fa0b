"""The distribution-learning benchmarks of GuacaMol (Brown et al. 2019, J. Chem. Inf. Model. 59:1096), as coded.

Stereo is removed. Uniqueness and FCD are of the first 10,000 valid samples, novelty and KL of the first 10,000 unique
ones, both against 10,000 random training molecules (novelty: against all). Fewer are used as they are; the figures
`guacamol/n_valid` and `guacamol/n_unique` say how many there were.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from molgen.chem.descriptors import GUACAMOL_DESCRIPTORS
from molgen.metrics.chemnet import Gaussian, frechet_distance, gaussian
from molgen.metrics.known import TrainingIndex
from molgen.metrics.metric import BenchmarkResult, Metric, MetricValues, Row
from molgen.metrics.profile import MoleculeTable
from molgen.metrics.references import ComparisonSets, ReferenceCache, ReferenceSet, baseline_tables, unparsed_note
from molgen.metrics.similarity import within

PARTS = ("canonical", "smiles_no_stereo", "fingerprint_4096", "guacamol")
SIZE = 10_000
_CONTINUOUS = ("BertzCT", "MolLogP", "MolWt", "TPSA")
_FEWEST = 2

Array = npt.NDArray[np.float64]


class Baseline(NamedTuple):
    """The training molecules that KL and FCD are against."""

    descriptors: dict[str, Array]
    gaussian: Gaussian


def baseline(training: MoleculeTable) -> Baseline:
    """Of 10,000 random training molecules with PARTS and `activations`."""
    distinct = training.take(_first_of_each(training.strings("smiles_no_stereo")))
    return Baseline(_descriptors(distinct), gaussian(training.numbers("activations")))


def guacamol_figures(samples: MoleculeTable, training: Baseline | None, index: TrainingIndex | None) -> MetricValues:
    """`guacamol/…` figures of samples with PARTS and `activations`; `index` is of the whole training set."""
    figures = MetricValues()
    valid = samples.take(np.arange(min(len(samples), SIZE)))
    unique = samples.take(_first_of_each(samples.strings("canonical"))[:SIZE])
    no_stereo = samples.strings("smiles_no_stereo")
    figures.values |= {"guacamol/n_valid": len(valid), "guacamol/n_unique": len(unique)}
    if samples.n_samples:
        figures.values["guacamol/validity"] = len(samples) / samples.n_samples
    if len(valid):
        figures.values["guacamol/uniqueness"] = len(set(no_stereo[: len(valid)])) / len(valid)
    if index is not None and len(unique):
        figures.values["guacamol/novelty"] = len(
            index.missing("smiles_no_stereo", set(unique.strings("smiles_no_stereo")))
        ) / len(unique)
    if training is not None and len(unique) >= _FEWEST:
        distinct = unique.take(_first_of_each(unique.strings("smiles_no_stereo")))
        figures.add(_divergences(training.descriptors, _descriptors(distinct)))
    if training is not None and len(valid) >= _FEWEST:
        distance = frechet_distance(gaussian(valid.numbers("activations")), training.gaussian)
        figures.values |= {"guacamol/FCD": distance, "guacamol/FCD_score": float(np.exp(-0.2 * distance))}
    lacking = "no training set: name it with --train" if index is None else "fewer than two training molecules"
    reason = "fewer than two valid samples" if len(valid) < _FEWEST else lacking
    for name in ("validity", "uniqueness", "novelty", "KL_score", "FCD", "FCD_score"):
        if f"guacamol/{name}" not in figures.values:
            figures.missing(f"guacamol/{name}", reason)
    return figures


def continuous_divergence(reference: Array, samples: Array) -> float:
    """KL divergence in nats of two kernel density estimates at 1,000 points that span both.

    Infinite where one set has a single value: no density can be estimated.
    """
    if np.ptp(reference) == 0 or np.ptp(samples) == 0:
        same = np.ptp(np.concatenate([reference, samples])) == 0
        return 0.0 if same else float("inf")
    from scipy.stats import entropy, gaussian_kde  # a second to import, for this benchmark alone

    both = np.concatenate([reference, samples])
    points = np.linspace(both.min(), both.max(), 1_000)
    p, q = (gaussian_kde(values)(points) + 1e-10 for values in (reference, samples))
    return float(entropy(p, q))


def discrete_divergence(reference: Array, samples: Array) -> float:
    """KL divergence in nats of two histograms of ten bins that span the reference; what lies outside is left out."""
    p, edges = np.histogram(reference, bins=10, density=True)
    inside = (samples >= edges[0]) & (samples <= edges[-1])
    if not inside.any():
        return float("inf")
    from scipy.stats import entropy

    q, _ = np.histogram(samples, bins=edges, density=True)
    return float(entropy(p + 1e-10, q + 1e-10))


def _divergences(reference: dict[str, Array], samples: dict[str, Array]) -> MetricValues:
    figures = MetricValues()
    scores = []
    for name in (*GUACAMOL_DESCRIPTORS, "internal_similarity"):
        discrete = name in GUACAMOL_DESCRIPTORS and name not in _CONTINUOUS
        divergence = (discrete_divergence if discrete else continuous_divergence)(reference[name], samples[name])
        scores.append(np.exp(-divergence))
        if np.isfinite(divergence):
            figures.values[f"guacamol/KL_{name}"] = divergence
        else:
            figures.missing(f"guacamol/KL_{name}", "infinite: no overlap, or a single value in one set")
    figures.values["guacamol/KL_score"] = float(np.mean(scores))
    return figures


def _descriptors(distinct: MoleculeTable) -> dict[str, Array]:
    columns: npt.NDArray[Any] = distinct.numbers("guacamol")
    similarity = within(distinct.numbers("fingerprint_4096"), "internal similarity").nearest_other
    return {name: columns[:, i] for i, name in enumerate(GUACAMOL_DESCRIPTORS)} | {"internal_similarity": similarity}


def _first_of_each(strings: list[str]) -> npt.NDArray[np.int64]:
    """Rows at which a string occurs for the first time."""
    first: dict[str, int] = {}
    for row, string in enumerate(strings):
        first.setdefault(string, row)
    return np.array(list(first.values()), np.int64)


class GuacamolReferences(NamedTuple):
    """The whole training set, its part for KL and FCD, and its baselines; None without a training set."""

    training: Baseline | None
    training_index: TrainingIndex | None
    baselines: dict[str, MoleculeTable]
    notes: list[str]


def resolve(sets: ComparisonSets, references: ReferenceCache, n: int) -> GuacamolReferences:
    """The training set and baselines of at most SIZE molecules."""
    if sets.training is None:
        return GuacamolReferences(None, None, {}, [])
    index = references.index(sets.training, ("canonical", "smiles_no_stereo"))
    notes = unparsed_note(sets.training, index)
    training = training_baseline(sets.training, references) if index.parsed > 1 else None
    n = min(n, SIZE)
    if not n:
        return GuacamolReferences(training, index, {}, notes)
    floor = references.random_table(sets.training, n, "random", METRIC.parts)
    add_carbon = references.random_table(sets.training, n, "add-carbon", METRIC.parts)
    return GuacamolReferences(training, index, baseline_tables(floor, add_carbon, index.parsed, n), notes)


def training_baseline(training: ReferenceSet, references: ReferenceCache) -> Baseline:
    """10,000 random training molecules as KL and FCD need them."""
    return baseline(references.random_table(training, SIZE, "baseline", METRIC.parts))


def compute(samples: MoleculeTable, references: GuacamolReferences) -> BenchmarkResult:
    """The figures of the samples and of the baselines."""
    training, index = references.training, references.training_index
    result = BenchmarkResult(guacamol_figures(samples, training, index), notes=references.notes)
    for name, table in references.baselines.items():
        result.baseline(name).add(guacamol_figures(table, training, index))
    return result


METRIC = Metric(
    title="GuacaMol",
    rows=(
        Row("guacamol/n_valid", "n of uniqueness and FCD", ","),
        Row("guacamol/n_unique", "n of novelty and KL", ","),
        Row("guacamol/validity", "validity", ".4f", 1),
        Row("guacamol/uniqueness", "uniqueness", ".4f", 1),
        Row("guacamol/novelty", "novelty", ".4f", 1),
        Row("guacamol/KL_score", "KL score", ".4f", 1),
        Row("guacamol/FCD", "FCD", ".3f", -1),
        Row("guacamol/FCD_score", "FCD score", ".4f", 1),
    ),
    parts=(*PARTS, "activations"),
    resolve=resolve,
    compute=compute,
    size="guacamol/n_valid",
    most_distinct=SIZE,
)
