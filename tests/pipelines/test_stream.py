"""A stream of new files: each is ingested and scored once, whatever ends the stream in between."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable

import jobs
from genodl_spark.core import storage
from genodl_spark.lake.delta import Lake
from genodl_spark.lake.tables.ingested import QUARANTINE, SEQUENCES
from genodl_spark.lake.tables.learning import PREDICTIONS
from genodl_spark.sources import removal
from genodl_spark.sources.person import Person
from jobs import ingest, predict, stream, train
from tests.pipelines.test_predictions import FAST, SMALL, scores, sequences


def named(prefix: str, count: int = 6) -> list[str]:
    return [f"{prefix}{i}" for i in range(count)]


def test_new_files_are_ingested_and_scored_once(
    genodl, lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = ("--lake", lake.uri)
    assert genodl(ingest, "sequences", sequences(tmp_path / "one.tsv", named("s", 40), 1), "--cohort", "c", *at)[0] == 0
    code, _, line = genodl(train, "binding", *at, *SMALL, *FAST)
    assert code == 0, line
    folder = tmp_path / "new [1] 100%"
    (folder / "deep").mkdir(parents=True)
    asked = ("binding", *at, "--source", str(folder), "--once")
    sequences(folder / "a.tsv", named("a"), 2)
    sequences(folder / "deep" / "b.tsv", named("b"), 3)
    (folder / "bad.tsv").write_text("id\tsekuence\tlabel\nx\tACGT\t1\n")
    (folder / "a.tsv.md5").write_text("of a.tsv\n")
    (folder / "_c.tsv").write_text("not whole yet")

    code, report, line = genodl(stream, *asked)
    assert code == 0, line
    assert {name: report["metrics"][name] for name in ("batches", "files")} == {"batches": 1, "files": 2}
    assert list(report["metrics"]["refused"]) == ["bad.tsv"] and "bad.tsv:1" in report["metrics"]["refused"]["bad.tsv"]
    assert any("bad.tsv was left out" in text for text in report["warnings"])
    assert report["rows"]["predictions"]["written"] == 52
    (aside,) = lake.read(QUARANTINE).collect()
    assert (aside.cohort, aside.source, aside.file, aside.line) == ("c", "sequences", "bad.tsv", 1)
    assert aside.reason == report["metrics"]["refused"]["bad.tsv"]
    kept, versions = scores(lake), [lake.version(table) for table in (SEQUENCES, PREDICTIONS)]

    # Nothing new; then a batch that ends between its two verbs, which the next stream takes again.
    code, report, _ = genodl(stream, *asked)
    assert (code, report["status"], report["metrics"]["batches"]) == (0, "unchanged", 0)
    assert [lake.version(table) for table in (SEQUENCES, PREDICTIONS)] == versions
    sequences(folder / "c.tsv", named("c"), 4)
    with monkeypatch.context() as broken:
        broken.setattr(jobs, "report_of", _without_predict(jobs.report_of))
        code, report, line = genodl(stream, *asked)
        assert (code, report["status"]) == (1, "failed") and "no more memory" in report["error"]
    assert lake.read(SEQUENCES).count() == 58 and scores(lake) == kept
    code, report, line = genodl(stream, *asked)
    assert (code, report["metrics"]["files"], report["rows"]["predictions"]["written"]) == (0, 1, 6), line
    assert lake.read(SEQUENCES).count() == 58 and lake.read(PREDICTIONS).count() == 58

    # What was left out is taken by hand, once it is mended.
    sequences(folder / "bad.tsv", named("x", 2), 5)
    assert genodl(ingest, "sequences", str(folder / "bad.tsv"), "--cohort", "c", *at)[0] == 0
    assert lake.read(QUARANTINE).count() == 0

    # The same rows as of commands one by one.
    code, report, line = genodl(predict, "binding", *at)
    assert (code, report["rows"]["predictions"]["written"]) == (0, 2), line
    found = scores(lake)
    assert genodl(predict, "binding", *at, "--force")[0] == 0
    assert scores(lake) == found

    # A table that names files, in the order of its commits.
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    table = str(tmp_path / "shards")
    for name in ("d", "e"):
        file = sequences(elsewhere / f"{name}.tsv", named(name), ord(name))
        lake.spark.createDataFrame([(file, 7)], "path string, size int").write.format("delta").mode("append").save(
            table
        )
    asked = ("binding", *at, "--source", table, "--once")
    code, report, line = genodl(stream, *asked)
    assert (code, report["metrics"]["files"], report["rows"]["predictions"]["written"]) == (0, 2, 12), line
    assert genodl(stream, *asked)[1]["status"] == "unchanged"

    # It waits for files until it is told to end.
    late = threading.Thread(target=_come_late, args=(folder, storage.local_path(lake.path(PREDICTIONS))))
    late.start()
    code, report, line = genodl(stream, *asked[:3], "--source", str(folder), "--set", "stream.every_seconds=0.5")
    late.join()
    assert (code, report["metrics"]["files"]) == (0, 1), line
    assert lake.read(PREDICTIONS).count() == 78 and len(storage.folders(storage.join(lake.uri, removal.STREAMS))) == 2


def _without_predict(call: Any) -> Any:
    def broken(verb: str, argv: list[str]) -> dict[str, Any]:
        return {"code": 1, "error": "no more memory"} if verb == "predict" else call(verb, argv)

    return broken


def _come_late(folder: Path, predictions: str) -> None:
    """A file that comes once the stream waits; ends it when the file has been scored."""
    time.sleep(3)
    sequences(folder / "_f.tsv", named("f"), 9)
    (folder / "_f.tsv").rename(folder / "f.tsv")
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        actions = DeltaTable(predictions).get_add_actions(flatten=True)
        if sum(actions.column("num_records").to_pylist()) >= 78:
            break
        time.sleep(0.3)
    os.kill(os.getpid(), signal.SIGTERM)


def test_what_a_stream_cannot_take_is_said_at_once(genodl, lake: Lake, tmp_path: Path) -> None:
    at = ("--lake", lake.uri)
    assert genodl(ingest, "sequences", sequences(tmp_path / "one.tsv", named("s"), 1), "--cohort", "c", *at)[0] == 0
    (tmp_path / "folder").mkdir()
    sequences(tmp_path / "folder" / "a.tsv", named("a"), 2)
    table = str(tmp_path / "table")
    lake.spark.createDataFrame([(1,)], "size int").write.format("delta").save(table)
    folder = str(tmp_path / "folder")
    for source, more, found in (
        (str(tmp_path / "nowhere"), (), "no folder there"),
        (table, (), "found a Delta table without a column path"),
        (folder, (), "found no model of task binding"),
        (folder, ("--set", "stream.kind=nothing"), "found 'nothing'"),
    ):
        code, report, line = genodl(stream, "binding", *at, "--source", source, "--once", *more)
        assert (code, report["status"]) == (2, "failed") and found in line, line


def test_a_stream_forgets_a_name_in_paths(tmp_path: Path) -> None:
    offsets, named_file = tmp_path / "x" / "offsets" / "0", tmp_path / "x" / "sources" / "0" / "0"
    for file in (offsets, named_file):
        file.parent.mkdir(parents=True)
        (file.parent / f".{file.name}.crc").write_bytes(b"crc")
    offsets.write_text('v1\n{"logOffset":0}')
    named_file.write_text('v1\n{"path":"file:///in/NA12878.tsv","batchId":0}\n{"path":"file:///in/NA12878-b.tsv"}\n')
    removal.edit_streams(f"file://{tmp_path}", Person("c", "NA12878"))
    text = 'v1\n{"path":"file:///in/withdrawn.tsv","batchId":0}\n{"path":"file:///in/NA12878-b.tsv"}\n'
    assert named_file.read_text() == text and offsets.read_text() == 'v1\n{"logOffset":0}'
    assert {path.name for path in (tmp_path / "x").rglob(".*")} == {".0.crc"}
    assert not (named_file.parent / ".0.crc").exists() and (offsets.parent / ".0.crc").exists()
