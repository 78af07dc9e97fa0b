"""The settings of an optimisation: what is asked for, and how the agent learns; two presets of the latter."""

from typing import Annotated, Any, Literal

from pydantic import Field

from molgen.config import Section

Preset = Literal["people", "benchmark"]
Origin = Literal["agent", "completion", "genetic"]
ORIGINS: tuple[Origin, ...] = ("agent", "completion", "genetic")
Share = Annotated[float, Field(ge=0, le=1)]


class LearnerConfig(Section):
    """How molecules are proposed and how the agent learns from their scores."""

    batch: Annotated[int, Field(ge=2, le=100_000)] = 64
    """Molecules scored per round, at most."""
    proposals: Annotated[int, Field(ge=2, le=1_000_000)] = 64
    """Strings proposed per round. Of more than are scored, the surrogate chooses."""
    unscreened: Share = 0.25
    """Share of the scored ones that are chosen at random."""
    curiosity: Annotated[float, Field(ge=0, le=100)] = 1.0
    """Standard deviations that are added to the surrogate's mean (upper confidence bound)."""
    known: Annotated[int, Field(ge=10, le=5_000)] = 1_000
    """Molecules that the surrogate is fitted to: half of them the best, half the latest."""
    agent: Share = 1.0
    """Share of them drawn from the agent."""
    completion: Share = 0.0
    """Share of them made by the agent from the beginning of a good molecule's SMILES."""
    genetic: Share = 0.0
    """Share of them made by crossover and mutation of good molecules."""
    ahead: bool = False
    """Whether the next round is proposed while the user's scorer is at work: faster, but a round behind."""
    adaptive: bool = False
    """Whether the shares follow the success of the three."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 5e-4
    """Of AdamW."""
    sigma: Annotated[float, Field(gt=0, le=1e6)] = 128.0
    """Nats of likelihood over the prior's that a score of 1 asks for (Olivecrona et al. 2017)."""
    replays: Annotated[int, Field(ge=0, le=1_000)] = 2
    """Steps per round on molecules of the memory."""
    replay_batch: Annotated[int, Field(ge=1, le=100_000)] = 64
    """Molecules per such step."""
    memory: Annotated[int, Field(ge=1, le=1_000_000)] = 200
    """The best molecules, which are replayed and are the parents of new ones."""
    greediness: Annotated[float, Field(gt=0, le=100)] = 0.05
    """Small: the best of the memory are chosen most often; large: all equally (weight 1 / (greediness · n + rank))."""
    randomized: Share = 0.5
    """Share of replayed molecules as random SMILES, if the prior knows those."""
    mutation: Share = 0.5
    """Probability that a child of two parents is also mutated."""
    scaffold_limit: Annotated[int, Field(ge=1)] | None = None
    """Molecules of one Bemis–Murcko scaffold, with a score of at least `scaffold_score`, that are rewarded."""
    scaffold_score: Share = 0.4
    """See `scaffold_limit`."""


PRESETS: dict[Preset, LearnerConfig] = {
    "people": LearnerConfig(proposals=256, ahead=True, agent=0.8, completion=0.2, scaffold_limit=25),
    "benchmark": LearnerConfig(
        proposals=512, unscreened=0.1, sigma=500, agent=0.4, completion=0.3, genetic=0.3, adaptive=True
    ),
}


class ScorerConfig(Section):
    """What is known of the scorer that the command line named; it runs only if it is named again."""

    kind: Literal["command", "callable"]
    text: str
    """The command, or the callable's name."""
    sha256: str = ""
    """Of the file of a FILE.py:FUNCTION."""


class OptimizeConfig(Section):
    """One optimisation."""

    prior: str
    """The run that the agent starts from."""
    prior_sha256: str
    """Of its weights."""
    name: str
    """The name of the objective, for people."""
    objective: dict[str, Any]
    """Its values, without defaults."""
    scorer: ScorerConfig | None = None
    calls: Annotated[int, Field(ge=1, le=10**9)] = 10_000
    preset: Preset = "people"
    learner: LearnerConfig
    alerts: list[str] = Field(default=[])
    """Reactive groups, by name, that are rejected."""
    warheads: list[str] = Field(default=[])
    """Patterns in which such a group is wanted."""
    keep: str = ""
    """Fragments that every molecule keeps and is grown from, as `molgen.chem.fragments.numbered` writes them."""
    condition: str = ""
    """Values that the prior and the agent are given, such as `logp = 2.5`."""
    on_error: Literal["stop", "skip"] = "stop"
    """After a scorer's failure: stop, or go on without a score for the molecules concerned."""
    seed: Annotated[int, Field(ge=0)] = 0
