"""Optimisers and the learning-rate schedule."""

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, assert_never

import torch
from torch import Tensor, nn

from molgen.config import TrainingConfig
from molgen.runtime.device import uses_bf16

Group = dict[str, Any]
ParallelMap = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]


class Muon(torch.optim.Optimizer):
    """Momentum whose step is the nearest orthogonal matrix, for the matrices of hidden layers (Jordan et al. 2024).

    The steps are scaled to the size of AdamW's (Liu et al. 2025), so that one learning rate suits both. The same as
    PyTorch's Muon, but matrices of one shape are processed together, which halves the time for small matrices.
    """

    def __init__(self, groups: list[Group], lr: float, momentum: float = 0.95) -> None:
        super().__init__(groups, {"lr": lr, "momentum": momentum, "weight_decay": 0.0})

    def step(self, parallel_map: ParallelMap = map, num_chunks: int = 1) -> None:  # type: ignore[override]
        """One step of all matrices that have a gradient; those of one shape in up to `num_chunks` chunks."""
        for group in self.param_groups:
            by_shape: dict[tuple[int, int], list[Tensor]] = {}  # (short side, long side) → matrices
            for matrix in group["params"]:
                if matrix.grad is not None:
                    self.state[matrix].setdefault("momentum_buffer", torch.zeros_like(matrix))
                    by_shape.setdefault((min(matrix.shape), max(matrix.shape)), []).append(matrix)
            parts = [
                matrices[i::num_chunks] for matrices in by_shape.values() for i in range(min(num_chunks, len(matrices)))
            ]
            for _ in parallel_map(partial(self._step, group), parts):
                pass

    @torch.no_grad()
    def _step(self, group: Group, matrices: Sequence[Tensor]) -> None:
        """One step of some matrices of one shape."""
        steps = orthogonalised(torch.stack([self._momentum(m, group["momentum"]) for m in matrices]))
        # the root mean square of an orthogonal matrix is 1 / sqrt(long side), that of AdamW's steps about 0.2
        rate = group["lr"] * 0.2 * math.sqrt(steps.shape[2])
        for matrix, step in zip(matrices, steps, strict=True):
            matrix.mul_(1 - group["lr"] * group["weight_decay"])
            matrix.sub_(step if matrix.shape == step.shape else step.mT, alpha=rate)

    def _momentum(self, matrix: Tensor, momentum: float) -> Tensor:
        """Nesterov's momentum of a gradient, transposed if necessary to (short side, long side)."""
        assert matrix.grad is not None
        buffer = self.state[matrix]["momentum_buffer"]
        buffer.lerp_(matrix.grad, 1 - momentum)
        ahead = matrix.grad.lerp(buffer, momentum)
        return ahead if matrix.shape[0] <= matrix.shape[1] else ahead.mT


def orthogonalised(matrices: Tensor) -> Tensor:
    """For matrices (n, short, long), roughly the nearest with orthonormal rows: singular values between 0.7 and 1.2.

    Five Newton-Schulz iterations of Jordan's quintic (Jordan et al. 2024, "Muon"); bfloat16 is exact enough for them.
    """
    x = matrices.bfloat16() if uses_bf16("auto", matrices.device) else matrices.float()
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=-4.7750, alpha=2.0315), x, beta=3.4445)
    return x.to(matrices.dtype)


class MuonAndAdamW(torch.optim.Optimizer):
    """Muon for some matrices, AdamW for the other groups, as one optimiser with one state."""

    def __init__(self, hidden: Group, others: list[Group], lr: float, betas: tuple[float, float]) -> None:
        self.muon, self.adamw = Muon([hidden], lr), torch.optim.AdamW(others, lr=lr, betas=betas, fused=True)
        self.parts: list[torch.optim.Optimizer] = [self.muon, self.adamw]
        super().__init__([group for part in self.parts for group in part.param_groups], {})
        self._share()

    def step(self, parallel_map: ParallelMap = map, num_chunks: int = 1) -> None:  # type: ignore[override]
        """One step of both; Muon's in up to `num_chunks` chunks per shape."""
        self.muon.step(parallel_map, num_chunks)
        self.adamw.step()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Loads the state of both."""
        super().load_state_dict(state_dict)
        self._share()

    def _share(self) -> None:
        for part, groups in zip(self.parts, (self.param_groups[:1], self.param_groups[1:]), strict=True):
            part.param_groups, part.state = groups, self.state


class WeightAverage:
    """An exponential moving average of a model's weights (Polyak and Juditsky 1992), as a separate model."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model, self.decay = copy.deepcopy(model), decay

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Updates the average after a step, counted from 1. The decay is lower for the first steps, so that the initial
        weights soon have no influence."""
        decay = min(self.decay, step / (step + 10))
        for average, weights in zip(self.model.parameters(), model.parameters(), strict=True):
            average.lerp_(weights, 1 - decay)


def build_optimizer(model: nn.Module, config: TrainingConfig) -> torch.optim.Optimizer:
    """AdamW, Adamax or Muon (with AdamW) for all weights; weight decay only for matrices."""
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    matrices = {name: p for name, p in trained.items() if p.ndim >= 2}
    vectors = [p for p in trained.values() if p.ndim < 2]
    groups: list[Group] = [{"params": list(matrices.values()), "weight_decay": config.weight_decay}]
    if vectors:
        groups.append({"params": vectors, "weight_decay": 0.0})
    match config.optimizer:
        case "adamw":
            return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, config.beta2), fused=True)
        case "muon":  # AdamW for embedding and head, which have one row per token
            hidden = {name: p for name, p in matrices.items() if name.startswith("blocks.")}
            groups[0]["params"] = [p for name, p in matrices.items() if name not in hidden]
            first: Group = {"params": list(hidden.values()), "weight_decay": config.weight_decay}
            return MuonAndAdamW(first, groups, config.learning_rate, (0.9, config.beta2))
        case "adamax":
            return torch.optim.Adamax(groups, lr=config.learning_rate, betas=(0.9, config.beta2))
        case _:
            assert_never(config.optimizer)


def take_step(optimizer: torch.optim.Optimizer, parallel_map: ParallelMap, num_chunks: int) -> None:
    """One step of the optimiser; Muon uses several threads."""
    if isinstance(optimizer, MuonAndAdamW):
        optimizer.step(parallel_map, num_chunks)
    else:
        optimizer.step()


def learning_rate(progress: float, config: TrainingConfig) -> float:
    """The learning rate at `progress`, a fraction of the training in [0, 1): linear warm-up, then constant, or cosine
    down to a hundredth."""
    if progress < config.warmup:
        return config.learning_rate * max(progress / config.warmup, 1e-3)
    match config.schedule:
        case "constant":
            return config.learning_rate
        case "cosine":
            rest = (progress - config.warmup) / max(1e-9, 1 - config.warmup)
            return config.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * rest)))
        case _:
            assert_never(config.schedule)
