"""What `predictions` says of rows that lack blocks of features: which, how far they could move the answer, or why there
is none."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa
import pytest

from genodl_spark.learning.model_files import ModelFiles
from genodl_spark.learning.predictor import Predictor
from genodl_spark.registry.predictions import plain
from tests.learning import test_predictor

BLOCKS = (("a", np.arange(4)), ("b", np.arange(4, 9)), ("c", np.arange(9, 12)))


def rows(x: np.ndarray, reaches: dict[str, list[float]], classes: int, size: int = 1000) -> list[dict]:
    card = dataclasses.replace(test_predictor.card("mlp", 3, classes), reaches=reaches)
    predictor = Predictor(card, test_predictor.weights("mlp", 3, classes), "w", threads=1)
    scoring = dataclasses.replace(plain(ModelFiles(""), {"precision": "float32", "passes": 0}), blocks=BLOCKS)
    names = pa.array([f"e{i}" for i in range(len(x))])
    packed = pa.array([row.tobytes() for row in x], pa.binary())
    table = pa.table({"entity_id": names, "x": packed, "missing": pa.nulls(len(x), pa.int32()).fill_null(0)})
    found: list[dict] = []
    for _, of_heads in scoring.scored(predictor, table.to_batches(max_chunksize=size)):
        found += of_heads[0].to_pylist()
    return found


@pytest.mark.parametrize("classes", [0, 3])
def test_rows_say_what_they_lack(classes: int) -> None:
    x = np.nan_to_num(test_predictor.rows_of("mlp", 6))
    x[1, 4:9] = np.nan
    x[2, :9] = np.nan
    x[3] = np.nan
    x[4, 9:] = np.nan
    x[5, 0] = np.nan  # a value of a block is not the block
    found = rows(x, {"a": [0.5], "b": [1.0]}, classes)
    assert [row["note"] for row in found] == [
        None, "without b", "without a, b", "no score: it has none of the blocks a, b, c", "without c", None,
    ]  # fmt: skip
    nothing = found[3]
    assert all(nothing[name] is None for name in ("value", "predicted", "probabilities", "uncertainty", "low", "high"))
    assert nothing["abstained"]
    for i, far in ((1, 1.0), (2, 1.5)):
        value, low, high = (found[i][name] for name in ("value", "low", "high"))
        if classes:
            odds = [np.log(p / (1 - p)) for p in (low, value, high)]
            assert np.diff(odds) == pytest.approx([far, far], abs=1e-9)
        else:
            assert (low, high) == pytest.approx((value - far, value + far))
    # of the block c nobody knows how far it moves answers
    assert [(found[i]["low"], found[i]["high"]) for i in (0, 4, 5)] == [(None, None)] * 3
    assert found == rows(x, {"a": [0.5], "b": [1.0]}, classes, size=2)
