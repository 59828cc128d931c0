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


def sparse(x: np.ndarray) -> pa.BinaryArray:
    rows, places = np.nonzero(x)
    return packing.sparse_column(np.bincount(rows, minlength=len(x)), places, x[rows, places])


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_entries_come_back_as_rows(dtype: str) -> None:
    x = np.random.default_rng(2).integers(0, 9, (7, 11)).astype(dtype) * (
        np.random.default_rng(3).random((7, 11)) < 0.2
    )
    x = x.astype(dtype)
    x[2], x[6, 10] = 0, 5
    column = sparse(x)
    entry = 4 + x.itemsize
    assert [len(row) for row in column.to_pylist()] == [entry * n for n in (x != 0).sum(1)]
    # as the table of bytes says
    assert column.to_pylist()[6][-entry:] == (10).to_bytes(4, "little") + np.array([5], dtype).tobytes()
    kind = f"sparse:{dtype}"
    found = packing.packed(column, kind, 11)
    assert (found.shape, found.dtype, len(found)) == ((7, 11), x.dtype, 7)
    for rows in (slice(None), slice(2, 5), slice(3, 3), np.array([6, 0, 0, 2]), np.arange(7) % 2 == 0):
        np.testing.assert_array_equal(found[rows], x[rows])
    np.testing.assert_array_equal(packing.largest(found), x.max(1))
    np.testing.assert_array_equal(packing.rows(column.slice(1, 4), kind, 11), x[1:5])
    np.testing.assert_array_equal(
        packing.rows(pa.chunked_array([column, column.slice(5)]), kind, 11), np.concatenate([x, x[5:]])
    )
    assert packing.rows(pa.array([b"", b""], pa.binary()), kind, 0).shape == (2, 0)


def test_entries_that_are_none_are_refused() -> None:
    def row(*entries: tuple[int, int]) -> bytes:
        return np.array(list(entries), packing.entry("sparse:uint16")).tobytes()

    for bad, found in (
        ([row((3, 1))[:5]], "not whole entries of sparse:uint16, 6 bytes each"),
        ([row((3, 1), (3, 2))], "ascending order below 8"),
        ([row((3, 1)), row((4, 1), (2, 2))], "ascending order below 8"),
        ([row((8, 1))], "ascending order below 8"),
        ([row((1, 1)), None], "NULL"),
    ):
        with pytest.raises(ValueError, match=found):
            packing.packed(pa.array(bad, pa.binary()), "sparse:uint16", 8)
    assert (
        packing.rows(
            pa.array([row((7, 1)), b"", row((0, 2), (7, 3)), b"", row((0, 4))], pa.binary()), "sparse:uint16", 8
        ).sum()
        == 10
    )


def test_parts_hold_every_row_once() -> None:
    for rows, width in ((5, 3), (9000, 10), (50, 1 << 21), (3, 1 << 30)):
        x = packing.SparseRows(
            np.empty(0, packing.entry("sparse:int8")), np.zeros(rows, np.int64), np.zeros(rows, np.int64), width
        )
        found = list(packing.parts(x))
        assert [i for part in found for i in range(rows)[part]] == list(range(rows))
        assert all((part.stop - part.start) * width <= max(1 << 22, width) for part in found)
