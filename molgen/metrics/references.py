"""Reference sets and what is known of them, computed once and cached: what samples are compared with."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt

from molgen.chem import descriptors
from molgen.chem.pool import Workers
from molgen.chem.smiles import RDKIT_VERSION
from molgen.chem.smiles import VERSION as MOLECULES_VERSION
from molgen.config import NAMED, load_config, recipes
from molgen.data.dataset import build_dataset, read_source, reference_smiles
from molgen.data.download import MOSES_FILES, fetch, has_moses, moses_file
from molgen.errors import MolgenError
from molgen.metrics import chemnet, guacamol, moses, moses_statistics
from molgen.metrics.known import TrainingIndex, known
from molgen.metrics.profile import MoleculeTable, profile
from molgen.metrics.similarity import nearest
from molgen.runtime import cache
from molgen.tokenizer import deepchem_pattern

Result = TypeVar("Result")
Kind = Literal["random", "add-carbon", "baseline"]
# Random parts come in these sizes, so that one that is cached serves every smaller n.
_SIZES = (2_000, 10_000, 30_000, 100_000)
_VERSION = "1"
"""Goes up with a change of what is cached here and made here or in `metrics`, so that it is computed anew."""
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


class ReferenceCache:
    """Profiles and statistics of reference sets, from the cache or computed with the workers and put there."""

    def __init__(self, pool: Workers, folder: Path, device: str = "cpu") -> None:
        self.pool, self.folder, self.device = pool, folder, device
        self.seconds: dict[str, float] = {}
        """Time spent in each stage so far."""

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Adds the time of the block to a stage."""
        start = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    @cached_property
    def alert_folder(self) -> str:
        """Where MOSES' alert lists are, or an empty string. Raises MolgenError for lists that are not as published."""
        folders = [moses_file(name).parent for name in ("mcf.csv", "wehi_pains.csv")] if has_moses() else []
        return str(folders[0]) if folders else ""

    def parts(self, wanted: Iterable[str]) -> list[str]:
        """Parts of a profile that can be had here: `filters` needs MOSES' alert lists."""
        return [part for part in dict.fromkeys(wanted) if part != "filters" or self.alert_folder]

    def describe(self, smiles: Sequence[str], wanted: Iterable[str], label: str) -> MoleculeTable:
        """The profile of samples, not cached; `activations` is a part like the others."""
        wanted = list(wanted)
        parts = self.parts(part for part in wanted if part != "activations")
        with self.stage("molecules"):
            table = profile(smiles, parts, self.pool, label, self.alert_folder)
        if "activations" in wanted:
            with self.stage("ChemNet"):
                canonical = table.strings("canonical")
                table.columns["activations"] = chemnet.activations(canonical, f"ChemNet of {label}", self.device)
        return table

    def part_of(self, molecules: ReferenceSet, n: int, kind: Kind, wanted: Iterable[str]) -> MoleculeTable:
        """The first `n` of a random part of a set (all of a smaller set), or of its molecules with a carbon more."""
        size = next((s for s in _SIZES if s >= n), n)
        parts = self.parts(part for part in wanted if part != "activations")
        table = self._profile(molecules, size, kind, [*parts, *(["activations"] if "activations" in wanted else [])])
        return table.take(np.arange(min(n, len(table))))

    def with_nearest(
        self,
        molecules: ReferenceSet,
        n: int,
        kind: Kind,
        wanted: Sequence[str],
        references: dict[str, moses.Statistics],
    ) -> MoleculeTable:
        """As `part_of`, with the columns that `moses_figures` needs besides: similarity to each reference."""
        size = next((s for s in _SIZES if s >= n), n)
        table = self._profile(molecules, size, kind, self.parts(wanted))
        for name, reference in references.items():
            key = [molecules.digest, str(size), kind, reference.digest, *self._versions]
            n_rows = len(table)

            def build(reference: moses.Statistics = reference, table: MoleculeTable = table) -> cache.Arrays:
                return {"nearest": nearest(table.numbers("fingerprint"), reference.fingerprints, "neighbours")}

            def read(arrays: cache.Arrays, n_rows: int = n_rows) -> npt.NDArray[np.float32]:
                cache.expect(arrays["nearest"], np.float32, (n_rows,))
                return arrays["nearest"]

            table.columns[f"nearest/{name}"] = self._cached("nearest", key, build, read)
        return table.take(np.arange(min(n, len(table))))

    def statistics(self, molecules: ReferenceSet) -> moses.Statistics:
        """A reference set as MOSES' figures need it, computed here of its molecules that parse.

        Raises MolgenError where none does.
        """

        def build() -> cache.Arrays:
            table = self.describe(molecules.smiles, [*moses.PARTS, "activations"], molecules.name)
            _check_parsed(molecules, len(table))
            return moses_statistics.to_arrays(moses.statistics(table, ""))

        def read(arrays: cache.Arrays) -> moses.Statistics:
            return moses_statistics.from_arrays(arrays, molecules.digest)

        return self._cached("statistics", [molecules.digest, *self._versions], build, read)

    def moses_test_sets(self) -> dict[str, moses.Statistics]:
        """MOSES' own statistics of its test sets, as they are shipped: what every published figure is against."""
        fetch("moses")
        sets = {}
        for name, file in (("Test", "test_stats.npz"), ("TestSF", "test_scaffolds_stats.npz")):
            digest = MOSES_FILES[file]

            path = moses_file(file)

            def build(path: Path = path) -> cache.Arrays:
                return moses_statistics.to_arrays(moses_statistics.shipped_statistics(path, ""))

            def read(arrays: cache.Arrays, digest: str = digest) -> moses.Statistics:
                return moses_statistics.from_arrays(arrays, digest)

            sets[name] = self._cached("shipped", [_VERSION, digest], build, read)
        return sets

    def known(self, molecules: ReferenceSet, strings: Sequence[str], with_fingerprints: bool) -> TrainingIndex:
        """A set as novelty needs it, of its molecules that parse. Raises MolgenError where none does."""
        key = [molecules.digest, *strings, str(with_fingerprints), "parsed", *self._versions]

        def build() -> cache.Arrays:
            label = f"{molecules.name} (once)"
            found = known(list(molecules.smiles), strings, with_fingerprints, self.pool, label)
            _check_parsed(molecules, found.parsed)
            return found.to_arrays()

        def read(arrays: cache.Arrays) -> TrainingIndex:
            found = TrainingIndex.from_arrays(arrays)
            if found.keys.keys() != {*strings, "shipped"}:
                raise ValueError("other columns")
            return found

        return self._cached("known", key, build, read)

    def guacamol_baseline(self, training: ReferenceSet) -> guacamol.Baseline:
        """10,000 random training molecules as GuacaMol's KL and FCD need them."""
        return guacamol.baseline(self.part_of(training, guacamol.SIZE, "baseline", [*guacamol.PARTS, "activations"]))

    @property
    def _versions(self) -> tuple[str, ...]:
        return _VERSION, RDKIT_VERSION, descriptors.VERSION, MOLECULES_VERSION, chemnet.versions()

    def _profile(self, molecules: ReferenceSet, size: int, kind: Kind, parts: Sequence[str]) -> MoleculeTable:
        """`size` molecules of a set that parse, in a random order, or all that do."""

        def build() -> cache.Arrays:
            smiles, label = molecules.smiles, f"{kind} {molecules.name} (once)"
            order = np.random.default_rng(_SEED[kind]).permutation(len(smiles)).tolist()
            drawn = min(size, len(order))
            table = self.describe(self._written([smiles[i] for i in order[:drawn]], molecules, kind), parts, label)
            while len(table) < size and drawn < len(order):  # others in place of those that do not parse
                more = order[drawn : drawn + size - len(table)]
                drawn += len(more)
                others = self._written([smiles[i] for i in more], molecules, kind)
                table = table.joined(self.describe(others, parts, label))
            return table.to_arrays()

        def read(arrays: cache.Arrays) -> MoleculeTable:
            found = MoleculeTable.from_arrays(arrays)
            if found.columns.keys() != {*parts, *(["scaffold_rings"] if "scaffold" in parts else [])}:
                raise ValueError("other columns")
            return found

        key = [molecules.digest, str(size), kind, "parsed", *parts, *self._versions]
        return self._cached("profile", key, build, read)

    def _written(self, chosen: list[str], molecules: ReferenceSet, kind: Kind) -> list[str]:
        """Molecules of a set as a baseline has them."""
        if kind != "add-carbon":
            return chosen
        training = self.known(molecules, ("canonical",), False)
        candidates = self.pool.map("add_carbon", [[s, i] for i, s in enumerate(chosen)], "adding carbons")
        every = {s for group in candidates for s in group or []}
        novel = training.missing("canonical", every)
        return [
            next((s for s in group or [] if s in novel), original)
            for original, group in zip(chosen, candidates, strict=True)
        ]

    def _cached(
        self,
        name: str,
        key: Iterable[str],
        build: Callable[[], cache.Arrays],
        read: Callable[[cache.Arrays], Result],
    ) -> Result:
        """What lacks molecules on which RDKit hung or crashed is not kept for the next time."""
        lost = len(self.pool.lost)
        return cache.cached(self.folder, name, key, build, read, lambda: len(self.pool.lost) == lost)


def named_set(source: str, split: str, pool: Workers) -> ReferenceSet:
    """A split of a named dataset, or all of a file."""
    if source == "moses":
        return ReferenceSet.moses(split)
    if source not in NAMED or source == "moses-mini":
        return ReferenceSet.of(source if source not in NAMED else f"{source} {split}", reference_smiles(source, split))
    config = load_config(source if source in recipes() else None, options={"data.source": source})
    dataset = build_dataset(read_source(config.data), config.data, config.model.context, deepchem_pattern(), pool)
    return ReferenceSet.of(f"{source} {split}", dataset.split(split))


def _check_parsed(molecules: ReferenceSet, parsed: int) -> None:
    if not parsed:
        raise MolgenError(
            f"{molecules.name}: RDKit parses none of its {len(molecules.smiles):,} molecules",
            "is it the right file, and the right column of it?",
        )


def resampled(table: MoleculeTable, whole: int, n: int) -> MoleculeTable:
    """`n` draws with replacement from a set of `whole` molecules that parse; `table` is at least n of them, or all.

    Which molecules are drawn does not matter, only how often one is drawn again: the distinct ones are the first rows.
    """
    drawn = np.random.default_rng(2).integers(whole, size=n)
    return table.take(np.unique(drawn, return_inverse=True)[1])


def similarity_to(table: MoleculeTable, references: dict[str, moses.Statistics]) -> None:
    """Adds the columns `nearest/…` that `moses_figures` reads."""
    for name, reference in references.items():
        table.columns[f"nearest/{name}"] = nearest_of(table, reference.fingerprints, f"neighbours in {name}")


def nearest_of(table: MoleculeTable, fingerprints: npt.NDArray[np.uint8], label: str) -> npt.NDArray[np.float32]:
    """Tanimoto similarity of each molecule to its nearest in a set."""
    return nearest(table.numbers("fingerprint"), fingerprints, label)
