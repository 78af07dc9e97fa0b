"""Layer norm before or after each part: which learning rates and depths train, with and without a warm-up.

    python scripts/study/norms.py --out runs/norms.json --write docs/norms.png

Xiong et al. 2020 ("On Layer Normalization in the Transformer Architecture") find that after-norm has large gradients
near the output at the start, so it needs a warm-up; before-norm does not. Here: networks of width 64 on the bundled
molecules of MOSES, Adam without weight decay or clipping, PyTorch's initialisation, dropout 0, fp32; a final norm with
before-norm only. For each point: the norm of each block's first gradient (the mean over five batches), the training NLL
per token over the last tenth of the steps, and whether it diverged (not finite, or no better than the distribution of
tokens alone). A point that is in the file already is not measured again.
"""

import argparse
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from figures import panels
from molgen.config import ModelConfig
from molgen.data.batches import Corpus
from molgen.data.sources import reference_smiles
from molgen.model.build import build_model
from molgen.model.decoder import Decoder
from molgen.model.likelihood import token_nll
from molgen.tokenizer import PAD, SmilesTokenizer, deepchem_pattern

RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
DEPTHS = (2, 6, 12, 24)
WARMUP = 0.2  # share of the steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the JSON file of the figures")
    parser.add_argument("--steps", type=int, default=400, help="of each training (400)")
    parser.add_argument("--rates", nargs="+", type=float, default=RATES)
    parser.add_argument("--depths", nargs="+", type=int, default=DEPTHS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--write", type=Path, help="draw the figure into this file")
    options = parser.parse_args()
    corpus, vocabulary = molecules()
    floor = entropy(corpus)
    figures: dict[str, Any] = json.loads(options.out.read_text()) if options.out.exists() else {}
    figures["entropy_of_tokens"] = floor
    for depth in options.depths:
        for norm in ("before", "after"):
            for seed in options.seeds:
                for warmup in (True, False):
                    for rate in options.rates:
                        key = f"{norm} {depth} {'warm-up' if warmup else 'none'} {rate:g} {seed}"
                        if key not in figures:
                            model = network(norm, depth, vocabulary, seed)
                            figures[key] = trained(model, corpus, rate, warmup, options.steps, seed)
                            figures[key]["diverged"] = not (figures[key]["nll"] or math.inf) < floor
                            options.out.parent.mkdir(parents=True, exist_ok=True)
                            options.out.write_text(json.dumps(figures, indent=1))
                            print(key, {k: v for k, v in figures[key].items() if k != "gradients"}, flush=True)
    if options.write:
        draw(figures, options.write)


def molecules() -> tuple[Corpus, int]:
    """The bundled training molecules, encoded, and the size of their vocabulary."""
    smiles = reference_smiles("moses-mini", "train")
    tokenizer = SmilesTokenizer.of_corpus(smiles, deepchem_pattern(), False, "")
    return Corpus.of([tokenizer.encode(s) or [] for s in smiles], len(tokenizer)), len(tokenizer)


def entropy(corpus: Corpus) -> float:
    """Nats per token of a model that knows only how frequent each token is."""
    counts = np.bincount(corpus.ids)[2:].astype(float)  # without padding and the start
    p = counts[counts > 0] / counts.sum()
    return float(-(p * np.log(p)).sum())


def network(norm: str, depth: int, vocabulary: int, seed: int) -> Decoder:
    """A decoder of the study."""
    numbers = {"context": 64, "width": 64, "blocks": depth, "heads": 2, "head_width": 32, "feedforward": 256}
    config = ModelConfig.model_validate(
        {**numbers, "norm": norm, "final_norm": norm == "before", "initialization": "pytorch", "tied_head": False,
         "dropout": 0.0, "biases": True}
    )  # fmt: skip
    return build_model(config, vocabulary, seed)


def trained(model: Decoder, corpus: Corpus, rate: float, warmup: bool, steps: int, seed: int) -> dict[str, Any]:
    """Trains for some steps of 32 molecules; returns the gradients at the start and the NLL at the end."""
    rng = np.random.default_rng(seed)
    gradients = np.mean([by_block(model, corpus, rng) for _ in range(5)], axis=0)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate, betas=(0.9, 0.98))
    losses = []
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * (min(1.0, (step + 1) / (WARMUP * steps)) if warmup else 1.0)
        loss = mean_nll(model, corpus, rng)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        losses.append(float(loss.detach()))
        if not math.isfinite(losses[-1]):
            break
    tail = losses[-max(1, steps // 10) :]
    return {
        "gradients": gradients.tolist(),
        "nll": float(np.mean(tail)) if np.isfinite(tail).all() else None,
        "steps": len(losses),
        "worst_after_start": max(losses[len(losses) // 4 :]) if np.isfinite(losses).all() else None,
    }


def mean_nll(model: Decoder, corpus: Corpus, rng: np.random.Generator) -> torch.Tensor:
    """The NLL per token of 32 random molecules."""
    batch = corpus.batch(rng.integers(len(corpus), size=32), torch.device("cpu"))
    return token_nll(model(batch.inputs), batch.targets).sum() / (batch.targets != PAD).sum()


def by_block(model: Decoder, corpus: Corpus, rng: np.random.Generator) -> list[float]:
    """The norm of the gradient of each block's feed-forward output matrix, as Xiong et al. show it."""
    weights = [block.feedforward.output.weight for block in model.blocks]  # type: ignore[union-attr]
    gradients = torch.autograd.grad(mean_nll(model, corpus, rng), weights)  # type: ignore[arg-type]
    return [float(gradient.norm()) for gradient in gradients]


def draw(figures: dict[str, Any], path: Path) -> None:
    """Gradient norms by block of the deepest networks; NLL against the learning rate, a panel per depth."""
    keys = [key.split() for key in figures if " " in key]
    depths = sorted({int(depth) for _, depth, *_ in keys})
    colors = {"before": "#2f6f9f", "after": "#c8553d"}
    with panels(path, 1 + len(depths), 4 * (1 + len(depths))) as axes:
        for norm, color in colors.items():
            found = [p["gradients"] for k, p in figures.items() if k.startswith(f"{norm} {depths[-1]} ")]
            axes[0].plot(range(1, depths[-1] + 1), np.mean(found, axis=0), color=color, label=f"norm {norm}")
        axes[0].set(xlabel="block", ylabel="norm of its first gradient", yscale="log", title=f"{depths[-1]} blocks")
        axes[0].legend(frameon=False, fontsize=8)
        for axis, depth in zip(axes[1:], depths, strict=True):
            for norm, color in colors.items():
                for warmup, style in (("warm-up", "o-"), ("none", "x--")):
                    rates, values = curve(figures, f"{norm} {depth} {warmup} ")
                    axis.plot(rates, values, style, color=color, markersize=4, label=f"{norm}, {warmup}")
            axis.axhline(figures["entropy_of_tokens"], color="#9aa5b8", linestyle=":")
            axis.set(xscale="log", xlabel="learning rate", title=f"{depth} blocks", ylabel="NLL per token at the end")
        axes[1].legend(frameon=False, fontsize=7)


def curve(figures: dict[str, Any], prefix: str) -> tuple[list[float], list[float]]:
    """(learning rates, the mean NLL over seeds; what diverged counts as the entropy of the tokens)."""
    floor = figures["entropy_of_tokens"]
    by_rate: dict[float, list[float]] = {}
    for key, point in figures.items():
        if key.startswith(prefix):
            by_rate.setdefault(float(key.split()[3]), []).append(floor if point["diverged"] else point["nll"])
    return sorted(by_rate), [float(np.mean(by_rate[rate])) for rate in sorted(by_rate)]


if __name__ == "__main__":
    main()
