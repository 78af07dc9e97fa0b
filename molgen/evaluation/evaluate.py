"""A run, a file or a list of samples → Evaluation: figures with their reasons, sizes and baselines."""

import math
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from molgen.chem.pool import Workers, workers
from molgen.data.batches import Corpus
from molgen.data.download import data_directory, has_moses
from molgen.data.readers import read_samples
from molgen.errors import MolgenError
from molgen.evaluation.benchmarks import BenchmarkResult, ComparisonSets, Metric, parts, run_benchmarks
from molgen.generation.generator import MoleculeGenerator
from molgen.generation.options import SampleOptions
from molgen.generation.rejection import Sample, SampleStream
from molgen.metrics import guacamol
from molgen.metrics.basic import MetricValues
from molgen.metrics.profile import MoleculeTable
from molgen.metrics.references import ReferenceCache, ReferenceSet, named_set
from molgen.model.likelihood import Likelihood, likelihood, paired_difference
from molgen.runs import Run, run_directory
from molgen.runtime.device import Device, choose_device

if TYPE_CHECKING:
    import pandas

# nll_train is of evenly spaced training molecules, less than twice this many.
_TRAINING_MOLECULES = 10_000
_BINS = 40

Split = Literal["test", "validation"]


@dataclass
class Evaluation:
    """The figures of one run or one set of samples."""

    name: str
    figures: MetricValues
    notes: list[str] = field(default_factory=list)
    findings: BenchmarkResult = field(default_factory=BenchmarkResult)
    """Baselines, and what a report shows beside the figures."""
    samples: Sequence[str] = ()
    profile: MoleculeTable | None = None
    training: ReferenceSet | None = None
    nll: dict[str, npt.NDArray[np.float64]] = field(default_factory=dict)
    """NLL in nats of each molecule of training, held-out split and samples, where there is a model."""
    held_out_nll: dict[str, float] = field(default_factory=dict)
    """NLL of each held-out molecule by its SMILES: two runs are compared by their paired difference."""
    run: Run | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall-clock time of each stage."""

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
            **({"shares": chemistry.shares, "new_ring_systems": dict(chemistry.new_rings)} if chemistry else {}),
        }

    def to_frame(self) -> "pandas.DataFrame":
        """A pandas DataFrame: a row a figure, the samples and each baseline a column."""
        import pandas

        columns = {self.name: self.figures.values} | {name: f.values for name, f in self.baselines.items()}
        return pandas.DataFrame({name: pandas.Series(values, dtype=float) for name, values in columns.items()}).reindex(
            list(self.figures.values)
        )


def evaluate(
    samples: Iterable[str] | str,
    *,
    metrics: Sequence[Metric] | Metric = ("basic",),
    training: Sequence[str] | str | ReferenceSet | None = None,
    held_out: Sequence[str] | str | ReferenceSet | None = None,
    reference: str | os.PathLike[str] | None = None,
    name: str = "samples",
    library: ReferenceCache | None = None,
) -> Evaluation:
    """Figures of SMILES as drawn (an empty string is an invalid sample), nothing cleaned; one string is one molecule.

    `training` is what novelty, GuacaMol and nearest neighbours are against, `held_out` what is to be rediscovered,
    `reference` the dataset or file whose test split MOSES' figures are against (left out: MOSES' own test sets).
    """
    metrics = (metrics,) if isinstance(metrics, str) else tuple(metrics)
    if library is None:
        with workers() as pool:
            return evaluate(
                samples,
                metrics=metrics,
                training=training,
                held_out=held_out,
                reference=reference,
                name=name,
                library=open_library(pool),
            )
    start = time.perf_counter()
    listed = [samples] if isinstance(samples, str) else list(samples)
    against = None if reference is None else os.fspath(reference)
    sets = ComparisonSets(_as_set("training", training), _as_set("held-out", held_out), against)
    table = library.describe(listed, parts(metrics), name)
    evaluation = Evaluation(name, MetricValues(), samples=listed, profile=table, training=sets.training)
    _benchmark(evaluation, metrics, sets, library)
    evaluation.seconds["total"] = time.perf_counter() - start
    if evaluation.figures.values.get("validity") == 1:
        evaluation.notes.append("validity not meaningful: filtered before")
    return evaluation


def evaluate_run(
    generator: MoleculeGenerator,
    n: int,
    split: Split,
    seed: int,
    library: ReferenceCache,
    metrics: Sequence[Metric] = ("basic",),
    training: ReferenceSet | None = None,
    reference: str | None = None,
) -> Evaluation:
    """Likelihood of the held-out split, of training molecules and of samples, and figures of `n` fresh samples.

    Samples are drawn at temperature 1 without any filter. Novelty, GuacaMol and nearest neighbours are against the
    run's own training molecules unless `training` is given; `reference` changes only what MOSES' figures are against.
    For a run whose molecules cannot be had it stands for them too.
    """
    run = generator.run
    assert run is not None
    evaluation = Evaluation(str(run.path), MetricValues(), run=run)
    sets = ComparisonSets(training, None, reference)
    if reason := run.lacks(split):
        evaluation.figures.missing("nll", reason)
        if reference is not None:
            sets.held_out = named_set(reference, "test", library.pool)
    else:
        _likelihood_figures(generator, run, split, evaluation)
        sets.held_out = run_set(run, split)
    _training_likelihood(generator, run, evaluation)
    _training_sets(run, sets, library.pool, evaluation)
    stream = generator.stream(SampleOptions(n, seed=seed))
    samples = _draw(stream)
    evaluation.samples, evaluation.training = [sample.smiles for sample in samples], sets.training
    evaluation.profile = library.describe(evaluation.samples, parts(metrics), "samples")
    more = None
    if "guacamol" in metrics:
        more = _more_draws(generator, evaluation.profile, min(n, guacamol.SIZE), seed, library)
    _benchmark(evaluation, metrics, sets, library, more)
    if evaluation.nll:
        own = generator.log_likelihood([s for s in evaluation.samples if s])
        evaluation.nll["samples"] = -own[~np.isnan(own)]
    evaluation.notes.append(
        f"samples: n = {n:,}, temperature 1, no filter, seed {seed}, {stream.stats.unfinished} unfinished"
    )
    return evaluation


def evaluate_targets(
    pool: Workers,
    targets: Sequence[str | None],
    n: int,
    split: Split,
    seed: int,
    device: Device,
    metrics: Sequence[Metric] = ("basic",),
    training: str | None = None,
    reference: str | None = None,
    smiles_column: str | None = None,
) -> list[Evaluation]:
    """Runs (None: the newest) and files of samples, each evaluated; later runs are compared with the first, paired."""
    evaluations: list[Evaluation] = []
    library = open_library(pool, device)
    against = named_set(training, "train", pool) if training is not None else None
    held_out = named_set(reference, "test", pool) if reference is not None else None  # refused at once if need be
    for target in targets:
        if target is None or run_directory(target):
            generator = MoleculeGenerator.load(target, device)
            evaluation = evaluate_run(generator, n, split, seed, library, metrics, against, reference)
        else:
            known = named_set(reference, "train", pool) if reference is not None and against is None else against
            samples = read_samples(target, smiles_column)
            if not samples:
                raise MolgenError(f"{target}: no samples in it", "give a file with one SMILES a line")
            evaluation = evaluate(
                samples,
                metrics=metrics,
                training=known,
                held_out=held_out if "chem" in metrics else None,
                reference=reference,
                name=target,
                library=library,
            )
            if known is not None:
                how = "--train" if against is not None else "--reference, for there is no --train"
                evaluation.notes.append(f"novelty is against {known.name} ({how})")
        evaluations.append(evaluation)
    first = evaluations[0]
    for other in evaluations[1:]:
        _compare(other, first)
    return evaluations


def open_library(pool: Workers, device: Device = "auto") -> ReferenceCache:
    """Reference sets with their cache in the data directory."""
    return ReferenceCache(pool, data_directory() / "cache", str(choose_device(device)))


def run_set(run: Run, split: str) -> ReferenceSet | None:
    """A split of a run as a reference set; None for one without molecules."""
    smiles = run.split(split)
    return ReferenceSet.of(f"{run.path.name} {split}", smiles) if smiles else None


def _training_sets(run: Run, sets: ComparisonSets, pool: Workers, evaluation: Evaluation) -> None:
    """Completes what a run's samples are compared with as training molecules, and says what that is."""
    lacks = run.lacks("train")
    if sets.training is not None:
        against = f"{sets.training.name} (--train)"
    elif not lacks:
        sets.training, against = run_set(run, "train"), "the molecules that the run was trained on"
        if run.origin == "moses" and has_moses():  # of which the run may have seen a part
            sets.moses_training = ReferenceSet.moses("train")
            against += "; MOSES' own Novelty and its baselines, as in its code, against all of its training set"
    elif sets.reference is not None:
        sets.training = named_set(sets.reference, "train", pool)
        against = f"{sets.training.name} (--reference), for {lacks}"
    else:
        evaluation.notes.append(f"no training set: {lacks}")
        return
    evaluation.notes.append(f"novelty is against {against}")


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


def _benchmark(
    evaluation: Evaluation,
    metrics: Sequence[Metric],
    sets: ComparisonSets,
    library: ReferenceCache,
    more: MoleculeTable | None = None,
) -> None:
    assert evaluation.profile is not None
    evaluation.findings = run_benchmarks(evaluation.profile, metrics, sets, library, more)
    evaluation.seconds, library.seconds = library.seconds, {}
    evaluation.figures.add(evaluation.findings.figures)
    evaluation.notes += evaluation.findings.notes


def _as_set(name: str, smiles: Sequence[str] | str | ReferenceSet | None) -> ReferenceSet | None:
    if smiles is None or isinstance(smiles, ReferenceSet):
        return smiles
    return ReferenceSet.of(name, [smiles] if isinstance(smiles, str) else list(smiles))


def _finite(values: Mapping[str, float | int | None]) -> dict[str, float | int | None]:
    return {name: value if value is None or math.isfinite(value) else None for name, value in values.items()}


def _draw(stream: SampleStream) -> list[Sample]:
    samples: list[Sample] = []
    with tqdm(total=stream.n, desc="sampling", unit="mol", delay=1, leave=False, disable=None) as bar:
        for batch in stream:
            samples += batch
            bar.update(len(batch))
    return samples


def _more_draws(
    generator: MoleculeGenerator, drawn: MoleculeTable, wanted: int, seed: int, library: ReferenceCache
) -> MoleculeTable | None:
    """Draws until there are `wanted` unique valid molecules, at most ten times as many in all, as GuacaMol does."""
    seen = set(drawn.strings("canonical"))
    more: list[str] = []
    most = 10 * wanted - drawn.n_samples
    if len(seen) >= wanted or most <= 0:
        return None
    # another stream of random numbers, so that the first n samples stay what they are without this benchmark
    stream = generator.stream(SampleOptions(most, seed=(seed + 2**63) % 2**64))
    for batch in stream:
        more += [sample.smiles for sample in batch]
        seen |= {sample.canonical for sample in batch if sample.canonical is not None}
        if len(seen) >= wanted:
            break
    return library.describe(more, parts(["guacamol"]), "further samples")


def _likelihood_figures(generator: MoleculeGenerator, run: Run, split: Split, evaluation: Evaluation) -> None:
    figures = evaluation.figures
    listed = run.split(split)
    smiles = run.spread(split, len(listed) or 1)  # of an encoded file those that start with <bos>
    if forms := len(listed) - len(smiles):
        evaluation.notes.append(f"{split} split: {forms:,} random forms are left out of the NLL")
    scored = _scored(generator, smiles)
    figures.values["n_held_out"] = len(scored.smiles)
    figures.values |= {"n_unknown_tokens": scored.unknown, "n_too_long": scored.too_long}
    evaluation.notes.append(f"{split} split: {scored.account('that training lacks')}")
    held_out = scored.likelihood
    if held_out is None:
        figures.missing("nll", f"no {split} molecule has only tokens that the run knows and fits into its context")
        return
    figures.values |= held_out.figures()
    if held_out.stderr is None:
        figures.missing("nll_stderr", "one molecule has no standard error")
    evaluation.held_out_nll = dict(zip(scored.smiles, held_out.nll.tolist(), strict=True))
    evaluation.nll[split] = held_out.nll


def _training_likelihood(generator: MoleculeGenerator, run: Run, evaluation: Evaluation) -> None:
    figures = evaluation.figures
    try:
        scored = _scored(generator, run.spread("train", _TRAINING_MOLECULES))
        reason = "" if scored.likelihood else "no training molecule starts with <bos> and fits into the context"
    except MolgenError as error:
        scored, reason = _Scored([], None, 0, 0), error.message
    if scored.likelihood is None:
        figures.missing("nll_train", reason)
        figures.missing("nll_gap", reason)
        return
    if scored.unknown or scored.too_long:
        evaluation.notes.append(f"training molecules: {scored.account('that the vocabulary lacks')}")
    evaluation.nll["training"] = scored.likelihood.nll
    nll, nll_train = figures.values["nll"], scored.likelihood.mean_nll
    figures.values["nll_train"] = nll_train
    if nll is None:
        figures.missing("nll_gap", figures.reasons["nll"])
    else:
        figures.values["nll_gap"] = nll - nll_train


class _Scored(NamedTuple):
    """Strings that the run can write, with their likelihood, and how many it cannot."""

    smiles: list[str]
    likelihood: Likelihood | None
    """None where it can write none."""
    unknown: int
    """With a token that the vocabulary lacks."""
    too_long: int
    """Longer than the context."""

    def account(self, lacks: str) -> str:
        long = f"; {self.too_long} more are longer than the context" if self.too_long else ""
        return f"n = {len(self.smiles):,}; {self.unknown} more have tokens {lacks}{long}"


def _scored(generator: MoleculeGenerator, smiles: Sequence[str]) -> _Scored:
    encoded = {i: ids for i, s in enumerate(smiles) if (ids := generator.tokenizer.encode(s)) is not None}
    fits = {i: ids for i, ids in encoded.items() if len(ids) <= generator.model.context}
    counts = len(smiles) - len(encoded), len(encoded) - len(fits)
    if not fits:
        return _Scored([], None, *counts)
    corpus = Corpus.of(list(fits.values()), len(generator.tokenizer))
    return _Scored([smiles[i] for i in fits], likelihood(generator.model, corpus, generator.device), *counts)


def _compare(evaluation: Evaluation, first: Evaluation) -> None:
    """Adds the paired NLL difference over the held-out molecules that both runs can write."""
    common = [smiles for smiles in evaluation.held_out_nll if smiles in first.held_out_nll]
    if len(common) < 2:
        return
    ours, theirs = (np.array([e.held_out_nll[s] for s in common]) for e in (evaluation, first))
    mean, stderr = paired_difference(ours, theirs)
    evaluation.figures.values |= {"nll_paired_difference": mean, "nll_paired_stderr": stderr}
    evaluation.notes.append(f"NLL minus that of {first.name}: {mean:+.2f} ± {stderr:.2f} (paired, n = {len(common):,})")
