"""From the Parquet files of one pinned Delta version to shuffled, sharded batches. The only file that imports Petastorm.

A dataset is decoded once per rank into one block of memory (above `feed.resident_bytes`, a file on local disk that is mapped
into memory). Epochs are then exact permutations of all rows: a function of seed and epoch alone, so that neither the number
of ranks nor the layout of row groups changes which rows meet in a batch.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from genodl_spark import storage

COLUMNS = ["row_id", "x", "target", "folds"]
_BATCH_ROWS = 4096


@dataclass(frozen=True)
class Layout:
    """Shape of a dataset: rows, features per row, `dtype` of the packed values (int8 or float32), repeats of its split."""

    rows: int
    features: int
    dtype: str
    repeats: int


@dataclass(frozen=True)
class Examples:
    """A dataset in memory, by row number: x (rows, features) int8 with -1 missing or float32 with NaN missing;
    target float64 (rows,); folds int8 (rows, repeats), as in the table `examples`."""

    x: np.ndarray
    target: np.ndarray
    folds: np.ndarray

    def __len__(self) -> int:
        return len(self.target)


def read(files: list[str], layout: Layout, backend: str = "petastorm", resident_bytes: int = 2 << 30, scratch: str | None = None) -> Examples:
    """Decodes the files of a dataset (URIs, any order); every row number from 0 must be there exactly once.

    `scratch`: local folder for what does not fit `resident_bytes`. RuntimeError when rows are missing, doubled or of another width.
    """
    size = layout.rows * layout.features * np.dtype(layout.dtype).itemsize
    shape = (layout.rows, layout.features)
    x: np.ndarray
    if size > resident_bytes:
        with tempfile.NamedTemporaryFile(dir=scratch, prefix="genodl-feed-", suffix=".bin") as spill:
            spill.truncate(size)  # the mapping outlives the name: nothing is left behind by a killed process
            x = np.memmap(spill.name, layout.dtype, "r+", shape=shape)
    else:
        x = np.empty(shape, layout.dtype)
    target = np.empty(layout.rows, np.float64)
    folds = np.empty((layout.rows, layout.repeats), np.int8)
    seen = np.zeros(layout.rows, np.uint8)
    with _local(files, scratch) as local:
        for columns in _petastorm(local) if backend == "petastorm" else _pyarrow(local):
            rows = np.asarray(columns["row_id"], np.int64)
            packed = b"".join(columns["x"])
            if len(packed) != len(rows) * layout.features * np.dtype(layout.dtype).itemsize or rows.max(initial=-1) >= layout.rows:
                raise RuntimeError(f"found rows that do not fit {layout}; the dataset is damaged, run prepare again")
            x[rows] = np.frombuffer(packed, layout.dtype).reshape(len(rows), layout.features)
            target[rows] = columns["target"]
            folds[rows] = np.frombuffer(b"".join(columns["folds"]), np.int8).reshape(len(rows), layout.repeats)
            np.add.at(seen, rows, 1)
    if not (seen == 1).all():
        raise RuntimeError(f"found {int((seen == 0).sum())} rows missing and {int((seen > 1).sum())} doubled of {layout.rows}; run prepare again")
    return Examples(x, target, folds)


class _local:
    """Local paths of files; those on other filesystems are fetched, and removed on leaving."""

    def __init__(self, files: list[str], scratch: str | None) -> None:
        self.files, self.scratch, self.folder = files, scratch, ""

    def __enter__(self) -> list[str]:
        if all(storage.is_local(file) for file in self.files):
            return [storage.local_path(file) for file in self.files]
        self.folder = tempfile.mkdtemp(dir=self.scratch, prefix="genodl-feed-")
        paths = []
        for number, file in enumerate(self.files):
            paths.append(os.path.join(self.folder, f"{number}.parquet"))
            with storage.open_input(file) as source, open(paths[-1], "wb") as target:
                shutil.copyfileobj(source, target, 1 << 22)
        return paths

    def __exit__(self, *exc: object) -> None:
        if self.folder:
            shutil.rmtree(self.folder, ignore_errors=True)


def _petastorm(paths: list[str]) -> Iterator[dict[str, Any]]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)  # dozens, from what Petastorm calls in pyarrow
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        from petastorm import make_batch_reader

        # The dummy pool is the only one that neither loses rows nor changes their order (uber/petastorm, thread pool).
        with make_batch_reader(
            [f"file://{path}" for path in paths],
            schema_fields=COLUMNS,
            reader_pool_type="dummy",
            num_epochs=1,
            shuffle_row_groups=False,
        ) as reader:
            for batch in reader:
                yield batch._asdict()


def _pyarrow(paths: list[str]) -> Iterator[dict[str, Any]]:
    for path in paths:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(_BATCH_ROWS, columns=COLUMNS):
                yield {name: batch.column(name).to_pylist() if name in ("x", "folds") else batch.column(name).to_numpy() for name in COLUMNS}


def permutation(rows: int, seed: int, epoch: int) -> np.ndarray:
    """Order of the rows in one epoch, int64 (rows,)."""
    return np.random.default_rng([seed, epoch, 0xFEED]).permutation(rows)


def steps(rows: int, batch: int) -> int:
    return -(-rows // batch)


def shares(rows: int, seed: int, epoch: int, batch: int, rank: int, ranks: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Per step the row numbers of the whole batch and this rank's share of them.

    Over the ranks every row comes exactly once an epoch, and every rank has the same number of steps; the share of a short
    last batch may be empty. The whole batch is the same for any number of ranks.
    """
    order = permutation(rows, seed, epoch)
    for step in range(steps(rows, batch)):
        whole = order[step * batch : (step + 1) * batch]
        yield whole, np.array_split(whole, ranks)[rank]
