"""The feed: Petastorm and pyarrow read the same, every row comes once, and the number of ranks changes nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genodl_spark import feed


def write(folder: Path, x: np.ndarray, target: np.ndarray, folds: np.ndarray, files: int, group: int) -> list[str]:
    """Examples in files with rows out of order and row groups of `group` rows."""
    order = np.random.default_rng(0).permutation(len(x))
    paths = []
    for number, rows in enumerate(np.array_split(order, files)):
        table = pa.table(
            {
                "row_id": pa.array(rows, pa.int64()),
                "x": pa.array([x[i].tobytes() for i in rows], pa.binary()),
                "target": target[rows],
                "folds": pa.array([folds[i].tobytes() for i in rows], pa.binary()),
            }
        )
        paths.append(str(folder / f"part {number}, 5% off.parquet"))
        pq.write_table(table, paths[-1], row_group_size=group)
    return [f"file://{path}" for path in paths]


@pytest.mark.parametrize("dtype", ["int8", "float32"])
def test_backends_read_the_same(tmp_path: Path, dtype: str) -> None:
    generator = np.random.default_rng(1)
    x = generator.integers(-1, 3, (53, 7)).astype(dtype)
    target, folds = generator.normal(size=53), generator.integers(-1, 5, (53, 2)).astype(np.int8)
    files = write(tmp_path, x, target, folds, 3, 4)
    layout = feed.Layout(53, 7, dtype, 2)
    for backend in ("petastorm", "pyarrow"):
        for resident in (1 << 30, 1):  # in memory, and spilled to disk
            found = feed.read(files, layout, backend, resident, str(tmp_path))
            np.testing.assert_array_equal(found.x, x)
            np.testing.assert_array_equal(found.target, target)
            np.testing.assert_array_equal(found.folds, folds)
    assert not list(tmp_path.glob("genodl-feed-*"))


def test_lost_doubled_and_foreign_rows_are_refused(tmp_path: Path) -> None:
    x = np.zeros((10, 3), np.int8)
    files = write(tmp_path, x, np.zeros(10), np.zeros((10, 1), np.int8), 2, 5)
    for names, rows, features in ((files[:1], 10, 3), ([*files, files[0]], 10, 3), (files, 9, 3), (files, 10, 4)):
        with pytest.raises(RuntimeError, match="run prepare again"):
            feed.read(names, feed.Layout(rows, features, "int8", 1), "pyarrow")


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 200), st.integers(1, 64), st.integers(1, 5), st.integers(0, 5), st.integers(0, 3))
def test_every_row_once_per_epoch_over_all_ranks(rows: int, batch: int, ranks: int, seed: int, epoch: int) -> None:
    shares = [list(feed.shares(rows, seed, epoch, batch, rank, ranks)) for rank in range(ranks)]
    assert {len(steps) for steps in shares} == {feed.steps(rows, batch)}
    for step in zip(*shares, strict=True):
        whole = step[0][0]
        assert all((other == whole).all() for other, _ in step)
        np.testing.assert_array_equal(np.concatenate([mine for _, mine in step]), whole)
    np.testing.assert_array_equal(np.sort(np.concatenate([whole for whole, _ in shares[0]])), np.arange(rows))
    alone = [whole.tolist() for whole, _ in feed.shares(rows, seed, epoch, batch, 0, 1)]
    assert alone == [whole.tolist() for whole, _ in shares[0]]


def test_the_order_is_that_of_seed_and_epoch() -> None:
    orders = {(s, e): tuple(feed.permutation(50, s, e)) for s in range(3) for e in range(3)}
    assert len(set(orders.values())) == 9
    assert orders[1, 2] == tuple(feed.permutation(50, 1, 2))
