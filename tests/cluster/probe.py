"""A job for test_cluster.py: says where each executor, and each of two Horovod ranks, has the package from."""

from __future__ import annotations

import json
import os
import sys
import urllib.request
from typing import Any

import genodl_spark
from genodl_spark.core import session
from genodl_spark.job import conf, config


def seen(_: object = None) -> dict[str, Any]:
    import genodl_spark.lake.tables

    # The worker of an executor is the first folder below the cluster's own.
    where = next((part for part in os.getcwd().split(os.sep) if part.startswith("worker-")), "driver")
    return {"worker": where, "file": os.path.abspath(genodl_spark.lake.tables.__file__), "tasks": conf.task_names()}


def rank() -> dict[str, Any]:
    import horovod.torch as hvd
    import torch

    hvd.init()
    total = hvd.allreduce(torch.tensor([float(hvd.rank() + 1)]), op=hvd.Sum)
    return {**seen(), "rank": hvd.rank(), "sum": float(total)}


def main() -> None:
    spark = session.build("probe", config.load(place="cluster").spark)
    context = spark.sparkContext
    report: dict[str, Any] = {
        "driver": genodl_spark.__file__,
        "tasks": context.parallelize(range(2), 2).map(seen).collect(),
    }
    with urllib.request.urlopen(f"{context.uiWebUrl}/metrics/prometheus", timeout=30) as answer:
        report["metrics"] = [line.split("{")[0] for line in answer.read().decode().splitlines()]
    if "ranks" in sys.argv[1:]:
        import horovod.spark

        environment = session.rank_environment(spark)
        report["ranks"] = horovod.spark.run(
            rank, num_proc=2, use_gloo=True, env=environment, executable=context.pythonExec, verbose=0
        )
    session.stop()
    print(json.dumps(report))


if __name__ == "__main__":
    main()
