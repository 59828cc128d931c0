"""Accuracy on real data, as the table of docs/accuracy.md: `make reference`. Takes minutes per line;
reads ../shared/data and the demo's inputs.

Each line trains, evaluates and compares through the verbs that a user has. Splits, settings and seeds
are the tasks' own. The dropout rates of tumor_type were chosen by cross-validation on all rows of Alon,
Shipp and Golub among others, so those lines show that nothing broke and are no held-out evidence;
Khan, and the test people of both ancestry cohorts, had no part in any choice.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np

import jobs
from genodl_spark.core import session
from genodl_spark.job import config
from genodl_spark.job.run import Report, Run
from genodl_spark.learning import metrics
from genodl_spark.learning.metrics import HeldOut, best_baseline
from genodl_spark.pipelines.evaluate import chosen_model
from genodl_spark.registry.scores import held_out
from genodl_spark.report import content

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("GENODL_SHARED_DATA", ROOT.parent / "shared" / "data"))
Line = list[str]


def verb(name: str, *argv: str) -> dict:
    print(f"$ genodl {name} {' '.join(argv)}", file=sys.stderr, flush=True)
    document = jobs.report_of(name, list(argv))
    if document["code"]:
        raise RuntimeError(document["error"])
    return document


def ancestry(lake: str, cohort: str, seeds: int = 5) -> Iterator[Line]:
    """Macro-F1 over `seeds` splits, and the paired difference to the baseline that is best on average;
    people are drawn, with all their splits."""
    started, held = time.perf_counter(), []
    for seed in range(seeds):
        common = ("ancestry", "--lake", lake, "--cohort", cohort)
        verb("train", *common, "--seed", str(seed))
        model_id = verb("evaluate", *common, "--set", "evaluate.resamples=0")["metrics"]["model_id"]
        run = Run(Report("reference"), config.load("ancestry"), lake)
        held.append(held_out(run, chosen_model(run, None, model_id), cohort))
    joined = {name: together([h[name][0] for h in held]) for name in held[0]}
    yield from lines("ancestry", f"{cohort}, {seeds} splits", joined, "macro_f1", time.perf_counter() - started)


def together(parts: list[HeldOut]) -> HeldOut:
    """Several splits of one cohort as repeats of one HeldOut."""
    entities = np.unique(np.concatenate([p.entities for p in parts]))
    scores = np.full((len(parts), len(entities), len(parts[0].classes)), np.nan)
    order = scores.copy()
    target = np.zeros(len(entities))
    for repeat, part in enumerate(parts):
        at = np.searchsorted(entities, part.entities)
        scores[repeat, at], order[repeat, at], target[at] = part.scores[0], part.order[0], part.target
    return HeldOut(entities, entities, target, scores, parts[0].classes, ranked=order)


def lines(task: str, data: str, held: dict[str, HeldOut], metric: str, seconds: float) -> Iterator[Line]:
    found = {name: metrics.intervals(h, 1000, 0)[metric] for name, h in held.items()}
    best = best_baseline({name: i.value for name, i in found.items() if name != "model"}, metric)
    for name, interval in found.items():
        difference = ""
        if name == "model" and best is not None:
            d = metrics.paired(held["model"], held[best], metric, 1000, 0)
            difference = f"{d.value:+.4f} [{d.low:+.4f}, {d.high:+.4f}] to {best}"
        spread = [
            metrics.metrics(
                replace(held[name], scores=held[name].scores[i : i + 1], ranked=held[name].order[i : i + 1])
            )[metric]
            for i in range(len(held[name].scores))
        ]
        value = f"{interval.value:.4f} [{interval.low:.4f}, {interval.high:.4f}]"
        shown = f"{seconds:.0f}" if name == "model" else ""
        yield [
            task,
            data,
            metric,
            name,
            value,
            f"{np.std(spread, ddof=1):.4f}" if len(spread) > 1 else "",
            difference,
            shown,
        ]


def demo_ancestry(lake: str) -> Iterator[Line]:
    inputs = ROOT / "demo" / "inputs"
    verb(
        "ingest",
        "vcf",
        str(inputs / "seldin.vcf"),
        "--samples",
        str(inputs / "ancestry_samples.tsv"),
        "--cohort",
        "seldin",
        "--lake",
        lake,
    )
    yield from ancestry(lake, "seldin")


def hipster_ancestry(lake: str) -> Iterator[Line]:
    folder = DATA / "gwas_hipster_variantspark"
    with tempfile.TemporaryDirectory() as scratch:
        table = Path(scratch) / "hipster_samples.tsv"
        with open(folder / "1000g_phase3_panel.tsv") as panel:
            rows = [(row["sample"], row["super_pop"]) for row in csv.DictReader(panel, delimiter="\t")]
        table.write_text("sample_id\tsuper_population\n" + "".join(f"{s}\t{p}\n" for s, p in rows))
        verb(
            "ingest",
            "vcf",
            str(folder / "hipster.vcf.bgz"),
            "--samples",
            str(table),
            "--cohort",
            "hipster",
            "--lake",
            lake,
        )
        yield from ancestry(lake, "hipster")


def tumor(name: str, *settings: str) -> Callable[[str], Iterator[Line]]:
    def run_one(lake: str) -> Iterator[Line]:
        started = time.perf_counter()
        folder = DATA / f"expr_{name}"
        common = ("tumor_type", "--lake", lake, "--cohort", name)
        files = (str(folder / "matrix.tsv.gz"), "--samples", str(folder / "samples.tsv"))
        verb("ingest", "expression", *files, "--cohort", name, "--lake", lake)
        verb("train", *common, *(x for s in settings for x in ("--set", s)))
        model_id = verb("evaluate", *common, "--set", "evaluate.resamples=0")["metrics"]["model_id"]
        run = Run(Report("reference"), config.load("tumor_type"), lake)
        found = held_out(run, chosen_model(run, None, model_id), name)
        held = {predictor: of_heads[0] for predictor, of_heads in found.items()}
        yield from lines("tumor_type", name, held, "accuracy", time.perf_counter() - started)

    return run_one


LINES: dict[str, Callable[[str], Iterator[Line]]] = {
    "ancestry-seldin": demo_ancestry,
    "ancestry-hipster": hipster_ancestry,
    "khan": tumor("khan_srbct", "split.folds=5", "split.repeats=10"),
    "golub": tumor("golub_leukemia", "split.column=split"),
    "shipp": tumor("shipp_dlbcl_fl", "split.folds=5", "split.repeats=3"),
    "alon": tumor("alon_colon", "split.folds=5", "split.repeats=3"),
}


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("names", nargs="*", help=f"some of {', '.join(LINES)}; default: all")
    chosen = made.parse_args().names or list(LINES)
    rows: list[Line] = []
    with tempfile.TemporaryDirectory() as lake, session.shared():
        for name in chosen:
            rows += LINES[name](str(Path(lake) / name))
    known = [
        line.split(":")[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    cpu = known[0] if known else platform.processor()
    print(
        f"{date.today()}, {os.cpu_count()} cores, {cpu}, no GPU: .venv/bin/python "
        f"tests/reference/run.py {' '.join(chosen)}\n"
    )
    print(
        content.table(
            rows,
            [
                "task",
                "data",
                "metric",
                "predictor",
                "value, 95% interval",
                "SD of splits",
                "paired difference",
                "seconds",
            ],
        )
    )


if __name__ == "__main__":
    main()
