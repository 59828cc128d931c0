"""How well effects of variants are predicted in loci and exons that no training saw: the table of docs/accuracy.md.
`.venv/bin/python -m tests.reference.variants [--seeds N] [NAME...]`, minutes for each name and seed; reads
../shared/data.

Through the verbs that a user has; seeds are those of the split and of the networks. Of regulatory elements the metric
is the mean over the 24 experiments of Pearson's correlation within each, on rows of the newer build: those with ten
barcodes or more, as Kircher et al. 2019 (doi:10.1038/s41467-019-11526-w) advise, and all. Intervals are bootstraps over
loci and over exons, each with all its seeds.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from genodl_spark.core import session
from genodl_spark.job import config
from genodl_spark.job.run import Report, Run
from genodl_spark.learning.metrics import HeldOut
from genodl_spark.pipelines.evaluate import chosen_model
from genodl_spark.registry.scores import MODEL, PARTS, held_out
from genodl_spark.report import content
from tests.reference.run import DATA, Line, lines, together, verb

MPRA, SGE = DATA / "varimpact_satmut_mpra_kircher", DATA / "varimpact_brca1_sge_findlay"
DRAWS, FEWEST = 1000, 10
COMMON = ("tracking.uri=off", "evaluate.resamples=0")
# by inner folds of training loci: twice the epochs in half the batch is no better
OF_VALUES = ("model.hidden=[256]", "train.loss=huber", "train.epochs=5", "train.batch=128")
BASELINES = (
    "evaluate.baselines=majority,ridge,linear_svm,random_forest,gradient_boosting"  # a single tree takes minutes
)


def held_by_seeds(lake: str, seeds: int, *settings: str) -> dict[str, list[HeldOut]]:
    """Held-out scores by predictor, one after the other by seed."""
    task = ("variant_effect", "--lake", lake, "--cohort", "c")
    label = ("--label", "value" if lake.endswith("mpra") else "label")
    given = tuple(part for one in (*COMMON, *settings) for part in ("--set", one))
    found: dict[str, list[HeldOut]] = {}
    for seed in range(seeds):
        verb("train", *task, *label, "--seed", str(seed), *given)
        model_id = verb("evaluate", *task, *label, "--set", "evaluate.resamples=0")["metrics"]["model_id"]
        run = Run(Report("reference"), config.load("variant_effect"), lake)
        for name, (held,) in held_out(run, chosen_model(run, None, model_id), "c").items():
            found.setdefault(name, []).append(held)
    return found


def brca1(*settings: str) -> Callable[[str, int], Iterator[Line]]:
    """AUROC of loss of function against function, of whole exons: HGVS of the table says what happens to the
    protein."""

    def run_one(folder: str, seeds: int) -> Iterator[Line]:
        started, lake = time.perf_counter(), str(Path(folder) / "sge")
        files = (str(SGE / "variants.tsv.gz"), "--reference", str(SGE / "regions.fa.gz"))
        verb("ingest", "variants", *files, "--cohort", "c", "--lake", lake)
        chosen = ("target.classes=FUNC,LOF", "split.folds=9", "split.group=exon", *settings)
        held = {name: together(parts) for name, parts in held_by_seeds(lake, seeds, *chosen).items()}
        data = f"BRCA1, 9 exons{', ' + settings[0] if settings else ''}, {seeds} seeds"
        yield from lines("variant_effect", data, held, "auroc", time.perf_counter() - started)

    return run_one


def mpra(fewest: int) -> Callable[[str, int], Iterator[Line]]:
    """Values of regulatory variants with `fewest` barcodes or more, of whole loci."""

    def run_one(folder: str, seeds: int) -> Iterator[Line]:
        started, lake = time.perf_counter(), str(Path(folder) / "mpra")
        table = Path(folder) / "satmut.tsv"
        experiments = {}
        with gzip.open(MPRA / "variants.tsv.gz", "rt") as file, open(table, "w") as kept:
            reader = csv.DictReader(file, delimiter="\t")
            writer = csv.DictWriter(kept, reader.fieldnames or [], delimiter="\t", lineterminator="\n")
            writer.writeheader()
            for row in reader:
                if row["release"] == "GRCh38" and row["chrom"] != "NA" and int(row["barcodes"]) >= fewest:
                    writer.writerow(row)
        files = (str(table), "--reference", str(MPRA / "elements.fa.gz"))
        verb("ingest", "variants", *files, "--cohort", "c", "--lake", lake)
        given = ("split.folds=5", "split.group=element", "target.within=element", *OF_VALUES, BASELINES)
        held = held_by_seeds(lake, seeds, *given)
        run = Run(Report("reference"), config.load("variant_effect"), lake)
        from genodl_spark.lake.tables.ingested import LABELS

        for row in run.lake.read(LABELS).select("entity_id", "element").collect():
            experiments[row.entity_id] = row.element
        rows = f"{fewest} barcodes or more" if fewest else "all rows"
        data = f"satmut MPRA, {rows}, {seeds} seeds"
        yield from _by_experiment(data, held, experiments, time.perf_counter() - started)

    return run_one


def _by_experiment(
    data: str, held: dict[str, list[HeldOut]], experiments: dict[str, str], seconds: float
) -> Iterator[Line]:
    """Mean over experiments of Pearson's correlation: value, interval, spread over seeds, and the difference of the
    model to the best baseline. A locus is what is in one group of the split."""
    loci: dict[str, str] = {}
    tables: dict[str, np.ndarray] = {}  # seeds, experiments
    names = sorted(set(experiments.values()))
    for predictor, parts in held.items():
        rows = []
        for part in parts:
            of = np.array([experiments[entity] for entity in part.entities])
            loci.update(zip(of.tolist(), part.groups.tolist(), strict=True))
            found = []
            for name in names:
                mine = of == name
                with np.errstate(invalid="ignore"):  # of one value for all, as the majority's are
                    found.append(np.corrcoef(part.scores[0, mine], part.target[mine])[0, 1])
            rows.append(found)
        tables[predictor] = np.nan_to_num(np.array(rows))
    of_locus = np.array([loci[name] for name in names])
    distinct = np.unique(of_locus)
    generator = np.random.default_rng(0)
    weights = np.array([
        np.bincount(generator.integers(0, len(distinct), len(distinct)), minlength=len(distinct)) for _ in range(DRAWS)
    ])[:, np.searchsorted(distinct, of_locus)]  # fmt: skip

    def shown(values: np.ndarray, sign: str = "") -> str:
        drawn = (weights * values.mean(0)).sum(1) / weights.sum(1)
        low, high = np.percentile(drawn, [2.5, 97.5])
        return f"{values.mean():{sign}.4f} [{low:{sign}.4f}, {high:{sign}.4f}]"

    others = [name for name in tables if name not in (MODEL, *PARTS)]
    best = max(others, key=lambda name: tables[name].mean())
    for predictor, table in tables.items():
        yield [
            "variant_effect", data, "mean pearson", predictor, shown(table),
            f"{np.std(table.mean(1), ddof=1):.4f}" if len(table) > 1 else "",
            f"{shown(tables[MODEL] - tables[best], '+')} to {best}" if predictor == MODEL else "",
            f"{seconds:.0f}" if predictor == MODEL else "",
        ]  # fmt: skip


LINES: dict[str, Callable[[str, int], Iterator[Line]]] = {
    "brca1": brca1(),
    "brca1-phylop": brca1("covariates=phyloP_mammalian_"),
    "mpra": mpra(FEWEST),
    "mpra-all": mpra(0),
}


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("names", nargs="*", help=f"some of {', '.join(LINES)}; default: all")
    made.add_argument("--seeds", type=int, default=5)
    asked = made.parse_args()
    rows: list[Line] = []
    with tempfile.TemporaryDirectory() as folder, session.shared():
        for name in asked.names or list(LINES):
            lake = Path(folder) / name
            lake.mkdir()
            rows += LINES[name](str(lake), asked.seeds)
    head = ["task", "data", "metric", "predictor", "value, 95% interval", "SD of seeds", "paired difference", "seconds"]
    print(f"{os.cpu_count()} cores\n")
    print(content.table(rows, head))


if __name__ == "__main__":
    main()
