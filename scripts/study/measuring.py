"""What several studies do: run whole commands of molgen, and measure lists of molecules with ChemNet."""

import subprocess
import sys
from collections.abc import Mapping, Sequence

from molgen.metrics.chemnet import activations, frechet_distance, gaussian


def molgen(*arguments: str) -> None:
    """One command; its table is not shown. Raises CalledProcessError for one that fails."""
    subprocess.run([sys.executable, "-m", "molgen", *arguments], check=True, stdout=subprocess.DEVNULL)


def settings(values: Mapping[str, object]) -> list[str]:
    """Values by their keys in the configuration, as options of `molgen train`."""
    return [f"--set={key}={value}" for key, value in values.items()]


class Fcd:
    """The Fréchet ChemNet distance to some held-out molecules, which pass through ChemNet once."""

    def __init__(self, held_out: Sequence[str]) -> None:
        self.held_out = gaussian(activations(held_out, "held out"))

    def __call__(self, smiles: Sequence[str], name: str = "samples") -> float:
        """Of valid molecules; `name` labels the progress bar."""
        return frechet_distance(gaussian(activations(smiles, name)), self.held_out)
