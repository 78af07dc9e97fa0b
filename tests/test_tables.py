import gzip
from pathlib import Path

import pytest

from molgen.errors import MolgenError
from molgen.tables import Row, read_rows, read_samples


def write(path: Path, content: str | bytes) -> str:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def smiles(source: str, column: str | None = None) -> list[str]:
    return [row.smiles for row in read_rows(source, column)]


def refusal(source: str, column: str | None = None) -> str:
    with pytest.raises(MolgenError) as error:
        list(read_rows(source, column))
    return str(error.value)


@pytest.mark.parametrize(
    "name", ["smiles", "SMILES", "Smiles", "canonical_smiles", "Canonical SMILES", "isomeric_smiles"]
)
def test_the_smiles_column_is_found_by_its_usual_names(tmp_path: Path, name: str) -> None:
    source = write(tmp_path / "a.csv", f"id,{name},activity\nx1,CCO,1.5\nx2,c1ccccc1,\n")
    assert list(read_rows(source)) == [Row(2, "CCO", "x1", ""), Row(3, "c1ccccc1", "x2", "")]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_the_separator_is_sniffed(tmp_path: Path, separator: str) -> None:
    source = write(tmp_path / "a.csv", f"name{separator}smiles\nethanol{separator}CCO\n")
    assert smiles(source) == ["CCO"]


def test_byte_order_mark_windows_line_ends_missing_final_newline_and_gzip_change_nothing(tmp_path: Path) -> None:
    plain = "smiles,name\nCCO,ethanol\nCCN,ethylamine\n"
    clean = list(read_rows(write(tmp_path / "a.csv", plain)))
    odd = b"\xef\xbb\xbf" + plain.rstrip("\n").replace("\n", "\r\n").encode()
    assert list(read_rows(write(tmp_path / "b.csv", odd))) == clean
    assert list(read_rows(write(tmp_path / "c.csv.gz", gzip.compress(odd)))) == clean


def test_a_quoted_field_may_hold_separators_and_line_ends(tmp_path: Path) -> None:
    source = write(tmp_path / "a.csv", 'name,smiles\n"a, b\nc",CCO\nd,CCN\n')
    assert list(read_rows(source)) == [Row(2, "CCO", "a, b\nc", ""), Row(4, "CCN", "d", "")]


def test_cells_that_a_spreadsheet_would_run_are_plain_text(tmp_path: Path) -> None:
    source = write(tmp_path / "a.csv", "name,smiles\n=1+1,=O\n+x,@C\n")
    assert list(read_rows(source)) == [Row(2, "=O", "=1+1", ""), Row(3, "@C", "+x", "")]


def test_words_that_tables_take_for_missing_values_are_kept(tmp_path: Path) -> None:
    assert smiles(write(tmp_path / "a.csv", "name,smiles\nNA,N\nnull,NO\n")) == ["N", "NO"]


def test_a_smi_line_is_a_molecule_and_its_name(tmp_path: Path) -> None:
    source = write(tmp_path / "a.smi", "CCO ethanol absolute\n\nCCN\tethylamine\nCC\n")
    assert list(read_rows(source)) == [
        Row(1, "CCO", "ethanol absolute", ""),
        Row(3, "CCN", "ethylamine", ""),
        Row(4, "CC", "", ""),
    ]


def test_a_heading_of_a_smi_file_is_no_molecule(tmp_path: Path) -> None:
    assert smiles(write(tmp_path / "a.smi", "SMILES Name\nCCO x\n")) == ["CCO"]
    assert smiles(write(tmp_path / "b.smi", "CCO x\nCCN y\n")) == ["CCO", "CCN"]


def test_a_cxsmiles_extension_stays_with_its_molecule(tmp_path: Path) -> None:
    assert list(read_rows(write(tmp_path / "a.smi", "CC(O)F |o1:1| racemate\n"))) == [
        Row(1, "CC(O)F |o1:1|", "racemate", "")
    ]


def test_a_table_without_heading_is_read_if_one_cell_is_a_molecule(tmp_path: Path) -> None:
    assert smiles(write(tmp_path / "a.csv", "x-1,CCO,3\nx-2,CCN,4\n")) == ["CCO", "CCN"]


def test_a_table_without_smiles_column_names_its_columns_and_the_option(tmp_path: Path) -> None:
    message = refusal(write(tmp_path / "a.csv", "id,structure,activity\n1,CCO,2\n"))
    assert "id, structure, activity" in message
    assert "--smiles-column" in message


def test_two_candidate_columns_are_for_the_user_to_choose(tmp_path: Path) -> None:
    source = write(tmp_path / "a.csv", "smiles,canonical_smiles\nOCC,CCO\n")
    assert "--smiles-column" in refusal(source)
    assert smiles(source, "canonical_smiles") == ["CCO"]
    assert "no column 'nope'" in refusal(source, "nope")


def test_an_sd_file_gives_canonical_smiles_and_titles(tmp_path: Path) -> None:
    from rdkit import Chem

    path = tmp_path / "a.sdf"
    writer = Chem.SDWriter(str(path))
    for text, name in (("OCC", "ethanol"), ("NCC", "ethylamine")):
        molecule = Chem.MolFromSmiles(text)
        molecule.SetProp("_Name", name)
        writer.write(molecule)
    writer.close()
    assert list(read_rows(str(path))) == [Row(1, "CCO", "ethanol", ""), Row(2, "CCN", "ethylamine", "")]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"CCO\nCC\xff\n", "line 2: not UTF-8"),
        (b"CCO\nCC\x00C\n", "line 2: a NUL byte"),
        (b"CCO\n" + b"C" * (2**20 + 1), "line 2: longer than 1 MiB"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    assert f"a.smi, {said}" in refusal(write(tmp_path / "a.smi", content))


def test_an_unbalanced_quote_is_named_with_the_line_it_opens_in(tmp_path: Path) -> None:
    assert "line 3" in refusal(write(tmp_path / "a.csv", 'name,smiles\na,CCO\n"b,CCN\nc,CC\n'))


def test_a_row_that_is_too_short_is_named(tmp_path: Path) -> None:
    assert "line 3: 1 fields" in refusal(write(tmp_path / "a.csv", "name,smiles\na,CCO\nb\n"))


def test_a_gzip_file_that_ends_early_is_refused(tmp_path: Path) -> None:
    whole = gzip.compress("\n".join(["CCO"] * 10_000).encode())
    assert "damaged gzip" in refusal(write(tmp_path / "a.smi.gz", whole[: len(whole) // 2]))


def test_a_gzip_bomb_of_one_line_is_refused_before_it_fills_the_memory(tmp_path: Path) -> None:
    bomb = gzip.compress(b"C" * (64 * 2**20))
    assert "longer than 1 MiB" in refusal(write(tmp_path / "a.smi.gz", bomb))


def test_a_missing_file_a_directory_and_an_unknown_kind_are_refused(tmp_path: Path) -> None:
    assert "cannot be read" in refusal(str(tmp_path / "none.csv"))
    (tmp_path / "folder.csv").mkdir()
    assert "directory" in refusal(str(tmp_path / "folder.csv"))
    assert "unknown kind" in refusal(str(tmp_path / "a.xlsx"))


def test_samples_are_lines_and_an_empty_line_is_an_empty_sample(tmp_path: Path) -> None:
    assert read_samples(write(tmp_path / "x.smi", "CCO\n\nC(C\nCC name\n")) == ["CCO", "", "C(C", "CC"]
    assert read_samples(write(tmp_path / "x.csv", "smiles,valid\nCCO,true\n,false\n")) == ["CCO", ""]


def test_an_invalid_first_sample_is_not_taken_for_a_heading(tmp_path: Path) -> None:
    assert read_samples(write(tmp_path / "x.smi", "ccccc\nCCO\n")) == ["ccccc", "CCO"]
