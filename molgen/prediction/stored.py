"""What a run keeps of its predictors: arrays in one safetensors file, the numbers about them as JSON in its header."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load, save

from molgen.config import Section
from molgen.errors import MolgenError
from molgen.prediction.fingerprints import Fingerprints
from molgen.prediction.intervals import Bin, Intervals
from molgen.prediction.neighbours import KINDS, Fitted, Kind
from molgen.prediction.trees import Trees
from molgen.runtime.files import content_of, write_atomically

_MOST_BYTES = 2**32
Number = Annotated[float, Field(allow_inf_nan=False)]


class Calibration(Section):
    """How sure one predictor of one target is."""

    coefficients: list[Number] = Field(default=[])
    least: Number = 0.0
    quantile: Number = 0.0
    constant: Number = 0.0
    n: int = 0
    curve: list[Number] = Field(default=[])
    bounds: list[list[Number]] = Field(default=[])
    """Of a class: the rows of `venn_abers`."""

    @property
    def intervals(self) -> Intervals:
        """Of a value."""
        return Intervals(tuple(self.coefficients), self.least, self.quantile, self.constant, self.n, tuple(self.curve))


class TargetModel(Section):
    """What is known about one target, besides arrays."""

    name: str
    is_class: bool
    centre: Number
    spread: Number
    chosen: str
    """What `auto` is."""
    weights: dict[str, Number]
    """Of the members of `mean`."""
    settings: dict[str, dict[str, Number]]
    """The chosen setting of each neighbour."""
    errors: dict[str, Number]
    """On validation: RMSE, or of a class the cross-entropy. `baseline` is the mean of the training molecules."""
    validation: int
    """Molecules that these errors are of."""
    calibrations: dict[str, Calibration]
    bins: list[list[Number]] = Field(default=[])
    too_far: Number | None = None
    noise: Number | None = None
    noise_molecules: int = 0
    measured: int = 0
    censored: int = 0

    def lacks_intervals(self, kind: str) -> bool:
        """Whether too few molecules were held out for an interval around what this kind predicts; of a class never."""
        return not self.is_class and kind not in self.calibrations

    def doubt(self, kind: str) -> str:
        """A line for people if this kind was no better on validation than the mean of the training molecules, or ""."""
        error, baseline = self.errors.get(kind), self.errors.get("baseline")
        if error is None or baseline is None or error < baseline:
            return ""
        measure = "cross-entropy" if self.is_class else "RMSE"
        return (
            f"{self.name}: {kind} is no better than the mean of the training molecules ({measure} {error:.3f} and "
            f"{baseline:.3f} on {self.validation:,} validation molecules): do not rely on its predictions"
        )

    @property
    def similarity_bins(self) -> list[Bin]:
        """Held-out molecules by their similarity to training molecules."""
        return [Bin(low, high, int(n), rmse, baseline) for low, high, n, rmse, baseline in self.bins]


class Stored(Section):
    """The header."""

    format: Literal["molgen predictors 1"] = "molgen predictors 1"
    molecules: str
    """SHA-256 of the SMILES that the fingerprints are of."""
    targets: list[TargetModel]


def write(
    path: Path,
    about: Stored,
    training: Fingerprints,
    fitted: Mapping[str, Mapping[Kind, Fitted]],
    errors: Mapping[str, npt.NDArray[np.float64]],
) -> None:
    """Writes the predictors of each target; `errors` are the held-out errors of its training molecules, NaN if none."""
    arrays: dict[str, npt.NDArray[Any]] = {f"fingerprints.{name}": one for name, one in training.sparse.items()}
    for place, target in enumerate(about.targets):
        arrays[f"{place}.errors"] = errors[target.name].astype(np.float32)
        for kind, model in fitted[target.name].items():
            start = f"{place}.{kind}."
            arrays[f"{start}line"] = np.array([model.slope, model.intercept, float(model.logistic)])
            if model.trees is not None:
                arrays |= {f"{start}{name}": array for name, array in model.trees.arrays.items()}
            if model.vectors is not None and model.coefficients is not None:
                arrays |= {f"{start}vectors": model.vectors, f"{start}coefficients": model.coefficients}
    header = {"about": json.dumps(about.model_dump(), allow_nan=False)}  # one entry: several have no fixed order
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    write_atomically(path, save(contiguous, header))


def read(
    path: Path, follow: bool = False
) -> tuple[Stored, Fingerprints, dict[str, dict[Kind, Fitted]], dict[str, npt.NDArray[np.float64]]]:
    """What `write` wrote. Raises MolgenError for a file that is missing, damaged or of another kind."""
    try:
        content = content_of(path, _MOST_BYTES, follow)
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length])["__metadata__"]
        about = Stored.model_validate_json(header["about"])
        arrays = load(content)
        training = Fingerprints.of_sparse(*(arrays[f"fingerprints.{k}"] for k in ("columns", "counts", "offsets")))
        fitted: dict[str, dict[Kind, Fitted]] = {}
        errors = {}
        for place, target in enumerate(about.targets):
            errors[target.name] = _of_shape(arrays[f"{place}.errors"], len(training)).astype(np.float64)
            fitted[target.name] = {
                kind: _fitted(kind, arrays, f"{place}.{kind}.", len(training))
                for kind in KINDS
                if f"{place}.{kind}.line" in arrays
            }
        return about, training, fitted, errors
    except (OSError, SafetensorError, ValidationError, ValueError, KeyError, TypeError, RecursionError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise MolgenError(f"{path}: cannot be read: {first}", "restore the file, or train again") from None


def _fitted(kind: Kind, arrays: Mapping[str, npt.NDArray[Any]], start: str, molecules: int) -> Fitted:
    slope, intercept, logistic = arrays[f"{start}line"].tolist()
    own = {name.removeprefix(start): array for name, array in arrays.items() if name.startswith(start)}
    if kind != "svm":
        return Fitted(kind, Trees.of_arrays(own), None, None, intercept, slope, bool(logistic))
    vectors, coefficients = own["vectors"].astype(np.int64), own["coefficients"].astype(np.float64)
    if len(vectors) != len(coefficients) or (len(vectors) and not 0 <= vectors.min() <= vectors.max() < molecules):
        raise ValueError("no support vectors")
    return Fitted(kind, None, coefficients, vectors, intercept, slope, bool(logistic))


def _of_shape(array: npt.NDArray[Any], n: int) -> npt.NDArray[Any]:
    if array.shape != (n,):
        raise ValueError(f"an array of {array.shape}, not of {n} molecules")
    return array
