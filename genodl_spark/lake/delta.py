"""The lake: create, read, replace and merge the declared tables. Delta is known here, in transactions.py
and in vacuum.py alone.

Every write is one transaction, and right beside another run's. What each does where another
has committed since it looked:

| write | depends on | where that has changed |
|---|---|---|
| append | nothing but the columns | never lost; after a change of columns it is done again |
| replace, delete, commit, merge | all rows of the table | done again on the table as it is then, same new files |
| the same with `exclusive` | rows of that name, files that go | another run's of that name: Conflict; else done again |
| the same with `since` | rows at that version, all or of `exclusive` | Conflict: the caller looks again, makes anew |
| rewrite | files that may hold the rows | done again |
| compact | the files that it joins | Conflict: nothing is lost, the next upkeep joins what is there then |
| create, upgrade, the first of any | the table's columns | the other run's table or columns are taken |
"""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc

from genodl_spark.core import storage
from genodl_spark.core.errors import Conflict, Damaged, InputError
from genodl_spark.lake import checksums, table_log
from genodl_spark.lake.checksums import TAG
from genodl_spark.lake.files import Change, StoredFile, Without, as_lists, holding, join, may_hold, read_file, rewrite
from genodl_spark.lake.schema import Column, Table, identifier, literal
from genodl_spark.lake.tables import TABLES
from genodl_spark.lake.transactions import (
    LostRace,
    Transaction,
    alone,
    application,
    delta_log,
    require_safe_commits,
    retried,
    told_apart,
)

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.types import StructType

    from genodl_spark.lake.parts import Part

_FEW_BYTES = 32 << 20  # of files that are gone through sooner here than a Spark job is planned


class Lake:
    """The tables below one URI.

    Every write is one Delta transaction: it is there whole, or not at all. `may_write` is called before each,
    and raises where it is not to be.
    """

    def __init__(self, spark: SparkSession, uri: str, may_write: Callable[[], None] | None = None) -> None:
        self.spark = spark
        self.uri = storage.absolute(uri)
        if spark is not None:  # StoredLake has none yet
            require_safe_commits(spark, self.uri)
        self.may_write = may_write or (lambda: None)
        self._whole: set[str] = set()  # URIs of files that were held against their checksums
        self._read: set[tuple[str, int, str | None]] = set()
        # URIs of damaged files: a commit takes them away unread, as all their rows are brought again
        self.given_up: set[str] = set()
        self._newest: dict[str, int] = {}  # versions that were the newest when last asked for

    def path(self, table: Table) -> str:
        return storage.join(self.uri, table.name)

    def model_uri(self, model_id: str) -> str:
        return storage.join(self.uri, "models", model_id)

    def log_path(self, table: Table) -> str:
        # models/ holds the model files as well as the table.
        return storage.join(self.path(table), "_delta_log")

    def version(self, table: Table) -> int | None:
        """Newest version of a table; None when it has not been created."""
        found = table_log.newest(self.log_path(table), self._newest.get(table.name))
        if found is not None:
            self._newest[table.name] = found
        return found

    def exists(self, table: Table) -> bool:
        return self.version(table) is not None

    def create(self, table: Table) -> None:
        """Makes a table as declared, without a row. InputError when it is there with a column missing
        or of another type than declared."""

        def attempt() -> None:
            if not self._checked(table):
                # held to that: where another run has made it since, this would be a version without anything
                self._transaction(table, since=-1).commit([], [], None)

        retried(attempt, Conflict)

    def _checked(self, table: Table) -> bool:
        """Whether a table is there; the first commit makes one. InputError as for `check`."""
        version = self.version(table)
        if version is not None:
            self.check(table, version)
        return version is not None

    def seen(self, table: Table) -> int:
        """The newest version, for who holds a later commit to it; -1 where the table is not there."""
        version = self.version(table)
        return -1 if version is None else version

    def check(self, table: Table, version: int) -> None:
        """InputError when a stored column of a version is missing or has another type than declared;
        an older version may lack what may be NULL."""
        schema = self._listed(table, version).get("metadata", {}).get("schemaString")
        if schema is None:
            self.read(table, version)
            return
        from pyspark.sql.types import StructType

        _check_columns(table, StructType.fromJson(json.loads(schema)), self.path(table), version != self.version(table))

    def read(self, table: Table, version: int | None = None, cohort: str | None = None, held: bool = True) -> DataFrame:
        """A table at one version, the newest when none is given; an empty one where it has not been created.

        Its files are held against their checksums first: of a table that cohorts part, those of `cohort` alone
        where that is given, as no others will be asked for; none where not `held`, for who calls `hold_plan` later.
        InputError when a stored column is missing or has another type than declared,
        Damaged for a file that has changed.
        """
        newest = self.version(table)
        if newest is None:
            return self.spark.createDataFrame([], table.spark_schema())
        asked = (table.name, newest if version is None else version, cohort)
        if held and asked not in self._read:
            self.hold(
                file
                for file in self.files(table, asked[1])
                if cohort is None or file.partition.get("cohort", cohort) == cohort
            )
            self._read.add(asked)
        rows = self._few_rows(table, newest) if version in (None, newest) else None
        if rows is None:
            reader = self.spark.read.format("delta")
            if version is not None:
                reader = reader.option("versionAsOf", version)
            rows = reader.load(self.path(table))
        lacking = _check_columns(table, rows.schema, self.path(table), version is not None and version != newest)
        if lacking:
            from pyspark.sql import functions as F

            rows = rows.withColumns({column.name: F.lit(None).cast(column.type) for column in lacking})
        return rows

    def _few_rows(self, table: Table, newest: int) -> DataFrame | None:
        """The newest version of a table whose files are listed beside it, few, small and whole
        on a local disk; None of any other, and where a newer one has come since `newest` was.

        To find out which files a query needs Delta replays the log by Spark jobs, which takes longer
        than reading all of few files. Where one of them has changed or is gone, Delta is asked after all,
        as the query may need it or not.
        """
        from pyspark.sql import DataFrame as Frame

        if not storage.is_local(self.uri):
            return None
        listed = self._listed(table, newest).get("allFiles")
        if not listed or any(file.get("deletionVector") for file in listed):
            return None
        if sum(file["size"] for file in listed) > _FEW_BYTES:
            return None
        files = self.files(table, newest)
        if not all(storage.is_file(file.uri) for file in files) or self.damaged(files):
            return None
        log, nothing = delta_log(self.spark, self.path(table))
        snapshot = log.update(False, nothing, nothing)
        beside = snapshot.checksumOpt()
        if int(snapshot.version()) != newest or beside.isEmpty() or beside.get().allFiles().isEmpty():
            return None
        jvm: Any = self.spark._jvm
        jvm.SparkSession.setActiveSession(self.spark._jsparkSession)  # the one that Delta makes the rows in
        return Frame(log.createDataFrame(snapshot, beside.get().allFiles().get(), False, nothing), self.spark)

    def hold(self, files: Iterable[StoredFile]) -> None:
        """Holds files against the checksums that the log has, once each: the JVM knows nothing of these.
        Damaged where one has changed."""
        for file, wrong in self.damaged(file for file in files if file.checksum):
            raise Damaged(wrong, file.uri)

    def damaged(self, files: Iterable[StoredFile], anywhere: bool = False) -> list[tuple[StoredFile, str]]:
        """Those of `files` that are not as their checksums have them, and what is wrong;
        each that is whole is looked at once.

        Tasks do it, unless the files are few and small. On HDFS and object stores, which check what they
        give out, only if `anywhere`.
        """
        asked = [file for file in files if file.uri not in self._whole and (anywhere or storage.is_local(file.uri))]
        if sum(file.size for file in asked) <= _FEW_BYTES:
            found = [(i, wrong) for i, file in enumerate(asked) if (wrong := wrong_with(file))]
        else:
            found = self._changed_among(asked)
        changed = {i for i, _ in found}
        self._whole |= {file.uri for i, file in enumerate(asked) if i not in changed}
        return [(asked[i], wrong) for i, wrong in sorted(found)]

    def _changed_among(self, files: Sequence[StoredFile]) -> list[tuple[int, str]]:
        """Places of files that are not as their checksums have them, and what is wrong; tasks look."""
        tasks = min(len(files), 4 * self.spark.sparkContext.defaultParallelism)
        rows = (
            self.spark.range(0, len(files), 1, tasks)
            .mapInArrow(partial(_changed, files=files), "file int, wrong string")
            .collect()
        )
        return [(row.file, row.wrong) for row in rows]

    def hold_plan(self, rows: DataFrame, tables: Iterable[Table]) -> None:
        """The same for the files of `tables` that a query reads, those that its conditions leave out not among them."""
        jvm: Any = self.spark._jvm
        of = getattr(jvm.org.apache.spark.sql.classic, "Dataset$").__getattr__("MODULE$").ofRows
        session, plan = self.spark._jsparkSession, rows._jdf.queryExecution().optimizedPlan()
        inner = plan.subqueriesAll()
        # What is read, not the plans: Spark takes none for a query that has a filter of dynamic pruning, as joins by a
        # partition's column have.
        leaves = [one.collectLeaves() for one in (plan, *(inner.apply(i) for i in range(inner.size())))]
        read = [some.apply(i) for some in leaves for i in range(some.size())]
        wanted = {storage.from_spark(uri) for one in read for uri in of(session, one).inputFiles()}
        for table in tables if wanted else []:
            version = self.version(table)
            if version is not None:
                self.hold(file for file in self.files(table, version) if file.uri in wanted)

    def read_files(self, table: Table, files: Sequence[StoredFile]) -> DataFrame:
        """The rows of some files of a table, without its partition columns."""
        from pyspark.sql.types import StructType

        schema = StructType([field for field in table.spark_schema().fields if field.name not in table.partitioned_by])
        if not files:
            return self.spark.createDataFrame([], schema)
        self.hold(files)
        reader = self.spark.read.schema(schema).option("__globPaths__", "false")  # a bracket in a path is a bracket
        return reader.parquet(*(file.uri for file in files))

    def live_files(self, table: Table, version: int, partition: Mapping[str, str]) -> list[str]:
        """URIs of the Parquet files of one version that hold a partition's rows, sorted."""
        from pyspark.sql import functions as F

        held, mixed = holding(table, self.files(table, version), partition)
        if not mixed:
            return [file.uri for file in held]
        found = (
            self.read(table, version)
            .where(condition(partition))
            .select(F.col("_metadata.file_path").alias("file"))
            .distinct()
            .collect()
        )
        return sorted(storage.from_spark(row.file) for row in found)

    def rows(
        self,
        table: Table,
        where: Mapping[str, str | Sequence[str]],
        version: int | None = None,
        columns: Sequence[str] | None = None,
    ) -> pa.Table:
        """The rows of a version, the newest when none is given, that match `where`: all columns, or those of `columns`.

        This process reads them: for few rows of a small table, of which a Spark job takes longer to plan than to read.
        InputError as for `check`.
        """
        version = self.version(table) if version is None else version
        if version is not None:
            self.check(table, version)
        wanted = {name: sorted(values) for name, values in as_lists(where).items()}
        asked = None if columns is None else list(dict.fromkeys([*columns, *wanted]))
        found = [table.arrow_schema().empty_table().select(asked or table.arrow_schema().names)]
        for file in self.files(table, version) if version is not None else []:
            if all(may_hold(table, file, name, values) for name, values in wanted.items()):
                part = read_file(table, file, asked)
                for name, values in wanted.items():
                    part = part.filter(pc.is_in(part.column(name), pa.array(values, part.schema.field(name).type)))
                found.append(part)
        rows = pa.concat_tables(found)
        return rows if columns is None else rows.select(list(columns))

    def count(self, table: Table, where: Mapping[str, str | Sequence[str]] | None = None) -> int:
        """Rows of the newest version, those that match `where`; 0 where the table has not been created."""
        version, where = self.version(table), where or {}
        if version is None:
            return 0
        held, mixed = holding(table, self.files(table, version), where)
        numbers = [n for n in (file.statistics.get("numRecords") for file in held) if n is not None]
        if not mixed and len(numbers) == len(held):
            return sum(numbers)
        rows = self.read(table, version)
        return rows.where(condition(where)).count() if where else rows.count()

    def append(self, table: Table, rows: DataFrame | pa.Table) -> None:
        self._checked(table)
        if not isinstance(rows, pa.Table) and self._widens(table, rows.columns):
            self.create(table)
            with told_apart(table), alone(self.path(table)):
                self._writer(table, rows).mode("append").save(self.path(table))
            return
        parts = self._written(table, rows)
        with self._dropped_if_lost(table, parts):
            retried(lambda: self._transaction(table).commit([], parts, None))

    def replace(
        self,
        table: Table,
        rows: DataFrame | pa.Table,
        where: Mapping[str, str | Sequence[str]],
        marks: Mapping[str, int] | None = None,
        since: int | None = None,
    ) -> None:
        """In one transaction removes the rows that match `where` (column -> value or values) and adds
        `rows`, which all match it.

        `marks`, `since`: as for `commit`.
        """
        self._checked(table)
        if isinstance(rows, pa.Table):
            for name, values in as_lists(where).items():
                if not pc.all(pc.is_in(rows.column(name), pa.array(values, pa.string()))).as_py() and rows.num_rows:
                    raise ValueError(f"table {table.name}: a row that has none of {values} for {name}")
        parts = self._written(table, rows, condition(where))
        with self._dropped_if_lost(table, parts):
            self.commit(table, parts, where, marks, since=since)

    def delete(self, table: Table, where: Mapping[str, str | Sequence[str]]) -> None:
        if self.exists(table):
            self.commit(table, [], where)

    def commit(
        self,
        table: Table,
        parts: Sequence[Part],
        where: Mapping[str, str | Sequence[str]],
        marks: Mapping[str, int] | None = None,
        exclusive: Mapping[str, str | Sequence[str]] | None = None,
        since: int | None = None,
    ) -> None:
        """In one transaction adds files that tasks wrote and takes away the rows that match
        `where`, as all new rows do.

        A file in which other rows stand too is written again without these. Of two commits at the same time
        that replace the same rows the second comes after the first: it replaces what that one has brought.
        Conflict instead, where that one was of the same `exclusive`. `since`: the version that the rows were made from;
        Conflict where there is any newer one, or with `exclusive` one of the same.
        `marks` are numbers by name that stand with the commit; see `marked`.
        """
        self._checked(table)
        text = condition(exclusive or where)
        name = text if exclusive else None
        seen = [since] if since is not None else []

        def attempt() -> None:
            transaction = self._transaction(table, since if name is None else None)
            if name is None:
                transaction.reads_all()
            elif seen and self._committed(table, name, seen[0], transaction.version):
                found = "found another run that has replaced the same rows meanwhile"
                raise Conflict(f"{table.name}: {found}; expected one at a time, run this one again")
            seen.append(transaction.version)
            replaced, mixed = holding(table, self.files(table, transaction.version), where)
            replaced += [file for file in mixed if file.uri in self.given_up]
            mixed = [file for file in mixed if file.uri not in self.given_up]
            touched, kept = self._without(table, mixed, where) if mixed else ([], [])
            if parts or replaced or touched or marks or transaction.version < 0:
                with self._dropped_if_lost(table, kept):
                    transaction.commit([*replaced, *touched], [*parts, *kept], text, name, marks)

        retried(attempt)

    def _committed(self, table: Table, name: str, after: int, until: int) -> bool:
        """Whether a commit after a version, and until another, was `exclusive` under a name."""
        sought = application(name)
        later = (
            action
            for version in range(after + 1, until + 1)
            for action in table_log.actions(self.log_path(table), version)
        )
        return any(action.get("txn", {}).get("appId") == sought for action in later)

    def _without(
        self, table: Table, files: list[StoredFile], where: Mapping[str, str | Sequence[str]]
    ) -> tuple[list[StoredFile], list[Part]]:
        """Those of `files` in which a row matches `where`, and new files with their other rows."""
        return self._rewritten(
            table, files, Without({name: pa.array(values, pa.string()) for name, values in as_lists(where).items()})
        )

    def _rewritten(self, table: Table, files: list[StoredFile], change: Change) -> tuple[list[StoredFile], list[Part]]:
        """Those of `files` that a change concerns, and the new ones in their place; tasks write them,
        unless they are few and small."""
        from genodl_spark.lake.parts import Part

        if not files:
            return [], []
        work = partial(
            rewrite, table=table, uri=self.path(table), files=files, change=change, name=uuid.uuid4().hex[:12]
        )
        if sum(file.size for file in files) <= _FEW_BYTES:
            here = work([pa.RecordBatch.from_arrays([pa.array(range(len(files)))], ["id"])])
            found = [(row["file"], row["part"]) for batch in here for row in batch.to_pylist()]
        else:
            rows = self.spark.range(0, len(files), 1, len(files)).mapInArrow(work, "file int, part string").collect()
            found = [(row.file, row.part) for row in rows]
        touched = sorted({file for file, _ in found})
        return [files[i] for i in touched], [Part.from_json(part) for _, part in found if part is not None]

    def rewrite(self, table: Table, where: Mapping[str, str | Sequence[str]], change: Change) -> bool:
        """Changes rows in the files that may hold some that match `where`, in one transaction;
        returns whether there were any."""

        def attempt() -> bool:
            transaction = self._transaction(table)
            transaction.reads_all()  # rows that come meanwhile have to be changed as well
            held, mixed = holding(table, self.files(table, transaction.version), where)
            touched, parts = self._rewritten(table, [*held, *mixed], change)
            if touched:
                with self._dropped_if_lost(table, parts):
                    transaction.commit(touched, parts, f"rewrite {table.name}")
            return bool(touched)

        return retried(attempt)

    def marked(self, table: Table, names: Iterable[str]) -> dict[str, int]:
        """The numbers that the last commits with them have left for some names; names without one are left out."""
        version = self.version(table)
        if version is None:
            return {}
        named = {application(name): name for name in names}
        stored = self._listed(table, version).get("setTransactions")
        if stored is None:  # Delta lists only so many beside a version
            log, nothing = delta_log(self.spark, self.path(table))
            known = log.getSnapshotAt(version, nothing, nothing).transactions()
            stored = [{"appId": one, "version": known.apply(one)} for one in named if known.contains(one)]
        return {named[entry["appId"]]: entry["version"] for entry in stored if entry["appId"] in named}

    def upgrade(self, table: Table) -> list[str]:
        """Adds the declared columns that a table of an older version of this package lacks,
        where they may be NULL; returns their names.

        InputError for another difference.
        """

        from pyspark.errors import AnalysisException

        def attempt() -> list[str]:
            with told_apart(table), alone(self.path(table)):
                found = self.spark.read.format("delta").load(self.path(table)).columns
                lacking = [column for column in table.columns if column.name not in found and column.nullable]
                if lacking:
                    columns = ", ".join(f"{identifier(c.name)} {c.type} COMMENT {literal(c.doc)}" for c in lacking)
                    try:
                        self.spark.sql(f"ALTER TABLE delta.{identifier(self.path(table))} ADD COLUMNS ({columns})")
                    except AnalysisException as error:
                        # another run has added them since they were looked for, or since Spark looked
                        if error.getCondition() in ("FIELD_ALREADY_EXISTS", "DELTA_DUPLICATE_COLUMNS_FOUND"):
                            raise LostRace(
                                f"{table.name}: found another run that adds columns to it; "
                                "expected none, run this one again"
                            ) from error
                        raise
                return [column.name for column in lacking]

        added = retried(attempt)
        self.create(table)
        return added

    def small_files(self, table: Table, small: int, fewest: int) -> list[list[StoredFile]]:
        """Files below `small` bytes, of each partition that has `fewest` of them at least."""
        version = self.version(table)
        groups: dict[str, list[StoredFile]] = {}
        for file in self.files(table, version) if version is not None and table.compacted else []:
            if file.size < small:
                groups.setdefault(json.dumps(file.partition, sort_keys=True), []).append(file)
        return [files for files in groups.values() if len(files) >= fewest]

    def compact(self, table: Table, groups: list[list[StoredFile]]) -> int:
        """Writes the rows of each group of files again as one, in the table's order;
        returns how many files there are then.

        No row changes, and the commit says so: incremental readers take no notice.
        Conflict where a file has gone meanwhile.
        """
        from genodl_spark.lake.parts import Part

        transaction = self._transaction(table)
        work = partial(join, table=table, uri=self.path(table), groups=groups, name=uuid.uuid4().hex[:12])
        found = self.spark.range(0, len(groups), 1, len(groups)).mapInArrow(work, "part string").collect()
        parts = [Part.from_json(row.part) for row in found]
        with self._dropped_if_lost(table, parts):
            transaction.commit([file for files in groups for file in files], parts, None, data_change=False)
        return len(parts)

    def _written(self, table: Table, rows: DataFrame | pa.Table, where: str | None = None) -> list[Part]:
        """Files of rows, which a Spark job writes, or this process where they are few:
        a job would take longer to plan."""
        from genodl_spark.lake.parts import PartWriter

        if not isinstance(rows, pa.Table):
            return self._transaction(table).write(rows, where)
        writer = PartWriter(table, self.path(table), uuid.uuid4().hex[:12])
        for batch in rows.combine_chunks().to_batches():
            writer.write(batch)
        return writer.close()

    @contextlib.contextmanager
    def _dropped_if_lost(
        self, table: Table, parts: Sequence[Part], refusals: tuple[type[Exception], ...] = (Conflict,)
    ) -> Iterator[None]:
        """Removes files that were written for a commit where that is refused: then no version knows of them.
        After any other error one may."""
        try:
            yield
        except refusals:
            for part in parts:
                with contextlib.suppress(OSError):
                    storage.remove_file(storage.join(self.path(table), unquote(part.path)))
            raise

    def _transaction(self, table: Table, since: int | None = None) -> Transaction:
        """A transaction on the newest version. Conflict where that is not `since`."""
        self.may_write()
        made = Transaction(self.spark, table, self.path(table))
        if since is not None and made.version != since:
            found = f"found version {made.version}, where this run has read {since}"
            raise Conflict(f"{table.name}: {found}; expected no other run meanwhile, run this one again")
        return made

    def _widens(self, table: Table, columns: Iterable[str]) -> bool:
        """Whether rows of these columns bring some that an open table does not have yet."""
        return table.open and not set(columns) <= set(self.read(table, held=False).columns)

    def files(self, table: Table, version: int) -> list[StoredFile]:
        """The Parquet files of one version, sorted, from the log alone; none of version -1.

        Delta lists them beside the version while they are few; otherwise its log has to be replayed, by Spark jobs.
        InputError for a version that the log has no more.
        """
        files = self._listed(table, version).get("allFiles") if version >= 0 else []
        if files is None:
            from py4j.protocol import Py4JJavaError
            from pyspark.sql import DataFrame as Frame

            log, nothing = delta_log(self.spark, self.path(table))
            try:
                rows = Frame(log.getSnapshotAt(version, nothing, nothing).allFiles().toDF(), self.spark)
            except Py4JJavaError as error:
                reason = str(error.java_exception.getMessage()).splitlines()[0][:200]
                text = (
                    f"found version {version} of table {table.name} gone from its log ({reason}); "
                    "expected one that is there, run this again"
                )
                raise InputError(text, self.path(table)) from error
            files = [row.asDict() for row in rows.select("path", "partitionValues", "size", "stats", "tags").collect()]
        uri = self.path(table)
        return sorted(
            StoredFile(
                *(
                    storage.join(uri, unquote(f["path"])),
                    f["path"],
                    f["partitionValues"],
                    f["size"],
                    json.loads(f.get("stats") or "{}"),
                ),
                (f.get("tags") or {}).get(TAG),
            )
            for f in files
        )

    def _listed(self, table: Table, version: int) -> dict[str, Any]:
        """What Delta keeps beside a version: its files, marks and metadata, as far as they are few;
        {} where it is not there yet, or cut off."""
        with contextlib.suppress(InputError, ValueError):
            found: dict[str, Any] = storage.read_json(storage.join(self.log_path(table), f"{version:020}.crc"))
            return found
        return {}

    def merge(self, table: Table, rows: DataFrame | pa.Table, since: int | None = None) -> None:
        """Upserts `rows` by the table's key; a row that differs in nothing but its time stamps is left as it is.

        Columns that only `rows` has are added to an open table. `since`, for an Arrow table: as for `commit`.
        """
        self._checked(table)
        if isinstance(rows, pa.Table) and not table.open:
            retried(lambda: self._merge_few(table, rows, since))
        elif not self._insert_first(table, rows):
            frame = self.spark.createDataFrame(rows) if isinstance(rows, pa.Table) else rows
            retried(lambda: self._merge_many(table, frame))

    def _insert_first(self, table: Table, rows: DataFrame | pa.Table) -> bool:
        """Merges rows into a table that has none, in a third of the time that a merge takes;
        returns whether it had none."""
        names = rows.column_names if isinstance(rows, pa.Table) else rows.columns
        transaction = self._transaction(table.with_columns(names))
        if transaction.version >= 0 and (self.files(table, transaction.version) or self._widens(table, names)):
            return False
        transaction.reads_all()  # else another run's first rows, of the same keys perhaps, would stand beside these
        try:
            parts = self._written(table, rows) if isinstance(rows, pa.Table) else transaction.write(rows)
            with self._dropped_if_lost(table, parts):
                transaction.commit([], parts, f"merge into {table.name}")
        except LostRace:
            return False
        return True

    def _merge_many(self, table: Table, rows: DataFrame) -> None:
        keys = " AND ".join(f"t.{identifier(k)} = s.{identifier(k)}" for k in table.key)
        stored = set(self.read(table).columns)
        compared = [f for f in rows.schema.fields if f.name not in table.key and not f.name.endswith("_at")]
        differs = " OR ".join(_differs(f.name, f.dataType.typeName(), f.name in stored) for f in compared)
        merge = self._delta(table).alias("t").merge(rows.alias("s"), keys)
        if table.open:
            merge = merge.withSchemaEvolution()
        if compared:
            merge = merge.whenMatchedUpdateAll(condition=differs)
        with told_apart(table), alone(self.path(table)):
            merge.whenNotMatchedInsertAll().execute()

    def _merge_few(self, table: Table, rows: pa.Table, since: int | None) -> None:
        """`merge` of a few rows, without a Spark job: files with a row that changes are written again."""
        assert not table.partitioned_by and not table.open
        new = {_key(table, row): row for row in rows.to_pylist()}
        if len(new) < rows.num_rows:
            raise ValueError(f"table {table.name}: several rows of one key")
        transaction = self._transaction(table, since)
        transaction.reads_all()
        removed: list[StoredFile] = []
        kept: list[dict[str, Any]] = []
        for file in self.files(table, transaction.version):
            if not new or not all(file.may_hold(name, [key[i] for key in new]) for i, name in enumerate(table.key)):
                continue
            stored, others = read_file(table, file).to_pylist(), []
            for row in stored:
                key = _key(table, row)
                if key not in new or _same(row, new[key]):
                    new.pop(key, None)
                    others.append(row)
            if len(others) < len(stored):
                removed.append(file)
                kept += others
        if new:
            parts = self._written(table, pa.Table.from_pylist([*kept, *new.values()], table.arrow_schema()))
            with self._dropped_if_lost(table, parts):
                transaction.commit(removed, parts, f"merge into {table.name}")

    def _delta(self, table: Table) -> Any:
        from delta.tables import DeltaTable

        return DeltaTable.forPath(self.spark, self.path(table))

    def _writer(self, table: Table, rows: DataFrame) -> Any:
        writer = rows.write.format("delta")
        return writer.option("mergeSchema", "true") if table.open else writer

    def existing(self) -> list[Table]:
        return [table for table in self.tables().values() if self.exists(table)]

    def tables(self) -> dict[str, Table]:
        """Every table that the lake may have, by name: those declared in this package, and those that sources
        of users' own have made here.

        What the latter are stands in their logs. InputError for one whose declaration cannot be read.
        """
        found = {name: self._own_table(name) for name in storage.folders(self.uri) if name not in TABLES}
        return {**TABLES, **{name: table for name, table in found.items() if table is not None}}

    def _own_table(self, name: str) -> Table | None:
        log_path = storage.join(self.uri, name, "_delta_log")
        version = table_log.newest(log_path)
        if version is None:
            return None
        metadata = table_log.metadata(log_path, version)
        if metadata is None:
            log, nothing = delta_log(self.spark, storage.join(self.uri, name))
            metadata = json.loads(log.getSnapshotAt(version, nothing, nothing).metadata().json())["metaData"]
        return Table.from_metadata(name, metadata, storage.join(self.uri, name))


def condition(where: Mapping[str, str | Sequence[str]]) -> str:
    """SQL condition for rows whose columns hold the given values; names and values are quoted."""
    terms = [f"{identifier(name)} IN ({', '.join(map(literal, values))})" for name, values in as_lists(where).items()]
    return " AND ".join(terms)


def wrong_with(file: StoredFile) -> str | None:
    """What is wrong with a file by its checksum, None for nothing. One that is gone is nothing changed:
    who reads it will say so."""
    try:
        checksums.check_file(file.uri, file.checksum)
    except Damaged as error:
        return error.message
    except FileNotFoundError:
        pass
    return None


def _changed(batches: Iterable[pa.RecordBatch], files: Sequence[StoredFile]) -> Iterable[pa.RecordBatch]:
    """For mapInArrow over indices into `files`: those that have changed."""
    for batch in batches:
        found = [(i, wrong) for i in batch.column(0).to_pylist() if (wrong := wrong_with(files[i]))]
        yield pa.RecordBatch.from_arrays(
            [pa.array([i for i, _ in found], pa.int32()), pa.array([w for _, w in found], pa.string())],
            ["file", "wrong"],
        )


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


def _check_columns(table: Table, schema: StructType, path: str, older: bool = False) -> list[Column]:
    """The declared columns that a version lacks: of an `older` one those that may be NULL, as it was written before
    they were declared. InputError for any other, and for a column of another type."""
    found = {field.name: field.dataType.simpleString() for field in schema.fields}
    lacking = []
    for column, declared in zip(table.columns, table.spark_schema().fields, strict=True):
        expected = declared.dataType.simpleString()
        if declared.name not in found:
            if older and declared.nullable:
                lacking.append(column)
                continue
            advice = "run genodl maintain, which adds it" if declared.nullable else "restore the column"
            raise InputError(f"table {table.name} has no column {declared.name}; expected {expected}; {advice}", path)
        if found[declared.name] != expected:
            raise InputError(
                f"table {table.name} holds {declared.name} as {found[declared.name]}; "
                f"expected {expected}; restore the column",
                path,
            )
    return lacking
