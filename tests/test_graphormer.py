"""The Graphormer of the studies: what it sees of a molecule, and that it learns."""

import numpy as np
import pytest
import torch
from rdkit import Chem

from graphormer import Graphormer, batched, fitted, graph_of

MOLECULES = ["C[C@H](N)C(=O)O", "c1ccc2[nH]ccc2c1", "C/C=C/Cl", "O=S(=O)(c1ccccc1)N1CCOCC1", "[NH3+]CC#N"]


@pytest.fixture
def model() -> Graphormer:
    torch.manual_seed(0)
    model = Graphormer(width=16, heads=2, blocks=2).eval()
    with torch.no_grad():  # the tables begin near 0: make what they say audible
        for table in (model.atoms, model.degrees, model.by_length, model.by_bond):
            table.weight.normal_()
        model.by_place.normal_()
    return model


def test_lengths_and_bonds_are_those_of_the_shortest_paths() -> None:
    graph = graph_of("C=CC#N")
    assert graph.lengths.tolist() == [[0, 1, 2, 3], [1, 0, 1, 2], [2, 1, 0, 1], [3, 2, 1, 0]]
    double, single, triple = (graph.bonds[i, i + 1, 0] for i in range(3))
    assert len({double, single, triple}) == 3
    assert graph.bonds[0, 3].tolist() == [double, single, triple, 0, 0]
    assert graph.bonds[3, 0].tolist() == [triple, single, double, 0, 0]
    distances = Chem.GetDistanceMatrix(Chem.MolFromSmiles(MOLECULES[3]))
    assert np.array_equal(graph_of(MOLECULES[3]).lengths, distances)


def test_the_order_of_the_atoms_and_the_molecules_beside_it_change_nothing(model: Graphormer) -> None:
    together = model(batched([graph_of(smiles) for smiles in MOLECULES])).tolist()
    for smiles, said in zip(MOLECULES, together, strict=True):
        molecule = Chem.MolFromSmiles(smiles)
        for seed in range(3):
            order = np.random.default_rng(seed).permutation(molecule.GetNumAtoms()).tolist()
            other = Chem.MolToSmiles(Chem.RenumberAtoms(molecule, order), canonical=False)
            assert model(batched([graph_of(other)])).tolist() == pytest.approx([said], abs=1e-4)


def test_it_tells_isomers_apart(model: Graphormer) -> None:
    for one, other in (
        ("C[C@H](N)C(=O)O", "C[C@@H](N)C(=O)O"),
        ("C/C=C/Cl", "C/C=C\\Cl"),
        ("CCCCCO", "CCCC(C)O"),
        ("c1ccccc1C1CCCCC1", "C1CCCCC1c1ccccc1C"),
    ):
        first, second = model(batched([graph_of(one), graph_of(other)])).tolist()
        assert abs(first - second) > 1e-5  # rounding is a hundredth of it


def test_it_learns_what_a_molecule_has() -> None:
    smiles = [f"{'C' * n}{end}" for n in range(1, 9) for end in ("N", "O", "F", "Cl")]
    values = np.array([2.0 * ("N" in one) + 0.1 * one.count("C") for one in smiles])
    validation = np.arange(len(smiles)) % 6 == 0
    said = fitted(smiles, values, validation, seed=0, epochs=25)(smiles)
    assert np.sqrt(np.mean((said - values)[validation] ** 2)) < 0.5 * values.std()
