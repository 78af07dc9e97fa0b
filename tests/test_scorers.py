"""Scorers: prepared forms of molecules, and a real Dask cluster, one of whose workers dies."""

import csv
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from molgen.chem.prepare import forms
from molgen.errors import MolgenError
from molgen.optimize import objective, optimize
from molgen.optimize.external import CallableScorer, CommandScorer, Scored, scorer_pool

distributed = pytest.importorskip("distributed")


def test_undefined_centres_are_enumerated_and_defined_ones_kept() -> None:
    assert set(forms("CC(O)CN", None, 8) or []) == {"C[C@H](O)CN", "C[C@@H](O)CN"}
    assert forms("C[C@H](O)CN", None, 8) == ["C[C@H](O)CN"]
    assert set(forms("FC=CF", None, 8) or []) == {"F/C=C/F", "F/C=C\\F"}
    assert len(forms("CC(F)C(Cl)C(Br)C(O)N", None, 4) or []) == 4
    assert forms("CC(O)CN", None, 1) == ["CC(O)CN"]
    assert forms("C(", None, 1) is None


def test_protomers_are_those_of_the_ph() -> None:
    assert forms("CC(=O)O", 7.4, 1) == ["CC(=O)[O-]"]
    assert forms("CC(=O)O", 2.0, 1) == ["CC(=O)O"]
    assert forms("CCN", 7.4, 1) == ["CC[NH3+]"]
    assert set(forms("CC(O)CC(=O)O", 7.4, 2) or []) == {"C[C@H](O)CC(=O)[O-]", "C[C@@H](O)CC(=O)[O-]"}


def test_a_scorer_gets_the_prepared_forms_and_the_best_counts() -> None:
    seen: list[str] = []

    def charges(smiles: list[str]) -> list[float]:
        seen.extend(smiles)
        return [s.count("@@") + s.count("+") for s in smiles]

    from molgen.machine import Runtime
    from molgen.optimize.components import load_objective
    from molgen.optimize.options import OptimizeOptions
    from molgen.optimize.setup import judging

    asked = load_objective(
        {"components": [{"scorer": True, "prepare": {"ph": 7.4, "stereoisomers": 2}, "transform": {"rising": [0, 4]}}]}
    )
    scorer = CallableScorer(charges, "charges")
    with judging(asked, scorer, Runtime("cpu"), OptimizeOptions(), None, {}) as judge:
        found = list(judge(["CC(O)CN", "CCC"], asked.all_stages[0]))
    assert set(seen) == {"C[C@H](O)C[NH3+]", "C[C@@H](O)C[NH3+]", "CCC"}
    assert [judged.raw for judged in found] == [(2.0,), (0.0,)]
    assert [judged.total for judged in found] == [0.5, 0.0]


def test_a_molecule_that_was_scored_is_not_handed_out_again() -> None:
    asked: list[str] = []

    def length(smiles: list[str]) -> list[float]:
        asked.extend(smiles)
        return [float(len(s)) for s in smiles]

    known = {"CC": 7.0}
    with scorer_pool(CallableScorer(length, "length"), 3, known) as pool:
        assert list(pool(["C", "CC", "C", "CCC"])) == [Scored(1.0), Scored(7.0), Scored(1.0), Scored(3.0)]
        assert list(pool(["CCC", "C"])) == [Scored(3.0), Scored(1.0)]
    assert sorted(asked) == ["C", "CCC"]
    assert known == {"C": 1.0, "CC": 7.0, "CCC": 3.0}


def test_a_hanging_batch_does_not_take_another_ones_results(tmp_path: Path) -> None:
    script = tmp_path / "s.py"
    script.write_text(
        "import sys, time\nlines = list(sys.stdin)\nif any('N' in x for x in lines): time.sleep(60)\n"
        "for x in lines: print(len(x))\n"
    )
    scorer = CommandScorer(f"{sys.executable} {script}", 2.0)
    began = time.monotonic()
    with scorer_pool(scorer, 2, {}) as pool:
        good, bad = pool(["CC", "CN"])
    assert good == Scored(3.0)
    assert "took longer than 2 s (of CN)" in bad.problem
    assert time.monotonic() - began < 20


# a cluster

WORKER = """
import sys
from pathlib import Path
import os, time
folder = Path(sys.argv[1])
for line in sys.stdin:
    time.sleep(0.05)
    with (folder / "scored.txt").open("a") as file:
        file.write(line)
    print(line.count("N") / 10)
"""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[tuple[str, list["subprocess.Popen[bytes]"]]]:
    """The address of a scheduler with two workers in processes of their own."""
    port_file = tmp_path / "scheduler.json"
    environment = os.environ | {"DASK_DISTRIBUTED__SCHEDULER__WORK_STEALING": "False"}
    start = [sys.executable, "-m"]
    processes = [
        subprocess.Popen(
            [*start, "distributed.cli.dask_scheduler", "--port", "0", "--host", "127.0.0.1", "--no-dashboard",
             "--scheduler-file", str(port_file)],
            env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        )
    ]  # fmt: skip
    processes += [
        subprocess.Popen(
            [*start, "distributed.cli.dask_worker", "--scheduler-file", str(port_file), "--nthreads", "1", "--no-nanny",
             "--no-dashboard", "--local-directory", str(tmp_path / f"w{i}")],
            env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        )
        for i in range(2)
    ]  # fmt: skip
    try:
        with distributed.Client(scheduler_file=str(port_file), timeout=60, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=60)
            yield str(client.scheduler.address), processes[1:]
    finally:
        for process in processes:
            process.kill()
            process.wait()


@pytest.mark.slow
def test_a_cluster_that_loses_a_worker_loses_no_score_and_counts_none_twice(
    cluster: tuple[str, list["subprocess.Popen[bytes]"]], tmp_path: Path
) -> None:
    address, workers = cluster
    (tmp_path / "scorer.py").write_text(WORKER)
    command = f"{sys.executable} -I {tmp_path / 'scorer.py'} {tmp_path}"
    killer = subprocess.Popen(
        [sys.executable, "-c", f"import os, time, pathlib\np = pathlib.Path({str(tmp_path / 'scored.txt')!r})\n"
         "while not p.exists() or p.read_text().count('\\n') < 20: time.sleep(0.05)\n"
         f"os.kill({workers[0].pid}, {int(signal.SIGKILL)})"],
    )  # fmt: skip
    run = optimize("moses-small", out=tmp_path / "r", command=command, maximise="0..1", calls=120, scheduler=address)
    assert killer.wait(timeout=60) == 0
    assert workers[0].wait(timeout=60) != 0
    with (run.path / "scored.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 120
    assert max(Counter(row["canonical"] for row in rows).values()) == 1
    assert all(float(row["score_raw"]) == row["canonical"].count("N") / 10 for row in rows)
    local = optimize("moses-small", out=tmp_path / "l", command=command, maximise="0..1", calls=120)
    assert (local.path / "scored.csv").read_bytes() == (run.path / "scored.csv").read_bytes()
    assert (local.path / "model.safetensors").read_bytes() == (run.path / "model.safetensors").read_bytes()


def test_a_scheduler_that_is_not_there_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from molgen.optimize import cluster

    monkeypatch.setattr(cluster, "_SECONDS_TO_CONNECT", 1)
    with pytest.raises(MolgenError, match="cannot be reached"):
        optimize(
            "moses-small", out=tmp_path / "r", command="cat", maximise="0..1", calls=5, scheduler="tcp://127.0.0.1:9"
        )


def test_an_objective_by_hand_takes_a_command(tmp_path: Path) -> None:
    (tmp_path / "s.py").write_text("import sys\nfor x in sys.stdin: print(len(x.strip()))\n")
    scores = objective(command=f"{sys.executable} {tmp_path / 's.py'}", minimise="0..10")
    assert scores(["CC", "C1CC1", "x"]) == pytest.approx([0.8, 0.5, 0.0])
