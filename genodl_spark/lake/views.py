"""Views over the lake, for SQL: every table, and of `predictions` the newest, by task, and side by side.

predictions_latest      the newest model's row for each (task, cohort, entity_id, label_column)
predictions_TASK        the same of one task, with a column `probability_CLASS` for every class that its models know
predictions_compared    every other model's row beside the newest one's: champion and challenger
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from genodl_spark.core.errors import InputError
from genodl_spark.lake.delta import Lake
from genodl_spark.lake.schema import Table, identifier
from genodl_spark.lake.tables.learning import MODELS, PREDICTIONS

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

_LATEST, _COMPARED, _OF_TASK = "predictions_latest", "predictions_compared", "predictions_"
_ENTITY = ("task", "cohort", "entity_id", "label_column")


def names(lake: Lake) -> list[str]:
    """Every view that there can be, sorted; tables that nothing was written to yet have no rows."""
    return sorted([*lake.tables(), _LATEST, _COMPARED, *(f"{_OF_TASK}{task}" for task in _tasks(lake))])


def register(lake: Lake, relations: Collection[str], held: bool = True) -> list[Table]:
    """Makes the views of these names (in lower case) the session's, as the lake is now; returns the tables behind them.

    `held`: as for `Lake.read`. InputError where there is no such view.
    """
    tables = {name.lower(): table for name, table in lake.tables().items()}
    predictions = {_LATEST: latest, _COMPARED: compared}
    tasks = _tasks(lake) if any(name.startswith(_OF_TASK) and name not in predictions for name in relations) else []
    of_tasks = {f"{_OF_TASK}{task}".lower(): task for task in tasks}
    made: dict[str, DataFrame] = {}
    behind: list[Table] = []
    for name in relations:
        if name in tables:
            made[name] = lake.read(tables[name], held=held)
        elif name in predictions:
            made[name] = predictions[name](lake.read(PREDICTIONS, held=held))
        elif name in of_tasks:
            made[name] = of_task(lake, of_tasks[name], held)
        else:
            raise InputError(
                f"found relation {name}, expected one of the lake's views: {', '.join(names(lake))}", "SQL"
            )
        behind.append(tables.get(name, PREDICTIONS))
    for name, rows in made.items():
        rows.createOrReplaceTempView(identifier(name))
    return behind


def _tasks(lake: Lake) -> list[str]:
    """Tasks that have models, sorted."""
    return sorted(set(lake.rows(MODELS, {}).column("task").to_pylist()))


def latest(predictions: DataFrame) -> DataFrame:
    """The newest model's row for each task, cohort, entity and label."""
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    newest = Window.partitionBy(*_ENTITY).orderBy(
        F.col("model_version").desc(), F.col("scored_at").desc(), F.col("model_id")
    )
    return predictions.withColumn("_rank", F.row_number().over(newest)).where("_rank = 1").drop("_rank")


def compared(predictions: DataFrame) -> DataFrame:
    """The newest model's row (champion) beside each other model's (challenger): both answers,
    whether they agree, and how far they differ.

    `difference`: the challenger's probability of the champion's class, or its value, less the champion's.
    """
    from pyspark.sql import functions as F

    def side(rows: DataFrame, name: str) -> DataFrame:
        kept = ("model_id", "model_version", "predicted", "value", "uncertainty", "abstained", "probabilities")
        return rows.select(*_ENTITY, *(F.col(column).alias(f"{name}_{column}") for column in kept))

    rows = side(latest(predictions), "champion").join(side(predictions, "challenger"), [*_ENTITY])
    theirs = F.coalesce(F.col("challenger_probabilities")[F.col("champion_predicted")], F.col("challenger_value"))
    rows = rows.where("champion_model_id <> challenger_model_id")
    rows = rows.withColumn("agree", F.expr("champion_predicted = challenger_predicted")).withColumn(
        "difference", theirs - F.col("champion_value")
    )
    return rows.drop("champion_probabilities", "challenger_probabilities")


def of_task(lake: Lake, task: str, held: bool = True) -> DataFrame:
    """The newest rows of a task, its classes as columns `probability_CLASS`, NULL of models
    that do not know the class."""
    from pyspark.sql import functions as F

    models = lake.read(MODELS).where(F.col("task") == task)
    classes = sorted(row.c for row in models.select(F.explode("classes").alias("c")).distinct().collect())
    rows = latest(lake.read(PREDICTIONS, held=held).where(F.col("task") == task))
    columns = [F.col("probabilities")[F.lit(name)].alias(f"probability_{name}") for name in classes]
    before, after = (
        PREDICTIONS.column_names[: PREDICTIONS.column_names.index("probabilities")],
        PREDICTIONS.column_names,
    )
    rest = after[after.index("probabilities") + 1 :]
    return rows.select(*before, *columns, *rest)
