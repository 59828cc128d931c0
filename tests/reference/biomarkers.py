"""Biomarkers: how much of what was planted the tests find, at which rate of false discoveries, over 50 simulations of
each design; and how stable selections are over training sets of Golub's leukemias, through the verbs. Some minutes;
reads ../shared/data.

    .venv/bin/python -m tests.reference.biomarkers [--simulations 50] [planted] [golub] [originals]

`tests/learning/biomarkers/planted.py` says how data are drawn. The first design of each test is the one that is asked
for, fixed before any was run: 20 rows of each of two classes, of 5,000 genes a tenth that differ twofold to fourfold;
the others say where it ends. Beside each test stands one that knows the variance of each gene, or its dispersion.
`originals`, which wants Rscript, has DESeq2 and limma themselves, as they come, test simulations of the first design.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
from scipy import stats

from genodl_spark.core import session
from genodl_spark.report import content
from tests.learning.biomarkers import planted
from tests.learning.biomarkers.planted import Design, Found, Planted
from tests.reference.run import DATA, verb

ASKED = Design()
DESIGNS = {
    "asked: 20 rows a class": ASKED,
    "10 rows a class": replace(ASKED, rows=10),
    "5 rows a class": replace(ASKED, rows=5),
    "40 rows a class": replace(ASKED, rows=40),
    "1.5-fold to twofold": replace(ASKED, low=float(np.log2(1.5)), high=1.0),
    "1 in 100 differs": replace(ASKED, share=0.01),
    "modules of 50, correlation .3": replace(ASKED, correlation=0.3),
    "three classes": replace(ASKED, classes=3),
}
Draw = Callable[[Design, int], Planted]
TESTS: dict[str, Draw] = {"moderated": planted.values, "negative binomial": planted.counts}
PAIRS = 10
# Prints adjusted p-values of DESeq2, of limma for values, NA where there is none.
ORIGINALS = """
suppressMessages({library(limma); library(DESeq2)})
given <- commandArgs(trailingOnly = TRUE)
x <- as.matrix(read.table(given[1], sep = "\\t"))
class <- factor(scan(given[2], quiet = TRUE))
if (given[3] == "counts") {
  data <- suppressMessages(DESeq(DESeqDataSetFromMatrix(t(x), data.frame(class), ~class), quiet = TRUE))
  q <- results(data, alpha = 0.1)$padj
} else q <- topTable(eBayes(lmFit(t(x), model.matrix(~class))), coef = 2, number = Inf, sort.by = "none")$adj.P.Val
writeLines(as.character(q))
"""


def interval(values: list[float]) -> str:
    """Mean with its 95% interval by Student's t."""
    if np.isnan(values).any():
        return "-"
    half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    mean = float(np.mean(values))
    return f"{mean:.3f} [{mean - half:.3f}, {mean + half:.3f}]"


def simulated(simulations: int) -> None:
    rows = []
    for test, draw in TESTS.items():
        for name, design in DESIGNS.items():
            started = time.perf_counter()
            found = [planted.found(draw(design, seed), PAIRS) for seed in range(simulations)]

            def of(part: str, found: list[Found] = found) -> list[float]:
                return [float(getattr(one, part)) for one in found]

            parts = ("power", "false", "known_power", "known_false", "stable", "stable_false")
            rows.append([test, name, *(interval(of(part)) for part in parts), round(time.perf_counter() - started)])
            print(*rows[-1], file=sys.stderr, flush=True)
    head = ["test", "design", "found", "false", "found, variances known", "false", "stable", "false", "seconds"]
    print(content.table(rows, head))


def originals(simulations: int) -> None:
    """The same by DESeq2 and limma."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for test, draw in TESTS.items():
            own, theirs = [], []
            for seed in range(simulations):
                made = draw(ASKED, seed)
                paths = [f"{folder}/x.tsv", f"{folder}/class.tsv"]
                np.savetxt(paths[0], made.x, fmt="%.10g", delimiter="\t")
                np.savetxt(paths[1], made.codes, fmt="%d")
                kind = "values" if made.size is None else "counts"
                Path(f"{folder}/originals.R").write_text(ORIGINALS)
                asked = ["Rscript", f"{folder}/originals.R", *paths, kind]
                said = subprocess.run(asked, check=True, capture_output=True, text=True).stdout.split()
                q = np.array([np.nan if word == "NA" else float(word) for word in said])
                theirs.append(planted.shares(np.nan_to_num(q, nan=1) <= planted.RATE, made.true))
                one = planted.found(made)
                own.append((one.power, one.false))
            for name, values in (("ours", own), ("DESeq2" if test != "moderated" else "limma", theirs)):
                rows.append([test, name, *(interval(list(part)) for part in zip(*values, strict=True))])
    print(content.table(rows, ["test", f"by, {simulations} simulations", "found", "false"]))


def golub(lake: str) -> None:
    """All 72 leukemias, the task's own 5 folds x 3 repeats."""
    folder, at = DATA / "expr_golub_leukemia", ("--lake", lake, "--cohort", "golub")
    verb("ingest", "expression", str(folder / "matrix.tsv.gz"), "--samples", str(folder / "samples.tsv"), *at)
    started = time.perf_counter()
    verb("train", "biomarkers", *at)
    trained = time.perf_counter()
    report = verb("explain", "biomarkers", *at)["metrics"]["biomarkers"]["label"]
    ended = time.perf_counter()
    seconds = [round(trained - started), round(ended - trained)]
    stability = report["stability"]
    index = [f"{stability[of]:.3f} [{stability[f'{of}_low']:.3f}, {stability[f'{of}_high']:.3f}]" for of in
             ("training_sets", "halves")]  # fmt: skip
    counts = [report[name] for name in ("training_sets", "tested", "selected", "stable")]
    head = ["training sets", "tested", "selected", "stable in halves", "index of training sets", "of halves"]
    print(content.table([[*counts, *index, *seconds]], [*head, "seconds of train", "of explain"]))
    print(f"first by consensus: {', '.join(report['first'][:10])}")


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("parts", nargs="*", help="some of planted, golub, originals; default: the first two")
    made.add_argument("--simulations", type=int, default=50)
    given = made.parse_args()
    parts = given.parts or ["planted", "golub"]
    print(f"{date.today()}, {os.cpu_count()} cores: -m tests.reference.biomarkers {' '.join(sys.argv[1:])}\n")
    if "planted" in parts:
        simulated(given.simulations)
    if "originals" in parts:
        originals(given.simulations)
    if "golub" in parts:
        with tempfile.TemporaryDirectory() as scratch, session.shared():
            golub(f"{scratch}/lake")


if __name__ == "__main__":
    main()
