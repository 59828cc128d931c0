"""Files of a table: which of them a change of rows concerns, by their statistics alone, and how they are compressed."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import unquote

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from genodl_spark.lake.delta import _same
from genodl_spark.lake.files import StoredFile, holding
from genodl_spark.lake.parts import PartWriter, _leaves
from genodl_spark.lake.schema import Table
from genodl_spark.lake.tables import TABLES
from genodl_spark.lake.tables.genetics import QC_STEPS, VARIANT_QC
from genodl_spark.lake.tables.ingested import EXPRESSION
from genodl_spark.lake.tables.operations import RUNS


def stored(name: str, cohort: str = "c", **statistics: Any) -> StoredFile:
    return StoredFile(f"/t/{name}", name, {"cohort": cohort}, 1, statistics)


def steps(low: str, high: str, nulls: int | None = 0) -> dict[str, Any]:
    found = {"minValues": {"cohort": "c", "step": low}, "maxValues": {"cohort": "c", "step": high}}
    return found | ({} if nulls is None else {"nullCount": {"cohort": 0, "step": nulls}})


@pytest.mark.parametrize(
    ("statistics", "held", "mixed"),
    [
        (steps("samples", "samples"), True, False),
        (steps("pruning", "samples"), False, True),
        (steps("components", "pruning"), False, False),
        (steps("samples", "samples", 1), False, True),  # a row without a step stands there too
        (steps("samples", "samples", None), False, True),
        ({}, False, True),
    ],
)
def test_a_file_is_held_whole_only_if_its_statistics_say_so(
    statistics: dict[str, Any], held: bool, mixed: bool
) -> None:
    file = stored("f", **statistics)
    assert holding(QC_STEPS, [file], {"cohort": "c", "step": "samples"}) == (
        [file] if held else [],
        [file] if mixed else [],
    )


def test_a_partition_needs_no_statistics() -> None:
    mine, other = stored("a"), stored("b", "d")
    assert holding(VARIANT_QC, [mine, other], {"cohort": "c"}) == ([mine], [])
    assert holding(VARIANT_QC, [mine, other], {"cohort": ["c", "d"]}) == ([mine, other], [])
    assert holding(VARIANT_QC, [mine, other], {}) == ([mine, other], [])


def test_whether_a_column_is_filled() -> None:
    assert stored("f", numRecords=3, nullCount={"gt": 2}).filled("gt") is True
    assert stored("f", numRecords=3, nullCount={"gt": 3}).filled("gt") is False
    assert stored("f", numRecords=3).filled("gt") is None


def test_rows_are_the_same_but_for_time_stamps_and_the_order_of_maps() -> None:
    row = {"a": 1, "metrics": [("x", 1.0), ("y", float("nan"))], "list": ["p", "q"], "made_at": 1}
    assert _same(row, {**row, "metrics": [("y", float("nan")), ("x", 1.0)], "made_at": 2})
    assert not _same(row, {**row, "list": ["q", "p"]})
    assert not _same(row, {**row, "metrics": [("x", 1.0), ("y", 0.0)]})
    assert not _same(row, {**row, "a": None})


@pytest.mark.parametrize("table", TABLES.values(), ids=lambda table: table.name)
def test_every_parquet_column_is_given_its_compression(table: Table, tmp_path: Path) -> None:
    schema = pa.schema([f for f in table.arrow_schema() if f.name not in table.partitioned_by])
    pq.write_table(schema.empty_table(), tmp_path / "x.parquet")
    stored = pq.ParquetFile(tmp_path / "x.parquet").schema
    assert [stored.column(i).path for i in range(len(stored))] == [leaf for field in schema for leaf in _leaves(field)]


def test_packed_rows_that_do_not_compress_are_stored_as_they_are(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).standard_normal((600, 256)).astype(np.float32)
    for name, values, codec in (("noise", noise, "UNCOMPRESSED"), ("counts", np.round(np.abs(noise)), "ZSTD")):
        writer = PartWriter(EXPRESSION, f"file://{tmp_path}/{name}", "p")
        same = {"cohort": "c", "file": "f", "block": "", "feature_set": "s", "n_features": 256}
        columns = {
            "x": pa.array([row.tobytes() for row in values]),
            "sample_id": pa.array([f"p{i}" for i in range(600)]),
            "line": pa.array(range(600)),
        }
        made = [
            columns[f.name] if f.name in columns else pa.repeat(pa.scalar(same.get(f.name), f.type), 600)
            for f in EXPRESSION.arrow_schema()
        ]
        made = [column.cast(f.type) for column, f in zip(made, EXPRESSION.arrow_schema(), strict=True)]
        writer.write(pa.RecordBatch.from_arrays(made, schema=EXPRESSION.arrow_schema()))
        (part,) = writer.close()
        file = pq.ParquetFile(tmp_path / name / unquote(part.path))
        stored = file.metadata.row_group(0)
        found = {stored.column(i).path_in_schema: stored.column(i).compression for i in range(stored.num_columns)}
        assert found["x"] == codec and found["sample_id"] == "ZSTD"
        assert file.read(["x"]).column("x").to_pylist() == columns["x"].to_pylist()


def test_rows_are_checked_while_duckdb_is_in_use(tmp_path: Path) -> None:
    """The program that calls may have a result of its own under way on DuckDB's default connection."""
    duckdb.execute("SELECT * FROM range(100000)").fetchone()
    writer = PartWriter(RUNS, f"file://{tmp_path}", "p")
    row = {
        "run_id": "r",
        "job": "x",
        "status": "gone",
        "started_at": 0,
        "seconds": 0.0,
        "arguments": "",
        "settings": "",
        "report": "",
        "code": "",
    }
    writer.write(pa.RecordBatch.from_pylist([row], RUNS.arrow_schema()))
    with pytest.raises(ValueError, match="a row breaks"):
        writer.close()
