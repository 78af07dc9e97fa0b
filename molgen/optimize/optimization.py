"""The work of `molgen optimize`: set-up, search, report; and the scores of an objective by hand."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from logging import getLogger
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from molgen._version import __version__
from molgen.checkpoint import load_state, save_state, saved_fingerprint
from molgen.chem.draw import require_drawing
from molgen.chem.pool import shared_workers
from molgen.config import first_problem
from molgen.errors import MolgenError
from molgen.machine import Runtime
from molgen.model.build import build_model
from molgen.optimize.agent import Agent
from molgen.optimize.auc import auc_top
from molgen.optimize.card import search_card
from molgen.optimize.components import Objective, load_objective
from molgen.optimize.external import Scorer
from molgen.optimize.judge import Judge
from molgen.optimize.ledger import Ledger
from molgen.optimize.memory import top
from molgen.optimize.options import Named, OptimizeOptions
from molgen.optimize.page import write_page
from molgen.optimize.progress import Journal
from molgen.optimize.request import check_shortlist, objective_of, scorer_of
from molgen.optimize.search import ScorerFailedError, Search, SearchState
from molgen.optimize.settings import OptimizeConfig
from molgen.optimize.setup import (
    check_raw,
    check_same,
    config_of,
    create_search,
    extended_vocabulary,
    given_config,
    judging,
    molecules_of_prior,
    predicts_value,
    saved_config,
    starting_model,
)
from molgen.optimize.shortlist import known_molecules, read_catalog, shortlist, write_sdf, write_table
from molgen.runs import (
    CURVES,
    FOLDER,
    MOLECULES,
    ROUNDS,
    SCORED,
    SHORTLIST,
    SHORTLIST_PAGE,
    SHORTLIST_SDF,
    STATE,
    Run,
    at_work,
    find_run,
)
from molgen.runtime.device import hardware
from molgen.runtime.log import duration
from molgen.runtime.signals import signals_held
from molgen.runtime.tensorboard import OnRow
from molgen.runtime.versions import versions

logger = getLogger(__name__)

_SECONDS_BETWEEN_STATES = 60.0
_DRY = 10


def optimize(
    run: str | os.PathLike[str] | None = None,
    objective: Named | None = None,
    *,
    out: str | os.PathLike[str] | None = None,
    resume: bool = False,
    force: bool = False,
    options: OptimizeOptions | None = None,
    on_row: OnRow | None = None,
    **settings: Any,
) -> Run:
    """Searches for molecules that score well, from a run (by default the newest), into the run directory `out`.

    `settings` are the fields of OptimizeOptions, such as `calls` or `minimise`. With `resume` it goes on with the
    search in `out`; a command or callable has to be named again. `on_row` is called after each round with the new row
    of rounds.csv. The result is a run: its weights are the agent's.
    Raises MolgenError for unusable options, and if the user's scorer fails and `on_error` is "stop".
    """
    options = replace(options or OptimizeOptions(), **settings)
    if objective is not None:
        options = replace(options, objective=objective)
    scorer = scorer_of(options)
    check_shortlist(options)
    require_drawing()  # the shortlist's page has pictures, and it is written last
    path = Path(out) if out is not None else FOLDER / f"{options.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    prior = None if resume else find_run(None if run is None else os.fspath(run))  # before the new run takes its name
    with at_work(path):
        runtime = Runtime(options.device)
        known: dict[str, float] = {}
        if prior is None:
            config = saved_config(path)
            check_same(config, options, scorer, path)
            config = config.model_copy(update={"on_error": options.on_error or config.on_error})
        else:
            config = create_search(path, prior, options, scorer, runtime, force, known)
        _search(Run(path), config, options, scorer, runtime, known, on_row)
    return Run(path)


def objective(name: Named | None = None, **settings: Any) -> Callable[[Sequence[str]], list[float]]:
    """A function of a list of SMILES that gives the score of each, 0 for an invalid one; NaN where a scorer failed.

    The arguments are those of `optimize`, such as `command` and `minimise`. Of an objective with stages the first
    counts. Raises MolgenError for one that is not valid.
    """
    options = OptimizeOptions(objective=name, **settings)
    scorer = scorer_of(options)
    asked = objective_of(options, scorer)
    for label, component in asked.columns.items():
        if predicts_value(component):
            raise MolgenError(f"{label}: a raw number needs a transform", "such as transform: {rising: [5, 9]}")
    workers = shared_workers()

    def scores(smiles: Sequence[str]) -> list[float]:
        canonical = workers.map("canonical", list(smiles))
        valid = [one for one in dict.fromkeys(canonical) if one is not None]
        with judging(asked, scorer, Runtime("cpu", workers=workers), options, None, {}) as judge:
            rejected = dict(zip(valid, judge.rejected(valid), strict=True))
            passed = [one for one in valid if not rejected[one]]
            found = {one: judged.total for one, judged in zip(passed, judge(passed, asked.all_stages[0]), strict=True)}
        return [found.get(one, 0.0) if one else 0.0 for one in canonical]

    return scores


def _search(
    run: Run,
    config: OptimizeConfig,
    options: OptimizeOptions,
    scorer: Scorer | None,
    runtime: Runtime,
    known: dict[str, float],
    on_row: OnRow | None,
) -> None:
    """The search from its saved state to its end, then the report; `known` are values that the scorer has given."""
    asked = load_objective(config.objective)
    agent = _saved_agent(run, config, runtime)
    position = load_state(run.path / STATE, agent.models, agent.optimizer)
    try:
        state = TypeAdapter(SearchState).validate_python(position)
    except ValidationError as error:
        raise MolgenError(
            f"{run.path / STATE}: {first_problem(error)}", "the file is damaged; optimise again"
        ) from None
    ledger = Ledger(run.path / SCORED, list(asked.columns))
    fingerprint = saved_fingerprint(run.path / STATE)
    fingerprint.pop("position")
    known |= _values_of_scorer(ledger, asked)
    with signals_held() as signals:

        def look() -> None:
            if signals.received:
                signals.leave(signals.received)

        with judging(asked, scorer, runtime, options, config, known, look) as judge:
            search = Search(config, asked, agent, judge, ledger, runtime.workers)
            journal = Journal(search, runtime.workers, run.path / ROUNDS, run.path / CURVES, run.path.name, on_row)
            search.restore(state)
            journal.restore()
            _log_start(search, run, asked, judge)
            began = time.monotonic() - search.state.seconds
            saved = time.monotonic()

            def save() -> None:
                ledger.sync()
                journal.save()
                journal.draw()
                run.save_model(agent.model)
                save_state(run.path / STATE, agent.models, agent.optimizer, search.state.position, fingerprint)

            journal.open_bar()
            try:
                while not search.done:
                    report = search.round()
                    search.state.seconds = time.monotonic() - began
                    journal.add(report)
                    if signals.received or time.monotonic() - saved > _SECONDS_BETWEEN_STATES:
                        save()
                        saved = time.monotonic()
                    look()
            except ScorerFailedError as error:
                raise _scorer_failed(error, run) from None
            finally:
                journal.close_bar()
            search.settle()
            save()
    _write_report(run, config, search, options, runtime)


def _scorer_failed(error: ScorerFailedError, run: Run) -> MolgenError:
    n = len(error.records)
    return MolgenError(
        f"the scorer failed for {n} molecule{'s' if n > 1 else ''}: {error}",
        f"mend it, then --resume --out {run.path} goes on; or --on-error skip leaves out what it cannot score",
    )


def _saved_agent(run: Run, config: OptimizeConfig, runtime: Runtime) -> Agent:
    """An agent of the right shape, to be filled from a state."""
    if run.config.data.given:  # what it is given depends on weights that the agent does not change
        model = run.model(runtime.device)
    else:
        outputs, conditions = len(run.targets), len(run.conditions)
        model = build_model(run.config.model, len(run.tokenizer), outputs=outputs, conditions=conditions)
        model = model.to(runtime.device)
    return Agent(model, run.tokenizer, config.learner, runtime, config.keep)


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
    _say_costs(judge.costs(molecules_of_prior(agent, judge, _DRY)))


def _say_costs(costs: Mapping[str, float]) -> None:
    if costs:  # none of an objective that is a scorer of the user alone
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
        "versions": versions(),
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
    scorer = scorer_of(options)
    asked = objective_of(options, scorer, raw=True)
    prior, runtime = find_run(None if run is None else os.fspath(run)), Runtime(options.device)
    config = config_of(prior, asked, options, scorer)
    tokenizer = extended_vocabulary(prior.tokenizer, asked)
    given = given_config(prior, options.condition)
    model = starting_model(prior, tokenizer, given, runtime)
    agent = Agent(model, tokenizer, config.learner, runtime, config.keep)
    stage = asked.all_stages[0]
    with judging(asked, scorer, runtime, options, config, {}) as judge:
        check_raw(asked, agent, judge)
        smiles = molecules_of_prior(agent, judge, _DRY)
        began = time.monotonic()
        found = list(judge(smiles, stage))
        seconds = (time.monotonic() - began) / len(smiles)
        costs = judge.costs(smiles)
    names = [name for name, component in asked.columns.items() if component in stage.components]
    lines = ["\t".join(["smiles", "total", *names, "problem"])]
    for one, judged in zip(smiles, found, strict=True):
        lines.append("\t".join([one, f"{judged.total:.4g}", *(f"{value:.4g}" for value in judged.raw), judged.problem]))
    _say_costs(costs)
    logger.info(f"{config.calls:,} calls: about {duration(config.calls * seconds)} for the scores, beside the learning")
    if failed := [judged.problem for judged in found if judged.problem]:
        logger.warning(f"{len(failed)} of {len(found)} without a score: {failed[0]}")
    return lines
