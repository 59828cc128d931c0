"""Networks over sequences beside their baselines on public sets: the table of docs/accuracy.md. Long.
`.venv/bin/python tests/reference/sequence_networks.py [--seeds N] [NAME...]`; reads ../shared/data.

Each set is trained and evaluated through the verbs that a user has, by the defaults of its task, for each seed. Seeds
are repeats of one measurement: intervals are 95% bootstraps over groups (of sequences that are nearly the same), drawn
with all their seeds, and so are paired differences. A published split keeps its test rows; other sets are folds anew
for each seed. Rows: `model`, its parts `network` and `linear`, and the baselines that the task names.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd

import jobs
from genodl_spark.core import session, splitmix
from genodl_spark.genome import bases, shuffles
from genodl_spark.job import config
from genodl_spark.job.run import Report, Run
from genodl_spark.learning import metrics
from genodl_spark.learning.metrics import HeldOut, best_baseline
from genodl_spark.pipelines.evaluate import chosen_model
from genodl_spark.registry.scores import MODEL, PARTS, held_out
from genodl_spark.report import content

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("GENODL_SHARED_DATA", ROOT.parent / "shared" / "data"))
FACTORS = ("ARID3A", "CTCFL", "ELK1", "FOXA1", "MYC", "SP1", "ZBTB7A")
MISMATCHES = 6  # within which designs of promoters are a family


def table(folder: str, file: str = "sequences.tsv.gz") -> pd.DataFrame:
    return pd.read_csv(DATA / folder / file, sep="\t")


def clip(experiment: str) -> pd.DataFrame:
    rows = table("bind_clip_ideeps_A")
    return rows[rows["experiment"].str.contains(experiment)][["id", "sequence", "label", "split"]]


def peaks(factor: str) -> pd.DataFrame:
    """Published test rows; of the peaks that train one dinucleotide shuffle each, by its number."""
    rows = table("bind_deepbind_encode")
    rows = rows[rows["tf"] == factor][["id", "sequence", "label", "split"]]
    train = rows[rows["split"] == "train"]
    codes = coded(train["sequence"])
    made = shuffles.shuffled(codes, splitmix.keys_of(np.arange(len(train)), 1))
    others = train.assign(
        id=train["id"] + ":shuffled",
        sequence=[bases.spelled(row[: len(s)]) for row, s in zip(made, train["sequence"], strict=True)],
        label=0,
    )
    return pd.concat([rows, others])


def coded(sequences: pd.Series) -> np.ndarray:
    """Base codes int8 (rows, the longest), padded behind."""
    width = int(sequences.str.len().max())
    text = "".join(s.ljust(width, ".") for s in sequences)
    return np.maximum(bases.base_codes(np.frombuffer(text.encode(), np.uint8)), -1).reshape(-1, width)


def promoters(organism: str) -> pd.DataFrame:
    rows = table("seq_promoter_cnnprom")
    return rows[rows["organism"] == organism][["id", "sequence", "label"]]


def designs() -> pd.DataFrame:
    """The 5,193 of high quality, with the family of each: of one length, single linkage by MISMATCHES."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    rows = table("seqexpr_ecoli_lafleur2022")
    rows = rows[rows["high_quality"] == "Yes"][["id", "sequence", "value"]]
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
SETS: dict[str, Set] = {
    **{
        f"clip-{e}": (lambda e=e: clip(e), "binding", PUBLISHED, "auroc") for e in ("ELAVL1A", "HNRNPC", "QKI", "TDP43")
    },
    **{f"peaks-{f}": (lambda f=f: peaks(f), "binding", PUBLISHED, "auroc") for f in FACTORS},
    "splice": (lambda: table("seq_uci_splice"), "sequence_class", ("split.folds=10",), "accuracy"),
    **{
        f"promoters-{o}": (lambda o=o: promoters(o), "sequence_class", FOLDS, "mcc")
        for o in ("ecoli", "bsubtilis", "mouse")
    },
    "enhancers": (lambda: table("seq_enhancer_ienhancer2l"), "sequence_class", FOLDS, "auroc"),
    "designs": (designs, "sequence_expression", (*FOLDS, "split.group=family"), "r2"),
}


def verb(name: str, *argv: str) -> dict:
    print(f"$ genodl {name} {' '.join(argv)}", file=sys.stderr, flush=True)
    document = jobs.call(name, list(argv))
    if document["code"]:
        raise RuntimeError(document["error"])
    return document


def stacked(parts: list[HeldOut]) -> HeldOut:
    """The same rows, each as a repeat of one HeldOut. A row that one seed lacks is NaN there."""
    entities, first = np.unique(np.concatenate([p.entities for p in parts]), return_index=True)
    groups = np.concatenate([p.groups for p in parts])[first]
    target = np.concatenate([p.target for p in parts])[first]
    scores = np.full((len(parts), len(entities), *parts[0].scores.shape[2:]), np.nan)
    for repeat, part in enumerate(parts):
        scores[repeat, np.searchsorted(entities, part.entities)] = part.scores[0]
    return HeldOut(entities, groups, target, scores, parts[0].classes)


def measured(name: str, lake: str, seeds: int, options: list[str]) -> list[list[str]]:
    """Rows of the table, the model's first."""
    read, task, settings, metric = SETS[name]
    given = Path(lake).parent / f"{name}.tsv"
    read().to_csv(given, sep="\t", index=False)
    verb("ingest", "sequences", str(given), "--cohort", name, "--lake", lake)
    held: list[dict[str, list[HeldOut]]] = []
    seconds = []
    for seed in range(seeds):
        common = (task, "--lake", lake, "--cohort", name)
        chosen = [part for one in (*settings, *options) for part in ("--set", one)]
        started = time.perf_counter()
        verb("train", *common, "--seed", str(seed), *chosen)
        seconds.append(time.perf_counter() - started)
        model_id = verb("evaluate", *common, "--set", "evaluate.resamples=0")["metrics"]["model_id"]
        run = Run(Report("reference"), config.load(task), lake)
        held.append(held_out(run, chosen_model(run, None, model_id), name))
    joined = {predictor: stacked([one[predictor][0] for one in held]) for predictor in held[0]}
    found = {predictor: metrics.intervals(one, 1000, 0)[metric] for predictor, one in joined.items()}
    best = best_baseline({p: i.value for p, i in found.items() if p not in (MODEL, *PARTS)}, metric)
    rows = []
    for predictor in sorted(found, key=lambda p: (p != MODEL, p not in PARTS, -found[p].value)):
        one, interval = joined[predictor], found[predictor]
        each = [
            metrics.metrics(HeldOut(one.entities, one.groups, one.target, s[None], one.classes)) for s in one.scores
        ]
        value = f"{interval.value:.4f} [{interval.low:.4f}, {interval.high:.4f}]"
        spread = f"{np.std([m[metric] for m in each], ddof=1):.4f}" if seeds > 1 else ""
        difference = ""
        if predictor == MODEL and best is not None:
            d = metrics.paired(one, joined[best], metric, 1000, 0)
            difference = f"{d.value:+.4f} [{d.low:+.4f}, {d.high:+.4f}] to {best}"
        shown = f"{np.mean(seconds):.0f}" if predictor == MODEL else ""
        rows.append([name, metric, predictor, value, spread, difference, shown])
        print(*rows[-1], file=sys.stderr, flush=True)
    return rows


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
