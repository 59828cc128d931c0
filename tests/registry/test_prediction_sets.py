"""The classes that a row may be of, and the values between which it lies, as `predictions` has them; without Spark."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa
import pytest

from genodl_spark.learning.model_files import Card, ModelFiles
from genodl_spark.learning.predictor import Predictor
from genodl_spark.registry.predictions import plain
from tests.learning import test_predictor


def rows(card: Card, classes: int, x: np.ndarray) -> list[dict]:
    predictor = Predictor(card, test_predictor.weights("mlp", 3, classes), "w", threads=1)
    scoring = plain(ModelFiles(""), {"precision": "float32", "passes": 0})
    packed = pa.array([row.tobytes() for row in x], pa.binary())
    names = pa.array([f"e{i}" for i in range(len(x))])
    table = pa.table({"entity_id": names, "x": packed, "missing": pa.nulls(len(x), pa.int32()).fill_null(0)})
    return [row for _, of_heads in scoring.scored(predictor, table.to_batches()) for row in of_heads[0].to_pylist()]


def test_sets_of_classes() -> None:
    card, x = test_predictor.card("mlp", 3, 3), test_predictor.rows_of("mlp", 40)
    plainly = rows(card, 3, x)
    assert all(row["prediction_set"] is row["prediction_low"] is row["prediction_high"] is None for row in plainly)
    sizes = []
    for cut in (0.0, 0.2, 0.35, 1.0):
        found = rows(card.covering(0.9, [cut]), 3, x)
        for row in found:
            may = {name for name, p in row["probabilities"] if p >= cut} | {row["predicted"]}
            assert set(row["prediction_set"]) == may and len(row["prediction_set"]) == len(may)
            assert row["prediction_low"] is row["prediction_high"] is None
        sizes.append(np.mean([len(row["prediction_set"]) for row in found]))
        others = ("prediction_set", "predicted", "value", "probabilities")
        assert [[row[n] for n in others[1:]] for row in found] == [[row[n] for n in others[1:]] for row in plainly]
    assert sizes[0] == 3 and sizes[-1] == 1 and sizes == sorted(sizes, reverse=True)


def test_intervals_of_values() -> None:
    card, x = test_predictor.card("mlp", 3, 0), test_predictor.rows_of("mlp", 6)
    for row in rows(card.covering(0.9, [1.5]), 0, x):
        ends = (row["value"] - 1.5, row["value"] + 1.5)
        assert (row["prediction_low"], row["prediction_high"]) == pytest.approx(ends) and row["prediction_set"] is None
    assert rows(card.covering(0.9, [None]), 0, x) == rows(card, 0, x)


def test_a_card_has_a_cut_of_each_head_or_none() -> None:
    card = test_predictor.card("mlp", 3, 3)
    for cuts in ([0.1, 0.2], [-0.1]):
        with pytest.raises(ValueError, match="cut"):
            dataclasses.replace(card, cuts=cuts)
