"""What batch correction that is fitted on training rows leaves of batches and classes in held-out rows: the tables of
docs/accuracy.md. `.venv/bin/python tests/reference/batches.py`, about a minute; reads ../shared/data.
"""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import t
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from sklearn.model_selection import StratifiedKFold

from genodl_spark.learning.preprocessing import Chain

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("GENODL_SHARED_DATA", ROOT.parent / "shared" / "data"))
STEMCELLS = DATA / "expr_stemcells_mixomics"
ROWS, SETS, REPEATS = 400, 20, 10
# nothing is done to values of which none is missing
CHAINS = {
    "as they are": (["impute_median"], {}),
    "combat": (["combat"], {}),
    "combat, protect_label": (["combat"], {"combat": {"protect_label": True}}),
}


@dataclass(frozen=True)
class Measured:
    """Values x (n, F) with number of the batch and class of each row, int (n,)."""

    x: np.ndarray
    batch: np.ndarray
    classes: np.ndarray


def simulated(seed: int, rows: int = ROWS, mix: float = 0.5) -> tuple[Measured, Measured]:
    """Rows of 40 features in two batches, that are moved and stretched, and two classes; and the same without
    batches. `mix`: share of the second class in the second batch, and of the first in the first."""
    generator = np.random.default_rng([seed, 9])
    batch = np.arange(rows) % 2
    classes = np.where(np.arange(rows) // 2 < rows / 2 * mix, batch, 1 - batch)
    x = generator.normal(size=(rows, 40)) + classes[:, None] * generator.normal(0, 0.35, 40)
    stretched = x * np.where(batch[:, None] == 1, generator.uniform(0.6, 1.6, 40), 1)
    moved = stretched + batch[:, None] * generator.normal(0, 1, 40)
    return Measured(moved, batch, classes), Measured(x, batch, classes)


def stemcells() -> Measured:
    """400 genes of 125 samples of three kinds of cells, from four studies."""
    with gzip.open(STEMCELLS / "matrix.tsv.gz", "rt") as lines:
        names = next(lines).split()[-125:]
        x = np.array([line.split("\t")[1:] for line in lines], np.float64).T
    table = [line.split("\t") for line in (STEMCELLS / "samples.tsv").read_text().splitlines()[1:]]
    of = {name: (kind, study) for name, kind, study in table}
    kinds, studies = ([of[name][i] for name in names] for i in (0, 1))
    return Measured(x, np.unique(studies, return_inverse=True)[1], np.unique(kinds, return_inverse=True)[1])


@dataclass(frozen=True)
class Found:
    """Of held-out rows: scores (n, K) of a classifier of classes and one of batches, and the rows after treatment."""

    classes: np.ndarray
    batches: np.ndarray
    x: np.ndarray


def held_out(data: Measured, chain: str, seed: int, folds: int = 5) -> Found:
    """A chain, and logistic regressions of what it makes, fitted on all folds but one and applied to that."""
    steps, options = CHAINS[chain]
    count = data.batch.max() + 1
    names = [*(f"g{i}" for i in range(data.x.shape[1])), *(f"covariate:b={b}" for b in range(count))]
    treating = Chain(steps, options, names, "b")
    told = np.concatenate([data.x, data.batch[:, None] == np.arange(count)], 1)
    scores = [np.empty((len(told), wanted.max() + 1)) for wanted in (data.classes, data.batch)]
    treated = np.empty_like(data.x)
    for train, test in StratifiedKFold(folds, shuffle=True, random_state=seed).split(
        told, data.classes * count + data.batch
    ):
        learnt = treating.fit(told[train], data.classes[train])
        before, after = (treating.apply(told[rows], learnt.tensors) for rows in (train, test))
        mean, spread = before.mean(0), before.std(0) + 1e-6
        treated[test] = after[:, : data.x.shape[1]]
        for wanted, found in zip((data.classes, data.batch), scores, strict=True):
            model = LogisticRegression(C=0.01, max_iter=500).fit((before - mean) / spread, wanted[train])
            found[test] = model.predict_proba((after - mean) / spread)
    return Found(scores[0], scores[1], treated)


def auroc(scores: np.ndarray, wanted: np.ndarray) -> float:
    """Of two classes that of the second; of several the mean over all pairs."""
    if scores.shape[1] == 2:
        return float(roc_auc_score(wanted, scores[:, 1]))
    return float(roc_auc_score(wanted, scores, multi_class="ovo"))


def share(x: np.ndarray, groups: np.ndarray, others: np.ndarray) -> float:
    """Share of the variance of rows x (n, F) that `groups` explain beside `others`, int (n,), mean over features."""
    both = [(one[:, None] == np.unique(one)).astype(float) for one in (others, groups)]
    total = np.square(x - x.mean(0)).sum(0)

    def left(design: np.ndarray) -> np.ndarray:
        found: np.ndarray = np.square(x - design @ np.linalg.lstsq(design, x, rcond=None)[0]).sum(0)
        return found

    return float(((left(both[0]) - left(np.concatenate(both, 1))) / total).mean())


def interval(values: list[float]) -> str:
    """Mean of values of independent sets with its 95% interval by Student's t."""
    reach = t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return f"{np.mean(values):.4f} [{np.mean(values) - reach:.4f}, {np.mean(values) + reach:.4f}]"


def of_simulated(rows: int = ROWS, mix: float = 0.5, sets: int = SETS) -> dict[str, dict[str, list[float]]]:
    """AUROC of batches and of classes of each set, by chain; `without`: of the rows without batches."""
    found: dict[str, dict[str, list[float]]] = {
        name: {"batch": [], "class": []} for name in (*CHAINS, "without batches")
    }
    for seed in range(sets):
        moved, clean = simulated(seed, rows, mix)
        for name, own in found.items():
            one = held_out(moved, name, seed) if name in CHAINS else held_out(clean, "as they are", seed)
            own["batch"].append(auroc(one.batches, moved.batch))
            own["class"].append(auroc(one.classes, moved.classes))
    return found


def of_stemcells(repeats: int = REPEATS) -> dict[str, dict[str, list[float]]]:
    """Figures of each repeat, by chain."""
    data, found = stemcells(), {}
    for name in CHAINS:
        own: dict[str, list[float]] = {}
        for seed in range(repeats):
            one = held_out(data, name, seed, 3)
            for key, value in (
                ("batch share", share(one.x, data.batch, data.classes)),
                ("class share", share(one.x, data.classes, data.batch)),
                ("batch accuracy", balanced_accuracy_score(data.batch, one.batches.argmax(1))),
                ("class accuracy", balanced_accuracy_score(data.classes, one.classes.argmax(1))),
                ("class AUROC", auroc(one.classes, data.classes)),
            ):
                own.setdefault(key, []).append(float(value))
        found[name] = own
    return found


def lines() -> Iterator[str]:
    for rows, mix in ((ROWS, 0.5), (160, 0.5), (ROWS, 0.75)):
        found = of_simulated(rows, mix)
        yield f"{SETS} simulated sets of {rows} rows, {mix:.0%} of the second class in the second batch"
        usual = found["as they are"]["class"]
        for name, own in found.items():
            lost = [a - b for a, b in zip(usual, own["class"], strict=True)]
            batch = f"batch AUROC {np.mean(own['batch']):.3f}, at most {np.max(own['batch']):.3f}"
            yield f"  {name:22} {batch}; class AUROC {np.mean(own['class']):.4f}, lost {interval(lost)}"
    yield f"stem cells, {REPEATS} repeats of 3 folds: mean (least to most)"
    for name, of_chain in of_stemcells().items():
        cells = (f"{key} {np.mean(v):.3f} ({min(v):.3f} to {max(v):.3f})" for key, v in of_chain.items())
        yield f"  {name:22} {'; '.join(cells)}"


if __name__ == "__main__":
    for line in lines():
        print(line, flush=True)
