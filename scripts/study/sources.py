"""The NLL of one source's held-out molecules: a run on that source alone, and others, such as one on a mixture.

    python scripts/study/sources.py runs/only-zinc druglike --split test

The molecules are those that the first run holds out. Those that another run knows, by the keys that a run of the
package carries, are left out and counted, and so are those with a token that one of the runs lacks, or too long for
one. Beside each mean is its standard error, and the paired difference to the first run. Whether a run of one's own was
trained on them is for the caller to know.
"""

import argparse
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from molgen.chem.pool import Workers, workers
from molgen.data.batches import Corpus
from molgen.data.parents import parent_smiles
from molgen.data.sources import reference_smiles
from molgen.model.likelihood import likelihood, paired_difference
from molgen.runs import Run, find_run
from molgen.runtime.device import choose_device


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", help="the runs to compare; the first says which molecules")
    parser.add_argument("--split", default="test", help="of the first run (test)")
    parser.add_argument("--most", type=int, default=20_000, help="at most this many molecules, evenly spaced (20,000)")
    options = parser.parse_args()
    runs = [find_run(name) for name in options.runs]
    every = runs[0].split(options.split)
    looked_at = every[:: max(1, -(-len(every) // options.most))]
    with workers() as pool:
        unknown = ~known_to_any(runs, looked_at, pool)
    held_out = [smiles for smiles, is_unknown in zip(looked_at, unknown, strict=True) if is_unknown]
    encoded = [[run.tokenizer.encode(smiles) for run in runs] for smiles in held_out]
    readable = [
        ids
        for ids in encoded
        if all(one and len(one) <= run.config.model.context for one, run in zip(ids, runs, strict=True))
    ]
    print(
        f"{runs[0].path.name}, {options.split}: {len(looked_at):,} of {len(every):,} molecules, {len(held_out):,} that "
        f"no run is known to have seen, {len(readable):,} that every run can read"
    )
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


def known_to_any(runs: Sequence[Run], smiles: Sequence[str], pool: Workers) -> npt.NDArray[np.bool_]:
    """(n,) whether one of the runs carries the key of the molecule's parent."""
    parents = parent_smiles(smiles, pool)
    known = np.zeros(len(smiles), bool)
    for run in runs:
        if run.parents is not None:
            moses = reference_smiles("moses", "train") if "moses" in run.config.data.trained_on else []
            known |= run.parents.known(parents, set(moses))
    return known


if __name__ == "__main__":
    main()
