"""Real R groups and linkers of held-out series, found by --keep, beside the most frequent ones at equal draws.

    python scripts/study/recovery.py druglike --source moleculeace -n 200 --json runs/recovery.json

Molecules of the test split that the run's settings accept are cut at single bonds outside of rings: once into a
core and an R group of at most 10 heavy atoms, twice into two ends and a linker of at most 10. A series is a core, or a
pair of ends, with at least five different ones. Of each series, n strings are drawn. Two baselines know the R groups or
linkers of the source's training split: one names the n most frequent, which are n different ones; one draws n by their
frequency, with repeats as the run has them (the expected value). Recovery is the share of a series' real ones found.
"""

import argparse
import json
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from rdkit import Chem

from molgen.chem.fragments import numbered
from molgen.chem.pool import Workers, workers
from molgen.chem.smiles import canonical, parse, quiet
from molgen.data.dataset import clean_rows
from molgen.data.sources import read_source
from molgen.errors import MolgenError
from molgen.generation.decode import SamplingParams
from molgen.generation.generator import MoleculeGenerator

MOST, LEAST_CORE, LEAST_SERIES = 10, 10, 5
CUT = Chem.MolFromSmarts("[*;!$([#1])]-;!@[*;!$([#1])]")

Series = dict[str, set[str]]
"""What is kept → the real groups of the molecules that have it."""


def pieces(molecule: Any, bonds: Sequence[int]) -> list[tuple[str, int, int]]:
    """(SMILES with `*`, heavy atoms, points) of each piece after a cut."""
    cut = Chem.FragmentOnBonds(molecule, list(bonds), dummyLabels=[(0, 0)] * len(bonds))
    found = []
    for piece in Chem.GetMolFrags(cut):
        smiles = str(Chem.MolFragmentToSmiles(cut, piece))
        points = sum(cut.GetAtomWithIdx(i).GetAtomicNum() == 0 for i in piece)
        found.append((smiles, len(piece) - points, points))
    return found


def series_of(smiles: Iterable[str]) -> tuple[Series, Series]:
    """(cores with their R groups, pairs of ends with their linkers) of molecules."""
    groups: Series = defaultdict(set)
    linkers: Series = defaultdict(set)
    for one in smiles:
        molecule = parse(one)
        if molecule is None:
            continue
        with quiet():
            bonds = [molecule.GetBondBetweenAtoms(*pair).GetIdx() for pair in molecule.GetSubstructMatches(CUT)]
            for bond in bonds:
                for (core, size, _), (group, small, _) in (
                    (first, second) for parts in [pieces(molecule, [bond])] for first, second in (parts, parts[::-1])
                ):
                    if size >= LEAST_CORE and small <= MOST:
                        groups[core].add(group)
            for pair in combinations(bonds, 2):
                parts = pieces(molecule, pair)
                ends = sorted(text for text, size, points in parts if points == 1 and size >= LEAST_CORE // 2)
                middle = [text for text, size, points in parts if points == 2 and size <= MOST]
                if len(ends) == 2 and middle:
                    linkers[".".join(ends)].add(middle[0])
    return groups, linkers


def bare(text: str | None) -> str | None:
    """A group or linker in canonical form, its points without numbers."""
    return None if not text else canonical("".join(text.replace("[*:1]", "*").replace("[*:2]", "*")))


def drawn(generator: MoleculeGenerator, keep: str, column: str, n: int, seed: int) -> set[str] | None:
    """The groups among n draws; None for a fragment that the run cannot read."""
    try:
        growth = generator.growth(keep)
    except MolgenError:
        return None
    texts = next(iter(generator.grown(growth, [(0, n)], SamplingParams(), seed)))
    rows = generator.runtime.workers.map("tabulate", [text or "" for text in texts], columns=[], keep=keep)
    return {found for row in rows if row and (found := bare(row.get(column)))}


def study(
    generator: MoleculeGenerator, held_out: Series, training: Series, column: str, options: argparse.Namespace
) -> dict[str, Any]:
    """Recovery over the series, of the run, of the most frequent groups, and of groups drawn by their frequency."""
    counts = Counter(group for own in training.values() for one in own if (group := bare(one)))
    frequent, total = {group for group, _ in counts.most_common(options.n)}, max(1, counts.total())
    series = sorted((core, own) for core, own in held_out.items() if len(own) >= LEAST_SERIES)
    chosen = np.random.default_rng(0).permutation(len(series))[: options.most].tolist()
    shares: dict[str, list[float]] = {"run": [], "frequent": [], "by_frequency": []}
    for core, own in (series[i] for i in chosen):
        real = {group for one in own if (group := bare(one))}
        found = drawn(generator, numbered(core), column, options.n, options.seed)
        if found is not None and real:
            shares["run"].append(len(found & real) / len(real))
            shares["frequent"].append(len(frequent & real) / len(real))
            missed = (1 - counts[group] / total for group in real)
            shares["by_frequency"].append(statistics.mean(1 - share**options.n for share in missed))
    means = {name: statistics.mean(values) if values else None for name, values in shares.items()}
    errors = {}
    for name in ("frequent", "by_frequency"):
        difference = np.array(shares["run"]) - np.array(shares[name])
        error = float(difference.std(ddof=1) / len(difference) ** 0.5) if len(difference) > 1 else None
        errors[f"stderr_of_difference_to_{name}"] = error
    return {"series": len(shares["run"]), "of": len(series), "n": options.n, **means, **errors}


def main() -> None:
    """Prints a line for R groups and one for linkers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="a run that saw random SMILES")
    parser.add_argument("--source", default="moleculeace", help="a named dataset with a split column (moleculeace)")
    parser.add_argument("-n", type=int, default=200, help="draws per series (200)")
    parser.add_argument("--most", type=int, default=40, help="series at most (40)")
    parser.add_argument("--seed", type=int, default=0, help="(0)")
    parser.add_argument("--json", type=Path, help="also write the figures")
    options = parser.parse_args()
    generator = MoleculeGenerator.load(options.run)
    assert generator.run is not None
    data, context = generator.run.config.data.of_source(options.source), generator.run.config.model.context
    with workers() as pool:
        by_split = _molecules(data, context, generator, pool)
    held_out, training = series_of(by_split["test"]), series_of(by_split["train"])
    results = {}
    for i, (name, column) in enumerate((("R groups", "attachment_1"), ("linkers", "linker"))):
        results[name] = study(generator, held_out[i], training[i], column, options)
        print(name, results[name], flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def _molecules(data: Any, context: int, generator: MoleculeGenerator, pool: Workers) -> dict[str, list[str]]:
    """The cleaned molecules of each split."""
    kept, _ = clean_rows(read_source(data), data, context, generator.tokenizer.splitter.pattern, pool)
    found: dict[str, list[str]] = defaultdict(list)
    for row, _ in kept:
        found[row.split].append(row.smiles)
    return found


if __name__ == "__main__":
    main()
