"""A file of molecules → their log-likelihoods under a run."""

from typing import NamedTuple

import numpy as np

from molgen.cleaning import cut_extension
from molgen.errors import MolgenError
from molgen.generator import MoleculeGenerator
from molgen.tables import read_rows
from molgen.workers import Workers


class Score(NamedTuple):
    """A row of the table that `molgen score` writes; log-likelihoods in nats, None where there is none."""

    smiles: str
    canonical: str
    log_likelihood: float | None
    tokens: int
    log_likelihood_per_token: float | None
    unseen_token: str


def score_file(file: str, generator: MoleculeGenerator, pool: Workers, smiles_column: str | None = None) -> list[Score]:
    """A row for each of the file's molecules, in order.

    The string scored is the canonical SMILES, or the string as written for a run trained on those. None where that
    string is invalid, has a token that the vocabulary lacks (named) or exceeds the context. Per token: `<eos>` counts.
    """
    given = [cut_extension(row.smiles)[0] for row in read_rows(file, smiles_column)]
    if not given:
        raise MolgenError(f"{file}: no molecules in it", "give a file with one molecule a line")
    as_written = generator.run is not None and generator.run.config.data.form == "as-written"
    canonical: list[str] = [smiles or "" for smiles in pool.map("canonical", given, "reading")]
    scored = given if as_written else canonical
    rows = []
    for smiles, form, string, value in zip(given, canonical, scored, generator.log_likelihood(scored), strict=True):
        tokens = generator.tokenizer.splitter.split(string) or []
        unseen = " ".join(generator.tokenizer.unknown(string)) if tokens else ""
        known = None if np.isnan(value) else float(value)
        per_token = None if known is None else known / (len(tokens) + 1)
        rows.append(Score(smiles, form, known, len(tokens), per_token, unseen))
    return rows
