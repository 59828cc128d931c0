"""SQL over the lake's tables, and listings of what it holds."""

from __future__ import annotations

import json
import sys
from typing import Any

from genodl_spark.config import from_stored
from genodl_spark.errors import InputError
from genodl_spark.pipelines.run import Run
from genodl_spark.tables import MODELS

SHOWN = 1000

LISTINGS = {
    "models": "SELECT model_id, task, label_column, cohort, model_version, n_features, seed, ranks, trained_at FROM models ORDER BY trained_at",
    "cohorts": "SELECT cohort, count(*) AS samples FROM samples GROUP BY cohort ORDER BY cohort",
    "runs": "SELECT started_at, job, status, seconds, arguments, run_id FROM runs ORDER BY started_at, run_id",
    "tables": "",
}


def query(run: Run, sql: str) -> None:
    """Runs one statement; prints every row as TSV under a header, and puts the first 1,000 into the report as `result`."""
    run.require_lake()
    from pyspark.errors import AnalysisException, ParseException

    from genodl_spark import sql_functions, views
    from genodl_spark.pipelines import predict_sql

    try:
        named = views.register(run.lake, sql, held=False)
        predict_sql.register(run, sql)
        sql_functions.register(run.spark, sql)
        rows = run.spark.sql(sql)
        run.lake.hold_plan(rows, named)
    except (ParseException, AnalysisException) as error:
        raise InputError(f"{_first_line(error)}; expected a SELECT over the lake's tables", "SQL") from error
    names = rows.columns
    print("\t".join(names))
    kept: list[dict[str, Any]] = []
    for row in rows.toLocalIterator():
        values = [_plain(value) for value in row]
        if len(kept) < SHOWN:
            kept.append(dict(zip(names, values, strict=True)))
        print("\t".join(_cell(value) for value in values))
    sys.stdout.flush()
    run.report.result = kept


def listing(run: Run, what: str) -> None:
    """Prints the models, cohorts, tables or runs of the lake."""
    run.require_lake()
    if what != "tables":
        query(run, LISTINGS[what])
        if what == "models":
            _tell_unreadable(run)
        return
    kept: list[dict[str, Any]] = []
    print("table\tversion\trows\tdescription")
    for table in run.lake.existing():
        row = {"table": table.name, "version": run.lake.version(table), "rows": run.lake.count(table), "description": table.doc}
        print("\t".join(str(value) for value in row.values()))
        kept.append(row)
    run.report.result = kept


def _tell_unreadable(run: Run) -> None:
    for row in run.lake.rows(MODELS, {}).to_pylist():
        try:
            from_stored(row["settings"], f"model {row['model_id']}")
        except InputError as error:
            run.report.warn(str(error))


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0].split(" SQLSTATE")[0].rstrip(" .;")


def _plain(value: Any) -> Any:
    """A value of a row as JSON can hold it."""
    if isinstance(value, bytes | bytearray):
        return f"<{len(value)} bytes>"
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if hasattr(value, "asDict"):
        return {k: _plain(v) for k, v in value.asDict().items()}
    if isinstance(value, list):
        return [_plain(v) for v in value]
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, float) and value != value:
        return None
    return value


def _cell(value: Any) -> str:
    if value is None:
        return ""
    text = json.dumps(value, sort_keys=True) if isinstance(value, list | dict) else str(value)
    return text.replace("\t", " ").replace("\n", " ")
