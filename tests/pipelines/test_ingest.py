"""Matrices and sample tables through the command line: contents, repeats, additions and refusals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from genodl_spark.job import execution
from genodl_spark.job.execution import claim_of
from genodl_spark.job.run import Run
from genodl_spark.lake.delta import Lake
from genodl_spark.lake.tables.ingested import EXPRESSION, FEATURES, SAMPLES, SOURCES
from genodl_spark.lake.tables.operations import RUNS
from jobs import ingest, query


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def values(lake: Lake) -> dict[str, dict[str, float]]:
    orders: dict[str, list[str]] = {}
    for row in lake.read(FEATURES).orderBy("feature_set", "position").collect():
        orders.setdefault(row.feature_set, []).append(row.feature_id)
    rows = lake.read(EXPRESSION).collect()
    return {
        r.sample_id: dict(zip(orders[r.feature_set], np.frombuffer(r.x, np.float32).tolist(), strict=True))
        for r in rows
    }


def test_a_cohort_grows_file_by_file(genodl, lake: Lake, tmp_path: Path) -> None:
    first = write(tmp_path / "one.tsv", "g\ts1\ts2\nA\t1\t2\nB\t3\t4\n")
    table = write(tmp_path / "s.tsv", "sample_id\tlabel\ns1\tx\ns2\ty\n")
    code, _, line = genodl(ingest, "expression", first, "--lake", lake.uri)
    assert code == 2 and "found no cohort in the lake yet; expected the name of a new one, give it" in line
    common = ("--lake", lake.uri, "--cohort", "c'1")
    code, report, _ = genodl(ingest, "expression", first, "--samples", table, *common)
    assert (code, report["status"], report["rows"]["expression"]) == (
        0,
        "done",
        {"written": 2, "total": 2, "quarantined": 0},
    )
    versions = report["tables"]["written"]
    code, report, _ = genodl(ingest, "expression", first, "--samples", table, *common)
    assert (code, report["status"]) == (0, "unchanged")
    assert report["tables"]["written"]["expression"] == versions["expression"]
    second = write(tmp_path / "two.tsv", "g\ts2\ts3\nC\t5\t6\nA\tNA\t8\n")
    assert genodl(ingest, "expression", second, *common)[0] == 0
    assert values(lake) == {"s1": {"A": 1, "B": 3}, "s2": {"A": 2, "B": 4, "C": 5}, "s3": {"C": 6, "A": 8}}
    assert {r.sample_id: r.label for r in lake.read(SAMPLES).collect()} == {"s1": "x", "s2": "y", "s3": None}
    assert sorted(r.file for r in lake.read(SOURCES).collect()) == ["one.tsv", "s.tsv", "two.tsv"]
    code, report, _ = genodl(
        query, "SELECT sample_id, label FROM samples WHERE label IS NOT NULL ORDER BY 1", "--lake", lake.uri
    )
    assert report["result"] == [{"sample_id": "s1", "label": "x"}, {"sample_id": "s2", "label": "y"}]


@pytest.mark.parametrize(
    ("matrix", "table", "found"),
    [
        ("g\ts1\nA\t1\nA\t2\n", None, "m.tsv:3: feature A stands twice"),
        ("g\ts1\nA\tx\n", None, "m.tsv:2: found 'x' for feature A"),
        ("g\ts1\ts9\nA\t1\t2\n", "sample_id\ns1\n", "found no row for 1 of 2 samples"),
        (None, None, "no such file"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    genodl, lake: Lake, tmp_path: Path, matrix: str | None, table: str | None, found: str
) -> None:
    path = str(tmp_path / "m.tsv") if matrix is None else write(tmp_path / "m.tsv", matrix)
    more = () if table is None else ("--samples", write(tmp_path / "s.tsv", table))
    code, report, line = genodl(ingest, "expression", path, "--lake", lake.uri, "--cohort", "c", *more)
    assert (code, report["status"]) == (2, "failed")
    assert line.startswith("genodl: error: ")
    assert found in line
    assert not lake.exists(EXPRESSION)


def test_the_same_command_waits_for_itself(genodl, lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[Run] = []

    def noted(run: Run) -> str:
        runs.append(run)
        return claim_of(run)

    monkeypatch.setattr(execution, "claim_of", noted)
    files = [write(tmp_path / f"{name}.tsv", f"g\t{name}1\nA\t1\n") for name in "ab"]
    more = ("--cohort", "c", "--lake", lake.uri, "--set", "lock.wait_seconds=0.2")
    assert genodl(ingest, "expression", files[0], *more)[0] == 0
    with runs[0].holding(claim_of(runs[0])):
        code, report, line = genodl(ingest, "expression", files[0], *more)
        assert (code, report["status"]) == (4, "failed") and "found genodl ingest on" in line
        assert genodl(ingest, "expression", files[1], *more)[1]["status"] == "done"
    assert genodl(ingest, "expression", files[0], *more)[1]["status"] == "unchanged"
    assert genodl(ingest, "expression", str(tmp_path / "gone.tsv"), *more)[0] == 2
    told = [row for row in lake.read(RUNS).collect() if row.status == "failed"]
    assert [json.loads(row.report)["error"].endswith("check the path") for row in told] == [True]
    first, again, other, last, _ = map(claim_of, runs)
    assert first == again == last != other


def test_unknown_arguments_are_input_errors(genodl) -> None:
    for argv in (["expresion", "x"], ["expression"], ["expression", "x", "--lake", "y", "--set", "trian.epochs=1"]):
        code, _, line = genodl(ingest, *argv)
        assert code == 2
        assert line.startswith("genodl: error: ")
    assert {"ingest"} <= execution.WRITES
