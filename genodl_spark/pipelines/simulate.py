"""Cohorts made up by coalescent simulation: data of any size to try, test and measure with, and nobody's.

Three populations under the out-of-Africa model of Gutenkunst et al., PLoS Genetics 5 (2009) e1000695,
table 1, as the msprime manual gives it; 25 years per generation. Mutations at the 2.35e-8 per
base and generation that the model was fitted with, so that diversity is that of real genomes;
recurrent ones included, so that some sites have several ALT alleles. Recombination at a flat 1e-8.

`rich` records have AD, DP, GQ and PL beside GT: Poisson depth, reads of either chromosome alike,
and errors that read another of the site's alleles. GT stays the true genotype, whatever the reads say.
"""

from __future__ import annotations

import contextlib
import logging
import math
import posixpath
import time
import uuid
from collections.abc import Callable, Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from genodl_spark.core import storage
from genodl_spark.core.errors import InputError
from genodl_spark.formats import bgzf
from genodl_spark.formats.streams import line_blocks
from genodl_spark.job.run import Run

if TYPE_CHECKING:
    import msprime
    import tskit

log = logging.getLogger("genodl")
POPULATIONS = ("AFR", "EUR", "EAS")
MUTATION_RATE = 2.35e-8
RECOMBINATION_RATE = 1e-8
CONTIG = "1"
DEPTH = 30
READ_ERROR = 0.005
_SUFFIX = ".vcf.gz"


def simulate(run: Run, samples: int, length: int, output: str, seed: int, fields: str = "GT") -> None:
    """Writes a bgzipped VCF of `samples` diploid people over `length` bases, and the table
    of their populations beside it.

    `fields`: GT or rich; the genotypes are the same with either.
    Both files are there whole or not at all. The same arguments give the same bytes,
    or `unchanged` where the files are there.
    """
    for option, value, least in (("--samples", samples, 1), ("--length", length, 1), ("--seed", seed, 0)):
        if not least <= value < 1 << 31:
            raise InputError(f"found {value}; expected a number from {least} to {(1 << 31) - 1}", option)
    if not output.endswith(_SUFFIX) or posixpath.basename(output) == _SUFFIX:
        raise InputError(f"found {output!r}; expected a file name that ends in {_SUFFIX}", "--output")
    uri = storage.absolute(output)
    table_uri = f"{uri.removesuffix(_SUFFIX)}.samples.tsv"
    for target in (uri, table_uri):
        if storage.kind(target) == "directory":
            raise InputError("found a directory; expected the name of a file", target)
    people = _people(samples)
    rich = fields == "rich"
    header = _header(people, length, seed, rich)
    if storage.is_file(table_uri) and _holds(uri, header):
        run.report.status = "unchanged"
        return
    trees = _trees(people, length, seed)
    log.info("simulated %d sites of %d samples", trees.num_sites, samples)
    table = "".join(f"{name}\t{population}\n" for name, population in [("sample_id", "population"), *people])
    try:
        reads = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(1,))) if rich else None
        variants, size = _write(uri, header, trees, reads, lambda: storage.write_bytes(table_uri, table.encode()))
    except OSError as error:
        raise InputError(f"could not be written: {error}", uri) from error
    run.report.metrics = {"samples": samples, "variants": variants, "bytes": size}


def _people(samples: int) -> list[tuple[str, str]]:
    """(sample_id, population) of everyone: populations of the same size, the first ones one more
    where it does not come out even."""
    counts = [len(range(place, samples, len(POPULATIONS))) for place in range(len(POPULATIONS))]
    width = len(str(max(counts)))
    return [
        (f"{name}_{i:0{width}d}", name)
        for name, count in zip(POPULATIONS, counts, strict=True)
        for i in range(1, count + 1)
    ]


def demography() -> msprime.Demography:
    """The model's populations, sizes, splits and migration; times in generations."""
    import msprime

    since_split, since_bottleneck, since_growth = 21_200 / 25, 140_000 / 25, 220_000 / 25
    growth_eur, growth_eas = 0.004, 0.0055
    model = msprime.Demography()
    model.add_population(name="AFR", initial_size=12_300)
    model.add_population(name="EUR", initial_size=1000 * math.exp(growth_eur * since_split), growth_rate=growth_eur)
    model.add_population(name="EAS", initial_size=510 * math.exp(growth_eas * since_split), growth_rate=growth_eas)
    model.add_population(name="OOA", initial_size=2100)
    model.add_population(name="AMH", initial_size=12_300)
    model.add_population(name="ANC", initial_size=7300)
    model.set_symmetric_migration_rate(["AFR", "EUR"], 3e-5)
    model.set_symmetric_migration_rate(["AFR", "EAS"], 1.9e-5)
    model.set_symmetric_migration_rate(["EUR", "EAS"], 9.6e-5)
    model.add_population_split(time=since_split, derived=["EUR", "EAS"], ancestral="OOA")
    model.add_symmetric_migration_rate_change(time=since_split, populations=["AFR", "OOA"], rate=25e-5)
    model.add_population_split(time=since_bottleneck, derived=["OOA", "AFR"], ancestral="AMH")
    model.add_population_split(time=since_growth, derived=["AMH"], ancestral="ANC")
    return model


def _trees(people: list[tuple[str, str]], length: int, seed: int) -> tskit.TreeSequence:
    import msprime

    counts = {name: sum(population == name for _, population in people) for name in POPULATIONS}
    ancestry_seed, mutation_seed = (
        int(word) % ((1 << 32) - 2) + 1 for word in np.random.SeedSequence(seed).generate_state(2)
    )
    ancestry = msprime.sim_ancestry(
        {name: count for name, count in counts.items() if count},
        demography=demography(),
        sequence_length=length,
        recombination_rate=RECOMBINATION_RATE,
        random_seed=ancestry_seed,
    )
    return msprime.sim_mutations(ancestry, rate=MUTATION_RATE, random_seed=mutation_seed)


_RICH_HEADER = (
    '##FORMAT=<ID=AD,Number=R,Type=Integer,Description="Reads of each allele">\n'
    '##FORMAT=<ID=DP,Number=1,Type=Integer,Description="Reads">\n'
    '##FORMAT=<ID=GQ,Number=1,Type=Integer,Description="Second lowest of PL, at most 99">\n'
    '##FORMAT=<ID=PL,Number=G,Type=Integer,Description="Likelihoods of the genotypes, phred-scaled, the best one 0">\n'
)


def _header(people: list[tuple[str, str]], length: int, seed: int, rich: bool) -> bytes:
    import msprime

    option, declared = (" --fields rich", _RICH_HEADER) if rich else ("", "")
    columns = ["#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO", "FORMAT", *(name for name, _ in people)]
    return (
        "##fileformat=VCFv4.2\n"
        f"##source=genodl simulate cohort --samples {len(people)} --length {length} --seed {seed}{option} (msprime "
        f"{msprime.__version__})\n"
        '##FILTER=<ID=PASS,Description="All filters passed">\n'
        f"##contig=<ID={CONTIG},length={length}>\n"
        '##FORMAT=<ID=GT,Number=1,Type=String,Description="Genotype">\n' + declared + "\t".join(columns) + "\n"
    ).encode()


def _holds(uri: str, header: bytes) -> bool:
    """Whether a file is there that begins with `header`; as it was moved into place whole, the rest is there too."""
    if not storage.is_file(uri):
        return False
    held = b""
    with storage.open_input(uri) as raw, contextlib.suppress(InputError):
        for _, block in line_blocks(raw, uri):
            held += block
            if len(held) >= len(header):
                break
    return held.startswith(header)


def _write(
    uri: str, header: bytes, trees: tskit.TreeSequence, reads: np.random.Generator | None, before: Callable[[], None]
) -> tuple[int, int]:
    """Writes the VCF aside, calls `before` and moves it into place; returns its records and bytes."""
    fs, path = storage.filesystem(uri)
    storage.make_folder(fs, posixpath.dirname(path))
    aside = f"{path}.{uuid.uuid4().hex}.tmp"
    records, told = 0, time.monotonic()
    try:
        with fs.open_output_stream(aside, compression=None) as stream:
            out = bgzf.Writer(stream)
            out.write(header)
            for record in _records(trees, reads):
                out.write(record)
                records += 1
                if time.monotonic() - told > 5:
                    told = time.monotonic()
                    log.info("wrote %d of about %d variants", records, trees.num_sites)
            out.close()
        size = int(fs.get_file_info(aside).size)
        before()
        fs.move(aside, path)
    except BaseException:
        with contextlib.suppress(OSError):
            fs.delete_file(aside)
        raise
    return records, size


def _records(trees: tskit.TreeSequence, reads: np.random.Generator | None) -> Iterator[bytes]:
    """VCF lines, by position. Alleles that nobody carries are left out, and with them sites where all carry REF.

    `reads` draws what rich records hold; without it they hold GT alone.
    """
    people = trees.num_individuals
    calls = np.empty((people, 4), np.uint8)
    calls[:, 1], calls[:, 3] = ord("|"), ord("\t")
    calls[-1, 3] = ord("\n")
    keys = "GT" if reads is None else "GT:AD:DP:GQ:PL"
    for variant in trees.variants():
        alleles: tuple[Any, ...] = variant.alleles
        found = np.bincount(variant.genotypes, minlength=len(alleles)) > 0
        kept = [0, *(number for number in range(1, len(alleles)) if found[number])]
        if len(kept) == 1:
            continue
        code = np.zeros(len(alleles), np.uint8)
        code[kept] = np.arange(len(kept)) + ord("0")  # four bases, so one digit
        calls[:, 0::2] = code[variant.genotypes].reshape(people, 2)
        position = int(variant.site.position) + 1
        line = f"{CONTIG}\t{position}\t.\t{alleles[0]}\t{','.join(alleles[k] for k in kept[1:])}\t.\tPASS\t.\t{keys}\t"
        if reads is None:
            yield line.encode() + calls.tobytes()
        else:
            drawn = _drawn(calls[:, 0::2] - ord("0"), len(kept), reads)
            yield line.encode() + np.hstack([calls[:, :3], drawn, calls[:, 3:]]).tobytes().translate(None, b"\0")


@cache
def _read_model(alleles: int) -> tuple[np.ndarray, np.ndarray]:
    """What the reads of a genotype are, genotypes in PL's order, a <= b at b (b + 1) / 2 + a (VCF
    specification, section 1.6.2).

    Float (G, A): share of reads that read each allele. Int (G, A): what one such read costs the genotype,
    in thousandths of phred: whole numbers, so that sums are exact and the same bytes come out on every machine.
    """
    one = np.full((alleles, alleles), READ_ERROR / (alleles - 1))
    np.fill_diagonal(one, 1 - READ_ERROR)
    share = np.array([(one[a] + one[b]) / 2 for b in range(alleles) for a in range(b + 1)])
    return share, np.rint(-10_000 * np.log10(share)).astype(np.int64)


@cache
def _cells(separator: str) -> np.ndarray:
    """uint8 (10000, 5): `separator` and the digits of each number, filled up with zero bytes."""
    return np.array([f"{separator}{number}".encode() for number in range(10_000)], "S5").view(np.uint8).reshape(-1, 5)


def _drawn(genotypes: np.ndarray, alleles: int, rng: np.random.Generator) -> np.ndarray:
    """Text of AD, DP, GQ and PL for genotypes (S, 2): uint8 (S, width), with zero bytes to be left out."""
    share, cost = _read_model(alleles)
    low, high = genotypes.min(1).astype(int), genotypes.max(1).astype(int)
    expected = share[high * (high + 1) // 2 + low]
    depth = rng.poisson(DEPTH, len(genotypes))
    reads = np.empty((len(genotypes), alleles), np.int64)
    left, rest = depth.copy(), np.ones(len(genotypes))
    for allele in range(alleles - 1):  # a multinomial draw, one allele after the other
        reads[:, allele] = rng.binomial(left, np.minimum(expected[:, allele] / rest, 1))
        left -= reads[:, allele]
        rest -= expected[:, allele]
    reads[:, -1] = left
    likelihood = reads @ cost.T
    likelihood = (likelihood - likelihood.min(1, keepdims=True) + 500) // 1000
    quality = np.minimum(np.partition(likelihood, 1, axis=1)[:, 1], 99)
    columns = [*reads.T, depth, quality, *likelihood.T]
    separators = [":", *"," * (alleles - 1), ":", ":", ":", *"," * (len(share) - 1)]
    return np.hstack(
        [_cells(s).take(column, axis=0, mode="clip") for s, column in zip(separators, columns, strict=True)]
    )
