"""Molecules of a file as a training would have standardised them."""

from collections.abc import Sequence

from molgen.chem import clean
from molgen.chem.pool import Workers
from molgen.config import DataConfig
from molgen.data.rows import Row


def standardised(
    rows: Sequence[Row], config: DataConfig, context: int, pattern: str, workers: Workers
) -> list[tuple[str, str]]:
    """For each row, (the string that a training would take, the changes), or ("", why it would be dropped).

    Limits of length, sizes and the split do not count.
    """
    without_limits = {"min_tokens": 1, "max_tokens": None, "unparsable": "drop", "split": "random"}
    settings = clean.settings(config.model_copy(update=without_limits), context, pattern)
    results = workers.map("clean", [row.smiles for row in rows], "standardising", **settings)
    strings = []
    for row, result in zip(rows, results, strict=True):
        smiles, _, reason, changes = result or ("", "", clean.LOST, ())
        strings.append((smiles, row.problem or reason or "; ".join(changes)))
    return strings
