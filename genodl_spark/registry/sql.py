"""What a statement of SQL may use: the views over the lake, and functions of ours."""

from __future__ import annotations

from genodl_spark.genetics import sql_functions
from genodl_spark.job.run import Run
from genodl_spark.lake import statements, views
from genodl_spark.lake.schema import Table
from genodl_spark.registry import effects_sql, predict_sql

FUNCTIONS = frozenset({predict_sql.NAME, effects_sql.NAME, *sql_functions.NAMES})


def provide(run: Run, statement: statements.Statement) -> list[Table]:
    """Makes the views and functions of a statement the session's; the tables that it reads,
    whose files are not held against checksums yet."""
    named = views.register(run.lake, statement.relations, held=False)
    predict_sql.register(run, statement.functions.get(predict_sql.NAME, []))
    effects_sql.register(run, statement.functions.get(effects_sql.NAME, []))
    sql_functions.register(run.spark, statement.functions)
    return named
