"""A run, a file or a list of samples → Evaluation: figures with their reasons and sizes."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tqdm import tqdm

from molgen.batches import Corpus
from molgen.cleaning import cut_extension
from molgen.config import Device, load_config, recipes
from molgen.datasets import NAMED, load_dataset, reference_smiles
from molgen.errors import MolgenError
from molgen.generator import Keep, MoleculeGenerator, Tally
from molgen.likelihood import Likelihood, likelihood, paired_difference
from molgen.metrics.basic import Figures, basic_figures
from molgen.runs import CONFIG, FOLDER
from molgen.sampling import Filters
from molgen.tables import read_rows, read_samples
from molgen.tokenizer import deepchem_pattern
from molgen.workers import Workers, workers

# nll_train is of a random part of the training split of at most this size.
_MOST_TRAINING = 10_000
Split = Literal["test", "validation"]
SCORE_COLUMNS = (
    "smiles",
    "canonical",
    "log_likelihood",
    "tokens",
    "log_likelihood_per_token",
    "unseen_token",
)
# How the table for people shows each figure.
_ROWS = (
    ("nll", "NLL, nats a molecule"),
    ("nll_train", "  of training molecules"),
    ("nll_per_token", "NLL, nats a token"),
    ("perplexity", "perplexity"),
    ("top1", "top-1 reconstruction"),
    ("top1_padded", "  with padding to 100"),
    ("n_samples", "samples"),
    ("validity", "validity"),
    ("uniqueness", "uniqueness"),
    ("novelty", "novelty"),
)


@dataclass
class Evaluation:
    """The figures of one run or one set of samples."""

    name: str
    figures: Figures
    notes: list[str] = field(default_factory=list)
    test: dict[str, float] = field(default_factory=dict)
    """NLL of each held-out molecule by its SMILES, for paired differences."""

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
    known = None
    if training is not None:
        known = {s for s in pool.map("canonical", list(training), "training set") if s is not None}
    evaluation = Evaluation(name, basic_figures(pool.map("canonical", list(samples), "samples"), known))
    _note_filtered(evaluation)
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

    Samples are drawn at temperature 1 without any filter.
    """
    run = generator.run
    assert run is not None
    figures = Figures()
    evaluation = Evaluation(str(run.path), figures)
    has_molecules = (run.path / "molecules.csv.gz").exists() or run.config.data.source == "moses"
    if has_molecules:
        held_out = _likelihood_figures(generator, split, evaluation)
        train = run.split("train")
        step = max(1, len(train) // _MOST_TRAINING)
        on_train, _ = _likelihood(generator, train[::step])
        figures.values["nll_train"] = on_train.mean_nll if on_train else None
        if held_out is None:
            figures.missing("nll", f"no {split} molecule whose tokens the run knows")
    else:
        for name in ("nll", "nll_stderr", "nll_train", "nll_per_token", "perplexity", "top1", "top1_padded"):
            figures.missing(name, "the run carries no molecules")
    known: frozenset[str] | None = None
    if training is not None:
        known = frozenset(s for s in pool.map("canonical", list(training), "training set") if s is not None)
    elif has_molecules:
        known = generator.training_set(pool)
    tally = Tally()
    with tqdm(total=n, desc="sampling", unit="mol", delay=1, leave=False, disable=None) as bar:
        canonical: list[str | None] = []
        for batch in generator.stream(n, Filters(), Keep(), pool, tally, seed=seed):
            canonical += [sample.canonical for sample in batch]
            bar.update(len(batch))
    basic = basic_figures(canonical, known)
    figures.values.update(basic.values)
    figures.reasons.update(basic.reasons)
    evaluation.notes.append(f"samples: n = {n:,}, temperature 1, no filter, seed {seed}, {tally.unfinished} unfinished")
    return evaluation


def paired(evaluation: Evaluation, other: Evaluation) -> tuple[float, float, int] | None:
    """Mean NLL of `evaluation` minus that of `other` over the held-out molecules both know, its standard error, n."""
    common = [smiles for smiles in evaluation.test if smiles in other.test]
    if len(common) < 2:
        return None
    sizes = np.zeros(len(common), dtype=np.int64)
    a, b = (Likelihood(np.array([e.test[s] for s in common]), sizes, sizes) for e in (evaluation, other))
    return *paired_difference(a, b), len(common)


def training_smiles(source: str, pool: Workers) -> list[str]:
    """What novelty is against: a named dataset's training split, or all of a file."""
    if source not in NAMED or source in ("moses", "moses-mini"):
        return reference_smiles(source, "train")
    config = load_config(source if source in recipes() else None, options={"data.source": source})
    return load_dataset(config.data, config.model.context, deepchem_pattern(), pool).split("train")


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
            if target is None or _is_run(target):
                generator = MoleculeGenerator.load(target, device)
                evaluations.append(evaluate_run(generator, n, split, seed, pool, against))
            else:
                samples = read_samples(target, smiles_column)
                if not samples:
                    raise MolgenError(f"{target}: no samples in it", "give a file with one SMILES a line")
                evaluations.append(evaluate(samples, training=against, name=target, pool=pool))
    first = evaluations[0]
    for other in evaluations[1:]:
        difference = paired(other, first)
        if difference is not None:
            mean, stderr, size = difference
            other.figures.values |= {"nll_paired_difference": mean, "nll_paired_stderr": stderr}
            other.notes.append(f"NLL minus that of {first.name}: {mean:+.2f} ± {stderr:.2f} (paired, n = {size:,})")
    return evaluations


def table(evaluations: Sequence[Evaluation]) -> str:
    """The figures for people: a line a figure, a column an evaluation, then notes and reasons."""
    width = max(12, *(len(e.name) + 2 for e in evaluations))
    lines = [" " * 26 + "".join(f"{e.name:>{width}}" for e in evaluations)]
    for key, title in _ROWS:
        if any(key in e.figures.values for e in evaluations):
            lines.append(f"{title:<26}" + "".join(f"{_shown(e.figures, key):>{width}}" for e in evaluations))
    for e in evaluations:
        lines += [f"{e.name}: {note}" for note in e.notes]
        lines += [f"{e.name}: no {name}: {reason}" for name, reason in e.figures.reasons.items()]
    return "\n".join(lines)


def sample_summary(canonical: Sequence[str | None], tally: Tally, generator: MoleculeGenerator, pool: Workers) -> str:
    """One line about samples just written: draws, validity, uniqueness, novelty."""
    try:
        known: frozenset[str] | None = generator.training_set(pool)
    except MolgenError:
        known = None
    values = basic_figures(canonical, known).values
    shown = [
        f"{name} {values[name]:.3f}" for name in ("validity", "uniqueness", "novelty") if values.get(name) is not None
    ]
    draws = f" of {tally.draws:,} draws" if tally.draws != tally.kept else ""
    unfinished = f", {tally.unfinished} unfinished" if tally.unfinished else ""
    return f"{tally.kept:,} molecules{draws}: {', '.join(shown)}{unfinished}"


def score_rows(file: str, run: str | None, smiles_column: str | None, device: Device) -> Iterator[tuple[str, ...]]:
    """Rows of SCORE_COLUMNS, one for each molecule of a file.

    The string scored is the canonical SMILES, or the string as written for a run trained on those.
    """
    generator = MoleculeGenerator.load(run, device)
    assert generator.run is not None
    as_written = generator.run.config.data.form == "as-written"
    given = [cut_extension(row.smiles)[0] for row in read_rows(file, smiles_column)]
    if not given:
        raise MolgenError(f"{file}: no molecules in it", "give a file with one molecule a line")
    with workers() as pool:
        canonical: list[str | None] = pool.map("canonical", given, "reading")
    scored = given if as_written else [smiles or "" for smiles in canonical]
    log_likelihood = generator.log_likelihood(scored)
    unscored = 0
    for smiles, form, string, value in zip(given, canonical, scored, log_likelihood, strict=True):
        tokens = generator.tokenizer.splitter.split(string)
        unseen = generator.tokenizer.unknown(string) if tokens else []
        unscored += bool(np.isnan(value))
        figures = ("", "") if np.isnan(value) else (f"{value:.4f}", f"{value / (len(tokens or ()) + 1):.4f}")
        yield smiles, form or "", figures[0], str(len(tokens or ())), figures[1], " ".join(unseen)
    if unscored:
        print(
            f"{unscored} of {len(given)} not scored: invalid, with an unseen token, or too long",
            file=sys.stderr,
        )


def _shown(figures: Figures, key: str) -> str:
    value = figures.values.get(key)
    if value is None:
        return "–"
    if key == "nll":
        return f"{value:.2f} ± {figures.values['nll_stderr']:.2f}"
    return f"{value:,}" if isinstance(value, int) else f"{value:.2f}" if key == "nll_train" else f"{value:.3f}"


def _is_run(target: str) -> bool:
    return any((folder / CONFIG).is_file() for folder in (Path(target), FOLDER / target)) or Path(target).is_dir()


def _likelihood_figures(generator: MoleculeGenerator, split: Split, evaluation: Evaluation) -> Likelihood | None:
    assert generator.run is not None
    smiles = generator.run.split(split)
    held_out, known = _likelihood(generator, smiles)
    figures = evaluation.figures
    figures.values["n_held_out"] = len(known)
    figures.values["n_unknown_tokens"] = len(smiles) - len(known)
    if held_out is None:
        return None
    evaluation.test = dict(zip(known, held_out.nll.tolist(), strict=True))
    figures.values |= {
        "nll": held_out.mean_nll,
        "nll_stderr": held_out.stderr,
        "nll_per_token": held_out.nll_per_token,
        "perplexity": held_out.perplexity,
        "top1": held_out.top1,
        "top1_padded": held_out.top1_padded,
    }
    evaluation.notes.append(
        f"{split} split: n = {len(known):,}, {len(smiles) - len(known)} more with tokens that training lacks, left out"
    )
    return held_out


def _likelihood(generator: MoleculeGenerator, smiles: Sequence[str]) -> tuple[Likelihood | None, list[str]]:
    encoded = [(s, ids) for s in smiles if (ids := generator.tokenizer.encode(s)) is not None]
    if not encoded:
        return None, []
    corpus = Corpus.of([ids for _, ids in encoded], len(generator.tokenizer))
    return likelihood(generator.model, corpus, generator.device), [s for s, _ in encoded]


def _note_filtered(evaluation: Evaluation) -> None:
    if evaluation.figures.values.get("validity") == 1:
        evaluation.notes.append("validity not meaningful: filtered before")
