"""The work of `molgen optimize`: set-up, search, report; and the scores of an objective by hand."""

import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from importlib.metadata import version
from importlib.util import find_spec
from logging import getLogger
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from molgen._version import __version__
from molgen.checkpoint import load_state, save_state, saved_fingerprint
from molgen.chem.filters import MoleculeFilter
from molgen.chem.pool import shared_workers
from molgen.chem.reactive import REACTIVE
from molgen.chem.smiles import RDKIT_VERSION, canonical, flat
from molgen.config import parse_yaml, to_yaml
from molgen.errors import MolgenError
from molgen.generation.generator import MoleculeGenerator
from molgen.machine import Runtime
from molgen.model.build import build_model
from molgen.optimize.agent import Agent
from molgen.optimize.auc import auc_top
from molgen.optimize.card import search_card
from molgen.optimize.components import Objective, Stage, load_objective, presets
from molgen.optimize.external import (
    CallableScorer,
    CommandScorer,
    Scorer,
    is_callable_name,
    named_callable,
    scorer_pool,
)
from molgen.optimize.judge import Judge
from molgen.optimize.ledger import Ledger
from molgen.optimize.memory import top
from molgen.optimize.options import Named, OptimizeOptions
from molgen.optimize.page import write_page
from molgen.optimize.progress import Journal
from molgen.optimize.search import ScorerFailedError, Search, SearchState
from molgen.optimize.settings import PRESETS, OptimizeConfig, ScorerConfig
from molgen.optimize.shortlist import known_molecules, read_catalog, shortlist, write_sdf, write_table
from molgen.runs import (
    CURVES,
    FOLDER,
    MOLECULES,
    OPTIMIZE,
    PARENTS,
    REPORT,
    ROUNDS,
    SCORED,
    SHORTLIST,
    SHORTLIST_PAGE,
    SHORTLIST_SDF,
    STATE,
    Run,
    at_work,
    create_run,
    find_run,
)
from molgen.runtime.device import hardware
from molgen.runtime.files import content_of, write_atomically
from molgen.runtime.log import duration
from molgen.runtime.signals import signals_held
from molgen.tokenizer import SmilesTokenizer
from molgen.training.finetune import initial_model

logger = getLogger(__name__)

_SECONDS_BETWEEN_STATES = 60.0
_SECONDS_BETWEEN_CURVES = 15.0
_SPREAD = 32  # molecules of the prior that a scorer without a range is tried on
_DRY = 10
ORGANIC = ("B", "C", "N", "O", "P", "S", "F", "Cl", "Br", "I")  # written without brackets
_MOST_BYTES = 2**20


def optimize(
    run: str | os.PathLike[str] | None = None,
    objective: Named | None = None,
    *,
    out: str | os.PathLike[str] | None = None,
    resume: bool = False,
    force: bool = False,
    options: OptimizeOptions | None = None,
    **settings: Any,
) -> Run:
    """Searches for molecules that score well, from a run (by default the newest), into the run directory `out`.

    `settings` are the fields of OptimizeOptions, such as `calls` or `minimise`. With `resume` it goes on with the
    search in `out`; a command or callable has to be named again. The result is a run: its weights are the agent's.
    Raises MolgenError for unusable options, and RuntimeError if the user's scorer fails and `on_error` is "stop".
    """
    options = replace(options or OptimizeOptions(), **settings)
    if objective is not None:
        options = replace(options, objective=objective)
    scorer = _scorer(options)
    _check_shortlist(options)
    path = Path(out) if out is not None else FOLDER / f"{options.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    with at_work(path):
        runtime = Runtime(options.device)
        known: dict[str, float] = {}
        if resume:
            config = _saved_config(path)
            _check_same(config, options, scorer, path)
        else:
            config = _create(path, run, options, scorer, runtime, force, known)
        _search(Run(path), config, options, scorer, runtime, known)
    return Run(path)


def objective(
    name: Named, *, command: str | None = None, minimise: str | None = None, maximise: str | None = None
) -> Callable[[Sequence[str]], list[float]]:
    """A function of a list of SMILES that gives the score of each, 0 for an invalid one; NaN where a scorer failed.

    The arguments are those of `optimize`. Raises MolgenError for an objective that is not valid.
    """
    options = OptimizeOptions(name, command, minimise, maximise)
    scorer = _scorer(options)
    asked = _objective(options, scorer)
    workers = shared_workers()

    def scores(smiles: Sequence[str]) -> list[float]:
        canonical = workers.map("canonical", list(smiles))
        valid = [one for one in dict.fromkeys(canonical) if one is not None]
        with _judge(asked, scorer, Runtime("cpu", workers=workers), options, None, {}) as judge:
            rejected = dict(zip(valid, judge.rejected(valid), strict=True))
            passed = [one for one in valid if not rejected[one]]
            found = {one: judged.total for one, judged in zip(passed, judge(passed, asked.all_stages[0]), strict=True)}
        return [found.get(one, 0.0) if one else 0.0 for one in canonical]

    return scores


def _scorer(options: OptimizeOptions) -> Scorer | None:
    """The user's scorer that the options name. Raises MolgenError if they name two."""
    given = options.objective
    named = given if isinstance(given, str) and given not in presets() and is_callable_name(given) else None
    if options.command is not None:
        if named is not None or (callable(given) and not isinstance(given, type)):
            raise MolgenError("--command and a callable: two scorers", "name one; an objective file may combine more")
        return CommandScorer(options.command, options.timeout)
    if named is not None:
        return named_callable(named)
    if callable(given):
        return CallableScorer(given, getattr(given, "__qualname__", type(given).__name__))
    return None


def _objective(options: OptimizeOptions, scorer: Scorer | None) -> Objective:
    """What is asked for: the named objective, or the user's scorer alone; with the range and the filters of options."""
    given = options.objective
    if isinstance(given, Objective):
        values = given.model_dump(exclude_defaults=True)
    elif scorer is not None and (given is None or callable(given) or is_callable_name(str(given))):
        values = {"components": [{"scorer": True, "name": "score"}]}
    elif given is None:
        raise MolgenError("no objective", f"--objective FILE.yaml, or a preset: {', '.join(presets()[:4])}, …")
    else:
        values = load_objective(given).model_dump(exclude_defaults=True)  # type: ignore[arg-type]
    stages = values.get("stages") or [values]
    components = [component for stage in stages for component in stage["components"] if component.get("scorer")]
    if (transform := _range(options)) is not None:
        if not components:
            raise MolgenError("--minimise, --maximise: the objective has no `scorer: true`", "leave it out")
        for component in components:
            component["transform"] = transform
    for component in components if options.blind_to_stereo else ():
        component["blind_to_stereo"] = True
    if options.where:
        values["where"] = f"({values['where']}) and ({options.where})" if values.get("where") else options.where
    for key, patterns in (("smarts", options.smarts), ("not_smarts", options.not_smarts)):
        if patterns:
            values[key] = [*values.get(key, []), *patterns]
    return load_objective(values)


def _check_shortlist(options: OptimizeOptions) -> None:
    """Raises MolgenError for a hit that is none, or a catalogue that is not there: at the end it would be too late."""
    if options.hit is not None and canonical(options.hit) is None:
        raise MolgenError(f"--hit {options.hit}: RDKit does not parse it", "a SMILES")
    if options.catalog is not None and not Path(options.catalog).is_file():
        raise MolgenError(f"--catalog {options.catalog}: no such file", "a .smi, .csv or .sdf file")


def _range(options: OptimizeOptions) -> dict[str, list[float]] | None:
    """The transform that --minimise or --maximise means. Raises MolgenError for a range that is none."""
    if options.minimise is not None and options.maximise is not None:
        raise MolgenError("--minimise and --maximise: one of them", "a scorer has one direction")
    for option, text, kind in (("minimise", options.minimise, "falling"), ("maximise", options.maximise, "rising")):
        if text is None:
            continue
        low, dots, high = text.partition("..")
        try:
            ends = [float(low), float(high)]
        except ValueError:
            ends = []
        if not dots or not ends or not all(map(math.isfinite, ends)) or ends[0] == ends[1]:
            raise MolgenError(f"--{option} {text}: no range", "two numbers, such as -12..-6")
        return {kind: sorted(ends)}
    return None


def _alerts(options: OptimizeOptions) -> list[str]:
    """The reactive groups to reject. Raises MolgenError for a name that is none."""
    for name in options.allow_alerts:
        if name not in REACTIVE:
            raise MolgenError(f"--allow-alert {name}: no such group", f"groups: {', '.join(REACTIVE)}")
    wanted = options.preset == "people" if options.alerts is None else options.alerts
    return [name for name in REACTIVE if name not in options.allow_alerts] if wanted else []


def _create(
    path: Path,
    run: str | os.PathLike[str] | None,
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
    prior = find_run(None if run is None else os.fspath(run))
    if prior.path.exists() and prior.path.samefile(path):
        raise MolgenError(f"{path}: is the run to start from", "choose another --out")
    asked = _objective(options, scorer)
    config = _config(prior, asked, options, scorer)
    _ = _accepted(asked, config)  # raises an error for a filter that is not valid before anything is written
    tokenizer = _vocabulary(prior.tokenizer, asked)
    model = initial_model(prior.config, tokenizer, prior)
    with _judge(asked, scorer, runtime, options, config, known) as judge:
        _check_range(asked, Agent(model, tokenizer, config.learner, runtime), judge)
    created = create_run(path, prior.config, tokenizer, None, None)
    for name in (MOLECULES, PARENTS):
        if (prior.path / name).exists():
            shutil.copyfile(prior.path / name, path / name)
    write_atomically(path / OPTIMIZE, to_yaml(config).encode())
    created.save_model(model)
    agent = Agent(model.to(runtime.device), tokenizer, config.learner, runtime)
    save_state(path / STATE, agent.models, agent.optimizer, SearchState().position, _fingerprint(created, config))
    return config


def _config(prior: Run, asked: Objective, options: OptimizeOptions, scorer: Scorer | None) -> OptimizeConfig:
    return OptimizeConfig(
        prior=str(prior.path),
        prior_sha256=prior.weights_sha256,
        name=options.name,
        objective=asked.model_dump(exclude_defaults=True),
        scorer=None if scorer is None else _described(scorer),
        calls=options.calls or 10_000,
        preset=options.preset,
        learner=PRESETS[options.preset],
        alerts=_alerts(options),
        warheads=list(options.warheads),
        on_error=options.on_error,
        seed=options.seed,
    )


def _vocabulary(known: SmilesTokenizer, asked: Objective) -> SmilesTokenizer:
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


def _fingerprint(run: Run, config: OptimizeConfig) -> dict[str, str]:
    """What a saved state belongs to."""
    return {"optimize": json.dumps(config.model_dump()), "tokenizer": run.tokenizer.fingerprint}


def _saved_config(path: Path) -> OptimizeConfig:
    """The settings of a search. Raises MolgenError if there is none, or if it has finished, or if it was edited."""
    if not os.path.lexists(path / OPTIMIZE):
        raise MolgenError(f"{path}: no search to go on with (no {OPTIMIZE})", "name its directory with --out")
    if (path / REPORT).exists():
        raise MolgenError(f"{path}: has finished", f"molgen optimize {path} starts another search from its agent")
    try:
        text = content_of(path / OPTIMIZE, _MOST_BYTES).decode()
        config = OptimizeConfig.model_validate(parse_yaml(text, str(path / OPTIMIZE)))
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        raise MolgenError(f"{path / OPTIMIZE}: cannot be read: {_first(error)}", "restore the file") from None
    if saved_fingerprint(path / STATE) | _fingerprint(Run(path), config) != saved_fingerprint(path / STATE):
        raise MolgenError(f"{path / OPTIMIZE}: not the settings that the search began with", "restore the file")
    return config


def _first(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return f"{'.'.join(map(str, error.errors()[0]['loc']))}: {error.errors()[0]['msg']}"
    return str(error)


def _check_same(config: OptimizeConfig, options: OptimizeOptions, scorer: Scorer | None, path: Path) -> None:
    """Raises MolgenError unless a resumed search is the one that began: its scorer named again, no other settings."""
    default = OptimizeOptions()
    for key in ("calls", "preset", "seed", "on_error"):
        given = getattr(options, key)
        if given not in (getattr(default, key), getattr(config, key)):
            raise MolgenError(
                f"{key} {given} with --resume, but {path} began with {getattr(config, key)}", "leave it out"
            )
    changing = ("minimise", "maximise", "where", "smarts", "not_smarts", "blind_to_stereo")
    asked = options.objective is not None and scorer is None
    asked |= any(getattr(options, key) != getattr(default, key) for key in changing)
    if asked and _objective(options, scorer).model_dump(exclude_defaults=True) != config.objective:
        raise MolgenError(f"another objective with --resume than {path} began with", "leave it out")
    if config.scorer is None:
        if scorer is not None:
            raise MolgenError(f"{path}: began without a scorer of yours", "leave --command or the callable out")
        return
    option = "--command" if config.scorer.kind == "command" else "--objective"
    again = f"a run executes nothing by itself; if you trust it, name it again: {option} {config.scorer.text!r}"
    if scorer is None:
        raise MolgenError(f"{path}: its scores come from a {config.scorer.kind} of yours", again)
    if _described(scorer) != config.scorer:
        changed = "its file has changed" if scorer.text == config.scorer.text else f"now {scorer.text!r}"
        raise MolgenError(f"{path}: another scorer than the search began with: {changed}", again)


def _accepted(asked: Objective, config: OptimizeConfig) -> MoleculeFilter:
    """The hard filters. Raises MolgenError for one that is not valid."""
    return asked.filter._replace(reactive=tuple(config.alerts), warheads=tuple(config.warheads)).checked()


@contextmanager
def _judge(
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
        raise MolgenError("prepare.ph: dimorphite-dl is not installed", "pip install 'molgen-lm[prepare]'")
    names = {component.likelihood for component in asked.columns.values() if component.likelihood is not None}
    likelihoods = {name: _likelihoods(name, runtime) for name in names}
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


def _check_range(asked: Objective, agent: Agent, judge: Judge) -> None:
    """Tries a scorer without a transform on molecules of the prior. Raises MolgenError unless all are in [0, 1]."""
    open_ended = [c for c in asked.columns.values() if c.scorer and c.transform is None]
    if not open_ended:
        return
    smiles = _of_prior(agent, judge, _SPREAD)
    stage = Stage(components=[open_ended[0]])
    raw = [judged.raw[0] for judged in judge(smiles, stage)]
    values = sorted(value for value in raw if value == value)
    if not values:
        problem = next(judged.problem for judged in judge(smiles[:1], stage))
        raise MolgenError(f"the scorer gave no number for {len(smiles)} molecules: {problem}", "try it by hand")
    low, high = values[0], values[-1]
    if low < 0 or high > 1:
        line = f"{low:.4g}..{high:.4g}"
        raise MolgenError(
            f"the scorer's values are no scores in [0, 1]: {low:.4g} to {high:.4g}, median "
            f"{values[len(values) // 2]:.4g}, for {len(values)} molecules of the prior",
            f"name the range that matters: --maximise {line} if high is good, --minimise {line} if low is good",
        )


def _of_prior(agent: Agent, judge: Judge, n: int) -> list[str]:
    """Distinct molecules that the agent, before its first step, draws and the hard filters accept."""
    found: dict[str, None] = {}
    for seed in range(20):
        drawn = agent.draw([[agent.start(False)]] * (2 * n), seed)
        smiles = [one for one in judge.workers.map("canonical", [text or "" for text in drawn]) if one]
        found |= {one: None for one, cause in zip(smiles, judge.rejected(smiles), strict=True) if not cause}
        if len(found) >= n:
            break
    if not found:
        raise MolgenError("no molecule of the prior passes the hard filters", "loosen --where, --smarts or the alerts")
    return list(found)[:n]


def _search(
    run: Run,
    config: OptimizeConfig,
    options: OptimizeOptions,
    scorer: Scorer | None,
    runtime: Runtime,
    known: dict[str, float],
) -> None:
    """The search from its saved state to its end, then the report; `known` are values that the scorer has given."""
    asked = load_objective(config.objective)
    agent = _saved_agent(run, config, runtime)
    position = load_state(run.path / STATE, agent.models, agent.optimizer)
    try:
        state = TypeAdapter(SearchState).validate_python(position)
    except ValidationError as error:
        raise MolgenError(f"{run.path / STATE}: {_first(error)}", "the file is damaged; optimise again") from None
    ledger = Ledger(run.path / SCORED, list(asked.columns))
    fingerprint = _fingerprint(run, config)
    known |= _values_of_scorer(ledger, asked)
    with signals_held() as signals:

        def look() -> None:
            if signals.received:
                signals.leave(signals.received)

        with _judge(asked, scorer, runtime, options, config, known, look) as judge:
            search = Search(config, asked, agent, judge, ledger, runtime.workers)
            journal = Journal(search, runtime.workers, run.path / ROUNDS, run.path / CURVES, run.path.name)
            search.restore(state)
            journal.restore()
            _log_start(search, run, asked, judge)
            began = time.monotonic() - search.state.seconds
            saved = drawn = time.monotonic()

            def save() -> None:
                ledger.sync()
                journal.save()
                run.save_model(agent.model)
                save_state(run.path / STATE, agent.models, agent.optimizer, search.state.position, fingerprint)

            journal.open_bar()
            try:
                while not search.done:
                    report = search.round()
                    search.state.seconds = time.monotonic() - began
                    journal.add(report)
                    now = time.monotonic()
                    if signals.received or now - saved > _SECONDS_BETWEEN_STATES:
                        save()
                        saved = time.monotonic()
                    if now - drawn > _SECONDS_BETWEEN_CURVES:
                        journal.draw()
                        drawn = time.monotonic()
                    look()
            except ScorerFailedError as error:
                raise _scorer_failed(error, run) from None
            finally:
                journal.close_bar()
            save()
            journal.draw()
    _write_report(run, config, search, options, runtime)


def _scorer_failed(error: ScorerFailedError, run: Run) -> MolgenError:
    n = len(error.records)
    return MolgenError(
        f"the scorer failed for {n} molecule{'s' if n > 1 else ''}: {error}",
        f"mend it, then --resume --out {run.path} goes on; or --on-error skip leaves out what it cannot score",
    )


def _saved_agent(run: Run, config: OptimizeConfig, runtime: Runtime) -> Agent:
    """An agent of the right shape, to be filled from a state."""
    model = build_model(run.config.model, len(run.tokenizer)).to(runtime.device)
    return Agent(model, run.tokenizer, config.learner, runtime)


def _values_of_scorer(ledger: Ledger, asked: Objective) -> dict[str, float]:
    """What the user's scorer has given so far."""
    places = [i for i, component in enumerate(asked.columns.values()) if component.scorer]
    return {r.canonical: r.raw[i] for r in ledger.records for i in places if r.raw[i] == r.raw[i]}


def _log_start(search: Search, run: Run, asked: Objective, judge: Judge) -> None:
    config, agent = search.config, search.agent
    filters = sum(bool(value) for value in asked.filter)
    logger.info(
        f"{config.name}: {config.calls:,} calls; agent of {agent.model.num_parameters:,} weights from {config.prior}; "
        f"preset {config.preset}, {filters} filters, {len(config.alerts)} reactive groups rejected; into {run.path}"
    )
    if search.state.round:
        ahead = len(search.ledger.records) - search.state.calls
        logger.info(
            f"going on after {search.state.calls:,} calls" + (f", and {ahead} more in {SCORED}" if ahead else "")
        )
        return
    smiles = _of_prior(agent, judge, _DRY)
    costs = judge.costs(smiles)
    logger.info("cost per molecule: " + ", ".join(f"{name} {1000 * cost:.1f} ms" for name, cost in costs.items()))


def _write_report(run: Run, config: OptimizeConfig, search: Search, options: OptimizeOptions, runtime: Runtime) -> None:
    """Writes shortlist, card and report.json, and says what was found."""
    totals = [record.total for record in search.ledger.records]
    report = {
        "molgen": __version__,
        "source": run.config.data.source,
        **_about_the_data(config),
        "weights": search.agent.model.num_parameters,
        "tokens": len(run.tokenizer),
        "optimize": {
            "objective": config.name,
            "prior": config.prior,
            "prior_sha256": config.prior_sha256,
            "budget": config.calls,
            "calls": len(totals),
            "rounds": search.state.round,
            "seconds": round(search.state.seconds, 1),
            "failed": sum(total != total for total in totals),
            "best": top(totals, 1),
            "top10": top(totals, 10),
            "top100": top(totals, 100),
            "auc_top10": auc_top(totals, config.calls),
        },
        "hardware": hardware(runtime.device),
        "versions": {name: version(name) for name in ("torch", "rdkit", "numpy", "deepchem")},
    }
    _write_shortlist(run, search, options, report["optimize"], runtime)
    run.write_report(report, search_card(run.path.name, config, report))
    if search.state.idle:
        logger.warning(f"ended after {len(totals):,} calls: no new molecule in the last {search.state.idle} rounds")
    found = report["optimize"]
    logger.info(
        f"best {found['best']:.3f}, mean of the best 10 {found['top10']:.3f}, of the best 100 {found['top100']:.3f} "
        f"({len(totals):,} calls, {found['failed']} without a score, {duration(search.state.seconds)})"
    )


def _write_shortlist(
    run: Run,
    search: Search,
    options: OptimizeOptions,
    figures: dict[str, Any],
    runtime: Runtime,
) -> None:
    """shortlist.csv, shortlist.sdf and the page."""
    names, offered = read_catalog(options.catalog, runtime.workers) if options.catalog else ({}, [])
    trained_on = run.split("train") if (run.path / MOLECULES).exists() else []
    known = known_molecules([*search.objective.targets, *offered, *trained_on], runtime.workers)
    components = list(search.objective.columns)
    found = shortlist(search.ledger.records, components, options.picks, runtime.workers, known, options.hit, names)
    write_table(found, run.path / SHORTLIST)
    write_sdf(found, run.path / SHORTLIST_SDF)
    write_page(found, run.path.name, figures, options.hit, run.path / CURVES, run.path / SHORTLIST_PAGE)
    for note in found.notes:
        logger.info(note)


def _about_the_data(config: OptimizeConfig) -> dict[str, Any]:
    """What the prior's report says of its molecules, with which the agent's are compared."""
    try:
        prior = Run(config.prior)
        report = prior.report if prior.weights_sha256 == config.prior_sha256 else {}
    except MolgenError:  # it is no longer there
        report = {}
    return {key: report[key] for key in ("sizes", "sha256", "encoded_from") if key in report}


def dry_run(run: str | os.PathLike[str] | None, options: OptimizeOptions) -> list[str]:
    """Lines of text: ten molecules of the prior with their scores, and what a search would cost. Writes nothing.

    Raises MolgenError for unusable options.
    """
    scorer = _scorer(options)
    asked = _objective(options, scorer)
    prior, runtime = find_run(None if run is None else os.fspath(run)), Runtime(options.device)
    config = _config(prior, asked, options, scorer)
    tokenizer = _vocabulary(prior.tokenizer, asked)
    agent = Agent(initial_model(prior.config, tokenizer, prior), tokenizer, config.learner, runtime)
    stage = asked.all_stages[0]
    with _judge(asked, scorer, runtime, options, config, {}) as judge:
        smiles = _of_prior(agent, judge, _DRY)
        began = time.monotonic()
        found = list(judge(smiles, stage))
        seconds = (time.monotonic() - began) / len(smiles)
        costs = judge.costs(smiles)
    names = [name for name, component in asked.columns.items() if component in stage.components]
    lines = ["\t".join(["smiles", "total", *names, "problem"])]
    for one, judged in zip(smiles, found, strict=True):
        lines.append("\t".join([one, f"{judged.total:.4g}", *(f"{value:.4g}" for value in judged.raw), judged.problem]))
    logger.info("cost per molecule: " + ", ".join(f"{name} {1000 * cost:.1f} ms" for name, cost in costs.items()))
    logger.info(f"{config.calls:,} calls: about {duration(config.calls * seconds)} for the scores, beside the learning")
    if failed := [judged.problem for judged in found if judged.problem]:
        logger.warning(f"{len(failed)} of {len(found)} without a score: {failed[0]}")
    return lines
