"""What model.reverse_complement=auto is, by what training rows say of both strands."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from genodl_spark.core import storage
from genodl_spark.job import config
from genodl_spark.job.run import Report, Run
from genodl_spark.lake.delta import Lake
from genodl_spark.lake.tables.learning import MODELS
from genodl_spark.registry import strands
from genodl_spark.registry.datasets import dataset_of
from jobs import ingest, train

from ..learning.test_strands import planted

SMALL = (
    *("model.channels=[8]", "model.dilations=[1]", "model.stem_kernel=7", "train.ensemble=1", "train.epochs=1"),
    *("train.min_steps=1", "train.procs=1", "train.validation=0", "tracking.uri=off", "sequence.alike=0"),
)


@pytest.fixture
def cohorts(genodl, lake: Lake, tmp_path: Path) -> Lake:
    """Cohorts `both` and `one`: what their training rows say of strands; test rows say the contrary."""
    for name in ("both", "one"):
        lines = ["id\tsequence\tlabel\tsplit"]
        for split, both, rows in (("train", name == "both", 600), ("test", name != "both", 1200)):
            codes, y = planted(rows, both, rows)
            for number, (row, label) in enumerate(zip(codes, y, strict=True)):
                lines.append(f"{split}{number}\t{''.join(np.array(list('ACGT'))[row])}\t{label}\t{split}")
        path = tmp_path / f"{name}.tsv"
        path.write_text("\n".join([*lines, ""]))
        code, _, last = genodl(ingest, "sequences", str(path), "--cohort", name, "--lake", lake.uri)
        assert code == 0, last
    return lake


def decided(lake: Lake, cohort: str, *settings: str) -> str:
    run = Run(Report("test"), config.load("binding", None, [*SMALL, *settings]), lake.uri)
    dataset, _ = dataset_of(run, cohort, None)
    return strands.decided(run, dataset).settings.model["reverse_complement"]


def test_training_rows_alone_say_whether_strands_are_one(genodl, cohorts: Lake) -> None:
    published = "split.column=split"
    assert decided(cohorts, "both", published) == "equivariant"
    assert decided(cohorts, "one", published) == "none"
    assert decided(cohorts, "both", published, "model.positional=3") == "augment"
    assert decided(cohorts, "both", published, "model.reverse_complement=none") == "none"
    # of all rows two thirds say that they are one to `one`, and a third to `both`
    assert decided(cohorts, "both", "split.folds=3") == "none"

    asked = ("--lake", cohorts.uri, "--cohort", "both", *(part for s in (*SMALL, published) for part in ("--set", s)))
    code, report, last = genodl(train, "binding", *asked)
    assert code == 0, last
    assert report["metrics"]["reverse_complement"] == "equivariant"
    (row,) = cohorts.read(MODELS).collect()
    assert json.loads(row.settings)["model"]["reverse_complement"] == "equivariant"
    card = storage.read_json(storage.join(cohorts.model_uri(row.model_id), "model.json"))
    assert card["model"]["reverse_complement"] == "equivariant"
    assert genodl(train, "binding", *asked)[1]["status"] == "unchanged"
