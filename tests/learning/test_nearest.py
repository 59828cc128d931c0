"""Similarity to the nearest of some sequences, beside what was exchanged in them and a definition pair by pair."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from genodl_spark.learning.nearest import EDGES, K, bins, nearest


def kmers(row: np.ndarray) -> set[tuple[int, ...]]:
    found = set()
    for start in range(len(row) - K + 1):
        word = tuple(row[start : start + K].tolist())
        if min(word) >= 0:
            found.add(min(word, tuple(3 - base for base in reversed(word))))
    return found


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_as_defined(seed: int) -> None:
    random = np.random.default_rng(seed)
    pool = random.integers(0, 4, 90).astype(np.int8)
    starts = random.integers(0, 70, 14)
    rows = pool[starts[:, None] + np.arange(20)]
    rows[random.random(rows.shape) < 0.03] = -1
    rows[::3] = np.where(rows[::3] < 0, -1, 3 - rows[::3])[:, ::-1]
    asked, fold = rows[:6], random.integers(0, 3, 6)
    of = random.integers(0, 3, 8)
    parts = [(rows[6:9], of[:3]), (rows[9:], of[3:])]
    found = nearest(asked, fold, parts)
    for row, own, value in zip(asked, fold, found, strict=True):
        shares = [0.0]
        for other, fold_of in zip(rows[6:], of, strict=True):
            one, two = kmers(row), kmers(other)
            if fold_of != own and one and two:
                shares.append(len(one & two) / np.sqrt(len(one) * len(two)))
        np.testing.assert_allclose(value, max(shares) ** (1 / K), atol=1e-3)


def test_it_tells_how_many_bases_are_the_same() -> None:
    random = np.random.default_rng(1)
    training = random.integers(0, 4, (500, 400)).astype(np.int8)
    fold, of = np.ones(500, int), np.zeros(500, int)
    for exchanged in (0.0, 0.05, 0.1, 0.2):
        rows = training.copy()
        there = random.random(rows.shape) < exchanged
        rows[there] = (rows[there] + random.integers(1, 4, there.sum())) % 4
        found = nearest(rows, fold, [(training, of)])
        assert abs(np.median(found) - (1 - exchanged)) < 0.02, exchanged
    strangers = nearest(random.integers(0, 4, (500, 400)).astype(np.int8), fold, [(training, of)])
    assert strangers.max() < EDGES[0]


def test_bins_hold_each_row_once() -> None:
    similar = np.array([0.0, 0.69, 0.7, 0.8999, 0.9, 1.0, np.nan])
    found = {name: inside.tolist() for name, inside in bins(similar)}
    assert found == {
        "below 0.7": [True, True, *[False] * 5],
        "0.7 to 0.8": [False, False, True, *[False] * 4],
        "0.8 to 0.9": [*[False] * 3, True, *[False] * 3],
        "0.9 to 1": [*[False] * 4, True, True, False],
    }
    assert [name for name, _ in bins(similar[4:])] == ["0.9 to 1"]
