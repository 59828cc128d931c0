"""Small cohorts: what class a tumor or tissue is of, by the one default of tumor_type and its baselines, for the tables
of docs/accuracy.md. Takes an hour on two cores; reads ../shared/data.

    .venv/bin/python -m tests.reference.cohorts [--repeats 5] [NAME ...] [golub-split]

Each cohort trains, evaluates and compares through the verbs that a user has, in 5 folds, or as many as its rarest class
has rows. The settings are the task's own. Nothing was chosen by rows of these folds: the start of networks, its
intercepts and temperatures follow from published arguments, how long and in which coordinates networks then learn was
seen on simulated rows.
"""

from __future__ import annotations

import argparse
import gzip
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
from scipy import stats

from genodl_spark.core import session
from genodl_spark.job import config
from genodl_spark.job.run import Report, Run
from genodl_spark.learning.metrics import HeldOut
from genodl_spark.pipelines.evaluate import NULL
from genodl_spark.registry.models import chosen_model
from genodl_spark.registry.scores import held_out
from genodl_spark.report import content
from tests.reference.run import DATA, verb

COHORTS = (
    *("alon_colon", "chowdary_breast_colon", "golub_leukemia", "gravier_breast_prognosis", "gse7390_breast_sksurv"),
    *("khan_srbct", "nakayama_sarcoma", "shipp_dlbcl_fl", "stemcells_mixomics", "su_tissues", "west_breast_er"),
)
BASELINES = ("logistic", "lda", "linear_svm", "elastic_net")
MODEL, BEST = "model", "logistic"
SPLIT = "golub-split"
SIZES, SCALINGS = ("[128]", "[32]", "[128, 64]"), ("auto", "none")


@dataclass(frozen=True)
class Right:
    """How often each row is told right, over repeats, float64 (n,), and its class (n,)."""

    share: np.ndarray
    classes: np.ndarray

    def balanced(self) -> float:
        return float(np.mean([self.share[self.classes == k].mean() for k in np.unique(self.classes)]))


def right(held: HeldOut) -> Right:
    known = ~np.isnan(held.scores).any(2)
    told = (held.scores.argmax(2) == held.target) & known
    return Right(told.sum(0) / np.maximum(known.sum(0), 1), held.target.astype(int))


def difference(one: Right, other: Right) -> tuple[float, float]:
    """Balanced accuracy of one less that of another, and its standard error over rows, which are drawn in each class
    with all their repeats."""
    by_row = one.share - other.share
    parts = [by_row[one.classes == k] for k in np.unique(one.classes)]
    variance = sum(part.var(ddof=1) / len(part) for part in parts if len(part) > 1)
    return float(np.mean([part.mean() for part in parts])), float(np.sqrt(variance) / len(parts))


def below(one: Right, other: Right) -> float:
    """The chance, by the normal, of a difference as far below 0 where there is none."""
    value, error = difference(one, other)
    return float(stats.norm.cdf(value / error)) if error > 0 else float(value >= 0)


def holm(chances: Sequence[float]) -> list[float]:
    """Holm's (1979) adjustment."""
    order, found, most = np.argsort(chances, kind="stable"), [0.0] * len(chances), 0.0
    for place, number in enumerate(order):
        most = max(most, min(1.0, chances[number] * (len(chances) - place)))
        found[number] = most
    return found


def measured(lake: str, name: str, repeats: int) -> tuple[dict[str, Right], float]:
    """Of each predictor which rows of a cohort it told right, and the seconds of the training."""
    folder, repeated = DATA / f"expr_{name}", f"split.repeats={repeats}"
    at = ("tumor_type", "--lake", lake, "--cohort", name)
    verb("ingest", "expression", str(folder / "matrix.tsv.gz"), "--samples", str(folder / "samples.tsv"), *at[1:])
    started = time.perf_counter()
    verb("train", *at, "--set", "split.folds=5", "--set", repeated)
    seconds = time.perf_counter() - started
    asked = f"evaluate.baselines={','.join(BASELINES)}"
    options = ("--set", "evaluate.resamples=0", "--set", asked, "--set", "evaluate.null=true")
    model_id = verb("evaluate", *at, *options)["metrics"]["model_id"]
    run = Run(Report("reference"), config.load("tumor_type"), lake)
    held = held_out(run, chosen_model(run, None, model_id), name)
    return {predictor: right(scores[0]) for predictor, scores in held.items()}, seconds


def cohorts(lakes: Path, names: Sequence[str], repeats: int) -> None:
    found: dict[str, dict[str, Right]] = {}
    seconds: dict[str, float] = {}
    for name in names:
        found[name], seconds[name] = measured(str(lakes / name), name, repeats)
        values = " ".join(f"{predictor} {one.balanced():.3f}" for predictor, one in found[name].items())
        print(f"{name}: {values}, trained in {seconds[name]:.0f} s", file=sys.stderr, flush=True)
    chances = holm([below(of[MODEL], of[BEST]) for of in found.values()])
    rows = []
    for (name, of), chance in zip(found.items(), chances, strict=True):
        value, error = difference(of[MODEL], of[BEST])
        shown = [f"{of[predictor].balanced():.3f}" for predictor in (MODEL, *BASELINES, NULL)]
        classes = len(np.unique(of[MODEL].classes))
        told = f"{value:+.3f} [{value - 1.96 * error:+.3f}, {value + 1.96 * error:+.3f}]"
        rows.append(
            [f"{name} ({len(of[MODEL].classes)}, {classes})", *shown, told, f"{chance:.2f}", f"{seconds[name]:.0f}"]
        )
    means = {predictor: _mean(found, predictor) for predictor in (MODEL, *BASELINES)}
    rows.append(["mean", *(f"{value:.4f}" for value in means.values()), "", "", "", f"{sum(seconds.values()):.0f}"])
    head = ["cohort (rows, classes)", MODEL, *BASELINES, NULL, f"model - {BEST}", "below (Holm)", "seconds of train"]
    print(content.table(rows, head))
    for other in BASELINES if len(found) > 2 else ():
        pairs = np.array([[of[MODEL].balanced(), of[other].balanced()] for of in found.values()])
        gap = pairs[:, 0] - pairs[:, 1]
        half = stats.t.ppf(0.975, len(gap) - 1) * gap.std(ddof=1) / np.sqrt(len(gap))
        test = stats.wilcoxon(gap, alternative="greater").pvalue
        paired = stats.ttest_rel(pairs[:, 0], pairs[:, 1], alternative="greater").pvalue
        print(
            f"model - {other} over {len(gap)} cohorts: {gap.mean():+.4f} [{gap.mean() - half:+.4f}, "
            f"{gap.mean() + half:+.4f}], Wilcoxon p {test:.3f}, t p {paired:.3f} (one-sided)"
        )
    noise = [of[NULL].balanced() for of in found.values() if len(np.unique(of[NULL].classes)) == 2]
    if noise:
        print(f"noise labels, two classes: mean {np.mean(noise):.3f}, {min(noise):.3f} to {max(noise):.3f}")


def _mean(found: Mapping[str, Mapping[str, Right]], predictor: str) -> float:
    return float(np.mean([of[predictor].balanced() for of in found.values()]))


def golub(lakes: Path, seeds: int) -> None:
    """The published split, right of 34, by sizes of the hidden layers and scalings; and which of them 5 folds x 3
    repeats of the training rows choose, by Brier score, the default among equals."""
    folder, lake = DATA / "expr_golub_leukemia", str(lakes / SPLIT)
    matrix, samples = folder / "matrix.tsv.gz", folder / "samples.tsv"
    files = {"whole": (matrix, samples), "inside": _training_part(lakes, matrix, samples)}
    for cohort, (values, described) in files.items():
        verb("ingest", "expression", str(values), "--samples", str(described), "--cohort", cohort, "--lake", lake)
    rows, briers, counts = [], {}, {}
    for scaling in SCALINGS:
        for size in SIZES:
            options = ("--set", f"model.hidden={size}", "--set", f"quality.transform={scaling}")
            at = ("tumor_type", "--lake", lake, "--cohort")
            quiet = ("--set", "evaluate.resamples=0", "--set", "evaluate.baselines=majority")
            verb("train", *at, "inside", *options, "--set", "split.folds=5")
            briers[scaling, size] = verb("evaluate", *at, "inside", *quiet)["metrics"]["model"]["brier"]["value"]
            of_seeds = []
            for seed in range(seeds):
                verb("train", *at, "whole", *options, "--set", "split.column=split", "--seed", str(seed))
                of_seeds.append(34 * verb("evaluate", *at, "whole", *quiet)["metrics"]["model"]["accuracy"]["value"])
            counts[scaling, size] = of_seeds
            seen = " ".join(f"{count:.0f}" for count in of_seeds)
            rows.append([scaling, size, f"{np.mean(of_seeds):.1f}", seen, f"{briers[scaling, size]:.4f}"])
    chosen = min(briers, key=lambda key: briers[key])
    print(content.table(rows, ["scaling", "hidden", "right of 34, mean", "by seed", "Brier score inside training"]))
    print(f"chosen inside training: {chosen[0]} {chosen[1]}: {np.mean(counts[chosen]):.1f} of 34")


def _training_part(folder: Path, matrix: Path, samples: Path) -> tuple[Path, Path]:
    """Both files of the samples that are marked train."""
    head, *lines = (line.split("\t") for line in samples.read_text().splitlines())
    kept = [line for line in lines if line[head.index("split")] == "train"]
    table, part = folder / "golub_train_samples.tsv", folder / "golub_train.tsv"
    table.write_text("\n".join("\t".join(line) for line in [head, *kept]) + "\n")
    with gzip.open(matrix, "rt") as whole:
        rows = [line.rstrip("\n").split("\t") for line in whole]
    names = {line[head.index("sample_id")] for line in kept}
    columns = [0, *(place for place, name in enumerate(rows[0]) if name in names)]
    part.write_text("\n".join("\t".join(row[place] for place in columns) for row in rows) + "\n")
    return part, table


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("names", nargs="*", help=f"some of {', '.join(COHORTS)}, {SPLIT}; default: all")
    made.add_argument("--repeats", type=int, default=5)
    made.add_argument("--lakes", help="folder of lakes that stay, from which another run goes on; default: none")
    given = made.parse_args()
    names = given.names or [*COHORTS, SPLIT]
    print(f"{date.today()}, {os.cpu_count()} cores: -m tests.reference.cohorts {' '.join(sys.argv[1:])}\n")
    with tempfile.TemporaryDirectory() as scratch, session.shared():
        lakes = given.lakes or scratch
        if own := [name for name in names if name != SPLIT]:
            cohorts(Path(lakes), own, given.repeats)
        if SPLIT in names:
            golub(Path(lakes), given.repeats)


if __name__ == "__main__":
    main()
