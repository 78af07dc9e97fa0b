"""`molgen doctor`: what is installed and whether it works."""

import logging

import typer

from molgen.cli.options import STDOUT, DeviceOption, Force, JsonTarget, check_target, show_json

logger = logging.getLogger(__name__)


def doctor(device: DeviceOption = "auto", json: JsonTarget = None, force: Force = False) -> None:
    """Show versions, devices, threads and folders, and sample a few molecules: what a bug report needs."""
    check_target(json, force)
    from molgen.doctor import examine, report

    found = examine(device)
    if json != STDOUT:
        print(report(found), flush=True)
    if json is not None:
        show_json(found, json)
    if not found["ok"]:
        logger.error("sampling does not work here: see the smoke test above, and paste all of it into a bug report")
        raise typer.Exit(1)
