"""Training goes on after kill -9 of one rank, or of a whole worker: the same command,
on what is left, to the same model."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from deltalake import DeltaTable

from tests.cluster.harness import Cluster, Result, cluster

pytestmark = pytest.mark.timeout(5400)

SAMPLES, GENES = 600, 40
TIMEOUT = 1200  # seconds of one training, two launches included, on a machine that has other work
SETTINGS = ["train.epochs=30", "train.min_steps=0", "train.batch=8", "train.ensemble=2"]  # half a minute of small steps
SPLIT = ["split.train=0.7", "split.validation=0.15", "split.test=0.15"]
RESTARTS = ["train.checkpoint_seconds=1", "train.restarts=3"]
TRAIN = [
    "--procs",
    "2",
    "--seed",
    "3",
    *(part for setting in [*SPLIT, *SETTINGS, *RESTARTS] for part in ("--set", setting)),
]


@dataclass(frozen=True)
class Calm:
    """A lake with its samples but no model, the rows that train, and the metrics of a run that nobody disturbed."""

    lake: Path
    rows: int
    metrics: dict[str, Any]


def train(running: Cluster, lake: Path) -> Result:
    return running.submit("train", "tumor_type", "--lake", str(lake), *TRAIN, timeout=TIMEOUT)


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Calm:
    folder = tmp_path_factory.mktemp("calm")
    source = overlapping_classes(folder)
    with cluster(folder / "cluster", wheel) as running:
        done = running.submit("ingest", *source, "--lake", str(folder / "lake"))
        assert done.code == 0, done.stderr
        shutil.copytree(folder / "lake", folder / "trained")
        done = train(running, folder / "trained")
    assert done.code == 0, done.stderr
    assert done.report["metrics"]["restarts"] == 0
    roles = DeltaTable(str(folder / "trained" / "splits")).to_pyarrow_table()["role"].to_pylist()
    rows = roles.count("train")
    assert rows == pytest.approx(0.7 * SAMPLES, abs=2)
    assert_every_row(done.report["metrics"], rows)
    return Calm(folder / "lake", rows, done.report["metrics"])


def overlapping_classes(folder: Path) -> list[str]:
    """Arguments of an ingest of two overlapping classes, so that the loss on the validation rows stays well above 0."""
    generator = np.random.default_rng(0)
    second = generator.random(SAMPLES) < 0.5
    values = generator.normal(size=(GENES, SAMPLES)) + 0.7 * second * (np.arange(GENES) < 6)[:, None]
    samples = [f"s{i:03d}" for i in range(SAMPLES)]
    lines = [
        "\t".join(["gene", *samples]),
        *("\t".join([f"g{g}", *(f"{v:.3f}" for v in row)]) for g, row in enumerate(values)),
    ]
    (folder / "m.tsv").write_text("\n".join(lines) + "\n")
    (folder / "s.tsv").write_text(
        "sample_id\tlabel\n" + "".join(f"{s}\t{'ab'[two]}\n" for s, two in zip(samples, second.tolist(), strict=True))
    )
    return ["expression", str(folder / "m.tsv"), "--samples", str(folder / "s.tsv"), "--cohort", "c"]


def assert_every_row(metrics: dict[str, Any], rows: int) -> None:
    assert (metrics["rows_per_epoch_min"], metrics["rows_per_epoch_max"]) == (rows, rows)


def checkpoint(lake: Path) -> frozenset[tuple[str, int]]:
    """Files of the checkpoint of the model that is being trained, with their times: another value after every save."""
    found = set()
    with contextlib.suppress(FileNotFoundError):  # replaced at this moment
        for path in (lake / "_staging").glob("*/checkpoint/**/*"):
            found.add((path.name, path.stat().st_mtime_ns))
    return frozenset(found)


def await_saves(lake: Path, saves: int, training: Future[Result]) -> None:
    """Returns when so many checkpoints were seen; AssertionError with the job's log when it ends before."""
    seen: set[frozenset[tuple[str, int]]] = {frozenset()}
    deadline = time.monotonic() + TIMEOUT
    while len(seen) <= saves:
        assert time.monotonic() < deadline, f"found {len(seen) - 1} checkpoints; expected {saves}"
        if training.done():
            raise AssertionError(
                f"ended after {len(seen) - 1} checkpoints seen, with {training.result().report}\n"
                f"{training.result().stderr[-4000:]}"
            )
        seen.add(checkpoint(lake))
        time.sleep(0.02)


def kill_rank(running: Cluster) -> None:
    (rank,) = running.ranks(1)
    os.kill(rank, signal.SIGKILL)


def kill_worker(running: Cluster) -> None:
    assert running.ranks(1)
    running.kill_worker(1)


@pytest.mark.parametrize("kill", [kill_rank, kill_worker])
def test_goes_on_after_kill(kill: Callable[[Cluster], None], calm: Calm, wheel: Path, tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    shutil.copytree(calm.lake, lake)
    with cluster(tmp_path / "cluster", wheel) as running, ThreadPoolExecutor() as pool:
        training = pool.submit(train, running, lake)
        await_saves(lake, 4, training)
        time.sleep(random.Random(kill.__name__).uniform(0.1, 0.9))  # between two saves: epochs take about a second, too
        kill(running)
        done = training.result()
        assert done.code == 0, done.stderr
        deadline = time.monotonic() + 30
        while left := running.ranks(0) + running.ranks(1):
            assert time.monotonic() < deadline, f"ranks outlived their job: {left}"
            time.sleep(0.2)
    metrics = done.report["metrics"]
    # begun again, or gone on with the others
    assert done.report["status"] == "done" and metrics["restarts"] + metrics["resets"] >= 1
    # Two ranks and one end 3e-8 apart when nobody disturbs them.
    assert metrics["validation_loss"] == pytest.approx(calm.metrics["validation_loss"], rel=1e-3)
    assert metrics["epochs"] == calm.metrics["epochs"]
    assert_every_row(metrics, calm.rows)
    assert not any((lake / "_staging").glob("*"))
