"""How well the baselines of sequences do on public sequences: the table of docs/accuracy.md.
`.venv/bin/python tests/reference/sequences.py [NAME...]`, minutes; reads ../shared/data.

Folds are random, those of scikit-learn with seed 0, and every setting is the fixed one. No row is left out, so that the
nearest neighbour may be another sequence of the same family or study.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import r2_score, roc_auc_score
from sklearn.model_selection import KFold, StratifiedKFold

from genodl_spark.genome import bases
from genodl_spark.learning import baselines, encodings
from genodl_spark.report import content

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("GENODL_SHARED_DATA", ROOT.parent / "shared" / "data"))
# file, column that is learnt, rows of which organism, folds
SETS: dict[str, tuple[str, str, str | None, int]] = {
    "splice": ("seq_uci_splice/sequences.tsv.gz", "label", None, 10),
    "enhancers": ("seq_enhancer_ienhancer2l/sequences.tsv.gz", "label", None, 5),
    "promoters": ("seq_promoter_cnnprom/sequences.tsv.gz", "label", "ecoli", 5),
    "lafleur": ("seqexpr_ecoli_lafleur2022/sequences_highquality5391.tsv.gz", "value", None, 5),
}


def read(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Base codes, aligned at their centres, and class indices or values."""
    file, column, organism, _ = SETS[name]
    table = pd.read_csv(DATA / file, sep="\t")
    if organism is not None:
        table = table[table["organism"] == organism]
    texts = table["sequence"].to_list()
    codes = bases.base_codes(np.frombuffer("".join(texts).encode(), np.uint8))
    ends = np.cumsum([0, *map(len, texts)])
    target = table[column].to_numpy()
    known = target if column == "value" else np.unique(target, return_inverse=True)[1]
    return bases.centred(codes, ends, max(map(len, texts))), known


def out_of_fold(baseline: str, x: np.ndarray, y: np.ndarray, classes: int, folds: int) -> np.ndarray:
    scores = np.zeros((len(y), classes) if classes else len(y))
    for train, test in (StratifiedKFold if classes else KFold)(folds, shuffle=True, random_state=0).split(x, y):
        scores[test] = baselines.fit_predict(baseline, x[train], y[train], x[test], classes, 0)
    return scores


def main() -> None:
    rows = []
    for name in sys.argv[1:] or list(SETS):
        x, y = read(name)
        folds = SETS[name][3]
        classes = 0 if y.dtype == np.float64 else int(y.max()) + 1
        features = encodings.encoding("onehot").baseline(x)
        for baseline in baselines.names(classes, letters=True):
            started = time.process_time()
            seen = x if baseline in baselines.OF_SEQUENCES else features
            scores = out_of_fold(baseline, seen, y, classes, folds)
            if classes:
                found = {
                    "accuracy": (scores.argmax(1) == y).mean(),
                    "auroc": roc_auc_score(y, scores if classes > 2 else scores[:, 1], multi_class="ovr"),
                    "log loss": -np.log(scores[np.arange(len(y)), y].clip(1e-6)).mean(),
                }
            else:
                found = {"r2": r2_score(y, scores)}
            seconds = (time.process_time() - started) / folds
            shown = ", ".join(f"{key} {value:.4f}" for key, value in found.items())
            rows.append([f"{name}, {len(x):,} of {x.shape[1]}", baseline, shown, f"{seconds:.1f}"])
            print(*rows[-1], file=sys.stderr, flush=True)
    print(content.table(rows, ["data", "baseline", "metrics", "CPU seconds a fit"]))


if __name__ == "__main__":
    main()
