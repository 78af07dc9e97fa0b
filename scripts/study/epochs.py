"""What each pass over the training set changes: validity, novelty and FCD to validation molecules, by epoch.

    python scripts/study/epochs.py runs/moses-small runs/epochs/*.safetensors -n 10000 --write docs/epochs.png

The weights of an epoch are a copy of the run's `model.safetensors`, made when the epoch had ended; the number in the
file's name is its epoch. They may also come from runs of which each began with the last one's weights. Novelty is
against the training molecules of the run that is named. Samples are raw, at temperature 1, seed 0. The floor is the FCD
of as many training molecules.
Figures are kept beside the weights, so a study that was stopped goes on.
"""

import argparse
import json
import shutil
import tempfile
from pathlib import Path

import torch

from figures import panels
from measuring import Fcd
from molgen import MoleculeGenerator
from molgen.data.batches import Corpus
from molgen.model.likelihood import likelihood
from molgen.runs import CONFIG, TOKENIZER, WEIGHTS, Run

Figures = dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="the run of these epochs")
    parser.add_argument("weights", type=Path, nargs="+", help="EPOCH.safetensors of each epoch")
    parser.add_argument("-n", type=int, default=10_000, help="samples of each epoch (10,000)")
    parser.add_argument("--write", type=Path, help="draw the figure into this file")
    options = parser.parse_args()
    run = Run(options.run)
    training, validation = run.split("train"), run.split("validation")
    fcd = Fcd(validation[: options.n])
    step = max(1, len(training) // options.n)
    floor = fcd(training[::step][: options.n], "training molecules")
    print(
        f"FCD of {options.n:,} training molecules to {len(validation[: options.n]):,} validation molecules: {floor:.3f}"
    )
    known = set(training)
    found: dict[int, Figures] = {}
    print("epoch  validation NLL  validity  uniqueness  novelty    FCD")
    for path in sorted(options.weights, key=lambda path: int(path.stem)):
        epoch = int(path.stem)
        found[epoch] = measured(run, path, validation, known, fcd, options.n)
        print(
            "{:>5}  {nll:>14.2f}  {validity:>8.4f}  {uniqueness:>10.4f}  {novelty:>7.4f}  {fcd:.3f}".format(
                epoch, **found[epoch]
            ),
            flush=True,
        )
    if options.write:
        draw(found, floor, options.write, f"{options.n:,} raw samples after each pass")


def measured(run: Run, weights: Path, validation: list[str], known: set[str], fcd: Fcd, n: int) -> Figures:
    """The figures of one epoch's weights, from a file beside them if they are there."""
    kept = weights.with_suffix(f".{n}.json")
    if kept.exists():
        return dict(json.loads(kept.read_text()))
    with tempfile.TemporaryDirectory() as folder:
        for name in (CONFIG, TOKENIZER):
            shutil.copy(run.path / name, folder)
        shutil.copy(weights, Path(folder) / WEIGHTS)
        device = torch.device("cpu")
        encoded = [ids for ids in map(run.tokenizer.encode, validation) if ids]
        nll = likelihood(Run(Path(folder)).model(device), Corpus.of(encoded, len(run.tokenizer)), device).mean_nll
        frame = MoleculeGenerator.load(folder).sample(n, seed=0)
    valid = list(frame.canonical[frame.valid])
    distinct = set(valid)
    figures = {
        "nll": nll,
        "validity": len(valid) / n,
        "uniqueness": len(distinct) / len(valid),
        "novelty": len(distinct - known) / len(distinct),
        "fcd": fcd(valid),
    }
    kept.write_text(json.dumps(figures))
    return figures


def draw(found: dict[int, Figures], floor: float, path: Path, title: str) -> None:
    """Validity and novelty, FCD, and validation NLL against the epoch."""
    epochs = list(found)
    with panels(path, 3, 12, title) as (left, middle, right):
        for key, style in (("validity", "-o"), ("novelty", ":o")):
            left.plot(epochs, [found[epoch][key] for epoch in epochs], style, color="#2a6fbb", label=key)
        left.set(xlabel="pass over the training set", ylabel="share", xticks=epochs)
        left.legend(frameon=False)
        middle.plot(epochs, [found[epoch]["fcd"] for epoch in epochs], "-o", color="#2a6fbb", label="samples")
        middle.axhline(floor, color="#9aa5b8", label="training molecules")
        highest = 1.1 * max(figures["fcd"] for figures in found.values())
        middle.set(
            xlabel="pass over the training set",
            ylabel="FCD to validation molecules",
            ylim=(0, highest),
            xticks=epochs,
        )
        middle.legend(frameon=False)
        right.plot(epochs, [found[epoch]["nll"] for epoch in epochs], "-o", color="#2a6fbb")
        right.set(xlabel="pass over the training set", ylabel="validation NLL, nats per molecule", xticks=epochs)


if __name__ == "__main__":
    main()
