"""A trained run with targets as an object: molecules to predictions, intervals and the nearest known molecule."""

import hashlib
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from molgen.data.labels import LabelArrays, Scales
from molgen.errors import MolgenError
from molgen.machine import Runtime
from molgen.model.decoder import Decoder
from molgen.prediction import intervals, stored
from molgen.prediction.fingerprints import Fingerprints, similarity
from molgen.prediction.joint import joint_predictions
from molgen.prediction.neighbours import KINDS
from molgen.runs import PREDICTORS, Run, find_run
from molgen.runtime.device import Device

logger = logging.getLogger(__name__)

Values = npt.NDArray[np.float64]
TOO_FAR = "too far from the training molecules"
_AT_A_TIME = 2_000


class Predicted(NamedTuple):
    """What is predicted of N molecules for one target; NaN where it cannot be."""

    values: Values
    """(N,) values; of a class the probability of 1."""
    low: Values
    high: Values
    too_far: npt.NDArray[np.bool_]
    """(N,) whether predictions so far from the training molecules were no better than their mean."""


@dataclass(frozen=True)
class Nearest:
    """The nearest training molecule of each of N molecules."""

    smiles: list[str]
    similarity: Values
    """(N,) Tanimoto similarity of ECFP4 bits."""


class RunPredictor:
    """Predicts what a run was trained to predict.

    predictor = RunPredictor.load("runs/potency")
    predictor.predict(["CC(=O)Nc1ccc(O)cc1"])["pIC50"].values
    """

    def __init__(self, run: Run, runtime: Runtime, kind: str | None = None) -> None:
        """`kind` names a predictor in place of the run's own. Raises MolgenError if the run has none of this kind."""
        if not run.targets:
            raise MolgenError(f"{run.path}: predicts nothing", "train on a table, with --target COLUMN")
        if not os.path.lexists(run.path / PREDICTORS):
            raise MolgenError(f"{run.path}: carries no {PREDICTORS} yet", "let the training finish")
        self.run, self.runtime = run, runtime
        self._about, self._prints, self._fitted, self._errors = stored.read(run.path / PREDICTORS)
        molecules = [m for split in ("train", "validation") for m in run.molecules if m.split == split]
        self.known = [m.smiles for m in molecules]
        """The molecules that it learned from: those of training, then those of validation."""
        if hashlib.sha256("\n".join(self.known).encode()).hexdigest() != self._about.molecules:
            raise MolgenError(f"{run.path / PREDICTORS}: is of other molecules", "restore the files, or train again")
        self.labels = LabelArrays.of(run.labels, self.known, len(run.targets))
        self._training = sum(m.split == "train" for m in molecules)
        self.kinds = {target.name: self._kind(target, kind) for target in self._about.targets}
        """What predicts each target."""
        for target in self._about.targets:
            if doubt := target.doubt(self.kinds[target.name]):
                logger.warning(doubt)
        for name in filter(self.lacks_intervals, self.kinds):
            logger.info(f"{name}: no intervals: too few molecules were held out")

    @classmethod
    def load(
        cls,
        run: str | os.PathLike[str] | None = None,
        device: Device = "auto",
        runtime: Runtime | None = None,
        kind: str | None = None,
    ) -> "RunPredictor":
        """Loads a run directory, by default the newest under runs/."""
        return cls(find_run(None if run is None else os.fspath(run)), runtime or Runtime(device), kind)

    def lacks_intervals(self, name: str) -> bool:
        """Whether there are no intervals around the predictions of this target."""
        return any(t.name == name and t.lacks_intervals(self.kinds[name]) for t in self._about.targets)

    @property
    def targets(self) -> list[stored.TargetModel]:
        """What it knows about its targets."""
        return self._about.targets

    def predict(self, smiles: Sequence[str]) -> dict[str, Predicted]:
        """The predictions of canonical SMILES (an empty string has none), by target."""
        parts = [self._predict(smiles[i : i + _AT_A_TIME]) for i in range(0, len(smiles), _AT_A_TIME) or (0,)]
        return {
            name: Predicted(*(np.concatenate(column) for column in zip(*(part[name] for part in parts), strict=True)))
            for name in self.run.targets
        }

    def members(
        self, smiles: Sequence[str], wanted: Sequence[str] = ("joint", *KINDS), prints: Fingerprints | None = None
    ) -> list[dict[str, Values]]:
        """The predictions of each kind, for each target: kind → (N,), NaN where there is none."""
        prints = Fingerprints.of(smiles, self.runtime.workers) if prints is None else prints
        missing = prints.bits.sum(axis=1) == 0
        joint = None
        if "joint" in wanted:
            joint = joint_predictions(
                self._model,
                self.run.tokenizer,
                smiles,
                self._scales,
                self.run.config.prediction.forms,
                self.run.config.prediction.mask == "bidirectional",
                self.runtime.workers,
            )
        found = []
        for place, target in enumerate(self.targets):
            own: dict[str, Values] = {} if joint is None else {"joint": joint[:, place]}
            for kind, model in self._fitted[target.name].items():
                if kind in wanted:
                    own[kind] = np.where(missing, np.nan, model(prints, self._prints))
            found.append(own)
        return found

    def on_fingerprints(self, prints: Fingerprints, place: int) -> Values:
        """(N,) what the neighbours say: the one that was chosen, or their mean by their weights, or all alike."""
        target = self.targets[place]
        fitted = self._fitted[target.name]
        kind = self.kinds[target.name]
        shares = {one: target.weights.get(one, 0.0) for one in fitted}
        if kind in fitted:
            shares = {one: float(one == kind) for one in fitted}
        elif not sum(shares.values()):
            shares = dict.fromkeys(fitted, 1.0)
        total = sum(shares.values())
        parts = [share / total * fitted[one](prints, self._prints) for one, share in shares.items() if share]
        return np.asarray(np.sum(parts, axis=0), np.float64)

    def combined(self, target: stored.TargetModel, members: dict[str, Values]) -> Values:
        """`mean`: the weighted mean of the members; without the joint model where it cannot read the molecule."""
        shape = next(iter(members.values())).shape
        total, weight = np.zeros(shape), np.zeros(shape)
        for kind, share in target.weights.items():
            known = ~np.isnan(members[kind])
            total += np.where(known, share * members[kind], 0)
            weight += share * known
        return np.where(weight > 0, total / np.maximum(weight, 1e-12), np.nan)

    def nearest(self, smiles: Sequence[str]) -> Nearest:
        """The molecule that it learned from with the highest similarity, the first of equals."""
        alike = similarity(Fingerprints.of(smiles, self.runtime.workers), self._prints)
        index = alike.argmax(axis=1)
        return Nearest([self.known[i] for i in index], alike[np.arange(len(index)), index].astype(np.float64))

    def _predict(self, smiles: Sequence[str]) -> dict[str, Predicted]:
        wanted = {k for t in self.targets for k in self._needed(t)} | set(KINDS)
        prints = Fingerprints.of(smiles, self.runtime.workers)
        members = self.members(smiles, tuple(wanted), prints)
        alike = similarity(prints, self._prints)
        found = {}
        for place, target in enumerate(self.targets):
            own = members[place]
            kind = self.kinds[target.name]
            values = self.combined(target, own) if kind == "mean" else own[kind]
            known = np.flatnonzero(~np.isnan(self.labels.values[:, place]))
            low, values, high = self._interval(target, place, kind, own, values, alike[:, known], known)
            far = alike[:, known].max(axis=1, initial=0) < (target.too_far or 0)
            found[target.name] = Predicted(values, low, high, far & ~np.isnan(values))
        return found

    def _interval(
        self,
        target: stored.TargetModel,
        place: int,
        kind: str,
        members: dict[str, Values],
        values: Values,
        alike: npt.NDArray[np.float32],
        known: npt.NDArray[np.int64],
    ) -> tuple[Values, Values, Values]:
        """(low, values, high); of a class the values become calibrated probabilities."""
        calibration = target.calibrations.get(kind)
        if calibration is None:
            nothing = np.full(len(values), np.nan)
            return nothing, values, nothing
        if target.is_class:
            return intervals.bounds_of(np.array(calibration.bounds), values)
        fingerprint_kinds = [k for k in KINDS if k in members]
        matrix = np.column_stack([members[k] for k in fingerprint_kinds]) if fingerprint_kinds else values[:, None]
        residuals = np.nan_to_num(self._errors[target.name][known])
        hard = intervals.difficulty(alike, np.nan_to_num(matrix), self.labels.values[known, place], residuals)
        half = calibration.intervals.half_widths(hard)
        return values - half, values, values + half

    def _kind(self, target: stored.TargetModel, asked: str | None) -> str:
        kind = target.chosen if asked in (None, "auto") else str(asked)
        there = ["joint", *self._fitted[target.name], *(["mean"] if target.weights else [])]
        if kind not in there:
            raise MolgenError(
                f"{self.run.path}: no predictor {kind!r} of {target.name}", f"there are {', '.join(there)}"
            )
        return kind

    def _needed(self, target: stored.TargetModel) -> list[str]:
        kind = self.kinds[target.name]
        return list(target.weights) if kind == "mean" else [kind]

    @cached_property
    def _model(self) -> Decoder:
        return self.run.model(self.runtime.device)

    @cached_property
    def _scales(self) -> Scales:
        return self.labels.rows(np.arange(self._training)).scales
