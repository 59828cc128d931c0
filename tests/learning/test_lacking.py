"""How far answers move without a block: what held-out rows say holds for other rows."""

from __future__ import annotations

import numpy as np
import pytest

from genodl_spark.learning.lacking import COVERED, interval, log_odds, reach


def answers(draw: np.random.Generator, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of two classes with a block, and without it."""
    first = draw.normal(0, 2, rows)
    p = 1 / (1 + np.exp(-np.stack([first, first + draw.normal(0, 1, rows)])))
    whole, without = np.stack([p, 1 - p], 2)
    return whole, without


def test_other_rows_move_no_farther() -> None:
    draw, inside = np.random.default_rng(3), []
    for _ in range(200):
        found = reach(*answers(draw, 100), 100)
        whole, without = answers(draw, 100)
        best = without.argmax(1)
        low, high = interval(without.max(1), np.full(100, found), True)
        inside.append(((whole[np.arange(100), best] >= low) & (whole[np.arange(100), best] <= high)).mean())
        assert (low < without.max(1)).all() and (high > without.max(1)).all() and (high <= 1).all()
    assert COVERED - 0.005 < np.mean(inside) < COVERED + 0.02  # at least, and little more


def test_values_rows_that_lack_it_anyway_and_too_few() -> None:
    whole = np.arange(40.0)[:, None]
    without = whole + np.where(np.arange(40) < 20, 0.0, np.linspace(-1, 1, 40))[:, None]
    assert reach(whole, without, 40) == 1.0
    assert np.isnan(reach(whole[:30], without[:30], 30))
    assert np.isnan(reach(whole, whole, 40))
    low, high = interval(np.array([3.0, 3.0, 3.0]), np.array([0.5, 0.0, np.nan]), False)
    np.testing.assert_array_equal(low, [2.5, np.nan, np.nan])
    np.testing.assert_array_equal(high, [3.5, np.nan, np.nan])
    assert log_odds(np.array([0.5])) == pytest.approx(0)
