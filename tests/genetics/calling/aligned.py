"""Aligned reads for tests of calling: written by htslib, and drawn from haplotypes with the alignment that is true."""

from __future__ import annotations

import gzip
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pysam

from genodl_spark.genetics.calling.reads import Reads, of_bam
from tests.genetics.calling.diploid import Genome

CONTIG = "c"


@dataclass(frozen=True)
class Read:
    """A record of a BAM. `quality` of every base, or one for all; 0-based `pos`."""

    pos: int
    cigar: str
    bases: str
    quality: int | tuple[int, ...] | None = 30
    mapq: int = 60
    flag: int = 0
    name: str = ""

    @property
    def qualities(self) -> Sequence[int] | None:
        return (self.quality,) * len(self.bases) if isinstance(self.quality, int) else self.quality


def write(rows: Iterable[Read], path: Path, length: int = 1_000_000) -> None:
    """A BAM of reads in their order; those without a name get one of their own."""
    header = pysam.AlignmentHeader.from_references([CONTIG, "other"], [length, length])
    with pysam.AlignmentFile(str(path), "wb", header=header) as out:
        for number, row in enumerate(rows):
            one = pysam.AlignedSegment(header)
            one.query_name, one.flag = row.name or f"r{number}", row.flag
            one.reference_id, one.reference_start = (0, row.pos) if row.pos >= 0 else (-1, -1)
            one.mapping_quality, one.cigarstring = row.mapq, row.cigar or None
            if row.bases:
                one.query_sequence = row.bases
                if row.qualities is not None:
                    one.query_qualities = np.array(row.qualities, "B").tolist()
            out.write(one)


def bam(rows: Iterable[Read], length: int = 1_000_000) -> bytes:
    """The same, inflated."""
    with tempfile.TemporaryDirectory() as folder:
        write(rows, Path(folder) / "r.bam", length)
        with gzip.open(Path(folder) / "r.bam") as file:
            return file.read()


def reads(rows: Iterable[Read], least_mapq: int = 0) -> Reads:
    """Reads by position, as a sorted BAM has them."""
    return of_bam(bam(sorted(rows, key=lambda row: row.pos)), least_mapq)


def random_reference(length: int, seed: int = 0) -> str:
    return "".join(np.random.default_rng(seed).choice(list("ACGT"), length))


def letters(text: str) -> np.ndarray:
    return np.frombuffer(text.encode(), np.uint8)


def drawn(
    genome: Genome, depth: float, seed: int, length: int = 100, quality: int = 30, wrong: float | None = None
) -> list[Read]:
    """Reads of both haplotypes alike; bases are wrong as often as their quality says, or with chance `wrong`."""
    random = np.random.default_rng(seed)
    chance = 10 ** (-quality / 10) if wrong is None else wrong
    found = []
    for which in (0, 1):
        bases, places = genome.haplotype(which)
        for start in random.integers(0, len(bases) - length + 1, round(depth / 2 * len(bases) / length)).tolist():
            own = bases[start : start + length].copy()
            for at in np.flatnonzero(random.random(length) < chance).tolist():
                own[at] = random.choice([base for base in b"ACGT" if base != own[at]])
            flag = 16 * int(random.integers(2))
            found.append(
                replace(_placed(own.tobytes().decode(), places[start : start + length]), quality=quality, flag=flag)
            )
    return sorted((replace(one, name=f"d{seed}_{number}") for number, one in enumerate(found)), key=lambda one: one.pos)


def _placed(bases: str, places: np.ndarray) -> Read:
    """A read whose bases stand at known places; inserted ones at its ends are clipped."""
    on = np.flatnonzero(places >= 0)
    steps = [(int(on[0]), "S")]
    for before, after in zip(on[:-1].tolist(), on[1:].tolist(), strict=True):
        steps += [(1, "M"), (after - before - 1, "I"), (int(places[after] - places[before]) - 1, "D")]
    steps += [(1, "M"), (len(places) - 1 - int(on[-1]), "S")]
    merged: list[tuple[int, str]] = []
    for count, kind in steps:
        if count and merged and merged[-1][1] == kind:
            merged[-1] = (merged[-1][0] + count, kind)
        elif count:
            merged.append((count, kind))
    return Read(int(places[on[0]]), "".join(f"{count}{kind}" for count, kind in merged), bases)
