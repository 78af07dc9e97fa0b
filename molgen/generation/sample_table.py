"""Samples → the rows of a table: each one's validity, where it was seen before, and its properties."""

import logging
from base64 import b64decode
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any

import numpy as np

from molgen.chem.descriptors import PROPERTIES
from molgen.errors import MolgenError
from molgen.generation.generator import MoleculeGenerator
from molgen.generation.rejection import Sample
from molgen.metrics.references import ReferenceSet, open_references
from molgen.metrics.similarity import neighbours

logger = logging.getLogger(__name__)

COLUMNS = (
    *("smiles", "canonical", "valid", "error", "duplicate_of", "in_training"),
    *("nearest_training", "nn_similarity", "log_likelihood"),
    *PROPERTIES,
)
CHEAP = (
    *("smiles", "canonical", "valid", "error", "duplicate_of", "in_training"),
    *(name for name, one in PROPERTIES.items() if one.cheap),
)
_STYLES = {name: one.style for name, one in PROPERTIES.items()} | {"nn_similarity": ".3f", "log_likelihood": ".3f"}
_BYTES = 128  # of a fingerprint of 1,024 bits


def columns_of(asked: str | None) -> tuple[str, ...]:
    """The columns of a comma-separated list, `all` of them, or the cheap ones. Raises MolgenError for others."""
    if asked is None:
        return CHEAP
    if asked == "all":
        return COLUMNS
    names = tuple(name.strip() for name in asked.split(","))
    for name in names:
        if name not in COLUMNS:
            raise MolgenError(f"--columns: no column {name!r}", f"all, or some of {','.join(COLUMNS)}")
    return tuple(dict.fromkeys(names))


class SampleTable:
    """Makes the rows, batch by batch, and remembers what it has seen.

    Of its columns, `error` says why RDKit makes no molecule of a string, `duplicate_of` is the number of the row (from
    1) that had the same molecule first, `nearest_training` the training molecule of the highest Tanimoto similarity
    (Morgan fingerprints of radius 2, 1,024 bits), `log_likelihood` that of the string as drawn, in nats, at temperature
    1. Where a run carries no training molecules, the columns on them are empty, unless they were asked for by name.
    """

    def __init__(self, asked: str | None, generator: MoleculeGenerator, molblocks: bool = False) -> None:
        self.columns = columns_of(asked)
        if generator.runtime.group.size > 1 and "duplicate_of" in self.columns:
            if asked is not None:
                raise MolgenError(
                    "--columns: duplicate_of: one process does not know what the others draw",
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
        # molecules that a run only names take longer to find than samples to draw: they are looked for on demand
        at_hand = run is not None and not run.elsewhere and run.has_molecules
        self._trained = bool(on_training) and (by_name or at_hand)
        if self._trained:
            _ = self._training  # a run that carries none is refused before a file is made
        elif on_training:
            why = (run.elsewhere or run.lacks("train")) if run is not None else "no run, no training molecules"
            logger.info(f"the columns on training molecules are empty: {why}")

    def rows(self, batch: Sequence[Sample]) -> list[dict[str, str]]:
        """A row for each sample: its cells as text, empty where there is nothing to say; `molblock` if asked for."""
        smiles = [sample.smiles for sample in batch]
        nearest = self._trained and not {"nearest_training", "nn_similarity"}.isdisjoint(self.columns)
        parts = [*self._parts, *(["fingerprint"] if nearest else [])]
        with ThreadPoolExecutor(1) as aside:  # RDKit's processes and the model work at the same time
            described = aside.submit(self._workers.map, "tabulate", smiles, columns=parts)
            wants_likelihood = "log_likelihood" in self.columns
            likelihoods = self._generator.log_likelihood(smiles).tolist() if wants_likelihood else []
            properties = described.result()
        known = self._training if self._trained and "in_training" in self.columns else frozenset()
        rows: list[dict[str, Any]] = []
        for sample, answer in zip(batch, properties, strict=True):
            self._rows += 1
            valid = sample.canonical is not None
            row = {"smiles": sample.smiles, "canonical": sample.canonical, "valid": _yes(valid)}
            if not valid:
                failed = (answer or {}).get("error", "RDKit hung or crashed")
                rows.append({**row, "error": "unfinished" if sample.unfinished else failed})
                continue
            if "duplicate_of" in self.columns:
                first = self._first.setdefault(sample.canonical or "", self._rows)
                row["duplicate_of"] = str(first) if first != self._rows else ""
            if self._trained:
                row["in_training"] = _yes(sample.canonical in known)
            rows.append({**row, **(answer or {})})
        if nearest:
            self._add_nearest(rows)
        for row, value in zip(rows, likelihoods, strict=False):  # none where they are not asked for
            row["log_likelihood"] = None if np.isnan(value) else value
        names = [*self.columns, *self._parts[-1:]] if "molblock" in self._parts else self.columns
        return [{name: _text(name, row.get(name)) for name in names} for row in rows]

    def _add_nearest(self, rows: list[dict[str, Any]]) -> None:
        described = [row for row in rows if "fingerprint" in row]
        packed = b"".join(b64decode(row["fingerprint"]) for row in described)
        references, training = self._references
        similarity, index = neighbours(np.frombuffer(packed, np.uint8).reshape(-1, _BYTES), references)
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
    return "" if value is None else format(value, _STYLES.get(name, ""))
