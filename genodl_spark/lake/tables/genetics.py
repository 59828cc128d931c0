"""Tables of quality control of genotypes."""

from __future__ import annotations

from genodl_spark.lake.schema import COHORT, SITE, Column, Table, required

VARIANT_QC = Table(
    "variant_qc",
    "One row per site and ALT allele of a cohort: calls, frequency and Hardy-Weinberg test; "
    "counts of records of one site are added",
    (
        COHORT,
        required("contig", "string", "Contig, as in `variants`"),
        required("pos", "bigint", "POS, 1-based"),
        required("ref", "string", "REF"),
        required("alt", "string", "ALT allele"),
        required("alt_number", "int", "Which ALT of its record, from 1"),
        required("substitution", "string", "transition, transversion or other"),
        Column("call_rate", "double", "Share of samples whose call is whole; NULL without samples"),
        required("ac", "bigint", "Called copies of the allele"),
        required("an", "bigint", "Called alleles"),
        Column("frequency", "double", "ac / an; NULL without calls"),
        required("hom_ref", "bigint", "Samples without the allele; in records of one ALT: homozygous for REF"),
        required("het", "bigint", "Samples with the allele and another"),
        required("hom_alt", "bigint", "Samples with no allele but this; haploid calls count here"),
        required("missing", "bigint", "Samples whose call is missing or not whole"),
        Column(
            "hwe_p", "double", "Exact Hardy-Weinberg p-value (Wigginton 2005); NULL without calls and outside autosomes"
        ),
        Column("hwe_mid_p", "double", "The same with the mid-p correction (Graffelman 2013)"),
        Column("mean_depth", "double", "Mean DP over the samples that have it, reads; NULL without"),
        Column("mean_quality", "double", "Mean GQ over the samples that have it, phred-scaled; NULL without"),
    ),
    key=("cohort", "contig", "pos", "ref", "alt"),
    partitioned_by=("cohort",),
    checks={"counts": "ac >= 0 AND ac <= an AND hom_ref >= 0 AND het >= 0 AND hom_alt >= 0 AND missing >= 0"},
    kind=SITE,
    made_by="qc",
)
SAMPLE_QC = Table(
    "sample_qc",
    "One row per sample of a cohort, over its autosomal records",
    (
        COHORT,
        required("sample_id", "string", "Sample identifier"),
        required("variants", "bigint", "Records of the sample"),
        Column("call_rate", "double", "Share of whole calls; NULL without records"),
        required("hom_ref", "bigint", "Calls"),
        required("het", "bigint", "Calls; of two different ALT too"),
        required("hom_alt", "bigint", "Calls"),
        required("missing", "bigint", "Calls that are missing or not whole"),
        required("singletons", "bigint", "Alleles of which this sample has the only copy in its sample set"),
        required("transitions", "bigint", "Biallelic transitions that the sample carries"),
        required("transversions", "bigint", "Biallelic transversions that the sample carries"),
        Column("ti_tv", "double", "transitions / transversions; NULL without the latter"),
        Column(
            "inbreeding",
            "double",
            "F = 1 - heterozygous calls / those expected, at polymorphic biallelic records; "
            "NULL where none is expected",
        ),
        Column("mean_depth", "double", "Mean DP over the records that have it, reads; NULL without"),
        Column("mean_quality", "double", "Mean GQ over the records that have it, phred-scaled; NULL without"),
    ),
    key=("cohort", "sample_id"),
    checks={"counts": "variants >= 0 AND missing <= variants"},
    entity="sample_id",
    person=("sample_id",),
    made_by="qc",
)
RELATEDNESS = Table(
    "relatedness",
    "Pairs of samples whose kinship is above the threshold (KING-robust, Manichaikul 2010)",
    (
        COHORT,
        required("sample_1", "string", "The first of the two by name"),
        required("sample_2", "string", "The other"),
        required("variants", "bigint", "Common biallelic autosomal SNVs called in both"),
        required("het_het", "bigint", "Of them, both heterozygous"),
        required("ibs0", "bigint", "Of them, opposite homozygotes"),
        required("kinship", "double", "Kinship coefficient: 0.5 for the same genotypes, 0.25 for first degree"),
        required(
            "relation",
            "string",
            "duplicate (or twin), first, second, third degree or unrelated, by the borders 2^-1.5 to 2^-4.5",
        ),
    ),
    key=("cohort", "sample_1", "sample_2"),
    checks={"order": "sample_1 < sample_2"},
    person=("sample_1", "sample_2"),
    made_by="qc",
)
PRINCIPAL_COMPONENTS = Table(
    "principal_components",
    "One row per sample: its coordinates on the principal components of the genotypes; eigenvalues are in `qc_steps`",
    (
        COHORT,
        required("sample_id", "string", "Sample identifier"),
        required(
            "components", "array<double>", "Coordinates on eigenvectors of unit length, the largest eigenvalue first"
        ),
    ),
    key=("cohort", "sample_id"),
    entity="sample_id",
    person=("sample_id",),
    made_by="qc",
)
LD_PRUNED = Table(
    "ld_pruned",
    "Common biallelic autosomal SNVs of a cohort in approximate linkage equilibrium",
    (
        COHORT,
        required("contig", "string", "Contig, as in `variants`"),
        required("pos", "bigint", "POS, 1-based"),
        required("ref", "string", "REF, upper case"),
        required("alt", "string", "ALT, upper case"),
    ),
    key=("cohort", "contig", "pos", "ref", "alt"),
    partitioned_by=("cohort",),
    kind=SITE,
    made_by="qc",
)
QC_STEPS = Table(
    "qc_steps",
    "One row per cohort and step of its quality control: what the step's table was made from, "
    "and figures of the whole cohort",
    (
        COHORT,
        required("step", "string", "variants, samples, pruning, relatedness or components"),
        required(
            "fingerprint", "string", "Hash of what the step depends on: it is not done again while that is the same"
        ),
        required(
            "metrics",
            "map<string,double>",
            "Rows written, variants used; of components: passes, eigenvalues, residuals",
        ),
        required("done_at", "timestamp", "When, UTC"),
    ),
    key=("cohort", "step"),
    made_by="qc",
)
