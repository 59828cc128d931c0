"""Ranks started without Spark: they train as one process does, nobody else can reach them,
and nothing of them is on a command line."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load

from genodl_spark.core.errors import InputError
from genodl_spark.job import config
from genodl_spark.learning.training import launch, plan, ranks
from tests.learning.training.test_training import job, weights
from tests.listening import watched


def launched(j: plan.Job, launcher: str, hosts: str = "") -> dict[str, Any]:
    options = j.options.model_copy(update={"launcher": launcher, "hosts": hosts})
    return launch.launch(None, replace(j, options=options), 2 if launcher == "horovodrun" else 1)  # type: ignore[arg-type]


def test_two_ranks_of_horovodrun_train_as_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One here, one through ssh on another host: the same losses and weights; no listener beyond loopback,
    no secret on a command line."""
    ssh = tmp_path / "bin" / "ssh"
    ssh.parent.mkdir()
    ssh.write_text(f'#!/bin/sh\necho "$3" >>{tmp_path}/hosts\nshift 3\nexec sh -c "$@"\n')
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{ssh.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("PLANTED", "hunter2-of-the-store")
    made = {}
    for name in ("process", "horovodrun"):
        (tmp_path / name).mkdir()
        made[name] = replace(job(tmp_path / name, options={"epochs": 4}), checkpoint="")
    alone = launched(made["process"], "process")
    commands: set[bytes] = set()
    ended = threading.Event()

    def look() -> None:
        while not ended.is_set():
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                with suppress(OSError):
                    commands.add(path.read_bytes())
            time.sleep(0.05)

    thread = threading.Thread(target=look)
    thread.start()
    with watched(os.getpid()) as (inside, beyond):
        result = launched(made["horovodrun"], "horovodrun", "localhost:1,127.0.0.2:1")  # which no interface has
    ended.set()
    thread.join()
    assert (tmp_path / "hosts").read_text() == "127.0.0.2\n"
    assert not beyond
    assert inside  # the store at least: what Gloo opens may be gone between two looks
    assert any(b"take_part" in command for command in commands)
    assert not any(b"hunter2" in command for command in commands)
    assert len(result["history"]) == len(alone["history"]) == 4
    for one, two in zip(alone["history"], result["history"], strict=True):
        np.testing.assert_allclose(two["train"], one["train"], rtol=1e-9)  # in float64
        np.testing.assert_allclose(two["validation"], one["validation"], rtol=1e-9)
    expected, found = load(weights(made["process"])), load(weights(made["horovodrun"]))
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_allclose(found[key], value, rtol=1e-4, atol=1e-5)


def test_a_rank_that_fails_ends_the_others(tmp_path: Path) -> None:
    j = job(
        tmp_path,
        options={"learning_rate": 1e200, "clip": 0.0, "epochs": 50, "warmup_epochs": 0.0, "batch": 7},
        classes=0,
    )
    with pytest.raises(InputError, match=r"train.learning_rate: found a loss that is not finite in epoch"):
        launched(replace(j, checkpoint=""), "horovodrun")


def test_a_rank_that_hangs_up_keeps_nobody_waiting(tmp_path: Path) -> None:
    def waits(folder: str) -> dict[str, float]:  # goes to ranks by value: tests are on no path of theirs
        """Both ranks sum, and rank 1 has given up. Returns how long rank 0 waited until it was told."""
        import torch
        from horovod.common.exceptions import HorovodInternalError

        rank, told = ranks.Ranks(), Path(folder) / "told"
        assert rank.sum(torch.ones(1), "first").tolist() == [2]
        began = time.monotonic()
        if rank.rank == 1:
            rank.hang_up()
            while not told.exists() and time.monotonic() < began + 60:
                time.sleep(0.05)
            return {}
        with suppress(HorovodInternalError):
            rank.sum(torch.ones(1), "second")
            raise AssertionError("found a sum of a rank that has given up")
        told.touch()
        return {"seconds": time.monotonic() - began}

    assert ranks._on_hosts("localhost:2", 2, {}, (waits, str(tmp_path)))["seconds"] < 10  # Gloo's timeout is 30 s


def test_ranks_wait_for_a_lost_one_for_a_while_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was lost after it had said where it listens: the others wait for it to connect."""
    rank = ranks.Ranks.__new__(ranks.Ranks)
    others = socket.create_server(("127.0.0.1", 0))
    kept = socket.create_connection(others.getsockname())  # of before

    def init() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listens:
            listens.accept()

    rank._hvd = SimpleNamespace(init=init)
    monkeypatch.setattr(ranks, "_MEET_SECONDS", 0.2)
    with pytest.raises(OSError, match="Invalid argument"):
        rank._meet()
    kept.send(b"a")
    with others.accept()[0] as accepted:
        assert accepted.recv(1) == b"a"
    number = kept.fileno()
    closed = (number, os.fstat(number).st_ino)
    assert closed in ranks._sockets()
    kept.close()
    with socket.create_connection(others.getsockname()) as again, others.accept()[0] as accepted:
        assert again.fileno() == number
        ranks._shut(frozenset({closed}))
        again.send(b"b")
        assert accepted.recv(1) == b"b"
        ranks._shut(frozenset({(number, os.fstat(number).st_ino)}))
        assert accepted.recv(1) == b""
    others.close()


def test_hosts_that_do_not_suffice_or_are_no_hosts(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"train.hosts: found places for fewer than 2 ranks in 'localhost:1'"):
        launched(replace(job(tmp_path), checkpoint=""), "horovodrun", "localhost:1")
    for text in ("a", "a:x", "-oProxyCommand:1", "a:1,", "a:1 b:1"):
        with pytest.raises(InputError, match=r"train\.hosts"):
            config.load(None, None, [f"train.hosts={text}"])
    assert config.load(None, None, ["train.hosts='a-1.b:4,c:2'"]).train.hosts == "a-1.b:4,c:2"


def test_the_store_of_ranks_answers_their_own_user_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    with ranks._rendezvous("localhost:2", 2, "127.0.0.1") as found:
        assert [(host, env["HOROVOD_RANK"], env["HOROVOD_LOCAL_SIZE"]) for host, env in found] == [
            ("localhost", "0", "2"),
            ("localhost", "1", "2"),
        ]
        port = int(found[0][1]["HOROVOD_GLOO_RENDEZVOUS_PORT"])
        url = f"http://127.0.0.1:{port}/global/key"
        urllib.request.urlopen(urllib.request.Request(url, b"value", method="PUT")).close()
        with urllib.request.urlopen(url) as answer:
            assert answer.read() == b"value"
        assert ranks._user_of(("127.0.0.1", 1)) is None  # no such connection
        own = os.getuid()
        monkeypatch.setattr(os, "getuid", lambda: own + 1)
        with pytest.raises((ConnectionError, urllib.error.URLError)):
            urllib.request.urlopen(url, timeout=5)
        monkeypatch.undo()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.9", port), timeout=2)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=2)


@pytest.mark.parametrize("fails", [False, True])
def test_elastic_ranks_start_with_the_executors_python(monkeypatch: pytest.MonkeyPatch, fails: bool) -> None:
    """The driver's may lie where no other machine has one; Horovod reads `sys.executable` as it starts them, and asks
    its service for the interfaces on which ranks are told the driver's address: that which executors know it by."""
    import horovod.spark
    import horovod.spark.gloo_run
    from horovod.spark.driver.driver_service import SparkDriverService

    def run_elastic(*_: Any, **__: Any) -> list[dict[str, Any]]:
        if fails:
            raise RuntimeError
        interfaces = SparkDriverService.get_common_interfaces(SimpleNamespace(_nics={"of tasks"}))
        return [{"python": horovod.spark.gloo_run.sys.executable, "interfaces": interfaces}]

    monkeypatch.setattr(horovod.spark, "run_elastic", run_elastic)
    before = sys.executable, SparkDriverService.get_common_interfaces
    # an address that no interface here has leaves the choice to Horovod
    for driver, interfaces in (("127.0.0.1", {"lo"}), ("192.0.2.1", {"of tasks"}), ("", {"of tasks"})):
        context = SimpleNamespace(
            master="spark://host:7077",
            pythonExec="./environment/bin/python",
            _python_includes=None,
            getConf=lambda driver=driver: {"spark.driver.host": driver},
        )
        with pytest.raises(RuntimeError) if fails else nullcontext():
            found = ranks.start_ranks(SimpleNamespace(sparkContext=context), "spark", "", 2, dict, dict, dict, None)
            assert found == {"python": "./environment/bin/python", "interfaces": interfaces}
    assert (sys.executable, SparkDriverService.get_common_interfaces) == before
