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
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genodl_spark.core import storage
from genodl_spark.core.errors import InputError
from genodl_spark.core.session import task_slots
from genodl_spark.features.pileups import NAMES
from genodl_spark.formats import alignment, bgzf
from genodl_spark.formats.vcf import called as vcf_text
from genodl_spark.formats.vcf.assembled import LONGEST_TBI, put_together, target_of
from genodl_spark.formats.vcf.indexed import alleles_within
from genodl_spark.genetics.calling.gap_errors import FITTED_TILES, fitted_gaps, gathered
from genodl_spark.genetics.calling.tile import TILE
from genodl_spark.genome.contigs import shared_contig
from genodl_spark.genome.reference import Reference
from genodl_spark.job.region import Region, parse_region
from genodl_spark.job.run import Run, code_of, fingerprint
from genodl_spark.lake.discarded import discard
from genodl_spark.lake.parts import Part
from genodl_spark.lake.tables.calls import CALLS
from genodl_spark.lake.tables.genomes import ALIGNMENTS
from genodl_spark.lake.tables.learning import MODELS
from genodl_spark.registry.calling import COUNTED, REPORT, Sample, Tile, Work, call_shards, count_gaps, covered
from genodl_spark.registry.models import Chosen, model_of, newest

log = logging.getLogger("genodl")

TASK, ENCODING = "variant_calling", "pileups"
_SHARDS_A_SLOT = 4


def call(
    run: Run, output: str, cohort: str | None, sample: str | None, region: str | None, model: str | None = None
) -> None:
    """Writes the calls of a sample, or of a region of it, to `output` with its index, and to `calls`; together with its
    parents where `call.father` and `call.mother` name them.

    The same reads, reference, settings and code give the same bytes. Rows of `calls` of these samples on the contigs at
    hand are replaced.
    """
    target = target_of(output)
    wanted = None if region is None else parse_region(region)
    run.require_lake()
    version = run.sources.version(ALIGNMENTS)
    among = run.lake.rows(ALIGNMENTS, {}, version, ["cohort"]).column(0).unique().to_pylist()
    name = run.cohort(cohort, among, "alignments")
    samples, reference = _samples(run, name, sample)
    headers, every = _contigs(run, samples, reference)
    contigs = every if wanted is None else _only(every, wanted)
    tiles = _tiles(contigs, wanted)
    if run.settings.call.sites:
        alleles_within(run.settings.call.sites, tiles[0].chrom, 0, 1)
    network = _network(run, model, len(samples))
    digest = _fingerprint(run, name, samples, reference, headers, wanted, network)
    if _there(run, name, samples, digest, target):
        run.report.status = "unchanged"
        run.wrote(CALLS, 0)
        return
    aside = storage.join(posixpath.dirname(target), f".{posixpath.basename(target)}.{uuid.uuid4().hex[:12]}")
    storage.make_directory(aside)
    task = uuid.uuid4().hex[:12]
    new = [] if run.lake.exists(CALLS) else [CALLS]
    run.lake.create(CALLS)
    work = Work(name, samples, reference, run.settings.call, digest, run.lake.path(CALLS), task, aside)
    names = [one.name for one in samples]
    try:
        shards = _shards(tiles, work.asked.shards or _SHARDS_A_SLOT * task_slots(run.spark))
        log.info("calling %s: %d tiles of %d bases in %d shards", ", ".join(names), len(tiles), TILE, len(shards))
        work = replace(work, gaps=_gaps(run, work, every))
        if network is not None:
            work = replace(work, model=network.files, model_id=network.row.model_id)
        spread = run.spark.range(0, len(shards), 1, len(shards))
        found = spread.mapInArrow(partial(call_shards, shards=shards, work=work), _spark_types(REPORT)).collect()
        parts = [Part.from_json(row.part) for row in found if row.part]
        pieces = [row.uri for row in sorted(found, key=lambda row: row.shard) if row.uri]
        text = vcf_text.header(contigs, names, reference, f"genodl call {digest}", work.asked.gvcf)
        size = put_together(text, pieces, aside, target, max(contigs.values()) > LONGEST_TBI)
        where = {"cohort": name, "sample_id": names, "contig": [shared_contig(chrom) for chrom in contigs]}
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


def _network(run: Run, model: str | None, samples: int) -> Chosen | None:
    """The model named, else the newest of the task, where there is one and `call.network` asks for it; the likelihood
    alone judges a family."""
    if samples > 1 or (model is None and not run.settings.call.network):
        if model is not None:
            found = "found a model for a child and its parents"
            raise InputError(f"{found}; expected none: the likelihood alone judges them", "--model")
        return None
    rows = run.lake.rows(MODELS, {"task": TASK})
    if model is not None:
        rows = rows.filter(pc.equal(rows.column("model_id"), model))
        if not rows.num_rows:
            raise InputError(f"found no model {model} of task {TASK}; expected one of genodl list models", "--model")
    if not rows.num_rows:
        run.report.warn(f"no model of task {TASK} is in the lake: the likelihood alone judges")
        return None
    chosen = model_of(run, MODELS.row(newest(rows)))
    if chosen.card.transform != ENCODING or chosen.card.features != NAMES:
        text = f"found model {chosen.row.model_id}, which reads {chosen.card.transform}"
        raise InputError(f"{text}; expected one trained on candidates as they are packed today", "--model")
    return chosen


def _gaps(run: Run, work: Work, contigs: dict[str, int]) -> tuple[np.ndarray, ...]:
    """How often reads of each sample have gaps by error, by tiles all over its file, whatever region is called."""
    tiles = [covered(sample, work.reference, contigs, FITTED_TILES) for sample in work.samples]
    numbers = len(work.samples) * max(map(len, tiles))
    counts = [np.zeros((0, len(COUNTED.names) - 1), np.int64) for _ in work.samples]
    if numbers:
        log.info("fitting how often reads have gaps: %d tiles", sum(map(len, tiles)))
        spread = run.spark.range(0, numbers, 1, min(numbers, task_slots(run.spark)))
        found = spread.mapInArrow(partial(count_gaps, tiles=tiles, work=work), _spark_types(COUNTED)).toArrow()
        columns = np.column_stack([found[name].to_numpy() for name in COUNTED.names])
        counts = [gathered([columns[columns[:, 0] == k, 1:]]) for k in range(len(work.samples))]
    return tuple(fitted_gaps(some) for some in counts)


def _spark_types(schema: pa.Schema) -> str:
    names = {"int32": "int", "int64": "bigint", "string": "string"}
    return ", ".join(f"{field.name} {names[str(field.type)]}" for field in schema)


def _samples(run: Run, cohort: str, sample: str | None) -> tuple[tuple[Sample, ...], str]:
    """The sample, or child, father and mother, and the FASTA that their reads were aligned to."""
    asked = run.settings.call
    rows = run.lake.rows(ALIGNMENTS, {"cohort": cohort}, run.sources.version(ALIGNMENTS)).to_pylist()
    parents = {"call.father": asked.father, "call.mother": asked.mother}
    if any(parents.values()):
        for key, name in parents.items():
            if not name:
                raise InputError(f"found no sample; expected the other parent, too, of {sample or 'the child'}", key)
        for key, off in (("call.gvcf", not asked.gvcf), ("call.sites", not asked.sites)):
            if not off:
                raise InputError("found it with parents; expected a sample alone", key)
    found = [_sample(rows, cohort, sample, "--sample")]
    found += [_sample(rows, cohort, name, key) for key, name in parents.items() if name]
    names = [one.name for one, _ in found]
    if len(set(names)) < len(names):
        raise InputError(f"found {', '.join(names)}; expected three samples", "call.father")
    references = sorted({reference for _, reference in found})
    if len(references) > 1:
        raise InputError(f"found reads aligned to {' and '.join(references)}; expected one reference", "call.father")
    return tuple(one for one, _ in found), references[0]


def _sample(rows: list[dict[str, str]], cohort: str, name: str | None, key: str) -> tuple[Sample, str]:
    """The one file with reads of a sample, and its reference; `key`: of the option that names it."""
    names = sorted({row["sample_id"] for row in rows})
    if name is None and len(names) == 1:
        name = names[0]
    if name not in names:
        found = "no sample" if name is None else f"sample {name!r}"
        known = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
        raise InputError(f"found {found}; expected one that cohort {cohort} has reads of: {known}", key)
    mine = [row for row in rows if row["sample_id"] == name]
    if len(mine) > 1:
        files = ", ".join(sorted(row["file"] for row in mine)[:3])
        raise InputError(f"found reads of {name} in {len(mine)} files ({files}); expected one, merge them", key)
    (row,) = mine
    if row["index"] is None:
        advice = f"samtools index {row['uri']}, and ingest it again"
        raise InputError(f"found no index beside the file; expected one: {advice}", row["uri"])
    if row["reference"] is None:
        raise InputError(
            "found no reference of these reads; expected one: genodl ingest alignments with --reference FASTA",
            row["uri"],
        )
    shared = sum(other["file"] == row["file"] for other in rows) > 1
    return Sample(row["sample_id"], row["uri"], tuple(row["read_groups"]) if shared else ()), row["reference"]


def _contigs(run: Run, samples: Sequence[Sample], path: str) -> tuple[list[alignment.Header], dict[str, int]]:
    """The files' headers, and contigs that reads may lie on and the reference has, with their bases, as the first has
    them. InputError where the reference is that of other reads."""
    reference = Reference(path)
    headers = [alignment.header_of(sample.uri, path) for sample in samples]
    for header in headers:
        alignment.check_reference(header, reference)
    header = headers[0]
    found: dict[str, int] = {}
    lacking = []
    for number, (chrom, length) in enumerate(zip(header.contigs, header.lengths, strict=True)):
        if shared_contig(chrom) in reference.reaches and all(chrom in other.contigs for other in headers[1:]):
            found[chrom] = length
        elif header.counts is None or header.counts[number, 0]:
            lacking.append(chrom)
    if not found:
        raise InputError(f"found {reference.said()}; expected the contigs of {samples[0].uri}", path)
    if lacking:
        shown = ", ".join(lacking[:3]) + (", ..." if len(lacking) > 3 else "")
        run.report.warn(f"{len(lacking)} contigs of the reads are not in the reference and are not called: {shown}")
    return headers, found


def _only(contigs: dict[str, int], wanted: Region) -> dict[str, int]:
    for chrom, length in contigs.items():
        if chrom == wanted.contig or shared_contig(chrom) == shared_contig(wanted.contig):
            return {chrom: length}
    known = ", ".join(list(contigs)[:3])
    raise InputError(f"found contig {wanted.contig!r}; expected one of reads and reference: {known}", "--region")


def _tiles(contigs: dict[str, int], wanted: Region | None) -> list[Tile]:
    found = []
    for chrom, length in contigs.items():
        first = 0 if wanted is None else max(wanted.first - 1, 0)
        last = length if wanted is None else min(wanted.last, length)
        for start in range(first // TILE * TILE, last, TILE):
            found.append(Tile(chrom, max(start, first), min(start + TILE, last), length))
    if not found:
        raise InputError("found no base in it; expected a part of the contig", "--region")
    return found


def _shards(tiles: Sequence[Tile], shards: int) -> list[list[Tile]]:
    """Neighbouring tiles together, in order."""
    bounds = np.linspace(0, len(tiles), min(shards, len(tiles)) + 1).round().astype(int)
    return [list(tiles[a:b]) for a, b in itertools.pairwise(bounds)]


def _fingerprint(
    run: Run,
    cohort: str,
    samples: Sequence[Sample],
    reference: str,
    headers: Sequence[alignment.Header],
    wanted: Region | None,
    network: Chosen | None,
) -> str:
    """Hash of what calls are made from. Files by when and how large they were written: reads are large."""
    asked = run.settings.call.model_dump(exclude={"shards"})
    files = [uri for uri in (*(one.uri for one in samples), reference, run.settings.call.sites) if uri]
    seen = [entry for uri in files for entry in storage.listing(posixpath.dirname(uri)) if entry[0] == uri]
    texts = [hashlib.sha256(header.text.encode()).hexdigest() for header in headers]
    of = [one.__dict__ for one in samples]
    region = None if wanted is None else wanted.text
    judge = None if network is None else [network.row.model_id, network.files.hashes]
    return fingerprint(cohort, of, reference, seen, texts, asked, region, judge, code_of(__name__))[:32]


def _there(run: Run, cohort: str, samples: Sequence[Sample], digest: str, target: str) -> bool:
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
    for sample in samples:
        rows = run.lake.rows(CALLS, {"cohort": cohort, "sample_id": sample.name}, columns=["fingerprint"])
        if digest not in rows.column(0).unique().to_pylist():
            return False
    return True
