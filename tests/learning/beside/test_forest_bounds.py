"""What forests of values may cost."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.ensemble import RandomForestRegressor

from genodl_spark.learning import baselines
from genodl_spark.learning.beside import forest_bounds


@given(st.integers(1, 100_000), st.integers(1, forest_bounds.ROWS))
def test_what_is_sorted_at_a_root_is_bounded(features: int, rows: int) -> None:
    found = forest_bounds.candidates(features, rows)
    assert 1 <= found <= min(features, forest_bounds.WIDEST) and found * rows <= forest_bounds.SORTED
    if rows <= 800:
        assert found == min(-(-features // 3), forest_bounds.WIDEST)
    assert found == -(-features // 3) or found == forest_bounds.WIDEST or (found + 1) * rows > forest_bounds.SORTED


@pytest.mark.parametrize(("rows", "numbers", "drawn", "width"), [(5_000, 160_000, 90, 4), (40, 120, 40, 3)])
def test_the_baseline_is_bounded(
    monkeypatch: pytest.MonkeyPatch, rows: int, numbers: int, drawn: int, width: int
) -> None:
    monkeypatch.setattr(forest_bounds, "ROWS", rows)
    monkeypatch.setattr(forest_bounds, "SORTED", numbers)
    monkeypatch.setattr(baselines, "TREES", 20)
    random = np.random.default_rng(0)
    x = random.normal(size=(130, 10)).astype(np.float32)
    y = x[:, 0] + x[:, 1] ** 2
    found = baselines.fit_predict("random_forest", x[:90], y[:90], x[90:], 0, 7)
    oracle = RandomForestRegressor(20, max_features=width, max_samples=drawn, random_state=7)
    np.testing.assert_array_equal(found, oracle.fit(x[:90], y[:90]).predict(x[90:]))
