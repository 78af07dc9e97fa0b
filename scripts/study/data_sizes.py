"""What few molecules give: NLL, validity and novelty against their number, from scratch and from a prior.

    python scripts/study/data_sizes.py runs/moses-prior --out runs/sizes --split test --write docs/data_sizes.png

The molecules are one region of Tox21, 150 to 400 Da, as a project has one. All sizes share the validation
molecules, the test molecules and the vocabulary: a training molecule with a token that no held-out one has is left out,
and so is a held-out molecule that the prior trained on. A smaller training set is part of each larger one; molecules of
one neutral, stereo-free parent stand on one side. Each training chooses its epoch on validation; samples are raw, at
temperature 1. A run that is there already is neither trained nor measured again.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from rdkit.Chem import MolFromSmiles
from rdkit.Chem.rdMolDescriptors import CalcExactMolWt
from rdkit.rdBase import BlockLogs

from figures import panels
from measuring import molgen, settings
from molgen.chem.pool import workers
from molgen.config import DataConfig
from molgen.data.dataset import build_dataset
from molgen.data.sources import read_source
from molgen.runs import REPORT, find_run
from molgen.tokenizer import TokenPattern, deepchem_pattern
from molgen.training.finetune import without_known

# from scratch and from the prior; fewer molecules, more epochs
EPOCHS = {100: (150, 150), 300: (100, 100), 1_000: (50, 50), 3_000: (40, 20)}
WAYS = {
    "from scratch": (False, 0.0),
    "from scratch, randomised": (False, 0.9),
    "from the prior": (True, 0.0),
    "from the prior, randomised": (True, 0.9),
}
VALIDATION, TEST = 300, 600
FIGURES = ("nll", "nll_stderr", "n_held_out", "validity", "uniqueness", "novelty")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prior", help="a run to start from")
    parser.add_argument("--out", type=Path, required=True, help="where runs and figures are kept")
    parser.add_argument("--split", choices=("validation", "test"), default="validation", help="(validation)")
    parser.add_argument("-n", type=int, default=10_000, help="samples of each run (10,000)")
    parser.add_argument("--size", type=int, action="append", choices=sorted(EPOCHS), help="may be repeated (all)")
    parser.add_argument("--from-prior", action="store_true", help="leave out the trainings from scratch")
    parser.add_argument("--seed", type=int, default=0, help="of the trainings (0)")
    parser.add_argument("--write", type=Path, help="draw the figure into this file")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    write_files(options.out, options.prior)
    points = []
    ways = [way for way, (from_prior, _) in WAYS.items() if from_prior or not options.from_prior]
    for size in options.size or EPOCHS:
        for way in ways:
            run = options.out / f"{size}-{way.replace(', ', '-').replace(' ', '-')}-{options.seed}"
            if not (run / REPORT).exists():
                train(options.out / f"{size}.csv", run, size, way, options.prior, options.seed)
            figures = measure(run, options.split, options.n)
            report = find_run(str(run)).report
            points.append(
                {"size": size, "way": way, "epoch": report["best_epoch"], "seconds": report["seconds"], **figures}
            )
            print(row(points[-1]), flush=True)
    (options.out / f"{options.split}-{options.seed}.json").write_text(json.dumps(points, indent=1))
    if options.write:
        draw(points, options.write, f"{options.split} split, {options.n:,} samples, seed {options.seed}")


def write_files(folder: Path, prior: str) -> None:
    """One file per size, with a split column, as `molgen train` takes it."""
    config = DataConfig(source="tox21", train_size=5_600, validation_size=800)
    pattern = deepchem_pattern()
    with workers() as pool, BlockLogs():
        dataset = without_known(build_dataset(read_source(config), config, 100, pattern, pool), find_run(prior), pool)
    rng = np.random.default_rng(0)
    train, validation, test = (
        rng.permutation([smiles for smiles in dataset.split(split) if in_region(smiles)]).tolist()
        for split in ("train", "validation", "test")
    )
    held_out = [*((s, "validation") for s in validation[:VALIDATION]), *((s, "test") for s in test[:TEST])]
    split = TokenPattern(pattern).split
    vocabulary = {token for smiles, _ in held_out for token in split(smiles) or ()}
    train = [smiles for smiles in train if vocabulary.issuperset(split(smiles) or ())]
    print(f"{len(train):,} to choose from, {len(held_out)} held out, {len(vocabulary)} tokens", flush=True)
    for size in EPOCHS:
        rows = [*((smiles, "train") for smiles in train[:size]), *held_out]
        (folder / f"{size}.csv").write_text("smiles,split\n" + "".join(f"{s},{name}\n" for s, name in rows))


def in_region(smiles: str) -> bool:
    return bool(150 <= CalcExactMolWt(MolFromSmiles(smiles)) <= 400)


def train(file: Path, run: Path, size: int, way: str, prior: str, seed: int) -> None:
    """As a user would, but nothing is standardised or left out: all of it comes from Tox21's clean molecules."""
    from_prior, share = WAYS[way]
    start = ["--init", prior] if from_prior else []
    values = {
        **{f"data.{name}": "keep" for name in ("fragments", "charges", "isotopes", "radicals")},
        **{"data.elements": "null", "data.require_carbon": "false", "data.min_token_count": 1},
        **{"data.vocabulary": "all"},
        **{"training.epochs": EPOCHS[size][from_prior], "training.batch_size": 32, "training.patience": 15},
        **{"training.randomized": share, "training.randomized_end": share / 2},
    }
    molgen("train", str(file), *start, *settings(values), "--out", str(run), "--seed", str(seed), "--force")


def measure(run: Path, split: str, n: int) -> dict[str, float]:
    """The figures of `molgen eval`."""
    json_file = run / f"{split}-{n}.json"
    if not json_file.exists():
        molgen("eval", str(run), "--split", split, "-n", str(n), "--json", str(json_file))
    figures = json.loads(json_file.read_text())
    return {name: figures[name] for name in FIGURES}


def row(point: dict[str, Any]) -> str:
    return (
        f"{point['size']:>5} {point['way']:<27} NLL {point['nll']:.2f} ± {point['nll_stderr']:.2f} "
        f"(n = {point['n_held_out']}, epoch {point['epoch']})  validity {point['validity']:.3f}  "
        f"uniqueness {point['uniqueness']:.3f}  novelty {point['novelty']:.3f}  {point['seconds']:.0f} s"
    )


def draw(points: list[dict[str, Any]], path: Path, title: str) -> None:
    """Each figure against the number of training molecules."""
    names = {"nll": "NLL, nats a molecule", "validity": "validity", "novelty": "novelty"}
    with panels(path, 3, 12, title) as axes:
        for axis, (name, label) in zip(axes, names.items(), strict=True):
            for way, (from_prior, share) in WAYS.items():
                own = [point for point in points if point["way"] == way]
                if not own:
                    continue
                color, style = ("#2a6fbb" if from_prior else "#c2571a"), ("-" if share else ":")
                sizes, values = [point["size"] for point in own], [point[name] for point in own]
                axis.plot(sizes, values, style, marker="o", markersize=4, color=color, label=way)
            axis.set(xscale="log", xlabel="training molecules", ylabel=label, xticks=list(EPOCHS))
            axis.set_xticklabels([f"{size:,}" for size in EPOCHS])
            axis.minorticks_off()
        axes[0].legend(frameon=False)


if __name__ == "__main__":
    main()
