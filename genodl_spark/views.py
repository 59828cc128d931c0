"""Views over the lake, for SQL: every table, and of `predictions` the newest, by task, and side by side.

predictions_latest      the newest model's row for each (task, cohort, entity_id, label_column)
predictions_TASK        the same of one task, with a column `probability_CLASS` for every class that its models know
predictions_compared    every other model's row beside the newest one's: champion and challenger
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from genodl_spark.lake import Lake
from genodl_spark.tables import MODELS, PREDICTIONS, Table, identifier

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

_LATEST, _COMPARED, _OF_TASK = "predictions_latest", "predictions_compared", "predictions_"
_ENTITY = ("task", "cohort", "entity_id", "label_column")


def register(lake: Lake, sql: str, held: bool = True) -> list[Table]:
    """Makes every table and view that `sql` may name one of the session; returns the tables. `held`: as for `Lake.read`."""
    text = sql.lower()
    named = [table for table in lake.existing() if table.name in text or (_OF_TASK in text and table in (PREDICTIONS, MODELS))]
    for table in named:
        if table.name in text:
            lake.read(table, held=held).createOrReplaceTempView(identifier(table.name))
    if _OF_TASK not in text:
        return named
    predictions = lake.read(PREDICTIONS, held=held)
    if _LATEST in text:
        latest(predictions).createOrReplaceTempView(_LATEST)
    if _COMPARED in text:
        compared(predictions).createOrReplaceTempView(_COMPARED)
    for task in sorted(row.task for row in lake.read(MODELS).select("task").distinct().collect()):
        if f"{_OF_TASK}{task}".lower() in text:
            of_task(lake, task, held).createOrReplaceTempView(identifier(f"{_OF_TASK}{task}"))
    return named


def latest(predictions: DataFrame) -> DataFrame:
    """The newest model's row for each task, cohort, entity and label."""
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    newest = Window.partitionBy(*_ENTITY).orderBy(F.col("model_version").desc(), F.col("scored_at").desc(), F.col("model_id"))
    return predictions.withColumn("_rank", F.row_number().over(newest)).where("_rank = 1").drop("_rank")


def compared(predictions: DataFrame) -> DataFrame:
    """The newest model's row (champion) beside each other model's (challenger): both answers, whether they agree, and how far they differ.

    `difference`: the challenger's probability of the champion's class, or its value, less the champion's.
    """
    from pyspark.sql import functions as F

    def side(rows: DataFrame, name: str) -> DataFrame:
        kept = ("model_id", "model_version", "predicted", "value", "uncertainty", "abstained", "probabilities")
        return rows.select(*_ENTITY, *(F.col(column).alias(f"{name}_{column}") for column in kept))

    rows = side(latest(predictions), "champion").join(side(predictions, "challenger"), [*_ENTITY])
    theirs = F.coalesce(F.col("challenger_probabilities")[F.col("champion_predicted")], F.col("challenger_value"))
    rows = rows.where("champion_model_id <> challenger_model_id")
    rows = rows.withColumn("agree", F.expr("champion_predicted = challenger_predicted")).withColumn("difference", theirs - F.col("champion_value"))
    return rows.drop("champion_probabilities", "challenger_probabilities")


def of_task(lake: Lake, task: str, held: bool = True) -> DataFrame:
    """The newest rows of a task, its classes as columns `probability_CLASS`, NULL of models that do not know the class."""
    from pyspark.sql import functions as F

    models = lake.read(MODELS).where(F.col("task") == task)
    classes = sorted(row.c for row in models.select(F.explode("classes").alias("c")).distinct().collect())
    rows = latest(lake.read(PREDICTIONS, held=held).where(F.col("task") == task))
    columns = [F.col("probabilities")[F.lit(name)].alias(f"probability_{name}") for name in classes]
    before, after = PREDICTIONS.column_names[: PREDICTIONS.column_names.index("probabilities")], PREDICTIONS.column_names
    rest = after[after.index("probabilities") + 1 :]
    return rows.select(*before, *columns, *rest)
