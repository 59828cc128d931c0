"""Clusters through the command line: groups are found, whatever the order of the file, and bad values are told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import scipy.io
import scipy.sparse

from genodl_spark.lake.delta import Lake
from genodl_spark.lake.tables.cells import CLUSTERS, MARKERS
from jobs import cluster, ingest

FEW = ("--set", "cluster.subsamples=3", "--set", "cluster.null_sets=2", "--set", "cluster.genes=60")


def write(path: Path, counts: np.ndarray, names: list[str], labels: list[str]) -> str:
    """A folder of counts (cells, genes)."""
    path.mkdir()
    scipy.io.mmwrite(str(path / "matrix.mtx"), scipy.sparse.coo_matrix(counts.T), symmetry="general")
    (path / "genes.tsv").write_text("\n".join(["gene_id", *(f"g{i:03d}" for i in range(counts.shape[1])), ""]))
    rows = [f"{name}\t{label}" for name, label in zip(names, labels, strict=True)]
    (path / "cells.tsv").write_text("\n".join(["cell_id\tlabel", *rows, ""]))
    return str(path)


def test_groups_are_found_in_any_order_and_values_are_told(genodl, lake: Lake, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    of = np.repeat([0, 1, 2], (45, 30, 25))
    means = np.full((3, 80), 1.0)
    for group in range(3):
        means[group, group * 10 : group * 10 + 10] = 6
    counts = random.poisson(means[of] * random.uniform(0.5, 2, (100, 1)))
    counts[-1] = 0  # a cell with no counts
    names = [f"c{i:03d}" for i in random.permutation(100)]
    labels = [f"t{group}" for group in of.tolist()]
    rows: dict[str, list[list[object]]] = {}
    marked: dict[str, list[list[object]]] = {}
    for cohort, order in (("a", np.arange(100)), ("b", random.permutation(100))):
        folder = write(tmp_path / cohort, counts[order], [names[i] for i in order], [labels[i] for i in order])
        common = ("--lake", lake.uri, "--cohort", cohort)
        assert genodl(ingest, "cells", folder, *common)[0] == 0
        code, report, error = genodl(cluster, *common, "--label", "label", *FEW)
        assert code == 0, error
        metrics = report["metrics"]
        assert (metrics["ari"], metrics["nmi"], metrics["n_clusters"], metrics["values"]) == (1, 1, 3, "counts")
        assert (metrics["cells"], metrics["labelled_cells"], report["rows"]["clusters"]["written"]) == (99, 99, 100)
        assert report["warnings"][0].startswith("1 of 100 cells have no cluster")
        found = lake.rows(CLUSTERS, {"cohort": cohort}).sort_by("cell_id")
        rows[cohort] = [found.column(name).to_pylist() for name in ("cell_id", "cluster", "stability", "note")]
        genes = lake.rows(MARKERS, {"cohort": cohort}).sort_by([("cluster", "ascending"), ("rank", "ascending")])
        marked[cohort] = [genes.column(c).to_pylist() for c in ("cluster", "feature_id", "auc", "p_value", "q_value")]
    assert rows["a"] == rows["b"] and marked["a"] == marked["b"]
    at = rows["a"][0].index(names[-1])
    assert (rows["a"][1][at], rows["a"][2][at], rows["a"][3][at] is None) == (None, None, False)
    sizes = np.bincount([one for one in rows["a"][1] if one is not None])
    assert sizes.tolist() == [45, 30, 24]
    for group in range(3):
        top = [gene for number, gene in zip(*marked["a"][:2], strict=True) if number == group][:10]
        assert sorted(top) == [f"g{i:03d}" for i in range(group * 10, group * 10 + 10)]

    code, report, _ = genodl(cluster, "--lake", lake.uri, "--cohort", "a", "--label", "label", *FEW)
    assert (code, report["status"], report["metrics"]["ari"]) == (0, "unchanged", 1)
    code, _, error = genodl(cluster, "--lake", lake.uri, "--cohort", "a", "--label", "kind", *FEW)
    assert code == 2 and "expected one of label" in error
    code, _, error = genodl(cluster, "--lake", lake.uri, "--cohort", "a", "--set", "cluster.block=none", *FEW)
    assert code == 2 and "found no cells in block 'none'" in error

    scaled = (counts - counts.mean(0)) / 2
    folder = write(tmp_path / "scaled", scaled, names, labels)
    common = ("--lake", lake.uri, "--cohort", "scaled")
    assert genodl(ingest, "cells", folder, *common)[0] == 0
    code, _, error = genodl(cluster, *common, "--set", "cluster.values=counts", *FEW)
    assert code == 2 and "none negative" in error and "cluster.values=scaled" in error
    assert lake.rows(CLUSTERS, {"cohort": "scaled"}).num_rows == 0
