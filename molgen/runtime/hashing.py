"""Strings as 64-bit numbers, so that millions of them can be compared and remembered in little memory."""

import hashlib
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

Keys = npt.NDArray[np.uint64]


def keys_of(strings: Iterable[str]) -> Keys:
    """A number for each string, (n,). Of ten million distinct strings two share one three times in a million."""
    return np.frombuffer(b"".join(hashlib.blake2b(s.encode(), digest_size=8).digest() for s in strings), "<u8")


class Seen:
    """Keys that came before, in 8 bytes each, where Python's set takes 60 and more.

    They lie in sorted arrays, each more than twice as long as the next: each key is moved, and looked for, only about
    log2 n times.
    """

    def __init__(self) -> None:
        self._parts: list[Keys] = []

    def has(self, keys: Keys) -> npt.NDArray[np.bool_]:
        """For each of some keys whether it came before, (n,)."""
        found = np.zeros(len(keys), bool)
        for part in self._parts:
            found |= part[np.minimum(np.searchsorted(part, keys), len(part) - 1)] == keys
        return found

    def add(self, keys: Keys) -> None:
        """Takes note of distinct keys that have not come before."""
        if not len(keys):
            return
        self._parts.append(np.sort(keys))
        while len(self._parts) > 1 and len(self._parts[-2]) <= 2 * len(self._parts[-1]):
            last = self._parts.pop()
            merged = np.concatenate([self._parts[-1], last])
            merged.sort(kind="stable")  # two sorted runs: one pass
            self._parts[-1] = merged
