"""Consequences through the command line: a VCF, a GTF and a FASTA that name their contig otherwise."""

from __future__ import annotations

from pathlib import Path

from genodl_spark.lake.delta import Lake
from genodl_spark.lake.tables.consequences import CONSEQUENCES
from jobs import annotate, ingest, lineage


def _vcf(path: Path, contig: str) -> str:
    records = [(208, "G", "A,<DEL>", "."), (98, "C", "CA", "."), (9_000, "A", "T,*", ".")]
    records += [(149, "C", "<DEL>", "END=205"), (149, "C", "<DEL>", "END=9100"), (149, "C", "<DUP>", "SVLEN=30")]
    lines = ["##fileformat=VCFv4.2", "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO"]
    lines += [f"{contig}\t{pos}\t.\t{ref}\t{alt}\t.\t.\t{info}" for pos, ref, alt, info in sorted(records)]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def test_a_cohort_is_annotated_once_and_a_foreign_one_is_refused(genodl, lake: Lake, tmp_path: Path) -> None:
    genome = "C" * 200 + "ATGAAACGGTAA" + "A" * 9_000
    (tmp_path / "g.fa").write_text(f">20\n{genome}\n")
    fields = 'gene_id "G1"; gene_name "ONE"; transcript_id "T1"; transcript_biotype "protein_coding";'
    parts = [("exon", 151, 260, "."), ("CDS", 201, 209, "0"), ("stop_codon", 210, 212, "0")]
    gtf = "".join(f"20\tx\t{kind}\t{a}\t{b}\t.\t+\t{phase}\t{fields}\n" for kind, a, b, phase in parts)
    (tmp_path / "g.gtf").write_text(gtf)
    at = ("--lake", lake.uri)
    assert genodl(ingest, "reference", str(tmp_path / "g.fa"), "--cohort", "a", *at)[0] == 0
    assert genodl(ingest, "annotations", str(tmp_path / "g.gtf"), "--cohort", "a", *at)[0] == 0
    assert genodl(ingest, "vcf", _vcf(tmp_path / "v.vcf", "chr20"), "--cohort", "c", *at)[0] == 0
    code, report, _ = genodl(annotate, "--cohort", "c", "--set", "annotation=a", *at)
    counts = {"near": 5, "symbolic": 4, "unclear": 1, "none": 1}
    assert code == 0 and {name: report["metrics"][name] for name in counts} == counts
    assert "4 alleles are not spelled in bases: they have terms by place; 1 of them do not say" in str(
        report["warnings"]
    )
    assert "1 alleles are no change (*, <*>, <NON_REF>, REF once more): they have no rows" in str(report["warnings"])
    assert any("chr20 in the VCF, 20 in the annotation" in text for text in report["warnings"])
    everything = lake.read(CONSEQUENCES).orderBy("pos", "alt", "end").collect()
    assert [(r.pos, r.alt, r.end, r.transcript_id, r.terms, r.note) for r in everything if r.alt[0] == "<"] == [
        (149, "<DEL>", 205, "T1", ["feature_truncation", "coding_sequence_variant", "5_prime_UTR_variant"], None),
        (149, "<DEL>", 9_100, "T1", ["transcript_ablation"], None),
        (149, "<DUP>", 179, "T1", ["5_prime_UTR_variant"], None),
        (208, "<DEL>", 208, "", ["sequence_variant"], "neither END nor SVLEN says where it ends"),
    ]
    rows = [row for row in everything if row.alt[0] != "<"]
    assert [(r.pos, r.alt, r.transcript_id, r.terms, r.hgvs_c, r.hgvs_p) for r in rows] == [
        (98, "CA", "T1", ["upstream_gene_variant"], None, None),
        (208, "A", "T1", ["missense_variant"], "c.8G>A", "p.Arg3Gln"),
        (9_000, "T", "", ["intergenic_variant"], None, None),
    ]
    assert genodl(annotate, "--cohort", "c", *at)[1]["status"] == "unchanged"
    assert genodl(lineage, "consequences", "--key", "20:208:G:A", *at)[0] == 0
    assert genodl(ingest, "vcf", _vcf(tmp_path / "w.vcf", "NC_1"), "--cohort", "d", *at)[0] == 0
    code, _, said = genodl(annotate, "--cohort", "d", *at)
    assert code == 2 and "contigs are NC_1 in the VCF, 20 in the annotation" in said
    assert lake.count(CONSEQUENCES) == 7
