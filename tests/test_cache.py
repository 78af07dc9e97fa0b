"""What is computed once and kept: believed only where it is whole, ours and of this version; bounded; cleared."""

import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import Cli

import molgen
from molgen.evaluation.evaluate import Evaluation
from molgen.runtime import cache

SAMPLES = ["CCO", "CCN", "CCCC", "c1ccccc1", "CCCl", "C("]
TRAINING = ["OCC", "NCC", "CCCCC", "Cc1ccccc1"]
ROOT = hasattr(os, "getuid") and os.getuid() == 0


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MOLGEN_DATA", str(tmp_path / "data"))
    return tmp_path / "data" / "cache"


def figures() -> Evaluation:
    return molgen.evaluate(SAMPLES, metrics=["basic", "chem"], training=TRAINING)


def entries(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file())


def with_header(content: bytes, change: dict[str, object]) -> bytes:
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length]) | change
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content[8 + length :]


def cut_to_no_rows(content: bytes) -> bytes:
    """A well-formed file of the same names and types in which every array has no rows."""
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    for name, entry in header.items():
        if name != "__metadata__":
            entry["shape"], entry["data_offsets"] = [0, *entry["shape"][1:]], [0, 0]
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text


DAMAGE = {
    "empty": lambda _: b"",
    "cut short": lambda content: content[: len(content) // 2],
    "no rows": cut_to_no_rows,
    "a bit turned": lambda content: content[:-1] + bytes([content[-1] ^ 1]),
    "longer": lambda content: content + b"\0" * 8,
    "a header of 2^60 bytes": lambda content: struct.pack("<Q", 2**60) + content[8:],
    "no header": lambda content: b"PK\x03\x04" + content,
    "another shape": lambda content: with_header(
        content, {"n": {"dtype": "I64", "shape": [2**60], "data_offsets": [0, 2**63]}}
    ),
    "a list for a header": lambda content: with_header(content, {"__metadata__": ["format"]}),
    "words for numbers": lambda content: with_header(content, {"n": {"dtype": 3, "shape": "x", "data_offsets": None}}),
    "another format": lambda content: content.replace(b"molgen cache 2", b"molgen cache 1"),
}


@pytest.fixture
def kept(data: Path) -> Iterator[tuple[Path, Evaluation]]:
    first = figures()
    assert first.figures.values["novelty"] == 3 / 5  # CCO and CCN are known
    yield data, first


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_entry_is_computed_anew_and_replaced(kept: tuple[Path, Evaluation], damage) -> None:
    folder, first = kept
    whole = {path: path.read_bytes() for path in entries(folder)}
    assert whole
    for path, content in whole.items():
        path.write_bytes(damage(content))
    assert figures().figures == first.figures
    assert {path: path.read_bytes() for path in entries(folder)} == whole


def test_an_entry_of_another_set_under_this_ones_name_is_not_believed(kept: tuple[Path, Evaluation]) -> None:
    folder, first = kept
    known = next(path for path in entries(folder) if path.name.startswith("known"))
    molgen.evaluate(SAMPLES, metrics=["basic", "chem"], training=["CCCC", "CCCCCCCC"])
    other = next(path for path in entries(folder) if path.name.startswith("known") and path != known)
    known.write_bytes(other.read_bytes())
    assert figures().figures == first.figures


def test_a_link_a_folder_or_a_fifo_in_place_of_an_entry_is_not_read(kept: tuple[Path, Evaluation]) -> None:
    folder, first = kept
    *_, path = entries(folder)
    path.rename(folder / "elsewhere")
    path.symlink_to(folder / "elsewhere")
    assert figures().figures == first.figures
    assert not path.is_symlink()
    path.unlink()
    os.mkfifo(path)
    assert figures().figures == first.figures
    path.unlink()
    path.mkdir()
    assert figures().figures == first.figures


@pytest.mark.skipif(not ROOT, reason="to make a file another user's takes root")
def test_an_entry_of_another_user_is_not_believed_and_that_is_said(
    kept: tuple[Path, Evaluation], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, first = kept
    for path in entries(folder):
        os.chown(path, 12345, 12345)
    capsys.readouterr()
    assert figures().figures == first.figures
    assert capsys.readouterr().err.count("of another user") == 1
    assert {path.stat().st_uid for path in entries(folder)} == {0}


def test_an_entry_that_others_may_write_is_not_believed(
    kept: tuple[Path, Evaluation], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, first = kept
    assert {path.stat().st_mode & 0o022 for path in entries(folder)} == {0}
    entries(folder)[0].chmod(0o666)
    assert figures().figures == first.figures
    assert "others may write it" in capsys.readouterr().err


def test_beyond_the_limit_those_go_that_were_used_longest_ago_and_only_ours(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def keep(key: str) -> None:
        cache.cached(data, "known", [key], lambda: {"a": np.zeros(100_000, np.uint8)}, lambda arrays: arrays)

    def entry(key: str) -> Path:
        return data / f"known-{cache.fingerprint([key])[:20]}.safetensors"

    monkeypatch.setattr(cache, "MOST_BYTES", 350_000)
    data.mkdir(parents=True)
    (data / "known-00000000000000000000.safetensors").write_bytes(b"somebody else's" * 100_000)
    (data / "notes.txt").write_bytes(b"mine" * 100_000)
    for age, key in enumerate("abc"):
        keep(key)
        os.utime(entry(key), (1e6 + age, 1e6 + age))
    others = set(entries(data)) - {entry(key) for key in "abc"}
    keep("a")  # is there, and now used last
    keep("d")
    assert set(entries(data)) == others | {entry(key) for key in "acd"}


def test_clear_cache_deletes_entries_old_and_new_and_nothing_else(cli: Cli, kept: tuple[Path, Evaluation]) -> None:
    folder, _ = kept
    ours = entries(folder)
    old = folder / "known-0123456789abcdef0123.npz"
    np.savez(old, a=np.arange(3))
    begun = folder / f".{ours[0].name}.01234567"  # killed while it was written
    begun.write_bytes(ours[0].read_bytes()[:200])
    others = {
        folder / "known-0123456789abcdef9999.npz": b"not a zip archive",
        folder / "results.npz": old.read_bytes(),
        folder / "known-0123456789abcdef0123.safetensors": b"\x10\0\0\0\0\0\0\0" + b'{"__metadata__":{}}',
        folder.parent / "tox21.csv.gz": b"fetched",
        folder.parent / "known-0123456789abcdef0123.npz": old.read_bytes(),
    }
    for path, content in others.items():
        path.write_bytes(content)
    done = cli("data", "clear-cache")
    assert done.code == 0, done.err
    assert f"{len(ours) + 2} entries deleted" in done.err
    assert not any(path.exists() for path in [*ours, old, begun])
    assert all(path.read_bytes() == content for path, content in others.items())
    assert cli("data", "clear-cache").err.startswith("0 entries deleted")


def test_a_cache_that_cannot_be_written_is_said_and_does_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MOLGEN_DATA", str(tmp_path / "file"))
    assert figures().figures.values["novelty"] == 3 / 5
    assert "cannot be kept" in capsys.readouterr().err
