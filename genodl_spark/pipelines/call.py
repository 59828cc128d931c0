"""Variants of a sample, called from its reads: tiles of the genome in Spark tasks, a VCF and rows of `calls`.

Tiles lie on a fixed grid, and each is called by itself, so that neither the number of tasks nor of machines changes a
call. Tasks write pieces of the VCF and files of the table; the driver puts the pieces together and commits the files.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import logging
import posixpath
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from genodl_spark.core import storage
from genodl_spark.core.errors import InputError
from genodl_spark.core.session import task_slots
from genodl_spark.formats import alignment, bgzf
from genodl_spark.formats.vcf import called as vcf_text
from genodl_spark.formats.vcf.assembled import LEVEL, LONGEST_TBI, put_together
from genodl_spark.genetics.calling import calls as judged
from genodl_spark.genetics.calling.reads import LEFT_OUT
from genodl_spark.genetics.calling.tile import MARGIN, TILE, calls_of, reads_of
from genodl_spark.genetics.settings import Calling
from genodl_spark.genome.contigs import shared_contig
from genodl_spark.genome.reference import Reference
from genodl_spark.job.region import Region, parse_region
from genodl_spark.job.run import Run, code_of, fingerprint
from genodl_spark.lake.discarded import discard
from genodl_spark.lake.parts import Part, PartWriter
from genodl_spark.lake.tables.calls import CALLS
from genodl_spark.lake.tables.genomes import ALIGNMENTS

log = logging.getLogger("genodl")

_REPORT = "shard int, part string, uri string, records bigint"
_SHARDS_A_SLOT = 4


@dataclass(frozen=True)
class _Tile:
    """Bases [start, end) of a contig, 0-based; `length` of the contig."""

    chrom: str
    start: int
    end: int
    length: int


@dataclass(frozen=True)
class _Sample:
    """A sample's reads: the file, its index, the read groups that are asked for (all if none), the FASTA."""

    cohort: str
    name: str
    uri: str
    groups: tuple[str, ...]
    reference: str


def call(run: Run, output: str, cohort: str | None, sample: str | None, region: str | None) -> None:
    """Writes the calls of a sample, or of a region of it, to `output` with its index, and to `calls`.

    The same reads, reference, settings and code give the same bytes. Rows of `calls` of the sample on the contigs at
    hand are replaced.
    """
    if not output.endswith(".vcf.gz"):
        raise InputError(f"found {output}; expected a name that ends in .vcf.gz", "--output")
    wanted = None if region is None else parse_region(region)
    target = storage.absolute(output)
    if storage.kind(target) == "directory":
        raise InputError("a directory is there; expected the name of a file", output)
    run.require_lake()
    version = run.sources.version(ALIGNMENTS)
    among = run.lake.rows(ALIGNMENTS, {}, version, ["cohort"]).column(0).unique().to_pylist()
    of = _sample(run, run.cohort(cohort, among, "alignments"), sample)
    header, contigs = _contigs(run, of, wanted)
    tiles = _tiles(contigs, wanted)
    asked = run.settings.call
    digest = _fingerprint(run, of, header, wanted)
    if _there(run, of, digest, target):
        run.report.status = "unchanged"
        run.wrote(CALLS, 0)
        return
    aside = storage.join(posixpath.dirname(target), f".{posixpath.basename(target)}.{uuid.uuid4().hex[:12]}")
    storage.make_directory(aside)
    task = uuid.uuid4().hex[:12]
    new = [] if run.lake.exists(CALLS) else [CALLS]
    run.lake.create(CALLS)
    try:
        shards = _shards(tiles, asked.shards or _SHARDS_A_SLOT * task_slots(run.spark))
        log.info("calling %s: %d tiles of %d bases in %d shards", of.name, len(tiles), TILE, len(shards))
        work = partial(
            _call, shards=shards, of=of, asked=asked, digest=digest, table=run.lake.path(CALLS), task=task, aside=aside
        )
        spread = run.spark.range(0, len(shards), 1, len(shards))
        found = spread.mapInArrow(work, _REPORT).collect()
        parts = [Part.from_json(row.part) for row in found if row.part]
        pieces = [row.uri for row in sorted(found, key=lambda row: row.shard) if row.uri]
        text = vcf_text.header(contigs, of.name, of.reference, f"genodl call {digest}")
        size = put_together(text, pieces, aside, target, max(contigs.values()) > LONGEST_TBI)
        where = {"cohort": of.cohort, "sample_id": of.name, "contig": [shared_contig(chrom) for chrom in contigs]}
        run.lake.commit(CALLS, parts, where)
    except BaseException:
        discard(run.lake, run.run_id, [CALLS], task, new)
        raise
    finally:
        with contextlib.suppress(OSError):
            storage.remove_directory(aside)
    records = sum(row.records for row in found)
    run.wrote(CALLS, sum(part.rows for part in parts))
    run.report.metrics.update(records=records, bytes=size, tiles=len(tiles), shards=len(shards))
    log.info("%s: %d records, %d bytes", output, records, size)


def _sample(run: Run, cohort: str, sample: str | None) -> _Sample:
    """The one file with reads of a sample."""
    rows = run.lake.rows(ALIGNMENTS, {"cohort": cohort}, run.sources.version(ALIGNMENTS)).to_pylist()
    names = sorted({row["sample_id"] for row in rows})
    if sample is None and len(names) == 1:
        sample = names[0]
    if sample not in names:
        found = "no sample" if sample is None else f"sample {sample!r}"
        known = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
        raise InputError(f"found {found}; expected one that cohort {cohort} has reads of: {known}", "--sample")
    mine = [row for row in rows if row["sample_id"] == sample]
    if len(mine) > 1:
        files = ", ".join(sorted(row["file"] for row in mine)[:3])
        raise InputError(
            f"found reads of {sample} in {len(mine)} files ({files}); expected one, merge them", "--sample"
        )
    (row,) = mine
    if row["index"] is None:
        advice = f"samtools index {row['uri']}, and ingest it again"
        raise InputError(f"found no index beside the file; expected one: {advice}", row["uri"])
    if row["reference"] is None:
        raise InputError(
            "found no reference of these reads; expected one: genodl ingest alignments with --reference FASTA",
            row["uri"],
        )
    assert sample is not None
    shared = sum(other["file"] == row["file"] for other in rows) > 1
    return _Sample(cohort, sample, row["uri"], tuple(row["read_groups"]) if shared else (), row["reference"])


def _contigs(run: Run, of: _Sample, wanted: Region | None) -> tuple[alignment.Header, dict[str, int]]:
    """The file's header, and contigs that reads may lie on and the reference has, with their bases.
    InputError where the reference is that of other reads."""
    header = alignment.header_of(of.uri, of.reference)
    reference = Reference(of.reference)
    alignment.check_reference(header, reference)
    reaches = reference.reaches
    found: dict[str, int] = {}
    lacking = []
    for number, (chrom, length) in enumerate(zip(header.contigs, header.lengths, strict=True)):
        if shared_contig(chrom) not in reaches:
            if header.counts is None or header.counts[number, 0]:
                lacking.append(chrom)
            continue
        found[chrom] = length
    if wanted is not None:
        chosen = [
            chrom for chrom in found if chrom == wanted.contig or shared_contig(chrom) == shared_contig(wanted.contig)
        ]
        if not chosen:
            known = ", ".join(list(found)[:3])
            raise InputError(
                f"found contig {wanted.contig!r}; expected one of reads and reference: {known}", "--region"
            )
        return header, {chosen[0]: found[chosen[0]]}
    if not found:
        raise InputError(f"found {reference.said()}; expected the contigs of {of.uri}", of.reference)
    if lacking:
        shown = ", ".join(lacking[:3]) + (", ..." if len(lacking) > 3 else "")
        run.report.warn(f"{len(lacking)} contigs of the reads are not in the reference and are not called: {shown}")
    return header, found


def _tiles(contigs: dict[str, int], wanted: Region | None) -> list[_Tile]:
    found = []
    for chrom, length in contigs.items():
        first = 0 if wanted is None else max(wanted.first - 1, 0)
        last = length if wanted is None else min(wanted.last, length)
        for start in range(first // TILE * TILE, last, TILE):
            found.append(_Tile(chrom, max(start, first), min(start + TILE, last), length))
    if not found:
        raise InputError("found no base in it; expected a part of the contig", "--region")
    return found


def _shards(tiles: Sequence[_Tile], shards: int) -> list[list[_Tile]]:
    """Neighbouring tiles together, in order."""
    bounds = np.linspace(0, len(tiles), min(shards, len(tiles)) + 1).round().astype(int)
    return [list(tiles[a:b]) for a, b in itertools.pairwise(bounds)]


def _fingerprint(run: Run, of: _Sample, header: alignment.Header, wanted: Region | None) -> str:
    """Hash of what calls are made from. Reads by when and how large they were written: they are large."""
    files = [
        entry for uri in (of.uri, of.reference) for entry in storage.listing(posixpath.dirname(uri)) if entry[0] == uri
    ]
    asked = run.settings.call.model_dump(exclude={"shards"})
    text = hashlib.sha256(header.text.encode()).hexdigest()
    return fingerprint(of.__dict__, files, text, asked, None if wanted is None else wanted.text, code_of(__name__))[:32]


def _there(run: Run, of: _Sample, digest: str, target: str) -> bool:
    """Whether the calls are in the table and the file, whole, as they would be made."""
    if not (storage.is_file(target) and (storage.is_file(target + ".tbi") or storage.is_file(target + ".csi"))):
        return False
    with storage.open_input(target) as file:
        try:
            first = next(text for _, text in bgzf.blocks(file.read))
        except (bgzf.Broken, StopIteration):
            return False
    if f"##source=genodl call {digest}\n".encode() not in first or not run.lake.exists(CALLS):
        return False
    rows = run.lake.rows(CALLS, {"cohort": of.cohort, "sample_id": of.name}, columns=["fingerprint"])
    return digest in rows.column(0).unique().to_pylist()


def _call(
    batches: Iterable[pa.RecordBatch],
    shards: list[list[_Tile]],
    of: _Sample,
    asked: Calling,
    digest: str,
    table: str,
    task: str,
    aside: str,
) -> Iterator[pa.RecordBatch]:
    """For mapInArrow over numbers of shards: writes what is called in each, a tile in memory at a time."""
    reference = Reference(of.reference)
    fixed: dict[str, Any] = {"cohort": of.cohort, "sample_id": of.name, "fingerprint": digest}
    for number in (i for batch in batches for i in batch.column(0).to_pylist()):
        rows = PartWriter(CALLS, table, f"{task}-{number:05d}")
        uri = storage.join(aside, f"{number:06d}-{uuid.uuid4().hex[:8]}")
        fs, path = storage.filesystem(uri)
        records = 0
        with fs.open_output_stream(path, compression=None) as stream:
            text = bgzf.Writer(stream, LEVEL)
            for tile in shards[number]:
                found = _tile_calls(tile, of, asked, reference)
                records += len(found)
                if found:
                    rows.write(judged.rows(found, shared_contig(tile.chrom), tile.chrom, fixed))
                    text.write(vcf_text.lines(found, tile.chrom))
                    text.flush()  # so that the bytes of the file do not tell how tiles were dealt out
            text.close()
        parts = [part.as_json() for part in rows.close()]
        told = [(number, part, None, 0) for part in parts] + [(number, None, uri, records)]
        yield pa.RecordBatch.from_pylist(
            [dict(zip(("shard", "part", "uri", "records"), one, strict=True)) for one in told],
            pa.schema([("shard", pa.int32()), ("part", pa.string()), ("uri", pa.string()), ("records", pa.int64())]),
        )


def _tile_calls(tile: _Tile, of: _Sample, asked: Calling, reference: Reference) -> list[judged.Call]:
    first, last = max(tile.start - MARGIN, 0), min(tile.end + MARGIN, tile.length)
    bam = alignment.region_bam(of.uri, tile.chrom, first + 1, last, of.reference, of.groups, LEFT_OUT)
    letters = np.frombuffer(reference.fetch(tile.chrom, first, last).upper(), np.uint8)
    reads = reads_of(bam, letters, first, asked)
    if not len(reads):
        return []
    sites = calls_of(reads, letters, first, tile.start, tile.end, asked)
    return judged.called(sites, asked.min_quality)
