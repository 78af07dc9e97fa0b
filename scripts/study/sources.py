"""The NLL of each source's held-out molecules under several runs, on the molecules that all of them can read.

    python scripts/study/sources.py runs/druglike runs/only-moleculeace --source moleculeace --split test

The molecules are those of one split of a named dataset, cleaned and excluded by the first run's settings. Molecules
with a token that one of the runs lacks, or too long for one, are left out and counted. Beside each mean is its standard
error, and the paired difference to the first run. Whether a run was trained on them is for the caller to know.
"""

import argparse

import numpy as np

from molgen.chem.pool import workers
from molgen.data.batches import Corpus
from molgen.data.dataset import clean_rows
from molgen.data.sources import read_source
from molgen.model.likelihood import likelihood, paired_difference
from molgen.runs import find_run
from molgen.runtime.device import choose_device


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", help="the runs to compare")
    parser.add_argument("--source", required=True, help="a named dataset or a file with a split column")
    parser.add_argument("--split", default="test", help="(test)")
    parser.add_argument("--most", type=int, default=20_000, help="at most this many molecules, evenly spaced (20,000)")
    options = parser.parse_args()
    runs = [find_run(name) for name in options.runs]
    data = runs[0].config.data.of_source(options.source)
    pattern = runs[0].tokenizer.splitter.pattern
    with workers() as pool:
        kept, _ = clean_rows(read_source(data), data, runs[0].config.model.context, pattern, pool)
    held_out = [row.smiles for row, _ in kept if row.split == options.split]
    held_out = held_out[:: max(1, -(-len(held_out) // options.most))]
    encoded = [[run.tokenizer.encode(smiles) for run in runs] for smiles in held_out]
    readable = [
        ids
        for ids in encoded
        if all(one and len(one) <= run.config.model.context for one, run in zip(ids, runs, strict=True))
    ]
    print(f"{options.source}, {options.split}: {len(held_out):,} molecules, {len(readable):,} that every run can read")
    device = choose_device("auto")
    found = []
    for i, run in enumerate(runs):
        corpus = Corpus.of([ids[i] for ids in readable if ids[i]], len(run.tokenizer))  # type: ignore[misc]
        found.append(likelihood(run.model(device), corpus, device))
        nll = found[-1]
        line = f"{run.path.name:<30} {nll.mean_nll:7.3f} ± {nll.stderr:.3f}  per token {nll.nll_per_token:.4f}"
        if i:
            difference, error = paired_difference(nll.nll, found[0].nll)
            line += f"  less the first: {difference:+.3f} ± {error:.3f}"
        print(line, flush=True)
    print(f"median of the first: {np.median(found[0].nll):.2f}")


if __name__ == "__main__":
    main()
