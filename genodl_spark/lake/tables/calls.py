"""Tables of variants that were called from reads, and of what a caller's network learns from."""

from __future__ import annotations

from genodl_spark.lake.schema import COHORT, VARIANT, Column, Table, required

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
PILEUPS = Table(
    "pileups",
    "One row per candidate allele of reads whose truth is known, at each depth: what a caller's network is shown of "
    "it; its label, the copies that there are, is in `labels`",
    (
        COHORT,
        required(
            "variant_id",
            "string",
            "chrom:pos:ref:alt:thinned+added_errors, and a hash of file and sample: entity_id in `labels`",
        ),
        required("sample_id", "string", "Sample"),
        required("contig", "string", "Contig, as in `variants`"),
        required("chrom", "string", "Contig, as in the reads"),
        required("pos", "bigint", "Position of the first base of ref, 1-based"),
        required("ref", "string", "Reference allele, of an indel with the base before it"),
        required("alt", "string", "The candidate"),
        required("thinned", "int", "Depth to which reads were thinned by their names; 0 for all of them"),
        required(
            "added_errors", "int", "How many times as many errors as they have were put into the reads; 0 for none"
        ),
        required("depth", "int", "Molecules whose reads overlap the place"),
        required("likelihood", "array<double>", "The likelihood's chances of 0, 1 and 2 copies"),
        required("x", "binary", "Packed uint8 (layout: genodl_spark/genetics/calling/pileups.py)"),
        required("file", "string", "File name of the source"),
    ),
    key=("cohort", "variant_id"),
    partitioned_by=("cohort",),
    clustered_by=("contig", "pos"),
    checks={"position": "pos > 0 AND thinned >= 0"},
    entity="variant_id",
    kind=VARIANT,
    person=("sample_id",),
    file="file",
    made_by="ingest alignments",
)
