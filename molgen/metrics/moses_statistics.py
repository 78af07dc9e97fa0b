"""Statistics of a test set, as MOSES' figures need them: of a table, and MOSES' own, read without running anything.

MOSES' own are shipped as a NumPy array of one Python object, that is, as a pickle, which is never unpickled: see
`molgen.runtime.inert_pickle`.
"""

import zipfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from molgen.chem.descriptors import MOSES_PROPERTIES
from molgen.errors import MolgenError
from molgen.metrics.chemnet import SIZE, Gaussian, gaussian
from molgen.metrics.profile import MoleculeTable
from molgen.runtime.cache import Arrays, expect, from_strings, to_strings
from molgen.runtime.inert_pickle import plain, read_pickle

_LARGEST = 2**30


class Statistics(NamedTuple):
    """A reference set as the figures need it."""

    gaussian: Gaussian
    fingerprints: npt.NDArray[np.uint8]
    fragments: Mapping[str, int]
    scaffolds: Mapping[str, int]
    properties: npt.NDArray[np.float64]
    """(n, 4) in the order of MOSES_PROPERTIES."""
    digest: str
    """Names its content."""


def statistics(reference: MoleculeTable, digest: str) -> Statistics:
    """Of a table with `moses.PARTS` and ChemNet's `activations`."""
    return Statistics(
        gaussian(reference.numbers("activations")),
        reference.numbers("fingerprint"),
        reference.counts("fragments"),
        scaffold_counts(reference),
        reference.numbers("properties"),
        digest,
    )


def scaffold_counts(table: MoleculeTable) -> Counter[str]:
    """Bemis–Murcko scaffolds of at least two rings."""
    rings = table.numbers("scaffold_rings").tolist()
    return Counter(s for s, n in zip(table.strings("scaffold"), rings, strict=True) if s and n >= 2)


def shipped_statistics(path: Path, digest: str) -> Statistics:
    """The statistics of one test set, from the file of the molsets wheel. Raises MolgenError for a damaged file."""
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo("stats.npy").file_size > _LARGEST:
                raise ValueError("larger than 1 GiB")
            content = archive.read("stats.npy")
        # A .npy file: magic, version, length of the header in two bytes, header, data.
        start = 10 + int.from_bytes(content[8:10], "little")
        (data,) = plain(read_pickle(content[start:]))  # an array of one object
        values = [data[name]["values"] for name in MOSES_PROPERTIES]
        return Statistics(
            Gaussian(data["FCD"]["mu"], data["FCD"]["sigma"], len(values[0])),
            np.packbits(data["SNN"]["fps"], axis=1, bitorder="little"),
            data["Frag"]["frag"],
            data["Scaf"]["scaf"],
            np.sort(np.array(values, np.float64).T, axis=0),  # each column for itself: only its distribution matters
            digest,
        )
    except (OSError, ValueError, KeyError, IndexError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        raise MolgenError(f"{path}: cannot be read: {error}", "fetch it again: `molgen data get moses`") from None


def to_arrays(statistics: Statistics) -> Arrays:
    """For the cache."""
    return {
        "mean": statistics.gaussian.mean,
        "covariance": statistics.gaussian.covariance,
        "n": np.array(statistics.gaussian.n),
        "fingerprints": statistics.fingerprints,
        "fragments": from_strings(statistics.fragments),
        "fragment_counts": np.array(list(statistics.fragments.values()), np.int64),
        "scaffolds": from_strings(statistics.scaffolds),
        "scaffold_counts": np.array(list(statistics.scaffolds.values()), np.int64),
        "properties": statistics.properties,
    }


def from_arrays(arrays: Arrays, digest: str) -> Statistics:
    """What `to_arrays` gave. Raises ValueError or KeyError for anything else."""
    for name, kind, shape in (
        ("mean", arrays["mean"].dtype, (SIZE,)),
        ("covariance", np.float64, (SIZE, SIZE)),
        ("n", np.int64, ()),
        ("fingerprints", np.uint8, (None, 128)),
        ("fragment_counts", np.int64, (None,)),
        ("scaffold_counts", np.int64, (None,)),
        ("properties", np.float64, (None, len(MOSES_PROPERTIES))),
    ):
        expect(arrays[name], kind, shape)
    if not (np.issubdtype(arrays["mean"].dtype, np.floating) and len(arrays["fingerprints"])):
        raise ValueError("no statistics of molecules")
    return Statistics(
        Gaussian(arrays["mean"], arrays["covariance"], int(arrays["n"])),
        arrays["fingerprints"],
        dict(zip(to_strings(arrays["fragments"]), arrays["fragment_counts"].tolist(), strict=True)),
        dict(zip(to_strings(arrays["scaffolds"]), arrays["scaffold_counts"].tolist(), strict=True)),
        arrays["properties"],
        digest,
    )
