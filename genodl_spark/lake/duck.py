"""The lake's views in DuckDB, over the files of the newest versions, which are held against their checksums first;
nothing starts a JVM.

DuckDB runs in memory. Once the views of a statement are there it may open these files and no others,
and takes no settings any more.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from datetime import datetime
from typing import Any

import duckdb
import pyarrow as pa

from genodl_spark.core import storage
from genodl_spark.core.errors import Damaged, InputError
from genodl_spark.lake import duck_statements
from genodl_spark.lake.duck_statements import Statement
from genodl_spark.lake.files import StoredFile, read_file
from genodl_spark.lake.schema import Table
from genodl_spark.lake.stored import StoredLake
from genodl_spark.lake.tables.learning import MODELS, PREDICTIONS
from genodl_spark.lake.views import _COMPARED, _ENTITY, _LATEST, _OF_TASK

_ROWS = 1000  # fetched at once
_GLOB = re.compile(r"[*?\[\]{}]")  # of a path that DuckDB would take for a pattern
_TYPES = {
    **{
        "string": "VARCHAR",
        "bigint": "BIGINT",
        "int": "INTEGER",
        "smallint": "SMALLINT",
        "tinyint": "TINYINT",
        "double": "DOUBLE",
    },
    **{"float": "FLOAT", "boolean": "BOOLEAN", "binary": "BLOB", "timestamp": "TIMESTAMPTZ", "date": "DATE"},
}
# Spark's round: half up, of the number's shortest decimal form; 17 digits of a number below 1e9 that shows after
# rounding have 28 places at most.
_ROUND = """CASE WHEN typeof(x) <> 'DOUBLE' THEN error('round of what is no double')
    WHEN NOT isfinite(x) OR abs(x) >= 1e15 THEN x
    WHEN abs(x) < 1e9 THEN CAST(system.main.round(TRY_CAST(CAST(x AS VARCHAR) AS DECIMAL(38, 28)), {places}) AS DOUBLE)
    ELSE CAST(system.main.round(TRY_CAST(CAST(x AS VARCHAR) AS DECIMAL(38, 18)), {places}) AS DOUBLE) END"""
_SETTINGS = (
    "SET TimeZone = 'UTC'",
    "SET default_null_order = 'nulls_first_on_asc_last_on_desc'",
    "SET python_enable_replacements = false",
    "SET autoinstall_known_extensions = false",
    "SET autoload_known_extensions = false",
    f"CREATE MACRO round(x) AS {_ROUND.format(places=0)}, (x, n) AS {_ROUND.format(places='n')}",
    """CREATE MACRO "/"(a, b) AS CASE WHEN b = 0 THEN error('division by zero') ELSE system.main."/"(a, b) END""",
)
# Of what an answer may be made; other types are printed in another way than Spark's.
_ANSWERED = (
    "BOOLEAN",
    "TINYINT",
    "SMALLINT",
    "INTEGER",
    "BIGINT",
    "HUGEINT",
    "FLOAT",
    "DOUBLE",
    "VARCHAR",
    "BLOB",
    "DATE",
    "TIMESTAMP WITH TIME ZONE",
)
_LARGEST = 1 << 63


class Duck:
    """One statement's DuckDB over a lake."""

    def __init__(self, lake: StoredLake) -> None:
        self._lake = lake
        self._connection = duckdb.connect()
        self._files: list[str] = []
        for setting in _SETTINGS:
            self._connection.execute(setting)

    def close(self) -> None:
        self._connection.close()

    def answer(self, sql: str, judge: bool = True) -> tuple[list[str], Iterator[tuple[Any, ...]]]:
        """Columns and rows that Spark would answer, values as Python has them, time stamps in UTC.

        InputError where the statement is no query over the lake's views, or DuckDB might answer otherwise.
        `judge`: not for our own.
        """
        try:
            statement = duck_statements.judged(self._connection, sql) if judge else None
            self._provide(statement.relations if statement is not None else self._connection.get_table_names(sql))
            asked = self._connection.execute(sql)
            described = [(column[0], str(column[1])) for column in asked.description or []]
            for _, type_ in described:
                if not _is_answered(type_):
                    raise duck_statements.refusal(f"an answer of type {type_}")
            return _header(statement, [name for name, _ in described]), _rows(asked)
        except duckdb.Error as error:
            raise _refused(error) from error

    def _provide(self, names: Collection[str]) -> None:
        """Makes the views of these names, and locks DuckDB up."""
        tables = {table.name.lower(): table for table in self._lake.tables().values()}
        tasks = (
            sorted(set(self._lake.rows(MODELS, {}).column("task").to_pylist()))
            if any(name.startswith(_OF_TASK) and name not in (_LATEST, _COMPARED) for name in names)
            else []
        )
        of_task = {f"{_OF_TASK}{task}".lower(): task for task in tasks}
        duck_statements.known(names, {*tables, _LATEST, _COMPARED, *of_task})
        for table in {tables.get(name, PREDICTIONS).name: tables.get(name, PREDICTIONS) for name in names}.values():
            self._table(table)
        for name in names:
            if name not in tables:
                body = (
                    _LATEST_SQL
                    if name == _LATEST
                    else _compared()
                    if name == _COMPARED
                    else self._of_task(of_task[name])
                )
                self._connection.execute(f"CREATE VIEW {quoted(name)} AS {body}")
        if self._files:
            self._connection.execute(f"SET allowed_paths = [{', '.join(map(_text, self._files))}]")
        self._connection.execute("SET enable_external_access = false")
        self._connection.execute("SET lock_configuration = true")

    def _table(self, table: Table) -> None:
        """A view of a table as Spark reads it."""
        version = self._lake.version(table)
        declared = {column.name: column.type.replace(" ", "") for column in table.columns}
        stored = declared
        if version is not None:
            self._lake.check(table, version, to_read=True)
            stored = self._lake.fields(table, version)
            stored |= {name: type_ for name, type_ in declared.items() if name not in stored}  # NULL in every row
        files = [] if version is None else self._lake.files(table, version)
        # those of Spark too, whose pages DuckDB does not hold against their checksums
        for file, wrong in self._lake.damaged(files):
            raise Damaged(wrong, file.uri)
        if not files:
            body = (
                "SELECT "
                f"{', '.join(f'CAST(NULL AS {duck_type(type_)}) AS {quoted(name)}' for name, type_ in stored.items())} "
                "WHERE false"
            )
        elif storage.is_local(self._lake.uri) and not any(_GLOB.search(file.uri) for file in files):
            columns = ", ".join(
                f"CAST({quoted(name)} AS {duck_type(type_)}) AS {quoted(name)}" for name, type_ in stored.items()
            )
            body = f"SELECT {columns} FROM ({' UNION ALL BY NAME '.join(self._scans(table, files, stored))})"
        else:
            parts = [read_file(table, file) for file in files]
            self._connection.register(f"_{table.name}", pa.concat_tables(parts, promote_options="default"))
            body = f"SELECT {', '.join(map(quoted, stored))} FROM {quoted(f'_{table.name}')}"
        self._connection.execute(f"CREATE VIEW {quoted(table.name)} AS {body}")

    def _scans(self, table: Table, files: list[StoredFile], stored: dict[str, str]) -> Iterator[str]:
        """The files of each partition, with the partition's values, which the files do not hold;
        and all columns, in case that no file has one."""
        of: dict[str, list[str]] = {}
        for file in files:
            of.setdefault(json.dumps([file.partition.get(name) for name in table.partitioned_by]), []).append(
                storage.local_path(file.uri)
            )
        nothing = ", ".join(f"CAST(NULL AS {duck_type(type_)}) AS {quoted(name)}" for name, type_ in stored.items())
        yield f"SELECT {nothing} WHERE false"
        for values, paths in of.items():
            self._files += paths
            constants = [
                f", {'NULL' if value is None else _text(value)} AS {quoted(name)}"
                for name, value in zip(table.partitioned_by, json.loads(values), strict=True)
            ]
            listed = ", ".join(map(_text, paths))
            yield (
                f"SELECT *{''.join(constants)} FROM read_parquet([{listed}], union_by_name = true, "
                "hive_partitioning = false)"
            )

    def _of_task(self, task: str) -> str:
        """As `views.of_task`."""
        models = self._lake.rows(MODELS, {"task": task})
        classes = sorted({name for names in models.column("classes").to_pylist() for name in names or []})
        names = PREDICTIONS.column_names
        at = names.index("probabilities")
        columns = [f"probabilities[{_text(name)}] AS {quoted(f'probability_{name}')}" for name in classes]
        shown = ", ".join([*map(quoted, names[:at]), *columns, *map(quoted, names[at + 1 :])])
        return f"SELECT {shown} FROM ({_LATEST_SQL}) WHERE task = {_text(task)}"


_LATEST_SQL = f"""SELECT * EXCLUDE (_rank) FROM (SELECT *, row_number() OVER (PARTITION BY {", ".join(_ENTITY)}
    ORDER BY model_version DESC, scored_at DESC, model_id) AS _rank FROM {PREDICTIONS.name}) WHERE _rank = 1"""


def _compared() -> str:
    """As `views.compared`."""
    kept = ("model_id", "model_version", "predicted", "value", "uncertainty", "abstained")
    sides = ", ".join(
        f"{side}.{name} AS {long}_{name}" for side, long in (("a", "champion"), ("b", "challenger")) for name in kept
    )
    return f"""SELECT {", ".join(_ENTITY)}, {sides}, a.predicted = b.predicted AS agree,
        coalesce(b.probabilities[a.predicted], b.value) - a.value AS difference
        FROM ({_LATEST_SQL}) a JOIN {PREDICTIONS.name} b USING ({", ".join(_ENTITY)}) WHERE a.model_id <> b.model_id"""


def duck_type(type_: str) -> str:
    """A type of Spark SQL, without blanks, as DuckDB writes it."""
    kind, _, inner = type_.removesuffix(">").partition("<")
    if kind == "array":
        return f"{duck_type(inner)}[]"
    if kind == "map":
        key, _, value = inner.partition(",")
        return f"MAP({duck_type(key)}, {duck_type(value)})"
    return _TYPES.get(kind, kind.upper())


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _is_answered(type_: str) -> bool:
    if type_.endswith("[]"):
        return _is_answered(type_.removesuffix("[]"))
    if type_.startswith("MAP("):
        key, _, value = type_.removeprefix("MAP(").removesuffix(")").partition(", ")
        return _is_answered(key) and _is_answered(value)
    return type_ in _ANSWERED


def _header(statement: Statement | None, found: list[str]) -> list[str]:
    return found if statement is None or statement.names is None else statement.names


def _rows(asked: duckdb.DuckDBPyConnection) -> Iterator[tuple[Any, ...]]:
    try:
        while rows := asked.fetchmany(_ROWS):
            for row in rows:
                if any(isinstance(value, int) and not -_LARGEST <= value < _LARGEST for value in row):
                    raise duck_statements.refusal("a number beyond what Spark's bigint holds")
                yield tuple(map(_local, row))
    except duckdb.Error as error:
        raise _refused(error) from error


def _local(value: Any) -> Any:
    """A time stamp as Spark hands it out: of this machine's zone, without saying so; other values as they are."""
    return (
        value.astimezone().replace(tzinfo=None) if isinstance(value, datetime) and value.tzinfo is not None else value
    )


def _refused(error: duckdb.Error) -> InputError:
    return duck_statements.refusal(" ".join(str(error).split("\n")[0].split()))
