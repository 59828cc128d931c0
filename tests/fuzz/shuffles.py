"""Rows of any bytes, shuffled, against the same draws taken one by one in Python."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np

from genodl_spark.native import kernels

_WORD = 1 << 64
_NO_WORD = 0x64166969B3969A0A  # a key whose first word is 0, one too many for most n


def _finalizer(x: int) -> int:
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % _WORD
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB % _WORD
    return x ^ (x >> 31)


def draws(key: int) -> Callable[[int], int]:
    """Whole numbers below what is asked for, one after the other, of a key."""

    def words() -> Iterator[int]:
        state = _finalizer(key)
        while True:
            state = (state + 0x9E3779B97F4A7C15) % _WORD
            yield _finalizer(state)

    found = words()

    def below(n: int) -> int:
        return next(word * n // _WORD for word in found if word * n % _WORD >= _WORD % n)

    return below


def _run(bases: list[int], below: Callable[[int], int]) -> list[int]:
    edges = Counter(pairwise(bases))
    leaving = {u: [v for v in range(4) for _ in range(edges[u, v])] for u in range(4)}
    last: dict[int, int] = {}
    joined = {bases[-1]}
    for u in range(4):
        if leaving[u]:
            w = u
            while w not in joined:
                elsewhere = [v for v in leaving[w] if v != w]
                last[w] = elsewhere[below(len(elsewhere))]
                w = last[w]
            w = u
            while w not in joined:
                joined.add(w)
                w = last[w]
    for u, v in last.items():
        leaving[u].remove(v)
    path = [bases[0]]
    while len(path) < len(bases):
        u = path[-1]
        path.append(leaving[u].pop(below(len(leaving[u]))) if leaving[u] else last[u])
    return path


def slow(codes: list[int], key: int) -> list[int]:
    """A row as `genome.shuffles.shuffled` has it."""
    below, found, at = draws(key), list(codes), 0
    while at < len(codes):
        stop = at
        while stop < len(codes) and 0 <= codes[stop] <= 3:
            stop += 1
        if stop - at > 3:
            found[at:stop] = _run(codes[at:stop], below)
        at = stop + 1
    return found


def run(n: int, seed: int) -> tuple[int, int]:
    """Shuffles `n` batches of mutated rows; none is refused. AssertionError where one is not as `slow` has it."""
    random_ = random.Random(seed)
    for i in range(n):
        length = random_.choice((0, 1, 2, 3, 4, 5, 63, 64, 65, random_.randrange(1, 300)))
        rows = random_.randrange(1, 4)
        base = [random_.choices(range(4), [random_.random() ** 4 for _ in range(4)], k=length) for _ in range(rows)]
        if random_.random() < 0.3:  # two bases in turn, which are seldom left
            base = [[x if random_.random() < 0.05 else at % 2 for at, x in enumerate(row)] for row in base]
        codes = np.array(base, np.int8).reshape(rows, length)
        mutated = np.array([random_.random() for _ in range(codes.size)]).reshape(codes.shape)
        rare = random_.choice((0.0, 0.0, 0.01, 0.1, 1.0))
        codes[mutated < rare] = random_.choice((-1, -2, -128, 4, 127, random_.randrange(-128, 128)))
        keys = np.array([random_.choice((0, _NO_WORD, random_.randrange(_WORD))) for _ in range(rows)], np.uint64)
        out = np.empty_like(codes)
        kernels.call("shuffled", codes, rows, length, keys, out)
        expected = [slow(row, key) for row, key in zip(codes.tolist(), keys.tolist(), strict=True)]
        assert out.tolist() == expected, f"batch {i} of seed {seed}: {codes.tolist()} with keys {keys.tolist()}"
    return n, 0
