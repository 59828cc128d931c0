"""Values as standard scores among what was measured together; which of some rows that are alike stay."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from genodl_spark.registry.labels import _standard_scores, on_one


def test_standard_scores_are_those_of_each_group_alone() -> None:
    draw = np.random.default_rng(1)
    together = draw.choice(["a", "b", "c"], 60).tolist()
    values = draw.normal(size=60) * 7 + np.array([{"a": 0, "b": 100, "c": -3}[name] for name in together])
    values[::9] = np.nan
    found, left_out = _standard_scores(values, list(together))
    assert left_out == 0 and (np.isnan(found) == np.isnan(values)).all()
    for name in "abc":
        mine = values[[one == name for one in together]]
        expected = (mine - np.nanmean(mine)) / np.nanstd(mine)
        np.testing.assert_allclose(found[[one == name for one in together]], expected)
    order = draw.permutation(60)
    np.testing.assert_allclose(_standard_scores(values[order], [together[i] for i in order])[0], found[order])


def test_rows_without_a_group_or_a_spread_are_left_out() -> None:
    values = np.array([1.0, 3.0, 5.0, 5.0, 2.0, np.nan, 8.0])
    found, left_out = _standard_scores(values, ["a", "a", "b", "b", None, None, "c"])
    np.testing.assert_allclose(found, [-1, 1, *[np.nan] * 5])
    assert left_out == 4


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), min_size=1, max_size=30))
def test_those_of_the_group_that_most_are_of(rows: list[tuple[int, int]]) -> None:
    groups, alike = np.array(rows).T
    kept = on_one(groups, alike)
    for number in set(alike.tolist()):
        counts = Counter(groups[alike == number].tolist())
        most = min(name for name, count in counts.items() if count == max(counts.values()))
        assert (kept[alike == number] == (groups[alike == number] == most)).all()
