"""Delta's optimistic transactions, through the JVM: what is read, what is committed, which errors say that another
run came first, and another try.

Of two commits at the same time one comes first, and the other is held against it. What it had read, and what it takes
away, must be as it was; otherwise nothing of it is there, and `LostRace` says so. `retried` does such work again.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from genodl_spark.core import session, storage
from genodl_spark.core.errors import Conflict, InputError
from genodl_spark.lake.files import StoredFile
from genodl_spark.lake.parts import Part
from genodl_spark.lake.schema import Table, identifier

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

log = logging.getLogger("genodl")
T = TypeVar("T")

_ATTEMPTS = 12
_COMPILED = "spark.sql.codegen.wholeStage"
_LONGEST_WAIT = 4.0  # seconds between two attempts
_FIRST_CAME = ("Concurrent", "MetadataChanged", "ProtocolChanged")  # how Delta's exceptions of this kind begin
_LOG_FILE_THERE = ("FileAlreadyExistsException", "FileAlreadyExists")


class LostRace(Conflict):
    """Another run has committed first what a commit depends on: nothing of this one is there,
    and it may be done again from what is there now."""


def retried(work: Callable[[], T], after: type[Conflict] = LostRace) -> T:
    """What `work` returns, done again `after` another run came first; that error where it happens time and again.

    After any Conflict where `work` looks at the tables again from the start.
    """
    jitter = random.Random()  # of two runs that wait the same time both would meet again; no result depends on it
    for attempt in range(1, _ATTEMPTS):
        try:
            return work()
        except after as error:
            log.info("attempt %d: %s", attempt, error)
            time.sleep(jitter.uniform(0, min(0.05 * 2**attempt, _LONGEST_WAIT)))
    return work()


@contextlib.contextmanager
def told_apart(table: Table) -> Iterator[None]:
    """Lets what fails within because another run came first fail as `LostRace`."""
    try:
        yield
    except Exception as error:
        reason = first_came(error)
        if reason is None:
            raise
        raise LostRace(
            f"{table.name}: found another run that has changed it meanwhile ({reason}); "
            "expected none, run this one again"
        ) from error


def first_came(error: BaseException) -> str | None:
    """What an error of Delta's, as py4j or as PySpark has it, says of another run's commit;
    None where it is no such error."""
    name = type(error).__name__
    if name.startswith(_FIRST_CAME):
        return _first_line(name, str(error))
    java = getattr(error, "java_exception", None) or getattr(error, "_origin", None)
    for _ in range(10):  # causes of causes
        if java is None:
            return None
        name, text = str(java.getClass().getSimpleName()), str(java.getMessage())
        if name.startswith(_FIRST_CAME) or (name in _LOG_FILE_THERE and "_delta_log" in text):
            return _first_line(name, text)
        java = java.getCause()
    return None


def _first_line(name: str, text: str) -> str:
    return f"{name}: {text.strip().splitlines()[0][:200]}" if text.strip() else name


@contextlib.contextmanager
def alone(uri: str) -> Iterator[None]:
    """Keeps commits to one table at one time where the file system does not.

    A commit is a file that must not be there yet. HDFS and object stores see to that, S3 where it is told to
    (ConditionalPutLogStore.java);
    Hadoop's local file system looks first and writes then, between which another process may do the same.
    The lock is the kernel's, on the folder itself, and ends with the process.
    """
    if not storage.is_local(uri):
        yield
        return
    try:
        folder = os.open(storage.local_path(uri), os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        yield
        return
    try:
        with contextlib.suppress(OSError):  # a network file system that locks no folders
            fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def require_safe_commits(spark: SparkSession, uri: str) -> None:
    """InputError for a lake on S3 where the session's JVM cannot commit there, or would do it so that
    of two commits of the same version at the same time one overwrites the other."""
    if not storage.is_s3(uri):
        return
    jvm: Any = spark._jvm
    if spark.sparkContext.getConf().get("spark.delta.logStore.s3a.impl") != session.S3_LOG_STORE:
        found = "found a session of Spark that does not commit to S3 by conditional puts"
        raise InputError(f"{found}; expected spark.delta.logStore.s3a.impl to be {session.S3_LOG_STORE}", uri)
    try:
        jvm.org.apache.spark.util.Utils.classForName(session.S3_LOG_STORE, False, False)
    except Exception as error:
        raise InputError(
            "found no way from Spark to S3; expected its jars beside Spark's, run: make object-store", uri
        ) from error


def application(name: str) -> str:
    """The name of a Delta transaction identifier: nothing of a user's own stands in the log."""
    return hashlib.sha256(name.encode()).hexdigest()[:32]


class Transaction:
    """One transaction on a table, which reads its newest version. Of a table that is not there
    it makes the first, as declared.

    `version`: that which was read, -1 where there is none.
    """

    def __init__(self, spark: SparkSession, table: Table, uri: str) -> None:
        self._spark, self._table, self._uri = spark, table, uri
        log, nothing = delta_log(spark, uri)
        self._transaction = log.startTransaction(nothing, nothing)
        self.version = int(self._transaction.readVersion())
        if self.version < 0:
            jvm: Any = spark._jvm
            made = jvm.org.apache.spark.sql.delta.actions.Action.fromJson(json.dumps({"metaData": table.metadata()}))
            self._transaction.updateMetadataForNewTable(made)

    def reads_all(self) -> None:
        """Says that what is committed depends on every row: then any other run's change in between is a lost race."""
        self._transaction.readWholeTable()

    def write(self, rows: DataFrame, where: str | None = None) -> list[Part]:
        """Writes rows to files by a Spark job, held against the table's constraints and the SQL condition `where`;
        no commit knows of them yet.

        Columns that the table has and `rows` lack are NULL.
        """
        from pyspark.sql import functions as F
        from pyspark.sql.types import StructType

        jvm: Any = self._spark._jvm
        delta = jvm.org.apache.spark.sql.delta
        stored = StructType.fromJson(json.loads(self._transaction.metadata().schemaString())).fields
        given = [F.col(identifier(field.name)) if field.name in rows.columns else F.lit(None) for field in stored]
        columns = [column.cast(field.dataType).alias(field.name) for column, field in zip(given, stored, strict=True)]
        constraints = jvm.java.util.ArrayList()
        if where is not None:
            parsed = self._spark._jsparkSession.sessionState().sqlParser().parseExpression(where)
            constraints.add(getattr(delta.constraints, "Constraints$Check")(f"rows are those of {where}", parsed))
        converters = jvm.scala.jdk.javaapi.CollectionConverters
        found = self._transaction.writeFiles(
            rows.select(columns)._jdf, _nothing(jvm), False, converters.asScala(constraints).toSeq()
        )
        made = []
        for action in converters.asJava(found):
            add = json.loads(action.json())["add"]
            statistics = add.get("stats") or "{}"
            count = json.loads(statistics).get("numRecords", 0)
            made.append(
                Part(add["path"], add["partitionValues"], add["size"], count, statistics, add["modificationTime"])
            )
        return made

    def commit(
        self,
        removed: Sequence[StoredFile],
        parts: Sequence[Part],
        replaces: str | None,
        exclusive: str | None = None,
        marks: Mapping[str, int] | None = None,
        data_change: bool = True,
    ) -> None:
        """Commits a change of files. LostRace where a file of `removed` has gone, or another run has
        committed with the same `exclusive`.

        `replaces`: what the commit does, None for an append. `marks`: numbers by name that stand with the commit.
        """
        jvm: Any = self._spark._jvm
        delta = jvm.org.apache.spark.sql.delta
        now = int(time.time() * 1000)
        common = {"deletionTimestamp": now, "dataChange": data_change, "extendedFileMetadata": True}
        actions = [
            {"remove": {"path": f.path, "partitionValues": f.partition, "size": f.size, **common}} for f in removed
        ]
        actions += [{"add": {**part.add()["add"], "dataChange": data_change}} for part in parts]
        if exclusive is not None:
            # What txnVersion() does, which also asks for the last version: a replay of the log.
            # Versions of a table grow just as well.
            self._transaction.readTxn().addOne(application(exclusive))
            actions.append({"txn": {"appId": application(exclusive), "version": self.version + 1, "lastUpdated": now}})
        for name, number in (marks or {}).items():
            actions.append({"txn": {"appId": application(name), "version": number, "lastUpdated": now}})
        read, listed = delta.actions.Action.fromJson, jvm.java.util.ArrayList()
        for action in actions:
            listed.add(read(json.dumps(action)))
        # A write: for an update by hand Delta carries no totals and no list of files on, and replays the log after it.
        option = getattr(jvm.scala, "Option$").__getattr__("MODULE$")
        mode = jvm.org.apache.spark.sql.SaveMode.valueOf("Append" if replaces is None else "Overwrite")
        write = getattr(delta, "DeltaOperations$Write")(mode, option.empty(), option.apply(replaces), option.empty())
        first = self.version < 0
        if first:
            storage.make_directory(self._uri)  # so that there is something to lock
        with (
            told_apart(self._table),
            alone(self._uri),
            _interpreted(self._spark) if first else contextlib.nullcontext(),
        ):
            self._transaction.commit(jvm.scala.jdk.javaapi.CollectionConverters.asScala(listed).toSeq(), write)


@contextlib.contextmanager
def _interpreted(spark: SparkSession) -> Iterator[None]:
    """Has Spark run what it plans within without compiling it. Delta replays the log of a table's first version
    by a job over a handful of rows, which takes a second less so, where it is the first job of a session."""
    if spark.conf.get(_COMPILED) != "true":
        yield
        return
    spark.conf.set(_COMPILED, "false")
    try:
        yield
    finally:
        spark.conf.set(_COMPILED, "true")


def delta_log(spark: SparkSession, uri: str) -> tuple[Any, Any]:
    """Delta's log of the table at `uri`, in the JVM, and the JVM's None."""
    jvm: Any = spark._jvm
    return jvm.org.apache.spark.sql.delta.DeltaLog.forTable(spark._jsparkSession, uri), _nothing(jvm)


def _nothing(jvm: Any) -> Any:
    return getattr(jvm.scala, "Option$").__getattr__("MODULE$").empty()
