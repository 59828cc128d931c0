"""What needs no Spark is answered without it, and to the letter as Spark answers: `list`, and `query --engine duckdb`;
and a shell's statements."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from genodl_spark.core import session, storage
from genodl_spark.lake.delta import Lake
from genodl_spark.lake.tables.learning import PREDICTIONS
from genodl_spark.lake.tables.operations import RUNS
from genodl_spark.registry.listings import LISTINGS
from jobs import list as list_job
from jobs import query, shell
from tests.frozen.make import LAKE

SAME = (
    "SELECT count(*), min(entity_id), max(scored_at) FROM predictions",
    "SELECT * FROM samples ORDER BY cohort, sample_id",
    "SELECT * FROM predictions ORDER BY task, cohort, label_column, entity_id",
    "SELECT * FROM predictions_latest WHERE task = 'tumor_type' ORDER BY label_column, entity_id",
    "SELECT * FROM predictions_tumor_type ORDER BY label_column, entity_id",
    "SELECT * FROM predictions_compared ORDER BY task, cohort, entity_id, challenger_model_id",
    (
        "SELECT task, cohort, predicted, count(*) AS n, round(avg(value), 3) AS v FROM predictions_latest GROUP "
        "BY ALL ORDER BY task, predicted, n"
    ),
    "SELECT * FROM expression ORDER BY block, sample_id LIMIT 5",
    "SELECT * FROM sample_sets ORDER BY 1, 2, 3 LIMIT 2",
    "SELECT * FROM models ORDER BY trained_at",
    "SELECT * FROM variants ORDER BY chrom, pos LIMIT 7",
    (
        "SELECT entity_id, probabilities['left'] AS l, probabilities['nothing'] AS no FROM predictions "
        "WHERE label_column = 'site' ORDER BY entity_id"
    ),
    (
        "SELECT value, value = value AS same, round(value, 2) AS r FROM predictions WHERE model_id = 'odd' "
        "ORDER BY value DESC, entity_id"
    ),
    "SELECT entity_id FROM predictions WHERE model_id = 'odd' AND scored_at > '2026-01-01' ORDER BY value, entity_id",
    "SELECT p.cohort, s.site, count(DISTINCT p.entity_id) AS n FROM predictions p JOIN samples s ON p.entity_id = "
    "s.sample_id AND p.cohort = s.cohort GROUP BY p.cohort, s.site ORDER BY n DESC, s.site, p.cohort",
    (
        "WITH m AS (SELECT model_id, n_features / 3 AS third FROM models) SELECT model_id, third FROM m WHERE third > "
        "3.5 ORDER BY third, model_id"
    ),
    (
        "SELECT sum(rows), avg(n_features), length('aä'), upper(max(task)) FROM (SELECT 1 AS rows, "
        "n_features, task FROM models) t"
    ),
    (
        "SELECT entity_id, row_number() OVER (PARTITION BY task ORDER BY entity_id DESC) AS k FROM predictions ORDER "
        "BY task, k, entity_id LIMIT 9"
    ),
    "SELECT CASE WHEN abstained THEN 'yes' ELSE 'no' END AS a, count(1) AS n FROM predictions GROUP BY 1 ORDER BY 1",
    (
        "SELECT sample_id FROM samples WHERE sample_id LIKE 'P%' UNION SELECT entity_id FROM predictions "
        "ORDER BY sample_id LIMIT 12"
    ),
    "SELECT Sample_ID, COUNT(*) FROM samples GROUP BY Sample_ID HAVING count(*) >= 1 ORDER BY Sample_ID DESC LIMIT 3",
    "SELECT * FROM findings WHERE 1 = 2",
)


@pytest.fixture
def frozen(lake: Lake, tmp_path: Path) -> Lake:
    """A lake with every kind of table, and predictions with numbers that are none, NULL, and halves that round."""
    with tarfile.open(LAKE) as archive:
        archive.extractall(tmp_path / "frozen", filter="data")
    (tmp_path / "frozen" / "lake").rename(storage.local_path(lake.uri))
    for table in lake.existing():  # columns that came later, as `genodl maintain` adds them
        lake.upgrade(table)
    like = lake.rows(PREDICTIONS, {"task": "binding"}).slice(0, 6).to_pylist()
    values = (float("nan"), float("inf"), -0.0, None, 2.675, 1e-20)
    named = {"task": "odd é'x", "cohort": "c'o=h%20 ü", "model_id": "odd"}
    odd = [
        {**row, **named, "value": v, "predicted": "1" if v is None else None}
        for row, v in zip(like, values, strict=True)
    ]
    columns = [
        [list(row[f.name].items()) if isinstance(row[f.name], dict) else row[f.name] for row in odd]
        for f in PREDICTIONS.arrow_schema()
    ]
    arrays = [pa.array(c, f.type) for c, f in zip(columns, PREDICTIONS.arrow_schema(), strict=True)]
    lake.append(PREDICTIONS, pa.Table.from_arrays(arrays, schema=PREDICTIONS.arrow_schema()))
    return lake


@pytest.fixture
def asked(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Exit code, lines before the report, its result, and the last line on stderr of a verb."""
    monkeypatch.setattr(session, "stop", lambda: None)

    def ask(verb: Any, *argv: str) -> tuple[int, list[str], Any, str]:
        code = verb.main([*argv, "--master", "local[2]"])
        out = capsys.readouterr()
        lines = out.out.splitlines()
        return code, lines[:-1], json.loads(lines[-1]).get("result"), (out.err.strip().split("\n") or [""])[-1]

    return ask


def test_without_a_jvm_the_answers_are_those_of_spark(
    frozen: Lake, asked: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lake = frozen
    at, duck = ("--lake", lake.uri), ("--lake", lake.uri, "--engine", "duckdb")
    spark_answers = {sql: asked(query, sql, *at)[:3] for sql in SAME}
    listed = {what: asked(query, sql, *at)[:3] for what, sql in LISTINGS.items() if sql and what != "runs"}
    tables = [["table", "version", "rows", "description"]]
    tables += [
        [t.name, str(lake.version(t)), str(lake.read(t).count()), t.doc] for t in lake.existing() if t is not RUNS
    ]
    before = lake.count(RUNS)

    def none(*_: Any) -> None:
        raise AssertionError("a session was asked for")

    with monkeypatch.context() as closed:
        closed.setattr(session, "build", none)
        for sql, answer in spark_answers.items():
            assert answer[0] == 0 and asked(query, sql, *duck)[:3] == answer, sql
        assert asked(query, "SELECT round(value, 2) AS r FROM predictions WHERE entity_id = 'x'", *duck)[1] == ["r"]
        assert asked(query, "SELECT nothing FROM samples", *duck)[0] == 2
        for what, answer in listed.items():
            assert asked(list_job, what, *at)[:3] == answer, what
        runs = asked(list_job, "runs", *at)
        assert [
            line.split("\t") for line in asked(list_job, "tables", *at)[1] if not line.startswith("runs\t")
        ] == tables

    # What was asked, answered or refused, stands in `runs`: rows that Spark reads and commits after.
    done = len(SAME) + 2
    assert lake.count(RUNS) == before + done and len(runs[1]) == before + done + 1
    rows = lake.read(RUNS).where("job = 'query' AND arguments LIKE '%duckdb%'").collect()
    assert len(rows) == done and sum(row.status == "failed" for row in rows) == 1
    version = lake.version(RUNS)
    assert (
        version is not None
        and all(file.checksum for file in lake.files(RUNS, version))
        and "allFiles" in lake._listed(RUNS, version)
    )
    assert asked(query, LISTINGS["runs"], *at)[1] == runs[1]
    assert lake.count(RUNS) == before + done + 1 and lake.version(RUNS) == version + 1
    assert "allFiles" in lake._listed(RUNS, version + 1)


SCRIPT = """list cohorts
SELECT cohort,
       count(*) AS n   -- a ; in a remark
FROM samples GROUP BY cohort ORDER BY cohort;
SELECT nothing FROM samples; SELECT 'a;b' AS t;
query "SELECT 1 AS one" --engine duckdb;

DROP TABLE samples;
list nonsense
query "SELECT 2
settings lock.wait_seconds
quit
SELECT 3 AS not_asked;
"""


def test_a_shell_runs_verbs_and_sql_in_one_session(
    frozen: Lake, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lake, at = frozen, ["--lake", frozen.uri, "--master", "local[2]", "--set", "lock.wait_seconds=7"]
    before = lake.count(RUNS)
    monkeypatch.setattr(session, "stop", lambda: None)
    monkeypatch.setattr("sys.stdin", io.StringIO(SCRIPT))
    assert shell.main(at) == 2
    out = capsys.readouterr()
    lines = out.out.splitlines()
    reports = [json.loads(line) for line in lines if line.startswith('{"job"')]
    answers = [line for line in lines if not line.startswith('{"job"')]
    people = ["bound\t40", "driven\t40", "people\t24"]
    assert (
        answers[:11]
        == ["cohort\tsamples\tlabels", *(f"{line}\t0" for line in people), "cohort\tn", *people, "t", "a;b", "one"]
        and answers[11] == "1"
    )
    assert answers[12] == "lock.wait_seconds = 7.0" and not any("not_asked" in line for line in answers)
    told = [(one["job"], one["status"]) for one in reports]
    assert told == [("list", "done"), ("query", "done"), ("list", "failed"), ("settings", "done"), ("shell", "done")]
    assert reports[-1]["metrics"] == {"statements": 9, "failed": 4}
    errors = [line for line in out.err.splitlines() if line.startswith("genodl: error:")]
    assert [
        next(word for word in ("nothing", "DROP", "nonsense", "quotes in pairs") if word in line) for line in errors
    ] == [*("nothing", "DROP", "nonsense", "quotes in pairs")]
    kept = [
        json.loads(row["arguments"])
        for row in lake.rows(RUNS, {"job": "query"}).to_pylist()
        if "lock.wait_seconds=7" in row["arguments"]
    ]
    assert lake.count(RUNS) == before + 5 == before + len(kept)
    assert {argv[-1] for argv in kept if "duckdb" not in argv} >= {
        "SELECT nothing FROM samples",
        "SELECT 'a;b' AS t",
        "DROP TABLE samples",
    }
    monkeypatch.setattr("sys.stdin", io.StringIO("SELECT 1 AS a;"))
    assert shell.main(at) == 0 and shell.main(["--lake", f"{lake.uri}/nowhere"]) == 2
