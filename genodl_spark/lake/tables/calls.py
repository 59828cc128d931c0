"""The table of variants that were called from reads."""

from __future__ import annotations

from genodl_spark.lake.schema import COHORT, Column, Table, required

CALLS = Table(
    "calls",
    "One row per record that genodl call wrote of a sample: the genotype, and what reads, likelihood and network say",
    (
        COHORT,
        required("sample_id", "string", "Sample"),
        required("contig", "string", "Contig, as in `variants`"),
        required("chrom", "string", "CHROM, as in the reads"),
        required("pos", "bigint", "POS, 1-based"),
        required("ref", "string", "REF"),
        required("alt", "string", "ALT, as in the VCF: several alleles with commas between them"),
        required("gt", "string", "GT, such as 0/1"),
        Column("gq", "int", "GQ: phred-scaled chance that the genotype is another one"),
        required("qual", "double", "QUAL: phred-scaled chance that there is no variant"),
        required("filter", "string", "FILTER: PASS, or why not"),
        required("dp", "int", "Molecules whose reads overlap the place"),
        required("ad", "array<int>", "Molecules that tell for REF and for each of ALT"),
        required("pl", "array<int>", "Phred-scaled likelihoods of the genotypes, in the order of VCF"),
        required(
            "evidence",
            "map<string,double>",
            "By name: likelihood_GT, the chance of each genotype by the likelihood; network_N, by the network, of N "
            "copies of the first ALT",
        ),
        Column(
            "de_novo", "double", "Of a child called with its parents: the chance that it has what they lack; else NULL"
        ),
        Column("model_id", "string", "The network that judged, NULL without"),
        required("fingerprint", "string", "Hash of what the rows were made from"),
    ),
    key=("cohort", "sample_id", "contig", "pos", "ref", "alt"),
    partitioned_by=("cohort",),
    checks={"position": "pos > 0"},
    entity="sample_id",
    person=("sample_id",),
    made_by="call",
)
