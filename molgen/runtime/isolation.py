"""A child Python that imports nothing from the current folder."""

import os
import sys
from pathlib import Path


def isolated_python() -> tuple[list[str], dict[str, str]]:
    """(command, environment) of a Python that imports nothing from the current folder; the same for its children.

    Empty and relative entries of PYTHONPATH are removed, because they refer to the current folder.
    """
    absolute = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if Path(path).is_absolute()]
    others = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    paths = {"PYTHONPATH": os.pathsep.join(absolute)} if absolute else {}
    return [sys.executable, "-P"], {**others, **paths, "PYTHONSAFEPATH": "1"}
