"""What studies of architectures share: trainings that go on where they stopped, NLL per token, paired differences."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from molgen.chem.pool import workers
from molgen.config import load_config
from molgen.data.batches import Corpus
from molgen.data.encoded_file import CorpusFile
from molgen.data.prepare import write_encoded
from molgen.model.likelihood import token_nll
from molgen.runs import REPORT, STATE, Run
from molgen.training.train import train

Numbers = npt.NDArray[np.float64]
_BATCH_TOKENS = 8_192


def encoded(path: Path, recipe: str, settings: Sequence[str]) -> CorpusFile:
    """An encoded file of a recipe's data; made if it is not there."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with workers() as pool:
            print("\n".join(write_encoded(load_config(recipe, settings), path, pool)), flush=True)
    return CorpusFile(path)


def trained(path: Path, file: CorpusFile, settings: Sequence[str], seed: int) -> Run:
    """A training on an encoded file, finished: nothing to do, or resumed, or from the start."""
    if (path / REPORT).exists():
        return Run(path)
    if (path / STATE).exists():
        return train(load_config(), path, resume=True)
    random = ["training.randomized=0.0", "training.randomized_end=0.0"]
    values = {"data.source": str(file.path), "training.seed": seed}
    return train(load_config(None, [*random, *settings], values), path, force=True)


@torch.inference_mode()
def token_nlls(run: Run, corpus: Corpus) -> list[Numbers]:
    """−ln p of each token and the end of each molecule, (T,) per molecule, in nats."""
    model = run.model(torch.device("cpu")).eval()
    found: list[Numbers] = [np.empty(0)] * len(corpus)
    for rows in batches(corpus.positions):
        batch = corpus.batch(rows, torch.device("cpu"))
        for row, nll in zip(rows.tolist(), token_nll(model(batch.inputs), batch.targets), strict=True):
            found[row] = nll[: corpus.positions[row]].double().numpy()
    return found


def batches(positions: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.int64]]:
    """Rows of molecules of similar length, about 8,192 tokens at a time."""
    order = np.argsort(positions, kind="stable")
    start = 0
    while start < len(order):
        stop = start + 1
        while stop < len(order) and positions[order[stop]] * (stop + 1 - start) <= _BATCH_TOKENS:
            stop += 1
        yield order[start:stop]
        start = stop


def paired(of: Mapping[int, Numbers], than: Mapping[int, Numbers]) -> dict[str, Any]:
    """Differences by seed, each (N,) of the same molecules: mean, its 95 % interval over molecules, mean of each seed.

    Positive: `of` has the larger NLL.
    """
    differences = np.stack([of[seed] - than[seed] for seed in sorted(of.keys() & than.keys())])
    by_molecule = differences.mean(axis=0)
    half = 1.96 * float(by_molecule.std(ddof=1)) / math.sqrt(len(by_molecule)) if len(by_molecule) > 1 else math.nan
    mean = float(by_molecule.mean())
    return {
        "mean": mean,
        "interval": [mean - half, mean + half],
        "by_seed": differences.mean(axis=1).tolist(),
        "n": len(by_molecule),
    }
