"""What matrices and sample tables say, against csv and float over the same lines;
and what is wrong with those that say two things."""

from __future__ import annotations

import bz2
import csv
import io
import lzma
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genodl_spark.core import text_values
from genodl_spark.core.errors import InputError
from genodl_spark.features import covariates
from genodl_spark.formats import matrix, sample_table, streams
from genodl_spark.formats.vcf.header import Header as VcfHeader
from genodl_spark.learning import splits

MISSING = ["", "NA", "N/A", "n/a", "NaN", "nan", "NAN", "NULL", "null"]


def read_matrix(content: bytes) -> tuple[list[str], list[str], np.ndarray]:
    header = matrix.read_header(io.BytesIO(content), "m.tsv")
    blocks = list(matrix.read_features(io.BytesIO(content), header, "m.tsv"))
    return header.samples, [f for names, _ in blocks for f in names], np.concatenate([v for _, v in blocks])


def read_samples(content: bytes) -> sample_table.SampleTable:
    return sample_table.read(io.BytesIO(content), "s.tsv")


# repr of a float32 is read back exactly, so that the oracle's way over float64 rounds nothing.
numbers = st.floats(width=32, allow_nan=False, allow_infinity=False).map(repr)
shapes = st.sampled_from(["{}", "{}", "{} ", " {}", '"{}"'])
good = st.builds(
    str.format,
    shapes,
    st.one_of(
        numbers, numbers.map(lambda t: t if t[0] == "-" else f"+{t}"), st.sampled_from([*MISSING, "1.", ".5", "1E3"])
    ),
)
bad = st.sampled_from(
    ["1_0", "\uff11", "1,5", "1e39", "-1e39", "inf", "-nan", "nan(1)", "0x1p3", "1 2", "None", ".", "1\xa02", "1.2.3"]
)
name = st.text('abA1 ;.:-_"é', min_size=1, max_size=5).filter(lambda n: n == n.strip())


def quoted(text: str, always: bool) -> str:
    return '"' + text.replace('"', '""') + '"' if always or '"' in text else text


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_matrix_is_what_csv_and_float_say(data: st.DataObject) -> None:
    samples = data.draw(st.lists(name.filter(lambda n: n not in MISSING), min_size=1, max_size=4, unique=True))
    genes = data.draw(st.lists(name, min_size=1, max_size=5, unique=True))
    rows = [data.draw(st.lists(good, min_size=len(samples), max_size=len(samples))) for _ in genes]
    bare, quotes = data.draw(st.booleans()), data.draw(st.booleans())
    bare = bare and (len(samples) > 1 or ";" not in samples[0])  # a header without a tab
    if bare and not rows[0][-1].strip(' "'):
        rows[0][-1] = "NA"
    lines = ["\t".join([*([] if bare else ["gene"]), *(quoted(s, quotes) for s in samples)])]
    lines += ["\t".join([quoted(f, quotes), *row]) for f, row in zip(genes, rows, strict=True)]
    blank = data.draw(st.integers(2, len(lines)))
    if blank > 1 and data.draw(st.booleans()):
        lines.insert(blank, "")
    end = data.draw(st.sampled_from(["\n", "\r\n"]))
    content = (end.join(lines) + data.draw(st.sampled_from(["", end]))).encode()
    content = data.draw(st.sampled_from([b"", b"\xef\xbb\xbf"])) + content
    parsed = list(csv.reader([line for line in lines[1:] if line], delimiter="\t"))
    expected = [[np.nan if c.strip() in MISSING else float(c) for c in row[1:]] for row in parsed]
    found = read_matrix(content)
    assert found[:2] == (samples, genes)
    np.testing.assert_array_equal(found[2], np.array(expected, np.float32))
    if parsed:  # and with one bad cell, its place
        row, column, cell = (
            data.draw(st.integers(0, len(rows) - 1)),
            data.draw(st.integers(0, len(samples) - 1)),
            data.draw(bad),
        )
        line = [i for i, text in enumerate(lines, 1) if text][row + 1]
        broken = [*rows[row][:column], cell, *rows[row][column + 1 :]]
        lines[line - 1] = "\t".join([quoted(genes[row], quotes), *broken])
        with pytest.raises(InputError) as caught:
            read_matrix((end.join(lines) + end).encode())
        assert (caught.value.line, caught.value.message.startswith(f"found {cell!r} for feature")) == (line, True)
        assert " ".join(f"feature {genes[row]}, sample {samples[column]};".split()) in caught.value.message


values = st.one_of(st.text('abN1 -.\n\t"é', max_size=6), st.sampled_from([*MISSING, " case", "None"]))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(values, values, values), min_size=1, max_size=5), st.sampled_from(["\t", ","]), st.booleans())
def test_a_sample_table_is_what_csv_says_or_is_refused(
    rows: list[tuple[str, ...]], delimiter: str, quotes: bool
) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(
        text, delimiter=delimiter, lineterminator="\n", quoting=csv.QUOTE_ALL if quotes else csv.QUOTE_MINIMAL
    )
    writer.writerows([["a", "sample_id", "b", "c"], *([row[0], f"s{i}", *row[1:]] for i, row in enumerate(rows))])
    swallowed = any(cell.count("\n") and cell.count(delimiter) >= 3 * cell.count("\n") for row in rows for cell in row)
    if swallowed:
        with pytest.raises(InputError, match="reads as rows of the table"):
            read_samples(text.getvalue().encode())
        return
    assert read_samples(text.getvalue().encode()).rows == {
        f"s{i}": [None if cell.strip() in MISSING else cell.strip() for cell in row] for i, row in enumerate(rows)
    }


@pytest.mark.parametrize(
    ("content", "line", "found"),
    [
        (b'g\ts1\n"a\nb"\t1\nc\t2\n', 2, "quotes that do not end"),
        (b"g\ts1\na\x1bb\t1\n", 2, r"the control character '\x1b' (U+001B) in the name 'a\x1bb'"),
        ("g\ts1\na\u2028b\t1\n".encode(), 2, "(U+2028)"),
        (b"g\ts1\na\xa0\t1\n", 2, "bytes that are not UTF-8 (a0 09 31)"),
        ("g\ts1\na\xa0\t1\n".encode(), 2, r"blanks around the name 'a\xa0'"),
        (b"g\ts\x00\na\t1\n", 1, r"'\x00' (U+0000) in the name 's\x00' in column 2"),
        (b"gene, S1\nG1, 1\n", 1, "blanks around the name ' S1' in column 2"),
        (b"g\ts1\ta\nb\t1\t2\nb \t1\t2\n", 3, "blanks around the name 'b '"),
        (b"g\tNA\na\t1\n", 1, "a word for a missing value, 'NA'"),
        (b"g\t\na\t1\n", 1, "an empty name in column 2"),
        (b"gene\tS1\nG1\t1\t\n", 2, "3 cells below a header of 2"),
        (b"gene\tS1\tS2\nG1\t1\t4\t\n", 2, "an empty cell behind the last column"),
        (b"gene\tS1\nG1\t1\nG2\t1\t\n", 3, "found 3 columns; expected 2"),
        (b"gene\tS1\rG1\t1\r", 1, "a carriage return within the line"),
        (b"gene\tS1\nG1\t\r1\nG2\tx\n", 2, "a carriage return within the line"),
        (b"gene\tS" + b"1" * 140_000 + b"\nG1\t1\n", 1, "a name of 140,001 characters, 'S1111"),
        (b"gene\tS1\nG1\t" + b"1" * 140_000 + b"\n", 2, "a cell of 140,000 characters"),
        (b"gene;S1\nG1;1.500\n", 2, "'1.500' for feature G1, sample S1; expected a number with a decimal comma"),
        (b"gene;a,S1\nG1;1,5\n", 1, "commas and semicolons cut into as many cells"),
        (b"gene\tS1\nG1\t1,5\n", 2, "'1,5' for feature G1, sample S1; expected a number with a decimal point"),
        (b'gene\tS1\n"G1"x\t1\n', 2, "text behind them"),
        (b"", 1, "the file is empty"),
        (b"gene\tS1\n\n", 2, "no feature below its header"),
    ],
)
def test_a_matrix_that_says_two_things_is_refused_with_its_line(content: bytes, line: int, found: str) -> None:
    with pytest.raises(InputError) as caught:
        read_matrix(content)
    assert caught.value.line == line
    assert found in caught.value.message


def test_decimal_commas_between_semicolons() -> None:
    samples, genes, found = read_matrix(b'gene;S1;S2\nG1;1,5;-2\n"G;2";NA;,25e1\n')
    assert (samples, genes) == (["S1", "S2"], ["G1", "G;2"])
    np.testing.assert_array_equal(found, np.array([[1.5, -2], [np.nan, 2.5]], np.float32))
    assert (
        matrix.Header(["S1"], ";", True).described()
        == "semicolon between cells, decimal commas, no cell above the features"
    )


@pytest.mark.parametrize(
    ("content", "line", "found"),
    [
        (b'sample_id\tlabel\nS1\t"a\nS2\tb\n', 2, "quotes that do not end"),
        (b'sample_id\tlabel\nS0\tx\nS1\t"a\nS2\tb\nS3\t"\n', 3, "reads as rows of the table"),
        (b'sample_id\tlabel\nS1\t"a"b\n', 2, "text behind them"),
        (b"sample_id\tlabel\nS1 \tcase\n", 2, "blanks around the name 'S1 ' as sample_id"),
        (b"sample_id\tlabel\n\tcase\n", 2, "an empty name as sample_id"),
        (b"sample_id\tlabel\nnull\tcase\n", 2, "a word for a missing value, 'null'"),
        (b"sample_id\tlabel\rS1\ta\r", 1, "a carriage return within the line"),
        (b"sample_id\tlabel\nS1\ta\rb\n", 2, "a carriage return within the line"),
        (b"sample_id\tnote\nS1\t" + b"x" * 140_000 + b"\n", 2, "a cell of 140,000 characters"),
        (b"sample_id\tlabel\nS1\t\xff\n", 2, "bytes that are not UTF-8"),
        (b"sample_id\tla\x07bel\nS1\tx\n", 1, r"'\x07' (U+0007) in the name"),
        (b"sampled\tlabel\nS1\tx\n", 1, "found columns 'sampled', 'label'; expected one called sample_id"),
        (b"Sample\tSample Name\nS1\tx\n", 1, "found columns 'Sample', 'Sample Name'; expected one called sample_id"),
    ],
)
def test_a_sample_table_that_says_two_things_is_refused_with_its_line(content: bytes, line: int, found: str) -> None:
    with pytest.raises(InputError) as caught:
        read_samples(content)
    assert caught.value.line == line
    assert found in caught.value.message


def test_what_is_odd_in_a_sample_table_is_told() -> None:
    table = read_samples(b"\xef\xbb\xbfsample_id; label;age\r\nS1;case ;1,5\r\nS2;None;null\r\nS3;case;-9\r\n\r\n")
    assert table.rows == {"S1": ["case", "1.5"], "S2": ["None", None], "S3": ["case", "-9"]}
    assert table.notes == [
        "s.tsv: read with a semicolon between cells: decimal commas are stored as points",
        "s.tsv: column label: 1 values without the blanks around them, of 'case' the first",
        "s.tsv: column label: 1 cells 'None' are kept as text; a missing value is NA, N/A, NaN, null or an empty cell",
        "s.tsv: column age: 1 cells 'null' are read as missing",
        "s.tsv: column age: 1 cells '-9' are kept as text; a missing value is NA, N/A, NaN, null or an empty cell",
    ]
    for head in (b"samples;score", b"score;Sample ID", b"sample.name;score"):
        named = read_samples(head + (b"\n1;S1\n" if head.startswith(b"score") else b"\nS1;1\n"))
        own = next(name for name in head.decode().split(";") if name != "score")
        assert (named.columns, named.rows) == (["score"], {"S1": ["1"]}), head
        assert f"s.tsv: rows are named by column {own}" in named.notes and not named.portal
    assert read_samples(b"sample\tsample_id\nx\tS1\n").rows == {"S1": ["x"]}
    assert read_samples(b'sample_id\tnote\nS1\t"two\nlines"\n').rows == {"S1": ["two\nlines"]}


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (bz2.compress(b"gene\ts1\na\t1\n"), "a bzip2 file"),
        (lzma.compress(b"gene\ts1\na\t1\n"), "an xz file"),
        ("gene\ts1\na\t1\n".encode("utf-16"), "text in UTF-16"),
        (b"PK\x03\x04rest", "a zip archive, as spreadsheets (xlsx) are too"),
    ],
)
def test_what_is_no_text_is_named(content: bytes, found: str, tmp_path: Path) -> None:
    for read in (read_matrix, read_samples):
        with pytest.raises(InputError, match="expected text in UTF-8") as caught:
            read(content)
        assert found in caught.value.message
    path = tmp_path / "s.tsv"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        list(streams.split_blocks(f"file://{path}", streams.Split(0, len(content))))
    assert found in caught.value.message


def test_orders_have_one_hash_which_old_lakes_have() -> None:
    # SHA-256 of "a\nb", as coreutils has it: printf 'a\nb' | sha256sum | cut -c1-16
    assert text_values.order_hash(["a", "b"]) == matrix.feature_set(["a", "b"]) == "7e18f737311b2dc3"
    assert VcfHeader(2, "", 1, ["a", "b"], {}, {}, {}, False).sample_set == text_values.order_hash(["a", "b"])
    orders = [["a", "b"], ["a\nb"], ["ab"], ["b", "a"], ["a\n", "b"], ["a", "\nb"], ["a"], []]
    assert len({text_values.order_hash(order) for order in orders}) == len(orders)


def test_a_covariate_is_a_number_a_category_or_missing() -> None:
    texts = ["1.5", " 2 ", "high", None, "null", "1_0", "inf", "0"]
    np.testing.assert_array_equal(covariates.covariate(texts, None), np.array([1.5, 2, *[np.nan] * 5, 0], np.float32))
    np.testing.assert_array_equal(
        covariates.covariate(["case", "case ", "control", None, "NA"], "case"),
        np.array([1, 1, 0, np.nan, np.nan], np.float32),
    )


def test_the_class_that_bounds_the_folds_is_named() -> None:
    labels = ["a"] * 5 + [" b"] * 3
    found = splits.assign([f"s{i}" for i in range(8)], labels, None, None, splits.Split(folds=5), 1)
    assert found.warnings == ["folds reduced from 5 to 3: the smallest class, ' b', has 3 groups"]
