"""What an objective measures of one molecule: properties, similarity, substructures, formula. Runs in the workers.

Definitions are those of GuacaMol (Brown et al. 2019, J. Chem. Inf. Model. 59:1096) and of PMO (Gao et al. 2022), where
they have one: fingerprints are unfolded counts, Tanimoto similarity of counts.
"""

import math
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from rdkit import Chem, DataStructs
from rdkit.Chem import rdFingerprintGenerator
from rdkit.Chem.Pharm2D import Generate, Gobbi_Pharm2D

from molgen.chem.descriptors import PROPERTIES
from molgen.chem.filters import query_of
from molgen.chem.learned import active_probability
from molgen.chem.smiles import parse, quiet

_generate: Any = Generate
FORMULA = re.compile(r"([A-Z][a-z]?)(\d*)")


def measure(smiles: str, *, components: list[list[Any]]) -> list[float] | None:
    """The raw value of each component, (kind, arguments…), of a molecule; None if RDKit does not parse it.

    A value that cannot be computed is NaN, which JSON can carry.
    """
    molecule = parse(smiles)
    if molecule is None:
        return None
    with quiet():
        return [_measured(molecule, kind, arguments) for kind, *arguments in components]


def _measured(molecule: Any, kind: str, arguments: Sequence[Any]) -> float:
    try:
        return float(MEASURES[kind](molecule, *arguments))
    except (ValueError, RuntimeError):  # RDKit's errors for a molecule that a descriptor cannot take
        return math.nan


def property_value(molecule: Any, name: str) -> float:
    """A numerical column of sample tables."""
    return float(PROPERTIES[name].compute(molecule))


def similarity(molecule: Any, target: str, kind: str) -> float:
    """Tanimoto similarity to the target, by one of FINGERPRINTS."""
    return tanimoto(FINGERPRINTS[kind](molecule), _of_target(target, kind))


def tanimoto(one: Any, other: Any) -> float:
    """Tanimoto similarity of two fingerprints of one kind, bits or counts."""
    return float(DataStructs.TanimotoSimilarity(one, other))


def smarts(molecule: Any, pattern: str) -> float:
    """1 if the pattern matches, else 0."""
    return float(molecule.HasSubstructMatch(query_of(pattern)))


def element_count(molecule: Any, symbol: str) -> float:
    """Number of atoms of an element, hydrogens included."""
    return float(_counts(molecule).get(symbol, 0))


def isomer(molecule: Any, formula: str) -> float:
    """GuacaMol's isomer score: the geometric mean of Gaussians of each element's count (1) and of all atoms (2)."""
    found, wanted = _counts(molecule), counts_of(formula)
    values = [_gaussian(found.get(symbol, 0), count, 1.0) for symbol, count in wanted.items()]
    values.append(_gaussian(sum(found.values()), sum(wanted.values()), 2.0))
    return math.prod(values) ** (1 / len(values))


MEASURES: dict[str, Callable[..., float]] = {
    "property": property_value,
    "similarity": similarity,
    "smarts": smarts,
    "element": element_count,
    "isomer": isomer,
    "learned": active_probability,
}
"""Kind of component → its function of a molecule and the component's arguments."""


def _morgan(radius: int, features: bool = False) -> Callable[[Any], Any]:
    @lru_cache(maxsize=1)
    def generator() -> Any:
        invariants = rdFingerprintGenerator.GetMorganFeatureAtomInvGen() if features else None
        return rdFingerprintGenerator.GetMorganGenerator(radius=radius, atomInvariantsGenerator=invariants)

    return lambda molecule: generator().GetSparseCountFingerprint(molecule)


@lru_cache(maxsize=1)
def _pairs() -> Any:
    return rdFingerprintGenerator.GetAtomPairGenerator(maxDistance=10)


FINGERPRINTS: dict[str, Callable[[Any], Any]] = {
    "ecfp4": _morgan(2),
    "ecfp6": _morgan(3),
    "fcfp4": _morgan(2, features=True),
    "atom_pairs": lambda molecule: _pairs().GetSparseCountFingerprint(molecule),
    "pharmacophore": lambda molecule: _generate.Gen2DFingerprint(molecule, Gobbi_Pharm2D.factory),
}
"""Counts of circular environments (by atom or by feature), atom pairs up to 10 bonds; bits of Gobbi pharmacophores."""


def counts_of(formula: str) -> dict[str, int]:
    """Element → number of atoms of a formula such as C9H10N2O2PF2Cl."""
    return {symbol: int(count or 1) for symbol, count in FORMULA.findall(formula)}


def _counts(molecule: Any) -> dict[str, int]:
    counts: dict[str, int] = {}
    for atom in molecule.GetAtoms():
        counts[atom.GetSymbol()] = counts.get(atom.GetSymbol(), 0) + 1
        counts["H"] = counts.get("H", 0) + atom.GetTotalNumHs()
    return {symbol: count for symbol, count in counts.items() if count}


def _gaussian(x: float, mu: float, sigma: float) -> float:
    return math.exp(-0.5 * ((x - mu) / sigma) ** 2)


@lru_cache(maxsize=64)
def _of_target(target: str, kind: str) -> Any:
    return FINGERPRINTS[kind](Chem.MolFromSmiles(target))
