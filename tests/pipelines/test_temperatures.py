"""How confident a model's classes are made, and which may be: of each head, by its held-out scores, in whatever order
rows come."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from genodl_spark.learning import calibration
from genodl_spark.learning.heads import Head
from genodl_spark.pipelines.train import calibrations

HEADS = [Head("kind", "classes", ("a", "b", "c")), Head("size", "value"), Head("grade", "classes", ("x", "y"))]


def rows(heads: list[Head]) -> tuple[pa.Table, dict[str, tuple[np.ndarray, np.ndarray]]]:
    random, found, made = np.random.default_rng(0), {}, list[dict[str, Any]]()
    for head in heads:
        target = random.integers(0, head.scores, 2 * 200)
        scores = random.random((len(target), head.scores)) + 0.4 * (np.arange(head.scores) == target[:, None])
        scores /= scores.sum(1, keepdims=True)
        found[head.label] = scores, target
        made += [
            {"head": head.label if len(heads) > 1 else None, "repeat": i // 200, "entity_id": f"e{i % 200:03}"}
            | {"target": float(target[i]), "scores": scores[i].tolist()}
            for i in range(len(target))
        ]
    return pa.Table.from_pylist(made), found


@pytest.mark.parametrize("heads", [HEADS, HEADS[:1]], ids=["several", "one"])
def test_the_order_of_rows_changes_no_bit(heads: list[Head]) -> None:
    table, by_head = rows(heads)
    temperatures = [calibration.temperature(*by_head[head.label]) if head.classes else 1.0 for head in heads]
    assert 0.05 < temperatures[0] < 0.9
    expected = calibrations(table, heads, 0.9)
    assert [temperature for temperature, _ in expected] == temperatures
    assert None not in [cut for _, cut in expected]
    for seed in range(20):
        order = np.random.default_rng(seed).permutation(table.num_rows)
        assert calibrations(table.take(order), heads, 0.9) == expected


def test_a_head_without_rows_stays_as_it_is() -> None:
    table, _ = rows(HEADS)
    without = table.filter(pa.compute.not_equal(table.column("head"), "kind"))
    assert calibrations(without, HEADS, 0.9) == [(1.0, None), *calibrations(table, HEADS, 0.9)[1:]]
