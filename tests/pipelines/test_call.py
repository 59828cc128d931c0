"""Variants called from real reads through the command line: NA12878 against GIAB's truth."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

import pysam
import pytest

from genodl_spark.lake.delta import Lake
from genodl_spark.lake.tables.calls import CALLS
from jobs import call, forget, ingest
from tests.public_data import DATA

READS = DATA / "vc_na12878_chr20" / "NA12878.chr20.bam"
REFERENCE = DATA / "vc_na12878_chr20" / "ucsc.hg19.chr20.unittest.fasta.gz"
REGION = "chr20:9,900,001-10,100,000"  # four tiles; reads lie from 9,999,900 on

pytestmark = pytest.mark.skipif(not READS.exists(), reason=f"{READS} is not there")


def _confident() -> list[tuple[int, int]]:
    lines = (READS.parent / "confident.bed").read_text().splitlines()
    return [(int(start), int(end)) for _, start, end in (line.split()[:3] for line in lines)]


def _alleles(path: Path | str) -> set[tuple[int, str, str, int]]:
    """Position, alleles and copies of each called allele within the confident regions, as both files write them."""
    found = set()
    with pysam.VariantFile(str(path)) as file:
        for record in file:
            genotype = record.samples[0]["GT"]
            if any(start < record.pos <= end for start, end in _confident()):
                for number, alt in enumerate(record.alts or (), 1):
                    found.add((record.pos, str(record.ref), alt, genotype.count(number)))
    return found


def test_a_sample_is_called_as_the_truth_has_it(genodl, lake: Lake, tmp_path: Path) -> None:
    at, out = ("--lake", lake.uri), tmp_path / "o.vcf.gz"
    assert genodl(ingest, "alignments", str(READS), "--cohort", "c", "--reference", str(REFERENCE), *at)[0] == 0
    asked = ("--region", REGION, "--output", str(out), *at)
    code, report, said = genodl(call, *asked, "--set", "call.shards=1")
    assert code == 0, said
    truth = _alleles(READS.parent / "truth.vcf.gz")
    assert len(truth) == 49 and _alleles(out) == truth

    rows = lake.read(CALLS).orderBy("pos").collect()
    with pysam.VariantFile(str(out)) as file:
        assert list(file.header.samples) == ["NA12878"]
        records = list(file)
    assert [(r.pos, r.ref, r.alt) for r in rows] == [(r.pos, r.ref, ",".join(r.alts)) for r in records]
    one = next(row for row in rows if row.pos == 10_000_117)
    assert (one.gt, one.dp, one.ad, one.filter) == ("0/1", 60, [25, 30], "PASS")
    assert sum(one.evidence.values()) == pytest.approx(1) and one.pl[1] == 0 < min(one.pl[0], one.pl[2])
    assert report["metrics"]["records"] == len(rows) == report["rows"]["calls"]["total"]

    first = hashlib.sha256(out.read_bytes()).hexdigest()
    assert genodl(call, *asked)[1]["status"] == "unchanged"
    for shards in ("7",):
        out.unlink()
        code, report, _ = genodl(call, *asked, "--set", f"call.shards={shards}")
        assert (code, report["metrics"]["shards"]) == (0, min(int(shards), 4))
        assert hashlib.sha256(out.read_bytes()).hexdigest() == first
    assert lake.count(CALLS) == len(rows)
    part = tmp_path / "part.vcf.gz"
    assert genodl(call, "--region", "chr20:10,000,200-10,000,450", "--output", str(part), *at)[0] == 0
    lines = gzip.decompress(part.read_bytes()).decode().splitlines()
    assert [line.split("\t")[1] for line in lines if line[0] != "#"] == ["10000211", "10000439"]

    assert genodl(forget, "--cohort", "c", "--sample", "NA12878", *at)[0] == 0
    assert lake.count(CALLS) == 0


def test_reads_that_cannot_be_called_are_refused(genodl, lake: Lake, tmp_path: Path) -> None:
    at, out = ("--lake", lake.uri), str(tmp_path / "o.vcf.gz")
    assert genodl(ingest, "alignments", str(READS), "--cohort", "bare", *at)[0] == 0
    bare = tmp_path / "bare.bam"
    bare.write_bytes(READS.read_bytes())
    given = ("--reference", str(REFERENCE))
    assert genodl(ingest, "alignments", str(bare), "--cohort", "unindexed", *given, *at)[0] == 0
    other = tmp_path / "other.fa"
    other.write_text(">chr20\n" + "ACGT" * 1000 + "\n")
    code, _, said = genodl(ingest, "alignments", str(READS), "--cohort", "o", "--reference", str(other), *at)
    assert code == 2 and "found 4000 bases of contig chr20" in said
    for cohort, more, found in (
        ("bare", (), "found no reference of these reads; expected one: genodl ingest alignments with --reference"),
        ("unindexed", (), "found no index beside the file; expected one: samtools index"),
        ("bare", ("--sample", "nobody"), "found sample 'nobody'; expected one that cohort bare has reads of: NA12878"),
    ):
        code, _, said = genodl(call, "--cohort", cohort, "--output", out, *more, *at)
        assert code == 2 and found in said, said
    code, _, said = genodl(call, "--cohort", "bare", "--output", "x.vcf", *at)
    assert code == 2 and "found x.vcf; expected a name that ends in .vcf.gz" in said
    assert not Path(out).exists() and not list(tmp_path.glob(".o.vcf*"))
