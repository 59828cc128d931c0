"""Makes the archive of classes that the JVM of a session on this machine starts from, below .venv/jre; set-up runs it.

A query over a lake of a few rows is answered, and what the JVM has loaded by then is written as that JVM ends.
"""

from __future__ import annotations

import os
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
from pyspark import SparkContext

import jobs
from genodl_spark.core import session
from genodl_spark.job import config
from genodl_spark.lake.delta import Lake
from genodl_spark.lake.tables.learning import PREDICTIONS
from jobs.demo import SQL


def main() -> int:
    jre = Path(sys.prefix) / "jre"
    for old in jre.glob("classes-*.jsa"):
        old.unlink()
    made = session.ClassArchive.of(jre / "classes.part")
    made.path.unlink(missing_ok=True)
    made.conf_dir.mkdir(exist_ok=True)
    os.environ["SPARK_CONF_DIR"] = str(made.conf_dir)
    options = made.options.replace("SharedArchiveFile", "ArchiveClassesAtExit")
    os.environ["SPARK_SUBMIT_OPTS"] = f"{os.environ.get('SPARK_SUBMIT_OPTS', '')} {options}"
    row = {field.name: None for field in PREDICTIONS.arrow_schema()}
    row |= {"task": "t", "cohort": "c", "entity_id": "e", "label_column": "l", "model_id": "m", "model_version": 1}
    row |= {"predicted": "p", "value": 0.5, "in_training": False, "source_versions": []}
    row |= {"scored_at": datetime.now(UTC)}
    with tempfile.TemporaryDirectory() as folder, session.shared():
        spark = session.build("classes", config.load(place="local").spark)
        lake = Lake(spark, folder)
        lake.append(PREDICTIONS, pa.Table.from_pylist([row], PREDICTIONS.arrow_schema()))
        if jobs.report_of("query", [" ".join(SQL.split()), "--lake", folder])["code"]:
            return 1
        spark.stop()
    jvm = SparkContext._gateway.proc
    jvm.stdin.close()
    jvm.wait(300)
    if not made.path.exists():
        return 1
    made.path.rename(jre / f"classes-{made.path.stat().st_size}.jsa")
    return 0


if __name__ == "__main__":
    sys.exit(main())
