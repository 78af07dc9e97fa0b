"""The commands as a person types them."""

import csv
import io
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import SMALL, Cli, Done

from molgen.chem.smiles import canonical
from molgen.metrics.basic import basic_figures
from molgen.runs import Run

MOLGEN = [sys.executable, "-m", "molgen"]


def refused(done: object, *said: str) -> None:
    """Exit code 2, one line on stderr, no traceback."""
    code, out, err = done  # type: ignore[misc]
    assert code == 2, err
    assert not out
    assert err.count("\n") == 1
    assert "Traceback" not in err
    for text in said:
        assert text in err


def test_samples_are_lines_on_stdout_and_the_summary_is_on_stderr(cli: Cli, small_run: Run) -> None:
    code, out, err = cli("sample", small_run.path, "-n", 300, "--temperature", 0.6)
    assert code == 0
    assert len(out.splitlines()) == 300
    assert "validity" in err
    assert "novelty" in err


def test_what_sample_writes_eval_reads_with_the_same_figures(cli: Cli, small_run: Run) -> None:
    written = cli("sample", small_run.path, "-n", 300, "-o", "x.smi", "--temperature", 0.6)
    assert written.code == 0
    lines = Path("x.smi").read_text().splitlines()
    assert len(lines) == 300
    valid = [c for c in map(canonical, lines) if c]
    assert 0 < len(valid) < 300  # so that the comparison can fail
    done = cli("eval", "x.smi", "--train", "moses-mini", "--json", "x.json")
    assert done.code == 0
    figures = json.loads(Path("x.json").read_text())
    assert figures["n_samples"] == 300
    assert figures["validity"] == pytest.approx(len(valid) / 300)
    assert f"validity {len(valid) / 300:.3f}" in written.err
    assert f"{len(valid) / 300:.3f}" in done.out


def test_eval_of_a_run_gives_the_basic_figures_with_their_sizes(cli: Cli, small_run: Run) -> None:
    done = cli("eval", small_run.path, "-n", 50, "--json", "x.json")
    assert done.code == 0
    figures = json.loads(Path("x.json").read_text())
    for name in ("nll", "nll_stderr", "nll_train", "nll_per_token", "perplexity", "top1", "top1_padded", "validity"):
        assert isinstance(figures[name], float), name
    assert figures["n_samples"] == 50
    assert figures["n_held_out"] + figures["n_unknown_tokens"] == 20
    assert "n = 50" in done.out
    assert "± " in done.out


def test_eval_puts_runs_and_files_side_by_side_with_a_paired_difference(cli: Cli, small_run: Run) -> None:
    Path("a.smi").write_text("CCO\nC(\n")
    done = cli("eval", small_run.path, small_run.path, "a.smi", "-n", 20, "--json", "x.json")
    assert done.code == 0
    first, second, file = json.loads(Path("x.json").read_text())
    assert second["nll_paired_difference"] == 0
    assert "nll_paired_difference" not in first
    assert file["validity"] == 0.5


def test_eval_reads_stdin() -> None:
    done = subprocess.run([*MOLGEN, "eval", "-"], input="CCO\nCCO\nC(\n", capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "0.667" in done.stdout
    assert "0.500" in done.stdout


def test_a_file_without_an_invalid_line_says_that_validity_means_nothing(cli: Cli) -> None:
    Path("x.smi").write_text("CCO\nCCN\n")
    assert "validity not meaningful: filtered before" in cli("eval", "x.smi").out
    Path("y.smi").write_text("CCO\nC(\n")
    assert "not meaningful" not in cli("eval", "y.smi").out


def test_basic_figures_are_counted_as_defined() -> None:
    figures = basic_figures(["C", "C", "CC", "CCC", None], {"CC", "CCCC"})
    assert figures.values == {
        "n_samples": 5,
        "n_valid": 4,
        "validity": 4 / 5,
        "uniqueness": 3 / 4,
        "novelty": 2 / 3,
    }


@pytest.mark.parametrize(
    ("samples", "missing"), [([None], {"uniqueness", "novelty"}), ([], {"validity", "uniqueness", "novelty"})]
)
def test_a_figure_that_cannot_be_computed_is_null_with_its_reason(samples: list, missing: set) -> None:
    figures = basic_figures(samples, set())
    assert {name for name, value in figures.values.items() if value is None} == missing == set(figures.reasons)


def test_without_a_training_set_novelty_is_null_and_says_why() -> None:
    assert "--train" in basic_figures(["C"], None).reasons["novelty"]


def scored(done: Done) -> list[dict[str, str]]:
    assert done.code == 0, done.err
    return list(csv.DictReader(io.StringIO(done.out)))


def test_score_gives_a_row_for_every_molecule(cli: Cli, small_run: Run) -> None:
    Path("in.csv").write_text("name,Smiles\na,OCC\nb,CC[Xe]\nc,C(\nd,CP\n")
    done = cli("score", "in.csv", small_run.path)
    rows = scored(done)
    assert [row["name"] for row in rows] == ["a", "b", "c", "d"]
    assert [row["canonical"] for row in rows] == ["CCO", "", "", "CP"]
    assert float(rows[0]["log_likelihood"]) < 0
    assert float(rows[0]["log_likelihood_per_token"]) == pytest.approx(float(rows[0]["log_likelihood"]) / 4, abs=1e-3)
    assert rows[0]["tokens"] == "3"
    assert [row["unseen_token"] for row in rows] == ["", "[Xe]", "", "P"]
    assert [row["note"] for row in rows] == [
        "",
        "element not in data.elements",
        "not parsed by RDKit: syntax",
        "a token that training lacks",
    ]
    assert "3 of 4 not scored: 1 element not in data.elements" in done.err


def test_score_standardises_as_the_run_did_unless_told_otherwise(cli: Cli, small_run: Run) -> None:
    Path("in.smi").write_text("CC[NH3+].[Cl-] salt\nOCC\nCCN plain\nC[C@H](O)N |o1:1|\n")
    salt, turned, plain, enhanced = scored(cli("score", "in.smi", small_run.path))
    assert (salt["canonical"], salt["note"]) == ("CCN", "smaller fragments cut; neutralised")
    assert salt["log_likelihood"] == plain["log_likelihood"]
    assert (enhanced["canonical"], enhanced["note"]) == ("CC(N)O", "racemic or relative stereo made undefined")
    as_given = scored(cli("score", "in.smi", small_run.path, "--as-written"))
    assert [row["canonical"] for row in as_given[1:3]] == ["OCC", "CCN"]
    assert as_given[1]["log_likelihood"] != turned["log_likelihood"]
    assert as_given[0]["unseen_token"]  # no charged token in the small run


def test_a_sum_over_strings_is_that_of_their_probabilities(cli: Cli, small_run: Run) -> None:
    Path("in.smi").write_text("CCO\nC\nCC[Xe]\n")
    ethanol, methane, unknown = scored(cli("score", "in.smi", small_run.path, "--strings", 8))
    # every SMILES that RDKit writes of ethanol without brackets
    Path("all.smi").write_text("CCO\nOCC\nC(C)O\nC(O)C\n")
    every = [float(row["log_likelihood"]) for row in scored(cli("score", "all.smi", small_run.path, "--as-written"))]
    assert ethanol["strings"] == "4"
    expected = math.log(sum(math.exp(value) for value in every))
    assert float(ethanol["log_likelihood_strings"]) == pytest.approx(expected, abs=1e-3)
    assert (methane["strings"], methane["log_likelihood_strings"]) == ("1", methane["log_likelihood"])
    assert (unknown["strings"], unknown["log_likelihood_strings"]) == ("", "")
    assert cli("score", "in.smi", small_run.path, "--strings", 0).code == 2


def test_a_csv_of_samples_has_their_canonical_form_and_validity(cli: Cli, small_run: Run) -> None:
    assert cli("sample", small_run.path, "-n", 20, "-o", "x.csv").code == 0
    rows = list(csv.DictReader(io.StringIO(Path("x.csv").read_text())))
    assert len(rows) == 20
    assert all((row["valid"] == "true") == bool(row["canonical"]) == bool(canonical(row["smiles"])) for row in rows)


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_a_grid_of_the_valid_molecules_is_drawn(cli: Cli, small_run: Run, suffix: str) -> None:
    done = cli("sample", small_run.path, "-n", 12, "--valid", "--temperature", 0.6, "--grid", f"x.{suffix}")
    assert done.code == 0
    start = Path(f"x.{suffix}").read_bytes()[:300]
    assert start.startswith(b"\x89PNG") if suffix == "png" else b"<svg" in start


def test_output_that_exists_is_refused_without_force(cli: Cli, small_run: Run) -> None:
    Path("x.smi").write_text("precious")
    refused(cli("sample", small_run.path, "-o", "x.smi"), "x.smi: exists", "--force")
    assert Path("x.smi").read_text() == "precious"
    assert cli("sample", small_run.path, "-n", 2, "-o", "x.smi", "--force").code == 0


def test_no_run_yet_says_how_to_get_one(cli: Cli) -> None:
    refused(cli("sample"), "no run yet", "molgen train moses-mini")
    refused(cli("eval"), "no run yet", "molgen train moses-mini")


def test_wrong_files_and_columns_are_refused_in_one_line(cli: Cli) -> None:
    refused(cli("train", "none.csv"), "none.csv", "check the path")
    refused(cli("train", "tox22"), "tox21, moses, moses-mini")
    refused(cli("eval", "none.smi"), "none.smi")
    Path("a.csv").write_text("id,structure\n1,CCO\n")
    refused(cli("train", "a.csv"), "id, structure", "--smiles-column")
    refused(cli("train", "a.csv", "--smiles-column", "smile"), "no column 'smile'")
    Path("b.csv").write_text("smiles,pIC50\nCCO,5\n")
    refused(cli("train", "b.csv", "--where", "pic50 > 7"), "no column 'pic50'", "did you mean pIC50?")
    refused(cli("train", "b.csv", "--where", "pIC50 > 7"), "chose none of 1 rows")
    refused(cli("train", "b.csv", "--where", "pIC50 = 7"), "write ==")
    Path("empty.smi").write_text("")
    refused(cli("train", "empty.smi"), "empty.smi: no molecules")
    refused(cli("eval", "empty.smi"), "empty.smi: no samples")
    assert not Path("runs").exists()  # nothing half-written


def test_wrong_settings_are_refused_in_one_line(cli: Cli, small_run: Run) -> None:
    refused(cli("train", "--set", "training.epoch=3"), "did you mean training.epochs?")
    refused(cli("train", "--config", "tomzcak"), "did you mean tomczak?")
    refused(cli("train", "--seed", -1), "training.seed")
    refused(cli("sample", small_run.path, "--temperature", "nan"), "--temperature")
    refused(cli("sample", small_run.path, "-n", 0), "-n 0")
    refused(cli("sample", small_run.path, "--prompt", "CC[Xe]"), "[Xe]")
    refused(cli("sample", small_run.path, "-o", "x.pdf"), ".smi, .csv, .sdf")
    refused(cli("sample", small_run.path, "--grid", "none/x.png"), "no directory none")
    refused(cli("sample", small_run.path, "--grid", "x.pdf"), ".png or .svg")
    refused(cli("sample", "nowhere"), "not a run directory")


def test_a_device_that_is_not_there_is_refused(cli: Cli, small_run: Run) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    refused(cli("sample", small_run.path, "--device", "cuda"), "--device cuda", "cpu")


def test_unknown_options_and_commands_exit_with_2(cli: Cli) -> None:
    assert cli("train", "--bogus").code == 2
    assert cli("fly").code == 2
    assert cli("sample", "-n", "many").code == 2


def test_evaluate_is_another_name_for_eval(cli: Cli) -> None:
    Path("x.smi").write_text("CCO\nC(\n")
    assert cli("evaluate", "x.smi").out == cli("eval", "x.smi").out


def test_the_named_datasets_are_listed(cli: Cli) -> None:
    done = cli("data", "list")
    assert [line.split()[0] for line in done.out.splitlines()] == [
        *("tox21", "moses", "moses-mini", "moleculeace", "zinc250k", "peptides", "benchmark-targets")
    ]
    assert Path(cli("data", "get", "moses-mini").out.strip()).exists()
    refused(cli("data", "get", "zinc"), "tox21, moses, moses-mini")


def test_a_pipe_that_is_closed_early_ends_quietly(small_run: Run) -> None:
    process = subprocess.Popen(
        [*MOLGEN, "sample", str(small_run.path), "-n", "4000", "--batch-size", "100"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout and process.stderr
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(60) == 0
    assert "Traceback" not in process.stderr.read()
    process.stderr.close()


def test_a_training_whose_messages_no_one_reads_is_done_all_the_same(small_file: Path, tmp_path: Path) -> None:
    settings = [part for setting in (*SMALL, "training.epochs=1") for part in ("--set", setting)]
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [*MOLGEN, "train", str(small_file), "--out", "run", *settings],
        cwd=tmp_path, stdout=writer, stderr=writer, check=False,
    )  # fmt: skip
    os.close(writer)
    assert done.returncode == 0
    assert Run(tmp_path / "run").report["epochs"] == 1


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_training_that_can_be_resumed(small_file: Path, tmp_path: Path, number: int, code: int) -> None:
    settings = [part for setting in (*SMALL, "training.epochs=10000") for part in ("--set", setting)]
    process = subprocess.Popen(
        [*MOLGEN, "train", str(small_file), "--out", "run", *settings],
        cwd=tmp_path, stderr=subprocess.PIPE, text=True,
        # a suite that runs in the background may have been started with SIGINT ignored
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    for _ in range(600):
        time.sleep(0.1)
        if (tmp_path / "run" / "state.safetensors").exists():
            break
    os.kill(process.pid, number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert "--resume" in err
    assert "Traceback" not in err
    done = subprocess.run(
        [*MOLGEN, "sample", "run", "-n", "2"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert len(done.stdout.splitlines()) == 2


def test_files_with_odd_shapes_train_like_clean_ones(cli: Cli, moses_mini: list[str]) -> None:
    short = (*SMALL, "training.epochs=1", "data.min_token_count=1")
    settings = [part for setting in short for part in ("--set", setting)]
    molecules = moses_mini[:40]
    Path("clean.smi").write_text("\n".join(molecules) + "\n")
    Path("names.smi").write_text("SMILES\tname\n" + "\n".join(f"{m}\tmol {i}" for i, m in enumerate(molecules)))
    Path("bom.csv").write_bytes(
        b"\xef\xbb\xbf" + "\r\n".join(["id;canonical_smiles", *(f"{i};{m}" for i, m in enumerate(molecules))]).encode()
    )
    logs = []
    for name in ("clean.smi", "names.smi", "bom.csv"):
        done = cli("train", name, "--out", f"run-{name}", *settings)
        assert done.code == 0, done.err
        logs.append(Run(Path(f"run-{name}")).log()[0]["val_nll"])
    assert logs[0] == logs[1] == logs[2]
    assert Run(Path("run-names.smi")).molecules[3].name == "mol 3"
