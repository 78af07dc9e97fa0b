"""Filters on one molecule: a condition on its properties, patterns, alerts. Runs in the worker processes."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from rdkit import Chem

from molgen.chem.alerts import alerts
from molgen.chem.conditions import Condition
from molgen.chem.descriptors import PROPERTIES
from molgen.chem.smiles import MOST_CHARACTERS, parse, quiet
from molgen.errors import MolgenError


class MoleculeFilter(NamedTuple):
    """What a molecule must have and must not have; nothing by default."""

    where: str = ""
    """A condition on PROPERTIES."""
    smarts: tuple[str, ...] = ()
    """Patterns that must all match."""
    not_smarts: tuple[str, ...] = ()
    """Patterns of which none may match."""
    no_alerts: bool = False
    """No structural alert of RDKit's catalogue."""

    def checked(self) -> "MoleculeFilter":
        """Itself. Raises MolgenError for a condition or pattern that cannot be understood."""
        if self.where:
            Condition(self.where).check(PROPERTIES, "--where")
        for option, patterns in (("--smarts", self.smarts), ("--not-smarts", self.not_smarts)):
            for pattern in patterns:
                if not _query(pattern):
                    raise MolgenError(f"{option} {pattern}: not a SMARTS pattern", "try it with RDKit's MolFromSmarts")
        return self


def screen(
    smiles: str, where: str, smarts: Sequence[str], not_smarts: Sequence[str], no_alerts: bool
) -> tuple[str | None, str]:
    """(canonical SMILES, the first filter of `MoleculeFilter` that rejects the molecule, or an empty string).

    An invalid molecule has no canonical SMILES, and none of the filters is asked.
    """
    molecule = parse(smiles)
    if molecule is None:
        return None, ""
    with quiet():
        canonical = str(Chem.MolToSmiles(molecule))
        if where and not _condition(where).holds(_Lazily(molecule)):
            return canonical, "where"
        if any(not molecule.HasSubstructMatch(_query(pattern)) for pattern in smarts):
            return canonical, "smarts"
        if any(molecule.HasSubstructMatch(_query(pattern)) for pattern in not_smarts):
            return canonical, "not_smarts"
        if no_alerts and alerts(molecule):
            return canonical, "no_alerts"
    return canonical, ""


class _Lazily(Mapping[str, Any]):
    """A molecule's properties, each computed when a condition asks for it."""

    def __init__(self, molecule: Any) -> None:
        self._molecule = molecule

    def __getitem__(self, name: str) -> Any:
        return PROPERTIES[name].compute(self._molecule)

    def __iter__(self) -> Any:
        return iter(PROPERTIES)

    def __len__(self) -> int:
        return len(PROPERTIES)


@lru_cache(maxsize=16)
def _condition(text: str) -> Condition:
    return Condition(text)


@lru_cache(maxsize=256)
def _query(pattern: str) -> Any | None:
    """None for an empty pattern, and for one that RDKit cannot read: it must see printable ASCII only."""
    if not pattern or len(pattern) > MOST_CHARACTERS or not (pattern.isascii() and pattern.isprintable()):
        return None
    with quiet():
        return Chem.MolFromSmarts(pattern)
