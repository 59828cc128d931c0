"""Moderated and negative binomial tests, false discovery rates, and sets of genes, against independent computations."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.discrete.discrete_model import NegativeBinomial
from statsmodels.stats.multitest import multipletests

from genodl_spark.core.errors import InputError
from genodl_spark.learning.biomarkers import enrichment, moderated, negative_binomial
from genodl_spark.learning.biomarkers.differences import Differences, benjamini_hochberg, ranks

CODES = np.repeat([0, 1, 2], [7, 6, 8])


def values(features: int = 60, seed: int = 3) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(5, np.sqrt(1 / rng.gamma(3, 1, features)), (len(CODES), features))


@given(st.lists(st.one_of(st.floats(0, 1, allow_subnormal=False), st.just(float("nan"))), max_size=30))
@settings(max_examples=60, deadline=None)
def test_false_discovery_rates_are_those_of_statsmodels(p: list[float]) -> None:
    x = np.array(p, float)
    known = ~np.isnan(x)
    found = benjamini_hochberg(x)
    assert np.isnan(found[~known]).all()
    if known.any():
        np.testing.assert_allclose(found[known], multipletests(x[known], method="fdr_bh")[1], rtol=1e-12)


@pytest.mark.parametrize("classes", [2, 3])
def test_without_a_prior_the_test_is_the_ordinary_one(classes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moderated, "prior_of", lambda variance, freedom, trend=None: (0.0, np.ones(len(variance))))
    chosen = np.isin(CODES, range(classes))
    x, codes = values()[chosen], CODES[chosen]
    x[np.random.default_rng(0).random(x.shape) < 0.1] = np.nan
    found = moderated.compare(x, codes, classes)
    for f in range(x.shape[1]):
        groups = [x[(codes == k) & ~np.isnan(x[:, f]), f] for k in range(classes)]
        expected = stats.ttest_ind(*groups[::-1]) if classes == 2 else stats.f_oneway(*groups)
        np.testing.assert_allclose([found.statistic[f], found.p_value[f]], [*expected], rtol=1e-9)


def test_variances_that_are_all_alike_have_an_infinite_prior() -> None:
    """Then p-values are those of a normal with that one variance."""
    prior, at = moderated.prior_of(np.full(200, 4.0), np.full(200, 9.0))
    assert prior == np.inf and np.ptp(at) == 0
    x = np.tile(np.array([0.0, 1, 2, 3, 1, 2, 3, 4])[:, None], (1, 50))
    codes = np.repeat([0, 1], 4)
    found = moderated.compare(x, codes, 2)
    _, at = moderated.prior_of(np.full(50, 5 / 3), np.full(50, 6.0))
    t = 1 / np.sqrt(at[0] * 0.5)
    # limma has as many degrees of freedom as all features together, at most
    np.testing.assert_allclose(found.p_value, 2 * stats.t.sf(t, 300), rtol=1e-12)


def test_the_order_of_rows_and_the_number_of_features_together_are_no_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    x = values(100)
    order = np.random.default_rng(1).permutation(len(x))
    whole = moderated.compare(x, CODES, 3)
    monkeypatch.setattr(moderated, "_VALUES", 64)
    again = moderated.compare(x[order], CODES[order], 3)
    np.testing.assert_allclose(again.p_value, whole.p_value, rtol=1e-9)
    assert (again.of == whole.of).all()
    y = np.random.default_rng(2).negative_binomial(3, 0.1, (len(CODES), 40)).astype(float)
    counted = negative_binomial.compare(y, CODES, 3)
    monkeypatch.setattr(negative_binomial, "_VALUES", 64)
    again = negative_binomial.compare(y[order], CODES[order], 3)
    np.testing.assert_allclose(again.p_value, counted.p_value, rtol=1e-6)


def test_what_cannot_be_tested_has_a_reason() -> None:
    x = values(6)
    x[:, 1] = 0.1 + 0.2
    x[:, 2] = np.nan
    x[CODES == 1, 3] = np.nan
    x[:, 4] = np.nan
    x[[0, 7, 13], 4] = [1.0, 2, 3]
    x[:, 5] = np.array([0.1, 0.7, 1e8])[CODES]
    found = moderated.compare(x, CODES, 3)
    assert found.reason.tolist() == ["", "constant", "too few values", "too few values", "too few values", ""]
    assert np.isnan(found.p_value).tolist() == [False, True, True, True, True, False]
    assert found.p_value[5] < 1e-12 and found.of[5] == 2
    none = moderated.compare(x[:, 2:3], CODES, 3)
    assert none.reason.tolist() == ["too few values"] and np.isnan(none.q_value).all()


def test_the_class_that_stands_out_is_named() -> None:
    x = np.random.default_rng(0).normal(0, 0.1, (len(CODES), 3))
    for f in range(3):
        x[np.isin(CODES, f), f] -= 5
    found = moderated.compare(x, CODES, 3)
    assert found.of.tolist() == [0, 1, 2] and (found.effect < -4.5).all()


def test_counts_are_told_from_other_values() -> None:
    def are(*parts: object) -> bool:
        return negative_binomial.are_counts(map(np.array, parts))

    assert are([[0, 3.0], [2, np.nan]]) and are(np.array([[0, 2]], np.uint16)) and are([[0, 0.0]], [[5.0, 0]])
    assert not are([[0, 1.0]]) and not are([[0, 5.0]], [[0, 2.5]]) and not are([[-1, 2.0]])
    assert not are([[np.nan]]) and not are([[np.inf, 2]]) and not are()


def test_counts_with_missing_values_or_one_class_have_reasons() -> None:
    y = np.random.default_rng(2).negative_binomial(3, 0.1, (len(CODES), 30)).astype(float)
    y[0, 0] = np.nan
    y[:, 1] = 0
    found = negative_binomial.compare(y, CODES, 3)
    assert found.reason[:3].tolist() == ["a value is missing", "no counts", ""]
    assert np.isnan(found.p_value[:2]).all() and not np.isnan(found.p_value[2:]).any()
    alone = negative_binomial.compare(y[CODES == 0], CODES[CODES == 0], 1)
    assert set(alone.reason[2:]) == {"too few values"}
    with pytest.raises(InputError, match="without any count"):
        negative_binomial.size_factors(np.array([[0.0, 0], [1, 0], [0, 2]]))


def test_means_and_errors_given_dispersions_are_those_of_statsmodels() -> None:
    """Of equal sizes a negative binomial model with a known dispersion, fitted there by general maximisation."""
    import statsmodels.api as sm

    rng = np.random.default_rng(5)
    codes = np.repeat([0, 1], 10)
    y = rng.negative_binomial(4, 4 / (4 + np.where(codes == 1, 60, 25))[:, None], (20, 3)).astype(float)
    size = np.exp(rng.normal(0, 0.2, 20))
    found = negative_binomial.fit(y, size, codes, 2, np.full(3, 0.25))
    for f in range(3):
        family = sm.families.NegativeBinomial(alpha=0.25)
        design = sm.add_constant(codes.astype(float))
        expected = sm.GLM(y[:, f], design, family=family, offset=np.log(size)).fit(tol=1e-12, maxiter=200)
        np.testing.assert_allclose(found.coefficients[:, f], expected.params, rtol=1e-5)
        np.testing.assert_allclose(found.errors[:, f], expected.bse, rtol=1e-4)
        np.testing.assert_allclose(found.likelihood[f], expected.llf, rtol=1e-9)


def test_the_slope_of_the_likelihood_is_its_derivative() -> None:
    rng = np.random.default_rng(7)
    codes = np.repeat([0, 1], 6)
    y = rng.negative_binomial(3, 0.1, (12, 5)).astype(float)
    of, _ = negative_binomial._profile(y, np.ones(12), codes, 2)
    a, prior = rng.normal(-1, 1, 5), (np.zeros(5), 0.7)
    for given_prior in (None, prior):
        between = (of.value(a + 1e-5, given_prior) - of.value(a - 1e-5, given_prior)) / 2e-5
        np.testing.assert_allclose(of.slope(a, given_prior), between, rtol=1e-6)


def test_the_dispersion_is_the_likeliest() -> None:
    """Without the adjustment of Cox and Reid what a general fit finds, with it what no dispersion beside it betters."""
    rng = np.random.default_rng(9)
    y = rng.negative_binomial(2, 2 / (2 + 50.0), (400, 1)).astype(float)
    found = negative_binomial.dispersions(y, np.ones(400), np.repeat([0, 1], 200), 2).genewise
    general = NegativeBinomial(y[:, 0], np.repeat([[1.0, 0], [1, 1]], 200, axis=0)).fit(disp=0)
    np.testing.assert_allclose(found[0], general.params[-1], rtol=0.02)


def test_sets_of_genes_are_over_represented_as_fisher_says() -> None:
    rng = np.random.default_rng(0)
    selected, score = rng.random(120) < 0.2, rng.normal(size=120)
    sets = [rng.choice(120, size, replace=False) for size in (1, 5, 40, 119)] + [np.arange(0), np.arange(120)]
    found = enrichment.enriched(sets, selected, score, signed=True, correlation=0)
    for i, own in enumerate(sets[:4]):
        inside, hits = len(own), selected[own].sum()
        table = [[hits, inside - hits], [selected.sum() - hits, 120 - inside - selected.sum() + hits]]
        np.testing.assert_allclose(found.p_over[i], stats.fisher_exact(table, "greater")[1], rtol=1e-9)
        if 1 < inside < 119:
            rest = np.delete(score, own)
            np.testing.assert_allclose(found.p_shift[i], stats.ttest_ind(score[own], rest)[1], rtol=1e-9)
            np.testing.assert_allclose(found.shift[i], score[own].mean() - rest.mean(), rtol=1e-9)
    assert np.isnan(found.p_over[4:]).all() and np.isnan(found.p_shift[4:]).all()
    assert found.members.tolist() == [1, 5, 40, 119, 0, 120]


def test_normal_scores_have_the_effects_sign() -> None:
    p = np.array([0.05, 0.05, 0, np.nan])
    of = Differences(np.array([1.0, -2, -1, np.nan]), np.zeros(4, int), p, p, np.full(4, "", object))
    np.testing.assert_allclose(enrichment.normal_scores(of, True), [1.959964, -1.959964, -37, np.nan], rtol=1e-6)
    np.testing.assert_allclose(enrichment.normal_scores(of, False), [1.644854, 1.644854, 37, np.nan], rtol=1e-6)


def test_ranks_are_from_the_greatest_and_share_ties() -> None:
    assert ranks(np.array([3.0, np.nan, 5, 3, np.nan])).tolist() == [2.5, 4.5, 1, 2.5, 4.5]
