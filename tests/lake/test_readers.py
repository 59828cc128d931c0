"""Lake tables read the same by Spark SQL, delta-rs, DuckDB and Polars: nothing in them needs Delta's own reader.

DuckDB's delta extension comes from the network when it is first used;
without it DuckDB takes the live files from delta-rs.
"""

from __future__ import annotations

import datetime
import math
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import deltalake
import duckdb
import polars
import pytest

from genodl_spark.core import storage
from genodl_spark.lake import views
from genodl_spark.lake.delta import Lake
from genodl_spark.lake.schema import Table
from genodl_spark.lake.tables.ingested import EXPRESSION, SAMPLES
from genodl_spark.lake.tables.learning import PREDICTIONS

WHEN = datetime.datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=datetime.UTC)


def predictions(lake: Lake) -> Table:
    """Partitioned by task and cohort, with maps, NULLs and names that have to be quoted."""
    rows = [
        {
            **dict.fromkeys(PREDICTIONS.column_names),
            **{
                "task": "t",
                "cohort": cohort,
                "entity_id": f"e{i}",
                "label_column": "label",
                "model_id": "m",
                "model_version": 1,
            },
            **{"predicted": p, "probabilities": {"a": 0.25, "b c": 0.75} if p else None, "value": 0.75 if p else -1.5},
            **{"in_training": i == 0, "source_versions": {"samples": i}, "scored_at": WHEN},
        }
        for cohort in ("c", "c'o=h%20 ü")
        for i, p in enumerate(("b c", None))
    ]
    lake.append(PREDICTIONS, lake.spark.createDataFrame(rows, PREDICTIONS.spark_schema()))
    # leaves a dead file behind
    lake.replace(PREDICTIONS, lake.read(PREDICTIONS).where("cohort = 'c' AND entity_id = 'e0'"), {"cohort": "c"})
    return PREDICTIONS


def samples(lake: Lake) -> Table:
    """Not partitioned; a column that came later, and one row rewritten."""
    create = lake.spark.createDataFrame
    lake.merge(SAMPLES, create([("c", "a", "1"), ("c", "b", None)], "cohort string, sample_id string, label string"))
    lake.merge(
        SAMPLES, create([("c", "b", "2", "x y")], "cohort string, sample_id string, label string, `er/status` string")
    )
    return SAMPLES


def expression(lake: Lake) -> Table:
    """Packed floats as binary."""
    rows = [
        ("c", block, f"s{i}", "set", bytes(range(8)), 2, "m.tsv", ["m.tsv"], None)
        for block in ("", "mrna")
        for i in range(3)
    ]
    lake.append(EXPRESSION, lake.spark.createDataFrame(rows, EXPRESSION.spark_schema()))
    lake.delete(EXPRESSION, {"sample_id": "s1"})
    return EXPRESSION


def plain(value: Any) -> Any:
    """One form for the types in which the four hand out the same value."""
    if isinstance(value, dict):
        return sorted((key, plain(item)) for key, item in value.items())
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return value
    if isinstance(value, list):  # maps of delta-rs, and of Polars
        return sorted(
            (key, plain(item)) for key, item in (pair.values() if isinstance(pair, dict) else pair for pair in value)
        )
    if isinstance(value, bytearray):
        return bytes(value)
    if isinstance(value, datetime.datetime):
        return value.replace(tzinfo=datetime.UTC) if value.tzinfo is None else value.astimezone(datetime.UTC)
    return None if isinstance(value, float) and math.isnan(value) else value


def canonical(columns: list[str], rows: list[tuple[Any, ...]]) -> list[list[tuple[str, str]]]:
    return sorted(sorted((name, repr(plain(value))) for name, value in zip(columns, row, strict=True)) for row in rows)


@pytest.mark.parametrize("write", [predictions, samples, expression])
def test_four_readers_agree(lake: Lake, tmp_path: Path, write: Any) -> None:
    table = write(lake)
    path = storage.local_path(lake.path(table))
    views.register(lake, [table.name])
    frame = lake.spark.sql(f"select * from {table.name}")
    if table is PREDICTIONS:  # collect() gives local time without a zone; the text is in the session's zone, UTC
        frame = frame.withColumn("scored_at", frame.scored_at.cast("string"))
    spark = canonical(frame.columns, [tuple(row) for row in frame.collect()])

    live = deltalake.DeltaTable(path)
    read = deltalake.QueryBuilder().register("live", live).execute("SELECT * FROM live").read_all()
    columns = [[value.as_py() for value in read.column(name)] for name in read.column_names]
    rust = canonical(read.column_names, list(zip(*columns, strict=True)))

    files = [f"{path}/{unquote(file.as_py())}" for file in live.get_add_actions().column("path")]
    with duckdb.connect() as connection:
        partitioned = bool(live.metadata().partition_columns)
        sql = "SELECT * FROM read_parquet(?, hive_partitioning = ?, hive_types_autocast = false, union_by_name = true)"
        answer = connection.execute(sql, [files, partitioned])
        names = [column[0] for column in answer.description or []]
        duck = canonical(names, answer.fetchall())
    # Polars takes the escapes in a table's own path for its name: it is given one that has none.
    copied = polars.scan_delta(shutil.copytree(path, tmp_path / table.name)).collect()
    lazy = canonical(copied.columns, copied.rows())
    if table is PREDICTIONS:
        text = repr("2026-01-02 03:04:05.678901")
        spark = [[(n, repr(WHEN) if n == "scored_at" and v == text else v) for n, v in row] for row in spark]
    assert len(spark) == {"predictions": 3, "samples": 2, "expression": 4}[table.name]
    assert rust == spark
    assert duck == spark
    assert lazy == spark
    assert len(list(Path(path).rglob("*.parquet"))) > len(files)  # dead files are there, and not read
