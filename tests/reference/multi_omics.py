"""Multi-omics on real data, as the table of docs/accuracy.md: `.venv/bin/python -m tests.reference.multi_omics`.

Breast tumors of TCGA (mixOmics): mRNA, miRNA and proteins of 150 patients of three subtypes; 5 folds, 5 repeats, by the
verbs that a user has and the task's own settings. Beside the model stand the baselines of all blocks and of each block
alone, and the model where rows lack a block. Then the same matrices with lines and columns in another order.
"""

from __future__ import annotations

import csv
import gzip
import os
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import numpy as np

import jobs
from genodl_spark.core import session
from genodl_spark.job import config
from genodl_spark.job.run import Report, Run
from genodl_spark.lake.tables.learning import PREDICTIONS
from genodl_spark.learning import lacking, metrics
from genodl_spark.pipelines.evaluate import chosen_model
from genodl_spark.registry.scores import WITHOUT, held_out
from genodl_spark.report import content

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("GENODL_SHARED_DATA", ROOT.parent / "shared" / "data")) / "multiomics_breast_tcga_mixomics"
BLOCKS = ("mrna", "mirna", "protein")
SAME = ("predicted", "probabilities", "value", "uncertainty", "distance", "note")


def verb(name: str, *argv: str) -> dict:
    print(f"$ genodl {name} {' '.join(argv)}", file=sys.stderr, flush=True)
    document = jobs.report_of(name, list(argv))
    if document["code"]:
        raise RuntimeError(document["error"])
    return document


def shuffled(source: Path, target: Path, seed: int) -> None:
    """The same matrix with its lines and columns in another order."""
    with gzip.open(source, "rt") as file:
        rows = list(csv.reader(file, delimiter="\t"))
    draw = np.random.default_rng(seed)
    columns = [0, *(1 + draw.permutation(len(rows[0]) - 1))]
    lines = [rows[0], *(rows[1 + i] for i in draw.permutation(len(rows) - 1))]
    target.write_text("".join("\t".join(row[c] for c in columns) + "\n" for row in lines))


def covered(whole: np.ndarray, without: np.ndarray, draws: int = 50) -> float:
    """Share of the people of whom the answer without a block, (R, N, classes), has an interval that holds their answer
    with it, by the reach that the other half of the people teach."""
    found, people = [], whole.shape[1]
    for seed in range(draws):
        order = np.random.default_rng(seed).permutation(people)
        learnt, asked = order[: people // 2], order[people // 2 :]
        flat = [scores[:, learnt].reshape(-1, scores.shape[2]) for scores in (whole, without)]
        far = lacking.reach(flat[0], flat[1], len(learnt))
        best = without[:, asked].argmax(2)[..., None]
        value, other = (np.take_along_axis(scores[:, asked], best, 2) for scores in (without, whole))
        low, high = lacking.interval(value.ravel(), np.full(value.size, far), True)
        found.append(((other.ravel() >= low - 1e-9) & (other.ravel() <= high + 1e-9)).mean())
    return float(np.mean(found))


def lines(lake: str, blocks: tuple[str, ...], settings: list[str]) -> list[list[str]]:
    started = time.perf_counter()
    chosen = ("multi_omics", "--lake", lake, "--cohort", "breast")
    asked = [part for one in (f"blocks={','.join(blocks)}", *settings) for part in ("--set", one)]
    verb("train", *chosen, *asked)
    seconds = time.perf_counter() - started
    verb("evaluate", *chosen, "--set", "evaluate.resamples=0")
    run = Run(Report("reference"), config.load("multi_omics"), lake)
    held = {name: found[0] for name, found in held_out(run, chosen_model(run, None, None), "breast").items()}
    best = metrics.best_baseline(
        {n: metrics.metrics(h)["balanced_accuracy"] for n, h in held.items() if not n.startswith("model")},
        "balanced_accuracy",
    )
    rows = []
    for name, found in held.items():
        interval = metrics.intervals(found, 1000, 0)["balanced_accuracy"]
        each = [
            metrics.metrics(metrics.HeldOut(found.entities, found.groups, found.target, one[None], found.classes))
            for one in found.scores
        ]
        spread = np.std([one["balanced_accuracy"] for one in each], ddof=1)
        difference = ""
        if name == "model" and best is not None:
            d = metrics.paired(found, held[best], "balanced_accuracy", 1000, 0)
            difference = f"{-d.value:+.4f} [{-d.high:+.4f}, {-d.low:+.4f}] to {best}"
        covers = f"{covered(held['model'].scores, found.scores):.3f}" if name.startswith(WITHOUT) else ""
        value = f"{1 - interval.value:.4f} [{1 - interval.high:.4f}, {1 - interval.low:.4f}]"
        shown = f"{seconds:.0f}" if name == "model" else ""
        rows.append([" + ".join(blocks), name, value, f"{spread:.4f}", difference, covers, shown])
    return sorted(rows, key=lambda row: (not row[1].startswith("model"), row[2]))


def main() -> None:
    settings = ["split.folds=5", "split.repeats=5"]
    rows: list[list[str]] = []
    with tempfile.TemporaryDirectory() as folder, session.shared():
        lake, table = str(Path(folder) / "lake"), str(DATA / "samples.tsv")
        for block in BLOCKS:
            of = ("--block", block, "--samples", table, "--lake", lake)
            verb("ingest", "expression", str(DATA / f"{block}.tsv.gz"), "--cohort", "breast", *of)
            shuffled(DATA / f"{block}.tsv.gz", Path(folder) / f"{block}.tsv", len(block))
            verb("ingest", "expression", str(Path(folder) / f"{block}.tsv"), "--cohort", "shuffled", *of)
        for blocks in (BLOCKS[:2], BLOCKS):
            rows += lines(lake, blocks, settings)
        for cohort in ("breast", "shuffled"):
            verb("predict", "multi_omics", "--lake", lake, "--cohort", cohort)
        run = Run(Report("reference"), config.load("multi_omics"), lake)
        found = run.lake.read(PREDICTIONS).collect()
        answers = {(row.cohort, row.entity_id): [row[name] for name in SAME] for row in found}
        same = sum(answers["breast", e] == answers["shuffled", e] for c, e in answers if c == "breast")
    print(f"{date.today()}, {os.cpu_count()} cores: .venv/bin/python -m tests.reference.multi_omics\n")
    print(
        content.table(
            rows, ["blocks", "predictor", "balanced error", "SD of repeats", "difference", "covered", "seconds"]
        )
    )
    print(f"\nlines and columns in another order: {same} of {len(answers) // 2} answers are the same to the last bit")


if __name__ == "__main__":
    main()
