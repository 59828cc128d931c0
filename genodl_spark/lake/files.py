"""The Parquet files of a table as they lie in the lake: which of them may hold certain rows,
and new ones out of old ones, made by tasks."""

from __future__ import annotations

import bisect
import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from genodl_spark.core import storage
from genodl_spark.core.errors import MEND, Damaged
from genodl_spark.lake import checksums
from genodl_spark.lake.checksums import Checksums
from genodl_spark.lake.schema import Table

_ROWS = 16_384  # rows that are written at once


@dataclass(frozen=True, order=True)
class StoredFile:
    """A Parquet file of a table: URI, path as its log names it, partition values, bytes, statistics as Delta has them,
    {} without, and the checksum that its log has, None without."""

    uri: str
    path: str = field(compare=False)
    partition: dict[str, str] = field(compare=False)
    size: int = field(compare=False)
    statistics: dict[str, Any] = field(compare=False)
    checksum: str | None = field(default=None, compare=False)

    def ends(self, column: str) -> tuple[Any, Any]:
        """Least and greatest value of a column, None where not known."""
        low, high = (self.statistics.get(side, {}).get(column) for side in ("minValues", "maxValues"))
        return low, high

    def nulls(self, column: str) -> int | None:
        """Rows without a value in a column, None where not known."""
        found: int | None = self.statistics.get("nullCount", {}).get(column)
        return found

    def filled(self, column: str) -> bool | None:
        """Whether any row has a value in a column, None where not known."""
        nulls, rows = self.nulls(column), self.statistics.get("numRecords")
        return None if nulls is None or rows is None else nulls < rows

    def may_hold(self, column: str, values: Sequence[Any]) -> bool:
        low, high = self.ends(column)
        return low is None or high is None or any(low <= value <= high for value in values)


def as_lists(where: Mapping[str, str | Sequence[str]]) -> dict[str, list[str]]:
    """Values by column, as lists."""
    return {name: [value] if isinstance(value, str) else list(value) for name, value in where.items()}


def may_hold(table: Table, file: StoredFile, column: str, values: Sequence[str]) -> bool:
    """Whether a file may have a row with one of the values, which are sorted."""
    if column in table.partitioned_by:
        return file.partition.get(column) in values
    low, high = file.ends(column)
    if low is None or high is None:
        return True
    first = bisect.bisect_left(values, low)
    return first < len(values) and bool(values[first] <= high)


def holding(
    table: Table, files: Sequence[StoredFile], where: Mapping[str, str | Sequence[str]]
) -> tuple[list[StoredFile], list[StoredFile]]:
    """Those of `files` all of whose rows match `where`; and those in which some may."""
    wanted = {name: sorted(values) for name, values in as_lists(where).items()}
    inner = [name for name in wanted if name not in table.partitioned_by]
    held, mixed = [], []
    for file in files:
        if not all(may_hold(table, file, name, values) for name, values in wanted.items()):
            continue
        ends = [file.ends(name) for name in inner]
        if all(low is not None and low == high for low, high in ends) and all(file.nulls(name) == 0 for name in inner):
            held.append(file)
        else:
            mixed.append(file)
    return held, mixed


class Change(Protocol):
    """What is done to the rows of files; it goes to the tasks. `columns`: what it has to see to know
    whether a file concerns it."""

    @property
    def columns(self) -> list[str]: ...

    def concerns(self, rows: pa.Table) -> bool: ...

    def apply(self, rows: pa.Table) -> pa.Table: ...


@dataclass(frozen=True)
class Without:
    """Takes away the rows in which every column of `wanted` holds one of its values."""

    wanted: Mapping[str, pa.Array]

    @property
    def columns(self) -> list[str]:
        return list(self.wanted)

    def concerns(self, rows: pa.Table) -> bool:
        return bool(pc.any(self._matching(rows)).as_py())

    def apply(self, rows: pa.Table) -> pa.Table:
        return rows.filter(pc.invert(self._matching(rows)))

    def _matching(self, rows: pa.Table) -> pa.ChunkedArray:
        found = pa.chunked_array([pa.repeat(pa.scalar(True), rows.num_rows)])
        for column, values in self.wanted.items():
            found = pc.and_(found, pc.is_in(rows.column(column), values))
        return found


def rewrite(
    batches: Iterable[pa.RecordBatch], table: Table, uri: str, files: Sequence[StoredFile], change: Change, name: str
) -> Iterator[pa.RecordBatch]:
    """For mapInArrow over indices into `files`: writes what a change makes of those that it concerns."""
    from genodl_spark.lake.parts import PartWriter

    for batch in batches:
        for index in batch.column(0).to_pylist():
            file, parts = files[index], list[str | None]([None])
            if not change.concerns(read_file(table, file, change.columns)):
                continue
            writer = PartWriter(table, uri, f"{name}-{index:05d}")
            for kept in change.apply(read_file(table, file)).combine_chunks().to_batches(_ROWS):
                writer.write(kept)
            parts += [part.as_json() for part in writer.close()]
            yield pa.RecordBatch.from_arrays(
                [pa.array([index] * len(parts), pa.int32()), pa.array(parts, pa.string())], ["file", "part"]
            )


def join(
    batches: Iterable[pa.RecordBatch], table: Table, uri: str, groups: Sequence[Sequence[StoredFile]], name: str
) -> Iterator[pa.RecordBatch]:
    """For mapInArrow over indices into `groups`: writes the rows of a group's files in the table's order."""
    from genodl_spark.lake.parts import PartWriter

    for batch in batches:
        for index in batch.column(0).to_pylist():
            rows = pa.concat_tables([read_file(table, file) for file in groups[index]], promote_options="default")
            writer = PartWriter(table, uri, f"{name}-{index:05d}")
            for one in (
                rows.sort_by([(column, "ascending") for column in table.order]).combine_chunks().to_batches(_ROWS)
            ):
                writer.write(one)
            parts = [part.as_json() for part in writer.close()]
            yield pa.RecordBatch.from_arrays([pa.array(parts, pa.string())], ["part"])


@contextlib.contextmanager
def opened(
    uri: str,
    checksum: str | None,
    groups: Callable[[pq.FileMetaData], Sequence[int]] | None = None,
    footer: pq.FileMetaData | None = None,
    columns: Collection[str] | None = None,
) -> Iterator[pq.ParquetFile]:
    """The one way to open a Parquet file of the lake: what is read is held against its checksums.

    On a local disk that is done first; what lies farther away is checked as it is fetched, and fetched once.
    `groups`: says which row groups will be read; without it the whole of a local file is checked. `columns`: those of
    them that will be, where not all. `footer`: that of the file, where it was read and checked before. Damaged, with
    the file's name, for a file that is not as it was written, and for what cannot be decoded.
    """
    fs, path = storage.filesystem(uri)
    sums, local = checksums.known(uri, checksum), storage.is_local(uri)
    try:
        with fs.open_input_file(path) as raw:
            source = raw
            if sums is not None and not local:
                source = pa.PythonFile(checksums.Checked(raw, uri, sums), "r")
            elif sums is not None and groups is None:
                checksums.check(raw, uri, sums)
            elif sums is not None and footer is None:
                checksums.check(raw, uri, sums, [_footer_range(raw, uri, sums)])
            # Spark writes time stamps as INT96, which has no unit of its own.
            file = pq.ParquetFile(source, metadata=footer, coerce_int96_timestamp_unit="us", pre_buffer=not local)
            if sums is not None and local and groups is not None:
                read = [_ranges(file.metadata.row_group(group), columns) for group in groups(file.metadata)]
                checksums.check(raw, uri, sums, chain.from_iterable(read))
            yield file
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, FileNotFoundError | PermissionError):
            raise
        raise Damaged(
            f"found what is no whole Parquet file ({str(error).splitlines()[0][:200]}); {MEND}", uri
        ) from error


def _footer_range(raw: pa.NativeFile, uri: str, sums: Checksums) -> tuple[int, int]:
    """Bytes (from, to) of a file's footer."""
    size = raw.size()
    checksums.check(raw, uri, sums, [(max(size - 8, 0), size)])
    return max(size - 8 - int.from_bytes(raw.read_at(8, max(size - 8, 0))[:4], "little"), 0), size


def _ranges(group: pq.RowGroupMetaData, columns: Collection[str] | None) -> Iterator[tuple[int, int]]:
    """Bytes (from, to) of each column of a row group in its file, or of some columns."""
    for chunk in (group.column(i) for i in range(group.num_columns)):
        if columns is None or chunk.path_in_schema in columns:
            start = min(chunk.data_page_offset, chunk.dictionary_page_offset or chunk.data_page_offset)
            yield start, start + chunk.total_compressed_size


def rows_of(file: StoredFile, columns: Sequence[str], key: str, value: str) -> Iterator[pa.RecordBatch]:
    """Some columns of the rows of a file whose column `key` has a value."""
    with opened(file.uri, file.checksum) as stored:
        for group in range(stored.num_row_groups):
            wanted = pc.equal(stored.read_row_group(group, [key]).column(0), value)
            if pc.any(wanted).as_py():
                yield from stored.read_row_group(group, list(columns)).filter(wanted).to_batches()


def read_file(table: Table, file: StoredFile, columns: Sequence[str] | None = None) -> pa.Table:
    """The rows of a file as declared, some columns or all; columns that it lacks are NULL."""
    schema = table.arrow_schema()
    if columns is not None:
        schema = pa.schema([schema.field(name) for name in columns])
    with opened(file.uri, file.checksum) as stored:
        if table.open and columns is None:
            for more in stored.schema_arrow:
                schema = schema if more.name in schema.names else schema.append(more)
        found = stored.read([name for name in schema.names if name not in table.partitioned_by])
        rows = stored.metadata.num_rows
    made = []
    for name, type_ in zip(schema.names, schema.types, strict=True):
        if name in found.column_names:
            made.append(found.column(name).cast(type_))
        else:
            made.append(pa.repeat(pa.scalar(file.partition.get(name)).cast(type_), rows))
    return pa.Table.from_arrays(made, schema=schema)
