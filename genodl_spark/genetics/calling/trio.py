"""A child and its parents called together: the likeliest of all combinations of genotypes, as parents pass alleles on
and these seldom change on the way; and the chance that one did.

The model is that of DeNovoGear (Ramu et al. 2013, doi:10.1038/nmeth.2611) with any number of alleles. Mutations of a
base and a generation: substitutions 1.2e-8 (Kong et al. 2012, doi:10.1038/nature11396), insertions and deletions
9.3e-10 (Besenbacher et al. 2016, doi:10.1371/journal.pgen.1006315). As in `genotypes`, each other allele of a site has
the rate of its kind. Autosomes: all three have two alleles. Positions are 0-based.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from genodl_spark.genetics.calling.alleles import candidates, merged, piled
from genodl_spark.genetics.calling.genotypes import Site, log_prior, order, pairs, rate
from genodl_spark.genetics.calling.reads import Reads
from genodl_spark.genetics.calling.tile import sites_of
from genodl_spark.genetics.settings import Calling

SUBSTITUTION, INDEL = 1.2e-8, 9.3e-10
_DEFAULT = Calling()
_MOST = 6  # other alleles of a site that are tried together: 21,952 combinations
_LARGEST = 10_000.0  # QUAL


@dataclass(frozen=True)
class Decision:
    """`genotypes`: numbers of the likeliest combination's genotypes, of child, father and mother, in the order of VCF;
    `posteriors` float64 (3, G): of each genotype of each, whatever the others have; `de_novo`: chance that an allele of
    the child is no copy of its parent's; `log_reference`: natural logarithm of the chance that all have no other
    allele than the reference."""

    genotypes: tuple[int, int, int]
    posteriors: np.ndarray
    de_novo: float
    log_reference: float


@dataclass(frozen=True)
class TrioSite:
    """A record of three samples with the same alleles. `de_novo`: FORMAT/DNM of the child, a chance, as that of
    `bcftools +trio-dnm2 --dnm-tag DNM:prob`; `variant`: QUAL, phred-scaled chance that none has another allele."""

    child: Site
    father: Site
    mother: Site
    de_novo: float
    variant: float

    @property
    def members(self) -> tuple[Site, Site, Site]:
        return self.child, self.father, self.mother

    @property
    def pos(self) -> int:
        return self.child.pos


def decided(likelihood: np.ndarray, prior: np.ndarray, mutates: np.ndarray) -> Decision:
    """The joint decision. `likelihood` float64 (3, G): natural logarithms, of child, father and mother; `prior` float64
    (G): natural logarithms, of a parent's genotype; `mutates` float64 (A, A): the chance that an allele (row) that is
    passed on arrives as another (column), rows sum to 1."""
    alleles = len(mutates)
    passed = _passed(alleles, mutates)
    copied = _passed(alleles, np.diag(np.diag(mutates)))
    child, father, mother = likelihood
    parents = (father + prior)[:, None] + (mother + prior)[None, :]
    with np.errstate(divide="ignore"):
        joint = child[:, None, None] + parents + np.log(_born(passed))
        unchanged = child[:, None, None] + parents + np.log(_born(copied))
    top = joint.max()
    chance = np.exp(joint - top)
    total = chance.sum()
    best = np.unravel_index(int(joint.argmax()), joint.shape)
    posteriors = np.stack([chance.sum(axes) for axes in ((1, 2), (0, 2), (0, 1))]) / total
    same = np.exp(unchanged - top)
    changed = float(np.maximum(chance - same, 0).sum() / total)
    reference = float(joint[0, 0, 0] - top - np.log(total))
    return Decision((int(best[0]), int(best[1]), int(best[2])), posteriors, changed, reference)


def _passed(alleles: int, mutates: np.ndarray) -> np.ndarray:
    """The chance of each allele that a parent of each genotype passes on, float64 (G, A)."""
    return np.array([(mutates[low] + mutates[high]) / 2 for low, high in pairs(alleles)])


def _born(passed: np.ndarray) -> np.ndarray:
    """The chance of each genotype of a child of parents of each, float64 (G, G, G), by what parents pass on."""
    found = []
    for low, high in pairs(passed.shape[1]):
        one = np.outer(passed[:, low], passed[:, high])
        found.append(one if low == high else one + np.outer(passed[:, high], passed[:, low]))
    return np.stack(found)


def mutations(indel: Sequence[bool], substitution: float = SUBSTITUTION, other: float = INDEL) -> np.ndarray:
    """The chance that an allele arrives as another, float64 (A, A); `indel` (A): of another length than the
    reference, which is the first. Of two alleles the rarer kind counts."""
    lengths = np.array(indel, bool)
    found = np.where(lengths[:, None] | lengths[None, :], other, substitution)
    np.fill_diagonal(found, 0)
    np.fill_diagonal(found, 1 - found.sum(1))
    return found


def trio_calls_of(
    child: Reads,
    father: Reads,
    mother: Reads,
    reference: np.ndarray,
    start: int,
    first: int,
    last: int,
    asked: Calling = _DEFAULT,
    gaps: Sequence[np.ndarray | None] = (None, None, None),
) -> list[TrioSite]:
    """Sites within [first, last) of three samples, each with the alleles that reads of any of them show. `reference`
    uint8 letters from `start` on, upper case, with a margin on both sides. `gaps`: of each, how often its reads have
    gaps by error, see `gap_errors`."""
    members = (child, father, mother)
    shown = [
        candidates(piled(reads, reference, start, asked.min_base_quality), asked.min_reads, asked.min_share)
        for reads in members
    ]
    every = [replace(one, reads=0, depth=0, forced=True) for one in merged(itertools.chain(*shown))]
    called = [
        sites_of(merged([*every, *own]), reads, reference, start, first, last, slips)
        for own, reads, slips in zip(shown, members, gaps, strict=True)
    ]
    return [together(*of_one) for of_one in zip(*called, strict=True)]


def together(child: Site, father: Site, mother: Site) -> TrioSite:
    """Three sites of the same alleles, judged jointly: genotypes, posteriors and GQ are those of the trio. Alleles that
    none of them has leave; where none has any, the likeliest stays. A sample of which no read says anything keeps its
    genotype open, and one keeps what most of its reads show though errors are likelier (`genotypes.SHOWN`)."""
    members: Sequence[Site] = (child, father, mother)
    assert len({(site.pos, site.ref, site.alts) for site in members}) == 1
    if len(child.alts) > _MOST:
        among = _likeliest(members)
        members = [_only(site, among) for site in members]
    indel = [len(text) != len(members[0].ref) for text in (members[0].ref, *members[0].alts)]
    likelihood = np.stack([site.pl for site in members]) * (-np.log(10) / 10)
    decision = decided(likelihood, log_prior([rate(members[0].ref, alt) for alt in members[0].alts]), mutations(indel))
    every = pairs(len(indel))
    chosen = [
        site.genotype if site.genotype is None or (number == 0 and _shown(site)) else every[number]
        for site, number in zip(members, decision.genotypes, strict=True)
    ]
    had = {allele for genotype in chosen for allele in genotype or ()} - {0}
    if not had:
        having = [[allele in pair for pair in every] for allele in range(1, len(indel))]
        had = {1 + int(np.argmax([decision.posteriors[:, mine].sum() for mine in having]))}
    found = []
    for site, genotype, posterior in zip(members, chosen, decision.posteriors, strict=True):
        variant = min(-10 / np.log(10) * float(np.log(max(posterior[0], 1e-300))), _LARGEST)
        found.append(_only(replace(site, genotype=genotype, posterior=posterior, variant=variant), sorted({0, *had})))
    quality = min(max(-10 / np.log(10) * decision.log_reference, 0.0), _LARGEST)
    return TrioSite(found[0], found[1], found[2], decision.de_novo, quality)


def _shown(site: Site) -> bool:
    """Whether a genotype stands though the reference is likelier."""
    return site.genotype not in (None, (0, 0)) and int(site.posterior.argmax()) == 0


def _likeliest(members: Sequence[Site]) -> list[int]:
    """The reference and the alleles whose likeliest genotypes are the likeliest in any member."""
    every = pairs(len(members[0].alts) + 1)
    least = [
        (min(min(int(site.pl[k]) for k, pair in enumerate(every) if allele in pair) for site in members), allele)
        for allele in range(1, len(members[0].alts) + 1)
    ]
    return sorted([0, *(allele for _, allele in sorted(least)[:_MOST])])


def _only(site: Site, kept: Sequence[int]) -> Site:
    """The site with some of its alleles, the reference first, and its bases as few as these need."""
    texts = [(site.ref, *site.alts)[number] for number in kept]
    while min(map(len, texts)) > 1 and len({text[-1] for text in texts}) == 1:
        texts = [text[:-1] for text in texts]
    places = [order(kept[low], kept[high]) for low, high in pairs(len(kept))]
    pl, posterior = site.pl[places], site.posterior[places]
    own = site.genotype
    if own is not None:
        own = (kept.index(own[0]), kept.index(own[1])) if {*own} <= {*kept} else (0, 0)
    return replace(
        site,
        ref=texts[0],
        alts=tuple(texts[1:]),
        genotype=own,
        pl=pl - pl.min(),
        posterior=posterior / posterior.sum() if posterior.sum() > 0 else posterior,
        ad=site.ad[list(kept)],
    )
