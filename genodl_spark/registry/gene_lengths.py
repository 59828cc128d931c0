"""Lengths of genes from an ingested annotation: bases that exons of any of a gene's transcripts cover."""

from __future__ import annotations

import numpy as np

from genodl_spark.core.errors import InputError
from genodl_spark.job.run import Run
from genodl_spark.lake.tables.genomes import ANNOTATIONS
from genodl_spark.learning.preprocessing import Chain

_SHOWN = 3  # features without a length that a warning names


def lengths_of(run: Run, chain: Chain | None, features: list[str]) -> np.ndarray | None:
    """Length of each feature in bases, float64, NaN unknown, where a step asks for it; else None. Features of such a
    step that have none are told of.

    A feature is known by its gene's identifier, with or without version, or by its name, behind a block or alone.
    InputError where `quality.annotation` names none that is ingested.
    """
    from pyspark.sql import functions as F

    asked = chain.columns_of("tpm") if chain is not None else np.empty(0, np.int64)
    if not len(asked):
        return None
    name = run.settings.quality.annotation
    rows = run.sources.read(ANNOTATIONS).where((F.col("cohort") == name) & (F.col("type") == "exon"))
    ids = [feature.rpartition(":")[2].partition(".")[0] for feature in features]
    names = [feature.rpartition(":")[2] for feature in features]
    wanted = run.spark.createDataFrame([(one,) for one in {*ids, *names}], "wanted string")
    by = [
        rows.withColumn("wanted", F.col(column)).select("wanted", "contig", "start", "end")
        for column in ("gene_id", "gene_name")
    ]
    exons = by[0].union(by[1]).join(wanted, "wanted").distinct().toArrow()
    if not exons.num_rows:
        text = f"found no exon of these features in annotation {name!r}; expected those of genes such as {names[0]}"
        raise InputError(f"{text}, ingest annotations and name their cohort", "quality.annotation")
    keys = np.array(
        [f"{a}\t{b}" for a, b in zip(*(exons.column(c).to_pylist() for c in ("wanted", "contig")), strict=True)]
    )
    found = covered(keys, exons.column("start").to_numpy(), exons.column("end").to_numpy())
    longest: dict[str, int] = {}
    for key, length in found.items():  # a gene that has copies on several contigs counts once
        gene = key.partition("\t")[0]
        longest[gene] = max(length, longest.get(gene, 0))
    lengths = np.array([longest.get(a, longest.get(b, np.nan)) for a, b in zip(ids, names, strict=True)], np.float64)
    if len(lacking := asked[np.isnan(lengths[asked])]):
        shown = ", ".join(features[i] for i in lacking[:_SHOWN])
        run.report.warn(
            f"{len(lacking)} of {len(asked)} features have no exon in annotation {name!r}, and tpm leaves them out: "
            f"{shown}{', ...' if len(lacking) > _SHOWN else ''}"
        )
    return lengths


def covered(genes: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> dict[str, int]:
    """Bases that intervals, 1-based and closed, of each gene cover together."""
    names, number = np.unique(genes, return_inverse=True)
    order = np.lexsort((ends, starts, number))
    number, start, end = number[order], starts[order].astype(np.int64), ends[order].astype(np.int64)
    # genes side by side on one line, so that the furthest end before an interval is of its own gene
    span = int(end.max(initial=0)) + 2
    furthest = np.maximum.accumulate(end + number * span) - number * span
    before = np.where(np.r_[True, number[1:] != number[:-1]], 0, np.r_[0, furthest[:-1]])
    added = np.maximum(end - np.maximum(start - 1, before), 0)
    return dict(zip(names.tolist(), np.bincount(number, added, len(names)).astype(np.int64).tolist(), strict=True))
