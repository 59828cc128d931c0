"""Passes over the files of a cohort's cells, in tasks: sums of genes, products of chosen ones, scores, counts of values
by cluster; and clusters of subsamples. Sums are of whole numbers, so that no order of files or tasks changes them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from genodl_spark.cells import stability
from genodl_spark.cells.components import Components, Products
from genodl_spark.cells.markers import LEVELS, levels
from genodl_spark.cells.transform import COUNTS, GeneSums, Transform
from genodl_spark.core import packing
from genodl_spark.lake.files import StoredFile, opened

_ROWS_READ = 4096
_VALUES = 1 << 21  # values of cells that are whole at once: 16 MB in float64
_COLUMNS = ["block", "cell_id", "feature_set", "x"]
_PACKED = "sparse:float32"
Indices = Iterable[pa.RecordBatch]


@dataclass(frozen=True)
class CellFiles:
    """Files dealt out to tasks, and what is read of them: cells of a block that have `least` values that are not 0;
    `places`: by order of features, which gene each is, int64; `genes` of these in all."""

    shares: tuple[tuple[StoredFile, ...], ...]
    block: str
    places: dict[str, np.ndarray]
    genes: int
    least: int
    kind: str = ""

    def of_kind(self, kind: str) -> CellFiles:
        return replace(self, kind=kind)

    def batches(self, indices: Indices) -> Iterator[tuple[np.ndarray, packing.SparseRows, np.ndarray]]:
        """Names, values and genes of cells of the shares that are asked for, those without values among them."""
        for index in (i for batch in indices for i in batch.column(0).to_pylist()):
            for file in self.shares[index]:
                with opened(file.uri, file.checksum) as stored:
                    for batch in stored.iter_batches(_ROWS_READ, columns=_COLUMNS, use_threads=False):
                        yield from self._alike(batch)

    def _alike(self, batch: pa.RecordBatch) -> Iterator[tuple[np.ndarray, packing.SparseRows, np.ndarray]]:
        here = np.array(batch.column("block").to_pylist(), object) == self.block
        sets = np.array(batch.column("feature_set").to_pylist(), object)
        for name in sorted(set(sets[here].tolist())):
            rows = batch.filter(pa.array(here & (sets == name)))
            places = self.places[name]
            packed = packing.packed(rows.column("x"), _PACKED, len(places))
            assert isinstance(packed, packing.SparseRows)
            yield np.array(rows.column("cell_id").to_pylist(), object), packed, places

    def kept(self, rows: packing.SparseRows) -> tuple[np.ndarray, np.ndarray]:
        """Which cells take part, bool (cells,), and sums of their values, float64."""
        of = np.repeat(np.arange(len(rows)), rows.counts)
        values = rows.entries["value"][packing.runs(rows.starts, rows.counts)].astype(np.float64)
        totals = np.bincount(of, values, len(rows))
        enough = np.bincount(of, values != 0, len(rows)) >= self.least
        return enough & (totals > 0) if self.kind == COUNTS else enough, totals

    def dense(self, indices: Indices, genes: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Names, values (cells, chosen genes) and totals of cells that take part, a few at once."""
        for names, rows, places in self.batches(indices):
            kept, totals = self.kept(rows)
            lookup = np.full(self.genes, -1)
            lookup[places] = np.arange(len(places))
            columns = lookup[genes]
            chosen = np.flatnonzero(kept)
            step = max(1, _VALUES // max(len(places), 1))
            for start in range(0, len(chosen), step):
                some = chosen[start : start + step]
                values = np.where(columns < 0, 0, rows[some][:, columns])
                yield names[some], values, totals[some]


def _packed(**columns: Sequence[object] | np.ndarray) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.array(list(values)) for values in columns.values()], list(columns))


def count(indices: Indices, files: CellFiles) -> Iterator[pa.RecordBatch]:
    """Of each batch of cells: names, which take part, the ends of values, and whether all are whole; at the end of a
    task sums and detections of genes."""
    found = GeneSums.empty(files.genes)
    for names, rows, places in files.batches(indices):
        kept, _ = files.kept(rows)
        found.add(rows, places, kept)
        values = rows.entries["value"][packing.runs(rows.starts, rows.counts)]
        ends = float(np.min(values, initial=0)), float(np.max(values, initial=0))
        whole = bool((values == np.rint(values)).all())
        yield pa.RecordBatch.from_arrays(
            [
                pa.array([names.tolist()], pa.list_(pa.string())),
                pa.array([kept.tobytes()], pa.binary()),
                pa.array([ends[0]]),
                pa.array([ends[1]]),
                pa.array([whole]),
                pa.array([None], pa.binary()),
                pa.array([None], pa.binary()),
            ],
            ["names", "kept", "lowest", "highest", "whole", "sums", "detected"],
        )
    yield pa.RecordBatch.from_arrays(
        [
            pa.array([[]], pa.list_(pa.string())),
            pa.array([b""], pa.binary()),
            pa.array([0.0]),
            pa.array([0.0]),
            pa.array([True]),
            pa.array([found.sums.tobytes()], pa.binary()),
            pa.array([found.detected.tobytes()], pa.binary()),
        ],
        ["names", "kept", "lowest", "highest", "whole", "sums", "detected"],
    )


COUNTED = "names array<string>, kept binary, lowest double, highest double, whole boolean, sums binary, detected binary"
PACKED = "packed binary"


def vary(indices: Indices, files: CellFiles, transform: Transform) -> Iterator[pa.RecordBatch]:
    """Sums and sums of squares of all genes, transformed: float64 (2, genes)."""
    genes, found = np.arange(files.genes), np.zeros((2, files.genes))
    for _, values, totals in files.dense(indices, genes):
        rows = transform.rows(values, totals, genes)
        found[0] += rows.sum(0)
        found[1] += (rows * rows).sum(0)
    yield _packed(packed=[found.tobytes()])


def products(indices: Indices, files: CellFiles, transform: Transform, genes: np.ndarray) -> Iterator[pa.RecordBatch]:
    found = Products.empty(len(genes))
    for _, values, totals in files.dense(indices, genes):
        found.add(transform.rows(values, totals, genes))
    yield _packed(packed=[found.pack()])


SCORED = "cell_id string, packed binary"


def scores(
    indices: Indices, files: CellFiles, transform: Transform, genes: np.ndarray, axes: Components
) -> Iterator[pa.RecordBatch]:
    for names, values, totals in files.dense(indices, genes):
        found = axes.scores(transform.rows(values, totals, genes)).astype("<f8")
        yield _packed(cell_id=names, packed=[row.tobytes() for row in found])


@dataclass(frozen=True)
class Subsampling:
    """What tasks cluster: scores float64 (n, components), whole numbers; neighbours `k`, `resolutions`, the share of
    cells that a run has, runs on the cells, null sets, and the seed."""

    scores: np.ndarray
    k: int
    resolutions: list[float]
    share: float
    runs: int
    null_sets: int
    seed: int

    def run(self, scores: np.ndarray, number: int) -> np.ndarray:
        members = stability.subsample(len(scores), self.share, self.seed, number)
        return stability.communities_of(scores, members, self.k, self.resolutions, self.seed + number)


SUBSAMPLED = "number int, packed binary"


def subsample(indices: Indices, of: Subsampling) -> Iterator[pa.RecordBatch]:
    """Communities of a run, int32 (resolutions, n); of a null set, from number `runs` on, how far two runs agree at
    each resolution, float64."""
    for index in (i for batch in indices for i in batch.column(0).to_pylist()):
        if index < of.runs:
            packed = of.run(of.scores, index).astype("<i4").tobytes()
        else:
            drawn = stability.one_cluster(of.scores, of.seed, index - of.runs)
            pair = np.stack([of.run(drawn, number) for number in range(2)], 1)
            packed = np.array([stability.agreement(one)[0] for one in pair], "<f8").tobytes()
        yield pa.RecordBatch.from_arrays([pa.array([index], pa.int32()), pa.array([packed])], ["number", "packed"])


LEVELLED = "gene bigint, packed binary"


def level(indices: Indices, files: CellFiles, clusters: dict[str, int], count: int) -> Iterator[pa.RecordBatch]:
    """Cells by gene, level of its value and cluster, where it is not 0: of each gene that any cell has, keys
    int64 `level * clusters + cluster` and how many, int64 (2, keys)."""
    width = LEVELS * count
    keys, numbers = np.zeros(0, np.int64), np.zeros(0, np.int64)
    for names, rows, places in files.batches(indices):
        kept, totals = files.kept(rows)
        of = np.array([clusters.get(name, -1) for name in names.tolist()], np.int64)
        chosen = np.flatnonzero(kept & (of >= 0))
        entries = rows.entries[packing.runs(rows.starts[chosen], rows.counts[chosen])]
        cell = np.repeat(chosen, rows.counts[chosen])
        there = entries["value"] != 0
        entries, cell = entries[there], cell[there]
        at = levels(entries["value"], totals[cell], files.kind)
        more, counted = np.unique(places[entries["place"]] * width + at * count + of[cell], return_counts=True)
        keys, inverse = np.unique(np.concatenate([keys, more]), return_inverse=True)
        numbers = np.bincount(inverse, np.concatenate([numbers, counted]), len(keys)).astype(np.int64)
    genes = keys // width
    ends = np.flatnonzero(np.diff(genes, append=-1)) + 1
    starts = np.concatenate([np.zeros(1, np.int64), ends[:-1]])
    packed = [
        np.stack([keys[a:b] - genes[a] * width, numbers[a:b]]).tobytes()
        for a, b in zip(starts.tolist(), ends.tolist(), strict=True)
    ]
    if packed:
        yield pa.RecordBatch.from_arrays([pa.array(genes[starts]), pa.array(packed, pa.binary())], ["gene", "packed"])
