"""The feed: Petastorm and pyarrow read the same, every row comes once, and the number of ranks changes nothing."""

from __future__ import annotations

import errno
import gc
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genodl_spark.learning import encodings, feed
from tests.core.test_packing import sparse


def write(
    folder: Path, x: np.ndarray | list[bytes], target: np.ndarray, folds: np.ndarray, files: int, group: int
) -> list[str]:
    """Examples in files with rows out of order and row groups of `group` rows."""
    order = np.random.default_rng(0).permutation(len(x))
    paths = []
    for number, rows in enumerate(np.array_split(order, files)):
        table = pa.table(
            {
                "row_id": pa.array(rows, pa.int64()),
                "x": pa.array([row if isinstance(row := x[i], bytes) else row.tobytes() for i in rows], pa.binary()),
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
            np.testing.assert_array_equal(found.target[:, 0], target)
            np.testing.assert_array_equal(found.folds, folds)
    del found
    gc.collect()
    assert not list(tmp_path.glob("genodl-feed-*/*"))


def test_sparse_rows_are_read_as_they_were_written(tmp_path: Path) -> None:
    x = (
        np.random.default_rng(1).integers(1, 300, (53, 40)) * (np.random.default_rng(2).random((53, 40)) < 0.1)
    ).astype(np.uint16)
    x[7] = 0
    target, folds = np.arange(53.0), np.zeros((53, 1), np.int8)
    packed, entries = sparse(x).to_pylist(), int((x != 0).sum())
    files = write(tmp_path, packed, target, folds, 3, 4)
    layout = feed.Layout(53, 40, "sparse:uint16", 1, entries=entries)
    for backend in ("petastorm", "pyarrow"):
        for resident in (1 << 30, 1):
            found = feed.read(files, layout, backend, resident, str(tmp_path), readers=2)
            assert isinstance(found.x.entries, np.memmap) == (resident == 1)
            np.testing.assert_array_equal(found.x[:], x)
            np.testing.assert_array_equal(found.x[np.array([52, 7, 0])], x[[52, 7, 0]])
            np.testing.assert_array_equal(found.target[:, 0], target)
    del found
    gc.collect()
    assert not list(tmp_path.glob("genodl-feed-*/*"))
    for number, (bad, more) in enumerate(
        ((packed[1], 0), (packed[5][:-1], 0), (packed[5][6:] + packed[5][:6], 0), (packed[5], 1), (packed[5], -1))
    ):
        (folder := tmp_path / str(number)).mkdir()
        files = write(folder, [*packed[:5], bad, *packed[6:]], target, folds, 3, 4)
        for resident in (1 << 30, 1):
            with pytest.raises(RuntimeError, match="run prepare again"):
                feed.read(files, replace(layout, entries=entries + more), "pyarrow", resident, str(tmp_path))


def test_lost_doubled_and_foreign_rows_are_refused(tmp_path: Path) -> None:
    x = np.zeros((10, 3), np.int8)
    files = write(tmp_path, x, np.zeros(10), np.zeros((10, 1), np.int8), 2, 5)
    for names, rows, features in ((files[:1], 10, 3), ([*files, files[0]], 10, 3), (files, 9, 3), (files, 10, 4)):
        with pytest.raises(RuntimeError, match="run prepare again"):
            feed.read(names, feed.Layout(rows, features, "int8", 1), "pyarrow")


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_every_row_once_per_epoch_over_all_ranks_whatever_is_killed(data: st.DataObject) -> None:
    """Ranks 1 to 5, which change where the epoch is cut off; what was not done yet comes next, and nothing else."""
    rows = np.array(data.draw(st.lists(st.integers(0, 500), min_size=1, max_size=200, unique=True)))
    batch, seed, epoch = data.draw(st.integers(1, 64)), data.draw(st.integers(0, 5)), data.draw(st.integers(0, 3))
    total = feed.steps(len(rows), batch)
    cuts = sorted(data.draw(st.lists(st.integers(0, total), max_size=3)))
    seen: list[int] = []
    order: list[int] = []
    for first, end in zip([0, *cuts], [*cuts, total], strict=True):
        ranks = data.draw(st.integers(1, 5))
        shares = [
            list(feed.shares(rows, seed, epoch, batch, rank, ranks, first))[: end - first] for rank in range(ranks)
        ]
        assert {len(steps) for steps in shares} == {end - first}
        for number, step in enumerate(zip(*shares, strict=True)):
            whole = step[0][1]
            assert all(n == first + number and (w == whole).all() for n, w, _ in step)
            np.testing.assert_array_equal(np.concatenate([mine for _, _, mine in step]), whole)
            assert max(len(mine) for _, _, mine in step) - min(len(mine) for _, _, mine in step) <= 1
            seen += [int(row) for _, _, mine in step for row in mine]
            order += whole.tolist()
    assert sorted(seen) == sorted(rows.tolist())
    assert order == rows[feed.permutation(len(rows), seed, epoch)].tolist()


@settings(max_examples=15, deadline=None)
@given(
    st.integers(1, 60),
    st.integers(1, 5),
    st.integers(1, 30),
    st.integers(1, 4),
    st.sampled_from(["petastorm", "pyarrow"]),
)
def test_no_layout_of_row_groups_changes_what_is_read(
    rows: int, files: int, group: int, readers: int, backend: str
) -> None:
    generator = np.random.default_rng(rows)
    x, target, folds = (
        generator.integers(-1, 4, (rows, 5)).astype(np.int8),
        generator.normal(size=rows),
        np.zeros((rows, 1), np.int8),
    )
    with tempfile.TemporaryDirectory() as folder:
        paths = write(Path(folder), x, target, folds, min(files, rows), group)
        found = feed.read(paths, feed.Layout(rows, 5, "int8", 1), backend, readers=readers)
    np.testing.assert_array_equal(found.x, x)
    np.testing.assert_array_equal(found.target[:, 0], target)


def test_processes_of_a_machine_share_what_is_spilled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second reader decodes nothing; the file goes with the last of them;
    what a killed process left is used by nobody, and removed."""
    x = np.arange(40, dtype=np.float32).reshape(10, 4)
    files = write(tmp_path, x, np.zeros(10), np.zeros((10, 1), np.int8), 2, 5)
    layout = feed.Layout(10, 4, "float32", 1)
    stale = tmp_path / f"genodl-feed-{os.getuid()}" / "00000000000000000000-0.bin"
    stale.parent.mkdir(mode=0o700)
    stale.write_bytes(b"half")
    first = feed.read(files, layout, "pyarrow", 1, str(tmp_path))
    assert not stale.exists()
    (spill,) = tmp_path.glob("genodl-feed-*/*.bin")
    assert spill.stat().st_mode & 0o777 == 0o600
    calls: list[int] = []
    decode = feed.decode
    monkeypatch.setattr(feed, "decode", lambda *a: calls.append(1) or decode(*a))
    second = feed.read(files, layout, "pyarrow", 1, str(tmp_path))
    assert not calls
    np.testing.assert_array_equal(second.x, x)
    del first
    gc.collect()
    assert spill.exists()
    kept = second.x
    del second
    gc.collect()
    assert not spill.exists()
    np.testing.assert_array_equal(kept, x)
    spill.touch(0o600)
    spill.write_bytes(b"\0" * 100)  # cut off while it was being filled
    np.testing.assert_array_equal(feed.read(files, layout, "pyarrow", 1, str(tmp_path)).x, x)
    assert calls == [1]


def test_a_disk_without_room_for_a_data_set_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    files = write(tmp_path, np.zeros((2, 3), np.float32), np.zeros(2), np.zeros((2, 1), np.int8), 1, 2)
    with pytest.raises(OSError, match=r"No space left on device: '.*-0\.bin'"):
        feed.read(files, feed.Layout(2, 3, "float32", 1), "pyarrow", 1, str(tmp_path))
    assert not any(tmp_path.glob("genodl-feed-*/*"))


def planted(folder: Path, layout: feed.Layout, files: list[str], how: str) -> Path:
    """Something of another hand where the dataset would be spilled; returns what must not change."""
    precious = folder / "precious"
    own = folder / f"genodl-feed-{os.getuid()}"
    precious.write_bytes(b"precious")
    spilled = feed._Spill(str(folder), files, layout)
    name = os.path.basename(spilled.path)
    spilled.close()
    whole = bytes(spilled._whole)
    if how == "folder is a link":
        own.rmdir()
        own.symlink_to(folder / "elsewhere", target_is_directory=True)
        (folder / "elsewhere").mkdir(mode=0o700)
        precious = folder / "elsewhere" / name
        precious.write_bytes(whole)
        precious.chmod(0o600)
    elif how == "folder is open":
        own.chmod(0o777)
        precious = own / name
        precious.write_bytes(whole)
        precious.chmod(0o600)
    elif how == "folder is a file":
        own.rmdir()
        own.write_bytes(b"precious")
        precious = own
    elif how == "folder of another":
        os.chown(own, os.getuid() + 1, -1)
        precious = own / name
        precious.write_bytes(whole)
        precious.chmod(0o600)
    elif how == "file is a link":
        (own / name).symlink_to(precious)
    elif how == "file has a second name":
        precious.write_bytes(whole)
        precious.chmod(0o600)
        (own / name).hardlink_to(precious)
    elif how == "file is open":
        precious = own / name
        precious.write_bytes(whole)
        precious.chmod(0o644)
    elif how == "file is a pipe":
        os.mkfifo(own / name, 0o600)
    return precious


PLANTED = [
    "folder is a link",
    "folder is open",
    "folder is a file",
    "file is a link",
    "file has a second name",
    "file is open",
    "file is a pipe",
]


@pytest.mark.parametrize("how", [*PLANTED, "folder of another"])
def test_what_others_have_put_where_data_is_spilled_is_passed_over(tmp_path: Path, how: str) -> None:
    """Neither read nor written: two readers of the data share a file of another name,
    in a folder and a file of mode 700 and 600."""
    if how == "folder of another" and os.getuid() != 0:
        pytest.skip("only root can give a folder away")
    x = np.arange(40, dtype=np.float32).reshape(10, 4)
    files = write(tmp_path, x, np.ones(10), np.zeros((10, 1), np.int8), 2, 5)
    layout = feed.Layout(10, 4, "float32", 1)
    precious = planted(tmp_path, layout, files, how)
    before = precious.read_bytes()
    first, second = (feed.read(files, layout, "pyarrow", 1, str(tmp_path)) for _ in range(2))
    for found in (first, second):
        np.testing.assert_array_equal(found.x, x)
        np.testing.assert_array_equal(found.target[:, 0], np.ones(10))
    assert precious.read_bytes() == before
    used = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if str(tmp_path) in line}
    (spill,) = [Path(name) for name in used]
    assert spill != precious and spill.stat().st_mode & 0o777 == 0o600 and spill.parent.stat().st_mode & 0o777 == 0o700
    del first, second, found
    gc.collect()
    assert not spill.exists() and precious.read_bytes() == before


@pytest.mark.parametrize("ahead", [0, 1, 3])
def test_prefetch_keeps_order_and_bounds_what_is_made_ahead(ahead: int) -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for i in range(20):
            made.append(i)
            yield i
        raise ValueError("torn")

    fed = feed.Prefetch(items(), ahead)
    found = []

    def slowly() -> None:
        for item in fed:
            time.sleep(0.002)
            found.append(item)
            assert len(made) - len(found) <= ahead + 1  # those in the queue, and one that waits to get in

    with pytest.raises(ValueError, match="torn"):
        slowly()
    assert found == list(range(20))
    fed.close()
    stopped = feed.Prefetch(iter(range(1000)), ahead)
    assert next(iter(stopped)) == 0
    stopped.close()


@pytest.mark.parametrize(
    ("transform", "dtype"), [("none", "int8"), ("none", "float32"), ("asinh", "float32"), ("onehot", "int8")]
)
def test_values_on_a_device_are_those_of_numpy(transform: str, dtype: str) -> None:
    x = np.random.default_rng(2).integers(-1, 4 if transform == "onehot" else 90, (6, 8)).astype(dtype)
    if dtype == "float32":
        x[x < 0] = np.nan
    found = encodings.encoding(transform).tensor(torch.from_numpy(x), torch.float32).numpy()
    np.testing.assert_allclose(found, encodings.encoding(transform).floats(x), rtol=1e-6)


def test_the_order_is_that_of_seed_and_epoch() -> None:
    orders = {(s, e): tuple(feed.permutation(50, s, e)) for s in range(3) for e in range(3)}
    assert len(set(orders.values())) == 9
    assert orders[1, 2] == tuple(feed.permutation(50, 1, 2))
