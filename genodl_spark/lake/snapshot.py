"""The lake as one run sees it: every table at one version."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from genodl_spark.core import storage
from genodl_spark.core.errors import InputError
from genodl_spark.lake.delta import Lake
from genodl_spark.lake.files import StoredFile
from genodl_spark.lake.schema import Table, identifier

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


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

    def read(self, table: Table, cohort: str | None = None) -> DataFrame:
        return self.lake.read(table, self.version(table), cohort)

    def cohort_files(self, table: Table, cohort: str) -> list[StoredFile]:
        """Files with rows of a cohort; all of them where the table is not partitioned by it."""
        return [file for file in self.files(table) if file.partition.get("cohort", cohort) == cohort]

    def changed(
        self, table: Table, cohort: str, since: int | None, key: Sequence[str], values: Sequence[str]
    ) -> tuple[DataFrame, list[StoredFile]] | None:
        """Rows of a cohort (`key` and `values`) that stand at one of two versions only,
        and the files in which those of the newer one do.

        Files that both have are not read. None where the older version, or a file of it, is gone.
        """
        from pyspark.errors import PySparkException
        from pyspark.sql import functions as F
        from pyspark.sql.types import StructType

        if since is None:
            return None
        now = self.cohort_files(table, cohort)
        try:
            before = [file for file in self.lake.files(table, since) if file.partition.get("cohort", cohort) == cohort]
        except (PySparkException, InputError):  # its log entry was cleaned up
            return None
        added = sorted(set(now) - set(before))
        removed = sorted(set(before) - set(now))
        if any(storage.kind(file.uri) == "absent" for file in removed):
            return None

        fields = table.spark_schema()
        of_log = [name for name in (*key, *values) if name in table.partitioned_by]  # the files have no such columns

        def rows(files: list[StoredFile]) -> DataFrame:
            if not files:
                return self.spark.createDataFrame([], StructType([fields[name] for name in (*key, *values)]))
            found = self.lake.read_files(table, files)
            if of_log:
                known = [(posixpath.basename(file.uri), *(file.partition[name] for name in of_log)) for file in files]
                by_file = F.broadcast(self.spark.createDataFrame(known, ["_file", *of_log]))
                found = found.withColumn("_file", F.col("_metadata.file_name")).join(by_file, "_file")
                found = found.withColumns({name: F.col(name).cast(fields[name].dataType) for name in of_log})
            if "cohort" not in table.partitioned_by:
                found = found.where(F.col("cohort") == cohort)
            return found.select(*key, *values)

        if not removed:
            return rows(added), added
        new, old = rows(added).alias("n"), rows(removed).alias("o")
        same = [F.col(f"n.{identifier(name)}").eqNullSafe(F.col(f"o.{identifier(name)}")) for name in (*key, *values)]
        return new.join(old, same, "left_anti").union(old.join(new, same, "left_anti")), added

    def files(self, table: Table) -> list[StoredFile]:
        """The table's files; none where it has not been created. InputError as for `Lake.check`."""
        version = self.version(table)
        if version is None:
            return []

        def checked() -> list[StoredFile]:
            self.lake.check(table, version)
            return self.lake.files(table, version)

        found: list[StoredFile] = self.once(("files", table.name), checked)
        return found

    def cohorts(self, table: Table) -> list[str]:
        """Cohorts of a table that is partitioned by them, sorted."""
        return sorted({file.partition["cohort"] for file in self.files(table)})

    def rows(
        self, table: Table, where: Mapping[str, str | Sequence[str]], columns: Sequence[str] | None = None
    ) -> pa.Table:
        version = self.version(table)
        if version is None:
            nothing = table.arrow_schema().empty_table()
            return nothing if columns is None else nothing.select(list(columns))
        return self.lake.rows(table, where, version, columns)
