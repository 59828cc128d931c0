"""A log that nothing pins is shortened; what is pinned, and what a run that has not committed yet wrote, stays."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path

import deltalake
import pytest
from pyspark.sql import functions as F

from genodl_spark.core import storage
from genodl_spark.lake import locks
from genodl_spark.lake.delta import Lake
from genodl_spark.lake.snapshot import Snapshot
from genodl_spark.lake.tables.genetics import QC_STEPS
from jobs import maintain
from tests.lake.test_two_writers import step
from tests.pipelines.test_upkeep import older


def rows_at(lake: Lake, version: int) -> set[int]:
    """Rows of one version, as Spark, as delta-rs and as this package's reader of files have them."""
    spark = lake.read(QC_STEPS, version).count()
    rust = deltalake.DeltaTable(storage.local_path(lake.path(QC_STEPS)), version=version).to_pyarrow_table().num_rows
    return {spark, rust, sum(file.statistics["numRecords"] for file in lake.files(QC_STEPS, version))}


def test_versions_that_nothing_needs_go(genodl, lake: Lake) -> None:
    at = ("--lake", lake.uri, "--set", "maintain.log_versions=5", "--set", "maintain.fewest=50")
    for i in range(12):
        lake.merge(QC_STEPS, step(f"c{i:02}", i))
    older(lake, 200)
    lake.merge(QC_STEPS, step("c12", 12))
    storage.write_json(storage.join(lake.uri, "_staging", "running", "pins.json"), {"qc_steps": 4})
    log = Path(storage.local_path(lake.path(QC_STEPS))) / "_delta_log"

    # Version 11 was the newest a week ago, 4 is pinned.
    before = {path.name for path in log.iterdir()}
    plan = genodl(maintain, *at, "--dry-run")[1]["metrics"]["tables"]["qc_steps"]
    assert plan["versions_removed"] == 10 and plan.keys() == {"versions_removed", "log_bytes_removed"}
    assert {path.name for path in log.iterdir()} == before
    code, report, line = genodl(maintain, *at)
    assert (code, report["metrics"]["tables"]["qc_steps"]) == (0, plan), line
    assert sorted(int(path.name[:20]) for path in log.glob("*.json")) == [4, 11, 12]
    (log / f"{4:020}.crc").unlink()  # so that its checkpoint is read
    fresh = Lake(lake.spark, lake.uri)
    assert [fresh.version(QC_STEPS), lake.version(QC_STEPS)] == [12, 12]
    assert [rows_at(fresh, version) for version in (4, 11, 12)] == [{5}, {12}, {13}]
    with pytest.raises(Exception, match=r"[vV]ersion"):
        fresh.read(QC_STEPS, 5).count()
    assert Snapshot(fresh).changed(QC_STEPS, "c00", 5, ["step"], ["metrics"]) is None

    # The table goes on, and nothing more is to be done.
    fresh.merge(QC_STEPS, step("c13", 13))
    assert lake.version(QC_STEPS) == 13 and rows_at(lake, 13) == {14}
    assert lake.read(QC_STEPS).where(F.col("cohort") == "c03").count() == 1
    assert genodl(maintain, *at)[1]["status"] == "unchanged"

    # What was written since the oldest run that still writes began may be about to be committed,
    # however little is to be kept.
    stray = storage.join(lake.path(QC_STEPS), "part-of-a-run.parquet")
    storage.write_bytes(stray, b"written by a task")
    lease = storage.join(lake.uri, locks.FOLDER, f"writing-{'a' * 32}.json")
    began = datetime.fromtimestamp(time.time() - 30, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    holder = {"verb": "ingest", "host": "node-7", "pid": 1, "machine": "another boot", "began": "5", "since": began}
    storage.write_bytes(lease, json.dumps(holder).encode())
    now = (*at, "--set", "maintain.retention_hours=0")
    assert genodl(maintain, *now)[0] == 0 and storage.kind(stray) == "file"
    storage.remove_file(lease)
    assert genodl(maintain, *now)[0] == 0 and storage.kind(stray) == "absent"
    assert rows_at(lake, 13) == {14}
