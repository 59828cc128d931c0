"""Time to distant metastasis of breast cancers from 76 genes, age, grade and size (GSE7390, in ../shared/data), as the
table of docs/accuracy.md: networks of the task `survival`, by either loss, beside Cox's models. 5 folds, dealt anew for
each of 5 seeds, which also seed the networks; by the verbs that a user has, and the task's own settings.

.venv/bin/python -m tests.reference.survival [--seeds 5] [--lake FOLDER]
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from dataclasses import replace
from datetime import date

import numpy as np

from genodl_spark.core import session
from genodl_spark.job import config
from genodl_spark.job.run import Report, Run
from genodl_spark.learning import metrics
from genodl_spark.learning.metrics import HeldOut, Interval
from genodl_spark.pipelines.evaluate import chosen_model
from genodl_spark.registry.scores import held_out
from genodl_spark.report import content
from tests.reference.run import DATA, verb

COHORT = "gse7390"
LOSSES = ("cox", "log_logistic")
SHOWN = ("c_index", "c_index_uno", "integrated_brier", "mean_auroc")
LOWER = ("integrated_brier",)
PEERS = ("cox_elastic_net", "cox_covariates")


def stacked(parts: list[HeldOut]) -> HeldOut:
    """The same people under several seeds, as repeats."""
    orders = [np.argsort(part.entities) for part in parts]
    ordered = [part.of(order) for part, order in zip(parts, orders, strict=True)]
    survival = [part.survival for part in ordered if part.survival is not None]
    scores = np.concatenate([part.scores for part in ordered])
    return replace(ordered[0], scores=scores, survival=np.concatenate(survival) if survival else None)


def measured(lake: str, seeds: int) -> tuple[dict[str, HeldOut], dict[str, float]]:
    """Held-out answers of every predictor, and the seconds that networks of each loss were trained in."""
    folder, found = DATA / "expr_gse7390_breast_sksurv", dict[str, list[HeldOut]]()
    files = (str(folder / "matrix.tsv.gz"), "--samples", str(folder / "samples.tsv"))
    verb("ingest", "expression", *files, "--cohort", COHORT, "--lake", lake)
    seconds = dict.fromkeys(LOSSES, 0.0)
    for seed in range(seeds):
        for loss in LOSSES:
            common = ("survival", "--lake", lake, "--cohort", COHORT, "--label", "time_days")
            chosen = ["target.event=label", "covariates=age,grade,size", f"train.loss={loss}"]
            if loss != LOSSES[0]:  # the others stand beside the first
                chosen.append("evaluate.baselines=majority")
            asked = [part for one in chosen for part in ("--set", one)]
            started = time.perf_counter()
            of_split = ("--set", "split.folds=5", "--set", "split.repeats=1", "--seed", str(seed))
            model = verb("train", *common, *asked, *of_split)["metrics"]["model_id"]
            seconds[loss] += time.perf_counter() - started
            asked += ["--set", "evaluate.resamples=0"]
            verb("evaluate", *common, *asked, "--model", model)
            run = Run(Report("reference"), config.load("survival"), lake)
            for name, heads in held_out(run, chosen_model(run, None, model), COHORT).items():
                if name == "model" or loss == LOSSES[0]:
                    found.setdefault(loss if name == "model" else name, []).append(heads[0])
    return {name: stacked(parts) for name, parts in found.items()}, seconds


def verdict(metric: str, difference: Interval) -> str:
    better = -difference.value if metric in LOWER else difference.value
    if difference.low <= 0 <= difference.high:
        return "not told apart"
    return "better" if better > 0 else "worse"


def tables(held: dict[str, HeldOut], seconds: dict[str, float]) -> list[str]:
    intervals = {name: metrics.intervals(one) for name, one in held.items()}
    each = {
        name: [
            metrics.metrics(replace(one, scores=one.scores[[i]], survival=None if s is None else s[[i]]))["c_index"]
            for i in range(len(one.scores))
        ]
        for name, one in held.items()
        for s in [one.survival]
    }
    rows = []
    for name, found in intervals.items():
        spread = f"{np.std(each[name], ddof=1):.4f}" if len(each[name]) > 1 else ""
        took = f"{seconds[name]:.0f}" if name in seconds else ""
        rows.append([name, *(found[metric] for metric in SHOWN), spread, took])
    made = [content.table(rows, ["predictor", *SHOWN, "SD of seeds, c_index", "seconds of training"])]
    beside = []
    for name in LOSSES:
        for peer in PEERS:
            for metric in SHOWN:
                difference = metrics.paired(held[name], held[peer], metric)
                beside.append([name, peer, metric, difference, verdict(metric, difference)])
    made.append(content.table(beside, ["network", "beside", "metric", "network - it", "by its interval"]))
    for name in LOSSES:
        mine = {tuple(row[1:3]): row[4] for row in beside if row[0] == name}
        told = [metric for metric in SHOWN if all(mine[peer, metric] == "better" for peer in PEERS)]
        made.append(f"{name}: better than both Cox models by {', '.join(told) or 'no metric'}")
    times = held[LOSSES[0]].times
    shown = [n for n, f in intervals.items() if times and not np.isnan(f[f"brier@{times[0]:g}"].value)]
    rows = [[f"{time:g}", *(f"{intervals[n][f'brier@{time:g}'].value:.4f}" for n in shown)] for time in times]
    made.append(content.table(rows, ["Brier score at day", *shown]))
    return made


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--seeds", type=int, default=5)
    made.add_argument("--lake", default="", help="folder of a lake that stays; the verbs go on from what is in it")
    chosen = made.parse_args()
    with tempfile.TemporaryDirectory() as folder, session.shared():
        held, seconds = measured(chosen.lake or f"{folder}/lake", chosen.seeds)
    first = held[LOSSES[0]]
    assert first.event is not None
    events = int(first.event.sum())
    print(f"{date.today()}, {os.cpu_count()} cores, {' '.join(sys.argv[1:])}: {len(first.entities)} tumours, ", end="")
    print(f"{events} events, 5 folds, {chosen.seeds} seeds\n")
    print("\n\n".join(tables(held, seconds)))


if __name__ == "__main__":
    main()
