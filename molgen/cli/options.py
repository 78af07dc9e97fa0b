"""Options that several commands share, and the functions that check and apply them."""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from molgen.errors import MolgenError
from molgen.runtime.device import Device
from molgen.runtime.files import write_atomically
from molgen.runtime.tensorboard import FOLDER, OnRow, TensorBoard, Tracker

if TYPE_CHECKING:
    from molgen.config import Config

DATA_HELP = (
    "A dataset of `molgen data list`, a .csv .tsv .smi .txt .sdf (also .gz .bz2) or .parquet file, or - for stdin."
)


Force = Annotated[bool, typer.Option("--force", help="Overwrite what exists.")]
DeviceOption = Annotated[Device, typer.Option(envvar="MOLGEN_DEVICE", help="The device to compute on.")]
Log = Annotated[
    Tracker | None, typer.Option(envvar="MOLGEN_LOG", help="Also write the figures for TensorBoard, into the run.")
]
STDOUT = Path("-")
JsonTarget = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="Also write the figures as JSON; - is stdout.")
]
Column = Annotated[str | None, typer.Option("--smiles-column", help="The column that holds the SMILES.")]
Where = Annotated[
    str | None,
    typer.Option(
        metavar="CONDITION", help="Only rows for which it is true, such as 'pIC50 > 7'.", show_default="all rows"
    ),
]


def _recipes(incomplete: str) -> list[str]:
    from molgen.config import recipes

    return [name for name in recipes() if name.startswith(incomplete)]


def _runs(incomplete: str) -> list[str]:
    """For the shell's completion: run directories under runs/, as names, and those of the package."""
    folders = (Path("runs"), Path(__file__).parents[1] / "assets" / "shipped")
    found = {path.name for folder in folders for path in folder.glob("*") if path.is_dir()}
    return sorted(name for name in found if name.startswith(incomplete))


Recipe = Annotated[
    str | None,
    typer.Option(
        "--config",
        autocompletion=_recipes,
        help="A recipe's name or a YAML file.",
        show_default="the dataset's, or finetune",
    ),
]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Change one setting; may be repeated.")
]
Targets = Annotated[
    list[str] | None,
    typer.Option(
        "--target",
        metavar="COLUMN",
        help="Also learn to predict it; or NAME = formula, such as 'pIC50 = 9 - log10(IC50_nM)'. May be repeated.",
    ),
]
Conditions = Annotated[
    list[str] | None,
    typer.Option(
        "--condition",
        metavar="COLUMN",
        help="What samples can be asked for: logp, qed, …, a column, or NAME = formula. May be repeated.",
    ),
]
RunArgument = Annotated[
    str | None,
    typer.Argument(
        autocompletion=_runs,
        help="A run, also `druglike` or `moses-small`; default: the newest under runs/.",
        show_default=False,
    ),
]


def configuration(
    data: str | None,
    config: str | None,
    settings: list[str] | None,
    smiles_column: str | None,
    where: str | None,
    options: Mapping[str, Any],
) -> tuple[str | None, "Config"]:
    """(name of the recipe, configuration).

    The recipe is `config`, else that of `--init` (`joint` with targets, `conditions` with conditions), else the
    dataset's.

    `settings` are the values of `--set`; `options` are values of other options by setting.
    """
    from molgen.config import load_config, recipes

    of_dataset = data if data in recipes() else "tox21" if data is None else None
    tuned = "joint" if options.get("data.targets") else "finetune"
    tuned = "conditions" if options.get("data.conditions") else tuned
    recipe = config or (tuned if options.get("training.init") else of_dataset)
    named = {"data.source": data, "data.smiles_column": smiles_column, "data.where": where, **options}
    return recipe, load_config(recipe, settings or [], named)


def check_unchanged(run: Path, config: str | None, settings: list[str] | None, named: Mapping[str, Any]) -> None:
    """Raises MolgenError for a setting that differs from those of the run to resume."""
    from molgen.config import differing, load_config, value_of
    from molgen.runs import Run

    before = Run(run).config
    now = load_config(config, settings or [], named, base=before)
    for key in differing(now, before):
        raise MolgenError(
            f"{key}: {value_of(now, key)} with --resume, but {run} began with {value_of(before, key)}",
            "leave it out, or train into a new directory",
        )


def check_target(path: Path | None, force: bool) -> None:
    """Raises MolgenError for an output that exists (unless `force`), is not a regular file, or cannot be created."""
    if path is None or path == STDOUT:
        return
    if os.path.lexists(path) and not force:
        raise MolgenError(f"{path}: exists", "choose another name, or overwrite it with --force")
    if path.exists() and not path.is_file():  # a device, for example, must not be replaced by a file
        raise MolgenError(f"{path}: no regular file", "name a file; results without one go to stdout")
    if not path.parent.is_dir():
        raise MolgenError(f"{path}: no directory {path.parent}", "create it first")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise MolgenError(f"{path}: no permission to write in {path.parent}", "name another directory")


def show_json(values: Any, target: Path) -> None:
    """Writes values as JSON to a file, or to stdout if the target is `-`."""
    text = json.dumps(values, indent=1, allow_nan=False)
    if target == STDOUT:
        print(text, flush=True)
    else:
        write_atomically(target, f"{text}\n".encode())


def tracker(log: Tracker | None, run: Path, step: str, resume: bool) -> OnRow | None:
    """What `--log` asks for: a function that takes each new row of the run's log; None if it asks for nothing."""
    return TensorBoard(run / FOLDER, step, resume) if log == "tensorboard" else None


def check_apart(outputs: Mapping[str, Path | None], inputs: Iterable[str | Path | None]) -> None:
    """Raises MolgenError if two outputs are the same file, or if an output is an input, also by another name.

    `outputs` are option → path. A directory among the inputs means the files of a run in it, `-` means stdin.
    """
    named = [(name, path) for name, path in outputs.items() if path is not None and path != STDOUT]
    for i, (name, path) in enumerate(named):
        for other_name, other_path in named[:i]:
            if _same(path, other_path):
                raise MolgenError(
                    f"{other_name} {other_path} and {name} {path}: the same file", "give each a name of its own"
                )
    for given in inputs:
        for read in _files_of(given):
            for name, path in named:
                if _same(path, read):
                    raise MolgenError(f"{name} {path}: is an input, {given}", "choose another name for the output")


def _files_of(given: str | Path | None) -> list[Path]:
    if given is None:
        return []
    if str(given) == "-":
        return [Path("/dev/stdin")]
    path = Path(given)
    return sorted(path.iterdir()) if path.is_dir() else [path]


def _same(one: Path, other: Path) -> bool:
    """Whether two paths mean the same file: existing files by their inode, others by their name."""
    try:
        return one.samefile(other)
    except OSError:  # one of them does not exist
        return os.path.normcase(one.resolve()) == os.path.normcase(other.resolve())
