"""How the work of quality control is dealt out, and what is read before it is counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genodl_spark.genetics import genotypes
from genodl_spark.genetics.qc import passes
from genodl_spark.pipelines import qc


@settings(deadline=None)
@given(st.lists(st.integers(0, 300), min_size=1, max_size=40), st.integers(1, 9))
def test_shares_are_runs_of_about_the_same_bytes(sizes: list[int], slots: int) -> None:
    sizes = [size << 20 for size in sizes]
    shares = qc._shares(sizes, slots)
    assert [i for share in shares for i in range(len(sizes))[share]] == list(range(len(sizes)))
    most = max(slots, -(-sum(sizes) // qc._TASK_BYTES))
    assert len(shares) <= min(most, len(sizes))
    assert max(sum(sizes[share]) for share in shares) <= sum(sizes) / min(most, len(sizes)) + max(sizes)


def test_files_of_one_size_are_dealt_out_evenly() -> None:
    assert qc._shares([5] * 8, 2) == [slice(0, 4), slice(4, 8)]
    assert len(qc._shares([qc._TASK_BYTES] * 8, 2)) == 8


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 9), max_size=3), max_size=5), st.integers(1, 12))
def test_batches_are_joined(parts: list[list[int]], rows: int) -> None:
    numbers = iter(range(10**6))
    made = [
        [pa.RecordBatch.from_arrays([pa.array([next(numbers) for _ in range(n)], pa.int64())], ["n"]) for n in part]
        for part in parts
    ]
    found = [batch.column(0).to_pylist() for batch in passes._joined(made, rows)]
    assert [n for batch in found for n in batch] == list(range(next(numbers)))
    assert all(len(batch) == rows for batch in found[:-1])
    assert all(0 < len(batch) <= rows for batch in found[-1:])


def test_letters_of_alleles() -> None:
    alleles = pa.array(["", "A", "AC", "é", "c", "<DEL>", "*"])
    assert passes._letters(alleles).tobytes() == b"\0A\0\0c\0*"
    assert passes._letters(alleles.slice(2, 3)).tobytes() == b"\0\0c"


@pytest.mark.parametrize("statistics", [True, False])
@pytest.mark.parametrize("formats", [["GT", "GT", None], ["GT", "GT:DP", "GT"], [None, None]])
def test_formats_of_a_file(tmp_path: Path, formats: list[str | None], statistics: bool) -> None:
    path = tmp_path / "f.parquet"
    table = pa.table({"alts": pa.array([["A"]] * len(formats)), "format": pa.array(formats, pa.string())})
    pq.write_table(table, path, row_group_size=2, write_statistics=["format"] if statistics else False)
    assert passes._formats(pq.ParquetFile(path)) == set(formats) - {None}
    assert passes._has_measures(pq.ParquetFile(path)) == ("GT:DP" in formats)


def test_counts_do_not_depend_on_how_records_are_batched() -> None:
    generator = np.random.default_rng(1)
    rows = 30
    alleles = generator.integers(-1, 2, (rows, 12, 2)).astype(np.int16)
    columns = {
        "contig": pa.array(["1"] * rows),
        "pos": pa.array(range(rows), pa.int64()),
        "ref": pa.array(["A"] * rows),
        "alt": pa.array(["C"] * rows),
        "alt_number": pa.array([1] * rows, pa.int32()),
        "n_samples": pa.array([12] * rows, pa.int32()),
        "sample_set": pa.array(generator.choice(["a", "b"], rows)),
        "gt": genotypes.pack(alleles, np.zeros(alleles.shape, bool)),
        "allele": pa.array([1] * rows, pa.int32()),
        "alleles": pa.array([1] * rows, pa.int32()),
    }
    whole = pa.RecordBatch.from_arrays(list(columns.values()), list(columns))
    one = pa.Table.from_batches(passes._count_alleles([whole]))
    many = pa.Table.from_batches(passes._count_alleles([whole.slice(0, 7), whole.slice(7, 1), whole.slice(8)]))
    assert one.equals(many)
    np.testing.assert_array_equal(one.column("ac").to_numpy(), (alleles == 1).sum((1, 2)))
