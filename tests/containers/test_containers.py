"""Images are built from the Dockerfile; verbs run in them as nobody; the services of compose.yaml come up and work."""

from __future__ import annotations

import json
import re
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster.harness import two_classes
from tests.containers import compose
from tests.containers.hosts import Image, Machine, Running

pytestmark = pytest.mark.timeout(7200)  # the first one builds images: 20 minutes on two cores


@pytest.fixture(scope="session")
def values() -> dict[str, str]:
    return {name: secrets.token_hex(20) for name in compose.secrets(compose.FILE.read_text())}


def report(done: subprocess.CompletedProcess[str]) -> dict:
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def test_verbs_run_in_an_image_as_nobody(demo: Image, tmp_path: Path) -> None:
    idle = {"build": {"target": "demo"}, "command": ["sleep", "infinity"], "environment": {}}
    with Machine({"alone": idle}, {"demo": demo}, tmp_path).up() as machine:
        one = machine.start("alone")
        two_classes(tmp_path / "alone" / "srv-incoming")

        def run(*words: str) -> subprocess.CompletedProcess[str]:
            return one.ask([*demo.entrypoint, *words], timeout=300)

        assert run("id", "-u").stdout == "185\n"
        assert run("sh", "-c", "touch /opt/genodl/conf/base.toml").returncode != 0
        shown = run("genodl", "--help")
        assert shown.returncode == 0 and "  ingest " in shown.stdout, shown.stderr
        packages = "import horovod.torch, delta, torch, os; print(os.environ['JAVA_HOME'], torch.cuda.is_available())"
        assert run("python", "-W", "ignore", "-c", packages).stdout == "/opt/genodl/.venv/jre False\n"
        common = ["--lake", "lake", "--cohort", "mine"]
        files = ["/srv/incoming/m.tsv", "--samples", "/srv/incoming/s.tsv"]
        assert report(run("genodl", "ingest", "expression", *files, *common))["rows"]["expression"]["written"] == 40
        options = ["--label", "label", "--procs", "2", "--set", "train.epochs=3", "--set", "tracking.uri=off"]
        assert report(run("genodl", "train", "tumor_type", *common, *options))["status"] == "done"
        scored = report(run("genodl", "predict", "tumor_type", *common, "--label", "label"))
        assert scored["rows"]["predictions"]["written"] == 40


@pytest.fixture(scope="module")
def machine(
    demo: Image, airflow: Image, store: Image, values: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Machine]:
    images = {"demo": demo, "airflow": airflow, "store": store}
    with Machine(compose.services(values), images, tmp_path_factory.mktemp("machine")).up() as machine:
        yield machine


def asked(sql: Running, statement: str, password: str) -> list[str]:
    """What the Thrift server answers a JDBC client, word by word; nothing where it refuses."""
    url = "jdbc:hive2://sql:10000/default;ssl=true;sslTrustStore=/srv/genodl/trusted.p12;trustStorePassword=trusted"
    given = ["-u", url, "-n", "analyst", "-p", password, "--outputformat=tsv2", "--silent=true", "-e", statement]
    done = sql.ask([*sql.image.entrypoint, "spark-class", "org.apache.hive.beeline.BeeLine", *given], 120)
    answer = re.sub(r"0: jdbc:hive2://\S*", "", done.stdout).split()  # it prompts though nobody can answer
    assert done.returncode == 0 or not answer, done.stderr[-3000:]
    return answer


def test_services_come_up_and_sql_is_answered(machine: Machine, values: dict[str, str]) -> None:
    sql = machine.start_with_what_it_needs("sql")
    machine.wait_for_health("sql")
    trust = "keytool -importcert -noprompt -alias sql -file sql.pem -keystore trusted.p12 -storepass trusted"
    done = sql.ask(["sh", "-c", f"cd /srv/genodl && {trust}"])
    assert done.returncode == 0, done.stdout + done.stderr
    question = "SELECT count(*) AS people FROM samples"
    assert asked(sql, question, values["GENODL_SQL_PASSWORD"]) == ["people", "2504"], sql.said()
    assert asked(sql, question, "wrong") == []
    assert asked(sql, "DROP TABLE samples", values["GENODL_SQL_PASSWORD"]) == []


def test_a_worker_without_the_secret_is_not_let_in(machine: Machine) -> None:
    known = machine.services["worker-2"]["environment"]
    machine.services["stranger"] = {
        **machine.services["worker-2"],
        "environment": {**known, "GENODL_SPARK_SECRET": secrets.token_hex(20)},
    }
    machine.start("stranger")
    time.sleep(30)  # more than a worker that is let in takes
    state = machine.running["master"].ask(["python", "-c", _STATE])
    assert state.stdout == "2\n", state.stderr
    machine.stop("stranger")


def test_the_demo_goes_through_the_cluster(machine: Machine, values: dict[str, str]) -> None:
    demo = machine.start_with_what_it_needs("demo")
    machine.wait_for_end("demo", 1200)
    last = json.loads(demo.log.read_text().strip().splitlines()[-1])
    assert last["metrics"]["ancestry"]["model"]["accuracy"]["value"] > 0.9, last
    question = "SELECT task, count(*) AS n FROM predictions_latest GROUP BY task ORDER BY task"
    answer = asked(machine.running["sql"], question, values["GENODL_SQL_PASSWORD"])
    assert answer == ["task", "n", "ancestry", "2504", "tumor_type", "198"]
    assert (machine.folder / "volumes" / "results" / "report" / "index.html").is_file()
    tracked = machine.running["mlflow"].ask(["python", "-c", _MODELS])
    assert tracked.stdout.split() == ["ancestry.super_population", "tumor_type.er"], tracked.stderr


def test_a_night_runs_under_airflow(machine: Machine) -> None:
    airflow = machine.start_with_what_it_needs("airflow")
    machine.wait_for_health("airflow", 300)

    def command(*words: str) -> str:
        done = airflow.ask(["env", "AIRFLOW_HOME=/srv/genodl", "/opt/genodl/.venv-airflow/bin/airflow", *words], 120)
        return done.stdout if done.returncode == 0 else ""

    def wait(what: Callable[[], bool], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < deadline, airflow.said()
            time.sleep(5)

    wait(lambda: "genodl_nightly" in command("dags", "list"), 120)
    command("dags", "unpause", "--yes", "genodl_nightly")
    command("dags", "trigger", "genodl_nightly", "--run-id", "tried")
    states = ("tasks", "states-for-dag-run", "genodl_nightly", "tried", "--output", "json")

    def ended() -> dict[str, str]:
        told = command(*states)
        found = json.loads(told[told.index("[") :]) if "[" in told else []
        return {one["task_id"]: one["state"] for one in found if one["state"] in ("success", "failed", "skipped")}

    wait(lambda: len(ended()) == 6, 900)
    assert {name: state for name, state in ended().items() if name != "publish"} == dict.fromkeys(
        ["ingest", "predict", "monitor", "maintain", "report"], "success"
    )


def test_no_secret_is_told(machine: Machine, values: dict[str, str]) -> None:
    for running in machine.running.values():
        told = running.log.read_text(errors="replace")
        assert [name for name, value in values.items() if value in told] == [], running.name


_STATE = "import json, urllib.request as u; print(json.load(u.urlopen('http://127.0.0.1:8080/json/'))['aliveworkers'])"
_MODELS = """
import mlflow
for model in mlflow.MlflowClient("http://mlflow:5000").search_registered_models():
    print(model.name)
"""
