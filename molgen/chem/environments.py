"""Which counts of an ECFP4 each atom takes part in: what would be missing without the atom."""

from typing import Any

from rdkit import Chem
from rdkit.Chem import rdFingerprintGenerator

from molgen.chem.descriptors import morgan
from molgen.chem.smiles import parse, quiet

_BITS = 2_048


def atoms_in_fingerprint(smiles: str) -> list[list[list[int]]] | None:
    """For each atom of a molecule, [bit, environments of this bit with the atom] of its ECFP4 of 2,048 counts.

    The atoms are in the order of the string. None if it is invalid. Riniker and Landrum 2013 (J. Cheminform. 5:43) use
    this for similarity maps.
    """
    molecule = parse(smiles)
    if molecule is None:
        return None
    with quiet():
        output: Any = rdFingerprintGenerator.AdditionalOutput()
        output.AllocateBitInfoMap()
        morgan(_BITS).GetCountFingerprint(molecule, additionalOutput=output)
        found: list[dict[int, int]] = [{} for _ in range(molecule.GetNumAtoms())]
        for bit, environments in output.GetBitInfoMap().items():
            for centre, radius in environments:
                for atom in _atoms(molecule, centre, radius):
                    found[atom][bit] = found[atom].get(bit, 0) + 1
    return [[list(pair) for pair in sorted(own.items())] for own in found]


def _atoms(molecule: Any, centre: int, radius: int) -> set[int]:
    atoms = {centre}
    if radius:
        for index in Chem.FindAtomEnvironmentOfRadiusN(molecule, radius, centre):
            bond = molecule.GetBondWithIdx(index)
            atoms |= {bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()}
    return atoms
