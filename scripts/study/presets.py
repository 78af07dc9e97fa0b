"""What the two presets of `molgen optimize` trade: score, distinct hits, ring systems, at equal calls and filters.

    python scripts/study/presets.py moses-small --out runs/presets --task osimertinib_mpo --task fexofenadine_mpo

Both reject the same reactive groups. Distinct hits are molecules above 0.8 of the best score that either preset found,
of which no two are more similar than 0.65 (Tanimoto, ECFP4), the best first. A search that is there already is not
repeated.
"""

import argparse
from base64 import b64decode
from pathlib import Path

import numpy as np

from molgen.chem.pool import shared_workers
from molgen.data.ring_systems import common_ring_systems
from molgen.metrics.similarity import circles
from molgen.optimize import load_objective, optimize
from molgen.optimize.ledger import Ledger, Record
from molgen.optimize.memory import top
from molgen.optimize.settings import PRESETS
from molgen.runs import REPORT, SCORED, STATE

CLOSEST, SHARE = 0.65, 0.8


def main() -> None:
    """Runs what is missing, prints a line per task and preset."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prior", help="a run to start from")
    parser.add_argument("--out", type=Path, required=True, help="where the searches are kept")
    parser.add_argument("--task", action="append", required=True, help="of PMO; may be repeated")
    parser.add_argument("-n", type=int, default=10_000, help="calls (10,000)")
    parser.add_argument("--seed", type=int, default=0, help="(0)")
    options = parser.parse_args()
    for task in options.task:
        found = {preset: search(task, preset, options) for preset in PRESETS}
        best = max(record.total for records in found.values() for record in records)
        for preset, records in found.items():
            print(f"{task} {preset}: {describe(records, SHARE * best)}", flush=True)


def search(task: str, preset: str, options: argparse.Namespace) -> list[Record]:
    """The records of a search, the best first."""
    out = options.out / f"{task}-{preset}-{options.seed}"
    if not (out / REPORT).exists():
        resume = (out / STATE).exists()
        settings = {} if resume else {"calls": options.n, "preset": preset, "alerts": True, "seed": options.seed}
        optimize(options.prior, f"pmo/{task}", out=out, resume=resume, **settings)
    records = Ledger(out / SCORED, list(load_objective(f"pmo/{task}").columns)).records
    return sorted(records, key=lambda record: (-record.total, record.call))


def describe(records: list[Record], least: float) -> str:
    """The figures of one search."""
    workers = shared_workers()
    hits = [record.canonical for record in records if record.total > least]
    tabulated = workers.map("tabulate", hits, columns=["fingerprint"])
    bits = np.array([np.frombuffer(b64decode(row["fingerprint"]), np.uint8) for row in tabulated])
    rings = workers.map("describe", [record.canonical for record in records[:100]], parts=["ring_systems"])
    known = sum(set(parts["ring_systems"]) <= common_ring_systems() for parts in rings) / len(rings)
    distinct = circles(bits, 1 - CLOSEST) if len(bits) else 0
    return (
        f"best 100 {top([record.total for record in records], 100):.4f}, {len(hits):,} above {least:.3f}, "
        f"{distinct:,} distinct; every ring system known in {known:.0%} of the best 100"
    )


if __name__ == "__main__":
    main()
