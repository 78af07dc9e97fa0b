import pytest

from molgen.chem.conditions import Condition, Value
from molgen.errors import MolgenError

ROW: dict[str, Value] = {
    "pIC50": "7.5",
    "mw": "312",
    "units": "nM",
    "Standard Value": "31.6",
    "IC50 (nM)": "31.6",
    "active": "True",
    "code": "007",
    "relation": ">",
    "empty": "",
    "count": 3,
    "flag": True,
    "none": None,
    "nan": float("nan"),
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("pIC50 > 7", True),
        ("pIC50 > 7.5", False),
        ("pIC50 >= 7.5", True),
        ("10 < mw <= 312", True),
        ("mw < 300 or units == 'nM'", True),
        ("mw < 300 and units == 'nM'", False),
        ('not (units == "uM" or 1 <= mw < 3)', True),
        ('units in ("nM", "uM")', True),
        ('units not in ["nM", "uM"]', False),
        ('units in ("nM")', True),
        ('relation == ">"', True),
        ("`Standard Value` < 100", True),
        ("` IC50 (nM) ` < 100 and `IC50 (nM)` == `Standard Value`", True),
        ("mw > -1 and -1.5 < pIC50", True),
        ("mw > pIC50", True),
        ("active == True and active == 1 and flag == 1", True),
        ("active == False", False),
        ("count == 3 and count == '3'", True),
        ("count in (1, 2)", False),
        ("units == '`nM`'", False),
        ("units < 'uM'", True),
    ],
)
def test_a_condition_holds_or_not(text: str, expected: bool) -> None:
    assert Condition(text).holds(ROW) is expected


def test_text_in_quotes_is_compared_as_text_and_a_number_as_a_number() -> None:
    assert Condition('code == "007"').holds(ROW)
    assert not Condition('code == "7"').holds(ROW)
    assert Condition("code == 7").holds(ROW)


@pytest.mark.parametrize("name", ["empty", "none", "nan", "absent"])
def test_a_missing_value_satisfies_no_comparison(name: str) -> None:
    for comparison in ("> 7", "<= 7", "== 7", "!= 7", '== ""', '!= "x"', "in (1, 2)", "not in (1, 2)", f"== {name}"):
        assert not Condition(f"{name} {comparison}").holds(ROW), comparison
    assert Condition(f"not ({name} > 7)").holds(ROW)
    assert Condition(f"not {name} == {name}").holds(ROW)


def test_text_beside_a_number_satisfies_no_comparison() -> None:
    for comparison in ("> 7", "< 7", "== 7", "!= 7", "not in (1, 2)"):
        assert not Condition(f"units {comparison}").holds(ROW), comparison
    assert not Condition("x == 1000").holds({"x": "1_000"})


def test_the_names_are_those_of_the_columns_once_each_in_order() -> None:
    assert Condition("b > 1 and (`a c` == 'x' or b < `a c`)").names == ("b", "a c")
    assert Condition("µM > 1").names == ("µM",)  # the micro sign, which Python's parser would replace


def test_an_unknown_column_is_named_with_the_near_one_and_the_known_ones() -> None:
    with pytest.raises(MolgenError, match=r"a\.csv: no column 'pic50'.*did you mean pIC50\? columns: smiles, pIC50"):
        Condition("pic50 > 7").check(["smiles", "pIC50"], "a.csv")
    Condition("pIC50 > 7").check(["smiles", "pIC50"])


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("", "pIC50 > 7"),
        ("   ", "pIC50 > 7"),
        ("x = 7", "write =="),
        ("x is 7", "write =="),
        ("x", "comparisons joined by and, or, not"),
        ("x > 7 and y", "comparisons joined by and, or, not"),
        ("1 < 2", "comparisons joined by and, or, not"),
        ("x + 1 > 7", "comparisons joined by and, or, not"),
        ("NR-AR == 1", "backquotes"),
        ("log(x) > 7", "comparisons joined by and, or, not"),
        ("Standard Value < 100", "backquotes"),
        ("`Standard Value < 100", "backquotes"),
        ("`` < 100", "backquotes"),
        ("'a' in x", "x in (1, 2)"),
        ("x in ()", "x in (1, 2)"),
        ("x in (y, 2)", "x in (1, 2)"),
        ("x in (0, 3) in (0, 2)", "comparisons joined by"),
        ("x == None", "comparisons joined by"),
        ("x == b'a'", "comparisons joined by"),
        ("x == 1j", "comparisons joined by"),
        ("x == ...", "comparisons joined by"),
        ("x == f'{y}'", "comparisons joined by"),
        ("x == ~1", "comparisons joined by"),
        ("(x := 3) > 1", "comparisons joined by"),
        ("x.real > 1", "comparisons joined by"),
        ("x[0] > 1", "comparisons joined by"),
        ("[x for x in y] == 1", "comparisons joined by"),
        ("lambda: 0", "comparisons joined by"),
        ("x if y else z", "comparisons joined by"),
        ('__import__("os").system("true") == 0', "comparisons joined by"),
        ('__import__("os")', "comparisons joined by"),
        ("import os", "comparisons joined by"),
        ("x > 7; y > 8", "comparisons joined by"),
        ("x > 7\ny > 8", "comparisons joined by"),
        ("x > '\0'", "comparisons joined by"),
        ("(" * 10_000 + "x > 1" + ")" * 10_000, "at most 1,000"),
        ("(" * 450 + "x > 1" + ")" * 450, "comparisons joined by"),
        ("not " * 200 + "x > 1", ""),
        ("x == " + "-" * 900 + "1", "comparisons joined by"),
        ("x > " + "[" * 400, "comparisons joined by"),
    ],
)
def test_what_is_no_comparison_is_refused_in_one_line(text: str, hint: str) -> None:
    with pytest.raises(MolgenError) as error:
        Condition(text)
    assert hint in error.value.hint
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300


def test_a_number_beyond_all_floats_is_never_reached() -> None:
    assert not Condition(f"x > {'9' * 400}").holds({"x": "1"})
    assert not Condition(f"x < -{'9' * 400}").holds({"x": "1"})


def test_an_odd_escape_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    assert not Condition(r"x == '\d'").holds({"x": "1"})
    assert capfd.readouterr() == ("", "")
