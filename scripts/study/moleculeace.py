"""The targets of MoleculeACE (van Tilborg et al. 2022) as their authors split them, for studies of predictors."""

import csv
import gzip
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from molgen.data.download import fetch
from molgen.prediction.figures import rmse


class Molecules(NamedTuple):
    """N molecules of one target."""

    smiles: list[str]
    values: npt.NDArray[np.float64]
    """(N,) pIC50 or pKi."""
    cliff: npt.NDArray[np.bool_]
    """(N,) whether a similar molecule has a value ten times as large or small."""


class Target(NamedTuple):
    """A target's training and test molecules."""

    name: str
    train: Molecules
    test: Molecules

    def validation(self) -> npt.NDArray[np.bool_]:
        """(N,) a random tenth of the training molecules, the same for every predictor."""
        n = len(self.train.smiles)
        return np.isin(np.arange(n), np.random.default_rng(0).permutation(n)[: n // 10])

    def figures(self, said: npt.NDArray[np.float64]) -> dict[str, Any]:
        """RMSE of predictions of the test molecules, of all and of those on cliffs."""
        truth, cliff = self.test.values, self.test.cliff
        errors = {"rmse": rmse(truth, said), "rmse_cliff": rmse(truth[cliff], said[cliff])}
        return {"target": self.name, "n_test": len(truth), **errors}


def targets(names: Sequence[str] | None = None) -> Iterator[Target]:
    """The named targets, in order; all of them without a name. Raises SystemExit for an unknown one."""
    with gzip.open(fetch("moleculeace")[0], "rt", newline="") as file:
        rows = list(csv.DictReader(file))
    there = sorted({row["target"] for row in rows})
    for name in names or there:
        if name not in there:
            raise SystemExit(f"{name}: no target of MoleculeACE; there are {', '.join(there)}")
        train, test = (
            _molecules([row for row in rows if row["target"] == name and row["split"] == split])
            for split in ("train", "test")
        )
        yield Target(name, train, test)


def _molecules(rows: Sequence[dict[str, str]]) -> Molecules:
    return Molecules(
        [row["smiles"] for row in rows],
        np.array([float(row["y"]) for row in rows]),
        np.array([row["cliff_mol"] == "1" for row in rows]),
    )
