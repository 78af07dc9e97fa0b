"""AUC top-k of PMO (Gao et al. 2022, NeurIPS): how high the best molecules score, averaged over the calls."""

from collections.abc import Sequence

from molgen.optimize.memory import top

_EVERY = 100  # calls between two points of the curve


def auc_top(totals: Sequence[float], calls: int, k: int = 10) -> float:
    """The area under the mean of the best k so far, divided by `calls`; `totals` are in the order of the calls.

    The curve has a point every 100 calls, is 0 at 0, and stays as it is after the last molecule. As in PMO's code.
    """
    area = before = 0.0
    counted = 0
    for n in range(_EVERY, min(len(totals), calls), _EVERY):
        value = top(totals[:n], k)
        area += _EVERY * (value + before) / 2
        before, counted = value, n
    last = top(totals[:calls], k)
    area += (min(len(totals), calls) - counted) * (last + before) / 2
    return (area + max(0, calls - len(totals)) * last) / calls
