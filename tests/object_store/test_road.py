"""From a VCF to predictions and back, on S3 as on a local disk."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from genodl_spark.core import storage
from jobs import evaluate, forget, ingest, lineage, maintain, predict, prepare, query, simulate, train, verify
from jobs import list as list_verb

pytestmark = pytest.mark.timeout(1200)
SMALL = (
    "train.epochs=3",
    "train.min_steps=30",
    "train.ensemble=2",
    "split.folds=2",
    "split.repeats=1",
    "tracking.uri=off",
)
# two trainings on the same rows may differ in the last bits of a probability
PREDICTED = "SELECT entity_id, predicted, round(value, 6) AS value FROM predictions_latest ORDER BY entity_id"


def road(genodl: Any, people: Path, lake: str) -> dict[str, Any]:
    """What verbs say of a lake that they make."""
    at, labelled = ("--lake", lake), ("ancestry", "--label", "population")

    def done(verb: Any, *argv: str) -> dict[str, Any]:
        code, report, error = genodl(verb, *argv, *at)
        assert code == 0, (verb.__name__, error)
        return report

    samples = people.with_name("people.samples.tsv")
    found = {"ingest": done(ingest, "vcf", str(people), "--samples", str(samples), "--cohort", "mine")["rows"]}
    assert done(ingest, "vcf", str(people), "--samples", str(samples), "--cohort", "mine")["status"] == "unchanged"
    done(prepare, *labelled)
    done(train, *labelled, "--procs", "1", *(word for one in SMALL for word in ("--set", one)))
    found["evaluate"] = done(evaluate, *labelled)["rows"]
    found["predict"] = done(predict, *labelled)["rows"]
    found["query"] = done(query, PREDICTED)["result"]
    found["list"] = [row["cohort"] for row in done(list_verb, "cohorts")["result"]]
    traced = str(done(lineage, "predictions", "--key", "AFR_01"))
    found["lineage"] = [word in traced for word in ("people.vcf.gz", "AFR_01")]
    done(maintain)
    assert done(verify)["metrics"]["findings"] == []
    assert done(forget, "--cohort", "mine", "--sample", "AFR_02")["status"] == "done"
    found["left"] = [row["entity_id"] for row in done(query, PREDICTED)["result"]]
    return found


def test_the_road_is_the_same(spark_store: str, genodl: Any, tmp_path: Path) -> None:
    people = tmp_path / "people.vcf.gz"
    argv = ("--samples", "60", "--length", "40000", "--seed", "1", "--output", str(people))
    assert genodl(simulate, "cohort", *argv)[0] == 0
    remote, local = road(genodl, people, "s3a://lakes/the road"), road(genodl, people, str(tmp_path / "lake"))
    assert remote == local
    assert len(remote["query"]) == 60 and remote["lineage"] == [True, True] and remote["list"] == ["mine"]
    assert len(remote["left"]) == 59 and "AFR_02" not in remote["left"]
    secrets = [os.environ[name].encode() for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")]
    for uri in storage.files_under("s3a://lakes/the road"):
        content = storage.read_bytes(uri)
        if uri.endswith(".parquet"):
            content = str(pq.read_table(pa.BufferReader(content)).to_pylist()).encode()
        assert not any(secret in content for secret in secrets), uri
    assert storage.files_under("s3a://lakes/the road/_locks") == []
