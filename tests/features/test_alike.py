"""Sequences that hang together, found in tasks, beside all pairs compared."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from genodl_spark.features import alike
from genodl_spark.genome import similarity

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def families() -> list[np.ndarray]:
    """Families of sequences that come of each other in many steps of 3 exchanged bases, and strangers."""
    random = np.random.default_rng(0)
    rows = []
    for size in (1, 1, 1, 2, 2, 3, 5, 40, 120):
        row = random.integers(0, 4, 60).astype(np.int8)
        for _ in range(size):
            rows.append(row if random.random() < 0.5 else (3 - row[::-1]).astype(np.int8))
            row = row.copy()
            row[random.integers(0, 60, 3)] = random.integers(0, 4, 3)
    return [rows[i] for i in random.permutation(len(rows))]


def groups(count: int, pairs: list[tuple[int, int]]) -> set[frozenset[int]]:
    first, second = np.array(pairs, int).reshape(-1, 2).T
    _, found = connected_components(coo_array((np.ones(len(first)), (first, second)), (count, count)), directed=False)
    return {frozenset(np.flatnonzero(found == one).tolist()) for one in np.unique(found)}


def test_groups_are_those_of_all_pairs(spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = families()
    codes, ends = np.concatenate(rows), np.cumsum([0, *map(len, rows)])
    first, second = np.triu_indices(len(rows), 1)
    are = similarity.alike(codes, ends, first, second, 0.9)
    expected = groups(len(rows), list(zip(first[are].tolist(), second[are].tolist(), strict=True)))
    assert sorted(map(len, expected))[-3:] == [5, 40, 120]
    columns = {
        "id": pa.array([f"s'{i}" for i in range(len(rows))]),
        "codes": pa.array([row.tobytes() for row in rows], pa.binary()),
    }
    frame = spark.createDataFrame(pa.table(columns))
    found = {}
    for parts, at_once in ((1, 200_000), (3, 100)):
        monkeypatch.setattr(alike, "_AT_ONCE", at_once)
        linked = alike.links(frame.repartition(parts), 0.9).toArrow()
        a, b = ([int(name[2:]) for name in linked.column(side).to_pylist()] for side in ("a", "b"))
        found[parts] = set(zip(a, b, strict=True))
        assert len(found[parts]) == linked.num_rows
    assert found[1] == found[3]
    assert groups(len(rows), sorted(found[1])) == expected


def test_rows_of_a_key_are_compared_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """However batches cut them."""
    row = np.random.default_rng(1).integers(0, 4, 30).astype(np.int8)
    keys = [1] * 5 + [2] * 3 + [3] + [4] * 8
    columns = {
        "key": pa.array(keys),
        "turn": pa.array(range(len(keys))),
        "id": pa.array([f"{i:02}" for i in range(len(keys))]),
        "codes": pa.array([row.tobytes()] * len(keys), pa.binary()),
    }
    table = pa.table(columns)
    for size in (1, 2, 5, 17):
        for at_once in (1, 6, 100):
            monkeypatch.setattr(alike, "_AT_ONCE", at_once)
            found = [batch.to_pylist() for batch in alike._compared(iter(table.to_batches(size)), 0.9)]
            pairs = {(one["a"], one["b"]) for batch in found for one in batch}
            assert len(pairs) == 4 + 2 + 7
            assert {a for a, _ in pairs} == {"00", "05", "09"}
