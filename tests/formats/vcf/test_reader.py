"""VCF reading against cyvcf2, against the text itself, and against the conformance files of hts-specs."""

from __future__ import annotations

import gzip
import io
import os
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genodl_spark.core.errors import InputError
from genodl_spark.formats import bgzf, streams
from genodl_spark.formats.streams import line_blocks
from genodl_spark.formats.vcf import reader as vcf
from genodl_spark.formats.vcf.header import read_header
from genodl_spark.formats.vcf.normalise import Normaliser
from genodl_spark.genetics import genotypes
from genodl_spark.genome.reference import Reference

SHARED = Path(os.environ.get("GENODL_SHARED_DATA", Path(__file__).resolve().parents[4] / "shared" / "data"))
CONFORMANCE = SHARED / "vcf_conformance_htsspecs"
HEAD = """##fileformat=VCFv4.{minor}
##INFO=<ID=MY,Number=1,Type=Integer,Description="One">
##INFO=<ID=PER,Number=A,Type=Float,Description="One per ALT">
##FORMAT=<ID=GT,Number=1,Type=String,Description="Genotype">
##FORMAT=<ID=AD,Number=R,Type=Integer,Description="Depths">
##contig=<ID=HLA-A*01:01>
#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO"""


def content(*records: str, samples: str = "s1 s2", minor: int = 2, head: str = HEAD) -> bytes:
    columns = "".join(f"\t{s}" for s in ["FORMAT", *samples.split()]) if samples else ""
    return (
        head.format(minor=minor) + columns + "\n" + "".join("\t".join(r.split(" ")) + "\n" for r in records)
    ).encode()


def read(text: bytes, batch: int = 1000) -> tuple[list[dict], list[dict]]:
    good, bad = [], []
    for rows, set_aside in vcf.read(io.BytesIO(text), "v.vcf", "c", "v.vcf", batch):
        assert (rows.schema, set_aside.schema) == (vcf.VARIANTS_SCHEMA, vcf.QUARANTINE_SCHEMA)
        good += rows.to_pylist()
        bad += set_aside.to_pylist()
    return good, bad


def calls(row: dict, minor: int = 2) -> list[str]:
    return genotypes.sample_text(row["gt"], None, row["n_samples"], minor >= 4).decode().split("\t")


def line_of(row: dict, minor: int = 2) -> str:
    """The record's text again, QUAL left out."""
    fixed = [row["chrom"], str(row["pos"]), row["id"] or ".", row["ref"], ",".join(row["alts"]) or "."]
    fixed += [";".join(row["filters"]) if row["filters"] else ".", row["info"]]
    fields = row["fields"].decode().split("\t") if row["fields"] is not None else []
    if row["gt"] is not None:
        gt = calls(row, minor)
        fields = [g + (f":{f}" if f else "") for g, f in zip(gt, fields or [""] * len(gt), strict=True)]
    return "\t".join(fixed + ([row["format"], *fields] if row["format"] else []))


def without_quality(line: str) -> str:
    columns = line.split("\t")
    return "\t".join(columns[:5] + columns[6:])


def data(*parts: str) -> Path:
    path = SHARED.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"{path} is not on this machine")
    return path


@pytest.mark.parametrize(
    "file",
    [
        "vcf_ceu_exon_seqarray/CEU_Exon.vcf.gz",
        "vcf_hail_sample/sample.vcf.gz",
        "vcf_hail_sample/sample2.vcf.gz",
        "vcf_1000g_chr22_variantspark/chr22_1000.vcf.gz",
        "gvcf_1kg_chr22_hail/HG00187.hg38.g.vcf.gz",
        "gvcf_bio2zarr/1kg_2020_chrM.vcf.gz",
        "gvcf_bio2zarr/CEUTrio.20.21.gatk3.4.g.vcf.bgz",
        "vc_na12878_chr20/truth.vcf.gz",
    ],
)
def test_real_files_agree_with_cyvcf2_and_with_their_text(file: str) -> None:
    cyvcf2 = pytest.importorskip("cyvcf2")
    path = data(*file.split("/"))
    text = gzip.decompress(path.read_bytes()).decode()
    good, bad = read(path.read_bytes(), 500)
    assert bad == []
    oracle = cyvcf2.VCF(str(path))
    lines = text.rstrip("\n").split("\n")
    header, _ = read_header(line_blocks(io.BytesIO(text.encode()), "x"), "x")
    assert header.samples == oracle.samples
    assert header.text == "\n".join(lines[: header.lines])
    assert len(good) == len(lines) - header.lines
    step = max(1, len(good) * (len(header.samples) + 20) // 100_000)  # the oracle is the slow part
    for count, (row, expected) in enumerate(zip(good, oracle, strict=True)):
        if count % step:
            continue
        assert (row["chrom"], row["pos"], row["end"], row["id"]) == (
            expected.CHROM,
            expected.POS,
            expected.end,
            expected.ID,
        )
        assert (row["ref"], row["alts"]) == (expected.REF, expected.ALT)
        assert (row["qual"] is None) == (expected.QUAL is None)
        assert row["qual"] is None or row["qual"] == pytest.approx(expected.QUAL, rel=1e-6)
        assert (row["filters"] or []) == (expected.FILTERS if row["filters"] else [])
        assert without_quality(lines[row["line"] - 1].rstrip("\t")) == line_of(row)
        if expected.genotype is not None and row["gt"] is not None:
            array = expected.genotype.array()
            alleles, phased = genotypes.unpack(pa.array([row["gt"]], pa.binary()), row["n_samples"])
            np.testing.assert_array_equal(alleles[0], array[:, :-1])
            if alleles.shape[2] == 2:
                np.testing.assert_array_equal(phased[0, :, 1], array[:, -1] == 1)


# What is let through, and why. Rows of the table stand alone, so that a variant given twice stays twice (4.3 onwards
# permits it); the SAMPLE line of 4.2 asks for Genomes, which the VCFs of TCGA and GDC lack.
LET_THROUGH = {
    f"{version}/failed_{name}.vcf"
    for version in ("4.1", "4.2")
    for name in ("body_duplicated_000", "body_duplicated_001", "body_duplicated_003", "meta_sample_000")
}


def test_conformance_files_of_hts_specs() -> None:
    data("vcf_conformance_htsspecs")
    wrong, through, failed = [], set(), 0
    for path in sorted(CONFORMANCE.glob("*/*/*.vcf")):
        try:
            _, bad = read(path.read_bytes())
            refused = bool(bad)
            assert all(row["line"] > 0 and row["reason"] for row in bad)
        except InputError as error:
            refused = error.line is not None and error.file is not None
        if path.parent.name == "passed" and refused:
            wrong.append(path.name)
        if path.parent.name == "failed":
            failed += 1
            through |= set() if refused else {f"{path.parts[-3]}/{path.name}"}
    assert wrong == []
    assert through == LET_THROUGH
    assert failed == 383
    assert 1 - len(through) / failed > 0.97


def test_a_record_of_every_shape() -> None:
    good, bad = read(
        content(
            "1 10 rs1;rs2 A C,G 29.5 PASS MY=1;PER=0.1,2e-3 GT:AD 0/1:1,2,3 ./.",
            "HLA-A*01:01 11 . AT <DEL>,* . . . GT 1|2 0",
            "<ctg> 0 . N .[13:123[ Inf q10;s5 MY=. GT .|1|0 1",
            "chr1/x 12 x C . 0 . DB;END=40 AD 1 2,3",
        )
    )
    assert bad == []
    assert [(r["contig"], r["pos"], r["end"], r["line"]) for r in good] == [
        ("1", 10, 10, 8),
        ("HLA-A*01:01", 11, 12, 9),
        ("<ctg>", 0, 0, 10),
        ("chr1/x", 12, 40, 11),
    ]
    assert [r["id"] for r in good] == ["rs1;rs2", None, None, "x"]
    assert [r["alts"] for r in good] == [["C", "G"], ["<DEL>", "*"], [".[13:123["], []]
    assert [r["qual"] for r in good] == [29.5, None, np.inf, 0]
    assert [r["filters"] for r in good] == [["PASS"], None, ["q10", "s5"], None]
    assert [calls(r) for r in good[:3]] == [["0/1", "./."], ["1|2", "0"], [".|1|0", "1"]]
    assert [r["fields"] for r in good] == [b"1,2,3\t", None, None, b"1\t2,3"]
    assert {(r["n_samples"], r["cohort"], r["file"]) for r in good} == {(2, "c", "v.vcf")}
    assert len({r["sample_set"] for r in good}) == 1


def test_sites_without_samples_and_wide_alleles() -> None:
    good, bad = read(content("1 5 . A T 1 . .", samples=""))
    assert (bad, good[0]["gt"], good[0]["format"], good[0]["n_samples"]) == ([], None, None, 0)
    assert read(content("1 5 . A T 1 .", samples="")) == (good, bad)  # INFO left out
    alts = ",".join("A" * n for n in range(2, 102))
    good, bad = read(
        content(
            f"1 5 . A {alts} . . . GT 62/0 0/62",
            f"1 6 . A {alts} . . . GT 100|63 0/.",
            f"1 7 . A {alts} . . . GT 101/0 0/0",
        )
    )
    assert [(r["gt"][2], calls(r)) for r in good] == [(1, ["62/0", "0/62"]), (2, ["100|63", "0/."])]
    assert [(r["line"], r["reason"]) for r in bad] == [
        (10, "found allele 101 in GT; expected at most 100, the number of ALT alleles")
    ]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ("1 5 . A T . . . GT 0/1", "found 10 columns; expected 11"),
        ("1 5 . A T . . . GT 0/1 0/1 0/1", "found 12 columns"),
        ("1", "found 1 columns"),
        ("1 -5 . A T . . . GT 0/1 0/1", "POS '-5'"),
        ("1 5x . A T . . . GT 0/1 0/1", "POS '5x'"),
        ("1 5 . R T . . . GT 0/1 0/1", "REF 'R'"),
        ("1 5 . A T, . . . GT 0/1 0/1", "ALT ''"),
        ("1 5 . A T -1 . . GT 0/1 0/1", "QUAL '-1'"),
        ("1 5 . A T 1_0 . . GT 0/1 0/1", "QUAL '1_0'"),
        ("1 5 . A T . . MY=1.5 GT 0/1 0/1", "MY=1.5"),
        ("1 5 . A T . . PER=1,2 GT 0/1 0/1", "found 2 values in INFO"),
        ("1 5 . A T . . MY GT 0/1 0/1", "MY without a value"),
        ("1 5 . A T . . DP=abc GT 0/1 0/1", "DP=abc"),
        ("1 5 . A T . . . GT 0/2 0/1", "found allele 2 in GT; expected at most 1"),
        ("1 5 . A T . . . GT 0//1 0/1", "malformed GT"),
        ("1 5 . A T . . . GT |0 0/1", "malformed GT"),
        ("1 5 . A T . . . GT:AD 0/1:1,2:3 0/1", "found 3 subfields"),
        ("1 5 . A T . . . GT:AD 0/1 0/1:1,x", "found a AD that is no Integer, sample s2"),
        ("1 5 . A T . . . GT:AD 0/1 0/1:1", "wrong number of values in AD (Number=R), sample s2"),
        ("1 5 . A T . . . AD:GT 1,2:0/1 1,2:0/1", "found GT after another"),
        ("__HIVE_DEFAULT_PARTITION__ 5 . A T . . . GT 0/1 0/1", "stands for NULL"),
        (f"{'x' * 300} 5 . A T . . . GT 0/1 0/1", "CHROM of 300 characters"),
        ("#1 5 . A T . . . GT 0/1 0/1", "a line of a header among the records"),
        ("##source=joined", "a line of a header among the records"),
        ("1 2147483648 . A T . . . GT 0/1 0/1", "POS 2147483648; expected at most 2,147,483,647"),
        ("1 999999999999999999 . A T . . . GT 0/1 0/1", "POS 999999999999999999; expected at most"),
        (f"1 {'9' * 5000} . A T . . . GT 0/1 0/1", "expected at most 2,147,483,647"),
        ("1 2147483647 . AC T . . . GT 0/1 0/1", "ends at 2147483648"),
        ("1 5 . A T . . END=999999999999999999 GT 0/1 0/1", "ends at 999999999999999999"),
        ("1 5 . A <DEL> . . SVLEN=-2147483647 GT 0/1 0/1", "ends at 2147483652"),
        ("1 5 . A T 1e400 . . GT 0/1 0/1", "QUAL '1e400'; expected . or a number, 0 or more, below 1.8e308"),
        (f"1 5 . A T {'9' * 400} . . GT 0/1 0/1", "below 1.8e308"),
        (f"1 5 . A <DEL> . . END={'9' * 5000} GT 0/1 0/1", "ends at 1000000000000000000"),
        (f"1 5 . A <DEL> . . SVLEN=-{'9' * 20} GT 0/1 0/1", "ends at 1000000000000000005"),
        ("1 5 a\0b A T . . . GT 0/1 0/1", r"control character \x00"),
        ("1 5 . A T . . X=a\0b GT 0/1 0/1", r"control character \x00"),
        ("1 5 . A T . . X=a\x1b[2J GT 0/1 0/1", r"control character \x1b"),
        ("1 5 . A T . . MY=1;X=a\rb GT 0/1 0/1", r"control character \r"),
        ("1 5 . A T . . AA=a\0b GT 0/1 0/1", r"control character \x00"),
        ("1 5 . A T . . . GT:XX 0/1:a\0b 0/1:c", r"control character \x00"),
        ("<a\0b> 5 . A T . . . GT 0/1 0/1", r"control character \x00"),
    ],
)
def test_a_bad_record_is_set_aside_and_its_neighbours_kept(record: str, reason: str) -> None:
    fine = "1 4 . A T . . . GT:AD 0|1:3,4 1|1"
    good, bad = read(content(fine, record, fine))
    assert [r["line"] for r in good] == [8, 10]
    assert [calls(r) for r in good] == [["0|1", "1|1"]] * 2
    assert [(r["line"], r["file"], r["source"], r["cohort"], r["text"]) for r in bad] == [
        (9, "v.vcf", "vcf", "c", record.replace(" ", "\t")[:4096])
    ]
    assert reason in bad[0]["reason"]


def test_qualities_at_the_limits_of_floats() -> None:
    texts = ["nan", "inf", "Infinity", "1e308", "1.7976931348623157e+308", "1e-400", "4E38", "9" * 60, ".5", "5."]
    good, bad = read(content(*(f"1 5 . A T {text} . ." for text in [*texts, "."]), samples=""))
    assert bad == []
    np.testing.assert_array_equal([r["qual"] for r in good[:-1]], list(map(float, texts)))
    assert good[-1]["qual"] is None


def test_formats_cost_by_their_number(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = 0
    kind = vcf.Reader._kind

    def counting(self: vcf.Reader, *rest: object) -> tuple[int, int]:
        nonlocal seen
        seen += 1
        return kind(self, *rest)

    monkeypatch.setattr(vcf.Reader, "_kind", counting)
    good, bad = read(content(*(f"1 5 . A T . . . GT:K{i % 300} 0/1:{i}" for i in range(600)), samples="a"), 40)
    assert (bad, seen) == ([], 600)
    assert [(r["format"], r["fields"]) for r in good] == [(f"GT:K{i % 300}", b"%d" % i) for i in range(600)]


def test_a_header_that_stands_again_is_passed_over_and_another_one_ends_the_file() -> None:
    record = "1 4 . A T . . . GT 0|1 1|1"
    whole = content(record)
    lines = whole.decode().splitlines()
    noted: list[tuple[int, str]] = []

    def rows(text: bytes) -> tuple[list[dict], list[dict]]:
        header, blocks = read_header(line_blocks(io.BytesIO(text), "v.vcf"), "v.vcf")
        reader = vcf.Reader(header, "c", "v.vcf", note=lambda line, what: noted.append((line, what)))
        found = [pair for number, block in blocks for pair in reader.batches(number, block, 3)]
        return [r for good, _ in found for r in good.to_pylist()], [r for _, bad in found for r in bad.to_pylist()]

    good, bad = rows(whole + whole)
    assert ([r["line"] for r in good], bad) == ([8, 16], [])
    assert noted == [(line, "are passed over, as they repeat a line of its header") for line in range(9, 16)]
    # Another file's meta lines say something else of what is below them; the calls are still those of the same people.
    _, bad = rows(whole + whole.replace(b"Depths", b"depths"))
    assert [(r["line"], r["text"]) for r in bad] == [(13, lines[4].replace("Depths", "depths"))]
    for columns in ("#CHROM POS ID REF ALT QUAL FILTER INFO FORMAT s2 s1", "#CHROM POS",
                    "CHROM POS ID REF ALT QUAL FILTER INFO FORMAT s1 s2",
                    "#chrom pos id ref alt qual filter info format s2 s1",
                    "#CHROM 5 . A T . . . GT 0/1 0/1"):  # fmt: skip
        with pytest.raises(InputError, match="another #CHROM line than the header's") as caught:
            rows(whole + ("\t".join(columns.split(" ")) + "\n").encode() + whole)
        assert (caught.value.file, caught.value.line) == ("v.vcf", 9)


@pytest.mark.parametrize(
    ("minor", "meta", "line_aside", "record", "fits"),
    [
        # A record holds by what its own header says of the key, or by what the specification does.
        (2, '##INFO=<ID=AC,Number=1,Type=Integer,Description="a">', True, "1 5 . A T . . AC=1", True),
        (2, '##INFO=<ID=AC,Number=1,Type=Integer,Description="a">', True, "1 5 . A T,G . . AC=1", True),
        (2, '##INFO=<ID=AC,Number=1,Type=Integer,Description="a">', True, "1 5 . A T,G . . AC=1,2", True),
        (2, '##INFO=<ID=AC,Number=1,Type=Integer,Description="a">', True, "1 5 . A T,G . . AC=1,2,3", False),
        (2, '##INFO=<ID=AC,Number=1,Type=Integer,Description="a">', True, "1 5 . A T . . AC=-1", False),
        (2, '##INFO=<ID=AF,Number=.,Type=String,Description="a">', True, "1 5 . A T . . AF=common", True),
        (2, '##INFO=<ID=DB,Number=1,Type=Integer,Description="a">', True, "1 5 . A T . . DB", True),
        (2, '##INFO=<ID=DB,Number=1,Type=Integer,Description="a">', True, "1 5 . A T . . DB=x", False),
        (
            2,
            '##FORMAT=<ID=GP,Number=3,Type=Float,Description="g">',
            True,
            "1 5 . A T . . . GT:GP 0/1:0,1,0 0:1,0,0",
            True,
        ),
        (
            2,
            '##FORMAT=<ID=GP,Number=3,Type=Float,Description="g">',
            True,
            "1 5 . A T,G . . . GT:GP 0/1:0,1,0,0,0,0 0/1:1,0,0",
            True,
        ),
        (
            2,
            '##FORMAT=<ID=GP,Number=3,Type=Float,Description="g">',
            True,
            "1 5 . A T,G . . . GT:GP 0/1:0,1 0/1:1,0,0",
            False,
        ),
        (2, '##FORMAT=<ID=DP,Number=1,Type=String,Description="d">', True, "1 5 . A T . . . GT:DP 0/1:low 0/1:7", True),
        # A line that cannot be read says nothing of its key.
        (2, "##INFO=<ID=R2,Number=1,Type=Float,Description=no quotes, but commas>", True, "1 5 . A T . . R2=0.9", True),
        (2, '##INFO=<ID=AC,Number=x,Type=Integer,Description="a">', True, "1 5 . A T,G . . AC=1", False),
        (2, '##INFO=<ID=AC,Number=99999999999,Type=Integer,Description="a">', True, "1 5 . A T . . AC=1", True),
        (2, "##INFO=<ID=QD,Number=1,Type=Float>", True, "1 5 . A T . . QD=x", False),
        (2, '##INFO=<ID=N\0D,Number=1,Type=Float,Description="n">', True, "1 5 . A T . . .", True),
        (2, "##comment of no key", True, "1 5 . A T . . .", True),
        (2, "# comment", True, "1 5 . A T . . .", True),
        (2, "", True, "1 5 . A T . . .", True),
        (2, '##ALT=<ID=*:DEL,Description="Spanned by a deletion">', True, "1 5 . A <*:DEL> . . .", True),
        (3, '##ALT=<ID=*:DEL,Description="Spanned by a deletion">', False, "1 5 . A <*:DEL> . . .", True),
        (2, '##SAMPLE=<ID=s1,Genomes="a;b",Mixture=".1;.9">', True, "1 5 . A T . . .", True),
        (3, '##SAMPLE=<ID=s1,Assay="Whole, genome",Mixture="x">', False, "1 5 . A T . . .", True),
    ],
)
def test_a_header_line_that_no_record_needs_is_set_aside(
    minor: int, meta: str, line_aside: bool, record: str, fits: bool
) -> None:
    text = content(record, samples="s1 s2" if record.count(" ") > 7 else "", minor=minor)
    text = text.replace(b"##INFO=<ID=MY", meta.encode() + b"\n##INFO=<ID=MY", 1)
    good, bad = read(text)
    assert [(r["line"], r["text"]) for r in bad if r["line"] == 2] == [(2, meta)] * line_aside
    assert [r["line"] for r in bad if r["line"] != 2] == [9] * (not fits)
    assert [r["line"] for r in good] == [9] * fits
    assert all(r["reason"] for r in bad)
    if line_aside:
        with pytest.raises(InputError) as caught:
            read_header(line_blocks(io.BytesIO(text), "v.vcf"), "v.vcf", strict=True)
        assert (caught.value.file, caught.value.line) == ("v.vcf", 2)
    header, _ = read_header(line_blocks(io.BytesIO(text), "v.vcf"), "v.vcf")
    assert (
        header.lines == 8
        and ("\0" not in header.text)
        and all(line.startswith("#") and line[:2] != "# " for line in header.text.split("\n"))
    )


@pytest.mark.parametrize("minor", range(6))
def test_a_format_column_without_samples_is_one_of_sites(minor: int) -> None:
    head = HEAD + "\tFORMAT"
    good, bad = read(
        content("1 5 . A T . . .", "1 6 . A T . . . GT", "1 7 . A T . . . GT 0/1", samples="", minor=minor, head=head)
    )
    assert [(r["pos"], r["n_samples"], r["format"], r["gt"]) for r in good] == [(5, 0, None, None), (6, 0, "GT", None)]
    assert [(r["line"], r["reason"]) for r in bad] == [
        *[(7, "found a FORMAT column and no sample; expected samples after it, or no such column")] * (minor < 3),
        (10, "found 10 columns; expected 9, as many as the #CHROM line has"),
    ]


@pytest.mark.parametrize(
    ("minor", "record", "end"),
    [
        (2, "1 100 . ACG A . . .", 102),
        (2, "1 100 . A <NON_REF> . . END=150", 150),
        (2, "1 100 . A <DEL> . . SVLEN=-50", 150),
        (2, "1 100 . A <DEL> . . SVLEN=-50;END=140", 140),
        (2, "1 100 . A <INS> . . SVLEN=50", 100),
        (2, "1 100 . A <TRA> . . SVTYPE=TRA;END=900", 100),
        (2, "1 100 . A T . . END=7", 100),
        (4, "1 100 . A <DUP:TANDEM>,<DEL>,T . . SVLEN=20,30,.", 130),
        (5, "1 100 . A <DEL> . . SVLEN=50;END=140", 150),
        (5, "1 100 . A <DEL> . . SVLEN=30;END=140", 140),
    ],
)
def test_the_end_of_a_record(minor: int, record: str, end: int) -> None:
    good, bad = read(content(record, samples="", minor=minor))
    assert (bad, [r["end"] for r in good]) == ([], [end])


def test_the_longest_block_of_vcf_4_5_is_the_end() -> None:
    head = HEAD.replace("##contig", '##FORMAT=<ID=LEN,Number=1,Type=Integer,Description="Length">\n##contig')
    good, _ = read(
        content("1 100 . A <*> . . . GT:LEN 0/0:20 0/0:70", "1 100 . A T . . . GT:LEN 0/0:20 0/0:.", minor=5, head=head)
    )
    assert [r["end"] for r in good] == [169, 100]


def test_phase_of_the_first_allele_is_kept_from_4_4_on() -> None:
    record = "1 5 . A T . . . GT /0|1 |0/1 0|1 0/1"
    good, bad = read(content(record, samples="a b c d", minor=4))
    assert (bad, calls(good[0], 4)) == ([], ["/0|1", "|0/1", "0|1", "0/1"])
    good, bad = read(content(record, samples="a b c d", minor=3))
    assert (good, len(bad)) == ([], 1)


@pytest.mark.parametrize(
    ("text", "line", "found"),
    [
        (b"", 1, "an empty file"),
        (b"gene\ts1\nA\t1\n", 1, "no VCF header"),
        (b"BCF\2\2", 1, "bcftools view"),
        (b"##fileformat=VCFv3.3\n#CHROM\n", 1, "VCFv4.1 to VCFv4.5"),
        (b"##fileformat=VCFv4.2\n##x=y\n", 2, "ends before its #CHROM line"),
        (b"##fileformat=VCFv4.2\n1\t5\t.\tA\tT\n", 2, "expected lines with ## up to the #CHROM line"),
        (b"\x00\x01\x02VCF", 1, "binary data"),
        (content(samples="s1 s\xff").replace(b"\xc3\xbf", b"\xff"), 7, "not UTF-8"),
        (content(samples="s1 s\0b"), 7, r"control character \x00"),
        (content("", samples="").replace(b"\tINFO\n", b"\tINF\n"), 7, "found 'INF' in the #CHROM line"),
        (content(samples="s1 s2 s1"), 7, "sample s1 stands twice"),
        (content(samples="s1 s2").replace(b"\ts2", b"\t"), 7, "without a name"),
        (content(samples="").replace(b"\t", b" "), 7, "tab separated"),
    ],
)
def test_header_errors_name_the_line(text: bytes, line: int, found: str) -> None:
    with pytest.raises(InputError) as caught:
        read(text)
    assert (caught.value.file, caught.value.line) == ("v.vcf", line)
    assert found in str(caught.value)


def test_header_alone_blank_lines_and_windows_text() -> None:
    assert read(content()) == ([], [])
    text = content("1 5 . A T . . . GT 0/1 0|1", "", "1 6 . A T . . . GT 1 .", "")
    expected = read(text)
    assert [r["line"] for r in expected[0]] == [8, 10]
    assert read(text.replace(b"\n", b"\r\n")) == expected
    assert read(b"\xef\xbb\xbf" + text.rstrip(b"\n")) == expected
    assert read(gzip.compress(text)) == expected


@pytest.mark.parametrize("kind", ["bgzip", "plain", "gzip"])
def test_pieces_of_a_file_hold_its_records_once(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vcf, "_BLOCK", 3000)
    text = content(
        *(f"1 {i} . A T . . MY={i} GT:AD 0|1:{'9' * (i % 37)}1,2 1/1:.,." for i in range(600)),
        *["1 x . A T . . . GT 0|1 0|1"] * 2,
    )
    path = tmp_path / "v.vcf.gz"
    with path.open("wb") as sink:
        if kind == "bgzip":
            monkeypatch.setattr(bgzf, "BLOCK", 500)
            writer = bgzf.Writer(sink)
            writer.write(text)
            writer.close()
        else:
            sink.write(gzip.compress(text) if kind == "gzip" else text)
    header = vcf.header_of(str(path))
    expected = read(text)
    assert (len(expected[0]), len(expected[1])) == (600, 2)
    for target in (1 << 30, 1 << 12, 300, 40):
        splits = vcf.splits(str(path), target)
        assert (len(splits) > 10) == (kind != "gzip" and target < 1000)
        good, bad, first = [], [], 1
        for split in splits:
            for number, block in vcf.split_lines(str(path), split, first, header):
                for rows, refused in vcf.Reader(header, "c", "v.vcf").batches(number, block, 1000):
                    good += rows.to_pylist()
                    bad += refused.to_pylist()
            first += streams.count_lines(str(path), split)
        assert (good, bad) == expected


def test_records_are_normalised_with_their_source_beside_them(tmp_path: Path) -> None:
    fasta = tmp_path / "r.fa"
    fasta.write_text(">chr1\nTTGCACACACATTT\n")
    text = content(
        "1 9 . ACA A,ACACA . . MY=7;PER=0.1,0.2 GT:AD 1|2:3,4,5 0/1:6,7,8",
        "1 3 . G T . . . GT 0|1 0|1",
        "1 4 . G T . . . GT 0|1 0|1",
        "1 3 . G T -1 . . GT 0|1 0|1",
    )
    header, blocks = read_header(line_blocks(io.BytesIO(text), "x"), "x")
    reader = vcf.Reader(header, "c", "v.vcf", normaliser=Normaliser(header, True, Reference(str(fasta))))
    [(number, block)] = list(blocks)
    [(rows, refused)] = list(reader.batches(number, block, 100))
    good = rows.to_pylist()
    assert [(r["line"], r["alt_number"], r["pos"], r["ref"], r["alts"], r["info"], calls(r)) for r in good] == [
        (8, 1, 3, "GCA", ["G"], "MY=7;PER=0.1", ["1|0", "0/1"]),
        (8, 2, 3, "G", ["GCA"], "MY=7;PER=0.2", ["0|1", "0/0"]),
        (9, 0, 3, "G", ["T"], ".", ["0|1", "0|1"]),
    ]
    assert [(r["source_pos"], r["source_ref"], r["source_alts"], r["fields"]) for r in good] == [
        (9, "ACA", "A,ACACA", b"3,4\t6,7"),
        (9, "ACA", "A,ACACA", b"3,5\t6,8"),
        (None, None, None, None),
    ]
    assert [(r["line"], r["reason"]) for r in refused.to_pylist()] == [
        (10, "found REF 'G'; expected 'C', as the reference has it"),
        (11, "found QUAL '-1'; expected . or a number, 0 or more, below 1.8e308"),
    ]


def test_values_that_hold_by_the_reservation_alone_are_divided_by_it() -> None:
    head = HEAD.replace(
        "##contig",
        '##INFO=<ID=AC,Number=1,Type=Integer,Description="a">\n'
        '##FORMAT=<ID=GP,Number=3,Type=Float,Description="g">\n##contig',
    )
    text = content(
        "1 9 . A C,G . . AC=3,4 GT:GP 1|2:0,1,2,3,4,5 0/1:7,8,9", "1 9 . A C,G . . AC=3 GT:GP 1|2 0/1", head=head
    )
    header, blocks = read_header(line_blocks(io.BytesIO(text), "x"), "x")
    reader = vcf.Reader(header, "c", "v.vcf", normaliser=Normaliser(header, True, None))
    [(number, block)] = list(blocks)
    [(rows, refused)] = list(reader.batches(number, block, 100))
    assert [(r["line"], r["alt_number"], r["alts"], r["info"], r["fields"]) for r in rows.to_pylist()] == [
        (10, 1, ["C"], "AC=3", b"0,1,2\t7,8,9"),
        (10, 2, ["G"], "AC=4", b"0,3,5\t7,8,9"),
        (11, 1, ["C"], "AC=3", b".\t."),
        (11, 2, ["G"], "AC=3", b".\t."),
    ]
    assert refused.num_rows == 0


allele = st.sampled_from([".", "0", "1", "2"])
one_call = st.lists(allele, min_size=1, max_size=3).flatmap(
    lambda alleles: st.lists(st.sampled_from("/|"), min_size=len(alleles) - 1, max_size=len(alleles) - 1).map(
        lambda separators: alleles[0] + "".join(s + a for s, a in zip(separators, alleles[1:], strict=True))
    )
)
record_text = st.tuples(
    st.integers(0, 10**6),
    st.booleans(),
    st.lists(one_call, min_size=3, max_size=3),
    st.sampled_from(["MY=3", ".", "DB"]),
).map(
    lambda r: "\t".join(
        [
            "1",
            str(r[0]),
            ".",
            "A",
            "C,G",
            ".",
            "PASS",
            r[3],
            "GT:AD" if r[1] else "GT",
            *[c + ":1,2,3" * r[1] for c in r[2]],
        ]
    )
)


@settings(max_examples=40, deadline=None)
@given(st.lists(record_text, min_size=1, max_size=12), st.integers(1, 5), st.integers(1, 5))
def test_rows_hold_the_text_whatever_the_batch(records: list[str], batch: int, other: int) -> None:
    text = content(*(r.replace("\t", " ") for r in records), samples="a b c")
    good, bad = read(text, batch)
    assert bad == []
    assert [line_of(r) for r in good] == [without_quality(r) for r in records]
    assert (good, bad) == read(text, other)


def test_kernels_and_rules_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the compiled kernels take, the record rules read alike; and they do take it:
    nearly every record of real files."""
    taken = total = 0
    certain = vcf.Reader._certain

    def counting(
        self: vcf.Reader, number: int, text: np.ndarray, starts: np.ndarray, flags: np.ndarray
    ) -> pa.RecordBatch:
        nonlocal taken, total
        rows = certain(self, number, text, starts, flags)
        taken, total = taken + rows.num_rows, total + len(flags)
        return rows

    def none(self: vcf.Reader, number: int, text: np.ndarray, starts: np.ndarray, flags: np.ndarray) -> pa.RecordBatch:
        flags[flags == 0] = 1
        return certain(self, number, text, starts, flags)

    for path in [
        *(SHARED / "vcf_ceu_exon_seqarray").glob("*.vcf.gz"),
        *(SHARED / "vcf_hail_sample").glob("*.vcf.gz"),
        *(SHARED / "gvcf_bio2zarr").glob("*M.vcf.gz"),
        *(SHARED / "ref_grch38_chr20_21_10M").glob("*.vcf.gz"),
        data("gvcf_1kg_chr22_hail", "HG00187.hg38.g.vcf.gz"),
    ]:
        lines = gzip.decompress(path.read_bytes()).splitlines(keepends=True)
        first = next(i for i, line in enumerate(lines) if not line.startswith(b"#"))
        text = b"".join(lines[: first + 400])
        monkeypatch.setattr(vcf.Reader, "_certain", counting)
        fast = read(text)
        monkeypatch.setattr(vcf.Reader, "_certain", none)
        assert read(text) == fast
    assert taken > 0.98 * total > 1000


@settings(max_examples=150, deadline=None)
@given(record_text, st.integers(0, 200), st.binary(min_size=0, max_size=2))
def test_a_damaged_record_is_set_aside_or_read_as_it_stands(record: str, at: int, piece: bytes) -> None:
    damaged = record.encode()[: at % len(record)] + piece + record.encode()[at % len(record) + 1 :]
    if b"\n" in damaged or not damaged or damaged.endswith(b"\r"):
        return
    good, bad = read(content(samples="a b c") + damaged + b"\n")
    assert len(good) + len(bad) == 1
    header, _ = read_header(line_blocks(io.BytesIO(content(samples="a b c")), "x"), "x")
    rows, refused = vcf.Reader(header, "c", "v.vcf")._judged([(8, damaged)])
    assert good == vcf._batch(rows, vcf.VARIANTS_SCHEMA).to_pylist()
    assert [(b["line"], b["reason"]) for b in bad] == [(line, reason) for line, reason, _ in refused]
    if good:
        assert plain(line_of(good[0])) == plain(without_quality(damaged.decode()))


def plain(text: str) -> str:
    """Without what means nothing: zeros before a number, colons after the last subfield."""
    return re.sub(r":+(?=\t|$)", "", re.sub(r"(?<![0-9.])0+(?=[0-9])", "", text))
