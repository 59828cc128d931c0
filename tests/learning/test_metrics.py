"""Metrics against scikit-learn, bootstrap against rows copied literally, and what must not change a result."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sk

from genodl_spark.learning import metrics, weighted_metrics
from genodl_spark.learning.calibration import calibrated
from genodl_spark.learning.metrics import HeldOut


@pytest.fixture(autouse=True)
def _no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def classified(
    n: int, c: int, repeats: int = 1, seed: int = 0, signal: float = 1.0, groups: int = 0, ties: bool = False
) -> HeldOut:
    random = np.random.default_rng(seed)
    entities = np.array([f"s{i}" for i in range(n)])
    target = random.integers(0, c, n)
    logits = random.normal(size=(repeats, n, c))
    logits[:, np.arange(n), target] += signal
    scores = np.exp(logits)
    scores /= scores.sum(-1, keepdims=True)
    if ties:  # quarters, which add up exactly
        scores = np.floor(scores * 4) / 4
        scores[..., 0] += 1 - scores.sum(-1)
    names = np.array([f"g{i}" for i in random.integers(0, groups, n)]) if groups else entities
    return HeldOut(entities, names, target.astype(float), scores, [f"c{i}" for i in range(c)])


def measured(n: int, repeats: int = 1, seed: int = 0, groups: int = 0, ties: bool = False) -> HeldOut:
    random = np.random.default_rng(seed)
    entities = np.array([f"s{i}" for i in range(n)])
    target = random.normal(5, 2, n)
    scores = target + random.normal(1, 2, (repeats, n))
    if ties:
        target, scores = target.round(), scores.round()
    names = np.array([f"g{i}" for i in random.integers(0, groups, n)]) if groups else entities
    return HeldOut(entities, names, target, scores, [])


def reference(target: np.ndarray, scores: np.ndarray, weight: np.ndarray | None = None) -> dict[str, float]:
    """The same metrics by scikit-learn and SciPy, and by literal pairs; all classes are present."""
    copies = np.repeat(np.arange(len(target)), 1 if weight is None else weight.astype(int))
    if scores.ndim == 1:
        return {
            "r2": sk.r2_score(target, scores, sample_weight=weight),
            "mae": sk.mean_absolute_error(target, scores, sample_weight=weight),
            "mse": sk.mean_squared_error(target, scores, sample_weight=weight),
            "c_index": concordance(target[copies], scores[copies]),
            **(
                {}
                if weight is not None
                else {"pearson": stats.pearsonr(target, scores)[0], "spearman": stats.spearmanr(target, scores)[0]}
            ),
        }
    c = scores.shape[1]
    predicted, hot = scores.argmax(1), np.eye(c)[target.astype(int)]
    chosen, positive = (scores[:, 1], hot[:, 1]) if c == 2 else (scores, hot)
    top = scores.max(1)
    ece = 0.0
    share = np.ones(len(target)) if weight is None else weight
    for b in range(15):
        inside = (top > b / 15) & (top <= (b + 1) / 15)
        if share[inside].sum():
            gap = np.average(predicted[inside] == target[inside], weights=share[inside]) - np.average(
                top[inside], weights=share[inside]
            )
            ece += abs(gap) * share[inside].sum() / share.sum()
    squares = ((scores - hot) ** 2).sum(1) / (2 if c == 2 else 1)
    return {
        "accuracy": sk.accuracy_score(target, predicted, sample_weight=weight),
        "balanced_accuracy": sk.balanced_accuracy_score(target, predicted, sample_weight=weight),
        "macro_f1": sk.f1_score(target, predicted, average="macro", sample_weight=weight),
        "mcc": sk.matthews_corrcoef(target, predicted, sample_weight=weight),
        "auroc": sk.roc_auc_score(positive, chosen, average="macro", sample_weight=weight),
        "auprc": sk.average_precision_score(positive, chosen, average="macro", sample_weight=weight),
        "auprc_base_rate": np.average(positive, axis=0, weights=weight).mean(),
        "brier": np.average(squares, weights=weight),
        "ece": ece,
        "ari": sk.adjusted_rand_score(target[copies], predicted[copies]),
        "nmi": sk.normalized_mutual_info_score(target[copies], predicted[copies]),
    }


def concordance(target: np.ndarray, scores: np.ndarray) -> float:
    above = target[:, None] > target
    return float((above * ((scores[:, None] > scores) + 0.5 * (scores[:, None] == scores))).sum() / above.sum())


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("c", [2, 3, 5])
def test_classification_is_what_scikit_learn_says(c: int, ties: bool) -> None:
    held = classified(200, c, seed=c, ties=ties)
    assert metrics.metrics(held) == pytest.approx(reference(held.target, held.scores[0]), abs=1e-12)
    two = classified(200, c, repeats=2, seed=c, ties=ties)
    both = [reference(two.target, scores) for scores in two.scores]
    assert metrics.metrics(two) == pytest.approx(
        {name: (both[0][name] + both[1][name]) / 2 for name in both[0]}, abs=1e-12
    )
    assert list(metrics.metrics(held)) == list(metrics.CLASSIFICATION)


@pytest.mark.parametrize("ties", [False, True])
def test_regression_is_what_scikit_learn_and_scipy_say(ties: bool) -> None:
    held = measured(150, ties=ties)
    assert metrics.metrics(held) == pytest.approx(reference(held.target, held.scores[0]), abs=1e-12)
    far = replace(held, target=held.target + 1e6, scores=held.scores + 1e6)
    assert metrics.metrics(far) == pytest.approx(metrics.metrics(held), abs=1e-7)


@pytest.mark.parametrize(
    "held",
    [classified(80, 2, ties=True), classified(80, 4), measured(80, ties=True)],
    ids=["binary", "classes", "values"],
)
def test_weights_are_sample_weights(held: HeldOut) -> None:
    pooled = metrics._pooled(held)
    counts = np.random.default_rng(1).integers(1, 5, (80, 3)).astype(np.int32)
    weighted = pooled(counts)
    by_entity = np.argsort(np.argsort(held.entities))
    for draw in range(3):
        expected = reference(held.target, held.scores[0], counts[by_entity, draw].astype(float))
        assert {name: weighted[name][draw] for name in expected} == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("target", "said"),
    [("0000", "0000"), ("0011", "1100"), ("0011", "0000"), ("0000", "0011"), ("0", "0"), ("0123", "3210")],
)
def test_agreement_where_little_is_said(target: str, said: str) -> None:
    """One class, one class predicted, swapped classes, a class a row."""
    true, predicted = np.array(list(target), float), np.array(list(said), int)
    held = HeldOut(
        np.arange(len(true)).astype(str),
        np.arange(len(true)).astype(str),
        true,
        np.eye(4)[predicted][None],
        list("abcd"),
    )
    found = metrics.metrics(held)
    assert found["ari"] == pytest.approx(sk.adjusted_rand_score(true, predicted), abs=1e-12)
    assert found["nmi"] == pytest.approx(sk.normalized_mutual_info_score(true, predicted), abs=1e-12)


def test_concordance_of_any_ranks() -> None:
    random = np.random.default_rng(2)
    for n in (1, 2, 3, 17, 64, 65):
        for values in (2, 5, 1000):
            target, scores = random.integers(0, values, n).astype(float), random.integers(0, 6, n).astype(float)
            found = metrics.metrics(
                HeldOut(np.arange(n).astype(str), np.arange(n).astype(str), target, scores[None], [])
            )["c_index"]
            expected = concordance(target, scores) if len(set(target)) > 1 else np.nan
            np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("groups", [0, 12])
@pytest.mark.parametrize("kind", ["binary", "binary, ties", "classes", "values", "values, ties"])
def test_a_draw_is_the_rows_copied_literally(kind: str, groups: int) -> None:
    if kind.startswith("values"):
        held = measured(40, 2, groups=groups, ties="ties" in kind)
    else:
        held = classified(40, 2 if "binary" in kind else 4, 2, groups=groups, ties="ties" in kind)
    held.scores[0, 3] = np.nan  # not evaluated in the first repeat
    names = np.unique(held.groups)
    drawn: dict[str, list[float]] = {name: [] for name in metrics.metrics(held)}
    generator = np.random.default_rng([7, 0, 0xB007])
    for _ in range(60):
        rows = np.concatenate(
            [np.flatnonzero(held.groups == names[g]) for g in generator.integers(0, len(names), len(names))]
        )
        distinct = np.array([f"r{i}" for i in range(len(rows))])
        copied = replace(
            held, entities=distinct, groups=distinct, target=held.target[rows], scores=held.scores[:, rows]
        )
        for name, value in metrics.metrics(copied).items():
            drawn[name].append(value)
    found = metrics.intervals(held, 60, 7)
    for name, values in drawn.items():
        expected = metrics.Interval(metrics.metrics(held)[name], *np.nanpercentile(values, [2.5, 97.5]))
        assert found[name] == pytest.approx(expected, abs=1e-10), name


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for held in (classified(50, 3, 2), measured(50)):
        whole = metrics.intervals(held, 100)
        monkeypatch.setattr(metrics, "_CHUNK", 150)
        assert metrics.intervals(held, 100) == whole
        monkeypatch.undo()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0, 2, 3]), st.booleans())
def test_the_order_of_rows_changes_nothing(seed: int, c: int, grouped: bool) -> None:
    groups = 5 if grouped else 0
    held = classified(25, c, 2, seed, groups=groups, ties=seed % 2 == 0) if c else measured(25, 2, seed, groups=groups)
    other = classified(25, c, 2, seed + 1, groups=groups) if c else measured(25, 2, seed + 1, groups=groups)
    other = replace(other, target=held.target, groups=held.groups)
    order = np.random.default_rng(seed).permutation(25)

    def moved(h: HeldOut) -> HeldOut:
        return HeldOut(h.entities[order], h.groups[order], h.target[order], h.scores[:, order], h.classes)

    name = "mcc" if c else "spearman"
    assert metrics.intervals(moved(held), 30) == metrics.intervals(held, 30)
    assert metrics.paired(moved(held), other, name, 30) == metrics.paired(held, other, name, 30)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 5))
def test_a_perfect_predictor_and_a_constant_one(seed: int, c: int) -> None:
    held = classified(30, c, seed=seed)
    target = np.r_[np.arange(c), held.target[c:]]
    perfect = metrics.intervals(replace(held, target=target, scores=np.eye(c)[target.astype(int)][None]), 50)
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "mcc", "auroc", "auprc"):
        assert perfect[name] == (1, 1, 1), name
    assert perfect["brier"] == perfect["ece"] == (0, 0, 0)
    constant = metrics.intervals(replace(held, target=target, scores=np.full((1, 30, c), 1 / c)), 50)
    assert constant["auroc"] == pytest.approx((0.5, 0.5, 0.5), abs=1e-12)
    assert constant["mcc"] == (0, 0, 0)
    assert constant["auprc"] == pytest.approx(constant["auprc_base_rate"], abs=1e-12)
    values = measured(30, seed=seed)
    perfect = metrics.intervals(replace(values, scores=values.target[None]), 50)
    assert [perfect[name].low for name in ("r2", "pearson", "spearman")] == pytest.approx([1, 1, 1], abs=1e-12)
    assert perfect["mae"] == perfect["mse"] == (0, 0, 0)


def test_undefined_is_nan() -> None:
    held = classified(20, 3)
    one = metrics.intervals(replace(held, target=np.ones(20)), 20)
    assert all(np.isnan(one[name]).all() for name in ("auroc", "auprc", "auprc_base_rate", "mcc"))
    assert not np.isnan(
        [one[name].value for name in ("accuracy", "balanced_accuracy", "macro_f1", "brier", "ece")]
    ).any()
    flat = replace(measured(20), scores=np.full((1, 20), 0.1))
    assert np.isnan([metrics.metrics(flat)[name] for name in ("pearson", "spearman")]).all()
    assert metrics.metrics(flat)["r2"] < 0
    fixed = replace(measured(20), target=np.full(20, 0.1))
    assert np.isnan([metrics.metrics(fixed)[name] for name in ("r2", "pearson", "spearman")]).all()
    assert metrics.metrics(fixed)["mae"] > 0
    one_row = metrics._pooled(measured(20))(np.eye(20, dtype=np.int32) * 20)
    assert np.isnan([one_row[name] for name in ("r2", "pearson", "spearman")]).all() and (one_row["mae"] > 0).all()
    none = replace(held, scores=np.full((2, 20, 3), np.nan))
    assert np.isnan(list(metrics.metrics(none).values())).all() and none.n_test == 0
    assert np.isnan(list(metrics.intervals(none, 20).values())).all()
    assert np.isnan(metrics.paired(none, none, "accuracy", 20)).all()
    empty = HeldOut(np.empty(0, str), np.empty(0, str), np.empty(0), np.empty((1, 0, 2)), ["a", "b"])
    assert np.isnan(list(metrics.metrics(empty).values())).all()
    assert np.isnan(metrics.intervals(held, 0)["accuracy"][1:]).all()


def test_rows_not_evaluated_do_not_count() -> None:
    held = classified(30, 3, 2)
    held.scores[0, :10] = np.nan
    held.scores[:, 20] = np.nan
    first, second = np.r_[10:20, 21:30], np.r_[0:20, 21:30]
    parts = [reference(held.target[rows], held.scores[r, rows]) for r, rows in ((0, first), (1, second))]
    assert metrics.metrics(held) == pytest.approx(
        {name: (parts[0][name] + parts[1][name]) / 2 for name in parts[0]}, abs=1e-12
    )
    assert held.n_test == 29
    assert metrics.confusion(held).sum() == (19 + 29) / 2
    known = np.arange(30) != 20
    without = HeldOut(held.entities[known], held.groups[known], held.target[known], held.scores[:, known], held.classes)
    assert metrics.intervals(held, 50) == metrics.intervals(without, 50)  # nor are they drawn


def test_paired() -> None:
    a, b = classified(300, 2, seed=1, signal=2.0), classified(300, 2, seed=1, signal=2.0)
    assert metrics.paired(a, b, "auroc", 200) == (0, 0, 0)
    worse = replace(a, scores=(a.scores + 0.5 * np.random.default_rng(0).dirichlet([1, 1], (1, 300))) / 1.5)
    value, low, high = metrics.paired(a, worse, "accuracy", 500)
    assert value == metrics.metrics(a)["accuracy"] - metrics.metrics(worse)["accuracy"]
    assert low <= value <= high
    whole = metrics.intervals(a, 500)["accuracy"], metrics.intervals(worse, 500)["accuracy"]
    assert high - low < whole[0].high - whole[0].low < (whole[0].high - whole[0].low) + (whole[1].high - whole[1].low)
    # The draws of one pair are those of intervals: against a predictor that is always right, the interval is mirrored.
    perfect = replace(a, scores=np.eye(2)[a.target.astype(int)][None])
    against = metrics.paired(a, perfect, "accuracy", 500)
    assert against == pytest.approx(tuple(end - 1 for end in whole[0]), abs=1e-12)
    # A row that one of them lacks is left out of both.
    a.scores[0, :50] = np.nan
    assert metrics.paired(a, b, "accuracy", 200) == (0, 0, 0)
    with pytest.raises(ValueError, match="expected the same rows"):
        metrics.paired(a, replace(b, entities=np.char.add(b.entities, "x")), "accuracy")
    with pytest.raises(ValueError, match="expected one of accuracy"):
        metrics.paired(a, b, "r2")


def test_pairs_are_drawn_independently() -> None:
    a, b = classified(200, 2, seed=1), classified(200, 2, seed=2)
    b = replace(b, target=a.target)
    single = metrics.paired(a, b, "accuracy", 2000)
    assert metrics.paired_mean([(a, b)], "accuracy", 2000) == single
    four = metrics.paired_mean([(a, b)] * 4, "accuracy", 2000)
    assert four.value == pytest.approx(single.value)
    assert (four.high - four.low) / (single.high - single.low) == pytest.approx(0.5, abs=0.05)


def test_cohorts_are_drawn_apart() -> None:
    a, b = classified(300, 2, seed=1), classified(80, 2, seed=2)
    found, sides = metrics.apart(a, b, 2000, seed=3), [metrics.intervals(one, 2000) for one in (a, b)]
    assert set(found) == set(sides[0])
    for name in ("accuracy", "auroc", "brier"):
        assert found[name].value == pytest.approx(sides[0][name].value - sides[1][name].value, abs=1e-12)
        # widths add up as those of independent draws do
        width = np.hypot(*(side[name].high - side[name].low for side in sides))
        assert found[name].high - found[name].low == pytest.approx(width, rel=0.08), name
        assert found[name].low < found[name].value < found[name].high
    nobody = replace(b, scores=np.full_like(b.scores, np.nan))
    assert np.isnan(metrics.apart(a, nobody, 50)["accuracy"]).all()
    assert np.isnan(metrics.apart(a, b, 0)["auroc"][1:]).all()


def test_intervals_cover_and_groups_widen_them() -> None:
    covered = 0
    for seed in range(150):
        random = np.random.default_rng(seed)
        ids = np.arange(200).astype(str)
        right = random.random(200) < 0.8
        held = HeldOut(ids, ids, np.zeros(200), np.eye(2)[(~right).astype(int)][None], ["a", "b"])
        interval = metrics.intervals(held, 300, seed)["accuracy"]
        covered += interval.low <= 0.8 <= interval.high
    assert covered / 150 == pytest.approx(0.95, abs=0.05)
    # Ten copies of each row carry no more information: the group bootstrap knows, one by rows does not.
    copies = np.repeat(np.arange(200), 10)
    many = HeldOut(np.arange(2000).astype(str), ids[copies], held.target[copies], held.scores[:, copies], held.classes)
    grouped, single = (
        metrics.intervals(many, 1000)["accuracy"],
        metrics.intervals(replace(many, groups=many.entities), 1000)["accuracy"],
    )
    assert (grouped.high - grouped.low) / (single.high - single.low) == pytest.approx(10**0.5, rel=0.15)


def test_confusion_and_classes() -> None:
    held = classified(300, 3, 2)
    expected = sum(sk.confusion_matrix(held.target, scores.argmax(1)) for scores in held.scores) / 2
    assert metrics.confusion(held).tolist() == expected.tolist()
    rows = metrics.per_class(held)
    assert [row["class"] for row in rows] == held.classes
    assert [row["support"] for row in rows] == expected.sum(1).tolist()
    assert rows[1]["precision"] == pytest.approx(expected[1, 1] / expected[:, 1].sum())
    assert rows[1]["recall"] == pytest.approx(expected[1, 1] / expected[1].sum())
    assert rows[1]["f1"] == pytest.approx(2 / (1 / rows[1]["precision"] + 1 / rows[1]["recall"]))  # type: ignore[operator]


def test_calibration_curve() -> None:
    held = classified(400, 3, 2, seed=3)
    confidence, accuracy, count = metrics.calibration_curve(held, weighted_metrics.ECE_BINS)
    assert count.sum() == 400
    ece = np.nansum(np.abs(confidence - accuracy) * count) / 400
    assert ece == pytest.approx(metrics.metrics(held)["ece"], abs=0.02)
    assert np.isnan(confidence[count == 0]).all() and (count[:5] == 0).all()  # the highest of three is over 1/3
    edge = HeldOut(
        np.array(["a", "b"]),
        np.array(["a", "b"]),
        np.array([0.0, 1.0]),
        np.array([[[0.75, 0.25], [1.0, 0.0]]]),
        ["x", "y"],
    )
    assert metrics.calibration_curve(edge, 4)[2].tolist() == [0, 0, 1, 1]
    assert metrics.calibration_curve(edge)[1][[7, 9]].tolist() == [1, 0]


def test_curves_enclose_their_areas() -> None:
    for held in (classified(300, 2, ties=True), classified(300, 3)):
        found = metrics.metrics(held)
        roc, pr = metrics.roc_curves(held), metrics.pr_curves(held)
        assert list(roc) == list(pr) == (["c1"] if len(held.classes) == 2 else held.classes)
        assert np.mean([sk.auc(*curve) for curve in roc.values()]) == pytest.approx(found["auroc"], abs=1e-3)
        steps = [np.diff(recall) @ precision[1:] for recall, precision in pr.values()]
        assert np.mean(steps) == pytest.approx(found["auprc"], abs=1e-3)
    many = metrics.roc_curves(classified(20_000, 2), points=100)["c1"]
    assert len(many[0]) <= 100 and many[0][[0, -1]].tolist() == [0, 1]
    assert metrics.roc_curves(replace(held, target=np.zeros(300))) == {}


def test_by_group() -> None:
    held = classified(90, 3, 2, groups=20)
    labels = [None if i % 3 == 0 else "ab"[i % 3 - 1] for i in range(90)]
    parts = metrics.by_group(held, labels, 50)
    assert list(parts) == ["a", "b"]
    rows = np.arange(90) % 3 == 1
    only = replace(
        held,
        entities=held.entities[rows],
        groups=held.groups[rows],
        target=held.target[rows],
        scores=held.scores[:, rows],
    )
    assert parts["a"] == metrics.intervals(only, 50)


def test_what_does_not_fit_is_refused() -> None:
    held = classified(5, 2)
    for change, message in (
        ({"entities": np.array(list("aabcd"))}, "twice"),
        ({"scores": held.scores[:, :4]}, "do not fit"),
        ({"target": np.full(5, 2.0)}, "class index below 2"),
        ({"scores": np.full((1, 5, 2), np.inf)}, "infinite"),
        ({"target": np.full(5, np.nan)}, "not finite"),
    ):
        with pytest.raises(ValueError, match=message):
            replace(held, **change)


def test_a_cohort_takes_under_two_seconds() -> None:
    for held in (classified(2504, 5), classified(63, 4, 10)):
        start = time.process_time()
        metrics.intervals(held, 1000)
        assert time.process_time() - start < 2


def test_rows_are_ranked_by_what_was_said_before_each_fold_was_calibrated() -> None:
    """A temperature of its own moves a fold against the others: of easy and hard folds AUROC would lose by that."""
    generator = np.random.default_rng(8)
    n = 400
    target, fold = generator.integers(0, 2, n).astype(float), np.arange(n) % 2
    logit = (target * 2 - 1) * np.where(fold, 3.0, 0.3) + generator.normal(size=n)
    ids = np.arange(n).astype(str)
    raw = np.stack([1 / (1 + np.exp(logit)), 1 / (1 + np.exp(-logit))], 1)[None]
    tempered = calibrated(raw, target, fold[None], 1.0)
    plain = HeldOut(ids, ids, target, tempered, ["a", "b"])
    held = replace(plain, ranked=raw)
    found, without = metrics.metrics(held), metrics.metrics(plain)
    before = metrics.metrics(replace(plain, scores=raw))
    for name in found:
        wanted = before if name in ("auroc", "auprc") else without
        assert found[name] == wanted[name], name
    assert found["auroc"] == pytest.approx(sk.roc_auc_score(target, raw[0, :, 1]))
    assert found["auroc"] > without["auroc"] + 0.01
    some = held.of(np.flatnonzero(fold == 0))
    assert metrics.metrics(some)["auroc"] == pytest.approx(sk.roc_auc_score(target[fold == 0], raw[0, fold == 0, 1]))
    (x, y) = metrics.roc_curves(held, 10_000)["b"]
    assert float(sk.auc(x, y)) == pytest.approx(found["auroc"])
    difference = metrics.paired(held, plain, "auroc", 20)
    assert difference.value == pytest.approx(found["auroc"] - without["auroc"])
    with pytest.raises(ValueError, match="ranked"):
        replace(plain, ranked=raw[:, :5])
