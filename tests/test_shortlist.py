"""The shortlist: diverse picks, the Pareto front, what changed against a hit, what can be bought, the page."""

import csv
from pathlib import Path

import pytest
from conftest import Cli
from rdkit import Chem

from molgen.chem.analogs import versus
from molgen.chem.descriptors import undefined_stereo
from molgen.chem.pool import Workers
from molgen.chem.smiles import parse
from molgen.optimize.ledger import Record
from molgen.optimize.page import write_page
from molgen.optimize.shortlist import Shortlist, known_molecules, read_catalog, shortlist, write_sdf, write_table


def record(call: int, smiles: str, *scores: float) -> Record:
    return Record(call, 0, smiles, smiles, sum(scores) / len(scores), "agent", "", scores, scores)


def picked(found: Shortlist) -> list[str]:
    return [pick.record.canonical for pick in found.picks]


def test_picks_are_the_best_of_which_no_two_are_alike(pool: Workers) -> None:
    records = [
        record(1, "CCCCCCCCCCO", 0.5),
        record(2, "CCCCCCCCCCCO", 0.9),  # a homologue of the first
        record(3, "c1ccc2[nH]ccc2c1", 0.7),
        record(4, "O=C(O)c1ccccc1", float("nan")),
        record(5, "NS(=O)(=O)c1ccccc1", 0.6),
    ]
    found = shortlist(records, ["a"], 3, pool)
    assert picked(found) == ["CCCCCCCCCCCO", "c1ccc2[nH]ccc2c1", "NS(=O)(=O)c1ccccc1"]
    assert [pick.rank for pick in found.picks] == [1, 2, 3]
    assert shortlist(records, ["a"], 9, pool).notes[0].startswith("3 picks, not 9")


def test_tautomers_stereoisomers_and_salts_are_one_molecule(pool: Workers) -> None:
    records = [
        record(1, "C[C@H](N)C(=O)O", 0.8),
        record(2, "C[C@@H](N)C(=O)O", 0.9),
        record(3, "C[C@H]([NH3+])C(=O)[O-]", 0.7),
        record(4, "O=c1cccc[nH]1", 0.6),
        record(5, "Oc1ccccn1", 0.5),
    ]
    assert picked(shortlist(records, ["a"], 5, pool)) == ["C[C@@H](N)C(=O)O", "O=c1cccc[nH]1"]


def test_the_pareto_front_has_what_nothing_beats(pool: Workers) -> None:
    records = [
        record(1, "CCO", 0.9, 0.1),
        record(2, "CCN", 0.5, 0.5),
        record(3, "CCS", 0.4, 0.5),  # the one before is as good by one and better by the other
        record(4, "CCF", 0.1, 0.9),
        record(5, "CCCl", 0.1, 0.8),
    ]
    found = shortlist(records, ["a", "b"], 5, pool)
    assert {r.canonical for r in found.front} == {"CCO", "CCN", "CCF"}
    assert {pick.record.canonical for pick in found.picks if pick.pareto} == {"CCO", "CCN", "CCF"}
    assert shortlist([record(1, "CCO", 0.9)], ["a"], 5, pool).front == []


def test_a_molecule_is_compared_with_the_hit() -> None:
    found = versus("COc1ccc(CC(=O)N(C)C)cc1", "Clc1ccc(CC(=O)N(C)C)cc1")
    assert found is not None
    assert found["lost"] == "*Cl"
    assert found["gained"] == "*OC"
    assert found["shared"] == pytest.approx(12 / 13)
    assert "R1=*OC" in found["r_groups"] or "R2=*OC" in found["r_groups"]
    same = versus("CCO", "OCC")
    assert same is not None
    assert (same["similarity"], same["shared"], same["lost"], same["gained"]) == (1.0, 1.0, "", "")
    assert versus("C(", "CCO") is None


def test_undefined_centres_and_double_bonds_are_counted() -> None:
    assert undefined_stereo(parse("CC(F)Cl")) == 1
    assert undefined_stereo(parse("C[C@H](F)Cl")) == 0
    assert undefined_stereo(parse("FC=CC(F)Cl")) == 2
    assert undefined_stereo(parse("CCO")) == 0


def test_the_catalogue_is_matched_by_parent_and_gives_the_nearest_known(pool: Workers, tmp_path: Path) -> None:
    (tmp_path / "vendor.smi").write_text("CCN.Cl A-1\nOc1ccccc1 B-2\nC( broken\n")
    names, smiles = read_catalog(str(tmp_path / "vendor.smi"), pool)
    known = known_molecules(smiles, pool)
    records = [record(1, "CCN", 0.9), record(2, "Cc1ccccc1O", 0.8)]
    found = shortlist(records, ["a"], 2, pool, known, None, names)
    assert [pick.catalog for pick in found.picks] == ["A-1", ""]
    assert found.picks[1].nearest == "Oc1ccccc1"
    assert 0 < found.picks[1].nearest_similarity < 1
    assert shortlist(records, ["a"], 2, pool).picks[0].nearest == ""


def test_a_ring_system_that_hardly_any_molecule_has_is_named(pool: Workers) -> None:
    records = [record(1, "c1ccc2[nH]ccc2c1", 0.9), record(2, "C1NN2SC2N1", 0.8)]
    first, second = shortlist(records, ["a"], 2, pool).picks
    assert first.rare_rings == []
    assert second.rare_rings == ["C1NC2SN2N1"]


def test_the_tables_and_the_page_hold_the_picks(pool: Workers, tmp_path: Path) -> None:
    records = [record(1, "COc1ccc(CC(=O)N(C)C)cc1", 0.9, 0.2), record(2, "c1ccc2[nH]ccc2c1", 0.3, 0.7)]
    hit = "Clc1ccc(CC(=O)N(C)C)cc1"
    found = shortlist(records, ["fit", "<b>"], 2, pool, None, hit)
    write_table(found, tmp_path / "s.csv")
    with (tmp_path / "s.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["rank"], row["smiles"], row["total"]) for row in rows] == [
        ("1", "COc1ccc(CC(=O)N(C)C)cc1", "0.55"),
        ("2", "c1ccc2[nH]ccc2c1", "0.5"),
    ]
    assert rows[0]["hit_gained"] == "*OC"
    assert rows[0]["fit_raw"] == "0.9"
    assert rows[0]["mw"] == "193.2"
    write_sdf(found, tmp_path / "s.sdf")
    read = list(Chem.SDMolSupplier(str(tmp_path / "s.sdf")))
    assert [Chem.MolToSmiles(molecule) for molecule in read] == [row["smiles"] for row in rows]
    assert read[0].GetProp("hit_gained") == "*OC"
    figures = {"objective": "x", "best": 0.55, "top10": 0.5, "top100": 0.5, "calls": 2, "failed": 0}
    write_page(found, "a <script>", figures, hit, tmp_path / "no.png", tmp_path / "s.html")
    page = (tmp_path / "s.html").read_text()
    assert "<script>" not in page
    assert "&lt;b&gt;" in page
    assert page.count('class="mol"') == 3  # two picks and the hit
    assert "Pareto front" in page


@pytest.mark.slow
def test_a_search_writes_its_shortlist(cli: Cli) -> None:
    Path("vendor.csv").write_text("smiles,name\nCc1ccccc1,toluene\nCCO,ethanol\n")
    done = cli(
        "optimize", "moses-small", "--objective", "pmo/osimertinib_mpo", "-n", 60, "--out", "r", "--picks", 5,
        "--hit", "c1ccccc1CCN", "--catalog", "vendor.csv",
    )  # fmt: skip
    assert done.code == 0, done.err
    with Path("r/shortlist.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 5
    assert all(row["nearest_known"] and row["hit_similarity"] for row in rows)
    assert len(list(Chem.SDMolSupplier("r/shortlist.sdf"))) == 5
    assert Path("r/shortlist.html").read_text().count('class="mol"') == 6
    for given, message in ((("--hit", "C("), "--hit"), (("--catalog", "absent.smi"), "no such file")):
        done = cli("optimize", "moses-small", "--objective", "pmo/qed", "--out", "x", *given)
        assert done.code == 2
        assert message in done.err
    assert not Path("x").exists()
