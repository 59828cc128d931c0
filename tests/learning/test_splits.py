"""Splits: what the dealing must keep, and the quick way for single rows against the plain one."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from genodl_spark.learning import splits
from genodl_spark.learning.splits import Split


def dealt(counts: np.ndarray, shares: np.ndarray, seed: int, repeat: int) -> np.ndarray:
    """The rule, literally: groups from the largest, in a seeded order among equals, each to the part
    most short of its classes."""
    shuffled = np.random.default_rng([seed, repeat, 0x5011]).permutation(len(counts))
    totals = np.maximum(counts.sum(0), 1)
    part = np.empty(len(counts), np.int8)
    filled = np.zeros((len(shares), counts.shape[1]))
    for group in shuffled[np.argsort(-counts[shuffled].sum(1), kind="stable")]:
        mine = counts[group] / totals
        short = (shares[:, None] - filled / totals) / np.maximum(shares[:, None], 1e-9)
        want = np.where(shares > 0, (short * mine).sum(1) / mine.sum(), -np.inf)
        part[group] = np.argmax(np.round(want, 9))
        filled[part[group]] += counts[group]
    return part


@settings(max_examples=100, deadline=None)
@given(
    st.integers(0, 10_000),
    st.integers(1, 80),
    st.integers(1, 4),
    st.booleans(),
    st.sampled_from([(0.7, 0.1, 0.2), (0.8, 0, 0.2)]),
)
def test_single_rows_are_dealt_by_the_rule_of_groups(
    seed: int, n: int, classes: int, mixed: bool, shares: tuple[float, ...]
) -> None:
    random = np.random.default_rng(seed)
    counts = np.eye(classes)[random.integers(0, classes, n)]
    if mixed:
        counts = counts * random.integers(1, 4, (n, 1)) + random.integers(0, 3, (n, classes)) * (
            random.random((n, 1)) < 0.5
        )
    found = splits._deal(counts, np.array(shares), seed, 1)
    np.testing.assert_array_equal(found, dealt(counts, np.array(shares), seed, 1))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.integers(30, 200))
def test_shares_are_those_of_every_class_whatever_the_order(seed: int, n: int) -> None:
    random = np.random.default_rng(seed)
    names = [f"s{i}" for i in random.permutation(n)]
    labels = [str(label) for label in random.integers(0, 2, n)]
    split = Split(train=0.7, validation=0.1, test=0.2, stratify="label")
    codes = splits.assign(names, labels, None, None, split, seed).codes[:, 0]
    for label in set(labels):
        mine = codes[np.array(labels) == label]
        counts = np.bincount(mine, minlength=3)
        assert (abs(counts - len(mine) * np.array([0.7, 0.1, 0.2])) < 2).all()
    order = random.permutation(n)
    again = splits.assign([names[i] for i in order], [labels[i] for i in order], None, None, split, seed).codes[:, 0]
    np.testing.assert_array_equal(again, codes[order])


def test_rows_for_validation_are_whole_groups_of_each_class() -> None:
    entities, labels = [f"e{i:03}" for i in range(200)], ["ab"[i % 4 == 0] for i in range(200)]
    groups = [f"g{i // 8}" for i in range(200)]
    found = splits.validating(entities, labels, groups, 0.2, 3)
    assert found.dtype == bool and 30 <= found.sum() <= 50
    assert 8 <= found[::4].sum() <= 13
    assert all(len({bool(found[i]) for i in range(200) if groups[i] == g}) == 1 for g in set(groups))
    assert (splits.validating(entities, labels, groups, 0.2, 4) != found).any()
    order = np.random.default_rng(0).permutation(200)
    again = splits.validating(*([values[i] for i in order] for values in (entities, labels, groups)), 0.2, 3)
    assert (again == found[order]).all()
    assert splits.validating(entities, None, None, 0.1, 0).sum() == 20


@settings(deadline=None)  # the first example loads SciPy
@given(rows=st.integers(1, 12), data=st.data())
def test_rows_are_connected_over_others(rows: int, data: st.DataObject) -> None:
    pairs = data.draw(st.lists(st.tuples(*[st.integers(0, rows - 1)] * 2), max_size=15))
    found = splits.connected(rows, *np.array(pairs, np.int64).reshape(-1, 2).T)
    groups = [{row} for row in range(rows)]
    for a, b in pairs:
        both = groups[a] | groups[b]
        for row in both:
            groups[row] = both
    assert [set(np.flatnonzero(found == number).tolist()) for number in found] == groups
