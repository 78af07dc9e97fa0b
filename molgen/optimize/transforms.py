"""Raw values to scores in [0, 1]: clipping, Gaussians, sigmoids, steps, ranges.

The names in GuacaMol (Brown et al. 2019): clip is ClippedScoreModifier, gaussian, at_most and at_least are
GaussianModifier, MinGaussianModifier and MaxGaussianModifier. In REINVENT: sigmoid, reverse_sigmoid, double_sigmoid.
"""

import math
from typing import Annotated

from pydantic import Field, model_validator

from molgen.config import Section

Finite = Annotated[float, Field(allow_inf_nan=False)]
Pair = Annotated[list[Finite], Field(min_length=2, max_length=2)]


class Transform(Section):
    """One way from a raw value to a score; exactly one field is given."""

    clip: Annotated[Finite, Field(gt=0)] | None = None
    """x / clip, limited to [0, 1]."""
    gaussian: Pair | None = None
    """[mu, sigma]: 1 at mu."""
    at_most: Pair | None = None
    """[mu, sigma]: 1 up to mu, then a Gaussian."""
    at_least: Pair | None = None
    """[mu, sigma]: a Gaussian up to mu, then 1."""
    rising: Pair | None = None
    """[low, high]: 0 at low, 1 at high, linear between."""
    falling: Pair | None = None
    """[low, high]: 1 at low, 0 at high, linear between."""
    sigmoid: Pair | None = None
    """[low, high]: a logistic curve, 0.01 at low and 0.99 at high; with high below low it falls."""
    between: Pair | None = None
    """[low, high]: 1 inside, 0 outside."""
    absent: bool | None = None
    """1 − x: for a pattern that must not match."""

    @model_validator(mode="after")
    def _one(self) -> "Transform":
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"a transform is one of {', '.join(type(self).model_fields)}, got {len(given)}")
        for name in ("gaussian", "at_most", "at_least"):
            if (pair := getattr(self, name)) is not None and pair[1] <= 0:
                raise ValueError(f"{name}: sigma {pair[1]:g} is not above 0")
        for name in ("rising", "falling", "between"):
            if (pair := getattr(self, name)) is not None and pair[0] >= pair[1]:
                raise ValueError(f"{name}: {pair[0]:g} is not below {pair[1]:g}")
        if self.sigmoid is not None and self.sigmoid[0] == self.sigmoid[1]:
            raise ValueError("sigmoid: low and high are equal")
        return self

    def __call__(self, x: float) -> float:
        """The score of a raw value; NaN stays NaN."""
        if self.clip is not None:
            return _limited(x / self.clip)
        if self.gaussian is not None:
            return _gaussian(x, self.gaussian)
        if self.at_most is not None:
            return 1.0 if x <= self.at_most[0] else _gaussian(x, self.at_most)
        if self.at_least is not None:
            return 1.0 if x >= self.at_least[0] else _gaussian(x, self.at_least)
        if self.rising is not None:
            return _limited((x - self.rising[0]) / (self.rising[1] - self.rising[0]))
        if self.falling is not None:
            return _limited((self.falling[1] - x) / (self.falling[1] - self.falling[0]))
        if self.sigmoid is not None:
            low, high = self.sigmoid
            exponent = 2 * math.log(99) * (x - (low + high) / 2) / (high - low)
            return 1 / (1 + math.exp(-max(-700.0, min(700.0, exponent)))) if x == x else x
        if self.between is not None:
            return float(self.between[0] <= x <= self.between[1]) if x == x else x
        return 1 - x


def _gaussian(x: float, pair: list[float]) -> float:
    return math.exp(-0.5 * ((x - pair[0]) / pair[1]) ** 2)


def _limited(x: float) -> float:
    return x if x != x else min(1.0, max(0.0, x))
