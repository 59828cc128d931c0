"""A real Airflow on loopback: API server, DAG processor and scheduler of .venv-airflow, with a SQLite of their own."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster.harness import ROOT, _end, _free_ports

AIRFLOW = ROOT / ".venv-airflow" / "bin" / "airflow"
DAGS = ROOT / "conf" / "airflow" / "genodl_dags.py"


@dataclass(frozen=True)
class Task:
    """The last try of a task: its state, the number of that try and how long it took."""

    state: str
    tries: int
    seconds: float


@dataclass(frozen=True)
class Airflow:
    """One that runs: its home, and the environment of its commands."""

    home: Path
    environment: dict[str, str]

    def command(self, *arguments: str) -> None:
        done = subprocess.run([AIRFLOW, *arguments], env=self.environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]

    def backfill(self, dag: str, first: str, last: str, *options: str) -> None:
        """Has a DAG run for each day from `first` to `last`, one after another."""
        days = ("--from-date", f"{first}T00:00:00", "--to-date", f"{last}T12:00:00")
        self.command("backfill", "create", "--dag-id", dag, *days, "--max-active-runs", "1", *options)

    def rows(self, sql: str, *values: Any) -> list[tuple]:
        with contextlib.closing(sqlite3.connect(f"file:{self.home}/airflow.db?mode=ro", uri=True, timeout=30)) as base:
            return base.execute(sql, values).fetchall()

    def runs(self, dag: str) -> dict[str, str]:
        """State of each run of a DAG, by the day that it is for, in order; by its name where it is for none."""
        found = self.rows("SELECT substr(data_interval_start, 1, 10), run_id, state FROM dag_run WHERE dag_id = ?", dag)
        return dict(sorted((day or run, state) for day, run, state in found))

    def tasks(self, dag: str, day: str) -> dict[str, Task]:
        """The tasks of the run for a day."""
        found = self.rows(
            "SELECT t.task_id, t.state, t.try_number, "
            "(julianday(t.end_date) - julianday(t.start_date)) * 86400 FROM task_instance t JOIN dag_run r "
            "ON t.dag_id = r.dag_id AND t.run_id = r.run_id WHERE t.dag_id = ? AND r.data_interval_start LIKE ?",
            dag,
            f"{day}%",
        )
        return {name: Task(state, tries, seconds or 0.0) for name, state, tries, seconds in found}

    def events(self) -> list[tuple[str, str]]:
        """Asset and what is told with it, of each event, oldest first."""
        return self.rows("SELECT a.uri, e.extra FROM asset_event e JOIN asset a ON a.id = e.asset_id ORDER BY e.id")

    def wait(self, done: Callable[[], Any], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < deadline, f"not within {seconds} s\n{self.logs()}"
            time.sleep(0.5)

    def wait_for_runs(self, dag: str, count: int, seconds: float) -> dict[str, str]:
        """Waits until a DAG has `count` runs and all have ended."""

        def ended() -> bool:
            states = self.runs(dag).values()
            return len(states) == count and set(states) <= {"success", "failed"}

        self.wait(ended, seconds)
        return self.runs(dag)

    def logs(self) -> str:
        """The end of what its processes and tasks have written."""
        files = [*self.home.glob("*.log"), *sorted(self.home.glob("logs/**/attempt=*.log"))]
        return "\n".join(f"{path}:\n{path.read_text(errors='replace')[-1500:]}" for path in files)


@contextlib.contextmanager
def airflow(home: Path, chains: Path, dags: Path) -> Iterator[Airflow]:
    """Starts one that has the DAGs of a folder, to which genodl_dags.py is added, with those that it makes of `chains`;
    ends its processes on leaving."""
    (port,) = _free_ports(1)
    shutil.copy(DAGS, dags)
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(home),
        "GENODL_CHAINS": str(chains),
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__PARALLELISM": "2",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
        "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.5",
    }
    running = Airflow(home, environment)
    running.command("db", "migrate")
    started: list[subprocess.Popen[bytes]] = []
    try:
        for words in (("api-server",), ("dag-processor",), ("scheduler", "--skip-serve-logs")):
            with (home / f"{words[0]}.log").open("wb") as log:
                started.append(
                    subprocess.Popen(
                        [AIRFLOW, *words],
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                        env=environment,
                        cwd=home,
                        start_new_session=True,
                    )
                )
        wanted = len(list(chains.glob("*.toml")))
        known = "SELECT dag_id FROM serialized_dag WHERE dag_id LIKE 'genodl_%'"
        running.wait(lambda: len(running.rows(known)) == wanted, 120)
        yield running
    finally:
        for process in reversed(started):
            _end(process)


def jobs_of(verb: str, lake: Path) -> list[int]:
    """Pids of the processes that run a verb on a lake, the oldest first."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):  # one that has just ended
            words = (
                (entry / "cmdline").read_bytes().decode(errors="replace").split("\0") if entry.name.isdigit() else []
            )
            if words[1:5] == ["-P", "-m", "jobs", verb] and str(lake) in words:
                found.append(int(entry.name))
    return sorted(found)


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def send(group: int, sign: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, sign)
