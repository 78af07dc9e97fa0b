"""What `molgen doctor` says: versions, devices, folders, whether a model samples. To be pasted into a bug report."""

import os
import platform
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from molgen._version import __version__
from molgen.chem.draw import require_drawing
from molgen.chem.pool import shared_workers
from molgen.config import NAMED
from molgen.data.download import data_directory, is_here
from molgen.errors import MolgenError
from molgen.generation.generator import MoleculeGenerator
from molgen.machine import Runtime
from molgen.runs import FOLDER, SHIPPED, WEIGHTS
from molgen.runtime.device import Device, choose_device, cpu_name, memory_of_machine, uses_bf16
from molgen.runtime.threads import worker_threads
from molgen.runtime.versions import versions
from molgen.tokenizer import pattern_source

_PACKAGES = (
    *("torch", "numpy", "rdkit", "deepchem", "transformers", "tokenizers", "typer", "pydantic", "PyYAML", "tqdm"),
    *("safetensors", "matplotlib", "scipy", "pandas", "fcd_torch", "jinja2"),
)
_OF_DEEPCHEM = ("deepchem", "transformers", "tokenizers")  # needed on Python 3.11 only
_SINCE_3_12 = sys.version_info >= (3, 12)
_EXTRAS = {
    "parquet": ("pyarrow",),
    "dask": ("distributed",),
    "prepare": ("dimorphite_dl",),
    "hf": ("transformers",),
    "tensorboard": ("tensorboard",),
}
_VARIABLES = ("MOLGEN_", "OMP_", "MKL_", "KMP_", "OPENBLAS_", "CUDA_VISIBLE", "PYTORCH_", "XDG_CACHE_HOME")
_SAMPLES, _FEWEST_VALID = 20, 10


def examine(device: Device = "auto") -> dict[str, Any]:
    """Everything about this installation that a bug report needs, as plain values; `ok` says whether sampling works.

    A fault of the smoke test becomes its `error`; nothing is raised and nothing is written.
    """
    installed = versions(_PACKAGES)
    smoke = _smoke_test(device)
    return {
        "molgen": __version__,
        "place": _short(Path(__file__).parent),
        "python": f"{platform.python_implementation()} {platform.python_version()} ({_short(sys.executable)})",
        "platform": platform.platform(),
        "packages": installed,
        "missing": [name for name in _PACKAGES if name not in installed and not (_SINCE_3_12 and name in _OF_DEEPCHEM)],
        "extras": {extra: all(versions([name]) for name in names) for extra, names in _EXTRAS.items()},
        "token pattern": pattern_source(),
        "devices": _devices(),
        "threads": {
            "cores": os.cpu_count(),
            "torch": torch.get_num_threads(),
            "parts of work": worker_threads(torch.device("cpu")),
            "RDKit workers": shared_workers().processes,
        },
        "environment": {name: _short(os.environ[name]) for name in sorted(os.environ) if name.startswith(_VARIABLES)},
        "folders": _folders(),
        "drawing": _drawing(),
        "smoke test": smoke,
        "ok": "error" not in smoke,
    }


def report(found: Mapping[str, Any]) -> str:
    """The values of `examine` as text."""
    lines = []
    for name, value in found.items():
        if isinstance(value, Mapping):
            lines.append(f"{name}:")
            lines += [f"  {key:<16} {_text(one)}" for key, one in value.items()] or ["  none"]
        else:
            lines.append(f"{name}: {_text(value)}")
    return "\n".join(lines)


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return (", ".join(map(str, value)) or "none") if isinstance(value, list) else str(value)


def _devices() -> dict[str, str]:
    memory = memory_of_machine()
    found = {"cpu": f"{cpu_name()}, {memory / 2**30:.1f} GiB"}
    for index in range(torch.cuda.device_count()):
        size = torch.cuda.get_device_properties(index).total_memory / 2**30
        found[f"cuda:{index}"] = f"{torch.cuda.get_device_name(index)}, {size:.1f} GiB"
    if torch.backends.mps.is_available():
        found["mps"] = "Apple GPU"
    found["build of torch"] = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU"
    chosen = choose_device("auto")
    return found | {"auto is": chosen.type, "bf16 is used": "yes" if uses_bf16("auto", chosen) else "no"}


def _folders() -> dict[str, str]:
    data = data_directory()
    cache = data / "cache"
    entries = [path.stat().st_size for path in cache.glob("*")] if cache.is_dir() else []
    runs = sorted(path.parent.name for path in FOLDER.glob(f"*/{WEIGHTS}"))
    return {
        "data": f"{_short(data)} ({'writable' if _is_writable(data) else 'not writable'})",
        "data sets here": ", ".join(name for name in NAMED if is_here(name)),
        "cache": f"{len(entries)} entries, {sum(entries) / 2**20:.1f} MiB",
        "runs here": f"{len(runs)} under {FOLDER}/",
        "shipped runs": ", ".join(sorted(path.name for path in SHIPPED.glob("*") if path.is_dir())),
    }


def _is_writable(folder: Path) -> bool:
    """Whether the folder, or where it does not exist the nearest one above it, can be written to."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return os.access(existing, os.W_OK | os.X_OK)


def _drawing() -> bool | str:
    """Whether molecules can be drawn, or why not."""
    try:
        require_drawing()
    except MolgenError as error:
        return str(error)
    return True


def _smoke_test(device: Device) -> dict[str, Any]:
    """Samples from the smallest shipped run."""
    began = time.monotonic()
    try:
        run = min(SHIPPED.glob(f"*/{WEIGHTS}"), key=lambda path: path.stat().st_size).parent
        generator = MoleculeGenerator.load(run, runtime=Runtime(device, workers=shared_workers()))
        valid = int(generator.sample(_SAMPLES)["valid"].sum())
        if valid < _FEWEST_VALID:
            raise RuntimeError(f"only {valid} of {_SAMPLES} molecules are valid")
    except Exception as fault:  # whatever is broken is what the report is for
        return {"error": f"{type(fault).__name__}: {' '.join(str(fault).split())}"}
    seconds = f"{time.monotonic() - began:.1f}"
    return {"run": run.name, "device": generator.device.type, "valid": f"{valid} of {_SAMPLES}", "seconds": seconds}


def _short(path: str | os.PathLike[str]) -> str:
    """A path without the name of the user: the home directory is `~`."""
    return os.fspath(path).replace(str(Path.home()), "~") if Path.home() != Path("/") else os.fspath(path)
