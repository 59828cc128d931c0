"""Variants called from reads, in tasks: tiles of the genome to records, as text of a VCF and as rows of `calls`."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from genodl_spark.core import storage
from genodl_spark.core.errors import InputError
from genodl_spark.formats import alignment, bgzf
from genodl_spark.formats.vcf import called as text_of
from genodl_spark.formats.vcf.assembled import LEVEL
from genodl_spark.formats.vcf.indexed import alleles_within
from genodl_spark.genetics.calling.alleles import Allele, of_vcf, piled
from genodl_spark.genetics.calling.calls import Record, recorded, recorded_trios, rows
from genodl_spark.genetics.calling.gap_errors import COLUMNS, counted
from genodl_spark.genetics.calling.judged import Place
from genodl_spark.genetics.calling.pileups import of_tile, written
from genodl_spark.genetics.calling.reads import LEFT_OUT, Reads
from genodl_spark.genetics.calling.reference_blocks import blocks
from genodl_spark.genetics.calling.tile import MARGIN, TILE, called, reads_of
from genodl_spark.genetics.calling.trio import trio_calls_of
from genodl_spark.genetics.settings import Calling
from genodl_spark.genome.contigs import shared_contig
from genodl_spark.genome.reference import Reference
from genodl_spark.lake.parts import PartWriter
from genodl_spark.lake.tables.calls import CALLS
from genodl_spark.learning import predictor
from genodl_spark.learning.model_files import ModelFiles

COUNTED = pa.schema([(name, pa.int64()) for name in ("sample", *COLUMNS)])
REPORT = pa.schema([("shard", pa.int32()), ("part", pa.string()), ("uri", pa.string()), ("records", pa.int64())])


@dataclass(frozen=True)
class Tile:
    """Bases [start, end) of a contig, 0-based; `length` of the contig."""

    chrom: str
    start: int
    end: int
    length: int


@dataclass(frozen=True)
class Sample:
    """A sample's reads: the file, and the read groups that are asked for (all if none)."""

    name: str
    uri: str
    groups: tuple[str, ...]


@dataclass(frozen=True)
class Work:
    """What is called: a sample, or child, father and mother; the FASTA; where rows (named after `task`) and text go;
    how often reads of each sample have gaps by error, see `gap_errors`; the network that judges, too."""

    cohort: str
    samples: tuple[Sample, ...]
    reference: str
    asked: Calling
    fingerprint: str
    table: str
    task: str
    aside: str
    gaps: tuple[np.ndarray | None, ...] = (None, None, None)
    model: ModelFiles | None = None
    model_id: str | None = None


def count_gaps(
    batches: Iterable[pa.RecordBatch], tiles: Sequence[Sequence[Tile]], work: Work
) -> Iterator[pa.RecordBatch]:
    """For mapInArrow over numbers: of sample number % samples, repeats of every tile of its own as `gap_errors.counted`
    has them, COUNTED."""
    reference = Reference(work.reference)
    for number in (i for batch in batches for i in batch.column(0).to_pylist()):
        which, at = number % len(work.samples), number // len(work.samples)
        if at >= len(tiles[which]):
            continue
        tile = tiles[which][at]
        letters, first = _letters(tile, reference)
        reads = _reads(work.samples[which], tile.chrom, first, letters, work)
        found = counted(piled(reads, letters, first, work.asked.min_base_quality), reads)
        columns = [np.full(len(found), which), *found.T]
        yield pa.RecordBatch.from_arrays([pa.array(column, pa.int64()) for column in columns], schema=COUNTED)


def covered(sample: Sample, reference: str, contigs: Mapping[str, int], most: int) -> list[Tile]:
    """At most so many tiles of the grid that have reads of the file, evenly over the genome, in order."""
    names, ends = list(contigs), np.cumsum(list(contigs.values()))
    at = np.arange(most) * int(ends[-1]) // most
    of = np.searchsorted(ends, at, "right")
    places = [(names[k], int(base - ends[k] + contigs[names[k]])) for k, base in zip(of.tolist(), at, strict=True)]
    starts = {(chrom, pos // TILE * TILE) for chrom, pos in alignment.first_reads(sample.uri, names, places, reference)}
    return [
        Tile(chrom, start, min(start + TILE, contigs[chrom]), contigs[chrom])
        for chrom, start in sorted(starts, key=lambda one: (names.index(one[0]), one[1]))
    ]


def call_shards(
    batches: Iterable[pa.RecordBatch], shards: Sequence[Sequence[Tile]], work: Work
) -> Iterator[pa.RecordBatch]:
    """For mapInArrow over numbers of shards: writes what is called in each, a tile in memory at a time; REPORT."""
    reference = Reference(work.reference)
    fixed = {"cohort": work.cohort, "fingerprint": work.fingerprint, "model_id": work.model_id}
    names = [sample.name for sample in work.samples]
    for number in (i for batch in batches for i in batch.column(0).to_pylist()):
        parts = PartWriter(CALLS, work.table, f"{work.task}-{number:05d}")
        uri = storage.join(work.aside, f"{number:06d}-{uuid.uuid4().hex[:8]}")
        fs, path = storage.filesystem(uri)
        count = 0
        with fs.open_output_stream(path, compression=None) as stream:
            out = bgzf.Writer(stream, LEVEL)
            for tile in shards[number]:
                records, lines = _called(tile, work, reference)
                count += len(records)
                if records:
                    parts.write(rows(records, shared_contig(tile.chrom), tile.chrom, names, fixed))
                out.write("".join(lines).encode())
                out.flush()  # so that the bytes of the file do not tell how tiles were dealt out
            out.close()
        told = [(number, part.as_json(), None, 0) for part in parts.close()] + [(number, None, uri, count)]
        yield pa.RecordBatch.from_arrays(
            [pa.array(list(column), kind) for column, kind in zip(zip(*told, strict=True), REPORT.types, strict=True)],
            schema=REPORT,
        )


def _called(tile: Tile, work: Work, reference: Reference) -> tuple[list[Record], list[str]]:
    """Records of a tile, and its lines, those of blocks among them where they are asked for."""
    asked = work.asked
    letters, first = _letters(tile, reference)
    reads = [_reads(sample, tile.chrom, first, letters, work) for sample in work.samples]
    forced = _forced(tile, work, letters, first)
    if len(work.samples) > 1:
        child, father, mother = reads
        trios = trio_calls_of(child, father, mother, letters, first, tile.start, tile.end, asked, work.gaps)
        records = recorded_trios(trios, asked.min_quality)
        return records, [text_of.line(record, tile.chrom) for record in records]
    if not (len(reads[0]) or forced or asked.gvcf):
        return [], []
    pileup = piled(reads[0], letters, first, asked.min_base_quality)
    # of a gVCF those before the tile, too, as they may reach into it
    since = first if asked.gvcf else tile.start
    sites = called(pileup, reads[0], since, tile.end, asked, forced, work.gaps[0])
    near = recorded(sites, forced, asked.min_quality, _network(reads[0], letters, first, since, tile.end, work))
    records = [record for record in near if record.site.pos >= tile.start]
    lines = [(record.site.pos, 1, text_of.line(record, tile.chrom)) for record in records]
    if asked.gvcf:
        apart = blocks(pileup, [record.site for record in near], tile.start, tile.end)
        lines += [(block.start, 0, text_of.block_line(block, tile.chrom)) for block in apart]
    return records, [line for _, _, line in sorted(lines, key=lambda one: one[:2])]


def _network(
    reads: Reads, letters: np.ndarray, first: int, since: int, end: int, work: Work
) -> dict[Place, np.ndarray]:
    """What the network says of the candidates within [`since`, `end`): chances of 0, 1, 2 copies. Letters are from
    `first` on."""
    if work.model is None:
        return {}
    found = of_tile(reads, letters, first, since, end, work.asked, work.gaps[0])
    chances = predictor.cached(work.model)(found.x) if len(found.x) else np.zeros((0, 3))
    return {written(one, letters, first): row for one, row in zip(found.alleles, chances, strict=True)}


def _letters(tile: Tile, reference: Reference) -> tuple[np.ndarray, int]:
    """Bases of a tile with its margins, uint8, and where they begin."""
    first, last = max(tile.start - MARGIN, 0), min(tile.end + MARGIN, tile.length)
    return np.frombuffer(reference.fetch(tile.chrom, first, last).upper(), np.uint8), first


def _reads(sample: Sample, chrom: str, first: int, letters: np.ndarray, work: Work) -> Reads:
    last = first + len(letters)
    bam = alignment.region_bam(sample.uri, chrom, first + 1, last, work.reference, sample.groups, LEFT_OUT)
    return reads_of(bam, letters, first, work.asked)


def _forced(tile: Tile, work: Work, letters: np.ndarray, first: int) -> list[Allele]:
    """Alleles that answers are asked for, as candidates are."""
    uri = work.asked.sites
    if not uri:
        return []
    found = alleles_within(uri, tile.chrom, tile.start, tile.end)
    try:
        return [of_vcf(pos, ref, alt, letters, first) for pos, ref, alt in found]
    except InputError as error:
        raise InputError(f"{error.message} ({tile.chrom})", uri) from error
