"""What a page says of entities that are no person: how long sequences are and what they are made of, and measured
values by groups."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genodl_spark.core import packing
from genodl_spark.lake.schema import Table
from genodl_spark.lake.snapshot import Snapshot
from genodl_spark.lake.summaries import Reading
from genodl_spark.lake.tables.ingested import LABELS, SEQUENCES
from genodl_spark.report.facts import Facts, Listing
from genodl_spark.report.measures import Moments, Spread, bars_of

VALUE = "value"  # the column of a table that holds what is measured
_NUMBER = r"^[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][+-]?[0-9]+)?$"
_GROUPS = 30  # values of a column whose groups are compared


def measured(lake: Snapshot, table: Table, cohort: str) -> Facts | None:
    """What is measured of the entities of a table, all and by groups; None where nothing is."""
    values = Reading(LABELS, {"cohort": cohort, "entity": table.kind}).summarise(lake, Values())
    if not values.all.n:
        return None
    lacking = f" {values.all.missing:,} have none, or no number." if values.all.missing else ""
    said = [f"{values.all.n:,} of the {table.kind}s have a value.{lacking}"]
    return Facts(
        f"Measured values of {table.kind}s",
        said,
        [bars_of("Values", values.all, "Value", f"{table.kind.capitalize()}s")],
        [values.listing(name) for name in sorted(values.groups) if len(values.groups[name]) > 1],
    )


class Values:
    """Numbers in the column `value`, and by the values of each other column that has few: number, mean, deviation."""

    def __init__(self) -> None:
        self.all = Spread()
        self.groups: dict[str, dict[str, Moments]] = {}
        self.many: set[str] = set()  # columns of too many values

    def add(self, rows: pa.RecordBatch) -> None:
        if VALUE not in rows.schema.names:
            return
        numbers = _numbers(rows.column(VALUE))
        self.all.add(numbers)
        for name in rows.schema.names:
            if name in (*LABELS.column_names, VALUE) or name in self.many:
                continue
            levels = rows.column(name).dictionary_encode()
            if len(levels.dictionary) > _GROUPS:
                self._drop(name)
                continue
            codes = levels.indices.fill_null(-1).to_numpy()
            for code, level in enumerate(levels.dictionary.to_pylist()):
                of_level = self.groups.setdefault(name, {}).setdefault(level, Moments(1))
                of_level.add(numbers[codes == code][:, None])
            self._bound(name)

    def merge(self, other: Values) -> None:
        self.all.merge(other.all)
        for name in other.many:
            self._drop(name)
        for name, levels in other.groups.items():
            if name not in self.many:
                for level, moments in levels.items():
                    self.groups.setdefault(name, {}).setdefault(level, Moments(1)).merge(moments)
                self._bound(name)

    def _bound(self, name: str) -> None:
        if len(self.groups.get(name, ())) > _GROUPS:
            self._drop(name)

    def _drop(self, name: str) -> None:
        self.many.add(name)
        self.groups.pop(name, None)

    def listing(self, name: str) -> Listing:
        rows = []
        for level, m in sorted(self.groups[name].items()):
            n = int(m.n[0])
            rows.append([level, n, float(m.sums[0] / n) if n else None, float(np.sqrt(m.variance[0])) if n else None])
        return Listing(f"By {name}", [name, "With a value", "Mean", "Standard deviation"], rows)


def _numbers(texts: pa.Array) -> np.ndarray:
    """Texts (n,) as float64, NaN for what is no number."""
    told = pc.match_substring_regex(texts, _NUMBER).fill_null(False)
    found = np.full(len(texts), np.nan)
    found[told.to_numpy(zero_copy_only=False)] = texts.filter(told).cast(pa.float64()).to_numpy()
    return found


class Composition:
    """Lengths of packed sequences, and the shares of G and C and of what is none of A, C, G, T."""

    def __init__(self) -> None:
        self.lengths, self.gc, self.other = Spread(), Spread(), Spread()

    def add(self, rows: pa.RecordBatch) -> None:
        data, ends = packing.binary(rows.column("codes"))
        codes, ends = data.view(np.int8), ends.astype(np.int64)
        lengths = np.diff(ends)

        def share(mask: np.ndarray) -> np.ndarray:
            before = np.concatenate([[0], np.cumsum(mask)])
            found: np.ndarray = (before[ends[1:]] - before[ends[:-1]]) / np.maximum(lengths, 1)
            return found

        other = share(codes < 0)
        self.lengths.add(lengths)
        self.other.add(other)
        with np.errstate(invalid="ignore", divide="ignore"):
            self.gc.add(np.where(other < 1, share((codes == 1) | (codes == 2)) / (1 - other), np.nan))

    def merge(self, other: Composition) -> None:
        for name in ("lengths", "gc", "other"):
            getattr(self, name).merge(getattr(other, name))


def sequences(lake: Snapshot, cohort: str) -> Facts | None:
    made = Reading(SEQUENCES, {"cohort": cohort}, ["codes"]).summarise(lake, Composition())
    if not made.lengths.n:
        return None
    unsure = made.other.n - made.other.zeros
    said = [
        f"{made.lengths.n:,} sequences of {made.lengths.low:,.0f} to {made.lengths.high:,.0f} bases; "
        f"{unsure:,} have letters that are none of A, C, G, T, at most {max(made.other.high, 0):.1%} of theirs."
    ]
    bars = [
        bars_of("Lengths", made.lengths, "Bases", "Sequences"),
        bars_of("G and C", made.gc, "Share of the known bases", "Sequences", True),
    ]
    return Facts("Sequences", said, bars)


def some(*found: Facts | None) -> list[Facts]:
    return [one for one in found if one is not None]
