"""Variant calling from reads: what `genodl call` finds beside `bcftools mpileup | call`, on the same reads, for the
tables of docs/accuracy.md.

    .venv/bin/python -m tests.reference.calling simulated|hard|na12878|downsampled|depths|safety|shards
        [--scratch DIR] [--seeds 5] [--depths 30,15,60] [--only bcftools|genodl] [--lake URI --model ID]

`simulated` are reads of ART, `hard` the same with errors that ART lacks, see `simulated_reads`; both are of chr20, of
which a model may have learnt nothing. Without `--model` the likelihood alone calls. CPU seconds are of all processes
that worked, without the start of Spark. Wants the programs of `simulated_reads.PROGRAMS` and ../shared/data; a command
that lacks one says so and ends. Takes minutes a seed, and of disk 60 MB a seed in `--scratch`.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date
from itertools import pairwise
from pathlib import Path

import numpy as np
import pysam

from genodl_spark.core import session
from genodl_spark.genetics.calling import matching
from genodl_spark.report import content
from tests.genetics.calling import diploid, sequencing
from tests.genetics.calling.diploid import Rates, Variant
from tests.genetics.calling.sequencing import Machine, Read
from tests.reference import simulated_reads
from tests.reference.biomarkers import interval
from tests.reference.run import DATA, verb
from tests.reference.simulated_reads import SAMPLE, Case, Hardness, shell

NA12878 = DATA / "vc_na12878_chr20"
NA12878_DEPTH = 52.5
START, END = 4_000_000, 5_000_000  # of chr20, what is held out
DEEPEST = 60
BCFTOOLS, GENODL = "bcftools", "genodl"
SNP, INDEL = "SNP", "INDEL"
CLASSES = (SNP, INDEL, "ins 1-3", "ins 4-7", "ins 8-20", "del 1-3", "del 4-7", "del 8-20")
GQ_BINS = (0, 10, 20, 30, 40, 50, 60, 1000)


@dataclass(frozen=True)
class Counts:
    """`tp`, `fn` of the truth; `right`, `fp` of the calls."""

    tp: int = 0
    fn: int = 0
    right: int = 0
    fp: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.tp + other.tp, self.fn + other.fn, self.right + other.right, self.fp + other.fp)

    @property
    def recall(self) -> float:
        return self.tp / (self.tp + self.fn) if self.tp + self.fn else np.nan

    @property
    def precision(self) -> float:
        return self.right / (self.right + self.fp) if self.right + self.fp else np.nan

    @property
    def f1(self) -> float:
        """0 where nothing is found."""
        if not self.tp or not self.right:
            return 0.0
        return 2 * self.recall * self.precision / (self.recall + self.precision)


@dataclass(frozen=True)
class Called:
    """What one caller made of a case: `counts` by class of variant; GQ of each called allele, whether it is right."""

    seconds: float
    counts: dict[str, Counts]
    quality: np.ndarray = field(default_factory=lambda: np.zeros(0))
    right: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))


Caller = Callable[[Case, Path], float]


def classes(size: int) -> tuple[str, ...]:
    """Of an allele that is so many bases longer than REF."""
    if size == 0:
        return (SNP,)
    ends = next((f"{low}-{high}" for low, high in ((1, 3), (4, 7), (8, 20)) if low <= abs(size) <= high), "21-")
    return INDEL, f"{'ins' if size > 0 else 'del'} {ends}"


def compared(case: Case, vcf: Path, bed: Path) -> tuple[dict[str, Counts], np.ndarray, np.ndarray]:
    """Counts of SNPs and indels by `genodl evaluate calls`. Those by size, which it has in other classes, and of calls
    GQ and whether they are right, by the haplotypes as well: a call that another writes otherwise is not wrong."""
    counts = dict.fromkeys(CLASSES, Counts())
    with pysam.FastaFile(str(case.reference)) as bases:
        reference = bases.fetch(case.contig).upper().encode()
    truth, query = (records(one, case, bed) for one in (case.truth, vcf))
    parts = [(part, quality) for variant, quality in query for part in matching.primitives(variant)]
    found = matching.compared(reference, 1, [one for one, _ in truth], [part for part, _ in parts])
    right = found.query.status == matching.MATCHED
    for (variant, _), status in zip(truth, found.truth.status, strict=True):
        _count(counts, variant, Counts(tp=1) if status == matching.MATCHED else Counts(fn=1))
    for (part, _), ok in zip(parts, right, strict=True):
        _count(counts, part, Counts(right=1) if ok else Counts(fp=1))
    given = ("--query", str(vcf), "--truth", str(case.truth), "--reference", str(case.reference))
    with tempfile.TemporaryDirectory() as lake:
        found_by = verb("evaluate", "calls", "--lake", lake, *given, "--confident", str(bed))["metrics"]["counts"]
    for kind in (SNP, INDEL):
        of = found_by[kind]["PASS"]
        counts[kind] = Counts(*(of[name] for name in ("TRUTH.TP", "TRUTH.FN", "QUERY.TP", "QUERY.FP")))
    return counts, np.array([quality for _, quality in parts]), right


def records(
    vcf: Path, case: Case, bed: Path | None = None, filtered: bool = False
) -> list[tuple[matching.Variant, float]]:
    """Variants of a case's contig that begin in the BED, and the GQ of each, NaN without. `filtered`: those too that
    do not pass."""
    within = None if bed is None else np.array([line.split("\t")[1:3] for line in bed.read_text().splitlines()], int)
    found = []
    with pysam.VariantFile(str(vcf)) as file:
        for record in file:
            call = record.samples[0]
            genotype = tuple(-1 if one is None else one for one in call["GT"])
            passes = filtered or not {*record.filter} - {"PASS"}
            inside = within is None or bool(((within[:, 0] < record.pos) & (record.pos <= within[:, 1])).any())
            if record.chrom == case.contig and passes and inside and max(genotype) > 0:
                alts = tuple(alt.encode() for alt in record.alts or ())
                quality = call["GQ"] if "GQ" in record.format and call["GQ"] is not None else np.nan
                variant = matching.Variant(record.pos, str(record.ref).encode(), alts, genotype)
                found.append((variant, float(quality)))
    return found


def _count(counts: dict[str, Counts], variant: matching.Variant, one: Counts) -> None:
    """Adds to each class of which one of the called alleles is."""
    called = {variant.alts[number - 1] for number in variant.genotype if number > 0}
    for name in {name for alt in called for name in classes(len(alt) - len(variant.ref))}:
        counts[name] = counts.get(name, Counts()) + one


def bcftools(case: Case, output: Path) -> float:
    """`bcftools mpileup | call -mv` with its defaults, GQ asked for; CPU seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    shell(
        "bcftools mpileup -f {fasta} -r {region} -Ou {bam} | bcftools call -mv -f GQ -Oz -o {output} -; "
        "bcftools index -f -t {output}",
        **{"fasta": case.reference, "region": case.region, "bam": case.bam, "output": output},
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def genodl(lake: str, model: str | None, options: Sequence[str] = ()) -> Caller:
    """`genodl call` with the lake's model, or none; a cohort for each file."""

    def call(case: Case, output: Path) -> float:
        cohort = f"{case.folder.name}-{Path(case.reads).stem}".replace(".", "_")
        at = ("--lake", lake, "--cohort", cohort)
        with contextlib.suppress(RuntimeError):  # there already
            verb("ingest", "alignments", str(case.bam), *at, "--reference", str(case.reference))
        before = process_seconds()
        chosen = ("--model", model) if model else ()
        asked = ("--sample", case.sample, "--output", str(output), "--region", case.region)
        verb("call", *at, *asked, *chosen, *options)
        return process_seconds() - before

    return call


def process_seconds() -> float:
    """CPU seconds of this process, those below it, and those of them that ended."""
    tick, parents, used = os.sysconf("SC_CLK_TCK"), {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            values = (folder / "stat").read_text().rpartition(")")[2].split()
            parents[int(folder.name)] = int(values[1])
            used[int(folder.name)] = sum(map(int, values[11:15])) / tick
    total, ours = 0.0, {os.getpid()}
    grown = True
    while grown:
        below = {pid for pid, parent in parents.items() if parent in ours} | ours
        grown, ours = below != ours, below
    for pid in ours:
        total += used.get(pid, 0.0)
    return total


def called(case: Case, name: str, caller: Caller, beds: Sequence[Path] = ()) -> list[Called]:
    """What a caller makes of a case, compared within each BED; within what is confident if there is none."""
    output = case.folder / f"{Path(case.reads).stem}.{name}.vcf.gz"
    seconds = caller(case, output)
    return [Called(seconds, *compared(case, output, bed)) for bed in beds or [case.confident]]


def table(of: dict[tuple[str, str], list[Called]], megabases: float) -> None:
    """A line for each case, caller and class: sums over seeds, F1 with its interval over them."""
    rows = []
    for (name, caller), runs in of.items():
        for kind in CLASSES:
            summed = sum((one.counts[kind] for one in runs), Counts())
            if summed == Counts():
                continue
            spread = interval([one.counts[kind].f1 for one in runs]) if len(runs) > 1 else f"{summed.f1:.3f}"
            shown = [f"{summed.recall:.4f}", f"{summed.precision:.4f}", f"{summed.f1:.4f}", spread]
            rows.append([name, caller, kind, f"{summed.tp}/{summed.tp + summed.fn}", str(summed.fp), *shown])
    print(content.table(rows, ["reads", "caller", "kind", "found", "false", "recall", "precision", "F1", "over seeds"]))
    rates = [[name, caller, _rate(runs, megabases)] for (name, caller), runs in of.items()]
    print(content.table(rates, ["reads", "caller", "CPU s per Mb"]))


def _rate(runs: list[Called], megabases: float) -> str:
    values = [one.seconds / megabases for one in runs]
    return interval(values) if len(values) > 1 else f"{values[0]:.1f}"


def calibration(of: dict[tuple[str, str], list[Called]]) -> None:
    """Of calls by GQ how many are wrong and how many are to be by their GQ. Where both are less than 1 nothing is
    measured, and the line says so."""
    rows = []
    for (name, caller), runs in of.items():
        quality, right = (np.concatenate([getattr(one, part) for one in runs]) for part in ("quality", "right"))
        for low, high in pairwise(GQ_BINS):
            here = (quality >= low) & (quality < high)
            if not here.any():
                continue
            stated, wrong = float((10 ** (-quality[here] / 10)).sum()), int((~right[here]).sum())
            ratio = "-" if max(stated, wrong) < 1 else f"{wrong / stated:.2f}" if wrong < 100 * stated else "> 100"
            rows.append([name, caller, f"{low}-{high - 1}", str(int(here.sum())), f"{stated:.2f}", str(wrong), ratio])
    print(content.table(rows, ["reads", "caller", "GQ", "calls", "wrong by GQ", "wrong", "observed / stated"]))


def simulated(callers: dict[str, Caller], scratch: Path, seeds: int, depths: Sequence[int], hard: bool) -> None:
    """Genomes of their own seeds, reads of 60x, and shares of them for other depths."""
    fasta = simulated_reads.reference(scratch)
    of: dict[tuple[str, str], list[Called]] = {}
    for seed in range(100, 100 + seeds):
        folder = scratch / f"{'hard' if hard else 'plain'}{seed}"
        made = simulated_reads.simulated(
            folder, fasta, "chr20", START, END, DEEPEST, seed, Hardness() if hard else None
        )
        for depth in depths:
            case = made if depth == DEEPEST else simulated_reads.thinned(made, depth / DEEPEST, seed, f"x{depth}.bam")
            for name, caller in callers.items():
                of.setdefault((f"{depth}x", name), []).extend(called(case, name, caller))
                print(f"seed {seed} {depth}x {name}", file=sys.stderr, flush=True)
    table(of, (END - START) / 1e6)
    calibration(of)


def na12878(scratch: Path) -> Case:
    folder = scratch / "na12878"
    case = Case(folder, folder / "ref.fa", "chr20", 10_000_001, 10_050_000, "NA12878")
    if not case.bam.exists():
        folder.mkdir(parents=True, exist_ok=True)
        shell("zcat {source}/ucsc.hg19.chr20.unittest.fasta.gz > {out}", source=NA12878, out=case.reference)
        pysam.faidx(str(case.reference))
        for old, new in (("truth.vcf.gz", case.truth), ("truth.vcf.gz.tbi", Path(f"{case.truth}.tbi"))):
            shutil.copy(NA12878 / old, new)
        shutil.copy(NA12878 / "confident.bed", case.confident)
        shutil.copy(NA12878 / "NA12878.chr20.bam.bai", f"{case.bam}.bai")
        shutil.copy(NA12878 / "NA12878.chr20.bam", case.bam)
        whole = [(case.first - 1, case.last)]
        sure = [tuple(map(int, line.split("\t")[1:3])) for line in case.confident.read_text().splitlines()]
        for start, end in sorted(sure):  # what is not confident
            last = whole.pop()
            whole += [(last[0], start), (end, last[1])]
        text = "".join(f"chr20\t{start}\t{end}\n" for start, end in whole if end > start)
        (folder / "elsewhere.bed").write_text(text)
    return case


def real(callers: dict[str, Caller], scratch: Path, seeds: int, depths: Sequence[float]) -> None:
    """NA12878 whole, or thinned to each depth once a seed: the confident stretches, and the rest of the 50 kb, whose
    truth is not complete: there recall and precision compare callers and are no rates."""
    whole = na12878(scratch)
    of: dict[tuple[str, str], list[Called]] = {}
    for depth in depths or [NA12878_DEPTH]:
        for seed in range(seeds if depths else 1):
            share = depth / NA12878_DEPTH
            case = simulated_reads.thinned(whole, share, seed, f"x{depth:g}s{seed}.bam") if depths else whole
            for name, caller in callers.items():
                places = ("confident", "elsewhere")
                found = called(case, name, caller, [whole.folder / f"{place}.bed" for place in places])
                for place, one in zip(places, found, strict=True):
                    of.setdefault((f"{depth:g}x {place}", name), []).append(one)
    table(of, whole.megabases)
    calibration(of)


def extremes(callers: dict[str, Caller], scratch: Path) -> None:
    """Coverage 1 and 1,000: 20 kb of chr20, which has to be called in the end."""
    fasta = simulated_reads.reference(scratch)
    for depth in (1, 1000):
        of = {}
        folder = scratch / f"depth{depth}"
        case = simulated_reads.simulated(folder, fasta, "chr20", START, START + 40_000, depth, 7, None)
        for name, caller in callers.items():
            of[f"{depth}x", name] = called(case, name, caller)
        table(of, case.megabases)


def safety(callers: dict[str, Caller], scratch: Path, sites: int) -> None:
    """Sites of real sequence, each with 30 to 60 reads of mapping quality 60 of which 20 at least, and the most that
    hold no other allele, show an allele; a fifth of the sites is read on one strand alone. A site is silent where no
    called allele begins within 25 bases of it: a reference call, said or implied."""
    fasta, folder = simulated_reads.reference(scratch), scratch / f"safety{sites}"
    case = Case(folder, fasta, "chr20", START + 1, START + 500 * sites)
    with pysam.FastaFile(str(fasta)) as bases:
        contigs = dict(zip(bases.references, bases.lengths, strict=True))
        whole = bases.fetch(case.contig)
    of = diploid.genome(case.contig, whole, case.first - 1, case.last, 11, Rates(1 / 300, 1 / 1500, 0, multi_allelic=0))
    chosen: list[Variant] = []
    for variant in of.variants:  # reads of two sites do not overlap
        if not chosen or variant.pos - chosen[-1].end > 2 * Machine().length + 20:
            chosen.append(variant)
    chosen = chosen[:sites]
    random = np.random.default_rng(12)
    reads: list[Read] = []
    for number, variant in enumerate(chosen):
        total = int(random.integers(30, 61))
        showing = int(random.integers(20, total + 1))
        strand = None if random.random() < 0.8 else bool(random.random() < 0.5)
        reads += sequencing.over(variant, whole, showing, total - showing, (13, number), Machine(), strand, "g")
    folder.mkdir(parents=True, exist_ok=True)
    head = sequencing.header(contigs, {"g": SAMPLE})
    sequencing.write(case.bam, {case.contig: sorted(reads, key=lambda read: read.pos)}, head)
    rows = []
    for name, caller in callers.items():
        output = folder / f"{name}.vcf.gz"
        caller(case, output)
        called_at = np.array(sorted({variant.position for variant, _ in records(output, case, filtered=True)}))
        silent, kinds = [], {SNP: [0, 0], INDEL: [0, 0]}
        for variant in chosen:
            near = np.searchsorted(called_at, [variant.pos + 1 - 25, variant.end + 26])
            kind = SNP if len(variant.ref) == len(variant.alts[0]) else INDEL
            kinds[kind][1] += 1
            if near[0] == near[1]:
                silent.append(variant)
                kinds[kind][0] += 1
        rows.append([name, *(f"{missed} of {n}" for missed, n in kinds.values()), f"{len(silent)} of {len(chosen)}"])
        for variant in silent[:5]:
            print(f"{name} silent at {case.contig}:{variant.pos + 1} {variant.ref} {variant.alts[0]}", file=sys.stderr)
    print(content.table(rows, ["caller", "silent SNPs", "silent indels", "silent"]))


def shards(lake: str, scratch: Path) -> None:
    """The same records from 1, 2 and 7 shards."""
    case, texts = na12878(scratch), {}
    for count in (1, 2, 7):
        output = scratch / f"shards{count}.vcf.gz"
        genodl(lake, None, ("--set", f"call.shards={count}"))(case, output)
        texts[count] = shell("bcftools view -H {vcf} | md5sum", vcf=output)[:32]
    same = "the same" if len(set(texts.values())) == 1 else "NOT the same"
    print(f"records of 1, 2 and 7 shards: {same}, MD5 {texts}")


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__)
    commands = ("simulated", "hard", "na12878", "downsampled", "depths", "safety", "shards")
    made.add_argument("command", choices=commands)
    made.add_argument("--scratch", help="folder of what is made, from which another run goes on; default: none")
    made.add_argument("--seeds", type=int, default=5)
    made.add_argument("--depths", default="30,15,60")
    made.add_argument("--sites", type=int, default=10_000, help="of safety")
    made.add_argument("--only", choices=(BCFTOOLS, GENODL))
    made.add_argument("--lake", help="URI of the lake with the model")
    made.add_argument("--model", help="ID of a model, trained elsewhere")
    given = made.parse_args()
    why = simulated_reads.missing()
    if why is None and not NA12878.is_dir():
        why = f"{NA12878} is absent; set GENODL_SHARED_DATA to the folder of public data sets"
    if why is not None:
        sys.exit(f"skipped: {why}")
    print(f"{date.today()}, {os.cpu_count()} cores: -m tests.reference.calling {' '.join(sys.argv[1:])}\n")
    with contextlib.ExitStack() as stack:
        folder = Path(given.scratch or stack.enter_context(tempfile.TemporaryDirectory()))
        callers: dict[str, Caller] = {BCFTOOLS: bcftools}
        if given.only != BCFTOOLS:
            stack.enter_context(session.shared())
            callers[GENODL] = genodl(given.lake or str(folder / "lake"), given.model)
        if given.only:
            callers = {given.only: callers[given.only]}
        depths = [int(one) for one in given.depths.split(",")]
        if given.command in ("simulated", "hard"):
            simulated(callers, folder, given.seeds, depths, given.command == "hard")
        elif given.command == "depths":
            extremes(callers, folder)
        elif given.command == "safety":
            safety(callers, folder, given.sites)
        elif given.command == "shards":
            shards(given.lake or str(folder / "lake"), folder)
        else:
            real(callers, folder, given.seeds, [7, 5] if given.command == "downsampled" else [])


if __name__ == "__main__":
    main()
