"""The work of `molgen predict`: rows of a file to the rows of a table."""

import math
from collections.abc import Sequence

from molgen.data.readers import Row
from molgen.data.standardised import standardised
from molgen.prediction.predictor import TOO_FAR, RunPredictor

_NO_LIMIT = 65_536  # tokens: what the model cannot read, the neighbours can
NO_PREDICTION = "the joint model cannot read it"


def columns_of(targets: Sequence[str]) -> list[str]:
    """The heading of the table."""
    predictions = [f"{name}{ending}" for name in targets for ending in ("", "_low", "_high")]
    measured = [f"{name}_nearest" for name in targets]
    return ["smiles", "name", "canonical", *predictions, "nearest_training", "nn_similarity", *measured, "note"]


def predict_rows(rows: Sequence[Row], predictor: RunPredictor) -> list[list[str]]:
    """The cells of each row, in order; molecules are standardised as the training's were.

    There is no prediction for what the training would have dropped, and the note says why. `NAME_nearest` is the
    measured value of the nearest training molecule, with its relation. The note also says what standardisation changed,
    and whether a molecule is too far from the training molecules.
    """
    run = predictor.run
    cleaned = standardised(rows, run.config.data, _NO_LIMIT, run.tokenizer.splitter.pattern, predictor.runtime.workers)
    places = [i for i, (smiles, _) in enumerate(cleaned) if smiles]
    smiles = [cleaned[i][0] for i in places]
    found = predictor.predict(smiles)
    nearest = predictor.nearest(smiles)
    at = {row: i for i, row in enumerate(places)}
    table = []
    for number, (row, (canonical, note)) in enumerate(zip(rows, cleaned, strict=True)):
        i = at.get(number)
        cells: list[str] = []
        notes = [note] if note else []
        for one in found.values():
            three = (one.values, one.low, one.high)
            cells += ["" if i is None else _text(float(part[i])) for part in three]
            if i is not None and one.too_far[i]:
                notes.append(TOO_FAR)
            if i is not None and math.isnan(one.values[i]):
                notes.append(NO_PREDICTION)
        if i is None:
            cells += ["", "", *("" for _ in run.targets)]
        else:
            known = run.labels.get(nearest.smiles[i], ())
            cells += [nearest.smiles[i], f"{nearest.similarity[i]:.3f}", *(label.shown for label in known)]
        table.append([row.smiles, row.name, canonical, *cells, "; ".join(dict.fromkeys(notes))])
    return table


def _text(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.3f}"
