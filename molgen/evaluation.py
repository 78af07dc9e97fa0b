"""A run, a file or a list of samples → Evaluation: figures with their reasons and sizes."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tqdm import tqdm

from molgen.batches import Corpus
from molgen.config import Device, load_config, recipes
from molgen.datasets import NAMED, build_dataset, read_source, reference_smiles
from molgen.errors import MolgenError
from molgen.generator import Keep, MoleculeGenerator, Tally
from molgen.likelihood import Likelihood, likelihood, paired_difference
from molgen.metrics.basic import Figures, basic_figures
from molgen.runs import FOLDER, Run
from molgen.sampling import Filters
from molgen.tables import read_samples
from molgen.tokenizer import deepchem_pattern
from molgen.workers import Workers, workers

# nll_train is of evenly spaced training molecules, less than twice this many.
_TRAINING_MOLECULES = 10_000
# How the table for people names and shows each figure.
_ROWS = (
    ("nll", "NLL, nats a molecule", ".2f"),
    ("nll_train", "  of training molecules", ".2f"),
    ("nll_per_token", "NLL, nats a token", ".3f"),
    ("perplexity", "perplexity", ".3f"),
    ("top1", "top-1 reconstruction", ".3f"),
    ("top1_padded", "  with padding to 100", ".3f"),
    ("n_samples", "samples", ","),
    ("validity", "validity", ".3f"),
    ("uniqueness", "uniqueness", ".3f"),
    ("novelty", "novelty", ".3f"),
)

Split = Literal["test", "validation"]


@dataclass
class Evaluation:
    """The figures of one run or one set of samples."""

    name: str
    figures: Figures
    notes: list[str] = field(default_factory=list)
    held_out_nll: dict[str, float] = field(default_factory=dict)
    """NLL of each held-out molecule by its SMILES: two runs are compared by their paired difference."""

    def to_json(self) -> dict[str, Any]:
        """Figures by name, with `name`, `reasons` for what is null, and `notes`."""
        return {
            "name": self.name,
            **self.figures.values,
            "reasons": self.figures.reasons,
            "notes": self.notes,
        }


def evaluate(
    samples: Sequence[str],
    *,
    training: Sequence[str] | None = None,
    name: str = "samples",
    pool: Workers | None = None,
) -> Evaluation:
    """Validity, uniqueness and novelty of SMILES as drawn (an empty string is an invalid sample), nothing cleaned.

    `training` is the set that novelty is against. Both are canonicalised by the RDKit that is installed.
    """
    if pool is None:
        with workers() as own:
            return evaluate(samples, training=training, name=name, pool=own)
    canonical = pool.map("canonical", list(samples), "samples")
    evaluation = Evaluation(name, basic_figures(canonical, _canonical_set(training, pool)))
    if evaluation.figures.values.get("validity") == 1:
        evaluation.notes.append("validity not meaningful: filtered before")
    return evaluation


def evaluate_run(
    generator: MoleculeGenerator,
    n: int,
    split: Split,
    seed: int,
    pool: Workers,
    training: Sequence[str] | None = None,
) -> Evaluation:
    """Likelihood of the held-out split and of training molecules, and the basic figures of `n` fresh samples.

    Samples are drawn at temperature 1 without any filter. Novelty is against `training`, else the run's own.
    """
    run = generator.run
    assert run is not None
    evaluation = Evaluation(str(run.path), Figures())
    if run.has_molecules:
        _likelihood_figures(generator, run, split, evaluation)
        known: frozenset[str] | None = (
            generator.training_set(pool) if training is None else _canonical_set(training, pool)
        )
    else:
        evaluation.figures.missing("nll", "the run carries no molecules")
        known = _canonical_set(training, pool)
    tally = Tally()
    canonical: list[str | None] = []
    with tqdm(total=n, desc="sampling", unit="mol", delay=1, leave=False, disable=None) as bar:
        for batch in generator.stream(n, Filters(), Keep(), pool, tally, seed=seed):
            canonical += [sample.canonical for sample in batch]
            bar.update(len(batch))
    evaluation.figures.add(basic_figures(canonical, known))
    evaluation.notes.append(f"samples: n = {n:,}, temperature 1, no filter, seed {seed}, {tally.unfinished} unfinished")
    return evaluation


def evaluate_targets(
    targets: Sequence[str | None],
    n: int,
    split: Split,
    seed: int,
    device: Device,
    training: str | None,
    smiles_column: str | None,
) -> list[Evaluation]:
    """Runs (None: the newest) and files of samples, each evaluated; later runs are compared with the first, paired."""
    evaluations: list[Evaluation] = []
    with workers() as pool:
        against = training_smiles(training, pool) if training is not None else None
        for target in targets:
            if target is None or Path(target).is_dir() or (FOLDER / target).is_dir():
                generator = MoleculeGenerator.load(target, device)
                evaluations.append(evaluate_run(generator, n, split, seed, pool, against))
            else:
                samples = read_samples(target, smiles_column)
                if not samples:
                    raise MolgenError(f"{target}: no samples in it", "give a file with one SMILES a line")
                evaluations.append(evaluate(samples, training=against, name=target, pool=pool))
    first = evaluations[0]
    for other in evaluations[1:]:
        _compare(other, first)
    return evaluations


def table(evaluations: Sequence[Evaluation]) -> str:
    """The figures for people: a line a figure, a column an evaluation, then notes and reasons."""
    width = max(14, *(len(e.name) + 2 for e in evaluations))
    lines = [" " * 26 + "".join(f"{e.name:>{width}}" for e in evaluations)]
    for key, title, style in _ROWS:
        if any(key in e.figures.values for e in evaluations):
            lines.append(f"{title:<26}" + "".join(f"{_shown(e.figures, key, style):>{width}}" for e in evaluations))
    for e in evaluations:
        lines += [f"{e.name}: {note}" for note in e.notes]
        lines += [f"{e.name}: no {name}: {reason}" for name, reason in e.figures.reasons.items()]
    return "\n".join(lines)


def training_smiles(source: str, pool: Workers) -> list[str]:
    """What novelty is against: a named dataset's training split, or all of a file."""
    if source not in NAMED or source in ("moses", "moses-mini"):
        return reference_smiles(source, "train")
    config = load_config(source if source in recipes() else None, options={"data.source": source})
    rows = read_source(config.data)
    return build_dataset(rows, config.data, config.model.context, deepchem_pattern(), pool).split("train")


def _likelihood_figures(generator: MoleculeGenerator, run: Run, split: Split, evaluation: Evaluation) -> None:
    figures = evaluation.figures
    smiles = run.split(split)
    known, held_out = _likelihood(generator, smiles)
    figures.values |= {"n_held_out": len(known), "n_unknown_tokens": len(smiles) - len(known)}
    if held_out is None:
        figures.missing("nll", f"no {split} molecule has only tokens that the run knows")
        return
    figures.values |= held_out.figures()
    evaluation.held_out_nll = dict(zip(known, held_out.nll.tolist(), strict=True))
    unknown = len(smiles) - len(known)
    evaluation.notes.append(f"{split} split: n = {len(known):,}; {unknown} more have tokens that training lacks")
    train = run.split("train")
    _, on_train = _likelihood(generator, train[:: max(1, len(train) // _TRAINING_MOLECULES)])
    if on_train is not None:
        figures.values["nll_train"] = on_train.mean_nll


def _likelihood(generator: MoleculeGenerator, smiles: Sequence[str]) -> tuple[list[str], Likelihood | None]:
    """The strings that the vocabulary can write, and their likelihood."""
    encoded = {i: ids for i, s in enumerate(smiles) if (ids := generator.tokenizer.encode(s)) is not None}
    if not encoded:
        return [], None
    corpus = Corpus.of(list(encoded.values()), len(generator.tokenizer))
    return [smiles[i] for i in encoded], likelihood(generator.model, corpus, generator.device)


def _compare(evaluation: Evaluation, first: Evaluation) -> None:
    """Adds the paired NLL difference over the held-out molecules that both runs can write."""
    common = [smiles for smiles in evaluation.held_out_nll if smiles in first.held_out_nll]
    if len(common) < 2:
        return
    ours, theirs = (np.array([e.held_out_nll[s] for s in common]) for e in (evaluation, first))
    mean, stderr = paired_difference(ours, theirs)
    evaluation.figures.values |= {"nll_paired_difference": mean, "nll_paired_stderr": stderr}
    evaluation.notes.append(f"NLL minus that of {first.name}: {mean:+.2f} ± {stderr:.2f} (paired, n = {len(common):,})")


def _canonical_set(smiles: Sequence[str] | None, pool: Workers) -> frozenset[str] | None:
    if smiles is None:
        return None
    return frozenset(s for s in pool.map("canonical", list(smiles), "training set") if s is not None)


def _shown(figures: Figures, key: str, style: str) -> str:
    value = figures.values.get(key)
    if value is None:
        return "–"
    stderr = figures.values.get(f"{key}_stderr")
    return f"{value:{style}}" + (f" ± {stderr:{style}}" if stderr is not None else "")
