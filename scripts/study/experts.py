"""Switch experts beside one dense feed-forward part at equal active weights, on MOSES, equal tokens.

    python scripts/study/experts.py --out runs/experts

100,000 molecules, validation molecules only, three seeds; differences to dense are paired by molecule. The balance is
each expert's share of the validation tokens, block by block. A training that is there already is not repeated, one that
was stopped goes on. --tiny shows in minutes that everything works; its figures mean nothing.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from attention_kinds import DATA, TINY, few
from held_out import Numbers, encoded, paired, token_nlls, trained
from molgen.data.batches import Corpus
from molgen.model.experts import routing_recorded
from molgen.runs import Run
from molgen.tokenizer import PAD

KINDS = {
    "dense": [],
    "switch-4": ["model.feedforward_kind=switch", "model.experts=4"],
    "switch-8": ["model.feedforward_kind=switch", "model.experts=8"],
}
TRAINING = ["model.context=64", "model.dropout=0.0", "training.epochs=3", "training.batch_size=128"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="where runs and figures are kept")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--tiny", action="store_true", help="a few molecules and a small network")
    options = parser.parse_args()
    name = "tiny" if options.tiny else "moses"
    data = few("moses", options.out) if options.tiny else DATA["moses"]
    file = encoded(options.out / f"{name}.molgen", "moses", data)
    figures: dict[str, Any] = {}
    nlls: dict[str, dict[int, Numbers]] = {}
    for kind, own in KINDS.items():
        for seed in options.seeds:
            settings = [*TRAINING, *own, *(TINY if options.tiny else [])]
            run = trained(options.out / f"{name}-{kind}-{seed}", file, settings, seed)
            held_out = file.split("validation")
            nlls.setdefault(kind, {})[seed] = np.array([nll.sum() for nll in token_nlls(run, held_out)])
            figures[f"{kind} {seed}"] = {
                "weights": run.report["weights"],
                "active_weights": run.report.get("active_weights", run.report["weights"]),
                "nll": float(nlls[kind][seed].mean()),
                "seconds": run.report["seconds"],
                "shares": shares(run, held_out) if kind != "dense" else None,
            }
            print(kind, seed, figures[f"{kind} {seed}"], flush=True)
    against = {kind: paired(nlls[kind], nlls["dense"]) for kind in KINDS}
    (options.out / f"{name}.json").write_text(json.dumps({"runs": figures, "against_dense": against}, indent=1))
    for kind, difference in against.items():
        print(f"{kind}: {difference['mean']:+.3f} nats per molecule to dense, 95 % {difference['interval']}")


@torch.inference_mode()
def shares(run: Run, corpus: Corpus) -> list[list[float]]:
    """Each expert's share of the tokens of up to 1,000 molecules, per block."""
    model = run.model(torch.device("cpu")).eval()
    batch = corpus.batch(np.arange(min(1_000, len(corpus))), torch.device("cpu"))
    with routing_recorded() as routings:
        model(batch.inputs)
    real = batch.targets != PAD
    counts = [r.chosen[real].bincount(minlength=r.probabilities.shape[-1]) for r in routings]
    return [(count / count.sum()).tolist() for count in counts]


if __name__ == "__main__":
    main()
