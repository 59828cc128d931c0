"""Child, father and mother called one by one and together: what of their genotypes is right, how many break Mendel's
laws, and what is found of planted mutations, for the table of docs/accuracy.md.

    .venv/bin/python -m tests.reference.families [--depths 30,15,8] [--seeds 2] [--bases 300000]

Reads are those of `sequencing`, aligned where they come from, of a stretch of chr20 of ../shared/data. Every second
variant of a parent may be in the other, too. A mutation is planted every 10,000 bases, a fifth of them indels: some
8,000 times as often as they are, so that few are believed where a parent may as well have been missed. Genotypes at
these are not counted. Alone, what neither parent is called with counts as a mutation.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pysam

from genodl_spark.formats import alignment
from genodl_spark.genetics.calling.genotypes import Site
from genodl_spark.genetics.calling.reads import LEFT_OUT, Reads
from genodl_spark.genetics.calling.tile import MARGIN, TILE, calls_of, reads_of
from genodl_spark.genetics.calling.trio import TrioSite, trio_calls_of
from tests.genetics.calling import diploid, sequencing
from tests.genetics.calling.diploid import Genome, Variant
from tests.genetics.calling.sequencing import Machine
from tests.reference import simulated_reads

START = 4_000_000
EVERY = 10_000  # bases from one mutation to the next
Pair = tuple[int, int]
Key = tuple[int, str, str]


@dataclass(frozen=True)
class Family:
    """Child, father and mother, and what the child alone has."""

    members: tuple[Genome, Genome, Genome]
    new: set[Key]


def family(contig: str, reference: str, start: int, end: int, seed: int) -> Family:
    """Parents by `diploid`; of each a chromosome goes to the child."""
    random = np.random.default_rng(seed)
    father, mother = (diploid.genome(contig, reference, start, end, 10 * seed + who) for who in (1, 2))
    taken = np.zeros(end - start + 100, bool)
    of: list[list[Variant]] = [[], [], []]
    new: set[Key] = set()
    mutations = _mutations(contig, reference, start, end, random)
    every = [(v, 0) for v in mutations] + [(v, 1) for v in father.variants] + [(v, 2) for v in mother.variants]
    for variant, who in every:
        span = slice(max(variant.pos - start - 2, 0), variant.end - start + 2)
        if taken[span].any():
            continue
        taken[span] = True
        if who == 0:
            carried = [(0, 0), (0, 0)]
            child = (1, 0) if random.random() < 0.5 else (0, 1)
            new.add((variant.pos, variant.ref, variant.alts[0]))
        else:
            other: Pair = (0, 0)
            if random.random() < 0.5:
                a, b = (int(x) for x in random.integers(0, len(variant.alts) + 1, 2))
                other = (a, b)
            carried = [variant.genotype, other] if who == 1 else [other, variant.genotype]
            child = (carried[0][0], carried[1][0])
        for number, genotype in enumerate((child, *carried)):
            if genotype != (0, 0):
                of[number].append(replace(variant, genotype=genotype))
    members = [Genome(contig, reference, start, end, sorted(variants)) for variants in of]
    return Family((members[0], members[1], members[2]), new)


def _mutations(contig: str, reference: str, start: int, end: int, random: np.random.Generator) -> list[Variant]:
    """One every EVERY bases."""
    found = []
    for number, at in enumerate(range(start + EVERY // 2, end - EVERY // 2, EVERY)):
        pos = at + int(random.integers(0, EVERY // 2))
        ref, base = reference[pos], reference[pos + 1]
        if "N" in reference[pos - 50 : pos + 50]:
            continue
        other = str(random.choice([x for x in "ACGT" if x != ref]))
        if number % 5:
            found.append(Variant(pos, ref, (other,), (0, 1)))
        elif random.random() < 0.5:
            at, (long, short) = diploid.normalised(reference, pos, (reference[pos : pos + 1 + number % 4 + 1], ref))
            found.append(Variant(at, long, (short,), (0, 1)))
        else:
            text = str(random.choice([x for x in "ACGT" if x != base])) * (1 + number % 3)
            at, (short, long) = diploid.normalised(reference, pos, (ref, ref + text))
            found.append(Variant(at, short, (long,), (0, 1)))
    return found


def copies(reference: str, variants: Iterable[tuple[int, str, tuple[str, ...], Pair]]) -> dict[Key, int]:
    """How many copies there are of each allele, moved to the left."""
    found: dict[Key, int] = {}
    for pos, ref, alts, genotype in variants:
        for number, alt in enumerate(alts, 1):
            if number in genotype:
                at, (old, new) = diploid.normalised(reference, pos, (ref, alt))
                found[at, old, new] = genotype.count(number)
    return found


def of_sites(reference: str, sites: Iterable[Site]) -> dict[Key, int]:
    return copies(reference, ((s.pos, s.ref, s.alts, s.genotype or (0, 0)) for s in sites))


def violates(child: int, father: int, mother: int) -> bool:
    """Whether so many copies of an allele are not to be had of parents with so many."""
    least = (father == 2) + (mother == 2)
    return not least <= child <= (father > 0) + (mother > 0)


def tiles(
    files: Sequence[Path], reference: str, contig: str, start: int, end: int
) -> Iterator[tuple[list[Reads], np.ndarray, int, int, int]]:
    """Reads of each file, letters of the reference and where these begin, and the stretch to call."""
    for first in range(start // TILE * TILE, end, TILE):
        left, right = max(first - MARGIN, 0), first + TILE + MARGIN
        letters = np.frombuffer(reference[left:right].encode(), np.uint8)
        bams = [alignment.region_bam(str(file), contig, left + 1, right, None, (), LEFT_OUT) for file in files]
        yield [reads_of(bam, letters, left) for bam in bams], letters, left, max(first, start), min(first + TILE, end)


@dataclass
class Counts:
    """Of one way to call: errors of genotypes of child and parents, violations, and seconds; of mutations, how many are
    found (DNM of .5 at least), and how many are no mutations."""

    wrong: list[int] = field(default_factory=lambda: [0, 0, 0])
    violations: int = 0
    seconds: float = 0
    found: int = 0
    false: int = 0


def compared(of: Family, depth: float, seed: int, folder: Path, totals: dict[str, Counts]) -> None:
    """Adds what one family shows."""
    first = of.members[0]
    files = []
    for who, member in enumerate(of.members):
        rows = sequencing.sequenced(member, 10 * seed + who, Machine(depth=depth))
        head = sequencing.header({first.contig: len(first.reference)}, {})
        files.append(sequencing.write(folder / f"{who}.bam", {first.contig: rows}, head))
    alone: list[list[Site]] = [[], [], []]
    together: list[TrioSite] = []
    for reads, letters, left, begin, end in tiles(files, first.reference, first.contig, first.start, first.end):
        began = time.process_time()
        for who, one in enumerate(reads):
            alone[who] += calls_of(one, letters, left, begin, end)
        between = time.process_time()
        together += trio_calls_of(reads[0], reads[1], reads[2], letters, left, begin, end)
        totals["alone"].seconds += between - began
        totals["together"].seconds += time.process_time() - between
    text = first.reference
    true = [copies(text, ((v.pos, v.ref, v.alts, v.genotype) for v in member.variants)) for member in of.members]
    by_way = {
        "alone": [of_sites(text, sites) for sites in alone],
        "together": [of_sites(text, (site.members[who] for site in together)) for who in range(3)],
    }
    for way, calls in by_way.items():
        for key in set().union(*calls, *true):
            got, want = [one.get(key, 0) for one in calls], [one.get(key, 0) for one in true]
            if key not in of.new:
                for who in range(3):
                    totals[way].wrong[who] += got[who] != want[who]
                totals[way].violations += violates(got[0], got[1], got[2])
    told = {key for site in together if site.de_novo >= 0.5 for key in of_sites(text, [site.child])}
    parents = {*by_way["together"][1], *by_way["together"][2]}
    totals["together"].found += len(told & of.new)
    totals["together"].false += len(told - of.new - parents)
    new = {key for key in by_way["alone"][0] if not (key in by_way["alone"][1] or key in by_way["alone"][2])}
    totals["alone"].found += len(new & of.new)
    totals["alone"].false += len(new - of.new)


def main() -> int:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--depths", default="30,15,8")
    asked.add_argument("--seeds", type=int, default=2)
    asked.add_argument("--bases", type=int, default=300_000)
    of = asked.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        with pysam.FastxFile(str(simulated_reads.FASTA)) as file:
            text = next(one.sequence for one in file if one.name == "chr20").upper()
        print("| depth | called | wrong: child, father, mother | violations | mutations | no mutations | s per Mb |")
        print("|---|---|---|---|---|---|---|")
        for depth in (float(x) for x in of.depths.split(",")):
            totals = {"alone": Counts(), "together": Counts()}
            variants = new = 0
            for seed in range(of.seeds):
                one = family("chr20", text, START, START + of.bases, seed)
                variants += sum(len(member.variants) for member in one.members)
                new += len(one.new)
                compared(one, depth, seed, Path(scratch), totals)
            for way, counts in totals.items():
                wrong = ", ".join(map(str, counts.wrong))
                rate = counts.seconds / (of.seeds * of.bases / 1e6)
                print(
                    f"| {depth:g}x | {way} | {wrong} of {variants:,} | {counts.violations} | {counts.found} of {new} "
                    f"| {counts.false} | {rate:.1f} |",
                    flush=True,
                )
    return 0


if __name__ == "__main__":
    sys.exit(main())
