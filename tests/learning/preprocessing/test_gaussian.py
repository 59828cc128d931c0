"""Values filled from a conditional Gaussian, against the whole covariance by numpy alone."""

from __future__ import annotations

import numpy as np
import pytest

from genodl_spark.core.errors import InputError
from genodl_spark.learning.preprocessing import Chain, Rows, impute_gaussian, step_of
from genodl_spark.learning.preprocessing.impute_gaussian import Gaussian, shrinkage

FEATURES = 30
NAMES = [f"f{i}" for i in range(FEATURES)]


def people(seed: int, rows: int = 40, features: int = FEATURES) -> np.ndarray:
    """Rows with three axes in common and noise of each feature's own."""
    axes = np.random.default_rng(11).normal(size=(3, features))
    generator = np.random.default_rng(seed)
    return generator.normal(size=(rows, 3)) @ axes + generator.normal(size=(rows, features)) * 0.5 + 2


def fitted(train: np.ndarray, **options: object) -> tuple[Chain, dict[str, np.ndarray]]:
    chain = Chain(["impute_gaussian"], {"impute_gaussian": options}, NAMES[: train.shape[1]])
    return chain, chain.fit(train).tensors


def by_hand(tensors: dict[str, np.ndarray], row: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Conditional mean and covariance of what `row` lacks, of the whole covariance of the tensors."""
    loadings, noise = tensors["step.0.loadings"], tensors["step.0.noise"]
    whole, mean = loadings @ loadings.T + np.diag(noise), tensors["step.0.mean"]
    lacks = np.isnan(row)
    gain = whole[np.ix_(lacks, ~lacks)] @ np.linalg.inv(whole[np.ix_(~lacks, ~lacks)])
    expected = mean[lacks] + gain @ (row - mean)[~lacks]
    return expected, whole[np.ix_(lacks, lacks)] - gain @ whole[np.ix_(~lacks, lacks)]


def test_what_is_missing_becomes_its_conditional_mean() -> None:
    chain, tensors = fitted(people(1))
    rows = people(2, 6)
    rows[np.random.default_rng(3).random(rows.shape) < 0.3] = np.nan
    made = chain.apply(rows, tensors)
    for row, found in zip(rows, made, strict=True):
        np.testing.assert_allclose(found[np.isnan(row)], by_hand(tensors, row)[0], rtol=1e-5)
        np.testing.assert_array_equal(found[~np.isnan(row)], row[~np.isnan(row)].astype(np.float32))
    nothing = chain.apply(np.full((1, FEATURES), np.nan), tensors)
    np.testing.assert_allclose(nothing[0], people(1).mean(0), rtol=1e-5)


def test_the_covariance_is_the_shrunk_one_of_the_training_rows() -> None:
    """With as many axes as rows it is (1 - s) r_ij + s of the correlations, whose s is that of Schaefer and Strimmer's
    sums over all pairs."""
    train = people(4, 25)
    _, tensors = fitted(train, rank=25)
    mean, usual = train.mean(0), np.median(train.var(0, ddof=1))
    spread = np.sqrt((np.square(train - mean).sum(0) + usual) / len(train))
    z = (train - mean) / spread
    n = len(z)
    products = np.einsum("ki,kj->kij", z, z)
    correlations = products.sum(0) / (n - 1)
    variances = n / (n - 1) ** 3 * np.square(products - products.mean(0)).sum(0)
    apart = ~np.eye(FEATURES, dtype=bool)
    share = variances[apart].sum() / np.square(correlations[apart]).sum()
    assert shrinkage(z) == pytest.approx(share, rel=1e-9) and 0 < share < 1
    expected = (1 - share) * correlations
    np.fill_diagonal(expected, 1)
    loadings, noise = tensors["step.0.loadings"], tensors["step.0.noise"]
    found = (loadings @ loadings.T + np.diag(noise)) / np.outer(spread, spread)
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_draws_have_the_conditional_moments_and_come_again() -> None:
    chain, tensors = fitted(people(5, 400))
    row = people(6, 1)[0]
    row[:4] = np.nan
    expected, covariance = by_hand(tensors, row)
    step, own = chain.steps[0], chain.tensors_of(0, tensors)
    made = np.concatenate([step.draw(Rows(np.repeat(row[None], 20_000, 0), np.zeros(20_000, int)), own).x])
    np.testing.assert_array_equal(made[:, 4:], np.repeat(row[None, 4:], len(made), 0))
    np.testing.assert_allclose(made[:, :4].mean(0), expected, atol=1e-9)  # in pairs about it
    degrees = tensors["step.0.degrees"][0]
    wide = tensors["step.0.stretch"][0] * degrees / (degrees - 2)  # the variance of Student's t
    np.testing.assert_allclose(np.cov(made[:, :4].T), wide * covariance, rtol=0.06, atol=0.004)
    drawn = chain.drawn(row, tensors, 50)
    np.testing.assert_array_equal(drawn, chain.drawn(row, tensors, 50))
    assert drawn.shape == (50, FEATURES) and len(np.unique(drawn[:, 0])) == 50
    whole = people(7, 1)[0]
    np.testing.assert_array_equal(chain.drawn(whole, tensors, 3), np.repeat(whole[None], 3, 0).astype(np.float32))


def test_draws_hold_what_was_hidden_as_often_as_they_say() -> None:
    """Of few training rows, some of whose own values are missing."""
    inside = []
    for seed in range(12):
        train, rows = people(seed, 14), people(seed + 100, 12)
        train[np.random.default_rng(seed).random(train.shape) < 0.1] = np.nan
        chain, tensors = fitted(train)
        hidden = np.random.default_rng(seed + 50).random(rows.shape) < 0.3
        for row, lacks in zip(rows, hidden, strict=True):
            sums = chain.drawn(np.where(lacks, np.nan, row), tensors, 200).sum(1)
            inside.append(np.quantile(sums, 0.025) <= row.sum() <= np.quantile(sums, 0.975))
    assert 0.9 < np.mean(inside) < 0.995


def test_a_row_is_filled_by_itself_alone() -> None:
    """Whatever stands beside it, and in whichever order."""
    chain, tensors = fitted(people(1))
    rows = people(2, 9)
    rows[np.random.default_rng(3).random(rows.shape) < 0.3] = np.nan
    order = np.random.default_rng(1).permutation(9)
    np.testing.assert_array_equal(chain.apply(rows[order], tensors), chain.apply(rows, tensors)[order])
    others = np.concatenate([rows[:1], people(3, 8) * 100])
    np.testing.assert_array_equal(chain.apply(others, tensors)[0], chain.apply(rows, tensors)[0])


def test_features_that_no_training_row_has_are_filled_as_any_other_and_widely() -> None:
    train = people(8)
    train[:, 3] = np.nan
    train[1:, 4] = np.nan
    train[:, 5] = 7.0
    chain, tensors = fitted(train)
    row = np.full(FEATURES, np.nan)
    row[6:] = train[0, 6:]
    found = chain.apply(row[None], tensors)[0]
    assert np.isfinite(found).all()
    known = train[~np.isnan(train)]
    assert found[3] == pytest.approx(known.mean(), abs=0.2) and found[5] == pytest.approx(7.0, abs=0.1)
    drawn = chain.drawn(row, tensors, 200).std(0)
    assert drawn[3] == pytest.approx(known.std(), rel=0.3) and drawn[5] < 0.3 * drawn[3]


def test_what_cannot_be_fitted_is_refused() -> None:
    with pytest.raises(InputError, match="no value in any training row"):
        fitted(np.full((4, FEATURES), np.nan))
    rows = people(1, 2)
    rows[0, 0] = np.nan
    step = step_of("impute_gaussian", {})
    with pytest.raises(ValueError, match="lack different values"):
        step.draw(Rows(rows, np.zeros(2, int)), {})


def test_a_variance_given_what_is_known() -> None:
    generator = np.random.default_rng(2)
    one = Gaussian(np.zeros(6), generator.normal(size=(6, 2)), generator.uniform(0.1, 1, 6))
    known = np.array([True, False, True, True, False, True])
    row = np.where(known, 0.0, np.nan)
    tensors = {"step.0.loadings": one.loadings, "step.0.noise": one.noise, "step.0.mean": one.mean}
    np.testing.assert_allclose(one.spread(known)[~known], np.diag(by_hand(tensors, row)[1]))
    assert (one.spread(known)[known] == 0).all()
    assert impute_gaussian.Step.draws and not step_of("impute_median", {}).draws
