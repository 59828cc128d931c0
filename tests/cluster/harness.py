"""A Spark standalone cluster on loopback, and spark-submit against it with the project's wheel."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

ROOT = Path(__file__).resolve().parents[2]
SUBMIT = ROOT / ".venv" / "bin" / "spark-submit"
_START_SECONDS = 90
_JVM = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"  # jobs this short end before optimised code pays: half the CPU time


class Place(Protocol):
    """Where processes run: their address, and what to put before a command that is to run there."""

    @property
    def address(self) -> str: ...

    @property
    def inside(self) -> list[str]: ...


@dataclass(frozen=True)
class Loopback:
    address: str = "127.0.0.1"

    @property
    def inside(self) -> list[str]:
        return []


class Daemon:
    """A master or worker in a process group of its own, which can be killed and started again as it was; its output
    goes to FOLDER/log."""

    def __init__(
        self,
        folder: Path,
        arguments: list[str],
        spark_home: Path | None = None,
        place: Place | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        (folder / "local").mkdir(parents=True)
        self._folder, self._place, self._variables = folder, place or Loopback(), variables or {}
        script = '. "$1/docker/env.sh" && home=${2:-$SPARK_HOME} && '
        if spark_home is not None:
            script += "unset ${!PYSPARK_*} ${!SPARK_CONF*} ${!SPARK_SUBMIT*} && "
        script += 'shift 2 && SPARK_HOME=$home exec "$home/bin/spark-class" "org.apache.spark.deploy.$@"'
        self._command = ["bash", "-c", script, "bash", str(ROOT), str(spark_home or ""), *arguments]
        self.start()

    def start(self) -> None:
        env = {
            "PATH": "/usr/bin:/bin",
            "SPARK_LOCAL_IP": self._place.address,
            "SPARK_LOCAL_DIRS": str(self._folder / "local"),
            "SPARK_DAEMON_MEMORY": "256m",
            "SPARK_DAEMON_JAVA_OPTS": _JVM,
            "SPARK_NO_DAEMONIZE": "1",
            **self._variables,
        }
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self._place.inside, *self._command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=env,
                cwd=self._folder,
                start_new_session=True,
            )

    def runs(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        """kill -9 of its process group."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(timeout=10)

    def end(self) -> None:
        _end(self._process)


@dataclass(frozen=True)
class Result:
    """What one job left: exit code, run report (the last line on stdout), and both streams whole."""

    code: int
    report: dict[str, Any]
    stdout: str
    stderr: str


@dataclass(frozen=True)
class Cluster:
    """A running cluster: its master's URL, the workers' directories, the wheel that jobs are sent with, and variables
    that they find."""

    master: str
    work: list[Path]
    wheel: Path
    conf: dict[str, str]
    secret: Path
    page: str
    driver: Place
    environment: Mapping[str, str]
    daemons: list[Daemon]

    @property
    def master_process(self) -> Daemon:
        return self.daemons[0]

    def worker_process(self, worker: int) -> Daemon:
        return self.daemons[1 + worker]

    def state(self) -> dict[str, Any]:
        """What the master says of itself: `aliveworkers` and more."""
        return _state(self.driver, self.page)

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

    def commands(self, worker: int) -> list[bytes]:
        """Their command lines."""
        found = []
        for pid in self.processes(worker):
            with contextlib.suppress(OSError):
                found.append(Path(f"/proc/{pid}/cmdline").read_bytes())
        return found

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
            *self.driver.inside,
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
        shell = {"PATH": "/usr/bin:/bin", "SPARK_LOCAL_IP": self.driver.address}
        done = _run(command, {**shell, **self.environment}, timeout)
        lines = done.stdout.splitlines()
        report: dict[str, Any] = {}
        with contextlib.suppress(json.JSONDecodeError, IndexError):
            report = json.loads(lines[-1])
        return Result(done.returncode, report, done.stdout, done.stderr)


def two_classes(folder: Path) -> tuple[Path, Path]:
    """A matrix of 6 genes and 40 samples, and a sample table with two classes that gene g0 tells apart."""
    samples = [f"s{i:02d}" for i in range(40)]
    rows = [
        "\t".join([f"g{gene}", *(str((i % 2) * (gene == 0) * 5 + (i * 7 + gene * 3) % 11 / 10) for i in range(40))])
        for gene in range(6)
    ]
    matrix, table = folder / "m.tsv", folder / "s.tsv"
    matrix.write_text("\n".join(["\t".join(["gene", *samples]), *rows]) + "\n")
    table.write_text("sample_id\tlabel\n" + "".join(f"{s}\t{'ab'[i % 2]}\n" for i, s in enumerate(samples)))
    return matrix, table


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
    directory: Path,
    wheel: Path,
    workers: int = 2,
    cores: int = 1,
    memory: str = "1g",
    executor_memory: str = "512m",
    spark_home: Path | None = None,
    properties: str = "spark.authenticate true\nspark.network.crypto.enabled true\n",
    places: Sequence[Place] | None = None,
    environment: Mapping[str, str] | None = None,
    of_workers: Mapping[str, str] | None = None,
) -> Iterator[Cluster]:
    """Starts a master and `workers` workers of `cores` cores each, bound to 127.0.0.1, or each in its own of `places`:
    the master's, those of the workers, that of jobs' drivers. Ends them, and only them, on leaving.

    Everything that Spark writes lies under `directory`. Jobs get one executor of one core on every worker.
    Who connects has to know a secret, and what is said is encrypted. `environment` and `of_workers`: variables that
    jobs find where they are sent from, and those of workers. With `spark_home` master and workers are started from that
    Spark and are told nothing else but where a JVM is, as on nodes that nobody has set up for this project.
    """
    port, page = _free_ports(2)
    at, *places_of_workers, driver = places or [Loopback()] * (workers + 2)
    master = f"spark://{at.address}:{port}"
    started: list[Daemon] = []
    work = [directory / f"worker-{number}" for number in range(workers)]
    secret = directory / "secret.conf"
    directory.mkdir(parents=True, exist_ok=True)
    with open(os.open(secret, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as sink:
        # A master that is started again then knows of its workers and applications.
        kept = f"spark.deploy.recoveryMode FILESYSTEM\nspark.deploy.recoveryDirectory {directory / 'recovery'}\n"
        sink.write(f"{properties}{kept}spark.authenticate.secret {secrets.token_hex()}\n")
    known = ["--properties-file", str(secret)]
    own = ["--host", at.address, "--port", str(port), "--webui-port", str(page)]
    try:
        started.append(Daemon(directory / "master", ["master.Master", *known, *own], spark_home, at))
        for folder, place in zip(work, places_of_workers, strict=True):
            given = [
                "--host",
                place.address,
                "--cores",
                str(cores),
                "--memory",
                memory,
                "--work-dir",
                str(folder / "work"),
                "--webui-port",
                "0",
            ]
            started.append(Daemon(folder, ["worker.Worker", *known, *given, master], spark_home, place, of_workers))
        page_of = f"http://{at.address}:{page}"
        _await_workers(driver, page_of, workers, started, directory)
        conf = {
            "spark.executor.cores": "1",
            "spark.cores.max": str(workers),
            "spark.executor.memory": executor_memory,
            "spark.executor.extraJavaOptions": _JVM,
            "spark.driver.memory": "1g",
            "spark.driver.host": driver.address,
            "spark.driver.bindAddress": driver.address,
            "spark.local.dir": str(directory / "driver"),
            # Both executors, or no job starts: a task count of two then means two machines.
            "spark.scheduler.minRegisteredResourcesRatio": "1.0",
            "spark.scheduler.maxRegisteredResourcesWaitingTime": "60s",
        }
        yield Cluster(master, work, wheel, conf, secret, page_of, driver, environment or {}, started)
    finally:
        for daemon in reversed(started):
            daemon.end()


@contextlib.contextmanager
def worker(folder: Path, running: Cluster, known: list[str]) -> Iterator[None]:
    """One more worker that asks a running cluster's master to take it; its output is FOLDER/log."""
    own = ["--host", "127.0.0.1", "--cores", "1", "--memory", "512m", "--work-dir", str(folder / "work")]
    started = Daemon(folder, ["worker.Worker", *known, *own, "--webui-port", "0", running.master])
    try:
        yield
    finally:
        started.end()


def _state(place: Place, page: str) -> dict[str, Any]:
    """What the master says of itself, asked for where it can be reached. ValueError where it does not answer."""
    ask = f"import urllib.request as u; print(u.urlopen({page + '/json/'!r}, timeout=5).read().decode())"
    done = subprocess.run(
        [*place.inside, sys.executable, "-c", ask], capture_output=True, text=True, check=False, timeout=30
    )
    return dict(json.loads(done.stdout))


def _await_workers(place: Place, page: str, workers: int, started: list[Daemon], directory: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and all(daemon.runs() for daemon in started):
        with contextlib.suppress(OSError, ValueError):
            if _state(place, page)["aliveworkers"] == workers:
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
