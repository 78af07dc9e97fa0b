"""Two other predictors on targets of MoleculeACE, beside those of `prediction.py`, which shows the table.

    python scripts/study/other_predictors.py graphormer --out runs/prediction --target CHEMBL204_Ki
    python scripts/study/other_predictors.py chemprop --environment envs/chemprop --out runs/prediction

chemprop runs in an environment of its own (`python -m venv envs/chemprop`, and its pip), with its defaults. Both choose
their epoch on the same tenth of the training molecules. A figure that is there already is not made again.
"""

import argparse
import csv
import json
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from graphormer import fitted
from moleculeace import Target, targets


def main() -> None:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("graphormer", "chemprop"))
    parser.add_argument("--environment", type=Path, help="where chemprop is installed")
    parser.add_argument("--out", type=Path, default=Path("runs/prediction"))
    parser.add_argument("--target", action="append", help="some targets only")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.what == "chemprop" and arguments.environment is None:
        parser.error("name the --environment of chemprop")
    arguments.out.mkdir(parents=True, exist_ok=True)
    for target in targets(arguments.target):
        result = arguments.out / f"{arguments.what}-{target.name}.json"
        if result.exists():
            continue
        began = time.monotonic()
        if arguments.what == "chemprop":
            folder = arguments.out / f"chemprop-{target.name}"
            said = chemprop(target, arguments.environment, folder, arguments.seed)
        else:
            predict = fitted(target.train.smiles, target.train.values, target.validation(), arguments.seed)
            said = predict(target.test.smiles)
        report = {**target.figures(said), "seed": arguments.seed, "seconds": round(time.monotonic() - began, 1)}
        result.write_text(json.dumps(report, indent=1))
        print(
            f"{target.name}: {arguments.what} {report['rmse']:.3f}, cliffs {report['rmse_cliff']:.3f}, "
            f"{report['seconds']:.0f} s",
            flush=True,
        )


def chemprop(target: Target, environment: Path, folder: Path, seed: int) -> npt.NDArray[np.float64]:
    """What chemprop says of the test molecules."""
    folder.mkdir(exist_ok=True)
    molecules, validation = target.train, target.validation()
    with (folder / "train.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["smiles", "y", "split"])
        splits = ("val" if held_out else "train" for held_out in validation)
        table.writerows(zip(molecules.smiles, molecules.values.tolist(), splits, strict=True))
        # chemprop asks for a test molecule; it learns nothing of it
        table.writerow([molecules.smiles[0], float(molecules.values[0]), "test"])
    with (folder / "test.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["smiles"], *([smiles] for smiles in target.test.smiles)])
    command = str(environment / "bin" / "chemprop")
    common = ["--smiles-columns", "smiles", "--accelerator", "cpu", "--num-workers", "0"]
    model = ["--output-dir", str(folder / "model"), "--splits-column", "split", "--target-columns", "y"]
    kind = ["--pytorch-seed", str(seed), "--task-type", "regression"]
    _quietly([command, "train", "--data-path", str(folder / "train.csv"), *common, *model, *kind])
    predictions = folder / "predictions.csv"
    best = ["--model-paths", str(folder / "model" / "model_0" / "best.pt"), "--preds-path", str(predictions)]
    _quietly([command, "predict", "--test-path", str(folder / "test.csv"), *common, *best])
    with predictions.open(newline="") as file:
        return np.array([float(row["y"]) for row in csv.DictReader(file)])


def _quietly(command: Sequence[str]) -> None:
    """Runs another program. Raises SystemExit with the end of what it said if it fails."""
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command[:2])}:\n{done.stderr[-2000:]}")


if __name__ == "__main__":
    main()
