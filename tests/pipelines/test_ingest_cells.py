"""Cells through the command line: contents and labels, repeats, another edition, refusals that leave no trace."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from pyspark.sql import functions as F

from genodl_spark.core import packing
from genodl_spark.lake.delta import Lake
from genodl_spark.lake.tables.ingested import CELLS, FEATURES, LABELS, SAMPLES, SOURCES
from genodl_spark.lake.tables.portals import PROBES
from jobs import ingest

SHARED = Path(os.environ.get("GENODL_SHARED_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
MIXED = {"H1975": 162, "H2228": 131, "HCC827": 124, "A549": 103, "H838": 51}


def written(report: dict) -> dict[str, int]:
    return {table: counts["written"] for table, counts in report["rows"].items() if counts["written"]}


def test_public_cells_come_by_one_command(genodl, lake: Lake) -> None:
    folder, h5ad = SHARED / "sc_mixology", SHARED / "sc_pbmc68k_reduced_scanpy"
    if not folder.is_dir() or not h5ad.is_dir():
        pytest.skip(f"no data in {SHARED}; set GENODL_SHARED_DATA to the folder of public data sets")
    code, report, _ = genodl(ingest, "cells", str(folder), "--lake", lake.uri, "--cohort", "mix")
    left = f"passed over 1 files of {folder.as_uri()} that are hidden or not named as cells: PROVENANCE.md"
    assert report["warnings"] == [left]
    assert (code, report["metrics"]["read_as"]) == (0, {"MatrixMarket, genes x cells": 2})
    assert written(report) == {"cells": 571, "labels": 571, "features": 28_204 + 15_564, "sources": 2}
    labels = lake.read(LABELS).where("cohort = 'mix' AND entity = 'cell'")
    assert {r.label: r["count"] for r in labels.groupBy("label").count().collect()} == MIXED
    doublets = labels.groupBy("batch", "demuxlet_cls").count().collect()
    assert {(r.batch, r.demuxlet_cls): r["count"] for r in doublets} == {
        ("celseq2", "SNG"): 240,
        ("celseq2", "DBL"): 34,
        ("celseq2_5cl_p1", "SNG"): 156,
        ("celseq2_5cl_p1", "DBL"): 141,
    }
    assert lake.read(SAMPLES).where("cohort = 'mix'").isEmpty()
    for part, (count, genes) in {"celseq2": (274, 28_204), "celseq2_5cl_p1": (297, 15_564)}.items():
        rows = lake.read(CELLS).where(F.col("file") == f"{part}/counts.mtx.gz").orderBy("line").toArrow()
        assert (rows.num_rows, set(rows.column("n_features").to_pylist())) == (count, {genes})
        (order,) = set(rows.column("feature_set").to_pylist())
        names = lake.read(FEATURES).where(F.col("feature_set") == order).orderBy("position").toArrow()
        assert names.column("feature_id").to_pylist() == (folder / part / "genes.tsv").read_text().split()[1:]
        packed = packing.packed(rows.column("x"), "sparse:float32", genes)
        assert packed.counts.tolist() == rows.column("n_values").to_pylist()
        assert packed.entries["value"].sum(dtype=float) == sum(rows.column("total").to_pylist())
    code, report, _ = genodl(ingest, "cells", str(folder), "--lake", lake.uri, "--cohort", "mix")
    assert (code, report["status"]) == (0, "unchanged")

    code, report, _ = genodl(
        ingest, "cells", str(h5ad), "--lake", lake.uri, "--cohort", "pbmc", "--set", "ingest.layer=raw"
    )
    assert code == 0 and written(report) == {"cells": 700, "labels": 700, "features": 765, "sources": 1}
    kinds = lake.read(LABELS).where("cohort = 'pbmc'").groupBy("bulk_labels").count().collect()
    assert len(kinds) == 10 and (min(k["count"] for k in kinds), max(k["count"] for k in kinds)) == (8, 240)


def folder(path: Path, cells: dict[str, str], values: np.ndarray) -> str:
    """A folder of counts (genes, cells), and a column `label` of its cells."""
    path.mkdir(exist_ok=True)
    scipy.io.mmwrite(str(path / "matrix.mtx"), scipy.sparse.coo_matrix(values), symmetry="general")
    genes = [f"g{i}\tS{i}" for i in range(len(values))]
    (path / "genes.tsv").write_text("\n".join(["gene_id\tgene_name", *genes, ""]))
    rows = [f"{name}\t{label}" for name, label in cells.items()]
    (path / "cells.tsv").write_text("\n".join(["cell_id\tlabel", *rows, ""]))
    return str(path)


def test_another_edition_and_a_cell_that_stands_twice(genodl, lake: Lake, tmp_path: Path) -> None:
    common = ("--lake", lake.uri, "--cohort", "e")
    values = np.array([[1, 0, 2], [0, 0, 5]])
    one = folder(tmp_path / "one", {"a": "x", "b": "y", "c": "x"}, values)
    two = folder(tmp_path / "two", {"d": "x", "e": "NA"}, values[:, :2])
    assert genodl(ingest, "cells", one, *common)[0] == 0
    probes = lake.read(PROBES).where("source = 'cells'").orderBy("feature_id").collect()
    told = [(r.cohort, r.feature_id, r.symbol, r.gene_id, r.file) for r in probes]
    assert told == [("e", f"g{i}", f"S{i}", None, "one/matrix.mtx") for i in range(2)]
    assert genodl(ingest, "cells", two, *common)[0] == 0  # files of folders: of one name, and not the same
    # The labels alone have changed, and a cell has gone: its file is another edition.
    folder(tmp_path / "one", {"a": "z", "b": "y"}, values[:, :2])
    code, report, _ = genodl(ingest, "cells", one, *common)
    assert code == 0 and report["rows"]["cells"]["written"] == 2
    found = lake.read(LABELS).where("cohort = 'e'").select("entity_id", "label", "file").collect()
    assert {tuple(r) for r in found} == {
        ("a", "z", "one/matrix.mtx"),
        ("b", "y", "one/matrix.mtx"),
        ("d", "x", "two/matrix.mtx"),
        ("e", None, "two/matrix.mtx"),
    }
    cells = lake.read(CELLS).where("cohort = 'e'").orderBy("cell_id").collect()
    assert [(r.cell_id, r.n_values, r.total) for r in cells] == [("a", 1, 1), ("b", 0, 0), ("d", 1, 1), ("e", 0, 0)]
    three = folder(tmp_path / "three", {"q": "x", "d": "y"}, values[:, :2])
    code, _, line = genodl(ingest, "cells", three, *common)
    assert code == 2 and "three/matrix.mtx:2: cell d stands twice in cohort e" in line
    code, report, _ = genodl(ingest, "cells", three, *common, "--block", "proteins")
    assert code == 0 and Counter(r.block for r in lake.read(CELLS).where("cohort = 'e'").collect()) == {
        "": 4,
        "proteins": 2,
    }


def test_cells_that_are_none_are_refused_and_nothing_is_written(genodl, lake: Lake, tmp_path: Path) -> None:
    path = Path(folder(tmp_path / "a", {"a": "x", "b": "y"}, np.array([[1, 0], [3, 4]])))
    market = (path / "matrix.mtx").read_text()
    for name, text, found in [
        ("matrix.mtx", market.replace("2 1 3", "3 1 3"), "found an entry of row 3"),
        ("matrix.mtx", market.replace("2 2 3", "2 2 4"), "found 3 entries; expected 4"),
        ("genes.tsv", "gene_id\ng\ng\n", "found feature g stands twice"),
        ("cells.tsv", "cell_id\na\n", "found 1 lines below the header"),
    ]:
        before = (path / name).read_text()
        assert before != text
        (path / name).write_text(text)
        code, report, line = genodl(ingest, "cells", str(path), "--lake", lake.uri, "--cohort", "bad")
        assert code == 2 and report["status"] == "failed" and name in line and found.removeprefix("found ") in line
        (path / name).write_text(before)
    (tmp_path / "x.h5ad").write_text("no HDF5")
    code, _, line = genodl(ingest, "cells", str(tmp_path / "x.h5ad"), "--lake", lake.uri, "--cohort", "bad")
    assert code == 2 and "x.h5ad" in line
    for table in (CELLS, LABELS, SOURCES):
        assert not lake.exists(table) or lake.read(table).where("cohort = 'bad'").isEmpty()
