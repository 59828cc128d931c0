"""Sites of genotype files that are no VCF (PLINK, BGEN): which of two alleles is REF, and rows of `variants`.

Such files name alleles first and second, and do not say which one the reference has. With a FASTA the reference says
it, and indels are left-aligned; without one REF is the allele that the format's own users take for it, and INFO has
PR (provisional reference), as PLINK 2 writes it into VCF. Positions are 1-based.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genodl_spark.core.errors import Refused
from genodl_spark.core.text_values import order_hash, shown
from genodl_spark.formats.sample_table import SampleTable
from genodl_spark.formats.streams import Note
from genodl_spark.formats.vcf.header import Header
from genodl_spark.formats.vcf.normalise import Normaliser, needs
from genodl_spark.genome.contigs import is_human, numbered_contig
from genodl_spark.genome.reference import Reference
from genodl_spark.lake.tables.ingested import QUARANTINE, VARIANTS

UNKNOWN = frozenset({"0", "."})  # an allele that nobody has, and that was not written down
PROVISIONAL, AS_REFERENCE = "PR", "."  # INFO of a site whose REF no reference has confirmed, and of others
HIGHEST = 2**31 - 1  # position that BCF has
_KEPT = 4096
_BASES = re.compile("[ACGTNacgtn]+")
_OPPOSITE = str.maketrans("ACGTacgt", "TGCAtgca")
_META = """##fileformat=VCFv4.3
##INFO=<ID=PR,Number=0,Type=Flag,Description="REF is provisional: no reference has confirmed it">
##FORMAT=<ID=GT,Number=1,Type=String,Description="Genotype">
##FORMAT=<ID=DS,Number=A,Type=Float,Description="Expected copies of the ALT allele, in steps of 0.0001">"""


@dataclass(frozen=True)
class GenotypeHeader(Header):
    """What a genotype file says of itself, as the header of a VCF of the same records.

    `people`: what it says of its samples. `notes`: what is told of it. `human`: numbers of its chromosomes are those
    of people.
    """

    people: SampleTable | None = None
    notes: tuple[str, ...] = ()
    human: bool = True


def header(
    samples: list[str], chromosomes: Iterable[str], people: SampleTable | None, notes: Sequence[str] = ()
) -> GenotypeHeader:
    """The header of a file with these samples and names of chromosomes."""
    names = [name for name in chromosomes if name not in UNKNOWN]
    human = is_human(names)
    contigs = list(dict.fromkeys(numbered_contig(name, human) for name in names))
    if not human:
        notes = [*notes, "chromosomes have numbers beyond 26, so that 23 to 26 are not X, Y, XY and MT"]
    lines = [_META, *(f"##contig=<ID={contig}>" for contig in contigs)]
    columns = ["#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO", "FORMAT", *samples]
    text = "\n".join([*lines, "\t".join(columns)])
    lengths: dict[str, int | None] = dict.fromkeys(contigs)
    return GenotypeHeader(3, text, 0, samples, {}, {}, lengths, True, (), people, tuple(notes), human)


@dataclass(frozen=True)
class Site:
    """A site as it is stored. `order`: for each allele, REF first, which of the file's it is, from 0."""

    pos: int
    ref: str
    alts: list[str]
    order: list[int]
    info: str


class Orientation:
    """Holds alleles against a reference. `note` is told of what it cannot decide."""

    def __init__(self, reference: Reference, note: Note) -> None:
        self._reference, self._note = reference, note
        self._normaliser = Normaliser(Header(3, "", 0, [], {}, {}, {}, False), False, reference)

    def site(self, number: int, contig: str, pos: int, alleles: list[str]) -> Site:
        """The site of record `number` at `pos` of `contig`, whose alleles stand as the format has them, the usual
        REF first. An allele in UNKNOWN is nobody's.

        Refused where the reference has none of them there, or is not known there.
        """
        known = [i for i, allele in enumerate(alleles) if allele not in UNKNOWN]
        odd = next((alleles[i] for i in known if not _BASES.fullmatch(alleles[i])), None)
        if odd is not None:
            raise Refused(f"found allele {shown(odd)}; expected bases, to hold them against the reference")
        if pos < 1:
            raise Refused(f"found position {pos}; expected one of the reference, 1 or more")
        fits = [i for i in known if self._there(contig, pos, len(alleles[i])) == alleles[i].upper()]
        if len(fits) > 1:
            self._note(number, "have alleles that both stand in the reference, and REF as their file has it")
            at = 0 if 0 in fits else fits[0]
            return self._aligned(contig, pos, alleles, at, PROVISIONAL)
        if fits:
            pair = {alleles[i].upper() for i in known}
            if len(pair) == 2 and pair == {allele.translate(_OPPOSITE) for allele in pair}:
                self._note(number, "have alleles A and T or C and G, taken to be of the reference's strand")
            return self._aligned(contig, pos, alleles, fits[0], AS_REFERENCE)
        base = self._there(contig, pos, 1)
        if len(known) < len(alleles) and all(len(alleles[i]) == 1 for i in known):
            unknown = next(i for i in range(len(alleles)) if i not in known)
            filled = [base if i == unknown else allele for i, allele in enumerate(alleles)]
            return Site(pos, base, *_others(filled, unknown), AS_REFERENCE)
        turned = any(
            self._there(contig, pos, len(alleles[i])) == alleles[i].translate(_OPPOSITE)[::-1].upper() for i in known
        )
        strand = ": they may be of the other strand, turn them round" if turned else ", check the build"
        found = " and ".join(shown(allele) for allele in alleles[:3])
        raise Refused(f"found alleles {found}; expected one to be {base} there, as in the reference{strand}")

    def _there(self, contig: str, pos: int, length: int) -> str:
        return self._reference.fetch(contig, pos - 1, pos - 1 + length).decode("ascii").upper()

    def _aligned(self, contig: str, pos: int, alleles: list[str], ref: int, info: str) -> Site:
        alts, order = _others(alleles, ref)
        if not alts or not needs(alleles[ref].encode(), ",".join(alts).encode()):
            return Site(pos, alleles[ref], alts, order, info)
        line = "\t".join([contig, str(pos), ".", alleles[ref], ",".join(alts), ".", ".", "."])
        _, moved, _, first, others, *_ = self._normaliser.lines(line.encode())[0].text.decode().split("\t")
        return Site(int(moved), first, others.split(","), order, info)


def _others(alleles: list[str], ref: int) -> tuple[list[str], list[int]]:
    rest = [i for i in range(len(alleles)) if i != ref and alleles[i] not in UNKNOWN]
    return [alleles[i] for i in rest], [ref, *rest]


@dataclass(frozen=True)
class Rows:
    """Makes rows of `variants` and `quarantine` for a file.

    `human`: whether numbers of chromosomes are those of people. `source`: what `quarantine` calls the kind of file.
    """

    cohort: str
    file: str
    bin_width: int
    samples: Sequence[str]
    human: bool
    source: str

    def batch(self, chrom: pa.Array, pos: np.ndarray, ref: pa.Array, **others: pa.Array) -> pa.RecordBatch:
        """Rows from columns, all alike in length: text `chrom` and `ref`, int64 `pos`, and others as the table has
        them; those that are not given are what a record without them has."""
        n, coded = len(pos), chrom.dictionary_encode()
        contigs = pa.array([numbered_contig(name, self.human) for name in coded.dictionary.to_pylist()], pa.string())
        lengths = pc.utf8_length(ref).to_numpy(zero_copy_only=False).astype(np.int64)
        made = {
            "contig": contigs.take(coded.indices),
            "bin": pa.array((pos // self.bin_width).astype(np.int32)),
            "chrom": chrom,
            "pos": pa.array(pos),
            "end": pa.array(pos + np.maximum(lengths, 1) - 1),
            "ref": ref,
            **others,
        }
        alike: dict[str, object] = {
            "cohort": self.cohort,
            "n_samples": len(self.samples),
            "sample_set": order_hash(self.samples),
            "alt_number": 0,
            "file": self.file,
        }
        schema = VARIANTS.arrow_schema()
        made |= {f.name: pa.repeat(pa.scalar(alike.get(f.name), f.type), n) for f in schema if f.name not in made}
        return pa.RecordBatch.from_arrays([made[f.name] for f in schema], schema=schema)

    def aside(self, bad: Iterable[tuple[int, str, str]]) -> pa.RecordBatch:
        """Rows of `quarantine`: number of the record, why, and its text."""
        place = (self.cohort, self.source, self.file)
        found = [
            dict(zip(QUARANTINE.column_names, (*place, number, reason, text[:_KEPT]), strict=True))
            for number, reason, text in sorted(bad)
        ]
        return pa.RecordBatch.from_pylist(found, schema=QUARANTINE.arrow_schema())
