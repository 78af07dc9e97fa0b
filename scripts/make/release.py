"""Builds a release into dist/ and checks it, as `make release`; it uploads nothing.

    python scripts/make/release.py          # the tree must be committed
    python scripts/make/release.py --dirty  # a trial

1. The version is the same in molgen/_version.py, CITATION.cff and the first heading of CHANGELOG.md.
2. The source distribution is built, and the wheel from it; with SOURCE_DATE_EPOCH, so that they can be built again.
3. Their metadata are checked, and the wheel samples molecules in an empty folder, away from the checkout.
4. dist/SHA256SUMS has the hashes, dist/sbom.json what is installed (CycloneDX).
"""

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from molgen._version import __version__
from molgen.runtime.files import write_atomically

ROOT = Path(__file__).parents[2]
DIST, TOOLS = ROOT / "dist", ROOT / ".venv-audit" / "bin"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dirty", action="store_true", help="also with changes that are not committed")
    options = parser.parse_args()
    if found := differing_versions(ROOT):
        raise SystemExit(f"molgen/_version.py says {__version__}, but {found}")
    if not options.dirty and _git("status", "--porcelain"):
        raise SystemExit("there are changes that are not committed")
    shutil.rmtree(DIST, ignore_errors=True)
    environment = os.environ | {"SOURCE_DATE_EPOCH": _git("log", "-1", "--format=%ct")}
    subprocess.run([TOOLS / "python", "-m", "build", "--outdir", DIST, ROOT], env=environment, check=True)
    files = sorted(DIST.iterdir())
    subprocess.run([TOOLS / "python", "-m", "twine", "check", "--strict", *files], check=True)
    (wheel,) = DIST.glob("*.whl")
    try_out(wheel)
    sums = "".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files)
    write_atomically(DIST / "SHA256SUMS", sums.encode())
    sbom = [str(TOOLS / "cyclonedx-py"), "environment", "--pyproject", "pyproject.toml", "--output-reproducible"]
    subprocess.run([*sbom, "--output-file", str(DIST / "sbom.json"), sys.executable], cwd=ROOT, check=True)
    print(f"{sums}nothing is uploaded: {TOOLS / 'twine'} upload {DIST}/*.whl {DIST}/*.tar.gz would do it")


def differing_versions(root: Path) -> str:
    """The first file whose version is not `__version__`, with that version; empty if there is none."""
    for name, pattern in (("CITATION.cff", r"^version: (\S+)$"), ("CHANGELOG.md", r"^## ([0-9]\S*)")):
        match = re.search(pattern, (root / name).read_text(encoding="utf-8"), re.M)
        version = match[1].strip('"') if match else "none"
        if version != __version__:
            return f"{name} says {version}"
    return ""


def try_out(wheel: Path) -> None:
    """Samples with the wheel in an empty folder; its dependencies are those of this environment."""
    with tempfile.TemporaryDirectory() as folder:
        install = [
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--no-index",
            "--target",
            f"{folder}/site",
            str(wheel),
        ]
        subprocess.run([sys.executable, *install], check=True)
        script = "import molgen; print(molgen.__file__); print(molgen.sample('moses-small', 5, device='cpu').smiles[0])"
        environment = os.environ | {"PYTHONPATH": f"{folder}/site"}
        done = subprocess.run(
            [sys.executable, "-c", script], cwd=folder, env=environment, capture_output=True, text=True, check=True
        )
        if not done.stdout.startswith(folder):
            raise SystemExit(f"not the wheel was tried, but {done.stdout}")
        print(done.stdout, end="")


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    main()
