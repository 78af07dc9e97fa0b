"""64-bit hashes of strings, to compare and store millions of them in little memory."""

import hashlib
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

Keys = npt.NDArray[np.uint64]


def keys_of(strings: Iterable[str]) -> Keys:
    """The BLAKE2b hash of each string, (n,). Among ten million distinct strings, P(a collision) is 3 in a million."""
    return np.frombuffer(b"".join(hashlib.blake2b(s.encode(), digest_size=8).digest() for s in strings), "<u8")


class Seen:
    """A growing set of keys, with 8 bytes per key; Python's set needs 60 and more.

    The keys are in sorted arrays, each more than twice as long as the next. So each key is moved about log2 n times,
    and a look-up searches about log2 n arrays.
    """

    def __init__(self) -> None:
        self._parts: list[Keys] = []

    def has(self, keys: Keys) -> npt.NDArray[np.bool_]:
        """Whether each key is in the set, (n,)."""
        found = np.zeros(len(keys), bool)
        for part in self._parts:
            found |= part[np.minimum(np.searchsorted(part, keys), len(part) - 1)] == keys
        return found

    def add(self, keys: Keys) -> None:
        """Adds distinct keys that are not in the set."""
        if not len(keys):
            return
        self._parts.append(np.sort(keys))
        while len(self._parts) > 1 and len(self._parts[-2]) <= 2 * len(self._parts[-1]):
            last = self._parts.pop()
            merged = np.concatenate([self._parts[-1], last])
            merged.sort(kind="stable")  # two sorted runs: one pass
            self._parts[-1] = merged
