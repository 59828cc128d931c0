"""SQL over the lake's tables, and listings of what it holds."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from genodl_spark.core import session
from genodl_spark.core.errors import InputError
from genodl_spark.core.output import cell, plain, reader_left
from genodl_spark.job.config import from_stored
from genodl_spark.job.run import Report, Run
from genodl_spark.lake import statements
from genodl_spark.lake.duck import Duck
from genodl_spark.lake.schema import identifier
from genodl_spark.lake.tables.learning import MODELS, PREDICTIONS
from genodl_spark.registry.listings import LISTINGS

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

SHOWN = 1000
_SMALL = 1 << 20  # bytes of a table that a session is warmed with, at most


# What a task says of a value that an expression cannot take, as Spark names it in the JVM.
_OF_VALUES = (
    "SparkArithmeticException",
    "SparkArrayIndexOutOfBoundsException",
    "SparkDateTimeException",
    "SparkNumberFormatException",
)


def query(run: Run, sql: str) -> None:
    """Runs one query; prints every row as TSV under a header, and puts the first 1,000 into the report as `result`.

    InputError where the statement is anything but a query over the lake's views;
    nothing of it was analysed or run then.
    """
    run.require_lake()
    run.start_ahead()  # libraries are loaded meanwhile
    from py4j.protocol import Py4JJavaError
    from pyspark.errors import (
        AnalysisException,
        ArithmeticException,
        ArrayIndexOutOfBoundsException,
        DateTimeException,
        NumberFormatException,
    )

    from genodl_spark.registry.sql import FUNCTIONS, provide

    jvm: Any = run.lake.spark._jvm
    statement = statements.judged(jvm, run.spark._jsparkSession.sessionState().sqlParser(), sql, FUNCTIONS)
    named = provide(run, statement)
    try:
        rows = session.planned(run.spark, statement.plan)
        run.lake.hold_plan(rows, named)
        run.report.result = _printed(rows)
    except (
        AnalysisException,
        ArithmeticException,
        ArrayIndexOutOfBoundsException,
        DateTimeException,
        NumberFormatException,
    ) as error:
        raise InputError(
            f"{statements.first_line(str(error))}; expected a query over the lake's views", "SQL"
        ) from error
    except Py4JJavaError as error:
        cause = error.java_exception
        while cause is not None and cause.getClass().getSimpleName() not in _OF_VALUES:
            cause = cause.getCause()
        if cause is None:
            raise
        raise InputError(
            f"{statements.first_line(cause.getMessage())}; expected values that the query can take", "SQL"
        ) from error


def warm(run: Run) -> threading.Event:
    """Has another thread start the session and answer a question of the lake's smallest table, with a window, so that
    a statement to come finds it all loaded. Nothing of the answer is kept, and no view of others is changed.

    The event is set once libraries are loaded: before that this thread is not to load any. What fails there fails
    again where it is asked for, and is told there.
    """
    loaded = threading.Event()

    def work() -> None:
        try:
            import pandas  # noqa: F401  what a session, a statement and its row of `runs` load where they need it
            import pyspark.sql
            import pyspark.testing  # noqa: F401

            from genodl_spark.registry.sql import FUNCTIONS, provide
        except Exception:
            return
        finally:
            loaded.set()
        with contextlib.suppress(Exception):
            apart = run.under(run.settings, Report("query"))
            apart.__dict__.update(spark=run.spark.newSession())
            apart.__dict__.pop("lake", None)
            lake, jvm = apart.lake, apart.spark._jvm
            stored = run.stored
            versions = ((table, stored.version(table)) for table in stored.existing())
            sizes = [(sum(file.size for file in stored.files(t, v)), t) for t, v in versions if v is not None]
            small = sorted(((size, table) for size, table in sizes if 0 < size <= _SMALL), key=itemgetter(0))
            relation, columns = (
                ("predictions_latest", ("task", "value"))
                if any(table.name == PREDICTIONS.name for _, table in small)
                else (small[0][1].name, (small[0][1].columns[0].name,) * 2)
            )
            group, value = map(identifier, columns)
            ranked = f"SELECT *, row_number() OVER (PARTITION BY {group} ORDER BY {value} DESC) AS _k FROM {relation}"
            wanted = f"SELECT {group}, count(*) AS n, round(avg(_k), 3) AS m"
            sql = f"{wanted} FROM ({ranked}) GROUP BY {group} ORDER BY {group}"
            parser = apart.spark._jsparkSession.sessionState().sqlParser()
            statement = statements.judged(jvm, parser, sql, FUNCTIONS)
            named = provide(apart, statement)
            rows = session.planned(apart.spark, statement.plan)
            lake.hold_plan(rows, named)
            for _ in rows.toLocalIterator():
                pass

    threading.Thread(target=work, name="warm", daemon=True).start()
    return loaded


def query_duckdb(run: Run, sql: str) -> None:
    """The same by DuckDB, without a session of Spark, of statements whose answer is the same. InputError for others."""
    run.require_lake()
    with contextlib.closing(Duck(run.stored)) as duck:
        run.report.result = _shown(*duck.answer(sql))


def _printed(rows: DataFrame) -> list[dict[str, Any]]:
    return _shown(rows.columns, rows.toLocalIterator())


def _shown(names: Sequence[str], rows: Iterable[Iterable[Any]]) -> list[dict[str, Any]]:
    """Prints rows as TSV; the first of them."""
    kept: list[dict[str, Any]] = []
    try:
        print("\t".join(map(cell, names)))
        for row in rows:
            values = [plain(value) for value in row]
            if len(kept) < SHOWN:
                kept.append(dict(zip(names, values, strict=True)))
            print("\t".join(map(cell, values)))
        sys.stdout.flush()
    except BrokenPipeError:
        reader_left()
    return kept


def listing(run: Run, what: str) -> None:
    """Prints the models, cohorts, tables or runs of the lake."""
    run.require_lake()
    lake = run.stored
    if what != "tables":
        with contextlib.closing(Duck(lake)) as duck:
            run.report.result = _shown(*duck.answer(LISTINGS[what], judge=False))
        if what == "models":
            _tell_unreadable(run)
        return
    rows = ((table.name, lake.version(table), lake.count(table), table.doc) for table in lake.existing())
    run.report.result = _shown(("table", "version", "rows", "description"), rows)


def _tell_unreadable(run: Run) -> None:
    for row in run.stored.rows(MODELS, {}).to_pylist():
        try:
            from_stored(row["settings"], f"model {row['model_id']}")
        except InputError as error:
            run.report.warn(str(error))
