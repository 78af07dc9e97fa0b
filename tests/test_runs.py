"""What a run directory may do to the person who opens it: nothing."""

import json
import pickle
import shutil
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from molgen.errors import MolgenError
from molgen.generation.generator import MoleculeGenerator
from molgen.runs import Run, find_run
from molgen.runtime.files import write_atomically


@pytest.fixture
def run(small_run: Run, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(small_run.path, tmp_path / "run"))


def refusal(run: Path) -> str:
    with pytest.raises(MolgenError) as error:
        MoleculeGenerator.load(run, "cpu")
    assert "\n" not in str(error.value)
    return str(error.value)


def change_weights(run: Path, change) -> None:
    path = run / "model.safetensors"
    tensors = load_file(path)
    header_size = struct.unpack("<Q", path.read_bytes()[:8])[0]
    metadata = json.loads(path.read_bytes()[8 : 8 + header_size])["__metadata__"]
    change(tensors)
    save_file(tensors, path, metadata)


def test_truncated_weights_are_refused(run: Path) -> None:
    path = run / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    assert "model.safetensors" in refusal(run)


def test_a_header_that_claims_a_huge_length_is_refused(run: Path) -> None:
    (run / "model.safetensors").write_bytes(struct.pack("<Q", 2**60) + b"{}")
    assert "model.safetensors" in refusal(run)


def test_a_pickle_in_place_of_the_weights_is_refused_without_unpickling(run: Path, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "executed",))

    (run / "model.safetensors").write_bytes(pickle.dumps(Bomb()))
    assert "model.safetensors" in refusal(run)
    assert not (tmp_path / "executed").exists()


def test_weights_that_are_not_finite_are_refused_by_name(run: Path) -> None:
    change_weights(run, lambda tensors: tensors["embedding.weight"][0].fill_(float("nan")))
    assert "'embedding.weight' holds NaN" in refusal(run)


def test_a_tensor_of_another_shape_is_refused_by_name(run: Path) -> None:
    change_weights(run, lambda tensors: tensors.update({"norm.weight": torch.ones(7)}))
    assert "'norm.weight' is F32 (7,)" in refusal(run)


def test_a_missing_and_an_unknown_tensor_are_refused_by_name(run: Path) -> None:
    change_weights(run, lambda tensors: tensors.pop("norm.weight"))
    assert "'norm.weight' is missing" in refusal(run)
    change_weights(run, lambda tensors: tensors.update({"norm.weight": torch.ones(32), "extra": torch.ones(1)}))
    assert "'extra' is unknown" in refusal(run)


def test_weights_of_another_vocabulary_are_refused(run: Path) -> None:
    path = run / "tokenizer.json"
    values = json.loads(path.read_text())
    values["vocabulary"][0] = "[Xe]"
    path.write_text(json.dumps(values))
    assert "vocabulary" in refusal(run)


def test_a_configuration_that_asks_for_a_giant_is_refused_before_it_is_built(run: Path) -> None:
    path = run / "config.yaml"
    path.write_text(
        path.read_text().replace("  width: 32\n", "  width: 16384\n").replace("  blocks: 2\n", "  blocks: 256\n")
    )
    assert "model.safetensors" in refusal(run)


def test_a_directory_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MolgenError, match="not a run directory"):
        find_run(str(tmp_path))


def test_without_any_run_the_hint_is_how_to_get_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MolgenError, match="molgen train moses-mini"):
        find_run(None)


def test_the_newest_run_is_found(small_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    monkeypatch.chdir(tmp_path)
    for age, name in ((100, "older"), (0, "newer"), (200, "oldest")):
        copy = shutil.copytree(small_run.path, tmp_path / "runs" / name)
        time = (copy / "model.safetensors").stat().st_mtime - age
        os.utime(copy / "model.safetensors", (time, time))
    assert find_run(None).path.name == "newer"
    assert find_run("older").path.name == "older"


@pytest.mark.parametrize("call", ["os.fsync", "pathlib.Path.replace"])
def test_a_write_that_fails_leaves_the_old_file_and_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(call, full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_run_without_its_molecules_still_samples(run: Path) -> None:
    (run / "molecules.csv.gz").unlink()
    generator = MoleculeGenerator.load(run, "cpu")
    assert len(generator.sample(3)) == 3
    with pytest.raises(MolgenError, match="--train"):
        generator.sample(3, novel=True)
