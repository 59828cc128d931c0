"""A registered model out of a prepared dataset: one Horovod launch, then weights, card, scores and tracking."""

from __future__ import annotations

import json
import logging
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from genodl_spark.core import storage
from genodl_spark.core.errors import Conflict
from genodl_spark.job.config import stored
from genodl_spark.job.run import Run, code_of, fingerprint, now
from genodl_spark.lake.tables.learning import EXAMPLES, HELD_OUT, MODELS
from genodl_spark.lake.transactions import retried
from genodl_spark.learning import encodings, losses, metrics, model_files
from genodl_spark.learning.model_files import WEIGHTS
from genodl_spark.learning.predictor import batch_rows
from genodl_spark.learning.training import launch as training
from genodl_spark.registry import tracking
from genodl_spark.registry.datasets import dataset_of, job_of, with_blocks
from genodl_spark.registry.models import HISTORY

if TYPE_CHECKING:
    from pyspark.sql import Row

log = logging.getLogger("genodl")


def train(run: Run, cohort: str | None, label: str | None, force: bool) -> None:
    """Trains and registers a model, unless the same dataset, settings, seed, ranks and code have already made one."""
    dataset, _ = dataset_of(run, cohort, label)
    s = run.settings
    shaped_by = {
        "model": s.model,
        "train": s.train.model_dump(),
        "quality": s.quality.model_dump(),
        "batch": s.predict.batch,
    }
    code = code_of(__name__, s)
    digest = fingerprint(dataset.dataset, shaped_by, s.seed, code)
    with run.holding(f"training {digest}"):  # two runs of it would write each other's checkpoints
        _train(run, dataset, digest, code, force)


def _train(run: Run, dataset: Row, digest: str, code: str, force: bool) -> None:
    from pyspark.sql import functions as F

    s = run.settings
    models = run.lake.read(MODELS)
    mine = (F.col("task") == dataset.task) & (F.col("label_column") == dataset.label_column)
    known = models.where(mine).select("model_id", "model_version", "fingerprint").collect()
    made = [row for row in known if row.fingerprint == digest]
    if made and not force:
        newest = max(made, key=lambda row: row.model_version)
        run.report.status = "unchanged"
        run.report.metrics.update(_figures(models.where(F.col("model_id") == newest.model_id).collect()[0]))
        run.wrote(MODELS, 0)
        run.wrote(HELD_OUT, 0)
        return
    model_id = fingerprint(digest, len(made))[:12]
    # An interrupted run left its checkpoints here under the same name: this one goes on from them.
    staging = storage.join(run.lake.uri, "_staging", model_id)
    # Of a card that could not be written nobody learns after hours only.
    card = model_files.new_card(
        model_id=model_id,
        task=dataset.task,
        label_column=dataset.label_column,
        classes=list(dataset.classes),
        features=list(dataset.features),
        dtype=dataset.dtype,
        transform=dataset.transform,
        loss=losses.name_of(s.train.loss, list(dataset.classes)),
        model=with_blocks(s.model, dataset.features),
        members=s.train.ensemble,
        batch=batch_rows(
            s.predict.batch, encodings.encoding(dataset.transform, s.code_files).shape(dataset.n_features)
        ),
    )
    log.info("training %s on %d rows x %d features of %s", s.task, dataset.rows, dataset.n_features, dataset.cohort)
    job = job_of(run, dataset, staging)
    run.pin(staging)
    result = training.launch(run.spark, job, s.train.procs)
    written, temperature = _keep_held_out(
        run, dataset, model_id, [storage.join(staging, name) for name in result["scored"]]
    )
    if not written:
        lack = (
            "`evaluate` has nothing "
            f"to measure{' and the probabilities are not calibrated (temperature 1)' if dataset.classes else ''}"
        )
        run.report.warn(
            f"no row was held out from training, so that nothing tells how good the model is: {lack}; "
            "hold some out with split"
        )
    run.lake.create(MODELS)  # says what is wrong with the table before files stand beside it
    uri = run.lake.model_uri(model_id)
    storage.write_json(storage.join(uri, HISTORY), result["history"])
    weights = storage.read_bytes(storage.join(staging, WEIGHTS))
    files = model_files.publish(uri, replace(card, temperature=temperature), weights, s.own_code())
    row = {
        "model_id": model_id,
        "task": dataset.task,
        "label_column": dataset.label_column,
        "cohort": dataset.cohort,
        "dataset": dataset.dataset,
        "split_hash": dataset.split_hash,
        "classes": list(dataset.classes),
        "n_features": dataset.n_features,
        "settings": stored(s),
        "seed": s.seed,
        "ranks": s.train.procs,
        "code": code,
        "fingerprint": digest,
        "source_versions": dataset.source_versions,
        "metrics": _metrics(result, temperature),
        "trained_at": now(),
        **model_files.columns(files),
    }
    # The row comes last: a model is there when its row is, and files without a row are overwritten by the next run.
    retried(lambda: _register(run, row), Conflict)
    storage.remove_directory(staging)
    run.wrote(MODELS, 1)
    run.wrote(HELD_OUT, written)
    registered = run.lake.read(MODELS).where(F.col("model_id") == model_id).collect()[0]
    run.report.metrics.update(_figures(registered))
    tracking.log_model(run, registered, result, uri)


def _register(run: Run, row: dict[str, Any]) -> None:
    """Adds a row to `models`, as the newest version of its task and label.
    Conflict where another run adds one at this moment."""
    seen = run.lake.version(MODELS)
    others = run.lake.rows(MODELS, {"task": row["task"], "label_column": row["label_column"]}, seen).to_pylist()
    newest = max((other["model_version"] for other in others), default=0)
    run.lake.merge(MODELS, run.frame(MODELS, [{**row, "model_version": newest + 1}]), since=seen)


def _keep_held_out(run: Run, dataset: Row, model_id: str, folders: list[str]) -> tuple[int, float]:
    """Moves what the ranks scored into `held_out`; returns the number of rows, and the temperature that suits them."""
    from pyspark.sql import functions as F

    scored = run.spark.read.schema("repeat int, row_id bigint, scores array<double>").parquet(*folders)
    examples = run.lake.read(EXAMPLES).where(F.col("dataset") == dataset.dataset)
    code = F.conv(F.hex(F.substring("folds", F.col("repeat") + 1, 1)), 16, 10).cast("int")
    role = F.lit("fold") if dataset.folds else F.when(F.col("code") == 1, "validation").otherwise("test")
    rows = scored.join(examples.select("row_id", "entity_id", "group", "target", "folds"), "row_id").withColumn(
        "code", code
    )
    rows = rows.select(
        F.lit(model_id).alias("model_id"),
        F.lit(dataset.cohort).alias("cohort"),
        F.lit("model").alias("predictor"),
        *("repeat", "entity_id", "group", "target"),
        role.alias("role"),
        (F.col("code") if dataset.folds else F.lit(None)).cast("int").alias("fold"),
        "scores",
    )
    run.lake.replace(HELD_OUT, rows, {"model_id": model_id})
    if not dataset.classes:
        return rows.count(), 1.0
    kept = (
        run.lake.read(HELD_OUT)
        .where((F.col("model_id") == model_id) & (F.col("role") != "test"))
        .select("target", "scores")
        .collect()
    )
    total = run.lake.read(HELD_OUT).where(F.col("model_id") == model_id).count()
    if not kept:
        return total, 1.0
    return total, metrics.temperature(np.array([row.scores for row in kept]), np.array([row.target for row in kept]))


def _metrics(result: dict[str, Any], temperature: float) -> dict[str, float]:
    last = result["history"][-1]
    figures = {
        "epochs": float(last["epoch"]),
        "train_loss": float(last["train"][-1]),
        "temperature": temperature,
        "train_seconds": float(result["seconds"]),
        "feed_seconds": float(result["feed_seconds"]),
        "rows_per_second": float(result["rows_per_second"]),
        "feed_stall_percent": float(result["feed_stall_percent"]),
        "restarts": float(result["restarts"]),
        "resets": float(result["resets"]),
        # Over all ranks: what an epoch leaves out or sees twice, after whatever was lost, shows here.
        "rows_per_epoch_min": float(min(entry["rows"] for entry in result["history"])),
        "rows_per_epoch_max": float(max(entry["rows"] for entry in result["history"])),
    }
    if not math.isnan(result["busy_percent"]):
        figures["gpu_busy_percent" if result["device"].startswith("cuda") else "cpu_busy_percent"] = float(
            result["busy_percent"]
        )
    if "validation" in last:
        # Of each network at the epoch that was kept; the registered ensemble's members are the last.
        members = [entry["validation"] for entry in result["history"] if "validation" in entry]
        figures["validation_loss"] = float(np.mean(members[-1]))
        figures["best_validation_loss"] = float(np.mean(np.min(members, axis=0)))
    return figures


def _figures(model: Row) -> dict[str, Any]:
    return {
        "model_id": model.model_id,
        "model_version": model.model_version,
        "dataset": model.dataset,
        **json.loads(json.dumps(dict(model.metrics))),
    }
