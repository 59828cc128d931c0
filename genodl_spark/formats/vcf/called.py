"""Variant calls as text of a VCF 4.3: the header, and a line for each call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from genodl_spark.formats.vcf.header import FIXED
from genodl_spark.genetics.calling.calls import FILTERS, Call

_FORMAT = {
    "GT": ("1", "String", "Genotype"),
    "GQ": ("1", "Integer", "Phred-scaled chance that the genotype is another one"),
    "DP": ("1", "Integer", "Molecules whose reads overlap the place"),
    "AD": ("R", "Integer", "Molecules that tell for each allele"),
    "PL": ("G", "Integer", "Phred-scaled likelihoods of the genotypes, the best 0"),
}


def header(contigs: Mapping[str, int], sample: str, reference: str, source: str) -> str:
    """The whole header. `contigs`: names and bases in order; `source`: what made the calls."""
    lines = ["##fileformat=VCFv4.3", f"##source={source}", f"##reference={reference}"]
    lines += [f'##FILTER=<ID={name},Description="{text}">' for name, text in {"PASS": "A call", **FILTERS}.items()]
    lines += [f"##contig=<ID={name},length={length}>" for name, length in contigs.items()]
    lines += [
        f'##FORMAT=<ID={name},Number={number},Type={kind},Description="{text}">'
        for name, (number, kind, text) in _FORMAT.items()
    ]
    return "\n".join([*lines, "\t".join([*FIXED, "FORMAT", sample])]) + "\n"


def lines(calls: Sequence[Call], chrom: str) -> bytes:
    """A line for each call."""
    keys = ":".join(_FORMAT)
    found = []
    for call in calls:
        site = call.site
        values = (
            call.genotype,
            str(call.quality),
            str(site.depth),
            ",".join(map(str, site.ad)),
            ",".join(map(str, site.pl)),
        )
        fixed = (chrom, str(site.pos + 1), ".", site.ref, ",".join(site.alts), f"{site.variant:.1f}", call.filter, ".")
        found.append("\t".join([*fixed, keys, ":".join(values)]))
    return "".join(line + "\n" for line in found).encode()
