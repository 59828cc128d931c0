"""Labels that are noise score as noise after every step, through the code that training uses: what networks and
baselines are given is fitted on the training rows of each fold. What would be fitted on all rows is seen."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from genodl_spark.learning import encodings, feed, heads, preprocessing
from genodl_spark.learning.preprocessing import About, Chain, Fitted, Rows, Step, Tensors
from genodl_spark.learning.settings import Train
from genodl_spark.learning.training import plan
from genodl_spark.learning.training.ranks import Alone
from genodl_spark.learning.training.standardise import fit_scaling

SEEDS, ROWS, GENES, FOLDS = 20, 100, 40, 5
NAMES = [*(f"g{i}" for i in range(GENES)), "covariate:lab=a", "covariate:lab=b"]
CHAINS = [
    ["impute_median", "low_counts", "log_cpm", "z_score"],
    ["impute_knn", "low_variance", "log2"],
    ["log2", "impute_model"],
    ["missingness", "impute_median", "outliers", "quantile"],
    ["impute_median", "tmm", "log_cpm", "combat"],
    ["impute_median", "median_of_ratios", "log2"],
    ["impute_median", "tpm", "log2"],
    ["beta_to_m", "impute_median"],
    ["m_to_beta", "impute_median"],
    ["log2", "impute_gaussian"],
    ["impute_median", "best_scale"],
]
OPTIONS = {
    "best_scale": {"repeats": 1, "folds": 2, "among": ["asinh"]},
    "low_variance": {"share": 0.3},
    "combat": {"protect_label": True},
    "median_of_ratios": {"positive": True},
}


class Supervised(Step):
    """Keeps the features whose means differ most between two classes: what a fit on all rows would tell of labels."""

    def fit(self, rows: Rows, about: About) -> dict[str, np.ndarray]:
        assert about.classes is not None
        away = np.abs(rows.x[about.classes == 0].mean(0) - rows.x[about.classes == 1].mean(0)) / rows.x.std(0)
        return {"kept": (away >= np.sort(away)[-5]).astype(np.float64)}

    def apply(self, rows: Rows, tensors: Tensors) -> Rows:
        return rows.of(rows.x[:, tensors["kept"] > 0])


class OnAllRows(Chain):
    """A chain that learns from all rows, whichever it is given."""

    def knowing(self, x: np.ndarray, classes: np.ndarray) -> OnAllRows:
        self.found = Chain.fit(self, x, classes)
        return self

    def fit(self, x: np.ndarray, classes: np.ndarray | None = None, lengths: np.ndarray | None = None) -> Fitted:
        return Fitted(self.found.tensors, np.ones(len(x), bool))


def noise(seed: int, shares: bool = False) -> feed.Examples:
    """Counts, or shares, of genes that two labs measure on other scales, some missing; classes that are none of theirs;
    folds in which classes are equal."""
    generator = np.random.default_rng([seed, 7])
    lab, target = np.arange(ROWS) % 2, generator.permutation(np.arange(ROWS) % 2)
    x = generator.poisson(np.exp(generator.normal(3, 1, GENES)) * np.exp(0.5 * lab[:, None])).astype(float)
    x = x / (x.max() + 1) if shares else x
    x[generator.random(x.shape) < 0.03] = np.nan
    folds = np.empty(ROWS, np.int8)
    for value in (0, 1):
        folds[target == value] = generator.permutation(ROWS // 2) % FOLDS
    told = np.concatenate([x, lab[:, None] == [0, 1]], 1).astype(np.float32)
    return feed.Examples(told, target[:, None].astype(float), folds[:, None])


def held_out_auroc(data: feed.Examples, chain: Chain) -> float:
    """Of a ridge classifier of what networks are given, over all folds, each of which the others' rows teach."""
    sets = [one for one in plan.training_sets(1, FOLDS) if one.fold != plan.REGISTERED]
    learns = plan.learns(data.folds, sets, FOLDS)
    job = plan.Job(
        [],
        feed.Layout(ROWS, len(NAMES), "float32", 1),
        "pyarrow",
        1 << 30,
        heads.one("label", ["c0", "c1"]),
        FOLDS,
        "none",
        1.0,
        0,
        {"kind": "mlp"},
        Train(),
        5,
        "",
        chain=chain,
        lengths=np.linspace(500, 5000, len(NAMES)),
    )
    found = fit_scaling(data, learns, job, encodings.encoding("none"), Alone())
    assert found.coordinates is not None
    scores = np.empty(ROWS)
    for z, learnt, test in zip(found.coordinates, found.learns, plan.held_out(data.folds, sets, FOLDS), strict=True):
        x, y = z[learnt], data.target[learnt, 0] - data.target[learnt, 0].mean()
        scores[test] = z[test] @ np.linalg.solve(x.T @ x + 50 * np.eye(x.shape[1]), x.T @ y)
    return float(roc_auc_score(data.target[:, 0], scores))


def test_every_step_is_in_a_chain() -> None:
    assert {step for chain in CHAINS for step in chain} == set(preprocessing.names())


@pytest.mark.parametrize("steps", CHAINS, ids="-".join)
def test_labels_of_noise_are_not_learnt(steps: list[str]) -> None:
    chain = Chain(steps, {name: OPTIONS[name] for name in steps if name in OPTIONS}, NAMES, "lab")
    found = [held_out_auroc(noise(seed, "beta" in steps[0]), chain) for seed in range(SEEDS)]
    print(np.mean(found))
    assert 0.45 < np.mean(found) < 0.55


def test_a_fit_on_all_rows_is_seen() -> None:
    """The same supervised step: noise where the training rows of each fold teach it, far from it where all rows do."""
    inside, outside = [], []
    chain, leaking = (kind(["impute_median", "z_score"], {}, NAMES, "lab") for kind in (Chain, OnAllRows))
    for made in (chain, leaking):
        made.steps[1] = Supervised()
    for seed in range(SEEDS):
        data = noise(seed)
        inside.append(held_out_auroc(data, chain))
        outside.append(held_out_auroc(data, leaking.knowing(data.x, data.target[:, 0].astype(int))))
    print(np.mean(inside), np.mean(outside))
    assert 0.45 < np.mean(inside) < 0.55 and np.mean(outside) > 0.57
