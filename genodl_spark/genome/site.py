"""What a site is: when records of several files, sample sets or cohorts speak of the same alleles.

Contig and POS (1-based) are compared by the caller. Sections are those of the VCF specification 4.3.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

SPELLED = "[ACGTNacgtn]+"  # an allele that is all bases
_SPELLED = re.compile(rf"{SPELLED}|\*")
# Bases count without case; IDs of symbolic alleles and contigs of breakends with it (section 1.6.1 items 4 and 5).
_PARTS = re.compile(r"<[^>]*>|[\[\]][^\[\]]*[\[\]]|[acgtn]+")
_SVLEN = re.compile(r"(?:^|;)SVLEN=([^;]*)")
Alleles = tuple[str, tuple[str, ...], int, str]


def folded(allele: str) -> str:
    """An allele with its bases in upper case."""
    return (
        allele.upper()
        if allele.isalpha()
        else _PARTS.sub(lambda part: part[0].upper() if part[0].isalpha() else part[0], allele)
    )


def alleles(ref: str, alts: Sequence[str], end: int, info: str) -> Alleles:
    """What two records at one POS share where they are one site: REF, ALTs in order, and how far they
    reach where REF does not say it.

    REF says it where every ALT is bases or `*`. Else `end`, the record's last base (1-based, closed),
    tells blocks and symbolic alleles of different length apart; of insertions, which end where they start,
    the lengths in `info` do, whatever their sign.
    """
    folded_alts = tuple(folded(alt) for alt in alts)
    if alts and all(_SPELLED.fullmatch(alt) for alt in alts):
        return folded(ref), folded_alts, 0, ""
    lengths = _SVLEN.search(info) if any(alt.startswith("<INS") for alt in alts) else None
    return folded(ref), folded_alts, end, lengths[1].replace("-", "") if lengths else ""
