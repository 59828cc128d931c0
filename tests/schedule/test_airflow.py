"""The DAGs of conf/airflow under a real Airflow: retries, backfill, assets; verbs of a lake, and stand-ins."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genodl_spark.pipelines.nightly import chain_of
from jobs import verbs
from tests.cluster.harness import ROOT
from tests.pipelines.test_predictions import sequences
from tests.schedule.harness import AIRFLOW, Airflow, Task, airflow

pytestmark = [
    pytest.mark.timeout(1800),
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
