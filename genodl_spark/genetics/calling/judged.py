"""What a likelihood and a network say of a site, as one decision. Pure NumPy.

The network says of each allele how likely a genome has 0, 1 or 2 copies of it, and has seen what the likelihood says:
its chances, calibrated on rows that it did not learn from, are those of both. One of them never undoes a call in
silence: where the likelihood is sure of a variant, or most of many reads show one, and the network says that there is
none, the call stays, and says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from genodl_spark.genetics.calling.genotypes import Site, pairs, phred

NETWORK_REFERENCE = "NetworkReference"
SURE = 50.0  # GQ of the likelihood from which on the network alone makes no call a reference
_LEAST = 1e-10  # of a chance

Place = tuple[int, str, str]


@dataclass(frozen=True)
class Judged:
    """A site with the genotype, chances and quality of both together; the phred-scaled likelihoods stay. `overruled`:
    the network says reference, and is not followed. `network` float64 (alts, 3): what it says of each allele."""

    site: Site
    overruled: bool
    network: np.ndarray


def alone(pos: int, ref: str, alt: str) -> Place:
    """An allele of a record as it is written without the others: `pileups.written`."""
    while len(ref) > 1 and len(alt) > 1 and ref[-1] == alt[-1]:
        ref, alt = ref[:-1], alt[:-1]
    return pos, ref, alt


def judged(site: Site, network: Mapping[Place, np.ndarray]) -> Judged | None:
    """`network`: its chances of 0, 1, 2 copies, float64 (3,), by candidate. None where it has not been asked of each
    allele of the site, or no read says anything."""
    found = [network.get(alone(site.pos, site.ref, alt)) for alt in site.alts]
    said = [chances for chances in found if chances is not None]
    if site.genotype is None or len(said) < len(found):
        return None
    chances = np.stack(said)
    genotypes = pairs(len(site.alts) + 1)
    both = together(chances, genotypes)
    best = int(both.argmax())
    overruled = genotypes[best] == (0, 0) != site.genotype and (site.quality >= SURE or site.shown)
    if overruled:
        return Judged(site, True, chances)
    return Judged(
        replace(site, genotype=genotypes[best], posterior=both, variant=phred(float(both[0]))), False, chances
    )


def together(chances: np.ndarray, genotypes: list[tuple[int, int]]) -> np.ndarray:
    """Chances of genotypes, float64 (G), by those of the copies of each allele, float64 (alts, 3): those of one allele
    as they are, of several as if they were independent but for there being two chromosomes."""
    logs = np.log(np.maximum(chances, _LEAST))
    copies = np.array([[one.count(allele) for allele in range(1, len(chances) + 1)] for one in genotypes])
    scores = logs[np.arange(len(chances)), copies].sum(1)
    found = np.exp(scores - scores.max())
    return np.asarray(found / found.sum())
