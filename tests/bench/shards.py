"""Rows in shards beside rows that every machine has: `make bench-feed`.

Feed: three hosts share batches of 512 over the examples of feed.py (200,000 of 1,000 bytes, zstd), without learning
anything from them. Each host is a process; one after the other has this machine's cores for itself, then all at once.
Rows/s are those of all hosts together, as the slowest of them allows: of ten epochs, from opening the files to the last
batch, and of an epoch after the first.

Loop: the same with an MLP behind it, as three ranks of Horovod, all at once.

Loss: a network of 8 seeds on rows that lie by class and by batch in 60 files, so that those of a file are much alike,
under exact permutations, in shards, and, to see what a bad order does, file by file. The number of ranks changes no
batch in either (tests/learning/training), so each is trained by one.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from genodl_spark.learning import feed, heads, shards
from genodl_spark.learning.settings import Train
from genodl_spark.learning.training import plan, rank

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "bench"))
HOSTS, EPOCHS, BATCH, SEED = 3, 10, 512, 1


def host(kind: str, files: list[str], layout: feed.Layout, number: int, readers: int, busy: bool) -> dict[str, float]:
    """One host's: seconds of all epochs with opening the files, and the mean of one after the first; rows; and
    bytes that its process grew by at most."""
    import torch

    clock = time.process_time if busy else time.perf_counter
    torch.from_numpy(np.zeros(1))
    before = psutil.Process().memory_info().rss
    began, seconds, seen = clock(), [], np.zeros(layout.rows, np.uint8)
    data = (shards.read if kind == "shards" else feed.read)(
        files, layout, *([SEED] if kind == "shards" else []), "pyarrow", readers=readers
    )
    for epoch in range(EPOCHS):
        started = clock()
        if isinstance(data.x, shards.Shard):
            data.x.turn(epoch, number, HOSTS, epoch + 1 < EPOCHS)
            order = data.x.blocks.order(np.ones(layout.rows, bool), SEED, epoch)
            steps = shards.shares(order, BATCH, data.x.held)
        else:
            steps = feed.shares(np.arange(layout.rows), SEED, epoch, BATCH, number, HOSTS)
        for _, _, mine in steps:
            torch.from_numpy(data.x[mine])
            seen[mine] += 1
        seconds.append(clock() - started)
    whole = clock() - began
    if isinstance(data.x, shards.Shard):
        data.x.close()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    epoch_seconds = statistics.mean(seconds[1:])
    return {"whole": whole, "epoch": epoch_seconds, "rows": int(seen.sum(dtype=np.int64)), "grown": grown}


def hosts(kind: str, work: list[Any], at_once: bool) -> dict[str, float]:
    """Rows/s of all hosts together, and bytes that the largest grew by."""
    command = [sys.executable, __file__, "--host"]
    started: list[subprocess.Popen[str]] = []
    lines = []
    for number in range(HOSTS):
        started.append(
            subprocess.Popen([*command, json.dumps([kind, *work, number])], stdout=subprocess.PIPE, text=True)
        )
        if not at_once:
            lines.append(started[-1].communicate()[0])
    lines = lines or [process.communicate()[0] for process in started]
    found = [json.loads(line.splitlines()[-1]) for line in lines]
    rows = sum(one["rows"] for one in found)
    assert rows == EPOCHS * work[1], "a row came not once"
    return {
        "whole": rows / max(one["whole"] for one in found),
        "epoch": rows / EPOCHS / max(one["epoch"] for one in found),
        "grown": max(one["grown"] for one in found),
    }


def feeds(repeat: int, rows: int, width: int, files: int, busy: bool) -> None:
    from feed import write  # type: ignore[import-not-found]

    print(f"{HOSTS} hosts, {rows:,} x {width:,} uint8 in {files} files, batches of {BATCH}, {EPOCHS} epochs\n")
    print("| hosts | feed | rows/s, all epochs | of the resident | rows/s, an epoch | of the resident | MB a host |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory(prefix="genodl-bench-shards-") as folder:
        paths, layout = write(Path(folder), rows, width, 4, files)
        work = [paths, layout.rows, layout.features, max(1, len(os.sched_getaffinity(0))), busy]
        for at_once in (False,) if busy else (False, True):
            found: dict[str, list[dict[str, float]]] = {"resident": [], "shards": []}
            for _ in range(repeat):
                for kind, rates in found.items():
                    rates.append(hosts(kind, work, at_once))
            for kind, rates in found.items():
                cells = []
                for part in ("whole", "epoch"):
                    ratio = [one[part] / other[part] for one, other in zip(rates, found["resident"], strict=True)]
                    cells += [
                        f"{statistics.median(one[part] for one in rates):,.0f}",
                        f"{statistics.median(ratio):.2f}",
                    ]
                cells.append(f"{statistics.median(one['grown'] for one in rates) / 1e6:,.0f}")
                print(f"| {'at once' if at_once else 'one by one'} | {kind} | {' | '.join(cells)} |", flush=True)


def alike(folder: Path, rows: int = 12_000, width: int = 60, files: int = 60) -> plan.Job:
    """Rows by class, and within by batch, of which each moves all features: a file is of one class and few batches."""
    generator = np.random.default_rng(5)
    target = np.sort(generator.integers(0, 4, rows)).astype(float)
    batches = np.arange(rows) * 120 // rows
    means, moves = generator.normal(0, 0.25, (4, width)), generator.normal(0, 1, (120, width))
    x = (means[target.astype(int)] + moves[batches] + generator.normal(size=(rows, width))).astype(np.float32)
    codes = generator.choice([0, 0, 0, 1], rows).astype(np.int8)
    paths = []
    for number, part in enumerate(np.array_split(np.arange(rows), files)):
        columns = {
            "row_id": pa.array(part),
            "x": pa.array([row.tobytes() for row in x[part]], pa.binary()),
            "target": target[part],
            "folds": pa.array([code.tobytes() for code in codes[part]], pa.binary()),
        }
        paths.append(f"file://{folder}/{number}.parquet")
        pq.write_table(pa.table(columns), f"{folder}/{number}.parquet")
    options = {
        "ensemble": 1,
        "epochs": 12,
        "min_steps": 0,
        "batch": 128,
        "checkpoint_seconds": 1e9,
        "learning_rate": 3e-3,
    }
    return plan.Job(
        paths,
        feed.Layout(rows, width, "float32", 1),
        "pyarrow",
        1 << 30,
        heads.one("label", [f"c{i}" for i in range(4)]),
        0,
        "none",
        1.0,
        0,
        {"kind": "mlp", "hidden": [64, 32], "dropout": 0.1},
        Train(**options),
        0,
        f"{folder}/staging",
    )


def by_file(self: shards.Blocks, chosen: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """One file after the other, each permuted: the order that a feed has which keeps none but the open file."""
    generator = np.random.default_rng([seed, epoch])
    blocks = generator.permutation(len(self))
    return np.concatenate([generator.permutation(self.rows[block][chosen[self.rows[block]]]) for block in blocks])


def mix(job: plan.Job, name: str) -> float:
    """Standard deviation of the first class's share of a batch, over batches of ten epochs."""
    data = shards.read(job.files, job.layout, job.seed, job.backend)
    assert isinstance(data.x, shards.Shard)
    blocks, learns, batch = data.x.blocks, data.folds[:, 0] == 0, job.options.batch
    rows, order = np.flatnonzero(learns), by_file if name == "file by file" else shards.Blocks.order
    found = []
    for epoch in range(10):
        if name == "exact permutation":
            one = rows[feed.permutation(len(rows), job.seed, epoch)]
        else:
            one = order(blocks, learns, job.seed, epoch)
        whole = one[: len(one) // batch * batch].reshape(-1, batch)
        found += (data.target[whole, 0] == 0).mean(1).tolist()
    return float(np.std(found))


def losses(seeds: int) -> None:
    found: dict[str, list[tuple[float, float]]] = {}
    mixes: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="genodl-bench-shards-") as folder:
        job = alike(Path(folder))
        for seed in range(seeds):
            for name in ("exact permutation", "shards", "file by file"):
                one = replace(job, seed=seed, shard=name != "exact permutation")
                order = by_file if name == "file by file" else shards.Blocks.order
                with mock.patch.object(shards.Blocks, "order", order):
                    last = rank.run_alone(one)["history"][-1]
                mixes.setdefault(name, mix(job, name))
                found.setdefault(name, []).append((float(np.mean(last["train"])), float(np.mean(last["validation"]))))
    print(f"\nLosses of {seeds} seeds after {job.options.epochs} epochs: mean, standard deviation\n")
    print("| order | training | validation | share of a class in a batch: deviation |\n| --- | --- | --- | --- |")
    for name, pairs in found.items():
        cells = [f"{np.mean(part):.4f}, {np.std(part, ddof=1):.4f}" for part in zip(*pairs, strict=True)]
        print(f"| {name} | {' | '.join(cells)} | {mixes[name]:.4f} |")


def loops(repeat: int) -> None:
    """Rows/s of the training loop of three ranks."""
    from genodl_spark.learning.training import launch

    print(f"\nTraining, an MLP over 500 features, {HOSTS} ranks that share {len(os.sched_getaffinity(0))} cores\n")
    print("| feed | rows/s | of the resident |\n| --- | --- | --- |")
    found: dict[str, list[float]] = {"resident": [], "shards": []}
    with tempfile.TemporaryDirectory(prefix="genodl-bench-shards-") as folder:
        job = alike(Path(folder), 30_000, 500)
        options = job.options.model_copy(update={"launcher": "horovodrun", "batch": 384, "epochs": 6})
        for _ in range(repeat):
            for name, rates in found.items():
                one = replace(job, options=options, shard=name == "shards")
                rates.append(launch.launch(None, one, HOSTS)["rows_per_second"])  # type: ignore[arg-type]
    for name, rates in found.items():
        ratio = statistics.median(one / other for one, other in zip(rates, found["resident"], strict=True))
        print(f"| {name} | {statistics.median(rates):,.0f} | {ratio:.2f} |", flush=True)


def main() -> int:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--rows", type=int, default=200_000)
    made.add_argument("--width", type=int, default=1000)
    made.add_argument("--files", type=int, default=40)
    made.add_argument("--repeat", type=int, default=5)
    made.add_argument("--seeds", type=int, default=8)
    made.add_argument("--parts", default="feed,loop,loss")
    made.add_argument("--busy", action="store_true", help="the feed by CPU seconds: where others use the machine")
    made.add_argument("--host", help=argparse.SUPPRESS)
    a = made.parse_args()
    if a.host:
        kind, files, rows, features, readers, busy, number = json.loads(a.host)
        print(json.dumps(host(kind, files, feed.Layout(rows, features, "uint8", 1), number, readers, busy)))
        return 0
    print(f"{len(os.sched_getaffinity(0))} cores, {platform.machine()}; {date.today()}")
    if "feed" in a.parts:
        feeds(a.repeat, a.rows, a.width, a.files, a.busy)
    if "loop" in a.parts and not a.busy:
        loops(a.repeat)
    if "loss" in a.parts:
        losses(a.seeds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
