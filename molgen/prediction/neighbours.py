"""The honest neighbours of the joint model: forest, boosting and support vectors on ECFP4, by scikit-learn.

Each kind is tried with the same number of settings. What is kept of a fitted one are arrays.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from molgen.prediction.fingerprints import Fingerprints, kernel
from molgen.prediction.trees import Trees, Values

Kind = Literal["forest", "boosting", "svm"]
KINDS: tuple[Kind, ...] = ("forest", "boosting", "svm")
SETTINGS: dict[Kind, tuple[dict[str, float], ...]] = {
    "forest": (
        {"max_features": 0.1, "min_samples_leaf": 1},
        {"max_features": 0.3, "min_samples_leaf": 1},
        {"max_features": 0.1, "min_samples_leaf": 3},
        {"max_features": 0.3, "min_samples_leaf": 3},
    ),
    "boosting": (
        {"learning_rate": 0.1, "max_depth": 4},
        {"learning_rate": 0.05, "max_depth": 8},
        {"learning_rate": 0.1, "max_depth": 8},
        {"learning_rate": 0.2, "max_depth": 4},
    ),
    "svm": ({"C": 1, "epsilon": 0.1}, {"C": 3, "epsilon": 0.1}, {"C": 10, "epsilon": 0.1}, {"C": 3, "epsilon": 0.3}),
}
"""The settings that are tried, the same number for each kind."""
_TREES, _ROUNDS, _SUBSAMPLE, _FEATURES = 150, 200, 0.6, 0.1
_FEWEST_WITH_BIT = 2  # a count that fewer molecules have is not offered to the trees
MOST_IN_KERNEL = 5_000
"""Support vectors of more molecules would need gigabytes: then a random part of so many is learned from."""
_MOST_LEAVES = 20_000  # per tree: larger data make larger leaves, not larger files


@dataclass(frozen=True)
class Fitted:
    """One fitted neighbour of one target."""

    kind: Kind
    trees: Trees | None = None
    coefficients: Values | None = None
    """(V,) of the support vectors."""
    vectors: npt.NDArray[np.int64] | None = None
    """(V,) rows of the training fingerprints."""
    intercept: float = 0.0
    slope: float = 1.0
    """Of values, or of the logarithm of the odds of a class."""
    logistic: bool = False
    """Whether the result is a probability through the logistic function."""

    def __call__(self, queries: Fingerprints, training: Fingerprints) -> Values:
        """(N,) predictions; for a class the probability of 1."""
        if self.kind == "svm":
            assert self.vectors is not None and self.coefficients is not None
            raw = kernel(queries, training.rows(self.vectors)).astype(np.float64) @ self.coefficients
        else:
            assert self.trees is not None
            said = self.trees(queries.counts)
            raw = said.mean(axis=1) if self.kind == "forest" else said.sum(axis=1)
        values = self.slope * raw + self.intercept
        return 1 / (1 + np.exp(-values.clip(-500, 500))) if self.logistic else values


def fit(
    kind: Kind,
    setting: Mapping[str, float],
    training: Fingerprints,
    values: Values,
    is_class: bool,
    rows: npt.NDArray[np.int64],
    trees: int = _TREES,
) -> Fitted:
    """Learns values of the molecules at `rows` of the training fingerprints; the same data give the same result.

    Raises ValueError for a class that has one value only.
    """
    if is_class and len(np.unique(values)) < 2:
        raise ValueError("one class only")
    match kind:
        case "forest":
            return _forest(setting, training.rows(rows), values, trees)
        case "boosting":
            return _boosting(setting, training.rows(rows), values, is_class)
        case _:
            return _support_vectors(setting, training, values, is_class, rows)


def _columns(counts: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Columns that at least two molecules have, and not all have alike."""
    with_bit = (counts > 0).sum(axis=0)
    varies = (counts != counts[:1]).any(axis=0)
    found = np.flatnonzero((with_bit >= _FEWEST_WITH_BIT) & varies)
    return found if len(found) else np.arange(1)


def _forest(setting: Mapping[str, float], training: Fingerprints, values: Values, trees: int) -> Fitted:
    from sklearn.ensemble import RandomForestRegressor

    columns = _columns(training.counts)
    leaf = max(int(setting["min_samples_leaf"]), len(values) // _MOST_LEAVES)
    model = RandomForestRegressor(
        trees, max_features=setting["max_features"], min_samples_leaf=leaf, random_state=0
    )  # of a class too: the mean of 0 and 1 is a probability, and the squared error Gini's impurity
    model.fit(training.counts[:, columns].astype(np.float32), values)
    return Fitted("forest", Trees.of([tree.tree_ for tree in model.estimators_], columns))


def _boosting(setting: Mapping[str, float], training: Fingerprints, values: Values, is_class: bool) -> Fitted:
    from sklearn.ensemble import GradientBoostingClassifier, GradientBoostingRegressor

    columns = _columns(training.counts)
    make: Any = GradientBoostingClassifier if is_class else GradientBoostingRegressor
    model = make(
        n_estimators=_ROUNDS,
        learning_rate=setting["learning_rate"],
        max_depth=int(setting["max_depth"]),
        subsample=_SUBSAMPLE,
        max_features=_FEATURES,
        random_state=0,
    )
    counts = training.counts[:, columns].astype(np.float32)
    model.fit(counts, values)
    trees = Trees.of([tree.tree_ for tree in model.estimators_[:, 0]], columns, setting["learning_rate"])
    mean = float(values.mean())
    intercept = float(np.log(mean / (1 - mean))) if is_class else mean
    return Fitted("boosting", trees, intercept=intercept, logistic=is_class)


def _support_vectors(
    setting: Mapping[str, float],
    training: Fingerprints,
    values: Values,
    is_class: bool,
    rows: npt.NDArray[np.int64],
) -> Fitted:
    from sklearn.svm import SVC, SVR

    if len(rows) > MOST_IN_KERNEL:
        part = np.sort(np.random.default_rng(0).permutation(len(rows))[:MOST_IN_KERNEL])
        rows, values = rows[part], values[part]
    own = training.rows(rows)
    products = kernel(own, own).astype(np.float64)
    if not is_class:
        centre, spread = float(values.mean()), float(values.std()) or 1.0
        model: Any = SVR(kernel="precomputed", C=setting["C"], epsilon=setting["epsilon"])
        model.fit(products, (values - centre) / spread)
        intercept = spread * float(model.intercept_[0]) + centre
        return Fitted("svm", None, model.dual_coef_[0].copy(), rows[model.support_], intercept, spread)
    model = SVC(kernel="precomputed", C=setting["C"], class_weight="balanced")
    model.fit(products, values)
    slope, intercept = _platt(products, values, setting["C"])
    return Fitted(
        "svm",
        None,
        model.dual_coef_[0].copy(),
        rows[model.support_],
        slope * float(model.intercept_[0]) + intercept,
        slope,
        logistic=True,
    )


def _platt(products: Values, values: Values, penalty: float) -> tuple[float, float]:
    """(slope, intercept) of the logarithm of the odds against the decision value, on held-out thirds (Platt 1999)."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.svm import SVC

    decisions = np.zeros(len(values))
    folds = np.random.default_rng(0).permutation(len(values)) % 3
    for fold in range(3):
        inside, outside = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        if len(np.unique(values[inside])) < 2:
            return 1.0, 0.0
        model = SVC(kernel="precomputed", C=penalty, class_weight="balanced")
        model.fit(products[np.ix_(inside, inside)], values[inside])
        decisions[outside] = model.decision_function(products[np.ix_(outside, inside)])
    line = LogisticRegression().fit(decisions[:, None], values)
    return float(line.coef_[0, 0]), float(line.intercept_[0])
