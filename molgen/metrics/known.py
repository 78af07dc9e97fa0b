"""A training set as novelty and neighbours need it: millions of strings as sorted 64-bit keys, and fingerprints."""

from base64 import b64decode
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from molgen.chem.pool import Workers
from molgen.runtime.cache import Arrays, expect
from molgen.runtime.hashing import Keys, keys_of

_BYTES = 128  # of a fingerprint of 1,024 bits


@dataclass(frozen=True)
class TrainingIndex:
    """Which strings a set has. `shipped` are its SMILES as they stand in the file, the others as in `descriptors`."""

    keys: dict[str, Keys]
    fingerprints: npt.NDArray[np.uint8]
    """(n, 128); empty where it was not asked for."""
    rows: npt.NDArray[np.int64]
    """Which molecule of the set each fingerprint is of."""
    n: int
    """Molecules of the set."""
    parsed: int
    """Those that RDKit parses: only they count in any figure."""

    def missing(self, column: str, strings: Iterable[str]) -> set[str]:
        """Those of `strings` that the set does not have. Two of 10^4 × 10^6 strings share a key once in 10^9 times."""
        listed = list(strings)
        if not listed:
            return set()
        keys = self.keys[column]
        wanted = keys_of(listed)
        places = np.searchsorted(keys, wanted)
        found = keys[np.minimum(places, max(len(keys) - 1, 0))] == wanted if len(keys) else np.zeros(len(wanted), bool)
        return {s for s, is_known in zip(listed, found.tolist(), strict=True) if not is_known}

    def to_arrays(self) -> Arrays:
        """For the cache."""
        arrays: dict[str, npt.NDArray[Any]] = {f"keys.{name}": array for name, array in self.keys.items()}
        arrays |= {"fingerprints": self.fingerprints, "rows": self.rows}
        return arrays | {"n": np.array(self.n), "parsed": np.array(self.parsed)}

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> "TrainingIndex":
        """What `to_arrays` gave. Raises ValueError or KeyError for anything else."""
        keys = {name.removeprefix("keys."): array for name, array in arrays.items() if name.startswith("keys.")}
        fingerprints, rows, n, parsed = arrays["fingerprints"], arrays["rows"], arrays["n"], arrays["parsed"]
        expect(n, np.int64, ())
        expect(parsed, np.int64, ())
        expect(rows, np.int64, (None,))
        expect(fingerprints, np.uint8, (len(rows), _BYTES))
        for array in keys.values():
            expect(array, np.uint64, (None,))
        if not all((array[1:] > array[:-1]).all() for array in (*keys.values(), rows)) or len(rows) > n:
            raise ValueError("keys out of order, or more fingerprints than molecules")
        return cls(keys, fingerprints, rows, int(n), int(parsed))


def build_index(
    smiles: list[str], columns: Iterable[str], with_fingerprints: bool, workers: Workers, label: str
) -> TrainingIndex:
    """The index of a training set; `columns` are parts of `descriptors` that are strings."""
    columns = tuple(columns)
    parts = [*columns, *(("fingerprint",) if with_fingerprints else ())]
    keys: dict[str, list[Keys]] = {name: [] for name in columns}
    packed: list[bytes] = []
    rows: list[int] = []
    start = parsed = 0
    # the strings as they are shipped need no RDKit
    for chunk in workers.stream("describe", smiles if parts else [], label, parts=parts):
        answers = {start + i: a for i, a in enumerate(chunk) if a is not None and "failure" not in a}
        start += len(chunk)
        parsed += len(answers)
        for name in columns:
            words = {word for answer in answers.values() for word in _words(name, answer[name])}
            keys[name].append(keys_of(words))
        if with_fingerprints:
            packed += [b64decode(answer["fingerprint"]) for answer in answers.values()]
            rows += answers
    none = np.zeros(0, np.uint64)
    merged = {name: np.unique(np.concatenate([none, *arrays])) for name, arrays in keys.items()}
    merged["shipped"] = np.unique(keys_of(smiles))
    fingerprints = np.frombuffer(b"".join(packed), np.uint8).reshape(-1, _BYTES)
    return TrainingIndex(merged, fingerprints, np.array(rows, np.int64), len(smiles), parsed)


def _words(name: str, value: Any) -> list[str]:
    if name == "scaffold":
        return [value[0]] if value[0] else []
    return list(value) if name == "ring_systems" else [value]
