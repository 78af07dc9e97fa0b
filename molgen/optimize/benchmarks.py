"""PMO, the benchmark of practical molecular optimisation (Gao et al. 2022, NeurIPS): 23 tasks of 10,000 calls.

Each task with each seed is a run of its own in a folder, so a benchmark that was stopped goes on where it was.
"""

import math
import statistics
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from logging import getLogger
from pathlib import Path
from typing import Any

import numpy as np

from molgen.chem.pool import Workers, shared_workers
from molgen.data.download import is_here
from molgen.data.parents import KnownParents, parent_smiles
from molgen.data.sources import reference_smiles
from molgen.errors import MolgenError
from molgen.metrics.similarity import within
from molgen.optimize.auc import auc_top
from molgen.optimize.components import load_objective, presets
from molgen.optimize.ledger import Ledger
from molgen.optimize.memory import top
from molgen.optimize.optimization import optimize
from molgen.optimize.options import OptimizeOptions
from molgen.runs import REPORT, SCORED, STATE, Run

logger = getLogger(__name__)

TASKS = tuple(name.removeprefix("pmo/") for name in presets() if name.startswith("pmo/"))
COLUMNS = ("REINVENT", "Graph GA", "Mol GA", "Genetic GFN", "InVirtuoGen", "f-RAG*", "GenMol*")
"""Published rows. A star: the whole of ZINC 250k was scored before, outside of the 10,000 calls: not comparable."""
PUBLISHED: dict[str, tuple[float, ...]] = {
    "albuterol_similarity": (0.882, 0.838, 0.896, 0.949, 0.950, 0.977, 0.937),
    "amlodipine_mpo": (0.635, 0.661, 0.688, 0.761, 0.733, 0.749, 0.810),
    "celecoxib_rediscovery": (0.713, 0.630, 0.567, 0.802, 0.798, 0.778, 0.826),
    "deco_hop": (0.666, 0.619, 0.649, 0.733, 0.748, 0.936, 0.960),
    "drd2": (0.945, 0.964, 0.936, 0.974, 0.985, 0.992, 0.995),
    "fexofenadine_mpo": (0.784, 0.760, 0.825, 0.856, 0.845, 0.856, 0.894),
    "gsk3b": (0.865, 0.788, 0.843, 0.881, 0.952, 0.969, 0.986),
    "isomers_c7h8n2o2": (0.852, 0.862, 0.878, 0.969, 0.968, 0.955, 0.942),
    "isomers_c9h10n2o2pf2cl": (0.642, 0.719, 0.865, 0.897, 0.874, 0.850, 0.833),
    "jnk3": (0.783, 0.553, 0.702, 0.764, 0.825, 0.904, 0.906),
    "median1": (0.356, 0.294, 0.257, 0.379, 0.342, 0.340, 0.398),
    "median2": (0.276, 0.273, 0.301, 0.294, 0.288, 0.323, 0.359),
    "mestranol_similarity": (0.618, 0.579, 0.591, 0.708, 0.797, 0.671, 0.982),
    "osimertinib_mpo": (0.837, 0.831, 0.844, 0.860, 0.870, 0.866, 0.876),
    "perindopril_mpo": (0.537, 0.538, 0.547, 0.595, 0.645, 0.681, 0.718),
    "qed": (0.941, 0.940, 0.941, 0.942, 0.942, 0.939, 0.942),
    "ranolazine_mpo": (0.760, 0.728, 0.804, 0.819, 0.848, 0.820, 0.821),
    "scaffold_hop": (0.560, 0.517, 0.527, 0.615, 0.589, 0.576, 0.628),
    "sitagliptin_mpo": (0.021, 0.433, 0.582, 0.634, 0.709, 0.601, 0.584),
    "thiothixene_rediscovery": (0.534, 0.479, 0.519, 0.583, 0.625, 0.584, 0.692),
    "troglitazone_rediscovery": (0.441, 0.390, 0.427, 0.511, 0.595, 0.448, 0.867),
    "valsartan_smarts": (0.178, 0.000, 0.000, 0.135, 0.210, 0.627, 0.822),
    "zaleplon_mpo": (0.358, 0.346, 0.519, 0.552, 0.536, 0.486, 0.584),
}
"""AUC top-10 of each task by COLUMNS, as their authors give them: PMO (REINVENT, Graph GA), Genetic GFN (Kim et al.
2024, Mol GA too), InVirtuoGen (2025, without prescreening), f-RAG (Lee et al. 2024), GenMol (Lee et al. 2025)."""


@dataclass(frozen=True)
class TaskResult:
    """The figures of one task with one seed."""

    task: str
    seed: int
    calls: int
    auc_top10: float
    """PMO's headline: AUC of the mean of the best 10."""
    auc_top10_parents: float
    """The same if stereoisomers count as one molecule, by its first occurrence."""
    top1: float
    top10: float
    top100: float
    diversity: float
    """1 − mean pairwise Tanimoto similarity (ECFP4) of the best 100."""
    sa: float
    """Mean synthetic accessibility of the best 100 (1 easy, 10 hard)."""
    novelty: float | None
    """Share of the best 100 whose parent the prior was not trained on; None if its molecules are not here."""
    seconds: float


def run_suite(
    prior: Run, tasks: Sequence[str], seeds: Sequence[int], folder: Path, options: OptimizeOptions
) -> Iterator[TaskResult]:
    """Each task with each seed from where it is to its end, in `folder`, the seeds of a task one after the other."""
    is_known = knowledge(prior, shared_workers())
    _log_overlap(prior, tasks, is_known)
    for task in tasks:
        for seed in seeds:
            out = folder / f"{task}-{seed}"
            if not (out / REPORT).exists():
                settings = replace(options, objective=f"pmo/{task}", seed=seed)
                optimize(prior.path, out=out, resume=(out / STATE).exists(), options=settings)
            if (budget := Run(out).report["optimize"]["budget"]) != options.calls:
                raise MolgenError(f"{out}: has {budget:,} calls, not {options.calls:,}", "choose another --out")
            yield result_of(Run(out), task, seed, is_known)


IsKnown = Callable[[Sequence[str]], list[bool]]
"""SMILES → whether a prior was trained on a molecule with the same parent."""


def knowledge(prior: Run, workers: Workers) -> IsKnown | None:
    """What a prior was trained on; None if its molecules are not here."""
    strings: set[str] = set()
    none = np.empty(0, np.uint64)
    trained_on = prior.parents or KnownParents(none, none)
    if prior.origin == "moses" or "moses" in prior.config.data.trained_on:
        if not is_here("moses"):
            return None
        strings = set(reference_smiles("moses", "train"))  # which have no charge, no stereo and one fragment
    elif prior.parents is None:
        if prior.lacks("train"):
            return None
        strings = set(parent_smiles(prior.split("train"), workers))

    def is_known(smiles: Sequence[str]) -> list[bool]:
        return trained_on.known(parent_smiles(smiles, workers), strings).tolist()  # type: ignore[no-any-return]

    return is_known


def _log_overlap(prior: Run, tasks: Sequence[str], is_known: IsKnown | None) -> None:
    """Says which tasks name a molecule that the prior was trained on."""
    if is_known is None:
        logger.info(f"{prior.path.name}: its molecules are not here: no overlap with the tasks, no novelty")
        return
    named = {task: load_objective(f"pmo/{task}").targets for task in tasks}
    known = [task for task, smiles in named.items() if any(is_known(smiles))]
    logger.info(
        f"{prior.path.name} was trained on molecules that {len(known)} of {sum(map(bool, named.values()))} tasks name"
        + (f": {', '.join(known)}" if known else "")
    )


def result_of(run: Run, task: str, seed: int, is_known: IsKnown | None) -> TaskResult:
    """The figures of a search that has finished."""
    objective = load_objective(f"pmo/{task}")
    records = Ledger(run.path / SCORED, list(objective.columns)).records
    found, workers = run.report["optimize"], shared_workers()
    calls = int(found["budget"])
    totals = [record.total for record in records]
    best = sorted(records, key=lambda record: (-record.total, record.call))[:100]
    smiles = [record.canonical for record in best]
    described = workers.map("tabulate", smiles, columns=["fingerprint", "sa"])
    bits = np.array([np.frombuffer(b64decode(row["fingerprint"]), np.uint8) for row in described])
    n = len(bits)
    return TaskResult(
        task,
        seed,
        len(records),
        auc_top(totals, calls),
        auc_top(_first_of_each([record.canonical for record in records], totals, workers), calls),
        top(totals, 1),
        top(totals, 10),
        top(totals, 100),
        float(1 - (within(bits).mean.mean() * n - 1) / (n - 1)) if n > 1 else math.nan,
        statistics.mean(row["sa"] for row in described),
        None if is_known is None else 1 - sum(is_known(smiles)) / n,
        float(found["seconds"]),
    )


def _first_of_each(smiles: Sequence[str], totals: Sequence[float], workers: Workers) -> list[float]:
    """The scores in order, 0 in place of a molecule whose parent without stereo was there before."""
    seen: set[str] = set()
    found = []
    for parts, total in zip(workers.map("describe", smiles, parts=["parent"]), totals, strict=True):
        parent = (parts or {}).get("parent", "")
        found.append(0.0 if parent in seen else total)
        seen.add(parent)
    return found


def table(results: Sequence[TaskResult]) -> str:
    """The results beside the published ones: a line per task, and their sum if all 23 are there."""
    by_task: dict[str, list[TaskResult]] = {}
    for result in results:
        by_task.setdefault(result.task, []).append(result)
    head = f"{'AUC top-10':<26}{'molgen':>16}{'by parent':>11}" + "".join(f"{name:>13}" for name in COLUMNS)
    lines = [head]
    for task in TASKS:
        if task not in by_task:
            continue
        values = [result.auc_top10 for result in by_task[task]]
        ours = f"{statistics.mean(values):.3f}" + (f" ± {_stderr(values):.3f}" if len(values) > 1 else "")
        parents = statistics.mean(result.auc_top10_parents for result in by_task[task])
        lines.append(f"{task:<26}{ours:>16}{parents:>11.3f}" + "".join(f"{x:>13.3f}" for x in PUBLISHED[task]))
    means = [statistics.mean(r.auc_top10 for r in found) for found in by_task.values()]
    parents = sum(statistics.mean(r.auc_top10_parents for r in found) for found in by_task.values())
    published = [sum(PUBLISHED[task][i] for task in by_task) for i in range(len(COLUMNS))]
    title = "sum" if len(by_task) == len(TASKS) else f"sum of these {len(by_task)}"
    lines.append(f"{title:<26}{sum(means):>16.3f}{parents:>11.3f}" + "".join(f"{x:>13.3f}" for x in published))
    lines.append("* ZINC 250k was scored before, outside of the 10,000 calls: not comparable")
    seeds = sorted({result.seed for result in results})
    lines.append(f"means of seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}")
    fewer = {task: len(found) for task, found in by_task.items() if len(found) < len(seeds)}
    lines += [f"{task}: stopped after {done} of these seeds" for task, done in fewer.items()]
    lines.append("")
    lines.append(
        f"{'best 100':<26}{'top 1':>8}{'top 10':>8}{'top 100':>9}{'diversity':>11}{'SA':>7}{'novelty':>9}{'s':>8}"
    )
    for task, found in by_task.items():
        novelty = [r.novelty for r in found if r.novelty is not None]
        cells = [
            statistics.mean(getattr(r, key) for r in found) for key in ("top1", "top10", "top100", "diversity", "sa")
        ]
        lines.append(
            f"{task:<26}{cells[0]:>8.3f}{cells[1]:>8.3f}{cells[2]:>9.3f}{cells[3]:>11.3f}{cells[4]:>7.2f}"
            + (f"{statistics.mean(novelty):>9.3f}" if novelty else f"{'–':>9}")
            + f"{statistics.median(r.seconds for r in found):>8.0f}"
        )
    return "\n".join(lines)


def _stderr(values: Sequence[float]) -> float:
    return statistics.stdev(values) / math.sqrt(len(values))


def to_json(results: Sequence[TaskResult], about: Mapping[str, Any]) -> dict[str, Any]:
    """All results with what they are of, as plain values for JSON."""
    rows = [asdict(result) for result in results]
    return {**about, "results": rows, "published": {"columns": COLUMNS, "tasks": PUBLISHED}}


def check_tasks(names: Sequence[str]) -> list[str]:
    """The named tasks, all if there is none. Raises MolgenError for an unknown one."""
    for name in names:
        if name not in TASKS:
            raise MolgenError(f"--task {name}: no task of PMO", f"tasks: {', '.join(TASKS)}")
    return list(names) or list(TASKS)
