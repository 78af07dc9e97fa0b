"""Keys of parents: a shipped run has no molecules, and `--init` still leaves out what it knows."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from conftest import SMALL, Cli
from safetensors.numpy import save_file

from molgen.chem.pool import Workers
from molgen.data.parents import load_parents, parent_smiles, save_parents
from molgen.errors import MolgenError
from molgen.runtime.hashing import keys_of

AMINES = ["C" * n + "N" for n in range(2, 42)]


def test_salts_stereoisomers_and_charged_forms_have_the_key_of_their_parent(pool: Workers) -> None:
    forms = ["C[C@H](N)C(=O)O", "C[C@@H]([NH3+])C(=O)[O-]", "CC(N)C(=O)O.Cl", "[2H]C(C)(N)C(=O)O", "CC(N)C(=O)OC", "C("]
    assert parent_smiles(forms, pool) == ["CC(N)C(=O)O"] * 4 + ["COC(=O)C(C)N", ""]


def test_a_key_is_the_blake2b_hash_of_the_parents_smiles(tmp_path: Path) -> None:
    save_parents(tmp_path / "p", ["CC(N)C(=O)O"])
    expected = int.from_bytes(hashlib.blake2b(b"CC(N)C(=O)O", digest_size=8).digest(), "little")
    assert load_parents(tmp_path / "p").keys.tolist() == [expected]


def test_the_file_holds_each_key_once_in_order_and_eight_bytes_for_each(tmp_path: Path) -> None:
    save_parents(tmp_path / "p", ["CC", "CCC", "", "CC"])
    keys = load_parents(tmp_path / "p").keys
    assert keys.tolist() == sorted(set(keys_of(["CC", "CCC"]).tolist()))
    save_parents(tmp_path / "many", [str(i) for i in range(10_000)])
    assert (tmp_path / "many").stat().st_size < 8 * 10_000 + 500


def test_molecules_of_moses_that_the_run_was_not_trained_on_are_not_known(tmp_path: Path) -> None:
    save_parents(tmp_path / "p", ["CC", "CCO"], left_out=["CCC", "CCO"])
    trained_on = load_parents(tmp_path / "p")
    assert trained_on.known(["CC", "CCC", "CCCC", "CCO", "C", ""], {"CCC", "CCCC", "CCO"}).tolist() == [
        *(True, False, True, True, False, False)
    ]
    assert trained_on.known(["CCCC"], set()).tolist() == [False]


def test_a_damaged_file_of_keys_is_refused(tmp_path: Path) -> None:
    (tmp_path / "junk").write_bytes(b"no keys")
    none = np.array([], dtype=np.uint64)
    save_file({"keys": np.array([3, 1], dtype=np.uint64), "left_out": none}, tmp_path / "unsorted")
    save_file({"keys": none, "left_out": np.array([1.0, 3.0])}, tmp_path / "float")
    save_file({"keys": none}, tmp_path / "half")
    for name in ("junk", "unsorted", "float", "half", "absent"):
        with pytest.raises(MolgenError, match="cannot be read"):
            load_parents(tmp_path / name)


def test_init_leaves_out_held_out_molecules_whose_parent_a_shipped_run_knows(cli: Cli) -> None:
    settings = [part for setting in [*SMALL, "data.min_token_count=1"] for part in ("--set", setting)]
    Path("first.smi").write_text("\n".join(AMINES) + "\n")
    assert cli("train", "first.smi", *settings, "--set", "training.epochs=1", "--out", "base").code == 0
    for name in ("molecules.csv.gz", "dropped.csv.gz", "state.safetensors"):
        Path("base", name).unlink()
    known = ["CCCCO", "CCCCCCO", "CCCCCCCCO"]
    save_parents(Path("base/parents.safetensors"), known)
    rows = [f"{'C' * n}O,train" for n in range(20, 40)] + ["CCCCCCCCO,train", "CCCC[O-],validation"]
    rows += ["CCCCCO,validation", "CCCCCCO.Cl,test", "CCCCCCCO,test"]
    Path("own.csv").write_text("smiles,split\n" + "\n".join(rows) + "\n")
    keep = ["--set", "data.charges=keep", "--set", "data.fragments=keep", "--set", "data.min_token_count=1"]
    done = cli("train", "own.csv", "--init", "base", *keep, "--set", "training.epochs=1", "--out", "tuned")
    assert done.code == 0
    assert "base knows 1 of the 21 training molecules" in done.err
    assert "2 trained on by the run to start from" in done.err
    assert "train 21, validation 1, test 1" in done.err
