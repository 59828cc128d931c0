"""One Spark session for all Spark tests."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from genodl_spark.core import session
from genodl_spark.job import config
from genodl_spark.lake.delta import Lake


@pytest.fixture(scope="session")
def spark() -> Iterator[SparkSession]:
    # Compiling a query costs more than running it on a handful of rows.
    yield session.build("tests", {**config.load().spark, "spark.sql.codegen.wholeStage": "false", "spark.sql.shuffle.partitions": "2"}, "local[2]")
    session.stop()


@pytest.fixture
def lake(spark: SparkSession, tmp_path: Path) -> Lake:
    return Lake(spark, str(tmp_path / "a lake, 100% odd"))


@pytest.fixture
def genodl(spark: SparkSession, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """Runs a verb within the tests' session; returns exit code, run report and the last line on stderr."""
    monkeypatch.setattr(session, "stop", lambda: None)

    def run(verb, *argv: str) -> tuple[int, dict, str]:
        code = verb.main([*argv, "--master", "local[2]"])
        out = capsys.readouterr()
        return code, json.loads(out.out.strip().split("\n")[-1]), (out.err.strip().split("\n") or [""])[-1]

    return run
