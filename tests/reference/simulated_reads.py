"""Reads of simulated genomes as a laboratory gives them: ART draws them, bwa maps them to the whole reference, samtools
sorts and indexes them. Wants art_illumina, bwa, samtools and ../shared/data; see `missing`.

ART's reads are easier than real ones: hardly an indel error (4 in a million bases, whatever its documentation says),
qualities that are exact, no duplicates. `Hardness` adds what it lacks. Its rates are ours, fitted to nothing: they ask
whether a caller withstands such errors, not how often a machine makes them.
"""

from __future__ import annotations

import gzip
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pysam

from tests.genetics.calling import diploid
from tests.reference.run import DATA

FASTA = DATA / "ref_grch38_chr20_21_10M" / "grch38.chr20_and_21_10M.fa.gz"
PROGRAMS = ("art_illumina", "bwa", "samtools", "bcftools")
SAMPLE = "SIM"
LENGTH = 150
_CHUNK = 100_000  # reads
_CONTEXT = 11  # bases before a systematic error that decide of it


@dataclass(frozen=True)
class Hardness:
    """`slippage`: chance that a run of 5 equal bases is read one shorter or longer, `growth` times as much with each
    further base, at most `most`. `systematic`: share of contexts of 12 bases whose last is misread in `misread` of the
    reads of that strand, and has a quality of `doubted` at most in all of them. `contexts`: which draw of them; what
    learnt from one may know it by heart. `duplicates`: share of pairs that come twice. `overstated`: what is added to
    qualities."""

    slippage: float = 2e-4
    growth: float = 1.9
    most: float = 0.05
    systematic: float = 1 / 50_000
    misread: float = 0.2
    doubted: int = 20
    contexts: int = 0
    duplicates: float = 0.08
    overstated: int = 3


@dataclass(frozen=True)
class Case:
    """Reads of 1-based closed [`first`, `last`] of a contig, and what is true of them."""

    folder: Path
    reference: Path
    contig: str
    first: int
    last: int
    sample: str = SAMPLE
    reads: str = "reads.bam"

    @property
    def bam(self) -> Path:
        return self.folder / self.reads

    @property
    def truth(self) -> Path:
        return self.folder / "truth.vcf.gz"

    @property
    def confident(self) -> Path:
        return self.folder / "confident.bed"

    @property
    def region(self) -> str:
        return f"{self.contig}:{self.first}-{self.last}"

    @property
    def megabases(self) -> float:
        return (self.last - self.first + 1) / 1e6


def missing() -> str | None:
    """Why no reads can be made here."""
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    if absent:
        return f"{', '.join(absent)} not installed (Debian: art-nextgen-simulation-tools bwa samtools bcftools)"
    return None if FASTA.is_file() else f"{FASTA} is absent; set GENODL_SHARED_DATA to the folder of public data sets"


def shell(command: str, **given: Path | str | int | float) -> str:
    """Output of a pipe of programs of which each has to end well; `{names}` are quoted by nobody: no spaces in them."""
    done = subprocess.run(
        ["bash", "-c", "set -euo pipefail; " + command.format(**given)], capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"{command.format(**given)}: {done.stderr[-500:]}")
    return done.stdout


def reference(folder: Path) -> Path:
    """The two contigs, unpacked and indexed for bwa; made once in a folder."""
    made = folder / "ref.fa"
    if not (folder / "ref.fa.sa").exists():
        folder.mkdir(parents=True, exist_ok=True)
        with gzip.open(FASTA) as packed, open(made, "wb") as plain:
            shutil.copyfileobj(packed, plain)
        pysam.faidx(str(made))
        shell("bwa index {made}", made=made)
    return made


def simulated(
    folder: Path, fasta: Path, contig: str, start: int, end: int, depth: float, seed: int, hard: Hardness | None = None
) -> Case:
    """A genome of 0-based half-open [`start`, `end`) and its reads; from the folder where they are made already."""
    case = Case(folder, fasta, contig, start + 1, end)
    if (folder / "reads.bam.bai").exists():
        return case
    folder.mkdir(parents=True, exist_ok=True)
    with pysam.FastaFile(str(fasta)) as bases:
        contigs = dict(zip(bases.references, bases.lengths, strict=True))
        of = diploid.genome(contig, bases.fetch(contig), start, end, seed)
    diploid.write_truth(of, folder, contigs, SAMPLE)
    for which in (0, 1):
        sequence = of.haplotype(which)[0].tobytes().decode()
        (folder / f"h{which}.fa").write_text(f">h{which}\n{sequence}\n")
        shell(
            "art_illumina -ss HS25 -i {folder}/h{which}.fa -p -l {length} -f {depth} -m 350 -s 50 -na -q "
            "-d h{which}_ -rs {seed} -o {folder}/h{which}_",
            **{"folder": folder, "which": which, "length": LENGTH, "depth": depth / 2, "seed": 2 * seed + which + 1},
        )
    shell("cd {folder}; for m in 1 2; do cat h0_$m.fq h1_$m.fq > r$m.fq; done; rm h[01]*", folder=folder)
    mark = ""
    if hard is not None:
        harder(folder, seed, hard)
        mark = "samtools fixmate -u -m - - |"
    group = rf"@RG\tID:sim\tSM:{SAMPLE}\tPL:ILLUMINA\tLB:sim"
    shell(
        "cd {folder}; bwa mem -t 2 -R '{group}' {fasta} r1.fq r2.fq 2> bwa.log | {mark} "
        "samtools sort -m 400M -T tmp {out}; samtools index reads.bam; rm r[12].fq",
        **{"folder": folder, "group": group, "fasta": fasta, "mark": mark},
        out="-u - | samtools markdup - reads.bam" if mark else "-o reads.bam -",
    )
    return case


def thinned(case: Case, share: float, seed: int, name: str) -> Case:
    """The same case with a share of its pairs, chosen by seed."""
    found = Case(case.folder, case.reference, case.contig, case.first, case.last, case.sample, name)
    if not Path(f"{found.bam}.bai").exists():
        chosen = f"{seed + 11}{f'{share:.5f}'[1:]}"
        shell("samtools view -b -s {chosen} -o {out} {bam}", chosen=chosen, out=found.bam, bam=case.bam)
        shell("samtools index {out}", out=found.bam)
    return found


def harder(folder: Path, seed: int, hard: Hardness) -> None:
    """Puts the errors of `Hardness` into r1.fq and r2.fq, and into both the same pairs a second time."""
    for mate in (1, 2):
        random, path = np.random.default_rng((seed, mate)), folder / f"r{mate}.fq"
        with open(path, "rb") as old, open(folder / "new.fq", "wb") as new:
            for part, (names, bases, qualities) in enumerate(_fastq(old)):
                same = np.random.default_rng((seed, 3, part))  # of both mates
                twice = np.flatnonzero(same.random(len(names)) < hard.duplicates)
                names += [b"@d" + names[one][1:] for one in twice]
                bases, qualities = (np.concatenate([one, one[twice]]) for one in (bases, qualities))
                bases, qualities = systematic(bases, qualities, hard, random)
                bases = slipped(bases, hard, random)
                qualities = np.minimum(qualities + hard.overstated, ord("J")).astype(np.uint8)
                rows = zip(names, bases, qualities, strict=True)
                new.write(b"".join(b"%b\n%b\n+\n%b\n" % (n, b.tobytes(), q.tobytes()) for n, b, q in rows))
        (folder / "new.fq").replace(path)


def _fastq(file: Iterator[bytes]) -> Iterator[tuple[list[bytes], np.ndarray, np.ndarray]]:
    """Names, bases and qualities uint8 (n, LENGTH) of the next reads; all are of one length."""
    while True:
        lines = list(islice(file, 4 * _CHUNK))
        if not lines:
            return
        bases, qualities = (np.frombuffer(b"".join(lines[k::4]), np.uint8).reshape(-1, LENGTH + 1) for k in (1, 3))
        yield [name.rstrip() for name in lines[::4]], bases[:, :LENGTH].copy(), qualities[:, :LENGTH].copy()


def systematic(
    bases: np.ndarray, qualities: np.ndarray, hard: Hardness, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Bases and qualities, uint8 ASCII (n, length), with contexts misread. A context, in the direction of reading, is
    always misread as the same base: where a genome has it, all reads of that strand are prone to it."""
    code = np.searchsorted(np.frombuffer(b"ACGT", np.uint8), bases).clip(0, 3).astype(np.uint64)
    length = bases.shape[1]
    context = np.zeros((len(bases), length - _CONTEXT), np.uint64)
    for back in range(_CONTEXT + 1):
        context = context * np.uint64(4) + code[:, back : length - _CONTEXT + back]
    context += np.uint64(hard.contexts) << np.uint64(2 * (_CONTEXT + 1))
    mixed = (context * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(40)
    row, column = np.nonzero(mixed < hard.systematic * 2**24)
    doubted = qualities.copy()
    at = row, column + _CONTEXT
    doubted[at] = np.minimum(doubted[at], ord("!") + hard.doubted)
    wrong = random.random(len(row)) < hard.misread
    row, column = row[wrong], column[wrong]
    shift = 1 + mixed[row, column] % np.uint64(3)
    found = bases.copy()
    at = row, column + _CONTEXT
    found[at] = np.frombuffer(b"ACGT", np.uint8)[(code[at] + shift) % np.uint64(4)]
    return found, doubted


def slipped(bases: np.ndarray, hard: Hardness, random: np.random.Generator) -> np.ndarray:
    """Bases uint8 (n, length) with runs read one base shorter, seven times of ten, or longer; reads keep their length:
    at the end a base is lost, or the last one comes twice."""
    found, (n, length) = bases.copy(), bases.shape
    edge = np.ones((n, length + 1), bool)
    edge[:, 1:-1] = bases[:, 1:] != bases[:, :-1]
    row, column = np.nonzero(edge)
    run = np.where(row[1:] == row[:-1], np.diff(column), 0)
    chance = np.where(run >= 5, np.minimum(hard.slippage * hard.growth ** (run - 5.0), hard.most), 0)
    for event in np.flatnonzero(random.random(len(chance)) < chance):
        at, end = column[event], column[event + 1]
        if end == length:  # how long the run is goes unseen
            continue
        read = found[row[event]].copy()
        if random.random() < 0.7:
            found[row[event], at:-1] = read[at + 1 :]
        else:
            found[row[event], at + 1 :] = read[at:-1]
    return found
