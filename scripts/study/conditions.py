"""Asked against got on MOSES, at the points of MolGPT: one model for all of them, without rejection.

    python scripts/study/conditions.py --run runs/moses-asked --out runs/conditions.json

The run is trained first if it is not there (hours; `--source moses-mini` and `--set` make it small), from the shipped
prior. At each point n samples are drawn as they come, then again with guidance. Beside the mean |asked − got| of the
valid samples: validity, uniqueness, novelty, internal diversity, and FCD to training molecules near that value, for a
narrow mode has a good mean. The same of as many training molecules that are near the value is the row `training`. A
point that is in the file already is not measured again. Published rows of MolGPT and ChemFM on MOSES are of samples
with a scaffold given too, so they are not like for like.
"""

import argparse
import json
from base64 import b64decode
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from measuring import Fcd, molgen
from molgen.data.conditions import NEAR, computed_values
from molgen.generation.generator import MoleculeGenerator
from molgen.generation.options import SampleOptions
from molgen.metrics.similarity import within
from molgen.runs import REPORT, STATE, Run

POINTS = {
    "qed": (0.6, 0.725, 0.85),
    "sa": (2.0, 2.75, 3.5),
    "logp": (1.0, 2.0, 3.0),
    "tpsa": (30.0, 60.0, 90.0),
}
TOGETHER = ("logp", "tpsa", "sa")  # MolGPT's three at once; each combination of the outer points
_FEWEST = 500  # near training molecules for an FCD
_MOST = 10_000


def main() -> None:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="trained if it is not there")
    parser.add_argument("--out", type=Path, required=True, help="the JSON file of the figures")
    parser.add_argument("--source", default="moses")
    parser.add_argument("--prior", default="moses-small")
    parser.add_argument("--set", action="append", default=[], dest="settings", metavar="SECTION.KEY=VALUE")
    parser.add_argument("-n", type=int, default=10_000, help="samples a point")
    parser.add_argument("--guidance", type=float, nargs="+", default=[1.0, 1.5])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-fcd", action="store_true", help="leave FCD out, which takes longest")
    options = parser.parse_args()
    if not (options.run / REPORT).exists():
        trained(options)
    figures: dict[str, Any] = json.loads(options.out.read_text()) if options.out.exists() else {}
    study = Study(options.run, options.n, options.seed, not options.no_fcd)
    jobs = [(text, guidance) for guidance in (0.0, *options.guidance) for text in texts()]
    if "nll" not in figures:
        figures["nll"] = study.nll(options.prior)
    for text, guidance in jobs:
        key = f"{text} | {f'guidance {guidance:g}' if guidance else 'training'}"
        if key not in figures:
            figures[key] = study.point(text, guidance)
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(json.dumps(figures, indent=1))
            print(key, figures[key], flush=True)
    show(figures)


def texts() -> list[str]:
    """What is asked for: each value alone, then three at once."""
    alone = [f"{name} = {value:g}" for name, values in POINTS.items() for value in values]
    outer = [[(name, POINTS[name][i]) for i in (0, 2)] for name in TOGETHER]
    together = [(a, b, c) for a in outer[0] for b in outer[1] for c in outer[2]]
    return [*alone, *(", ".join(f"{name} = {value:g}" for name, value in three) for three in together)]


def trained(options: argparse.Namespace) -> None:
    """The run, from the prior; one that was stopped goes on."""
    if (options.run / STATE).exists():
        molgen("train", "--resume", "--out", str(options.run))
        return
    asked = [part for name in POINTS for part in ("--condition", name)]
    settings = [part for one in options.settings for part in ("--set", one)]
    molgen("train", options.source, "--init", options.prior, "--out", str(options.run), *asked, *settings)


class Study:
    """The run, its training molecules and their values."""

    def __init__(self, run: Path, n: int, seed: int, with_fcd: bool) -> None:
        self.generator = MoleculeGenerator.load(run, "cpu")
        self.n, self.seed, self.with_fcd = n, seed, with_fcd
        self.table = Run(run).condition_table
        self.training = Run(run).split("train")
        self.known = self.generator.training_set()

    def nll(self, prior: str) -> dict[str, float]:
        """Nats per molecule of the run's validation molecules: without values, given all, and of the prior."""
        report = Run(self.generator.run.path if self.generator.run else "").report
        held_out = Run(self.generator.run.path if self.generator.run else "").split("validation")
        of_prior = MoleculeGenerator.load(prior, "cpu").log_likelihood(held_out)
        return {
            "unconditional": report["validation"]["nll"],
            "given": report["conditions"]["nll_given"],
            "prior": float(-np.nanmean(of_prior)),
        }

    def point(self, text: str, guidance: float) -> dict[str, Any]:
        """The figures of one wish; without guidance (0) of training molecules that are near it."""
        wishes = self.table.parse(text)
        near = self._near([(w.place, w.value) for w in wishes])
        rng = np.random.default_rng(self.seed)
        rng.shuffle(near)
        if guidance:
            options = SampleOptions(self.n, seed=self.seed, condition=text, guidance=guidance)
            canonical = [sample.canonical for batch in self.generator.stream(options) for sample in batch]
        else:
            canonical = list(near[_MOST : _MOST + self.n] if len(near) >= 2 * self.n else near[: self.n])
        valid = [one for one in canonical if one]
        distinct = list(dict.fromkeys(valid))
        found: dict[str, Any] = {"n": len(canonical), "near": len(near)}
        if not valid:
            return found
        names = [wish.name for wish in wishes]
        got = computed_values(valid, names, self.generator.runtime.workers)
        asked = np.array([wish.value for wish in wishes])
        errors = np.abs(got - asked).mean(axis=0)
        found |= {
            "mad": dict(zip(names, errors.round(4).tolist(), strict=True)),
            "mean": dict(zip(names, got.mean(axis=0).round(3).tolist(), strict=True)),
            "validity": len(valid) / len(canonical),
            "uniqueness": len(distinct) / len(valid),
            "novelty": float(np.mean([one not in self.known for one in distinct])),
            "internal_diversity": self._diversity(distinct),
        }
        if self.with_fcd and len(near) >= _FEWEST and len(distinct) >= _FEWEST:
            found["fcd"] = Fcd(near[:_MOST])(valid)
        return found

    def _near(self, wishes: Sequence[tuple[int, float]]) -> list[str]:
        """Training molecules within a quarter of a standard deviation of all values."""
        rows = np.ones(len(self.training), bool)
        for place, value in wishes:
            distance = np.abs(self.table.train.values[:, place] - value)
            rows &= distance <= NEAR * self.table.scales.spread[place]
        return [self.training[i] for i in np.flatnonzero(rows)]

    def _diversity(self, smiles: Sequence[str]) -> float:
        """1 − the mean Tanimoto similarity of distinct molecules (Morgan fingerprints of radius 2, 1,024 bits)."""
        rows = self.generator.runtime.workers.map("tabulate", list(smiles), columns=["fingerprint"])
        bits = b"".join(b64decode(row["fingerprint"]) for row in rows if row)
        packed: npt.NDArray[np.uint8] = np.frombuffer(bits, np.uint8).reshape(-1, 128)
        return float(1 - within(packed).mean.mean())


def show(figures: dict[str, Any]) -> None:
    """The table, a line a point."""
    print(
        "| asked | row | MAD | validity | uniqueness | novelty | diversity | FCD |\n|---|---|---|---|---|---|---|---|"
    )
    for key, found in figures.items():
        if "mad" not in found:
            continue
        text, row = key.split(" | ")
        errors = ", ".join(f"{value:.3f}" for value in found["mad"].values())
        shares = [f"{found[name]:.3f}" for name in ("validity", "uniqueness", "novelty", "internal_diversity")]
        fcd = f"{found['fcd']:.2f}" if "fcd" in found else "–"
        print(f"| {text} | {row} | {errors} | {' | '.join(shares)} | {fcd} |")
    for name in POINTS:
        for row in sorted({key.split(" | ")[1] for key in figures if " | " in key}):
            own = [
                found["mad"][name]
                for key, found in figures.items()
                if key.endswith(f"| {row}") and list(found.get("mad", ())) == [name]
            ]
            if own:
                print(f"{name}, {row}: mean MAD of {len(own)} points {np.mean(own):.3f}")


if __name__ == "__main__":
    main()
