"""A virtual environment for another program. All that it does not hold itself it finds in the running interpreter's."""

import hashlib
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path
from typing import NamedTuple

from child import FailedError, measured_run

PIP = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")


class Package(NamedTuple):
    """A package of the registry, and what it needs in other versions than ours."""

    requirement: str
    """Its name and version, `name==1.0`."""
    sha256: str
    """Of its wheel."""
    pins: tuple[str, ...] = ()
    """Requirements that are installed with it; nothing else is."""


def peer_python(folder: Path, package: Package) -> str:
    """The interpreter of the environment in `folder`, which is made if it is missing or holds something else.

    Raises FailedError where the package cannot be fetched or is not the expected one, SystemExit for a folder that
    holds something other than an environment.
    """
    python = str(folder / "bin" / "python")
    link = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder)})) / "running_interpreter.pth"
    wanted = " ".join((package.requirement, *package.pins))
    content = f"# {wanted}\n{sysconfig.get_path('purelib')}\n"  # appended to the path: its own packages come first
    if link.exists() and link.read_text() == content:
        return python
    if folder.exists() and any(folder.iterdir()) and not (folder / "pyvenv.cfg").exists():
        raise SystemExit(f"{folder}: neither empty nor an environment; name another --environment")
    print(f"making {folder}: {wanted}", file=sys.stderr, flush=True)
    link.unlink(missing_ok=True)  # else pip would take our packages for the environment's
    venv.create(folder, symlinks=True)
    (folder / ".gitignore").write_text("*\n")
    only_wheels = ("--no-deps", "--only-binary", ":all:")
    with tempfile.TemporaryDirectory() as temporary:
        measured_run((*PIP, "download", *only_wheels, "--dest", temporary, package.requirement))
        (wheel,) = Path(temporary).glob("*.whl")
        if (digest := hashlib.sha256(wheel.read_bytes()).hexdigest()) != package.sha256:
            raise FailedError(f"{wheel.name} has sha256 {digest}, expected {package.sha256}")
        measured_run((*PIP, "--python", python, "install", *only_wheels, *package.pins, str(wheel)))
    link.write_text(content)  # last, for it also says that all else is there
    return python
