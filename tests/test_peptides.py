"""The dataset `peptides`: molecules that RDKit makes of the same sequence, and the structure that is promised."""

import csv
import gzip
import io
import json
from pathlib import Path

import numpy as np
import pytest
from rdkit import Chem

from molgen.data import peptides
from molgen.data.peptides import Plan, drawn, table, written
from molgen.tokenizer import TokenPattern


def of_rdkit(plan: Plan) -> str:
    """RDKit's canonical SMILES of the molecule that RDKit makes of the sequence, with the plan's bonds added."""
    molecule = Chem.RWMol(Chem.MolFromSequence(plan.sequence))
    atoms = {}
    for atom in molecule.GetAtoms():
        info = atom.GetPDBResidueInfo()
        atoms[info.GetResidueNumber() - 1, info.GetName().strip()] = atom.GetIdx()
    for a, b in plan.disulfides:
        molecule.AddBond(atoms[a, "SG"], atoms[b, "SG"], Chem.BondType.SINGLE)
    if plan.ring:
        last = len(plan.sequence) - 1
        molecule.AddBond(atoms[last, "C"], atoms[0, "N"], Chem.BondType.SINGLE)
        molecule.RemoveAtom(atoms[last, "OXT"])
    Chem.SanitizeMol(molecule)
    return Chem.MolToSmiles(molecule)


@pytest.mark.parametrize(
    "plan",
    [
        Plan("ACDEFGHIKLMNPQRSTVWY", (), (), False),
        Plan("PACDEFGHIKLMNPQRSTVWYC", ((2, 21),), (), True),
        Plan("CWACGGYCKKHCPVC", ((0, 14), (3, 7)), (), False),
        *(drawn(np.random.default_rng([7, i])) for i in range(12)),
    ],
)
def test_a_peptide_is_the_molecule_that_rdkit_makes_of_its_sequence(plan: Plan) -> None:
    assert Chem.MolToSmiles(Chem.MolFromSmiles(written(plan))) == of_rdkit(plan)


def test_the_table_is_the_same_each_time_and_holds_what_it_says(pattern: str) -> None:
    sizes = {"train": 60, "test": 5}
    content = table(sizes)
    assert content == table(sizes)
    rows = list(csv.DictReader(io.StringIO(gzip.decompress(content).decode())))
    assert [row["split"] for row in rows] == ["train"] * 60 + ["test"] * 5
    split = TokenPattern(pattern).split
    far = []
    for row in rows:
        sequence = row["sequence"]
        assert 10 <= len(sequence) <= 300
        for first, second, length in json.loads(row["copies"]):
            # residues that a disulfide turned into cysteines differ
            pairs = zip(sequence[first : first + length], sequence[second : second + length], strict=True)
            assert all(a == b or "C" in (a, b) for a, b in pairs)
            before = Plan(sequence[first:second], (), (), False)
            far.append(len(split(written(before)) or []))
        assert all(sequence[a] == sequence[b] == "C" for a, b in json.loads(row["disulfides"]))
    assert len(far) > 60 and np.quantile(far, 0.05) > 150 and np.quantile(far, 0.95) < 950
    assert any(row["ring"] == "1" for row in rows)


def test_the_dataset_is_made_where_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from molgen.data.download import fetch, is_here

    monkeypatch.setenv("MOLGEN_DATA", str(tmp_path / "new"))
    monkeypatch.setattr(peptides, "table", lambda: gzip.compress(b"smiles\nCCO\n"))
    assert not is_here("peptides")
    assert gzip.decompress(fetch("peptides")[0].read_bytes()) == b"smiles\nCCO\n"
    assert is_here("peptides")
