"""Windows of the GC share of given ones: near enough, of the same length, none taken twice that need not be."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from genodl_spark.core.splitmix import keys_of
from genodl_spark.genome.matched import gc_matched, gc_shares

_ROUNDING = 1e-9


def test_shares() -> None:
    codes = np.array([[0, 1, 2, 3], [1, 1, 2, -1], [-1, -1, -1, -1], [-1, 0, 3, 2]], np.int8)
    np.testing.assert_array_equal(gc_shares(codes), [0.5, 1, np.nan, 1 / 3])
    assert gc_shares(np.zeros((0, 4), np.int8)).shape == (0,)
    assert np.isnan(gc_shares(np.zeros((2, 0), np.int8))).all()


_sequences = st.lists(
    st.tuples(st.one_of(st.floats(0, 1), st.just(0.5), st.just(float("nan"))), st.integers(5, 6)), max_size=40
)


@settings(max_examples=300, deadline=None)
@given(_sequences, _sequences, st.sampled_from([0.02, 0.1, 0.3, 1.0, 2.0]), st.integers(0, 9))
def test_pairs(wanted: list[tuple[float, int]], offered: list[tuple[float, int]], width: float, seed: int) -> None:
    shares, lengths = np.array(wanted).reshape(-1, 2).T
    candidates, candidate_lengths = np.array(offered).reshape(-1, 2).T
    keys, candidate_keys = keys_of(np.arange(len(wanted)), seed, 0), keys_of(np.arange(len(offered)), seed, 1)

    def matched(order: np.ndarray, other: np.ndarray, again: bool) -> np.ndarray:
        return gc_matched(
            shares[order],
            candidates[other],
            keys[order],
            candidate_keys[other],
            lengths=lengths[order],
            candidate_lengths=candidate_lengths[other],
            width=width,
            again=again,
        )

    as_given = np.arange(len(wanted)), np.arange(len(offered))
    once, found = matched(*as_given, again=False), matched(*as_given, again=True)
    assert found.dtype == np.int64 and found.shape == shares.shape
    assert (found == once)[once >= 0].all()
    assert len(np.unique(once[once >= 0])) == (once >= 0).sum()
    apart = np.abs(shares[:, None] - candidates)
    apart[lengths[:, None] != candidate_lengths] = np.nan
    for some in (once, found):
        assert (apart[some >= 0, some[some >= 0]] <= width + _ROUNDING).all()
    near = apart < width / 2 - _ROUNDING
    free = np.setdiff1d(np.arange(len(offered)), once)
    assert not near[once < 0][:, free].any()
    assert not near[found < 0].any()

    generator = np.random.default_rng(seed)
    order, other = generator.permutation(len(wanted)), generator.permutation(len(offered))
    for some, again in ((once, False), (found, True)):
        assert (np.append(other, -1)[matched(order, other, again)] == some[order]).all()


def test_candidates_of_a_bin_are_taken_in_turn() -> None:
    shares, candidates = np.full(10, 0.31), np.array([0.31, 0.9, 0.31, 0.31])
    found = gc_matched(shares, candidates, keys_of(np.arange(10)), keys_of(np.arange(4)))
    assert sorted(np.bincount(found, minlength=4).tolist()) == [0, 3, 3, 4]
    once = gc_matched(shares, candidates, keys_of(np.arange(10)), keys_of(np.arange(4)), again=False)
    assert sorted(once.tolist()) == [-1] * 7 + [0, 2, 3]


def test_every_candidate_of_a_bin_is_as_likely() -> None:
    shares, candidates = np.array([0.405]), np.full(8, 0.41)
    for one in (0, 1):  # as row numbers, and of a seed
        keys = [np.arange(8, dtype=np.uint64) + 8 * i if one else keys_of(np.arange(8), i) for i in range(4000)]
        found = [gc_matched(shares, candidates, np.zeros(1, np.uint64), key)[0] for key in keys]
        assert stats.chisquare(np.bincount(found, minlength=8)).pvalue > 0.001


def test_windows_of_one_length() -> None:
    generator = np.random.default_rng(1)
    sequences = generator.choice(4, (500, 101), p=[0.2, 0.3, 0.3, 0.2]).astype(np.int8)
    windows = (generator.random((20_000, 101)) < generator.uniform(0.2, 0.9, (20_000, 1))).astype(np.int8)
    shares, candidates = gc_shares(sequences), gc_shares(windows)
    found = gc_matched(shares, candidates, keys_of(np.arange(500), 1), keys_of(np.arange(20_000), 2))
    assert (found >= 0).all() and len(np.unique(found)) == 500
    assert np.abs(candidates[found] - shares).max() <= 0.02
    assert abs(candidates[found].mean() - shares.mean()) < 0.001 < shares.mean() - candidates.mean()


def test_lengths_of_one_side_are_refused() -> None:
    keys = np.zeros(1, np.uint64)
    with pytest.raises(ValueError, match="expected those of both or none"):
        gc_matched(np.ones(1), np.ones(1), keys, keys, lengths=np.ones(1, np.int64))
