"""Drift, volume, freshness and staleness of a small lake: what alarms, what does not, and what is written down."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import jobs
from genodl_spark.core import session
from genodl_spark.lake.delta import Lake
from genodl_spark.lake.tables.ingested import SOURCES
from genodl_spark.lake.tables.learning import PREDICTIONS
from genodl_spark.lake.tables.operations import FINDINGS, RUNS
from jobs import monitor

GENES = [f"G{i}" for i in range(20)]
SHIFTED = [f"G{i}" for i in range(10, 16)]  # noise to the model, which G0 to G4 tell all
FAST = (
    "train.epochs=4 train.min_steps=40 train.ensemble=1 train.learning_rate=0.01 train.launcher=process "
    "feed.backend=pyarrow tracking.uri=off split.folds=2"
)


def matrix(folder: Path, cohort: str, prefix: str, people: int, seed: int, shift: float = 0.0) -> list[str]:
    """A matrix whose first five genes tell two classes apart, SHIFTED ones moved by so many
    deviations, and its sample table.

    More people with the same seed are others beside the same.
    """
    kind = np.arange(people) % 2
    values = np.random.default_rng(seed).normal(size=(people, len(GENES))).T
    values[:5] += 3 * kind
    values[[gene in SHIFTED for gene in GENES]] += shift
    names = [f"{prefix}{i}" for i in range(people)]
    lines = ["gene\t" + "\t".join(names)] + [
        "\t".join([g, *(f"{v:.4f}" for v in row)]) for g, row in zip(GENES, values, strict=True)
    ]
    (folder / f"{prefix}.tsv").write_text("\n".join(lines) + "\n")
    table = ["sample_id\tstatus", *(f"{s}\t{'tumor' if k else 'normal'}" for s, k in zip(names, kind, strict=True))]
    (folder / f"{prefix}_samples.tsv").write_text("\n".join(table) + "\n")
    return [
        "expression",
        str(folder / f"{prefix}.tsv"),
        "--samples",
        str(folder / f"{prefix}_samples.tsv"),
        "--cohort",
        cohort,
    ]


@pytest.fixture(scope="module")
def lake(spark, tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """Cohort one, which trains a model and is scored by it."""
    folder = tmp_path_factory.mktemp("monitored")
    made = Lake(spark, str(folder / "lake"))
    call(made, "ingest", *matrix(folder, "one", "p", 60, 1))
    options = [word for setting in FAST.split() for word in ("--set", setting)]
    call(made, "train", "tumor_type", "--label", "status", "--procs", "1", *options)
    call(made, "predict", "tumor_type", "--label", "status", "--cohort", "one")
    return made


def call(lake: Lake, verb: str, *argv: str) -> dict[str, Any]:
    with session.shared():
        report = jobs.report_of(verb, [*argv, "--lake", lake.uri, "--master", "local[2]"])
    assert report["code"] == 0, report
    return report


@pytest.fixture
def check(lake: Lake, spark, capsys: pytest.CaptureFixture[str]) -> Any:
    """Monitors a lake; returns exit code, run report, lines of breaches, and the rows of `findings` that are
    new, by check and cohort."""

    def run(
        *assigned: str, of: Lake = lake
    ) -> tuple[int, dict[str, Any], list[str], dict[tuple[str, str], list[dict[str, Any]]]]:
        before = of.count(FINDINGS)
        capsys.readouterr()
        with session.shared():
            code = monitor.main(
                ["--lake", of.uri, "--master", "local[2]", *(word for text in assigned for word in ("--set", text))]
            )
        out = capsys.readouterr()
        report = json.loads(out.out.strip().split("\n")[-1])
        rows = of.rows(FINDINGS, {}).to_pylist()
        assert len(rows) - before == report["rows"].get("findings", {"written": 0})["written"]
        newest = max((row["found_at"] for row in rows), default=None)
        found: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for row in (row for row in rows if row["found_at"] == newest) if len(rows) > before else ():
            found.setdefault((row["check"], row["cohort"]), []).append(row)
        return code, report, [line for line in out.err.split("\n") if line.startswith("genodl: breach: ")], found

    return run


def test_from_no_drift_to_drift_and_stale_predictions(lake: Lake, check, tmp_path: Path) -> None:
    call(lake, "ingest", *matrix(tmp_path, "two", "q", 30, 2))  # other people of the same kind
    call(lake, "predict", "tumor_type", "--label", "status", "--cohort", "two")
    code, report, lines, found = check()
    assert (code, report["status"], report["metrics"]["breaches"], lines) == (0, "done", 0, [])
    checks = {"quarantined", "records", "unscored", "stale", "missing", "drifted"}
    assert set(found) == {(name, cohort) for name in checks for cohort in ("one", "two")} | {
        ("score", "two"),
        ("class_shares", "two"),
    }
    assert report["metrics"]["checks"] == len(found) == report["rows"]["findings"]["written"]
    assert found["drifted", "one"][0]["value"] == 0 and "60 rows against 60" in found["drifted", "one"][0]["message"]
    assert found["drifted", "two"][0]["value"] == 0 and "30 rows against 60" in found["drifted", "two"][0]["message"]
    assert set(report["metrics"]["worst_features"]["tumor_type (status) on one"].values()) == {0.0}
    assert [w for w in report["warnings"] if "score" in w] == [
        "tumor_type (status) on one: all of them trained the model, drift of scores is not checked"
    ]

    # They are measured again, six genes otherwise, and one more comes. Predictions of a cohort
    # that has gone, all of one class.
    call(lake, "ingest", *matrix(tmp_path, "two", "q", 31, 2, 3.0))
    scored = lake.rows(PREDICTIONS, {"cohort": "two"}).to_pylist()
    gone = [
        {**row, "cohort": "three", "predicted": "tumor", "value": 0.5 + 0.4 * i / 30} for i, row in enumerate(scored)
    ]
    lake.append(PREDICTIONS, pa.Table.from_pylist(gone, PREDICTIONS.arrow_schema()))
    code, report, lines, found = check("monitor.bins=8", "monitor.worst=4", "monitor.prediction_hours=1")
    assert (code, report["status"], report["job"]) == (3, "done", "monitor")
    whole, features = found["drifted", "two"][0], found["feature", "two"]
    assert (whole["breached"], whole["value"], whole["threshold"]) == (True, 6 / 20, 0.1)
    assert len(features) == 4 and {row["subject"] for row in features} < set(SHIFTED)
    assert all(row["breached"] and row["value"] > row["threshold"] > 0.25 for row in features)
    assert {(row["task"], row["label_column"]) for row in features} == {("tumor_type", "status")}
    assert (found["unscored", "two"][0]["value"], found["stale", "two"][0]["value"]) == (1 / 31, 1)
    # whose tables have moved, but not their rows
    assert found["stale", "one"][0]["value"] == found["stale", "three"][0]["value"] == 0
    assert found["score", "three"][0]["value"] > found["score", "three"][0]["threshold"] > 0.2
    assert "three: the cohort has no data any more" in " ".join(report["warnings"])
    alarms = {key for key, rows in found.items() if any(row["breached"] for row in rows)}
    assert alarms == {(name, "two") for name in ("unscored", "stale", "drifted", "feature")} | {
        ("score", "three"),
        ("class_shares", "three"),
    }
    # no hours, no check
    assert 0 <= found["prediction_age", "two"][0]["value"] < 1 and ("ingest_age", "two") not in found
    assert report["metrics"]["breaches"] == len(report["metrics"]["findings"]) == len(lines) == 9
    assert f"genodl: breach: tumor_type (status) on two: drifted: {whole['message']}" in lines
    recorded = {row.job: json.loads(row.report) for row in lake.read(RUNS).orderBy("started_at").collect()}["monitor"]
    assert (recorded["metrics"]["breaches"], recorded["status"]) == (9, "done")


def source(file: str, records: int, quarantined: int, hours: float, cohort: str = "c") -> dict[str, Any]:
    made = {
        "cohort": cohort,
        "source": "vcf",
        "block": "",
        "file": file,
        "uri": file,
        "bytes": 1,
        "sha256": "",
        "options": "",
    }
    return {
        **made,
        "records": records,
        "quarantined": quarantined,
        "ingested_at": datetime.now(UTC) - timedelta(hours=hours),
    }


def test_files_without_predictions(spark, check, tmp_path: Path) -> None:
    lake = Lake(spark, str(tmp_path / "lake"))
    rows = [
        source("chr1.vcf", 1000, 10, 5),
        source("chr2.vcf", 900, 30, 30),
        source("chr3.vcf", 10, 0, 50),
        source("x.vcf", 1, 0, 9, "d"),
    ]
    lake.append(SOURCES, pa.Table.from_pylist(rows, SOURCES.arrow_schema()))
    code, report, lines, found = check(of=lake)
    assert code == 3 and report["warnings"] == ["found no predictions: only what was ingested is checked"]
    whole, file = found["quarantined", "c"]
    assert (whole["value"], whole["subject"], whole["breached"]) == (30 / 930, "", True)
    # ten of a thousand and ten are under the limit
    assert (file["value"], file["subject"]) == (30 / 930, "vcf/chr2.vcf")
    whole, file = found["records", "c"]
    assert (file["value"], file["threshold"], file["subject"]) == (10 / 900, 0.02, "vcf/chr3.vcf")
    assert not any(row["breached"] for (_, cohort), rows in found.items() for row in rows if cohort == "d")
    assert len(lines) == report["metrics"]["breaches"] == 4 and "vcf/chr3.vcf: 1.1% of the median" in lines[3]

    limits = ("monitor.quarantined=1", "monitor.records=0")
    code, _, lines, found = check(*limits, "monitor.ingest_hours=6", of=lake)
    assert code == 3 and [row["breached"] for row in (found["ingest_age", "c"] + found["ingest_age", "d"])] == [
        False,
        True,
    ]
    assert found["ingest_age", "d"][0]["value"] == pytest.approx(9, abs=0.1) and len(lines) == 1
    assert ("records", "c") not in found
    assert check(*limits, of=lake)[0] == 0


def test_no_lake(check, spark, tmp_path: Path) -> None:
    code, report, lines, _ = check(of=Lake(spark, str(tmp_path / "none")))
    assert (code, report["status"], lines) == (2, "failed", []) and "no lake there" in report["error"]
    (tmp_path / "empty").mkdir()
    code, report, _, _ = check(of=Lake(spark, str(tmp_path / "empty")))
    assert (code, report["warnings"]) == (0, ["found no predictions: there is nothing to check"])
