"""Cells of every layout against SciPy and NumPy: each value of each cell at its place, labels, and refusals."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pytest
import scipy.io
import scipy.sparse

from genodl_spark.core import packing
from genodl_spark.core.errors import InputError
from genodl_spark.formats import cells_hdf5, counted_cells, matrix_market
from tests.public_data import DATA_SETS, DataSet, agree

SHARED = Path(os.environ.get("GENODL_SHARED_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
CELLS, GENES = 37, 23
TEXT = h5py.string_dtype()


@pytest.fixture(autouse=True)
def few_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small files are read in many runs, and wait in many files."""
    for module in (counted_cells, matrix_market, cells_hdf5):
        monkeypatch.setattr(module, "AT_ONCE", 50)


def counted(seed: int = 0, cells: int = CELLS, genes: int = GENES) -> scipy.sparse.csr_matrix:
    draw = np.random.default_rng(seed)
    values = draw.poisson(0.6, (cells, genes)).astype(np.float32)
    values[3] = 0
    found = scipy.sparse.csr_matrix(values)
    found.data[5] = 0  # one that is stored all the same
    return found


def header_of(path: Path, layer: str = "X", feature_type: str = "Gene Expression") -> counted_cells.Header:
    if path.name.endswith((".h5", ".h5ad")):
        return cells_hdf5.header_of(path.as_uri(), layer, feature_type)
    return matrix_market.header_of(path.as_uri(), feature_type)


def read(path: Path, layer: str = "X") -> tuple[np.ndarray, pa.Table, pa.Table, list[str]]:
    """Values (cells, features), rows of `cells` and `labels`, and the features."""
    header, uri = header_of(path, layer), path.as_uri()
    if path.name.endswith((".h5", ".h5ad")):
        middle = header.cells // 2 if header.ranges else 0
        found: Iterator = cells_hdf5.read(uri, header, "c", "b", "f", 0, middle) if middle else iter(())
        parts = [*found, *cells_hdf5.read(uri, header, "c", "b", "f", middle, header.cells)]
        names = cells_hdf5.genes(uri, header).names
    else:
        parts, names = list(matrix_market.read(uri, header, "c", "b", "f")), matrix_market.genes(header).names
    rows, labels = (pa.Table.from_batches(one) for one in zip(*parts, strict=True))
    values = packing.rows(rows.column("x"), "sparse:float32", header.features)
    assert rows.column("n_values").to_pylist() == (values != 0).sum(1).tolist()
    np.testing.assert_allclose(rows.column("total").to_numpy(), values.sum(1, dtype=float), rtol=1e-6)
    assert rows.column("line").to_pylist() == list(range(1, header.cells + 1)) == labels.column("line").to_pylist()
    assert rows.column("cell_id").equals(labels.column("entity_id")) and len(names) == header.features
    return values, rows, labels, names


def compressed(group: h5py.Group, matrix: scipy.sparse.spmatrix) -> None:
    group["data"], group["indices"], group["indptr"] = matrix.data, matrix.indices, matrix.indptr


def anndata(path: Path, matrix: scipy.sparse.csr_matrix, layout: str, form: str) -> Path:
    """An h5ad as versions of anndata wrote it: compound (before 0.7), references (0.7), types (since 0.8)."""
    n, m = matrix.shape
    ids, genes = [f"c{i}" for i in range(n)], [f"g{i}" for i in range(m)]
    codes = np.arange(n) % 3 - 1
    with h5py.File(path, "w") as file:
        if layout == "compound":
            obs = np.zeros(n, [("index", "S8"), ("depth", "<i8"), ("share", "<f4"), ("kind", "i1")])
            obs["index"], obs["depth"], obs["share"], obs["kind"] = ids, np.arange(n), 0.5, codes
            file["obs"], file["var"] = obs, np.array([(g.encode(),) for g in genes], [("index", "S8")])
            file["uns/kind_categories"] = np.array([b"T cell", b"B"])
        else:
            for table, names in (("obs", ids), ("var", genes)):
                file.create_dataset(f"{table}/_index", data=names, dtype=TEXT)
                file[table].attrs["_index"] = "_index"
            file["obs/depth"], file["obs/share"] = np.arange(n), np.full(n, 0.5, np.float32)
            file["obs"].attrs.create("column-order", ["depth", "share", "kind"], dtype=TEXT)
            if layout == "references":
                file.create_dataset("obs/__categories/kind", data=["T cell", "B"], dtype=TEXT)
                file["obs/kind"] = codes
                file["obs/kind"].attrs["categories"] = file["obs/__categories/kind"].ref
            else:
                file.create_dataset("obs/kind/categories", data=["T cell", "B"], dtype=TEXT)
                file["obs/kind/codes"] = codes
                file["obs/kind"].attrs["encoding-type"] = "categorical"
        if form == "dense":
            file["X"] = matrix.toarray()
            return path
        group = file.create_group("X")
        compressed(group, matrix if form == "csr" else matrix.tocsc())
        if layout == "compound":
            group.attrs["h5sparse_format"], group.attrs["h5sparse_shape"] = form, matrix.shape
        else:
            group.attrs["encoding-type"], group.attrs["shape"] = f"{form}_matrix", matrix.shape
    return path


@pytest.mark.parametrize("form", ["csr", "csc", "dense"])
@pytest.mark.parametrize("layout", ["compound", "references", "types"])
def test_h5ad_of_every_layout(tmp_path: Path, layout: str, form: str) -> None:
    matrix = counted()
    values, rows, labels, genes = read(anndata(tmp_path / "a.h5ad", matrix, layout, form))
    assert (values == matrix.toarray()).all() and genes == [f"g{i}" for i in range(GENES)]
    assert rows.column("cell_id").to_pylist() == [f"c{i}" for i in range(CELLS)]
    assert labels.column("kind").to_pylist() == [(None, "T cell", "B")[i % 3] for i in range(CELLS)]
    assert labels.column("depth").to_pylist() == [str(i) for i in range(CELLS)]
    assert set(labels.column("share").to_pylist()) == {"0.5"}


@pytest.mark.parametrize("layout", ["compound", "types"])
def test_genes_that_are_called_by_symbols_keep_their_identifiers(tmp_path: Path, layout: str) -> None:
    path = anndata(tmp_path / "a.h5ad", counted(), layout, "csr")
    ids = [f"ENSG{i}" for i in range(GENES)]
    with h5py.File(path, "a") as file:
        if layout == "compound":
            del file["var"]
            rows = [(f"g{i}".encode(), one.encode(), i) for i, one in enumerate(ids)]
            file["var"] = np.array(rows, [("index", "S8"), ("Gene_IDs", "S8"), ("n_cells", "<i8")])
        else:
            file.create_dataset("var/Gene_IDs", data=ids, dtype=TEXT)
            file["var"].attrs.create("column-order", ["Gene_IDs"], dtype=TEXT)
    found = cells_hdf5.genes(path.as_uri(), header_of(path))
    assert (found.names, found.symbols, found.ids) == (found.names, found.names, ids) and found.names[1] == "g1"


def test_symbols_and_identifiers_among_columns_of_genes() -> None:
    columns: dict[str, list[str | None]] = {"chrom": ["1", "2"], "Symbol": ["A", None], "gene_id": ["x", "y"]}
    found = counted_cells.Genes.of(["x", "y"], columns.__getitem__, columns)
    assert (found.symbols, found.ids) == (["A", None], None)  # identifiers are the names already
    assert found.of_type(["a", "b"], "b") == counted_cells.Genes(["y"], [None])
    assert counted_cells.Genes.of(["x", "y"], columns.__getitem__, ["chrom"]) == counted_cells.Genes(["x", "y"])


def test_raw_values_layers_and_columns_of_other_types(tmp_path: Path) -> None:
    matrix, path = counted(), tmp_path / "a.h5ad"
    anndata(path, matrix, "types", "csr")
    with h5py.File(path, "a") as file:
        file["X/data"][...] = np.log1p(matrix.data)
        file["layers/scaled"] = matrix.toarray() - 1
        file.create_dataset("raw/var/_index", data=[f"r{i}" for i in range(GENES)], dtype=TEXT)
        file["raw/var"].attrs["_index"] = "_index"
        group = file.create_group("raw/X")
        compressed(group, matrix)
        group.attrs["encoding-type"], group.attrs["shape"] = "csr_matrix", matrix.shape
        file["obs/doublet/values"], file["obs/doublet/mask"] = np.arange(CELLS) % 2 == 0, np.arange(CELLS) == 4
        file["obs/doublet"].attrs["encoding-type"] = "nullable-boolean"
        file["obs/place"] = np.zeros((CELLS, 2))
        file["obs"].attrs.create("column-order", ["doublet", "place"], dtype=TEXT)
    header = header_of(path)
    assert header.notes == (
        "columns place of obs hold several values of a cell and are not read",
        "X has values that are no counts; beside it are raw, scaled: --set ingest.layer=NAME reads another",
    )
    values, _, labels, genes = read(path, "raw")
    assert (values == matrix.toarray()).all() and genes[0] == "r0"
    assert labels.column("doublet").to_pylist()[:6] == ["true", "false", "true", "false", None, "false"]
    assert (read(path, "scaled")[0] == matrix.toarray() - 1).all()
    with pytest.raises(InputError, match="found X, raw, scaled in the file, and no spliced"):
        header_of(path, "spliced")


@pytest.mark.parametrize("version", [2, 3])
def test_files_of_10x(tmp_path: Path, version: int) -> None:
    matrix, path = counted(), tmp_path / "a.h5"
    types = ["Gene Expression"] * (GENES - 4) + ["Antibody Capture"] * 4
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix" if version == 3 else "GRCh38")
        compressed(group, matrix)
        group["shape"], group["barcodes"] = (GENES, CELLS), np.array([f"AC{i}-1".encode() for i in range(CELLS)])
        ids, names = (np.array([f"{start}{i}".encode() for i in range(GENES)]) for start in ("ENSG", "n"))
        if version == 3:
            group["features/id"], group["features/name"] = ids, names
            group["features/feature_type"] = np.array([t.encode() for t in types])
        else:
            group["genes"], group["gene_names"] = ids, names
    values, rows, _, genes = read(path)
    kept = GENES - 4 if version == 3 else GENES
    assert (values == matrix.toarray()[:, :kept]).all() and genes == [f"ENSG{i}" for i in range(kept)]
    assert rows.column("cell_id")[0].as_py() == "AC0-1"
    found = cells_hdf5.genes(path.as_uri(), header_of(path))
    assert (found.symbols, found.ids) == ([f"n{i}" for i in range(kept)], None)
    if version == 3:
        header = header_of(path, feature_type="Antibody Capture")
        assert header.features == 4 and "4 features of type Antibody Capture are read" in header.notes[0]
        with pytest.raises(InputError, match="found features of types Antibody Capture, Gene Expression"):
            header_of(path, feature_type="Peaks")


def folder(path: Path, matrix: scipy.sparse.csr_matrix, order: str = "cells", names: str = "ours") -> Path:
    """A MatrixMarket folder, its entries in an order: of cells, of genes, or none."""
    path.mkdir(exist_ok=True)
    entries = matrix.tocoo()
    cell, gene, value = entries.row, entries.col, entries.data
    by = {"cells": cell, "genes": gene, "none": np.random.default_rng(1).permutation(len(cell))}[order]
    at = np.argsort(by, kind="stable")
    lines = [f"{gene[i] + 1} {cell[i] + 1} {value[i]:g}" for i in at]
    n, m = matrix.shape
    text = "\n".join(["%%MatrixMarket matrix coordinate integer general", "% c", f"{m} {n} {len(at)}", *lines, ""])
    if names == "ours":
        (path / "counts.mtx.gz").write_bytes(gzip.compress(text.encode()))
        (path / "genes.tsv").write_text("\n".join(["gene_id", *(f"g{i}" for i in range(m)), ""]))
        rows = [f"{'AB'[i % 2]}\tc{i}\t{i % 3 or 'NA'}" for i in range(n)]
        (path / "cells.tsv").write_text("\n".join(["label\tcell_id\tbatch", *rows, ""]))
        return path / "counts.mtx.gz"
    (path / "x_matrix.mtx").write_text(text)
    rows = [f"g{i}\tname{i}\tGene Expression" for i in range(m)]
    (path / "x_features.tsv.gz").write_bytes(gzip.compress("\n".join([*rows, ""]).encode()))
    (path / "x_barcodes.tsv").write_text("".join(f"c{i}\n" for i in range(n)))
    return path / "x_matrix.mtx"


@pytest.mark.parametrize("names", ["ours", "10x"])
@pytest.mark.parametrize("order", ["cells", "genes", "none"])
def test_folders_in_every_order(tmp_path: Path, order: str, names: str) -> None:
    matrix = counted(2)
    values, rows, labels, genes = read(folder(tmp_path / "a", matrix, order, names))
    assert (values == matrix.toarray()).all() and genes == [f"g{i}" for i in range(GENES)]
    assert rows.column("cell_id").to_pylist() == [f"c{i}" for i in range(CELLS)]
    found = matrix_market.genes(header_of(tmp_path / "a" / ("counts.mtx.gz" if names == "ours" else "x_matrix.mtx")))
    assert found.symbols == (None if names == "ours" else [f"name{i}" for i in range(GENES)])
    if names == "ours":
        assert labels.column("label").to_pylist() == ["AB"[i % 2] for i in range(CELLS)]
        assert labels.column("batch").to_pylist() == [str(i % 3) if i % 3 else None for i in range(CELLS)]


def test_a_matrix_the_other_way_round_is_told_and_read(tmp_path: Path) -> None:
    matrix = counted(3)
    path = folder(tmp_path / "a", matrix)
    scipy.io.mmwrite(str(tmp_path / "a" / "counts.mtx"), matrix.astype(int))
    path.unlink()
    turned = tmp_path / "a" / "counts.mtx"
    assert header_of(turned).notes == ("the matrix is read as cells x genes",)
    assert (read(turned)[0] == matrix.toarray()).all()


FOLDERS = [data for data in DATA_SETS if data.source == "cells" and not data.given.endswith("scanpy")]


@pytest.mark.parametrize("data", FOLDERS, ids=lambda data: data.given)
def test_public_folders(monkeypatch: pytest.MonkeyPatch, data: DataSet) -> None:
    path = data.path / "counts.mtx.gz"
    if not path.is_file():
        pytest.skip(f"{path} is absent; set GENODL_SHARED_DATA to the folder of public data sets")
    for module in (counted_cells, matrix_market):
        monkeypatch.setattr(module, "AT_ONCE", 1 << 19)
    header = header_of(path)
    assert (header.cells, header.features) == (data.rows, data.features)
    rows, found = (
        pa.Table.from_batches(one) for one in zip(*matrix_market.read(path.as_uri(), header, "c", "", "f"), strict=True)
    )
    for name, expected in data.labels.items():
        assert agree(found.column(name).to_pylist(), expected), name
    packed = packing.packed(rows.column("x"), "sparse:float32", header.features)
    oracle = scipy.io.mmread(path).T.tocsr().astype(np.float32)
    oracle.eliminate_zeros()
    oracle.sort_indices()
    assert (packed.entries["place"] == oracle.indices).all() and (packed.entries["value"] == oracle.data).all()


def test_the_public_h5ad(monkeypatch: pytest.MonkeyPatch) -> None:
    path = SHARED / "sc_pbmc68k_reduced_scanpy" / "10x_pbmc68k_reduced.h5ad"
    if not path.is_file():
        pytest.skip(f"{path} is absent; set GENODL_SHARED_DATA to the folder of public data sets")
    monkeypatch.setattr(cells_hdf5, "AT_ONCE", 1 << 17)
    values, _, labels, genes = read(path)
    assert values.shape == (700, 765) and genes[:2] == ["HES4", "TNFRSF4"]
    with h5py.File(path) as file:
        assert (values == file["X"][:]).all()
        sparse = scipy.sparse.csr_matrix(tuple(file[f"raw.X/{k}"][:] for k in ("data", "indices", "indptr")))
        assert (read(path, "raw")[0] == sparse.toarray()).all()
    (data,) = (data for data in DATA_SETS if data.given == path.parent.name)
    assert all(agree(labels.column(name).to_pylist(), expected) for name, expected in data.labels.items())
    told = [line.split("\t") for line in path.with_name("cells.tsv").read_text().splitlines()[1:]]
    columns = (labels.column(name).to_pylist() for name in ("entity_id", "bulk_labels", "louvain", "phase"))
    assert [list(row) for row in zip(*columns, strict=True)] == told


def test_a_large_set_takes_little_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gene by gene, 3 million entries of 20,000 cells: never the matrix, 1.2 GB of it, nor all entries at once."""
    monkeypatch.setattr(counted_cells, "AT_ONCE", 1 << 18)
    monkeypatch.setattr(cells_hdf5, "AT_ONCE", 1 << 18)
    draw = np.random.default_rng(0)
    cells, genes, each = 20_000, 15_000, 200
    with h5py.File(tmp_path / "a.h5ad", "w") as file:
        group = file.create_group("X")
        group["indptr"] = np.arange(genes + 1) * each
        group["indices"] = np.concatenate(
            [np.sort(draw.choice(cells, each, replace=False)).astype(np.int32) for _ in range(genes)]
        )
        group["data"] = np.ones(genes * each, np.float32)
        group.attrs["encoding-type"], group.attrs["shape"] = "csc_matrix", (cells, genes)
        for table, count in (("obs", cells), ("var", genes)):
            file.create_dataset(f"{table}/_index", data=[f"{table}{i}" for i in range(count)], dtype=TEXT)
    uri = (tmp_path / "a.h5ad").as_uri()
    header, before, most, seen = header_of(tmp_path / "a.h5ad"), pa.total_allocated_bytes(), 0, 0
    for rows, _ in cells_hdf5.read(uri, header, "c", "", "f"):
        seen += sum(rows.column("n_values").to_pylist())
        most = max(most, rows.nbytes, pa.total_allocated_bytes() - before)
    assert seen == genes * each and most < 16 << 20


MARKET = "%%MatrixMarket matrix coordinate integer general\n3 2 2\n1 1 5\n3 2 7\n"


@pytest.mark.parametrize(
    ("change", "file", "line", "found"),
    [
        ({"counts.mtx": ""}, "counts.mtx", None, "found no line with the size"),
        ({"counts.mtx": "1 1 5\n"}, "counts.mtx", 1, "found '1 1 5'; expected %%MatrixMarket"),
        ({"counts.mtx": MARKET.replace("coordinate", "array")}, "counts.mtx", 1, "found a matrix that is array"),
        ({"counts.mtx": MARKET.replace("3 2 2", "3 2")}, "counts.mtx", 2, "found '3 2'"),
        ({"counts.mtx": MARKET.replace("3 2 2", "9 2 2")}, "counts.mtx", 2, "found 9 rows and 2 columns"),
        ({"counts.mtx": MARKET.replace("3 2 7", "4 2 7")}, "counts.mtx", 4, "found an entry of row 4 and column 2"),
        ({"counts.mtx": MARKET.replace("3 2 7", "3 x 7")}, "counts.mtx", 4, "found '3 x 7'; expected an entry"),
        ({"counts.mtx": MARKET.replace("3 2 7", "3 2 nan")}, "counts.mtx", None, "found nan for feature 3 of cell c1"),
        ({"counts.mtx": MARKET.replace("3 2 2", "3 2 3")}, "counts.mtx", None, "found 2 entries; expected 3"),
        ({"counts.mtx": MARKET.replace("3 2 2", "3 2 1")}, "counts.mtx", 4, "found an entry of row 3"),
        ({"counts.mtx": MARKET.replace("3 2 7", "1 1 7")}, "counts.mtx", None, "found feature 1 of cell c0 stands"),
        ({"genes.tsv": None}, "counts.mtx", None, "found none of genes and features"),
        ({"features.tsv": "a\nb\nc\n"}, "counts.mtx", None, "found genes.tsv and features.tsv of genes"),
        ({"genes.tsv": "gene_id\na\na\nc\n"}, "genes.tsv", 3, "found feature a stands twice"),
        ({"genes.tsv": "gene_id\na\n b\nc\n"}, "genes.tsv", 3, "found blanks around the name"),
        ({"cells.tsv": "cell_id\tx\nc0\t1\nc1\n"}, "cells.tsv", 3, "found 1 columns; expected 2"),
        ({"cells.tsv": "cell_id\tx\tX\nc0\t1\t2\nc1\t1\t2\n"}, "cells.tsv", 1, "column 'X' of cells stands twice"),
        ({"cells.tsv": "cell_id\nc0\n\n"}, "cells.tsv", 1, "found 1 lines below the header; expected 2"),
    ],
)
def test_folders_that_are_none(
    tmp_path: Path, change: dict[str, str | None], file: str, line: int | None, found: str
) -> None:
    texts = {"counts.mtx": MARKET, "genes.tsv": "gene_id\na\nb\nc\n", "cells.tsv": "cell_id\nc0\nc1\n"} | change
    for name, text in texts.items():
        if text is not None:
            (tmp_path / name).write_text(text)
    with pytest.raises(InputError) as refused:
        read(tmp_path / "counts.mtx")
    assert (refused.value.file, refused.value.line) == ((tmp_path / file).as_uri(), line)
    assert found.removeprefix("found ") in refused.value.message and "; expected" in refused.value.message


def test_entries_in_two_orders_are_refused(tmp_path: Path) -> None:
    path = folder(tmp_path / "a", counted())
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    text = "\n".join([*lines[:3], *lines[70:], *lines[3:70], ""])
    path.write_bytes(gzip.compress(text.encode()))
    with pytest.raises(InputError, match="in the order of cells"):
        read(path)


@pytest.mark.parametrize(
    "case", ["text", "cut", "neither", "shape", "indices", "ends", "twice", "nan", "genomes", "codes"]
)
def test_hdf5_that_is_none(tmp_path: Path, case: str) -> None:
    path = anndata(tmp_path / "a.h5ad", counted(), "types", "csr")
    if case == "text":
        path.write_text("sample\n")
    elif case == "cut":
        path.write_bytes(path.read_bytes()[:3000])
    else:
        with h5py.File(path, "a") as file:
            if case == "neither":
                del file["obs"]
            elif case == "shape":
                file["X"].attrs["shape"] = (CELLS + 1, GENES)
            elif case == "indices":
                file["X/indices"][5] = GENES
            elif case == "ends":
                file["X/indptr"][-1] += 1
            elif case == "twice":
                file["X/indices"][1] = file["X/indices"][0]
            elif case == "nan":
                file["X/data"][7] = np.nan
            elif case == "genomes":
                del file["obs"]
                file["hg19/barcodes"], file["mm10/barcodes"] = [1], [1]
            elif case == "codes":
                file["obs/kind/codes"][0] = 7
    with pytest.raises(InputError, match="; expected ") as refused:
        read(path)
    assert refused.value.file == path.as_uri()
