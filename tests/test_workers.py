"""RDKit in processes that may hang or die."""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import Cli

import molgen
import molgen.chem.pool as module
from molgen.chem.pool import workers
from molgen.chem.smiles import canonical
from molgen.runs import Run

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


def python(code: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env={**os.environ, **environment}
    )


def test_results_come_in_order_and_equal_those_of_this_process(moses_mini: list[str]) -> None:
    smiles = [*moses_mini[:1_200], "C(", ""]
    with workers(2) as pool:
        assert pool.map("canonical", smiles) == [canonical(s) for s in smiles]
        assert pool.map("canonical", []) == []


def test_a_molecule_that_hangs_is_lost_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SECONDS", 0.3)
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


def test_a_worker_that_is_killed_while_it_waits_costs_no_molecule() -> None:
    with workers(1) as pool:
        pool.map("canonical", ["C"])
        idle = pool._all[0].start()
        idle.kill()
        idle.wait()
        assert pool.map("canonical", ["OCC"]) == ["CCO"]
        assert not pool.lost


def test_closing_ends_every_process() -> None:
    with workers(2) as pool:
        processes = [worker.start() for worker in pool._all]
    assert all(process.poll() is not None for process in processes)


def test_workers_that_cannot_start_are_a_fault_with_its_message_and_no_figures(small_run: Run, tmp_path: Path) -> None:
    # an RDKit that cannot be imported, where only the workers import it
    (tmp_path / "broken" / "rdkit").mkdir(parents=True)
    (tmp_path / "broken" / "rdkit" / "__init__.py").write_text("raise ImportError('libboost is missing')\n")
    code = (
        "import os, sys, molgen.cli.main, molgen.chem.smiles, molgen.chem.standardize, molgen.chem.filters\n"
        f"os.environ['PYTHONPATH'] = {str(tmp_path / 'broken')!r}\n"
        f"molgen.cli.main.main(['sample', {str(small_run.path)!r}, '-n', '5'])"
    )
    began = time.monotonic()
    done = python(code, MOLGEN_DATA=str(tmp_path / "data"))
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.strip().splitlines()[-1] == (
        "molgen: RDKit's process cannot start: ImportError: libboost is missing"
    )
    assert "validity" not in done.stderr
    assert time.monotonic() - began < 60
    assert not (tmp_path / "data").exists()


def test_an_exception_in_a_task_is_a_fault_with_its_text_and_nothing_is_cached(
    cli: Cli, small_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOLGEN_DATA", str(tmp_path / "data"))
    with workers() as pool:
        before = [worker.start().pid for worker in pool._all]
        monkeypatch.setattr("molgen.evaluation.evaluate.parts", lambda _: ["canonical", "colour"])
        began = time.monotonic()
        done = cli("eval", small_run.path, "-n", 600, "--metrics", "chem")
        assert done.code == 1
        assert "KeyError: 'colour'" in done.err
        assert "hung" not in done.err
        assert done.out == ""
        assert time.monotonic() - began < 30
        assert not list(tmp_path.rglob("*.safetensors"))
        pool.map("canonical", ["C"] * 2_000)
        assert set(before) & {worker.start().pid for worker in pool._all}  # one that answered goes on


def test_lost_answers_are_said_with_their_number_and_never_cached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MOLGEN_DATA", str(tmp_path))
    code = (
        "import os, sys, molgen.chem.pool as w\n"
        "describe = w.TASKS['describe']\n"
        "w.TASKS['describe'] = lambda s, **k: os._exit(9) if s == 'CCCCC' else describe(s, **k)\n"
        f"w.serve({os.getpid()})"
    )
    with monkeypatch.context() as patch, workers(1) as dying:
        dying.close()
        patch.setattr(module, "_code", lambda: ["-c", code])
        with workers(1) as pool:
            patch.setattr(module, "_shared", pool)
            figures = molgen.evaluate(["CCCCC", "CCO"], training=["CCCCC", "OCC"]).figures.values
            assert (figures["n_valid"], figures["novelty"]) == (1, 0)
            figures = molgen.evaluate(["CCC", "CCO"], training=["CCCCC", "OCC"]).figures.values
            assert figures["n_valid"] == 2
    said = capfd.readouterr().err
    assert "on 1 of 2 strings (samples), the first CCCCC" in said
    assert "training" in said
    assert not list(tmp_path.rglob("*.safetensors"))
    figures = molgen.evaluate(["CCCCC", "CCO"], training=["CCCCC", "OCC"]).figures.values  # with sound workers
    assert (figures["n_valid"], figures["novelty"]) == (2, 0)


def test_a_second_sample_in_one_process_starts_no_worker(small_run: Run) -> None:
    generator = molgen.MoleculeGenerator.load(small_run.path, "cpu")
    generator.sample(5)
    seconds = []
    for _ in range(3):
        began = time.monotonic()
        generator.sample(5)
        seconds.append(time.monotonic() - began)
    assert min(seconds) < 0.5


def test_after_an_interrupt_and_in_a_forked_child_there_are_workers() -> None:
    code = (
        "import os, signal, threading, time, warnings\n"
        "from molgen.chem.pool import workers\n"
        "with workers() as pool:\n"
        "    pool.map('canonical', ['C'])\n"
        "    signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's background job ignores it
        "    threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT)).start()\n"
        "    try:\n"
        "        while True:\n"
        "            pool.map('canonical', ['C' * 60] * 20_000)\n"
        "    except KeyboardInterrupt:\n"
        "        print('interrupted', flush=True)\n"
        "with workers() as pool:\n"
        "    print(pool.map('canonical', ['OCC']), pool.lost, flush=True)\n"
        "warnings.simplefilter('ignore', DeprecationWarning)\n"  # since 3.12 a fork beside threads is warned of
        "child = os.fork()\n"
        "with workers() as pool:\n"
        "    print(pool.map('canonical', ['NCC']), flush=True)\n"
        "if child:\n"
        "    print(os.waitpid(child, 0)[1])\n"
    )
    done = python(code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n") == ["interrupted", "['CCO'] []", "['CCN']", "['CCN']", "0", ""], done.stderr
    assert done.stderr == ""


@LINUX
def test_a_worker_in_a_long_call_ends_with_its_parent_that_is_killed() -> None:
    # a cage of 60 carbons: to look for its patterns takes RDKit minutes
    code = (
        "import time\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "from molgen.chem.pool import workers\n"
        "def start():\n"  # in a thread that ends: its children must not
        "    with workers() as pool:\n"
        "        pool.map('canonical', ['C'] * 1_000)\n"
        "        return pool\n"
        "with ThreadPoolExecutor(1) as thread:\n"
        "    pool = thread.submit(start).result()\n"
        "time.sleep(0.3)\n"
        "print(*(worker.start().pid for worker in pool._all), flush=True)\n"
        "smarts = '~'.join('*' * 40)\n"
        f"pool.map('screen', [{CAGE!r}], where='', smarts=[smarts + '~[U]'], not_smarts=[], no_alerts=False)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert pids
        time.sleep(1)
        ran = [cpu_seconds(pid) for pid in pids]
        time.sleep(0.5)
        assert any(cpu_seconds(pid) > before for pid, before in zip(pids, ran, strict=True))  # one is at it
        parent.kill()
    began = time.monotonic()
    while any(Path(f"/proc/{pid}").exists() and not is_zombie(pid) for pid in pids):
        assert time.monotonic() - began < 5
        time.sleep(0.05)


CAGE = "C12=C3C4=C5C6=C1C7=C8C9=C1C%10=C%11C(=C29)C3=C2C3=C4C4=C5C5=C9C6=C7C6=C7C8=C1C1=C8C%10=C%10C%11=C2C2=C3C3=C4C4=C5C5=C%11C%12=C(C6=C95)C7=C1C1=C%12C5=C%11C4=C3C3=C5C(=C81)C%10=C23"  # noqa: E501


def cpu_seconds(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@LINUX
def test_a_worker_is_judged_by_its_cpu_time_not_by_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    smiles = ["CC(=O)OC1C2(OC(C)=O)COC2CC(O)C2(C)C(=O)C(O)C3=C(C)C(O)CC(O)(C(O)C12)C3(C)C"] * 500
    with workers(1) as pool:
        pool.map("canonical", ["C"])
        pid = pool._all[0].start().pid
        before = module._used(pid)[0]
        pool.map("canonical", smiles)
        needed = (module._used(pid)[0] or 0.0) - (before or 0.0)
        assert needed > 0.05  # seconds of CPU, counted in hundredths
        limit = 2 * needed
        monkeypatch.setattr(module, "_SECONDS", limit)
        monkeypatch.setattr(module, "_ASLEEP", 1_000)  # a stopped process counts as one that sleeps
        monkeypatch.setattr(module, "_SECONDS_AN_ITEM", 0.0)
        stop, done = threading.Event(), threading.Event()

        def starve() -> None:  # lets it run a sixth of the time, never for long without
            with suppress(ProcessLookupError):  # which the end of the test says
                while not stop.wait(0.0):
                    os.kill(pid, signal.SIGSTOP)
                    time.sleep(0.015)
                    os.kill(pid, signal.SIGCONT)
                    time.sleep(0.003)
            done.set()

        began = time.monotonic()
        threading.Thread(target=starve).start()
        slow = pool.map("canonical", smiles)
        took = time.monotonic() - began
        stop.set()
        done.wait()
        assert pool._all[0].start().pid == pid
        assert None not in slow
        assert took > limit


def test_a_sum_over_many_strings_is_of_no_fewer_than_one_over_some(
    cli: Cli, small_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SECONDS", 0.3)  # less than it takes to draw and parse all at a time
    monkeypatch.setattr(module, "_SECONDS_AN_ITEM", 0.0)
    Path("x.smi").write_text(max(small_run.split("train"), key=len) + "\n")
    counts = []
    for k in (20, 2_500):
        done = cli("score", "x.smi", small_run.path, "--strings", k)
        assert (done.code, "hung" in done.err) == (0, False), done.err
        counts.append(int(done.out.splitlines()[1].split(",")[-2]))
    assert counts[0] <= 20 < counts[1]


def test_where_strings_are_lost_there_is_no_sum_and_the_row_says_why(
    cli: Cli, small_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = f"import os, molgen.chem.pool as w\nw.TASKS['random_forms'] = lambda *_: os._exit(9)\nw.serve({os.getpid()})"
    Path("x.smi").write_text("CCO\nC(\n")
    monkeypatch.setattr(module, "_code", lambda: ["-c", code])
    with workers(1) as pool:
        monkeypatch.setattr(module, "_shared", pool)
        done = cli("score", "x.smi", small_run.path, "--strings", 3)
    row = done.out.splitlines()[1].split(",")
    assert done.code == 0
    assert row[-3:] == ["no sum: RDKit hung or crashed", "", ""]
    assert float(row[3]) < 0  # its own string has a likelihood
    assert "RDKit hung, crashed or ran out of memory on 1 of 1 strings" in done.err
