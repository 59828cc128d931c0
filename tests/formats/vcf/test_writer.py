"""Rows back to VCF text: every readable record of the shared files as it was, joined sets, headers."""

from __future__ import annotations

import gzip
import io
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from genodl_spark.formats.streams import line_blocks
from genodl_spark.formats.vcf import reader, writer
from genodl_spark.formats.vcf.header import read_header

SHARED = Path(os.environ.get("GENODL_SHARED_DATA", Path(__file__).resolve().parents[4] / "shared" / "data"))
NO_VCF = "chr22_ENST00000319363.vcf.gz"  # its lines have 7 columns: all go to quarantine
FILES = sorted(
    p
    for p in SHARED.rglob("*.vcf*")
    if p.suffix in (".vcf", ".gz", ".bgz") and "failed" not in p.parts and p.name != NO_VCF
)
LARGE = 3_000_000  # stored bytes: of larger files the first records are enough here
HEAD = (
    '##fileformat=VCFv4.{minor}\n##FORMAT=<ID=GT,Number=1,Type=String,Description="G">\n'
    "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO"
)


def batches(text: bytes, set_: int = 0) -> list[pa.RecordBatch]:
    minor = read_header(line_blocks(io.BytesIO(text), "v"), "v")[0].minor
    found = []
    for rows, bad in reader.read(io.BytesIO(text), "v", "c", "v", 500):
        assert bad.num_rows == 0, bad.to_pylist()[0]
        table = pa.Table.from_batches([rows]).append_column("first_phased", pa.array([minor >= 4] * rows.num_rows))
        table = table.append_column("set", pa.array([set_] * rows.num_rows, pa.int32()))
        found += table.combine_chunks().to_batches()
    return found


def vcf_of(*records: str, samples: str, minor: int = 2) -> bytes:
    columns = "".join(f"\t{s}" for s in ["FORMAT", *samples.split()])
    return (
        HEAD.format(minor=minor) + columns + "\n" + "".join("\t".join(r.split(" ")) + "\n" for r in records)
    ).encode()


def rendered(text: bytes, chosen: Iterable[int] | None = None) -> list[bytes]:
    header = read_header(line_blocks(io.BytesIO(text), "v"), "v")[0]
    places = None if chosen is None else np.array(chosen, np.int32)
    return [line for batch in batches(text) for line in writer.record_lines(batch, header.has_format, places)]


def comparable(line: bytes) -> list[object]:
    columns: list[object] = list(line.rstrip(b"\r\n").split(b"\t"))
    quality = columns[5]
    assert isinstance(quality, bytes)
    columns[5] = None if quality == b"." else repr(float(quality))  # as text, for nan
    return columns


@pytest.mark.skipif(not FILES, reason=f"no shared data in {SHARED}")
@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SHARED)))
def test_every_record_of_the_shared_files_is_written_as_it_was(path: Path) -> None:
    with (open if path.suffix == ".vcf" else gzip.open)(path, "rb") as stream:
        text = stream.read() if path.stat().st_size < LARGE else b"".join(stream.readlines(8_000_000))
    original = [line for line in text.split(b"\n") if line.strip() and not line.startswith(b"#")]
    written = rendered(text if text.endswith(b"\n") else text + b"\n")
    assert len(written) == len(original)
    for line, source in zip(written, original, strict=True):
        assert comparable(line) == comparable(source)


def test_chosen_samples_stand_in_the_order_asked_for() -> None:
    text = vcf_of("1 5 . A T . . AC=2 GT:DP 0|1:3 1:. .", "1 6 rs;x A T,<DEL> 100.0 q10;s50 . . . . .", samples="a b c")
    assert rendered(text, [2, 0]) == [
        b"1\t5\t.\tA\tT\t.\t.\tAC=2\tGT:DP\t.\t0|1:3\n",
        b"1\t6\trs;x\tA\tT,<DEL>\t100\tq10;s50\t.\t.\t.\t.\n",
    ]
    assert rendered(text)[0].endswith(b"\tGT:DP\t0|1:3\t1:.\t.\n")


@pytest.mark.parametrize("text", ["100", "0.1", "1e-05", "3.4e+38", "12345.678", "0", "inf", "nan"])
def test_quality_is_the_shortest_text_of_its_value(text: str) -> None:
    (line,) = rendered(vcf_of(f"1 5 . A T {text} . . GT 0|1", samples="a"))
    assert line.split(b"\t")[5].decode() == text


def joined(texts: list[bytes], samples: str | None = None) -> list[str]:
    """Lines of files, each with samples of its own, joined: `chrom pos ref alts format columns`."""
    headers = [read_header(line_blocks(io.BytesIO(text), "v"), "v")[0] for text in texts]
    sets = [header.samples for header in headers]
    joiner = writer.Joiner(sets, samples.split() if samples else writer.union_of(sets))
    rows = pa.concat_tables(pa.Table.from_batches(batches(text, i)) for i, text in enumerate(texts))
    keys = [(r["pos"], r["set"], r["line"], i) for i, r in enumerate(rows.select(["pos", "set", "line"]).to_pylist())]
    ordered = rows.take([key[-1] for key in sorted(keys)]).combine_chunks()
    lines = [line for batch in ordered.to_batches(max_chunksize=2) for line in joiner.lines(batch)] + list(
        joiner.rest()
    )
    return [
        " ".join(line.decode().rstrip("\n").split("\t")[i] for i in [1, 2, 3, 4, *range(8, line.count(b"\t") + 1)])
        for line in lines
    ]


def test_sites_of_several_sets_become_one_record() -> None:
    one = vcf_of(
        "1 5 r1 A T . . X GT 0|1 1|1",
        "1 6 . A T . . . GT:DP 0/0:1 1/1:2",
        "1 6 . A T . . . GT 0|0 0|0",
        "1 7 . C G . . . DP 3 4",
        samples="a b",
    )
    two = vcf_of("1 4 . A T . . . GT 1", "1 5 r2 A T . . Y GT 0/1", "1 6 . A T . . . GT:GQ:DP 0/1:9",
                 "1 7 . C T . . . GT 0/1", "1 7 . C G . . . GT 1/1", samples="c")  # fmt: skip
    assert joined([one, two]) == [
        "4 . A T GT ./. ./. 1",
        "5 r1 A T GT 0|1 1|1 0/1",
        "6 . A T GT:DP:GQ 0/0:1 1/1:2 0/1:.:9",
        "6 . A T GT 0|0 0|0 ./.",
        "7 . C G GT:DP ./.:3 ./.:4 1/1",
        "7 . C T GT ./. ./. 0/1",
    ]
    assert joined([one, two], "c a")[1] == "5 r1 A T GT 0/1 0|1"
    assert joined([one, two], "b")[2] == "6 . A T GT:DP:GQ 1/1:2"


@pytest.mark.parametrize(
    ("one", "two", "lines"),
    [
        # Bases count without case, and the first spelling stands; names of symbolic alleles
        # and contigs have their case.
        ("1 5 . c a . . . GT 0/1", "1 5 . C A . . . GT 1/1", ["5 . c a GT 0/1 1/1"]),
        ("1 5 . c a,g . . . GT 0/1", "1 5 . C A,G . . . GT 1/2", ["5 . c a,g GT 0/1 1/2"]),
        (
            "1 5 . C <dup> . . . GT 0/1",
            "1 5 . C <DUP> . . . GT 1/1",
            ["5 . C <dup> GT 0/1 ./.", "5 . C <DUP> GT ./. 1/1"],
        ),
        ("1 5 . c g]chrA:9] . . . GT 0/1", "1 5 . C G]chrA:9] . . . GT 1/1", ["5 . c g]chrA:9] GT 0/1 1/1"]),
        (
            "1 5 . C G]chra:9] . . . GT 0/1",
            "1 5 . C G]chrA:9] . . . GT 1/1",
            ["5 . C G]chra:9] GT 0/1 ./.", "5 . C G]chrA:9] GT ./. 1/1"],
        ),
        # How far a record reaches is part of its site where REF does not say it.
        (
            "1 5 . C <DEL> . . END=90 GT 0/1",
            "1 5 . C <DEL> . . END=900 GT 1/1",
            ["5 . C <DEL> GT 0/1 ./.", "5 . C <DEL> GT ./. 1/1"],
        ),
        ("1 5 . C <DEL> . . SVLEN=-85 GT 0/1", "1 5 . C <DEL> . . END=90 GT 1/1", ["5 . C <DEL> GT 0/1 1/1"]),
        ("1 5 . C <NON_REF> . . END=12 GT 0/0", "1 5 . c <NON_REF> . . END=12 GT 0/0", ["5 . C <NON_REF> GT 0/0 0/0"]),
        ("1 5 . C G,<NON_REF> . . . GT 0/1", "1 5 . C G,<NON_REF> . . . GT 1/1", ["5 . C G,<NON_REF> GT 0/1 1/1"]),
        ("1 5 . C . . . END=12 GT 0/0", "1 5 . C . . . END=20 GT 0/0", ["5 . C . GT 0/0 ./.", "5 . C . GT ./. 0/0"]),
        (
            "1 5 . C <INS> . . SVLEN=50 GT 0/1",
            "1 5 . C <INS> . . SVLEN=4950 GT 1/1",
            ["5 . C <INS> GT 0/1 ./.", "5 . C <INS> GT ./. 1/1"],
        ),
        (
            "1 5 . C <INS:ME> . . X=1;SVLEN=50 GT 0/1",
            "1 5 . C <INS:ME> . . SVLEN=-50 GT 1/1",
            ["5 . C <INS:ME> GT 0/1 1/1"],
        ),
        ("1 5 . C T,* . . END=5 GT 0/1", "1 5 . C T,* . . END=77 GT 1/1", ["5 . C T,* GT 0/1 1/1"]),
    ],
)
def test_what_a_site_is(one: str, two: str, lines: list[str]) -> None:
    assert joined([vcf_of(one, samples="a"), vcf_of(two, samples="b")]) == lines


@pytest.mark.skipif(not FILES, reason=f"no shared data in {SHARED}")
def test_a_real_file_taken_apart_by_samples_and_joined_is_what_it_was() -> None:
    lines = gzip.decompress((SHARED / "vcf_hail_sample" / "sample.vcf.gz").read_bytes()).rstrip(b"\n").split(b"\n")
    n = lines[-1].count(b"\t") - 8
    # The second set shares some samples with the first; the third lacks every other record,
    # so that there its samples are missing.
    sets = [range(0, n, 3), range(0, n, 2), range(n - 1, 1, -3)]
    texts: list[list[bytes]] = [[] for _ in sets]
    expected: list[bytes] = []
    for i, line in enumerate(lines):
        columns = line.split(b"\t")
        for text, places in zip(texts, sets, strict=True):
            if line.startswith(b"##"):
                text.append(line)
            elif line.startswith(b"#") or i % 2 or text is not texts[2]:
                text.append(b"\t".join([*columns[:9], *(columns[9 + p] for p in places)]))
        if not line.startswith(b"#"):
            there = {
                p for text, places in zip(texts, sets, strict=True) if i % 2 or text is not texts[2] for p in places
            }
            expected.append(
                b"\t".join([*columns[:9], *(c if p in there else b"./." for p, c in enumerate(columns[9:]))])
            )
    samples = next(line for line in lines if line.startswith(b"#CHROM")).decode().split("\t")[9:]
    found = joined(
        [b"\n".join(text) + b"\n" for text in texts],
        " ".join(s for p, s in enumerate(samples) if any(p in places for places in sets)),
    )
    kept = [p for p in range(n) if any(p in places for places in sets)]
    fixed = [[line.split(b"\t")[k] for k in (1, 2, 3, 4, 8)] for line in expected]
    assert found == [
        b" ".join([*f, *(line.split(b"\t")[9 + p] for p in kept)]).decode()
        for f, line in zip(fixed, expected, strict=True)
    ]


def test_a_sample_of_two_sets_has_the_first_call_that_is_not_missing() -> None:
    one = vcf_of("1 5 . A T . . . GT .|. 0|1", "1 6 . A T . . . GT .|. .|.", "1 7 . A T . . . DP 1 2", samples="a b")
    two = vcf_of(
        "1 5 . A T . . . GT 1/1 1/1",
        "1 6 . A T . . . GT 1 ./.",
        "1 7 . A T . . . DP 8 9",
        "1 8 . A T . . . GT 0 1",
        samples="b a",
    )
    assert joined([one, two]) == ["5 . A T GT 1/1 0|1", "6 . A T GT .|. 1", "7 . A T DP 1 2", "8 . A T GT 1 0"]


def test_sites_without_samples_join_those_with() -> None:
    one = HEAD.format(minor=2).encode() + b"\n1\t5\t.\tA\tT\t.\t.\t.\n1\t6\t.\tA\tT\t.\t.\t.\n"
    assert joined([one, vcf_of("1 5 . A T . . . GT 0|1", samples="a")]) == ["5 . A T GT 0|1", "6 . A T . ."]


def test_headers_become_one() -> None:
    first = (
        '##fileformat=VCFv4.1\n##source=x\n##INFO=<ID=A,Number=1,Type=Float,Description="a, '
        'ID=Q">\n##contig=<ID=chr2,length=9>\n##q=1'
    )
    filters = '##FILTER=<ID=f,Description="f">', '##FILTER=<ID=g,Description="g">'
    second = "\n".join(
        ["##fileformat=VCFv4.3", filters[0], "##source=y", "##contig=<ID=2,length=9>", "##contig=<ID=3>", filters[1]]
    )
    third = first.replace("Float", "Integer").replace("4.1", "4.2")
    meta, warnings = writer.merged_meta([("a", first), ("b", second), ("c", third)])
    expected = [*first.split("\n"), *filters, "##source=y", "##contig=<ID=3>"]
    assert meta == ["##fileformat=VCFv4.3", *expected[1:]]
    assert warnings == ["INFO A is declared otherwise in c than in a; the header has the latter"]
    assert writer.contigs_of(meta) == {"chr2": 9, "3": None}
    text = writer.header_text(meta, ["chr2", "3", "HLA-A*01:01"], ["s"], True)
    assert text.split("\n")[-3:-1] == [
        "##contig=<ID=HLA-A*01:01>",
        "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\ts",
    ]
    assert text.count("##contig") == 3
