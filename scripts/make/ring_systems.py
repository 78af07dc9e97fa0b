"""Counts the ring systems of MOSES, ZINC 250k and MoleculeACE, and writes those that enough molecules have.

Run from the repository: python scripts/make/ring_systems.py
It reads some two million molecules, which takes half an hour on two cores.
"""

import gzip
from collections import Counter
from pathlib import Path

from molgen.chem.pool import shared_workers
from molgen.chem.smiles import RDKIT_VERSION
from molgen.config import DataConfig
from molgen.data.ring_systems import FEWEST
from molgen.data.sources import rows_of
from molgen.runtime.files import write_atomically

SOURCES = ("moses", "zinc250k", "moleculeace")
PATH = Path("data/ring-systems.txt.gz")


def main() -> None:
    """Writes the table."""
    counts: Counter[str] = Counter()
    molecules = 0
    for source in SOURCES:
        smiles = sorted({row.smiles for row in rows_of(DataConfig(source=source)) if row.split in ("", "train")})
        for part in shared_workers().stream("describe", smiles, source, parts=("ring_systems",)):
            counts.update(ring for found in part if found for ring in found.get("ring_systems", ()))
        molecules += len(smiles)
    common = sorted(ring for ring, count in counts.items() if count >= FEWEST)
    sources = ", ".join(SOURCES)
    head = f"# ring systems of at least {FEWEST} of {molecules:,} molecules of {sources}; RDKit {RDKIT_VERSION}"
    write_atomically(PATH, gzip.compress("\n".join([head, *common, ""]).encode(), 9, mtime=0))
    print(f"{len(common):,} of {len(counts):,} ring systems, {PATH.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
