"""What each figure of `eval` is against, and that none is wrong without a word; expected values are by RDKit."""

import csv
import gzip
import io
import json
import shutil
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
from conftest import Cli
from rdkit import Chem

import molgen
from molgen.generation.generator import MoleculeGenerator
from molgen.runs import Run

N = 1_000


def no_constant(name: str) -> NoReturn:
    pytest.fail(f"{name} is no JSON")


def read(path: str) -> Any:
    return json.loads(Path(path).read_text(), parse_constant=no_constant)


def canonical(smiles: str) -> str | None:
    mol = Chem.MolFromSmiles(smiles) if smiles else None
    return None if mol is None else Chem.MolToSmiles(mol)


def another_way(smiles: str) -> str:
    """The same molecule, written from its last atom on."""
    mol = Chem.MolFromSmiles(smiles)
    return Chem.MolToSmiles(mol, rootedAtAtom=mol.GetNumAtoms() - 1)


def give_molecules(run: Path, **splits: list[str]) -> None:
    """Replaces the table of a run's molecules."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["smiles", "name", "row", "split"])
    pairs = [(smiles, split) for split, several in splits.items() for smiles in several]
    table.writerows([smiles, "", row, split] for row, (smiles, split) in enumerate(pairs, 1))
    (run / "molecules.csv.gz").write_bytes(gzip.compress(text.getvalue().encode()))


@pytest.fixture(scope="module")
def drawn(small_run: Run) -> list[str]:
    """The distinct valid molecules of the samples that `eval -n 1000` draws, canonical."""
    samples = MoleculeGenerator.load(small_run.path, "cpu").sample(N)["smiles"]
    found = sorted({one for smiles in samples if (one := canonical(smiles)) is not None})
    assert len(found) >= 6
    return found


@pytest.fixture
def run(small_run: Run, drawn: list[str], tmp_path: Path) -> Path:
    """A run of which two samples are training molecules, one is a validation and two of four test ones are samples."""
    path = shutil.copytree(small_run.path, tmp_path / "run")
    test = [another_way(drawn[3]), drawn[4], *small_run.split("test")[:2]]
    give_molecules(path, train=drawn[:2], validation=[drawn[2]], test=test)
    return path


# What each option of `eval` names, and what each figure is then against: molecules of the samples that it has, of k.
# own: the run's own two training molecules; train.smi has the first three samples, ref.smi the first four
RUN_TABLE = [
    ([], 2, "half of test"),
    (["--reference", "ref.smi"], 2, "half of test"),
    (["--train", "train.smi"], 3, "half of test"),
    (["--train", "train.smi", "--reference", "ref.smi"], 3, "half of test"),
    (["--split", "validation"], 2, "all of validation"),
    (["--split", "validation", "--reference", "ref.smi"], 2, "all of validation"),
]


@pytest.mark.parametrize(("options", "known", "rediscovered"), RUN_TABLE)
def test_a_run_is_compared_with_its_own_molecules_unless_train_names_others(
    options: list[str], known: int, rediscovered: str, run: Path, drawn: list[str], cli: Cli
) -> None:
    Path("train.smi").write_text("\n".join(map(another_way, drawn[:3])) + "\n")
    Path("ref.smi").write_text("\n".join(drawn[:4]) + "\n")
    done = cli("eval", run, "-n", N, "--metrics", "chem", *options, "--json", "x.json", "--device", "cpu")
    assert done.code == 0, done.err
    figures = read("x.json")
    assert figures["novelty"] == pytest.approx(1 - known / len(drawn))
    assert figures["chem/nearest_1"] >= known / figures["n_valid"]
    assert figures["chem/rediscovered"] == {"half of test": 0.5, "all of validation": 1.0}[rediscovered]
    assert (
        figures["n_held_out"] + figures["n_unknown_tokens"] == {"half of test": 4, "all of validation": 1}[rediscovered]
    )
    own = -np.nanmean(MoleculeGenerator.load(run, "cpu").log_likelihood(drawn[:2]))
    assert figures["nll_train"] == pytest.approx(own, rel=1e-4)  # the run's own, whatever is named


def test_for_a_run_without_its_molecules_a_reference_stands_and_is_said(run: Path, drawn: list[str], cli: Cli) -> None:
    (run / "molecules.csv.gz").unlink()
    Path("ref.smi").write_text("\n".join(drawn[:4]) + "\n")
    done = cli("eval", run, "-n", N, "--metrics", "chem", "--reference", "ref.smi", "--json", "x.json")
    assert done.code == 0, done.err
    figures = read("x.json")
    assert figures["novelty"] == pytest.approx(1 - 4 / len(drawn))
    assert figures["chem/rediscovered"] == 1
    assert (figures["nll"], figures["nll_train"]) == (None, None)
    assert "novelty is against ref.smi (--reference), for the run carries no molecules" in done.out
    done = cli("eval", run, "-n", N, "--json", "x.json", "--force")
    assert (done.code, read("x.json")["novelty"]) == (0, None)


SAMPLES = ["CCO", "CCN", "CCC", "CCCl"]
FILE_TABLE: list[tuple[list[str], float | None, float | None]] = [
    ([], None, None),  # (options, novelty, rediscovered)
    (["--train", "train.smi"], 0.75, None),
    (["--reference", "ref.smi"], 0.5, 0.5),
    (["--train", "train.smi", "--reference", "ref.smi"], 0.75, 0.5),
]


@pytest.mark.parametrize(("options", "novelty", "rediscovered"), FILE_TABLE)
def test_a_file_is_compared_with_train_and_without_it_with_the_reference(
    options: list[str], novelty: float | None, rediscovered: float | None, cli: Cli
) -> None:
    Path("a.smi").write_text("\n".join(SAMPLES) + "\n")
    Path("train.smi").write_text("OCC\nCCCC\nCCCCC\n")  # one of the samples
    Path("ref.smi").write_text("NCC\nC(C)C\nCCF\nCCBr\n")  # two of the samples, as many as not
    set_level = ["--metrics", "moses", "--metrics", "guacamol"] if "--reference" in options else []
    done = cli("eval", "a.smi", "--metrics", "chem", *set_level, *options, "--json", "x.json")
    assert done.code == 0, done.err
    figures = read("x.json")
    assert (figures["novelty"], figures["chem/rediscovered"]) == (novelty, rediscovered)
    assert (figures["chem/nearest"] is None) == (novelty is None)
    if set_level:
        assert figures["Novelty"] == figures["guacamol/novelty"] == novelty
        assert figures["SNN/Test"] < 1  # two samples are not in the reference
        assert figures["FCD/Test"] is not None


def test_held_out_molecules_are_rediscovered_however_they_are_written(cli: Cli) -> None:
    Path("a.smi").write_text("CCO\n")
    Path("held.smi").write_text("OCC\n")
    assert cli("eval", "a.smi", "--metrics", "chem", "--reference", "held.smi", "--json", "x.json").code == 0
    assert read("x.json")["chem/rediscovered"] == 1


@pytest.mark.parametrize("option", ["--train", "--reference"])
@pytest.mark.parametrize("metric", ["basic", "chem"])
def test_a_file_of_which_no_molecule_parses_is_refused(option: str, metric: str, cli: Cli) -> None:
    Path("a.smi").write_text("CCO\nCCN\n")
    Path("bad.smi").write_text("C1CC\nc1cc\nC(C\n")
    done = cli("eval", "a.smi", option, "bad.smi", "--metrics", metric, "--json", "x.json")
    assert done.code == 2
    assert "bad.smi" in done.err and "Traceback" not in done.err
    assert not Path("x.json").exists()


def test_figures_are_over_the_molecules_that_parse_and_the_others_are_counted(cli: Cli) -> None:
    Path("a.smi").write_text("CCO\nCCN\nCCCl\nCCF\n")
    Path("train.smi").write_text("C1CC\nOCC\nC(C\nCCCC\nc1cc\n")
    command = ["--metrics", "chem", "--metrics", "guacamol", "--metrics", "moses", "--reference", "train.smi"]
    done = cli("eval", "a.smi", "--train", "train.smi", *command, "--json", "x.json")
    assert done.code == 0, done.err
    figures = read("x.json")
    assert figures["novelty"] == figures["Novelty"] == 0.75
    assert figures["chem/rediscovered"] == 0.5
    assert figures["baselines"]["floor"]["n_valid"] == 2
    assert figures["baselines"]["copy"]["n_valid"] == 4
    assert "train.smi: RDKit does not parse 3 of its 5 molecules" in done.out


def test_one_held_out_molecule_has_no_standard_error(run: Path, small_run: Run, cli: Cli) -> None:
    give_molecules(run, train=small_run.split("train"), test=small_run.split("test")[:1])
    done = cli("eval", run, "-n", 20, "--json", "x.json")
    assert done.code == 0, done.err
    figures = read("x.json")
    assert figures["nll"] > 0 and figures["nll_stderr"] is None
    assert "one molecule" in figures["reasons"]["nll_stderr"]
    assert "nan" not in done.out


def test_a_held_out_molecule_beyond_the_context_is_counted_apart(run: Path, small_run: Run, cli: Cli) -> None:
    fits = small_run.split("test")[:3]
    give_molecules(run, train=["C" * 200, fits[0]], test=[*fits, "C" * 200, "[Xe]"])
    done = cli("eval", run, "-n", 20, "--json", "x.json")
    assert done.code == 0, done.err
    figures = read("x.json")
    assert (figures["n_held_out"], figures["n_too_long"], figures["n_unknown_tokens"]) == (3, 1, 1)
    assert figures["nll"] == pytest.approx(-MoleculeGenerator.load(run, "cpu").log_likelihood(fits).mean(), rel=1e-4)
    assert "1 more are longer than the context" in done.out


@pytest.mark.parametrize("value", ["1e39", "3.5e38", "1e308", "inf", "nan", "1e-300", "1e-46", "1e-39", "-1"])
def test_a_temperature_that_float32_cannot_divide_by_is_refused(value: str, small_run: Run, cli: Cli) -> None:
    done = cli("sample", small_run.path, "-n", 3, "--temperature", value)
    assert (done.code, done.out) == (2, "")
    assert "out of range" in done.err
    with pytest.raises(molgen.MolgenError, match="out of range"):
        MoleculeGenerator.load(small_run.path, "cpu").sample(3, temperature=float(value))


def test_filters_that_leave_every_token_draw_the_very_same_molecules(small_run: Run) -> None:
    generator = MoleculeGenerator.load(small_run.path, "cpu")
    plain = generator.sample(64, seed=5)["smiles"].tolist()
    for filters in ({"top_p": 1.0}, {"top_k": len(generator.tokenizer)}):
        assert generator.sample(64, seed=5, **filters)["smiles"].tolist() == plain


def test_of_equally_probable_tokens_exactly_as_many_are_kept_as_asked_for(small_run: Run) -> None:
    generator = MoleculeGenerator.load(small_run.path, "cpu")
    with torch.no_grad():
        generator.model.embedding.weight.zero_()  # a tied head: every token is as probable as any other
    tokens = generator.tokenizer.tokens
    drawable = len(tokens) + 1  # and the end

    def drawn(**filters: Any) -> set[str]:
        split = generator.tokenizer.splitter.split
        return {token for smiles in generator.sample(200, **filters)["smiles"] for token in split(smiles) or ()}

    assert drawn(top_k=1) == set()  # nothing but ends
    assert drawn(top_k=3) == set(tokens[:2])
    assert drawn(top_p=5 / drawable) == set(tokens[:4])
    assert drawn(top_p=1e-9) == set()


def test_one_string_is_one_molecule(small_run: Run, pattern: str) -> None:
    generator = MoleculeGenerator.load(small_run.path, "cpu")
    assert generator.log_likelihood("CCO").tolist() == generator.log_likelihood(["CCO"]).tolist()
    figures = molgen.evaluate("CCO", training="OCC", metrics="basic").figures.values
    assert (figures["n_samples"], figures["validity"], figures["novelty"]) == (1, 1, 0)
    assert molgen.SmilesTokenizer.of_corpus("CCl", pattern).tokens == ("C", "Cl")
    assert generator.sample(1, columns="mw").columns.tolist() == ["smiles", "canonical", "valid", "mw"]
