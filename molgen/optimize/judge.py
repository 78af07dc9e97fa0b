"""Molecules → their scores by an objective: cheap components first, dear ones only for what is still in question.

What has a cheap component of zero in a geometric mean or a product has the total 0 and never reaches a dear scorer.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from molgen.chem.filters import MoleculeFilter
from molgen.chem.pool import Workers
from molgen.errors import MolgenError
from molgen.optimize.components import Component, Objective, Stage, combined
from molgen.optimize.external import Scored
from molgen.optimize.proposals import even

Matrix = npt.NDArray[np.float64]
Likelihoods = Callable[[Sequence[str]], list[float]]
"""Canonical SMILES → ln p under a run, in nats, or its prediction; NaN for what it cannot read."""
BatchScorer = Callable[[Sequence[str]], Iterable[Scored]]
"""SMILES → what came of each, in their order."""


class Judged(NamedTuple):
    """What came of one molecule."""

    total: float
    """In [0, 1]; NaN if a scorer failed."""
    raw: tuple[float, ...]
    """One per component of the stage; NaN for those that were not computed."""
    scores: tuple[float, ...]
    """The same, transformed."""
    problem: str = ""
    """Why there is no total."""
    scorer_failed: bool = False
    """Whether it is the user's scorer that gave none."""


class Judge:
    """Scores molecules by an objective."""

    def __init__(
        self,
        objective: Objective,
        workers: Workers,
        accepted: MoleculeFilter | None = None,
        scorer: BatchScorer | None = None,
        likelihoods: Mapping[str, Likelihoods] | None = None,
    ) -> None:
        """`accepted` has the hard filters, `scorer` is what the command line named, `likelihoods` compute what
        runs say, by `Component.evaluated_by`.

        Raises MolgenError if a component needs a scorer and there is none.
        """
        self.objective, self.workers, self._scorer = objective, workers, scorer
        self._likelihoods = likelihoods or {}
        self._filter = accepted or MoleculeFilter()
        if objective.needs_scorer and scorer is None:
            raise MolgenError(
                "the objective has a component `scorer: true`",
                "name it: --command CMD, or --scorer FILE.py:FUNCTION",
            )

    def stage(self, calls: int) -> int:
        """The number of the stage after so many calls."""
        return max(i for i, stage in enumerate(self.objective.all_stages) if stage.calls <= calls)

    def rejected(self, smiles: Sequence[str]) -> list[str]:
        """The hard filter that rejects each molecule, or ""."""
        if self._filter == MoleculeFilter():
            return [""] * len(smiles)
        at_a_time = even(len(smiles), self.workers)
        screened = self.workers.map("screen", smiles, at_a_time=at_a_time, **self._filter._asdict())
        return [found[1] if found else "invalid" for found in screened]

    def __call__(self, smiles: Sequence[str], stage: Stage) -> Iterator[Judged]:
        """The scores of canonical SMILES, in their order, each as soon as it is known.

        When this returns, all is computed but what the user's scorer is then at work on.
        """
        raw = np.full((len(smiles), len(stage.components)), math.nan)
        problems = self._measure(raw, smiles, stage)
        scores = np.full_like(raw, math.nan)
        for place, component in enumerate(stage.components):
            scores[:, place] = [component.score(value) for value in raw[:, place]]
        places = [i for i, component in enumerate(stage.components) if component.kind == "scorer"]
        if not places or self._scorer is None:
            return (_judged(raw[i], scores[i], problems[i], stage) for i in range(len(smiles)))
        (place,) = places
        asked = [not problems[i] and _is_open(scores[i], stage) for i in range(len(smiles))]
        component = stage.components[place]
        wanted = [one for one, is_asked in zip(smiles, asked, strict=True) if is_asked]
        answers = iter(self._scorer(wanted)) if component.prepare is None else self._prepared(wanted, component)

        def judged() -> Iterator[Judged]:
            for i, is_asked in enumerate(asked):
                if is_asked:
                    scored = next(answers)
                    raw[i, place] = scored.value
                    scores[i, place], problems[i] = _checked(component, scored)
                yield _judged(raw[i], scores[i], problems[i], stage, is_asked and bool(problems[i]))

        return judged()

    def _prepared(self, smiles: Sequence[str], component: Component) -> Iterator[Scored]:
        """The value of each molecule's best form."""
        assert self._scorer is not None and component.prepare is not None
        settings = component.prepare.model_dump()
        prepared = self.workers.map("forms", smiles, at_a_time=even(len(smiles), self.workers), **settings)
        forms = [found or [one] for one, found in zip(smiles, prepared, strict=True)]
        answers = iter(self._scorer([form for own in forms for form in own]))

        def best() -> Iterator[Scored]:
            for own in forms:
                found = [next(answers) for _ in own]
                scored = [one for one in found if not one.problem]
                yield max(scored, key=lambda one: component.score(one.value)) if scored else found[0]

        return best()

    def costs(self, smiles: Sequence[str]) -> dict[str, float]:
        """Seconds per molecule and process of each component of the first stage but the user's scorer."""
        found = {}
        for name, component in self.objective.columns.items():
            if component.kind != "scorer":
                one = Stage(components=[component])
                self._measure(np.full((len(smiles), 1), math.nan), smiles[:1], one)  # warm
                began = time.monotonic()
                self._measure(np.full((len(smiles), 1), math.nan), smiles, one)
                found[name] = (time.monotonic() - began) / len(smiles) * self.workers.processes
        return found

    def _measure(self, raw: Matrix, smiles: Sequence[str], stage: Stage) -> list[str]:
        """Fills in all components but the user's scorer; returns each molecule's problem, or ""."""
        places = [i for i, component in enumerate(stage.components) if component.measured is not None]
        if places and smiles:
            components = [stage.components[place].measured for place in places]
            at_a_time = even(len(smiles), self.workers)
            for i, found in enumerate(self.workers.map("measure", smiles, at_a_time=at_a_time, components=components)):
                if found is not None:
                    raw[i, places] = found
        for place, component in enumerate(stage.components):
            if component.evaluated_by is not None:
                raw[: len(smiles), place] = self._likelihoods[component.evaluated_by](smiles)
                places.append(place)
        return [_missing(values[places], [stage.components[place].label for place in places]) for values in raw]


def _missing(values: npt.NDArray[np.float64], names: Sequence[str]) -> str:
    lacking = [name for name, value in zip(names, values.tolist(), strict=True) if math.isnan(value)]
    return f"{', '.join(lacking)} cannot be computed" if lacking else ""


def _is_open(scores: npt.NDArray[np.float64], stage: Stage) -> bool:
    """Whether a dear component can still change the total."""
    return stage.mean == "arithmetic" or not (scores == 0).any()


def _checked(component: Component, scored: Scored) -> tuple[float, str]:
    """The transformed value and the problem, if any: a scorer without transform must give values in [0, 1]."""
    score = component.score(scored.value)
    if not scored.problem and not 0 <= score <= 1:
        return math.nan, f"gave {scored.value:g}, which is not in [0, 1], and no range is named"
    return score, scored.problem


def _judged(
    raw: npt.NDArray[np.float64],
    scores: npt.NDArray[np.float64],
    problem: str,
    stage: Stage,
    scorer_failed: bool = False,
) -> Judged:
    if problem:
        total = math.nan
    elif not _is_open(scores, stage):
        total = 0.0
    else:
        total = float(combined(scores[None, :], [c.weight for c in stage.components], stage.mean)[0])
    return Judged(total, tuple(raw.tolist()), tuple(scores.tolist()), problem, scorer_failed)
