"""Matrices, sample tables and compressed text against their plain meaning."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import numpy as np
import pysam
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genodl_spark.core.errors import InputError
from genodl_spark.formats import matrix, sample_table, streams
from genodl_spark.formats.streams import BGZF_END, line_blocks, split_blocks, splits

TEXT = b"gene\ts1\ts2\ts3\nA\t1\t2.5\tNA\nB\t-1e3\t\t0\n"


def values_of(content: bytes) -> tuple[list[str], np.ndarray]:
    header = matrix.read_header(io.BytesIO(content), "m.tsv")
    blocks = list(matrix.read_features(io.BytesIO(content), header, "m.tsv"))
    return [f for names, _ in blocks for f in names], np.concatenate([v for _, v in blocks])


@pytest.mark.parametrize(
    "content",
    [
        TEXT,
        gzip.compress(TEXT, mtime=0),
        TEXT.replace(b"\n", b"\r\n"),
        b"\xef\xbb\xbf" + TEXT,
        TEXT.replace(b"\t", b","),
    ],
)
def test_matrix_values(content: bytes) -> None:
    features, values = values_of(content)
    assert features == ["A", "B"]
    np.testing.assert_array_equal(values, np.array([[1, 2.5, np.nan], [-1000, np.nan, 0]], np.float32))


def test_matrix_header_of_r_lacks_the_feature_cell() -> None:
    header = matrix.read_header(io.BytesIO(b"s1\ts2\nA\t1\t2\n"), "m.tsv")
    assert header.samples == ["s1", "s2"]


@pytest.mark.parametrize(
    ("content", "line", "found"),
    [
        (b"g\ts1\ts2\nA\t1\t2\nA\t3\t4\n", 3, "feature A stands twice, first on line 2"),
        (b"g\ts1\ts2\nA\t1\t2\nB\t3\tx7\n", 3, "'x7' for feature B, sample s2"),
        (b"g\ts1\ts2\nA\t1\t2\nB\t3\n", 3, "found 2 columns; expected 3"),
        (b"g\ts1\ts2\nA\t1\tinf\n", 2, "'inf' for feature A, sample s2"),
        (b"g\ts1\ts1\nA\t1\t2\n", 1, "sample s1 stands twice"),
        (b"", 1, "empty"),
    ],
)
def test_matrix_errors_name_the_line(content: bytes, line: int, found: str) -> None:
    with pytest.raises(InputError) as caught:
        values_of(content)
    assert caught.value.line == line
    assert found in str(caught.value)
    assert str(caught.value).startswith(f"m.tsv:{line}: ")


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 12), st.integers(0, 12), st.integers(1, 5), st.integers(1, 4), st.integers(0, 9))
def test_transposed_runs_make_the_matrix(samples: int, features: int, run: int, block: int, seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=(features, samples)).astype(np.float32)
    names = [f"g{i}" for i in range(features)]
    blocks = [(names[i : i + block], values[i : i + block]) for i in range(0, features, block)]
    held = matrix._HELD
    try:
        matrix._HELD = 100 if seed % 2 else held  # bytes: most of them go through a file
        with matrix.transposed(blocks, samples, run) as (found, runs):
            parts = list(runs)
    finally:
        matrix._HELD = held
    assert (found, [len(part) for part in parts[:-1]]) == (names, [run] * (len(parts) - 1))
    np.testing.assert_array_equal(np.concatenate(parts), values.T)


known = st.dictionaries(st.sampled_from("abcde"), st.sampled_from([1.0, 2.0, 3.0, None]), min_size=1, max_size=4)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("xyz"), known), min_size=1, max_size=6), st.sets(st.sampled_from("xyz")))
def test_a_row_is_its_files_one_after_another(
    brought: list[tuple[str, dict[str, float | None]]], gone: set[str]
) -> None:
    row, expected = None, {}  # feature -> (value, file)
    for file, values in brought:
        if row is not None and file in row.files:
            continue
        array = np.array([np.nan if v is None else v for v in values.values()], np.float32)
        row = (
            matrix.Row(list(values), array, [file], np.zeros(len(values), np.int64))
            if row is None
            else row.with_file(list(values), array, file)
        )
        for feature, value in values.items():
            if value is not None or expected.get(feature, (None,))[0] is None:
                expected[feature] = (value, file)

    def said(row: matrix.Row | None) -> dict[str, tuple[float | None, str]]:
        if row is None:
            return {}
        assert len(set(row.files)) == len(row.files) == len(set(row.origin.tolist()))
        values = [None if np.isnan(v) else float(v) for v in row.values]
        return {f: (v, row.files[i]) for f, v, i in zip(row.features, values, row.origin, strict=True)}

    assert list(said(row).items()) == list(expected.items())
    assert said(row.without(gone)) == {feature: of for feature, of in expected.items() if of[1] not in gone}


def test_truncated_gzip_is_refused_with_its_line() -> None:
    body = gzip.compress(b"".join(b"%d\n" % i for i in range(20000)))
    with pytest.raises(InputError, match="cut off"):
        list(line_blocks(io.BytesIO(body[: len(body) // 2]), "x.gz"))
    broken = bytearray(body)
    broken[len(body) // 2] ^= 0xFF
    with pytest.raises(InputError, match="corrupt"):
        list(line_blocks(io.BytesIO(bytes(broken)), "x.gz"))


def test_bgzip_without_its_end_block_is_refused(tmp_path: Path) -> None:
    path = str(tmp_path / "x.gz")
    with pysam.BGZFile(path, "w") as out:
        for i in range(30000):
            out.write(b"line %d\n" % i)
    content = Path(path).read_bytes()
    assert content.endswith(BGZF_END)
    assert b"".join(b for _, b in line_blocks(io.BytesIO(content), "x.gz")).count(b"\n") == 30000
    with pytest.raises(InputError, match="end-of-file block"):
        list(line_blocks(io.BytesIO(content[: -len(BGZF_END)]), "x.gz"))


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.binary(max_size=20).map(lambda b: b.replace(b"\n", b"").replace(b"\r", b"")), min_size=1, max_size=30),
    st.integers(1, 50),
)
def test_blocks_hold_every_line_under_its_number(lines: list[bytes], size: int) -> None:
    content = b"\n".join(lines)
    if content.startswith((b"\x1f", b"\xef\xbb\xbf", *streams._FOREIGN)) or not content:
        return
    seen = list(line_blocks(io.BytesIO(content), "x", size))
    assert b"".join(block for _, block in seen) == (content if content.endswith(b"\n") else content + b"\n")
    expected = 1
    for number, block in seen:
        assert number == expected
        expected += block.count(b"\n")


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.sampled_from([b"", b"\n", b"ab\n", b"\xef\xbb\xbf", b"0|0\t" * 400_000 + b"\n"]), max_size=6),
    st.booleans(),
    st.integers(1, 50),
)
def test_gzip_members_join_to_their_text(parts: list[bytes], mark: bool, size: int) -> None:
    text = b"".join(parts)
    if text.startswith(b"\xef\xbb\xbf"):
        return
    members = b"".join(gzip.compress(part, 1) for part in ([b"\xef\xbb\xbf"[:1], b"\xbb\xbf"] if mark else []) + parts)
    seen = list(line_blocks(io.BytesIO(members + b"\0" * 40 if members else b""), "x.gz", size))
    assert b"".join(block for _, block in seen) == (text if text.endswith(b"\n") or not text else text + b"\n")


def test_sample_table_keeps_text_and_renames_what_cannot_be_stored() -> None:
    table = sample_table.read(io.BytesIO(b"sample_id,label,er status (0/1)\na,1,NA\nb,2,x\n"), "s.csv")
    assert table.columns == ["label", "er_status_0/1_"]
    assert table.rows == {"a": ["1", None], "b": ["2", "x"]}
    assert table.renamed == {"er status (0/1)": "er_status_0/1_"}


@pytest.mark.parametrize(
    ("content", "line", "found"),
    [
        (b"person\tlabel\na\t1\n", 1, "expected one called sample_id"),
        (b"sample_id\tlabel\na\t1\na\t2\n", 3, "sample_id 'a'"),
        (b"sample_id\tlabel\na\t1\t2\n", 2, "found 3 columns; expected 2"),
        (b"sample_id\tx\tX\na\t1\t2\n", 1, "'X'"),
    ],
)
def test_sample_table_errors(content: bytes, line: int, found: str) -> None:
    with pytest.raises(InputError) as caught:
        sample_table.read(io.BytesIO(content), "s.tsv")
    assert (caught.value.line, found in str(caught.value)) == (line, True)


def test_a_sample_table_must_cover_the_data() -> None:
    table = sample_table.read(io.BytesIO(b"sample_id\nz\na\n"), "s.tsv")
    assert sample_table.check_covers(table, ["a"], "s.tsv", "d.vcf") == ["z"]
    with pytest.raises(InputError, match=r"no row for 1 of 2 samples of d\.vcf, 'b' the first"):
        sample_table.check_covers(table, ["a", "b"], "s.tsv", "d.vcf")


def test_a_line_beyond_the_limit_ends_the_file_before_it_is_held(tmp_path: Path) -> None:
    text = b"first\n" + b"x" * 3_000_000 + b"\nlast\n"
    read = 0

    class Endless(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            nonlocal read
            read += 1
            return b"first\nsecond\nthird\n" if read == 1 else b"x" * (1 << 20)

    with pytest.raises(InputError, match="found a line of more than 2,000,000 bytes") as caught:
        list(line_blocks(Endless(), "x", 1000, 2_000_000))
    assert (caught.value.line, read < 8) == (4, True)
    assert b"".join(block for _, block in line_blocks(io.BytesIO(text), "x", 1000, 4_000_000)) == text
    path = tmp_path / "long.txt"
    path.write_bytes(text)
    pieces = splits(str(path), 1 << 20)
    with pytest.raises(InputError, match="found a line of more than 1,000,000 bytes"):
        list(split_blocks(str(path), pieces[0], 1000, 1_000_000))
    assert b"".join(block for piece in pieces for block in split_blocks(str(path), piece, 1000, 4_000_000)) == text
