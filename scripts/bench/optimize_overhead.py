"""What `molgen optimize` adds to a dear scorer: 2,000 calls of one that sleeps 0.2 s, four at once.

    python scripts/bench/optimize_overhead.py moses-small --preset people --preset benchmark

The floor is calls · 0.2 s / jobs. Starting Python for the command is part of the scorer, so the scorer is a function
here, in this process.
"""

import argparse
import tempfile
import time
from pathlib import Path

from molgen.optimize import optimize
from molgen.runtime.device import cpu_name


def main() -> None:
    """Prints a line per preset."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prior", help="a run to start from")
    parser.add_argument("--preset", action="append", help="may be repeated (people)")
    parser.add_argument("-n", type=int, default=2_000, help="calls (2,000)")
    parser.add_argument("--seconds", type=float, default=0.2, help="of sleep per molecule (0.2)")
    parser.add_argument("--jobs", type=int, default=4, help="calls at once (4)")
    options = parser.parse_args()

    def sleeping(smiles: list[str]) -> list[float]:
        time.sleep(options.seconds * len(smiles))
        return [min(1.0, one.count("N") / 8) for one in smiles]

    floor = options.n * options.seconds / options.jobs
    for preset in options.preset or ["people"]:
        with tempfile.TemporaryDirectory() as folder:
            run = optimize(
                options.prior,
                sleeping,
                out=Path(folder) / "run",
                calls=options.n,
                maximise="0..1",
                jobs=options.jobs,
                preset=preset,
            )
            seconds = run.report["optimize"]["seconds"]
        print(f"{preset}: {seconds:.1f} s, floor {floor:.1f} s, {seconds / floor - 1:+.1%}; {cpu_name()}", flush=True)


if __name__ == "__main__":
    main()
