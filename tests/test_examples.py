"""The examples of scorers, where their packages are installed: docking with Vina, similarity of shape."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from conftest import Cli
from rdkit import Chem
from rdkit.Chem import AllChem

EXAMPLES = Path(__file__).parents[1] / "examples"
ASPIRIN = "CC(=O)Oc1ccccc1C(=O)O"


def module(name: str) -> ModuleType:
    specification = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert specification and specification.loader
    loaded = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(loaded)
    return loaded


@pytest.fixture
def shape_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    molecule = Chem.AddHs(Chem.MolFromSmiles(ASPIRIN))
    assert AllChem.EmbedMolecule(molecule, randomSeed=1) == 0
    path = tmp_path / "ligand.sdf"
    Chem.MolToMolFile(Chem.RemoveHs(molecule), str(path))
    monkeypatch.setenv("MOLGEN_SHAPE", str(path))
    return path


@pytest.mark.usefixtures("shape_reference")
@pytest.mark.parametrize("function", ["usrcat", "aligned"])
def test_a_molecule_has_the_shape_of_itself_more_than_another(function: str) -> None:
    itself, relative, other = getattr(module("shape"), function)([ASPIRIN, "CC(=O)Oc1ccccc1C(N)=O", "CCCCCCCCCC"])
    assert 0.6 < itself <= 1
    assert itself > other
    assert relative > other


@pytest.mark.usefixtures("shape_reference")
def test_a_search_by_shape_runs(cli: Cli) -> None:
    scorer = f"{EXAMPLES / 'shape.py'}:usrcat"
    done = cli("optimize", "moses-small", "--objective", scorer, "-n", 20, "--out", "r", "--maximise", "0..1")
    assert done.code == 0, done.err


def receptor(path: Path) -> None:
    """A pocket of a few amino acids in PDBQT: a made-up receptor with real chemistry."""
    molecule = Chem.AddHs(Chem.MolFromSequence("GAVLKFDSE"))
    assert AllChem.EmbedMolecule(molecule, randomSeed=7) == 0
    types = {"C": "C", "N": "N", "O": "OA", "H": "HD"}
    lines = []
    for i, atom in enumerate(molecule.GetAtoms(), 1):
        polar = atom.GetSymbol() != "H" or atom.GetNeighbors()[0].GetSymbol() in "NO"
        if polar:
            kind = "A" if atom.GetIsAromatic() else types[atom.GetSymbol()]
            at = molecule.GetConformer().GetAtomPosition(atom.GetIdx())
            lines.append(
                f"ATOM  {i:5d} {atom.GetSymbol():<4} ALA A   1    {at.x:8.3f}{at.y:8.3f}{at.z:8.3f}  1.00  0.00    "
                f"{0.0:6.3f} {kind:<2}"
            )
    path.write_text("\n".join(lines) + "\nTER\n")


@pytest.mark.slow
def test_docking_gives_energies_in_the_order_of_the_molecules(tmp_path: Path) -> None:
    pytest.importorskip("vina")
    pytest.importorskip("meeko")
    receptor(tmp_path / "receptor.pdbqt")
    command = [
        sys.executable, str(EXAMPLES / "dock.py"), str(tmp_path / "receptor.pdbqt"), "--center", "0", "0", "0",
        "--exhaustiveness", "1",
    ]  # fmt: skip

    def dock(*smiles: str) -> list[float]:
        text = "".join(f"{one}\n" for one in smiles)
        done = subprocess.run(command, input=text, capture_output=True, text=True, env=os.environ, check=False)
        assert done.returncode == 0, done.stderr
        return [float(line) for line in done.stdout.splitlines()]

    methane, aspirin = dock("C", ASPIRIN)
    assert aspirin < methane < 0.5  # more atoms find more contacts
    assert dock(ASPIRIN, "C") == [aspirin, methane]
