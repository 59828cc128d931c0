"""Settings of what is computed from genotypes."""

from __future__ import annotations

from pydantic import Field

from genodl_spark.core.toml import Names, Section


class QualityControl(Section):
    """Quality control of genotypes. `steps`: some of variants, samples, pruning, relatedness, components.

    `min_allele_frequency`, `max_missing`: variants whose rarer allele is less frequent, or that a larger share of samples lacks, take part in
    neither pruning nor relatedness nor components. `kinship`: pairs above it are related; the default is where third degree begins.
    `pruned`: steps that use only variants in approximate linkage equilibrium; `window` (variants, or bases with `window_in_bases`),
    `step` and `r2` are those of PLINK's --indep-pairwise. `depth`: means of DP and GQ, for which all of FORMAT is read.
    """

    steps: Names = Field(["variants", "samples", "relatedness", "components"])
    min_allele_frequency: float = Field(0.01, ge=0, le=0.5)
    max_missing: float = Field(0.1, ge=0, le=1)
    kinship: float = Field(2**-4.5, ge=-10, le=0.5)
    components: int = Field(10, ge=1)
    pruned: Names = Field(["components"])
    window: int = Field(50, ge=2)
    window_in_bases: bool = False
    step: int = Field(5, ge=1)
    r2: float = Field(0.2, ge=0, le=1)
    depth: bool = True
