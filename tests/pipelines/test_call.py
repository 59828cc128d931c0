"""Variants called from real reads through the command line: NA12878 against GIAB's truth."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

import numpy as np
import pysam
import pytest

from genodl_spark.formats.alignment import first_reads
from genodl_spark.lake.delta import Lake
from genodl_spark.lake.tables.calls import CALLS
from genodl_spark.registry.calling import Sample, covered
from jobs import call, forget, ingest
from tests.genetics.calling.diploid import Genome, Variant
from tests.genetics.calling.sequencing import Machine, header, sequenced, write
from tests.public_data import DATA

READS = DATA / "vc_na12878_chr20" / "NA12878.chr20.bam"
REFERENCE = DATA / "vc_na12878_chr20" / "ucsc.hg19.chr20.unittest.fasta.gz"
REGION = "chr20:9,900,001-10,100,000"  # four tiles; reads lie from 9,999,900 on

real = pytest.mark.skipif(not READS.exists(), reason=f"{READS} is not there")


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


@real
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


@real
def test_tiles_with_reads_are_found_all_over_a_file() -> None:
    places = [("chr20", 0), ("chr20", 10_000_500), ("chr20", 10_060_000)]
    assert first_reads(str(READS), ["chr20", "chr21"], places) == [("chr20", 9_999_911), ("chr20", 10_000_500)]
    contigs = {"chr19": 59_128_983, "chr20": 63_025_520, "chr21": 48_129_895}
    found = covered(Sample("s", str(READS), ()), str(REFERENCE), contigs, 64)
    assert [(tile.chrom, tile.start, tile.end) for tile in found] == [
        ("chr20", 9_950_000, 10_000_000),
        ("chr20", 10_000_000, 10_050_000),
    ]


@real
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


BASES = "".join(np.random.default_rng(1).choice(list("ACGT"), 51_000))  # a border of tiles at 50,000
OTHER = {"A": "C", "C": "A", "G": "T", "T": "G"}
INHERITED, NEW, MINE = (49_990, (0, 1)), (50_300, (0, 1)), (50_100, (1, 1))


def _family(folder: Path) -> Path:
    """BAMs of kid, dad and mum over the last 1,500 bases; the kid has a substitution that none of them passed on."""
    fasta = folder / "r.fa"
    fasta.write_text(f">1\n{BASES}\n")
    for number, (name, has) in enumerate(
        {"kid": (INHERITED, MINE, NEW), "dad": (INHERITED, MINE), "mum": (MINE,)}.items()
    ):
        variants = [Variant(at, BASES[at], (OTHER[BASES[at]],), genotype) for at, genotype in has]
        reads = sequenced(Genome("1", BASES, 49_500, 51_000, variants), number, Machine(depth=24))
        write(folder / f"{name}.bam", {"1": reads}, header({"1": BASES}, {"g": name}))
    return fasta


def _records(path: Path) -> list[list[str]]:
    return [line.split("\t") for line in gzip.decompress(path.read_bytes()).decode().splitlines() if line[0] != "#"]


def test_blocks_sites_that_are_asked_for_and_a_family(genodl, lake: Lake, tmp_path: Path) -> None:
    at, fasta = ("--lake", lake.uri), _family(tmp_path)
    files = [str(tmp_path / f"{name}.bam") for name in ("kid", "dad", "mum")]
    assert genodl(ingest, "alignments", *files, "--cohort", "f", "--reference", str(fasta), *at)[0] == 0
    kid, out = ("--sample", "kid", *at), tmp_path / "o.vcf.gz"

    assert genodl(call, *kid, "--output", str(out), "--set", "call.gvcf=true")[0] == 0
    found = _records(out)
    assert [(r[1], r[9].split(":")[0]) for r in found if r[4] != "<*>"] == [
        (str(where + 1), "/".join(map(str, genotype))) for where, genotype in (INHERITED, MINE, NEW)
    ]
    covered = 0  # every base once, in order, whatever the tiles
    for record in found:
        assert int(record[1]) == covered + 1
        covered = int(record[7].removeprefix("END=")) if record[4] == "<*>" else covered + len(record[3])
    assert covered == len(BASES)
    assert {record[9].split(":")[0] for record in found if int(record[1]) < 49_000} == {"./."}
    with pysam.VariantFile(str(out)) as file:
        assert [r.stop for r in file.fetch("1", 50_100, 50_101)] == [50_101]
    assert lake.count(CALLS) == 3

    asked = tmp_path / "asked.vcf"
    alleles = [(100, BASES[99], OTHER[BASES[99]]), (50_101, BASES[50_100], OTHER[BASES[50_100]])]
    alleles += [(50_201, BASES[50_200], OTHER[BASES[50_200]])]
    lines = ["##fileformat=VCFv4.3", "##contig=<ID=chr1>", "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO"]
    asked.write_text("\n".join([*lines, *(f"chr1\t{p}\t.\t{r}\t{a}\t.\t.\t." for p, r, a in alleles)]) + "\n")
    sites = ("--set", f"call.sites={asked}.gz")
    code, _, said = genodl(call, *kid, "--output", str(out), *sites)
    assert code == 2 and "asked.vcf.gz" in said
    pysam.tabix_index(str(asked), preset="vcf", keep_original=True)
    assert genodl(call, *kid, "--output", str(out), *sites)[0] == 0
    assert [(r[1], r[6], r[9].split(":")[0]) for r in _records(out)] == [
        ("100", "NoReads", "./."),
        ("49991", "PASS", "0/1"),
        ("50101", "PASS", "1/1"),
        ("50201", "PASS", "0/0"),
        ("50301", "PASS", "0/1"),
    ]

    family = (*kid, "--output", str(out), "--set", "call.father=dad")
    assert "found no sample; expected the other parent, too, of kid" in genodl(call, *family)[2]
    assert genodl(call, *family, "--set", "call.mother=mum")[0] == 0
    records = _records(out)
    genotypes = [[column.split(":")[0] for column in record[9:]] for record in records]
    assert genotypes == [["0/1", "0/1", "0/0"], ["1/1", "1/1", "1/1"], ["0/1", "0/0", "0/0"]]
    of_kid = [dict(zip(r[8].split(":"), r[9].split(":"), strict=True)) for r in records]
    assert [float(values["DNM"]) > 0.9 for values in of_kid] == [False, False, True]
    rows = {(r.sample_id, r.pos): r for r in lake.read(CALLS).collect()}
    assert len(rows) == 9 and rows["dad", 50_301].gt == "0/0" and rows["dad", 50_301].de_novo is None
    assert rows["kid", 50_301].de_novo == pytest.approx(float(of_kid[2]["DNM"]), abs=1e-3)
