"""Seeds and keys, against the generator's published outputs and whole numbers of Python."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from genodl_spark.core.splitmix import STEP, keys_of, mix, mixed


def test_published_outputs() -> None:
    states = np.uint64(1234567) + STEP * np.arange(1, 4, dtype=np.uint64)
    assert mixed(states).tolist() == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@settings(deadline=None)
@given(st.lists(st.integers(-(2**64), 2**64), min_size=1, max_size=4))
def test_seeds_and_keys_of_numbers(parts: list[int]) -> None:
    state = 0
    for part in parts:
        state = (state + part + 0x9E3779B97F4A7C15) % 2**64
        state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        state = (state ^ state >> 27) * 0x94D049BB133111EB % 2**64
        state ^= state >> 31
    assert mix(*parts) == state >> 1
    *others, last = parts
    assert keys_of(np.array([5, last % 2**64], np.uint64), *others)[1] == state
