"""How good predictions are: errors of values, and how well a probability ranks two classes."""

import math

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]
_RESAMPLES = 500


def rmse(truth: Values, predicted: Values) -> float:
    """Root of the mean squared error; NaN without molecules."""
    return math.sqrt(float(np.mean((truth - predicted) ** 2))) if len(truth) else math.nan


def mae(truth: Values, predicted: Values) -> float:
    """Mean absolute error."""
    return float(np.mean(np.abs(truth - predicted))) if len(truth) else math.nan


def r2(truth: Values, predicted: Values) -> float:
    """1 minus the squared error over that of predicting the mean of these molecules."""
    total = float(((truth - truth.mean()) ** 2).sum()) if len(truth) else 0.0
    return 1 - float(((truth - predicted) ** 2).sum()) / total if total else math.nan


def spearman(truth: Values, predicted: Values) -> float:
    """Rank correlation."""
    from scipy.stats import spearmanr

    if len(truth) < 3 or np.ptp(truth) == 0 or np.ptp(predicted) == 0:
        return math.nan
    return float(spearmanr(truth, predicted).statistic)


def roc_auc(truth: Values, predicted: Values) -> float:
    """Probability that a molecule of class 1 is ranked above one of class 0; ties count half."""
    from scipy.stats import rankdata

    positives, negatives = int(truth.sum()), int(len(truth) - truth.sum())
    if not positives or not negatives:
        return math.nan
    ranks = rankdata(predicted)
    return float((ranks[truth == 1].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def pr_auc(truth: Values, predicted: Values) -> float:
    """Average precision: the mean precision at the ranks of class 1; molecules with one score have one rank."""
    if not truth.sum():
        return math.nan
    scores, group = np.unique(-predicted, return_inverse=True)
    hits = np.bincount(group, truth, len(scores))
    taken = np.cumsum(np.bincount(group, minlength=len(scores)))
    precision = np.cumsum(hits) / taken
    return float((precision * hits).sum() / truth.sum())


REGRESSION = {"rmse": rmse, "mae": mae, "r2": r2, "spearman": spearman}
CLASSIFICATION = {"roc_auc": roc_auc, "pr_auc": pr_auc}


def figures(truth: Values, predicted: Values, is_class: bool) -> dict[str, float | None]:
    """Each figure with `NAME_stderr`, its standard deviation over 500 bootstrap samples of the molecules.

    None where it cannot be computed.
    """
    chosen = CLASSIFICATION if is_class else REGRESSION
    random = np.random.default_rng(0)
    rows = [random.integers(len(truth), size=len(truth)) for _ in range(_RESAMPLES)] if len(truth) > 1 else []
    found: dict[str, float | None] = {}
    for name, compute in chosen.items():
        value = compute(truth, predicted)
        found[name] = None if math.isnan(value) else value
        if found[name] is not None and rows:
            again = [v for row in rows if not math.isnan(v := compute(truth[row], predicted[row]))]
            found[f"{name}_stderr"] = float(np.std(again, ddof=1)) if len(again) > 1 else None
    return found


def error(truth: Values, predicted: Values, is_class: bool) -> float:
    """What is compared on validation: the RMSE, or of a class the cross-entropy; the lower the better."""
    if not is_class:
        return rmse(truth, predicted)
    p = predicted.clip(1e-6, 1 - 1e-6)
    return float(-np.mean(truth * np.log(p) + (1 - truth) * np.log(1 - p))) if len(truth) else math.nan
