"""One training set's findings, and what several of them and several methods agree on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from genodl_spark.learning.biomarkers import consensus, moderated, negative_binomial
from genodl_spark.learning.biomarkers.consensus import Asked
from genodl_spark.learning.biomarkers.differences import Differences, ranks

CODES = np.repeat([0, 1], 15)
ASKED = Asked(counts=False, trend=False, rate=0.1, pairs=10, most=8)


def measured(seed: int = 0, true: int = 5) -> np.ndarray:
    x = np.random.default_rng(seed).normal(size=(30, 120))
    x[:, :true] += 2.5 * CODES[:, None]
    return x


def test_a_training_set_is_tested_and_its_halves_too() -> None:
    x = measured()
    found = consensus.of_training_set(x, x, CODES, 2, ASKED, [0])
    alone = moderated.compare(x, CODES, 2)
    assert found.test == "moderated_t" and (found.found.p_value == alone.p_value).all()
    assert (found.significant == (alone.q_value <= 0.1)).all() and found.significant[:5].all()
    assert (found.rank == ranks(-alone.p_value)).all()
    assert (found.frequency[:5] == 1).all() and found.frequency.sum() == pytest.approx(8)
    assert 0.3 < found.stability.low < found.stability.value < found.stability.high < 1
    without = consensus.of_training_set(x, x, CODES, 2, replace(ASKED, pairs=0), [0])
    assert np.isnan(without.frequency).all() and np.isnan(without.stability.value)


def test_counts_are_counted_and_their_halves_compared_on_a_logarithm() -> None:
    rng = np.random.default_rng(1)
    mean = np.exp(rng.normal(4, 1, 120)) * np.exp(1.5 * np.outer(CODES, np.arange(120) < 5))
    y = rng.negative_binomial(5, 5 / (5 + mean)).astype(np.float32)
    found = consensus.of_training_set(y, np.full(y.shape, np.nan), CODES, 2, replace(ASKED, counts=True), [0])
    assert found.test == "negative_binomial"
    assert (found.found.p_value == negative_binomial.compare(y, CODES, 2).p_value).all()
    assert found.significant[:5].all() and (found.frequency[:5] >= 0.9).all()
    expected = np.log2([[3.5e5, np.nan, 6.5e5]])
    np.testing.assert_allclose(consensus.log_counts(np.array([[3.0, np.nan, 6]])), expected)


def test_p_values_that_are_too_small_to_differ_are_in_the_order_of_their_statistics() -> None:
    p, statistic = np.array([0, 0.5, 0, np.nan, 0.5, 0.01]), np.array([50.0, 1, -60, np.nan, -1, 3])
    of = Differences(statistic, np.zeros(6, int), statistic, p, np.full(6, "", object))
    assert ranks(consensus.order_of(of)).tolist() == [2, 4.5, 1, 6, 4.5, 3]


def test_methods_agree_by_the_mean_of_their_ranks() -> None:
    rank = [np.array([1.0, 2, 3, 4]), np.array([2.0, 1, 4, 3])]
    significant = np.array([[1, 1, 0, 0], [1, 0, 0, 1]], bool)
    frequency = [np.array([0.8, 0.4, 0, 0]), np.array([0.6, 0.8, 0.2, 0])]
    registered = np.array([1, 1, 1, 0], bool)
    found = consensus.agreed(
        rank, significant, frequency, registered, {"ig": np.array([3.0, 1, 2, 4])}, 0.5, list("abcd")
    )
    assert found.test_rank.tolist() == [1.5, 1.5, 3.5, 3.5] and found.share.tolist() == [1, 0.5, 0, 0.5]
    np.testing.assert_allclose(found.frequency, [0.7, 0.6, 0.1, 0])
    np.testing.assert_allclose(
        found.score, [(1.5 + 1 + 3) / 3, (1.5 + 2 + 1) / 3, (3.5 + 3 + 2) / 3, (3.5 + 4 + 4) / 3]
    )
    assert found.rank.tolist() == [2, 1, 3, 4]
    assert found.selected.tolist() == [True, True, False, False]
    strict = consensus.agreed(rank, significant, frequency, registered, {}, 1.0, list("abcd"))
    assert strict.selected.tolist() == [True, False, False, False]
    without = consensus.agreed(rank, significant, [np.full(4, np.nan)] * 2, registered, {}, 0.5, list("dcba"))
    assert without.score.tolist() == [1.5, 1.5, 3.5, 3.5] and without.rank.tolist() == [2, 1, 4, 3]


def test_of_nothing_hardly_anything_is_selected() -> None:
    """Labels that say nothing: over forty sets with folds, false discoveries in no more than the rate of them."""
    some = 0
    for seed in range(40):
        x = measured(seed, true=0)
        codes = np.random.default_rng(seed).permutation(CODES)
        whole = consensus.of_training_set(x, x, codes, 2, replace(ASKED, pairs=0), [0])
        fold = np.arange(30) % 5
        sets = [
            consensus.of_training_set(x[fold != k], x[fold != k], codes[fold != k], 2, replace(ASKED, pairs=0), [0])
            for k in range(5)
        ]
        found = consensus.agreed(
            [one.rank for one in sets],
            np.stack([one.significant for one in sets]),
            [one.frequency for one in sets],
            whole.significant,
            {},
            0.5,
            [str(i) for i in range(120)],
        )
        some += found.selected.any()
    assert some <= 7
