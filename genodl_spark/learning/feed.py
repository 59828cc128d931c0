"""From the Parquet files of one pinned Delta version to shuffled, sharded batches.
The only file that imports Petastorm.

A dataset is decoded once per machine into one block: memory, or above `feed.resident_bytes` a file on local disk
that all ranks of the machine map. Epochs are then exact permutations of all rows: a function of seed and epoch alone,
so that neither the number of ranks nor the layout of row groups nor the timing of readers changes which rows meet
in a batch, and (epoch, step) is all that is needed to go on in the middle of an epoch. Where one machine is too small
for that, shards.py has each rank decode a part.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import math
import os
import queue
import shutil
import stat
import tempfile
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Generic, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from genodl_spark.core import packing, storage
from genodl_spark.core.errors import MEND, Damaged
from genodl_spark.lake.files import opened

if TYPE_CHECKING:
    from genodl_spark.learning.shards import Shard

COLUMNS = ["row_id", "x", "target", "folds"]
TARGETS = "targets"  # in place of `target` where a row has more than one number, or none
T = TypeVar("T")


@dataclass(frozen=True)
class Layout:
    """Shape of a dataset: rows, features per row, `dtype` of the packed values, repeats of its split; packed values per
    row, `width`, where they are not one for each feature; `entries` of all rows together, where rows are sparse; and
    numbers of a row's target."""

    rows: int
    features: int
    dtype: str
    repeats: int
    width: int = 0
    entries: int = 0
    targets: int = 1

    @property
    def values(self) -> int:
        return self.width or self.features

    @property
    def columns(self) -> list[str]:
        """Columns of `examples` that hold it."""
        return [target_column(self.targets) if name == "target" else name for name in COLUMNS]


def target_column(numbers: int) -> str:
    """The column of `examples` that holds targets of so many numbers."""
    return "target" if numbers == 1 else TARGETS


@dataclass(frozen=True)
class Examples:
    """A dataset in memory, by row number: x (rows, values) int8 with -1 missing or float32 with NaN missing, or sparse
    or in shards, where x[rows] makes these rows whole; target float64 (rows, targets), NaN for a number that a row
    lacks; folds int8 (rows, repeats), as in the table `examples`."""

    x: packing.Rows | Shard
    target: np.ndarray
    folds: np.ndarray

    def __len__(self) -> int:
        return len(self.target)


def read(
    files: list[str],
    layout: Layout,
    backend: str = "petastorm",
    resident_bytes: int = 2 << 30,
    scratch: str | None = None,
    readers: int = 1,
) -> Examples:
    """Decodes the files of a dataset (URIs, any order); every row number from 0 must be there exactly once.

    `scratch`: local folder for what does not fit `resident_bytes`. `readers`: threads, each with files of its own.
    RuntimeError when rows are missing, doubled or of another width.
    """

    def decoded(block: _Block) -> None:
        block.seen[:] = 0
        decode(files, layout.columns, block.put, backend, scratch, readers)
        check_once(block.seen)
        if block.taken != layout.entries:
            raise RuntimeError(
                f"found {block.taken} entries of {layout.entries}; the dataset is damaged, run prepare again"
            )

    if size(layout) <= resident_bytes:
        block = _Block(np.empty(_Block.bytes(layout), np.uint8), layout)
        decoded(block)
        return Examples(block.x, block.target, block.folds)
    spill = _Spill(scratch or tempfile.gettempdir(), files, layout)
    try:
        block = spill.block(decoded)
    except BaseException:
        spill.close()
        raise
    found = Examples(block.x, block.target, block.folds)
    weakref.finalize(found, spill.close)  # the mapping outlives the file's name
    return found


def check_once(seen: np.ndarray) -> None:
    """RuntimeError unless each of some rows was seen once; `seen` uint8 (rows,): how often."""
    if not (seen == 1).all():
        missing, doubled = int((seen == 0).sum()), int((seen > 1).sum())
        raise RuntimeError(f"found {missing} rows missing and {doubled} doubled of {len(seen)}; run prepare again")


def size(layout: Layout) -> int:
    """Bytes of a decoded dataset."""
    return _Block.bytes(layout)


def room(shape: tuple[int, ...], dtype: Any, spilled: bool, scratch: str | None = None) -> np.ndarray:
    """Zeros: in memory, which is taken as it is written to, or in a file without a name in a local folder."""
    if not spilled or 0 in shape:
        return np.zeros(shape, dtype)
    with tempfile.TemporaryFile(dir=scratch) as file:
        storage.reserve(file, math.prod(shape) * np.dtype(dtype).itemsize, scratch or tempfile.gettempdir())
        return np.memmap(file, dtype, "r+", shape=shape)


class _Spill:
    """A decoded dataset in a file on local disk, shared by all processes of this user
    on the machine that want the same one.

    The first to lock the file fills it, the others wait for that; every process holds a shared lock as long
    as it reads, and the last one removes the file. What a killed process leaves is removed by whoever comes next.
    Folder and file are this user's alone.
    """

    def __init__(self, folder: str, files: list[str], layout: Layout) -> None:
        self.layout = layout
        self._folder = storage.private_folder(folder, "genodl-feed")
        self._digest = hashlib.sha256(repr((sorted(files), layout)).encode()).hexdigest()[:20]
        for name in os.listdir(self._folder):
            if not name.startswith(self._digest):
                _remove_unused(os.path.join(self._folder, name))
        self._whole = _Block.bytes(layout) + 1  # the last byte comes when all others are there
        self._file, self._fresh = self._locked()

    def _opened(self) -> BinaryIO:
        """The file under the first name that is free, or taken by what such a process has made:
        a plain file, without a second name elsewhere."""
        for number in range(100):
            self.path = os.path.join(self._folder, f"{self._digest}-{number}.bin")
            with contextlib.suppress(OSError):
                file = os.fdopen(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600), "r+b")
                found = os.fstat(file.fileno())
                if (stat.S_IFMT(found.st_mode), stat.S_IMODE(found.st_mode), found.st_uid) == (
                    stat.S_IFREG,
                    0o600,
                    os.getuid(),
                ) and found.st_nlink < 2:
                    return file
                file.close()
        raise RuntimeError(f"found no file that can be written in {self._folder}; expected one, empty it")

    def _locked(self) -> tuple[BinaryIO, bool]:
        """The file, locked: alone where it is to be filled, else together with its other readers."""
        while True:
            file = self._opened()
            fresh = True
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:  # it is read, or being filled: then this waits
                fcntl.flock(file, fcntl.LOCK_SH)
                fresh = False
            filled = os.fstat(file.fileno()).st_size == self._whole
            with contextlib.suppress(FileNotFoundError):  # removed meanwhile: another file has the name, or none
                if os.lstat(self.path).st_ino == os.fstat(file.fileno()).st_ino and (fresh or filled):
                    return file, not filled
            file.close()

    def block(self, fill: Callable[[_Block], None]) -> _Block:
        size = self._whole - 1
        if self._fresh:
            self._file.truncate(0)
            storage.reserve(self._file, size, self.path)
        block = _Block(np.memmap(self.path, np.uint8, "r+" if self._fresh else "r", shape=(size,)), self.layout)
        if self._fresh:
            fill(block)
            self._file.truncate(self._whole)
        fcntl.flock(self._file, fcntl.LOCK_SH)
        return block

    def close(self) -> None:
        self._file.close()
        _remove_unused(self.path)


def _remove_unused(path: str) -> None:
    """Removes a spilled dataset that no process has locked."""
    with (
        contextlib.suppress(OSError),
        os.fdopen(os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK), "r+b") as file,
    ):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(path)


class _Block:
    """One run of bytes that holds target, x, folds and how often each row was seen.
    Entries of sparse rows stand in the order in which they came."""

    def __init__(self, memory: np.ndarray, layout: Layout) -> None:
        self.layout = layout
        at = 0
        found = []
        for dtype, shape in self._parts(layout):
            end = at + int(np.prod(shape)) * np.dtype(dtype).itemsize
            found.append(memory[at:end].view(dtype).reshape(shape))
            at = end
        self.target, *x, self.folds, self.seen = found
        self.x: packing.Rows = (
            packing.SparseRows(x[2], x[0], x[1], layout.values) if packing.is_sparse(layout.dtype) else x[0]
        )
        self.taken = 0  # of the entries
        self._taking = threading.Lock()

    @staticmethod
    def _parts(layout: Layout) -> list[tuple[Any, tuple[int, ...]]]:
        rows = layout.rows  # in the order of their alignment
        x: list[tuple[Any, tuple[int, ...]]] = [(layout.dtype, (rows, layout.values))]
        if packing.is_sparse(layout.dtype):
            x = [("int64", (rows,)), ("int64", (rows,)), (packing.entry(layout.dtype), (layout.entries,))]
        return [("float64", (rows, layout.targets)), *x, ("int8", (rows, layout.repeats)), ("uint8", (rows,))]

    @classmethod
    def bytes(cls, layout: Layout) -> int:
        return sum(int(np.prod(shape)) * np.dtype(dtype).itemsize for dtype, shape in cls._parts(layout))

    def put(self, table: pa.Table | pa.RecordBatch) -> None:
        """Rows (row_id, x, target, folds) to their places."""
        layout = self.layout
        rows = table.column("row_id").to_numpy()
        if rows.max(initial=-1) >= layout.rows:
            raise RuntimeError(f"found rows that do not fit {layout}; the dataset is damaged, run prepare again")
        x = packed(table.column("x"), layout.dtype, layout.values)
        place = run(rows)
        if isinstance(self.x, np.ndarray):
            self.x[place] = x
        else:
            self._put_entries(place, x, self.x)
        self.target[place] = targets(table, layout.targets)
        self.folds[place] = packed(table.column("folds"), "int8", layout.repeats)
        np.add.at(self.seen, rows, 1)

    def _put_entries(self, place: Any, found: packing.SparseRows, to: packing.SparseRows) -> None:
        with self._taking:
            start, self.taken = self.taken, self.taken + len(found.entries)
        if start + len(found.entries) > len(to.entries):
            raise RuntimeError(f"found more than {len(to.entries)} entries; the dataset is damaged, run prepare again")
        to.entries[start : start + len(found.entries)] = found.entries
        to.starts[place], to.counts[place] = start + found.starts, found.counts


def run(places: np.ndarray) -> Any:
    """Places as a slice where they are one run, as they mostly are: rows of a training file are in order."""
    n = len(places)
    if n and places[-1] - places[0] == n - 1 and (np.diff(places) == 1).all():
        return slice(int(places[0]), int(places[0]) + n)
    return places


def targets(table: pa.Table | pa.RecordBatch, numbers: int) -> np.ndarray:
    """Targets of rows, float64 (rows, numbers)."""
    found: np.ndarray = (
        table.column("target").to_numpy()[:, None]
        if numbers == 1
        else packed(table.column(TARGETS), "float64", numbers)
    )
    return found


def packed(column: pa.ChunkedArray | pa.Array, dtype: str, width: int) -> Any:
    """`packing.packed`. RuntimeError where they are not that."""
    try:
        return packing.packed(column, dtype, width)
    except ValueError as error:
        raise RuntimeError(f"{error}; the dataset is damaged, run prepare again") from error


def decode(
    files: list[str],
    columns: list[str],
    put: Callable[[pa.Table], None],
    backend: str,
    scratch: str | None,
    readers: int,
) -> None:
    """Hands all rows of files to `put`, some at a time, from as many threads as there are readers."""
    tables = _petastorm if backend == "petastorm" else _pyarrow

    def decode_some(paths: list[str]) -> None:
        try:
            for table in tables(paths, columns):
                put(table)
        except pa.ArrowException as error:
            raise Damaged(
                f"found training rows that cannot be decoded ({str(error).splitlines()[0][:200]}); {MEND}", paths[0]
            ) from error

    with _local(files, scratch) as local:
        for path in local:  # Petastorm opens files itself
            with opened(path, None):
                pass
        shares = [local[i::readers] for i in range(min(readers, len(local)))]
        if len(shares) < 2:
            decode_some(local)
            return
        with ThreadPoolExecutor(len(shares), "feed") as pool:
            list(pool.map(decode_some, shares))


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


def _petastorm(paths: list[str], columns: list[str]) -> Iterator[pa.Table]:
    """Row groups as Petastorm's reader loads them, before it makes an object of every value.

    Its dummy pool is the only one that neither loses rows nor changes their order (uber/petastorm, thread pool):
    where several threads read, each has a reader of its own.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)  # dozens, from what Petastorm calls in pyarrow
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        from petastorm.arrow_reader_worker import ArrowReaderWorker
        from petastorm.fs_utils import get_filesystem_and_path_or_paths
        from petastorm.reader import Reader
        from petastorm.workers_pool import EmptyResultError
        from petastorm.workers_pool.dummy_pool import DummyPool

        class Tables:
            batched_output = True

            def read_next(self, pool: Any, schema: Any, ngram: Any) -> pa.Table:
                try:
                    return pool.get_results()
                except EmptyResultError:
                    raise StopIteration from None

        class TableWorker(ArrowReaderWorker):  # type: ignore[misc]
            new_results_queue_reader = Tables

        filesystem, local = get_filesystem_and_path_or_paths(
            [f"file://{path}" for path in paths], hdfs_driver="libhdfs3"
        )
        reader = Reader(
            filesystem,
            local,
            schema_fields=columns,
            worker_class=TableWorker,
            reader_pool=DummyPool(),
            shuffle_row_groups=False,
            num_epochs=1,
            is_batched_reader=True,
        )
        try:
            yield from reader
        finally:  # its own exit prints to standard output, which is the run report's
            reader.stop()
            reader.join()


def _pyarrow(paths: list[str], columns: list[str]) -> Iterator[pa.Table]:
    for path in paths:
        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                yield file.read_row_group(group, columns=columns, use_threads=False)


def permutation(rows: int, seed: int, epoch: int) -> np.ndarray:
    """Order of the rows in one epoch, int64 (rows,)."""
    return np.random.default_rng([seed, epoch, 0xFEED]).permutation(rows)


def steps(rows: int, batch: int) -> int:
    return -(-rows // batch)


def shares(
    rows: np.ndarray, seed: int, epoch: int, batch: int, rank: int, ranks: int, first: int = 0
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Per step its number, the row numbers of the whole batch, and this rank's share of them; from step `first` on.

    `rows` int64 (n,): numbers of the rows of an epoch. Over the ranks every one of them comes exactly once an epoch,
    and every rank has the same number of steps; the share of a short last batch may be empty.
    The whole batch is the same for any number of ranks.
    """
    order = rows[permutation(len(rows), seed, epoch)]
    for step in range(first, steps(len(rows), batch)):
        whole = order[step * batch : (step + 1) * batch]
        yield step, whole, np.array_split(whole, ranks)[rank]


class Prefetch(Generic[T]):
    """Items made by a thread, `ahead` of them at most before they are asked for; 0 makes each when it is asked for.

    `waited`: seconds that the reader stood still for them. An error in making an item is raised
    where the item is asked for.
    """

    def __init__(self, items: Iterable[T], ahead: int) -> None:
        self.waited = 0.0
        self._items = iter(items)
        self._queue: queue.Queue[tuple[str, Any]] | None = None
        if ahead:
            self._queue = queue.Queue(ahead)
            self._ended = threading.Event()
            self._thread = threading.Thread(target=self._fill, name="feed", daemon=True)
            self._thread.start()

    def _fill(self) -> None:
        assert self._queue is not None
        try:
            for item in self._items:
                if not self._put("item", item):
                    return
            self._put("end", None)
        except BaseException as error:
            self._put("error", error)

    def _put(self, kind: str, value: Any) -> bool:
        assert self._queue is not None
        while not self._ended.is_set():
            try:
                self._queue.put((kind, value), timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def __iter__(self) -> Iterator[T]:
        while True:
            started = time.perf_counter()
            kind, value = self._next()
            self.waited += time.perf_counter() - started
            if kind == "error":
                raise value
            if kind == "end":
                return
            yield value

    def _next(self) -> tuple[str, Any]:
        if self._queue is not None:
            return self._queue.get()
        for item in self._items:
            return "item", item
        return "end", None

    def close(self) -> None:
        if self._queue is not None:
            self._ended.set()
            self._thread.join()
