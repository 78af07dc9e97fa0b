"""Which molecules a run knows, as 64-bit keys of their parents: a file small enough to travel with a shipped run.

A parent is the main fragment of a molecule, uncharged, without stereo and isotopes (see molgen.chem.standardize). Its
key is the hash of its canonical SMILES (see molgen.runtime.hashing).
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from molgen.chem.pool import Workers
from molgen.chem.smiles import RDKIT_VERSION
from molgen.errors import MolgenError
from molgen.runtime.files import content_of, write_atomically
from molgen.runtime.hashing import Keys, keys_of

_MOST_BYTES = 2**28


def parent_smiles(smiles: Sequence[str], workers: Workers) -> list[str]:
    """Canonical SMILES of each molecule's parent; empty if RDKit does not parse the molecule."""
    described = workers.map("describe", smiles, "reading parents", parts=("parent",))
    return [str(parts.get("parent", "")) if parts else "" for parts in described]


def save_parents(path: Path, parents: Sequence[str]) -> None:
    """Writes the distinct keys of parents in order; an empty string is no parent."""
    distinct = np.unique(keys_of(parent for parent in parents if parent))
    write_atomically(path, save({"keys": distinct}, {"format": "molgen parents 1", "rdkit": RDKIT_VERSION}))


def load_parents(path: Path, follow: bool = False) -> Keys:
    """The keys of a file, in order. Raises MolgenError for a damaged file."""
    try:
        keys: Keys = load(content_of(path, _MOST_BYTES, follow))["keys"]
        if keys.dtype != np.uint64 or keys.ndim != 1 or (keys[1:] <= keys[:-1]).any():
            raise ValueError("its keys are not sorted 64-bit numbers")
    except (OSError, KeyError, ValueError, SafetensorError) as error:
        raise MolgenError(f"{path}: cannot be read: {error}", "restore the file, or delete it") from None
    return keys
