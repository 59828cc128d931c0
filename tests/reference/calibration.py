"""Simulated rows, 5,000 that train and 5,000 new ones, through the verbs: are probabilities as often right as they say,
do sets of classes and intervals of values hold the truth as often as they promise, and how often is a model right
where it does not abstain? Some minutes.

    .venv/bin/python -m tests.reference.calibration [--seeds 3] [--rows 5000]

Of three unequal classes, of which one is bent, as no linear model has it, and whose centres lie so near each other that
more than a fifth of the rows is told wrong: where nine of ten are right, sets of nine in ten hold one class and say
nothing; and of a value with heavy tails. The settings are those of tumor_type, 5 folds; `none` counts every row alike,
so that probabilities are those of the rows as they are.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from datetime import date
from pathlib import Path

import numpy as np

from genodl_spark.core import session
from genodl_spark.job import config
from genodl_spark.job.run import Report, Run
from genodl_spark.lake.tables.learning import PREDICTIONS
from genodl_spark.learning import metrics
from genodl_spark.learning.metrics import HeldOut
from genodl_spark.report import content
from tests.reference.run import verb

FEATURES, SHARES = 30, (0.5, 0.3, 0.2)
CLASSES = ("A", "B", "C")


def drawn(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows float64 (n, features), classes (n,) and values (n,)."""
    centre = np.random.default_rng(1).normal(0, 0.3, (len(SHARES), FEATURES))
    random = np.random.default_rng([seed, 2])
    kind = random.choice(len(SHARES), rows, p=SHARES)
    x = centre[kind] + random.normal(size=(rows, FEATURES))
    x[kind == 2, 0] = np.abs(x[kind == 2, 0]) * random.choice([-1, 1], (kind == 2).sum()) * 1.5
    value = 2 * x[:, 0] - x[:, 1] + np.abs(x[:, 2]) + random.standard_t(3, rows)
    return x, kind, value


def brought(folder: Path, lake: str, cohort: str, rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    x, kind, value = drawn(rows, seed)
    names = [f"{cohort}{i:05}" for i in range(rows)]
    matrix, table = folder / f"{cohort}.tsv", folder / f"{cohort}.samples.tsv"
    lines = ["\t".join(["id", *names])]
    lines += ["\t".join([f"g{j:02}", *(f"{v:.5f}" for v in x[:, j])]) for j in range(FEATURES)]
    matrix.write_text("\n".join(lines) + "\n")
    told = [f"{name}\t{CLASSES[k]}\t{v:.6f}" for name, k, v in zip(names, kind, value, strict=True)]
    table.write_text("\n".join(["sample_id\tlabel\tvalue", *told]) + "\n")
    verb("ingest", "expression", str(matrix), "--samples", str(table), "--cohort", cohort, "--lake", lake)
    return kind, value


def measured(folder: Path, rows: int, seed: int) -> list[list[str]]:
    lake, found = str(folder / "lake"), []
    brought(folder, lake, "learnt", rows, 2 * seed)
    kind, value = brought(folder, lake, "new", rows, 2 * seed + 1)
    common = ("tumor_type", "--lake", lake)
    options = ("split.folds=5", "train.class_weights=none", "quality.transform=none", "tracking.uri=off")
    given = [part for one in (*options, "train.launcher=process") for part in ("--set", one)]
    for label in ("label", "value"):
        trained = verb("train", *common, "--cohort", "learnt", "--label", label, *given, "--procs", "1")
        verb("predict", *common, "--cohort", "new", "--label", label, "--model", trained["metrics"]["model_id"])
    run = Run(Report("reference"), config.load("tumor_type"), lake)
    said = run.lake.read(PREDICTIONS).orderBy("entity_id").collect()
    of_class = [row for row in said if row.label_column == "label"]
    p = np.array([[row.probabilities[name] for name in CLASSES] for row in of_class])
    names = np.array([row.entity_id for row in of_class])
    figures = metrics.metrics(HeldOut(names, names, kind.astype(float), p[None], list(CLASSES)))
    inside = np.array([CLASSES[k] in row.prediction_set for k, row in zip(kind, of_class, strict=True)])
    sizes = np.array([len(row.prediction_set) for row in of_class])
    kept = np.array([not row.abstained for row in of_class])
    right = np.array([row.predicted == CLASSES[k] for k, row in zip(kind, of_class, strict=True)])
    least = min(inside[kind == k].mean() for k in range(len(CLASSES)))
    found.append([f"classes, seed {seed}", f"{inside.mean():.3f}", f"{least:.3f}", f"{sizes.mean():.2f}",
                  f"{figures['ece']:.4f}", f"{right.mean():.3f}", f"{1 - kept.mean():.3f}",
                  f"{right[kept].mean():.3f}", f"{p.max(1)[kept].mean():.3f}"])  # fmt: skip
    of_value = [row for row in said if row.label_column == "value"]
    ends = np.array([[row.prediction_low, row.prediction_high] for row in of_value])
    holds = ((ends[:, 0] <= value) & (value <= ends[:, 1])).mean()
    width = (ends[:, 1] - ends[:, 0]).mean()
    found.append([f"value, seed {seed}", f"{holds:.3f}", "", f"{width:.2f}", "", "", "", "", ""])
    return found


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--seeds", type=int, default=3)
    made.add_argument("--rows", type=int, default=5000)
    given = made.parse_args()
    print(f"{date.today()}, {os.cpu_count()} cores: -m tests.reference.calibration {' '.join(sys.argv[1:])}\n")
    rows: list[list[str]] = []
    with tempfile.TemporaryDirectory() as scratch, session.shared():
        for seed in range(given.seeds):
            (folder := Path(scratch) / str(seed)).mkdir()
            rows += measured(folder, given.rows, seed)
    head = ["new rows", "covered (asked .9)", "least of a class", "classes in a set, or width", "ECE", "accuracy",
            "abstains", "accuracy where it does not", "probability there"]  # fmt: skip
    print(content.table(rows, head))


if __name__ == "__main__":
    main()
