"""Maintenance and forgetting: what is compacted, kept and removed; an older table;
and a person of whom no byte is left."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pysam
import pytest
from pyspark.sql import functions as F

from genodl_spark.core import storage
from genodl_spark.genetics import genotypes
from genodl_spark.job.run import Run, now
from genodl_spark.lake import locks
from genodl_spark.lake.delta import Lake
from genodl_spark.lake.tables.genetics import QC_STEPS
from genodl_spark.lake.tables.ingested import SAMPLE_SETS, SAMPLES, SEQUENCES, SOURCES, VARIANTS
from genodl_spark.lake.tables.learning import DATASETS, EXAMPLES, MODELS, PREDICTIONS
from genodl_spark.lake.tables.operations import FORGOTTEN, RUNS
from genodl_spark.pipelines import forget as forgetting
from genodl_spark.sources import removal
from genodl_spark.sources import vcf as vcf_source
from genodl_spark.sources.person import Person
from jobs import evaluate, export, forget, ingest, lineage, maintain, predict, qc, query, train
from jobs import list as list_job
from jobs import report as report_job
from tests.pipelines.test_predictions import FAST, SMALL, scores, sequences
from tests.pipelines.test_tasks import FAST as FAST_MLP
from tests.pipelines.test_tasks import GENES, matrix


def older(lake: Lake, hours: float) -> None:
    """Lets all files of the lake be so much older."""
    for uri in storage.files_under(lake.uri):
        path = storage.local_path(uri)
        at = os.stat(path).st_mtime - 3600 * hours
        os.utime(path, (at, at))


def parquet(lake: Lake, table: Any) -> set[str]:
    return {uri for uri in storage.files_under(lake.path(table), ".parquet") if "_delta_log" not in uri}


def test_maintenance_keeps_what_is_pinned(genodl, lake: Lake, tmp_path: Path) -> None:
    at = ("--lake", lake.uri, "--set", "maintain.fewest=5")
    names = [f"s{i:03}" for i in range(40)]
    assert genodl(ingest, "sequences", sequences(tmp_path / "one.tsv", names, 1), "--cohort", "c", *at)[0] == 0
    code, _, line = genodl(train, "binding", *at, *SMALL, *FAST)
    assert code == 0, line
    assert genodl(predict, "binding", *at)[0] == 0
    pinned = lake.version(SEQUENCES)
    was = parquet(lake, SEQUENCES)
    for i in range(4):
        assert (
            genodl(
                ingest,
                "sequences",
                sequences(tmp_path / f"more{i}.tsv", [f"m{i}{k}" for k in range(3)], i),
                "--cohort",
                "c",
                *at,
            )[0]
            == 0
        )
    # the first file is dead now
    assert genodl(ingest, "sequences", sequences(tmp_path / "one.tsv", names, 5), "--cohort", "c", *at)[0] == 0
    live = lake.version(SEQUENCES)
    assert genodl(ingest, "sequences", sequences(tmp_path / "more3.tsv", ["m30"], 99), "--cohort", "c", *at)[0] == 0
    assert pinned is not None and live is not None
    dead = {f.uri for f in lake.files(SEQUENCES, live)} - {f.uri for f in lake.files(SEQUENCES, live + 1)}
    assert len(dead) == 1
    stray = storage.join(lake.path(SEQUENCES), "cohort=c", "part-stray.parquet")
    storage.write_bytes(stray, b"left by a killed run")
    storage.write_json(storage.join(lake.uri, "_staging", "gone", "pins.json"), {"sequences": live})
    rows = sorted(lake.read(SEQUENCES).drop("file").collect())

    # Nothing is older than a week: files are compacted, none is removed.
    before = parquet(lake, SEQUENCES)
    code, report, _ = genodl(maintain, *at, "--dry-run")
    assert (code, report["metrics"]["tables"]["sequences"]) == (0, {"files_compacted": 5, "into": 1})
    assert parquet(lake, SEQUENCES) == before and lake.version(SEQUENCES) == live + 1
    code, report, _ = genodl(maintain, *at)
    assert (code, report["metrics"]["tables"]["sequences"]) == (0, {"files_compacted": 5, "into": 1})
    assert before < parquet(lake, SEQUENCES) and len(lake.files(SEQUENCES, live + 2)) == 1
    assert sorted(lake.read(SEQUENCES).drop("file").collect()) == rows
    assert [r.sequence_id for r in lake.spark.read.parquet(*parquet(lake, SEQUENCES) - before).collect()] == sorted(
        r.sequence_id for r in rows
    )
    # Incremental scoring does not take the compaction for news.
    code, report, _ = genodl(predict, "binding", *at)
    assert report["rows"]["predictions"]["written"] == 50
    kept = scores(lake)

    # A week later: what a model, a prediction or a run under way needs stays, the rest goes.
    # One run still writes its checkpoints.
    older(lake, 200)
    storage.write_json(storage.join(lake.uri, "_staging", "running", "pins.json"), {"sequences": live})
    plan = genodl(maintain, *at, "--dry-run")[1]["metrics"]
    assert plan["staging_removed"] == ["gone"] and set(plan["pinned"]["sequences"]) == {pinned, live, live + 2}
    code, report, _ = genodl(maintain, *at)
    assert code == 0 and report["metrics"]["tables"] == plan["tables"]
    assert storage.kind(storage.join(lake.uri, "_staging", "gone")) == "absent"
    assert stray not in parquet(lake, SEQUENCES)
    assert dead < parquet(lake, SEQUENCES)  # of the version that the run under way pins
    storage.remove_directory(storage.join(lake.uri, "_staging"))
    older(lake, 200)
    assert genodl(maintain, *at)[0] == 0
    assert dead & parquet(lake, SEQUENCES) == set()
    assert was < parquet(lake, SEQUENCES)
    assert lake.read(SEQUENCES, pinned).count() == 40
    assert genodl(maintain, *at)[1]["status"] == "unchanged"
    assert scores(lake) == kept
    found = genodl(lineage, "predictions", *at, "--key", "s001")[1]["result"]
    assert [one["scored_again"]["identical"] for one in found] == [True]

    # A row goes out of the compacted file, in which others stand too.
    assert genodl(ingest, "sequences", sequences(tmp_path / "more2.tsv", ["m20"], 7), "--cohort", "c", *at)[0] == 0
    code, report, _ = genodl(predict, "binding", *at)
    assert lake.read(PREDICTIONS).count() == 48

    # A table of before a column was there.
    path = lake.path(PREDICTIONS)
    lake.read(PREDICTIONS).drop("distance", "code").write.format("delta").partitionBy("task", "cohort").mode(
        "overwrite"
    ).option("overwriteSchema", "true").save(path)
    code, _, line = genodl(predict, "binding", *at, "--force")
    assert code == 2 and "has no column distance; expected double; run genodl maintain, which adds it" in line
    code, report, _ = genodl(maintain, *at)
    assert code == 0 and report["metrics"]["tables"]["predictions"]["columns_added"] == ["distance", "code"]
    assert genodl(predict, "binding", *at, "--force")[0] == 0
    assert lake.read(PREDICTIONS).where("distance IS NULL OR code IS NULL").count() == 0


VCF = """##fileformat=VCFv4.3
##contig=<ID=1,length=248956422>
##SAMPLE=<ID=withdrawn-7,Note="a person">
##FORMAT=<ID=GT,Number=1,Type=String,Description="Genotype">
##FORMAT=<ID=DP,Number=1,Type=Integer,Description="Depth">
#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\t{}
"""


def vcf(path: Path, samples: list[str], seed: int) -> str:
    generator = np.random.default_rng(seed)
    lines = [VCF.format("\t".join(samples))]
    for i in range(30):
        with_depth = i % 3 == 0
        cells = [
            f"{a}/{b}{f':{d}' if with_depth else ''}"
            for a, b, d in generator.integers(0, 2, (len(samples), 3)) * [1, 1, 9]
        ]
        lines.append(
            "\t".join(["1", str(100 + i), ".", "A", "C", ".", "PASS", ".", "GT:DP" if with_depth else "GT", *cells])
            + "\n"
        )
    lines.append("1\tbad\t.\tA\tC\t.\tPASS\t.\tGT\t" + "\t".join(["0/1"] * len(samples)) + "\n")
    path.write_text("".join(lines))
    return str(path)


def test_nothing_is_left_of_a_person(genodl, lake: Lake, tmp_path: Path) -> None:
    at, who = ("--lake", lake.uri), "withdrawn-7"
    people = ["p0", who, *(f"p{i}" for i in range(2, 20)), f"{who}-b"]  # a name that begins with the other's
    assert genodl(ingest, *matrix(tmp_path, "one", people, GENES, 1), *at)[0] == 0
    assert genodl(ingest, "vcf", vcf(tmp_path / "a.vcf", people[:6], 1), "--cohort", "one", *at)[0] == 0
    alone = genodl(ingest, "vcf", vcf(tmp_path / "alone.vcf", [who], 3), "--cohort", "one", *at)
    assert alone[0] == 0
    label = ("--label", "status", "--set", "split.folds=2")
    code, report, line = genodl(train, "tumor_type", *at, *label, *FAST_MLP)
    assert code == 0, line
    model = report["metrics"]["model_id"]
    assert genodl(predict, "tumor_type", *at, "--label", "status")[0] == 0
    assert (
        genodl(
            evaluate,
            "tumor_type",
            *at,
            "--label",
            "status",
            "--set",
            "evaluate.baselines=majority",
            "--set",
            "evaluate.resamples=10",
        )[0]
        == 0
    )
    assert (
        genodl(qc, "--cohort", "one", *at, "--set", "qc.steps=variants,samples,relatedness", "--set", "qc.kinship=-10")[
            0
        ]
        == 0
    )
    others = {k: v for k, v in scores(lake).items() if k.split()[1] != who}
    before = {row.pos: row for row in lake.read(VARIANTS).where("file = 'a.vcf'").collect()}
    hits, _, _ = forgetting.search(_run(lake), Person("one", who))
    assert (
        any("samples/" in hit for hit in hits)
        and any("_delta_log" in hit for hit in hits)
        and any("sources/" in hit for hit in hits)
    )
    versions = {table.name: lake.version(table) for table in lake.existing()}

    code, _, line = genodl(forget, "--cohort", "one", "--sample", "nobody", *at)
    assert code == 2 and "found no such sample" in line and "nobody" not in line
    assert {table.name: lake.version(table) for table in lake.existing()} == versions
    code, report, line = genodl(forget, "--cohort", "one", "--sample", who, *at)
    assert code == 0, line
    metrics = report["metrics"]
    assert metrics["files_with_the_identifier"] == [] and metrics["files_searched"] > 100
    assert [m["model_id"] for m in metrics["models_that_saw_the_sample"]] == [model]
    assert who not in str(report).replace(f"{who}-b", "")
    assert forgetting.search(_run(lake), Person("one", who))[:2] == ([], [])
    assert forgetting.search(_run(lake), Person("one", f"{who}-b"))[0] != []
    # By hand: no file holds the name's bytes but where the other name stands.
    for uri in storage.files_under(lake.uri):
        content = storage.read_bytes(uri)
        assert content.count(who.encode()) == content.count(f"{who}-b".encode()), uri

    # The others are as they were.
    assert scores(lake) == others
    assert sorted(r.sample_id for r in lake.read(SAMPLES).collect()) == sorted(p for p in people if p != who)
    after = {row.pos: row for row in lake.read(VARIANTS).collect()}
    assert after.keys() == before.keys() and {row.file for row in after.values()} == {"a.vcf"}
    for pos, row in after.items():
        old = before[pos]
        calls, phased = genotypes.unpack(pa.array([old.gt], pa.binary()), 6)
        left, left_phased = genotypes.unpack(pa.array([row.gt], pa.binary()), 5)
        np.testing.assert_array_equal(left, np.delete(calls, 1, 1))
        np.testing.assert_array_equal(left_phased, np.delete(phased, 1, 1))
        assert row.n_samples == 5
        assert (row.fields is None) == (old.fields is None)
        if row.fields is not None:
            cells = bytes(old.fields).split(b"\t")
            assert bytes(row.fields).split(b"\t") == [*cells[:1], *cells[2:]]
    header = lake.read(SOURCES).where("file = 'a.vcf'").collect()[0].header
    assert header.rstrip().split("\t")[9:] == [p for p in people[:6] if p != who] and "##SAMPLE" not in header
    asked = genodl(query, "SELECT pos, alleles(gt, n_samples) AS calls FROM variants ORDER BY pos LIMIT 1", *at)[1][
        "result"
    ]
    assert len(asked[0]["calls"]) == 5
    blank = lake.read(EXAMPLES).where(F.col("entity_id").startswith("withdrawn ")).collect()
    assert (
        len(blank) == 1
        and set(bytes(blank[0].folds)) == {255}
        and np.isnan(np.frombuffer(blank[0].x, np.float32)).all()
    )
    assert lake.read(EXAMPLES).count() == lake.read(DATASETS).collect()[0].rows

    # The lake works on; the same person is not let in again.
    assert genodl(forget, "--cohort", "one", "--sample", who, *at)[1]["status"] == "unchanged"
    answer = genodl(lineage, "predictions", *at, "--key", "p3")
    assert answer[0] == 0, answer[2]
    found = answer[1]["result"]
    assert "gone" in found[0]["scored_again"]["not_possible"]
    code, report, line = genodl(train, "tumor_type", *at, *label, *FAST_MLP, "--force")
    assert (code, report["status"]) == (0, "done"), line
    assert lake.read(MODELS).count() == 2
    assert genodl(predict, "tumor_type", *at, "--label", "status")[1]["rows"]["predictions"]["written"] == 20
    again = vcf(tmp_path / "b.vcf", people[:6], 2)
    code, _, line = genodl(ingest, "vcf", again, "--cohort", "one", *at)
    assert code == 2 and "the first of them at place 2 of the file" in line and who not in line
    assert genodl(ingest, "vcf", again, "--cohort", "two", *at)[0] == 0  # another cohort, another consent
    assert lake.read(FORGOTTEN).count() == 1


ODD = 'O\'N "q" \\ 100% (.*) Zoë'
OTHERS = ["keep", "11", "GT.1", "undone"]


def cohort_of_odd_names(folder: Path) -> tuple[str, str]:
    """A VCF whose words are all names of samples too, and a sample table."""
    samples = ["1", "GT", "done", ODD, *OTHERS]
    meta = """##fileformat=VCFv4.3
##contig=<ID=1,length=248956422>
##INFO=<ID=NS,Number=1,Type=Integer,Description="Samples with data, done">
##FORMAT=<ID=GT,Number=1,Type=String,Description="Genotype">
##SAMPLE=<ID=done,Note="of 1">
##SAMPLE=<ID=keep,Note="GT of 1 is done">
##PEDIGREE=<ID=keep,Father=1,Mother=done>
##source=caller -s GT,keep -t 1 --done done
"""
    lines = [meta + "\t".join(["#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO", "FORMAT", *samples])]
    lines += [
        f"1\t{100 + i}\t.\tA\tC\t.\tPASS\tNS=1\tGT\t" + "\t".join(f"{(i + s) % 2}/1" for s in range(len(samples)))
        for i in range(4)
    ]
    (folder / "odd.vcf").write_text("\n".join(lines) + "\n")
    quoted = ODD.replace('"', '""')
    people = [("1", "GT", ""), ("GT", "done", "1"), ("done", "1", ""), (f'"{quoted}"', "x", "")]
    rows = [f"{name}\t{group}\t1\t{father}" for name, group, father in people]
    rows += ["keep\tdone\t20\t1", "11\tGT\t1\tdone", f'GT.1\t1\t1\t"{quoted}"', "undone\tx\t1\tGT"]
    (folder / "odd.tsv").write_text("sample_id\tstatus\tbatch\tfather\n" + "\n".join(rows) + "\n")
    return str(folder / "odd.vcf"), str(folder / "odd.tsv")


def texts(lake: Lake) -> list[str]:
    """What runs and others' rows say, row by row."""
    runs = sorted(str(row.asDict()) for row in lake.read(RUNS).where("job <> 'monitor'").collect())
    rows = [str(row) for row in lake.read(VARIANTS).drop("gt", "n_samples", "sample_set").orderBy("pos").collect()]
    return [*runs, *rows, *(str(row) for row in lake.read(QC_STEPS).orderBy("step").collect())]


def test_people_of_any_name_are_forgotten(genodl, lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at = ("--lake", lake.uri)
    file, table = cohort_of_odd_names(tmp_path)
    with monkeypatch.context() as broken:
        broken.setattr(Run, "record", lambda self: 1 / 0)
        code, report, _ = genodl(ingest, "vcf", file, "--cohort", "odd", "--samples", table, *at)
    assert (
        code == 0
        and report["warnings"][-1]
        == "this run is missing from table runs, its row could not be written: division by zero"
    )
    code, report, line = genodl(
        ingest, "vcf", file, "--cohort", "odd", *at, "--set", "predict.first=GT", "--set", "predict.last=keep"
    )
    assert (code, report["status"], lake.count(RUNS)) == (0, "unchanged", 1), line
    assert genodl(qc, "--cohort", "odd", *at, "--set", "qc.steps=variants,samples")[0] == 0
    before = texts(lake)
    stray = [storage.join(lake.path(VARIANTS), "cohort=odd", f"part-{name}.parquet") for name in ("old", "young")]
    for uri, hours in zip(stray, (-1, 1), strict=True):
        storage.write_bytes(uri, b"a run without a lease wrote this")
        moment = os.stat(storage.local_path(uri)).st_mtime + 3600 * hours
        os.utime(storage.local_path(uri), (moment, moment))

    # Who writes is waited for; nobody starts meanwhile.
    argv = [
        sys.executable,
        "-m",
        "jobs",
        "ingest",
        "vcf",
        vcf(tmp_path / "late.vcf", ["l0", "l1"], 1),
        "--cohort",
        "late",
        *at,
    ]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as writer:
        while (
            not (held := [uri for uri in storage.files_under(lake.uri) if "/_locks/writing-" in uri])
            and writer.poll() is None
        ):
            time.sleep(0.05)
        assert len(held) == 1
        code, _, line = genodl(forget, "--cohort", "odd", "--sample", "1", *at, "--set", "lock.wait_seconds=0.2")
        assert (
            code == 4
            and f"genodl: error: found genodl ingest on {os.uname().nodename}, process {writer.pid}, since 2" in line
        )
        code, report, line = genodl(forget, "--cohort", "odd", "--sample", "1", *at, "--set", "lock.wait_seconds=300")
        assert code == 0, line
        assert writer.wait(60) == 0
    assert report["metrics"]["files_with_the_identifier"] == [] and report["metrics"]["files_with_the_word"] > 0
    assert any("are left" in text and "part-young" in text for text in report["warnings"])
    assert [storage.kind(uri) for uri in stray] == ["absent", "file"]
    storage.remove_file(stray[1])
    with locks.held(lake.uri, "forget", "0" * 32, exclusive=True):
        code, _, line = genodl(ingest, "vcf", file, "--cohort", "odd", *at, "--set", "lock.wait_seconds=0.2")
        assert code == 4 and "genodl: error: found genodl forget on" in line

    # One is cut off in the middle, and taken up.
    with monkeypatch.context() as broken:
        broken.setattr(removal, "_drop_orders", lambda *_: 1 / 0)
        assert genodl(forget, "--cohort", "odd", "--sample", "done", *at)[0] == 1
    for name in ("done", "GT", ODD):
        code, report, line = genodl(forget, "--cohort", "odd", "--sample", name, *at)
        assert (code, report["status"]) == (0, "done"), line
        assert report["metrics"]["files_with_the_identifier"] == []

    # All that others' rows say is as it was, the runs too.
    late = [text for text in texts(lake) if "'late'" not in text and '"late"' not in text]
    named = [("predict.first=GT", "predict.first=withdrawn"), ('"first": "GT"', '"first": "withdrawn"')]
    assert late == [text.replace(*named[0]).replace(*named[1]) for text in before]
    rows = {
        row.sample_id: (row.status, row.batch, row.father)
        for row in lake.read(SAMPLES).where("cohort = 'odd'").collect()
    }
    alias = {name: Person("odd", name).alias for name in ("1", "done", "GT", ODD)}
    assert rows == {
        "keep": ("done", "20", alias["1"]),
        "11": ("GT", "1", alias["done"]),
        "GT.1": ("1", "1", alias[ODD]),
        "undone": ("x", "1", alias["GT"]),
    }
    header = lake.read(SOURCES).where("cohort = 'odd' AND source = 'vcf'").collect()[0].header.split("\n")
    original = Path(file).read_text().split("\n")
    assert header[:4] == original[:4] and header[4:-1] == [
        original[5],
        "##source=caller -s withdrawn,keep -t 1 --done done",
    ]
    sets = {
        row.sample_set for row in lake.read(VARIANTS).where("cohort = 'odd'").select("sample_set").distinct().collect()
    }
    orders = [
        [
            row.sample_id
            for row in lake.read(SAMPLE_SETS).where(F.col("sample_set") == one).orderBy("position").collect()
        ]
        for one in sets
    ]
    assert orders == [OTHERS]

    # The lake works on.
    assert genodl(report_job, "--output", str(tmp_path / "page"), *at)[0] == 0
    assert genodl(lineage, "sources", "--key", "odd.vcf", *at)[0] == 0
    assert genodl(list_job, "runs", *at)[0] == 0
    assert genodl(query, "SELECT count(*) AS n FROM variants WHERE cohort = 'odd'", *at)[1]["result"] == [{"n": 4}]
    code, _, line = genodl(export, "vcf", "--cohort", "odd", "--output", str(tmp_path / "odd.vcf.gz"), *at)
    assert code == 0, line
    with pysam.VariantFile(str(tmp_path / "odd.vcf.gz")) as written:
        assert list(written.header.samples) == OTHERS and written.header.formats["GT"].number == 1
        calls = [[record.samples[name]["GT"][0] for name in OTHERS] for record in written]
    assert calls == [[(i + s) % 2 for s in range(4, 8)] for i in range(4)]

    # Without any lease: who withdraws while a file is read does not come back with it.
    real = vcf_source.Source.bring

    def meanwhile(kind: Any, arrival: Any, files: Any) -> Any:
        brought, run = real(kind, arrival, files), arrival.run
        run.lake.merge(
            FORGOTTEN,
            run.frame(FORGOTTEN, [{"cohort": "new", "person": Person("new", "gone-1").hash, "forgotten_at": now()}]),
        )
        return brought

    monkeypatch.setattr(vcf_source.Source, "bring", meanwhile)
    code, _, line = genodl(ingest, "vcf", vcf(tmp_path / "new.vcf", ["n0", "gone-1", "n2"], 2), "--cohort", "new", *at)
    assert code == 2 and "found 1 samples that have withdrawn consent while they were ingested" in line
    assert forgetting.search(_run(lake), Person("new", "gone-1"))[0] == []
    assert sorted(row.sample_id for row in lake.read(SAMPLES).where("cohort = 'new'").collect()) == ["n0", "n2"]
    assert lake.read(VARIANTS).where("cohort = 'new'").select("n_samples").distinct().collect()[0].n_samples == 2


def _run(lake: Lake) -> Any:
    from genodl_spark.job import config
    from genodl_spark.job.run import Report

    run = Run(Report("test"), config.load(), lake.uri)
    run.__dict__.update(spark=lake.spark, lake=lake)
    return run


@pytest.mark.parametrize("samples", [1, 2, 5])
@pytest.mark.parametrize("position", [0, 1, 4])
def test_a_sample_is_cut_out_of_text_columns(samples: int, position: int) -> None:
    if position >= samples or samples == 1:
        return
    rows = [[f"{r}{'x' * c}:{c}" for c in range(samples)] for r in range(3)]
    texts = ["\t".join(row).encode() for row in rows]
    found = genotypes.fields_without(
        pa.array([texts[0], None, texts[1], texts[2]], pa.binary()).slice(0), samples, position
    ).to_pylist()
    expected = ["\t".join(row[:position] + row[position + 1 :]).encode() for row in rows]
    assert found == [expected[0], None, expected[1], expected[2]]
