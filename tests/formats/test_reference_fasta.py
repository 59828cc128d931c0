"""Reference sequences to rows: every base where it lies on its contig, checksums as samtools has them, and what is no
reference refused."""

from __future__ import annotations

import gzip
import hashlib
import os
import random
from pathlib import Path

import pysam
import pytest

from genodl_spark.core.errors import InputError
from genodl_spark.formats import reference_fasta
from genodl_spark.lake.tables.genomes import CHUNK

SHARED = Path(os.environ.get("GENODL_SHARED_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))


def read(path: Path) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    sequences, chunks = [], []
    for rows, bases in reference_fasta.read(path.as_uri(), "c", path.name):
        sequences += rows.to_pylist()
        chunks += bases.to_pylist()
    return sequences, chunks


def whole(chunks: list[dict[str, object]], name: str) -> bytes:
    return b"".join(chunk["bases"] for chunk in chunks if chunk["name"] == name)


def wrapped(text: str, width: int) -> str:
    return "".join(text[i : i + width] + "\n" for i in range(0, len(text), width))


@pytest.mark.parametrize("form", ["plain", "gz", "bgz", "crlf"])
def test_bases_are_cut_where_positions_of_the_contig_are_multiples(tmp_path: Path, form: str) -> None:
    draw = random.Random(5)
    long = "".join(draw.choices("ACGTNacgtnRY", k=3 * CHUNK + 17))
    piece, first = long[: CHUNK + 100], 2 * CHUNK - 30
    place = f"GRCh38_chr22:{first}-{first + len(piece) - 1} x"
    text = f">chr7 a contig\n{wrapped(long, 61)}>s1 {place}\n{wrapped(piece, 5000)}\n>M\nACGT\nAC\n"
    path = tmp_path / "a.fa"
    if form == "bgz":
        with pysam.BGZFile(str(path), "wb") as file:
            file.write(text.encode())
    else:
        data = text.replace("\n", "\r\n").encode() if form == "crlf" else text.encode()
        path.write_bytes(gzip.compress(data) if form == "gz" else data)
    sequences, chunks = read(path)
    columns = ("contig", "name", "description", "first", "last", "length", "build", "line")
    assert [tuple(row[c] for c in columns) for row in sequences] == [
        ("7", "chr7", "a contig", 1, len(long), len(long), None, 1),
        (
            "22",
            "s1",
            place,
            first,
            first + len(piece) - 1,
            len(piece),
            "GRCh38",
            2,
        ),
        ("MT", "M", None, 1, 6, 6, None, 3),
    ]
    assert [whole(chunks, name).decode() for name in ("chr7", "s1", "M")] == [long, piece, "ACGTAC"]
    assert sequences[0]["md5"] == hashlib.md5(long.upper().encode()).hexdigest()
    assert [(c["first"], c["last"]) for c in chunks if c["name"] == "s1"] == [
        (first, 2 * CHUNK),
        (2 * CHUNK + 1, 3 * CHUNK),
        (3 * CHUNK + 1, first + len(piece) - 1),
    ]
    assert all(
        c["chunk"] == (c["first"] - 1) // CHUNK and c["last"] - c["first"] + 1 == len(c["bases"]) for c in chunks
    )


def test_public_references_have_the_bases_that_samtools_reads() -> None:
    path = SHARED / "ref_grch38_chr20_21_10M" / "grch38.chr20_and_21_10M.fa.gz"
    if not path.is_file():
        pytest.skip(f"{path} is absent; set GENODL_SHARED_DATA to the folder of public data sets")
    sequences, chunks = read(path)
    assert [(row["contig"], row["length"]) for row in sequences] == [("20", 10_000_000), ("21", 10_000_000)]
    with pysam.FastaFile(str(path)) as file:
        for row in sequences:
            assert whole(chunks, row["name"]).decode() == file.fetch(row["name"])


@pytest.mark.parametrize(
    ("text", "line", "found"),
    [
        ("", 1, "the file is empty"),
        ("ACGT\n>a\nAC\n", 1, "found text before the first name"),
        (">a\nAC\n>\nAC\n", 3, "found an empty name"),
        (">a\nAC\n>b\n>c\nAC\n", 3, "found no base below b"),
        (">a\nAC\n>a x\nAC\n", 3, "sequence a stands twice, first on line 1"),
        (">a\nACGT\nAC-T\n", 3, "found '-' at base 7 of a"),
        (">p\nMKWVTF\n", 2, "found 'F' at base 6 of p"),
        (">a hg19_chr1:10-15\nACGT\n", 1, "found 4 bases in a; expected those of hg19_chr1:10-15"),
        (">a hg19_chr1:10-13\nACGT\n>b hg38_chr1:10-13\nACGT\n", 3, "found slices of hg19 and hg38"),
    ],
)
def test_what_is_no_reference_is_refused(tmp_path: Path, text: str, line: int, found: str) -> None:
    path = tmp_path / "a.fa"
    path.write_text(text)
    with pytest.raises(InputError) as refused:
        read(path)
    assert refused.value.message.startswith(found) and refused.value.line == line
    if not text.startswith(">"):
        with pytest.raises(InputError):
            reference_fasta.check(path.as_uri())
