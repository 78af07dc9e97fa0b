"""Whether a molecule resembles one of a few given molecules, by ECFP4."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from rdkit.Chem import rdFingerprintGenerator
from rdkit.DataStructs import TanimotoSimilarity

from molgen.chem.smiles import parse, quiet
from molgen.chem.standardize import parent_of

VERSION = "2"
"""Increase it when the results of `resembles` change, because they are cached."""


def resembles(smiles: str, *, targets: list[list[Any]]) -> bool:
    """Whether the ECFP4 Tanimoto similarity to one of the `targets`, (SMILES, threshold), is at least its threshold.

    The similarity is the larger of that of unfolded counts and that of 2,048 bits, because both are in use, of the
    molecule as it is and of its parent: a charge changes the fingerprint. A string that RDKit does not parse resembles
    nothing.
    """
    molecule = parse(smiles)
    if molecule is None:
        return False
    parent = parent_of(molecule)
    forms = [molecule] if parent == smiles else [molecule, parse(parent)]
    own = [_fingerprints(form) for form in forms if form is not None]
    return any(
        TanimotoSimilarity(ours, theirs) >= threshold
        for others, threshold in _prepared(tuple(map(tuple, targets)))
        for form in own
        for ours, theirs in zip(form, others, strict=True)
    )


@lru_cache(maxsize=4)
def _prepared(targets: tuple[tuple[Any, ...], ...]) -> Sequence[tuple[Any, float]]:
    found = ((parse(smiles), float(threshold)) for smiles, threshold in targets)
    return [(_fingerprints(molecule), threshold) for molecule, threshold in found if molecule is not None]


def _fingerprints(molecule: Any) -> tuple[Any, Any]:
    with quiet():
        generator = _ecfp4()
        return generator.GetSparseCountFingerprint(molecule), generator.GetFingerprint(molecule)


@lru_cache(maxsize=1)
def _ecfp4() -> Any:
    return rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=2048)
