"""Networks over sequences beside their baselines on public sets: the table of docs/accuracy.md. Long.
`.venv/bin/python tests/reference/sequence_networks.py [--seeds N] [NAME...]`; reads ../shared/data.

Each set is trained and evaluated through the verbs that a user has, by the defaults of its task, for each seed. Seeds
are repeats of one measurement: intervals are 95% bootstraps over groups (of sequences that are nearly the same), drawn
with all their seeds, and so are paired differences. A published split keeps its test rows; other sets are folds anew
for each seed. Rows: `model`, its parts, and the baselines that the task names.
"""

from __future__ import annotations

import argparse
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
import pandas as pd
from pyspark.sql import functions as F

import jobs
from genodl_spark.core import session
from genodl_spark.genome import bases
from genodl_spark.job import config
from genodl_spark.job.run import Report, Run
from genodl_spark.lake.tables.learning import HELD_OUT
from genodl_spark.learning import metrics
from genodl_spark.learning.metrics import HeldOut, best_baseline
from genodl_spark.pipelines.evaluate import chosen_model
from genodl_spark.registry.scores import MODEL, PARTS, held_out
from genodl_spark.report import content

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("GENODL_SHARED_DATA", ROOT.parent / "shared" / "data"))
FACTORS = ("ARID3A", "CTCFL", "ELK1", "FOXA1", "MYC", "SP1", "ZBTB7A")
BACTERIA = ("ecoli", "bsubtilis")
MISMATCHES = 6  # within which designs of promoters are a family


def table(folder: str, file: str = "sequences.tsv.gz") -> pd.DataFrame:
    return pd.read_csv(DATA / folder / file, sep="\t")


def clip(experiment: str) -> pd.DataFrame:
    rows = table("bind_clip_ideeps_A")
    return rows[rows["experiment"].str.contains(experiment)][["id", "sequence", "label", "split"]]


def peaks(factor: str) -> pd.DataFrame:
    """Peaks that train, and test rows of both classes."""
    rows = table("bind_deepbind_encode")
    return rows[rows["tf"] == factor][["id", "sequence", "label", "split"]]


def coded(sequences: pd.Series) -> np.ndarray:
    """Base codes int8 (rows, the longest), padded behind."""
    width = int(sequences.str.len().max())
    text = "".join(s.ljust(width, ".") for s in sequences)
    return np.maximum(bases.base_codes(np.frombuffer(text.encode(), np.uint8)), -1).reshape(-1, width)


def promoters(organism: str) -> pd.DataFrame:
    rows = table("seq_promoter_cnnprom")
    return rows[rows["organism"] == organism][["id", "sequence", "label"]]


def bacteria() -> pd.DataFrame:
    """Promoters of both bacteria, which share the factors that read them: a column of labels for each."""
    rows = table("seq_promoter_cnnprom")
    rows = rows[rows["organism"].isin(BACTERIA)]
    labels = {one: rows["label"].astype(str).where(rows["organism"] == one, "") for one in BACTERIA}
    return rows[["id", "sequence", "organism"]].assign(**labels)


def designs() -> pd.DataFrame:
    """The 5,193 of high quality, with the family of each: of one length, single linkage by MISMATCHES."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    rows = table("seqexpr_ecoli_lafleur2022")
    rows = rows[rows["high_quality"] == "Yes"][["id", "sequence", "value", "predicted"]]
    codes, size = coded(rows["sequence"]), rows["sequence"].str.len().to_numpy()
    known = np.concatenate([(codes == base).astype(np.float32) for base in range(4)], 1)
    one, two = [], []
    for start in range(0, len(rows), 1000):
        alike = known[start : start + 1000] @ known.T >= size[start : start + 1000, None] - MISMATCHES
        a, b = np.nonzero(alike & (size[start : start + 1000, None] == size))
        one.append(a + start)
        two.append(b)
    at = np.concatenate(one), np.concatenate(two)
    _, family = connected_components(coo_array((np.ones(len(at[0]), bool), at), (len(rows),) * 2))
    return rows.assign(family=family)


# how it is read, the task, its settings, the metric
Set = tuple[Callable[[], pd.DataFrame], str, tuple[str, ...], str]
PUBLISHED, FOLDS = ("split.column=split",), ("split.folds=5",)
SHUFFLED = (*PUBLISHED, "sequence.negatives=shuffled")
R2_OF_FOLDS = "r2 of folds"
SETS: dict[str, Set] = {
    **{
        f"clip-{e}": (lambda e=e: clip(e), "binding", PUBLISHED, "auroc") for e in ("ELAVL1A", "HNRNPC", "QKI", "TDP43")
    },
    **{f"peaks-{f}": (lambda f=f: peaks(f), "binding", SHUFFLED, "auroc") for f in FACTORS},
    "splice": (lambda: table("seq_uci_splice"), "sequence_class", ("split.folds=10",), "accuracy"),
    **{
        f"promoters-{o}": (lambda o=o: promoters(o), "sequence_class", FOLDS, "mcc")
        for o in ("ecoli", "bsubtilis", "mouse")
    },
    "promoters-bacteria": (bacteria, "sequence_class", (*FOLDS, "split.stratify=organism"), "mcc"),
    "enhancers": (lambda: table("seq_enhancer_ienhancer2l"), "sequence_class", FOLDS, "auroc"),
    "designs": (designs, "sequence_expression", (*FOLDS, "split.group=family"), R2_OF_FOLDS),
}


def verb(name: str, *argv: str) -> dict:
    print(f"$ genodl {name} {' '.join(argv)}", file=sys.stderr, flush=True)
    document = jobs.report_of(name, list(argv))
    if document["code"]:
        raise RuntimeError(document["error"])
    return document


def stacked(parts: list[HeldOut]) -> HeldOut:
    """The same rows, each as a repeat of one HeldOut. A row that one seed lacks is NaN there."""
    entities, first = np.unique(np.concatenate([p.entities for p in parts]), return_index=True)
    groups = np.concatenate([p.groups for p in parts])[first]
    target = np.concatenate([p.target for p in parts])[first]
    scores = np.full((len(parts), len(entities), *parts[0].scores.shape[2:]), np.nan)
    order = scores.copy()
    for repeat, part in enumerate(parts):
        at = np.searchsorted(entities, part.entities)
        scores[repeat, at], order[repeat, at] = part.scores[0], part.order[0]
    return HeldOut(entities, groups, target, scores, parts[0].classes, ranked=order if parts[0].classes else None)


def measured(name: str, lake: str, seeds: int, options: list[str]) -> list[list[str]]:
    """Rows of the table, the model's first."""
    read, task, settings, metric = SETS[name]
    given = Path(lake).parent / f"{name}.tsv"
    read().to_csv(given, sep="\t", index=False)
    verb("ingest", "sequences", str(given), "--cohort", name, "--lake", lake)
    held: list[dict[str, list[HeldOut]]] = []
    folds: list[dict[str, int]] = []
    seconds = []
    columns = list(BACTERIA) if name == "promoters-bacteria" else []
    for seed in range(seeds):
        common = (task, "--lake", lake, "--cohort", name, *(["--label", ",".join(columns)] if columns else []))
        chosen = [part for one in (*settings, *options) for part in ("--set", one)]
        started = time.perf_counter()
        verb("train", *common, "--seed", str(seed), *chosen)
        seconds.append(time.perf_counter() - started)
        model_id = verb("evaluate", *common, "--set", "evaluate.resamples=0")["metrics"]["model_id"]
        run = Run(Report("reference"), config.load(task), lake)
        held.append(held_out(run, chosen_model(run, None, model_id), name))
        if metric == R2_OF_FOLDS:
            scored = run.lake.read(HELD_OUT).where((F.col("model_id") == model_id) & (F.col("predictor") == MODEL))
            folds.append({row.entity_id: row.fold for row in scored.select("entity_id", "fold").collect()})
    if metric == R2_OF_FOLDS:
        published = pd.read_csv(given, sep="\t").set_index("id")["predicted"]
        return list(of_folds(name, held, folds, published, np.mean(seconds)))
    rows = []
    for head in range(len(columns) or 1):
        joined = {predictor: stacked([one[predictor][head] for one in held]) for predictor in held[0]}
        label = f"{name}, {columns[head]}" if columns else name
        rows += list(of_head(label, metric, joined, np.mean(seconds)))
    return rows


def of_head(name: str, metric: str, joined: dict[str, HeldOut], seconds: float) -> Iterator[list[str]]:
    """Rows of the table of one head, the model's first; seeds are the repeats."""
    found = {predictor: metrics.intervals(one, 1000, 0)[metric] for predictor, one in joined.items()}
    best = best_baseline({p: i.value for p, i in found.items() if p not in (MODEL, *PARTS)}, metric)
    for predictor in sorted(found, key=lambda p: (p != MODEL, p not in PARTS, -found[p].value)):
        one, interval = joined[predictor], found[predictor]
        each = [
            metrics.metrics(replace(one, scores=scores[None], ranked=order[None] if one.classes else None))
            for scores, order in zip(one.scores, one.order, strict=True)
        ]
        value = f"{interval.value:.4f} [{interval.low:.4f}, {interval.high:.4f}]"
        spread = f"{np.std([m[metric] for m in each], ddof=1):.4f}" if len(each) > 1 else ""
        difference = ""
        if predictor == MODEL and best is not None:
            d = metrics.paired(one, joined[best], metric, 1000, 0)
            difference = f"{d.value:+.4f} [{d.low:+.4f}, {d.high:+.4f}] to {best}"
        row = [name, metric, predictor, value, spread, difference, f"{seconds:.0f}" if predictor == MODEL else ""]
        print(*row, file=sys.stderr, flush=True)
        yield row


def of_folds(
    name: str, held: list[dict[str, list[HeldOut]]], folds: list[dict[str, int]], published: pd.Series, seconds: float
) -> Iterator[list[str]]:
    """Squared correlation within each fold: the mean of folds and seeds, of the worst and of the best fold; and of how
    many folds the model is better than what was published. A family that is most of the rows is a fold of its own,
    whose mean no other tells; R2, which counts that, is in the metrics of `evaluate`."""
    found: dict[str, np.ndarray] = {}  # seeds, folds
    for seed, parts in enumerate(held):
        whole = parts[MODEL][0]
        known = HeldOut(
            whole.entities, whole.groups, whole.target, published[whole.entities].to_numpy()[None], whole.classes
        )
        for predictor, part in {**{p: h[0] for p, h in parts.items()}, "published": known}.items():
            of = np.array([folds[seed][entity] for entity in part.entities])
            table = found.setdefault(predictor, np.zeros((len(held), of.max() + 1)))
            for fold in range(table.shape[1]):
                with np.errstate(invalid="ignore"):  # of one value for all, as the majority's are
                    score = part.scores[0].reshape(len(of))[of == fold]
                    table[seed, fold] = np.nan_to_num(np.corrcoef(score, part.target[of == fold])[0, 1]) ** 2
    for predictor in sorted(found, key=lambda p: (p != MODEL, p not in PARTS, -found[p].mean())):
        own = found[predictor]
        better = f"better than published in {(own > found['published']).sum()} of {own.size} folds"
        row = [name, R2_OF_FOLDS, predictor, f"{own.mean():.4f} [{own.min():.4f}, {own.max():.4f}]"]
        row += [f"{np.std(own.mean(1), ddof=1):.4f}" if len(own) > 1 else ""]
        row += [better if predictor == MODEL else "", f"{seconds:.0f}" if predictor == MODEL else ""]
        print(*row, file=sys.stderr, flush=True)
        yield row


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("names", nargs="*", help=f"some of {', '.join(SETS)}; default: all")
    made.add_argument("--seeds", type=int, default=5)
    made.add_argument("--set", action="append", default=[], help="KEY=VALUE for train, in place of the task's default")
    asked = made.parse_args()
    chosen = asked.names or list(SETS)
    rows: list[list[str]] = []
    with tempfile.TemporaryDirectory() as folder, session.shared():
        for name in chosen:
            rows += measured(name, str(Path(folder) / "lake"), asked.seeds, asked.set)
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    known = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    where = f"{os.cpu_count()} cores, {known[0] if known else platform.processor()}, no GPU"
    print(f"{date.today()}, {where}, {asked.seeds} seeds: {' '.join(sys.argv)}\n")
    head = [
        "data",
        "metric",
        "predictor",
        "value, 95% interval",
        "SD of seeds",
        "paired difference",
        "training, seconds",
    ]
    print(content.table(rows, head))


if __name__ == "__main__":
    main()
