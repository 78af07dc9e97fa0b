"""Writes hashes.txt: the sha256 of each version in constraints.txt of which one wheel serves every platform.

    python scripts/make/pin_hashes.py

pip takes hashes for all packages of an installation or for none, and compiled packages have another file for each
platform (PyTorch several of one version): `make setup` installs these first, by their hashes, then the rest.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from molgen.runtime.files import write_atomically

ROOT = Path(__file__).parents[2]
MARKERS = {"deepchem": ' ; python_version < "3.12"'}  # as pyproject.toml has it: no release installs above
HEADING = "# Made by scripts/make/pin_hashes.py: pure-Python wheels, one file for every platform.\n"


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    report = ["--dry-run", "--ignore-installed", "--no-deps", "--quiet", "--report", "-"]
    command = [sys.executable, "-m", "pip", "install", *report, "--requirement", str(ROOT / "constraints.txt")]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    lines = [
        f"{item['metadata']['name']}=={item['metadata']['version']}{MARKERS.get(item['metadata']['name'], '')} "
        f"--hash=sha256:{item['download_info']['archive_info']['hashes']['sha256']}\n"
        for item in found["install"]
        if item["download_info"]["url"].endswith("-none-any.whl")
    ]
    write_atomically(ROOT / "hashes.txt", (HEADING + "".join(sorted(lines, key=str.lower))).encode())
    print(f"{len(lines)} of {len(found['install'])} packages")


if __name__ == "__main__":
    main()
