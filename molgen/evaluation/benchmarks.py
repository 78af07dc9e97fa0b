"""The set-level benchmarks of one set of samples, each beside what it must be compared with.

Baselines are computed at the samples' own number of molecules: `floor`, a random part of the training set, is what a
perfect generator would get at this n; `copy`, the training set resampled, and `add-carbon`, training molecules with a
carbon put somewhere, are what any honest generator must beat.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from molgen.config import NAMED
from molgen.metrics import chem, chemnet, guacamol, moses
from molgen.metrics.basic import COARSER, MetricValues, basic_figures, coarser_figures
from molgen.metrics.chem import Chemistry, chem_figures
from molgen.metrics.known import TrainingIndex
from molgen.metrics.profile import MoleculeTable
from molgen.metrics.references import ReferenceCache, ReferenceSet, named_set, nearest_of, resampled, similarity_to
from molgen.metrics.similarity import neighbours

Metric = Literal["basic", "chem", "moses", "guacamol"]
MOST_COARSER = 200_000
"""Training molecules whose parents and tautomers are looked at unasked: about a millisecond each, once."""
SHOWN = 120
"""Samples whose nearest training molecule is looked up, for the report's grid."""

_PARTS: dict[Metric, tuple[str, ...]] = {
    "basic": ("canonical", *COARSER),
    "chem": chem.PARTS,
    "moses": (*moses.PARTS, "activations"),
    "guacamol": (*guacamol.PARTS, "activations"),
}


@dataclass
class ComparisonSets:
    """What samples are compared with; None where there is no such set."""

    training: ReferenceSet | None = None
    held_out: ReferenceSet | None = None
    """What is to be rediscovered."""
    reference: str | None = None
    """DATA whose test split MOSES' figures are against; left out, MOSES' own."""
    moses_training: ReferenceSet | None = None
    """What MOSES' `Novelty` and baselines are against; left out, `training`, and without that MOSES' training set."""


@dataclass
class BenchmarkResult:
    """Figures of the samples and of the baselines by name, and what a report shows beside them."""

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


def parts(metrics: Iterable[Metric]) -> list[str]:
    """What a profile must hold for some metrics."""
    return list(dict.fromkeys(part for metric in metrics for part in _PARTS[metric]))


def run_benchmarks(
    samples: MoleculeTable,
    metrics: Sequence[Metric],
    sets: ComparisonSets,
    library: ReferenceCache,
    more: MoleculeTable | None = None,
) -> BenchmarkResult:
    """All figures of samples described with `parts(metrics)`; `more` are further draws, which GuacaMol may use."""
    findings = BenchmarkResult()
    _basic(findings, samples, sets, library, "chem" in metrics)
    if "moses" in metrics:
        _moses(findings, samples, sets, library)
    if "guacamol" in metrics:
        _guacamol(findings, samples if more is None else samples.joined(more), sets, library)
    if "chem" in metrics:
        _chem(findings, samples, sets, library)
    if {"moses", "guacamol"} & set(metrics):
        cut = sum(chemnet.truncated(smiles) for smiles in samples.strings("canonical"))
        if cut:
            findings.notes.append(
                f"ChemNet stops at the first '.' and after 349 tokens: it saw a part of {cut:,} molecules"
            )
    return findings


def _basic(
    findings: BenchmarkResult,
    samples: MoleculeTable,
    sets: ComparisonSets,
    library: ReferenceCache,
    whatever_it_takes: bool,
) -> None:
    known = None if sets.training is None else _known(findings, sets.training, ("canonical",), library)
    findings.figures.add(basic_figures(samples.canonical(), known))
    coarser, reason = None, "no training set: name it with --train"
    if sets.training is not None and known is not None:
        reason = f"of {known.n:,} training molecules they take minutes, once: ask for --metrics chem"
        if known.n <= MOST_COARSER or whatever_it_takes:
            coarser = _known(findings, sets.training, COARSER, library)
    if "tautomer" in samples.columns:  # samples described for something else may lack them
        findings.figures.add(coarser_figures(samples, coarser, reason))


def _known(
    findings: BenchmarkResult,
    molecules: ReferenceSet,
    strings: Sequence[str],
    library: ReferenceCache,
    fingerprints: bool = False,
) -> TrainingIndex:
    """What is known of a set, and a note if some of its molecules do not parse."""
    known = library.known(molecules, strings, fingerprints)
    if known.parsed < known.n:
        note = (
            f"{molecules.name}: RDKit does not parse {known.n - known.parsed:,} of its {known.n:,} molecules: left out"
        )
        findings.notes += [note] if note not in findings.notes else []
    return known


def _moses(findings: BenchmarkResult, samples: MoleculeTable, sets: ComparisonSets, library: ReferenceCache) -> None:
    with library.stage("references"):
        references = reference_statistics(sets.reference, library)
        if sets.reference not in NAMED and sets.reference is not None:
            _known(findings, named_set(sets.reference, "test", library.pool), ("canonical",), library)
    training = sets.moses_training or sets.training
    if training is None and sets.reference in (None, "moses"):
        training = ReferenceSet.moses("train")
    known = None if training is None else _known(findings, training, ("canonical",), library)
    with library.stage("neighbours"):
        similarity_to(samples, references)
    with library.stage("figures"):
        findings.figures.add(moses.moses_figures(samples, references, known))
    findings.notes += moses.notes(len(samples))
    findings.properties |= {"samples": samples.numbers("properties"), "test": references["Test"].properties}
    n = len(samples)
    if training is None or known is None:
        findings.notes.append("no floor and no baselines: no training set (--train)")
        return
    if not n:
        return
    with library.stage("baselines"):
        _moses_baselines(findings, training, known, references, n, library)


def _moses_baselines(
    findings: BenchmarkResult,
    training: ReferenceSet,
    known: TrainingIndex,
    references: dict[str, moses.Statistics],
    n: int,
    library: ReferenceCache,
) -> None:
    floor = library.with_nearest(training, n, "random", _PARTS["moses"], references)
    carbon = library.with_nearest(training, n, "add-carbon", _PARTS["moses"], references)
    findings.properties["training"] = floor.numbers("properties")
    for name, table in (("floor", floor), ("copy", resampled(floor, known.parsed, n)), ("add-carbon", carbon)):
        findings.baseline(name).add(moses.moses_figures(table, references, known))
        findings.baseline(name).add(basic_figures(table.canonical(), known))


def _guacamol(findings: BenchmarkResult, samples: MoleculeTable, sets: ComparisonSets, library: ReferenceCache) -> None:
    if sets.training is None:
        findings.figures.add(guacamol.guacamol_figures(samples, None, None))
        return
    known = _known(findings, sets.training, ("canonical", "smiles_no_stereo"), library)
    training = library.guacamol_baseline(sets.training) if known.parsed > 1 else None
    findings.figures.add(guacamol.guacamol_figures(samples, training, known))
    n = min(len(samples), guacamol.SIZE)
    if n:
        floor = library.part_of(sets.training, n, "random", _PARTS["guacamol"])
        carbon = library.part_of(sets.training, n, "add-carbon", _PARTS["guacamol"])
        for name, table in (("floor", floor), ("copy", resampled(floor, known.parsed, n)), ("add-carbon", carbon)):
            findings.baseline(name).add(guacamol.guacamol_figures(table, training, known))


def _chem(findings: BenchmarkResult, samples: MoleculeTable, sets: ComparisonSets, library: ReferenceCache) -> None:
    n = len(samples)
    known, nearest = None, None
    if sets.training is not None:
        known = _known(findings, sets.training, ("canonical", "parent", "scaffold", "ring_systems"), library, True)
        nearest = nearest_of(samples, known.fingerprints, "neighbours in training")
        findings.nearest["samples"] = nearest
        findings.neighbours = _neighbours(samples, known, sets.training)
    held_out = None if sets.held_out is None else _known(findings, sets.held_out, ("canonical",), library)
    findings.chemistry["samples"] = chem_figures(samples, known, nearest, held_out)
    findings.figures.add(findings.chemistry["samples"].figures)
    findings.properties.setdefault("samples", samples.numbers("properties"))
    if sets.training is not None and n:
        floor = library.part_of(sets.training, n, "random", chem.PARTS)
        findings.chemistry["training"] = chem_figures(floor, None, None, held_out)
        findings.baseline("floor").add(findings.chemistry["training"].figures)
        findings.properties.setdefault("training", floor.numbers("properties"))
    if sets.held_out is not None and n:
        others = library.part_of(sets.held_out, n, "random", chem.PARTS)
        near = None
        if known is not None:
            near = nearest_of(others, known.fingerprints, "neighbours of held-out molecules")
            findings.nearest["held-out"] = near
        findings.chemistry["held-out"] = chem_figures(others, known, near, None)
        findings.baseline("held-out").add(findings.chemistry["held-out"].figures)
        findings.properties.setdefault("test", others.numbers("properties"))


def _neighbours(samples: MoleculeTable, known: TrainingIndex, training: ReferenceSet) -> dict[str, tuple[str, float]]:
    first = {smiles: row for row, smiles in reversed(list(enumerate(samples.strings("canonical"))))}
    rows = sorted(first.values())[:SHOWN]
    if not len(known.fingerprints):
        return {}
    similarity, index = neighbours(samples.numbers("fingerprint")[rows], known.fingerprints)
    listed = samples.strings("canonical")
    new = known.missing("canonical", first)
    # another molecule may have the same fingerprint: one that training has is its own nearest neighbour
    return {
        listed[row]: (training.smiles[known.rows[i]], s) if listed[row] in new else (listed[row], 1.0)
        for row, s, i in zip(rows, similarity.tolist(), index.tolist(), strict=True)
    }


def reference_statistics(reference: str | None, library: ReferenceCache) -> dict[str, moses.Statistics]:
    """Test and, where there is one, TestSF: MOSES' own as they are shipped, or those of another dataset or file."""
    if reference in (None, "moses"):
        return library.moses_test_sets()
    sets = {"Test": library.statistics(named_set(reference, "test", library.pool))}
    if reference == "moses-mini":
        sets["TestSF"] = library.statistics(named_set(reference, "test_scaffolds", library.pool))
    return sets
