"""Alleles that are no bases: what symbolic ones and breakends say of a stretch of the reference.

Sections 1.6.1, 5.4 and 3 of the VCF specification 4.5; <CN0> and the like are those of the 1000 Genomes Project, copies
of one haplotype.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genodl_spark.genome.site import SPELLED as BASES

SPELLED, DELETION, DUPLICATION, INSERTION, INVERSION, COPIES, BREAKEND, UNKNOWN, NONE = range(9)
_PATTERNS = {
    NONE: r"^(\*|<\*>|<NON_REF>|<CN1>|\.)$",
    DELETION: r"^<(DEL(:[^>]*)?|CN0)>$",
    DUPLICATION: r"^<(DUP(:[^>]*)?|CN([2-9]|[1-9][0-9]+))>$",
    INSERTION: r"^<INS(:[^>]*)?>$",
    INVERSION: r"^<INV(:[^>]*)?>$",
    COPIES: r"^<CNV(:[^>]*)?>$",
    BREAKEND: rf"[\[\]]|^\.{BASES}$|^{BASES}\.$",
    SPELLED: f"^({BASES}|-)$",  # - for none, in tables of variants
}
_RANGES = (DELETION, DUPLICATION, INVERSION, COPIES)  # which say nothing without the place where they end
_NOTES = {
    COPIES: "how many copies there are is not known",
    BREAKEND: "what this end of a breakend does",
    UNKNOWN: "an allele that does not say what it changes",
}
_ENDLESS = "neither END nor SVLEN says where it ends"


def kinds(ref: pa.Array, alt: pa.Array) -> np.ndarray:
    """What kind each ALT is, int8 (n,); NONE for what is no change: `*`, <*>, <NON_REF>, and REF once more."""
    found = np.full(len(alt), UNKNOWN, np.int8)
    for kind, pattern in reversed(_PATTERNS.items()):
        found[pc.match_substring_regex(alt, pattern).to_numpy(zero_copy_only=False)] = kind
    found[pc.equal(pc.utf8_upper(ref), pc.utf8_upper(alt)).to_numpy(zero_copy_only=False)] = NONE
    letters = pc.match_substring_regex(ref, f"^{BASES}$").to_numpy(zero_copy_only=False)
    found[~letters & (found == SPELLED)] = UNKNOWN  # something comes in beside a base, on one side or the other
    return found


def placed(
    position: np.ndarray, end: np.ndarray, alt: pa.Array, kind: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, pa.Array]:
    """Stretches [start, end), 0-based, that alleles of a kind are about, int64 (n,) each, empty for insertions and
    breakends; their kinds, UNKNOWN where it takes an end that is not given; notes on what is not known, NULL for none.

    `position`: POS, 1-based, of the base before; `end`: the last base of the record, 1-based.
    """
    before = pc.match_substring_regex(alt, r"^[\[\]]|^\.").to_numpy(zero_copy_only=False)
    ranges = np.isin(kind, _RANGES)
    endless = ranges & (end <= position)
    start = position - ((kind == BREAKEND) & before)
    note = [_ENDLESS if without else _NOTES.get(int(one)) for without, one in zip(endless, kind, strict=True)]
    return start, np.where(ranges, end, start), np.where(endless, UNKNOWN, kind), pa.array(note, pa.string())
