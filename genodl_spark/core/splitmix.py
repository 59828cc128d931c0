"""Seeds and keys out of several numbers, by SplitMix64 (Steele, Lea and Flood 2014). Pure NumPy.

`native/kernels.c` has the finalizer again, for what it draws by such keys.
"""

from __future__ import annotations

import numpy as np

STEP = np.uint64(0x9E3779B97F4A7C15)  # between two states of one generator


def mixed(state: np.ndarray) -> np.ndarray:
    """The finalizer, a bijection of uint64."""
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


def keys_of(rows: np.ndarray, *parts: int) -> np.ndarray:
    """Keys uint64 (rows,) of row numbers, whole numbers (rows,), and of what else decides, such as seed and epoch."""
    state = np.zeros(len(rows), np.uint64)
    for part in (*(np.full(1, int(part) % (1 << 64), np.uint64) for part in parts), rows.astype(np.uint64)):
        state = mixed(state + part + STEP)
    return state


def mix(*parts: int) -> int:
    """One seed out of several whole numbers, below 2**63."""
    *others, last = parts
    return int(keys_of(np.array([last % (1 << 64)], np.uint64), *others)[0]) >> 1
