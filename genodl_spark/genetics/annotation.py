"""Consequences of a cohort's variants, in tasks: files of `variants`, `annotations` and `reference_bases` to files of
`consequences`, a stretch of a contig after the other. Loops go over contigs and blocks, not over records."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genodl_spark.genome.bases import base_codes
from genodl_spark.genome.codons import code_of
from genodl_spark.genome.consequences import NEARBY, Stretch, Variants, consequences
from genodl_spark.genome.transcripts import Transcripts, of_features
from genodl_spark.lake.files import StoredFile, opened, rows_of
from genodl_spark.lake.parts import PartWriter
from genodl_spark.lake.tables.consequences import CONSEQUENCES
from genodl_spark.lake.tables.genomes import ANNOTATIONS
from genodl_spark.lake.tables.ingested import VARIANTS

_BLOCK = 1 << 16  # variants at once
_SITE = ["pos", "ref", "alt"]
_SPELLED = "^[ACGTNacgtn]+$"
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
    shares: list[list[StoredFile]],
    cohort: str,
    against: Against,
    target: str,
    name: str,
) -> Iterator[pa.RecordBatch]:
    """For mapInArrow over indices into `shares`, files of one contig each: writes their rows of CONSEQUENCES.

    Gives the files written, and counts as JSON: alleles; those near a transcript (`near`), on no transcript's contig
    (`apart`), not spelled in bases (`symbolic`); REF compared with the reference (`compared`), other there (`differ`).
    """
    for index in (i for batch in batches for i in batch.column(0).to_pylist()):
        writer = PartWriter(CONSEQUENCES, target, f"{name}-{index:05d}")
        counts: Counter[str] = Counter()
        contig = shares[index][0].partition["contig"]
        for made in _rows(shares[index], contig, against, counts):
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
    alleles = _alleles(files, counts)
    counts["alleles"] += alleles.num_rows
    if not alleles.num_rows:
        return
    features = [batch for file in against.annotations for batch in rows_of(file, _FEATURES, "contig", contig)]
    schema = pa.schema([ANNOTATIONS.arrow_schema().field(name) for name in _FEATURES])
    transcripts = of_features(pa.Table.from_batches(features).cast(schema) if features else schema.empty_table())
    counts["apart"] += 0 if len(transcripts) else alleles.num_rows
    bases = _bases(against.bases, contig, _span(alleles, transcripts))
    for start in range(0, alleles.num_rows, _BLOCK):
        block = alleles.slice(start, _BLOCK).combine_chunks()
        pos, ref, alt = (block[name].combine_chunks() for name in _SITE)
        variants = Variants.of_alleles(pos.to_numpy(), ref, alt)
        first, last = _span(block, None)
        found = consequences(variants, transcripts.between(first - NEARBY, last + NEARBY), bases, code_of(contig))
        counts["near"] += int(pc.sum(pc.and_(found["picked"], found["transcript_id"].is_valid())).as_py() or 0)
        _compare(pos.to_numpy(), ref, bases, counts)
        found = found.set_column(
            found.column_names.index("transcript_id"), "transcript_id", pc.fill_null(found["transcript_id"], "")
        )
        for name, column in (("pos", pos), ("ref", ref), ("alt", alt)):
            found = found.append_column(name, column.take(found["variant"].combine_chunks()))
        yield found


def _alleles(files: list[StoredFile], counts: Counter[str]) -> pa.Table:
    """Distinct POS, REF and ALT of the files, in order, of alleles that are spelled in bases."""
    made = [pa.table({field: pa.array([], VARIANTS.arrow_schema().field(of).type if of != "alts" else pa.string())
                      for field, of in (("pos", "pos"), ("ref", "ref"), ("alt", "alts"))})]  # fmt: skip
    for file in files:
        with opened(file.uri, file.checksum) as stored:
            for batch in stored.iter_batches(1 << 16, columns=["pos", "ref", "alts"], use_threads=False):
                of, alt = pc.list_parent_indices(batch.column("alts")), batch.column("alts").flatten()
                rows = pa.table({"pos": batch.column("pos").take(of), "ref": batch.column("ref").take(of), "alt": alt})
                spelled = pc.and_(
                    pc.match_substring_regex(rows["alt"], _SPELLED), pc.match_substring_regex(rows["ref"], _SPELLED)
                )
                changes = pc.and_(spelled, pc.not_equal(pc.utf8_upper(rows["ref"]), pc.utf8_upper(rows["alt"])))
                kept = rows.filter(changes)
                counts["symbolic"] += rows.num_rows - kept.num_rows
                made.append(kept)
    rows = pa.concat_tables(made).group_by(_SITE).aggregate([]).select(_SITE)
    return rows.take(pc.sort_indices(rows, [(name, "ascending") for name in _SITE]))


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
    codes = pc.fill_null(pc.index_in(pc.utf8_upper(letters), pa.array(list("ACGT"))), -1).to_numpy()
    there = bases.at(pos - 1)
    known = (codes >= 0) & (there >= 0)
    counts["compared"] += int(known.sum())
    counts["differ"] += int((known & (codes != there)).sum())
