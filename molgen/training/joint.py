"""A joint loss: the negative log-likelihood of molecules, and the error of what their model predicts about them.

Izdebski et al. 2023 (Joint Transformer) and Hyformer (2025) switch between a causal and a bidirectional mask; here the
prediction may also come from the causal pass itself, which costs nothing.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from molgen.config import PredictionConfig
from molgen.data.batches import Batch, Corpus, Rows
from molgen.data.labels import LabelArrays, Scales
from molgen.model.decoder import Decoder
from molgen.model.likelihood import token_nll

_AT_A_TIME = 256


@dataclass(frozen=True)
class JointObjective:
    """What a run with targets minimises."""

    training: LabelArrays
    validation: LabelArrays
    scales: Scales
    weight: float
    """Of a molecule's mean error beside its NLL: nats per molecule."""
    bidirectional: bool

    @classmethod
    def of(
        cls, training: LabelArrays, validation: LabelArrays, corpus: Corpus, config: PredictionConfig
    ) -> "JointObjective":
        """From the labels of the training and validation molecules; the weight is that per token, times the length."""
        weight = config.weight * corpus.all_positions / max(1, len(corpus))
        return cls(training, validation, training.scales, weight, config.mask == "bidirectional")

    def loss(self, model: Decoder, batch: Batch, rows: Rows) -> tuple[Tensor, Tensor]:
        """(what is minimised, the NLL) of some molecules, summed, in nats."""
        hidden = model.hidden(batch.inputs)
        nll = token_nll(model.logits(hidden), batch.targets).sum()
        return nll + self.penalty(model, batch, hidden, rows), nll

    def penalty(self, model: Decoder, batch: Batch, hidden: Tensor, rows: Rows) -> Tensor:
        """The weighted errors of some molecules' predictions, summed; `hidden` is the stream without conditions."""
        errors = self._errors(model, batch.inputs, hidden, self.training.rows(rows))
        known = max(1, int((~np.isnan(self.training.values)).sum()))
        # a molecule with all its labels weighs as much as another, however many targets there are
        share = self.weight * len(self.training.values) / known
        return share * errors.sum()

    def figures(self, model: Decoder, corpus: Corpus, device: torch.device) -> dict[str, float]:
        """What a row of the log says about the validation molecules; nothing if none of them has a label."""
        if np.isnan(self.validation.values).all():
            return {}
        return {"val_error": self.validation_error(model, corpus, device)}

    @torch.inference_mode()
    def validation_error(self, model: Decoder, corpus: Corpus, device: torch.device) -> float:
        """The mean error of the labels of the validation molecules, of which there are some."""
        was_training = model.training
        model.eval()
        total, count = 0.0, 0
        for start in range(0, len(corpus), _AT_A_TIME):
            rows = np.arange(start, min(start + _AT_A_TIME, len(corpus)))
            inputs = corpus.batch(rows, device).inputs
            labels = self.validation.rows(rows)
            total += float(self._errors(model, inputs, model.hidden(inputs), labels).sum())
            count += int((~np.isnan(labels.values)).sum())
        model.train(was_training)
        return total / count

    def _errors(self, model: Decoder, inputs: Tensor, hidden: Tensor, labels: LabelArrays) -> Tensor:
        """(B, T) squared errors of standardised values or cross-entropies; one-sided for bounds; 0 without label."""
        if self.bidirectional:
            hidden = model.hidden(inputs, bidirectional=True)
        outputs = model.predicted(inputs, hidden)
        known = torch.from_numpy(~np.isnan(labels.values)).to(outputs.device)
        values = np.nan_to_num((labels.values - self.scales.centre) / self.scales.spread)
        targets = torch.from_numpy(values).to(outputs.device, torch.float32)
        sides = torch.from_numpy(labels.sides).to(outputs.device)
        difference = targets - outputs
        difference = torch.where(sides > 0, difference.clamp(min=0), difference)
        difference = torch.where(sides < 0, difference.clamp(max=0), difference)
        classes = torch.from_numpy(self.scales.classes).to(outputs.device)
        entropy = binary_cross_entropy_with_logits(outputs, targets.clamp(0, 1), reduction="none")
        errors = torch.where(classes, entropy, difference.square())
        return torch.where(known, errors, 0.0)
