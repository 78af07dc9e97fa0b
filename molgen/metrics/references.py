"""Reference sets: the tables and indices that samples are compared with, computed once and cached."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np

from molgen.chem import descriptors
from molgen.chem.pool import Workers
from molgen.chem.smiles import RDKIT_VERSION
from molgen.chem.smiles import VERSION as MOLECULES_VERSION
from molgen.config import NAMED, load_config, recipes
from molgen.data.dataset import build_dataset
from molgen.data.download import MOSES_FILES, data_directory, fetch
from molgen.data.sources import read_source, reference_smiles
from molgen.errors import MolgenError
from molgen.machine import Runtime
from molgen.metrics import chemnet
from molgen.metrics.known import TrainingIndex, build_index
from molgen.metrics.profile import MoleculeTable, available, describe
from molgen.runtime import cache
from molgen.tokenizer import deepchem_pattern

Result = TypeVar("Result")
Kind = Literal["random", "add-carbon", "baseline"]
# Random parts come in these sizes, so that one that is cached serves every smaller n.
_SIZES = (2_000, 10_000, 30_000, 100_000)
VERSION = "1"
"""Increase it when the content of a cached table or index changes, so that it is computed again."""
_SEED = {"random": 0, "add-carbon": 1, "baseline": 42}


class ReferenceSet:
    """SMILES with a name and a digest of their content; they are read only when something of them is not cached."""

    def __init__(self, name: str, digest: str, load: Callable[[], Sequence[str]]) -> None:
        self.name, self.digest, self._load = name, digest, load

    @classmethod
    def of(cls, name: str, smiles: Sequence[str]) -> "ReferenceSet":
        """Of a list."""
        return cls(name, cache.fingerprint(smiles), lambda: smiles)

    @classmethod
    def moses(cls, split: str) -> "ReferenceSet":
        """A split of MOSES as its authors publish it. Raises MolgenError where it is not here and cannot be fetched."""
        fetch("moses")
        return cls(f"moses {split}", MOSES_FILES[f"{split}.csv.gz"], lambda: reference_smiles("moses", split))

    @cached_property
    def smiles(self) -> Sequence[str]:
        """The molecules."""
        return self._load()

    def check_parsed(self, parsed: int) -> None:
        """Raises MolgenError if RDKit parses none of the molecules."""
        if not parsed:
            raise MolgenError(
                f"{self.name}: RDKit parses none of its {len(self.smiles):,} molecules",
                "is it the right file, and the right column of it?",
            )


@dataclass(frozen=True)
class ComparisonSets:
    """The sets that samples are compared with; None for a set that is not available."""

    training: ReferenceSet | None = None
    held_out: ReferenceSet | None = None
    """What is to be rediscovered."""
    reference: str | None = None
    """DATA whose test split distributions are against; left out, MOSES' own test sets."""
    moses_training: ReferenceSet | None = None
    """What MOSES' `Novelty` and baselines are against; left out, `training`, and without that MOSES' training set."""
    thorough: bool = False
    """Whether to use all training molecules, also of a very large set."""


class ReferenceCache:
    """Tables and indices of reference sets, from the cache or computed with the workers and put there."""

    def __init__(self, runtime: Runtime, folder: Path) -> None:
        self.runtime, self.folder = runtime, folder

    @property
    def versions(self) -> tuple[str, ...]:
        """The versions that every table and index depends on."""
        return VERSION, RDKIT_VERSION, descriptors.VERSION, MOLECULES_VERSION, chemnet.versions()

    def cached(
        self,
        name: str,
        key: Iterable[str],
        build: Callable[[], cache.Arrays],
        read: Callable[[cache.Arrays], Result],
    ) -> Result:
        """As `runtime.cache.cached`; what lacks molecules that the workers lost is not kept for the next time."""
        workers = self.runtime.workers
        lost = len(workers.lost)
        return cache.cached(self.folder, name, key, build, read, lambda: len(workers.lost) == lost)

    def index(self, molecules: ReferenceSet, columns: Sequence[str], with_fingerprints: bool = False) -> TrainingIndex:
        """A set as novelty needs it, of its molecules that parse. Raises MolgenError where none does."""

        def build() -> cache.Arrays:
            label = f"{molecules.name} (once)"
            index = build_index(list(molecules.smiles), columns, with_fingerprints, self.runtime.workers, label)
            molecules.check_parsed(index.parsed)
            return index.to_arrays()

        def read(arrays: cache.Arrays) -> TrainingIndex:
            index = TrainingIndex.from_arrays(arrays)
            if index.keys.keys() != {*columns, "shipped"}:
                raise ValueError("other columns")
            return index

        key = [molecules.digest, *columns, str(with_fingerprints), "parsed", *self.versions]
        return self.cached("known", key, build, read)

    def random_table(self, molecules: ReferenceSet, n: int, kind: Kind, parts: Iterable[str]) -> MoleculeTable:
        """`n` random molecules of a set that parse (all of a smaller set), or such molecules with a carbon more.

        Always the same ones; those of a smaller `n` are the first of a larger.
        """
        parts, size = available(parts), cached_size(n)

        def build() -> cache.Arrays:
            smiles, label = molecules.smiles, f"{kind} {molecules.name} (once)"
            order = np.random.default_rng(_SEED[kind]).permutation(len(smiles)).tolist()
            table, drawn = None, 0
            while table is None or (len(table) < size and drawn < len(order)):  # others for those that do not parse
                more = order[drawn : drawn + size - (0 if table is None else len(table))]
                drawn += len(more)
                chosen = [smiles[i] for i in more]
                if kind == "add-carbon":
                    chosen = self._with_carbon(chosen, molecules)
                described = describe(chosen, parts, self.runtime, label)
                table = described if table is None else table.joined(described)
            return table.to_arrays()

        def read(arrays: cache.Arrays) -> MoleculeTable:
            table = MoleculeTable.from_arrays(arrays)
            if table.columns.keys() != {*parts, *(["scaffold_rings"] if "scaffold" in parts else [])}:
                raise ValueError("other columns")
            return table

        key = [molecules.digest, str(size), kind, "parsed", *parts, *self.versions]
        table = self.cached("profile", key, build, read)
        return table.take(np.arange(min(n, len(table))))

    def _with_carbon(self, chosen: list[str], molecules: ReferenceSet) -> list[str]:
        """Each molecule with a carbon put somewhere, so that the set lacks the result, where that is possible."""
        index = self.index(molecules, ("canonical",))
        requests = [[smiles, i] for i, smiles in enumerate(chosen)]
        candidates = self.runtime.workers.map("add_carbon", requests, "adding carbons")
        novel = index.missing("canonical", {s for group in candidates for s in group or []})
        return [
            next((s for s in group or [] if s in novel), original)
            for original, group in zip(chosen, candidates, strict=True)
        ]


def open_references(runtime: Runtime) -> ReferenceCache:
    """The cache in the data directory."""
    return ReferenceCache(runtime, data_directory() / "cache")


def named_set(source: str, split: str, workers: Workers) -> ReferenceSet:
    """A split of a named dataset, or all of a file."""
    if source == "moses":
        return ReferenceSet.moses(split)
    if source not in NAMED or source == "moses-mini":
        return ReferenceSet.of(source if source not in NAMED else f"{source} {split}", reference_smiles(source, split))
    config = load_config(source if source in recipes() else None, options={"data.source": source})
    dataset = build_dataset(read_source(config.data), config.data, config.model.context, deepchem_pattern(), workers)
    return ReferenceSet.of(f"{source} {split}", dataset.split(split))


def unparsed_note(molecules: ReferenceSet, index: TrainingIndex) -> list[str]:
    """A note on the molecules of a set that RDKit does not parse, if there are any."""
    if index.parsed == index.n:
        return []
    return [f"{molecules.name}: RDKit does not parse {index.n - index.parsed:,} of its {index.n:,} molecules: left out"]


def cached_size(n: int) -> int:
    """The number of molecules that is cached where `n` are asked for."""
    return next((size for size in _SIZES if size >= n), n)


def baseline_tables(floor: MoleculeTable, add_carbon: MoleculeTable, parsed: int, n: int) -> dict[str, MoleculeTable]:
    """The baselines of `n` samples, by name.

    `floor`, a random part of the training set, is what a perfect generator would get at this n; `copy`, the training
    set (`parsed` molecules) resampled, and `add-carbon`, training molecules with a carbon put somewhere, are what any
    honest generator must beat.
    """
    return {"floor": floor, "copy": resampled(floor, parsed, n), "add-carbon": add_carbon}


def resampled(table: MoleculeTable, whole: int, n: int) -> MoleculeTable:
    """`n` draws with replacement from a set of `whole` molecules that parse; `table` is at least n of them, or all.

    Which molecules are drawn does not matter, only how often one is drawn again: the distinct ones are the first rows.
    """
    drawn = np.random.default_rng(2).integers(whole, size=n)
    return table.take(np.unique(drawn, return_inverse=True)[1])
