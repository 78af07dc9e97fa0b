"""How good a run's predictions are: on its held-out split beside its neighbours, on other splits; intervals."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from molgen.data.labels import LabelArrays
from molgen.data.scaffolds import scaffolds_of
from molgen.evaluation.options import Split
from molgen.machine import Runtime
from molgen.prediction.figures import CLASSIFICATION, REGRESSION, figures, rmse, spearman
from molgen.prediction.fingerprints import Fingerprints
from molgen.prediction.intervals import LEVELS
from molgen.prediction.learning import folds_of
from molgen.prediction.neighbours import KINDS, SETTINGS, Kind, fit
from molgen.prediction.predictor import RunPredictor
from molgen.prediction.stored import TargetModel

Values = npt.NDArray[np.float64]
Figures = dict[str, float | None]
_FOLDS, _MOST_REFITTED = 5, 2_000
_SIMILARITIES = (0.0, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0)
_RELIABILITY_BINS = 10
_TITLES = {"rmse": "RMSE", "mae": "MAE", "r2": "R2", "spearman": "Spearman", "roc_auc": "ROC-AUC", "pr_auc": "PR-AUC"}
BASELINE = "the mean"


@dataclass
class TargetEvaluation:
    """The figures of one target."""

    name: str
    is_class: bool
    chosen: str
    n: int
    """Held-out molecules with a value."""
    censored: int
    """Held-out molecules with a bound, left out of all errors."""
    noise: float | None
    predictors: dict[str, Figures] = field(default_factory=dict)
    """Each predictor's figures on the held-out split, with `NAME_stderr`."""
    intervals: Figures = field(default_factory=dict)
    """Coverage and width of the chosen predictor's intervals, beside those of constant width."""
    by_similarity: list[Figures] = field(default_factory=list)
    splits: dict[str, Figures] = field(default_factory=dict)
    """A neighbour, fitted anew in five folds of all molecules, by how they are divided."""
    refitted: str = ""
    """Which neighbour that is."""
    truth: Values = field(default_factory=lambda: np.empty(0))
    predicted: Values = field(default_factory=lambda: np.empty(0))
    calibration: list[tuple[float, float]] = field(default_factory=list)
    """(asked, found): coverage of intervals, or of a class the mean probability and the share of 1 in each bin."""

    def to_json(self) -> dict[str, Any]:
        """Without the values of single molecules."""
        shown = {key: value for key, value in vars(self).items() if key not in ("truth", "predicted", "name")}
        return shown | {"calibration": [list(point) for point in self.calibration]}


def evaluate_predictions(predictor: RunPredictor, split: Split) -> list[TargetEvaluation]:
    """Of each target, on a held-out split of the run."""
    run, runtime = predictor.run, predictor.runtime
    smiles = [m.smiles for m in run.molecules if m.split == split]
    labels = LabelArrays.of(run.labels, smiles, len(run.targets))
    members = predictor.members(smiles) if smiles else [{} for _ in run.targets]
    chosen = predictor.predict(smiles) if smiles else {}
    nearest = predictor.nearest(smiles).similarity if smiles else np.empty(0)
    folds = _divisions(predictor.known + smiles, runtime)
    found = []
    for place, target in enumerate(predictor.targets):
        rows = np.flatnonzero(labels.measured[:, place])
        one = TargetEvaluation(
            target.name,
            target.is_class,
            predictor.kinds[target.name],
            len(rows),
            int((labels.sides[:, place] != 0).sum()),
            target.noise,
        )
        if len(rows):
            own = {kind: values[rows] for kind, values in members[place].items()}
            prediction = chosen[target.name]
            _held_out(one, target, own, labels.values[rows, place], predictor)
            one.truth, one.predicted = labels.values[rows, place], prediction.values[rows]
            widths = prediction.high[rows] - prediction.low[rows]
            _intervals(one, target, widths, nearest[rows])
        together = np.concatenate((predictor.labels.values[:, place], labels.values[:, place]))
        measured = np.concatenate((predictor.labels.measured[:, place], labels.measured[:, place]))
        _refit(one, target, predictor.known + smiles, together, measured, folds, runtime)
        found.append(one)
    return found


def _held_out(
    one: TargetEvaluation, target: TargetModel, members: dict[str, Values], truth: Values, predictor: RunPredictor
) -> None:
    if target.weights:
        members = {**members, "mean": predictor.combined(target, members)}
    for kind, values in members.items():
        known = ~np.isnan(values)
        if known.all():
            one.predictors[kind] = figures(truth, values, one.is_class)
    mean = np.full(len(truth), target.centre if not one.is_class else float(np.mean(truth)))
    one.predictors[BASELINE] = figures(truth, mean, one.is_class)


def _intervals(one: TargetEvaluation, target: TargetModel, widths: Values, nearest: Values) -> None:
    """Coverage, widths and their correlation with errors; of a class a reliability diagram only."""
    truth, predicted = one.truth, one.predicted
    if one.is_class:
        bins = np.minimum((predicted * _RELIABILITY_BINS).astype(int), _RELIABILITY_BINS - 1)
        one.calibration = [
            (float(predicted[bins == b].mean()), float(truth[bins == b].mean())) for b in np.unique(bins)
        ]
        one.intervals = {"mean_width": float(np.nanmean(widths)) if not np.isnan(widths).all() else None}
        return
    calibration = target.calibrations.get(one.chosen)
    known = ~np.isnan(predicted) & ~np.isnan(widths)
    if calibration is None or not known.any():
        return
    errors, half = np.abs(truth - predicted)[known], widths[known] / 2
    related = spearman(half, errors)
    one.intervals = {
        "coverage": float((errors <= half).mean()),
        "mean_width": float(2 * half.mean()),
        "constant_coverage": float((errors <= calibration.constant).mean()),
        "constant_width": 2 * calibration.constant,
        "width_error_spearman": None if np.isnan(related) else related,
    }
    expected = half / max(calibration.quantile, 1e-12)
    pairs = zip(LEVELS, calibration.curve, strict=False)
    one.calibration = [(level, float((errors <= quantile * expected).mean())) for level, quantile in pairs]
    for low, high in pairwise(_SIMILARITIES):
        inside = (nearest[known] >= low) & ((nearest[known] < high) | (high == 1))
        if inside.any():
            one.by_similarity.append(
                {
                    **{"from": low, "to": high, "n": int(inside.sum())},
                    "rmse": float(np.sqrt(np.mean(errors[inside] ** 2))),
                    "coverage": float((errors[inside] <= half[inside]).mean()),
                    "mean_width": float(2 * half[inside].mean()),
                }
            )


def _divisions(smiles: Sequence[str], runtime: Runtime) -> dict[str, npt.NDArray[np.int64]]:
    """How molecules are divided into five folds: name → the fold of each."""
    described = runtime.workers.map("describe", smiles, "grouping", parts=("tautomer",))
    tautomers = [str((parts or {}).get("tautomer", "")) for parts in described]
    return {
        "random": folds_of(len(smiles), _FOLDS),
        "grouped": folds_of(len(smiles), _FOLDS, tautomers),
        "scaffold": folds_of(len(smiles), _FOLDS, scaffolds_of(smiles, runtime.workers)),
    }


def _refit(
    one: TargetEvaluation,
    target: TargetModel,
    smiles: Sequence[str],
    values: Values,
    measured: npt.NDArray[np.bool_],
    divisions: dict[str, npt.NDArray[np.int64]],
    runtime: Runtime,
) -> None:
    """The best neighbour with its setting, in five folds by each division; the joint model is not trained anew."""
    rows = np.flatnonzero(measured)
    if len(rows) > _MOST_REFITTED:
        rows = np.sort(np.random.default_rng(0).permutation(rows)[:_MOST_REFITTED])
    kinds: list[Kind] = [kind for kind in KINDS if kind in target.settings]
    if not kinds or len(rows) < 2 * _FOLDS:
        return
    kind = min(kinds, key=lambda one_kind: target.errors.get(one_kind, np.inf))
    setting = next(s for s in SETTINGS[kind] if dict(s) == dict(target.settings[kind]))
    prints = Fingerprints.of([smiles[i] for i in rows.tolist()], runtime.workers)
    one.refitted = kind
    for name, division in divisions.items():
        fold, held, mean = division[rows], np.full(len(rows), np.nan), np.full(len(rows), np.nan)
        for number in range(_FOLDS):
            inside, outside = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
            own = values[rows][inside]
            if not len(outside) or len(inside) < _FOLDS or (one.is_class and len(np.unique(own)) < 2):
                continue
            held[outside] = fit(kind, setting, prints, own, one.is_class, inside)(prints.rows(outside), prints)
            mean[outside] = own.mean()
        known = ~np.isnan(held)
        one.splits[name] = {**figures(values[rows][known], held[known], one.is_class), "n": int(known.sum())}
        if not one.is_class:
            one.splits[name]["baseline"] = rmse(values[rows][known], mean[known])


def lines(one: TargetEvaluation, split: str) -> list[str]:
    """The figures as text."""
    names = list(CLASSIFICATION if one.is_class else REGRESSION)
    left_out = f", {one.censored:,} with a bound left out" if one.censored else ""
    floor = f"; noise floor {one.noise:.3f} (replicates)" if one.noise is not None else ""
    rows = [(f"{one.name}, {split} split: n = {one.n:,}{left_out}{floor}", [_TITLES[name] for name in names])]
    ranked = sorted(one.predictors.items(), key=lambda item: item[0] == BASELINE)
    rows += [(f"  {k}{' (taken)' if k == one.chosen else ''}", [_cell(f, name) for name in names]) for k, f in ranked]
    for name, found in one.splits.items():
        rows.append((f"  {one.refitted}, {_FOLDS} {name} folds", [_cell(found, key) for key in names]))
    width = max(28, *(len(title) + 2 for title, _ in rows[1:]))
    text = [rows[0][0], " " * width + "".join(f"{cell:>17}" for cell in rows[0][1])]
    text += [f"{title:<{width}}" + "".join(f"{cell:>17}" for cell in cells) for title, cells in rows[1:]]
    if "coverage" in one.intervals:
        i = {key: value if value is not None else float("nan") for key, value in one.intervals.items()}
        text.append(
            f"  intervals: coverage {i['coverage']:.3f}, mean width {i['mean_width']:.2f}; of constant width: "
            f"{i['constant_coverage']:.3f}, {i['constant_width']:.2f}; rank correlation of width and error "
            f"{i['width_error_spearman']:.2f}"
        )
    for b in one.by_similarity:
        text.append(
            f"  similarity {b['from']:.1f} to {b['to']:.1f}: n = {b['n']:,}, RMSE {b['rmse']:.3f}, coverage "
            f"{b['coverage']:.3f}, mean width {b['mean_width']:.2f}"
        )
    return text


def _cell(found: Figures, name: str) -> str:
    value, error = found.get(name), found.get(f"{name}_stderr")
    if value is None:
        return "–"
    return f"{value:.3f}" + (f" ± {error:.3f}" if error is not None else "")
