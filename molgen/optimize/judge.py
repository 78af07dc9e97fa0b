"""Molecules → their scores by an objective: cheap components first, dear ones only for what is still in question.

What fails a hard filter, or has a cheap component of zero in a geometric mean or a product, has the total 0 and never
reaches a dear scorer.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from molgen.chem.pool import Workers
from molgen.errors import MolgenError
from molgen.optimize.external import Scored
from molgen.optimize.objective import Component, Objective, Stage, combined

Matrix = npt.NDArray[np.float64]
Likelihoods = Callable[[Sequence[str]], list[float]]
"""Canonical SMILES → ln p under a run, in nats; NaN for what it cannot read."""


class Judged(NamedTuple):
    """What came of one molecule."""

    total: float
    """In [0, 1]; NaN if a scorer failed."""
    raw: tuple[float, ...]
    """One per component of the stage; NaN for those that were not computed."""
    scores: tuple[float, ...]
    """The same, transformed."""
    problem: str = ""
    """Why there is no total, or the filter that the molecule failed; else empty."""


class Judge:
    """Scores molecules by an objective."""

    def __init__(
        self,
        objective: Objective,
        workers: Workers,
        scorer: Callable[[Sequence[str]], list[Scored]] | None = None,
        likelihoods: dict[str, Likelihoods] | None = None,
    ) -> None:
        """`scorer` is what the command line named, `likelihoods` those of the runs that components name.

        Raises MolgenError if a component needs a scorer and there is none.
        """
        self.objective, self._workers, self._scorer = objective, workers, scorer
        self._likelihoods = likelihoods or {}
        self._filter = objective.filter
        needs = any(component.scorer for stage in objective.all_stages for component in stage.components)
        if needs and scorer is None:
            raise MolgenError(
                "the objective has a component `scorer: true`",
                "name it: --command CMD, or --objective FILE.py:FUNCTION",
            )

    def stage(self, calls: int) -> Stage:
        """The stage after so many calls."""
        return [stage for stage in self.objective.all_stages if stage.calls <= calls][-1]

    def __call__(self, smiles: Sequence[str], stage: Stage) -> list[Judged]:
        """The scores of canonical SMILES, in their order."""
        raw = np.full((len(smiles), len(stage.components)), math.nan)
        problems = self._filtered(smiles)
        self._measure(raw, [i for i, problem in enumerate(problems) if not problem], smiles, stage)
        scores = self._transformed(raw, stage)
        for place, component in enumerate(stage.components):
            if component.measured is None:
                asked = [i for i, problem in enumerate(problems) if not problem and self._open(scores[i], stage)]
                values = self._dear(component, [smiles[i] for i in asked])
                for i, scored in zip(asked, values, strict=True):
                    raw[i, place], scores[i, place] = scored.value, component.score(scored.value)
                    problems[i] = scored.problem
        return [self._judged(raw[i], scores[i], problems[i], stage) for i in range(len(smiles))]

    def _filtered(self, smiles: Sequence[str]) -> list[str]:
        """The filter that rejects each molecule, or ""."""
        if self._filter == type(self._filter)():
            return [""] * len(smiles)
        screened = self._workers.map("screen", smiles, **self._filter._asdict())
        return [f"fails {rejected[1]}" if rejected and rejected[1] else "" for rejected in screened]

    def _measure(self, raw: Matrix, rows: Sequence[int], smiles: Sequence[str], stage: Stage) -> None:
        places = [i for i, component in enumerate(stage.components) if component.measured is not None]
        if not places or not rows:
            return
        components = [stage.components[place].measured for place in places]
        values = self._workers.map("measure", [smiles[i] for i in rows], components=components)
        for i, found in zip(rows, values, strict=True):
            if found is not None:
                raw[i, places] = found

    def _transformed(self, raw: Matrix, stage: Stage) -> Matrix:
        scores = np.full_like(raw, math.nan)
        for place, component in enumerate(stage.components):
            scores[:, place] = [component.score(value) if value == value else math.nan for value in raw[:, place]]
        return scores

    def _open(self, scores: Matrix, stage: Stage) -> bool:
        """Whether a dear component can still change the total."""
        return stage.mean == "arithmetic" or not (scores == 0).any()

    def _dear(self, component: Component, smiles: Sequence[str]) -> list[Scored]:
        if not smiles:
            return []
        if component.kind == "likelihood":
            return [Scored(value) for value in self._likelihoods[component.likelihood or ""](smiles)]
        if component.kind == "scorer" and self._scorer is not None:
            return self._scorer(smiles)
        raise AssertionError(component.kind)

    def _judged(self, raw: Matrix, scores: Matrix, problem: str, stage: Stage) -> Judged:
        if problem.startswith("fails ") or (stage.mean != "arithmetic" and (scores == 0).any()):
            total = 0.0
        else:
            total = float(combined(scores[None, :], [c.weight for c in stage.components], stage.mean)[0])
        return Judged(total, tuple(raw.tolist()), tuple(scores.tolist()), problem)
