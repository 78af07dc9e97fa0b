"""Similarity of shape to a reference in 3D: functions from a list of SMILES to a list of numbers in [0, 1].

    MOLGEN_SHAPE=ligand.sdf molgen optimize druglike --objective examples/shape.py:usrcat -n 5000
    MOLGEN_SHAPE=ligand.sdf molgen optimize druglike --objective examples/shape.py:aligned -n 2000 --jobs 2

The reference is the first molecule of an SD file with 3D coordinates, such as a ligand from a crystal structure.
USRCAT (Schreyer and Blundell 2012) compares distances and takes a millisecond per conformer; `aligned` lays molecules
over each other (Open3DAlign, Tosco et al. 2011) and takes the overlap of their volumes, which is better and slower.
"""

import math
import os
from collections.abc import Callable
from functools import lru_cache

from rdkit import Chem
from rdkit.Chem import AllChem, rdMolAlign, rdMolDescriptors, rdShapeHelpers

CONFORMERS = 10


@lru_cache(maxsize=1)
def reference() -> Chem.Mol:
    """The reference molecule with its hydrogens."""
    molecule = Chem.MolFromMolFile(os.environ["MOLGEN_SHAPE"])
    return Chem.AddHs(molecule, addCoords=True)


def conformers(smiles: str) -> Chem.Mol | None:
    """A molecule with some conformers; None if none was found."""
    molecule = Chem.AddHs(Chem.MolFromSmiles(smiles))
    parameters = AllChem.ETKDGv3()
    parameters.randomSeed = 0
    return molecule if AllChem.EmbedMultipleConfs(molecule, CONFORMERS, parameters) else None


def usrcat(smiles: list[str]) -> list[float]:
    """The best USRCAT similarity of any conformer; NaN, a failure, if there is none."""
    wanted = rdMolDescriptors.GetUSRCAT(reference())
    return [
        max(map(_usrcat(wanted, molecule), _ids(molecule)), default=math.nan) for molecule in map(conformers, smiles)
    ]


def aligned(smiles: list[str]) -> list[float]:
    """The best shape Tanimoto similarity of any conformer, laid over the reference; NaN if there is none."""
    return [max(map(_overlap(molecule), _ids(molecule)), default=math.nan) for molecule in map(conformers, smiles)]


def _ids(molecule: Chem.Mol | None) -> list[int]:
    return [] if molecule is None else [conformer.GetId() for conformer in molecule.GetConformers()]


def _usrcat(wanted: list[float], molecule: Chem.Mol) -> Callable[[int], float]:
    def score(conformer: int) -> float:
        return rdMolDescriptors.GetUSRScore(wanted, rdMolDescriptors.GetUSRCAT(molecule, confId=conformer))

    return score


def _overlap(molecule: Chem.Mol) -> Callable[[int], float]:
    def score(conformer: int) -> float:
        rdMolAlign.GetO3A(molecule, reference(), prbCid=conformer).Align()
        return 1 - rdShapeHelpers.ShapeTanimotoDist(molecule, reference(), confId1=conformer)

    return score
