import csv
import hashlib
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import Cli
from rdkit import Chem, DataStructs
from rdkit.Chem import QED, Descriptors, rdFingerprintGenerator
from rdkit.SimDivFilters import rdSimDivPickers

from molgen.chem.descriptors import PROPERTIES, tabulate
from molgen.chem.filters import MoleculeFilter, screen
from molgen.errors import MolgenError
from molgen.generation.decode import SamplingParams
from molgen.generation.generator import MoleculeGenerator
from molgen.generation.options import SampleOptions
from molgen.generation.rejection import RejectionRules, Sample
from molgen.generation.sample_table import CHEAP, COLUMNS, SampleTable
from molgen.metrics.similarity import max_min
from molgen.runs import Run

ASPIRIN = "CC(=O)Oc1ccccc1C(=O)O"


@pytest.fixture(scope="module")
def generator(small_run: Run) -> MoleculeGenerator:
    return MoleculeGenerator.load(small_run.path, "cpu")


def test_aspirin_has_the_properties_that_are_published_of_it() -> None:
    row = tabulate(ASPIRIN, list(PROPERTIES))
    # PubChem CID 2244: 180.16 g/mol, polar surface 63.6 Å², one donor, InChIKey; QED 0.550: Bickerton et al. 2012
    assert row["mw"] == pytest.approx(180.16, abs=0.005)
    assert row["tpsa"] == pytest.approx(63.6, abs=0.05)
    assert (row["hbd"], row["rings"]) == (1, 1)
    assert row["inchikey"] == "BSYNRYMUTXBXSQ-UHFFFAOYSA-N"
    assert row["qed"] == pytest.approx(0.550, abs=0.001)
    assert row["sa"] == pytest.approx(1.58, abs=0.01)  # RDKit's sascorer.py by hand
    assert row["alerts"] == "BRENK:phenol_ester"
    assert tabulate("C(", ["mw"]) == {"error": "syntax"}


def test_each_column_says_what_it_should(generator: MoleculeGenerator) -> None:
    training = sorted(generator.training_set())
    known = training[0]
    batch = [
        *(Sample("OCC", "CCO"), Sample("C(", None), Sample("", None), Sample("", None, True)),
        *(Sample("CC(C)(C)(C)C", None), Sample(known, known), Sample("CCO", "CCO")),
    ]
    table = SampleTable("all", generator)
    rows = table.rows(batch[:5]) + table.rows(batch[5:])  # what was seen is remembered over batches
    assert tuple(rows[0]) == COLUMNS
    column = {name: [row[name] for row in rows] for name in COLUMNS}
    assert column["smiles"] == [sample.smiles for sample in batch]
    assert column["canonical"] == ["CCO", "", "", "", "", known, "CCO"]
    assert column["valid"] == ["true", "false", "false", "false", "false", "true", "true"]
    assert column["error"] == ["", "syntax", "empty", "unfinished", "valence", "", ""]
    assert column["duplicate_of"] == ["", "", "", "", "", "", "1"]
    assert column["in_training"] == ["false", "", "", "", "", "true", "false"]
    assert (column["nearest_training"][5], column["nn_similarity"][5]) == (known, "1.000")
    assert column["mw"][:2] == ["46.07", ""]
    assert column["inchikey"][0] == "LFQSCWFLJHTTHZ-UHFFFAOYSA-N"
    assert column["log_likelihood"][0] == f"{generator.log_likelihood(['OCC'])[0]:.3f}"
    assert column["log_likelihood"][2] == ""
    morgan = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=1024)
    prints = [morgan.GetFingerprint(Chem.MolFromSmiles(smiles)) for smiles in training]
    similarities = DataStructs.BulkTanimotoSimilarity(morgan.GetFingerprint(Chem.MolFromSmiles("CCO")), prints)
    assert column["nn_similarity"][0] == f"{max(similarities):.3f}"
    assert similarities[training.index(column["nearest_training"][0])] == max(similarities)


def test_a_table_has_the_cheap_columns_unless_others_are_asked_for(cli: Cli, small_run: Run) -> None:
    assert cli("sample", small_run.path, "-n", 5, "-o", "x.csv").code == 0
    assert Path("x.csv").read_text().splitlines()[0] == ",".join(CHEAP)
    assert cli("sample", small_run.path, "-n", 5, "-o", "y.csv", "--columns", "smiles,qed").code == 0
    rows = list(csv.DictReader(io.StringIO(Path("y.csv").read_text())))
    assert (len(rows), list(rows[0])) == (5, ["smiles", "qed"])


def test_an_sd_file_has_the_valid_molecules_with_coordinates_and_fields(cli: Cli, small_run: Run) -> None:
    arguments = ["sample", small_run.path, "-n", 60, "--temperature", 0.7, "--columns", "canonical,mw,alerts"]
    assert cli(*arguments, "-o", "x.csv").code == 0
    done = cli(*arguments, "-o", "x.sdf", "--force")
    with Path("x.csv").open(newline="") as file:
        valid = [row for row in csv.DictReader(file) if row["canonical"]]
    assert 0 < len(valid) < 60
    assert f"{60 - len(valid)} invalid ones have no record in x.sdf" in done.err
    molecules = list(Chem.SDMolSupplier("x.sdf"))
    assert [Chem.MolToSmiles(molecule) for molecule in molecules] == [row["canonical"] for row in valid]
    assert [molecule.GetProp("mw") for molecule in molecules] == [row["mw"] for row in valid]
    assert all(np.ptp(molecule.GetConformer().GetPositions()[:, :2]) > 0 for molecule in molecules)


def test_the_account_beside_a_table_says_how_to_draw_it_again(cli: Cli, small_run: Run) -> None:
    done = cli("sample", small_run.path, "-n", 20, "--valid", "--temperature", 0.7, "--seed", 5, "-o", "x.csv")
    account = json.loads(Path("x.meta.json").read_text())
    weights = (small_run.path / "model.safetensors").read_bytes()
    assert account["weights_sha256"] == hashlib.sha256(weights).hexdigest()
    assert (account["n"], account["seed"], account["temperature"]) == (20, 5, 0.7)
    assert account["draws"] == 20 + account["rejected"]["valid"]
    assert (account["filters"]["valid"], account["filters"]["novel"]) == (True, False)
    assert f"20 molecules of {account['draws']:,} draws" in done.err
    assert f"rejected: {account['rejected']['valid']:,} invalid" in done.err
    assert account["command"] == f"molgen sample {small_run.path} -n 20 --valid --temperature 0.7 --seed 5 -o x.csv"
    assert {"molgen", "torch", "rdkit"} <= account["versions"].keys()
    refused = cli("sample", small_run.path, "-n", 20, "-o", "x.sdf")  # its account is there already
    assert (refused.code, "x.meta.json: exists" in refused.err) == (2, True)


def test_filters_reject_by_property_and_pattern_and_count_what_each_cost(generator: MoleculeGenerator) -> None:
    wanted = MoleculeFilter("mw < 300 and qed > 0.5", ("a",), ("[N+]", "S"), no_alerts=True)
    rules = RejectionRules(unique=True, novel=True, filter=wanted)
    stream = generator.stream(SampleOptions(12, SamplingParams(0.7), rules))
    samples, tally = [s for batch in stream for s in batch], stream.stats
    assert len({sample.canonical for sample in samples}) == 12
    for sample in samples:
        molecule = Chem.MolFromSmiles(sample.smiles)
        assert Descriptors.MolWt(molecule) < 300
        assert QED.qed(molecule) > 0.5
        assert any(atom.GetIsAromatic() for atom in molecule.GetAtoms())
        assert not any(atom.GetSymbol() == "S" and not atom.GetIsAromatic() for atom in molecule.GetAtoms())
        assert not tabulate(sample.smiles, ["alerts"])["alerts"]
        assert sample.canonical not in generator.training_set()
    assert tally.draws == tally.kept + sum(tally.rejected.values())
    assert tally.rejected["valid"] > 0
    assert tally.rejected["where"] > 0


@pytest.mark.parametrize(
    ("smiles", "settings", "rejected_by"),
    [
        (ASPIRIN, {"where": "mw < 181 and hbd == 1"}, ""),
        (ASPIRIN, {"where": "mw > 181"}, "where"),
        (ASPIRIN, {"smarts": ["c1ccccc1", "C(=O)[OH]"]}, ""),
        (ASPIRIN, {"smarts": ["c1ccccc1", "N"]}, "smarts"),
        (ASPIRIN, {"not_smarts": ["N", "S"]}, ""),
        (ASPIRIN, {"not_smarts": ["N", "OC=O"]}, "not_smarts"),
        (ASPIRIN, {"no_alerts": True}, "no_alerts"),
        ("CCO", {"no_alerts": True}, ""),
    ],
)
def test_the_first_filter_that_rejects_a_molecule_is_named(smiles: str, settings: dict, rejected_by: str) -> None:
    everything = {"where": "", "smarts": [], "not_smarts": [], "no_alerts": False}
    assert screen(smiles, **{**everything, **settings})[1] == rejected_by
    assert screen("C(", **{**everything, **settings}) == (None, "")


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (MoleculeFilter(where="mw = 3"), "=="),
        (MoleculeFilter(where="weight < 3"), "'weight'"),
        (MoleculeFilter(where="__import__('os')"), "not understood|comparisons"),
        (MoleculeFilter(smarts=("C(",)), "--smarts C"),
        (MoleculeFilter(smarts=("",)), "--smarts"),
        (MoleculeFilter(not_smarts=("[",)), "--not-smarts"),
    ],
)
def test_a_filter_that_cannot_be_understood_is_refused(
    wanted: MoleculeFilter, said: str, generator: MoleculeGenerator
) -> None:
    with pytest.raises(MolgenError, match=said):
        generator.stream(SampleOptions(1, rules=RejectionRules(filter=wanted)))


def test_max_min_picks_as_rdkit_does(moses_mini: list[str]) -> None:
    morgan = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=1024)
    prints = [morgan.GetFingerprint(Chem.MolFromSmiles(smiles)) for smiles in moses_mini[:300]]
    packed = np.stack([np.frombuffer(DataStructs.BitVectToBinaryText(fp), np.uint8) for fp in prints])
    picks, closest = max_min(packed, 10)
    theirs = list(rdSimDivPickers.MaxMinPicker().LazyBitVectorPick(prints, len(prints), 10, [0]))

    def most_similar(chosen: list[int]) -> float:
        return max(DataStructs.TanimotoSimilarity(prints[a], prints[b]) for a in chosen for b in chosen if a != b)

    assert picks[:2] == theirs[:2]  # later ones may differ where two are as far away
    assert closest == pytest.approx(most_similar(picks))
    assert most_similar(picks) == pytest.approx(most_similar(theirs), abs=0.02)
    assert sorted(max_min(packed[:3], 10)[0]) == [0, 1, 2]


def test_diverse_picks_are_distinct_and_less_alike_than_the_draws(cli: Cli, small_run: Run) -> None:
    done = cli("sample", small_run.path, "-n", 60, "--valid", "--temperature", 0.8, "--diverse", 6)
    assert done.code == 0, done.err
    assert len(set(done.out.split())) == 6
    assert "6 of " in done.err
    assert "Tanimoto similarity of" in done.err
    assert cli("sample", small_run.path, "--diverse", 0).code == 2
    none_valid = cli(
        "sample", small_run.path, "-n", 4, "--temperature", 30, "--diverse", 2, "-o", "x.csv", "--columns", "all"
    )
    assert (none_valid.code, Path("x.csv").read_text().count("\n")) == (0, 1)
    assert "0 of 0 distinct valid molecules, of 4 kept" in none_valid.err
    # and a batch without a valid one has no neighbours to look for
    assert cli("sample", small_run.path, "-n", 4, "--temperature", 30, "-o", "y.csv", "--columns", "all").code == 0


def test_columns_that_cannot_be_had_are_refused(cli: Cli, small_run: Run) -> None:
    assert "no column 'foo'" in cli("sample", small_run.path, "-o", "x.csv", "--columns", "foo").err
    assert "only a table has columns" in cli("sample", small_run.path, "--columns", "mw").err
    assert not list(Path().iterdir())


def test_a_run_without_its_molecules_leaves_their_columns_empty_unless_they_are_asked_for(
    cli: Cli, small_run: Run
) -> None:
    shutil.copytree(small_run.path, "shipped")
    Path("shipped/molecules.csv.gz").unlink()
    done = cli("sample", "shipped", "-n", 5, "-o", "x.csv")
    assert done.code == 0
    assert "carries no molecules" in done.err
    rows = csv.DictReader(io.StringIO(Path("x.csv").read_text()))
    assert {row["in_training"] for row in rows} == {""}
    refused = cli("sample", "shipped", "-n", 5, "-o", "y.csv", "--columns", "smiles,in_training")
    assert (refused.code, Path("y.csv").exists()) == (2, False)


def test_filters_that_hardly_a_draw_passes_end_with_what_there_is_and_exit_code_1(cli: Cli, small_run: Run) -> None:
    done = cli("sample", small_run.path, "-n", 5, "--where", "mw > 5000", "-o", "x.csv")
    assert (done.code, Path("x.csv").read_text().count("\n")) == (1, 1)
    assert "fewer than 1 in 1,000" in done.err
    assert json.loads(Path("x.meta.json").read_text())["kept"] == 0


def test_a_frame_shows_its_molecules_and_keeps_doing_so_when_it_is_cut(generator: MoleculeGenerator) -> None:
    frame = generator.sample(30, temperature=0.5, seed=1, columns=["mw"])
    assert list(frame.columns) == ["smiles", "canonical", "valid", "mw"]
    assert frame.valid.any()
    page = frame._repr_html_()
    assert page.count("<svg") == frame.head(20).valid.sum()
    assert "10 more rows" in page
    assert frame[frame.valid].head(2)._repr_html_().count("<svg") == 2
    hostile = frame.head(1).assign(smiles="<script>alert(1)</script>")
    assert "<script>" not in hostile._repr_html_()
    assert "<svg" not in frame[["mw"]]._repr_html_()
    with pytest.raises(MolgenError, match="no property 'foo'"):
        generator.sample(1, columns=["foo"])
