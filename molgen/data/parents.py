"""Which molecules a run knows, as 64-bit keys of their parents: a file small enough to travel with a shipped run.

A parent is the main fragment of a molecule, uncharged, without stereo and isotopes (see molgen.chem.standardize). Its
key is the hash of its canonical SMILES (see molgen.runtime.hashing). MOSES' training molecules, which are their own
parents, are too many: of those the file has the few that the run was not trained on.
"""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

from molgen.chem.pool import Workers
from molgen.chem.smiles import RDKIT_VERSION
from molgen.errors import MolgenError
from molgen.runtime.files import content_of, write_atomically
from molgen.runtime.hashing import Keys, keys_of

_MOST_BYTES = 2**28


class KnownParents(NamedTuple):
    """What a run was trained on, by parent."""

    keys: Keys
    """Of the molecules that are not in MOSES as RDKit writes them, in order."""
    left_out: Keys
    """Of MOSES' training molecules that the run was not trained on, in order; empty if MOSES was not its source."""

    def known(self, parents: Sequence[str], moses: Collection[str]) -> npt.NDArray[np.bool_]:
        """Whether the run was trained on each parent, (n,); `moses` has MOSES' training molecules, if they count."""
        keys = keys_of(parents)
        of_moses = np.array([parent in moses for parent in parents], bool) & ~np.isin(keys, self.left_out)
        is_parent = np.array([bool(parent) for parent in parents], bool)
        return np.asarray((np.isin(keys, self.keys) | of_moses) & is_parent)


def parent_smiles(smiles: Sequence[str], workers: Workers) -> list[str]:
    """Canonical SMILES of each molecule's parent; empty if RDKit does not parse the molecule."""
    described = workers.map("describe", smiles, "reading parents", parts=("parent",))
    return [str(parts.get("parent", "")) if parts else "" for parts in described]


def save_parents(path: Path, parents: Sequence[str], left_out: Collection[str] = ()) -> None:
    """Writes the distinct keys of both (see KnownParents) in order; an empty string is no parent."""
    arrays = {
        name: np.unique(keys_of(one for one in strings if one))
        for name, strings in (("keys", parents), ("left_out", left_out))
    }
    write_atomically(path, save(arrays, {"format": "molgen parents 1", "rdkit": RDKIT_VERSION}))


def load_parents(path: Path, follow: bool = False) -> KnownParents:
    """What a file of keys says. Raises MolgenError for a damaged file."""
    try:
        arrays = load(content_of(path, _MOST_BYTES, follow))
        found = KnownParents(arrays["keys"], arrays["left_out"])
        for keys in found:
            if keys.dtype != np.uint64 or keys.ndim != 1 or (keys[1:] <= keys[:-1]).any():
                raise ValueError("its keys are not sorted 64-bit numbers")
    except (OSError, KeyError, ValueError, SafetensorError) as error:
        raise MolgenError(f"{path}: cannot be read: {error}", "restore the file, or delete it") from None
    return found
