"""Jobs on three hosts, one of which is killed or cut off for half a minute: the same tables as of runs that nobody
disturbed, and a model as good."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.harness import Cluster, Result, cluster
from tests.faults.hosts import Host, hosts, lacking
from tests.faults.test_kill import cohort, contents, matrix

pytestmark = [
    pytest.mark.timeout(3600),
    pytest.mark.skipif(lacking() is not None, reason=lacking() or ""),
]

WORKERS, HIT = 3, 1
CUT_SECONDS, STANDS_STILL = 30, 120
TIMEOUT = 900
# A host that says nothing is given up sooner than in two minutes, and its tasks go to another.
SOON = {
    "spark.network.timeout": "15s",
    "spark.network.timeoutInterval": "5s",
    "spark.executor.heartbeatInterval": "3s",
}
TRAIN = ["train", "tumor_type", "--seed", "3"]
for setting in ("epochs=40", "min_steps=0", "batch=2", "ensemble=2", "checkpoint_seconds=1", "restarts=3"):
    TRAIN += ["--set", f"train.{setting}"]
for setting in ("train=0.7", "validation=0.15", "test=0.15"):
    TRAIN += ["--set", f"split.{setting}"]
SHARDS = ["--set", "feed.shard=true", "--set", "feed.rows_per_file=2"]  # 15 files of 30 people
PREDICT = ["predict", "tumor_type"]


@dataclass(frozen=True)
class Calm:
    """A folder with the inputs and lakes: empty but for samples (`ingested`), with a model (`trained`); what `vcf` left
    after both ingests and `predicted` after a prediction, and what training said, of rows on every host and in shards.
    """

    folder: Path
    vcf: dict[str, list[str]]
    predicted: dict[str, list[str]]
    metrics: dict[str, Any]
    in_shards: dict[str, Any]


@contextmanager
def spread(folder: Path, wheel: Path) -> Iterator[tuple[Cluster, list[Host]]]:
    """A cluster with a host for the master, for each of three workers and for the driver."""
    with hosts(WORKERS + 2) as places, cluster(folder, wheel, workers=WORKERS, places=places) as running:
        yield running, places[1 : WORKERS + 1]


def run(running: Cluster, lake: Path, command: list[str]) -> Result:
    done = running.submit(command[0], *command[1:], "--lake", str(lake), conf=SOON, timeout=TIMEOUT)
    assert done.code == 0, done.stderr[-6000:]
    return done


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Calm:
    folder = tmp_path_factory.mktemp("calm")
    with spread(folder / "cluster", wheel) as (running, _):
        run(running, folder / "ingested", matrix(folder))
        shutil.copytree(folder / "ingested", folder / "vcf")
        run(running, folder / "vcf", cohort(folder))
        shutil.copytree(folder / "ingested", folder / "trained")
        metrics = run(running, folder / "trained", [*TRAIN, "--procs", "1"]).report["metrics"]
        shutil.copytree(folder / "ingested", folder / "shards")
        in_shards = run(running, folder / "shards", [*TRAIN, *SHARDS, "--procs", "1"]).report["metrics"]
        shutil.copytree(folder / "trained", folder / "predicted")
        run(running, folder / "predicted", PREDICT)
    return Calm(folder, contents(folder / "vcf"), contents(folder / "predicted"), metrics, in_shards)


def kill(running: Cluster, _: Host) -> None:
    running.kill_worker(HIT)


def cut(_: Cluster, host: Host) -> None:
    host.cut()
    time.sleep(CUT_SECONDS)
    host.mend()


def await_task(running: Cluster, job: Future[Result]) -> None:
    """Returns when the worker that will be hit runs a task's Python process."""
    deadline = time.monotonic() + TIMEOUT
    while not any(b"pyspark.daemon" in command for command in running.commands(HIT)):
        assert not job.done(), f"ended before a task ran there: {job.result().stderr[-4000:]}"
        assert time.monotonic() < deadline
        time.sleep(0.05)


def hit_while(
    running: Cluster, host: Host, lake: Path, command: list[str], fault: Callable[[Cluster, Host], None]
) -> tuple[Result, float]:
    """What a job leaves on whose tasks a fault falls, and the seconds that it took from then on."""
    with ThreadPoolExecutor() as pool:
        job = pool.submit(run, running, lake, command)
        await_task(running, job)
        began = time.monotonic()
        fault(running, host)
        return job.result(), time.monotonic() - began


@pytest.mark.parametrize("fault", [kill, cut])
def test_ingest(fault: Callable[[Cluster, Host], None], calm: Calm, wheel: Path, tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    shutil.copytree(calm.folder / "ingested", lake)
    with spread(tmp_path / "cluster", wheel) as (running, workers):
        _, seconds = hit_while(running, workers[HIT], lake, cohort(calm.folder), fault)
    assert contents(lake) == calm.vcf
    assert seconds < CUT_SECONDS + STANDS_STILL


@pytest.mark.parametrize("fault", [kill, cut])
def test_predict(fault: Callable[[Cluster, Host], None], calm: Calm, wheel: Path, tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    shutil.copytree(calm.folder / "trained", lake)
    with spread(tmp_path / "cluster", wheel) as (running, workers):
        _, seconds = hit_while(running, workers[HIT], lake, PREDICT, fault)
    assert contents(lake) == calm.predicted
    assert seconds < CUT_SECONDS + STANDS_STILL


@pytest.mark.parametrize(("fault", "how"), [(cut, []), (cut, SHARDS), (kill, SHARDS)])
def test_training_goes_on_without_a_host(
    fault: Callable[[Cluster, Host], None], how: list[str], calm: Calm, wheel: Path, tmp_path: Path
) -> None:
    """Also where that host alone had a third of the rows: others take them over, and every row comes once an epoch."""
    expected = calm.in_shards if how else calm.metrics
    lake = tmp_path / "lake"
    shutil.copytree(calm.folder / "ingested", lake)
    with spread(tmp_path / "cluster", wheel) as (running, workers), ThreadPoolExecutor() as pool:
        job = pool.submit(run, running, lake, [*TRAIN, *how, "--procs", str(WORKERS)])
        deadline = time.monotonic() + TIMEOUT
        while not running.ranks(HIT) or not any((lake / "_staging").glob("*/checkpoint*")):
            assert not job.done(), job.result().stderr[-4000:]
            assert time.monotonic() < deadline
            time.sleep(0.05)
        fault(running, workers[HIT])
        metrics = job.result().report["metrics"]
    assert metrics["restarts"] + metrics["resets"] >= 1
    assert metrics["validation_loss"] == pytest.approx(expected["validation_loss"], rel=1e-2)
    assert metrics["epochs"] == expected["epochs"]
    assert (metrics["rows_per_epoch_min"], metrics["rows_per_epoch_max"]) == (
        expected["rows_per_epoch_min"],
        expected["rows_per_epoch_max"],
    )
    assert not any((lake / "_staging").glob("*"))
