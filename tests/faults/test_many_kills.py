"""Ranks and workers killed at random moments of trainings on three hosts, twenty times in all: no training stands still
for long, and each ends as good as one that nobody disturbed."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.harness import Cluster, Result
from tests.faults.hosts import lacking
from tests.faults.test_hosts import SOON, STANDS_STILL, WORKERS, spread
from tests.faults.test_survive import SPLIT, assert_every_row, checkpoint, overlapping_classes

pytestmark = [
    pytest.mark.timeout(7200),
    pytest.mark.skipif(lacking() is not None, reason=lacking() or ""),
]

KILLS = int(os.environ.get("GENODL_TRAINING_KILLS", "20"))
PAUSE = 4  # seconds at most from when a training is seen to go on to the next kill
TIMEOUT = 3000
TRAIN = ["--procs", str(WORKERS), "--seed", "3"]
for setting in ("epochs=70", "min_steps=0", "batch=64", "ensemble=2", "checkpoint_seconds=1", f"restarts={KILLS}"):
    TRAIN += ["--set", f"train.{setting}"]
for setting in SPLIT:
    TRAIN += ["--set", setting]


@dataclass
class Disturbed:
    """A training, how often a rank and a worker were killed in it, and the longest time between two checkpoints."""

    done: Result
    ranks: int
    workers: int
    longest: float


def train(running: Cluster, lake: Path) -> Result:
    done = running.submit("train", "tumor_type", "--lake", str(lake), *TRAIN, conf=SOON, timeout=TIMEOUT)
    assert done.code == 0, done.stderr[-6000:]
    return done


def kill_one(running: Cluster, moments: random.Random) -> str | None:
    """Kills a rank, or a worker with all that it runs, which is started again; says which. None where nobody trains."""
    training = [worker for worker in range(WORKERS) if running.ranks(worker)]
    if not training:
        return None
    hit = moments.choice(training)
    if moments.random() < 0.5:
        running.kill_worker(hit)
        running.worker_process(hit).start()
        return "worker"
    for rank in running.ranks(hit):
        os.kill(rank, signal.SIGKILL)
    return "rank"


def disturbed(running: Cluster, lake: Path, kills: int, moments: random.Random) -> Disturbed:
    """Trains, and kills so often at most: each time once the training was seen to go on, and a random while later."""
    killed: list[str] = []
    longest, last, due = 0.0, frozenset[tuple[str, int]](), float("inf")
    with ThreadPoolExecutor() as pool:
        training = pool.submit(train, running, lake)
        moved = float("inf")
        while not training.done():
            now, seen = time.monotonic(), checkpoint(lake)
            if seen and seen != last:
                longest, moved, last = max(longest, now - moved), now, seen
                if due == float("inf") and len(killed) < kills:
                    due = now + moments.uniform(0, PAUSE)
            if now >= due and (what := kill_one(running, moments)):
                killed.append(what)
                due = float("inf")
            assert now - moved < STANDS_STILL, f"stands still after {len(killed)} kills, the last of a {killed[-1:]}"
            time.sleep(0.02)
        return Disturbed(training.result(), killed.count("rank"), killed.count("worker"), longest)


def test_trainings_end_as_good(wheel: Path, tmp_path: Path, record_property: Callable[[str, str], None]) -> None:
    record_property("done", f"train on three hosts: {KILLS} kills of ranks and workers at random moments")
    moments, runs = random.Random(5), list[Disturbed]()
    with spread(tmp_path / "cluster", wheel) as (running, _):
        done = running.submit("ingest", *overlapping_classes(tmp_path), "--lake", str(tmp_path / "lake"), conf=SOON)
        assert done.code == 0, done.stderr
        shutil.copytree(tmp_path / "lake", tmp_path / "calm")
        calm: dict[str, Any] = train(running, tmp_path / "calm").report["metrics"]
        while (left := KILLS - sum(run.ranks + run.workers for run in runs)) > 0:
            lake = tmp_path / f"lake-{len(runs)}"
            shutil.copytree(tmp_path / "lake", lake)
            runs.append(disturbed(running, lake, left, moments))
            assert runs[-1].ranks + runs[-1].workers > 0
            metrics = runs[-1].done.report["metrics"]
            assert metrics["validation_loss"] == pytest.approx(calm["validation_loss"], rel=1e-2)
            assert metrics["epochs"] == calm["epochs"]
            assert_every_row(metrics, calm["rows_per_epoch_min"])
            assert not any((lake / "_staging").glob("*"))
    away = max(abs(run.done.report["metrics"]["validation_loss"] / calm["validation_loss"] - 1) for run in runs)
    ranks, workers = sum(run.ranks for run in runs), sum(run.workers for run in runs)
    record_property(
        "came out",
        f"{ranks} ranks and {workers} workers killed, in one training after another: {len(runs)} in all; "
        f"stood still for {max(run.longest for run in runs):.0f} s at most, loss {100 * away:.2g}% away at most",
    )
