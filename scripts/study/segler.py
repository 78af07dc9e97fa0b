"""Segler's question on five targets: which share of the samples of each kind does a judge call active?

    python scripts/study/segler.py PRIOR --out runs/segler [--target CHEMBL204_Ki]… [-n 1000]

Segler et al. 2018 fine-tune on actives and count held-out actives. Here, for each target of MoleculeACE, the molecules
are halved by scaffold: the models get one half, the judge the other. Compared: random training molecules of the prior,
samples of the plain prior, of the prior fine-tuned on the actives of its half, of a conditional model asked for active
values, and of a search that maximises that model's own prediction. The judge is a forest on other fingerprints (atom
pairs and topological torsions, counted) and other molecules than any model has seen values of. A sample counts only in
its domain: its nearest neighbour among the judge's molecules is at least as near as that of 95 % of them to each other.
Hits are clustered (#Circles at a distance of 0.6), because a thousand analogs are one idea. A part that is there
already is not made again. A value is p = 9 − log10(nM); active is p ≥ 8.
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
from rdkit import Chem
from rdkit.Chem import rdFingerprintGenerator
from rdkit.Chem.Scaffolds import MurckoScaffold
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import roc_auc_score

from measuring import molgen
from molgen.data.download import fetch
from molgen.data.sources import reference_smiles
from molgen.generation.generator import MoleculeGenerator
from molgen.metrics.similarity import circles
from molgen.runs import REPORT, STATE

TARGETS = ("CHEMBL204_Ki", "CHEMBL244_Ki", "CHEMBL214_Ki", "CHEMBL264_Ki", "CHEMBL239_EC50")
ACTIVE = 8.0
KINDS = ("random", "plain", "finetuned", "conditional", "optimised")
_scaffolds: Any = MurckoScaffold  # has no type hints
_BITS = 2048
_DOMAIN = 5  # percent of the judge's molecules that are farther from each other than what is in its domain
_OBJECTIVE = "components:\n  - {{model: {run}, target: p, transform: {{rising: [5, 9]}}}}\n"


def main() -> None:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prior")
    parser.add_argument("--out", type=Path, required=True, help="the folder of runs and figures")
    parser.add_argument("--target", action="append", help="some targets only")
    parser.add_argument("-n", type=int, default=1000, help="distinct valid samples of each kind")
    parser.add_argument("--calls", type=int, default=5000, help="of the search")
    parser.add_argument("--set", action="append", default=[], dest="settings", metavar="SECTION.KEY=VALUE")
    options = parser.parse_args()
    with gzip.open(fetch("moleculeace")[0], "rt") as file:
        rows = list(csv.DictReader(file))
    for target in options.target or TARGETS:
        values = {canonical(row["smiles"]): 9 + float(row["y"]) for row in rows if row["target"] == target}
        study(target, values, options)
    show(options.out)


def canonical(smiles: str) -> str:
    """RDKit's canonical SMILES of a molecule of the table, without stereo."""
    return str(Chem.MolToSmiles(Chem.MolFromSmiles(smiles), isomericSmiles=False))


def halves(smiles: Sequence[str], seed: int = 0) -> tuple[list[str], list[str]]:
    """Two halves that share no scaffold: for the models, for the judge."""
    groups: dict[str, list[str]] = {}
    for one in smiles:
        groups.setdefault(_scaffolds.MurckoScaffoldSmiles(one), []).append(one)
    order = sorted(groups)
    np.random.default_rng(seed).shuffle(order)
    first: list[str] = []
    second: list[str] = []
    for scaffold in order:
        (first if len(first) <= len(second) else second).extend(groups[scaffold])
    return first, second


class Judge:
    """A forest on counted atom pairs and torsions, which has an opinion in its domain only."""

    def __init__(self, smiles: Sequence[str], actives: npt.NDArray[np.bool_]) -> None:
        self._known = counts(smiles)
        self._forest = RandomForestClassifier(500, oob_score=True, random_state=0, n_jobs=2)
        self._forest.fit(self._known, actives)
        self.auc = float(roc_auc_score(actives, self._forest.oob_decision_function_[:, 1]))
        similarity = tanimoto(self._known, self._known)
        np.fill_diagonal(similarity, 0)
        self.threshold = float(np.percentile(similarity.max(axis=1), _DOMAIN))

    def __call__(self, smiles: Sequence[str]) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """(whether a molecule is in the domain, whether it is in it and called active), (N,) each."""
        described = counts(smiles)
        inside = tanimoto(described, self._known).max(axis=1) >= self.threshold
        return inside, inside & (self._forest.predict_proba(described)[:, 1] >= 0.5)


def counts(smiles: Sequence[str]) -> npt.NDArray[np.float32]:
    """(N, 2 x bits) counted atom pairs and topological torsions."""
    makers = (
        rdFingerprintGenerator.GetAtomPairGenerator(fpSize=_BITS, countSimulation=False),
        rdFingerprintGenerator.GetTopologicalTorsionGenerator(fpSize=_BITS, countSimulation=False),
    )
    molecules = [Chem.MolFromSmiles(one) for one in smiles]
    parts = [[maker.GetCountFingerprintAsNumPy(molecule) for molecule in molecules] for maker in makers]
    return np.concatenate([np.array(part, np.float32).reshape(-1, _BITS) for part in parts], axis=1)


def tanimoto(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """(N, M) similarities of counted fingerprints by their product: a·b / (a² + b² − a·b)."""
    shared = a @ b.T
    found: npt.NDArray[np.float32] = shared / np.maximum(
        (a * a).sum(axis=1)[:, None] + (b * b).sum(axis=1)[None] - shared, 1e-6
    )
    return found


def study(target: str, values: dict[str, float], options: argparse.Namespace) -> None:
    """All kinds of samples of one target; what is there already is not made again."""
    folder, result = options.out / target, options.out / f"{target}.json"
    figures: dict[str, Any] = json.loads(result.read_text()) if result.exists() else {}
    if all(kind in figures for kind in KINDS):
        return
    folder.mkdir(parents=True, exist_ok=True)
    own, others = halves(list(values))
    judge = Judge(others, np.array([values[one] >= ACTIVE for one in others]))
    actives = [one for one in own if values[one] >= ACTIVE]
    figures["judge"] = {"n": len(others), "auc": judge.auc, "threshold": judge.threshold}
    figures["models"] = {"n": len(own), "actives": len(actives)}
    (folder / "own.csv").write_text("SMILES,p\n" + "".join(f"{one},{values[one]:.3f}\n" for one in own))
    (folder / "actives.smi").write_text("\n".join(actives) + "\n")
    asked = f"p = {np.median([values[one] for one in actives]):.2f}"
    figures["asked"] = asked
    seen = set(own)
    for kind in KINDS:
        if kind not in figures:
            smiles = samples(kind, folder, asked, options)
            figures[kind] = measured(smiles, judge, seen)
            result.write_text(json.dumps(figures, indent=1))
            print(target, kind, figures[kind], flush=True)


def samples(kind: str, folder: Path, asked: str, options: argparse.Namespace) -> list[str]:
    """Distinct valid molecules of one kind."""
    n, prior, settings = options.n, options.prior, [part for one in options.settings for part in ("--set", one)]
    match kind:
        case "random":
            known = reference_smiles("moses-mini", "train")
            return [known[i] for i in np.random.default_rng(0).choice(len(known), n, replace=False)]
        case "plain":
            return drawn(prior, n)
        case "finetuned":
            made(folder / kind, ["train", str(folder / "actives.smi"), "--init", prior, *settings])
            return drawn(folder / kind, n)
        case "conditional":
            made(folder / kind, ["train", str(folder / "own.csv"), "--init", prior, "--condition", "p", *settings])
            return drawn(folder / kind, n, asked)
    (folder / "objective.yaml").write_text(_OBJECTIVE.format(run=folder / "conditional"))
    search = ["optimize", prior, "--objective", str(folder / "objective.yaml"), "-n", str(options.calls)]
    made(folder / kind, search)
    return drawn(folder / kind, n)


def made(run: Path, command: Sequence[str]) -> None:
    """A training or a search, finished: nothing to do, or resumed, or from the start."""
    if (run / REPORT).exists():
        return
    if (run / STATE).exists():
        molgen(command[0], "--resume", "--out", str(run))
    else:
        molgen(*command, "--out", str(run), "--force")


def drawn(run: str | Path, n: int, condition: str = "") -> list[str]:
    """Distinct valid samples of a run."""
    frame = MoleculeGenerator.load(run, "cpu").sample(n, valid=True, unique=True, condition=condition, seed=1)
    return [str(one) for one in frame.canonical]


def measured(smiles: Sequence[str], judge: Judge, seen: set[str]) -> dict[str, Any]:
    """What the judge says: shares of all samples and of those in its domain, and the clusters of the hits."""
    inside, active = judge(smiles)
    hits = [one for one, is_hit in zip(smiles, active.tolist(), strict=True) if is_hit]
    known = [one for one in hits if canonical(one) in seen]
    new = [one for one in hits if canonical(one) not in seen]
    maker = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=1024)
    packed = np.array([np.packbits(maker.GetFingerprintAsNumPy(Chem.MolFromSmiles(one))) for one in new], np.uint8)
    n, n_inside = len(smiles), int(inside.sum())
    return {
        "n": n,
        "in_domain": n_inside / max(1, n),
        "active": len(hits) / max(1, n),
        "active_of_domain": len(hits) / max(1, n_inside),
        "known_hits": len(known),
        "clusters": circles(packed.reshape(-1, 128), 0.6) if new else 0,
    }


def show(folder: Path) -> None:
    """The table, a line a target and kind."""
    print("| target | samples | in domain | active, of all | active, of the domain | clusters of new hits |")
    print("|---|---|---|---|---|---|")
    for path in sorted(folder.glob("*.json")):
        figures = json.loads(path.read_text())
        for kind in KINDS:
            if kind in figures:
                one = figures[kind]
                shares = " | ".join(f"{one[name]:.1%}" for name in ("in_domain", "active", "active_of_domain"))
                print(f"| {path.stem} (AUC {figures['judge']['auc']:.2f}) | {kind} | {shares} | {one['clusters']} |")


if __name__ == "__main__":
    main()
