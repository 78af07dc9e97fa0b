"""Checkpoints: weights and training states as safetensors files, written atomically and checked before use."""

import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from molgen.errors import MolgenError
from molgen.runtime.files import opened, write_atomically

_DTYPES = {"F32", "BF16", "F16"}
_MOMENT = re.compile(r"optimizer\.(\d{1,6})\.(\w+)")


def save_weights(path: Path, model: nn.Module, metadata: Mapping[str, str]) -> None:
    """Writes a model's parameters (shared ones once) with string metadata in the header."""
    write_atomically(path, save(_parameters(model), dict(metadata)))


def load_weights(
    path: Path, build: Callable[[], nn.Module], weights: int, expected: Mapping[str, str], follow: bool = False
) -> nn.Module:
    """Builds a model with `build` and fills it from a file; `weights` is its number of parameters.

    Links are followed only with `follow`.
    Raises MolgenError if the file is not a safetensors file, if its header differs from `expected`, if its tensors have
    other names, shapes or types, or if weights are not finite. This happens before memory much larger than the file is
    allocated.
    """
    try:
        with _tensors_of(path, follow) as file:
            metadata = file.metadata() or {}
            for key, value in expected.items():
                if metadata.get(key) != value:
                    raise _damaged(path, f"its {key} is {metadata.get(key)}, this run's is {value}")
            entries = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
            found = sum(math.prod(entry.get_shape()) for entry in entries.values())
            if weights > 2 * found + 1_000_000:  # do not allocate a model that cannot fit the file
                raise _damaged(path, f"it has {found:,} weights, this run's configuration {weights:,}")
            model = build()
            shapes = {name: list(p.shape) for name, p in model.named_parameters()}
            if different := sorted(entries.keys() ^ shapes.keys()):
                raise _damaged(
                    path, f"tensor {different[0]!r} is {'unknown' if different[0] in entries else 'missing'}"
                )
            for name, shape in shapes.items():  # check all before reading the first
                _check_shape(path, name, entries[name], [shape])
            for name, parameter in model.named_parameters():
                parameter.data.copy_(_finite(path, name, file.get_tensor(name)))
            return model
    except (OSError, SafetensorError) as error:
        raise _damaged(path, str(error)) from None


def load_converted(
    path: Path,
    build: Callable[[], nn.Module],
    weights: int,
    convert: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]],
    follow: bool = False,
) -> nn.Module:
    """Like `load_weights`, from a file with other names: `convert` turns its tensors into the model's.

    `convert` raises ValueError for tensors that it cannot turn. Raises MolgenError as `load_weights` does.
    """
    try:
        with _tensors_of(path, follow) as file:
            entries = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
            found = sum(math.prod(entry.get_shape()) for entry in entries.values())
            if weights > 2 * found + 1_000_000:  # do not allocate a model that cannot fit the file
                raise _damaged(path, f"it has {found:,} weights, its configuration {weights:,}")
            for name, entry in entries.items():
                _check_shape(path, name, entry, [entry.get_shape()])
            tensors = convert({name: _finite(path, name, file.get_tensor(name)) for name in entries})
            model = build()
            for name, parameter in model.named_parameters():
                if name not in tensors or tensors[name].shape != parameter.shape:
                    raise _damaged(path, f"has no tensor of shape {tuple(parameter.shape)} for {name!r}")
                parameter.data.copy_(tensors[name])
            return model
    except (OSError, SafetensorError, ValueError) as error:
        raise _damaged(path, str(error)) from None


def save_state(
    path: Path,
    models: Mapping[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    position: Mapping[str, object],
    fingerprint: Mapping[str, str],
) -> None:
    """Writes what an exact resume needs: weights and optimiser state; position and fingerprint in the header."""
    tensors = {f"{key}.{name}": tensor for key, model in models.items() for name, tensor in _parameters(model).items()}
    for index, state in optimizer.state_dict()["state"].items():
        for key, value in state.items():
            tensors[f"optimizer.{index}.{key}"] = torch.as_tensor(value).contiguous()
    write_atomically(path, save(tensors, {**fingerprint, "position": json.dumps(position, allow_nan=False)}))


def saved_fingerprint(path: Path) -> dict[str, str]:
    """The fingerprint in the header of a state, as given to `save_state`. Raises MolgenError for a damaged file."""
    try:
        with _tensors_of(path) as file:
            return dict(file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise _damaged(path, str(error)) from None


def load_state(path: Path, models: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer) -> dict[str, object]:
    """Restores models and optimiser from a file of `save_state` and returns the position.

    Raises MolgenError for a damaged file: a tensor that is missing, unknown, not finite or of another shape or type.
    """
    weights = {f"{key}.{name}": p for key, model in models.items() for name, p in model.named_parameters()}
    # in the order of the indices in an optimiser's state
    optimized = [p for group in optimizer.param_groups for p in group["params"]]
    try:
        with _tensors_of(path) as file:
            position: dict[str, object] = json.loads((file.metadata() or {})["position"])
            if not isinstance(position, dict):
                raise _damaged(path, "its position is no mapping")
            moments: dict[str, tuple[int, str]] = {}
            for name in file.keys():  # noqa: SIM118 - not a mapping
                shapes = [list(weights[name].shape)] if name in weights else []
                if match := _MOMENT.fullmatch(name):
                    moments[name] = int(match[1]), match[2]
                    shapes = [[], list(optimized[int(match[1])].shape)] if int(match[1]) < len(optimized) else []
                if not shapes:
                    raise _damaged(path, f"tensor {name!r} is unknown")
                _check_shape(path, name, file.get_slice(name), shapes)
            for name, parameter in weights.items():
                parameter.data.copy_(_finite(path, name, file.get_tensor(name)))
            state: dict[int, dict[str, Tensor]] = {}
            for name, (index, key) in moments.items():
                state.setdefault(index, {})[key] = _finite(path, name, file.get_tensor(name))
            optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
            return position
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise _damaged(path, str(error)) from None


@contextmanager
def _tensors_of(path: Path, follow: bool = False) -> Iterator[Any]:
    """A safetensors file, opened by the handle of a regular file, because the name may now refer to another file."""
    with opened(path, follow) as file:
        by_handle = f"/dev/fd/{file.fileno()}" if os.name == "posix" else str(path)
        with safe_open(by_handle, framework="pt") as tensors:
            yield tensors


def _check_shape(path: Path, name: str, entry: Any, shapes: Sequence[list[int]]) -> None:
    kind, sizes = entry.get_dtype(), entry.get_shape()
    if sizes not in shapes or kind not in _DTYPES:
        raise _damaged(path, f"tensor {name!r} is {kind} {tuple(sizes)}, should be {tuple(shapes[-1])}")


def _finite(path: Path, name: str, tensor: Tensor) -> Tensor:
    if not torch.isfinite(tensor).all():
        raise _damaged(path, f"tensor {name!r} holds NaN or infinity")
    return tensor


def _parameters(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().cpu().contiguous() for name, p in model.named_parameters()}


def _damaged(path: Path, what: str) -> MolgenError:
    return MolgenError(f"{path}: {what}", "the file is damaged or belongs to another run; restore it or train again")
