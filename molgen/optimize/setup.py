"""The set-up of a search: a new run directory, or the settings of one that is resumed; its judge."""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from logging import getLogger
from pathlib import Path

from pydantic import ValidationError

from molgen.checkpoint import save_state, saved_fingerprint
from molgen.chem.filters import MoleculeFilter
from molgen.chem.fragments import keep_of, numbered
from molgen.chem.smiles import RDKIT_VERSION, canonical, flat
from molgen.config import Config, first_problem, parse_yaml, to_yaml
from molgen.errors import MolgenError
from molgen.generation.generator import MoleculeGenerator
from molgen.machine import Runtime
from molgen.model.decoder import Decoder
from molgen.optimize.agent import Agent
from molgen.optimize.components import Component, Objective, Stage
from molgen.optimize.external import CallableScorer, Scorer, scorer_pool
from molgen.optimize.judge import Judge
from molgen.optimize.options import OptimizeOptions
from molgen.optimize.request import alerts_of, objective_of
from molgen.optimize.search import SearchState
from molgen.optimize.settings import PRESETS, OptimizeConfig, ScorerConfig
from molgen.prediction.predictor import RunPredictor
from molgen.runs import CONDITIONS, MOLECULES, OPTIMIZE, PARENTS, REPORT, STATE, Run, create_run, find_run
from molgen.runtime.files import content_of, write_atomically
from molgen.tokenizer import SmilesTokenizer
from molgen.training.finetune import initial_model

logger = getLogger(__name__)

_SPREAD = 32  # molecules of the prior that a scorer without a range is tried on
_MOST_BYTES = 2**20
ORGANIC = ("B", "C", "N", "O", "P", "S", "F", "Cl", "Br", "I")  # written without brackets


def create_search(
    path: Path,
    prior: Run,
    options: OptimizeOptions,
    scorer: Scorer | None,
    runtime: Runtime,
    force: bool,
    known: dict[str, float],
) -> OptimizeConfig:
    """A new run directory with the agent before its first step; `known` gets the values of a scorer that is tried."""
    if any(path.iterdir()) and not force:
        raise MolgenError(
            f"{path}: exists", "choose another --out, or overwrite it with --force, or go on with --resume"
        )
    if prior.path.exists() and prior.path.samefile(path):
        raise MolgenError(f"{path}: is the run to start from", "choose another --out")
    asked = objective_of(options, scorer, raw=True)
    config = config_of(prior, asked, options, scorer)
    given = given_config(prior, options.condition)
    _ = _accepted(asked, config)  # raises an error for a filter that is not valid before anything is written
    tokenizer = extended_vocabulary(prior.tokenizer, asked)
    model = starting_model(prior, tokenizer, given, runtime)
    agent = Agent(model, tokenizer, config.learner, runtime, config.keep)
    with judging(asked, scorer, runtime, options, config, known) as judge:
        molecules_of_prior(agent, judge, 1)  # raises an error for filters that nothing passes
        check_raw(asked, agent, judge)
        _check_scorer(asked, agent, judge)
    created = create_run(path, given, tokenizer, None, None)
    for name in (MOLECULES, PARENTS, CONDITIONS):
        if (prior.path / name).exists():
            shutil.copyfile(prior.path / name, path / name)
    write_atomically(path / OPTIMIZE, to_yaml(config).encode())
    created.save_model(model)
    save_state(path / STATE, agent.models, agent.optimizer, SearchState().position, fingerprint_of(created, config))
    return config


def given_config(prior: Run, condition: str) -> Config:
    """The prior's configuration, with the values that it is given. Raises MolgenError for what it does not know."""
    if not condition:
        return prior.config
    if prior.config.data.given:
        raise MolgenError(f"{prior.path}: was optimised under {prior.config.data.given}", "leave --condition out")
    table = prior.condition_table
    for is_warning, line in table.remarks(table.parse(condition)):
        (logger.warning if is_warning else logger.info)(line)
    return prior.config.model_copy(update={"data": prior.config.data.model_copy(update={"given": condition})})


def starting_model(prior: Run, tokenizer: SmilesTokenizer, config: Config, runtime: Runtime) -> Decoder:
    """The agent's model before its first step: the prior's weights, given the values of the configuration."""
    model = initial_model(prior.config, tokenizer, prior).to(runtime.device)
    return prior.under_condition(model, config.data.given) if config.data.given else model


def config_of(prior: Run, asked: Objective, options: OptimizeOptions, scorer: Scorer | None) -> OptimizeConfig:
    """The settings of a new search. Raises MolgenError for an alert that there is not."""
    return OptimizeConfig(
        prior=str(prior.path),
        prior_sha256=prior.weights_sha256,
        name=options.name,
        objective=asked.model_dump(exclude_defaults=True),
        scorer=None if scorer is None else _described(scorer),
        calls=options.calls or 10_000,
        preset=options.preset,
        learner=options.learner or PRESETS[options.preset],
        alerts=alerts_of(options),
        warheads=list(options.warheads),
        keep=keep_of(numbered(options.keep)).text if options.keep else "",
        condition=options.condition,
        on_error=options.on_error or "stop",
        seed=options.seed,
    )


def extended_vocabulary(known: SmilesTokenizer, asked: Objective) -> SmilesTokenizer:
    """The prior's vocabulary, with the tokens that the objective's molecules and elements need."""
    symbols = [symbol for symbol in asked.elements if symbol in ORGANIC]
    targets = [canonical(smiles) if asked.sees_stereo else flat(smiles) for smiles in asked.targets]
    needed = SmilesTokenizer.of_corpus([*symbols, *filter(None, targets)], known.splitter.pattern, False, RDKIT_VERSION)
    extended = known.extended(needed)
    if new := extended.tokens[len(known.tokens) :]:
        logger.info(f"{len(new)} tokens that the prior lacks, new in the agent: {' '.join(new)}")
    return extended


def _described(scorer: Scorer) -> ScorerConfig:
    if isinstance(scorer, CallableScorer):
        return ScorerConfig(kind="callable", text=scorer.text, sha256=scorer.sha256)
    return ScorerConfig(kind="command", text=scorer.text)


def fingerprint_of(run: Run, config: OptimizeConfig) -> dict[str, str]:
    """What a saved state belongs to."""
    values = config.model_dump()
    if not config.keep:  # as of searches that began before there was such a setting
        del values["keep"]
    if not config.condition:
        del values["condition"]
    return {"optimize": json.dumps(values), "tokenizer": run.tokenizer.fingerprint}


def saved_config(path: Path) -> OptimizeConfig:
    """The settings of a search. Raises MolgenError if there is none, or if it has finished, or if it was edited."""
    if not os.path.lexists(path / OPTIMIZE):
        raise MolgenError(f"{path}: no search to go on with (no {OPTIMIZE})", "name its directory with --out")
    if (path / REPORT).exists():
        raise MolgenError(f"{path}: has finished", f"molgen optimize {path} starts another search from its agent")
    try:
        text = content_of(path / OPTIMIZE, _MOST_BYTES).decode()
        config = OptimizeConfig.model_validate(parse_yaml(text, str(path / OPTIMIZE)))
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        problem = first_problem(error) if isinstance(error, ValidationError) else str(error)
        raise MolgenError(f"{path / OPTIMIZE}: cannot be read: {problem}", "restore the file") from None
    if saved_fingerprint(path / STATE) | fingerprint_of(Run(path), config) != saved_fingerprint(path / STATE):
        raise MolgenError(f"{path / OPTIMIZE}: not the settings that the search began with", "restore the file")
    return config


def check_same(config: OptimizeConfig, options: OptimizeOptions, scorer: Scorer | None, path: Path) -> None:
    """Raises MolgenError unless a resumed search is the one that began: its scorer named again, no other settings."""
    default = OptimizeOptions()
    for key in ("calls", "preset", "seed"):
        given = getattr(options, key)
        if given not in (getattr(default, key), getattr(config, key)):
            raise MolgenError(
                f"{key} {given} with --resume, but {path} began with {getattr(config, key)}", "leave it out"
            )
    if options.keep and numbered(options.keep) != config.keep:
        raise MolgenError(f"another --keep with --resume than {path} began with", "leave it out")
    if options.condition and options.condition != config.condition:
        raise MolgenError(f"another --condition with --resume than {path} began with", "leave it out")
    changing = ("minimise", "maximise", "where", "smarts", "not_smarts", "blind_to_stereo")
    asked = options.objective is not None and scorer is None
    asked |= any(getattr(options, key) != getattr(default, key) for key in changing)
    if asked and objective_of(options, scorer).model_dump(exclude_defaults=True) != config.objective:
        raise MolgenError(f"another objective with --resume than {path} began with", "leave it out")
    if config.scorer is None:
        if scorer is not None:
            raise MolgenError(f"{path}: began without a scorer of yours", "leave --command or the callable out")
        return
    option = "--command" if config.scorer.kind == "command" else "--scorer"
    again = f"a run executes nothing by itself; if you trust it, name it again: {option} {config.scorer.text!r}"
    if scorer is None:
        raise MolgenError(f"{path}: its scores come from a {config.scorer.kind} of yours", again)
    if _described(scorer) != config.scorer:
        changed = "its file has changed" if scorer.text == config.scorer.text else f"now {scorer.text!r}"
        raise MolgenError(f"{path}: another scorer than the search began with: {changed}", again)


def _accepted(asked: Objective, config: OptimizeConfig) -> MoleculeFilter:
    """The hard filters. Raises MolgenError for one that is not valid."""
    filters = asked.filter._replace(reactive=tuple(config.alerts), warheads=tuple(config.warheads), keep=config.keep)
    return filters.checked()


@contextmanager
def judging(
    asked: Objective,
    scorer: Scorer | None,
    runtime: Runtime,
    options: OptimizeOptions,
    config: OptimizeConfig | None,
    known: dict[str, float],
    waiting: Callable[[], None] = lambda: None,
) -> Iterator[Judge]:
    """A judge with the user's scorer, which is at work in the block only."""
    if any(c.prepare and c.prepare.ph is not None for c in asked.columns.values()) and not find_spec("dimorphite_dl"):
        raise MolgenError("prepare.ph: dimorphite-dl is not installed", "install molgen's extra `prepare`")
    names = {component.likelihood for component in asked.columns.values() if component.likelihood is not None}
    likelihoods = {name: _likelihoods(name, runtime) for name in names}
    predictors: dict[str, RunPredictor] = {}
    for component in asked.columns.values():
        if component.model is not None and component.evaluated_by is not None:
            if component.model not in predictors:
                predictors[component.model] = RunPredictor.load(component.model, runtime=runtime)
            likelihoods[component.evaluated_by] = _predictions(component, predictors[component.model])
    accepted = asked.filter if config is None else _accepted(asked, config)
    with ExitStack() as stack:
        pool = None
        if scorer is not None and asked.needs_scorer:
            pool = stack.enter_context(scorer_pool(scorer, options.jobs, known, options.scheduler))
            pool.waiting = waiting
        yield Judge(asked, runtime.workers, accepted, pool, likelihoods)


def _likelihoods(name: str, runtime: Runtime) -> Callable[[Sequence[str]], list[float]]:
    generator = MoleculeGenerator.load(name, runtime=runtime)
    return lambda smiles: generator.log_likelihood(smiles).tolist()


def _predictions(component: Component, predictor: RunPredictor) -> Callable[[Sequence[str]], list[float]]:
    """What a run predicts. Raises MolgenError if it has no such target, or several and none is named."""
    targets = predictor.run.targets
    if component.target not in targets and (component.target is not None or len(targets) > 1):
        raise MolgenError(
            f"model: {component.model}: no target {component.target}"
            if component.target
            else f"model: {component.model}: predicts several targets",
            f"target: one of {', '.join(targets)}",
        )
    name = component.target or targets[0]
    if component.predicted != "value" and predictor.lacks_intervals(name):
        raise MolgenError(
            f"model: {component.model}: no intervals of {name}: too few molecules were held out",
            "leave predicted out, or train on more molecules",
        )

    def values(smiles: Sequence[str]) -> list[float]:
        found = predictor.predict(smiles)[name]
        columns = {"value": found.values, "low": found.low, "high": found.high, "width": found.high - found.low}
        return [float(value) for value in columns[component.predicted]]

    return values


def check_raw(asked: Objective, agent: Agent, judge: Judge) -> None:
    """Raises MolgenError for a number without a transform, with its values for molecules of the prior."""
    for label, component in asked.columns.items():
        if component.is_raw or predicts_value(component):
            low, high, seen = _spread(label, component, agent, judge)
            line = f"[{low:.4g}, {high:.4g}]"
            raise MolgenError(
                f"{label}: a raw number needs a transform; its values are {seen}",
                f"name the range that matters: transform: {{rising: {line}}}, or falling if low is good",
            )


def predicts_value(component: Component) -> bool:
    """Whether it is a run's prediction of a value, without a transform; that of a class is a probability."""
    if component.model is None or component.transform is not None:
        return False
    targets = find_run(component.model).report.get("prediction", [])
    return not all(one["is_class"] for one in targets if component.target in (None, one["name"]))


def _check_scorer(asked: Objective, agent: Agent, judge: Judge) -> None:
    """Raises MolgenError for a user's scorer without a transform, unless it gives molecules of the prior scores."""
    for label, component in asked.columns.items():
        if component.scorer and component.transform is None:
            low, high, seen = _spread(label, component, agent, judge)
            line = f"{low:.4g}..{high:.4g}"
            if low < 0 or high > 1:
                raise MolgenError(
                    f"the scorer's values are no scores in [0, 1]: {seen}",
                    f"name the range that matters: --maximise {line} if high is good, --minimise {line} if low is good",
                )


def _spread(label: str, component: Component, agent: Agent, judge: Judge) -> tuple[float, float, str]:
    """Lowest and highest value for molecules of the prior, and these in words. Raises MolgenError if none has one."""
    smiles = molecules_of_prior(agent, judge, _SPREAD)
    stage = Stage(mean="arithmetic", components=[component])  # which is defined for negative numbers
    found = list(judge(smiles, stage))
    values = sorted(raw for judged in found for raw in judged.raw if raw == raw)
    if not values:
        problem = next((judged.problem for judged in found if judged.problem), "not a number")
        raise MolgenError(f"{label} has no number for {len(smiles)} molecules: {problem}", "try it by hand")
    low, high = values[0], values[-1]
    median = values[len(values) // 2]
    return low, high, f"{low:.4g} to {high:.4g}, median {median:.4g}, for {len(values)} molecules of the prior"


def molecules_of_prior(agent: Agent, judge: Judge, n: int) -> list[str]:
    """Distinct molecules that the agent, before its first step, draws and the hard filters accept."""
    found: dict[str, None] = {}
    size, most = max(2 * n, 64), 20  # a strict filter may pass one in a hundred
    for seed in range(most):
        drawn = agent.sample(size, seed)
        smiles = [one for one in judge.workers.map("canonical", [text or "" for text in drawn]) if one]
        found |= {one: None for one, cause in zip(smiles, judge.rejected(smiles), strict=True) if not cause}
        if len(found) >= n:
            break
    if not found:
        raise MolgenError(
            f"none of {size * most:,} molecules drawn from the prior passes the hard filters",
            "loosen --where, --smarts or the alerts",
        )
    return list(found)[:n]
