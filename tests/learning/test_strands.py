"""Whether strands are one: planted words on one strand and on both, and what a network's options make of it."""

from __future__ import annotations

import numpy as np
import pytest

from genodl_spark.learning import strands
from genodl_spark.learning.strands import merged_loss, option

WORD = np.array([0, 2, 0, 1, 1, 3], np.int8)
TURNED = 3 - WORD[::-1]


def planted(rows: int, both: bool, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Random sequences, of which the second class has the word on one strand or on either; where it is on one alone,
    the first class has it on the other."""
    generator = np.random.default_rng(seed)
    codes = generator.integers(0, 4, (rows, 60)).astype(np.int8)
    y = np.arange(rows) % 2
    for row, place in enumerate(generator.integers(0, 54, rows)):
        if both and y[row]:
            codes[row, place : place + 6] = WORD if generator.integers(2) else TURNED
        elif not both:
            codes[row, place : place + 6] = WORD if y[row] else TURNED
    return codes, y


@pytest.mark.parametrize("classes", [True, False])
@pytest.mark.parametrize("both", [True, False])
def test_strands_are_one_where_both_say_the_same(both: bool, classes: bool) -> None:
    codes, y = planted(1200, both)
    loss = merged_loss(codes, y if classes else y + 0.1, classes, 0)
    assert loss < 0.99 if both else loss > 1.5


def test_rows_beyond_those_that_are_drawn_change_nothing() -> None:
    codes, y = planted(strands.ROWS + 300, True)
    drawn = np.random.default_rng(5).permutation(len(y))[: strands.ROWS]
    others = np.setdiff1d(np.arange(len(y)), drawn)
    before = merged_loss(codes, y, True, 5)
    codes[others], y[others] = 0, 1
    assert merged_loss(codes, y, True, 5) == before


@pytest.mark.parametrize(
    ("model", "one", "expected"),
    [
        ({"kind": "cnn"}, False, "none"),
        ({"kind": "cnn"}, True, "equivariant"),
        ({"kind": "cnn", "channels": [32, 48], "positional": 8}, True, "equivariant"),
        ({"kind": "cnn", "channels": [31]}, True, "augment"),
        ({"kind": "cnn", "positional": 3}, True, "augment"),
        ({"kind": "cnn", "boxes": 4}, True, "augment"),
    ],
)
def test_weights_are_shared_where_the_network_can(model: dict, one: bool, expected: str) -> None:
    assert option(model, one) == expected
