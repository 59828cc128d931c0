"""Features of genotypes: copies of an allele at each site, for every sample of a cohort."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from genodl_spark.features.protocol import ROWS, Changed, Choice, StoredRows, batch_of
from genodl_spark.genetics import genotypes
from genodl_spark.genetics.cohort import genotyped, sample_orders
from genodl_spark.genetics.genotype_text import MISSING
from genodl_spark.genome.site import SPELLED, folded
from genodl_spark.lake.schema import PERSON, Table
from genodl_spark.lake.tables.ingested import SAMPLE_SETS, VARIANTS

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import Column, DataFrame

    from genodl_spark.lake.snapshot import Snapshot

SITE = ["chrom", "pos", "ref", "alt"]
_CHUNK = 256  # samples per piece when genotypes are transposed


@dataclass(frozen=True)
class GenotypeFeatures:
    """Copies of each ALT allele in a cohort's variants, 0 to the ploidy.

    A feature's identifier is `chrom:pos:ref:alt` (1-based; chrom without a leading chr, bases in upper case).
    Where a cohort has the same site with REF and ALT exchanged, its copies are counted from the other end.
    Symbolic, breakend and `*` alleles are no features: their identifiers do not say what they are.
    """

    min_allele_frequency: float = 0.0
    max_missing: float = 1.0
    max_features: int = 0
    dtype: str = "int8"
    encoding: str | None = None
    entity: str = PERSON

    @property
    def tables(self) -> tuple[Table, ...]:
        return (VARIANTS, SAMPLE_SETS)

    def cohorts(self, lake: Snapshot) -> list[str]:
        return genotyped(lake)

    def entities(self, lake: Snapshot, cohort: str) -> list[str]:
        return sorted(row.sample_id for row in sample_orders(lake, cohort).select("sample_id").distinct().collect())

    def choose(self, lake: Snapshot, cohort: str, entities: list[str], learns: np.ndarray) -> Choice:
        from pyspark.sql import functions as F

        index = {entity: row for row, entity in enumerate(entities)}
        orders: dict[str, list[tuple[int, str]]] = {}
        for row in sample_orders(lake, cohort).collect():  # identifiers, not genotypes
            orders.setdefault(row.sample_set, []).append((row.position, row.sample_id))
        members = {}  # of each order of samples, those that each training set learns from
        for name, pairs in orders.items():
            rows = np.array([index.get(sample, -1) for _, sample in sorted(pairs)])
            members[name] = learns[:, rows] & (rows >= 0)
        sets, fewest = len(learns), (1 - self.max_missing) * learns.sum(1)
        least = self.min_allele_frequency

        def count(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            for batch in batches:
                counts = np.zeros((batch.num_rows, sets, 3), np.int64)
                for rows, records, samples, sample_set in genotypes.alike(batch):
                    allele = batch.column("allele").take(pa.array(rows)).to_numpy()
                    for s, mine in enumerate(members[sample_set]):
                        counts[rows, s] = genotypes.counts(records.column("gt"), samples, allele, mine)[:, :3]
                ends = pa.array(np.arange(batch.num_rows + 1, dtype=np.int32) * (3 * sets))
                packed = pa.ListArray.from_arrays(ends, pa.array(counts.ravel()))
                yield pa.RecordBatch.from_arrays([*(batch.column(name) for name in SITE), packed], [*SITE, "counts"])

        def judge(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            for batch in batches:
                copies, called, samples = np.moveaxis(
                    batch.column("counts").flatten().to_numpy().reshape(-1, sets, 3), 2, 0
                )
                frequency = copies / np.maximum(called, 1)
                passes = (
                    (copies > 0)
                    & (copies < called)
                    & (np.minimum(frequency, 1 - frequency) >= least)
                    & (samples >= fewest)
                )
                some = pa.array(passes.any(1))
                bits = pa.array([row.tobytes() for row in np.packbits(passes, 1)], pa.binary())
                columns = [batch.column(name) for name in SITE]
                yield pa.RecordBatch.from_arrays([*columns, bits], [*SITE, "passes"]).filter(some)

        site = "chrom string, pos bigint, ref string, alt string"
        counted = spelled_alleles(lake, cohort).mapInArrow(count, f"{site}, counts array<bigint>").groupBy(*SITE)
        sums = counted.agg(F.array(*(F.sum(F.col("counts")[i]) for i in range(3 * sets))).alias("counts"))
        passed = sums.mapInArrow(judge, f"{site}, passes binary").persist()
        try:
            sites, allowed = self._thinned(passed, sets)
        finally:
            passed.unpersist()
        order = sorted(range(len(sites)), key=sites.__getitem__)
        return Choice.of([":".join(map(str, sites[i])) for i in order], allowed[:, order])

    def _thinned(self, passed: DataFrame, sets: int) -> tuple[list[tuple[str, int, str, str]], np.ndarray]:
        """Sites and, bool (sets, sites), which sets may use them: of those that pass in a set the first `max_features`
        by a hash of the site, so that sets which pass nearly the same sites use nearly the same."""
        from pyspark.sql import functions as F

        most, total = self.max_features, passed.count()
        taken = min(2 * most, total) if most else total
        while True:
            rows = passed.orderBy(F.xxhash64(*SITE), *SITE).limit(taken).collect()
            packed = np.frombuffer(b"".join(bytes(row.passes) for row in rows), np.uint8).reshape(len(rows), -1)
            allowed = np.unpackbits(packed, axis=1, count=sets).astype(bool).T
            if most:
                allowed &= np.cumsum(allowed, 1) <= most
            if taken == total or (allowed.sum(1) >= most).all():
                return [(row.chrom, row.pos, row.ref, row.alt) for row in rows], allowed
            taken = min(2 * taken, total)

    def rows(self, lake: Snapshot, cohort: str, features: list[str]) -> DataFrame:
        from pyspark.sql import functions as F

        width = len(features)
        wanted = [(*_site_of(name), i, False) for i, name in enumerate(features)]
        wanted += [(chrom, pos, alt, ref, i, True) for chrom, pos, ref, alt, i, _ in wanted]
        schema = "chrom string, pos bigint, ref string, alt string, feature int, exchanged boolean"
        sites = F.broadcast(lake.spark.createDataFrame(wanted, schema))
        alleles = spelled_alleles(lake, cohort).join(sites, SITE)
        columns = ["sample_set", "n_samples", "gt", "allele", "feature", "exchanged"]
        pieces = alleles.select(*columns).mapInArrow(
            _transpose, "sample_set string, chunk int, features binary, payload binary"
        )
        sets = sample_orders(lake, cohort)
        chunks = pieces.groupBy("sample_set", "chunk").applyInPandas(
            _assembler(width), "sample_set string, position int, x binary, covered binary"
        )
        by_sample = sets.join(chunks, ["sample_set", "position"], "left").groupBy(F.col("sample_id").alias("entity_id"))
        rows = by_sample.agg(F.collect_list(F.struct("x", "covered")).alias("parts"))

        def kernel(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            for batch in batches:
                x = np.full((batch.num_rows, width), MISSING, np.int8)
                covered = np.zeros((batch.num_rows, width), bool)
                for row, parts in enumerate(batch.column("parts").to_pylist()):
                    for part in parts:  # a sample in several call sets: what was called in any of them
                        if part["x"] is not None:
                            np.maximum(x[row], np.frombuffer(part["x"], np.int8), out=x[row])
                            covered[row] |= np.unpackbits(np.frombuffer(part["covered"], np.uint8), count=width).astype(
                                bool
                            )
                yield batch_of(batch.column("entity_id"), x, (~covered).sum(1))

        return rows.mapInArrow(kernel, ROWS)

    def stored(self, lake: Snapshot, cohort: str, features: list[str]) -> StoredRows | None:
        return None

    def changed(self, lake: Snapshot, cohort: str, since: Mapping[str, int]) -> Changed | None:
        """A record changes what is known of all its samples."""
        from pyspark.sql import functions as F

        found = lake.changed(
            VARIANTS,
            cohort,
            since.get(VARIANTS.name),
            [name for name in VARIANTS.key if name != "cohort"],
            ["contig", "pos", "ref", "alts", "gt", "sample_set"],
        )
        if found is None:
            return None
        sets = found[0].select("sample_set").distinct()
        rows = lake.read(SAMPLE_SETS).join(sets, "sample_set", "left_semi")
        return Changed(rows.select(F.col("sample_id").alias("entity_id")).distinct(), None)


def spelled_alleles(lake: Snapshot, cohort: str) -> DataFrame:
    """One row per record with genotypes and ALT allele that is all bases: SITE, `allele` (its number in the calls),
    sample_set, n_samples, gt."""
    from pyspark.sql import functions as F

    rows = lake.read(VARIANTS, cohort).where((F.col("cohort") == cohort) & F.col("gt").isNotNull())
    alts = F.posexplode("alts").alias("place", "alt")
    rows = rows.select("contig", "pos", "ref", "sample_set", "n_samples", "gt", alts)
    rows = rows.where(F.col("alt").rlike(f"^{SPELLED}$")).withColumn("allele", F.col("place") + 1)
    return rows.select(*site_columns(), "allele", "sample_set", "n_samples", "gt")


def site_columns() -> list[Column]:
    """SITE of rows with contig, pos, ref and alt, as features call it: bases as `folded` has them."""
    from pyspark.sql import functions as F

    chrom = F.regexp_replace("contig", "^(?i:chr)", "")
    named = F.when(chrom == "M", "MT").otherwise(chrom).alias("chrom")
    return [named, F.col("pos"), F.upper("ref").alias("ref"), F.upper("alt").alias("alt")]


def _site_of(feature: str) -> tuple[str, int, str, str]:
    chrom, pos, ref, alt = feature.rsplit(":", 3)
    return chrom, int(pos), folded(ref), folded(alt)


def _transpose(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Variant-major records to pieces of (samples of one chunk, features of one batch),
    copies of the allele as int8."""
    for batch in batches:
        allele = batch.column("allele").to_numpy()
        feature = batch.column("feature").to_numpy().astype(np.int32)
        exchanged = np.array(batch.column("exchanged").to_pylist(), bool)
        pieces: list[tuple[str, int, bytes, bytes]] = []
        for rows, records, samples, sample_set in genotypes.alike(batch):
            copies = genotypes.dosages(records.column("gt"), samples, allele[rows], exchanged[rows])
            for chunk, start in enumerate(range(0, copies.shape[1], _CHUNK)):
                pieces.append(
                    (
                        sample_set,
                        chunk,
                        feature[rows].tobytes(),
                        np.ascontiguousarray(copies[:, start : start + _CHUNK].T).tobytes(),
                    )
                )
        types = [pa.string(), pa.int32(), pa.binary(), pa.binary()]
        columns = [pa.array([p[i] for p in pieces], t) for i, t in enumerate(types)]
        yield pa.RecordBatch.from_arrays(columns, ["sample_set", "chunk", "features", "payload"])


def _assembler(width: int) -> Any:
    def assemble(pieces: pd.DataFrame) -> pd.DataFrame:
        import pandas as pd

        parts = [
            (np.frombuffer(f, np.int32), np.frombuffer(p, np.int8))
            for f, p in sorted(zip(pieces["features"], pieces["payload"], strict=True))
        ]
        samples = parts[0][1].size // parts[0][0].size
        x = np.full((samples, width), MISSING, np.int8)
        covered = np.zeros(width, bool)
        for features, payload in parts:
            values = payload.reshape(samples, features.size)
            # A site that stands in several records: one by one, the call wins over the missing one.
            for columns in distinct(features):
                x[:, features[columns]] = np.maximum(x[:, features[columns]], values[:, columns])
            covered[features] = True
        start = int(pieces["chunk"].iloc[0]) * _CHUNK
        return pd.DataFrame(
            {
                "sample_set": pieces["sample_set"].iloc[0],
                "position": np.arange(start, start + samples, dtype=np.int32),
                "x": [row.tobytes() for row in x],
                "covered": np.packbits(covered).tobytes(),
            }
        )

    return assemble


def distinct(values: np.ndarray) -> Iterator[np.ndarray]:
    """Positions of `values` in as few groups as have no value twice."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    occurrence = np.arange(len(values)) - np.searchsorted(ordered, ordered)
    for times in range(int(occurrence.max(initial=-1)) + 1):
        yield order[occurrence == times]
