"""The lake's promises: contracts held by Delta, transactions by key, nothing rewritten without need."""

from __future__ import annotations

import dataclasses

import deltalake
import pytest
from pyspark.sql import functions as F

from genodl_spark import storage
from genodl_spark.errors import InputError
from genodl_spark.lake import Lake
from genodl_spark.tables import EVALUATIONS, SAMPLES, SPLITS, TABLES

SPLIT_ROW = ("t", "c'o`h\\", "label", "h", 0, "e1", None, "fold", 1)


def test_every_table_is_created_as_declared(lake: Lake) -> None:
    for table in TABLES.values():
        lake.create(table)
        assert lake.version(table) == 0
        lake.create(table)
        assert lake.version(table) == 0
        fields = lake.read(table).schema.fields
        assert [(f.name, f.nullable, f.metadata.get("comment")) for f in fields] == [(c.name, c.nullable, c.doc) for c in table.columns]
        assert lake.read(table).schema.simpleString() == table.spark_schema().simpleString()


def test_checks_hold(lake: Lake) -> None:
    bad = lake.spark.createDataFrame([(*SPLIT_ROW[:7], "winner", None)], SPLITS.spark_schema())
    with pytest.raises(Exception, match="CHECK constraint role"):
        lake.append(SPLITS, bad)
    assert lake.read(SPLITS).count() == 0


def test_replace_quotes_what_users_name(lake: Lake) -> None:
    rows = lake.spark.createDataFrame([SPLIT_ROW, (*SPLIT_ROW[:5], "e2", None, "fold", 0)], SPLITS.spark_schema())
    lake.append(SPLITS, rows.withColumn("cohort", F.lit("other")))
    lake.replace(SPLITS, rows, {"cohort": SPLIT_ROW[1]})
    lake.replace(SPLITS, rows.limit(1), {"cohort": SPLIT_ROW[1]})
    counted = {r["cohort"]: r["count"] for r in lake.read(SPLITS).groupBy("cohort").count().collect()}
    assert counted == {"other": 2, SPLIT_ROW[1]: 1}


def test_merge_upserts_by_key_and_grows_open_tables(lake: Lake) -> None:
    create = lake.spark.createDataFrame
    lake.merge(SAMPLES, create([("c", "a", "1"), ("c", "b", "2")], "cohort string, sample_id string, label string"))
    lake.merge(SAMPLES, create([("c", "b", "3", "x"), ("c", "d", None, "y")], "cohort string, sample_id string, label string, site string"))
    rows = {r.sample_id: (r.label, r.site) for r in lake.read(SAMPLES).collect()}
    assert rows == {"a": ("1", None), "b": ("3", "x"), "d": (None, "y")}


def test_live_files_are_those_of_the_version(lake: Lake) -> None:
    rows = lake.spark.createDataFrame([SPLIT_ROW], SPLITS.spark_schema())
    lake.append(SPLITS, rows)
    lake.replace(SPLITS, rows, {"cohort": SPLIT_ROW[1]})
    version = lake.version(SPLITS)
    assert version == 2
    files = lake.live_files(SPLITS, version, {"cohort": SPLIT_ROW[1]})
    assert len(files) == 1
    assert storage.kind(files[0]) == "file"
    assert lake.live_files(SPLITS, 1, {"cohort": SPLIT_ROW[1]}) != files
    assert deltalake.DeltaTable(storage.local_path(lake.path(SPLITS))).to_pyarrow_table().num_rows == 1


def test_a_retyped_or_missing_column_is_refused_by_name(lake: Lake) -> None:
    lake.create(EVALUATIONS)
    retyped = tuple(dataclasses.replace(c, type="string") if c.name == "value" else c for c in EVALUATIONS.columns)
    with pytest.raises(InputError, match="holds value as double; expected string"):
        lake.read(dataclasses.replace(EVALUATIONS, columns=retyped))
    more = (*EVALUATIONS.columns, dataclasses.replace(EVALUATIONS.columns[0], name="lost"))
    with pytest.raises(InputError, match="no column lost"):
        lake.read(dataclasses.replace(EVALUATIONS, columns=more))
