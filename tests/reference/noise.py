"""Labels that mean nothing, through the whole of each pipeline: what it makes of them has to be chance. Some minutes
for each; reads ../shared/data for variant_effect alone.

    .venv/bin/python -m tests.reference.noise [--shuffles 5] [TASK ...]

Rows are drawn, two of each group (a patient, a locus, a family of sequences), which are nearly the same and have the
same label; labels are dealt anew to groups for every shuffle. Folds keep groups whole: by rows that stand in two folds
a pipeline would tell its labels far better than chance, and so it would by labels that leak into the choice of
features, imputation, scaling, blending or calibration. The settings are the tasks' own, but one repeat of 5 folds.
Last, a published split that divides a patient, which is refused.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np

import jobs
from genodl_spark.core import session
from genodl_spark.report import content
from tests.reference.run import DATA, verb

GROUPS = 80
FOLDS = ("split.folds=5", "split.group=patient", "train.launcher=process", "tracking.uri=off")
Dealt = list[list[str]]  # of each group, its label in each shuffle


@dataclass(frozen=True)
class Pipeline:
    """`bring`: writes files to a folder, with the labels of each group, and ingests them into a lake."""

    bring: Callable[[Path, str, Dealt], None]
    metrics: tuple[str, ...] = ("balanced_accuracy", "auroc")
    settings: tuple[str, ...] = ()
    label: str = "noise"


def dealt(groups: int, shuffles: int) -> Dealt:
    """Classes A and B, as many of each in every shuffle."""
    columns = [np.random.default_rng([7, one]).permutation(np.arange(groups) % 2) for one in range(shuffles)]
    return [["AB"[column[group]] for column in columns] for group in range(groups)]


def _table(path: Path, head: list[str], rows: list[list[str]]) -> str:
    path.write_text("\n".join("\t".join(row) for row in [head, *rows]) + "\n")
    return str(path)


def _people(folder: Path, labels: Dealt) -> str:
    """Sample table: two rows of each patient; survival takes its event from a column of its own."""
    draw = np.random.default_rng(3)
    head = ["sample_id", "patient", "event", *(f"noise{k}" for k in range(len(labels[0])))]
    head += [f"time{k}" for k in range(len(labels[0]))]
    rows = []
    for group, own in enumerate(labels):
        times = [f"{np.random.default_rng([group, k]).exponential(100) + 1:.1f}" for k in range(len(own))]
        event = str(int(draw.random() < 0.7))
        rows += [[f"p{group}r{k}", f"P{group}", event, *own, *times] for k in range(2)]
    return _table(folder / "samples.tsv", head, rows)


def _matrix(folder: Path, name: str, features: int, shares: bool, lacking: float) -> str:
    draw = np.random.default_rng(len(name))
    axes = draw.normal(size=(GROUPS, 5)) @ draw.normal(size=(5, features)) + draw.normal(size=(GROUPS, features))
    values = np.repeat(axes, 2, 0) + 0.2 * draw.normal(size=(2 * GROUPS, features))
    values = 1 / (1 + np.exp(-values / 2)) if shares else 2 ** (values / 2 + 5)
    cells = np.where(draw.random(values.shape) < lacking, "NA", np.char.mod("%.4f", values))
    names = [f"p{group}r{k}" for group in range(GROUPS) for k in range(2)]
    return _table(folder / f"{name}.tsv", ["id", *names], [[f"{name}{j}", *cells[:, j]] for j in range(features)])


def _matrices(*blocks: tuple[str, str, int, float]) -> Callable[[Path, str, Dealt], None]:
    """`blocks`: source, name, features, share of values that are missing."""

    def bring(folder: Path, lake: str, labels: Dealt) -> None:
        table = _people(folder, labels)
        for source, name, features, lacking in blocks:
            path = _matrix(folder, name, features, source == "methylation", lacking)
            block = ("--block", name) if len(blocks) > 1 else ()
            verb("ingest", source, path, "--samples", table, "--cohort", "c", "--lake", lake, *block)

    return bring


def _sequences(folder: Path, lake: str, labels: Dealt) -> None:
    """Two of a family differ at a tenth of 60 bases; GC content differs by family."""
    draw, rows = np.random.default_rng(5), []
    for group, own in enumerate(labels):
        gc = draw.uniform(0.3, 0.7)
        first = draw.choice(list("ACGT"), 60, p=[(1 - gc) / 2, gc / 2, gc / 2, (1 - gc) / 2])
        for k in range(2):
            other = np.where(draw.random(60) < 0.1 * k, draw.choice(list("ACGT"), 60), first)
            rows.append([f"f{group}s{k}", "".join(other), f"P{group}", *own])
    head = ["id", "sequence", "patient", *(f"noise{k}" for k in range(len(labels[0])))]
    verb("ingest", "sequences", _table(folder / "s.tsv", head, rows), "--cohort", "c", "--lake", lake)


def _variants(folder: Path, lake: str, labels: Dealt) -> None:
    """Variants of BRCA1; the group is a position of the genome, of which two alleles stand here."""
    with gzip.open(DATA / "varimpact_brca1_sge_findlay" / "variants.tsv.gz", "rt") as file:
        found = list(csv.DictReader(file, delimiter="\t"))
    at: dict[str, list[dict[str, str]]] = {}
    for row in found:
        at.setdefault(row["pos"], []).append(row)
    chosen = sorted((site for site, rows in at.items() if len(rows) > 1), key=int)
    chosen = [chosen[i] for i in np.sort(np.random.default_rng(1).permutation(len(chosen))[: len(labels)])]
    kept = ("chrom", "pos", "ref", "alt", "transcript_variant", "protein_variant")
    rows = [
        [*(row[name] for name in kept), f"P{site}", *own]
        for site, own in zip(chosen, labels, strict=True)
        for row in at[site][:2]
    ]
    head = [*kept, "patient", *(f"noise{k}" for k in range(len(labels[0])))]
    reference = str(DATA / "varimpact_brca1_sge_findlay" / "regions.fa.gz")
    path = _table(folder / "v.tsv", head, rows)
    verb("ingest", "variants", path, "--reference", reference, "--cohort", "c", "--lake", lake)


PIPELINES = {
    "tumor_type": Pipeline(_matrices(("expression", "genes", 400, 0.02))),
    "methylation": Pipeline(_matrices(("methylation", "cg", 300, 0.05))),
    "multi_omics": Pipeline(_matrices(("expression", "mrna", 150, 0.02), ("methylation", "cg", 100, 0.02))),
    "survival": Pipeline(
        _matrices(("expression", "genes", 80, 0.0)), ("c_index",), ("target.event=event",), label="time"
    ),
    "sequence_class": Pipeline(_sequences),
    "binding": Pipeline(_sequences),
    "variant_effect": Pipeline(_variants),
}


def measured(folder: Path, task: str, shuffles: int) -> list[list[str]]:
    pipeline, lake = PIPELINES[task], str(folder / "lake")
    pipeline.bring(folder, lake, dealt(GROUPS, shuffles))
    at = (task, "--lake", lake, "--cohort", "c")
    given = [part for one in (*FOLDS, *pipeline.settings) for part in ("--set", one)]
    quiet = ("--set", "evaluate.baselines=majority", "--set", "evaluate.resamples=0")
    started = time.perf_counter()
    found: dict[str, list[float]] = {metric: [] for metric in pipeline.metrics}
    for shuffle in range(shuffles):
        label = ("--label", f"{pipeline.label}{shuffle}")
        verb("train", *at, *label, *given, "--procs", "1")
        metrics = verb("evaluate", *at, *label, *quiet)["metrics"]["model"]
        for metric, values in found.items():
            values.append(metrics[metric]["value"])
    seconds = f"{time.perf_counter() - started:.0f}"
    rows = []
    for metric, values in found.items():
        mean = float(np.mean(values))
        each = " ".join(f"{value:.3f}" for value in values)
        rows.append([task, metric, f"{mean:.3f}", each, "yes" if 0.45 <= mean <= 0.55 else "NO", seconds])
        print(*rows[-1], file=sys.stderr, flush=True)
    return rows


def leak(folder: Path) -> str:
    """What `train` says of a published split that divides a patient."""
    lake, labels = str(folder / "lake"), dealt(GROUPS, 1)
    table = Path(_people(folder, labels))
    head, *lines = table.read_text().splitlines()
    parts = ["train"] * (len(lines) - 31) + ["test"] * 31  # an odd number: one patient stands in both
    divided = [f"{line}\t{part}" for line, part in zip(lines, parts, strict=True)]
    table.write_text("\n".join([f"{head}\tpart", *divided]) + "\n")
    path = _matrix(folder, "genes", 20, False, 0.0)
    verb("ingest", "expression", path, "--samples", str(table), "--cohort", "c", "--lake", lake)
    asked = ["--set", "split.column=part", "--set", "split.group=patient", "--label", "noise0", "--lake", lake]
    document = jobs.report_of("train", ["tumor_type", "--cohort", "c", *asked])
    return f"train of a split that divides a patient: exit code {document['code']}: {document['error']}"


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("names", nargs="*", help=f"some of {', '.join(PIPELINES)}; default: all")
    made.add_argument("--shuffles", type=int, default=5)
    given = made.parse_args()
    print(f"{date.today()}, {os.cpu_count()} cores: -m tests.reference.noise {' '.join(sys.argv[1:])}\n")
    rows: list[list[str]] = []
    with tempfile.TemporaryDirectory() as scratch, session.shared():
        for task in given.names or PIPELINES:
            (folder := Path(scratch) / task).mkdir()
            rows += measured(folder, task, given.shuffles)
        (folder := Path(scratch) / "leak").mkdir()
        said = leak(folder)
    head = ["task", "metric", "mean", "by shuffle", ".45 to .55", "seconds"]
    print(content.table(rows, head))
    print(f"\n{said}")


if __name__ == "__main__":
    main()
