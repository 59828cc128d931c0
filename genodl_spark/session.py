"""The only builder of a SparkSession."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_ALWAYS = {
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    "spark.sql.session.timeZone": "UTC",
}


def build(app: str, settings: Mapping[str, str], master: str | None = None) -> SparkSession:
    """A session for one job. What spark-submit was given wins over `settings`; `master` wins over both.

    Without a master anywhere the session runs on all cores of this machine.
    """
    from pyspark import SparkConf
    from pyspark.sql import SparkSession

    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    os.environ.setdefault("PYSPARK_DRIVER_PYTHON", sys.executable)
    logging.getLogger("py4j").setLevel(logging.ERROR)
    submitted = SparkConf()
    chosen = master or submitted.get("spark.master") or "local[*]"
    builder = SparkSession.builder.appName(app).master(chosen)
    if chosen.startswith("local"):
        os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
        builder = builder.config("spark.driver.host", "127.0.0.1").config("spark.driver.bindAddress", "127.0.0.1")
    for key, value in {**settings, **_ALWAYS}.items():
        if key in _ALWAYS or submitted.get(key) is None:
            builder = builder.config(key, value)
    return builder.getOrCreate()


def task_slots(spark: SparkSession) -> int:
    """Tasks that this application can run at the same time."""
    return int(spark.sparkContext.defaultParallelism)


def stop() -> None:
    """Stops the active session, when there is one."""
    from pyspark.sql import SparkSession

    active = SparkSession.getActiveSession()
    if active is not None:
        active.stop()
