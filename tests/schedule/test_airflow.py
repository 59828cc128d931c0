"""The DAGs of conf/airflow under a real Airflow: retries, backfill, assets; verbs of a lake, and stand-ins."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from deltalake import DeltaTable, QueryBuilder

from genodl_spark.lake.tables import TABLES
from genodl_spark.pipelines.nightly import chain_of
from jobs import verbs
from tests.cluster.harness import ROOT
from tests.pipelines.test_predictions import FAST, SMALL, sequences
from tests.schedule.harness import AIRFLOW, Airflow, Task, airflow, jobs_of, parent, send

pytestmark = [
    pytest.mark.timeout(3600),
    pytest.mark.skipif(not AIRFLOW.exists(), reason="no .venv-airflow: make test-schedule makes it"),
]
GENODL = str(ROOT / ".venv" / "bin" / "genodl")
DAYS = ["2026-10-05", "2026-10-06", "2026-10-07"]
_AIRFLOW = """
[airflow]
command = [{command}, "{{verb}}"]
schedule = "0 2 * * *"
start_date = 2100-01-01  # nothing but what a test asks for
retries = {retries}
retry_seconds = 1
triggered_by = {triggers}
"""
# Takes the next exit code of its verb's file, and writes down how it was called.
_STAND_IN = """\
#!/usr/bin/env bash
cd "$(dirname "$0")"
echo "$*" >>called
code=$(head -n 1 "$1" 2>/dev/null || echo 0)
[ ! -f "$1" ] || sed -i 1d "$1"
echo "{\\"job\\": \\"$1\\", \\"status\\": \\"done\\", \\"rows\\": {\\"predictions\\": {\\"written\\": 3}}}"
[ "${code:-0}" = 0 ] || echo "genodl: error: $1 ends with $code" >&2
env | grep -c AIRFLOW_ >>variables
exit "${code:-0}"
"""
_CONSUMER = """
from airflow.sdk import DAG, Asset, task

with DAG("consumer", schedule=[Asset("{lake}/predictions")]):

    @task
    def use(*, triggering_asset_events):
        (event,) = (one for events in triggering_asset_events.values() for one in events)
        assert event.extra == {{"rows": 3}}

    use()

with DAG("lab", schedule=None):

    @task(outlets=[Asset("incoming")])
    def bring():
        pass

    bring()
"""


def chain(path: Path, lake: Path, steps: list[list[str]], command: str = GENODL, **options: Any) -> Path:
    lines = [f"lake = {json.dumps(str(lake))}"]
    for verb, *arguments in steps:
        lines += ["[[steps]]", f'verb = "{verb}"', f"arguments = {json.dumps(arguments)}"]
    options = {"command": json.dumps(command), "retries": 3, "triggers": [], **options}
    path.write_text("\n".join(lines) + _AIRFLOW.format(**options))
    return path


def genodl(*arguments: str) -> dict[str, Any]:
    done = subprocess.run([GENODL, *arguments], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with files of three days, and chains: `daily`, `backfilled` and `killed`, each for a lake of its name;
    `stub`, of stand-ins."""
    folder = tmp_path_factory.mktemp("schedule")
    (folder / "chains").mkdir()
    for number, day in enumerate(DAYS):
        incoming = folder / "incoming" / day
        (incoming / "vcf").mkdir(parents=True)
        sequences(incoming / f"{day}.tsv", [f"n{number}_{i}" for i in range(6)], 10 + number)
        genotypes(incoming / "vcf" / f"{day}.vcf", number)
    new = f"{folder}/incoming/{{date}}"
    bring = ["ingest", "sequences", f"{new}/{{date}}.tsv", "--cohort", "c", "--may-be-empty"]
    score = ["predict", "binding", "--cohort", "c"]
    for name in ("daily", "backfilled"):
        steps = [
            bring,
            ["ingest", "vcf", f"{new}/vcf", "--cohort", "v", "--may-be-empty"],
            ["qc", "--cohort", "v"],
            score,
            ["monitor"],
            ["maintain"],
            ["report", "--output", f"{folder}/report-{name}"],
        ]
        chain(folder / "chains" / f"{name}.toml", folder / name, steps)
    hasty = [*score, "--set", "lock.wait_seconds=3"]
    chain(folder / "chains" / "killed.toml", folder / "killed", [bring, hasty], retries=20)
    stub = folder / "stub"
    stub.mkdir()
    (stub / "genodl").write_text(_STAND_IN)
    (stub / "genodl").chmod(0o755)
    steps = [["ingest", "vcf", "in/{date}"], ["predict", "ancestry"], ["monitor"], ["maintain"], ["report"]]
    chain(folder / "chains" / "stub.toml", folder / "of stub", steps, str(stub / "genodl"), triggers=["incoming"])
    return folder


@pytest.fixture(scope="module")
def lakes(place: Path) -> Path:
    """Where the three lakes are, each with 40 sequences and a model of them."""
    at = ["--lake", str(place / "daily")]
    first = sequences(place / "first.tsv", [f"s{i}" for i in range(40)], 1)
    genodl("ingest", "sequences", first, "--cohort", "c", *at)
    genodl("train", "binding", *at, *SMALL, *FAST)
    for name in ("backfilled", "killed"):
        shutil.copytree(place / "daily", place / name)
    return place


def genotypes(path: Path, number: int) -> None:
    """A few records of ten people, of another stretch for every number."""
    people = "\t".join(f"p{i}" for i in range(10))
    meta = '##fileformat=VCFv4.2\n##contig=<ID=1>\n##FORMAT=<ID=GT,Number=1,Type=String,Description="Genotype">\n'
    lines = [f"#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\t{people}"]
    for i, row in enumerate(np.random.default_rng(number).integers(0, 2, (50, 10, 2)).tolist()):
        calls = "\t".join(f"{a}/{b}" for a, b in row)
        lines.append(f"1\t{1000 * number + 10 * i + 1}\t.\tA\tC\t.\tPASS\t.\tGT\t{calls}")
    path.write_text(meta + "\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def running(place: Path) -> Iterator[Airflow]:
    (place / "dags").mkdir()
    (place / "dags" / "consumer.py").write_text(_CONSUMER.format(lake=place / "of stub"))
    (place / "home").mkdir()
    with airflow(place / "home", place / "chains", place / "dags") as started:
        yield started


def states(tasks: dict[str, Task]) -> dict[str, tuple[str, int]]:
    return {name: (task.state, task.tries) for name, task in tasks.items()}


def test_exit_codes_decide_what_is_tried_again_and_what_runs(running: Airflow, place: Path) -> None:
    """The second day's files are at fault; on the third another run is in the way once, and a limit is breached."""
    for verb, codes in {"ingest": "0 2 0", "predict": "0 4 0", "monitor": "0 3"}.items():
        (place / "stub" / verb).write_text("\n".join(codes.split()) + "\n")
    running.backfill("genodl_stub", DAYS[0], DAYS[2])
    assert running.wait_for_runs("genodl_stub", 3, 300) == dict(zip(DAYS, ("success", "failed", "failed"), strict=True))
    well = ("success", 1)
    names = ["ingest", "predict", "monitor", "maintain", "report", "publish"]
    assert states(running.tasks("genodl_stub", DAYS[0])) == dict.fromkeys(names, well)
    found = states(running.tasks("genodl_stub", DAYS[1]))
    assert found.pop("ingest") == ("failed", 1)
    assert {state for state, _ in found.values()} == {"upstream_failed"}
    found = states(running.tasks("genodl_stub", DAYS[2]))
    assert found.pop("publish")[0] == "upstream_failed"
    twice, breach = ("success", 2), ("failed", 1)
    assert found == {"ingest": well, "predict": twice, "monitor": breach, "maintain": well, "report": well}

    # Another DAG runs on the predictions of the one day that was well, once.
    assert running.events() == [(f"{place}/of stub/predictions", '{"rows": 3}')]
    assert list(running.wait_for_runs("consumer", 1, 60).values()) == ["success"]

    # Airflow calls what the cron form calls; its own settings, passwords among them, stay with it.
    whole = chain_of(str(place / "chains" / "stub.toml"), verbs())
    asked = [" ".join([verb, *words]) for day in DAYS for verb, words in whole.commands(day)]
    asked = [*asked[:6], *asked[10:12], asked[11], *asked[12:]]
    assert (place / "stub" / "called").read_text().splitlines() == asked
    assert set((place / "stub" / "variables").read_text().split()) == {"0"}

    # Files that another DAG tells of start a run for the day that it runs on.
    running.command("dags", "trigger", "lab")
    found = running.wait_for_runs("genodl_stub", 4, 120)
    assert list(found.values()) == ["success", "failed", "failed", "success"]
    assert f"ingest vcf in/{list(found)[3].split('__')[1][:10]}" in (place / "stub" / "called").read_text()


def rows_of(table: Path) -> list[dict[str, Any]]:
    rows = QueryBuilder().register("t", DeltaTable(str(table))).execute("SELECT * FROM t").read_all()
    names = rows.column_names
    values = zip(*([value.as_py() for value in rows.column(name)] for name in names), strict=True)
    return [dict(zip(names, row, strict=True)) for row in values]


def contents(lake: Path) -> dict[str, list[str]]:
    """Rows of the tables of data, without times and versions."""
    found = {}
    for name in sorted(TABLES):
        if name not in ("runs", "findings") and (lake / name / "_delta_log").is_dir():
            found[name] = sorted(
                str({key: row[key] for key in sorted(row) if key != "source_versions" and not key.endswith("_at")})
                for row in rows_of(lake / name)
            )
    return found


def files(lake: Path) -> set[str]:
    """All files of a lake but those of what its runs leave about themselves."""
    return {
        str(path.relative_to(lake))
        for path in lake.rglob("*")
        if path.is_file() and path.relative_to(lake).parts[0] not in ("runs", "findings", "_locks")
    }


def test_backfilled_days_are_as_nights_and_a_second_time_writes_nothing(running: Airflow, lakes: Path) -> None:
    whole = str(lakes / "chains" / "daily.toml")
    for day in DAYS:
        report = genodl("nightly", whole, "--date", day, "--set", "tracking.uri=off")
        assert report["status"] == "done" and [step["code"] for step in report["metrics"]["steps"]] == [0] * 7
    running.backfill("genodl_backfilled", DAYS[0], DAYS[2])
    assert running.wait_for_runs("genodl_backfilled", 3, 1800) == dict.fromkeys(DAYS, "success")
    names = ["ingest", "ingest_2", "qc", "predict", "monitor", "maintain", "report", "publish"]
    for day in DAYS:
        assert states(running.tasks("genodl_backfilled", day)) == dict.fromkeys(names, ("success", 1))
    found = contents(lakes / "backfilled")
    assert len(found["predictions"]) == len(found["sequences"]) == 58 and len(found["variants"]) == 150
    assert found == contents(lakes / "daily")
    told = [extra for uri, extra in running.events() if uri == f"{lakes}/backfilled/predictions"]
    assert told == ['{"rows": 46}', '{"rows": 6}', '{"rows": 6}']

    # The last day again: no file of a table but those that say that the verbs have run, and nobody is told.
    before = files(lakes / "backfilled")
    running.backfill("genodl_backfilled", DAYS[2], DAYS[2], "--reprocess-behavior", "completed")
    running.wait(lambda: running.runs("genodl_backfilled")[DAYS[2]] != "success", 60)
    running.wait_for_runs("genodl_backfilled", 3, 900)
    again = running.tasks("genodl_backfilled", DAYS[2])
    assert again.pop("publish").state == "skipped"
    assert {task.state for task in again.values()} == {"success"}
    print({name: round(task.seconds, 1) for name, task in again.items()})
    assert max(task.seconds for task in again.values()) < 60
    assert files(lakes / "backfilled") == before
    assert len(running.events()) == len({*running.events()}) + 1


def test_a_killed_task_leaves_its_job_and_the_next_waits_for_it(running: Airflow, lakes: Path) -> None:
    """The process of the task is killed; its job goes on, though it stands still for a while. Tries in that time find
    another run in the way, the one after it has nothing to do."""
    lake = lakes / "killed"
    running.backfill("genodl_killed", DAYS[0], DAYS[0])
    # its lease on the lake, and its claim
    running.wait(lambda: jobs_of("predict", lake) and len(list((lake / "_locks").rglob("*"))) > 1, 180)
    (job,) = jobs_of("predict", lake)
    try:
        os.kill(parent(job), signal.SIGKILL)
        send(job, signal.SIGSTOP)
        running.wait(lambda: running.tasks("genodl_killed", DAYS[0])["predict"].tries >= 3, 180)
        assert jobs_of("predict", lake)[0] == job
    finally:
        send(job, signal.SIGCONT)
    assert running.wait_for_runs("genodl_killed", 1, 300) == {DAYS[0]: "success"}
    logs = {path.stem: path.read_text() for path in running.home.glob("logs/dag_id=genodl_killed/*/task_id=predict/*")}
    assert "exit code 4: genodl: error: found genodl predict on " in logs["attempt=2"]
    runs = [row for row in rows_of(lake / "runs") if row["job"] == "predict"]
    written = {row["status"]: json.loads(row["report"])["rows"]["predictions"]["written"] for row in runs}
    assert len(runs) == 2 and written == {"done": 46, "unchanged": 0}
    assert len(rows_of(lake / "predictions")) == 46
    # Airflow does not know which try has made them, so others are told.
    assert [extra for uri, extra in running.events() if uri == f"{lake}/predictions"] == ['{"rows": 0}']
