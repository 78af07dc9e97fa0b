"""The versions of the packages that results depend on."""

from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version

RECORDED = ("torch", "rdkit", "numpy", "deepchem")
"""Packages whose versions each run records. DeepChem is there only below Python 3.12."""


def versions(packages: Iterable[str] = RECORDED) -> dict[str, str]:
    """Package → version, of those that are installed."""
    found = {}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
