"""The nearest training sequence of a model: roles, labels of several heads, and the other strand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from genodl_spark.lake.files import StoredFile
from genodl_spark.learning.heads import Head
from genodl_spark.registry.neighbours import Training, neighbours

LENGTH = 40
HEADS = (Head("kind", "classes", ("a", "b")), Head("level", "value"))


def stored(
    path: Path,
    x: np.ndarray,
    targets: list[list[float]],
    folds: list[list[int]],
    one: bool,
    names: list[str] | None = None,
) -> StoredFile:
    rows = {
        "entity_id": names or [f"e{i}" for i in reversed(range(len(x)))],
        "x": [row.tobytes() for row in x],
        "target": [row[0] if one else np.nan for row in targets],
        "targets": pa.array([None if one else np.array(row).tobytes() for row in targets], pa.binary()),
        "folds": [np.array(row, np.int8).tobytes() for row in folds],
    }
    pq.write_table(pa.table(rows), path)
    return StoredFile(f"file://{path}", path.name, {"dataset": "d"}, path.stat().st_size, {})


def test_the_nearest_training_sequence(tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(0, 4, (5, LENGTH)).astype(np.int8)
    targets = [[0.0, 1.5], [1.0, np.nan], [np.nan, 3.0], [1.0, 4.0], [0.0, 5.0]]
    file = stored(tmp_path / "a.parquet", x, targets, [[0], [0], [1], [2], [-1]], False)
    asked = x.copy()
    asked[0] = 3 - x[0, ::-1]  # the other strand
    asked[1] = np.concatenate([x[1, 3:], x[2, :3]])  # moved by three bases
    both = np.concatenate([asked, np.full((1, LENGTH), -1, np.int8)])
    found = neighbours(Training((file,), True, LENGTH, HEADS))
    kind, level = (found.of(both, head) for head in (0, 1))
    # a row of the test set, and one that no split uses, are none that the model has seen
    assert kind["neighbour"].to_pylist() == ["e4", "e3", "e2", None, None, None]
    assert kind["neighbour_label"].to_pylist() == ["a", "b", None, None, None, None]
    assert level["neighbour_label"].to_pylist() == ["1.5", None, "3", None, None, None]
    similarity = kind["similarity"].to_pylist()
    assert (similarity[0], similarity[2], similarity[3]) == (1, 1, None) and 0.5 < similarity[1] < 1
    # Of folds, the numbers of two repeats are none of roles; one number of a row stands in `target`.
    file = stored(tmp_path / "b.parquet", x, targets, [[0, 1], [1, 2], [2, 0], [2, 1], [-1, -1]], True)
    folded = neighbours(Training((file,), False, LENGTH, (Head("label", "classes", ("n", "y")),)))
    answer = folded.of(x, 0)
    assert answer["neighbour"].to_pylist() == ["e4", "e3", "e2", "e1", None]
    assert answer["neighbour_label"].to_pylist() == ["n", "y", None, "y", None]
    nobody = neighbours(Training((), True, LENGTH, HEADS)).of(x, 0)
    assert nobody["neighbour"].to_pylist() == nobody["similarity"].to_pylist() == [None] * 5


def test_a_shuffle_is_no_neighbour(tmp_path: Path) -> None:
    """But a sequence that is called like one is, and so is a window of a genome that stands against a positive."""
    x = np.random.default_rng(1).integers(0, 4, (4, LENGTH)).astype(np.int8)
    names = ["a", "a~shuffled:1", "b~shuffled:2", "a~chr1:5-44"]
    file = stored(tmp_path / "a.parquet", x, [[1.0], [0.0], [1.0], [0.0]], [[0]] * 4, True, names)
    found = neighbours(Training((file,), True, LENGTH, (Head("label", "classes", ("n", "y")),))).of(x, 0)
    assert found["neighbour"].to_pylist() == ["a", None, "b~shuffled:2", "a~chr1:5-44"]
    assert found["neighbour_label"].to_pylist() == ["y", None, "y", "n"]
