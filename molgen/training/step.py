"""One training step: the loss of a batch, its gradient in chunks, clipping, the update.

The loss is a parameter: a function of the model and of some molecules.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import repeat
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from molgen.config import TrainingConfig
from molgen.data.batches import Batch, Corpus, Rows
from molgen.machine import Runtime
from molgen.model.dropout import seed_dropout
from molgen.model.experts import balance_loss, routing_recorded
from molgen.model.likelihood import token_nll
from molgen.runtime.device import autocast, split_on_oom
from molgen.runtime.threads import shared_threads, worker_threads
from molgen.tokenizer import PAD
from molgen.training.optim import ParallelMap, take_step
from molgen.training.resume import TrainerState

Loss = Callable[[Any, Batch, Rows], Tensor | tuple[Tensor, Tensor]]
"""(model, B molecules, their rows in the corpus (B,)) → the sum of their losses, a scalar; or (it, what is reported).

The step minimises the sum, divided by the number of positions or molecules of the batch. It may call the loss with a
part of a batch, because of threads or memory, so a loss must be a sum over molecules.
"""


def nll_loss(model: nn.Module, batch: Batch, _: Rows) -> Tensor:
    """−ln p of the molecules' tokens and `<eos>`, summed, in nats: maximum likelihood."""
    return token_nll(model(batch.inputs), batch.targets).sum()


def balanced(loss: Loss, weight: float) -> Loss:
    """A loss with the gradient of `weight` x `balance_loss` of the experts added to its own.

    Its value stays, so that a training with experts reports what one without them reports.
    """

    def with_balance(model: nn.Module, batch: Batch, rows: Rows) -> tuple[Tensor, Tensor]:
        with routing_recorded() as routings:
            found = loss(model, batch, rows)
        balance = weight * balance_loss(routings, batch.targets != PAD)
        value, reported = found if isinstance(found, tuple) else (found, found)
        return value + (balance - balance.detach()), reported

    return with_balance


class Shard(NamedTuple):
    """The part of a batch for one thread of one process."""

    corpus: Corpus
    rows: Rows
    seed: int
    """Seed of the dropout."""

    def half(self, i: int) -> "Shard":
        """Every second molecule, starting with the first (i = 0) or the second (i = 1)."""
        return Shard(self.corpus, self.rows[i::2], (self.seed + i) % 2**63)


class Step:
    """Takes the steps of a training; one process and several processes compute the same sums."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        loss: Loss,
        config: TrainingConfig,
        state: TrainerState,
        runtime: Runtime,
    ) -> None:
        self._model, self._optimizer, self._loss, self._config = model, optimizer, loss, config
        self._state, self._runtime = state, runtime
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self._num_chunks = worker_threads(runtime.device)
        self._parallel_map: ParallelMap = map

    @contextmanager
    def threads(self) -> Iterator[None]:
        """In the block, the chunks of a batch run in parallel threads."""
        with shared_threads(self._num_chunks) as threads:
            # a single chunk is fastest in the main thread, which can use all of PyTorch's threads
            self._parallel_map = threads.map if self._num_chunks > 1 else map
            yield

    def shards(self, corpus: Corpus, parts: Sequence[Rows], seeds: np.random.Generator) -> list[Shard]:
        """This process's shards of a batch; `parts` are the batch's rows in parts of similar length."""
        mine = map(self._runtime.group.shard, parts)
        n = self._num_chunks
        rows = [part[i::n] for part in mine for i in range(min(n, len(part)))]
        return list(map(Shard, repeat(corpus), rows, seeds.integers(2**63, size=len(rows)).tolist()))

    def __call__(self, shards: Sequence[Shard], divisor: int) -> list[Tensor]:
        """Takes one step; returns the summed loss of each shard of this process, or what is reported of it.

        The gradient is that of the sum over all shards of all processes, divided by `divisor`.
        """
        gradient = [torch.zeros_like(parameter) for parameter in self._parameters]
        losses = []
        # in a fixed order, because the rounding of sums depends on it
        for loss, shard_gradient in self._parallel_map(partial(self._gradient, divisor), shards):
            losses.append(loss)
            for total, addend in zip(gradient, shard_gradient, strict=True):
                total += addend
        self._runtime.group.all_reduce_sum_(gradient)
        for parameter, total in zip(self._parameters, gradient, strict=True):
            parameter.grad = total
        if self._config.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self._parameters, self._config.clip_norm)
        take_step(self._optimizer, self._parallel_map, self._num_chunks)
        return losses

    def _gradient(self, divisor: int, shard: Shard) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The summed loss of a shard (or what is reported), and the gradient of its part of the batch's loss."""
        if len(shard.rows) == 1:
            return self._full_batch(divisor, shard)
        self._state.halved, result = split_on_oom(
            self._state.halved, partial(self._full_batch, divisor, shard), partial(self._half_batches, divisor, shard)
        )
        return result

    def _half_batches(self, divisor: int, shard: Shard) -> tuple[Tensor, tuple[Tensor, ...]]:
        (loss, gradient), (more, others) = (self._full_batch(divisor, shard.half(i)) for i in range(2))
        return loss + more, tuple(a + b for a, b in zip(gradient, others, strict=True))

    def _full_batch(self, divisor: int, shard: Shard) -> tuple[Tensor, tuple[Tensor, ...]]:
        seed_dropout(shard.seed, self._runtime.device)
        batch = shard.corpus.batch(shard.rows, self._runtime.device)
        with autocast(self._config.precision, self._runtime.device, cached=False):
            found = self._loss(self._model, batch, shard.rows)
        loss, reported = found if isinstance(found, tuple) else (found, found)
        # Not `.backward()`: it would add to one `.grad` in the order in which threads finish, so a resume would not be
        # exact. A parameter that this batch does not use gets a gradient of zero.
        gradient = torch.autograd.grad(loss / divisor, self._parameters, allow_unused=True, materialize_grads=True)
        return reported.detach(), gradient
