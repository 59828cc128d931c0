"""A job for test_environment.py: ingest, train and predict in one application, and what the processes of its tasks and
ranks have loaded."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import jobs
from genodl_spark.core import session
from genodl_spark.job import config


def seen(_: object = None) -> dict[str, Any]:
    """The interpreter of this process, where it looks for modules, and the files that it has mapped."""
    import horovod.torch  # noqa: F401  with torch, the most that any task loads
    import pandas  # noqa: F401
    import pyarrow.parquet  # noqa: F401

    with open("/proc/self/maps") as lines:
        mapped = {fields[5].strip() for line in lines if len(fields := line.split(maxsplit=5)) > 5}
    paths = {
        os.path.realpath(path) for path in (sys.executable, *filter(None, sys.path), *mapped) if path[0] not in "[("
    }
    return {"python": sys.executable, "files": sorted(paths)}


def main(matrix: str, samples: str, lake: str) -> None:
    report: dict[str, Any] = {}
    with session.shared():
        spark = session.build("verbs", config.load(place="cluster").spark)
        report["tasks"] = spark.sparkContext.parallelize(range(2), 2).map(seen).collect()
        conf = spark.sparkContext.getConf()
        report["encrypted"] = [conf.get(f"spark.{key}") for key in ("authenticate", "network.crypto.enabled")]
        fast = ["split.folds=2", "split.repeats=1", "train.epochs=5", "train.min_steps=50", "tracking.uri=off"]
        at = ["--lake", lake]
        report["ingest"] = jobs.report_of(
            "ingest", ["expression", matrix, "--samples", samples, "--cohort", "c", *at, "--set", "tracking.uri=off"]
        )
        report["train"] = jobs.report_of(
            "train", ["tumor_type", "--procs", "2", *at, *(word for one in fast for word in ("--set", one))]
        )
        report["predict"] = jobs.report_of("predict", ["tumor_type", *at])
    session.stop()
    print(json.dumps(report))


if __name__ == "__main__":
    main(*sys.argv[1:])
