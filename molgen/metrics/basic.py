"""Validity, uniqueness and novelty of samples, as every paper on generative models of molecules reports them."""

from collections.abc import Sequence, Set
from dataclasses import dataclass, field

from molgen.metrics.known import TrainingIndex
from molgen.metrics.profile import MoleculeTable

COARSER = ("parent", "tautomer")
"""What is equal for molecules that a chemist may call the same: the neutral, stereo-free parent, its tautomer hash."""


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
        """Takes over another set's figures and reasons."""
        self.values |= other.values
        self.reasons |= other.reasons


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
