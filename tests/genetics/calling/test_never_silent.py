"""Where many sure reads show an allele no call is the reference: not by a likelihood, a filter or another allele."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from genodl_spark.formats import alignment
from genodl_spark.genetics.calling.genotypes import Site
from genodl_spark.genetics.calling.tile import calls_of, reads_of
from tests.genetics.calling import diploid, sequencing
from tests.genetics.calling.diploid import Rates, Variant

APART = 220  # bases between sites: no read has two


def reference() -> str:
    """Random bases of which runs and repeats are a tenth, up to 15 bases long: as many as in a genome, or more."""
    random = np.random.default_rng(3)
    bases = random.choice(list("ACGT"), 40_000)
    for at in range(200, 39_800, 150):
        period = int(random.integers(1, 4))
        copies = int(random.integers(5, 15)) // period + 1
        bases[at : at + period * copies] = np.tile(random.choice(list("ACGT"), period), copies)
    return "".join(bases)


@pytest.fixture(scope="module")
def sites() -> list[Variant]:
    rates = Rates(snv=1 / 150, indel=1 / 300, clusters=0, multi_allelic=0)
    found: list[Variant] = []
    for one in diploid.genome("c", reference(), 0, 40_000, 5, rates).variants:
        if not found or one.pos - found[-1].end > APART:
            found.append(one)
    return found


def called(sites: list[Variant], folder: Path, showing: int, others: int, strand: bool | None = None) -> list[Site]:
    bases, reads = reference(), []
    for number, one in enumerate(sites):
        reads += sequencing.over(one, bases, showing, others, (1, number), strand=strand)
    ordered = sorted(reads, key=lambda read: read.pos)
    path = sequencing.write(folder / "r.bam", {"c": ordered}, sequencing.header({"c": bases}, {}))
    bam, letters = alignment.region_bam(path.as_uri(), "c", 1, len(bases)), np.frombuffer(bases.encode(), np.uint8)
    return calls_of(reads_of(bam, letters, 0), letters, 0, 0, len(bases))


@pytest.mark.parametrize(
    ("showing", "others", "strand"), [(20, 10, None), (20, 20, True), (20, 40, None), (60, 0, False)]
)
def test_an_allele_that_twenty_sure_reads_show_is_called(
    sites: list[Variant], tmp_path: Path, showing: int, others: int, strand: bool | None
) -> None:
    found = called(sites, tmp_path, showing, others, strand)
    by_place = {(one.pos, one.ref): one for one in found if one.genotype not in (None, (0, 0))}
    silent = [one for one in sites if (one.pos, one.ref) not in by_place]
    assert not silent
    other = [one for one in sites if one.alts[0] not in by_place[one.pos, one.ref].alts]
    assert not other
    assert len(sites) > 100
    assert sum(len(one.ref) != len(one.alts[0]) for one in sites) > 30
