"""The genotyped samples of a cohort: in which orders their calls are packed, and where each stands in them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from genodl_spark.lake.tables.ingested import SAMPLE_SETS, VARIANTS

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from genodl_spark.lake.snapshot import Snapshot


def genotyped(lake: Snapshot) -> list[str]:
    """Cohorts that have genotypes, sorted."""
    from pyspark.sql import functions as F

    filled = [(file.partition["cohort"], file.filled("gt")) for file in lake.files(VARIANTS)]
    found = {cohort for cohort, has in filled if has}
    # where the log does not tell, genotypes are read
    unsure = {cohort for cohort, has in filled if has is None} - found
    if unsure:
        rows = lake.read(VARIANTS).where(F.col("cohort").isin(*unsure) & F.col("gt").isNotNull())
        found |= {row.cohort for row in rows.select("cohort").distinct().collect()}
    return sorted(found)


def sample_sets(lake: Snapshot, cohort: str) -> list[str]:
    """The orders of samples in the cohort's genotypes, sorted."""
    from pyspark.sql import functions as F

    files = [file for file in lake.files(VARIANTS) if file.partition["cohort"] == cohort]
    filled = [(file.filled("gt"), *file.ends("sample_set")) for file in files]
    if all(has is False or (has and low is not None and low == high) for has, low, high in filled):
        return sorted({low for has, low, _ in filled if has})
    rows = lake.read(VARIANTS, cohort).where((F.col("cohort") == cohort) & F.col("gt").isNotNull())
    return sorted(row.sample_set for row in rows.select("sample_set").distinct().collect())


def ordered_samples(lake: Snapshot, cohort: str) -> pa.Table:
    """sample_set, position (0-based) and sample_id of every order of samples in the cohort's variants."""
    return lake.rows(SAMPLE_SETS, {"sample_set": sample_sets(lake, cohort)})


def sample_orders(lake: Snapshot, cohort: str) -> DataFrame:
    """`ordered_samples` as a DataFrame."""
    from pyspark.sql import functions as F

    rows = lake.read(SAMPLE_SETS).where(F.col("sample_set").isin(*sample_sets(lake, cohort)))
    return rows.select("sample_set", "position", "sample_id")


@dataclass(frozen=True)
class Samples:
    """The samples of a cohort, sorted, and where each set's samples are among them: int64 (n,) by sample set."""

    names: list[str]
    places: dict[str, np.ndarray]


def samples_of(lake: Snapshot, cohort: str) -> Samples:
    rows = ordered_samples(lake, cohort)
    # identifiers, not genotypes
    sets, order, ids = (rows.column(name).to_pylist() for name in ("sample_set", "position", "sample_id"))
    names = sorted(set(ids))
    index = {sample: i for i, sample in enumerate(names)}
    ordered: dict[str, list[tuple[int, int]]] = {}
    for sample_set, position, sample in zip(sets, order, ids, strict=True):
        ordered.setdefault(sample_set, []).append((position, index[sample]))
    places = {
        sample_set: np.array([place for _, place in sorted(found)], np.int64) for sample_set, found in ordered.items()
    }
    return Samples(names, places)
