"""The names that `import molgen` gives: what a notebook or another program builds on."""

from pathlib import Path

import pytest

import molgen
from molgen.runs import Run

NAMES = {"Config", "MoleculeGenerator", "MolgenError", "Run", "SmilesTokenizer", "build_model", "evaluate"}
NAMES |= {"load_config", "optimize", "sample", "score", "train"}


def test_the_public_names_are_these_and_each_loads() -> None:
    assert set(molgen.__all__) == NAMES | {"__version__"}
    assert all(getattr(molgen, name) for name in NAMES)


def test_a_run_is_named_by_a_string_or_a_path_wherever_one_is_taken(small_run: Run) -> None:
    for path in (str(small_run.path), Path(small_run.path)):
        assert molgen.Run(path).config == small_run.config
        assert len(molgen.sample(path, 3, device="cpu", seed=1)) == 3
        assert len(molgen.score(["CCO"], path, device="cpu")) == 1


def test_sample_is_the_generators_and_takes_its_options(small_run: Run) -> None:
    options = {"seed": 5, "temperature": 0.7, "valid": True, "columns": "mw"}
    drawn = molgen.sample(small_run.path, 6, device="cpu", **options)
    again = molgen.MoleculeGenerator.load(small_run.path, "cpu").sample(6, **options)  # type: ignore[arg-type]
    assert drawn.equals(again)
    assert list(drawn.columns) == ["smiles", "canonical", "valid", "mw"]
    with pytest.raises(molgen.MolgenError, match="--temperature"):
        molgen.sample(small_run.path, 6, device="cpu", temperature=-1)


def test_scores_of_a_file_and_of_its_strings_are_the_same(small_run: Run, tmp_path: Path) -> None:
    (tmp_path / "x.smi").write_text("CCO\nC1CCCCC1\n[Xe]\n")
    of_file = molgen.score(tmp_path / "x.smi", small_run.path, device="cpu")
    of_strings = molgen.score(iter(["CCO", "C1CCCCC1", "[Xe]"]), small_run.path, device="cpu")
    assert of_file.equals(of_strings)
    expected = molgen.MoleculeGenerator.load(small_run.path, "cpu").log_likelihood(["CCO", "C1CCCCC1"])
    assert of_file.log_likelihood[:2].tolist() == pytest.approx(expected.tolist())
    assert of_file.log_likelihood.isna().tolist() == [False, False, True]
    assert "strings" not in of_file.columns
    assert molgen.score(["CCO"], small_run.path, device="cpu", strings=2).strings.tolist() == [2]


def test_a_file_without_molecules_is_refused(small_run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty.smi").write_text("")
    with pytest.raises(molgen.MolgenError):
        molgen.score(tmp_path / "empty.smi", small_run.path, device="cpu")


def test_a_device_that_is_no_name_of_one_is_refused(small_run: Run) -> None:
    with pytest.raises(molgen.MolgenError, match="not available here"):
        molgen.sample(small_run.path, 1, device="gpu")  # type: ignore[arg-type]
