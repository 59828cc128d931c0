"""Genotypes of a window's sites: which pair of haplotypes made the reads there, and how sure that is.

A pair is as likely as its molecules, each of which comes from either haplotype; a site's genotype is as likely as all
pairs together that have it (Li 2011, doi:10.1093/bioinformatics/btr509; over haplotypes: Garrison and Marth 2012,
arXiv:1207.3907). Positions are 0-based.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from genodl_spark.genetics.calling.alleles import Allele
from genodl_spark.genetics.calling.haplotypes import Evidence, Window

SUBSTITUTIONS, INDELS = 1e-3, 2e-4  # heterozygous sites per base of a human genome
SYSTEMATIC = 1e-4 / 3  # of bases are misread again and again, and as this one of the others
MISREAD = 0.05, 0.1, 0.2, 0.4  # in how many of the molecules, all of these alike
# An allele that so many reads show, and a third of those over the place, is called even where errors would be likelier,
# such as a base less in a long run of one; QUAL then says so, and with it FILTER.
SHOWN = 20
_TRANSITIONS = "AG", "GA", "CT", "TC"
_TOLD = 2.0  # how much more likely one allele makes a molecule than all others, for it to count for that allele
_LARGEST = 10_000  # of a phred-scaled likelihood


@dataclass(frozen=True)
class Site:
    """One record of a VCF: alleles `ref` and `alts` at `pos`, which share their first base where they differ in length.
    `genotype`: two numbers of alleles, the lower first; None of a forced site of which no read says anything.
    `pl` int64 (G): phred-scaled likelihoods in the order of VCF, the best 0; `posterior` float64 (G) with the prior;
    `variant`: phred-scaled chance that there is none; `ad` int64 (alleles): molecules that tell for each; `depth`:
    molecules."""

    pos: int
    ref: str
    alts: tuple[str, ...]
    genotype: tuple[int, int] | None
    pl: np.ndarray
    posterior: np.ndarray
    variant: float
    ad: np.ndarray
    depth: int
    shown: bool = False  # whether so many reads show another allele that it is never the reference, see SHOWN

    @property
    def quality(self) -> float:
        """Phred-scaled chance that the genotype is another one (GQ)."""
        if self.genotype is None:
            return 0.0
        rest = np.delete(self.posterior, order(*self.genotype)).sum()
        return phred(float(rest))


def phred(chance: float) -> float:
    return float(-10 * np.log10(max(chance, 1e-10)))


def order(low: int, high: int) -> int:
    """Where a diploid genotype stands among the likelihoods of a VCF (section 1.6.2)."""
    return high * (high + 1) // 2 + low


def sites(window: Window, found: Evidence, reference: np.ndarray, start: int) -> list[Site]:
    """The sites of a window by position; each has the alleles of its likeliest genotype, or, where that is the
    reference, the likeliest other one; and all that are forced."""
    haplotypes = len(found.carries)
    first, second = np.triu_indices(haplotypes)
    likelihood = pair_likelihood(window, found, first, second)
    by_site = _by_site(window)
    carried = [_carried(found.carries, members) for members in by_site]
    rates = rates_of(window, reference, start)
    priors = [log_prior([rates[m] for m in members]) for members in by_site]
    genotypes = [order_of(np.minimum(c[first], c[second]), np.maximum(c[first], c[second])) for c in carried]
    total = likelihood + sum(p[g] for p, g in zip(priors, genotypes, strict=True))
    made = []
    for members, prior, genotype, on in zip(by_site, priors, genotypes, carried, strict=True):
        log_joint = _summed(total, genotype, len(prior))
        made.append(_site([window.alleles[m] for m in members], log_joint, prior, on, found, reference, start))
    return made


def pairs(alleles: int) -> list[tuple[int, int]]:
    """All diploid genotypes of so many alleles, in that order."""
    return [(low, high) for high in range(alleles) for low in range(high + 1)]


def pair_likelihood(window: Window, found: Evidence, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Natural logarithms of how likely pairs of haplotypes make all molecules, float64 (P).

    Some bases are misread again and again on one strand (Meacham et al. 2011, doi:10.1186/1471-2105-12-451): there, a
    molecule of that strand shows the other allele with a chance of its own, whatever its qualities say.
    """
    each = 0.5 * (found.likely[:, first] + found.likely[:, second])
    logs = np.log(each)
    plain: np.ndarray = logs.sum(0)
    terms = [plain]
    for allele, other in _misread(window, found.carries):
        shown = 0.5 * (found.likely[:, other[first]] + found.likely[:, other[second]])
        for strand in (0, 1):
            mine = found.strand == strand
            rest = plain - logs[mine].sum(0)
            for chance in MISREAD:
                mixed = np.log((1 - chance) * each[mine] + chance * shown[mine]).sum(0)
                terms.append(rest + mixed + np.log(allele / (2 * len(MISREAD))))
    likelihood: np.ndarray = np.logaddexp.reduce(terms)
    return likelihood


def _misread(window: Window, carries: np.ndarray) -> Iterator[tuple[float, np.ndarray]]:
    """For each substitution: how often a base is misread as it, and for each haplotype, int64 (K), the one that a
    molecule of it then seems to be of."""
    codes = carries @ (1 << np.arange(carries.shape[1]))
    at = np.full(1 << carries.shape[1], -1)
    at[codes] = np.arange(len(codes))
    for number, allele in enumerate(window.alleles):
        if not allele.change:
            other = at[codes ^ (1 << number)]
            yield SYSTEMATIC, np.where(other < 0, np.arange(len(codes)), other)


def order_of(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    found: np.ndarray = high * (high + 1) // 2 + low
    return found


def _by_site(window: Window) -> list[list[int]]:
    """Numbers of the alleles that one record of a VCF holds: those of one position there, indels apart from others. A
    substitution of the base before an indel may be on one chromosome with it, which a record of both could not say."""
    at: dict[tuple[int, bool], list[int]] = {}
    for number, allele in enumerate(window.alleles):
        at.setdefault((position(allele), bool(allele.change)), []).append(number)
    return [at[place] for place in sorted(at)]


def position(allele: Allele) -> int:
    """Where a VCF says an allele is, 0-based: an indel at the base before it."""
    return allele.start - 1 if allele.change else allele.start


def _carried(carries: np.ndarray, members: list[int]) -> np.ndarray:
    """The allele of a site on each haplotype, int64 (K): 0 the reference, else 1 + its place among `members`."""
    mine = carries[:, members]
    return np.where(mine.any(1), mine.argmax(1) + 1, 0)


def rate(ref: str, alt: str) -> float:
    """How often a base of the genome is heterozygous for an allele; two of three substitutions are transitions."""
    if len(ref) != len(alt):
        return INDELS
    changed = next(a + b for a, b in zip(ref, alt, strict=True) if a != b)
    return SUBSTITUTIONS * (2 / 3 if changed in _TRANSITIONS else 1 / 6)


def rates_of(window: Window, reference: np.ndarray, start: int) -> list[float]:
    """`rate` of each allele of a window; reference uint8 letters from `start` on."""
    return [
        rate(reference[allele.start - start : allele.end - start].tobytes().decode(), allele.text.decode())
        for allele in window.alleles
    ]


def log_prior(rates: Sequence[float]) -> np.ndarray:
    """Natural logarithms of how often each genotype of a site is seen, float64 (G), by the rates of its alleles but the
    first, which is the reference."""
    rates = [1.0, *rates]
    found = []
    for low, high in pairs(len(rates)):
        if high == 0:
            found.append(1 - 1.5 * sum(rates[1:]))
        elif low == 0:
            found.append(rates[high])
        elif low == high:
            found.append(rates[high] / 2)
        else:
            found.append(rates[low] * rates[high])
    return np.log(found)


def _summed(total: np.ndarray, genotype: np.ndarray, genotypes: int) -> np.ndarray:
    """Logarithms of sums of exponentials by genotype."""
    top = total.max()
    found = np.bincount(genotype, np.exp(total - top), genotypes)
    with np.errstate(divide="ignore"):
        return np.log(found) + top


def _site(
    alleles: list[Allele],
    joint: np.ndarray,
    prior: np.ndarray,
    on: np.ndarray,
    found: Evidence,
    reference: np.ndarray,
    start: int,
) -> Site:
    posterior = np.exp(joint - joint.max())
    variant = 10 / np.log(10) * (joint.max() - joint[0] + np.log(posterior.sum()))  # of very small chances, too
    posterior /= posterior.sum()
    best = int(posterior.argmax())
    shown = [number for number, a in enumerate(alleles, 1) if a.reads >= SHOWN and 3 * a.reads >= a.depth]
    if best == 0 and shown:
        having = [any(number in pair for number in shown) for pair in pairs(len(alleles) + 1)]
        best = int(np.where(having, posterior, -1).argmax())
    high = int((np.sqrt(8 * best + 1) - 1) // 2)
    low = best - high * (high + 1) // 2
    forced = {number for number, allele in enumerate(alleles, 1) if allele.forced}
    if high == 0 and not forced:
        rest = posterior.copy()
        rest[0] = -1
        top = int(rest.argmax())
        other = int((np.sqrt(8 * top + 1) - 1) // 2)
        kept = [0, other]
    else:
        kept = sorted({0, low, high, *forced})
    places = [order(kept[a], kept[b]) for b in range(len(kept)) for a in range(b + 1)]
    likelihood = joint - prior
    scaled = -10 / np.log(10) * (likelihood[places] - likelihood[places].max())
    pos = position(alleles[0])
    ends = max(allele.end for number, allele in enumerate(alleles, 1) if number in kept)
    ends = max(ends, pos + 1)
    ref = reference[pos - start : ends - start].tobytes()
    alts = tuple(
        (ref[: a.start - pos] + a.text + ref[a.end - pos :]).decode()
        for number, a in enumerate(alleles, 1)
        if number in kept
    )
    of = np.stack([found.likely[:, on == number].max(1, initial=0) for number in kept], 1)
    ranked = np.sort(of, 1)
    told = ranked[:, -1] >= _TOLD * ranked[:, -2] if len(of) else np.zeros(0, bool)
    ad = np.bincount(of.argmax(1)[told], minlength=len(kept))
    among = posterior[places]
    untold = forced and scaled.max() < 0.5
    return Site(
        pos,
        ref.decode(),
        alts,
        None if untold else (kept.index(low), kept.index(high)),
        np.minimum(scaled, _LARGEST).round().astype(np.int64),
        among / among.sum() if among.sum() > 0 else among,
        float(min(variant, _LARGEST)),
        ad,
        len(of),
        bool(shown),
    )
