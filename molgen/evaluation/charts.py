"""Line charts of the report: their values, and the shapes that the template draws of them in SVG."""

import math
import re
from typing import NamedTuple


class Line(NamedTuple):
    """A line of a plot, in its label's style."""

    label: str
    style: str
    values: list[float]


class Frame(NamedTuple):
    """The size of a chart and the edges of the area that its lines are in, in units of the SVG."""

    width: int = 440
    height: int = 230
    left: int = 34
    right: int = 434
    top: int = 24
    bottom: int = 206


class Plot(NamedTuple):
    """A plot, and what tells the same in words."""

    title: str
    x_label: str
    y_label: str
    x: list[float]
    """Edges of bins, one more than there are values, or the places of the values."""
    lines: list[Line]
    y_range: tuple[float, float]
    caption: str
    frame: Frame = Frame()

    @property
    def binned(self) -> bool:
        """Whether the values are those of bins."""
        return len(self.x) > len(self.lines[0].values)

    @property
    def name(self) -> str:
        """Its `id` in the page."""
        return f"plot-{anchor(f'{self.title} {self.x_label}')}"

    @property
    def labels(self) -> str:
        """The labels of its lines."""
        return ", ".join(line.label for line in self.lines)

    def path(self, line: Line) -> str:
        """SVG path data: steps around bins down to the axis, or a line through points."""
        if not self.binned:
            points = zip(self.x, line.values, strict=True)
            return "M" + "L".join(f"{self._across(x)} {self._down(y)}" for x, y in points)
        steps = "".join(f"V{self._down(y)}H{self._across(x)}" for x, y in zip(self.x[1:], line.values, strict=True))
        return f"M{self._across(self.x[0])} {self.frame.bottom}{steps}V{self.frame.bottom}"

    def x_ticks(self) -> list[tuple[str, str]]:
        """(x in the SVG, number) of each mark of the axis."""
        return [(self._across(x), f"{x:g}") for x in _ticks(self.x[0], self.x[-1], 6, 0 if self.binned else 1)]

    def y_ticks(self) -> list[tuple[str, str]]:
        """(y in the SVG, number) of each rule."""
        return [(self._down(y), f"{y:g}") for y in _ticks(*self.y_range, 5)]

    def table(self) -> list[tuple[str, list[str]]]:
        """(bin or place, values of the lines) for each row of the table of values."""
        ends = zip(self.x, self.x[1:], strict=False)
        places = [f"{a:.4g} to {b:.4g}" for a, b in ends] if self.binned else [f"{self.x_label} {x:g}" for x in self.x]
        style = "{:.1f} %" if self.binned else "{:.4g}"
        rows = zip(places, *(line.values for line in self.lines), strict=True)
        return [(place, [style.format(value) for value in values]) for place, *values in rows]

    def _across(self, x: float) -> str:
        low, high = self.x[0], self.x[-1]
        return f"{self.frame.left + (x - low) / (high - low) * (self.frame.right - self.frame.left):.1f}"

    def _down(self, y: float) -> str:
        low, high = self.y_range
        inside = min(max(y, low), high)  # a value beyond the range stays at its edge
        return f"{self.frame.bottom - (inside - low) / (high - low) * (self.frame.bottom - self.frame.top):.1f}"


class Scatter(NamedTuple):
    """Points in a square whose axes are the same, with the diagonal on which they should be."""

    title: str
    x_label: str
    y_label: str
    points: list[tuple[float, float]]
    span: tuple[float, float]
    caption: str
    joined: bool = False
    """Whether a line goes through the points."""
    frame: Frame = Frame(300, 290, 44, 290, 24, 262)

    @property
    def name(self) -> str:
        """Its `id` in the page."""
        return f"scatter-{anchor(self.title)}"

    @property
    def path(self) -> str:
        """SVG path data: a dot for each point, or a line."""
        places = [f"{self._across(x)} {self._down(y)}" for x, y in self.points]
        return "M" + "L".join(places) if self.joined else "".join(f"M{place}h0" for place in places)

    @property
    def diagonal(self) -> str:
        """SVG path data."""
        low, high = self.span
        return f"M{self._across(low)} {self._down(low)}L{self._across(high)} {self._down(high)}"

    def ticks(self) -> list[tuple[str, str, str]]:
        """(x in the SVG, y in the SVG, number) of each mark of both axes."""
        return [(self._across(v), self._down(v), f"{v:g}") for v in _ticks(*self.span, 5)]

    def _across(self, x: float) -> str:
        return f"{self.frame.left + self._share(x) * (self.frame.right - self.frame.left):.1f}"

    def _down(self, y: float) -> str:
        return f"{self.frame.bottom - self._share(y) * (self.frame.bottom - self.frame.top):.1f}"

    def _share(self, value: float) -> float:
        low, high = self.span
        return (min(max(value, low), high) - low) / (high - low)


def anchor(title: str) -> str:
    """The `id` of what has a title."""
    return re.sub(r"\W+", "-", title.lower())


def _ticks(low: float, high: float, about: int, least: float = 0) -> list[float]:
    """Round numbers between two, `least` or more from each other."""
    raw = max((high - low) / about, least)
    power = 10 ** math.floor(math.log10(raw))
    step = next(power * k for k in (1, 2, 5, 10) if power * k >= raw)
    return [round(i * step, 10) for i in range(math.ceil(low / step), math.floor(high / step) + 1)]
