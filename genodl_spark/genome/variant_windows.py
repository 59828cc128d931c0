"""What a sequence model sees of a variant: a window of the reference, and the same one with the other allele in it.
Pure NumPy, many variants of a contig at once.

Of REF and ALT the bases that both begin with, and then those that both end with, are left out; what is left stands at
[start, end) of the reference, 0-based, an insertion at start == end. In both windows of L bases `start` comes to
position L // 2 (from 0), where `bases.centred` puts the middle of a sequence, and the L // 2 bases before it are the
reference's. From there on one window goes on with the reference, and the other with what is left of ALT and then with
the reference from `end` on: the left flank is fixed, and of the right one the window with the shorter allele holds so
many bases more. What lies beyond the reference's ends is -1, and what does not fit is cut off at the right.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genodl_spark.core import packing
from genodl_spark.genome import structural
from genodl_spark.genome.bases import LETTERS, NO_BASE, text_codes
from genodl_spark.genome.consequences import Stretch, Variants
from genodl_spark.genome.site import SPELLED

_SHOWN = 40  # letters of an allele in a note


def windows(variants: Variants, bases: Stretch, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Windows int8 (N, length) of base codes with the reference, and with the other allele, of N variants of a contig,
    whose bases are those of `bases`."""
    before = length // 2
    place = np.arange(length)
    at = (variants.start - before)[:, None] + place
    size = np.diff(variants.alt_of)
    behind = before + size  # where the reference goes on
    skipped = (variants.end - variants.start - size)[:, None]
    other = bases.at(at + np.where(place >= behind[:, None], skipped, 0))
    fits = np.minimum(size, length - before)
    row = np.repeat(np.arange(len(variants)), fits)
    within = packing.runs(np.zeros(len(fits), np.int64), fits)
    other[row, before + within] = variants.alt[variants.alt_of[row] + within]
    return np.maximum(bases.at(at), -1), np.maximum(other, -1)


def reach(variants: Variants, length: int) -> tuple[int, int]:
    """From where to where, 0-based, half open, `windows` looks at the reference; not before its start."""
    first = int(variants.start.min()) - length // 2
    last = int(np.maximum(variants.end, variants.start).max()) + length
    return max(first, 0), last


def unspelled(ref: pa.Array, alt: pa.Array) -> pa.Array:
    """Why alleles have no windows, string (N,): an ALT, or a REF, that is not spelled in bases, or no change; NULL
    where they have. An ALT `-` is none, as tables of variants write a deletion; of a REF `-` nobody knows on which
    side of its base something comes in."""
    none = structural.kinds(ref, alt) == structural.NONE
    note = pa.nulls(len(ref), pa.string())
    for rows, parts in (
        (~_spelled(alt, or_none=True), ("found ALT ", alt, "; expected one that is spelled in bases")),
        (~_spelled(ref), ("found REF ", ref, "; expected one that is spelled in bases")),
        (none, ("found ALT ", alt, ", which is no change")),
    ):
        note = pc.if_else(pa.array(rows), _joined(*parts), note)
    return note


def _spelled(alleles: pa.Array, or_none: bool = False) -> np.ndarray:
    found: np.ndarray = pc.match_substring_regex(alleles, f"^({SPELLED}{'|-' if or_none else ''})$").to_numpy(
        zero_copy_only=False
    )
    return found


def misplaced(position: np.ndarray, ref: pa.Array, bases: Stretch) -> pa.Array:
    """Why REF, spelled in bases from `position` (1-based, int64 (N,)) on, is not what the reference has there, string
    (N,); NULL where it is. An unknown base, of either side, is as good as any; `bases` are NO_BASE where the reference
    has nothing."""
    codes, ends = text_codes(ref)
    sizes = np.diff(ends)
    place = packing.runs(position - 1, sizes)
    there = bases.at(place)
    inside = (place >= bases.first) & (place < bases.first + len(bases.codes))
    outside = _any(~inside | (there == NO_BASE), ends)
    other = _any((there >= 0) & (codes >= 0) & (there != codes), ends)
    note = pa.nulls(len(ref), pa.string())
    rows = np.flatnonzero(outside | other)
    if not len(rows):
        return note
    kept = packing.runs(ends[rows], sizes[rows])
    places = np.concatenate([[0], np.cumsum(sizes[rows])]).astype(np.int32)
    letters = packing.binary_array(LETTERS[np.where(there[kept] < 0, 4, there[kept])], places, type_=pa.string())
    few = ref.take(pa.array(rows))
    beyond = _joined("found REF ", few, " where the reference has no bases; expected a place that it has")
    unlike = _joined("found REF ", few, "; expected ", letters, ", as the reference has it")
    return pc.replace_with_mask(note, pa.array(outside | other), pc.if_else(pa.array(outside[rows]), beyond, unlike))


def _any(flags: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Whether any flag of each run is set, bool (N,); runs end at `ends` int (N + 1,), ends[0] being the start."""
    total = np.concatenate([[0], np.cumsum(flags)])
    return total[ends[1:]] > total[ends[:-1]]


def _joined(*parts: pa.Array | str) -> pa.Array:
    """Texts one behind the other; of each array the first letters."""
    return pc.binary_join_element_wise(
        *(part if isinstance(part, str) else pc.utf8_slice_codeunits(part, 0, _SHOWN) for part in parts), ""
    )
