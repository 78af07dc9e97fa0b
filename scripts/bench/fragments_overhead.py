"""What two attachment points cost: decorations of a fragment beside as many molecules without one.

    python scripts/bench/fragments_overhead.py druglike -n 1000

Each is sampled in a batch, without a table. The median of the rounds counts; the two take turns.
"""

import argparse
import statistics
import time

from molgen.generation.generator import MoleculeGenerator
from molgen.generation.options import SampleOptions
from molgen.runtime.device import cpu_name


def main() -> None:
    """Prints the two times and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="a run that saw random SMILES")
    parser.add_argument("-n", type=int, default=1_000, help="molecules (1,000)")
    parser.add_argument("--keep", default="[*:1]c1ccc([*:2])cc1", help="a fragment with two points")
    parser.add_argument("--rounds", type=int, default=3, help="(3)")
    options = parser.parse_args()
    generator = MoleculeGenerator.load(options.run)
    seconds: dict[str, list[float]] = {"": [], options.keep: []}
    for round_number in range(options.rounds + 1):  # the first one warms
        for keep, times in seconds.items():
            began = time.monotonic()
            stream = generator.stream(SampleOptions(options.n, seed=round_number, keep=keep))
            rows = sum(len(batch) for batch in stream)
            if round_number:
                times.append(time.monotonic() - began)
            assert rows == options.n
    plain, kept = (statistics.median(times) for times in seconds.values())
    print(f"plain {plain:.2f} s, {options.keep} {kept:.2f} s: {kept / plain:.2f} times; n {options.n}; {cpu_name()}")


if __name__ == "__main__":
    main()
