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
    places = np.frombuffer(offsets, np.int32)[column.offset : column.offset + len(column) + 1] if len(column) else np.zeros(1, np.int32)
    return np.frombuffer(data, np.uint8) if data is not None else np.zeros(0, np.uint8), places


def binary_array(data: np.ndarray, offsets: np.ndarray, valid: np.ndarray | None = None, type_: pa.DataType | None = None) -> pa.Array:
    """Arrow array over `data` uint8 and `offsets` int32 (V + 1), NULL where `valid` bool (V,) is false; nothing is copied."""
    mask = None if valid is None or valid.all() else pa.py_buffer(np.packbits(valid, bitorder="little"))
    nulls = 0 if mask is None or valid is None else int((~valid).sum())
    buffers = [mask, pa.py_buffer(offsets), pa.py_buffer(data)]
    return pa.Array.from_buffers(type_ or pa.binary(), len(offsets) - 1, buffers, null_count=nulls)
