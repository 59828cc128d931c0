"""Consequences of a cohort's variants, in tasks: files of `variants` and `variant_effects`, `annotations` and
`reference_bases` to files of `consequences`, a stretch of a contig after the other. Loops go over contigs and blocks,
not over records."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genodl_spark.genome import structural
from genodl_spark.genome.bases import base_codes, single_bases
from genodl_spark.genome.codons import code_of
from genodl_spark.genome.consequences import NEARBY, Stretch, Variants, consequences
from genodl_spark.genome.transcripts import Transcripts, of_features
from genodl_spark.lake.files import StoredFile, opened, rows_of
from genodl_spark.lake.parts import PartWriter
from genodl_spark.lake.tables.consequences import CONSEQUENCES
from genodl_spark.lake.tables.genomes import ANNOTATIONS

_BLOCK = 1 << 16  # variants at once
_LONG = 1 << 9  # of those that may each reach over all transcripts of a contig
_SITE = ["pos", "ref", "alt"]
_FEATURES = [
    *("type", "start", "end", "strand", "phase", "gene_id", "gene_name", "transcript_id", "transcript_version"),
    *("protein_id", "transcript_biotype", "tags"),
]


@dataclass(frozen=True)
class Against:
    """What variants are annotated against: files with rows of the annotation's and the reference's cohort."""

    annotation: str
    annotations: list[StoredFile]
    bases: list[StoredFile]
    fingerprint: str


def write_consequences(
    batches: Iterable[pa.RecordBatch],
    shares: list[tuple[str, list[StoredFile]]],
    cohort: str,
    against: Against,
    target: str,
    name: str,
) -> Iterator[pa.RecordBatch]:
    """For mapInArrow over indices into `shares`, a contig and files with its variants: writes their rows of
    CONSEQUENCES.

    Gives the files written, and counts as JSON: alleles; those near a transcript (`near`), on no transcript's contig
    (`apart`), not spelled in bases (`symbolic`), of these such that do not say what they change (`unclear`); REF
    compared with the reference (`compared`), other there (`differ`). Beside them, alleles that are no change (`none`).
    """
    for index in (i for batch in batches for i in batch.column(0).to_pylist()):
        writer = PartWriter(CONSEQUENCES, target, f"{name}-{index:05d}")
        counts: Counter[str] = Counter()
        contig, files = shares[index]
        for made in _rows(files, contig, against, counts):
            fixed = {"cohort": cohort, "contig": contig, "annotation": against.annotation}
            fixed["fingerprint"] = against.fingerprint
            columns = [
                pa.repeat(pa.scalar(fixed[f.name]), made.num_rows) if f.name in fixed else made[f.name]
                for f in CONSEQUENCES.arrow_schema()
            ]
            rows = pa.table(columns, names=CONSEQUENCES.column_names).cast(CONSEQUENCES.arrow_schema())
            for batch in rows.combine_chunks().to_batches():
                writer.write(batch)
        parts = [part.as_json() for part in writer.close()]
        yield pa.RecordBatch.from_arrays(
            [pa.array([*parts, None], pa.string()), pa.array([None] * len(parts) + [json.dumps(counts)], pa.string())],
            ["part", "counts"],
        )


def _rows(files: list[StoredFile], contig: str, against: Against, counts: Counter[str]) -> Iterator[pa.Table]:
    alleles, others = _alleles(files, contig, counts)
    count = alleles.num_rows + others.num_rows
    counts["alleles"] += count
    if not count:
        return
    features = [batch for file in against.annotations for batch in rows_of(file, _FEATURES, "contig", contig)]
    schema = pa.schema([ANNOTATIONS.arrow_schema().field(name) for name in _FEATURES])
    transcripts = of_features(pa.Table.from_batches(features).cast(schema) if features else schema.empty_table())
    counts["apart"] += 0 if len(transcripts) else count
    code = code_of(contig)
    for start in range(0, others.num_rows, _LONG):
        block = others.slice(start, _LONG).combine_chunks()
        yield _by_place(block, transcripts, code, counts)
    if not alleles.num_rows:
        return
    bases = _bases(against.bases, contig, _span(alleles, transcripts))
    for start in range(0, alleles.num_rows, _BLOCK):
        block = alleles.slice(start, _BLOCK).combine_chunks()
        pos, ref, alt = (block[name].combine_chunks() for name in _SITE)
        variants = Variants.of_alleles(pos.to_numpy(), ref, pc.if_else(pc.equal(alt, "-"), "", alt))
        first, last = _span(block, None)
        found = consequences(variants, transcripts.between(first - NEARBY, last + NEARBY), bases, code)
        _compare(pos.to_numpy(), ref, bases, counts)
        yield _sited(found, block, counts)


def _by_place(block: pa.Table, transcripts: Transcripts, code: np.ndarray, counts: Counter[str]) -> pa.Table:
    """Rows of alleles that are not spelled in bases; what is not known of them is in `note`."""
    position, end, kind = (block[name].to_numpy() for name in ("pos", "end", "kind"))
    start, last, kind, note = structural.placed(position, end, block["alt"], kind)
    counts["symbolic"] += block.num_rows
    counts["unclear"] += int((kind == structural.UNKNOWN).sum())
    variants = Variants.of_stretches(start, last, kind)
    near = transcripts.between(int(start.min()) - NEARBY, int(last.max()) + NEARBY)
    found = consequences(variants, near, Stretch(0, np.zeros(0, np.int8)), code)
    return _sited(found, block.append_column("note", note), counts)


def _sited(found: pa.Table, block: pa.Table, counts: Counter[str]) -> pa.Table:
    """Consequences with what `block` has of their variants."""
    counts["near"] += int(pc.sum(pc.and_(found["picked"], found["transcript_id"].is_valid())).as_py() or 0)
    place = found.column_names.index("transcript_id")
    found = found.set_column(place, "transcript_id", pc.fill_null(found["transcript_id"], ""))
    of = found["variant"].combine_chunks()
    for name in (*_SITE, "end", "note"):
        known = name in block.column_names
        found = found.append_column(name, block[name].take(of) if known else _NOTHING[name](len(of)))
    return found


_NOTHING = {name: partial(pa.nulls, type=kind) for name, kind in (("end", pa.int64()), ("note", pa.string()))}


def _alleles(files: list[StoredFile], contig: str, counts: Counter[str]) -> tuple[pa.Table, pa.Table]:
    """Distinct POS, REF and ALT of the files, in order, of alleles that are spelled in bases; and those that are not,
    with the last base of their record, `end`, and their `kind`."""
    schema = pa.schema([("pos", pa.int64()), ("ref", pa.string()), ("alt", pa.string())])
    wider = schema.append(pa.field("end", pa.int64())).append(pa.field("kind", pa.int8()))
    spelled, others = [schema.empty_table()], [wider.empty_table()]
    for file in files:
        for pos, ref, alt, end in _records(file, contig):
            kind = structural.kinds(ref, alt)
            rows = pa.table([pos, ref, alt, end, pa.array(kind)], schema=wider)
            plain, none = kind == structural.SPELLED, kind == structural.NONE
            counts["none"] += int(none.sum())
            spelled.append(rows.select(_SITE).filter(pa.array(plain)))
            others.append(rows.filter(pa.array(~plain & ~none)))
    return _distinct(pa.concat_tables(spelled)), _distinct(pa.concat_tables(others))


def _records(file: StoredFile, contig: str) -> Iterator[tuple[pa.Array, ...]]:
    """POS, REF, ALT and the last base, an element for each ALT allele."""
    if "contig" not in file.partition:  # of `variant_effects`
        for batch in rows_of(file, _SITE, "contig", contig):
            pos, ref, alt = (batch.column(name) for name in _SITE)
            yield pos, ref, alt, pc.subtract(pc.add(pos, pc.binary_length(ref).cast(pa.int64())), 1)
        return
    with opened(file.uri, file.checksum) as stored:
        for batch in stored.iter_batches(1 << 16, columns=["pos", "ref", "alts", "end"], use_threads=False):
            of, alt = pc.list_parent_indices(batch.column("alts")), batch.column("alts").flatten()
            pos, ref, end = (batch.column(name).take(of) for name in ("pos", "ref", "end"))
            yield pos, ref, alt, end


def _distinct(rows: pa.Table) -> pa.Table:
    found = rows.group_by(rows.column_names).aggregate([]).select(rows.column_names)
    return found.take(pc.sort_indices(found, [(name, "ascending") for name in found.column_names]))


def _span(alleles: pa.Table, transcripts: Transcripts | None) -> tuple[int, int]:
    """From where to where, 0-based, half open, the alleles reach; with `transcripts`, those near them as well."""
    pos = alleles["pos"].to_numpy()
    size = pc.binary_length(alleles["ref"]).to_numpy()
    first, last = int(pos.min()) - 1, int((pos + size).max())
    if transcripts is not None:
        near = transcripts.between(first - NEARBY, last + NEARBY)
        if len(near):
            first, last = min(first, int(near.start.min())), max(last, int(near.end.max()))
    return max(first, 0), last


def _bases(files: list[StoredFile], contig: str, span: tuple[int, int]) -> Stretch:
    first, last = span
    codes = np.full(last - first, -1, np.int8)
    for file in files:
        for batch in rows_of(file, ["first", "bases"], "contig", contig):
            for start, text in zip(batch.column(0).to_numpy() - 1, batch.column(1), strict=True):
                a, b = max(first, int(start)), min(last, int(start) + len(text.as_buffer()))
                if a < b:
                    letters = np.frombuffer(text.as_buffer(), np.uint8)[a - start : b - start]
                    codes[a - first : b - first] = base_codes(letters)
    return Stretch(first, codes)


def _compare(pos: np.ndarray, ref: pa.Array, bases: Stretch, counts: Counter[str]) -> None:
    """Counts alleles whose first base of REF is another one in the reference."""
    letters = pc.binary_slice(ref.cast(pa.binary()), 0, 1).cast(pa.string())
    codes = single_bases(pc.utf8_upper(letters))
    there = bases.at(pos - 1)
    known = (codes >= 0) & (there >= 0)
    counts["compared"] += int(known.sum())
    counts["differ"] += int((known & (codes != there)).sum())
