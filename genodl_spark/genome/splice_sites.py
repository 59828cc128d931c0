"""How like a splice site the bases around a variant are, and what its allele changes. Pure NumPy.

Position weight matrices (Shapiro and Senapathy 1987, doi:10.1093/nar/15.17.7155) of the 679 donor and 673 acceptor
sites that differ in the splice-junction sequences of primates of the UCI Machine Learning Repository (set 69, from
GenBank 64.1; CC BY 4.0): how often each base stands at each place.
"""

from __future__ import annotations

import numpy as np

from genodl_spark.genome.surroundings import Surroundings
from genodl_spark.genome.transcripts import complement

# A C G T, in the direction of transcription: the last 3 bases of an exon and 6 of the intron behind it,
_DONOR = """
    215 265 115 83   392 95 105 86   57 21 554 46   0 1 677 0   2 4 1 671   330 16 317 14   488 61 85 44   35 30 578 35
    106 116 149 307
"""
# 20 of an intron and the first 3 of the exon behind it
_ACCEPTOR = """
    123 195 132 223   113 211 128 221   99 252 108 214   102 252 100 219   89 262 102 220   73 259 89 252
    72 227 89 285   59 234 82 298   44 259 76 294   44 247 80 302   55 240 69 309   63 234 73 303   39 279 84 271
    59 302 49 263   35 308 40 290   51 266 46 310   165 207 161 140   17 526 4 126   670 1 1 1   1 1 671 0
    184 97 325 67   155 144 155 219   156 177 156 184
"""


def _log_odds(counts: str) -> np.ndarray:
    """Bits against even bases, float32 (places, 4), half a count added to each; a column more of 0, for unknown
    bases."""
    table = np.array(counts.split(), float).reshape(-1, 4) + 0.5
    bits = np.log2(4 * table / table.sum(1, keepdims=True))
    return np.pad(bits, ((0, 0), (0, 1))).astype(np.float32)


DONOR, ACCEPTOR = _log_odds(_DONOR), _log_odds(_ACCEPTOR)
EXON_OF_DONOR, INTRON_OF_ACCEPTOR = 3, 20  # places before the border
SITES = {"donor": DONOR, "acceptor": ACCEPTOR}
NAMES = [f"{site}:{what}" for site in SITES for what in ("best", "change", "lost", "other_best")]


def strongest(codes: np.ndarray, reach: int, site: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Score of each place for `site` that has a base of an allele, or lies on both sides of one without bases,
    float32 (n, places), of alleles with `reach` bases on either side, int8 (n, L), and the highest of each (n,)."""
    width = len(site)
    part = codes[:, reach - width + 1 : codes.shape[1] - reach + width - 1]
    windows = np.lib.stride_tricks.sliding_window_view(part, width, 1)
    scores = site[np.arange(width), windows].sum(2)
    return scores, scores.max(1, initial=site.min() * width)


def changes(variants: Surroundings, forward: np.ndarray) -> np.ndarray:
    """NAMES of variants, float32 (N, 8): for donors and acceptors the best score over the reference allele; what the
    best one over the other allele has more; what that very site of the reference loses, of substitutions of one base;
    and the best score over the other allele. `forward` bool (N,): the strand that is transcribed."""
    found = np.zeros((len(variants), len(NAMES)), np.float32)
    for number, site in enumerate(SITES.values()):
        reach = len(site) - 1
        best = [np.zeros(len(variants), np.float32) for _ in range(2)]
        scored: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {}
        for side, allele in zip(best, (variants.ref, variants.alt), strict=True):
            for rows, codes in variants.spelled(allele, reach):
                turned = np.where(forward[rows, None], codes, complement(codes[:, ::-1]))
                scores, side[rows] = strongest(turned, reach, site)
                scored.setdefault(codes.shape[1] - 2 * reach, []).append((rows, scores))
        lost = np.zeros(len(variants), np.float32)
        if len(parts := scored.get(1, [])) == 2:
            (of_ref, before), (of_alt, after) = parts
            both, i, j = np.intersect1d(of_ref, of_alt, return_indices=True)
            place = before[i].argmax(1)
            lost[both] = (after[j] - before[i])[np.arange(len(both)), place]
        found[:, 4 * number : 4 * number + 4] = np.stack([best[0], best[1] - best[0], lost, best[1]], 1)
    return found


def at_place(offset: np.ndarray, old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """What the site of a variant's own intron loses by a substitution, float32 (N,): `offset` int (N,), bases into the
    intron from its donor (above 0) or back from its acceptor (below 0); `old`, `new` base codes int8 (N,) in the
    direction of transcription. 0 outside both sites, and where a base is not known."""
    found = np.zeros(len(offset), np.float32)
    for site, place in ((DONOR, EXON_OF_DONOR + offset - 1), (ACCEPTOR, INTRON_OF_ACCEPTOR + offset)):
        within = (offset > 0) if site is DONOR else (offset < 0)
        rows = np.flatnonzero(within & (place >= 0) & (place < len(site)) & (old >= 0) & (new >= 0))
        found[rows] = site[place[rows], new[rows]] - site[place[rows], old[rows]]
    return found
