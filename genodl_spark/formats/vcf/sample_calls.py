"""Calls of the one sample of a VCF or BCF, record by record, for a comparison with a truth.

Only what carries an allele that is no REF comes out: reference calls, blocks of gVCFs and calls without alleles are
passed over. Positions are 1-based.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache

from genodl_spark.core.errors import InputError
from genodl_spark.core.text_values import shown
from genodl_spark.formats.vcf import reader
from genodl_spark.formats.vcf.header import Header
from genodl_spark.genetics.calling.evaluation import Call
from genodl_spark.genetics.calling.matching import Variant, spelled

_REFERENCE = (b".", b"<NON_REF>", b"<*>")  # ALT of a record that calls no variant
_NO_CHANGE = (b"*", b"<*>", b"<NON_REF>")
_PASSED = (b"PASS", b".")  # FILTER of the record, and FT of the sample
_DEPTH = re.compile(rb"(?:^|;)DP=([0-9]{1,9})(?:;|$)")
_COLUMNS = 10


@dataclass
class Calls:
    """A file, and what was passed over in it. `scored_by`: GQ where the header has it, else QUAL. passed_over: records
    with a variant that cannot be compared, by reason."""

    uri: str
    header: Header
    passed_over: Counter[str] = field(default_factory=Counter)

    @property
    def scored_by(self) -> str:
        return "GQ" if "GQ" in self.header.format else "QUAL"

    def __iter__(self) -> Iterator[tuple[str, Call]]:
        """(contig as in the file, call) in the order of the file.

        InputError, with the line, for a record that cannot be read, positions that go back, a contig that comes again,
        and a file that is not whole.
        """
        contig, position, done = b"", 0, set[bytes]()
        name = ""
        scored = self.scored_by == "GQ"
        for number, block in _blocks(self.uri, self.header):
            for i, line in enumerate(block.split(b"\n")):
                columns = line.split(b"\t")
                if len(columns) != _COLUMNS:
                    if not line:
                        continue
                    raise self._bad(f"{len(columns)} columns", f"{_COLUMNS}, with tabs between them", number + i)
                chrom, pos, _, ref, alt, qual, filters, info, keys, sample = columns
                try:
                    at = int(pos)
                except ValueError:
                    raise self._bad(f"POS {_text(pos)}", "a whole number", number + i) from None
                if chrom != contig:
                    if chrom in done:
                        advice = "each contig's records together: sort the file, as bcftools sort does"
                        raise self._bad(f"contig {_text(chrom)} once more", advice, number + i)
                    done.add(chrom)
                    contig, name = chrom, chrom.decode("utf-8", "replace")
                elif at < position:
                    advice = "sorted records: sort the file, as bcftools sort does"
                    raise self._bad(f"POS {at} behind {position}", advice, number + i)
                position = at
                if alt in _REFERENCE:
                    continue
                genotype_at, quality_at, depth_at, filter_at = _places(keys)
                values = sample.split(b":")
                if genotype_at < 0 or genotype_at >= len(values):
                    continue
                try:
                    genotype = _genotype(values[genotype_at])
                except ValueError:
                    found = f"GT {_text(values[genotype_at])}"
                    raise self._bad(found, "indices of alleles, as 0/1", number + i) from None
                if max(genotype) < 1:
                    continue
                alts = tuple(alt.upper().split(b","))
                if max(genotype) > len(alts):
                    found = f"GT {_text(values[genotype_at])} and {len(alts)} ALT"
                    raise self._bad(found, "indices of alleles that are there", number + i)
                if len(genotype) > 2:
                    self.passed_over["genotypes of more than two alleles"] += 1
                    continue
                ref = ref.upper()
                called = [alts[allele - 1] for allele in genotype if allele > 0]
                if not spelled(ref) or any(not spelled(one) and one not in _NO_CHANGE for one in called):
                    self.passed_over["alleles that are not spelled in bases"] += 1
                    continue
                if all(one in _NO_CHANGE or one == ref for one in called):
                    continue
                score = _number(values, quality_at) if scored else _float(qual)
                depth = _number(values, depth_at)
                if math.isnan(depth) and (of_site := _DEPTH.search(info)) is not None:
                    depth = float(of_site[1])
                passed = filters in _PASSED and not (0 <= filter_at < len(values) and values[filter_at] not in _PASSED)
                yield (
                    name,
                    Call(
                        Variant(at, ref, alts, genotype),
                        passed,
                        score,
                        -1 if math.isnan(depth) else int(depth),
                        number + i,
                    ),
                )

    def _bad(self, found: str, expected: str, line: int) -> InputError:
        return InputError(f"found {found}; expected {expected}", self.uri, line)


def calls_of(uri: str) -> Calls:
    """A file with one sample. InputError for one that is no VCF, or has no sample or several."""
    header = reader.header_of(uri)
    if len(header.samples) != 1:
        named = ", ".join(header.samples[:3]) + (", ..." if len(header.samples) > 3 else "")
        found = f"{len(header.samples)} samples ({named})" if header.samples else "no sample"
        advice = "keep one, as with bcftools view -s NAME" if header.samples else "genotypes are what is compared"
        raise InputError(f"found {found}; expected one: {advice}", uri, header.lines)
    return Calls(uri, header)


def _blocks(uri: str, header: Header) -> Iterator[tuple[int, bytes]]:
    yield from reader.split_lines(uri, reader.splits(uri, 1 << 62)[0], 1, header)


@lru_cache(256)
def _places(keys: bytes) -> tuple[int, int, int, int]:
    """Where GT, GQ, DP and FT stand in a FORMAT; -1 for one that does not."""
    names = keys.split(b":")
    gt, gq, dp, ft = (names.index(name) if name in names else -1 for name in (b"GT", b"GQ", b"DP", b"FT"))
    return gt, gq, dp, ft


@lru_cache(4096)
def _genotype(text: bytes) -> tuple[int, ...]:
    """Indices of alleles, -1 for a missing one. ValueError for no genotype."""
    alleles = text.replace(b"|", b"/").removeprefix(b"/").split(b"/")  # VCF 4.4 may say a phase in front
    found = tuple(-1 if allele == b"." else int(allele) for allele in alleles)
    if any(allele < -1 for allele in found):
        raise ValueError(text)
    return found


def _number(values: list[bytes], at: int) -> float:
    return _float(values[at]) if 0 <= at < len(values) else math.nan


def _float(text: bytes) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _text(value: bytes) -> str:
    return shown(value.decode("utf-8", "replace"))
