"""A lake that code of 2026-11-26 wrote (`tests/frozen/make.py`): today's code reads, scores, traces, watches,
keeps up and forgets from it.

The files that it was ingested from are not where it says they were. Nothing needs them.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import tarfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from genodl_spark.core import storage
from genodl_spark.lake.delta import Lake
from genodl_spark.lake.snapshot import Snapshot
from genodl_spark.lake.summaries import Reading
from genodl_spark.lake.tables import TABLES
from genodl_spark.lake.tables.ingested import SAMPLES
from genodl_spark.report.measures import Columns
from jobs import export, forget, ingest, lineage, maintain, monitor, predict, query, verify
from jobs import report as report_job
from tests.frozen.make import FACTS, GONE, LAKE, MODELS, PEOPLE, TASKS, digest, processor, rows_of

TOLD = json.loads(FACTS.read_text())
STARTED = datetime.now(UTC)  # what runs of these tests add to `runs` and `findings` is younger
NUMBERS = ("value", "raw_value", "uncertainty", "distance")
ANSWERS = (
    "predicted",
    "probabilities",
    "out_of_distribution",
    "abstained",
    "in_training",
    "split_hash",
    "model_version",
)
NAMED = ("sample_id", "entity_id", "sequence_id", "sample_1", "sample_2")
PERSON = PEOPLE[9]
# Upkeep as of a lake that has been left alone for long: what nothing needs goes.
LATER = ("--set", "maintain.retention_hours=0", "--set", "maintain.log_versions=10", "--set", "maintain.fewest=5")
# Where rows of an entity came from: of each model of theirs the files, with the line,
# the column or the number of records.
ORIGINS = {
    PERSON: {
        ("tumor_type", "status"): {"mrna.tsv": {"column": PERSON}},
        ("tumor_type", "site"): {"mirna.tsv": {"column": PERSON}, "mrna.tsv": {"column": PERSON}},
        ("compressed", "grade"): {"mirna.tsv": {"column": PERSON}},
        ("ancestry", "super_population"): {"people.vcf": {"records": 60}},
    },
    "bound-007": {("binding", "label"): {"bound.tsv": {"line": 9}}},
    "driven-007": {
        ("sequence_expression", "value"): {"driven.tsv": {"line": 9}},
        ("recurrent", "value"): {"driven.tsv": {"line": 9}},
    },
}


@pytest.fixture
def frozen(lake: Lake, tmp_path: Path) -> Lake:
    """The lake, below another path than it was written at; beside it, in `inputs`, what was ingested."""
    with tarfile.open(LAKE) as archive:
        archive.extractall(tmp_path / "frozen", filter="data")
    (tmp_path / "frozen" / "lake").rename(storage.local_path(lake.uri))
    (tmp_path / "frozen" / "inputs").rename(tmp_path / "inputs")
    return lake


def upgrade(lake: Lake) -> None:
    """Adds the columns that came later, as `genodl maintain` does first of all:
    without it a table that lacks one is refused."""
    for table in lake.existing():
        lake.upgrade(table)


def before_now(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those that runs of these tests have not added."""
    return [row for row in rows if max(row.get("started_at", STARTED), row.get("found_at", STARTED)) <= STARTED]


def rows(lake: Lake, name: str) -> list[dict[str, Any]]:
    return rows_of(Path(storage.local_path(lake.path(TABLES[name]))))


def told(tables: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """As FACTS has it, of the columns that it has."""
    columns = {name: TOLD["tables"][name]["columns"] for name in tables}
    kept = {name: before_now(rows) for name, rows in tables.items()}
    return {
        name: {"columns": columns[name], "rows": len(rows), "sha256": digest(rows, columns[name])}
        for name, rows in kept.items()
    }


def scores(lake: Lake) -> dict[tuple[str, str], dict[str, Any]]:
    return {(row["model_id"], row["entity_id"]): row for row in rows(lake, "predictions")}


def check_same(found: dict[str, Any], stored: dict[str, Any]) -> None:
    """An answer is the stored one: to the last bit on a processor of that kind. On others torch's kernels add
    in another order, which moves float32 sums by some of their last bits, 1e-6 of values near 1."""
    if TOLD["computed_on"] == processor():
        assert found == stored
        return
    for name, value in stored.items():
        numbers = name in NUMBERS or name == "probabilities"
        got, wanted = (dict(v) if isinstance(v, list) else v for v in (found[name], value))
        assert got == (pytest.approx(wanted, rel=1e-6, abs=1e-6) if numbers and value is not None else wanted), name


def named(task: str, inputs: Path) -> str:
    return str(inputs / f"{task}.toml") if task in TASKS else task


def records(path: Path, without: set[str]) -> list[list[str]]:
    """Records of a VCF, split into fields, QUAL as a number, without some people's columns and without
    the record that is none."""
    text = gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text()
    lines = [line.split("\t") for line in text.splitlines() if not line.startswith("##")]
    kept = [i for i, name in enumerate(lines[0]) if name not in without]
    for line in lines:
        line[5] = line[5] if line[5] in (".", "QUAL") else str(float(line[5]))
    return [[line[i] for i in kept] for line in lines if line[1] != "somewhere"]


def test_it_is_read_traced_and_watched(genodl, frozen: Lake, tmp_path: Path) -> None:
    upgrade(frozen)
    at, inputs = ("--lake", frozen.uri), tmp_path / "inputs"
    assert {table.name for table in frozen.existing()} == TOLD["tables"].keys()
    # The reader of few rows, which takes less time than Spark's; `samples`, which has columns
    # of the user's own, through Spark.
    read = {
        table.name: frozen.read(table).toArrow() if table.open else frozen.rows(table, {})
        for table in frozen.existing()
    }
    assert told({name: table.to_pylist() for name, table in read.items()}) == TOLD["tables"]
    manifest = {row["file"]: row for row in rows(frozen, "sources") if row["source"] != "samples"}
    assert {file: row["sha256"] for file, row in manifest.items()} == {
        file: hashlib.sha256((inputs / file).read_bytes()).hexdigest()
        for file in ("people.vcf", "mrna.tsv", "mirna.tsv", "beta.tsv", "bound.tsv", "driven.tsv")
    }
    assert not any(Path(storage.local_path(row["uri"])).exists() for row in manifest.values())
    stored = scores(frozen)
    assert len(stored) == 4 * 24 + 3 * 40

    # SQL: packed genotypes as the text that they were, and a model's answers.
    original = records(inputs / "people.vcf", {GONE})
    place = original[0].index(PERSON)
    sql = (
        "SELECT genotype_at(v.gt, v.n_samples, s.position) AS call FROM variants v JOIN "
        "sample_sets s USING (sample_set)"
    )
    asked = genodl(query, f"{sql} WHERE s.sample_id = '{PERSON}' ORDER BY v.line", *at)[1]["result"]
    assert [row["call"] for row in asked] == [record[place].split(":")[0] for record in original[1:]]
    (binding,) = {row["model_id"] for row in stored.values() if row["task"] == "binding"}
    asked = genodl(
        query, "SELECT sequence_id, genodl_predict('binding', codes) AS p FROM sequences WHERE cohort = 'bound'", *at
    )[1]["result"]
    assert len(asked) == 40
    for row in asked:
        wanted = {name: stored[binding, row["sequence_id"]][name] for name in row["p"]}
        check_same(row["p"], {name: dict(v) if name == "probabilities" else v for name, v in wanted.items()})

    trained = {row["run_id"] for row in rows(frozen, "runs") if row["job"] == "train"}
    # From a prediction of every model to model, run, file and place; and the same score again.
    for entity, origins in ORIGINS.items():
        code, report, line = genodl(lineage, "predictions", *at, "--key", entity)
        assert code == 0, line
        found = {(one["model"]["task"], one["model"]["label_column"]): one for one in report["result"]}
        assert found.keys() == origins.keys()
        for model, one in found.items():
            if TOLD["computed_on"] == processor():
                assert one["scored_again"] == {"identical": True, "same_hardware": True}, (model, entity)
            files = {f.pop("file"): f for f in one["made_from"]["files"]}
            for file, place in origins[model].items():
                assert (
                    files[file]
                    == files[file] | {name: manifest[file][name] for name in ("sha256", "uri", "records")} | place
                ), (model, entity)
            assert one["made_from"]["table_versions"] == dict(stored[one["key"]["model_id"], entity]["source_versions"])
            assert one["model"]["trained_by"]["run"] in trained

    # Nothing has come since: no prediction is missing, and what was found then is found now.
    for task, cohort, label, _ in MODELS:
        code, report, line = genodl(predict, named(task, inputs), "--cohort", cohort, "--label", label, *at)
        assert (code, report["status"]) == (0, "unchanged"), (task, label, line)
    then = rows(frozen, "findings")
    code, report, _ = genodl(monitor, *at)
    now = [row for row in rows(frozen, "findings") if row["found_at"] > STARTED]
    assert (code, report["metrics"]["checks"]) == (3 if any(row["breached"] for row in then) else 0, len(then))
    keys = ("check", "task", "cohort", "label_column", "model_id", "subject", "breached", "message")
    assert sorted([row[k] for k in keys] for row in now) == sorted([row[k] for k in keys] for row in then)

    # Everything is whole.
    code, report, line = genodl(verify, *at)
    assert (code, report["metrics"]["findings"], report["metrics"]["without_checksum"]) == (0, [], 0), line
    code, report, line = genodl(export, "vcf", "--cohort", "people", "--output", str(tmp_path / "out.vcf.gz"), *at)
    assert (code, report["metrics"]["records"], report["warnings"]) == (0, 60, []), line
    assert records(tmp_path / "out.vcf.gz", set()) == original
    assert genodl(report_job, "--output", str(tmp_path / "page"), *at)[0] == 0
    page = (tmp_path / "page" / "index.html").read_text()
    measured = [row for row in rows(frozen, "evaluations") if (row["metric"], row["by"]) == ("accuracy", "")]
    values = {row["predictor"]: f"{row['value']:.3f}" for row in measured}
    assert values.keys() >= {"model", "logistic", "majority"} and all(value in page for value in values.values())
    assert {row["model_id"] for row in rows(frozen, "models") if row["model_id"] in page} == {
        row["model_id"] for row in measured
    }
    # A page about the data of each cohort; in tasks the figures are those that this process adds up.
    names = {path.stem.removeprefix("data-") for path in (tmp_path / "page").glob("data-*.html")}
    assert names == {"bound", "driven", "people"} and all(f'href="data-{name}.html"' in page for name in names)
    people = (tmp_path / "page" / "data-people.html").read_text()
    assert "SUBJ0005" in people and "coloured by site" in people and GONE not in people
    assert "Before and after: tumor_type, status" in people
    lake = Snapshot(frozen)
    here, there = (
        Reading(SAMPLES, {"cohort": "people"}, few=few).summarise(lake, Columns("sample_id", PEOPLE[:2]))
        for few in (1 << 20, 0)
    )
    assert here.rows == 24 and vars(here).keys() == vars(there).keys()
    assert (here.rows, here.known, here.values, here.of) == (there.rows, there.known, there.values, there.of)


def test_it_is_kept_up_and_scored_again(genodl, frozen: Lake, tmp_path: Path) -> None:
    at, inputs, stored = ("--lake", frozen.uri), tmp_path / "inputs", scores(frozen)
    # Upkeep leaves every row, and every version that a prediction was made of.
    code, report, line = genodl(maintain, *at, *LATER)
    assert code == 0 and report["metrics"]["tables"]["runs"].keys() >= {"files_compacted", "versions_removed"}, line
    assert told({name: rows(frozen, name) for name in TOLD["tables"]}) == TOLD["tables"]
    for table, versions in report["metrics"]["pinned"].items():
        assert all(frozen.files(TABLES[table], version) for version in versions), table
    for task, cohort, label, _ in MODELS:
        code, report, line = genodl(predict, named(task, inputs), "--cohort", cohort, "--label", label, "--force", *at)
        assert (code, report["rows"]["predictions"]["written"]) == (0, 40 if cohort != "people" else 24), (
            task,
            label,
            line,
        )
    again = scores(frozen)
    assert again.keys() == stored.keys()
    for key, row in again.items():
        assert row["scored_at"] > STARTED
        check_same(
            {name: row[name] for name in (*NUMBERS, *ANSWERS)},
            {name: stored[key][name] for name in (*NUMBERS, *ANSWERS)},
        )


def test_a_person_is_forgotten_from_it(genodl, frozen: Lake, tmp_path: Path) -> None:
    upgrade(frozen)
    at, inputs = ("--lake", frozen.uri), tmp_path / "inputs"
    # Who withdrew consent then does not come back now.
    (tmp_path / "late.tsv").write_text(f"sample_id\theight\n{GONE}\t180\n")
    code, _, line = genodl(ingest, "phenotypes", str(tmp_path / "late.tsv"), "--cohort", "people", *at)
    assert code == 2 and "withdrawn consent" in line

    before = {name: before_now(rows(frozen, name)) for name in TOLD["tables"]}
    code, report, line = genodl(forget, "--cohort", "people", "--sample", PERSON, *at)
    assert (code, report["status"], report["metrics"]["files_with_the_identifier"]) == (0, "done", []), line
    saw = {row["model_id"] for row in before["predictions"] if row["entity_id"] == PERSON and row["in_training"]}
    assert {model["model_id"] for model in report["metrics"]["models_that_saw_the_sample"]} == saw and len(saw) >= 2

    # No byte of the name: neither in a file as it is, nor in what a table's file, of whatever version, holds.
    for path in Path(storage.local_path(frozen.uri)).rglob("*"):
        if path.is_file():
            assert PERSON.encode() not in path.read_bytes() and PERSON not in str(path), path
            if path.suffix == ".parquet":
                assert PERSON not in str(pq.ParquetFile(path).read().to_pylist()), path

    # Of others the rows are as they were.
    for name, was in before.items():
        if name in ("forgotten", "sample_sets", "variants", "sources", "examples", "runs"):
            continue
        left = [row for row in was if PERSON not in [row.get(column) for column in NAMED]]
        columns = TOLD["tables"][name]["columns"]
        assert (name, digest(before_now(rows(frozen, name)), columns)) == (name, digest(left, columns))
        assert len(left) < len(was) or not {"sample_id", "entity_id", "sample_1"} & set(columns), name
    for name, edited in (
        ("variants", {"gt", "fields", "n_samples", "sample_set"}),
        ("sources", {"header"}),
        ("runs", set()),
    ):
        columns = [column for column in TOLD["tables"][name]["columns"] if column not in edited]
        assert digest(before_now(rows(frozen, name)), columns) == digest(before[name], columns), name
    others = [row for row in before["examples"] if row["entity_id"] != PERSON]
    kept = [row for row in rows(frozen, "examples") if not row["entity_id"].startswith("withdrawn")]
    assert digest(kept, others[0]) == digest(others, others[0]) and len(before["examples"]) - len(others) == 4
    code, report, line = genodl(export, "vcf", "--cohort", "people", "--output", str(tmp_path / "out.vcf.gz"), *at)
    assert records(tmp_path / "out.vcf.gz", set()) == records(inputs / "people.vcf", {GONE, PERSON}), line
