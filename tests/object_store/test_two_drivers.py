"""Drivers that commit to one table on S3 at the same time: every commit is a version, and no row is lost."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import deltalake
import pytest

from genodl_spark.core import storage
from genodl_spark.lake import table_log
from genodl_spark.lake.tables.genetics import LD_PRUNED
from tests.cluster.harness import ROOT

pytestmark = pytest.mark.timeout(1200)
COMMITS = int(os.environ.get("GENODL_COMMITS", "200"))  # of each driver
DRIVERS = ("a", "b")


def test_two_drivers(spark_store: str) -> None:
    uri = "s3a://lakes/two drivers"
    table = storage.join(uri, LD_PRUNED.name)
    with_stdin = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    command = [sys.executable, str(Path(__file__).with_name("writer.py")), uri]
    drivers = [
        subprocess.Popen([*command, name, str(COMMITS)], cwd=ROOT, env={**os.environ, "PYTHONPATH": "."}, **with_stdin)
        for name in DRIVERS
    ]
    try:
        for driver in drivers:
            assert driver.stdout.readline() == "ready\n", driver.stderr.read()
        made = table_log.newest(storage.join(table, "_delta_log"))
        assert made in (0, 1)  # the one that came second may have found the table, and an empty commit does no harm
        for driver in drivers:
            driver.stdin.write("go\n")
            driver.stdin.flush()
        for driver in drivers:
            _, errors = driver.communicate(timeout=900)
            assert driver.returncode == 0, errors
    finally:
        for driver in drivers:
            if driver.poll() is None:
                driver.kill()
                driver.wait()
    versions = range(made + 1, made + 1 + len(DRIVERS) * COMMITS)
    assert table_log.newest(storage.join(table, "_delta_log")) == versions[-1]
    transactions = set()
    for version in versions:
        actions = list(table_log.actions(storage.join(table, "_delta_log"), version))
        assert [kind for action in actions for kind in action].count("add") == 1
        transactions |= {action["commitInfo"]["txnId"] for action in actions if "commitInfo" in action}
    assert len(transactions) == len(DRIVERS) * COMMITS
    stored = deltalake.DeltaTable(table, storage_options=storage.delta_rs_options(table))
    rows = deltalake.QueryBuilder().register("t", stored).execute("SELECT cohort, pos FROM t").read_all()
    found = zip(*([value.as_py() for value in rows.column(name)] for name in ("cohort", "pos")), strict=True)
    appended = {(name, number) for name in DRIVERS for number in range(COMMITS) if number % 4 != 3}
    last = {(f"{name}-last", (COMMITS // 4) * 4 - 1) for name in DRIVERS}
    assert sorted(found) == sorted(appended | last)
    # Files of attempts that came second were removed or used again: each file there was in some version.
    known = {
        storage.join(table, unquote(action["add"]["path"]))
        for version in versions
        for action in table_log.actions(storage.join(table, "_delta_log"), version)
        if "add" in action
    }
    there = {uri for uri in storage.files_under(table, ".parquet") if "/_delta_log/" not in uri}
    assert there == known
    assert not [uri for uri in storage.files_under(table) if "conditional-put" in uri]
