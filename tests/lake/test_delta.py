"""The lake's promises: contracts held by Delta, transactions by key, nothing rewritten without need."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import deltalake
import pyarrow as pa
import pytest
from pyspark.sql import functions as F

from genodl_spark.core import storage
from genodl_spark.core.errors import InputError
from genodl_spark.lake.delta import Lake
from genodl_spark.lake.schema import Table
from genodl_spark.lake.tables import TABLES
from genodl_spark.lake.tables.genetics import QC_STEPS
from genodl_spark.lake.tables.ingested import METHYLATION, SAMPLES
from genodl_spark.lake.tables.learning import EVALUATIONS, SPLITS
from genodl_spark.lake.transactions import Transaction

SPLIT_ROW = ("t", "c'o`h\\", "label", "h", 0, "e1", None, "fold", 1, None)


def test_every_table_is_created_as_declared(lake: Lake) -> None:
    for table in TABLES.values():
        lake.create(table)
        assert lake.version(table) == 0
        lake.create(table)
        assert lake.version(table) == 0
        fields = lake.read(table).schema.fields
        assert [(f.name, f.nullable, f.metadata.get("comment")) for f in fields] == [
            (c.name, c.nullable, c.doc) for c in table.columns
        ]
        assert lake.read(table).schema.simpleString() == table.spark_schema().simpleString()


def test_a_table_that_another_run_makes_first(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    other, begin = Lake(lake.spark, lake.uri), lake._transaction
    rows = pa.Table.from_pylist([dict(zip(SPLITS.column_names, SPLIT_ROW, strict=True))], SPLITS.arrow_schema())
    coming = [lambda: other.create(QC_STEPS), lambda: other.append(SPLITS, rows)]

    def late(table: Table, since: int | None = None) -> Transaction:
        transaction = begin(table, since)
        if coming:
            coming.pop(0)()
        return transaction

    monkeypatch.setattr(lake, "_transaction", late)
    lake.create(QC_STEPS)
    lake.append(SPLITS, rows)
    assert not coming and [lake.version(QC_STEPS), lake.version(SPLITS), lake.count(SPLITS)] == [0, 1, 2]


def test_the_first_rows_of_a_table_make_it(lake: Lake) -> None:
    """One version, with the columns, comments and checks that an empty table would have been made with."""
    people = {"cohort": ["c", "c"], "sample_id": ["b", "a"], "age": ["3", None]}
    rows = pa.Table.from_pydict(people, pa.schema([pa.field(name, pa.string(), name == "age") for name in people]))
    lake.merge(SAMPLES, rows)
    assert lake.version(SAMPLES) == 0
    lake.merge(
        SAMPLES,
        rows.set_column(2, "age", pa.array([None, "4"], pa.string())).append_column("sex", pa.array(["m", "f"])),
    )
    assert sorted(map(tuple, lake.read(SAMPLES).collect())) == [("c", "a", "4", "f"), ("c", "b", None, "m")]
    log = Path(storage.local_path(lake.path(SAMPLES))) / "_delta_log"
    first = {
        key: value
        for line in (log / f"{0:020}.json").read_text().splitlines()
        for key, value in json.loads(line).items()
    }
    assert first.keys() == {"commitInfo", "metaData", "protocol", "add"}
    fields = json.loads(first["metaData"]["schemaString"])["fields"]
    assert [(f["name"], f["nullable"], f["metadata"].get("comment")) for f in fields] == [
        *((c.name, c.nullable, c.doc) for c in SAMPLES.columns),
        ("age", True, None),
    ]
    properties = first["metaData"]["configuration"]
    assert (
        properties["delta.constraints.sample_named"] == "length(sample_id) > 0"
        and properties["delta.enableDeletionVectors"] == "false"
    )
    assert json.loads((log / f"{0:020}.crc").read_text())["numFiles"] == 1
    with pytest.raises(ValueError, match="breaks"):
        Lake(lake.spark, f"{lake.uri}-2").merge(SAMPLES, rows.set_column(1, rows.schema.field(1), pa.array(["", "x"])))
    assert not lake.exists(EVALUATIONS)


def test_checks_hold(lake: Lake) -> None:
    bad = lake.spark.createDataFrame([(*SPLIT_ROW[:7], "winner", None, None)], SPLITS.spark_schema())
    with pytest.raises(Exception, match="CHECK constraint role"):
        lake.append(SPLITS, bad)
    assert lake.read(SPLITS).count() == 0


def test_replace_quotes_what_users_name(lake: Lake) -> None:
    rows = lake.spark.createDataFrame([SPLIT_ROW, (*SPLIT_ROW[:5], "e2", None, "fold", 0, None)], SPLITS.spark_schema())
    lake.append(SPLITS, rows.withColumn("cohort", F.lit("other")))
    lake.replace(SPLITS, rows, {"cohort": SPLIT_ROW[1]})
    lake.replace(SPLITS, rows.limit(1), {"cohort": SPLIT_ROW[1]})
    counted = {r["cohort"]: r["count"] for r in lake.read(SPLITS).groupBy("cohort").count().collect()}
    assert counted == {"other": 2, SPLIT_ROW[1]: 1}


def test_merge_upserts_by_key_and_grows_open_tables(lake: Lake) -> None:
    create = lake.spark.createDataFrame
    lake.merge(SAMPLES, create([("c", "a", "1"), ("c", "b", "2")], "cohort string, sample_id string, label string"))
    lake.merge(
        SAMPLES,
        create(
            [("c", "b", "3", "x"), ("c", "d", None, "y")], "cohort string, sample_id string, label string, site string"
        ),
    )
    rows = {r.sample_id: (r.label, r.site) for r in lake.read(SAMPLES).collect()}
    assert rows == {"a": ("1", None), "b": ("3", "x"), "d": (None, "y")}


def test_live_files_are_those_of_the_version(lake: Lake) -> None:
    rows = lake.spark.createDataFrame([SPLIT_ROW], SPLITS.spark_schema())
    lake.append(SPLITS, rows)
    lake.replace(SPLITS, rows, {"cohort": SPLIT_ROW[1]})
    version = lake.version(SPLITS)
    assert version == 1
    files = lake.live_files(SPLITS, version, {"cohort": SPLIT_ROW[1]})
    assert len(files) == 1
    assert storage.kind(files[0]) == "file"
    assert lake.live_files(SPLITS, 0, {"cohort": SPLIT_ROW[1]}) != files
    assert deltalake.DeltaTable(storage.local_path(lake.path(SPLITS))).to_pyarrow_table().num_rows == 1


def test_a_retyped_or_missing_column_is_refused_by_name(lake: Lake) -> None:
    lake.create(EVALUATIONS)
    retyped = tuple(dataclasses.replace(c, type="string") if c.name == "value" else c for c in EVALUATIONS.columns)
    with pytest.raises(InputError, match="holds value as double; expected string"):
        lake.read(dataclasses.replace(EVALUATIONS, columns=retyped))
    more = (*EVALUATIONS.columns, dataclasses.replace(EVALUATIONS.columns[0], name="lost"))
    with pytest.raises(InputError, match="no column lost"):
        lake.read(dataclasses.replace(EVALUATIONS, columns=more))


def step(cohort: str, name: str, metrics: dict[str, float], day: int = 1) -> dict[str, Any]:
    made = datetime(2026, 1, day, 12, 30, tzinfo=UTC)
    return {"cohort": cohort, "step": name, "fingerprint": "f", "metrics": list(metrics.items()), "done_at": made}


def steps(*rows: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), QC_STEPS.arrow_schema())


def test_few_rows_are_merged_as_spark_merges_them(lake: Lake) -> None:
    first = [step("c", "samples", {"rows": 1.0, "x": float("nan")}), step("c", "variants", {"rows": 2.0})]
    frame = lake.spark.createDataFrame([{**r, "metrics": dict(r["metrics"])} for r in first], QC_STEPS.spark_schema())
    lake.merge(QC_STEPS, frame.coalesce(1))  # one file, with time stamps as Spark has them
    version = lake.version(QC_STEPS)
    lake.merge(QC_STEPS, steps(step("c", "samples", {"x": float("nan"), "rows": 1.0}, day=2)))
    assert lake.version(QC_STEPS) == version
    lake.merge(QC_STEPS, steps(step("c", "variants", {"rows": 3.0}, day=3), step("d", "variants", {})))
    stored = {(r.cohort, r.step): (r.metrics.get("rows"), r.done_at.day) for r in lake.read(QC_STEPS).collect()}
    assert stored == {("c", "samples"): (1.0, 1), ("c", "variants"): (3.0, 3), ("d", "variants"): (None, 1)}
    assert lake.rows(QC_STEPS, {"cohort": "c", "step": ["samples", "variants"]}).column("done_at").to_pylist() == [
        datetime(2026, 1, day, 12, 30, tzinfo=UTC) for day in (1, 3)
    ]
    with pytest.raises(ValueError, match="several rows of one key"):
        lake.merge(QC_STEPS, steps(*[step("c", "variants", {})] * 2))


def test_few_rows_are_held_against_the_declaration(lake: Lake) -> None:
    bad = pa.Table.from_pylist(
        [dict(zip(SPLITS.column_names, (*SPLIT_ROW[:7], "winner", None, None), strict=True))], SPLITS.arrow_schema()
    )
    with pytest.raises(ValueError, match="breaks"):
        lake.append(SPLITS, bad)
    with pytest.raises(ValueError, match="without metrics"):
        lake.append(QC_STEPS, steps({**step("c", "samples", {}), "metrics": None}))
    with pytest.raises(ValueError, match="has none of"):
        lake.replace(QC_STEPS, steps(step("c", "samples", {})), {"cohort": "d"})
    assert [lake.count(table) for table in (SPLITS, QC_STEPS)] == [0, 0]


def test_rows_of_others_in_a_file_stay(lake: Lake) -> None:
    lake.append(
        QC_STEPS, steps(step("c", "samples", {}), step("d", "samples", {"rows": 4.0}), step("d", "variants", {}))
    )
    lake.replace(QC_STEPS, steps(step("d", "samples", {"rows": 5.0})), {"cohort": "d", "step": "samples"})
    lake.delete(QC_STEPS, {"cohort": "c"})
    stored = {(r.cohort, r.step): r.metrics for r in lake.read(QC_STEPS).collect()}
    assert stored == {("d", "samples"): {"rows": 5.0}, ("d", "variants"): {}}
    assert deltalake.DeltaTable(storage.local_path(lake.path(QC_STEPS))).to_pyarrow_dataset().count_rows() == 2


def test_the_log_lists_what_spark_reads(lake: Lake) -> None:
    """After every kind of write Delta has the files listed, so that nothing replays the log;
    and a replay gives the same."""
    split = lake.spark.createDataFrame(
        [SPLIT_ROW, (*SPLIT_ROW[:5], "e2", None, "fold", 0, None)], SPLITS.spark_schema()
    )
    lake.replace(SPLITS, split, {"cohort": SPLIT_ROW[1]})
    lake.append(
        SPLITS,
        pa.Table.from_pylist(
            [r.asDict() for r in split.withColumn("cohort", F.lit("d")).collect()], SPLITS.arrow_schema()
        ),
    )
    lake.merge(SPLITS, split.where("entity_id = 'e1'").withColumn("repeat", F.lit(7)))
    lake.delete(SPLITS, {"cohort": "nobody"})
    lake.replace(SPLITS, split.limit(0).select("*"), {"cohort": "nobody"})
    for version in range(lake.version(SPLITS) + 1):
        listed = lake.files(SPLITS, version)
        path = f"{lake.path(SPLITS)}/_delta_log/{version:020}.crc"
        assert storage.read_json(path)["allFiles"] is not None
        storage.remove_file(path)
        assert [(f, f.path, f.partition, f.size, f.statistics) for f in lake.files(SPLITS, version)] == [
            (f, f.path, f.partition, f.size, f.statistics) for f in listed
        ]
    assert lake.count(SPLITS) == lake.read(SPLITS).count() == 5
    assert lake.count(SPLITS, {"cohort": "d"}) == lake.rows(SPLITS, {"cohort": "d"}).num_rows == 2
    assert lake.count(SPLITS, {"cohort": SPLIT_ROW[1]}) == 3


def test_an_older_version_may_lack_a_column_that_came_later(lake: Lake) -> None:
    """What predictions were made from stays readable when its table gains a column; the newest version must have it."""
    lake.create(METHYLATION)
    path = lake.path(METHYLATION)
    before = lake.read(METHYLATION).drop("origin")
    before.write.format("delta").partitionBy(*METHYLATION.partitioned_by).mode("overwrite").option(
        "overwriteSchema", "true"
    ).save(path)
    older = lake.version(METHYLATION)
    assert older is not None
    for refused in (
        lambda: lake.read(METHYLATION),
        lambda: lake.read(METHYLATION, older),
        lambda: lake.check(METHYLATION, older),
    ):
        with pytest.raises(InputError, match="no column origin; expected binary; run genodl maintain"):
            refused()
    lake.spark.sql(f"ALTER TABLE delta.`{path}` ADD COLUMNS (origin binary)")
    assert lake.read(METHYLATION, older).schema["origin"].dataType.simpleString() == "binary"
    lake.check(METHYLATION, older)
    lake.spark.sql(f"ALTER TABLE delta.`{path}` ADD COLUMNS (spare int)")
    lake.read(METHYLATION).drop("sample_id").write.format("delta").mode("overwrite").option(
        "overwriteSchema", "true"
    ).save(path)
    lake.spark.sql(f"ALTER TABLE delta.`{path}` ADD COLUMNS (sample_id string)")
    with pytest.raises(InputError, match="no column sample_id; expected string; restore the column"):
        lake.read(METHYLATION, lake.version(METHYLATION) - 1)  # type: ignore[operator]
