"""Scores of a registered model for the entities of a cohort, merged into `predictions`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from genodl_spark import predict as kernel
from genodl_spark import tasks
from genodl_spark.config import Settings
from genodl_spark.errors import InputError
from genodl_spark.features import Features
from genodl_spark.pipelines.run import Run, now
from genodl_spark.tables import MODELS, PREDICTIONS, SAMPLES, SPLITS

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, Row


@dataclass(frozen=True)
class Chosen:
    """A registered model: its row, card, the URI of its files, and the settings that it was trained with."""

    row: Row
    card: kernel.Card
    uri: str
    settings: Settings

    @property
    def features(self) -> Features:
        return tasks.features(self.settings)


def chosen_model(run: Run, label: str | None, model_id: str | None) -> Chosen:
    """The model named, else the newest of the task and label. InputError when there is none."""
    from pyspark.sql import functions as F

    s = run.settings
    models = run.lake.read(MODELS).where(F.col("task") == s.task)
    if model_id is not None:
        models = models.where(F.col("model_id") == model_id)
        if label is not None:
            models = models.where(F.col("label_column") == label)
    else:
        models = models.where(F.col("label_column") == (label or s.label))
    found = models.orderBy(F.col("model_version").desc()).limit(1).collect()
    if not found:
        wanted = f"model {model_id} of task {s.task}" if model_id is not None else f"model of task {s.task} for label {label or s.label}"
        raise InputError(f"found no {wanted}; expected one, run train first, or see genodl list models", "--model")
    return model_of(run, found[0])


def model_of(run: Run, row: Row) -> Chosen:
    """The model of a row of `models`. What it was trained on stays; how it is run, measured and reported is today's."""
    uri = run.lake.model_uri(row.model_id)
    today = {key: getattr(run.settings, key) for key in ("spark", "tracking", "feed", "predict", "evaluate", "report", "min_feature_overlap")}
    return Chosen(row, kernel.read_card(uri), uri, Settings.model_validate_json(row.settings).model_copy(update=today))


def predict(run: Run, cohort: str | None, label: str | None, model_id: str | None) -> None:
    """Scores every entity of the cohort, labelled or not."""
    from pyspark.sql import functions as F

    model = chosen_model(run, label, model_id)
    features = model.features
    name = run.cohort(cohort, features.cohorts(run.sources), f"data for {run.settings.task}")
    versions = {table.name: v for table in (*features.tables, SAMPLES) if (v := run.sources.version(table)) is not None}
    mine = (F.col("model_id") == model.row.model_id) & (F.col("cohort") == name) & (F.col("task") == model.row.task)
    stored = run.lake.read(PREDICTIONS).where(mine).groupBy(F.array_sort(F.map_entries("source_versions")).alias("v")).count().collect()
    entities = len(features.entities(run.sources, name))
    if len(stored) == 1 and stored[0]["count"] == entities and {e.key: e.value for e in stored[0].v} == versions:
        run.report.status = "unchanged"
        run.wrote(PREDICTIONS, 0)
        return
    scored, missing = scored_rows(run, model, name)
    try:
        rows = _predictions(run, model, name, scored, versions)
        run.lake.merge(PREDICTIONS, rows)
        run.wrote(PREDICTIONS, scored.count())
        run.report.metrics.update({"model_id": model.row.model_id, "model_version": model.row.model_version, "missing_features": missing})
    finally:
        scored.unpersist()


def scored_rows(run: Run, model: Chosen, cohort: str, calibrated: bool = True) -> tuple[DataFrame, int]:
    """Scores of a cohort's entities (entity_id, scores, missing), kept on disk; and how many of the model's features the cohort lacks.

    InputError when it has fewer than `min_feature_overlap` of them.
    """
    from pyspark.sql import functions as F
    from pyspark.storagelevel import StorageLevel

    width = len(model.card.features)
    rows = model.features.rows(run.sources, cohort, model.card.features)
    scored = kernel.score(rows, model.uri, calibrated).persist(StorageLevel.DISK_ONLY)
    fewest = scored.agg(F.min("missing").alias("m")).collect()[0].m or 0
    if fewest:
        text = f"cohort {cohort} lacks {fewest} of the model's {width} features"
        least = model.settings.min_feature_overlap
        if 1 - fewest / width < least:
            scored.unpersist()
            raise InputError(f"{text}; expected {least:.0%} of them at least, harmonise the identifiers or lower it", "min_feature_overlap")
        run.report.warn(f"{text}: they count as missing")
    return scored, int(fewest)


def _predictions(run: Run, model: Chosen, cohort: str, scored: DataFrame, versions: dict[str, int]) -> DataFrame:
    from pyspark.sql import functions as F

    splits = run.lake.read(SPLITS).where((F.col("split_hash") == model.row.split_hash) & (F.col("task") == model.row.task))
    seen = splits.where(F.col("role").isin("fold", "train", "validation")).select("entity_id").distinct().withColumn("seen", F.lit(True))
    classes = list(model.card.classes)
    rows = scored.join(seen, "entity_id", "left")
    names = F.array(*(F.lit(name) for name in classes))
    highest = F.array_max("scores")
    return rows.select(
        F.lit(model.row.task).alias("task"),
        F.lit(cohort).alias("cohort"),
        "entity_id",
        F.lit(model.row.label_column).alias("label_column"),
        F.lit(model.row.model_id).alias("model_id"),
        F.lit(model.row.model_version).cast("int").alias("model_version"),
        (F.element_at(names, F.array_position("scores", highest).cast("int")) if classes else F.lit(None).cast("string")).alias("predicted"),
        (F.map_from_arrays(names, "scores") if classes else F.lit(None).cast("map<string,double>")).alias("probabilities"),
        highest.alias("value"),
        F.coalesce("seen", F.lit(False)).alias("in_training"),
        F.create_map(*(F.lit(part) for item in sorted(versions.items()) for part in item)).cast("map<string,bigint>").alias("source_versions"),
        F.lit(now()).alias("scored_at"),
    )
