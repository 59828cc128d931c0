"""Sequence tables and base codes against plain Python: every record kept or set aside for its reason,
every base, k-mer and position."""

from __future__ import annotations

import csv
import gzip
import os
from collections import Counter
from itertools import product
from pathlib import Path

import numpy as np
import pyarrow as pa
import pysam
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from genodl_spark import tasks
from genodl_spark.core.errors import InputError
from genodl_spark.formats import sequence_table, streams
from genodl_spark.formats.sequence_table import Header
from genodl_spark.genome import bases as genome_bases
from genodl_spark.job import config
from genodl_spark.learning import encodings

SHARED = Path(os.environ.get("GENODL_SHARED_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
MISSING = ("", "NA", "N/A", "n/a", "NaN", "nan", "NAN", "NULL", "null")
CODES = {letter: code for code, letters in enumerate(("Aa", "Cc", "Gg", "TtUu")) for letter in letters}
CODES |= dict.fromkeys("RYSWKMBDHVNryswkmbdhvn", -1)
HEAD = Header(["id", "label", "sequence", "group"], "\t")

bases = st.text("ACGTUNacgtuRYK", min_size=1, max_size=12)
cell = st.text("abAN1 ;é", max_size=4)
record = st.one_of(
    st.tuples(st.text("xy12", min_size=1, max_size=3), cell, bases, cell),
    st.lists(st.one_of(cell, bases, st.sampled_from(['"a\tb"', '"', "\r", "-", "ACGX"])), max_size=6),
)


def oracle(lines: list[str]) -> tuple[dict[int, tuple[list[str | None], list[int]]], set[int]]:
    """Line -> values and base codes of the records kept; and the lines set aside."""
    kept, bad = {}, set()
    for number, line in enumerate(lines, 2):
        if not line.rstrip("\r"):
            continue
        if "\r" in line.rstrip("\r"):
            bad.add(number)
            continue
        try:
            cells = next(csv.reader([line], delimiter="\t", strict=True))
        except csv.Error:
            bad.add(number)
            continue
        if (
            len(cells) != 4
            or not cells[0]
            or cells[0] != cells[0].strip()
            or "\t" in cells[0]
            or not cells[2]
            or any(letter not in CODES for letter in cells[2])
        ):
            bad.add(number)
        else:
            values = [None if v.strip() in MISSING else v.strip() for v in (cells[1], cells[3])]
            kept[number] = ([cells[0], *values], [CODES[letter] for letter in cells[2]])
    return kept, bad


@settings(max_examples=300, deadline=None)
@given(st.lists(record, min_size=1, max_size=8))
@example([['"a\tb"', "1", "ACG", "x"]])
@example([['"', "\r", '"', "1", "ACG", "x"]])
def test_every_record_is_kept_whole_or_set_aside(records: list[list[str]]) -> None:
    lines = ["\t".join(r) for r in records]
    kept, bad = oracle(lines)
    rows, labels, refused = sequence_table.parse("".join(f"{line}\n" for line in lines).encode(), 2, HEAD, "c", "f.tsv")
    found = zip(labels.to_pylist(), rows.to_pylist(), strict=True)
    values = {
        r["line"]: ([s["entity_id"], s["label"], s["group"]], np.frombuffer(r["codes"], np.int8).tolist())
        for s, r in found
    }
    assert values == kept
    assert [r["length"] for r in rows.to_pylist()] == [len(codes) for _, codes in kept.values()]
    assert rows.column("sequence_id").to_pylist() == labels.column("entity_id").to_pylist()
    assert {r["line"]: r["text"] for r in refused.to_pylist()} == {number: lines[number - 2] for number in bad}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"a\t1\tACG", "found 3 columns; expected 4, as many as the header has"),
        (b"a\t1\tAC-G\tx", "found '-' at base 3; expected letters of IUPAC, A C G T U R Y S W K M B D H V N"),
        (
            b"a\t1\tAC\xc2\xa0GT\tx",
            "found '\\xa0' (U+00A0) at base 3; expected letters of IUPAC, A C G T U R Y S W K M B D H V N",
        ),
        (
            "a\t1\tＡCGT\tx".encode(),  # noqa: RUF001
            "found 'Ａ' (U+FF21) at base 1; expected letters of IUPAC, A C G T U R Y S W K M B D H V N",  # noqa: RUF001
        ),
        (
            b'a\t1\t"ACG\tx',
            (
                "found quotes that do not end, or text behind them (unexpected end of data); "
                "expected quotes around whole cells, on one line"
            ),
        ),
        (b"a \t1\tACG\tx", "found blanks around the name 'a ' as id; expected a name for the sequence, mend it"),
        (b"a\t1\t\tx", "found an empty sequence; expected its bases"),
        (b"\t1\tACG\tx", "found an empty name as id; expected a name for the sequence, mend it"),
        (b"a\t\xff\tACG\tx", "found bytes that are not UTF-8 (ff 09 41 43); expected UTF-8 text"),
    ],
)
def test_reasons_and_their_neighbours(line: bytes, reason: str) -> None:
    rows, _, refused = sequence_table.parse(b"p\tNA\tAC\tx\n" + line + b"\nq\t1\tgu\ty\n", 8, HEAD, "c", "f.tsv")
    assert (rows.column("sequence_id").to_pylist(), rows.column("line").to_pylist()) == (["p", "q"], [8, 10])
    assert [(r["source"], r["file"], r["line"], r["reason"]) for r in refused.to_pylist()] == [
        ("sequences", "f.tsv", 9, reason)
    ]


def test_blanks_around_values_go_and_are_told() -> None:
    noted: list[tuple[int, str]] = []
    lines = b"p\t case\tAC\tx\nq\tcase \tGG\t\nr\tcase\tGG\t NA\n"
    _, labels, _ = sequence_table.parse(lines, 5, HEAD, "c", "f.tsv", lambda line, what: noted.append((line, what)))
    assert (labels.column("label").to_pylist(), labels.column("group").to_pylist()) == (["case"] * 3, ["x", None, None])
    told = [(5, "label"), (6, "label"), (7, "group")]
    assert noted == [
        (line, f"have blanks around a value of column {name}, which are not stored") for line, name in told
    ]


def test_a_long_sequence_beside_quotes() -> None:
    rows, _, refused = sequence_table.parse(b'"a"\t"1"\t"' + b"acgn" * 100_000 + b'"\t"x"\n', 2, HEAD, "c", "f.tsv")
    assert refused.num_rows == 0
    np.testing.assert_array_equal(
        np.frombuffer(rows.column("codes")[0].as_py(), np.int8), np.tile([0, 1, 2, -1], 100_000)
    )


@pytest.mark.parametrize("mode", ["plain", "gzip", "bgzip"])
def test_pieces_of_a_file_have_its_lines(tmp_path: Path, mode: str) -> None:
    text = "id,sequence,odd name (1)\n" + "".join(f"s{i},{'ACGT' * (i % 5 + 1)},{i}\n" for i in range(20_000))
    path = tmp_path / "s.csv"
    if mode == "bgzip":
        with pysam.BGZFile(str(path), "w") as out:
            out.write(text.encode())
    else:
        path.write_bytes(gzip.compress(text.encode()) if mode == "gzip" else text.encode())
    uri = f"file://{path}"
    header = sequence_table.header_of(uri)
    assert (header.delimiter, header.others) == (",", {"odd name (1)": "odd_name_1_"})
    pieces = streams.splits(uri, 20_000)
    assert (len(pieces) > 1) == (mode != "gzip")
    first, found = 1, []
    for piece in pieces:
        for rows, labels, refused in sequence_table.read(uri, piece, first, header, "c", "s.csv"):
            assert refused.num_rows == 0
            found += zip(
                rows.column("line").to_pylist(),
                rows.column("length").to_pylist(),
                labels.column("odd_name_1_").to_pylist(),
                strict=True,
            )
        first += streams.count_lines(uri, piece)
    assert found == [(i + 2, 4 * (i % 5 + 1), str(i)) for i in range(20_000)]


@pytest.mark.parametrize(
    ("head", "found"),
    [
        (b"", "the file is empty"),
        (b"name\tsequence\n", "found columns 'name', 'sequence'; expected one called id"),
        (b"id\tseq\n", "expected one called sequence"),
        (b"id\tsequence\ta b\ta_B\n", "column 'a_B' stands twice"),
        (b"id\tsequence\tcohort\n", "column 'cohort' stands twice, is empty or reserved"),
        (b"id\tsequence\tCohort\n", "column 'Cohort'"),
    ],
)
def test_header_errors(tmp_path: Path, head: bytes, found: str) -> None:
    (tmp_path / "s.tsv").write_bytes(head)
    with pytest.raises(InputError) as caught:
        sequence_table.header_of(f"file://{tmp_path}/s.tsv")
    assert (caught.value.line, found in str(caught.value)) == (1, True)


def test_every_byte_has_its_code() -> None:
    expected = [CODES.get(chr(byte), -2) for byte in range(256)]
    assert genome_bases.base_codes(np.arange(256, dtype=np.uint8)).tolist() == expected


rows_of_codes = st.integers(0, 30).flatmap(
    lambda n: st.lists(st.lists(st.integers(-1, 3), min_size=n, max_size=n), min_size=1, max_size=6)
)


@settings(max_examples=200, deadline=None)
@given(rows_of_codes, st.integers(1, 5), st.integers(1, 60))
def test_kmer_counts_are_those_of_a_counter(rows: list[list[int]], k: int, block: int) -> None:
    codes = np.array(rows, np.int8).reshape(len(rows), -1)
    before, genome_bases._BLOCK = genome_bases._BLOCK, block  # rows counted in several blocks
    try:
        found = genome_bases.kmer_counts(codes, k)
    finally:
        genome_bases._BLOCK = before
    assert found.shape == (len(rows), 4**k)
    for row, counts in zip(rows, found.tolist(), strict=True):
        text = "".join("ACGTN"[code] for code in row)
        counter = Counter(text[i : i + k] for i in range(len(text) - k + 1))
        assert counts == [counter["".join(kmer)] for kmer in product("ACGT", repeat=k)]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=14), max_size=6), st.integers(1, 14), st.integers(0, 5)
)
def test_sequences_are_aligned_at_their_centres(sequences: list[list[int]], length: int, before: int) -> None:
    codes = np.array([3] * before + [code for s in sequences for code in s], np.int8)
    ends = np.cumsum([before, *map(len, sequences)])
    found = genome_bases.centred(codes, ends, length)
    assert (found.shape, found.dtype) == ((len(sequences), length), np.int8)
    for sequence, row in zip(sequences, found.tolist(), strict=True):
        padded = {i - len(sequence) // 2 + length // 2: code for i, code in enumerate(sequence)}
        assert row == [padded.get(i, -1) for i in range(length)]


def test_onehot_has_a_column_of_zeros_for_an_unknown_base() -> None:
    found = encodings.encoding("onehot").floats(np.array([[0, 3, -1], [1, 2, 2]], np.int8))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found[0], [[1, 0, 0], [0, 0, 0], [0, 0, 0], [0, 1, 0]])
    np.testing.assert_array_equal(found[1], [[0, 0, 0], [1, 0, 0], [0, 1, 1], [0, 0, 0]])


def test_baselines_take_kmers_and_positions() -> None:
    x = np.random.default_rng(0).integers(-1, 4, (5, 30)).astype(np.int8)
    found = encodings.encoding("onehot").baseline(x)
    assert (found.shape, found.dtype) == ((5, 4 + 16 + 64 + 256 + 120), np.float32)
    np.testing.assert_array_equal(found[:, 4:20], genome_bases.kmer_counts(x, 2))
    np.testing.assert_array_equal(found[:, 340:].reshape(5, 4, 30), encodings.encoding("onehot").floats(x))
    assert encodings.encoding("onehot").baseline(np.zeros((2, 513), np.int8)).shape == (2, 340)
    np.testing.assert_array_equal(encodings.encoding("none").baseline(x), encodings.encoding("none").floats(x))


def test_published_tables_are_read_whole() -> None:
    files = [path for path in sorted(SHARED.glob("*/sequences*.tsv.gz")) if path.stat().st_size < 1 << 20]
    if not files:
        pytest.skip("no shared data")
    for path in files:
        with gzip.open(path, "rt", newline="") as lines:
            expected = list(csv.DictReader(lines, delimiter="\t"))
        uri = f"file://{path}"
        [split] = streams.splits(uri, 1 << 40)
        rows = pa.Table.from_batches(
            [rows for rows, _, _ in sequence_table.read(uri, split, 1, sequence_table.header_of(uri), "c", path.name)]
        )
        assert rows.column("sequence_id").to_pylist() == [row["id"] for row in expected], path
        codes = np.frombuffer(b"".join(rows.column("codes").to_pylist()), np.int8)
        np.testing.assert_array_equal(codes, [CODES[letter] for row in expected for letter in row["sequence"]])


def test_covariates_do_not_go_with_sequences() -> None:
    with pytest.raises(InputError, match="found covariates for features that networks take as onehot; expected none"):
        tasks.features(config.load("binding", None, ["covariates=age"]))
