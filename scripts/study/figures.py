"""Figures of the documents: panels side by side, all in one style."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


@contextmanager
def panels(path: Path, count: int, width: float, title: str = "") -> Iterator[list[Axes]]:
    """Axes to draw on, side by side, `width` inches in all; written to `path` at the end of the block."""
    figure = Figure(figsize=(width, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    if title:
        figure.suptitle(title, fontsize=10)
    axes = list(figure.subplots(1, count))
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    yield axes
    figure.savefig(path, dpi=130)
