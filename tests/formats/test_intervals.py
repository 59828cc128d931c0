"""BED files to sorted intervals, and what is wrong with them."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from genodl_spark.core.errors import InputError
from genodl_spark.formats.intervals import read_bed
from genodl_spark.genome.loci import union


def test_intervals_are_sorted_and_made_one(tmp_path: Path) -> None:
    text = (
        "# note\ntrack name=x\nchr2\t5\t9\nchr1\t20\t30\tname\nchr1\t0\t10\nchr1\t8\t12\nchr1\t12\t13\nchr1\t40\t40\n"
    )
    plain, packed = tmp_path / "a.bed", tmp_path / "a.bed.gz"
    plain.write_text(text)
    packed.write_bytes(gzip.compress(text.encode()))
    for path in (plain, packed):
        found = read_bed(str(path))
        assert {contig: rows.tolist() for contig, rows in found.items()} == {
            "chr2": [[5, 9]],
            "chr1": [[0, 13], [20, 30]],
        }
        assert found["chr1"].dtype == np.int64
    assert union(np.empty((0, 2), np.int64)).shape == (0, 2)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("chr1\t5", "found 'chr1\\t5'"),
        ("chr1\ta\t9", "found 'chr1\\ta\\t9'"),
        ("chr1\t9\t5", "found start 9 and end 5"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, line: str, found: str) -> None:
    path = tmp_path / "a.bed"
    path.write_text(f"chr1\t1\t2\n{line}\n")
    with pytest.raises(InputError) as error:
        read_bed(str(path))
    assert str(error.value).startswith(f"{path}:2: {found}; expected ")
