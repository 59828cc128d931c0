"""The DAGs of conf/airflow under a real Airflow: retries, backfill, assets. Their verbs are sent to a standalone
cluster by spark-submit, or are stand-ins."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from genodl_spark.pipelines.nightly import chain_of
from jobs import verbs
from tests.cluster.harness import ROOT, SUBMIT, Cluster, cluster
from tests.conftest import FOR_FEW_ROWS
from tests.schedule.harness import AIRFLOW, DAGS, Airflow, Task, airflow, jobs_of, parent, send
from tests.schedule.nights import DAYS, GENODL, NEW, assert_same, chain, contents, example, files, rows_of, small

pytestmark = [
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not AIRFLOW.exists(), reason="no .venv-airflow: make test-schedule makes it"),
]
_PLANTED = {"AWS_SECRET_ACCESS_KEY": "planted-for-storage", "AIRFLOW_CONN_LAB": "http://u:planted-for-airflow@lab"}
# Takes the next exit code of its verb's file, and writes down how it was called.
_STAND_IN = """\
#!/usr/bin/env bash
cd "$(dirname "$0")"
echo "$*" >>called
code=$(head -n 1 "$1" 2>/dev/null || echo 0)
[ ! -f "$1" ] || sed -i 1d "$1"
echo "12:00:00 INFO $1 is under way" >&2
[ "${code:-0}" = 0 ] || echo "genodl: error: $1 ends with $code" >&2
env | grep -c AIRFLOW_ >>variables
echo '{"status": "done", "rows": {"predictions": {"written": 3}}, "tables": {"written": {"predictions": 7}}}'
exit "${code:-0}"
"""
_OTHERS = """
from airflow.sdk import DAG, Asset, task

with DAG("consumer", schedule=[Asset("{lake}/predictions")]):

    @task
    def use(*, triggering_asset_events):
        (event,) = (one for events in triggering_asset_events.values() for one in events)
        assert event.extra == {{"rows": 3, "version": 7}}

    use()

with DAG("lab", schedule=None):

    @task(outlets=[Asset("incoming")])
    def bring():
        pass

    bring()
"""


@pytest.fixture(scope="module")
def spark_submit(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Iterator[list[str]]:
    """What sends a verb to a master and two workers."""
    with cluster(tmp_path_factory.mktemp("cluster"), wheel) as running:
        yield _sent_to(running)


def _sent_to(running: Cluster) -> list[str]:
    properties = running.secret.with_name("spark.conf")
    # One executor starts faster than two; what two do is in tests/cluster.
    conf = {**running.conf, **FOR_FEW_ROWS, "spark.ui.enabled": "false", "spark.cores.max": "1"}
    with open(os.open(properties, os.O_WRONLY | os.O_CREAT, 0o600), "w") as sink:
        sink.write(running.secret.read_text() + "".join(f"{key} {value}\n" for key, value in conf.items()))
    of_cluster = ["--master", running.master, "--properties-file", str(properties), "--py-files", str(running.wheel)]
    return [str(SUBMIT), *of_cluster, f"{ROOT}/jobs/{{verb}}.py"]


def stand_in(folder: Path) -> list[str]:
    folder.mkdir()
    (folder / "genodl").write_text(_STAND_IN)
    (folder / "genodl").chmod(0o755)
    return [str(folder / "genodl"), "{verb}"]


@pytest.fixture(scope="module")
def running(place: Path, spark_submit: list[str], trained: Callable[[str], Path]) -> Iterator[Airflow]:
    """An Airflow with chains `nights` and `killed`, each for a lake of its name that has a model, `stub` and `missed`,
    of stand-ins, of which `stub` is under way for three days."""
    chains = place / "chains"
    chain(chains / "nights.toml", place / "nights", example(place, "report"), spark_submit)
    score = ["predict", "ancestry", "--cohort", "mine", "--set", "lock.wait_seconds=1", *small(place)]
    chain(chains / "killed.toml", place / "killed", [score], spark_submit)
    steps = [["ingest", "vcf", "in/{date}"], ["predict", "ancestry"], ["monitor"], ["maintain"], ["report"]]
    chain(chains / "stub.toml", place / "of stub", steps, stand_in(place / "stub"), triggered_by=["incoming"])
    before = (datetime.now(UTC) - timedelta(days=2)).date().isoformat()
    since = {"start_date": before, "catchup": "true"}
    chain(chains / "missed.toml", place / "of missed", [["monitor"]], stand_in(place / "missed"), **since)
    (place / "dags").mkdir()
    (place / "dags" / "others.py").write_text(_OTHERS.format(lake=place / "of stub"))
    (place / "home").mkdir()
    for verb, codes in {"ingest": "0 2 0", "predict": "0 4 0", "monitor": "0 3", "maintain": "1 1 0"}.items():
        (place / "stub" / verb).write_text("\n".join(codes.split()) + "\n")
    environment = {"SPARK_LOCAL_IP": "127.0.0.1", **_PLANTED}

    def before(started: Airflow) -> None:
        for name in ("nights", "killed"):
            trained(name)
        started.wait_for_dags(*(f"genodl_{path.stem}" for path in chains.glob("*.toml")), "consumer", "lab")
        started.backfill("genodl_stub", DAYS[0], DAYS[2])

    with airflow(place / "home", chains, place / "dags", environment, before) as started:
        yield started


def states(tasks: dict[str, Task]) -> dict[str, tuple[str, int]]:
    return {name: (task.state, task.tries) for name, task in tasks.items()}


def test_exit_codes_decide_what_is_tried_again_and_what_runs(running: Airflow, place: Path) -> None:
    """The first day fails twice at its upkeep; the second day's files are at fault; on the third another run is in the
    way once, and a limit is breached."""
    assert running.wait_for_runs("genodl_stub", 3, 600) == dict(zip(DAYS, ("success", "failed", "failed"), strict=True))
    well = ("success", 1)
    names = ["ingest", "predict", "monitor", "report", "publish"]
    assert states(running.tasks("genodl_stub", DAYS[0])) == {**dict.fromkeys(names, well), "maintain": ("success", 3)}
    pauses = running.pauses("genodl_stub", "maintain")
    assert len(pauses) == 2 and pauses[0] >= 2 and pauses[1] >= 4
    found = states(running.tasks("genodl_stub", DAYS[1]))
    assert found.pop("ingest") == ("failed", 1)
    assert {state for state, _ in found.values()} == {"upstream_failed"}
    third = running.tasks("genodl_stub", DAYS[2])
    assert {name: task.waits for name, task in third.items() if task.waits} == {"predict": 1}
    found = states(third)
    assert found.pop("publish")[0] == "upstream_failed"
    breach = ("failed", 1)
    assert found == {"ingest": well, "predict": well, "monitor": breach, "maintain": well, "report": well}

    # Another DAG runs on the predictions of the one day that was well, once.
    assert running.events(f"{place}/of stub/predictions") == ['{"rows": 3, "version": 7}']
    assert list(running.wait_for_runs("consumer", 1, 60).values()) == ["success"]

    # Airflow calls what the cron form calls; its own settings, passwords among them, stay with it.
    whole = chain_of(str(place / "chains" / "stub.toml"), verbs())
    first, second, third_ = ([" ".join([verb, *words]) for verb, words in whole.commands(day)] for day in DAYS)
    asked = [*first[:3], *[first[3]] * 3, first[4], second[0], *third_[:2], third_[1], *third_[2:]]
    assert sorted((place / "stub" / "called").read_text().splitlines()) == sorted(asked)
    assert set((place / "stub" / "variables").read_text().split()) == {"0"}

    # Files that another DAG tells of start a run for the day that it runs on.
    running.command("dags", "trigger", "lab")
    found = running.wait_for_runs("genodl_stub", 4, 120)
    assert list(found.values()) == ["success", "failed", "failed", "success"]
    assert f"ingest vcf in/{list(found)[3].split('__')[1][:10]}" in (place / "stub" / "called").read_text()


def test_missed_days_are_made_up_for(running: Airflow, place: Path) -> None:
    """Each day since the chain's start that has ended by the clock of its schedule, 2:00, and no other."""
    due = datetime.now(UTC) - timedelta(days=1, hours=2)
    days = [(datetime.now(UTC) - timedelta(days=n)).date().isoformat() for n in (2, 1)]
    days = [day for day in days if day <= due.date().isoformat()]
    assert running.wait_for_runs("genodl_missed", len(days), 120) == dict.fromkeys(days, "success")
    assert states(running.tasks("genodl_missed", days[0])) == {"monitor": ("success", 1), "publish": ("skipped", 1)}


def test_a_killed_task_leaves_its_job_and_the_next_waits_for_it(running: Airflow, place: Path) -> None:
    """The process of the task is killed; its job goes on, though it stands still for a while. The try after it finds
    another run in the way and gives its slot back; once that has ended it has nothing to do."""
    lake = place / "killed"
    running.backfill("genodl_killed", DAYS[0], DAYS[0])

    def task() -> Task:
        return running.tasks("genodl_killed", DAYS[0])["predict"]

    running.wait(lambda: jobs_of("predict", lake) and [*(lake / "_locks").glob("*/holding-*.json")], 180)
    (job,) = jobs_of("predict", lake)
    try:
        os.kill(parent(job), signal.SIGKILL)
        send(job, signal.SIGSTOP)
        running.wait(lambda: task().waits or task().state in ("success", "failed"), 180)
        assert (task().tries, task().state) == (2, "up_for_reschedule")
        assert jobs_of("predict", lake) == [job]
    finally:
        send(job, signal.SIGCONT)
    assert running.wait_for_runs("genodl_killed", 1, 300) == {DAYS[0]: "success"}
    assert task().tries == 2
    said = running.log("genodl_killed", "predict", 2)
    assert f"genodl: error: found genodl predict on {os.uname().nodename}, process " in said
    runs = [row for row in rows_of(lake / "runs") if row["job"] == "predict"]
    written = {row["status"]: json.loads(row["report"])["rows"]["predictions"]["written"] for row in runs}
    assert len(runs) == 2 and written == {"done": 40, "unchanged": 0}
    assert len(rows_of(lake / "predictions")) == 40
    # Nobody had been told of what the lost try has made.
    (told,) = map(json.loads, running.events(f"{lake}/predictions"))
    assert told["rows"] == 0


def test_backfilled_days_are_as_nights_and_a_second_time_writes_nothing(
    running: Airflow, place: Path, trained: Callable[[str], Path]
) -> None:
    running.backfill("genodl_nights", DAYS[0], DAYS[2])
    lake, whole = trained("daily"), chain(place / "daily.toml", place / "daily", example(place, "report-daily"))
    for day in DAYS:
        done = subprocess.run(
            [GENODL, "nightly", str(whole), "--date", day], capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, done.stderr
        report = json.loads(done.stdout.splitlines()[-1])
        assert report["status"] == "done" and [step["code"] for step in report["metrics"]["steps"]] == [0] * 6
    assert running.wait_for_runs("genodl_nights", 3, 1200) == dict.fromkeys(DAYS, "success")
    names = ["ingest", "qc", "predict", "monitor", "maintain", "report", "publish"]
    for day in DAYS:
        assert states(running.tasks("genodl_nights", day)) == dict.fromkeys(names, ("success", 1))
    found = contents(place / "nights")
    assert len(found["samples"]) == len(found["predictions"]) == 40 + 3 * NEW
    assert_same(found, contents(lake))
    told = [json.loads(extra) for extra in running.events(f"{place}/nights/predictions")]
    assert [one["rows"] for one in told] == [40 + NEW, NEW, NEW]
    assert [one["version"] for one in told] == sorted({one["version"] for one in told})

    # The last day again: no file of a table but those that say that the verbs have run, and nobody is told.
    before = files(place / "nights")
    running.backfill("genodl_nights", DAYS[2], DAYS[2], "--reprocess-behavior", "completed")
    running.wait(lambda: running.runs("genodl_nights")[DAYS[2]] != "success", 60)
    running.wait_for_runs("genodl_nights", 3, 600)
    again = running.tasks("genodl_nights", DAYS[2])
    assert again.pop("publish").state == "skipped"
    assert {task.state for task in again.values()} == {"success"}
    print({name: round(task.seconds, 1) for name, task in again.items()})
    assert max(task.seconds for task in again.values()) < 60
    assert files(place / "nights") == before
    assert len(running.events(f"{place}/nights/predictions")) == 3

    # What a verb says is in its task's log, as it says it on a cluster.
    said = running.log("genodl_nights", "ingest", 1).replace('\\"', '"')
    assert said.count('"message": "$ ') == 0 and '"job": "ingest"' in said and '"application": "app-' in said


def test_no_secret_is_stored_or_shown(running: Airflow, place: Path, tmp_path: Path) -> None:
    for path in place.joinpath("home").rglob("*"):
        if path.is_file():
            assert not [name for name, planted in _PLANTED.items() if planted.encode() in path.read_bytes()], path
    for word in ("tracking.uri=postgresql://me:planted@lab/runs", "spark.hadoop.fs.azure.secret=planted"):
        chain(tmp_path / "leaky.toml", tmp_path, [["predict", "ancestry", "--set", word]], [GENODL, "{verb}"])
        environment = {**running.environment, "GENODL_CHAINS": str(tmp_path)}
        asked = [AIRFLOW.with_name("python"), DAGS]
        done = subprocess.run(asked, capture_output=True, text=True, env=environment, timeout=60)
        assert "ValueError: found a password in the command of predict" in done.stderr
        assert f"in {tmp_path}/leaky.toml" in done.stderr and "planted" not in done.stderr
