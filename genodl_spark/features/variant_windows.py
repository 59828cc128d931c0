"""Features of variants as a sequence model sees them: windows of a reference of the lake, and the same with the other
allele (genodl_spark/genome/variant_windows.py)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from genodl_spark.core import packing, session
from genodl_spark.core.errors import InputError
from genodl_spark.features.protocol import ROW_NAMES, ROWS, Changed, Choice, StoredRows
from genodl_spark.genetics.stored_reference import StoredReference
from genodl_spark.genome import variant_windows
from genodl_spark.genome.consequences import Stretch, Variants
from genodl_spark.lake.files import StoredFile, opened
from genodl_spark.lake.schema import VARIANT, Table
from genodl_spark.lake.tables.genomes import REFERENCE_BASES
from genodl_spark.lake.tables.ingested import VARIANT_EFFECTS, VARIANTS

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from genodl_spark.lake.snapshot import Snapshot

NOTED = f"{ROWS}, note string"
_NAMES = [*ROW_NAMES, "note"]
_SITE = ["contig", "pos", "ref", "alt"]
_SHARE = 1 << 15  # records of a stretch of a contig that are read at once, about
_CUT = 1 << 11  # variants whose windows are cut at once
_SPAN = 1 << 24  # bases of a contig that they stand on, at most


@dataclass(frozen=True)
class VariantWindows:
    """Base codes of two windows for each variant of a cohort, one behind the other: that of the reference, and that
    with the other allele; as many codes each as a sequence model takes. A variant is an ALT of `variants`, called
    chrom:pos:ref:alt as its file has it, or a row of `variant_effects`.

    Rows have a column more, note: why a variant has no windows; then x is NULL.
    `reference`: the cohort whose reference they are cut from; empty for the variants' own, or the only one.
    """

    reference: str = ""
    dtype: str = "int8"
    encoding: str | None = "onehot"
    entity: str = VARIANT

    @property
    def tables(self) -> tuple[Table, ...]:
        return (VARIANTS, VARIANT_EFFECTS, REFERENCE_BASES)

    def cohorts(self, lake: Snapshot) -> list[str]:
        return sorted({*lake.cohorts(VARIANTS), *lake.cohorts(VARIANT_EFFECTS)})

    def reference_of(self, lake: Snapshot, cohort: str) -> str:
        """The cohort whose reference counts. InputError where it has none."""
        return StoredReference.chosen(lake, self.reference, cohort)

    def entities(self, lake: Snapshot, cohort: str) -> list[str]:
        found = _identified(lake, cohort).distinct().toArrow()  # identifiers
        return sorted(found.column("entity_id").to_pylist())

    def choose(self, lake: Snapshot, cohort: str, entities: list[str], learns: np.ndarray) -> Choice:
        raise InputError("found windows of variants to learn from; expected the sequences of a task", "implementation")

    def rows(self, lake: Snapshot, cohort: str, features: list[str]) -> DataFrame:
        return self.some_rows(lake, cohort, features, None)

    def some_rows(self, lake: Snapshot, cohort: str, features: list[str], wanted: Any) -> DataFrame:
        """`rows` of the entities alone that a broadcast holds, of all where it is or holds None."""
        shares = _shares(lake, cohort)
        reference = StoredReference.of(lake, self.reference_of(lake, cohort))
        length = len(features)

        def kernel(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            some = None if wanted is None else wanted.value
            for batch in batches:
                for number in batch.column(0).to_pylist():
                    yield from _packed(_variants(shares[number], some), reference, length)

        # neighbours in one task: its files of scores are then ranges of the genome
        tasks = min(len(shares), 4 * session.task_slots(lake.spark))
        return lake.spark.range(0, len(shares), 1, max(tasks, 1)).mapInArrow(kernel, NOTED)

    def stored(self, lake: Snapshot, cohort: str, features: list[str]) -> StoredRows | None:
        return None

    def changed(self, lake: Snapshot, cohort: str, since: Mapping[str, int]) -> Changed | None:
        other = lake.changed(
            REFERENCE_BASES,
            self.reference_of(lake, cohort),
            since.get(REFERENCE_BASES.name),
            ["name", "first"],
            ["bases"],
        )
        if other is None or not other[0].isEmpty():
            return None
        found = []
        for table, key in (
            (VARIANTS, ["chrom", "pos", "ref", "alts"]),
            (VARIANT_EFFECTS, ["variant_id", "contig", *_SITE[1:]]),
        ):
            if lake.version(table) is None:
                continue
            changed = lake.changed(table, cohort, since.get(table.name), key, [])
            if changed is None:
                return None
            found.append(_of_records(changed[0]) if table is VARIANTS else _of_effects(changed[0]))
        rows = found[0] if len(found) == 1 else found[0].union(found[1])
        return Changed(rows.distinct(), None)


@dataclass(frozen=True)
class Share:
    """Variants of a contig at positions [first, end), and the files that may hold some."""

    contig: str
    first: int
    end: int
    files: tuple[StoredFile, ...]


def _identified(lake: Snapshot, cohort: str) -> DataFrame:
    """entity_id of every variant of a cohort; some stand several times."""
    from pyspark.sql import functions as F

    records = lake.read(VARIANTS, cohort).where(F.col("cohort") == cohort)
    effects = lake.read(VARIANT_EFFECTS, cohort).where(F.col("cohort") == cohort)
    return _of_records(records).union(_of_effects(effects))


def _of_records(rows: DataFrame) -> DataFrame:
    from pyspark.sql import functions as F

    alleles = rows.select("chrom", "pos", "ref", F.explode("alts").alias("alt"))
    return alleles.select(F.concat_ws(":", "chrom", F.col("pos").cast("string"), "ref", "alt").alias("entity_id"))


def _of_effects(rows: DataFrame) -> DataFrame:
    from pyspark.sql import functions as F

    return rows.select(F.col("variant_id").alias("entity_id"))


def _shares(lake: Snapshot, cohort: str) -> list[Share]:
    """Stretches of contigs with about _SHARE records each, in the order of the genome."""
    from pyspark.sql import functions as F

    found: dict[str, list[tuple[int, int, int]]] = {}
    files: dict[str, list[StoredFile]] = {}
    for file in lake.cohort_files(VARIANTS, cohort):
        (low, high), rows = file.ends("pos"), file.statistics.get("numRecords")
        contig = file.partition["contig"]
        found.setdefault(contig, []).append((low or 0, (1 << 40) if high is None else high, rows or 0))
        files.setdefault(contig, []).append(replace(file, statistics={}))
    if measured := [replace(file, statistics={}) for file in lake.cohort_files(VARIANT_EFFECTS, cohort)]:
        stored = lake.read(VARIANT_EFFECTS, cohort).where(F.col("cohort") == cohort).groupBy("contig")
        for row in stored.agg(F.min("pos").alias("low"), F.max("pos").alias("high"), F.count("*").alias("n")).collect():
            found.setdefault(row.contig, []).append((row.low, row.high, row.n))
            files.setdefault(row.contig, []).extend(measured)
    shares = []
    slots = session.task_slots(lake.spark)
    total = sum(n for ends in found.values() for _, _, n in ends)
    size = min(_SHARE, max(total // (4 * slots), 1))
    for contig in sorted(found):
        lows, highs, counts = zip(*found[contig], strict=True)
        low, high = min(lows), max(highs)
        count = max(min(-(-sum(counts) // size), high - low + 1), 1)
        cuts = [low + (high + 1 - low) * i // count for i in range(count + 1)]
        shares += [Share(contig, a, b, tuple(files[contig])) for a, b in pairwise(cuts)]
    return shares


def _variants(share: Share, wanted: pa.Array | None) -> pa.Table:
    """entity_id and _SITE of the distinct variants of a share, in order; of those `wanted`, all for None."""
    schema = pa.schema(
        [("entity_id", pa.string()), *((name, pa.int64() if name == "pos" else pa.string()) for name in _SITE)]
    )
    parts = [schema.empty_table()]
    for file in share.files:
        for batch in _records(file, share):
            rows = pa.table(batch, schema=schema)
            at = rows.column("pos")
            kept = pc.and_(pc.greater_equal(at, share.first), pc.less(at, share.end))
            kept = pc.and_(kept, pc.equal(rows.column("contig"), share.contig))
            if wanted is not None:
                kept = pc.and_(kept, pc.is_in(rows.column("entity_id"), wanted))
            parts.append(rows.filter(kept))
    rows = pa.concat_tables(parts)
    if len(rows):
        rows = rows.group_by(schema.names).aggregate([]).select(schema.names)
    return rows.sort_by([(name, "ascending") for name in ("pos", "ref", "alt", "entity_id")])


def _records(file: StoredFile, share: Share) -> Iterator[list[pa.Array]]:
    """Columns as `_variants` has them, of the groups of rows of a file that may have some of a share."""
    of_table = "contig" not in file.partition
    columns = ["variant_id", *_SITE] if of_table else ["chrom", "pos", "ref", "alts"]

    def may_have(footer: pq.FileMetaData) -> list[int]:
        place = next(i for i in range(footer.num_columns) if footer.schema.column(i).path == "pos")
        ends = [footer.row_group(group).column(place).statistics for group in range(footer.num_row_groups)]
        return [
            group
            for group, end in enumerate(ends)
            if end is None or not end.has_min_max or (end.min < share.end and end.max >= share.first)
        ]

    with opened(file.uri, file.checksum, may_have, columns={*columns, "alts.list.element"}) as stored:
        groups = may_have(stored.metadata)
        for batch in stored.iter_batches(1 << 16, groups, columns, use_threads=False) if groups else ():
            if of_table:
                yield [batch.column(name).cast(pa.int64() if name == "pos" else pa.string()) for name in columns]
                continue
            of, alt = pc.list_parent_indices(batch.column("alts")), batch.column("alts").flatten()
            chrom, pos, ref = (batch.column(name).take(of) for name in ("chrom", "pos", "ref"))
            named = pc.binary_join_element_wise(chrom, pos.cast(pa.string()), ref, alt, ":")
            yield [named, pa.repeat(pa.scalar(share.contig), len(alt)), pos, ref, alt]


def _packed(rows: pa.Table, reference: StoredReference, length: int) -> Iterator[pa.RecordBatch]:
    """Batches of NOTED of variants of one contig in order, with windows of `length` bases."""
    start, positions = 0, rows.column("pos").to_numpy()
    while start < len(rows):
        stop = min(start + _CUT, int(np.searchsorted(positions, positions[start] + _SPAN, "right")))
        block = rows.slice(start, stop - start).combine_chunks()
        x, note = windows_of(block, reference, length)
        yield pa.RecordBatch.from_arrays(
            [block.column("entity_id").combine_chunks(), x, pa.repeat(pa.scalar(0, pa.int32()), len(block)), note],
            _NAMES,
        )
        start = stop


def in_order(rows: pa.Table, reference: StoredReference, length: int) -> Iterator[pa.RecordBatch]:
    """The same of variants of any contigs, in any order, with the columns entity_id and _SITE."""
    for contig in pc.unique(rows.column("contig")):
        mine = rows.filter(pc.equal(rows.column("contig"), contig))
        yield from _packed(mine.sort_by([("pos", "ascending")]), reference, length)


def windows_of(sites: pa.Table, reference: StoredReference, length: int) -> tuple[pa.Array, pa.Array]:
    """Both windows of variants of one contig, rows of _SITE, packed one behind the other, binary (N,), and why others
    have none, string (N,); either is NULL where the other is not."""
    contig, position, ref, alt = (sites.column(name).combine_chunks() for name in _SITE)
    note = variant_windows.unspelled(ref, alt)
    rows = np.flatnonzero(note.is_null().to_numpy(zero_copy_only=False))
    x = np.zeros((0, 2 * length), np.int8)
    if len(rows):
        pos, ref = position.to_numpy()[rows], ref.take(pa.array(rows))
        alt = alt.take(pa.array(rows))
        variants = Variants.of_alleles(pos, ref, pc.if_else(pc.equal(alt, "-"), "", alt))
        sizes = pc.binary_length(ref).to_numpy()
        first, last = variant_windows.reach(variants, length)
        first, last = max(min(first, int(pos.min()) - 1), 0), max(last, int((pos + sizes).max()))
        bases = Stretch(first, reference.codes(contig[0].as_py(), first, last))
        wrong = variant_windows.misplaced(pos, ref, bases)
        sound = wrong.is_null().to_numpy(zero_copy_only=False)
        note = pc.replace_with_mask(note, note.is_null(), wrong)
        x = np.concatenate(variant_windows.windows(variants, bases, length), 1)[sound]
    given = note.is_null().to_numpy(zero_copy_only=False)
    ends = np.concatenate([[0], np.cumsum(given * (2 * length))]).astype(np.int32)
    return packing.binary_array(x.view(np.uint8).reshape(-1), ends, given), note
