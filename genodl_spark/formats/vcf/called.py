"""Variant calls as text of a VCF 4.3: the header, a line for each record, and for each block of a gVCF."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from genodl_spark.formats.vcf.header import FIXED
from genodl_spark.genetics.calling.calls import FILTERS, Call, Record
from genodl_spark.genetics.calling.reference_blocks import Block

_FORMAT = {
    "GT": ("1", "String", "Genotype"),
    "GQ": ("1", "Integer", "Phred-scaled chance that the genotype is another one"),
    "DP": ("1", "Integer", "Molecules whose reads overlap the place"),
    "AD": ("R", "Integer", "Molecules that tell for each allele"),
    "PL": ("G", "Integer", "Phred-scaled likelihoods of the genotypes, the best 0"),
}
_DE_NOVO = "DNM", ("1", "Float", "Chance that the child has an allele that its parents lack")
_BLOCK = "MIN_DP", ("1", "Integer", "Fewest reads over a base of the block")


def header(contigs: Mapping[str, int], samples: Sequence[str], reference: str, source: str, blocks: bool) -> str:
    """The whole header. `contigs`: names and bases in order; `samples`: one, or child, father, mother; `source`: what
    made the calls; `blocks`: whether the file has those of a gVCF."""
    fields = dict([*_FORMAT.items(), *([_DE_NOVO] if len(samples) > 1 else []), *([_BLOCK] if blocks else [])])
    lines = ["##fileformat=VCFv4.3", f"##source={source}", f"##reference={reference}"]
    lines += [f'##FILTER=<ID={name},Description="{text}">' for name, text in {"PASS": "A call", **FILTERS}.items()]
    if blocks:
        lines.append('##ALT=<ID=*,Description="Any other allele">')
        lines.append('##INFO=<ID=END,Number=1,Type=Integer,Description="Last base of the block">')
    lines += [f"##contig=<ID={name},length={length}>" for name, length in contigs.items()]
    lines += [
        f'##FORMAT=<ID={name},Number={number},Type={kind},Description="{text}">'
        for name, (number, kind, text) in fields.items()
    ]
    if len(samples) > 1:
        child, father, mother = samples
        lines.append(f"##PEDIGREE=<ID={child},Father={father},Mother={mother}>")
    return "\n".join([*lines, "\t".join([*FIXED, "FORMAT", *samples])]) + "\n"


def line(record: Record, chrom: str) -> str:
    site, keys, values = record.site, ":".join(_FORMAT), [_values(call) for call in record.calls]
    if record.de_novo is not None:
        keys += f":{_DE_NOVO[0]}"
        values = [f"{values[0]}:{record.de_novo:.4g}", *(f"{value}:." for value in values[1:])]
    fixed = (chrom, str(site.pos + 1), ".", site.ref, ",".join(site.alts), f"{record.quality:.1f}", record.filter, ".")
    return "\t".join([*fixed, keys, *values]) + "\n"


def _values(call: Call) -> str:
    site = call.site
    lists = [",".join(map(str, some.tolist())) for some in (site.ad, site.pl)]
    return ":".join([call.genotype, str(call.quality), str(site.depth), *lists])


def block_line(block: Block, chrom: str) -> str:
    genotype = "./." if block.genotype is None else "0/0"
    values = (genotype, str(block.quality), str(block.depth), ",".join(map(str, block.pl)))
    fixed = (chrom, str(block.start + 1), ".", block.ref, "<*>", ".", ".", f"END={block.end}")
    return "\t".join([*fixed, f"GT:GQ:{_BLOCK[0]}:PL", ":".join(values)]) + "\n"
