"""A real Airflow on loopback: API server, DAG processor and scheduler of .venv-airflow, with a SQLite of their own."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.cluster.harness import ROOT, _end, _free_ports

AIRFLOW = ROOT / ".venv-airflow" / "bin" / "airflow"
DAGS = ROOT / "conf" / "airflow" / "genodl_dags.py"


@dataclass(frozen=True)
class Task:
    """The last try of a task: its state, the number of that try, how often it gave its slot back, how long it took."""

    state: str
    tries: int
    waits: int
    seconds: float


@dataclass(frozen=True)
class Airflow:
    """One that runs: its home, and the environment of its commands."""

    home: Path
    environment: dict[str, str]

    def command(self, *arguments: str) -> None:
        """Tried again where SQLite, which takes one writer at a time, has not let it write."""
        for left in (2, 1, 0):
            done = subprocess.run(
                [AIRFLOW, *arguments], env=self.environment, capture_output=True, text=True, timeout=180
            )
            if done.returncode == 0:
                return
            assert left and "database is locked" in done.stderr, done.stdout[-2000:] + done.stderr[-2000:]
            self.wait(lambda: not self.half_made(), 120)

    def half_made(self) -> list[tuple]:
        """Backfills without any run that the scheduler has not closed yet."""
        runs = "SELECT backfill_id FROM backfill_dag_run"
        return self.rows(f"SELECT id FROM backfill WHERE completed_at IS NULL AND id NOT IN ({runs})")

    def backfill(self, dag: str, first: str, last: str, *options: str) -> None:
        """Has a DAG run for each day from `first` to `last`, one after another, once no backfill of it is open."""
        self.wait(lambda: not self.rows("SELECT 1 FROM backfill WHERE dag_id = ? AND completed_at IS NULL", dag), 120)
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
            "SELECT t.task_id, t.state, t.try_number, (SELECT count(*) FROM task_reschedule w WHERE w.ti_id = t.id), "
            "(julianday(t.end_date) - julianday(t.start_date)) * 86400 FROM task_instance t JOIN dag_run r "
            "ON t.dag_id = r.dag_id AND t.run_id = r.run_id WHERE t.dag_id = ? AND r.data_interval_start LIKE ?",
            dag,
            f"{day}%",
        )
        return {name: Task(state, tries, waits, seconds or 0.0) for name, state, tries, waits, seconds in found}

    def pauses(self, dag: str, task: str) -> list[float]:
        """Seconds between the end of each try of a task and the beginning of the next, of a DAG's first run."""
        found = self.rows(
            "SELECT julianday(start_date) * 86400, julianday(end_date) * 86400 FROM (SELECT run_id, try_number, "
            "start_date, end_date, dag_id, task_id FROM task_instance_history UNION SELECT run_id, try_number, "
            "start_date, end_date, dag_id, task_id FROM task_instance) WHERE dag_id = ? AND task_id = ? AND run_id = "
            "(SELECT run_id FROM dag_run WHERE dag_id = ? ORDER BY data_interval_start LIMIT 1) ORDER BY try_number",
            dag,
            task,
            dag,
        )
        return [begun - ended for (_, ended), (begun, _) in pairwise(found)]

    def events(self, asset: str) -> list[str]:
        """What is told with each event of an asset, oldest first."""
        sql = "SELECT e.extra FROM asset_event e JOIN asset a ON a.id = e.asset_id WHERE a.uri = ? ORDER BY e.id"
        return [extra for (extra,) in self.rows(sql, asset)]

    def wait(self, done: Callable[[], Any], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < deadline, f"not within {seconds} s\n{self.logs()}"
            time.sleep(0.5)

    def wait_for_dags(self, *dags: str) -> None:
        known = "SELECT dag_id FROM serialized_dag"
        self.wait(lambda: {*dags} <= {dag for (dag,) in self.rows(known)}, 120)

    def wait_for_runs(self, dag: str, count: int, seconds: float) -> dict[str, str]:
        """Waits until a DAG has `count` runs and all have ended."""

        def ended() -> bool:
            states = self.runs(dag).values()
            return len(states) == count and set(states) <= {"success", "failed"}

        self.wait(ended, seconds)
        return self.runs(dag)

    def log(self, dag: str, task: str, attempt: int) -> str:
        """What stands in the log of a try of a task, of all runs of the DAG."""
        found = self.home.glob(f"logs/dag_id={dag}/*/task_id={task}/attempt={attempt}.log")
        return "\n".join(path.read_text() for path in sorted(found))

    def logs(self) -> str:
        """The end of what its processes and tasks have written."""
        files = [*self.home.glob("*.log"), *sorted(self.home.glob("logs/**/attempt=*.log"))]
        return "\n".join(f"{path}:\n{path.read_text(errors='replace')[-1500:]}" for path in files)


@contextlib.contextmanager
def airflow(
    home: Path, chains: Path, dags: Path, environment: Mapping[str, str], before: Callable[[Airflow], None]
) -> Iterator[Airflow]:
    """Starts one that has the DAGs of a folder, to which genodl_dags.py is added, with those that it makes of `chains`;
    ends its processes on leaving. Nothing is run until `before` has returned."""
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
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "600",  # none changes
        "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.3",
        **environment,
    }
    running = Airflow(home, environment)
    running.command("db", "migrate")
    started: list[subprocess.Popen[bytes]] = []
    try:
        for words in (("dag-processor",), ("api-server",), ("scheduler", "--skip-serve-logs")):
            if words[0] == "scheduler":
                before(running)
                running.wait(lambda: _answers(port), 120)  # else its first tasks fail
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
        yield running
    finally:
        for process in reversed(started):
            _end(process)


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def jobs_of(verb: str, lake: Path) -> list[int]:
    """Process groups in which a verb runs on a lake, sent by spark-submit, the oldest first."""
    found = set()
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):  # one that has just ended
            words = (
                (entry / "cmdline").read_bytes().decode(errors="replace").split("\0") if entry.name.isdigit() else []
            )
            if str(lake) in words and any(word.endswith(f"jobs/{verb}.py") for word in words):
                found.add(os.getpgid(int(entry.name)))
    return sorted(found)


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def send(group: int, sign: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, sign)
