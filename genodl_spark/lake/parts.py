"""Parquet files of a declared table, written by the tasks that have the rows;
`Lake.commit` makes them part of the table.

Rows that a Python task holds as Arrow batches take a quarter of the CPU this way that they take through the JVM.
Nothing is in the table before the commit, whatever a task left behind.
"""

from __future__ import annotations

import contextlib
import json
import posixpath
import re
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import quote

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from genodl_spark.core import storage
from genodl_spark.lake.checksums import BLOCK, TAG, Summed
from genodl_spark.lake.schema import Table, partition_folder

_GROUP_ROWS, _GROUP_BYTES = 4096, 32 << 20
_FILE_BYTES = 256 << 20
_CHECKED_BYTES = 4 << 20
_SAMPLED, _SAMPLED_BYTES = 256, 1 << 18  # rows and bytes of a column that show whether it compresses
_OPEN_FILES = 64
# of zstd: 9 saves 3% of genotypes for three times the time; 1 packs the text of sample columns better than 3
_LEVEL, _TEXT_LEVEL = 3, 1
_LISTED = 64  # bytes of a text that stand in a file's statistics


@dataclass(frozen=True)
class Part:
    """One file: its path below the table, percent-encoded, partition values, bytes, rows, statistics as Delta
    has them (JSON), checksum."""

    path: str
    partition: dict[str, str]
    size: int
    rows: int
    statistics: str
    written_ms: int
    checksum: str = ""

    def as_json(self) -> str:
        return json.dumps(self.__dict__)

    @classmethod
    def from_json(cls, text: str) -> Part:
        return cls(**json.loads(text))

    def add(self) -> dict[str, Any]:
        """The action that adds the file, as the Delta protocol has it."""
        action = {
            "path": self.path,
            "partitionValues": self.partition,
            "size": self.size,
            "modificationTime": self.written_ms,
            "dataChange": True,
        }
        return {
            "add": {**action, "stats": self.statistics, **({"tags": {TAG: self.checksum}} if self.checksum else {})}
        }


@cache
def _connection() -> duckdb.DuckDBPyConnection:
    """A connection of our own: on DuckDB's default one a notebook may have a query of its own under way."""
    return duckdb.connect()


def mark(table: str, name: str) -> str:
    """URI of what says that nobody will have files named after `name`, as a writer of the table at URI `table` has it
    (`genodl_spark.lake.discarded`)."""
    return storage.join(posixpath.dirname(table), "_staging", f"discarded-{name.partition('-')[0]}", "mark")


class PartWriter:
    """Takes rows of a table, in any order of partitions, and writes them to files named after `name` below `uri`.
    What stands in `name` before a hyphen is the run's: RuntimeError once that run has discarded its files.

    All rows are held against the table's NOT NULL and CHECK conditions, as no commit does that later:
    ValueError, at the latest from `close`, for rows that break one. Memory: one row group of at most about 32
    MiB for each partition at hand.
    """

    def __init__(self, table: Table, uri: str, name: str) -> None:
        self.table, self._name = table, name
        self._fs, self._root = storage.filesystem(uri)
        self._mark = mark(uri, name)
        self._far = storage.is_s3(uri)  # where a file is seen once it is closed, and not before
        self._open: dict[tuple[Any, ...], _File] = {}
        self._done: list[Part] = []
        self._unchecked: list[pa.RecordBatch] = []
        self._unchecked_bytes = 0
        self._checks = " AND ".join(f"({condition.replace('`', chr(34))})" for condition in table.checks.values())
        self._required = [c.name for c in table.columns if not c.nullable]
        self._checked = [c.name for c in table.columns if re.search(rf"\b{re.escape(c.name)}\b", self._checks)]

    def write(self, batch: pa.RecordBatch) -> None:
        if not batch.num_rows:
            return
        self._check(batch)
        rows = pa.Table.from_batches([batch])
        names = self.table.partitioned_by
        stored = rows.drop_columns(list(names)) if names else rows
        for key, places in _groups([batch.column(name) for name in names], batch.num_rows):
            file = self._open.pop(key, None)
            if file is None:
                if len(self._open) >= _OPEN_FILES:
                    self._close(next(iter(self._open)))
                file = _File(
                    self._fs, self._root, self._path(key), stored.schema, dict(zip(names, map(str, key), strict=True))
                )
                if not self._far:
                    self._leave_if_discarded(file.path)
            self._open[key] = file  # the one used last comes last
            file.write(stored if places is None else stored.take(places))
            if file.size > _FILE_BYTES:
                self._close(key)

    def close(self) -> list[Part]:
        """Writes what is held and names the files."""
        self._check_held()
        for key in list(self._open):
            self._close(key)
        return self._done

    def _close(self, key: tuple[Any, ...]) -> None:
        file = self._open.pop(key)
        self._done.append(file.close())
        if self._far:
            self._leave_if_discarded(file.path)

    def _leave_if_discarded(self, path: str) -> None:
        """Takes a file, which others see from now on, away where its run has discarded its files."""
        if storage.is_file(self._mark):
            with contextlib.suppress(FileNotFoundError):
                self._fs.delete_file(path)
            raise RuntimeError(f"the run that {path} is for has ended")

    def _path(self, key: tuple[Any, ...]) -> str:
        folders = [
            partition_folder(name, str(value)) for name, value in zip(self.table.partitioned_by, key, strict=True)
        ]
        return posixpath.join(*folders, f"part-{self._name}-{uuid.uuid4().hex}.zstd.parquet")

    def _check(self, batch: pa.RecordBatch) -> None:
        for name in self._required:
            if batch.column(name).null_count:
                raise ValueError(f"table {self.table.name}: a row without {name}")
        if self._checks:
            self._unchecked.append(batch.select(self._checked))
            self._unchecked_bytes += self._unchecked[-1].nbytes
            if self._unchecked_bytes >= _CHECKED_BYTES:  # asking DuckDB costs 2 ms, however few the rows
                self._check_held()

    def _check_held(self) -> None:
        if self._unchecked:
            with _connection().cursor() as own:
                found = (
                    own.from_arrow(pa.Table.from_batches(self._unchecked))
                    .filter(f"NOT ({self._checks})")
                    .limit(1)
                    .fetchall()
                )
            if found:
                raise ValueError(f"table {self.table.name}: a row breaks {self._checks}: {found[0]}")
            self._unchecked, self._unchecked_bytes = [], 0


def _groups(columns: list[pa.Array], rows: int) -> Iterable[tuple[tuple[Any, ...], pa.Array | None]]:
    """Partition values, and the places of their rows; None for all rows."""
    codes = np.zeros(rows, np.int64)
    values = []
    for column in columns:
        encoded = column.dictionary_encode()
        codes = codes * len(encoded.dictionary) + encoded.indices.to_numpy()
        values.append(column)
    found, first = np.unique(codes, return_index=True)
    for code, at in zip(found.tolist(), first.tolist(), strict=True):
        key = tuple(column[at].as_py() for column in values)
        yield key, None if len(found) == 1 else pa.array(np.flatnonzero(codes == code))


class _File:
    def __init__(self, fs: Any, root: str, path: str, schema: pa.Schema, partition: dict[str, str]) -> None:
        self._path, self._partition = path, partition
        self._held: list[pa.Table] = []
        self._held_rows = self._held_bytes = 0
        self.rows = 0
        self._low: dict[str, Any] = {}
        self._high: dict[str, Any] = {}
        self._nulls: dict[str, int] = {}
        self.path = posixpath.join(root, path)
        storage.make_folder(fs, posixpath.dirname(self.path))
        self._summed = Summed(fs.open_output_stream(self.path))
        # a page is small for a call of Python
        self._sink = pa.BufferedOutputStream(pa.PythonFile(self._summed, mode="w"), BLOCK)
        self._writer: pq.ParquetWriter | None = None
        self._schema = schema
        self._compared = [
            f.name
            for f in schema
            if pa.types.is_integer(f.type) or pa.types.is_floating(f.type) or pa.types.is_string(f.type)
        ]

    def _made_for(self, rows: pa.Table) -> pq.ParquetWriter:
        """The writer, which stores packed columns as they are where `rows`, the first of the file,
        show that zstd gains little."""
        schema = self._schema
        texts = [f.name for f in schema if pa.types.is_string(f.type)] + [
            f"{f.name}.list.element" for f in schema if pa.types.is_list(f.type)
        ]
        plain = {f.name for f in schema if pa.types.is_binary(f.type) and not _compresses(rows.column(f.name))}
        return pq.ParquetWriter(
            self._sink,
            schema,
            compression={leaf: "none" if leaf in plain else "zstd" for f in schema for leaf in _leaves(f)},
            compression_level={
                f.name: _TEXT_LEVEL if f.name == "fields" else _LEVEL
                for f in schema
                if not (pa.types.is_nested(f.type) or f.name in plain)
            },
            use_dictionary=texts,
            write_statistics=self._compared,
            store_schema=False,
        )

    @property
    def size(self) -> int:
        return int(self._sink.tell())

    def write(self, rows: pa.Table) -> None:
        self._held.append(rows)
        self._held_rows += rows.num_rows
        self._held_bytes += rows.nbytes
        if self._held_rows >= _GROUP_ROWS or self._held_bytes >= _GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        if not self._held_rows:
            return
        rows = pa.concat_tables(self._held).combine_chunks()
        for name in rows.column_names:
            self._nulls[name] = self._nulls.get(name, 0) + rows.column(name).null_count
        for name in self._compared:
            column = rows.column(name)
            low, high = pc.min_max(column).as_py().values()
            if low is not None:
                self._low[name] = min(self._low.get(name, low), low)
                self._high[name] = max(self._high.get(name, high), high)
        if self._writer is None:
            self._writer = self._made_for(rows)
        self._writer.write_table(rows, row_group_size=_GROUP_ROWS)
        self.rows += rows.num_rows
        self._held, self._held_rows, self._held_bytes = [], 0, 0

    def close(self) -> Part:
        self._flush()
        assert self._writer is not None  # a file is opened for rows
        self._writer.close()
        size = self.size
        self._sink.close()
        low = {name: value for name, value in self._low.items() if _bounded(value) and _bounded(self._high[name])}
        high = {name: self._high[name] for name in low}
        statistics = json.dumps(
            {"numRecords": self.rows, "minValues": low, "maxValues": high, "nullCount": self._nulls}
        )
        return Part(
            quote(self._path),
            self._partition,
            size,
            self.rows,
            statistics,
            int(time.time() * 1000),
            self._summed.checksum(),
        )


def _bounded(value: Any) -> bool:
    """Whether a value may stand in a file's statistics: no infinity, which JSON lacks, and no long text."""
    return len(value) <= _LISTED if isinstance(value, str) else value == value and abs(value) != float("inf")


def _leaves(field: pa.Field) -> list[str]:
    """Names of the Parquet columns of a field."""
    if pa.types.is_list(field.type):
        return [f"{field.name}.list.element"]
    if pa.types.is_map(field.type):
        return [f"{field.name}.key_value.key", f"{field.name}.key_value.value"]
    assert not pa.types.is_nested(field.type), field
    return [field.name]


def _compresses(column: pa.ChunkedArray) -> bool:
    """Whether zstd takes a tenth at least from the first bytes of a packed column;
    inflating what it does not costs more than reading it."""
    start = b""
    for value in column.slice(0, _SAMPLED):
        start += value.as_py() or b""
        if len(start) >= _SAMPLED_BYTES:
            break
    start = start[:_SAMPLED_BYTES]
    return len(start) < _SAMPLED or len(
        pa.Codec("zstd", compression_level=1).compress(start, asbytes=True)
    ) < 0.9 * len(start)
