"""The benchmark's arithmetic by hand, and its quick mode from end to end."""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench import Bench, Entry, one_round
from comparison import (
    END,
    START,
    Figures,
    Rounds,
    Target,
    add_floors,
    medians,
    ratio,
    replaced,
    spread,
    table,
)
from molgen.runs import Run
from peers import matrix
from timing import Job, Window, padded

BENCH = Path(__file__).parents[1] / "scripts" / "bench" / "bench.py"
FASTER = Target("sampling", "molecules_per_second", "molgen", "transformers GPT-2, fp32", 5.0)


def rounds(ours: list[float], theirs: list[float]) -> Rounds:
    """Rates of two contestants with 1,000 weights and 10 tokens a molecule; products run at 1e6 operations a second."""

    def row(rates: list[float]) -> list[Figures]:
        return [
            {"molecules_per_second": rate, "tokens_per_second": 10 * rate, "weights": 1000, "seconds_per_epoch": 1.0}
            for rate in rates
        ]

    return {
        "training": {"molgen": row(ours)},
        "sampling": {"molgen": row(ours), "transformers GPT-2, fp32": row(theirs)},
        "machine": {"large products": [{"fp32": 1e-3, "bf16": 4e-3} for _ in ours]},
    }


def test_a_ratio_is_that_of_the_medians_and_its_spread_that_within_the_rounds() -> None:
    made_up = rounds([600.0, 100.0, 550.0], [100.0, 110.0, 200.0])
    assert medians(made_up)["sampling"]["molgen"]["molecules_per_second"] == 550
    assert ratio(medians(made_up), FASTER) == 550 / 110
    assert spread(made_up, FASTER) == (100 / 110, 600 / 100)


def test_a_ratio_at_its_target_meets_it_and_a_floor_is_met_from_below() -> None:
    assert FASTER.met(5.0)
    assert not FASTER.met(4.99)
    floor = FASTER._replace(wanted=2.0, at_most=True)
    assert floor.met(2.0)
    assert not floor.met(2.01)
    assert FASTER._replace(wanted=None).met(1.0) is None


def test_the_floor_takes_two_operations_a_weight_and_token_in_sampling_and_six_in_training() -> None:
    made_up = rounds([5.0], [1.0])
    add_floors(made_up)
    # 1e6 operations a second over 2 x 1,000 a token and 10 tokens a molecule
    (sampling,), (training,) = (made_up[name]["arithmetic alone, fp32"] for name in ("sampling", "training"))
    assert sampling["tokens_per_second"] == 500
    assert sampling["molecules_per_second"] == pytest.approx(50)
    assert training["tokens_per_second"] == pytest.approx(1000 / 6)
    assert training["seconds_per_epoch"] == pytest.approx(50 / (1000 / 6))  # ours: 50 tokens a second, one second
    assert made_up["sampling"]["arithmetic alone, bf16"][0]["molecules_per_second"] == pytest.approx(200)


def test_the_table_shows_ratio_target_and_whether_it_is_met() -> None:
    made_up = rounds([600.0, 100.0, 550.0], [100.0, 110.0, 200.0])
    add_floors(made_up)
    (line,) = [line for line in table(made_up).splitlines() if "molecules/s: molgen / transformers GPT-2, fp32" in line]
    assert line.split()[-8:] == ["5.0", "0.9", "to", "6.0", "at", "least", "5", "yes"]


def test_a_peer_that_could_not_be_measured_has_its_reason_in_the_table_and_no_ratio() -> None:
    made_up = rounds([5.0], [1.0])
    made_up["sampling"]["transformers GPT-2, fp32"] = [{"failed": "no network (exit code 1)"}]
    add_floors(made_up)
    assert "not measured: no network (exit code 1)" in table(made_up)
    assert ratio(medians(made_up), FASTER) is None
    assert "molgen / transformers GPT-2" not in table(made_up)


def test_only_what_stands_between_the_marks_of_a_document_is_written() -> None:
    text = f"before\n{START}\nold\n{END}\nafter\n"
    once = replaced(text, "new")
    assert once == f"before\n{START}\n\nnew\n\n{END}\nafter\n"
    assert replaced(once, "new") == once
    with pytest.raises(ValueError, match="bench"):
        replaced("no marks", "new")


def test_padding_and_what_is_handed_out_to_warm_up_do_not_count() -> None:
    job = Job(task="train", who="ours", folder="", seconds=1e9)
    batch = padded([[1, 5, 5, 2], [1, 5, 2]])  # 3 and 2 predicted positions, one pad
    window = Window(iter([batch] * 5), job)
    assert len(list(window)) == 5
    assert (window.steps, window.tokens) == (2, 10)


@pytest.mark.slow
def test_the_quick_benchmark_runs_and_writes_what_it_measured(small_run: Run, tmp_path: Path) -> None:
    document, figures = tmp_path / "table.md", tmp_path / "bench.json"
    document.write_text(f"{START}\n{END}\n")
    options = ["--quick", "--run", small_run.path, "--json", figures, "--write", document]
    done = subprocess.run([sys.executable, BENCH, *options], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    results = json.loads(figures.read_text())
    assert results["hardware"].keys() >= {"cpu", "cores", "flags", "memory_gib"}
    assert results["facts"]["versions"].keys() >= {"python", "torch", "transformers", "molgen-lm"}
    assert results.keys() >= {"date", "seeds", "load_before", "data", "medians", "ratios"}
    for section, rate in (("training", "tokens_per_second"), ("sampling", "molecules_per_second")):
        for row in ("molgen", "transformers GPT-2, fp32"):
            (measured,) = results["rounds"][section][row]
            assert measured[rate] > 0, row
            assert measured["peak_mib"] > 50
    assert results["rounds"]["start-up"]["molgen sample -n 10"][0]["wall_seconds"] > 0
    products = results["rounds"]["machine"]["large products"][0]
    assert products.keys() >= {"fp32"}
    assert ("bf16" in products) == results["facts"]["bf16"]
    assert done.stdout.strip() in document.read_text()


def test_without_units_for_bf16_its_rows_say_so_and_nothing_is_measured_in_it(tmp_path: Path) -> None:
    made_up = rounds([5.0], [1.0])
    del made_up["machine"]["large products"][0]["bf16"]
    add_floors(made_up)
    asks = Bench(tmp_path, {}, "", together=False)
    asks.bf16 = False
    asks.perform([Entry("training", "transformers GPT-2, bf16", "transformers", {"precision": "bf16"})])
    made_up["training"] |= asks.rounds["training"]
    lines = table(made_up).splitlines()
    for row in ("transformers GPT-2, bf16", "arithmetic alone, bf16"):
        shown = [line for line in lines if line.strip().startswith(row)]
        assert shown
        assert all(line.endswith("not measured: this machine has no units for bf16") for line in shown)
    assert not [line for line in lines if "/ transformers GPT-2, bf16" in line]
    arguments = argparse.Namespace(device="cpu", quick=False)
    entries = one_round(arguments, {"folder": "", "run": ""}, "", 0, has_bf16=False)
    (products,) = [entry for entry in entries if entry.section == "machine"]
    assert products.job["precision"] == "fp32"
    assert matrix(Job(task="matrix", who="ours", folder="", precision="fp32")).keys() == {"fp32"}
