"""The parts of a molecule that metrics compare, against RDKit's own functions and hand-made cases."""

import re
from pathlib import Path

import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import QED, FilterCatalog

from molgen.chem.alerts import moses_filters
from molgen.chem.descriptors import describe, qed, ring_systems
from molgen.chem.smiles import add_carbon, canonical, parse
from molgen.data.readers import read_rows


@pytest.mark.parametrize(
    ("smiles", "cause"),
    [
        ("", "empty"),
        ("C(", "syntax"),
        ("CC1CC", "syntax"),
        ("c1cccc1", "kekulisation"),
        ("C(C)(C)(C)(C)C", "valence"),
        ("CС", "not ASCII"),  # the second letter is Cyrillic
    ],
)
def test_an_invalid_string_has_its_cause(smiles: str, cause: str) -> None:
    assert describe(smiles, ["canonical"]) == {"failure": cause}


def test_qed_is_that_of_rdkit(moses_mini: list[str]) -> None:
    odd = ["[H][H]", "[2H]C", "CC(=O)Oc1ccccc1C(=O)O", "[Na+].[Cl-]", "C[N+](C)(C)C", "O=[N+]([O-])c1ccccc1"]
    for molecule in map(Chem.MolFromSmiles, [*moses_mini[:200], *odd]):
        assert qed(molecule) == QED.qed(molecule)


def test_fragments_scaffold_and_flaws_of_a_molecule_counted_by_hand() -> None:
    # of ethyl naphthoate BRICS cuts the bonds ring-acyl, acyl-oxygen and oxygen-ethyl
    parts = describe(
        "O=C(OCC)c1ccc2ccccc2c1",
        ["fragments", "scaffold", "radicals_fragments_charge", "ring_systems", "smiles_no_stereo"],
    )
    assert sorted(parts["fragments"]) == ["[1*]C([6*])=O", "[16*]c1ccc2ccccc2c1", "[3*]O[3*]", "[4*]CC"]
    assert parts["scaffold"] == ["c1ccc2ccccc2c1", 2]
    assert parts["radicals_fragments_charge"] == [0, 1, 0]
    assert parts["ring_systems"] == ["c1ccc2ccccc2c1"]
    assert describe("CC[O-].[Na+].[CH3]", ["radicals_fragments_charge"])["radicals_fragments_charge"] == [1, 3, 0]
    assert describe("CC[O-]", ["radicals_fragments_charge"])["radicals_fragments_charge"] == [0, 1, -1]
    assert describe("F[C@H](Cl)Br", ["smiles_no_stereo"])["smiles_no_stereo"] == "FC(Cl)Br"


def test_ring_systems_are_fused_or_spiro_rings_with_their_double_bonds() -> None:
    assert ring_systems(Chem.MolFromSmiles("C1CC1CC1CC1")) == ["C1CC1"]
    assert ring_systems(Chem.MolFromSmiles("C1CC12CC2")) == ["C1CC12CC2"]
    assert ring_systems(Chem.MolFromSmiles("O=C1CCCC1")) == ["O=C1CCCC1"]
    assert ring_systems(Chem.MolFromSmiles("CCO")) == []


def test_alerts_are_those_that_rdkits_catalogue_finds_when_all_of_it_is_asked(
    tox21: Path, moses_mini: list[str]
) -> None:
    parameters = FilterCatalog.FilterCatalogParams()
    for name in ("PAINS_A", "PAINS_B", "PAINS_C", "BRENK", "NIH"):
        parameters.AddCatalog(getattr(parameters.FilterCatalogs, name))
    catalog = FilterCatalog.FilterCatalog(parameters)
    sets = {"Brenk": "BRENK", "NIH": "NIH"}
    seen = set()
    for smiles in [*(row.smiles for row in list(read_rows(str(tox21)))[::40]), *moses_mini[:100]]:
        molecule = parse(smiles)
        if molecule is not None:
            matches = [(m.GetProp("FilterSet"), m.GetDescription()) for m in catalog.GetMatches(molecule)]
            expected = {f"{sets.get(group, 'PAINS')}:{re.sub('[ ,;]+', '_', name.strip())}" for group, name in matches}
            assert set(describe(smiles, ["alerts"])["alerts"]) == expected
            seen |= expected
    assert len(seen) > 80


def test_alerts_of_quinone_come_by_name() -> None:
    assert describe("O=C1C=CC(=O)C=C1", ["alerts"])["alerts"] == [
        "BRENK:chinone_1",
        "NIH:bis_keto_olefin",
        "NIH:para_quinone",
        "PAINS:quinone_A(370)",
    ]


@pytest.mark.parametrize(
    ("smiles", "causes"),
    [
        ("CCOc1ccccc1", []),
        ("CC(=O)[O-]", ["charge"]),
        ("CCP", ["element"]),
        ("C1CCCCCCC1", ["ring"]),
        ("C1CCCCCC1", []),
        ("C=CC#N", ["MCF"]),
        ("C[N+](C)(C)CP", ["charge", "element"]),
        ("O=C1C=CC(=O)C=C1", ["PAINS"]),
    ],
)
def test_filters_reject_for_the_causes_of_moses_code(smiles: str, causes: list[str], moses_files) -> None:
    assert moses_filters(Chem.MolFromSmiles(smiles), str(moses_files)) == causes


def test_screening_by_fingerprint_never_hides_a_match(moses_mini: list[str], moses_files) -> None:
    import csv

    with (moses_files / "mcf.csv").open() as file:
        smarts = [row["smarts"] for row in csv.DictReader(file)]
    with (moses_files / "wehi_pains.csv").open() as file:
        smarts += [row[0] for row in csv.reader(file)]
    patterns = [Chem.MolFromSmarts(text) for text in smarts]
    odd = ["C=CC#N", "O=C1C=CC(=O)C=C1", "CN=NC", "c1ccc(N=Nc2ccccc2)cc1", "CC(=O)Cl", "O=C1CSC(=S)N1", "CCS"]
    rng = np.random.default_rng(0)
    changed = [s for i, m in enumerate(rng.choice(moses_mini, 60)) for s in add_carbon(str(m), i, 2)]
    for smiles in [*odd, *changed]:
        molecule = Chem.MolFromSmiles(smiles)
        with_hydrogens = Chem.AddHs(molecule)
        expected = any(with_hydrogens.HasSubstructMatch(pattern) for pattern in patterns)
        assert bool({"MCF", "PAINS"} & set(moses_filters(molecule, str(moses_files)))) == expected, smiles


def test_add_carbon_gives_other_valid_molecules_with_a_carbon_more() -> None:
    found = add_carbon("CCO", 0)
    assert set(found) == {"CCCO", "CCOC"}  # before or after C, before or after O
    assert all(canonical(s) == s for s in found)
    assert add_carbon("CCO", 0) == found


@pytest.mark.parametrize(
    ("smiles", "kinds"),
    [
        ("C[N+](C)(C)C", "C N quaternary N"),
        ("C[n+]1ccccc1", "C N quaternary N"),
        ("O=[N+]([O-])c1ccccc1", "C N O nitro"),
        ("[O-][n+]1ccccc1", "C N O N-oxide"),
        ("[O-][N+](C)(C)C", "C N O N-oxide"),
        ("C[NH3+]", "C N protonated N"),
        ("CC(=O)[O-]", "C O carboxylate"),
        ("[O-]c1ccccc1", "C O other anion"),
        ("CC[N+](C)(C)CC([O-])=O", "C N O quaternary N carboxylate"),
        ("CN=[N+]=[N-]", "C N"),  # an azide's charges are a way of drawing it
        ("C[C@H](O)F", "C F O stereocentres"),
        ("CC(O)F", "C F O"),
        ("C/C=C/C", "C stereo double bonds"),
        ("NCC(=O)NCC(=O)NCC(=O)O", "C N O peptide of three"),
        ("NCC(=O)NCC(=O)O", "C N O"),
        ("C1CCCCCCCCCCC1", "C macrocycle"),
        ("C1CCCCCCCCCC1", "C"),
        ("C" * 51, "C over 50 heavy atoms"),
    ],
)
def test_a_molecule_is_of_the_kinds_that_a_card_counts(smiles: str, kinds: str) -> None:
    assert " ".join(describe(smiles, ["kinds"])["kinds"]) == kinds
