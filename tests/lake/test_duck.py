"""SQL and listings over a lake's files without a JVM: what is refused, what is held against checksums,
and what is left in `runs`."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from genodl_spark.core import session, storage
from genodl_spark.core.errors import InputError
from genodl_spark.lake import duck, table_log
from genodl_spark.lake.duck import Duck
from genodl_spark.lake.schema import Table
from genodl_spark.lake.stored import StoredLake
from genodl_spark.lake.tables import TABLES
from genodl_spark.lake.tables.learning import PREDICTIONS
from genodl_spark.lake.tables.operations import RUNS
from jobs import list as list_job
from jobs import query
from tests.frozen.make import FACTS, LAKE

REFUSED = (
    ("SELECT genodl_predict('binding', codes) AS p FROM sequences", "function genodl_predict"),
    ("SELECT dosage(x) AS d FROM variants", "function dosage"),
    ("SELECT * FROM read_parquet('/etc/passwd')", "table function"),
    ("SELECT * FROM '/etc/passwd'", "relation /etc/passwd"),
    ("COPY samples TO '/tmp/x'", "Only SELECT"),
    ("SELECT 1 AS a; SELECT 2 AS b", "2 statements"),
    ("INSTALL httpfs", "Only SELECT"),
    ("SET threads = 1", "Only SELECT"),
    ("PRAGMA database_list", "Only SELECT"),
    ("ATTACH '/tmp/x.db'", "Only SELECT"),
    ("SELECT getenv('HOME') AS h", "function getenv"),
    ("SELECT current_setting('threads') AS t", "function current_setting"),
    ("SELECT * FROM duckdb_settings()", "table function"),
    ("SELECT * FROM information_schema.tables", "relation information_schema.tables"),
    ('SELECT "cohort" FROM samples', 'found " in the statement'),
    ("SELECT 'a\\nb' AS t", "in the statement, which DuckDB reads in another way"),
    ("SELECT 1L", "found 1L in the statement"),
    ("SELECT CAST(1.5 AS INT) AS i", "a cast to INTEGER"),
    ("SELECT 2 ^ 3 AS p", "^ in the statement"),
    ("SELECT 1 / 0 AS q", "division by zero"),
    ("SELECT sum(pos) / 2 FROM variants", "without a name"),
    ("SELECT classes[1] AS s FROM models", "an element that is not named"),
    ("SELECT concat(cohort, 'x') AS c FROM samples", "function concat"),
    ("SELECT avg(0.5) AS h", "the decimal 0.5"),
    ("SELECT nothing FROM samples", "nothing"),
    ("SELECT * FROM nowhere", "expected one of the lake's views"),
    ("SELECT * FROM samples s, variants v", "* over a join"),
    ("FROM samples SELECT * EXCLUDE (cohort)", "exclude"),
    ("SELECT COLUMNS(*) FROM samples", "columns"),
    ("SELECT 'a' 'b' AS t", "in the statement"),
    ("SELECT ? AS p", "parameter"),
    ("SELECT s FROM (SELECT count(*) FROM samples) t(s)", "without a name"),
    ("SELECT sum(1) OVER (ORDER BY pos), max(pos) FILTER (WHERE pos > 1) FROM variants", "without a name"),
    ("WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r) SELECT n FROM r", "recursive"),
    ("SELECT * FROM samples USING SAMPLE 3", "sample"),
    ("SELECT * FROM samples AT (VERSION => 1)", ""),
    ("PIVOT samples ON cohort", ""),
    ("SELECT 1e400 AS i", "the number 1e400"),
    ("SELECT 9223372036854775808 AS i", "the number 9223372036854775808"),
    ("SELECT DISTINCT ON (cohort) cohort, sample_id FROM samples", "DISTINCT ON"),
    ("SELECT max(pos) - min(pos) FROM variants", "without a name"),
    ("SELECT scored_at - scored_at AS d FROM predictions", "an answer of type INTERVAL"),
)


def none() -> Any:
    raise AssertionError("a session was asked for")


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StoredLake:
    """A lake of every table that no session may be started for."""
    with tarfile.open(LAKE) as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.setattr(session, "build", lambda *_: none())
    return StoredLake(str((tmp_path / "lake").rename(tmp_path / "a lake, 100% odd")), none)


def rows(lake: StoredLake, sql: str) -> list[tuple[Any, ...]]:
    made = Duck(lake)
    try:
        return list(made.answer(sql)[1])
    finally:
        made.close()


@pytest.mark.parametrize("uri", ["file:///nowhere/at/all"])
def test_what_is_refused_is_told_before_anything_is_read(stored: StoredLake, uri: str) -> None:
    for sql, found in REFUSED:
        with pytest.raises(InputError) as caught:
            rows(stored, sql)
        assert found in str(caught.value) and (
            "leave --engine out" in str(caught.value) or "views" in str(caught.value)
        ), sql
    for sql in (
        "SELECT " + "(" * 5000 + "1" + ")" * 5000 + " AS a",
        "SELECT 1 AS a" + " + 1" * 3000,
        "SELECT \udcff AS a",
        "SELECT '",
        "",
    ):
        with pytest.raises(InputError, match="leave --engine out"):
            rows(stored, sql)
    assert rows(StoredLake(uri, none), "SELECT count(*) FROM samples") == [(0,)]


def test_nothing_but_the_files_of_a_statement_can_be_opened(stored: StoredLake) -> None:
    made = Duck(stored)
    assert list(made.answer("SELECT count(*) AS n FROM samples")[1]) == [(104,)]
    other = stored.files(PREDICTIONS, stored.version(PREDICTIONS) or 0)[0]
    for sql in (
        f"SELECT * FROM read_parquet('{storage.local_path(other.uri)}')",
        "SELECT * FROM read_text('/etc/hostname')",
        "COPY (SELECT 1) TO '/tmp/x'",
        "ATTACH '/tmp/x.db'",
        "INSTALL httpfs",
        "SET enable_external_access = true",
    ):
        with pytest.raises(duck.duckdb.Error, match=r"disabled|locked|[Cc]annot"):
            made._connection.execute(sql)
    made.close()


def test_a_log_without_lists_is_read_all_the_same(stored: StoredLake) -> None:
    def seen() -> list[Any]:
        tables = [(t.name, stored.version(t), stored.count(t)) for t in stored.existing()]
        return [
            tables,
            rows(stored, "SELECT * FROM predictions ORDER BY task, label_column, entity_id"),
            rows(stored, "SELECT * FROM evaluations"),
        ]

    before = seen()
    assert {name: count for name, _, count in before[0]} == {
        n: t["rows"] for n, t in json.loads(FACTS.read_text())["tables"].items() if t["rows"]
    }
    sums = {file.uri: file.checksum for file in stored.files(RUNS, stored.version(RUNS) or 0)}
    for file in Path(storage.local_path(stored.uri)).glob("*/_delta_log/*.crc"):
        file.unlink()
    assert seen() == before
    assert {file.uri: file.checksum for file in stored.files(RUNS, stored.version(RUNS) or 0)} == sums and all(
        sums.values()
    )


@pytest.mark.parametrize("table", [TABLES["samples"], PREDICTIONS])
def test_a_file_that_has_changed_is_refused_by_name(
    stored: StoredLake, table: Table, capsys: pytest.CaptureFixture[str]
) -> None:
    path = Path(storage.local_path(stored.files(table, stored.version(table) or 0)[0].uri))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    at = ("--lake", stored.uri)
    asked = [
        (query, "--engine", "duckdb", f"SELECT count(*) FROM {table.name}"),
        *([(list_job, "cohorts")] if table.name == "samples" else []),
    ]
    for verb, *argv in asked:
        assert verb.main([*argv, *at]) == 2
        out = capsys.readouterr()
        assert path.name in out.err and "other bytes than were written" in out.err and len(out.out.splitlines()) == 1


def test_a_reader_that_closes_early_is_no_failure(stored: StoredLake) -> None:
    line = f"{sys.executable} -u -m jobs list tables --lake {shlex.quote(stored.uri)} | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_path_of_brackets_is_no_pattern(stored: StoredLake) -> None:
    here = Path(storage.local_path(stored.uri))
    moved = StoredLake(str(here.rename(here.parent / "a [1]* lake")), none)
    sql = "SELECT cohort, count(*) AS n FROM samples GROUP BY cohort ORDER BY cohort"
    assert rows(moved, sql) == [("bound", 40), ("driven", 40), ("people", 24)]
    assert len(rows(moved, "SELECT * FROM predictions_latest")) == 216


def test_what_was_asked_stands_in_runs(stored: StoredLake, capsys: pytest.CaptureFixture[str]) -> None:
    version, before = stored.version(RUNS), stored.count(RUNS)
    assert version is not None
    at = ("--lake", stored.uri, "--engine", "duckdb")
    assert query.main(["SELECT 1 AS a", *at]) == 0 and query.main(["SELECT getenv('x') AS a", *at]) == 2
    assert (stored.version(RUNS), stored.count(RUNS)) == (version + 2, before + 2)
    kept = [row for row in stored.rows(RUNS, {"job": "query"}).to_pylist() if "duckdb" in row["arguments"]]
    assert [
        (row["status"], json.loads(row["arguments"])[0]) for row in sorted(kept, key=lambda row: row["started_at"])
    ] == [
        ("done", "SELECT 1 AS a"),
        ("failed", "SELECT getenv('x') AS a"),
    ]
    log = storage.join(stored.path(RUNS), "_delta_log")
    actions = [list(action) for action in table_log.actions(log, version + 2)]
    assert actions == [["commitInfo"], ["add"]]
    listed = stored._listed(RUNS, version + 2)
    assert listed["numFiles"] == len(listed["allFiles"]) == len(stored.files(RUNS, version + 2))
    assert listed["tableSizeBytes"] == sum(file.size for file in stored.files(RUNS, version + 2))
    # Another run's commit in between: the next version is tried.
    new = stored.rows(RUNS, {"job": "query"}).slice(0, 1)
    stored._newest[RUNS.name] = version
    stored.append_few(RUNS, new)
    assert stored.version(RUNS) == version + 3
    # What needs Delta itself is left to it.
    beside = Path(storage.local_path(log)) / f"{version + 3:020}.crc"
    content = json.loads(beside.read_text())
    files = len(list(Path(storage.local_path(stored.path(RUNS))).glob("*.parquet")))
    for change in (
        {"protocol": {"minReaderVersion": 3, "minWriterVersion": 7}},
        {"histogramOpt": {}},
        {"numFiles": None},
    ):
        beside.write_text(json.dumps({key: value for key, value in {**content, **change}.items() if value is not None}))
        with pytest.raises(ValueError, match="found"):
            stored.append_few(RUNS, new)
    assert (
        stored.version(RUNS) == version + 3
        and len(list(Path(storage.local_path(stored.path(RUNS))).glob("*.parquet"))) == files
    )
