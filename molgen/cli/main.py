"""The command line: parse, one library call, print. Results go to stdout, everything else to stderr.

Nothing heavy is imported at the top: `molgen --help` answers without torch, rdkit or deepchem.
"""

import atexit
import codecs
import io
import logging
import os
import shlex
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, cast, get_args

import typer

from molgen._version import __version__
from molgen.cli.data import data_app
from molgen.cli.doctor import doctor
from molgen.cli.export import export
from molgen.cli.keeping import CloseOption, KeepOption, OfOption, ReplaceOption, kept_text
from molgen.cli.optimize import benchmark, optimize
from molgen.cli.options import (
    DATA_HELP,
    STDOUT,
    Column,
    Conditions,
    DeviceOption,
    Force,
    JsonTarget,
    Log,
    Recipe,
    RunArgument,
    Settings,
    Targets,
    Where,
    check_apart,
    check_target,
    check_unchanged,
    configuration,
    show_json,
    tracker,
)
from molgen.cli.predict import predict
from molgen.errors import MolgenError
from molgen.evaluation.options import EvalOptions, Split
from molgen.metrics import MetricName
from molgen.runtime.device import Device, check_memory
from molgen.runtime.distributed import check_environment
from molgen.runtime.log import log_to_stderr, print_error, set_verbosity
from molgen.runtime.signals import TerminatedError, terminate

logger = logging.getLogger(__name__)

app = typer.Typer(
    help="Learn molecules as a language: train on SMILES, sample new ones, say honestly how good they are.",
    epilog="First steps: molgen train moses-mini; molgen sample -n 2000; molgen eval",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.add_typer(data_app, name="data")


def _version(asked: bool) -> None:
    if asked:
        print(f"molgen {__version__}")
        raise typer.Exit


@app.callback()
def common(
    _version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("-v", "--verbose", envvar="MOLGEN_VERBOSE", help="Show details and tracebacks too.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("-q", "--quiet", envvar="MOLGEN_QUIET", help="Show warnings and errors only, no bars.")
    ] = False,
) -> None:
    """Learn molecules as a language: train on SMILES, sample new ones, say honestly how good they are."""
    if verbose and quiet:
        raise typer.BadParameter("--verbose and --quiet (or MOLGEN_VERBOSE and MOLGEN_QUIET) exclude each other.")
    set_verbosity(verbose, quiet)


@app.command()
def train(
    data: Annotated[
        str | None, typer.Argument(help=f"{DATA_HELP} Or a .molgen file of `data encode`.", show_default=False)
    ] = None,
    config: Recipe = None,
    settings: Settings = None,
    init: Annotated[str | None, typer.Option(metavar="RUN", help="Fine-tune: start from this run's weights.")] = None,
    out: Annotated[Path | None, typer.Option(help="The run directory.", show_default="runs/<recipe>-<time>")] = None,
    seed: Annotated[int | None, typer.Option(help="Initial weights, order, dropout, random SMILES.")] = None,
    device: Annotated[
        Device | None, typer.Option(envvar="MOLGEN_DEVICE", help="Where to train.", show_default="auto")
    ] = None,
    smiles_column: Column = None,
    where: Where = None,
    target: Targets = None,
    condition: Conditions = None,
    predictor: Annotated[
        str | None, typer.Option(help="What `predict` takes; auto: the best on validation.", show_default="auto")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with --out, else with the newest unfinished run.")
    ] = False,
    log: Log = None,
    force: Force = False,
) -> None:
    """Train on a dataset or a file (default: Tox21) into a run directory."""
    if resume and device == os.environ.get("MOLGEN_DEVICE"):
        device = None  # the run has one
    options = {"seed": seed, "device": device, "init": init}
    training: dict[str, Any] = {f"training.{name}": value for name, value in options.items()}
    training |= {
        "data.targets": target or None,
        "data.conditions": condition or None,
        "prediction.predictor": predictor,
    }
    recipe, resolved = configuration(data, config, settings, smiles_column, where, training)
    from molgen import runs
    from molgen.training.train import train as run_training

    if resume:
        out = out or runs.newest_unfinished()
        training.pop("training.init")  # the library says what is wrong with it
        named = {"data.source": data, "data.smiles_column": smiles_column, "data.where": where, **training}
        check_unchanged(out, config, settings, named)
    elif out is None:
        name = Path(recipe or resolved.data.source).name.split(".")[0]
        name = "stdin" if name in ("", "-") else name
        out = runs.FOLDER / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    if not resume:
        check_apart({f"{name} of": out / name for name in runs.FILES}, [data, config])
    try:
        run_training(resolved, out, resume=resume, force=force, on_row=tracker(log, out, "step", resume))
    except (KeyboardInterrupt, TerminatedError):
        if (out / runs.STATE).exists():
            logger.info(f"stopped; `molgen train --resume --out {out}` goes on from there")
        raise
    logger.info(f"done: {out}; curves in {out / runs.CURVES}. Next: molgen sample -n 2000; molgen eval")


@app.command()
def sample(
    run: RunArgument = None,
    n: Annotated[int, typer.Option("-n", "--number", help="Molecules to write.")] = 100,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="A .smi, .csv or .sdf file instead of stdout.")
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(help="Of a table: a comma-separated list, or all (see the guide).", show_default="the cheap ones"),
    ] = None,
    temperature: Annotated[
        float, typer.Option(help="Below 1: safer and more alike; 0: always the most probable token.")
    ] = 1.0,
    top_k: Annotated[int | None, typer.Option(help="Only the k most probable tokens.")] = None,
    top_p: Annotated[
        float | None, typer.Option(help="Nucleus sampling: only the tokens that hold this probability.")
    ] = None,
    prompt: Annotated[
        str, typer.Option(help="Start of the SMILES, such as 'c1ccc2[nH]': a prefix of tokens, not a substructure.")
    ] = "",
    keep: KeepOption = None,
    close: CloseOption = False,
    replace: ReplaceOption = None,
    of: OfOption = None,
    condition: Annotated[
        str, typer.Option(metavar="VALUES", help='What they should have, such as "logp = 2.5, pIC50 = 8".')
    ] = "",
    guidance: Annotated[
        float, typer.Option(help="Above 1: closer to --condition and less diverse, in twice the time.")
    ] = 1.0,
    seed: Annotated[int, typer.Option(help="Other seeds give other molecules.")] = 0,
    valid: Annotated[bool, typer.Option("--valid", help="Draw until n are valid.")] = False,
    unique: Annotated[bool, typer.Option("--unique", help="Draw until n are distinct.")] = False,
    novel: Annotated[bool, typer.Option("--novel", help="Draw until n are valid and not in the training set.")] = False,
    where: Annotated[
        str, typer.Option(metavar="CONDITION", help='Draw until n fulfil it, such as "mw < 500 and qed > 0.5".')
    ] = "",
    smarts: Annotated[
        list[str] | None, typer.Option(help="Draw until n have this substructure; may be repeated.")
    ] = None,
    not_smarts: Annotated[
        list[str] | None, typer.Option(help="Draw until n lack this substructure; may be repeated.")
    ] = None,
    no_alerts: Annotated[
        bool, typer.Option("--no-alerts", help="Draw until n have no PAINS, Brenk or NIH alert.")
    ] = False,
    diverse: Annotated[
        int | None, typer.Option(metavar="K", help="Of the n molecules write K that differ most (MaxMin).")
    ] = None,
    grid: Annotated[Path | None, typer.Option(help="Draw the first 30 valid ones into a .png or .svg file.")] = None,
    device: DeviceOption = "auto",
    batch_size: Annotated[
        int | None, typer.Option(help="Most molecules drawn at a time.", show_default="2048; 8192 on a GPU")
    ] = None,
    force: Force = False,
) -> None:
    """Sample molecules: one SMILES per line on stdout, an invalid one as it is, an unfinished one as an empty line."""
    for path in (output, grid):
        check_target(path, force)
    check_apart({"-o": output, "--grid": grid}, [])
    from molgen.machine import open_runtime

    with open_runtime(device) as runtime:  # its workers start while the rest is imported
        from molgen.chem.filters import MoleculeFilter
        from molgen.generation.decode import SamplingParams
        from molgen.generation.generator import MoleculeGenerator
        from molgen.generation.options import SampleOptions
        from molgen.generation.rejection import RejectionRules
        from molgen.generation.writers import SampleTargets, sample_into
        from molgen.runs import find_run

        targets = SampleTargets(output, grid, columns, diverse)
        check_target(targets.meta, force)
        kept = kept_text(keep, close, replace, of)
        found = find_run(run).path
        check_apart({"-o": output, "--grid": grid, "the account beside it": targets.meta}, [found])
        generator = MoleculeGenerator.load(runtime.group.broadcast_str(str(found)), runtime=runtime)
        if runtime.group.is_main and generator.run is not None:
            generator.run.check_molecules()
        wanted = MoleculeFilter(where, tuple(smarts or ()), tuple(not_smarts or ()), no_alerts)
        params, rules = SamplingParams(temperature, top_k, top_p), RejectionRules(valid, unique, novel, wanted)
        options = SampleOptions(n, params, rules, prompt, seed, batch_size, kept, condition, guidance)
        sample_into(generator, options, targets, _command())


def _metric_name(text: str) -> str:
    """Checks the name of a metric, which typer does not do in a list of literals."""
    if text not in get_args(MetricName):
        raise typer.BadParameter(f"{text!r} is not one of {', '.join(map(repr, get_args(MetricName)))}.")
    return text


@app.command(name="eval")
def evaluate(
    targets: Annotated[
        list[str] | None,
        typer.Argument(help="Runs, files of samples, or - for stdin; left out, the newest run.", show_default=False),
    ] = None,
    n: Annotated[int, typer.Option("-n", "--number", help="Samples to draw from a run.")] = 10_000,
    split: Annotated[Split, typer.Option(help="The held-out molecules that NLL and top-1 are of.")] = "test",
    reference: Annotated[str | None, typer.Option(help="A dataset or file to compare with.")] = None,
    train: Annotated[str | None, typer.Option(help="The dataset or file that novelty is against.")] = None,
    metrics: Annotated[
        list[str] | None,
        typer.Option(
            parser=_metric_name,
            metavar=f"<list[{'|'.join(get_args(MetricName))}]>",
            help="What to compute besides the basic figures; may be repeated.",
        ),
    ] = None,
    smiles_column: Column = None,
    json: JsonTarget = None,
    report: Annotated[
        Path | None, typer.Option(help="Also write a page with pictures, FILE.html; adds the chem metrics.")
    ] = None,
    seed: Annotated[int, typer.Option(help="For the samples of a run.")] = 0,
    device: DeviceOption = "auto",
    force: Force = False,
) -> None:
    """Evaluate runs, or files whose lines are samples: NLL, top-1, validity, uniqueness, novelty, benchmarks."""
    check_target(json, force)
    check_target(report, force)
    check_apart({"--json": json, "--report": report}, [*(targets or []), reference, train])
    chosen = cast(list[MetricName], [*(metrics or ["basic"]), *(["chem"] if report else [])])
    options = EvalOptions(chosen, train, reference, n=n, split=split, seed=seed, smiles_column=smiles_column)
    from molgen.chem.pool import shared_workers
    from molgen.machine import Runtime

    runtime = Runtime(device, workers=shared_workers())  # they start while the rest is imported
    from molgen.chem.draw import require_drawing
    from molgen.evaluation.evaluate import evaluate_targets
    from molgen.evaluation.text_table import table
    from molgen.generation.generator import BYTES_PER_SAMPLE
    from molgen.runs import find_run, run_directory

    if report is not None:
        require_drawing()
    named: list[str | None] = list(targets) if targets else [None]
    runs = [find_run(target) for target in named if target is None or run_directory(target)]
    check_apart({"--json": json, "--report": report}, [run.path for run in runs])
    for run in runs if report else []:
        run.check_log()  # which the page shows, once all else has been computed

    check_memory(f"-n {n:,}", BYTES_PER_SAMPLE * n)
    evaluations = evaluate_targets(named, options, runtime)
    try:  # what takes longest to get again first; what cannot be written is shown all the same
        if json is not None:
            values = [evaluation.to_json() for evaluation in evaluations]
            show_json(values[0] if len(values) == 1 else values, json)
        if report is not None:
            from molgen.evaluation.report import write_report

            write_report(evaluations, report)
    finally:
        print(table(evaluations), file=sys.stderr if json == STDOUT else sys.stdout, flush=True)


app.command(name="evaluate", hidden=True)(evaluate)


@app.command()
def score(
    file: Annotated[str, typer.Argument(help="A file of molecules, or - for stdin.")],
    run: RunArgument = None,
    as_written: Annotated[
        bool, typer.Option("--as-written", help="Score the strings as they are given, not standardised.")
    ] = False,
    strings: Annotated[
        int | None,
        typer.Option(metavar="K", help="Also sum over K distinct strings per molecule: a lower bound for it."),
    ] = None,
    smiles_column: Column = None,
    device: DeviceOption = "auto",
) -> None:
    """Score molecules: a CSV of log-likelihoods (nats) on stdout, one line for each of the file's molecules."""
    import csv

    from molgen.chem.pool import shared_workers
    from molgen.machine import Runtime

    runtime = Runtime(device, workers=shared_workers())  # they start while the rest is imported
    from molgen.data.readers import read_molecules
    from molgen.generation.generator import MoleculeGenerator
    from molgen.generation.score import Score, columns_of, score_rows

    generator = MoleculeGenerator.load(run, runtime=runtime)
    rows = score_rows(read_molecules(file, smiles_column), generator, as_written, strings)
    columns = columns_of(strings)
    table = csv.writer(sys.stdout, lineterminator="\n")
    table.writerow(Score._fields[:columns])
    for row in rows:
        table.writerow(f"{cell:.4f}" if isinstance(cell, float) else cell for cell in row[:columns])
    if missing := [row.note for row in rows if row.log_likelihood is None]:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in Counter(missing).most_common())
        logger.info(f"{len(missing)} of {len(rows)} not scored: {reasons}")


def _command() -> str:
    return shlex.join(["molgen", *sys.argv[1:]])


app.command()(predict)
app.command()(optimize)
app.command()(benchmark)
app.command()(export)
app.command()(doctor)


def main(arguments: Iterable[str] | None = None) -> None:
    """Runs a command and exits: 0 done, 2 wrong input, 1 a fault, 130 / 143 interrupted / terminated."""
    signal.signal(signal.SIGTERM, terminate)
    with log_to_stderr():
        code = _exit_code(list(arguments) if arguments is not None else sys.argv[1:])
    if code == 0 and "TORCHELASTIC_RUN_ID" in os.environ:  # torchrun started it
        _leave()
    sys.exit(code)


def _exit_code(given: Sequence[str]) -> int | str | None:
    try:
        replaced = _shown_by_any_terminal()
        if not {"--help", "--version"} & set(given):
            check_environment()
        code = app(given, standalone_mode=False) or 0
    except typer.Exit as leaving:
        code = leaving.exit_code
    except SystemExit as leaving:  # typer's own way out when `| head` has read enough: that is no fault
        code = 0 if isinstance(leaving.__context__, BrokenPipeError) else leaving.code
    except MolgenError as error:
        logger.debug("the place of the error", exc_info=True)
        print_error(str(error))
        code = 2
    except typer.Abort:
        code = 130
    except (KeyboardInterrupt, TerminatedError) as signalled:
        code = 130 if isinstance(signalled, KeyboardInterrupt) else 143
    except MemoryError as fault:
        print_error(
            f"out of memory: {fault or 'Python'} (fewer molecules, a smaller --batch-size, or a larger machine)"
        )
        code = 1
    except (OSError, RuntimeError, ArithmeticError) as fault:
        logger.debug("the place of the fault", exc_info=True)
        print_error(" ".join(str(fault).split()))
        code = 1
    except Exception as error:
        show = getattr(error, "show", None)  # a usage error of the command line itself
        if show is None:
            raise
        show()
        code = 2
    if code == 0:
        _close_stdout()
        if replaced:
            logger.info(
                f"{len(replaced):,} characters that {sys.stdout.encoding} has not are shown as \\x, \\u or \\U and a "
                "number: PYTHONIOENCODING=utf-8 writes them as they are"
            )
    return code


def _leave() -> None:
    """Ends one of several processes, which is done, without the interpreter's own end.

    In that end a process was once seen to abort ("terminate called without an active exception"), and torchrun then
    stops the others: perhaps by a thread of gloo that still asks for the interpreter.
    """
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _shown_by_any_terminal() -> list[str]:
    """Lets stdout show as escapes what its encoding has not, as stderr does; returns the list that collects them."""
    replaced: list[str] = []

    def shown(error: UnicodeError) -> tuple[str | bytes, int]:
        assert isinstance(error, UnicodeEncodeError)
        replaced.extend(error.object[error.start : error.end])
        return codecs.backslashreplace_errors(error)

    codecs.register_error("molgen", shown)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="molgen")
    return replaced


def _close_stdout() -> None:
    """What is left in a pipe that no one reads must not be complained about when the interpreter ends."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
