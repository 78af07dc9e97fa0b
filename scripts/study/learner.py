"""Settings of the learner of `molgen optimize` beside each other, on the two tasks on which PMO lets one choose them.

    python scripts/study/learner.py moses-small --out runs/learner --set proposals=512 --set unscreened=0.1
    python scripts/study/learner.py moses-small --out runs/learner --preset people -n 4000

Prints the AUC top-10 of each task, and the mean of the best ten and hundred. A search that is there already is not
repeated.
"""

import argparse
import json
from pathlib import Path

from molgen.optimize import optimize
from molgen.optimize.options import OptimizeOptions
from molgen.optimize.settings import PRESETS, LearnerConfig
from molgen.runs import REPORT, STATE, Run

TASKS = ("zaleplon_mpo", "perindopril_mpo")


def main() -> None:
    """Runs what is missing, prints a line per task."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prior", help="a run to start from")
    parser.add_argument("--out", type=Path, required=True, help="where the searches are kept")
    parser.add_argument(
        "--preset", choices=PRESETS, default="benchmark", help="what the settings differ from (benchmark)"
    )
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting; may be repeated")
    parser.add_argument("-n", type=int, default=10_000, help="calls (10,000)")
    parser.add_argument("--seed", type=int, default=0, help="(0)")
    options = parser.parse_args()
    changed = dict(text.split("=", 1) for text in options.set)
    values = PRESETS[options.preset].model_dump() | {key: json.loads(value) for key, value in changed.items()}
    learner = LearnerConfig.model_validate(values)
    name = "-".join([options.preset, *(f"{key}={value}" for key, value in sorted(changed.items()))])
    for task in TASKS:
        out = options.out / f"{task}-{name}-{options.n}-{options.seed}"
        if not (out / REPORT).exists():
            resume = (out / STATE).exists()
            given = OptimizeOptions(
                calls=options.n, preset=options.preset, learner=learner, alerts=False, seed=options.seed
            )
            optimize(options.prior, f"pmo/{task}", out=out, resume=resume, options=None if resume else given)
        found = Run(out).report["optimize"]
        print(
            f"{task} {name}, seed {options.seed}, {options.n:,} calls: AUC {found['auc_top10']:.4f}, best 10 "
            f"{found['top10']:.4f}, best 100 {found['top100']:.4f}, {found['seconds']:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
