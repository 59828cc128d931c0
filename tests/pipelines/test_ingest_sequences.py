"""Sequences through the command line: contents, quarantine, repeats, replacement, refusals;
and the examples that come of them."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
from pyspark.sql import functions as F

from genodl_spark.features.sequences import SequenceFeatures
from genodl_spark.lake.delta import Lake
from genodl_spark.lake.snapshot import Snapshot
from genodl_spark.lake.tables.ingested import LABELS, QUARANTINE, SAMPLES, SEQUENCES, SOURCES
from genodl_spark.lake.tables.learning import DATASETS, EXAMPLES
from genodl_spark.learning import encodings, feed
from jobs import ingest, prepare

BASES = "ACGT"


def stored(lake: Lake) -> dict[str, tuple[str, str, int]]:
    rows = lake.read(SEQUENCES).where(F.col("cohort") == "c'1").collect()
    assert all(row.length == len(row.codes) for row in rows)
    return {
        r.sequence_id: ("".join((*BASES, "N")[c] for c in np.frombuffer(r.codes, np.int8)), r.file, r.line)
        for r in rows
    }


def table(path: Path, rows: list[str], head: str = "id\tsequence\tlabel\tsplit") -> str:
    path.write_bytes(gzip.compress("\n".join([head, *rows, ""]).encode()))
    return str(path)


def test_a_cohort_of_sequences(genodl, lake: Lake, tmp_path: Path) -> None:
    common = ("--lake", lake.uri, "--cohort", "c'1")
    random = np.random.default_rng(0)
    text = {f"s{i:02}": "".join(BASES[b] for b in random.integers(0, 4, 5 + i % 4)) for i in range(40)}
    split = {name: ("train", "validation", "test")[i % 3] for i, name in enumerate(text)}
    rows = [f"{name}\t{bases}\t{i % 2}\t{split[name]}" for i, (name, bases) in enumerate(text.items())]
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "README.md").write_text("no table")
    table(tmp_path / "in" / "o'ne.tsv.gz", [*rows, "x\tAC-G\t1\ttrain", "", "y\tACGT\t1", "z\tACGRn\tNA\t"])
    (tmp_path / "in" / "two.csv").write_text("id,sequence,tf (odd)\nt0,uuag,CTCF\n")

    code, report, _ = genodl(ingest, "sequences", str(tmp_path / "in"), *common)
    assert (code, report["status"]) == (0, "done")
    assert {t: report["rows"][t]["written"] for t in ("sequences", "labels", "quarantine", "sources")} == {
        "sequences": 42,
        "labels": 42,
        "quarantine": 2,
        "sources": 2,
    }
    assert report["warnings"] == [
        f"passed over 1 files of file://{tmp_path / 'in'} that are hidden or not named as sequences: README.md",
        "column 'tf (odd)' is stored as 'tf_odd_'",
        "2 of 43 records of o'ne.tsv.gz are in quarantine, first line 42: found '-' at base 3; "
        "expected letters of IUPAC, A C G T U R Y S W K M B D H V N",
    ]
    expected = {name: (bases, "o'ne.tsv.gz", i + 2) for i, (name, bases) in enumerate(text.items())}
    assert stored(lake) == expected | {"z": ("ACGNN", "o'ne.tsv.gz", 45), "t0": ("TTAG", "two.csv", 2)}
    samples = {r.entity_id: (r.label, r.split, r.tf_odd_) for r in lake.read(LABELS).collect()}
    assert samples == {name: (str(i % 2), split[name], None) for i, name in enumerate(text)} | {
        "z": (None, None, None),
        "t0": (None, None, "CTCF"),
    }
    assert [(r.source, r.line, r.text) for r in lake.read(QUARANTINE).orderBy("line").collect()] == [
        ("sequences", 42, "x\tAC-G\t1\ttrain"),
        ("sequences", 44, "y\tACGT\t1"),
    ]
    manifest = {r.file: (r.source, r.records, r.quarantined) for r in lake.read(SOURCES).collect()}
    assert manifest == {"o'ne.tsv.gz": ("sequences", 41, 2), "two.csv": ("sequences", 1, 0)}

    versions = report["tables"]["written"]
    code, report, _ = genodl(ingest, "sequences", str(tmp_path / "in"), *common)
    assert (code, report["status"]) == (0, "unchanged")
    assert report["tables"]["written"] == {t: v for t, v in versions.items() if t != "quarantine"}

    # An identifier of another file of the cohort: nothing changes.
    three = table(tmp_path / "three.tsv.gz", ["q\tAC\t1\ttrain", "s03\tACG\t1\ttrain"])
    code, _, line = genodl(ingest, "sequences", three, *common)
    found = "sequence s03 stands twice in cohort c'1, first on line 5 of o'ne.tsv.gz"
    assert (code, line.startswith(f"genodl: error: file://{three}:3: {found}; expected each id once")) == (2, True), (
        line
    )
    assert len(stored(lake)) == 42 and not list((tmp_path / "a lake, 100% odd" / "_staging").glob("*"))

    # Sent again with other content, the file replaces what it brought.
    rows[1] = "s01\tGGGGG\t0\ttrain"
    one = table(tmp_path / "in" / "o'ne.tsv.gz", rows)
    (tmp_path / "more.tsv").write_text("sample_id\tline\ts\ns02\tHeLa\tx\n")
    code, report, _ = genodl(ingest, "sequences", one, "--samples", str(tmp_path / "more.tsv"), *common)
    assert (code, report["rows"]["sequences"]) == (0, {"written": 40, "total": 41, "quarantined": 0})
    assert not lake.exists(SAMPLES)
    labels = {r.entity_id: (r.file, r.line, r.label, r.line_, r.s) for r in lake.read(LABELS).collect()}
    assert labels.keys() == {*text, "t0"} and labels["s02"] == ("o'ne.tsv.gz", 4, "0", "HeLa", "x")
    text["s01"] = "GGGGG"
    assert stored(lake) == {n: (bases, "o'ne.tsv.gz", i + 2) for i, (n, bases) in enumerate(text.items())} | {
        "t0": ("TTAG", "two.csv", 2)
    }
    assert lake.read(LABELS).where("entity_id = 's01'").collect()[0].label == "0"
    assert lake.read(QUARANTINE).count() == 0

    # The examples are the sequences, aligned at their centres.
    code, report, _ = genodl(prepare, "binding", *common, "--set", "split.column=split")
    assert (code, report["metrics"]["rows"], report["metrics"]["features"]) == (0, 40, 8)
    dataset = lake.read(DATASETS).collect()[0]
    assert (dataset.dtype, dataset.transform, list(dataset.classes), dataset.features[::7]) == (
        "int8",
        "onehot",
        ["0", "1"],
        ["position:1", "position:8"],
    )
    version = lake.version(EXAMPLES)
    assert version is not None
    data = feed.read(lake.live_files(EXAMPLES, version, {"dataset": dataset.dataset}), feed.Layout(40, 8, "int8", 1))
    padded = ["." * (4 - len(s) // 2) + s + "." * (4 - len(s) + len(s) // 2) for s in text.values()]
    onehot = encodings.encoding(dataset.transform).floats(data.x)
    np.testing.assert_array_equal(onehot, [[[letter == base for letter in s] for base in BASES] for s in padded])
    assert data.target[:, 0].tolist() == [0.0 if name == "s01" else i % 2 for i, name in enumerate(text)]
    roles = ["train" if name == "s01" else role for name, role in split.items()]
    assert [("train", "validation", "test")[code] for code in data.folds[:, 0]] == roles

    # Features of another length, and more of them than the cohort has.
    snapshot = Snapshot(lake)
    assert SequenceFeatures(6).choose(snapshot, "c'1", [], np.zeros((1, 0), bool)).names == [
        f"position:{i + 1}" for i in range(6)
    ]
    found = {
        r.entity_id: r
        for r in SequenceFeatures().rows(snapshot, "c'1", [f"position:{i + 1}" for i in range(10)]).collect()
    }
    assert (np.frombuffer(found["t0"].x, np.int8).tolist(), found["t0"].missing) == (
        [-1, -1, -1, 3, 3, 0, 2, -1, -1, -1],
        2,
    )


def test_bad_tables_leave_nothing(genodl, lake: Lake, tmp_path: Path) -> None:
    fine = table(tmp_path / "fine.tsv.gz", ["a\tACGT\t1\ttrain"])
    for case, found in (
        ("id\tseq\na\tACGT\n", "bad.tsv:1: found columns 'id', 'seq'; expected one called sequence"),
        ("id\tsequence\n", "bad.tsv:2: no sequence below the header"),
        (
            "id\tsequence\nb\tAC\nc\tAC\nb\tGG\n",
            "bad.tsv:4: sequence b stands twice in cohort c, first on line 2; expected each id once",
        ),
    ):
        (tmp_path / "bad.tsv").write_text(case)
        code, report, line = genodl(
            ingest, "sequences", fine, str(tmp_path / "bad.tsv"), "--lake", lake.uri, "--cohort", "c"
        )
        assert (code, report["status"]) == (2, "failed")
        assert line.startswith("genodl: error: ") and found in line, line
        assert not any(lake.exists(one) for one in (SEQUENCES, QUARANTINE, LABELS, SAMPLES, SOURCES))
