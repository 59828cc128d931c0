"""Histograms, PSI and Kolmogorov-Smirnov distances against SciPy, NumPy and sums written out."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ks_2samp

from genodl_spark.learning import drift

SEEDS = st.integers(0, 100_000)
ROWS = st.integers(1, 600)


def numbers(seed: int, rows: int, features: int = 6) -> np.ndarray:
    """float32: normal, tied, constant, mostly missing, all missing, and with infinities."""
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(rows, features)).astype(np.float32)
    x[:, 1] = np.round(x[:, 1])
    x[:, 2] = 7
    x[generator.random(rows) < 0.8, 3] = np.nan
    x[:, 4] = np.nan
    x[generator.random(rows) < 0.1, 5] = np.inf
    return x


def categories(seed: int, rows: int, features: int = 5, most: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(-1, most + 1, (rows, features)).astype(np.int8)


def binned(x: np.ndarray, cuts: np.ndarray, feature: int) -> np.ndarray:
    """Bin of each known value, by searching."""
    values = x[:, feature]
    values = values[values >= 0] if x.dtype == np.int8 else values[~np.isnan(values)]
    ends = cuts[:, feature]
    return np.searchsorted(ends[~np.isnan(ends)] if x.dtype != np.int8 else ends, values, side="left")


@settings(max_examples=40, deadline=None)
@given(SEEDS, ROWS, st.integers(2, 12))
def test_cut_points_are_quantiles_of_the_known_values(seed: int, rows: int, bins: int) -> None:
    x = numbers(seed, rows)
    cuts = drift.cut_points(x, bins)
    assert cuts.shape == (bins - 1, 6) and cuts.dtype == np.float32
    for feature in range(6):
        known = x[~np.isnan(x[:, feature]), feature]
        if len(known):
            places = [math.ceil(k * len(known) / bins) - 1 for k in range(1, bins)]
            np.testing.assert_array_equal(cuts[:, feature], np.sort(known)[places])
        else:
            assert np.isnan(cuts[:, feature]).all()


def test_cut_points_of_plain_numbers_are_those_of_numpy() -> None:
    x = np.random.default_rng(0).normal(size=(101, 2000)).astype(np.float32)  # more features than are sorted at once
    expected = np.quantile(x, np.arange(1, 10) / 10, axis=0, method="inverted_cdf")
    np.testing.assert_array_equal(drift.cut_points(x, 10), expected)


def test_cut_points_of_categories_leave_a_bin_for_what_the_reference_lacks() -> None:
    reference = np.array([[0, 2], [1, -1], [2, 2]], np.int8)
    cuts = drift.cut_points(reference, 10)
    np.testing.assert_array_equal(cuts, [[0, 0], [1, 1], [2, 2]])
    current = np.array([[3, 127], [0, -1]], np.int8)
    np.testing.assert_array_equal(drift.histogram(current, cuts), [[1, 0], [0, 0], [0, 0], [1, 1], [0, 1]])


@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning")  # the oracle's p-value, of two rows
@settings(max_examples=40, deadline=None)
@given(SEEDS, ROWS, ROWS, st.integers(2, 12), st.booleans())
def test_histograms_and_distances_are_those_of_scipy(seed: int, n: int, m: int, bins: int, coded: bool) -> None:
    reference, current = (
        (categories(seed, n), categories(seed + 1, m, most=5)) if coded else (numbers(seed, n), numbers(seed + 1, m))
    )
    cuts = drift.cut_points(reference, bins)
    a, b = drift.histogram(reference, cuts), drift.histogram(current, cuts)
    for feature in range(reference.shape[1]):
        left, right = binned(reference, cuts, feature), binned(current, cuts, feature)
        for counts, rows, known in ((a, n, left), (b, m, right)):
            if not len(known):
                assert counts[-1, feature] == rows
            if len(cuts) and not np.isnan(cuts[:, feature].astype(float)).all():
                np.testing.assert_array_equal(counts[:-1, feature], np.bincount(known, minlength=len(cuts) + 1))
            assert (counts[:, feature].sum(), counts[-1, feature]) == (rows, rows - len(known))
        expected = ks_2samp(left, right, method="asymp").statistic if len(left) and len(right) else 0.0
        assert drift.ks(a, b)[feature] == pytest.approx(expected)
    if coded:  # the categories themselves, up to those that the reference lacks
        top = int(cuts[-1, 0])
        for feature in range(reference.shape[1]):
            left, right = (np.minimum(x[x[:, feature] >= 0, feature], top + 1) for x in (reference, current))
            if len(left) and len(right):
                assert drift.ks(a, b)[feature] == pytest.approx(ks_2samp(left, right, method="asymp").statistic)


def by_hand(reference: list[int], current: list[int]) -> float:
    """PSI as its docstring says it, a bin at a time."""
    n, m, total = sum(reference), sum(current), 0.0
    given = 0.5 * sum(c + d > 0 for c, d in zip(reference, current, strict=True))
    for c, d in zip(reference, current, strict=True):
        if c + d:
            pooled = (c + d) / (n + m)
            p, q = (c + given * pooled) / (n + given), (d + given * pooled) / (m + given)
            total += (p - q) * math.log(p / q)
    return total


COUNTS = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=12)


@settings(max_examples=100, deadline=None)
@given(COUNTS)
def test_psi_is_the_sum_over_bins(pairs: list[tuple[int, int]]) -> None:
    a, b = (np.array([pair[i] for pair in pairs])[:, None] for i in range(2))
    found = drift.psi(a, b)[0]
    if a.sum() and b.sum():
        assert found == pytest.approx(by_hand(a[:, 0].tolist(), b[:, 0].tolist()), abs=1e-12)
    assert found == pytest.approx(drift.psi(b, a)[0], abs=1e-12) and found >= 0
    assert drift.psi(a, a)[0] == 0
    assert drift.psi(a, 7 * a)[0] == pytest.approx(0, abs=1e-12)  # equal shares of more rows
    assert drift.psi(np.concatenate([a, a * 0]), np.concatenate([b, b * 0]))[0] == pytest.approx(found)
    assert drift.ks(np.concatenate([a, a * 0]), np.concatenate([a, a * 0]))[0] == 0


def test_psi_of_many_rows_is_the_plain_one() -> None:
    p, q = np.array([0.2, 0.3, 0.5]), np.array([0.3, 0.3, 0.4])
    found = drift.psi((p * 1e9).astype(np.int64)[:, None], (q * 1e9).astype(np.int64)[:, None])[0]
    assert found == pytest.approx(float(((p - q) * np.log(p / q)).sum()), abs=1e-8)


@settings(max_examples=30, deadline=None)
@given(SEEDS, ROWS, st.lists(st.integers(0, 600), max_size=5), st.booleans())
def test_neither_the_order_of_rows_nor_batches_matter(seed: int, rows: int, ends: list[int], coded: bool) -> None:
    x = categories(seed, rows) if coded else numbers(seed, rows)
    cuts = drift.cut_points(categories(seed + 1, 40) if coded else numbers(seed + 1, 40), 10)
    whole = drift.histogram(x, cuts)
    shuffled = x[np.random.default_rng(seed).permutation(rows)]
    np.testing.assert_array_equal(drift.histogram(shuffled, cuts), whole)
    parts = np.split(shuffled, sorted(min(end, rows) for end in ends))
    np.testing.assert_array_equal(sum(drift.histogram(part, cuts) for part in parts), whole)
    np.testing.assert_array_equal(drift.cut_points(shuffled, 10), drift.cut_points(x, 10))


def test_a_transform_that_keeps_the_order_changes_nothing() -> None:
    a, b = numbers(0, 200), numbers(1, 150) + 1
    before = [drift.histogram(x, drift.cut_points(a, 10)) for x in (a, b)]
    after = [drift.histogram(np.arcsinh(x), drift.cut_points(np.arcsinh(a), 10)) for x in (a, b)]
    np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize(("n", "m"), [(60, 30), (30, 60), (40, 40), (300, 40), (500, 400)])
def test_chance_raises_no_alarm_and_a_shift_does(n: int, m: int) -> None:
    """5,000 features without drift: PSI has the mean and the tail of its theory.
    Those that are shifted by three deviations are found."""
    generator = np.random.default_rng(n + m)
    reference, current = (generator.normal(size=(rows, 5000)).astype(np.float32) for rows in (n, m))
    bins = drift.bins_for(n, m, 10)
    cuts = drift.cut_points(reference, bins)
    a, b = drift.histogram(reference, cuts), drift.histogram(current, cuts)
    found = drift.psi(a, b)
    assert found.mean() == pytest.approx((bins - 1) * (1 / n + 1 / m), rel=0.12)
    assert 0.005 < (found > drift.limits(a, b, 0.0, 0.01)).mean() < 0.02
    limits = drift.limits(a, b, 0.25, 0.01 / 5000)
    assert not (found > limits).any()
    b = drift.histogram(current + np.where(np.arange(5000) < 1500, 3, 0).astype(np.float32), cuts)
    np.testing.assert_array_equal(
        np.flatnonzero(drift.psi(a, b) > drift.limits(a, b, 0.25, 0.01 / 5000)), np.arange(1500)
    )


def test_limits_are_those_of_chi_squared_tables() -> None:
    a, b = np.full((10, 1), 10), np.full((10, 1), 5)
    scale = 1 / 100 + 1 / 50
    assert drift.limits(a, b, 0.0, 0.01)[0] == pytest.approx(21.666 * scale, rel=1e-4)  # 9 degrees of freedom
    assert drift.limits(a, b, 1.0, 0.01)[0] == pytest.approx(1 + 9 * scale)
    assert drift.limits(1000 * a, 1000 * b, 0.25, 0.01)[0] == pytest.approx(0.25, abs=1e-3)
    assert np.isinf(drift.limits(a, 0 * b, 0.25, 0.01)[0])
    assert drift.ks_limit(100, 100, 0.0, 0.05) == pytest.approx(1.358 * math.sqrt(2 / 100), rel=1e-3)
    assert drift.ks_limit(10**6, 10**6, 0.2, 0.05) == 0.2
    assert [drift.bins_for(*rows, 10) for rows in ((60, 30), (3, 1000), (1000, 1000))] == [6, 2, 10]


def test_values_that_are_lost_are_drift() -> None:
    reference = np.random.default_rng(0).normal(size=(100, 3)).astype(np.float32)
    current = reference.copy()
    current[:, 0] = np.nan
    current[::2, 1] = np.nan
    cuts = drift.cut_points(reference, 10)
    a, b = drift.histogram(reference, cuts), drift.histogram(current, cuts)
    np.testing.assert_allclose(drift.missing(b), [1, 0.5, 0])
    assert (drift.psi(a, b) > drift.limits(a, b, 0.25, 0.01)).tolist() == [True, True, False]
    assert drift.ks(a, b)[0] == 0 and drift.ks(a, b)[2] == 0
