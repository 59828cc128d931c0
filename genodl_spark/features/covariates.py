"""Columns of the sample table, and burdens of genes, beside features of another kind."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genodl_spark.core.errors import InputError
from genodl_spark.core.text_values import known, number, shown
from genodl_spark.features.protocol import (
    ROWS,
    Changed,
    Choice,
    Features,
    StoredRows,
    batch_of,
    blocks_among,
    entity_of,
)
from genodl_spark.lake.entities import check_column, rows_about, table_about
from genodl_spark.lake.schema import PERSON, Table, identifier
from genodl_spark.learning.encodings.values import Values
from genodl_spark.learning.preprocessing import BURDEN, COVARIATE

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from genodl_spark.features.burdens import BurdenFeatures
    from genodl_spark.lake.snapshot import Snapshot

_STORED = Values()


def _burden_features() -> BurdenFeatures:
    """Found by name, as `code_of` does: models without burdens are not made by code of genotypes and its kernels."""
    found: BurdenFeatures = importlib.import_module("genodl_spark.features.burdens").BurdenFeatures()
    return found


@dataclass(frozen=True)
class WithCovariates:
    """Other features and, behind them, columns of the sample table, or of `labels`: numbers as they are,
    text as one indicator per value. `burden:GENE:CLASS` is no column: people have that of BurdenFeatures.

    Their identifiers are `covariate:COLUMN` and `covariate:COLUMN=VALUE`; the values that text takes are those
    of the samples that the features are chosen over. A column whose known values there are all numbers is a number:
    a text elsewhere is missing. `batch`: a column of them that has indicators whatever its values are.
    """

    base: Features
    columns: list[str]
    batch: str = ""
    dtype: str = "float32"
    encoding: str | None = None

    @property
    def entity(self) -> str:
        return entity_of(self.base)

    @property
    def burdens(self) -> list[str]:
        """Burdens among the covariates, as BurdenFeatures call them."""
        return [column.removeprefix(BURDEN) for column in self.columns if column.startswith(BURDEN)]

    @property
    def tables(self) -> tuple[Table, ...]:
        more = _burden_features().tables if self.burdens else ()
        return tuple({table.name: table for table in (*self.base.tables, *more, table_about(self.entity))}.values())

    def _described(self, lake: Snapshot, cohort: str) -> DataFrame:
        from pyspark.sql import functions as F

        return rows_about(lake, self.entity).where(F.col("cohort") == cohort).drop("cohort")

    def cohorts(self, lake: Snapshot) -> list[str]:
        return self.base.cohorts(lake)

    def positions(self, names: list[str]) -> dict[str, np.ndarray]:
        return blocks_among(self.base, [name for name in names if not name.startswith(COVARIATE)])

    def entities(self, lake: Snapshot, cohort: str) -> list[str]:
        return self.base.entities(lake, cohort)

    def choose(self, lake: Snapshot, cohort: str, entities: list[str], learns: np.ndarray) -> Choice:
        from pyspark.sql import functions as F

        rows = self._described(lake, cohort)
        columns = [column for column in self.columns if not column.startswith(BURDEN)]
        if self.burdens and self.entity != PERSON:
            found = f"found {BURDEN}{self.burdens[0]} for features of each {self.entity}"
            raise InputError(f"{found}; expected burdens for those of people", "covariates")
        if self.burdens:
            _burden_features().check(lake, cohort, self.burdens, "covariates")
        for column in columns:
            check_column(rows, self.entity, column, "covariates")
        wanted = {entity for entity, learnt in zip(entities, learns.any(0), strict=True) if learnt}
        table = rows.select(
            "entity_id", *(F.col(identifier(c)).alias(f"c{i}") for i, c in enumerate(columns))
        ).collect()
        added = [f"{COVARIATE}{BURDEN}{name}" for name in self.burdens]
        for i, column in enumerate(columns):
            texts = (known(row[f"c{i}"]) for row in table if row.entity_id in wanted and row[f"c{i}"] is not None)
            values = {text for text in texts if text is not None}
            if column != self.batch and all(number(value) is not None for value in values):
                added.append(f"{COVARIATE}{column}")
            else:
                added += [f"{COVARIATE}{column}={value}" for value in sorted(values)]
        base = self.base.choose(lake, cohort, entities, learns)
        allowed = (
            None if base.allowed is None else np.pad(base.allowed, ((0, 0), (0, len(added))), constant_values=True)
        )
        return Choice([*base.names, *added], allowed)

    def rows(self, lake: Snapshot, cohort: str, features: list[str]) -> DataFrame:
        from pyspark.sql import functions as F

        own = [name for name in features if name.startswith(COVARIATE)]
        base = self.base.rows(lake, cohort, features[: len(features) - len(own)])
        described = self._described(lake, cohort)
        wanted = [_parts(name) for name in own]
        columns = sorted({column for column, _ in wanted if column in described.columns})
        attached = described.select("entity_id", *(F.col(identifier(c)).alias(f"c{i}") for i, c in enumerate(columns)))
        rows = base.join(attached, "entity_id", "left")
        burdened = [j for j, (column, _) in enumerate(wanted) if column.startswith(BURDEN)]
        if burdened:
            asked = [wanted[j][0].removeprefix(BURDEN) for j in burdened]
            added = _burden_features().rows(lake, cohort, asked)
            rows = rows.join(
                added.select("entity_id", F.col("x").alias("burdens"), F.col("missing").alias("lacking")),
                "entity_id",
                "left",
            )
        dtype = self.base.dtype

        def kernel(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            for batch in batches:
                stored = np.frombuffer(b"".join(batch.column("x").to_pylist()), dtype).reshape(batch.num_rows, -1)
                more = np.full((batch.num_rows, len(wanted)), np.nan, np.float32)
                for j, (column, value) in enumerate(wanted):
                    if column in columns:
                        more[:, j] = covariate(batch.column(f"c{columns.index(column)}").to_pylist(), value)
                missing = np.full(batch.num_rows, sum(column not in columns for column, _ in wanted) - len(burdened))
                if burdened:
                    there = batch.column("burdens").is_valid().to_numpy(zero_copy_only=False)
                    packed = b"".join(batch.column("burdens").drop_null().to_pylist())
                    more[np.ix_(there, burdened)] = np.frombuffer(packed, np.float32).reshape(-1, len(burdened))
                    missing += pc.fill_null(batch.column("lacking"), len(burdened)).to_numpy()
                x = np.concatenate([_STORED.floats(stored), more], 1)
                yield batch_of(batch.column("entity_id"), x, np.asarray(batch.column("missing")) + missing)

        return rows.mapInArrow(kernel, ROWS)

    def texts_for_numbers(self, lake: Snapshot, cohort: str, features: list[str]) -> dict[str, tuple[int, str]]:
        """By column that is a number among `features`: how many entities of a cohort have a text there,
        which is missing to `rows`, and one."""
        from pyspark.sql import functions as F

        described = self._described(lake, cohort)
        columns = [column for column, value in map(_parts, features) if value is None and column in described.columns]
        found = (
            described.select(*(F.col(identifier(column)) for column in columns)).toArrow().columns if columns else []
        )
        texts = {
            column: [
                text
                for text in (known(value.as_py() or "") for value in values)
                if text is not None and number(text) is None
            ]
            for column, values in zip(columns, found, strict=True)
        }
        return {column: (len(odd), min(odd)) for column, odd in texts.items() if odd}

    def stored(self, lake: Snapshot, cohort: str, features: list[str]) -> StoredRows | None:
        return None

    def changed(self, lake: Snapshot, cohort: str, since: Mapping[str, int]) -> Changed | None:
        from pyspark.sql import functions as F

        base = self.base.changed(lake, cohort, since)
        table = table_about(self.entity)
        columns = [name for name in self.columns if name in lake.read(table).columns]
        found = lake.changed(
            table, cohort, since.get(table.name), list(filter(None, (table.kind_in, table.entity))), columns
        )
        burdens = _burden_features().changed(lake, cohort, since) if self.burdens else None
        if base is None or found is None or (self.burdens and burdens is None):
            return None
        rows = found[0].where(F.col(table.kind_in) == self.entity) if table.kind_in else found[0]
        changed = base.entities.union(rows.select(F.col(table.entity).alias("entity_id")))
        return Changed((changed if burdens is None else changed.union(burdens.entities)).distinct(), None)


def _parts(name: str) -> tuple[str, str | None]:
    """Column and value of a covariate's identifier; stored column names hold no equals sign (see
    formats/sample_table.py)."""
    column, separator, value = name.removeprefix(COVARIATE).partition("=")
    return column, value if separator else None


def covariate(texts: Iterable[str | None], value: str | None) -> np.ndarray:
    """float32 (samples,): the number that each text is, or with `value` whether it is that one;
    NaN where it is missing, or no number."""
    cells = [None if text is None else known(text) for text in texts]
    if value is not None:
        return np.array([np.nan if cell is None else float(cell == value.strip()) for cell in cells], np.float32)
    found = [None if cell is None else number(cell) for cell in cells]
    return np.array([np.nan if one is None else one for one in found], np.float32)


def told(features: Features, lake: Snapshot, cohort: str, names: list[str]) -> list[str]:
    """Warnings on what `names` are made of, where features say that, and on values of a cohort that stand in the lake
    and are missing to them all the same."""
    if hasattr(features, "told"):
        said: list[str] = features.told(lake, cohort, names)
        return said
    if not isinstance(features, WithCovariates):
        return []
    found = features.texts_for_numbers(lake, cohort, [name for name in names if name.startswith(COVARIATE)])
    return told(features.base, lake, cohort, names) + [
        (
            f"covariate {column} is a number, and {times} samples of cohort {cohort} have a text there, "
            f"as {shown(text)}: they count as missing"
        )
        for column, (times, text) in found.items()
    ]
