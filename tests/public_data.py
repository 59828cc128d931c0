"""What the README of the public data sets (../shared/data) says of each, and the command that brings it into a lake.

The readers alone are held against it in `tests/formats/test_public_data.py`, whole ingests in
`tests/reference/data_sets.py`.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

DATA = Path(os.environ.get("GENODL_SHARED_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
# How many have which label; where no README gives the names, sizes alone.
Labels = Mapping[str, int] | list[int]


@dataclass(frozen=True)
class DataSet:
    """`given`: file or folder below DATA; `rows` of the table that the source fills, `aside` in quarantine; `samples`,
    `features`: people and columns of values; `labels` by column of `samples`, or of `labels` for what is no person."""

    source: str
    given: str
    rows: int
    features: int | None = None
    samples: int | None = None
    labels: Mapping[str, Labels] = field(default_factory=dict)
    options: tuple[str, ...] = ()
    aside: int = 0

    @property
    def path(self) -> Path:
        return DATA / self.given

    @property
    def table(self) -> str | None:
        """The sample table, or the reference, that stands beside."""
        return str(self.path.parent / self.options[1]) if self.options else None

    @property
    def command(self) -> list[str]:
        more = [] if self.table is None else [self.options[0], self.table]
        return ["ingest", self.source, str(self.path), *more]


def agree(seen: Iterable[str | None], expected: Labels) -> bool:
    counts = Counter(name for name in seen if name is not None)
    return sorted(counts.values(), reverse=True) == expected if isinstance(expected, list) else counts == expected


BESIDE = ("--samples", "samples.tsv")


def matrix(name: str, features: int, samples: int, **labels: Labels) -> DataSet:
    source = "methylation" if name.startswith("meth") else "expression"
    return DataSet(source, f"{name}/matrix.tsv.gz", samples, features, samples, labels, BESIDE)


def blocks(name: str, **features: int) -> list[DataSet]:
    classes = {"Basal": 45, "Her2": 30, "LumA": 75}
    return [
        DataSet("expression", f"{name}/{block}.tsv.gz", 150, n, 150, {"label": classes}, BESIDE)
        for block, n in features.items()
    ]


def cells(given: str, count: int, genes: int, **labels: Labels) -> DataSet:
    return DataSet("cells", given, count, genes, labels=labels)


def sequences(given: str, rows: int, **labels: Labels) -> DataSet:
    return DataSet("sequences", given, rows, labels=labels)


def genotypes(given: str, samples: int, records: int, **labels: Labels) -> DataSet:
    return DataSet("vcf", given, records, samples=samples, labels=labels)


GVCF = "gvcf_bio2zarr"
DATA_SETS = [
    matrix("expr_alon_colon", 2000, 62, label={"t": 40, "n": 22}),
    matrix("expr_chowdary_breast_colon", 22_283, 104, label={"breast": 62, "colon": 42}),
    matrix("expr_golub_leukemia", 7129, 72, label={"ALL": 47, "AML": 25}, split={"train": 38, "test": 34}),
    matrix("expr_gravier_breast_prognosis", 2905, 168, label={"good": 111, "poor": 57}),
    matrix("expr_gse7390_breast_sksurv", 76, 198, label={"1": 51, "0": 147}),
    matrix("expr_khan_srbct", 2308, 63, label={"EWS": 23, "RMS": 20, "NB": 12, "BL": 8}),
    matrix("expr_nakayama_sarcoma", 22_283, 105, label=[21, 19, 16, 15, 15, 6, 4, 3, 3, 3]),
    matrix("expr_shipp_dlbcl_fl", 7129, 77, label={"DLBCL": 58, "FL": 19}),
    matrix(
        "expr_stemcells_mixomics", 400, 125, label={"Fibroblast": 30, "hESC": 37, "hiPSC": 58},
        batch={"1": 38, "2": 51, "3": 21, "4": 15},
    ),
    matrix("expr_su_tissues", 5565, 102, label={"1": 25, "2": 26, "3": 28, "4": 23}),
    matrix("expr_west_breast_er", 7129, 49, label={"negative": 25, "positive": 24}),
    matrix("meth_christensen_tissue", 1413, 217, label={"blood": 85, "placenta": 19, "other": 113}),
    matrix("meth_horvath_example55", 27_578, 16, label={"autism": 8, "control": 8}),
    DataSet("methylation", "meth_horvath_example55/testdataset_3samples.tsv.gz", 3, 27_236, 3),
    *blocks("multiomics_breast_tcga_mixomics", mrna=200, mirna=184, protein=142),
    DataSet(
        "expression", "geo_soft_geoquery/GDS507.soft.gz", 17, 22_645, 17, {"disease_state": {"RCC": 9, "normal": 8}}
    ),
    DataSet("expression", "geo_soft_geoquery/GSM11805.txt.gz", 1, 22_283, 1),
    DataSet("phenotypes", "gdc_manifest_sample/TARGET-CCSK.tsv", 141, 14),
    DataSet(
        "mutations", "maf_tcga_laml_maftools/tcga_laml.maf.gz", 2207, samples=200,
        options=("--samples", "tcga_laml_annot.tsv"),
    ),
    cells("sc_buettner_mesc_simlr", 182, 8989, label={"1": 59, "2": 58, "3": 65}),
    cells("sc_mixology/celseq2", 274, 28_204, label={"H1975": 112, "H2228": 81, "HCC827": 81},
          demuxlet_cls={"SNG": 240, "DBL": 34}),
    cells("sc_mixology/celseq2_5cl_p1", 297, 15_564,
          label={"A549": 103, "H838": 51, "H1975": 50, "H2228": 50, "HCC827": 43},
          demuxlet_cls={"SNG": 156, "DBL": 141}),
    cells("sc_mouse_bladder_scdeepcluster", 2100, 20_670,
          label=[550, 299, 268, 229, 184, 158, 102, 60, 53, 45, 33, 33, 30, 27, 21, 8]),
    cells("sc_pbmc68k_reduced_scanpy", 700, 765, bulk_labels=[240, 129, 95, 68, 54, 43, 31, 19, 13, 8],
          louvain=[130, 123, 117, 70, 66, 54, 42, 35, 31, 19, 13]),
    cells("sc_yan_embryo_sc3", 90, 20_214,
          label={"zygote": 6, "2cell": 6, "4cell": 12, "8cell": 20, "16cell": 16, "blast": 30}),
    DataSet("annotations", "gtf_fasta_samples/chr22_ENST00000319363.gtf", 31),
    DataSet("annotations", "gtf_fasta_samples/gencode.ucsc.small.gtf", 15),
    DataSet("annotations", "gtf_fasta_samples/mouse.ensembl.81.partial.ENSMUSG00000017167.gtf", 58),
    DataSet("annotations", "gtf_fasta_samples/refseq.ucsc.small.gtf", 24),
    DataSet("reference", "gtf_fasta_samples/hg38_chr22_32000000_32300000.fa", 1),
    DataSet("reference", "gtf_fasta_samples/mouse.ensembl.81.partial.ENSMUSG00000017167.fa", 2),
    genotypes("gtf_fasta_samples/chr22_ENST00000319363.vcf.gz", 0, 9212),
    DataSet("reference", "ref_grch38_chr20_21_10M/grch38.chr20_and_21_10M.fa.gz", 2),
    genotypes("ref_grch38_chr20_21_10M/cohort-chr20_100k.vcf.gz", 0, 1354),
    DataSet("alignments", "vc_na12878_chr20/NA12878.chr20.bam", 1, samples=1),
    DataSet("annotations", "vc_na12878_chr20/confident.bed", 11),
    DataSet("reference", "vc_na12878_chr20/ucsc.hg19.chr20.unittest.fasta.gz", 1),
    genotypes("vc_na12878_chr20/truth.vcf.gz", 1, 129),
    genotypes("gwas_regenie_example/example.bed", 500, 1000),
    genotypes("gwas_regenie_example/example.bgen", 500, 1000),
    DataSet("vcf", "gwas_hipster_variantspark/hipster.vcf.bgz", 17_010, samples=2504,
            labels={"label": {"1": 981, "0": 1523}}, options=("--samples", "hipster_labels.txt")),
    genotypes("gvcf_1kg_chr22_hail", 50, 50_000),
    genotypes(f"{GVCF}/CEUTrio.20.21.gatk3.4.g.vcf.bgz", 1, 17_460),
    genotypes(f"{GVCF}/NA12878.prod.chr20snippet.g.vcf.gz", 1, 301_778),
    genotypes(f"{GVCF}/1kg_2020_chrM.vcf.gz", 3, 23),
    genotypes(f"{GVCF}/chr22.vcf.gz", 100, 100),
    genotypes("vcf_1000g_chr22_variantspark/chr22_1000.vcf.gz", 1092, 1988),
    genotypes("vcf_ceu_exon_seqarray/CEU_Exon.vcf.gz", 90, 1348),
    genotypes("vcf_hail_sample/sample.vcf.gz", 100, 346),
    genotypes("vcf_hail_sample/sample2.vcf.gz", 100, 735),
    genotypes("eqtl_geuvadis_chr22_qtltools/genotypes.chr22.vcf.gz", 358, 85_485),
    sequences("bind_clip_ideeps_A/sequences.tsv.gz", 160_000, label={"1": 32_000, "0": 128_000},
              split={"train": 120_000, "test": 40_000}, experiment=[40_000] * 4),
    sequences("bind_deepbind_encode/sequences.tsv.gz", 104_745, label={"1": 101_245, "0": 3500},
              tf={"ARID3A": 9526, "CTCFL": 12_033, "ELK1": 6084, "FOXA1": 43_614, "MYC": 5051, "SP1": 18_748,
                  "ZBTB7A": 9689}),
    sequences("seq_enhancer_ienhancer2l/sequences.tsv.gz", 2968, label={"1": 1484, "0": 1484}),
    sequences("seq_promoter_cnnprom/sequences.tsv.gz", 11_351, label={"1": 3821, "0": 7530},
              organism={"ecoli": 3839, "bsubtilis": 1373, "mouse": 6139}),
    sequences("seq_promoter_deepromoter/sequences.tsv.gz", 6015, label={"1": 6015}, organism=[3086, 2929]),
    sequences("seq_uci_splice/sequences.tsv.gz", 3190, label={"EI": 767, "IE": 768, "N": 1655}),
    sequences("seqexpr_ecoli_lafleur2022/sequences.tsv.gz", 13_481, high_quality={"Yes": 5193, "No": 8288}),
    sequences("seqexpr_ecoli_lafleur2022/sequences_highquality5391.tsv.gz", 5391),
    sequences("seqexpr_ecoli_lafleur2022/sequences_hossain2020.tsv.gz", 4350),
    sequences("seqexpr_ecoli_promoter_wang2020/sequences.tsv.gz", 11_884),
    sequences("seqexpr_ecoli_promoter_wang2020/sequences_natural.tsv.gz", 14_098),
    sequences("seqexpr_ecoli_promoter_wang2020/sequences_external94.tsv.gz", 94),
    DataSet("variants", "varimpact_brca1_sge_findlay/variants.tsv.gz", 2699,
            labels={"label": {"FUNC": 1974, "INT": 166, "LOF": 559}}, options=("--reference", "regions.fa.gz")),
    # 22 of the table's 75,952 rows have no coordinates.
    DataSet("variants", "varimpact_satmut_mpra_kircher/variants.tsv.gz", 75_930, aside=22,
            labels={"release": [37_965, 37_965]}, options=("--reference", "elements.fa.gz")),
]  # fmt: skip
