"""Two ranks in the tasks of a local session."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
from pyspark.sql import SparkSession

from genodl_spark.learning.training import launch
from tests.learning.training.test_training import job, weights
from tests.listening import watched


def test_ranks_of_a_local_session_are_reached_from_this_machine_alone(spark: SparkSession, tmp_path: Path) -> None:
    """They train as one process does, and neither they nor Spark listen beyond loopback;
    what connects to Spark has to authenticate."""
    made = {}
    for name in ("process", "spark"):
        (tmp_path / name).mkdir()
        j = job(tmp_path / name, options={"epochs": 4})
        made[name] = replace(j, checkpoint="", options=j.options.model_copy(update={"launcher": name}))
    alone = launch.launch(spark, made["process"], 1)
    with watched(os.getpid()) as (inside, beyond):
        shared = launch.launch(spark, made["spark"], 2)
    assert not beyond
    assert len(inside) >= 6  # Spark's own, the store of the ranks, and Gloo in each
    assert spark.sparkContext.getConf().get("spark.authenticate") == "true"
    for one, two in zip(alone["history"], shared["history"], strict=True):
        np.testing.assert_allclose(two["train"], one["train"], rtol=1e-9)  # in float64
        np.testing.assert_allclose(two["validation"], one["validation"], rtol=1e-9)
    assert len(weights(made["spark"])) == len(weights(made["process"]))
