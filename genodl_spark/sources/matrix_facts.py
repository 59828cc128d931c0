"""What a page says of a cohort's matrices: how values spread, what is missing, and where samples lie among each
other."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from genodl_spark.core import packing
from genodl_spark.features.matrices import MatrixFeatures
from genodl_spark.lake.schema import PERSON, Table
from genodl_spark.lake.snapshot import Snapshot
from genodl_spark.lake.summaries import Reading
from genodl_spark.learning.encodings.values import on_linear_scale
from genodl_spark.report.clouds import DRAWN, VARIED, cloud_of
from genodl_spark.report.content import several
from genodl_spark.report.facts import Facts
from genodl_spark.report.measures import Drawn, Greatest, Moments, Picked, Spread, bars_of, missing

_AT_ONCE = 1 << 21  # values of a batch


def facts_of(lake: Snapshot, table: Table, cohort: str) -> list[Facts]:
    """Of every block: two passes over its rows, the second for the values of a sample."""
    found = []
    for block in MatrixFeatures(table).blocks_of(lake, cohort):
        features = MatrixFeatures(table, [block])
        names = features.choose(lake, cohort, [], np.zeros((1, 0), bool)).names
        stored = features.stored(lake, cohort, names)
        assert stored is not None  # as there is one block
        width = len(names)
        at_once = max(1, _AT_ONCE // max(width, 1))
        reading = Reading(table, {"cohort": cohort}, stored.columns, stored.pack, at_once=at_once)
        sums = reading.summarise(lake, MatrixSums(width), stored.files)
        columns = sums.most_varied
        picked = reading.summarise(lake, Picked(sums.drawn.sorted, columns, width), stored.files).x
        title = f"{table.name.capitalize()}, block {block}" if block else table.name.capitalize()
        found.append(sums.facts(title, names, picked))
    return found


class MatrixSums:
    """Of rows with a name and `width` packed float32 values, NaN missing."""

    def __init__(self, width: int) -> None:
        self.width, self.rows = width, 0
        self.values, self.totals, self.lacking = Spread(), Spread(), Spread()
        self.worst, self.drawn = Greatest(), Drawn(DRAWN)
        # on which scale values are is known when all have been seen
        self.moments, self.asinh = Moments(width), Moments(width)

    def add(self, rows: pa.RecordBatch) -> None:
        names, x = rows.column(0), packing.rows(rows.column(1), "float32", self.width)
        self.rows += len(x)
        self.values.add(x)
        lacking = np.isnan(x).mean(1) if self.width else np.zeros(len(x))
        self.lacking.add(lacking)
        self.worst.add(names, lacking)
        self.totals.add(np.nansum(x, 1, dtype=np.float64))
        self.drawn.add(names)
        self.moments.add(x)
        self.asinh.add(np.arcsinh(x))

    def merge(self, other: MatrixSums) -> None:
        self.rows += other.rows
        for name in ("values", "totals", "lacking", "worst", "drawn", "moments", "asinh"):
            getattr(self, name).merge(getattr(other, name))

    @property
    def linear(self) -> bool:
        return on_linear_scale(self.values.high)

    @property
    def most_varied(self) -> np.ndarray:
        return (self.asinh if self.linear else self.moments).most_varied(VARIED, self.rows)

    def facts(self, title: str, names: list[str], picked: np.ndarray) -> Facts:
        """`picked` float32 (drawn samples, most varied features): their values."""
        v = self.values
        size = f"{several(self.rows, 'sample')} of {several(self.width, 'feature')}"
        if not v.n:
            return Facts(title, [f"{size}; all values are missing."])
        share = v.missing / max(v.n + v.missing, 1)
        ends = f"Values from {v.text(v.low)} to {v.text(v.high)}, {v.zeros / v.n:.1%} of them 0."
        said, bars, listings = missing(
            self.lacking,
            self.worst,
            names,
            1 - self.moments.n / max(self.rows, 1),
            "sample",
            "feature",
            "value",
        )
        pictures = [bars_of("Values as ingested", v, "Value", "Values")]
        if self.linear and v.low >= 0:
            pictures.append(bars_of("Sum of each sample", self.totals, "Sum of the values", "Samples"))
        drawn = len(picked)
        some = f"{drawn:,} of {self.rows:,} samples, drawn by chance," if drawn < self.rows else "All samples"
        most = (
            f"the {picked.shape[1]:,} features of {self.width:,} that vary most"
            if picked.shape[1] < self.width
            else f"all {self.width:,} features"
        )
        scale = "asinh of the values (a logarithm of large ones)" if self.linear else "values as they are"
        about = f"{some} and {most}; {scale}, centred; a missing value stands at its feature's mean."
        shown = cloud_of(about, PERSON, self.drawn.sorted, np.arcsinh(picked) if self.linear else picked)
        return Facts(
            title, [f"{size}, {share:.1%} of the values missing. {ends}", *said], pictures + bars, listings, [shown]
        )
