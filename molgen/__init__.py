"""molgen learns a language of molecules: train, sample and evaluate SMILES transformers."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from molgen._version import __version__

if TYPE_CHECKING:
    from molgen import optimize as optimize
    from molgen.config import Config as Config
    from molgen.config import load_config as load_config
    from molgen.errors import MolgenError as MolgenError
    from molgen.evaluation.evaluate import evaluate as evaluate
    from molgen.generation.generator import MoleculeGenerator as MoleculeGenerator
    from molgen.generation.generator import sample as sample
    from molgen.generation.score import score as score
    from molgen.model.build import build_model as build_model
    from molgen.runs import Run as Run
    from molgen.tokenizer import SmilesTokenizer as SmilesTokenizer
    from molgen.training.train import train as train


_HOMES = {
    "Config": "molgen.config",
    "MolgenError": "molgen.errors",
    "MoleculeGenerator": "molgen.generation.generator",
    "Run": "molgen.runs",
    "SmilesTokenizer": "molgen.tokenizer",
    "build_model": "molgen.model.build",
    "evaluate": "molgen.evaluation.evaluate",
    "load_config": "molgen.config",
    "sample": "molgen.generation.generator",
    "score": "molgen.generation.score",
    "train": "molgen.training.train",
}
__all__ = ["__version__", "optimize", *_HOMES]


def __getattr__(name: str) -> Any:
    """Public names load on first touch, so that importing molgen costs nothing."""
    if name == "optimize":  # a package, which is a function too
        return import_module("molgen.optimize")
    if name not in _HOMES:
        raise AttributeError(f"module 'molgen' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
