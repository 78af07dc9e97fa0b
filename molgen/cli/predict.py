"""`molgen predict`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from molgen.cli.options import Column, DeviceOption, Force, RunArgument, check_apart, check_target


def predict(
    file: Annotated[str, typer.Argument(help="A file of molecules, or - for stdin.")],
    run: RunArgument = None,
    predictor: Annotated[
        str | None,
        typer.Option(help="auto, joint, forest, boosting, svm or mean.", show_default="what the training chose"),
    ] = None,
    explain: Annotated[
        Path | None, typer.Option(help="Also draw which atoms raise and lower it, into a .png or .svg file.")
    ] = None,
    smiles_column: Column = None,
    device: DeviceOption = "auto",
    force: Force = False,
) -> None:
    """Predict what a run was trained to predict (--target): a CSV on stdout, one line for each molecule of the file."""
    import csv

    check_target(explain, force)
    check_apart({"--explain": explain}, [file])
    from molgen.chem.pool import shared_workers
    from molgen.machine import Runtime

    runtime = Runtime(device, workers=shared_workers())  # they start while the rest is imported
    from molgen.chem.draw import require_drawing
    from molgen.data.readers import read_molecules
    from molgen.prediction.explain import explain as draw_explanation
    from molgen.prediction.predictor import RunPredictor
    from molgen.prediction.table import columns_of, predict_rows

    if explain is not None:
        require_drawing(explain)
    loaded = RunPredictor.load(run, runtime=runtime, kind=predictor)
    rows = predict_rows(read_molecules(file, smiles_column), loaded)
    table = csv.writer(sys.stdout, lineterminator="\n")
    table.writerow(columns_of(loaded.run.targets))
    table.writerows(rows)
    if explain is not None:
        draw_explanation(loaded, [row[2] for row in rows], [row[1] for row in rows], explain)
