"""Predictions as columns beside a molecule's properties: of tables, conditions and filters."""

from collections.abc import Sequence

import numpy as np

from molgen.chem.conditions import Condition
from molgen.chem.descriptors import PROPERTIES
from molgen.chem.pool import Workers
from molgen.prediction.predictor import RunPredictor, Values

ENDINGS = ("", "_low", "_high")


def predicted_names(targets: Sequence[str]) -> list[str]:
    """The columns of some targets: the prediction and the ends of its interval."""
    return [f"{name}{ending}" for name in targets for ending in ENDINGS]


def predicted_columns(predictor: RunPredictor, smiles: Sequence[str]) -> dict[str, Values]:
    """The columns of canonical SMILES, (n,) each; NaN where there is no prediction."""
    columns: dict[str, Values] = {}
    for name, found in predictor.predict(smiles).items():
        columns |= dict(zip(predicted_names([name]), (found.values, found.low, found.high), strict=True))
    return columns


class PredictedCondition:
    """A condition on predictions, and perhaps on properties too, such as `pIC50 > 7.5 and mw < 500`."""

    def __init__(self, text: str, predictor: RunPredictor, workers: Workers) -> None:
        """Raises MolgenError for a column that is neither."""
        self._condition, self._predictor, self._workers = Condition(text), predictor, workers
        self._condition.check([*predicted_names(predictor.run.targets), *PROPERTIES], "--where")
        self._properties = [name for name in self._condition.names if name in PROPERTIES]

    def holds(self, smiles: Sequence[str]) -> list[bool]:
        """Whether it is true of each of some canonical SMILES; not of one without prediction."""
        if not smiles:
            return []
        predicted = predicted_columns(self._predictor, smiles)
        found = self._workers.map("tabulate", smiles, columns=self._properties) if self._properties else []
        result = []
        for i in range(len(smiles)):
            values = {name: None if np.isnan(column[i]) else float(column[i]) for name, column in predicted.items()}
            result.append(self._condition.holds({**((found[i] or {}) if found else {}), **values}))
        return result
