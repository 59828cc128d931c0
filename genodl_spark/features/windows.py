"""Windows of an ingested reference that are of the length and GC share of given sequences: looked for, and cut, in
tasks.

Of the reference's chunks each draws its share of candidates by its own name and place alone, so that the order of
tasks does not matter; the driver has their lengths, shares and places, no base. A window lies in one chunk.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from genodl_spark.core import packing, session
from genodl_spark.core.splitmix import keys_of
from genodl_spark.features.protocol import ROWS, batch_of
from genodl_spark.genome import bases, loci
from genodl_spark.genome.loci import Loci
from genodl_spark.genome.matched import gc_matched
from genodl_spark.lake.files import StoredFile, opened
from genodl_spark.lake.tables.genomes import CHUNK, REFERENCE_BASES

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from genodl_spark.lake.snapshot import Snapshot

_DRAWN = (20, 100, 500)  # candidates for each sequence that has none yet, one round after the other
_MOST = 1 << 22  # candidates of a round
_PIECE = 64 << 20  # stored bytes that a task reads, about
_CHUNKS = 64  # chunks that are read at once
_FOUND = "name string, contig string, start bigint, length int, share double, key bigint"


@dataclass(frozen=True)
class Wanted:
    """Sequences that windows are wanted for, in any order: `length` int64 (n,), GC `share` float64 (n,), NaN for one
    that finds none, `key` uint64 (n,), all different; `contig` str (n,): where its window has to lie; empty anywhere.
    """

    length: np.ndarray
    share: np.ndarray
    key: np.ndarray
    contig: np.ndarray

    def __getitem__(self, rows: np.ndarray) -> Wanted:
        return Wanted(self.length[rows], self.share[rows], self.key[rows], self.contig[rows])


@dataclass(frozen=True)
class Windows:
    """`name` str (n,) of a reference sequence and `contig` str (n,), the contig it is of; `start` int64 (n,) on the
    contig, 0-based; `length` int64 (n,), 0 for one that was not found."""

    name: np.ndarray
    contig: np.ndarray
    start: np.ndarray
    length: np.ndarray

    def __getitem__(self, rows: np.ndarray) -> Windows:
        return Windows(self.name[rows], self.contig[rows], self.start[rows], self.length[rows])

    def places(self) -> list[str]:
        """`contig:first-last`, 1-based, closed."""
        ends = zip(self.contig.tolist(), self.start.tolist(), (self.start + self.length).tolist(), strict=True)
        return [f"{contig}:{start + 1}-{end}" for contig, start, end in ends]


@dataclass(frozen=True)
class _Drawing:
    """What a round draws: by contig, or for all of them under an empty name, how many windows a base of it draws,
    lengths int64 (k,), ascending, and the sums of their shares, float64 (k,). `beside`: what no window may meet."""

    number: int
    of: dict[str, tuple[float, np.ndarray, np.ndarray]]
    beside: dict[str, tuple[np.ndarray, np.ndarray]]


def measured(sequences: DataFrame) -> DataFrame:
    """entity_id, key, length and GC share, NaN without a known base, of sequences: columns entity_id, key and codes."""
    return sequences.select("entity_id", "key", "codes").mapInArrow(
        _measured, "entity_id string, key bigint, length int, share double"
    )


def _measured(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        codes, ends = packing.binary(batch.column("codes"))
        known, strong = _sums(codes.view(np.int8))
        lengths = np.diff(ends)
        counts = known[ends[1:]] - known[ends[:-1]]
        share = np.where(counts > 0, strong[ends[1:]] - strong[ends[:-1]], np.nan) / np.maximum(counts, 1)
        columns = [batch.column("entity_id"), batch.column("key"), pa.array(lengths.astype(np.int32)), pa.array(share)]
        yield pa.RecordBatch.from_arrays(columns, ["entity_id", "key", "length", "share"])


def _sums(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Known bases, and G and C among them, before each place of base codes int8 (n,): int64 (n + 1,) both."""
    found = (np.cumsum(np.append(False, which)) for which in (codes >= 0, (codes == 1) | (codes == 2)))
    known, strong = found
    return known, strong


def matched(lake: Snapshot, cohort: str, wanted: Wanted, beside: Loci, total: dict[str, int]) -> Windows:
    """A window for each wanted sequence (`gc_matched`), of known bases alone, none of them taken twice and none that
    meets one of `beside`. `cohort`: that of the reference; `total`: bases of each of its contigs."""
    pieces = _pieces(lake.cohort_files(REFERENCE_BASES, cohort), session.task_slots(lake.spark))
    n = len(wanted.length)
    none = np.full(n, "", object)
    found = Windows(none, none.copy(), np.zeros(n, np.int64), np.zeros(n, np.int64))
    taken = loci.merged(beside)
    for number, each in enumerate(_DRAWN):
        rest = np.flatnonzero((found.length == 0) & ~np.isnan(wanted.share))
        if not len(rest):
            break
        drawing = _Drawing(number, _drawn(wanted[rest], each, total), taken)
        work = partial(_candidates, pieces=pieces, drawing=drawing)
        spread = lake.spark.range(0, len(pieces), 1, max(len(pieces), 1))
        offered = spread.mapInArrow(work, _FOUND).toArrow()  # places and figures, no base
        candidates = _windows(offered)
        chosen = _chosen(wanted[rest], candidates, offered)
        served = chosen >= 0
        rows, windows = rest[served], candidates[chosen[served]]
        for mine, new in zip(
            (found.name, found.contig, found.start, found.length),
            (windows.name, windows.contig, windows.start, windows.length),
            strict=True,
        ):
            mine[rows] = new
        there = found[found.length > 0]
        taken = loci.merged(beside + Loci(there.contig.astype(str), there.start, there.start + there.length))
    return found


def _drawn(wanted: Wanted, each: int, total: dict[str, int]) -> dict[str, tuple[float, np.ndarray, np.ndarray]]:
    """How windows are drawn by contig, see _Drawing."""
    found = {}
    for contig in np.unique(wanted.contig).tolist():
        mine = wanted.length[wanted.contig == contig]
        of = sum(total.values()) if contig == "" else total.get(contig, 0)
        lengths, counts = np.unique(mine, return_counts=True)
        most = max(_MOST * len(mine) // len(wanted.length), 1)
        if of:
            found[contig] = min(each * len(mine), most) / of, lengths, np.cumsum(counts) / len(mine)
    return found


def _windows(offered: pa.Table) -> Windows:
    return Windows(
        *(np.array(offered.column(name).to_pylist(), object) for name in ("name", "contig")),
        *(offered.column(name).to_numpy().astype(np.int64) for name in ("start", "length")),
    )


def _chosen(wanted: Wanted, candidates: Windows, offered: pa.Table) -> np.ndarray:
    """Places among the candidates, int64 (n,), -1 for none: of one length and, where one is asked for, one contig."""
    asked = sorted(set(wanted.contig.tolist()) - {""})
    of = {name: number + 1 for number, name in enumerate(asked)}
    contigs = np.array([of.get(name, 0) for name in candidates.contig.tolist()], np.int64)
    rows = np.array([of.get(name, 0) for name in wanted.contig.tolist()], np.int64)
    step = len(asked) + 1
    return gc_matched(
        wanted.share,
        offered.column("share").to_numpy(),
        wanted.key,
        offered.column("key").to_numpy().view(np.uint64),
        lengths=wanted.length * step + rows,
        candidate_lengths=candidates.length * step + contigs,
        again=False,
    )


def rows(lake: Snapshot, cohort: str, windows: Windows, entities: Sequence[str], width: int) -> DataFrame:
    """The bases of windows, all found, as rows of `width` codes, aligned at their centres: entity_id, x and missing as
    `Features.rows` has them."""
    pieces = _pieces(lake.cohort_files(REFERENCE_BASES, cohort), session.task_slots(lake.spark))
    work = partial(_cut, pieces=pieces, windows=windows, entities=np.array(entities, object), width=width)
    return lake.spark.range(0, len(pieces), 1, max(len(pieces), 1)).mapInArrow(work, ROWS)


def _pieces(files: list[StoredFile], slots: int) -> list[tuple[StoredFile, int, int]]:
    """What tasks read: a file, and which of so many shares of its row groups."""
    target = min(max(sum(file.size for file in files) // (2 * slots), 1), _PIECE)
    shares = [(file, max(1, round(file.size / target))) for file in files]
    return [(file, share, count) for file, count in shares for share in range(count)]


def _chunks(piece: tuple[StoredFile, int, int]) -> Iterator[tuple[str, str, int, np.ndarray]]:
    """name, contig, first base on the contig, 0-based, and base codes int8 of the chunks of a piece."""
    file, share, shares = piece

    def mine(footer: pa.parquet.FileMetaData) -> list[int]:
        return [g for g in range(footer.num_row_groups) if g * shares // footer.num_row_groups == share]

    columns = ["name", "contig", "first", "bases"]
    with opened(file.uri, file.checksum, mine) as stored:
        if not (groups := mine(stored.metadata)):
            return
        for batch in stored.iter_batches(_CHUNKS, groups, columns, use_threads=False):
            names, contigs, firsts = (batch.column(name).to_pylist() for name in columns[:3])
            data, ends = packing.binary(batch.column("bases"))
            for number in range(batch.num_rows):  # 65,536 bases each
                codes = bases.base_codes(data[ends[number] : ends[number + 1]])
                yield names[number], contigs[number], firsts[number] - 1, codes


def _candidates(
    batches: Iterable[pa.RecordBatch], pieces: list[tuple[StoredFile, int, int]], drawing: _Drawing
) -> Iterator[pa.RecordBatch]:
    """For mapInArrow over indices into `pieces`: columns of _FOUND."""
    for batch in batches:
        for number in batch.column(0).to_pylist():
            for name, contig, first, codes in _chunks(pieces[number]):
                start, length, share, key = candidates(name, contig, first, codes, drawing)
                count = len(start)
                columns = [
                    *(pa.repeat(pa.scalar(text, pa.string()), count) for text in (name, contig)),
                    pa.array(start + first),
                    pa.array(length.astype(np.int32)),
                    pa.array(share),
                    pa.array(key.view(np.int64)),
                ]
                yield pa.RecordBatch.from_arrays(columns, ["name", "contig", "start", "length", "share", "key"])


def candidates(
    name: str, contig: str, first: int, codes: np.ndarray, drawing: _Drawing
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Candidates in one chunk of base codes int8, whose first base lies at `first`: start in the chunk and length
    int64, GC share float64 and key uint64, each once."""
    parts = [(np.zeros((0, 2), np.int64))]
    for of in {"", contig} & drawing.of.keys():
        rate, lengths, sums = drawing.of[of]
        random = np.random.default_rng([zlib.crc32(name.encode()), first, drawing.number, len(of)])
        # the part of a whole number is drawn, so that chunks together have as many as they are to have
        count = int(rate * len(codes) + random.random())
        length = lengths[np.searchsorted(sums, random.random(count), side="right").clip(max=len(lengths) - 1)]
        start = (random.random(count) * (len(codes) - length + 1)).astype(np.int64)
        parts.append(np.column_stack([start, length])[length <= len(codes)])
    start, length = np.unique(np.concatenate(parts), axis=0).T
    known, strong = _sums(codes)
    end = start + length
    whole = (known[end] - known[start] == length) & (length > 0)
    whole &= ~loci.covered(first + start, first + end, drawing.beside.get(contig))
    start, length = start[whole], length[whole]
    share = (strong[start + length] - strong[start]) / length
    return start, length, share, keys_of(start * CHUNK + length, zlib.crc32(name.encode()), first, drawing.number)


def _cut(
    batches: Iterable[pa.RecordBatch],
    pieces: list[tuple[StoredFile, int, int]],
    windows: Windows,
    entities: np.ndarray,
    width: int,
) -> Iterator[pa.RecordBatch]:
    """For mapInArrow over indices into `pieces`: columns of ROWS."""
    order = np.lexsort((windows.start, windows.name.astype(str)))
    names, starts = windows.name[order].astype(str), windows.start[order]
    for batch in batches:
        for number in batch.column(0).to_pylist():
            for name, _, first, codes in _chunks(pieces[number]):
                low, high = np.searchsorted(names, name, "left"), np.searchsorted(names, name, "right")
                here = slice(
                    low + np.searchsorted(starts[low:high], first),
                    low + np.searchsorted(starts[low:high], first + len(codes)),
                )
                mine = order[here]
                if not len(mine):
                    continue
                length = windows.length[mine]
                ends = np.append(0, np.cumsum(length))
                found = codes[packing.runs(windows.start[mine] - first, length)]
                x = bases.centred(found, ends, width)
                yield batch_of(pa.array(entities[mine], pa.string()), x, np.zeros(len(mine)))
