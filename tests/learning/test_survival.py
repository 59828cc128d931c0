"""Times to an event: curves, Cox's model and metrics against statsmodels, scikit-survival and literal sums."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from scipy.stats import fisk
from statsmodels.duration.hazard_regression import PHReg
from statsmodels.duration.survfunc import SurvfuncRight, survdiff

from genodl_spark.learning import baselines, cox, heads, losses, metrics, survival
from genodl_spark.learning.baseline_fits import of_head
from genodl_spark.learning.heads import Head
from genodl_spark.learning.metrics import HeldOut
from genodl_spark.learning.model_files import card_of, new_card

TRUE = np.array([0.8, -0.5, 0.3, 0.0])


def cohort(n: int = 240, seed: int = 2, tied: bool = False) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows float64 (n, 4) whose hazards follow TRUE, their times, and whether the event came."""
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(n, 4))
    times, until = generator.exponential(np.exp(-x @ TRUE)), generator.exponential(2.0, n)
    event, times = times <= until, np.minimum(times, until)
    return x, times.round(1) + 0.1 if tied else times, event


def predicted(tied: bool = False, groups: int = 0, repeats: int = 1) -> HeldOut:
    """Survival at three times, of which the scores are not quite the order."""
    x, times, event = cohort(120, 5, tied)
    at = (0.2, 0.5, 1.0)
    hazard = np.exp(x @ TRUE * 0.7)[:, None] * np.array(at)
    generator = np.random.default_rng(1)
    scores = -(x @ TRUE) + generator.normal(scale=0.5, size=(repeats, len(x)))
    scores = scores.round(1) if tied else scores
    names = np.array([f"p{i:03}" for i in range(len(x))])
    of = np.array([f"g{i}" for i in generator.integers(0, groups, len(x))]) if groups else names
    answer = np.concatenate([scores[..., None], np.broadcast_to(np.exp(-hazard), (repeats, len(x), 3))], 2)
    return of_head(Head("t", "time", (), at), names, of, np.column_stack([times, event]), answer)


def by_hand(held: HeldOut, rows: np.ndarray) -> dict[str, float]:
    """Metrics of some rows, which may stand there several times, as their definitions read."""
    times, scores, s = held.target[rows], held.scores[0, rows], held.survival[0, rows]
    event, n = held.event[rows], len(rows)

    def known(time: float, before: bool) -> float:
        share = 1.0
        for t in np.unique(times):
            if t < time or (t == time and not before):
                lost, came = ((times == t) & ~event).sum(), ((times == t) & event).sum()
                at_risk = (times >= t).sum() - came
                share *= 1 - lost / at_risk if at_risk else 1
        return share

    weight = np.array([known(t, True) for t in times])
    found, pairs = {"c_index": 0.0, "c_index_uno": 0.0}, {"c_index": 0.0, "c_index_uno": 0.0}
    for i in np.flatnonzero(event):
        for j in range(n):
            if times[i] < times[j] or (times[i] == times[j] and not event[j]):
                right = (scores[i] < scores[j]) + 0.5 * (scores[i] == scores[j])
                until = held.times[-1] if held.times else np.inf
                for name, w in (("c_index", 1.0), ("c_index_uno", weight[i] ** -2 * (times[i] < until))):
                    found[name] += w * right
                    pairs[name] += w
    found = {name: found[name] / pairs[name] for name in found}
    for k, at in enumerate(held.times):
        total, area, both = 0.0, 0.0, 0.0
        for i in range(n):
            if times[i] > at:
                total += (1 - s[i, k]) ** 2 / known(at, False)
            elif event[i]:
                total += s[i, k] ** 2 / weight[i]
                for j in np.flatnonzero(times > at):
                    area += ((scores[i] < scores[j]) + 0.5 * (scores[i] == scores[j])) / weight[i]
                    both += 1 / weight[i]
        found |= {f"brier@{at:g}": total / n, f"auroc@{at:g}": area / both}
    briers = [found[f"brier@{at:g}"] for at in held.times]
    (a, b, c), (x, y, z) = held.times, briers
    found["integrated_brier"] = ((b - a) * (x + y) / 2 + (c - b) * (y + z) / 2) / (c - a)
    found["mean_auroc"] = float(np.mean([found[f"auroc@{at:g}"] for at in held.times]))
    return found


def test_curves_and_the_log_rank_test_are_those_of_statsmodels() -> None:
    x, times, event = cohort(tied=True)
    theirs, ours = SurvfuncRight(times, event), survival.kaplan_meier(times, event)
    np.testing.assert_allclose(ours.at(theirs.surv_times), theirs.surv_prob, rtol=1e-12)
    assert ours.at(np.array([0.0, 0.05])).tolist() == [1.0, 1.0] and ours.at(np.array([1e9]))[0] == ours.values[-1]
    group = (x[:, 1] > -0.4).astype(int) + (x[:, 1] > 0.4)
    np.testing.assert_allclose(survival.log_rank(times, event, group, 3), survdiff(times, event, group), rtol=1e-9)
    assert np.isnan(survival.log_rank(times, event, group * 0, 3)).all()
    # Breslow's baseline by its definition; without features it is Nelson and Aalen's, as of the baselines.
    risk = x @ TRUE
    at = [0.1, 0.75, 3.0]
    expected = [
        sum(
            (event & (times == t)).sum() / np.exp(risk[times >= t]).sum() for t in np.unique(times[event]) if t <= until
        )
        for until in at
    ]
    np.testing.assert_allclose(survival.breslow(times, event, risk).at(np.array(at)), expected, rtol=1e-12)
    hazard = survival.breslow(times, event, risk * 0).at(times)
    np.testing.assert_allclose(hazard - event, baselines.learning_times(times, event), rtol=1e-10, atol=1e-12)


def test_horizons_lie_evenly_among_the_events() -> None:
    times, event = np.arange(1.0, 1002.0), np.arange(1001) % 2 == 0
    found = survival.horizons(times, event)
    assert len(found) == survival.HORIZONS == 11 and (found[0], found[5], found[-1]) == (101.0, 501.0, 901.0)
    assert survival.horizons(times, event & False) == () and len(survival.horizons(times[:1], event[:1])) == 1


def test_coxs_model_is_that_of_statsmodels_and_recovers_the_truth() -> None:
    x, times, event = cohort(tied=True)
    theirs = PHReg(times, x, event, ties="breslow").fit()
    ours = cox.newton(x, times, event)
    np.testing.assert_allclose(ours, theirs.params, rtol=1e-6)
    assert cox.log_likelihood(x @ ours, times, event) == pytest.approx(theirs.llf, rel=1e-12)
    x, times, event = cohort(4000, 3)
    np.testing.assert_allclose(cox.newton(x, times, event), TRUE, atol=0.06)
    found = cox.elastic_net(x, times, event, 0)
    np.testing.assert_allclose(found, TRUE, atol=0.08)
    # rows in another order, or features that nothing depends on, change nothing to speak of
    order = np.random.default_rng(0).permutation(len(x))
    np.testing.assert_allclose(cox.newton(x[order], times[order], event[order]), cox.newton(x, times, event), atol=1e-9)


def test_the_elastic_net_is_that_of_scikit_survival() -> None:
    """CoxnetSurvivalAnalysis(alphas=..., l1_ratio=0.5, tol=1e-9, max_iter=100000) of version 0.28.0."""
    x, times, event = cohort(120, 7)
    wide = np.concatenate([x, np.random.default_rng(8).normal(size=(120, 8))], 1)
    found = np.array(list(cox.path(wide, times, event, [0.2, 0.1, 0.05], 0.5)))
    np.testing.assert_allclose(found, GOLDEN_NET, atol=2e-5)
    most = cox.strongest(wide, times, event, 0.5)
    weak, none = (next(cox.path(wide, times, event, [most * share], 0.5)) for share in (0.98, 1.001))
    assert (weak != 0).sum() == 1 and not none.any()


def test_metrics_of_times_are_those_of_scikit_survival() -> None:
    """concordance_index_censored, concordance_index_ipcw, brier_score, integrated_brier_score and
    cumulative_dynamic_auc of version 0.28.0, of rows that also tell what is lost to follow-up."""
    assert metrics.metrics(predicted()) == pytest.approx(GOLDEN_METRICS, abs=1e-9)


@pytest.mark.parametrize(
    ("tied", "until", "harrell", "uno"),
    [
        (False, 3, 0.6233741392501913, 0.6146631500644912),
        (False, 2, 0.6233741392501913, 0.6248963020418129),
        (False, 0, 0.6233741392501913, 0.6127008718024758),
        (True, 3, 0.6302928373565493, 0.6190276136022984),
        (True, 2, 0.6302928373565493, 0.6403906835802443),
        (True, 0, 0.6302928373565493, 0.6191240033674148),
    ],
)
def test_unos_index_is_that_of_scikit_survival_to_the_last_horizon(
    tied: bool, until: int, harrell: float, uno: float
) -> None:
    """concordance_index_censored(event, time, -score, tied_tol=0) and concordance_index_ipcw(y, y, -score, tau=...,
    tied_tol=0) of version 0.28.0, tau the last of the first `until` horizons, None of none. Of times that tie it was
    given those that are cut off 1e-6 later: it has no rule of its own that events come first."""
    held = predicted(tied)
    assert held.survival is not None
    kept = replace(held, times=held.times[:until], survival=held.survival[..., :until] if until else None)
    found = metrics.metrics(kept)
    assert found["c_index"] == pytest.approx(harrell, abs=1e-12)
    assert found["c_index_uno"] == pytest.approx(uno, abs=1e-12)
    # a score that is for a shorter time is the mirror image
    turned = metrics.metrics(replace(kept, scores=-kept.scores))
    assert turned["c_index_uno"] == pytest.approx(1 - uno, abs=1e-12)


def test_unos_index_does_not_hang_on_the_last_events() -> None:
    """An event among the few that are left says next to nothing of all others: without an end it would decide."""
    n = 200
    times, event = np.arange(1.0, n + 1), np.arange(n) < 50
    event[n - 4] = True
    scores = times.copy()
    scores[n - 4] = 1e3  # the one that is told wrong
    ids = np.arange(n).astype(str)
    target, curves = np.column_stack([times, event]), np.full((1, n, 2), 0.5)
    answer = np.concatenate([scores[None, :, None], curves], 2)
    ended = of_head(Head("t", "time", (), (10.0, 60.0)), ids, ids, target, answer)
    endless = of_head(Head("t", "time"), ids, ids, target, answer[..., :1])
    assert metrics.metrics(ended)["c_index"] > 0.99 and metrics.metrics(ended)["c_index_uno"] > 0.99
    assert metrics.metrics(endless)["c_index_uno"] < 0.8


@pytest.mark.parametrize("tied", [False, True])
def test_metrics_of_times_are_their_definitions_for_copies_of_rows_too(tied: bool) -> None:
    held = predicted(tied, groups=40)
    assert metrics.metrics(held) == pytest.approx(by_hand(held, np.arange(120)), abs=1e-12)
    names = np.unique(held.groups)
    generator = np.random.default_rng([5, 0, 0xB007])
    drawn = []
    for _ in range(6):
        counts = np.bincount(generator.integers(0, len(names), len(names)), minlength=len(names))
        drawn.append(by_hand(held, np.repeat(np.arange(120), counts[np.searchsorted(names, held.groups)])))
    for name, interval in metrics.intervals(held, 6, 5).items():
        expected = np.percentile([one[name] for one in drawn], [2.5, 97.5])
        np.testing.assert_allclose([interval.low, interval.high], expected, rtol=1e-10, err_msg=name)


def test_order_and_units_change_no_metric() -> None:
    held = predicted(repeats=2)
    order = np.random.default_rng(3).permutation(120)
    assert metrics.metrics(held.of(order)) == metrics.metrics(held)
    days = replace(held, target=held.target * 365, times=tuple(t * 365 for t in held.times))
    assert list(metrics.metrics(days).values()) == pytest.approx(list(metrics.metrics(held).values()), abs=1e-12)
    nothing = replace(held, survival=np.full((2, 120, 3), np.nan))
    found = metrics.metrics(nothing)
    assert np.isnan(found["integrated_brier"]) and found["mean_auroc"] == metrics.metrics(held)["mean_auroc"]
    assert metrics.best_baseline({"a": 0.2, "b": 0.1}, "integrated_brier") == "b"
    with pytest.raises(ValueError, match="survival does not fit"):
        replace(held, survival=None)


def test_baselines_of_times_give_an_order_and_curves() -> None:
    x, times, event = cohort(300)
    at, train = (0.2, 0.5, 1.0), slice(0, 200)
    scored = {
        name: baselines.fit_predict_times(name, x[train], times[train], event[train], x[200:], at, 0)
        for name in ("majority", "cox_elastic_net", "cox_covariates", "ridge")
    }
    curve = survival.kaplan_meier(times[train], event[train]).at(np.array(at))
    np.testing.assert_array_equal(scored["majority"], np.tile([0.0, *curve], (100, 1)))
    assert np.isnan(scored["ridge"][:, 1:]).all()
    ids = np.arange(100).astype(str)
    target = np.column_stack([times, event])[200:]
    found = {
        name: metrics.metrics(of_head(Head("t", "time", (), at), ids, ids, target, answer[None]))
        for name, answer in scored.items()
    }
    assert found["majority"]["c_index"] == found["majority"]["mean_auroc"] == 0.5
    for name in ("cox_elastic_net", "cox_covariates"):
        assert found[name]["c_index"] > 0.65 and (np.diff(scored[name][:, 1:]) < 0).all()
        assert found[name]["integrated_brier"] < found["majority"]["integrated_brier"] - 0.01
        assert found[name]["c_index"] == pytest.approx(found["ridge"]["c_index"], abs=0.05)
    # neither a missing value nor a feature that is the same for all takes it down; nor does the unit of a feature
    odd = x.copy() * [1000, 1, 1, 1]
    odd[5, 1] = np.nan
    odd = np.concatenate([odd, np.ones((300, 1))], 1)
    again = baselines.fit_predict_times("cox_elastic_net", odd[train], times[train], event[train], odd[200:], at, 0)
    np.testing.assert_allclose(again, scored["cox_elastic_net"], atol=0.2)
    settings = baselines.Evaluation(baselines=["majority", "cox_elastic_net", "cox_covariates", "logistic"])
    names = baselines.baseline_names(settings, [Head("t", "time")])
    assert names == ["majority", "cox_elastic_net", "cox_covariates", "ridge"]
    assert baselines.baseline_names(settings, [Head("k", "classes", ("a", "b"))]) == ["majority", "logistic"]
    assert baselines.of_features("cox_covariates", ["G1", "covariate:age", "covariate:grade=2"]).tolist() == [1, 2]


def test_noise_scores_chance() -> None:
    """Mean over simulated cohorts, each by five folds, of an elastic net of 40 features that say nothing."""
    found = []
    for seed in range(6):
        generator = np.random.default_rng(seed)
        x, times, event = generator.normal(size=(150, 40)), generator.exponential(size=150), generator.random(150) < 0.5
        scores, fold = np.empty(150), cox.dealt(event, seed)
        for k in range(5):
            rest = fold != k
            answer = baselines.fit_predict_times("cox_elastic_net", x[rest], times[rest], event[rest], x[~rest], (), 0)
            scores[~rest] = answer[:, 0]
        ids = np.arange(150).astype(str)
        held = of_head(Head("t", "time"), ids, ids, np.column_stack([times, event]), scores[None, :, None])
        found.append(metrics.metrics(held)["c_index"])
    assert 0.45 < np.mean(found) < 0.55, found


def test_a_log_logistic_answer_is_its_distribution() -> None:
    head = Head("t", "time", (), (1.0, 4.0))
    loss = losses.loss("auto", [head], (3,))
    outputs = torch.tensor([[[0.2, -0.3], [-0.5, 0.1]], [[0.4, 0.0], [-0.1, 0.6]]], dtype=torch.float64)
    standard = np.array([1.1, 0.7])
    found = loss.answer(outputs, standard, None)
    m, scale = outputs[..., 0].numpy() * 0.7 + 1.1, np.exp(outputs[..., 1].numpy()) * 0.7
    np.testing.assert_allclose(found[:, 0], np.exp(m.mean(0)), rtol=1e-12)
    expected = [fisk.sf(t, 1 / scale, scale=np.exp(m)).mean(0) for t in head.times]
    np.testing.assert_allclose(found[:, 1:].T, expected, rtol=1e-12)
    plain = losses.loss("auto", [Head("t", "time")], (3,)).answer(outputs, standard, None)
    np.testing.assert_array_equal(plain, found[:, :1])
    assert heads.heads_of("l", [], heads.stored([head])) == [head] and head.scores == 3
    assert heads.stored([Head("t", "time")]) == '[{"label": "t", "kind": "time", "classes": []}]'
    rest = {"model_id": "m", "task": "t", "label_column": "t", "features": ["f"], "dtype": "float32"}
    card = new_card([head], transform="none", model={}, members=1, batch=1, **rest)
    assert card.predicted == [head]
    document = asdict(card)
    assert card_of(json.dumps(document).encode(), "here").predicted == [head]
    del document["heads"][0]["times"]  # as models of before have it
    assert card_of(json.dumps(document).encode(), "here").predicted == [Head("t", "time")]


GOLDEN_NET = [
    [0.452189, -0.365838, 0.146279, 0.043705, 0, -0.003503, 0, 0, 0, 0.019014, 0, 0],
    [0.636279, -0.546476, 0.238455, 0.096071, -0.030174, -0.029612, 0, 0, -0.038884, 0.080248, 0, 0.064478],
    [
        0.757287,
        -0.668275,
        0.293859,
        0.127231,
        -0.09176,
        -0.047477,
        -0.004605,
        -0.001342,
        -0.057462,
        0.115713,
        0,
        0.11335,
    ],
]
GOLDEN_METRICS = {
    "c_index": 0.6233741393,
    "c_index_uno": 0.6146631501,
    "integrated_brier": 0.1962129372,
    "mean_auroc": 0.6500549711,
    "brier@0.2": 0.1823932753,
    "brier@0.5": 0.2077668756,
    "brier@1": 0.186018433,
    "auroc@0.2": 0.6552145143,
    "auroc@0.5": 0.6420474642,
    "auroc@1": 0.6529029348,
}
