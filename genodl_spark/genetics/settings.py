"""Settings of what is computed from genotypes."""

from __future__ import annotations

from pydantic import Field

from genodl_spark.core.toml import Names, Numbers, Section, Text


class Calling(Section):
    """Variant calling from reads."""

    min_mapping_quality: int = Field(10, ge=0, le=254, description="Reads of a lower mapping quality are left out.")
    min_base_quality: int = Field(10, ge=1, le=60, description="Bases of a lower quality make no allele a candidate.")
    min_reads: int = Field(
        2,
        ge=1,
        description="Reads that must show an allele before it is judged; one is enough where it is a fifth of them.",
    )
    min_share: float = Field(0.08, gt=0, lt=0.5, description="Share of the reads over a place that must show it.")
    min_quality: float = Field(
        3.0,
        ge=0,
        description="QUAL below which a call has the filter LowQual. 3 is as likely a variant as none, so that what is "
        "called is what is likelier.",
    )
    network: bool = Field(
        True, description="The newest model of variant_calling judges beside the likelihood, where there is one."
    )
    gvcf: bool = Field(False, description="The VCF has blocks of bases at which reads show the reference, too.")
    sites: Text = Field("", description="A VCF with an index, whose alleles are answered whatever the reads show.")
    father: Text = Field("", description="Sample of the cohort that is the father: called together with the child.")
    mother: Text = Field("", description="Sample of the cohort that is the mother, likewise.")
    shards: int = Field(0, ge=0, description="Tasks that the genome is dealt out to; 0 for four to a core.")
    added_errors: int = Field(
        0,
        ge=0,
        le=20,
        description="Reads with a truth come once more with this many times as many errors put into them as they have, "
        "by quality and by length of runs; 0 for none.",
    )
    depths: Numbers = Field(
        [30, 15, 8, 5],
        description="Depths to which reads with a truth (ingest alignments --truth) are thinned, besides as they are.",
    )


class QualityControl(Section):
    """Quality control of genotypes."""

    steps: Names = Field(
        ["variants", "samples", "relatedness", "components"],
        description="Some of variants, samples, pruning, relatedness, components.",
    )
    min_allele_frequency: float = Field(
        0.01,
        ge=0,
        le=0.5,
        description="Variants whose rarer allele is less frequent take part in neither pruning nor "
        "relatedness nor components.",
    )
    max_missing: float = Field(
        0.1,
        ge=0,
        le=1,
        description="Variants that a larger share of samples lacks take part in neither pruning nor "
        "relatedness nor components.",
    )
    kinship: float = Field(
        2**-4.5, ge=-10, le=0.5, description="Pairs above it are related; the default is where third degree begins."
    )
    components: int = Field(10, ge=1, description="Principal components that are kept.")
    pruned: Names = Field(
        ["components"], description="Steps that use only variants in approximate linkage equilibrium."
    )
    window: int = Field(
        50,
        ge=2,
        description="Variants, or bases with window_in_bases, within which linkage is looked for: "
        "that of PLINK's --indep-pairwise.",
    )
    window_in_bases: bool = Field(False, description="The window is counted in bases, not in variants.")
    step: int = Field(5, ge=1, description="Variants that the window moves by: that of PLINK's --indep-pairwise.")
    r2: float = Field(
        0.2,
        ge=0,
        le=1,
        description="Squared correlation above which one of two variants goes: that of PLINK's --indep-pairwise.",
    )
    depth: bool = Field(True, description="Means of DP and GQ, for which all of FORMAT is read.")
