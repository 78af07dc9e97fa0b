"""Why a prediction is what it is: how much it would change without each atom's part of the fingerprint."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from molgen.chem.draw import draw_contributions
from molgen.errors import MolgenError
from molgen.prediction.fingerprints import Fingerprints
from molgen.prediction.neighbours import KINDS
from molgen.prediction.predictor import RunPredictor, Values

logger = logging.getLogger(__name__)

MOST_DRAWN = 30


def contributions(predictor: RunPredictor, smiles: Sequence[str], target: str) -> list[Values | None]:
    """Of each canonical SMILES the contribution of each of its atoms, in the target's units; None if it is invalid.

    A contribution is the prediction minus that without all environments that contain the atom. They do not sum to the
    prediction. The joint model has no fingerprint: then it is that of the neighbours, by their weights.
    """
    place = predictor.run.targets.index(target)
    found = predictor.runtime.workers.map("atoms_in_fingerprint", smiles)
    prints = Fingerprints.of(smiles, predictor.runtime.workers)
    result: list[Values | None] = []
    for i, atoms in enumerate(found):
        if not atoms:
            result.append(None)
            continue
        counts = np.repeat(prints.counts[i : i + 1], len(atoms) + 1, axis=0)
        for row, own in enumerate(atoms, 1):
            for bit, missing in own:
                counts[row, bit] -= min(missing, counts[row, bit])
        values = predictor.on_fingerprints(Fingerprints(counts), place)
        result.append(values[0] - values[1:])
    return result


def explain(predictor: RunPredictor, smiles: Sequence[str], names: Sequence[str], path: Path) -> None:
    """Draws the first 30 molecules into a .png or .svg file, with the contributions of their atoms to the first target.

    Raises MolgenError if the target has no neighbours, or no molecule is valid.
    """
    target = predictor.targets[0]
    if not any(kind in target.settings for kind in KINDS):
        raise MolgenError(f"--explain: {target.name} has too few values for a neighbour", "leave it out")
    chosen = [(one, name) for one, name in zip(smiles, names, strict=True) if one][:MOST_DRAWN]
    if not chosen:
        raise MolgenError(f"{path}: no molecule to draw", "give valid molecules")
    drawn = [one for one, _ in chosen]
    found = contributions(predictor, drawn, target.name)
    predicted = predictor.predict(drawn)[target.name].values
    legends = [
        f"{name or i + 1}: {target.name} {value:.2f}"
        for i, ((_, name), value) in enumerate(zip(chosen, predicted, strict=True))
    ]
    draw_contributions(drawn, [[] if one is None else one.tolist() for one in found], legends, path)
    logger.info(
        f"{len(drawn)} molecules drawn into {path}: green atoms raise {target.name} in the fingerprint's neighbours, "
        "pink ones lower it"
    )
