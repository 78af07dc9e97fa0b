"""Runs, files or lists of samples → Evaluation: figures with their reasons, sizes and baselines.

The way of a target: samples (drawn, read or given) → described once → for each metric its references, then its figures
→ Evaluation.
"""

import math
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from molgen.data.download import has_moses
from molgen.data.readers import read_samples
from molgen.errors import MolgenError
from molgen.evaluation.likelihoods import RunLikelihoods, run_likelihoods
from molgen.evaluation.options import EvalOptions, Split
from molgen.evaluation.predictions import TargetEvaluation, evaluate_predictions
from molgen.generation.generator import MoleculeGenerator
from molgen.generation.options import SampleOptions
from molgen.generation.rejection import SampleStream
from molgen.machine import Runtime
from molgen.metrics import MetricName, all_metrics, chemnet
from molgen.metrics.metric import BenchmarkResult, MetricValues
from molgen.metrics.profile import MoleculeTable, describe
from molgen.metrics.references import ComparisonSets, ReferenceCache, ReferenceSet, named_set, open_references
from molgen.model.likelihood import paired_difference
from molgen.runs import Run, run_directory
from molgen.runtime.bars import Bar
from molgen.runtime.stages import measured_stages

if TYPE_CHECKING:
    import pandas

_BINS = 40


@dataclass
class Evaluation:
    """The figures of one run or one set of samples."""

    name: str
    figures: MetricValues
    notes: list[str] = field(default_factory=list)
    findings: BenchmarkResult = field(default_factory=BenchmarkResult)
    """Baselines, and what the report shows with the figures."""
    samples: Sequence[str] = ()
    profile: MoleculeTable | None = None
    training: ReferenceSet | None = None
    nll: dict[str, npt.NDArray[np.float64]] = field(default_factory=dict)
    """NLL in nats of each molecule of the training set, the held-out split and the samples; empty without a model."""
    held_out_nll: dict[str, float] = field(default_factory=dict)
    """NLL of each held-out molecule by its SMILES: two runs are compared by their paired difference."""
    run: Run | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall-clock time of each stage."""
    predictions: list[TargetEvaluation] = field(default_factory=list)
    """Of a run with targets: how good its predictions are, by target."""
    split: Split = "test"
    """The held-out molecules that its predictions are of."""

    @property
    def baselines(self) -> dict[str, MetricValues]:
        """`floor`, `copy`, `add-carbon` and `held-out`: the same figures of what the samples are compared with."""
        return self.findings.baselines

    @property
    def neighbours(self) -> dict[str, tuple[str, float]]:
        """Nearest training molecule and its Tanimoto similarity, of the first distinct samples by canonical SMILES."""
        return self.findings.neighbours

    def to_json(self) -> dict[str, Any]:
        """Figures by name, with `name`, `reasons` for what is null, `notes`, `baselines` and `histograms`.

        Valid JSON: a figure that is not a finite number is null, with that reason.
        """
        figures = MetricValues(_finite(self.figures.values), dict(self.figures.reasons))
        for name, value in self.figures.values.items():
            if value is not None and figures.values[name] is None:
                figures.missing(name, f"not a finite number: {value}")
        histograms = {"nll": histogram(self.nll), "nearest_training": histogram(self.findings.nearest, (0.0, 1.0))}
        chemistry = self.findings.chemistry.get("samples")
        return {
            "name": self.name,
            **figures.values,
            "reasons": figures.reasons,
            "notes": self.notes,
            "seconds": {stage: round(seconds, 3) for stage, seconds in self.seconds.items()},
            **({"baselines": {k: _finite(v.values) for k, v in self.baselines.items()}} if self.baselines else {}),
            **({"histograms": {k: v for k, v in histograms.items() if v}} if any(histograms.values()) else {}),
            **({"predictions": {one.name: one.to_json() for one in self.predictions}} if self.predictions else {}),
            **({"shares": chemistry.shares, "new_ring_systems": dict(chemistry.new_rings)} if chemistry else {}),
        }

    def to_frame(self) -> "pandas.DataFrame":
        """A pandas DataFrame: one row per figure, one column for the samples and for each baseline."""
        import pandas

        columns = {self.name: self.figures.values} | {name: f.values for name, f in self.baselines.items()}
        return pandas.DataFrame({name: pandas.Series(values, dtype=float) for name, values in columns.items()}).reindex(
            list(self.figures.values)
        )


@dataclass(frozen=True)
class Subject:
    """Samples to evaluate, the sets to compare them with, and notes and likelihoods."""

    name: str
    samples: Sequence[str]
    """As they were drawn; an empty string is an invalid sample."""
    sets: ComparisonSets
    notes: Sequence[str] = ()
    """They stand after those of the likelihoods and before those of the figures."""
    last_notes: Sequence[str] = ()
    """They stand after all others."""
    run: Run | None = None
    likelihoods: RunLikelihoods = field(default_factory=RunLikelihoods)
    predictions: list[TargetEvaluation] = field(default_factory=list)
    split: Split = "test"
    draw_more: Callable[[set[str], int], list[str]] | None = None
    """(the canonical SMILES so far, how many there should be) → further samples of a run; see `_draw_more`."""


def evaluate(
    samples: Iterable[str] | str,
    *,
    metrics: Sequence[MetricName] | MetricName = ("basic",),
    training: Sequence[str] | str | ReferenceSet | None = None,
    held_out: Sequence[str] | str | ReferenceSet | None = None,
    reference: str | os.PathLike[str] | None = None,
    name: str = "samples",
) -> Evaluation:
    """Figures of SMILES as drawn (an empty string is an invalid sample), nothing cleaned; one string is one molecule.

    `training` is what novelty, GuacaMol and nearest neighbours are against, `held_out` what is to be rediscovered,
    `reference` the dataset or file whose test split MOSES' figures are against (left out: MOSES' own test sets).
    Raises MolgenError for sets of which no molecule parses, and where MOSES is needed and cannot be fetched.
    """
    subject = list_subject(samples, training, held_out, reference, name)
    metrics = (metrics,) if isinstance(metrics, str) else tuple(metrics)
    return evaluate_subject(subject, metrics, open_references(Runtime()))


def evaluate_targets(
    targets: Sequence[str | os.PathLike[str] | None], options: EvalOptions, runtime: Runtime
) -> list[Evaluation]:
    """Runs (None: the newest) and files of samples, each evaluated; later runs are compared with the first, paired.

    Raises MolgenError for what is no run and no file of samples, and for data that are not there.
    """
    references = open_references(runtime)
    train = None if options.train is None else named_set(options.train, "train", runtime.workers)
    test = None if options.reference is None else named_set(options.reference, "test", runtime.workers)
    evaluations = []
    for target in [None if target is None else os.fspath(target) for target in targets]:
        if target is None or run_directory(target):
            generator = MoleculeGenerator.load(target, runtime=runtime)
            subject = run_subject(generator, options, train, test)
        else:
            subject = file_subject(target, options, train, test, runtime)
        evaluations.append(evaluate_subject(subject, options.metrics, references))
    return [evaluations[0], *(_compared(evaluation, evaluations[0]) for evaluation in evaluations[1:])]


def run_subject(
    generator: MoleculeGenerator, options: EvalOptions, train: ReferenceSet | None, test: ReferenceSet | None
) -> Subject:
    """Fresh samples of a run, drawn at temperature 1 without any filter, and the likelihoods of its model.

    Novelty, GuacaMol and nearest neighbours are against the run's own training molecules unless `train` is given.
    `test`, the reference's test split, is to be rediscovered only where the run's own split cannot be had.
    """
    run, n, seed = generator.run, options.n, options.seed
    assert run is not None
    stream = generator.stream(SampleOptions(n, seed=seed))
    samples = _draw(stream)
    likelihoods = run_likelihoods(generator, run, options.split, samples)
    held_out = test if run.lacks(options.split) else _run_set(run, options.split)
    sets, note = _run_sets(run, ComparisonSets(train, held_out, options.reference), generator.runtime)
    return Subject(
        str(run.path),
        samples,
        sets,
        notes=[note],
        last_notes=[f"samples: n = {n:,}, temperature 1, no filter, seed {seed}, {stream.stats.unfinished} unfinished"],
        run=run,
        likelihoods=likelihoods,
        predictions=_predictions(generator, options.split),
        split=options.split,
        draw_more=lambda seen, wanted: _draw_more(generator, n, seed, seen, wanted),
    )


def file_subject(
    target: str, options: EvalOptions, train: ReferenceSet | None, test: ReferenceSet | None, runtime: Runtime
) -> Subject:
    """The samples in a file; novelty is against `train`, else against the reference's training split."""
    how = "--train"
    if train is None and options.reference is not None:
        train, how = named_set(options.reference, "train", runtime.workers), "--reference, for there is no --train"
    samples = read_samples(target, options.smiles_column)
    if not samples:
        raise MolgenError(f"{target}: no samples in it", "give a file with one SMILES per line")
    notes = [] if train is None else [f"novelty is against {train.name} ({how})"]
    return Subject(target, samples, ComparisonSets(train, test, options.reference), last_notes=notes)


def list_subject(
    samples: Iterable[str] | str,
    training: Sequence[str] | str | ReferenceSet | None = None,
    held_out: Sequence[str] | str | ReferenceSet | None = None,
    reference: str | os.PathLike[str] | None = None,
    name: str = "samples",
) -> Subject:
    """Samples and sets as `evaluate` takes them."""
    listed = [samples] if isinstance(samples, str) else list(samples)
    against = None if reference is None else os.fspath(reference)
    return Subject(name, listed, ComparisonSets(_as_set("training", training), _as_set("held-out", held_out), against))


def evaluate_subject(subject: Subject, metrics: Sequence[MetricName], references: ReferenceCache) -> Evaluation:
    """Describes the samples, then computes the figures of each metric."""
    start = time.perf_counter()
    with measured_stages() as seconds:
        label = subject.name if subject.run is None else "samples"
        table = describe(subject.samples, parts(metrics), references.runtime, label)
        further = _further_samples(subject, table, metrics, references.runtime)
        result = run_benchmarks(table, metrics, subject.sets, references, further)
    likelihoods = subject.likelihoods
    figures = MetricValues(dict(likelihoods.figures.values), dict(likelihoods.figures.reasons))
    figures.add(result.figures)
    notes = [*likelihoods.notes, *subject.notes, *result.notes]
    if subject.run is None:
        seconds["total"] = time.perf_counter() - start
        if figures.values.get("validity") == 1:
            notes.append("validity not meaningful: filtered before")
    return Evaluation(
        subject.name,
        figures,
        [*notes, *subject.last_notes],
        result,
        samples=subject.samples,
        profile=table,
        training=subject.sets.training,
        nll=likelihoods.nll,
        held_out_nll=likelihoods.held_out_nll,
        run=subject.run,
        seconds=seconds,
        predictions=subject.predictions,
        split=subject.split,
    )


def parts(metrics: Iterable[MetricName]) -> list[str]:
    """What some metrics need of each molecule."""
    families = all_metrics()
    return list(dict.fromkeys(part for name in metrics for part in families[name].parts))


def run_benchmarks(
    samples: MoleculeTable,
    metrics: Sequence[MetricName],
    sets: ComparisonSets,
    references: ReferenceCache,
    further: MoleculeTable | None = None,
) -> BenchmarkResult:
    """The figures of some metrics, and always the basic ones, of samples with their `parts`.

    `further` are more draws, for metrics that want so many distinct molecules.
    """
    families = all_metrics()
    sets = replace(sets, thorough=any(families[name].thorough for name in metrics))
    result = BenchmarkResult()
    for name, metric in families.items():
        if name == "basic" or name in metrics:
            table = samples.joined(further) if metric.most_distinct and further is not None else samples
            result.add(metric.compute(table, metric.resolve(sets, references, len(table))))
    if "activations" in parts(metrics):
        result.notes += chemnet.truncation_note(samples.strings("canonical"))
    return result


def histogram(
    values: dict[str, npt.NDArray[Any]], span: tuple[float, float] | None = None, bins: int = _BINS
) -> dict[str, list[float]]:
    """`edges` and, for each set, the share of its values in each bin; outliers count in the last bins."""
    filled = {name: array for name, array in values.items() if len(array)}
    if not filled:
        return {}
    low, high = span or tuple(np.quantile(np.concatenate(list(filled.values())), [0.001, 0.999]).tolist())
    edges = np.linspace(low, high if high > low else low + 1, bins + 1)
    shares = {
        name: (np.histogram(array.clip(edges[0], edges[-1]), edges)[0] / len(array)).tolist()
        for name, array in filled.items()
    }
    return {"edges": edges.tolist(), **shares}


def _predictions(generator: MoleculeGenerator, split: Split) -> list[TargetEvaluation]:
    """Of a run with targets whose training has ended."""
    return evaluate_predictions(generator.predictor, split) if generator.predictor is not None else []


def _run_set(run: Run, split: str) -> ReferenceSet | None:
    """A split of a run as a reference set; None for one without molecules."""
    smiles = run.split(split)
    return ReferenceSet.of(f"{run.path.name} {split}", smiles) if smiles else None


def _run_sets(run: Run, named: ComparisonSets, runtime: Runtime) -> tuple[ComparisonSets, str]:
    """`named`, completed by the run's training molecules, and a note on what novelty is against."""
    if named.training is not None:
        return named, f"novelty is against {named.training.name} (--train)"
    if not (lacks := run.lacks("train")):
        sets = replace(named, training=_run_set(run, "train"))
        note = "novelty is against the molecules that the run was trained on"
        if run.origin == "moses" and has_moses():  # of which the run may have seen a part
            sets = replace(sets, moses_training=ReferenceSet.moses("train"))
            note += "; MOSES' own Novelty and its baselines, as in its code, against all of its training set"
        return sets, note
    if named.reference is not None:
        training = named_set(named.reference, "train", runtime.workers)
        return replace(named, training=training), f"novelty is against {training.name} (--reference), for {lacks}"
    return named, f"no training set: {lacks}"


def _draw(stream: SampleStream) -> list[str]:
    samples: list[str] = []
    with Bar(total=stream.n, desc="sampling", unit="mol", delay=1) as bar:
        for batch in stream:
            samples += [sample.smiles for sample in batch]
            bar.update(len(batch))
    return samples


def _further_samples(
    subject: Subject, table: MoleculeTable, metrics: Sequence[MetricName], runtime: Runtime
) -> MoleculeTable | None:
    """More samples of a run, described, if metrics want more distinct molecules than its samples have."""
    families = all_metrics()
    chosen = [name for name in metrics if families[name].most_distinct]
    if not chosen or subject.draw_more is None:
        return None
    wanted = min(len(subject.samples), max(families[name].most_distinct for name in chosen))
    more = subject.draw_more(set(table.strings("canonical")), wanted)
    return describe(more, parts(chosen), runtime, "further samples") if more else None


def _draw_more(generator: MoleculeGenerator, n: int, seed: int, seen: set[str], wanted: int) -> list[str]:
    """Draws until there are `wanted` distinct valid molecules, at most ten times as many in all, as GuacaMol does."""
    more: list[str] = []
    distinct = set(seen)
    most = 10 * wanted - n
    if len(distinct) >= wanted or most <= 0:
        return more
    # another stream of random numbers, so that the first n samples stay what they are without this benchmark
    stream = generator.stream(SampleOptions(most, seed=(seed + 2**63) % 2**64))
    for batch in stream:
        more += [sample.smiles for sample in batch]
        distinct |= {sample.canonical for sample in batch if sample.canonical is not None}
        if len(distinct) >= wanted:
            break
    return more


def _compared(evaluation: Evaluation, first: Evaluation) -> Evaluation:
    """With the paired NLL difference over the held-out molecules that both runs can write."""
    common = [smiles for smiles in evaluation.held_out_nll if smiles in first.held_out_nll]
    if len(common) < 2:
        return evaluation
    ours, theirs = (np.array([e.held_out_nll[s] for s in common]) for e in (evaluation, first))
    mean, stderr = paired_difference(ours, theirs)
    values = evaluation.figures.values | {"nll_paired_difference": mean, "nll_paired_stderr": stderr}
    note = f"NLL minus that of {first.name}: {mean:+.2f} ± {stderr:.2f} (paired, n = {len(common):,})"
    figures = MetricValues(values, evaluation.figures.reasons)
    return replace(evaluation, figures=figures, notes=[*evaluation.notes, note])


def _as_set(name: str, smiles: Sequence[str] | str | ReferenceSet | None) -> ReferenceSet | None:
    if smiles is None or isinstance(smiles, ReferenceSet):
        return smiles
    return ReferenceSet.of(name, [smiles] if isinstance(smiles, str) else list(smiles))


def _finite(values: Mapping[str, float | int | None]) -> dict[str, float | int | None]:
    return {name: value if value is None or math.isfinite(value) else None for name, value in values.items()}
