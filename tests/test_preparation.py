import csv
import gzip
from pathlib import Path

from conftest import Cli

# Ten chains, so that nothing is rare, and what a vendor adds to them.
CHAINS = ["C" * n + "O" for n in range(3, 13)]
ODD = {
    "CC(N)C(=O)O": "a",
    "C[C@H](N)C(=O)O": "b",
    "C[C@@H](N)C(=O)O": "c",
    "CCCO.Cl": "salt",
    "C(": "broken",
    "C" * 200: "long",
}
EVERYTHING = ["--set", "data.min_token_count=1"]


def write(path: Path) -> None:
    lines = [f"{smiles},chain" for smiles in CHAINS] + [f"{smiles},{name}" for smiles, name in ODD.items()]
    path.write_text("\n".join(["smiles,name", *lines]) + "\n")


def test_clean_writes_what_a_training_would_see_and_lists_the_rest(cli: Cli, tmp_path: Path) -> None:
    write(tmp_path / "mine.csv")
    done = cli("data", "clean", "mine.csv", "-o", "clean.csv", *EVERYTHING)
    assert done.code == 0, done.err
    with (tmp_path / "clean.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["smiles"] for row in rows] == [*CHAINS, *list(ODD)[:3]]
    assert rows[-1] == {"smiles": "C[C@@H](N)C(=O)O", "name": "c", "row": "14"}
    with gzip.open(tmp_path / "clean.dropped.csv.gz", "rt", newline="") as file:
        listed = {row["name"]: row["reason"] for row in csv.DictReader(file)}
    assert listed == {"salt": "duplicate", "broken": "not parsed by RDKit: syntax", "long": "too long"}
    assert "16 rows, 13 molecules" in done.err
    assert "dropped: 1 duplicate, 1 not parsed by RDKit: syntax, 1 too long" in done.err


def test_clean_is_idempotent_and_refuses_to_overwrite(cli: Cli, tmp_path: Path) -> None:
    write(tmp_path / "mine.csv")
    assert cli("data", "clean", "mine.csv", "-o", "once.smi", *EVERYTHING).code == 0
    again = cli("data", "clean", "once.smi", "-o", "twice.smi.gz", *EVERYTHING)
    assert "dropped" not in again.err.replace("dropped.csv.gz", "")
    assert gzip.decompress((tmp_path / "twice.smi.gz").read_bytes()) == (tmp_path / "once.smi").read_bytes()
    assert (tmp_path / "once.smi").read_text().splitlines()[-1] == "C[C@@H](N)C(=O)O c"
    refused = cli("data", "clean", "mine.csv", "-o", "once.csv")  # its list of dropped rows is there already
    assert (refused.code, "once.dropped.csv.gz: exists" in refused.err) == (2, True)
    unknown = cli("data", "clean", "mine.csv", "-o", "once.xls")
    assert (unknown.code, ".csv.gz" in unknown.err) == (2, True)


def test_describe_counts_what_a_training_would_see(cli: Cli, tmp_path: Path) -> None:
    write(tmp_path / "mine.csv")
    done = cli("data", "describe", "mine.csv", *EVERYTHING)
    lines = done.out.splitlines()
    assert lines[0] == "mine.csv: 16 rows, 13 molecules: train 10, validation 1, test 2"
    assert lines[1] == "dropped: 1 duplicate, 1 not parsed by RDKit: syntax, 1 too long"
    # 4 to 13, three times 11 (`[C@H]` is one token), and the 200 of the one that is too long: the seventh of 14 is 10
    assert lines[2] == "tokens per molecule: 5 % 4, median 10, 95 % 200, longest 200"
    assert lines[3] == "context: 200 tokens keep 99.9 % of the molecules; model.context is 128"
    assert "elements: C 100.0 %, O 100.0 %, N 23.1 %" in lines
    assert "with stereo: 2 (15.4 %)" in lines
    assert "stereo twins: 3 molecules in 1 groups that differ in stereo or isotopes" in lines
