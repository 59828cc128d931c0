"""Clusters of public single-cell sets against their labels: ten seeds, and two baselines on the same cells.

`.venv/bin/python -m tests.reference.clusters [SET...]` prints a line a set: the mean and the standard deviation of ARI
and NMI, of the resolution chosen without labels; of k-means with as many clusters as there are labels on the same
components; and of Leiden at resolution 1 on Pearson residuals, without subsamples.
"""

from __future__ import annotations

import gzip
import os
import sys
from pathlib import Path

import h5py
import numpy as np
import scipy.io
import scipy.sparse
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from genodl_spark.cells import clusters, stability, transform, variable
from genodl_spark.cells.communities import leiden
from genodl_spark.cells.components import Products, components
from genodl_spark.cells.neighbours import neighbours, shared_graph
from genodl_spark.cells.settings import Cluster

SHARED = Path(os.environ.get("GENODL_SHARED_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
SETS = (
    "sc_mouse_bladder_scdeepcluster",
    "sc_mixology/celseq2",
    "sc_mixology/celseq2_5cl_p1",
    "sc_pbmc68k_reduced_scanpy",
    "sc_yan_embryo_sc3",
    "sc_buettner_mesc_simlr",
)
SEEDS = 10


def cells_of(name: str) -> tuple[scipy.sparse.csr_matrix, dict[str, np.ndarray]]:
    """Values (cells, genes) and columns of the cells, in order of their names."""
    folder = SHARED / name
    header, *rows = [line.split("\t") for line in (folder / "cells.tsv").read_text().splitlines()]
    columns = {key: np.array([row[at] for row in rows]) for at, key in enumerate(header)}
    if (folder / "counts.mtx.gz").exists():
        with gzip.open(folder / "counts.mtx.gz") as file:
            x = scipy.io.mmread(file).T.tocsr()
    else:
        with h5py.File(next(folder.glob("*.h5ad"))) as file:
            x = scipy.sparse.csr_matrix(np.array(file["X"]))
    order = np.argsort(next(iter(columns.values())), kind="stable")
    return x[order].astype(np.float32), {key: values[order] for key, values in columns.items()}


def scores_of(x: scipy.sparse.csr_matrix, kind: str, asked: Cluster) -> np.ndarray:
    sums, totals = (np.asarray(x.sum(axis, dtype=float)).ravel() for axis in (0, 1))
    means = transform.Transform(kind, sums / sums.sum(), x.shape[0])
    genes = np.arange(x.shape[1])
    moments = np.zeros((2, len(genes)))
    for start in range(0, x.shape[0], 256):
        rows = means.rows(x[start : start + 256].toarray(), totals[start : start + 256], genes)
        moments += rows.sum(0), (rows * rows).sum(0)
    varied = variable.variances(*moments, x.shape[0])
    chosen = variable.most_variable(varied, np.asarray((x != 0).sum(0)).ravel(), asked.genes, asked.min_cells)
    rows = means.rows(x[:, chosen].toarray(), totals, chosen)
    total = Products.empty(len(chosen))
    total.add(rows)
    return components(total, asked.components).scores(rows)


def chosen(scores: np.ndarray, asked: Cluster, seed: int) -> np.ndarray:
    """Clusters as the verb makes them; the null sets, which change none, are left out."""
    k = clusters.neighbours_for(asked.neighbours, len(scores))
    resolutions = stability.RESOLUTIONS.tolist()
    members = [stability.subsample(len(scores), asked.share, seed, run) for run in range(asked.subsamples)]
    runs = np.stack(
        [stability.communities_of(scores, some, k, resolutions, seed + run) for run, some in enumerate(members)], 1
    )
    told = np.array([stability.agreement(one) for one in runs])
    place = stability.choose(told[:, 0], told[:, 1], np.zeros((2, len(resolutions)))).place
    return clusters.steady(scores, runs[place], k, resolutions[place], seed)


def told(labels: np.ndarray, found: list[np.ndarray]) -> str:
    ari = [adjusted_rand_score(labels, one) for one in found]
    nmi = [normalized_mutual_info_score(labels, one) for one in found]
    numbers = sorted({int(one.max()) + 1 for one in found})
    return f"{np.mean(ari):.3f} ± {np.std(ari):.3f} | {np.mean(nmi):.3f} ± {np.std(nmi):.3f} | {numbers}"


def main(names: list[str]) -> None:
    asked = Cluster()
    for name in names or SETS:
        x, columns = cells_of(name)
        labels = columns["label" if "label" in columns else "bulk_labels"]
        whole = bool((x.data == np.rint(x.data)).all())
        kind = transform.kind_of(float(min(x.data.min(), 0)), float(x.data.max()), whole)
        scores = scores_of(x, kind, asked)
        graph = shared_graph(neighbours(scores, clusters.neighbours_for(asked.neighbours, len(scores))))
        seeds = range(1, SEEDS + 1)
        k = len(set(labels.tolist()))
        ways = {
            "chosen": [chosen(scores, asked, seed) for seed in seeds],
            "k-means": [KMeans(k, n_init=10, random_state=seed).fit_predict(scores) for seed in seeds],
            "leiden at 1": [leiden(graph, 1.0, seed) for seed in seeds],
        }
        for way, found in ways.items():
            print(f"| {name} | {kind} | {way} | {told(labels, found)} |", flush=True)
            if "demuxlet_cls" in columns:
                single = columns["demuxlet_cls"] == "SNG"
                print(f"| {name}, singlets | {kind} | {way} | {told(labels[single], [f[single] for f in found])} |")


if __name__ == "__main__":
    main(sys.argv[1:])
