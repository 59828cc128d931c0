"""One Spark session for all Spark tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from genodl_spark import config, session
from genodl_spark.lake import Lake


@pytest.fixture(scope="session")
def spark() -> Iterator[SparkSession]:
    yield session.build("tests", config.load().spark, "local[2]")
    session.stop()


@pytest.fixture
def lake(spark: SparkSession, tmp_path: Path) -> Lake:
    return Lake(spark, str(tmp_path / "a lake, 100% odd"))
