"""kill -9 of the driver at any moment, then the same command: the same tables as of a run that nobody disturbed."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from deltalake import DeltaTable, QueryBuilder

from genodl_spark.formats import bgzf
from genodl_spark.lake.tables import TABLES

KILLS = int(os.environ.get("GENODL_KILLS", "3"))  # per verb
PREDICT_KILLS = int(os.environ.get("GENODL_PREDICT_KILLS", "10"))
VCF_KILLS = int(os.environ.get("GENODL_VCF_KILLS", "20"))
FAST = [
    "--set",
    "train.epochs=5",
    "--set",
    "train.min_steps=60",
    "--set",
    "train.ensemble=2",
    "--set",
    "split.folds=2",
    "--set",
    "split.repeats=1",
]
GENODL = [sys.executable, "-m", "jobs"]


def matrix(folder: Path) -> list[str]:
    generator = np.random.default_rng(0)
    samples = [f"s{i}" for i in range(30)]
    values = generator.normal(size=(50, 30)) + 2 * (np.arange(30) % 2) * (np.arange(50) < 8)[:, None]
    lines = ["gene\t" + "\t".join(samples)] + [
        f"g{i}\t" + "\t".join(f"{v:.3f}" for v in row) for i, row in enumerate(values)
    ]
    (folder / "m.tsv").write_text("\n".join(lines) + "\n")
    (folder / "s.tsv").write_text(
        "sample_id\tlabel\n" + "".join(f"{s}\t{'ab'[i % 2]}\n" for i, s in enumerate(samples))
    )
    return ["ingest", "expression", str(folder / "m.tsv"), "--samples", str(folder / "s.tsv"), "--cohort", "c"]


def cohort(folder: Path) -> list[str]:
    """A bgzipped VCF that several tasks read in pieces, some of its records broken."""
    generator = np.random.default_rng(0)
    samples = 200
    meta = '##fileformat=VCFv4.2\n##contig=<ID=1>\n##FORMAT=<ID=GT,Number=1,Type=String,Description="Genotype">\n'
    head = meta + "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\t"
    with (folder / "c.vcf.gz").open("wb") as sink:
        writer = bgzf.Writer(sink)
        writer.write((head + "\t".join(f"s{i}" for i in range(samples)) + "\n").encode())
        for number, row in enumerate(generator.integers(0, 2, (20_000, samples, 2))):
            fixed = f"1\t{number + 1}\t.\tA\t{'T' if number % 500 else 'U'}\t.\tPASS\t.\tGT\t"
            writer.write((fixed + "\t".join(f"{a}|{b}" for a, b in row.tolist()) + "\n").encode())
        writer.close()
    return ["ingest", "vcf", str(folder / "c.vcf.gz"), "--cohort", "c"]


def contents(lake: Path) -> dict[str, list[str]]:
    """Rows of every table, time stamps, run times and versions apart."""
    apart = {"metrics", "source_versions", "uri"}
    found = {}
    for name in sorted(TABLES):
        if name == "runs" or not (lake / name / "_delta_log").is_dir():
            continue
        rows = QueryBuilder().register("t", DeltaTable(str(lake / name))).execute("SELECT * FROM t").read_all()
        kept = sorted(c for c in rows.column_names if not c.endswith("_at") and c not in apart)
        found[name] = sorted(
            str(row) for row in zip(*([value.as_py() for value in rows.column(c)] for c in kept), strict=True)
        )
    return found


def finish(argv: list[str], lake: Path) -> dict:
    done = subprocess.run([*GENODL, *argv, "--lake", str(lake)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.strip().split("\n")[-1])


def kill_at(argv: list[str], lake: Path, seconds: float) -> bool:
    """Starts the verb and kills its driver after a while; False when it had ended before."""
    driver = subprocess.Popen(
        [*GENODL, *argv, "--lake", str(lake)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        driver.wait(seconds)
        return False
    except subprocess.TimeoutExpired:
        os.kill(driver.pid, signal.SIGKILL)  # the driver alone: its JVM and ranks have to notice by themselves
        driver.wait()
        deadline = time.time() + 60
        while group_alive(driver.pid) and time.time() < deadline:
            time.sleep(0.5)
        assert not group_alive(driver.pid), "processes of the killed driver are still there after a minute"
        return True


def killed_often(
    argv: list[str], lake: Path, expected: dict[str, list[str]], seconds: float, times: int, moments: random.Random
) -> None:
    """Starts the verb until it was killed so many times; a run that ends before starts over from the lake as it was."""
    before, killed = lake.with_name("before"), 0
    shutil.rmtree(before, ignore_errors=True)
    if lake.exists():
        shutil.copytree(lake, before)
    while killed < times:
        if kill_at(argv, lake, seconds * moments.uniform(0.2, 1.0)):
            killed += 1
            continue
        assert contents(lake) == expected, f"after {killed} kills"
        seconds *= 0.9  # what it took when nobody killed it was with more beside it
        shutil.rmtree(lake)
        if before.exists():
            shutil.copytree(before, lake)


def group_alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture(scope="module")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[list[list[str]], list[dict[str, list[str]]], list[float]]:
    """The verbs, the tables after each of them, and the seconds that each took."""
    folder = tmp_path_factory.mktemp("undisturbed")
    verbs = [matrix(folder), ["train", "tumor_type", *FAST], ["predict", "tumor_type"]]
    tables, seconds = [], []
    for argv in verbs:
        started = time.perf_counter()
        finish(argv, folder / "lake")
        seconds.append(time.perf_counter() - started)
        tables.append(contents(folder / "lake"))
    return verbs, tables, seconds


@pytest.mark.timeout(3600)
def test_killed_and_run_again(undisturbed, tmp_path: Path) -> None:
    verbs, tables, seconds = undisturbed
    moments = random.Random(1)
    for argv, expected, whole in zip(verbs, tables, seconds, strict=True):
        killed_often(
            argv, tmp_path / "lake", expected, whole, PREDICT_KILLS if argv[0] == "predict" else KILLS, moments
        )
        finish(argv, tmp_path / "lake")
        assert contents(tmp_path / "lake") == expected, argv[0]
        assert finish(argv, tmp_path / "lake")["status"] == "unchanged"


@pytest.mark.timeout(3600)
def test_two_predict_jobs_at_the_same_time(undisturbed, tmp_path: Path) -> None:
    verbs, tables, _ = undisturbed
    for argv in verbs[:2]:
        finish(argv, tmp_path / "lake")
    both = [
        subprocess.Popen([*GENODL, *verbs[2], "--lake", str(tmp_path / "lake")], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    reports = [json.loads(job.communicate()[0].strip().split("\n")[-1]) for job in both]
    assert [job.returncode for job in both] == [0, 0]
    assert {report["status"] for report in reports} <= {"done", "unchanged"}
    assert contents(tmp_path / "lake") == tables[2]


@pytest.mark.timeout(3600)
def test_ingest_of_a_vcf_killed_and_run_again(tmp_path: Path) -> None:
    argv = cohort(tmp_path)
    started = time.perf_counter()
    assert finish(argv, tmp_path / "undisturbed")["rows"]["variants"] == {
        "written": 19_960,
        "total": 19_960,
        "quarantined": 40,
    }
    whole = time.perf_counter() - started
    expected = contents(tmp_path / "undisturbed")
    killed_often(argv, tmp_path / "lake", expected, whole, VCF_KILLS, random.Random(2))
    finish(argv, tmp_path / "lake")
    assert contents(tmp_path / "lake") == expected
    assert finish(argv, tmp_path / "lake")["status"] == "unchanged"
