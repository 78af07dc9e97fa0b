"""The rows of a sample table: validity, duplicates, training set membership, likelihood and properties."""

import logging
from base64 import b64decode
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any

import numpy as np

from molgen.chem.clean import LOST
from molgen.chem.descriptors import PROPERTIES
from molgen.chem.fragments import keep_of
from molgen.chem.kept import columns_of as kept_columns
from molgen.errors import MolgenError
from molgen.generation.answers import Answers
from molgen.generation.generator import MoleculeGenerator
from molgen.generation.rejection import Sample
from molgen.metrics.references import ReferenceSet, open_references
from molgen.metrics.similarity import neighbours
from molgen.prediction.columns import predicted_columns, predicted_names

logger = logging.getLogger(__name__)

COLUMNS = (
    *("smiles", "canonical", "valid", "error", "duplicate_of", "in_training"),
    *("nearest_training", "nn_similarity", "log_likelihood"),
    *PROPERTIES,
)
CHEAP = (
    *("smiles", "canonical", "valid", "error", "duplicate_of", "in_training"),
    *(name for name, column in PROPERTIES.items() if column.cheap),
)
_FORMATS = {name: column.style for name, column in PROPERTIES.items()} | {
    "nn_similarity": ".3f",
    "log_likelihood": ".3f",
}
_FINGERPRINT_BYTES = 128  # 1,024 bits


def columns_of(asked: str | None, own: Sequence[str] = ()) -> tuple[str, ...]:
    """The columns of a comma-separated list; all for `all`, CHEAP for None; `own`, those of the run, are in both.

    Raises MolgenError for other names.
    """
    if asked is None:
        return (*CHEAP, *own)
    if asked == "all":
        return (*COLUMNS, *own)
    names = tuple(name.strip() for name in asked.split(","))
    for name in names:
        if name not in (*COLUMNS, *own):
            raise MolgenError(f"--columns: no column {name!r}", f"all, or some of {','.join((*COLUMNS, *own))}")
    return tuple(dict.fromkeys(names))


class SampleTable:
    """Makes the rows of a table, batch by batch, and stores the molecules of earlier rows to detect duplicates.

    The columns: `error` says why RDKit cannot parse the string. `duplicate_of` is the number (from 1) of the first row
    with the same molecule. `nearest_training` is the training molecule with the highest Tanimoto similarity (Morgan
    fingerprints of radius 2, 1,024 bits), which is `nn_similarity`. `log_likelihood` is that of the string as drawn, in
    nats, at temperature 1 and without a condition. With `keep`, there are the columns of what the molecules hold too,
    with `answers` those of what was asked for and what came; it must have seen a batch before its rows. If the
    training molecules are not available, the columns about them are empty, or a MolgenError is raised if they were
    requested by name.
    """

    def __init__(
        self,
        asked: str | None,
        generator: MoleculeGenerator,
        molblocks: bool = False,
        keep: str = "",
        answers: Answers | None = None,
    ) -> None:
        kept = kept_columns(keep_of(keep)) if keep else ()
        predictor = generator.predictor
        self._predicted = predicted_names(predictor.run.targets) if predictor is not None else []
        self._answers = answers
        self.columns = columns_of(asked, (*kept, *self._predicted, *(answers.columns if answers else ())))
        self._keep = keep if set(kept) & set(self.columns) else ""
        if generator.runtime.group.size > 1 and "duplicate_of" in self.columns:
            if asked is not None:
                raise MolgenError(
                    "--columns: duplicate_of: one process does not know the draws of the others",
                    "leave it out, or sample in one process",
                )
            self.columns = tuple(name for name in self.columns if name != "duplicate_of")
            logger.info("several processes: the table has no column duplicate_of")
        self._generator, self._workers = generator, generator.runtime.workers
        self._parts = [*(name for name in self.columns if name in PROPERTIES), *(["molblock"] if molblocks else [])]
        self._first: dict[str, int] = {}
        self._rows = 0
        run = generator.run
        on_training = {"in_training", "nearest_training", "nn_similarity"} & set(self.columns)
        by_name = asked not in (None, "all")
        # if a run only names its source, reading it takes longer than sampling, so it is read only on request
        available = run is not None and not run.elsewhere and run.has_molecules
        self._compares_training = bool(on_training) and (by_name or available)
        if self._compares_training:
            _ = self._training  # raises an error for a run without molecules before a file is created
        elif on_training:
            why = (run.elsewhere or run.lacks("train")) if run is not None else "no run, no training molecules"
            logger.info(f"the columns on training molecules are empty: {why}")

    def rows(self, batch: Sequence[Sample]) -> list[dict[str, str]]:
        """One row per sample, column → text; a cell without a value is empty. With `molblock` if requested."""
        smiles = [sample.smiles for sample in batch]
        nearest = self._compares_training and not {"nearest_training", "nn_similarity"}.isdisjoint(self.columns)
        parts = [*self._parts, *(["fingerprint"] if nearest else [])]
        with ThreadPoolExecutor(1) as thread:  # RDKit's processes and the model work in parallel
            described = thread.submit(self._workers.map, "tabulate", smiles, columns=parts, keep=self._keep)
            wants_likelihood = "log_likelihood" in self.columns
            likelihoods = self._generator.log_likelihood(smiles).tolist() if wants_likelihood else []
            properties = described.result()
        known = self._training if self._compares_training and "in_training" in self.columns else frozenset()
        rows: list[dict[str, Any]] = []
        for sample, values in zip(batch, properties, strict=True):
            self._rows += 1
            valid = sample.canonical is not None
            row: dict[str, Any] = {"smiles": sample.smiles, "canonical": sample.canonical, "valid": _yes(valid)}
            row |= self._answers.cells(sample.canonical) if self._answers else {}
            if not valid:
                error = (values or {}).get("error", LOST)
                rows.append({**row, "error": "unfinished" if sample.unfinished else error})
                continue
            if "duplicate_of" in self.columns:
                first = self._first.setdefault(sample.canonical or "", self._rows)
                row["duplicate_of"] = str(first) if first != self._rows else ""
            if self._compares_training:
                row["in_training"] = _yes(sample.canonical in known)
            rows.append({**row, **(values or {})})
        if nearest:
            self._add_nearest(rows)
        if self._generator.predictor is not None and set(self._predicted) & set(self.columns):
            found = predicted_columns(self._generator.predictor, [sample.canonical or "" for sample in batch])
            for i, row in enumerate(rows):
                row |= {name: None if np.isnan(column[i]) else column[i] for name, column in found.items()}
        for row, value in zip(rows, likelihoods, strict=False):  # `likelihoods` is empty if not requested
            row["log_likelihood"] = None if np.isnan(value) else value
        names = [*self.columns, *self._parts[-1:]] if "molblock" in self._parts else self.columns
        return [{name: _text(name, row.get(name)) for name in names} for row in rows]

    def _add_nearest(self, rows: list[dict[str, Any]]) -> None:
        described = [row for row in rows if "fingerprint" in row]
        packed = b"".join(b64decode(row["fingerprint"]) for row in described)
        references, training = self._references
        similarity, index = neighbours(np.frombuffer(packed, np.uint8).reshape(-1, _FINGERPRINT_BYTES), references)
        for row, value, i in zip(described, similarity.tolist(), index.tolist(), strict=True):
            row["nearest_training"], row["nn_similarity"] = training[i], value

    @cached_property
    def _training(self) -> frozenset[str]:
        return self._generator.training_set()

    @cached_property
    def _references(self) -> tuple[np.ndarray[Any, np.dtype[np.uint8]], list[str]]:
        """(fingerprints, their SMILES) of the training molecules."""
        training = sorted(self._training)
        references = open_references(self._generator.runtime)
        index = references.index(ReferenceSet.of("training set", training), (), True)
        return index.fingerprints, [training[i] for i in index.rows.tolist()]


def _yes(value: bool) -> str:
    return "true" if value else "false"


def _text(name: str, value: Any) -> str:
    style = _FORMATS.get(name, ".3f" if isinstance(value, float) else "")
    return "" if value is None else format(value, style)
