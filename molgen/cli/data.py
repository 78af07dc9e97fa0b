"""The commands of `molgen data`: list, get, describe, clean, encode, clear-cache."""

import logging
from pathlib import Path
from typing import Annotated

import typer

from molgen.cli.options import (
    DATA_HELP,
    STDOUT,
    Column,
    Force,
    JsonTarget,
    Recipe,
    Settings,
    Targets,
    Where,
    check_apart,
    check_target,
    configuration,
    show_json,
)

logger = logging.getLogger(__name__)

data_app = typer.Typer(
    help="Datasets: list and fetch the named ones; describe, clean or encode any dataset; delete the cache.",
    no_args_is_help=True,
)


@data_app.command(name="list")
def data_list(json: JsonTarget = None, force: Force = False) -> None:
    """List the named datasets and show where they are."""
    check_target(json, force)
    from molgen.config import NAMED
    from molgen.data.download import data_directory, is_here

    if json is not None:
        datasets = {name: {"description": text, "here": is_here(name)} for name, text in NAMED.items()}
        show_json({"directory": str(data_directory()), "datasets": datasets}, json)
        if json == STDOUT:
            return
    for name, description in NAMED.items():
        print(f"{name:<20}{description}")
    logger.info(f"data directory: {data_directory()}")


@data_app.command(name="get")
def data_get(name: Annotated[str, typer.Argument(help="A dataset of `molgen data list`.")]) -> None:
    """Fetch a named dataset and print where its files are."""
    from molgen.data.download import fetch

    for path in fetch(name):
        print(path)


@data_app.command(name="describe")
def data_describe(
    data: Annotated[str | None, typer.Argument(help=f"{DATA_HELP} Left out: what --config names.")] = None,
    config: Recipe = None,
    settings: Settings = None,
    smiles_column: Column = None,
    where: Where = None,
    target: Targets = None,
    json: JsonTarget = None,
    force: Force = False,
) -> None:
    """Show what a training would see: sizes, drops, changes, lengths, vocabulary, elements, charges, stereo twins."""
    check_target(json, force)
    from molgen.chem.pool import shared_workers
    from molgen.data.description import describe_data

    check_apart({"--json": json}, [data, config])
    _, resolved = configuration(data, config, settings, smiles_column, where, {"data.targets": target or None})
    description = describe_data(resolved, shared_workers())
    if json != STDOUT:
        print("\n".join(description.lines))
    if json is not None:
        show_json(description.figures, json)


@data_app.command(name="clean")
def data_clean(
    data: Annotated[str, typer.Argument(help=DATA_HELP)],
    output: Annotated[Path, typer.Option("-o", "--output", help="A .smi or .csv file (also .gz).")],
    config: Recipe = None,
    settings: Settings = None,
    smiles_column: Column = None,
    where: Where = None,
    force: Force = False,
) -> None:
    """Standardise and clean without training; dropped and altered rows are listed in a .dropped.csv.gz file."""
    from molgen.chem.pool import shared_workers
    from molgen.data.prepare import dropped_beside, write_clean

    listing = dropped_beside(output)
    for path in (output, listing):
        check_target(path, force)
    check_apart({"-o": output, "the list beside it": listing}, [data, config])
    _, resolved = configuration(data, config, settings, smiles_column, where, {})
    for line in write_clean(resolved, output, shared_workers()):
        logger.info(line)


@data_app.command(name="encode")
def data_encode(
    data: Annotated[str, typer.Argument(help=DATA_HELP)],
    output: Annotated[Path, typer.Option("-o", "--output", help="A .molgen file.")],
    config: Recipe = None,
    settings: Settings = None,
    smiles_column: Column = None,
    where: Where = None,
    force: Force = False,
) -> None:
    """Clean, split and encode without training; `molgen train` reads the file as it is, of any size."""
    from molgen.chem.pool import shared_workers
    from molgen.data.prepare import check_encoded_name, write_encoded

    check_encoded_name(output)
    check_target(output, force)
    check_apart({"-o": output}, [data, config])
    _, resolved = configuration(data, config, settings, smiles_column, where, {})
    for line in write_encoded(resolved, output, shared_workers()):
        logger.info(line)


@data_app.command(name="clear-cache")
def data_clear_cache() -> None:
    """Delete the results that were computed from datasets and cached; downloaded files stay."""
    from molgen.data.download import data_directory
    from molgen.runtime.cache import clear

    folder = data_directory() / "cache"
    n, size = clear(folder)
    logger.info(f"{n:,} entries deleted, {size / 2**20:,.1f} MiB, from {folder}")
