"""Cells in HDF5: AnnData files (h5ad) of all versions, and the files of 10x Genomics' Cell Ranger 2 and later.

Read with h5py: ranges of cells come from the file as they are asked for, whatever its size.

    table of cells or genes     h5ad of anndata < 0.7   a compound dataset; categories in uns as NAME_categories
                                of 0.7                  a group; categories in __categories, by an attribute
                                since                   a group; categories beside their codes, by encoding-type
    values                      a dense dataset, or a group with data, indices and indptr: by cell (CSR), by gene (CSC)
    10x, Cell Ranger 2          a group for each genome: barcodes, genes, gene_names and CSR
    10x, since 3                a group matrix, with features/id, name, feature_type
"""

from __future__ import annotations

import contextlib
import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genodl_spark.core import storage
from genodl_spark.core.errors import InputError
from genodl_spark.core.text_values import MISSING
from genodl_spark.formats import counted_cells
from genodl_spark.formats.counted_cells import AT_ONCE, Genes, Header, Run, checked_columns, checked_features
from genodl_spark.formats.matrix_market import of_type

FILE_NAME = re.compile(r"\.(h5ad|h5)$", re.IGNORECASE)
_MAIN, _RAW = "X", "raw"
_RAWS = {"raw/X": "raw/var", "raw.X": "raw.var"}  # matrix and genes
_INDEX = ("_index", "index")  # where no attribute says which column names the rows
_SAMPLED = 1 << 16  # values that show what a matrix holds


@dataclass(frozen=True)
class _Layout:
    """Where a file has what. `values`: path of the matrix; `form`: dense, cells (compressed by cell) or genes.
    `names`, `ids`: where genes and cells are named: a path, and for compound tables a field of it. `table`: path of the
    table of cells; empty in files of 10x. `types`: path of the features' types where one of them is `kept`."""

    values: str
    form: str
    names: tuple[str, str]
    ids: tuple[str, str]
    table: str
    in_all: int
    types: str | None = None
    kept: str | None = None


def header_of(uri: str, layer: str, feature_type: str) -> Header:
    """`layer`: X, raw, or the name of a layer of an h5ad. `feature_type`: of 10x, where there are several.

    InputError for a file that is no HDF5, is cut off, is neither an h5ad nor of 10x or lacks the layer, a matrix that
    does not fit its tables, and a feature or column that cannot be told apart.
    """
    with _opened(uri) as file, _whole(uri):
        if "obs" in file and "var" in file:
            return _anndata(file, uri, layer)
        groups = [name for name, one in file.items() if isinstance(one, h5py.Group) and "barcodes" in one]
        if len(groups) == 1:
            return _ten_x(file[groups[0]], uri, feature_type)
    found, expected = "an HDF5 file without obs and var, or barcodes", "an h5ad or a file of 10x"
    if groups:
        found, expected = f"counts on the genomes {', '.join(groups)}", "one genome: write a file for each"
    raise InputError(f"found {found}; expected {expected}", uri)


def genes(uri: str, header: Header) -> Genes:
    """The features, in order."""
    layout: _Layout = header.layout
    path, field = layout.names
    table = path if field else posixpath.dirname(path)
    with _opened(uri) as file, _whole(uri):
        names = _names(file, layout.names)
        if not layout.table:  # of 10x: symbols stand beside identifiers
            beside = f"{table}/{'name' if table.endswith('/features') else 'gene_names'}"
            symbols = {"symbol": beside} if beside in file else {}
            found = Genes.of(names, lambda name: [*_texts(file[symbols[name]][:])], symbols)
        else:
            columns, _ = _columns_of(file, table, field)
            found = Genes.of(names, lambda name: _column(file, table, name, slice(None)).to_pylist(), columns)
        return found if layout.types is None else found.of_type(_texts(file[layout.types][:]), layout.kept or "")


def read(
    uri: str, header: Header, cohort: str, block: str, file: str, first: int = 0, end: int | None = None
) -> Iterator[tuple[pa.RecordBatch, pa.RecordBatch]]:
    """Rows of `cells` and `labels` of cells `first` (from 0) to before `end`: of all, where a file has its values gene
    by gene. InputError for values that are no numbers or do not fit the matrix, and what cannot be decoded."""
    layout: _Layout = header.layout
    end = header.cells if end is None else end
    with _opened(uri) as source:
        number = None
        if layout.types is not None:
            chosen = np.array([type_ == layout.kept for type_ in _texts(source[layout.types][:])])
            number = np.where(chosen, np.cumsum(chosen) - 1, -1)
        runs = _runs(source[layout.values], layout, header.cells, first, end, uri)
        while True:
            with _whole(uri):
                run = next(runs, None)
                if run is None:
                    return
                at, counts, places, values = run
                part = slice(at, at + len(counts))
                ids = pa.array(_names(source, layout.ids, part), pa.string())
                columns = [_column(source, layout.table, name, part) for name in header.columns]
            if number is not None:
                cell = np.repeat(np.arange(len(counts)), counts)
                kept = number[places] >= 0
                counts = np.bincount(cell[kept], minlength=len(counts))
                places, values = number[places[kept]].astype(np.uint32), values[kept]
            yield counted_cells.batch((at, counts, places, values), ids, columns, header, cohort, block, file, uri)


@contextlib.contextmanager
def _opened(uri: str) -> Iterator[h5py.File]:
    if not storage.is_file(uri):
        raise InputError("no such file; expected a readable file, check the path", uri)
    with contextlib.ExitStack() as stack:
        if storage.is_local(uri):
            raw: Any = storage.local_path(uri)
        else:
            fs, path = storage.filesystem(uri)
            raw = stack.enter_context(fs.open_input_file(path))
        try:
            file = stack.enter_context(h5py.File(raw, "r"))
        except OSError as error:
            what = f"found no HDF5 that can be read ({str(error).splitlines()[0][:120]})"
            raise InputError(f"{what}; expected a whole h5ad or 10x file, fetch it again", uri) from error
        yield file


@contextlib.contextmanager
def _whole(uri: str) -> Iterator[None]:
    try:
        yield
    except (OSError, KeyError, ValueError, TypeError, IndexError, AttributeError, RuntimeError) as error:
        if isinstance(error, UnicodeDecodeError):
            raise InputError(
                "found a name that is not UTF-8; expected UTF-8 text, write the file again", uri
            ) from error
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        what = f"found what is not laid out as h5ad or 10x are ({reason})"
        raise InputError(f"{what}; expected a whole file of either, write it again", uri) from error


def _anndata(file: h5py.File, uri: str, layer: str) -> Header:
    there = {_MAIN: _MAIN} if _MAIN in file else {}
    raw = next((path for path in _RAWS if path in file), None)
    if raw is not None:
        there[_RAW] = raw
    there |= {name: f"layers/{name}" for name in file.get("layers", ())}
    if layer not in there:
        found = ", ".join(there) or "no matrix"
        raise InputError(f"found {found} in the file, and no {layer}; expected one of these as ingest.layer", uri)
    path = there[layer]
    var = _RAWS.get(path, "var")
    names, ids = _index_of(file, var), _index_of(file, "obs")
    matrix = file[path]
    form, shape = _form(matrix, uri)
    genes, cells = _names(file, names), len(file[ids[0]])
    if shape != (cells, len(genes)):
        raise InputError(
            f"found {path} of {shape[0]} x {shape[1]}, {cells} cells and {len(genes)} genes; expected cells x genes",
            uri,
        )
    if not cells:
        raise InputError("found no cell in the file; expected counts of some", uri)
    columns, left = _columns_of(file, "obs", ids[1])
    notes = [f"columns {', '.join(left)} of obs hold several values of a cell and are not read"] if left else []
    sampled = (matrix if form == "dense" else matrix["data"])[
        : max(1, _SAMPLED // (shape[1] if form == "dense" else 1))
    ]
    others = [name for name in there if name != layer]
    if others and sampled.size and ((sampled < 0) | (sampled != np.round(sampled))).any():
        notes.append(
            f"{layer} has values that are no counts; beside it are {', '.join(others)}: "
            "--set ingest.layer=NAME reads another"
        )
    described = f"h5ad, {layer} {'dense' if form == 'dense' else 'CSR' if form == 'cells' else 'CSC'}"
    layout = _Layout(path, form, names, ids, "obs", len(genes))
    return Header(
        layout,
        described,
        cells,
        len(genes),
        checked_features(genes, uri),
        checked_columns(columns, uri),
        tuple(notes),
        form != "genes",
    )


def _ten_x(group: h5py.Group, uri: str, feature_type: str) -> Header:
    path, new = group.name, "features" in group
    genes = f"{path}/features/id" if new else f"{path}/genes"
    names = _names(group.file, (genes, ""))
    shape = tuple(int(n) for n in group["shape"][:])
    cells = len(group["barcodes"])
    if shape != (len(names), cells) or len(group["indptr"]) != cells + 1:
        raise InputError(
            f"found a matrix of {' x '.join(map(str, shape))}, {len(names)} genes and {cells} barcodes; "
            "expected genes x cells",
            uri,
        )
    if not cells:
        raise InputError("found no cell in the file; expected counts of some", uri)
    types = f"{path}/features/feature_type" if new and "feature_type" in group["features"] else None
    notes: tuple[str, ...] = ()
    in_all = len(names)
    if types is not None:
        found = _texts(group.file[types][:])
        if len(set(found)) > 1:
            names = of_type(names, found, feature_type, uri)
            notes = (
                f"{len(names)} features of type {feature_type} are read, {in_all - len(names)} of other types are not",
            )
        else:
            types = None
    layout = _Layout(
        path, "cells", (genes, ""), (f"{path}/barcodes", ""), "", in_all, types, None if types is None else feature_type
    )
    described = f"10x, Cell Ranger {'3 or later' if new else '2'}"
    return Header(layout, described, cells, len(names), checked_features(names, uri), (), notes, True)


def _form(matrix: Any, uri: str) -> tuple[str, tuple[int, int]]:
    """How a matrix of an h5ad is stored, and its cells and genes."""
    if isinstance(matrix, h5py.Dataset):
        shape = matrix.shape
        if len(shape) != 2:
            raise InputError(f"found {matrix.name} with {len(shape)} axes; expected cells x genes", uri)
        return "dense", (int(shape[0]), int(shape[1]))
    kind = _text(matrix.attrs.get("encoding-type", matrix.attrs.get("h5sparse_format", "")))
    shape = matrix.attrs.get("shape", matrix.attrs.get("h5sparse_shape"))
    form = {"csr_matrix": "cells", "csr": "cells", "csc_matrix": "genes", "csc": "genes"}.get(kind)
    if form is None or shape is None:
        raise InputError(f"found {matrix.name} stored as {kind or 'a group'}; expected a dense matrix, CSR or CSC", uri)
    return form, (int(shape[0]), int(shape[1]))


def _runs(matrix: Any, layout: _Layout, cells: int, first: int, end: int, uri: str) -> Iterator[Run]:
    if layout.form == "dense":
        step = max(1, AT_ONCE // max(layout.in_all, 1))
        for at in range(first, end, step):
            values = matrix[at : min(at + step, end)]
            cell, place = np.nonzero(values)
            counts = np.bincount(cell, minlength=len(values))
            yield at, counts, place.astype(np.uint32), values[cell, place].astype(np.float32)
    elif layout.form == "genes":
        entries = (
            (other, np.repeat(np.arange(at, at + len(counts)), counts), values)
            for at, counts, other, values in _compressed(matrix, layout.in_all, cells, 0, layout.in_all, uri)
        )
        yield from counted_cells.by_cell(entries, cells, len(matrix["data"]))
    else:
        for at, counts, places, values in _compressed(matrix, cells, layout.in_all, first, end, uri):
            yield at, counts, *counted_cells.sorted_places(counts, places, values)


def _compressed(matrix: Any, rows: int, width: int, first: int, end: int, uri: str) -> Iterator[Run]:
    """Rows of a compressed matrix, as many at once as have about AT_ONCE entries; those of one are whole.
    InputError where its parts do not fit."""
    ends = matrix["indptr"][:].astype(np.int64)
    data, indices = matrix["data"], matrix["indices"]
    if len(ends) != rows + 1 or ends[0] != 0 or (np.diff(ends) < 0).any() or not ends[-1] == len(data) == len(indices):
        found = f"{len(ends)} ends of rows, {len(data)} values and {len(indices)} indices"
        raise InputError(f"found {found} in {matrix.name}; expected those of {rows} rows, write it again", uri)
    while first < end:
        last = min(end, max(first + 1, int(np.searchsorted(ends, ends[first] + AT_ONCE, "right")) - 1))
        part = slice(int(ends[first]), int(ends[last]))
        other = indices[part].astype(np.int64)
        if len(other) and not 0 <= other.min() <= other.max() < width:
            raise InputError(f"found an index outside of {matrix.name}; expected {width} columns, write it again", uri)
        yield first, np.diff(ends[first : last + 1]), other.astype(np.uint32), data[part].astype(np.float32)
        first = last


def _index_of(file: h5py.File, table: str) -> tuple[str, str]:
    """Where the rows of a table of an h5ad are named: path, and field of a compound table."""
    found = file[table]
    if isinstance(found, h5py.Dataset):
        return table, next(name for name in (*_INDEX, found.dtype.names[0]) if name in found.dtype.names)
    name = _text(found.attrs["_index"]) if "_index" in found.attrs else next(name for name in _INDEX if name in found)
    return f"{table}/{name}", ""


def _columns_of(file: h5py.File, table: str, index: str) -> tuple[list[str], list[str]]:
    """Columns of a table beside that of the names, and those that hold no single value."""
    found = file[table]
    if isinstance(found, h5py.Dataset):
        names = [name for name in found.dtype.names if name != index]
        left = [name for name in names if found.dtype[name].shape]
        return [name for name in names if name not in left], left
    order = [_text(name) for name in found.attrs.get("column-order", ())]
    index = _text(found.attrs["_index"]) if "_index" in found.attrs else ""
    names = order or [name for name in found if name not in (index, *_INDEX, "__categories")]
    left = [name for name in names if isinstance(found[name], h5py.Dataset) and found[name].ndim != 1]
    return [name for name in names if name not in left], left


def _column(file: h5py.File, table: str, name: str, part: slice) -> pa.Array:
    """Values of some rows as text; NULL where they are missing."""
    found = file[table]
    if isinstance(found, h5py.Dataset):
        values = found[part][name]  # a compound table is read by rows
        key = f"uns/{name}_categories"
        categories = file[key][:] if key in file else None
        return _coded(values, categories) if categories is not None else _as_text(values)
    column = found[name]
    if isinstance(column, h5py.Group):
        if "categories" in column:
            return _coded(column["codes"][part], column["categories"])
        values = _as_text(column["values"][part])
        missing = pa.array(column["mask"][part].astype(bool)) if "mask" in column else None
        return values if missing is None else pc.if_else(missing, pa.scalar(None, pa.string()), values)
    if "categories" in column.attrs:
        return _coded(column[part], file[column.attrs["categories"]][:])
    return _as_text(column[part])


def _coded(codes: np.ndarray, categories: Any) -> pa.Array:
    """Categories by their codes; NULL for -1."""
    if isinstance(categories, h5py.Group):  # of texts of which some may be missing
        categories = categories["values"]
    texts = _as_text(np.asarray(categories[:]))
    codes = np.asarray(codes).astype(np.int64)
    return texts.take(pa.array(np.maximum(codes, 0), mask=codes < 0))


def _as_text(values: np.ndarray) -> pa.Array:
    if values.dtype.kind in "SUO":
        array = pa.array(_texts(values), pa.string())
    elif values.dtype.kind == "V" or values.dtype.kind == "c":
        raise ValueError(f"a column of type {values.dtype}")
    else:
        array = pa.array(values, from_pandas=True).cast(pa.string())
    return pc.if_else(pc.is_in(array, pa.array(sorted(MISSING))), pa.scalar(None, pa.string()), array)


def _names(file: h5py.File, place: tuple[str, str], part: slice = slice(None)) -> list[str]:
    path, column = place
    values = file[path][part]
    return _texts(values[column] if column else values)


def _texts(values: np.ndarray) -> list[str]:
    return [_text(value) for value in values.tolist()]


def _text(value: Any) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)
