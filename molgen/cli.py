"""The command line: parse, one library call, print. Results go to stdout, everything else to stderr.

Nothing heavy is imported at the top: `molgen --help` answers without torch, rdkit or deepchem.
"""

import os
import signal
import sys
import time
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from molgen.errors import MolgenError
from molgen.processes import complain, processes, say

if TYPE_CHECKING:
    from molgen.evaluation import Evaluation

app = typer.Typer(
    help="Learn molecules as a language: train on SMILES, sample new ones, say honestly how good they are.",
    epilog="First steps: molgen train moses-mini; molgen sample -n 2000; molgen eval",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Named datasets: list them, fetch one.", no_args_is_help=True)
app.add_typer(data_app, name="data")


class Device(StrEnum):
    auto, cpu, cuda, mps = "auto", "cpu", "cuda", "mps"


class Split(StrEnum):
    test, validation = "test", "validation"


class Metric(StrEnum):
    basic, chem, moses, guacamol = "basic", "chem", "moses", "guacamol"


Force = Annotated[bool, typer.Option("--force", help="Overwrite what exists.")]
DeviceOption = Annotated[Device, typer.Option(help="Where to compute.")]
Column = Annotated[str | None, typer.Option("--smiles-column", help="The column that holds the SMILES.")]
RunArgument = Annotated[
    str | None, typer.Argument(help="A run directory; left out, the newest under runs/.", show_default=False)
]


@app.command()
def train(
    data: Annotated[
        str | None,
        typer.Argument(
            help="tox21, moses, moses-mini, a .csv .tsv .smi .txt .sdf (also .gz) or .parquet file, or - for stdin.",
            show_default=False,
        ),
    ] = None,
    config: Annotated[
        str | None, typer.Option(help="A recipe's name or a YAML file.", show_default="the dataset's recipe")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Change one setting.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The run directory.", show_default="runs/<recipe>-<time>")] = None,
    seed: Annotated[int | None, typer.Option(help="Initial weights, order, dropout, random SMILES.")] = None,
    device: Annotated[Device | None, typer.Option(help="Where to train.", show_default="auto")] = None,
    smiles_column: Column = None,
    where: Annotated[
        str | None,
        typer.Option(
            metavar="CONDITION",
            help="Only rows on which it holds, such as 'pIC50 > 7'.",
            show_default="all rows",
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with --out, else with the newest unfinished run.")
    ] = False,
    force: Force = False,
) -> None:
    """Train on a dataset or a file (default: Tox21) into a run directory."""
    from molgen.config import load_config, recipes

    recipe = config or (data if data in recipes() else "tox21" if data is None else None)
    options = {
        "data.source": data,
        "data.smiles_column": smiles_column,
        "data.where": where,
        "training.seed": seed,
        "training.device": device.value if device else None,
    }
    resolved = load_config(recipe, settings or [], options)
    from molgen import runs
    from molgen.training import train as run_training

    if out is None and resume:
        out = runs.newest_unfinished()
    elif out is None:
        name = Path(recipe or resolved.data.source).name.split(".")[0] or "stdin"
        out = runs.FOLDER / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    try:
        run_training(resolved, out, resume=resume, force=force)
    except (KeyboardInterrupt, _TerminatedError):
        if (out / runs.STATE).exists():
            say(f"stopped; `molgen train --resume --out {out}` goes on after the last whole epoch")
        raise
    say(f"done: {out}; curves in {out / runs.CURVES}. Next: molgen sample -n 2000; molgen eval")


@app.command()
def sample(
    run: RunArgument = None,
    n: Annotated[int, typer.Option("-n", "--number", help="Molecules to write.")] = 100,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="A .smi or .csv file instead of stdout.")
    ] = None,
    temperature: Annotated[
        float, typer.Option(help="Below 1: safer and more alike; 0: always the most probable token.")
    ] = 1.0,
    top_k: Annotated[int | None, typer.Option(help="Only the k most probable tokens.")] = None,
    top_p: Annotated[
        float | None, typer.Option(help="Nucleus sampling: only the tokens that hold this probability.")
    ] = None,
    prompt: Annotated[str, typer.Option(help="Start of the SMILES: a prefix of tokens, not a substructure.")] = "",
    seed: Annotated[int, typer.Option(help="Other seeds give other molecules.")] = 0,
    valid: Annotated[bool, typer.Option("--valid", help="Draw until n are valid.")] = False,
    unique: Annotated[bool, typer.Option("--unique", help="Draw until n are distinct.")] = False,
    novel: Annotated[bool, typer.Option("--novel", help="Draw until n are valid and not in the training set.")] = False,
    grid: Annotated[Path | None, typer.Option(help="Draw the first 30 valid ones into a .png or .svg file.")] = None,
    device: DeviceOption = Device.auto,
    batch_size: Annotated[
        int | None, typer.Option(help="Most molecules drawn at a time.", show_default="2048; 8192 on a GPU")
    ] = None,
    force: Force = False,
) -> None:
    """Sample molecules: one SMILES a line on stdout, an invalid one as it is, an unfinished one as an empty line."""
    for path in (output, grid):
        _check_target(path, force)
    from molgen.workers import workers

    with processes() as team, workers() as pool:  # they start while the rest is imported
        from molgen.generator import Keep, MoleculeGenerator, Tally
        from molgen.runs import find_run
        from molgen.sampling import Filters
        from molgen.writing import check_targets, summary, write_samples

        check_targets(output, grid)
        generator = MoleculeGenerator.load(team.meet(str(find_run(run).path)), device.value)
        filters, keep, tally = Filters(temperature, top_k, top_p), Keep(valid, unique, novel), Tally()
        stream = generator.stream(
            n, filters, keep, pool, tally, prompt=prompt, seed=seed, batch_size=batch_size, team=team
        )
        written = write_samples(stream, n, tally, output, grid, team)
        if team.leads:
            say(summary(written, tally, generator, pool))


@app.command(name="eval")
def evaluate(
    targets: Annotated[
        list[str] | None,
        typer.Argument(help="Runs, files of samples, or - for stdin; left out, the newest run.", show_default=False),
    ] = None,
    n: Annotated[int, typer.Option("-n", "--number", help="Samples to draw from a run.")] = 10_000,
    split: Annotated[Split, typer.Option(help="The held-out molecules that NLL and top-1 are of.")] = Split.test,
    reference: Annotated[str | None, typer.Option(help="A dataset or file to compare with.")] = None,
    train: Annotated[str | None, typer.Option(help="The dataset or file that novelty is against.")] = None,
    metrics: Annotated[
        list[Metric] | None, typer.Option(help="What to compute besides the basic figures; may be repeated.")
    ] = None,
    smiles_column: Column = None,
    json: Annotated[Path | None, typer.Option(help="Also write the figures as JSON.")] = None,
    report: Annotated[
        Path | None, typer.Option(help="Also write a page with pictures, FILE.html; adds the chem metrics.")
    ] = None,
    seed: Annotated[int, typer.Option(help="For the samples of a run.")] = 0,
    device: DeviceOption = Device.auto,
    force: Force = False,
) -> None:
    """Evaluate runs, or files whose lines are samples: NLL, top-1, validity, uniqueness, novelty, benchmarks."""
    from json import dumps

    _check_target(json, force)
    _check_target(report, force)
    from molgen.workers import workers

    chosen: list[Any] = [metric.value for metric in [*(metrics or [Metric.basic]), *([Metric.chem] if report else [])]]
    with workers() as pool:  # they start while the rest is imported
        from molgen.evaluation import evaluate_targets
        from molgen.presentation import table

        evaluations: list[Evaluation] = evaluate_targets(
            pool, targets or [None], n, split.value, seed, device.value, chosen, train, reference, smiles_column
        )
    print(table(evaluations))
    if report is not None:
        from molgen.report import write_report

        write_report(evaluations, report)
    if json is not None:
        values = [evaluation.to_json() for evaluation in evaluations]
        json.write_text(dumps(values[0] if len(values) == 1 else values, indent=1) + "\n", encoding="utf-8")


app.command(name="evaluate", hidden=True)(evaluate)


@app.command()
def score(
    file: Annotated[str, typer.Argument(help="A file of molecules, or - for stdin.")],
    run: RunArgument = None,
    smiles_column: Column = None,
    device: DeviceOption = Device.auto,
) -> None:
    """Score molecules: a CSV of log-likelihoods (nats) on stdout, one line for each of the file's molecules."""
    import csv

    from molgen.generator import MoleculeGenerator
    from molgen.scoring import Score, score_file
    from molgen.workers import workers

    with workers() as pool:
        rows = score_file(file, MoleculeGenerator.load(run, device.value), pool, smiles_column)
    table = csv.writer(sys.stdout, lineterminator="\n")
    table.writerow(Score._fields)
    for row in rows:
        table.writerow(f"{cell:.4f}" if isinstance(cell, float) else cell for cell in row)
    missing = sum(row.log_likelihood is None for row in rows)
    if missing:
        say(f"{missing} of {len(rows)} not scored: invalid, with an unseen token, or too long")


@data_app.command(name="list")
def data_list() -> None:
    """The named datasets and where they are."""
    from molgen.datasets import NAMED, data_directory

    for name, description in NAMED.items():
        print(f"{name:<12}{description}")
    say(f"data directory: {data_directory()}")


@data_app.command(name="get")
def data_get(name: Annotated[str, typer.Argument(help="tox21, moses or moses-mini.")]) -> None:
    """Fetch a named dataset and print where its files are."""
    from molgen.datasets import fetch

    for path in fetch(name):
        print(path)


class _TerminatedError(Exception):
    """SIGTERM."""


def _terminate(*_: Any) -> NoReturn:
    raise _TerminatedError


def _check_target(path: Path | None, force: bool) -> None:
    if path is None:
        return
    if path.exists() and not force:
        raise MolgenError(f"{path}: exists", "choose another name, or overwrite it with --force")
    if not path.parent.is_dir():
        raise MolgenError(f"{path}: no directory {path.parent}", "create it first")


def main(arguments: Iterable[str] | None = None) -> None:
    """Runs a command and exits: 0 done, 2 wrong input, 1 a fault, 130 / 143 interrupted / terminated."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        code = app(list(arguments) if arguments is not None else None, standalone_mode=False)
    except typer.Exit as leaving:
        code = leaving.exit_code
    except SystemExit as leaving:  # typer's own way out when `| head` has read enough: that is no fault
        code = 0 if isinstance(leaving.__context__, BrokenPipeError) else leaving.code
    except MolgenError as error:
        complain(str(error))
        code = 2
    except typer.Abort:
        code = 130
    except (KeyboardInterrupt, _TerminatedError) as signalled:
        code = 130 if isinstance(signalled, KeyboardInterrupt) else 143
    except (OSError, RuntimeError, ArithmeticError) as fault:
        complain(" ".join(str(fault).split()))
        code = 1
    except Exception as error:
        show = getattr(error, "show", None)  # a usage error of the command line itself
        if show is None:
            raise
        show()
        code = 2
    if code == 0:
        _close_stdout()
    sys.exit(code)


def _close_stdout() -> None:
    """What is left in a pipe that no one reads must not be complained about when the interpreter ends."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
