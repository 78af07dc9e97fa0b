"""Builds data/moses-mini.csv.gz: 20,000 + 1,000 + 1,000 random molecules of MOSES' train, test and test_scaffolds.

    python scripts/make/moses_mini.py

Needs `molgen data get moses`. The strings are MOSES' own; the seed is fixed, so the file is the same each time.
"""

import argparse
import csv
import gzip
import io
from pathlib import Path

import numpy as np

from molgen.data.sources import reference_smiles
from molgen.runtime.files import write_atomically

SIZES = {"train": 20_000, "test": 1_000, "test_scaffolds": 1_000}
TARGET = Path(__file__).parents[2] / "data" / "moses-mini.csv.gz"


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    rng = np.random.default_rng(0)
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["smiles", "split"])
    for split, size in SIZES.items():
        smiles = reference_smiles("moses", split)
        table.writerows([smiles[i], split] for i in sorted(rng.choice(len(smiles), size, replace=False)))
    write_atomically(TARGET, gzip.compress(text.getvalue().encode(), mtime=0))
    print(f"{TARGET}: {sum(SIZES.values()):,} molecules, {TARGET.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
