"""One Spark session for all tests of a process that ask for one, and the wheel that jobs are sent to a cluster with."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from genodl_spark.core import session
from tests.cluster.harness import ROOT

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from genodl_spark.lake.delta import Lake

# Ranks have tests of their own: starting them takes longer than a network of a test takes to train.
TRAIN = ("jobs.train", "jobs.tune")
ONE_PROCESS = ("--set", "train.launcher=process")
# Compiling a query, or planning it again while it runs, costs more than running it on a handful of rows.
FOR_FEW_ROWS = {
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
    "spark.sql.adaptive.enabled": "false",
    "spark.sql.shuffle.partitions": "2",
}


@pytest.fixture(scope="session")
def spark() -> Iterator[SparkSession]:
    from genodl_spark.job import config

    yield session.build("tests", {**config.load().spark, **FOR_FEW_ROWS}, "local[2]")
    session.stop()


@pytest.fixture
def lake(spark: SparkSession, tmp_path: Path) -> Lake:
    from genodl_spark.lake.delta import Lake

    return Lake(spark, str(tmp_path / "a lake, 100% odd"))


@pytest.fixture
def genodl(spark: SparkSession, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """Runs a verb within the tests' session; returns exit code, run report and the last line on stderr."""
    monkeypatch.setattr(session, "stop", lambda: None)
    # A verb gives the session the settings of conf/ again.
    monkeypatch.setattr(session, "_ALWAYS", {**session._ALWAYS, **FOR_FEW_ROWS})

    def run(verb, *argv: str) -> tuple[int, dict, str]:
        if verb.__name__ in TRAIN and not any("train.launcher=" in word for word in argv):
            argv = (*argv, *ONE_PROCESS)
        code = verb.main([*argv, "--master", "local[2]"])
        out = capsys.readouterr()
        return code, json.loads(out.out.strip().split("\n")[-1]), (out.err.strip().split("\n") or [""])[-1]

    return run


@pytest.fixture(scope="session")
def wheel() -> Path:
    built = subprocess.run(["bash", "docker/wheel.sh"], cwd=ROOT, check=True, capture_output=True, text=True)
    return ROOT / built.stdout.strip().splitlines()[-1]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that need Spark come first: where two processes share the files, the last ones to end are then short."""
    slow = {item.path for item in items if "spark" in getattr(item, "fixturenames", ())}
    items.sort(key=lambda item: item.path not in slow)
