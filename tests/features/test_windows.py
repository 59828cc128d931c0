"""Windows of a reference: which are looked at in a chunk, and what is cut, in tasks and out of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
from pyspark.sql import functions as F

from genodl_spark.core.splitmix import keys_of
from genodl_spark.features import windows
from genodl_spark.features.windows import Wanted, _Drawing
from genodl_spark.genome import bases
from genodl_spark.genome.loci import Loci
from genodl_spark.genome.matched import gc_shares
from genodl_spark.lake.delta import Lake
from genodl_spark.lake.snapshot import Snapshot
from jobs import ingest


def drawing(rate: float, number: int = 0, **beside: tuple[list[int], list[int]]) -> _Drawing:
    """Windows of 5 and 9 bases, three of the first for each of the second."""
    over = {contig: (np.array(starts), np.array(ends)) for contig, (starts, ends) in beside.items()}
    return _Drawing(number, {"": (rate, np.array([5, 9]), np.array([0.75, 1.0]))}, over)


def test_candidates_of_a_chunk() -> None:
    codes = np.random.default_rng(0).integers(0, 4, 3000).astype(np.int8)
    codes[1000:1100] = -1
    start, length, share, key = windows.candidates("c", "a", 500, codes, drawing(0.2, a=([700, 900], [750, 950])))
    assert 450 < len(start) < 600 and set(length) == {5, 9} and 0.65 < (length == 5).mean() < 0.85
    assert len({*zip(start.tolist(), length.tolist(), strict=True)}) == len(start) == len(np.unique(key))
    for s, n, of in zip(start.tolist(), length.tolist(), share.tolist(), strict=True):
        row = codes[s : s + n]
        assert len(row) == n and (row >= 0).all() and of == gc_shares(row[None])[0]
        assert not any(s + 500 < end and first < s + n + 500 for first, end in ((700, 750), (900, 950)))
    again = windows.candidates("c", "a", 500, codes, drawing(0.2, a=([700, 900], [750, 950])))
    np.testing.assert_array_equal(start, again[0])
    for other in (("d", "a", 500, codes, drawing(0.2)), ("c", "a", 500, codes, drawing(0.2, 1))):
        assert not np.array_equal(windows.candidates(*other)[0], start)
    assert [len(part) for part in windows.candidates("c", "a", 0, codes[:4], drawing(1.0))] == [0] * 4
    # what is a part of a window comes as often as it is to come
    counts = [len(windows.candidates(f"c{i}", "a", 0, codes[:100], drawing(0.003))[0]) for i in range(2000)]
    assert 0.26 < np.mean(counts) < 0.34


def reference(lake: Lake, genodl, folder: Path, contigs: dict[str, np.ndarray]) -> None:
    text = "".join(f">{name}\n{bases.spelled(codes)}\n" for name, codes in contigs.items())
    (folder / "r.fa").write_text(text)
    assert genodl(ingest, "reference", str(folder / "r.fa"), "--lake", lake.uri, "--cohort", "ref")[0] == 0


def test_windows_are_matched_and_cut_by_tasks(genodl, lake: Lake, tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    contigs = {
        name: random.choice(4, size, p=[0.3, 0.2, 0.2, 0.3]).astype(np.int8)
        for name, size in (("chr1", 150_000), ("chr2", 70_000))
    }
    contigs["chr1"][60_000:65_000] = -1
    reference(lake, genodl, tmp_path, contigs)
    n = 400
    length = np.array([40, 41, 57])[np.arange(n) % 3]
    share = np.round(random.uniform(0.25, 0.6, n) * length) / length
    share[7] = np.nan
    contig = np.where(np.arange(n) % 2, "2", "")
    wanted = Wanted(length, share, keys_of(np.arange(n), 3), contig)
    beside = Loci.of([("chr2", 10_000, 40_000)])
    snapshot, total = Snapshot(lake), {"1": 150_000, "2": 70_000}
    found = windows.matched(snapshot, "ref", wanted, beside, total)
    there = found.length > 0
    assert there.sum() >= 390 and not there[7]
    np.testing.assert_array_equal(found.length[there], length[there])
    assert len({*zip(found.contig, found.start, found.length, strict=True)}) == there.sum() + 1
    rows = {
        row.entity_id: np.frombuffer(row.x, np.int8)
        for row in windows.rows(snapshot, "ref", found[there], found[there].places(), 60).collect()
    }
    for i in np.flatnonzero(there):
        start, end = found.start[i], found.start[i] + found.length[i]
        codes = contigs[f"chr{found.contig[i]}"][start:end]
        assert (codes >= 0).all() and abs(gc_shares(codes[None])[0] - share[i]) <= 0.02 + 1e-9
        assert contig[i] in ("", found.contig[i])
        assert found.contig[i] == "1" or end <= 10_000 or start >= 40_000
        row = rows[f"{found.contig[i]}:{start + 1}-{end}"]
        np.testing.assert_array_equal(row, bases.centred(codes, np.array([0, len(codes)]), 60)[0])

    order = random.permutation(n)
    again = windows.matched(snapshot, "ref", wanted[order], beside, total)
    np.testing.assert_array_equal(again.start, found.start[order])
    frame = lake.spark.createDataFrame(
        pa.table({"entity_id": ["a", "b", "c"], "codes": [b"\0\1\2\3\1", b"\xff\xff", b"\1\xff\2"], "key": [3, 4, 5]})
    )
    figures = {row.entity_id: row for row in windows.measured(frame.where(F.lit(True))).collect()}
    assert [(figures[name].length, figures[name].share, figures[name].key) for name in "ac"] == [
        (5, 0.6, 3),
        (3, 1.0, 5),
    ]
    assert figures["b"].length == 2 and np.isnan(figures["b"].share)
