"""References, annotations and alignments through the command line: contents, windows from the lake, refusals."""

from __future__ import annotations

import gzip
import hashlib
import os
import random
from pathlib import Path

import pysam
import pytest
from pyspark.sql import functions as F

from genodl_spark.core.errors import Refused
from genodl_spark.genetics.stored_reference import StoredReference
from genodl_spark.lake.delta import Lake
from genodl_spark.lake.snapshot import Snapshot
from genodl_spark.lake.tables.genomes import ALIGNMENTS, ANNOTATIONS, CHUNK, REFERENCE, REFERENCE_BASES
from genodl_spark.lake.tables.ingested import QUARANTINE, SAMPLES
from jobs import forget, ingest
from tests.genetics.calling import sequencing

SHARED = Path(os.environ.get("GENODL_SHARED_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))


def shared(name: str) -> Path:
    if not (SHARED / name).exists():
        pytest.skip(f"{SHARED / name} is absent; set GENODL_SHARED_DATA to the folder of public data sets")
    return SHARED / name


def test_untranslated_ends_of_an_annotation_on_a_reference(genodl, lake: Lake, tmp_path: Path) -> None:
    """The 3' UTR of a transcript by `annotations` and `reference_bases` is the published one, and the reference
    there has the REF alleles of the VCF that comes with it."""
    folder, common = shared("gtf_fasta_samples"), ("--lake", lake.uri, "--cohort", "utr")
    expected = (folder / "chr22_ENST00000319363_3UTR.ref_seq.txt").read_text().strip()
    code, report, _ = genodl(ingest, "annotations", str(folder / "chr22_ENST00000319363.gtf"), *common)
    assert (code, report["rows"]["annotations"]["written"], report["metrics"]["read_as"]) == (0, 31, {"GTF": 1})
    gene = (F.col("transcript_id") == "ENST00000319363") & (F.col("cohort") == "utr")
    (utr,) = lake.read(ANNOTATIONS).where(gene & (F.col("type") == "three_prime_utr")).collect()
    # The published sequence stands where the published VCF has its bases: no place but the transcript's fits.
    (tmp_path / "utr.fa").write_text(f">utr hg38_chr22:{utr.start}-{utr.end}\n{expected}\n")
    code, report, _ = genodl(
        ingest, "reference", str(tmp_path / "utr.fa"), str(folder / "hg38_chr22_32000000_32300000.fa"), *common
    )
    assert (code, report["rows"]["reference"]["written"], report["rows"]["reference_bases"]["written"]) == (0, 2, 6)
    reference = StoredReference.of(Snapshot(lake), "utr")
    assert reference.fetch("chr22", utr.start - 1, utr.end).decode() == expected
    checked = 0
    with gzip.open(folder / "chr22_ENST00000319363.vcf.gz", "rt") as lines:
        for cells in (line.split("\t") for line in lines if not line.startswith("#")):
            pos, ref = int(cells[1]), cells[3]
            if utr.start <= pos and pos + len(ref) - 1 <= utr.end:
                assert reference.fetch("22", pos - 1, pos - 1 + len(ref)).decode().upper() == ref
                checked += 1
    assert checked > 1000
    with pytest.raises(Refused, match="found no bases"):
        reference.fetch("22", utr.start - 2, utr.end)


def test_public_annotations_and_references_come_by_one_command(genodl, lake: Lake) -> None:
    folder = shared("gtf_fasta_samples")
    code, report, _ = genodl(ingest, "annotations", str(folder), "--lake", lake.uri, "--cohort", "gtf")
    assert code == 0 and report["metrics"]["read_as"] == {"GTF": 4}
    counts = {
        r.file: r["count"] for r in lake.read(ANNOTATIONS).where("cohort = 'gtf'").groupBy("file").count().collect()
    }
    assert counts == {
        "chr22_ENST00000319363.gtf": 31,
        "gencode.ucsc.small.gtf": 15,
        "mouse.ensembl.81.partial.ENSMUSG00000017167.gtf": 58,
        "refseq.ucsc.small.gtf": 24,
    }
    fasta = shared("ref_grch38_chr20_21_10M") / "grch38.chr20_and_21_10M.fa.gz"
    code, report, _ = genodl(ingest, "reference", str(fasta), "--lake", lake.uri, "--cohort", "hg38")
    assert (code, report["rows"]["reference"]["written"]) == (0, 2)
    rows = {r.contig: r for r in lake.read(REFERENCE).where("cohort = 'hg38'").collect()}
    reference = StoredReference.of(Snapshot(lake), "hg38")
    draw = random.Random(2)
    with pysam.FastaFile(str(fasta)) as file:
        for contig in ("20", "21"):
            text = file.fetch(f"chr{contig}")
            assert (rows[contig].length, rows[contig].md5) == (
                10_000_000,
                hashlib.md5(text.upper().encode()).hexdigest(),
            )
            for _ in range(20):
                start = draw.randrange(len(text) - 3 * CHUNK)
                end = start + draw.choice((1, 100, 2 * CHUNK))
                assert reference.fetch(contig, start, end).decode() == text[start:end]
    code, report, _ = genodl(ingest, "reference", str(fasta), "--lake", lake.uri, "--cohort", "hg38")
    assert (code, report["status"]) == (0, "unchanged")


def test_alignments_are_known_by_their_samples(genodl, lake: Lake, tmp_path: Path) -> None:
    folder = shared("vc_na12878_chr20")
    code, report, _ = genodl(ingest, "alignments", str(folder), "--lake", lake.uri, "--cohort", "na")
    assert (code, report["rows"]["alignments"]["written"]) == (0, 1)
    (row,) = lake.read(ALIGNMENTS).where("cohort = 'na'").collect()
    assert (row.sample_id, row.format, row.build) == ("NA12878", "BAM", "GRCh37")
    assert (sum(row.mapped), sum(row.mapped) + sum(row.unmapped) + row.unplaced) == (26_327, 26_412)
    assert [r.sample_id for r in lake.read(SAMPLES).where("cohort = 'na'").collect()] == ["NA12878"]
    code, report, _ = genodl(ingest, "annotations", str(folder / "confident.bed"), "--lake", lake.uri, "--cohort", "na")
    assert code == 0
    regions = lake.read(ANNOTATIONS).where("cohort = 'na'").selectExpr("count(*) n", "sum(`end` - start + 1) bases")
    assert [tuple(r) for r in regions.collect()] == [(11, 8_999)]
    code, _, _ = genodl(forget, "--lake", lake.uri, "--cohort", "na", "--sample", "NA12878")
    assert code == 0 and lake.read(ALIGNMENTS).where("cohort = 'na'").isEmpty()
    header = {"SQ": [{"SN": "1", "LN": 9}], "RG": [{"ID": "a", "SM": "NA12878"}]}
    with pysam.AlignmentFile(str(tmp_path / "again.bam"), "wb", header=header):
        pass
    code, _, line = genodl(ingest, "alignments", str(tmp_path / "again.bam"), "--lake", lake.uri, "--cohort", "na")
    assert code == 2 and "withdrawn consent" in line


def test_reads_and_their_reference_go_together(genodl, lake: Lake, tmp_path: Path) -> None:
    bases = "ACGTTGCAAC" * 30
    of = sequencing.write(tmp_path / "r.bam", {}, sequencing.header({"chr1": bases}, {"g": "s"}))
    for name, text in (("right.fa", f">1\n{bases.lower()}\n"), ("wrong.fa", f">1\n{bases[:-1]}T\n")):
        (tmp_path / name).write_text(text)
    at = ("alignments", str(of), "--lake", lake.uri, "--cohort", "reads", "--reference")
    code, report, line = genodl(ingest, *at, str(tmp_path / "wrong.fa"))
    assert (code, report["status"]) == (2, "failed")
    assert "r.bam: found MD5" in line and line.count("\n") <= 1
    assert lake.read(ALIGNMENTS).where("cohort = 'reads'").isEmpty()
    code, report, _ = genodl(ingest, *at, str(tmp_path / "right.fa"))
    assert (code, report["rows"]["alignments"]["written"]) == (0, 1)


GTF = '1\ts\texon\t5\t9\t.\t+\t.\tgene_id "a";\n'


def test_what_cannot_be_a_genome_is_refused_and_nothing_is_written(genodl, lake: Lake, tmp_path: Path) -> None:
    cases = {
        "annotations": {
            "empty.gtf": ("", "found no feature in the file"),
            "spaces.bed": ("chr1 100 200\n", "found 1 columns between tabs"),
            "genbank.gff3": ("1\ts\texon\t5\t9\t.\t+\t.\tonly\n", "found attributes 'only'"),
            "all_bad.gtf": (
                GTF.replace("5\t9", "9\t5") * 3,
                "found no row for annotations in the file: found start '9'",
            ),
        },
        "reference": {
            "protein.fa": (">p\nMKWVTF\n", "found 'F' at base 6 of p"),
            "twice.fa": (">a\nAC\n>a\nAC\n", "sequence a stands twice"),
            "hollow.fa": (">a\n>b\nAC\n", "found no base below a"),
            "text.fa": ("ACGT\n", "found 'ACGT' on the first line"),
        },
        "alignments": {"text.bam": ("sample_id\n", "found what htslib cannot read"), "empty.bam": ("", "found what")},
    }
    for source, files in cases.items():
        for name, (text, found) in files.items():
            path = tmp_path / name
            path.write_text(text)
            code, report, line = genodl(ingest, source, str(path), "--lake", lake.uri, "--cohort", "bad")
            assert code == 2 and report["status"] == "failed" and f"{name}" in line and found in line, line
    for table in (ANNOTATIONS, REFERENCE, REFERENCE_BASES, ALIGNMENTS, QUARANTINE):
        assert not lake.exists(table) or lake.read(table).where("cohort = 'bad'").isEmpty()


def test_lines_set_aside_and_sequences_of_two_files(genodl, lake: Lake, tmp_path: Path) -> None:
    common = ("--lake", lake.uri, "--cohort", "two")
    (tmp_path / "a.gtf").write_text(GTF + GTF.replace("\t+\t", "\tx\t") + GTF)
    code, report, _ = genodl(ingest, "annotations", str(tmp_path / "a.gtf"), *common)
    assert code == 0 and report["warnings"] == [
        "1 of 3 records of a.gtf are in quarantine, first line 2: found strand 'x'; expected + - . or ?"
    ]
    (tmp_path / "a.fa").write_text(">s\nACGT\n")
    (tmp_path / "b.fa").write_text(">s\nTTTT\n")
    assert genodl(ingest, "reference", str(tmp_path / "a.fa"), *common)[0] == 0
    code, _, line = genodl(ingest, "reference", str(tmp_path / "b.fa"), *common)
    assert code == 2 and "sequence s, which a.fa of cohort two has too" in line
    (tmp_path / "a.fa").write_text(">s\nAACC\n>t\nGG\n")  # another edition takes its place
    assert genodl(ingest, "reference", str(tmp_path / "a.fa"), *common)[0] == 0
    assert StoredReference.of(Snapshot(lake), "two").fetch("s", 1, 4) == b"ACC"
    assert lake.read(REFERENCE_BASES).where("cohort = 'two'").count() == 2
