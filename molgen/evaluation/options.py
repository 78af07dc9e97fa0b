"""What an evaluation is asked for. Nothing heavy is imported here: the command line reads it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from molgen.metrics import MetricName

Split = Literal["test", "validation"]


@dataclass(frozen=True)
class EvalOptions:
    """Settings that all targets of one evaluation share."""

    metrics: Sequence[MetricName] = ("basic",)
    """Families of figures; `basic` is always among them."""
    train: str | None = None
    """The dataset or file that novelty is against; left out, what a run was trained on, else `reference`."""
    reference: str | None = None
    """The dataset or file whose test split distributions are against; left out, MOSES' own test sets."""
    n: int = 10_000
    """Samples to draw from a run."""
    split: Split = "test"
    """The held-out molecules whose likelihood is computed."""
    seed: int = 0
    """For the samples of a run."""
    smiles_column: str | None = None
    """The column of a file that holds the samples."""
