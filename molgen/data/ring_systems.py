"""Ring systems that occur in real molecules: a bundled table, counted by scripts/make/ring_systems.py."""

import gzip
from functools import lru_cache
from importlib import resources

FEWEST = 5
"""Molecules that have a ring system of the table, at least."""
_FILE = "ring-systems.txt.gz"


@lru_cache(maxsize=1)
def common_ring_systems() -> frozenset[str]:
    """Canonical SMILES of the ring systems (see `molgen.chem.descriptors.ring_systems`) that enough molecules have.

    Counted over MOSES, ZINC 250k and MoleculeACE: 1.9 million molecules.
    """
    packed = (resources.files("molgen") / "assets" / "data" / _FILE).read_bytes()
    return frozenset(line for line in gzip.decompress(packed).decode().splitlines() if not line.startswith("#"))
