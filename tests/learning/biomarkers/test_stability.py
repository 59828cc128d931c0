"""Selections in halves of the rows, and the index of their stability."""

from __future__ import annotations

import numpy as np
import pytest

from genodl_spark.learning.biomarkers import stability


def test_the_index_is_that_of_its_definition() -> None:
    """Sums over features and sets in loops, as the paper writes them."""
    z = np.random.default_rng(3).random((7, 30)) < np.linspace(0.05, 0.9, 30)
    sets, features = z.shape
    sizes = [int(row.sum()) for row in z]
    mean = sum(sizes) / sets / features
    frequency = [sum(row[f] for row in z) / sets for f in range(features)]
    spread = sum(sets / (sets - 1) * p * (1 - p) for p in frequency) / features
    value = 1 - spread / (mean * (1 - mean))
    each = []
    for row, size in zip(z, sizes, strict=True):
        shared = sum(p for p, in_it in zip(frequency, row, strict=True) if in_it) / features
        own = size / features
        rest = value / 2 * (2 * mean * own - own - mean + 1)
        each.append((shared - own * mean + rest) / (mean * (1 - mean)))
    variance = 4 / sets**2 * sum((one - sum(each) / sets) ** 2 for one in each)
    found = stability.index(z)
    assert found.value == pytest.approx(value, rel=1e-12)
    assert found.high - found.value == pytest.approx(1.959963984540054 * variance**0.5, rel=1e-9)
    assert found.value - found.low == pytest.approx(found.high - found.value, rel=1e-9)


def test_sets_that_are_all_the_same_are_stable_and_random_ones_are_not() -> None:
    rng = np.random.default_rng(0)
    same = np.tile(rng.random(100) < 0.2, (10, 1))
    assert stability.index(same) == stability.Stability(1, 1, 1)
    random = np.stack([np.isin(np.arange(1000), rng.choice(1000, 100, replace=False)) for _ in range(200)])
    found = stability.index(random)
    assert abs(found.value) < 0.01 and found.low < 0 < found.high
    assert np.isnan(stability.index(np.ones((3, 5), bool)).value)
    assert np.isnan(stability.index(same[:1]).value)


def test_the_interval_covers() -> None:
    """Sets of features that are drawn with known shares: the index of many sets is that of the population."""
    rng = np.random.default_rng(1)
    shares = np.r_[np.full(20, 0.8), np.full(180, 0.02)]
    mean = shares.mean()
    population = 1 - (shares * (1 - shares)).mean() / (mean * (1 - mean))
    covered = sum(
        found.low <= population <= found.high
        for found in (stability.index(rng.random((50, 200)) < shares) for _ in range(200))
    )
    assert covered >= 180


def test_halves_are_complementary_and_have_the_classes_shares() -> None:
    codes = np.repeat([0, 1], [10, 7])
    found = list(stability.halves(codes, 5, [1]))
    assert len(found) == 10
    for first, second in zip(found[::2], found[1::2], strict=True):
        assert not set(first) & set(second)
        for half in (first, second):
            assert np.bincount(codes[half]).tolist() == [5, 3] and (np.diff(half) > 0).all()
    again = list(stability.halves(codes, 5, [1]))
    other = list(stability.halves(codes, 5, [2]))
    assert all((a == b).all() for a, b in zip(found, again, strict=True))
    assert any((a != b).any() for a, b in zip(found, other, strict=True))


def test_what_tells_classes_apart_is_selected_in_every_half() -> None:
    rng = np.random.default_rng(4)
    codes = np.repeat([0, 1], 20)
    x = rng.normal(size=(40, 200))
    x[:, :3] += 4 * codes[:, None]

    def score(rows: np.ndarray) -> np.ndarray:
        own, of = x[rows], codes[rows]
        found = np.abs(own[of == 1].mean(0) - own[of == 0].mean(0))
        found[199] = np.nan
        return found

    chosen = stability.selections(score, codes, 200, 10, 25, [0])
    assert chosen.shape == (50, 200) and (chosen.sum(1) == 10).all()
    frequency = chosen.mean(0)
    assert (frequency[:3] == 1).all() and frequency[3:].max() < 0.75 and frequency[199] == 0
    few = stability.selections(lambda rows: np.where(np.arange(200) < 2, 1.0, np.nan), codes, 200, 10, 1, [0])
    assert few.sum(1).tolist() == [2, 2]


def test_the_bound_on_what_is_selected_by_chance() -> None:
    """Of pure noise no more than the bound passes the threshold, on average."""
    assert stability.falsely_selected(59, 7129, 0.75) == pytest.approx(59**2 / (0.5 * 7129))
    assert stability.most_for(1, 7129, 0.75) == 59 and stability.most_for(1, 2, 0.75) == 1
    most = stability.most_for(1, 300, 0.6)
    assert most == 7
    passed = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        x, codes = rng.normal(size=(24, 300)), np.repeat([0, 1], 12)
        chosen = stability.selections(
            lambda rows, x=x, codes=codes: np.abs(x[rows].T @ (codes[rows] - 0.5)), codes, 300, most, 25, [seed]
        )
        passed.append((chosen.mean(0) >= 0.6).sum())
    assert np.mean(passed) <= 1
