"""Likelihoods under a run's model: of held-out molecules, of training molecules, of its own samples."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from molgen.data.batches import Corpus
from molgen.errors import MolgenError
from molgen.evaluation.options import Split
from molgen.generation.generator import MoleculeGenerator
from molgen.metrics.metric import MetricValues, Row
from molgen.model.likelihood import Likelihood, likelihood
from molgen.runs import Run

TITLE = "Likelihood"
ROWS = (
    Row("nll", "NLL, nats per molecule", ".2f", -1),
    Row("nll_train", "  of training molecules", ".2f"),
    Row("nll_gap", "  gap to training", ".2f"),
    Row("nll_per_token", "NLL, nats per token", ".3f", -1),
    Row("perplexity", "perplexity", ".3f", -1),
    Row("top1", "top-1 reconstruction", ".3f", 1),
    Row("top1_padded", "  with padding to 100", ".3f"),
)
# nll_train is of evenly spaced training molecules, less than twice this many.
_TRAINING_MOLECULES = 10_000


@dataclass
class RunLikelihoods:
    """Figures with their notes, and what they are of."""

    figures: MetricValues = field(default_factory=MetricValues)
    notes: list[str] = field(default_factory=list)
    nll: dict[str, npt.NDArray[np.float64]] = field(default_factory=dict)
    """NLL in nats of each molecule of the held-out split, of training and of the samples, by name of the set."""
    held_out_nll: dict[str, float] = field(default_factory=dict)
    """NLL of each held-out molecule by its SMILES."""

    def add(self, other: "RunLikelihoods") -> None:
        """Adds those of another set."""
        self.figures.add(other.figures)
        self.notes += other.notes
        self.nll |= other.nll
        self.held_out_nll |= other.held_out_nll


def run_likelihoods(generator: MoleculeGenerator, run: Run, split: Split, samples: Sequence[str]) -> RunLikelihoods:
    """Likelihoods of a split, of training molecules with the gap between the two, and of non-empty samples."""
    result = _held_out(generator, run, split)
    result.add(_training(generator, run, result.figures))
    if result.nll:
        own = generator.log_likelihood([smiles for smiles in samples if smiles])
        result.nll["samples"] = -own[~np.isnan(own)]
    return result


def _held_out(generator: MoleculeGenerator, run: Run, split: Split) -> RunLikelihoods:
    result = RunLikelihoods()
    if reason := run.lacks(split):
        result.figures.missing("nll", reason)
        return result
    listed = run.split(split)
    smiles = run.spread(split, len(listed) or 1)  # of an encoded file those that start with <bos>
    if forms := len(listed) - len(smiles):
        result.notes.append(f"{split} split: {forms:,} random forms are left out of the NLL")
    scored = _scored(generator, smiles)
    result.figures.values["n_held_out"] = len(scored.smiles)
    result.figures.values |= {"n_unknown_tokens": scored.unknown, "n_too_long": scored.too_long}
    result.notes.append(f"{split} split: {scored.account('that training lacks')}")
    held_out = scored.likelihood
    if held_out is None:
        reason = f"no {split} molecule has only tokens that the run knows and fits into its context"
        result.figures.missing("nll", reason)
        return result
    result.figures.values |= held_out.figures()
    if held_out.stderr is None:
        result.figures.missing("nll_stderr", "one molecule has no standard error")
    result.held_out_nll = dict(zip(scored.smiles, held_out.nll.tolist(), strict=True))
    result.nll[split] = held_out.nll
    return result


def _training(generator: MoleculeGenerator, run: Run, held_out: MetricValues) -> RunLikelihoods:
    """Of training molecules, with the gap to the held-out ones' figure."""
    result = RunLikelihoods()
    try:
        scored = _scored(generator, run.spread("train", _TRAINING_MOLECULES))
        reason = "" if scored.likelihood else "no training molecule starts with <bos> and fits into the context"
    except MolgenError as error:
        scored, reason = _Scored([], None, 0, 0), error.message
    if scored.likelihood is None:
        result.figures.missing("nll_train", reason)
        result.figures.missing("nll_gap", reason)
        return result
    if scored.unknown or scored.too_long:
        result.notes.append(f"training molecules: {scored.account('that the vocabulary lacks')}")
    result.nll["training"] = scored.likelihood.nll
    nll, nll_train = held_out.values["nll"], scored.likelihood.mean_nll
    result.figures.values["nll_train"] = nll_train
    if nll is None:
        result.figures.missing("nll_gap", held_out.reasons["nll"])
    else:
        result.figures.values["nll_gap"] = nll - nll_train
    return result


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
