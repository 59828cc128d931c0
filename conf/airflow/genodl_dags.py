"""A DAG of Airflow (3.2 or later) for each chain of verbs: NAME.toml beside this file, or in the folder that
GENODL_CHAINS names, becomes the DAG genodl_NAME.

Every step is a process of its own, which claims its work in the lake. Where Airflow loses sight of a task and starts
it again, the second process waits for the first: work is never done twice.

Needs nothing of genodl in Airflow's environment, so that neither has to have the other's versions of packages.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any

from airflow.sdk import (
    DAG,
    Asset,
    AssetOrTimeSchedule,
    BaseSensorOperator,
    CronDataIntervalTimetable,
    PokeReturnValue,
    TriggerRule,
    task,
)
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

# The day that a run is for. One that an asset has started has no interval.
DATE = "{{ (dag_run.data_interval_start or dag_run.run_after) | ds }}"
_LONGEST_PAUSE = timedelta(hours=1)
_LOOK = 0.5  # seconds between two looks at what a process has said
_SECRET = re.compile(r"://[^/\s@:]*:(?!\d+/)\S+@|(password|passwd|secret|token|credential|access_?key)[\w.]*=", re.I)


class Verb(BaseSensorOperator):
    """Runs a verb as a process, its progress in the task's log; returns what its run report says of rows and versions.

    Exit code 2 (the input or the configuration is at fault) and 3 (`monitor` has found a breach) fail the task for
    good, as another try would find the same. After 4 another run is in the way, such as one that Airflow has lost sight
    of: the task gives its slot back and asks again every `poke_interval`, for `timeout` at most, which is what sensors
    can do. After all others it is tried again, up to `retries`.
    """

    template_fields: Sequence[str] = ("command",)

    def __init__(self, *, command: list[str], **options: Any) -> None:
        super().__init__(mode="reschedule", **options)
        self.command = command
        self._process: subprocess.Popen[bytes] | None = None

    def poke(self, context: Any) -> PokeReturnValue:
        self.log.info("$ %s", shlex.join(self.command))
        said = ""
        # Files, not pipes: a job that outlives this task writes on.
        with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as progress:
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=progress,
                env=_environment(),
                start_new_session=True,  # what ends this task's group, such as a worker that is stopped, leaves the job
            )
            for line in _lines(self._process, progress):
                said = line
                self.log.info("%s", line)
            code = self._process.wait()
            output.seek(0)
            last = output.read().decode(errors="replace").strip().rpartition("\n")[2]
        if code == 4:
            return PokeReturnValue(False)
        if code in (2, 3):
            raise AirflowFailException(f"exit code {code}: {said}")
        if code:
            raise AirflowException(f"exit code {code}: {said}")
        try:
            report = json.loads(last)
        except ValueError:
            raise AirflowFailException(
                f"found {last[:80]!r} as the last line on standard output; expected a run report: has the driver run "
                "elsewhere? It has to run where the task does"
            ) from None
        # Whether an earlier process of this task, or one that was in its way, may have done the work.
        again = context["ti"].try_number > 1 or bool(context.get("task_reschedule_count"))
        return PokeReturnValue(True, {name: report[name] for name in ("status", "rows", "tables")} | {"again": again})

    def on_kill(self) -> None:
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGTERM)


def _lines(process: subprocess.Popen[bytes], stream: IO[bytes]) -> Iterator[str]:
    """The lines that a process writes to a file, as they come, until it has ended. The file's own position, which the
    process shares, stays as it is."""
    position, held = 0, b""
    while True:
        ended = process.poll() is not None
        while piece := os.pread(stream.fileno(), 1 << 16, position):
            position += len(piece)
            *whole, held = (held + piece).split(b"\n")
            yield from (text for line in whole if (text := line.decode(errors="replace").strip()))
        if ended:
            if text := held.decode(errors="replace").strip():
                yield text
            return
        time.sleep(_LOOK)


def _environment() -> dict[str, str]:
    """This process's, less what Airflow is told there: its passwords, connections and variables."""
    return {name: value for name, value in os.environ.items() if not name.lstrip("_").startswith("AIRFLOW_")}


def commands(chain: dict[str, Any], date: str) -> list[tuple[str, list[str]]]:
    """Each step's name (the verb; of a verb's second step `verb_2`) and its command, for a day.
    ValueError where a command has a password, which Airflow would store and show."""
    of_verb: Counter[str] = Counter()
    made = []
    for step in chain["steps"]:
        verb = step["verb"]
        of_verb[verb] += 1
        arguments = [word.replace("{date}", date) for word in step.get("arguments", [])]
        program = [word.replace("{verb}", verb) for word in chain["airflow"]["command"]]
        name = verb if of_verb[verb] == 1 else f"{verb}_{of_verb[verb]}"
        command = [*program, *arguments, "--lake", chain["lake"]]
        if any(_SECRET.search(word) for word in command):
            raise ValueError(f"found a password in the command of {name}; expected it in the environment of the task")
        made.append((name, command))
    return made


def dag_of(name: str, chain: dict[str, Any]) -> DAG:
    """The steps one after another.

    What follows a `monitor` runs though that has found a breach, but not where a step before it has failed. Last of
    all, and only after a `monitor` that has found nothing, the task `publish` tells other DAGs of new predictions.
    """
    options, predictions = chain["airflow"], Asset(f"{chain['lake']}/predictions")
    every_night: Any = CronDataIntervalTimetable(options["schedule"], timezone="UTC")
    if triggers := options.get("triggered_by"):
        assets = Asset(triggers[0])
        for uri in triggers[1:]:
            assets = assets | Asset(uri)
        every_night = AssetOrTimeSchedule(timetable=every_night, assets=assets)
    with DAG(
        f"genodl_{name}",
        description=" -> ".join(step["verb"] for step in chain["steps"]),
        doc_md=__doc__,
        tags=["genodl"],
        schedule=every_night,
        start_date=datetime.combine(options["start_date"], datetime.min.time(), UTC),
        catchup=options.get("catchup", False),
        max_active_runs=1,
        default_args={
            # Of several days, as in a backfill, a verb's commands may be the same, and would wait for each other.
            "max_active_tis_per_dag": 1,
            "retries": options["retries"],
            "retry_delay": timedelta(seconds=options["retry_seconds"]),
            "retry_exponential_backoff": 2.0,
            "max_retry_delay": _LONGEST_PAUSE,
        },
    ) as dag:
        before: list[Verb] = []  # the last step, and where that is a monitor the one before it
        made: list[Verb] = []
        for task_id, command in commands(chain, DATE):
            watching = any(_watches(step) for step in before)
            step = Verb(
                task_id=task_id,
                command=command,
                poke_interval=timedelta(seconds=options["ask_seconds"]),
                timeout=timedelta(hours=options["wait_hours"]),
                trigger_rule=TriggerRule.ALL_DONE_MIN_ONE_SUCCESS
                if watching and len(before) > 1
                else TriggerRule.ALL_SUCCESS,
            )
            step.set_upstream(before)
            before = [*(one for one in before if not _watches(one)), step] if _watches(step) else [step]
            made.append(step)
        watches = [step for step in made if _watches(step)]
        scored = [step for step in made if step.task_id.startswith("predict")]
        if watches or scored:  # without predictions it is still what a breach fails
            told = _publish(predictions)([step.output for step in scored])
            told.operator.set_upstream(watches or made[-1:])
    return dag


def _watches(step: Verb) -> bool:
    return step.task_id.startswith("monitor")


def _publish(predictions: Asset) -> Any:
    @task(inlets=[predictions], outlets=[predictions])
    def publish(scored: list[dict[str, Any]], *, inlet_events: Any, outlet_events: Any) -> None:
        """Tells of predictions that this run has made, with their number and the table's version. Where a step may have
        found its work done by a process that Airflow had lost sight of: of every version that was not told of."""
        rows = sum(step["rows"].get("predictions", {}).get("written", 0) for step in scored)
        version = max((step["tables"]["written"].get("predictions", -1) for step in scored), default=-1)
        before = max(
            (event.extra.get("version", -1) for event in inlet_events[predictions].ascending(False).limit(1)),
            default=-1,
        )
        if not rows and (version <= before or not any(step["again"] for step in scored)):
            raise AirflowSkipException("no new predictions")
        outlet_events[predictions].extra = {"rows": rows, "version": version}

    return publish


for _path in sorted(Path(os.environ.get("GENODL_CHAINS") or Path(__file__).parent).glob("*.toml")):
    try:
        _chain = tomllib.loads(_path.read_text(encoding="utf-8"))
        if "airflow" in _chain:  # else cron runs it
            globals()[f"genodl_{_path.stem}"] = dag_of(_path.stem, _chain)
    except Exception as error:
        error.add_note(f"in {_path}")
        raise
