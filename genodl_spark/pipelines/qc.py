"""Quality control of a cohort's genotypes: variants, samples, pairs of samples and components, as tables.

Tasks turn batches of packed genotypes into sums (see cohort_qc.py), and only sums, sites and statistics leave them.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields, replace
from functools import partial, reduce
from itertools import pairwise
from operator import add
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from genodl_spark.core import packing
from genodl_spark.core.errors import InputError
from genodl_spark.core.session import task_slots
from genodl_spark.features.protocol import GenotypeFeatures
from genodl_spark.genetics import genotypes
from genodl_spark.genetics.qc import counts as cohort_qc
from genodl_spark.job.run import Run, code_of, fingerprint, now
from genodl_spark.lake.files import StoredFile, opened
from genodl_spark.lake.parts import Part, PartWriter
from genodl_spark.lake.tables import LD_PRUNED, PRINCIPAL_COMPONENTS, QC_STEPS, RELATEDNESS, SAMPLE_QC, SAMPLE_SETS, VARIANT_QC, VARIANTS, Table

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import Column, DataFrame

    Batches = Iterable[pa.RecordBatch]

STEPS: dict[str, Table] = {
    "variants": VARIANT_QC,
    "samples": SAMPLE_QC,
    "pruning": LD_PRUNED,
    "relatedness": RELATEDNESS,
    "components": PRINCIPAL_COMPONENTS,
}
SITE = ["contig", "pos", "ref", "alt"]
_SITE = "contig string, pos bigint, ref string, alt string"
_COMMON = f"{_SITE}, parts array<struct<sample_set:string,n_samples:int,gt:binary>>"
_COUNTS = ["hom_ref", "het", "hom_alt", "missing", "ac", "an", "depth", "depth_calls", "quality", "quality_calls"]
_COUNTED = f"{_SITE}, alt_number int, {', '.join(f'{name} bigint' for name in _COUNTS)}"
_CALLS = 4 << 20  # calls that a task unpacks at once: the matrices made of them stay in the tens of MB
_TILE = 512  # samples: a tile's counts take 5 MiB
_TILE_BYTES = 512 << 20  # counts that a task holds at most; with more tiles the variants are read several times
_SUBSTITUTIONS = np.array(["other", "transition", "transversion"], object)  # by class
_RELATIONS = ["unrelated", "third", "second", "first", "duplicate"]
_BORDERS = 2.0 ** np.array([-4.5, -3.5, -2.5, -1.5])  # Manichaikul 2010, table 1
_MEASURES = {"depth": "DP", "quality": "GQ"}
_NOT_AUTOSOMES = ("X", "Y", "W", "Z", "M", "MT", "CHRX", "CHRY", "CHRM")
_ROWS_READ = 2048
_ROWS_MADE = 1 << 16  # rows of VARIANT_QC that a task makes at once
_TASK_BYTES = 64 << 20  # of files: a task of less takes little longer to do than to start


@dataclass(frozen=True)
class Samples:
    """The samples of a cohort, sorted, and where each set's samples are among them: int64 (n,) by sample set."""

    names: list[str]
    places: dict[str, np.ndarray]


def qc(run: Run, cohort: str | None) -> None:
    """Does the steps of `qc.steps` that are not there yet for this cohort, these variants, settings and code."""
    name = run.cohort(cohort, GenotypeFeatures().cohorts(run.sources), "genotypes")
    options = run.settings.qc
    for step in options.steps:
        if step not in STEPS:
            raise InputError(f"found step {step!r}; expected some of {', '.join(STEPS)}", "qc.steps")
    for step in options.pruned:
        if step not in ("relatedness", "components"):
            raise InputError(f"found step {step!r}; expected some of relatedness, components", "qc.pruned")
    steps = set(options.steps) | ({"pruning"} if set(options.pruned) & set(options.steps) else set())
    versions = {table.name: run.sources.version(table) for table in (VARIANTS, SAMPLE_SETS)}
    digest = fingerprint(name, options.model_dump(exclude={"steps"}), run.settings.seed, versions, code_of(__name__))
    stored = run.lake.rows(QC_STEPS, {"cohort": name, "fingerprint": digest}).to_pylist()
    done = {row["step"]: dict(row["metrics"]) for row in stored}
    todo = [step for step in STEPS if step in steps and step not in done]
    seconds: dict[str, dict[str, float]] = {}
    if todo:
        work = _Cohort(run, name, _samples(run, name))
        try:
            for step in todo:
                # A step stands in qc_steps only while its table is what it says.
                run.lake.delete(QC_STEPS, {"cohort": name, "step": step})
                started = time.perf_counter()
                done[step] = work.steps[step]()
                seconds[step] = {"seconds": round(time.perf_counter() - started, 3)}
                row = {"cohort": name, "step": step, "fingerprint": digest, "metrics": done[step], "done_at": now()}
                run.lake.replace(QC_STEPS, run.frame(QC_STEPS, [row]), {"cohort": name, "step": step})
        finally:
            work.release()
    for step in (s for s in STEPS if s in steps):
        run.wrote(STEPS[step], int(done[step]["rows"]) if step in todo else 0)
    run.wrote(QC_STEPS, len(todo))
    run.report.status = "done" if todo else "unchanged"
    run.report.metrics.update({step: {**done[step], **seconds.get(step, {})} for step in STEPS if step in steps})


def _samples(run: Run, cohort: str) -> Samples:
    rows = GenotypeFeatures().ordered_samples(run.sources, cohort)
    sets, order, ids = (rows.column(name).to_pylist() for name in ("sample_set", "position", "sample_id"))  # identifiers, not genotypes
    names = sorted(set(ids))
    index = {sample: i for i, sample in enumerate(names)}
    ordered: dict[str, list[tuple[int, int]]] = {}
    for sample_set, position, sample in zip(sets, order, ids, strict=True):
        ordered.setdefault(sample_set, []).append((position, index[sample]))
    places = {sample_set: np.array([place for _, place in sorted(found)], np.int64) for sample_set, found in ordered.items()}
    return Samples(names, places)


class _Cohort:
    """The steps for one cohort. Each fills its table and returns what it measured, with the `rows` written."""

    def __init__(self, run: Run, name: str, samples: Samples) -> None:
        self.run, self.name, self.samples, self.options = run, name, samples, run.settings.qc
        self.steps: dict[str, Callable[[], dict[str, float]]] = {
            "variants": self.count_variants,
            "samples": self.count_samples,
            "pruning": self.prune,
            "relatedness": self.relate,
            "components": self.project,
        }
        self._cached: list[DataFrame] = []

    def release(self) -> None:
        for frame in self._cached:
            frame.unpersist()

    def _replace(self, table: Table, rows: DataFrame | pa.Table) -> float:
        from pyspark.sql import functions as F

        where = {"cohort": self.name}
        if not isinstance(rows, pa.Table):
            rows = rows.withColumn("cohort", F.lit(self.name)).select(*table.column_names)
        self.run.lake.replace(table, rows, where)
        return float(self.run.lake.count(table, where))

    def _records(self) -> DataFrame:
        from pyspark.sql import functions as F

        return self.run.sources.read(VARIANTS, self.name).where((F.col("cohort") == self.name) & F.col("gt").isNotNull())

    def _numbered(self) -> bool:
        """Whether any contig has a number for a name: those are autosomes in most species; else all but sex chromosomes and the mitochondrion."""
        names = {file.partition["contig"] for group in self._groups() for file in group}
        if any(name.isdigit() for name in names):
            return True
        self.run.report.warn(f"no contig of cohort {self.name} has a number for a name: all but X, Y, W, Z and MT count as autosomes")
        return False

    def _is_autosomal(self, contig: str) -> bool:
        numbered = self.run.sources.once(("numbered contigs", self.name), self._numbered)
        return contig.isdigit() if numbered else contig.upper() not in _NOT_AUTOSOMES

    def _autosomal(self) -> Column:
        from pyspark.sql import functions as F

        numbered = self.run.sources.once(("numbered contigs", self.name), self._numbered)
        return F.col("contig").rlike("^[0-9]+$") if numbered else ~F.upper("contig").isin(*_NOT_AUTOSOMES)

    def _groups(self) -> list[list[StoredFile]]:
        """The cohort's files of `variants`, those whose positions overlap together: no site is in two groups."""
        found: list[list[StoredFile]] = self.run.sources.once(("groups of files", self.name), self._listed_groups)
        return found

    def _listed_groups(self) -> list[list[StoredFile]]:
        spans = []
        for file in self.run.sources.files(VARIANTS):
            if file.partition["cohort"] != self.name:
                continue
            low, high = file.ends("pos")
            span = (0, 1 << 62) if low is None or high is None else (low, high)
            spans.append((file.partition["contig"], *span, file.uri, replace(file, statistics={})))
        spans.sort()
        groups: list[list[StoredFile]] = []
        contig, reached = "", -1
        for name, low, high, _, file in spans:
            if name == contig and low <= reached:
                groups[-1].append(file)
            else:
                groups.append([file])
            contig, reached = name, max(high, reached if name == contig else -1)
        return groups

    def count_variants(self) -> dict[str, float]:
        """One row per site and ALT allele; where several records have it, as of several sample sets, their counts are added."""
        lake = self.run.lake
        lake.create(VARIANT_QC)
        groups = self._groups()
        autosomal = {name: self._is_autosomal(name) for name in {file.partition["contig"] for group in groups for file in group}}
        shares = _shares([sum(file.size for file in group) for group in groups], task_slots(self.run.spark))
        work = partial(
            _write_variant_rows,
            shares=[groups[share] for share in shares],
            cohort=self.name,
            autosomal=autosomal,
            depth=self.options.depth,
            target=lake.path(VARIANT_QC),
            name=uuid.uuid4().hex[:12],
        )
        rows = self.run.spark.range(0, len(shares), 1, len(shares)).mapInArrow(work, "part string").collect()
        parts = [Part.from_json(row.part) for row in rows]
        lake.commit(VARIANT_QC, parts, {"cohort": self.name})
        return {"rows": float(sum(part.rows for part in parts))}

    def count_samples(self) -> dict[str, float]:
        groups = [group for group in self._groups() if self._is_autosomal(group[0].partition["contig"])]
        slots = min(len(groups), task_slots(self.run.spark))
        total = np.zeros((_SUMS, len(self.samples.names)))
        if groups:
            work = partial(_sum_samples_of, groups=groups, depth=self.options.depth)
            sums = self.run.spark.range(0, len(groups), 1, slots).mapInArrow(work, "sample_set string, sums binary")
            for row in sums.groupBy("sample_set").applyInPandas(_add_sums, "sample_set string, sums binary").toLocalIterator():
                total[:, self.samples.places[row.sample_set]] += _unpack_sums(bytes(row.sums))
        return {"rows": self._replace(SAMPLE_QC, self.run.frame(SAMPLE_QC, _sample_rows(self.name, self.samples.names, total)))}

    def _common(self) -> DataFrame:
        """Biallelic autosomal SNVs that are common and called often enough: their sites, and in `parts` the genotypes of each sample set."""

        def find() -> DataFrame:
            from pyspark.sql import functions as F
            from pyspark.storagelevel import StorageLevel

            base, alt = "^[ACGTacgt]$", F.col("alts")[0]
            snv = (F.size("alts") == 1) & (F.col("alt_number") == 0) & F.col("ref").rlike(base) & alt.rlike(base)
            part = F.struct("sample_set", "n_samples", "gt").alias("part")
            rows = (
                self._records().where(self._autosomal() & snv).select("contig", "pos", F.upper("ref").alias("ref"), F.upper(alt).alias("alt"), part)
            )
            if len(self.samples.places) > 1:
                rows = _by_site(rows)
            else:  # genotypes are not shuffled but for the few sites that several records have
                often = rows.groupBy(*SITE).count().where("count > 1").select(*SITE).persist()
                self._cached.append(often)
                single = rows.select(*SITE, F.array("part").alias("parts"))
                if often.count():
                    single = single.join(F.broadcast(often), SITE, "left_anti")
                    rows = single.unionByName(_by_site(rows.join(F.broadcast(often), SITE, "left_semi")))
                else:
                    rows = single
            options = self.options
            kernel = partial(_choose, samples=self.samples, min_frequency=options.min_allele_frequency, max_missing=options.max_missing)
            chosen = rows.mapInArrow(kernel, _COMMON).persist(StorageLevel.MEMORY_AND_DISK)
            self._cached.append(chosen)
            return chosen

        found: DataFrame = self.run.sources.once(("common variants", self.name), find)
        return found

    def prune(self) -> dict[str, float]:
        """One task goes through a contig in the order of positions: the sort spills to disk, only the window is held."""
        common, options = self._common(), self.options
        contigs = max(common.select("contig").distinct().count(), 1)
        ordered = common.repartition(contigs, "contig").sortWithinPartitions(*SITE)
        kernel = partial(
            _prune, samples=self.samples, pruner=partial(cohort_qc.Pruner, options.window, options.step, options.r2, options.window_in_bases)
        )
        return {"rows": self._replace(LD_PRUNED, ordered.mapInArrow(kernel, _SITE)), "variants": float(common.count())}

    def _used_by(self, step: str) -> DataFrame:
        """`parts` of the variants that a step uses, in as many partitions as are worked on at once: each of them brings whole matrices of sums."""
        pruned = step in self.options.pruned

        def find() -> DataFrame:
            from pyspark.sql import functions as F
            from pyspark.storagelevel import StorageLevel

            rows = self._common()
            if pruned:
                kept = self.run.lake.read(LD_PRUNED).where(F.col("cohort") == self.name).select(*SITE)
                rows = rows.join(kept, SITE, "left_semi")
            rows = rows.select("parts").repartition(task_slots(self.run.spark)).persist(StorageLevel.MEMORY_AND_DISK)
            self._cached.append(rows)
            return rows

        found: DataFrame = self.run.sources.once(("variants used", self.name, pruned), find)
        return found

    def relate(self) -> dict[str, float]:
        used, names = self._used_by("relatedness"), self.samples.names
        places = dict(enumerate(cohort_qc.tiles(len(names), _TILE)))
        size = max(_TILE_BYTES // (20 * _TILE**2), 1)
        found = []
        for start in range(0, len(places), size):
            some = {number: places[number] for number in range(start, min(start + size, len(places)))}
            sums = used.mapInArrow(partial(_pair_sums, samples=self.samples, places=some), "tile int, sums binary")
            finish = partial(_related, places=some, names=names, threshold=self.options.kinship)
            found.append(sums.groupBy("tile").applyInPandas(finish, _without_cohort(RELATEDNESS)))
        return {"rows": self._replace(RELATEDNESS, reduce(lambda a, b: a.unionByName(b), found)), "variants": float(used.count())}

    def project(self) -> dict[str, float]:
        samples, options = self.samples, self.options
        used = self._used_by("components")
        variants = used.count()
        if variants < 2 or len(samples.names) < 2:
            found_text = f"found {variants} common variants of {len(samples.names)} samples; expected 2 of each or more"
            raise InputError(f"{found_text}, lower qc.min_allele_frequency or leave components out", "qc.steps")

        def product(q: np.ndarray) -> np.ndarray:
            parts = used.mapInArrow(partial(_gram_product, samples=samples, q=q.astype(np.float32)), "product binary").collect()
            return np.sum([np.frombuffer(bytes(row.product), "<f8").reshape(q.shape) for row in parts], axis=0)

        found = cohort_qc.principal_components(product, len(samples.names), variants, options.components, self.run.settings.seed)
        rows = [{"cohort": self.name, "sample_id": s, "components": v} for s, v in zip(samples.names, found.vectors.tolist(), strict=True)]
        metrics = {"rows": self._replace(PRINCIPAL_COMPONENTS, self.run.frame(PRINCIPAL_COMPONENTS, rows)), "variants": float(variants)}
        metrics["passes"] = float(found.passes)
        for number, (value, residual) in enumerate(zip(found.values.tolist(), found.residuals.tolist(), strict=True), 1):
            metrics |= {f"eigenvalue_{number}": value, f"residual_{number}": residual}
        return metrics


def _by_site(rows: DataFrame) -> DataFrame:
    """`parts` of all records of a site together, so that it counts once."""
    from pyspark.sql import functions as F

    return rows.groupBy(*SITE).agg(F.sort_array(F.collect_list("part")).alias("parts"))


def _shares(sizes: list[int], slots: int) -> list[slice]:
    """Runs of groups of about the same bytes, of `sizes` int each: as many as there are slots, more where they would be large."""
    ends = np.cumsum(sizes)
    number = min(len(sizes), max(slots, -(-int(ends[-1]) // _TASK_BYTES)))
    cuts = np.unique([0, *np.searchsorted(ends, ends[-1] * np.arange(1, number) / number, "right"), len(sizes)]).tolist()
    return [slice(start, end) for start, end in pairwise(cuts)]


def _without_cohort(table: Table) -> str:
    return ", ".join(f"{c.name} {c.type}" for c in table.columns if c.name != "cohort")


# What tasks do. Loops below go over groups of records that are stored alike, not over records.


def _measures(records: pa.RecordBatch, samples: int) -> dict[str, np.ndarray]:
    """Depths and genotype qualities int32 (V, S), -1 missing, of those that any record has."""
    found: dict[str, np.ndarray] = {}
    if "format" not in records.schema.names:
        return found
    known = pc.and_(records.column("format").is_valid(), records.column("fields").is_valid())
    formats = np.array(pc.if_else(known, records.column("format"), "").to_pylist(), object)
    for text in set(formats.tolist()):
        keys = text.split(":")[1:] if text.startswith("GT:") else text.split(":")
        rows = np.flatnonzero(formats == text)
        for name, key in _MEASURES.items():
            if key in keys:
                values = found.setdefault(name, np.full((len(formats), samples), -1, np.int32))
                values[rows] = cohort_qc.subfield(records.column("fields").take(pa.array(rows)).to_pylist(), keys.index(key), samples)
    return found


def _records_of(group: list[StoredFile], columns: list[str], depth: bool) -> Iterator[tuple[StoredFile, pa.RecordBatch]]:
    """Records with genotypes of a group of files of `variants`, straight from Parquet: through the JVM they take ten times as long."""
    for file in group:
        with opened(file.uri, file.checksum) as stored:
            wanted = [*columns, *(["format", "fields"] if depth and _has_measures(stored) else [])]
            for batch in stored.iter_batches(_ROWS_READ, columns=wanted, use_threads=False):
                known = batch.filter(batch.column("gt").is_valid())
                if known.num_rows:
                    yield file, known


def _has_measures(stored: pq.ParquetFile) -> bool:
    return any(key in text.split(":") for text in _formats(stored) for key in _MEASURES.values())


def _formats(stored: pq.ParquetFile) -> set[str]:
    """The FORMAT texts of a file, from its footer where this tells."""
    metadata = stored.metadata
    place = metadata.schema.names.index("format")
    found = [metadata.row_group(group).column(place).statistics for group in range(metadata.num_row_groups)]
    if all(s is not None and s.has_min_max and s.min == s.max for s in found):
        return {s.min for s in found}
    formats: set[str] = set()
    for batch in stored.iter_batches(1 << 20, columns=["format"], use_threads=False):
        formats |= set(pc.unique(batch.column("format")).to_pylist())
    return formats - {None}


def _write_variant_rows(
    batches: Batches, shares: list[list[list[StoredFile]]], cohort: str, autosomal: dict[str, bool], depth: bool, target: str, name: str
) -> Iterator[pa.RecordBatch]:
    """For mapInArrow over indices into `shares`, groups of files each: writes their rows of VARIANT_QC, and gives the files written."""
    schema = VARIANT_QC.arrow_schema()
    for index in (i for batch in batches for i in batch.column(0).to_pylist()):
        writer = PartWriter(VARIANT_QC, target, f"{name}-{index:05d}")
        counted = (_counted(group, autosomal[group[0].partition["contig"]], depth) for group in shares[index])
        for made in _variant_rows(_joined(counted, _ROWS_MADE)):
            columns = [pa.repeat(pa.scalar(cohort), made.num_rows), *made.columns]
            writer.write(pa.RecordBatch.from_arrays([c.cast(f.type) for c, f in zip(columns, schema, strict=True)], schema=schema))
        yield pa.RecordBatch.from_arrays([pa.array([part.as_json() for part in writer.close()], pa.string())], ["part"])


def _counted(group: list[StoredFile], autosomal: bool, depth: bool) -> Iterator[pa.RecordBatch]:
    """Counts of each site and ALT allele of a group of files, once each."""
    counted = list(_count_alleles(_alleles_of(group, depth)))
    if not counted:
        return
    rows = pa.Table.from_batches(counted)
    if len(group) > 1 or _repeats(rows):
        sums = rows.group_by(SITE).aggregate([("alt_number", "min"), *((c, "sum") for c in _COUNTS)])
        rows = sums.rename_columns([c.removesuffix("_min").removesuffix("_sum") for c in sums.column_names]).select(rows.column_names)
        rows = rows.take(pc.sort_indices(rows, [(c, "ascending") for c in SITE]))
    yield from rows.append_column("autosomal", pa.repeat(pa.scalar(autosomal), rows.num_rows)).to_batches()


def _joined(parts: Iterable[Batches], rows: int) -> Iterator[pa.RecordBatch]:
    """The same rows in batches of `rows` and a smaller one: what follows costs by the batch."""
    held: list[pa.RecordBatch] = []
    for batch in (batch for part in parts for batch in part):
        held.append(batch)
        while sum(b.num_rows for b in held) >= rows:
            whole = pa.Table.from_batches(held).combine_chunks()
            yield from whole.slice(0, rows).to_batches()
            held = whole.slice(rows).to_batches()
    if held:
        yield from pa.Table.from_batches(held).combine_chunks().to_batches()


def _repeats(rows: pa.Table) -> bool:
    """Whether a site may stand twice: rows of a file are in order of position as a rule, and few share one."""
    pos = rows.column("pos").to_numpy()
    if (pos[1:] < pos[:-1]).any():
        return True
    shared = np.flatnonzero(np.isin(pos, pos[1:][pos[1:] == pos[:-1]]))
    sites = [rows.column(name).take(pa.array(shared)).to_pylist() for name in ("pos", "ref", "alt")]
    return len(set(zip(*sites, strict=True))) < len(shared)


def _alleles_of(group: list[StoredFile], depth: bool) -> Iterator[pa.RecordBatch]:
    """A row per record and ALT allele, as `_count_alleles` takes them."""
    for file, batch in _records_of(group, ["pos", "ref", "alts", "alt_number", "n_samples", "sample_set", "gt"], depth):
        alts = batch.column("alts")
        of = pc.list_parent_indices(alts).cast(pa.int64())
        sizes = pc.list_value_length(alts)
        first = np.cumsum(sizes.to_numpy()) - sizes.to_numpy()
        allele = np.arange(len(of)) - np.repeat(first, sizes.to_numpy()) + 1
        whole = len(of) == batch.num_rows and bool((sizes.to_numpy() == 1).all())
        rows = {name: batch.column(name) if whole else batch.column(name).take(of) for name in batch.schema.names if name != "alts"}
        stated = rows["alt_number"].to_numpy()
        rows["alt_number"] = pa.array(np.where(stated > 0, stated, allele).astype(np.int32))
        rows |= {"alt": alts.flatten(), "allele": pa.array(allele.astype(np.int32)), "alleles": sizes if whole else sizes.take(of)}
        rows["contig"] = pa.repeat(pa.scalar(file.partition["contig"]), len(of))
        yield pa.RecordBatch.from_arrays(list(rows.values()), list(rows))


def _sum_samples_of(batches: Batches, groups: list[list[StoredFile]], depth: bool) -> Iterator[pa.RecordBatch]:
    """For mapInArrow over indices into `groups`: sums of each sample set."""
    columns = ["ref", "alts", "n_samples", "sample_set", "gt"]
    indices = (i for batch in batches for i in batch.column(0).to_pylist())
    yield from _sum_samples(batch for i in indices for _, batch in _records_of(groups[i], columns, depth))


def _count_alleles(batches: Batches) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        counts = np.zeros((len(_COUNTS), batch.num_rows), np.int64)
        for rows, records, samples, _ in genotypes.alike(batch, _CALLS):
            gt, allele = records.column("gt"), records.column("allele").to_numpy()
            found = genotypes.counts(gt, samples, allele)
            counts[:4, rows], counts[4:6, rows] = found[:, 3:].T, found[:, :2].T
            several = records.column("alleles").to_numpy() > 1
            if several.any():  # heterozygous with any other allele is heterozygous; the rest has no copy of this one
                of_allele = genotypes.dosages(gt.filter(pa.array(several)), samples, allele[several])
                counts[:4, rows[several]] = cohort_qc.histogram(of_allele).T
            for name, values in _measures(records, samples).items():
                measured, _ = cohort_qc.measures(values)
                place = _COUNTS.index(name)
                counts[place, rows], counts[place + 1, rows] = measured.total, measured.number
        columns = [batch.column(name) for name in SITE]
        number = batch.column("alt_number").cast(pa.int32())
        yield pa.RecordBatch.from_arrays([*columns, number, *(pa.array(c) for c in counts)], [*SITE, "alt_number", *_COUNTS])


def _letters(alleles: pa.StringArray) -> np.ndarray:
    """The letter of alleles of one, uint8 (V,), 0 for others."""
    data, offsets = packing.binary(alleles)
    letters = np.zeros(len(alleles), np.uint8)
    single = np.diff(offsets) == 1
    letters[single] = data[offsets[:-1][single]]
    return letters


def _known(values: np.ndarray, known: np.ndarray) -> pa.Array:
    return pa.array(values, mask=~(known & np.isfinite(values)))


def _variant_rows(batches: Batches) -> Iterator[pa.RecordBatch]:
    names = [c.name for c in VARIANT_QC.columns if c.name != "cohort"]
    for batch in batches:
        c = {name: batch.column(name).to_numpy() for name in _COUNTS}
        statistics = cohort_qc.variant_statistics(np.stack([c[name] for name in _COUNTS[:4]], 1))
        called = c["an"] > 0
        tested = called & batch.column("autosomal").to_numpy(zero_copy_only=False)
        kinds = cohort_qc.substitution(_letters(batch.column("ref")), _letters(batch.column("alt")))
        made: dict[str, pa.Array] = {
            **{name: batch.column(name) for name in [*SITE, "alt_number", *_COUNTS]},
            "substitution": pa.array(_SUBSTITUTIONS[kinds], pa.string()),
            "call_rate": _known(statistics.call_rate, np.ones(len(called), bool)),
            "frequency": _known(c["ac"] / np.maximum(c["an"], 1), called),
            "hwe_p": _known(statistics.hwe_p, tested),
            "hwe_mid_p": _known(statistics.hwe_mid_p, tested),
            **{f"mean_{name}": _known(c[name] / np.maximum(c[f"{name}_calls"], 1), c[f"{name}_calls"] > 0) for name in _MEASURES},
        }
        yield pa.RecordBatch.from_arrays([made[name] for name in names], names)


_SAMPLE_SUMS = [f.name for f in fields(cohort_qc.SampleSums)]
_SUMS = len(_SAMPLE_SUMS) + 2 * len(_MEASURES)  # rows of a matrix of sums: these, then total and number of each measure


def _unpack_sums(packed: bytes) -> np.ndarray:
    return np.frombuffer(packed, "<f8").reshape(_SUMS, -1)  # whole numbers below 2^53 are exact


def _sum_samples(batches: Batches) -> Iterator[pa.RecordBatch]:
    total: dict[str, np.ndarray] = {}
    for batch in batches:
        for _, records, samples, sample_set in genotypes.alike(batch, _CALLS):
            sums = total.setdefault(sample_set, np.zeros((_SUMS, samples)))
            alleles = pc.list_value_length(records.column("alts")).to_numpy()
            for several, found in ((alleles == 1, _biallelic), (alleles != 1, _other_records)):
                if several.any():
                    part = found(records.filter(pa.array(several)), samples)
                    sums[: len(_SAMPLE_SUMS)] += np.stack([getattr(part, name) for name in _SAMPLE_SUMS])
            measured = _measures(records, samples)
            for place, name in enumerate(_MEASURES):
                if name in measured:
                    sums[len(_SAMPLE_SUMS) + 2 * place :][:2] += np.stack(cohort_qc.measures(measured[name])[1])
    for sample_set, sums in total.items():
        yield pa.RecordBatch.from_arrays([pa.array([sample_set]), pa.array([sums.tobytes()], pa.binary())], ["sample_set", "sums"])


def _biallelic(records: pa.RecordBatch, samples: int) -> cohort_qc.SampleSums:
    kinds = cohort_qc.substitution(_letters(records.column("ref")), _letters(records.column("alts").flatten()))
    return cohort_qc.sample_sums(genotypes.dosages(records.column("gt"), samples), kinds)


def _other_records(records: pa.RecordBatch, samples: int) -> cohort_qc.SampleSums:
    """Of records with no ALT or several, which take part in neither Ti/Tv nor inbreeding. A call of two different ALT is heterozygous."""
    alleles, _ = genotypes.unpack(records.column("gt"), samples)
    there = alleles >= 0
    lowest, highest = np.where(there, alleles, 32767).min(2), alleles.max(2)
    code = np.where(highest == 0, 0, np.where(lowest == highest, 2, 1))
    code = np.where((alleles == genotypes.MISSING).any(2) | ~there.any(2), -1, code).astype(np.int8)
    none = np.zeros(len(code), bool)
    sums = cohort_qc.sample_sums(code, np.full(len(code), cohort_qc.OTHER), for_het=none)
    singletons = np.zeros(samples, np.int64)
    for allele in range(1, int(highest.max(initial=0)) + 1):
        copies = (alleles == allele).sum(2)
        singletons += copies[copies.sum(1) == 1].sum(0)
    return replace(sums, singletons=singletons)


def _add_sums(parts: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    total = reduce(add, (_unpack_sums(packed) for packed in parts["sums"]))
    return pd.DataFrame({"sample_set": [parts["sample_set"].iloc[0]], "sums": [total.tobytes()]})


def _sample_rows(cohort: str, names: list[str], total: np.ndarray) -> list[dict[str, Any]]:
    sums = cohort_qc.SampleSums(*total[: len(_SAMPLE_SUMS)])
    found = cohort_qc.sample_statistics(sums)
    columns: dict[str, np.ndarray] = {f.name: getattr(found, f.name) for f in fields(found)}
    columns |= {name: getattr(sums, name) for name in ("variants", "transitions", "transversions")}
    for place, name in enumerate(_MEASURES):
        measured, number = total[len(_SAMPLE_SUMS) + 2 * place :][:2]
        columns[f"mean_{name}"] = cohort_qc.Measured(measured, number).mean()
    whole = {c.name for c in SAMPLE_QC.columns if c.type == "bigint"}
    lists = {
        name: values.astype(np.int64).tolist() if name in whole else [v if v == v else None for v in values.tolist()]
        for name, values in columns.items()
    }
    return [{"cohort": cohort, "sample_id": s, **{name: values[i] for name, values in lists.items()}} for i, s in enumerate(names)]


def _dosage_blocks(batch: pa.RecordBatch, samples: Samples) -> Iterator[tuple[int, np.ndarray]]:
    """The batch's first row, and the genotypes of all samples of the cohort int8 (V, S), of as many records as are unpacked at once."""
    width = len(samples.names)
    size = max(_CALLS // max(width, 1), 1)
    for start in range(0, batch.num_rows, size):
        parts = batch.column("parts").slice(start, size)
        lengths = pc.list_value_length(parts).to_numpy()
        flat = parts.flatten()
        row, sets, gt = np.repeat(np.arange(len(parts)), lengths), np.array(flat.field("sample_set").to_pylist(), object), flat.field("gt")
        dosages = np.full((len(parts), width), -1, np.int8)
        for sample_set in sorted(set(sets.tolist())):
            mine, places = np.flatnonzero(sets == sample_set), samples.places[sample_set]
            values = genotypes.dosages(gt.take(pa.array(mine)), len(places))
            at = (row[mine][:, None], places[None, :])
            if len(mine) == len(set(row[mine].tolist())):
                dosages[at] = np.maximum(dosages[at], values)  # a sample in several call sets: the call wins over the missing one
            else:
                np.maximum.at(dosages, at, values)
        yield start, dosages


def _choose(batches: Batches, samples: Samples, min_frequency: float, max_missing: float) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        kept = np.zeros(batch.num_rows, bool)
        for start, dosages in _dosage_blocks(batch, samples):
            counts = cohort_qc.histogram(dosages)
            called = counts[:, :3].sum(1)
            frequency = (counts[:, 1] + 2 * counts[:, 2]) / np.maximum(2 * called, 1)
            rarer = np.minimum(frequency, 1 - frequency)
            kept[start : start + len(dosages)] = (rarer > 0) & (rarer >= min_frequency) & (counts[:, 3] <= max_missing * dosages.shape[1])
        yield batch.filter(pa.array(kept))


def _prune(batches: Batches, samples: Samples, pruner: Callable[[], cohort_qc.Pruner]) -> Iterator[pa.RecordBatch]:
    """Sites that stay, of contigs that come one after the other."""
    contig: str | None = None
    current, sites = pruner(), list[pa.RecordBatch]()
    for batch in batches:
        names = np.array(batch.column("contig").to_pylist(), object)
        ends = [*(np.flatnonzero(names[1:] != names[:-1]) + 1).tolist(), len(names)]
        start = 0
        for end in ends:
            if start == end:
                continue
            if names[start] != contig:
                yield from _kept(current, sites)
                contig, current, sites = names[start], pruner(), []
            run = batch.slice(start, end - start)
            positions = run.column("pos").to_numpy()
            for first, dosages in _dosage_blocks(run, samples):
                current.add(dosages, positions[first : first + len(dosages)])
            sites.append(run.select(SITE))
            start = end
    yield from _kept(current, sites)


def _kept(pruner: cohort_qc.Pruner, sites: list[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    kept, start = pruner.finish(), 0
    for batch in sites:
        yield batch.filter(pa.array(kept[start : start + batch.num_rows]))
        start += batch.num_rows


def _pair_sums(batches: Batches, samples: Samples, places: dict[int, tuple[slice, slice]]) -> Iterator[pa.RecordBatch]:
    sums = [cohort_qc.PairSums.empty(a.stop - a.start, b.stop - b.start) for a, b in places.values()]
    for batch in batches:
        for _, dosages in _dosage_blocks(batch, samples):
            cohort_qc.add_pairs(sums, list(places.values()), dosages)
    for number, part in zip(places, sums, strict=True):
        if part.variants:
            yield pa.RecordBatch.from_arrays([pa.array([number], pa.int32()), pa.array([part.pack()], pa.binary())], ["tile", "sums"])


def _related(parts: pd.DataFrame, places: dict[int, tuple[slice, slice]], names: list[str], threshold: float) -> pd.DataFrame:
    import pandas as pd

    sums = reduce(add, (cohort_qc.PairSums.unpack(packed) for packed in parts["sums"]))
    pairs = cohort_qc.kinship(sums, places[int(parts["tile"].iloc[0])], threshold)
    ids = np.array(names, object)
    return pd.DataFrame(
        {
            "sample_1": ids[pairs.first],
            "sample_2": ids[pairs.second],
            "variants": pairs.variants,
            "het_het": pairs.het_het,
            "ibs0": pairs.ibs0,
            "kinship": pairs.kinship,
            "relation": np.array(_RELATIONS, object)[np.searchsorted(_BORDERS, pairs.kinship)],
        }
    )


def _gram_product(batches: Batches, samples: Samples, q: np.ndarray) -> Iterator[pa.RecordBatch]:
    product = np.zeros(q.shape)
    for batch in batches:
        for _, dosages in _dosage_blocks(batch, samples):
            product += cohort_qc.gram_product(cohort_qc.standardised(dosages), q)
    yield pa.RecordBatch.from_arrays([pa.array([product.astype("<f8").tobytes()], pa.binary())], ["product"])
