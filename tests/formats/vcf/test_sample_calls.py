"""Calls of one sample read for a comparison: what comes out, what is passed over, what is refused."""

from __future__ import annotations

import gzip
import math
from pathlib import Path

import pysam.bcftools
import pytest

from genodl_spark.core.errors import InputError
from genodl_spark.formats.vcf.sample_calls import calls_of

HEADER = """##fileformat=VCFv4.2
##contig=<ID=chr1>
##contig=<ID=chr2>
##FILTER=<ID=LowQual,Description="l">
##INFO=<ID=DP,Number=1,Type=Integer,Description="d">
##FORMAT=<ID=GT,Number=1,Type=String,Description="g">
##FORMAT=<ID=GQ,Number=1,Type=Integer,Description="q">
##FORMAT=<ID=DP,Number=1,Type=Integer,Description="d">
##FORMAT=<ID=FT,Number=1,Type=String,Description="f">
#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\ts
"""
RECORDS = """chr1 5 . a g 31.5 PASS . GT:GQ:DP 0/1:40:12
chr1 6 . A <NON_REF> . . . GT 0/0
chr1 6 . A T . . . GT 0/0
chr1 6 . A T . . . GT ./.
chr1 7 . A T,<NON_REF> . LowQual DP=7 GT:GQ 1|1:.
chr1 9 . A T . . . GT:FT 0/1:LowQual
chr1 9 . A <DEL> . . . GT 0/1
chr1 9 . A * . . . GT 0/1
chr1 9 . A C . . . GT 0/1/1
chr1 9 . AT A,* . . . GT 1/2
chr2 3 . A C . . . GT ./1
chr2 3 . A C . . . GQ 5
"""


def write(path: Path, records: str = RECORDS, header: str = HEADER) -> str:
    path.write_text(header + records.replace(" ", "\t"))
    return str(path)


def test_what_comes_out_of_a_file(tmp_path: Path) -> None:
    plain = write(tmp_path / "a.vcf")
    bcf = str(tmp_path / "a.bcf")
    pysam.bcftools.view("--no-version", "-Ob", "-o", bcf, plain, catch_stdout=False)
    for path in (plain, bcf):
        file = calls_of(path)
        found = [
            (contig, c.variant.position, c.variant.ref, c.variant.alts, c.variant.genotype, c.passed, c.depth)
            for contig, c in file
        ]
        assert found == [
            ("chr1", 5, b"A", (b"G",), (0, 1), True, 12),
            ("chr1", 7, b"A", (b"T", b"<NON_REF>"), (1, 1), False, 7),
            ("chr1", 9, b"A", (b"T",), (0, 1), False, -1),
            ("chr1", 9, b"AT", (b"A", b"*"), (1, 2), True, -1),
            ("chr2", 3, b"A", (b"C",), (-1, 1), True, -1),
        ]
        assert file.passed_over == {
            "alleles that are not spelled in bases": 1,
            "genotypes of more than two alleles": 1,
        }
        scores = [call.score for _, call in file]
        assert scores[0] == 40 and all(map(math.isnan, scores[1:]))
    assert next(call.line for _, call in calls_of(plain)) == 11
    without = write(tmp_path / "b.vcf", header=HEADER.replace("##FORMAT=<ID=GQ", "##FORMAT=<ID=GX"))
    assert next(call.score for _, call in calls_of(without)) == 31.5


BAD = {
    "two samples": (RECORDS, HEADER.replace("\ts\n", "\ts\tt\n"), 10, "found 2 samples (s, t); expected one: keep one"),
    "no sample": (
        "chr1 5 . A G . . .\n",
        HEADER.replace("\tFORMAT\ts", ""),
        10,
        "found no sample; expected one: genotypes are what is compared",
    ),
    "goes back": ("chr1 5 . A G . . . GT 0/1\nchr1 4 . A G . . . GT 0/1\n", HEADER, 12, "found POS 4 behind 5"),
    "comes again": (
        "chr1 5 . A G . . . GT 0/1\nchr2 5 . A G . . . GT 0/1\nchr1 6 . A G . . . GT 0/1\n",
        HEADER,
        13,
        "found contig 'chr1' once more",
    ),
    "a column short": ("chr1 5 . A G . . . GT\n", HEADER, 11, "found 9 columns"),
    "no number": ("chr1 x . A G . . . GT 0/1\n", HEADER, 11, "found POS 'x'"),
    "no genotype": ("chr1 5 . A G . . . GT a/b\n", HEADER, 11, "found GT 'a/b'"),
    "an allele too many": ("chr1 5 . A G . . . GT 0/2\n", HEADER, 11, "found GT '0/2' and 1 ALT"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_refused(tmp_path: Path, case: str) -> None:
    records, header, line, found = BAD[case]
    path = write(tmp_path / "a.vcf", records, header)
    with pytest.raises(InputError) as error:
        list(calls_of(path))
    assert str(error.value).startswith(f"{path}:{line}: {found}")


def test_a_file_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    whole = gzip.compress((HEADER + RECORDS.replace(" ", "\t")).encode())
    path = tmp_path / "a.vcf.gz"
    path.write_bytes(whole[:-20])
    with pytest.raises(InputError, match="expected a whole file"):
        list(calls_of(str(path)))
