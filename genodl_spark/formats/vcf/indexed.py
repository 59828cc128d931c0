"""Records of a region of an indexed VCF or BCF, through htslib: what is known of one person's variants (1-based, closed
intervals), and alleles that calls are asked for (0-based, half-open)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import pysam

from genodl_spark.core import storage
from genodl_spark.core.errors import InputError
from genodl_spark.genetics.calling.matching import Variant
from genodl_spark.genome.contigs import shared_contig

_BASES = frozenset("ACGTacgt")


@dataclass(frozen=True)
class Truth:
    """The genotypes of `sample` in the file at `uri`. `contigs`: as in the file, by the names that cohorts share."""

    uri: str
    sample: str
    contigs: dict[str, str]

    def variants(self, contig: str, first: int, last: int) -> list[Variant]:
        """Those that touch bases [`first`, `last`] of a contig, by any of its names. InputError for a file that is not
        whole."""
        name = self.contigs.get(shared_contig(contig))
        if name is None:
            return []
        with _opened(self.uri) as file:
            return [
                Variant(
                    record.pos,
                    (record.ref or "").upper().encode(),
                    tuple(alt.upper().encode() for alt in record.alts or ()),
                    tuple(-1 if allele is None else allele for allele in record.samples[self.sample].get("GT", ())),
                )
                for record in file.fetch(name, max(first - 1, 0), last)
            ]


def truth_of(uri: str, samples: list[str]) -> Truth:
    """The truth in a file about one of `samples`, or about the one that it has. InputError for a file that is no VCF,
    has no index beside it, or several samples of which not just one is asked for."""
    with _opened(uri) as file:
        _check_index(file, uri)
        names = list(file.header.samples)
        named = [name for name in names if name in samples]
        if len(named) != 1 and len(names) != 1:
            shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
            found = f"{len(names)} samples ({shown})" if names else "no sample"
            raise InputError(f"found {found}; expected one, or {' or '.join(samples[:3])} among them", uri)
        contigs = [str(name) for name in file.index]
        return Truth(uri, (named or names)[0], {shared_contig(name): name for name in contigs})


def alleles_within(uri: str, chrom: str, first: int, last: int) -> list[tuple[int, str, str]]:
    """POS from 0, REF and ALT of each allele spelled in bases whose record begins within [`first`, `last`), 0-based, of
    a contig, which may be named with or without chr. InputError for a file without an index, or that is no VCF."""
    with _opened(uri) as file:
        _check_index(file, uri)
        return [
            (record.start, str(record.ref).upper(), alt.upper())
            for name in map(str, file.header.contigs)
            if shared_contig(name) == shared_contig(chrom)
            for record in file.fetch(name, first, last)
            if first <= record.start < last
            for alt in record.alts or ()
            if set(alt) <= _BASES
        ]


def _check_index(file: pysam.VariantFile, uri: str) -> None:
    if file.index is None:
        advice = "bcftools index makes one"
        raise InputError(f"found no index beside the file; expected one: {advice}, after bgzip", uri)


@contextlib.contextmanager
def _opened(uri: str) -> Iterator[pysam.VariantFile]:
    path = storage.local_path(uri) if storage.is_local(uri) else uri
    verbosity = pysam.set_verbosity(0)
    try:
        with pysam.VariantFile(path) as file:
            yield file
    except (OSError, ValueError) as error:
        if storage.kind(uri) == "absent":
            raise InputError("no such file; expected a readable file, check the path", uri) from error
        what = f"found what htslib cannot read ({str(error).splitlines()[0][:120]})"
        raise InputError(f"{what}; expected a whole VCF or BCF with its index", uri) from error
    finally:
        pysam.set_verbosity(verbosity)
