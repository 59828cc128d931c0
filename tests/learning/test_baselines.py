"""Baselines: the rotation is exact, nothing of the scored rows is fitted, and published figures come out again."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.feature_selection import f_classif
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from threadpoolctl import threadpool_limits

from genodl_spark.learning import baselines, metrics, penalties

SHARED = Path(os.environ.get("GENODL_SHARED_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
FAST = ("majority", "linear_svm", "logistic", "decision_tree")


@pytest.fixture(autouse=True)
def _few_trees(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    if "published" not in request.node.name:
        monkeypatch.setattr(baselines, "TREES", 10)


def classes(n: int, f: int, c: int, seed: int = 0, signal: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    y = random.integers(0, c, n)
    y[:c] = range(c)
    x = random.normal(3, 2, (n, f))
    x[:, :10] += signal * random.normal(0, 1, (c, 10))[y]
    return x.astype(np.float32), y


@pytest.mark.parametrize("c", [2, 4])
def test_rotated_linear_models_are_those_of_all_features(c: int) -> None:
    x, y = classes(90, 400, c, signal=2.0)
    x[:, 7] = 0.1  # constant in training, not among the scored rows
    x[60:, 7] = 9.0
    train, test = x[:60], x[60:]
    scaler = StandardScaler().fit(train.astype(np.float64))
    z, w = scaler.transform(train.astype(np.float64)), scaler.transform(test.astype(np.float64))
    rotated = baselines._standardise(train, test)
    assert rotated[0].shape == (60, 59)
    assert rotated[0] @ rotated[0].T == pytest.approx(z @ z.T, rel=1e-9, abs=1e-8)
    assert rotated[1] @ rotated[0].T == pytest.approx(w @ z.T, rel=1e-9, abs=1e-8)
    scale = np.sqrt((z**2).sum(1).mean())

    svm = LinearSVC(C=0.01, dual=True, intercept_scaling=scale, max_iter=100_000, random_state=0).fit(z, y[:60])
    found = baselines.fit_predict("linear_svm", train, y[:60], test, c, 0)
    assert found.argmax(1).tolist() == svm.predict(w).tolist()
    decision = svm.decision_function(w)
    if c == 2:
        assert found[:, 1] == pytest.approx(1 / (1 + np.exp(-decision)), abs=1e-3)
    else:
        assert found == pytest.approx(np.exp(decision) / np.exp(decision).sum(1, keepdims=True), abs=1e-3)

    penalty = penalties.of_logistic(rotated[0] / scale, y[:60], 3)
    logistic = LogisticRegression(C=penalty, max_iter=10_000, tol=1e-8).fit(z / scale, y[:60])
    assert baselines.fit_predict("logistic", train, y[:60], test, c, 3) == pytest.approx(
        logistic.predict_proba(w / scale), abs=1e-3
    )

    value = train[:, 0] + train[:, 1]
    ridge = RidgeCV(alphas=scale**2 * np.logspace(-4, 4, 17)).fit(z, value)
    assert baselines.fit_predict("ridge", train, value, test, 0, 0) == pytest.approx(ridge.predict(w), abs=1e-4)
    assert (
        baselines.fit_predict("logistic", train, value, test, 0, 0).tolist()
        == baselines.fit_predict("ridge", train, value, test, 0, 0).tolist()
    )


@pytest.mark.parametrize("f", [15, 400])
@pytest.mark.parametrize("balanced", [False, True])
def test_lda_is_that_of_scikit_learn(f: int, balanced: bool) -> None:
    x, y = classes(90, f, 3, signal=2.0)
    y[:60][y[:60] == 2] = 1
    y[:8] = 2  # classes of three sizes
    x[:60, 5] = 7.0  # constant in training
    oracle = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(x[:60].astype(np.float64), y[:60])
    if balanced:  # scikit-learn's priors would weigh the covariance, too
        oracle.intercept_ -= np.log(oracle.priors_)
    found = baselines.fit_predict("lda", x[:60], y[:60], x[60:], 3, 0, balanced=balanced)
    assert found == pytest.approx(oracle.predict_proba(x[60:].astype(np.float64)), abs=1e-9)


def test_lda_of_more_rows_than_it_takes_keeps_every_class(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "LDA_ROWS", 40)
    x, y = classes(300, 12, 3, signal=4.0)
    y[:200][y[:200] == 2] = 0
    y[0] = 2  # one row of it
    found = baselines.fit_predict("lda", x[:200], y[:200], x[200:], 3, 0)
    assert np.isfinite(found).all() and (found.argmax(1) == y[200:])[y[200:] < 2].mean() > 0.9


def test_elastic_net_finds_few_features_by_a_penalty_of_inner_folds() -> None:
    x, y = classes(160, 500, 2, signal=0.0)
    x[:, :4] += 4 * y[:, None]
    fixed = {"C": 1.0, "l1_ratio": 0.9}
    scaler = StandardScaler().fit(x[:80].astype(np.float64))
    z, w = scaler.transform(x[:80].astype(np.float64)), scaler.transform(x[80:].astype(np.float64))
    scale = np.sqrt((z**2).sum(1).mean())
    shape = {"C": 1.0, "l1_ratio": 0.9, "solver": "saga", "class_weight": "balanced", "max_iter": 5000, "tol": 1e-6}
    oracle = LogisticRegression(**shape, random_state=1).fit(z / scale, y[:80])
    found = baselines.fit_predict("elastic_net", x[:80], y[:80], x[80:], 2, 0, fixed, balanced=True)
    assert found == pytest.approx(oracle.predict_proba(w / scale), abs=0.02)
    chosen = baselines.fit_predict("elastic_net", x[:80], y[:80], x[80:], 2, 0)
    assert (chosen.argmax(1) == y[80:]).mean() > 0.85
    noise = baselines.fit_predict("elastic_net", x[:80, 4:], y[:80], x[80:, 4:], 2, 0)
    assert np.abs(noise[:, 1] - 0.5).max() < np.abs(chosen[:, 1] - 0.5).max()


def test_elastic_net_of_values_is_least_squares_with_both_norms() -> None:
    x, _ = classes(160, 500, 2, signal=0.0)
    value = 50 + x[:, :4] @ np.array([4.0, -3, 3, 2]) + np.random.default_rng(2).normal(size=160)
    train, test, y = x[:80].astype(np.float64), x[80:].astype(np.float64), value[:80]
    mean, spread = train.mean(0), train.std(0)
    z, w = (train - mean) / spread / np.sqrt(500), (test - mean) / spread / np.sqrt(500)
    # C / 2 of the sum of squares + l1_ratio of the sizes + (1 - l1_ratio) / 2 of their squares, by proximal steps
    penalty, mixing, target = 3.0, 0.7, (y - y.mean()) / y.std()
    step = 1 / (penalty * np.linalg.norm(z, 2) ** 2 + 1 - mixing)
    weights = np.zeros(500)
    for _ in range(20_000):
        moved = weights - step * (penalty * z.T @ (z @ weights - target) + (1 - mixing) * weights)
        weights = np.sign(moved) * np.maximum(np.abs(moved) - step * mixing, 0)
    fixed = {"C": penalty, "l1_ratio": mixing}
    found = baselines.fit_predict("elastic_net", x[:80], y, x[80:], 0, 0, fixed)
    assert 0 < (weights != 0).sum() < 80
    assert found == pytest.approx(w @ weights * y.std() + y.mean(), abs=0.02 * y.std())
    chosen = baselines.fit_predict("elastic_net", x[:80], y, x[80:], 0, 0)
    assert (
        np.corrcoef(chosen, value[80:])[0, 1]
        > np.corrcoef(baselines.fit_predict("ridge", x[:80], y, x[80:], 0, 0), value[80:])[0, 1]
    )
    noise = baselines.fit_predict("elastic_net", x[:80, 4:], y, x[80:, 4:], 0, 0)
    assert noise.std() < 0.5 * chosen.std()


def test_balanced_classes_count_alike_and_rows_may_be_repeated_in_their_place() -> None:
    x, y = classes(400, 20, 2, signal=0.4)
    y[:200] = np.arange(200) % 5 == 0
    x[:, :5] += 0.8 * y[:, None]
    # trees that are grown in full, and forests of them, hardly notice
    for name in set(baselines.NAMES) - {"majority", "decision_tree", "random_forest"}:
        plain, even = (
            baselines.fit_predict(name, x[:200], y[:200], x[200:], 2, 0, balanced=balanced)
            for balanced in (False, True)
        )
        assert even[:, 1].mean() > plain[:, 1].mean(), name
    # A weight of n / (K n_k) is that of so many copies of a row.
    often = np.concatenate([np.flatnonzero(y[:200] == 0), np.repeat(np.flatnonzero(y[:200] == 1), 4)])
    for name, options in (("linear_svm", {"C": 0.01}), ("logistic", {"C": 10.0})):
        z = np.hstack(baselines._standardise(x[:200], x[:200])[:1])
        weighted = baselines.fit_predict(name, z, y[:200], z, 2, 0, options, balanced=True)
        copies = _of_copies(name, z[often], y[:200][often], z, len(often) / 200)
        assert weighted == pytest.approx(copies, abs=2e-3), name
    rare = baselines.fit_predict("majority", x[:200], y[:200], x[200:201], 2, 0, balanced=True)
    assert rare.tolist() == [[0.8, 0.2]]


def _of_copies(name: str, z: np.ndarray, y: np.ndarray, others: np.ndarray, grown: float) -> np.ndarray:
    """A linear model of standardised rows some of which are repeated; C as of one of 1 / `grown` of the rows."""
    if name == "logistic":
        scale = np.sqrt((others**2).sum(1).mean())
        model = LogisticRegression(C=10.0 / grown, max_iter=10_000, tol=1e-8).fit(z / scale, y)
        return model.predict_proba(others / scale)
    scale = np.sqrt((others**2).sum(1).mean())
    svm = LinearSVC(C=0.01 / grown, dual=False, intercept_scaling=scale, max_iter=100_000).fit(z, y)
    positive = 1 / (1 + np.exp(-svm.decision_function(others)))
    return np.column_stack([1 - positive, positive])


@pytest.mark.parametrize("f", [30, 300])
def test_missing_values_become_the_training_mean(f: int) -> None:
    x, y = classes(80, f, 3)
    random = np.random.default_rng(1)
    x[random.random(x.shape) < 0.1] = np.nan
    x[:50, 4] = np.nan  # never seen in training
    filled = x.copy()
    with np.errstate(invalid="ignore"):
        mean = np.array(
            [0.0 if np.isnan(column).all() else np.nanmean(column.astype(np.float64)) for column in x[:50].T]
        )
    filled = np.where(np.isnan(x), mean.astype(np.float32), x)
    for name in set(baselines.NAMES) - {"gradient_boosting"}:
        found = baselines.fit_predict(name, x[:50], y[:50], x[50:], 3, 0)
        assert found == pytest.approx(baselines.fit_predict(name, filled[:50], y[:50], filled[50:], 3, 0), abs=2e-3), (
            name
        )
        assert found.sum(1) == pytest.approx(1)
        assert np.isfinite(found).all() and found.dtype == np.float64
    value = filled[:, 0] + y
    for name in set(baselines.REGRESSION_NAMES) - {"gradient_boosting"}:
        found = baselines.fit_predict(name, x[:50], value[:50], x[50:], 0, 0)
        assert found == pytest.approx(
            baselines.fit_predict(name, filled[:50], value[:50], filled[50:], 0, 0), abs=2e-3
        ), name


@pytest.mark.parametrize("n_classes", [0, 3])
@pytest.mark.parametrize("f", [20, 300])
def test_a_score_depends_on_the_training_rows_and_its_own_row_alone(f: int, n_classes: int) -> None:
    x, y = classes(90, f, 3)
    y = y if n_classes else x[:, 0] * 2.0 + y
    for name in baselines.names(n_classes):
        whole = baselines.fit_predict(name, x[:60], y[:60], x[60:], n_classes, 0)
        one = baselines.fit_predict(name, x[:60], y[:60], x[70:71], n_classes, 0)
        assert one[0] == pytest.approx(whole[10], abs=1e-12), name
        assert baselines.fit_predict(name, x[:60], y[:60], x[:0], n_classes, 0).shape == ((0, 3) if n_classes else (0,))


@pytest.mark.parametrize("n_classes", [0, 4])
def test_the_same_whatever_the_threads_and_another_with_another_seed(n_classes: int) -> None:
    x, y = classes(150, 500, 4)
    outcomes = []
    for threads, seed in ((1, 0), (2, 0), (1, 1)):
        with threadpool_limits(threads):
            outcomes.append(
                [
                    baselines.fit_predict(n, x[:120], y[:120], x[120:], n_classes, seed)
                    for n in baselines.names(n_classes)
                ]
            )
    for first, second in zip(outcomes[0], outcomes[1], strict=True):
        assert first.tobytes() == second.tobytes()
    assert (outcomes[0][3] != outcomes[2][3]).any()  # the forest


def test_absent_and_single_classes() -> None:
    x, y = classes(60, 30, 2, signal=3.0)
    y = np.array([1, 3])[y]
    for name in baselines.NAMES:
        found = baselines.fit_predict(name, x[:40], y[:40], x[40:], 5, 0)
        assert found.shape == (20, 5) and (found[:, [0, 2, 4]] == 0).all(), name
        assert found[:, [1, 3]].sum(1) == pytest.approx(1)
        if name not in ("majority", "decision_tree"):
            assert (found.argmax(1) == y[40:]).mean() > 0.75, name
        alone = baselines.fit_predict(name, x[:3], np.full(3, 2), x[40:], 5, 0)
        assert (alone == np.eye(5)[2]).all(), name
    assert baselines.fit_predict("majority", x[:4], np.array([0, 1, 1, 1]), x[:2], 2, 0).tolist() == [[0.25, 0.75]] * 2
    assert baselines.fit_predict("majority", x[:4], np.array([0.0, 1, 2, 5]), x[:2], 0, 0).tolist() == [2, 2]
    for name in baselines.REGRESSION_NAMES:
        assert baselines.fit_predict(name, x[:4], np.full(4, 1.5), x[:2], 0, 0).tolist() == [1.5, 1.5], name
    nothing = np.full((6, 3), np.nan, np.float32)
    for name in baselines.NAMES:
        assert baselines.fit_predict(name, nothing, np.array([0, 1, 1, 0, 1, 1]), nothing, 2, 0)[:, 1] == pytest.approx(
            [2 / 3] * 6, abs=0.2
        ), name
    with pytest.raises(ValueError, match="expected one of majority"):
        baselines.fit_predict("ridge", x, y, x, 5, 0)
    with pytest.raises(ValueError, match="no training row"):
        baselines.fit_predict("majority", x[:0], y[:0], x, 5, 0)


def test_regression_finds_a_linear_truth() -> None:
    random = np.random.default_rng(0)
    x = random.normal(2, 3, (300, 40)).astype(np.float32)
    y = 100 + x[:, :5] @ np.array([5.0, -4, 3, 2, 1]) + random.normal(size=300)
    scores = {
        name: np.corrcoef(baselines.fit_predict(name, x[:200], y[:200], x[200:], 0, 0), y[200:])[0, 1]
        for name in baselines.REGRESSION_NAMES[1:]
    }
    assert scores["ridge"] > 0.995 and scores["elastic_net"] > 0.99
    assert scores["linear_svm"] > 0.98
    assert scores["random_forest"] > scores["decision_tree"] > 0.4


def test_planted_noise_scores_chance() -> None:
    x, y = classes(200, 3000, 2, signal=0.0)
    for name in ("linear_svm", "logistic"):
        scores = np.empty(200)
        for train, test in StratifiedKFold(5).split(x, y):
            scores[test] = baselines.fit_predict(name, x[train], y[train], x[test], 2, 0)[:, 1]
        assert roc_auc_score(y, scores) == pytest.approx(0.5, abs=0.12), name


def test_the_penalty_is_strong_for_noise_and_weak_for_signal() -> None:
    noise, y = classes(120, 50, 2, signal=0.0)
    z = StandardScaler().fit_transform(noise)
    assert penalties.of_logistic(z / np.sqrt(50), y, 0) == penalties.PENALTIES[0]
    z[:, 0] = 4.0 * y
    assert penalties.of_logistic(z / np.sqrt(50), y, 0) >= 100


def test_boosted_trees_learn_from_what_is_missing() -> None:
    random = np.random.default_rng(3)
    x, y = random.normal(size=(400, 6)).astype(np.float32), random.integers(0, 2, 400)
    x[(y == 1) & (random.random(400) < 0.9), 2] = np.nan
    x[:, 4] = np.nan  # never seen
    found = baselines.fit_predict("gradient_boosting", x[:200], y[:200], x[200:], 2, 0)[:, 1]
    assert roc_auc_score(y[200:], found) > 0.9
    value = baselines.fit_predict("gradient_boosting", x[:200], 3.0 + y[:200], x[200:], 0, 0)
    assert np.corrcoef(value, y[200:])[0, 1] > 0.8
    wide = np.concatenate([np.full((400, 3000), np.nan, np.float32), np.ones((400, 2500), np.float32), x], 1)
    found = baselines.fit_predict("gradient_boosting", wide[:200], y[:200], wide[200:], 2, 0)[:, 1]
    assert roc_auc_score(y[200:], found) > 0.9


@pytest.mark.parametrize("f", [30, 5000])
def test_boosted_trees_are_those_of_scikit_learn(f: int) -> None:
    x, y = classes(120, f, 3, signal=2.0)
    x[:, f // 2] = x[:, 0]  # among the last features, too
    x[:, 1] = 7.0
    shared = baselines._shared(x[:90], np.eye(3)[y[:90]])
    ratio, _ = f_classif(np.delete(x[:90], 1, 1).astype(np.float64), y[:90])
    assert np.delete(shared, 1) == pytest.approx(1 / (1 + (90 - 3) / (2 * ratio)), rel=1e-6) and shared[1] == 0
    used = np.sort(np.argsort(-shared, kind="stable")[:2000])
    assert {0, f // 2} <= set(used.tolist()) and len(used) == min(f, 2000)
    settings = {"min_samples_leaf": 20, "max_bins": 63, "early_stopping": False, "random_state": 4}
    settings["max_features"] = 1.0 if f == 30 else 0.1
    oracle = HistGradientBoostingClassifier(**settings).fit(x[:90, used], y[:90]).predict_proba(x[90:, used])
    found = baselines.fit_predict("gradient_boosting", x[:90], y[:90], x[90:], 3, 4)
    np.testing.assert_array_equal(found, oracle)
    assert (found.argmax(1) == y[90:]).mean() > 0.7
    value = x[:, 0] + x[:, 3]
    related = baselines._shared(x[:90], (value[:90] - value[:90].mean())[:, None])
    assert np.delete(related, 1) == pytest.approx(
        [np.corrcoef(column, value[:90])[0, 1] ** 2 for column in np.delete(x[:90], 1, 1).T], rel=1e-3, abs=1e-6
    )
    few = baselines.fit_predict("gradient_boosting", x[:12], y[:12], x[90:], 3, 0)  # a leaf of 4 rows
    assert len(np.unique(few, axis=0)) > 1


def test_boosted_trees_find_a_rare_class() -> None:
    x, y = classes(1000, 20, 2, signal=2.0)
    kept = (y == 0) | (np.random.default_rng(0).random(1000) < 0.06)
    x, y = x[kept], y[kept]
    half = len(y) // 2
    found = baselines.fit_predict("gradient_boosting", x[:half], y[:half], x[half:], 2, 0)[:, 1]
    assert roc_auc_score(y[half:], found) > 0.8 and found.mean() == pytest.approx(y[:half].mean(), abs=0.04)


def _published(name: str) -> tuple[np.ndarray, np.ndarray, pd.DataFrame]:
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent; set GENODL_SHARED_DATA to the folder of public data sets")
    matrix = pd.read_csv(folder / "matrix.tsv.gz", sep="\t", index_col=0)
    samples = pd.read_csv(folder / "samples.tsv", sep="\t")
    return (
        matrix[samples["sample_id"]].to_numpy(np.float32).T,
        np.unique(samples["label"], return_inverse=True)[1],
        samples,
    )


def test_published_split_of_golub() -> None:
    x, y, samples = _published("expr_golub_leukemia")
    train = (samples["split"] == "train").to_numpy()
    right = {
        name: (baselines.fit_predict(name, x[train], y[train], x[~train], 2, 0).argmax(1) == y[~train]).sum()
        for name in baselines.NAMES
    }
    assert right["majority"] == 20
    assert right["linear_svm"] == 31
    assert right["random_forest"] == 26
    assert right["logistic"] >= 27
    assert right["decision_tree"] >= 27


def test_published_folds_of_khan_and_shipp() -> None:
    for data, accuracy, balanced in (("expr_khan_srbct", 0.984, 0.989), ("expr_shipp_dlbcl_fl", 0.948, 0.930)):
        x, y, samples = _published(data)
        ids, c = samples["sample_id"].to_numpy(str), int(y.max()) + 1
        for name in ("linear_svm", "logistic"):
            scores = np.full((1, len(y), c), np.nan)
            for train, test in StratifiedKFold(5, shuffle=True, random_state=0).split(x, y):
                scores[0, test] = baselines.fit_predict(name, x[train], y[train], x[test], c, 0)
            found = metrics.metrics(metrics.HeldOut(ids, ids, y.astype(float), scores, [str(i) for i in range(c)]))
            if name == "linear_svm":
                assert (found["accuracy"], found["balanced_accuracy"]) == pytest.approx((accuracy, balanced), abs=5e-4)
            assert found["balanced_accuracy"] > 0.9, (data, name)


def test_wide_data_is_fast() -> None:
    x, y = classes(400, 17_000, 5, signal=3.0)
    for name in ("linear_svm", "logistic"):
        start = time.process_time()
        baselines.fit_predict(name, x[:300], y[:300], x[300:], 5, 0)
        assert time.process_time() - start < 4, name
