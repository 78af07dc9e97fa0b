"""Times `--metrics moses` stage by stage on random MOSES training molecules, beside the floor of each stage.

    python scripts/bench/metric_stages.py [--n 30000] [--rounds 1]

Floors, measured in the same run: ChemNet's arithmetic (245 MFLOP per molecule) at the machine's matrix rate; the bits
that a nearest-neighbour search must add up (a molecule's bits times the references) at the rate of plain additions in
memory; MCF and PAINS patterns matched one by one, without and with the screen by fingerprint.
"""

import argparse
import resource
from statistics import median

import numpy as np
import torch
from rdkit import Chem

from molgen.chem.alerts import moses_alerts, moses_filters
from molgen.evaluation.evaluate import evaluate_subject, list_subject
from molgen.machine import Runtime
from molgen.metrics.profile import alert_folder, describe
from molgen.metrics.references import ReferenceSet, open_references
from timing import median_seconds, product_rate

CHEMNET_FLOP = 245e6
REFERENCES = 352_299


def addition_rate() -> float:
    """bfloat16 additions per second of rows that lie in the cache."""
    a, b = torch.ones(256, 4096, dtype=torch.bfloat16), torch.ones(256, 4096, dtype=torch.bfloat16)
    return a.numel() / median_seconds(lambda: a.add_(b), 50)


def filter_cost(smiles: list[str], folder: str) -> tuple[float, float]:
    """Seconds per molecule of matching every pattern, and of the filter as it is, in one process."""
    molecules = [Chem.MolFromSmiles(s) for s in smiles]
    patterns = [pattern for alerts in moses_alerts(folder).values() for pattern in alerts.patterns]

    def all_patterns() -> None:
        for molecule in map(Chem.AddHs, molecules):
            any(molecule.HasSubstructMatch(pattern) for pattern in patterns)

    plain = median_seconds(all_patterns, 1)
    return plain / len(smiles), median_seconds(lambda: [moses_filters(m, folder) for m in molecules], 1) / len(smiles)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=30_000, help="molecules (30,000)")
    parser.add_argument("--rounds", type=int, default=1, help="evaluations that medians are taken of (1)")
    arguments = parser.parse_args()
    training = ReferenceSet.moses("train")
    order = np.random.default_rng(7).permutation(len(training.smiles))[: arguments.n]
    smiles = [training.smiles[i] for i in order.tolist()]
    runtime = Runtime("cpu")
    subject, references = list_subject(smiles, training), open_references(runtime)
    evaluate_subject(subject, ["moses"], references)  # caches the reference sets
    runs = [evaluate_subject(subject, ["moses"], references) for _ in range(arguments.rounds)]
    bits = describe(smiles[:500], ["fingerprint"], runtime, "bits").numbers("fingerprint")
    plain, screened = filter_cost(smiles[:300], alert_folder())
    n, processes = arguments.n, runtime.workers.processes
    ones = float(np.bitwise_count(bits).sum(1).mean())
    rate, additions = product_rate(2048), addition_rate()
    floors = {
        "ChemNet": (n * CHEMNET_FLOP / rate, f"245 MFLOP a molecule at {rate / 1e9:.0f} GFLOP/s"),
        "neighbours": (
            n * REFERENCES * ones / additions,
            f"{REFERENCES:,} references x {ones:.0f} bits a molecule at {additions / 1e9:.0f} G additions/s",
        ),
        "molecules": (
            n * plain / processes,
            f"SMARTS filters alone, unscreened, {plain * 1e3:.2f} ms a molecule in {processes} processes; "
            f"screened {screened * 1e3:.2f} ms",
        ),
    }
    print(f"{n:,} molecules, median of {arguments.rounds}")
    for stage in runs[0].seconds:
        taken = median(run.seconds[stage] for run in runs)
        floor, meaning = floors.get(stage, (None, ""))
        shown = f"floor {floor:8.1f} s  ({meaning})" if floor is not None else ""
        print(f"{stage:<12}{taken:8.1f} s  {shown}")
    print(
        f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB, the largest worker ", end=""
    )
    print(f"{resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20:.2f} GiB")
    for name, value in runs[0].figures.values.items():
        print(f"{name:<16}{value}")


if __name__ == "__main__":
    main()
