"""OptimizeOptions: all options of an optimisation in one object, for the command line and for Python code."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from molgen.optimize.components import Objective
from molgen.optimize.settings import LearnerConfig, Preset
from molgen.runtime.device import Device

Named = str | os.PathLike[str] | Mapping[str, Any] | Objective | Callable[[list[str]], Sequence[float]]


@dataclass(frozen=True)
class OptimizeOptions:
    """What is asked for, what scores it, and how long."""

    objective: Named | None = None
    """A preset, a YAML file or its values, FILE.py:FUNCTION, module:function, or a function itself."""
    scorer: str | Callable[[list[str]], Sequence[float]] | None = None
    """FILE.py:FUNCTION, module:function, or a function: for an objective with a component `scorer: true`."""
    command: str | None = None
    """A program: SMILES in, one per line; numbers out, one per line."""
    minimise: str | None = None
    """A range `A..B` of the scorer's values: A scores 1, B scores 0."""
    maximise: str | None = None
    """A range `A..B` of the scorer's values: A scores 0, B scores 1."""
    blind_to_stereo: bool = False
    """Whether the scorer gives stereoisomers the same value."""
    where: str = ""
    """A condition that every molecule must meet."""
    smarts: tuple[str, ...] = ()
    not_smarts: tuple[str, ...] = ()
    keep: str = ""
    """Fragments that every molecule keeps and is grown from, such as '[*:1]c1ccccc1'."""
    condition: str = ""
    """Values that the prior is given, such as 'logp = 2.5, pIC50 = 8': the search starts from the conditioned model."""
    calls: int | None = None
    """Molecules to score; None: 10,000, or those of the run that is resumed."""
    preset: Preset = "people"
    learner: LearnerConfig | None = None
    """Settings of one's own; None: those of the preset."""
    alerts: bool | None = None
    """Whether to reject reactive groups; None: with the preset for people."""
    allow_alerts: tuple[str, ...] = ()
    """Reactive groups, by name, that are not rejected."""
    warheads: tuple[str, ...] = ()
    """Patterns in which a reactive group is wanted."""
    jobs: int = 1
    """Calls of the scorer at once."""
    scheduler: str | None = None
    """The address of a Dask scheduler, which runs the scorer."""
    timeout: float = 300.0
    """Seconds per molecule that a command may take."""
    on_error: Literal["stop", "skip"] | None = None
    """After a scorer's failure: stop (None too), or leave those molecules out; may change when a search goes on."""
    hit: str | None = None
    """A SMILES with which the shortlist is compared."""
    catalog: str | None = None
    """A file of molecules that can be bought, for the shortlist."""
    picks: int = 20
    """Molecules of the shortlist."""
    seed: int = 0
    device: Device = "auto"

    @property
    def name(self) -> str:
        """A name for the search: that of the objective."""
        if isinstance(self.objective, str | os.PathLike):
            return Path(os.fspath(self.objective).partition(":")[0]).stem or "optimize"
        return "optimize"
