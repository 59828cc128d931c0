"""Time to distant metastasis of breast cancers from 76 genes, age, grade and size (GSE7390, in ../shared/data): the
network of the task `survival` beside Cox's models, 5 folds x 5 repeats. Files to table without a lake; about a minute.

.venv/bin/python -m tests.reference.survival
"""

from __future__ import annotations

import csv
import gzip
import tempfile
import time
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from genodl_spark.core import packing
from genodl_spark.features.covariates import covariate
from genodl_spark.job import config
from genodl_spark.learning import baselines, feed, metrics, splits, survival
from genodl_spark.learning.baseline_fits import of_head
from genodl_spark.learning.heads import Head
from genodl_spark.learning.training import plan, rank
from genodl_spark.report import content
from tests.reference.run import DATA

COVARIATES = ("age", "grade", "size")
NAMES = ("majority", "cox_elastic_net", "cox_covariates", "ridge", "linear_svm", "random_forest")
SHOWN = ("c_index", "c_index_uno", "integrated_brier", "mean_auroc")


def read(folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows float32 (n, f) of genes and covariates; which columns are covariates; target (n, 2)."""
    with open(folder / "samples.tsv") as table:
        rows = list(csv.DictReader(table, delimiter="\t"))
    with gzip.open(folder / "matrix.tsv.gz", "rt") as matrix:
        names = matrix.readline().rstrip("\n").split("\t")[1:]
        genes = np.array([line.rstrip("\n").split("\t")[1:] for line in matrix], np.float32).T
    assert names == [row["sample_id"] for row in rows]
    more = [covariate([row[name] for row in rows], None) for name in ("age", "size")]
    grades = [row["grade"] for row in rows]
    more += [covariate(grades, value) for value in sorted(set(grades))]
    x = np.column_stack([genes, *more])
    target = np.array([[float(row["time_days"]), float(row["label"])] for row in rows])
    return x, np.arange(genes.shape[1], x.shape[1]), target


def network(x: np.ndarray, target: np.ndarray, codes: np.ndarray, head: Head) -> np.ndarray:
    """Held-out answers of the task's network, float64 (repeats, n, scores)."""
    settings, (n, repeats) = config.load("survival"), codes.shape
    with tempfile.TemporaryDirectory() as folder:
        columns = {
            "row_id": pa.array(np.arange(n)),
            "x": packing.column(x),
            "target": pa.array(np.full(n, np.nan)),
            "targets": packing.column(target),
            "folds": packing.column(codes),
        }
        pq.write_table(pa.table(columns), f"{folder}/rows.parquet")
        layout = feed.Layout(n, x.shape[1], "float32", repeats, targets=2)
        files, staging = [f"file://{folder}/rows.parquet"], f"{folder}/s"
        split = (int(codes.max()) + 1, "none", 1.0, 0)
        shaped = (settings.model, settings.train, settings.seed, staging)
        result = rank.run_alone(plan.Job(files, layout, "pyarrow", 1 << 30, [head], *split, *shaped))
        scored = pa.concat_tables([pq.read_table(f"{staging}/{name}") for name in result["scored"]])
    found = np.full((repeats, n, head.scores), np.nan)
    at = scored.column("repeat").to_numpy(), scored.column("row_id").to_numpy()
    found[at] = np.array(scored.column("scores").to_pylist())
    return found


def main() -> None:
    x, of_covariates, target = read(DATA / "expr_gse7390_breast_sksurv")
    times, event = target[:, 0], target[:, 1] > 0
    head = Head("time_days", "time", (), survival.horizons(times, event))
    ids = np.array([f"s{i:03}" for i in range(len(x))])
    strata = ["event" if came else "none" for came in event]
    codes = splits.assign(list(ids), strata, None, None, splits.Split(folds=5, repeats=5), 0).codes
    started = time.perf_counter()
    answers, seconds = {"model": network(x, target, codes, head)}, {"model": time.perf_counter() - started}
    for name in NAMES:
        started = time.perf_counter()
        own = x[:, of_covariates] if name == "cox_covariates" else x
        answers[name] = np.empty((5, len(x), head.scores))
        for repeat, fold in np.ndindex(5, 5):
            held = codes[:, repeat] == fold
            fitted = (name, own[~held], times[~held], event[~held], own[held], head.times, 0)
            answers[name][repeat, held] = baselines.fit_predict_times(*fitted)
        seconds[name] = time.perf_counter() - started
    held_out = {name: of_head(head, ids, ids, target, answer) for name, answer in answers.items()}
    rows = []
    for name, one in held_out.items():
        found = metrics.intervals(one)
        difference = metrics.paired(held_out["model"], one, "c_index") if name != "model" else None
        rows.append([name, *(found[metric] for metric in SHOWN), difference, round(seconds[name])])
    print(f"{date.today()}, {len(x)} tumours, {event.sum()} events, 5 folds x 5 repeats\n")
    print(content.table(rows, ["predictor", *SHOWN, "c_index: model - it", "seconds"]))


if __name__ == "__main__":
    main()
