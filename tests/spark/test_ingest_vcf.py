"""VCFs through the command line: contents, repeats, replacement, quarantine and refusals."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from pyspark.sql import Row
from pyspark.sql import functions as F

from genodl_spark import genotypes
from genodl_spark.lake import Lake
from genodl_spark.tables import QUARANTINE, SAMPLE_SETS, SAMPLES, SOURCES, VARIANTS
from jobs import ingest

HEAD = '##fileformat=VCFv4.2\n##FORMAT=<ID=GT,Number=1,Type=String,Description="G">\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\ts1\ts2\n'


def write(path: Path, *records: str, head: str = HEAD) -> str:
    path.write_text(head + "".join("\t".join(r.split(" ")) + "\n" for r in records))
    return str(path)


def stored(lake: Lake) -> dict[tuple[str, str, int], list[str] | None]:
    rows = lake.read(VARIANTS).where(F.col("cohort") == "c'1").collect()
    return {(r.file, r.chrom, r.pos): None if r.gt is None else calls(r) for r in rows}


def calls(row: Row) -> list[str]:
    return genotypes.sample_text(bytes(row.gt), None, row.n_samples, False).decode().split("\t")


def test_a_cohort_of_vcfs(genodl, lake: Lake, tmp_path: Path) -> None:
    common = ("--lake", lake.uri, "--cohort", "c'1")
    names = ["HLA-A*01:01", "chr1/x", "<c>", "a%2Fb=c"]
    contigs = HEAD.replace("#CHROM", "##contig=<ID=HLA-A*01:01>\n#CHROM")
    one = write(tmp_path / "o'ne.vcf", *(f"{n} 5 . A T . . . GT 0|1 1|." for n in names), "1 6 . A T . . . GT 0|7 0|0", head=contigs)
    two = tmp_path / "two.vcf.gz"
    two.write_bytes(gzip.compress((HEAD + "2\t7\trs9\tA\tT,C\t.\tPASS\tX=1\tGT:DP\t0/2:3\t1:4\n").replace("\ts1\ts2", "\ts2\ts3").encode()))
    write(tmp_path / "bad.vcf", "1 x . A T . . . GT 0|1 0|0")
    (tmp_path / "two.vcf.gz.tbi").write_bytes(b"an index is no VCF")
    table = tmp_path / "s.tsv"
    table.write_text("sample_id\tlabel\ns1\tx\ns2\ty\ns3\tz\n")

    code, report, _ = genodl(ingest, "vcf", str(tmp_path), "--samples", str(table), *common)
    assert (code, report["status"]) == (0, "done")
    assert report["rows"]["variants"] == {"written": 5, "total": 5, "quarantined": 2}
    assert report["warnings"] == [
        "1 of 1 records of bad.vcf are in quarantine, first line 4: found POS 'x'; expected a whole number, 0 or more",
        "1 of 5 records of o'ne.vcf are in quarantine, first line 9: found allele 7 in GT; expected at most 1, the number of ALT alleles",
    ]
    expected = {("o'ne.vcf", n, 5): ["0|1", "1|."] for n in names} | {("two.vcf.gz", "2", 7): ["0/2", "1"]}
    assert stored(lake) == expected
    _, quarantined = lake.read(QUARANTINE).orderBy("file").collect()
    assert (quarantined.cohort, quarantined.source, quarantined.file, quarantined.line) == ("c'1", "vcf", "o'ne.vcf", 9)
    assert quarantined.text == "1\t6\t.\tA\tT\t.\t.\t.\tGT\t0|7\t0|0"
    sets: dict[str, list[str]] = {}
    for row in lake.read(SAMPLE_SETS).orderBy("sample_set", "position").collect():
        sets.setdefault(row.sample_set, []).append(row.sample_id)
    assert {r.file: sets[r.sample_set] for r in lake.read(VARIANTS).collect()} == {"o'ne.vcf": ["s1", "s2"], "two.vcf.gz": ["s2", "s3"]}
    assert {r.sample_id: r.label for r in lake.read(SAMPLES).collect()} == {"s1": "x", "s2": "y", "s3": "z"}
    manifest = {r.file: r for r in lake.read(SOURCES).where("source = 'vcf'").collect()}
    assert (manifest["o'ne.vcf"].records, manifest["o'ne.vcf"].quarantined, manifest["o'ne.vcf"].header) == (4, 1, contigs.rstrip("\n"))

    versions = report["tables"]["written"]
    code, report, _ = genodl(ingest, "vcf", str(tmp_path), "--samples", str(table), *common)
    assert (code, report["status"], report["tables"]["written"]["variants"]) == (0, "unchanged", versions["variants"])
    assert report["rows"]["variants"] == {"written": 0, "total": 5, "quarantined": 0}

    # Sent again with other content, and a run that died before its manifest: both replace what the file brought.
    write(Path(one), "1 6 . A T . . . GT 0|1 0|0", "3 8 . A T . . . GT 1|1 0|0")
    lake.delete(SOURCES, {"file": "two.vcf.gz"})
    code, report, _ = genodl(ingest, "vcf", one, str(two), *common)
    assert (code, report["rows"]["variants"]) == (0, {"written": 3, "total": 3, "quarantined": 0})
    expected = {("o'ne.vcf", "1", 6): ["0|1", "0|0"], ("o'ne.vcf", "3", 8): ["1|1", "0|0"], ("two.vcf.gz", "2", 7): ["0/2", "1"]}
    assert stored(lake) == expected
    assert [r.file for r in lake.read(QUARANTINE).collect()] == ["bad.vcf"]


@pytest.mark.parametrize("case", ["absent", "cut off", "no header", "sample lacking", "two builds"])
def test_bad_input_is_one_line_and_leaves_nothing(genodl, lake: Lake, tmp_path: Path, case: str) -> None:
    fine = write(tmp_path / "fine.vcf", "1 6 . A T . . . GT 0|1 0|0")
    path, more = tmp_path / "v.vcf.gz", []
    whole = gzip.compress((HEAD + "".join(f"1\t{i}\t.\tA\tT\t.\t.\t.\tGT\t0|1\t0|0\n" for i in range(200_000))).encode(), 1)
    if case == "cut off":
        path.write_bytes(whole[:-5000])
    elif case == "no header":
        path.write_bytes(gzip.compress(b"1\t5\t.\tA\tT\n"))
    elif case == "two builds":
        write(tmp_path / "fine.vcf", "20 6 . A T . . . GT 0|1 0|0", head=HEAD.replace("#CHROM", "##contig=<ID=20,length=63025520>\n#CHROM"))
        path.write_bytes(gzip.compress(HEAD.replace("#CHROM", "##contig=<ID=chr20,length=64444167>\n#CHROM").encode()))
    elif case == "sample lacking":
        path.write_bytes(whole)
        (tmp_path / "s.tsv").write_text("sample_id\ns1\n")
        more = ["--samples", str(tmp_path / "s.tsv")]
    found = {
        "absent": "no such file",
        "cut off": "cut off after line",
        "no header": "v.vcf.gz:1: found",
        "sample lacking": "no row for 1 of 2 samples",
        "two builds": "found the contig lengths of GRCh38, where fine.vcf of cohort c has those of GRCh37",
    }
    code, report, line = genodl(ingest, "vcf", fine, str(path), "--lake", lake.uri, "--cohort", "c", *more)
    assert (code, report["status"]) == (2, "failed")
    assert line.startswith("genodl: error: ")
    assert found[case] in line
    assert not any(lake.exists(table) for table in (VARIANTS, QUARANTINE, SAMPLES, SAMPLE_SETS, SOURCES))
