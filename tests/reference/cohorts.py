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
import csv
import gzip
import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy import stats

from genodl_spark.core import packing, session
from genodl_spark.job import config
from genodl_spark.job.run import Report, Run
from genodl_spark.learning import feed, splits
from genodl_spark.learning.heads import Head
from genodl_spark.learning.metrics import HeldOut
from genodl_spark.learning.preprocessing import Chain
from genodl_spark.learning.training import plan, rank
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
CLASSES = ("ALL", "AML")
SIZES = ("[128]", "[32]", "[128, 64]")
_SCALE = "best_scale"
SCALINGS: dict[str, tuple[str, list[str], dict[str, dict[str, Any]]]] = {  # transform, steps and their options
    "asinh": ("asinh", [], {}),  # the default of such values
    "values": ("none", [], {}),
    "log": ("none", [_SCALE], {_SCALE: {"among": ["log"], "rows": False}}),
    "ranks": ("none", [_SCALE], {_SCALE: {"among": ["ranks"]}}),
    "quantiles": ("none", [_SCALE], {_SCALE: {"among": ["quantiles"]}}),
    "best scale": ("none", [_SCALE], {}),
}


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


@dataclass(frozen=True)
class Leukemia:
    """Golub's samples: values float32 (n, F) by features `names`, class (n,) of CLASSES and which are marked train."""

    x: np.ndarray
    names: list[str]
    target: np.ndarray
    train: np.ndarray


def leukemia(folder: Path) -> Leukemia:
    with open(folder / "samples.tsv") as table:
        samples = {row["sample_id"]: row for row in csv.DictReader(table, delimiter="\t")}
    with gzip.open(folder / "matrix.tsv.gz", "rt") as matrix:
        ids = matrix.readline().rstrip("\n").split("\t")[1:]
        lines = [line.rstrip("\n").split("\t") for line in matrix]
    x = np.array([line[1:] for line in lines], np.float32).T
    target = np.array([CLASSES.index(samples[name]["label"]) for name in ids], np.float64)
    return Leukemia(x, [line[0] for line in lines], target, np.array([samples[i]["split"] == "train" for i in ids]))


def networks(of: Leukemia, codes: np.ndarray, folds: int, size: str, scaling: str, seed: int) -> np.ndarray:
    """Held-out answers of the task's networks, without a lake, float64 (repeats, n, 2), NaN where a row was learnt
    from. `codes` int8 (n, repeats): folds or, with `folds` 0, roles."""
    settings, (n, repeats) = config.load("tumor_type", assignments=[f"model.hidden={size}"]), codes.shape
    transform, steps, options = SCALINGS[scaling]
    with tempfile.TemporaryDirectory() as folder:
        columns = {"row_id": pa.array(np.arange(n)), "x": packing.column(of.x), "target": pa.array(of.target)}
        pq.write_table(pa.table({**columns, "folds": packing.column(codes)}), f"{folder}/rows.parquet")
        layout = feed.Layout(n, of.x.shape[1], "float32", repeats)
        files, staging = [f"file://{folder}/rows.parquet"], f"{folder}/s"
        heads = [Head("label", "classes", CLASSES)]
        shaped = (folds, transform, 1.0, 0, settings.model, settings.train, seed, staging)
        chain = Chain(steps, options, of.names) if steps else None
        result = rank.run_alone(plan.Job(files, layout, "pyarrow", 1 << 30, heads, *shaped, chain=chain))
        scored = pa.concat_tables([pq.read_table(f"{staging}/{name}") for name in result["scored"]])
    found = np.full((repeats, n, len(CLASSES)), np.nan)
    at = scored.column("repeat").to_numpy(), scored.column("row_id").to_numpy()
    found[at] = np.array(scored.column("scores").to_pylist())
    return found


def golub(lakes: Path, seeds: int) -> None:
    """The published split, right of 34, by sizes of the hidden layers and scalings; and which of them 5 folds x 3
    repeats of the 38 training rows choose, by Brier score, the first of equals. The grid has one seed; what is chosen
    is then trained and measured with all through the verbs."""
    folder = DATA / "expr_golub_leukemia"
    of = leukemia(folder)
    inside = Leukemia(of.x[of.train], of.names, of.target[of.train], of.train[of.train])
    strata = [CLASSES[int(k)] for k in inside.target]
    ids = [f"s{i:02}" for i in range(len(strata))]
    folds = splits.assign(ids, strata, None, None, splits.Split(folds=5, repeats=3), 0).codes
    roles = np.where(of.train, splits.TRAIN, splits.TEST).astype(np.int8)[:, None]
    truth, rows, briers = np.eye(len(CLASSES))[inside.target.astype(int)], [], {}
    for scaling in SCALINGS:
        for size in SIZES:
            answers = networks(inside, folds, 5, size, scaling, 0)
            briers[scaling, size] = float(((answers - truth) ** 2).sum(2).mean())
            told = networks(of, roles, 0, size, scaling, 0)[0]
            right = int((told.argmax(1) == of.target)[~of.train].sum())
            inner = float((answers.argmax(2) == inside.target).mean())
            rows.append([scaling, size, f"{briers[scaling, size]:.4f}", f"{inner:.3f}", str(right)])
            print(*rows[-1], file=sys.stderr, flush=True)
    chosen = min(briers, key=lambda key: briers[key])
    head = ["scaling", "hidden", "Brier score inside training", "accuracy inside", "right of 34"]
    print(content.table(rows, head))
    transform, steps, options = SCALINGS[chosen[0]]
    lake, at = str(lakes / SPLIT), ["tumor_type", "--lake", str(lakes / SPLIT), "--cohort", "golub"]
    matrix, samples = str(folder / "matrix.tsv.gz"), str(folder / "samples.tsv")
    verb("ingest", "expression", matrix, "--samples", samples, "--cohort", "golub", "--lake", lake)
    asked = [f"model.hidden={chosen[1]}", f"quality.transform={transform}", "split.column=split"]
    asked += [f"quality.steps={','.join(steps)}"] if steps else []
    asked += [
        f"quality.options.{step}.{key}={json.dumps(value)}"
        for step, own in options.items()
        for key, value in own.items()
    ]
    of_seeds = []
    for seed in range(seeds):
        verb("train", *at, *(part for one in asked for part in ("--set", one)), "--seed", str(seed))
        quiet = ("--set", "evaluate.resamples=0", "--set", "evaluate.baselines=linear_svm,lda,logistic")
        found = verb("evaluate", *at, *quiet)["metrics"]
        of_seeds.append(round(34 * found["model"]["accuracy"]["value"]))
    others = ", ".join(f"{name} {34 * of['accuracy']['value']:.0f}" for name, of in found["baselines"].items())
    print(f"chosen inside training: {' '.join(asked)}: {np.mean(of_seeds):.1f} of 34, {of_seeds} by seed; {others}")


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
