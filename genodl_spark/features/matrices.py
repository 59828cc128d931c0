"""Features of packed matrices: expression, methylation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genodl_spark.core import packing
from genodl_spark.core.errors import InputError
from genodl_spark.features.protocol import ROWS, Changed, Choice, StoredRows, batch_of
from genodl_spark.lake.schema import PERSON, Table
from genodl_spark.lake.tables.ingested import FEATURES

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from genodl_spark.lake.snapshot import Snapshot


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
    entity: str = PERSON

    @property
    def tables(self) -> tuple[Table, ...]:
        return (self.table, FEATURES)

    def cohorts(self, lake: Snapshot) -> list[str]:
        return lake.cohorts(self.table)

    def blocks_of(self, lake: Snapshot, cohort: str) -> list[str]:
        """Blocks that the cohort has rows of, sorted."""
        return sorted({block for block, _ in self._used(lake, cohort)})

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
                raise InputError(
                    f"found no block {block!r} in cohort {cohort}; "
                    f"expected one of {', '.join(sorted(found)) or 'none'}",
                    "blocks",
                )
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
        return {
            (row.block, row.feature_set)
            for row in self._stored(lake, cohort).select("block", "feature_set").distinct().collect()
        }

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
                values = np.frombuffer(b"".join(batch.column("x").filter(there).to_pylist()), np.float32).reshape(
                    -1, shape[1]
                )
                members = learns[:, place.drop_null().to_numpy()]
                known += (members.astype(np.float32) @ ~np.isnan(values)).astype(np.int32)
            yield pa.RecordBatch.from_arrays([pa.array([known.tobytes()])], ["known"])

        parts = self.rows(lake, cohort, features).mapInArrow(kernel, "known binary").toLocalIterator()
        known = sum(
            (np.frombuffer(bytes(row.known), np.int32) for row in parts), np.zeros(shape[0] * shape[1], np.int32)
        ).reshape(shape)
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
                # one step per sample and block, not per value
                for row, parts in enumerate(batch.column("parts").to_pylist()):
                    for part in parts:
                        key = (part["block"], part["feature_set"])
                        if len(part["x"]) != sizes[key]:
                            raise _misfit(key[1], len(part["x"]), sizes[key])
                        source, target = places[key]
                        x[row, target] = np.frombuffer(part["x"], np.float32)[source]
                        covered[row, target] = True
                yield batch_of(batch.column("entity_id"), x, (~covered).sum(1))

        return rows.mapInArrow(kernel, ROWS)

    def stored(self, lake: Snapshot, cohort: str, features: list[str]) -> StoredRows | None:
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
                    yield batch_of(
                        part.column("sample_id"),
                        values,
                        np.full(len(values), width - len(places[block.as_py(), name][0])),
                    )

        return StoredRows(lake.cohort_files(self.table, cohort), ["sample_id", "block", "feature_set", "x"], pack)

    def changed(self, lake: Snapshot, cohort: str, since: Mapping[str, int]) -> Changed | None:
        from pyspark.sql import functions as F

        found = lake.changed(
            self.table, cohort, since.get(self.table.name), ["block", "sample_id"], ["feature_set", "x"]
        )
        if found is None:
            return None
        rows, files = found
        rows = rows.where(F.col("block").isin(self.blocks)) if self.blocks else rows
        one = len({block for block, _ in self._orders(lake, cohort)}) == 1
        return Changed(rows.select(F.col("sample_id").alias("entity_id")), files if one else None)


def _misfit(feature_set: str, found: int, expected: int) -> InputError:
    text = (
        f"found rows of {found // 4} values for the {expected // 4} features of set {feature_set}; "
        "expected one for each"
    )
    return InputError(f"{text}: ingest their file into a new cohort", "features")


# of a stored order of features: which of its values are wanted, and where they go, int64
Places = tuple[np.ndarray, np.ndarray]


def places_of(orders: Iterable[list[str]], features: list[str]) -> Iterator[Places]:
    """For each order of identifiers, where it has `features`."""
    position = {name: i for i, name in enumerate(features)}
    for names in orders:
        pairs = np.array([(i, position[name]) for i, name in enumerate(names) if name in position], np.int64).reshape(
            -1, 2
        )
        yield pairs[:, 0], pairs[:, 1]


def arranged(packed: pa.Array, places: Places, width: int) -> np.ndarray:
    """Packed float32 rows of one stored order as (rows, width), NaN where the order lacks a feature;
    not copied where nothing moves."""
    data, ends = packing.binary(packed)
    values = data[ends[0] : ends[-1]].view(np.float32).reshape(len(packed), -1)
    source, target = places
    if np.array_equal(source, target) and len(source) == values.shape[1] == width:
        return values
    x = np.full((len(values), width), np.nan, np.float32)
    x[:, target] = values[:, source]
    return x
