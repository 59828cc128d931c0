"""What a report shows of biomarkers: rows of the table as arrays, and values of rows that the model learnt from."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from genodl_spark.core import packing
from genodl_spark.job import config
from genodl_spark.learning import feed
from genodl_spark.learning.heads import Head
from genodl_spark.registry import biomarkers_shown as shown

N, FEATURES = 60, 5
PLACES = np.array([3, 1])
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(N, FEATURES)).astype(np.float32)
CODES = np.arange(N) % 3
ROLE = np.where(np.arange(N) < 40, 0, np.where(np.arange(N) < 50, 2, -1))  # train, test, not used
FOLDS = ROLE.astype(np.int8)[:, None]


def rows(which: np.ndarray, target: np.ndarray | None = None) -> pa.RecordBatch:
    target = CODES.astype(float) if target is None else target
    columns = {
        "entity_id": pa.array([f"p{i:02}" for i in which]),
        "x": packing.column(X[which]),
        "target": pa.array(target[which]),
        "folds": packing.column(FOLDS[which]),
    }
    return pa.RecordBatch.from_pydict(columns)


def sampled(parts: list[np.ndarray], most: int, folds: int = 0, target: np.ndarray | None = None) -> shown.Sampled:
    def empty() -> shown.Sampled:
        layout = feed.Layout(N, FEATURES, "float32", 1)
        return shown.Sampled(layout, slice(0, 1), folds, 3, most, PLACES, lambda x: 2 * x)

    total = empty()
    for part in parts:
        other = empty()
        other.add(rows(part, target))
        total.merge(other)
    return total


def test_rows_that_train_are_sampled_by_class_in_whatever_parts_they_come() -> None:
    whole = sampled([np.arange(N)], 4)
    assert whole.rows == 40 and np.bincount(whole.codes).tolist() == [4, 4, 4]
    of = {tuple(2 * X[i, PLACES]): i for i in range(N)}
    chosen = {of[tuple(row)] for row in whole.x}
    assert len(chosen) == 12 and max(chosen) < 40
    assert all(CODES[of[tuple(row)]] == code for row, code in zip(whole.x, whole.codes, strict=True))
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(N)
        other = sampled(np.array_split(order, 7), 4)
        assert (other.codes == whole.codes).all() and (other.x == whole.x).all() and other.rows == 40
    assert sampled([np.arange(N)], 100).x.shape == (40, 2)
    # With folds the registered model learns from all but what is not used; rows without a label are of no class.
    assert sampled([np.arange(N)], 100, folds=3).rows == 50
    some = np.where(np.arange(N) < 10, np.nan, CODES)
    assert sampled([np.arange(N)], 100, target=some).rows == 30


def test_rows_of_the_table_are_read_in_the_order_of_features() -> None:
    p = [0.001, 0.04, None, 0.5, 0.02]
    q = [0.005, 0.0667, None, 0.5, 0.05]
    same = {
        "label_column": "status",
        "test": "moderated_t",
        "training_sets": 5,
        "significant_share": 0.6,
        "frequency": None,
        "stability": [("training_sets", 0.7)],
        "planted": [("found@1", 0.5), ("false", 0.1)],
        "asked": [("rate", 0.06), ("agreement", 0.4), ("threshold", 0.8)],
    }
    table = [
        {
            **same,
            "feature": f"G{i}",
            "effect": None if p[i] is None else i - 2.0,
            "class": None if p[i] is None else "b",
            "p_value": p[i],
            "q_value": q[i],
            "selected": i in (0, 4),
            "consensus_rank": i + 1,
            "attribution_ranks": [("deeplift", 5 - i), ("integrated_gradients", 1 + i)],
        }
        for i in (3, 0, 4, 2, 1)
    ]
    model = SimpleNamespace(
        card=SimpleNamespace(features=[f"G{i}" for i in range(5)]), settings=config.load("biomarkers")
    )
    made = shown._of_rows(model, Head("status", "classes", ("a", "b")), table)
    assert made.features == [f"G{i}" for i in range(5)] and made.by["deeplift"].tolist() == [5, 4, 3, 2, 1]
    assert made.limit == pytest.approx(0.02) and (made.rate, made.agreement, made.threshold) == (0.06, 0.4, 0.8)
    assert made.selected.tolist() == [True, False, False, False, True] and np.isnan(made.p_value[2])
    assert np.isnan(made.frequency).all() and made.stability == {"training_sets": 0.7}
    assert made.planted == {"found@1": 0.5, "false": 0.1}
    older = [{**row, "asked": None, "planted": None, "q_value": row["q_value"] and 0.9} for row in table]
    made = shown._of_rows(model, Head("status", "classes", ("a", "b")), older)
    assert np.isnan(made.limit) and made.rate == 0.1 and made.planted == {}
