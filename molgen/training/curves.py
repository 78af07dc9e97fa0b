"""The learning curves of a training as a picture."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib import rc_context, rcdefaults, rcParams
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from molgen.runtime.files import replacing

_INK, _TRAIN, _VALIDATION = "#3a3a44", "#9aa5b8", "#2a6fbb"


def draw_curves(log: Sequence[dict[str, float]], path: Path, title: str) -> None:
    """Draws training and validation NLL and validation top-1 by epoch, with the best epoch marked, into a PNG file."""
    epochs = [row["epoch"] for row in log]
    best = min(log, key=lambda row: row["val_nll"])
    with rc_context():
        rcdefaults()  # ignores a matplotlibrc in the current folder
        rcParams.update({"font.size": 10, "axes.edgecolor": _INK, "axes.spines.top": False, "axes.spines.right": False})
        figure = Figure(figsize=(10, 3.8), layout="constrained")
        FigureCanvasAgg(figure)  # needs no display
        left, right = figure.subplots(1, 2)
        left.plot(epochs, [row["train_nll"] for row in log], color=_TRAIN, label="training, as shown to the model")
        left.plot(epochs, [row["val_nll"] for row in log], color=_VALIDATION, label="validation")
        left.plot(best["epoch"], best["val_nll"], "o", color=_VALIDATION, label=f"best: {best['val_nll']:.2f}")
        left.set(xlabel="epoch", ylabel="NLL, nats per molecule")
        # the name of a folder is arbitrary text: it is not a formula, and may not be valid UTF-8
        left.set_title(title.encode("utf-8", "replace").decode(), parse_math=False)
        # the scale leaves out the first epochs, because their NLL is much higher
        late = [row for row in log if row["epoch"] > len(log) // 10] or log
        shown = [row[key] for row in late for key in ("train_nll", "val_nll")]
        left.set_ylim(min(shown) * 0.95, max(shown) * 1.05)
        left.legend(frameon=False, loc="upper right")
        right.plot(epochs, [row["val_top1"] for row in log], color=_VALIDATION)
        right.set(xlabel="epoch", ylabel="top-1 reconstruction, share of tokens", title="validation")
        with replacing(path) as file:
            figure.savefig(file, dpi=130, format="png")
