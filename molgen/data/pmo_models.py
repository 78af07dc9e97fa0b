"""The three classifiers of PMO as plain arrays, out of the pickles that the package MolScore contains.

The pickles are never loaded: `molgen.runtime.inert_pickle` reads their data.
"""

import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save

from molgen.runtime.inert_pickle import array_of, read_pickle

MODELS = ("drd2", "gsk3b", "jnk3")
Arrays = Mapping[str, npt.NDArray[Any]]


def models_of(archive: zipfile.ZipFile) -> bytes:
    """MolScore's wheel → a safetensors file of the arrays of all three, named `drd2.vectors` and so on."""
    arrays: dict[str, npt.NDArray[Any]] = {}
    for name in MODELS:
        found = arrays_of(archive.read(f"molscore/data/models/molopt/{name}.pkl"))
        arrays |= {f"{name}.{key}": np.ascontiguousarray(array) for key, array in found.items()}
    return bytes(save(arrays))


def arrays_of(content: bytes) -> Arrays:
    """A pickle of scikit-learn's RandomForestClassifier or SVC, for two classes → its arrays by name.

    Raises ValueError for anything else.
    """
    model = read_pickle(content)
    if model.name.endswith("RandomForestClassifier"):
        return _forest(model.state)
    if model.name.endswith("SVC"):
        return _support_vectors(model.state)
    raise ValueError(f"{model.name} is neither a forest nor a support vector machine")


def _forest(state: Mapping[str, Any]) -> Arrays:
    """All trees in one list of nodes; a leaf's children are the leaf itself."""
    left, right, feature, probability, roots = [], [], [], [], []
    start = 0
    for tree in state["estimators_"]:
        nodes = array_of(tree.state["tree_"].state["nodes"])
        values = array_of(tree.state["tree_"].state["values"])[:, 0, :]
        own = np.arange(len(nodes))
        leaf = nodes["left_child"] < 0
        if not (nodes["threshold"][~leaf] == 0.5).all():
            raise ValueError("a threshold other than 0.5")
        left.append(start + np.where(leaf, own, nodes["left_child"]))
        right.append(start + np.where(leaf, own, nodes["right_child"]))
        feature.append(np.where(leaf, 0, nodes["feature"]))
        probability.append(values[:, 1] / values.sum(axis=1))
        roots.append(start)
        start += len(nodes)
    return {
        "left": np.concatenate(left).astype(np.int32),
        "right": np.concatenate(right).astype(np.int32),
        "feature": np.concatenate(feature).astype(np.int16),
        "probability": np.concatenate(probability),
        "roots": np.array(roots, dtype=np.int32),
    }


def _support_vectors(state: Mapping[str, Any]) -> Arrays:
    vectors = array_of(state["support_vectors_"])
    if not (vectors == vectors.astype(np.uint8)).all():
        raise ValueError("support vectors that are no counts")
    constants = [state["_gamma"], *(float(array_of(state[name])[0]) for name in ("_intercept_", "probA_", "probB_"))]
    return {
        "vectors": vectors.astype(np.uint8),
        "coefficients": array_of(state["_dual_coef_"])[0].copy(),
        "constants": np.array(constants),
    }
