"""BCF against bcftools, and damage of every kind, which must never pass for a short file."""

from __future__ import annotations

import io
import random
import struct
from pathlib import Path

import fsspec
import pysam
import pysam.bcftools
import pytest

from genodl_spark.core.errors import InputError
from genodl_spark.formats import bgzf
from genodl_spark.formats.vcf import bcf
from genodl_spark.formats.vcf.header import read_header

HEAD = """##fileformat=VCFv4.2
##FILTER=<ID=q10,Description="Low, very low">
##INFO=<ID=AF,Number=A,Type=Float,Description="Frequency">
##INFO=<ID=DB,Number=0,Type=Flag,Description="Known">
##INFO=<ID=ANN,Number=.,Type=String,Description="Text">
##FORMAT=<ID=GT,Number=1,Type=String,Description="Genotype">
##FORMAT=<ID=AD,Number=R,Type=Integer,Description="Depths">
##FORMAT=<ID=GQ,Number=1,Type=Float,Description="Quality">
##contig=<ID=1,length=1000000>
##contig=<ID=HLA-A*01:01>
#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\ta\tb\tc
"""
RECORDS = [
    "1 5 . A C,G 29.5 PASS AF=0.1,2e-05;DB GT:AD:GQ 0/1:1,2,3:9.25 .|.:.:. 2:4,5,6:1e+06",
    "1 6 rs1;rs2 AT <DEL>,* . q10 ANN=x|y,z GT 0|1|2 ./1 .",
    "1 900000 . N . 0 . . AD:GQ 1:. .:3 .",
    "HLA-A*01:01 1 . ACGT A 1e-05 . DB GT 0/0 1|1 0|0",
]


def make(path: Path, records: int = 0) -> Path:
    rng = random.Random(0)
    lines = [record.replace(" ", "\t") for record in RECORDS]
    lines += [
        "\t".join(["1", str(i), f"rs{i}", "A", "C", ".", "PASS", ".", "GT", *rng.choices(["0|0", "0|1", "1|1"], k=3)])
        for i in range(records)
    ]
    text = path.with_suffix(".vcf")
    text.write_text(HEAD + "".join(line + "\n" for line in lines))
    pysam.bcftools.view("--no-version", "-Ob", "-o", str(path), str(text), catch_stdout=False)
    return path


def printed(path: Path) -> str:
    out = path.with_suffix(".out.vcf")
    pysam.bcftools.view("--no-version", "-Ov", "-o", str(out), str(path), catch_stdout=False)
    return out.read_text()


def read(path: Path | str, size: int = 1 << 22) -> str:
    text, expected = "", 1
    for number, block in bcf.line_blocks_of_bcf(str(path), size):
        assert number == expected and block.endswith(b"\n")
        expected += block.count(b"\n")
        text += block.decode()
    return text


def read_or_refused(path: Path) -> str | InputError:
    try:
        return read(path)
    except InputError as error:
        return error


def inflated(content: bytes) -> bytes:
    return b"".join(text for _, text in bgzf.blocks(io.BytesIO(content).read))


@pytest.mark.parametrize("size", [1, 3000, 1 << 22])
def test_text_is_that_of_bcftools(tmp_path: Path, size: int) -> None:
    path = make(tmp_path / "x.bcf", 2000)
    assert read(path, size) == printed(path)
    assert read(f"file://{path}", size) == printed(path)
    header, _ = read_header(bcf.line_blocks_of_bcf(str(path), size), "x.bcf")
    assert header.samples == ["a", "b", "c"]


def test_a_header_alone(tmp_path: Path) -> None:
    (tmp_path / "x.vcf").write_text(HEAD)
    path = tmp_path / "x.bcf"
    pysam.bcftools.view("--no-version", "-Ob", "-o", str(path), str(tmp_path / "x.vcf"), catch_stdout=False)
    assert read(path) == printed(path)


def test_a_remote_file(tmp_path: Path) -> None:
    path = make(tmp_path / "x.bcf")
    with fsspec.open("memory://bcf/x.bcf", "wb") as out:
        out.write(path.read_bytes())
    assert read("memory://bcf/x.bcf") == printed(path)
    with pytest.raises(InputError, match="no such file"):
        read("memory://bcf/absent.bcf")


def test_is_bcf(tmp_path: Path) -> None:
    content = make(tmp_path / "x.bcf").read_bytes()
    assert bcf.is_bcf(content) and bcf.is_bcf(content[:300])
    others = [
        b"",
        b"BCF\2\2",
        content[:20],
        content[:17],
        bgzf.block(b"BCF\2\1"),
        bgzf.block(HEAD.encode()),
        b"##fileformat",
        b"\x1f\x8b" + b"x" * 40,
    ]
    for other in others:
        assert not bcf.is_bcf(other)


def test_damage_is_refused(tmp_path: Path) -> None:
    path = make(tmp_path / "x.bcf", 9000)
    content, text, rng = path.read_bytes(), printed(path), random.Random(2)
    for end in [*rng.sample(range(1, len(content)), 30), len(content) - 28]:
        path.write_bytes(content[:end])
        with pytest.raises(InputError):
            read(path)
    for _ in range(40):
        at, damaged = rng.randrange(len(content)), bytearray(content)
        damaged[at] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        found = read_or_refused(path)
        assert found == text if isinstance(found, str) else found.file == str(path)


def test_fewer_records_than_the_file_has_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make(tmp_path / "x.bcf")
    monkeypatch.setattr(bcf, "_count_records", lambda path, uri, longest: len(RECORDS) + 1)
    with pytest.raises(InputError, match="found 4 readable records in a BCF file of 5"):
        read(path)


def test_sound_blocks_of_a_cut_or_damaged_stream_are_refused(tmp_path: Path) -> None:
    path = make(tmp_path / "x.bcf", 50)
    stream, rng = inflated(path.read_bytes()), random.Random(3)
    lines = printed(path).splitlines(keepends=True)
    (length,) = struct.unpack_from("<I", stream, 5)
    at, ends = 9 + length, [9 + length]
    while at < len(stream):
        at += 8 + sum(struct.unpack_from("<2I", stream, at))
        ends.append(at)
    for end in range(1, len(stream), 13):
        path.write_bytes(bgzf.block(stream[:end]) + bgzf.END)
        if end in ends:  # a file of fewer records
            assert read(path) == "".join(lines[: len(lines) - len(ends) + 1 + ends.index(end)])
            continue
        with pytest.raises(InputError, match="cut off within a record"):
            read(path)
    # What a checksum cannot tell is htslib's to judge: an error or records, as many as there are lengths, but no crash.
    for _ in range(80):
        damaged = bytearray(stream)
        damaged[rng.randrange(9 + length, len(stream))] ^= 1 << rng.randrange(8)
        path.write_bytes(bgzf.block(bytes(damaged)) + bgzf.END)
        found = read_or_refused(path)
        assert found.count("\n") == len(lines) if isinstance(found, str) else found.file == str(path)
