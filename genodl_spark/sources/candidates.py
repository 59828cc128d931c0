"""Candidate alleles of reads whose truth is known, packed and labelled: rows of `pileups` and `labels` for a network to
learn from.

Tiles of the genome are tasks. Each is looked at with all reads and, thinned by the names of molecules, at the depths
of `call.depths`; with `call.added_errors` once more with errors put into the reads. A candidate that lies in the
confident regions has the copies as label that the truth's haplotypes have of it, however they are written; one of which
that cannot be told is left out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa

from genodl_spark.core import packing
from genodl_spark.core.errors import InputError
from genodl_spark.core.session import task_slots
from genodl_spark.formats import alignment
from genodl_spark.formats.alignment import Header
from genodl_spark.formats.intervals import read_bed
from genodl_spark.formats.vcf.indexed import Truth, truth_of
from genodl_spark.genetics.calling import errors, pileups
from genodl_spark.genetics.calling.alleles import piled
from genodl_spark.genetics.calling.gap_errors import COLUMNS, FITTED_TILES, counted, fitted_gaps, gathered
from genodl_spark.genetics.calling.matching import UNTOLD, Variant, labels
from genodl_spark.genetics.calling.reads import LEFT_OUT, Reads
from genodl_spark.genetics.calling.tile import MARGIN, TILE, reads_of
from genodl_spark.genetics.settings import Calling
from genodl_spark.genome.contigs import shared_contig
from genodl_spark.genome.reference import Reference
from genodl_spark.job.run import Run
from genodl_spark.lake.parts import Part, PartWriter
from genodl_spark.lake.schema import VARIANT
from genodl_spark.lake.tables.calls import PILEUPS
from genodl_spark.lake.tables.ingested import LABELS
from genodl_spark.sources.engine import Brought, SourceFile

REGION = 1_000_000  # bases of a value of the column `region`, by which splits keep neighbours together
_COLUMNS = ("label", "sample", "type", "depth", "added_errors", "region")
_NEAR = 10  # bases beside a variant in which nothing is taken for an error
_SEED = 1
_REPORT = "file string, table string, part string"
_SHARDS_A_SLOT = 4


@dataclass(frozen=True)
class Known:
    """What is known of the reads of some files: truths by URI of the file, and where these are sure, sorted intervals
    [start, end) of each contig, 0-based int64 (n, 2). `uris`: of truth and regions, as they were given."""

    truths: dict[str, Truth]
    confident: dict[str, np.ndarray]
    uris: tuple[str, str]


@dataclass(frozen=True)
class Labelled:
    """What `labelled.merge_labels` asks of a file. `others`: columns of its candidates."""

    others: dict[str, str]


@dataclass(frozen=True)
class _Tile:
    """Bases [start, end) of a contig of a file, 0-based; `length` of the contig; `sure`: confident intervals in it."""

    file: str
    uri: str
    chrom: str
    start: int
    end: int
    length: int
    groups: tuple[str, ...]
    sample: str
    sure: np.ndarray


def known(headers: Mapping[str, Header], truth: str, confident: str, reference: str | None) -> Known:
    """What a truth and its confident regions say of files. InputError where they do not go with the files' contigs, and
    for a file without an index or without a FASTA."""
    if reference is None:
        raise InputError(
            "found none; expected the FASTA that the reads were aligned to, as --truth needs it", "--reference"
        )
    sure = {shared_contig(contig): pairs for contig, pairs in read_bed(confident).items()}
    truths = {}
    for uri, header in headers.items():
        if header.index is None:
            raise InputError(f"found no index beside the file; expected one: samtools index {uri}", uri)
        truths[uri] = truth_of(truth, sorted(header.samples))
        contigs = {shared_contig(contig) for contig in header.contigs}
        if not contigs & truths[uri].contigs.keys():
            raise InputError(f"found no contig of {uri} with a record; expected some: is it the same build?", truth)
        if not contigs & sure.keys():
            raise InputError(f"found no contig of {uri}; expected some: is it the same build?", confident)
    return Known(truths, sure, (truth, confident))


def bring(
    run: Run, cohort: str, files: Mapping[SourceFile, Header], of: Known, reference: str, staging: str, name: str
) -> dict[str, Brought]:
    """Writes rows of `pileups`, in files named after `name`, and, below `staging`, of `labels`: what each file brought,
    by name. Nothing is committed."""
    tiles = [tile for file, header in files.items() for tile in _tiles(file, header, of)]
    count = max(min(_SHARDS_A_SLOT * task_slots(run.spark), len(tiles)), 1)
    shards = [tiles[part::count] for part in range(count)]
    work = partial(
        _write,
        gaps=_gaps(run, tiles, of, reference),
        shards=shards,
        truths=of.truths,
        reference=reference,
        asked=run.settings.call,
        cohort=cohort,
        uris=(run.lake.path(PILEUPS), staging),
        name=name,
    )
    found = run.spark.range(0, count, 1, count).mapInArrow(work, _REPORT).collect()
    brought = {file.name: Brought() for file in files}
    for row in found:
        part = Part.from_json(row.part)
        brought[row.file].parts.setdefault(row.table, []).append(part)
        brought[row.file].rows += part.rows * (row.table == PILEUPS.name)
    return brought


def labelled() -> Labelled:
    return Labelled({name: name for name in _COLUMNS})


def _tiles(file: SourceFile, header: Header, of: Known) -> Iterator[_Tile]:
    truth = of.truths[file.uri]
    samples = header.samples
    if truth.sample not in samples and len(samples) > 1:
        raise InputError(
            f"found samples {', '.join(sorted(samples)[:3])}; expected {truth.sample} of the truth", file.uri
        )
    sample = truth.sample if truth.sample in samples else next(iter(samples), file.name)
    groups = tuple(samples[sample]) if len(samples) > 1 else ()
    for chrom, length in zip(header.contigs, header.lengths, strict=True):
        sure = of.confident.get(shared_contig(chrom))
        if sure is None or shared_contig(chrom) not in truth.contigs:
            continue
        for start in np.unique(np.concatenate([np.arange(a // TILE, (z - 1) // TILE + 1) for a, z in sure])) * TILE:
            first, last = int(start), min(int(start) + TILE, length)
            inside = sure[(sure[:, 1] > first) & (sure[:, 0] < last)]
            if first < last and len(inside):
                yield _Tile(file.name, file.uri, chrom, first, last, length, groups, sample, inside)


def _write(
    batches: Iterable[pa.RecordBatch],
    shards: list[list[_Tile]],
    truths: dict[str, Truth],
    reference: str,
    asked: Calling,
    cohort: str,
    uris: tuple[str, str],
    name: str,
    gaps: Mapping[tuple[str, int], np.ndarray],
) -> Iterator[pa.RecordBatch]:
    """For mapInArrow over numbers of shards: a tile in memory at a time."""
    fasta = Reference(reference)
    tables = (PILEUPS, LABELS.with_columns(_COLUMNS))
    for number in (i for batch in batches for i in batch.column(0).to_pylist()):
        writers: dict[str, list[PartWriter]] = {}
        for tile in shards[number]:
            if tile.file not in writers:
                writers[tile.file] = [
                    PartWriter(table, uri, f"{name}-{number:05d}-{len(writers)}")
                    for table, uri in zip(tables, uris, strict=True)
                ]
            for rows in _rows(tile, truths[tile.uri], fasta, asked, cohort, gaps):
                for writer, batch in zip(writers[tile.file], rows, strict=True):
                    writer.write(batch)
        told = [
            (file, writer.table.name, part.as_json())
            for file, of_file in writers.items()
            for writer in of_file
            for part in writer.close()
        ]
        columns = list(zip(*told, strict=True)) or [(), (), ()]
        yield pa.RecordBatch.from_arrays([pa.array(list(c), pa.string()) for c in columns], ["file", "table", "part"])


def _gaps(run: Run, tiles: Sequence[_Tile], of: Known, reference: str) -> dict[tuple[str, int], np.ndarray]:
    """How often reads of each file have gaps by error, without and with errors added, by some of its tiles."""
    asked = run.settings.call
    chosen = []
    for file in dict.fromkeys(tile.file for tile in tiles):
        mine = [tile for tile in tiles if tile.file == file]
        chosen += [mine[k] for k in np.unique(np.linspace(0, len(mine) - 1, FITTED_TILES).round().astype(int))]
    if not chosen:
        return {}
    count = len(chosen)
    work = partial(_count_gaps, tiles=chosen, truths=of.truths, reference=reference, asked=asked)
    types = ", ".join(["tile int", "times int", *(f"{column} bigint" for column in COLUMNS)])
    slots = min(count, task_slots(run.spark))
    found = run.spark.range(0, count, 1, slots).mapInArrow(work, types).toArrow()
    rows = np.column_stack([column.to_numpy() for column in found.columns])
    files = np.array([tile.file for tile in chosen])
    return {
        (file, times): fitted_gaps(gathered([rows[(files[rows[:, 0]] == file) & (rows[:, 1] == times), 2:]]))
        for file in dict.fromkeys(files.tolist())
        for times in dict.fromkeys((0, asked.added_errors))
    }


def _count_gaps(
    batches: Iterable[pa.RecordBatch],
    tiles: Sequence[_Tile],
    truths: dict[str, Truth],
    reference: str,
    asked: Calling,
) -> Iterator[pa.RecordBatch]:
    """For mapInArrow over numbers of tiles: repeats as `gap_errors.counted` has them."""
    fasta = Reference(reference)
    for number in (i for batch in batches for i in batch.column(0).to_pylist()):
        tile = tiles[number]
        letters, first, reads, known_here = _read(tile, truths[tile.uri], fasta, asked)
        for times in dict.fromkeys((0, asked.added_errors)):
            some = _worse(reads, letters, first, tile, known_here, times)
            found = counted(piled(some, letters, first, asked.min_base_quality), some)
            same = [pa.array(np.full(len(found), value, np.int32)) for value in (number, times)]
            columns = [*same, *(pa.array(column, pa.int64()) for column in found.T)]
            yield pa.RecordBatch.from_arrays(columns, ["tile", "times", *COLUMNS])


def _read(tile: _Tile, truth: Truth, fasta: Reference, asked: Calling) -> tuple[np.ndarray, int, Reads, list[Variant]]:
    """Letters of a tile with its margins, where they begin, its reads, and what is known of them."""
    first, last = max(tile.start - MARGIN, 0), min(tile.end + MARGIN, tile.length)
    bam = alignment.region_bam(tile.uri, tile.chrom, first + 1, last, fasta.path, tile.groups, LEFT_OUT)
    letters = np.frombuffer(fasta.fetch(tile.chrom, first, last).upper(), np.uint8)
    return letters, first, reads_of(bam, letters, first, asked), truth.variants(tile.chrom, first + 1, last)


def _rows(
    tile: _Tile,
    truth: Truth,
    fasta: Reference,
    asked: Calling,
    cohort: str,
    gaps: Mapping[tuple[str, int], np.ndarray],
) -> Iterator[tuple[pa.RecordBatch, pa.RecordBatch]]:
    """Rows of PILEUPS and LABELS of a tile, a pair of batches for each depth."""
    letters, first, reads, known_here = _read(tile, truth, fasta, asked)
    if not len(reads):
        return
    for times, depth, some in _ways(reads, letters, first, tile, known_here, asked):
        found = pileups.of_tile(some, letters, first, tile.start, tile.end, asked, gaps.get((tile.file, times)))
        written = [pileups.written(allele, letters, first) for allele in found.alleles]
        variants = [Variant(pos + 1, ref.encode(), (alt.encode(),)) for pos, ref, alt in written]
        copies = labels(letters.tobytes(), first + 1, known_here, variants)
        inside = _inside(np.array([(pos, pos + len(ref)) for pos, ref, _ in written]).reshape(-1, 2), tile.sure)
        kept = np.flatnonzero(inside & (copies != UNTOLD))
        if len(kept):
            yield _batches(tile, cohort, (depth, times), found, written, copies, kept)


def _ways(
    reads: Reads, letters: np.ndarray, start: int, tile: _Tile, truth: list[Variant], asked: Calling
) -> Iterator[tuple[int, int, Reads]]:
    """How many times as many errors are added, the depth, and the reads."""
    for times in dict.fromkeys((0, asked.added_errors)):
        worse = _worse(reads, letters, start, tile, truth, times)
        for depth, some in depths(worse, tile.start, tile.end, asked.depths):
            yield times, depth, some


def _worse(reads: Reads, letters: np.ndarray, start: int, tile: _Tile, truth: list[Variant], times: int) -> Reads:
    """Reads with so many times as many errors put into them as they have where the genome is the reference."""
    if not times:
        return reads
    sure = np.zeros(len(letters), bool)
    for a, z in tile.sure:
        sure[max(a - start, 0) : max(z - start, 0)] = True
    for variant in truth:
        at = variant.position - 1 - start
        sure[max(at - _NEAR, 0) : max(at + len(variant.ref) + _NEAR, 0)] = False
    return errors.added(reads, letters, start, errors.fitted(reads, letters, start, sure), times, _SEED)


def depths(reads: Reads, start: int, end: int, wanted: Iterable[int]) -> Iterator[tuple[int, Reads]]:
    """All reads, as depth 0, and those that are left at each depth that they exceed."""
    yield 0, reads
    of = pileups.mean_depth(reads, start, end)
    for depth in wanted:
        if depth < of:
            yield depth, pileups.thinned(reads, depth, of, depth)


def _inside(spans: np.ndarray, sure: np.ndarray) -> np.ndarray:
    """Which spans int64 (n, 2) lie in one of the intervals int64 (k, 2), sorted and apart: bool (n,)."""
    at = np.searchsorted(sure[:, 0], spans[:, 0], "right") - 1
    found: np.ndarray = (at >= 0) & (spans[:, 1] <= sure[np.maximum(at, 0), 1])
    return found


def _batches(
    tile: _Tile,
    cohort: str,
    way: tuple[int, int],
    found: pileups.Candidates,
    written: list[tuple[int, str, str]],
    copies: np.ndarray,
    kept: np.ndarray,
) -> tuple[pa.RecordBatch, pa.RecordBatch]:
    (depth, times), count = way, len(kept)
    of = hashlib.sha256(f"{tile.file}\t{tile.sample}".encode()).hexdigest()[:12]
    places = [written[k] for k in kept.tolist()]
    ids = [f"{tile.chrom}:{pos + 1}:{ref}:{alt}:{depth}{f'+{times}' if times else ''}:{of}" for pos, ref, alt in places]
    contig = shared_contig(tile.chrom)
    changes = [found.alleles[k].change for k in kept.tolist()]
    columns = {
        "cohort": [cohort] * count,
        "variant_id": ids,
        "sample_id": [tile.sample] * count,
        "contig": [contig] * count,
        "chrom": [tile.chrom] * count,
        "pos": [pos + 1 for pos, _, _ in places],
        "ref": [ref for _, ref, _ in places],
        "alt": [alt for _, _, alt in places],
        "thinned": [depth] * count,
        "added_errors": [times] * count,
        "depth": found.depth[kept],
        "likelihood": list(found.posterior[kept]),
        "x": packing.column(found.x[kept]),
        "file": [tile.file] * count,
    }
    said = {
        "cohort": columns["cohort"],
        "entity": [VARIANT] * count,
        "entity_id": ids,
        "file": columns["file"],
        "line": [None] * count,
        "label": [str(n) for n in copies[kept].tolist()],
        "sample": columns["sample_id"],
        "type": ["substitution" if not c else "insertion" if c > 0 else "deletion" for c in changes],
        "depth": [str(depth)] * count,
        "added_errors": [str(times)] * count,
        "region": [f"{contig}:{(pos // REGION)}" for pos, _, _ in places],
    }
    return _batch(columns, PILEUPS.arrow_schema()), _batch(said, LABELS.with_columns(_COLUMNS).arrow_schema())


def _batch(columns: Mapping[str, object], schema: pa.Schema) -> pa.RecordBatch:
    made = [
        column if isinstance(column, pa.Array) else pa.array(column, field.type)
        for field, column in ((field, columns[field.name]) for field in schema)
    ]
    return pa.RecordBatch.from_arrays(made, schema=schema)
