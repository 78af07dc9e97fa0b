"""Several draws of a run: the mean and the standard error of MOSES' figures, beside training floors of equal n.

    python scripts/study/draws.py moses-small --out runs/draws -n 30000 --draws 5

It reads MOSES' test sets, so it is for a run of which nothing is to be chosen any more. Samples are raw, at temperature
1, by seeds 0, 1, …; the floor of a draw is as many random training molecules as it has valid samples. A draw that has
been evaluated is not evaluated again.
"""

import argparse
import json
import math
import statistics
from pathlib import Path
from typing import Any

from measuring import molgen
from molgen.evaluation.text_table import SECTIONS
from molgen.generation.generator import MoleculeGenerator


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="a run trained on MOSES")
    parser.add_argument("--out", type=Path, required=True, help="the folder of samples and figures")
    parser.add_argument("-n", type=int, default=30_000, help="samples of each draw (30,000)")
    parser.add_argument("--draws", type=int, default=5, help="(5)")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    generator = MoleculeGenerator.load(options.run)
    found: list[dict[str, Any]] = []
    for seed in range(options.draws):
        figures = options.out / f"{seed}.json"
        if not figures.exists():
            samples = options.out / f"{seed}.smi"
            drawn = generator.sample(options.n, seed=seed).smiles
            samples.write_text("".join(f"{one or ''}\n" for one in drawn), encoding="utf-8")
            molgen("eval", str(samples), "--metrics", "moses", "--train", "moses", "--json", str(figures))
        found.append(json.loads(figures.read_text(encoding="utf-8")))
    print(f"{len(found)} draws of {options.n:,} from {options.run}, mean ± standard error")
    print(table(found))


def table(found: list[dict[str, Any]]) -> str:
    """A row per figure: the draws, their floors, and the difference to the floor, draw by draw."""
    lines = ["| figure | samples | floor | difference |", "|---|---|---|---|"]
    for title, rows in SECTIONS:
        for row in rows if title in ("Samples", "MOSES") else ():
            pairs = [(one.get(row.key), one["baselines"]["floor"].get(row.key)) for one in found]
            own = [value for value, _ in pairs if value is not None]
            if len(own) < len(found):
                continue
            floors = [floor for _, floor in pairs if floor is not None]
            apart = [value - floor for value, floor in pairs if floor is not None]
            cells = [spread(numbers, row.style) for numbers in (own, floors, apart)]
            lines.append(f"| {row.title.strip()} | {' | '.join(cells)} |")
    return "\n".join(lines)


def spread(numbers: list[float], style: str) -> str:
    """Mean ± standard error; empty for no numbers."""
    if not numbers:
        return ""
    style = ",.0f" if style == "," else style
    error = f" ± {statistics.stdev(numbers) / math.sqrt(len(numbers)):{style}}" if len(numbers) > 1 else ""
    return f"{statistics.fmean(numbers):{style}}{error}"


if __name__ == "__main__":
    main()
