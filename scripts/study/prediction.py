"""Predictions beside their neighbours: the 30 targets of MoleculeACE, and Tox21's 12 tasks on a scaffold split.

A run and a figure that are there already are not made again, so the study goes on where it was stopped.

    python scripts/study/prediction.py moleculeace PRIOR --out runs/prediction [--target CHEMBL204_Ki]… [--plain]
    python scripts/study/prediction.py tox21 PRIOR --out runs/prediction
    python scripts/study/prediction.py table --out runs/prediction
"""

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from measuring import molgen
from moleculeace import Target, targets
from molgen.machine import Runtime
from molgen.prediction.figures import figures, rmse, spearman
from molgen.prediction.predictor import RunPredictor
from molgen.runs import REPORT

TASKS = (
    *("NR-AR", "NR-AR-LBD", "NR-AhR", "NR-Aromatase", "NR-ER", "NR-ER-LBD", "NR-PPAR-gamma"),
    *("SR-ARE", "SR-ATAD5", "SR-HSE", "SR-MMP", "SR-p53"),
)
SEEDS = (0, 1, 2)
EDGES = (0.0, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0)


def main() -> None:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("moleculeace", "tox21", "table"))
    parser.add_argument("prior", nargs="?", help="a run that has not seen the test molecules")
    parser.add_argument("--out", type=Path, default=Path("runs/prediction"))
    parser.add_argument("--target", action="append", help="some targets only")
    parser.add_argument("--plain", action="store_true", help="also the same training without predictions: its NLL")
    parser.add_argument("--set", action="append", default=[], dest="settings", metavar="SECTION.KEY=VALUE")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.what == "table":
        show(arguments.out)
        return
    if arguments.prior is None:
        parser.error("name the run to start from")
    if arguments.what == "tox21":
        for seed in SEEDS:
            tox21(arguments.prior, arguments.out, seed, arguments.settings)
        return
    for target in targets(arguments.target):
        moleculeace(target, arguments.prior, arguments.out, arguments.settings, arguments.plain)


def moleculeace(target: Target, prior: str, out: Path, settings: Sequence[str], plain: bool) -> None:
    """One target: a training, then RMSE and cliff RMSE of every predictor on the published test molecules."""
    result, run = out / f"{target.name}.json", out / target.name
    if result.exists():
        return
    where = ["moleculeace", "--where", f'target == "{target.name}"', "--init", prior]
    began = time.monotonic()
    _train(run, [*where, "--target", "y"], settings)
    seconds = time.monotonic() - began
    predictor = RunPredictor.load(run, runtime=Runtime("cpu"))
    smiles = predictor.runtime.workers.map("canonical", target.test.smiles)
    smiles = [one or "" for one in smiles]
    truth, cliff = target.test.values, target.test.cliff
    about = predictor.targets[0]
    values = dict(predictor.members(smiles)[0])
    values["mean"] = predictor.combined(about, values)
    found = predictor.predict(smiles)["y"]
    values["auto"] = found.values
    low, high, nearest = found.low, found.high, predictor.nearest(smiles).similarity
    errors, half = np.abs(truth - found.values), (high - low) / 2
    constant = about.calibrations[about.chosen].constant
    report: dict[str, Any] = {
        **{"target": target.name, "n_train": len(target.train.smiles), "n_test": len(truth)},
        **{"chosen": about.chosen, "weights": about.weights, "validation": about.errors, "seconds": round(seconds, 1)},
        "rmse": {kind: _rmse(truth, found_) for kind, found_ in values.items()},
        "rmse_cliff": {kind: _rmse(truth[cliff], found_[cliff]) for kind, found_ in values.items()},
        "rmse_stderr": figures(truth, found.values, False).get("rmse_stderr"),
        "interval": {
            **{"coverage": float((errors <= half).mean()), "width": float(2 * half.mean())},
            **{"constant_coverage": float((errors <= constant).mean()), "constant_width": 2 * constant},
            "cliff_coverage": float((errors <= half)[cliff].mean()),
            "spearman": spearman(half, errors),
        },
        "bins": list(_bins(nearest, errors, half)),
        "too_far": about.too_far,
        "nll": min(row["val_nll"] for row in predictor.run.log()),
    }
    if plain:
        other = out / f"{target.name}-plain"
        _train(other, where, settings)
        report["nll_plain"] = json.loads((other / REPORT).read_text())["validation"]["nll"]
    result.write_text(json.dumps(report, indent=1))
    print(f"{target.name}: auto ({about.chosen}) {report['rmse']['auto']:.3f}, {seconds:.0f} s", flush=True)


def tox21(prior: str, out: Path, seed: int, settings: Sequence[str]) -> None:
    """All tasks on one scaffold split: ROC-AUC of every predictor on the held-out scaffolds."""
    result, run = out / f"tox21-{seed}.json", out / f"tox21-{seed}"
    if result.exists():
        return
    targets = [part for task in TASKS for part in ("--target", task)]
    split = ["data.split=scaffold", f"data.split_seed={seed}", "data.train_size=6200", "data.validation_size=800"]
    began = time.monotonic()
    _train(run, ["tox21", "--init", prior, "--seed", str(seed), *targets], [*split, *settings])
    figures_file = out / f"tox21-{seed}-eval.json"
    molgen("eval", str(run), "-n", "200", "--json", str(figures_file), "--force")
    predictions = json.loads(figures_file.read_text())["predictions"]
    kinds = sorted({kind for one in predictions.values() for kind in one["predictors"]})
    report = {
        "seed": seed,
        "seconds": round(time.monotonic() - began, 1),
        "tasks": {
            name: {"n": one["n"], "chosen": one["chosen"]}
            | {kind: one["predictors"].get(kind, {}).get("roc_auc") for kind in kinds}
            for name, one in predictions.items()
        },
    }
    result.write_text(json.dumps(report, indent=1))
    print(f"tox21, seed {seed}: {report['seconds']:.0f} s", flush=True)


def show(out: Path) -> None:
    """Means over what is there."""
    found = [json.loads(path.read_text()) for path in sorted(out.glob("CHEMBL*.json"))]
    if found:
        kinds = list(found[0]["rmse"])
        print(f"MoleculeACE, {len(found)} targets: mean RMSE, mean RMSE of cliffs")
        for kind in kinds:
            both = [np.nanmean([one[name][kind] for one in found]) for name in ("rmse", "rmse_cliff")]
            print(f"  {kind:<10}{both[0]:.4f}  {both[1]:.4f}")
        total = sum(one["n_test"] for one in found)
        for name in ("coverage", "constant_coverage", "width", "constant_width"):
            pooled = sum(one["interval"][name] * one["n_test"] for one in found) / total
            print(f"  {name}: {pooled:.3f} (pooled over {total:,} molecules)")
        for place, low in enumerate(EDGES[:-1]):
            own = [one["bins"][place] for one in found]
            n = sum(b["n"] for b in own)
            if n:
                inside = sum(b["inside"] for b in own)
                squares = sum(b["squares"] for b in own)
                print(
                    f"  similarity {low:.1f} to {EDGES[place + 1]:.1f}: n = {n:,}, coverage {inside / n:.3f}, "
                    f"RMSE {(squares / n) ** 0.5:.3f}"
                )
        plain = [one["nll"] - one["nll_plain"] for one in found if "nll_plain" in one]
        if plain:
            print(f"  NLL minus that of the plain run: {np.mean(plain):+.3f} nats (n = {len(plain)})")
    for kind in ("chemprop", "graphormer"):
        other = [json.loads(path.read_text()) for path in sorted(out.glob(f"{kind}-*.json"))]
        if other:
            both = [np.mean([one[name] for one in other]) for name in ("rmse", "rmse_cliff")]
            print(f"{kind}, {', '.join(one['target'] for one in other)}: {both[0]:.4f}, cliffs {both[1]:.4f}")
    for path in sorted(out.glob("tox21-?.json")):
        tasks = json.loads(path.read_text())["tasks"]
        kinds = [kind for kind in next(iter(tasks.values())) if kind not in ("n", "chosen")]
        means = {kind: np.mean([task[kind] for task in tasks.values() if task[kind] is not None]) for kind in kinds}
        print(f"{path.stem}: mean ROC-AUC " + ", ".join(f"{kind} {value:.4f}" for kind, value in means.items()))


def _train(run: Path, arguments: Sequence[str], settings: Sequence[str]) -> None:
    if (run / REPORT).exists():
        return
    given = [part for setting in settings for part in ("--set", setting)]
    molgen("train", *arguments, "--out", str(run), "--force", *given)


def _rmse(truth: np.ndarray[Any, Any], predicted: np.ndarray[Any, Any]) -> float | None:
    known = ~np.isnan(predicted)
    return rmse(truth[known], predicted[known]) if known.any() else None


def _bins(
    nearest: np.ndarray[Any, Any], errors: np.ndarray[Any, Any], half: np.ndarray[Any, Any]
) -> Iterator[dict[str, float]]:
    """Sums by similarity, so that targets can be pooled."""
    for low, high in pairwise(EDGES):
        own = (nearest >= low) & ((nearest < high) | (high == 1))
        inside = float((errors[own] <= half[own]).sum())
        yield {"n": int(own.sum()), "inside": inside, "squares": float((errors[own] ** 2).sum())}


if __name__ == "__main__":
    main()
