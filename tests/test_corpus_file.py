"""The encoded corpus as a file: what is in it, what trains from it, and what becomes of a damaged one."""

import hashlib
import json
import shutil
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SMALL, Cli
from safetensors import safe_open
from safetensors.numpy import load_file
from test_processes import assert_alike, torchrun

from molgen import runs
from molgen.chem.smiles import random_form
from molgen.config import Config, DataConfig, load_config
from molgen.data import encoded_file as corpus_file
from molgen.data.batches import Corpus, bucketed_batches, epoch_steps, random_batches
from molgen.data.dataset import Dataset
from molgen.data.encoded_file import CorpusFile, corpus_writer
from molgen.errors import MolgenError
from molgen.runs import Run
from molgen.tokenizer import SmilesTokenizer
from molgen.training import setup as starting
from molgen.training import trainer as training
from molgen.training.train import train

RNG = np.random.default_rng
EPOCHS = ["training.epochs=2", "training.batch_size=16"]
RANDOM = ["training.randomized=0.8", "training.randomized_end=0.4"]


def options(*settings: str) -> list[str]:
    return [part for setting in settings for part in ("--set", setting)]


def config_for(path: Path, *more: str) -> Config:
    plain = [setting for setting in SMALL if "randomized" not in setting]
    return load_config(None, [*plain, *EPOCHS, *more], {"data.source": str(path)})


def weights(run: Run) -> bytes:
    return (run.path / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def encoded(small_file: Path, tmp_path_factory: pytest.TempPathFactory, pool) -> Path:
    """The 200 molecules, encoded with random forms in mind."""
    from molgen.data.prepare import write_encoded

    path = tmp_path_factory.mktemp("encoded") / "small.molgen"
    write_encoded(load_config(None, [], {"data.source": str(small_file)}), path, pool)
    return path


def write(path: Path, tokenizer: SmilesTokenizer, molecules: list[tuple[str, str]]) -> Path:
    with corpus_writer(path, tokenizer, DataConfig(source="made")) as writer:
        for split, smiles in molecules:
            writer.add(split, smiles)
    return path


def test_the_arrays_are_those_of_a_safetensors_file_and_the_header_counts(tmp_path: Path, pattern: str) -> None:
    tokenizer = SmilesTokenizer(pattern, ["C", "N", "O"], randomized=True)  # ids 4, 5, 6 after the four special ones
    path = tmp_path / "three.molgen"
    with corpus_writer(path, tokenizer, DataConfig(source="made")) as writer:
        assert writer.add("train", "CCO")
        assert writer.add("train", "OC", random=True, ids=[6, 4])
        assert not writer.add("validation", "CF")
        assert writer.add("test", "N")
        writer.altered["charge removed"] = 2
    arrays = load_file(path)
    assert arrays["ids"].tolist() == [1, 4, 4, 6, 2, 3, 6, 4, 2, 1, 5, 2, 0, 0, 0, 0]  # padded to a multiple of eight
    assert arrays["offsets"].tolist() == [0, 5, 9, 12]
    with safe_open(path, "np") as file:
        summary = json.loads(file.metadata()["summary"])
    assert summary == {
        "sha256": hashlib.sha256(b"CCO train\nOC train\nN test").hexdigest(),
        "rows": 4,
        "sizes": {"train": 2, "test": 1},
        "dropped": {"token that training lacks": 1},
        "altered": {"charge removed": 2},
    }
    opened = CorpusFile(path)
    assert opened.tokenizer.to_json() == tokenizer.to_json()
    assert opened.check(2)[:3] == (3, 1, 1)  # longest, longer than the context, random
    assert [(m.smiles, m.split, m.row) for m in opened.molecules()] == [
        ("CCO", "train", 1),
        ("OC", "train", 2),
        ("N", "test", 3),
    ]
    assert opened.spread("train", 10) == ["CCO"]  # the random form is not what follows <bos>
    assert [one.name for one in tmp_path.iterdir()] == ["three.molgen"]


def test_molecules_come_back_in_their_splits(encoded: Path, small_run: Run) -> None:
    opened = CorpusFile(encoded)
    for split in ("train", "validation", "test"):
        assert opened.strings(split) == small_run.split(split)
    assert opened.summary.sha256 == Dataset("", tuple(opened.molecules()), ()).sha256


def test_more_than_256_tokens_take_two_bytes_each(tmp_path: Path, pattern: str) -> None:
    tokenizer = SmilesTokenizer(pattern, ["C", *(f"[{n}C]" for n in range(1, 300))], randomized=False)
    opened = CorpusFile(write(tmp_path / "many.molgen", tokenizer, [("train", "[299C]C")]))
    assert opened.split("train").ids.tolist() == [1, 3 + 299, 3, 2]
    assert opened.strings("train") == ["[299C]C"]


def test_splits_out_of_order_are_a_fault(tmp_path: Path, pattern: str) -> None:
    tokenizer = SmilesTokenizer(pattern, ["C"], randomized=False)
    with pytest.raises(ValueError, match="train molecules come before"):
        write(tmp_path / "x.molgen", tokenizer, [("test", "C"), ("train", "CC")])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("more", [(), RANDOM])
def test_a_training_on_the_file_is_the_training_on_its_source(
    cli: Cli, small_file: Path, tmp_path: Path, more: list[str]
) -> None:
    chosen = more or ["training.randomized=0.0", "training.randomized_end=0.0"]
    done = cli("data", "encode", small_file, "-o", "small.molgen", *options(*chosen))
    assert done.code == 0, done.err
    assert "200 rows into small.molgen: train " in done.err
    direct = train(config_for(small_file, *chosen), tmp_path / "direct")
    run = train(config_for(tmp_path / "small.molgen", *more), tmp_path / "run")  # random forms only if asked for
    assert weights(run) == weights(direct)
    assert run.config.training == direct.config.training
    assert [row["val_nll"] for row in run.log()] == [row["val_nll"] for row in direct.log()]
    assert run.split("test") == direct.split("test")
    for key in ("rows", "sizes", "dropped", "altered", "validation", "steps"):
        assert run.report[key] == direct.report[key]
    assert run.report["encoded_from"] == str(small_file)
    assert f"{small_file}, encoded in {tmp_path / 'small.molgen'}: 200 rows" in (run.path / "README.md").read_text()


def test_a_training_on_the_file_starts_no_rdkit_and_no_deepchem(
    encoded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError

    for name in ("machine.shared_workers", "training.setup._encoded"):
        monkeypatch.setattr(f"molgen.{name}", forbidden)
    for name in ("deepchem_pattern", "read_source", "build_dataset"):
        monkeypatch.setattr(starting, name, forbidden)
    run = train(config_for(encoded), tmp_path / "run")
    assert run.config.training.randomized == run.config.training.randomized_end == 0


def test_the_file_is_recognised_under_any_name(encoded: Path, tmp_path: Path, cli: Cli) -> None:
    shutil.copy(encoded, tmp_path / "corpus.csv")
    assert train(config_for(tmp_path / "corpus.csv"), tmp_path / "run").report["encoded_from"].endswith("small.smi")
    refused = cli("data", "describe", encoded)
    assert (refused.code, "encoded already" in refused.err) == (2, True)


def test_encode_refuses_other_names_and_what_exists_and_counts_what_it_leaves_out(cli: Cli, tmp_path: Path) -> None:
    rows = [f"{'C' * n}O,train" for n in range(1, 9)] + ["CCCl,validation", "CCCCCCCCCO,validation", "CF,test"]
    (tmp_path / "own.csv").write_text("\n".join(["smiles,split", *rows]) + "\n")
    keep = options("data.min_token_count=1")
    other = cli("data", "encode", "own.csv", "-o", "own.smi", *keep)
    assert (other.code, ".molgen" in other.err) == (2, True)
    done = cli("data", "encode", "own.csv", "-o", "own.molgen", *keep)
    assert "11 rows into own.molgen: train 8, validation 1" in done.err
    assert "held-out molecules with a token that training lacks: 2 left out" in done.err
    again = cli("data", "encode", "own.csv", "-o", "own.molgen", *keep)
    assert (again.code, "own.molgen: exists" in again.err) == (2, True)
    assert cli("data", "encode", "own.csv", "-o", "own.molgen", "--force", *keep).code == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--set", "data.stereo=strip"], "data.stereo: strip in the configuration, keep in"),
        (["--smiles-column", "smiles"], "data.smiles_column: smiles in the configuration"),
        (["--where", "x > 1"], "data.where: x > 1 in the configuration"),
        (["--set", "model.context=20"], "are longer than model.context 20 (--set model.context=4"),
        (["--init", "runs/none"], "--init cannot use it"),
        (["--set", "data.sha256=abc"], "data.sha256: abc in the configuration"),
    ],
)
def test_what_was_settled_when_the_file_was_made_is_refused(
    cli: Cli, encoded: Path, tmp_path: Path, arguments: list[str], said: str
) -> None:
    done = cli("train", encoded, "--out", "run", *arguments)
    assert done.code == 2
    assert said in done.err
    assert "Traceback" not in done.err
    assert not (tmp_path / "run").exists()


def test_a_setting_that_the_file_was_made_with_may_be_named(encoded: Path, tmp_path: Path) -> None:
    assert train(config_for(encoded, "data.stereo=keep", "training.epochs=1"), tmp_path / "run").report


def test_random_forms_need_a_vocabulary_for_them_and_few_enough_strings(
    encoded: Path, tmp_path: Path, pattern: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = SmilesTokenizer(pattern, ["C"], randomized=False)
    plain = write(tmp_path / "plain.molgen", tokenizer, [("train", "C"), ("validation", "CC")])
    with pytest.raises(MolgenError, match="without random forms in mind"):
        train(config_for(plain, *RANDOM), tmp_path / "run")
    for module in (starting, corpus_file):
        monkeypatch.setattr(module, "MOST_AS_STRINGS", 100)
    with pytest.raises(MolgenError, match="too many to be written otherwise"):
        train(config_for(encoded, *RANDOM), tmp_path / "run")


def flip(index: int, value: int) -> Callable[[bytearray], None]:
    """Sets an id, counted from the start of the arrays."""

    def change(content: bytearray) -> None:
        content[8 + int.from_bytes(content[:8], "little") + index] = value

    return change


def swap_offsets(content: bytearray) -> None:
    content[-16:-8], content[-24:-16] = content[-24:-16], content[-16:-8]


def in_header(old: bytes, new: bytes) -> Callable[[bytearray], None]:
    def change(content: bytearray) -> None:
        assert content.count(old) == 1
        content[:] = content.replace(old, new)

    return change


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.clear(),
        lambda content: content.__delitem__(slice(100, None)),
        lambda content: content.__delitem__(slice(-8, None)),
        lambda content: content.extend(b"\0" * 8),
        lambda content: content.__setitem__(slice(0, 8), (2**60).to_bytes(8, "little")),
        lambda content: content.__setitem__(slice(0, None), b"smiles\nCCO\n"),
        lambda content: content.__setitem__(slice(8, 9), b"["),
        swap_offsets,
        flip(0, 2),  # no start
        flip(1, 2),  # an <eos> amid a molecule
        flip(1, 0),  # a <pad>
        flip(1, 255),  # beyond the vocabulary
        in_header(b'"U8"', b'"I8"'),
        in_header(b'"dtype": "I64", "shape": [', b'"dtype": "I64", "shape": [9'),
        in_header(b'"data_offsets": [0, ', b'"data_offsets": [8, '),
        in_header(b'\\"train\\":', b'\\"trait\\":'),
        in_header(b"molgen corpus 1", b"molgen corpus 2"),
        in_header(b'\\"source\\":', b'\\"sauce\\": '),
        in_header(b'"special\\"', b'"spatial\\"'),
    ],
)
def test_a_damaged_file_is_one_line_and_exit_code_2(
    cli: Cli, encoded: Path, tmp_path: Path, change: Callable[[bytearray], None]
) -> None:
    content = bytearray(encoded.read_bytes())
    change(content)
    (tmp_path / "bad.molgen").write_bytes(content)
    done = cli("train", "bad.molgen", "--out", "run")
    assert done.code == 2
    assert "bad.molgen: " in done.err.splitlines()[-1]
    assert "Traceback" not in done.err
    assert not (tmp_path / "run").exists()


def test_a_file_that_is_not_there_is_said(cli: Cli) -> None:
    done = cli("train", "none.molgen")
    assert (done.code, len(done.err.splitlines())) == (2, 1)
    assert "none.molgen: cannot be read: No such file" in done.err


@pytest.mark.parametrize("cut", [bucketed_batches, random_batches])
def test_an_epoch_in_windows_sees_each_molecule_once(encoded: Path, cut) -> None:
    mapped = CorpusFile(encoded).split("train")
    loaded = Corpus(np.array(mapped.ids), np.array(mapped.offsets))
    assert len(mapped) > 3 * 50
    seen, shares, sizes = [], [], set()
    for (behind, window, parts), (_, same, same_parts) in zip(
        epoch_steps(mapped, cut, 8, RNG(1), window=50),
        epoch_steps(loaded, cut, 8, RNG(1), window=50),
        strict=True,
    ):
        for rows, same_rows in zip(parts, same_parts, strict=True):
            ids = window.padded(rows)
            assert np.array_equal(ids, same.padded(same_rows))
            seen += [row[row > 0].tolist() for row in ids]
        shares.append(behind)
        sizes.add(len(window))
    molecules = np.split(loaded.ids[: loaded.offsets[-1]], loaded.offsets[1:-1])
    assert sorted(seen) == sorted(molecule.tolist() for molecule in molecules)
    assert shares == sorted(shares)
    assert shares[0] == 0 < shares[-1] < 1
    assert max(sizes) <= 50


def test_no_array_of_the_size_of_the_corpus_is_made() -> None:
    offsets = np.arange(0, 10 * 1_500_001, 10)
    corpus = Corpus(np.full(offsets[-1], 5, np.uint8), offsets)
    tracemalloc.start()
    molecules = sum(len(rows) for _, _, (rows,) in epoch_steps(corpus, bucketed_batches, 64, RNG(1), window=30_000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert molecules == 1_500_000 == corpus.all_positions / 9
    assert peak < 0.5 * corpus.offsets.nbytes


def test_a_corpus_that_fits_into_a_window_is_cut_as_a_whole(encoded: Path) -> None:
    corpus = CorpusFile(encoded).split("train")
    steps = list(epoch_steps(corpus, bucketed_batches, 8, RNG(1), window=len(corpus)))
    whole = bucketed_batches(corpus.positions, 8, RNG(1))
    assert [behind for behind, _, _ in steps] == [i / len(whole) for i in range(len(whole))]
    assert all(window is corpus for _, window, _ in steps)
    assert all(np.array_equal(a, b) for (_, _, (a,)), (b,) in zip(steps, whole, strict=True))


def test_a_training_in_windows_learns_and_goes_on_exactly(
    encoded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "epoch_steps", partial(epoch_steps, window=50))
    monkeypatch.setattr(starting, "MOST_COPIED", 10)
    whole = train(config_for(encoded, "training.epochs=4", "training.learning_rate=1e-2"), tmp_path / "whole")
    assert whole.log()[-1]["val_nll"] < 0.9 * whole.log()[0]["val_nll"]
    epoch = training.Trainer.train_epoch

    def stops_in_the_third(trainer: training.Trainer, corpus: Corpus) -> tuple[float, float]:
        if trainer.state.epoch == 2:
            raise KeyboardInterrupt
        return epoch(trainer, corpus)

    monkeypatch.setattr(training.Trainer, "train_epoch", stops_in_the_third)
    with pytest.raises(KeyboardInterrupt):
        train(whole.config, tmp_path / "stopped")
    monkeypatch.setattr(training.Trainer, "train_epoch", epoch)
    assert weights(train(Config(), tmp_path / "stopped", resume=True)) == weights(whole)


@pytest.fixture
def naming(encoded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run that names its file, as one on a large file does."""
    monkeypatch.setattr(starting, "MOST_COPIED", 10)
    monkeypatch.chdir(tmp_path)
    shutil.copy(encoded, "own.molgen")
    return train(config_for(Path("own.molgen")), tmp_path / "run")


def test_a_run_that_names_its_file_reads_its_molecules_from_there(naming: Run, small_run: Run, cli: Cli) -> None:
    assert not (naming.path / "molecules.csv.gz").exists()
    assert naming.split("test") == small_run.split("test")
    done = cli("eval", naming.path, "-n", "50", "--json", "x.json")
    assert done.code == 0, done.err
    figures = json.loads(Path("x.json").read_text())
    assert figures["n_held_out"] == len(small_run.split("test"))
    assert figures["nll_train"] > 0
    assert cli("sample", naming.path, "-n", "5", "--novel").code in (0, 1)  # poor molecules may all be invalid
    card = (naming.path / "README.md").read_text()
    assert CorpusFile(Path("own.molgen")).summary.sha256 in card


def test_without_its_file_such_a_run_still_samples_and_says_what_it_lacks(
    naming: Run, cli: Cli, pattern: str, tmp_path: Path
) -> None:
    Path("own.molgen").unlink()
    assert cli("sample", naming.path, "-n", "5").code == 0
    novel = cli("sample", naming.path, "-n", "5", "--novel")
    assert (novel.code, "own.molgen: cannot be read" in novel.err) == (2, True)
    done = cli("eval", naming.path, "-n", "50", "--json", "x.json")
    assert done.code == 0, done.err
    assert "own.molgen: cannot be read" in json.loads(Path("x.json").read_text())["reasons"]["nll"]
    (naming.path / "report.json").unlink()
    gone = cli("train", "--resume", "--out", naming.path)
    assert (gone.code, "own.molgen: cannot be read" in gone.err) == (2, True)
    write(tmp_path / "own.molgen", SmilesTokenizer(pattern, ["C"], False), [("train", "C"), ("validation", "CC")])
    other = cli("train", "--resume", "--out", naming.path)
    assert (other.code, "own.molgen: its molecules are not those of the run" in other.err) == (2, True)


def test_too_many_training_molecules_leave_their_figures_out(
    naming: Run, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus_file, "MOST_AS_STRINGS", 100)
    done = cli("eval", naming.path, "-n", "50", "--json", "x.json")
    assert done.code == 0, done.err
    figures = json.loads(Path("x.json").read_text())
    assert figures["nll"] > 0
    assert figures["nll_train"] > 0  # of evenly spaced ones
    assert figures["novelty"] is None
    assert any("train molecules are too many to be held as strings" in note for note in figures["notes"])
    assert cli("sample", naming.path, "-n", "5").code == 0
    novel = cli("sample", naming.path, "-n", "5", "--novel")
    assert (novel.code, "--train" in novel.err) == (2, True)


def test_a_file_of_random_forms_trains_and_is_not_copied_as_strings(
    tmp_path: Path, pattern: str, moses_mini: list[str]
) -> None:
    tokenizer = SmilesTokenizer.of_corpus(moses_mini, pattern, randomized=True)
    path = tmp_path / "forms.molgen"
    with corpus_writer(path, tokenizer, DataConfig(source="moses-mini", form="as-written")) as writer:
        for smiles in moses_mini[:60]:
            writer.add("train", random_form(smiles, 1) or smiles, random=True)
        for smiles in moses_mini[60:80]:
            writer.add("validation", smiles)
    run = train(config_for(path), tmp_path / "run")
    assert run.report["sizes"] == {"train": 60, "validation": 20}
    assert not (run.path / runs.MOLECULES).exists()
    starts = CorpusFile(path).split("train").batch(np.arange(60), torch.device("cpu")).inputs[:, 0]
    assert set(starts.tolist()) == {tokenizer.random_start}
    with pytest.raises(MolgenError, match=r"needs data\.form: canonical"):
        train(config_for(path, *RANDOM), tmp_path / "again")


@pytest.mark.slow
def test_two_processes_train_on_a_file_as_one_does(encoded: Path, tmp_path: Path) -> None:
    same = ["training.batch_size=15", "training.precision=fp32", "training.schedule=constant", "training.warmup=0"]
    same += ["training.optimizer=adamw"]  # Muon computes in bfloat16, where another order of sums is another figure
    one = train(config_for(encoded, *same), tmp_path / "one")
    plain = [setting for setting in SMALL if "randomized" not in setting]
    code, _, err = torchrun(tmp_path, "train", encoded, "--out", "two", *options(*plain, *EPOCHS, *same))
    assert code == 0, err
    assert_alike(one, Run(tmp_path / "two"))
