"""A child Python that no file in the current folder can reach."""

import os
import sys
from pathlib import Path


def isolated_python() -> tuple[list[str], dict[str, str]]:
    """(command, environment) of a Python that imports nothing out of the current folder, nor do its children.

    An empty or relative entry of PYTHONPATH is a place in the current folder, whichever that is.
    """
    absolute = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if Path(path).is_absolute()]
    others = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    paths = {"PYTHONPATH": os.pathsep.join(absolute)} if absolute else {}
    return [sys.executable, "-P"], {**others, **paths, "PYTHONSAFEPATH": "1"}
