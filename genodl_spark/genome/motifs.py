"""How well transcription factors bind around a variant, and what its allele changes, by the matrices of JASPAR. Pure
NumPy.

`motifs.npz` beside this file is made by docker/motifs.py; motifs.NOTICE has its source and licence. The score of a site
is the sum of the log odds of its bases against even ones, in bits (Stormo 2000, doi:10.1093/bioinformatics/16.1.16); a
base that is not known adds nothing. A factor occupies one of the sites over an allele, on either strand, with the
weight 2^score, or none with the weight 2^HALF: what is compared is the logarithm of the sum of these weights, a free
energy (Berg and von Hippel 1987, doi:10.1016/0022-2836(87)90354-8). So a weak site that becomes weaker counts little,
and a strong one much.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

import numpy as np
from scipy import sparse

from genodl_spark.genome.surroundings import Surroundings

HALF = 8.0  # bits of a site that is bound half of the time
STEPS = 64  # parts of a bit that weights are whole numbers of
_SCORES = 1 << 21  # at a time


@dataclass(frozen=True)
class Motifs:
    """M motifs in K families. `weights` int16 (positions of all, 4): 1/64 bits of A C G T; those of motif m at
    [ends[m], ends[m + 1]). `ids`: of JASPAR, with version; `names`: of factors. `members` int32 (P, 2): motif and
    family of each membership; a motif of a dimer may be in two families, some are in none."""

    weights: np.ndarray
    ends: np.ndarray
    ids: list[str]
    names: list[str]
    families: list[str]
    members: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def widths(self) -> np.ndarray:
        """Positions of each, int (M,)."""
        return np.diff(self.ends)

    def by_width(self) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Widths w, which motifs have it, int64 (m,), and their weights on both strands, float32 (4 w, 2 m)."""
        for width in np.unique(self.widths).tolist():
            chosen = np.flatnonzero(self.widths == width)
            forward = self.weights[self.ends[chosen][:, None] + np.arange(width)]
            both = np.concatenate([forward, forward[:, ::-1, ::-1]])
            yield width, chosen, np.ascontiguousarray(both.reshape(len(both), -1).T.astype(np.float32))


@lru_cache(1)
def jaspar() -> Motifs:
    content = resources.files("genodl_spark.genome").joinpath("motifs.npz").read_bytes()
    with np.load(io.BytesIO(content), allow_pickle=False) as held:
        texts = {name: held[name].tolist() for name in ("ids", "names", "families")}
        return Motifs(held["weights"], held["ends"].astype(np.int64), members=held["members"], **texts)


def bound(codes: np.ndarray, reach: int, motifs: Motifs) -> np.ndarray:
    """log(1 + sum over sites of 2^(score - HALF)), float32 (n, M), natural logarithm: sites of both strands that have a
    base of an allele, or lie on both sides of one without bases.

    `codes` int8 (n, L): alleles with `reach` bases on either side, as many at least as the longest motif has less one.
    """
    n, length = codes.shape
    found = np.zeros((n, len(motifs)), np.float32)
    known = np.zeros((5, 4), np.float32)
    known[:4] = np.eye(4)
    for width, chosen, weights in motifs.by_width():
        first, last = reach - width + 1, length - reach + width - 1
        sites = last - first - width + 1
        if sites < 1:
            continue
        step = max(1, _SCORES // (sites * 2 * len(chosen)))
        for start in range(0, n, step):
            part = known[codes[start : start + step, first:last]]
            windows = np.lib.stride_tricks.sliding_window_view(part, width, 1).swapaxes(2, 3)
            # whole numbers below 2^24: the same whatever the order of the sum
            scores = (windows.reshape(-1, 4 * width) @ weights).reshape(len(part), 2 * sites, len(chosen))
            energies = np.exp2(scores * np.float32(1 / STEPS) - np.float32(HALF))
            found[start : start + step, chosen] = np.log1p(energies.sum(1))
    return found


def changes(variants: Surroundings, motifs: Motifs) -> tuple[np.ndarray, np.ndarray]:
    """What the other allele adds to `bound`, float32 (N, M), and `bound` with the reference allele."""
    reach = int(motifs.widths.max(initial=1)) - 1
    sides = [np.zeros((len(variants), len(motifs)), np.float32) for _ in range(2)]
    for side, allele in zip(sides, (variants.ref, variants.alt), strict=True):
        for rows, codes in variants.spelled(allele, reach):
            # the variants of one site share a reference
            distinct, of = np.unique(codes, axis=0, return_inverse=True)
            side[rows] = bound(distinct, reach, motifs)[of.ravel()]
    return sides[1] - sides[0], sides[0]


def by_family(values: np.ndarray, motifs: Motifs) -> np.ndarray:
    """Means over the motifs of each family, float32 (N, K), of values float32 (N, M)."""
    motif, family = motifs.members.T
    counted = np.bincount(family, minlength=len(motifs.families)).astype(np.float32)
    shape = (len(motifs.families), len(motifs))
    shares = sparse.csr_array((1 / counted[family], (family, motif)), shape)
    # sparse, as a dense product adds in another order for another number of rows
    return np.ascontiguousarray((shares @ values.T).T)
