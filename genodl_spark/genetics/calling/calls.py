"""Sites that are calls: which of them leave, with which FILTER, as rows of the table `calls`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from genodl_spark.genetics.calling.genotypes import Site
from genodl_spark.lake.tables.calls import CALLS

PASS, LOW_QUALITY = "PASS", "LowQual"
FILTERS = {LOW_QUALITY: "It is hardly likelier that there is a variant than that there is none"}
_HIGHEST = 99  # GQ, as other callers have it


@dataclass(frozen=True)
class Call:
    """A site with what is said of it. `evidence`: see the table `calls`."""

    site: Site
    filter: str
    evidence: dict[str, float] = field(default_factory=dict)

    @property
    def genotype(self) -> str:
        return "./." if self.site.genotype is None else "/".join(map(str, self.site.genotype))

    @property
    def quality(self) -> int:
        """GQ, rounded down."""
        return min(int(self.site.quality), _HIGHEST)


def called(sites: Sequence[Site], least_quality: float) -> list[Call]:
    """Calls of those sites whose likeliest genotype has another allele than the reference."""
    found = []
    for site in sites:
        if site.genotype != (0, 0):
            names = [f"likelihood_{low}/{high}" for high in range(len(site.alts) + 1) for low in range(high + 1)]
            evidence = dict(zip(names, site.posterior.tolist(), strict=True))
            found.append(Call(site, PASS if site.variant >= least_quality else LOW_QUALITY, evidence))
    return found


def rows(calls: Sequence[Call], contig: str, chrom: str, fixed: dict[str, object]) -> pa.RecordBatch:
    """Rows of CALLS of one contig, named as `contig` in the lake and as `chrom` in the reads; `fixed`: the columns that
    are the same in all."""
    columns = {
        "contig": [contig] * len(calls),
        "chrom": [chrom] * len(calls),
        "pos": [call.site.pos + 1 for call in calls],
        "ref": [call.site.ref for call in calls],
        "alt": [",".join(call.site.alts) for call in calls],
        "gt": [call.genotype for call in calls],
        "gq": [call.quality for call in calls],
        "qual": [call.site.variant for call in calls],
        "filter": [call.filter for call in calls],
        "dp": [call.site.depth for call in calls],
        "ad": [call.site.ad.tolist() for call in calls],
        "pl": [call.site.pl.tolist() for call in calls],
        "evidence": [list(call.evidence.items()) for call in calls],
    }
    schema = CALLS.arrow_schema()
    arrays = [pa.array(columns.get(f.name, [fixed.get(f.name)] * len(calls)), f.type) for f in schema]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)
