"""Which rows bring negatives, and of which heads."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from genodl_spark.core.errors import InputError
from genodl_spark.job import config
from genodl_spark.learning.heads import Head
from genodl_spark.learning.splits import TEST, TRAIN, UNUSED, VALIDATION, Assignment
from genodl_spark.registry import negatives
from genodl_spark.registry.labels import Labels

BOTH = [Head("a", "classes", ("0", "1")), Head("b", "classes", ("no", "yes"))]


def column(*codes: int) -> np.ndarray:
    return np.array(codes, np.int8)[:, None]


def test_positives_bring_some_where_their_part_of_the_split_has_none() -> None:
    target = np.array([[1.0], [0], [1], [1], [1], [0], [1], [1]])
    roles = column(TRAIN, TRAIN, TRAIN, VALIDATION, TEST, TEST, UNUSED, TEST)
    brings = negatives.bringing(target, BOTH[:1], roles, 0)[:, 0]
    # training has a given one, and brings some all the same; the test rows have theirs
    assert brings.tolist() == [True, False, True, True, False, False, False, False]
    folds = column(0, 1, 2, 0, 1, 2, UNUSED, 0)
    assert negatives.bringing(target, BOTH[:1], folds, 3)[:, 0].tolist() == [t == 1 for t in target[:6, 0]] + [
        False,
        True,
    ]


def test_each_head_has_its_own() -> None:
    """Also where rows have a label of one head alone, as with one head for each factor."""
    nan = np.nan
    target = np.array([[1, nan], [nan, 1], [1, 1], [0, 1], [nan, nan], [1, nan], [nan, 0], [nan, 1]])
    roles = column(TRAIN, TRAIN, TRAIN, TRAIN, TRAIN, TEST, TEST, TEST)
    labels = Labels([f"s{i}" for i in range(8)], target, BOTH, None, None, [])
    assert negatives.bringing(target, BOTH, roles, 0).tolist() == [
        [True, False],
        [False, True],
        [True, True],
        [False, True],
        [False, False],
        [True, False],
        [False, False],
        [False, False],  # head b has a negative among the test rows
    ]
    settings = config.load("binding", None, ["sequence.negatives=shuffled", "sequence.negatives_each=2"])
    run: Any = SimpleNamespace(settings=settings)
    features: Any = None
    found = negatives.brought(run, features, "c", labels, roles, 0)
    assert found is not None
    assert found.of.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 5, 5] and found.numbers.tolist() == [1, 2] * 5
    one_of = [[0, nan], [nan, 0], [0, 0], [nan, 0], [0, nan]]
    np.testing.assert_array_equal(found.target, np.repeat(one_of, 2, 0))

    whole, assignment = negatives.behind(labels, Assignment(roles, 0, []), found)
    assert whole.entities[8:10] == ["s0~shuffled:1", "s0~shuffled:2"]
    assert whole.groups is not None and whole.groups[8:] == [f"s{i}" for i in found.of]
    np.testing.assert_array_equal(assignment.codes[:, 0], np.concatenate([roles[:, 0], roles[found.of, 0]]))
    np.testing.assert_array_equal(whole.target[8:], found.target)


def test_without_two_classes_there_is_no_positive_one() -> None:
    for head in (Head("a", "classes", ("0", "1", "2")), Head("a", "value")):
        with pytest.raises(InputError, match=r"^sequence.negatives: found .* in a; expected two, the last one"):
            negatives.bringing(np.ones((1, 1)), [head], column(TRAIN), 0)
