"""Leases in a lake: who waits for whom, what is left of processes that were killed,
and files that others have changed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from genodl_spark.core.errors import Conflict
from genodl_spark.lake import locks

HOLDER = """
import sys, time
from genodl_spark.lake import locks
lake, verb, exclusive = sys.argv[1:4]
with locks.held(lake, verb, "{id}", bool(exclusive), 20):
    print("held", flush=True)
    time.sleep(60)
"""


def run_id() -> str:
    return uuid.uuid4().hex


def files(lake: Path) -> list[str]:
    folder = lake / locks.FOLDER
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    made = tmp_path / "a lake, 100% odd"
    made.mkdir()
    (made / "samples").mkdir()
    return made


@pytest.fixture
def holder(lake: Path) -> Iterator[Callable[[str], subprocess.Popen]]:
    """Starts a process that holds a lease for a minute."""
    started: list[subprocess.Popen] = []

    def start(verb: str) -> subprocess.Popen:
        code = HOLDER.replace("{id}", run_id())
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(lake), verb, "yes" if verb == "forget" else ""],
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_who_shares_and_who_waits(lake: Path, holder) -> None:
    writer = holder("train")
    with locks.held(str(lake), "ingest", run_id(), wait=0) as lease:  # writers do not mind each other
        assert len(files(lake)) == 2 and lease.since is not None and abs(lease.since - time.time()) < 5
        lease.check()
    found = (
        rf"found genodl train on \S+, process {writer.pid}, since 20\S+Z \(_locks/writing-[0-9a-f]{{32}}.json\); "
        rf"expected no other run; run"
    )
    with pytest.raises(Conflict, match=found), locks.held(str(lake), "forget", run_id(), exclusive=True, wait=0.3):
        pytest.fail("not alone")
    assert len(files(lake)) == 1  # what was announced is taken back
    assert signal_and_wait(writer, signal.SIGTERM) == -signal.SIGTERM and files(lake) == []

    forgetting = holder("forget")
    for exclusive in (False, True):
        with (
            pytest.raises(Conflict, match=f"found genodl forget on .*process {forgetting.pid}"),
            locks.held(str(lake), "x", run_id(), exclusive, 0.3),
        ):
            pytest.fail("not alone")
        assert [name.split("-")[0] for name in files(lake)] == ["forgetting"]


def signal_and_wait(process: subprocess.Popen, number: int) -> int:
    process.send_signal(number)
    return process.wait(10)


def test_a_killed_process_leaves_a_lease_that_nobody_waits_for(
    lake: Path, holder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "_SETTLE", 0.0)
    for verb, exclusive in (("ingest", True), ("forget", False), ("forget", True)):
        assert signal_and_wait(holder(verb), signal.SIGKILL) == -signal.SIGKILL
        assert len(files(lake)) == 1
        with locks.held(str(lake), "any", run_id(), exclusive, wait=0):
            assert len(files(lake)) == 1
        assert files(lake) == []


def test_a_writer_goes_on_when_the_one_in_its_way_has_ended(lake: Path, caplog: pytest.LogCaptureFixture) -> None:
    order: list[str] = []

    def write() -> None:
        with locks.held(str(lake), "ingest", run_id(), wait=20):
            order.append("wrote")

    with locks.held(str(lake), "forget", run_id(), exclusive=True, wait=0):
        waiting = threading.Thread(target=write)
        waiting.start()
        until = time.monotonic() + 20
        while not caplog.records and time.monotonic() < until:
            time.sleep(0.05)
        time.sleep(0.3)
        # it does not stand in the way while it waits
        assert [name.split("-")[0] for name in files(lake)] == ["forgetting"]
        order.append("forgot")
    waiting.join(10)
    assert order == ["forgot", "wrote"] and files(lake) == []
    assert [record.message.split(",")[0].rsplit(" on ")[0] for record in caplog.records] == [
        "waiting for another run: found genodl forget"
    ]


def test_writers_and_two_who_forget_are_never_there_together(lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many rounds at once: whoever is exclusive finds itself alone, and everybody gets their turn."""
    monkeypatch.setattr(locks, "_POLL", 0.002)
    inside: list[bool] = []
    wrong: list[list[bool]] = []
    mutex = threading.Lock()
    done = [0] * 5

    def work(number: int) -> None:
        exclusive = number >= 3
        for _ in range(12):
            with locks.held(str(lake), "forget" if exclusive else "ingest", run_id(), exclusive, wait=60):
                with mutex:
                    inside.append(exclusive)
                    if True in inside and len(inside) > 1:
                        wrong.append(list(inside))
                time.sleep(0.001)
                with mutex:
                    inside.remove(exclusive)
            done[number] += 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert wrong == [] and done == [12] * 5 and files(lake) == []


def other(lake: Path, content: bytes, kind: str = "writing", age: float = 0.0) -> Path:
    """A lease of another machine, last written so many seconds ago."""
    path = lake / locks.FOLDER / f"{kind}-{run_id()}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    os.utime(path, (time.time() - age,) * 2)
    return path


def of_elsewhere(**changed: object) -> bytes:
    lease = {
        "verb": "train",
        "host": "node-7",
        "pid": 1,
        "machine": "another boot",
        "began": "5",
        "since": "2026-01-01T00:00:00Z",
    }
    return json.dumps({**lease, **changed}).encode()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe\x00",
        b"[" * 5000,
        b'{"verb": "train"}',
        of_elsewhere(pid="1"),
        of_elsewhere(pid=True),
        of_elsewhere(pid=-1),
        of_elsewhere(pid=10**30),
        of_elsewhere(host="\x1b[2Jnode"),
        of_elsewhere(host={"a": 1}),
        of_elsewhere(verb="x" * 5000),
        of_elsewhere(machine=None),
    ],
)
def test_a_lease_that_cannot_be_read_counts_until_it_expires(
    lake: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = other(lake, content)
    with pytest.raises(Conflict, match=rf"found a lease that cannot be read, _locks/{path.name}; expected"):
        locks.Lease(str(lake), "forget", run_id(), exclusive=True).acquire(0)
    monkeypatch.setattr(locks, "EXPIRE", 0.1)
    monkeypatch.setattr(locks, "RENEW", 0.03)
    monkeypatch.setattr(locks, "_POLL", 0.02)
    with locks.held(str(lake), "forget", run_id(), exclusive=True, wait=10):
        assert not path.exists()


def test_a_lease_is_dead_by_the_clock_of_the_file_system(lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "RENEW", 0.2)
    old, living, future = (other(lake, of_elsewhere(), age=age) for age in (2 * locks.EXPIRE, locks.EXPIRE / 2, -1e6))
    # Clocks of this machine that are wrong by a year do not matter.
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() - 3e7)
    with (
        pytest.raises(Conflict, match="node-7, process 1"),
        locks.held(str(lake), "forget", run_id(), exclusive=True, wait=4),
    ):
        pytest.fail("not alone")
    assert (old.exists(), living.exists(), future.exists()) == (False, True, True)
    # A time that has not come yet says nothing: what is left alone for long enough is dead.
    living.unlink()
    monkeypatch.setattr(locks, "EXPIRE", 1.0)
    with locks.held(str(lake), "forget", run_id(), exclusive=True, wait=10):
        assert not future.exists()


def test_a_lease_is_renewed_and_its_loss_is_noticed(lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "RENEW", 0.1)
    with locks.held(str(lake), "train", run_id(), wait=0) as lease:
        (name,) = files(lake)
        path = lake / locks.FOLDER / name
        first = path.stat().st_mtime_ns
        until = time.monotonic() + 20
        while path.stat().st_mtime_ns == first and time.monotonic() < until:
            time.sleep(0.05)
        assert path.stat().st_mtime_ns > first and json.loads(path.read_bytes())["pid"] == os.getpid()
        lease.check()
        path.unlink()  # taken for dead by another run
        while not lease._lost and time.monotonic() < until:
            time.sleep(0.05)
        assert files(lake) == []  # and not written again behind its back
        with pytest.raises(Conflict, match="has lost its lease"):
            lease.check()


def test_no_folder_is_left_where_no_lake_came_to_be(tmp_path: Path, lake: Path) -> None:
    place = tmp_path / "not" / "yet" / "a lake"
    with pytest.raises(ZeroDivisionError), locks.held(str(place), "ingest", run_id(), wait=0):
        print(len(files(place)) / 0)
    assert not (tmp_path / "not").exists()
    with locks.held(str(place), "ingest", run_id(), wait=0):
        (place / "samples").mkdir()
    assert [path.name for path in place.iterdir()] == ["samples"]
    # What others put beside the leases is no lease, and stays.
    strange = lake / locks.FOLDER
    (strange / f"writing-{run_id()}.json").mkdir(parents=True)
    (strange / "README").write_text("x")
    with locks.held(str(lake), "forget", run_id(), exclusive=True, wait=0):
        assert len(files(lake)) == 3
    assert len(files(lake)) == 2


def test_a_lake_that_cannot_be_written(lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: locks.Lease) -> None:
        raise PermissionError("Permission denied")

    monkeypatch.setattr(locks.Lease, "_write", refuse)
    # it can do no harm: whether it has to write is its own affair
    with locks.held(str(lake), "ingest", run_id(), wait=0) as lease:
        assert lease.unwritable == "Permission denied"
        lease.check()
    with (
        pytest.raises(locks.InputError, match="the lake cannot be written"),
        locks.held(str(lake), "forget", run_id(), True, 0),
    ):
        pytest.fail("nothing can be removed")


def test_what_one_run_at_a_time_uses(lake: Path) -> None:
    """Such as the checkpoints of a training: other things, and leases on the lake, are none of its business."""
    with locks.held(str(lake), "train", run_id(), wait=0), locks.held(str(lake), "train", run_id(), wait=0, of="a"):
        with (
            locks.held(str(lake), "train", run_id(), wait=0, of="b"),
            locks.held(str(lake), "ingest", run_id(), wait=0),
        ):
            pass
        found = r"found genodl train on .*\(_locks/holding-[0-9a-f]{32}.json\)"
        with pytest.raises(Conflict, match=found), locks.held(str(lake), "train", run_id(), wait=0.1, of="a"):
            pass
    with locks.held(str(lake), "train", run_id(), wait=0, of="a"):
        pass
    assert files(lake) == []


def test_when_the_oldest_of_those_that_write_began(lake: Path) -> None:
    assert locks.oldest(str(lake), "") is None
    mine = run_id()
    with locks.held(str(lake), "maintain", mine, wait=0):
        assert locks.oldest(str(lake), mine) is None
        other(lake, of_elsewhere(), age=2 * locks.EXPIRE)  # dead
        assert locks.oldest(str(lake), mine) is None
        other(lake, of_elsewhere(since="2026-01-02T00:00:00Z"), age=5)
        other(lake, of_elsewhere(since="2026-01-03T00:00:00Z"))
        assert locks.oldest(str(lake), mine) == 1767312000 - 60
        for content in (b"{", of_elsewhere(since="lately")):
            path = other(lake, content)
            assert locks.oldest(str(lake), mine) == 0
            path.unlink()
