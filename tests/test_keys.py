"""Remembering millions of strings."""

import tracemalloc

import numpy as np

from molgen.runtime.hashing import Seen, keys_of


def test_what_came_before_is_what_a_set_would_say() -> None:
    rng, seen, expected = np.random.default_rng(0), Seen(), set[int]()
    for size in (1, 0, 500, 3, 2_000, 1, 700, 700, 700):
        keys = np.unique(rng.integers(0, 5_000, size, dtype=np.uint64))
        assert seen.has(keys).tolist() == [key in expected for key in keys.tolist()]
        seen.add(keys[~seen.has(keys)])
        expected |= set(keys.tolist())
    every = np.arange(5_000, dtype=np.uint64)
    assert seen.has(every).tolist() == [key in expected for key in every.tolist()]


def test_the_largest_and_the_smallest_key_are_found_and_their_neighbours_are_not() -> None:
    seen, last = Seen(), 2**64 - 1
    seen.add(np.array([last, 0], np.uint64))
    assert seen.has(np.array([0, 1, last - 1, last], np.uint64)).tolist() == [True, False, False, True]


def test_a_key_that_came_before_takes_little_more_than_its_eight_bytes() -> None:
    rng, seen = np.random.default_rng(0), Seen()
    tracemalloc.start()
    for _ in range(200):
        seen.add(rng.integers(0, 2**64, 1_000, dtype=np.uint64))
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 9 * 200_000


def test_different_strings_have_different_keys_and_equal_ones_the_same() -> None:
    words = [f"C{'C' * (i % 97)}{i}" for i in range(10_000)]
    assert len(np.unique(keys_of(words))) == len(set(words))
    assert keys_of(words[::-1]).tolist() == keys_of(words).tolist()[::-1]
