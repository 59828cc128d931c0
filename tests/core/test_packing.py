"""Packed rows are views of Arrow's own buffers, and what is not of the width declared is refused."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from genodl_spark.core import packing


def test_packed_rows_are_those_of_the_buffer() -> None:
    column = pa.array([b"abcd", b"efgh", b"ijkl"], pa.binary())
    np.testing.assert_array_equal(packing.rows(column.slice(1), "uint8", 4), [list(b"efgh"), list(b"ijkl")])
    np.testing.assert_array_equal(
        packing.rows(pa.chunked_array([column, column.slice(2)]), "uint8", 4)[3], list(b"ijkl")
    )
    np.testing.assert_array_equal(
        packing.rows(column.cast(pa.large_binary()), "<u2", 2)[0], np.frombuffer(b"abcd", "<u2")
    )
    assert packing.rows(column, "uint8", 0).shape == (3, 0) and packing.rows(
        pa.chunked_array([], pa.binary()), "int8", 3
    ).shape == (0, 3)
    for bad, found in (
        (pa.array([b"abcd", b"abc"], pa.binary()), "not 4 of uint8"),
        (pa.array([b"abcd", None], pa.binary()), "NULL"),
    ):
        with pytest.raises(ValueError, match=found):
            packing.rows(bad, "uint8", 4)


def test_rows_come_back_as_they_were_packed() -> None:
    values = np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32)
    np.testing.assert_array_equal(packing.rows(packing.column(values[:, ::-1]), "float32", 3), values[:, ::-1])
    assert packing.column(values).to_pylist()[4] == values[4].tobytes()
