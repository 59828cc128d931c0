"""Rows packed as Arrow binary, and the arrays that they hold: no Python object per row, no copy."""

from __future__ import annotations

import numpy as np
import pyarrow as pa


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
    """A column of packed rows as (rows, width) of `dtype`, a view of Arrow's own buffer where it has one chunk.

    ValueError for a row of another width, or none.
    """
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


def column(values: np.ndarray) -> pa.BinaryArray:
    """Rows (n, width) as packed ones; not copied where they are contiguous."""
    values = np.ascontiguousarray(values)
    return binary_array(
        values.view(np.uint8).reshape(-1),
        np.arange(len(values) + 1, dtype=np.int32) * (values.shape[1] * values.itemsize),
    )
