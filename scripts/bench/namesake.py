"""molgen 0.2.0, the namesake on the package registry, on a run's molecules for a run's minutes: its samples and NLL.

    .venv-peers/bin/python scripts/bench/namesake.py runs/tox21 --minutes 12 -n 2000 --out runs/namesake.smi
    molgen eval runs/namesake.smi --train runs/namesake.train.smi
    .venv-peers/bin/python scripts/bench/namesake.py shipped/moses-small --moses data/moses --minutes 80 -n 30000 \\
        --out runs/namesake.smi
    molgen eval runs/namesake.smi --train moses --metrics moses

A run on MOSES has no molecules of its own: they are read from where `molgen data get moses` put them. Runs in the
environment that `bench.py` makes, where `import molgen` means that package. Its MolGPT with its own tokenizer, loader,
loop and sampler, at its defaults but for the network's size, which is the run's. It has no rule to choose an epoch by:
the weights are those at the end of the time.
"""

import argparse
import csv
import gzip
import itertools
import json
import multiprocessing
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch.nn.functional import cross_entropy

from peers import namesake_settings, their

BATCH = 256  # molecules drawn at once: its default


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run of molgen: its molecules and the size of its network")
    parser.add_argument("--moses", type=Path, help="the folder of the molecules, for a run on MOSES")
    parser.add_argument("--minutes", type=float, required=True, help="time for the training")
    parser.add_argument("-n", type=int, default=2_000, help="samples (2,000)")
    parser.add_argument("--seed", type=int, default=0, help="of weights, order and samples (0)")
    parser.add_argument("--out", type=Path, required=True, help="samples; beside it NAME.train.smi")
    options = parser.parse_args()
    splits = read_moses(options.moses) if options.moses else read_splits(options.run)
    options.out.with_suffix(".train.smi").write_text("\n".join(splits["train"]) + "\n")
    sizes = yaml.safe_load((options.run / "config.yaml").read_text())["model"]
    tokenizer = their("tokenizers").SmilesTokenizer.from_smiles(splits["train"])
    torch.manual_seed(options.seed)
    model: Any = their("molgpt").MolGPT(**namesake_settings(sizes, tokenizer))
    loader, _ = their("data").build_dataloaders(splits["train"], tokenizer, test_split=1, seed=options.seed)
    batches = Timed(loader, 60 * options.minutes)
    trainer, cpu = their("trainer"), torch.device("cpu")
    trainer.train_language_model(model, batches, None, trainer.TrainConfig(epochs=1), cpu, tokenizer.pad_id)
    nll = likelihoods(model, tokenizer, splits["test"])
    figures = {
        "weights": sum(p.numel() for p in model.parameters()),
        "epochs": round(batches.count / len(loader), 2),
        "minutes": options.minutes,
        "test_nll": float(np.mean(nll)),
        "test_nll_stderr": float(np.std(nll, ddof=1) / np.sqrt(len(nll))),
        "n_test": len(nll),
        "n_test_unknown_tokens": len(splits["test"]) - len(nll),
    }
    print(json.dumps(figures, indent=1), flush=True)
    options.out.write_text("\n".join(drawn(model, tokenizer, options.n, options.seed)) + "\n")


def read_splits(run: Path) -> dict[str, list[str]]:
    """A run's molecules by split."""
    splits: dict[str, list[str]] = {}
    with gzip.open(run / "molecules.csv.gz", "rt", newline="") as file:
        for molecule in csv.DictReader(file):
            splits.setdefault(molecule["split"], []).append(molecule["smiles"])
    return splits


def read_moses(folder: Path) -> dict[str, list[str]]:
    """MOSES' training set, and every 17th molecule of its test set: 10,358."""
    splits: dict[str, list[str]] = {}
    for name, every in (("train", 1), ("test", 17)):
        with gzip.open(folder / f"{name}.csv.gz", "rt", newline="") as file:
            splits[name] = [row["SMILES"] for row in csv.DictReader(file)][::every]
    return splits


class Timed:
    """Hands out a loader's batches, epoch after epoch, until the time is up."""

    def __init__(self, loader: Any, seconds: float) -> None:
        self.loader, self.seconds, self.count = loader, seconds, 0

    def __iter__(self) -> Iterator[torch.Tensor]:
        start = time.monotonic()
        for batch in itertools.chain.from_iterable(itertools.repeat(self.loader)):
            if time.monotonic() - start > self.seconds:
                return
            self.count += 1
            yield batch


@torch.no_grad()
def likelihoods(model: Any, tokenizer: Any, smiles: list[str]) -> list[float]:
    """The NLL in nats of each string whose tokens the vocabulary has, its end token included."""
    model.eval()
    rows = [tokenizer.encode(one) for one in smiles]
    known = [torch.tensor([row]) for row in rows if tokenizer.unk_id not in row]
    return [float(cross_entropy(model(row[:, :-1])[0], row[0, 1:], reduction="sum")) for row in known]


def drawn(model: Any, tokenizer: Any, n: int, seed: int) -> list[str]:
    """Its own samples, in one process per core: it has no cache. Their number changes no sample."""
    model.eval()
    starts = range(0, n, BATCH)
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
        sizes, seeds = [min(BATCH, n - start) for start in starts], [seed + start for start in starts]
        batches = pool.map(draw, itertools.repeat(model), itertools.repeat(tokenizer), sizes, seeds)
        return list(itertools.chain.from_iterable(batches))


def draw(model: Any, tokenizer: Any, n: int, seed: int) -> list[str]:
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    return list(their("sampling").sample(model, tokenizer, n, device=torch.device("cpu")))


if __name__ == "__main__":
    main()
