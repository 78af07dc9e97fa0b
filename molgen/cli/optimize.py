"""`molgen optimize`: options, one library call, messages."""

import logging
import shlex
import sys
import time
from pathlib import Path
from typing import Annotated, Any, Literal, TextIO

import typer

from molgen.cli.keeping import CloseOption, KeepOption, OfOption, ReplaceOption, kept_text
from molgen.cli.options import (
    STDOUT,
    DeviceOption,
    Force,
    JsonTarget,
    Log,
    RunArgument,
    check_target,
    show_json,
    tracker,
)
from molgen.errors import MolgenError
from molgen.runtime.device import Device

logger = logging.getLogger(__name__)


def optimize(
    run: RunArgument = None,
    objective: Annotated[
        str | None,
        typer.Option(metavar="FILE.yaml|PRESET|FILE.py:FUNCTION", help="What is asked for.", show_default=False),
    ] = None,
    command: Annotated[
        str | None,
        typer.Option(metavar="CMD", help="A program that scores: SMILES in, one per line; a number out, one per line."),
    ] = None,
    scorer: Annotated[
        str | None,
        typer.Option(metavar="FILE.py:FUNCTION", help="The Python function of an objective with `scorer: true`."),
    ] = None,
    minimise: Annotated[
        str | None, typer.Option(metavar="A..B", help="The range of the scorer's values; low is good.")
    ] = None,
    maximise: Annotated[
        str | None, typer.Option(metavar="A..B", help="The range of the scorer's values; high is good.")
    ] = None,
    calls: Annotated[
        int | None, typer.Option("-n", "--number", metavar="CALLS", help="Molecules to score.", show_default="10000")
    ] = None,
    preset: Annotated[
        Literal["people", "benchmark"],
        typer.Option(help="people: near the prior, diverse, no reactive groups; benchmark: the highest score."),
    ] = "people",
    where: Annotated[
        str, typer.Option(metavar="CONDITION", help="Only molecules for which it is true, such as 'mw < 500'.")
    ] = "",
    smarts: Annotated[list[str] | None, typer.Option(help="A pattern that must match; may be repeated.")] = None,
    not_smarts: Annotated[
        list[str] | None, typer.Option(help="A pattern that must not match; may be repeated.")
    ] = None,
    keep: KeepOption = None,
    close: CloseOption = False,
    replace: ReplaceOption = None,
    of: OfOption = None,
    condition: Annotated[
        str, typer.Option(metavar="VALUES", help='Start from the prior given values, such as "logp = 2.5, pIC50 = 8".')
    ] = "",
    alerts: Annotated[
        bool | None,
        typer.Option("--alerts/--no-alerts", help="Reject reactive groups.", show_default="with --preset people"),
    ] = None,
    allow_alert: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A reactive group that is not rejected; may be repeated.")
    ] = None,
    warhead: Annotated[
        list[str] | None, typer.Option(metavar="SMARTS", help="Where a reactive group is wanted; may be repeated.")
    ] = None,
    blind_to_stereo: Annotated[
        bool, typer.Option("--blind-to-stereo", help="The scorer gives stereoisomers the same value: score one.")
    ] = False,
    jobs: Annotated[int, typer.Option(min=1, max=10_000, help="Calls of the scorer at once.")] = 1,
    scheduler: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="A Dask scheduler that runs the scorer: tcp://host:8786.")
    ] = None,
    timeout: Annotated[float, typer.Option(min=0.001, help="Seconds per molecule that a command may take.")] = 300.0,
    on_error: Annotated[
        Literal["stop", "skip"] | None,
        typer.Option(help="When the scorer fails: stop, or leave those molecules out.", show_default="stop"),
    ] = None,
    hit: Annotated[str | None, typer.Option(metavar="SMILES", help="Compare the shortlist with it.")] = None,
    catalog: Annotated[
        str | None, typer.Option(metavar="FILE", help="Molecules that can be bought; the shortlist names them.")
    ] = None,
    picks: Annotated[int, typer.Option(min=1, max=10_000, help="Molecules of the shortlist.")] = 20,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Score ten molecules, say what it would cost, stop.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="The run directory.", show_default="runs/<objective>-<time>")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Other seeds find other molecules.")] = 0,
    device: DeviceOption = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the search in --out.")] = False,
    log: Log = None,
    force: Force = False,
) -> None:
    """Search for molecules that score well by an objective of your own, from a run (default: the newest)."""
    from molgen.optimize.optimization import dry_run as try_out
    from molgen.optimize.optimization import optimize as search
    from molgen.optimize.options import OptimizeOptions
    from molgen.runs import SCORED, STATE
    from molgen.runtime.signals import TerminatedError

    if resume and out is None:
        raise MolgenError("--resume: which search?", "name its directory with --out")
    options = OptimizeOptions(
        objective=objective,
        command=command,
        scorer=scorer,
        minimise=minimise,
        maximise=maximise,
        blind_to_stereo=blind_to_stereo,
        where=where,
        smarts=tuple(smarts or ()),
        not_smarts=tuple(not_smarts or ()),
        keep=kept_text(keep, close, replace, of),
        condition=condition,
        calls=calls,
        preset=preset,
        alerts=alerts,
        allow_alerts=tuple(allow_alert or ()),
        warheads=tuple(warhead or ()),
        jobs=jobs,
        scheduler=scheduler,
        timeout=timeout,
        on_error=on_error,
        hit=hit,
        catalog=catalog,
        picks=picks,
        seed=seed,
        device=device,
    )
    if dry_run:
        for line in try_out(run, options):
            print(line)
        return
    out = out or Path("runs") / f"{options.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    try:
        on_row = tracker(log, out, "calls", resume)
        search(run, out=out, resume=resume, force=force, options=options, on_row=on_row)
    except (KeyboardInterrupt, TerminatedError):
        if (out / STATE).exists():
            named = (("--command", command), ("--scorer", scorer), ("--objective", objective))
            again = "".join(f" {option} {shlex.quote(value)}" for option, value in named if value)
            logger.info(f"stopped; `molgen optimize --resume --out {out}{again}` goes on from there")
        raise
    logger.info(f"done: {out}; every scored molecule in {out / SCORED}. Next: molgen sample {out} -n 100")


def benchmark(
    suite: Annotated[
        Literal["pmo", "fragments"],
        typer.Argument(help="pmo: 23 tasks of optimisation. fragments: SAFE's four tasks on ten drugs."),
    ],
    run: RunArgument = None,
    task: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A task; may be repeated; default: all.")
    ] = None,
    seed: Annotated[list[int] | None, typer.Option(help="May be repeated.", show_default="0")] = None,
    calls: Annotated[
        int | None,
        typer.Option(
            "-n",
            "--number",
            metavar="CALLS",
            min=2,
            help="Molecules to score per task, or to draw per drug.",
            show_default="10000, or 100",
        ),
    ] = None,
    preset: Annotated[
        Literal["people", "benchmark"] | None, typer.Option(help="Of pmo: as in `optimize`.", show_default="benchmark")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Of pmo: the folder of the tasks' runs.", show_default="runs/pmo-<run>")
    ] = None,
    json: JsonTarget = None,
    device: DeviceOption = "auto",
    force: Force = False,
) -> None:
    """Run a benchmark's tasks from a run. The table stands beside published rows."""
    check_target(json, force)
    tables = sys.stderr if json == STDOUT else sys.stdout
    if suite == "fragments":
        if preset is not None or out is not None:
            raise MolgenError("--preset, --out: of pmo only", "leave them out")
        values = _fragments(run, task or [], seed or [0], calls or 100, device, tables)
    else:
        values = _pmo(run, task or [], seed or [0], out, calls or 10_000, preset or "benchmark", device, tables)
    if json is not None:
        show_json(values, json)


def _fragments(
    run: str | None, tasks: list[str], seeds: list[int], n: int, device: Device, tables: TextIO
) -> dict[str, Any]:
    """Prints the table as far as it came; returns the results."""
    from molgen.evaluation.fragments import run_tasks, table, to_json
    from molgen.generation.generator import MoleculeGenerator

    generator = MoleculeGenerator.load(run, device)
    path = generator.run.path if generator.run else Path("run")
    results = []
    try:
        for result in run_tasks(generator, tasks, seeds, n):
            results.append(result)
    finally:
        if results:
            print(table(results, path.name), file=tables, flush=True)
    return to_json(results, {"run": str(path), "n": n})


def _pmo(
    run: str | None,
    tasks: list[str],
    seeds: list[int],
    out: Path | None,
    calls: int,
    preset: Literal["people", "benchmark"],
    device: Device,
    tables: TextIO,
) -> dict[str, Any]:
    """Prints the table as far as it came; returns the results. A benchmark that was stopped goes on."""
    from molgen.optimize.benchmarks import check_tasks, run_suite, table, to_json
    from molgen.optimize.options import OptimizeOptions
    from molgen.runs import find_run

    chosen, prior = check_tasks(tasks), find_run(run)
    folder = out or Path("runs") / f"pmo-{prior.path.name}"
    results = []
    try:
        options = OptimizeOptions(calls=calls, preset=preset, device=device)
        for result in run_suite(prior, chosen, seeds, folder, options):
            results.append(result)
    finally:
        if results:
            print(table(results), file=tables, flush=True)
    return to_json(results, {"prior": str(prior.path), "calls": calls, "preset": preset})
