"""VCFs through the command line: contents, repeats, replacement, quarantine and refusals."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pysam
import pytest
from pyspark.sql import Row
from pyspark.sql import functions as F

from genodl_spark.features.genotypes import GenotypeFeatures
from genodl_spark.genetics import genotypes
from genodl_spark.lake.delta import Lake
from genodl_spark.lake.snapshot import Snapshot
from genodl_spark.lake.tables.ingested import QUARANTINE, SAMPLE_SETS, SAMPLES, SOURCES, VARIANTS
from jobs import ingest

HEAD = (
    '##fileformat=VCFv4.2\n##FORMAT=<ID=GT,Number=1,Type=String,Description="G">\n'
    "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\ts1\ts2\n"
)


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
    tmp_path = tmp_path / "in"  # beside the lake
    tmp_path.mkdir()
    names = ["HLA-A*01:01", "chr1/x", "<c>", "a%2Fb=c"]
    contigs = HEAD.replace("#CHROM", "##contig=<ID=HLA-A*01:01>\n#CHROM")
    one = write(
        tmp_path / "o'ne.vcf",
        *(f"{n} 5 . A T . . . GT 0|1 1|." for n in names),
        "1 6 . A T . . . GT 0|7 0|0",
        head=contigs,
    )
    two = tmp_path / "two.vcf.gz"
    two.write_bytes(
        gzip.compress(
            (HEAD + "2\t7\trs9\tA\tT,C\t.\tPASS\tX=1\tGT:DP\t0/2:3\t1:4\n").replace("\ts1\ts2", "\ts2\ts3").encode()
        )
    )
    write(tmp_path / "bad.vcf", "1 x . A T . . . GT 0|1 0|0")
    (tmp_path / "two.vcf.gz.tbi").write_bytes(b"an index is no VCF")
    table = tmp_path / "s.tsv"
    table.write_text("sample_id\tlabel\ns1\tx\ns2\ty\ns3\tz\n")

    code, report, _ = genodl(ingest, "vcf", str(tmp_path), "--samples", str(table), *common)
    assert (code, report["status"]) == (0, "done")
    assert report["rows"]["variants"] == {"written": 5, "total": 5, "quarantined": 2}
    assert report["metrics"]["files"] == {".vcf": 2, ".vcf.gz": 1}
    assert report["warnings"] == [
        f"passed over 1 files of file://{tmp_path} that are hidden or not named as vcf: s.tsv",
        "1 of 1 records of bad.vcf are in quarantine, first line 4: found POS 'x'; expected a whole number, 0 or more",
        (
            "1 of 5 records of o'ne.vcf are in quarantine, first line 9: found allele 7 in GT; "
            "expected at most 1, the number of ALT alleles"
        ),
    ]
    expected = {("o'ne.vcf", n, 5): ["0|1", "1|."] for n in names} | {("two.vcf.gz", "2", 7): ["0/2", "1"]}
    assert stored(lake) == expected
    _, quarantined = lake.read(QUARANTINE).orderBy("file").collect()
    assert (quarantined.cohort, quarantined.source, quarantined.file, quarantined.line) == ("c'1", "vcf", "o'ne.vcf", 9)
    assert quarantined.text == "1\t6\t.\tA\tT\t.\t.\t.\tGT\t0|7\t0|0"
    sets: dict[str, list[str]] = {}
    for row in lake.read(SAMPLE_SETS).orderBy("sample_set", "position").collect():
        sets.setdefault(row.sample_set, []).append(row.sample_id)
    assert {r.file: sets[r.sample_set] for r in lake.read(VARIANTS).collect()} == {
        "o'ne.vcf": ["s1", "s2"],
        "two.vcf.gz": ["s2", "s3"],
    }
    assert {r.sample_id: r.label for r in lake.read(SAMPLES).collect()} == {"s1": "x", "s2": "y", "s3": "z"}
    manifest = {r.file: r for r in lake.read(SOURCES).where("source = 'vcf'").collect()}
    assert (manifest["o'ne.vcf"].records, manifest["o'ne.vcf"].quarantined, manifest["o'ne.vcf"].header) == (
        4,
        1,
        contigs.rstrip("\n"),
    )

    versions = report["tables"]["written"]
    code, report, _ = genodl(ingest, "vcf", str(tmp_path), "--samples", str(table), *common)
    assert (code, report["status"], report["tables"]["written"]["variants"]) == (0, "unchanged", versions["variants"])
    assert report["rows"]["variants"] == {"written": 0, "total": 5, "quarantined": 0}

    # Sent again with other content, and a run that died before its manifest: both replace what the file brought.
    write(Path(one), "1 6 . A T . . . GT 0|1 0|0", "3 8 . A T . . . GT 1|1 0|0")
    lake.delete(SOURCES, {"file": "two.vcf.gz"})
    code, report, _ = genodl(ingest, "vcf", one, str(two), *common)
    assert (code, report["rows"]["variants"]) == (0, {"written": 3, "total": 3, "quarantined": 0})
    expected = {
        ("o'ne.vcf", "1", 6): ["0|1", "0|0"],
        ("o'ne.vcf", "3", 8): ["1|1", "0|0"],
        ("two.vcf.gz", "2", 7): ["0/2", "1"],
    }
    assert stored(lake) == expected
    assert [r.file for r in lake.read(QUARANTINE).collect()] == ["bad.vcf"]


@pytest.mark.parametrize("case", ["absent", "cut off", "no header", "sample lacking", "two builds"])
def test_bad_input_is_one_line_and_leaves_nothing(genodl, lake: Lake, tmp_path: Path, case: str) -> None:
    fine = write(tmp_path / "fine.vcf", "1 6 . A T . . . GT 0|1 0|0")
    path, more = tmp_path / "v.vcf.gz", []
    whole = gzip.compress(
        (HEAD + "".join(f"1\t{i}\t.\tA\tT\t.\t.\t.\tGT\t0|1\t0|0\n" for i in range(200_000))).encode(), 1
    )
    if case == "cut off":
        path.write_bytes(whole[:-5000])
    elif case == "no header":
        path.write_bytes(gzip.compress(b"1\t5\t.\tA\tT\n"))
    elif case == "two builds":
        write(
            tmp_path / "fine.vcf",
            "20 6 . A T . . . GT 0|1 0|0",
            head=HEAD.replace("#CHROM", "##contig=<ID=20,length=63025520>\n#CHROM"),
        )
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


def of(sample: str, meta: str = "") -> str:
    return HEAD.replace("\ts1\ts2", f"\t{sample}").replace("#CHROM", f"{meta}#CHROM")


def test_which_files_and_lines_count(genodl, lake: Lake, tmp_path: Path) -> None:
    """Hidden files, files of one name, header lines that are odd or stand again: what is read,
    what is told, what is refused."""
    at = ("--lake", lake.uri, "--cohort", "c'1")
    folder = tmp_path / "in"
    for name in ("S1", "S2", ".snap", "_tmp"):
        (folder / name).mkdir(parents=True)
        write(
            folder / name / "v.vcf",
            "1 1 . c a . . AC=1,2 GT 0/1" if name == "S1" else "1 1 . C A . . . GT 1/1",
            head=of(name),
        )
    count = '##INFO=<ID=AC,Number=1,Type=Integer,Description="Count">\n'
    for name in ("joined.vcf", "._joined.vcf"):
        write(
            folder / name,
            "1 7 . A T,G . . AC=1,2 GT 0|2",
            *of("P", count).splitlines(),
            "1 8 . A T . . AC=1 GT 1|1",
            head=of("P", count),
        )
    bcf = folder / "a.bcf.gz"
    source = write(tmp_path / "a.vcf", "1 9 . A T . . . GT 1/1", head=of("B", "##contig=<ID=1>\n"))
    with pysam.VariantFile(source) as text, pysam.VariantFile(str(bcf), "wb", header=text.header) as out:
        for record in text:
            out.write(record)
    (folder / "old.vcf.bz2").write_bytes(b"BZh91AY&SY")
    code, report, line = genodl(ingest, "vcf", str(folder), *at)
    assert (code, report["metrics"]["files"]) == (0, {".vcf": 3, ".bcf.gz": 1}), line
    left = "._joined.vcf, .snap/v.vcf, _tmp/v.vcf, old.vcf.bz2"
    reason = "found Number=1,Type=Integer for the reserved AC; expected Number=A,Type=Integer"
    assert report["warnings"] == [
        f"passed over 4 files of file://{folder} that are hidden or not named as vcf: {left}",
        (
            "1 of 1 records of S1/v.vcf are in quarantine, first line 4: found 2 values in INFO 'AC=1,2'; "
            "expected 1 (Number=A)"
        ),
        "4 lines of joined.vcf are passed over, as they repeat a line of its header; the first is line 6",
        (
            "1 header lines of joined.vcf break the specification and are in quarantine, its records are read all "
            f"the same; first line 3: {reason}"
        ),
    ]
    expected = {
        ("joined.vcf", "1", 7): ["0|2"],
        ("joined.vcf", "1", 8): ["1|1"],
        ("a.bcf.gz", "1", 9): ["1/1"],
        ("S2/v.vcf", "1", 1): ["1/1"],
    }
    assert stored(lake) == expected
    assert [(r.file, r.line, r.text) for r in lake.read(QUARANTINE).where("file = 'joined.vcf'").collect()] == [
        ("joined.vcf", 3, count.rstrip())
    ]
    assert report["rows"]["variants"]["quarantined"] == 1 and report["rows"]["quarantine"]["written"] == 2
    assert {r.file: (r.records, r.quarantined) for r in lake.read(SOURCES).where("file <> 'a.bcf.gz'").collect()} == {
        **{"S1/v.vcf": (0, 1), "S2/v.vcf": (1, 0), "joined.vcf": (2, 0)}
    }

    # The same folder again; one of its files as another edition; another person's file of that name;
    # people whose data would go.
    write(folder / "S1" / "v.vcf", "1 1 . c a . . AC=1 GT 0/1", head=of("S1"))
    assert genodl(ingest, "vcf", str(folder / "S2"), *at)[1]["status"] == "unchanged"
    (tmp_path / "S3").mkdir()
    write(tmp_path / "S3" / "v.vcf", "1 2 . A G . . . GT 1/1", head=of("S3"))
    assert genodl(ingest, "vcf", str(folder / "S1"), str(tmp_path / "S3" / "v.vcf"), *at)[0] == 0
    expected |= {("S1/v.vcf", "1", 1): ["0/1"], ("S3/v.vcf", "1", 2): ["1/1"]}
    assert stored(lake) == expected
    moved = tmp_path / "moved" / "v.vcf"
    moved.parent.mkdir()
    write(moved, "1 3 . A G . . . GT 0/0", head=of("S2"))
    code, _, line = genodl(ingest, "vcf", str(moved), *at)
    assert (
        code == 2
        and line.startswith(f"genodl: error: file://{moved}: found the name of file://{folder}/S2/v.vcf")
        and "same_name=file" in line
    )
    assert genodl(ingest, "vcf", str(moved), "--set", "ingest.same_name=edition", *at)[0] == 0
    del expected["S2/v.vcf", "1", 1]
    expected |= {("S2/v.vcf", "1", 3): ["0/0"]}
    assert stored(lake) == expected
    write(moved, "1 3 . A G . . . GT 0/1", head=of("S9"))
    code, _, line = genodl(ingest, "vcf", str(moved), *at)
    assert code == 2 and "found none of the 1 samples that cohort c'1 has from there" in line

    (tmp_path / "copy.vcf").write_bytes((tmp_path / "S3" / "v.vcf").read_bytes())
    report = genodl(ingest, "vcf", str(tmp_path / "copy.vcf"), *at)[1]
    assert report["warnings"] == [
        "copy.vcf has the content of S3/v.vcf, which cohort c'1 has: all that is in it stands there twice"
    ]
    expected |= {("copy.vcf", "1", 2): ["1/1"]}

    # What ends a file, with the line; nothing of it is in the lake.
    other = write(
        tmp_path / "other.vcf",
        "1 1 . A G . . . GT 0/0 1/1",
        *HEAD.replace("s1\ts2", "s2\ts1").splitlines()[2:],
        "1 2 . A G . . . GT 1/1 0/0",
    )
    code, _, line = genodl(ingest, "vcf", other, *at)
    assert code == 2 and "other.vcf:5: found another #CHROM line" in line
    code, _, line = genodl(
        ingest, "vcf", str(folder / "joined.vcf"), "--lake", lake.uri, "--cohort", "s", "--set", "ingest.strict=true"
    )
    assert code == 2 and f"joined.vcf:3: {reason}" in line
    code, _, line = genodl(ingest, "vcf", str(folder / "old.vcf.bz2"), *at)
    assert code == 2 and "old.vcf.bz2:1: found a bzip2 file" in line and "BZh" not in line
    assert stored(lake) == expected

    # Bases count without case where features are chosen and filled.
    write(tmp_path / "lower.vcf", "1 1 . c a . . . GT 0/1", head=of("L"))
    write(tmp_path / "upper.vcf", "1 1 . C A . . . GT 1/1", head=of("U"))
    assert (
        genodl(
            ingest, "vcf", str(tmp_path / "lower.vcf"), str(tmp_path / "upper.vcf"), "--lake", lake.uri, "--cohort", "f"
        )[0]
        == 0
    )
    snapshot, kind = Snapshot(lake), GenotypeFeatures()
    assert kind.choose(snapshot, "f", ["L", "U"], np.ones((1, 2), bool)).names == ["1:1:C:A"]
    assert {r.entity_id: list(r.x) for r in kind.rows(snapshot, "f", ["1:1:c:a"]).collect()} == {"L": [1], "U": [2]}
