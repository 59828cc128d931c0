"""The lake without a JVM: versions, files, columns and rows from Delta's lists, else from the log through delta-rs.

What neither can tell is asked of Spark, whose session then starts; one line says so.
"""

from __future__ import annotations

import json
import logging
import os
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import deltalake
import pyarrow as pa
from deltalake.exceptions import DeltaError

from genodl_spark.core import storage
from genodl_spark.core.errors import Conflict, InputError
from genodl_spark.lake import checksums, table_log
from genodl_spark.lake.delta import Lake, wrong_with
from genodl_spark.lake.files import StoredFile
from genodl_spark.lake.parts import Part
from genodl_spark.lake.schema import Table, sql_type
from genodl_spark.lake.transactions import alone, require_safe_commits

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

log = logging.getLogger("genodl")
_WRITER = 3  # the newest version of Delta's protocol for writers that `append` knows all of
_ATTEMPTS = 100


class StoredLake(Lake):
    """The tables below one URI, to be read. `start`: starts Spark's session, for what cannot be read without."""

    def __init__(self, uri: str, start: Callable[[], SparkSession]) -> None:
        self._start = start
        super().__init__(None, uri)  # type: ignore[arg-type]

    @property
    def spark(self) -> SparkSession:
        spark = self._start()
        require_safe_commits(spark, self.uri)
        return spark

    @spark.setter
    def spark(self, _: SparkSession | None) -> None:
        """Nobody has started it yet."""

    def _changed_among(self, files: Sequence[StoredFile]) -> list[tuple[int, str]]:
        with ThreadPoolExecutor(os.cpu_count()) as threads:  # checksums are computed without Python's lock
            return [(i, wrong) for i, wrong in enumerate(threads.map(wrong_with, files)) if wrong]

    def files(self, table: Table, version: int) -> list[StoredFile]:
        if "allFiles" in self._listed(table, version):
            return super().files(table, version)
        try:
            return self._replayed(table, version)
        except (DeltaError, OSError) as error:
            self._tell(table, error)
            return super().files(table, version)

    def fields(self, table: Table, version: int) -> dict[str, str]:
        """Stored columns of a version, and their types as Spark SQL writes them, without blanks."""
        schema = self._listed(table, version).get("metadata", {}).get("schemaString")
        if schema is None:
            try:
                schema = self._opened(table, version).schema().to_json()
            except (DeltaError, OSError) as error:
                self._tell(table, error)
                schema = self.read(table, version).schema.json()
        return {field["name"]: sql_type(field["type"]) for field in json.loads(schema)["fields"]}

    def check(self, table: Table, version: int, to_read: bool = False) -> None:
        """InputError for columns that are not as declared. `to_read`: those that may be NULL may also be lacking, in a
        table of an older version of this package."""
        found, path = self.fields(table, version), self.path(table)
        for column in table.columns:
            expected = column.type.replace(" ", "")
            if column.name not in found:
                if to_read and column.nullable:
                    continue
                advice = "run genodl maintain, which adds it" if column.nullable else "restore the column"
                raise InputError(f"table {table.name} has no column {column.name}; expected {expected}; {advice}", path)
            if found[column.name] != expected:
                wrong = f"table {table.name} holds {column.name} as {found[column.name]}"
                raise InputError(f"{wrong}; expected {expected}; restore the column", path)

    def _opened(self, table: Table, version: int) -> deltalake.DeltaTable:
        uri = self.path(table)
        # A path as it is; of a URI deltalake would decode percent signs.
        return deltalake.DeltaTable(
            storage.local_path(uri) if storage.is_local(uri) else uri,
            version=version,
            storage_options=storage.delta_rs_options(uri),
        )

    def _replayed(self, table: Table, version: int) -> list[StoredFile]:
        opened = self._opened(table, version)
        adds = pa.table(opened.get_add_actions(flatten=True)).to_pylist()
        names = [unquote(add["path"]) for add in adds]
        sums = checksums.logged(self.log_path(table), version, names)
        columns = opened.metadata().partition_columns
        return sorted(
            StoredFile(
                *(
                    storage.join(self.path(table), name),
                    add["path"],
                    {one: add[f"partition.{one}"] for one in columns},
                    add["size_bytes"],
                ),
                {} if add["num_records"] is None else {"numRecords": add["num_records"]},
                sums[name],
            )
            for name, add in zip(names, adds, strict=True)
        )

    def _tell(self, table: Table, error: Exception) -> None:
        log.info(
            "table %s is read through Spark, as its log cannot be read otherwise: %s",
            table.name,
            str(error).splitlines()[0],
        )

    def append_few(self, table: Table, rows: pa.Table) -> None:
        """Appends a few rows in one commit, which Delta and all readers take for one of Delta's own.

        ValueError, and nothing is written, for what needs Delta itself: a lake that is not on a local disk,
        a table that is not there, or one with rules that are not known here. Conflict where others commit all the time.
        """
        if not storage.is_local(self.uri):
            raise ValueError("expected a lake on a local disk")
        version = self.version(table)
        if version is None:
            raise ValueError(f"found no table {table.name}")
        self.check(table, version)
        parts = self._written(table, rows)
        with self._dropped_if_lost(table, parts, (Conflict, ValueError)):
            for _ in range(_ATTEMPTS):
                with alone(self.path(table)):
                    version = self.version(table)
                    assert version is not None
                    if self._added(table, version, parts):
                        return
            raise Conflict(
                f"{table.name}: found other runs that commit all the time; expected a pause, run this one again"
            )

    def _added(self, table: Table, version: int, parts: list[Part]) -> bool:
        """Commits files after a version; returns whether no other run was first."""
        beside = self._listed(table, version)
        if (
            not beside.keys() >= {"protocol", "metadata", "numFiles", "tableSizeBytes"}
            or "histogramOpt" in beside
            or "fileSizeHistogram" in beside
        ):
            raise ValueError(f"found no list beside version {version} of table {table.name} that could be carried on")
        constraints = {
            key for key in beside["metadata"].get("configuration", {}) if key.startswith("delta.constraints.")
        }
        if beside["protocol"]["minWriterVersion"] > _WRITER or len(constraints) > len(table.checks):
            raise ValueError(f"found table {table.name} with more rules for writers than are declared")
        transaction = str(uuid.uuid4())
        commit: dict[str, Any] = {
            "timestamp": int(time.time() * 1000),
            "operation": "WRITE",
            "operationParameters": {"mode": "Append"},
        }
        commit |= {
            "readVersion": version,
            "isolationLevel": "Serializable",
            "isBlindAppend": True,
            "operationMetrics": {},
        }
        commit |= {"engineInfo": "genodl-spark", "txnId": transaction}
        actions = [{"commitInfo": commit}, *(part.add() for part in parts)]
        if not _published(
            table_log.entry(self.log_path(table), version + 1),
            "".join(json.dumps(action) + "\n" for action in actions),
        ):
            return False
        # Delta carries on what stands beside a version, and replays the log where nothing does.
        beside |= {"txnId": transaction, "numFiles": beside["numFiles"] + len(parts)}
        beside["tableSizeBytes"] += sum(part.size for part in parts)
        if "allFiles" in beside:
            beside["allFiles"] = [*beside["allFiles"], *({**part.add()["add"], "dataChange": False} for part in parts)]
        _published(
            table_log.entry(self.log_path(table), version + 1).removesuffix(".json") + ".crc", json.dumps(beside)
        )
        return True


def _published(uri: str, text: str) -> bool:
    """Puts a whole file where none is; returns whether there was none."""
    path = storage.local_path(uri)
    aside = os.path.join(os.path.dirname(path), f".{uuid.uuid4().hex}.tmp")
    with open(aside, "w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    try:
        os.link(aside, path)
    except FileExistsError:
        return False
    finally:
        os.remove(aside)
    return True
