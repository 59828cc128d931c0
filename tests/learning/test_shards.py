"""Rows in shards: every row once an epoch whatever the ranks, the same batches for any number of them, even shares, and
each rank decodes its own part alone."""

from __future__ import annotations

import tempfile
import threading
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genodl_spark.learning import feed, shards
from tests.core.test_packing import sparse
from tests.learning.test_feed import write


def blocks_of(sizes: list[int]) -> shards.Blocks:
    """Rows that are dealt to blocks of these sizes by chance."""
    rows = np.random.default_rng(len(sizes)).permutation(sum(sizes))
    return shards.Blocks([np.sort(part) for part in np.split(rows, np.cumsum(sizes)[:-1])])


def held(blocks: shards.Blocks, epoch: int, rank: int, ranks: int) -> np.ndarray:
    found = np.zeros(sum(map(len, blocks.rows)), bool)
    for block in blocks.of_rank(3, epoch, rank, ranks):
        found[blocks.rows[block]] = True
    return found


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_every_row_once_per_epoch_whatever_is_killed(data: st.DataObject) -> None:
    """Ranks 1 to 7, which change where the epoch is cut off; the batches are those that one rank makes."""
    sizes = data.draw(st.lists(st.integers(1, 30), min_size=1, max_size=40))
    blocks, epoch = blocks_of(sizes), data.draw(st.integers(0, 50))
    chosen = np.random.default_rng(epoch).random(sum(sizes)) < data.draw(st.sampled_from([0.1, 0.5, 1.0]))
    order, batch = blocks.order(chosen, 3, epoch), data.draw(st.integers(1, 64))
    assert sorted(order) == np.flatnonzero(chosen).tolist()
    total = feed.steps(len(order), batch)
    cuts = sorted(data.draw(st.lists(st.integers(0, total), max_size=3)))
    seen: list[int] = []
    for first, end in zip([0, *cuts], [*cuts, total], strict=True):
        ranks = data.draw(st.integers(1, 7))
        of_ranks = [held(blocks, epoch, rank, ranks) for rank in range(ranks)]
        assert (np.sum(of_ranks, 0) == 1).all()
        parts = [list(shards.shares(order, batch, mine, first))[: end - first] for mine in of_ranks]
        for number, step in enumerate(zip(*parts, strict=True)):
            whole = order[(first + number) * batch : (first + number + 1) * batch]
            assert all(n == first + number and np.array_equal(w, whole) for n, w, _ in step)
            assert sorted(np.concatenate([mine for _, _, mine in step])) == sorted(whole)
            seen += [int(row) for _, _, mine in step for row in mine]
    assert sorted(seen) == sorted(order)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60_000), st.integers(0, 1000), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_any_stretch_of_an_order_is_spread_evenly_over_the_pool(
    n: int, seed: int, start: float, length: float, part: float
) -> None:
    """Of any part of the pool, it has its share to within six rows: a permutation is off by some hundred here."""
    step = shards.stride(n, np.random.default_rng(seed))
    order = np.arange(n) * step % n
    assert len(np.unique(order)) == n
    stretch = order[int(start * n) : int(start * n) + max(1, int(length * n))]
    found = int((stretch < part * n).sum())
    assert abs(found - len(stretch) * np.ceil(part * n) / n) <= 6


def test_ranks_share_batches_evenly_and_batches_are_spread_over_blocks() -> None:
    blocks = shards.Blocks(list(np.arange(60_000).reshape(120, 500)))
    order = blocks.order(np.ones(60_000, bool), 3, 4)
    for ranks in (2, 3, 5, 16):
        for rank in range(ranks):
            mine = held(blocks, 4, rank, ranks)
            shares = [len(part) for _, _, part in shards.shares(order, 512, mine)][:-1]
            assert np.ptp(shares) <= 6  # a permutation's differ by 6 standard deviations, 60
            assert np.mean(shares) == pytest.approx(512 * mine.mean(), abs=1)
    of_blocks = np.stack([np.bincount(whole // 500, minlength=120) for whole in order[:59_904].reshape(-1, 512)])
    assert of_blocks.min() >= 2 and of_blocks.max() <= 7  # of 4.3; a permutation's go from 0 to 15
    # which rows of a block come early is by chance, and another time others do
    again = blocks.order(np.ones(60_000, bool), 3, 5)
    ranks_of = [np.argsort(found)[:500] for found in (order, again)]
    assert abs(np.corrcoef(np.arange(500), ranks_of[0])[0, 1]) < 0.15
    assert abs(np.corrcoef(*ranks_of)[0, 1]) < 0.15


def test_a_twentieth_of_the_places_is_dealt_anew_after_each_epoch() -> None:
    blocks = shards.Blocks([np.array([i]) for i in range(200)])
    dealt = np.stack([blocks.places(1, epoch) for epoch in range(101)])
    assert all(sorted(places) == list(range(200)) for places in dealt)
    changed = (dealt[1:] != dealt[:-1]).sum(1)
    assert changed.max() <= 10 and changed.mean() > 8.5
    # where a block is after all have been dealt says nothing about where it goes
    at = np.argsort(dealt[::20], 1)
    assert abs(np.mean([np.corrcoef(a, b)[0, 1] for a, b in pairwise(at)])) < 0.1
    of_ranks = [{epoch: set(blocks.of_rank(1, epoch, rank, 3)) for epoch in range(11)} for rank in range(3)]
    for mine in of_ranks:
        assert {len(mine[epoch]) for epoch in mine} <= {66, 67}
        stay = [len(mine[epoch] & mine[epoch + 1]) / 67 for epoch in range(10)]
        assert 0.93 < np.mean(stay) < 0.99


def written(folder: Path, packed: Any, rows: int, files: int) -> list[str]:
    return write(folder, packed, np.arange(rows) * 1.0, np.zeros((rows, 1), np.int8), files, 4)


@pytest.mark.parametrize("kind", ["int8", "float32", "sparse:uint16"])
@pytest.mark.parametrize("resident", [1 << 30, 1])
def test_a_rank_has_its_rows_and_no_others(tmp_path: Path, kind: str, resident: int) -> None:
    """Also after an epoch, a change of ranks, and a step back."""
    rows, backend = 97, "petastorm" if resident == 1 else "pyarrow"
    x = np.random.default_rng(1).integers(1, 90, (rows, 7)) * (np.random.default_rng(2).random((rows, 7)) < 0.5)
    x = x.astype(kind.split(":")[-1])
    if kind.startswith("sparse"):
        files = written(tmp_path, sparse(x).to_pylist(), rows, 23)
        layout = feed.Layout(rows, 7, kind, 1, entries=int((x != 0).sum()))
    else:
        files, layout = written(tmp_path, x, rows, 23), feed.Layout(rows, 7, kind, 1)
    data = [shards.read(files[::-1], layout, 3, backend, resident, str(tmp_path), 2) for _ in range(4)]
    assert [one.x.blocks.digest for one in data] == [shards.read(files, layout, 3, backend).x.blocks.digest] * 4
    np.testing.assert_array_equal(data[0].target[:, 0], np.arange(rows))
    for ranks, epochs in ((3, range(14)), (2, range(13, 16)), (4, [15, 14, 2]), (1, range(3))):
        for epoch in epochs:
            for rank in range(ranks):
                shard = data[rank].x
                shard.turn(epoch, rank, ranks, ahead=epoch % 3 > 0)
                np.testing.assert_array_equal(shard.held, held(shard.blocks, epoch, rank, ranks))
                mine = np.random.default_rng(epoch).permutation(np.flatnonzero(shard.held))
                np.testing.assert_array_equal(shard[mine], x[mine])
                np.testing.assert_array_equal(shard.of(mine)[3:9], x[mine[3:9]])
                if ranks > 1:
                    with pytest.raises(IndexError):
                        shard[np.flatnonzero(~shard.held)[:1]]
            assert (np.sum([data[rank].x.held for rank in range(ranks)], 0) == 1).all()
    for one in data:
        one.x.close()


def test_what_is_decoded_is_what_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.arange(400, dtype=np.float32).reshape(100, 4)
    data = shards.read(written(tmp_path, x, 100, 20), feed.Layout(100, 4, "float32", 1), 3, "pyarrow")
    decode, decoded = feed.decode, []
    monkeypatch.setattr(
        feed, "decode", lambda files, *a: decoded.extend((f, threading.get_ident()) for f in files) or decode(files, *a)
    )
    here, before = threading.get_ident(), None
    for epoch in range(5):
        decoded.clear()
        data.x.turn(epoch, 1, 2, ahead=True)
        data.x.turn(epoch, 1, 2)  # again
        if data.x._coming is not None:
            data.x._coming[1].result()
        mine = set(data.x.blocks.of_rank(3, epoch, 1, 2))
        after = set(data.x.blocks.of_rank(3, epoch + 1, 1, 2))
        own = [file for file, thread in decoded if thread == here]
        assert len(own) == (10 if before is None else 0)
        assert len(decoded) - len(own) == len(after - mine)
        before = mine
    data.x.close()


def test_lost_doubled_and_foreign_rows_are_refused(tmp_path: Path) -> None:
    x = np.zeros((10, 3), np.int8)
    files, layout = written(tmp_path, x, 10, 2), feed.Layout(10, 3, "int8", 1)
    for names, rows in ((files[:1], 10), ([*files, files[0]], 10), (files, 9)):
        with pytest.raises(RuntimeError, match="run prepare again"):
            shards.read(names, replace(layout, rows=rows), 3, "pyarrow")
    with pytest.raises(RuntimeError, match="run prepare again"):
        shards.read(files, replace(layout, features=4), 3, "pyarrow").x.turn(0, 0, 1)
    for ahead in (False, True):  # a file that is another one by now
        with tempfile.TemporaryDirectory() as folder:
            files = written(Path(folder), np.zeros((40, 3), np.int8), 40, 8)
            data = shards.read(files, replace(layout, rows=40), 3, "pyarrow")
            data.x.turn(0, 0, 2)
            coming = set(data.x.blocks.of_rank(3, 1, 0, 2)) - set(data.x.blocks.of_rank(3, 0, 0, 2))
            assert coming
            for block in coming:
                path = Path(data.x._files[block].removeprefix("file://"))
                path.write_bytes(Path(data.x._files[(block + 1) % 8].removeprefix("file://")).read_bytes())
            data.x.turn(0, 0, 2, ahead=ahead)
            with pytest.raises(RuntimeError, match="run prepare again"):
                data.x.turn(1, 0, 2)
            data.x.close()
