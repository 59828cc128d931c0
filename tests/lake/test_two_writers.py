"""Two runs that write to one table at the same time: as if one had come after the other,
and no file of a lost attempt is left."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import deltalake
import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

from genodl_spark.core import storage
from genodl_spark.core.errors import Conflict
from genodl_spark.lake import delta as lake_module
from genodl_spark.lake import transactions
from genodl_spark.lake.delta import Lake
from genodl_spark.lake.files import Without
from genodl_spark.lake.schema import Table
from genodl_spark.lake.tables.genetics import LD_PRUNED, QC_STEPS
from genodl_spark.lake.tables.ingested import SAMPLE_SETS, SAMPLES


@pytest.fixture
def unlocked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commits as on an object store, where nothing but Delta's own check keeps two apart."""
    for module in (transactions, lake_module):
        monkeypatch.setattr(module, "alone", lambda _: contextlib.nullcontext())


@pytest.fixture
def other(lake: Lake) -> Lake:
    return Lake(lake.spark, lake.uri)


def overtaken(lake: Lake, monkeypatch: pytest.MonkeyPatch, write: Callable[[], None], times: int = 1) -> None:
    """Has another run write after each of the next transactions of `lake` has read the table, and before it commits."""
    begin, left = lake._transaction, [times]

    def late(table: Table, since: int | None = None) -> Any:
        transaction = begin(table, since)
        if left[0]:
            left[0] -= 1
            write()
        return transaction

    monkeypatch.setattr(lake, "_transaction", late)


def strays(lake: Lake, table: Table) -> set[str]:
    """Parquet files that no version knows of."""
    newest = lake.version(table)
    assert newest is not None
    known = {file.uri for version in range(newest + 1) for file in lake.files(table, version)}
    return {uri for uri in storage.files_under(lake.path(table), ".parquet") if "/_delta_log/" not in uri} - known


def pruned(cohort: str, pos: int) -> pa.Table:
    return pa.Table.from_pylist(
        [{"cohort": cohort, "contig": "1", "pos": pos, "ref": "A", "alt": "C"}], LD_PRUNED.arrow_schema()
    )


def step(cohort: str, rows: float) -> pa.Table:
    made = datetime(2026, 1, 1, tzinfo=UTC)
    row = {"cohort": cohort, "step": "samples", "fingerprint": "f", "metrics": [("rows", rows)], "done_at": made}
    return pa.Table.from_pylist([row], QC_STEPS.arrow_schema())


def write(lake: Lake, how: str, cohort: str, value: int) -> None:
    if how == "merge":
        lake.merge(QC_STEPS, step(cohort, value))
    elif how == "frame":
        rows = lake.spark.createDataFrame(pruned(cohort, value).to_pylist(), LD_PRUNED.spark_schema())
        lake.replace(LD_PRUNED, rows, {"cohort": cohort})
    else:
        lake.replace(LD_PRUNED, pruned(cohort, value), {"cohort": cohort})


@pytest.mark.parametrize(
    ("how", "cohort", "before"),
    [
        ("replace", "c", False),
        ("replace", "d", True),
        ("frame", "c", True),
        ("merge", "c", False),
        ("merge", "d", True),
    ],
)
def test_what_lost_the_race_is_done_again(
    lake: Lake, other: Lake, unlocked: None, monkeypatch: pytest.MonkeyPatch, how: str, cohort: str, before: bool
) -> None:
    table = QC_STEPS if how == "merge" else LD_PRUNED
    lake.create(table)
    if before:
        write(lake, how, "c", 1)
    moves = iter([2, 3])
    overtaken(
        lake, monkeypatch, lambda: write(other, "replace" if how == "frame" else how, cohort, next(moves)), times=2
    )
    write(lake, how, "c", 4)
    rows = other.rows(table, {}).to_pylist()
    found = [(r["cohort"], r["pos"] if table is LD_PRUNED else int(dict(r["metrics"])["rows"])) for r in rows]
    assert sorted(found) == ([("c", 4)] if cohort == "c" else [("c", 4), ("d", 3)])
    assert strays(lake, table) == set()


def test_exclusive_commits_and_rows_of_an_older_version_are_refused(
    lake: Lake, other: Lake, unlocked: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And after the refusal no file is left of them; a commit of other rows, in between, is no reason to refuse."""

    def exclusively(one: Lake, cohort: str, pos: int) -> None:
        where = {"cohort": cohort}
        parts = one._written(LD_PRUNED, pruned(cohort, pos))
        with one._dropped_if_lost(LD_PRUNED, parts):
            one.commit(LD_PRUNED, parts, where, exclusive=where)

    lake.create(LD_PRUNED)
    exclusively(lake, "c", 1)
    with monkeypatch.context() as patch:
        overtaken(lake, patch, lambda: exclusively(other, "d", 2))
        exclusively(lake, "c", 3)
    with monkeypatch.context() as patch:
        overtaken(lake, patch, lambda: exclusively(other, "c", 4))
        with pytest.raises(Conflict, match="ld_pruned: found another run that has replaced the same rows meanwhile"):
            exclusively(lake, "c", 5)
    version = lake.version(LD_PRUNED)
    assert version is not None
    with pytest.raises(Conflict, match=f"found version {version}, where this run has read {version - 1}"):
        lake.replace(LD_PRUNED, pruned("e", 6), {"cohort": "e"}, since=version - 1)
    lake.commit(LD_PRUNED, [], {"cohort": "f"}, exclusive={"cohort": "f"}, since=1)  # nobody has written these since
    with pytest.raises(Conflict, match="has replaced the same rows"):
        lake.commit(LD_PRUNED, [], {"cohort": "d"}, exclusive={"cohort": "d"}, since=1)
    lake.merge(QC_STEPS, step("c", 1))
    with monkeypatch.context() as patch:
        overtaken(lake, patch, lambda: other.merge(QC_STEPS, step("d", 2)))
        with pytest.raises(Conflict, match="found version 1, where this run has read 0"):
            lake.merge(QC_STEPS, step("c", 3), since=0)
    assert sorted((r["cohort"], r["pos"]) for r in lake.rows(LD_PRUNED, {}).to_pylist()) == [("c", 4), ("d", 2)]
    assert [r["cohort"] for r in lake.rows(QC_STEPS, {}).sort_by("cohort").to_pylist()] == ["c", "d"]
    assert strays(lake, LD_PRUNED) == strays(lake, QC_STEPS) == set()


def test_a_change_of_rows_changes_those_that_have_just_come(
    lake: Lake, other: Lake, unlocked: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake.merge(QC_STEPS, step("c", 1))
    overtaken(lake, monkeypatch, lambda: other.append(QC_STEPS, step("c", 2)))
    assert lake.rewrite(QC_STEPS, {"cohort": "c"}, Without({"cohort": pa.array(["c"])}))
    assert other.count(QC_STEPS) == 0 and strays(lake, QC_STEPS) == set()


def test_a_compaction_that_lost_leaves_the_files_as_they_are(
    lake: Lake, other: Lake, unlocked: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for cohort in "cde":
        lake.append(QC_STEPS, step(cohort, 1))
    groups = lake.small_files(QC_STEPS, 1 << 20, 2)
    overtaken(lake, monkeypatch, lambda: other.merge(QC_STEPS, step("d", 2)))
    with pytest.raises(Conflict, match="qc_steps: found another run that has changed it meanwhile"):
        lake.compact(QC_STEPS, groups)
    assert {r["cohort"]: dict(r["metrics"])["rows"] for r in lake.rows(QC_STEPS, {}).to_pylist()} == {
        "c": 1,
        "d": 2,
        "e": 1,
    }
    assert strays(lake, QC_STEPS) == set()


def slow(lake: Lake, rows: list[tuple[str, ...]], schema: str, flag: Path) -> Any:
    """Rows that take as long as the file is not there."""

    def wait(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        while not flag.exists():
            time.sleep(0.05)
        yield from batches

    return lake.spark.createDataFrame(rows, schema).coalesce(1).mapInArrow(wait, schema)


@pytest.mark.timeout(180)
def test_two_merges_of_the_same_samples(lake: Lake, other: Lake, unlocked: None, tmp_path: Path) -> None:
    """Both at first, then both again: each sample is there once, as the one that came last has it,
    with the columns of both."""
    schemas = ["cohort string, sample_id string", "cohort string, sample_id string, label string"]
    for turn, schema in enumerate(schemas):
        flag = tmp_path / f"go {turn}"
        more = [f"ours {turn}"][:turn]
        rows = [("c", f"s{i}", *more) for i in range(3)]
        with ThreadPoolExecutor(1) as pool:
            ours = pool.submit(lake.merge, SAMPLES, slow(lake, rows, schema, flag))
            time.sleep(1.5)  # ours has read the table, and waits for its rows
            theirs = other.spark.createDataFrame([("c", f"s{i}", f"theirs {turn}") for i in range(1, 4)], schemas[1])
            other.merge(SAMPLES, theirs if turn else theirs.drop("label"))
            assert not ours.done()
            flag.touch()
            ours.result(120)
        stored = {(r.sample_id, r.label if turn else None) for r in lake.read(SAMPLES).collect()}
        assert lake.count(SAMPLES) == 4
        assert stored == {(f"s{i}", None if not turn else "ours 1" if i < 3 else "theirs 1") for i in range(4)}


@pytest.mark.parametrize("locked", [True, False])
def test_tables_and_columns_that_two_runs_make(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, locked: bool
) -> None:
    uri = str(tmp_path / "lake")
    if not locked:
        for module in (transactions, lake_module):
            monkeypatch.setattr(module, "alone", lambda _: contextlib.nullcontext())
    lakes = [Lake(spark, uri) for _ in range(4)]
    older = dataclasses.replace(SAMPLE_SETS, columns=SAMPLE_SETS.columns)
    more = dataclasses.replace(
        SAMPLE_SETS,
        columns=(*SAMPLE_SETS.columns, dataclasses.replace(SAMPLE_SETS.columns[2], name="alias", nullable=True)),
    )
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda one: one.create(older), lakes))
        added = list(pool.map(lambda one: one.upgrade(more), lakes))
    assert sorted(added) == [[], [], [], ["alias"]]
    assert lakes[0].version(SAMPLE_SETS) == 1
    assert [
        field.name for field in deltalake.DeltaTable(storage.local_path(lakes[0].path(SAMPLE_SETS))).schema().fields
    ][-1] == "alias"


def test_a_table_that_another_run_makes_between_two_looks(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    other, look = Lake(lake.spark, lake.uri), Lake._checked
    looks = []

    def slow(one: Lake, table: Table) -> bool:
        found = look(one, table)
        if one is lake:
            looks.append(found)
            other.create(table)
        return found

    monkeypatch.setattr(Lake, "_checked", slow)
    lake.create(SAMPLES)
    assert looks == [False, True]
    assert lake.version(SAMPLES) == 0


def test_a_column_that_another_run_adds_between_two_looks(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    alias = dataclasses.replace(SAMPLE_SETS.columns[2], name="alias", nullable=True)
    more = dataclasses.replace(SAMPLE_SETS, columns=(*SAMPLE_SETS.columns, alias))
    lake.create(SAMPLE_SETS)
    ask, asked = lake.spark.sql, list[str]()

    def late(text: str) -> Any:
        asked.append(text)
        if len(asked) == 1:
            ask(text)  # as another run does at this moment
        return ask(text)

    monkeypatch.setattr(lake.spark, "sql", late)
    assert lake.upgrade(more) == [] and len(asked) == 1 and lake.version(SAMPLE_SETS) == 1
