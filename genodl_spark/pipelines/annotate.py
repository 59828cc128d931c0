"""Consequences of a cohort's variants, against an ingested annotation and reference, as a table."""

from __future__ import annotations

import json
import uuid
from collections import Counter
from dataclasses import replace
from functools import partial
from itertools import islice

import pyarrow as pa
import pyarrow.parquet as pq

from genodl_spark.core.errors import InputError
from genodl_spark.genetics.annotation import Against, write_consequences
from genodl_spark.job.run import Run, code_of, fingerprint
from genodl_spark.lake.discarded import discard
from genodl_spark.lake.files import StoredFile, opened
from genodl_spark.lake.parts import Part
from genodl_spark.lake.schema import Table
from genodl_spark.lake.tables.consequences import CONSEQUENCES
from genodl_spark.lake.tables.genomes import ANNOTATIONS, REFERENCE_BASES
from genodl_spark.lake.tables.ingested import VARIANT_EFFECTS, VARIANTS

_OF = (VARIANTS, VARIANT_EFFECTS)
_SHOWN = 3  # names of a side in a message


def annotate(run: Run, cohort: str | None) -> None:
    """Writes the rows of a cohort, unless they are there for these variants, annotation, reference and code.

    InputError, and nothing written, where no variant lies near a transcript, or most have another REF than the
    reference.
    """
    run.require_lake()
    sources = run.sources
    having = {one for table in _OF for one in sources.cohorts(table)}
    name = run.cohort(cohort, sorted(having), "variants")
    annotation = _chosen(run, ANNOTATIONS, run.settings.annotation, "annotation")
    reference = _chosen(run, REFERENCE_BASES, run.settings.reference or annotation, "reference")
    files = {table.name: sources.cohort_files(table, of) for table, of in (
        *((table, name) for table in _OF), (ANNOTATIONS, annotation), (REFERENCE_BASES, reference))}  # fmt: skip
    paths = [sorted(file.path for file in some) for some in files.values()]
    digest = fingerprint(name, annotation, reference, paths, code_of(__name__))
    before = sources.cohort_files(CONSEQUENCES, name)
    if before and all(file.ends("fingerprint") == (digest, digest) for file in before):
        run.report.status = "unchanged"
        run.wrote(CONSEQUENCES, 0)
        return
    plain = {key: [replace(file, statistics={}) for file in some] for key, some in files.items()}
    variants = [file for table in _OF for file in plain[table.name]]
    shares: dict[str, list[StoredFile]] = {}
    for file in variants:
        contigs = [file.partition["contig"]] if "contig" in file.partition else list(_names([file]))
        for contig in contigs:
            shares.setdefault(contig, []).append(file)
    sides = _names(variants), _names(plain[ANNOTATIONS.name])
    _tell_names(run, *sides)
    task = uuid.uuid4().hex[:12]
    new = [] if run.lake.exists(CONSEQUENCES) else [CONSEQUENCES]
    run.lake.create(CONSEQUENCES)
    work = partial(
        write_consequences,
        shares=list(shares.items()),
        cohort=name,
        against=Against(annotation, plain[ANNOTATIONS.name], plain[REFERENCE_BASES.name], digest),
        target=run.lake.path(CONSEQUENCES),
        name=task,
    )
    try:
        spread = run.spark.range(0, len(shares), 1, len(shares))
        rows = spread.mapInArrow(work, "part string, counts string").collect()
        counts: Counter[str] = Counter()
        for row in rows:
            counts.update(json.loads(row.counts or "{}"))
        _check(run, counts, sides)
    except BaseException:
        discard(run.lake, run.run_id, [CONSEQUENCES], task, new)
        raise
    parts = [Part.from_json(row.part) for row in rows if row.part]
    run.lake.commit(CONSEQUENCES, parts, {"cohort": name})
    run.wrote(CONSEQUENCES, sum(part.rows for part in parts))
    run.report.metrics.update(counts)


def _chosen(run: Run, table: Table, named: str, key: str) -> str:
    among = run.sources.cohorts(table)
    if named in among:
        return named
    if len(among) == 1 and not getattr(run.settings, key):
        return among[0]
    found = f"found {named or 'no name'} among {', '.join(among[:5]) or 'none'}"
    raise InputError(f"{found}; expected one that has {table.name}: genodl {table.made_by}, or --set {key}=NAME", key)


def _names(files: list[StoredFile]) -> dict[str, str]:
    """Contigs as the files have them, by the names that cohorts share. Of files of one contig, as those of `variants`
    are, the first row of the first file tells it."""
    found: dict[str, str] = {}
    for file in files:
        contig = file.partition.get("contig")
        if contig in found:
            continue
        if contig is not None:
            with opened(file.uri, file.checksum, _first_group) as stored:
                batches = stored.iter_batches(1, _first_group(stored.metadata), ["chrom"], use_threads=False)
                for batch in islice(batches, 1):
                    found[contig] = batch.column("chrom")[0].as_py()
            continue
        with opened(file.uri, file.checksum) as stored:
            for batch in stored.iter_batches(1 << 16, columns=["contig", "chrom"], use_threads=False):
                for row in pa.Table.from_batches([batch]).group_by(["contig", "chrom"]).aggregate([]).to_pylist():
                    found.setdefault(row["contig"], row["chrom"])
    return found


def _first_group(footer: pq.FileMetaData) -> list[int]:
    return [0] if footer.num_row_groups else []


def _tell_names(run: Run, variants: dict[str, str], annotation: dict[str, str]) -> None:
    other = [name for name in variants if name in annotation and variants[name] != annotation[name]]
    if other:
        one = other[0]
        pair = f"{variants[one]} in the VCF, {annotation[one]} in the annotation"
        run.report.warn(f"{len(other)} contigs have another name on each side, such as {pair}: they are read as one")
    lacking = [variants[name] for name in variants if name not in annotation]
    if lacking and len(lacking) < len(variants):
        run.report.warn(
            f"{len(lacking)} contigs have no transcripts, such as {lacking[0]}: variants there are intergenic"
        )


def _check(run: Run, counts: Counter[str], sides: tuple[dict[str, str], dict[str, str]]) -> None:
    shown = [", ".join(list(side.values())[:_SHOWN]) + (" .." if len(side) > _SHOWN else "") for side in sides]
    if not counts["near"]:
        found = f"found none of {counts['alleles']} variants near a transcript: contigs are {shown[0]} in the VCF, "
        raise InputError(f"{found}{shown[1]} in the annotation; expected those of one genome build", "annotation")
    if counts["differ"] * 2 > counts["compared"]:
        found = f"found another base in the reference for {counts['differ']} of {counts['compared']} variants"
        raise InputError(f"{found}; expected the genome build of the variants", "reference")
    if not counts["compared"] and counts["alleles"] > counts["symbolic"]:
        run.report.warn("the reference has none of the variants' bases: what they do to codons is not known")
    if counts["differ"]:
        run.report.warn(f"{counts['differ']} variants have another REF than the reference, whose base counts")
    if counts["symbolic"]:
        unclear = f"; {counts['unclear']} of them do not say what they change" if counts["unclear"] else ""
        run.report.warn(f"{counts['symbolic']} alleles are not spelled in bases: they have terms by place{unclear}")
    if counts["none"]:
        run.report.warn(f"{counts['none']} alleles are no change (*, <*>, <NON_REF>, REF once more): they have no rows")
