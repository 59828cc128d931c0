"""Sample-major features of a cohort, out of the lake's tables: packed matrices, genotypes, sequences, and covariates.

Each kind of feature answers the same two questions: which features a cohort has (`choose`), and what their values are for
each entity, in a given order (`rows`). Preparing a dataset asks both; scoring asks the second, with the model's features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genodl_spark.core import packing
from genodl_spark.core.errors import InputError
from genodl_spark.core.text_values import known, number, shown
from genodl_spark.genetics import genotypes
from genodl_spark.genetics.genotype_text import MISSING
from genodl_spark.genome import bases
from genodl_spark.genome.site import SPELLED, folded
from genodl_spark.lake.files import StoredFile, rows_of
from genodl_spark.lake.tables import FEATURES, SAMPLE_SETS, SAMPLES, SEQUENCES, VARIANTS, Table, identifier
from genodl_spark.learning import scaling

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import DataFrame

    from genodl_spark.lake.delta import Snapshot

Kernel = Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]
ROWS = "entity_id string, x binary, missing int"
_ROW_TYPES = pa.schema([("entity_id", pa.string()), ("x", pa.binary()), ("missing", pa.int32())])
ROW_NAMES = _ROW_TYPES.names
COVARIATE = "covariate:"
POSITION = "position:"
_SITE = ["chrom", "pos", "ref", "alt"]
_PACKED = 64 << 20  # bytes of rows in one Arrow batch
_CHUNK = 256  # samples per piece when genotypes are transposed


@dataclass(frozen=True)
class Stored:
    """Where every row holds all that one entity's features are made of: the files, the columns to read, that of the entity first, and the
    kernel that makes batches of ROWS of them."""

    files: list[StoredFile]
    columns: list[str]
    pack: Kernel

    def of(self, entity: str) -> pa.Table:
        """ROWS of one entity; of the files that may hold it, only the groups of rows that do are read whole. FileNotFoundError when one is gone."""
        key = self.columns[0]
        files = [file for file in self.files if file.may_hold(key, [entity])]
        found = self.pack(batch for file in files for batch in rows_of(file, self.columns, key, entity))
        return pa.Table.from_batches(batches := list(found), batches[0].schema if batches else _ROW_TYPES)


@dataclass(frozen=True)
class Changed:
    """What has come, changed or gone since earlier versions: `entities` (entity_id, each once), and the files in which those that have
    come or changed stand, as far as `Features.stored` has such files; None where it has none."""

    entities: DataFrame
    files: list[StoredFile] | None


@dataclass(frozen=True)
class Choice:
    """Features to use, in order. `allowed` bool (S, F): which of them each training set may use, by its own rows; None where each may use all."""

    names: list[str]
    allowed: np.ndarray | None = None

    @classmethod
    def of(cls, names: Sequence[str], allowed: np.ndarray) -> Choice:
        """Those of `names` that any training set may use."""
        some = allowed.any(0)
        kept = allowed[:, some]
        return cls([name for name, is_kept in zip(names, some, strict=True) if is_kept], None if kept.all() else kept)


class Features(Protocol):
    """Features of one kind. `dtype` of the packed values: int8 with -1 missing, or float32 with NaN missing.

    `encoding`: how networks take them (`transform` of a dataset) where the values alone do not decide: onehot for base codes; else None.
    """

    @property
    def dtype(self) -> str: ...

    @property
    def encoding(self) -> str | None: ...

    @property
    def tables(self) -> tuple[Table, ...]: ...

    def cohorts(self, lake: Snapshot) -> list[str]:
        """Cohorts that have such features, sorted."""

    def entities(self, lake: Snapshot, cohort: str) -> list[str]:
        """Identifiers of the samples that have such features, sorted."""

    def choose(self, lake: Snapshot, cohort: str, entities: list[str], learns: np.ndarray) -> Choice:
        """Features that training sets may use. `learns` bool (S, entities): the rows that each set learns from, over which alone it judges."""

    def rows(self, lake: Snapshot, cohort: str, features: list[str]) -> DataFrame:
        """One row per sample: entity_id string, x binary (packed in the order of `features`), missing int (features that the cohort lacks)."""

    def stored(self, lake: Snapshot, cohort: str, features: list[str]) -> Stored | None:
        """What `rows` reads, where every stored row becomes one of its rows; else None."""

    def changed(self, lake: Snapshot, cohort: str, since: Mapping[str, int]) -> Changed | None:
        """Entities whose features may be others than at earlier versions of `tables`; None where that is not known any more."""


def stored_rows(features: Features, lake: Snapshot, cohort: str, names: list[str]) -> Stored | None:
    """`features.stored`, unless a class made from one of these answers `rows` in a way of its own."""
    kind = type(features).__mro__
    owners = [next(c for c in kind if name in vars(c)) for name in ("rows", "stored")]
    return features.stored(lake, cohort, names) if owners[0] is owners[1] else None


@dataclass(frozen=True)
class MatrixFeatures:
    """Features of a matrix table (expression, methylation), of all blocks of a cohort or those named.

    A feature's identifier is the source's own; with several blocks it is `block:identifier`.
    """

    table: Table
    blocks: list[str] = field(default_factory=list)
    max_missing: float = 1.0
    dtype: str = "float32"
    encoding: str | None = None

    @property
    def tables(self) -> tuple[Table, ...]:
        return (self.table, FEATURES)

    def cohorts(self, lake: Snapshot) -> list[str]:
        return lake.cohorts(self.table)

    def entities(self, lake: Snapshot, cohort: str) -> list[str]:
        return sorted(row.sample_id for row in self._stored(lake, cohort).select("sample_id").distinct().collect())

    def _stored(self, lake: Snapshot, cohort: str) -> DataFrame:
        from pyspark.sql import functions as F

        rows = lake.read(self.table, cohort).where(F.col("cohort") == cohort)
        return rows.where(F.col("block").isin(self.blocks)) if self.blocks else rows

    def _orders(self, lake: Snapshot, cohort: str) -> dict[tuple[str, str], list[str]]:
        """Feature identifiers of every order in which rows are stored, by (block, feature_set)."""
        key = ("orders", self.table.name, cohort, *self.blocks)
        found: dict[tuple[str, str], list[str]] = lake.once(key, lambda: self._read_orders(lake, cohort))
        return found

    def _read_orders(self, lake: Snapshot, cohort: str) -> dict[tuple[str, str], list[str]]:
        used = self._used(lake, cohort)
        found = {block for block, _ in used}
        for block in self.blocks:
            if block not in found:
                raise InputError(f"found no block {block!r} in cohort {cohort}; expected one of {', '.join(sorted(found)) or 'none'}", "blocks")
        names = lake.rows(FEATURES, {"cohort": cohort, "source": self.table.name}).sort_by("position")
        orders = {}
        for block, feature_set in used:
            own = pc.and_(pc.equal(names.column("block"), block), pc.equal(names.column("feature_set"), feature_set))
            orders[block, feature_set] = names.column("feature_id").filter(own).to_pylist()
        several = len(found) > 1
        return {key: [f"{key[0]}:{name}" if several else name for name in orders[key]] for key in sorted(used)}

    def _used(self, lake: Snapshot, cohort: str) -> set[tuple[str, str]]:
        """(block, feature_set) of the cohort's rows; from the log alone where each file has rows of one."""
        ends = [(*file.ends("block"), *file.ends("feature_set")) for file in lake.cohort_files(self.table, cohort)]
        if all(None not in of and of[0] == of[1] and of[2] == of[3] for of in ends):
            found = {(of[0], of[2]) for of in ends}
            return {key for key in found if key[0] in self.blocks} if self.blocks else found
        return {(row.block, row.feature_set) for row in self._stored(lake, cohort).select("block", "feature_set").distinct().collect()}

    def choose(self, lake: Snapshot, cohort: str, entities: list[str], learns: np.ndarray) -> Choice:
        orders = self._orders(lake, cohort)
        features = list(dict.fromkeys(name for names in orders.values() for name in names))
        if self.max_missing >= 1:
            return Choice(features)
        wanted, shape = pa.array(entities, pa.string()), (len(learns), len(features))

        def kernel(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            known = np.zeros(shape, np.int32)
            for batch in batches:
                place = pc.index_in(batch.column("entity_id"), wanted)
                there = place.is_valid()
                values = np.frombuffer(b"".join(batch.column("x").filter(there).to_pylist()), np.float32).reshape(-1, shape[1])
                members = learns[:, place.drop_null().to_numpy()]
                known += (members.astype(np.float32) @ ~np.isnan(values)).astype(np.int32)
            yield pa.RecordBatch.from_arrays([pa.array([known.tobytes()])], ["known"])

        parts = self.rows(lake, cohort, features).mapInArrow(kernel, "known binary").toLocalIterator()
        known = sum((np.frombuffer(bytes(row.known), np.int32) for row in parts), np.zeros(shape[0] * shape[1], np.int32)).reshape(shape)
        return Choice.of(features, known >= (1 - self.max_missing) * learns.sum(1)[:, None])

    def _places(self, lake: Snapshot, cohort: str, features: list[str]) -> dict[tuple[str, str], Places]:
        """`places_of` for each stored order."""
        return dict(zip(orders := self._orders(lake, cohort), places_of(orders.values(), features), strict=True))

    def rows(self, lake: Snapshot, cohort: str, features: list[str]) -> DataFrame:
        from pyspark.sql import functions as F

        whole = self.stored(lake, cohort, features)
        if whole is not None:
            return self._stored(lake, cohort).select(*whole.columns).mapInArrow(whole.pack, ROWS)
        places, width = self._places(lake, cohort, features), len(features)
        sizes = {key: 4 * len(names) for key, names in self._orders(lake, cohort).items()}
        grouped = self._stored(lake, cohort).groupBy(F.col("sample_id").alias("entity_id"))
        rows = grouped.agg(F.sort_array(F.collect_list(F.struct("block", "feature_set", "x"))).alias("parts"))

        def kernel(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            for batch in batches:
                x = np.full((batch.num_rows, width), np.nan, np.float32)
                covered = np.zeros((batch.num_rows, width), bool)
                for row, parts in enumerate(batch.column("parts").to_pylist()):  # one step per sample and block, not per value
                    for part in parts:
                        key = (part["block"], part["feature_set"])
                        if len(part["x"]) != sizes[key]:
                            raise _misfit(key[1], len(part["x"]), sizes[key])
                        source, target = places[key]
                        x[row, target] = np.frombuffer(part["x"], np.float32)[source]
                        covered[row, target] = True
                yield _packed(batch.column("entity_id"), x, (~covered).sum(1))

        return rows.mapInArrow(kernel, ROWS)

    def stored(self, lake: Snapshot, cohort: str, features: list[str]) -> Stored | None:
        places = self._places(lake, cohort, features)
        blocks = {block for block, _ in places}
        if len(blocks) != 1:
            return None
        width, block = len(features), pa.scalar(next(iter(blocks)))
        sizes = {name: 4 * len(names) for (_, name), names in self._orders(lake, cohort).items()}

        def pack(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            for whole in batches:
                batch = whole.filter(pc.equal(whole.column("block"), block))
                sets = batch.column("feature_set").dictionary_encode()
                for code, name in enumerate(sets.dictionary.to_pylist()):
                    part = batch if len(sets.dictionary) == 1 else batch.filter(pc.equal(sets.indices, code))
                    lengths = pc.min_max(pc.binary_length(part.column("x"))).as_py()
                    if {*lengths.values()} - {None, sizes[name]}:
                        raise _misfit(name, lengths["max"], sizes[name])
                    values = arranged(part.column("x"), places[block.as_py(), name], width)
                    yield _packed(part.column("sample_id"), values, np.full(len(values), width - len(places[block.as_py(), name][0])))

        return Stored(lake.cohort_files(self.table, cohort), ["sample_id", "block", "feature_set", "x"], pack)

    def changed(self, lake: Snapshot, cohort: str, since: Mapping[str, int]) -> Changed | None:
        from pyspark.sql import functions as F

        found = lake.changed(self.table, cohort, since.get(self.table.name), ["block", "sample_id"], ["feature_set", "x"])
        if found is None:
            return None
        rows, files = found
        rows = rows.where(F.col("block").isin(self.blocks)) if self.blocks else rows
        one = len({block for block, _ in self._orders(lake, cohort)}) == 1
        return Changed(rows.select(F.col("sample_id").alias("entity_id")), files if one else None)


def _misfit(feature_set: str, found: int, expected: int) -> InputError:
    text = f"found rows of {found // 4} values for the {expected // 4} features of set {feature_set}; expected one for each"
    return InputError(f"{text}: ingest their file into a new cohort", "features")


Places = tuple[np.ndarray, np.ndarray]  # of a stored order of features: which of its values are wanted, and where they go, int64


def places_of(orders: Iterable[list[str]], features: list[str]) -> Iterator[Places]:
    """For each order of identifiers, where it has `features`."""
    position = {name: i for i, name in enumerate(features)}
    for names in orders:
        pairs = np.array([(i, position[name]) for i, name in enumerate(names) if name in position], np.int64).reshape(-1, 2)
        yield pairs[:, 0], pairs[:, 1]


def arranged(packed: pa.Array, places: Places, width: int) -> np.ndarray:
    """Packed float32 rows of one stored order as (rows, width), NaN where the order lacks a feature; not copied where nothing moves."""
    data, ends = packing.binary(packed)
    values = data[ends[0] : ends[-1]].view(np.float32).reshape(len(packed), -1)
    source, target = places
    if np.array_equal(source, target) and len(source) == values.shape[1] == width:
        return values
    x = np.full((len(values), width), np.nan, np.float32)
    x[:, target] = values[:, source]
    return x


def _packed(entities: pa.Array, x: np.ndarray, missing: np.ndarray) -> pa.RecordBatch:
    """A batch of ROWS; x (rows, features) is not copied where it is contiguous."""
    x = np.ascontiguousarray(x)
    packed = packing.binary_array(x.view(np.uint8).reshape(-1), np.arange(len(x) + 1, dtype=np.int32) * (x.shape[1] * x.itemsize))
    return pa.RecordBatch.from_arrays([entities, packed, pa.array(missing.astype(np.int32))], ROW_NAMES)


@dataclass(frozen=True)
class GenotypeFeatures:
    """Copies of each ALT allele in a cohort's variants, 0 to the ploidy.

    A feature's identifier is `chrom:pos:ref:alt` (1-based; chrom without a leading chr, bases in upper case). Where a cohort has the
    same site with REF and ALT exchanged, its copies are counted from the other end. Symbolic, breakend and `*` alleles are no
    features: their identifiers do not say what they are.
    """

    min_allele_frequency: float = 0.0
    max_missing: float = 1.0
    max_features: int = 0
    dtype: str = "int8"
    encoding: str | None = None

    @property
    def tables(self) -> tuple[Table, ...]:
        return (VARIANTS, SAMPLE_SETS)

    def cohorts(self, lake: Snapshot) -> list[str]:
        from pyspark.sql import functions as F

        filled = [(file.partition["cohort"], file.filled("gt")) for file in lake.files(VARIANTS)]
        found = {cohort for cohort, has in filled if has}
        unsure = {cohort for cohort, has in filled if has is None} - found  # where the log does not tell, genotypes are read
        if unsure:
            rows = lake.read(VARIANTS).where(F.col("cohort").isin(*unsure) & F.col("gt").isNotNull())
            found |= {row.cohort for row in rows.select("cohort").distinct().collect()}
        return sorted(found)

    def sample_sets(self, lake: Snapshot, cohort: str) -> list[str]:
        """The orders of samples in the cohort's genotypes, sorted."""
        from pyspark.sql import functions as F

        files = [file for file in lake.files(VARIANTS) if file.partition["cohort"] == cohort]
        filled = [(file.filled("gt"), *file.ends("sample_set")) for file in files]
        if all(has is False or (has and low is not None and low == high) for has, low, high in filled):
            return sorted({low for has, low, _ in filled if has})
        rows = lake.read(VARIANTS, cohort).where((F.col("cohort") == cohort) & F.col("gt").isNotNull())
        return sorted(row.sample_set for row in rows.select("sample_set").distinct().collect())

    def ordered_samples(self, lake: Snapshot, cohort: str) -> pa.Table:
        """sample_set, position (0-based) and sample_id of every order of samples in the cohort's variants."""
        return lake.rows(SAMPLE_SETS, {"sample_set": self.sample_sets(lake, cohort)})

    def sample_orders(self, lake: Snapshot, cohort: str) -> DataFrame:
        """`ordered_samples` as a DataFrame."""
        from pyspark.sql import functions as F

        rows = lake.read(SAMPLE_SETS).where(F.col("sample_set").isin(*self.sample_sets(lake, cohort)))
        return rows.select("sample_set", "position", "sample_id")

    def entities(self, lake: Snapshot, cohort: str) -> list[str]:
        return sorted(row.sample_id for row in self.sample_orders(lake, cohort).select("sample_id").distinct().collect())

    def _alleles(self, lake: Snapshot, cohort: str) -> DataFrame:
        """One row per record and ALT allele that can be a feature."""
        from pyspark.sql import functions as F

        rows = lake.read(VARIANTS, cohort).where((F.col("cohort") == cohort) & F.col("gt").isNotNull())
        chrom = F.regexp_replace("contig", "^(?i:chr)", "")
        rows = rows.select(
            F.when(chrom == "M", "MT").otherwise(chrom).alias("chrom"),
            *("pos", F.upper("ref").alias("ref"), "sample_set", "n_samples", "gt"),
            F.posexplode("alts").alias("place", "alt"),
        )
        spelled = rows.where(F.col("alt").rlike(f"^{SPELLED}$"))
        return spelled.withColumn("allele", F.col("place") + 1).withColumn("alt", F.upper("alt"))  # as `folded`

    def choose(self, lake: Snapshot, cohort: str, entities: list[str], learns: np.ndarray) -> Choice:
        from pyspark.sql import functions as F

        index = {entity: row for row, entity in enumerate(entities)}
        orders: dict[str, list[tuple[int, str]]] = {}
        for row in self.sample_orders(lake, cohort).collect():  # identifiers, not genotypes
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
                yield pa.RecordBatch.from_arrays([*(batch.column(name) for name in _SITE), packed], [*_SITE, "counts"])

        def judge(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            for batch in batches:
                copies, called, samples = np.moveaxis(batch.column("counts").flatten().to_numpy().reshape(-1, sets, 3), 2, 0)
                frequency = copies / np.maximum(called, 1)
                passes = (copies > 0) & (copies < called) & (np.minimum(frequency, 1 - frequency) >= least) & (samples >= fewest)
                some = pa.array(passes.any(1))
                bits = pa.array([row.tobytes() for row in np.packbits(passes, 1)], pa.binary())
                columns = [batch.column(name) for name in _SITE]
                yield pa.RecordBatch.from_arrays([*columns, bits], [*_SITE, "passes"]).filter(some)

        site = "chrom string, pos bigint, ref string, alt string"
        counted = self._alleles(lake, cohort).mapInArrow(count, f"{site}, counts array<bigint>").groupBy(*_SITE)
        sums = counted.agg(F.array(*(F.sum(F.col("counts")[i]) for i in range(3 * sets))).alias("counts"))
        passed = sums.mapInArrow(judge, f"{site}, passes binary").persist()
        try:
            sites, allowed = self._thinned(passed, sets)
        finally:
            passed.unpersist()
        order = sorted(range(len(sites)), key=sites.__getitem__)
        return Choice.of([":".join(map(str, sites[i])) for i in order], allowed[:, order])

    def _thinned(self, passed: DataFrame, sets: int) -> tuple[list[tuple[str, int, str, str]], np.ndarray]:
        """Sites and, bool (sets, sites), which sets may use them: of those that pass in a set the first `max_features` by a hash of the site, so
        that sets which pass nearly the same sites use nearly the same."""
        from pyspark.sql import functions as F

        most, total = self.max_features, passed.count()
        taken = min(2 * most, total) if most else total
        while True:
            rows = passed.orderBy(F.xxhash64(*_SITE), *_SITE).limit(taken).collect()
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
        alleles = self._alleles(lake, cohort).join(sites, _SITE)
        columns = ["sample_set", "n_samples", "gt", "allele", "feature", "exchanged"]
        pieces = alleles.select(*columns).mapInArrow(_transpose, "sample_set string, chunk int, features binary, payload binary")
        sets = self.sample_orders(lake, cohort)
        chunks = pieces.groupBy("sample_set", "chunk").applyInPandas(_assembler(width), "sample_set string, position int, x binary, covered binary")
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
                            covered[row] |= np.unpackbits(np.frombuffer(part["covered"], np.uint8), count=width).astype(bool)
                yield _packed(batch.column("entity_id"), x, (~covered).sum(1))

        return rows.mapInArrow(kernel, ROWS)

    def stored(self, lake: Snapshot, cohort: str, features: list[str]) -> Stored | None:
        return None

    def changed(self, lake: Snapshot, cohort: str, since: Mapping[str, int]) -> Changed | None:
        """A record changes what is known of all its samples."""
        from pyspark.sql import functions as F

        found = lake.changed(VARIANTS, cohort, since.get(VARIANTS.name), [*VARIANTS.key], ["contig", "pos", "ref", "alts", "gt", "sample_set"])
        if found is None:
            return None
        sets = found[0].select("sample_set").distinct()
        rows = lake.read(SAMPLE_SETS).join(sets, "sample_set", "left_semi")
        return Changed(rows.select(F.col("sample_id").alias("entity_id")).distinct(), None)


def _site_of(feature: str) -> tuple[str, int, str, str]:
    chrom, pos, ref, alt = feature.rsplit(":", 3)
    return chrom, int(pos), folded(ref), folded(alt)


def _transpose(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Variant-major records to pieces of (samples of one chunk, features of one batch), copies of the allele as int8."""
    for batch in batches:
        allele = batch.column("allele").to_numpy()
        feature = batch.column("feature").to_numpy().astype(np.int32)
        exchanged = np.array(batch.column("exchanged").to_pylist(), bool)
        pieces: list[tuple[str, int, bytes, bytes]] = []
        for rows, records, samples, sample_set in genotypes.alike(batch):
            copies = genotypes.dosages(records.column("gt"), samples, allele[rows], exchanged[rows])
            for chunk, start in enumerate(range(0, copies.shape[1], _CHUNK)):
                pieces.append((sample_set, chunk, feature[rows].tobytes(), np.ascontiguousarray(copies[:, start : start + _CHUNK].T).tobytes()))
        types = [pa.string(), pa.int32(), pa.binary(), pa.binary()]
        columns = [pa.array([p[i] for p in pieces], t) for i, t in enumerate(types)]
        yield pa.RecordBatch.from_arrays(columns, ["sample_set", "chunk", "features", "payload"])


def _assembler(width: int) -> Any:
    def assemble(pieces: pd.DataFrame) -> pd.DataFrame:
        import pandas as pd

        parts = [(np.frombuffer(f, np.int32), np.frombuffer(p, np.int8)) for f, p in sorted(zip(pieces["features"], pieces["payload"], strict=True))]
        samples = parts[0][1].size // parts[0][0].size
        x = np.full((samples, width), MISSING, np.int8)
        covered = np.zeros(width, bool)
        for features, payload in parts:
            values = payload.reshape(samples, features.size)
            # A site that stands in several records: one by one, the call wins over the missing one.
            for columns in _distinct(features):
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


def _distinct(values: np.ndarray) -> Iterator[np.ndarray]:
    """Positions of `values` in as few groups as have no value twice."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    occurrence = np.arange(len(values)) - np.searchsorted(ordered, ordered)
    for times in range(int(occurrence.max(initial=-1)) + 1):
        yield order[occurrence == times]


@dataclass(frozen=True)
class SequenceFeatures:
    """Base codes of a cohort's sequences, aligned at their centres: `position:1` to `position:L`, -1 beyond a sequence's ends.

    `length`: L; 0 for the longest sequence that any training set learns from. Longer sequences are cut on both sides: rows have a column more,
    length, the bases of the whole sequence.
    """

    length: int = 0
    dtype: str = "int8"
    encoding: str | None = scaling.ONE_HOT

    @property
    def tables(self) -> tuple[Table, ...]:
        return (SEQUENCES,)

    def cohorts(self, lake: Snapshot) -> list[str]:
        return lake.cohorts(SEQUENCES)

    def entities(self, lake: Snapshot, cohort: str) -> list[str]:
        return sorted(self._stored(lake, cohort).select("sequence_id").toArrow().column("sequence_id").to_pylist())  # identifiers, not sequences

    def _stored(self, lake: Snapshot, cohort: str) -> DataFrame:
        from pyspark.sql import functions as F

        return lake.read(SEQUENCES, cohort).where(F.col("cohort") == cohort)

    def _longest(self, lake: Snapshot, cohort: str) -> int:
        from pyspark.sql import functions as F

        rows = self._stored(lake, cohort).agg(F.max("length").alias("length"))
        longest: int = lake.once(("longest", cohort), lambda: rows.collect()[0].length or 0)
        return longest

    def choose(self, lake: Snapshot, cohort: str, entities: list[str], learns: np.ndarray) -> Choice:
        longest = self.length
        if not longest:
            found = self._stored(lake, cohort).select("sequence_id", "length").toArrow()  # identifiers, not sequences
            wanted = pa.array(entities, pa.string()).filter(pa.array(learns.any(0)))
            longest = pc.max(found.column("length").filter(pc.is_in(found.column("sequence_id"), wanted))).as_py() or 0
        return Choice([f"{POSITION}{i + 1}" for i in range(longest)])

    def rows(self, lake: Snapshot, cohort: str, features: list[str]) -> DataFrame:
        whole = self.stored(lake, cohort, features)
        return self._stored(lake, cohort).select(*whole.columns).mapInArrow(whole.pack, f"{ROWS}, length int")

    def stored(self, lake: Snapshot, cohort: str, features: list[str]) -> Stored:
        width = len(features)
        missing = max(0, width - self._longest(lake, cohort))
        step = max(1, _PACKED // width)

        def pack(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            for whole in batches:
                for start in range(0, whole.num_rows, step):
                    batch = whole.slice(start, step)
                    codes, ends = packing.binary(batch.column("codes"))
                    x = bases.centred(codes.view(np.int8), ends, width)
                    columns = _packed(batch.column("sequence_id"), x, np.full(len(x), missing)).columns
                    yield pa.RecordBatch.from_arrays([*columns, pa.array(np.diff(ends).astype(np.int32))], [*ROW_NAMES, "length"])

        return Stored(lake.cohort_files(SEQUENCES, cohort), ["sequence_id", "codes"], pack)

    def changed(self, lake: Snapshot, cohort: str, since: Mapping[str, int]) -> Changed | None:
        from pyspark.sql import functions as F

        found = lake.changed(SEQUENCES, cohort, since.get(SEQUENCES.name), ["sequence_id"], ["codes"])
        return found and Changed(found[0].select(F.col("sequence_id").alias("entity_id")), found[1])


@dataclass(frozen=True)
class WithCovariates:
    """Other features and, behind them, columns of the sample table: numbers as they are, text as one indicator per value.

    Their identifiers are `covariate:COLUMN` and `covariate:COLUMN=VALUE`; the values that text takes are those of the samples
    that the features are chosen over. A column whose known values there are all numbers is a number: a text elsewhere is missing.
    """

    base: Features
    columns: list[str]
    dtype: str = "float32"
    encoding: str | None = None

    @property
    def tables(self) -> tuple[Table, ...]:
        return (*self.base.tables, SAMPLES)

    def cohorts(self, lake: Snapshot) -> list[str]:
        return self.base.cohorts(lake)

    def entities(self, lake: Snapshot, cohort: str) -> list[str]:
        return self.base.entities(lake, cohort)

    def choose(self, lake: Snapshot, cohort: str, entities: list[str], learns: np.ndarray) -> Choice:
        from pyspark.sql import functions as F

        rows = lake.read(SAMPLES).where(F.col("cohort") == cohort)
        for column in self.columns:
            if column not in rows.columns:
                raise InputError(f"found no column {column!r} in samples; expected one of {', '.join(rows.columns)}", "covariates")
        wanted = {entity for entity, learnt in zip(entities, learns.any(0), strict=True) if learnt}
        table = rows.select("sample_id", *(F.col(identifier(c)).alias(f"c{i}") for i, c in enumerate(self.columns))).collect()
        added: list[str] = []
        for i, column in enumerate(self.columns):
            texts = (known(row[f"c{i}"]) for row in table if row.sample_id in wanted and row[f"c{i}"] is not None)
            values = {text for text in texts if text is not None}
            if all(number(value) is not None for value in values):
                added.append(f"{COVARIATE}{column}")
            else:
                added += [f"{COVARIATE}{column}={value}" for value in sorted(values)]
        base = self.base.choose(lake, cohort, entities, learns)
        allowed = None if base.allowed is None else np.pad(base.allowed, ((0, 0), (0, len(added))), constant_values=True)
        return Choice([*base.names, *added], allowed)

    def rows(self, lake: Snapshot, cohort: str, features: list[str]) -> DataFrame:
        from pyspark.sql import functions as F

        own = [name for name in features if name.startswith(COVARIATE)]
        base = self.base.rows(lake, cohort, features[: len(features) - len(own)])
        samples = lake.read(SAMPLES).where(F.col("cohort") == cohort)
        wanted = [_parts(name) for name in own]
        columns = sorted({column for column, _ in wanted if column in samples.columns})
        attached = samples.select(F.col("sample_id").alias("entity_id"), *(F.col(identifier(c)).alias(f"c{i}") for i, c in enumerate(columns)))
        rows = base.join(attached, "entity_id", "left")
        dtype = self.base.dtype

        def kernel(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            for batch in batches:
                stored = np.frombuffer(b"".join(batch.column("x").to_pylist()), dtype).reshape(batch.num_rows, -1)
                more = np.full((batch.num_rows, len(wanted)), np.nan, np.float32)
                for j, (column, value) in enumerate(wanted):
                    if column in columns:
                        more[:, j] = covariate(batch.column(f"c{columns.index(column)}").to_pylist(), value)
                x = np.concatenate([scaling.as_float(stored, "none"), more], 1)
                missing = np.asarray(batch.column("missing")) + sum(column not in columns for column, _ in wanted)
                packed = pa.array([row.tobytes() for row in x], pa.binary())
                yield pa.RecordBatch.from_arrays([batch.column("entity_id"), packed, pa.array(missing.astype(np.int32))], ROW_NAMES)

        return rows.mapInArrow(kernel, ROWS)

    def texts_for_numbers(self, lake: Snapshot, cohort: str, features: list[str]) -> dict[str, tuple[int, str]]:
        """By column that is a number among `features`: how many samples of a cohort have a text there, which is missing to `rows`, and one."""
        from pyspark.sql import functions as F

        samples = lake.read(SAMPLES).where(F.col("cohort") == cohort)
        columns = [column for column, value in map(_parts, features) if value is None and column in samples.columns]
        found = samples.select(*(F.col(identifier(column)) for column in columns)).toArrow().columns if columns else []
        texts = {
            column: [text for text in (known(value.as_py() or "") for value in values) if text is not None and number(text) is None]
            for column, values in zip(columns, found, strict=True)
        }
        return {column: (len(odd), min(odd)) for column, odd in texts.items() if odd}

    def stored(self, lake: Snapshot, cohort: str, features: list[str]) -> Stored | None:
        return None

    def changed(self, lake: Snapshot, cohort: str, since: Mapping[str, int]) -> Changed | None:
        from pyspark.sql import functions as F

        base = self.base.changed(lake, cohort, since)
        columns = [name for name in self.columns if name in lake.read(SAMPLES).columns]
        found = lake.changed(SAMPLES, cohort, since.get(SAMPLES.name), ["sample_id"], columns)
        if base is None or found is None:
            return None
        people = found[0].select(F.col("sample_id").alias("entity_id"))
        return Changed(base.entities.union(people).distinct(), None)


def _parts(name: str) -> tuple[str, str | None]:
    """Column and value of a covariate's identifier; stored column names hold no equals sign (see sources/sample_table.py)."""
    column, separator, value = name.removeprefix(COVARIATE).partition("=")
    return column, value if separator else None


def covariate(texts: Iterable[str | None], value: str | None) -> np.ndarray:
    """float32 (samples,): the number that each text is, or with `value` whether it is that one; NaN where it is missing, or no number."""
    cells = [None if text is None else known(text) for text in texts]
    if value is not None:
        return np.array([np.nan if cell is None else float(cell == value.strip()) for cell in cells], np.float32)
    found = [None if cell is None else number(cell) for cell in cells]
    return np.array([np.nan if one is None else one for one in found], np.float32)


def told(features: Features, lake: Snapshot, cohort: str, names: list[str]) -> list[str]:
    """Warnings on values of a cohort that stand in the lake and are missing to `names` all the same."""
    if not isinstance(features, WithCovariates):
        return []
    found = features.texts_for_numbers(lake, cohort, [name for name in names if name.startswith(COVARIATE)])
    return [
        f"covariate {column} is a number, and {times} samples of cohort {cohort} have a text there, as {shown(text)}: they count as missing"
        for column, (times, text) in found.items()
    ]
