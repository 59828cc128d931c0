"""Temperatures of probabilities, of rows that are calibrated by the way they are made."""

from __future__ import annotations

import numpy as np
import pytest

from genodl_spark.learning import calibration


@pytest.mark.filterwarnings("error")
def test_temperature_finds_what_was_put_in() -> None:
    random = np.random.default_rng(0)
    honest = random.dirichlet([1, 1, 1], 20_000)
    target = (honest.cumsum(1) > random.random((20_000, 1))).argmax(1).astype(float)
    for t in (0.4, 1.0, 3.0):
        spoilt = calibration.sharpen(honest, t)
        assert spoilt == pytest.approx((honest ** (1 / t)) / (honest ** (1 / t)).sum(1, keepdims=True), abs=1e-12)
        assert calibration.temperature(spoilt, target) == pytest.approx(1 / t, rel=0.03)
    weights = np.r_[np.ones(100), np.zeros(19_900)]
    assert calibration.temperature(honest, target, weights) == calibration.temperature(honest[:100], target[:100])
    assert calibration.temperature(honest[:100], np.ones(100)) == 1
    assert calibration.temperature(np.empty((0, 2)), np.empty(0)) == 1
    assert calibration.sharpen(np.array([[0.0, 1.0], [np.nan, np.nan]]), 2.0).tolist()[0] == [0, 1]
    sure = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])  # one of them wrong
    assert 1 < calibration.temperature(sure, np.array([0.0, 1.0, 1.0])) < np.exp(3.01)
