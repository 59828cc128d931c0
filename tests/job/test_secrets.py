"""A secret that a run is given, or that its environment has, stands in no table, log, report, event log,
MLflow store or command line."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from genodl_spark.core import redaction
from genodl_spark.core.output import LogFormatter
from genodl_spark.lake.delta import Lake
from genodl_spark.lake.tables.learning import MODELS
from genodl_spark.lake.tables.operations import RUNS
from jobs import ingest, query, train
from jobs import list as listing
from jobs import report as report_job

SECRET = "pl4nted-Secret/42"
ENCODED = SECRET.replace("/", "%2F")
# as drivers of object stores, of MLflow and of the SQL server take theirs
ENVIRONMENT = {
    name: f"pl4nted-in-{name.lower()}"
    for name in (
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AZURE_STORAGE_KEY",
        "GENODL_KEYSTORE_PASSWORD",
        "MLFLOW_TRACKING_PASSWORD",
        "SOMETHING_ELSE",
    )
}
PLANTED = (SECRET, ENCODED, *ENVIRONMENT.values())


def with_a_secret(folder: Path) -> list[str]:
    """Files below a folder that one stands in, but for the one that it was given in."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name not in ("secrets.toml", "script.py")]
    return [str(path) for path in files if any(form.encode() in path.read_bytes() for form in PLANTED)]


FAST = (
    "--procs",
    "1",
    "--set",
    "train.epochs=1",
    "--set",
    "train.min_steps=1",
    "--set",
    "train.ensemble=1",
    "--set",
    "train.launcher=process",
)


def test_a_planted_secret_is_found_nowhere(
    genodl, lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(redaction, "_learnt", set())
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    people, genes = [f"p{i}" for i in range(12)], range(4)
    matrix = [
        "\t".join(["gene", *people]),
        *("\t".join([f"G{g}", *(str(g * i % 7) for i in range(12))]) for g in genes),
    ]
    (tmp_path / "m.tsv").write_text("\n".join(matrix) + "\n")
    (tmp_path / "s.tsv").write_text(
        "sample_id\tlabel\n" + "".join(f"{p}\t{'ab'[i % 2]}\n" for i, p in enumerate(people))
    )
    (tmp_path / "secrets.toml").write_text(
        f'[spark]\nhadoop.fs.s3a.secret.key = "{SECRET}"\nhadoop.fs.azure.account.key.me = "{SECRET}"\n[tune]\nstorage '
        f'= "mysql://me:{ENCODED}@h/d"\n'
    )
    given = (
        "--config",
        str(tmp_path / "secrets.toml"),
        "--set",
        f"spark.hadoop.fs.s3a.session.token={SECRET}",
        "--lake",
        lake.uri,
    )
    split = ("--set", "split.folds=2")
    store = ("--set", f"tracking.uri=postgresql://me:{ENCODED}@127.0.0.1:1/x")
    answers = [
        genodl(
            ingest, "expression", str(tmp_path / "m.tsv"), "--samples", str(tmp_path / "s.tsv"), "--cohort", "c", *given
        ),
        genodl(train, "tumor_type", *given, *FAST, *split),  # into the MLflow store of the lake
        genodl(train, "tumor_type", *given, *FAST, *split, "--seed", "1", *store),
        genodl(train, "tumor_type", *given, "--set", f"train.epochs={SECRET}"),
        genodl(query, f"SELECT '{SECRET}' FROM nothing_there", *given),
        genodl(listing, "runs", *given),
        genodl(report_job, "--output", str(tmp_path / "report"), *given),
    ]
    assert [code for code, _, _ in answers] == [0, 0, 0, 2, 2, 0, 0]
    assert any("MLflow at postgresql://me:***@" in warning for warning in answers[2][1]["warnings"])
    runs, models = lake.read(RUNS).collect(), lake.read(MODELS).collect()
    assert [row.job for row in sorted(runs, key=lambda row: row.started_at)] == [
        "ingest",
        "train",
        "train",
        "query",
    ] and len(models) == 2
    stored = "".join(str(row) for row in [*runs, *models])
    assert stored.count("spark.hadoop.fs.s3a.session.token=***") == 4 and "mysql://me:***@h/d" in stored
    said = "\n".join(LogFormatter("%(message)s").format(record) for record in caplog.records)
    assert "MLflow at postgresql://me:***@" in said
    for text in (str([report for _, report, _ in answers]), str([line for *_, line in answers]), stored, said):
        for form in PLANTED:
            assert form not in text
    assert {path.name for path in tmp_path.rglob("*")} >= {"mlflow.db", "index.html"}
    assert with_a_secret(tmp_path) == []


def test_neither_output_nor_a_command_line_has_a_secret(tmp_path: Path) -> None:
    """Of a command that starts its own JVM: of that and of all that it starts; a refusal and a crash on the way."""
    (tmp_path / "lake").mkdir()
    (tmp_path / "events").mkdir()
    (tmp_path / "secrets.toml").write_text(
        f'[spark]\nhadoop.fs.s3a.secret.key = "{SECRET}"\nx.url = "http://me:{SECRET}@h"\n'
    )
    script = f"""
        import sys
        from pathlib import Path
        from genodl_spark.core import session
        from genodl_spark.pipelines import query as pipeline
        from jobs import query

        session.stop = lambda: None
        given = ["--lake", {str(tmp_path / "lake")!r}, "--config", {str(tmp_path / "secrets.toml")!r}]
        given += ["--master", "local[2]"]
        for one in ("enabled=true", "compress=false", {f"dir={tmp_path / 'events'}"!r}):
            given += ["--set", f"spark.eventLog.{{one}}"]
        assert query.main(["SELECT 1 AS one", *given]) == 0
        assert query.main(["SELECT '{SECRET}' FROM nothing_there", *given]) == 2
        pipeline.query = lambda *_: 1 / len('{SECRET}'[99:])
        assert query.main(["SELECT '{SECRET}'", *given]) == 1
        from pyspark.sql import SparkSession

        spark = SparkSession.getActiveSession()
        spark.range(2).rdd.map(lambda row: row.id).sum()  # with a Python worker
        assert spark.sparkContext._jsc.hadoopConfiguration().get("fs.s3a.secret.key") == "{SECRET}"
        found = []
        for place in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                found.append(place.read_bytes())
            except OSError:
                pass
        planted = {[form.encode() for form in PLANTED]!r}
        print(
            sum(b"SparkSubmit" in line for line in found),
            sum(form in line for line in found for form in planted),
        )
        spark.stop()
    """
    path = tmp_path / "script.py"
    path.write_text(textwrap.dedent(script))
    environment = {**os.environ, **ENVIRONMENT, "PYTHONPATH": str(Path(redaction.__file__).parents[2])}
    done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, env=environment, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    java, secret = map(int, done.stdout.split()[-2:])
    assert java >= 1 and secret == 0
    assert "job failed" in done.stderr and "ZeroDivisionError" in done.stderr
    assert [form for form in PLANTED if form in done.stderr + done.stdout] == []
    (events,) = (path for path in (tmp_path / "events").rglob("*") if path.is_file() and path.stat().st_size > 10_000)
    assert "spark.hadoop.fs.s3a.secret.key" in events.read_text()  # with what stands for its value
    assert with_a_secret(tmp_path) == []
