"""What a variant exchanges, and what the sequence around it is made of, wherever that lies. Pure NumPy."""

from __future__ import annotations

import numpy as np
import pyarrow.compute as pc

from genodl_spark.genome.bases import single_bases
from genodl_spark.genome.surroundings import Surroundings

_BASES = "ACGT"
_PAIRS = [(a, b) for a in range(4) for b in range(4) if a != b]
_TRANSITIONS = (("A", "G"), ("C", "T"))
REACHES = (5, 20, 40)  # bases on either side whose shares are told
SUBSTITUTION_NAMES = [
    *(f"substitution:{_BASES[a]}>{_BASES[b]}" for a, b in _PAIRS),
    *("substitution:transition", "substitution:transversion"),
    *("substitution:insertion", "substitution:deletion", "substitution:several", "substitution:longer"),
]
CONTEXT_NAMES = [
    *(f"trinucleotide:{a}{b}{c}" for a in _BASES for b in _BASES for c in _BASES),
    *(f"share:{what}:{reach}" for reach in REACHES for what in (*_BASES, "CG")),
]


def substitutions(variants: Surroundings) -> np.ndarray:
    """SUBSTITUTION_NAMES, float32 (N, 18): of one base for another which, and whether purines and pyrimidines stay
    such; whether bases are added, taken away, or several exchanged; and by how many bases the other allele is longer,
    its sign times the logarithm of one more."""
    x = np.zeros((len(variants), len(SUBSTITUTION_NAMES)), np.float32)
    at = {name: place for place, name in enumerate(SUBSTITUTION_NAMES)}
    ref, alt = (single_bases(allele) for allele in (variants.ref, variants.alt))
    for place, (a, b) in enumerate(_PAIRS):
        x[:, place] = (ref == a) & (alt == b)
    known = (ref >= 0) & (alt >= 0)
    turned = np.zeros(len(variants), bool)
    for pair in _TRANSITIONS:
        inside = [_BASES.index(base) for base in pair]
        turned |= np.isin(ref, inside) & np.isin(alt, inside)
    x[:, at["substitution:transition"]] = known & turned
    x[:, at["substitution:transversion"]] = known & ~turned
    sizes = [pc.if_else(pc.equal(a, "-"), 0, pc.utf8_length(a)).to_numpy(zero_copy_only=False) for a in
             (variants.ref, variants.alt)]  # fmt: skip
    more = sizes[1].astype(np.int64) - sizes[0]
    x[:, at["substitution:insertion"]] = more > 0
    x[:, at["substitution:deletion"]] = more < 0
    x[:, at["substitution:several"]] = (more == 0) & (sizes[0] > 1)
    x[:, at["substitution:longer"]] = np.sign(more) * np.log1p(np.abs(more))
    return x


def context(variants: Surroundings) -> np.ndarray:
    """CONTEXT_NAMES, float32 (N, 79), of the reference: the first base of REF (of an insertion the one behind it)
    between its neighbours, and shares of the bases, and of CG among pairs of neighbours, in the bases on either side,
    without the allele; 0 where none is known."""
    x = np.zeros((len(variants), len(CONTEXT_NAMES)), np.float32)
    for rows, codes in variants.spelled(variants.ref, 2):
        three = codes[:, 1:4].astype(np.int64)
        known = (three >= 0).all(1)
        x[rows[known], three[known] @ np.array([16, 4, 1])] = 1
    first = 64
    for reach in REACHES:
        sides = variants.before[:, -reach:], variants.after[:, :reach]
        both = np.concatenate(sides, 1)
        count = np.maximum((both >= 0).sum(1), 1)
        for base in range(4):
            x[:, first + base] = (both == base).sum(1) / count
        pairs = sum(((side[:, :-1] == 1) & (side[:, 1:] == 2)).sum(1) for side in sides)
        x[:, first + 4] = pairs / count
        first += 5
    return x
