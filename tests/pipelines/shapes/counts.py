"""Counts of genes in sparse rows, made of an expression matrix whose values are counts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from genodl_spark.core import packing
from genodl_spark.features.matrices import MatrixFeatures
from genodl_spark.features.protocol import ROWS, StoredRows, batch_of
from genodl_spark.lake.tables.ingested import EXPRESSION

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def counted(batches: Iterable[pa.RecordBatch], pack: Any, width: int) -> Iterator[pa.RecordBatch]:
    for batch in pack(batches):
        x = np.nan_to_num(packing.rows(batch.column("x"), "float32", width)).astype(np.uint16)
        rows, genes = np.nonzero(x)
        packed = packing.sparse_column(np.bincount(rows, minlength=len(x)), genes, x[rows, genes])
        yield batch_of(batch.column("entity_id"), packed, batch.column("missing").to_numpy())


@dataclass(frozen=True)
class Counts(MatrixFeatures):
    dtype: str = "sparse:uint16"

    def stored(self, lake: Any, cohort: str, features: list[str]) -> StoredRows:
        whole = super().stored(lake, cohort, features)
        assert whole is not None
        return StoredRows(whole.files, whole.columns, partial(counted, pack=whole.pack, width=len(features)))

    def rows(self, lake: Any, cohort: str, features: list[str]) -> DataFrame:
        whole = self.stored(lake, cohort, features)
        return self._stored(lake, cohort).select(*whole.columns).mapInArrow(whole.pack, ROWS)


def features(settings: Any) -> Counts:
    return Counts(EXPRESSION)
