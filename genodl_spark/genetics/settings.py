"""Settings of what is computed from genotypes."""

from __future__ import annotations

from pydantic import Field

from genodl_spark.core.toml import Names, Section


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
