"""The work of `molgen score`: log-likelihoods of molecules under a run."""

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from molgen.chem import clean
from molgen.chem.pool import Workers
from molgen.data.readers import Row, read_molecules
from molgen.data.standardised import standardised
from molgen.errors import MolgenError
from molgen.generation.generator import MoleculeGenerator
from molgen.runtime.device import Device

if TYPE_CHECKING:
    from molgen.generation.notebook import MoleculeFrame

_AT_A_TIME = 20_000  # strings whose likelihoods are computed together
_SEED = 1  # fixed, so that a molecule's random strings are always the same
_DRAWS = 500  # random strings per request to a worker: within its time limit, also for large molecules
_TRIES = 5  # at most this many times the requested number of strings are drawn


class Score(NamedTuple):
    """A row of the table that `molgen score` writes; log-likelihoods in nats, None if there is none."""

    smiles: str
    """As given, without a CXSMILES extension."""
    name: str
    canonical: str
    """The string that is scored: standardised and in the run's form, or as given."""
    log_likelihood: float | None
    """ln p of that string and its `<eos>`."""
    tokens: int
    log_likelihood_per_token: float | None
    """`<eos>` counts as a token."""
    unseen_token: str
    """Tokens that the vocabulary lacks."""
    note: str
    """What standardisation changed, or why there is no score."""
    strings: int | None = None
    """Number of distinct strings of the molecule in the sum."""
    log_likelihood_strings: float | None = None
    """ln of the sum of their probabilities: a lower bound of ln p of the molecule."""


def score(
    molecules: str | os.PathLike[str] | Iterable[str],
    run: str | os.PathLike[str] | None = None,
    *,
    as_written: bool = False,
    strings: int | None = None,
    smiles_column: str | None = None,
    device: Device = "auto",
) -> "MoleculeFrame":
    """Log-likelihoods of SMILES, or of a file of molecules, under a run (by default the newest): one row per molecule.

    The columns are those of `Score`. Raises MolgenError as `score_rows` does, and for a file that cannot be read.
    """
    from molgen.generation.notebook import MoleculeFrame  # imports pandas, which the command line does not need

    generator = MoleculeGenerator.load(run, device)
    if isinstance(molecules, str | os.PathLike):
        rows = read_molecules(os.fspath(molecules), smiles_column)
    else:
        rows = [Row(number, smiles, "", "") for number, smiles in enumerate(molecules, 1)]
    scores = score_rows(rows, generator, as_written, strings)
    columns = columns_of(strings)
    return MoleculeFrame([row[:columns] for row in scores], columns=Score._fields[:columns])


def columns_of(strings: int | None) -> int:
    """The number of fields of `Score` to show: the last two only if several strings are summed."""
    return len(Score._fields) - (0 if strings else 2)


def score_rows(
    rows: Sequence[Row], generator: MoleculeGenerator, as_written: bool = False, strings: int | None = None
) -> list[Score]:
    """The score of each molecule, in order.

    The scored string is the molecule standardised and written with the run's settings, or with `as_written` the string
    as given. There is no score if the run would have dropped the molecule (limits of length do not count), if RDKit
    cannot parse it, if it has an unknown token (which is shown), or if it is longer than the context. With `strings`,
    the probabilities of up to so many distinct strings per molecule are summed. Raises MolgenError if `strings` < 1.
    """
    if strings is not None and strings < 1:
        raise MolgenError(f"--strings {strings}: out of range", "sum over at least one string")
    cleaned = _as_written(rows, generator.runtime.workers) if as_written else _standardised(rows, generator)
    values = generator.log_likelihood([smiles for smiles, _ in cleaned])
    scores = []
    for row, (scored, note), value in zip(rows, cleaned, values, strict=True):
        smiles, _ = clean.cut_extension(row.smiles)
        tokens = generator.tokenizer.splitter.split(scored) or []
        shown = scored or smiles  # unknown tokens are shown also for a dropped molecule
        unseen = " ".join(generator.tokenizer.unknown(shown)) if generator.tokenizer.splitter.split(shown) else ""
        known = None if np.isnan(value) else float(value)
        if known is None:
            note = note or ("a token that training lacks" if unseen else clean.TOO_LONG)
        per_token = None if known is None else known / (len(tokens) + 1)
        scores.append(Score(smiles, row.name, scored, known, len(tokens), per_token, unseen, note))
    return scores if strings is None else list(_summed(scores, strings, generator))


def _standardised(rows: Sequence[Row], generator: MoleculeGenerator) -> list[tuple[str, str]]:
    """For each row, (the string that the run would train on, the changes), or ("", why it would be dropped)."""
    if generator.run is None:
        raise MolgenError("this generator has no run to standardise as", "score the strings as written")
    pattern = generator.tokenizer.splitter.pattern
    return standardised(rows, generator.run.config.data, generator.model.context, pattern, generator.runtime.workers)


def _as_written(rows: Sequence[Row], workers: Workers) -> list[tuple[str, str]]:
    given = [clean.cut_extension(row.smiles) for row in rows]
    parsed = workers.map("describe", [smiles for smiles, _ in given], "parsing", parts=("canonical",))
    strings = []
    for row, (smiles, extension), parts in zip(rows, given, parsed, strict=True):
        cause = clean.LOST if parts is None else parts.get("failure", "")
        reason = row.problem or (cause if cause in ("", clean.LOST, "empty") else f"{clean.UNPARSABLE}: {cause}")
        strings.append(("", reason) if reason else (smiles, extension))
    return strings


def _summed(scores: Sequence[Score], k: int, generator: MoleculeGenerator) -> Iterator[Score]:
    """The scores with the sum over up to `k` distinct strings, including the one that was scored.

    If RDKit hung or crashed on some of a molecule's strings, there is no sum, because it would have fewer strings.
    """
    at_a_time, workers = max(1, _AT_A_TIME // k), generator.runtime.workers
    for start in range(0, len(scores), at_a_time):
        block = scores[start : start + at_a_time]
        others = _random_forms([score.canonical for score in block if score.log_likelihood is not None], k - 1, workers)
        lost = {smiles for smiles, found in others.items() if found is None}
        forms = [[score.canonical, *(others.get(score.canonical) or [])] for score in block]
        values = generator.log_likelihood([form for own in forms for form in own])
        parts = np.split(values, np.cumsum([len(own) for own in forms])[:-1])
        for score, part in zip(block, parts, strict=True):
            known = part[~np.isnan(part)]
            if score.log_likelihood is None or not len(known):
                yield score
            elif score.canonical in lost:
                yield score._replace(note="; ".join(filter(None, [score.note, f"no sum: {clean.LOST}"])))
            else:
                yield score._replace(strings=len(known), log_likelihood_strings=_log_sum(known))


def _random_forms(canonical: Sequence[str], most: int, workers: Workers) -> dict[str, list[str] | None]:
    """Up to `most` distinct random SMILES of each molecule, fewer for a small one; None if RDKit hung or crashed.

    Missing strings are drawn again, several hundred per request, each request with its own seed.
    """
    found: dict[str, dict[str, None]] = {smiles: {} for smiles in canonical}
    lost: set[str] = set()
    for attempt in range(_TRIES):
        lacking = [smiles for smiles, forms in found.items() if smiles not in lost and len(forms) < most]
        wanted = [
            [smiles, min(_DRAWS, most - first), _SEED + attempt + _TRIES * number]
            for smiles in lacking
            for number, first in enumerate(range(0, most, _DRAWS))
        ]
        drawn = workers.map("random_forms", wanted, "random SMILES", at_a_time=max(1, _DRAWS // max(1, most)))
        for item, forms in zip(wanted, drawn, strict=True):
            if forms is None:
                lost.add(str(item[0]))
            else:
                found[str(item[0])].update(dict.fromkeys(forms))
    return {smiles: None if smiles in lost else list(forms)[:most] for smiles, forms in found.items()}


def _log_sum(values: npt.NDArray[np.float64]) -> float:
    return float(np.logaddexp.reduce(values))
