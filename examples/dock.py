"""Docks molecules with AutoDock Vina: SMILES on stdin, one per line; the best score, in kcal/mol, on stdout.

    molgen optimize druglike --minimise -11..-6 --jobs 2 -n 1000 \
        --command "python examples/dock.py receptor.pdbqt --center 12.1 4.0 -7.5 --size 22 22 22"

pip install vina meeko gemmi scipy. The receptor is prepared before, for instance by meeko's mk_prepare_receptor.py.
A molecule for which no 3D structure is found gets the line `no conformer`, which molgen takes for a failure.
"""

import argparse
import sys

from meeko import MoleculePreparation, PDBQTWriterLegacy
from rdkit import Chem, RDLogger
from rdkit.Chem import AllChem
from vina import Vina


def ligand(smiles: str) -> str | None:
    """The PDBQT text of one conformer; None if there is none."""
    molecule = Chem.AddHs(Chem.MolFromSmiles(smiles))
    if AllChem.EmbedMolecule(molecule, randomSeed=0) < 0:
        return None
    AllChem.MMFFOptimizeMolecule(molecule, maxIters=1000)
    setups = MoleculePreparation().prepare(molecule)
    text, works, _ = PDBQTWriterLegacy.write_string(setups[0])
    return text if works else None


def main() -> None:
    """Docks each molecule of stdin."""
    parser = argparse.ArgumentParser()
    parser.add_argument("receptor")
    parser.add_argument("--center", nargs=3, type=float, required=True)
    parser.add_argument("--size", nargs=3, type=float, default=[20.0, 20.0, 20.0])
    parser.add_argument("--exhaustiveness", type=int, default=8)
    given = parser.parse_args()
    RDLogger.DisableLog("rdApp.*")
    vina = Vina(sf_name="vina", cpu=1, seed=1, verbosity=0)
    vina.set_receptor(given.receptor)
    vina.compute_vina_maps(center=given.center, box_size=given.size)
    for line in sys.stdin:
        text = ligand(line.strip())
        if text is None:
            print("no conformer", flush=True)
            continue
        vina.set_ligand_from_string(text)
        vina.dock(exhaustiveness=given.exhaustiveness, n_poses=1)
        print(f"{vina.energies(n_poses=1)[0][0]:.3f}", flush=True)


if __name__ == "__main__":
    main()
