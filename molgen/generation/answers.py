"""What was asked for beside what came: columns, one line of figures, a plot.

What RDKit computes is computed; of what was measured, the run's predictor has the word.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from molgen.chem.pool import Workers
from molgen.data.conditions import COMPUTED, ConditionTable, Wish, computed_values
from molgen.generation.rejection import Sample
from molgen.prediction.predictor import RunPredictor
from molgen.runtime.distributed import SINGLE_PROCESS, ProcessGroup
from molgen.runtime.files import replacing

_MOST_KEPT = 1_000_000  # values of a wish that are kept for the figures
_INK, _TRAINING, _GOT = "#3a3a44", "#9aa5b8", "#2a6fbb"


class Answers:
    """Compares samples, batch by batch, with what was asked for."""

    def __init__(
        self, wishes: Sequence[Wish], table: ConditionTable, workers: Workers, predictor: RunPredictor | None
    ) -> None:
        self.wishes, self.table, self._workers, self._predictor = wishes, table, workers, predictor
        self._got: list[npt.NDArray[np.float64]] = []
        self._kept, self._last = 0, dict[str, npt.NDArray[np.float64]]()

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns: for each wish, what was asked for and what came."""
        return tuple(f"{prefix}_{wish.name}" for wish in self.wishes for prefix in ("asked", "got"))

    def see(self, batch: Sequence[Sample]) -> None:
        """Computes or predicts what came, for a batch of samples, whose cells can then be asked for."""
        smiles = [sample.canonical for sample in batch if sample.canonical]
        got = self.got(smiles)
        self._last = dict(zip(smiles, got, strict=True))
        if self._kept < _MOST_KEPT:
            self._got.append(got)
            self._kept += len(got)

    def got(self, smiles: Sequence[str]) -> npt.NDArray[np.float64]:
        """(N, wishes) the values of canonical SMILES; NaN where there is none."""
        found = np.full((len(smiles), len(self.wishes)), np.nan)
        computed = [wish.name for wish in self.wishes if wish.name in COMPUTED]
        values = computed_values(smiles, computed, self._workers) if computed and smiles else None
        asks_more = len(computed) < len(self.wishes) and smiles and self._predictor is not None
        predicted = self._predictor.predict(smiles) if asks_more and self._predictor is not None else {}
        for place, wish in enumerate(self.wishes):
            if wish.name in computed:
                found[:, place] = values[:, computed.index(wish.name)] if values is not None else np.nan
            elif wish.name in predicted:
                found[:, place] = predicted[wish.name].values
        return found

    def cells(self, canonical: str | None) -> dict[str, str | float | None]:
        """The cells of a sample of the last batch; only what was asked for if it is not valid."""
        got = self._last.get(canonical or "")
        cells: dict[str, str | float | None] = {}
        for place, wish in enumerate(self.wishes):
            value = None if got is None or np.isnan(got[place]) else float(got[place])
            cells |= {f"asked_{wish.name}": f"{['', '>', '<'][wish.side]}{wish.value:g}", f"got_{wish.name}": value}
        return cells

    def all(self, group: ProcessGroup = SINGLE_PROCESS) -> npt.NDArray[np.float64]:
        """(N, wishes) all values so far, of all processes."""
        own = np.concatenate(self._got) if self._got else np.empty((0, len(self.wishes)))
        if group.size == 1:
            return own
        return group.all_gather(own.ravel().view(np.int64)).view(np.float64).reshape(-1, len(self.wishes))

    def lines(self, values: npt.NDArray[np.float64]) -> list[str]:
        """One line for each wish: mean, spread and mean distance of what came."""
        lines = []
        for place, wish in enumerate(self.wishes):
            own = values[~np.isnan(values[:, place]), place]
            word = "came" if wish.name in COMPUTED else "the predictor says"
            if not len(own):
                lines.append(f"asked {wish.text}: no value to compare with")
            elif self.table.scales.classes[wish.place]:
                share = float(((own > 0.5) == (wish.value > 0.5)).mean())
                lines.append(f"asked {wish.text}: {word} {share:.1%} of that class (n = {len(own):,})")
            elif wish.side:
                share = float(((own - wish.value) * wish.side > 0).mean())
                lines.append(
                    f"asked {wish.text}: {word} {share:.1%} beyond it, mean {own.mean():.3g} (n = {len(own):,})"
                )
            else:
                lines.append(
                    f"asked {wish.text}: {word} {own.mean():.3g} ± {own.std():.2g}, mean |asked − got| "
                    f"{np.abs(own - wish.value).mean():.3g} (n = {len(own):,})"
                )
        return lines

    def draw(self, values: npt.NDArray[np.float64], path: Path) -> None:
        """Draws a histogram for each wish, of the training molecules and of what came, into a .png or .svg file."""
        from matplotlib import rc_context, rcdefaults, rcParams  # a second, which most samples do not need
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        n = len(self.wishes)
        with rc_context():
            rcdefaults()  # ignores a matplotlibrc in the current folder
            rcParams.update(
                {"font.size": 9, "axes.edgecolor": _INK, "axes.spines.top": False, "axes.spines.right": False}
            )
            figure = Figure(figsize=(3.4 * n, 2.6), layout="constrained")
            FigureCanvasAgg(figure)  # needs no display
            for place, (axes, wish) in enumerate(
                zip(figure.subplots(1, n, squeeze=False)[0], self.wishes, strict=True)
            ):
                training = self.table.train.values[:, wish.place]
                training, own = training[~np.isnan(training)], values[~np.isnan(values[:, place]), place]
                both = np.concatenate([training, own, [wish.value]])
                bins = np.linspace(both.min(), max(both.max(), both.min() + 1e-9), 41)
                axes.hist(training, bins=bins, density=True, color=_TRAINING, label="training")
                if len(own):
                    axes.hist(own, bins=bins, density=True, color=_GOT, alpha=0.7, label="got")
                axes.axvline(wish.value, color=_INK, linewidth=1, label="asked")
                axes.set(yticks=[])
                # the name of a column is arbitrary text: it is not a formula
                axes.set_xlabel(wish.text.encode("utf-8", "replace").decode(), parse_math=False)
                if not place:
                    figure.legend(frameon=False, fontsize=8, loc="outside upper right", ncols=3)
            with replacing(path) as file:
                figure.savefig(file, dpi=130, format=path.suffix[1:])


def plot_path(grid: Path) -> Path:
    """The path of the plot beside a picture of samples: `x.png` → `x.conditions.png`."""
    return grid.with_suffix(f".conditions{grid.suffix}")


def as_cells(answers: Answers, canonical: Sequence[str | None]) -> Mapping[str, list[str | float | None]]:
    """The columns of some samples, in their order."""
    valid = list(dict.fromkeys(one for one in canonical if one))
    answers.see([Sample(one, one) for one in valid])
    rows = [answers.cells(one) for one in canonical]
    return {name: [row[name] for row in rows] for name in answers.columns}
