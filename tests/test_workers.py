"""RDKit in processes that may hang or die."""

import os
import signal
import threading
import time

import pytest

import molgen.workers as module
from molgen.molecules import canonical
from molgen.workers import workers


def test_results_come_in_order_and_equal_those_of_this_process(moses_mini: list[str]) -> None:
    smiles = [*moses_mini[:1_200], "C(", ""]
    with workers(2) as pool:
        assert pool.map("canonical", smiles) == [canonical(s) for s in smiles]
        assert pool.map("canonical", []) == []


def test_a_molecule_that_hangs_is_lost_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SECONDS", 0.5)
    monkeypatch.setattr(module, "_SECONDS_AN_ITEM", 0.01)
    with workers(1) as pool:
        worker = pool._all[0]
        run, culprit = worker.run, "CCCl"

        def hangs(task, settings, items):
            if culprit in items:
                run("canonical", {}, ["C"])  # returns when the process is ready
                os.kill(worker.start().pid, signal.SIGSTOP)  # stands for a call into RDKit that never returns
            return run(task, settings, items)

        monkeypatch.setattr(worker, "run", hangs)
        began = time.monotonic()
        assert pool.map("canonical", ["CCO", "OCC", "CCCl", "CCN"]) == ["CCO", "CCO", None, "CCN"]
        assert time.monotonic() - began < 30


def test_a_worker_that_is_killed_takes_no_results_with_it(moses_mini: list[str]) -> None:
    smiles = moses_mini[:6_000]
    with workers(2) as pool:
        pool.map("canonical", ["C"] * 1_000)  # both are ready
        victim = pool._all[0].start()
        threading.Timer(0.3, victim.kill).start()
        results = pool.map("canonical", smiles)
    assert all(results)
    assert len(results) == 6_000


def test_closing_ends_every_process() -> None:
    with workers(2) as pool:
        processes = [worker.start() for worker in pool._all]
    assert all(process.poll() is not None for process in processes)
