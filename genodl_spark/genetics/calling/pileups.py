"""Candidate alleles as packed rows: what a network is shown of the reads around each, and what the likelihood says.

A row is WIDTH values of uint8, three parts one after the other, the same whatever the sharding or the order of reads:

    counts     25 bases around the site x 2 strands x 8 kinds (`alleles.Pileup.counts`), at most 255
    reads      6 channels x 32 rows x 41 bases (kernel `image`): the base, its quality, the mapping quality, the strand,
               how strongly the molecule tells for the allele, and how the base differs; row 0 is the reference, then
               reads, those that tell for the allele most first; of more a sample by the hashes of their names
    evidence   what EVIDENCE names, of the likelihood and of reads for the allele and against it

Positions are 0-based, intervals half-open.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from genodl_spark.genetics.calling.alleles import Allele, Pileup, candidates, piled
from genodl_spark.genetics.calling.genotypes import log_prior, pair_likelihood, position, rates_of
from genodl_spark.genetics.calling.haplotypes import Evidence, Window, evidence, windows
from genodl_spark.genetics.calling.reads import REVERSE, Reads
from genodl_spark.genetics.settings import Calling
from genodl_spark.native import kernels

COUNTS, IMAGE = (25, 2, 8), (6, 32, 41)
# base quality; mapping quality; bases to the nearer end; eighths of a base that differs; 255 times the share clipped
_OF_READS = ("quality", "mapping", "to_end", "different", "clipped")
EVIDENCE = (
    *(f"likelihood_{number}" for number in range(3)),  # phred-scaled, of 0, 1, 2 copies; the best 0
    *(f"posterior_{number}" for number in range(3)),  # phred-scaled chance of these
    "molecules",
    *(f"molecules_{side}" for side in ("for", "against")),
    "share",  # of those that tell, by which it is told
    *(f"{side}_{strand}" for side in ("for", "against") for strand in ("forward", "reverse")),  # reads
    *(f"{what}_{side}" for what in _OF_READS for side in ("for", "against")),  # means
    "starts_for",  # different first bases of reads that tell for it
    *(f"strength_{side}" for side in ("for", "against")),  # mean logarithm of the ratio of likelihoods, 25 times
    "change",  # bases longer, or shorter, from 128
    *(f"{what}_{base}" for what in ("reference", "allele") for base in "ACGT"),  # of a substitution: which
    *(f"units_{bases}" for bases in range(1, 7)),  # one after the other at the place, of so many bases each
    "alleles",  # of the window
    "nearest",  # bases to another one of them
    "overlapping",  # of them that cannot stand beside it
    "gc",
)  # fmt: skip
WIDTH = int(np.prod(COUNTS) + np.prod(IMAGE)) + len(EVIDENCE)
_CAP = 4.5  # of the decimal logarithm of a ratio of likelihoods: what one molecule can say
_TOLD = np.log10(2)  # from which on a molecule tells for an allele, or against it
_DEFAULT = Calling()


@dataclass(frozen=True)
class Candidates:
    """Candidate alleles of a stretch, by place. `posterior` float64 (n, 3): the likelihood's chance of 0, 1, 2 copies;
    `x` uint8 (n, WIDTH); `depth` int64 (n): molecules."""

    alleles: list[Allele]
    posterior: np.ndarray
    x: np.ndarray
    depth: np.ndarray


def of_tile(
    reads: Reads,
    reference: np.ndarray,
    start: int,
    first: int,
    last: int,
    asked: Calling = _DEFAULT,
    gaps: np.ndarray | None = None,
) -> Candidates:
    """Those that a VCF would have at [first, last). `reference` uint8 letters from `start` on, upper case, with a
    margin on both sides, and `gaps`, as of `tile.calls_of`."""
    pileup = piled(reads, reference, start, asked.min_base_quality)
    longest = int((reads.end - reads.pos).max(initial=0))
    found: list[tuple[Allele, np.ndarray, np.ndarray, int]] = []
    for window in windows(candidates(pileup, asked.min_reads, asked.min_share), reference, start):
        if not any(first <= position(allele) < last for allele in window.alleles):
            continue
        over = reads.only(reads.overlapping(window.start - 1, window.end + 1, longest))
        if not len(over):
            continue
        proof = evidence(window, over, reference, start, gaps)
        x, posterior = of_window(window, proof, over, pileup)
        found += [
            (allele, posterior[number], x[number], len(proof.likely))
            for number, allele in enumerate(window.alleles)
            if first <= position(allele) < last
        ]
    found.sort(key=lambda one: (position(one[0]), one[0]))
    return Candidates(
        [one[0] for one in found],
        np.array([one[1] for one in found]).reshape(-1, 3),
        np.array([one[2] for one in found], np.uint8).reshape(-1, WIDTH),
        np.array([one[3] for one in found], np.int64),
    )


def written(allele: Allele, reference: np.ndarray, start: int) -> tuple[int, str, str]:
    """POS from 0, REF and ALT of an allele alone, as a VCF has it: an indel with the base before it."""
    pos = position(allele)
    ref = reference[pos - start : max(allele.end, pos + 1) - start].tobytes()
    return pos, ref.decode(), (ref[: allele.start - pos] + allele.text).decode()


def of_window(window: Window, proof: Evidence, reads: Reads, pileup: Pileup) -> tuple[np.ndarray, np.ndarray]:
    """Rows uint8 (A, WIDTH) of all alleles of a window, and the likelihood's chances of 0, 1, 2 copies float64 (A, 3).
    `proof`: what these `reads`, all that overlap the window, say of its haplotypes."""
    likelihood, posterior = copies(window, proof, rates_of(window, pileup.reference, pileup.start))
    of = np.unique(reads.name, return_inverse=True)[1]
    used = of < len(proof.likely)  # of very many molecules the first by their hashes
    reads, of = reads.only(used), of[used]
    rows = np.zeros((len(window.alleles), WIDTH), np.uint8)
    size = int(np.prod(COUNTS))
    for number in range(len(window.alleles)):
        told = _told(proof, number)
        image, seen = _image(window.alleles[number], reads, told[of], pileup)
        row = rows[number]
        row[:size] = _counts(window.alleles[number], pileup).ravel()
        row[size : size + image.size] = image.ravel()
        row[size + image.size :] = _evidence(
            window, number, likelihood[number], posterior[number], told, told[of], reads, seen, pileup
        )
    return rows, posterior


def copies(window: Window, proof: Evidence, rates: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Of each allele of a window, natural logarithms of the likelihoods of 0, 1, 2 copies, up to a constant, and their
    chances, float64 (A, 3): sums over all pairs of haplotypes, with priors of all alleles by their `rates`, the
    likelihoods without its own."""
    first, second = np.triu_indices(len(proof.carries))
    total = pair_likelihood(window, proof, first, second)
    carried = proof.carries[first].astype(np.int64) + proof.carries[second]
    prior = np.stack([log_prior([rate]) for rate in rates])
    total = total + np.take_along_axis(prior, carried.T, 1).sum(0)
    top = total.max()
    weights = np.exp(total - top)
    joint = np.stack([weights @ (carried == number) for number in range(3)], 1)
    with np.errstate(divide="ignore"):
        logs = np.log(joint) - prior
    return logs, joint / joint.sum(1, keepdims=True)


def _told(proof: Evidence, number: int) -> np.ndarray:
    """How strongly each molecule tells for an allele: the decimal logarithm of how much likelier the best haplotype
    with it makes the molecule than the best one without, float64 (M)."""
    with_it = proof.carries[:, number]
    if not len(proof.likely):
        return np.zeros(0)
    ratio = proof.likely[:, with_it].max(1) / proof.likely[:, ~with_it].max(1)
    return np.clip(np.log10(ratio), -_CAP, _CAP)


def _counts(allele: Allele, pileup: Pileup) -> np.ndarray:
    """uint8 COUNTS; 0 beyond what the pileup covers."""
    half = COUNTS[0] // 2
    left = position(allele) - pileup.start - half
    found = np.zeros(COUNTS, np.uint8)
    a, z = max(left, 0), min(left + COUNTS[0], len(pileup.counts))
    found[a - left : z - left] = np.minimum(pileup.counts[a:z], 255)
    return found


def _image(allele: Allele, reads: Reads, told: np.ndarray, pileup: Pileup) -> tuple[np.ndarray, np.ndarray]:
    """uint8 IMAGE, and of each read uint8 (R, 4) what the kernel `image` has seen of it."""
    support = np.round(128 + 28 * told).astype(np.uint8)
    chosen = np.lexsort((reads.flag, reads.name))[: IMAGE[1] - 1]
    order = chosen[
        np.lexsort((reads.flag[chosen], reads.name[chosen], reads.pos[chosen], -support[chosen].astype(int)))
    ]
    row = np.full(len(reads), -1, np.int32)
    row[order] = np.arange(1, len(order) + 1)
    image, seen = np.zeros(IMAGE, np.uint8), np.zeros((len(reads), 4), np.uint8)
    kernels.call(
        "image", reads.data, reads.at, len(reads), reads.mapq, support, row, pileup.reference, pileup.start,
        len(pileup.reference), position(allele), IMAGE[1], IMAGE[2], image, seen,
    )  # fmt: skip
    return image, seen


def _evidence(
    window: Window,
    number: int,
    likelihood: np.ndarray,
    posterior: np.ndarray,
    molecules: np.ndarray,
    told: np.ndarray,
    reads: Reads,
    seen: np.ndarray,
    pileup: Pileup,
) -> np.ndarray:
    """uint8, what EVIDENCE names; `molecules` and `told` float64: how strongly molecules and reads tell for it."""
    allele, others = window.alleles[number], [a for k, a in enumerate(window.alleles) if k != number]
    phred = 10 / np.log(10)
    with np.errstate(divide="ignore"):
        chances = np.concatenate([(likelihood.max() - likelihood) * phred, -phred * np.log(posterior)])
    for_it, against = molecules >= _TOLD, molecules <= -_TOLD
    sides = (told >= _TOLD, told <= -_TOLD)
    reverse = (reads.flag & REVERSE) > 0
    count = for_it.sum() + against.sum()
    strands = [(side & strand).sum() for side in sides for strand in (~reverse, reverse)]
    seen_of = (seen[:, 0], reads.mapq, seen[:, 1], 8.0 * seen[:, 2], 255.0 * seen[:, 3])
    means = [_mean(values[side]) for values in seen_of for side in sides]
    at = allele.start - pileup.start
    units = np.zeros(6, np.uint8)
    around = np.ascontiguousarray(pileup.reference[max(at - 60, 0) : at + 60])
    kernels.call("units", around, len(around), min(at, 60), units)
    replaced = pileup.reference[at : at + 1] if not allele.change else np.zeros(0, np.uint8)
    put = np.frombuffer(allele.text if not allele.change else b"", np.uint8)
    letters = [255 * int(base in text) for text in (replaced.tobytes(), put.tobytes()) for base in b"ACGT"]
    nearest = min((max(o.start - allele.end, allele.start - o.end, 0) for o in others), default=255)
    found = [
        *chances, len(molecules), for_it.sum(), against.sum(), 255 * for_it.sum() / max(count, 1), *strands, *means,
        len(np.unique(reads.pos[sides[0]])), *(25 * _mean(np.abs(told[side])) for side in sides),
        np.clip(128 + allele.change, 0, 255), *letters, *units, len(window.alleles), nearest,
        sum(not (o.end <= allele.start or allele.end <= o.start) or o.start == allele.start for o in others),
        255 * np.isin(around, np.frombuffer(b"GC", np.uint8)).mean(),
    ]  # fmt: skip
    return np.minimum(np.nan_to_num(np.array(found, np.float64), posinf=255), 255).round().astype(np.uint8)


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else 0.0


def thinned(reads: Reads, depth: float, of: float, salt: int) -> Reads:
    """Reads of about `depth` of a depth `of`: molecules are kept whole, by their hashes and `salt`."""
    with np.errstate(over="ignore"):
        mixed = (reads.name ^ np.uint64(salt * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF)) * np.uint64(0xBF58476D1CE4E5B9)
        mixed ^= mixed >> np.uint64(32)
        mixed *= np.uint64(0x94D049BB133111EB)
    share = min(depth / of, 1.0) if of > 0 else 1.0
    return reads.only((mixed >> np.uint64(11)) < np.uint64(int(share * (1 << 53))))


def mean_depth(reads: Reads, first: int, last: int) -> float:
    """Reads over a base of [first, last), on average over those that any read covers."""
    ends = np.zeros(last - first + 1, np.int64)
    start, end = np.clip(reads.pos, first, last) - first, np.clip(reads.end, first, last) - first
    np.add.at(ends, start, 1)
    np.add.at(ends, end, -1)
    depth = np.cumsum(ends)[:-1]
    return float(depth.sum() / max((depth > 0).sum(), 1))
