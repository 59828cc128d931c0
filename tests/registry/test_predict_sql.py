"""genodl_predict: what a statement hands over, put into the order of a model's features."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from genodl_spark.core import packing
from genodl_spark.core.errors import InputError
from genodl_spark.features.matrices import Places, arranged, places_of
from genodl_spark.learning import encodings
from genodl_spark.learning.model_files import FORMAT, Card, ModelFiles
from genodl_spark.registry import predict_sql
from tests.core.test_packing import sparse

CARD = Card(FORMAT, "m", "t", "label", ["a", "b"], ["b1:x", "b1:y", "b2:x"], "float32", "none", {}, 1, 1.0, 64)
PREDICTOR: Any = SimpleNamespace(card=CARD, encoding=encodings.encoding("none"), width=3)


def packed(*rows: list[float]) -> pd.Series:
    return pd.Series([np.array(row, np.float32).tobytes() for row in rows])


def model(**orders: tuple[list[int], list[int]] | None) -> predict_sql._Model:
    places: dict[str, Places | None] = {name: p and (np.array(p[0]), np.array(p[1])) for name, p in orders.items()}
    return predict_sql._Model(ModelFiles(""), places)


def asked(of: predict_sql._Model, features: pd.Series, *order: pd.Series) -> list[list[float]]:
    return [
        [None if np.isnan(v) else v for v in row]
        for row in predict_sql._packed(PREDICTOR, of, features, *order)[0].tolist()
    ]


def test_rows_of_any_order_find_their_places() -> None:
    (source, target), nothing = places_of([["z", "x", "y"], ["q"]], ["y", "x"])
    assert (source.tolist(), target.tolist(), len(nothing[0])) == ([1, 2], [1, 0], 0)
    rows = pa.array([np.array(row, np.float32).tobytes() for row in ([9, 1, 2], [8, 3, 4])], pa.binary())
    assert arranged(rows, (source, target), 2).tolist() == [[2, 1], [4, 3]]
    same = arranged(rows, (np.arange(3), np.arange(3)), 3)
    assert same.tolist() == [[9, 1, 2], [8, 3, 4]] and not same.flags.owndata
    assert np.isnan(arranged(rows, (np.arange(3), np.arange(3)), 4)[:, 3]).all()


def test_packed_rows_of_several_orders_in_one_batch() -> None:
    of = model(one=([1, 0], [0, 1]), two=([0], [2]))
    sets = pd.Series(["two", "one", None, "two"])
    found = asked(of, packed([5.0], [1, 2], [7, 8, 9], [6]), sets)
    assert found == [[None, None, 5], [2, 1, None], [7, 8, 9], [None, None, 6]]
    assert asked(of, packed([7, 8, 9])) == [[7, 8, 9]]
    assert asked(of, pd.Series([{"b2:x": 4.0, "other": 1.0}, [("b1:y", 2.0), ("b1:x", None)]])) == [
        [None, None, 4],
        [None, 2, None],
    ]


@pytest.mark.parametrize(
    ("row", "order", "found"),
    [
        ([1, 2], None, "found 2 packed features; expected 3"),
        ([1, 2], "three", "found none of the features of model m in 'three'"),
        ([1, 2], "both", "several blocks of model m share"),
        ([1], "one", "found 1 packed features in 'one'"),
    ],
)
def test_rows_that_do_not_fit_are_refused(row: list[float], order: str | None, found: str) -> None:
    of = model(one=([1, 0], [0, 1]), both=None, three=([], []))
    arguments: list[Any] = [packed(row)] if order is None else [packed(row), pd.Series([order])]
    with pytest.raises(InputError, match=found):
        predict_sql._packed(PREDICTOR, of, *arguments)


@pytest.mark.parametrize("dtype", ["uint16", "sparse:uint16"])
def test_counts_that_a_map_lacks_are_none(dtype: str) -> None:
    """Counts have no missing value; a packed row is one of the type, all places of it or entries."""
    card = replace(CARD, dtype=dtype)
    predictor: Any = SimpleNamespace(card=card, encoding=encodings.encoding("none"), width=3)
    x, _ = predict_sql._packed(predictor, model(), pd.Series([{"b2:x": 700, "other": 1}, {"b1:x": 2}, {}]))
    assert (x.dtype, x.tolist()) == (np.uint16, [[0, 0, 700], [2, 0, 0], [0, 0, 0]])
    column = sparse(x) if packing.is_sparse(dtype) else packing.column(x)
    np.testing.assert_array_equal(predict_sql._packed(predictor, model(), pd.Series(column.to_pylist()))[0], x)
    bad = b"\3\0\0\0\1\0" if packing.is_sparse(dtype) else b"\0\0"
    with pytest.raises(
        InputError, match="ascending order below 3" if packing.is_sparse(dtype) else "1 packed features; exp"
    ):
        predict_sql._packed(predictor, model(), pd.Series([bad]))


def test_a_name_means_one_model_or_is_refused() -> None:
    rows = [
        ("t", "er", "m1", 1),
        ("t", "er", "m2", 2),
        ("t", "pr", "m3", 7),
        ("alone", "a:b", "m4", 1),
        ("alone", "a:b", "m5", 10),
        ("c:pr", "x", "m6", 1),
        ("c", "pr", "m7", 1),
    ]
    columns = zip(*rows, strict=True)
    models = pa.table(dict(zip(("task", "label_column", "model_id", "model_version"), map(list, columns), strict=True)))
    expected = {
        "t:pr": "m3",
        "t:er": "m2",
        "c:pr:x": "m6",
        "c": "m7",
        "m1": "m1",
        "alone": "m5",
        "alone:a:b": "m5",
        "m3": "m3",
    }
    assert {name: predict_sql.named(models, name)["model_id"] for name in expected} == expected
    with pytest.raises(
        InputError, match="found models 't' of 2 labels; expected one of 't:er', 't:pr', or a model's ID"
    ):
        predict_sql.named(models, "t")
    with pytest.raises(
        InputError, match="found models 'c:pr' of 2 labels; expected one of 'c:pr', 'c:pr:x', or a model's ID"
    ):
        predict_sql.named(models, "c:pr")
    for name in ("", "er", "T", "t:", "t:er "):
        with pytest.raises(
            InputError, match=r"found no model .*; expected a task that has one, TASK:LABEL, or a model's ID"
        ):
            predict_sql.named(models, name)
