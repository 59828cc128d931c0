"""Sites that are calls: which of them leave, with which FILTER, as rows of the table `calls`.

A record is the call of one sample, or of a child, its father and its mother at a site with the same alleles.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from genodl_spark.genetics.calling.alleles import Allele
from genodl_spark.genetics.calling.genotypes import Site, pairs, position
from genodl_spark.genetics.calling.judged import NETWORK_REFERENCE, Place, judged
from genodl_spark.genetics.calling.trio import TrioSite
from genodl_spark.lake.tables.calls import CALLS

PASS, LOW_QUALITY, NO_READS = "PASS", "LowQual", "NoReads"
FILTERS = {
    LOW_QUALITY: "It is hardly likelier that there is a variant than that there is none",
    NO_READS: "The site was asked for, and no read says anything of it",
    NETWORK_REFERENCE: "The likelihood is sure of a variant, the network says that there is none",
}
_HIGHEST = 99  # GQ, as other callers have it
Fixed: TypeAlias = Mapping[str, object]


@dataclass(frozen=True)
class Call:
    """A site with what is said of it. `evidence`: see the table `calls`."""

    site: Site
    evidence: dict[str, float]

    @property
    def genotype(self) -> str:
        return "./." if self.site.genotype is None else "/".join(map(str, self.site.genotype))

    @property
    def quality(self) -> int:
        """GQ, rounded down."""
        return min(int(self.site.quality), _HIGHEST)


@dataclass(frozen=True)
class Record:
    """Calls of the same alleles, of a sample or of child, father and mother. `quality`: QUAL, phred-scaled chance that
    none has another allele than the reference; `de_novo`: chance that the child has one that its parents lack."""

    calls: tuple[Call, ...]
    filter: str
    quality: float
    de_novo: float | None = None

    @property
    def site(self) -> Site:
        return self.calls[0].site


def recorded(
    sites: Sequence[Site],
    forced: Iterable[Allele],
    least_quality: float,
    network: Mapping[Place, np.ndarray] | None = None,
) -> list[Record]:
    """Records of those sites whose likeliest genotype has another allele than the reference, and of those that hold an
    allele that was `forced`. `network`: what it says of candidates, see `judged.judged`."""
    asked = {(position(allele), allele.change != 0) for allele in forced}
    found = []
    for site in sites:
        both = judged(site, network or {})
        last = site if both is None else both.site
        wanted = (site.pos, any(len(alt) != len(site.ref) for alt in site.alts)) in asked
        if wanted or last.genotype not in (None, (0, 0)):
            overruled = both is not None and both.overruled
            why = NETWORK_REFERENCE if overruled else _filter([last], last.variant, least_quality)
            said = {} if both is None else {f"network_{n}": float(c) for n, c in enumerate(both.network[0])}
            found.append(Record((Call(last, _likelihood(site) | said),), why, last.variant))
    return found


def recorded_trios(sites: Sequence[TrioSite], least_quality: float) -> list[Record]:
    """Records of those sites at which any of the three has another allele than the reference."""
    found = []
    for one in sites:
        if any(site.genotype not in (None, (0, 0)) for site in one.members):
            calls = tuple(Call(site, _likelihood(site)) for site in one.members)
            found.append(Record(calls, _filter(one.members, one.variant, least_quality), one.variant, one.de_novo))
    return found


def _filter(sites: Sequence[Site], quality: float, least: float) -> str:
    if all(site.genotype is None for site in sites):
        return NO_READS
    return LOW_QUALITY if quality < least and any(site.genotype not in (None, (0, 0)) for site in sites) else PASS


def _likelihood(site: Site) -> dict[str, float]:
    names = [f"likelihood_{low}/{high}" for low, high in pairs(len(site.alts) + 1)]
    return dict(zip(names, site.posterior.tolist(), strict=True))


def rows(records: Sequence[Record], contig: str, chrom: str, samples: Sequence[str], fixed: Fixed) -> pa.RecordBatch:
    """Rows of CALLS of one contig, named as `contig` in the lake and as `chrom` in the reads: one for each of `samples`
    of each record; `fixed`: the columns that are the same in all."""
    each = [(record, call) for record in records for call in record.calls]
    columns: dict[str, Any] = {
        "sample_id": list(samples) * len(records),
        "pos": [call.site.pos + 1 for _, call in each],
        "ref": [call.site.ref for _, call in each],
        "alt": [",".join(call.site.alts) for _, call in each],
        "gt": [call.genotype for _, call in each],
        "gq": [call.quality for _, call in each],
        "qual": [record.quality for record, _ in each],
        "filter": [record.filter for record, _ in each],
        "dp": [call.site.depth for _, call in each],
        "ad": [call.site.ad.tolist() for _, call in each],
        "pl": [call.site.pl.tolist() for _, call in each],
        "evidence": [list(call.evidence.items()) for _, call in each],
        "de_novo": [record.de_novo if call is record.calls[0] else None for record, call in each],
    }
    same = {**fixed, "contig": contig, "chrom": chrom}
    schema = CALLS.arrow_schema()
    arrays = [pa.array(columns.get(f.name, [same.get(f.name)] * len(each)), f.type) for f in schema]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)
