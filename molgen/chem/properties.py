"""The columns of a sample table that a molecule alone decides, and the filters on them. Runs in the workers."""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from rdkit import Chem
from rdkit.Chem import Crippen, Descriptors, rdDepictor, rdMolDescriptors

from molgen.chem import descriptors
from molgen.chem.conditions import Condition
from molgen.chem.smiles import MOST_CHARACTERS, failure, parse, quiet
from molgen.errors import MolgenError

_chem: Any = Chem  # these have no type hints
_crippen: Any = Crippen
_descriptors: Any = Descriptors


def synthetic_accessibility(molecule: Any) -> float:
    """Ertl and Schuffenhauer 2009 (J. Cheminform. 1:8): 1 easy to 10 hard."""
    return float(descriptors.sa_scorer().calculateScore(molecule))


def molblock(molecule: Any) -> str:
    """A connection table (V2000 where it fits) with 2D coordinates."""
    drawn = Chem.Mol(molecule)
    rdDepictor.Compute2DCoords(drawn)
    try:
        return str(Chem.MolToMolBlock(drawn))
    except RuntimeError:  # such as `[*H]`, whose valence RDKit looks for: no table can be written of it
        return str(Chem.MolToMolBlock(Chem.Mol()))


PROPERTIES: dict[str, Callable[[Any], Any]] = {
    "mw": lambda molecule: float(_descriptors.MolWt(molecule)),
    "logp": lambda molecule: float(_crippen.MolLogP(molecule)),
    "tpsa": lambda molecule: float(rdMolDescriptors.CalcTPSA(molecule)),
    "hbd": lambda molecule: int(rdMolDescriptors.CalcNumHBD(molecule)),
    "hba": lambda molecule: int(rdMolDescriptors.CalcNumHBA(molecule)),
    "rotatable": lambda molecule: int(rdMolDescriptors.CalcNumRotatableBonds(molecule)),
    "rings": lambda molecule: int(rdMolDescriptors.CalcNumRings(molecule)),
    "qed": descriptors.qed,
    "sa": synthetic_accessibility,
    "alerts": lambda molecule: " ".join(descriptors.alerts(molecule)),
    "inchikey": lambda molecule: str(_chem.MolToInchiKey(molecule)),
}
"""Average weight (g/mol), Crippen logP, TPSA (Å²), Lipinski donors and acceptors, rotatable bonds (strict), rings, QED,
synthetic accessibility, the structural alerts of RDKit's catalogue (PAINS, Brenk, NIH), InChIKey: all as RDKit has it.
"""
_PARTS = {"molblock": molblock, "fingerprint": descriptors.fingerprint, **PROPERTIES}


def tabulate(smiles: str, columns: Sequence[str]) -> dict[str, Any]:
    """The named properties of a valid molecule (`molblock` and `fingerprint` too), or {"error": cause}."""
    molecule = parse(smiles)
    if molecule is None:
        return {"error": failure(smiles)}
    with quiet():
        return {name: _PARTS[name](molecule) for name in columns}


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
        if no_alerts and descriptors.alerts(molecule):
            return canonical, "no_alerts"
    return canonical, ""


class _Lazily(Mapping[str, Any]):
    """A molecule's properties, each computed when a condition asks for it."""

    def __init__(self, molecule: Any) -> None:
        self._molecule = molecule

    def __getitem__(self, name: str) -> Any:
        return PROPERTIES[name](self._molecule)

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
