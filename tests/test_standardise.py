"""Salts, stereo groups, queries and groups of a split, as `molgen data clean` and a training see them."""

import csv
import gzip
from pathlib import Path

import pytest
from conftest import SHARED, Cli
from rdkit import Chem

DRUGS = {
    # drug (canonical SMILES by RDKit) <- record
    "meglumine": ("O=C(O)c1ccc2nc(-c3cc(Cl)cc(Cl)c3)oc2c1", "CNC[C@H](O)[C@@H](O)[C@H](O)[C@H](O)CO"),
    "tromethamine": ("CCOC(=O)C(C)Cl", "NC(CO)(CO)CO"),
    "pamoate": ("CN1CCCN=C1/C=C/c1cccs1", "O=C(O)c1cc2ccccc2c(Cc2c(O)c(C(=O)O)cc3ccccc23)c1O"),
    "tartrate": ("CCNCC", None),
    "dodecyl sulfate": ("CNCCc1ccccn1", "CCCCCCCCCCCCOS(=O)(=O)O"),
    "stearate and sodium": ("CC(C)Cc1ccc(C)cc1", "CCCCCCCCCCCCCCCCCC(=O)[O-].[Na+]"),
    "choline": ("O=c1[nH]cnc2[nH]cnc12", "C[N+](C)(C)CCO.[Cl-]"),
    "charged besylate": ("CC(N)Cc1ccccc1", "O=S(=O)([O-])c1ccccc1"),
    "waters": ("Cc1ccncc1", "O.O.O.Cl"),
    "bistriflimide": ("CCC[n+]1ccn(C)c1C", "O=S(=O)([N-]S(=O)(=O)C(F)(F)F)C(F)(F)F"),
    "carbonate": ("N=C(N)N", "OC(=O)O"),
    "tetrabutylammonium": ("O=C(O)C1CCNCC1", "CCCC[N+](CCCC)(CCCC)CCCC.[Br-]"),
}


def cleaned(cli: Cli, lines: list[str], *options: str) -> tuple[list[str], dict[str, str]]:
    """(the molecules that stay, SMILES as given -> reason of what was dropped or altered)."""
    Path("in.smi").write_text("".join(f"{line}\n" for line in lines))
    done = cli("data", "clean", "in.smi", "-o", "out.smi", "--force", *options)
    assert done.code == 0, done.err
    with gzip.open("out.dropped.csv.gz", "rt", newline="") as file:
        reasons = {row["smiles"]: row["reason"] for row in csv.DictReader(file)}
    return Path("out.smi").read_text().split(), reasons


def test_the_drug_stays_and_its_counterions_go_whatever_their_size_and_charge(cli: Cli) -> None:
    known = {name: pair for name, pair in DRUGS.items() if pair[1]}
    stays, _ = cleaned(cli, [f"{ion}.{drug}" for drug, ion in known.values()])
    assert stays == [Chem.CanonSmiles(drug) for drug, _ in known.values()]


def test_where_all_fragments_are_counterions_the_largest_organic_one_stays(cli: Cli) -> None:
    stays, reasons = cleaned(cli, ["[Na+].[O-]C(=O)c1ccccc1O", "CC(=O)O.O.O"])
    assert stays == ["O=C(O)c1ccccc1O", "CC(=O)O"]
    assert reasons["CC(=O)O.O.O"] == "smaller fragments cut"


def test_of_two_drugs_the_one_with_most_heavy_atoms_stays(cli: Cli) -> None:
    # 17 heavy atoms against 14, though hydrogens would decide otherwise
    stays, _ = cleaned(cli, ["CCCCCCCCCCCCCC.Clc1ccc(cc1)C(=O)c1ccc(Cl)cc1"])
    assert stays == ["O=C(c1ccc(Cl)cc1)c1ccc(Cl)cc1"]


def test_the_case_file_of_salts_gives_the_drug_of_each(cli: Cli) -> None:
    if not (SHARED / "cases" / "salts.smi").exists():
        pytest.skip("needs ../shared/cases")
    done = cli("data", "clean", SHARED / "cases" / "salts.smi", "-o", "out.smi")
    assert done.code == 0, done.err
    first, second, third = (line.split()[0] for line in Path("out.smi").read_text().splitlines()[:3])
    assert first == "O=C(O)c1ccc2nc(-c3cc(Cl)cc(Cl)c3)oc2c1"
    assert second == "C[C@@H]1O[C@@H]1P(=O)(O)O"
    assert third == Chem.CanonSmiles("CN1CCCN=C1/C=C/c1cccs1")


def test_a_racemate_becomes_undefined_and_is_counted_and_as_drawn_is_a_choice(cli: Cli) -> None:
    lines = ["C[C@H](N)C(=O)O |&1:1|", "C[C@@H](O)[C@H](F)Cl |o1:1,a:3|", "CC[C@H](C)N |a:2|", "CCO |$a;b;c$|"]
    stays, reasons = cleaned(cli, lines)
    assert stays == [Chem.CanonSmiles(s) for s in ("CC(N)C(=O)O", "CC(O)[C@H](F)Cl", "CC[C@H](C)N", "CCO")]
    undefined = "racemic or relative stereo made undefined"
    assert [reasons[line] for line in lines[:2]] == [undefined, undefined]
    assert reasons[lines[3]] == "CXSMILES extension cut"
    stays, reasons = cleaned(cli, lines[:1], "--set", "data.stereo_groups=as_drawn")
    assert stays == [Chem.CanonSmiles("C[C@H](N)C(=O)O")]
    assert reasons == {lines[0]: "enhanced stereo flattened"}


def test_atoms_of_a_stereo_group_are_counted_as_they_are_written_hydrogens_too(cli: Cli) -> None:
    stays, _ = cleaned(cli, ["[H]C([H])([H])[C@]([H])(N)C(=O)O |&1:4|"])
    assert stays == ["CC(N)C(=O)O"]


def test_a_stereo_group_of_an_atom_that_is_not_there_drops_the_molecule_by_name(cli: Cli) -> None:
    stays, reasons = cleaned(cli, ["C[C@H](N)O |&1:17|", "CCO", "CCN"])
    assert stays == ["CCO", "CCN"]
    assert reasons["C[C@H](N)O |&1:17|"] == "stereo group of an atom that is not there"


def test_a_string_is_canonicalised_before_its_tokens_are_looked_at(cli: Cli) -> None:
    stays, reasons = cleaned(cli, ["C%(100)CCCCC%(100)", "CCО", "CC C~C", "CCN", "CCO"])  # the second O is Cyrillic
    assert stays[0] == "C1CCCCC1"
    assert reasons["CCО"] == "not losslessly tokenisable"


@pytest.mark.parametrize(
    ("smiles", "reason"),
    [
        ("C1CC", "not parsed by RDKit: syntax"),
        ("C[Xx]C", "not parsed by RDKit: unknown element"),
        ("CN(C)(C)(C)C", "not parsed by RDKit: valence"),
        ("c1cccc1", "not parsed by RDKit: kekulisation"),
        ("CC~CO", "query bond"),
        ("CC*", "wildcard atom"),
    ],
)
def test_each_reason_says_why_a_string_is_no_molecule(cli: Cli, smiles: str, reason: str) -> None:
    _, reasons = cleaned(cli, [smiles, "CCO", "CCN"])
    assert reasons[smiles] == reason


def test_records_with_query_bonds_and_impossible_valences_are_dropped_by_their_name(cli: Cli) -> None:
    if not (SHARED / "cases" / "arom5.sdf").exists():
        pytest.skip("needs ../shared/cases")
    done = cli("data", "clean", SHARED / "cases" / "arom5.sdf", "-o", "five.smi")
    assert (done.code, "query bond" in done.err) == (2, True), done.err
    assert cli("data", "clean", SHARED / "cases" / "arom4.sdf", "-o", "four.smi").code == 0
    done = cli("data", "clean", SHARED / "cases" / "valence.sdf", "-o", "v.smi")
    assert "not parsed by RDKit: valence" in done.err
    assert "empty" not in done.err


FAMILIES = {
    "alanine": [
        *("C[C@H](N)C(=O)O", "C[C@@H](N)C(=O)O", "CC(N)C(=O)O", "C[C@H](N)C(=O)O.Cl", "CC(N)C(=O)[O-].[Na+]"),
        *("[2H]C([2H])([2H])C(N)C(=O)O", "CC(N)[13C](=O)O", "CC([NH3+])C(=O)[O-]"),
    ],
    "pyridone": ["O=c1cccc[nH]1", "Oc1ccccn1", "Oc1ccccn1.Cl", "[2H]c1cccc(=O)[nH]1"],
    "xanthine": ["O=c1[nH]c(=O)c2[nH]cnc2[nH]1", "O=c1[nH]c(=O)c2nc[nH]c2[nH]1", "Oc1nc(O)c2[nH]cnc2n1"],
}


def test_stereoisomers_salts_isotopologues_and_tautomers_stay_on_one_side(cli: Cli, moses_mini: list[str]) -> None:
    family = [smiles for group in FAMILIES.values() for smiles in group]
    Path("in.smi").write_text("\n".join([*moses_mini[:60], *family]) + "\n")
    settings = ["data.isotopes=keep", "data.fragments=keep", "data.charges=keep", "data.min_token_count=1"]
    settings += [
        "data.train_size=40",
        "data.validation_size=18",
        "data.vocabulary=all",
        "training.epochs=1",
        "data.elements=null",
    ]
    settings += ["model.width=8", "model.blocks=1", "model.heads=1", "model.head_width=8", "model.feedforward=8"]
    settings += ["training.randomized=0.0", "training.randomized_end=0.0"]
    done = cli("train", "in.smi", "--out", "run", *[part for setting in settings for part in ("--set", setting)])
    assert done.code == 0, done.err
    with gzip.open("run/molecules.csv.gz", "rt", newline="") as file:
        split = {row["smiles"]: row["split"] for row in csv.DictReader(file)}
    for name, group in FAMILIES.items():
        assert len({split[Chem.CanonSmiles(smiles)] for smiles in group}) == 1, name
