"""The NLL of one source's held-out molecules: a run on that source alone, and others, such as one on a mixture.

    python scripts/study/sources.py runs/only-zinc druglike --split test

The molecules are those that the first run holds out. Those whose parent another run was trained on are left out and
counted, and so are those with a token that one of the runs lacks, or too long for one. Beside each mean is its standard
error, and the paired difference to the first run.
"""

import argparse

from molgen.chem.pool import workers
from molgen.data.batches import Corpus
from molgen.model.likelihood import likelihood, paired_difference
from molgen.optimize.benchmarks import knowledge
from molgen.runs import find_run
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
        held_out = looked_at
        for run in runs[1:]:
            if (is_known := knowledge(run, pool)) is None:
                raise SystemExit(f"{run.path}: what it was trained on is not here")
            held_out = [one for one, known in zip(held_out, is_known(held_out), strict=True) if not known]
    encoded = [[run.tokenizer.encode(smiles) for run in runs] for smiles in held_out]
    readable = [
        ids
        for ids in encoded
        if all(one and len(one) <= run.config.model.context for one, run in zip(ids, runs, strict=True))
    ]
    print(
        f"{runs[0].path.name}, {options.split}: {len(looked_at):,} of {len(every):,} molecules, {len(held_out):,} that "
        f"no other run has seen, {len(readable):,} that every run can read"
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


if __name__ == "__main__":
    main()
