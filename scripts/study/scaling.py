"""What more weights and more molecules bring on MOSES: NLL, validity and FCD, with a fitted law.

    python scripts/study/scaling.py --out runs/scaling --most 600000000000 --check shipped/moses-small \\
        --write docs/scaling.png

Every training is one pass over so many molecules of MOSES' training set, drawn once, a smaller set part of each larger
one; all share the 10,000 validation molecules that the recipe `moses` takes from the training set. FCD is that of raw
samples to those. MOSES' test sets are not read. A run that is there already is neither trained nor measured again.
--check measures a run that learnt from MOSES elsewhere, which has no part in the fit, beside what the law says of it.

The law is that of Hoffmann et al. (2022, "Training Compute-Optimal Large Language Models", approach 3): NLL(N, D) =
E + A / N^a + B / D^b, least squares over the trainings of 100,000 molecules and more: those of 25,000 are 195 steps,
too few to be on it.
"""

import argparse
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.optimize import least_squares

from figures import panels
from measuring import Fcd, molgen, settings
from molgen import MoleculeGenerator
from molgen.chem.pool import workers
from molgen.chem.smiles import RDKIT_VERSION
from molgen.config import load_config
from molgen.data.dataset import build_dataset
from molgen.data.encoded_file import CorpusFile, corpus_writer
from molgen.data.sources import read_source
from molgen.runs import REPORT, Run
from molgen.tokenizer import SmilesTokenizer, deepchem_pattern

# width, blocks, heads, head width
NETWORKS = {"0.3M": (96, 3, 2, 48), "1M": (128, 5, 2, 64), "3M": (192, 7, 3, 64)}
MOLECULES = (25_000, 100_000, 200_000, 400_000)
FITTED = 100_000
"""Trainings of fewer molecules do not count in the fit."""
VALIDATION = "validation.smi"
COLORS = ("#9db9dc", "#2a6fbb", "#123a66")


class Law(NamedTuple):
    """NLL(N, D) = floor + a_weights / N^b_weights + a_molecules / D^b_molecules, with N and D in millions."""

    floor: float
    a_weights: float
    b_weights: float
    a_molecules: float
    b_molecules: float

    def nll(self, weights: Any, molecules: Any) -> Any:
        """Of so many weights after so many molecules; numbers or arrays."""
        of_weights, of_molecules = weights / 1e6, molecules / 1e6
        return (
            self.floor
            + self.a_weights * of_weights**-self.b_weights
            + self.a_molecules * of_molecules**-self.b_molecules
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="where runs and figures are kept")
    parser.add_argument("-n", type=int, default=10_000, help="samples of each run (10,000)")
    parser.add_argument("--seed", type=int, default=0, help="of the trainings (0)")
    parser.add_argument("--most", type=int, default=10**13, help="leave out trainings of more weights x molecules")
    parser.add_argument("--check", type=Path, help="another run on MOSES to compare with the law")
    parser.add_argument("--write", type=Path, help="draw the figure into this file")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    write_files(options.out)
    fcd = Fcd((options.out / VALIDATION).read_text().split())
    training = CorpusFile(options.out / f"{MOLECULES[-1]}.molgen").strings("train")[: options.n]
    floor = fcd(training, "training molecules")
    print(f"FCD of {len(training):,} training molecules: {floor:.2f}", flush=True)
    points = []
    for name, shape in NETWORKS.items():
        for molecules in MOLECULES:
            if float(name.removesuffix("M")) * 1e6 * molecules > options.most:
                continue
            path = options.out / f"{name}-{molecules}-{options.seed}"
            if not (path / REPORT).exists():
                train(options.out / f"{molecules}.molgen", path, shape, options.seed)
            points.append({"network": name, **measure(options.out, Run(path), fcd, options.n)})
            print(row(points[-1]), flush=True)
    law = fitted(points)
    print(f"NLL = {law.floor:.2f} + {law.a_weights:.3f} / (N / 1e6)^{law.b_weights:.3f}", end=" ")
    print(f"+ {law.a_molecules:.3f} / (D / 1e6)^{law.b_molecules:.3f}; residuals", end=" ")
    print(" ".join(f"{p['nll'] - law.nll(p['weights'], p['molecules']):+.2f}" for p in points if enough(p)))
    check = measure(options.out, Run(options.check), fcd, options.n) if options.check else None
    if check:
        print(f"{row(check)}; the law says {law.nll(check['weights'], check['molecules']):.2f}")
    saved = {"points": points, "law": law._asdict(), "check": check, "floor": floor}
    (options.out / f"points-{options.seed}.json").write_text(json.dumps(saved, indent=1))
    if options.write:
        draw(points, law, check, floor, options.write, f"validation, {options.n:,} samples, seed {options.seed}")


def write_files(folder: Path) -> None:
    """One encoded file per number of molecules, all with one vocabulary, and the validation molecules as SMILES."""
    missing = [molecules for molecules in MOLECULES if not (folder / f"{molecules}.molgen").exists()]
    if not missing:
        return
    config, pattern = load_config("moses"), deepchem_pattern()
    with workers() as pool:
        dataset = build_dataset(read_source(config.data), config.data, config.model.context, pattern, pool)
    train = np.random.default_rng(0).permutation(dataset.split("train")).tolist()
    tokenizer = SmilesTokenizer.of_corpus(train, pattern, randomized=False, rdkit_version=RDKIT_VERSION)
    for molecules in missing:
        with corpus_writer(folder / f"{molecules}.molgen", tokenizer, config.data) as writer:
            for smiles in train[:molecules]:
                writer.add("train", smiles)
            for split in ("validation", "test"):
                for smiles in dataset.split("validation"):  # the test sets stay unread
                    writer.add(split, smiles)
    (folder / VALIDATION).write_text("\n".join(dataset.split("validation")) + "\n")


def train(file: Path, out: Path, shape: tuple[int, int, int, int], seed: int) -> None:
    """One pass over the file by the recipe `moses-small` with a network of its own."""
    width, blocks, heads, head_width = shape
    values = {
        **{"model.width": width, "model.blocks": blocks, "model.heads": heads, "model.head_width": head_width},
        "model.feedforward": 4 * width,
    }
    recipe = ("--config", "moses-small", *settings(values))
    molgen("train", str(file), *recipe, "--out", str(out), "--seed", str(seed), "--force")


def measure(folder: Path, run: Run, fcd: Fcd, n: int) -> dict[str, float]:
    """Validation NLL as the training reported it; validity and FCD of raw samples, kept beside the files."""
    kept = folder / f"{run.path.name}-{run.weights_sha256[:12]}-{n}.json"
    if kept.exists():
        return dict(json.loads(kept.read_text()))
    report = run.report
    frame = MoleculeGenerator.load(run.path).sample(n, seed=0)
    valid = frame.canonical[frame.valid]
    figures = {
        "weights": report["weights"],
        "molecules": report["sizes"]["train"],
        "nll": report["validation"]["nll"],
        "nll_stderr": report["validation"]["nll_stderr"],
        "validity": len(valid) / n,
        "fcd": fcd(list(valid)),
        "seconds": report["seconds"],
    }
    kept.write_text(json.dumps(figures))
    return figures


def fitted(points: list[dict[str, Any]]) -> Law:
    """The law with the least squared residuals, of several starts."""
    chosen = [point for point in points if enough(point)]
    weights, molecules, nll = (np.array([point[key] for point in chosen]) for key in ("weights", "molecules", "nll"))

    def residuals(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.asarray(Law(*np.exp(x)).nll(weights, molecules) - nll)

    starts = [np.log([floor, 1.0, b, 1.0, b]) for floor in (5.0, 10.0, 15.0) for b in (0.3, 0.6)]
    best = min((least_squares(residuals, start) for start in starts), key=lambda result: result.cost)
    return Law(*np.exp(best.x).tolist())


def enough(point: dict[str, Any]) -> bool:
    """Whether a training was long enough to be on the law."""
    return bool(point["molecules"] >= FITTED)


def row(point: dict[str, Any]) -> str:
    return (
        f"{point['weights']:>9,} weights {point['molecules']:>9,} molecules  NLL {point['nll']:.2f} ± "
        f"{point['nll_stderr']:.2f}  validity {point['validity']:.3f}  FCD {point['fcd']:.2f}  {point['seconds']:.0f} s"
    )


def draw(
    points: list[dict[str, Any]], law: Law, check: dict[str, float] | None, floor: float, path: Path, title: str
) -> None:
    """NLL with the law, validity and FCD against the molecules seen; `floor` is the FCD of training molecules."""
    names = {"nll": "NLL, nats a molecule", "validity": "validity", "fcd": "FCD to validation"}
    seen = np.geomspace(FITTED / 1.5, max(MOLECULES) * 25, 100)
    with panels(path, 3, 12, title) as axes:
        for network, color in zip(NETWORKS, COLORS, strict=True):
            own = [point for point in points if point["network"] == network]
            if not own:  # left out by --most
                continue
            for axis, key in zip(axes, names, strict=True):
                label = f"{own[0]['weights'] / 1e6:.2f} M weights" if axis is axes[0] else None
                style, values = ("o" if key == "nll" else "o-"), [point[key] for point in own]
                axis.plot([p["molecules"] for p in own], values, style, color=color, markersize=4, label=label)
            axes[0].plot(seen, law.nll(own[0]["weights"], seen), color=color, linewidth=0.8)
        if check:
            for axis, key in zip(axes, names, strict=True):
                label = f"{check['weights'] / 1e6:.2f} M weights, not fitted" if axis is axes[0] else None
                axis.plot(check["molecules"], check[key], "D", color="#c8553d", markersize=5, label=label)
            axes[0].plot(seen, law.nll(check["weights"], seen), color="#c8553d", linewidth=0.8, linestyle="--")
        axes[0].axhline(law.floor, color="#9aa5b8", linestyle=":", label="the law's floor")
        for axis, label in zip(axes, names.values(), strict=True):
            axis.set(xscale="log", xlabel="molecules seen", ylabel=label)
        axes[2].axhline(floor, color="#9aa5b8", linestyle=":", label="training molecules")
        ticks = (0.2, 0.5, 1, 2, 5)
        axes[2].set(yscale="log", yticks=ticks, yticklabels=[f"{tick:g}" for tick in ticks])
        axes[2].minorticks_off()
        for axis in (axes[0], axes[2]):
            axis.legend(frameon=False, fontsize=8)


if __name__ == "__main__":
    main()
