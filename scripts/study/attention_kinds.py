"""The quality of each kind of attention at equal weights and steps, on MOSES and on peptides.

    python scripts/study/attention_kinds.py moses --out runs/attention
    python scripts/study/attention_kinds.py peptides --out runs/attention

Validation molecules only; three seeds; differences to full attention are paired by molecule. On peptides, the NLL is
also given apart for tokens that close a ring opened 100 or more tokens before and for copied motifs (tokens whose 56
predecessors occurred in the same order 200 to 800 tokens before, followed by the same token), and the validity of
samples by length. A training that is there already is not repeated, one that was stopped goes on. --tiny shows in
minutes that everything works; its figures mean nothing.
"""

import argparse
import gzip
import json
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from held_out import Numbers, encoded, paired, token_nlls, trained
from molgen import MoleculeGenerator
from molgen.data.encoded_file import CorpusFile
from molgen.data.peptides import table
from molgen.data.sources import reference_smiles
from molgen.runs import Run

KINDS: dict[str, list[str]] = {
    "full": [],
    "window-16": ["model.attention=window", "model.window=16"],
    "window-32": ["model.attention=window", "model.window=32"],
    "window-128": ["model.attention=window", "model.window=128"],
    "performer": ["model.attention=performer"],
    "linear": ["model.attention=linear"],
    "linformer": ["model.attention=linformer", "model.window=32", "model.summaries=8"],
    "reformer": ["model.attention=reformer", "model.window=32", "model.buckets=8"],
}
DATA = {
    "moses": ["data.train_size=100000", "data.validation_size=5000"],
    "peptides": ["data.train_size=5000", "data.validation_size=500"],
}
TRAINING = {
    "moses": ["model.context=64", "training.epochs=3", "training.batch_size=128"],
    "peptides": ["model.context=1000", "training.epochs=5", "training.batch_tokens=16384"],
}
TINY = [
    *("model.width=32", "model.blocks=2", "model.heads=2", "model.head_width=16", "model.feedforward=64"),
    "training.epochs=1",
]
CLOSED_FROM, ALIKE, NEAREST, FARTHEST = 100, 56, 200, 800
BINS = (0, 200, 400, 700, 1_001)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=DATA)
    parser.add_argument("--out", type=Path, required=True, help="where runs and figures are kept")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("-n", type=int, default=None, help="samples of each run (10,000 of MOSES, 500 peptides)")
    parser.add_argument("--tiny", action="store_true", help="a few molecules and a small network")
    options = parser.parse_args()
    name = f"{options.data}-tiny" if options.tiny else options.data
    data = few(options.data, options.out) if options.tiny else DATA[options.data]
    file = encoded(options.out / f"{name}.molgen", options.data, data)
    n = options.n or (20 if options.tiny else {"moses": 10_000, "peptides": 500}[options.data])
    figures: dict[str, Any] = {}
    nlls: dict[str, dict[int, Numbers]] = {}
    parts: dict[str, dict[str, dict[int, Numbers]]] = {}
    for kind in options.kinds:
        for seed in options.seeds:
            settings = ["model.dropout=0.0", *TRAINING[options.data], *KINDS[kind], *(TINY if options.tiny else [])]
            run = trained(options.out / f"{name}-{kind}-{seed}", file, settings, seed)
            tokens = token_nlls(run, file.split("validation"))
            nlls.setdefault(kind, {})[seed] = np.array([nll.sum() for nll in tokens])
            figures[f"{kind} {seed}"] = {
                "weights": run.report["weights"],
                "nll": float(nlls[kind][seed].mean()),
                "seconds": run.report["seconds"],
                "validity": validity(run, n),
            }
            if options.data == "peptides":
                own = by_part(file, tokens)
                for part, nll in own.items():
                    parts.setdefault(part, {}).setdefault(kind, {})[seed] = nll
                figures[f"{kind} {seed}"] |= {part: float(np.nanmean(nll)) for part, nll in own.items()}
            print(kind, seed, figures[f"{kind} {seed}"], flush=True)
    against = {kind: paired(nlls[kind], nlls["full"]) for kind in nlls if "full" in nlls}
    of_parts = {part: {kind: paired_present(by[kind], by["full"]) for kind in by} for part, by in parts.items()}
    (options.out / f"{name}.json").write_text(
        json.dumps({"runs": figures, "against_full": against, "parts_against_full": of_parts}, indent=1)
    )
    for kind, difference in against.items():
        print(f"{kind}: {difference['mean']:+.3f} nats per molecule to full, 95 % {difference['interval']}")
    for part, by_kind in of_parts.items():
        for kind, difference in by_kind.items():
            print(f"{part}, {kind}: {difference['mean']:+.4f} nats per token to full, 95 % {difference['interval']}")


def few(data: str, out: Path) -> list[str]:
    """Settings for a few of the molecules."""
    path = out / f"{data}-tiny.csv.gz"
    out.mkdir(parents=True, exist_ok=True)
    sizes = {"train": 100, "validation": 15, "test": 5}
    if data == "peptides":
        path.write_bytes(table(sizes))
    else:
        smiles = reference_smiles("moses-mini", "train")[: sum(sizes.values())]
        splits = [split for split, size in sizes.items() for _ in range(size)]
        lines = [f"{one},{split}\n" for one, split in zip(smiles, splits, strict=True)]
        path.write_bytes(gzip.compress("".join(["smiles,split\n", *lines]).encode()))
    return [f"data.source={path}", "data.min_token_count=1", "data.rules=2"]


def paired_present(of: dict[int, Numbers], than: dict[int, Numbers]) -> dict[str, Any]:
    """As `paired`, of the molecules that have such tokens."""
    present = ~np.isnan(next(iter(of.values())))
    return paired({s: x[present] for s, x in of.items()}, {s: x[present] for s, x in than.items()})


def by_part(file: CorpusFile, tokens: Sequence[Numbers]) -> dict[str, Numbers]:
    """Mean NLL per token of each molecule's closures, copies and other tokens; NaN for a molecule without any."""
    found: dict[str, list[float]] = {"closures": [], "copies": [], "others": []}
    for smiles, nll in zip(file.strings("validation"), tokens, strict=True):
        written = file.tokenizer.splitter.split(smiles) or []
        masks = {"closures": np.zeros(len(nll), bool), "copies": np.zeros(len(nll), bool)}
        masks["closures"][list(closures(written))] = True
        masks["copies"][list(copies(written))] = True
        masks["others"] = ~(masks["closures"] | masks["copies"])
        for part, mask in masks.items():
            found[part].append(float(nll[mask].mean()) if mask.any() else np.nan)
    return {part: np.array(values) for part, values in found.items()}


def closures(tokens: Sequence[str]) -> Iterator[int]:
    """Places of tokens that close a ring opened at least so many tokens before."""
    opened: dict[str, int] = {}
    for place, token in enumerate(tokens):
        if token.lstrip("%").isdigit():
            if token in opened:
                if place - opened.pop(token) >= CLOSED_FROM:
                    yield place
            else:
                opened[token] = place


def copies(tokens: Sequence[str]) -> Iterator[int]:
    """Places of tokens that continue a copy of something 200 to 800 tokens before."""
    seen: dict[tuple[str, ...], list[int]] = {}
    for place in range(ALIKE, len(tokens)):
        before = tuple(tokens[place - ALIKE : place])
        earlier = seen.setdefault(before, [])
        if any(NEAREST <= place - p <= FARTHEST and tokens[p] == tokens[place] for p in earlier):
            yield place
        earlier.append(place)


def validity(run: Run, n: int) -> dict[str, Any]:
    """The share of valid samples, in all and by length; of runs that were measured before, as then."""
    kept = run.path / f"validity-{n}.json"
    if not kept.exists():
        frame = MoleculeGenerator.load(run.path, "cpu").sample(n, seed=0)
        lengths = frame.smiles.map(lambda s: len(run.tokenizer.splitter.split(s) or ()) if s else 0).to_numpy()
        found = {"all": [float(frame.valid.mean()), n]}
        for low, high in pairwise(BINS):
            inside = (lengths > low) & (lengths <= high)
            if inside.any():
                found[f"{low + 1} to {high}"] = [float(frame.valid[inside].mean()), int(inside.sum())]
        kept.write_text(json.dumps(found))
    return dict(json.loads(kept.read_text()))


if __name__ == "__main__":
    main()
