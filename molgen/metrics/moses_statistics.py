"""Statistics of a test set, as MOSES' figures need them: of a table, and MOSES' own, read without running anything.

MOSES' own are shipped as a NumPy array of one Python object, that is, as a pickle. Unpickling executes what a file
says; this reader does not unpickle. It walks the list of instructions with `pickletools`, which only decodes, and knows
how to build strings, numbers, tuples, lists, dictionaries, counters and numeric arrays. Any other instruction, or any
name but the five that such data needs, is refused.
"""

import pickletools
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from molgen.chem.descriptors import MOSES_PROPERTIES
from molgen.errors import MolgenError
from molgen.metrics.chemnet import SIZE, Gaussian, gaussian
from molgen.metrics.profile import MoleculeTable
from molgen.runtime.cache import Arrays, expect, from_strings, to_strings

_MARK = object()
_LARGEST = 2**30


class _Array:
    """A NumPy array in the making: its state arrives after it."""

    value: Any = None


class _Type:
    """A NumPy dtype; only its code matters."""

    def __init__(self, code: str, *_: Any) -> None:
        self.code = code


_NAMES: dict[str, Callable[..., Any]] = {
    "numpy.core.multiarray _reconstruct": lambda *_: _Array(),
    "numpy ndarray": _Array,
    "numpy dtype": _Type,
    "_codecs encode": lambda text, _: text.encode("latin-1"),
    "collections Counter": lambda counts: dict(counts),
}
_LITERALS = {"NONE": None, "NEWFALSE": False, "NEWTRUE": True}


class Statistics(NamedTuple):
    """A reference set as the figures need it."""

    gaussian: Gaussian
    fingerprints: npt.NDArray[np.uint8]
    fragments: Mapping[str, int]
    scaffolds: Mapping[str, int]
    properties: npt.NDArray[np.float64]
    """(n, 4) in the order of MOSES_PROPERTIES."""
    digest: str
    """Names its content."""


def statistics(reference: MoleculeTable, digest: str) -> Statistics:
    """Of a table with `moses.PARTS` and ChemNet's `activations`."""
    return Statistics(
        gaussian(reference.numbers("activations")),
        reference.numbers("fingerprint"),
        reference.counts("fragments"),
        scaffold_counts(reference),
        reference.numbers("properties"),
        digest,
    )


def scaffold_counts(table: MoleculeTable) -> Counter[str]:
    """Bemis–Murcko scaffolds of at least two rings."""
    rings = table.numbers("scaffold_rings").tolist()
    return Counter(s for s, n in zip(table.strings("scaffold"), rings, strict=True) if s and n >= 2)


def read_object(instructions: bytes) -> Any:
    """The plain data that a pickle describes. Raises ValueError for anything but plain data."""
    stack: list[Any] = []
    memory: dict[Any, Any] = {}

    def since_mark() -> list[Any]:
        at = max(i for i, item in enumerate(stack) if item is _MARK)
        items = stack[at + 1 :]
        del stack[at:]
        return items

    for operation, argument, _ in pickletools.genops(instructions):
        match operation.name:
            case "PROTO":
                pass
            case "STOP":
                return stack.pop()
            case "MARK":
                stack.append(_MARK)
            case "NONE" | "NEWFALSE" | "NEWTRUE":
                stack.append(_LITERALS[operation.name])
            case "BININT" | "BININT1" | "BININT2" | "BINFLOAT" | "BINUNICODE":
                stack.append(argument)
            case "EMPTY_TUPLE":
                stack.append(())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                size = int(operation.name[-1])
                stack[-size:] = [tuple(stack[-size:])]
            case "TUPLE":
                stack.append(tuple(since_mark()))
            case "EMPTY_LIST":
                stack.append([])
            case "APPEND":
                item = stack.pop()
                stack[-1].append(item)
            case "APPENDS":
                items = since_mark()
                stack[-1].extend(items)
            case "EMPTY_DICT":
                stack.append({})
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                stack[-1][key] = value
            case "SETITEMS":
                items = since_mark()
                stack[-1].update(zip(items[::2], items[1::2], strict=True))
            case "BINPUT" | "LONG_BINPUT":
                memory[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memory[argument])
            case "GLOBAL" if argument in _NAMES:
                stack.append(_NAMES[argument])
            case "REDUCE":
                arguments, maker = stack.pop(), stack.pop()
                if maker not in _NAMES.values():
                    raise ValueError("not plain data: a call")
                stack.append(maker(*arguments))
            case "BUILD":
                state = stack.pop()
                if isinstance(stack[-1], _Array):
                    stack[-1].value = _array(state)
                elif not isinstance(stack[-1], _Type):
                    raise ValueError("not plain data: an object's state")
            case _:
                raise ValueError(f"not plain data: {operation.name} {argument!s:.80}")
    raise ValueError("not plain data: it has no end")


def shipped_statistics(path: Path, digest: str) -> Statistics:
    """The statistics of one test set, from the file of the molsets wheel. Raises MolgenError for a damaged file."""
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo("stats.npy").file_size > _LARGEST:
                raise ValueError("larger than 1 GiB")
            content = archive.read("stats.npy")
        # A .npy file: magic, version, length of the header in two bytes, header, data.
        start = 10 + int.from_bytes(content[8:10], "little")
        (data,) = read_object(content[start:]).value  # an array of one object
        values = [data[name]["values"] for name in MOSES_PROPERTIES]
        return Statistics(
            Gaussian(data["FCD"]["mu"].value, data["FCD"]["sigma"].value, len(values[0])),
            np.packbits(data["SNN"]["fps"].value, axis=1, bitorder="little"),
            data["Frag"]["frag"],
            data["Scaf"]["scaf"],
            np.sort(np.array(values, np.float64).T, axis=0),  # each column for itself: only its distribution matters
            digest,
        )
    except (OSError, ValueError, KeyError, IndexError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        raise MolgenError(f"{path}: cannot be read: {error}", "fetch it again: `molgen data get moses`") from None


def to_arrays(statistics: Statistics) -> Arrays:
    """For the cache."""
    return {
        "mean": statistics.gaussian.mean,
        "covariance": statistics.gaussian.covariance,
        "n": np.array(statistics.gaussian.n),
        "fingerprints": statistics.fingerprints,
        "fragments": from_strings(statistics.fragments),
        "fragment_counts": np.array(list(statistics.fragments.values()), np.int64),
        "scaffolds": from_strings(statistics.scaffolds),
        "scaffold_counts": np.array(list(statistics.scaffolds.values()), np.int64),
        "properties": statistics.properties,
    }


def from_arrays(arrays: Arrays, digest: str) -> Statistics:
    """What `to_arrays` gave. Raises ValueError or KeyError for anything else."""
    for name, kind, shape in (
        ("mean", arrays["mean"].dtype, (SIZE,)),
        ("covariance", np.float64, (SIZE, SIZE)),
        ("n", np.int64, ()),
        ("fingerprints", np.uint8, (None, 128)),
        ("fragment_counts", np.int64, (None,)),
        ("scaffold_counts", np.int64, (None,)),
        ("properties", np.float64, (None, len(MOSES_PROPERTIES))),
    ):
        expect(arrays[name], kind, shape)
    if not (np.issubdtype(arrays["mean"].dtype, np.floating) and len(arrays["fingerprints"])):
        raise ValueError("no statistics of molecules")
    return Statistics(
        Gaussian(arrays["mean"], arrays["covariance"], int(arrays["n"])),
        arrays["fingerprints"],
        dict(zip(to_strings(arrays["fragments"]), arrays["fragment_counts"].tolist(), strict=True)),
        dict(zip(to_strings(arrays["scaffolds"]), arrays["scaffold_counts"].tolist(), strict=True)),
        arrays["properties"],
        digest,
    )


def _array(state: Any) -> Any:
    """An array of NumPy's state: version, shape, dtype, whether in Fortran order, bytes."""
    _, shape, kind, fortran, content = state
    if kind.code == "O8" and isinstance(content, list):  # objects: plain data like the rest of it
        return content
    if kind.code not in ("u1", "f4", "f8"):
        raise ValueError(f"not plain data: an array of {kind.code}")
    array = np.frombuffer(content, np.dtype(f"<{kind.code}" if kind.code != "u1" else "u1"))
    return array.reshape(shape, order="F" if fortran else "C")
