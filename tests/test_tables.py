import gzip
import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from molgen.data.readers import Row, read_rows, read_samples
from molgen.errors import MolgenError


def write(path: Path, content: str | bytes) -> str:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def smiles(source: str, column: str | None = None) -> list[str]:
    return [row.smiles for row in read_rows(source, column)]


def chosen(source: str, where: str) -> list[bool]:
    return [row.chosen for row in read_rows(source, where=where)]


def refusal(source: str, column: str | None = None, where: str | None = None) -> str:
    with pytest.raises(MolgenError) as error:
        list(read_rows(source, column, where))
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture
def stdin(monkeypatch: pytest.MonkeyPatch) -> Callable[[str | bytes], None]:
    """Puts bytes into standard input."""

    def put(content: str | bytes) -> None:
        raw = io.BytesIO(content.encode() if isinstance(content, str) else content)
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BufferedReader(raw)))  # type: ignore[arg-type]

    return put


Put = Callable[[str | bytes], None]

ETHANOL = """ethanol
  made by hand

  3  2  0  0  0  0  0  0  0  0999 V2000
    0.0000    0.0000    0.0000 C   0  0
    1.5000    0.0000    0.0000 C   0  0
    2.2500    1.2990    0.0000 O   0  0
  1  2  1  0
  2  3  1  0
M  END
> <pIC50> (1)
7.5

>  <Comment>
two
lines

$$$$
"""
BROKEN = ETHANOL.replace("ethanol", "broken").replace("  1  2  1", "  1  9  1").replace("7.5", "5.5")
RELATIVE = """
  made by hand

  0  0  0  0  0  0  0  0  0  0999 V3000
M  V30 BEGIN CTAB
M  V30 COUNTS 4 3 0 0 0
M  V30 BEGIN ATOM
M  V30 1 C 0 0 0 0
M  V30 2 C 1.3 0.75 0 0
M  V30 3 O 2.6 0 0 0
M  V30 4 F 1.3 2.25 0 0
M  V30 END ATOM
M  V30 BEGIN BOND
M  V30 1 1 2 1 CFG=1
M  V30 2 1 2 3
M  V30 3 1 2 4
M  V30 END BOND
M  V30 BEGIN COLLECTION
M  V30 MDLV30/STEREL1 ATOMS=(1 2)
M  V30 END COLLECTION
M  V30 END CTAB
M  END
> <Catalog ID>
Z-12

$$$$
"""


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


@pytest.mark.parametrize("name", ["Ligand SMILES", "PUBCHEM_EXT_DATASOURCE_SMILES", "smiles_std"])
def test_a_column_whose_name_contains_smiles_is_taken_where_no_usual_name_is(tmp_path: Path, name: str) -> None:
    assert smiles(write(tmp_path / "a.csv", f"id,{name}\nx,CCO\n")) == ["CCO"]
    assert smiles(write(tmp_path / "b.csv", f"{name},smiles\nx,CCO\n")) == ["CCO"]
    assert f"{name} and raw smiles" in refusal(write(tmp_path / "c.csv", f"{name},raw smiles\nCC,CCO\n"))


@pytest.mark.parametrize(
    "name", ["ChEMBL ID", "Molecule ChEMBL ID", "Name", "ID", "zinc_id", "Catalog ID", "Compound ID", "CAS"]
)
def test_names_come_from_the_usual_columns(tmp_path: Path, name: str) -> None:
    assert next(read_rows(write(tmp_path / "a.csv", f'weight,smiles,"{name}"\n46,CCO,x1\n'))).name == "x1"


def test_separators_inside_quotes_do_not_count(tmp_path: Path) -> None:
    chembl = '"ChEMBL ID";"Name, or names, if any, known";"Smiles"\n"CHEMBL545";"ethanol";"CCO"\n'
    assert list(read_rows(write(tmp_path / "a.csv", chembl))) == [Row(2, "CCO", "CHEMBL545", "")]
    tied = "IC50 (nM, mean);Smiles\n31.6;CCO\n"
    assert smiles(write(tmp_path / "b.csv", tied)) == ["CCO"]


def test_a_quoted_name_of_a_column_may_hold_line_ends(tmp_path: Path) -> None:
    source = write(tmp_path / "a.csv", '"IC50\n(nM)",smiles\n31.6,CCO\n')
    assert list(read_rows(source, where="`IC50 (nM)` < 100")) == [Row(3, "CCO", "", "")]
    for name, content in (("b.csv", '"smiles,name\nCCO,a\n'), ("c.csv", '"smiles"x,name\n"CCO",a\n')):
        assert "line 1: quotes" in refusal(write(tmp_path / name, content))


def test_a_condition_marks_the_rows_on_which_it_holds(tmp_path: Path) -> None:
    table = "smiles,pIC50,Standard Units \nCC,7.5,nM\nCCC,6,nM\nCCCC,,nM\nCCCCC,8,uM\nC\n"
    source = write(tmp_path / "a.csv", table)
    assert chosen(source, "pIC50 > 7") == [True, False, False, True, False]
    assert chosen(source, "not (pIC50 > 7)") == [False, True, True, False, True]
    assert chosen(source, "pIC50 > 7 and `Standard Units` == 'nM'") == [True, False, False, False, False]
    assert all(row.chosen for row in read_rows(source))


def test_a_condition_on_an_unknown_column_or_on_no_columns_is_refused(tmp_path: Path) -> None:
    source = write(tmp_path / "a.csv", "smiles,pIC50\nCC,7.5\n")
    assert "a.csv: no column 'pic50'" in refusal(source, where="pic50 > 7")
    assert "did you mean pIC50?" in refusal(source, where="pic50 > 7")
    assert "write ==" in refusal(source, where="pIC50 = 7")
    assert "two columns called 'x'" in refusal(write(tmp_path / "b.csv", "smiles,x,x\nCC,1,2\n"), where="x > 1")
    for name, content in (("a.smi", "CCO ethanol\n"), ("b.smi", "smiles name\nCCO x\n"), ("c.csv", "x-1,CCO\n")):
        assert "no columns that a condition" in refusal(write(tmp_path / name, content), where="x > 7")


def test_a_text_file_with_a_heading_of_several_columns_is_a_table(tmp_path: Path) -> None:
    table = "chembl_id\tcanonical_smiles\tstandard_inchi\nCHEMBL545\tCCO\tInChI=1S\n"
    assert list(read_rows(write(tmp_path / "a.txt", table))) == [Row(2, "CCO", "CHEMBL545", "")]
    assert smiles(write(tmp_path / "b.smi", "smiles,name\nCCO,x\n")) == ["CCO"]
    assert smiles(write(tmp_path / "c.txt", "x-1;CCO;3\nx-2;CCN;4\n")) == ["CCO", "CCN"]
    assert smiles(write(tmp_path / "d.txt", "structure,x\nCCO,1\n"), "structure") == ["CCO"]


def test_lines_of_a_molecule_and_its_name_stay_lines_whatever_the_name_holds(tmp_path: Path) -> None:
    source = write(tmp_path / "a.smi", 'CCO\tx, y; z\tCCN\nCC "q" r\n')
    assert [(row.smiles, row.name) for row in read_rows(source)] == [("CCO", "x, y; z\tCCN"), ("CC", '"q" r')]
    source = write(tmp_path / "b.smi", 'smiles\tvendor code\nCCO\tx y\tz\nCC\t"q" r\n')
    assert [(row.smiles, row.name) for row in read_rows(source)] == [("CCO", "x y\tz"), ("CC", '"q" r')]
    source = write(tmp_path / "c.smi", "smiles\tpIC50\nCCO\t7.5\nCC\t6\n")
    assert chosen(source, "pIC50 > 7") == [True, False]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("CCO ethanol\nCC\n", ["CCO", "CC"]),
        ("name,smiles\nethanol,CCO\n", ["CCO"]),
        ("zinc_id\tsmiles\tlogp\nx\tCCO\t1\n", ["CCO"]),
        ("x-1,CCO\nx-2,CCN\n", ["CCO", "CCN"]),
        (ETHANOL + RELATIVE, ["CCO", "C[C@H](O)F |o1:1|"]),
        ("", []),
    ],
)
def test_what_stdin_holds_is_recognised(stdin: Put, content: str, expected: list[str], packed: bool) -> None:
    stdin(gzip.compress(content.encode()) if packed else content)
    assert smiles("-") == expected


def test_the_column_of_a_table_on_stdin_can_be_named(stdin: Put) -> None:
    stdin("a,b\nCCO,1\n")
    assert smiles("-", "a") == ["CCO"]


def test_an_sd_file_under_another_name_is_recognised(tmp_path: Path) -> None:
    assert smiles(write(tmp_path / "a.txt", ETHANOL)) == ["CCO"]


def test_the_properties_of_an_sd_file_are_its_columns(tmp_path: Path) -> None:
    source = write(tmp_path / "a.sdf", ETHANOL + RELATIVE.replace("Catalog ID", "units").replace("Z-12", "nM"))
    assert chosen(source, "pIC50 > 7") == [True, False]
    assert chosen(source, "units == 'nM' or Comment == 'two\\nlines'") == [True, True]
    assert "no column 'pIC5O', which the condition names (did you mean pIC50?" in refusal(source, where="pIC5O > 7")
    assert [row.smiles for row in read_rows(source, where="pIC50 > 7")] == ["CCO", ""]  # not even parsed


def test_a_broken_record_of_an_sd_file_keeps_its_title_and_the_next_is_read(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source = write(tmp_path / "a.sdf", BROKEN + "\n\n$$$$\n" + ETHANOL.removesuffix("$$$$\n"))
    assert list(read_rows(source)) == [
        Row(1, "", "broken", "", problem="not parsed by RDKit: syntax"),
        Row(2, "", "", ""),
        Row(3, "CCO", "ethanol", ""),
    ]
    assert capfd.readouterr() == ("", "")


def test_relative_stereo_of_an_sd_file_is_kept_as_a_cxsmiles_part_and_a_property_names_it(tmp_path: Path) -> None:
    assert list(read_rows(write(tmp_path / "a.sdf", RELATIVE))) == [Row(1, "C[C@H](O)F |o1:1|", "Z-12", "")]
    absolute = RELATIVE.replace("STEREL1", "STEABS")
    assert smiles(write(tmp_path / "b.sdf", absolute)) == ["C[C@H](O)F"]


def test_an_sd_file_may_be_older_than_utf8(tmp_path: Path) -> None:
    content = ETHANOL.replace("ethanol", "Äthanol").replace("7.5", "7.5 µM").replace("\n", "\r\n")
    (row,) = read_rows(write(tmp_path / "a.sdf", content.encode("latin-1")), where="pIC50 == '7.5 µM'")
    assert row == Row(1, "CCO", "Äthanol", "")


def test_a_record_without_end_is_refused_before_it_fills_the_memory(tmp_path: Path) -> None:
    assert "longer than 16 MiB" in refusal(
        write(tmp_path / "a.sdf.gz", gzip.compress(("C" * 999 + "\n").encode() * 20_000))
    )


def parquet(path: Path, **columns: list[object]) -> str:
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.table(columns), path, row_group_size=2)
    return str(path)


def test_a_parquet_file_is_a_table_whose_rows_count_from_1(tmp_path: Path, stdin: Put) -> None:
    source = parquet(
        tmp_path / "a.parquet",
        id=[11, 12, 13],
        Smiles=["CCO", None, " CC "],
        pIC50=[7.5, 9.0, float("nan")],
        active=[True, False, None],
        split=["Train", "test", "test"],
        other=[[1], [2], [3]],
    )
    assert list(read_rows(source)) == [
        Row(1, "CCO", "11", "train"),
        Row(2, "", "12", "test"),
        Row(3, "CC", "13", "test"),
    ]
    assert chosen(source, "pIC50 > 7") == [True, True, False]
    assert chosen(source, "active == True and id == 11") == [True, False, False]
    assert read_samples(source) == ["CCO", "", "CC"]
    assert "no column 'pic50'" in refusal(source, where="pic50 > 1")
    stdin(Path(source).read_bytes())
    assert smiles("-") == ["CCO", "", "CC"]


def test_a_parquet_file_without_smiles_column_names_its_columns(tmp_path: Path) -> None:
    source = parquet(tmp_path / "a.parquet", id=["1"], structure=["CCO"])
    assert "columns: id, structure" in refusal(source)
    assert smiles(source, "structure") == ["CCO"]


def test_a_damaged_parquet_file_is_refused(tmp_path: Path) -> None:
    whole = Path(parquet(tmp_path / "a.parquet", smiles=[f"{'C' * n}O" for n in range(1, 200)])).read_bytes()
    for name, content in (("b", b"smiles\nCCO\n"), ("c", b""), ("d", whole[: len(whole) // 2])):
        assert f"{name}.parquet: not readable as parquet" in refusal(write(tmp_path / f"{name}.parquet", content))
    torn = whole[:50] + bytes(len(whole) // 3) + whole[50 + len(whole) // 3 :]
    assert "e.parquet" in refusal(write(tmp_path / "e.parquet", torn))
    assert "gunzip" in refusal(write(tmp_path / "a.parquet.gz", gzip.compress(whole)))


def test_a_parquet_file_without_pyarrow_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = parquet(tmp_path / "a.parquet", smiles=["CCO"])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert "extra `parquet`" in refusal(source)


def test_pyarrow_is_loaded_for_a_parquet_file_only(tmp_path: Path) -> None:
    source = write(tmp_path / "a.csv", "smiles\nCCO\n")
    code = f"from molgen.data.readers import read_rows; list(read_rows({source!r}))"
    script = f"import sys; {code}; print('pyarrow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_an_empty_table_and_a_heading_alone_hold_no_rows(tmp_path: Path) -> None:
    for name, content in (("a.csv", ""), ("b.csv", "id,smiles\n"), ("c.smi", ""), ("d.sdf", ""), ("e.txt", "\n\n")):
        assert smiles(write(tmp_path / name, content)) == []


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


def test_a_broken_line_of_a_table_or_an_sd_file_is_named(tmp_path: Path) -> None:
    assert "a.csv, line 3: not UTF-8" in refusal(write(tmp_path / "a.csv", b"smiles,name\nCCO,x\nCC,\xb5\n"))
    assert "b.csv, line 2: a NUL byte" in refusal(write(tmp_path / "b.csv", b"smiles\nCC\x00O\n"))
    assert "c.sdf, line 2: a NUL byte" in refusal(write(tmp_path / "c.sdf", ETHANOL.replace("hand", "\0")))


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf16_is_refused_by_its_name(tmp_path: Path, encoding: str) -> None:
    for name in ("a.csv", "a.txt", "a.tsv"):
        said = refusal(write(tmp_path / name, "\ufeffsmiles\tname\nCCO\tx\n".encode(encoding)))
        assert "UTF-16" in said
        assert "UTF-8" in said


def test_a_field_over_1_mib_is_refused_with_its_line(tmp_path: Path) -> None:
    long = "\n".join(["C" * 1_000] * 1_100)
    assert "line 3" in refusal(write(tmp_path / "a.csv", f'name,smiles\na,CCO\n"{long}",CC\n'))


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


def test_a_table_or_an_sd_file_of_samples_is_recognised_by_what_no_sample_can_be(tmp_path: Path, stdin: Put) -> None:
    assert read_samples(write(tmp_path / "a.txt", "id\tsmiles\n1\tCCO\n2\t\n")) == ["CCO", ""]
    assert read_samples(write(tmp_path / "b.txt", ETHANOL + BROKEN)) == ["CCO", ""]
    assert read_samples(write(tmp_path / "c.smi", "smiles\tname\nCCO\tx\n\n")) == ["CCO", ""]
    assert read_samples(write(tmp_path / "d.smi", "x,CCO\nCC\n")) == ["x,CCO", "CC"]  # an invalid first sample
    assert read_samples(write(tmp_path / "e.out", "CC\nC(\n")) == ["CC", "C("]
    stdin("\nCCO\nC(\n")
    assert read_samples("-") == ["", "CCO", "C("]


def test_samples_in_a_damaged_gzip_file_are_refused(tmp_path: Path) -> None:
    source = write(tmp_path / "a.smi.gz", gzip.compress(b"CCO\n" * 10_000)[:-12])
    with pytest.raises(MolgenError, match="damaged gzip"):
        read_samples(source)
