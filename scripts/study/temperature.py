"""Draws what the temperature trades: validity, uniqueness, novelty and FCD to held-out molecules, for a run.

    python scripts/study/temperature.py runs/tox21 --split validation -n 10000 --write docs/temperature.png

FCD falls with the number of molecules on either side: the floor beside it is that of as many training molecules.
Everything is raw: no filter, seed 0. The table goes to stdout.
"""

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt

from figures import panels
from measuring import Fcd
from molgen import MoleculeGenerator

TEMPERATURES = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="a run of molgen")
    parser.add_argument("-n", type=int, default=10_000, help="samples at each temperature (10,000)")
    parser.add_argument("--split", choices=("validation", "test"), default="validation", help="(validation)")
    parser.add_argument("--write", type=Path, help="draw the figure into this file")
    options = parser.parse_args()
    generator = MoleculeGenerator.load(options.run)
    assert generator.run is not None
    training = generator.run.split("train")
    fcd = Fcd(generator.run.split(options.split))
    least = fcd(training, "training")
    rows = []
    print("temperature  validity  uniqueness  novelty     FCD   floor")
    for temperature in TEMPERATURES:
        frame = generator.sample(options.n, temperature=temperature, seed=0)
        valid = frame.canonical[frame.valid]
        distinct = set(valid)
        novelty = len(distinct - set(training)) / len(distinct)
        row = (temperature, len(valid) / options.n, len(distinct) / len(valid), novelty, fcd(list(valid)))
        rows.append(row)
        print(f"{row[0]:>11}  {row[1]:>8.3f}  {row[2]:>10.3f}  {row[3]:>7.3f}  {row[4]:>6.2f}  {least:.2f}")
    if options.write:
        draw(np.array(rows), least, options.write, f"n = {options.n:,}, {options.split} split")


def draw(rows: npt.NDArray[np.float64], least: float, path: Path, title: str) -> None:
    """Shares on the left, FCD on the right; `least` is the FCD of as many training molecules."""
    with panels(path, 2, 10) as (left, right):
        for column, label, style in ((1, "validity", "-"), (2, "uniqueness", "--"), (3, "novelty", ":")):
            left.plot(rows[:, 0], rows[:, column], style, color="#2a6fbb", label=label)
        left.set(xlabel="temperature", ylabel="share", ylim=(0, 1.02), title=title)
        left.legend(frameon=False, loc="lower left")
        right.plot(rows[:, 0], rows[:, 4], color="#2a6fbb", label="valid samples")
        right.axhline(least, color="#9aa5b8", label="training molecules")
        right.set(xlabel="temperature", ylabel="FCD to held-out molecules", ylim=(0, None))
        right.legend(frameon=False)


if __name__ == "__main__":
    main()
