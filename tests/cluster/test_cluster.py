"""Jobs on a standalone cluster: two workers, and the code from the wheel that spark-submit sends along."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.cluster.harness import Cluster, two_classes
from tests.public_data import DATA

pytestmark = pytest.mark.timeout(900)  # a cold JVM per job, on a machine that may have two cores
READS = DATA / "vc_na12878_chr20" / "NA12878.chr20.bam"


@pytest.fixture(scope="module")
def lake(two_workers: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake that the cluster filled: expression of 40 samples, in two classes that gene g0 tells apart."""
    folder = tmp_path_factory.mktemp("data")
    matrix, samples = two_classes(folder)
    where = folder / "lake"
    done = two_workers.submit(
        "ingest",
        "expression",
        str(matrix),
        "--samples",
        str(samples),
        "--cohort",
        "c",
        "--lake",
        str(where),
    )
    assert done.code == 0, done.stderr
    assert done.report["rows"]["expression"] == {"written": 40, "total": 40, "quarantined": 0}
    return where


def test_query_sees_what_ingest_wrote(two_workers: Cluster, lake: Path) -> None:
    ui = (
        """(SELECT max(get_json_object(settings, "$['spark']['spark.ui.enabled']")) """
        "FROM runs WHERE job = 'ingest') AS ui"
    )
    done = two_workers.submit(
        "query", f"SELECT label, count(*) AS n, {ui} FROM samples GROUP BY label ORDER BY label", "--lake", str(lake)
    )
    assert done.code == 0, done.stderr
    assert done.stdout.splitlines()[:-1] == ["label\tn\tui", "a\t20\ttrue", "b\t20\ttrue"]
    assert done.report["result"] == [{"label": "a", "n": 20, "ui": "true"}, {"label": "b", "n": 20, "ui": "true"}]


def test_who_does_not_know_the_secret_is_kept_out(two_workers: Cluster, lake: Path, tmp_path: Path) -> None:
    stranger = tmp_path / "stranger.conf"
    stranger.write_text("spark.authenticate false\n")
    done = replace(two_workers, secret=stranger).submit("query", "SELECT 1 AS one", "--lake", str(lake), timeout=200)
    assert done.code == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith(
        f"genodl: error: found no master that answers at {two_workers.master}; expected one that runs"
    )
    shown = "".join(path.read_text(errors="replace") for path in two_workers.secret.parent.glob("*/log"))
    assert two_workers.secret.read_text().split()[-1] not in shown + done.stderr + done.stdout


def test_an_input_error_is_one_line(two_workers: Cluster, lake: Path) -> None:
    done = two_workers.submit("query", "SELECT nothing FROM samples", "--lake", str(lake))
    assert (done.code, done.report["status"]) == (2, "failed")
    assert done.stderr.startswith("genodl: error: SQL: ") and done.stderr.count("\n") == 1


@pytest.mark.skipif(not READS.exists(), reason=f"{READS} is not there")
def test_calls_are_the_same_from_one_executor_and_from_two(two_workers: Cluster, tmp_path: Path) -> None:
    lake, out, found = str(tmp_path / "lake"), tmp_path / "o.vcf.gz", []
    given = ("--cohort", "c", "--reference", str(READS.parent / "ucsc.hg19.chr20.unittest.fasta.gz"), "--lake", lake)
    done = two_workers.submit("ingest", "alignments", str(READS), *given)
    assert done.code == 0, done.stderr
    for most in ("1", "2"):
        asked = ("--region", "chr20:9,800,001-10,200,000", "--output", str(out), "--lake", lake)
        done = two_workers.submit("call", *asked, conf={"spark.cores.max": most})
        assert done.code == 0, done.stderr
        assert done.report["metrics"]["records"] > 100
        found.append(out.read_bytes())
        out.unlink()
    assert found[0] == found[1]


def test_executors_and_ranks_run_the_wheel(two_workers: Cluster) -> None:
    """The checkout is installed in the same environment, so each must say that it took the wheel instead."""
    done = two_workers.submit_file(Path(__file__).with_name("probe.py"), "ranks")
    assert done.code == 0, done.stdout + done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert f"{two_workers.wheel.name}/genodl_spark/" in found["driver"]
    for places in (found["tasks"], found["ranks"]):
        assert {place["worker"] for place in places} == {"worker-0", "worker-1"}
        for place in places:
            assert (
                f"/{place['worker']}/" in place["file"] and f"/{two_workers.wheel.name}/genodl_spark/" in place["file"]
            )
            assert "ancestry" in place["tasks"]
    assert [(place["rank"], place["sum"]) for place in found["ranks"]] == [(0, 3.0), (1, 3.0)]
    # what Prometheus reads, as conf/cluster.toml has it
    assert any(name.endswith("_driver_DAGScheduler_job_allJobs_Value") for name in found["metrics"])


def test_train_on_two_workers_and_predict(two_workers: Cluster, lake: Path) -> None:
    fast = [
        "--set",
        "split.folds=2",
        "--set",
        "split.repeats=1",
        "--set",
        "train.epochs=5",
        "--set",
        "train.min_steps=50",
    ]
    done = two_workers.submit("train", "tumor_type", "--procs", "2", "--lake", str(lake), *fast, timeout=600)
    assert done.code == 0, done.stderr
    assert done.report["status"] == "done" and done.report["rows"]["models"]["written"] == 1
    model = done.report["metrics"]["model_id"]
    logged = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    assert {line["job"] for line in logged} == {"train"} and len({line["run"] for line in logged}) == 1
    assert logged[-1]["application"].startswith("app-") and logged[-1]["tables"]["read"]["expression"] >= 0
    done = two_workers.submit("predict", "tumor_type", "--lake", str(lake))
    assert done.code == 0, done.stderr
    assert done.report["rows"]["predictions"] == {"written": 40, "total": 40, "quarantined": 0}
    sql = f"SELECT count(*) AS n FROM predictions_latest WHERE model_id = '{model}' AND predicted IN ('a', 'b')"
    done = two_workers.submit("query", sql, "--lake", str(lake))
    assert done.report["result"] == [{"n": 40}]
    done = two_workers.submit("train", "tumor_type", "--procs", "3", "--lake", str(lake), *fast)
    assert done.code == 2 and "found 2 task slots; expected at least 3" in done.stderr
