"""Draws what the temperature trades: validity, uniqueness, novelty and FCD to held-out molecules, for a run.

    python scripts/study/temperature.py runs/tox21 --split validation -n 10000 --write docs/temperature.png

FCD falls with the number of molecules on either side: the floor beside it is that of as many training molecules.
Everything is raw: no filter, seed 0. The table goes to stdout.
"""

import argparse
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from molgen import MoleculeGenerator
from molgen.metrics.chemnet import activations, frechet_distance, gaussian

TEMPERATURES = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("-n", type=int, default=10_000)
    parser.add_argument("--split", choices=("validation", "test"), default="validation")
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    generator = MoleculeGenerator.load(options.run)
    assert generator.run is not None
    training = generator.run.split("train")
    held_out = gaussian(activations(generator.run.split(options.split), "held out"))
    least = frechet_distance(gaussian(activations(training, "training")), held_out)
    rows = []
    print("temperature  validity  uniqueness  novelty     FCD   floor")
    for temperature in TEMPERATURES:
        frame = generator.sample(options.n, temperature=temperature, seed=0)
        valid = frame.canonical[frame.valid]
        distinct = set(valid)
        fcd = frechet_distance(gaussian(activations(list(valid), "samples")), held_out)
        novelty = len(distinct - set(training)) / len(distinct)
        row = (temperature, len(valid) / options.n, len(distinct) / len(valid), novelty, fcd)
        rows.append(row)
        print(f"{row[0]:>11}  {row[1]:>8.3f}  {row[2]:>10.3f}  {row[3]:>7.3f}  {fcd:>6.2f}  {least:.2f}")
    if options.write:
        draw(np.array(rows), least, options.write, f"n = {options.n:,}, {options.split} split")


def draw(rows: np.ndarray, least: float, path: Path, title: str) -> None:
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    for column, label, style in ((1, "validity", "-"), (2, "uniqueness", "--"), (3, "novelty", ":")):
        left.plot(rows[:, 0], rows[:, column], style, color="#2a6fbb", label=label)
    left.set(xlabel="temperature", ylabel="share", ylim=(0, 1.02), title=title)
    left.legend(frameon=False, loc="lower left")
    right.plot(rows[:, 0], rows[:, 4], color="#2a6fbb", label="valid samples")
    right.axhline(least, color="#9aa5b8", label="training molecules")
    right.set(xlabel="temperature", ylabel="FCD to held-out molecules", ylim=(0, None))
    right.legend(frameon=False)
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)


if __name__ == "__main__":
    main()
