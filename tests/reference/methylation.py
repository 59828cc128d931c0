"""Methylation on real data, through the verbs, for the tables of docs/accuracy.md; some minutes; reads ../shared/data.

    .venv/bin/python -m tests.reference.methylation [clock] [tissue]

clock: Horvath's published coefficients on 16 brains (Example 55), whole; then with 10, 20 and 30% of the clock's CpGs
removed at random, 20 times each. What fills them is learnt of the other 15 people, one person left out in turn, so that
nothing of a person's own values is known but what is left. tissue: 217 samples of Christensen 2009, 5 folds x 5 seeds.
"""

from __future__ import annotations

import csv
import gzip
import os
import sys
import tempfile
from datetime import date
from pathlib import Path

import numpy as np

from genodl_spark.core import session
from genodl_spark.formats import coefficients
from genodl_spark.job import config
from genodl_spark.job.run import Report, Run
from genodl_spark.lake.tables.learning import PREDICTIONS
from genodl_spark.report import content
from tests.reference.run import DATA, verb

HORVATH, CHRISTENSEN = DATA / "meth_horvath_example55", DATA / "meth_christensen_tissue"
SHARES, SEEDS = (0.1, 0.2, 0.3), 20
SHOWN = ("accuracy", "balanced_accuracy", "macro_f1", "ece")


def written(path: Path, names: list[str], probes: list[str], values: np.ndarray) -> str:
    """values (probes, names), NaN as NA."""
    lines = ["\t".join(["id", *names])]
    lines += [
        "\t".join([probe, *("NA" if np.isnan(v) else f"{v:.9g}" for v in row)])
        for probe, row in zip(probes, values, strict=True)
    ]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def prepared(folder: Path) -> tuple[list[str], np.ndarray]:
    """Names and ages; beside the whole files a table that says who is left out in which column, and the clock's CpGs
    with some removed: samples PERSON.SHARE.SEED."""
    with gzip.open(HORVATH / "matrix.tsv.gz", "rt") as file:
        names = file.readline().rstrip("\n").split("\t")[1:]
        clock = set(coefficients.read(str(HORVATH / "coefHorvath.tsv")).names)
        lines = [line.rstrip("\n").split("\t") for line in file]
    kept = [line for line in lines if line[0] in clock]
    probes, values = [line[0] for line in kept], np.array([line[1:] for line in kept], np.float64)
    with open(HORVATH / "samples.tsv") as table:
        ages = {row["sample_id"]: row["age"] for row in csv.DictReader(table, delimiter="\t")}
    told = ["\t".join(["sample_id", "age", *(f"without{i}" for i in range(len(names)))])]
    for name in names:
        told.append("\t".join([name, ages[name], *("test" if name == other else "train" for other in names)]))
    (folder / "people.tsv").write_text("\n".join(told) + "\n")
    columns, made = [], []
    for person, name in enumerate(names):
        for share in SHARES:
            for seed in range(SEEDS):
                draw = np.random.default_rng([seed, person, round(100 * share)])
                gone = draw.permutation(len(probes))[: round(share * len(probes))]
                column = values[:, person].copy()
                column[gone] = np.nan
                columns.append(f"{name}.{round(100 * share)}.{seed}")
                made.append(column)
    written(folder / "removed.tsv", columns, probes, np.column_stack(made))
    return names, np.array([float(ages[name]) for name in names])


def clock(folder: Path) -> None:
    names, ages = prepared(folder)
    at = ("--lake", str(folder / "lake"))
    whole = ("--samples", str(folder / "people.tsv"), "--cohort", "brains")
    verb("ingest", "methylation", str(HORVATH / "matrix.tsv.gz"), *whole, *at)
    verb("ingest", "methylation", str(folder / "removed.tsv"), "--cohort", "removed", *at)
    given = f"clock.file={HORVATH / 'coefHorvath.tsv'}"
    asked = ("methylation", "--label", "age", *at)
    found: dict[str, tuple[float | None, float | None, float | None, int | None]] = {}
    for person, name in enumerate(names):
        split = f"split.column=without{person}"
        options = [
            part
            for one in (given, "train.loss=age", split, "tracking.uri=off", "train.launcher=process")
            for part in ("--set", one)
        ]
        trained = verb("train", *asked, "--cohort", "brains", "--procs", "1", *options)["metrics"]["model_id"]
        own = ("--set", f"predict.first={name}", "--set", f"predict.last={name}/")  # "/" comes after "."
        for cohort in ("brains", "removed"):
            verb("predict", *asked, "--cohort", cohort, "--model", trained, *own)
        run = Run(Report("reference"), config.load("methylation"), str(folder / "lake"))
        for row in run.lake.read(PREDICTIONS).where(f"model_id = '{trained}'").collect():
            if row.entity_id.partition(".")[0] == name:
                found[row.entity_id] = (row.value, row.low, row.high, row.filled)
    answers = np.array([found[name][0] for name in names], np.float64)
    print(
        f"all CpGs: r {np.corrcoef(answers, ages)[0, 1]:.4f}, median error {np.median(np.abs(answers - ages)):.2f} "
        f"years, {len(names)} people\n"
    )
    rows = []
    for share in SHARES:
        errors, covers, widths, filled, lacking = [], [], [], [], 0
        for seed in range(SEEDS):
            own = [found[f"{name}.{round(100 * share)}.{seed}"] for name in names]
            lacking += sum(value is None or np.isnan(value) or low is None for value, low, _, _ in own)
            value, low, high = (np.array([one[k] for one in own], np.float64) for k in range(3))
            errors.append(np.median(np.abs(value - ages)))
            covers.append(((low <= answers) & (answers <= high)).mean())
            widths.append((high - low).mean())
            filled += [one[3] for one in own]
        each = " ".join(f"{error:.2f}" for error in errors)
        count = f"{min(filled)} to {max(filled)}"
        rows.append([f"{share:.0%}", f"{np.mean(errors):.2f}", each, f"{np.mean(covers):.3f}", f"{np.mean(widths):.1f}",
                     count, lacking])  # fmt: skip
    head = ["removed", "median error, years, mean of seeds", "by seed", "interval holds the whole data's answer",
            "its width, years", "CpGs filled", "without an answer"]  # fmt: skip
    print(content.table(rows, head))


def tissue(folder: Path) -> None:
    at, rows = ("methylation", "--lake", str(folder / "tissues"), "--cohort", "tissues"), []
    table = str(CHRISTENSEN / "samples.tsv")
    verb("ingest", "methylation", str(CHRISTENSEN / "matrix.tsv.gz"), "--samples", table, *at[1:])
    verb("train", *at)
    metrics = verb("evaluate", *at)["metrics"]
    for name, of in {"model": metrics["model"], **metrics["baselines"]}.items():
        shown = [of[metric] for metric in SHOWN]
        rows.append([name, *(f"{one['value']:.4f} [{one['low']:.4f}, {one['high']:.4f}]" for one in shown)])
    print(content.table(rows, ["tissue, 5 folds x 5 repeats", *SHOWN]))


def main() -> None:
    parts = sys.argv[1:] or ["clock", "tissue"]
    print(f"{date.today()}, {os.cpu_count()} cores: -m tests.reference.methylation {' '.join(sys.argv[1:])}\n")
    with tempfile.TemporaryDirectory() as scratch, session.shared():
        if "clock" in parts:
            clock(Path(scratch))
        if "tissue" in parts:
            tissue(Path(scratch))


if __name__ == "__main__":
    main()
