"""Filters on one molecule: a condition on its properties, SMARTS patterns, alerts. Runs in the worker processes."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from rdkit import Chem

from molgen.chem.alerts import alerts
from molgen.chem.conditions import Condition
from molgen.chem.descriptors import PROPERTIES
from molgen.chem.fragments import keep_of
from molgen.chem.kept import columns_of, described
from molgen.chem.reactive import reactive_group
from molgen.chem.smiles import MOST_CHARACTERS, parse, quiet
from molgen.errors import MolgenError


class MoleculeFilter(NamedTuple):
    """What a molecule must have and must not have; the default accepts every molecule."""

    where: str = ""
    """A condition on PROPERTIES."""
    smarts: tuple[str, ...] = ()
    """Patterns that must all match."""
    not_smarts: tuple[str, ...] = ()
    """Patterns that must not match."""
    no_alerts: bool = False
    """Whether to reject molecules with a structural alert of RDKit's catalogue."""
    reactive: tuple[str, ...] = ()
    """Names of REACTIVE that must not occur."""
    warheads: tuple[str, ...] = ()
    """Patterns in whose matches a reactive group may occur."""
    keep: str = ""
    """Fragments that must be kept, as `fragments.numbered` writes them; `where` may use their columns too."""

    def checked(self) -> "MoleculeFilter":
        """Returns self. Raises MolgenError for a condition or pattern that is not valid."""
        if self.where:
            kept = columns_of(keep_of(self.keep)) if self.keep else ()
            Condition(self.where).check([*PROPERTIES, *kept], "--where")
        named = (("--smarts", self.smarts), ("--not-smarts", self.not_smarts), ("--warhead", self.warheads))
        for option, patterns in named:
            for pattern in patterns:
                if not query_of(pattern):
                    raise MolgenError(f"{option} {pattern}: not a SMARTS pattern", "try it with RDKit's MolFromSmarts")
        return self


def screen(
    smiles: str,
    where: str = "",
    smarts: Sequence[str] = (),
    not_smarts: Sequence[str] = (),
    no_alerts: bool = False,
    reactive: Sequence[str] = (),
    warheads: Sequence[str] = (),
    keep: str = "",
) -> tuple[str | None, str]:
    """(canonical SMILES, name of the first field of `MoleculeFilter` that rejects the molecule, or "").

    (None, "") for an invalid molecule.
    """
    molecule = parse(smiles)
    if molecule is None:
        return None, ""
    with quiet():
        canonical = str(Chem.MolToSmiles(molecule))
        held = _held(canonical, keep) if keep else {}
        if held is None:
            return canonical, "keep"
        if where and not _condition(where).holds(_LazyProperties(molecule, held)):
            return canonical, "where"
        if any(not molecule.HasSubstructMatch(query_of(pattern)) for pattern in smarts):
            return canonical, "smarts"
        if any(molecule.HasSubstructMatch(query_of(pattern)) for pattern in not_smarts):
            return canonical, "not_smarts"
        if no_alerts and alerts(molecule):
            return canonical, "no_alerts"
        if reactive and reactive_group(molecule, reactive, warheads):
            return canonical, "reactive"
    return canonical, ""


def _held(canonical: str, keep: str) -> dict[str, Any] | None:
    """The columns of what a canonical SMILES keeps; None if it does not hold it."""
    molecule = parse(canonical)
    return None if molecule is None else described(molecule, keep_of(keep))


class _LazyProperties(Mapping[str, Any]):
    """A molecule's properties, each computed when a condition uses it, and the columns of what it keeps."""

    def __init__(self, molecule: Any, held: Mapping[str, Any]) -> None:
        self._molecule, self._held = molecule, held

    def __getitem__(self, name: str) -> Any:
        return self._held[name] if name in self._held else PROPERTIES[name].compute(self._molecule)

    def __iter__(self) -> Any:
        return iter(PROPERTIES)

    def __len__(self) -> int:
        return len(PROPERTIES)


@lru_cache(maxsize=16)
def _condition(text: str) -> Condition:
    return Condition(text)


@lru_cache(maxsize=256)
def query_of(pattern: str) -> Any | None:
    """The compiled pattern; None for an empty, unreadable or non-ASCII one, which RDKit must not see."""
    if not pattern or len(pattern) > MOST_CHARACTERS or not (pattern.isascii() and pattern.isprintable()):
        return None
    with quiet():
        return Chem.MolFromSmarts(pattern)
