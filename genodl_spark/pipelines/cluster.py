"""Clusters of a cohort's cells, and the genes that mark them.

Sums of genes, products of those that vary most, and scores are made by tasks over the files; scores alone, some
numbers a cell, come to the driver, which orders cells by name. What follows is exact or from a seed: neither tasks,
threads nor the order of rows change a cluster.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from genodl_spark.cells import clusters as groups
from genodl_spark.cells import markers, stability, transform, variable
from genodl_spark.cells.communities import leiden
from genodl_spark.cells.components import Products, components
from genodl_spark.cells.neighbours import neighbours, shared_graph
from genodl_spark.core.errors import InputError
from genodl_spark.core.session import task_slots
from genodl_spark.job.run import Run, code_of, fingerprint
from genodl_spark.lake.discarded import discard
from genodl_spark.lake.parts import Part, PartWriter
from genodl_spark.lake.schema import CELL, Table
from genodl_spark.lake.tables.cells import CLUSTERS, MARKERS
from genodl_spark.lake.tables.ingested import CELLS, FEATURES, LABELS
from genodl_spark.registry import clusters as tasks

log = logging.getLogger("genodl")
_FEWEST = 10  # cells: of fewer no subsample says anything


def cluster(run: Run, cohort: str | None, label: str | None) -> None:
    """Writes `clusters` and `markers` of a cohort's block, unless they are there for these cells, settings and code.

    `label`: column of `labels` that clusters are compared with in the report; nothing is chosen by it. InputError
    where values are not what `cluster.values` says, or too few cells have any.
    """
    run.require_lake()
    asked = run.settings.cluster
    name = run.cohort(cohort, run.sources.cohorts(CELLS), "cells")
    files = run.sources.cohort_files(CELLS, name)
    labels = None if label is None else _labels(run, name, label)
    digest = fingerprint(name, sorted(file.path for file in files), asked.model_dump(), code_of(__name__))[:32]
    here = {"cohort": name, "block": asked.block}
    if run.lake.exists(CLUSTERS):
        before = run.lake.rows(CLUSTERS, here, columns=["cell_id", "cluster", "fingerprint"])
        if before.num_rows and before.column("fingerprint").unique().to_pylist() == [digest]:
            run.report.status = "unchanged"
            run.wrote(CLUSTERS, 0)
            _compare(run, before.column("cell_id").to_pylist(), before.column("cluster").to_pylist(), labels)
            return
    found = _found(run, name)
    task = uuid.uuid4().hex[:12]
    new = [table for table in (CLUSTERS, MARKERS) if not run.lake.exists(table)]
    for table in new:
        run.lake.create(table)
    same = {**here, "fingerprint": digest}
    try:
        parts = [
            (CLUSTERS, _written(run, CLUSTERS, f"{task}-c", same, found.rows)),
            (MARKERS, _written(run, MARKERS, f"{task}-m", same, found.markers)),
        ]
        for table, written in parts:
            run.lake.commit(table, written, here)
    except BaseException:
        discard(run.lake, run.run_id, [CLUSTERS, MARKERS], task, new)
        raise
    for table, written in parts:
        run.wrote(table, sum(part.rows for part in written))
    _compare(run, found.rows["cell_id"], found.rows["cluster"], labels)


class _Found:
    """Columns of rows of both tables, all but those that every row has alike."""

    def __init__(self, rows: dict[str, list[Any]], marked: dict[str, list[Any]]) -> None:
        self.rows, self.markers = rows, marked


def _found(run: Run, cohort: str) -> _Found:
    asked = run.settings.cluster
    genes, files = _files(run, cohort)
    spread = run.spark.range(0, len(files.shares), 1, len(files.shares))

    def over(work: Callable[..., Any], columns: str, *args: Any) -> list[Any]:
        return spread.mapInArrow(_Task(work, args), columns).collect()

    counted = over(tasks.count, tasks.COUNTED, files)
    ends = min(r.lowest for r in counted), max(r.highest for r in counted)
    kind = _kind(run, *ends, all(r.whole for r in counted))
    files = files.of_kind(kind)
    sums, detected = (
        np.sum([np.frombuffer(r[key], "<f8") for r in counted if r[key]], axis=0) for key in ("sums", "detected")
    )
    cells = [one for r in counted for one in r.names]
    kept = np.concatenate([np.frombuffer(r.kept, bool) for r in counted])
    if not cells:
        known = sorted(
            {row["block"] for row in run.lake.rows(CELLS, {"cohort": cohort}, columns=["block"]).to_pylist()}
        )
        raise InputError(f"found no cells in block {asked.block!r}; expected one of {known[:5]}", "cluster.block")
    if kept.sum() < _FEWEST:
        few = f"found {kept.sum()} of {len(cells)} cells with {asked.min_genes} genes"
        raise InputError(f"{few}; expected {_FEWEST} or more", "cluster.min_genes")
    means = transform.Transform(kind, sums / max(float(np.sum(sums)), 1e-300), int(kept.sum()))
    moments = [np.frombuffer(r.packed, "<f8").reshape(2, -1) for r in over(tasks.vary, tasks.PACKED, files, means)]
    varied = np.sum(moments, axis=0)
    chosen = variable.most_variable(
        variable.variances(varied[0], varied[1], means.cells), detected, asked.genes, asked.min_cells
    )
    if not len(chosen):
        raise InputError("found no gene that varies between cells; expected some", "cluster.min_cells")
    total = Products.empty(len(chosen))
    for row in over(tasks.products, tasks.PACKED, files, means, chosen):
        total.join(Products.unpack(row.packed, len(chosen)))
    axes = components(total, asked.components)
    scored = sorted(over(tasks.scores, tasks.SCORED, files, means, chosen, axes), key=lambda row: row.cell_id)
    names = [row.cell_id for row in scored]
    scores = np.frombuffer(b"".join(row.packed for row in scored), "<f8").reshape(len(names), -1)
    found, stable = _clusters(run, scores)
    number = int(found.max()) + 1
    run.report.metrics.update(n_clusters=number, cells=len(names), values=kind, genes=len(chosen))
    of = dict(zip(names, found.tolist(), strict=True))
    how = dict(zip(names, stable.tolist(), strict=True))
    without = len(cells) - len(names)
    if without:
        run.report.warn(f"{without} of {len(cells)} cells have no cluster: fewer genes than {asked.min_genes}, or none")
    ordered = sorted(cells)
    note = f"fewer than {asked.min_genes} genes are counted in it"
    rows = {
        "cell_id": ordered,
        "cluster": [of.get(one) for one in ordered],
        "stability": [None if one not in how or np.isnan(how[one]) else how[one] for one in ordered],
        "note": [None if one in of else note for one in ordered],
    }
    sizes = np.bincount(found, minlength=number)
    return _Found(rows, _markers(run, over(tasks.level, tasks.LEVELLED, files, of, number), sizes, genes, detected))


class _Task:
    """A pass with what it needs, as Spark ships it."""

    def __init__(self, work: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self.work, self.args = work, args

    def __call__(self, batches: Any) -> Any:
        return self.work(batches, *self.args)


def _files(run: Run, cohort: str) -> tuple[list[str], tasks.CellFiles]:
    """Genes of all orders of features, sorted by name, and the files dealt out to tasks."""
    asked = run.settings.cluster
    where = {"cohort": cohort, "source": CELLS.name, "block": asked.block}
    table = run.lake.rows(FEATURES, where, run.sources.version(FEATURES)).sort_by("position")
    sets = np.array(table.column("feature_set").to_pylist(), object)
    ids = np.array(table.column("feature_id").to_pylist(), object)
    genes = sorted(set(ids.tolist()))
    place = {gene: number for number, gene in enumerate(genes)}
    places = {
        one: np.array([place[gene] for gene in ids[sets == one].tolist()], np.int64)
        for one in sorted(set(sets.tolist()))
    }
    stored = run.sources.cohort_files(CELLS, cohort)
    number = max(1, min(len(stored), task_slots(run.spark)))
    shares = tuple(tuple(stored[start::number]) for start in range(number))
    return genes, tasks.CellFiles(shares, asked.block, places, len(genes), asked.min_genes)


def _kind(run: Run, lowest: float, highest: float, whole: bool) -> str:
    asked = run.settings.cluster.values
    if not np.isfinite([lowest, highest]).all():
        raise InputError(f"found values from {lowest} to {highest}; expected finite ones", "cluster.values")
    if asked in (transform.COUNTS, transform.EXPRESSION) and lowest < 0:
        advice = "normalised values are taken as they are with --set cluster.values=scaled"
        raise InputError(f"found {lowest:.6g}; expected {asked}, none negative: {advice}", "cluster.values")
    kind = transform.kind_of(lowest, highest, whole) if asked == "auto" else asked
    if kind == transform.COUNTS and not whole:
        run.report.warn("some values are not whole: they are taken as counts all the same")
    if asked == "auto" and kind != transform.COUNTS:
        told = "their logarithms are taken" if kind == transform.EXPRESSION else "they are taken as they are"
        run.report.warn(f"values from {lowest:.6g} to {highest:.6g} are no counts: {told}")
    return kind


def _clusters(run: Run, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Clusters int64 (n,) and stabilities float64 (n,) of cells by their scores, in order of names."""
    asked = run.settings.cluster
    n = len(scores)
    members = np.arange(n)
    if n > asked.cells:
        members = np.sort(np.random.default_rng(asked.seed).permutation(n)[: asked.cells])
        run.report.warn(f"{asked.cells} of {n} cells are clustered, the others join them by their neighbours")
    mine = scores[members]
    k = groups.neighbours_for(asked.neighbours, len(mine))
    resolutions = stability.RESOLUTIONS.tolist()
    if asked.count:
        resolutions = [_resolution_for(run, mine, k)]
    elif asked.resolution:
        resolutions = [asked.resolution]
    work = tasks.Subsampling(mine, k, resolutions, asked.share, asked.subsamples, asked.null_sets, asked.seed)
    number = asked.subsamples + asked.null_sets
    rows = run.spark.range(0, number, 1, number).mapInArrow(partial(tasks.subsample, of=work), tasks.SUBSAMPLED)
    packed = {row.number: row.packed for row in rows.collect()}
    runs = np.stack([np.frombuffer(packed[i], "<i4").reshape(len(resolutions), -1) for i in range(asked.subsamples)], 1)
    nulls = np.stack([np.frombuffer(packed[i], "<f8") for i in range(asked.subsamples, number)])
    told = np.array([stability.agreement(one) for one in runs])
    choice = stability.choose(told[:, 0], told[:, 1], nulls)
    resolution = resolutions[choice.place]
    if asked.count:
        found = leiden(shared_graph(neighbours(mine, k)), resolution, asked.seed)
    else:
        found = groups.steady(mine, runs[choice.place], k, resolution, asked.seed)
    run.report.metrics.update(
        resolution=round(resolution, 6),
        agreement=round(float(choice.stability[choice.place]), 6),
        agreement_of_one_cluster=round(float(choice.null[choice.place]), 6),
        p_value=round(choice.p_value, 6),
    )
    if choice.p_value > 2 / (asked.null_sets + 1):
        run.report.warn(
            f"one cluster of cells would come back as well (p = {choice.p_value:.3g}): there may be no more"
        )
    stable = stability.of_cells(found, runs[choice.place])
    whole, share = groups.joined(scores, members, found, k)
    share[members] = stable
    return whole, share


def _resolution_for(run: Run, scores: np.ndarray, k: int) -> float:
    """A resolution at which there are `cluster.count` clusters, by halving; the nearest that was found without."""
    asked = run.settings.cluster
    graph = shared_graph(neighbours(scores, k))
    low, high = 1e-3, 100.0
    best = (len(scores), low)
    for _ in range(30):
        middle = float(np.sqrt(low * high))
        number = int(leiden(graph, middle, asked.seed).max()) + 1
        best = min(best, (abs(number - asked.count), middle))
        if number == asked.count:
            break
        low, high = (middle, high) if number < asked.count else (low, middle)
    if best[0]:
        run.report.warn(f"no resolution was found that gives {asked.count} clusters: this is the nearest to it")
    return best[1]


def _markers(
    run: Run, levelled: list[Any], sizes: np.ndarray, genes: list[str], detected: np.ndarray
) -> dict[str, list[Any]]:
    asked = run.settings.cluster
    names = ("cluster", "rank", "feature_id", "auc", "difference", "share", "share_rest", "p_value", "q_value")
    found: dict[str, list[Any]] = {name: [] for name in names}
    number = len(sizes)
    if number < 2 or not asked.markers:
        return found
    of: dict[int, list[bytes]] = {}
    for row in levelled:
        of.setdefault(row.gene, []).append(row.packed)
    tested = [gene for gene in sorted(of) if detected[gene] >= asked.min_cells]
    parts: list[markers.Differences] = []
    step = max(1, (1 << 22) // (markers.LEVELS * number))
    for start in range(0, len(tested), step):
        some = tested[start : start + step]
        counted = np.zeros((len(some), markers.LEVELS * number))
        for place, gene in enumerate(some):
            for packed in of[gene]:
                keys, cells = np.frombuffer(packed, "<i8").reshape(2, -1)
                counted[place, keys] += cells
        parts.append(markers.rank_sums(counted.reshape(len(some), markers.LEVELS, number), sizes))
    if not parts:
        return found
    names_of = ("auc", "difference", "share", "share_rest", "p")
    columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names_of}
    q = markers.false_discovery(columns["p"])
    for cluster in range(number):
        auc = columns["auc"][:, cluster]
        order = np.lexsort((np.arange(len(auc)), columns["p"][:, cluster], -np.round(auc, 12)))
        chosen = [i for i in order.tolist() if q[i, cluster] <= asked.max_q and auc[i] > 0.5][: asked.markers]
        found["cluster"] += [cluster] * len(chosen)
        found["rank"] += list(range(1, len(chosen) + 1))
        found["feature_id"] += [genes[tested[i]] for i in chosen]
        found["q_value"] += q[chosen, cluster].tolist()
        for name in names_of:
            found["p_value" if name == "p" else name] += columns[name][chosen, cluster].tolist()
    return found


def _written(run: Run, table: Table, name: str, same: dict[str, str], columns: dict[str, list[Any]]) -> list[Part]:
    schema = table.arrow_schema()
    number = len(next(iter(columns.values())))
    arrays = [
        pa.array([same[field.name]] * number if field.name in same else columns[field.name], field.type)
        for field in schema
    ]
    writer = PartWriter(table, run.lake.path(table), name)
    writer.write(pa.RecordBatch.from_arrays(arrays, schema=schema))
    return writer.close()


def _labels(run: Run, cohort: str, column: str) -> dict[str, str]:
    from pyspark.sql import functions as F

    table = run.sources.read(LABELS, cohort)
    if column not in table.columns:
        known = [one for one in table.columns if one not in LABELS.column_names]
        raise InputError(f"found no column {column!r}; expected one of {', '.join(known[:5]) or 'none'}", "--label")
    mine = table.where((F.col("cohort") == cohort) & (F.col("entity") == CELL))
    quoted = f"`{column.replace('`', '``')}`"
    pairs = mine.select(F.col("entity_id").alias("cell"), F.col(quoted).alias("label")).collect()
    found = {row.cell: row.label for row in pairs if row.label is not None}
    if not found:
        raise InputError(f"found no cell with a value in {column!r}; expected some", "--label")
    return found


def _compare(run: Run, names: list[str], clusters: list[int | None], labels: dict[str, str] | None) -> None:
    """ARI and NMI of cells that have both a cluster and a label."""
    told = [one for one in clusters if one is not None]
    run.report.metrics["n_clusters"] = max(told, default=-1) + 1
    if labels is None:
        return
    pairs = [
        (number, labels[name])
        for name, number in zip(names, clusters, strict=True)
        if number is not None and name in labels
    ]
    a = np.array([number for number, _ in pairs], np.int64)
    _, b = np.unique([text for _, text in pairs], return_inverse=True)
    run.report.metrics.update(
        ari=round(stability.adjusted_rand(a, b), 6),
        nmi=round(stability.mutual_information(a, b), 6),
        labelled_cells=len(pairs),
        n_labels=int(b.max(initial=-1)) + 1,
    )
