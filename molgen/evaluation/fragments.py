"""The fragment tasks of SAFE (Noutahi et al. 2024, Digit. Discov. 3:796): ten drugs, four tasks, 100 draws each.

`fragment-drugs.csv` has the drugs and their fragments as the benchmark gives them (datamol-io/safe-drugs, CC BY 4.0;
columns as in NVIDIA-Digital-Bio/genmol, data/fragments.csv). Published figures do not say whether the fragment is kept.
Here a molecule counts for uniqueness, quality, diversity and distance only if it is.
"""

import csv
import re
import statistics
from base64 import b64decode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from typing import Any

import numpy as np

from molgen.chem.fragments import numbered
from molgen.chem.pool import Workers
from molgen.errors import MolgenError
from molgen.generation.decode import SamplingParams
from molgen.generation.generator import MoleculeGenerator
from molgen.metrics.similarity import nearest, within

TASKS = ("motif", "linker", "superstructure", "decoration")
_MEASURES = ("validity", "uniqueness", "quality", "diversity", "distance", "kept")
PUBLISHED: dict[str, dict[str, tuple[float | None, ...]]] = {
    "SAFE-GPT": {
        "motif": (96.1, 66.8, 18.6, None, None),
        "linker": (76.6, 82.5, 21.7, None, None),
        "superstructure": (95.7, 83.0, 14.3, None, None),
        "decoration": (97.7, 74.7, 10.0, None, None),
    },
    "GenMol": {
        "motif": (82.9, 77.5, 30.1, 0.617, 0.682),
        "linker": (16.7, 93.9, 4.3, 0.529, 0.573),
        "superstructure": (97.5, 83.6, 34.8, 0.599, 0.762),
        "decoration": (96.6, 82.7, 31.8, 0.591, 0.651),
    },
    "GenMol V2": {
        "motif": (99.4, 84.5, 49.0, 0.626, 0.659),
        "linker": (81.8, 87.1, 28.6, 0.566, 0.545),
        "superstructure": (99.7, 89.8, 39.0, 0.551, 0.769),
        "decoration": (99.2, 90.5, 39.7, 0.571, 0.604),
    },
    "InVirtuoGen": {
        "motif": (69.0, 96.8, 39.3, None, None),
        "linker": (60.4, 84.8, 22.3, None, None),
        "superstructure": (75.7, 99.4, 27.4, None, None),
        "decoration": (90.7, 88.6, 36.4, None, None),
    },
}
"""Validity, uniqueness, quality in %, diversity, distance. The linkers of GenMol are those in one step."""
GROUPS = (
    *(
        "C",
        "CC",
        "C(C)C",
        "C(C)(C)C",
        "C1CC1",
        "F",
        "Cl",
        "Br",
        "O",
        "OC",
        "OCC",
        "N",
        "NC",
        "N(C)C",
        "C#N",
        "CO",
        "CN",
    ),
    *("C(F)(F)F", "OC(F)(F)F", "C(=O)O", "C(=O)N", "C(=O)NC", "C(C)=O", "NC(C)=O", "S(C)(=O)=O", "S(N)(=O)=O"),
    *("c1ccccc1", "Cc1ccccc1", "N1CCOCC1", "N1CCCC1"),
)
"""Thirty common substituents, and below as many linkers as come to mind: the baseline."""
LINKERS = (
    *("C", "CC", "CCC", "O", "N", "CO", "OC", "CN", "NC", "OCC", "COC", "CNC", "C(=O)", "C(=O)N", "NC(=O)", "C(=O)NC"),
    *("CC(=O)N", "NC(=O)C", "S(=O)(=O)", "N1CCN(CC1)", "c1ccc(cc1)"),
)
_POINT = re.compile(r"\[\d+\*\]")
_LEAST_QED, _MOST_SA = 0.6, 4.0


@dataclass(frozen=True)
class FragmentResult:
    """The mean over the drugs of a task."""

    method: str
    """`run`, or `random` for the baseline."""
    task: str
    seed: int
    n: int
    """Draws per drug."""
    validity: float
    """% of the draws that RDKit can read."""
    uniqueness: float
    """% distinct of those that hold the fragment."""
    quality: float
    """Distinct ones with QED of at least 0.6 and SA of at most 4, in % of the draws."""
    diversity: float
    """1 − the mean Tanimoto similarity of two of them (Morgan, radius 2, 1,024 bits)."""
    distance: float
    """1 − their mean similarity to the drug."""
    kept: float
    """% of the draws that hold the fragment as it was given."""


def drugs() -> list[dict[str, str]]:
    """The rows of the table, with what is kept in each task as `numbered` writes it."""
    text = resources.files("molgen").joinpath("assets", "data", "fragment-drugs.csv").read_text(encoding="utf-8")
    return [{**row, **{task: _keep(row[task]) for task in TASKS}} for row in csv.DictReader(text.splitlines())]


def _keep(text: str) -> str:
    """The isotopes in the table are classes of bonds, not numbers."""
    return numbered(_POINT.sub("*", text))  # two fragments with one point each are joined


def run_tasks(
    generator: MoleculeGenerator, tasks: Sequence[str], seeds: Sequence[int], n: int
) -> Iterator[FragmentResult]:
    """The results of each task and seed, of the run and of the baseline. Raises MolgenError for an unknown task."""
    for task in tasks:
        if task not in TASKS:
            raise MolgenError(f"--task {task}: no such task", f"tasks: {', '.join(TASKS)}")
    workers = generator.runtime.workers
    for task in tasks or TASKS:
        for seed in seeds:
            for method in ("run", "random"):
                measured = []
                for row in drugs():
                    if method == "run":
                        batches = [(0, n)]
                        growth = generator.growth(row[task])
                        drawn = next(iter(generator.grown(growth, batches, SamplingParams(), seed)))
                    else:
                        items = [[row[task], 1_000_003 * seed + i] for i in range(n)]
                        drawn = workers.map("assembled", items, groups=GROUPS, linkers=LINKERS)
                    measured.append(_measured(drawn, row["smiles"], row[task], workers))
                means = [statistics.mean(values) for values in zip(*measured, strict=True)]
                yield FragmentResult(method, task, seed, n, *means)


def _measured(drawn: Sequence[str | None], drug: str, keep: str, workers: Workers) -> tuple[float, ...]:
    """The measures of one drug's draws, as of `FragmentResult`."""
    screened = workers.map("screen", [text or "" for text in drawn], keep=keep)
    valid = [one[0] for one in screened if one and one[0]]
    held = [one[0] for one in screened if one and one[0] and not one[1]]
    distinct = list(dict.fromkeys(held))
    cells = workers.map("tabulate", [*distinct, drug], columns=["qed", "sa", "fingerprint"])
    good = sum(cell["qed"] >= _LEAST_QED and cell["sa"] <= _MOST_SA for cell in cells[:-1])
    packed = np.array([np.frombuffer(b64decode(cell["fingerprint"]), np.uint8) for cell in cells])
    k, ours = len(distinct), packed[:-1]
    diversity = 1 - (within(ours).mean.mean() * k - 1) / (k - 1) if k > 1 else 0.0
    distance = 1 - nearest(ours, packed[-1:]).mean() if k else 0.0
    share = 100 / len(drawn)
    return (
        *(share * len(valid), 100 * k / len(held) if held else 0.0, share * good),
        *(float(diversity), float(distance), share * len(held)),
    )


def table(results: Sequence[FragmentResult], name: str) -> str:
    """The results beside the published rows, as text; says which of them have fewer seeds than others."""
    seeds = sorted({result.seed for result in results})
    fewer = []
    lines = [f"{'':<16}" + "".join(f"{measure:>12}" for measure in _MEASURES)]
    for task in dict.fromkeys(result.task for result in results):
        lines.append(task)
        for method, title in (("run", name), ("random", "random baseline")):
            rows = [result for result in results if (result.task, result.method) == (task, method)]
            if rows:
                lines.append(f"  {title:<14.14}" + "".join(_cell(rows, measure) for measure in _MEASURES))
            if len(rows) < len(seeds):
                fewer.append(f"{task}, {title}: stopped after {len(rows)} of these seeds")
        for title, published in PUBLISHED.items():
            cells = "".join(f"{'–' if value is None else value:>12}" for value in published[task])
            lines.append(f"  {title:<14}{cells}{'not said':>12}")
    lines.append(
        f"means over ten drugs, {results[0].n} draws each, seed{'s' if len(seeds) > 1 else ''} "
        f"{', '.join(map(str, seeds))}; failed draws count"
    )
    return "\n".join([*lines, *fewer])


def _cell(rows: Sequence[FragmentResult], measure: str) -> str:
    value = statistics.mean(getattr(row, measure) for row in rows)
    return f"{value:>12.3f}" if measure in ("diversity", "distance") else f"{value:>12.1f}"


def to_json(results: Sequence[FragmentResult], about: Mapping[str, Any]) -> dict[str, Any]:
    """All results with what they are of, as plain values for JSON."""
    rows = [asdict(result) for result in results]
    return {**about, "results": rows, "published": PUBLISHED}
