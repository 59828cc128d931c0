"""A lake on S3 from a cluster: tasks and ranks write and read there with credentials that only their own node has told
them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.cluster.harness import cluster, two_classes

pytestmark = pytest.mark.timeout(1200)
FAST = ("split.folds=2", "split.repeats=1", "train.epochs=5", "train.min_steps=50", "tracking.uri=off")
LAKE = "s3a://lakes/from a cluster"


def test_a_node_finds_its_own_credentials(spark_store: str, wheel: Path, tmp_path: Path) -> None:
    credentials = {name: os.environ[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    place = {"AWS_ENDPOINT_URL_S3": spark_store, "AWS_REGION": "us-east-1"}  # which a job tells its executors
    matrix, table = two_classes(tmp_path)
    fast = [word for one in FAST for word in ("--set", one)]
    with cluster(tmp_path / "cluster", wheel, environment={**credentials, **place}, of_workers=credentials) as running:
        found = {}
        for verb, *arguments in (
            ["ingest", "expression", str(matrix), "--samples", str(table), "--cohort", "c"],
            ["train", "tumor_type", "--procs", "2", *fast],
            ["predict", "tumor_type"],
        ):
            done = running.submit(verb, *arguments, "--lake", LAKE, timeout=600)
            assert done.code == 0, done.stderr[-6000:]
            found[verb] = done.report["rows"]
    assert found["ingest"]["expression"] == {"written": 40, "total": 40, "quarantined": 0}
    assert found["train"]["models"]["written"] == 1
    assert found["predict"]["predictions"]["written"] == 40
    for log in (tmp_path / "cluster").rglob("*"):
        if log.is_file() and log.stat().st_size < 1 << 24:
            assert credentials["AWS_SECRET_ACCESS_KEY"].encode() not in log.read_bytes(), log
