"""Files as people have them: every line accounted for, nothing taken for what it is not."""

import bz2
import csv
import gzip
import io
import json
import random
import re
from pathlib import Path

import pytest
from conftest import Cli, Done

import molgen

CASES = Path(__file__).parent / "cases"
ALL = ["--set", "data.min_token_count=1"]
ACIDS = ["CC(=O)O", "CCC(=O)O", "CCCC(=O)O", "CCCCC(=O)O"]


def cleaned(cli: Cli, source: Path | str, *options: object) -> tuple[list[dict[str, str]], Done]:
    """The rows of `molgen data clean`, and what it said."""
    done = cli("data", "clean", source, "-o", "clean.csv", "--force", *options)
    assert done.code == 0, done.err
    return list(csv.DictReader(io.StringIO(Path("clean.csv").read_text()))), done


def column(rows: list[dict[str, str]], name: str = "smiles") -> list[str]:
    return [row[name] for row in rows]


def dropped(path: str = "clean.dropped.csv.gz") -> list[dict[str, str]]:
    with gzip.open(path, "rt", newline="") as file:
        return list(csv.DictReader(file))


def refused(done: Done) -> str:
    assert done.code == 2, done
    assert "Traceback" not in done.err
    return done.err.splitlines()[-1]


def evaluated(cli: Cli, source: Path | str, *options: object) -> tuple[int, int, Done]:
    """(samples, valid ones, what was said) of `molgen eval` on a file."""
    done = cli("eval", source, "--json", "x.json", "--force", *options)
    assert done.code == 0, done.err
    figures = json.loads(Path("x.json").read_text())
    return figures["n_samples"], figures["n_valid"], done


# Quotes and rows


@pytest.mark.parametrize(("name", "rows"), [("bdb2.tsv", 20), ("bdb4.tsv", 40)])
def test_stray_quotes_in_a_tab_separated_file_swallow_no_row(cli: Cli, name: str, rows: int) -> None:
    kept, done = cleaned(cli, CASES / name)
    assert len(kept) == rows
    lines = (CASES / name).read_text().splitlines()[1:]
    assert column(kept, "BindingDB Ligand Name") == [line.split("\t")[2] for line in lines]
    assert f"{rows} rows, {rows} molecules" in done.err


def test_no_mixture_of_quotes_in_a_tab_separated_file_costs_a_row(cli: Cli) -> None:
    draw = random.Random(0)
    pieces = ['"', '""', "a", 'b"c', " ", "'", ",", "5' 6\""]
    names = ["".join(draw.choices(pieces, k=draw.randrange(4))) for _ in range(400)]
    lines = [f"{i}\t{name}\tCCO\t{name}" for i, name in enumerate(names)]
    Path("x.tsv").write_text("\n".join(["id\tNote\tSMILES\tMore", *lines]) + "\n")
    kept, done = cleaned(cli, "x.tsv", "--set", "data.duplicates=keep")
    assert column(kept, "id") == [str(i) for i in range(400)]
    for note, name in zip(column(kept, "Note"), names, strict=True):
        inside = name[1:-1]
        enclosed = len(name) > 1 and name[0] == name[-1] == '"' and '"' not in inside.replace('""', "")
        assert note == (inside.replace('""', '"') if enclosed else name)
    assert "400 rows, 400 molecules" in done.err
    assert "x.tsv: " not in done.err


@pytest.mark.parametrize("suffix", [".tsv", ".txt", ".csv"])
def test_a_quote_counts_in_a_tab_separated_file_where_it_encloses_a_cell(cli: Cli, suffix: str) -> None:
    names = ['"3-oxo', 'tube 5"', '""', "plain"]
    lines = [f"{smiles}\t{name}\tx" for smiles, name in zip(ACIDS, names, strict=True)]
    lines += ['"CCO"\t"a ""b"" c"\tx', 'CCN\t"tab\there"\tx', 'CCF\t"two\nlines"\tx', 'CCCl\tz\t"end\nof it"']
    Path(f"x{suffix}").write_text("\n".join(["SMILES\tNote\tSource", *lines]) + "\n")
    kept, done = cleaned(cli, f"x{suffix}")
    assert column(kept) == [*ACIDS, "CCO", "CCN", "CCF", "CCCl"]
    assert column(kept, "Note") == ['"3-oxo', 'tube 5"', "", "plain", 'a "b" c', "tab\there", "two\nlines", "z"]
    assert kept[-1]["Source"] == "end\nof it"
    assert "rows over several lines, within quotes: 2 (the first: line 8)" in done.err


@pytest.mark.parametrize("mark", [",", ";"])
def test_a_stray_quote_between_commas_is_refused_with_its_line(cli: Cli, mark: str) -> None:
    rows = [["1", '"Example 3', "CCO"], ["2", 'Example 4"', "CCN"], ["3", "c", "CCC"]]
    for quoted in (rows, [rows[0], rows[2], ["4", 'y"', "CCF"]]):
        Path("x.csv").write_text("\n".join(mark.join(row) for row in (["id", "name", "smiles"], *quoted)) + "\n")
        assert "x.csv, line 2: its quotes take in line" in refused(cli("data", "describe", "x.csv", *ALL))


def test_every_line_that_is_no_row_of_its_own_is_counted_and_told(cli: Cli) -> None:
    Path("x.csv").write_text('# by hand\n\nid,smiles,note\n1,CCO,a\n\n2,CCN,"b\nc"\n3,CCC\n4,CCF,d,\n5,CCCl,e,f\n\n')
    kept, done = cleaned(cli, "x.csv")
    assert column(kept) == ["CCO", "CCN", "CCC", "CCF", "CCCl"]
    assert kept[-1]["column 4"] == "f"
    for told in (
        "lines above the heading passed over: 2 (the first: line 1, '# by hand')",
        "empty lines passed over: 2 (the first: line 5)",
        "rows over several lines, within quotes: 1 (the first: line 6)",
        "rows with fewer cells than the heading: 1 (the first: line 8)",
        "rows with more cells than the heading (a separator in a cell?): 1 (the first: line 10)",
    ):
        assert f"x.csv: {told}" in done.err
    Path("x.smi").write_text("# by hand\nCCO\n\nCCN\n")
    assert "x.smi: empty lines passed over: 1 (the first: line 3)" in cleaned(cli, "x.smi")[1].err


def test_a_sound_file_says_nothing_of_its_lines(cli: Cli) -> None:
    for name in ("actives_final.ism", "real.cxsmiles.bz2", "maccr.csv", "bdb4.tsv"):
        done = cli("data", "describe", CASES / name, *ALL)
        assert (done.code, done.err) == (0, ""), name


# Which column


def test_of_a_flat_and_an_isomeric_column_none_is_taken_unasked(cli: Cli) -> None:
    message = refused(cli("data", "describe", CASES / "pubchem.csv", *ALL))
    assert "isosmiles and canonicalsmiles" in message
    assert "--smiles-column" in message
    kept, _ = cleaned(cli, CASES / "pubchem.csv", "--smiles-column", "isosmiles")
    assert len(kept) == 5
    assert column(kept, "canonicalsmiles")[0] == "CC(N)C(=O)NCc1ccccc1"


@pytest.mark.parametrize(
    ("flat", "isomeric"),
    [
        ("CanonicalSMILES", "IsomericSMILES"),
        ("ConnectivitySMILES", "SMILES"),
        ("canonical_smiles", "isomeric_smiles"),
        ("SMILES", "isomeric_smiles"),
        ("smiles_flat", "smiles"),
        ("smiles", "smiles (stereo)"),
        ("smiles", "smiles_std"),  # nothing in the names: the molecules tell
        ("canonical_smiles", "Ligand SMILES"),
    ],
)
def test_the_flat_one_of_two_columns_is_never_taken_silently(cli: Cli, flat: str, isomeric: str) -> None:
    for order in ((flat, isomeric), (isomeric, flat)):
        cells = {flat: "CC(N)C(=O)O", isomeric: "C[C@H](N)C(=O)O"}
        plain = {flat: "CCO", isomeric: "CCO"}
        rows = [[row[name] for name in order] for row in (plain, cells)]
        Path("x.csv").write_text("\n".join(",".join(row) for row in (order, *rows)) + "\n")
        message = refused(cli("data", "describe", "x.csv", *ALL))
        assert flat in message
        assert isomeric in message
        assert "--smiles-column" in message


def test_another_column_with_other_molecules_is_no_rival(cli: Cli) -> None:
    Path("x.csv").write_text("smiles,product_smiles\n" + "".join(f"{one},C[C@H](N)C(=O)OC\n" for one in ACIDS))
    assert column(cleaned(cli, "x.csv")[0]) == ACIDS


# Numbers as people write them


def test_cells_that_are_no_numbers_are_counted_and_shown_and_thousands_are_read_by_their_value(cli: Cli) -> None:
    kept, done = cleaned(cli, CASES / "thousand.csv", "--where", "IC50_nM < 1500")
    # 500 + 37 i < 1500 up to i = 27; every fifth of these 28 is `>10000`
    assert column(kept, "id") == [str(i) for i in range(28) if i % 5]
    assert len(kept) == 22
    assert "12 of 60 cells of IC50_nM are no numbers" in done.err
    assert "such as '>10000' (line 2)" in done.err
    assert "37 of 60 cells of IC50_nM have thousands separators" in done.err
    assert "'1,018' (line 16)" in done.err


def test_they_are_told_whatever_else_the_condition_asks(cli: Cli) -> None:
    Path("x.csv").write_text("smiles,dose,kind\nCCO,~5,a\nCCN,n.d.,a\nCCC,,a\nCCF,7,b\nCCCl,<0.1,b\nCCBr,8,b\n")
    for where in ("kind == 'b' and dose > 1", "kind != 'z' or dose > 1", "not (dose in (1, 2))", "9 > dose"):
        done = cli("data", "describe", "x.csv", "--where", where, "--set", "data.split=random", *ALL)
        assert "3 of 6 cells of dose are no numbers" in done.err, where
        assert "'~5' (line 2)" in done.err
        assert "1 of 6 cells of dose are empty" in done.err
    both = cli("data", "describe", "x.csv", "--where", "dose > 5 or dose == '~5'", "--set", "data.split=random", *ALL)
    assert "3 of 6 cells of dose are no numbers" in both.err
    assert "dropped: 3 not chosen" in both.out
    Path("y.csv").write_text(Path("x.csv").read_text().replace("~5", "5").replace("n.d.", "4").replace("<0.1", "0.1"))
    assert (
        "cells" not in cli("data", "describe", "y.csv", "--where", "dose > 1", "--set", "data.split=random", *ALL).err
    )
    none = cli("data", "describe", "x.csv", "--where", "kind == 'b'", "--set", "data.split=random", *ALL)
    assert "cells" not in none.err


def test_text_beside_text_is_no_number_amiss_and_text_beside_a_number_is(cli: Cli) -> None:
    rows = ["CCO,2024-01-02,2024-02-01,5,7", "CCN,2024-03-01,2024-02-01,>10,7", "CCC,2024-01-01,2024-02-01,6,4"]
    Path("x.csv").write_text("\n".join(["smiles,bought,used,low,high", *rows]) + "\n")
    kept, done = cleaned(cli, "x.csv", "--where", "bought < used")
    assert column(kept) == ["CCO", "CCC"]
    assert "no numbers" not in done.err
    kept, done = cleaned(cli, "x.csv", "--where", "low < high")
    assert column(kept) == ["CCO"]
    assert "1 of 3 cells of low are no numbers and satisfy no comparison with one, such as '>10' (line 3)" in done.err


def test_decimal_commas_are_read_by_their_value_and_told(cli: Cli) -> None:
    kept, done = cleaned(cli, CASES / "german.csv", "--where", "pIC50 > 6")
    assert len(kept) == 60 - 17  # 5 + 0.06 i > 6 from i = 17 on
    assert "60 of 60 cells of pIC50 have decimal commas" in done.err
    assert "such as '5,00' (line 2)" in done.err


@pytest.mark.parametrize(
    ("mark", "cells"),
    [
        (",", ['"1,018"', '"7,12"']),  # 1018 or 1.018
        ("\t", ["1,018", "0,5"]),
        (";", ["1,018", "537"]),
        (";", ["1.018", "7,12"]),
        ("\t", ["1.018", "1.018.300"]),
    ],
)
def test_numbers_that_may_be_a_thousand_times_as_much_are_refused(cli: Cli, mark: str, cells: list[str]) -> None:
    lines = [f"{smiles}{mark}{cell}" for smiles, cell in zip(ACIDS, cells, strict=False)]
    Path("x.csv").write_text("\n".join([f"smiles{mark}dose", *lines]) + "\n")
    message = refused(cli("data", "describe", "x.csv", "--where", "dose > 1", *ALL))
    assert "1 of 2 cells of dose, such as '1" in message
    assert "may mean a thousand times as much" in message


def test_a_thousands_point_beside_decimal_commas_is_refused(cli: Cli) -> None:
    message = refused(cli("data", "describe", CASES / "german.csv", "--where", "`IC50 (nM)` < 1500", *ALL))
    assert "60 of 60 cells of IC50 (nM), such as '1.000' (line 2), may mean a thousand times as much" in message
    assert "beside '5,00' (line 2)" in message


def test_the_properties_of_an_sd_file_are_counted_like_cells(cli: Cli) -> None:
    text = (CASES / "naughty.sdf").read_bytes().replace(b"6.1\r", b">6\r")
    Path("x.sdf").write_bytes(text)
    kept, done = cleaned(cli, "x.sdf", "--where", "pIC50 > 7")
    # 7.5, 7.9, 8.2 (the one without an empty line above it), 7.1, 7.4, 7.7, 8.0, 9.0
    assert column(kept, "name") == ["B1", "B2", "B3", "B7", "B8", "B9", "B10", "B11"]
    assert "1 of 12 cells of pIC50 are no numbers" in done.err
    assert "'>6' (record 1)" in done.err


# Samples


@pytest.mark.parametrize("name", ["spaced.txt", "noheader.smi", "quoted.txt"])
def test_eval_never_scores_the_first_piece_of_a_line(cli: Cli, name: str) -> None:
    samples, valid, done = evaluated(cli, CASES / name, "--train", CASES / "vendor.txt")
    assert samples == 20
    assert valid == (20 if name == "spaced.txt" else 0)
    assert f"{name}: lines " in done.err
    assert ": 20 (the first: line 1, " in done.err
    if name == "spaced.txt":  # the molecules of vendor.txt, token by token
        assert json.loads(Path("x.json").read_text())["novelty"] == 0


@pytest.mark.parametrize(
    ("lines", "valid"),
    [
        (["C c 1 c c c c c 1", "C ( C", "O"], 2),
        (["C c 1 c c c c c 1\tm7", "C C O ethanol", "[Na+] . [Cl-]"], 3),
        (["CC (= O)O", "c1cc ccc1", "C C O", "CC ) O"], 3),  # pieces of several tokens
        (["CC (= O)O", "CC( C(C", "C) CC", "CCN( C"], 1),  # of a poor model
        (["CCO 1", "C 1", "CC (S)", "CCO CHEMBL2", "CN |c:1| x"], 5),  # names
        (["CCO;1.5", "CCN;2.5"], 0),
        (["'CCO'", "'CCN'"], 0),
        (["CCO, 1.5", "CCO"], 1),
        (["SMILES", "CCO", ""], 1),
        (["#CCO", "CCO"], 1),
    ],
)
def test_a_line_is_one_molecule_and_its_name_or_invalid(cli: Cli, lines: list[str], valid: int) -> None:
    Path("x.smi").write_text("\n".join(lines) + "\n")
    samples, found, _ = evaluated(cli, "x.smi")
    assert (samples, found) == (len(lines) - (lines[0] == "SMILES"), valid)


def test_a_string_with_a_space_is_invalid_from_python_too() -> None:
    found = molgen.evaluate(["C c 1 c c c c c 1", "CCO ethanol", "CN |c:0|", "CCO"]).to_json()
    assert (found["n_samples"], found["n_valid"]) == (4, 2)


def test_marks_before_tokens_are_told(cli: Cli) -> None:
    Path("x.smi").write_text("<s> C C O </s>\n<s> C C N </s>\n")
    samples, valid, done = evaluated(cli, "x.smi")
    assert (samples, valid) == (2, 0)
    assert "lines of tokens behind what is no token, invalid (remove marks such as <s>): 2" in done.err


def test_a_cell_with_a_space_is_no_first_piece_either(cli: Cli) -> None:
    Path("x.csv").write_text("smiles,n\nC c 1 c c c c c 1,1\nCCO ethanol,2\n\nCC(,3\n,4\n")
    samples, valid, done = evaluated(cli, "x.csv")
    assert (samples, valid) == (4, 1)
    for told in ("joined: 1", "cells with a space, taken whole and so invalid: 1", "empty lines passed over: 1"):
        assert told in done.err


def test_headings_and_empty_lines_of_samples_are_told(cli: Cli) -> None:
    Path("x.smi").write_text("smiles\nCCO\n\n")
    assert evaluated(cli, "x.smi")[:2] == (2, 1)
    done = cli("eval", "x.smi")
    assert "x.smi: headings, no samples: 1 (the first: line 1, 'smiles')" in done.err
    assert "x.smi: empty lines, each an empty sample: 1 (the first: line 3)" in done.err


def test_tokens_with_spaces_between_are_no_single_atoms_to_a_training_either(cli: Cli) -> None:
    kept, done = cleaned(cli, CASES / "spaced.txt")
    assert column(kept) == column(cleaned(cli, CASES / "vendor.txt")[0])
    assert "joined: 20 (the first: line 1" in done.err


# What clean and describe leave out


def test_clean_keeps_the_other_columns_and_drops_no_rare_token(cli: Cli) -> None:
    kept, done = cleaned(cli, CASES / "vendor.txt")
    source = list(csv.DictReader((CASES / "vendor.txt").read_text().splitlines(), delimiter="\t"))[:20]
    assert list(kept[0]) == ["smiles", "name", "row", "IDNUMBER", "MW", "Name"]
    for column_name in ("IDNUMBER", "MW", "Name"):
        assert column(kept, column_name) == column(source, column_name)
    assert column(kept, "name") == column(source, "IDNUMBER")
    assert "dropped: 1 empty" in done.err  # V99, which has no structure


def test_no_column_of_the_source_hides_one_of_the_output(cli: Cli) -> None:
    Path("x.csv").write_text(
        "ID,row,name,structure,smiles,Split,note,note\n"
        + "".join(f"i{i},r,n,{s},s,Train,a,b\n" for i, s in enumerate(ACIDS))
    )
    kept, _ = cleaned(cli, "x.csv", "--smiles-column", "structure")
    assert kept[0] == {
        "smiles": ACIDS[0],
        "name": "i0",
        "row": "2",
        "split": "train",
        "ID": "i0",
        "row_2": "r",
        "name_2": "n",
        "smiles_2": "s",
        "note": "a",
        "note_2": "b",
    }


def test_a_table_without_heading_keeps_its_other_cells(cli: Cli) -> None:
    Path("x.csv").write_text("".join(f"x-{i},{smiles},{i}\n" for i, smiles in enumerate(ACIDS)))
    kept, _ = cleaned(cli, "x.csv")
    assert column(kept) == ACIDS
    assert column(kept, "column 1") == ["x-0", "x-1", "x-2", "x-3"]
    assert column(kept, "column 3") == ["0", "1", "2", "3"]


def test_clean_keeps_the_properties_of_an_sd_file_and_the_columns_of_parquet(cli: Cli) -> None:
    kept, _ = cleaned(cli, CASES / "naughty.sdf")
    assert column(kept, "pIC50")[:4] == ["6.1", "7.5", "7.9", "8.2"]
    assert column(kept, "ID")[:4] == ["", "X1", "", "X3"]
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"smiles": ACIDS, "dose": [1, None, 3, 4]}), "x.parquet")
    assert column(cleaned(cli, "x.parquet")[0], "dose") == ["1", "", "3", "4"]


def test_describe_shows_how_long_too_long_molecules_are_and_the_context_to_set(cli: Cli) -> None:
    done = cli("data", "describe", CASES / "pep20.smi", *ALL)
    assert done.code == 0, done.err
    assert "20 too long" in done.out
    assert "tokens per molecule: 5 % 163, median 180, 95 % 194, longest 199" in done.out
    assert "too long: 20 of 20 molecules; --set model.context=199 keeps them" in done.out
    longer = cli("data", "describe", CASES / "pep20.smi", "--set", "model.context=199", *ALL)
    assert "20 rows, 20 molecules" in longer.out
    assert "too long" not in longer.out
    limited = cli("data", "describe", CASES / "pep20.smi", "--set", "data.max_tokens=100", *ALL)
    assert "--set model.context=199 --set data.max_tokens=199 keeps them" in limited.out


@pytest.mark.parametrize(("given", "limit"), [((), 128), (("--init", "moses-small"), 64)])
def test_a_training_says_which_context_the_molecules_that_it_drops_would_need(
    given: tuple[str, ...], limit: int, cli: Cli
) -> None:
    peptides = (CASES / "pep20.smi").read_text().splitlines()[:9]
    rows = ["smiles,split"]
    for i, smiles in enumerate([*ACIDS, *(f"{'C' * n}O" for n in range(2, 20))]):
        rows.append(f"{smiles},{('train', 'train', 'validation')[i % 3]}")
    rows += [f"{line.split()[0]},train" for line in peptides]
    Path("both.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    done = cli("train", "both.csv", *given, *ALL, "--set", "training.epochs=1", "--out", "run")
    assert done.code == 0, done.err
    assert "dropped: 9 too long" in done.err
    (longest,) = re.findall(rf"too long: above {limit} tokens, up to (\d+);", done.err)
    longer = ("--set", "training.epochs=1", "--set", f"model.context={longest}")
    kept = cli("train", "both.csv", *given, *ALL, *longer, "--out", "kept")
    assert kept.code == 0, kept.err
    assert "too long" not in kept.err
    only = Path("only.smi")
    only.write_text("\n".join(peptides) + "\n", encoding="utf-8")
    refused = cli("train", "only.smi", *given, "--out", "refused")
    assert refused.code == 2
    assert f"up to {limit} tokens are allowed" in refused.err


@pytest.mark.parametrize("first", ["ccccc broken", "C(C x", "Thing"])
def test_a_first_line_that_is_no_molecule_is_counted(cli: Cli, first: str) -> None:
    Path("x.smi").write_text("\n".join([first, *ACIDS]) + "\n")
    _, done = cleaned(cli, "x.smi")
    assert "5 rows, 4 molecules" in done.err
    assert [(row["row"], row["smiles"]) for row in dropped()] == [("1", first.split()[0])]


@pytest.mark.parametrize("heading", ["SMILES Name", "smiles", "Structure ID", "canonical_smiles\tzinc_id"])
def test_a_heading_of_usual_names_is_no_row(cli: Cli, heading: str) -> None:
    Path("x.smi").write_text("\n".join([heading, *ACIDS]) + "\n")
    assert "4 rows, 4 molecules" in cleaned(cli, "x.smi")[1].err


# Endings, line ends, encodings


@pytest.mark.parametrize("ending", [".ism", ".smiles", ".can", ".cxsmiles", ".SMI", ".smi.bz2", ".ism.gz", ".txt.bz2"])
def test_the_usual_endings_are_read(cli: Cli, ending: str) -> None:
    content = "".join(f"{smiles} {i}\n" for i, smiles in enumerate(ACIDS)).encode()
    packed = bz2.compress(content) if "bz2" in ending else gzip.compress(content) if "gz" in ending else content
    Path(f"x{ending}").write_bytes(packed)
    assert column(cleaned(cli, f"x{ending}")[0]) == ACIDS


def test_the_cases_of_other_endings_line_ends_and_comments_are_read(cli: Cli) -> None:
    for name, rows in (("actives_final.ism", 60), ("real.cxsmiles.bz2", 60), ("maccr.csv", 60), ("comment.csv", 60)):
        assert f"{rows} rows, {rows} molecules" in cleaned(cli, CASES / name)[1].err
    assert "21 rows" in cleaned(cli, CASES / "lib.sd")[1].err
    assert "12 rows, 12 molecules" in cleaned(cli, CASES / "naughty.sdf")[1].err


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("name", ["comment.csv", "bdb4.tsv", "spaced.txt", "naughty.sdf", "actives_final.ism"])
def test_line_ends_change_nothing(cli: Cli, name: str, end: str) -> None:
    text = (CASES / name).read_bytes().replace(b"\r\n", b"\n")
    Path(name).write_bytes(text.replace(b"\n", end.encode()))
    expected, _ = cleaned(cli, CASES / name)
    assert cleaned(cli, name)[0] == expected


def test_a_file_of_old_line_ends_may_be_longer_than_a_line(cli: Cli) -> None:
    lines = [f"{'C' * (i % 7 + 1)}O,{'x' * 1_000}{i}" for i in range(1_500)]
    Path("x.csv").write_text("\r".join(["smiles,name", *lines]))
    done = cli("data", "describe", "x.csv", *ALL)
    assert "1,500 rows, 7 molecules" in done.out


@pytest.mark.parametrize("name", ["x.csv", "x.tsv", "x.smi"])
def test_latin_1_and_utf_16_are_named_with_the_way_out(cli: Cli, name: str) -> None:
    message = refused(cli("data", "describe", CASES / "german_latin.csv", *ALL))
    assert "line 1: not UTF-8" in message
    assert "Latin-1" in message
    text = "smiles\tLöslichkeit\nCCO\t1\n"
    Path(name).write_bytes(text.encode("latin-1"))
    assert "Latin-1" in refused(cli("data", "describe", name, *ALL))
    Path(name).write_bytes(text.encode("utf-16"))
    assert "UTF-16" in refused(cli("data", "describe", name, *ALL))


@pytest.mark.parametrize(
    "above", ["# one\n# two\n", "\n\n", "sep=;\n", '"sep=;"\n', "#\n"], ids=["comments", "empty", "sep", "quoted", "#"]
)
def test_what_stands_above_a_heading_is_passed_over_and_told(cli: Cli, above: str) -> None:
    for name in ("x.csv", "x.txt"):
        Path(name).write_text(above + "ID;SMILES;MW\n" + "".join(f"{i};{s};1\n" for i, s in enumerate(ACIDS)))
        kept, done = cleaned(cli, name)
        assert column(kept) == ACIDS
        assert f"lines above the heading passed over: {above.count(chr(10))}" in done.err


def test_a_heading_may_begin_with_the_comment_mark(cli: Cli) -> None:
    for heading in ("#SMILES,ID", "# SMILES,ID", "#,SMILES,ID"):
        extra = "7," if heading.startswith("#,") else ""
        Path("x.csv").write_text(heading + "\n" + "".join(f"{extra}{s},i{i}\n" for i, s in enumerate(ACIDS)))
        assert column(cleaned(cli, "x.csv")[0]) == ACIDS


def test_the_first_column_may_have_no_name(cli: Cli) -> None:
    for mark, name in (("\t", "x.tsv"), (",", "x.csv"), ("\t", "x.txt")):
        rows = "".join(f"{i}{mark}{smiles}{mark}n{i}\n" for i, smiles in enumerate(ACIDS))
        Path(name).write_text(f"{mark}SMILES{mark}name\n" + rows)  # as pandas writes its index
        kept, done = cleaned(cli, name)
        assert column(kept) == ACIDS
        assert column(kept, "") == ["0", "1", "2", "3"]
        assert f"{name}: " not in done.err


def test_a_title_above_a_heading_is_refused_with_the_line_of_the_heading(cli: Cli) -> None:
    Path("x.csv").write_text("Export of the registry\n\nID,SMILES\n1,CCO\n")
    assert "no SMILES column in its first line, but in line 3" in refused(cli("data", "describe", "x.csv", *ALL))


@pytest.mark.parametrize(
    ("name", "head", "hint"),
    [
        ("x.xlsx", b"PK\x03\x04", "CSV"),
        ("x.csv", b"PK\x03\x04", "zip"),
        ("x.zip", b"PK\x03\x04", "unpack"),
        ("x.smi.xz", b"\xfd7zXZ\x00", "xz -dk"),
        ("x.smi.zst", b"\x28\xb5\x2f\xfd", "zstd -d"),
        ("x.mol2", b"@<TRIPOS>", "obabel"),
        ("x.pdb", b"ATOM", "obabel"),
        ("x.foo", b"CCO", "known: .csv"),
        ("x.smi.bz2", bz2.compress(b"CCO\n" * 9_999)[:-9], "compress the file again"),
        ("x.csv.bz2", bz2.compress(b"smiles\nCCO\n")[:20] + b"\0" * 30, "the file again"),
    ],
)
def test_what_cannot_be_read_is_refused_with_a_way_out(cli: Cli, name: str, head: bytes, hint: str) -> None:
    Path(name).write_bytes(head + b"\0" * (20 if head.startswith((b"PK", b"\xfd", b"\x28")) else 0))
    assert hint in refused(cli("data", "describe", name, *ALL))


def test_a_bomb_of_bzip2_is_refused_before_it_fills_the_memory(cli: Cli) -> None:
    Path("x.smi.bz2").write_bytes(bz2.compress(b"C" * (32 * 2**20)))
    assert "line 1: longer than 1 MiB" in refused(cli("data", "describe", "x.smi.bz2", *ALL))


def test_lines_of_an_sd_file_that_belong_to_nothing_are_told(cli: Cli) -> None:
    records = (CASES / "naughty.sdf").read_bytes().replace(b"\r\n", b"\n").split(b"$$$$\n")
    Path("x.sdf").write_bytes(records[2] + records[3] + b"$$$$\n" + b"$$$$\n".join(records[4:]))
    _, done = cleaned(cli, "x.sdf")
    assert "9 rows, 9 molecules" in done.err
    assert "lines after a structure that belong to no property (is a $$$$ missing above them?)" in done.err
