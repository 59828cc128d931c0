"""The mirror of registered models in MLflow. The truth is the `models` table: no verb reads what is written here."""

from __future__ import annotations

import json
import logging
import math
import platform
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from genodl_spark.core import redaction, storage
from genodl_spark.job.run import Run

if TYPE_CHECKING:
    from pyspark.sql import Row


_PACKAGES = ("torch", "horovod", "pyspark", "delta-spark", "petastorm", "pyarrow", "numpy")


def log_model(run: Run, model: Row, result: dict[str, Any], uri: str) -> None:
    """Logs parameters, metrics, curves and files of a model, and what it was trained with and on;
    registers it by task and label.

    `result`: what rank 0 measured. A store that fails is a warning.
    """
    settings = run.settings.tracking
    if settings.uri == "off":
        return
    store = settings.uri or _default_store(run.lake.uri)
    try:
        _log(run, model, result, uri, store)
    except Exception as error:  # whatever the store's client raises: the model is registered in the lake all the same
        run.report.warn(f"MLflow at {store} did not take the model ({str(error).splitlines()[0]})")


def _default_store(lake: str) -> str:
    folder = storage.local_path(lake) if storage.is_local(lake) else "."
    return f"sqlite:///{folder}/mlflow.db"


def _log(run: Run, model: Row, result: dict[str, Any], uri: str, store: str) -> None:
    import mlflow
    from mlflow.entities import Metric, Param, RunTag
    from mlflow.exceptions import MlflowException

    for name in ("mlflow", "alembic"):  # after the import, which sets levels of its own
        logging.getLogger(name).setLevel(logging.WARNING)
    mlflow.set_tracking_uri(store)
    client = mlflow.MlflowClient(tracking_uri=store, registry_uri=store)
    experiment = client.get_experiment_by_name(run.settings.tracking.experiment)
    if experiment is None:
        artifacts = (
            storage.join(run.lake.uri, "mlartifacts")
            if storage.is_local(run.lake.uri) and store.startswith("sqlite:")
            else None
        )
        experiment_id = client.create_experiment(run.settings.tracking.experiment, artifacts)
    else:
        experiment_id = experiment.experiment_id
    started = int(run.report.started * 1000)
    tags = {
        "mlflow.runName": f"{model.task} {model.label_column} v{model.model_version}",
        "genodl.model_id": model.model_id,
    }
    tracked = client.create_run(experiment_id, start_time=started, tags=tags)
    parameters = {
        "task": model.task,
        "label": model.label_column,
        "cohort": model.cohort,
        "dataset": model.dataset,
        "split_hash": model.split_hash,
    }
    parameters |= {"seed": model.seed, "ranks": model.ranks, "code": model.code, "lake": run.lake.uri}
    parameters |= {f"version.{table}": version for table, version in model.source_versions.items()}
    for section in ("train", "model", "quality", "split"):
        parameters |= {f"{section}.{key}": value for key, value in (json.loads(model.settings)[section] or {}).items()}
    parameters |= {f"environment.{name}": version(name) for name in _PACKAGES} | {
        "environment.python": platform.python_version()
    }
    parameters |= {
        f"hardware.{name}": value for name, value in {**result["hardware"], "device": result["device"]}.items()
    }
    metrics = [Metric(name, value, started, 0) for name, value in model.metrics.items()]
    curves = {"loss.train": "train", "loss.validation": "validation"}
    for name, key in curves.items():
        points = [
            (entry["epoch"], [value for value in entry[key] if math.isfinite(value)])
            for entry in result["history"]
            if key in entry
        ]
        metrics += [
            Metric(name, float(sum(values) / len(values)), started, epoch) for epoch, values in points if values
        ]
    params = [Param(k, str(redaction.settings(v, k))[:500]) for k, v in parameters.items()]
    for start in range(0, len(params), 100):  # more at once is refused
        client.log_batch(tracked.info.run_id, params=params[start : start + 100], tags=[RunTag("genodl.verb", "train")])
    for start in range(0, len(metrics), 1000):
        client.log_batch(tracked.info.run_id, metrics=metrics[start : start + 1000])
    if storage.is_local(uri):
        client.log_artifacts(tracked.info.run_id, storage.local_path(uri), "model")
    client.set_terminated(tracked.info.run_id)
    name = f"{model.task}.{model.label_column}".replace("/", "_").replace(":", "_")
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    source = f"{tracked.info.artifact_uri}/model"
    client.create_model_version(name, source, tracked.info.run_id, tags={"genodl.model_id": model.model_id})
