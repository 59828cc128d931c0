"""What variants do to transcripts: terms of the Sequence Ontology, codons, amino acids, HGVS. Pure NumPy and Arrow.

Terms, their order and where each begins and ends are those of Ensembl's VEP, without its shift of alleles: an
insertion or deletion counts where the record has it, and only HGVS moves it, to the last place that spells the same
sequence. All pairs of a variant and a transcript are worked on at once, by interval; only changes of a coding
sequence that are no substitution of one base are looked at one by one, in `hgvs.protein_change`.
An insertion between an exon and an intron, or between an untranslated region and a coding one, lengthens the exon,
and the untranslated region. Alleles that are no bases (`structural`) have terms by place, those that VEP gives
structural variants, and neither codons nor HGVS; deletions and insertions also those of splice sites.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genodl_spark.genome import hgvs, structural
from genodl_spark.genome.bases import text_codes
from genodl_spark.genome.codons import STOP, amino_acids
from genodl_spark.genome.transcripts import NAMES, Transcripts, complement

NEARBY = 5000  # bases beside a transcript that are still upstream or downstream of it
_HIGH, _MODERATE, _LOW, _MODIFIER = "HIGH", "MODERATE", "LOW", "MODIFIER"
_RANKED = {  # the most severe first
    "transcript_ablation": _HIGH,
    "splice_acceptor_variant": _HIGH,
    "splice_donor_variant": _HIGH,
    "stop_gained": _HIGH,
    "frameshift_variant": _HIGH,
    "stop_lost": _HIGH,
    "start_lost": _HIGH,
    "transcript_amplification": _HIGH,
    "feature_elongation": _HIGH,
    "feature_truncation": _HIGH,
    "inframe_insertion": _MODERATE,
    "inframe_deletion": _MODERATE,
    "missense_variant": _MODERATE,
    "protein_altering_variant": _MODERATE,
    "splice_donor_5th_base_variant": _LOW,
    "splice_region_variant": _LOW,
    "splice_donor_region_variant": _LOW,
    "splice_polypyrimidine_tract_variant": _LOW,
    "incomplete_terminal_codon_variant": _LOW,
    "start_retained_variant": _LOW,
    "stop_retained_variant": _LOW,
    "synonymous_variant": _LOW,
    "coding_sequence_variant": _MODIFIER,
    "5_prime_UTR_variant": _MODIFIER,
    "3_prime_UTR_variant": _MODIFIER,
    "non_coding_transcript_exon_variant": _MODIFIER,
    "intron_variant": _MODIFIER,
    "NMD_transcript_variant": _MODIFIER,
    "non_coding_transcript_variant": _MODIFIER,
    "upstream_gene_variant": _MODIFIER,
    "downstream_gene_variant": _MODIFIER,
    "intergenic_variant": _MODIFIER,
    "sequence_variant": _MODIFIER,
}
TERMS = list(_RANKED)
IMPACTS = list(_RANKED.values())
CLASSES = {  # what a change does to a protein, as tests of genes take variants together
    "lof": [
        *("transcript_ablation", "splice_acceptor_variant", "splice_donor_variant", "stop_gained"),
        *("frameshift_variant", "stop_lost", "start_lost"),
    ],
    "missense": ["missense_variant"],
    "synonymous": ["synonymous_variant"],
}
_BIT = {term: np.int64(1) << place for place, term in enumerate(TERMS)}


@dataclass(frozen=True)
class Variants:
    """N variants of one contig: a stretch of the reference [start, end), 0-based, and what stands in its stead.

    `start`, `end` int64 (N,): without the bases that both alleles begin or end with; an insertion has start == end.
    `alt` int8: base codes one behind the other, those of variant n at [alt_of[n], alt_of[n + 1]), int64 (N + 1,).
    `kind` int8 (N,): of `structural`; what is not spelled has no bases here.
    """

    start: np.ndarray
    end: np.ndarray
    alt: np.ndarray
    alt_of: np.ndarray
    kind: np.ndarray

    @classmethod
    def of_alleles(cls, position: np.ndarray, ref: pa.Array, alt: pa.Array) -> Variants:
        """Of records: `position` int64 (N,) 1-based, REF and ALT of bases in either case."""
        (ref_codes, ref_of), (alt_codes, alt_of) = text_codes(ref), text_codes(alt)
        ref_size, alt_size = np.diff(ref_of), np.diff(alt_of)
        front = _shared(ref_codes, ref_of[:-1], alt_codes, alt_of[:-1], np.minimum(ref_size, alt_size), 1)
        rest = np.minimum(ref_size, alt_size) - front
        back = _shared(ref_codes, ref_of[1:] - 1, alt_codes, alt_of[1:] - 1, rest, -1)
        start = position - 1 + front
        size = alt_size - front - back
        kept = np.concatenate([[0], np.cumsum(size)])
        places = np.repeat(alt_of[:-1] + front - kept[:-1], size) + np.arange(kept[-1])
        kind = np.full(len(start), structural.SPELLED, np.int8)
        return cls(start, position - 1 + ref_size - back, alt_codes[places], kept, kind)

    @classmethod
    def of_stretches(cls, start: np.ndarray, end: np.ndarray, kind: np.ndarray) -> Variants:
        """Of alleles that are no bases, as `structural.placed` has them."""
        return cls(start, end, np.zeros(0, np.int8), np.zeros(len(start) + 1, np.int64), kind)

    def __len__(self) -> int:
        return len(self.start)

    def alleles(self, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Inserted bases of the variants `chosen`, one behind the other, and where each begins."""
        size = np.diff(self.alt_of)[chosen]
        of = np.concatenate([[0], np.cumsum(size)])
        return self.alt[np.repeat(self.alt_of[chosen] - of[:-1], size) + np.arange(of[-1])], of


def _shared(
    a: np.ndarray, at_a: np.ndarray, b: np.ndarray, at_b: np.ndarray, most: np.ndarray, step: int
) -> np.ndarray:
    """How many letters two texts share from where they are on, int64 (N,), `most` at most. A round for each letter, of
    those that have shared all before it."""
    shared = np.zeros(len(most), np.int64)
    active = np.flatnonzero(most > 0)
    while len(active):
        count = shared[active]
        same = a[at_a[active] + step * count] == b[at_b[active] + step * count]
        active = active[same]
        shared[active] += 1
        active = active[shared[active] < most[active]]
    return shared


@dataclass(frozen=True)
class Stretch:
    """Base codes int8 of a contig from `first`, 0-based, on. What lies outside is unknown."""

    first: int
    codes: np.ndarray

    def at(self, position: np.ndarray) -> np.ndarray:
        place = position - self.first
        inside = (place >= 0) & (place < len(self.codes))
        if inside.all():
            return self.codes[place]
        found = np.full(place.shape, -1, np.int8)
        found[inside] = self.codes[place[inside]]
        return found


def consequences(variants: Variants, transcripts: Transcripts, bases: Stretch, code: np.ndarray) -> pa.Table:
    """A row per variant and transcript within NEARBY bases of it, and one per variant that has none, intergenic or of
    a kind that does not tell (`sequence_variant`); by variant.

    `variant` int64: which of them. `terms`: the ranked ones, the most severe first; `impact` that of the first, `rank`
    its place among all, from 1. `picked`: the row of the variant that is most severe, of several the one whose
    transcript is preferred. NAMES, strand, exon and intron (of the first base changed, from 1), positions of the
    transcript, the coding sequence and the protein (1-based, of the first base changed), codons (changed bases in
    upper case), amino acids, HGVS; NULL where there is none. `code`: of `codons.code_of`.
    """
    pairs = Pairs(variants, transcripts, bases, code)
    return pairs.table()


class Pairs:
    """All pairs of a variant and a transcript, P of them, by variant: which terms hold, and what is written of each."""

    def __init__(self, variants: Variants, transcripts: Transcripts, bases: Stretch, code: np.ndarray) -> None:
        self.variants, self.transcripts, self.bases, self.code = variants, transcripts, bases, code
        self.variant, self.transcript = _near(variants, transcripts)
        v, t = self.variant, self.transcript
        self.start, self.end, self.kind = variants.start[v], variants.end[v], variants.kind[v]
        self.size = np.diff(variants.alt_of)[v]
        self.strand = transcripts.strand[t]
        self.forward = self.strand > 0
        first, last = transcripts.start[t], transcripts.end[t]
        self.inside = (self.start < last) & (self.end > first)
        before = self.end <= first
        self.terms = np.where(
            self.inside,
            0,
            np.where(before == self.forward, _BIT["upstream_gene_variant"], _BIT["downstream_gene_variant"]),
        )
        whole = self.inside & (self.start <= first) & (self.end >= last)
        goes = np.isin(self.kind, (structural.SPELLED, structural.DELETION)) & (self.size < self.end - self.start)
        doubles = self.kind == structural.DUPLICATION
        self.terms[whole & goes] = _BIT["transcript_ablation"]
        self.terms[whole & doubles] = _BIT["transcript_amplification"]
        self.entire = whole & (goes | doubles)
        part, longer = self.inside & ~self.entire, doubles | (self.kind == structural.INSERTION)
        self.terms[part & (self.kind == structural.DELETION)] |= _BIT["feature_truncation"]
        self.terms[part & longer & (self.start >= first) & (self.end <= last)] |= _BIT["feature_elongation"]
        self.coding = transcripts.coding[t]
        self._exons()
        self._introns()
        self._regions()
        self.codons: dict[str, pa.Array] = {}
        self._coding_changes()

    def _within(self) -> np.ndarray:
        return np.flatnonzero(self.inside & ~self.entire)

    def _exons(self) -> None:
        """`touched`: how many exons a variant changes; `exon`: the first of them in the order of the genome.
        `q0`, `q1`: the boundaries of the stretch as positions of the transcript."""
        t, insertion = self.transcripts, self.start == self.end
        begins, ends = t.keys(t.exon_owner, t.exon_start), t.keys(t.exon_owner, t.exon_end)
        low, high = self.start - insertion, self.end + insertion
        self.exon = np.searchsorted(ends, t.keys(self.transcript, low), "right")
        self.touched = np.searchsorted(begins, t.keys(self.transcript, high), "left") - self.exon
        self.touched[~self.inside] = 0
        a, b = (t.cdna(self.transcript, x) for x in (self.start, self.end))
        self.q0, self.q1 = np.minimum(a, b), np.maximum(a, b)
        exon = np.minimum(self.exon, len(t.exon_end) - 1)
        self.in_one = (self.touched == 1) & (self.start >= t.exon_start[exon]) & (self.end <= t.exon_end[exon])

    def _introns(self) -> None:
        """Terms of splice sites and introns: every pair with every intron that it lies in, or within 3 bases of."""
        t = self.transcripts
        is_intron = np.ones(len(t.exon_start), bool)
        is_intron[t.exon_of[1:] - 1] = False  # the last exon has none behind it
        left = np.flatnonzero(is_intron)
        begins, ends, owner = t.exon_end[left], t.exon_start[left + 1], t.exon_owner[left]
        rows = self._within()
        first = np.searchsorted(t.keys(owner, ends), t.keys(self.transcript[rows], self.start[rows] - 3), "left")
        last = np.searchsorted(t.keys(owner, begins), t.keys(self.transcript[rows], self.end[rows] + 3), "right")
        count = np.maximum(last - first, 0)
        rows, first, count = rows[count > 0], first[count > 0], count[count > 0]
        if not len(rows):
            return
        firsts = np.cumsum(count) - count
        intron = np.repeat(first - firsts, count) + np.arange(count.sum())
        row = np.repeat(rows, count)
        length = ends[intron] - begins[intron]
        ahead = self.forward[row]
        # boundaries of the stretch counted from the donor's side on, and from the acceptor's
        x0 = np.where(ahead, self.start[row] - begins[intron], ends[intron] - self.end[row])
        x1 = np.where(ahead, self.end[row] - begins[intron], ends[intron] - self.start[row])
        y0, y1 = x0 - length, x1 - length
        insertion = x0 == x1

        def donor(a: int, b: int) -> np.ndarray:
            found: np.ndarray = (x0 < b) & (x1 > a)
            return found

        def acceptor(a: int, b: int) -> np.ndarray:
            found: np.ndarray = (y0 < b) & (y1 > a)
            return found

        at_edge = insertion & ((x0 == 0) | (y0 == 0) | (x0 == 2) | (y0 == -2))
        holds = {
            "splice_donor_variant": donor(0, 2),
            "splice_acceptor_variant": acceptor(-2, 0),
            "splice_donor_5th_base_variant": donor(4, 5),
            "splice_donor_region_variant": donor(2, 6),
            "splice_region_variant": donor(-3, 0) | donor(2, 8) | acceptor(-8, -2) | acceptor(0, 3) | at_edge,
            "splice_polypyrimidine_tract_variant": acceptor(-17, -2),
            "intron_variant": ((x0 < length - 2) & (x1 > 2)) | (insertion & ((x0 == 2) | (y0 == -2))),
        }
        bits = np.zeros(len(row), np.int64)
        for term, hold in holds.items():
            bits |= np.where(hold, _BIT[term], 0)
        vague = np.isin(self.kind[row], (structural.DUPLICATION, structural.INVERSION, structural.COPIES))
        bits[vague | (self.kind[row] == structural.BREAKEND)] &= _BIT["intron_variant"]
        found = np.bitwise_or.reduceat(bits, firsts)
        self._drop(found, "splice_region_variant", ("splice_donor_variant", "splice_acceptor_variant"))
        self._drop(found, "splice_donor_region_variant", ("splice_donor_5th_base_variant",))
        self.terms[rows] |= found

    @staticmethod
    def _drop(bits: np.ndarray, term: str, where: tuple[str, ...]) -> None:
        """A term that says no more than others that hold."""
        others = np.bitwise_or.reduce([_BIT[other] for other in where])
        bits[(bits & others) != 0] &= ~_BIT[term]

    def _regions(self) -> None:
        """Terms of exons and of kinds of transcripts; `in_coding`: pairs that change the coding sequence."""
        t, exonic = self.transcript, (self.touched > 0) & ~self.entire
        c0, c1 = self.transcripts.coding_start[t], self.transcripts.coding_end[t]
        insertion = self.start == self.end
        self.c0, self.c1 = c0, c1
        five = exonic & self.coding & ((self.q0 < c0) | (insertion & (self.q0 == c0)))
        three = exonic & self.coding & ((self.q1 > c1) | (insertion & (self.q1 == c1)))
        self.in_coding = exonic & self.coding & (self.q0 < c1) & (self.q1 > c0)
        within = self.inside & ~self.entire
        biotype = pc.equal(self.transcripts.names["biotype"], "nonsense_mediated_decay")
        decays = pc.fill_null(biotype, False).combine_chunks().to_numpy(zero_copy_only=False)[t]
        holds = {
            "5_prime_UTR_variant": five,
            "3_prime_UTR_variant": three,
            "non_coding_transcript_exon_variant": exonic & ~self.coding,
            "non_coding_transcript_variant": within & ~exonic & ~self.coding,
            "NMD_transcript_variant": within & self.coding & decays,
        }
        for term, hold in holds.items():
            self.terms[hold] |= _BIT[term]

    def _coding_changes(self) -> None:
        """Terms, codons, amino acids and HGVS p. of the pairs that change a coding sequence."""
        rows = np.flatnonzero(self.in_coding)
        within = (self.in_one & (self.kind == structural.SPELLED))[rows]
        self.terms[rows[~within]] |= _BIT[
            "coding_sequence_variant"
        ]  # part of an intron goes as well, or it is no bases
        rows = rows[within]
        self.spliced, self.spliced_of = self.transcripts.spliced(self.bases.at)
        single = (self.q1[rows] - self.q0[rows] == 1) & (self.size[rows] == 1)
        texts = [self._substitutions(rows[single]), self._other_changes(rows[~single])]
        order = [rows[single], rows[~single]]
        place = np.full(len(self.terms), -1, np.int64)
        place[np.concatenate(order)] = np.arange(len(rows))
        taken = pa.array(place, mask=place < 0)
        for name in ("codons", "amino_acids", "hgvs_p"):
            self.codons[name] = pa.concat_arrays([part[name] for part in texts]).take(taken)

    def _substitutions(self, rows: np.ndarray) -> dict[str, pa.Array]:
        """Of single bases: all at once."""
        t = self.transcript[rows]
        begin = self.spliced_of[t] + self.c0[rows]
        phase = self.transcripts.phase[t].astype(np.int64)
        at = self.q0[rows] - self.c0[rows]
        number = (at - phase) // 3  # -1 within an incomplete first codon
        place = (at - phase) % 3
        first = phase + 3 * number
        whole = (first >= 0) & (first + 3 <= self.c1[rows] - self.c0[rows])
        codon = np.full((len(rows), 3), -1, np.int8)
        codon[whole] = self.spliced[(begin + first)[whole][:, None] + np.arange(3)]
        alt = self.variants.alt[self.variants.alt_of[self.variant[rows]]]
        changed = codon.copy()
        changed[np.arange(len(rows)), place] = np.where(self.forward[rows], alt, complement(alt))
        old, new = amino_acids(codon, self.code), amino_acids(changed, self.code)
        known = whole & (old != ord("X")) & (new != ord("X"))
        starts = known & (number == 0) & (phase == 0)
        lost = starts & (new != ord("M")) & (old != new)
        same = known & (old == new)
        holds = {
            "start_lost": lost,
            "stop_gained": known & (new == STOP) & (old != STOP) & ~lost,
            "stop_lost": known & (old == STOP) & (new != STOP),
            "stop_retained_variant": same & (old == STOP),
            "synonymous_variant": same & (old != STOP),
            "missense_variant": known & ~same & (old != STOP) & (new != STOP) & ~lost,
            "coding_sequence_variant": ~known,
            "incomplete_terminal_codon_variant": ~whole & (first >= 0),
        }
        for term, hold in holds.items():
            self.terms[rows[hold]] |= _BIT[term]
        described = hgvs.substituted(old, new, number + 1, lost)
        for row in np.flatnonzero(holds["stop_lost"]):
            behind = self.spliced[begin[row] + first[row] + 3 : self.spliced_of[t[row] + 1]]
            described[row] = hgvs.extension(behind, chr(new[row]), int(number[row]) + 1, self.code)
        letters = np.frombuffer(b"acgtn", np.uint8)
        texts = np.full((len(rows), 7), ord("/"), np.uint8)
        for side, bases in ((0, codon), (4, changed)):
            texts[:, side : side + 3] = letters[np.where(bases < 0, 4, bases)]
            texts[np.arange(len(rows)), side + place] -= 32  # upper case
        residues = np.full((len(rows), 3), ord("/"), np.uint8)
        residues[:, 0], residues[:, 2] = old, new
        both = _text(residues)
        return {
            "codons": pc.if_else(pa.array(whole), _text(texts), pa.scalar(None, pa.string())),
            "amino_acids": pc.if_else(
                pa.array(known), pc.if_else(pa.array(same), pc.utf8_slice_codeunits(both, 0, 1), both), None
            ),
            "hgvs_p": pc.if_else(pa.array(known), pa.array(described, pa.string()), pa.scalar(None, pa.string())),
        }

    def _other_changes(self, rows: np.ndarray) -> dict[str, pa.Array]:
        """Of insertions, deletions and longer substitutions: one by one, as their proteins differ in length."""
        texts: dict[str, list[str | None]] = {"codons": [], "amino_acids": [], "hgvs_p": []}
        for row in rows.tolist():
            spliced, place, alt = self._change(row)
            coding, phase = (int(self.c0[row]), int(self.c1[row])), int(self.transcripts.phase[self.transcript[row]])
            change = hgvs.protein_change(spliced, coding, phase, place, alt, self.code)
            for term in change.terms:
                self.terms[row] |= _BIT[term]
            for name, values in texts.items():
                values.append(getattr(change, name))
        return {name: pa.array(values, pa.string()) for name, values in texts.items()}

    def _change(self, row: int) -> tuple[np.ndarray, tuple[int, int], np.ndarray]:
        """Of a pair: the bases of its transcript, int8, and those that then stand where bases [q0, q1) did."""
        t, v = self.transcript[row], self.variant[row]
        alt = self.variants.alt[self.variants.alt_of[v] : self.variants.alt_of[v + 1]]
        spliced = self.spliced[self.spliced_of[t] : self.spliced_of[t + 1]]
        return (
            spliced,
            (int(self.q0[row]), int(self.q1[row])),
            alt if self.forward[row] else complement(alt[::-1]),
        )

    def table(self) -> pa.Table:
        t, taken = self.transcripts, pa.array(self.transcript)
        number = _lowest(self.terms)
        exonic = self.touched > 0
        exons = np.diff(t.exon_of)[self.transcript]
        within = self.exon - t.exon_of[self.transcript]
        last = within + np.maximum(self.touched, 1) - 1
        exon_number = np.where(self.forward, within + 1, exons - last)
        intron_number = np.where(self.forward, within, exons - within)
        first_coding = np.maximum(self.q0 - self.c0, 0)
        whole = self.in_coding & (first_coding >= t.phase[self.transcript])
        columns = {
            "variant": pa.array(self.variant),
            "terms": _lists(self.terms),
            "impact": pa.array(np.array(IMPACTS, object)[number], pa.string()),
            "rank": pa.array((number + 1).astype(np.int32)),
            "picked": pa.array(self._picked(number)),
            **{name: t.names[name].take(taken) for name in NAMES},
            "strand": pa.array(np.where(self.forward, "+", "-").astype(object), pa.string()),
            "exon": _numbers(exon_number, exonic),
            "intron": _numbers(intron_number, self.inside & ~exonic),
            "cdna_position": _numbers(self.q0 + 1, exonic),
            "cds_position": _numbers(first_coding + 1, self.in_coding),
            "protein_position": _numbers((first_coding - t.phase[self.transcript]) // 3 + 1, whole),
            **self.codons,
            "hgvs_c": hgvs.coding_dna(self),
        }
        made = pa.table(columns)
        alone = np.ones(len(self.variants), bool)
        alone[self.variant] = False
        missing = np.flatnonzero(alone)
        if not len(missing):
            return made
        unknown = self.variants.kind[missing] == structural.UNKNOWN
        place = np.where(unknown, TERMS.index("sequence_variant"), TERMS.index("intergenic_variant"))
        rest = {
            "variant": pa.array(missing),
            "terms": _lists(np.int64(1) << place),
            "impact": pa.array(np.array(IMPACTS, object)[place], pa.string()),
            "rank": pa.array((place + 1).astype(np.int32)),
            "picked": pa.array(np.ones(len(missing), bool)),
        }
        both = pa.concat_tables(
            [
                made,
                pa.table([rest.get(f.name, pa.nulls(len(missing), f.type)) for f in made.schema], schema=made.schema),
            ]
        )
        return both.take(pa.array(np.argsort(both["variant"].to_numpy(), kind="stable")))

    def _picked(self, number: np.ndarray) -> np.ndarray:
        t = self.transcripts
        size = np.where(self.coding, self.c1 - self.c0, 0)
        order = np.lexsort((self.transcript, -size, t.preferred[self.transcript], number, self.variant))
        chosen = np.zeros(len(order), bool)
        firsts = np.ones(len(order), bool)
        firsts[1:] = np.diff(self.variant[order]) != 0
        chosen[order[firsts]] = True
        return chosen


def _near(variants: Variants, transcripts: Transcripts) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of variants and transcripts within NEARBY bases of each other, by variant: int64 (P,) each. None of
    variants of which is not known where they end."""
    order = np.argsort(variants.start, kind="stable")
    start, longest = variants.start[order], int((variants.end - variants.start).max(initial=0))
    first = np.searchsorted(start, transcripts.start - NEARBY - longest, "left")
    last = np.searchsorted(start, transcripts.end + NEARBY, "left")
    count = np.maximum(last - first, 0)
    variant = order[np.repeat(first - (np.cumsum(count) - count), count) + np.arange(count.sum())]
    transcript = np.repeat(np.arange(len(transcripts)), count)
    reach = np.maximum(variants.end, variants.start + 1)[variant] > transcripts.start[transcript] - NEARBY
    reach &= variants.kind[variant] != structural.UNKNOWN
    variant, transcript = variant[reach], transcript[reach]
    by_variant = np.argsort(variant, kind="stable")
    return variant[by_variant], transcript[by_variant]


def _lowest(bits: np.ndarray) -> np.ndarray:
    """The lowest bit that is set of each, int64: the most severe term."""
    lowest: np.ndarray = np.log2((bits & -bits).astype(np.float64)).astype(np.int64)
    return lowest


def _lists(bits: np.ndarray) -> pa.Array:
    sets, which = np.unique(bits, return_inverse=True)
    texts = [[term for term in TERMS if _BIT[term] & one] for one in sets.tolist()]
    return pa.array(texts, pa.list_(pa.string())).take(pa.array(which))


def _numbers(values: np.ndarray, known: np.ndarray) -> pa.Array:
    return pa.array(values.astype(np.int64), mask=~known)


def _text(letters: np.ndarray) -> pa.Array:
    """Texts of equal length, uint8 (n, length) of ASCII."""
    rows, width = letters.shape
    offsets = np.arange(rows + 1, dtype=np.int32) * width
    return pa.StringArray.from_buffers(rows, pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(letters)))
