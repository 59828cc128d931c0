"""What is planted into a cohort whose labels are dealt anew: labels, values and counts are what they should be, and
what is found of it is what a cohort without such labels would show."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from genodl_spark.learning.biomarkers import planted
from tests.learning.biomarkers.planted import Design, counts, values


@pytest.mark.parametrize("sizes", [(20, 20), (47, 25), (7, 5, 9), (3, 40), (2, 1)])
def test_labels_are_dealt_anew_in_every_class_alike(sizes: tuple[int, ...]) -> None:
    codes = np.random.default_rng(1).permutation(np.repeat(np.arange(len(sizes)), sizes))
    table = np.zeros((len(sizes), len(sizes)))
    for seed in range(200):
        dealt = planted.dealt_anew(codes, np.random.default_rng(seed))
        assert np.bincount(dealt).tolist() == list(sizes)
        one = np.array([np.bincount(dealt[codes == k], minlength=len(sizes)) for k in range(len(sizes))])
        expected = np.outer(sizes, sizes) / sum(sizes)
        assert np.abs(one - expected).max() < 2
        table += one / 200
    assert np.abs(table - expected).max() < 0.5
    first, again, other = (planted.dealt_anew(codes, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert (first == again).all() and (sum(sizes) < 5 or (first != other).any())


def test_values_are_taken_about_the_means_of_their_classes() -> None:
    random = np.random.default_rng(0)
    codes = np.repeat([0, 1], [12, 8])
    x = random.normal(5, 3, (20, 4)) + 9 * codes[:, None]
    x[2, 1] = np.nan
    x[:, 3] = codes  # nothing varies within classes
    found, scale = planted.alike(x, codes, 2)
    for k, n in ((0, 12), (1, 8)):
        np.testing.assert_allclose(np.nanmean(found[codes == k], 0), np.nanmean(x, 0))
        own = x[codes == k, 0]
        about = found[codes == k, 0] - x[:, 0].mean()
        np.testing.assert_allclose(about, (own - own.mean()) * np.sqrt(n / (n - 1)))
    expected = np.sqrt(sum(x[codes == k, 0].var(ddof=1) * n for k, n in ((0, 12), (1, 8))) / 20)
    assert scale[0] == pytest.approx(expected)
    assert np.isnan(found[2, 1]) and np.isfinite(found[:, 0]).all() and (found[:, 3] == found[0, 3]).all()


def test_thinned_counts_are_counts_of_the_smaller_mean() -> None:
    random = np.random.default_rng(0)
    x = random.negative_binomial(4, 4 / (4 + 60), (4000, 3)).astype(float)
    half = np.repeat([0, 1], 2000)
    effect = np.stack([np.where(half == 1, one, 0.0) for one in (1.0, -2.0, 0.0)], 1)
    found = planted.thinned(x, effect, random)
    assert (found[half == 1, 0] == x[half == 1, 0]).all() and (found[:, 2] == x[:, 2]).all()
    assert (found <= x).all() and (found == np.floor(found)).all()
    for column, which, mean in ((0, 0, 30), (1, 1, 15)):
        own = found[half == which, column]
        assert own.mean() == pytest.approx(mean, rel=0.05)
        # a negative binomial of the smaller mean and the same dispersion
        assert own.var() == pytest.approx(mean + mean**2 / 4, rel=0.12)
        expected = stats.nbinom(4, 4 / (4 + mean)).cdf(np.arange(120))
        assert np.abs(np.searchsorted(np.sort(own), np.arange(120), "right") / 2000 - expected).max() < 0.04


@pytest.mark.parametrize("counted", [False, True])
def test_what_is_found_does_not_hang_on_what_classes_differ_in(counted: bool) -> None:
    design = Design(genes=600 if counted else 1200, rows=20)
    made, kind = (counts if counted else values)(design, 0), (counted, False, 0.1, 6 if counted else 30, [0])
    found = planted.recovered(made.x, made.codes, 2, *kind)
    assert (np.diff(found.found) > 0).all() and found.found[2] > 0.9 and found.false < (0.18 if counted else 0.12)
    # Where no class differs the answer is the same: values to the last digits, counts to what true differences blur.
    shift = np.zeros(1200)
    if not counted:
        shift[::2] = 50
        moved = planted.recovered(made.x + shift * made.codes[:, None], made.codes, 2, *kind)
        np.testing.assert_allclose(moved.found, found.found)
        assert moved.false == found.false
        # As many as Student's distribution leaves beyond the test's threshold.
        np.testing.assert_allclose(found.found, [_power(one) for one in planted.SIZES], atol=0.05)
    else:
        none = counts(replace(design, share=0.0), 0)
        other = planted.recovered(none.x, none.codes, 2, *kind)
        np.testing.assert_allclose(other.found, found.found, atol=0.15)


def _power(size: float) -> float:
    """Found of differences of `size` standard deviations between 20 and 20 rows, of 5% that differ by .5, 1 or 2: where
    the threshold makes false discoveries a tenth."""
    at = np.linspace(1, 6, 2000)
    error = np.sqrt(2 / 20)

    def above(d: float) -> np.ndarray:
        return stats.nct(38, d / error).sf(at) + stats.nct(38, d / error).cdf(-at)

    true, null = 0.05 * np.mean([above(d) for d in planted.SIZES], 0), 0.95 * 2 * stats.t(38).sf(at)
    place = np.flatnonzero(null / (true + null) <= 0.1 * 0.95)[0]
    return float(above(size)[place])


def test_of_few_rows_or_features_little_is_said() -> None:
    random = np.random.default_rng(0)
    few = planted.recovered(random.normal(size=(20, 8)), np.repeat([0, 1], 10), 2, False, False, 0.1, 3, [0])
    assert np.isnan(few.found).all() and np.isnan(few.false)
    none = planted.recovered(random.normal(size=(20, 80)), np.repeat([0, 1], 10), 2, False, False, 0.1, 0, [0])
    assert np.isnan(none.found).all()
    small = planted.recovered(random.normal(size=(6, 80)), np.repeat([0, 1, 2], 2), 3, False, False, 0.1, 3, [0])
    assert np.isfinite(small.found).all() and 0 <= small.false <= 1
