"""Jobs on three hosts, to one of which something happens, or to the master: the same tables as of runs that nobody
disturbed, and a model as good."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
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
SECONDS, STANDS_STILL = 30, 120  # that a fault lasts, and that a job may need longer for it
RATE = "2mbit"
TIMEOUT = 900
# A host that says nothing is given up sooner than in two minutes, and its tasks go to another.
SOON = {
    "spark.network.timeout": "15s",
    "spark.network.timeoutInterval": "5s",
    "spark.executor.heartbeatInterval": "3s",
}
TRAIN = ["train", "tumor_type", "--seed", "3", "--procs", str(WORKERS)]
for setting in ("epochs=20", "min_steps=0", "batch=2", "ensemble=2", "checkpoint_seconds=1", "restarts=3"):
    TRAIN += ["--set", f"train.{setting}"]
for setting in ("train=0.7", "validation=0.15", "test=0.15"):
    TRAIN += ["--set", f"split.{setting}"]
SHARDS = ["--set", "feed.shard=true", "--set", "feed.rows_per_file=2"]  # 15 files of 30 people
PREDICT = ["predict", "tumor_type"]


@dataclass(frozen=True)
class Calm:
    """A folder with the inputs and lakes: empty but for samples (`ingested`), with a model (`trained`); what `vcf` left
    after both ingests, `trained` and `predicted`, and what training said, of rows on every host and in shards."""

    folder: Path
    vcf: dict[str, list[str]]
    trained: dict[str, list[str]]
    predicted: dict[str, list[str]]
    metrics: dict[str, Any]
    in_shards: dict[str, Any]


@contextmanager
def spread(folder: Path, wheel: Path) -> Iterator[tuple[Cluster, list[Host]]]:
    """A cluster with a host for the master, for each of three workers and for the driver."""
    with hosts(WORKERS + 2) as places, cluster(folder, wheel, workers=WORKERS, places=places) as running:
        yield running, places[1 : WORKERS + 1]


def run(running: Cluster, lake: Path, command: list[str], conf: dict[str, str] | None = None) -> Result:
    done = running.submit(command[0], *command[1:], "--lake", str(lake), conf={**SOON, **(conf or {})}, timeout=TIMEOUT)
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
        metrics = run(running, folder / "trained", TRAIN).report["metrics"]
        shutil.copytree(folder / "ingested", folder / "shards")
        in_shards = run(running, folder / "shards", [*TRAIN, *SHARDS, "--procs", "1"]).report["metrics"]
        shutil.copytree(folder / "trained", folder / "predicted")
        run(running, folder / "predicted", PREDICT)
    tables = (contents(folder / name) for name in ("vcf", "trained", "predicted"))
    return Calm(folder, *tables, metrics, in_shards)


@dataclass(frozen=True)
class Fault:
    """What is done to a worker, by number, once it runs a task of the job, or before for a slow link, and told in the
    table; `conf`: what the job is given besides, by the folder of its event log. `ranks_stay`: a training goes on with
    as many."""

    told: str
    befall: Callable[[Cluster, list[Host], int], None]
    conf: Callable[[Path], dict[str, str]] = field(default=lambda _: {})
    ranks_stay: bool = True


def kill(running: Cluster, _: list[Host], worker: int) -> None:
    running.kill_worker(worker)


def cut(_: Cluster, places: list[Host], worker: int) -> None:
    places[worker].cut()
    time.sleep(SECONDS)
    places[worker].mend()


def lose_master(running: Cluster, _: list[Host], __: int) -> None:
    running.master_process.kill()
    time.sleep(SECONDS)
    running.master_process.start()


def slow(_: Cluster, places: list[Host], worker: int) -> None:
    places[worker].slow(RATE)


def suspend(running: Cluster, _: list[Host], worker: int) -> None:
    """Stops the worker's Python processes, as of a machine that has no time for them; its JVM says that it is there."""
    for number in (signal.SIGSTOP, signal.SIGCONT):
        if number == signal.SIGCONT:
            time.sleep(SECONDS)
        for pid in running.processes(worker, "/bin/python"):
            os.kill(pid, number)


def speculating(log: Path) -> dict[str, str]:
    log.mkdir()
    given = {"": "true", ".quantile": "0.3", ".multiplier": "1.5", ".task.duration.threshold": "5s"}
    events = {"enabled": "true", "compress": "false", "dir": f"file://{log}"}
    return {f"spark.speculation{key}": value for key, value in given.items()} | {
        f"spark.eventLog.{key}": value for key, value in events.items()
    }


FAULTS = {
    "kill": Fault("kill -9 of one of three workers and its executors", kill, ranks_stay=False),
    "cut": Fault(f"one of three workers cut off for {SECONDS} s", cut, ranks_stay=False),
    "master": Fault(f"kill -9 of the master, started again {SECONDS} s later (recovery mode)", lose_master),
    "slow": Fault(f"the link of one of three workers slowed to {RATE}/s", slow),
    "suspend": Fault(f"one of three workers' Python stopped for {SECONDS} s, speculation on", suspend, speculating),
}


# Where rows are in shards, others take over those that a host alone has had.
OF_TRAINING: dict[str, tuple[str, list[str]]] = {name: (name, []) for name in ("cut", "master", "slow", "suspend")}
OF_TRAINING |= {f"{name}-shards": (name, SHARDS) for name in ("cut", "kill")}


def await_task(running: Cluster, job: Future[Result], _: Path) -> int:
    """The worker that is hit: the first that runs a task's Python process. Few pieces leave some without any."""
    deadline = time.monotonic() + TIMEOUT
    while True:
        for worker in range(WORKERS):
            if any(b"pyspark.daemon" in command for command in running.commands(worker)):
                return worker
        assert not job.done(), f"ended before a task was seen: {job.result().stderr[-4000:]}"
        assert time.monotonic() < deadline
        time.sleep(0.05)


def await_checkpoint(running: Cluster, job: Future[Result], lake: Path) -> int:
    """The worker that is hit, once it trains and there is a checkpoint."""
    deadline = time.monotonic() + TIMEOUT
    while not running.ranks(HIT) or not any((lake / "_staging").glob("*/checkpoint*")):
        assert not job.done(), job.result().stderr[-4000:]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return HIT


def hit_while(fault: Fault, wheel: Path, folder: Path, before: Path, command: list[str]) -> tuple[Path, Result, float]:
    """The lake that a job leaves on whose tasks a fault falls, begun with a copy of `before`, what the job said, and
    the seconds that it took from the fault on, all where the link is slow."""
    lake, log = folder / "lake", folder / "events"
    shutil.copytree(before, lake)
    conf = fault.conf(log)
    with spread(folder / "cluster", wheel) as (running, workers), ThreadPoolExecutor() as pool:
        if fault.befall is slow:
            fault.befall(running, workers, HIT)
        job, began = pool.submit(run, running, lake, command, conf), time.monotonic()
        if fault.befall is not slow:
            worker = (await_checkpoint if command[0] == "train" else await_task)(running, job, lake)
            began = time.monotonic()
            fault.befall(running, workers, worker)
        done, seconds = job.result(), time.monotonic() - began
        if fault.befall is slow:
            assert workers[HIT].held_back() > 0
    if fault.conf is speculating and command[0] != "train":
        events = "".join(path.read_text() for path in log.rglob("events_*"))
        assert '"Speculative":true' in events
    return lake, done, seconds


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
@pytest.mark.parametrize("verb", ["ingest", "predict"])
def test_tables(
    verb: str, fault: Fault, calm: Calm, wheel: Path, tmp_path: Path, record_property: Callable[[str, str], None]
) -> None:
    record_property("done", f"{verb}: {fault.told}")
    before, command, after = {
        "ingest": ("ingested", cohort(calm.folder), calm.vcf),
        "predict": ("trained", PREDICT, calm.predicted),
    }[verb]
    lake, _, seconds = hit_while(fault, wheel, tmp_path, calm.folder / before, command)
    assert contents(lake) == after
    assert fault.befall is slow or seconds < SECONDS + STANDS_STILL
    record_property(
        "came out", f"same tables, {seconds:.0f} s {'in all' if fault.befall is slow else 'from the fault on'}"
    )


@pytest.mark.parametrize(("fault", "how"), OF_TRAINING.values(), ids=OF_TRAINING)
def test_training(
    fault: str, how: list[str], calm: Calm, wheel: Path, tmp_path: Path, record_property: Callable[[str, str], None]
) -> None:
    befalls, expected = FAULTS[fault], calm.in_shards if how else calm.metrics
    record_property("done", f"train on three hosts{', rows in shards' if how else ''}: {befalls.told}")
    lake, done, seconds = hit_while(befalls, wheel, tmp_path, calm.folder / "ingested", [*TRAIN, *how])
    metrics = done.report["metrics"]
    lost = metrics["restarts"] + metrics["resets"]
    assert metrics["validation_loss"] == pytest.approx(expected["validation_loss"], rel=1e-2)
    for name in ("epochs", "rows_per_epoch_min", "rows_per_epoch_max"):
        assert metrics[name] == expected[name]
    assert not any((lake / "_staging").glob("*"))
    if befalls.ranks_stay:
        assert contents(lake) == calm.trained
    else:
        assert lost >= 1
    assert befalls.befall is slow or seconds < calm.metrics["train_seconds"] + SECONDS + STANDS_STILL
    away = abs(metrics["validation_loss"] / expected["validation_loss"] - 1)
    same = "same tables" if befalls.ranks_stay else f"loss {100 * away:.2g}% away"
    took = f"{seconds:.0f} s {'in all' if befalls.befall is slow else 'from the fault on'}"
    record_property("came out", f"{same}, ranks met anew {lost:.0f} times, {took}")


def test_ranks_of_one_host_find_a_driver_elsewhere(
    wheel: Path, tmp_path: Path, record_property: Callable[[str, str], None]
) -> None:
    """What two tasks of one host reach each other by is not what they reach the driver by."""
    record_property("done", "train with both ranks on one host, the driver on another")
    with hosts(3) as places, cluster(tmp_path / "cluster", wheel, workers=1, cores=2, places=places) as running:
        run(running, tmp_path / "lake", matrix(tmp_path))
        command = [*TRAIN, "--procs", "2", "--set", "train.restarts=0"]
        metrics = run(running, tmp_path / "lake", command, {"spark.cores.max": "2"}).report["metrics"]
    assert (metrics["restarts"], metrics["resets"]) == (0, 0)
    record_property("came out", "two ranks trained to the end")


def test_a_job_waits_for_the_master(
    calm: Calm, wheel: Path, tmp_path: Path, record_property: Callable[[str, str], None]
) -> None:
    """Sent while the master is away; where it stays away the job says so."""
    record_property("done", "query sent while the master is away: for good, and for 20 s")
    asked = ["query", "SELECT count(*) AS n FROM samples", "--lake", str(calm.folder / "ingested")]
    with cluster(tmp_path / "cluster", wheel, workers=1) as running, ThreadPoolExecutor() as pool:
        running.master_process.kill()
        began = time.monotonic()
        refused = running.submit(*asked)
        seconds = time.monotonic() - began
        job = pool.submit(running.submit, *asked)
        time.sleep(20)
        assert not job.done()
        running.master_process.start()
        assert (job.result().code, job.result().report["result"]) == (0, [{"n": 30}])
    assert refused.code == 1 and refused.report["status"] == "failed"
    last = refused.stderr.splitlines()[-1]
    assert last.startswith(f"genodl: error: found no master that answers at {running.master}") and seconds < 120
    assert "Traceback" not in refused.stderr
    record_property("came out", f"exit code 1 and one line after {seconds:.0f} s; done once the master was back")
