"""A kind of source that is one file outside the package: through ingest, SQL, listings, lineage,
verify, forget and damage."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path

import pytest

from genodl_spark import sources
from genodl_spark.core import storage
from genodl_spark.core.errors import InputError
from genodl_spark.lake.delta import Lake
from genodl_spark.lake.schema import DECLARED, Table
from genodl_spark.lake.tables import TABLES
from genodl_spark.lake.tables.ingested import QUARANTINE, SAMPLES, SOURCES
from genodl_spark.sources import engine
from jobs import forget, ingest, lineage, maintain, query, verify
from jobs import list as list_job

# Records of 12 bytes, little-endian: the number of a person, a depth, and a check that is their sum.
DEPTHS = r"""
import re, struct
import pyarrow as pa
from genodl_spark.core import storage
from genodl_spark.core.errors import InputError
from genodl_spark.formats.streams import Split
from genodl_spark.lake.schema import COHORT, Table, required
from genodl_spark.sources.protocol import RecordSource

TABLE = Table(
    "depths",
    "Depth of a person's library",
    (COHORT, required("sample_id", "string", "Person"), required("depth", "int", "Reads"),
     required("marks", "array<double>", "Whatever"), required("file", "string", "File"),
     required("record", "bigint", "Record in the file, 1-based")),
    key=("cohort", "sample_id"),
    partitioned_by=("cohort",),
    checks={"depth": "depth >= 0"},
    entity="sample_id",
    person=("sample_id",),
)

class Source(RecordSource):
    files = re.compile(r"\.depth$")
    table = TABLE
    unit = "record"

    def header(self, uri, settings):
        size = storage.size(uri)
        if size % 12:
            raise InputError(f"found {size} bytes; expected records of 12", uri)
        with storage.open_input(uri) as raw:
            return [f"p{struct.unpack('<i', raw.read(12)[:4])[0]}" for _ in range(size // 12)]

    def samples(self, header):
        return header

    def options(self, settings, reference):
        return f"bin={settings.ingest.bin_width}"

    def splits(self, uri, target):
        size = storage.size(uri)
        return [Split(at, min(at + 24, size)) for at in range(0, size, 24)]

    def length(self, piece):
        return (piece.split.end - piece.split.start) // 12

    def read(self, piece, header, cohort, note):
        good, bad = [], []
        with storage.open_input(piece.uri) as raw:
            raw.read(piece.split.start)
            for number in range(piece.first, piece.first + self.length(piece)):
                person, depth, total = struct.unpack("<iii", raw.read(12))
                if person + depth != total:
                    bad.append((number, f"found the check {total}; expected {person + depth}", f"{person} {depth}"))
                    continue
                if depth > 1000:
                    note(number, "are of more than 1000 reads")
                good.append((cohort, f"p{person}", depth, [0.5], piece.name, number))
        rows = [dict(zip(TABLE.column_names, values)) for values in good]
        yield pa.RecordBatch.from_pylist(rows, TABLE.arrow_schema()), self.refused(cohort, piece.name, bad)
"""


def records(path: Path, *rows: tuple[int, int], broken: int | None = None) -> str:
    path.write_bytes(
        b"".join(
            struct.pack("<iii", person, depth, person + depth + (i == broken)) for i, (person, depth) in enumerate(rows)
        )
    )
    return str(path)


def test_a_source_of_ones_own_goes_all_the_way(
    genodl, lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code_file = tmp_path / "depth_file.py"
    code_file.write_text(DEPTHS)
    folder = tmp_path / "in"
    folder.mkdir()
    records(folder / "a.depth", (100001, 5), (100002, 7), (100003, 2000), (100004, 3), (100005, 1), broken=3)
    records(folder / "b.depth", (100006, 9))
    (folder / "notes.txt").write_text("no records\n")
    at = ("--cohort", "c'1", "--lake", lake.uri)
    with monkeypatch.context() as patched:
        patched.setattr(engine, "_FEW_BYTES", 0)  # in tasks, which do not have the file
        code, report, line = genodl(ingest, str(code_file), str(folder), *at)
    assert code == 0, line
    assert (
        report["rows"]["depths"] == {"written": 5, "total": 5, "quarantined": 1}
        and report["rows"]["samples"]["written"] == 6
    )
    assert report["warnings"] == [
        f"passed over 1 files of {storage.absolute(str(folder))} that are hidden or not named as depth_file: notes.txt",
        "1 of 5 records of a.depth are in quarantine, first record 4: found the check 100008; expected 100007",
        "1 records of a.depth are of more than 1000 reads; the first is record 3",
    ]
    stored = lake.rows(SOURCES, {"cohort": "c'1"}).to_pylist()
    assert [(r["source"], r["file"], r["records"], r["quarantined"]) for r in stored] == [
        ("depth_file", "a.depth", 4, 1),
        ("depth_file", "b.depth", 1, 0),
    ]
    assert stored[0]["options"].startswith(f"bin={1 << 26} code=")
    refused = lake.rows(QUARANTINE, {"source": "depth_file"}).to_pylist()
    assert [(r["file"], r["line"], r["text"]) for r in refused] == [("a.depth", 4, "100004 3")]

    # As it was: nothing. With one byte of code more: read again, each row in place of what it was.
    assert genodl(ingest, str(code_file), str(folder), *at)[1]["status"] == "unchanged"
    code_file.write_text(DEPTHS.replace("[0.5]", "[0.5, 1.5]"))
    assert genodl(ingest, str(code_file), str(folder / "b.depth"), *at)[1]["rows"]["depths"] == {
        "written": 1,
        "total": 5,
        "quarantined": 0,
    }
    found = genodl(
        query, "SELECT sample_id, depth, size(marks) AS n, record FROM depths ORDER BY file, record", "--lake", lake.uri
    )[1]["result"]
    assert [tuple(row.values()) for row in found] == [
        ("p100001", 5, 1, 1),
        ("p100002", 7, 1, 2),
        ("p100003", 2000, 1, 3),
        ("p100005", 1, 1, 5),
        ("p100006", 9, 2, 1),
    ]

    counted = "SELECT count(*) AS n, max(depth) AS most FROM depths"
    assert genodl(query, counted, "--engine", "duckdb", "--lake", lake.uri)[1]["result"] == [{"n": 5, "most": 2000}]

    # What the file declared is read from the table's log, by whoever has not got the file.
    own = lake.tables()["depths"]
    assert (own.person, own.file, own.made_by) == (("sample_id",), "file", "ingest depth_file")
    assert isinstance(own, Table) and (own.key, own.partitioned_by, own.checks) == (
        ("cohort", "sample_id"),
        ("cohort",),
        {"depth": "depth >= 0"},
    )
    assert [(c.name, c.type, c.nullable) for c in own.columns][2:4] == [
        ("depth", "int", False),
        ("marks", "array<double>", False),
    ]
    listed = {row["table"]: row for row in genodl(list_job, "tables", "--lake", lake.uri)[1]["result"]}
    assert (listed["depths"]["rows"], listed["depths"]["description"]) == (5, "Depth of a person's library")
    code, report, line = genodl(lineage, "depths", "--key", "p100006", "--lake", lake.uri)
    assert code == 0 and report["result"][0]["sources"][0]["file"] == "b.depth", line

    # A person goes, with the file that was theirs alone.
    code, report, line = genodl(forget, "--sample", "p100002", *at)
    assert (
        code == 0
        and set(report["metrics"]["tables"]) >= {"depths", "samples"}
        and report["metrics"]["files_with_the_identifier"] == []
    ), line
    assert sorted(r["sample_id"] for r in lake.rows(own, {}).to_pylist()) == [
        "p100001",
        "p100003",
        "p100005",
        "p100006",
    ]
    records(folder / "c.depth", (100002, 1))
    code, _, line = genodl(ingest, str(code_file), str(folder / "c.depth"), *at)
    assert code == 2 and "c.depth: found 1 samples that have withdrawn consent" in line
    assert genodl(maintain, "--lake", lake.uri)[0] == 0

    # Damage is found, and the command that mends it names the file.
    assert genodl(verify, "--lake", lake.uri)[0] == 0
    version = lake.version(own)
    assert version is not None
    path = Path(storage.local_path(next(f.uri for f in lake.files(own, version) if "part" in f.uri)))
    path.write_bytes(path.read_bytes()[:-40] + b"x" * 40)
    code, report, line = genodl(verify, "--lake", lake.uri)
    assert code == 2 and [finding["table"] for finding in report["metrics"]["findings"]] == ["depths"]
    assert "genodl ingest depth_file.py file://" in line and line.endswith("--cohort c'1")

    # A file that is not of the kind is refused before anything is written, and so is a record
    # that breaks the table's check.
    (folder / "d.depth").write_bytes(b"12345")
    assert (
        "d.depth: found 5 bytes; expected records of 12"
        in genodl(ingest, str(code_file), str(folder / "d.depth"), *at)[2]
    )
    before = lake.version(own), lake.version(SAMPLES)
    code, _, line = genodl(ingest, str(code_file), records(folder / "e.depth", (9, -1)), *at)
    assert code == 1 and (lake.version(own), lake.version(SAMPLES)) == before


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("gone.py", None, "no such file"),
        ("vcf.py", "", "found vcf as the name of a source"),
        ("samples.py", "", "found samples as the name of a source"),
        ("odd name.py", "", "found odd name as the name of a source"),
        ("broken.py", "class Source(", "not readable as Python"),
        ("none.py", "x = 1", "found no class Source"),
        ("other.py", "class Source: pass", "found no class Source"),
        ("abstract.py", DEPTHS.replace("def read(", "def reads("), "abstract"),
        ("tableless.py", DEPTHS.replace("table = TABLE", ""), "found no table"),
        ("taken.py", DEPTHS.replace('"depths"', '"variants"'), "found 'variants' as the name of a table"),
        ("caps.py", DEPTHS.replace('"depths"', '"Depths"'), "found 'Depths' as the name of a table"),
        ("nofile.py", DEPTHS.replace('required("file", "string", "File"),', ""), "expected columns cohort and file"),
        (
            "type.py",
            DEPTHS.replace('"int", "Reads"', '"integers", "Reads"'),
            "found a type of table depths that is none",
        ),
        ("packed.py", DEPTHS.replace("entity=", 'packed_by="depth", entity='), "found table depths packed by depth"),
        (
            "nokey.py",
            DEPTHS.replace('key=("cohort", "sample_id")', 'key=("cohort", "person")'),
            "expected columns cohort and file, and a key",
        ),
    ],
)
def test_what_cannot_be_a_source_is_refused(tmp_path: Path, name: str, text: str | None, found: str) -> None:
    path = tmp_path / name
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=found):
        sources.load(str(path))


def test_kinds_are_the_files_with_a_source() -> None:
    usual = ("alignments", "annotations", "cells", "expression", "methylation", "mutations", "orthologues", "reference")
    tables = {
        **{name: name for name in usual},
        "sequences": "sequences",
        "phenotypes": "samples",
        "variants": "variant_effects",
        "vcf": "variants",
    }
    assert list(sources.kinds()) == sorted(tables)
    assert {kind: sources.load(kind).table.name for kind in sources.kinds()} == tables
    assert "./mine.py" in sources.kinds() and "bam" not in sources.kinds()
    with pytest.raises(
        InputError,
        match=f"found 'bam'; expected {', '.join(sorted(tables))}, or the path",
    ):
        sources.load("bam")


@pytest.mark.parametrize("table", TABLES.values(), ids=lambda table: table.name)
def test_a_declaration_is_read_back_from_what_delta_keeps(table: Table) -> None:
    names = {"bigint": "long", "int": "integer", "smallint": "short", "tinyint": "byte"}

    def delta(type_: str) -> object:
        kind, _, inner = type_.removesuffix(">").partition("<")
        if kind == "array":
            return {"type": kind, "elementType": delta(inner), "containsNull": True}
        if kind == "map":
            return {
                "type": kind,
                "keyType": delta(inner.split(",")[0]),
                "valueType": delta(inner.split(",")[1].strip()),
                "valueContainsNull": True,
            }
        return names.get(kind, kind)

    columns = [
        {"name": c.name, "type": delta(c.type), "nullable": c.nullable, "metadata": {"comment": c.doc}}
        for c in table.columns
    ]
    properties = table.properties()
    metadata = {"schemaString": json.dumps({"fields": columns}), "description": table.doc}
    metadata |= {"partitionColumns": list(table.partitioned_by), "configuration": properties}
    found = Table.from_metadata(table.name, metadata, "p")
    assert found is not None
    spaced = tuple((c.name, c.type.replace(" ", ""), c.doc, c.nullable) for c in table.columns)
    assert tuple((c.name, c.type, c.doc, c.nullable) for c in found.columns) == spaced
    assert replace(found, columns=()) == replace(table, columns=())
    assert Table.from_metadata(table.name, {**metadata, "configuration": {}}, "p") is None
    for odd in ("[", "[1]", '{"key": ["nothing"]}', '{"key": [], "more": 1}', "{}"):
        with pytest.raises(InputError, match=f"property {DECLARED}"):
            Table.from_metadata(table.name, {**metadata, "configuration": {**properties, DECLARED: odd}}, "p")
