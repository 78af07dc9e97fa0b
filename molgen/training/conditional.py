"""The loss of a model with conditions: the NLL of molecules, given a random subset of their known values.

A share of the molecules is shown without any value, so one model is also the unconditional one, which guidance needs.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from molgen.data.batches import Batch, Corpus, Rows
from molgen.data.conditions import ConditionTable
from molgen.data.labels import LabelArrays
from molgen.model.decoder import Decoder
from molgen.model.dropout import dropout_generator
from molgen.model.likelihood import token_nll
from molgen.training.joint import JointObjective

_AT_A_TIME = 256


@dataclass(frozen=True)
class ConditionalObjective:
    """What a run with conditions minimises."""

    table: ConditionTable
    unconditional: float
    """Share of the molecules that are shown without any value."""
    joint: JointObjective | None = None
    """What it predicts beside; predictions are made without conditions, which would give the answer away."""

    def loss(self, model: Decoder, batch: Batch, rows: Rows) -> tuple[Tensor, Tensor]:
        """(what is minimised, the NLL) of some molecules, summed, in nats."""
        labels, device = self.table.train.rows(rows), batch.inputs.device
        known = torch.from_numpy(~np.isnan(labels.values)).to(device)
        shown = shown_at_random(known, self.unconditional, dropout_generator())
        hidden = model.hidden(batch.inputs, shift=self._shift(model, labels, device, shown))
        nll = token_nll(model.logits(hidden), batch.targets).sum()
        if self.joint is None:
            return nll, nll
        return nll + self.joint.penalty(model, batch, model.hidden(batch.inputs), rows), nll

    @torch.inference_mode()
    def figures(self, model: Decoder, corpus: Corpus, device: torch.device) -> dict[str, float]:
        """What a row of the log says about the validation molecules: their mean NLL given all their known values."""
        was_training = model.training
        model.eval()
        total, order = 0.0, np.argsort(corpus.positions, kind="stable")
        for start in range(0, len(corpus), _AT_A_TIME):
            rows = order[start : start + _AT_A_TIME]
            batch = corpus.batch(rows, device)
            shift = self._shift(model, self.table.validation.rows(rows), device, None)
            nll = token_nll(model.logits(model.hidden(batch.inputs, shift=shift)), batch.targets)
            total += float(nll.sum())
        model.train(was_training)
        found = {"val_nll_given": total / max(1, len(corpus))}
        return found | (self.joint.figures(model, corpus, device) if self.joint else {})

    def _shift(self, model: Decoder, labels: LabelArrays, device: torch.device, shown: Tensor | None) -> Tensor:
        values = torch.from_numpy(self.table.standardised(labels)).to(device)
        if shown is not None:
            values = values.masked_fill(~shown, torch.nan)
        assert model.conditions is not None
        shift: Tensor = model.conditions(values, torch.from_numpy(labels.sides).to(device))
        return shift


def shown_at_random(known: Tensor, unconditional: float, generator: torch.Generator | None) -> Tensor:
    """(B, C) which of the known values are shown.

    None with probability `unconditional`; else a random subset of each size from one to all, equally often.
    """
    device = known.device
    draws = torch.rand(known.shape[0], known.shape[1] + 2, generator=generator, device=device)
    number = known.sum(dim=1)
    size = (draws[:, 0] * number).floor().long().clamp(max=number - 1) + 1  # 1 to all
    size = torch.where(draws[:, 1] < unconditional, 0, size)
    order = draws[:, 2:].masked_fill(~known, 2.0).argsort(dim=1).argsort(dim=1)  # ranks, the unknown ones last
    return (order < size[:, None]) & known
