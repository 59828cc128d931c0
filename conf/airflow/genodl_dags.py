"""A DAG of Airflow (3.1 or later) for each chain of verbs: NAME.toml beside this file, or in the folder that
GENODL_CHAINS names, becomes the DAG genodl_NAME.

Every step is a process of its own, which claims its work in the lake. Where Airflow loses sight of a task and starts
it again, the second process waits for the first, or ends with exit code 4 and is tried again: work is never done twice.

Needs nothing of genodl in Airflow's environment, so that neither has to have the other's versions of packages.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import tempfile
import tomllib
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, Asset, AssetOrTimeSchedule, BaseOperator, CronDataIntervalTimetable, TriggerRule, task
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

# The day that a run is for. One that an asset has started has no interval.
DATE = "{{ (dag_run.data_interval_start or dag_run.run_after) | ds }}"
_LONGEST_PAUSE = timedelta(hours=1)


class Verb(BaseOperator):
    """Runs a verb as a process, its progress in the task's log; returns what its run report says of rows.

    Exit code 2 (the input or the configuration is at fault) and 3 (a limit of `monitor` is breached) fail the task for
    good: another try would find the same. After 4 (another run is in the way) and 1 it is tried again.
    """

    template_fields: Sequence[str] = ("command",)

    def __init__(self, *, command: list[str], **options: Any) -> None:
        super().__init__(**options)
        self.command = command
        self._process: subprocess.Popen[str] | None = None

    def execute(self, context: Any) -> dict[str, Any]:
        self.log.info("$ %s", shlex.join(self.command))
        said = ""
        # Standard output, whose last line is the report, goes to a file: a job that outlives this task writes on.
        with tempfile.TemporaryFile("w+") as output:
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                env=_environment(),
                start_new_session=True,  # what ends this task's group, such as a worker that is stopped, leaves the job
            )
            assert self._process.stderr is not None
            for line in self._process.stderr:
                if line.strip():
                    said = line.strip()
                    self.log.info("%s", said)
            code = self._process.wait()
            output.seek(0)
            last = output.read().strip().rpartition("\n")[2]
        if code in (2, 3):
            raise AirflowFailException(f"exit code {code}: {said}")
        if code:
            raise AirflowException(f"exit code {code}: {said}")
        report = json.loads(last)
        return {name: report[name] for name in ("status", "rows")} | {"tries": context["ti"].try_number}

    def on_kill(self) -> None:
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGTERM)


def _environment() -> dict[str, str]:
    """This process's, less what Airflow is told there: its passwords, connections and variables."""
    return {name: value for name, value in os.environ.items() if not name.lstrip("_").startswith("AIRFLOW_")}


def commands(chain: dict[str, Any], date: str) -> list[tuple[str, list[str]]]:
    """Each step's name (the verb; of a verb's second step `verb_2`) and its command, for a day."""
    of_verb: Counter[str] = Counter()
    made = []
    for step in chain["steps"]:
        verb = step["verb"]
        of_verb[verb] += 1
        arguments = [word.replace("{date}", date) for word in step.get("arguments", [])]
        program = [word.replace("{verb}", verb) for word in chain["airflow"]["command"]]
        name = verb if of_verb[verb] == 1 else f"{verb}_{of_verb[verb]}"
        made.append((name, [*program, *arguments, "--lake", chain["lake"]]))
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
        schedule=every_night,
        start_date=datetime.combine(options["start_date"], datetime.min.time(), UTC),
        catchup=False,
        max_active_runs=1,
        default_args={
            # Of several days, as in a backfill, a verb's commands may be the same, and would wait for each other.
            "max_active_tis_per_dag": 1,
            "retries": options["retries"],
            "retry_delay": timedelta(seconds=options["retry_seconds"]),
            "retry_exponential_backoff": True,
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
                trigger_rule=TriggerRule.ALL_DONE_MIN_ONE_SUCCESS
                if watching and len(before) > 1
                else TriggerRule.ALL_SUCCESS,
            )
            step.set_upstream(before)
            before = [*(one for one in before if not _watches(one)), step] if _watches(step) else [step]
            made.append(step)
        if scored := [step.output for step in made if step.task_id.startswith("predict")]:
            told = _publish(predictions)(scored)
            told.operator.set_upstream([step for step in made if _watches(step)] or made[-1:])
    return dag


def _watches(step: Verb) -> bool:
    return step.task_id.startswith("monitor")


def _publish(predictions: Asset) -> Any:
    @task(outlets=[predictions], retries=0)
    def publish(scored: list[dict[str, Any]], *, outlet_events: Any) -> None:
        """Tells of predictions that this run has made. Of a step that was tried again an earlier try may have made
        some, after Airflow had lost sight of it: then too, so that others are told once too often, never too seldom."""
        rows = sum(step["rows"].get("predictions", {}).get("written", 0) for step in scored)
        if not rows and all(step["tries"] == 1 for step in scored):
            raise AirflowSkipException("no new predictions")
        outlet_events[predictions].extra = {"rows": rows}

    return publish


for _path in sorted(Path(os.environ.get("GENODL_CHAINS") or Path(__file__).parent).glob("*.toml")):
    _chain = tomllib.loads(_path.read_text(encoding="utf-8"))
    if "airflow" in _chain:  # else cron runs it
        globals()[f"genodl_{_path.stem}"] = dag_of(_path.stem, _chain)
