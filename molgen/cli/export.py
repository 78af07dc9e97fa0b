"""`molgen export`: a run as a folder for transformers."""

import logging
from pathlib import Path
from typing import Annotated

import typer

from molgen.cli.options import Force

logger = logging.getLogger(__name__)


def export(
    run: Annotated[str, typer.Argument(help="A run, also `druglike` or `moses-small`.", show_default=False)],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder to write.", show_default=False)],
    force: Force = False,
) -> None:
    """Write a run as a Hugging Face folder that stock transformers loads; `--init` and RUN take it back."""
    from molgen.export.huggingface import export as export_run

    checked = export_run(run, folder, force)
    logger.info(
        f"{folder}: transformers reads {checked.strings:,} strings as the same ids, and its logits differ by at most "
        f"{checked.difference:.0e}. Its README.md is the model card: name a licence there before you publish it"
    )
