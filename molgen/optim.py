"""Optimisers, the learning-rate schedule, devices and precision."""

import math
import platform
from typing import assert_never

import torch
from torch import nn

from molgen.config import Device, Precision, TrainingConfig
from molgen.errors import MolgenError


def build_optimizer(model: nn.Module, config: TrainingConfig) -> torch.optim.Optimizer:
    """AdamW or Adamax over all weights; weight decay on the matrices only."""
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}]
    if vectors:
        groups.append({"params": vectors, "weight_decay": 0.0})
    match config.optimizer:
        case "adamw":
            return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, config.beta2), fused=True)
        case "adamax":
            return torch.optim.Adamax(groups, lr=config.learning_rate, betas=(0.9, config.beta2))
        case _:
            assert_never(config.optimizer)


def learning_rate(progress: float, config: TrainingConfig) -> float:
    """At a share of the training in [0, 1): linear warm-up, then cosine to a hundredth, or constant."""
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


def choose_device(wanted: Device) -> torch.device:
    """cuda, else mps, else cpu for `auto`. Raises MolgenError for a device that is not there."""
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if wanted == "auto":
        return torch.device(next(name for name, there in available.items() if there))
    if not available[wanted]:
        there = ", ".join(name for name, is_there in available.items() if is_there)
        raise MolgenError(f"--device {wanted}: not available here", f"available: {there}; or leave --device out")
    return torch.device(wanted)


def uses_bf16(precision: Precision, device: torch.device) -> bool:
    """What a precision means on a device: `auto` is bf16 where there are units for it."""
    return precision == "bf16" or (precision == "auto" and _gains_from_bf16(device))


def autocast(precision: Precision, device: torch.device) -> torch.autocast:
    """For a forward pass: bf16 in the matrix products where the precision says so."""
    return torch.autocast(device.type, torch.bfloat16, enabled=uses_bf16(precision, device))


def _gains_from_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities()
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return False  # mps gains nothing at these sizes


def hardware(device: torch.device) -> dict[str, str | int]:
    """What a figure of speed must be read with."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "device": device.type,
        "name": name,
        "threads": torch.get_num_threads(),
        "platform": platform.platform(),
    }
