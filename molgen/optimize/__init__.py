"""Molecules that score well by an objective of one's own: `optimize`, and `objective` to score some by hand.

The package is the function too: `from molgen import optimize` gives what `molgen.train` and `molgen.sample` give for
their words, and `molgen.optimize.objective` is beside it.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from molgen.optimize.components import Objective as Objective
    from molgen.optimize.components import load_objective as load_objective
    from molgen.optimize.optimization import objective as objective
    from molgen.optimize.optimization import optimize as optimize
    from molgen.optimize.options import OptimizeOptions as OptimizeOptions

_HOMES = {
    "Objective": "molgen.optimize.components",
    "OptimizeOptions": "molgen.optimize.options",
    "load_objective": "molgen.optimize.components",
    "objective": "molgen.optimize.optimization",
    "optimize": "molgen.optimize.optimization",
}
__all__ = [*_HOMES]


def __getattr__(name: str) -> Any:
    """Public names load on first touch, as those of molgen."""
    if name not in _HOMES:
        raise AttributeError(f"module 'molgen.optimize' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


class _Function(ModuleType):
    """This package as a function."""

    def __call__(self, *arguments: Any, **settings: Any) -> Any:
        return __getattr__("optimize")(*arguments, **settings)


sys.modules[__name__].__class__ = _Function
