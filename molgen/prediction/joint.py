"""What a joint model says about molecules: the mean over several SMILES of each."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from molgen.chem.pool import Workers
from molgen.data.batches import Corpus
from molgen.data.labels import Scales
from molgen.model.decoder import Decoder
from molgen.tokenizer import BOS, RANDOM, SmilesTokenizer

_AT_A_TIME = 256
_SEED = 1  # fixed, so that a molecule's random strings are always the same
_DRAWS = 3  # per form: some draws are equal, or are no strings of the vocabulary


@torch.inference_mode()
def joint_predictions(
    model: Decoder,
    tokenizer: SmilesTokenizer,
    smiles: Sequence[str],
    scales: Scales,
    forms: int,
    bidirectional: bool,
    workers: Workers,
) -> npt.NDArray[np.float64]:
    """(N, T) values, or probabilities of 1, of canonical SMILES; NaN for what the model cannot read.

    Random SMILES are used only by a model that was trained on them.
    """
    result = np.full((len(smiles), len(scales.centre)), np.nan)
    strings, starts, owners = _strings(tokenizer, smiles, forms, model.context, workers)
    if not strings:
        return result
    corpus = Corpus.of(strings, len(tokenizer), starts)
    order = np.argsort(corpus.positions, kind="stable")
    outputs = np.empty((len(strings), len(scales.centre)))
    device = model.embedding.weight.device
    for start in range(0, len(order), _AT_A_TIME):
        rows = order[start : start + _AT_A_TIME]
        inputs = corpus.batch(rows, device).inputs
        outputs[rows] = model.predicted(inputs, model.hidden(inputs, bidirectional)).double().cpu().numpy()
    values = outputs * scales.spread + scales.centre
    values[:, scales.classes] = 1 / (1 + np.exp(-outputs[:, scales.classes].clip(-500, 500)))
    counts = np.bincount(owners, minlength=len(smiles))
    sums = np.zeros_like(result)
    np.add.at(sums, owners, values)
    result[counts > 0] = sums[counts > 0] / counts[counts > 0, None]
    return result


def _strings(
    tokenizer: SmilesTokenizer, smiles: Sequence[str], forms: int, context: int, workers: Workers
) -> tuple[list[list[int]], list[int], npt.NDArray[np.int64]]:
    """(ids of the strings, their first ids, the molecule of each)."""
    drawn: list[list[str]] = [[] for _ in smiles]
    if forms > 1 and RANDOM in tokenizer.special:
        found = workers.map("random_forms", smiles, "random SMILES", draws=_DRAWS * forms, seed=_SEED)
        drawn = [one or [] for one in found]
    strings: list[list[int]] = []
    starts, owners = [], []
    for i, (canonical, others) in enumerate(zip(smiles, drawn, strict=True)):
        taken = 0
        for text in (canonical, *others):
            ids = tokenizer.encode(text) if text else None
            if ids and len(ids) <= context and taken < forms:
                strings.append(ids)
                starts.append(BOS if text is canonical else tokenizer.random_start)
                owners.append(i)
                taken += 1
    return strings, starts, np.array(owners, dtype=np.int64)
