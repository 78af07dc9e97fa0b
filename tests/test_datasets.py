from collections import Counter
from pathlib import Path

import pytest

from molgen.chem import clean as cleaning
from molgen.chem.pool import Workers, workers
from molgen.chem.smiles import canonical
from molgen.chem.standardize import group_of
from molgen.config import DataConfig, load_config
from molgen.data.dataset import Dataset, build_dataset
from molgen.data.download import fetch
from molgen.data.sources import read_source, reference_smiles
from molgen.errors import MolgenError


def build(config: DataConfig, longest: int, pattern: str, pool: Workers) -> Dataset:
    return build_dataset(read_source(config), config, longest, pattern, pool)


def load(pattern: str, pool: Workers, path: Path, lines: list[str], **settings: object) -> Dataset:
    path.write_text("\n".join(lines) + "\n")
    return build(DataConfig(source=str(path), **{"min_token_count": 1, **settings}), 128, pattern, pool)


GOOD = ["CCO", "CCN", "CCC", "CCCC", "CCCl", "CCBr", "CCF", "CCS"]


def test_each_drop_is_counted_under_its_reason(pattern: str, pool: Workers, tmp_path: Path) -> None:
    bad = ["C(", "SiC", "С", "CC–C", "C1C1", "C" * 129, "OCC", "CCO"]
    dataset = load(pattern, pool, tmp_path / "a.smi", GOOD + bad)
    assert dataset.dropped_by_reason == {
        cleaning.NOT_TOKENISABLE: 3,
        f"{cleaning.UNPARSABLE}: syntax": 2,
        cleaning.TOO_LONG: 1,
        cleaning.DUPLICATE: 2,
    }
    assert dataset.rows == len(GOOD) + len(bad)
    assert sorted(m.smiles for m in dataset.molecules) == sorted(map(canonical, GOOD))
    assert {d.row for d in dataset.dropped} == set(range(len(GOOD) + 1, len(GOOD) + len(bad) + 1))


def test_a_cxsmiles_extension_is_cut_and_counted_but_the_molecule_stays(
    pattern: str, pool: Workers, tmp_path: Path
) -> None:
    dataset = load(pattern, pool, tmp_path / "a.smi", [*GOOD, "CC(O)N |o1:1| x"])
    assert (dataset.dropped_by_reason, dataset.altered_by_reason) == ({}, {cleaning.STEREO_UNDEFINED: 1})
    assert ("CC(N)O", "x") in {(m.smiles, m.name) for m in dataset.molecules}


def test_a_row_altered_twice_counts_in_both_and_a_dropped_one_only_as_dropped(
    pattern: str, pool: Workers, tmp_path: Path
) -> None:
    lines = [*GOOD, "[Na+].CCCC(=O)[O-] butyrate", "[K+].CCCC(=O)[O-] again", "[13CH3]C(=O)CC"]
    dataset = load(pattern, pool, tmp_path / "a.smi", lines)
    assert dataset.altered_by_reason == {"smaller fragments cut": 1, "neutralised": 1, "isotopes stripped": 1}
    assert dataset.dropped_by_reason == {"duplicate": 1}
    assert [(d.row, d.smiles, d.name, d.reason) for d in dataset.dropped] == [
        (9, "[Na+].CCCC(=O)[O-]", "butyrate", "smaller fragments cut"),
        (9, "[Na+].CCCC(=O)[O-]", "butyrate", "neutralised"),
        (10, "[K+].CCCC(=O)[O-]", "again", "duplicate"),
        (11, "[13CH3]C(=O)CC", "", "isotopes stripped"),
    ]
    assert dataset.rows == len(lines)


def test_every_token_left_is_in_five_molecules_or_is_familiar(pattern: str, pool: Workers, tmp_path: Path) -> None:
    # S is in five molecules, but one of them has the only I, and with that one gone S is rare too
    lines = [*("C" * n for n in range(2, 12)), *("C" * n + "S" for n in range(2, 6)), "ICCCS", "CCF", "CCCF"]
    config = DataConfig(source=str(tmp_path / "a.smi"))
    (tmp_path / "a.smi").write_text("\n".join(lines))
    rows = read_source(config)
    dataset = build_dataset(rows, config, 128, pattern, pool)
    assert sorted(m.smiles for m in dataset.molecules) == sorted("C" * n for n in range(2, 12))
    assert dataset.dropped_by_reason == {cleaning.RARE_TOKEN: 7}
    with_familiar = build_dataset(rows, config, 128, pattern, pool, pretrained_tokens={"I", "F"})
    assert with_familiar.dropped_by_reason == {}
    only_f = build_dataset(rows, config, 128, pattern, pool, pretrained_tokens={"F"})
    assert {d.smiles for d in only_f.dropped} == {*("C" * n + "S" for n in range(2, 6)), "ICCCS"}


def test_rows_that_the_condition_does_not_choose_are_accounted_for_and_never_read(
    pattern: str, pool: Workers, tmp_path: Path
) -> None:
    rows = [f"{smiles},{i}" for i, smiles in enumerate(["C(", *GOOD, "C(", "", "SiC", "C1", "C(C"])]
    dataset = load(pattern, pool, tmp_path / "a.csv", ["smiles,x", *rows], where="1 <= x <= 9")
    assert dataset.dropped_by_reason == {cleaning.NOT_CHOSEN: 5, f"{cleaning.UNPARSABLE}: syntax": 1}
    assert dataset.rows == len(rows)
    assert sorted(m.smiles for m in dataset.molecules) == sorted(map(canonical, GOOD))
    assert {d.row for d in dataset.dropped if d.reason == cleaning.NOT_CHOSEN} == {2, 12, 13, 14, 15}


def test_rows_not_chosen_do_not_count_towards_the_half_that_may_be_dropped(
    pattern: str, pool: Workers, tmp_path: Path
) -> None:
    rows = [f"{smiles},{i}" for i, smiles in enumerate([*GOOD, *["C("] * 9])]
    path = tmp_path / "a.csv"
    assert load(pattern, pool, path, ["smiles,x", *rows], where="x < 8").dropped_by_reason == {cleaning.NOT_CHOSEN: 9}
    with pytest.raises(MolgenError, match="more than half of 13 rows"):
        load(pattern, pool, path, ["smiles,x", *rows], where="x >= 4")


def test_a_condition_that_chooses_no_row_is_refused(pattern: str, pool: Workers, tmp_path: Path) -> None:
    with pytest.raises(MolgenError, match="the condition x > 7 chose none of 2 rows"):
        load(pattern, pool, tmp_path / "a.csv", ["smiles,x", "CC,1", "CCC,"], where="x > 7")


def test_a_condition_chooses_among_the_rows_of_a_named_dataset() -> None:
    rows = read_source(DataConfig(source="moses-mini", where="split == 'test'"))
    assert len(rows) == 22_000
    assert sum(row.chosen for row in rows) == 1_000


def test_a_file_too_small_for_the_rule_of_rare_tokens_is_told_how_to_keep_its_molecules(
    pattern: str, pool: Workers, tmp_path: Path
) -> None:
    with pytest.raises(MolgenError, match=r"8 rare token \(.*data.min_token_count=1"):
        load(pattern, pool, tmp_path / "a.smi", GOOD, min_token_count=5)


def test_canonical_forms_are_the_default_and_strings_as_written_an_option(
    pattern: str, pool: Workers, tmp_path: Path
) -> None:
    lines = ["OCC", "NCC", "C(C)C", "OCC"]
    assert load(pattern, pool, tmp_path / "a.smi", lines).molecules[0].smiles == "CCO"
    kept = load(pattern, pool, tmp_path / "a.smi", lines, form="as-written", duplicates="keep")
    assert [m.smiles for m in kept.molecules] == lines


def test_length_is_counted_in_tokens_of_the_chosen_form(pattern: str, pool: Workers, tmp_path: Path) -> None:
    lines = ["[H]C([H])([H])C", "CCCC", "CCCCC", "CCCCCC", "ClCCBr"]
    dataset = load(pattern, pool, tmp_path / "a.smi", lines, min_tokens=3, max_tokens=5)
    assert dataset.dropped_by_reason == {cleaning.TOO_SHORT: 1, cleaning.TOO_LONG: 1}


def test_related_molecules_never_stand_on_two_sides(pattern: str, pool: Workers, tmp_path: Path) -> None:
    lines = []
    for n in range(1, 41):
        chain = "C" * n
        lines += [f"{chain}C(N)C(=O)O", f"{chain}[C@H](N)C(=O)O", f"{chain}[C@@H](N)C(=O)[O-].[Na+]"]
    dataset = load(pattern, pool, tmp_path / "a.smi", lines, fragments="keep", charges="keep")
    sides: dict[str | None, set[str]] = {}
    for molecule in dataset.molecules:
        sides.setdefault(group_of(molecule.smiles, 2), set()).add(molecule.split)
    assert len(sides) == 40
    assert all(len(found) == 1 for found in sides.values())
    assert set(dataset.sizes) == {"train", "validation", "test"}


def test_the_parent_has_no_salt_charge_or_stereo() -> None:
    assert group_of("C[C@H](N)C(=O)[O-].[Na+]", 1) == "CC(N)C(=O)O"
    assert group_of("F/C=C/F", 1) == "FC=CF"
    assert group_of("C(", 1) == "C("


def test_the_split_depends_on_its_own_seed_only(
    pattern: str, pool: Workers, tmp_path: Path, moses_mini: list[str]
) -> None:
    a, b, c = (load(pattern, pool, tmp_path / "a.smi", moses_mini[:200], split_seed=seed) for seed in (0, 0, 1))
    assert a == b
    assert a.sha256 == b.sha256 != c.sha256
    assert a.sizes == {"train": 160, "validation": 20, "test": 20}


def test_the_split_does_not_depend_on_the_order_of_the_rows(
    pattern: str, pool: Workers, tmp_path: Path, moses_mini: list[str]
) -> None:
    a = load(pattern, pool, tmp_path / "a.smi", moses_mini[:100])
    b = load(pattern, pool, tmp_path / "b.smi", moses_mini[99::-1])
    assert {(m.smiles, m.split) for m in a.molecules} == {(m.smiles, m.split) for m in b.molecules}


def test_a_split_column_is_followed_and_validation_taken_from_its_training_part(
    pattern: str, pool: Workers, tmp_path: Path
) -> None:
    rows = [f"{'C' * n},{'test' if n % 4 == 0 else 'train'}" for n in range(1, 41)]
    dataset = load(pattern, pool, tmp_path / "a.csv", ["smiles,split", *rows])
    assert dataset.sizes == {"train": 29, "validation": 1, "test": 10}
    assert all(len(m.smiles) % 4 == 0 for m in dataset.molecules if m.split == "test")


def test_an_unknown_split_is_refused_with_its_line(pattern: str, pool: Workers, tmp_path: Path) -> None:
    with pytest.raises(MolgenError, match="line 3: split 'holdout'"):
        load(pattern, pool, tmp_path / "a.csv", ["smiles,split", "CC,train", "CCC,holdout"])


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([], "no molecules in it"),
        (["smiles"], "no molecules in it"),
        (["C(", "C1", "cc1"], "3 not parsed by RDKit: syntax"),
        (["CC", "CCC"], "cannot be split"),
        (["CC", "CCC", "CCCC", "C(", "C(", "C(", "C(", "C("], "more than half"),
    ],
)
def test_a_file_that_cannot_be_trained_on_is_refused_with_counts(
    pattern: str, pool: Workers, tmp_path: Path, lines: list[str], said: str
) -> None:
    with pytest.raises(MolgenError, match=said):
        load(pattern, pool, tmp_path / "a.smi", lines)


def test_sizes_that_exceed_the_file_are_refused(pattern: str, pool: Workers, tmp_path: Path) -> None:
    with pytest.raises(MolgenError, match="train_size"):
        load(pattern, pool, tmp_path / "a.smi", GOOD, train_size=100)


def test_of_a_files_own_splits_no_more_stay_than_asked_for_and_the_others_are_counted(
    pattern: str, pool: Workers, tmp_path: Path
) -> None:
    chains = ["C" * n for n in range(1, 41)]  # nothing in common but carbon: 20, 12 and 8 molecules
    splits = ["train"] * 20 + ["valid"] * 12 + ["test"] * 8
    lines = ["smiles,split", *(f"{c},{s}" for c, s in zip(chains, splits, strict=True))]
    whole = load(pattern, pool, tmp_path / "a.csv", lines)
    part = load(pattern, pool, tmp_path / "a.csv", lines, train_size=5, validation_size=7)
    assert whole.sizes == {"train": 20, "validation": 12, "test": 8}
    assert part.sizes == {"train": 5, "validation": 7, "test": 8}
    assert part.dropped_by_reason == {cleaning.BEYOND_SIZE: 20}
    assert part.rows == whole.rows == 40
    assert set(part.split("train")) < set(whole.split("train"))
    assert part.split("test") == whole.split("test")
    other = load(pattern, pool, tmp_path / "a.csv", lines, train_size=5, validation_size=7, split_seed=1)
    assert other.split("train") != part.split("train")


def test_a_row_that_is_altered_and_then_beyond_the_size_counts_only_as_dropped(
    pattern: str, pool: Workers, tmp_path: Path
) -> None:
    lines = ["smiles,split", *(f"[Na+].{'C' * n}C(=O)[O-],train" for n in range(1, 21)), "CCO,validation", "CCN,test"]
    dataset = load(pattern, pool, tmp_path / "a.csv", lines, train_size=6)
    assert dataset.altered_by_reason == {"smaller fragments cut": 6, "neutralised": 6}
    assert dataset.dropped_by_reason == {cleaning.BEYOND_SIZE: 14}


def test_molecules_of_one_parent_stay_or_go_together_when_a_split_is_cut(
    pattern: str, pool: Workers, tmp_path: Path
) -> None:
    pairs = [(f"C[C@H](F){'C' * n}Cl", f"C[C@@H](F){'C' * n}Cl") for n in range(2, 12)]
    lines = ["smiles,split", *(f"{smiles},train" for pair in pairs for smiles in pair), "CCO,validation", "CCN,test"]
    kept = load(pattern, pool, tmp_path / "a.csv", lines, train_size=6, min_token_count=1).split("train")
    assert len(kept) == 6
    assert len({smiles.replace("@", "") for smiles in kept}) == 3


def test_more_than_a_files_own_split_has_is_refused(pattern: str, pool: Workers, tmp_path: Path) -> None:
    lines = ["smiles,split", *(f"{'C' * n},train" for n in range(1, 21)), "CCO,test"]
    with pytest.raises(MolgenError, match=r"data\.train_size = 20, but it has 19"):  # one of them validates
        load(pattern, pool, tmp_path / "a.csv", lines, train_size=20)


def test_a_name_that_is_neither_dataset_nor_file_is_refused() -> None:
    with pytest.raises(MolgenError, match="tox21, moses, moses-mini"):
        read_source(DataConfig(source="tox22"))


def test_the_bundled_moses_mini_has_its_sizes_and_no_molecule_twice() -> None:
    splits = {split: reference_smiles("moses-mini", split) for split in ("train", "test", "test_scaffolds")}
    assert {name: len(smiles) for name, smiles in splits.items()} == {
        "train": 20_000,
        "test": 1_000,
        "test_scaffolds": 1_000,
    }
    assert len(set().union(*splits.values())) == 22_000


@pytest.mark.usefixtures("tox21")
def test_tox21_splits_into_the_sizes_of_the_definition(pattern: str, pool: Workers) -> None:
    config = load_config("tox21")
    dataset = build(config.data, config.model.context, pattern, pool)
    assert dataset.rows == 8_014
    assert dataset.sizes["train"] == 6_200
    assert dataset.sizes["validation"] == 400
    assert 640 <= dataset.sizes["test"] <= 660
    unparsable = {k: n for k, n in dataset.dropped_by_reason.items() if k.startswith(cleaning.UNPARSABLE)}
    assert sum(unparsable.values()) == 8


@pytest.mark.usefixtures("tox21")
def test_the_source_texts_tox21_has_7422_molecules(pattern: str, pool: Workers) -> None:
    config = load_config("tomczak")
    dataset = build(config.data, config.model.context, pattern, pool)
    assert dataset.sizes == {"train": 6_600, "validation": 400, "test": 422}
    assert Counter(m.smiles for m in dataset.molecules).most_common(1)[0][1] > 1


def test_tox21_without_a_network_says_where_to_put_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setenv("MOLGEN_DATA", str(tmp_path / "data"))
    monkeypatch.setattr("urllib.request.urlopen", unreachable)
    with pytest.raises(MolgenError) as error:
        fetch("tox21")
    assert str(tmp_path / "data" / "tox21.csv.gz") in str(error.value)
    assert "moses-mini" in str(error.value)


def test_a_moses_wheel_with_another_hash_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import subprocess

    def fake_pip(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        (Path(command[command.index("--dest") + 1]) / "molsets-0.3.1-py3-none-any.whl").write_bytes(b"not it")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setenv("MOLGEN_DATA", str(tmp_path))
    monkeypatch.setattr("subprocess.run", fake_pip)
    with pytest.raises(MolgenError, match="sha256"):
        fetch("moses")
    assert not list(tmp_path.rglob("*.csv*"))


def test_many_molecules_are_cleaned_once_until_a_setting_changes(
    pattern: str, pool: Workers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("molgen.runtime.cache.LARGE", 10)
    monkeypatch.setenv("MOLGEN_DATA", str(tmp_path))
    lines = [*GOOD, "C(", "OCC", "CC(O)N |o1:1| x"]
    first = load(pattern, pool, tmp_path / "a.smi", lines)
    with workers(1) as ended:
        pass  # a pool that can clean nothing
    assert load(pattern, ended, tmp_path / "a.smi", lines) == first
    assert first.dropped_by_reason == {f"{cleaning.UNPARSABLE}: syntax": 1, cleaning.DUPLICATE: 1}
    assert first.altered_by_reason == {cleaning.STEREO_UNDEFINED: 1}
    with pytest.raises(RuntimeError, match="shutdown"):
        load(pattern, ended, tmp_path / "a.smi", lines, max_tokens=4)
    assert load(pattern, pool, tmp_path / "a.smi", lines, max_tokens=4).dropped_by_reason[cleaning.TOO_LONG] == 1
