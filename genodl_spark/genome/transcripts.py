"""Transcripts of one contig as arrays: exons, coding region, spliced sequence. Pure NumPy and Arrow.

Positions are 0-based and intervals half open, [start, end). Positions of a transcript (cDNA) count its exons' bases
in the order of transcription.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

NAMES = ["gene_id", "gene_name", "transcript_id", "transcript_version", "protein_id", "biotype"]
_PREFERRED = ("MANE_Select", "Ensembl_canonical", "appris_principal_1", "CCDS", "basic")
_CODING = ("CDS", "stop_codon")  # in a GTF the stop codon is no part of the CDS, in a GFF3 it is
_PARTS = ("exon", *_CODING)
_FAR = np.int64(1) << 33  # more than any position: keys of two transcripts do not meet


@dataclass(frozen=True)
class Transcripts:
    """Transcripts of one contig, T of them with E exons, ordered by `start`.

    `strand` int8 (T,) 1 or -1. `exon_of` int64 (T + 1,): where each transcript's exons begin. `exon_start`, `exon_end`
    int64 (E,) in the order of the genome. `coding_start`, `coding_end` int64 (T,): the coding region with its stop
    codon, as positions of the transcript; both -1 without. `phase` int8 (T,): bases of the coding region before its
    first whole codon. `preferred` int64 (T,): rank among transcripts by their tags, the lowest first.
    `names`: NAMES, a row for each.
    """

    start: np.ndarray
    end: np.ndarray
    strand: np.ndarray
    exon_of: np.ndarray
    exon_start: np.ndarray
    exon_end: np.ndarray
    exon_cdna: np.ndarray
    coding_start: np.ndarray
    coding_end: np.ndarray
    phase: np.ndarray
    preferred: np.ndarray
    names: pa.Table

    def __len__(self) -> int:
        return len(self.start)

    @property
    def coding(self) -> np.ndarray:
        found: np.ndarray = self.coding_end > self.coding_start
        return found

    @property
    def length(self) -> np.ndarray:
        """Bases of each transcript, int64 (T,)."""
        return np.add.reduceat(self.exon_end - self.exon_start, self.exon_of[:-1]) if len(self) else self.start

    def keys(self, transcript: np.ndarray, position: np.ndarray) -> np.ndarray:
        """Numbers that are ordered by transcript and, within one, by position of the genome."""
        found: np.ndarray = transcript.astype(np.int64) * _FAR + position + (_FAR >> 1)
        return found

    @property
    def exon_owner(self) -> np.ndarray:
        return np.repeat(np.arange(len(self)), np.diff(self.exon_of))

    def cdna(self, transcript: np.ndarray, position: np.ndarray) -> np.ndarray:
        """Exons' bases of a transcript that lie before a boundary of the genome (0-based, before the base of that
        number), in the order of transcription: positions of the transcript, int64 like `position`."""
        begins = self.keys(self.exon_owner, self.exon_start)
        exon = np.searchsorted(begins, self.keys(transcript, position), "right") - 1
        exon = np.clip(exon, self.exon_of[transcript], self.exon_of[transcript + 1] - 1)
        size = self.exon_end[exon] - self.exon_start[exon]
        within = np.clip(position - self.exon_start[exon], 0, size)
        found: np.ndarray = self.exon_cdna[exon] + np.where(self.strand[transcript] > 0, within, size - within)
        return found

    def spliced(self, bases: Callable[[np.ndarray], np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Bases of all transcripts one behind the other, int8, in the order of transcription, and int64 (T + 1,):
        where each begins. `bases` gives base codes at positions of the contig."""
        offsets = np.concatenate([[0], np.cumsum(self.length)]).astype(np.int64)
        size = self.exon_end - self.exon_start
        exon = np.repeat(np.arange(len(size)), size)
        within = np.arange(size.sum()) - np.repeat(np.cumsum(size) - size, size)
        owner = self.exon_owner
        codes = bases(self.exon_start[exon] + within)
        forward = self.strand[owner][exon] > 0
        place = offsets[owner][exon] + self.exon_cdna[exon] + np.where(forward, within, size[exon] - 1 - within)
        made = np.empty(len(codes), np.int8)
        made[place] = np.where(forward, codes, complement(codes))
        return made, offsets

    def between(self, first: int, last: int) -> Transcripts:
        """Those that lie at least partly in [first, last)."""
        return self.take(np.flatnonzero((self.start < last) & (self.end > first)))

    def take(self, chosen: np.ndarray) -> Transcripts:
        sizes = np.diff(self.exon_of)[chosen]
        ends = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        exons = np.arange(ends[-1]) + np.repeat(self.exon_of[chosen] - ends[:-1], sizes)
        of_transcripts = {
            name: getattr(self, name)[chosen]
            for name in ("start", "end", "strand", "coding_start", "coding_end", "phase", "preferred")
        }
        of_exons = {name: getattr(self, name)[exons] for name in ("exon_start", "exon_end", "exon_cdna")}
        return Transcripts(exon_of=ends, names=self.names.take(pa.array(chosen)), **of_transcripts, **of_exons)


def complement(codes: np.ndarray) -> np.ndarray:
    """Base codes of the other strand, at the same places."""
    found: np.ndarray = np.where(codes < 0, codes, 3 - codes)
    return found


def replaced(spliced: np.ndarray, place: tuple[int, int], alt: np.ndarray) -> np.ndarray:
    """Bases of a transcript, int8, after a change: `alt` stands where bases [place) did."""
    return np.concatenate([spliced[: place[0]], alt, spliced[place[1] :]])


def of_features(features: pa.Table) -> Transcripts:
    """Transcripts of the rows of one contig in the table `annotations`: exons, coding parts and stop codons by
    transcript_id. One without exons has its coding parts for exons; one without a strand is left out.

    Exons that touch or overlap are one. `biotype` and tags may stand at the transcript's own row only.
    """
    named = features.filter(pc.and_kleene(features["transcript_id"].is_valid(), pc.is_in(features["strand"], _STRANDS)))
    ids = pc.unique(named["transcript_id"].combine_chunks())
    of = pc.index_in(named["transcript_id"], ids).to_numpy().astype(np.int64)
    types = named["type"].combine_chunks()
    start, end = named["start"].to_numpy() - 1, named["end"].to_numpy()
    is_exon = pc.equal(types, "exon").to_numpy(zero_copy_only=False)
    is_coding = pc.is_in(types, pa.array(_CODING)).to_numpy(zero_copy_only=False)
    has_exons = np.zeros(len(ids), bool)
    has_exons[of[is_exon]] = True
    exonic = is_exon | (is_coding & ~has_exons[of])
    owner, first, last = _merged(of[exonic], start[exonic], end[exonic])
    present = np.unique(owner)
    of_exons = np.searchsorted(owner, present)
    began = first[of_exons] if len(present) else np.zeros(0, np.int64)
    order = np.argsort(began, kind="stable")
    counts = np.diff([*of_exons, len(owner)])[order] if len(present) else np.zeros(0, np.int64)
    exon_of = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    exons = np.arange(exon_of[-1]) + np.repeat(of_exons[order] - exon_of[:-1], counts)
    first, last, chosen = first[exons], last[exons], present[order]
    forward = pc.equal(named["strand"], "+").to_numpy()
    strand = np.zeros(len(ids), np.int8)
    strand[of[::-1]] = np.where(forward, 1, -1)[::-1]
    names, preferred = _names(named, of, len(ids))
    made = Transcripts(
        start=first[exon_of[:-1]],
        end=last[exon_of[1:] - 1] if len(chosen) else first,
        strand=strand[chosen],
        exon_of=exon_of,
        exon_start=first,
        exon_end=last,
        exon_cdna=_cdna_of_exons(exon_of, last - first, strand[chosen]),
        coding_start=np.full(len(chosen), -1, np.int64),
        coding_end=np.full(len(chosen), -1, np.int64),
        phase=np.zeros(len(chosen), np.int8),
        preferred=preferred[chosen],
        names=names.take(pa.array(chosen)),
    )
    low, high = np.full(len(ids), _FAR >> 1), np.full(len(ids), -1, np.int64)
    np.minimum.at(low, of[is_coding], start[is_coding])
    np.maximum.at(high, of[is_coding], end[is_coding])
    coding = np.flatnonzero(high[chosen] > 0)
    ends = made.cdna(coding, low[chosen[coding]]), made.cdna(coding, high[chosen[coding]])
    made.coding_start[coding], made.coding_end[coding] = np.minimum(*ends), np.maximum(*ends)
    is_cds = pc.equal(types, "CDS").to_numpy(zero_copy_only=False)
    begins = is_cds & np.where(forward, start == low[of], end == high[of])
    phase = np.zeros(len(ids), np.int8)
    phase[of[begins]] = pc.fill_null(named["phase"], 0).to_numpy()[begins]
    made.phase[:] = phase[chosen]
    return made


_STRANDS = pa.array(["+", "-"])


def _merged(of: np.ndarray, start: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Intervals by owner and start, those of one owner that touch or overlap made one: owner, start, end."""
    order = np.lexsort((start, of))
    of, start, end = of[order], start[order], end[order]
    reach = np.maximum.accumulate(of * _FAR + end)  # an owner's reach never passes the next owner's positions
    new = np.ones(len(of), bool)
    new[1:] = (of * _FAR + start)[1:] > reach[:-1]
    firsts = np.flatnonzero(new)
    if not len(firsts):
        return of, start, end
    return of[firsts], start[firsts], np.maximum.reduceat(end, firsts)


def _cdna_of_exons(exon_of: np.ndarray, size: np.ndarray, strand: np.ndarray) -> np.ndarray:
    """Position of the transcript of each exon's first base, in the order of transcription: int64 (E,)."""
    if not len(size):
        return size
    before = np.cumsum(size) - size
    owner = np.repeat(np.arange(len(strand)), np.diff(exon_of))
    within = before - before[exon_of[:-1]][owner]
    total = np.add.reduceat(size, exon_of[:-1])[owner]
    found: np.ndarray = np.where(strand[owner] > 0, within, total - within - size)
    return found


def _names(named: pa.Table, of: np.ndarray, count: int) -> tuple[pa.Table, np.ndarray]:
    """NAMES of `count` transcripts, each from the first row that has it, and the rank by tags."""
    columns = {}
    for name in NAMES:
        values = named["transcript_biotype" if name == "biotype" else name].combine_chunks()
        rows = np.flatnonzero(values.is_valid().to_numpy(zero_copy_only=False))[::-1]
        place = np.full(count, -1, np.int64)
        place[of[rows]] = rows
        columns[name] = values.take(pa.array(place, mask=place < 0))
    preferred = np.full(count, len(_PREFERRED), np.int64)
    tags = named["tags"].combine_chunks()
    owners = of[pc.list_parent_indices(tags).to_numpy()]
    rank = pc.index_in(tags.flatten(), pa.array(_PREFERRED))
    np.minimum.at(preferred, owners, pc.fill_null(rank, len(_PREFERRED)).to_numpy())
    return pa.table(columns), preferred
