"""Where a variant lies in a transcript and what it does to the protein, read from HGVS, and both as numbers. Pure NumPy
and Arrow.

HGVS c. (`c.188T>A`, `c.5193+26C>A`, `c.-19-3A>C`) and p. (`p.Leu63Ter`, `p.L63*`, `p.(Leu63Ter)`), with or without a
transcript's name in front. What stands behind the first amino acid that changes is not read, but for whether the frame
is shifted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genodl_spark.genome import residues, splice_sites
from genodl_spark.genome.bases import single_bases
from genodl_spark.genome.codons import ANY, STOP, THREE, amino_acids, code_of
from genodl_spark.genome.surroundings import Surroundings
from genodl_spark.genome.transcripts import complement

HGVS_C = r"^(?:.*:)?c\.(?P<sign>[-*]?)(?P<base>[0-9]{1,9})(?P<offset>[-+][0-9]{1,9})?(?P<change>[^0-9].*)$"
HGVS_P = (
    r"^(?:.*:)?p\.\(?(?P<old>[A-Z][a-z]{2}|[A-Z*])(?P<number>[0-9]{1,9})"
    r"(?P<new>[A-Z][a-z]{2}|[A-Z*=?])?(?P<rest>.*)$"
)
_SUBSTITUTION = r"^(?P<old>[ACGT])>(?P<new>[ACGT])$"
_NEAR = (1, 3, 6)  # residues on either side, over which neighbours are averaged
_PLACES = (-4, -3, -2, -1, 1, 2, 3, 4)  # neighbours that are told one by one
_OF_NEIGHBOURS = ("hydropathy", "charge", "helix", "strand", "volume")
_KINDS = ("synonymous", "missense", "stop_gained", "stop_lost", "start_lost", "frameshift", "inframe")
_TOLD = [residues.PROPERTIES.index(name) for name in _OF_NEIGHBOURS]
_ALL = [name for name in residues.PROPERTIES if name != "composition"]

RESIDUE_NAMES = [
    *(f"protein:{kind}" for kind in _KINDS),
    *(f"protein:codon_position:{place}" for place in (1, 2, 3)),
    *(f"protein:before:{letter}" for letter in (*residues.LETTERS, "*")),
    *(f"protein:after:{letter}" for letter in (*residues.LETTERS, "*")),
    *("exchange:blosum62", "exchange:grantham"),
    *(f"exchange:{name}:{what}" for name in _ALL for what in ("before", "after", "change", "size")),
    *(f"neighbours:{name}:{reach}" for name in _OF_NEIGHBOURS for reach in _NEAR),
    *(f"neighbour:{name}:{place:+d}" for name in _OF_NEIGHBOURS for place in _PLACES),
]
SPLICING_NAMES = [
    *(f"transcript:{part}" for part in ("5_prime_UTR", "3_prime_UTR", "coding", "intron")),
    *(f"splice:{name}" for name in splice_sites.NAMES),
    *("splice:at_donor", "splice:at_acceptor", "splice:own_site", "splice:depth"),
]


@dataclass(frozen=True)
class Coding:
    """N variants by a transcript each.

    `forward`, `known` bool: the strand, and whether it is known. `base` int64: position of the coding sequence from 1,
    below 1 before it; `offset` int64: bases into an intron, from the exon in front of it (above 0) or behind it;
    `behind` bool: in the untranslated region behind the coding sequence. `old`, `new` uint8: amino acids, 0 where none
    is told. `kinds` bool (N, 7): _KINDS. `placed`, `translated` bool: whether there is an HGVS c., p. that can be read.
    """

    forward: np.ndarray
    known: np.ndarray
    base: np.ndarray
    offset: np.ndarray
    behind: np.ndarray
    placed: np.ndarray
    old: np.ndarray
    new: np.ndarray
    kinds: np.ndarray
    translated: np.ndarray

    @classmethod
    def read(cls, hgvs_c: pa.Array, hgvs_p: pa.Array, strand: pa.Array, ref: pa.Array, alt: pa.Array) -> Coding:
        """Of texts, NULL where there is none. `strand`: + or -, NULL where it is to be seen from the bases that a
        substitution has in `ref` and `alt`, and in HGVS c."""
        place = pc.extract_regex(hgvs_c, HGVS_C)
        placed = place.is_valid().to_numpy(zero_copy_only=False)
        sign, number, offset, change = (place.field(i) for i in range(4))
        base = _whole(number) * np.where(_equal(sign, "-"), -1, 1)
        single = pc.extract_regex(change, _SUBSTITUTION)
        told = np.stack([single_bases(single.field(i)) for i in range(2)])
        stored = np.stack([single_bases(allele) for allele in (ref, alt)])
        as_written, turned = (((told >= 0) & (told == codes)).all(0) for codes in (stored, complement(stored)))
        given = strand.is_valid().to_numpy(zero_copy_only=False)
        forward = np.where(given, _equal(strand, "+"), as_written)
        residue = pc.extract_regex(hgvs_p, HGVS_P)
        old, new = _letters(residue.field(0)), _letters(residue.field(2))
        rest = pc.binary_join_element_wise(pc.fill_null(residue.field(2), ""), pc.fill_null(residue.field(3), ""), "")
        kinds = _kinds(old, new, residue.field(2), rest, _whole(residue.field(1)))
        return cls(
            forward=forward,
            known=given | (as_written | turned) & placed,
            base=base,
            offset=_whole(offset),
            behind=_equal(sign, "*"),
            placed=placed,
            old=old,
            new=np.where(kinds[:, 0], old, new).astype(np.uint8),
            kinds=kinds,
            translated=residue.is_valid().to_numpy(zero_copy_only=False),
        )

    @property
    def coding(self) -> np.ndarray:
        """Which lie in a coding part of an exon, bool (N,)."""
        found: np.ndarray = self.placed & (self.base > 0) & ~self.behind & (self.offset == 0)
        return found


def protein_features(coding: Coding, variants: Surroundings, contig: str) -> np.ndarray:
    """RESIDUE_NAMES, float32 (N, ...): of an exchange of one amino acid for another BLOSUM62, Grantham's distance and
    each property before and after; of all that changes a protein without ending it what stands around it, read in frame
    from the bases around the variant, over the ends of its exon too. 0 where there is nothing to be told."""
    n = len(coding.base)
    x = np.zeros((n, len(RESIDUE_NAMES)), np.float32)
    at = {name: place for place, name in enumerate(RESIDUE_NAMES)}
    x[:, : len(_KINDS)] = coding.kinds
    rows = np.flatnonzero(coding.coding)
    x[rows, at["protein:codon_position:1"] + (coding.base[rows] - 1) % 3] = 1
    letters = np.frombuffer((residues.LETTERS + "*").encode(), np.uint8)
    in_frame = coding.kinds[:, : _KINDS.index("frameshift")].any(1)
    lost = coding.kinds[:, _KINDS.index("start_lost")]  # no protein is made that has what the codon now says
    for name, column, told in (("before", coding.old, in_frame), ("after", coding.new, in_frame & ~lost)):
        found, place = np.nonzero((column[:, None] == letters) & told[:, None])
        x[found, at[f"protein:{name}:A"] + place] = 1
    rows = np.flatnonzero(coding.kinds[:, _KINDS.index("missense")])
    old, new = coding.old[rows], coding.new[rows]
    x[rows, at["exchange:blosum62"]] = residues.blosum62(old, new)
    x[rows, at["exchange:grantham"]] = residues.grantham(old, new)
    before, after = residues.properties(old), residues.properties(new)
    for name in _ALL:
        which = residues.PROPERTIES.index(name)
        a, b = before[:, which], after[:, which]
        first = at[f"exchange:{name}:before"]
        x[rows, first : first + 4] = np.stack([a, b, b - a, np.abs(b - a)], 1)
    lasting = coding.kinds[:, [_KINDS.index(kind) for kind in ("missense", "start_lost", "inframe")]].any(1)
    rows = np.flatnonzero(lasting & coding.coding & coding.known)
    around = np.nan_to_num(_neighbours(coding, variants, contig, rows))  # 0 for a codon that is not known
    middle = around.shape[1] // 2
    for number, name in enumerate(_OF_NEIGHBOURS):
        first = at[f"neighbour:{name}:{_PLACES[0]:+d}"]
        x[rows, first : first + len(_PLACES)] = around[:, middle + np.array(_PLACES), number]
        for reach in _NEAR:
            near = around[:, middle - reach : middle + reach + 1, number]
            x[rows, at[f"neighbours:{name}:{reach}"]] = (near.sum(1) - around[:, middle, number]) / (2 * reach)
    return x


def _neighbours(coding: Coding, variants: Surroundings, contig: str, rows: np.ndarray) -> np.ndarray:
    """_OF_NEIGHBOURS of the residues around some variants, float32 (rows, 2 * 6 + 1, 5): codons in frame, of the
    reference; NaN where one is not known."""
    most = max(_NEAR)
    reach = 3 * (most + 1)
    oriented = np.full((len(coding.base), 2 * reach + 1), -1, np.int8)
    for some, codes in variants.spelled(variants.ref, reach):
        # of the allele the first base in the direction of transcription
        size = codes.shape[1] - 2 * reach
        ahead = codes[:, : 2 * reach + 1] if size else codes[:, np.r_[0 : 2 * reach, 2 * reach - 1]]
        back = complement(codes[:, ::-1])
        behind = back[:, : 2 * reach + 1] if size else back[:, np.r_[0 : 2 * reach, 2 * reach - 1]]
        oriented[some] = np.where(coding.forward[some, None], ahead, behind)
    phase = (coding.base[rows] - 1) % 3
    first = reach - phase[:, None] + 3 * np.arange(-most, most + 1)
    codons = oriented[rows[:, None, None], first[:, :, None] + np.arange(3)]
    found: np.ndarray = residues.properties(amino_acids(codons, code_of(contig)))[:, :, _TOLD]
    return found


def splicing_features(coding: Coding, variants: Surroundings) -> np.ndarray:
    """SPLICING_NAMES, float32 (N, ...): the part of the transcript; donors and acceptors as `splice_sites.changes` has
    them, of the better strand where it is not known; whether the first or last two bases of an intron are changed, what
    its own site loses, and the logarithm of the depth into it."""
    n = len(coding.base)
    at = {name: place for place, name in enumerate(SPLICING_NAMES)}
    x = np.zeros((n, len(SPLICING_NAMES)), np.float32)
    inside = coding.placed & (coding.offset != 0)
    x[:, 0] = coding.placed & ~inside & (coding.base < 1)
    x[:, 1] = coding.placed & ~inside & coding.behind
    x[:, 2] = coding.coding
    x[:, 3] = inside
    first = at[f"splice:{splice_sites.NAMES[0]}"]
    scores = splice_sites.changes(variants, coding.forward)
    if not coding.known.all():
        other = splice_sites.changes(variants, ~coding.forward)
        better = ~coding.known[:, None] & (other[:, [0, 4]] > scores[:, [0, 4]])
        scores = np.where(np.repeat(better, 4, axis=1), other, scores)
    x[:, first : first + scores.shape[1]] = scores
    x[:, at["splice:at_donor"]] = inside & np.isin(coding.offset, (1, 2))
    x[:, at["splice:at_acceptor"]] = inside & np.isin(coding.offset, (-1, -2))
    old, new = (_single(allele, coding.forward) for allele in (variants.ref, variants.alt))
    x[:, at["splice:own_site"]] = np.where(inside, splice_sites.at_place(coding.offset, old, new), 0)
    x[:, at["splice:depth"]] = np.log1p(np.abs(coding.offset)) * inside
    return x


def _single(allele: pa.Array, forward: np.ndarray) -> np.ndarray:
    """Codes of alleles of one base in the direction of transcription, int8 (N,); -1 for others."""
    codes = single_bases(allele)
    found: np.ndarray = np.where(forward, codes, complement(codes))
    return found


def _kinds(old: np.ndarray, new: np.ndarray, text: pa.Array, rest: pa.Array, number: np.ndarray) -> np.ndarray:
    shifted = _matches(rest, "fs")
    inframe = _matches(rest, "del|ins|dup|^_") & ~shifted
    whole = ~shifted & ~inframe & (old > 0)
    same = whole & (_equal(text, "=") | (new == old))
    start = whole & (number == 1) & (old == ord("M")) & ~same
    rest_of = whole & ~same & ~start & (new > 0)
    ends = rest_of & (new == STOP) & (old != STOP)
    reads = rest_of & (old == STOP)
    return np.stack([same, rest_of & ~ends & ~reads & (new != ANY), ends, reads, start, shifted, inframe], 1)


def _letters(names: pa.Array) -> np.ndarray:
    """Amino acids of names of one or three letters, uint8 (N,); 0 for what is none."""
    letters = [chr(letter) for letter in np.flatnonzero(THREE != "")]
    spelled = pa.array([*letters, *(str(THREE[ord(letter)]) for letter in letters)])
    codes = np.array([ord(letter) for letter in letters] * 2 + [0], np.uint8)
    place = pc.fill_null(pc.index_in(names, spelled), len(codes) - 1)
    found: np.ndarray = codes[place.to_numpy(zero_copy_only=False)]
    return found


def _whole(texts: pa.Array) -> np.ndarray:
    """Whole numbers of texts, int64; 0 where there is none."""
    filled = pc.if_else(pc.equal(pc.fill_null(texts, ""), ""), "0", texts)
    return pc.utf8_ltrim(filled, "+").cast(pa.int64()).to_numpy(zero_copy_only=False)


def _equal(texts: pa.Array, value: pa.Array | str) -> np.ndarray:
    found: np.ndarray = pc.fill_null(pc.equal(texts, value), False).to_numpy(zero_copy_only=False)
    return found


def _matches(texts: pa.Array, pattern: str) -> np.ndarray:
    found: np.ndarray = pc.fill_null(pc.match_substring_regex(texts, pattern), False).to_numpy(zero_copy_only=False)
    return found
