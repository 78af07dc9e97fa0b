"""The three classifiers of PMO, evaluated from plain arrays: two random forests and a support vector machine.

Li et al. 2018 (J. Cheminform. 10:33) trained the forests of GSK3β and JNK3; Olivecrona et al. 2017 (J. Cheminform.
9:48) the support vector machine of DRD2. The arrays are those of `molgen.data.pmo_models`.
"""

import gzip
import math
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rdkit.Chem import rdFingerprintGenerator
from safetensors.numpy import load

from molgen.runtime.files import content_of

_MOST_BYTES = 2**28
_BITS = 2_048
_CLAMP = 1e-7  # of libsvm's pairwise probabilities
_LIBSVM_EPS = 0.0025  # 0.005 / number of classes


def active_probability(molecule: Any, name: str, path: str) -> float:
    """The probability of activity by the named model in a file of arrays."""
    arrays = _arrays(name, path)
    if "roots" in arrays:
        return _forest(arrays, _ecfp4().GetFingerprintAsNumPy(molecule))
    return _support_vector_machine(arrays, _folded(_fcfp6().GetSparseCountFingerprint(molecule).GetNonzeroElements()))


def _forest(arrays: dict[str, npt.NDArray[Any]], bits: npt.NDArray[np.uint8]) -> float:
    """The mean over the trees of the probability at the leaf that the bits lead to."""
    left, right, feature = arrays["left"], arrays["right"], arrays["feature"]
    nodes = arrays["roots"]
    while True:  # a leaf's children are the leaf itself
        following = np.where(bits[feature[nodes]] > 0, right[nodes], left[nodes])
        if (following == nodes).all():
            return float(arrays["probability"][nodes].astype(np.float64).mean())
        nodes = following


def _support_vector_machine(arrays: dict[str, npt.NDArray[Any]], counts: npt.NDArray[np.float64]) -> float:
    """libsvm's probability of the second of two classes, by Platt's sigmoid and pairwise coupling."""
    distances = arrays["squares"] - 2 * (arrays["vectors"] @ counts) + counts @ counts
    gamma, intercept, a, b = arrays["constants"]
    decision = float(np.exp(-gamma * distances) @ arrays["coefficients"]) + intercept
    exponent = a * decision + b
    second = 1 / (1 + math.exp(exponent)) if exponent < 0 else math.exp(-exponent) / (1 + math.exp(-exponent))
    return _coupled(min(max(second, _CLAMP), 1 - _CLAMP))


def _coupled(q: float) -> float:
    """libsvm's `multiclass_probability` (Wu et al. 2004, method 2) for two classes; `q` is the first's pairwise one."""
    r = ((0.0, q), (1 - q, 0.0))
    matrix = ((r[1][0] ** 2, -r[1][0] * r[0][1]), (-r[0][1] * r[1][0], r[0][1] ** 2))
    p = [0.5, 0.5]
    for _ in range(100):
        products = [matrix[t][0] * p[0] + matrix[t][1] * p[1] for t in range(2)]
        expected = p[0] * products[0] + p[1] * products[1]
        if max(abs(product - expected) for product in products) < _LIBSVM_EPS:
            break
        for t in range(2):
            difference = (-products[t] + expected) / matrix[t][t]
            p[t] += difference
            expected = (expected + difference * (difference * matrix[t][t] + 2 * products[t])) / (1 + difference) ** 2
            for j in range(2):
                products[j] = (products[j] + difference * matrix[t][j]) / (1 + difference)
                p[j] /= 1 + difference
    return p[1]


def _folded(counts: dict[int, int]) -> npt.NDArray[np.float64]:
    """(2,048,) Counts of environments, by their hash modulo 2,048."""
    folded = np.zeros(_BITS)
    for environment, count in counts.items():
        folded[environment % _BITS] += count
    return folded


@lru_cache(maxsize=4)
def _arrays(name: str, path: str) -> dict[str, npt.NDArray[Any]]:
    found = load(gzip.decompress(content_of(Path(path), _MOST_BYTES, follow=True)))
    arrays = {key.removeprefix(f"{name}."): array for key, array in found.items() if key.startswith(f"{name}.")}
    if "vectors" in arrays:
        arrays["vectors"] = arrays["vectors"].astype(np.float64)
        arrays["squares"] = (arrays["vectors"] ** 2).sum(axis=1)
    return arrays


@lru_cache(maxsize=1)
def _ecfp4() -> Any:
    return rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=_BITS)


@lru_cache(maxsize=1)
def _fcfp6() -> Any:
    invariants = rdFingerprintGenerator.GetMorganFeatureAtomInvGen()
    return rdFingerprintGenerator.GetMorganGenerator(radius=3, atomInvariantsGenerator=invariants)
