"""Validity, uniqueness and novelty of samples, as every paper on generative models of molecules reports them."""

from collections.abc import Sequence, Set
from typing import NamedTuple

from molgen.metrics.known import TrainingIndex
from molgen.metrics.metric import BenchmarkResult, Metric, MetricValues, Row
from molgen.metrics.profile import MoleculeTable
from molgen.metrics.references import ComparisonSets, ReferenceCache, unparsed_note

COARSER = ("parent", "tautomer")
"""What is equal for molecules that a chemist may call the same: the neutral, stereo-free parent, its tautomer hash."""
MOST_COARSER = 200_000
"""Training molecules whose parents and tautomers are looked at unasked: about a millisecond each, once."""


def basic_figures(canonical: Sequence[str | None], training: Set[str] | TrainingIndex | None) -> MetricValues:
    """n_samples, n_valid, validity, uniqueness and novelty of all samples drawn.

    `canonical` holds each sample's canonical SMILES, None for an invalid, empty or unfinished one. Validity is over
    all samples; uniqueness is distinct over valid; novelty is the share of the distinct valid ones that are not in
    `training`, canonical SMILES by the same RDKit.
    """
    valid = [smiles for smiles in canonical if smiles is not None]
    distinct = set(valid)
    figures = MetricValues({"n_samples": len(canonical), "n_valid": len(valid)})
    if canonical:
        figures.values["validity"] = len(valid) / len(canonical)
    else:
        figures.missing("validity", "no samples")
    if valid:
        figures.values["uniqueness"] = len(distinct) / len(valid)
    else:
        figures.missing("uniqueness", "no valid samples")
    if training is None:
        figures.missing("novelty", "no training set: name it with --train")
    elif not valid:
        figures.missing("novelty", "no valid samples")
    else:
        new = training.missing("canonical", distinct) if isinstance(training, TrainingIndex) else distinct - training
        figures.values["novelty"] = len(new) / len(distinct)
    return figures


def coarser_figures(samples: MoleculeTable, training: TrainingIndex | None, reason: str = "") -> MetricValues:
    """uniqueness and novelty as by `basic_figures`, of parents and of tautomers in place of molecules.

    A stereo mark added to a known molecule, or its other tautomer, is neither unique nor new here. `training` has the
    COARSER columns; without it novelty is null, for the reason given.
    """
    figures = MetricValues()
    for column in COARSER:
        distinct = set(samples.strings(column))
        if not distinct:
            figures.missing(f"uniqueness_{column}", "no valid samples")
            figures.missing(f"novelty_{column}", "no valid samples")
            continue
        figures.values[f"uniqueness_{column}"] = len(distinct) / len(samples)
        if training is None:
            figures.missing(f"novelty_{column}", reason)
        else:
            figures.values[f"novelty_{column}"] = len(training.missing(column, distinct)) / len(distinct)
    return figures


class BasicReferences(NamedTuple):
    """A training set, and the same by COARSER; None for what there is not, with the reason."""

    training: TrainingIndex | None
    coarser: TrainingIndex | None
    reason: str
    notes: list[str]


def resolve(sets: ComparisonSets, references: ReferenceCache, _: int) -> BasicReferences:
    """Parents and tautomers of many training molecules are looked at only where all are to be."""
    if sets.training is None:
        return BasicReferences(None, None, "no training set: name it with --train", [])
    training, coarser = references.index(sets.training, ("canonical",)), None
    reason = f"of {training.n:,} training molecules they take minutes, once: ask for --metrics chem"
    if training.n <= MOST_COARSER or sets.thorough:
        coarser = references.index(sets.training, COARSER)
    return BasicReferences(training, coarser, reason, unparsed_note(sets.training, training))


def compute(samples: MoleculeTable, references: BasicReferences) -> BenchmarkResult:
    """The figures of the samples; samples that were described for something else may lack parents and tautomers."""
    figures = basic_figures(samples.canonical(), references.training)
    if "tautomer" in samples.columns:
        figures.add(coarser_figures(samples, references.coarser, references.reason))
    return BenchmarkResult(figures, notes=references.notes)


METRIC = Metric(
    title="Samples",
    rows=(
        Row("n_samples", "samples", ","),
        Row("n_valid", "valid samples", ","),
        Row("validity", "validity", ".3f", 1),
        Row("uniqueness", "uniqueness", ".3f", 1),
        Row("uniqueness_parent", "  of parents", ".3f"),
        Row("uniqueness_tautomer", "  of tautomers", ".3f"),
        Row("novelty", "novelty", ".3f"),
        Row("novelty_parent", "  of parents", ".3f"),
        Row("novelty_tautomer", "  of tautomers", ".3f"),
    ),
    parts=("canonical", *COARSER),
    resolve=resolve,
    compute=compute,
    size="n_valid",
)
