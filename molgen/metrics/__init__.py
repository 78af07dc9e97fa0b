"""Lists of molecules in, figures out. Metrics never see a model.

A family of figures is one module of this package. It defines METRIC (see `metric.Metric`), and its name stands in
`MetricName`: the command line, the evaluation and its table know it from there. Nothing heavy is imported here.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    from molgen.metrics.metric import Metric

MetricName = Literal["basic", "moses", "guacamol", "chem"]
"""The families, in the order in which they are computed and shown; each name is that of its module."""


def all_metrics() -> "dict[MetricName, Metric[Any]]":
    """Every family by its name."""
    return {name: import_module(f"{__name__}.{name}").METRIC for name in get_args(MetricName)}
