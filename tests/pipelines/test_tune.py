"""A small search through the command line: what trials are trained on, what they come to,
and the model that the best of them makes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyspark.sql import functions as F

from genodl_spark.core import storage
from genodl_spark.job import config
from genodl_spark.lake.delta import Lake
from genodl_spark.lake.tables.learning import DATASETS, EXAMPLES, MODELS, SPLITS, TRIALS
from genodl_spark.learning.tuning import as_trial
from jobs import ingest, train, tune
from jobs import report as report_job

FAST = [
    f"--set={text}"
    for text in (
        "train.epochs=4",
        "train.min_steps=0",
        "train.ensemble=2",
        "train.procs=1",
        "tracking.uri=off",
        "tune.folds=2",
    )
]
FEW = ["--set", "evaluate.baselines=majority,decision_tree", "--set", "evaluate.resamples=50"]


def cohort(folder: Path, samples: int = 60) -> list[str]:
    """A matrix of which five genes tell two classes apart; two samples of each patient."""
    generator = np.random.default_rng(1)
    kind = np.arange(samples) // 2 % 2
    values = generator.normal(size=(12, samples))
    values[:5] += 2 * kind
    names = [f"s{i}" for i in range(samples)]
    lines = ["gene\t" + "\t".join(names)] + [
        "\t".join([f"g{g}", *(f"{v:.4f}" for v in row)]) for g, row in enumerate(values)
    ]
    (folder / "m.tsv").write_text("\n".join(lines) + "\n")
    roles = ["train", "train", "validation", "train", "test"]
    rows = [
        f"{name}\t{'ab'[k]}\tp{i // 2}\t{roles[i // 2 % 5]}"
        for i, (name, k) in enumerate(zip(names, kind, strict=True))
    ]
    (folder / "s.tsv").write_text("sample_id\tlabel\tpatient\tpart\n" + "\n".join(rows) + "\n")
    return ["expression", str(folder / "m.tsv"), "--samples", str(folder / "s.tsv"), "--cohort", "c"]


def rows(lake: Lake) -> list[dict[str, Any]]:
    """The table of trials without what differs from run to run."""
    return [
        row.asDict() for row in lake.read(TRIALS).drop("seconds", "started_at").orderBy("study", "number").collect()
    ]


def test_a_search_in_inner_folds(genodl, lake: Lake, tmp_path: Path) -> None:
    at = ("--lake", lake.uri, *FAST, *FEW, "--set", "split.folds=3", "--set", "split.group=patient")
    file = tmp_path / "best.toml"
    argv = ("tumor_type", *at, "--trials", "3", "--output", str(file))
    code, _, line = genodl(tune, *argv)
    assert code == 2 and "no lake there" in line
    assert genodl(ingest, *cohort(tmp_path), "--lake", lake.uri)[0] == 0
    code, report, _ = genodl(tune, *argv)
    assert (code, report["status"]) == (0, "done")
    metrics = report["metrics"]

    # No row for testing takes part in a trial; patients are whole.
    outer, inner = (
        lake.read(SPLITS).where(F.col("role").isin(*roles)) for roles in (["train", "test"], ["fold", "unused"])
    )
    part = {r.entity_id: r.role for r in outer.collect()}
    dealt = {r.entity_id: (r.role, r.fold) for r in inner.collect()}
    assert set(part) == set(dealt) and len(part) == 60
    assert {e for e, role in part.items() if role == "test"} == {
        e for e, (role, _) in dealt.items() if role == "unused"
    }
    assert 8 <= sum(role == "test" for role in part.values()) <= 16
    for patient in range(30):
        assert (
            part[f"s{2 * patient}"] == part[f"s{2 * patient + 1}"]
            and dealt[f"s{2 * patient}"] == dealt[f"s{2 * patient + 1}"]
        )
    dataset = lake.read(DATASETS).where(F.col("dataset") == metrics["dataset"]).collect()[0]
    assert (dataset.folds, json.loads(dataset.split)["inner"]) == (2, 2)
    unused = lake.read(EXAMPLES).where((F.col("dataset") == metrics["dataset"]) & (F.hex("folds") == "FF")).count()
    assert unused == sum(role == "test" for role in part.values())

    # The table, and what the report says of it.
    found = lake.read(TRIALS).collect()
    numbers = sorted((r.predictor, r.objective, r.number) for r in found)
    assert numbers == [
        (*of, n) for of in (("decision_tree", "balanced_accuracy"), ("model", "validation_loss")) for n in range(3)
    ]
    trials = {r.number: as_trial(r) for r in found if r.predictor == "model"}
    assert report["rows"]["trials"] == {"written": 6, "total": 6, "quarantined": 0}
    assert metrics["default"] == trials[0].value and trials[0].values["model.hidden"] == [128]
    assert metrics["best"]["value"] == min(t.value for t in trials.values() if t.value is not None)
    assert metrics["best"]["params"] == trials[metrics["best"]["trial"]].values
    assert all(len(t.rungs) == 3 for t in trials.values() if t.state == "complete")
    assert all(r.dataset == metrics["dataset"] and r.seconds > 0 for r in found)

    # The best makes the one model, on all rows for training, and is measured once,
    # beside baselines with the best of their own.
    model = lake.read(MODELS).collect()
    assert len(model) == 1 and model[0].model_id == metrics["train"]["model_id"] == metrics["test"]["model_id"]
    stored, unread = config.from_stored(model[0].settings, "models")
    assert unread == []
    assert config.override(stored, metrics["best"]["params"]) == stored
    assert stored.train.ensemble == 2
    assert metrics["test"]["n_test"] == sum(role == "test" for role in part.values())
    assert metrics["test"]["model"]["accuracy"]["value"] > 0.7
    assert set(metrics["test"]["baselines"]) == {"majority", "decision_tree"}
    assert stored.evaluate.options == {"decision_tree": metrics["baselines"]["decision_tree"]["best"]["params"]}

    # The file says the same: with it and the split of the search, nothing is left to train.
    text = config.load("tumor_type", str(file))
    assert config.override(text, metrics["best"]["params"]) == text and text.evaluate.options == stored.evaluate.options
    shares = ("--config", str(file), "--set", 'split={train=0.8,test=0.2,group="patient",stratify="label"}')
    assert genodl(train, "tumor_type", *at[:-4], *shares)[1]["status"] == "unchanged"

    # Again: nothing to do.
    before = rows(lake)
    code, again, _ = genodl(tune, *argv)
    assert (code, again["status"], rows(lake)) == (0, "unchanged", before)
    assert {k: v for k, v in again["metrics"].items() if k != "output"} == {
        k: v for k, v in metrics.items() if k != "output"
    }

    # One more, the database lost, and a table that an interrupted run left incomplete:
    # the same trials, and the new ones.
    storage.remove_directory(storage.join(lake.uri, "_tuning"))
    lake.replace(TRIALS, lake.read(TRIALS).where("number < 2 AND predictor = 'model'"), {"study": metrics["study"]})
    code, more, _ = genodl(tune, "tumor_type", *at, "--trials", "4")
    assert (code, more["status"], more["rows"]["trials"]["written"]) == (0, "done", 3)
    after = rows(lake)
    assert len(after) == 8
    assert [r for r in after if r["number"] < 3] == [
        {**r, "rungs": pytest.approx(r["rungs"]), "value": pytest.approx(r["value"])} for r in before
    ]

    code, shown, _ = genodl(report_job, "--lake", lake.uri, "--output", str(tmp_path / "page"))
    page = (tmp_path / "page" / "index.html").read_text()
    assert (code, shown["metrics"]["studies"]) == (0, 1)
    assert "History of the search" in page and metrics["study"] in page and "4: " in page


def test_a_search_on_validation_rows_of_a_published_split(genodl, lake: Lake, tmp_path: Path) -> None:
    assert genodl(ingest, *cohort(tmp_path), "--lake", lake.uri)[0] == 0
    at = (
        "--lake",
        lake.uri,
        *FAST,
        *FEW,
        "--set",
        "split.column=part",
        "--set",
        "tune.rungs=[]",
        "--set",
        "train.patience=2",
    )
    code, report, _ = genodl(tune, "tumor_type", *at, "--trials", "2", "--seed", "1", "--set", "tune.parallel=1")
    assert (code, report["metrics"]["parallel"], report["metrics"]["complete"]) == (0, 1, 2)
    assert lake.read(DATASETS).count() == 1  # the task's own
    assert report["metrics"]["test"]["n_test"] == 12
    assert [len(r.rungs) for r in lake.read(TRIALS).where("predictor = 'model'").collect()] == [1, 1]
    # A tree's accuracy on validation rows, by hand: nothing of the test rows counts.
    first = lake.read(TRIALS).where("predictor = 'decision_tree' AND number = 0").collect()[0]
    held = lake.read(EXAMPLES).where(F.hex("folds") == "01").count()
    assert held == 12 and (first.value * held) % 1 == pytest.approx(0, abs=1e-9)

    for assignment, found in (
        ("tune.space.train.epohcs={low=1,high=3}", "tune.space.train.epohcs: unknown"),
        ("tune.storage=nonsense://x", "tune.storage: not opened"),
        ("evaluate.baselines=nonsense", "evaluate.baselines: found baseline 'nonsense'"),
        (
            "evaluate.baselines=weighted_degree",
            "evaluate.baselines: found baseline 'weighted_degree' of rows that are no",
        ),
    ):
        code, _, line = genodl(tune, "tumor_type", *at, "--set", assignment)
        assert code == 2 and found in line
