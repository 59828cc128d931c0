"""What a lake says of entities besides their data: columns of `samples` for people, of `labels` for sequences,
variants, cells and sites.

Older versions put what they knew of sequences into `samples`, as if these were people.
An entity that `labels` does not have is asked for there.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from genodl_spark.core.errors import InputError
from genodl_spark.lake.schema import OF_TASK, PERSON, Table
from genodl_spark.lake.tables import TABLES
from genodl_spark.lake.tables.ingested import LABELS, SAMPLES

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from genodl_spark.lake.delta import Lake
    from genodl_spark.lake.snapshot import Snapshot


def kind_of(tables: Iterable[str]) -> str:
    """The kind of entity whose features are made of these tables: a person, unless rows of one of them
    are about something else."""
    read = (TABLES[name] for name in tables if name in TABLES)
    return next((table.kind for table in read if table.entity and table.kind not in (PERSON, OF_TASK)), PERSON)


def table_about(kind: str) -> Table:
    """Where the columns of entities of a kind stand."""
    return SAMPLES if kind == PERSON else LABELS


def tables_about(lake: Snapshot, kind: str, cohort: str) -> list[Table]:
    """The same, and what else is asked for a cohort."""
    own = table_about(kind)
    return [own, SAMPLES] if own is LABELS and _has_people(lake, cohort) else [own]


def rows_about(lake: Snapshot | Lake, kind: str) -> DataFrame:
    """cohort, entity_id, and the columns of sample tables or of `labels`, as text:
    a row for each entity of a kind in `table_about`."""
    from pyspark.sql import functions as F

    table = table_about(kind)
    rows = lake.read(table)
    if table.kind_in:
        rows = rows.where(F.col(table.kind_in) == kind)
    return rows.drop(*set(table.column_names) - {"cohort", table.entity}).withColumn("entity_id", F.col(table.entity))


def check_column(rows: DataFrame, kind: str, column: str, place: str) -> None:
    """InputError, at `place`, for a column that rows of the functions here lack."""
    if column not in rows.columns:
        there = ", ".join(name for name in rows.columns if name not in ("cohort", "entity_id"))
        raise InputError(f"found no column {column!r} in {table_about(kind).name}; expected one of {there}", place)


def all_rows_about(lake: Snapshot, kind: str, cohort: str | None = None) -> DataFrame:
    """The same for a cohort, or all of them, with what stands in `samples` of entities that `labels` does not have."""
    from pyspark.sql import functions as F

    def of_cohort(rows: DataFrame) -> DataFrame:
        return rows if cohort is None else rows.where(F.col("cohort") == cohort)

    rows = of_cohort(rows_about(lake, kind))
    if table_about(kind) is SAMPLES or (cohort is not None and not _has_people(lake, cohort)):
        return rows
    older = (
        of_cohort(rows_about(lake, PERSON))
        .drop(SAMPLES.entity)
        .join(rows.select("cohort", "entity_id"), ["cohort", "entity_id"], "left_anti")
    )
    return rows.unionByName(older, allowMissingColumns=True)


def _has_people(lake: Snapshot, cohort: str) -> bool:
    from pyspark.sql import functions as F

    found: bool = lake.once(
        ("people", cohort), lambda: not lake.read(SAMPLES).where(F.col("cohort") == cohort).isEmpty()
    )
    return found
