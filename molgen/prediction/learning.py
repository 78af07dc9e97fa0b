"""After a joint training: its neighbours are fitted, compared with it on validation, and calibrated.

Every neighbour sees the training molecules only when it is compared. The one that predicts afterwards has learned from
the validation molecules too; the joint model has not.
"""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from molgen.data.labels import LabelArrays, noise_floor
from molgen.data.scaffolds import scaffolds_of
from molgen.machine import Runtime
from molgen.prediction import figures, intervals, stored
from molgen.prediction.fingerprints import Fingerprints, similarity
from molgen.prediction.intervals import Intervals
from molgen.prediction.joint import joint_predictions
from molgen.prediction.neighbours import KINDS, SETTINGS, Fitted, Kind, fit
from molgen.runs import PREDICTORS, Run

logger = logging.getLogger(__name__)

Values = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]
_TUNING_FOLDS, _FOLDS, _TUNING_TREES = 3, 5, 50
_MOST_IN_TUNING, _MOST_IN_FOLDS = 1_500, 3_000
_MOSTLY = 0.8
_FEWEST, _FEWEST_OF_CLASS = 10, 5
"""Molecules with a value that a neighbour is fitted to; of each of two classes."""
_SHARES = np.linspace(0, 1, 11)  # of the joint model in the mean


def learn(run: Run, runtime: Runtime) -> list[stored.TargetModel]:
    """Fits, compares and calibrates what predicts each target of a trained run, and writes it into the run."""
    molecules = [m for split in ("train", "validation") for m in run.molecules if m.split == split]
    smiles = [m.smiles for m in molecules]
    held_out = np.array([m.split == "validation" for m in molecules])
    labels = LabelArrays.of(run.labels, smiles, len(run.targets))
    scales = labels.rows(np.flatnonzero(~held_out)).scales
    prints = Fingerprints.of(smiles, runtime.workers)
    scaffolds = scaffolds_of(smiles, runtime.workers)
    settings = run.config.prediction
    joint = np.full(labels.values.shape, np.nan)
    joint[held_out] = joint_predictions(
        run.model(runtime.device),
        run.tokenizer,
        [one for one, is_out in zip(smiles, held_out, strict=True) if is_out],
        scales,
        settings.forms,
        settings.mask == "bidirectional",
        runtime.workers,
    )
    about, fitted, errors = [], {}, {}
    for place, name in enumerate(run.targets):
        logger.info(f"{name}: fitting its neighbours: forest, boosting and support vectors on fingerprints")
        one = Comparison(
            prints,
            labels.values[:, place],
            labels.measured[:, place],
            held_out,
            joint[:, place],
            bool(scales.classes[place]),
            scaffolds,
        )
        noise = noise_floor([run.labels[s][place] for s in smiles if s in run.labels])
        found = one.learned(settings.coverage, run.config.data.split == "scaffold")
        about.append(
            stored.TargetModel(
                name=name,
                is_class=one.is_class,
                centre=float(scales.centre[place]),
                spread=float(scales.spread[place]),
                noise=noise[0],
                noise_molecules=noise[1],
                measured=int(one.measured.sum()),
                censored=int((labels.sides[:, place] != 0).sum()),
                chosen=settings.predictor if settings.predictor != "auto" else found.chosen,
                weights=found.weights,
                settings={kind: dict(SETTINGS[kind][i]) for kind, i in found.settings.items()},
                errors=found.errors,
                validation=found.n,
                calibrations=found.calibrations,
                bins=[list(map(float, one_bin)) for one_bin in found.bins],
                too_far=intervals.too_far(found.bins),
            )
        )
        fitted[name], errors[name] = found.fitted, found.residuals
        for line in account(about[-1], settings.coverage):
            logger.info(line)
    digest = hashlib.sha256("\n".join(smiles).encode()).hexdigest()
    stored.write(run.path / PREDICTORS, stored.Stored(molecules=digest, targets=about), prints, fitted, errors)
    return about


def account(target: stored.TargetModel, coverage: float) -> list[str]:
    """Lines on what predicts a target, for people."""
    measure = "cross-entropy" if target.is_class else "RMSE"
    shown = ", ".join(f"{kind} {value:.3f}" for kind, value in target.errors.items())
    lines = [f"{target.name}: {measure} on {target.validation:,} validation molecules: {shown}"]
    if target.noise is not None:
        lines.append(f"{target.name}: noise floor {target.noise:.3f} ({target.noise_molecules:,} replicated molecules)")
    best = min((k for k in target.errors if k != "baseline"), key=lambda kind: target.errors[kind], default="")
    if best and "joint" in target.errors and best != "joint":
        lines.append(
            f"{target.name}: {best} predicts better than the joint model; `predict` takes {target.chosen} "
            "(--predictor joint takes the model)"
        )
    if not target.settings:
        number = f"{_FEWEST_OF_CLASS} of each class" if target.is_class else f"{_FEWEST} with a value"
        lines.append(f"{target.name}: no neighbours: too few training molecules, they take {number}")
    if doubt := target.doubt(target.chosen):
        lines.append(doubt)
    if target.lacks_intervals(target.chosen):
        least = intervals.fewest_for(coverage)
        lines.append(
            f"{target.name}: no intervals: a coverage of {coverage:.0%} takes {least} held-out molecules with a value"
        )
    if target.too_far is not None:
        lines.append(f"{target.name}: too far: below a similarity of {target.too_far:g} it is no better than the mean")
    return lines


@dataclass
class _Learned:
    chosen: str
    weights: dict[str, float]
    settings: dict[Kind, int]
    errors: dict[str, float]
    n: int
    calibrations: dict[str, stored.Calibration]
    bins: list[intervals.Bin]
    fitted: dict[Kind, Fitted]
    residuals: Values
    """(N,) held-out absolute errors, NaN if none."""


@dataclass
class Comparison:
    """One target of N molecules, training and validation together."""

    prints: Fingerprints
    values: Values
    """Bounds count as values here: trees and kernels know no one-sided loss."""
    measured: npt.NDArray[np.bool_]
    """Whether there is a value that is no bound."""
    held_out: npt.NDArray[np.bool_]
    joint: Values
    is_class: bool
    scaffolds: Sequence[str]

    def learned(self, coverage: float, by_scaffold: bool) -> _Learned:
        """Everything about this target."""
        known = np.flatnonzero(~np.isnan(self.values))
        training, validation = known[~self.held_out[known]], known[self.held_out[known] & self.measured[known]]
        readable = ~np.isnan(self.joint[validation])
        if len(readable) and readable.mean() >= _MOSTLY:
            validation = validation[readable]  # so that all are compared on the same molecules
        truth = self.values[validation]
        groups = self.scaffolds if by_scaffold else None
        chosen_settings, out_of_fold = self._tuned(training, groups)
        kinds = list(chosen_settings)
        apart = {kind: self._fit(kind, chosen_settings[kind], training) for kind in kinds}
        predicted: dict[str, Values] = {k: f(self.prints.rows(validation), self.prints) for k, f in apart.items()}
        weights = self._stacked(out_of_fold)
        stack = sum((w * predicted[k] for k, w in weights.items()), np.zeros(len(validation)))
        share = 0.0
        said = self.joint[validation]
        errors = {}
        if len(validation) and not np.isnan(said).any():
            errors["joint"] = figures.error(truth, said, self.is_class)
            if weights:
                mixed = [figures.error(truth, (1 - s) * stack + s * said, self.is_class) for s in _SHARES]
                share = float(_SHARES[int(np.argmin(mixed))])
            else:
                share = 1.0
        share = share if weights else 1.0
        weights = {**{k: (1 - share) * w for k, w in weights.items()}, **({"joint": share} if share else {})}
        errors |= {k: figures.error(truth, p, self.is_class) for k, p in predicted.items()}
        mean = (1 - share) * stack + (share * said if share else 0.0)
        errors["mean"] = figures.error(truth, mean, self.is_class)
        errors = {k: e for k, e in errors.items() if np.isfinite(e)}
        chosen = min(errors, key=lambda kind: errors[kind], default="mean")
        measured_training = training[self.measured[training]]
        base = float(self.values[measured_training].mean()) if len(measured_training) else 0.0
        if len(truth):
            errors["baseline"] = figures.error(truth, np.full(len(truth), base), self.is_class)
        residuals, calibrations, bins = self._calibrated(
            chosen_settings, weights, training, validation, predicted | {"joint": said, "mean": mean}, coverage, groups
        )
        fitted = {kind: self._fit(kind, chosen_settings[kind], known) for kind in kinds}
        return _Learned(
            chosen, weights, chosen_settings, errors, len(validation), calibrations, bins, fitted, residuals
        )

    def _fit(self, kind: Kind, setting: int, rows: Indices, tuning: bool = False) -> Fitted:
        effort = {"trees": _TUNING_TREES} if tuning else {}
        return fit(kind, SETTINGS[kind][setting], self.prints, self.values[rows], self.is_class, rows, **effort)

    def _tuned(
        self, training: Indices, groups: Sequence[str] | None
    ) -> tuple[dict[Kind, int], tuple[Indices, dict[Kind, Values]]]:
        """(the best setting of each kind by cross-validation, (rows, predictions when held out) of it)."""
        rows = training
        if len(rows) > _MOST_IN_TUNING:
            rows = np.sort(np.random.default_rng(0).permutation(rows)[:_MOST_IN_TUNING])
        if len(rows) < _FEWEST or (
            self.is_class and min(np.bincount(self.values[rows].astype(int), minlength=2)) < _FEWEST_OF_CLASS
        ):
            return {}, (rows, {})
        best: dict[Kind, int] = {}
        predictions: dict[Kind, Values] = {}
        measured = self.measured[rows]
        for kind in KINDS:
            lowest = np.inf
            for setting in range(len(SETTINGS[kind])):
                held = self._held_out(kind, setting, rows, _TUNING_FOLDS, groups, tuning=True)
                found = figures.error(self.values[rows][measured], held[measured], self.is_class)
                if found < lowest:
                    lowest, best[kind], predictions[kind] = found, setting, held
        return best, (rows, predictions)

    def _held_out(
        self,
        kind: Kind,
        setting: int,
        rows: Indices,
        folds: int,
        groups: Sequence[str] | None,
        tuning: bool = False,
    ) -> Values:
        """Predictions of the molecules at `rows`, each by a model that has not seen it (nor its group)."""
        fold = folds_of(len(rows), folds, None if groups is None else [groups[i] for i in rows])
        result = np.full(len(rows), self.values[rows].mean())
        for number in range(folds):
            inside, outside = rows[fold != number], np.flatnonzero(fold == number)
            if not len(outside) or (self.is_class and len(np.unique(self.values[inside])) < 2):
                continue
            model = self._fit(kind, setting, inside, tuning)
            result[outside] = model(self.prints.rows(rows[outside]), self.prints)
        return result

    def _stacked(self, out_of_fold: tuple[Indices, dict[Kind, Values]]) -> dict[str, float]:
        """Non-negative weights that sum to 1, of the lowest squared error on held-out molecules (Breiman 1996)."""
        from scipy.optimize import nnls

        rows, predictions = out_of_fold
        if not predictions:
            return {}
        measured = self.measured[rows]
        truth = self.values[rows][measured]
        matrix = np.column_stack([p[measured] for p in predictions.values()])
        found, _ = nnls(matrix - truth.mean(), truth - truth.mean())
        shares = found / found.sum() if found.sum() else np.full(len(found), 1 / len(found))
        return dict(zip(map(str, predictions), shares.tolist(), strict=True))

    def _calibrated(
        self,
        settings: Mapping[Kind, int],
        weights: Mapping[str, float],
        training: Indices,
        validation: Indices,
        predicted: Mapping[str, Values],
        coverage: float,
        groups: Sequence[str] | None,
    ) -> tuple[Values, dict[str, stored.Calibration], list[intervals.Bin]]:
        """(held-out errors of all molecules, a calibration of each predictor, bins of similarity)."""
        residuals = np.full(len(self.values), np.nan)
        calibrations: dict[str, stored.Calibration] = {}
        both = np.concatenate((training, validation))
        rows = both if len(both) <= _MOST_IN_FOLDS and settings else np.empty(0, np.int64)
        fold = folds_of(len(rows), _FOLDS, None if groups is None else [groups[i] for i in rows])
        held: dict[str, Values] = {
            k: self._held_out(k, s, rows, _FOLDS, groups) for k, s in settings.items() if len(rows)
        }
        if held:
            own = {k: weights.get(k, 0.0) for k in held}
            if not any(own.values()):  # all the weight is the joint model's, which has no held-out predictions here
                own = dict.fromkeys(held, 1.0)
            held["mean"] = sum((w / sum(own.values()) * held[k] for k, w in own.items()), np.zeros(len(rows)))
            residuals[rows] = np.abs(self.values[rows] - held["mean"])
            residuals[~self.measured] = np.nan
        measured = np.flatnonzero(self.measured[rows])
        scale, hard = None, np.empty((0, 6))
        if not self.is_class and len(measured) >= _FEWEST and held:
            hard = self._difficulty(rows, rows, fold, np.column_stack([held[k] for k in settings]), residuals)[measured]
            scale = intervals.fit_scale(hard, residuals[rows][measured])
        members = np.column_stack([predicted[k] for k in settings]) if settings else np.empty((len(validation), 0))
        fewest = intervals.fewest_for(coverage)
        near = np.empty((0, 6))
        if not self.is_class and len(validation) and len(training):
            near = self._difficulty(validation, training, None, members, residuals)
        for kind, values in predicted.items():
            from_folds = kind in held and not (kind == "mean" and weights.get("joint"))
            if self.is_class:
                p, y = (held[kind], self.values[rows]) if from_folds else (values, self.values[validation])
                if len(np.unique(y)) == 2 and not np.isnan(p).any():
                    calibrations[kind] = stored.Calibration(bounds=intervals.venn_abers(p, y).tolist(), n=len(y))
                continue
            if from_folds and len(hard) >= fewest:
                errors = np.abs(self.values[rows] - held[kind])[measured]
                found = Intervals.calibrated(hard, errors, None, coverage)
            elif len(near) == len(validation) >= fewest and not np.isnan(values).any():
                found = Intervals.calibrated(near, np.abs(self.values[validation] - values), scale, coverage)
            else:
                continue
            lists = {"coefficients": list(found.coefficients), "curve": list(found.curve)}
            calibrations[kind] = stored.Calibration(**found._asdict() | lists)
        return residuals, calibrations, self._bins(settings, training)

    def _difficulty(
        self, queries: Indices, known: Indices, fold: Indices | None, members: Values, residuals: Values
    ) -> Values:
        """Of `queries`, as seen from `known` molecules; molecules of one fold do not see each other."""
        alike = similarity(self.prints.rows(queries), self.prints.rows(known))
        if fold is not None:
            alike[fold[:, None] == fold[None, :]] = -1
        return intervals.difficulty(alike, members, self.values[known], np.nan_to_num(residuals[known]))

    def _bins(self, settings: Mapping[Kind, int], training: Indices) -> list[intervals.Bin]:
        """Errors by similarity, of molecules whose whole scaffold was held out: so there are dissimilar ones."""
        rows = training[self.measured[training]]
        if len(rows) > _MOST_IN_TUNING:
            rows = np.sort(np.random.default_rng(1).permutation(rows)[:_MOST_IN_TUNING])
        if "svm" not in settings or self.is_class or len(rows) < 2 * _FEWEST:
            return []
        groups = [self.scaffolds[i] for i in rows]
        fold = folds_of(len(rows), _FOLDS, groups)
        held = self._held_out("svm", settings["svm"], rows, _FOLDS, self.scaffolds)
        alike = similarity(self.prints.rows(rows), self.prints.rows(rows))
        alike[fold[:, None] == fold[None, :]] = 0
        means = np.array([self.values[rows][fold != number].mean() for number in range(_FOLDS)])
        errors, from_mean = self.values[rows] - held, self.values[rows] - means[fold]
        return intervals.by_similarity(alike.max(axis=1).astype(np.float64), errors, from_mean)


def folds_of(n: int, folds: int, groups: Sequence[str] | None = None, seed: int = 0) -> Indices:
    """(n,) the fold of each molecule; a group is in one fold, and an empty group is none."""
    random = np.random.default_rng(seed)
    if groups is None:
        return random.permutation(n) % folds
    names = [group or f"molecule {i}" for i, group in enumerate(groups)]
    order = random.permutation(sorted(set(names)))
    sizes = np.zeros(folds, np.int64)
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    place = {}
    for name in order.tolist():
        place[name] = int(sizes.argmin())
        sizes[place[name]] += counts[name]
    return np.array([place[name] for name in names], np.int64)
