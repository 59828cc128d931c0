"""The lake: create, read, replace and merge the declared tables. The only file that knows Delta."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from genodl_spark import storage
from genodl_spark.errors import InputError
from genodl_spark.tables import PREDICTIONS, TABLES, Table, identifier, literal

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from genodl_spark.parts import Part

_LOG_ENTRY = re.compile(r"/(\d{20})\.json$")
LATEST_PREDICTIONS = "predictions_latest"


@dataclass(frozen=True, order=True)
class StoredFile:
    """A Parquet file of a table: URI, partition values, and the least and greatest value of a column as text, None where not known."""

    uri: str
    partition: dict[str, str] = field(compare=False)
    low: str | None = field(compare=False)
    high: str | None = field(compare=False)


class Lake:
    """The tables below one URI.

    Every write is one Delta transaction: it is there whole, or not at all.
    """

    def __init__(self, spark: SparkSession, uri: str) -> None:
        self.spark = spark
        self.uri = storage.absolute(uri)

    def path(self, table: Table) -> str:
        return storage.join(self.uri, table.name)

    def model_uri(self, model_id: str) -> str:
        return storage.join(self.uri, "models", model_id)

    def _log_path(self, table: Table) -> str:
        # models/ holds the model files as well as the table.
        return storage.join(self.path(table), "_delta_log")

    def version(self, table: Table) -> int | None:
        """Newest version of a table; None when it has not been created."""
        found = [_LOG_ENTRY.search(name) for name in storage.files_under(self._log_path(table), ".json")]
        return max((int(entry.group(1)) for entry in found if entry), default=None)

    def exists(self, table: Table) -> bool:
        return self.version(table) is not None

    def create(self, table: Table) -> None:
        """Creates a table as declared; nothing when it is there."""
        if not self.exists(table):
            self.spark.sql(table.ddl(self.path(table)))

    def read(self, table: Table, version: int | None = None) -> DataFrame:
        """A table at one version, the newest when none is given; an empty one where it has not been created.

        InputError when a stored column is missing or has another type than declared.
        """
        if not self.exists(table):
            return self.spark.createDataFrame([], table.spark_schema())
        reader = self.spark.read.format("delta")
        if version is not None:
            reader = reader.option("versionAsOf", version)
        rows = reader.load(self.path(table))
        _check_columns(table, rows, self.path(table))
        return rows

    def live_files(self, table: Table, version: int, partition: Mapping[str, str]) -> list[str]:
        """URIs of the Parquet files of one version that hold a partition's rows, sorted."""
        from pyspark.sql import functions as F

        rows = self.read(table, version)
        for name, value in partition.items():
            rows = rows.where(F.col(name) == value)
        found = rows.select(F.col("_metadata.file_path").alias("file")).distinct().collect()
        return sorted(storage.from_spark(row.file) for row in found)

    def stored_files(self, table: Table, version: int, partition: Mapping[str, str], column: str) -> list[StoredFile]:
        """The Parquet files of one version that hold a partition's rows, with the range of `column`, from the log alone."""
        from pyspark.sql import DataFrame as Frame
        from pyspark.sql import functions as F

        log, nothing = self._log(table)
        files = Frame(log.getSnapshotAt(version, nothing, nothing).allFiles().toDF(), self.spark)
        for name, value in partition.items():
            files = files.where(F.col("partitionValues").getItem(name) == value)
        ends = [F.get_json_object("stats", f"$.{side}.{column}").alias(side) for side in ("minValues", "maxValues")]
        rows = files.select("path", "partitionValues", *ends).collect()
        return sorted(StoredFile(storage.join(self.path(table), unquote(r.path)), dict(r.partitionValues), r.minValues, r.maxValues) for r in rows)

    def append(self, table: Table, rows: DataFrame) -> None:
        self.create(table)
        self._writer(table, rows).mode("append").save(self.path(table))

    def replace(self, table: Table, rows: DataFrame, where: Mapping[str, str | Sequence[str]]) -> None:
        """In one transaction removes the rows that match `where` (column -> value or values) and adds `rows`, which all match it."""
        self.create(table)
        self._writer(table, rows).mode("overwrite").option("replaceWhere", condition(where)).save(self.path(table))

    def delete(self, table: Table, where: Mapping[str, str | Sequence[str]]) -> None:
        if self.exists(table):
            self._delta(table).delete(condition(where))

    def commit(self, table: Table, parts: Sequence[Part], where: Mapping[str, str | Sequence[str]]) -> None:
        """In one transaction adds files that tasks wrote and removes those whose rows match `where`; all new rows match it.

        A file in which other rows stand too (after a compaction) is rewritten without these, in a transaction before. Of two
        commits that replace the same rows at the same time the second fails.
        """
        self.create(table)
        jvm: Any = self.spark._jvm
        log, nothing = self._log(table)
        transaction = log.startTransaction(nothing, nothing)
        replaced, mixed = ([], False) if self._new(table) else self._holding(table, transaction.snapshot(), where)
        if mixed:
            self.delete(table, where)
            transaction = log.startTransaction(nothing, nothing)
        if not parts and not replaced:
            return
        application = hashlib.sha256(condition(where).encode()).hexdigest()[:32]
        now = int(time.time() * 1000)
        actions: list[dict[str, Any]] = [{"txn": {"appId": application, "version": transaction.txnVersion(application) + 1, "lastUpdated": now}}]
        actions += [{"remove": {**removed, "deletionTimestamp": now, "dataChange": True, "extendedFileMetadata": True}} for removed in replaced]
        listed = jvm.java.util.ArrayList()
        for action in [*actions, *(part.add() for part in parts)]:
            listed.add(jvm.org.apache.spark.sql.delta.actions.Action.fromJson(json.dumps(action)))
        sequence = jvm.scala.jdk.javaapi.CollectionConverters.asScala(listed).toSeq()
        transaction.commit(sequence, getattr(jvm.org.apache.spark.sql.delta, "DeltaOperations$ManualUpdate$").__getattr__("MODULE$"))

    def _log(self, table: Table) -> tuple[Any, Any]:
        """Delta's log of a table, in the JVM, and the JVM's None."""
        jvm: Any = self.spark._jvm
        nothing = getattr(jvm.scala, "Option$").__getattr__("MODULE$").empty()
        return jvm.org.apache.spark.sql.delta.DeltaLog.forTable(self.spark._jsparkSession, self.path(table)), nothing

    def _new(self, table: Table) -> bool:
        """Whether a table has no rows because nothing was written since it was created."""
        return self.version(table) == 0

    def _holding(self, table: Table, snapshot: Any, where: Mapping[str, str | Sequence[str]]) -> tuple[list[dict[str, Any]], bool]:
        """Files of a snapshot all of whose rows match `where`; and whether other files may hold some."""
        from pyspark.sql import DataFrame as Frame
        from pyspark.sql import functions as F

        files = Frame(snapshot.allFiles().toDF(), self.spark)
        wanted = {name: [values] if isinstance(values, str) else list(values) for name, values in where.items()}
        inner = [name for name in wanted if name not in table.partitioned_by]
        for name in wanted.keys() - set(inner):
            files = files.where(F.col("partitionValues").getItem(name).isin(wanted[name]))
        bounds = [
            F.get_json_object("stats", f"$.{side}.{name}").alias(f"{side}{i}") for i, name in enumerate(inner) for side in ("minValues", "maxValues")
        ]
        held, mixed = [], False
        for row in files.select("path", "partitionValues", "size", *bounds).collect():
            ends = [(name, row[f"minValues{i}"], row[f"maxValues{i}"]) for i, name in enumerate(inner)]
            if any(low is not None and not any(low <= value <= high for value in wanted[name]) for name, low, high in ends):
                continue
            if all(low is not None and low == high for _, low, high in ends):
                held.append({"path": row.path, "partitionValues": dict(row.partitionValues), "size": row.size})
            else:
                mixed = True
        return held, mixed

    def merge(self, table: Table, rows: DataFrame) -> None:
        """Upserts `rows` by the table's key; a row that differs in nothing but its time stamps is left as it is.

        Columns that only `rows` has are added to an open table.
        """
        self.create(table)
        if self._new(table):  # a third of the time of a merge
            self.append(table, rows)
            return
        keys = " AND ".join(f"t.{identifier(k)} = s.{identifier(k)}" for k in table.key)
        stored = set(self.read(table).columns)
        compared = [f for f in rows.schema.fields if f.name not in table.key and not f.name.endswith("_at")]
        differs = " OR ".join(_differs(f.name, f.dataType.typeName(), f.name in stored) for f in compared)
        merge = self._delta(table).alias("t").merge(rows.alias("s"), keys)
        if table.open:
            merge = merge.withSchemaEvolution()
        if compared:
            merge = merge.whenMatchedUpdateAll(condition=differs)
        merge.whenNotMatchedInsertAll().execute()

    def _delta(self, table: Table) -> Any:
        from delta.tables import DeltaTable

        return DeltaTable.forPath(self.spark, self.path(table))

    def _writer(self, table: Table, rows: DataFrame) -> Any:
        writer = rows.write.format("delta")
        return writer.option("mergeSchema", "true") if table.open else writer

    def existing(self) -> list[Table]:
        return [table for table in TABLES.values() if self.exists(table)]

    def register_views(self, sql: str) -> None:
        """Makes every lake table that `sql` may name a view of the session, and `predictions_latest`."""
        text = sql.lower()
        for table in self.existing():
            if table.name in text:
                self.read(table).createOrReplaceTempView(identifier(table.name))
        if LATEST_PREDICTIONS in text:
            latest_predictions(self.read(PREDICTIONS)).createOrReplaceTempView(LATEST_PREDICTIONS)


class Snapshot:
    """The lake at one moment: a table is read at the version that was newest when it was first asked for.

    `versions`: version of every table read so far, by name; those not created yet are left out.
    """

    def __init__(self, lake: Lake) -> None:
        self.lake = lake
        self.spark = lake.spark
        self.versions: dict[str, int] = {}
        self._known: dict[Any, Any] = {}

    def once(self, key: Any, answer: Callable[[], Any]) -> Any:
        """`answer()`, asked once for each `key`: what is read at fixed versions stays the same."""
        if key not in self._known:
            self._known[key] = answer()
        return self._known[key]

    def version(self, table: Table) -> int | None:
        if table.name not in self.versions:
            newest = self.lake.version(table)
            if newest is None:
                return None
            self.versions[table.name] = newest
        return self.versions[table.name]

    def read(self, table: Table) -> DataFrame:
        return self.lake.read(table, self.version(table))


def latest_predictions(predictions: DataFrame) -> DataFrame:
    """The newest model's row for each task, cohort, entity and label."""
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    newest = Window.partitionBy("task", "cohort", "entity_id", "label_column").orderBy(
        F.col("model_version").desc(), F.col("scored_at").desc(), F.col("model_id")
    )
    return predictions.withColumn("_rank", F.row_number().over(newest)).where("_rank = 1").drop("_rank")


def condition(where: Mapping[str, str | Sequence[str]]) -> str:
    """SQL condition for rows whose columns hold the given values; names and values are quoted."""
    terms = []
    for name, value in where.items():
        values = [value] if isinstance(value, str) else list(value)
        terms.append(f"{identifier(name)} IN ({', '.join(literal(v) for v in values)})")
    return " AND ".join(terms)


def _differs(name: str, type_name: str, stored: bool) -> str:
    theirs, ours = f"t.{identifier(name)}", f"s.{identifier(name)}"
    if not stored:
        return f"{ours} IS NOT NULL"
    if type_name == "map":  # maps have no equality in Spark
        theirs, ours = f"array_sort(map_entries({theirs}))", f"array_sort(map_entries({ours}))"
    return f"NOT ({theirs} <=> {ours})"


def _check_columns(table: Table, rows: DataFrame, path: str) -> None:
    found = {field.name: field.dataType.simpleString() for field in rows.schema.fields}
    for declared in table.spark_schema().fields:
        expected = declared.dataType.simpleString()
        if declared.name not in found:
            raise InputError(f"table {table.name} has no column {declared.name}; expected {expected}; restore the column", path)
        if found[declared.name] != expected:
            raise InputError(f"table {table.name} holds {declared.name} as {found[declared.name]}; expected {expected}; restore the column", path)
