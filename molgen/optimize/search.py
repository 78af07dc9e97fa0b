"""The loop of an optimisation: propose, score, remember, learn.

All random numbers depend only on the seed and the round, and results count in the order of the draws. So a search that
was stopped goes on exactly, and the number of scorers at work changes nothing.
"""

import math
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import numpy as np

from molgen.chem.pool import Workers
from molgen.optimize.agent import Agent, Lesson
from molgen.optimize.components import Objective
from molgen.optimize.judge import Judge, Judged
from molgen.optimize.ledger import Ledger, Record
from molgen.optimize.memory import Memory, Remembered
from molgen.optimize.proposals import Candidate, Proposer, Success, even, random_forms
from molgen.optimize.screen import Molecule, Screen
from molgen.optimize.settings import ORIGINS, OptimizeConfig

_PARTS = ["canonical", "smiles_no_stereo", "scaffold", "surrogate"]
_FEWEST_FRESH = 0.1  # share of a batch
RESCORED = "rescored"  # the origin of molecules that a new stage scores again
_IDLE = 50  # rounds in a row without a new molecule, after which a search ends


@dataclass
class RoundReport:
    """What came of a round."""

    proposed: Counter[str] = field(default_factory=Counter)
    """Strings by origin."""
    valid: Counter[str] = field(default_factory=Counter)
    """Those that RDKit can read."""
    repeated: int = 0
    """Valid ones that were scored before, or twice in the round."""
    new: Counter[str] = field(default_factory=Counter)
    """The others, by origin."""
    unknown: int = 0
    """New ones with tokens that the agent does not know, or too long for it."""
    rejected: Counter[str] = field(default_factory=Counter)
    """New ones by the hard filter that rejected them."""
    records: list[Record] = field(default_factory=list)
    """The scored ones."""
    drawn: list[str] = field(default_factory=list)
    """The agent's valid strings."""
    distance: float = math.nan
    """Of the agent from the prior, by its valid strings, in nats."""
    scoring: float = 0.0
    """Seconds that the search waited for scores."""


class ScorerFailedError(Exception):
    """The user's scorer failed, and the search is to stop then."""

    def __init__(self, records: Sequence[Record]) -> None:
        super().__init__(records[0].problem)
        self.records = list(records)


class Proposal(NamedTuple):
    """What RDKit and the hard filters say of a candidate."""

    origin: str
    molecule: Molecule | None
    """None: RDKit cannot read it."""
    cause: str
    """The hard filter that rejects it, or ""."""


@dataclass
class SearchState:
    """The counters of a search between two rounds."""

    round: int = 0
    calls: int = 0
    seconds: float = 0.0
    stage: int = 0
    """Of the last round."""
    idle: int = 0
    """Rounds in a row without a new molecule."""
    candidates: list[tuple[str, str]] = field(default_factory=list)
    """(string, origin) of the next round, if they have been proposed already."""
    surrogate: tuple[float, float] | None = None
    """The setting of the surrogate for the next round, if it has been sought already."""
    lessons: list[Lesson] = field(default_factory=list)
    """Of the last round's fresh molecules, if they are still to be learnt."""
    success: dict[str, list[float]] = field(default_factory=lambda: {origin: [0.0, 0.0] for origin in ORIGINS})
    """Of `Success`."""

    @property
    def position(self) -> dict[str, object]:
        """The values for a state's header, valid as JSON."""
        return asdict(self)


class Search:
    """Rounds of proposals, scores and learning, until the calls are used up."""

    def __init__(
        self, config: OptimizeConfig, objective: Objective, agent: Agent, judge: Judge, ledger: Ledger, workers: Workers
    ) -> None:
        self.config, self.objective, self.agent, self.ledger = config, objective, agent, ledger
        self._judge, self._workers = judge, workers
        self._dear = objective.needs_scorer
        self.state = SearchState()
        self._columns = list(objective.columns.values())
        self._sees_stereo = objective.sees_stereo
        self._ahead: defaultdict[tuple[int, str], deque[Record]] = defaultdict(deque)
        self._failed: list[Record] = []
        """Records of this round for which the user's scorer gave no value."""
        self._next: list[Proposal] = []
        """What has been proposed for the next round already."""
        self._begin_stage(0)

    @property
    def done(self) -> bool:
        """Whether the calls are used up, or no new molecule comes any more."""
        return self.state.calls >= self.config.calls or self.state.idle >= _IDLE

    def restore(self, state: SearchState) -> None:
        """Takes up a saved state. What the ledger has beyond it answers the same molecules, without new calls."""
        self.state = state
        self._begin_stage(state.stage)  # a new one begins with a round that scores the best again
        self._screen.setting = state.surrogate
        before = [r for r in self.ledger.records[: state.calls] if r.stage == self.state.stage]
        for record, molecule in self._molecules_of(before):
            self._remember(record, molecule)
        self._next = self._seen_through([Candidate(*pair) for pair in state.candidates])
        for record, molecule in self._molecules_of(self.ledger.records[state.calls :]):
            if self.config.on_error == "skip" or record.total == record.total:
                self._ahead[record.stage, molecule.key].append(record)

    def _molecules_of(self, records: Sequence[Record]) -> Iterator[tuple[Record, Molecule]]:
        molecules = self._parsed([Candidate(record.canonical, record.origin) for record in records])
        return ((record, found) for record, found in zip(records, molecules, strict=True) if found is not None)

    def round(self) -> RoundReport:
        """One round. Raises ScorerFailedError if the user's scorer fails and the search is to stop then."""
        rng = np.random.default_rng([self.config.seed, self.state.round])
        report = RoundReport()
        stage = self._judge.stage(self.state.calls)
        rescoring = stage != self.state.stage
        if rescoring:  # what was best by the last stage is scored again by this one
            candidates = [Candidate(molecule.canonical, RESCORED) for molecule in self.memory.best]
            self._begin_stage(stage)
            proposals = self._seen_through(candidates)
        else:
            proposals = self._next or self._seen_through(self._proposed(self.state.round))
        accepted, rejected = self._new(proposals, report)
        left = self.config.calls - self.state.calls
        if rescoring:
            chosen = accepted[:left]
        else:
            chosen = self._screen.choose(accepted, min(left, self.config.learner.batch), rng)
        records = self._scored(chosen)  # from now on the user's scorer is at work, while the agent learns
        self.settle()
        report.distance = self.agent.distance(report.drawn)
        for lessons in self._replays(rng):
            self.agent.learn(lessons)
        ahead = self._proposed(self.state.round + 1) if self.config.learner.ahead else []
        self._next = self._seen_through(ahead)
        if self.config.learner.ahead:
            self._screen.tune()
        rewards = dict.fromkeys(rejected, 0.0) | self._rewards(chosen, records, report)
        fresh = [self._lesson(m, x) for m, x in rewards.items() if m.origin == "agent" and x == x]
        if len(fresh) >= _FEWEST_FRESH * self.config.learner.batch:  # a step on a few would be as long as on many
            self.state.lessons = fresh
        if not self.config.learner.ahead:  # else during the next round, while the user's scorer is at work
            self.settle()
        self._finish(report, ahead)
        return report

    def settle(self) -> None:
        """Learns from the last round's fresh molecules, if that is still to be done."""
        self.agent.learn(self.state.lessons)
        self.state.lessons = []

    def _lesson(self, molecule: Molecule, reward: float) -> Lesson:
        """A molecule of the agent's: as it was drawn if it was grown from what is kept, else as canonical SMILES."""
        if self.agent.grows:
            return Lesson(molecule.smiles, reward, self.agent.knows_random_forms)
        return Lesson(molecule.canonical, reward)

    def _rewards(
        self, chosen: Sequence[Molecule], records: Iterator[Record], report: RoundReport
    ) -> dict[Molecule, float]:
        """The rewards of the molecules that are being scored, as their records come. Raises ScorerFailedError."""
        began = time.monotonic()
        rewards = {}
        self._success.fade(report.proposed)
        for molecule, record in zip(chosen, records, strict=True):
            report.records.append(record)
            self._success.count(record.origin, record.total > self.memory.elite)
            rewards[molecule] = self._remember(record, molecule)
        report.scoring = time.monotonic() - began
        if self._failed and self.config.on_error == "stop":
            raise ScorerFailedError(self._failed)
        return rewards

    def _proposed(self, number: int) -> list[Candidate]:
        """The candidates of a round."""
        return self._proposer(self._success.parts(), np.random.default_rng([self.config.seed, number, 1]))

    def _begin_stage(self, stage: int) -> None:
        """An empty memory: molecules have other scores in another stage."""
        learner = self.config.learner
        self.state.stage = stage
        self.memory = Memory(learner.memory, learner.greediness, learner.scaffold_limit, learner.scaffold_score)
        self._success = Success(learner, self.state.success)
        self._proposer = Proposer(self.agent, self.memory, self._workers, self.objective.elements)
        self._seen: set[str] = set()
        self._screen = Screen(learner)

    def _seen_through(self, candidates: Sequence[Candidate]) -> list[Proposal]:
        """What RDKit and the hard filters say of each."""
        molecules = self._parsed(candidates)
        asked = {found.canonical: "" for found in molecules if found is not None and found.key not in self._seen}
        causes = dict(zip(asked, self._judge.rejected(list(asked)), strict=True))
        return [
            Proposal(candidate.origin, found, causes.get(found.canonical, "") if found is not None else "")
            for candidate, found in zip(candidates, molecules, strict=True)
        ]

    def _new(self, proposals: Sequence[Proposal], report: RoundReport) -> tuple[list[Molecule], list[Molecule]]:
        """(the molecules that have no score yet and pass the hard filters, those that do not pass)."""
        accepted, rejected, new = list[Molecule](), list[Molecule](), set[str]()
        for origin, molecule, cause in proposals:
            report.proposed[origin] += 1
            if molecule is None:
                continue
            report.valid[origin] += 1
            if origin == "agent":
                report.drawn.append(molecule.smiles)
            if molecule.key in self._seen or molecule.key in new:
                report.repeated += 1
                continue
            report.new[origin] += 1
            if not self.agent.fits(molecule.canonical):
                report.unknown += 1
                continue
            new.add(molecule.key)
            if cause:
                report.rejected[cause] += 1
            (rejected if cause else accepted).append(molecule)
        return accepted, rejected

    def _parsed(self, candidates: Sequence[Candidate]) -> list[Molecule | None]:
        smiles = [candidate.smiles for candidate in candidates]
        parts = self._workers.map("describe", smiles, at_a_time=even(len(smiles), self._workers), parts=_PARTS)
        return [
            self._molecule(candidate, *(found[name] for name in _PARTS)) if found and "failure" not in found else None
            for candidate, found in zip(candidates, parts, strict=True)
        ]

    def _molecule(self, candidate: Candidate, canonical: str, flat: str, scaffold: Any, features: Any) -> Molecule:
        key = canonical if self._sees_stereo else flat
        seen = features[0], tuple(features[1])
        return Molecule(candidate.smiles, canonical, key, scaffold[0], seen, candidate.origin)

    def _replays(self, rng: np.random.Generator) -> list[list[Lesson]]:
        """The lessons from the memory, as it is before this round's molecules are scored."""
        learner = self.config.learner
        if len(self.memory) < learner.replay_batch:
            return []
        return [self._lessons(self.memory.pick(learner.replay_batch, rng), rng) for _ in range(learner.replays)]

    def _lessons(self, molecules: Sequence[Remembered], rng: np.random.Generator) -> list[Lesson]:
        chosen = rng.random(len(molecules)) < self.config.learner.randomized * self.agent.knows_random_forms
        forms = iter(
            random_forms([m.canonical for m, c in zip(molecules, chosen, strict=True) if c], self._workers, rng)
        )
        lessons = []
        for molecule, is_chosen in zip(molecules, chosen.tolist(), strict=True):
            form = next(forms) if is_chosen else ""
            random = bool(form) and self.agent.fits(form)
            lessons.append(Lesson(form if random else molecule.canonical, molecule.total, random))
        return lessons

    def _scored(self, molecules: Sequence[Molecule]) -> Iterator[Record]:
        """The records of these molecules, each on the disk before it is yielded; scoring starts at once."""
        known = [self._known(molecule) for molecule in molecules]
        unknown = [molecule.canonical for molecule, record in zip(molecules, known, strict=True) if record is None]
        judged = self._judge(unknown, self.objective.all_stages[self.state.stage])
        return self._recorded(molecules, known, judged)

    def _known(self, molecule: Molecule) -> Record | None:
        waiting = self._ahead[self.state.stage, molecule.key]
        return waiting.popleft() if waiting else None

    def _recorded(
        self, molecules: Sequence[Molecule], known: Sequence[Record | None], judged: Iterator[Judged]
    ) -> Iterator[Record]:
        self._failed = []
        for molecule, record in zip(molecules, known, strict=True):
            if record is None:
                found = next(judged)
                record = self._record(molecule, found)
                self.ledger.add(record, sync=self._dear)
                if found.scorer_failed:
                    self._failed.append(record)
            yield record

    def _record(self, molecule: Molecule, judged: Judged) -> Record:
        components = self.objective.all_stages[self.state.stage].components
        places = [self._columns.index(component) for component in components]
        raw, scores = ([math.nan] * len(self._columns) for _ in range(2))
        for place, value, score in zip(places, judged.raw, judged.scores, strict=True):
            raw[place], scores[place] = value, score
        call, stage, (smiles, canonical, _, _, _, origin) = len(self.ledger.records) + 1, self.state.stage, molecule
        return Record(call, stage, smiles, canonical, judged.total, origin, judged.problem, tuple(raw), tuple(scores))

    def _remember(self, record: Record, molecule: Molecule) -> float:
        """Its reward: its score, 0 for an exhausted scaffold, NaN without a score."""
        if record.total != record.total:  # it may be scored again
            return record.total
        self._seen.add(molecule.key)
        self._screen.add(molecule, record.total)
        return self.memory.add(molecule.canonical, record.total, molecule.scaffold)

    def _finish(self, report: RoundReport, ahead: Sequence[Candidate]) -> None:
        state = self.state
        state.candidates = [(candidate.smiles, candidate.origin) for candidate in ahead]
        state.surrogate = self._screen.setting
        state.round, state.calls = state.round + 1, state.calls + len(report.records)
        state.idle = 0 if report.records else state.idle + 1
        state.success = self._success.counts
