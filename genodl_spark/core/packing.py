"""Rows packed as Arrow binary, and the arrays that they hold: no Python object per row, no copy.

A row is packed whole, its values one after the other as its `dtype` says (int8, uint8, uint16, float32),
or, where most of its values are 0, as entries of those that are not, `sparse:uint16` or another of TYPES.
All is little-endian. Entry k of a row:

    byte                  what it holds
    (4 + s) k             uint32    place of the value in the row, above that of the entry before
    (4 + s) k + 4         s bytes   the value, of the type behind the colon

A row without entries has no byte, and holds zeros alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

SPARSE = "sparse:"
VALUES = ("int8", "uint8", "uint16", "float32")
TYPES = (*VALUES, *(f"{SPARSE}{name}" for name in VALUES))  # of packed rows
# rows, and values, that are worked on at once where all of a data set would take too much memory
_AT_ONCE = 4096, 1 << 22


def is_sparse(dtype: str) -> bool:
    return dtype.startswith(SPARSE)


def values_of(dtype: str) -> str:
    """The type of a packed row's values, packed whole or as entries."""
    return dtype.removeprefix(SPARSE)


def absent(dtype: str) -> float:
    """What stands for a value that a row lacks: the missing code of its type; 0 where it has none,
    and of entries, which say nothing of it."""
    return 0 if is_sparse(dtype) else {"int8": -1, "float32": np.nan}.get(dtype, 0)


def entry(dtype: str) -> np.dtype[Any]:
    """An entry of a sparse row."""
    return np.dtype([("place", "<u4"), ("value", np.dtype(values_of(dtype)).newbyteorder("<"))])


@dataclass(frozen=True)
class SparseRows:
    """Rows (n, width) as their entries, in any order of rows: row i has `counts` int64 (n,) entries
    from `starts` int64 (n,) on.

    Indexed by row numbers or a slice, it answers with these rows whole, as an array (rows, width) of its `dtype`.
    """

    entries: np.ndarray
    starts: np.ndarray
    counts: np.ndarray
    width: int

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.entries.dtype["value"]

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.starts), self.width

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, rows: np.ndarray | slice) -> np.ndarray:
        starts, counts = self.starts[rows], self.counts[rows]
        found = self.entries[runs(starts, counts)]
        x = np.zeros((len(counts), self.width), self.dtype)
        x[np.repeat(np.arange(len(counts)), counts), found["place"]] = found["value"]
        return x

    def largest(self) -> np.ndarray:
        """Largest value of each row, float64 (n,), 0 at least."""
        found = np.zeros(len(self))
        np.fmax.at(
            found, np.repeat(np.arange(len(self)), self.counts), self.entries["value"][runs(self.starts, self.counts)]
        )
        return found


Rows = np.ndarray | SparseRows


class Sliced(Protocol):
    """Packed rows (n, width) of which a slice is whole rows: Rows, and others that answer so."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> np.ndarray: ...


def runs(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Numbers of `counts` int64 (n,) from each of `starts` int64 (n,) on, one run after the other."""
    before = np.cumsum(counts) - counts
    return np.repeat(starts - before, counts) + np.arange(counts.sum())


def largest(x: Rows) -> np.ndarray:
    """Largest value of each row, float64 (rows,), 0 at least; NaN does not count."""
    return x.largest() if isinstance(x, SparseRows) else np.fmax.reduce(x, 1, initial=0).astype(float)


def parts(x: Sliced) -> Iterator[slice]:
    """Runs of rows that may be worked on whole."""
    rows, values = _AT_ONCE
    step = max(1, min(rows, values // max(x.shape[1], 1)))
    yield from (slice(start, start + step) for start in range(0, len(x), step))


def binary(column: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """`data` uint8 and `offsets` int32 (V + 1) of a binary array without nulls."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if column.type != pa.binary():
        column = column.cast(pa.binary())
    assert column.null_count == 0
    _, offsets, data = column.buffers()
    places = (
        np.frombuffer(offsets, np.int32)[column.offset : column.offset + len(column) + 1]
        if len(column)
        else np.zeros(1, np.int32)
    )
    return np.frombuffer(data, np.uint8) if data is not None else np.zeros(0, np.uint8), places


def binary_array(
    data: np.ndarray, offsets: np.ndarray, valid: np.ndarray | None = None, type_: pa.DataType | None = None
) -> pa.Array:
    """Arrow array over `data` uint8 and `offsets` int32 (V + 1), NULL where `valid` bool (V,) is false;
    nothing is copied."""
    mask = None if valid is None or valid.all() else pa.py_buffer(np.packbits(valid, bitorder="little"))
    nulls = 0 if mask is None or valid is None else int((~valid).sum())
    buffers = [mask, pa.py_buffer(offsets), pa.py_buffer(data)]
    return pa.Array.from_buffers(type_ or pa.binary(), len(offsets) - 1, buffers, null_count=nulls)


def rows(column: pa.Array | pa.ChunkedArray, dtype: str, width: int) -> np.ndarray:
    """A column of packed rows as (rows, width) of the type of its values, a view of Arrow's own buffer
    where it has one chunk of whole rows.

    ValueError for a row of another width, or none.
    """
    return packed(column, dtype, width)[:]


def packed(column: pa.Array | pa.ChunkedArray, dtype: str, width: int) -> Rows:
    """`rows`, without zeros being made where they are packed as entries. ValueError too for entries out
    of order, or beyond the width."""
    if is_sparse(dtype):
        return _sparse(column, dtype, width)
    if width == 0:
        return np.empty((len(column), 0), dtype)
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    found = []
    for chunk in chunks:
        if chunk.null_count:
            raise ValueError(f"found a row that is NULL; expected packed values, {width} of {dtype}")
        data, ends = binary(chunk)
        if not (np.diff(ends) == width * np.dtype(dtype).itemsize).all():
            raise ValueError(f"found packed values that are not {width} of {dtype}")
        found.append(data[ends[0] : ends[-1]].view(dtype).reshape(-1, width))
    return found[0] if len(found) == 1 else np.concatenate(found) if found else np.empty((0, width), dtype)


def _sparse(column: pa.Array | pa.ChunkedArray, dtype: str, width: int) -> SparseRows:
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if whole.null_count:
        raise ValueError(f"found a row that is NULL; expected packed entries, {dtype}")
    type_ = entry(dtype)
    data, ends = binary(whole)
    counts, odd = np.divmod(np.diff(ends).astype(np.int64), type_.itemsize)
    if odd.any():
        raise ValueError(f"found packed rows that are not whole entries of {dtype}, {type_.itemsize} bytes each")
    entries = data[ends[0] : ends[-1]].view(type_)
    starts = np.cumsum(counts) - counts
    places = entries["place"]
    rises = places[1:] > places[:-1]
    rises[starts[(starts > 0) & (starts < len(entries))] - 1] = True  # from one row to the next
    if not rises.all() or places.max(initial=0) >= max(width, 1):
        raise ValueError(f"found packed entries that are not in ascending order below {width}")
    return SparseRows(entries, starts, counts, width)


def sparse_column(counts: np.ndarray, places: np.ndarray, values: np.ndarray) -> pa.BinaryArray:
    """Rows of entries as packed ones: how many each has, int (n,), and, row after row, their places, ascending,
    and values, of the type packed."""
    entries = np.empty(len(places), entry(values.dtype.name))
    entries["place"], entries["value"] = places, values
    ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)]) * entries.itemsize
    return binary_array(entries.view(np.uint8), ends.astype(np.int32))


def column(values: np.ndarray) -> pa.BinaryArray:
    """Rows (n, width) as packed ones; not copied where they are contiguous."""
    values = np.ascontiguousarray(values)
    return binary_array(
        values.view(np.uint8).reshape(-1),
        np.arange(len(values) + 1, dtype=np.int32) * (values.shape[1] * values.itemsize),
    )
