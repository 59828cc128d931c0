"""Entities that are no person: their labels, and forgetting beside them; lakes of before;
and a table that nobody knows by name."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from genodl_spark.core import storage
from genodl_spark.lake.delta import Lake
from genodl_spark.lake.schema import COHORT, SITE, Table, required
from genodl_spark.lake.tables import TABLES
from genodl_spark.lake.tables.ingested import LABELS, SAMPLES, SEQUENCES, SOURCES
from genodl_spark.lake.tables.learning import DATASETS, EXAMPLES, PREDICTIONS, SPLITS
from genodl_spark.sources.person import Person
from jobs import forget, ingest, lineage, prepare, verify
from jobs import list as list_job
from tests.frozen.make import LAKE
from tests.pipelines.test_upkeep import vcf

SEQUENCE_IDS = ["twin", *(f"s{i}" for i in range(1, 12))]


def sequences(path: Path, names: list[str], donors: dict[str, str]) -> str:
    draw = np.random.default_rng(5)
    rows = [
        [name, "".join("ACGT"[b] for b in draw.integers(0, 4, 8)), str(i % 2), donors.get(name, f"d{i}"), f"HeLa{i}"]
        for i, name in enumerate(names)
    ]
    path.write_text("".join("\t".join(row) + "\n" for row in [["id", "sequence", "label", "donor", "line"], *rows]))
    return str(path)


def named(lake: Lake, table: Any, column: str, cohort: str = "c") -> set[str]:
    return {row[0] for row in lake.read(table).where(f"cohort = '{cohort}'").select(column).collect()}


def test_sequences_are_no_people(genodl, lake: Lake, tmp_path: Path) -> None:
    at = ("--cohort", "c", "--lake", lake.uri)
    assert genodl(ingest, "vcf", vcf(tmp_path / "people.vcf", ["p0", "twin", "p2"], 1), *at)[0] == 0
    file, donors = tmp_path / "seq.tsv", {"s1": "twin", "s2": "p0"}
    code, report, line = genodl(ingest, "sequences", sequences(file, SEQUENCE_IDS, donors), *at)
    assert (code, report["rows"]["labels"]["written"]) == (0, 12), line
    assert "column 'line' is stored as 'line_'" in report["warnings"]
    stored = {row.entity_id: row for row in lake.read(LABELS).collect()}
    assert {(row.cohort, row.entity, row.file) for row in stored.values()} == {("c", "sequence", "seq.tsv")}
    assert {name: (row.line, row.label, row.donor, row.line_) for name, row in stored.items()} == {
        name: (i + 2, str(i % 2), donors.get(name, f"d{i}"), f"HeLa{i}") for i, name in enumerate(SEQUENCE_IDS)
    }
    assert named(lake, SAMPLES, "sample_id") == {"p0", "twin", "p2"}
    assert genodl(list_job, "cohorts", "--lake", lake.uri)[1]["result"] == [{"cohort": "c", "samples": 3, "labels": 12}]
    split = ("--set", "split.folds=2", "--set", "split.group=donor")
    code, report, line = genodl(prepare, "binding", *at, *split)
    assert (code, report["metrics"]["rows"]) == (0, 12), line
    (dataset,) = lake.read(DATASETS).collect()
    assert dict(dataset.source_versions).keys() == {"sequences", "labels", "samples"}

    # The person goes, and what names the person in rows of sequences; the sequence of that name stays.
    code, report, line = genodl(forget, "--sample", "twin", *at)
    assert (code, report["status"]) == (0, "done"), line
    assert any(
        "a person is forgotten; the cohort has a sequence of that name too" in text for text in report["warnings"]
    )
    assert named(lake, SAMPLES, "sample_id") == {"p0", "p2"} and named(lake, SEQUENCES, "sequence_id") == set(
        SEQUENCE_IDS
    )
    alias = Person("c", "twin").alias
    assert {row.entity_id: row.donor for row in lake.read(LABELS).collect()} == {
        name: row.donor for name, row in stored.items()
    } | {"s1": alias}
    examples = {row.entity_id: row.group for row in lake.read(EXAMPLES).collect()}
    assert examples.keys() == set(SEQUENCE_IDS) == named(lake, SPLITS, "entity_id") and examples["s1"] == alias

    # A sequence of the person's name may come again, a sequence of the person's may not.
    code, _, line = genodl(ingest, "sequences", sequences(file, SEQUENCE_IDS, {"s3": "twin"}), *at)
    assert code == 2 and "seq.tsv:5: found a sequence whose donor has withdrawn consent" in line and "twin" not in line
    code, report, line = genodl(ingest, "sequences", sequences(file, SEQUENCE_IDS[:11], {}), *at)
    assert (code, report["status"]) == (0, "done"), line
    assert named(lake, LABELS, "entity_id") == set(SEQUENCE_IDS[:11]) == named(lake, SEQUENCES, "sequence_id")

    # Where a person had the name, the sequence is taken out by what it is.
    code, report, line = genodl(forget, "--sample", "twin", "--entity", "sequence", *at)
    assert (code, report["status"], report["warnings"]) == (0, "done", []), line
    assert named(lake, LABELS, "entity_id") == set(SEQUENCE_IDS[1:11]) == named(lake, SEQUENCES, "sequence_id")
    assert named(lake, SPLITS, "entity_id") == set(SEQUENCE_IDS[1:])
    assert "twin" not in {row.entity_id for row in lake.read(EXAMPLES).collect()}
    code, _, line = genodl(ingest, "sequences", sequences(file, SEQUENCE_IDS, {}), *at)
    assert code == 2 and "seq.tsv:2: found a sequence that was forgotten" in line
    code, _, line = genodl(forget, "--sample", "s4", "--entity", "cell", *at)
    assert code == 2 and "found no such cell in the cohort; expected one of table labels" in line


def test_labels_that_an_older_version_left_in_samples(genodl, lake: Lake, tmp_path: Path) -> None:
    with tarfile.open(LAKE) as archive:
        archive.extractall(tmp_path / "frozen", filter="data")
    (tmp_path / "frozen" / "lake").rename(storage.local_path(lake.uri))
    at = ("--cohort", "bound", "--lake", lake.uri)
    for table in lake.existing():  # columns that came later, as `genodl maintain` adds them
        lake.upgrade(table)
    (was,) = lake.read(DATASETS).where("cohort = 'bound'").collect()

    # They are read where they are, and go with their sequence.
    gone = "bound-007"
    code, report, line = genodl(forget, "--sample", gone, *at)
    assert (code, report["status"], report["metrics"]["files_with_the_identifier"]) == (0, "done", []), line
    for table, column in ((SAMPLES, "sample_id"), (SEQUENCES, "sequence_id"), (PREDICTIONS, "entity_id")):
        assert named(lake, table, column, "bound") == {f"bound-{i:03}" for i in range(40)} - {gone}, table.name
    split = ("--set", "split.column=split")
    code, report, line = genodl(prepare, "binding", *at, *split)
    assert (code, report["metrics"]["rows"]) == (0, was.rows - 1), line
    before = report["metrics"]["dataset"]

    # What comes again moves: the file as it was is read once more, but for the sequence that was forgotten,
    # whose hash knows no kind.
    file = tmp_path / "frozen" / "inputs" / "bound.tsv"
    code, _, line = genodl(ingest, "sequences", str(file), *at)
    assert code == 2 and "bound.tsv:9: found a sequence that was forgotten" in line
    file.write_text("".join(text for text in file.read_text().splitlines(True) if not text.startswith(gone)))
    code, report, line = genodl(ingest, "sequences", str(file), *at, "--set", "ingest.same_name=edition")
    assert (code, report["status"], report["rows"].get("labels", {}).get("written")) == (0, "done", 39), line
    assert (named(lake, SAMPLES, "sample_id", "bound"), len(named(lake, SAMPLES, "sample_id", "driven"))) == (set(), 40)
    code, report, line = genodl(prepare, "binding", *at, *split)
    assert (code, report["metrics"]["dataset"]) == (0, before), line


WINDOWS = Table(
    "windows",
    "One row per window of a person's reads",
    (
        COHORT,
        required("window_id", "string", "Window"),
        required("owner", "string", "Person whose reads these are"),
        required("depth", "bigint", "Reads"),
        required("from_file", "string", "File name of the source"),
        required("line", "bigint", "Line in the file"),
    ),
    key=("cohort", "window_id"),
    partitioned_by=("cohort",),
    entity="window_id",
    kind=SITE,
    person=("owner",),
    file="from_file",
    made_by="ingest windows",
)


def test_a_table_that_nobody_knows_by_name(genodl, lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TABLES, WINDOWS.name, WINDOWS)
    at = ("--lake", lake.uri)
    owners = {
        "w0": ("ann-1", "ann-1.win"),
        "w1": ("ben-2", "two.win"),
        "w2": ("ann-1", "two.win"),
        "w3": ("ben-2", "two.win"),
    }
    rows = [
        {"cohort": "c", "window_id": window, "owner": owner, "depth": i, "from_file": file, "line": i + 1}
        for i, (window, (owner, file)) in enumerate(owners.items())
    ]
    lake.append(WINDOWS, pa.Table.from_pylist(rows, WINDOWS.arrow_schema()))
    told = {
        "cohort": "c",
        "source": "windows",
        "block": "",
        "bytes": 1,
        "sha256": "0",
        "quarantined": 0,
        "options": "",
        "records": 1,
    }
    manifest = [
        {**told, "file": file, "uri": f"file:///in/{file}", "ingested_at": 0} for file in ("ann-1.win", "two.win")
    ]
    lake.append(SOURCES, pa.Table.from_pylist(manifest, SOURCES.arrow_schema()))

    code, report, line = genodl(lineage, "windows", "--key", "w2", *at)
    assert code == 0, line
    (found,) = report["result"]
    assert [(file["file"], file["uri"], file["line"]) for file in found["sources"]] == [
        ("two.win", "file:///in/two.win", 3)
    ]

    code, report, line = genodl(forget, "--cohort", "c", "--sample", "ann-1", *at)
    assert (code, report["metrics"]["files_with_the_identifier"]) == (0, []), line
    assert {row.window_id: row.owner for row in lake.read(WINDOWS).collect()} == {"w1": "ben-2", "w3": "ben-2"}
    assert [row.file for row in lake.read(SOURCES).collect()] == ["two.win"]

    (stored,) = lake.files(WINDOWS, lake.version(WINDOWS) or 0)
    path = Path(storage.local_path(stored.uri))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    code, report, line = genodl(verify, *at)
    assert code == 2
    (finding,) = report["metrics"]["findings"]
    assert (finding["table"], finding["mend"]) == ("windows", "run genodl ingest windows file:///in/two.win --cohort c")
