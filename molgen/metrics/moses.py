"""The MOSES benchmark (Polykovskiy et al. 2020, Front. Pharmacol. 11:565644), figure by figure as its code computes it.

Where the paper and the code of molsets 0.3.1 differ, the code is the definition: IntDiv2 takes the root row by row;
Filters are MCF and PAINS alerts, no formal charge, only C N S O F Cl Br H, no ring of eight or more; Scaf counts
scaffolds of at least two rings; Wasserstein distances are to the test set. `Novelty` canonicalises both sides with
the same RDKit; `Novelty/shipped` compares with the training strings as they are, as the code does.
"""

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from molgen.chem.descriptors import MOSES_PROPERTIES
from molgen.metrics.basic import MetricValues
from molgen.metrics.chemnet import Gaussian, frechet_distance, gaussian
from molgen.metrics.known import TrainingIndex
from molgen.metrics.profile import MoleculeTable
from molgen.metrics.similarity import within

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


class Statistics(NamedTuple):
    """A reference set as the figures need it."""

    gaussian: Gaussian
    fingerprints: npt.NDArray[np.uint8]
    fragments: Mapping[str, int]
    scaffolds: Mapping[str, int]
    properties: npt.NDArray[np.float64]
    """(n, 4) in the order of MOSES_PROPERTIES."""
    digest: str
    """Names its content."""


def statistics(reference: MoleculeTable, digest: str) -> Statistics:
    """Of a profile with PARTS and ChemNet's `activations`."""
    return Statistics(
        gaussian(reference.numbers("activations")),
        reference.numbers("fingerprint"),
        reference.counts("fragments"),
        scaffold_counts(reference),
        reference.numbers("properties"),
        digest,
    )


def scaffold_counts(profile: MoleculeTable) -> Counter[str]:
    """Bemis–Murcko scaffolds of at least two rings."""
    rings = profile.numbers("scaffold_rings").tolist()
    return Counter(s for s, n in zip(profile.strings("scaffold"), rings, strict=True) if s and n >= 2)


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


def notes(n_valid: int) -> list[str]:
    """What a reader of the figures must know about their sample size."""
    said = []
    if n_valid < FEWEST_FOR_FCD:
        said.append(f"FCD of {n_valid:,} molecules is biased upwards (at least {FEWEST_FOR_FCD:,} are needed)")
    if n_valid < 10_000:
        said.append(f"unique@10000 is of the {n_valid:,} valid samples that there are")
    return said
