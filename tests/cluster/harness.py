"""A Spark standalone cluster on loopback, and spark-submit against it with the project's wheel."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SUBMIT = ROOT / ".venv" / "bin" / "spark-submit"
_START_SECONDS = 90
_JVM = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"  # jobs this short end before optimised code pays: half the CPU time


@dataclass(frozen=True)
class Result:
    """What one job left: exit code, run report (the last line on stdout), and both streams whole."""

    code: int
    report: dict[str, Any]
    stdout: str
    stderr: str


@dataclass(frozen=True)
class Cluster:
    """A running cluster: its master's URL, the workers' directories and the wheel that jobs are sent with."""

    master: str
    work: list[Path]
    wheel: Path
    conf: dict[str, str]
    secret: Path

    def submit(self, verb: str, *arguments: str, conf: dict[str, str] | None = None, timeout: float = 240) -> Result:
        """Runs jobs/VERB.py as a user would:
        `.venv/bin/spark-submit --master ... --py-files WHEEL jobs/VERB.py ARGUMENTS`."""
        return self.submit_file(ROOT / "jobs" / f"{verb}.py", *arguments, conf=conf, timeout=timeout)

    def processes(self, worker: int, mapped: str = "") -> list[int]:
        """Pids of a worker's JVM, its executors and all that these started, oldest first;
        with `mapped`, those that loaded a file of that name.

        Each of them runs in the worker's own directory, also those that have left its process group.
        """
        folder = self.work[worker].resolve()
        found = []
        for entry in Path("/proc").iterdir():
            # A process that has just ended has neither link nor maps.
            with contextlib.suppress(OSError):
                if (
                    entry.name.isdigit()
                    and (entry / "cwd").readlink().is_relative_to(folder)
                    and mapped in (entry / "maps").read_text()
                ):
                    found.append(int(entry.name))
        return sorted(found)

    def ranks(self, worker: int) -> list[int]:
        """Pids of the processes of a worker that have loaded Horovod's library:
        what trains, however it was launched."""
        return self.processes(worker, "/horovod/torch/mpi_lib")

    def kill_worker(self, worker: int) -> None:
        """kill -9 of a worker, its executors and all their children: what a machine that goes down leaves
        behind, which is nothing."""
        deadline = time.monotonic() + 10
        while left := self.processes(worker):
            assert time.monotonic() < deadline, f"still there after kill -9: {left}"
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def submit_file(
        self, file: Path, *arguments: str, conf: dict[str, str] | None = None, timeout: float = 240
    ) -> Result:
        command = [
            str(SUBMIT),
            "--master",
            self.master,
            "--properties-file",
            str(self.secret),
            "--py-files",
            str(self.wheel),
        ]
        for key, value in {**self.conf, **(conf or {})}.items():
            command += ["--conf", f"{key}={value}"]
        command += [str(file), *arguments]
        # Nothing of the caller's environment but what a bare shell has, so that no PYTHONPATH or JAVA_HOME helps.
        done = _run(command, {"PATH": "/usr/bin:/bin", "SPARK_LOCAL_IP": "127.0.0.1"}, timeout)
        lines = done.stdout.splitlines()
        report: dict[str, Any] = {}
        with contextlib.suppress(json.JSONDecodeError, IndexError):
            report = json.loads(lines[-1])
        return Result(done.returncode, report, done.stdout, done.stderr)


def _run(command: list[str], env: dict[str, str], timeout: float) -> subprocess.CompletedProcess[str]:
    """subprocess.run, but a command that takes too long is ended with all its children."""
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env, cwd=ROOT, start_new_session=True
    )
    try:
        stdout, stderr = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        _end(process)
        stdout, stderr = process.communicate()
        raise AssertionError(
            f"no end after {timeout} s: {' '.join(command)}\n{stdout[-2000:]}\n{stderr[-4000:]}"
        ) from None
    return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)


@contextlib.contextmanager
def cluster(
    directory: Path, wheel: Path, workers: int = 2, cores: int = 1, memory: str = "1g", executor_memory: str = "512m"
) -> Iterator[Cluster]:
    """Starts a master and `workers` workers of `cores` cores each, bound to 127.0.0.1;
    ends them, and only them, on leaving.

    Everything that Spark writes lies under `directory`. Jobs get one executor of one core on every worker.
    Who connects has to know a secret, and what is said is encrypted.
    """
    port, page = _free_ports(2)
    master = f"spark://127.0.0.1:{port}"
    started: list[subprocess.Popen[bytes]] = []
    work = [directory / f"worker-{number}" for number in range(workers)]
    secret = directory / "secret.conf"
    directory.mkdir(parents=True, exist_ok=True)
    with open(os.open(secret, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as sink:
        sink.write(
            f"spark.authenticate true\nspark.authenticate.secret {secrets.token_hex()}\n"
            "spark.network.crypto.enabled true\n"
        )
    known = ["--properties-file", str(secret)]
    own = ["--host", "127.0.0.1", "--port", str(port), "--webui-port", str(page)]
    try:
        started.append(_daemon(directory / "master", ["master.Master", *known, *own]))
        for folder in work:
            given = [
                "--host",
                "127.0.0.1",
                "--cores",
                str(cores),
                "--memory",
                memory,
                "--work-dir",
                str(folder / "work"),
                "--webui-port",
                "0",
            ]
            started.append(_daemon(folder, ["worker.Worker", *known, *given, master]))
        _await_workers(page, workers, started, directory)
        conf = {
            "spark.executor.cores": "1",
            "spark.cores.max": str(workers),
            "spark.executor.memory": executor_memory,
            "spark.executor.extraJavaOptions": _JVM,
            "spark.driver.memory": "1g",
            "spark.driver.host": "127.0.0.1",
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.local.dir": str(directory / "driver"),
            # Both executors, or no job starts: a task count of two then means two machines.
            "spark.scheduler.minRegisteredResourcesRatio": "1.0",
            "spark.scheduler.maxRegisteredResourcesWaitingTime": "60s",
        }
        yield Cluster(master, work, wheel, conf, secret)
    finally:
        for process in reversed(started):
            _end(process)


def _daemon(folder: Path, arguments: list[str]) -> subprocess.Popen[bytes]:
    """A master or worker in a process group of its own; its output goes to FOLDER/log."""
    (folder / "local").mkdir(parents=True)
    script = '. "$1/docker/env.sh" && shift && exec "$SPARK_HOME/bin/spark-class" "org.apache.spark.deploy.$@"'
    env = {
        "PATH": "/usr/bin:/bin",
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_LOCAL_DIRS": str(folder / "local"),
        "SPARK_DAEMON_MEMORY": "256m",
        "SPARK_DAEMON_JAVA_OPTS": _JVM,
        "SPARK_NO_DAEMONIZE": "1",
    }
    with (folder / "log").open("wb") as log:
        command = ["bash", "-c", script, "bash", str(ROOT), *arguments]
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env, cwd=folder, start_new_session=True
        )


def _await_workers(page: int, workers: int, started: list[subprocess.Popen[bytes]], directory: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and all(process.poll() is None for process in started):
        with (
            contextlib.suppress(OSError, ValueError),
            urllib.request.urlopen(f"http://127.0.0.1:{page}/json/", timeout=5) as answer,
        ):
            if json.load(answer)["aliveworkers"] == workers:
                return
        time.sleep(0.2)
    logs = "\n".join(f"{log}:\n{log.read_text(errors='replace')[-2000:]}" for log in sorted(directory.glob("*/log")))
    raise AssertionError(f"no {workers} workers within {_START_SECONDS} s\n{logs}")


def _end(process: subprocess.Popen[Any]) -> None:
    """Ends a process and all that it started: each is the leader of its own group."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, sign)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=10)
            if sign == signal.SIGTERM:
                continue  # the leader may end before its children


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
