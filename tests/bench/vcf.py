"""Cohort VCFs in, and what is asked of them, beside plink2 and bcftools on the same machine
in the same run: `make bench-vcf`.

Costs are CPU seconds of a command with all processes that it starts (see meter.py).
A JVM's start costs as much as some hundred million genotypes, so the price of a genotype is the marginal one:
the difference between a file and one four times as long, over the genotypes added.
Inputs are simulated into --work once and kept there; everything else is made anew in every run.

Cohort A has GT alone: 2,504 people, 4 Mb. Cohort B has GT:AD:DP:GQ:PL; of these plink2 keeps GT alone, bcftools all.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import meter

ROOT = Path(__file__).resolve().parents[2]
GENODL = str(ROOT / ".venv" / "bin" / "genodl")
TOOLS = ("genodl", "plink2", "bcftools")
CPUS = sorted(os.sched_getaffinity(0))
SEED = 7
SAMPLES, LENGTH = 2504, 4_000_000  # of cohort A, for which others' figures are quoted
GROWTH = 4
LARGE_TEXT = 8e9
CHOSEN_SAMPLES = 100
CHOSEN_BASES = 100_000
REPEATS_WARM = 21
COHORT, CONTIG = "bench", "1"
# vcf2zarr (bio2zarr) and plink2 on cohort A, measured in November 2026 on 2 cores; quoted, not run.
VCF2ZARR = (55.0, 1.4)
# Hail 0.2.139 on cohort A, likewise: wall seconds of allele counts, missingness and Hardy-Weinberg; quoted, not run.
HAIL = 5.5


@dataclass(frozen=True)
class Input:
    """One simulated file. `size`: 1, GROWTH or more times the first of its cohort. `text`: bytes inflated."""

    cohort: str
    size: int
    samples: int
    variants: int
    text: int
    compressed: int
    seconds: float
    vcf: Path

    @property
    def genotypes(self) -> int:
        return self.samples * self.variants

    def out(self, kind: str) -> Path:
        return self.vcf.parent / f"{self.cohort}{self.size}.{kind}"


@dataclass
class Bench:
    """What is measured, and what was found so far: `rows` by part, as they go to the tables and to JSON."""

    inputs: dict[tuple[str, int], Input]
    cores: list[int]
    repeat: int
    rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    made: set[tuple[str, Path]] = field(default_factory=set)

    def add(self, part: str, **row: Any) -> None:
        self.rows.setdefault(part, []).append(row)

    def make(self, tool: str, source: Input, cores: int) -> meter.Cost:
        """Ingests or converts one input on the first `cores` CPUs, its earlier output gone."""
        for kind in {"genodl": ["lake"], "plink2": ["pgen", "pvar", "psam", "log"], "bcftools": ["bcf", "bcf.csi"]}[
            tool
        ]:
            path = source.out(kind)
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        tell(f"{tool} reads {source.cohort} x{source.size} on {cores} of {len(CPUS)} CPUs")
        cost = meter.measure(import_command(tool, source, cores), CPUS[:cores], source.vcf.parent)
        self.made.add((tool, source.vcf))
        return cost

    def have(self, tool: str, source: Input) -> None:
        if (tool, source.vcf) not in self.made:
            self.make(tool, source, len(CPUS))


def import_command(tool: str, source: Input, cores: int) -> list[str]:
    vcf = str(source.vcf)
    if tool == "genodl":
        return [
            GENODL,
            "ingest",
            "vcf",
            vcf,
            "--lake",
            str(source.out("lake")),
            "--cohort",
            COHORT,
            "--master",
            f"local[{cores}]",
        ]
    if tool == "plink2":
        return [
            "plink2",
            "--vcf",
            vcf,
            "--make-pgen",
            "--threads",
            str(cores),
            "--silent",
            "--out",
            str(source.out("pgen").with_suffix("")),
        ]
    # threads beside the first
    return ["bcftools", "view", "-Ob", "--threads", str(cores - 1), "-o", str(source.out("bcf")), vcf]


def tell(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def simulated(cohort: str, size: int, samples: int, length: int, work: Path) -> Input:
    """The input, made where it is not in `work` yet. What was found of it lies beside it, written when it is whole."""
    fields = {"A": "GT", "B": "rich"}[cohort]
    vcf = work / f"{fields}-{samples}x{length}.vcf.gz"
    notes = Path(f"{vcf}.json")
    if not (vcf.exists() and notes.exists()):
        vcf.unlink(missing_ok=True)
        tell(f"simulating {vcf.name}")
        arguments = [
            "--samples",
            str(samples),
            "--length",
            str(length),
            "--fields",
            fields,
            "--seed",
            str(SEED),
            "--output",
            str(vcf),
        ]
        cost = meter.measure([GENODL, "simulate", "cohort", *arguments], cwd=work)
        variants = json.loads(cost.stdout.splitlines()[-1])["metrics"]["variants"]
        notes.write_text(json.dumps({"variants": variants, "text": inflated(vcf), "seconds": round(cost.seconds, 1)}))
    return Input(cohort, size, samples, compressed=vcf.stat().st_size, vcf=vcf, **json.loads(notes.read_text()))


def inflated(bgzipped: Path) -> int:
    """Bytes of text in a bgzip file of ours, which the ends of its blocks tell."""
    total = at = 0
    with bgzipped.open("rb") as raw, mmap.mmap(raw.fileno(), 0, access=mmap.ACCESS_READ) as data:
        while at < len(data):
            at += int.from_bytes(data[at + 16 : at + 18], "little") + 1
            total += int.from_bytes(data[at - 4 : at], "little")
    return total


# ---- parts: each takes what it needs, measures, and adds rows


def ingest(bench: Bench) -> None:
    turn = 0
    for source in bench.inputs.values():
        for cores in bench.cores if source.size <= GROWTH else bench.cores[-1:]:
            costs: dict[str, list[meter.Cost]] = {tool: [] for tool in TOOLS}
            for _ in range(bench.repeat):
                for place in range(len(TOOLS)):
                    tool = TOOLS[(place + turn) % len(TOOLS)]
                    costs[tool].append(bench.make(tool, source, cores))
                turn += 1
            for tool, found in costs.items():
                bench.add(
                    "ingest",
                    cohort=source.cohort,
                    size=source.size,
                    cores=cores,
                    tool=tool,
                    genotypes=source.genotypes,
                    seconds=statistics.median(c.seconds for c in found),
                    cpu=statistics.median(c.cpu for c in found),
                    cpu_runs=[c.cpu for c in found],
                    peaks={kind: max(c.peaks.get(kind, 0) for c in found) for kind in found[0].peaks},
                )
        stored(bench, source)
    for row in marginal(bench.rows["ingest"]):
        bench.add("marginal", **row)


def marginal(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """CPU nanoseconds per genotype between the first two sizes, and the CPU seconds that are there without any."""
    at = {(r["cohort"], r["cores"], r["tool"], r["size"]): r for r in rows}
    for (cohort, cores, tool, size), small in at.items():
        large = at.get((cohort, cores, tool, GROWTH))
        if size == 1 and large is not None:
            each = (large["cpu"] - small["cpu"]) / (large["genotypes"] - small["genotypes"])
            wall = (large["seconds"] - small["seconds"]) / (large["genotypes"] - small["genotypes"])
            fixed = small["cpu"] - each * small["genotypes"]
            yield {
                "cohort": cohort,
                "cores": cores,
                "tool": tool,
                "cpu_ns": each * 1e9,
                "wall_ns": wall * 1e9,
                "fixed_cpu": fixed,
            }


def stored(bench: Bench, source: Input) -> None:
    """Bytes: of the lake by column, of the .pgen and the .bcf."""
    columns = inner("columns", lake=str(source.out("lake")))
    sizes = {"gt": columns.get("gt", 0), "lake": sum(columns.values())}
    sizes |= {kind: source.out(kind).stat().st_size for kind in ("pgen", "bcf")}
    each = {kind: size / source.genotypes for kind, size in sizes.items()}
    bench.add("bytes", cohort=source.cohort, size=source.size, columns=columns, sizes=sizes, per_genotype=each)


def scan(bench: Bench) -> None:
    """Allele frequencies of all variants; cohort A."""
    for source in (s for s in bench.inputs.values() if s.cohort == "A" and s.size <= GROWTH):
        bench.have("genodl", source)
        bench.have("plink2", source)
        tell(f"scanning A x{source.size}")
        common = {"size": source.size, "genotypes": source.genotypes}
        found = inner("scan", lake=str(source.out("lake")), samples=source.samples, variants=source.variants)
        for way, times in found.items():
            bench.add("scan", **common, way=way, **times)
        prefix = str(source.out("pgen").with_suffix(""))
        command = [
            "plink2",
            "--pfile",
            prefix,
            "--freq",
            "--threads",
            "1",
            "--silent",
            "--out",
            str(source.out("freq")),
        ]
        costs = [meter.measure(command, CPUS[:1]) for _ in range(REPEATS_WARM)]
        bench.add("scan", **common, way="plink2 --freq of the .pgen", cpu=statistics.median(c.cpu for c in costs))


def region(bench: Bench) -> None:
    """A few samples of a short stretch in the middle; cohort A, both sizes: the time must not grow with the file."""
    for source in (s for s in bench.inputs.values() if s.cohort == "A" and s.size <= GROWTH):
        bench.have("genodl", source)
        bench.have("bcftools", source)
        subprocess.run(["bcftools", "index", "-f", str(source.out("bcf"))], check=True)
        names = [
            line.split("\t")[0]
            for line in Path(f"{source.vcf}".removesuffix(".vcf.gz") + ".samples.tsv").read_text().splitlines()[1:]
        ]
        chosen = names[:: max(1, len(names) // CHOSEN_SAMPLES)][:CHOSEN_SAMPLES]
        listed = source.out("chosen.txt")
        listed.write_text("".join(f"{name}\n" for name in chosen))
        length = int(source.vcf.name.removesuffix(".vcf.gz").rpartition("x")[2])
        start = max(1, length // 2)
        end = min(length, start + CHOSEN_BASES - 1)
        tell(f"asking A x{source.size} for {CONTIG}:{start}-{end} of {len(chosen)} samples")
        command = ["bcftools", "view", "-r", f"{CONTIG}:{start}-{end}", "-S", str(listed), "-Ob"]
        command += ["-o", str(source.out("region.bcf")), str(source.out("bcf"))]
        found = inner("region", lake=str(source.out("lake")), start=start, end=end, samples=chosen, command=command)
        bench.add("region", size=source.size, samples=len(chosen), bases=end - start + 1, **found)


def qc(bench: Bench) -> None:
    """Quality control of cohort A on all CPUs."""
    source = bench.inputs["A", 1]
    bench.have("genodl", source)
    bench.have("plink2", source)
    work, prefix = source.vcf.parent, str(source.out("pgen").with_suffix(""))
    common = ["plink2", "--pfile", prefix, "--threads", str(len(CPUS)), "--silent", "--out", str(source.out("qc"))]
    commands = {
        "genodl qc": our_qc(str(source.out("lake"))),
        "plink2 --freq --missing --hardy": [*common, "--freq", "--missing", "--hardy"],
        "plink2 --make-king-table": [*common, "--make-king-table"],
        "plink2 --pca approx 10": [*common, "--pca", "approx", "10"],
    }
    for name, command in commands.items():
        tell(f"{name} of A x1")
        try:
            cost = meter.measure(command, cwd=work)
        except RuntimeError as error:  # such as too few samples for a PCA: the others tell something still
            bench.add("qc", what=name, error=last_line(error))
        else:
            bench.add("qc", what=name, seconds=cost.seconds, cpu=cost.cpu, peaks=cost.peaks)
    tell("step variants of A x1 in a session that runs")
    runs = inner("variants", lake=str(source.out("lake")), variants=source.variants)
    bench.add(
        "qc", what=f"genodl qc, step variants, warm: median of {len(runs)}", seconds=statistics.median(runs), runs=runs
    )
    if source.vcf.name == f"GT-{SAMPLES}x{LENGTH}.vcf.gz":
        bench.add("qc", what="Hail 0.2.139, the same (quoted, not run)", seconds=HAIL)


def memory(bench: Bench) -> None:
    """Peaks of ingest; those of part ingest where it ran."""
    for source in bench.inputs.values():
        known = [
            r
            for r in bench.rows.get("ingest", [])
            if (r["cohort"], r["size"], r["tool"]) == (source.cohort, source.size, "genodl")
        ]
        peaks = known[-1]["peaks"] if known else bench.make("genodl", source, bench.cores[-1]).peaks
        bench.add(
            "memory", cohort=source.cohort, size=source.size, text=source.text, cores=bench.cores[-1], peaks=peaks
        )


PARTS: dict[str, Callable[[Bench], None]] = {
    "ingest": ingest,
    "scan": scan,
    "region": region,
    "qc": qc,
    "memory": memory,
}


# ---- seams: how the package is asked


def our_qc(lake: str) -> list[str]:
    return [GENODL, "qc", "--lake", lake, "--cohort", COHORT]


def our_variants(lake: str, max_missing: float) -> dict[str, float]:
    """Seconds of step `variants` in this process's session, which stays, and rows written;
    `max_missing` makes it another run."""
    import jobs

    chosen = {"qc.steps": "variants", "qc.pruned": "", "qc.max_missing": max_missing}
    report = jobs.report_of(
        "qc", [*our_qc(lake)[2:], *(word for key, value in chosen.items() for word in ("--set", f"{key}={value}"))]
    )
    if report["status"] != "done":
        raise RuntimeError(f"qc: found {report['status']} {report.get('error', '')}; expected done")
    return dict(report["metrics"]["variants"])


def our_region(lake: str, start: int, end: int, samples: list[str]) -> int:
    """Reads the genotypes of a region (1-based, closed) and some samples; returns the records found."""
    from genodl_spark.genetics import region as regions

    return len(regions.read(lake, COHORT, CONTIG, start, end, samples))


def our_histogram(gt: Any, samples: int) -> Any:
    """int (V, 4) of a column of packed genotypes: calls of V records by kind."""
    from genodl_spark.genetics import genotypes

    return genotypes.histogram(gt, samples)


# ---- what runs in a process of its own, which has Arrow and Spark and stays warm


def inner(name: str, **arguments: Any) -> Any:
    command = [sys.executable, __file__, "--inner", json.dumps([name, arguments])]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{name}: {done.stderr.strip()[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def live_files(lake: str) -> list[str]:
    import deltalake

    return sorted(deltalake.DeltaTable(f"{lake}/variants").file_uris())


def checksums_of(lake: str) -> dict[str, str | None]:
    """The live files of `variants`, with the checksums that the log has."""
    import deltalake

    from genodl_spark.lake.checksums import logged

    table = deltalake.DeltaTable(f"{lake}/variants")
    names = [unquote(path) for path in table.get_add_actions(flatten=True).column("path").to_pylist()]
    found = logged(f"{lake}/variants/_delta_log", table.version(), names)
    return {f"{lake}/variants/{name}": found[name] for name in sorted(found)}


def inner_columns(lake: str) -> dict[str, int]:
    """Compressed bytes of the live files of `variants`, by column."""
    import pyarrow.parquet as pq

    sizes: dict[str, int] = {}
    for file in live_files(lake):
        metadata = pq.read_metadata(file)
        for group in range(metadata.num_row_groups):
            for column in range(metadata.num_columns):
                chunk = metadata.row_group(group).column(column)
                name = chunk.path_in_schema.split(".")[0]
                sizes[name] = sizes.get(name, 0) + chunk.total_compressed_size
    return sizes


def inner_scan(lake: str, samples: int, variants: int) -> dict[str, dict[str, float]]:
    """Counts all genotypes, in this process on one thread, with and without a look at checksums in alternation, and by
    Spark SQL on all CPUs; medians of warm runs."""
    import pyarrow as pa

    from genodl_spark.lake.files import opened

    pa.set_cpu_count(1)
    files = checksums_of(lake)

    def in_process(checked: bool) -> tuple[float, float]:
        read = counted = 0.0
        total = 0
        for file, checksum in files.items():
            started = time.process_time()
            with opened(file, checksum if checked else None) as stored:
                for group in range(stored.num_row_groups):
                    column = stored.read_row_group(group, columns=["gt"], use_threads=False).column("gt")
                    between = time.process_time()
                    total += sum(int(our_histogram(chunk, samples).sum()) for chunk in column.chunks)
                    ended = time.process_time()
                    read, counted, started = read + between - started, counted + ended - between, ended
        check_total(total)
        return read, counted

    def check_total(total: int) -> None:
        if total != samples * variants:
            raise RuntimeError(f"counted {total} genotypes; expected {samples * variants}")

    both = [(in_process(True), in_process(False)) for _ in range(1 + REPEATS_WARM)][1:]
    runs, bare = zip(*both, strict=True)
    read, counted = min(runs, key=lambda run: abs(sum(run) - statistics.median(map(sum, runs))))
    found = {
        "one process: Parquet and kernel": {"cpu": read + counted},
        "one process: the same without checksums": {"cpu": statistics.median(map(sum, bare))},
        "one process: kernel alone": {"cpu": counted},
    }

    from genodl_spark.core import session
    from genodl_spark.job import config

    spark = session.build("bench", config.load().spark)
    slots = session.task_slots(spark)
    query = counts_by_spark(spark, lake, samples)

    def by_spark() -> float:
        started = time.perf_counter()
        row = query.collect()[0]
        seconds = time.perf_counter() - started
        check_total(sum(row))
        return seconds

    warm = statistics.median([by_spark() for _ in range(1 + REPEATS_WARM)][1:])
    session.stop()
    return {**found, "Spark SQL, warm, wall x cores": {"cpu": warm * slots, "seconds": warm}}


def counts_by_spark(spark: Any, lake: str, samples: int) -> Any:
    """One row of four sums."""
    import pyarrow as pa

    from genodl_spark.lake.delta import Lake
    from genodl_spark.lake.tables.ingested import VARIANTS

    names = ["reference", "heterozygous", "other", "missing"]

    def counts(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            sums = our_histogram(batch.column(0), samples).sum(0)
            yield pa.RecordBatch.from_arrays([pa.array([int(value)], pa.int64()) for value in sums], names)

    rows = Lake(spark, lake).read(VARIANTS).where(f"cohort = '{COHORT}'").select("gt")
    made = rows.mapInArrow(counts, ", ".join(f"{name} bigint" for name in names))
    return made.selectExpr(*(f"sum({name})" for name in names))


def inner_region(lake: str, start: int, end: int, samples: list[str], command: list[str]) -> dict[str, Any]:
    """Wall seconds of either, in turns; medians after one run that warms up."""
    ours, theirs = [], []
    records = 0
    for _ in range(1 + REPEATS_WARM):
        started = time.perf_counter()
        records = our_region(lake, start, end, samples)
        ours.append(time.perf_counter() - started)
        started = time.perf_counter()
        subprocess.run(command, check=True)
        theirs.append(time.perf_counter() - started)
    output = command[command.index("-o") + 1]
    listed = subprocess.run(
        ["bcftools", "query", "-f", "%POS\n", output], check=True, capture_output=True, text=True
    ).stdout.split()
    if records != len(listed):
        raise RuntimeError(f"the region has {records} records by us, {len(listed)} by bcftools")
    return {"records": records, "genodl": statistics.median(ours[1:]), "bcftools": statistics.median(theirs[1:])}


def inner_variants(lake: str, variants: int) -> list[float]:
    """Seconds of step `variants`, warm: after one run that starts session and workers."""
    from genodl_spark.core import session

    with session.shared():
        found = [our_variants(lake, 0.2 + i / 1000) for i in range(1 + REPEATS_WARM)]
    session.stop()
    if any(run["rows"] < variants for run in found):  # one for each ALT allele
        raise RuntimeError(f"wrote {found[0]['rows']} rows; expected {variants} or more")
    return [run["seconds"] for run in found[1:]]


INNER: dict[str, Callable[..., Any]] = {
    "columns": inner_columns,
    "scan": inner_scan,
    "region": inner_region,
    "variants": inner_variants,
}


# ---- tables


def tables(bench: Bench) -> Iterator[str]:
    rows = bench.rows
    yield markdown(
        "Inputs",
        ["cohort", "size", "samples", "variants", "genotypes", "text, MB", "bgzipped, MB", "simulated in, s"],
        [
            [
                s.cohort,
                f"x{s.size}",
                s.samples,
                s.variants,
                f"{s.genotypes / 1e6:.1f} M",
                mb(s.text),
                mb(s.compressed),
                s.seconds,
            ]
            for s in bench.inputs.values()
        ],
    )
    if "ingest" in rows:
        cpu = {(r["cohort"], r["size"], r["cores"], r["tool"]): r["cpu"] for r in rows["ingest"]}
        # on the fewest cores
        wall = {(r["cohort"], r["size"], r["tool"]): r["seconds"] for r in reversed(rows["ingest"])}
        lines: list[list[Any]] = []
        for r in rows["ingest"]:
            faster = ratio(wall[r["cohort"], r["size"], r["tool"]], r["seconds"])
            peers = (cpu[r["cohort"], r["size"], r["cores"], tool] for tool in ("plink2", "bcftools"))
            speed = f"{r['genotypes'] / r['seconds'] / 1e6:.1f} M"
            head = [r["cohort"], f"x{r['size']}", r["cores"], r["tool"], r["seconds"], r["cpu"]]
            lines.append([*head, *(ratio(r["cpu"], peer) for peer in peers), speed, faster])
        header = [
            "cohort",
            "size",
            "cores",
            "tool",
            "wall, s",
            "CPU, s",
            "CPU / plink2",
            "CPU / bcftools",
            "genotypes/s",
            "speed-up by cores",
        ]
        yield markdown("Ingest: genodl ingest vcf, plink2 --make-pgen, bcftools view -Ob", header, lines)
    if "marginal" in rows:
        each = {(r["cohort"], r["cores"], r["tool"]): r["cpu_ns"] for r in rows["marginal"]}
        lines = []
        for r in rows["marginal"]:
            peers = (each[r["cohort"], r["cores"], tool] for tool in ("plink2", "bcftools"))
            lines.append(
                [
                    r["cohort"],
                    r["cores"],
                    r["tool"],
                    r["cpu_ns"],
                    *(ratio(r["cpu_ns"], p) for p in peers),
                    r["wall_ns"],
                    r["fixed_cpu"],
                ]
            )
        quoted = ratio(*VCF2ZARR)
        lines.append(
            [
                "A",
                2,
                f"vcf2zarr (quoted: {VCF2ZARR[0]:g} s to plink2's {VCF2ZARR[1]:g} s)",
                None,
                quoted,
                None,
                None,
                None,
            ]
        )
        header = [
            "cohort",
            "cores",
            "tool",
            "CPU, ns per genotype",
            "/ plink2",
            "/ bcftools",
            "wall, ns per genotype",
            "start-up, CPU s",
        ]
        yield markdown(f"Ingest: what one more genotype costs, from x1 to x{GROWTH}", header, lines)
    if "bytes" in rows:
        lines = []
        for r in rows["bytes"]:
            b = r["per_genotype"]
            found = [f"{b[kind]:.4f}" for kind in ("gt", "lake", "pgen", "bcf")]
            lines.append([r["cohort"], f"x{r['size']}", *found, ratio(b["gt"], b["pgen"]), ratio(b["lake"], b["bcf"])])
        header = ["cohort", "size", "lake, gt", "lake, all columns", ".pgen", ".bcf", "gt / .pgen", "lake / .bcf"]
        yield markdown("Bytes per genotype", header, lines)
    if "scan" in rows:
        best = {r["size"]: r["cpu"] for r in rows["scan"] if r["way"].startswith("plink2")}
        lines = [
            [
                f"x{r['size']}",
                r["way"],
                r["cpu"],
                f"{r['genotypes'] / r['cpu'] / 1e6:,.0f} M",
                ratio(r["cpu"], best.get(r["size"])),
            ]
            for r in rows["scan"]
        ]
        yield markdown(
            "Allele frequencies of all variants, A",
            ["size", "way", "CPU, s", "genotypes/s a core", "CPU / plink2"],
            lines,
        )
    if "region" in rows:
        lines = [
            [
                f"x{r['size']}",
                r["bases"],
                r["samples"],
                r["records"],
                r["genodl"] * 1e3,
                r["bcftools"] * 1e3,
                ratio(r["genodl"], r["bcftools"]),
            ]
            for r in rows["region"]
        ]
        header = [
            "size",
            "bases",
            "samples",
            "records",
            "genodl, warm, ms",
            "bcftools view -r -S -Ob, ms",
            "genodl / bcftools",
        ]
        yield markdown(f"A region of some samples, A; median of {REPEATS_WARM}", header, lines)
    if "qc" in rows:
        done = [r for r in rows["qc"] if "cpu" in r]
        peer = sum(r["cpu"] for r in done if r["what"].startswith("plink2")) or None
        lines, quoted = [], next((r["seconds"] for r in rows["qc"] if r["what"].startswith("Hail")), None)
        for r in rows["qc"]:
            hail = ratio(r["seconds"], quoted) if "runs" in r else None
            lines.append(
                [r["what"], r.get("seconds"), r.get("cpu"), ratio(r.get("cpu"), peer), hail, r.get("error", "")]
            )
        header = ["what", "wall, s", "CPU, s", "CPU / all of plink2", "wall / Hail", "failed"]
        yield markdown(f"Quality control, A x1, {len(CPUS)} cores", header, lines)
    if "memory" in rows:
        lines = []
        for r in rows["memory"]:
            peaks = [mb(r["peaks"].get(kind)) for kind in ("worker", "jvm", "main")]
            lines.append([r["cohort"], f"x{r['size']}", mb(r["text"]), r["cores"], *peaks])
        header = ["cohort", "size", "text, MB", "cores", "largest Python worker", "JVM", "driver"]
        yield markdown("Peak memory of genodl ingest, MB", header, lines)


def markdown(title: str, header: list[str], lines: list[list[Any]]) -> str:
    texts = [[cell(value) for value in line] for line in [header, *lines]]
    texts.insert(1, ["---"] * len(header))
    return f"### {title}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in texts) + "\n"


def cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 100 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def mb(size: int | None) -> float | None:
    return None if size is None else size / 1e6


def ratio(ours: float | None, peer: float | None) -> str | None:
    """None as well where noise is larger than what is measured, as between files that are too small."""
    return None if ours is None or peer is None or min(ours, peer) <= 0 else f"{ours / peer:.2f}"


def last_line(error: Exception) -> str:
    return str(error).strip().split("\n")[-1][-300:]


def hardware(argv: list[str]) -> str:
    known = [
        line.split(":")[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    versions = {
        tool: subprocess.run([tool, "--version"], capture_output=True, text=True).stdout.split("\n")[0]
        for tool in TOOLS[1:]
    }
    return (
        f"{date.today()}, {len(CPUS)} cores (load {os.getloadavg()[0]:.1f} at the start), "
        f"{known[0] if known else platform.processor()}, "
        f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB; "
        f"{', '.join(versions.values())}; CPU time by {'control group' if meter.place() else 'sampling /proc'}: "
        f"{' '.join(['.venv/bin/python', 'tests/bench/vcf.py', *argv])}"
    )


def options(argv: list[str]) -> argparse.Namespace:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument(
        "--work", metavar="DIR", type=Path, help="where inputs are kept and outputs go; default: a temporary directory"
    )
    made.add_argument(
        "--output", metavar="FILE.json", type=Path, help="all that was found, as JSON; written after every part"
    )
    made.add_argument("--parts", default=",".join(PARTS), help="default: %(default)s")
    made.add_argument(
        "--cores",
        default=",".join(str(n) for n in sorted({1, min(2, len(CPUS))})),
        help="for ingest; default: %(default)s",
    )
    made.add_argument(
        "--repeat",
        metavar="N",
        type=int,
        default=1,
        help="runs of each ingest, of which the median counts; default: %(default)s",
    )
    made.add_argument("--cohorts", default="A,B", help="default: %(default)s")
    made.add_argument("--large", action="store_true", help=f"cohort A of {LARGE_TEXT / 1e9:g} GB of text as well")
    made.add_argument("--samples", metavar="N", type=int, default=SAMPLES, help="default: %(default)s")
    made.add_argument("--length", metavar="BP", type=int, default=LENGTH, help="of cohort A; default: %(default)s")
    made.add_argument(
        "--rich-length", metavar="BP", type=int, default=210_000, help="of cohort B; default: %(default)s"
    )
    chosen = made.parse_args(argv)
    chosen.parts, chosen.cohorts, chosen.cores = (
        chosen.parts.split(","),
        chosen.cohorts.split(","),
        [int(n) for n in chosen.cores.split(",")],
    )
    if unknown := [*(set(chosen.parts) - set(PARTS)), *(set(chosen.cohorts) - {"A", "B"})]:
        made.error(f"found {', '.join(unknown)}; expected some of {', '.join(PARTS)} and cohorts A, B")
    if not all(1 <= n <= len(CPUS) for n in chosen.cores):
        made.error(f"found {chosen.cores} cores; expected 1 to {len(CPUS)}")
    if chosen.cohorts == ["B"] and set(chosen.parts) & {"scan", "region", "qc"}:
        made.error("scan, region and qc are of cohort A; expected it among --cohorts")
    return chosen


def main(argv: list[str]) -> int:
    if argv[:1] == ["--inner"]:
        name, arguments = json.loads(argv[1])
        print(json.dumps(INNER[name](**arguments)))
        return 0
    chosen = options(argv)
    if absent := [tool for tool in ("plink2", "bcftools") if shutil.which(tool) is None]:
        print(f"bench-vcf: found no {' and no '.join(absent)}; apt-get install plink2 bcftools", file=sys.stderr)
        return 2
    tell(f"a tree of processes that uses 1.25 CPU seconds is found to use {meter.check():.2f}")
    line, failed = hardware(argv), []
    with tempfile.TemporaryDirectory(prefix="bench-vcf-") as scratch:
        work = (chosen.work or Path(scratch)).resolve()
        work.mkdir(parents=True, exist_ok=True)
        lengths = {"A": chosen.length, "B": chosen.rich_length}
        inputs = {}
        for cohort in chosen.cohorts:
            for size in (1, GROWTH):
                inputs[cohort, size] = simulated(cohort, size, chosen.samples, size * lengths[cohort], work)
        if chosen.large and "A" in chosen.cohorts:
            size = round(LARGE_TEXT / inputs["A", 1].text)
            inputs["A", size] = simulated("A", size, chosen.samples, size * chosen.length, work)
        bench = Bench(inputs, sorted(chosen.cores), chosen.repeat)
        for part in (part for part in PARTS if part in chosen.parts):
            try:
                PARTS[part](bench)
            except Exception as error:  # an hour may lie behind: the other parts are measured still
                failed.append(f"{part}: {last_line(error)}")
                tell(f"failed: {part}: {error}")
            if chosen.output:
                found = [{**vars(s), "vcf": s.vcf.name, "genotypes": s.genotypes} for s in inputs.values()]
                chosen.output.write_text(
                    json.dumps({"line": line, "inputs": found, "rows": bench.rows, "failed": failed}, indent=1) + "\n"
                )
    print(f"{line}\n")
    for text in tables(bench):
        print(text)
    for text in failed:
        print(f"FAILED {text}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
