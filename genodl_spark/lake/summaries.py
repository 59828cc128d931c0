"""Figures of many rows, added up where the files are: in this process where they are small, else in tasks, which send
what they have added up, and no row."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from genodl_spark.core.session import task_slots
from genodl_spark.lake.files import StoredFile, may_hold, opened
from genodl_spark.lake.schema import Table
from genodl_spark.lake.snapshot import Snapshot

_FEW_BYTES = 32 << 20  # of files that are read sooner here than a Spark job is planned
_TASKS = 16  # at most: what they send comes into this process, up to tens of MB each


class Summary(Protocol):
    """What rows add up to: the same, but for the last bits, in whatever order they come."""

    def add(self, rows: pa.RecordBatch) -> None: ...

    def merge(self, other: Any) -> None:
        """Takes in what other rows have added up to."""


S = TypeVar("S", bound=Summary)
Prepare = Callable[[Iterable[pa.RecordBatch]], Iterable[pa.RecordBatch]]


@dataclass(frozen=True)
class Reading:
    """How files of a table are read. `where`: the rows, by the value of columns. `columns`: None for all that a file
    has; those that it lacks are NULL. `most`: rows of each file, evenly from all over it; None for all.
    `prepare` makes other batches of those read, of `at_once` rows each. `few`: bytes that this process reads itself."""

    table: Table
    where: Mapping[str, str]
    columns: Sequence[str] | None = None
    prepare: Prepare | None = None
    most: int | None = None
    at_once: int = 4096
    few: int = _FEW_BYTES

    def files(self, lake: Snapshot) -> list[StoredFile]:
        """Those that may have such rows."""
        return [
            file
            for file in lake.files(self.table)
            if all(may_hold(self.table, file, name, [value]) for name, value in self.where.items())
        ]

    def summarise(self, lake: Snapshot, empty: S, files: Sequence[StoredFile] | None = None) -> S:
        """What the rows of `files`, by default all, add up to. Damaged for a file that has changed."""
        files = self.files(lake) if files is None else files
        if sum(file.size for file in files) <= self.few:
            return self._added(files, empty)
        tasks = min(_TASKS, task_slots(lake.spark), len(files))
        ordered = sorted(files, key=lambda file: -file.size)
        shares = [ordered[i::tasks] for i in range(tasks)]
        work = partial(_work, reading=self, shares=shares, empty=empty)
        rows = lake.spark.range(0, tasks, 1, tasks).mapInArrow(work, "made binary").collect()
        total, *others = [pickle.loads(bytes(row.made)) for row in rows]
        for other in others:
            total.merge(other)
        made: S = total
        return made

    def _added(self, files: Sequence[StoredFile], total: S) -> S:
        for file in files:
            batches: Iterable[pa.RecordBatch] = self._batches(file)
            for rows in batches if self.prepare is None else self.prepare(batches):
                total.add(rows)
        return total

    def _batches(self, file: StoredFile) -> Iterator[pa.RecordBatch]:
        inner = {name: value for name, value in self.where.items() if name not in self.table.partitioned_by}
        with opened(file.uri, file.checksum, self._groups) as stored:
            names, groups = stored.schema_arrow.names, self._groups(stored.metadata)
            there = [name for name in dict.fromkeys([*(self.columns or names), *inner]) if name in names]
            rows = sum(stored.metadata.row_group(group).num_rows for group in groups)
            step = 1 if self.most is None else max(1, rows // max(self.most, 1))
            read = stored.iter_batches(self.at_once, row_groups=groups, columns=there, use_threads=False)
            for batch in read:
                if step > 1:
                    batch = batch.take(pa.array(np.arange(0, batch.num_rows, step)))
                for name, value in inner.items():
                    batch = batch.filter(pc.equal(batch.column(name), value))
                if batch.num_rows:
                    yield self._whole(batch, file)

    def _groups(self, metadata: pq.FileMetaData) -> list[int]:
        """Groups of rows to read: evenly spaced, with `most` rows at least."""
        count = metadata.num_row_groups
        if self.most is None or not count:
            return list(range(count))
        wanted = min(count, max(1, -(-self.most * count // max(metadata.num_rows, 1))))
        return [count * i // wanted for i in range(wanted)]

    def _whole(self, batch: pa.RecordBatch, file: StoredFile) -> pa.RecordBatch:
        """With the columns that the file lacks: those that its folder names, and NULL."""
        if self.columns is None:
            return batch
        types = self.table.arrow_schema()
        made = []
        for name in self.columns:
            if name in batch.schema.names:
                made.append(batch.column(name))
            else:
                value = pa.scalar(file.partition.get(name)).cast(types.field(name).type)
                made.append(pa.repeat(value, batch.num_rows))
        return pa.RecordBatch.from_arrays(made, list(self.columns))


def _work(
    batches: Iterable[pa.RecordBatch], reading: Reading, shares: list[list[StoredFile]], empty: Summary
) -> Iterator[pa.RecordBatch]:
    """For mapInArrow over indices into `shares`."""
    for index in (index for batch in batches for index in batch.column(0).to_pylist()):
        made = pickle.dumps(reading._added(shares[index], copy.deepcopy(empty)))
        yield pa.RecordBatch.from_arrays([pa.array([made], pa.binary())], ["made"])
