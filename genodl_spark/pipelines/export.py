"""A cohort's records back to one bgzipped, indexed VCF.

The records are ordered by Spark, cut into pieces of neighbouring positions that depend on the lake alone.
Tasks render and compress the pieces; BGZF blocks follow each other in any file, so the driver only puts
the pieces together and indexes them.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import posixpath
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from genodl_spark.core import storage
from genodl_spark.core.errors import InputError
from genodl_spark.formats import bgzf
from genodl_spark.formats.vcf import reader
from genodl_spark.formats.vcf import writer as vcf_writer
from genodl_spark.formats.vcf.assembled import LEVEL, LONGEST_TBI, put_together, target_of
from genodl_spark.genome.contigs import shared_contig
from genodl_spark.job.region import Region, parse_region
from genodl_spark.job.run import Run
from genodl_spark.lake.tables.ingested import SOURCES, VARIANTS

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

log = logging.getLogger("genodl")

_BUCKET = 1 << 14  # bases that no boundary between pieces divides
_PIECE_TEXT = 64 << 20  # bytes of text, about: enough to compress for a second
_RECORD_TEXT, _CALL_TEXT = 200, 4
_REPORT = "piece int, uri string, records bigint"


@dataclass(frozen=True)
class _Cohort:
    """What a cohort's files are. `meta`: their meta lines made one. `sets`: distinct orders of samples.
    `files`: (name, first allele has a phase, index into `sets`)."""

    meta: list[str]
    sets: list[list[str]]
    files: list[tuple[str, bool, int]]
    has_format: bool


@dataclass(frozen=True)
class _Layout:
    """Where records go. `contigs`: names in order. `buckets`: contig, bucket, name, place of the contig, piece."""

    contigs: list[str]
    buckets: pa.Table
    pieces: int
    records: int
    csi: bool


def export(run: Run, output: str, cohort: str | None, region: str | None, samples: str | None) -> None:
    """Writes the records of a cohort, or of a region and some samples of it, to `output` and its index beside it.

    Both are there whole or not at all. The same lake and arguments give the same bytes.
    """
    target = target_of(output)
    wanted = None if region is None else parse_region(region)
    run.require_lake()
    name = run.cohort(cohort, _cohorts(run), "VCFs")
    found = _cohort(run, name)
    everyone = vcf_writer.union_of(found.sets)
    chosen = everyone if samples is None else _chosen(samples, everyone)
    rows = _rows(run, name, found, wanted)
    layout = _layout(run, rows, found, wanted)
    if not layout.records:
        run.report.warn("no record is in the lake" if wanted is None else f"no record overlaps {wanted.text}")
    header = vcf_writer.header_text(found.meta, layout.contigs, chosen, found.has_format)
    aside = storage.join(posixpath.dirname(target), f".{posixpath.basename(target)}.{uuid.uuid4().hex[:12]}")
    storage.make_directory(aside)
    try:
        log.info("writing %d rows of %d samples in %d pieces", layout.records, len(chosen), layout.pieces)
        pieces = _pieces(run, rows, layout, found, chosen, aside) if layout.records else []
        run.report.metrics["records"] = sum(records for _, _, records in pieces)
        run.report.metrics["samples"] = len(chosen)
        run.report.metrics["bytes"] = put_together(
            header, [uri for _, uri, _ in sorted(pieces)], aside, target, layout.csi
        )
        log.info("%s: %d records, %d bytes", output, run.report.metrics["records"], run.report.metrics["bytes"])
    finally:
        with contextlib.suppress(OSError):
            storage.remove_directory(aside)


def _cohorts(run: Run) -> list[str]:
    rows = run.sources.read(SOURCES).where(f"source = '{reader.SOURCE}' AND header IS NOT NULL")
    return [row.cohort for row in rows.select("cohort").distinct().collect()]


def _cohort(run: Run, name: str) -> _Cohort:
    from pyspark.sql import functions as F

    rows = run.sources.read(SOURCES).where(
        (F.col("cohort") == name) & (F.col("source") == reader.SOURCE) & F.col("header").isNotNull()
    )
    rows = rows.select(
        "file",
        F.substring_index("header", "\n#CHROM", 1).alias("meta"),
        F.substring_index("header", "\n", -1).alias("columns"),
    )
    # Headers are long and mostly the same: each text comes to the driver once.
    listed = sorted(rows.select("file", F.sha2("meta", 256), F.sha2("columns", 256)).collect())
    each = rows.select(F.explode(F.array("meta", "columns")).alias("text"))
    each = each.groupBy(F.sha2("text", 256).alias("key")).agg(F.first("text").alias("text"))
    texts = {row.key: row.text for row in each.collect()}
    first_of = {meta: file for file, meta, _ in reversed(listed)}
    meta, warnings = vcf_writer.merged_meta(
        [(first_of[key], texts[key]) for key in dict.fromkeys(meta for _, meta, _ in listed)]
    )
    for warning in warnings:
        run.report.warn(warning)
    names = {columns: texts[columns].split("\t")[9:] for _, _, columns in listed}
    numbers: dict[tuple[str, ...], int] = {}
    of = {columns: numbers.setdefault(tuple(order), len(numbers)) for columns, order in names.items()}
    files = [(file, vcf_writer.minor_of(texts[meta]) >= 4, of[columns]) for file, meta, columns in listed]
    return _Cohort(
        meta, [list(order) for order in numbers], files, any("\tFORMAT" in texts[columns] for columns in names)
    )


def _chosen(samples: str, everyone: list[str]) -> list[str]:
    chosen, known = samples.split(","), set(everyone)
    for i, sample in enumerate(chosen):
        if sample not in known:
            raise InputError(
                f"found sample {sample!r}, which the cohort lacks; expected some of its {len(known)} samples",
                "--samples",
            )
        if sample in chosen[:i]:
            raise InputError(f"found sample {sample!r} twice; expected each once", "--samples")
    return chosen


def _rows(run: Run, cohort: str, found: _Cohort, region: Region | None) -> DataFrame:
    """The cohort's rows that are wanted, with `first_phased` and `set` of their files;
    only files that were ingested to their end."""
    from pyspark.sql import functions as F

    files = run.spark.createDataFrame(found.files, "file string, first_phased boolean, set int")
    rows = run.sources.read(VARIANTS, cohort).where(F.col("cohort") == cohort)
    if region is not None:
        whole = region.text in vcf_writer.contigs_of(found.meta)  # some names end like a region, such as HLA-A*01:01
        rows = rows.where(F.col("contig") == shared_contig(region.text if whole else region.contig))
        if not whole:
            rows = rows.where((F.col("pos") <= region.last) & (F.col("end") >= region.first))
    return rows.join(F.broadcast(files), "file").withColumn("bucket", F.floor(F.col("pos") / _BUCKET))


def _layout(run: Run, rows: DataFrame, found: _Cohort, region: Region | None) -> _Layout:
    """Pieces by the counts of records per bucket, contigs in the order of the header, then of their first records."""
    from pyspark.sql import functions as F

    counted = rows.groupBy("contig", "bucket").agg(
        F.count("*").alias("records"),
        F.sum("n_samples").alias("calls"),
        F.max("end").alias("end"),
        F.min(F.struct("file", "line", "chrom")).alias("first"),
        F.min("chrom").alias("low"),
        F.max("chrom").alias("high"),
    )
    buckets = counted.collect()
    declared = vcf_writer.contigs_of(found.meta)
    if (
        region is not None
        and not buckets
        and not {shared_contig(region.contig), shared_contig(region.text)} & set(map(shared_contig, declared))
    ):
        other = run.sources.read(VARIANTS).where(F.col("contig") == shared_contig(region.contig)).limit(1).count()
        if not other:
            raise InputError(
                f"found contig {region.contig!r}, which the cohort lacks; expected one of its contigs", "--region"
            )
    firsts: dict[str, tuple[str, int, str]] = {}
    names: dict[str, set[str]] = {}
    for row in buckets:
        firsts[row.contig] = min(firsts.get(row.contig, tuple(row.first)), tuple(row.first))
        names.setdefault(row.contig, set()).update((row.low, row.high))
    name_of = {contig: first[2] for contig, first in firsts.items()}
    for contig, several in sorted(names.items()):
        if len(several) > 1:
            run.report.warn(
                f"contig {contig} is named {' and '.join(sorted(several))} in the files; "
                f"all its records have {name_of[contig]}"
            )
    added = [name for _, _, name in sorted(firsts.values()) if name not in declared]
    contigs = [*declared, *added]
    rank = {name: i for i, name in enumerate(contigs)}
    entries: list[tuple[str, int, str, int, int]] = []
    piece, held = 0, 0
    for row in sorted(buckets, key=lambda r: (rank[name_of[r.contig]], r.bucket)):
        if held > _PIECE_TEXT:
            piece, held = piece + 1, 0
        held += _RECORD_TEXT * row.records + _CALL_TEXT * row.calls
        entries.append((row.contig, row.bucket, name_of[row.contig], rank[name_of[row.contig]], piece))
    types = [pa.string(), pa.int64(), pa.string(), pa.int32(), pa.int32()]
    columns = zip(*entries, strict=True) if entries else [()] * 5
    table = pa.table(
        [pa.array(list(c), t) for c, t in zip(columns, types, strict=True)],
        names=["contig", "bucket", "name", "rank", "piece"],
    )
    longest = max([row.end for row in buckets] + [declared.get(name) or 0 for name in name_of.values()], default=0)
    return _Layout(
        contigs, table, piece + 1 if entries else 0, sum(row.records for row in buckets), longest > LONGEST_TBI
    )


def _pieces(
    run: Run, rows: DataFrame, layout: _Layout, found: _Cohort, chosen: list[str], aside: str
) -> list[tuple[int, str, int]]:
    """Has tasks write the pieces; returns number, URI and records of each."""
    from pyspark.sql import functions as F

    joint = len(found.sets) > 1
    buckets = run.spark.createDataFrame(layout.buckets.to_pandas())
    order = ["piece", "rank", "pos", "file", "line", "alt_number"]
    taken = [*vcf_writer.COLUMNS, "piece", *(["set"] if joint else [])]
    # All rows of a bucket, and so of a site, come to one task.
    placed = (
        rows.join(F.broadcast(buckets), ["contig", "bucket"])
        .withColumn("chrom", F.col("name"))
        .repartition(layout.pieces, "piece")
    )
    work = partial(
        _write,
        aside=aside,
        has_format=found.has_format,
        positions=None if joint else vcf_writer.positions(found.sets[0], chosen),
        joint=(found.sets, chosen) if joint else None,
    )
    written = placed.sortWithinPartitions(*order).select(*taken).mapInArrow(work, _REPORT).collect()
    return [(row.piece, row.uri, row.records) for row in written]


def _write(
    batches: Iterable[pa.RecordBatch],
    aside: str,
    has_format: bool,
    positions: np.ndarray | None,
    joint: tuple[list[list[str]], list[str]] | None,
) -> Iterator[pa.RecordBatch]:
    """For mapInArrow over ordered rows: writes each piece as a bgzip file of its own, and reports it."""
    joiner = None if joint is None else vcf_writer.Joiner(*joint)
    open_: _Piece | None = None
    for piece, batch in _by_piece(batches):
        if open_ is None or open_.number != piece:
            if open_ is not None:
                yield open_.close(joiner)
            open_ = _Piece(piece, aside)
        open_.write(vcf_writer.record_lines(batch, has_format, positions) if joiner is None else joiner.lines(batch))
    if open_ is not None:
        yield open_.close(joiner)


def _by_piece(batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[int, pa.RecordBatch]]:
    for batch in batches:
        numbers = batch.column("piece").to_numpy()
        starts = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist(), len(numbers)]
        for start, stop in itertools.pairwise(starts):
            if stop > start:
                yield int(numbers[start]), batch.slice(start, stop - start)


class _Piece:
    """A piece under way. A task that is run twice writes two files, of which the report names one."""

    def __init__(self, number: int, aside: str) -> None:
        self.number, self.records = number, 0
        self._uri = storage.join(aside, f"{number:06d}-{uuid.uuid4().hex[:8]}")
        fs, path = storage.filesystem(self._uri)
        self._stream = fs.open_output_stream(path, compression=None)
        self._writer = bgzf.Writer(self._stream, LEVEL)

    def write(self, lines: Iterable[bytes]) -> None:
        for line in lines:
            self._writer.write(line)
            self.records += 1

    def close(self, joiner: vcf_writer.Joiner | None) -> pa.RecordBatch:
        if joiner is not None:
            self.write(joiner.rest())
        self._writer.close()
        self._stream.close()
        columns = [pa.array([self.number], pa.int32()), pa.array([self._uri]), pa.array([self.records], pa.int64())]
        return pa.RecordBatch.from_arrays(columns, ["piece", "uri", "records"])
