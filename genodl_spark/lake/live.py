"""The live files of a table, kept up with its log without a JVM, and the span of positions that each holds."""

from __future__ import annotations

import os
from dataclasses import dataclass
from urllib.parse import unquote

import deltalake
import numpy as np
import pyarrow as pa
from deltalake.exceptions import TableNotFoundError

from genodl_spark.core import storage
from genodl_spark.core.errors import InputError
from genodl_spark.lake import checksums
from genodl_spark.lake.schema import Table

LOWEST, HIGHEST = np.iinfo(np.int64).min, np.iinfo(np.int64).max


@dataclass(frozen=True)
class Spans:
    """Lowest pos and highest end of files or row groups, int64 each; where they are not known,
    such that all regions overlap."""

    low: np.ndarray
    high: np.ndarray

    def overlapping(self, start: int, end: int) -> np.ndarray:
        return np.flatnonzero((self.low <= end) & (self.high >= start))


@dataclass(frozen=True)
class LiveFile:
    """A Parquet file: URI, and the checksum that its table's log has, None without."""

    uri: str
    checksum: str | None


class LiveFiles:
    """One table's live files, as its newest version has them."""

    def __init__(self, lake_uri: str, table: Table) -> None:
        self.uri = storage.join(lake_uri, table.name)
        self._partitions = table.partitioned_by
        self._table: deltalake.DeltaTable | None = None
        self._stamp: tuple[int, int] | None = None
        self._read: int | None = None
        self._sums: dict[str, str | None] = {}
        self._files: dict[tuple[str, ...], tuple[list[LiveFile], Spans]] = {}

    def files(self) -> dict[tuple[str, ...], tuple[list[LiveFile], Spans]]:
        """Partition values of all but `bin` -> its files, and what they span. InputError where there is no table."""
        if self._table is not None and self._stamp is not None and self._stamp != self._stamped(self._table.version()):
            self._table = None  # another table came in this one's place
        if self._table is None:
            try:
                # A path as it is; of a URI deltalake would decode percent signs.
                self._table = deltalake.DeltaTable(
                    storage.local_path(self.uri) if storage.is_local(self.uri) else self.uri,
                    storage_options=storage.delta_rs_options(self.uri),
                )
            except TableNotFoundError as error:
                raise InputError(
                    "no such table; expected a lake with cohorts in it, ingest something first", self.uri
                ) from error
            self._read, self._sums = None, {}
        else:
            self._table.update_incremental()
        version = self._table.version()
        if version != self._read:
            self._files = self._listed(pa.table(self._table.get_add_actions(flatten=True)), version)
            self._read, self._stamp = version, self._stamped(version)
        return self._files

    def forget(self) -> None:
        self._table = None

    def _stamped(self, version: int) -> tuple[int, int] | None:
        """What tells a version's commit from one of the same number in a table made anew;
        None where it is not cheap to know."""
        if not storage.is_local(self.uri):
            return None
        try:
            found = os.stat(os.path.join(storage.local_path(self.uri), "_delta_log", f"{version:020}.json"))
        except FileNotFoundError:  # in a checkpoint by now
            return None
        return found.st_mtime_ns, found.st_ino

    def _listed(self, adds: pa.Table, version: int) -> dict[tuple[str, ...], tuple[list[LiveFile], Spans]]:
        def bounds(name: str, unknown: int) -> np.ndarray:
            if name not in adds.column_names:
                return np.full(adds.num_rows, unknown)
            return adds.column(name).cast(pa.int64()).fill_null(unknown).to_numpy()

        low, high = bounds("min.pos", LOWEST), bounds("max.end", HIGHEST)
        names = [unquote(path) for path in adds.column("path").to_pylist()]
        fresh = [name for name in names if name not in self._sums]
        if fresh:  # deltalake does not give them
            self._sums |= checksums.logged(storage.join(self.uri, "_delta_log"), version, fresh)
        stored = [LiveFile(self._located(name), self._sums[name]) for name in names]
        keys = zip(
            *(adds.column(f"partition.{name}").to_pylist() for name in self._partitions if name != "bin"), strict=True
        )
        of: dict[tuple[str, ...], list[int]] = {}
        for i, key in enumerate(keys if self._partitions else [()] * len(stored)):
            of.setdefault(tuple(key), []).append(i)
        return {key: ([stored[i] for i in at], Spans(low[at], high[at])) for key, at in of.items()}

    def _located(self, path: str) -> str:
        return path if path.startswith("/") or "://" in path else storage.join(self.uri, path)
