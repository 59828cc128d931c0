"""A disk that is full, of a node's scratch or of the lake: one line says so, nothing is half-written, and once there is
room the same command leaves the same tables as where there was always room."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cluster.harness import Cluster, Result, cluster
from tests.faults.test_kill import cohort, contents, matrix


def lacking() -> str | None:
    """Why nothing can be mounted here, None where it can."""
    if os.geteuid() != 0:
        return "mounting needs root"
    tried = subprocess.run(
        ["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, text=True
    )
    return f"cannot mount: {tried.stderr.strip()}" if tried.returncode else None


pytestmark = [
    pytest.mark.timeout(3600),
    pytest.mark.skipif(lacking() is not None, reason=lacking() or ""),
]

TRAIN = ["train", "tumor_type", "--procs", "2", "--seed", "3", "--set", "feed.resident_bytes=1"]
for setting in ("epochs=20", "min_steps=0", "batch=2", "ensemble=2", "checkpoint_seconds=1"):
    TRAIN += ["--set", f"train.{setting}"]
for setting in ("train=0.7", "validation=0.15", "test=0.15"):
    TRAIN += ["--set", f"split.{setting}"]
Tell = Callable[[str, str], None]


@dataclass(frozen=True)
class Disk:
    """A small file system in memory."""

    folder: Path

    def fill(self, but: int = 0) -> None:
        """Leaves so many bytes free."""
        with (self.folder / "filler").open("ab") as file:
            while (free := shutil.disk_usage(self.folder).free - but) > 0:
                with contextlib.suppress(OSError):  # somebody else has taken some meanwhile
                    os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, free)

    def make_room(self) -> None:
        (self.folder / "filler").unlink()


@contextlib.contextmanager
def disk(folder: Path, size: str = "256m") -> Iterator[Disk]:
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True)
    try:
        yield Disk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@dataclass(frozen=True)
class Calm:
    """A folder with the inputs and a lake empty but for samples (`ingested`); the tables of it, and of what is there
    after the ingest of a VCF and after a training."""

    folder: Path
    ingested: dict[str, list[str]]
    vcf: dict[str, list[str]]
    trained: dict[str, list[str]]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("cluster"), wheel) as one:
        yield one


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory, running: Cluster) -> Calm:
    folder = tmp_path_factory.mktemp("calm")
    done(run(running, folder / "ingested", matrix(folder)))
    for name, command in (("vcf", cohort(folder)), ("trained", TRAIN)):
        shutil.copytree(folder / "ingested", folder / name)
        done(run(running, folder / name, command))
    return Calm(folder, *(contents(folder / name) for name in ("ingested", "vcf", "trained")))


def run(running: Cluster, lake: Path, command: list[str], conf: dict[str, str] | None = None) -> Result:
    return running.submit(command[0], *command[1:], "--lake", str(lake), conf=conf, timeout=900)


def done(result: Result) -> None:
    assert result.code == 0, result.stderr[-6000:]


def refused(result: Result) -> str:
    """The last line of a job that a full disk has ended, and the only one that says so."""
    last = result.stderr.splitlines()[-1]
    assert (result.code, result.report["status"]) == (1, "failed"), result.stderr[-6000:]
    assert last.startswith("genodl: error: found no space left on a disk of "), result.stderr[-6000:]
    assert result.stderr.count("genodl: error:") == 1 and "job failed" not in result.stderr
    return last


def files(lake: Path) -> set[str]:
    """All files of a lake's tables but `runs`."""
    found = {str(path.relative_to(lake)) for path in lake.rglob("*") if path.is_file()}
    return {name for name in found if not name.startswith(("runs/", "_"))}


def test_ingest_with_a_full_scratch(calm: Calm, running: Cluster, tmp_path: Path, record_property: Tell) -> None:
    """Executors need some before they start: another worker does it all; where none has any, the job waits for one."""
    record_property("done", "ingest: the scratch of one of two workers full, then of both until half a minute later")
    for name in ("one", "both"):
        shutil.copytree(calm.folder / "ingested", tmp_path / name)
    with disk(running.work[1] / "local") as scratch, disk(running.work[0] / "local") as other:
        scratch.fill()
        done(run(running, tmp_path / "one", cohort(calm.folder)))
        assert contents(tmp_path / "one") == calm.vcf
        other.fill()
        with ThreadPoolExecutor() as pool:
            job = pool.submit(run, running, tmp_path / "both", cohort(calm.folder))
            time.sleep(30)
            assert not job.done()
            other.make_room()
            done(job.result())
    assert contents(tmp_path / "both") == calm.vcf
    record_property("came out", "the other worker did it all; the job waited; same tables both times")


@pytest.mark.parametrize("left", [0, 300_000])
def test_ingest_into_a_full_lake(
    left: int, calm: Calm, running: Cluster, tmp_path: Path, record_property: Tell
) -> None:
    record_property("done", f"ingest: {left} bytes left on the lake's disk")
    with disk(tmp_path / "disk") as of_lake:
        lake = of_lake.folder / "lake"
        shutil.copytree(calm.folder / "ingested", lake)
        before = files(lake)
        of_lake.fill(but=left)
        refused(run(running, lake, cohort(calm.folder)))
        assert contents(lake) == calm.ingested and sorted(files(lake) - before) == []
        of_lake.make_room()
        done(run(running, lake, cohort(calm.folder)))
        assert contents(lake) == calm.vcf
    record_property("came out", "exit code 1 and one line, no file left behind; with room the same tables")


def test_train_with_a_full_scratch(calm: Calm, running: Cluster, tmp_path: Path, record_property: Tell) -> None:
    record_property("done", "train: no room where the feed spills the data set")
    lake = tmp_path / "lake"
    shutil.copytree(calm.folder / "ingested", lake)
    with disk(tmp_path / "scratch", "4k") as scratch:
        at = {"spark.executorEnv.TMPDIR": str(scratch.folder)}
        last = refused(run(running, lake, TRAIN, at))
        assert str(scratch.folder) in last
        assert not any(scratch.folder.glob("*/*"))
        subprocess.run(["mount", "-o", "remount,size=64m", str(scratch.folder)], check=True)
        done(run(running, lake, TRAIN, at))
    assert contents(lake) == calm.trained
    record_property("came out", "exit code 1 and one line that names the file; with room the same tables")


def test_train_on_a_lake_that_gets_full(calm: Calm, running: Cluster, tmp_path: Path, record_property: Tell) -> None:
    record_property("done", "train: the lake's disk full after the first checkpoint")
    with disk(tmp_path / "disk") as of_lake, ThreadPoolExecutor() as pool:
        lake = of_lake.folder / "lake"
        shutil.copytree(calm.folder / "ingested", lake)
        job = pool.submit(run, running, lake, TRAIN)
        while not any((lake / "_staging").glob("*/checkpoint/*.safetensors")):
            assert not job.done(), job.result().stderr[-4000:]
            time.sleep(0.02)
        began = time.monotonic()
        while time.monotonic() < began + 3:  # a checkpoint that is written at this moment frees the one before
            of_lake.fill()
            time.sleep(0.05)
        refused(job.result())
        seconds = time.monotonic() - began
        assert not (lake / "models").exists() and not any((lake / "_staging").rglob("*.tmp"))
        of_lake.make_room()
        done(run(running, lake, TRAIN))
        assert contents(lake) == calm.trained
    record_property("came out", f"exit code 1 and one line after {seconds:.0f} s; with room on to the same tables")
