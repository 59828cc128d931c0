"""The feed beside a bare pyarrow scan and Petastorm's own loaders, on the same files
in the same run: `make bench-feed`.

The files hold 200,000 examples of 1,000 bytes (base codes 0 to 3; with --values 256 any byte), row groups of 5,000,
zstd. They are read from the page cache; nothing is decoded before the clock starts. The scan reads row groups
in the order of the files and does nothing with them. The feed decodes them and gives torch batches in an exact
global permutation; its first epoch is from opening the files to the last batch, its second is the batches alone.
Rounds alternate; medians count.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import platform
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from genodl_spark.learning import feed

GROUP = 5000
LOADER_ROWS = 20_000  # Petastorm's own loaders are read for so many rows: all of them would take minutes


def write(folder: Path, rows: int, width: int, values: int, files: int) -> tuple[list[str], feed.Layout]:
    """Examples as `prepare` writes them: rows in order, one row group per 5,000."""
    generator = np.random.default_rng(7)
    paths = []
    for number, part in enumerate(np.array_split(np.arange(rows), files)):
        x = generator.integers(0, values, (len(part), width), dtype=np.uint8)
        packed = pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(width), len(part), [None, pa.py_buffer(x.tobytes())]
        ).cast(pa.binary())
        folds = pa.array([b"\0"] * len(part), pa.binary())
        columns = {"row_id": pa.array(part, pa.int64()), "x": packed, "target": part % 2 * 1.0, "folds": folds}
        paths.append(folder / f"{number:03d}.parquet")
        pq.write_table(pa.table(columns), paths[-1], row_group_size=GROUP, compression="zstd", use_dictionary=False)
    return [f"file://{path}" for path in paths], feed.Layout(rows, width, "uint8", 1)


def scan(files: list[str]) -> int:
    rows = 0
    for path in files:
        with pq.ParquetFile(path.removeprefix("file://")) as file:
            for group in range(file.num_row_groups):
                rows += file.read_row_group(group, columns=feed.COLUMNS, use_threads=False).num_rows
    return rows


def epoch(data: feed.Examples, number: int, batch: int) -> int:
    """One epoch of torch batches in a permutation of all rows; returns the rows that came."""
    import torch

    rows, seen = 0, np.zeros(len(data), np.uint8)
    for _, _, mine in feed.shares(np.arange(len(data)), 1, number, batch, 0, 1):
        x = torch.from_numpy(data.x[mine])
        rows += len(x)
        seen[mine] += 1
    assert (seen == 1).all(), "a row came not once"
    return rows


def own_loader(files: list[str], width: int, rows: int, batched: bool) -> int:
    """Petastorm's torch loaders with a shuffling queue, as its documentation has them."""
    from petastorm import make_batch_reader
    from petastorm.pytorch import BatchedDataLoader, DataLoader
    from petastorm.transform import TransformSpec

    def decode(frame: object) -> object:
        frame["x"] = frame["x"].map(lambda packed: np.frombuffer(packed, np.uint8))  # type: ignore[index]
        return frame[["row_id", "x", "target"]]  # type: ignore[index]

    spec = TransformSpec(decode, edit_fields=[("x", np.uint8, (width,), False)], removed_fields=["folds"])
    loader = BatchedDataLoader if batched else DataLoader
    options = {"reader_pool_type": "thread", "workers_count": 2, "num_epochs": 1, "seed": 1, "transform_spec": spec}
    found = 0
    reader = make_batch_reader(files, schema_fields=feed.COLUMNS, **options)
    with reader, loader(reader, batch_size=512, shuffling_queue_capacity=20_000) as batches:
        for batch in batches:
            found += len(batch["row_id"])
            if found >= rows:
                break
    return found


@contextlib.contextmanager
def cores(number: int) -> Iterator[None]:
    """This process on the first `number` CPUs."""
    all_of_them = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(all_of_them)[:number])
    try:
        yield
    finally:
        os.sched_setaffinity(0, all_of_them)


def rate(work: Callable[[], int]) -> float:
    started = time.perf_counter()
    rows = work()
    return rows / (time.perf_counter() - started)


def main() -> int:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--rows", type=int, default=200_000)
    made.add_argument("--width", type=int, default=1000)
    made.add_argument("--values", type=int, default=4)
    made.add_argument("--files", type=int, default=8)
    made.add_argument("--batch", type=int, default=512)
    made.add_argument("--repeat", type=int, default=5)
    a = made.parse_args()
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    available = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="genodl-bench-feed-") as folder:
        files, layout = write(Path(folder), a.rows, a.width, a.values, a.files)
        size = sum(Path(path.removeprefix("file://")).stat().st_size for path in files)
        found: dict[str, list[float]] = {}

        def fed(backend: str, readers: int) -> None:
            data: list[feed.Examples] = []

            def first() -> int:
                data.append(feed.read(files, layout, backend, readers=readers))
                return epoch(data[0], 0, a.batch)

            name = f"feed, {backend}, {readers} thread{'s' * (readers > 1)}"
            found.setdefault(f"{name}: first epoch", []).append(rate(first))
            found.setdefault(f"{name}: second epoch", []).append(rate(lambda: epoch(data[0], 1, a.batch)))

        scan(files)  # into the page cache
        for round_ in range(a.repeat):
            print(f"round {round_ + 1} of {a.repeat}", file=sys.stderr, flush=True)
            with cores(1):
                found.setdefault("pyarrow scan, unshuffled", []).append(rate(lambda: scan(files)))
                for backend in ("petastorm", "pyarrow"):
                    fed(backend, 1)
            if available > 1:
                for backend in ("petastorm", "pyarrow"):
                    fed(backend, 2)
        with contextlib.redirect_stdout(io.StringIO()):
            for batched, name in ((True, "petastorm BatchedDataLoader"), (False, "petastorm DataLoader")):
                found[name] = [rate(lambda batched=batched: own_loader(files, a.width, LOADER_ROWS, batched))]
    scanned = found["pyarrow scan, unshuffled"]
    what = f"{a.rows:,} x {a.width:,} uint8, values below {a.values}, {size / 1e6:.0f} MB of Parquet"
    print(f"{what}; {available} cores, {platform.machine()}; {date.today()}\n")
    print("| reader | rows/s | of the pyarrow scan |\n| --- | --- | --- |")
    for name, rates in found.items():
        ratio = statistics.median(r / s for r, s in zip(rates, scanned, strict=False))
        print(f"| {name} | {statistics.median(rates):,.0f} | {ratio:.2f} |")
    print(
        "\nThe scan and the feeds of one thread are on one core. Petastorm's own loaders keep no exact permutation: "
        "a queue of 20,000 rows."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
