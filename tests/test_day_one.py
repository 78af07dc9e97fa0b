"""Files as people have them: what is in them is trained on, and what is not is counted."""

import csv
import gzip
import io
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import chembl_like
import pytest
from conftest import SMALL, Cli, Done
from rdkit import Chem

from molgen.chem.smiles import canonical
from molgen.runs import Run

TINY = [part for setting in [*SMALL, "training.epochs=1"] for part in ("--set", setting)]


def tox21_smiles(path: Path) -> list[str]:
    with gzip.open(path, "rt", newline="") as file:
        return [row["smiles"] for row in csv.DictReader(file)]


def said(done: Done) -> str:
    """What the training says of its data; progress and results aside."""
    lines = done.err.splitlines()
    return "\n".join(line for line in lines if not re.match(r"epoch|done:|best validation|[\d,]+ weights", line))


@pytest.mark.slow
def test_every_row_of_a_chembl_export_meets_its_label(cli: Cli, tox21: Path) -> None:
    cases = chembl_like.cases(tox21_smiles(tox21))
    content = chembl_like.table(cases)
    assert content.count(b"\n") == chembl_like.LINES
    Path("chembl.csv").write_bytes(content)
    trained = cli("train", "chembl.csv", *TINY)
    assert trained.code == 0, trained.err
    run = Run(next(Path("runs").iterdir()))

    told: dict[int, list[str]] = {}
    for row in run.dropped:
        told.setdefault(row.row, []).append(row.reason)
    for line, case in enumerate(cases, 2):
        assert tuple(told.get(line, [])) == case.reasons, case
    stays = {line: canonical(case.stays) for line, case in enumerate(cases, 2) if case.stays}
    assert {molecule.row: molecule.smiles for molecule in run.molecules} == stays
    assert run.molecules[0].name == "CHEMBL0"

    altered = Counter(reason for case in cases if case.stays for reason in case.reasons)
    dropped = Counter(reason for case in cases if not case.stays for reason in case.reasons)
    assert (run.report["altered"], run.report["dropped"]) == (altered, dropped)
    assert sum(run.report["sizes"].values()) == len(stays)
    for reason, count in (altered | dropped).items():
        assert f"{count} {reason}" in trained.err

    sampled = cli("sample", "-n", "20")
    assert (sampled.code, len(sampled.out.splitlines())) == (0, 20)
    scored = cli("score", "chembl.csv")
    rows = list(csv.DictReader(io.StringIO(scored.out)))
    assert len(rows) == len(cases)
    unseen = {"rare token", "duplicate"}  # a duplicate has a score; a rare token is one that training lacks
    for row, case in zip(rows, cases, strict=True):
        if not case.stays and not unseen & set(case.reasons):
            assert (row["log_likelihood"], row["note"]) == ("", case.reasons[0])
        elif "rare token" in case.reasons:
            assert (row["log_likelihood"], row["unseen_token"] != "") == ("", True)
        elif row["log_likelihood"]:
            assert float(row["log_likelihood"]) < 0
            assert case.reasons == ("duplicate",) or row["note"] == "; ".join(case.reasons)
        else:  # held out, with a token that only other held-out molecules have
            assert row["unseen_token"]


class File(NamedTuple):
    """A file that broke another program, and what is said of it."""

    name: str
    content: Callable[[list[str]], str | bytes]
    counts: tuple[str, ...]
    options: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    """Molecules that a training sees, in any form."""


def lines(*more: str) -> Callable[[list[str]], str]:
    return lambda molecules: "\n".join([*molecules, *more]) + "\n"


def chains(pattern: str, first: int = 3, n: int = 6) -> list[str]:
    """The same group at the end of chains of several lengths, so that its tokens are not rare."""
    return ["C" * length + pattern for length in range(first, first + n)]


def sd_file(molecules: list[str]) -> bytes:
    stereo = [f"{'C' * n}[C@H](O)CN |o1:{n}|" for n in range(3, 9)]
    text = io.StringIO()
    with Chem.SDWriter(text) as writer:
        writer.SetForceV3000(True)
        for number, smiles in enumerate([*molecules, *stereo, "CCCCCCN.Cl"]):
            molecule = Chem.MolFromSmiles(smiles)
            molecule.SetProp("_Name", f"VENDOR-{number}")
            molecule.SetProp("Purity", "95 %")
            writer.write(molecule)
    return gzip.compress(text.getvalue().encode())


FILES = [
    # a vocabulary fixed in code knows the tokens of its own training set only: devalab/molgpt#27
    File("own_tokens.smi", lines(*chains("[N+](=O)[O-]"), *chains("I"), *chains("B(O)O")), (), (), chains("I")),
    # SMILES alone, without a heading, a property or a scaffold: devalab/molgpt#21
    File("alone.txt", lines(), ()),
    # phosphorus and deuterium, and %10 among randomised SMILES: MolecularAI/REINVENT4#227
    File("phosphorus.csv", lambda m: "SMILES\n" + lines(*chains("P(=O)(O)O"), *chains("C([2H])([2H])[2H]"))(m), (),
         ("--set", "data.isotopes=keep", "--set", "training.randomized=0.9"), chains("C([2H])([2H])[2H]")),
    # deuterium where isotopes are not wanted: MolecularAI/REINVENT4#145
    File("deuterated.smi", lines(*chains("C([2H])([2H])[2H]", 13)), ("6 isotopes stripped",), (), chains("C", 13)),
    # backslashes: MolecularAI/REINVENT4#278
    File("directions.smi", lines(*chains("/C=C\\Cl"), *chains("/C=C/Cl")), (), (), chains("/C=C\\Cl")),
    # charged and chiral sulphur: MolecularAI/REINVENT4#7
    File("sulphur.smi", lines(*chains("[S@+]([O-])C"), *chains("[S@@+]([O-])C")), (), (), chains("[S@+]([O-])C")),
    # ring labels of two digits, as given and among randomised SMILES
    File("labels.smi", lines(*(f"C%{n}CCC({'C' * n})CC%{n}" for n in range(10, 20))), (),
         ("--set", "training.randomized=0.9"), ("CCCCCCCCCCC1CCCCC1",)),
    # a vendor's list: tabs, names with spaces, an extension, Windows line ends and a heading
    File("vendor.smi", lambda m: "SMILES\tID\r\n" + "".join(f"{s}\tV {i} |x|\r\n" for i, s in enumerate(m))
         + "CCCCCCN |$a;;;;;;$| V-X\r\n", ("1 CXSMILES extension cut",), (), ("CCCCCCN",)),
    # a table with quoted cells, missing values and a column to choose rows by
    File("assay.tsv", lambda m: "Compound Name\tcanonical_smiles\tpIC50\n"
         + "".join(f'"x\t{i}"\t{s}\t{"" if i % 7 == 0 else 4 + i % 5}\n' for i, s in enumerate(m)),
         ("dropped: 22 not chosen by data.where",), ("--where", "pIC50 >= 4"), ()),
    # an SD file in the newer format, zipped, with stereo groups and a salt
    File("library.sdf.gz", sd_file, ("6 racemic or relative stereo made undefined", "1 smaller fragments cut"), (),
         ("CCCC(O)CN", "CCCCCCN")),
]  # fmt: skip


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_file_that_breaks_others_trains_with_nothing_said_but_counts(
    file: File, cli: Cli, moses_mini: list[str]
) -> None:
    content = file.content(moses_mini[:150])
    Path(file.name).write_bytes(content if isinstance(content, bytes) else content.encode())
    done = cli("train", file.name, "--out", "run", *file.options, *TINY)
    assert done.code == 0, done.err
    first, sizes, *counts = said(done).splitlines()
    assert re.match(rf"{file.name}: \d+ rows", first)
    assert re.match(r"train \d+, validation \d+, test \d+", sizes)
    assert all(re.match(r"dropped: |altered: |\d+ of \d+ validation molecules have tokens", line) for line in counts)
    # a rare token of MOSES' molecules themselves may be dropped; everything else must be what the file is known for
    for expected in file.counts:
        assert any(expected in line for line in counts), counts
    known = "\n".join(counts)
    for reason in re.findall(r"\d+ ([a-zA-Z][^,\n]*)", known.replace("validation molecules", "")):
        assert reason.startswith(("rare token", "of ")) or any(reason in expected for expected in file.counts), known
    smiles = {molecule.smiles for molecule in Run(Path("run")).molecules}
    assert {canonical(one) for one in file.kept} <= smiles
