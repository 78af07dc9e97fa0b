"""Focused libraries (Segler et al. 2018): actives of other clusters, found after fine-tuning on some clusters.

    python scripts/study/focused.py moses-small --out runs/focused --set data.max_tokens=120 --write docs/focused.png

For each target of MoleculeACE the actives (p >= 7) are clustered by similarity (Butina, ECFP4, 0.5). The prior is
fine-tuned on whole clusters, half of the actives, and the actives of the other clusters count as held out. They are
found if a sample has the same neutral, stereo-free parent. Compared, at equal numbers of samples: the fine-tuned run,
the prior, and a recombination: the fine-tuning molecules cut at single bonds outside of rings, and a core of one joined
with an R group of another. The prior must know no molecule of the target; what it knows is counted. Samples are raw, at
temperature 1. A run or a figure that is there already is not made again.
"""

import argparse
import csv
import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rdkit import Chem, DataStructs
from rdkit.Chem import rdFingerprintGenerator
from rdkit.ML.Cluster import Butina

from figures import panels
from measuring import molgen, settings
from molgen.chem.pool import Workers, workers
from molgen.chem.smiles import quiet
from molgen.data.download import fetch
from molgen.data.parents import parent_smiles
from molgen.generation.generator import MoleculeGenerator
from molgen.optimize.benchmarks import knowledge
from molgen.runs import REPORT, STATE, Run, find_run
from recovery import CUT, LEAST_CORE, MOST, pieces

TARGETS = {
    "CHEMBL204_Ki": "thrombin",
    "CHEMBL237_Ki": "opioid κ",
    "CHEMBL244_Ki": "factor Xa",
    "CHEMBL4005_Ki": "PI3K α",
    "CHEMBL4792_Ki": "orexin 2",
}
ACTIVE, CLOSEST = 7.0, 0.5
WAYS = {"tuned": "fine-tuned", "prior": "prior", "recombined": "R groups recombined"}
BINS = (0.0, 0.3, 0.4, 0.5, 0.6, 1.01)
BIN_NAMES = ("< 0.3", "0.3 to 0.4", "0.4 to 0.5", "0.5 to 0.6", "≥ 0.6")
_maker = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=2048)
_chem: Any = Chem  # its type hints lack molzip
_butina: Any = Butina  # has no type hints


def main() -> None:
    """Runs what is missing, prints a table, draws the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prior", help="a run that knows no molecule of the targets")
    parser.add_argument("--out", type=Path, required=True, help="the folder of runs and figures")
    parser.add_argument("--target", action="append", choices=TARGETS, help="may be repeated (all)")
    parser.add_argument("-n", type=int, default=20_000, help="samples of each way (20,000)")
    parser.add_argument("--seed", type=int, default=0, help="of clusters, training and samples (0)")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="of the fine-tuning")
    parser.add_argument("--write", type=Path, help="draw the figure into this file")
    options = parser.parse_args()
    with gzip.open(fetch("moleculeace")[0], "rt", newline="") as file:
        rows = list(csv.DictReader(file))
    found = {}
    of_prior: list[str] = []  # parents, drawn once for all targets
    with workers() as pool:
        for target in options.target or TARGETS:
            result = options.out / f"{target}-{options.n}-{options.seed}.json"
            if not result.exists():
                own = [row for row in rows if row["target"] == target]
                of_prior = of_prior or drawn(options.prior, options, pool)
                figures = study(target, own, of_prior, options, pool)
                result.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
            found[target] = json.loads(result.read_text(encoding="utf-8"))
    print(table(found))
    if options.write:
        draw(found, options.write)


def study(
    target: str, rows: Sequence[dict[str, str]], of_prior: list[str], options: argparse.Namespace, pool: Workers
) -> dict[str, Any]:
    """The figures of one target; `of_prior` are the parents of the prior's samples."""
    parents = parent_smiles([row["smiles"] for row in rows], pool)
    written = dict(zip(parents, (row["smiles"] for row in rows), strict=True))
    if (is_known := knowledge(find_run(options.prior), pool)) is None:
        raise SystemExit(f"{options.prior}: what it was trained on is not here")
    known = sum(is_known([parent for parent in written if parent]))
    actives = sorted({p for p, row in zip(parents, rows, strict=True) if p and 9 + float(row["y"]) >= ACTIVE})
    tuning, held_out = halves(actives, options.seed)
    folder = options.out / f"{target}-{options.seed}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "actives.smi").write_text("".join(f"{written[one]}\n" for one in tuning), encoding="utf-8")
    run = folder / "run"
    if not (run / REPORT).exists():
        if (run / STATE).exists():
            molgen("train", "--resume", "--out", str(run))
        else:
            given = ["--seed", str(options.seed), *settings(dict(one.split("=", 1) for one in options.set))]
            molgen("train", str(folder / "actives.smi"), "--init", options.prior, "--out", str(run), "--force", *given)
    found = {
        "tuned": drawn(run, options, pool),
        "prior": of_prior,
        "recombined": parent_smiles([one or "" for one in recombined(tuning, options.n, options.seed)], pool),
    }
    nearest = similarity(held_out, tuning)
    figures: dict[str, Any] = {
        "known": known,
        "molecules": len(written),
        "tuning": len(tuning),
        "held_out": len(held_out),
        "n": options.n,
        "seconds": Run(run).report["seconds"],
        "bins": np.histogram(nearest, BINS)[0].tolist(),
    }
    for way, of_samples in found.items():
        firsts = first_draws(of_samples)
        hits = [one for one in held_out if one in firsts]
        at = np.isin(held_out, hits)
        figures[way] = {
            "valid": sum(map(bool, of_samples)) / options.n,
            "distinct": len(firsts),
            "of_tuning": len(firsts.keys() & set(tuning)),
            "hits": sorted(firsts[one] for one in hits),  # the draw that found each, counted from 1
            "bins": np.histogram(nearest[at], BINS)[0].tolist(),
        }
    return figures


def halves(actives: Sequence[str], seed: int) -> tuple[list[str], list[str]]:
    """(fine-tuning, held-out) actives: whole clusters in random order, as long as they fit into a half."""
    bits = fingerprints(actives)
    distances = [1 - s for i in range(1, len(bits)) for s in DataStructs.BulkTanimotoSimilarity(bits[i], bits[:i])]
    clusters = _butina.ClusterData(distances, len(bits), 1 - CLOSEST, isDistData=True, reordering=True)
    order = np.random.default_rng(seed).permutation(len(clusters)).tolist()
    tuning: list[str] = []
    held_out: list[str] = []
    for i in order:
        side = tuning if len(tuning) + len(clusters[i]) <= len(actives) / 2 else held_out
        side += [actives[j] for j in clusters[i]]
    return tuning, held_out


def fingerprints(smiles: Sequence[str]) -> list[Any]:
    """ECFP4 of each molecule."""
    return [_maker.GetFingerprint(Chem.MolFromSmiles(one)) for one in smiles]


def similarity(smiles: Sequence[str], references: Sequence[str]) -> npt.NDArray[np.float64]:
    """(n,) each molecule's similarity to the nearest reference."""
    known = fingerprints(references)
    return np.array([max(DataStructs.BulkTanimotoSimilarity(bits, known)) for bits in fingerprints(smiles)])


def drawn(run: str | Path, options: argparse.Namespace, pool: Workers) -> list[str]:
    """The parents of raw samples at temperature 1; empty for an invalid one."""
    frame = MoleculeGenerator.load(run).sample(options.n, seed=options.seed)
    return parent_smiles([one or "" for one in frame.smiles], pool)


def recombined(smiles: Sequence[str], n: int, seed: int) -> list[str | None]:
    """`n` molecules: a core of one of these with an R group of one of these; a bond is as likely as any other."""
    cores: list[str] = []
    groups: list[str] = []
    for molecule in map(Chem.MolFromSmiles, smiles):
        with quiet():
            for pair in molecule.GetSubstructMatches(CUT):
                parts = pieces(molecule, [molecule.GetBondBetweenAtoms(*pair).GetIdx()])
                for (core, size, _), (group, small, _) in (parts, parts[::-1]):
                    if size >= LEAST_CORE and small <= MOST:
                        cores.append(core)
                        groups.append(group)
    rng = np.random.default_rng(seed)
    return [joined(cores[i], groups[j]) for i, j in rng.integers(len(cores), size=(n, 2)).tolist()]


def joined(core: str, group: str) -> str | None:
    """The molecule of two pieces, each with one `*`."""
    with quiet():
        both = Chem.MolFromSmiles(f"{core}.{group}".replace("*", "[*:1]"))
        return str(_chem.MolToSmiles(_chem.molzip(both))) if both is not None else None


def first_draws(parents: Sequence[str]) -> dict[str, int]:
    """Parent → the number of the draw, from 1, that gave it first."""
    firsts: dict[str, int] = {}
    for i, parent in enumerate(parents, 1):
        if parent:
            firsts.setdefault(parent, i)
    return firsts


def table(found: dict[str, dict[str, Any]]) -> str:
    """A row per target, then a row per way and degree of similarity."""
    lines = [
        "| target | known to the prior | fine-tuned on | held out | found: fine-tuned | prior | recombined "
        "| valid, fine-tuned | seconds of training |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for target, figures in found.items():
        hits = " | ".join(f"{len(figures[way]['hits'])}" for way in WAYS)
        lines.append(
            f"| {TARGETS[target]} ({target}) | {figures['known']} of {figures['molecules']:,} | {figures['tuning']} "
            f"| {figures['held_out']} | {hits} | {figures['tuned']['valid']:.3f} | {figures['seconds']:.0f} |"
        )
    there = " | ".join(f"{name}, of {n}" for name, n in zip(BIN_NAMES, by_similarity(found), strict=True))
    lines += ["", f"| found by similarity to the fine-tuning set | {there} |", "|---" * (1 + len(BIN_NAMES)) + "|"]
    for way, name in WAYS.items():
        lines.append(f"| {name} | {' | '.join(map(str, by_similarity(found, way)))} |")
    return "\n".join(lines)


def by_similarity(found: dict[str, dict[str, Any]], way: str | None = None) -> list[int]:
    """Held-out actives of all targets per bin of similarity, or those that one way found."""
    return [sum(column) for column in zip(*((f[way] if way else f)["bins"] for f in found.values()), strict=True)]


def draw(found: dict[str, dict[str, Any]], path: Path) -> None:
    """Left: held-out actives found against samples, one colour per target. Right: by similarity, all targets."""
    styles = {"tuned": "-", "prior": ":", "recombined": "--"}
    colors = ("#2a6fbb", "#c2571a", "#3f8f5f", "#8a5fb5", "#9aa5b8")
    with panels(path, 2, 12) as (left, right):
        for (target, figures), color in zip(found.items(), colors, strict=False):
            for way, style in styles.items():
                hits = figures[way]["hits"]
                steps = [1, *hits, figures["n"]]  # one more is found at each hit
                share = np.array([*range(len(hits) + 1), len(hits)]) / figures["held_out"]
                name = TARGETS[target] if way == "tuned" else None
                left.step(steps, 100 * share, style, where="post", color=color, label=name)
        left.set(xscale="log", xlim=(10, None), xlabel="samples", ylabel="held-out actives found, %")
        left.legend(frameon=False, title="fine-tuned —   recombined - -   prior ···")
        total, width = by_similarity(found), 0.28
        for i, (way, color) in enumerate(zip(WAYS, ("#2a6fbb", "#9aa5b8", "#c2571a"), strict=True)):
            shares = [100 * hit / max(n, 1) for hit, n in zip(by_similarity(found, way), total, strict=True)]
            right.bar(np.arange(len(total)) + (i - 1) * width, shares, width, color=color)
        right.set_xticks(range(len(total)), BIN_NAMES)
        right.set(xlabel="similarity to the fine-tuning set (ECFP4)", ylabel="held-out actives found, %")
        right.legend(WAYS.values(), frameon=False)


if __name__ == "__main__":
    main()
