"""Quality control of a cohort's genotypes: variants, samples, pairs of samples and components, as tables.

Tasks turn batches of packed genotypes into sums (see cohort_qc.py), and only sums, sites and statistics leave them.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from functools import partial, reduce
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from genodl_spark.core.errors import InputError
from genodl_spark.core.session import task_slots
from genodl_spark.genetics.cohort import Samples, genotyped, samples_of
from genodl_spark.genetics.qc.components import principal_components
from genodl_spark.genetics.qc.kinship import tiles
from genodl_spark.genetics.qc.linkage import Pruner
from genodl_spark.genetics.qc.passes import (
    COUNTS,
    SITE,
    SUMS,
    add_sums,
    choose,
    gram_products,
    pair_sums,
    prune,
    related,
    sample_rows,
    sum_samples_of,
    unpack_sums,
    write_variant_rows,
)
from genodl_spark.job.run import Run, code_of, fingerprint, now
from genodl_spark.lake.files import StoredFile
from genodl_spark.lake.parts import Part
from genodl_spark.lake.schema import Table
from genodl_spark.lake.tables.genetics import (
    LD_PRUNED,
    PRINCIPAL_COMPONENTS,
    QC_STEPS,
    RELATEDNESS,
    SAMPLE_QC,
    VARIANT_QC,
)
from genodl_spark.lake.tables.ingested import SAMPLE_SETS, VARIANTS

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame


STEPS: dict[str, Table] = {
    "variants": VARIANT_QC,
    "samples": SAMPLE_QC,
    "pruning": LD_PRUNED,
    "relatedness": RELATEDNESS,
    "components": PRINCIPAL_COMPONENTS,
}
_SITE = "contig string, pos bigint, ref string, alt string"
_COMMON = f"{_SITE}, parts array<struct<sample_set:string,n_samples:int,gt:binary>>"
_COUNTED = f"{_SITE}, alt_number int, {', '.join(f'{name} bigint' for name in COUNTS)}"
_TILE = 512  # samples: a tile's counts take 5 MiB
_TILE_BYTES = 512 << 20  # counts that a task holds at most; with more tiles the variants are read several times
_NOT_AUTOSOMES = ("X", "Y", "W", "Z", "M", "MT", "CHRX", "CHRY", "CHRM")
_TASK_BYTES = 64 << 20  # of files: a task of less takes little longer to do than to start


def qc(run: Run, cohort: str | None) -> None:
    """Does the steps of `qc.steps` that are not there yet for this cohort, these variants, settings and code."""
    name = run.cohort(cohort, genotyped(run.sources), "genotypes")
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
        work = _Cohort(run, name, samples_of(run.sources, name))
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

        return self.run.sources.read(VARIANTS, self.name).where(
            (F.col("cohort") == self.name) & F.col("gt").isNotNull()
        )

    def _numbered(self) -> bool:
        """Whether any contig has a number for a name: those are autosomes in most species;
        else all but sex chromosomes and the mitochondrion."""
        names = {file.partition["contig"] for group in self._groups() for file in group}
        if any(name.isdigit() for name in names):
            return True
        self.run.report.warn(
            f"no contig of cohort {self.name} has a number for a name: all but X, Y, W, Z and MT count as autosomes"
        )
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
        """One row per site and ALT allele; where several records have it, as of several sample sets,
        their counts are added."""
        lake = self.run.lake
        lake.create(VARIANT_QC)
        groups = self._groups()
        autosomal = {
            name: self._is_autosomal(name) for name in {file.partition["contig"] for group in groups for file in group}
        }
        shares = _shares([sum(file.size for file in group) for group in groups], task_slots(self.run.spark))
        work = partial(
            write_variant_rows,
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
        total = np.zeros((SUMS, len(self.samples.names)))
        if groups:
            work = partial(sum_samples_of, groups=groups, depth=self.options.depth)
            sums = self.run.spark.range(0, len(groups), 1, slots).mapInArrow(work, "sample_set string, sums binary")
            for row in (
                sums.groupBy("sample_set").applyInPandas(add_sums, "sample_set string, sums binary").toLocalIterator()
            ):
                total[:, self.samples.places[row.sample_set]] += unpack_sums(bytes(row.sums))
        return {
            "rows": self._replace(
                SAMPLE_QC, self.run.frame(SAMPLE_QC, sample_rows(self.name, self.samples.names, total))
            )
        }

    def _common(self) -> DataFrame:
        """Biallelic autosomal SNVs that are common and called often enough: their sites,
        and in `parts` the genotypes of each sample set."""

        def find() -> DataFrame:
            from pyspark.sql import functions as F
            from pyspark.storagelevel import StorageLevel

            base, alt = "^[ACGTacgt]$", F.col("alts")[0]
            snv = (F.size("alts") == 1) & (F.col("alt_number") == 0) & F.col("ref").rlike(base) & alt.rlike(base)
            part = F.struct("sample_set", "n_samples", "gt").alias("part")
            rows = (
                self._records()
                .where(self._autosomal() & snv)
                .select("contig", "pos", F.upper("ref").alias("ref"), F.upper(alt).alias("alt"), part)
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
            kernel = partial(
                choose,
                samples=self.samples,
                min_frequency=options.min_allele_frequency,
                max_missing=options.max_missing,
            )
            chosen = rows.mapInArrow(kernel, _COMMON).persist(StorageLevel.MEMORY_AND_DISK)
            self._cached.append(chosen)
            return chosen

        found: DataFrame = self.run.sources.once(("common variants", self.name), find)
        return found

    def prune(self) -> dict[str, float]:
        """One task goes through a contig in the order of positions: the sort spills to disk,
        only the window is held."""
        common, options = self._common(), self.options
        contigs = max(common.select("contig").distinct().count(), 1)
        ordered = common.repartition(contigs, "contig").sortWithinPartitions(*SITE)
        kernel = partial(
            prune,
            samples=self.samples,
            pruner=partial(Pruner, options.window, options.step, options.r2, options.window_in_bases),
        )
        return {"rows": self._replace(LD_PRUNED, ordered.mapInArrow(kernel, _SITE)), "variants": float(common.count())}

    def _used_by(self, step: str) -> DataFrame:
        """`parts` of the variants that a step uses, in as many partitions as are worked on at once:
        each of them brings whole matrices of sums."""
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
        places = dict(enumerate(tiles(len(names), _TILE)))
        size = max(_TILE_BYTES // (20 * _TILE**2), 1)
        found = []
        for start in range(0, len(places), size):
            some = {number: places[number] for number in range(start, min(start + size, len(places)))}
            sums = used.mapInArrow(partial(pair_sums, samples=self.samples, places=some), "tile int, sums binary")
            finish = partial(related, places=some, names=names, threshold=self.options.kinship)
            found.append(sums.groupBy("tile").applyInPandas(finish, _without_cohort(RELATEDNESS)))
        return {
            "rows": self._replace(RELATEDNESS, reduce(lambda a, b: a.unionByName(b), found)),
            "variants": float(used.count()),
        }

    def project(self) -> dict[str, float]:
        samples, options = self.samples, self.options
        used = self._used_by("components")
        variants = used.count()
        if variants < 2 or len(samples.names) < 2:
            found_text = f"found {variants} common variants of {len(samples.names)} samples; expected 2 of each or more"
            raise InputError(f"{found_text}, lower qc.min_allele_frequency or leave components out", "qc.steps")

        def product(q: np.ndarray) -> np.ndarray:
            parts = used.mapInArrow(
                partial(gram_products, samples=samples, q=q.astype(np.float32)), "product binary"
            ).collect()
            return np.sum([np.frombuffer(bytes(row.product), "<f8").reshape(q.shape) for row in parts], axis=0)

        found = principal_components(product, len(samples.names), variants, options.components, self.run.settings.seed)
        rows = [
            {"cohort": self.name, "sample_id": s, "components": v}
            for s, v in zip(samples.names, found.vectors.tolist(), strict=True)
        ]
        metrics = {
            "rows": self._replace(PRINCIPAL_COMPONENTS, self.run.frame(PRINCIPAL_COMPONENTS, rows)),
            "variants": float(variants),
        }
        metrics["passes"] = float(found.passes)
        for number, (value, residual) in enumerate(
            zip(found.values.tolist(), found.residuals.tolist(), strict=True), 1
        ):
            metrics |= {f"eigenvalue_{number}": value, f"residual_{number}": residual}
        return metrics


def _by_site(rows: DataFrame) -> DataFrame:
    """`parts` of all records of a site together, so that it counts once."""
    from pyspark.sql import functions as F

    return rows.groupBy(*SITE).agg(F.sort_array(F.collect_list("part")).alias("parts"))


def _shares(sizes: list[int], slots: int) -> list[slice]:
    """Runs of groups of about the same bytes, of `sizes` int each: as many as there are slots,
    more where they would be large."""
    ends = np.cumsum(sizes)
    number = min(len(sizes), max(slots, -(-int(ends[-1]) // _TASK_BYTES)))
    cuts = np.unique(
        [0, *np.searchsorted(ends, ends[-1] * np.arange(1, number) / number, "right"), len(sizes)]
    ).tolist()
    return [slice(start, end) for start, end in pairwise(cuts)]


def _without_cohort(table: Table) -> str:
    return ", ".join(f"{c.name} {c.type}" for c in table.columns if c.name != "cohort")


# What tasks do. Loops below go over groups of records that are stored alike, not over records.
