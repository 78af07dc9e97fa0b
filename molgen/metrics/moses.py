"""The MOSES benchmark (Polykovskiy et al. 2020, Front. Pharmacol. 11:565644), figure by figure as its code computes it.

Where the paper and the code of molsets 0.3.1 differ, the code is the definition: IntDiv2 takes the root row by row;
Filters are MCF and PAINS alerts, no formal charge, only C N S O F Cl Br H, no ring of eight or more; Scaf counts
scaffolds of at least two rings; Wasserstein distances are to the test set. `Novelty` canonicalises both sides with
the same RDKit; `Novelty/shipped` compares with the training strings as they are, as the code does.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from molgen.chem.descriptors import MOSES_PROPERTIES
from molgen.config import NAMED
from molgen.data.download import MOSES_FILES, fetch, moses_file
from molgen.metrics import moses_statistics
from molgen.metrics.basic import basic_figures
from molgen.metrics.chemnet import frechet_distance, gaussian
from molgen.metrics.known import TrainingIndex
from molgen.metrics.metric import BenchmarkResult, Metric, MetricValues, Published, Row, rows_of
from molgen.metrics.moses_statistics import Statistics, scaffold_counts
from molgen.metrics.profile import MoleculeTable, describe
from molgen.metrics.references import (
    VERSION,
    ComparisonSets,
    Kind,
    ReferenceCache,
    ReferenceSet,
    baseline_tables,
    cached_size,
    named_set,
    unparsed_note,
)
from molgen.metrics.similarity import nearest, within
from molgen.runtime.cache import Arrays, expect
from molgen.runtime.stages import stage

PARTS = ("canonical", "fingerprint", "fragments", "scaffold", "properties", "filters")
FEWEST_FOR_FCD = 5_000
"""Below this many molecules FCD is mostly bias: it falls as 1/n."""
PUBLISHED_N = 30_000
# Table 2 and 3 of the paper and the repository's own README: means of three runs of 30,000 samples.
PUBLISHED: dict[str, dict[str, float]] = {
    "CharRNN (published)": {
        "valid": 0.975,
        "unique@10000": 0.9994,
        "FCD/Test": 0.073,
        "FCD/TestSF": 0.520,
        "SNN/Test": 0.6015,
        "Frag/Test": 0.9998,
        "Scaf/Test": 0.924,
        "Scaf/TestSF": 0.110,
        "IntDiv": 0.856,
        "IntDiv2": 0.850,
        "Filters": 0.994,
        "Novelty": 0.842,
    },
    "VAE (published)": {
        "valid": 0.977,
        "unique@10000": 0.9984,
        "FCD/Test": 0.099,
        "FCD/TestSF": 0.567,
        "SNN/Test": 0.626,
        "Frag/Test": 0.9994,
        "Scaf/Test": 0.939,
        "Scaf/TestSF": 0.059,
        "IntDiv": 0.856,
        "IntDiv2": 0.850,
        "Filters": 0.997,
        "Novelty": 0.695,
    },
    "JTN-VAE (published)": {
        "valid": 1.0,
        "unique@10000": 0.9996,
        "FCD/Test": 0.395,
        "FCD/TestSF": 0.938,
        "SNN/Test": 0.548,
        "Frag/Test": 0.9965,
        "Scaf/Test": 0.896,
        "Scaf/TestSF": 0.101,
        "IntDiv": 0.855,
        "IntDiv2": 0.849,
        "Filters": 0.976,
        "Novelty": 0.914,
    },
}


def moses_figures(
    samples: MoleculeTable, references: Mapping[str, Statistics], training: TrainingIndex | None
) -> MetricValues:
    """All of MOSES' figures, of samples with PARTS, `activations` and a column `nearest/NAME` for each reference.

    `references` holds the statistics of Test and, where there is one, TestSF; `nearest/Test` is the Tanimoto
    similarity of each sample to its nearest molecule of Test.
    """
    figures = MetricValues()
    n, valid = samples.n_samples, len(samples)
    _ratio(figures, "valid", valid, n, "no samples")
    canonical = samples.strings("canonical")
    for k in (1_000, 10_000):
        first = canonical[:k]
        _ratio(figures, f"unique@{k}", len(set(first)), len(first), "no valid samples")
    own_fragments, own_scaffolds = samples.counts("fragments"), scaffold_counts(samples)
    own_gaussian = gaussian(samples.numbers("activations")) if valid >= 2 else None
    if "TestSF" not in references:
        for name in ("FCD", "SNN", "Frag", "Scaf"):
            figures.missing(f"{name}/TestSF", "the reference has no test_scaffolds split")
    for name, reference in references.items():
        if own_gaussian is None:
            figures.missing(f"FCD/{name}", "fewer than two valid samples")
        elif reference.gaussian.n < 2:
            figures.missing(f"FCD/{name}", "fewer than two reference molecules")
        else:
            figures.values[f"FCD/{name}"] = frechet_distance(own_gaussian, reference.gaussian)
        if valid:
            figures.values[f"SNN/{name}"] = float(samples.numbers(f"nearest/{name}").mean())
        else:
            figures.missing(f"SNN/{name}", "no valid samples")
        _cosine(figures, f"Frag/{name}", reference.fragments, own_fragments, "no fragments")
        _cosine(figures, f"Scaf/{name}", reference.scaffolds, own_scaffolds, "no scaffold of two or more rings")
    if not valid:
        for name in ("IntDiv", "IntDiv2", "Filters", *MOSES_PROPERTIES, "Novelty"):
            figures.missing(name, "no valid samples")
        return figures
    if training is not None:
        distinct = set(canonical)
        figures.values["Novelty"] = len(training.missing("canonical", distinct)) / len(distinct)
        figures.values["Novelty/shipped"] = len(training.missing("shipped", distinct)) / len(distinct)
    else:
        figures.missing("Novelty", "no training set: name it with --train")
    similarity = within(samples.numbers("fingerprint"), "internal diversity")
    figures.values["IntDiv"] = float(1 - similarity.mean.mean())
    figures.values["IntDiv2"] = float(1 - np.sqrt(similarity.mean_square).mean())
    if "filters" in samples.columns:
        figures.values["Filters"] = samples.strings("filters").count("") / valid
    else:
        figures.missing("Filters", "MOSES' alert lists are not here: `molgen data get moses`")
    for column, name in enumerate(MOSES_PROPERTIES):
        figures.values[name] = wasserstein_distance(
            references["Test"].properties[:, column], samples.numbers("properties")[:, column]
        )
    return figures


def wasserstein_distance(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
    """First Wasserstein distance of two samples: the area between their cumulative distributions."""
    both = np.concatenate([a, b])
    order = np.argsort(both, kind="stable")
    steps = np.where(order < len(a), 1 / len(a), -1 / len(b))  # of the difference between the two distributions
    return float(np.abs(np.cumsum(steps)[:-1]) @ np.diff(both[order]))


def _ratio(figures: MetricValues, name: str, part: int, whole: int, reason: str) -> None:
    if whole:
        figures.values[name] = part / whole
    else:
        figures.missing(name, reason)


def _cosine(
    figures: MetricValues, name: str, reference: Mapping[str, int], own: Mapping[str, int], reason: str
) -> None:
    """Cosine similarity of two counts."""
    norms = _norm(reference) * _norm(own)
    if norms:
        figures.values[name] = sum(count * reference.get(key, 0) for key, count in own.items()) / norms
    else:
        figures.missing(name, f"{reason} in the {'samples' if reference else 'reference'}")


def _norm(counts: Mapping[str, int]) -> float:
    return float(np.sqrt(sum(count * count for count in counts.values())))


def size_notes(n_valid: int) -> list[str]:
    """What a reader of the figures must know about their sample size."""
    notes = []
    if n_valid < FEWEST_FOR_FCD:
        notes.append(f"FCD of {n_valid:,} molecules is biased upwards (at least {FEWEST_FOR_FCD:,} are needed)")
    if n_valid < 10_000:
        notes.append(f"unique@10000 is of the {n_valid:,} valid samples that there are")
    return notes


def add_similarity(samples: MoleculeTable, references: Mapping[str, Statistics]) -> None:
    """Adds the columns `nearest/…` that `moses_figures` reads."""
    for name, reference in references.items():
        label = f"neighbours in {name}"
        samples.columns[f"nearest/{name}"] = nearest(samples.numbers("fingerprint"), reference.fingerprints, label)


class MosesReferences(NamedTuple):
    """Statistics of Test and of TestSF if there is one; the training set, if there is one, and its baselines."""

    test_sets: dict[str, Statistics]
    training: TrainingIndex | None
    baselines: dict[str, MoleculeTable]
    notes: list[str]


def resolve(sets: ComparisonSets, references: ReferenceCache, n: int) -> MosesReferences:
    """The training set is MOSES' own where no other is named and the test sets are MOSES' own."""
    with stage("references"):
        test_sets = _test_sets(sets.reference, references)
        notes = _reference_notes(sets.reference, references)
    training = sets.moses_training or sets.training
    if training is None and sets.reference in (None, "moses"):
        training = ReferenceSet.moses("train")
    if training is None:
        return MosesReferences(test_sets, None, {}, notes)
    index = references.index(training, ("canonical",))
    notes += [note for note in unparsed_note(training, index) if note not in notes]
    if not n:
        return MosesReferences(test_sets, index, {}, notes)
    with stage("baselines"):
        floor = _baseline(training, n, "random", test_sets, references)
        add_carbon = _baseline(training, n, "add-carbon", test_sets, references)
    return MosesReferences(test_sets, index, baseline_tables(floor, add_carbon, index.parsed, n), notes)


def compute(samples: MoleculeTable, references: MosesReferences) -> BenchmarkResult:
    """The figures of the samples and of the baselines, those with the basic ones."""
    test_sets, training = references.test_sets, references.training
    with stage("neighbours"):
        add_similarity(samples, test_sets)
    with stage("figures"):
        result = BenchmarkResult(moses_figures(samples, test_sets, training))
    result.notes = [*references.notes, *size_notes(len(samples))]
    result.properties = {"samples": samples.numbers("properties"), "test": test_sets["Test"].properties}
    if training is None:
        result.notes.append("no floor and no baselines: no training set (--train)")
    if references.baselines:
        result.properties["training"] = references.baselines["floor"].numbers("properties")
        with stage("baselines"):
            for name, table in references.baselines.items():
                result.baseline(name).add(moses_figures(table, test_sets, training))
                result.baseline(name).add(basic_figures(table.canonical(), training))
    return result


def _test_sets(reference: str | None, references: ReferenceCache) -> dict[str, Statistics]:
    """Test, and TestSF if there is one: as MOSES ships them, or those of another dataset or file."""
    if reference in (None, "moses"):
        fetch("moses")
        files = {"Test": "test_stats.npz", "TestSF": "test_scaffolds_stats.npz"}
        return {name: _shipped(file, references) for name, file in files.items()}
    splits = {"Test": "test", "TestSF": "test_scaffolds"} if reference == "moses-mini" else {"Test": "test"}
    workers = references.runtime.workers
    return {name: _statistics(named_set(reference, split, workers), references) for name, split in splits.items()}


def _reference_notes(reference: str | None, references: ReferenceCache) -> list[str]:
    """On the molecules of a file that do not parse."""
    if reference is None or reference in NAMED:
        return []
    molecules = named_set(reference, "test", references.runtime.workers)
    return unparsed_note(molecules, references.index(molecules, ("canonical",)))


def _statistics(molecules: ReferenceSet, references: ReferenceCache) -> Statistics:
    """Of a set's molecules that parse. Raises MolgenError where none does."""

    def build() -> Arrays:
        table = describe(molecules.smiles, METRIC.parts, references.runtime, molecules.name)
        molecules.check_parsed(len(table))
        return moses_statistics.to_arrays(moses_statistics.statistics(table, ""))

    def read(arrays: Arrays) -> Statistics:
        return moses_statistics.from_arrays(arrays, molecules.digest)

    return references.cached("statistics", [molecules.digest, *references.versions], build, read)


def _shipped(file: str, references: ReferenceCache) -> Statistics:
    """MOSES' own of a test set, as they are shipped: what every published figure is against."""
    digest, path = MOSES_FILES[file], moses_file(file)

    def build() -> Arrays:
        return moses_statistics.to_arrays(moses_statistics.shipped_statistics(path, ""))

    def read(arrays: Arrays) -> Statistics:
        return moses_statistics.from_arrays(arrays, digest)

    return references.cached("shipped", [VERSION, digest], build, read)


def _baseline(
    training: ReferenceSet, n: int, kind: Kind, test_sets: Mapping[str, Statistics], references: ReferenceCache
) -> MoleculeTable:
    """`n` training molecules as a baseline has them, with their similarity to each test set, which is cached too."""
    size = cached_size(n)
    table = references.random_table(training, size, kind, METRIC.parts)
    for name, test_set in test_sets.items():

        def build(test_set: Statistics = test_set) -> Arrays:
            return {"nearest": nearest(table.numbers("fingerprint"), test_set.fingerprints, "neighbours")}

        def read(arrays: Arrays) -> npt.NDArray[np.float32]:
            expect(arrays["nearest"], np.float32, (len(table),))
            return arrays["nearest"]

        key = [training.digest, str(size), kind, test_set.digest, *references.versions]
        table.columns[f"nearest/{name}"] = references.cached("nearest", key, build, read)
    return table.take(np.arange(min(n, len(table))))


METRIC = Metric(
    title="MOSES",
    rows=(
        *rows_of(("valid", "unique@1000", "unique@10000"), ".4f", 1),
        *rows_of(("FCD/Test", "FCD/TestSF"), ".3f", -1),
        *rows_of([f"{figure}/{name}" for figure in ("SNN", "Frag", "Scaf") for name in ("Test", "TestSF")], ".4f", 1),
        *rows_of(("IntDiv", "IntDiv2", "Filters"), ".4f", 1),
        *rows_of(("logP", "SA", "QED"), ".4f", -1),
        *rows_of(("weight",), ".2f", -1),
        Row("Novelty", "Novelty", ".4f"),
        Row("Novelty/shipped", "  strings as shipped", ".4f"),
    ),
    parts=(*PARTS, "activations"),
    resolve=resolve,
    compute=compute,
    published=Published(PUBLISHED_N, PUBLISHED),
)
