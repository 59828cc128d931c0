"""Variant tables and FASTA with labels: names, builds, references, and what is refused with its place."""

from __future__ import annotations

import gzip
import os
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genodl_spark.core.errors import InputError
from genodl_spark.formats import fasta, sequence_table, streams, variant_table
from genodl_spark.formats.variant_table import References
from genodl_spark.genome.reference import Reference
from tests.public_data import DATA_SETS, DataSet, agree

SHARED = Path(os.environ.get("GENODL_SHARED_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))


def rows_of(
    path: Path, reference: str | None = None, flank: int = 0
) -> tuple[list[dict], list[dict], list[dict], list[tuple[int, str]]]:
    header = replace(variant_table.header_of(str(path)), flank=flank)
    references = None if reference is None else References(reference, header)
    told: list[tuple[int, str]] = []
    parts = variant_table.read(
        str(path), streams.whole(str(path)), 1, header, "c", "v.tsv", references, lambda *note: told.append(note)
    )
    found = [pa.Table.from_batches(batches).to_pylist() for batches in zip(*parts, strict=True)]
    return found[0], found[1], found[2], told


def test_every_line_is_a_variant_or_set_aside(tmp_path: Path) -> None:
    lines = {
        2: "chr1\t1\tA\tc\t0.5",
        3: "1\t2147483647\tAC\t-\tNA",
        4: "1\t0\tA\tC\t1",
        5: "1\t2147483648\tA\tC\t1",
        6: "1\t1e3\tA\tC\t1",
        7: "1\t5\tA\tA\t1",
        8: "1\t5\tA\ta\t1",
        9: "1\t5\tA\t<DEL>\t1",
        10: "1\t5\t\tC\t1",
        11: "\t5\tA\tC\t1",
        12: "1\t5\tA\tC",
        13: "",
        14: '"1"\t5\tA\tC\t 1 ',
    }
    path = tmp_path / "v.tsv"
    path.write_bytes(("chrom\tpos\tref\talt\tvalue\n" + "\r\n".join(lines.values()) + "\n").encode())
    rows, labels, bad, told = rows_of(path)
    assert [(r["line"], r["variant_id"], r["contig"]) for r in rows] == [
        (2, "chr1:1:A:C", "1"),
        (3, "1:2147483647:AC:-", "1"),
        (14, "1:5:A:C", "1"),
    ]
    assert [(r["entity"], r["entity_id"], r["value"]) for r in labels] == [
        ("variant", row["variant_id"], value) for row, value in zip(rows, ("0.5", None, "1"), strict=True)
    ]
    reasons = {r["line"]: r["reason"].partition(";")[0] for r in bad}
    assert reasons == {
        4: "found position '0'",
        5: "found position '2147483648'",
        6: "found position '1e3'",
        7: "found 'A' as both alleles",
        8: "found 'A' as both alleles",
        9: "found '<DEL>' as alt",
        10: "found '' as ref",
        11: "found '' as chromosome",
        12: "found 4 columns",
    }
    assert told == [
        (2, "have alt in lower case, stored in upper case"),
        (14, "have blanks around a value of column value, which are not stored"),
    ]


def test_rows_of_one_variant_are_told_apart_by_columns(tmp_path: Path) -> None:
    path = tmp_path / "v.tsv"
    head = "chrom\tpos\tref\talt\tvalue\telement\tkind\trelease\tdna\n"
    path.write_text(
        head
        + "1\t5\tA\tC\t1\tx\tp\t37\t4\n1\t5\tA\tC\t2\tx\tp\t38a\t5\n"
        + "1\t5\tA\tC\t3\ty\tp\t37\t6\n1\t6\tA\tC\t3\ty\tp\t37\t7\n"
    )
    header = variant_table.header_of(str(path))
    assert (header.repeated, header.told_by) == ({"1:5:A:C"}, ("element", "release"))
    rows, labels, _, _ = rows_of(path)
    names = ["1:5:A:C:x:37", "1:5:A:C:x:38a", "1:5:A:C:y:37", "1:6:A:C"]
    assert [r["variant_id"] for r in rows] == [r["entity_id"] for r in labels] == names
    path.write_text(head + "1\t5\tA\tC\t1\tx\tp\tr\t4\n1\t5\tA\tC\t2\ty\tp\tr\t5\n")
    assert variant_table.header_of(str(path)).told_by == ("element",)
    path.write_text(head + "1\t5\tA\tC\t1\tx\tp\tr\t4\n2\t5\tA\tC\t1\tx\tp\tr\t4\n1\t5\ta\tC\t2\tx\tp\tr\t5\n")
    with pytest.raises(InputError, match="variant 1:5:A:C:x:p:r stands twice, first on line 2") as caught:
        variant_table.header_of(str(path))
    assert caught.value.line == 4


def test_a_column_that_stands_again_has_to_say_the_same(tmp_path: Path) -> None:
    path = tmp_path / "v.tsv"
    path.write_text("chrom\tpos\tref\talt\tlabel\talt\n1\t5\tA\tC\tx\tC\n1\t6\tA\tC\tx\tG\n")
    rows, labels, bad, _ = rows_of(path)
    assert [r["line"] for r in rows] == [2] and list(labels[0]) == [
        "cohort",
        "entity",
        "entity_id",
        "file",
        "line",
        "label",
    ]
    assert [(r["line"], r["reason"]) for r in bad] == [
        (3, "found 'C' and 'G' in two columns called alt; expected one value")
    ]


def test_references_of_two_builds(tmp_path: Path) -> None:
    reference = tmp_path / "r.fa"
    reference.write_text(">a|37 b37_chr1:11-15\nACGTA\n>a|38 b38_chr1:21-25\nTTGCA\n")
    assert Reference.builds(str(reference)) == ["b37", "b38"]
    path = tmp_path / "v.tsv"
    path.write_text(
        "chrom\tpos\tref\talt\tassembly\n1\t12\tC\tT\tb37\n1\t23\tg\tT\tb38\n1\t12\tC\tT\tb38\n1\t22\t-\tAA\tb38\n1\t13\tC\tT\tb37\n"
    )
    rows, _, bad, _ = rows_of(path, str(reference))
    assert [(r["line"], r["build"]) for r in rows] == [(2, "b37"), (3, "b38"), (5, "b38")]
    assert [(r["line"], r["reason"]) for r in bad] == [
        (4, "found REF at 12-12; expected it within what the reference holds of 1: 21-25"),
        (6, "found REF 'C'; expected G, as the reference has it"),
    ]
    path.write_text("chrom\tpos\tref\talt\n1\t12\tC\tT\n")
    with pytest.raises(InputError, match="found slices of b37 and b38, and no column of the table with these values"):
        rows_of(path, str(reference))


def test_bases_around_a_variant_are_stored_with_it(tmp_path: Path) -> None:
    """By slicing a chromosome of 300 random letters, in either case, given whole and as a slice of it."""
    letters = "".join(np.random.default_rng(3).choice(list("ACGTacgtN"), 300))
    whole, part, path = (tmp_path / name for name in ("w.fa", "p.fa", "v.tsv"))
    whole.write_text(f">chr1\n{letters}\n")
    part.write_text(f">part b_chr1:101-200\n{letters[100:200]}\n")
    sites = [(101, letters[100]), (104, letters[103:109]), (150, "-"), (201, "-"), (200, letters[199])]
    lines = [f"1\t{pos}\t{ref}\t{'A' if ref.upper() != 'A' else 'C'}\n" for pos, ref in sites]
    path.write_text("chrom\tpos\tref\talt\n" + "".join(lines))
    for reference, low, high in ((whole, 0, 300), (part, 100, 200)):
        rows, _, _, _ = rows_of(path, str(reference), 20)
        assert len(rows) == len(sites)
        for row, (pos, ref) in zip(rows, sites, strict=True):
            end = pos - 1 + (0 if ref == "-" else len(ref))
            expected = letters[max(low, pos - 21) : pos - 1], letters[end : min(high, end + 20)]
            assert (row["before"], row["after"]) == tuple(text.upper() for text in expected)
    assert {(row["before"], row["after"]) for row in rows_of(path, str(part))[0]} == {("", "")}
    assert {(row["before"], row["after"]) for row in rows_of(path)[0]} == {(None, None)}


SEQUENCES = [data for data in DATA_SETS if data.source == "sequences"]


@pytest.mark.parametrize("data", SEQUENCES, ids=lambda data: data.given)
def test_published_sequences_have_the_labels_of_their_readme(data: DataSet, tmp_path: Path) -> None:
    path = data.path
    if not path.exists():
        pytest.skip("no shared data")
    header = sequence_table.header_of(str(path))
    parts = list(sequence_table.read(str(path), streams.whole(str(path)), 1, header, "c", "s"))
    rows, labels, bad = (pa.Table.from_batches(batches) for batches in zip(*parts, strict=True))
    assert (rows.num_rows, bad.num_rows) == (data.rows, 0)
    for name, expected in data.labels.items():
        assert agree(labels.column(name).to_pylist(), expected), name
    if "label" not in data.labels:
        return

    # The same as FASTA with its label in the header.
    some = min(data.rows, 1000)
    ids, codes, classes = (
        table.column(c).to_pylist()[:some] for table, c in ((rows, "sequence_id"), (rows, "codes"), (labels, "label"))
    )
    letters = bytes.maketrans(bytes([0, 1, 2, 3, 255]), b"ACGTN")
    text = (
        f">{id_}|{label}\n{code.translate(letters).decode()}\n"
        for id_, code, label in zip(ids, codes, classes, strict=True)
    )
    (tmp_path / "s.fa").write_text("".join(text))
    fasta_ = str(tmp_path / "s.fa")
    parts = list(sequence_table.read(fasta_, streams.whole(fasta_), 1, sequence_table.header_of(fasta_), "c", "s"))
    again, named, bad = (pa.Table.from_batches(batches) for batches in zip(*parts, strict=True))
    assert bad.num_rows == 0
    assert again.column("sequence_id").to_pylist() == ids and again.column("codes").to_pylist() == codes
    assert named.column("label").to_pylist() == classes


LABELLED = {
    ">a 1\nAC\n>b\nGT\n": (["label"], {"a": {"label": "1"}, "b": {"label": None}}),
    ">a|1\nAC\n>b|0|\nGT\n": (["label"], {"a": {"label": "1"}, "b": {"label": "0"}}),
    ">a label=x tf=CTCF\nAC\n>b|tf=NA|k=2\nGT\n": (
        ["label", "tf", "k"],
        {"a": {"label": "x", "tf": "CTCF", "k": None}, "b": {"label": None, "tf": None, "k": "2"}},
    ),
    ">a some words\nAC\n>b\nGT\n": (["description"], {"a": {"description": "some words"}, "b": {"description": None}}),
}


@pytest.mark.parametrize("text", LABELLED)
def test_headers_of_fasta(text: str, tmp_path: Path) -> None:
    columns, expected = LABELLED[text]
    path = tmp_path / "s.fa"
    path.write_text(text)
    header = sequence_table.header_of(str(path))
    assert header.columns == ["id", "sequence", *columns]
    parts = list(sequence_table.read(str(path), streams.whole(str(path)), 1, header, "c", "s.fa"))
    rows, labels, bad = ([row for part in parts for row in part[i].to_pylist()] for i in range(3))
    assert not bad and [r["line"] for r in rows] == [1, 3]
    assert {r["entity_id"]: {name: r[name] for name in columns} for r in labels} == expected


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.text("ab1:", min_size=1, max_size=3), st.lists(st.text("ACGTnryx- ", max_size=9), max_size=4)),
        min_size=1,
        max_size=6,
    ),
    st.integers(5, 40),
)
def test_fasta_in_blocks_is_fasta_line_by_line(records: list[tuple[str, list[str]]], size: int) -> None:
    text = "".join(f">{name}\n" + "".join(f"{line}\n" for line in lines) for name, lines in records)
    expected, line = [], 1
    for name, lines in records:
        bases = "".join(lines).replace(" ", "")
        expected.append((line, name, len(bases), not bases or not set(bases.upper()) <= set("ACGTNRY")))
        line += 1 + len(lines)
    header = sequence_table.Header(["id", "sequence"], fasta.DELIMITER)
    found: list[tuple[int, str, int, bool]] = []
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_text(text)
        for number, block in fasta.blocks(file.name, size):
            rows, _, bad = sequence_table.parse(block, number, header, "c", "f")
            found += [(r["line"], r["sequence_id"], r["length"], False) for r in rows.to_pylist()]
            found += [(r["line"], "", 0, True) for r in bad.to_pylist()]
    assert sorted((one[0], one[3]) for one in found) == [(one[0], one[3]) for one in expected]
    assert {one[:3] for one in found if not one[3]} == {one[:3] for one in expected if not one[3]}


BAD = {
    "v.tsv of nothing": (b"", "the file is empty; expected a table with columns chrom, pos, ref, alt", 1),
    "v.tsv without pos": (
        b"chrom\tposition\tref\talt\n1\t5\tA\tC\n",
        "expected one called pos, rename it in the header",
        1,
    ),
    "v.tsv with a reserved column": (
        b"chrom\tpos\tref\talt\tcohort\n1\t5\tA\tC\tx\n",
        "stands twice, is empty or reserved",
        1,
    ),
    "v.tsv cut off": (b"\x1f\x8b\x08\0\0\0\0\0\0\xff", "found a gzip file that is cut off", 1),
    "v.tsv in UTF-16": (b"\xff\xfec\0h\0", "found text in UTF-16", 1),
    "s.fa of a database": (b">a\nAC\n>gi|123|x\nAC\n", r"found gi\| in front of an identifier", 3),
    "s.fa with two columns of a name": (b">a x=1 X=2\nAC\n", "column 'X' stands twice", 1),
    "s.fa with a reserved key": (b">a cohort=1\nAC\n", "column 'cohort' stands twice, is empty or reserved", 1),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_refused_with_their_place(case: str, tmp_path: Path) -> None:
    content, message, line = BAD[case]
    path = tmp_path / case.split()[0]
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        (variant_table if path.suffix == ".tsv" else sequence_table).header_of(str(path))
    assert (caught.value.file, caught.value.line) == (str(path), line)


def test_a_small_reference_needs_no_index(tmp_path: Path) -> None:
    path = tmp_path / "r.fa.gz"
    path.write_bytes(gzip.compress(b">chr1 whole\r\nACGT\r\nRC\r\n>x b_chr2:5-6\nGG\n"))
    reference = Reference(str(path))
    assert [reference.fetch("1", 0, 6), reference.fetch("2", 4, 6), reference.fetch("x", 0, 2)] == [
        b"ACGTAC",
        b"GG",
        b"GG",
    ]
    assert [entry.name for entry in tmp_path.iterdir()] == ["r.fa.gz"]
