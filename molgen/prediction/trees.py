"""Ensembles of trees as plain arrays, evaluated without scikit-learn.

A fitted forest of scikit-learn is a Python object that only a pickle could keep. Its arrays are enough: they say the
same in every version, and nothing in them can execute code.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

_AT_A_TIME = 2_000
Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Trees:
    """T trees with M nodes in all. A leaf is its own child on both sides."""

    left: npt.NDArray[np.int32]
    """(M,) where a count at most the threshold leads."""
    right: npt.NDArray[np.int32]
    feature: npt.NDArray[np.int16]
    threshold: npt.NDArray[np.float32]
    value: npt.NDArray[np.float32]
    """(M,) what a leaf says."""
    roots: npt.NDArray[np.int32]
    """(T,)"""

    @classmethod
    def of(cls, fitted: Sequence[Any], columns: npt.NDArray[np.int64], scale: float = 1.0) -> "Trees":
        """From scikit-learn's trees (`tree_`) on some columns of the fingerprints; values are multiplied by `scale`."""
        parts: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in cls.__dataclass_fields__}
        start = 0
        for tree in fitted:
            leaf = tree.children_left < 0
            own = np.arange(tree.node_count)
            parts["left"].append(np.where(leaf, own, tree.children_left) + start)
            parts["right"].append(np.where(leaf, own, tree.children_right) + start)
            parts["feature"].append(columns[np.where(leaf, 0, tree.feature)])
            parts["threshold"].append(tree.threshold)
            parts["value"].append(tree.value[:, 0, 0] * scale)
            parts["roots"].append(np.array([start]))
            start += tree.node_count
        types = {"threshold": np.float32, "value": np.float32, "feature": np.int16}
        return cls(**{k: np.concatenate(v).astype(types.get(k, np.int32)) for k, v in parts.items()})

    def __call__(self, counts: npt.NDArray[np.uint8]) -> Values:
        """(N, T) what each tree says about molecules with these counts (N, 2,048)."""
        blocks = [np.empty((0, len(self.roots)))]
        for start in range(0, len(counts), _AT_A_TIME):
            block = counts[start : start + _AT_A_TIME]
            rows = np.arange(len(block))[:, None]
            nodes = np.broadcast_to(self.roots, (len(block), len(self.roots)))
            while True:
                goes_left = block[rows, self.feature[nodes]] <= self.threshold[nodes]
                following = np.where(goes_left, self.left[nodes], self.right[nodes])
                if (following == nodes).all():
                    break
                nodes = following
            blocks.append(self.value[nodes].astype(np.float64))
        return np.concatenate(blocks)

    @property
    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The fields by name."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> "Trees":
        """From `arrays`. Raises ValueError if the nodes are no trees, so that evaluating them always ends."""
        trees = cls(**{name: arrays[name] for name in cls.__dataclass_fields__})
        own = np.arange(len(trees.value))
        leaf = (trees.left == own) & (trees.right == own)
        below = (trees.left > own) & (trees.right > own) & (np.maximum(trees.left, trees.right) < len(own))
        features = (trees.feature >= 0) & (trees.feature < 2_048)
        sizes = {len(getattr(trees, name)) for name in ("left", "right", "feature", "threshold", "value")}
        roots = (trees.roots >= 0) & (trees.roots < len(own))
        if len(sizes) != 1 or not (leaf | below).all() or not features.all() or not roots.all():
            raise ValueError("no trees")
        if not (np.isfinite(trees.value).all() and np.isfinite(trees.threshold).all()):
            raise ValueError("values that are not finite")
        return trees
