"""Groups of molecules with one Murcko scaffold, for splits that hold out whole scaffolds."""

from collections.abc import Sequence

from molgen.chem.pool import Workers
from molgen.data.rows import Row


def scaffolds_of(smiles: Sequence[str], workers: Workers) -> list[str]:
    """The Bemis-Murcko scaffold of each molecule, without stereo; "" for an acyclic one and for one that fails."""
    described = workers.map("describe", smiles, "scaffolds", parts=("flat_scaffold",))
    return [str(parts.get("flat_scaffold", "")) if parts else "" for parts in described]


def with_scaffold_groups(kept: Sequence[tuple[Row, str]], workers: Workers) -> list[tuple[Row, str]]:
    """The same rows, each with its scaffold as its group; an acyclic molecule is a group by itself."""
    found = scaffolds_of([row.smiles for row, _ in kept], workers)
    return [(row, scaffold) for (row, _), scaffold in zip(kept, found, strict=True)]
