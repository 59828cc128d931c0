"""The lake: create, read, replace and merge the declared tables. The only file that knows Delta."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

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
    """A Parquet file of a table: URI, path as its log names it, partition values, bytes, and statistics as Delta has them, {} without."""

    uri: str
    path: str = field(compare=False)
    partition: dict[str, str] = field(compare=False)
    size: int = field(compare=False)
    statistics: dict[str, Any] = field(compare=False)

    def ends(self, column: str) -> tuple[Any, Any]:
        """Least and greatest value of a column, None where not known."""
        low, high = (self.statistics.get(side, {}).get(column) for side in ("minValues", "maxValues"))
        return low, high

    def nulls(self, column: str) -> int | None:
        """Rows without a value in a column, None where not known."""
        found: int | None = self.statistics.get("nullCount", {}).get(column)
        return found

    def filled(self, column: str) -> bool | None:
        """Whether any row has a value in a column, None where not known."""
        nulls, rows = self.nulls(column), self.statistics.get("numRecords")
        return None if nulls is None or rows is None else nulls < rows

    def may_hold(self, column: str, values: Sequence[Any]) -> bool:
        low, high = self.ends(column)
        return low is None or high is None or any(low <= value <= high for value in values)


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

        held, mixed = _holding(table, self.files(table, version), partition)
        if not mixed:
            return [file.uri for file in held]
        found = self.read(table, version).where(condition(partition)).select(F.col("_metadata.file_path").alias("file")).distinct().collect()
        return sorted(storage.from_spark(row.file) for row in found)

    def rows(self, table: Table, where: Mapping[str, str | Sequence[str]], version: int | None = None) -> pa.Table:
        """The rows of a version, the newest when none is given, that match `where`.

        This process reads them: for few rows of a small table, of which a Spark job takes longer to plan than to read.
        """
        version = self.version(table) if version is None else version
        wanted, found = _listed(where), [table.arrow_schema().empty_table()]
        for file in self.files(table, version) if version is not None else []:
            if all(_may_hold(table, file, name, values) for name, values in wanted.items()):
                part = _read(table, file)
                for name, values in wanted.items():
                    part = part.filter(pc.is_in(part.column(name), pa.array(values, part.schema.field(name).type)))
                found.append(part)
        return pa.concat_tables(found)

    def count(self, table: Table, where: Mapping[str, str | Sequence[str]] | None = None) -> int:
        """Rows of the newest version, those that match `where`; 0 where the table has not been created."""
        version, where = self.version(table), where or {}
        if version is None:
            return 0
        held, mixed = _holding(table, self.files(table, version), where)
        numbers = [n for n in (file.statistics.get("numRecords") for file in held) if n is not None]
        if not mixed and len(numbers) == len(held):
            return sum(numbers)
        rows = self.read(table, version)
        return rows.where(condition(where)).count() if where else rows.count()

    def append(self, table: Table, rows: DataFrame | pa.Table) -> None:
        self.create(table)
        if isinstance(rows, pa.Table):
            self._commit(self._transaction(table), [], self._written(table, rows), None)
        else:
            self._writer(table, rows).mode("append").save(self.path(table))

    def replace(self, table: Table, rows: DataFrame | pa.Table, where: Mapping[str, str | Sequence[str]]) -> None:
        """In one transaction removes the rows that match `where` (column -> value or values) and adds `rows`, which all match it."""
        self.create(table)
        if isinstance(rows, pa.Table):
            for name, values in _listed(where).items():
                if not pc.all(pc.is_in(rows.column(name), pa.array(values, pa.string()))).as_py() and rows.num_rows:
                    raise ValueError(f"table {table.name}: a row that has none of {values} for {name}")
            self.commit(table, self._written(table, rows), where)
        else:
            self._writer(table, rows).mode("overwrite").option("replaceWhere", condition(where)).save(self.path(table))

    def delete(self, table: Table, where: Mapping[str, str | Sequence[str]]) -> None:
        if self.exists(table):
            self.commit(table, [], where)

    def commit(self, table: Table, parts: Sequence[Part], where: Mapping[str, str | Sequence[str]]) -> None:
        """In one transaction adds files that tasks wrote and removes those whose rows match `where`; all new rows match it.

        A file in which other rows stand too (after a compaction) is rewritten without these, in a transaction before. Of two
        commits that replace the same rows at the same time the second fails.
        """
        self.create(table)
        transaction = self._transaction(table)
        replaced, mixed = _holding(table, self.files(table, transaction.readVersion()), where)
        if mixed:
            self._delta(table).delete(condition(where))
            transaction, replaced = self._transaction(table), []
        if parts or replaced:
            self._commit(transaction, replaced, parts, condition(where))

    def _written(self, table: Table, rows: pa.Table) -> list[Part]:
        """Files of a few rows, written by this process: a Spark job would take longer to plan."""
        from genodl_spark.parts import PartWriter

        writer = PartWriter(table, self.path(table), uuid.uuid4().hex[:12])
        for batch in rows.combine_chunks().to_batches():
            writer.write(batch)
        return writer.close()

    def _transaction(self, table: Table) -> Any:
        log, nothing = self._log(table)
        return log.startTransaction(nothing, nothing)

    def _commit(self, transaction: Any, removed: Sequence[StoredFile], parts: Sequence[Part], replaces: str | None) -> None:
        """Commits the change of files. Of two transactions at the same time that replace what `replaces` says the second fails."""
        jvm: Any = self.spark._jvm
        delta = jvm.org.apache.spark.sql.delta
        now = int(time.time() * 1000)
        common = {"deletionTimestamp": now, "dataChange": True, "extendedFileMetadata": True}
        actions = [{"remove": {"path": f.path, "partitionValues": f.partition, "size": f.size, **common}} for f in removed]
        actions += [part.add() for part in parts]
        if replaces is not None:
            application = hashlib.sha256(replaces.encode()).hexdigest()[:32]
            # What txnVersion() does, which also asks for the last version: a replay of the log. Versions of a table grow just as well.
            transaction.readTxn().addOne(application)
            actions.append({"txn": {"appId": application, "version": transaction.readVersion() + 1, "lastUpdated": now}})
        read, listed = delta.actions.Action.fromJson, jvm.java.util.ArrayList()
        for action in actions:
            listed.add(read(json.dumps(action)))
        # A write: for an update by hand Delta carries no totals and no list of files on, and replays the log after it.
        option = getattr(jvm.scala, "Option$").__getattr__("MODULE$")
        mode = jvm.org.apache.spark.sql.SaveMode.valueOf("Append" if replaces is None else "Overwrite")
        write = getattr(delta, "DeltaOperations$Write")(mode, option.empty(), option.apply(replaces), option.empty())
        transaction.commit(jvm.scala.jdk.javaapi.CollectionConverters.asScala(listed).toSeq(), write)

    def _log(self, table: Table) -> tuple[Any, Any]:
        """Delta's log of a table, in the JVM, and the JVM's None."""
        jvm: Any = self.spark._jvm
        nothing = getattr(jvm.scala, "Option$").__getattr__("MODULE$").empty()
        return jvm.org.apache.spark.sql.delta.DeltaLog.forTable(self.spark._jsparkSession, self.path(table)), nothing

    def _new(self, table: Table) -> bool:
        """Whether a table has no rows because nothing was written since it was created."""
        return self.version(table) == 0

    def files(self, table: Table, version: int) -> list[StoredFile]:
        """The Parquet files of one version, sorted, from the log alone.

        Delta lists them beside the version while they are few; otherwise its log has to be replayed, by Spark jobs.
        """
        files = None
        with contextlib.suppress(InputError, ValueError):  # not there yet, or cut off
            files = storage.read_json(storage.join(self._log_path(table), f"{version:020}.crc")).get("allFiles")
        if files is None:
            from pyspark.sql import DataFrame as Frame

            log, nothing = self._log(table)
            rows = Frame(log.getSnapshotAt(version, nothing, nothing).allFiles().toDF(), self.spark)
            files = [row.asDict() for row in rows.select("path", "partitionValues", "size", "stats").collect()]
        uri = self.path(table)
        return sorted(
            StoredFile(storage.join(uri, unquote(f["path"])), f["path"], f["partitionValues"], f["size"], json.loads(f.get("stats") or "{}"))
            for f in files
        )

    def merge(self, table: Table, rows: DataFrame | pa.Table) -> None:
        """Upserts `rows` by the table's key; a row that differs in nothing but its time stamps is left as it is.

        Columns that only `rows` has are added to an open table.
        """
        self.create(table)
        if isinstance(rows, pa.Table):
            self._merge_few(table, rows)
            return
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

    def _merge_few(self, table: Table, rows: pa.Table) -> None:
        """`merge` of a few rows, without a Spark job: files with a row that changes are written again.

        Of two merges at the same time the second fails.
        """
        assert not table.partitioned_by and not table.open
        new = {_key(table, row): row for row in rows.to_pylist()}
        if len(new) < rows.num_rows:
            raise ValueError(f"table {table.name}: several rows of one key")
        transaction = self._transaction(table)
        removed: list[StoredFile] = []
        kept: list[dict[str, Any]] = []
        for file in self.files(table, transaction.readVersion()):
            if not new or not all(file.may_hold(name, [key[i] for key in new]) for i, name in enumerate(table.key)):
                continue
            stored, others = _read(table, file).to_pylist(), []
            for row in stored:
                key = _key(table, row)
                if key not in new or _same(row, new[key]):
                    new.pop(key, None)
                    others.append(row)
            if len(others) < len(stored):
                removed.append(file)
                kept += others
        if new:
            made = pa.Table.from_pylist([*kept, *new.values()], table.arrow_schema())
            self._commit(transaction, removed, self._written(table, made), f"merge into {table.name}")

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

    def files(self, table: Table) -> list[StoredFile]:
        """The table's files; none where it has not been created."""
        version = self.version(table)
        found: list[StoredFile] = [] if version is None else self.once(("files", table.name), lambda: self.lake.files(table, version))
        return found

    def rows(self, table: Table, where: Mapping[str, str | Sequence[str]]) -> pa.Table:
        version = self.version(table)
        return table.arrow_schema().empty_table() if version is None else self.lake.rows(table, where, version)


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
    terms = [f"{identifier(name)} IN ({', '.join(map(literal, values))})" for name, values in _listed(where).items()]
    return " AND ".join(terms)


def _listed(where: Mapping[str, str | Sequence[str]]) -> dict[str, list[str]]:
    return {name: [value] if isinstance(value, str) else list(value) for name, value in where.items()}


def _may_hold(table: Table, file: StoredFile, column: str, values: Sequence[str]) -> bool:
    return file.partition.get(column) in values if column in table.partitioned_by else file.may_hold(column, values)


def _holding(table: Table, files: Sequence[StoredFile], where: Mapping[str, str | Sequence[str]]) -> tuple[list[StoredFile], bool]:
    """Those of `files` all of whose rows match `where`; and whether others may hold some that do."""
    wanted = _listed(where)
    inner = [name for name in wanted if name not in table.partitioned_by]
    held, mixed = [], False
    for file in files:
        if not all(_may_hold(table, file, name, values) for name, values in wanted.items()):
            continue
        ends = [file.ends(name) for name in inner]
        if all(low is not None and low == high for low, high in ends) and all(file.nulls(name) == 0 for name in inner):
            held.append(file)
        else:
            mixed = True
    return held, mixed


def _read(table: Table, file: StoredFile) -> pa.Table:
    """The rows of a file as declared; columns that it lacks are NULL."""
    fs, path = storage.filesystem(file.uri)
    with fs.open_input_file(path) as raw:
        # Spark writes time stamps as INT96, which has no unit of its own.
        stored = pq.ParquetFile(raw, coerce_int96_timestamp_unit="us")
        found = stored.read([name for name in table.column_names if name not in table.partitioned_by])
    schema = table.arrow_schema()
    columns = []
    for name, type_ in zip(schema.names, schema.types, strict=True):
        if name in found.column_names:
            columns.append(found.column(name).cast(type_))
        else:
            columns.append(pa.repeat(pa.scalar(file.partition.get(name)).cast(type_), found.num_rows))
    return pa.Table.from_arrays(columns, schema=schema)


def _key(table: Table, row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in table.key)


def _same(stored: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    """Whether two rows differ in time stamps at most. A map is the same in any order, NaN is the same as NaN."""
    return all(_plain(stored[name]) == _plain(value) for name, value in row.items() if not name.endswith("_at"))


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        pairs = [_plain(v) for v in value]
        return sorted(pairs, key=repr) if value and all(isinstance(v, tuple) for v in value) else pairs
    if isinstance(value, tuple):
        return tuple(_plain(v) for v in value)
    return "NaN" if isinstance(value, float) and value != value else value


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
