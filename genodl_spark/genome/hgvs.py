"""Changes of transcripts and proteins as HGVS writes them (recommendations of version 21).

`c.` and `n.` of many variants at once: moved as far in the direction of transcription as the same sequence allows.
`p.` without parentheses, in three letters: substitutions at once, all else one by one. Positions are 0-based inside,
1-based as text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genodl_spark.genome import structural
from genodl_spark.genome.bases import LETTERS, spelled
from genodl_spark.genome.codons import THREE, translated
from genodl_spark.genome.transcripts import complement, replaced

if TYPE_CHECKING:
    from genodl_spark.genome.consequences import Pairs, Stretch, Variants

SAME = "p.="  # the protein is what it was


@dataclass(frozen=True)
class Change:
    """What a variant does to a protein: terms in no order; codons, amino acids and HGVS p., None where not known."""

    terms: tuple[str, ...]
    codons: str | None = None
    amino_acids: str | None = None
    hgvs_p: str | None = None


def substituted(old: np.ndarray, new: np.ndarray, number: np.ndarray, start_lost: np.ndarray) -> np.ndarray:
    """HGVS p. of single amino acids, letters uint8 (n,), at `number` from 1: texts, object (n,)."""
    size = pa.array(number.astype(np.int64)).cast(pa.string())
    after = np.where(start_lost, "?", np.where(old == new, "=", THREE[new]))
    joined = pc.binary_join_element_wise(
        "p.", pa.array(THREE[old], pa.string()), size, pa.array(after, pa.string()), ""
    )
    texts: np.ndarray = joined.to_numpy(zero_copy_only=False)
    return texts


def extension(behind: np.ndarray, residue: str, number: int, code: np.ndarray) -> str:
    """HGVS p. of a stop codon at `number` that now reads `residue`; `behind`: the bases after it, int8 (n,)."""
    stop = translated(behind, code).find(b"*")
    return f"p.Ter{number}{_three(residue)}extTer{'?' if stop < 0 else stop + 1}"


def protein_change(
    spliced: np.ndarray, coding: tuple[int, int], phase: int, place: tuple[int, int], alt: np.ndarray, code: np.ndarray
) -> Change:
    """What a change of a transcript's bases `spliced`, int8, does to its protein: `alt` stands where bases [place) did.

    `coding`: the coding region, whose first `phase` bases belong to a codon that is not whole. The change lies in one
    exon, at least partly in the coding region. Where a shifted frame reads the same protein to its end, the stop codon
    counts as retained.
    """
    (c0, c1), (q0, q1) = coding, place
    changed = replaced(spliced, place, alt)
    shift = len(alt) - (q1 - q0)
    whole_start = phase == 0
    starts = whole_start and q0 < c0 + 3
    moves = starts and bool(shift) and (q0 < c0 or not _reads_start(changed[c0 : c0 + 3], code))
    if moves and np.array_equal(changed[-(len(spliced) - c0) :], spliced[c0:]):
        return Change(("start_retained_variant",), hgvs_p=SAME)
    if q0 < c0:
        return Change(("start_lost",), hgvs_p="p.Met1?") if whole_start else Change(("coding_sequence_variant",))
    first = c0 + phase
    if q0 < first:
        return Change(("coding_sequence_variant",))
    begin = first + (q0 - first) // 3 * 3
    end = begin + -(-(q1 - begin) // 3) * 3
    if end > c1 and q1 <= c1:
        return Change(("incomplete_terminal_codon_variant", "coding_sequence_variant"))
    index = (begin - first) // 3
    protein = translated(spliced[first:c1], code).decode()
    tail = translated(changed[begin:], code).decode()
    tail = tail[: tail.find("*") + 1] or tail
    if q1 > c1:
        if not protein.endswith("*") or (c1 - first) % 3:
            return Change(("coding_sequence_variant",))
        if tail == protein[index:]:
            return Change(("stop_retained_variant",), hgvs_p=SAME)
        return Change(("stop_lost",), hgvs_p=_from_first_difference(protein, tail, index))
    old_codons, new_codons = spliced[begin:end], np.concatenate([spliced[begin:q0], alt, spliced[q1:end]])
    old, new = translated(old_codons, code).decode(), translated(new_codons, code).decode()
    partial = len(new_codons) % 3 > 0
    written = {
        "codons": f"{_cased(spliced, begin, q0, q1, end)}/{_cased(changed, begin, q0, q0 + len(alt), end + shift)}",
        "amino_acids": old if old == new and old and not partial else f"{old or '-'}/{new + 'X' * partial or '-'}",
    }
    if "X" in old or "X" in new:
        unknown = "frameshift_variant" if shift % 3 else "coding_sequence_variant"
        return Change((unknown,), codons=written["codons"])
    if tail == protein[index:] and (shift or "*" in old):
        return Change(("stop_retained_variant",), hgvs_p=f"p.Ter{index + 1}=" if old == "*" else SAME, **written)
    terms = []
    start_lost = starts and not _reads_start(changed[c0 : c0 + 3], code) and old[:1] != new[:1]
    gains, loses = "*" in new and "*" not in old, "*" in old and "*" not in new
    if start_lost:
        terms.append("start_lost")
    if gains and not start_lost:
        terms.append("stop_gained")
    if loses:
        terms.append("stop_lost")
    if shift % 3:
        terms.append("frameshift_variant")
    elif not shift:
        if old == new:
            terms.append("synonymous_variant")
        elif not terms:
            terms.append("missense_variant")
    elif shift > 0:
        cut = new[: new.find("*") + 1] or new
        if (cut.startswith(old) or cut.endswith(old)) and not start_lost:
            terms.append("inframe_insertion")
        elif not terms:
            terms.append("protein_altering_variant")
    elif not len(alt):
        terms.append("inframe_deletion")
    elif not terms:
        terms.append("protein_altering_variant")
    if start_lost:
        described: str | None = "p.Met1?"
    elif shift % 3 or loses:
        described = _from_first_difference(protein, tail, index)
    else:
        described = _within_frame(protein, old, new, index)
    return Change(tuple(terms), hgvs_p=described, **written)


def _reads_start(codon: np.ndarray, code: np.ndarray) -> bool:
    return translated(codon, code) == b"M"


def _three(residues: str) -> str:
    return "".join(THREE[ord(residue)] for residue in residues)


def _cased(bases: np.ndarray, begin: int, q0: int, q1: int, end: int) -> str:
    """Bases [begin, end) in lower case, of them [q0, q1) in upper; - for none."""
    parts = [(begin, q0, False), (q0, q1, True), (q1, end, False)]
    texts = [spelled(bases[a:b]) for a, b, _ in parts]
    return "".join(text if upper else text.lower() for text, (_, _, upper) in zip(texts, parts, strict=True)) or "-"


def _from_first_difference(protein: str, tail: str, index: int) -> str | None:
    """Of a protein that reads `tail` from `index` on, to its first stop where there is one: a frameshift, a stop, or
    an extension."""
    rest = protein[index:]
    same = next((i for i, (a, b) in enumerate(zip(rest, tail, strict=False)) if a != b), min(len(rest), len(tail)))
    if same >= len(rest) or same >= len(tail):
        return None
    old, new, number = rest[same], tail[same], index + same + 1
    stop = len(tail) - 1 - same if tail.endswith("*") else None
    if new == "*":
        return f"p.{_three(old)}{number}Ter"
    if old == "*":
        return f"p.Ter{number}{_three(new)}extTer{'?' if stop is None else stop}"
    return f"p.{_three(old)}{number}{_three(new)}fsTer{'?' if stop is None else stop + 1}"


def _within_frame(protein: str, old: str, new: str, index: int) -> str | None:
    """Of amino acids `old` at `index` (from 0) that became `new`, in frame: the last place that spells the same."""
    if old == new:
        return f"p.{_range(protein, index, len(old))}="
    new = new[: new.find("*") + 1] or new
    while old and new and old[0] == new[0]:
        old, new, index = old[1:], new[1:], index + 1
    if new.startswith("*"):
        return f"p.{_range(protein, index, 1)}Ter"
    while old and new and old[-1] == new[-1]:
        old, new = old[:-1], new[:-1]
    if not old:
        while "*" not in new and protein[index] == new[0]:
            new, index = new[1:] + new[0], index + 1
        if protein[max(index - len(new), 0) : index] == new:
            return f"p.{_range(protein, index - len(new), len(new))}dup"
        return f"p.{_range(protein, index - 1, 2)}ins{_three(new)}" if index else None
    if not new:
        while protein[index : index + 1] == protein[index + len(old) : index + len(old) + 1] != "":
            index += 1
        return f"p.{_range(protein, index, len(old))}del"
    if len(old) == len(new) == 1:
        return f"p.{_three(old)}{index + 1}{_three(new)}"
    return f"p.{_range(protein, index, len(old))}delins{_three(new)}"


def _range(protein: str, index: int, size: int) -> str:
    ends = [index] if size == 1 else [index, index + size - 1]
    return "_".join(f"{_three(protein[i])}{i + 1}" for i in ends)


def coding_dna(pairs: Pairs) -> pa.Array:
    """HGVS c., or n. of transcripts without a coding region, of every pair: NULL where a variant reaches out of its
    transcript, and for what is not spelled in bases."""
    variants, transcripts, bases = pairs.variants, pairs.transcripts, pairs.bases
    begins, ends = transcripts.start[pairs.transcript], transcripts.end[pairs.transcript]
    spelled_out = pairs.kind == structural.SPELLED
    rows = np.flatnonzero(pairs.inside & spelled_out & (pairs.start >= begins) & (pairs.end <= ends))
    texts = np.full(len(pairs.start), -1, np.int64)
    texts[rows] = np.arange(len(rows))
    v, forward = pairs.variant[rows], pairs.forward[rows]
    low, high, inserted = pairs.start[rows], pairs.end[rows], pairs.size[rows]
    single = (high - low == 1) & (inserted == 1)
    ahead, back = (_slack(variants, bases, step) for step in (1, -1))
    room = np.where(forward, ends[rows] - high, low - begins[rows])
    moved = np.minimum(np.where(forward, ahead[v], back[v]), room)
    spelled = np.flatnonzero(~single & (inserted > 0))
    alt, alt_of = variants.alleles(v[spelled])
    size = np.diff(alt_of)
    row, own = np.repeat(spelled, size), np.repeat(size, size)
    within = np.arange(len(alt)) - np.repeat(alt_of[:-1], size)

    def turned() -> np.ndarray:
        """Inserted bases as they are once moved."""
        place = (within + np.where(forward[row], moved[row], -moved[row])) % own
        found: np.ndarray = alt[np.repeat(alt_of[:-1], size) + place]
        return found

    def copies() -> np.ndarray:
        """Insertions of what stands right before them, within the transcript."""
        found = np.zeros(len(rows), bool)
        if len(spelled):
            at = np.where(forward, low + moved - inserted, low - moved)
            same = (bases.at(at[row] + within) == turned()) & (low == high)[row]
            found[spelled] = np.logical_and.reduceat(same, alt_of[:-1])
        return found & np.where(forward, low + moved - inserted >= begins[rows], low - moved + inserted <= ends[rows])

    # an insertion that is no copy needs a base of the transcript on both sides
    moved -= ((low == high) & (moved == room) & (moved > 0) & ~copies()).astype(np.int64)
    copy, alt = copies(), turned()
    low, high = (np.where(forward, at + moved, at - moved) for at in (low, high))
    inverse = np.zeros(len(rows), bool)
    if len(spelled):
        opposite = (complement(bases.at(high[row] - 1 - within)) == alt) & (alt >= 0)
        fits = (high - low)[spelled] == size
        inverse[spelled] = np.logical_and.reduceat(opposite, alt_of[:-1]) & fits & (size > 1)
    kind = np.select(
        [single, copy, inverse, high == low, inserted == 0], ["", "dup", "inv", "ins", "del"], "delins"
    ).astype(object)
    joins = (high == low) & ~copy  # an insertion is named by the bases on both sides of it
    low, high = np.where(copy & forward, low - inserted, low), np.where(copy & ~forward, high + inserted, high)
    low, high = np.where(joins, low - 1, low), np.where(joins, high + 1, high)
    first, last = np.where(forward, low, high - 1), np.where(forward, high - 1, low)
    several = high - low > 1
    places = _places(pairs, rows, first)
    where = np.flatnonzero(several)
    second = pc.binary_join_element_wise("_", _places(pairs, rows[where], last[where]), "")
    detail = _details(variants, bases, v, forward, single, pairs.start[rows], (spelled, alt, alt_of, copy | inverse))
    system = pa.array(np.where(pairs.coding[rows], "c.", "n.").astype(object), pa.string())
    described = pc.binary_join_element_wise(
        system, places, _spread(second, where, len(rows)), pa.array(kind, pa.string()), detail, ""
    )
    return described.take(pa.array(texts, mask=texts < 0))


def _slack(variants: Variants, bases: Stretch, step: int) -> np.ndarray:
    """By how many bases each insertion or deletion can move, forward (1) or back (-1), and spell the same: int64 (N,).
    A round for each base, of those that have moved so far."""
    size, gone = np.diff(variants.alt_of), variants.end - variants.start
    moved = np.zeros(len(size), np.int64)
    active = np.flatnonzero(((size == 0) != (gone == 0)) & (variants.kind == structural.SPELLED))
    while len(active):
        k, length = moved[active], np.maximum(size, gone)[active]
        from_alt = (size[active] > 0) & (k < length)
        edge = variants.start[active] if step > 0 else variants.end[active] - 1
        behind = np.where(size[active] > 0, edge + step * (k - length), edge + step * k)
        enters = bases.at(np.where(size[active] > 0, edge + step * k, edge + step * (k + length)))
        place = variants.alt_of[active] + np.where(step > 0, k, length - 1 - k)
        leaves = bases.at(behind)
        leaves[from_alt] = variants.alt[place[from_alt]]
        active = active[(leaves == enters) & (enters >= 0)]
        moved[active] += 1
    return moved


def _places(pairs: Pairs, rows: np.ndarray, position: np.ndarray) -> pa.Array:
    """Positions of the genome as HGVS counts them along the pairs' transcripts: 5, -3, *7, 5+2, 6-1."""
    t, transcript = pairs.transcripts, pairs.transcript[rows]
    keys = t.keys(t.exon_owner, t.exon_start)
    left = np.searchsorted(keys, t.keys(transcript, position), "right") - 1
    right = np.minimum(left + 1, len(keys) - 1)
    size = t.exon_end - t.exon_start
    forward = pairs.forward[rows]
    exonic = position < t.exon_end[left]
    to_left, to_right = position - t.exon_end[left] + 1, t.exon_start[right] - position
    up, down = np.where(forward, left, right), np.where(forward, right, left)
    to_up, to_down = np.where(forward, to_left, to_right), np.where(forward, to_right, to_left)
    near_up = to_up <= to_down
    number = np.where(near_up, t.exon_cdna[up] + size[up] - 1, t.exon_cdna[down])
    within = position - t.exon_start[left]
    inside = t.exon_cdna[left] + np.where(forward, within, size[left] - 1 - within)
    number = np.where(exonic, inside, number)
    offset = np.where(exonic, 0, np.where(near_up, to_up, -to_down))
    coding, c0, c1 = pairs.coding[rows], pairs.c0[rows], pairs.c1[rows]
    five, three = coding & (number < c0), coding & (number >= c1)
    number = np.where(five, c0 - number, np.where(three, number - c1 + 1, np.where(coding, number - c0, number) + 1))
    prefix = np.select([five, three], ["-", "*"], "").astype(object)
    where = np.flatnonzero(offset)
    signs = pa.array(np.where(offset[where] > 0, "+", "-").astype(object), pa.string())
    offsets = pc.binary_join_element_wise(signs, pa.array(np.abs(offset[where])).cast(pa.string()), "")
    return pc.binary_join_element_wise(
        pa.array(prefix, pa.string()),
        pa.array(number.astype(np.int64)).cast(pa.string()),
        _spread(offsets, where, len(rows)),
        "",
    )


def _details(
    variants: Variants,
    bases: Stretch,
    v: np.ndarray,
    forward: np.ndarray,
    single: np.ndarray,
    position: np.ndarray,
    spelled: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
) -> pa.Array:
    """What stands behind the kind of change: A>C, or the inserted bases, in the direction of transcription."""
    old, new = bases.at(position), np.full(len(v), -1, np.int8)
    new[single] = variants.alt[variants.alt_of[v[single]]]
    pair = [np.where(forward, codes, complement(codes)) for codes in (old, new)]
    index = np.where(pair[0] < 0, 4, pair[0]).astype(np.int64) * 5 + np.where(pair[1] < 0, 4, pair[1])
    spellings = [f"{a}>{b}" for a in "ACGTN" for b in "ACGTN"] + [""]
    index[~single] = 25
    which, alt, alt_of, hidden = spelled
    size = np.diff(alt_of)
    flips = np.repeat(~forward[which], size)
    within = np.arange(len(alt)) - np.repeat(alt_of[:-1], size)
    mirrored = np.repeat(alt_of[:-1], size) + np.repeat(size, size) - 1 - within
    codes = np.where(flips, complement(alt[mirrored]), alt) if len(alt) else alt
    letters = np.ascontiguousarray(LETTERS[np.where(codes < 0, 4, codes)])
    sequences = pa.LargeStringArray.from_buffers(
        len(which), pa.py_buffer(alt_of.astype(np.int64)), pa.py_buffer(letters)
    )
    sequences = pc.if_else(pa.array(hidden[which]), "", sequences.cast(pa.string()))
    plain = pa.array(spellings).take(pa.array(index))
    return pc.binary_join_element_wise(plain, _spread(sequences, which, len(v)), "")


def _spread(texts: pa.Array, rows: np.ndarray, count: int) -> pa.Array:
    """Texts at `rows` among `count`, the others empty."""
    place = np.full(count, len(texts), np.int64)
    place[rows] = np.arange(len(texts))
    return pa.concat_arrays([texts, pa.array([""])]).take(pa.array(place))
