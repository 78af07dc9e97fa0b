"""Pictures of a training."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # files only; no window, no display

from matplotlib import pyplot as plt

_INK, _TRAIN, _VALIDATION = "#3a3a44", "#9aa5b8", "#2a6fbb"


def draw_curves(log: Sequence[dict[str, float]], path: Path, title: str) -> None:
    """NLL of training and validation and validation top-1 over the epochs, the best epoch marked."""
    epochs = [row["epoch"] for row in log]
    best = min(log, key=lambda row: row["val_nll"])
    with plt.rc_context(
        {"font.size": 10, "axes.edgecolor": _INK, "axes.spines.top": False, "axes.spines.right": False}
    ):
        figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
        left.plot(epochs, [row["train_nll"] for row in log], color=_TRAIN, label="training (as shown to the model)")
        left.plot(epochs, [row["val_nll"] for row in log], color=_VALIDATION, label="validation")
        left.plot(best["epoch"], best["val_nll"], "o", color=_VALIDATION, label=f"best: {best['val_nll']:.2f}")
        left.set(xlabel="epoch", ylabel="NLL, nats a molecule", title=title)
        floor = min(min(row["train_nll"], row["val_nll"]) for row in log)
        early = sorted(row["val_nll"] for row in log)
        left.set_ylim(floor * 0.95, max(early[-max(1, len(early) // 10)], floor * 1.5))
        left.legend(frameon=False)
        right.plot(epochs, [row["val_top1"] for row in log], color=_VALIDATION, label="validation")
        right.set(xlabel="epoch", ylabel="top-1 reconstruction, share of tokens")
        right.legend(frameon=False, loc="lower right")
        figure.savefig(path, dpi=130)
        plt.close(figure)
