"""Long runs that look for what a test is too short for: memory that grows, and a kill that loses something.

    python scripts/check/soak.py samples runs/tox21 -n 1000000 --json runs/soak-samples.json
    python scripts/check/soak.py kills --cycles 200 --json runs/soak-kills.json

`samples` draws with rejection (`--valid --unique`) and follows the memory of the command and of its workers; it ends
the command where they exceed the limit together. `kills` kills trainings, goes on with them, and compares what they
end with, bit by bit, with a training that was never stopped: of three kills one is at any moment from the first import
on, one after another step, and one a SIGTERM, which is saved before it is obeyed. The killed trainings write their
state after each step, not only every five minutes and after an epoch, so that they go on from the midst of epochs.
Linux only: it reads /proc.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import safe_open
from scipy.stats import theilslopes

MOLGEN = [sys.executable, "-m", "molgen"]
SMALL = (
    *("model.width=32", "model.blocks=2", "model.heads=2", "model.head_width=16", "model.feedforward=64"),
    *("model.dropout=0.1", "training.randomized=0.5", "training.batch_size=16", "data.min_token_count=1"),
)
EACH_STEP = (
    "import molgen.training.callbacks as callbacks; callbacks._SECONDS_BETWEEN_STATES = 0.0; "
    "from molgen.cli.main import main; main()"
)
_SECONDS_BETWEEN_LOOKS = 1.0


def resident(process: int) -> int:
    """Bytes of memory of a process and its children; shared pages count in each."""
    total = 0
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            lines = dict(line.split(":", 1) for line in status.read_text(encoding="utf-8").splitlines() if ":" in line)
        except OSError:  # it has ended
            continue
        if process in (int(lines["Pid"]), int(lines["PPid"])) and "VmRSS" in lines:
            total += int(lines["VmRSS"].split()[0]) * 1024
    return total


def soak_samples(run: str, n: int, limit: float) -> dict[str, Any]:
    """Draws until n distinct valid molecules are kept; memory over what was kept."""
    looks: list[tuple[float, int, int]] = []  # seconds, molecules kept, bytes
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "samples.smi"
        command = [*MOLGEN, "sample", run, "-n", str(n), "--valid", "--unique", "-o", str(output)]
        began, kept, exceeded = time.monotonic(), 0, False
        with subprocess.Popen(command) as process:
            written = 0
            while process.poll() is None:
                time.sleep(_SECONDS_BETWEEN_LOOKS)
                for part in output.parent.glob(f".{output.name}.*.part"):  # what is not whole yet
                    with part.open("rb") as file:
                        file.seek(written)
                        new = file.read()
                    written, kept = written + len(new), kept + new.count(b"\n")
                memory = resident(process.pid)
                looks.append((time.monotonic() - began, kept, memory))
                if memory > limit * 2**30:
                    exceeded = True
                    process.terminate()
        lines = output.read_bytes().count(b"\n") if output.exists() else 0
    later = np.array([(kept, memory) for _, kept, memory in looks if kept > n / 10 and memory], dtype=float)
    growth = _growth(later[:: max(1, len(later) // 1_000)]) if len(later) > 10 else {}
    return {
        "command": " ".join(command[2:]),
        "exit_code": process.returncode,
        "molecules": lines,
        "seconds": round(time.monotonic() - began),
        "limit_gib": limit,
        "limit_exceeded": exceeded,
        "largest_gib": round(max((memory for *_, memory in looks), default=0) / 2**30, 3),
        **growth,
        "looks": looks[:: max(1, len(looks) // 1_000)],
    }


def _growth(looks: npt.NDArray[np.float64]) -> dict[str, Any]:
    """Bytes per kept molecule, of (molecules kept, bytes): the median slope of all pairs of looks (Theil and Sen).

    What a batch holds for a moment is no growth, but bends a line by least squares.
    """
    kept, memory = looks.T
    slope, _, low, high = theilslopes(memory, kept)
    return {
        "bytes_a_kept_molecule": round(slope, 1),
        "at_95_percent": f"{low:.1f} to {high:.1f}",
        "by_least_squares": round(float(np.polyfit(kept, memory, 1)[0]), 1),
    }


def soak_kills(cycles: int, epochs: int, seed: int) -> dict[str, Any]:
    """Kills trainings until there were so many kills; each that ends in spite of them is compared."""
    rng, delays = random.Random(seed), []
    compared = different = litter = kills = terminated = within = 0
    with tempfile.TemporaryDirectory() as folder:
        settings = [part for setting in (*SMALL, f"training.epochs={epochs}") for part in ("--set", setting)]
        data, whole, killed = (Path(folder) / name for name in ("data.smi", "whole", "killed"))
        data.write_text("\n".join(_molecules(200)) + "\n", encoding="utf-8")
        began = time.monotonic()
        subprocess.run([*MOLGEN, "train", str(data), "--out", str(whole), *settings], check=True, capture_output=True)
        longest = time.monotonic() - began
        first, *_, last = (float(row[-1]) for row in _log(whole)[1:])
        epoch = (last - first) / (epochs - 1)  # seconds, without the start of the program and of its workers
        while kills < cycles or killed.exists():
            fresh = not (killed / "config.yaml").exists()
            start = ["train", str(data), "--force", *settings] if fresh else ["train", "--resume"]
            command = [sys.executable, "-c", EACH_STEP, *start, "--out", str(killed)]
            with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
                if kills < cycles:
                    # every third one at any time, from the first import on; the others after another step
                    started = time.monotonic()
                    if kills % 3 < 2:
                        _wait_for_a_state(process, killed)
                    try:
                        process.wait(rng.uniform(0, epoch if kills % 3 < 2 else longest))
                    except subprocess.TimeoutExpired:
                        process.send_signal(signal.SIGTERM if kills % 3 == 1 else signal.SIGKILL)
                        terminated += kills % 3 == 1
                        kills += 1
                        delays.append(round(time.monotonic() - started, 2))
                _, err = process.communicate()
            if (killed / "report.json").exists():  # done, be it at the moment of the kill
                compared += 1
                if _outcome(killed) != _outcome(whole):
                    different += 1
                    rows = [(a, b) for a, b in zip(_outcome(killed)[1], _outcome(whole)[1], strict=False) if a != b]
                    print(f"after {kills} kills: {rows or 'other weights'}", file=sys.stderr)
                litter += sum(path.name.startswith(".") for path in killed.iterdir())
                shutil.rmtree(killed)
            elif process.returncode not in (-signal.SIGKILL, -signal.SIGTERM, 128 + signal.SIGTERM):
                raise RuntimeError(f"a training could not go on: {err.decode().strip().splitlines()[-1:]}")
            else:
                within += _steps_of_epoch(killed) > 0
    return {
        "kills": kills,
        "of_them_sigterm": terminated,
        "of_them_within_an_epoch": within,
        "trainings_compared": compared,
        "trainings_different": different,
        "files_left_behind": litter,
        "seconds_before_a_kill": delays,
        "threads": os.environ.get("OMP_NUM_THREADS", "default"),
    }


def _molecules(n: int) -> list[str]:
    from molgen.data.sources import reference_smiles

    return reference_smiles("moses-mini", "train")[:n]


def _wait_for_a_state(process: "subprocess.Popen[bytes]", run: Path) -> None:
    """Returns when the training has saved a state once more, or ended."""
    state = run / "state.safetensors"
    before = state.stat().st_mtime_ns if state.exists() else 0
    while process.poll() is None and (not state.exists() or state.stat().st_mtime_ns == before):
        time.sleep(0.01)


def _steps_of_epoch(run: Path) -> int:
    """Where a state stands: so many steps after the last whole epoch."""
    if not (run / "state.safetensors").exists():
        return 0
    with safe_open(run / "state.safetensors", "np") as state:
        return int(json.loads(state.metadata()["position"])["step_of_epoch"])


def _outcome(run: Path) -> tuple[bytes, list[list[str]]]:
    """The weights, and of the log what is no time."""
    return (run / "model.safetensors").read_bytes(), [row[:6] for row in _log(run)]


def _log(run: Path) -> list[list[str]]:
    return [line.split(",") for line in (run / "log.csv").read_text(encoding="utf-8").splitlines()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    samples = commands.add_parser("samples")
    samples.add_argument("run", help="a run of molgen")
    samples.add_argument("-n", type=int, default=1_000_000, help="molecules to keep (1,000,000)")
    samples.add_argument("--limit", type=float, default=4.0, metavar="GIB", help="of its memory, workers too (4)")
    kills = commands.add_parser("kills")
    kills.add_argument("--cycles", type=int, default=200, help="kills (200)")
    kills.add_argument("--epochs", type=int, default=12, help="of each training (12)")
    kills.add_argument("--seed", type=int, default=0, help="of the moments of the kills (0)")
    for command in (samples, kills):
        command.add_argument("--json", type=Path, help="also write everything here")
    chosen = parser.parse_args()
    if chosen.command == "samples":
        result = soak_samples(chosen.run, chosen.n, chosen.limit)
    else:
        result = soak_kills(chosen.cycles, chosen.epochs, chosen.seed)
    print(json.dumps({key: value for key, value in result.items() if not isinstance(value, list)}, indent=1))
    if chosen.json:
        chosen.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    failed = result.get("limit_exceeded") or result.get("trainings_different") or result.get("exit_code")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
